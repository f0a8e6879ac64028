"""Activation functions by name: what every `activation=` argument takes.

Each maps a tensor to one of the same shape, over `dagrt.ops`; formulas are given there.

Example:
    >>> import dagrt
    >>> dagrt.activations.relu([-1.0, 2.0]).numpy()
    array([0., 2.], dtype=float32)
"""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from dagrt import ops
from dagrt.ops import (  # noqa: F401
    celu,
    elu,
    exponential,
    glu,
    hard_shrink,
    hard_sigmoid,
    hard_silu,
    hard_swish,
    hard_tanh,
    log_sigmoid,
    log_softmax,
    mish,
    relu6,
    selu,
    sigmoid,
    silu,
    soft_shrink,
    softplus,
    softsign,
    sparse_plus,
    sparse_sigmoid,
    squareplus,
    swish,
    tanh,
    tanh_shrink,
    threshold,
)
from dagrt.ops.core import as_tensor, public


def linear(x: Any) -> Any:
    """y = x.

    Args:
        x: anything; it is given back as it is.

    Example:
        >>> import dagrt as keras
        >>> keras.activations.linear(3.0)
        3.0
    """
    return x


@public
def relu(x: Any, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0) -> Any:  # noqa: F811
    """Rectified linear unit: x above the threshold, at most `max_value`; negative_slope * (x - threshold) below.

    Args:
        x: tensor.
        negative_slope: slope below the threshold.
        max_value: ceiling of the outputs; None for none.
        threshold: where it begins to pass x.

    Example:
        >>> import dagrt as keras
        >>> keras.activations.relu([-2.0, 2.0, 9.0], negative_slope=0.5, max_value=6.0).numpy()
        array([-1.,  2.,  6.], dtype=float32)
    """
    x = as_tensor(x)
    if negative_slope == 0.0 and threshold == 0.0:
        if max_value == 6.0:
            return ops.relu6(x)
        return ops.relu(x) if max_value is None else ops.minimum(ops.relu(x), float(max_value))
    below = ops.multiply(ops.subtract(x, threshold), negative_slope) if negative_slope else 0.0
    y = ops.where(ops.greater(x, threshold) if threshold else ops.greater_equal(x, threshold), x, below)
    if max_value is not None:
        y = ops.minimum(y, float(max_value))
    return y


@public
def leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    """x where x > 0, else negative_slope * x.

    Args:
        x: tensor.
        negative_slope: slope below 0. The layer `LeakyReLU` has 0.3 by default.

    Example:
        >>> import dagrt as keras
        >>> keras.activations.leaky_relu([-5.0, 2.0]).numpy()
        array([-1.,  2.], dtype=float32)
    """
    return ops.leaky_relu(x, negative_slope)


@public
def gelu(x: Any, approximate: bool = False) -> Any:
    """x times the normal distribution's cumulative probability: x (1 + erf(x / sqrt(2))) / 2.

    Args:
        x: tensor.
        approximate: x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x³))) / 2 instead. `ops.gelu` does so by default.

    Example:
        >>> import dagrt as keras
        >>> keras.activations.gelu([0.0, 1.0]).numpy().round(4)
        array([0.    , 0.8413], dtype=float32)

    Reference:
        Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, arXiv:1606.08415.
    """
    return ops.gelu(x, approximate=approximate)


@public
def softmax(x: Any, axis: int = -1) -> Any:
    """exp(x) over its sum along the axis.

    Args:
        x: tensor.
        axis: the axis that sums to 1.

    Example:
        >>> import dagrt as keras
        >>> keras.activations.softmax([0.0, 0.0]).numpy()
        array([0.5, 0.5], dtype=float32)
    """
    return ops.softmax(x, axis=axis)


_NAMES = {
    name: value
    for name, value in globals().items()
    if callable(value) and not name.startswith("_") and name not in ("Any", "as_tensor", "public", "annotations")
}
_NAMES["hard_swish"] = hard_silu


def serialize(activation: Any) -> Any:
    """The name of a function of dagrt's, or a description of one's own.

    Args:
        activation: the function; None gives None.

    Example:
        >>> import dagrt as keras
        >>> keras.activations.serialize(keras.activations.relu)
        'relu'
    """
    if activation is None:
        return None
    name = getattr(activation, "__name__", None)
    if name in _NAMES and _NAMES[name] is activation:
        return name
    from dagrt.saving import serialize_keras_object

    return serialize_keras_object(activation)


def deserialize(config: Any, custom_objects: dict | None = None) -> Any:
    """The activation that `serialize` described.

    Args:
        config: what `serialize` gave.
        custom_objects: dict of names to functions that are not registered.

    Example:
        >>> import dagrt as keras
        >>> keras.activations.deserialize("relu") is keras.activations.relu
        True
    """
    return get(config)


def get(identifier: Any) -> Any:
    """The function that something stands for; None is `linear`.

    Args:
        identifier: name, function, layer or config; None for `linear`.

    Raises:
        ValueError: an unknown name, or something else.

    Example:
        >>> import dagrt as keras
        >>> keras.activations.get(None)(2.0)
        2.0
    """
    if identifier is None:
        return linear
    if isinstance(identifier, str):
        if identifier in _NAMES:
            return _NAMES[identifier]
        from dagrt.saving import get_registered_object

        found = get_registered_object(identifier)
        if found is not None:
            return found
        near = difflib.get_close_matches(identifier, list(_NAMES), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"Could not interpret activation function identifier: {identifier!r}.{hint}")
    if isinstance(identifier, dict):
        from dagrt.saving import deserialize_keras_object

        return deserialize_keras_object(identifier)
    if callable(identifier) and not inspect.isclass(identifier):
        return identifier
    raise ValueError(f"Could not interpret activation function identifier: {identifier!r}")
