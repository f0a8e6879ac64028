"""The accuracy family, and losses as metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dagrt import losses, ops
from dagrt.metrics.metric import Mean, MeanMetricWrapper
from dagrt.ops.core import as_tensor


def accuracy(y_true: Any, y_pred: Any) -> Any:
    """How often predictions equal targets.

    value = mean(y_pred == y_true) over the last axis.

    Args:
        y_true: targets.
        y_pred: predictions: class numbers, not probabilities.

    Returns:
        One value for each sample, of shape y_pred.shape[:-1].

    Example:
        >>> import dagrt as keras
        >>> keras.metrics.accuracy([[1, 2]], [[1, 3]]).numpy()
        array([0.5], dtype=float32)
    """
    p = as_tensor(y_pred)
    t = as_tensor(y_true, p.dtype)
    t, p = losses.squeeze_or_expand_to_same_rank(t, p)
    return ops.mean(ops.equal(t, p), axis=-1)


def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5) -> Any:
    """How often predictions above a threshold are right.

    value = mean((y_pred > threshold) == y_true) over the last axis.

    Args:
        y_true: 0 and 1, of the predictions' shape.
        y_pred: predicted probabilities.
        threshold: probability above which the answer is yes.

    Returns:
        One value for each sample, of shape y_pred.shape[:-1].

    Example:
        >>> import dagrt as keras
        >>> keras.metrics.binary_accuracy([[1.0, 0.0]], [[0.9, 0.6]]).numpy()
        array([0.5], dtype=float32)
    """
    p = as_tensor(y_pred)
    t = as_tensor(y_true, p.dtype)
    t, p = losses.squeeze_or_expand_to_same_rank(t, p)
    return ops.mean(ops.equal(t, ops.cast(p > threshold, p.dtype)), axis=-1)


def categorical_accuracy(y_true: Any, y_pred: Any) -> Any:
    """How often the most probable class is the right one.

    value = argmax(y_pred) == argmax(y_true), over the last axis; the first of equal ones.

    Args:
        y_true: one-hot classes, of the predictions' shape.
        y_pred: predicted probabilities, or logits.

    Returns:
        0 or 1 for each sample, of shape y_pred.shape[:-1].

    Example:
        >>> import dagrt as keras
        >>> keras.metrics.categorical_accuracy([[0.0, 1.0], [0.0, 1.0]], [[0.2, 0.8], [0.7, 0.3]]).numpy()
        array([1., 0.], dtype=float32)
    """
    return ops.cast(
        ops.equal(ops.argmax(as_tensor(y_true), axis=-1), ops.argmax(as_tensor(y_pred), axis=-1)), "float32"
    )


def sparse_categorical_accuracy(y_true: Any, y_pred: Any) -> Any:
    """How often the most probable class is the right one, with class numbers as targets.

    value = argmax(y_pred) == y_true, over the last axis; the first of equal ones.

    Args:
        y_true: class numbers, of shape (...) or (..., 1).
        y_pred: predicted probabilities, or logits, (..., classes).

    Returns:
        0 or 1 for each sample, of shape y_pred.shape[:-1].

    Example:
        >>> import dagrt as keras
        >>> keras.metrics.sparse_categorical_accuracy([1, 1], [[0.2, 0.8], [0.7, 0.3]]).numpy()
        array([1., 0.], dtype=float32)
    """
    t, p = as_tensor(y_true), as_tensor(y_pred)
    if len(t.shape) == len(p.shape) and t.shape[-1] == 1:
        t = ops.squeeze(t, -1)
    best = ops.argmax(p, axis=-1)
    return ops.cast(ops.equal(ops.cast(t, "int32"), best), "float32")


def top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> Any:
    """How often the right class is among the k most probable.

    value = fewer than k classes have a larger y_pred than that of the right one.

    Args:
        y_true: one-hot classes, of the predictions' shape.
        y_pred: predicted probabilities, or logits.
        k: how many classes may be named.

    Returns:
        0 or 1 for each sample, of shape y_pred.shape[:-1].

    Example:
        >>> import dagrt as keras
        >>> keras.metrics.top_k_categorical_accuracy([[0.0, 0.0, 1.0]], [[0.5, 0.2, 0.3]], k=2).numpy()
        array([1.], dtype=float32)
    """
    return sparse_top_k_categorical_accuracy(ops.argmax(as_tensor(y_true), axis=-1), y_pred, k)


def sparse_top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5, from_sorted_ids: bool = False) -> Any:
    """How often the right class is among the k most probable, with class numbers as targets.

    value = fewer than k classes have a larger y_pred than that of y_true.

    Args:
        y_true: class numbers, of shape (...) or (..., 1).
        y_pred: predicted probabilities, or logits, (..., classes).
        k: how many classes may be named.
        from_sorted_ids: y_pred are class numbers, the most probable first.

    Returns:
        0 or 1 for each sample, of shape y_pred.shape[:-1].

    Example:
        >>> import dagrt as keras
        >>> keras.metrics.sparse_top_k_categorical_accuracy([2], [[0.5, 0.2, 0.3]], k=2).numpy()
        array([1.], dtype=float32)
    """
    t, p = as_tensor(y_true), as_tensor(y_pred)
    if len(t.shape) == len(p.shape) and t.shape[-1] == 1:
        t = ops.squeeze(t, -1)
    t = t if t.dtype in ("int32", "int64") else ops.cast(t, "int32")
    if from_sorted_ids:
        return ops.cast(ops.any(ops.equal(ops.expand_dims(t, -1), ops.cast(p[..., :k], t.dtype)), axis=-1), "float32")
    return ops.cast(ops.in_top_k(t, p, k), "float32")


def _class(
    name: str,
    fn: Callable,
    default: str,
    example: tuple[str, str],
    *parameters: tuple[str, Any],
    name_first: bool = True,
) -> type:
    """A metric class of a function; the example is the call's text behind the class's name, and the result to four places."""
    names = [n for n, _ in parameters]
    own = "".join(f"{n}={d!r}, " for n, d in parameters)
    order = (
        f"name={default!r}, dtype=None{', ' + own.rstrip(', ') if own else ''}"
        if name_first
        else f"{own}name={default!r}, dtype=None"
    )
    source = (
        f"def __init__(self, {order}):\n"
        f"    MeanMetricWrapper.__init__(self, fn, name, dtype, {', '.join(f'{n}={n}' for n in names)})\n"
    )
    scope: dict[str, Any] = {"MeanMetricWrapper": MeanMetricWrapper, "fn": fn}
    exec(source, scope)
    call, value = example
    more = "    name: name of the metric.\n    dtype: dtype of the state.\n"
    doc = f"Mean over samples of `{fn.__name__}`. " + losses.page_of(
        fn, names, more, (f"round(float(keras.metrics.{name}{call}), 4)", value)
    )
    return type(
        name, (MeanMetricWrapper,), {"__init__": scope["__init__"], "__doc__": doc, "__module__": "dagrt.metrics"}
    )


Accuracy = _class("Accuracy", accuracy, "accuracy", ("()([[1], [2]], [[1], [3]])", "0.5"))
BinaryAccuracy = _class(
    "BinaryAccuracy",
    binary_accuracy,
    "binary_accuracy",
    ("(threshold=0.7)([[1.0], [1.0]], [[0.9], [0.6]])", "0.5"),
    ("threshold", 0.5),
)
CategoricalAccuracy = _class(
    "CategoricalAccuracy",
    categorical_accuracy,
    "categorical_accuracy",
    ("()([[0.0, 1.0], [0.0, 1.0]], [[0.2, 0.8], [0.7, 0.3]])", "0.5"),
)
SparseCategoricalAccuracy = _class(
    "SparseCategoricalAccuracy",
    sparse_categorical_accuracy,
    "sparse_categorical_accuracy",
    ("()([1, 1, 0, 1], [[0.2, 0.8], [0.7, 0.3], [0.9, 0.1], [0.1, 0.9]])", "0.75"),
)
TopKCategoricalAccuracy = _class(
    "TopKCategoricalAccuracy",
    top_k_categorical_accuracy,
    "top_k_categorical_accuracy",
    ("(k=2)([[0.0, 0.0, 1.0]], [[0.5, 0.2, 0.3]])", "1.0"),
    ("k", 5),
    name_first=False,
)


class SparseTopKCategoricalAccuracy(MeanMetricWrapper):
    """Mean over samples of `sparse_top_k_categorical_accuracy`: how often the right class is among the k most probable.

    Args:
        k: how many classes may be named.
        from_sorted_ids: y_pred are class numbers, the most probable first.
        name: name of the metric.
        dtype: dtype of the state.

    Example:
        >>> import dagrt as keras
        >>> float(keras.metrics.SparseTopKCategoricalAccuracy(k=1)([2, 0], [[0.5, 0.2, 0.3], [0.5, 0.2, 0.3]]))
        0.5
    """

    def __init__(
        self,
        k: int = 5,
        name: str = "sparse_top_k_categorical_accuracy",
        dtype: Any = None,
        from_sorted_ids: bool = False,
    ) -> None:
        super().__init__(sparse_top_k_categorical_accuracy, name, dtype, k=k, from_sorted_ids=from_sorted_ids)


MeanSquaredError = _class(
    "MeanSquaredError",
    losses.mean_squared_error,
    "mean_squared_error",
    ("()([[0.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 0.0]])", "0.5"),
)
MeanAbsoluteError = _class(
    "MeanAbsoluteError", losses.mean_absolute_error, "mean_absolute_error", ("()([[0.0, 1.0]], [[3.0, 1.0]])", "1.5")
)
MeanAbsolutePercentageError = _class(
    "MeanAbsolutePercentageError",
    losses.mean_absolute_percentage_error,
    "mean_absolute_percentage_error",
    ("()([[2.0, 4.0]], [[1.0, 4.0]])", "25.0"),
)
MeanSquaredLogarithmicError = _class(
    "MeanSquaredLogarithmicError",
    losses.mean_squared_logarithmic_error,
    "mean_squared_logarithmic_error",
    ("()([[1.0, 3.0]], [[3.0, 3.0]])", "0.2402"),
)
Hinge = _class("Hinge", losses.hinge, "hinge", ("()([[-1.0, 1.0]], [[0.5, 2.0]])", "0.75"))
SquaredHinge = _class("SquaredHinge", losses.squared_hinge, "squared_hinge", ("()([[-1.0, 1.0]], [[1.0, 2.0]])", "2.0"))
CategoricalHinge = _class(
    "CategoricalHinge", losses.categorical_hinge, "categorical_hinge", ("()([[0.0, 1.0]], [[0.5, 1.0]])", "0.5")
)
KLDivergence = _class(
    "KLDivergence", losses.kl_divergence, "kl_divergence", ("()([[0.5, 0.5]], [[0.25, 0.75]])", "0.1438")
)
Poisson = _class("Poisson", losses.poisson, "poisson", ("()([[0.0, 3.0]], [[2.0, 1.0]])", "1.5"))
LogCoshError = _class("LogCoshError", losses.log_cosh, "logcosh", ("()([[0.0, 1.0]], [[1.0, 1.0]])", "0.2169"))
BinaryCrossentropy = _class(
    "BinaryCrossentropy",
    losses.binary_crossentropy,
    "binary_crossentropy",
    ("(from_logits=True)([[0.0, 1.0]], [[-1.0, 1.0]])", "0.3133"),
    ("from_logits", False),
    ("label_smoothing", 0),
)
CategoricalCrossentropy = _class(
    "CategoricalCrossentropy",
    losses.categorical_crossentropy,
    "categorical_crossentropy",
    ("(label_smoothing=0.1)([[0.0, 1.0]], [[0.2, 0.8]])", "0.2925"),
    ("from_logits", False),
    ("label_smoothing", 0),
    ("axis", -1),
)
SparseCategoricalCrossentropy = _class(
    "SparseCategoricalCrossentropy",
    losses.sparse_categorical_crossentropy,
    "sparse_categorical_crossentropy",
    ("()([1, 0], [[0.5, 0.5], [1.0, 0.0]])", "0.3466"),
    ("from_logits", False),
    ("ignore_class", None),
    ("axis", -1),
)


def _cosine(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """Cosine of the angle between targets and predictions: 1 where they point alike, -1 where opposite.

    value = sum(y_true / |y_true| * y_pred / |y_pred|) over the axis: the loss of that name, negated.

    Args:
        y_true: targets, of the predictions' shape.
        y_pred: predictions.
        axis: the axis of the vectors.
    """
    return -losses.cosine_similarity(y_true, y_pred, axis=axis)


_cosine.__name__ = "cosine_similarity"
CosineSimilarity = _class(
    "CosineSimilarity", _cosine, "cosine_similarity", ("()([[0.0, 2.0]], [[3.0, 4.0]])", "0.8"), ("axis", -1)
)


class RootMeanSquaredError(Mean):
    """Square root of the mean squared error.

    result = sqrt(mean((y_true - y_pred)²)), over all batches.

    Args:
        name: name of the metric.
        dtype: dtype of the state.

    Example:
        >>> import dagrt as keras
        >>> float(keras.metrics.RootMeanSquaredError()([0.0, 0.0], [2.0, 2.0]))
        2.0
    """

    def __init__(self, name: str = "root_mean_squared_error", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        p = as_tensor(y_pred, self.dtype)
        t, p = losses.squeeze_or_expand_to_same_rank(as_tensor(y_true, self.dtype), p)
        super().update_state(ops.square(p - t), sample_weight=sample_weight)

    def result(self) -> Any:
        return ops.sqrt(super().result())
