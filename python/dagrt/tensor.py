"""Tensors of three kinds, alike to compute with.

`EagerTensor` (public as `dagrt.Tensor`) holds an array; `TracedTensor` is a value of the program being traced;
`KerasTensor` is a symbol of the layer graph. Their operators are those of `dagrt.ops`.
"""

from __future__ import annotations

import itertools
import os
import sys
from typing import Any

import numpy as np

from dagrt import _core

_numbers = itertools.count()
_dtype_names: dict[np.dtype, str] = {}


def dtype_name(dtype: np.dtype) -> str:
    """`dtype.name`, remembered: NumPy takes 3 microseconds to put it together."""
    name = _dtype_names.get(dtype)
    if name is None:
        name = _dtype_names[dtype] = dtype.name
    return name


class Tensor:
    """What the three kinds have in common: shape, dtype and operators. A mask may travel beside as `_keras_mask`."""

    __slots__ = ("__weakref__", "_keras_mask")
    __array_priority__ = 1000  # NumPy's operators give way to ours

    shape: tuple[int | None, ...]
    dims: tuple[Any, ...]
    dtype: str

    @property
    def ndim(self) -> int:
        return len(self.dims)

    rank = ndim

    @property
    def size(self) -> int | None:
        n = 1
        for d in self.shape:
            if d is None:
                return None
            n *= d
        return n

    @property
    def T(self) -> Any:
        return _ops().transpose(self)

    def reshape(self, *shape: Any) -> Any:
        return _ops().reshape(self, shape[0] if len(shape) == 1 and isinstance(shape[0], (list, tuple)) else shape)

    def squeeze(self, axis: Any = None) -> Any:
        return _ops().squeeze(self, axis)

    def astype(self, dtype: Any) -> Any:
        return _ops().cast(self, dtype)

    def __len__(self) -> int:
        if not self.dims:
            raise TypeError("len() of a tensor without axes")
        n = self.shape[0]
        if n is None:
            raise TypeError("len() of a tensor whose first size is not known; use ops.shape(x)[0]")
        return n

    def __add__(self, other: Any) -> Any:
        return _ops().add(self, other)

    def __radd__(self, other: Any) -> Any:
        return _ops().add(other, self)

    def __sub__(self, other: Any) -> Any:
        return _ops().subtract(self, other)

    def __rsub__(self, other: Any) -> Any:
        return _ops().subtract(other, self)

    def __mul__(self, other: Any) -> Any:
        return _ops().multiply(self, other)

    def __rmul__(self, other: Any) -> Any:
        return _ops().multiply(other, self)

    def __truediv__(self, other: Any) -> Any:
        return _ops().true_divide(self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return _ops().true_divide(other, self)

    def __floordiv__(self, other: Any) -> Any:
        return _ops().floor_divide(self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return _ops().floor_divide(other, self)

    def __mod__(self, other: Any) -> Any:
        return _ops().mod(self, other)

    def __rmod__(self, other: Any) -> Any:
        return _ops().mod(other, self)

    def __pow__(self, other: Any) -> Any:
        return _ops().power(self, other)

    def __rpow__(self, other: Any) -> Any:
        return _ops().power(other, self)

    def __matmul__(self, other: Any) -> Any:
        return _ops().matmul(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return _ops().matmul(other, self)

    def __neg__(self) -> Any:
        return _ops().negative(self)

    def __abs__(self) -> Any:
        return _ops().absolute(self)

    def __round__(self, ndigits: int | None = None) -> Any:
        return _ops().round(self, decimals=ndigits or 0)

    def __invert__(self) -> Any:
        return _ops().logical_not(self) if self.dtype == "bool" else _ops().bitwise_not(self)

    def __and__(self, other: Any) -> Any:
        return _ops().logical_and(self, other) if self.dtype == "bool" else _ops().bitwise_and(self, other)

    def __rand__(self, other: Any) -> Any:
        return self & other

    def __or__(self, other: Any) -> Any:
        return _ops().logical_or(self, other) if self.dtype == "bool" else _ops().bitwise_or(self, other)

    def __ror__(self, other: Any) -> Any:
        return self | other

    def __xor__(self, other: Any) -> Any:
        return _ops().logical_xor(self, other) if self.dtype == "bool" else _ops().bitwise_xor(self, other)

    __rxor__ = __xor__

    def __eq__(self, other: object) -> Any:
        return False if other is None else _ops().equal(self, other)

    def __ne__(self, other: object) -> Any:
        return True if other is None else _ops().not_equal(self, other)

    def __lt__(self, other: Any) -> Any:
        return _ops().less(self, other)

    def __le__(self, other: Any) -> Any:
        return _ops().less_equal(self, other)

    def __gt__(self, other: Any) -> Any:
        return _ops().greater(self, other)

    def __ge__(self, other: Any) -> Any:
        return _ops().greater_equal(self, other)

    def __hash__(self) -> int:
        return id(self)

    def __getitem__(self, key: Any) -> Any:
        return _ops().get_item(self, key)


def _ops() -> Any:
    from dagrt import ops

    return ops


class EagerTensor(Tensor):
    """An array with its numbers, answered by ops on arrays. Read with `.numpy()` or any NumPy function.

    Example:
        >>> import dagrt
        >>> (dagrt.ops.arange(3) * 2).numpy()
        array([0, 2, 4], dtype=int32)
    """

    __slots__ = ("_array",)

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self._array.shape

    dims = shape  # type: ignore[assignment]

    @property
    def dtype(self) -> str:  # type: ignore[override]
        return dtype_name(self._array.dtype)

    def numpy(self) -> np.ndarray:
        """The numbers, as a NumPy array of its own."""
        return self._array.copy()

    def item(self) -> Any:
        return self._array.item()

    def tolist(self) -> Any:
        return self._array.tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if dtype is not None and np.dtype(dtype) != self._array.dtype:
            return self._array.astype(dtype)
        return self._array.copy() if copy else self._array

    def __buffer__(self, flags: int) -> memoryview:
        return memoryview(self._array)

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self._array.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()

    def __float__(self) -> float:
        return float(self._array)

    def __int__(self) -> int:
        return int(self._array)

    def __index__(self) -> int:
        return self._array.__index__()

    def __bool__(self) -> bool:
        return bool(self._array)

    def __format__(self, spec: str) -> str:
        return format(self._array.item(), spec) if self._array.ndim == 0 else format(str(self), spec)

    def __iter__(self) -> Any:
        return (EagerTensor(np.ascontiguousarray(row)) for row in self._array)

    def __repr__(self) -> str:
        return f"<dagrt.Tensor shape={self.shape} dtype={self.dtype}\n{self._array}>"


def _user_line() -> str:
    """The innermost line outside this package, for messages."""
    frame = sys._getframe(1)
    here = os.path.dirname(os.path.abspath(__file__)) + os.sep
    while frame is not None and os.path.abspath(frame.f_code.co_filename).startswith(here):
        frame = frame.f_back  # type: ignore[assignment]
    return f" ({frame.f_code.co_filename}:{frame.f_lineno})" if frame is not None else ""


class TracedTensor(Tensor):
    """A value of the program being traced: it has a type, and gets numbers only when the program runs."""

    __slots__ = ("dims", "dtype", "scope", "shape")

    def __init__(self, scope: Any, dtype: str, dims: tuple[Any, ...]) -> None:
        self.scope = scope  # the function of the trace that computes it
        self.dtype = dtype
        self.dims = dims
        self.shape = tuple(d if isinstance(d, int) else None for d in dims)

    def _refuse(self, what: str, remedy: str) -> _core.GraphError:
        return _core.GraphError(
            f"A value of a traced function has no numbers yet and cannot be {what}{_user_line()}; {remedy}"
        )

    def numpy(self) -> np.ndarray:
        raise self._refuse("turned into an array", "use dagrt.ops, or a callback for what runs on the host")

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        return self.numpy()

    def item(self) -> Any:
        return self.__float__()

    def __float__(self) -> float:
        raise self._refuse("turned into a number", "compute with it by dagrt.ops")

    __int__ = __float__  # type: ignore[assignment]
    __index__ = __float__  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise self._refuse("a condition", "use ops.where or ops.select")

    def __iter__(self) -> Any:
        if not self.dims:
            raise TypeError("iteration over a tensor without axes")
        if self.shape[0] is None:
            raise self._refuse(
                "iterated over", "its first size is not known; use ops.scan, or declare that axis as a number"
            )
        return (self[i] for i in range(self.shape[0]))

    def __repr__(self) -> str:
        return f"<TracedTensor shape={self.shape} dtype={self.dtype}>"


class KerasTensor(Tensor):
    """A symbol of the layer graph: what `Input` and layers called on symbols give.

    Args:
        shape: sizes, None where unknown.
        dtype: element type.
        name: by default "keras_tensor", numbered.
    """

    __slots__ = ("_keras_history", "dims", "dtype", "name", "shape")

    def __init__(self, shape: Any, dtype: str = "float32", sparse: bool = False, name: str | None = None) -> None:
        from dagrt import _config

        dims = []
        for axis, d in enumerate(shape):
            if d is None:
                d = _core.Dim.symbol("batch" if axis == 0 else f"k{next(_numbers)}.{axis}")
            dims.append(d if isinstance(d, _core.Dim) else int(d))
        self.dims = tuple(dims)
        self.shape = tuple(d if isinstance(d, int) else None for d in dims)
        self.dtype = dtype
        self.name = name or _config.unique_name("keras_tensor")

    sparse = ragged = False

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise ValueError(
            "A KerasTensor is symbolic: it's a placeholder for a shape and a dtype. It doesn't have any actual numerical "
            "value. You cannot convert it to a NumPy array."
        )

    def numpy(self) -> np.ndarray:
        return self.__array__()

    def __float__(self) -> float:
        raise ValueError("A KerasTensor is symbolic: it has no numbers, so it cannot become a Python number.")

    __int__ = __float__  # type: ignore[assignment]
    __index__ = __float__  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise TypeError(
            "A symbolic KerasTensor cannot be used as a boolean: it has no numbers yet. Use ops.where, or a Layer for what "
            "depends on values."
        )

    def __iter__(self) -> Any:
        raise NotImplementedError("Iterating over a symbolic KerasTensor is not supported.")

    def __repr__(self) -> str:
        return f"<KerasTensor shape={self.shape}, dtype={self.dtype}, sparse=False, ragged=False, name={self.name}>"


def any_symbolic(tree: Any) -> bool:
    """Whether a nesting holds a KerasTensor."""
    if isinstance(tree, (list, tuple)):
        return any(any_symbolic(t) for t in tree)
    if isinstance(tree, dict):
        return any(any_symbolic(t) for t in tree.values())
    return isinstance(tree, KerasTensor)
