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
    """Largest in each window of an image; arguments: pool_size, strides, padding, data_format."""

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
    """Mean of each window of an image; arguments as for MaxPooling2D."""

    _function = staticmethod(ops.average_pool)


class MaxPooling1D(_Pooling):
    """Largest in each window of a sequence; arguments as for MaxPooling2D."""

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
    """Mean of each window of a sequence; arguments as for MaxPooling2D."""

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
    """Mean over the image: (batch, channels)."""

    def call(self, inputs: Any) -> Any:
        return ops.mean(inputs, axis=self._axes(inputs), keepdims=self.keepdims)


class GlobalMaxPooling2D(_Global):
    """Largest over the image: (batch, channels)."""

    def call(self, inputs: Any) -> Any:
        return ops.max(inputs, axis=self._axes(inputs), keepdims=self.keepdims)


class GlobalMaxPooling1D(GlobalMaxPooling2D):
    """Largest over the steps: (batch, channels)."""

    _rank = 1


class GlobalAveragePooling1D(_Global):
    """Mean over the steps, masked ones left out: (batch, channels)."""

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
