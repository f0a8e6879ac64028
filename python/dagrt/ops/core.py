"""Conversion, types and the decorator of public ops."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from dagrt import _config, _core, tracing, tree
from dagrt.operation import symbolic_function
from dagrt.ops.raw import emit
from dagrt.tensor import EagerTensor, KerasTensor, Tensor, TracedTensor, any_symbolic, dtype_name
from dagrt.variable import Variable

_ORDER = ("bool", "uint8", "int32", "int64", "float16", "bfloat16", "float32")


def public(fn: Callable) -> Callable:
    """On KerasTensors a public op is one node of the layer graph; on all else it runs."""

    @functools.wraps(fn)
    def op(*args: Any, **kwargs: Any) -> Any:
        for a in args:
            kind = type(a)
            if kind is KerasTensor or (kind in (list, tuple, dict) and any_symbolic(a)):
                return symbolic_function(fn, args, kwargs)
        if kwargs and any_symbolic(kwargs):
            return symbolic_function(fn, args, kwargs)
        return fn(*args, **kwargs)

    return op


# --- types ---------------------------------------------------------------------------------------------------------


def standard_dtype(dtype: Any) -> str:
    """The name of a dtype; float64 is refused."""
    if dtype is None:
        return _config.floatx()
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", None) or np.dtype(dtype).name
    if name in _ORDER:
        return name
    if name == "float":
        return _config.floatx()
    if name == "int":
        return "int32"
    if name in ("int8", "int16", "uint16"):
        return "int32"
    if name == "uint32":
        return "int64"
    if name == "float64":
        raise _core.DTypeError("dtype 'float64' is not available: dagrt computes in float32; leave the dtype out")
    raise _core.DTypeError(f"Unknown dtype {name!r}; dagrt has {', '.join(_ORDER)}")


def is_float(dtype: str) -> bool:
    return "float" in dtype


def promoted(a: str, b: str) -> str:
    """The type in which two tensors meet, as Keras (JAX): any float wins over integers."""
    if a == b:
        return a
    if {a, b} == {"float16", "bfloat16"}:
        return "float32"
    return _ORDER[max(_ORDER.index(a), _ORDER.index(b))]


def result_type(*values: Any) -> str:
    """The type of an operation on tensors and weak Python numbers."""
    strong: str | None = None
    weak_float = weak_int = weak_bool = False
    for x in values:
        if isinstance(x, bool):
            weak_bool = True
        elif isinstance(x, float):
            weak_float = True
        elif isinstance(x, (int, _core.Dim)):
            weak_int = True
        elif isinstance(x, str):
            strong = x if strong is None else promoted(strong, x)
        elif x is not None:
            strong = dtype_of(x) if strong is None else promoted(strong, dtype_of(x))
    if strong is None:
        return _config.floatx() if weak_float else "int32" if weak_int else "bool" if weak_bool else _config.floatx()
    if weak_float and not is_float(strong):
        return _config.floatx()
    if weak_int and strong == "bool":
        return "int32"
    return strong


def dtype_of(x: Any) -> str:
    if isinstance(x, (Tensor, Variable)):
        return x.dtype
    return dtype_name(tracing.host_array(x).dtype)


def is_tensor(x: Any) -> bool:
    """Whether x is a tensor of any of the three kinds.

    Args:
        x: anything.
    """
    return isinstance(x, Tensor)


def as_tensor(x: Any, dtype: str | None = None) -> Tensor:
    """Any value as a tensor, cast where a dtype is given."""
    if type(x) is TracedTensor or type(x) is EagerTensor:
        t = x
    elif isinstance(x, Variable):
        t = x.value
    elif isinstance(x, KerasTensor):
        t = x
    elif isinstance(x, _core.Dim):
        t = dim_tensor(x, dtype or "int32")
    else:
        if isinstance(x, (list, tuple)) and any(isinstance(v, (Tensor, Variable, _core.Dim)) for v in tree.flatten(x)):
            from dagrt.ops.shapes import stack

            t = stack([as_tensor(v, dtype) for v in x])
        else:
            given = "float32" if dtype == "bfloat16" else dtype  # which NumPy lacks: cast below
            array = tracing.host_array(x, given if not isinstance(x, np.ndarray) else None)
            trace = tracing.current_trace()
            if trace is not None:
                if dtype == "bfloat16" and dtype_name(array.dtype) != dtype:
                    return emit("cast", trace.constant(array), dtype=dtype)
                if dtype is not None and dtype_name(array.dtype) != dtype:
                    array = array.astype(tracing.numpy_dtype(dtype))
                return trace.constant(array)
            t = EagerTensor(array)
    if dtype is not None and t.dtype != dtype:
        t = emit("cast", t, dtype=dtype)
    return t


def dim_tensor(d: Any, dtype: str = "int32") -> Tensor:
    """A size as a scalar of the program: the number of elements of an iota, by its last element."""
    return as_tensor(_size_value(d.to_json()), dtype)


_SIZE_OPS = {
    "+": "add",
    "-": "subtract",
    "*": "multiply",
    "//": "floor_divide",
    "%": "mod",
    "min": "minimum",
    "max": "maximum",
}


def _size_value(e: Any) -> Tensor:
    """A size in its JSON form as a scalar. Only single sizes are made, so that a product of them stays small."""
    if isinstance(e, int):
        return as_tensor(e, "int32")
    if isinstance(e, str):
        return _as_last_index(_core.Dim.symbol(e))
    op, a, b = e
    if op in _SIZE_OPS:
        return emit(_SIZE_OPS[op], _size_value(a), _size_value(b))
    return _as_last_index(_core.Dim.broadcast(_dim_of(a), _dim_of(b)))


def _as_last_index(d: Any) -> Tensor:
    # iota(d + 1)[d] == d, made by slicing: sizes are known when the program is compiled.
    line = emit("iota", size=d + 1, dtype="int32")
    return emit("reshape", emit("slice", line, begin=[d], size=[1], stride=[1]), shape=[])


_DIM_OPS: dict[str, Callable] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "min": _core.Dim.min,
    "max": _core.Dim.max,
    "broadcast": _core.Dim.broadcast,
}


def _dim_of(e: Any) -> Any:
    if isinstance(e, (int, str)):
        return e if isinstance(e, int) else _core.Dim.symbol(e)
    return _DIM_OPS[e[0]](_dim_of(e[1]), _dim_of(e[2]))


@public
def convert_to_tensor(x: Any, dtype: Any = None, sparse: Any = None, ragged: Any = None) -> Any:
    """x as a tensor.

    Args:
        x: array, number, nested lists, tensor or Variable.
        dtype: of the result; by default its own, float64 becoming float32.
        sparse: Keras's, without effect.
        ragged: Keras's, without effect.

    Raises:
        TypeError: not numbers, or a dtype that dagrt lacks.
    """
    return owned(as_tensor(x, None if dtype is None else standard_dtype(dtype)), x)


def owned(t: Tensor, source: Any) -> Tensor:
    """The tensor, with numbers of its own: writing to the user's array later must not change it."""
    if isinstance(source, np.ndarray) and type(t) is EagerTensor and np.may_share_memory(t._array, source):
        return EagerTensor(t._array.copy())
    return t


def convert_to_numpy(x: Any) -> np.ndarray:
    """x as a NumPy array (tensors that have numbers, and whatever NumPy takes).

    Args:
        x: tensor, Variable or array.
    """
    return np.asarray(x.numpy() if hasattr(x, "numpy") else x)


@public
def cast(x: Any, dtype: Any) -> Any:
    """x in another dtype; floats to integers truncate.

    Args:
        x: tensor.
        dtype: name of the type.
    """
    return owned(as_tensor(as_tensor(x), standard_dtype(dtype)), x)


@public
def saturate_cast(x: Any, dtype: Any) -> Any:
    """As cast: conversions here saturate.

    Args:
        x: tensor.
        dtype: name of the type.
    """
    return cast(x, dtype)


def dtype(x: Any) -> str:
    """The dtype's name.

    Args:
        x: tensor, Variable or array.
    """
    return dtype_of(x)


def shape(x: Any) -> tuple[Any, ...]:
    """The sizes: ints, and `Dim`s (expressions over input sizes) where they vary.

    A Dim may be used as a size (`ops.reshape`, `ops.zeros`, random shapes) and in arithmetic with integers.

    Args:
        x: tensor, Variable or array.
    """
    if isinstance(x, (Tensor, Variable)):
        return tuple(x.dims)
    return np.shape(x)


def ndim(x: Any) -> int:
    """The number of axes.

    Args:
        x: tensor, Variable or array.
    """
    return len(shape(x))


@public
def stop_gradient(variable: Any) -> Any:
    """The value, through which no gradient flows.

    Args:
        variable: tensor or Variable.
    """
    return emit("stop_gradient", as_tensor(variable))


def static_axes(axis: Any, rank: int) -> list[int]:
    """Axes as non-negative numbers, sorted; None means all.

    Raises:
        ValueError: an axis that is not there, or twice.
    """
    if axis is None:
        return list(range(rank))
    axes = []
    for a in axis if isinstance(axis, (list, tuple)) else [axis]:
        a = int(a)
        if not -rank <= a < rank:
            raise ValueError(f"axis {a} is out of range for a tensor of {rank} axes")
        axes.append(a % rank)
    if len(set(axes)) != len(axes):
        raise ValueError(f"axis {axis} names an axis twice")
    return sorted(axes)


def one_axis(axis: Any, rank: int) -> int:
    if isinstance(axis, (list, tuple)) or not -rank <= axis < rank:
        raise ValueError(f"axis {axis} is out of range for a tensor of {rank} axes")
    return int(axis) % rank


def product_of(dims: Any) -> Any:
    n: Any = 1
    for d in dims:
        n = n * d
    return n


def unwrap_sizes(shape: Any) -> list[Any]:
    """Sizes given as ints, NumPy integers, Dims or a tensor of numbers."""
    if isinstance(shape, (int, np.integer, _core.Dim)):
        return [shape if isinstance(shape, _core.Dim) else int(shape)]
    if isinstance(shape, EagerTensor):
        shape = shape.numpy().tolist()
    if isinstance(shape, TracedTensor):
        raise _core.GraphError("A size was taken from data; sizes must follow from the inputs' shapes (ops.shape)")
    sizes = []
    for d in shape:
        if isinstance(d, TracedTensor):
            raise _core.GraphError("A size was taken from data; sizes must follow from the inputs' shapes (ops.shape)")
        sizes.append(d if isinstance(d, _core.Dim) else int(d))
    return sizes
