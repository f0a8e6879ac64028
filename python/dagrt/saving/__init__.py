"""Model files: `.keras`, `.weights.h5`, and objects as JSON, in Keras 3's formats."""

from __future__ import annotations

from dagrt.saving.keras_file import load_model, save_model
from dagrt.saving.registry import (
    CustomObjectScope,
    custom_object_scope,
    get_custom_objects,
    get_registered_name,
    get_registered_object,
    register_keras_serializable,
)
from dagrt.saving.serialization import deserialize_keras_object, serialize_keras_object
from dagrt.saving.weights_file import load_weights, save_weights

__all__ = [
    "CustomObjectScope",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "get_registered_name",
    "get_registered_object",
    "load_model",
    "load_weights",
    "register_keras_serializable",
    "save_model",
    "save_weights",
    "serialize_keras_object",
]
