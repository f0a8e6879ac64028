"""Convolutions over one and two axes of space."""

from __future__ import annotations

from typing import Any

from dagrt import activations, constraints, initializers, ops, regularizers
from dagrt.layers.core import serialized
from dagrt.layers.layer import Layer
from dagrt.layers.reshaping import data_format_of, tuple_of

_PARTS = (
    "kernel_initializer",
    "bias_initializer",
    "kernel_regularizer",
    "bias_regularizer",
    "activity_regularizer",
    "kernel_constraint",
    "bias_constraint",
)


class _Conv(Layer):
    """What all convolutions share: window, strides, padding, filters, bias, activation.

    Args:
        filters: channels of the outputs.
        kernel_size: window, one number or one for each axis.
        strides: steps between windows.
        padding: "valid" (inside only), "same" (output size is input size / stride, rounded up; of an odd padding the larger
            part is behind), for one axis also "causal".
        data_format: "channels_last" (batch, ..., channels) or "channels_first".
        dilation_rate: distance between the window's points.
        groups: channels are convolved in so many separate groups.
        activation, use_bias, initializers, regularizers, constraints: as for Dense.

    Raises:
        ValueError: sizes below 1, strides together with dilation, channels that groups do not divide, an image that is
            smaller than the window.
    """

    _rank = 2

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any,
        padding: str,
        data_format: str | None,
        dilation_rate: Any,
        groups: int,
        activation: Any,
        use_bias: bool,
        kernel_initializer: Any,
        bias_initializer: Any,
        kernel_regularizer: Any,
        bias_regularizer: Any,
        activity_regularizer: Any,
        kernel_constraint: Any,
        bias_constraint: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.filters, self.groups = filters, groups
        self.kernel_size = tuple_of(kernel_size, self._rank, "kernel_size")
        self.strides = tuple_of(strides, self._rank, "strides")
        self.dilation_rate = tuple_of(dilation_rate, self._rank, "dilation_rate")
        self.padding = padding.lower()
        self.data_format = data_format_of(data_format)
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer, self.bias_initializer = (
            initializers.get(kernel_initializer),
            initializers.get(bias_initializer),
        )
        self.kernel_regularizer, self.bias_regularizer = (
            regularizers.get(kernel_regularizer),
            regularizers.get(bias_regularizer),
        )
        self.kernel_constraint, self.bias_constraint = (
            constraints.get(kernel_constraint),
            constraints.get(bias_constraint),
        )
        allowed = ("valid", "same", "causal") if self._rank == 1 else ("valid", "same")
        if self.padding not in allowed:
            raise ValueError(f"The `padding` argument must be one of {allowed}. Received: padding={padding}")
        if filters is not None and filters <= 0:
            raise ValueError(
                f"Invalid value for argument `filters`. Expected a strictly positive value. Received filters={filters}."
            )
        if groups <= 0:
            raise ValueError(f"The number of groups must be a positive integer. Received: groups={groups}.")
        if filters is not None and filters % groups:
            raise ValueError(
                f"The number of filters must be evenly divisible by the number of groups. Received: groups={groups}, filters={filters}."
            )
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                f"`strides > 1` not supported in conjunction with `dilation_rate > 1`. Received: strides={self.strides} and "
                f"dilation_rate={self.dilation_rate}"
            )

    def _channels(self, input_shape: Any) -> int:
        if len(input_shape) != self._rank + 2:
            raise ValueError(f"{self._who()}: expected inputs of {self._rank + 2} axes, got shape {tuple(input_shape)}")
        channels = input_shape[-1 if self.data_format == "channels_last" else 1]
        if channels is None:
            raise ValueError(
                f"{self._who()}: the number of channels must be known to make the kernel, got shape {tuple(input_shape)}"
            )
        return channels

    def _kernel_shape(self, channels: int) -> tuple[int, ...]:
        if channels % self.groups:
            raise ValueError(
                f"{self._who()}: the number of input channels must be evenly divisible by the number of groups. Received "
                f"groups={self.groups}, but the input has {channels} channels."
            )
        return (*self.kernel_size, channels // self.groups, self.filters)

    def build(self, input_shape: Any) -> None:
        channels = self._channels(input_shape)
        self._kernel = self.add_weight(
            self._kernel_shape(channels),
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="kernel",
        )
        self._in_channels = channels
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                (self._outputs(),),
                self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                name="bias",
            )

    def _outputs(self) -> int:
        return self.filters

    @property
    def kernel(self) -> Any:
        return self._kernel

    def _check_channels(self, inputs: Any) -> None:
        have = self._channels(inputs.shape)
        if have != self._in_channels:
            raise ValueError(
                f"{self._who()}: expected {self._in_channels} channels, got {have} with shape {tuple(inputs.shape)}"
            )

    def call(self, inputs: Any) -> Any:
        self._check_channels(inputs)
        y = ops.conv(
            ops.cast(inputs, self.compute_dtype),
            self._kernel,
            strides=self.strides,
            padding=self.padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )
        return self._finish(y)

    def _finish(self, y: Any) -> Any:
        if self.bias is not None:
            bias = self.bias
            if self.data_format == "channels_first":
                bias = ops.reshape(bias, (1, self._outputs()) + (1,) * self._rank)
            y = ops.add(y, bias)
        return self.activation(y)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.pop("activity_regularizer", None)
        config.update(
            filters=self.filters,
            kernel_size=self.kernel_size,
            strides=self.strides,
            padding=self.padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
            groups=self.groups,
            activation=activations.serialize(self.activation),
            use_bias=self.use_bias,
        )
        return serialized(config, self, *_PARTS)


class Conv2D(_Conv):
    """Convolution of images (cross-correlation: the kernel is not flipped).

    y[b, p, q, f] = activation(bias[f] + sum over r, s, c of x[b, p * stride + r * dilation, q * stride + s * dilation, c] *
    kernel[r, s, c, f]).

    Args:
        filters: channels of the outputs.
        kernel_size: window in pixels, one number or (rows, columns).
        strides: pixels between windows, likewise.
        padding: "valid" (windows inside only) or "same" (output size is input size / stride, rounded up; of an odd padding
            the larger part is behind).
        data_format: "channels_last" (batch, rows, columns, channels) or "channels_first"; None for
            `config.image_data_format()`.
        dilation_rate: distance in pixels between the window's points.
        groups: channels and filters are convolved in so many separate groups.
        activation: name or function; None for none.
        use_bias: add a bias.
        kernel_initializer: for the kernel (rows, columns, channels / groups, filters); Glorot uniform by default.
        bias_initializer: for the bias (filters,).
        kernel_regularizer: penalty on the kernel, added to the loss.
        bias_regularizer: penalty on the bias.
        activity_regularizer: penalty on the outputs, divided by the batch size.
        kernel_constraint: applied to the kernel after each step.
        bias_constraint: applied to the bias after each step.

    Input shape:
        (batch, rows, columns, channels), or (batch, channels, rows, columns). Channels are known, rows and columns may be None.

    Output shape:
        (batch, new_rows, new_columns, filters), or (batch, filters, new_rows, new_columns).

    Raises:
        ValueError: sizes below 1, strides together with dilation, channels or filters that groups do not divide, another
            number of channels than at first, an image smaller than the window.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(keras.Input((28, 28, 1))).shape
        (None, 14, 14, 8)

    Reference:
        LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998; the arithmetic of
        sizes: Dumoulin and Visin, 2016, arXiv:1603.07285.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = (1, 1),
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            filters,
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            groups,
            activation,
            use_bias,
            kernel_initializer,
            bias_initializer,
            kernel_regularizer,
            bias_regularizer,
            activity_regularizer,
            kernel_constraint,
            bias_constraint,
            **kwargs,
        )


class Conv1D(_Conv):
    """Convolution of sequences (cross-correlation: the kernel is not flipped).

    y[b, p, f] = activation(bias[f] + sum over r, c of x[b, p * stride + r * dilation, c] * kernel[r, c, f]).

    Args:
        kernel_size: window in steps.
        strides: steps between windows.
        padding: "valid", "same", or "causal": all padding in front, so that no output sees a later step.
        dilation_rate: distance in steps between the window's points.

        The others as for `Conv2D`; the kernel is (steps, channels / groups, filters).

    Input shape:
        (batch, steps, channels), or (batch, channels, steps) with data_format="channels_first". Steps may be None.

    Output shape:
        (batch, new_steps, filters), or (batch, filters, new_steps).

    Raises:
        ValueError: as `Conv2D`.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.Conv1D(4, 3, padding="causal", dilation_rate=2)(keras.Input((10, 2))).shape
        (None, 10, 4)

    Reference:
        Causal, dilated: van den Oord et al., "WaveNet", 2016, arXiv:1609.03499.
    """

    _rank = 1

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = 1,
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            filters,
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            groups,
            activation,
            use_bias,
            kernel_initializer,
            bias_initializer,
            kernel_regularizer,
            bias_regularizer,
            activity_regularizer,
            kernel_constraint,
            bias_constraint,
            **kwargs,
        )


class _ConvTranspose(_Conv):
    """Transposed convolution: the gradient of a convolution with respect to its input, as a layer that enlarges."""

    output_padding: tuple[int, ...] | None

    def _set_output_padding(self, value: Any) -> None:
        self.output_padding = None if value is None else tuple_of(value, self._rank, "output_padding", 0)
        for p, s in zip(self.output_padding or (), self.strides):
            if p >= s:
                raise ValueError(
                    f"Strides must be greater than output padding. Received strides={self.strides}, output_padding={value}."
                )

    def _kernel_shape(self, channels: int) -> tuple[int, ...]:
        return (*self.kernel_size, self.filters, channels)

    def call(self, inputs: Any) -> Any:
        self._check_channels(inputs)
        y = ops.conv_transpose(
            ops.cast(inputs, self.compute_dtype),
            self._kernel,
            strides=self.strides,
            padding=self.padding,
            output_padding=self.output_padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )
        return self._finish(y)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["groups"]
        config["output_padding"] = self.output_padding
        return config


class Conv2DTranspose(_ConvTranspose):
    """Transposed convolution of images: the gradient of a convolution with respect to its input, as a layer that enlarges.

    Each input pixel adds kernel * pixel to a window of the output; windows are `strides` apart and overlaps are summed.

    Args:
        strides: factor by which rows and columns grow.
        padding: "valid" (new size (n - 1) * stride + window, at least n * stride) or "same" (n * stride).
        output_padding: pixels added to the size, below the stride; then new size = (n - 1) * stride + window + output_padding,
            for "same" less 2 * (window // 2). None: as above.

        The others as for `Conv2D`; the kernel is (rows, columns, filters, channels).

    Input shape:
        (batch, rows, columns, channels), or (batch, channels, rows, columns).

    Output shape:
        (batch, new_rows, new_columns, filters), or (batch, filters, new_rows, new_columns).

    Raises:
        ValueError: output_padding not below strides, else as `Conv2D`.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.Conv2DTranspose(3, 4, strides=2, padding="same")(keras.Input((7, 7, 16))).shape
        (None, 14, 14, 3)

    Reference:
        Zeiler, Krishnan, Taylor and Fergus, "Deconvolutional Networks", CVPR 2010.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: str = "valid",
        output_padding: Any = None,
        data_format: str | None = None,
        dilation_rate: Any = (1, 1),
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            filters,
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            1,
            activation,
            use_bias,
            kernel_initializer,
            bias_initializer,
            kernel_regularizer,
            bias_regularizer,
            activity_regularizer,
            kernel_constraint,
            bias_constraint,
            **kwargs,
        )
        self._set_output_padding(output_padding)


class Conv1DTranspose(_ConvTranspose):
    """Transposed convolution of sequences: the gradient of a convolution with respect to its input, as a layer that lengthens.

    Each step adds kernel * step to a window of the output; windows are `strides` apart and overlaps are summed.

    Args:
        kernel_size: window in steps.

        The others as for `Conv2DTranspose`; the kernel is (steps, filters, channels).

    Input shape:
        (batch, steps, channels), or (batch, channels, steps) with data_format="channels_first".

    Output shape:
        (batch, new_steps, filters), or (batch, filters, new_steps).

    Raises:
        ValueError: as `Conv2DTranspose`.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.Conv1DTranspose(3, 4, strides=2)(keras.Input((7, 16))).shape
        (None, 16, 3)
    """

    _rank = 1

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        output_padding: Any = None,
        data_format: str | None = None,
        dilation_rate: Any = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            filters,
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            1,
            activation,
            use_bias,
            kernel_initializer,
            bias_initializer,
            kernel_regularizer,
            bias_regularizer,
            activity_regularizer,
            kernel_constraint,
            bias_constraint,
            **kwargs,
        )
        self._set_output_padding(output_padding)


class DepthwiseConv2D(_Conv):
    """Each channel convolved with `depth_multiplier` filters of its own; channels are not mixed.

    y[b, p, q, c * m + k] = activation(bias + sum over r, s of x[b, p * stride + r, q * stride + s, c] * kernel[r, s, c, k]),
    where m is `depth_multiplier`.

    Args:
        depth_multiplier: outputs for each channel.
        depthwise_initializer: for the kernel (rows, columns, channels, depth_multiplier).
        depthwise_regularizer: penalty on the kernel.
        depthwise_constraint: applied to the kernel after each step.

        The others as for `Conv2D`.

    Input shape:
        (batch, rows, columns, channels), or (batch, channels, rows, columns).

    Output shape:
        (batch, new_rows, new_columns, channels * depth_multiplier), or with the channels first.

    Raises:
        ValueError: as `Conv2D`.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.DepthwiseConv2D(3, depth_multiplier=2)(keras.Input((8, 8, 4))).shape
        (None, 6, 6, 8)

    Reference:
        Howard et al., "MobileNets", 2017, arXiv:1704.04861.
    """

    def __init__(
        self,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: str = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: Any = (1, 1),
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            None,
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            1,
            activation,
            use_bias,
            depthwise_initializer,  # type: ignore[arg-type]
            bias_initializer,
            depthwise_regularizer,
            bias_regularizer,
            activity_regularizer,
            depthwise_constraint,
            bias_constraint,
            **kwargs,
        )
        self.depth_multiplier = depth_multiplier

    def _kernel_shape(self, channels: int) -> tuple[int, ...]:
        return (*self.kernel_size, channels, self.depth_multiplier)

    def _outputs(self) -> int:
        return self._in_channels * self.depth_multiplier

    def build(self, input_shape: Any) -> None:
        self._in_channels = self._channels(input_shape)
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        self._check_channels(inputs)
        y = ops.depthwise_conv(
            ops.cast(inputs, self.compute_dtype),
            self._kernel,
            strides=self.strides,
            padding=self.padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )
        return self._finish(y)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for key in ("filters", "groups"):
            del config[key]
        for part in ("initializer", "regularizer", "constraint"):
            config[f"depthwise_{part}"] = config.pop(f"kernel_{part}")
        return {**config, "depth_multiplier": self.depth_multiplier}


class SeparableConv2D(_Conv):
    """A depthwise convolution, then one of window 1 that mixes the channels; one bias at the end.

    y = activation(conv(depthwise_conv(x, depthwise_kernel), pointwise_kernel) + bias).

    Args:
        filters: channels of the outputs.
        depth_multiplier: channels between the two convolutions, for each channel of the input.
        depthwise_initializer: for the first kernel (rows, columns, channels, depth_multiplier).
        pointwise_initializer: for the second kernel (1, 1, channels * depth_multiplier, filters).
        depthwise_regularizer, pointwise_regularizer: penalties on the kernels.
        depthwise_constraint, pointwise_constraint: applied to the kernels after each step.

        The others as for `Conv2D`.

    Input shape:
        (batch, rows, columns, channels), or (batch, channels, rows, columns).

    Output shape:
        (batch, new_rows, new_columns, filters), or (batch, filters, new_rows, new_columns).

    Raises:
        ValueError: as `Conv2D`.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.SeparableConv2D(16, 3, padding="same")(keras.Input((8, 8, 4))).shape
        (None, 8, 8, 16)

    Reference:
        Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", 2016, arXiv:1610.02357.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = (1, 1),
        depth_multiplier: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        pointwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        pointwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            filters,
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            1,
            activation,
            use_bias,
            depthwise_initializer,
            bias_initializer,
            depthwise_regularizer,
            bias_regularizer,
            activity_regularizer,
            depthwise_constraint,
            bias_constraint,
            **kwargs,
        )
        self.depth_multiplier = depth_multiplier
        self.pointwise_initializer = initializers.get(pointwise_initializer)
        self.pointwise_regularizer = regularizers.get(pointwise_regularizer)
        self.pointwise_constraint = constraints.get(pointwise_constraint)

    def build(self, input_shape: Any) -> None:
        channels = self._in_channels = self._channels(input_shape)
        self.depthwise_kernel = self.add_weight(
            (*self.kernel_size, channels, self.depth_multiplier),
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="depthwise_kernel",
        )
        self.pointwise_kernel = self.add_weight(
            (1, 1, channels * self.depth_multiplier, self.filters),
            self.pointwise_initializer,
            regularizer=self.pointwise_regularizer,
            constraint=self.pointwise_constraint,
            name="pointwise_kernel",
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                (self.filters,),
                self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                name="bias",
            )

    def call(self, inputs: Any) -> Any:
        self._check_channels(inputs)
        y = ops.separable_conv(
            ops.cast(inputs, self.compute_dtype),
            self.depthwise_kernel,
            self.pointwise_kernel,
            strides=self.strides,
            padding=self.padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )
        return self._finish(y)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["groups"]
        for part in ("initializer", "regularizer", "constraint"):
            config[f"depthwise_{part}"] = config.pop(f"kernel_{part}")
        serialized(config, self, "pointwise_initializer", "pointwise_regularizer", "pointwise_constraint")
        return {**config, "depth_multiplier": self.depth_multiplier}


Convolution2D, Convolution1D, Convolution2DTranspose = Conv2D, Conv1D, Conv2DTranspose
