"""Neural-network ops by Keras's names: convolutions, pooling, normalisation, losses on probabilities."""

from __future__ import annotations

from typing import Any

from dagrt import _config
from dagrt.ops.core import as_tensor, is_float, one_axis, public, static_axes
from dagrt.ops.elementwise import clip, log, maximum, rsqrt, square
from dagrt.ops.raw import emit
from dagrt.ops.reductions import mean, norm
from dagrt.ops.reductions import sum as total
from dagrt.ops.shapes import expand_dims, moveaxis, reshape, squeeze, transpose

# --- softmax -------------------------------------------------------------------------------------------------------


def _last_axis(op: str, x: Any, axis: Any) -> Any:
    x = as_tensor(x)
    if not is_float(x.dtype):
        x = as_tensor(x, _config.floatx())
    rank = len(x.dims)
    if isinstance(axis, (list, tuple)) or axis is None:
        axes = static_axes(axis, rank)
        others = [a for a in range(rank) if a not in axes]
        perm = others + axes
        t = transpose(x, perm)
        flat = reshape(t, [*(x.dims[a] for a in others), -1])
        return transpose(reshape(emit(op, flat), t.dims), [perm.index(a) for a in range(rank)])
    at = one_axis(axis, rank)
    if at == rank - 1:
        return emit(op, x)
    return moveaxis(emit(op, moveaxis(x, at, -1)), -1, at)


@public
def softmax(x: Any, axis: Any = -1) -> Any:
    """exp(x) over its sum along the axis.

    Args:
        x: tensor.
        axis: axis or axes that sum to 1.
    """
    return _last_axis("softmax", x, axis)


@public
def log_softmax(x: Any, axis: Any = -1) -> Any:
    """log(softmax(x)), stable.

    Args:
        x: tensor.
        axis: axis or axes whose exponentials sum to 1.
    """
    return _last_axis("log_softmax", x, axis)


# --- normalisation -------------------------------------------------------------------------------------------------


@public
def moments(x: Any, axes: Any, keepdims: bool = False, synchronized: bool = False) -> Any:
    """Mean and variance over the axes.

    Args:
        x: tensor.
        axes: axis or axes.
        keepdims: keep the reduced axes, with size 1.
        synchronized: accepted; there is one replica.
    """
    x = as_tensor(x)
    m = mean(x, axes, True)
    v = mean(square(x - m), axes, keepdims)
    return (m if keepdims else reshape(m, v.dims)), v


@public
def normalize(x: Any, axis: Any = -1, order: int = 2, epsilon: float | None = None) -> Any:
    """x divided by its norm along the axis.

    Args:
        x: tensor.
        axis: axis or axes of the norm.
        order: of the norm.
        epsilon: least norm; 1e-7 by default.
    """
    x = as_tensor(x)
    if not x.dims:
        x = reshape(x, (1,))
    epsilon = _config.epsilon() if epsilon is None else epsilon
    if order == 2:
        return x * rsqrt(maximum(total(square(x), axis, True), epsilon**2))
    return x / maximum(norm(x, order, axis, True), epsilon)


@public
def l2_normalize(x: Any, axis: Any = -1, epsilon: float | None = None) -> Any:
    """x divided by its Euclidean norm along the axis.

    Args:
        x: tensor.
        axis: axis or axes of the norm.
        epsilon: least norm; 1e-7 by default.
    """
    return normalize(x, axis, 2, epsilon)


@public
def batch_normalization(
    x: Any, mean: Any, variance: Any, axis: int, offset: Any = None, scale: Any = None, epsilon: float = 0.001
) -> Any:
    """(x - mean) / sqrt(variance + epsilon) * scale + offset, along the axis.

    Args:
        x: tensor.
        mean: of each channel.
        variance: of each channel.
        axis: the channels.
        offset: added in the end; None for 0.
        scale: factor before that; None for 1.
        epsilon: added to the variance.
    """
    x = as_tensor(x)
    at = one_axis(axis, len(x.dims))
    shape = [d if a == at else 1 for a, d in enumerate(x.dims)]
    spread = rsqrt(as_tensor(variance) + epsilon)
    if scale is not None:
        spread = spread * scale
    shift = -(as_tensor(mean) * spread)
    if offset is not None:
        shift = shift + offset
    return x * reshape(spread, shape) + reshape(shift, shape)


@public
def layer_normalization(
    x: Any, gamma: Any = None, beta: Any = None, axis: Any = -1, epsilon: float | None = None, **kwargs: Any
) -> Any:
    """Normalised over the axis, scaled and shifted.

    Args:
        x: tensor.
        gamma: factor; None for 1.
        beta: added in the end; None for 0.
        axis: axis or axes that are normalised.
        epsilon: added to the variance; 1e-7 by default.
        kwargs: Keras's, without effect.
    """
    x = as_tensor(x)
    m, v = moments(x, axis, keepdims=True)
    y = (x - m) * rsqrt(v + (_config.epsilon() if epsilon is None else epsilon))
    if gamma is not None:
        y = y * gamma
    return y if beta is None else y + beta


@public
def rms_normalization(x: Any, scale: Any = None, axis: Any = -1, epsilon: float | None = None) -> Any:
    """x over its root mean square along the axis, scaled.

    Args:
        x: tensor.
        scale: factor; None for 1.
        axis: axis or axes of the mean.
        epsilon: added to the mean square; 1e-7 by default.
    """
    x = as_tensor(x)
    y = x * rsqrt(mean(square(x), axis, True) + (_config.epsilon() if epsilon is None else epsilon))
    return y if scale is None else y * scale


# --- convolution ---------------------------------------------------------------------------------------------------


def _two(value: Any, n: int, what: str) -> list[int]:
    values = [int(value)] * n if isinstance(value, int) else [int(v) for v in value]
    if len(values) != n:
        raise ValueError(f"{what}: expected {n} numbers, got {value}")
    return values


def _last_format(x: Any, data_format: Any) -> tuple[Any, bool]:
    first = (data_format or _config.image_data_format()) == "channels_first"
    return (moveaxis(x, 1, -1), True) if first else (x, False)


@public
def conv(
    inputs: Any, kernel: Any, strides: Any = 1, padding: str = "valid", data_format: Any = None, dilation_rate: Any = 1
) -> Any:
    """Cross-correlation over 1 or 2 axes of space; groups follow from the shapes.

    Args:
        inputs: (batch, *space, channels).
        kernel: (*window, channels / groups, filters).
        strides: steps between windows, one number or one for each axis.
        padding: "valid" or "same" (the odd one of the padding at the end); for one axis also "causal".
        data_format: "channels_last", "channels_first", or None for `config.image_data_format()`.
        dilation_rate: distance between the window's points.

    Raises:
        ValueError: other than 1 or 2 axes of space, or numbers that do not fit them.
    """
    x, first = _last_format(as_tensor(inputs), data_format)
    w = as_tensor(kernel, x.dtype)
    n = len(x.dims) - 2
    s, d = _two(strides, n, "strides"), _two(dilation_rate, n, "dilation_rate")
    padding = padding.lower()
    if padding == "causal":
        if n != 1:
            raise ValueError("padding 'causal' is for one axis of space")
        reach = (w.dims[0] - 1) * d[0]
        x = emit("pad", x, low=[0, reach, 0], high=[0, 0, 0], interior=[0, 0, 0], value=0.0)
        padding = "valid"
    if n == 1:
        x, w, s, d = expand_dims(x, 1), expand_dims(w, 0), [1, *s], [1, *d]
    elif n != 2:
        raise ValueError(f"conv: 1 or 2 axes of space are available, got {n}")
    groups = x.dims[-1] // w.dims[-2] if isinstance(x.dims[-1], int) and w.dims[-2] else 1
    y = emit("conv2d", x, w, strides=s, dilations=d, groups=max(groups, 1), padding=padding, pads=[0, 0, 0, 0])
    if n == 1:
        y = squeeze(y, 1)
    return moveaxis(y, -1, 1) if first else y


@public
def depthwise_conv(
    inputs: Any, kernel: Any, strides: Any = 1, padding: str = "valid", data_format: Any = None, dilation_rate: Any = 1
) -> Any:
    """Each channel with filters of its own; kernel (*window, channels, multiplier).

    Args:
        inputs: (batch, *space, channels).
        kernel: (*window, channels, multiplier).
        strides: steps between windows, one number or one for each axis.
        padding: "valid" or "same".
        data_format: "channels_last", "channels_first", or None for `config.image_data_format()`.
        dilation_rate: distance between the window's points.
    """
    w = as_tensor(kernel)
    window, c, m = list(w.dims[:-2]), w.dims[-2], w.dims[-1]
    return conv(inputs, reshape(w, [*window, 1, c * m]), strides, padding, data_format, dilation_rate)


@public
def separable_conv(
    inputs: Any,
    depthwise_kernel: Any,
    pointwise_kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: Any = None,
    dilation_rate: Any = 1,
) -> Any:
    """A depthwise convolution, then one of window 1.

    Args:
        inputs: (batch, *space, channels).
        depthwise_kernel: (*window, channels, multiplier).
        pointwise_kernel: (1, ..., channels * multiplier, filters).
        strides: steps between windows, one number or one for each axis.
        padding: "valid" or "same".
        data_format: "channels_last", "channels_first", or None for `config.image_data_format()`.
        dilation_rate: distance between the window's points.
    """
    y = depthwise_conv(inputs, depthwise_kernel, strides, padding, data_format, dilation_rate)
    return conv(y, pointwise_kernel, 1, "valid", data_format)


def transposed_size(n: Any, k: int, s: int, d: int, padding: str, output_padding: int | None) -> Any:
    """Keras's output size of a transposed convolution."""
    k = (k - 1) * d + 1
    if output_padding is None:
        if padding == "valid":
            return n * s + max(k - s, 0)
        return n * s
    if padding == "same":
        return (n - 1) * s + k - 2 * (k // 2) + output_padding
    return (n - 1) * s + k + output_padding


def _transposed_crop(k: int, s: int, d: int, padding: str, output_padding: int | None) -> int:
    """How many positions of the full result are cut at the start (JAX backend's rule)."""
    k = (k - 1) * d + 1
    if padding == "valid":
        return 0
    if output_padding is None:
        return max(k - s, 0) // 2
    size_less = k - 2 * (k // 2) + output_padding - s  # out = n*s + size_less; full = (n-1)*s + k
    return max(0, (k - s - size_less) // 2) if k - s - size_less > 0 else 0


@public
def conv_transpose(
    inputs: Any,
    kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    output_padding: Any = None,
    data_format: Any = None,
    dilation_rate: Any = 1,
) -> Any:
    """The gradient of a convolution with respect to its input, as an op; kernel (*window, filters, channels).

    Args:
        inputs: (batch, *space, channels).
        kernel: (*window, filters, channels).
        strides: factor by which the axes of space grow.
        padding: "valid" or "same".
        output_padding: positions added to each size; None for Keras's default size.
        data_format: "channels_last", "channels_first", or None for `config.image_data_format()`.
        dilation_rate: distance between the window's points.
    """
    x, first = _last_format(as_tensor(inputs), data_format)
    w = as_tensor(kernel, x.dtype)
    n = len(x.dims) - 2
    s, d = _two(strides, n, "strides"), _two(dilation_rate, n, "dilation_rate")
    op = [None] * n if output_padding is None else _two(output_padding, n, "output_padding")
    padding = padding.lower()
    if n == 1:
        x, w, s, d, op = expand_dims(x, 1), expand_dims(w, 0), [1, *s], [1, *d], [None, *op]
    sizes, pads = [], []
    for a in range(2):
        k = w.dims[a]
        out = transposed_size(x.dims[1 + a], k, s[a], d[a], padding, op[a])
        start = _transposed_crop(k, s[a], d[a], padding, op[a])
        sizes.append(out)
        # As the gradient of a convolution of the output: out + start + end = (n - 1) * s + k.
        reach = (k - 1) * d[a] + 1
        end = (x.dims[1 + a] - 1) * s[a] + reach - out - start
        pads += [start, end]
    ends = [
        _known_end(pads[1], s[0], w.dims[0], d[0], padding, op[0]),
        _known_end(pads[3], s[1], w.dims[1], d[1], padding, op[1]),
    ]
    extra = [max(0, -e) for e in ends]
    y = emit(
        "conv2d_input_grad",
        x,
        w,
        strides=s,
        dilations=d,
        groups=1,
        padding="explicit",
        pads=[pads[0], max(ends[0], 0), pads[2], max(ends[1], 0)],
        input_size=[sizes[0] - extra[0], sizes[1] - extra[1]],
    )
    if any(extra):
        y = emit("pad", y, low=[0, 0, 0, 0], high=[0, extra[0], extra[1], 0], interior=[0, 0, 0, 0], value=0.0)
    if n == 1:
        y = squeeze(y, 1)
    return moveaxis(y, -1, 1) if first else y


def _known_end(end: Any, s: int, k: int, d: int, padding: str, output_padding: int | None) -> int:
    """The padding at the end does not depend on the image's size; taken at size 1."""
    if isinstance(end, int):
        return end
    reach = (k - 1) * d + 1
    return (
        reach
        - transposed_size(1, k, s, d, padding, output_padding)
        - _transposed_crop(k, s, d, padding, output_padding)
    )


# --- pooling -------------------------------------------------------------------------------------------------------


def _pool(op: str, inputs: Any, pool_size: Any, strides: Any, padding: str, data_format: Any) -> Any:
    x, first = _last_format(as_tensor(inputs), data_format)
    n = len(x.dims) - 2
    k = _two(pool_size, n, "pool_size")
    s = k if strides is None else _two(strides, n, "strides")
    if n == 1:
        x, k, s = expand_dims(x, 1), [1, *k], [1, *s]
    elif n != 2:
        raise ValueError(f"pooling: 1 or 2 axes of space are available, got {n}")
    y = emit(op, x, pool=k, strides=s, padding=padding.lower(), pads=[0, 0, 0, 0])
    y = y[0] if isinstance(y, tuple) else y
    if n == 1:
        y = squeeze(y, 1)
    return moveaxis(y, -1, 1) if first else y


@public
def max_pool(inputs: Any, pool_size: Any, strides: Any = None, padding: str = "valid", data_format: Any = None) -> Any:
    """Largest in each window; padding never wins.

    Args:
        inputs: (batch, *space, channels).
        pool_size: window, one number or one for each axis.
        strides: steps between windows; None for the window's size.
        padding: "valid" or "same".
        data_format: "channels_last", "channels_first", or None for `config.image_data_format()`.
    """
    return _pool("max_pool2d", inputs, pool_size, strides, padding, data_format)


@public
def average_pool(
    inputs: Any, pool_size: Any, strides: Any = None, padding: str = "valid", data_format: Any = None
) -> Any:
    """Mean of each window; padding does not count.

    Args:
        inputs: (batch, *space, channels).
        pool_size: window, one number or one for each axis.
        strides: steps between windows; None for the window's size.
        padding: "valid" or "same".
        data_format: "channels_last", "channels_first", or None for `config.image_data_format()`.
    """
    return _pool("avg_pool2d", inputs, pool_size, strides, padding, data_format)


# --- losses on probabilities or logits -----------------------------------------------------------------------------


def _same_shape(target: Any, output: Any, who: str) -> None:
    a, b = target.shape, output.shape
    if len(a) != len(b) or any(x is not None and y is not None and x != y for x, y in zip(a, b)):
        raise ValueError(f"Arguments `target` and `output` of {who} must have the same shape. Received: {a} and {b}")


@public
def categorical_crossentropy(target: Any, output: Any, from_logits: bool = False, axis: int = -1) -> Any:
    """-sum(target * log(p)); probabilities are normalised and kept in [1e-7, 1 - 1e-7].

    Args:
        target: probabilities of the classes, of the output's shape.
        output: predicted probabilities, or logits.
        from_logits: output holds logits.
        axis: the axis of the classes.
    """
    output = as_tensor(output)
    target = as_tensor(target, output.dtype)
    _same_shape(target, output, "categorical_crossentropy")
    at = one_axis(axis, len(output.dims))
    if from_logits:
        if at == len(output.dims) - 1:
            return _fused_crossentropy(output, target)
        return -total(target * log_softmax(output, at), at)
    output = output / total(output, at, True)
    output = clip(output, _config.epsilon(), 1.0 - _config.epsilon())
    return -total(target * log(output), at)


def _fused_crossentropy(logits: Any, labels: Any) -> Any:
    y = emit("softmax_cross_entropy", logits, labels)
    return y[0] if isinstance(y, tuple) else y


@public
def sparse_categorical_crossentropy(target: Any, output: Any, from_logits: bool = False, axis: int = -1) -> Any:
    """-log of the probability of the class that target names (0 <= target < classes, else an IndexError).

    Args:
        target: class numbers (...), or (..., 1).
        output: predicted probabilities, or logits.
        from_logits: output holds logits.
        axis: the axis of the classes.

    Raises:
        ValueError: ranks that do not fit.
        IndexError: a class number out of range.
    """
    output = as_tensor(output)
    target = as_tensor(target)
    if target.dtype not in ("int32", "int64"):
        target = as_tensor(target, "int32")
    if len(target.dims) == len(output.dims) and target.shape[-1] == 1:
        target = squeeze(target, -1)
    at = one_axis(axis, len(output.dims))
    if at != len(output.dims) - 1:
        output = moveaxis(output, at, -1)
    if len(target.dims) != len(output.dims) - 1:
        raise ValueError(
            f"Argument `output` must have rank (ndim) `target.ndim + 1`. Received: target.shape={target.shape}, "
            f"output.shape={output.shape}"
        )
    if from_logits:
        return _fused_crossentropy(output, target)
    output = output / total(output, -1, True)
    output = clip(output, _config.epsilon(), 1.0 - _config.epsilon())
    chosen = emit("take_along_axis", log(output), expand_dims(target, -1), axis=len(output.dims) - 1)
    return -squeeze(chosen, -1)


@public
def binary_crossentropy(target: Any, output: Any, from_logits: bool = False) -> Any:
    """-t log(p) - (1 - t) log(1 - p), element by element; probabilities are kept in [1e-7, 1 - 1e-7].

    Args:
        target: probabilities, of the output's shape.
        output: predicted probabilities, or logits.
        from_logits: output holds logits.
    """
    output = as_tensor(output)
    target = as_tensor(target, output.dtype)
    _same_shape(target, output, "binary_crossentropy")
    if from_logits:
        # max(x, 0) - x t + log(1 + exp(-|x|))
        return maximum(output, 0.0) - output * target + emit("softplus", -emit("abs", output))
    output = clip(output, _config.epsilon(), 1.0 - _config.epsilon())
    return -(target * log(output) + (1.0 - target) * log(1.0 - output))


@public
def dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    scale: float | None = None,
    is_causal: bool = False,
    flash_attention: bool | None = None,
    attn_logits_soft_cap: float | None = None,
) -> Any:
    """softmax(query keyᵀ scale + bias) value; tensors (batch, length, heads, dim).

    `flash_attention` has no effect.

    Args:
        query: (batch, queries, heads, dim).
        key: (batch, keys, heads, dim).
        value: (batch, keys, heads, dim).
        bias: added to the scores; None for none.
        mask: bool, broadcasting to (batch, heads, queries, keys): True where a key counts; None for all.
        scale: factor of the scores; 1 / sqrt(dim) by default.
        is_causal: queries see no later keys.
        flash_attention: without effect.
        attn_logits_soft_cap: not available; leave it out.

    Raises:
        NotImplementedError: attn_logits_soft_cap was given.
    """
    from dagrt.ops.elementwise import where
    from dagrt.ops.linalg import einsum
    from dagrt.ops.shapes import arange

    q, k, v = as_tensor(query), as_tensor(key), as_tensor(value)
    scores = einsum("bqhd,bkhd->bhqk", q, k) * (q.dims[-1] ** -0.5 if scale is None else scale)
    if attn_logits_soft_cap is not None:
        raise NotImplementedError("dot_product_attention: attn_logits_soft_cap is not available; leave it out")
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = where(mask, scores, -1e30)
    if is_causal:
        rows, columns = reshape(arange(q.dims[1]), (-1, 1)), reshape(arange(k.dims[1]), (1, -1))
        scores = where(rows >= columns, scores, -1e30)
    return einsum("bhqk,bkhd->bqhd", softmax(scores), v)
