"""Variable: state that outlives a run. The numbers live in C++; this is its name and rules."""

from __future__ import annotations

from typing import Any

import numpy as np

from dagrt import _config, _core
from dagrt.tensor import EagerTensor, Tensor


class Variable:
    """Weights, moving statistics, optimiser slots, counters: what layers hold and programs read and assign.

    Args:
        initializer: an array or number, a function of `(shape, dtype)`, or the name of an initializer.
        shape: sizes, needed where the initializer is a function.
        dtype: element type; the initializer's, or float32.
        trainable: whether optimisers change it.
        name: by default "variable", numbered.

    Raises:
        ValueError: sizes that are not numbers, or a value of another shape.

    Example:
        >>> import dagrt
        >>> v = dagrt.Variable([1.0, 2.0])
        >>> v.assign_add([1.0, 1.0]).numpy()
        array([2., 3.], dtype=float32)
    """

    __array_priority__ = 1000

    def __init__(
        self,
        initializer: Any,
        shape: Any = None,
        dtype: Any = None,
        trainable: bool = True,
        autocast: bool = True,
        aggregation: str = "none",
        synchronization: str = "auto",
        name: str | None = None,
        layout: Any = None,
        **kwargs: Any,
    ) -> None:
        from dagrt import tracing

        if kwargs:
            raise ValueError(f"Variable: unknown arguments {sorted(kwargs)}")
        self.name = name or _config.unique_name("variable")
        if "/" in self.name:
            raise ValueError(f"Variable: the name must not contain '/', got {self.name!r}")
        scope = tracing.current_path()
        self.path = f"{scope}/{self.name}" if scope else self.name
        self.trainable = bool(trainable)
        self.autocast, self.aggregation = autocast, aggregation
        self.regularizer: Any = None
        self.constraint: Any = None
        self.overwrite_with_gradient = False
        with tracing.outside():
            if isinstance(initializer, str):
                from dagrt import initializers

                initializer = initializers.get(initializer)
            if callable(initializer) and not isinstance(initializer, (Tensor, Variable)):
                if shape is None:
                    raise ValueError(f"Variable {self.path}: an initializer function needs `shape`")
                value = initializer(tuple(shape), dtype=dtype or _config.floatx())
            else:
                value = initializer
            array = tracing.host_array(value, dtype)
        if shape is not None and tuple(array.shape) != tuple(shape):
            raise ValueError(
                f"Variable {self.path}: the initial value has shape {array.shape}, expected {tuple(shape)}"
            )
        tracing.note_variable_created(self.path)
        self._core = _core.Variable(np.asarray(array, order="C"), self.path)

    # --- type ----------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return self._core.shape

    dims = shape

    @property
    def dtype(self) -> str:
        """The element type; in the call of a layer that computes in 16 bits, that in which it is read there."""
        from dagrt import tracing

        kept, read = self._core.dtype, tracing._context.autocast
        return read[-1] if read and read[-1] and self.autocast and "float" in kept else kept

    @property
    def ndim(self) -> int:
        return len(self._core.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self._core.shape))

    # --- value ---------------------------------------------------------------------------------------------------

    @property
    def value(self) -> Tensor:
        """The value now: in a trace its symbol there, else a copy of the numbers."""
        from dagrt import tracing

        trace = tracing.current_trace()
        kept = trace.read(self) if trace is not None else EagerTensor(self._core.read())
        read = self.dtype
        if read == kept.dtype:
            return kept
        from dagrt import ops

        return ops.cast(kept, read)

    def numpy(self) -> np.ndarray:
        """The numbers, copied.

        Raises:
            GraphError: in a trace, where the value is not known yet.
        """
        from dagrt import tracing

        if tracing.current_trace() is not None:
            return self.value.numpy()
        return self._core.read()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        a = self.numpy()
        return a if dtype is None else a.astype(dtype)

    def assign(self, value: Any, when: Any = None) -> Any:
        """Sets the value. In a trace later reads see it, and it is stored once, when the run has succeeded.

        Args:
            value: of this variable's shape; cast to its dtype.
            when: a bool scalar: where it is false, the variable keeps its value.

        Raises:
            ValueError: another shape.
        """
        from dagrt import tracing

        when = tracing.condition(when)
        trace = tracing.current_trace()
        if trace is not None:
            return trace.assign(self, value, when)
        array = tracing.host_array(value, self._core.dtype)
        if array.shape != tuple(self.shape):
            raise ValueError(f"{self.path}: assign expected shape {tuple(self.shape)}, got {array.shape}")
        if when is None or bool(when):
            self._core.assign(np.asarray(array, order="C"))
        return self.value

    def assign_add(self, value: Any) -> Any:
        return self.assign(self.value + value)

    def assign_sub(self, value: Any) -> Any:
        return self.assign(self.value - value)

    def __float__(self) -> float:
        return float(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __len__(self) -> int:
        return len(self.value)

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"<Variable path={self.path}, shape={tuple(self.shape)}, dtype={self.dtype}>"


def _forward(name: str) -> Any:
    def method(self: Variable, *args: Any) -> Any:
        return getattr(self.value, name)(*args)

    method.__name__ = name
    return method


for _name in (
    "add",
    "radd",
    "sub",
    "rsub",
    "mul",
    "rmul",
    "truediv",
    "rtruediv",
    "floordiv",
    "rfloordiv",
    "mod",
    "rmod",
    "pow",
    "rpow",
    "matmul",
    "rmatmul",
    "neg",
    "abs",
    "round",
    "invert",
    "and",
    "rand",
    "or",
    "ror",
    "xor",
    "rxor",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "getitem",
):
    setattr(Variable, f"__{_name}__", _forward(f"__{_name}__"))
Variable.__hash__ = lambda self: id(self)  # type: ignore[method-assign]
