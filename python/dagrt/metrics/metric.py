"""Metric: state that batches update and an epoch reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dagrt import _config, losses, ops, tracing
from dagrt.ops.core import as_tensor
from dagrt.variable import Variable


class Metric:
    """Numbers gathered over batches. Subclasses write `update_state` and `result`, over `dagrt.ops`.

    Args:
        dtype: dtype of the state.
        name: by default the class's name, numbered.

    Raises:
        ValueError: variables of another number, when a file is read.

    Example:
        >>> import dagrt as keras
        >>> class Largest(keras.metrics.Metric):
        ...     def __init__(self, **kwargs):
        ...         super().__init__(**kwargs)
        ...         self.largest = self.add_variable((), "zeros", name="largest")
        ...     def update_state(self, y_true, y_pred, sample_weight=None):
        ...         self.largest.assign(keras.ops.maximum(self.largest, keras.ops.max(y_pred)))
        ...     def result(self):
        ...         return self.largest.value
        >>> float(Largest()([0.0, 0.0], [1.0, 7.0]))
        7.0
    """

    def __init__(self, dtype: Any = None, name: str | None = None) -> None:
        self.name = name or _config.unique_name(_config.to_snake_case(type(self).__name__))
        dtype = dtype.get("config", {}).get("name") if isinstance(dtype, dict) else dtype
        self._dtype = getattr(dtype, "name", dtype) or _config.floatx()
        self._variables: list[Variable] = []
        self._initial: list[np.ndarray] = []
        self._metrics: list[Metric] = []

    @property
    def dtype(self) -> str:
        return self._dtype

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Metric) and "_metrics" in self.__dict__:
            self._metrics.append(value)
        object.__setattr__(self, name, value)

    def add_variable(
        self,
        shape: Any = (),
        initializer: Any = "zeros",
        dtype: Any = None,
        aggregation: Any = None,
        name: str | None = None,
    ) -> Variable:
        """A variable of the metric's state; `reset_state` sets it back to its initial value.

        Args:
            shape: sizes; () by default.
            initializer: name, initializer or function of (shape, dtype).
            dtype: the metric's by default.
            aggregation: kept for Keras's sake.
            name: last part of the variable's path.
        """
        from dagrt import initializers

        with tracing.path_scope(self.name):
            v = Variable(
                initializers.get(initializer),
                shape=tuple(shape),
                dtype=dtype or self._dtype,
                trainable=False,
                name=name,
            )
        self._variables.append(v)
        self._initial.append(v._core.read())
        return v

    def add_weight(
        self, shape: Any = (), initializer: Any = None, dtype: Any = None, name: str | None = None, **kwargs: Any
    ) -> Variable:
        return self.add_variable(shape, initializer or "zeros", dtype, name=name)

    @property
    def variables(self) -> list[Variable]:
        return self._variables + [v for m in self._metrics for v in m.variables]

    @property
    def weights(self) -> list[Variable]:
        return self.variables

    def reset_state(self) -> None:
        """Forgets all batches."""
        if tracing.in_trace():
            for v, a in zip(self._variables, self._initial):
                v.assign(a)
        else:
            for v, a in zip(self._variables, self._initial):
                v._core.assign(a)
        for m in self._metrics:
            m.reset_state()

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f"{type(self).__name__} must implement update_state()")

    def result(self) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must implement result()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.update_state(*args, **kwargs)
        return self.result()

    def save_own_variables(self, store: dict) -> None:
        for i, v in enumerate(self._variables):
            store[str(i)] = v

    def load_own_variables(self, store: dict) -> None:
        if len(store) != len(self._variables):
            raise ValueError(f"{self.name}: expected {len(self._variables)} variables, got {len(store)}")
        for i, v in enumerate(self._variables):
            v.assign(np.asarray(store[str(i)]))

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self._dtype}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(**config)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"


class Sum(Metric):
    """Sum of all values, each times its weight.

    result = sum(values * sample_weight), over all batches.

    Args:
        name: name of the metric.
        dtype: dtype of the state.

    Example:
        >>> import dagrt as keras
        >>> total = keras.metrics.Sum()
        >>> total.update_state([1.0, 3.0])
        >>> float(total([5.0, 5.0], sample_weight=[1.0, 0.0]))
        9.0
    """

    def __init__(self, name: str = "sum", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_variable(name="total")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        values, _ = losses.reduce_to_samplewise_values(as_tensor(values), sample_weight, ops.sum, self.dtype)
        self.total.assign(self.total + ops.sum(values))

    def result(self) -> Any:
        return self.total.value


class Mean(Metric):
    """Weighted mean of all values.

    result = sum(values * sample_weight) / sum(sample_weight), over all batches; 0 over none.

    Args:
        name: name of the metric.
        dtype: dtype of the state.

    Example:
        >>> import dagrt as keras
        >>> m = keras.metrics.Mean()
        >>> m.update_state([1.0, 3.0])
        >>> float(m.result())
        2.0
    """

    def __init__(self, name: str = "mean", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_variable(name="total")
        self.count = self.add_variable(name="count")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        values, weight = losses.reduce_to_samplewise_values(as_tensor(values), sample_weight, ops.mean, self.dtype)
        self.total.assign(self.total + ops.sum(values))
        if weight is not None:
            n = ops.sum(weight)
        elif values.shape:
            n = losses._size(values, self.dtype)
        else:
            n = ops.ones((), self.dtype)
        self.count.assign(self.count + n)

    def result(self) -> Any:
        return _ratio(self.total.value, self.count.value)


def _ratio(a: Any, b: Any) -> Any:
    """a / b, and 0 where b is 0."""
    return ops.where(ops.equal(b, 0.0), 0.0, a / ops.where(ops.equal(b, 0.0), 1.0, b))


class MeanMetricWrapper(Mean):
    """Mean over samples of a function of (y_true, y_pred).

    Args:
        fn: gives one value for each sample, over `dagrt.ops`.
        name: name of the metric; by default the function's.
        dtype: dtype of the state.
        kwargs: passed on to fn.

    Example:
        >>> import dagrt as keras
        >>> m = keras.metrics.MeanMetricWrapper(keras.losses.huber, delta=2.0)
        >>> float(m([[0.0]], [[2.0]]))
        2.0
    """

    def __init__(self, fn: Callable, name: str | None = None, dtype: Any = None, **kwargs: Any) -> None:
        super().__init__(name=name or getattr(fn, "__name__", "metric"), dtype=dtype)
        self._fn = fn
        self._fn_kwargs = kwargs

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        p = as_tensor(y_pred)
        mask = getattr(p, "_keras_mask", None)
        values = as_tensor(self._fn(as_tensor(y_true), p, **self._fn_kwargs))
        if sample_weight is not None and mask is not None:
            sample_weight = losses.apply_mask(as_tensor(sample_weight), mask, self.dtype, "sum")
        elif sample_weight is None and mask is not None and len(mask.shape) <= len(values.shape):
            sample_weight = ops.cast(mask, self.dtype)
        super().update_state(values, sample_weight=sample_weight)

    def get_config(self) -> dict[str, Any]:
        base = {"name": self.name, "dtype": self._dtype}
        if type(self) is MeanMetricWrapper:
            from dagrt.saving import serialize_keras_object

            base["fn"] = serialize_keras_object(self._fn)
        return {**base, **self._fn_kwargs}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        if "fn" in config:
            from dagrt.saving import deserialize_keras_object

            config = {**config, "fn": deserialize_keras_object(config["fn"])}
        return cls(**config)
