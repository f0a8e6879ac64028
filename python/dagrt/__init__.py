"""dagrt: Keras-style Functional models, compiled to one static program and run by hand-written kernels.

import dagrt as keras

inputs = keras.Input(shape=(784,))
x = keras.layers.Dense(64, activation="relu")(inputs)
model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x))
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
"""

from __future__ import annotations

from dagrt import (
    activations,
    callbacks,
    constraints,
    initializers,
    layers,
    losses,
    metrics,
    mixed_precision,
    models,
    ops,
    optimizers,
    random,
    regularizers,
    saving,
    tree,
    utils,
)
from dagrt._config import (
    clear_session,
    epsilon,
    floatx,
    image_data_format,
    set_epsilon,
    set_floatx,
    set_image_data_format,
)
from dagrt._core import (
    Cancelled,
    DataError,
    DeviceError,
    DeviceMemoryError,
    Dim,
    DTypeError,
    Error,
    FormatError,
    GraphError,
    MemoryLimitError,
    ShapeError,
    device,
    devices,
    set_device,
)
from dagrt.initializers import Initializer
from dagrt.layers import Input, InputSpec, Layer
from dagrt.layers.policy import DTypePolicy
from dagrt.losses import Loss
from dagrt.metrics import Metric
from dagrt.models import Functional, Model, Sequential
from dagrt.operation import Operation
from dagrt.optimizers import Optimizer
from dagrt.profiling import profile
from dagrt.regularizers import Regularizer
from dagrt.tensor import EagerTensor as Tensor
from dagrt.tensor import KerasTensor
from dagrt.tracing import function, value_and_grad
from dagrt.variable import Variable

__version__ = "0.1.0"

__all__ = [
    "Cancelled",
    "DTypeError",
    "DTypePolicy",
    "DataError",
    "DeviceError",
    "DeviceMemoryError",
    "Dim",
    "Error",
    "FormatError",
    "Functional",
    "GraphError",
    "Initializer",
    "Input",
    "InputSpec",
    "KerasTensor",
    "Layer",
    "Loss",
    "MemoryLimitError",
    "Metric",
    "Model",
    "Operation",
    "Optimizer",
    "Regularizer",
    "Sequential",
    "ShapeError",
    "Tensor",
    "Variable",
    "activations",
    "callbacks",
    "clear_session",
    "config",
    "constraints",
    "device",
    "devices",
    "epsilon",
    "floatx",
    "function",
    "image_data_format",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "mixed_precision",
    "models",
    "ops",
    "optimizers",
    "profile",
    "random",
    "regularizers",
    "saving",
    "set_device",
    "set_epsilon",
    "set_floatx",
    "set_image_data_format",
    "tree",
    "utils",
    "value_and_grad",
]


def __getattr__(name: str) -> object:
    if name == "config":
        from dagrt import _config

        return _config
    if name in ("applications", "datasets", "preprocessing", "distribution", "quantizers", "backend"):
        raise AttributeError(f"module 'dagrt' has no {name!r}: it offers {', '.join(__all__)}")
    raise AttributeError(f"module 'dagrt' has no attribute {name!r}")
