"""Losses: functions of (y_true, y_pred), and the classes that reduce them to a scalar.

Formulas are given at the functions, which give one value for each sample: shape `y_pred.shape[:-1]`.
"""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Callable
from typing import Any

from dagrt import _config, ops, tracing
from dagrt.ops.core import as_tensor
from dagrt.tensor import Tensor


def squeeze_or_expand_to_same_rank(x1: Any, x2: Any, expand_rank_1: bool = True) -> tuple[Any, Any]:
    """Keras's repair of ranks: (N,) beside (N, 1).

    Args:
        x1, x2: two tensors, often targets and predictions.
        expand_rank_1: (N,) becomes (N, 1); otherwise (N, 1) becomes (N,).

    Returns:
        Both, of one rank where a last axis of size 1 was the difference.
    """
    r1, r2 = len(x1.shape), len(x2.shape)
    if r1 == r2:
        return x1, x2
    if r1 == r2 + 1:
        if x1.shape[-1] == 1:
            if r2 == 1 and expand_rank_1:
                x2 = ops.expand_dims(x2, axis=-1)
            else:
                x1 = ops.squeeze(x1, axis=-1)
    elif r2 == r1 + 1 and x2.shape[-1] == 1:
        if r1 == 1 and expand_rank_1:
            x1 = ops.expand_dims(x1, axis=-1)
        else:
            x2 = ops.squeeze(x2, axis=-1)
    return x1, x2


def reduce_to_samplewise_values(values: Any, sample_weight: Any, reduce_fn: Callable, dtype: str) -> tuple[Any, Any]:
    """For metrics: values of (batch,) and weights of the same shape. Without weights, a mask serves as them.

    Args:
        values: one or more for each sample.
        sample_weight: broadcasts to the values; None for none.
        reduce_fn: `ops.mean` or `ops.sum`, over all axes but the first.
        dtype: of the results.
    """
    mask = getattr(values, "_keras_mask", None)
    values = ops.cast(values, dtype)
    if sample_weight is not None:
        sample_weight = ops.convert_to_tensor(sample_weight, dtype=dtype)
    if mask is not None:
        sample_weight = apply_mask(sample_weight, mask, dtype, "sum")
    if sample_weight is not None:
        values, sample_weight = squeeze_or_expand_to_same_rank(values, sample_weight)
        weight_rank, value_rank = len(sample_weight.shape), len(values.shape)
        if value_rank > weight_rank:
            values = reduce_fn(values, axis=list(range(weight_rank, value_rank)))
        sample_weight = ops.broadcast_to(sample_weight, values.dims)
        values = values * sample_weight
        if weight_rank > 1:
            sample_weight = reduce_fn(sample_weight, axis=list(range(1, weight_rank)))
    if len(values.shape) > 1:
        values = reduce_fn(values, axis=list(range(1, len(values.shape))))
    return values, sample_weight


def apply_mask(sample_weight: Any, mask: Any, dtype: str, reduction: str | None) -> Any:
    """Weights that leave masked places out; the mean counts valid places only.

    Args:
        sample_weight: weights of samples; None for 1.
        mask: bool, True where a place counts; None for no mask.
        dtype: of the result.
        reduction: the loss's: for means the mask is scaled by all places / valid places.
    """
    if mask is None:
        return sample_weight
    mask = ops.cast(mask, dtype)
    if reduction in ("mean", "sum_over_batch_size"):
        total = _size(mask, dtype)
        valid = ops.sum(mask)
        mask = mask * (total / (valid + _config.epsilon()))
    if sample_weight is None:
        return mask
    sample_weight = ops.cast(sample_weight, dtype)
    while len(sample_weight.shape) < len(mask.shape):  # a weight of a sample is that of all its steps
        sample_weight = ops.expand_dims(sample_weight, -1)
    mask, sample_weight = squeeze_or_expand_to_same_rank(mask, sample_weight)
    return sample_weight * mask


def _size(x: Any, dtype: str) -> Any:
    n: Any = 1
    for d in x.dims:
        n = n * d
    return ops.cast(as_tensor(n), dtype)


def reduce_values(values: Any, sample_weight: Any = None, reduction: str | None = "sum_over_batch_size") -> Any:
    """The scalar of a loss; the mean is over all elements, whatever their weights sum to.

    Args:
        values: times their weights already.
        sample_weight: the divisor's, for "mean_with_sample_weight".
        reduction: as for `Loss`.
    """
    if reduction in (None, "none") or not values.shape:
        return values
    total = ops.sum(values)
    if reduction in ("sum_over_batch_size", "mean", "mean_with_sample_weight"):
        if reduction == "mean_with_sample_weight" and sample_weight is not None:
            divisor = ops.sum(ops.cast(sample_weight, total.dtype))
        else:
            divisor = _size(values, total.dtype)
        # Over no elements the loss is 0, not NaN.
        total = ops.where(ops.equal(divisor, 0.0), 0.0, total / divisor)
    return total


def reduce_weighted_values(values: Any, reduction: str | None, sample_weight: Any, mask: Any, dtype: str) -> Any:
    """Values of samples, times their weights and mask, reduced to the scalar of a loss.

    Args:
        values: one for each sample.
        reduction: as for `Loss`.
        sample_weight: weights of the samples; None for 1.
        mask: bool, True where a place counts; None for all.
        dtype: of the result.
    """
    values = ops.convert_to_tensor(values, dtype=dtype)
    if sample_weight is not None:
        sample_weight = ops.convert_to_tensor(sample_weight, dtype=dtype)
    if mask is not None:
        mask = ops.convert_to_tensor(mask, dtype="bool")
    sample_weight = apply_mask(sample_weight, mask, dtype, reduction)
    if sample_weight is not None:
        values, sample_weight = squeeze_or_expand_to_same_rank(values, sample_weight)
        values = values * sample_weight
    return reduce_values(values, sample_weight, reduction)


_REDUCTIONS = (None, "none", "sum", "sum_over_batch_size", "mean", "mean_with_sample_weight")


class Loss:
    """A loss of (y_true, y_pred). Subclasses write `call`, one value for each sample.

    loss = sum(values * sample_weight * mask) / number of values. Called with (y_true, y_pred, sample_weight=None); a mask that
    y_pred carries leaves its places out, and the mean is over those left.

    Args:
        name: name of the loss; by default the class's, numbered.
        reduction: "sum_over_batch_size" or "mean" (over all elements, whatever their weights), "sum",
            "mean_with_sample_weight" (divided by the sum of weights), None or "none" (values as they are).
        dtype: dtype that it is computed in; float32 by default.

    Raises:
        ValueError: another reduction.

    Example:
        >>> import dagrt as keras
        >>> class Cubed(keras.losses.Loss):
        ...     def call(self, y_true, y_pred):
        ...         return keras.ops.mean(keras.ops.abs(y_true - y_pred) ** 3, axis=-1)
        >>> float(Cubed()([[0.0], [0.0]], [[1.0], [2.0]], sample_weight=[1.0, 0.5]))
        2.5
    """

    def __init__(
        self, name: str | None = None, reduction: str | None = "sum_over_batch_size", dtype: Any = None
    ) -> None:
        if reduction not in _REDUCTIONS:
            raise ValueError(
                f"Invalid value for argument `reduction`. Expected one of {_REDUCTIONS}. Received: reduction={reduction!r}"
            )
        self.name = name or _config.unique_name(_config.to_snake_case(type(self).__name__))
        self.reduction = reduction
        self._dtype = getattr(dtype, "name", dtype) or _config.floatx()

    @property
    def dtype(self) -> str:
        return self._dtype

    def call(self, y_true: Any, y_pred: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must implement call(y_true, y_pred)")

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        mask_in = getattr(y_pred, "_keras_mask", None)
        y_pred = self._prepared(y_pred)
        y_true = self._prepared(y_true)
        with tracing.path_scope(self.name):  # errors name the loss
            values = self.call(y_true, y_pred)
        mask_out = getattr(values, "_keras_mask", None)  # places that the loss itself leaves out
        if mask_in is not None and mask_out is not None:
            mask = ops.logical_and(mask_in, mask_out)
        else:
            mask = mask_in if mask_in is not None else mask_out
        return reduce_weighted_values(values, self.reduction, sample_weight, mask, self._dtype)

    def _prepared(self, y: Any) -> Any:
        t = as_tensor(y)
        return t if t.dtype in ("int32", "int64") and self._keeps_integers else ops.cast(t, self._dtype)

    _keeps_integers = False

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "reduction": self.reduction}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        config = dict(config)
        if isinstance(config.get("dtype"), dict):
            config["dtype"] = config["dtype"].get("config", {}).get("name")
        return cls(**config)


class LossFunctionWrapper(Loss):
    """A `Loss` of a function of (y_true, y_pred).

    Args:
        fn: gives one value for each sample, over `dagrt.ops`.
        reduction, name, dtype: as for `Loss`.
        kwargs: passed on to fn.

    Example:
        >>> import dagrt as keras
        >>> loss = keras.losses.LossFunctionWrapper(keras.losses.huber, delta=2.0)
        >>> float(loss([[0.0]], [[2.0]]))
        2.0
    """

    def __init__(
        self,
        fn: Callable,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.fn = fn
        self._fn_kwargs = kwargs

    def call(self, y_true: Any, y_pred: Any) -> Any:
        if isinstance(y_true, Tensor) and isinstance(y_pred, Tensor):
            y_true, y_pred = squeeze_or_expand_to_same_rank(y_true, y_pred)
        return self.fn(y_true, y_pred, **self._fn_kwargs)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if type(self) is LossFunctionWrapper:
            from dagrt.saving import serialize_keras_object

            config["fn"] = serialize_keras_object(self.fn)
        return {**config, **self._fn_kwargs}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        if "fn" in config:
            from dagrt.saving import deserialize_keras_object

            config = {**config, "fn": deserialize_keras_object(config["fn"])}
        return super().from_config(config)


# --- functions -----------------------------------------------------------------------------------------------------


def _both(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    p = as_tensor(y_pred)
    if "float" not in p.dtype:
        p = ops.cast(p, _config.floatx())
    t = as_tensor(y_true, p.dtype)
    return squeeze_or_expand_to_same_rank(t, p)


def _of_shape(t: Any, p: Any) -> Any:
    """Targets that must have the predictions' shape: what is not known yet is checked when sizes are."""
    if len(t.shape) == len(p.shape) and any(a is None and b is not None for a, b in zip(t.shape, p.shape)):
        return ops.reshape(t, p.dims)
    return t


def mean_squared_error(y_true: Any, y_pred: Any) -> Any:
    """Mean of squared errors.

    value = mean((y_true - y_pred)²) over the last axis.

    Args:
        y_true: targets, of the predictions' shape.
        y_pred: predictions.

    Returns:
        One value for each sample, of shape y_pred.shape[:-1].

    Example:
        >>> import dagrt as keras
        >>> keras.losses.mean_squared_error([[0.0, 1.0]], [[1.0, 1.0]]).numpy()
        array([0.5], dtype=float32)
    """
    t, p = _both(y_true, y_pred)
    return ops.mean(ops.square(t - p), axis=-1)


def mean_absolute_error(y_true: Any, y_pred: Any) -> Any:
    """Mean of absolute errors.

    value = mean(|y_true - y_pred|) over the last axis.

    Args:
        y_true: targets, of the predictions' shape.
        y_pred: predictions.

    Returns:
        One value for each sample, of shape y_pred.shape[:-1].

    Example:
        >>> import dagrt as keras
        >>> keras.losses.mean_absolute_error([[0.0, 1.0]], [[3.0, 1.0]]).numpy()
        array([1.5], dtype=float32)
    """
    t, p = _both(y_true, y_pred)
    return ops.mean(ops.absolute(t - p), axis=-1)


def mean_absolute_percentage_error(y_true: Any, y_pred: Any) -> Any:
    """Mean of absolute errors, in per cent of the targets.

    value = 100 mean(|y_true - y_pred| / max(|y_true|, 1e-7)) over the last axis.

    Args:
        y_true: targets, of the predictions' shape.
        y_pred: predictions.

    Returns:
        One value for each sample, of shape y_pred.shape[:-1].

    Example:
        >>> import dagrt as keras
        >>> keras.losses.mean_absolute_percentage_error([[2.0, 4.0]], [[1.0, 4.0]]).numpy()
        array([25.], dtype=float32)
    """
    t, p = _both(y_true, y_pred)
    return 100.0 * ops.mean(ops.absolute((t - p) / ops.maximum(ops.absolute(t), _config.epsilon())), axis=-1)


def mean_squared_logarithmic_error(y_true: Any, y_pred: Any) -> Any:
    """Mean of squared errors of logarithms: errors count by ratio.

    value = mean((log(max(y_true, 1e-7) + 1) - log(max(y_pred, 1e-7) + 1))²) over the last axis.

    Args:
        y_true: targets, not negative, of the predictions' shape.
        y_pred: predictions.

    Returns:
        One value for each sample, of shape y_pred.shape[:-1].

    Example:
        >>> import dagrt as keras
        >>> keras.losses.mean_squared_logarithmic_error([[1.0, 3.0]], [[1.0, 3.0]]).numpy()
        array([0.], dtype=float32)
    """
    t, p = _both(y_true, y_pred)
    a, b = (ops.log(ops.maximum(x, _config.epsilon()) + 1.0) for x in (t, p))
    return ops.mean(ops.square(a - b), axis=-1)


def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """Minus the cosine of the angle between targets and predictions: -1 where they point alike, 1 where opposite.

    value = -sum(y_true / |y_true| * y_pred / |y_pred|) over the axis.

    Args:
        y_true: targets, of the predictions' shape.
        y_pred: predictions.
        axis: the axis of the vectors.

    Returns:
        One value for each sample: y_pred's shape without the axis.

    Example:
        >>> import dagrt as keras
        >>> keras.losses.cosine_similarity([[0.0, 2.0]], [[0.0, 5.0]]).numpy()
        array([-1.], dtype=float32)
    """
    t, p = _both(y_true, y_pred)
    return -ops.sum(ops.normalize(t, axis=axis) * ops.normalize(p, axis=axis), axis=axis)


def huber(y_true: Any, y_pred: Any, delta: float = 1.0) -> Any:
    """Squares of small errors, absolute values of large ones.

    value = mean(e²/2 where |e| <= delta, else delta |e| - delta²/2) over the last axis, e = y_true - y_pred.

    Args:
        y_true: targets, of the predictions' shape.
        y_pred: predictions.
        delta: where an error becomes large.

    Returns:
        One value for each sample, of shape y_pred.shape[:-1].

    Example:
        >>> import dagrt as keras
        >>> keras.losses.huber([[0.0, 0.0]], [[1.0, 3.0]]).numpy()
        array([1.5], dtype=float32)

    Reference:
        Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical Statistics 35, 1964.
    """
    t, p = _both(y_true, y_pred)
    e = p - t
    a = ops.absolute(e)
    return ops.mean(ops.where(a <= delta, 0.5 * ops.square(e), delta * a - 0.5 * delta * delta), axis=-1)


def log_cosh(y_true: Any, y_pred: Any) -> Any:
    """Logarithm of the hyperbolic cosine of errors: e²/2 for small ones, |e| - log(2) for large ones.

    value = mean(log(cosh(y_pred - y_true))) over the last axis, without overflow.

    Args:
        y_true: targets, of the predictions' shape.
        y_pred: predictions.

    Returns:
        One value for each sample, of shape y_pred.shape[:-1].

    Example:
        >>> import dagrt as keras
        >>> keras.losses.log_cosh([[0.0, 1.0]], [[0.0, 1.0]]).numpy()
        array([0.], dtype=float32)
    """
    t, p = _both(y_true, y_pred)
    x = p - t
    return ops.mean(x + ops.softplus(-2.0 * x) - math.log(2.0), axis=-1)


def hinge(y_true: Any, y_pred: Any) -> Any:
    """Distance by which predictions miss a margin of 1.

    value = mean(max(1 - y_true y_pred, 0)) over the last axis; labels that are all 0 or 1 become -1 and 1.

    Args:
        y_true: labels -1 and 1 (or 0 and 1), of the predictions' shape.
        y_pred: predictions, any numbers.

    Returns:
        One value for each sample, of shape y_pred.shape[:-1].

    Example:
        >>> import dagrt as keras
        >>> keras.losses.hinge([[-1.0, 1.0]], [[0.5, 2.0]]).numpy()
        array([0.75], dtype=float32)
    """
    t, p = _both(y_true, y_pred)
    return ops.mean(ops.maximum(1.0 - _signs(t) * p, 0.0), axis=-1)


def squared_hinge(y_true: Any, y_pred: Any) -> Any:
    """Square of the distance by which predictions miss a margin of 1.

    value = mean(max(1 - y_true y_pred, 0)²) over the last axis; labels that are all 0 or 1 become -1 and 1.

    Args:
        y_true: labels -1 and 1 (or 0 and 1), of the predictions' shape.
        y_pred: predictions, any numbers.

    Returns:
        One value for each sample, of shape y_pred.shape[:-1].

    Example:
        >>> import dagrt as keras
        >>> keras.losses.squared_hinge([[-1.0, 1.0]], [[1.0, 2.0]]).numpy()
        array([2.], dtype=float32)
    """
    t, p = _both(y_true, y_pred)
    return ops.mean(ops.square(ops.maximum(1.0 - _signs(t) * p, 0.0)), axis=-1)


def _signs(t: Any) -> Any:
    binary = ops.all(ops.logical_or(ops.equal(t, 0.0), ops.equal(t, 1.0)))
    return ops.where(binary, 2.0 * t - 1.0, t)


def categorical_hinge(y_true: Any, y_pred: Any) -> Any:
    """Margin between the right class and the best of the wrong ones.

    value = max(max((1 - y_true) y_pred) - sum(y_true y_pred) + 1, 0), over the last axis.

    Args:
        y_true: one-hot classes, of the predictions' shape.
        y_pred: scores of the classes, any numbers.

    Returns:
        One value for each sample, of shape y_pred.shape[:-1].

    Example:
        >>> import dagrt as keras
        >>> keras.losses.categorical_hinge([[0.0, 1.0]], [[0.5, 1.0]]).numpy()
        array([0.5], dtype=float32)
    """
    t, p = _both(y_true, y_pred)
    return ops.maximum(ops.max((1.0 - t) * p, axis=-1) - ops.sum(t * p, axis=-1) + 1.0, 0.0)


def kl_divergence(y_true: Any, y_pred: Any) -> Any:
    """Kullback-Leibler divergence of the predicted distribution from the true one.

    value = sum(y_true log(y_true / y_pred)) over the last axis, both kept in [1e-7, 1].

    Args:
        y_true: probabilities, of the predictions' shape.
        y_pred: predicted probabilities.

    Returns:
        One value for each sample, of shape y_pred.shape[:-1].

    Example:
        >>> import dagrt as keras
        >>> keras.losses.kl_divergence([[0.5, 0.5]], [[0.5, 0.5]]).numpy()
        array([0.], dtype=float32)

    Reference:
        Kullback and Leibler, "On Information and Sufficiency", Annals of Mathematical Statistics 22, 1951.
    """
    t, p = _both(y_true, y_pred)
    t, p = (ops.clip(x, _config.epsilon(), 1.0) for x in (t, p))
    return ops.sum(t * ops.log(t / p), axis=-1)


def poisson(y_true: Any, y_pred: Any) -> Any:
    """Negative log-likelihood of counts with a Poisson distribution, but for a constant.

    value = mean(y_pred - y_true log(y_pred + 1e-7)) over the last axis.

    Args:
        y_true: counts, of the predictions' shape.
        y_pred: predicted means, positive.

    Returns:
        One value for each sample, of shape y_pred.shape[:-1].

    Example:
        >>> import dagrt as keras
        >>> keras.losses.poisson([[0.0, 3.0]], [[2.0, 1.0]]).numpy().round(4)
        array([1.5], dtype=float32)
    """
    t, p = _both(y_true, y_pred)
    return ops.mean(p - t * ops.log(p + _config.epsilon()), axis=-1)


def categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Any:
    """Cross-entropy of class probabilities.

    value = -sum(y_true log(p)) over the axis; probabilities are normalised to sum 1 and kept in [1e-7, 1 - 1e-7], logits go
    through a softmax (one fused, stable op).

    Args:
        y_true: one-hot classes, or probabilities, of the predictions' shape.
        y_pred: predicted probabilities, or logits.
        from_logits: y_pred are logits.
        label_smoothing: share of y_true that is spread evenly over all classes, 0 to 1.
        axis: the axis of the classes.

    Returns:
        One value for each sample: y_pred's shape without the axis.

    Example:
        >>> import dagrt as keras
        >>> keras.losses.categorical_crossentropy([[0.0, 1.0]], [[0.5, 0.5]]).numpy().round(4)
        array([0.6931], dtype=float32)
    """
    p = as_tensor(y_pred)
    t = as_tensor(y_true, p.dtype)
    if p.shape and p.shape[-1] == 1:
        import warnings

        warnings.warn(
            "In loss categorical_crossentropy, expected y_pred.shape to be (batch_size, num_classes) with num_classes > 1. "
            f"Received: y_pred.shape={p.shape}. Consider using 'binary_crossentropy' if you only have 2 classes.",
            stacklevel=2,
        )
    if label_smoothing:
        n = ops.cast(as_tensor(p.dims[-1]), p.dtype)
        t = t * (1.0 - label_smoothing) + label_smoothing / n
    return ops.categorical_crossentropy(_of_shape(t, p), p, from_logits=from_logits, axis=axis)


def sparse_categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, ignore_class: int | None = None, axis: int = -1
) -> Any:
    """Cross-entropy of class probabilities, with class numbers as targets.

    value = -log(p[y_true]); p as in `categorical_crossentropy`.

    Args:
        y_true: class numbers, of shape (...) or (..., 1).
        y_pred: predicted probabilities, or logits, (..., classes).
        from_logits: y_pred are logits.
        ignore_class: class number whose samples count as masked; None for none.
        axis: the axis of the classes.

    Returns:
        One value for each sample: y_pred's shape without the axis.

    Raises:
        IndexError: a class number out of range, when it is met; nothing was changed then.

    Example:
        >>> import dagrt as keras
        >>> keras.losses.sparse_categorical_crossentropy([1, 0], [[0.5, 0.5], [1.0, 0.0]]).numpy().round(4)
        array([0.6931, 0.    ], dtype=float32)
    """
    p, t = as_tensor(y_pred), as_tensor(y_true)
    if len(t.shape) == len(p.shape) and t.shape[-1] == 1:
        t = ops.squeeze(t, -1)
    if ignore_class is None:
        return ops.sparse_categorical_crossentropy(t, p, from_logits=from_logits, axis=axis)
    t = t if t.dtype in ("int32", "int64") else ops.cast(t, "int32")
    valid = ops.not_equal(t, ignore_class)
    values = ops.sparse_categorical_crossentropy(ops.where(valid, t, 0), p, from_logits=from_logits, axis=axis)
    values = ops.where(valid, values, 0.0)
    values._keras_mask = valid
    return values


def binary_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Any:
    """Cross-entropy of yes or no, each on its own.

    value = mean(-t log(p) - (1 - t) log(1 - p)) over the axis; probabilities are kept in [1e-7, 1 - 1e-7], logits are
    computed stably: max(x, 0) - x t + log(1 + exp(-|x|)).

    Args:
        y_true: 0 and 1, or probabilities, of the predictions' shape.
        y_pred: predicted probabilities, or logits.
        from_logits: y_pred are logits.
        label_smoothing: share of y_true that becomes 1/2, 0 to 1.
        axis: the axis of the mean.

    Returns:
        One value for each sample: y_pred's shape without the axis.

    Example:
        >>> import dagrt as keras
        >>> keras.losses.binary_crossentropy([[0.0, 1.0]], [[0.5, 0.5]]).numpy().round(4)
        array([0.6931], dtype=float32)
    """
    t, p = _both(y_true, y_pred)
    if label_smoothing:
        t = t * (1.0 - label_smoothing) + 0.5 * label_smoothing
    return ops.mean(ops.binary_crossentropy(_of_shape(t, p), p, from_logits=from_logits), axis=axis)


def binary_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """Binary cross-entropy in which what is known well counts little.

    value = mean(weight (1 - p_t)^gamma entropy) over the axis; p_t = p where t is 1, else 1 - p; weight = alpha where t is 1,
    else 1 - alpha, with class balancing only.

    Args:
        y_true: 0 and 1, of the predictions' shape.
        y_pred: predicted probabilities, or logits.
        apply_class_balancing: weigh the two classes by alpha.
        alpha: weight of class 1; class 0 has 1 - alpha.
        gamma: how little the known counts; 0 is `binary_crossentropy`.
        from_logits: y_pred are logits.
        label_smoothing: share of y_true that becomes 1/2, 0 to 1.
        axis: the axis of the mean.

    Returns:
        One value for each sample: y_pred's shape without the axis.

    Example:
        >>> import dagrt as keras
        >>> keras.losses.binary_focal_crossentropy([[0.0, 1.0]], [[0.5, 0.5]]).numpy().round(4)
        array([0.1733], dtype=float32)

    Reference:
        Lin, Goyal, Girshick, He and Dollar, "Focal Loss for Dense Object Detection", 2017, arXiv:1708.02002.
    """
    t, p = _both(y_true, y_pred)
    if label_smoothing:
        t = t * (1.0 - label_smoothing) + 0.5 * label_smoothing
    if from_logits:
        p = ops.sigmoid(p)
    entropy = ops.binary_crossentropy(t, p)
    right = t * p + (1.0 - t) * (1.0 - p)
    loss = ops.power(1.0 - right, gamma) * entropy
    if apply_class_balancing:
        loss = (t * alpha + (1.0 - t) * (1.0 - alpha)) * loss
    return ops.mean(loss, axis=axis)


def categorical_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """Categorical cross-entropy in which what is known well counts little.

    value = -sum(alpha (1 - p)^gamma y_true log(p)) over the axis; p is normalised and kept in [1e-7, 1 - 1e-7].

    Args:
        y_true: one-hot classes, of the predictions' shape.
        y_pred: predicted probabilities, or logits.
        alpha: factor of all values.
        gamma: how little the known counts; 0 is alpha * `categorical_crossentropy`.
        from_logits: y_pred are logits.
        label_smoothing: share of y_true that is spread evenly over all classes, 0 to 1.
        axis: the axis of the classes.

    Returns:
        One value for each sample: y_pred's shape without the axis.

    Example:
        >>> import dagrt as keras
        >>> keras.losses.categorical_focal_crossentropy([[0.0, 1.0]], [[0.5, 0.5]]).numpy().round(4)
        array([0.0433], dtype=float32)

    Reference:
        Lin, Goyal, Girshick, He and Dollar, "Focal Loss for Dense Object Detection", 2017, arXiv:1708.02002.
    """
    p = as_tensor(y_pred)
    t = as_tensor(y_true, p.dtype)
    if label_smoothing:
        t = t * (1.0 - label_smoothing) + label_smoothing / p.shape[-1]
    if from_logits:
        p = ops.softmax(p, axis=axis)
    p = p / ops.sum(p, axis=axis, keepdims=True)
    p = ops.clip(p, _config.epsilon(), 1.0 - _config.epsilon())
    return ops.sum(alpha * ops.power(1.0 - p, gamma) * -t * ops.log(p), axis=axis)


def dice(y_true: Any, y_pred: Any, axis: Any = None) -> Any:
    """1 less the Dice coefficient: how little two regions overlap.

    value = 1 - 2 sum(y_true y_pred) / (sum(y_true) + sum(y_pred) + 1e-7), over the axes.

    Args:
        y_true: 0 and 1, of the predictions' shape.
        y_pred: predicted probabilities.
        axis: axes of the sums; None for all: one value for the whole batch.

    Returns:
        A scalar, or y_pred's shape without the axes.

    Example:
        >>> import dagrt as keras
        >>> round(float(keras.losses.dice([[0.0, 1.0]], [[1.0, 1.0]])), 4)
        0.3333

    Reference:
        Milletari, Navab and Ahmadi, "V-Net", 2016, arXiv:1606.04797.
    """
    t, p = _both(y_true, y_pred)
    both = ops.sum(t * p, axis=axis)
    return 1.0 - 2.0 * both / (ops.sum(t, axis=axis) + ops.sum(p, axis=axis) + _config.epsilon())


def tversky(y_true: Any, y_pred: Any, alpha: float = 0.5, beta: float = 0.5, axis: Any = None) -> Any:
    """1 less the Tversky index: an overlap that weighs misses and false alarms.

    value = 1 - hit / (hit + alpha sum((1 - y_pred) y_true) + beta sum(y_pred (1 - y_true)) + 1e-7), hit = sum(y_true y_pred),
    over the axes. alpha weighs misses, as in Keras.

    Args:
        y_true: 0 and 1, of the predictions' shape.
        y_pred: predicted probabilities.
        alpha: weight of what was missed.
        beta: weight of false alarms; alpha = beta = 0.5 is `dice`.
        axis: axes of the sums; None for all: one value for the whole batch.

    Returns:
        A scalar, or y_pred's shape without the axes.

    Example:
        >>> import dagrt as keras
        >>> round(float(keras.losses.tversky([[0.0, 1.0]], [[1.0, 1.0]], beta=1.0)), 4)
        0.5

    Reference:
        Salehi, Erdogmus and Gholipour, "Tversky loss function for image segmentation", 2017, arXiv:1706.05721.
    """
    p = as_tensor(y_pred)
    t = as_tensor(y_true, p.dtype)
    hit = ops.sum(t * p, axis=axis)
    missed, false = ops.sum((1.0 - p) * t, axis=axis), ops.sum(p * (1.0 - t), axis=axis)
    return 1.0 - hit / (hit + missed * alpha + false * beta + _config.epsilon())


# --- classes -------------------------------------------------------------------------------------------------------


def page_of(fn: Callable, names: list[str], more: str, example: tuple[str, str]) -> str:
    """The docstring of a class made from a function: its summary, the arguments that the class keeps, its reference.

    Args:
        fn: the function, each argument on one line of its docstring.
        names: of the arguments that the class keeps.
        more: further sections: the class's own arguments, errors.
        example: an expression and what it prints.
    """
    text = inspect.cleandoc(fn.__doc__ or "")
    summary, _, rest = text.partition("\n\nArgs:\n")
    lines = [line + "\n" for line in rest.partition("\n\n")[0].split("\n") if line.split(":")[0].strip() in names]
    reference = re.search(r"\n\nReference:\n.*", text, re.S)
    expression, printed = example
    return (
        f"{summary}\n\nArgs:\n{''.join(lines)}{more}\nExample:\n    >>> import dagrt as keras\n"
        f"    >>> {expression}\n    {printed}{reference[0] if reference else ''}\n"
    )


def _wrapped(
    class_name: str,
    fn: Callable,
    default_name: str,
    example: tuple[str, str],
    *parameters: tuple[str, Any],
    late: tuple[tuple[str, Any], ...] = (),
) -> type:
    """A Loss class of a function, with Keras's argument order: the function's own, reduction, name, `late` ones, dtype.

    The example is the call's text behind the class's name, and the loss to four places.
    """

    names = [n for n, _ in (*parameters, *late)]
    source = (
        f"def __init__(self, {''.join(f'{n}={d!r}, ' for n, d in parameters)}"
        f"reduction='sum_over_batch_size', name={default_name!r}, "
        f"{''.join(f'{n}={d!r}, ' for n, d in late)}dtype=None):\n"
        f"    LossFunctionWrapper.__init__(self, fn, reduction, name, dtype, {', '.join(f'{n}={n}' for n in names)})\n"
    )
    scope: dict[str, Any] = {"LossFunctionWrapper": LossFunctionWrapper, "fn": fn}
    exec(source, scope)
    more = "    reduction, name, dtype: as for `Loss`.\n\nRaises:\n    ValueError: another reduction.\n"
    call, value = example
    doc = page_of(fn, names, more, (f"round(float(keras.losses.{class_name}{call}), 4)", value))
    body = {"__init__": scope["__init__"], "__doc__": doc, "__module__": __name__}
    return type(class_name, (LossFunctionWrapper,), body)


MeanSquaredError = _wrapped(
    "MeanSquaredError",
    mean_squared_error,
    "mean_squared_error",
    ("()([[0.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 0.0]])", "0.5"),
)
MeanAbsoluteError = _wrapped(
    "MeanAbsoluteError", mean_absolute_error, "mean_absolute_error", ("()([[0.0, 1.0]], [[3.0, 1.0]])", "1.5")
)
MeanAbsolutePercentageError = _wrapped(
    "MeanAbsolutePercentageError",
    mean_absolute_percentage_error,
    "mean_absolute_percentage_error",
    ("()([[2.0, 4.0]], [[1.0, 4.0]])", "25.0"),
)
MeanSquaredLogarithmicError = _wrapped(
    "MeanSquaredLogarithmicError",
    mean_squared_logarithmic_error,
    "mean_squared_logarithmic_error",
    ("()([[1.0, 3.0]], [[3.0, 3.0]])", "0.2402"),
)
Huber = _wrapped("Huber", huber, "huber_loss", ("(delta=2.0)([[0.0, 0.0]], [[1.0, 4.0]])", "3.25"), ("delta", 1.0))
LogCosh = _wrapped("LogCosh", log_cosh, "log_cosh", ("()([[0.0, 1.0]], [[1.0, 1.0]])", "0.2169"))
Hinge = _wrapped("Hinge", hinge, "hinge", ("()([[-1.0, 1.0]], [[0.5, 2.0]])", "0.75"))
SquaredHinge = _wrapped("SquaredHinge", squared_hinge, "squared_hinge", ("()([[-1.0, 1.0]], [[1.0, 2.0]])", "2.0"))
CategoricalHinge = _wrapped(
    "CategoricalHinge", categorical_hinge, "categorical_hinge", ("()([[0.0, 1.0]], [[0.5, 1.0]])", "0.5")
)
KLDivergence = _wrapped("KLDivergence", kl_divergence, "kl_divergence", ("()([[0.5, 0.5]], [[0.25, 0.75]])", "0.1438"))
Poisson = _wrapped("Poisson", poisson, "poisson", ("()([[0.0, 3.0]], [[2.0, 1.0]])", "1.5"))
CosineSimilarity = _wrapped(
    "CosineSimilarity", cosine_similarity, "cosine_similarity", ("()([[0.0, 2.0]], [[3.0, 4.0]])", "-0.8"), ("axis", -1)
)
BinaryCrossentropy = _wrapped(
    "BinaryCrossentropy",
    binary_crossentropy,
    "binary_crossentropy",
    ("(from_logits=True)([[0.0, 1.0]], [[-1.0, 1.0]])", "0.3133"),
    ("from_logits", False),
    ("label_smoothing", 0.0),
    ("axis", -1),
)
BinaryFocalCrossentropy = _wrapped(
    "BinaryFocalCrossentropy",
    binary_focal_crossentropy,
    "binary_focal_crossentropy",
    ("(gamma=2.0)([[0.0, 1.0]], [[0.5, 0.5]])", "0.1733"),
    ("apply_class_balancing", False),
    ("alpha", 0.25),
    ("gamma", 2.0),
    ("from_logits", False),
    ("label_smoothing", 0.0),
    ("axis", -1),
)
CategoricalCrossentropy = _wrapped(
    "CategoricalCrossentropy",
    categorical_crossentropy,
    "categorical_crossentropy",
    ("(label_smoothing=0.1)([[0.0, 1.0]], [[0.2, 0.8]])", "0.2925"),
    ("from_logits", False),
    ("label_smoothing", 0.0),
    ("axis", -1),
)
CategoricalFocalCrossentropy = _wrapped(
    "CategoricalFocalCrossentropy",
    categorical_focal_crossentropy,
    "categorical_focal_crossentropy",
    ("(alpha=1.0)([[0.0, 1.0]], [[0.5, 0.5]])", "0.1733"),
    ("alpha", 0.25),
    ("gamma", 2.0),
    ("from_logits", False),
    ("label_smoothing", 0.0),
    ("axis", -1),
)
Dice = _wrapped("Dice", dice, "dice", ("()([[0.0, 1.0]], [[1.0, 1.0]])", "0.3333"), late=(("axis", None),))
Tversky = _wrapped(
    "Tversky",
    tversky,
    "tversky",
    ("(beta=1.0)([[0.0, 1.0]], [[1.0, 1.0]])", "0.5"),
    ("alpha", 0.5),
    ("beta", 0.5),
    late=(("axis", None),),
)


class SparseCategoricalCrossentropy(LossFunctionWrapper):
    """Cross-entropy of class probabilities, with class numbers as targets.

    value = -log(p[y_true]); see `sparse_categorical_crossentropy`.

    Args:
        from_logits: y_pred are logits.
        ignore_class: class number whose samples count as masked; None for none.
        axis: the axis of the classes.
        reduction, name, dtype: as for `Loss`.

    Raises:
        ValueError: another reduction.
        IndexError: a class number out of range, when it is met; nothing was changed then.

    Example:
        >>> import dagrt as keras
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
        >>> round(float(loss([1, -1], [[3.0, 3.0], [0.0, 9.0]])), 4)
        0.6931
    """

    _keeps_integers = True

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        axis: int = -1,
        name: str = "sparse_categorical_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(
            sparse_categorical_crossentropy,
            reduction,
            name,
            dtype,
            from_logits=from_logits,
            ignore_class=ignore_class,
            axis=axis,
        )

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.fn(y_true, y_pred, **self._fn_kwargs)


_FUNCTIONS: dict[str, Callable] = {
    f.__name__: f
    for f in (
        mean_squared_error,
        mean_absolute_error,
        mean_absolute_percentage_error,
        mean_squared_logarithmic_error,
        cosine_similarity,
        huber,
        log_cosh,
        hinge,
        squared_hinge,
        categorical_hinge,
        kl_divergence,
        poisson,
        categorical_crossentropy,
        sparse_categorical_crossentropy,
        binary_crossentropy,
        binary_focal_crossentropy,
        categorical_focal_crossentropy,
        dice,
        tversky,
    )
}
mse = MSE = mean_squared_error
mae = MAE = mean_absolute_error
mape = MAPE = mean_absolute_percentage_error
msle = MSLE = mean_squared_logarithmic_error
kld = KLD = kl_divergence
logcosh = log_cosh
bce = BCE = binary_crossentropy
_NAMES: dict[str, Any] = {
    **_FUNCTIONS,
    "mse": mse,
    "MSE": mse,
    "mae": mae,
    "MAE": mae,
    "mape": mape,
    "MAPE": mape,
    "msle": msle,
    "MSLE": msle,
    "kld": kld,
    "KLD": kld,
    "logcosh": log_cosh,
    "bce": bce,
    "BCE": bce,
    "huber_loss": huber,
    "kullback_leibler_divergence": kl_divergence,
    "cosine": cosine_similarity,
}
_CLASSES = {n: v for n, v in globals().items() if isinstance(v, type) and issubclass(v, Loss)}


def serialize(loss: Any) -> Any:
    """The loss as plain data, for `deserialize` and files.

    Args:
        loss: the loss, an object or function.

    Example:
        >>> import dagrt as keras
        >>> keras.losses.serialize(keras.losses.Huber(delta=2.0))["class_name"]
        'Huber'
    """
    from dagrt.saving import serialize_keras_object

    return serialize_keras_object(loss)


def deserialize(name: Any, custom_objects: dict | None = None) -> Any:
    """The loss that `serialize` described.

    Args:
        name: what `serialize` gave, or a name.
        custom_objects: dict of names to classes and functions that are not registered.

    Example:
        >>> import dagrt as keras
        >>> type(keras.losses.deserialize(keras.losses.serialize(keras.losses.Huber(delta=2.0)))).__name__
        'Huber'
    """
    from dagrt.saving import deserialize_keras_object

    return get(name) if isinstance(name, str) else deserialize_keras_object(name, custom_objects)


def get(identifier: Any) -> Any:
    """The loss that something stands for.

    Args:
        identifier: name, function, class, config or object; None is none.

    Raises:
        ValueError: an unknown name, or something else.

    Example:
        >>> import dagrt as keras
        >>> keras.losses.get("mse").__name__
        'mean_squared_error'
    """
    if identifier is None or isinstance(identifier, Loss):
        return identifier
    if isinstance(identifier, dict):
        return deserialize(identifier)
    if isinstance(identifier, str):
        if identifier in _NAMES:
            return _NAMES[identifier]
        if identifier in _CLASSES:
            return _CLASSES[identifier]()
        from dagrt.saving import get_registered_object

        found = get_registered_object(identifier)
        if found is None:
            near = difflib.get_close_matches(identifier, list(_NAMES), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"Could not interpret loss identifier: {identifier!r}.{hint}")
        return found() if isinstance(found, type) else found
    if isinstance(identifier, type):
        return identifier()
    if callable(identifier):
        return identifier
    raise ValueError(f"Could not interpret loss identifier: {identifier!r}")
