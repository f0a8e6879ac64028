"""Pooling over windows, and over everything."""

from __future__ import annotations

from typing import Any

from dagrt import ops
from dagrt.layers.layer import Layer
from dagrt.layers.reshaping import data_format_of, tuple_of


class _Pooling(Layer):
    """One number from each window.

    Args:
        pool_size: window, one number or one for each axis.
        strides: steps between windows; the window's size by default.
        padding: "valid" or "same"; padding never wins a maximum and does not count in a mean.
        data_format: "channels_last" or "channels_first".
    """

    _rank = 2
    _function = ops.max_pool

    def __init__(
        self,
        pool_size: Any,
        strides: Any = None,
        padding: str = "valid",
        data_format: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.pool_size = tuple_of(pool_size, self._rank, "pool_size")
        self.strides = self.pool_size if strides is None else tuple_of(strides, self._rank, "strides")
        self.padding = padding.lower()
        if self.padding not in ("valid", "same"):
            raise ValueError(f"The `padding` argument must be one of ('valid', 'same'). Received: padding={padding}")
        self.data_format = data_format_of(data_format)
        self.built = True

    def call(self, inputs: Any) -> Any:
        if len(inputs.shape) != self._rank + 2:
            raise ValueError(
                f"{self._who()}: expected inputs of {self._rank + 2} axes, got shape {tuple(inputs.shape)}"
            )
        return type(self)._function(inputs, self.pool_size, self.strides, self.padding, self.data_format)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "padding": self.padding,
            "strides": self.strides,
            "data_format": self.data_format,
        }


class MaxPooling2D(_Pooling):
    """Largest of each window of an image; of equal ones the first gets the gradient.

    y[b, p, q, c] = max over the window at (p * stride, q * stride) of x[b, :, :, c].

    Args:
        pool_size: window in pixels, one number or (rows, columns).
        strides: pixels between windows; None for the window's size.
        padding: "valid" (windows inside only) or "same" (output size is input size / stride, rounded up); padding never wins.
        data_format: "channels_last", "channels_first", or None for `config.image_data_format()`.
        name: name of the layer.

    Input shape:
        (batch, rows, columns, channels), or (batch, channels, rows, columns).

    Output shape:
        (batch, new_rows, new_columns, channels), or (batch, channels, new_rows, new_columns).

    Raises:
        ValueError: sizes below 1, another padding, inputs of another number of axes.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.MaxPooling2D(3, strides=2, padding="same")(keras.Input((15, 15, 8))).shape
        (None, 8, 8, 8)
    """

    _function = staticmethod(ops.max_pool)

    def __init__(
        self,
        pool_size: Any = (2, 2),
        strides: Any = None,
        padding: str = "valid",
        data_format: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(pool_size, strides, padding, data_format, name, **kwargs)


class AveragePooling2D(_Pooling):
    """Mean of each window of an image.

    y[b, p, q, c] = mean over the window at (p * stride, q * stride) of x[b, :, :, c]; padding does not count in the mean.

    Args:
        pool_size, strides, padding, data_format, name: as for `MaxPooling2D`.

    Input shape:
        (batch, rows, columns, channels), or (batch, channels, rows, columns).

    Output shape:
        (batch, new_rows, new_columns, channels), or (batch, channels, new_rows, new_columns).

    Raises:
        ValueError: as `MaxPooling2D`.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.AveragePooling2D(2)([[[[1.0], [2.0]], [[3.0], [6.0]]]]).numpy().ravel()
        array([3.], dtype=float32)
    """

    _function = staticmethod(ops.average_pool)


class MaxPooling1D(_Pooling):
    """Largest of each window of a sequence; of equal ones the first gets the gradient.

    y[b, p, c] = max over the window at p * stride of x[b, :, c].

    Args:
        pool_size: window in steps.
        strides: steps between windows; None for the window's size.
        padding, data_format, name: as for `MaxPooling2D`.

    Input shape:
        (batch, steps, channels), or (batch, channels, steps).

    Output shape:
        (batch, new_steps, channels), or (batch, channels, new_steps).

    Raises:
        ValueError: as `MaxPooling2D`.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.MaxPooling1D(2)([[[1.0], [2.0], [4.0], [3.0]]]).numpy().ravel()
        array([2., 4.], dtype=float32)
    """

    _rank = 1
    _function = staticmethod(ops.max_pool)

    def __init__(
        self,
        pool_size: Any = 2,
        strides: Any = None,
        padding: str = "valid",
        data_format: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(pool_size, strides, padding, data_format, name, **kwargs)


class AveragePooling1D(_Pooling):
    """Mean of each window of a sequence.

    y[b, p, c] = mean over the window at p * stride of x[b, :, c]; padding does not count in the mean.

    Args:
        pool_size: window in steps.
        strides: steps between windows; None for the window's size.
        padding, data_format, name: as for `MaxPooling2D`.

    Input shape:
        (batch, steps, channels), or (batch, channels, steps).

    Output shape:
        (batch, new_steps, channels), or (batch, channels, new_steps).

    Raises:
        ValueError: as `MaxPooling2D`.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.AveragePooling1D(2)([[[1.0], [2.0], [4.0], [3.0]]]).numpy().ravel()
        array([1.5, 3.5], dtype=float32)
    """

    _rank = 1
    _function = staticmethod(ops.average_pool)


class _Global(Layer):
    _rank = 2

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format_of(data_format)
        self.keepdims = keepdims
        self.built = True

    def _axes(self, inputs: Any) -> list[int]:
        if len(inputs.shape) != self._rank + 2:
            raise ValueError(
                f"{self._who()}: expected inputs of {self._rank + 2} axes, got shape {tuple(inputs.shape)}"
            )
        first = 1 if self.data_format == "channels_last" else 2
        return list(range(first, first + self._rank))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "data_format": self.data_format, "keepdims": self.keepdims}


class GlobalAveragePooling2D(_Global):
    """Mean over the whole image.

    y[b, c] = mean over rows and columns of x[b, :, :, c].

    Args:
        data_format: "channels_last", "channels_first", or None for `config.image_data_format()`.
        keepdims: keep the two axes, with size 1.

    Input shape:
        (batch, rows, columns, channels), or (batch, channels, rows, columns).

    Output shape:
        (batch, channels); with keepdims (batch, 1, 1, channels) or (batch, channels, 1, 1).

    Raises:
        ValueError: inputs of another number of axes.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.GlobalAveragePooling2D()(keras.Input((None, None, 8))).shape
        (None, 8)

    Reference:
        Lin, Chen and Yan, "Network In Network", 2013, arXiv:1312.4400.
    """

    def call(self, inputs: Any) -> Any:
        return ops.mean(inputs, axis=self._axes(inputs), keepdims=self.keepdims)


class GlobalMaxPooling2D(_Global):
    """Largest over the whole image; equal ones share the gradient.

    y[b, c] = max over rows and columns of x[b, :, :, c].

    Args:
        data_format, keepdims: as for `GlobalAveragePooling2D`.

    Input shape:
        (batch, rows, columns, channels), or (batch, channels, rows, columns).

    Output shape:
        (batch, channels); with keepdims (batch, 1, 1, channels) or (batch, channels, 1, 1).

    Raises:
        ValueError: inputs of another number of axes.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.GlobalMaxPooling2D(keepdims=True)(keras.Input((None, None, 8))).shape
        (None, 1, 1, 8)
    """

    def call(self, inputs: Any) -> Any:
        return ops.max(inputs, axis=self._axes(inputs), keepdims=self.keepdims)


class GlobalMaxPooling1D(GlobalMaxPooling2D):
    """Largest over all steps; equal ones share the gradient. It knows no mask.

    y[b, c] = max over t of x[b, t, c].

    Args:
        data_format, keepdims: as for `GlobalAveragePooling2D`.

    Input shape:
        (batch, steps, channels), or (batch, channels, steps).

    Output shape:
        (batch, channels); with keepdims (batch, 1, channels) or (batch, channels, 1).

    Raises:
        ValueError: inputs of another number of axes.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.GlobalMaxPooling1D()([[[1.0], [5.0]]]).numpy()
        array([[5.]], dtype=float32)
    """

    _rank = 1


class GlobalAveragePooling1D(_Global):
    """Mean over the steps; masked ones are left out.

    y[b, c] = sum over t of mask[b, t] * x[b, t, c] / sum over t of mask[b, t].

    Args:
        data_format, keepdims: as for `GlobalAveragePooling2D`.

    Input shape:
        (batch, steps, channels), or (batch, channels, steps).

    Output shape:
        (batch, channels); with keepdims (batch, 1, channels) or (batch, channels, 1).

    Raises:
        ValueError: inputs of another number of axes.

    Example:
        >>> import dagrt as keras
        >>> import numpy as np
        >>> x, mask = np.array([[[1.0], [3.0], [100.0]]]), np.array([[True, True, False]])
        >>> keras.layers.GlobalAveragePooling1D()(x, mask=mask).numpy()
        array([[2.]], dtype=float32)
    """

    _rank = 1

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any) -> None:
        super().__init__(data_format, keepdims, **kwargs)
        self.supports_masking = True

    def call(self, inputs: Any, mask: Any = None) -> Any:
        axes = self._axes(inputs)
        if mask is None:
            return ops.mean(inputs, axis=axes, keepdims=self.keepdims)
        valid = ops.expand_dims(ops.cast(mask, "bool"), 2 if self.data_format == "channels_last" else 1)
        total = ops.sum(ops.where(valid, inputs, 0.0), axis=axes, keepdims=self.keepdims)
        return total / ops.sum(ops.cast(valid, inputs.dtype), axis=axes, keepdims=self.keepdims)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return None


MaxPool2D, MaxPool1D, AvgPool2D, AvgPool1D = MaxPooling2D, MaxPooling1D, AveragePooling2D, AveragePooling1D
GlobalAvgPool2D, GlobalAvgPool1D = GlobalAveragePooling2D, GlobalAveragePooling1D
GlobalMaxPool2D, GlobalMaxPool1D = GlobalMaxPooling2D, GlobalMaxPooling1D
