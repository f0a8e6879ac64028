"""Shape, layout, creation and indexing ops by Keras's names."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dagrt import _core
from dagrt.ops.core import (
    as_tensor,
    is_float,
    one_axis,
    product_of,
    public,
    result_type,
    standard_dtype,
    static_axes,
    unwrap_sizes,
)
from dagrt.ops.raw import emit
from dagrt.tensor import Tensor
from dagrt.variable import Variable

# --- creation ------------------------------------------------------------------------------------------------------


def full(shape: Any, fill_value: Any, dtype: Any = None) -> Any:
    """A tensor of one value.

    Args:
        shape: sizes; ints or Dims.
        fill_value: the value; a tensor is broadcast.
        dtype: of the result; float32 by default.
    """
    if isinstance(fill_value, (Tensor, Variable, np.ndarray)) and np.ndim(getattr(fill_value, "dims", fill_value)) >= 0:
        t = as_tensor(fill_value)
        return broadcast_to(as_tensor(t, standard_dtype(dtype) if dtype else t.dtype), shape)
    name = standard_dtype(dtype)
    return emit("full", shape=unwrap_sizes(shape), value=float(fill_value), dtype=name)


def zeros(shape: Any, dtype: Any = None) -> Any:
    """Zeros of that shape; sizes may be Dims.

    Args:
        shape: sizes; ints or Dims.
        dtype: of the result; float32 by default.
    """
    return emit("full", shape=unwrap_sizes(shape), value=0.0, dtype=standard_dtype(dtype))


def ones(shape: Any, dtype: Any = None) -> Any:
    """Ones of that shape; sizes may be Dims.

    Args:
        shape: sizes; ints or Dims.
        dtype: of the result; float32 by default.
    """
    return emit("full", shape=unwrap_sizes(shape), value=1.0, dtype=standard_dtype(dtype))


@public
def full_like(x: Any, fill_value: Any, dtype: Any = None) -> Any:
    """A tensor of x's shape with one value.

    Args:
        x: tensor.
        fill_value: the value.
        dtype: x's by default.
    """
    x = as_tensor(x)
    return full(x.dims, fill_value, dtype or x.dtype)


@public
def zeros_like(x: Any, dtype: Any = None) -> Any:
    """Zeros of x's shape.

    Args:
        x: tensor.
        dtype: x's by default.
    """
    return full_like(x, 0, dtype)


@public
def ones_like(x: Any, dtype: Any = None) -> Any:
    """Ones of x's shape.

    Args:
        x: tensor.
        dtype: x's by default.
    """
    return full_like(x, 1, dtype)


def arange(start: Any, stop: Any = None, step: Any = None, dtype: Any = None) -> Any:
    """start, start + step, ... below stop; one argument is stop. Sizes may be Dims where step is 1.

    Args:
        start: the first number, or stop where it is the only one.
        stop: not reached; number or Dim.
        step: 1 by default.
        dtype: that of the arguments by default.

    Raises:
        ValueError: a step other than 1 with sizes that vary.
    """
    step = 1 if step is None else step
    if stop is None:
        start, stop = 0, start
    name = standard_dtype(dtype) if dtype is not None else result_type(start, stop, step)
    if isinstance(stop, _core.Dim) or isinstance(start, _core.Dim):
        if step != 1:
            raise ValueError("arange: with sizes that vary the step must be 1")
        line = emit("iota", size=stop - start, dtype="int32")
        return as_tensor(line + start if not isinstance(start, int) or start else line, name)
    count = max(0, math.ceil((stop - start) / step))
    line = emit("iota", size=count, dtype=name if is_float(name) else "int32")
    if step != 1:
        line = line * as_tensor(step, line.dtype)
    if start != 0:
        line = line + as_tensor(start, line.dtype)
    return as_tensor(line, name)


def linspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, retstep: bool = False, dtype: Any = None, axis: int = 0
) -> Any:
    """`num` evenly spaced numbers.

    Args:
        start: the first number.
        stop: the last.
        num: how many.
        endpoint: whether stop is among them.
        retstep: not available.
        dtype: of the result; float32 by default.
        axis: 0; there is no other.

    Raises:
        ValueError: retstep or another axis.
    """
    if retstep or axis != 0:
        raise ValueError("linspace: retstep and axis are not available")
    step = (stop - start) / max(num - 1 if endpoint else num, 1)
    return as_tensor(arange(num, dtype="float32") * step + start, standard_dtype(dtype))


def eye(N: int, M: int | None = None, k: int = 0, dtype: Any = None) -> Any:
    """Ones on the k-th diagonal of an N x M matrix.

    Args:
        N: rows.
        M: columns; N by default.
        k: which diagonal: above the main one where positive.
        dtype: of the result; float32 by default.
    """
    rows = reshape(arange(N), (N, 1))
    cols = reshape(arange(N if M is None else M), (1, N if M is None else M))
    return as_tensor(emit("equal", rows + k, cols), standard_dtype(dtype))


def identity(n: int, dtype: Any = None) -> Any:
    """The n x n identity matrix.

    Args:
        n: rows and columns.
        dtype: of the result; float32 by default.
    """
    return eye(n, dtype=dtype)


def _triangle(x: Any, k: int, lower: bool) -> Any:
    x = as_tensor(x)
    rows = reshape(arange(x.dims[-2]), (x.dims[-2], 1))
    cols = reshape(arange(x.dims[-1]), (1, x.dims[-1]))
    keep = emit("less_equal", cols, rows + k) if lower else emit("greater_equal", cols, rows + k)
    return emit("select", keep, x, as_tensor(0, x.dtype))


@public
def tril(x: Any, k: int = 0) -> Any:
    """x with zeros above its k-th diagonal.

    Args:
        x: tensor.
        k: which diagonal: above the main one where positive.
    """
    return _triangle(x, k, True)


@public
def triu(x: Any, k: int = 0) -> Any:
    """x with zeros below its k-th diagonal.

    Args:
        x: tensor.
        k: which diagonal: above the main one where positive.
    """
    return _triangle(x, k, False)


# --- shape ---------------------------------------------------------------------------------------------------------


@public
def reshape(x: Any, newshape: Any) -> Any:
    """The same elements in another shape; one size may be -1.

    Args:
        x: tensor.
        newshape: sizes; ints or Dims, one may be -1 or None.

    Raises:
        ValueError: another number of elements.
    """
    x = as_tensor(x)
    sizes = [-1 if d is None else d for d in ([newshape] if isinstance(newshape, int) else newshape)]
    return emit("reshape", x, shape=unwrap_sizes(sizes))


@public
def ravel(x: Any) -> Any:
    """All elements in one axis.

    Args:
        x: tensor.
    """
    return emit("reshape", as_tensor(x), shape=[-1])


@public
def transpose(x: Any, axes: Any = None) -> Any:
    """Axes in another order; reversed by default.

    Args:
        x: tensor.
        axes: the old axes in their new order; None: reversed.
    """
    x = as_tensor(x)
    n = len(x.dims)
    perm = list(range(n))[::-1] if axes is None else [one_axis(a, n) for a in axes]
    return emit("transpose", x, perm=perm)


@public
def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """Two axes exchanged.

    Args:
        x: tensor.
        axis1: one.
        axis2: the other.
    """
    x = as_tensor(x)
    perm = list(range(len(x.dims)))
    a, b = one_axis(axis1, len(perm)), one_axis(axis2, len(perm))
    perm[a], perm[b] = perm[b], perm[a]
    return emit("transpose", x, perm=perm)


@public
def moveaxis(x: Any, source: Any, destination: Any) -> Any:
    """Axes moved to other places, the others in order.

    Args:
        x: tensor.
        source: axis or axes.
        destination: where they go.
    """
    x = as_tensor(x)
    n = len(x.dims)
    src = [one_axis(a, n) for a in (source if isinstance(source, (list, tuple)) else [source])]
    dst = [one_axis(a, n) for a in (destination if isinstance(destination, (list, tuple)) else [destination])]
    perm = [a for a in range(n) if a not in src]
    for d, s in sorted(zip(dst, src)):
        perm.insert(d, s)
    return emit("transpose", x, perm=perm)


@public
def expand_dims(x: Any, axis: Any) -> Any:
    """Axes of size 1 put in.

    Args:
        x: tensor.
        axis: place or places of the new axes, in the result.
    """
    x = as_tensor(x)
    axes = list(axis) if isinstance(axis, (list, tuple)) else [axis]
    n = len(x.dims) + len(axes)
    places = sorted(one_axis(a, n) for a in axes)
    dims = list(x.dims)
    for a in places:
        dims.insert(a, 1)
    return emit("reshape", x, shape=dims)


@public
def squeeze(x: Any, axis: Any = None) -> Any:
    """Axes of size 1 taken out.

    Args:
        x: tensor.
        axis: axis or axes of size 1; None for all that are known to be.

    Raises:
        ValueError: an axis of another size.
    """
    x = as_tensor(x)
    n = len(x.dims)
    axes = (
        [a for a in range(n) if isinstance(x.dims[a], int) and x.dims[a] == 1] if axis is None else static_axes(axis, n)
    )
    for a in axes:
        if isinstance(x.dims[a], int) and x.dims[a] != 1:
            raise ValueError(f"squeeze: axis {a} of shape {x.shape} has size {x.dims[a]}, not 1")
    return emit("reshape", x, shape=[d for a, d in enumerate(x.dims) if a not in axes])


@public
def broadcast_to(x: Any, shape: Any) -> Any:
    """x repeated along axes of size 1 to a larger shape.

    Args:
        x: tensor.
        shape: sizes; ints or Dims.
    """
    return emit("broadcast_to", as_tensor(x), shape=unwrap_sizes(shape))


@public
def concatenate(xs: Any, axis: int = 0) -> Any:
    """Tensors joined along an axis.

    Args:
        xs: list of tensors.
        axis: the axis.
    """
    xs = [as_tensor(x) for x in xs]
    dtype = result_type(*xs)
    return emit("concat", *[as_tensor(x, dtype) for x in xs], axis=one_axis(axis, len(xs[0].dims)))


@public
def stack(x: Any, axis: int = 0) -> Any:
    """Tensors of one shape joined along a new axis.

    Args:
        x: list of tensors of one shape.
        axis: place of the new axis.
    """
    xs = [as_tensor(t) for t in x]
    dtype = result_type(*xs)
    at = one_axis(axis, len(xs[0].dims) + 1)
    return emit("concat", *[expand_dims(as_tensor(t, dtype), at) for t in xs], axis=at)


@public
def unstack(x: Any, num: int | None = None, axis: int = 0) -> Any:
    """The slices along an axis, without it.

    Args:
        x: tensor.
        num: size of the axis, where it is not known.
        axis: the axis.

    Raises:
        ValueError: the axis's size is not known.
    """
    x = as_tensor(x)
    at = one_axis(axis, len(x.dims))
    n = x.dims[at] if num is None else num
    if not isinstance(n, int):
        raise ValueError("unstack: the size of the axis is not known; give num")
    return [squeeze(_part(x, at, i, 1), at) for i in range(n)]


def _part(x: Any, axis: int, begin: Any, size: Any) -> Any:
    begins: list[Any] = [0] * len(x.dims)
    sizes = list(x.dims)
    begins[axis], sizes[axis] = begin, size
    return emit("slice", x, begin=begins, size=sizes, stride=[1] * len(x.dims))


@public
def split(x: Any, indices_or_sections: Any, axis: int = 0) -> Any:
    """Pieces along an axis: so many equal ones, or cut at the given places.

    Args:
        x: tensor.
        indices_or_sections: number of equal pieces, or the places of the cuts.
        axis: the axis.

    Raises:
        ValueError: an axis that does not divide.
    """
    x = as_tensor(x)
    at = one_axis(axis, len(x.dims))
    n = x.dims[at]
    if isinstance(indices_or_sections, (int, np.integer)):
        count = int(indices_or_sections)
        if isinstance(n, int) and n % count:
            raise ValueError(f"split: axis {axis} of size {n} does not divide into {count} equal pieces")
        step = n // count
        return [_part(x, at, step * i, step) for i in range(count)]
    ends = [int(i) for i in indices_or_sections]
    starts = [0, *ends]
    stops = [*ends, n]
    return [_part(x, at, a, b - a) for a, b in zip(starts, stops)]


@public
def array_split(x: Any, indices_or_sections: int, axis: int = 0) -> Any:
    """Nearly equal pieces along an axis.

    Args:
        x: tensor.
        indices_or_sections: number of pieces.
        axis: the axis.
    """
    n = as_tensor(x).dims[one_axis(axis, len(as_tensor(x).dims))]
    base, more = divmod(n, indices_or_sections)
    cuts = np.cumsum([base + (i < more) for i in range(indices_or_sections)])[:-1]
    return split(x, cuts.tolist(), axis)


@public
def tile(x: Any, repeats: Any) -> Any:
    """The whole tensor repeated along each axis.

    Args:
        x: tensor.
        repeats: how often along each axis; ints or Dims.
    """
    x = as_tensor(x)
    counts = [repeats] if isinstance(repeats, (int, _core.Dim)) else list(repeats)
    rank = max(len(counts), len(x.dims))
    counts = [1] * (rank - len(counts)) + counts
    dims = [1] * (rank - len(x.dims)) + list(x.dims)
    wide: list[Any] = []
    for c, d in zip(counts, dims):
        wide += [c, d]
    t = emit("reshape", x, shape=[v for d in dims for v in (1, d)])
    return emit("reshape", emit("broadcast_to", t, shape=wide), shape=[c * d for c, d in zip(counts, dims)])


@public
def repeat(x: Any, repeats: Any, axis: int | None = None) -> Any:
    """Each element repeated so many times.

    Args:
        x: tensor.
        repeats: how often; a list for each element its own.
        axis: the axis; None for all elements in one row.
    """
    x = as_tensor(x)
    if axis is None:
        x, axis = ravel(x), 0
    at = one_axis(axis, len(x.dims))
    if isinstance(repeats, (list, tuple, np.ndarray)):
        return take(x, np.repeat(np.arange(len(repeats)), repeats).astype("int32"), axis=at)
    dims = list(x.dims)
    t = expand_dims(x, at + 1)
    t = emit("broadcast_to", t, shape=[*dims[: at + 1], repeats, *dims[at + 1 :]])
    dims[at] = dims[at] * repeats
    return emit("reshape", t, shape=dims)


@public
def flip(x: Any, axis: Any = None) -> Any:
    """Elements in reverse order along the axes.

    Args:
        x: tensor.
        axis: axis or axes; None for all.
    """
    x = as_tensor(x)
    return emit("reverse", x, axes=static_axes(axis, len(x.dims)))


@public
def roll(x: Any, shift: Any, axis: Any = None) -> Any:
    """Elements moved along an axis, those pushed out coming in at the other end.

    Args:
        x: tensor.
        shift: by how many places; a list for several axes.
        axis: axis or axes; None for all elements in one row.
    """
    x = as_tensor(x)
    if axis is None:
        return reshape(roll(ravel(x), shift, 0), x.dims)
    for s, a in zip(shift, axis) if isinstance(axis, (list, tuple)) else [(shift, axis)]:
        at = one_axis(a, len(x.dims))
        n = x.dims[at]
        s = s % n
        x = concatenate([_part(x, at, n - s, s), _part(x, at, 0, n - s)], axis=at)
    return x


@public
def pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: Any = None) -> Any:
    """Elements put around each axis: a constant, the edge ("edge"), or the inside mirrored ("reflect", "symmetric").

    Args:
        x: tensor.
        pad_width: elements: one number, (before, behind), or such a pair for each axis.
        mode: "constant", "edge", "reflect" or "symmetric".
        constant_values: the constant; 0 by default.

    Raises:
        ValueError: another mode, or numbers that do not fit the axes.
    """
    x = as_tensor(x)
    n = len(x.dims)
    if isinstance(pad_width, int):
        widths = [(pad_width, pad_width)] * n
    elif len(pad_width) == 2 and all(isinstance(p, int) for p in pad_width):
        widths = [tuple(pad_width)] * n
    else:
        widths = [tuple(p) for p in pad_width]
        widths = widths * n if len(widths) == 1 else widths
    if mode == "constant":
        value = 0.0 if constant_values is None else float(constant_values)
        return emit("pad", x, low=[w[0] for w in widths], high=[w[1] for w in widths], interior=[0] * n, value=value)
    for at, (low, high) in enumerate(widths):
        size = x.dims[at]
        if low == high == 0:
            continue
        if not isinstance(size, int):
            raise ValueError(f"pad: mode {mode!r} needs a known size on axis {at}")
        ids = np.pad(np.arange(size), (low, high), mode=mode).astype("int32")  # type: ignore[call-overload]
        x = take(x, ids, axis=at)
    return x


@public
def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The diagonal of a matrix of known size.

    Args:
        x: tensor.
        offset: which diagonal: above the main one where positive.
        axis1: 0; there is no other.
        axis2: 1; there is no other.

    Raises:
        ValueError: no matrix, or sizes that are not known.
    """
    x = as_tensor(x)
    if len(x.dims) != 2 or not all(isinstance(d, int) for d in x.dims):
        raise ValueError("diagonal: expected a matrix of known size")
    rows = np.array([i for i in range(x.dims[0]) if 0 <= i + offset < x.dims[1]], "int32")
    return take(ravel(x), rows * x.dims[1] + rows + offset)


@public
def diag(x: Any, k: int = 0) -> Any:
    """A matrix with x on its k-th diagonal, or that diagonal of a matrix.

    Args:
        x: vector or matrix.
        k: which diagonal: above the main one where positive.
    """
    x = as_tensor(x)
    if len(x.dims) == 2:
        return diagonal(x, k)
    n = x.dims[0]
    square = eye(n, dtype=x.dtype) * expand_dims(x, 1)
    return pad(square, ((max(-k, 0), max(k, 0)), (max(k, 0), max(-k, 0)))) if k else square


# --- indexing ------------------------------------------------------------------------------------------------------


@public
def get_item(x: Any, key: Any) -> Any:
    """x[key]: integers, slices, None, Ellipsis, and integer tensors as indices of one axis.

    Args:
        x: tensor.
        key: what stands in x[...].

    Raises:
        GraphError, ValueError, IndexError: a mask, too many indices, or an index out of range.
    """
    x = as_tensor(x)
    keys = (
        list(key)
        if isinstance(key, (tuple, list)) and not (isinstance(key, list) and all(isinstance(k, int) for k in key))
        else [key]
    )
    if len(keys) == 1 and isinstance(keys[0], (list, np.ndarray, Tensor)):
        k = keys[0]
        if getattr(k, "dtype", None) is not None and str(getattr(k, "dtype", "")) == "bool":
            raise _core.GraphError("x[mask] has a size that depends on data; use ops.where(mask, x, 0)")
    rank = sum(1 for k in keys if k is not None and k is not Ellipsis)
    if rank > len(x.dims):
        raise IndexError(f"too many indices: a tensor of {len(x.dims)} axes was indexed with {rank}")
    if Ellipsis in [k for k in keys if not isinstance(k, (Tensor, np.ndarray, list))]:
        at = next(i for i, k in enumerate(keys) if k is Ellipsis)
        keys[at : at + 1] = [slice(None)] * (len(x.dims) - rank)
    else:
        keys += [slice(None)] * (len(x.dims) - rank)
    begins, sizes, strides, shape = [], [], [], []
    gathers: list[tuple[int, Any]] = []
    reversed_axes: list[int] = []
    axis = 0
    for k in keys:
        if k is None:
            shape.append(1)
            continue
        n = x.dims[axis]
        if isinstance(k, slice):
            begin, count, step = _slice_of(k, n)
            if step < 0:
                reversed_axes.append(axis)
                last = begin
                step = -step
                begin = last - (count - 1) * step if count is not None else last
            begins.append(begin)
            sizes.append(count)
            strides.append(step)
            shape.append(count)
        elif isinstance(k, (int, np.integer, _core.Dim)) and not isinstance(k, bool):
            i = k if isinstance(k, _core.Dim) else int(k)
            if isinstance(i, int) and isinstance(n, int) and not -n <= i < n:
                raise IndexError(f"index {i} is out of range for axis {axis} of size {n}")
            begins.append(i + n if isinstance(i, int) and i < 0 else i)
            sizes.append(1)
            strides.append(1)
        else:
            begins.append(0)
            sizes.append(n)
            strides.append(1)
            gathers.append((len(shape), k))
            shape.append(n)
        axis += 1
    if begins != [0] * axis or any(a is not b and a != b for a, b in zip(sizes, x.dims)) or strides != [1] * axis:
        x = emit("slice", x, begin=begins, size=sizes, stride=strides)
    if reversed_axes:
        x = emit("reverse", x, axes=reversed_axes)
    if list(x.dims) != shape:
        x = emit("reshape", x, shape=shape)
    if len(gathers) > 1:
        raise ValueError("indexing with several index tensors at once is not available; use ops.take_along_axis")
    for at, ids in gathers:
        x = take(x, ids, axis=at)
    return x


def _slice_of(s: slice, n: Any) -> tuple[Any, Any, int]:
    """Begin, number of elements, step."""
    step = 1 if s.step is None else int(s.step)
    if step == 0:
        raise ValueError("slice step cannot be zero")
    if isinstance(n, int) and all(v is None or isinstance(v, (int, np.integer)) for v in (s.start, s.stop)):
        r = range(*s.indices(n))
        return r.start, len(r), step
    minimum, maximum = _core.Dim.min, _core.Dim.max

    def place(v: Any, default: Any) -> Any:
        if v is None:
            return default
        if isinstance(v, _core.Dim):
            return v
        v = int(v)
        return maximum(n + v, 0) if v < 0 else minimum(n, v)

    if step < 0:
        if s.start is not None or s.stop is not None:
            raise ValueError("a negative step with bounds needs a size that is known")
        count = (n + (-step - 1)) // (-step)
        return n - 1, count, step
    begin, end = place(s.start, 0), place(s.stop, n)
    count = maximum(end - begin, 0) if s.start is not None or s.stop is not None else n
    return begin, count if step == 1 else (count + (step - 1)) // step, step


def _ids(indices: Any, n: Any) -> Any:
    """Index tensors: integers, negative ones counted from the end where they can be seen."""
    if not isinstance(indices, (Tensor, Variable)):
        a = np.asarray(indices)
        if a.size == 0:
            a = a.astype("int32")
        if a.dtype.kind == "f":
            a = a.astype("int32")
        if isinstance(n, int) and a.size and a.min() < 0:
            a = np.where(a < 0, a + n, a)
        indices = as_tensor(a.astype("int32") if a.dtype.name not in ("int32", "int64") else a)
    t = as_tensor(indices)
    return t if t.dtype in ("int32", "int64") else as_tensor(t, "int32")


@public
def take(x: Any, indices: Any, axis: int | None = None) -> Any:
    """Slices of x along an axis, at integer indices (0 <= i < size; a bad one is an IndexError when it runs).

    Args:
        x: tensor.
        indices: integers of any shape.
        axis: the axis; None for all elements in one row.
    """
    x = as_tensor(x)
    if axis is None:
        x, axis = ravel(x), 0
    at = one_axis(axis, len(x.dims))
    return emit("gather", x, _ids(indices, x.dims[at]), axis=at)


@public
def take_along_axis(x: Any, indices: Any, axis: int | None = None) -> Any:
    """x[..., indices, ...]: one index for each place of the other axes.

    Args:
        x: tensor.
        indices: integers of x's shape but for the axis.
        axis: the axis; None for all elements in one row.
    """
    x = as_tensor(x)
    if axis is None:
        x, indices, axis = ravel(x), ravel(indices), 0
    at = one_axis(axis, len(x.dims))
    return emit("take_along_axis", x, _ids(indices, x.dims[at]), axis=at)


def _slice(inputs: Any, start_indices: Any, shape: Any) -> Any:
    """The block that begins at `start_indices` and has that shape; -1 takes all that is left of an axis.

    Args:
        inputs: tensor.
        start_indices: first index of each axis; ints or Dims.
        shape: sizes; -1 for all that is left.
    """
    x = as_tensor(inputs)
    begin = unwrap_sizes(start_indices)
    sizes = [d - b if isinstance(s, int) and s == -1 else s for s, b, d in zip(unwrap_sizes(shape), begin, x.dims)]
    return emit("slice", x, begin=begin, size=sizes, stride=[1] * len(x.dims))


_slice.__name__ = _slice.__qualname__ = "slice"  # as a node of a model; in this file `slice` is Python's
slice_op = public(_slice)


@public
def slice_update(inputs: Any, start_indices: Any, updates: Any) -> Any:
    """inputs with a block replaced, at places that are known.

    Args:
        inputs: tensor.
        start_indices: first index of each axis; ints or Dims.
        updates: the block.
    """
    x, u = as_tensor(inputs), as_tensor(updates)
    begin = unwrap_sizes(start_indices)
    low, high = begin, [d - b - s for d, b, s in zip(x.dims, begin, u.dims)]
    inside = emit("full", shape=list(u.dims), value=1.0, dtype="bool")
    place = {"low": low, "high": high, "interior": [0] * len(low), "value": 0.0}
    return emit("select", emit("pad", inside, **place), emit("pad", as_tensor(u, x.dtype), **place), x)


@public
def scatter(indices: Any, values: Any, shape: Any) -> Any:
    """Zeros of `shape` with values added at `indices` (last axis: one index for each leading axis).

    Args:
        indices: (..., depth) integers.
        values: what is put there; equal indices are added.
        shape: of the result.
    """
    values = as_tensor(values)
    ids = _ids(indices, None)
    sizes = unwrap_sizes(shape)
    depth = ids.dims[-1]
    flat: Any = None
    for k in range(depth):
        column = ids[..., k]
        flat = column if flat is None else flat * as_tensor(sizes[k], ids.dtype) + column
    count = product_of(sizes[:depth])
    lead = len(ids.dims) - 1
    rows = reshape(values, (-1, *values.dims[lead:])) if lead != 1 else values
    flat = reshape(flat, (-1,))
    return reshape(emit("scatter_add", flat, rows, axis=0, size=count), sizes)


@public
def scatter_update(inputs: Any, indices: Any, updates: Any, reduction: str | None = None) -> Any:
    """inputs with `updates` at `indices`, each place named once; with reduction "add" they are added, also several times.

    Args:
        inputs: tensor.
        indices: (..., depth) integers.
        updates: what is put there.
        reduction: None to replace, "add" to add.

    Raises:
        ValueError: another reduction.
    """
    if reduction not in (None, "add"):
        raise ValueError(f"scatter_update: expected reduction None or 'add', got {reduction!r}")
    x = as_tensor(inputs)
    if reduction == "add":
        return emit("add", x, scatter(indices, as_tensor(updates, x.dtype), x.dims))
    updates = as_tensor(updates, x.dtype)
    hit = scatter(indices, ones_like(updates, "float32"), x.dims)
    return emit("select", emit("greater", hit, as_tensor(0.0)), scatter(indices, updates, x.dims), x)


@public
def one_hot(x: Any, num_classes: int, axis: int = -1, dtype: Any = None, sparse: bool = False) -> Any:
    """1 at the place that x names, on a new axis; all zeros where x is outside 0..num_classes-1.

    Args:
        x: integers.
        num_classes: size of the new axis.
        axis: place of the new axis.
        dtype: of the result; float32 by default.
        sparse: Keras's, without effect.
    """
    x = _ids(x, None)
    y = emit("one_hot", x, depth=num_classes, dtype=standard_dtype(dtype))
    if axis in (-1, len(y.dims) - 1):
        return y
    return moveaxis(y, -1, axis)


@public
def multi_hot(
    inputs: Any, num_classes: int | None = None, axis: int = -1, dtype: Any = None, sparse: bool = False, **kwargs: Any
) -> Any:
    """1 at every place that the last axis names.

    Args:
        inputs: integers (..., n).
        num_classes: size of the last axis.
        axis: Keras's, without effect.
        dtype: of the result; float32 by default.
        sparse: Keras's, without effect.
        kwargs: `num_tokens`, the older name of num_classes.
    """
    from dagrt.ops.reductions import max as reduce_max

    x = _ids(inputs, None)
    hot = one_hot(x, num_classes or kwargs["num_tokens"], dtype=dtype)
    return reduce_max(hot, axis=-2) if len(x.dims) else hot


@public
def meshgrid(*x: Any, indexing: str = "xy") -> Any:
    """Coordinate grids of vectors.

    Args:
        x: vectors.
        indexing: "xy" or "ij".
    """
    xs = [as_tensor(v) for v in x]
    n = len(xs)
    sizes = [v.dims[0] for v in xs]
    grids = []
    for i, v in enumerate(xs):
        t = reshape(v, [sizes[i] if k == i else 1 for k in range(n)])
        t = broadcast_to(t, sizes)
        grids.append(swapaxes(t, 0, 1) if indexing == "xy" and n > 1 else t)
    return grids


def vectorize(pyfunc: Any, *, excluded: Any = None, signature: Any = None) -> Any:
    """Not available: ops work on whole tensors.

    Args:
        pyfunc: Keras's.
        excluded: Keras's.
        signature: Keras's.
    """
    raise NotImplementedError("ops.vectorize is not available: write the function over whole tensors")
