"""Model files: Keras's formats, dagrt's own, damage, and what must not happen."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import dagrt as keras
import numpy as np
import pytest
from dagrt import _core, ops

pytest.importorskip("h5py")


def model(name: str = "m") -> Any:
    keras.clear_session()
    a = keras.Input((8,), name="a")
    shared = keras.layers.Dense(4, activation="relu", kernel_regularizer="l2", name="shared")
    x = shared(a)
    y = keras.layers.Dense(4)(a)
    z = keras.layers.BatchNormalization()(x + y) * 2.0
    inner = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), keras.layers.LayerNormalization()], name="inner"
    )
    out = keras.layers.concatenate([inner(z), z[:, 0:2]])
    m = keras.Model(a, {"head": keras.layers.Dense(2, name="head")(out), "x": x}, name=name)
    m.compile(keras.optimizers.AdamW(1e-2), {"head": "mse", "x": None}, metrics={"head": ["mae"]})
    m.fit(DATA, {"head": np.ones((16, 2))}, verbose=0)
    return m


DATA = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")


def test_keras_file_round_trip(tmp_path: Path) -> None:
    m = model()
    path = tmp_path / "m.keras"
    m.save(path)
    loaded = keras.models.load_model(path)
    for a, b in zip(m.weights, loaded.weights):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert [w.path for w in m.weights] == [w.path for w in loaded.weights]
    np.testing.assert_array_equal(m.predict(DATA, verbose=0)["head"], loaded.predict(DATA, verbose=0)["head"])
    for a, b in zip(m.optimizer.variables, loaded.optimizer.variables):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    one = m.fit(DATA, {"head": np.ones((16, 2))}, verbose=0, shuffle=False).history
    two = loaded.fit(DATA, {"head": np.ones((16, 2))}, verbose=0, shuffle=False).history
    assert one == two, "training goes on as if it had not been interrupted"
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["metadata.json", "config.json", "model.weights.h5"]
        config = json.loads(archive.read("config.json"))
    names = [entry["name"] for entry in config["config"]["layers"]]
    assert "add" in names and "get_item" in names and "multiply" in names


def test_weights_round_trip_and_mismatch(tmp_path: Path) -> None:
    m = model()
    path = tmp_path / "m.weights.h5"
    m.save_weights(path)
    want = m.get_weights()
    m.set_weights([w * 0 for w in want])
    m.load_weights(path)
    for a, b in zip(want, m.get_weights()):
        np.testing.assert_array_equal(a, b)
    x = keras.Input((8,))
    other = keras.Model(x, keras.layers.Dense(5)(x))
    before = other.get_weights()
    with pytest.raises(ValueError, match="nothing was changed"):
        other.load_weights(path)
    for a, b in zip(before, other.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    m = model()
    path = tmp_path / "m.keras"
    m.save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for cut in rng.integers(0, len(whole) - 1, 12):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError):
            keras.models.load_model(path)
    for at in rng.integers(0, len(whole), 25):
        broken = bytearray(whole)
        broken[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(broken))
        try:
            keras.models.load_model(path)
        except (ValueError, TypeError, OSError):
            continue


def test_a_lambda_in_a_file_is_never_run(tmp_path: Path) -> None:
    x = keras.Input((2,))
    m = keras.Model(x, keras.layers.Lambda(lambda t: t * 2.0)(x))
    with pytest.raises((TypeError, NotImplementedError), match="lambda"):
        m.save(tmp_path / "m.keras")


def test_custom_layer_round_trip(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable("tests")
    class Scale(keras.layers.Layer):
        def __init__(self, start: float, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.start = start

        def build(self, input_shape: Any) -> None:
            self.factor = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="factor")

        def call(self, x: Any) -> Any:
            return x * self.factor * self.start

        def get_config(self) -> dict:
            return {**super().get_config(), "start": self.start}

    x = keras.Input((3,))
    m = keras.Model(x, Scale(3.0)(x))
    m.layers[1].set_weights([np.array([1.0, 2.0, 3.0])])
    path = tmp_path / "m.keras"
    m.save(path)
    loaded = keras.models.load_model(path)
    np.testing.assert_array_equal(loaded.predict(np.ones((1, 3)), verbose=0), [[3.0, 6.0, 9.0]])


def test_saving_to_a_bad_place_says_so(tmp_path: Path) -> None:
    m = model()
    with pytest.raises(FileNotFoundError, match="does not exist"):
        m.save(tmp_path / "nowhere" / "m.keras")
    with pytest.raises(ValueError, match=r"\.keras"):
        m.save(tmp_path / "m.h5")
    (tmp_path / "m.keras").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        m.save(tmp_path / "m.keras", overwrite=False)
    assert (tmp_path / "m.keras").read_bytes() == b"old"


# --- .dagrt files --------------------------------------------------------------------------------------------------


def runner() -> str:
    """The program built together with the extension in use: another one may sum in another order."""
    core = Path(_core.__file__).resolve()
    installed = core.is_relative_to(Path(sys.prefix).resolve())
    place = Path(sys.executable).parent / "dagrt-run" if installed else core.parents[2] / "build/dev/dagrt-run"
    if not place.exists():
        pytest.skip(f"there is no {place}")
    return str(place)


def sequence_model() -> Any:
    keras.clear_session()
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = keras.layers.LSTM(12)(keras.layers.Embedding(30, 8)(ids))
    return keras.Model(ids, keras.layers.Dense(3, activation="softmax", name="answer")(x))


def test_one_export_serves_batches_and_lengths_with_the_same_bits(tmp_path: Path) -> None:
    m = sequence_model()
    path = tmp_path / "m.dagrt"
    m.export(path)
    run = runner()
    rng = np.random.default_rng(0)
    for batch in (1, 7, 32):
        for length in (4, 9):
            x = rng.integers(0, 30, (batch, length)).astype("int32")
            np.save(tmp_path / "x.npy", x)
            done = subprocess.run(
                [run, str(path), str(tmp_path / "x.npy"), "-o", str(tmp_path / "y.npy")], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            assert np.load(tmp_path / "y.npy").tobytes() == np.asarray(m.predict_on_batch(x)).tobytes()
    linked = subprocess.run(["ldd", run], capture_output=True, text=True).stdout
    assert "python" not in linked
    assert subprocess.run([run, str(path), "--selftest"], capture_output=True).returncode == 0


def test_run_reports_mistakes(tmp_path: Path) -> None:
    m = sequence_model()
    path = tmp_path / "m.dagrt"
    m.export(path)
    np.save(tmp_path / "x.npy", np.full((2, 4), 99, "int32"))
    done = subprocess.run([runner(), str(path), str(tmp_path / "x.npy")], capture_output=True, text=True)
    assert done.returncode != 0 and "99" in done.stderr and "embedding" in done.stderr
    path.write_bytes(path.read_bytes()[:200])
    done = subprocess.run([runner(), str(path), str(tmp_path / "x.npy")], capture_output=True, text=True)
    assert done.returncode != 0 and done.stderr


def test_damaged_exports_are_refused(tmp_path: Path) -> None:
    from dagrt import _core

    path = tmp_path / "m.dagrt"
    sequence_model().export(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(2)
    for cut in rng.integers(0, len(whole) - 1, 20):
        path.write_bytes(whole[:cut])
        with pytest.raises(_core.Error):
            _core.read_model(str(path))
    for at in rng.integers(0, 3000, 200):
        broken = bytearray(whole)
        broken[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(broken))
        try:
            _core.read_model(str(path))
        except _core.Error:
            continue


def test_export_refuses_state(tmp_path: Path) -> None:
    class Counter(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.n = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x: Any) -> Any:
            self.n.assign(self.n + 1.0)
            return x + ops.cast(self.n, "float32")

    x = keras.Input((2,))
    m = keras.Model(x, Counter()(x))
    with pytest.raises(keras.GraphError, match="state"):
        m.export(tmp_path / "m.dagrt")
