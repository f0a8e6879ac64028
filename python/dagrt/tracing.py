"""Tracing: Python that runs on symbols and leaves a module behind.

A `Trace` is one run of a Python function on TracedTensors; every op it calls becomes a node of a module, in the JSON
form of docs/boundary.md. State is functional in it: a variable has a current value, `assign` binds another, and what it
holds in the end is stored once. Contexts are a stack of their own for each thread.
"""

from __future__ import annotations

import contextlib
import json
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dagrt import _config, _core, tree
from dagrt.tensor import EagerTensor, KerasTensor, Tensor, TracedTensor, dtype_name
from dagrt.variable import Variable

_INLINE = 16  # constants of up to so many equal elements become `full`


class _Context(threading.local):
    def __init__(self) -> None:
        self.traces: list[Trace | None] = []  # None: outside, within a trace
        self.paths: list[str] = []
        self.training: list[bool | None] = []
        self.conditions: list[Any] = []
        self.autocast: list[str | None] = []


_context = _Context()


class InputSpec:
    """Type of one argument of a traced function: sizes (None where they vary), dtype and name.

    Axes that are None are sizes of their own; with `batch` (as in models' steps) all first axes are one size.
    """

    __slots__ = ("dtype", "name", "shape")

    def __init__(self, shape: Any, dtype: str = "float32", name: str | None = None) -> None:
        self.shape, self.dtype, self.name = tuple(shape), str(dtype), name

    def __repr__(self) -> str:
        return f"InputSpec(shape={self.shape}, dtype={self.dtype!r}, name={self.name!r})"


class _Node:
    __slots__ = ("attrs", "inputs", "op", "outputs", "path")

    def __init__(self, op: str, inputs: list[Any], outputs: list[TracedTensor], attrs: dict, path: str) -> None:
        self.op, self.inputs, self.outputs, self.attrs, self.path = op, inputs, outputs, attrs, path


class _Scope:
    """One function of the module on its way: the entry, or the body of a scan."""

    def __init__(self, trace: Trace, name: str, parent: _Scope | None) -> None:
        self.trace, self.name, self.parent = trace, name, parent
        self.inputs: list[tuple[str, TracedTensor]] = []
        self.captured: dict[int, tuple[TracedTensor, TracedTensor]] = {}  # outer value -> (itself, our input)
        self.nodes: list[_Node] = []
        self.outputs: list[TracedTensor] = []
        self.constants: dict[Any, TracedTensor] = {}
        self._step: TracedTensor | None = None

    def step(self) -> TracedTensor:
        """In the body of a scan: the number of the step, its last input."""
        if self._step is None:
            self._step = TracedTensor(self, "int32", ())
        return self._step

    def add_input(self, name: str, dtype: str, dims: tuple) -> TracedTensor:
        t = TracedTensor(self, dtype, dims)
        self.inputs.append((name, t))
        return t

    def local(self, t: TracedTensor) -> TracedTensor:
        """The value as seen here: itself, or an input through which an outer one is captured."""
        if t.scope is self:
            return t
        if self.parent is None or not self._is_around(t.scope):
            raise _core.GraphError(
                "A value of one traced function was used in another; return it from the first and pass it to the second, "
                "or keep it in a Variable"
            )
        known = self.captured.get(id(t))
        if known is None:
            self.parent.local(t)
            known = self.captured[id(t)] = (t, TracedTensor(self, t.dtype, t.dims))
        return known[1]

    def _is_around(self, scope: Any) -> bool:
        s = self.parent
        while s is not None:
            if s is scope:
                return True
            s = s.parent
        return False

    def to_json(self) -> tuple[dict[str, Any], dict[int, int]]:
        """The function as the boundary says it, and the number of each value."""
        ids: dict[int, int] = {}
        inputs = list(self.inputs)
        for _, t in inputs:
            ids[id(t)] = len(ids)
        nodes = []
        for n in self.nodes:
            for t in n.outputs:
                ids[id(t)] = len(ids)
            nodes.append(
                {
                    "op": n.op,
                    "in": [-1 if t is None else ids[id(t)] for t in n.inputs],
                    "out": [ids[id(t)] for t in n.outputs],
                    "attrs": {k: _plain(v) for k, v in n.attrs.items()},
                    "path": n.path,
                }
            )
        return {
            "inputs": [{"name": name, "dtype": t.dtype, "shape": [_plain(d) for d in t.dims]} for name, t in inputs],
            "nodes": nodes,
            "outputs": [ids[id(t)] for t in self.outputs],
            "output_names": [""] * len(self.outputs),
            "stores": [],
            "guard": None,
        }, ids


def _plain(value: Any) -> Any:
    """An attribute as JSON says it."""
    if isinstance(value, _core.Dim):
        return value.to_json()
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.bool_,)):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, (float, np.floating)):
        value = float(value)
        if not np.isfinite(value):
            return "nan" if value != value else "inf" if value > 0 else "-inf"
    return value


class Trace:
    """One function being traced."""

    def __init__(self, scratch: bool = False) -> None:
        self.scratch = scratch
        self.main = _Scope(self, "main", None)
        self.scope = self.main
        self.bodies: list[_Scope] = []
        self.variables: list[Variable] = []
        self._numbers: dict[int, int] = {}  # core variable -> its place
        self._values: dict[int, TracedTensor] = {}  # variable's current value
        self._history: dict[int, list[TracedTensor]] = {}  # all values it had here
        self._assigned: dict[int, Variable] = {}
        self._guard: TracedTensor | None = None
        self._producers: dict[int, _Node] = {}
        self.losses: list[TracedTensor] = []
        self.constant_arrays: list[np.ndarray] = []
        self.allow_variables = True
        self.streams: dict[int, int] = {}  # of seed generators: calls in this trace
        self.random_states: dict[int, TracedTensor] = {}
        self.keep: list[Any] = []

    # --- ops -----------------------------------------------------------------------------------------------------

    def emit(self, op: str, inputs: list[Any], attrs: dict[str, Any]) -> list[TracedTensor]:
        """Adds a node; its outputs' types come from C++."""
        scope = self.scope
        inputs = [None if t is None else scope.local(t) for t in inputs]
        types = _core.infer(op, attrs, [None if t is None else (t.dtype, t.dims) for t in inputs])
        return self._add(scope, op, inputs, types, attrs)

    def _add(self, scope: _Scope, op: str, inputs: list[Any], types: list, attrs: dict) -> list[TracedTensor]:
        outputs = [TracedTensor(scope, dtype, tuple(dims)) for dtype, dims in types]
        node = _Node(op, inputs, outputs, attrs, current_path())
        scope.nodes.append(node)
        for t in outputs:
            self._producers[id(t)] = node
        return outputs

    def constant(self, array: np.ndarray) -> TracedTensor:
        """An array as a value of the program."""
        scope = self.scope
        if array.size and (array.size == 1 or (array.size <= _INLINE and (array == array.flat[0]).all())):
            value = array.flat[0].item()
            key = (array.dtype.name, array.shape, value, str(value))
            if array.dtype.kind in "iub" and abs(int(value)) > 2**53:
                key = None
        else:
            key = None
        if key is not None:
            if key not in scope.constants:
                attrs = {"shape": list(array.shape), "value": float(value), "dtype": array.dtype.name}
                scope.constants[key] = self.emit("full", [], attrs)[0]
            return scope.constants[key]
        self.constant_arrays.append(np.asarray(array, order="C"))
        index = len(self.constant_arrays) - 1
        return self._add(scope, "constant", [], [(array.dtype.name, array.shape)], {"index": index})[0]

    # --- variables -----------------------------------------------------------------------------------------------

    def number(self, v: Variable) -> int:
        n = self._numbers.get(id(v._core))
        if n is None:
            n = self._numbers[id(v._core)] = len(self.variables)
            self.variables.append(v)
        return n

    def read(self, v: Variable) -> TracedTensor:
        """The variable's value at this point of the trace."""
        key = id(v._core)
        value = self._values.get(key)
        if value is None:
            number = self.number(v)
            value = self._add(self.main, "read", [], [(v._core.dtype, tuple(v.shape))], {"variable": number})[0]
            self._values[key] = value
            self._history[key] = [value]
        return value

    def assign(self, v: Variable, x: Any, when: Any = None) -> TracedTensor:
        """Binds the variable to a new value; later reads see it, and the last one is stored."""
        from dagrt import ops

        if self.scope is not self.main:
            raise _core.GraphError(
                f"{v.path} was assigned inside the body of a scan; carry the value through the scan and assign the result"
            )
        x = ops.cast(ops.convert_to_tensor(x, v._core.dtype), v._core.dtype)
        if len(x.dims) != len(v.shape) or any(isinstance(d, int) and d != n for d, n in zip(x.dims, v.shape)):
            raise ValueError(f"{v.path}: assign expected shape {tuple(v.shape)}, got {x.shape}")
        if any(not isinstance(d, int) for d in x.dims):
            x = ops.reshape(x, tuple(v.shape))
        if when is not None:
            x = ops.select(when, x, self.read(v))
        if self.scratch:
            return x
        key = id(v._core)
        marked = self._add(
            self.main, "read", [self.main.local(x)], [(v._core.dtype, tuple(v.shape))], {"variable": self.number(v)}
        )[0]
        self._values[key] = marked
        self._history.setdefault(key, []).append(marked)
        self._assigned[key] = v
        return marked

    # --- gradients -----------------------------------------------------------------------------------------------

    def gradients(self, loss: Any, wrt: list[Any]) -> list[TracedTensor]:
        """One `gradients` node; a variable stands for the value of it that the loss was computed from."""
        from dagrt import ops

        loss = ops.convert_to_tensor(loss)
        if "float" not in loss.dtype or loss.dims:
            raise _core.GraphError(
                f"gradients: the loss must be a float scalar, got {loss.dtype} of shape {loss.shape}"
            )
        above = self._above(loss)
        values, unused = [], []
        for w in wrt:
            if not isinstance(w, Variable):
                values.append(ops.convert_to_tensor(w))
                continue
            current = self.read(w)
            history = self._history[id(w._core)]
            read = [t for t in history if id(t) in above]
            if len(read) > 1:
                raise _core.GraphError(
                    f"gradients: the loss was computed from two values of {w.path}, before and after it was assigned; "
                    "take the gradients before assigning, or differentiate with respect to one of the values"
                )
            if not read:
                unused.append(w.path)
            values.append(read[0] if read else current)
        if unused and not self.scratch:
            names = ", ".join(unused[:5]) + (" and others" if len(unused) > 5 else "")
            warnings.warn(f"Gradients are zero: the loss does not depend on {names}", stacklevel=4)
        if not self.scratch:
            self.losses.append(loss)
        inputs = [self.scope.local(t) for t in [loss, *values]]
        return self._add(self.scope, "gradients", inputs, [(t.dtype, t.dims) for t in values], {})

    def _above(self, loss: TracedTensor) -> set[int]:
        """Values that the loss depends on, up to variables' values."""
        found: set[int] = set()
        stack = [loss]
        outer = {id(inner): t for s in self.bodies for t, inner in s.captured.values()}
        while stack:
            t = stack.pop()
            if id(t) in found:
                continue
            found.add(id(t))
            if id(t) in outer:
                stack.append(outer[id(t)])
            node = self._producers.get(id(t))
            if node is None or node.op == "read":
                continue
            stack += [i for i in node.inputs if i is not None]
        return found

    # --- the module ----------------------------------------------------------------------------------------------

    def finish(self, outputs: list[TracedTensor]) -> dict[str, Any]:
        self.main.outputs = [self.main.local(t) for t in outputs]
        main, ids = self.main.to_json()
        for key in self._assigned:
            main["stores"].append({"variable": self._numbers[key], "value": ids[id(self._values[key])], "when": None})
        if self._guard is not None and main["stores"]:
            main["guard"] = ids[id(self._guard)]
        functions = {"main": main}
        functions.update({s.name: s.to_json()[0] for s in self.bodies})
        return {
            "format": "dagrt",
            "version": 1,
            "variables": [{"name": v.path, "dtype": v._core.dtype, "shape": list(v.shape)} for v in self.variables],
            "constants": [{"dtype": c.dtype.name, "shape": list(c.shape)} for c in self.constant_arrays],
            "functions": functions,
        }


# --- contexts ------------------------------------------------------------------------------------------------------


def current_trace() -> Trace | None:
    """The trace that runs on this thread, or None."""
    return _context.traces[-1] if _context.traces else None


@contextlib.contextmanager
def autocast_scope(dtype: str | None) -> Iterator[None]:
    """Within, float variables are read in this type; None: as they are."""
    _context.autocast.append(dtype)
    try:
        yield
    finally:
        _context.autocast.pop()


@contextlib.contextmanager
def assign_when(when: Any) -> Iterator[None]:
    """Within, variables are only assigned where this bool scalar is true."""
    _context.conditions.append(when)
    try:
        yield
    finally:
        _context.conditions.pop()


def condition(when: Any) -> Any:
    """`when` (None: always), and every condition around it."""
    for other in _context.conditions:
        from dagrt import ops

        when = other if when is None else ops.logical_and(when, other)
    return when


def in_trace() -> bool:
    return current_trace() is not None


@contextlib.contextmanager
def _running(trace: Trace | None) -> Iterator[None]:
    _context.traces.append(trace)
    try:
        yield
    finally:
        _context.traces.pop()


def outside() -> contextlib.AbstractContextManager[None]:
    """For what must happen now, whatever is being traced: making variables."""
    return _running(None)


class path_scope:
    """Puts a name in front of the paths of nodes and variables."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        _context.paths.append(self._name)

    def __exit__(self, *error: Any) -> None:
        _context.paths.pop()


def current_path() -> str:
    return "/".join(_context.paths)


class training_scope:
    """Sets the flag that layers called inside inherit."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __enter__(self) -> None:
        _context.training.append(self._value)

    def __exit__(self, *error: Any) -> None:
        _context.training.pop()


def current_training() -> bool | None:
    return _context.training[-1] if _context.training else None


def note_variable_created(path: str) -> None:
    """GraphError where a function's later trace makes a variable: each trace would make another."""
    for trace in _context.traces:
        if trace is not None and not trace.allow_variables:
            raise _core.GraphError(
                f"The variable {path} was created in a later trace of a function; create variables once, in the first call "
                "or before it"
            )


def host_array(value: Any, dtype: Any = None) -> np.ndarray:
    """Numbers on the host as an array of a type that dagrt has."""
    if isinstance(value, EagerTensor):
        array = value._array
    elif isinstance(value, Variable):
        array = value._core.read()
    elif isinstance(value, Tensor):
        array = value.numpy()  # raises with advice
    else:
        array = np.asarray(value)
    if dtype is not None:
        name = str(dtype) if isinstance(dtype, str) else np.dtype(dtype).name
        if dtype_name(array.dtype) != name:
            array = array.astype(numpy_dtype(name))
        return array
    return supported(array, isinstance(value, (int, float, list, tuple)))


def numpy_dtype(name: str) -> Any:
    if name == "bfloat16":
        try:
            import ml_dtypes
        except ImportError:
            raise ImportError("NumPy has no bfloat16 of its own: pip install ml_dtypes") from None
        return ml_dtypes.bfloat16
    if name == "float64":
        return np.float32
    return np.dtype(name)


_TYPES = {"float32", "float16", "bfloat16", "int32", "int64", "uint8", "bool"}


def supported(array: np.ndarray, python_numbers: bool = False) -> np.ndarray:
    """float64 becomes float32; integers that dagrt lacks become int32 or int64; Python's ints become int32."""
    name = dtype_name(array.dtype)
    if name == "int64" and python_numbers and (not array.size or np.abs(array).max() < 2**31):
        return array.astype(np.int32)
    if name in _TYPES:
        return array
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype.kind in "iu":
        return array.astype(np.int32 if array.dtype.itemsize < 4 else np.int64)
    raise TypeError(f"Expected numbers, got an array of {array.dtype}: {str(array)[:60]}")


# --- shape inference for the layer graph ---------------------------------------------------------------------------


def infer_outputs(fn: Callable, args: tuple, kwargs: dict) -> Any:
    """Runs `fn` on symbols in a trace that is thrown away; answers KerasTensors like its results."""
    trace = Trace(scratch=True)
    made: dict[int, TracedTensor] = {}

    def enter(x: Any) -> Any:
        if not isinstance(x, KerasTensor):
            return x
        if id(x) not in made:
            made[id(x)] = trace.main.add_input(x.name, x.dtype, x.dims)
            mask = getattr(x, "_keras_mask", None)
            if mask is not None:
                made[id(x)]._keras_mask = enter(mask)
        return made[id(x)]

    def leave(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        out = KerasTensor(x.dims, dtype=x.dtype)
        mask = getattr(x, "_keras_mask", None)
        if isinstance(mask, Tensor):
            out._keras_mask = KerasTensor(mask.dims, dtype=mask.dtype)
        return out

    with _running(trace):
        outputs = fn(
            *(tree.map_structure(enter, a) for a in args),
            **{k: tree.map_structure(enter, v) for k, v in kwargs.items()},
        )
    return tree.map_structure(leave, outputs)


# --- traced functions ----------------------------------------------------------------------------------------------


class Program:
    """A traced function that runs: arrays in, arrays out."""

    __slots__ = ("_core", "_structure", "caller", "variables")

    def __init__(self, core: Any, structure: Any, variables: list[Any]) -> None:
        self._core, self._structure, self.variables = core, structure, variables
        self.caller: Any = None  # for functions of arrays alone

    def run(self, arrays: list[np.ndarray], out: list[np.ndarray] | None = None) -> list[np.ndarray]:
        return self._core(arrays, out)

    @property
    def module_json(self) -> str:
        return self._core.module_json

    def output_types(self, shapes: list[tuple[int, ...]]) -> list[tuple[str, tuple[int, ...]]]:
        return self._core.output_types(shapes)

    def memory(self, shapes: list[tuple[int, ...]]) -> dict[str, int]:
        """Bytes that a run with these input shapes needs."""
        return self._core.memory(shapes)

    def text(self, shapes: Any = None) -> str:
        """The module, or the program for these shapes, readable."""
        return self._core.text(shapes) if shapes is not None else self._core.text()

    @property
    def structure(self) -> Any:
        """What the traced function returned, with a place among the outputs for each tensor."""
        return self._structure

    def form(self) -> tuple[str | None, list[int], list[str]]:
        """The structure as `_core.make_caller` takes it: kind, outputs, names; None where it is nested or has other values."""
        s = self._structure
        if isinstance(s, _Out):
            return "one", [s.index], []
        values = list(s.values()) if isinstance(s, dict) else s
        if type(s) not in (list, tuple, dict) or not all(isinstance(o, _Out) for o in values):
            return None, [], []
        return type(s).__name__, [o.index for o in values], list(s) if isinstance(s, dict) else []

    def pack(self, flat: list[Any]) -> Any:
        """Results in the structure that the traced function returned."""
        structure = self._structure
        if isinstance(structure, _Out):
            return flat[structure.index]
        return tree.map_structure(lambda o: flat[o.index] if isinstance(o, _Out) else o, structure)


class _Out:
    """Place of a result among a program's outputs."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index


class TracedModule:
    """What a trace leaves: the module, its variables and constants, and the structure of its results."""

    def __init__(self, trace: Trace, module: dict[str, Any], structure: Any) -> None:
        self.module = module
        self.module_json = json.dumps(module)
        self.variables = [v._core for v in trace.variables]
        self.constants = trace.constant_arrays
        self.output_structure = structure

    def compile(self, exact: bool | None = None, device: str | None = None) -> Program:
        if exact is None:
            exact = _config.exact()
        core = _core.Function(self.module_json, self.variables, self.constants, "main", exact, device)
        return Program(core, self.output_structure, self.variables)


def _trace(fn: Callable, specs: Any, shared_batch: bool, allow_variables: bool = True) -> TracedModule:
    trace = Trace()
    trace.allow_variables = allow_variables

    def enter(spec: Any) -> Any:
        if not isinstance(spec, InputSpec):
            return spec
        index = len(trace.main.inputs)
        dims = tuple(
            (_core.Dim.symbol("batch" if axis == 0 and shared_batch else f"x{index}.{axis}") if d is None else d)
            for axis, d in enumerate(spec.shape)
        )
        return trace.main.add_input(spec.name or f"x{index}", spec.dtype, dims)

    with _running(trace):
        arguments = tree.map_structure(enter, specs)
        result = fn(*arguments)
        flat: list[TracedTensor] = []

        def leave(x: Any) -> Any:
            from dagrt import ops

            if isinstance(x, Variable):
                x = x.value
            if isinstance(x, (EagerTensor, np.ndarray, np.generic, _core.Dim)):
                x = ops.convert_to_tensor(x)
            if not isinstance(x, TracedTensor):
                return x
            flat.append(x)
            return _Out(len(flat) - 1)

        structure = tree.map_structure(leave, result)
        module = trace.finish(flat)
    return TracedModule(trace, module, structure)


def trace_to_module(fn: Callable, specs: tuple) -> TracedModule:
    """Traces `fn(*specs)`, whose InputSpecs become symbols; first axes that are None are one size, the batch."""
    return _trace(fn, tuple(specs), shared_batch=True)


def differentiated_losses() -> list[TracedTensor]:
    """The losses given to `gradients` in this trace so far."""
    trace = current_trace()
    return list(trace.losses) if trace is not None else []


def store_guard(predicate: TracedTensor) -> None:
    """No store of this trace happens in a run where the bool scalar is false."""
    trace = current_trace()
    if trace is None or trace.scratch:
        return
    predicate = trace.main.local(predicate)
    if trace._guard is not None:
        predicate = trace.emit("logical_and", [trace._guard, predicate], {})[0]
    trace._guard = predicate


def gradients(loss: Any, wrt: Any) -> Any:
    """d loss / d wrt, in the structure of `wrt`.

    Args:
        loss: a float scalar of the trace.
        wrt: Variables or tensors of the trace, in any nesting.

    Raises:
        GraphError: outside a trace (see `value_and_grad`), or a loss that is no float scalar.
    """
    trace = current_trace()
    if trace is None:
        raise _core.GraphError(
            "gradients works inside a traced function; use dagrt.value_and_grad(fn, variables) on arrays"
        )
    flat = tree.flatten(wrt)
    found = trace.gradients(loss, flat)
    return tree.pack_sequence_as(wrt, found) if tree.is_nested(wrt) else found[0]


class _Same:
    """Key of an argument that counts as the same only while it is the same object, which it keeps alive."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return type(other) is _Same and other.value is self.value


def _static_key(x: Any) -> Any:
    """Key of an argument that is no array. 1, 1.0 and True are equal, but trace to different programs."""
    if isinstance(x, float):
        return (type(x), float(x).hex())
    if isinstance(x, (Variable, Tensor)):
        return _Same(x)
    try:
        hash(x)
    except TypeError:
        return _Same(x)
    return (type(x), x)


def _arrays_of(args: tuple, kwargs: dict) -> tuple[Any, list[np.ndarray], Any]:
    """The arguments as (structure of specs and constants, arrays, hashable key)."""
    arrays: list[np.ndarray] = []
    key: list[Any] = []

    def enter(x: Any) -> Any:
        if isinstance(x, (EagerTensor, np.ndarray, np.generic)) or (
            hasattr(x, "__array__") and not isinstance(x, (Variable, Tensor))
        ):
            a = np.ascontiguousarray(host_array(x)) if np.ndim(x) else host_array(x)
            arrays.append(a)
            key.append((a.dtype.name, a.shape))
            return InputSpec(a.shape, a.dtype.name)
        key.append(_static_key(x))
        return x

    structure = tree.map_structure(enter, (list(args), kwargs))
    return structure, arrays, (tree.structure_key((list(args), kwargs)), tuple(key))


def no_fast_call(*args: Any) -> Any:
    """Where a `_core.Caller` may stand: answers that it does not take these arguments."""
    return NotImplemented


class TracedFunction:
    """What `dagrt.function` makes of a Python function; see there."""

    def __init__(
        self, fn: Callable, input_signature: Any = None, exact: bool | None = None, device: str | None = None
    ) -> None:
        self._fn = fn
        self._device = device if device is None else _core.find_device(device)
        self._signature = None if input_signature is None else list(input_signature)
        self._exact = exact
        self._programs: OrderedDict[Any, Program] = OrderedDict()
        self._lock = threading.RLock()
        self._fast: Callable = no_fast_call  # of the program that ran last
        self.__name__ = getattr(fn, "__name__", "function")
        self.__doc__ = fn.__doc__
        self.__wrapped__ = fn

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        name = f"_traced_{self.__name__}"
        bound = instance.__dict__.get(name)
        if bound is None:
            bound = TracedFunction(self._fn.__get__(instance, owner), self._signature, self._exact, self._device)
            object.__setattr__(instance, name, bound)
        return bound

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        context = _context
        if not kwargs and not context.traces and not context.training:
            result = self._fast(*[a._array if type(a) is EagerTensor else a for a in args])
            if result is not NotImplemented:
                return EagerTensor(result) if type(result) is np.ndarray else _eager(result)
        if in_trace():
            return self._fn(*args, **kwargs)  # inlined
        structure, arrays, key = _arrays_of(args, kwargs)
        if self._signature is not None:
            structure, arrays, key = self._by_signature(arrays, kwargs)
        key = (key, current_training())
        program = self._programs.get(key)
        if program is None:
            program = self._make(key, structure)
        if not kwargs and not context.training and args and all(type(a) in (np.ndarray, EagerTensor) for a in args):
            self._remember(program, arrays)
        return _eager(program.pack(program.run(arrays)))

    def _remember(self, program: Program, arrays: list[np.ndarray]) -> None:
        """The next call on arrays of these types goes straight to C++."""
        if program.caller is None:
            shapes = [a.shape for a in arrays]
            if self._signature is not None:
                shapes = [tuple(s.shape) for s in tree.flatten(self._signature)]
            inputs = [(a.dtype.name, s) for a, s in zip(arrays, shapes)]
            form, results, names = program.form()
            caller = None
            if form is not None:
                groups = [("leaf", [0], [])] * len(arrays)
                caller = _core.make_caller(program._core, groups, inputs, form, results, names)
            program.caller = caller or no_fast_call
        self._fast = program.caller

    def _by_signature(self, arrays: list[np.ndarray], kwargs: dict) -> tuple[Any, list[np.ndarray], Any]:
        specs = tree.flatten(self._signature)
        if kwargs or len(arrays) != len(specs):
            raise ValueError(
                f"{self.__name__}: the input_signature has {len(specs)} positional arrays, got {len(arrays)}"
            )
        cast = []
        for i, (a, s) in enumerate(zip(arrays, specs)):
            if len(a.shape) != len(s.shape) or any(d is not None and d != n for d, n in zip(s.shape, a.shape)):
                raise ValueError(f"{self.__name__}: argument {i}: expected shape {s.shape}, got {a.shape}")
            cast.append(a.astype(numpy_dtype(s.dtype)) if a.dtype.name != s.dtype else a)
        return (list(self._signature or []), {}), cast, "signature"

    def _make(self, key: Any, structure: Any) -> Program:
        with self._lock:
            program = self._programs.get(key)
            if program is not None:
                return program
            first = not self._programs
            traced = _trace(lambda a, k: self._fn(*a, **k), structure, shared_batch=False, allow_variables=first)
            program = traced.compile(self._exact, self._device)
            self._programs[key] = program
            if len(self._programs) > 256:
                self._programs.popitem(last=False)
            return program


def _eager(value: Any) -> Any:
    return tree.map_structure(lambda a: EagerTensor(a) if isinstance(a, np.ndarray) else a, value)


def function(
    fn: Callable | None = None,
    *,
    input_signature: Any = None,
    exact: bool | None = None,
    device: str | None = None,
    **kwargs: Any,
) -> Any:
    """Compiles a Python function over `dagrt.ops`: traced for each set of argument shapes, then run in C++.

    Arrays are the program's inputs; all other arguments (numbers and lists of them too) and all Python values are fixed in
    the trace. Variables stay
    live: reading and assigning them works as in the function. Inside another traced function it is inlined.

    Args:
        fn: the function; without it, a decorator is returned.
        input_signature: list of `dagrt.tracing.InputSpec` with None for sizes that vary: one trace serves them all.
        exact: only algorithms that round no worse than direct sums; by default `dagrt.config.exact()`.
        device: where it runs: "cpu", "cuda", "cuda:1"; by default `dagrt.device()` when it is traced.

    Raises:
        DeviceError: there is no such device.
        GraphError: Python decisions on values that are not known while tracing; the message names the line.

    Example:
        >>> import dagrt
        >>> import numpy as np
        >>> @dagrt.function
        ... def norm(x):
        ...     return dagrt.ops.sqrt(dagrt.ops.sum(x * x))
        >>> float(norm(np.array([3.0, 4.0])))
        5.0
    """
    kwargs.pop("jit_compile", None)
    if kwargs:
        raise TypeError(f"function: unknown arguments {sorted(kwargs)}")
    if fn is None:
        return lambda f: TracedFunction(f, input_signature, exact, device)
    return TracedFunction(fn, input_signature, exact, device)


_fresh_programs: OrderedDict[Any, Program] = OrderedDict()
_fresh_lock = threading.Lock()


def run_fresh(fn: Callable, args: tuple, kwargs: dict) -> Any:
    """Traces fn anew, so that Python in it runs each time, and runs the program that an equal trace made before, or makes it."""
    structure, arrays, _ = _arrays_of(args, kwargs)
    traced = _trace(lambda a, k: fn(*a, **k), structure, shared_batch=False)
    # A program keeps its variables alive, so their ids are not used again while it is in the cache.
    key = (
        _config.exact(),
        _core.device(),
        traced.module_json,
        tuple(id(v) for v in traced.variables),
        tuple((c.dtype.name, c.shape, c.tobytes()) for c in traced.constants),
    )
    with _fresh_lock:
        program = _fresh_programs.get(key)
        if program is not None:
            _fresh_programs.move_to_end(key)
    if program is None:
        program = traced.compile()
        with _fresh_lock:
            _fresh_programs[key] = program
            if len(_fresh_programs) > 64:
                _fresh_programs.popitem(last=False)
    # The results' structure is this trace's own: values that are no tensors may differ.
    program = Program(program._core, traced.output_structure, program.variables)
    return _eager(program.pack(program.run(arrays)))


def value_and_grad(fn: Callable, variables: Any, has_aux: bool = False) -> Callable:
    """A function that answers `(fn(*args), gradients)`: d fn / d variables, in the structure of `variables`.

    Args:
        fn: gives a float scalar, or with `has_aux` a pair of it and anything.
        variables: a Variable, or a nesting of them.

    Returns:
        A function of fn's arguments. On arrays it is traced anew each time (Python in it runs) and compiled once for each
        different trace; inside a traced function it is part of that.

    Raises:
        GraphError: fn's result is no float scalar.

    Example:
        >>> import dagrt
        >>> w = dagrt.Variable(3.0)
        >>> value, gradient = dagrt.value_and_grad(lambda x: w * w * x, w)(2.0)
        >>> float(value), float(gradient)
        (18.0, 12.0)
    """

    def traced(*args: Any, **kwargs: Any) -> Any:
        result = fn(*args, **kwargs)
        loss = result[0] if has_aux else result
        return result, gradients(loss, variables)

    def run(*args: Any, **kwargs: Any) -> Any:
        if in_trace():
            return traced(*args, **kwargs)
        return run_fresh(traced, args, kwargs)

    return run
