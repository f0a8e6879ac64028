"""One traced step of a model: finds or makes the program for a batch, feeds it and packs its results.

A trace is kept for each structure, dtypes and ranks of (x, y, sample_weight). Axis 0 of every argument is unknown in
it, as are the axes that the model's Inputs leave open. Another axis that is seen to vary is traced once more as
unknown. Programs for the numbers behind the unknown axes are C++'s to cache.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dagrt import _core, tree
from dagrt.tracing import no_fast_call


class Prepared:
    """A batch bound to its program."""

    __slots__ = ("_arrays", "_traced", "pack")

    def __init__(self, traced: Any, arrays: list[np.ndarray], pack: Callable) -> None:
        self._traced, self._arrays, self.pack = traced, arrays, pack

    def epoch(self, arrays: list[np.ndarray], plan: Any, into: list[np.ndarray]) -> Any:
        """The steps over all rows, run in C++; `plan` as ArrayAdapter.plan gives it."""
        starts, batch, order = plan
        return _core.Epoch(self._traced._core, arrays, starts, batch, order, into)

    def same_types(self, arrays: list[np.ndarray]) -> bool:
        """Whether these have the bound batch's types, apart from the number of rows."""
        return len(arrays) == len(self._arrays) and all(
            a.dtype == b.dtype and a.ndim == b.ndim and a.shape[1:] == b.shape[1:] for a, b in zip(arrays, self._arrays)
        )

    def output_index(self, name: str) -> int:
        """Which output the results' entry of that name is; -1 where there is none."""
        structure = self._traced.structure
        found = structure.get(name) if isinstance(structure, dict) else None
        return getattr(found, "index", -1)

    def output_types(self) -> list[tuple[str, tuple[int, ...]]]:
        return self._traced.output_types([a.shape for a in self._arrays])

    def run(self, out: list[np.ndarray] | None = None) -> Any:
        return self.pack(self._traced.run(self._arrays, out))


class StepFunction:
    """`train_step`, `test_step` or `predict_step` of a model, compiled."""

    def __init__(self, model: Any, mode: str) -> None:
        self._model = model
        self._mode = mode
        self._traces: dict[Any, tuple[list[tuple], Any]] = {}
        self._lock = threading.RLock()
        self._called: Any = None  # the program that `fast` calls
        self.fast: Callable = no_fast_call
        self.names: list[str] = []  # of what `fast` gives for the train and test modes

    def __call__(self, batch: tuple[Any, Any, Any]) -> Any:
        return self.prepare(batch).run()

    def _make_fast(self, batch: tuple[Any, Any, Any], shapes: list[tuple], program: Any) -> None:
        """Makes `fast`: it takes x, y and sample_weight (without those that are absent) as the user gives them, and answers
        NotImplemented where they are not just arrays of the types that were traced."""
        self._called = program
        self.fast = no_fast_call
        groups = [self._model._input_group(batch[0])]
        groups += [_group(part) for part in batch[1:] if part is not None]
        if None in groups:
            return
        arrays = tree.flatten(batch)
        inputs = [(a.dtype.name, s) for a, s in zip((a for a in arrays if a is not None), shapes)]
        form, results, names = program.form()
        if self._mode != "predict":
            if form != "dict":
                return
            form = "numbers"
        if form is None:
            return
        caller = _core.make_caller(program._core, groups, inputs, form, results, names)
        if caller is not None:
            self.names, self.fast = names, caller

    def prepare(self, batch: tuple[Any, Any, Any]) -> Prepared:
        batch = self._model._bind_batch(batch)
        arrays: list[np.ndarray] = tree.flatten(batch)
        arrays = [a for a in arrays if a is not None]
        structure = tree.structure_key(batch)
        key = (structure, tuple((a.dtype.num, a.ndim) for a in arrays))
        known = self._traces.get(key)
        if known is not None and not self._model.run_eagerly:
            shapes, traced = known
            if all(_fits(a.shape, s) for a, s in zip(arrays, shapes)):
                if self._called is not traced:
                    self._make_fast(batch, shapes, traced)
                return Prepared(traced, arrays, traced.pack)
        with self._lock:
            return self._trace(key, batch, arrays)

    def _trace(self, key: Any, batch: Any, arrays: list[np.ndarray]) -> Prepared:
        from dagrt import tracing

        known = self._traces.get(key)
        shapes = [s for s in known[0]] if known is not None else self._first_shapes(batch)
        shapes = [tuple(d if d is None or d == n else None for d, n in zip(s, a.shape)) for s, a in zip(shapes, arrays)]
        specs = iter([tracing.InputSpec(s, a.dtype.name) for s, a in zip(shapes, arrays)])
        spec_batch = tree.map_structure(lambda a: None if a is None else next(specs), batch)
        model = self._model
        if self._mode != "predict":
            with _flags_as_compiled(model):
                traced = tracing.trace_to_module(self._run_step, spec_batch)
        else:
            traced = tracing.trace_to_module(self._run_step, spec_batch)
        program = traced.compile(device=model._device)
        self._traces[key] = (shapes, program)
        return Prepared(program, arrays, program.pack)

    def _first_shapes(self, batch: Any) -> list[tuple]:
        """Axis 0 unknown everywhere; for x also what the model's Inputs leave open."""
        x, y, sample_weight = batch
        flat_x = [a for a in tree.flatten(x) if a is not None]
        declared = self._model._declared_input_shapes()
        shapes = []
        for i, a in enumerate(flat_x):
            s = declared[i] if declared is not None and i < len(declared) else None
            if s is not None and len(s) == a.ndim:
                shapes.append(tuple(None if axis == 0 or s[axis] is None else n for axis, n in enumerate(a.shape)))
            else:
                shapes.append((None, *a.shape[1:]) if a.ndim else ())
        for part in (y, sample_weight):
            shapes += [(None, *a.shape[1:]) if a.ndim else () for a in tree.flatten(part) if a is not None]
        return shapes

    def _run_step(self, x: Any, y: Any, sample_weight: Any) -> Any:
        """What is traced: the model's step, and the guard that a NaN loss stores nothing."""
        from dagrt import ops, tracing

        model = self._model
        if self._mode == "predict":
            return model.predict_step((x,))
        data = (x,) if y is None else (x, y) if sample_weight is None else (x, y, sample_weight)
        if self._mode == "test":
            return model.test_step(data)
        logs = model.train_step(data)
        losses = tracing.differentiated_losses()
        if losses:
            good = ops.logical_not(ops.isnan(losses[0]))
            for other in losses[1:]:
                good = ops.logical_and(good, ops.logical_not(ops.isnan(other)))
            tracing.store_guard(good)
        return logs


def _group(part: Any) -> Any:
    """How a Caller finds the arrays of an argument: the forms it may have, positions, keys. None: it cannot."""
    if isinstance(part, np.ndarray):
        return "leaf", [0], []
    if not all(isinstance(a, np.ndarray) for a in (part.values() if isinstance(part, dict) else part)):
        return None
    if isinstance(part, dict):
        keys = sorted(part)
        return "dict", list(range(len(keys))), keys
    if type(part) in (list, tuple):
        return type(part).__name__, list(range(len(part))), []
    return None


def _fits(shape: tuple[int, ...], spec: tuple) -> bool:
    return all(s is None or s == n for s, n in zip(spec, shape))


@contextlib.contextmanager
def _flags_as_compiled(model: Any) -> Iterator[None]:
    """While a step is traced, `trainable` is what it was at `compile` (a GAN's discriminator, frozen afterwards for
    the combined model, still trains by its own)."""
    if not model.built or model._trainable_snapshot is None:
        yield
        return
    changed = []
    for thing, flag in model._trainable_snapshot.values():
        name = "_trainable" if hasattr(thing, "_trainable") else "trainable"
        now = getattr(thing, name)
        if now != flag:
            changed.append((thing, name, now))
            setattr(thing, name, flag)
    try:
        yield
    finally:
        for thing, name, now in changed:
            setattr(thing, name, now)
