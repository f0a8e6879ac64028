"""Optimisers and schedules by Keras's names."""

from __future__ import annotations

import difflib
from typing import Any

from dagrt._config import to_snake_case
from dagrt.optimizers import schedules
from dagrt.optimizers.algorithms import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, Ftrl, Lion, Nadam, RMSprop
from dagrt.optimizers.loss_scale import LossScaleOptimizer
from dagrt.optimizers.optimizer import Optimizer

_CLASSES = {c.__name__: c for c in (SGD, RMSprop, Adam, AdamW, Adagrad, Adadelta, Adamax, Nadam, Lion, Ftrl)}
_NAMES = {n.lower(): c for n, c in _CLASSES.items()} | {to_snake_case(n): c for n, c in _CLASSES.items()}

__all__ = [*_CLASSES, "LossScaleOptimizer", "Optimizer", "deserialize", "get", "schedules", "serialize"]


def serialize(optimizer: Any) -> Any:
    """The optimizer as plain data, for `deserialize` and files.

    Args:
        optimizer: the optimizer, an object or function.

    Example:
        >>> import dagrt as keras
        >>> keras.optimizers.serialize(keras.optimizers.Adam(0.01))["class_name"]
        'Adam'
    """
    from dagrt.saving import serialize_keras_object

    return serialize_keras_object(optimizer)


def deserialize(config: Any, custom_objects: dict | None = None) -> Any:
    """The optimizer that `serialize` described.

    Args:
        config: what `serialize` gave.
        custom_objects: dict of names to classes and functions that are not registered.

    Example:
        >>> import dagrt as keras
        >>> type(keras.optimizers.deserialize(keras.optimizers.serialize(keras.optimizers.Adam(0.01)))).__name__
        'Adam'
    """
    from dagrt.saving import deserialize_keras_object

    if isinstance(config, dict) and str(config.get("class_name", "")).lower() in _NAMES:
        config = {**config, "class_name": _NAMES[config["class_name"].lower()].__name__}
    return deserialize_keras_object(config, custom_objects)


def get(identifier: Any) -> Any:
    """The optimizer that something stands for.

    Args:
        identifier: name (in any case), class, config or object; None is none.

    Raises:
        ValueError: an unknown name, or something else.

    Example:
        >>> import dagrt as keras
        >>> type(keras.optimizers.get("adam")).__name__
        'Adam'
    """
    if identifier is None or isinstance(identifier, Optimizer):
        return identifier
    if isinstance(identifier, dict):
        return deserialize(identifier)
    if isinstance(identifier, str):
        cls = _NAMES.get(identifier.lower())
        if cls is None:
            near = difflib.get_close_matches(identifier.lower(), list(_NAMES), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"Could not interpret optimizer identifier: {identifier!r}.{hint}")
        return cls()
    if isinstance(identifier, type) and issubclass(identifier, Optimizer):
        return identifier()
    if hasattr(identifier, "apply") and hasattr(identifier, "variables"):
        return identifier
    raise ValueError(f"Could not interpret optimizer identifier: {identifier!r}")
