"""The accuracy family, and losses as metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dagrt import losses, ops
from dagrt.metrics.metric import Mean, MeanMetricWrapper
from dagrt.ops.core import as_tensor


def accuracy(y_true: Any, y_pred: Any) -> Any:
    """Whether y_pred equals y_true, averaged over the last axis."""
    p = as_tensor(y_pred)
    t = as_tensor(y_true, p.dtype)
    t, p = losses.squeeze_or_expand_to_same_rank(t, p)
    return ops.mean(ops.equal(t, p), axis=-1)


def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5) -> Any:
    """Whether y_pred > threshold says the same as y_true, averaged over the last axis."""
    p = as_tensor(y_pred)
    t = as_tensor(y_true, p.dtype)
    t, p = losses.squeeze_or_expand_to_same_rank(t, p)
    return ops.mean(ops.equal(t, ops.cast(p > threshold, p.dtype)), axis=-1)


def categorical_accuracy(y_true: Any, y_pred: Any) -> Any:
    """Whether the largest of y_pred is where the largest of y_true is."""
    return ops.cast(
        ops.equal(ops.argmax(as_tensor(y_true), axis=-1), ops.argmax(as_tensor(y_pred), axis=-1)), "float32"
    )


def sparse_categorical_accuracy(y_true: Any, y_pred: Any) -> Any:
    """Whether the largest of y_pred is at the class that y_true names."""
    t, p = as_tensor(y_true), as_tensor(y_pred)
    if len(t.shape) == len(p.shape) and t.shape[-1] == 1:
        t = ops.squeeze(t, -1)
    best = ops.argmax(p, axis=-1)
    return ops.cast(ops.equal(ops.cast(t, "int32"), best), "float32")


def top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> Any:
    """Whether the class of y_true is among the k largest."""
    return sparse_top_k_categorical_accuracy(ops.argmax(as_tensor(y_true), axis=-1), y_pred, k)


def sparse_top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5, from_sorted_ids: bool = False) -> Any:
    """Whether the class that y_true names is among the k largest."""
    t, p = as_tensor(y_true), as_tensor(y_pred)
    if len(t.shape) == len(p.shape) and t.shape[-1] == 1:
        t = ops.squeeze(t, -1)
    t = t if t.dtype in ("int32", "int64") else ops.cast(t, "int32")
    if from_sorted_ids:
        return ops.cast(ops.any(ops.equal(ops.expand_dims(t, -1), ops.cast(p[..., :k], t.dtype)), axis=-1), "float32")
    return ops.cast(ops.in_top_k(t, p, k), "float32")


def _class(name: str, fn: Callable, default: str, *parameters: tuple[str, Any], name_first: bool = True) -> type:
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
    doc = f"Mean over samples of `{fn.__name__}`: {(fn.__doc__ or '').strip()}"
    return type(
        name, (MeanMetricWrapper,), {"__init__": scope["__init__"], "__doc__": doc, "__module__": "dagrt.metrics"}
    )


Accuracy = _class("Accuracy", accuracy, "accuracy")
BinaryAccuracy = _class("BinaryAccuracy", binary_accuracy, "binary_accuracy", ("threshold", 0.5))
CategoricalAccuracy = _class("CategoricalAccuracy", categorical_accuracy, "categorical_accuracy")
SparseCategoricalAccuracy = _class(
    "SparseCategoricalAccuracy", sparse_categorical_accuracy, "sparse_categorical_accuracy"
)
TopKCategoricalAccuracy = _class(
    "TopKCategoricalAccuracy", top_k_categorical_accuracy, "top_k_categorical_accuracy", ("k", 5), name_first=False
)


class SparseTopKCategoricalAccuracy(MeanMetricWrapper):
    """Mean over samples of `sparse_top_k_categorical_accuracy`."""

    def __init__(
        self,
        k: int = 5,
        name: str = "sparse_top_k_categorical_accuracy",
        dtype: Any = None,
        from_sorted_ids: bool = False,
    ) -> None:
        super().__init__(sparse_top_k_categorical_accuracy, name, dtype, k=k, from_sorted_ids=from_sorted_ids)


MeanSquaredError = _class("MeanSquaredError", losses.mean_squared_error, "mean_squared_error")
MeanAbsoluteError = _class("MeanAbsoluteError", losses.mean_absolute_error, "mean_absolute_error")
MeanAbsolutePercentageError = _class(
    "MeanAbsolutePercentageError", losses.mean_absolute_percentage_error, "mean_absolute_percentage_error"
)
MeanSquaredLogarithmicError = _class(
    "MeanSquaredLogarithmicError", losses.mean_squared_logarithmic_error, "mean_squared_logarithmic_error"
)
Hinge = _class("Hinge", losses.hinge, "hinge")
SquaredHinge = _class("SquaredHinge", losses.squared_hinge, "squared_hinge")
CategoricalHinge = _class("CategoricalHinge", losses.categorical_hinge, "categorical_hinge")
KLDivergence = _class("KLDivergence", losses.kl_divergence, "kl_divergence")
Poisson = _class("Poisson", losses.poisson, "poisson")
LogCoshError = _class("LogCoshError", losses.log_cosh, "logcosh")
BinaryCrossentropy = _class(
    "BinaryCrossentropy",
    losses.binary_crossentropy,
    "binary_crossentropy",
    ("from_logits", False),
    ("label_smoothing", 0),
)
CategoricalCrossentropy = _class(
    "CategoricalCrossentropy",
    losses.categorical_crossentropy,
    "categorical_crossentropy",
    ("from_logits", False),
    ("label_smoothing", 0),
    ("axis", -1),
)
SparseCategoricalCrossentropy = _class(
    "SparseCategoricalCrossentropy",
    losses.sparse_categorical_crossentropy,
    "sparse_categorical_crossentropy",
    ("from_logits", False),
    ("ignore_class", None),
    ("axis", -1),
)


def _cosine(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    return -losses.cosine_similarity(y_true, y_pred, axis=axis)


_cosine.__name__ = "cosine_similarity"
CosineSimilarity = _class("CosineSimilarity", _cosine, "cosine_similarity", ("axis", -1))


class RootMeanSquaredError(Mean):
    """Square root of the mean squared error."""

    def __init__(self, name: str = "root_mean_squared_error", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        p = as_tensor(y_pred, self.dtype)
        t, p = losses.squeeze_or_expand_to_same_rank(as_tensor(y_true, self.dtype), p)
        super().update_state(ops.square(p - t), sample_weight=sample_weight)

    def result(self) -> Any:
        return ops.sqrt(super().result())
