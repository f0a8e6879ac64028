"""Files go both ways: dagrt reads what Keras wrote (golden/files), and Keras, where it is installed, what dagrt wrote."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagrt as keras
import file_models
import numpy as np
import pytest

pytest.importorskip("h5py")

FILES = Path(__file__).parent / "golden" / "files"
READ = """
import sys
import keras, numpy as np
from file_models import MODELS
for name in MODELS:
    folder = sys.argv[1]
    model = keras.models.load_model(f"{folder}/{name}.keras")
    _, x, y = MODELS[name](keras)
    want = np.load(f"{folder}/{name}.npz")
    for i, p in enumerate(keras.tree.flatten(model.predict(x, verbose=0))):
        np.testing.assert_allclose(p, want[f"arr_{i}"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.train_on_batch(x, y, return_dict=True)["loss"], want["loss"], rtol=1e-4, atol=1e-6)
"""


@pytest.mark.parametrize("name", file_models.MODELS)
def test_reads_what_keras_wrote(name: str) -> None:
    keras.clear_session()
    want = np.load(FILES / f"{name}.npz")
    model = keras.models.load_model(FILES / f"{name}.keras")
    _, x, y = file_models.MODELS[name](keras)
    outputs = keras.tree.flatten(model.predict(x, verbose=0))
    for i, p in enumerate(outputs):
        np.testing.assert_allclose(p, want[f"arr_{i}"], rtol=1e-5, atol=1e-6)
    loss = model.train_on_batch(x, y, return_dict=True)["loss"]
    np.testing.assert_allclose(loss, want["loss"], rtol=1e-4, atol=1e-6)
    assert model.optimizer.iterations.numpy() == 3, "two steps in Keras, one here"


@pytest.mark.parametrize("name", file_models.MODELS)
def test_writes_what_keras_writes(name: str, tmp_path: Path) -> None:
    """The same members, groups and data sets, in the same shapes."""
    import h5py

    keras.clear_session()
    file_models.trained(keras, name)[0].save(tmp_path / "m.keras")

    def contents(path: Path) -> dict[str, tuple]:
        import io
        import zipfile

        found: dict[str, tuple] = {}
        with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as h5:
            h5.visititems(lambda n, o: found.update({n: o.shape} if isinstance(o, h5py.Dataset) else {}))
        return found

    assert contents(tmp_path / "m.keras") == contents(FILES / f"{name}.keras")


@pytest.mark.slow
def test_keras_reads_what_dagrt_wrote(tmp_path: Path) -> None:
    pytest.importorskip("keras")
    for name in file_models.MODELS:
        keras.clear_session()
        model, x, y = file_models.trained(keras, name)
        model.save(tmp_path / f"{name}.keras")
        outputs = keras.tree.flatten(model.predict(x, verbose=0))
        np.savez(tmp_path / f"{name}.npz", *outputs, loss=model.train_on_batch(x, y, return_dict=True)["loss"])
    subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path)],
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(Path(__file__).parent)},
        check=True,
        timeout=600,
    )
