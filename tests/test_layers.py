"""Layers, activations, initializers, regularizers, constraints against Keras's numbers; see golden/library/record.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagrt as keras
import library_cases as cases
import numpy as np
import pytest

FOLDER = Path(__file__).parent / "golden" / "library"
VALUES = np.load(FOLDER / "values.npz")
CONFIGS = json.loads((FOLDER / "configs.json").read_text())


def close(got: Any, want: np.ndarray, tolerance: float = 1e-5, what: str = "") -> None:
    got = np.asarray(got)
    assert got.shape == want.shape, (what, got.shape, want.shape)
    gaps = np.isnan(want)
    np.testing.assert_array_equal(np.isnan(got), gaps, what)
    got, want = np.where(gaps, 0, got), np.where(gaps, 0, want)
    scale = max(float(np.abs(want).max()) if want.size else 0.0, 1e-3)
    assert np.abs(got.astype("float64") - want).max(initial=0.0) <= tolerance * scale, (what, got, want)


def made(name: str) -> tuple[Any, Any, list[np.ndarray], dict[str, Any], Any]:
    """The layer, called once on symbolic tensors, with its formula weights."""
    case = cases.LAYERS[name]
    keras.clear_session()
    layer = case.make(keras)
    arrays = cases.layer_inputs(case)
    symbols = [keras.Input(batch_shape=(None, *a.shape[1:]), dtype=str(a.dtype)) for a in arrays]
    kwargs: dict[str, Any] = {} if case.training is None else {"training": case.training}
    if case.mask:
        kwargs["mask"] = cases.layer_mask(case)
    outputs = layer(symbols if len(symbols) > 1 else symbols[0])
    layer.set_weights(cases.layer_weights(layer))
    return case, layer, arrays, kwargs, outputs


def as_json(obj: Any) -> Any:
    return json.loads(json.dumps(keras.saving.serialize_keras_object(obj)))


# Settings that Keras 3.15 takes but forgets to write; dagrt writes them, and Keras reads them.
EXTRAS = {
    "keras.losses.CosineSimilarity": "axis",
    "keras.metrics.CosineSimilarity": "axis",
    "keras.losses.SparseCategoricalCrossentropy": "axis",
    "keras.losses.Huber": "delta",
    "keras.layers.SimpleRNN": "seed",
    "keras.metrics.SparseTopKCategoricalAccuracy": "from_sorted_ids",
}


def without_extras(serialized: dict[str, Any]) -> dict[str, Any]:
    serialized["config"].pop(EXTRAS.get(f"{serialized['module']}.{serialized['class_name']}", ""), None)
    return serialized


@pytest.mark.parametrize("name", cases.LAYERS)
def test_values_and_gradients(name: str) -> None:
    case, layer, arrays, kwargs, _ = made(name)
    x = arrays if len(arrays) > 1 else arrays[0]
    outputs = cases.flat(layer(x, **kwargs))
    for i, o in enumerate(outputs):
        close(o, VALUES[f"layer/{name}/output/{i}"], case.tolerance, f"output {i}")
    for v in layer.weights:
        if f"layer/{name}/state/{v.name}" in VALUES:
            close(v.numpy(), VALUES[f"layer/{name}/state/{v.name}"], 1e-5, v.name)
    layer.set_weights(cases.layer_weights(layer))
    inputs = [keras.Variable(a, trainable=not case.ids) for a in arrays]

    def scalar() -> Any:
        t = [v.value for v in inputs]
        total: Any = 0.0
        for i, o in enumerate(cases.flat(layer(t if len(t) > 1 else t[0], **kwargs))):
            total = total + keras.ops.sum(o * cases.direction(i, tuple(outputs[i].shape)))
        return total

    wrt = layer.trainable_variables + ([] if case.ids else inputs)
    _, grads = keras.value_and_grad(scalar, wrt)()
    n = len(layer.trainable_variables)
    for i, g in enumerate(grads[:n]):
        close(g, VALUES[f"layer/{name}/gradient/{i}"], 10 * case.tolerance, f"gradient {i}")
    for i, g in enumerate(grads[n:]):
        close(g, VALUES[f"layer/{name}/input_gradient/{i}"], 10 * case.tolerance, f"input gradient {i}")


@pytest.mark.parametrize("name", cases.LAYERS)
def test_masks(name: str) -> None:
    _, layer, arrays, kwargs, _ = made(name)
    mask = kwargs.get("mask")
    tensors = [keras.ops.convert_to_tensor(a) for a in arrays]
    out = layer.compute_mask(
        tensors if len(tensors) > 1 else tensors[0], mask if len(tensors) == 1 else [mask] * len(tensors)
    )
    for i, m in enumerate(cases.flat(out)):
        key = f"layer/{name}/mask/{i}"
        assert (m is not None) == (key in VALUES)
        if m is not None:
            np.testing.assert_array_equal(np.asarray(m), VALUES[key])


@pytest.mark.parametrize("name", cases.LAYERS)
def test_shapes_names_and_configs(name: str) -> None:
    _, layer, _, _, outputs = made(name)
    for o, shape in zip(cases.flat(outputs), CONFIGS[f"layer/{name}/shapes"], strict=True):
        assert len(o.shape) == len(shape) and all(
            b is None or a == b for a, b in zip(o.shape, shape)
        )  # or known better
    assert [[w.path, list(w.shape)] for w in layer.weights] == CONFIGS[f"layer/{name}/weights"]
    want = CONFIGS[f"layer/{name}"]
    assert without_extras(as_json(layer)) == want
    again = keras.saving.deserialize_keras_object(want)
    assert without_extras(as_json(again)) == want


@pytest.mark.parametrize("name", cases.ACTIVATIONS)
def test_activations(name: str) -> None:
    x = cases.activation_input()
    close(keras.activations.get(name)(x), VALUES[f"activation/{name}"], 3e-6, name)
    assert keras.activations.serialize(keras.activations.get(name)) == ("silu" if name == "swish" else name)


@pytest.mark.parametrize("name", cases.REGULARIZERS)
def test_regularizers(name: str) -> None:
    r = cases.REGULARIZERS[name](keras)
    close(r(cases.matrix()), VALUES[f"regularizer/{name}"])
    assert as_json(r) == CONFIGS[f"regularizer/{name}"]


@pytest.mark.parametrize("name", cases.CONSTRAINTS)
def test_constraints(name: str) -> None:
    c = cases.CONSTRAINTS[name](keras)
    close(c(cases.matrix()), VALUES[f"constraint/{name}"])
    assert as_json(c) == CONFIGS[f"constraint/{name}"]


INITIALIZERS = {  # name: mean, standard deviation, largest magnitude, for a kernel of 400 inputs and 600 outputs
    "glorot_uniform": (0, np.sqrt(2 / 1000), np.sqrt(6 / 1000)),
    "glorot_normal": (0, np.sqrt(2 / 1000), 2.2737 * np.sqrt(2 / 1000)),
    "he_uniform": (0, np.sqrt(2 / 400), np.sqrt(6 / 400)),
    "he_normal": (0, np.sqrt(2 / 400), 2.2737 * np.sqrt(2 / 400)),
    "lecun_uniform": (0, np.sqrt(1 / 400), np.sqrt(3 / 400)),
    "lecun_normal": (0, np.sqrt(1 / 400), 2.2737 * np.sqrt(1 / 400)),
    "random_normal": (0, 0.05, None),
    "truncated_normal": (0, 0.05 * 0.8796, 0.1),
    "uniform": (0, 0.05 / np.sqrt(3), 0.05),
    "zeros": (0, 0, 0),
    "ones": (1, 0, 1),
}


@pytest.mark.parametrize("name", INITIALIZERS)
def test_initializers(name: str) -> None:
    mean, stddev, largest = INITIALIZERS[name]
    a = np.asarray(keras.initializers.get(name)((400, 600)))
    assert a.shape == (400, 600) and a.dtype == np.float32
    assert abs(a.mean() - mean) <= 0.01 * max(stddev, 1e-9) * 3 and abs(a.std() - stddev) <= 0.01 * stddev
    assert largest is None or np.abs(a).max() <= largest * 1.001


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (2, 3, 5)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    a = np.asarray(keras.initializers.Orthogonal(gain=2.0, seed=3)(shape)).reshape(-1, shape[-1])
    product = a @ a.T if a.shape[0] <= a.shape[1] else a.T @ a
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-5)


def test_a_seed_gives_the_same_numbers() -> None:
    a, b = (np.asarray(keras.initializers.GlorotUniform(seed=5)((3, 4))) for _ in range(2))
    assert (a == b).all()
    first = keras.initializers.GlorotUniform()
    assert not (np.asarray(first((3, 4))) == np.asarray(keras.initializers.GlorotUniform()((3, 4)))).all()


DROPS = {
    "dropout": lambda: keras.layers.Dropout(0.25, seed=1),
    "spatial_dropout2d": lambda: keras.layers.SpatialDropout2D(0.25, seed=1),
    "gaussian_dropout": lambda: keras.layers.GaussianDropout(0.25, seed=1),
    "gaussian_noise": lambda: keras.layers.GaussianNoise(0.25, seed=1),
}


@pytest.mark.parametrize("name", DROPS)
def test_noise_is_unbiased_and_differs_from_call_to_call(name: str) -> None:
    layer = DROPS[name]()
    x = np.ones((64, 4, 4, 64), "float32")
    a, b = np.asarray(layer(x, training=True)), np.asarray(layer(x, training=True))
    assert abs(a.mean() - 1) < 0.03 and not (a == b).all()
    if name == "dropout":
        assert set(np.unique(a)) == {np.float32(0), np.float32(1 / 0.75)}
    if name == "spatial_dropout2d":
        assert (a == a[:, :1, :1]).all()
    assert (np.asarray(DROPS[name]()(x, training=True)) == a).all()  # the seed
    assert (np.asarray(layer(x)) == 1).all()


def test_recurrent_dropout_and_states() -> None:
    x = np.ones((8, 5, 3), "float32")
    layer = keras.layers.LSTM(16, dropout=0.3, recurrent_dropout=0.3, seed=1)
    assert not (np.asarray(layer(x, training=True)) == np.asarray(layer(x, training=True))).all()
    np.testing.assert_array_equal(np.asarray(layer(x)), np.asarray(layer(x)))
    stateful = keras.layers.LSTM(4, stateful=True)
    first, second = np.asarray(stateful(x)), np.asarray(stateful(x))
    assert not np.allclose(first, second)
    stateful.reset_state()
    np.testing.assert_array_equal(np.asarray(stateful(x)), first)


def test_initial_state_continues_a_sequence() -> None:
    x = cases.hashed(5, 2 * 6 * 3).reshape(2, 6, 3).astype("float32")
    for cls in (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN):
        layer = cls(4, return_state=True)
        whole = layer(x)
        half = layer(x[:, :3])
        rest = layer(x[:, 3:], initial_state=list(half[1:]))
        close(rest[0], np.asarray(whole[0]), 1e-5, cls.__name__)


def test_embedding_takes_a_table() -> None:
    for table in ([[0.0, 1.0], [2.0, 3.0]], np.array([[0.0, 1.0], [2.0, 3.0]]), [[[0.0, 1.0], [2.0, 3.0]]]):
        assert np.asarray(keras.layers.Embedding(2, 2, weights=table)([1])).tolist() == [[2.0, 3.0]]


def test_masks_travel() -> None:
    ids = np.array([[1, 2, 0, 0], [3, 0, 0, 0]], "int32")
    embedding = keras.layers.Embedding(5, 3, mask_zero=True)
    lstm = keras.layers.LSTM(4)
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Dropout(0.1)(keras.layers.Dense(3)(embedding(inputs)))
    model = keras.Model(inputs, lstm(x))
    full, cut = model.predict(ids, verbose=0), model.predict(ids[:, :2], verbose=0)
    np.testing.assert_allclose(full, cut, atol=1e-6)


def test_functional_forms() -> None:
    a, b = np.ones((2, 3), "float32"), np.full((2, 3), 4.0, "float32")
    f = keras.layers
    for fn, want in ((f.add, 5), (f.subtract, -3), (f.multiply, 4), (f.average, 2.5), (f.maximum, 4), (f.minimum, 1)):
        assert (np.asarray(fn([a, b])) == want).all()
    assert f.concatenate([a, b]).shape == (2, 6) and f.dot([a, b], axes=1).shape == (2, 1)


def test_normalization_adapts() -> None:
    data = cases.hashed(6, 60).reshape(20, 3).astype("float32") * 3 + 1
    layer = keras.layers.Normalization()
    layer.adapt(data)
    y = np.asarray(layer(data))
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(0), 1, atol=1e-5)
    inverse = keras.layers.Normalization(mean=data.mean(0), variance=data.var(0), invert=True)
    np.testing.assert_allclose(np.asarray(inverse(y)), data, atol=1e-5)


REFUSED: dict[str, tuple[Any, str]] = {
    "units": (lambda: keras.layers.Dense(0), "units"),
    "unknown activation": (lambda: keras.layers.Dense(2, activation="rellu"), "relu"),
    "unknown initializer": (lambda: keras.layers.Dense(2, kernel_initializer="glorot_unifrom"), "glorot_uniform"),
    "unknown regularizer": (lambda: keras.layers.Dense(2, kernel_regularizer="l3"), "l3"),
    "unknown constraint": (lambda: keras.layers.Dense(2, kernel_constraint="norm"), "norm"),
    "unknown last axis": (lambda: keras.layers.Dense(2)(keras.Input((None,))), "last axis"),
    "embedding size": (lambda: keras.layers.Embedding(0, 2), "positive"),
    "padding": (lambda: keras.layers.Conv2D(2, 3, padding="full"), "padding"),
    "groups": (lambda: keras.layers.Conv2D(4, 3, groups=3), "groups"),
    "channels": (lambda: keras.layers.Conv2D(4, 3, groups=2)(keras.Input((8, 8, 3))), "groups"),
    "stride and dilation": (lambda: keras.layers.Conv2D(4, 3, strides=2, dilation_rate=2), "dilation_rate"),
    "image rank": (lambda: keras.layers.MaxPooling2D()(keras.Input((8, 8))), "axes"),
    "reshape": (lambda: keras.layers.Reshape((5,))(keras.Input((4, 3))), "total size"),
    "permute": (lambda: keras.layers.Permute((1, 3)), "consecutive"),
    "rate": (lambda: keras.layers.Dropout(1.5), "rate"),
    "merge one": (lambda: keras.layers.Add()(keras.Input((3,))), "list"),
    "merge shapes": (lambda: keras.layers.Add()([keras.Input((3,)), keras.Input((4,))]), "incompatible"),
    "concatenate shapes": (lambda: keras.layers.Concatenate()([keras.Input((2, 3)), keras.Input((3, 3))]), "matching"),
    "stateful batch": (lambda: keras.layers.LSTM(3, stateful=True)(keras.Input((4, 2))), "static"),
    "slope": (lambda: keras.layers.LeakyReLU(-1.0), "negative"),
    "weights": (lambda: keras.layers.Dense(2, weights=[[[1.0, 2.0]]]), "weights"),
    "wrapped": (lambda: keras.layers.Bidirectional("lstm"), "Layer"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    run, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        run()
