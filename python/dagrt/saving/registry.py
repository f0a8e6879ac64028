"""Custom classes and functions by name, for files that mention them."""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

_GLOBAL: dict[str, Any] = {}
_NAMES: dict[Any, str] = {}
_scopes = threading.local()


def register_keras_serializable(package: str = "Custom", name: str | None = None) -> Callable:
    """Decorator: lets files name a class or function of yours, so that `load_model` finds it.

    Args:
        package: prefix of the registered name.
        name: by default the class's or function's own.

    Raises:
        ValueError: a class without `get_config`.

    Example:
        >>> import dagrt
        >>> @dagrt.saving.register_keras_serializable(package="shop")
        ... def double(x):
        ...     return 2 * x
        >>> dagrt.saving.get_registered_name(double)
        'shop>double'
    """

    def decorate(thing: Any) -> Any:
        if inspect.isclass(thing) and not hasattr(thing, "get_config"):
            raise ValueError(f"register_keras_serializable: {thing.__name__} needs a get_config method")
        full = f"{package}>{name or thing.__name__}"
        _GLOBAL[full] = thing
        _NAMES[thing] = full
        return thing

    return decorate


def get_registered_name(obj: Any) -> str:
    """The registered name of a class or function, or its own name.

    Args:
        obj: class or function.
    """
    try:
        return _NAMES.get(obj) or obj.__name__
    except TypeError:
        return obj.__name__


def is_registered(obj: Any) -> bool:
    try:
        return obj in _NAMES
    except TypeError:
        return False


def get_custom_objects() -> dict[str, Any]:
    """The process-wide dict of custom objects; add to it, or use `custom_object_scope`."""
    return _GLOBAL


def get_registered_object(name: str, custom_objects: dict | None = None, module_objects: dict | None = None) -> Any:
    """The object of that name in the scopes, the given dicts or the registry; None where there is none.

    Args:
        name: registered name, with or without its package.
        custom_objects: dict that is looked into first.
        module_objects: dict that is looked into last.
    """
    for table in (custom_objects, *reversed(getattr(_scopes, "stack", [])), _GLOBAL, module_objects):
        if not table:
            continue
        if name in table:
            return table[name]
        short = name.split(">")[-1]
        if short in table:
            return table[short]
    return None


@contextlib.contextmanager
def custom_object_scope(custom_objects: dict[str, Any]) -> Iterator[None]:
    """Makes custom objects known by name inside a `with` block.

    Args:
        custom_objects: dict of names to classes and functions.
    """
    stack = _scopes.__dict__.setdefault("stack", [])
    stack.append(dict(custom_objects))
    try:
        yield
    finally:
        stack.pop()


CustomObjectScope = custom_object_scope
