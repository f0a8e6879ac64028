"""Expressions over Keras's ops, written once: golden/ops/record.py runs them in Keras, test_ops_api.py in dagrt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

_rng = np.random.default_rng(42)
X = _rng.normal(size=(2, 3)).astype("float32")  # any sign
Y = _rng.normal(size=(3,)).astype("float32")
U = _rng.uniform(0.1, 0.9, (2, 3)).astype("float32")  # inside (0, 1)
W = _rng.uniform(1.1, 3.0, (2, 3)).astype("float32")  # above 1
T = _rng.normal(size=(2, 3, 4)).astype("float32")
S = _rng.normal(size=(4, 4)).astype("float32")
Z = np.array([[0.0, -0.0, 1.5], [2.5, -1.5, -2.5]], "float32")
ODD = np.array([[np.nan, np.inf, 1.0], [-np.inf, 0.0, -2.0]], "float32")
I = np.array([[7, -7, 4], [2, 0, -3]], "int32")
J = np.array([3, 2, -4], "int32")
C = X > 0
IMG = _rng.normal(size=(2, 6, 5, 4)).astype("float32")
SEQ = _rng.normal(size=(2, 7, 4)).astype("float32")
K = _rng.normal(size=(3, 2, 4, 6)).astype("float32")
K1 = _rng.normal(size=(3, 4, 5)).astype("float32")
KT = _rng.normal(size=(3, 3, 5, 4)).astype("float32")
KD = _rng.normal(size=(3, 3, 4, 2)).astype("float32")
ONE = np.array([[0, 1, 0], [0, 0, 1]], "float32")

# name -> (expression of the ops module and tensors, arrays)
CASES: dict[str, tuple[Callable[..., Any], list[np.ndarray]]] = {}


def case(name: str, fn: Callable[..., Any], *arrays: np.ndarray) -> None:
    assert name not in CASES
    CASES[name] = (fn, list(arrays))


for _n in (
    "add",
    "subtract",
    "multiply",
    "divide",
    "true_divide",
    "maximum",
    "minimum",
    "equal",
    "less",
    "greater_equal",
    "arctan2",
    "floor_divide",
    "mod",
    "logaddexp",
    "logical_and",
    "not_equal",
):
    case(_n, lambda o, a, b, n=_n: getattr(o, n)(a, b), X, Y)
for _n in ("add", "multiply", "floor_divide", "mod", "bitwise_and", "bitwise_or", "bitwise_xor", "divide", "maximum"):
    case(f"{_n} of integers", lambda o, a, b, n=_n: getattr(o, n)(a, b), I, J)
for _n in (
    "absolute",
    "negative",
    "sign",
    "square",
    "exp",
    "expm1",
    "sin",
    "cos",
    "tan",
    "sinh",
    "cosh",
    "tanh",
    "arctan",
    "arcsinh",
    "erf",
    "floor",
    "ceil",
    "sigmoid",
    "softplus",
    "softsign",
    "relu",
    "relu6",
    "silu",
    "gelu",
    "elu",
    "selu",
    "celu",
    "leaky_relu",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "log_sigmoid",
    "tanh_shrink",
    "hard_shrink",
    "soft_shrink",
    "squareplus",
    "sparse_plus",
    "sparse_sigmoid",
    "logical_not",
    "zeros_like",
    "ones_like",
    "softmax",
    "log_softmax",
):
    case(_n, lambda o, a, n=_n: getattr(o, n)(a), X)
for _n in ("log", "log1p", "log2", "log10", "sqrt", "rsqrt", "reciprocal", "arcsin", "arccos", "arctanh"):
    case(_n, lambda o, a, n=_n: getattr(o, n)(a), U)
case("arccosh", lambda o, a: o.arccosh(a), W)
case("power", lambda o, a, b: o.power(a, b), U, Y)
case("power of an int", lambda o, a: o.power(a, 3), X)
case("gelu exact", lambda o, a: o.gelu(a, approximate=False), X)
case("glu", lambda o, a: o.glu(a), T)
case("threshold", lambda o, a: o.threshold(a, 0.1, 20.0), X)
case("round", lambda o, a: o.round(a), Z)
case("round decimals", lambda o, a: o.round(a, 1), X)
for _n in ("isnan", "isinf", "isfinite", "nan_to_num"):
    case(_n, lambda o, a, n=_n: getattr(o, n)(a), ODD)
case("clip", lambda o, a: o.clip(a, -0.5, 0.5), X)
case("where", lambda o, c, a, b: o.where(c, a, b), C, X, Y)
case("select", lambda o, a: o.select([a < -0.5, a > 0.5], [a * 2, a * 3], 7.0), X)

for _n in ("sum", "mean", "var", "std", "max", "min", "prod", "logsumexp"):
    case(_n, lambda o, a, n=_n: getattr(o, n)(a), T)
    case(f"{_n} of axes", lambda o, a, n=_n: getattr(o, n)(a, axis=(0, -1), keepdims=True), T)
for _n in ("all", "any", "count_nonzero"):
    case(_n, lambda o, a, n=_n: getattr(o, n)(a, axis=1), C)
for _n in ("argmax", "argmin", "sort", "argsort", "cumsum", "median"):
    case(_n, lambda o, a, n=_n: getattr(o, n)(a, axis=1), T)
case("argmax of all", lambda o, a: o.argmax(a), T)
case("top_k", lambda o, a: list(o.top_k(a, 2)), T)
case("in_top_k", lambda o, a: o.in_top_k(np.array([0, 2], "int32"), a, 2), X)
case("average", lambda o, a, w: o.average(a, axis=1, weights=w), X, U)
case("norm", lambda o, a: o.norm(a, axis=-1), T)
case("norm 1", lambda o, a: o.norm(a, ord=1, axis=-1), T)
case("norm inf", lambda o, a: o.norm(a, ord=np.inf, axis=-1, keepdims=True), T)
case("max with initial", lambda o, a: o.max(a, axis=0, initial=0.5), X)

case("reshape", lambda o, a: o.reshape(a, (4, -1)), T)
case("transpose", lambda o, a: o.transpose(a), T)
case("transpose axes", lambda o, a: o.transpose(a, (0, 2, 1)), T)
case("swapaxes", lambda o, a: o.swapaxes(a, 0, -1), T)
case("moveaxis", lambda o, a: o.moveaxis(a, (0, 1), (-1, 0)), T)
case("expand_dims", lambda o, a: o.expand_dims(a, (0, -1)), X)
case("squeeze", lambda o, a: o.squeeze(o.expand_dims(a, 1), 1), X)
case("ravel", lambda o, a: o.ravel(a), T)
case("concatenate by default", lambda o, a, b: o.concatenate([a, b]), X, U)
case("concatenate", lambda o, a, b: o.concatenate([a, b], axis=-1), X, U)
case("stack", lambda o, a, b: o.stack([a, b], axis=1), X, U)
case("unstack", lambda o, a: o.unstack(a, axis=1), X)
case("split", lambda o, a: o.split(a, 2, axis=-1), T)
case("split at", lambda o, a: o.split(a, [1, 2], axis=1), T)
case("array_split", lambda o, a: o.array_split(a, 3, axis=2), T)
case("tile", lambda o, a: o.tile(a, (2, 1, 3)), X)
case("repeat", lambda o, a: o.repeat(a, 2, axis=1), X)
case("repeat each", lambda o, a: o.repeat(a, np.array([1, 0, 2]), axis=1), X)
case("flip", lambda o, a: o.flip(a, axis=1), T)
case("roll", lambda o, a: o.roll(a, 2, axis=1), T)
case("pad", lambda o, a: o.pad(a, ((1, 0), (0, 2)), constant_values=3.0), X)
case("pad reflect", lambda o, a: o.pad(a, ((0, 0), (1, 2)), mode="reflect"), X)
case("pad symmetric", lambda o, a: o.pad(a, ((0, 0), (2, 1)), mode="symmetric"), X)
case("broadcast_to", lambda o, a: o.broadcast_to(a, (4, 3)), Y)
case("diag", lambda o, a: o.diag(a), Y)
case("diag offset", lambda o, a: o.diag(a, k=-1), Y)
case("diagonal", lambda o, a: o.diagonal(a, offset=1), S)
case("trace", lambda o, a: o.trace(a), S)
case("tril", lambda o, a: o.tril(a, k=-1), S)
case("triu", lambda o, a: o.triu(a, k=1), S)
case("meshgrid", lambda o, a, b: list(o.meshgrid(a, b)), Y, J)
case("full_like", lambda o, a: o.full_like(a, 3), X)
case("take", lambda o, a: o.take(a, np.array([[0, 2], [1, -1]]), axis=1), T)
case("take of all", lambda o, a: o.take(a, np.array([0, 5])), X)
case("take_along_axis", lambda o, a: o.take_along_axis(a, np.array([[0], [2]]), axis=1), X)
case("slice", lambda o, a: o.slice(a, (0, 1, 0), (2, 1, 3)), T)
case("slice_update", lambda o, a: o.slice_update(a, (0, 1), np.full((2, 2), 5.0, "float32")), X)
case("scatter", lambda o, a: o.scatter(np.array([[0], [3], [0]]), a, (5,)), Y)
case("scatter_update", lambda o, a: o.scatter_update(a, np.array([[0, 1], [1, 2]]), np.array([9.0, 8.0], "float32")), X)
case("get_item", lambda o, a: a[:, ::2, None, -1], T)
case("one_hot", lambda o, i: o.one_hot(i, 5), I)
case("one_hot axis", lambda o, i: o.one_hot(i, 5, axis=1, dtype="int32"), I)
case("multi_hot", lambda o, i: o.multi_hot(i, 8), np.abs(I))
case("cast", lambda o, a: o.cast(a, "int32"), Z)
case("bincount", lambda o, i: o.bincount(i, minlength=9), np.abs(I[0]))

case("matmul", lambda o, a, b: o.matmul(a, b), T, S)
case("matmul of vectors", lambda o, a, b: o.matmul(a, b), Y, Y + 1)
case("matmul of integers", lambda o, a, b: o.matmul(a, b), I, J)
case("dot", lambda o, a, b: o.dot(a, b), T, S)
case("tensordot", lambda o, a, b: o.tensordot(a, b, axes=[[1, 2], [1, 2]]), T, T + 1)
case("outer", lambda o, a, b: o.outer(a, b), Y, Y + 1)
case("inner", lambda o, a, b: o.inner(a, b), X, U)
case("vdot", lambda o, a, b: o.vdot(a, b), X, U)
case("cross", lambda o, a, b: o.cross(a, b), X, U)
for _s, _arrays in (
    ("bij,jk->bik", (T, S)),
    ("bij,bkj->bik", (T, T)),
    ("...ij->...ji", (T,)),
    ("ij,j", (X, Y)),
    ("bij->b", (T,)),
    ("ij,ij->ij", (X, U)),
    ("i,j->ji", (Y, Y)),
    ("bi,bij,jk->bk", (X, T, S)),
):
    case(f"einsum {_s}", lambda o, *xs, s=_s: o.einsum(s, *xs), *_arrays)

for _p in ("valid", "same"):
    case(f"conv {_p}", lambda o, x, k, p=_p: o.conv(x, k, strides=2, padding=p), IMG, K)
    case(f"conv 1d {_p}", lambda o, x, k, p=_p: o.conv(x, k, 1, padding=p, dilation_rate=2), SEQ, K1)
    case(f"conv_transpose {_p}", lambda o, x, k, p=_p: o.conv_transpose(x, k, strides=2, padding=p), IMG, KT)
    case(f"depthwise_conv {_p}", lambda o, x, k, p=_p: o.depthwise_conv(x, k, strides=1, padding=p), IMG, KD)
    case(f"max_pool {_p}", lambda o, x, p=_p: o.max_pool(x, 3, 2, padding=p), IMG)
    case(f"average_pool {_p}", lambda o, x, p=_p: o.average_pool(x, (2, 3), (2, 3), padding=p), IMG)
    case(f"max_pool 1d {_p}", lambda o, x, p=_p: o.max_pool(x, 2, 2, padding=p), SEQ)
case("moments", lambda o, a: list(o.moments(a, axes=(0, 1))), T)
case("normalize", lambda o, a: o.normalize(a), X)
case("normalize 1", lambda o, a: o.normalize(a, axis=0, order=1), X)
case("batch_normalization", lambda o, a, m, v: o.batch_normalization(a, m, v, axis=-1, offset=m, scale=v), X, Y, U[0])
case("layer_normalization", lambda o, a: o.layer_normalization(a), X)
case("rms_normalization", lambda o, a: o.rms_normalization(a), X)
case("softmax axis", lambda o, a: o.softmax(a, axis=1), T)
case("softmax axes", lambda o, a: o.softmax(a, axis=(1, 2)), T)
for _l in (False, True):
    _a = X if _l else U
    case(f"binary_crossentropy {_l}", lambda o, t, a, l=_l: o.binary_crossentropy(t, a, from_logits=l), ONE, _a)
    case(
        f"categorical_crossentropy {_l}", lambda o, t, a, l=_l: o.categorical_crossentropy(t, a, from_logits=l), ONE, _a
    )
    case(
        f"sparse_categorical_crossentropy {_l}",
        lambda o, a, l=_l: o.sparse_categorical_crossentropy(np.array([1, 2], "int32"), a, from_logits=l),
        X if _l else U / U.sum(1, keepdims=True),
    )
case(
    "dot_product_attention",
    lambda o, q, k: o.dot_product_attention(q, k, k, is_causal=True),
    IMG[:, :5],
    IMG[:, :5] + 1,
)
case("scan", lambda o, a: list(o.scan(lambda c, x: (c + x, c * x), a[0], a)), T)
case("map", lambda o, a: o.map(lambda x: x * 2, a), T)
case("arithmetic", lambda o, a: (1 - a) / 2 + a**2 - (-a) * abs(a), X)

# Without tensors.
MADE: dict[str, Callable[[Any], Any]] = {
    "arange": lambda o: o.arange(5),
    "arange floats": lambda o: o.arange(0.0, 1.0, 0.25),
    "arange down": lambda o: o.arange(5, 0, -2),
    "linspace": lambda o: o.linspace(0, 1, 5),
    "linspace open": lambda o: o.linspace(0.0, 2.0, 4, endpoint=False),
    "eye": lambda o: o.eye(3, 4, k=1),
    "identity": lambda o: o.identity(3, dtype="int32"),
    "zeros": lambda o: o.zeros((2, 3)),
    "ones": lambda o: o.ones((2,), "int32"),
    "full": lambda o: o.full((2,), 3),
    "full of floats": lambda o: o.full((2, 1), 2.5),
    "convert": lambda o: o.convert_to_tensor([[1, 2], [3, 4]]),
    "convert floats": lambda o: o.convert_to_tensor([1.0, 2.0]),
}

DTYPES = ("bool", "uint8", "int32", "int64", "float16", "bfloat16", "float32")
PROMOTED = ("add", "divide", "maximum", "multiply", "arctan2")
UNARY = (
    "mean",
    "max",
    "argmax",
    "cumsum",
    "exp",
    "square",
    "all",
    "count_nonzero",
    "floor",
    "isnan",
    "norm",
    "sum",
    "prod",
    "std",
    "absolute",
    "sign",
    "sort",
    "round",
)
