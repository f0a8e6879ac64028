"""Activations that have settings, as layers."""

from __future__ import annotations

from typing import Any

from dagrt import activations, constraints, initializers, ops, regularizers
from dagrt.layers.core import serialized
from dagrt.layers.layer import Layer


class _Pointwise(Layer):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def compute_output_shape(self, input_shape: Any) -> tuple:
        return tuple(input_shape)


class ReLU(_Pointwise):
    """Rectified linear unit, with an optional ceiling, slope and threshold.

    y = min(x, max_value) where x >= threshold, else negative_slope * (x - threshold). Its gradient at 0 is 0.

    Args:
        max_value: ceiling of the outputs; None for none.
        negative_slope: slope below the threshold, not negative.
        threshold: where the unit begins to pass its input, not negative.

    Input shape:
        Any.

    Output shape:
        As the input.

    Raises:
        ValueError: one of the three is negative.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.ReLU(max_value=6.0, negative_slope=0.1)([-10.0, 2.0, 8.0]).numpy()
        array([-1.,  2.,  6.], dtype=float32)

    Reference:
        Nair and Hinton, "Rectified Linear Units Improve Restricted Boltzmann Machines", ICML 2010.
    """

    def __init__(
        self, max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if max_value is not None and max_value < 0:
            raise ValueError(f"max_value of a ReLU layer cannot be a negative value. Received: max_value={max_value}")
        if negative_slope is None or negative_slope < 0:
            raise ValueError(
                f"negative_slope of a ReLU layer cannot be a negative value. Received: negative_slope={negative_slope}"
            )
        if threshold is None or threshold < 0:
            raise ValueError(f"threshold of a ReLU layer cannot be a negative value. Received: threshold={threshold}")
        self.max_value, self.negative_slope, self.threshold = max_value, negative_slope, threshold
        self.built = True

    def call(self, inputs: Any) -> Any:
        return activations.relu(
            inputs, negative_slope=self.negative_slope, max_value=self.max_value, threshold=self.threshold
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "max_value": self.max_value,
            "negative_slope": self.negative_slope,
            "threshold": self.threshold,
        }


class LeakyReLU(_Pointwise):
    """Rectified linear unit with a slope below 0.

    y = x where x > 0, else negative_slope * x.

    Args:
        negative_slope: slope below 0, not negative. The function `activations.leaky_relu` has 0.2 by default.

    Input shape:
        Any.

    Output shape:
        As the input.

    Raises:
        ValueError: a negative slope, or None.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.LeakyReLU(0.5)([-2.0, 2.0]).numpy()
        array([-1.,  2.], dtype=float32)

    Reference:
        Maas, Hannun and Ng, "Rectifier Nonlinearities Improve Neural Network Acoustic Models", ICML 2013.
    """

    def __init__(self, negative_slope: float = 0.3, **kwargs: Any) -> None:
        if "alpha" in kwargs:
            negative_slope = kwargs.pop("alpha")
        super().__init__(**kwargs)
        if negative_slope is None or negative_slope < 0:
            raise ValueError(
                f"The negative_slope value of a Leaky ReLU layer cannot be None or negative value. Received: {negative_slope}"
            )
        self.negative_slope = negative_slope
        self.built = True

    def call(self, inputs: Any) -> Any:
        return activations.leaky_relu(inputs, negative_slope=self.negative_slope)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "negative_slope": self.negative_slope}


class ELU(_Pointwise):
    """Exponential linear unit.

    y = x where x > 0, else alpha * (exp(x) - 1).

    Args:
        alpha: what the outputs fall to below 0, negated.

    Input shape:
        Any.

    Output shape:
        As the input.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.ELU()([-100.0, 2.0]).numpy()
        array([-1.,  2.], dtype=float32)

    Reference:
        Clevert, Unterthiner and Hochreiter, "Fast and Accurate Deep Network Learning by Exponential Linear Units",
        2015, arXiv:1511.07289.
    """

    def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alpha = alpha
        self.built = True

    def call(self, inputs: Any) -> Any:
        return activations.elu(inputs, alpha=self.alpha)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha}


class PReLU(_Pointwise):
    """Rectified linear unit whose slope below 0 is learned.

    y = max(x, 0) - alpha * max(-x, 0), with one alpha for each element of a sample.

    Args:
        alpha_initializer: for alpha; zeros by default.
        alpha_regularizer: penalty on alpha, added to the loss; None for none.
        alpha_constraint: applied to alpha after each step; None for none.
        shared_axes: axes (counted from 1; the batch is 0) along which one alpha serves all, as (1, 2) for images.

    Input shape:
        (batch, ...), with known sizes on the axes that are not shared.

    Output shape:
        As the input.

    Example:
        >>> import dagrt as keras
        >>> layer = keras.layers.PReLU(alpha_initializer="ones", shared_axes=(1, 2))
        >>> layer(keras.Input((8, 8, 3))).shape, layer.alpha.shape
        ((None, 8, 8, 3), (1, 1, 3))

    Reference:
        He, Zhang, Ren and Sun, "Delving Deep into Rectifiers", 2015, arXiv:1502.01852.
    """

    def __init__(
        self,
        alpha_initializer: Any = "Zeros",
        alpha_regularizer: Any = None,
        alpha_constraint: Any = None,
        shared_axes: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.alpha_initializer = initializers.get(alpha_initializer)
        self.alpha_regularizer = regularizers.get(alpha_regularizer)
        self.alpha_constraint = constraints.get(alpha_constraint)
        self.shared_axes = (
            [shared_axes] if isinstance(shared_axes, int) else None if shared_axes is None else list(shared_axes)
        )

    def build(self, input_shape: Any) -> None:
        shape = list(input_shape[1:])
        for axis in self.shared_axes or []:
            shape[axis - 1] = 1
        self.alpha = self.add_weight(
            shape,
            self.alpha_initializer,
            regularizer=self.alpha_regularizer,
            constraint=self.alpha_constraint,
            name="alpha",
        )

    def call(self, inputs: Any) -> Any:
        return ops.relu(inputs) - self.alpha * ops.relu(-inputs)

    def get_config(self) -> dict[str, Any]:
        config = serialized(super().get_config(), self, "alpha_initializer", "alpha_regularizer", "alpha_constraint")
        return {**config, "shared_axes": self.shared_axes}


class Softmax(_Pointwise):
    """Softmax along an axis; masked places get probability 0.

    y = exp(x) / sum(exp(x)), the sum over the axis; where a mask is False, 1e9 is taken from x first.

    Args:
        axis: one axis or several, over which the outputs sum to 1.

    Input shape:
        Any of at least one axis.

    Output shape:
        As the input.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.Softmax()([1.0, 1.0], mask=[True, False]).numpy()
        array([1., 0.], dtype=float32)
    """

    def __init__(self, axis: Any = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis
        self.built = True

    def call(self, inputs: Any, mask: Any = None) -> Any:
        if mask is not None:
            inputs = inputs + (1.0 - ops.cast(mask, inputs.dtype)) * -1e9
        return ops.softmax(inputs, axis=self.axis)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis}
