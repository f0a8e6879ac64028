"""Metrics from counts of right and wrong positives: precision, recall, AUC and relatives."""

from __future__ import annotations

from typing import Any

import numpy as np

from dagrt import losses, ops
from dagrt.metrics.metric import Metric, _ratio
from dagrt.ops.core import as_tensor


class _Confusion(Metric):
    """Counts at one or several thresholds."""

    _counts: tuple[str, ...] = ()

    def __init__(
        self, thresholds: Any, name: str | None, dtype: Any, top_k: int | None = None, class_id: int | None = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.init_thresholds = thresholds
        self.top_k, self.class_id = top_k, class_id
        default = -np.inf if top_k is not None else 0.5
        self.thresholds = [float(default)] if thresholds is None else [float(t) for t in np.atleast_1d(thresholds)]
        if any(not (-np.inf <= t <= 1) or (t < 0 and np.isfinite(t)) for t in self.thresholds):
            raise ValueError(f"Threshold values must be in [0, 1]. Received: {self.thresholds}")
        for count in self._counts:
            name = count if len(self._counts) > 1 else "accumulator"
            setattr(self, count, self.add_variable((len(self.thresholds),), name=name))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        p = as_tensor(y_pred, self.dtype)
        t = as_tensor(y_true, self.dtype)
        t, p = losses.squeeze_or_expand_to_same_rank(t, p)
        if self.top_k is not None:
            kth = ops.top_k(p, self.top_k)[0][..., -1:]
            p = ops.where(p >= kth, p, -np.inf)
        if self.class_id is not None:
            t, p = t[..., self.class_id], p[..., self.class_id]
        weight = None
        if sample_weight is not None:
            weight = as_tensor(sample_weight, self.dtype)
            while len(weight.shape) < len(p.shape):
                weight = ops.expand_dims(weight, -1)
            weight = ops.reshape(ops.broadcast_to(weight, p.dims), (-1, 1))
        thresholds = np.array(self.thresholds, "float32")[None, :]
        said = ops.reshape(p, (-1, 1)) > thresholds
        true = ops.cast(ops.reshape(t, (-1, 1)), "bool")
        parts = {
            "true_positives": ops.logical_and(true, said),
            "false_positives": ops.logical_and(ops.logical_not(true), said),
            "false_negatives": ops.logical_and(true, ops.logical_not(said)),
            "true_negatives": ops.logical_and(ops.logical_not(true), ops.logical_not(said)),
        }
        for count in self._counts:
            hits = ops.cast(parts[count], self.dtype)
            if weight is not None:
                hits = hits * weight
            v = getattr(self, count)
            v.assign(v + ops.sum(hits, axis=0))

    def _shaped(self, x: Any) -> Any:
        return x[0] if len(self.thresholds) == 1 else x

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "thresholds": self.init_thresholds}
        if type(self) in (Precision, Recall):
            config.update(top_k=self.top_k, class_id=self.class_id)
        return config


_COUNT_PAGE = """Number of {what}.

result = sum of sample_weight over the {what}, for each threshold, over all batches.

Args:
    thresholds: probability above which the answer is yes, 0 to 1, or several; 0.5 by default.
    name: name of the metric; numbered by default.
    dtype: dtype of the state.

Raises:
    ValueError: thresholds outside 0 to 1.

Example:
    >>> import dagrt as keras
    >>> float(keras.metrics.{class_name}()([0, 0, 1, 1], [0.9, 0.1, 0.9, 0.1]))
    1.0
"""


def _single(class_name: str, count: str) -> type:
    def __init__(self: Any, thresholds: Any = None, name: str | None = None, dtype: Any = None) -> None:
        _Confusion.__init__(self, thresholds, name, dtype)

    def result(self: Any) -> Any:
        return self._shaped(getattr(self, count).value)

    body = {
        "__init__": __init__,
        "result": result,
        "_counts": (count,),
        "__module__": "dagrt.metrics",
        "__doc__": _COUNT_PAGE.format(class_name=class_name, what=count.replace("_", " ")),
    }
    return type(class_name, (_Confusion,), body)


TruePositives = _single("TruePositives", "true_positives")
FalsePositives = _single("FalsePositives", "false_positives")
TrueNegatives = _single("TrueNegatives", "true_negatives")
FalseNegatives = _single("FalseNegatives", "false_negatives")


class Precision(_Confusion):
    """How many of those called positive are positive.

    result = true positives / (true positives + false positives); 0 where nothing was called positive.

    Args:
        thresholds: probability above which the answer is yes, 0 to 1, or several; 0.5 by default.
        top_k: the answer is yes for the k most probable classes of a sample; None for the threshold alone.
        class_id: count this class (index of the last axis) alone; None for all.
        name: name of the metric; numbered by default.
        dtype: dtype of the state.

    Raises:
        ValueError: thresholds outside 0 to 1.

    Example:
        >>> import dagrt as keras
        >>> float(keras.metrics.Precision()([0, 1, 1], [0.9, 0.8, 0.1]))
        0.5
    """

    _counts = ("true_positives", "false_positives")

    def __init__(
        self,
        thresholds: Any = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(thresholds, name, dtype, top_k, class_id)

    def result(self) -> Any:
        tp = self.true_positives.value
        return self._shaped(_ratio(tp, tp + self.false_positives))


class Recall(_Confusion):
    """How many of the positive are called positive.

    result = true positives / (true positives + false negatives); 0 where nothing is positive.

    Args:
        thresholds, top_k, class_id, name, dtype: as for `Precision`.

    Raises:
        ValueError: thresholds outside 0 to 1.

    Example:
        >>> import dagrt as keras
        >>> float(keras.metrics.Recall()([1, 1, 1, 1], [0.9, 0.1, 0.1, 0.1]))
        0.25
    """

    _counts = ("true_positives", "false_negatives")

    def __init__(
        self,
        thresholds: Any = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(thresholds, name, dtype, top_k, class_id)

    def result(self) -> Any:
        tp = self.true_positives.value
        return self._shaped(_ratio(tp, tp + self.false_negatives))


class AUC(_Confusion):
    """Area under the ROC or precision-recall curve, from counts at evenly spaced thresholds.

    ROC: trapezoids over (false positive rate, true positive rate). PR: precision is interpolated along true positives.

    Args:
        num_thresholds: how fine the curve is, at least 2.
        curve: "ROC" or "PR".
        summation_method: "interpolation"; there is no other.
        name: name of the metric; numbered by default.
        dtype: dtype of the state.
        thresholds: those between 0 and 1 themselves, instead of num_thresholds.
        multi_label, num_labels, label_weights: Keras's, not available; use one AUC for each label.
        from_logits: apply a sigmoid to the predictions first.

    Raises:
        ValueError: another curve, thresholds outside 0 to 1, fewer than 2.
        NotImplementedError: multi_label, or another summation_method.

    Example:
        >>> import dagrt as keras
        >>> round(float(keras.metrics.AUC()([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])), 2)
        0.75

    Reference:
        Davis and Goadrich, "The Relationship Between Precision-Recall and ROC Curves", ICML 2006.
    """

    _counts = ("true_positives", "false_positives", "true_negatives", "false_negatives")

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        dtype: Any = None,
        thresholds: Any = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Any = None,
        from_logits: bool = False,
    ) -> None:
        if multi_label or label_weights is not None:
            raise NotImplementedError("AUC: multi_label is not available yet; use one AUC for each label")
        if curve not in ("ROC", "PR"):
            raise ValueError(f'Invalid `curve` argument value "{curve}". Expected one of: ["ROC", "PR"]')
        if summation_method != "interpolation":
            raise NotImplementedError("AUC: only summation_method='interpolation' is available")
        if thresholds is not None:
            inner = sorted(thresholds)
        else:
            if num_thresholds <= 1:
                raise ValueError(
                    f"Argument `num_thresholds` must be an integer > 1. Received: num_thresholds={num_thresholds}"
                )
            inner = [(i + 1) * 1.0 / (num_thresholds - 1) for i in range(num_thresholds - 2)]
        self._given = thresholds
        self.num_thresholds, self.curve, self.from_logits = len(inner) + 2, curve, from_logits
        super().__init__([0.0, *inner, 1.0], name, dtype)
        self.thresholds = [-1e-7, *inner, 1.0 + 1e-7]

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        p = as_tensor(y_pred, self.dtype)
        super().update_state(y_true, ops.sigmoid(p) if self.from_logits else p, sample_weight)

    def result(self) -> Any:
        tp, fp = self.true_positives.value, self.false_positives.value
        tn, fn = self.true_negatives.value, self.false_negatives.value
        n = self.num_thresholds
        if self.curve == "ROC":
            x, y = _ratio(fp, fp + tn), _ratio(tp, tp + fn)
            return ops.sum((x[: n - 1] - x[1:]) * (y[: n - 1] + y[1:]) * 0.5)
        # Davis and Goadrich, 2006: precision is interpolated along true positives.
        dtp = tp[: n - 1] - tp[1:]
        p = tp + fp
        dp = p[: n - 1] - p[1:]
        slope = _ratio(dtp, ops.maximum(dp, 0.0))
        intercept = tp[1:] - slope * p[1:]
        safe = ops.where(ops.logical_and(p[: n - 1] > 0, p[1:] > 0), _ratio(p[: n - 1], ops.maximum(p[1:], 0.0)), 1.0)
        return ops.sum(_ratio(slope * (dtp + intercept * ops.log(safe)), ops.maximum(tp[1:] + fn[1:], 0.0)))

    def get_config(self) -> dict[str, Any]:
        config = {
            "name": self.name,
            "dtype": self._dtype,
            "num_thresholds": self.num_thresholds,
            "curve": self.curve,
            "summation_method": "interpolation",
            "multi_label": False,
            "num_labels": None,
            "label_weights": None,
            "from_logits": self.from_logits,
        }
        return config if self._given is None else {**config, "thresholds": list(self._given)}


class FBetaScore(Metric):
    """Weighted harmonic mean of precision and recall, by class or averaged.

    result = (1 + beta²) precision recall / (beta² precision + recall).

    Args:
        average: None (one score for each class), "micro" (counts of all classes together), "macro" (mean over classes),
            "weighted" (mean by the number of samples of a class).
        beta: how many times as much recall counts.
        threshold: probability above which the answer is yes; None for the most probable class.
        name: name of the metric.
        dtype: dtype of the state.

    Raises:
        ValueError: another average.

    Example:
        >>> import dagrt as keras
        >>> score = keras.metrics.FBetaScore(beta=2.0, threshold=0.5)
        >>> score([[1, 0], [1, 1]], [[0.9, 0.1], [0.1, 0.8]]).numpy().round(4)
        array([0.5556, 1.    ], dtype=float32)

    Reference:
        van Rijsbergen, "Information Retrieval", 1979.
    """

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str = "fbeta_score",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        if average not in (None, "micro", "macro", "weighted"):
            raise ValueError(
                f"Invalid `average` argument value. Expected one of: None, micro, macro, weighted. Received: {average}"
            )
        self.average, self.beta, self.threshold = average, beta, threshold
        self._built = False

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        t, p = as_tensor(y_true, self.dtype), as_tensor(y_pred, self.dtype)
        if not self._built:
            shape = () if self.average == "micro" else (p.shape[-1],)
            for name in ("true_positives", "false_positives", "false_negatives", "intermediate_weights"):
                setattr(self, name, self.add_variable(shape, name=name))
            self._built = True
        if self.threshold is None:
            p = ops.logical_and(p >= ops.max(p, axis=-1, keepdims=True), ops.absolute(p) > 1e-9)
        else:
            p = p > self.threshold
        p = ops.cast(p, self.dtype)
        axis = None if self.average == "micro" else 0

        def total(x: Any) -> Any:
            if sample_weight is not None:
                x = x * ops.expand_dims(as_tensor(sample_weight, self.dtype), 1)
            return ops.sum(x, axis=axis)

        for v, x in (
            (self.true_positives, p * t),
            (self.false_positives, p * (1.0 - t)),
            (self.false_negatives, (1.0 - p) * t),
            (self.intermediate_weights, t),
        ):
            v.assign(v + total(x))

    def result(self) -> Any:
        if not self._built:
            return ops.zeros(())
        tp = self.true_positives.value
        precision = _ratio(tp, tp + self.false_positives)
        recall = _ratio(tp, tp + self.false_negatives)
        b = self.beta**2
        score = _ratio((1.0 + b) * precision * recall, b * precision + recall)
        if self.average == "weighted":
            w = self.intermediate_weights.value
            return ops.sum(score * _ratio(w, ops.sum(w)))
        return score if self.average is None else ops.mean(score)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "average": self.average, "beta": self.beta, "threshold": self.threshold}


class F1Score(FBetaScore):
    """Harmonic mean of precision and recall, by class or averaged.

    result = 2 precision recall / (precision + recall).

    Args:
        average, threshold, name, dtype: as for `FBetaScore`.

    Raises:
        ValueError: another average.

    Example:
        >>> import dagrt as keras
        >>> score = keras.metrics.F1Score(average="micro", threshold=0.5)
        >>> round(float(score([[1, 0], [0, 1]], [[0.9, 0.1], [0.8, 0.8]])), 4)
        0.8
    """

    def __init__(
        self, average: str | None = None, threshold: float | None = None, name: str = "f1_score", dtype: Any = None
    ) -> None:
        super().__init__(average, 1.0, threshold, name, dtype)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["beta"]
        return config
