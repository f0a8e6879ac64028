"""Penalties on weights and activations, added to a model's loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from dagrt import ops


class Regularizer:
    """A function from a tensor to a scalar penalty. Subclasses write `__call__`, and `get_config` for files.

    Example:
        >>> import dagrt as keras
        >>> class L4(keras.regularizers.Regularizer):
        ...     def __call__(self, x):
        ...         return 0.5 * keras.ops.sum(x**4)
        >>> float(L4()(keras.ops.full((2,), 2.0)))
        16.0
    """

    def __call__(self, x: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must implement __call__(x)")

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(**config)


class L1L2(Regularizer):
    """Both penalties: penalty = l1 * sum|x| + l2 * sum x².

    Args:
        l1, l2: factors, not negative; 0 by default.

    Raises:
        ValueError: a negative or infinite factor.

    Example:
        >>> import dagrt as keras
        >>> float(keras.regularizers.L1L2(l1=0.5, l2=1.0)([1.0, -2.0]))
        6.5
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1, self.l2 = _factor(l1, "l1"), _factor(l2, "l2")

    def __call__(self, x: Any) -> Any:
        total: Any = 0.0
        if self.l1:
            total = total + self.l1 * ops.sum(ops.absolute(x))
        if self.l2:
            total = total + self.l2 * ops.sum(ops.square(x))
        return ops.convert_to_tensor(total)

    def get_config(self) -> dict[str, Any]:
        return {"l1": self.l1, "l2": self.l2}


class L1(Regularizer):
    """Absolute values: penalty = l1 * sum|x|.

    Args:
        l1: factor, not negative.

    Raises:
        ValueError: a negative or infinite factor.

    Example:
        >>> import dagrt as keras
        >>> float(keras.regularizers.L1(0.5)([1.0, -2.0]))
        1.5
    """

    def __init__(self, l1: float = 0.01) -> None:
        self.l1 = _factor(0.01 if l1 is None else l1, "l1")

    def __call__(self, x: Any) -> Any:
        return self.l1 * ops.sum(ops.absolute(x))

    def get_config(self) -> dict[str, Any]:
        return {"l1": float(np.float32(self.l1))}  # as Keras writes it


class L2(Regularizer):
    """Squares: penalty = l2 * sum x².

    Args:
        l2: factor, not negative.

    Raises:
        ValueError: a negative or infinite factor.

    Example:
        >>> import dagrt as keras
        >>> float(keras.regularizers.L2(0.5)([1.0, -2.0]))
        2.5
    """

    def __init__(self, l2: float = 0.01) -> None:
        self.l2 = _factor(0.01 if l2 is None else l2, "l2")

    def __call__(self, x: Any) -> Any:
        return self.l2 * ops.sum(ops.square(x))

    def get_config(self) -> dict[str, Any]:
        return {"l2": self.l2}


class OrthogonalRegularizer(Regularizer):
    """Keeps the rows (or columns) of a matrix orthogonal.

    penalty = factor * mean over pairs of different rows of |cosine of their angle|.

    Args:
        factor: factor, not negative.
        mode: "rows" or "columns".

    Raises:
        ValueError: a negative factor, another mode, a tensor that is no matrix.

    Example:
        >>> import dagrt as keras
        >>> round(float(keras.regularizers.OrthogonalRegularizer(0.5)(keras.ops.ones((3, 2)))), 4)
        0.5
    """

    def __init__(self, factor: float = 0.01, mode: str = "rows") -> None:
        self.factor = _factor(factor, "factor")
        if mode not in ("rows", "columns"):
            raise ValueError(
                f"Invalid value for argument `mode`. Expected one of 'rows', 'columns'. Received: mode={mode}"
            )
        self.mode = mode

    def __call__(self, x: Any) -> Any:
        if len(ops.shape(x)) != 2:
            raise ValueError(f"Inputs to OrthogonalRegularizer must have rank 2. Received: shape={ops.shape(x)}")
        x = ops.normalize(x, axis=1 if self.mode == "rows" else 0)
        product = ops.matmul(x, ops.transpose(x)) if self.mode == "rows" else ops.matmul(ops.transpose(x), x)
        n = ops.shape(product)[0]
        off = product * (1.0 - ops.eye(n))
        return self.factor * 0.5 * ops.sum(ops.absolute(off)) / max(1.0, n * (n - 1.0) / 2.0)

    def get_config(self) -> dict[str, Any]:
        return {"factor": float(np.float32(self.factor)), "mode": self.mode}


def _factor(value: Any, name: str) -> float:
    value = float(value)
    if not 0 <= value < float("inf"):
        raise ValueError(f"Invalid value for argument {name}: expected a non-negative float. Received: {name}={value}")
    return value


_NAMES = {
    "l1": L1,
    "l2": L2,
    "l1_l2": L1L2,
    "L1": L1,
    "L2": L2,
    "L1L2": L1L2,
    "OrthogonalRegularizer": OrthogonalRegularizer,
    "orthogonal_regularizer": OrthogonalRegularizer,
}
l1, l2, l1_l2, orthogonal_regularizer = L1, L2, L1L2, OrthogonalRegularizer


def serialize(regularizer: Any) -> Any:
    """The regularizer as plain data, for `deserialize` and files.

    Args:
        regularizer: the regularizer, an object or function.

    Example:
        >>> import dagrt as keras
        >>> keras.regularizers.serialize(keras.regularizers.L2(0.1))["class_name"]
        'L2'
    """
    from dagrt.saving import serialize_keras_object

    return serialize_keras_object(regularizer)


def deserialize(config: Any, custom_objects: dict | None = None) -> Any:
    """The regularizer that `serialize` described.

    Args:
        config: what `serialize` gave.
        custom_objects: dict of names to classes and functions that are not registered.

    Example:
        >>> import dagrt as keras
        >>> type(keras.regularizers.deserialize(keras.regularizers.serialize(keras.regularizers.L2(0.1)))).__name__
        'L2'
    """
    from dagrt.saving import deserialize_keras_object

    return deserialize_keras_object(config, custom_objects)


def get(identifier: Any) -> Any:
    """The regularizer that something stands for.

    Args:
        identifier: name, class, config, object or function; None is none.

    Raises:
        ValueError: an unknown name, or something else.

    Example:
        >>> import dagrt as keras
        >>> type(keras.regularizers.get("l2")).__name__
        'L2'
    """
    if identifier is None:
        return None
    if isinstance(identifier, dict):
        return deserialize(identifier)
    if isinstance(identifier, str):
        if identifier in _NAMES:
            return _NAMES[identifier]()
        raise ValueError(
            f"Could not interpret regularizer identifier: {identifier!r}; there are {', '.join(sorted(_NAMES))}"
        )
    if isinstance(identifier, type):
        return identifier()
    if callable(identifier):
        return identifier
    raise ValueError(f"Could not interpret regularizer identifier: {identifier!r}")
