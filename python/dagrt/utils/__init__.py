"""Utilities, by Keras's names."""

from __future__ import annotations

import importlib
from typing import Any

from dagrt.utils.dataset import PyDataset, split_dataset
from dagrt.utils.numerical import normalize, pad_sequences, to_categorical
from dagrt.utils.progbar import Progbar

# Imported when first asked for: they need more of the package, or optional libraries.
_LAZY = {
    "plot_model": "dagrt.visualization.plot_model",
    "model_to_dot": "dagrt.visualization.plot_model",
    "set_random_seed": "dagrt._config",
    "clear_session": "dagrt._config",
    "pack_x_y_sample_weight": "dagrt.training.data_adapter",
    "unpack_x_y_sample_weight": "dagrt.training.data_adapter",
    "register_keras_serializable": "dagrt.saving",
    "get_registered_name": "dagrt.saving",
    "get_registered_object": "dagrt.saving",
    "get_custom_objects": "dagrt.saving",
    "custom_object_scope": "dagrt.saving",
    "CustomObjectScope": "dagrt.saving",
    "serialize_keras_object": "dagrt.saving",
    "deserialize_keras_object": "dagrt.saving",
}

__all__ = ["Progbar", "PyDataset", "normalize", "pad_sequences", "split_dataset", "to_categorical", *_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'dagrt.utils' has no attribute {name!r}; it has {', '.join(sorted(__all__))}")
