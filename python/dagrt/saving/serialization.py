"""Objects to plain JSON values and back, in Keras 3's form.

An object is `{"module", "class_name", "config", "registered_name"[, "build_config", "compile_config"]}`. Reading one
never imports what a file names: classes come from dagrt's own modules, by class name, or from what the caller registered.
"""

from __future__ import annotations

import importlib
import types
from typing import Any

import numpy as np

from dagrt.saving import registry

# The modules whose classes files may name, and what Keras calls them.
_PUBLIC_MODULES = {
    "dagrt.layers": "keras.layers",
    "dagrt.initializers": "keras.initializers",
    "dagrt.regularizers": "keras.regularizers",
    "dagrt.constraints": "keras.constraints",
    "dagrt.losses": "keras.losses",
    "dagrt.metrics": "keras.metrics",
    "dagrt.optimizers": "keras.optimizers",
    "dagrt.optimizers.schedules": "keras.optimizers.schedules",
    "dagrt.random": "keras.random",
}
# Private layers of Keras that published models contain: ours of the same meaning.
_ALIASES = {"RMSprop": "RMSprop", "OrthogonalInitializer": "Orthogonal", "IdentityInitializer": "Identity"}


def public_module(cls: type) -> str:
    """The module under which Keras knows a class of ours; a user's class keeps its own module."""
    module = cls.__module__
    if not module.startswith("dagrt"):
        return module
    if cls.__name__ == "Functional":
        return "keras.src.models.functional"
    if cls.__name__ in ("Sequential", "Model"):
        return "keras"
    if module.startswith("dagrt.optimizers.schedules"):
        return "keras.optimizers.schedules"
    for own, theirs in _PUBLIC_MODULES.items():
        if module == own or module.startswith(own + "."):
            return theirs
    return "keras"


def serialize_keras_object(obj: Any) -> Any:
    """JSON-able form of an object: plain values, arrays, slices, tensors, functions, or anything with `get_config`.

    Args:
        obj: the object.

    Raises:
        TypeError: an object that cannot be named in a file, such as a lambda.
    """
    if obj is None or isinstance(obj, (bool, int, float, str)):
        return obj
    if isinstance(obj, (np.integer, np.floating, np.bool_)):
        return obj.item()
    if isinstance(obj, (list, tuple)):
        return [serialize_keras_object(o) for o in obj]
    if isinstance(obj, dict):
        return {k: serialize_keras_object(v) for k, v in obj.items()}
    if isinstance(obj, bytes):
        return {"class_name": "__bytes__", "config": {"value": obj.decode()}}
    if isinstance(obj, np.ndarray):
        return {"class_name": "__numpy__", "config": {"value": obj.tolist(), "dtype": obj.dtype.name}}
    if isinstance(obj, slice):
        parts = {k: serialize_keras_object(getattr(obj, k)) for k in ("start", "stop", "step")}
        return {"class_name": "__slice__", "config": parts}
    if obj is Ellipsis:
        return {"class_name": "__ellipsis__", "config": {}}
    from dagrt.tensor import EagerTensor, KerasTensor

    if isinstance(obj, KerasTensor):
        operation, node_index, tensor_index = obj._keras_history
        history = [operation.name, node_index, tensor_index]
        return {
            "class_name": "__keras_tensor__",
            "config": {"shape": list(obj.shape), "dtype": obj.dtype, "keras_history": history},
        }
    if isinstance(obj, EagerTensor):
        a = obj.numpy()
        return {"class_name": "__tensor__", "config": {"value": a.tolist(), "dtype": str(obj.dtype)}}
    if isinstance(obj, (types.FunctionType, types.BuiltinFunctionType, types.MethodType)):
        return _serialize_function(obj)
    if isinstance(obj, type):
        return {
            "module": public_module(obj),
            "class_name": obj.__name__,
            "config": None,
            "registered_name": registry.get_registered_name(obj),
        }
    if not hasattr(obj, "get_config"):
        raise TypeError(f"Cannot serialize {obj!r} of type {type(obj).__name__}: it has no get_config method")
    return _serialize_with_config(obj)


def _serialize_function(fn: Any) -> Any:
    if fn.__name__ == "<lambda>":
        raise TypeError(
            "Cannot save a lambda: a model file holds no code. Define a named function and register it with "
            "dagrt.saving.register_keras_serializable()."
        )
    built_in = fn.__module__.startswith("dagrt")
    return {
        "module": "builtins" if not built_in else _PUBLIC_MODULES.get(fn.__module__, "keras"),
        "class_name": "function",
        "config": fn.__name__,
        "registered_name": registry.get_registered_name(fn) if not built_in else fn.__name__,
    }


def _serialize_with_config(obj: Any) -> dict[str, Any]:
    cls = type(obj)
    module = public_module(cls)
    built_in = cls.__module__.startswith("dagrt")
    if built_in:
        registered = cls.__name__ if module.startswith("keras.src") else None
    else:
        registered = registry.get_registered_name(cls)
        if registry.is_registered(cls):
            module = None
    data: dict[str, Any] = {
        "module": module,
        "class_name": cls.__name__,
        "config": serialize_dict(obj.get_config()),
        "registered_name": registered,
    }
    if hasattr(obj, "get_build_config") and (build := obj.get_build_config()) is not None:
        data["build_config"] = serialize_dict(build)
    if hasattr(obj, "get_compile_config"):
        compiled = obj.get_compile_config() if getattr(obj, "compiled", False) else {}
        data["compile_config"] = serialize_dict(compiled or {})
    return data


def serialize_dict(config: dict[str, Any]) -> dict[str, Any]:
    return {k: serialize_keras_object(v) for k, v in config.items()}


def deserialize_keras_object(
    config: Any, custom_objects: dict[str, Any] | None = None, safe_mode: bool = True, **kwargs: Any
) -> Any:
    """The object that `serialize_keras_object` described.

    Args:
        config: its result.
        custom_objects: name -> class or function, for what dagrt does not have.
        safe_mode: kept for compatibility: code in a file is never run, whatever it says.

    Raises:
        ValueError: a lambda, or a config that is not an object's.
        TypeError: a class that is unknown here; the message says how to register it.
    """
    if config is None or isinstance(config, (bool, int, float, str)):
        return config
    if isinstance(config, (list, tuple)):
        return [deserialize_keras_object(c, custom_objects, safe_mode) for c in config]
    if not isinstance(config, dict):
        raise ValueError(f"Cannot deserialize {config!r}: expected a dict, got {type(config).__name__}")
    if "class_name" not in config or "config" not in config:
        return {k: deserialize_keras_object(v, custom_objects, safe_mode) for k, v in config.items()}
    name, inner = config["class_name"], config["config"]
    plain = _deserialize_plain(name, inner, custom_objects, safe_mode)
    if plain is not _NOT_PLAIN:
        return plain
    if name == "function":
        return _find_function(inner, config, custom_objects)
    cls = find_class(config, custom_objects)
    if inner is None:
        return cls
    if not hasattr(cls, "from_config"):
        raise TypeError(f"Cannot deserialize {name!r}: the class {cls} has no from_config method")
    scope = registry.custom_object_scope(custom_objects or {})
    with scope:
        obj = cls.from_config(inner)
        build = config.get("build_config")
        if build and hasattr(obj, "build_from_config") and not getattr(obj, "built", False):
            obj.build_from_config(build)
        compiled = config.get("compile_config")
        if compiled and hasattr(obj, "compile_from_config"):
            obj.compile_from_config(compiled)
    return obj


_NOT_PLAIN = object()


def _deserialize_plain(name: str, inner: Any, custom_objects: Any, safe_mode: bool) -> Any:
    if name == "__numpy__":
        return np.array(inner["value"], dtype=inner["dtype"])
    if name == "__tensor__":
        from dagrt import ops

        return ops.convert_to_tensor(np.array(inner["value"]), dtype=inner["dtype"])
    if name == "__bytes__":
        return inner["value"].encode()
    if name == "__slice__":
        return slice(
            *(deserialize_keras_object(inner.get(k), custom_objects, safe_mode) for k in ("start", "stop", "step"))
        )
    if name == "__ellipsis__":
        return Ellipsis
    if name == "__lambda__":
        raise ValueError(
            "The file holds a Python lambda. dagrt runs no code from files: define the function, register it with "
            "dagrt.saving.register_keras_serializable(), and save the model again."
        )
    if name == "__typespec__":
        raise ValueError("The file holds a TensorFlow type specification, which dagrt cannot use")
    return _NOT_PLAIN


def _find_function(name: Any, config: dict, custom_objects: Any) -> Any:
    if not isinstance(name, str):
        raise ValueError(f"Cannot deserialize a function from {name!r}")
    found = registry.get_registered_object(config.get("registered_name") or name, custom_objects)
    if found is None:
        found = registry.get_registered_object(name, custom_objects)
    if found is not None:
        return found
    for module in ("dagrt.activations", "dagrt.losses", "dagrt.metrics"):
        candidate = getattr(importlib.import_module(module), name, None)
        if callable(candidate) and not name.startswith("_"):
            return candidate
    raise TypeError(
        f"Could not find the function {name!r}. Register it with @dagrt.saving.register_keras_serializable(), or give "
        f"custom_objects={{{name!r}: ...}}."
    )


def find_class(config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Any:
    """The class that a serialized object names, from the caller's objects or dagrt's own modules.

    Raises:
        TypeError: there is none; the message says how to register it.
    """
    name = config["class_name"]
    for candidate in (config.get("registered_name"), name):
        if candidate:
            found = registry.get_registered_object(str(candidate), custom_objects)
            if found is not None:
                return found
    module = config.get("module") or ""
    own = {theirs: ours for ours, theirs in _PUBLIC_MODULES.items()}
    places = [own[module]] if module in own else []
    if name == "DTypePolicy":
        places = ["dagrt.layers.layer"]
    if name in ("Functional", "Sequential", "Model"):
        places = ["dagrt.models"]
    places += [p for p in _PUBLIC_MODULES if p not in places]
    if module.startswith("keras") or not module:
        for place in places:
            found = getattr(importlib.import_module(place), _ALIASES.get(name, name), None)
            if isinstance(found, type):
                return found
    raise TypeError(
        f"Could not find the class {name!r} (module {module!r}). If it is yours, register it with "
        f"@dagrt.saving.register_keras_serializable() or give custom_objects={{{name!r}: {name}}} to load_model. "
        "If it is Keras's, dagrt does not have it yet."
    )
