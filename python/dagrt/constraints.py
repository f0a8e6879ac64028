"""Rules that weights must obey after each optimiser step."""

from __future__ import annotations

from typing import Any

from dagrt import _config, ops


class Constraint:
    """A function from a weight to the weight that obeys. Subclasses write `__call__`, and `get_config` for files.

    Example:
        >>> import dagrt as keras
        >>> class AtMostOne(keras.constraints.Constraint):
        ...     def __call__(self, w):
        ...         return keras.ops.minimum(w, 1.0)
        >>> AtMostOne()(keras.ops.full((2,), 2.0)).numpy()
        array([1., 1.], dtype=float32)
    """

    def __call__(self, w: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must implement __call__(w)")

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(**config)


def _norms(w: Any, axis: Any) -> Any:
    return ops.sqrt(ops.sum(ops.square(w), axis=axis, keepdims=True))


class MaxNorm(Constraint):
    """Norms along an axis at most `max_value`.

    w = w * min(|w|, max_value) / (1e-7 + |w|).

    Args:
        max_value: the largest norm.
        axis: axis or axes of the norm: 0 for the inputs of a Dense kernel, (0, 1, 2) for those of a Conv2D kernel.

    Example:
        >>> import dagrt as keras
        >>> keras.constraints.MaxNorm(1.0)([[3.0], [4.0]]).numpy().round(4).ravel()
        array([0.6, 0.8], dtype=float32)

    Reference:
        Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 15, 2014.
    """

    def __init__(self, max_value: float = 2, axis: Any = 0) -> None:
        self.max_value, self.axis = max_value, axis

    def __call__(self, w: Any) -> Any:
        norms = _norms(w, self.axis)
        return w * (ops.clip(norms, 0, float(self.max_value)) / (_config.epsilon() + norms))

    def get_config(self) -> dict[str, Any]:
        return {"max_value": self.max_value, "axis": self.axis}


class NonNeg(Constraint):
    """No weight below 0: w = max(w, 0).

    Example:
        >>> import dagrt as keras
        >>> keras.constraints.NonNeg()([-1.0, 2.0]).numpy()
        array([0., 2.], dtype=float32)
    """

    def __call__(self, w: Any) -> Any:
        return ops.maximum(w, 0.0)


class UnitNorm(Constraint):
    """Norms along an axis equal 1.

    w = w / (1e-7 + |w|).

    Args:
        axis: axis or axes of the norm: 0 for the inputs of a Dense kernel, (0, 1, 2) for those of a Conv2D kernel.

    Example:
        >>> import dagrt as keras
        >>> keras.constraints.UnitNorm()([[3.0], [4.0]]).numpy().round(4).ravel()
        array([0.6, 0.8], dtype=float32)
    """

    def __init__(self, axis: Any = 0) -> None:
        self.axis = axis

    def __call__(self, w: Any) -> Any:
        return w / (_config.epsilon() + _norms(w, self.axis))

    def get_config(self) -> dict[str, Any]:
        return {"axis": self.axis}


class MinMaxNorm(Constraint):
    """Norms along an axis moved towards an interval.

    w = w * (rate * clip(|w|, min_value, max_value) + (1 - rate) * |w|) / (1e-7 + |w|).

    Args:
        min_value, max_value: the interval.
        rate: how far they are moved, 0 to 1; 1 keeps them inside.
        axis: axis or axes of the norm: 0 for the inputs of a Dense kernel, (0, 1, 2) for those of a Conv2D kernel.

    Example:
        >>> import dagrt as keras
        >>> keras.constraints.MinMaxNorm(max_value=1.0, rate=0.5)([[3.0], [4.0]]).numpy().round(4).ravel()
        array([1.8, 2.4], dtype=float32)
    """

    def __init__(self, min_value: float = 0.0, max_value: float = 1.0, rate: float = 1.0, axis: Any = 0) -> None:
        self.min_value, self.max_value, self.rate, self.axis = min_value, max_value, rate, axis

    def __call__(self, w: Any) -> Any:
        norms = _norms(w, self.axis)
        wanted = self.rate * ops.clip(norms, float(self.min_value), float(self.max_value)) + (1 - self.rate) * norms
        return w * (wanted / (_config.epsilon() + norms))

    def get_config(self) -> dict[str, Any]:
        return {"min_value": self.min_value, "max_value": self.max_value, "rate": self.rate, "axis": self.axis}


max_norm, non_neg, unit_norm, min_max_norm = MaxNorm, NonNeg, UnitNorm, MinMaxNorm
_NAMES = {
    "max_norm": MaxNorm,
    "non_neg": NonNeg,
    "unit_norm": UnitNorm,
    "min_max_norm": MinMaxNorm,
    "MaxNorm": MaxNorm,
    "NonNeg": NonNeg,
    "UnitNorm": UnitNorm,
    "MinMaxNorm": MinMaxNorm,
}


def serialize(constraint: Any) -> Any:
    """The constraint as plain data, for `deserialize` and files.

    Args:
        constraint: the constraint, an object or function.

    Example:
        >>> import dagrt as keras
        >>> keras.constraints.serialize(keras.constraints.MaxNorm(3))["class_name"]
        'MaxNorm'
    """
    from dagrt.saving import serialize_keras_object

    return serialize_keras_object(constraint)


def deserialize(config: Any, custom_objects: dict | None = None) -> Any:
    """The constraint that `serialize` described.

    Args:
        config: what `serialize` gave.
        custom_objects: dict of names to classes and functions that are not registered.

    Example:
        >>> import dagrt as keras
        >>> type(keras.constraints.deserialize(keras.constraints.serialize(keras.constraints.MaxNorm(3)))).__name__
        'MaxNorm'
    """
    from dagrt.saving import deserialize_keras_object

    return deserialize_keras_object(config, custom_objects)


def get(identifier: Any) -> Any:
    """The constraint that something stands for.

    Args:
        identifier: name, class, config, object or function; None is none.

    Raises:
        ValueError: an unknown name, or something else.

    Example:
        >>> import dagrt as keras
        >>> type(keras.constraints.get("non_neg")).__name__
        'NonNeg'
    """
    if identifier is None:
        return None
    if isinstance(identifier, dict):
        return deserialize(identifier)
    if isinstance(identifier, str):
        if identifier in _NAMES:
            return _NAMES[identifier]()
        raise ValueError(
            f"Could not interpret constraint identifier: {identifier!r}; there are {', '.join(sorted(_NAMES))}"
        )
    if isinstance(identifier, type):
        return identifier()
    if callable(identifier):
        return identifier
    raise ValueError(f"Could not interpret constraint identifier: {identifier!r}")
