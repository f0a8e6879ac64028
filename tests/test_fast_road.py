"""The fast roads give what the slow ones give, and hand over to them: calls bound in C++, epochs run in C++, threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings

import dagrt as keras
import numpy as np
import pytest
from dagrt import _core

rng = np.random.default_rng(5)


def two_inputs(order: str = "list") -> keras.Model:
    a, b = keras.Input((3,), name="a"), keras.Input((4,), dtype="int32", name="b")
    e = keras.layers.Flatten()(keras.layers.Embedding(10, 2)(b))
    h = keras.layers.concatenate([keras.layers.Dense(4, activation="tanh")(a), e])
    inputs = {"b": b, "a": a} if order == "dict" else [a, b]
    return keras.Model(inputs, {"y": keras.layers.Dense(2)(h), "z": keras.layers.Dense(1)(h)})


def data(rows: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(size=(rows, 3)).astype("float32"), rng.integers(0, 10, (rows, 4)).astype("int32")


@pytest.mark.parametrize("order", ["list", "dict"])
def test_predict_on_batch_in_every_form(order: str) -> None:
    model = two_inputs(order)
    a, b = data(5)
    given = {"a": a, "b": b}
    want = model.predict(given, verbose=0)
    forms = [given, {"b": b, "a": a}, [b, a] if order == "dict" else [a, b], (b, a) if order == "dict" else (a, b)]
    for _ in range(3):
        for x in forms:
            got = model.predict_on_batch(x)
            assert list(got) == list(want)
            for k in want:
                np.testing.assert_array_equal(got[k], want[k])
    assert model._steps["predict"].fast(given) is not NotImplemented
    # Not as traced: the slow road converts ...
    for x in (
        {"a": a.astype("float64"), "b": b},
        {"a": np.asfortranarray(a), "b": b},
        {"a": a.tolist(), "b": b.tolist()},
    ):
        assert model._steps["predict"].fast(x) is NotImplemented
        np.testing.assert_array_equal(model.predict_on_batch(x)["y"], want["y"])
    # ... or complains as ever.
    with pytest.raises(ValueError, match="input 'a': expected shape"):
        model.predict_on_batch({"a": a[:, :2].copy(), "b": b})
    with pytest.raises(ValueError, match="missing input 'b'"):
        model.predict_on_batch({"a": a})
    b[0, 0] = 10
    with pytest.raises(keras.DataError, match=r"expected ids in 0\.\.9, got 10"):
        model.predict_on_batch(given)


def test_fast_calls_see_new_weights_and_new_sizes() -> None:
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Dense(2, name="d")(x))
    for rows in (4, 4, 1, 4, 7, 0, 4):
        model.predict_on_batch(np.ones((rows, 3), "float32"))
    model.get_layer("d").set_weights([np.full((3, 2), 2.0), np.ones(2)])
    np.testing.assert_array_equal(model.predict_on_batch(np.ones((4, 3), "float32")), np.full((4, 2), 7.0))
    layer = model.get_layer("d")
    model.run_eagerly = True
    assert model.predict_on_batch(np.ones((4, 3), "float32")).shape == (4, layer.units)


def compiled(seed: int = 3) -> keras.Model:
    keras.utils.set_random_seed(seed)
    x = keras.Input((6,))
    h = keras.layers.Dropout(0.2)(keras.layers.Dense(8, activation="relu")(x))
    model = keras.Model(x, keras.layers.Dense(3, activation="softmax")(h))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def classes(rows: int = 50) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(size=(rows, 6)).astype("float32"), rng.integers(0, 3, rows).astype("int32")


def test_train_on_batch_is_the_same_step() -> None:
    x, y = classes(16)
    w = rng.uniform(size=16).astype("float32")
    fast, slow = compiled(), compiled()
    for i in range(5):
        weights = w if i % 2 else None
        got = fast.train_on_batch(x, y, sample_weight=weights)
        slow._clear_steps()
        assert got == slow.train_on_batch(x, y, sample_weight=weights)
        assert fast.test_on_batch(x, y, return_dict=True) == slow.test_on_batch(x, y, return_dict=True)
    for a, b in zip(fast.get_weights(), slow.get_weights()):
        np.testing.assert_array_equal(a, b)
    x[0, 0] = np.nan
    with pytest.warns(RuntimeWarning, match="loss is NaN"):
        assert np.isnan(fast.train_on_batch(x, y, return_dict=True)["loss"])


class Batches(keras.utils.PyDataset):
    def __init__(self, x: np.ndarray, y: np.ndarray, batch: int) -> None:
        super().__init__()
        self.x, self.y, self.batch = x, y, batch

    def __len__(self) -> int:
        return -(-len(self.x) // self.batch)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        s = slice(i * self.batch, (i + 1) * self.batch)
        return self.x[s], self.y[s]


@pytest.mark.parametrize("rows, batch", [(50, 16), (48, 16), (5, 32), (1, 1)])
def test_fit_in_cpp_is_the_python_loop(rows: int, batch: int) -> None:
    x, y = classes(rows)
    a, b = compiled(), compiled()
    ha = a.fit(x, y, batch_size=batch, epochs=3, shuffle=False, verbose=0, validation_data=(x, y))
    hb = b.fit(Batches(x, y, batch), epochs=3, shuffle=False, verbose=0, validation_data=(x, y))
    assert ha.history == hb.history
    for p, q in zip(a.get_weights(), b.get_weights()):
        np.testing.assert_array_equal(p, q)
    # Another batch size may sum in another order.
    np.testing.assert_allclose(a.predict(x, batch_size=batch, verbose=0), a.predict_on_batch(x), rtol=1e-6)


@pytest.mark.parametrize("width", [6, 20000])  # gathered in between, and ahead by a thread
@pytest.mark.parametrize("shuffle", [True, "batch"])
def test_shuffled_rows_are_each_seen_once(width: int, shuffle: object) -> None:
    rows = 22
    x = np.zeros((rows, width), "float32")
    x[:, 0] = x[:, -1] = 2.0 ** np.arange(rows)
    i = keras.Input((width,))
    model = keras.Model(i, keras.layers.Dense(1, use_bias=False)(i))

    class Sum(keras.metrics.Metric):
        def __init__(self) -> None:
            super().__init__(name="sum")
            self.total = self.add_weight(name="total", initializer="zeros")

        def update_state(self, y_true: object, y_pred: object, sample_weight: object = None) -> None:
            self.total.assign(self.total + keras.ops.sum(y_true))

        def result(self) -> object:
            return self.total

    model.compile(keras.optimizers.SGD(0.0), "mse", metrics=[Sum()])
    for epochs in (1, 2):
        history = model.fit(x, x[:, -1:], batch_size=4, epochs=epochs, shuffle=shuffle, verbose=0)
        assert history.history["sum"] == [2.0**rows - 1] * epochs


def test_callbacks_and_steps_per_execution_in_cpp_epochs(capsys: pytest.CaptureFixture) -> None:
    x, y = classes(50)
    model = compiled()
    seen: list[tuple] = []

    class Log(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
            seen.append(("begin", batch))

        def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
            assert "loss" in logs
            seen.append(("end", batch))
            if len(seen) == 20:
                self.model.stop_training = True

    model.fit(x, y, batch_size=10, verbose=1, callbacks=[Log()])
    assert seen == [(w, i) for i in range(5) for w in ("begin", "end")]
    assert "5/5" in capsys.readouterr().out
    seen.clear()
    model.compile("adam", "sparse_categorical_crossentropy", steps_per_execution=2)
    model.fit(x, y, batch_size=10, verbose=0, callbacks=[Log()])
    assert seen == [("begin", 0), ("end", 1), ("begin", 2), ("end", 3), ("begin", 4), ("end", 4)]
    model.fit(x, y, batch_size=1, verbose=0, callbacks=[Log()], epochs=3)
    assert len(seen) == 20


def test_a_bad_row_and_a_nan_in_a_cpp_epoch() -> None:
    x, y = classes(40)
    model = compiled()
    model.fit(x, y, batch_size=10, verbose=0)
    x[25] = np.nan
    with pytest.warns(RuntimeWarning, match="NaN at batch 2"):
        history = model.fit(x, y, batch_size=10, shuffle=False, verbose=0)
    assert np.isnan(history.history["loss"][0])
    assert all(np.isfinite(w).all() for w in model.get_weights())
    e = keras.Input((1,), dtype="int32")
    m = keras.Model(e, keras.layers.Flatten()(keras.layers.Embedding(4, 1)(e)))
    m.compile("sgd", "mse")
    ids = np.array([[0], [1], [2], [9]], "int32")
    with pytest.raises(keras.DataError, match=r"expected ids in 0\.\.3, got 9"):
        m.fit(ids, np.zeros((4, 1), "float32"), batch_size=1, shuffle=False, verbose=0)
    assert int(m.optimizer.iterations.numpy()) == 3  # as after the last complete step


def test_data_that_needs_conversion_takes_the_python_loop() -> None:
    x = rng.integers(0, 255, (20, 6)).astype("uint8")  # cast to float32 batch by batch
    y = rng.integers(0, 3, 20)
    a, b = compiled(), compiled()
    ha = a.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    hb = b.fit(x.astype("float32"), y, batch_size=8, shuffle=False, verbose=0)
    assert ha.history == hb.history
    np.testing.assert_array_equal(a.predict(x, verbose=0), b.predict(x.astype("float32"), verbose=0))


def test_functions_of_arrays() -> None:
    calls = []

    @keras.function
    def f(a: object, b: object) -> object:
        calls.append(1)
        return {"sum": a + b, "both": keras.ops.matmul(a, b)}

    x, y = rng.normal(size=(3, 3)).astype("float32"), rng.normal(size=(3, 3)).astype("float32")
    for _ in range(3):
        r = f(x, y)
        np.testing.assert_array_equal(r["sum"].numpy(), x + y)
    r = f(r["sum"], y)  # a result is an argument
    assert len(calls) == 1
    np.testing.assert_array_equal(f(x[:2, :2].copy(), y[:2, :2].copy())["sum"].numpy(), (x + y)[:2, :2])
    np.testing.assert_array_equal(f(x.T, y)["sum"].numpy(), x.T + y)
    np.testing.assert_array_equal(f(x.astype("float64"), y)["sum"].numpy(), x + y)
    np.testing.assert_allclose(f(x, y)["both"].numpy(), x @ y, rtol=1e-5)
    assert len(calls) == 2


def test_many_threads_call_one_model() -> None:
    model = two_inputs()
    a, b = data(8)
    want = model.predict_on_batch([a, b])
    errors: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(200):
                np.testing.assert_array_equal(model.predict_on_batch([a, b])["y"], want["y"])
        except Exception as e:
            errors.append(e)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors


SCRIPT = """
import hashlib
import numpy as np
import dagrt as keras
from dagrt import _core

keras.utils.set_random_seed(1)
x = keras.Input((20, 8))
model = keras.Model(x, keras.layers.Dense(64)(keras.layers.LSTM(96)(x)))
model.compile("adam", "mse")
rng = np.random.default_rng(0)
a, y = rng.normal(size=(64, 20, 8)).astype("float32"), rng.normal(size=(64, 64)).astype("float32")
model.fit(a, y, epochs=2, verbose=0)
digest = hashlib.sha256(model.predict(a, verbose=0).tobytes()).hexdigest()
print(digest, _core.num_threads(), _core.cpu_info()["thread_backend"])
"""


def run(**environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_same_bits_for_any_number_of_threads_and_either_backend() -> None:
    one = run(DAGRT_NUM_THREADS="1")
    pool = run(DAGRT_THREADS="pool")
    assert one[0] == pool[0] and one[1] == "1"
    assert run(DAGRT_THREADS="openmp", OMP_NUM_THREADS="1")[:2] == one[:2]


def test_an_unknown_backend_is_an_error() -> None:
    with pytest.raises(keras.DeviceError, match="expected 'pool' or 'openmp', got 'tbb'"):
        _core.set_thread_backend("tbb")


def test_threads_in_a_forked_child() -> None:
    model = two_inputs()
    a, b = data(8)
    want = model.predict_on_batch([a, b])["y"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        same = np.array_equal(model.predict_on_batch([a, b])["y"], want)
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
