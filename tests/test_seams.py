"""The seams that later work stands on: one test for each promise."""

from __future__ import annotations

import gc
import threading
from typing import Any

import dagrt as keras
import numpy as np
import pytest
from dagrt import ops


def text_model(vocabulary: int = 50) -> Any:
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = keras.layers.Embedding(vocabulary, 8)(ids)
    x = keras.layers.LSTM(6)(x)
    return keras.Model(ids, keras.layers.Dense(3, activation="softmax")(x))


def test_one_module_serves_batches_and_lengths() -> None:
    model = text_model()
    rng = np.random.default_rng(0)
    for batch in (1, 7, 32):
        for length in (5, 11):
            x = rng.integers(0, 50, (batch, length))
            got = model.predict_on_batch(x)
            rows = np.concatenate([model.predict_on_batch(x[i : i + 1]) for i in range(batch)])
            np.testing.assert_allclose(got, rows, rtol=2e-5, atol=1e-6)
    assert len(model._steps["predict"]._traces) == 1, "one trace must serve all"


def test_broadcast_of_an_unknown_batch_that_turns_out_1() -> None:
    """(None, 8) + (None, 8) with one batch of 1, gradients included."""

    @keras.function(
        input_signature=[keras.tracing.InputSpec((None, 8), "float32"), keras.tracing.InputSpec((None, 8), "float32")]
    )
    def f(a: Any, b: Any) -> Any:
        loss = ops.sum(ops.square(a + b))
        return (a + b, *ops.gradients(loss, [a, b]))

    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(5, 8)).astype("float32"), rng.normal(size=(1, 8)).astype("float32")
    for x, y in ((a, a), (a, b), (b, a)):
        s, da, db = (np.asarray(t) for t in f(x, y))
        np.testing.assert_allclose(s, x + y, rtol=1e-6)
        g = 2 * (x + y)
        np.testing.assert_allclose(da, g if x.shape == g.shape else g.sum(0, keepdims=True), rtol=1e-5)
        np.testing.assert_allclose(db, g if y.shape == g.shape else g.sum(0, keepdims=True), rtol=1e-5)


class Gan(keras.Model):
    """Two optimisers, one traced step; the generator's pass reads the updated discriminator."""

    def __init__(self, vocabulary: int | None = None) -> None:
        super().__init__()
        self.discriminator = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        self.generator = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        self.table = keras.layers.Embedding(4, 2)
        self.table.build((None,))
        self.checked = vocabulary is not None
        self.built = True

    def compile(self, d: Any, g: Any) -> None:
        super().compile(optimizer=g)
        self.d_optimizer = d
        d.build(self.discriminator.trainable_variables)
        g.build(self.generator.trainable_variables)

    def train_step(self, data: Any) -> dict:
        (real, noise, ids) = data[0]
        d_vars, g_vars = self.discriminator.trainable_variables, self.generator.trainable_variables
        d_loss = ops.mean(self.discriminator(self.generator(noise))) - ops.mean(self.discriminator(real))
        self.d_optimizer.apply(ops.gradients(d_loss, d_vars), d_vars)
        g_loss = -ops.mean(self.discriminator(self.generator(noise)))
        if self.checked:
            g_loss = g_loss + ops.mean(self.table(ids))
        self.optimizer.apply(ops.gradients(g_loss, g_vars), g_vars)
        return {"d_loss": d_loss, "g_loss": g_loss}


def gan_data(bad: bool = False) -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    ids = np.array([0, 1, 2, 9 if bad else 3], "int32")
    return [rng.normal(size=(4, 2)).astype("float32"), rng.normal(size=(4, 3)).astype("float32"), ids]


def test_gan_reads_the_updated_discriminator() -> None:
    gan = Gan()
    gan.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1))
    real, noise, ids = gan_data()
    dk, db = gan.discriminator.get_weights()
    gk, gb = gan.generator.get_weights()
    logs = gan.train_on_batch([real, noise, ids], return_dict=True)
    fake = noise @ gk + gb
    new_dk = dk - 0.1 * (fake.mean(0) - real.mean(0))[:, None]
    np.testing.assert_allclose(gan.discriminator.get_weights()[0], new_dk, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(logs["g_loss"], -(fake @ new_dk + db).mean(), rtol=1e-4, atol=1e-6)
    new_gb = gb + 0.1 * new_dk[:, 0]  # the gradient passes through the updated kernel
    np.testing.assert_allclose(gan.generator.get_weights()[1], new_gb, rtol=1e-4, atol=1e-6)


def test_bad_id_in_the_second_half_changes_nothing() -> None:
    gan = Gan(vocabulary=4)
    gan.compile(keras.optimizers.Adam(0.1), keras.optimizers.Adam(0.1))
    gan.train_on_batch(gan_data())
    before = [v.numpy() for v in [*gan.variables, *gan.optimizer.variables, *gan.d_optimizer.variables]]
    with pytest.raises(IndexError, match=r"9.*3|expected.*9"):
        gan.train_on_batch(gan_data(bad=True))
    after = [v.numpy() for v in [*gan.variables, *gan.optimizer.variables, *gan.d_optimizer.variables]]
    for a, b in zip(before, after):
        np.testing.assert_array_equal(a, b)
    gan.train_on_batch(gan_data())  # the next call is right again


def test_sampling_layer_sized_by_shape() -> None:
    class Sampling(keras.layers.Layer):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.seed_generator = keras.random.SeedGenerator(7)

        def call(self, inputs: Any) -> Any:
            mean, log_var = inputs
            batch, dim = ops.shape(mean)[0], ops.shape(mean)[1]
            noise = keras.random.normal((batch, dim), seed=self.seed_generator)
            return mean + ops.exp(0.5 * log_var) * noise

    a, b = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([a, b], Sampling()([a, b]))
    for n in (3, 8):
        zeros = np.zeros((n, 4), "float32")
        first, second = model.predict_on_batch([zeros, zeros]), model.predict_on_batch([zeros, zeros])
        assert first.shape == (n, 4)
        assert not np.array_equal(first, second), "each run draws anew"
        assert abs(first.std() - 1) < 0.6


def test_two_threads_predict_while_a_third_trains() -> None:
    x = keras.Input((8,))
    model = keras.Model(x, keras.layers.Dense(1, use_bias=False)(keras.layers.Dense(8, use_bias=False)(x)))
    for layer in model.layers[1:]:
        layer.set_weights([np.ones_like(layer.get_weights()[0])])
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    rng = np.random.default_rng(3)
    data, y = rng.normal(size=(16, 8)).astype("float32"), np.zeros((16, 1), "float32")
    model.train_on_batch(data, y)
    model.predict_on_batch(data)
    failures: list[BaseException] = []
    done = threading.Event()

    def predict() -> None:
        try:
            while not done.is_set():
                p = model.predict_on_batch(np.ones((16, 8), "float32"))
                assert np.ptp(p) < 1e-4, "rows of one run must see one set of weights"
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=predict) for _ in range(2)]
    for t in threads:
        t.start()
    try:
        for _ in range(200):
            model.train_on_batch(data, y)
    finally:
        done.set()
        for t in threads:
            t.join()
    assert not failures, failures


def test_eager_layer_sees_its_attributes_change() -> None:
    class Power(keras.layers.Layer):
        factor = 2.0

        def call(self, x: Any) -> Any:
            return x * self.factor if self.factor > 0 else x

    layer = Power()
    x = np.ones((2,), "float32")
    assert layer(x).numpy().tolist() == [2.0, 2.0]
    layer.factor = 5.0
    assert layer(x).numpy().tolist() == [5.0, 5.0]
    layer.factor = -1.0
    assert layer(x).numpy().tolist() == [1.0, 1.0]


def resident_bytes() -> int:
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096


def build_fit_delete() -> None:
    keras.clear_session()
    x = keras.Input((16,))
    h = keras.layers.Dense(64, activation="relu")(x)
    model = keras.Model(x, keras.layers.Dense(2)(h))
    model.compile("adam", "mse")
    model.fit(np.ones((32, 16), "float32"), np.ones((32, 2), "float32"), verbose=0)


@pytest.mark.parametrize("rounds", [40, pytest.param(300, marks=pytest.mark.slow)])
def test_build_fit_delete_leaves_memory_flat(rounds: int) -> None:
    for _ in range(max(10, rounds // 6)):
        build_fit_delete()
    gc.collect()
    before = resident_bytes()
    for _ in range(rounds):
        build_fit_delete()
    gc.collect()
    grown = resident_bytes() - before
    assert grown < 4_000_000 + rounds * 10_000, f"{grown / rounds:.0f} bytes a round"


@pytest.mark.parametrize("calls", [2000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_predict_leaves_memory_flat(calls: int) -> None:
    model = text_model()
    x = np.zeros((4, 9), "int32")
    for _ in range(500):
        model.predict_on_batch(x)
    gc.collect()
    before = resident_bytes()
    for _ in range(calls):
        model.predict_on_batch(x)
    gc.collect()
    assert resident_bytes() - before < 2_000_000


def test_shared_layers_see_training_through_another_model() -> None:
    x = keras.Input((4,))
    trunk = keras.layers.Dense(3, name="trunk")
    h = trunk(x)
    first, second = keras.Model(x, keras.layers.Dense(1)(h)), keras.Model(x, h)
    before = second.predict_on_batch(np.ones((2, 4), "float32"))
    first.compile("sgd", "mse")
    first.fit(np.ones((8, 4)), np.zeros((8, 1)) + 5, verbose=0)
    assert not np.allclose(before, second.predict_on_batch(np.ones((2, 4), "float32")))
    assert second.layers[1] is trunk


def test_frozen_discriminator_still_trains_by_its_own_compile() -> None:
    x = keras.Input((4,))
    d = keras.Model(x, keras.layers.Dense(1)(x))
    d.compile("sgd", "mse")
    d.trainable = False
    z = keras.Input((4,))
    combined = keras.Model(z, d(keras.layers.Dense(4)(z)))
    combined.compile("sgd", "mse")
    frozen = d.get_weights()[0]
    combined.train_on_batch(np.ones((4, 4), "float32"), np.zeros((4, 1), "float32"))
    np.testing.assert_array_equal(frozen, d.get_weights()[0])
    d.train_on_batch(np.ones((4, 4), "float32"), np.zeros((4, 1), "float32"))
    assert not np.array_equal(frozen, d.get_weights()[0])


def test_same_seed_same_training_on_any_thread_count() -> None:
    from dagrt import _core

    results = []
    for threads in (1, 2):
        _core.set_num_threads(threads)
        try:
            keras.clear_session()
            keras.utils.set_random_seed(3)
            x = keras.Input((20,))
            h = keras.layers.Dropout(0.3)(keras.layers.Dense(50, activation="relu")(x))
            model = keras.Model(x, keras.layers.Dense(3, activation="softmax")(h))
            model.compile("adam", "sparse_categorical_crossentropy")
            rng = np.random.default_rng(0)
            model.fit(rng.normal(size=(96, 20)), rng.integers(0, 3, 96), epochs=2, verbose=0)
            results.append([w.tobytes() for w in model.get_weights()])
        finally:
            _core.set_num_threads(0)
    assert results[0] == results[1]
