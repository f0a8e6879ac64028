"""`model.weights.h5` in Keras 3's layout: groups by attribute path and class name, variables as `vars/<i>`.

Reading is in two passes: every array is found and its shape checked first, then all are assigned, so that a file that
does not fit leaves the model as it was.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dagrt.saving.atomic import refuse_overwrite, replacing


def h5py_module() -> Any:
    try:
        import h5py
    except ImportError:
        raise ImportError(
            "Keras's weight files are HDF5, which needs h5py: pip install h5py (or pip install 'dagrt-runtime[files]'). "
            "model.export('m.dagrt') needs nothing."
        ) from None
    return h5py


def save_weights(
    model: Any, filepath: Any, overwrite: bool = True, max_shard_size: float | None = None, **kwargs: Any
) -> None:
    """Writes all variables of a model (and its optimiser) to `*.weights.h5`, atomically.

    Raises:
        ValueError: another ending, a model that is not built, or a shard size (one file is written).
        FileExistsError: the file exists and `overwrite` is False.
    """
    path = os.fspath(filepath)
    if not path.endswith(".weights.h5"):
        raise ValueError(f"save_weights: the filename must end in '.weights.h5', got {path!r}")
    if max_shard_size is not None:
        raise ValueError("save_weights: sharded files can be read but not written; leave max_shard_size out")
    if not model.built:
        raise ValueError(f"save_weights: {model.name} has no weights yet; call it on data or build() it first")
    refuse_overwrite(path, overwrite)
    with replacing(path) as temporary:
        write_h5(model, temporary)


def load_weights(model: Any, filepath: Any, skip_mismatch: bool = False, **kwargs: Any) -> None:
    """Reads variables from `*.weights.h5` (or the weights inside a `.keras` file, or a sharded `*.weights.json`).

    Args:
        skip_mismatch: leave variables that are missing in the file or have another shape as they are, with a warning.

    Raises:
        ValueError: the file does not fit the model; nothing was changed.
    """
    path = os.fspath(filepath)
    if not os.path.exists(path):
        raise FileNotFoundError(f"load_weights: there is no file {path!r}")
    if path.endswith(".keras"):
        from dagrt.saving.keras_file import load_weights_from_archive

        load_weights_from_archive(model, path, skip_mismatch)
        return
    if not path.endswith((".weights.h5", ".weights.json", ".h5", ".hdf5")):
        raise ValueError(
            f"load_weights: expected a file ending in '.weights.h5', '.weights.json' or '.keras', got {path!r}"
        )
    if not model.built:
        raise ValueError(f"load_weights: {model.name} has no weights yet; call it on data or build() it first")
    read_h5(model, path, skip_mismatch)


# --- what is saved, and where --------------------------------------------------------------------------------------


def _snake(name: str) -> str:
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _has_state(value: Any) -> bool:
    return hasattr(value, "save_own_variables") and not isinstance(value, type)


def _reference_attributes(obj: Any) -> frozenset[str]:
    """Attribute names that every layer, optimiser or metric has: they lead to no children."""
    from dagrt.layers.layer import Layer
    from dagrt.metrics import Metric
    from dagrt.models import Functional, Sequential
    from dagrt.models.model import Model
    from dagrt.optimizers.optimizer import Optimizer

    for base in (Functional, Sequential, Model, Layer, Metric, Optimizer):
        if isinstance(obj, base):
            names = _REFERENCE.get(base)
            if names is None:
                names = set(dir(base)) - {"optimizer"}
                if base is Layer:
                    names |= set(vars(Layer()))
                elif issubclass(base, Layer):
                    names |= set(vars(Layer())) - {"optimizer"}
                names = _REFERENCE[base] = frozenset(names)
            return names
    return frozenset()


_REFERENCE: dict[type, frozenset[str]] = {}
# Bookkeeping of models: what it holds is reached as layers, optimizer or the user's attributes.
_INTERNAL = {
    "_operations",
    "_layers",
    "_nodes",
    "_inputs_struct",
    "_outputs_struct",
    "_steps",
    "_compile_loss",
    "_compile_metrics",
    "_loss_tracker",
    "_trainable_snapshot",
    "history",
    "metrics",
    "loss",
    "loss_weights",
    "_functional",
    "_inbound_nodes",
    "_outbound_nodes",
    "_compile_config",
    "_metrics",
    "inputs",
    "outputs",
    "_inputs",
    "_outputs",
}


def _children(obj: Any) -> Iterator[tuple[str, Any]]:
    from dagrt.models import Functional, Sequential

    if isinstance(obj, (Functional, Sequential)):
        yield "layers", [l for l in obj.layers]
    skip = _reference_attributes(obj)
    names = [n for n in dir(obj) if not n.startswith("__") and n not in skip and n not in _INTERNAL]
    for name in sorted(names, key=lambda n: "~" + n if n.startswith("_") else n):
        try:
            yield name, getattr(obj, name)
        except Exception:  # a property that needs more than there is
            continue


def walk(obj: Any, path: str = "", visited: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """All objects with variables of their own, with their places in the file."""
    visited = set() if visited is None else visited
    if id(obj) in visited:
        return
    visited.add(id(obj))
    yield path, obj
    for name, child in _children(obj):
        below = f"{path}/{name}" if path else name
        if _has_state(child):
            yield from walk(child, below, visited)
        elif isinstance(child, (list, tuple, dict)):
            yield from _walk_container(child, below, visited, set())


def _walk_container(container: Any, path: str, visited: set[int], seen: set[int]) -> Iterator[tuple[str, Any]]:
    if id(container) in seen:
        return
    seen.add(id(container))
    used: dict[str, int] = {}
    for item in container.values() if isinstance(container, dict) else container:
        if _has_state(item):
            base = _snake(type(item).__name__)
        elif isinstance(item, (list, tuple, dict)):
            base = "container"
        else:
            continue
        name = base if base not in used else f"{base}_{used[base]}"
        used[base] = used.get(base, 0) + 1
        if _has_state(item):
            yield from walk(item, f"{path}/{name}", visited)
        else:
            yield from _walk_container(item, f"{path}/{name}", visited, seen)


def own_variables(obj: Any) -> dict[str, np.ndarray]:
    """What an object's `save_own_variables` puts into its store."""
    store: dict[str, Any] = {}
    obj.save_own_variables(store)
    return {k: np.asarray(v.numpy() if hasattr(v, "numpy") else v) for k, v in store.items()}


# --- writing -------------------------------------------------------------------------------------------------------


def write_h5(model: Any, target: Any) -> None:
    """Writes to a path or a file-like object."""
    h5py = h5py_module()
    with h5py.File(target, "w") as f:
        for path, obj in walk(model):
            group = f.require_group(f"{path}/vars" if path else "vars")
            if isinstance(getattr(obj, "name", None), str):
                group.attrs["name"] = obj.name
            for key, value in own_variables(obj).items():
                if value.dtype.name == "bfloat16":  # HDF5 has no such type: two bytes, named by an attribute
                    group.create_dataset(key, data=value.view("uint16")).attrs["dtype"] = "bfloat16"
                else:
                    group.create_dataset(key, data=value)


# --- reading -------------------------------------------------------------------------------------------------------


def _sorted_by_number(keys: Any) -> list[str]:
    return sorted(keys, key=lambda k: (0, int(k), "") if k.isdigit() else (1, 0, k))


class _Files:
    """One HDF5 file, or several shards with a map from group to file."""

    def __init__(self, source: Any) -> None:
        h5py = h5py_module()
        self.handles: list[Any] = []
        self._open: Callable[[Any], Any] = lambda p: h5py.File(p, "r")
        try:
            if isinstance(source, str) and source.endswith(".weights.json"):
                with open(source) as f:
                    weight_map = json.load(f)["weight_map"]
                folder = os.path.dirname(source)
                names = sorted({n for v in weight_map.values() for n in ([v] if isinstance(v, str) else v)})
                self.handles = [self._open(os.path.join(folder, os.path.basename(n))) for n in names]
            else:
                self.handles = [self._open(source)]
        except (OSError, KeyError, json.JSONDecodeError) as e:
            self.close()
            raise ValueError(f"{source!r} is not a readable weights file: {e}") from None

    def group(self, path: str) -> dict[str, Any]:
        """Datasets of `path/vars` as arrays."""
        found: dict[str, Any] = {}
        where = f"{path}/vars" if path else "vars"
        for f in self.handles:
            for place in (where, "_layer_checkpoint_dependencies" + where.removeprefix("layers")):
                if place in f:
                    g = f[place]
                    for key in g:
                        value = np.asarray(g[key])
                        if g[key].attrs.get("dtype") == "bfloat16":
                            value = (value.astype("uint32") << 16).view("float32")
                        found[key] = value
                    break
        return {k: found[k] for k in _sorted_by_number(found)}

    def close(self) -> None:
        for f in self.handles:
            f.close()


def read_h5(model: Any, source: Any, skip_mismatch: bool = False, with_optimizer: bool = True) -> None:
    """Reads a path or file-like object into a built model; all or nothing."""
    import warnings

    files = _Files(source)
    plan: list[tuple[Any, dict[str, np.ndarray]]] = []
    problems: list[str] = []
    try:
        for path, obj in walk(model):
            optimizer = path == "optimizer" or path.startswith("optimizer/")
            if optimizer and not with_optimizer:
                continue
            have = files.group(path)
            if optimizer and not have:
                continue
            if optimizer and not getattr(obj, "built", True):
                obj.build(model.trainable_variables)
            want = own_variables(obj)
            who = getattr(obj, "name", path) or path
            if set(have) != set(want):
                problems.append(f"{who} at '{path}': expected {len(want)} variables, the file has {len(have)}")
                continue
            wrong = [k for k in want if want[k].shape != have[k].shape]
            if wrong:
                problems.append(
                    f"{who} at '{path}/vars/{wrong[0]}': expected shape {want[wrong[0]].shape}, "
                    f"the file has {have[wrong[0]].shape}"
                )
                continue
            if want:
                plan.append((obj, have))
    finally:
        files.close()
    if problems and not skip_mismatch:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ValueError(f"The weights do not fit {model.name}; nothing was changed. {problems[0]}{more}")
    if problems:
        warnings.warn("skip_mismatch: left as they were: " + "; ".join(problems), stacklevel=3)
    for obj, values in plan:
        obj.load_own_variables(values)
