# ruff: noqa: F401
"""Layers by Keras's names."""

from __future__ import annotations

from typing import Any

from dagrt.layers.activation import ELU, LeakyReLU, PReLU, ReLU, Softmax
from dagrt.layers.convolutional import (
    Conv1D,
    Conv1DTranspose,
    Conv2D,
    Conv2DTranspose,
    Convolution1D,
    Convolution2D,
    Convolution2DTranspose,
    DepthwiseConv2D,
    SeparableConv2D,
)
from dagrt.layers.core import Activation, Dense, EinsumDense, Embedding, Identity, Lambda, Masking, Rescaling
from dagrt.layers.input_layer import Input, InputLayer
from dagrt.layers.input_spec import InputSpec
from dagrt.layers.layer import Layer
from dagrt.layers.merging import (
    Add,
    Average,
    Concatenate,
    Dot,
    Maximum,
    Minimum,
    Multiply,
    Subtract,
    add,
    average,
    concatenate,
    dot,
    maximum,
    minimum,
    multiply,
    subtract,
)
from dagrt.layers.normalization import (
    BatchNormalization,
    GroupNormalization,
    LayerNormalization,
    Normalization,
    RMSNormalization,
    UnitNormalization,
)
from dagrt.layers.pooling import (
    AveragePooling1D,
    AveragePooling2D,
    AvgPool1D,
    AvgPool2D,
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalAvgPool1D,
    GlobalAvgPool2D,
    GlobalMaxPool1D,
    GlobalMaxPool2D,
    GlobalMaxPooling1D,
    GlobalMaxPooling2D,
    MaxPool1D,
    MaxPool2D,
    MaxPooling1D,
    MaxPooling2D,
)
from dagrt.layers.recurrent import (
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    GRUCell,
    LSTMCell,
    SimpleRNN,
    SimpleRNNCell,
    TimeDistributed,
)
from dagrt.layers.regularization import (
    ActivityRegularization,
    Dropout,
    GaussianDropout,
    GaussianNoise,
    SpatialDropout1D,
    SpatialDropout2D,
)
from dagrt.layers.reshaping import (
    Cropping1D,
    Cropping2D,
    Flatten,
    Permute,
    RepeatVector,
    Reshape,
    UpSampling1D,
    UpSampling2D,
    ZeroPadding1D,
    ZeroPadding2D,
)

__all__ = sorted(
    n for n, v in list(globals().items()) if not n.startswith("_") and n not in ("Any", "annotations") and callable(v)
)


def serialize(layer: Any) -> Any:
    """The layer as plain data, for `deserialize` and files.

    Args:
        layer: the layer; its weights are not in it.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.serialize(keras.layers.Flatten())["class_name"]
        'Flatten'
    """
    from dagrt.saving import serialize_keras_object

    return serialize_keras_object(layer)


def deserialize(config: Any, custom_objects: dict | None = None) -> Any:
    """The layer that `serialize` described, with new weights.

    Args:
        config: what `serialize` gave.
        custom_objects: dict of names to classes and functions that are not registered.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.deserialize(keras.layers.serialize(keras.layers.Dense(3))).units
        3
    """
    from dagrt.saving import deserialize_keras_object

    return deserialize_keras_object(config, custom_objects)


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    import difflib

    near = difflib.get_close_matches(name, __all__, n=1)
    hint = f" The nearest is {near[0]}." if near else ""
    raise AttributeError(f"dagrt.layers has no {name!r} yet.{hint}")
