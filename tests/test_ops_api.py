"""dagrt.ops against Keras: values, dtypes, signatures of the layer graph's nodes; see golden/ops/record.py."""

from __future__ import annotations

import doctest
import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import dagrt as keras
import numpy as np
import ops_cases as cases
import pytest
from dagrt import ops
from dagrt.tracing import InputSpec

FOLDER = Path(__file__).parent / "golden" / "ops"
VALUES = np.load(FOLDER / "values.npz")
TYPES = json.loads((FOLDER / "types.json").read_text())
# Types that dagrt lacks, or Keras cuts because JAX's 64 bits are off.
OURS = {"int64": "int64", "uint32": "int32"}


def flat(out: Any) -> list[Any]:
    return list(out) if isinstance(out, (list, tuple)) else [out]


def check(name: str, out: Any) -> None:
    out = flat(out)
    assert f"{name}/{len(out)}" not in VALUES and f"{name}/{len(out) - 1}" in VALUES
    for i, t in enumerate(out):
        want = VALUES[f"{name}/{i}"]
        got = np.asarray(t)
        assert got.dtype == want.dtype, (name, got.dtype, want.dtype)
        assert got.shape == want.shape, (name, got.shape, want.shape)
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("name", cases.CASES)
def test_on_arrays(name: str) -> None:
    fn, arrays = cases.CASES[name]
    check(name, fn(ops, *[ops.convert_to_tensor(a) for a in arrays]))


@pytest.mark.parametrize("name", cases.MADE)
def test_made_of_numbers(name: str) -> None:
    check(f"made {name}", cases.MADE[name](ops))
    check(f"made {name}", keras.function(lambda: cases.MADE[name](ops))())


# These need to know sizes that a trace with varying first axes does not have.
NEEDS_SIZES = {
    "median",
    "diagonal",
    "diag",
    "diag offset",
    "unstack",
    "cross",
    "bincount",
    "scan",
    "slice",
    "one_hot axis",
    "array_split",
    "repeat each",
    "roll",
    "trace",
}


@pytest.mark.parametrize("name", cases.CASES)
def test_in_a_trace_whose_first_sizes_vary(name: str) -> None:
    fn, arrays = cases.CASES[name]
    varies = 0 if name in NEEDS_SIZES else 1 if "conv" in name else len(arrays)  # kernels have known sizes
    specs = [InputSpec((None, *a.shape[1:]) if i < varies else a.shape, a.dtype.name) for i, a in enumerate(arrays)]
    check(name, keras.function(lambda *xs: fn(ops, *xs), input_signature=specs)(*arrays))


@pytest.mark.parametrize("name", cases.CASES)
def test_on_symbols_of_the_layer_graph(name: str) -> None:
    fn, arrays = cases.CASES[name]
    keras.clear_session()
    symbols = [keras.KerasTensor(a.shape, dtype=a.dtype.name) for a in arrays]
    out = flat(fn(ops, *symbols))
    for i, t in enumerate(out):
        assert isinstance(t, keras.KerasTensor)
        want = VALUES[f"{name}/{i}"]
        assert (t.shape, t.dtype) == (want.shape, want.dtype.name)
    node = out[0]._keras_history[0]
    if f"node/{name}" in TYPES:  # what files and plots call it
        assert [node.name, type(node).__name__] == TYPES[f"node/{name}"]


def ours(dtype: str, *given: str) -> str:
    return "int64" if dtype == "int32" and "int64" in given else OURS.get(dtype, dtype)


@pytest.mark.parametrize("name", [k for k in TYPES if k.startswith("pair/")])
def test_types_in_which_two_tensors_meet(name: str) -> None:
    pytest.importorskip("ml_dtypes")
    op = getattr(ops, name.removeprefix("pair/"))
    for pair, want in TYPES[name].items():
        a, b = (ops.cast(np.ones((2, 2)), d) for d in pair.split())
        assert op(a, b).dtype == ours(want, *pair.split()), pair


@pytest.mark.parametrize("name", [k for k in TYPES if k.startswith("number/")])
def test_python_numbers_are_weak(name: str) -> None:
    pytest.importorskip("ml_dtypes")
    op = getattr(ops, name.removeprefix("number/"))
    for pair, want in TYPES[name].items():
        dtype, number = pair.split()
        value = float(number) if "." in number else int(number)
        assert op(ops.cast(np.ones((2, 2)), dtype), value).dtype == ours(want, dtype), pair


@pytest.mark.parametrize("name", [k for k in TYPES if k.startswith("unary/")])
def test_types_of_results(name: str) -> None:
    pytest.importorskip("ml_dtypes")
    op = getattr(ops, name.removeprefix("unary/"))
    for dtype, want in TYPES[name].items():
        got = op(ops.cast(np.ones((2, 2)), dtype)).dtype
        assert got == (
            "int64" if dtype == "int64" and want == "int32" and name in ("unary/sum",) else OURS.get(want, want)
        ), dtype


def test_16_bit_means_do_not_overflow() -> None:
    x = np.full((70_000,), 2.0, "float16")
    assert float(ops.mean(x)) == 2.0 and ops.mean(x).dtype == "float16"
    assert abs(float(ops.std(np.tile(np.float16([1, 3]), 40_000))) - 1.0) < 1e-3


def test_attention_takes_masks_and_large_logits_stay_finite() -> None:
    x = np.array([[1000.0, -1000.0], [-np.inf, 0.0]], "float32")
    assert np.isfinite(ops.logsumexp(x, axis=1)).all() and np.isfinite(ops.softmax(x)).all()
    assert float(ops.logsumexp(np.full(2, -np.inf, "float32"))) == -np.inf
    q = np.ones((1, 2, 1, 4), "float32")
    mask = np.array([[[[True, False], [True, True]]]])
    v = np.arange(2, dtype="float32").reshape(1, 2, 1, 1) * np.ones(4, "float32")
    got = ops.dot_product_attention(q, q, v, mask=mask).numpy()[0, :, 0, 0]
    np.testing.assert_allclose(got, [0.0, 0.5], rtol=1e-6)


MODULES = [
    "tensor",
    "variable",
    "tracing",
    "random",
    "operation",
    "tree",
    "ops.control",
    "ops.core",
    "ops.elementwise",
    "ops.linalg",
    "ops.nn",
    "ops.reductions",
    "ops.shapes",
    "ops.raw",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"dagrt.{name}"))
    assert result.failed == 0


def test_public_ops_say_what_they_do() -> None:
    silent = [n for n in ops.__all__ if inspect.isfunction(getattr(ops, n)) and not inspect.getdoc(getattr(ops, n))]
    assert silent == []


def test_missing_names_are_answered_by_the_nearest() -> None:
    with pytest.raises(AttributeError, match=r"no 'soft_max'\. The nearest is ops\.softmax"):
        ops.soft_max  # noqa: B018
    assert not hasattr(ops, "fft")


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: ops.reshape(cases.X, (4, 2)), ValueError, "6|8"),
    (lambda: ops.squeeze(cases.X, 0), ValueError, r"axis 0 of shape \(2, 3\) has size 2"),
    (lambda: ops.sum(cases.X, axis=2), ValueError, "axis 2 is out of range for a tensor of 2 axes"),
    (lambda: ops.sum(cases.X, axis=(0, 0)), ValueError, "twice"),
    (lambda: ops.split(cases.X, 2, axis=1), ValueError, "size 3 does not divide into 2"),
    (lambda: ops.einsum("ij,jk", cases.X), ValueError, "names 2 operands, got 1"),
    (lambda: ops.einsum("ii->i", cases.S), ValueError, "a letter occurs twice"),
    (lambda: ops.einsum("ij->k", cases.S), ValueError, "not possible"),
    (lambda: ops.einsum("ijk->i", cases.S), ValueError, "does not fit an operand of 2 axes"),
    (lambda: ops.matmul(cases.X, cases.X), ValueError, "3"),
    (lambda: ops.matmul(np.float32(1), cases.X), ValueError, "at least one axis"),
    (lambda: ops.cast(cases.X, "float64"), TypeError, "float64"),
    (lambda: ops.cast(cases.X, "complex64"), TypeError, "complex64"),
    (lambda: ops.bincount(cases.I[0]), ValueError, "minlength"),
    (lambda: ops.scatter_update(cases.X, [[0, 0]], [1.0], "mul"), ValueError, "reduction None or 'add'"),
    (lambda: ops.binary_crossentropy(cases.X, cases.Y), ValueError, "must have the same shape"),
    (lambda: ops.sparse_categorical_crossentropy(np.array([0, 3]), cases.X, from_logits=True), IndexError, "3"),
    (lambda: ops.max_pool(np.ones((1, 2, 2, 2, 1)), 2), ValueError, "1 or 2 axes of space"),
    (lambda: ops.conv(cases.IMG, cases.K, strides=(1, 2, 3)), ValueError, "strides: expected 2 numbers"),
    (lambda: ops.get_item(cases.T, (np.array([0]), np.array([1]))), ValueError, "several index tensors"),
]


@pytest.mark.parametrize("k", range(len(BAD)))
def test_errors_say_what_came(k: int) -> None:
    call, kind, message = BAD[k]
    with pytest.raises(kind, match=message):
        call()
