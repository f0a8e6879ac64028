# ruff: noqa: F401
"""Metrics by Keras's names."""

from __future__ import annotations

import difflib
from typing import Any

from dagrt.losses import (
    binary_crossentropy,
    binary_focal_crossentropy,
    categorical_crossentropy,
    categorical_hinge,
    cosine_similarity,
    hinge,
    huber,
    kl_divergence,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
    poisson,
    sparse_categorical_crossentropy,
    squared_hinge,
)
from dagrt.metrics.accuracy import (
    Accuracy,
    BinaryAccuracy,
    BinaryCrossentropy,
    CategoricalAccuracy,
    CategoricalCrossentropy,
    CategoricalHinge,
    CosineSimilarity,
    Hinge,
    KLDivergence,
    LogCoshError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    RootMeanSquaredError,
    SparseCategoricalAccuracy,
    SparseCategoricalCrossentropy,
    SparseTopKCategoricalAccuracy,
    SquaredHinge,
    TopKCategoricalAccuracy,
    accuracy,
    binary_accuracy,
    categorical_accuracy,
    sparse_categorical_accuracy,
    sparse_top_k_categorical_accuracy,
    top_k_categorical_accuracy,
)
from dagrt.metrics.confusion import (
    AUC,
    F1Score,
    FalseNegatives,
    FalsePositives,
    FBetaScore,
    Precision,
    Recall,
    TrueNegatives,
    TruePositives,
)
from dagrt.metrics.metric import Mean, MeanMetricWrapper, Metric, Sum

_FUNCTIONS: dict[str, Any] = {
    "accuracy": Accuracy,
    "acc": Accuracy,
    "mse": MeanSquaredError,
    "MSE": MeanSquaredError,
    "mae": MeanAbsoluteError,
    "MAE": MeanAbsoluteError,
    "mape": MeanAbsolutePercentageError,
    "MAPE": MeanAbsolutePercentageError,
    "msle": MeanSquaredLogarithmicError,
    "MSLE": MeanSquaredLogarithmicError,
    "bce": BinaryCrossentropy,
    "BCE": BinaryCrossentropy,
    "kld": KLDivergence,
    "KLD": KLDivergence,
    "logcosh": LogCoshError,
    "log_cosh": LogCoshError,
    "cosine": CosineSimilarity,
    "cosine_similarity": CosineSimilarity,
    "rmse": RootMeanSquaredError,
    "RMSE": RootMeanSquaredError,
    "huber": huber,
}
_CLASSES = {n: v for n, v in list(globals().items()) if isinstance(v, type) and issubclass(v, Metric)}


def _snake(name: str) -> str:
    from dagrt._config import to_snake_case

    return to_snake_case(name)


_NAMES: dict[str, Any] = {**{_snake(n): c for n, c in _CLASSES.items()}, **_CLASSES, **_FUNCTIONS}
mse = MSE = mean_squared_error
mae = MAE = mean_absolute_error
mape = MAPE = mean_absolute_percentage_error
msle = MSLE = mean_squared_logarithmic_error

__all__ = sorted(
    {*_CLASSES, "deserialize", "get", "serialize"}
    | {n for n, v in list(globals().items()) if callable(v) and not n.startswith("_") and n not in ("Any",)}
)


def serialize(metric: Any) -> Any:
    """The metric as plain data, for `deserialize` and files.

    Args:
        metric: the metric, an object or function.

    Example:
        >>> import dagrt as keras
        >>> keras.metrics.serialize(keras.metrics.AUC())["class_name"]
        'AUC'
    """
    from dagrt.saving import serialize_keras_object

    return serialize_keras_object(metric)


def deserialize(config: Any, custom_objects: dict | None = None) -> Any:
    """The metric that `serialize` described.

    Args:
        config: what `serialize` gave.
        custom_objects: dict of names to classes and functions that are not registered.

    Example:
        >>> import dagrt as keras
        >>> type(keras.metrics.deserialize(keras.metrics.serialize(keras.metrics.AUC()))).__name__
        'AUC'
    """
    from dagrt.saving import deserialize_keras_object

    return deserialize_keras_object(config, custom_objects)


def get(identifier: Any) -> Any:
    """The metric that something stands for.

    Args:
        identifier: name, class, config, object or function; None is none.

    Raises:
        ValueError: an unknown name, or something else.

    Example:
        >>> import dagrt as keras
        >>> type(keras.metrics.get("mse")).__name__
        'MeanSquaredError'
    """
    if identifier is None or isinstance(identifier, Metric):
        return identifier
    if isinstance(identifier, dict):
        return deserialize(identifier)
    if isinstance(identifier, str):
        found = _NAMES.get(identifier)
        if found is None:
            from dagrt.saving import get_registered_object

            found = get_registered_object(identifier)
        if found is None:
            near = difflib.get_close_matches(identifier, list(_NAMES), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"Could not interpret metric identifier: {identifier!r}.{hint}")
        return found() if isinstance(found, type) else found
    if isinstance(identifier, type):
        return identifier()
    if callable(identifier):
        return identifier
    raise ValueError(f"Could not interpret metric identifier: {identifier!r}")
