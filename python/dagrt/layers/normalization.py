"""Normalisations: by batch, by layer, by group, by given statistics."""

from __future__ import annotations

from typing import Any

import numpy as np

from dagrt import constraints, initializers, ops, regularizers
from dagrt.layers.core import serialized
from dagrt.layers.layer import Layer
from dagrt.ops.raw import emit


class BatchNormalization(Layer):
    """Normalises each channel over the batch, then scales and shifts.

    y = gamma * (x - mean) / sqrt(variance + epsilon) + beta. In training by the statistics of the batch (biased variance;
    masked places left out), which also move the running ones: moving = momentum * moving + (1 - momentum) * batch.
    Otherwise, and where `trainable` is False, by the running ones. Computed in float32 under any policy.

    Args:
        axis: the channels.
        momentum: share of the running statistics that stays in each step.
        epsilon: added to the variance.
        center, scale: have beta, gamma.
        beta_initializer, gamma_initializer: for them; zeros and ones by default.
        moving_mean_initializer, moving_variance_initializer: for the running statistics; zeros and ones by default.
        beta_regularizer, gamma_regularizer: penalties added to the loss.
        beta_constraint, gamma_constraint: applied after each step.
        renorm, renorm_clipping, renorm_momentum: Keras's batch renormalisation, not available; leave them out.
        synchronized: accepted; there is one replica.

    Input shape:
        Any of known size on the axis.

    Output shape:
        As the input.

    Raises:
        ValueError: an unknown size on the axis.
        NotImplementedError: renorm.

    Example:
        >>> import dagrt as keras
        >>> layer = keras.layers.BatchNormalization(epsilon=0.0)
        >>> layer([[1.0], [3.0]], training=True).numpy().tolist()
        [[-1.0], [1.0]]
        >>> round(float(layer.moving_mean.numpy()[0]), 4)
        0.02

    Reference:
        Ioffe and Szegedy, "Batch Normalization", 2015, arXiv:1502.03167.
    """

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        renorm: bool = False,
        renorm_clipping: Any = None,
        renorm_momentum: float = 0.99,
        synchronized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if renorm:
            raise NotImplementedError("BatchNormalization: renorm is not available")
        self.axis, self.momentum, self.epsilon, self.center, self.scale = (
            int(axis),
            float(momentum),
            float(epsilon),
            center,
            scale,
        )
        self.beta_initializer, self.gamma_initializer = (
            initializers.get(beta_initializer),
            initializers.get(gamma_initializer),
        )
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)
        self.beta_regularizer, self.gamma_regularizer = (
            regularizers.get(beta_regularizer),
            regularizers.get(gamma_regularizer),
        )
        self.beta_constraint, self.gamma_constraint = (
            constraints.get(beta_constraint),
            constraints.get(gamma_constraint),
        )
        self.synchronized = synchronized
        self.renorm_momentum = renorm_momentum
        self.supports_masking = True
        self.gamma: Any = None
        self.beta: Any = None

    def build(self, input_shape: Any) -> None:
        size = input_shape[self.axis]
        if size is None:
            raise ValueError(
                f"{self._who()}: axis {self.axis} of the inputs must be known, got shape {tuple(input_shape)}"
            )
        if self.scale:
            self.gamma = self.add_weight(
                (size,),
                self.gamma_initializer,
                regularizer=self.gamma_regularizer,
                constraint=self.gamma_constraint,
                name="gamma",
            )
        if self.center:
            self.beta = self.add_weight(
                (size,),
                self.beta_initializer,
                regularizer=self.beta_regularizer,
                constraint=self.beta_constraint,
                name="beta",
            )
        self.moving_mean = self.add_weight(
            (size,), self.moving_mean_initializer, trainable=False, autocast=False, name="moving_mean"
        )
        self.moving_variance = self.add_weight(
            (size,), self.moving_variance_initializer, trainable=False, autocast=False, name="moving_variance"
        )

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        x = ops.cast(inputs, "float32")
        if not training or not self._trainable:
            y = ops.batch_normalization(
                x,
                self.moving_mean.value,
                self.moving_variance.value,
                axis=self.axis,
                offset=self.beta,
                scale=self.gamma,
                epsilon=self.epsilon,
            )
            return ops.cast(y, self.compute_dtype)
        rank = len(x.shape)
        at = self.axis % rank
        if mask is not None and len(mask.shape) == rank - 1:
            y, mean, variance = self._masked(x, mask, at)
        else:
            t = x if at == rank - 1 else ops.moveaxis(x, at, -1)
            gamma, beta = (None if v is None else ops.cast(v, "float32") for v in (self.gamma, self.beta))
            y, mean, variance = emit("batch_norm", t, gamma, beta, epsilon=self.epsilon)[:3]
            if at != rank - 1:
                y = ops.moveaxis(y, -1, at)
        for v, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            v.assign(v.value * self.momentum + ops.stop_gradient(new) * (1.0 - self.momentum))
        return ops.cast(y, self.compute_dtype)

    def _masked(self, x: Any, mask: Any, at: int) -> tuple[Any, Any, Any]:
        """Moments over the unmasked places."""
        axes = [a for a in range(len(x.shape)) if a != at]
        w = ops.broadcast_to(ops.expand_dims(ops.cast(mask, "float32"), -1), x.dims)
        n = ops.sum(w, axis=axes, keepdims=True) + 1e-7
        mean = ops.sum(w * x, axis=axes, keepdims=True) / n
        variance = ops.sum(w * ops.square(x - mean), axis=axes, keepdims=True) / n
        mean, variance = ops.reshape(mean, (-1,)), ops.reshape(variance, (-1,))
        y = ops.batch_normalization(
            x, mean, variance, axis=at, offset=self.beta, scale=self.gamma, epsilon=self.epsilon
        )
        return y, mean, variance

    def get_config(self) -> dict[str, Any]:
        config = {
            **super().get_config(),
            "axis": self.axis,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
        }
        serialized(
            config,
            self,
            "beta_initializer",
            "gamma_initializer",
            "moving_mean_initializer",
            "moving_variance_initializer",
            "beta_regularizer",
            "gamma_regularizer",
            "beta_constraint",
            "gamma_constraint",
        )
        return {
            **config,
            "synchronized": self.synchronized,
            "renorm": False,
            "renorm_clipping": None,
            "renorm_momentum": self.renorm_momentum,
        }


class LayerNormalization(Layer):
    """Normalises over the given axes of each sample, then scales and shifts.

    y = gamma * (x - mean) / sqrt(variance + epsilon) + beta, mean and biased variance over the axes. Computed in float32.

    Args:
        axis: one or several axes.
        epsilon: added to the variance.
        center, scale: have beta, gamma.
        beta_initializer, gamma_initializer: for them; zeros and ones by default.
        beta_regularizer, gamma_regularizer: penalties added to the loss.
        beta_constraint, gamma_constraint: applied after each step.

    Input shape:
        Any of known sizes on the axes.

    Output shape:
        As the input.

    Raises:
        NotImplementedError: Keras's rms_scaling; see `RMSNormalization`.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.LayerNormalization(epsilon=0.0)([[1.0, 3.0], [10.0, 30.0]]).numpy().tolist()
        [[-1.0, 1.0], [-1.0, 1.0]]

    Reference:
        Ba, Kiros and Hinton, "Layer Normalization", 2016, arXiv:1607.06450.
    """

    def __init__(
        self,
        axis: Any = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        if kwargs.pop("rms_scaling", False):
            raise NotImplementedError("LayerNormalization: rms_scaling is not available; use RMSNormalization")
        super().__init__(**kwargs)
        self.axis = list(axis) if isinstance(axis, (list, tuple)) else [axis]
        self.epsilon, self.center, self.scale = float(epsilon), center, scale
        self.beta_initializer, self.gamma_initializer = (
            initializers.get(beta_initializer),
            initializers.get(gamma_initializer),
        )
        self.beta_regularizer, self.gamma_regularizer = (
            regularizers.get(beta_regularizer),
            regularizers.get(gamma_regularizer),
        )
        self.beta_constraint, self.gamma_constraint = (
            constraints.get(beta_constraint),
            constraints.get(gamma_constraint),
        )
        self.supports_masking = True
        self.gamma: Any = None
        self.beta: Any = None

    def _axes(self, rank: int) -> list[int]:
        return sorted(a % rank for a in self.axis)

    def build(self, input_shape: Any) -> None:
        shape = tuple(input_shape[a] for a in self._axes(len(input_shape)))
        if self.scale:
            self.gamma = self.add_weight(
                shape,
                self.gamma_initializer,
                regularizer=self.gamma_regularizer,
                constraint=self.gamma_constraint,
                name="gamma",
            )
        if self.center:
            self.beta = self.add_weight(
                shape,
                self.beta_initializer,
                regularizer=self.beta_regularizer,
                constraint=self.beta_constraint,
                name="beta",
            )

    def call(self, inputs: Any) -> Any:
        x = ops.cast(inputs, "float32")
        axes = self._axes(len(x.shape))
        shape = [d if a in axes else 1 for a, d in enumerate(x.dims)]
        mean, variance = ops.moments(x, axes, keepdims=True)
        y = (x - mean) * ops.rsqrt(variance + self.epsilon)
        if self.gamma is not None:
            y = y * ops.reshape(self.gamma, shape)
        if self.beta is not None:
            y = y + ops.reshape(self.beta, shape)
        return ops.cast(y, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        config = {
            **super().get_config(),
            "axis": self.axis,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            "rms_scaling": False,
        }
        return serialized(
            config,
            self,
            "beta_initializer",
            "gamma_initializer",
            "beta_regularizer",
            "gamma_regularizer",
            "beta_constraint",
            "gamma_constraint",
        )


class RMSNormalization(Layer):
    """Divides by the root mean square over an axis, then scales.

    y = scale * x / sqrt(mean(x²) + epsilon).

    Args:
        axis: the axis.
        epsilon: added to the mean square.

    Input shape:
        Any of known size on the axis.

    Output shape:
        As the input.

    Raises:
        NotImplementedError: several axes.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.RMSNormalization(epsilon=0.0)([[3.0, 3.0]]).numpy()
        array([[1., 1.]], dtype=float32)

    Reference:
        Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019, arXiv:1910.07467.
    """

    def __init__(self, axis: Any = -1, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis, self.epsilon = list(axis) if isinstance(axis, (list, tuple)) else [axis], epsilon
        if len(self.axis) != 1:
            raise NotImplementedError(f"RMSNormalization: one axis is possible, got {axis}")
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight((input_shape[self.axis[0]],), "ones", name="scale")

    def call(self, inputs: Any) -> Any:
        axis = self.axis[0]
        shape = [d if a == axis % len(inputs.shape) else 1 for a, d in enumerate(inputs.dims)]
        return ops.rms_normalization(inputs, ops.reshape(self.scale, shape), axis, self.epsilon)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis, "epsilon": self.epsilon}


class GroupNormalization(Layer):
    """Normalises groups of channels of each sample, then scales and shifts each channel.

    y = gamma * (x - mean) / sqrt(variance + epsilon) + beta, mean and biased variance over a group's channels and all
    places of the sample.

    Args:
        groups: number of groups; -1 for one channel each (instance normalisation), 1 for all in one.
        axis: the channels.
        epsilon: added to the variance.
        center, scale: have beta, gamma.
        beta_initializer, gamma_initializer: for them; zeros and ones by default.
        beta_regularizer, gamma_regularizer: penalties added to the loss.
        beta_constraint, gamma_constraint: applied after each step.

    Input shape:
        (batch, ...) of known size on the axis.

    Output shape:
        As the input.

    Raises:
        ValueError: channels that the groups do not divide.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.GroupNormalization(groups=2, epsilon=0.0)([[1.0, 3.0, 10.0, 30.0]]).numpy()
        array([[-1.,  1., -1.,  1.]], dtype=float32)

    Reference:
        Wu and He, "Group Normalization", 2018, arXiv:1803.08494.
    """

    def __init__(
        self,
        groups: int = 32,
        axis: int = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.groups, self.axis, self.epsilon, self.center, self.scale = groups, axis, epsilon, center, scale
        self.beta_initializer, self.gamma_initializer = (
            initializers.get(beta_initializer),
            initializers.get(gamma_initializer),
        )
        self.beta_regularizer, self.gamma_regularizer = (
            regularizers.get(beta_regularizer),
            regularizers.get(gamma_regularizer),
        )
        self.beta_constraint, self.gamma_constraint = (
            constraints.get(beta_constraint),
            constraints.get(gamma_constraint),
        )
        self.supports_masking = True
        self.gamma: Any = None
        self.beta: Any = None

    def build(self, input_shape: Any) -> None:
        size = input_shape[self.axis]
        if self.groups == -1:
            self.groups = size
        if size % self.groups:
            raise ValueError(
                f"{self._who()}: the number of channels ({size}) must be a multiple of the number of groups ({self.groups})"
            )
        if self.scale:
            self.gamma = self.add_weight(
                (size,),
                self.gamma_initializer,
                regularizer=self.gamma_regularizer,
                constraint=self.gamma_constraint,
                name="gamma",
            )
        if self.center:
            self.beta = self.add_weight(
                (size,),
                self.beta_initializer,
                regularizer=self.beta_regularizer,
                constraint=self.beta_constraint,
                name="beta",
            )

    def call(self, inputs: Any) -> Any:
        at = self.axis % len(inputs.shape)
        x = inputs if at == len(inputs.shape) - 1 else ops.moveaxis(inputs, at, -1)
        size = x.dims[-1]
        t = ops.reshape(x, [*x.dims[:-1], self.groups, size // self.groups])
        axes = [*range(1, len(x.shape) - 1), len(x.shape)]
        mean, variance = ops.moments(t, axes, keepdims=True)
        y = ops.reshape((t - mean) * ops.rsqrt(variance + self.epsilon), x.dims)
        if self.gamma is not None:
            y = y * self.gamma
        if self.beta is not None:
            y = y + self.beta
        return y if at == len(inputs.shape) - 1 else ops.moveaxis(y, -1, at)

    def get_config(self) -> dict[str, Any]:
        config = {
            **super().get_config(),
            "groups": self.groups,
            "axis": self.axis,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
        }
        return serialized(
            config,
            self,
            "beta_initializer",
            "gamma_initializer",
            "beta_regularizer",
            "gamma_regularizer",
            "beta_constraint",
            "gamma_constraint",
        )


class UnitNormalization(Layer):
    """Scales to Euclidean norm 1 along an axis.

    y = x / sqrt(max(sum(x²), 1e-24)).

    Args:
        axis: one axis or several, over which the squares are summed.

    Input shape:
        Any.

    Output shape:
        As the input.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.UnitNormalization()([[3.0, 4.0]]).numpy()
        array([[0.6, 0.8]], dtype=float32)
    """

    def __init__(self, axis: Any = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis
        self.supports_masking = True
        self.built = True

    def call(self, inputs: Any) -> Any:
        return ops.normalize(inputs, axis=self.axis, order=2, epsilon=1e-12)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis}


class Normalization(Layer):
    """Normalises by statistics that are given, or taken from data by `adapt`.

    y = (x - mean) / max(sqrt(variance), 1e-7); inverted: y = x * max(sqrt(variance), 1e-7) + mean.

    Args:
        axis: axis or axes with statistics of their own; None for one pair of numbers.
        mean, variance: the statistics, instead of `adapt`; both or neither.
        invert: undo the normalisation instead.

    Input shape:
        Any of known sizes on the axes.

    Output shape:
        As the input.

    Raises:
        ValueError: mean without variance or the other way round; `adapt` where they were given.

    Example:
        >>> import dagrt as keras
        >>> layer = keras.layers.Normalization()
        >>> layer.adapt([[1.0], [3.0]])
        >>> layer([[1.0], [5.0]]).numpy().tolist()
        [[-1.0], [3.0]]
    """

    def __init__(
        self, axis: Any = -1, mean: Any = None, variance: Any = None, invert: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.axis = () if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
        if (mean is None) != (variance is None):
            raise ValueError(
                f"When setting values directly, both `mean` and `variance` must be set. Received: mean={mean}, variance={variance}"
            )
        self.input_mean, self.input_variance, self.invert = mean, variance, invert
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        rank = len(input_shape)
        self._keep = sorted(a % rank for a in self.axis)
        shape = tuple(input_shape[a] for a in self._keep)
        self._wide = [input_shape[a] if a in self._keep else 1 for a in range(rank)]
        if self.input_mean is not None:  # given statistics are no weights
            self._statistics = [
                np.broadcast_to(np.asarray(a, "float32"), shape).reshape(self._wide)
                for a in (self.input_mean, self.input_variance)
            ]
            return
        self.adapt_mean = self.add_weight(shape, "zeros", trainable=False, name="mean")
        self.adapt_variance = self.add_weight(shape, "ones", trainable=False, name="variance")
        self.count = self.add_weight((), "zeros", dtype="int32", trainable=False, name="count")

    def adapt(self, data: Any) -> None:
        """Takes mean and variance from data.

        Args:
            data: array of the inputs' shape, the whole of it at once.

        Raises:
            ValueError: mean and variance were given to the layer.
        """
        if self.input_mean is not None:
            raise ValueError(
                "Cannot `adapt` a Normalization layer that is initialized with static `mean` and `variance`"
            )
        a = np.asarray(data, "float64")
        if a.ndim == 1:
            a = a[:, None]
        if not self.built:
            self.build(a.shape)
        axes = tuple(i for i in range(a.ndim) if i not in self._keep)
        self.adapt_mean.assign(a.mean(axis=axes))
        self.adapt_variance.assign(a.var(axis=axes))

    def call(self, inputs: Any) -> Any:
        x = ops.cast(inputs, self.compute_dtype)
        if self.input_mean is not None:
            mean, variance = (ops.convert_to_tensor(a, x.dtype) for a in self._statistics)
        else:
            mean, variance = ops.reshape(self.adapt_mean, self._wide), ops.reshape(self.adapt_variance, self._wide)
        spread = ops.maximum(ops.sqrt(variance), 1e-7)
        return x * spread + mean if self.invert else (x - mean) / spread

    def get_config(self) -> dict[str, Any]:
        return serialized(
            {
                **super().get_config(),
                "axis": self.axis,
                "invert": self.invert,
                "mean": self.input_mean,
                "variance": self.input_variance,
            },
            self,
        )
