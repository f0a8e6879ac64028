"""Sums, means, extrema, orderings, by Keras's names."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from dagrt import _config
from dagrt.ops.core import as_tensor, dim_tensor, is_float, one_axis, product_of, public, standard_dtype, static_axes
from dagrt.ops.elementwise import (
    absolute,
    as_bool,
    exp,
    greater,
    isfinite,
    log,
    power,
    sqrt,
    square,
    where,
)
from dagrt.ops.raw import emit
from dagrt.ops.shapes import ravel


def _reduce(op: str, x: Any, axis: Any, keepdims: bool) -> Any:
    return emit(op, x, axes=static_axes(axis, len(x.dims)), keepdims=bool(keepdims))


@public
def sum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Sum over the axes (all by default); booleans are counted.

    Args:
        x: tensor.
        axis: axis or axes; None for all.
        keepdims: keep the reduced axes, with size 1.
    """
    x = as_tensor(x)
    if x.dtype in ("bool", "uint8"):
        x = as_tensor(x, "int32")
    return _reduce("reduce_sum", x, axis, keepdims)


def _count(x: Any, axis: Any) -> Any:
    """Elements that are reduced, as a float or a float scalar of the program."""
    dims = [x.dims[a] for a in static_axes(axis, len(x.dims))]
    n: Any = float(product_of([d for d in dims if isinstance(d, int)]))
    for d in dims:
        if not isinstance(d, int):
            n = emit("multiply", dim_tensor(d, "float32"), as_tensor(n, "float32"))
    return n


@public
def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Mean over the axes; NaN over no elements.

    Args:
        x: tensor.
        axis: axis or axes; None for all.
        keepdims: keep the reduced axes, with size 1.
    """
    x = as_tensor(x)
    if not is_float(x.dtype):
        x = as_tensor(x, _config.floatx())
    kept = x.dtype
    x = as_tensor(x, "float32")  # 16 bits hold neither the sum nor the count of many elements
    return as_tensor(
        emit("divide", _reduce("reduce_sum", x, axis, keepdims), as_tensor(_count(x, axis), "float32")), kept
    )


@public
def var(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Variance over the axes (divided by the number of elements).

    Args:
        x: tensor.
        axis: axis or axes; None for all.
        keepdims: keep the reduced axes, with size 1.
    """
    x = as_tensor(x)
    if not is_float(x.dtype):
        x = as_tensor(x, _config.floatx())
    return mean(square(x - mean(x, axis, True)), axis, keepdims)


@public
def std(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Standard deviation over the axes.

    Args:
        x: tensor.
        axis: axis or axes; None for all.
        keepdims: keep the reduced axes, with size 1.
    """
    return sqrt(var(x, axis, keepdims))


_AXES = "x: tensor.\n    axis: axis or axes; None for all.\n    keepdims: keep the reduced axes, with size 1.\n"


def _extreme(op: str, name: str, doc: str) -> Callable:
    if name in ("amax", "amin"):  # Keras's have no `initial`

        def plain(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
            return _reduce(op, as_tensor(x), axis, keepdims)

        plain.__name__ = plain.__qualname__ = name
        plain.__doc__ = f"{doc}\n\nArgs:\n    {_AXES}"
        return public(plain)

    def fn(x: Any, axis: Any = None, keepdims: bool = False, initial: Any = None) -> Any:
        y = _reduce(op, as_tensor(x), axis, keepdims)
        if initial is not None:
            y = emit("maximum" if name == "max" else "minimum", y, as_tensor(initial, y.dtype))
        return y

    fn.__name__ = fn.__qualname__ = name
    fn.__doc__ = f"{doc}\n\nArgs:\n    {_AXES}    initial: takes part too; None for nothing.\n"
    return public(fn)


max = _extreme("reduce_max", "max", "Largest over the axes; NaN wins.")
min = _extreme("reduce_min", "min", "Smallest over the axes; NaN wins.")
amax = _extreme("reduce_max", "amax", "Largest over the axes; NaN wins.")
amin = _extreme("reduce_min", "amin", "Smallest over the axes; NaN wins.")


@public
def prod(x: Any, axis: Any = None, keepdims: bool = False, dtype: Any = None) -> Any:
    """Product over the axes.

    Args:
        x: tensor.
        axis: axis or axes; None for all.
        keepdims: keep the reduced axes, with size 1.
        dtype: computed in; x's by default.
    """
    x = as_tensor(x, None if dtype is None else standard_dtype(dtype))
    if x.dtype in ("bool", "uint8"):
        x = as_tensor(x, "int32")
    return _reduce("reduce_prod", x, axis, keepdims)


@public
def all(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Whether all are true.

    Args:
        x: tensor.
        axis: axis or axes; None for all.
        keepdims: keep the reduced axes, with size 1.
    """
    return _reduce("reduce_min", as_bool(x), axis, keepdims)


@public
def any(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Whether any is true.

    Args:
        x: tensor.
        axis: axis or axes; None for all.
        keepdims: keep the reduced axes, with size 1.
    """
    return _reduce("reduce_max", as_bool(x), axis, keepdims)


@public
def count_nonzero(x: Any, axis: Any = None) -> Any:
    """How many are not zero.

    Args:
        x: tensor.
        axis: axis or axes; None for all.
    """
    return sum(as_bool(x), axis)


def _ordered(x: Any) -> Any:
    """A tensor that can be sorted: booleans as 0 and 1."""
    x = as_tensor(x)
    return as_tensor(x, "uint8") if x.dtype == "bool" else x


def _arg(op: str) -> Callable:
    def fn(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
        x = _ordered(x)
        rank = len(x.dims)
        if axis is None:
            y = emit(op, ravel(x), axis=0)
            return emit("reshape", y, shape=[1] * rank) if keepdims else y
        at = one_axis(axis, rank)
        y = emit(op, x, axis=at)
        return emit("reshape", y, shape=[1 if a == at else d for a, d in enumerate(x.dims)]) if keepdims else y

    fn.__name__ = fn.__qualname__ = op
    page = "Index of the {}; the first of several.\n\nArgs:\n    {}"
    axes = _AXES.replace("axis or axes; None for all", "one axis; None: of all elements in one row")
    fn.__doc__ = page.format("largest" if op == "argmax" else "smallest", axes)
    return public(fn)


argmax = _arg("argmax")
argmin = _arg("argmin")


@public
def cumsum(x: Any, axis: int | None = None, dtype: Any = None) -> Any:
    """Running sum along an axis.

    Args:
        x: tensor.
        axis: the axis; None for all elements in one row.
        dtype: computed in; x's by default.
    """
    x = as_tensor(x, None if dtype is None else standard_dtype(dtype))
    if axis is None:
        x, axis = ravel(x), 0
    if x.dtype == "bool":
        x = as_tensor(x, "int32")
    return emit("cumsum", x, axis=one_axis(axis, len(x.dims)), reverse=False, exclusive=False)


def _last(x: Any, axis: int) -> tuple[Any, list[int] | None]:
    rank = len(x.dims)
    at = one_axis(axis, rank)
    if at == rank - 1:
        return x, None
    perm = [a for a in range(rank) if a != at] + [at]
    return emit("transpose", x, perm=perm), [perm.index(a) for a in range(rank)]


@public
def sort(x: Any, axis: int = -1) -> Any:
    """Ascending along an axis.

    Args:
        x: tensor.
        axis: the axis.
    """
    x = as_tensor(x)
    t, back = _last(_ordered(x), axis)
    y = as_tensor(emit("sort", t, axis=len(t.dims) - 1, descending=False), x.dtype)
    return y if back is None else emit("transpose", y, perm=back)


@public
def argsort(x: Any, axis: int = -1) -> Any:
    """Indices that sort ascending; equals keep their order.

    Args:
        x: tensor.
        axis: the axis.
    """
    t, back = _last(_ordered(x), axis)
    y = emit("argsort", t, axis=len(t.dims) - 1, descending=False)
    return y if back is None else emit("transpose", y, perm=back)


@public
def top_k(x: Any, k: int, sorted: bool = True) -> Any:
    """The k largest of the last axis, and their indices.

    Args:
        x: tensor.
        k: how many.
        sorted: accepted; they are always sorted.
    """
    return emit("top_k", as_tensor(x), k=int(k), sorted=True)


@public
def in_top_k(targets: Any, predictions: Any, k: int) -> Any:
    """Whether each target is among the k largest predictions; ties count.

    Args:
        targets: class numbers (...).
        predictions: scores (..., classes).
        k: how many classes may be named.
    """
    from dagrt.ops.shapes import expand_dims, squeeze, take_along_axis

    p = as_tensor(predictions)
    t = as_tensor(targets)
    t = t if t.dtype in ("int32", "int64") else as_tensor(t, "int32")
    own = take_along_axis(p, expand_dims(t, -1), axis=-1)
    better = sum(greater(p, own), axis=-1)
    fine = isfinite(squeeze(own, -1))
    return emit("logical_and", emit("less", better, as_tensor(k, better.dtype)), fine)


@public
def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """log(sum(exp(x))), stable.

    Args:
        x: tensor.
        axis: axis or axes; None for all.
        keepdims: keep the reduced axes, with size 1.
    """
    x = as_tensor(x)
    high = emit("stop_gradient", max(x, axis, True))
    high = where(isfinite(high), high, 0.0)
    y = log(sum(exp(x - high), axis, True)) + high
    if keepdims:
        return y
    axes = static_axes(axis, len(x.dims))
    return emit("reshape", y, shape=[d for a, d in enumerate(x.dims) if a not in axes])


@public
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """Vector norms: 2 (by default), 1, inf, or p; with axis None of all elements.

    Args:
        x: tensor.
        ord: 1, 2, inf, -inf or p; None is 2.
        axis: axis or axes; None for all.
        keepdims: keep the reduced axes, with size 1.
    """
    x = as_tensor(x)
    if not is_float(x.dtype):
        x = as_tensor(x, _config.floatx())
    if ord in (None, 2, "euclidean", "fro"):
        return sqrt(sum(square(x), axis, keepdims))
    if ord == 1:
        return sum(absolute(x), axis, keepdims)
    if ord in (math.inf, "inf"):
        return max(absolute(x), axis, keepdims)
    if ord == -math.inf:
        return min(absolute(x), axis, keepdims)
    return power(sum(power(absolute(x), float(ord)), axis, keepdims), 1.0 / float(ord))


@public
def average(x: Any, axis: Any = None, weights: Any = None) -> Any:
    """Mean, weighted where weights are given.

    Args:
        x: tensor.
        axis: axis or axes; None for all.
        weights: of x's shape, or of the axis; None for equal ones.
    """
    if weights is None:
        return mean(x, axis)
    x, w = as_tensor(x), as_tensor(weights)
    if len(w.dims) != len(x.dims):
        at = one_axis(axis, len(x.dims))
        w = emit("reshape", w, shape=[d if a == at else 1 for a, d in enumerate(x.dims)])
        w = emit("broadcast_to", w, shape=list(x.dims))
    return sum(x * w, axis) / sum(w, axis)


@public
def median(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Middle value along one axis of known size.

    Args:
        x: tensor.
        axis: one axis; None for all elements.
        keepdims: keep the reduced axes, with size 1.

    Raises:
        ValueError: the axis's size is not known.
    """
    x = as_tensor(x)
    if axis is None:
        x, axis = ravel(x), 0
    at = one_axis(axis, len(x.dims))
    n = x.dims[at]
    if not isinstance(n, int):
        raise ValueError("median: the size of the axis must be known")
    from dagrt.ops.shapes import take

    s = sort(x, axis=at)
    y = (take(s, (n - 1) // 2, axis=at) + take(s, n // 2, axis=at)) * 0.5
    return emit("reshape", y, shape=[1 if a == at else d for a, d in enumerate(x.dims)]) if keepdims else y


@public
def bincount(x: Any, weights: Any = None, minlength: int = 0, sparse: bool = False) -> Any:
    """How often each number 0..minlength-1 occurs; minlength must cover all of them.

    Args:
        x: integers, not negative.
        weights: what each counts; None for 1.
        minlength: size of the result.
        sparse: Keras's, without effect.

    Raises:
        ValueError: no minlength.
    """
    from dagrt.ops.shapes import ones

    x = as_tensor(x)
    if minlength <= 0:
        raise ValueError("bincount: give minlength, since the size of a result cannot depend on data")
    values = as_tensor(weights, "float32") if weights is not None else ones(x.dims, "int32")
    return emit("scatter_add", as_tensor(x, "int32"), values, axis=0, size=minlength)
