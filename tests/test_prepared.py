"""Prepared values from outside: predictions follow the weights, however these change, and memory is reported and freed."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import dagrt as keras
import numpy as np
import pytest
from dagrt import _core, ops

RNG = np.random.default_rng(0)


class WeightNormalised(keras.layers.Layer):
    """x @ (v g / |v|): the kernel follows from variables alone."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape: Any) -> None:
        self.v = self.add_weight(shape=(input_shape[-1], self.units), initializer="glorot_uniform", name="v")
        self.g = self.add_weight(shape=(self.units,), initializer="ones", name="g")

    def call(self, x: Any) -> Any:
        return ops.matmul(x, self.v * (self.g / ops.sqrt(ops.sum(ops.square(self.v), axis=0))))


def build() -> Any:
    inputs = keras.Input((64,))
    x = WeightNormalised(80)(inputs)
    x = keras.layers.BatchNormalization()(x)
    return keras.Model(inputs, WeightNormalised(3)(x))


def expected(weights: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    v1, g1, gamma, beta, mean, variance, v2, g2 = (w.astype("float64") for w in weights)
    x = x @ (v1 * (g1 / np.sqrt((v1**2).sum(0))))
    x = (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    return x @ (v2 * (g2 / np.sqrt((v2**2).sum(0))))


def check(model: Any, x: np.ndarray) -> None:
    for batch in (len(x), 1):  # two programs, one set of prepared values
        np.testing.assert_allclose(
            model.predict_on_batch(x[:batch]), expected(model.get_weights(), x[:batch]), rtol=2e-4, atol=2e-5
        )


def test_predictions_follow_the_weights(tmp_path: Path) -> None:
    model = build()
    x = RNG.normal(size=(8, 64)).astype("float32")
    y = RNG.normal(size=(8, 3)).astype("float32")
    check(model, x)
    model.compile("adam", "mse")
    for _ in range(2):
        model.fit(x, y, epochs=2, verbose=0)
        check(model, x)
    path = str(tmp_path / "w.weights.h5")
    model.save_weights(path)
    model.set_weights([w + 0.5 for w in model.get_weights()])
    check(model, x)
    model.load_weights(path)
    check(model, x)
    model.layers[1].g.assign(np.full(80, 2.0, "float32"))
    check(model, x)
    model.evaluate(x, y, verbose=0)
    check(model, x)


def test_prepared_bytes_are_reported_shared_bounded_and_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    before = _core.memory_in_use()["prepared_bytes"]
    kernel = 64 * 80 * 4
    v = keras.Variable(RNG.normal(size=(64, 80)).astype("float32"))

    def f(x: Any) -> Any:
        return ops.matmul(x, ops.tanh(v))

    def bytes_of(fn: Any, batch: int) -> int:
        np.asarray(fn(np.ones((batch, 64), "float32")))
        return next(reversed(fn._programs.values())).memory([(batch, 64)])["prepared_bytes"]

    one, two = keras.function(f), keras.function(f)
    reported = bytes_of(one, 2)
    assert reported == bytes_of(one, 5) == bytes_of(two, 3) >= kernel
    assert _core.memory_in_use()["prepared_bytes"] - before == reported
    monkeypatch.setenv("DAGRT_PREPARED_LIMIT", "0")
    other = keras.Variable(v.numpy())
    inside = keras.function(lambda x: ops.matmul(x, ops.tanh(other)))
    x = np.ones((4, 64), "float32")
    np.testing.assert_array_equal(np.asarray(inside(x)), np.asarray(one(x)))
    assert next(iter(inside._programs.values())).memory([(4, 64)])["prepared_bytes"] == 0
    del one, two, inside, f
    gc.collect()
    assert _core.memory_in_use()["prepared_bytes"] == before


def reader() -> Any:
    ids = keras.Input((None,), dtype="int32")
    x = keras.layers.LSTM(9)(keras.layers.Embedding(30, 8, mask_zero=True)(ids))
    return keras.Model(ids, keras.layers.Dense(2)(x))


def test_an_embedding_projected_once_follows_the_weights() -> None:
    model = reader()
    ids = RNG.integers(0, 30, (6, 7))
    model.compile("adam", "mse")
    for _ in range(2):
        now = model.predict_on_batch(ids)
        twin = reader()
        twin.set_weights(model.get_weights())
        np.testing.assert_array_equal(now, twin.predict_on_batch(ids))
        embeddings, lstm, dense = (model.layers[k] for k in (1, 2, 3))
        given = keras.Input((7, 8))
        mask = keras.Input((7,), dtype="bool")
        plain = keras.Model([given, mask], dense(lstm(given, mask=mask)))
        x = embeddings.embeddings.numpy()[ids]
        np.testing.assert_array_equal(now, plain.predict_on_batch([x, ids != 0]))
        model.fit(ids, np.ones((6, 2)), epochs=2, verbose=0)
        assert not np.array_equal(now, model.predict_on_batch(ids))
    with pytest.raises(IndexError, match=r"embedding.*30"):
        model.predict_on_batch(ids * 0 + 30)
