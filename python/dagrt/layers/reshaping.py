"""Layers that change shapes: reshape, flatten, pad, crop, upsample."""

from __future__ import annotations

import math
from typing import Any

from dagrt import _config, ops
from dagrt.layers.layer import Layer


def data_format_of(value: str | None) -> str:
    value = value or _config.image_data_format()
    if value not in ("channels_last", "channels_first"):
        raise ValueError(
            f"The `data_format` argument must be one of 'channels_first', 'channels_last'. Received: {value}"
        )
    return value


def tuple_of(value: Any, n: int, name: str, least: int = 1) -> tuple[int, ...]:
    """n integers of at least `least`, from one or n.

    Raises:
        ValueError: another number, or too small ones.
    """
    values = (value,) * n if isinstance(value, int) else tuple(value)
    if len(values) != n or any(isinstance(v, bool) or int(v) != v or v < least for v in values):
        raise ValueError(f"The `{name}` argument must be {n} integers of at least {least}. Received: {name}={value}")
    return tuple(int(v) for v in values)


class Reshape(Layer):
    """The same elements in another shape, the batch aside.

    Args:
        target_shape: sizes without the batch; one may be -1: what is left.

    Input shape:
        (batch, ...).

    Output shape:
        (batch, *target_shape).

    Raises:
        ValueError: more than one -1, or another number of elements.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.Reshape((-1, 2))(keras.Input((3, 4))).shape
        (None, 6, 2)
    """

    def __init__(self, target_shape: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        target_shape = (target_shape,) if isinstance(target_shape, int) else tuple(target_shape)
        if sum(d in (-1, None) for d in target_shape) > 1:
            raise ValueError(f"The `target_shape` argument must not contain more than one -1. Received: {target_shape}")
        self.target_shape = target_shape
        self.built = True

    def call(self, inputs: Any) -> Any:
        sizes = inputs.shape[1:]
        if all(d is not None for d in sizes):
            count = math.prod(sizes)
            fixed = math.prod(d for d in self.target_shape if d not in (-1, None))
            open_axis = any(d in (-1, None) for d in self.target_shape)
            if (open_axis and (fixed == 0 or count % fixed)) or (not open_axis and count != fixed):
                raise ValueError(
                    f"{self._who()}: the total size of the tensor must be unchanged: {tuple(sizes)} has {count} elements, "
                    f"which do not fit target_shape={self.target_shape}"
                )
            target = [count // fixed if d in (-1, None) else d for d in self.target_shape]
            return ops.reshape(inputs, (ops.shape(inputs)[0], *target))
        return ops.reshape(inputs, (ops.shape(inputs)[0], *(-1 if d is None else d for d in self.target_shape)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "target_shape": self.target_shape}


class Flatten(Layer):
    """All axes but the batch as one, the last varying fastest.

    Args:
        data_format: of the input; "channels_first" is brought to channels last before. None for
            `config.image_data_format()`.

    Input shape:
        (batch, ...).

    Output shape:
        (batch, product of the other sizes).

    Example:
        >>> import dagrt as keras
        >>> keras.layers.Flatten()(keras.Input((3, 4))).shape
        (None, 12)
    """

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format_of(data_format)

    def call(self, inputs: Any) -> Any:
        if self.data_format == "channels_first" and len(inputs.shape) > 2:
            inputs = ops.moveaxis(inputs, 1, -1)
        n: Any = 1
        for d in inputs.dims[1:]:
            n = n * d
        return ops.reshape(inputs, (ops.shape(inputs)[0], n))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "data_format": self.data_format}


class Permute(Layer):
    """Axes in another order; the batch stays first.

    y[b, i1, i2, ...]: axis k of the output is axis dims[k - 1] of the input.

    Args:
        dims: the axes in their new order, counted from 1, without the batch.

    Input shape:
        (batch, ...) with len(dims) axes behind the batch.

    Output shape:
        The same sizes in the new order.

    Raises:
        ValueError: dims that are not 1 to n, each once.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.Permute((2, 1))(keras.Input((3, 4))).shape
        (None, 4, 3)
    """

    def __init__(self, dims: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dims = tuple(dims)
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise ValueError(
                "Invalid permutation argument `dims` for Permute Layer. The set of indices in `dims` must be consecutive and "
                f"start from 1. Received dims={dims}"
            )

    def call(self, inputs: Any) -> Any:
        return ops.transpose(inputs, (0, *self.dims))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dims": self.dims}


class RepeatVector(Layer):
    """A vector repeated as the steps of a sequence.

    y[b, t, c] = x[b, c].

    Args:
        n: number of steps.

    Input shape:
        (batch, features).

    Output shape:
        (batch, n, features).

    Raises:
        TypeError: n is no integer.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.RepeatVector(3)(keras.Input((8,))).shape
        (None, 3, 8)
    """

    def __init__(self, n: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(n, int):
            raise TypeError(f"Expected an integer value for `n`, got {type(n)}.")
        self.n = n

    def call(self, inputs: Any) -> Any:
        return ops.repeat(ops.expand_dims(inputs, 1), self.n, axis=1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "n": self.n}


def _pairs(value: Any, n: int, name: str) -> tuple[tuple[int, int], ...]:
    """((low, high), ...) from one number, one number an axis, or pairs."""
    if isinstance(value, int):
        value = ((value, value),) * n
    value = tuple((v, v) if isinstance(v, int) else tuple(v) for v in value)
    if len(value) != n or any(len(v) != 2 or min(v) < 0 for v in value):
        raise ValueError(
            f"`{name}` should be a number, {n} numbers, or {n} pairs of numbers that are not negative. Received: {value}"
        )
    return value


class _Borders(Layer):
    _axes = 2
    _name = "padding"

    def __init__(self, size: Any, data_format: str | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format_of(data_format)
        pairs = _pairs((size,) if self._axes == 1 and not isinstance(size, int) else size, self._axes, self._name)
        self._pairs = pairs
        setattr(self, self._name, pairs[0] if self._axes == 1 else pairs)

    def _first_axis(self) -> int:
        return 2 if self.data_format == "channels_first" else 1

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), self._name: getattr(self, self._name)}
        return config if self._axes == 1 and self._name == "cropping" else {**config, "data_format": self.data_format}


class ZeroPadding2D(_Borders):
    """Rows and columns of zeros around images.

    Args:
        padding: pixels: one number, (rows, columns), or ((top, bottom), (left, right)).
        data_format: "channels_last", "channels_first", or None for `config.image_data_format()`.

    Input shape:
        (batch, rows, columns, channels), or (batch, channels, rows, columns).

    Output shape:
        The same with top + bottom more rows and left + right more columns.

    Raises:
        ValueError: negative numbers, or others than said above.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.ZeroPadding2D(((1, 0), (2, 2)))(keras.Input((8, 8, 3))).shape
        (None, 9, 12, 3)
    """

    def __init__(self, padding: Any = (1, 1), data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(padding, data_format, **kwargs)

    def call(self, inputs: Any) -> Any:
        widths = [(0, 0)] * len(inputs.shape)
        widths[self._first_axis() : self._first_axis() + self._axes] = self._pairs
        return ops.pad(inputs, widths)


class ZeroPadding1D(ZeroPadding2D):
    """Steps of zeros before and behind sequences.

    Args:
        padding: steps: one number, or (before, behind).
        data_format: "channels_last", "channels_first", or None for `config.image_data_format()`.

    Input shape:
        (batch, steps, channels), or (batch, channels, steps).

    Output shape:
        The same with before + behind more steps.

    Raises:
        ValueError: negative numbers, or others than said above.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.ZeroPadding1D((2, 0))(keras.Input((8, 3))).shape
        (None, 10, 3)
    """

    _axes = 1

    def __init__(self, padding: Any = 1, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(padding, data_format, **kwargs)


class Cropping2D(_Borders):
    """Rows and columns cut off images.

    Args:
        cropping: pixels: one number, (rows, columns), or ((top, bottom), (left, right)).
        data_format: "channels_last", "channels_first", or None for `config.image_data_format()`.

    Input shape:
        (batch, rows, columns, channels), or (batch, channels, rows, columns).

    Output shape:
        The same with top + bottom fewer rows and left + right fewer columns.

    Raises:
        ValueError: negative numbers, or others than said above.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.Cropping2D(((1, 0), (2, 2)))(keras.Input((8, 8, 3))).shape
        (None, 7, 4, 3)
    """

    _name = "cropping"

    def __init__(self, cropping: Any = ((0, 0), (0, 0)), data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(cropping, data_format, **kwargs)

    def call(self, inputs: Any) -> Any:
        key: list[Any] = [slice(None)] * len(inputs.shape)
        for i, (low, high) in enumerate(self._pairs):
            key[self._first_axis() + i] = slice(low, -high if high else None)
        return inputs[tuple(key)]


class Cropping1D(Cropping2D):
    """Steps cut off sequences, before and behind.

    Args:
        cropping: steps: one number, or (before, behind).

    Input shape:
        (batch, steps, channels).

    Output shape:
        (batch, steps - before - behind, channels).

    Raises:
        ValueError: negative numbers, or others than said above.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.Cropping1D((2, 0))(keras.Input((8, 3))).shape
        (None, 6, 3)
    """

    _axes = 1

    def __init__(self, cropping: Any = (1, 1), **kwargs: Any) -> None:
        super().__init__(cropping, None, **kwargs)


class UpSampling2D(Layer):
    """Images enlarged by whole factors.

    Nearest: y[b, p, q, c] = x[b, p // rows, q // columns, c]. Bilinear: output p lies at (p + 1/2) / factor - 1/2 of the
    input, between its two neighbours; the border is held.

    Args:
        size: factors, one number or (rows, columns).
        data_format: "channels_last", "channels_first", or None for `config.image_data_format()`.
        interpolation: "nearest" or "bilinear".

    Input shape:
        (batch, rows, columns, channels), or (batch, channels, rows, columns).

    Output shape:
        The same with rows and columns times their factors.

    Raises:
        ValueError: factors below 1, another interpolation.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.UpSampling2D((1, 2), interpolation="bilinear")([[[[0.0], [1.0]]]]).numpy().ravel()
        array([0.  , 0.25, 0.75, 1.  ], dtype=float32)
    """

    def __init__(
        self, size: Any = (2, 2), data_format: str | None = None, interpolation: str = "nearest", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format_of(data_format)
        self.size = tuple_of(size, 2, "size")
        self.interpolation = interpolation.lower()
        if self.interpolation not in ("nearest", "bilinear"):
            raise ValueError(f"UpSampling2D: interpolation must be 'nearest' or 'bilinear', got {interpolation!r}")

    def call(self, inputs: Any) -> Any:
        first = 2 if self.data_format == "channels_first" else 1
        if self.interpolation == "nearest":
            b = list(inputs.dims)
            wide = [*b[:first], b[first], self.size[0], b[first + 1], self.size[1], *b[first + 2 :]]
            small = [*b[:first], b[first], 1, b[first + 1], 1, *b[first + 2 :]]
            x = ops.broadcast_to(ops.reshape(inputs, small), wide)
            return ops.reshape(x, [*b[:first], b[first] * self.size[0], b[first + 1] * self.size[1], *b[first + 2 :]])
        x = inputs
        for i, factor in enumerate(self.size):
            x = _linear(x, first + i, factor)
        return x

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "size": self.size,
            "data_format": self.data_format,
            "interpolation": self.interpolation,
        }


def _linear(x: Any, axis: int, factor: int) -> Any:
    """One axis enlarged linearly: output k is at (k + 1/2) / factor - 1/2 of the input, held at the ends."""
    if factor == 1:
        return x
    n = x.dims[axis]
    key: list[Any] = [slice(None)] * len(x.shape)

    def part(s: slice) -> Any:
        key[axis] = s
        return x[tuple(key)]

    before = ops.concatenate([part(slice(0, 1)), part(slice(0, -1))], axis=axis)
    after = ops.concatenate([part(slice(1, None)), part(slice(-1, None))], axis=axis)
    phases = []
    for k in range(factor):
        at = (k + 0.5) / factor - 0.5
        other = before if at < 0 else after
        phases.append(x * (1.0 - abs(at)) + other * abs(at))
    y = ops.stack(phases, axis=axis + 1)
    return ops.reshape(y, [*x.dims[:axis], n * factor, *x.dims[axis + 1 :]])


class UpSampling1D(Layer):
    """Each step repeated.

    y[b, t, c] = x[b, t // size, c].

    Args:
        size: how often.

    Input shape:
        (batch, steps, channels).

    Output shape:
        (batch, steps * size, channels).

    Example:
        >>> import dagrt as keras
        >>> keras.layers.UpSampling1D(2)([[[1.0], [2.0]]]).numpy().ravel()
        array([1., 1., 2., 2.], dtype=float32)
    """

    def __init__(self, size: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = int(size)

    def call(self, inputs: Any) -> Any:
        return ops.repeat(inputs, self.size, axis=1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size}
