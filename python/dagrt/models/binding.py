"""Binds data to the inputs of a Functional model: dicts by name, lists by position, never by accident."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import numpy as np

from dagrt.tensor import KerasTensor, Tensor
from dagrt.tracing import numpy_dtype

Leaf = Callable[[KerasTensor, Any, str, str], Any]


def input_names(struct: Any) -> list[str]:
    """Names of the inputs, in the order of declaration."""
    if isinstance(struct, dict):
        return [str(k) for k in struct]
    if isinstance(struct, (list, tuple)):
        return [n for s in struct for n in input_names(s)]
    return [_name(struct)]


def _name(t: KerasTensor) -> str:
    return t._keras_history[0].name


def bind(struct: Any, given: Any, who: str, leaf: Leaf) -> Any:
    """`given` in the structure of the model's inputs, each value passed through `leaf`.

    Raises:
        ValueError: missing, unknown or superfluous inputs; the message names them.
    """
    if isinstance(struct, KerasTensor):
        name = _name(struct)
        if isinstance(given, dict):
            given = _by_name(given, [name], who)[0]
        elif isinstance(given, (list, tuple)) and len(given) == 1 and _is_tensor_like(given[0]):
            given = given[0]
        elif (
            isinstance(given, (list, tuple))
            and given
            and all(_is_tensor_like(g) and getattr(g, "ndim", 0) for g in given)
        ):
            raise ValueError(f"{who}: expected 1 input ({name!r}), got a list of {len(given)} tensors")
        return leaf(struct, given, name, who)
    if isinstance(struct, dict):
        keys = list(struct)
        if isinstance(given, dict):
            values = _by_name(given, [str(k) for k in keys], who, [_leaf_name(struct[k]) for k in keys])
        else:
            values = _by_position(given, len(keys), [str(k) for k in keys], who)
        return {k: bind(struct[k], v, who, leaf) for k, v in zip(keys, values)}
    if isinstance(given, dict):
        flat = _flatten(struct)
        values = iter(_by_name(given, [_name(t) for t in flat], who))
        return _map(struct, lambda t: leaf(t, next(values), _name(t), who))
    values = _by_position(given, len(struct), [_leaf_name(s) or f"input {i}" for i, s in enumerate(struct)], who)
    bound = [bind(s, v, who, leaf) for s, v in zip(struct, values)]
    return type(struct)(bound) if type(struct) in (list, tuple) else bound


def _leaf_name(struct: Any) -> str:
    return _name(struct) if isinstance(struct, KerasTensor) else ""


def _flatten(struct: Any) -> list[KerasTensor]:
    if isinstance(struct, KerasTensor):
        return [struct]
    return [t for s in (struct.values() if isinstance(struct, dict) else struct) for t in _flatten(s)]


def _map(struct: Any, fn: Callable) -> Any:
    if isinstance(struct, KerasTensor):
        return fn(struct)
    if isinstance(struct, dict):
        return {k: _map(s, fn) for k, s in struct.items()}
    return type(struct)([_map(s, fn) for s in struct])


def _by_name(given: dict, names: list[str], who: str, other_names: list[str] | None = None) -> list[Any]:
    others = other_names or [""] * len(names)
    known = {*names, *(o for o in others if o)}
    unknown = [k for k in given if str(k) not in known]
    if unknown:
        near = difflib.get_close_matches(str(unknown[0]), names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{who}: unknown input {unknown[0]!r}; the model's inputs are {names}.{hint}")
    values = []
    for name, other in zip(names, others):
        if name in given:
            values.append(given[name])
        elif other and other in given:
            values.append(given[other])
        else:
            raise ValueError(f"{who}: missing input {name!r}; the model's inputs are {names}, got {list(given)}")
    return values


def _by_position(given: Any, count: int, names: list[str], who: str) -> list[Any]:
    if not isinstance(given, (list, tuple)):
        if count == 1:
            return [given]
        raise ValueError(f"{who}: expected {count} inputs {names}, got a single {type(given).__name__}")
    if len(given) != count:
        raise ValueError(f"{who}: expected {count} inputs {names}, got {len(given)}")
    return list(given)


def _is_tensor_like(value: Any) -> bool:
    return isinstance(value, Tensor) or hasattr(value, "__array__")


def _repaired(spec: KerasTensor, value: Any, name: str, who: str) -> Any:
    """Rank as declared: a trailing axis of size 1 is added or dropped. Then sizes are checked."""
    want, have = spec.shape, tuple(value.shape)
    if len(have) == len(want) - 1 and want[-1] == 1:
        value = value[..., None] if not isinstance(value, Tensor) else _expanded(value)
    elif len(have) == len(want) + 1 and have[-1] == 1:
        value = value[..., 0] if not isinstance(value, Tensor) else _squeezed(value)
    have = tuple(value.shape)
    fits = len(have) == len(want) and all(
        w is None or not isinstance(h, (int, np.integer)) or h == w for w, h in zip(want[1:], have[1:])
    )
    if fits and want and want[0] is not None and isinstance(have[0], (int, np.integer)):
        fits = have[0] == want[0]
    if not fits:
        raise ValueError(f"{who}: input {name!r}: expected shape {want}, got {have}")
    return value


def _expanded(value: Tensor) -> Tensor:
    from dagrt import ops

    return ops.expand_dims(value, -1)


def _squeezed(value: Tensor) -> Tensor:
    from dagrt import ops

    return ops.squeeze(value, -1)


def tensor_leaf(spec: KerasTensor, value: Any, name: str, who: str) -> Any:
    """For calls of the model: tensors of any kind, arrays, numbers."""
    from dagrt import ops

    if value is None:
        return _missing(spec, name, who)
    if not isinstance(value, Tensor):
        value = ops.convert_to_tensor(_array(value, name, who))
    fixed = _repaired(spec, value, name, who)
    if fixed.dtype != spec.dtype:
        fixed = ops.cast(fixed, spec.dtype)
    mask = getattr(value, "_keras_mask", None)
    if mask is not None and fixed is not value:
        fixed._keras_mask = mask
    return fixed


def array_leaf(spec: KerasTensor, value: Any, name: str, who: str) -> Any:
    """For training and prediction: NumPy arrays."""
    if value is None:
        return _missing(spec, name, who)
    array = _repaired(spec, _array(value, name, who), name, who)
    if array.dtype.name != spec.dtype:
        if spec.dtype in ("int32", "int64", "uint8") and array.dtype.kind == "f" and array.size:
            _check_whole(array, spec.dtype, name, who)
        array = array.astype(numpy_dtype(spec.dtype))
    return array


def _missing(spec: KerasTensor, name: str, who: str) -> None:
    if not spec._keras_history[0].optional:
        raise ValueError(f"{who}: missing input {name!r}: got None for shape {spec.shape}")


def _array(value: Any, name: str, who: str) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "fiub" and array.dtype.name not in ("bfloat16",):
        raise TypeError(f"{who}: input {name!r}: expected numbers, got an array of {array.dtype}")
    return array


def _check_whole(array: np.ndarray, dtype: str, name: str, who: str) -> None:
    if not np.isfinite(array).all():
        raise ValueError(f"{who}: input {name!r} is {dtype}, got NaN or infinity")
