"""Thirty mistakes a user makes: each a clear error (or a right result), weights unchanged, and the next call right."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import dagrt as keras
import numpy as np
import pytest
from dagrt import ops


@pytest.fixture()
def model() -> Any:
    keras.clear_session()
    title = keras.Input((6,), dtype="int32", name="title")
    tags = keras.Input((4,), name="tags")
    t = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(10, 5, name="words")(title))
    x = keras.layers.concatenate([t, tags])
    a = keras.layers.Dense(1, activation="sigmoid", name="priority")(x)
    b = keras.layers.Dense(3, activation="softmax", name="department")(x)
    model = keras.Model([title, tags], [a, b])
    model.compile("adam", {"priority": "binary_crossentropy", "department": "sparse_categorical_crossentropy"})
    return model


def good() -> tuple[dict, dict]:
    x = {"title": np.arange(48).reshape(8, 6) % 10, "tags": np.ones((8, 4), "float32")}
    y = {"priority": np.ones((8, 1), "float32"), "department": np.arange(8) % 3}
    return x, y


def changed(part: int, **values: Any) -> tuple[dict, dict]:
    data = good()
    data[part].update(values)
    return data


def without(part: int, name: str) -> tuple[dict, dict]:
    data = good()
    del data[part][name]
    return data


title, tags = good()[0]["title"], good()[0]["tags"]
BAD_DATA: dict[str, tuple[tuple, type, str]] = {
    "a shape that does not fit": (
        changed(0, tags=np.ones((8, 5))),
        ValueError,
        r"tags.*expected shape \(None, 4\), got \(8, 5\)",
    ),
    "a rank that does not fit": (changed(0, tags=np.ones((8, 4, 2))), ValueError, r"tags.*expected shape"),
    "text for numbers": (changed(0, tags=np.array([["a"] * 4] * 8)), (TypeError, ValueError), r"tags|string|text|str"),
    "an unknown name": (changed(0, tag=tags), ValueError, r"unknown input 'tag'.*Did you mean 'tags'"),
    "a missing input": (without(0, "tags"), ValueError, r"missing input 'tags'"),
    "an unknown head": (changed(1, prority=np.ones((8, 1))), ValueError, r"unknown output name 'prority'.*priority"),
    "rows that differ": (changed(0, tags=np.ones((7, 4))), ValueError, r"cardinality|rows"),
    "targets with other rows": (changed(1, priority=np.ones((5, 1))), ValueError, r"cardinality|rows"),
    "an id out of range": (changed(0, title=np.where(title == 9, 10, title)), IndexError, r"words.*10"),
    "a negative id": (changed(0, title=np.where(title == 9, -1, title)), IndexError, r"words.*-1"),
    "a class out of range": (
        changed(1, department=np.arange(8)),
        IndexError,
        r"department/sparse_categorical_crossentropy.*expected ids in 0\.\.2, got [3-7]",
    ),
    "targets of another shape": (changed(1, priority=np.ones((8, 2))), ValueError, r"priority|shape|size"),
    "NaN for ids": (changed(0, title=np.full((8, 6), np.nan)), ValueError, r"title.*NaN"),
    "no rows": (
        ({"title": title[:0], "tags": tags[:0]}, {"priority": np.ones((0, 1)), "department": np.ones(0)}),
        ValueError,
        r"no rows|nothing",
    ),
    "None for an input": (changed(0, tags=None), ValueError, r"tags|None"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_changes_nothing(model: Any, name: str) -> None:
    (x, y), kind, message = BAD_DATA[name]
    model.fit(*good(), verbose=0)
    before = [v.numpy() for v in [*model.variables, *model.optimizer.variables]]
    with pytest.raises(kind, match=message):
        model.fit(x, y, verbose=0)
    for a, v in zip(before, [*model.variables, *model.optimizer.variables]):
        np.testing.assert_array_equal(a, v.numpy())
    loss = model.fit(*good(), verbose=0).history["loss"][0]
    assert np.isfinite(loss), "the next call must be right"


def test_too_few_inputs_in_a_list(model: Any) -> None:
    with pytest.raises(ValueError, match=r"expected 2 inputs \['title', 'tags'\], got 1"):
        model.predict([title], verbose=0)
    assert model.predict([title, tags], verbose=0)[0].shape == (8, 1)


def test_nan_targets_warn_once_and_keep_the_weights(model: Any) -> None:
    x, y = changed(1, priority=np.full((8, 1), np.nan))
    before = [v.numpy() for v in model.weights]
    with pytest.warns(RuntimeWarning, match="NaN") as caught:
        history = model.fit(x, y, epochs=3, verbose=0)
    assert len([w for w in caught if "NaN" in str(w.message)]) == 1
    assert np.isnan(history.history["loss"]).all()
    for a, v in zip(before, model.weights):
        np.testing.assert_array_equal(a, v.numpy())
    assert np.isfinite(model.fit(*good(), verbose=0).history["loss"][0])


def test_zero_rows_predict_zero_rows(model: Any) -> None:
    a, b = model.predict({"title": title[:0], "tags": tags[:0]}, verbose=0)
    assert a.shape == (0, 1) and b.shape == (0, 3)


def test_a_batch_too_large_for_memory(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    small = model.predict_on_batch(good()[0])
    in_use = sum(v for k, v in keras._core.memory_in_use().items() if k.endswith("_bytes"))
    monkeypatch.setenv("DAGRT_MEMORY_LIMIT", str(in_use + 1_000_000))
    wide = keras.ops.broadcast_to(keras.Input((1, 1), name="one"), (8, in_use // 16 + 500_000, 1))
    hungry = keras.Model(wide._keras_history[0].input, keras.ops.sort(wide, axis=1)[:, :1])
    with pytest.raises(MemoryError, match=r"needs .* left; use a smaller batch"):
        hungry.predict_on_batch(np.ones((8, 1, 1), "float32"))
    for a, b in zip(small, model.predict_on_batch(good()[0])):
        np.testing.assert_array_equal(a, b)


def x4() -> Any:
    return keras.Input((4,), name="four")


def disconnected() -> None:
    a, b = x4(), keras.Input((4,), name="other")
    keras.Model(a, keras.layers.Dense(1)(keras.layers.add([a, b])))


def duplicate_names() -> None:
    a = x4()
    keras.Model(a, keras.layers.Dense(1, name="d")(keras.layers.Dense(4, name="d")(a)))


def wrong_axis() -> None:
    layer = keras.layers.Dense(2, name="dense_2")
    layer(x4())
    layer(keras.layers.Flatten(name="flatten_1")(keras.Input((8, 8))))


def merge_mismatch() -> None:
    keras.layers.add([x4(), keras.Input((5,))])


def concat_mismatch() -> None:
    keras.layers.Concatenate(axis=1)([keras.Input((3, 4)), keras.Input((3, 5))])


def window_too_large() -> None:
    keras.layers.Conv2D(2, 5)(keras.Input((3, 3, 1)))


def reshape_mismatch() -> None:
    keras.layers.Reshape((3, 3))(keras.Input((8,)))


def fit_uncompiled() -> None:
    a = x4()
    keras.Model(a, keras.layers.Dense(1)(a)).fit(np.ones((2, 4)), np.ones((2, 1)))


def unknown_loss() -> None:
    a = x4()
    m = keras.Model(a, keras.layers.Dense(1)(a))
    m.compile("sgd", "mean_sqared_error")
    m.fit(np.ones((2, 4)), np.ones((2, 1)), verbose=0)


def unknown_optimizer() -> None:
    a = x4()
    keras.Model(a, keras.layers.Dense(1)(a)).compile("adaam", "mse")


def truth_of_a_symbol() -> None:
    a = x4()
    if a > 0:
        raise AssertionError


def number_of_a_traced_value() -> None:
    @keras.function
    def f(x: Any) -> Any:
        return x * float(ops.sum(x))

    f(np.ones(3, "float32"))


def array_of_a_symbol() -> None:
    np.asarray(x4())


def unknown_op() -> None:
    ops.concatenat  # noqa: B018


def float64() -> None:
    keras.set_floatx("float64")


def weights_that_do_not_fit() -> None:
    a = x4()
    keras.Model(a, keras.layers.Dense(1)(a)).set_weights([np.ones((3, 1)), np.ones(1)])


def unknown_activation() -> None:
    keras.layers.Dense(2, activation="rellu")


def integer_division_by_zero() -> None:
    ops.floor_divide(np.array([4, 5], "int32"), np.array([2, 0], "int32"))


def dense_needs_a_size() -> None:
    keras.layers.Dense(2)(keras.Input((None,)))


def no_such_layer() -> None:
    a = x4()
    keras.Model(a, keras.layers.Dense(1, name="head")(a)).get_layer("haed")


def not_a_tensor() -> None:
    keras.Model(np.ones((2, 4)), np.ones((2, 1)))


MISTAKES: list[tuple[Callable[[], None], Any, str]] = [
    (disconnected, ValueError, r"disconnected.*'other'"),
    (duplicate_names, ValueError, r"'d'|\"d\".*unique"),
    (wrong_axis, ValueError, r"dense_2 \(Dense\).*(64|\(None, 64\))"),
    (merge_mismatch, ValueError, r"add.*(4|5)"),
    (concat_mismatch, ValueError, r"concatenate \(Concatenate\)"),
    (window_too_large, ValueError, r"conv2d \(Conv2D\).*(5|3)"),
    (reshape_mismatch, ValueError, r"reshape \(Reshape\).*8"),
    (fit_uncompiled, ValueError, r"compile"),
    (unknown_loss, ValueError, r"mean_sqared_error"),
    (unknown_optimizer, ValueError, r"adaam"),
    (truth_of_a_symbol, TypeError, r"symbolic|bool|KerasTensor"),
    (number_of_a_traced_value, ValueError, r"test_bad_input.py|traced|symbolic"),
    (array_of_a_symbol, ValueError, r"KerasTensor|symbolic"),
    (unknown_op, AttributeError, r"concatenate"),
    (float64, ValueError, r"float32"),
    (weights_that_do_not_fit, ValueError, r"\(4, 1\).*\(3, 1\)"),
    (unknown_activation, ValueError, r"rellu"),
    (integer_division_by_zero, (IndexError, ZeroDivisionError, ValueError), r"division by zero|zero"),
    (dense_needs_a_size, ValueError, r"dense \(Dense\)|last (axis|dimension)|known"),
    (no_such_layer, ValueError, r"haed.*head"),
    (not_a_tensor, ValueError, r"symbolic"),
]


@pytest.mark.parametrize("mistake, kind, message", MISTAKES, ids=[m[0].__name__ for m in MISTAKES])
def test_mistake(mistake: Callable[[], None], kind: Any, message: str) -> None:
    keras.clear_session()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(kind, match=message):
            mistake()
    a = x4()
    out = keras.Model(a, keras.layers.Dense(1)(a)).predict_on_batch(np.ones((2, 4), "float32"))
    assert out.shape == (2, 1)


@pytest.mark.parametrize(
    "equation, size, bias, message",
    [
        ("abc->ac", 4, None, r"expected an equation such as 'ab,bc->ac'.*got 'abc->ac'"),
        ("ab,bc", 4, None, r"expected an equation such as"),
        ("ab,bc->ac", (None,), None, r"expected a size of 'c' .*kernel 'bc'"),
        ("ab,bc->ac", 4, "q", r"expected bias_axes of letters of the outputs 'ac', got 'q'"),
    ],
)
def test_an_einsum_dense_says_what_its_equation_lacks(equation: str, size: Any, bias: Any, message: str) -> None:
    layer = keras.layers.EinsumDense(equation, output_shape=size, bias_axes=bias, name="e")
    with pytest.raises(ValueError, match=r"e \(EinsumDense\): " + message):
        layer(keras.Input((8,)))
