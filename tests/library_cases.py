"""Layers, losses, metrics, optimisers and schedules in small settings, buildable with Keras or dagrt.

Weights and data come from the hash of `seed_models`, so a recording (golden/library/record.py) holds results only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from seed_models import hashed, weight


class LayerCase(NamedTuple):
    make: Callable[[Any], Any]
    shapes: tuple[tuple[int, ...], ...]  # of the inputs, batch included
    ids: int = 0  # inputs are integers below this
    mask: bool = False  # a mask (batch, steps) is passed
    training: bool | None = None
    tolerance: float = 1e-5


def L(make: Callable[[Any], Any], *shapes: tuple[int, ...], **kwargs: Any) -> LayerCase:
    return LayerCase(make, shapes, **kwargs)


IMAGE, SEQUENCE = (2, 7, 6, 4), (3, 5, 4)
RNNS = ("LSTM", "GRU", "SimpleRNN")

LAYERS: dict[str, LayerCase] = {
    "dense": L(lambda k: k.layers.Dense(5, activation="relu"), (3, 4)),
    "dense_3d": L(lambda k: k.layers.Dense(5, activation="tanh", use_bias=False), SEQUENCE),
    "dense_regularized": L(
        lambda k: k.layers.Dense(
            5,
            kernel_regularizer=k.regularizers.L1L2(0.01, 0.02),
            bias_regularizer="l2",
            activity_regularizer=k.regularizers.L2(0.1),
            kernel_constraint=k.constraints.MaxNorm(1.5),
        ),
        (3, 4),
    ),
    "einsum_dense": L(
        lambda k: k.layers.EinsumDense("abc,cd->abd", output_shape=(None, 6), bias_axes="d", activation="relu"),
        SEQUENCE,
    ),
    "embedding": L(lambda k: k.layers.Embedding(11, 3), (3, 5), ids=11),
    "embedding_mask": L(lambda k: k.layers.Embedding(4, 3, mask_zero=True), (3, 5), ids=4),
    "activation": L(lambda k: k.layers.Activation("gelu"), (3, 4)),
    "relu": L(lambda k: k.layers.ReLU(max_value=0.6, negative_slope=0.1, threshold=0.2), (3, 8)),
    "leaky_relu": L(lambda k: k.layers.LeakyReLU(), (3, 8)),
    "p_relu": L(lambda k: k.layers.PReLU(shared_axes=[1]), SEQUENCE),
    "elu": L(lambda k: k.layers.ELU(0.7), (3, 8)),
    "softmax": L(lambda k: k.layers.Softmax(), SEQUENCE),
    "softmax_axis": L(lambda k: k.layers.Softmax(axis=1), SEQUENCE),
    "identity": L(lambda k: k.layers.Identity(), (3, 4)),
    "rescaling": L(lambda k: k.layers.Rescaling(1 / 3, offset=-1.0), (3, 4)),
    "masking": L(lambda k: k.layers.Masking(0.0), SEQUENCE),
    "normalization": L(
        lambda k: k.layers.Normalization(mean=[0.1, 0.2, 0.3, 0.4], variance=[1.0, 2.0, 3.0, 4.0]), (3, 4)
    ),
    "batch_norm": L(lambda k: k.layers.BatchNormalization(), IMAGE),
    "batch_norm_training": L(lambda k: k.layers.BatchNormalization(momentum=0.9), IMAGE, training=True, tolerance=3e-5),
    "batch_norm_2d_training": L(
        lambda k: k.layers.BatchNormalization(center=False), (8, 4), training=True, tolerance=3e-5
    ),
    "batch_norm_axis_training": L(
        lambda k: k.layers.BatchNormalization(axis=1, scale=False), IMAGE, training=True, tolerance=3e-5
    ),
    "batch_norm_mask_training": L(
        lambda k: k.layers.BatchNormalization(), SEQUENCE, training=True, mask=True, tolerance=3e-5
    ),
    "layer_norm": L(lambda k: k.layers.LayerNormalization(), SEQUENCE, tolerance=3e-5),
    "layer_norm_axes": L(lambda k: k.layers.LayerNormalization(axis=[1, 2], epsilon=1e-5), SEQUENCE, tolerance=3e-5),
    "group_norm": L(lambda k: k.layers.GroupNormalization(2), IMAGE, tolerance=3e-5),
    "rms_norm": L(lambda k: k.layers.RMSNormalization(), SEQUENCE, tolerance=3e-5),
    "unit_norm": L(lambda k: k.layers.UnitNormalization(), SEQUENCE),
    "reshape": L(lambda k: k.layers.Reshape((2, -1)), SEQUENCE),
    "flatten": L(lambda k: k.layers.Flatten(), IMAGE),
    "flatten_first": L(lambda k: k.layers.Flatten(data_format="channels_first"), IMAGE),
    "permute": L(lambda k: k.layers.Permute((3, 1, 2)), IMAGE),
    "repeat_vector": L(lambda k: k.layers.RepeatVector(3), (3, 4)),
    "zero_padding1d": L(lambda k: k.layers.ZeroPadding1D((1, 2)), SEQUENCE),
    "zero_padding2d": L(lambda k: k.layers.ZeroPadding2D(((0, 1), (2, 3))), IMAGE),
    "cropping1d": L(lambda k: k.layers.Cropping1D((1, 2)), SEQUENCE),
    "cropping2d": L(lambda k: k.layers.Cropping2D(((0, 1), (2, 1))), IMAGE),
    "up_sampling1d": L(lambda k: k.layers.UpSampling1D(3), SEQUENCE),
    "up_sampling2d": L(lambda k: k.layers.UpSampling2D((2, 3)), IMAGE),
    "up_sampling2d_first": L(lambda k: k.layers.UpSampling2D(2, data_format="channels_first"), IMAGE),
    "up_sampling2d_bilinear": L(lambda k: k.layers.UpSampling2D((2, 3), interpolation="bilinear"), IMAGE),
    "conv1d": L(lambda k: k.layers.Conv1D(5, 3, strides=2, padding="same"), SEQUENCE),
    "conv1d_causal": L(lambda k: k.layers.Conv1D(5, 3, dilation_rate=2, padding="causal"), SEQUENCE),
    "conv1d_transpose": L(lambda k: k.layers.Conv1DTranspose(3, 4, strides=2, padding="same"), SEQUENCE),
    "conv2d": L(lambda k: k.layers.Conv2D(5, 3, activation="relu"), IMAGE),
    "conv2d_same_stride": L(lambda k: k.layers.Conv2D(5, (3, 2), strides=2, padding="same"), IMAGE),
    "conv2d_dilation": L(lambda k: k.layers.Conv2D(5, 3, dilation_rate=2, padding="same", use_bias=False), IMAGE),
    "conv2d_groups": L(lambda k: k.layers.Conv2D(6, 3, groups=2), IMAGE),
    "conv2d_depthwise_groups": L(lambda k: k.layers.Conv2D(4, 3, groups=4, padding="same"), IMAGE),
    "depthwise_conv2d": L(lambda k: k.layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), IMAGE),
    "depthwise_conv2d_stride": L(lambda k: k.layers.DepthwiseConv2D(3, strides=2, activation="relu"), IMAGE),
    "separable_conv2d": L(
        lambda k: k.layers.SeparableConv2D(5, 3, strides=2, padding="same", depth_multiplier=2), IMAGE
    ),
    "max_pooling1d": L(lambda k: k.layers.MaxPooling1D(2), SEQUENCE),
    "average_pooling1d": L(lambda k: k.layers.AveragePooling1D(3, strides=2, padding="same"), SEQUENCE),
    "max_pooling2d": L(lambda k: k.layers.MaxPooling2D(), IMAGE),
    "max_pooling2d_same": L(lambda k: k.layers.MaxPooling2D(3, strides=2, padding="same"), IMAGE),
    "max_pooling2d_first": L(lambda k: k.layers.MaxPooling2D(2, data_format="channels_first"), IMAGE),
    "average_pooling2d": L(lambda k: k.layers.AveragePooling2D((3, 2)), IMAGE),
    "average_pooling2d_same": L(lambda k: k.layers.AveragePooling2D(3, strides=2, padding="same"), IMAGE),
    "global_average_pooling1d": L(lambda k: k.layers.GlobalAveragePooling1D(), SEQUENCE),
    "global_average_pooling1d_mask": L(lambda k: k.layers.GlobalAveragePooling1D(), SEQUENCE, mask=True),
    "global_max_pooling1d": L(lambda k: k.layers.GlobalMaxPooling1D(keepdims=True), SEQUENCE),
    "global_average_pooling2d": L(lambda k: k.layers.GlobalAveragePooling2D(keepdims=True), IMAGE),
    "global_max_pooling2d": L(lambda k: k.layers.GlobalMaxPooling2D(data_format="channels_first"), IMAGE),
    "add": L(lambda k: k.layers.Add(), SEQUENCE, SEQUENCE, (3, 1, 4)),
    "subtract": L(lambda k: k.layers.Subtract(), SEQUENCE, SEQUENCE),
    "multiply": L(lambda k: k.layers.Multiply(), SEQUENCE, SEQUENCE, SEQUENCE),
    "multiply_ranks": L(lambda k: k.layers.Multiply(), SEQUENCE, (3, 4)),
    "average": L(lambda k: k.layers.Average(), SEQUENCE, SEQUENCE, SEQUENCE),
    "maximum": L(lambda k: k.layers.Maximum(), SEQUENCE, SEQUENCE),
    "minimum": L(lambda k: k.layers.Minimum(), SEQUENCE, SEQUENCE),
    "concatenate": L(lambda k: k.layers.Concatenate(axis=1), SEQUENCE, (3, 2, 4)),
    "dot": L(lambda k: k.layers.Dot(axes=(2, 1)), SEQUENCE, (3, 4, 6)),
    "dot_normalized": L(lambda k: k.layers.Dot(axes=1, normalize=True), (3, 4), (3, 4), tolerance=3e-5),
    "time_distributed": L(lambda k: k.layers.TimeDistributed(k.layers.Dense(3, name="inner")), SEQUENCE),
    "lstm": L(lambda k: k.layers.LSTM(6), SEQUENCE),
    "lstm_states": L(lambda k: k.layers.LSTM(6, return_sequences=True, return_state=True), SEQUENCE),
    "lstm_backwards": L(lambda k: k.layers.LSTM(6, return_sequences=True, go_backwards=True), SEQUENCE),
    "lstm_mask": L(lambda k: k.layers.LSTM(6, return_sequences=True, return_state=True), SEQUENCE, mask=True),
    "lstm_mask_backwards": L(lambda k: k.layers.LSTM(6, return_sequences=True, go_backwards=True), SEQUENCE, mask=True),
    "lstm_mask_last": L(lambda k: k.layers.LSTM(6, unit_forget_bias=False, use_bias=False), SEQUENCE, mask=True),
    "lstm_activations": L(
        lambda k: k.layers.LSTM(6, activation="relu", recurrent_activation="hard_sigmoid"), SEQUENCE, mask=True
    ),
    "gru": L(lambda k: k.layers.GRU(6, return_sequences=True, return_state=True), SEQUENCE),
    "gru_mask": L(lambda k: k.layers.GRU(6, return_sequences=True), SEQUENCE, mask=True),
    "gru_before": L(lambda k: k.layers.GRU(6, reset_after=False, go_backwards=True), SEQUENCE),
    "simple_rnn": L(lambda k: k.layers.SimpleRNN(6), SEQUENCE, mask=True),
    "bidirectional": L(lambda k: k.layers.Bidirectional(k.layers.LSTM(4, name="lstm")), SEQUENCE),
    "bidirectional_mask": L(
        lambda k: k.layers.Bidirectional(k.layers.LSTM(4, return_sequences=True, name="lstm")), SEQUENCE, mask=True
    ),
    "bidirectional_sum": L(
        lambda k: k.layers.Bidirectional(k.layers.GRU(4, return_sequences=True, name="gru"), merge_mode="sum"), SEQUENCE
    ),
    "dropout": L(lambda k: k.layers.Dropout(0.4, noise_shape=(None, 1, 4)), SEQUENCE, training=False),
    "spatial_dropout1d": L(lambda k: k.layers.SpatialDropout1D(0.4), SEQUENCE, training=False),
    "spatial_dropout2d": L(lambda k: k.layers.SpatialDropout2D(0.4), IMAGE, training=False),
    "gaussian_noise": L(lambda k: k.layers.GaussianNoise(0.3), SEQUENCE, training=False),
    "gaussian_dropout": L(lambda k: k.layers.GaussianDropout(0.3), SEQUENCE, training=False),
    "activity_regularization": L(lambda k: k.layers.ActivityRegularization(l1=0.1, l2=0.2), SEQUENCE),
    "conv2d_first": L(lambda k: k.layers.Conv2D(5, 3, data_format="channels_first"), IMAGE),
}
for _k in (2, 3, 4, 5):  # every crop rule of the transposed convolution
    for _s in (1, 2, 3):
        for _p in ("valid", "same"):
            LAYERS[f"conv2d_transpose_{_p}_k{_k}_s{_s}"] = L(
                lambda k, kernel=_k, stride=_s, padding=_p: k.layers.Conv2DTranspose(
                    3, kernel, strides=stride, padding=padding
                ),
                (2, 3, 4, 2),
            )
LAYERS["conv2d_transpose_output_padding"] = L(
    lambda k: k.layers.Conv2DTranspose(3, 5, strides=2, padding="same", output_padding=1), (2, 3, 4, 2)
)
LAYERS["conv2d_transpose_output_padding_0"] = L(
    lambda k: k.layers.Conv2DTranspose(3, 3, strides=2, padding="same", output_padding=0), (2, 3, 4, 2)
)


def layer_inputs(case: LayerCase) -> list[np.ndarray]:
    arrays = []
    for i, shape in enumerate(case.shapes):
        u = hashed(100 + i, int(np.prod(shape))).reshape(shape)
        arrays.append(np.floor((u + 1) / 2 * case.ids).astype("int32") if case.ids else u.astype("float32"))
    return arrays


def layer_mask(case: LayerCase) -> np.ndarray:
    """Holes anywhere, a leading one, and a row without any valid step."""
    b, t = case.shapes[0][:2]
    mask = hashed(7, b * t).reshape(b, t) > -0.3
    mask[0, 0] = False
    mask[-1] = False
    return mask


def layer_weights(layer: Any) -> list[np.ndarray]:
    """Formula weights; integers (counters) as they are."""
    values = []
    for i, w in enumerate(layer.weights):
        if str(w.dtype) == "int32" or w.name in ("mean", "variance"):
            values.append(np.asarray(w))
        else:
            values.append(weight(i, w.name, tuple(w.shape)))
    return values


def flat(outputs: Any) -> list[Any]:
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def direction(i: int, shape: tuple[int, ...]) -> np.ndarray:
    """What an output is multiplied by to get a scalar to differentiate."""
    return hashed(300 + i, int(np.prod(shape))).reshape(shape).astype("float32")


# --- losses --------------------------------------------------------------------------------------------------------

_U = lambda s, *shape: hashed(s, int(np.prod(shape))).reshape(shape)  # noqa: E731
_P = np.exp(2 * _U(21, 4, 5))
_ONE_HOT = np.eye(5, dtype="float32")[[0, 3, 3, 1]]
_DATA: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "real": (_U(11, 4, 3).astype("float32"), _U(12, 4, 3).astype("float32")),
    "rank": (_U(11, 4).astype("float32"), _U(12, 4, 1).astype("float32")),
    "positive": ((_U(11, 4, 3) + 1.1).astype("float32"), (_U(12, 4, 3) + 1.1).astype("float32")),
    "binary": ((_U(13, 4, 3) > 0).astype("float32"), ((_U(14, 4, 3) + 1) / 2).astype("float32")),
    "signs": (np.sign(_U(13, 4, 3)).astype("float32"), _U(14, 4, 3).astype("float32")),
    "classes": (_ONE_HOT, (_P / _P.sum(1, keepdims=True)).astype("float32")),
    "unnormalised": (_ONE_HOT, (_P / 20).astype("float32")),
    "certain": (_ONE_HOT, np.eye(5, dtype="float32")[[0, 3, 2, 4]]),
    "logits": (_ONE_HOT, (3 * _U(15, 4, 5)).astype("float32")),
    "sparse": (np.array([0, 3, 3, 1], "int32"), (_P / _P.sum(1, keepdims=True)).astype("float32")),
    "sparse_column": (
        np.array([[0.0], [3.0], [3.0], [1.0]], "float32"),
        (_P / _P.sum(1, keepdims=True)).astype("float32"),
    ),
    "sparse_logits": (np.array([0, 3, 3, 1], "int32"), (3 * _U(15, 4, 5)).astype("float32")),
    "sparse_steps": (np.floor((_U(16, 4, 3) + 1) / 2 * 5).astype("int32"), (3 * _U(17, 4, 3, 5)).astype("float32")),
    "distributions": (
        (_P / _P.sum(1, keepdims=True)).astype("float32"),
        (_P[::-1] / _P[::-1].sum(1, keepdims=True)).astype("float32"),
    ),
}
WEIGHTS = np.array([0.5, 2.0, 0.0, 1.25], "float32")

LOSSES: dict[str, tuple[str, dict[str, Any], str]] = {
    "mse": ("MeanSquaredError", {}, "real"),
    "mse_rank": ("MeanSquaredError", {}, "rank"),
    "mae": ("MeanAbsoluteError", {}, "real"),
    "mape": ("MeanAbsolutePercentageError", {}, "real"),
    "msle": ("MeanSquaredLogarithmicError", {}, "positive"),
    "huber": ("Huber", {"delta": 0.4}, "real"),
    "log_cosh": ("LogCosh", {}, "real"),
    "hinge": ("Hinge", {}, "signs"),
    "hinge_binary": ("Hinge", {}, "binary"),
    "squared_hinge": ("SquaredHinge", {}, "signs"),
    "categorical_hinge": ("CategoricalHinge", {}, "classes"),
    "kl": ("KLDivergence", {}, "distributions"),
    "poisson": ("Poisson", {}, "positive"),
    "cosine": ("CosineSimilarity", {}, "real"),
    "bce": ("BinaryCrossentropy", {}, "binary"),
    "bce_logits": ("BinaryCrossentropy", {"from_logits": True, "label_smoothing": 0.1}, "signs"),
    "bce_smooth": ("BinaryCrossentropy", {"label_smoothing": 0.2}, "binary"),
    "focal": ("BinaryFocalCrossentropy", {"apply_class_balancing": True, "gamma": 1.5}, "binary"),
    "focal_logits": ("BinaryFocalCrossentropy", {"from_logits": True, "label_smoothing": 0.1}, "binary"),
    "cce": ("CategoricalCrossentropy", {}, "classes"),
    "cce_certain": ("CategoricalCrossentropy", {}, "certain"),
    "cce_unnormalised": ("CategoricalCrossentropy", {}, "unnormalised"),
    "cce_logits": ("CategoricalCrossentropy", {"from_logits": True}, "logits"),
    "cce_smooth": ("CategoricalCrossentropy", {"label_smoothing": 0.1}, "classes"),
    "cce_focal": ("CategoricalFocalCrossentropy", {}, "classes"),
    "cce_focal_logits": ("CategoricalFocalCrossentropy", {"from_logits": True, "alpha": 0.5}, "logits"),
    "scce": ("SparseCategoricalCrossentropy", {}, "sparse"),
    "scce_column": ("SparseCategoricalCrossentropy", {}, "sparse_column"),
    "scce_logits": ("SparseCategoricalCrossentropy", {"from_logits": True}, "sparse_logits"),
    "scce_steps": ("SparseCategoricalCrossentropy", {"from_logits": True}, "sparse_steps"),
    "scce_ignore": ("SparseCategoricalCrossentropy", {"from_logits": True, "ignore_class": 3}, "sparse_logits"),
    "dice": ("Dice", {}, "binary"),
    "tversky": ("Tversky", {"alpha": 0.3, "beta": 0.7}, "binary"),
}
REDUCTIONS = ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", None)


def loss_data(name: str) -> tuple[np.ndarray, np.ndarray]:
    return _DATA[LOSSES[name][2]]


# --- metrics -------------------------------------------------------------------------------------------------------

METRICS: dict[str, tuple[str, dict[str, Any], str]] = {
    "accuracy": ("Accuracy", {}, "certain"),
    "binary_accuracy": ("BinaryAccuracy", {"threshold": 0.4}, "binary"),
    "categorical_accuracy": ("CategoricalAccuracy", {}, "classes"),
    "sparse_categorical_accuracy": ("SparseCategoricalAccuracy", {}, "sparse"),
    "sparse_categorical_accuracy_column": ("SparseCategoricalAccuracy", {}, "sparse_column"),
    "sparse_categorical_accuracy_steps": ("SparseCategoricalAccuracy", {}, "sparse_steps"),
    "top_k": ("TopKCategoricalAccuracy", {"k": 2}, "classes"),
    "sparse_top_k": ("SparseTopKCategoricalAccuracy", {"k": 3}, "sparse"),
    "rmse": ("RootMeanSquaredError", {}, "real"),
    "mse": ("MeanSquaredError", {}, "real"),
    "mae": ("MeanAbsoluteError", {}, "real"),
    "mape": ("MeanAbsolutePercentageError", {}, "real"),
    "msle": ("MeanSquaredLogarithmicError", {}, "positive"),
    "cosine": ("CosineSimilarity", {}, "real"),
    "log_cosh": ("LogCoshError", {}, "real"),
    "hinge": ("Hinge", {}, "signs"),
    "squared_hinge": ("SquaredHinge", {}, "signs"),
    "categorical_hinge": ("CategoricalHinge", {}, "classes"),
    "kl": ("KLDivergence", {}, "distributions"),
    "poisson": ("Poisson", {}, "positive"),
    "bce": ("BinaryCrossentropy", {}, "binary"),
    "cce": ("CategoricalCrossentropy", {"label_smoothing": 0.1}, "classes"),
    "scce": ("SparseCategoricalCrossentropy", {}, "sparse"),
    "precision": ("Precision", {}, "binary"),
    "precision_thresholds": ("Precision", {"thresholds": [0.2, 0.7]}, "binary"),
    "precision_top_k": ("Precision", {"top_k": 2}, "classes"),
    "precision_class": ("Precision", {"class_id": 1}, "binary"),
    "recall": ("Recall", {}, "binary"),
    "recall_thresholds": ("Recall", {"thresholds": [0.2, 0.7]}, "binary"),
    "true_positives": ("TruePositives", {}, "binary"),
    "false_positives": ("FalsePositives", {}, "binary"),
    "true_negatives": ("TrueNegatives", {}, "binary"),
    "false_negatives": ("FalseNegatives", {"thresholds": 0.3}, "binary"),
    "auc": ("AUC", {}, "binary"),
    "auc_pr": ("AUC", {"curve": "PR", "num_thresholds": 50}, "binary"),
    "auc_logits": ("AUC", {"from_logits": True}, "signs_binary"),
    "f1": ("F1Score", {"threshold": 0.5}, "binary"),
    "f1_macro": ("F1Score", {"average": "macro"}, "classes"),
    "fbeta_weighted": ("FBetaScore", {"average": "weighted", "beta": 2.0, "threshold": 0.3}, "binary"),
    "fbeta_micro": ("FBetaScore", {"average": "micro", "threshold": 0.3}, "binary"),
}
_DATA["signs_binary"] = (_DATA["binary"][0], _DATA["signs"][1] * 3)


def metric_data(name: str) -> tuple[np.ndarray, np.ndarray]:
    return _DATA[METRICS[name][2]]


# --- optimisers and schedules ---------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda k: k.optimizers.SGD(0.1),
    "momentum": lambda k: k.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda k: k.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "sgd_clipvalue": lambda k: k.optimizers.SGD(0.1, clipvalue=0.3),
    "sgd_clipnorm": lambda k: k.optimizers.SGD(0.1, clipnorm=0.5),
    "sgd_global_clipnorm": lambda k: k.optimizers.SGD(0.1, global_clipnorm=0.5),
    "rmsprop": lambda k: k.optimizers.RMSprop(0.01),
    "rmsprop_centered": lambda k: k.optimizers.RMSprop(0.01, momentum=0.9, centered=True),
    "adam": lambda k: k.optimizers.Adam(0.01),
    "adam_decay": lambda k: k.optimizers.Adam(0.01, weight_decay=0.1),
    "amsgrad": lambda k: k.optimizers.Adam(0.01, amsgrad=True),
    "adam_schedule": lambda k: k.optimizers.Adam(k.optimizers.schedules.ExponentialDecay(0.05, 2, 0.5)),
    "adam_ema": lambda k: k.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=3),
    "adam_accumulation": lambda k: k.optimizers.Adam(0.01, gradient_accumulation_steps=2),
    "adam_w": lambda k: k.optimizers.AdamW(0.01, weight_decay=0.1),
    "adagrad": lambda k: k.optimizers.Adagrad(0.1),
    "adadelta": lambda k: k.optimizers.Adadelta(1.0),
    "adamax": lambda k: k.optimizers.Adamax(0.01),
    "nadam": lambda k: k.optimizers.Nadam(0.01),
    "lion": lambda k: k.optimizers.Lion(0.01, weight_decay=0.1),
    "ftrl": lambda k: k.optimizers.Ftrl(0.1, l1_regularization_strength=0.01, l2_regularization_strength=0.02),
}
OPTIMIZER_STEPS = 6
_SHAPES = ((3, 4), (5,))


def optimizer_start() -> list[np.ndarray]:
    return [_U(61 + i, *s).astype("float32") for i, s in enumerate(_SHAPES)]


def optimizer_gradients(step: int) -> list[np.ndarray]:
    return [_U(71 + 10 * step + i, *s).astype("float32") for i, s in enumerate(_SHAPES)]


SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "exponential": lambda s: s.ExponentialDecay(0.1, 10, 0.5),
    "exponential_staircase": lambda s: s.ExponentialDecay(0.1, 10, 0.5, staircase=True),
    "piecewise": lambda s: s.PiecewiseConstantDecay([5, 12], [0.1, 0.05, 0.01]),
    "polynomial": lambda s: s.PolynomialDecay(0.1, 10, 0.01, power=2.0),
    "polynomial_cycle": lambda s: s.PolynomialDecay(0.1, 10, 0.01, cycle=True),
    "inverse_time": lambda s: s.InverseTimeDecay(0.1, 10, 0.5),
    "inverse_time_staircase": lambda s: s.InverseTimeDecay(0.1, 10, 0.5, staircase=True),
    "cosine": lambda s: s.CosineDecay(0.1, 20, alpha=0.1),
    "cosine_warmup": lambda s: s.CosineDecay(0.0, 15, warmup_target=0.1, warmup_steps=5),
    "cosine_restarts": lambda s: s.CosineDecayRestarts(0.1, 6, t_mul=1.5, m_mul=0.8),
    "cosine_restarts_equal": lambda s: s.CosineDecayRestarts(0.1, 6, t_mul=1.0),
}
SCHEDULE_STEPS = (0, 1, 4, 5, 6, 9, 10, 12, 13, 19, 25, 31)

# --- initializers, by moments ---------------------------------------------------------------------------------------

ACTIVATIONS = (
    "celu",
    "elu",
    "exponential",
    "gelu",
    "glu",
    "hard_shrink",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "soft_shrink",
    "softmax",
    "softplus",
    "softsign",
    "sparse_plus",
    "sparse_sigmoid",
    "squareplus",
    "swish",
    "tanh",
    "tanh_shrink",
)


def activation_input() -> np.ndarray:
    return (8 * _U(91, 5, 16)).astype("float32")


REGULARIZERS: dict[str, Callable[[Any], Any]] = {
    "l1": lambda k: k.regularizers.L1(0.3),
    "l2": lambda k: k.regularizers.L2(0.3),
    "l1_l2": lambda k: k.regularizers.L1L2(0.3, 0.2),
    "orthogonal_rows": lambda k: k.regularizers.OrthogonalRegularizer(0.3),
    "orthogonal_columns": lambda k: k.regularizers.OrthogonalRegularizer(0.3, mode="columns"),
}
CONSTRAINTS: dict[str, Callable[[Any], Any]] = {
    "max_norm": lambda k: k.constraints.MaxNorm(0.8),
    "max_norm_rows": lambda k: k.constraints.MaxNorm(0.8, axis=1),
    "non_neg": lambda k: k.constraints.NonNeg(),
    "unit_norm": lambda k: k.constraints.UnitNorm(),
    "min_max_norm": lambda k: k.constraints.MinMaxNorm(0.9, 1.1, rate=0.5),
}


def matrix() -> np.ndarray:
    return _U(93, 4, 5).astype("float32")
