"""16-bit policies: activations in 16 bits, variables in float32, every layer; loss scaling."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagrt as keras
import numpy as np
import pytest

L = keras.layers


@pytest.fixture(autouse=True)
def float32_again() -> Iterator[None]:
    yield
    keras.config.set_dtype_policy(None)


def image_model() -> keras.Model:
    x = image = keras.Input((12, 12, 3), name="image")
    for layer in (
        L.Conv2D(8, 3, padding="same", activation="relu"),
        L.BatchNormalization(),
        L.DepthwiseConv2D(3, padding="same"),
        L.MaxPooling2D(2),
        L.SeparableConv2D(8, 3, padding="same"),
        L.LayerNormalization(),
        L.Conv2DTranspose(6, 3, strides=2, padding="same"),
        L.AveragePooling2D(3),
        L.Dropout(0.1),
        L.Flatten(),
        L.Dense(5, activation="softmax", dtype="float32"),
    ):
        x = layer(x)
    return keras.Model(image, x)


def text_model() -> keras.Model:
    words = keras.Input((7,), dtype="int32", name="words")
    x = L.Embedding(20, 8, mask_zero=True)(words)
    x = L.Bidirectional(L.LSTM(6, return_sequences=True))(x)
    x = L.GRU(6, return_sequences=True)(x)
    x = L.SimpleRNN(5)(x)
    return keras.Model(words, L.Dense(5, activation="softmax", dtype="float32")(x))


def data(make: object, n: int = 32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 5, n)
    if make is image_model:
        return (rng.normal(size=(n, 12, 12, 3)) + y[:, None, None, None]).astype("float32"), y
    return np.clip(rng.integers(1, 4, (n, 7)) + 3 * y[:, None], 0, 19).astype("int32"), y


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("make", [image_model, text_model])
def test_models(make: object, policy: str, tmp_path: Path) -> None:
    x, y = data(make)
    keras.utils.set_random_seed(0)
    plain = make()
    keras.mixed_precision.set_global_policy(policy)
    assert keras.mixed_precision.global_policy().name == policy
    model = make()
    assert {v.dtype for v in model.weights} == {"float32"}
    half = policy.removeprefix("mixed_")
    assert all(layer.compute_dtype == half for layer in model.layers[1:-1])
    assert model.layers[0].output.dtype == ("float32" if make is image_model else "int32")
    assert model.layers[-2].output.dtype == half and model.output.dtype == "float32"
    model.set_weights(plain.get_weights())
    expected, got = plain.predict(x, verbose=0), model.predict(x, verbose=0)
    assert np.abs(got - expected).max() < 0.02 and np.abs(got - expected).max() > 0
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    assert isinstance(model.optimizer, keras.mixed_precision.LossScaleOptimizer) == (half == "float16")
    losses = model.fit(x, y, epochs=15, batch_size=16, verbose=0).history["loss"]
    assert losses[-1] < 0.6 * losses[0]
    pytest.importorskip("h5py")
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert [layer.dtype_policy.name for layer in again.layers] == [layer.dtype_policy.name for layer in model.layers]
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    for v, w in zip(model.optimizer.variables, again.optimizer.variables, strict=True):
        np.testing.assert_array_equal(v.numpy(), w.numpy())


def test_products_are_widened_and_rounded_back() -> None:
    pytest.importorskip("ml_dtypes")
    a = keras.ops.cast(np.random.rand(3, 4), "bfloat16")
    y = keras.ops.matmul(a, keras.ops.transpose(a))
    wide = keras.ops.cast(a, "float32")
    assert y.dtype == "bfloat16"
    np.testing.assert_array_equal(
        keras.ops.cast(y, "float32"),
        keras.ops.cast(keras.ops.cast(keras.ops.matmul(wide, keras.ops.transpose(wide)), "bfloat16"), "float32"),
    )


def test_scale_follows_the_gradients() -> None:
    v = keras.Variable(np.float32(1.0))
    inner = keras.optimizers.Adam(0.1)
    optimizer = keras.mixed_precision.LossScaleOptimizer(inner, initial_scale=8.0, dynamic_growth_steps=2)
    step = keras.function(lambda g: optimizer.apply([g], [v]))
    seen = []
    for g in (8.0, np.inf, 4.0, 4.0, 8.0, np.nan, 4.0):
        before = float(v), int(inner.iterations)
        step(np.float32(g))
        if not np.isfinite(g):
            assert (float(v), int(inner.iterations)) == before
        seen.append(float(optimizer.dynamic_scale))
    assert seen == [8.0, 4.0, 4.0, 8.0, 8.0, 4.0, 4.0]
    # Every finite gradient was 1 behind the scale: Adam moves by the learning rate.
    assert int(optimizer.iterations) == 5 and float(v) == pytest.approx(0.5, abs=1e-5)
    config = keras.optimizers.serialize(optimizer)
    again = keras.optimizers.deserialize(config)
    assert again.get_config()["dynamic_growth_steps"] == 2 and float(again.learning_rate) == pytest.approx(0.1)


def test_loss_scale_factor_changes_nothing_in_float32() -> None:
    x, y = np.random.rand(16, 4).astype("float32"), np.random.rand(16, 1).astype("float32")
    results = []
    for factor in (None, 1024.0):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4,)), L.Dense(1)])
        model.compile(keras.optimizers.SGD(0.1, clipnorm=0.1, loss_scale_factor=factor), "mse")
        model.fit(x, y, epochs=3, verbose=0)
        results.append(model.get_weights()[0])
    np.testing.assert_array_equal(*results)


def test_errors() -> None:
    with pytest.raises(ValueError, match="Unknown dtype policy 'mixed_int3'"):
        keras.config.set_dtype_policy("mixed_int3")
    with pytest.raises(
        ValueError, match="LossScaleOptimizer does not support clipnorm: set them on the `inner_optimizer`"
    ):
        keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD(), clipnorm=1.0)
    with pytest.raises(ValueError, match="inner_optimizer must be an Optimizer, got 'sgd'"):
        keras.mixed_precision.LossScaleOptimizer("sgd")


def dense_model() -> keras.Model:
    x = image = keras.Input((96,), name="x")
    for _ in range(2):
        x = L.Dense(64, activation="relu")(x)
    return keras.Model(image, L.Dense(5, dtype="float32")(x))


@pytest.mark.parametrize("make", [dense_model, image_model, text_model])
def test_program_is_float32_of_rounded_values(make: object) -> None:
    """On a CPU: no copies in another type, roundings inside of other nodes; weights in half the bytes where that is faster."""
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = make()
    rng = np.random.default_rng(1)
    x = data(make, 2)[0] if make is not dense_model else rng.normal(size=(2, 96)).astype("float32")
    model.compile(device="cpu")
    step = model._step("predict").prepare((x, None, None))
    program = step._traced.text([a.shape for a in step._arrays]).partition("\nprepared")[0]
    assert "float32(" in program and ": bfloat16(2" not in program
    assert ("= matmul_bf16_packed(" in program) == (make is dense_model)


def rounded(x: np.ndarray) -> np.ndarray:
    """To bfloat16 and back: to nearest, ties to even."""
    bits = np.ascontiguousarray(x, "float32").view("uint32")
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view("float32")


def test_bfloat16_weights_change_no_value() -> None:
    """The product of bfloat16 weights beside the same model's float32 sums: the same but for the order of additions."""
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = dense_model()
    x = np.random.default_rng(1).normal(size=(3, 96)).astype("float32")
    h = rounded(x)
    for layer in model.layers[1:-1]:
        w, b = (np.asarray(v) for v in layer.get_weights())
        h = np.maximum(rounded((h.astype("float64") @ rounded(w).astype("float64") + b).astype("float32")), 0)
    w, b = model.layers[-1].get_weights()
    np.testing.assert_allclose(model.predict(x, verbose=0), h @ w + b, rtol=0, atol=0.01)


def test_folded_weights_are_rounded_once() -> None:
    """1x1 convolutions and their normalisations in inference: products of bfloat16 weights that the factors are in."""
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    image = keras.Input((7, 5, 96))
    y = L.ReLU()(L.BatchNormalization()(L.Conv2D(160, 1, strides=2)(image)))
    y = L.BatchNormalization(dtype="float32")(L.Conv2D(70, 1, use_bias=False)(y))
    model = keras.Model(image, y)
    rng = np.random.default_rng(1)
    for w in model.weights:  # moving variances too
        w.assign(rng.uniform(0.5, 1.5, w.shape) if "variance" in w.path else rng.normal(size=w.shape) * 0.2)
    x = rng.normal(size=(3, 7, 5, 96)).astype("float32")
    _, conv, norm, _, last, last_norm = model.layers

    def folded(layer: L.BatchNormalization, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gamma, beta, mean, variance = layer.get_weights()
        scale = gamma / np.sqrt(variance + layer.epsilon)
        return rounded(kernel[0, 0] * scale).astype("float64"), (bias - mean) * scale + beta

    w, b = folded(norm, *conv.get_weights())
    h = np.maximum(rounded((rounded(x[:, ::2, ::2]) @ w + b).astype("float32")), 0)
    w, b = folded(last_norm, last.get_weights()[0], np.zeros(70, "float32"))
    want = h @ w + b
    np.testing.assert_allclose(model.predict(x, verbose=0), want, rtol=0, atol=0.01 * np.abs(want).max())
