"""Products of matrices and tensors, by Keras's names."""

from __future__ import annotations

import re
from typing import Any

from dagrt import _config
from dagrt.ops.core import as_tensor, is_float, one_axis, product_of, public, result_type
from dagrt.ops.raw import emit
from dagrt.ops.shapes import moveaxis, reshape, transpose


def _floats(*xs: Any) -> list[Any]:
    dtype = result_type(*xs)
    if not is_float(dtype):
        dtype = _config.floatx()
    return [as_tensor(x, dtype) for x in xs]


@public
def matmul(x1: Any, x2: Any) -> Any:
    """Matrix product over the last two axes; leading axes broadcast, vectors count as rows or columns.

    Args:
        x1: (..., m, k) or (k,).
        x2: (..., k, n) or (k,).

    Raises:
        ValueError: a scalar.
    """
    kind = result_type(x1, x2)
    whole = not is_float(kind)
    working = _config.floatx() if whole else kind
    a, b = as_tensor(x1, working), as_tensor(x2, working)
    if len(a.dims) > 1 and len(b.dims) > 1 and not whole:
        return emit("matmul", a, b, transpose_a=False, transpose_b=False)
    if not a.dims or not b.dims:
        raise ValueError("matmul: both sides need at least one axis")
    row, column = len(a.dims) == 1, len(b.dims) == 1
    if row:
        a = reshape(a, (1, a.dims[0]))
    if column:
        b = reshape(b, (b.dims[0], 1))
    y = emit("matmul", a, b, transpose_a=False, transpose_b=False)
    if row or column:
        dims = list(y.dims)
        dims = dims[:-2] + ([] if row else [dims[-2]]) + ([] if column else [dims[-1]])
        y = reshape(y, dims)
    return as_tensor(y, "int32" if kind == "bool" else kind) if whole else y


@public
def dot(x1: Any, x2: Any) -> Any:
    """Sum over the last axis of x1 and the second last of x2.

    Args:
        x1: tensor or number.
        x2: tensor or number.
    """
    a, b = as_tensor(x1), as_tensor(x2)
    if not a.dims or not b.dims:
        return a * b
    if len(b.dims) <= 2:
        return matmul(a, b)
    return tensordot(a, b, axes=[[len(a.dims) - 1], [len(b.dims) - 2]])


@public
def tensordot(x1: Any, x2: Any, axes: Any = 2) -> Any:
    """Sum of products over paired axes.

    Args:
        x1: tensor or number.
        x2: tensor or number.
        axes: how many last axes of x1 meet the first of x2, or a pair of lists of axes.
    """
    a, b = _floats(x1, x2)
    if isinstance(axes, int):
        left, right = list(range(len(a.dims) - axes, len(a.dims))), list(range(axes))
    else:
        left, right = ([x] if isinstance(x, int) else list(x) for x in axes)
    left = [one_axis(i, len(a.dims)) for i in left]
    right = [one_axis(i, len(b.dims)) for i in right]
    keep_a = [i for i in range(len(a.dims)) if i not in left]
    keep_b = [i for i in range(len(b.dims)) if i not in right]
    inner = product_of([b.dims[i] for i in right])
    rows, columns = [a.dims[i] for i in keep_a], [b.dims[i] for i in keep_b]
    a2 = reshape(transpose(a, keep_a + left), (product_of(rows), inner))
    b2 = reshape(transpose(b, right + keep_b), (inner, product_of(columns)))
    return reshape(emit("matmul", a2, b2, transpose_a=False, transpose_b=False), rows + columns)


@public
def outer(x1: Any, x2: Any) -> Any:
    """All products of elements of two vectors.

    Args:
        x1: vector.
        x2: vector.
    """
    a, b = as_tensor(x1), as_tensor(x2)
    return reshape(a, (-1, 1)) * reshape(b, (1, -1))


@public
def vdot(x1: Any, x2: Any) -> Any:
    """Sum of products of all elements.

    Args:
        x1: tensor or number.
        x2: tensor or number.
    """
    from dagrt.ops.reductions import sum as total

    a, b = _floats(x1, x2)
    return total(reshape(a, (-1,)) * reshape(b, (-1,)))


@public
def inner(x1: Any, x2: Any) -> Any:
    """Sum of products over the last axes.

    Args:
        x1: tensor or number.
        x2: tensor or number.
    """
    a, b = _floats(x1, x2)
    return tensordot(a, b, axes=[[len(a.dims) - 1], [len(b.dims) - 1]]) if a.dims and b.dims else a * b


@public
def einsum(subscripts: str, *operands: Any) -> Any:
    """Einstein summation, "bij,bjk->bik": products over shared letters, sums over those that the result lacks.

    Args:
        subscripts: letters of each operand's axes and "->" those of the result; "..." stands for leading axes.
        operands: the tensors.

    Raises:
        ValueError: subscripts that do not fit the operands, or a letter twice in one operand.
    """
    text = subscripts.replace(" ", "")
    left, arrow, out = text.partition("->")
    names = left.split(",")
    xs = _floats(*operands)
    if len(names) != len(xs):
        raise ValueError(f"einsum: {subscripts!r} names {len(names)} operands, got {len(xs)}")
    rank = max((len(x.dims) - len(n.replace("...", "")) for n, x in zip(names, xs) if "..." in n), default=0)
    dots = "".join(chr(0x2460 + i) for i in range(rank))
    spelled = []
    for n, x in zip(names, xs):
        own = dots[rank - (len(x.dims) - len(n.replace("...", ""))) :] if "..." in n else ""
        spelled.append(n.replace("...", own))
    names = spelled
    for n, x in zip(names, xs):
        if len(n) != len(x.dims):
            raise ValueError(f"einsum: {n!r} does not fit an operand of {len(x.dims)} axes")
        if len(set(n)) != len(n):
            raise ValueError(f"einsum: a letter occurs twice in {n!r}, which is not available; use ops.diagonal")
    if arrow:
        out = out.replace("...", dots)
    else:
        everything = "".join(names)
        out = dots + "".join(sorted(c for c in set(everything) if everything.count(c) == 1 and c not in dots))
    if re.search(r"(.).*\1", out) or any(c not in "".join(names) for c in out):
        raise ValueError(f"einsum: the result {out!r} of {subscripts!r} is not possible")
    x, n = xs[0], names[0]
    for k in range(1, len(xs)):
        rest = set("".join(names[k + 1 :]) + out)
        x, n = _contract(x, n, xs[k], names[k], rest)
    x, n = _sum_out(x, n, set(out))
    return transpose(x, [n.index(c) for c in out]) if n != out else x


def _sum_out(x: Any, names: str, keep: set[str]) -> tuple[Any, str]:
    axes = [i for i, c in enumerate(names) if c not in keep]
    if axes:
        x = emit("reduce_sum", x, axes=axes, keepdims=False)
    return x, "".join(c for c in names if c in keep)


def _contract(a: Any, an: str, b: Any, bn: str, keep: set[str]) -> tuple[Any, str]:
    """One product: shared letters that are kept are a batch, the others are summed by matmul."""
    a, an = _sum_out(a, an, keep | set(bn))
    b, bn = _sum_out(b, bn, keep | set(an))
    shared = [c for c in an if c in bn]
    batch = [c for c in shared if c in keep]
    inner_ = [c for c in shared if c not in keep]
    rows, columns = [c for c in an if c not in shared], [c for c in bn if c not in shared]
    size = {**{c: b.dims[i] for i, c in enumerate(bn)}, **{c: a.dims[i] for i, c in enumerate(an)}}

    def arranged(x: Any, names: str, order: list[str], groups: list[list[str]]) -> Any:
        perm = [names.index(c) for c in order]
        x = transpose(x, perm) if perm != list(range(len(perm))) else x
        return reshape(x, [*(size[c] for c in batch), *(product_of([size[c] for c in g]) for g in groups)])

    a2 = arranged(a, an, batch + rows + inner_, [rows, inner_])
    b2 = arranged(b, bn, batch + inner_ + columns, [inner_, columns])
    y = emit("matmul", a2, b2, transpose_a=False, transpose_b=False)
    names = "".join(batch + rows + columns)
    return reshape(y, [size[c] for c in names]), names


@public
def cross(x1: Any, x2: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None) -> Any:
    """Cross product of vectors of 3 along an axis (`axis` stands for all three).

    Args:
        x1: vectors of 3.
        x2: vectors of 3.
        axisa: axis of x1's vectors.
        axisb: axis of x2's.
        axisc: axis of the result's.
        axis: for all three at once.

    Raises:
        ValueError: vectors of another size.
    """
    from dagrt.ops.shapes import moveaxis, stack

    if axis is not None:
        axisa = axisb = axisc = axis
    a, b = moveaxis(as_tensor(x1), axisa, -1), moveaxis(as_tensor(x2), axisb, -1)
    if a.shape[-1] != 3 or b.shape[-1] != 3:
        raise ValueError(f"cross: expected vectors of 3, got shapes {a.shape} and {b.shape} with the vectors last")
    p = [a[..., i] for i in range(3)]
    q = [b[..., i] for i in range(3)]
    return stack([p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]], axis=axisc)


@public
def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """Sum of a diagonal.

    Args:
        x: tensor.
        offset: which diagonal: above the main one where positive.
        axis1: rows.
        axis2: columns.
    """
    from dagrt.ops.reductions import sum as total
    from dagrt.ops.shapes import eye

    x = moveaxis(as_tensor(x), (axis1, axis2), (-2, -1))
    mask = eye(x.dims[-2], x.dims[-1], k=offset, dtype=x.dtype)
    return total(x * mask, axis=(-2, -1))
