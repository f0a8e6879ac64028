"""Layers of several inputs: sums, products, concatenation."""

from __future__ import annotations

from typing import Any

from dagrt import ops
from dagrt.layers.layer import Layer


class _Merge(Layer):
    """Combines tensors whose shapes broadcast, batch aside."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        self._check(input_shape)

    def _check(self, input_shape: Any) -> None:
        if not isinstance(input_shape, list) or not input_shape or not isinstance(input_shape[0], tuple):
            raise ValueError(
                f"{self._who()}: a merge layer should be called on a list of inputs, got shape {input_shape}"
            )
        if len(input_shape) < 1:
            raise ValueError(f"{self._who()}: a merge layer needs at least 1 input")
        shape = list(input_shape[0])
        for other in input_shape[1:]:
            a, b = list(shape), list(other)
            while len(a) < len(b):
                a.insert(1, 1)
            while len(b) < len(a):
                b.insert(1, 1)
            for x, y in zip(a, b):
                if x is not None and y is not None and x != y and 1 not in (x, y):
                    raise ValueError(
                        f"{self._who()}: inputs have incompatible shapes. Received shapes {tuple(shape)} and {tuple(other)}"
                    )
            shape = [y if x in (1, None) else x for x, y in zip(a, b)]

    def call(self, inputs: Any) -> Any:
        if not isinstance(inputs, (list, tuple)):
            raise ValueError(f"{self._who()}: a merge layer should be called on a list of inputs, got {inputs!r}")
        rank = max(len(x.shape) for x in inputs)
        if any(len(x.shape) != rank for x in inputs):  # the batch stays first
            aligned = []
            for x in inputs:
                while len(x.shape) < rank:
                    x = ops.expand_dims(x, 1)
                aligned.append(x)
            inputs = aligned
        return self._merge(list(inputs))

    def _merge(self, inputs: list[Any]) -> Any:
        raise NotImplementedError

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        if mask is None or any(m is None for m in mask):
            return None
        result = mask[0]
        for m in mask[1:]:
            result = ops.logical_or(result, m)
        return result


class Add(_Merge):
    """Sum of the inputs.

    y = x1 + x2 + ...

    Args:
        kwargs: those of `Layer`.

    Input shape:
        A list of tensors whose shapes broadcast, the batch staying first.

    Output shape:
        The broadcast shape.

    Raises:
        ValueError: no list, or shapes that do not broadcast.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.Add()([keras.ops.ones((1, 2)), keras.ops.ones((1, 2))]).numpy()
        array([[2., 2.]], dtype=float32)
    """

    def _merge(self, inputs: list[Any]) -> Any:
        total = inputs[0]
        for x in inputs[1:]:
            total = ops.add(total, x)
        return total


class Subtract(_Merge):
    """First minus second of two inputs.

    y = x1 - x2.

    Args:
        kwargs: those of `Layer`.

    Input shape:
        A list of two tensors whose shapes broadcast, the batch staying first.

    Output shape:
        The broadcast shape.

    Raises:
        ValueError: other than two inputs, or shapes that do not broadcast.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.Subtract()([keras.ops.ones((1, 2)), keras.ops.full((1, 2), 3.0)]).numpy()
        array([[-2., -2.]], dtype=float32)
    """

    def build(self, input_shape: Any) -> None:
        self._check(input_shape)
        if len(input_shape) != 2:
            raise ValueError(
                f"A `Subtract` layer should be called on exactly 2 inputs. Received: input_shape={input_shape}"
            )

    def _merge(self, inputs: list[Any]) -> Any:
        return ops.subtract(inputs[0], inputs[1])


class Multiply(_Merge):
    """Product of the inputs, element by element.

    y = x1 * x2 * ...

    Args:
        kwargs: those of `Layer`.

    Input shape:
        A list of tensors whose shapes broadcast, the batch staying first.

    Output shape:
        The broadcast shape.

    Raises:
        ValueError: no list, or shapes that do not broadcast.

    Example:
        >>> import dagrt as keras
        >>> gate = keras.layers.Dense(8, activation="sigmoid")
        >>> x = keras.Input((8,))
        >>> keras.layers.Multiply()([x, gate(x)]).shape
        (None, 8)
    """

    def _merge(self, inputs: list[Any]) -> Any:
        product = inputs[0]
        for x in inputs[1:]:
            product = ops.multiply(product, x)
        return product


class Average(_Merge):
    """Mean of the inputs, element by element.

    y = (x1 + ... + xn) / n.

    Args:
        kwargs: those of `Layer`.

    Input shape:
        A list of tensors whose shapes broadcast, the batch staying first.

    Output shape:
        The broadcast shape.

    Raises:
        ValueError: no list, or shapes that do not broadcast.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.Average()([keras.ops.ones((1, 2)), keras.ops.zeros((1, 2))]).numpy()
        array([[0.5, 0.5]], dtype=float32)
    """

    def _merge(self, inputs: list[Any]) -> Any:
        total = inputs[0]
        for x in inputs[1:]:
            total = ops.add(total, x)
        return ops.divide(total, float(len(inputs)))


class Maximum(_Merge):
    """Largest of the inputs, element by element; of equal ones each gets its share of the gradient.

    y = max(x1, x2, ...).

    Args:
        kwargs: those of `Layer`.

    Input shape:
        A list of tensors whose shapes broadcast, the batch staying first.

    Output shape:
        The broadcast shape.

    Raises:
        ValueError: no list, or shapes that do not broadcast.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.Maximum()([keras.ops.ones((1, 2)), keras.ops.zeros((1, 2))]).numpy()
        array([[1., 1.]], dtype=float32)
    """

    def _merge(self, inputs: list[Any]) -> Any:
        result = inputs[0]
        for x in inputs[1:]:
            result = ops.maximum(result, x)
        return result


class Minimum(_Merge):
    """Smallest of the inputs, element by element; of equal ones each gets its share of the gradient.

    y = min(x1, x2, ...).

    Args:
        kwargs: those of `Layer`.

    Input shape:
        A list of tensors whose shapes broadcast, the batch staying first.

    Output shape:
        The broadcast shape.

    Raises:
        ValueError: no list, or shapes that do not broadcast.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.Minimum()([keras.ops.ones((1, 2)), keras.ops.zeros((1, 2))]).numpy()
        array([[0., 0.]], dtype=float32)
    """

    def _merge(self, inputs: list[Any]) -> Any:
        result = inputs[0]
        for x in inputs[1:]:
            result = ops.minimum(result, x)
        return result


class Concatenate(_Merge):
    """The inputs joined along an axis.

    Args:
        axis: the axis along which they differ; the last by default.

    Input shape:
        A list of tensors with equal sizes on all other axes.

    Output shape:
        The same, with the sum of the sizes on the axis.

    Raises:
        ValueError: no list, or other sizes that differ.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.Concatenate()([keras.Input((8, 3)), keras.Input((8, 5))]).shape
        (None, 8, 8)
    """

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def _check(self, input_shape: Any) -> None:
        if not isinstance(input_shape, list) or not input_shape or not isinstance(input_shape[0], tuple):
            raise ValueError(
                f"{self._who()}: a `Concatenate` layer should be called on a list of inputs, got shape {input_shape}"
            )
        rank = len(input_shape[0])
        axis = self.axis % rank if rank else 0
        for s in input_shape[1:]:
            if len(s) != rank or any(
                a is not None and b is not None and a != b
                for i, (a, b) in enumerate(zip(input_shape[0], s))
                if i != axis
            ):
                raise ValueError(
                    f"{self._who()}: inputs must have matching shapes except for the concatenation axis {self.axis}. Received: "
                    f"{', '.join(map(str, input_shape))}"
                )

    def call(self, inputs: Any) -> Any:
        if not isinstance(inputs, (list, tuple)):
            raise ValueError(
                f"{self._who()}: a `Concatenate` layer should be called on a list of inputs, got {inputs!r}"
            )
        return ops.concatenate(list(inputs), axis=self.axis)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        if mask is None or all(m is None for m in mask):
            return None
        masks = []
        for x, m in zip(inputs, mask):
            if m is None:
                masks.append(ops.ones_like(x, "bool"))
            elif len(m.shape) < len(x.shape):
                wide = m
                while len(wide.shape) < len(x.shape):
                    wide = ops.expand_dims(wide, -1)
                masks.append(ops.broadcast_to(wide, x.dims))
            else:
                masks.append(m)
        return ops.any(ops.concatenate(masks, axis=self.axis), axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis}


class Dot(_Merge):
    """Sums of products of two inputs over an axis of each, batch by batch.

    y[b, ...] = sum over k of x1[b, .., k, ..] * x2[b, .., k, ..].

    Args:
        axes: the axis of both, or a pair (axis of the first, axis of the second).
        normalize: divide each by its norm along the axis first: a cosine.

    Input shape:
        A list of two tensors (batch, ...), of equal size on the axes.

    Output shape:
        (batch, the other axes of the first, the other axes of the second); (batch, 1) where there are none.

    Raises:
        ValueError: other than two inputs.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.Dot(axes=1, normalize=True)([keras.ops.ones((1, 4)), keras.ops.full((1, 4), 3.0)]).shape
        (1, 1)
    """

    def __init__(self, axes: Any, normalize: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axes, self.normalize = axes, normalize

    def _check(self, input_shape: Any) -> None:
        if not isinstance(input_shape, list) or len(input_shape) != 2:
            raise ValueError(
                f"A `Dot` layer should be called on a list of 2 inputs. Received: input_shape={input_shape}"
            )

    def call(self, inputs: Any) -> Any:
        a, b = inputs
        i, j = (self.axes, self.axes) if isinstance(self.axes, int) else self.axes
        i, j = i % len(a.shape), j % len(b.shape)
        if self.normalize:
            a, b = ops.normalize(a, axis=i), ops.normalize(b, axis=j)
        letters = "abcdefghijklmno"
        left = "z" + letters[: len(a.shape) - 1]
        right = "z" + letters[len(a.shape) - 1 : len(a.shape) + len(b.shape) - 2]
        right = right[:j] + left[i] + right[j + 1 :]
        out = "z" + "".join(c for c in left[1:] if c != left[i]) + "".join(c for c in right[1:] if c != left[i])
        y = ops.einsum(f"{left},{right}->{out}", a, b)
        return ops.expand_dims(y, -1) if len(out) == 1 else y

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return None

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axes": self.axes, "normalize": self.normalize}


def add(inputs: Any, **kwargs: Any) -> Any:
    """`Add(**kwargs)(inputs)`.

    Args:
        inputs: list of tensors.
        kwargs: those of `Layer`.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.add([keras.Input((4,)), keras.Input((4,))]).shape
        (None, 4)
    """
    return Add(**kwargs)(inputs)


def subtract(inputs: Any, **kwargs: Any) -> Any:
    """`Subtract(**kwargs)(inputs)`.

    Args:
        inputs: list of two tensors.
        kwargs: those of `Layer`.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.subtract([keras.Input((4,)), keras.Input((4,))]).shape
        (None, 4)
    """
    return Subtract(**kwargs)(inputs)


def multiply(inputs: Any, **kwargs: Any) -> Any:
    """`Multiply(**kwargs)(inputs)`.

    Args:
        inputs: list of tensors.
        kwargs: those of `Layer`.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.multiply([keras.Input((4,)), keras.Input((1,))]).shape
        (None, 4)
    """
    return Multiply(**kwargs)(inputs)


def average(inputs: Any, **kwargs: Any) -> Any:
    """`Average(**kwargs)(inputs)`.

    Args:
        inputs: list of tensors.
        kwargs: those of `Layer`.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.average([keras.Input((4,)), keras.Input((4,))]).shape
        (None, 4)
    """
    return Average(**kwargs)(inputs)


def maximum(inputs: Any, **kwargs: Any) -> Any:
    """`Maximum(**kwargs)(inputs)`.

    Args:
        inputs: list of tensors.
        kwargs: those of `Layer`.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.maximum([keras.Input((4,)), keras.Input((4,))]).shape
        (None, 4)
    """
    return Maximum(**kwargs)(inputs)


def minimum(inputs: Any, **kwargs: Any) -> Any:
    """`Minimum(**kwargs)(inputs)`.

    Args:
        inputs: list of tensors.
        kwargs: those of `Layer`.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.minimum([keras.Input((4,)), keras.Input((4,))]).shape
        (None, 4)
    """
    return Minimum(**kwargs)(inputs)


def concatenate(inputs: Any, axis: int = -1, **kwargs: Any) -> Any:
    """`Concatenate(axis, **kwargs)(inputs)`.

    Args:
        inputs: list of tensors.
        axis: the axis along which they differ; the last by default.
        kwargs: those of `Layer`.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.concatenate([keras.Input((4,)), keras.Input((2,))]).shape
        (None, 6)
    """
    return Concatenate(axis=axis, **kwargs)(inputs)


def dot(inputs: Any, axes: Any = -1, **kwargs: Any) -> Any:
    """`Dot(axes, **kwargs)(inputs)`.

    Args:
        inputs: list of two tensors.
        axes: the axis of both, or a pair.
        kwargs: `normalize` and those of `Layer`.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.dot([keras.Input((5, 4)), keras.Input((3, 4))], axes=-1).shape
        (None, 5, 3)
    """
    return Dot(axes=axes, **kwargs)(inputs)
