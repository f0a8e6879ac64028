"""emit: one op of docs/ops.md, on whatever it is given. In a trace it becomes a node; on arrays it runs at once.

Running at once is a program of one node, kept by (op, attributes, types): a dict look-up and a call into C++. It runs on the
CPU: its operands and results are the host's, and a copy to another device and back takes longer than almost any op.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from typing import Any

import numpy as np

from dagrt import _config, _core, tracing
from dagrt.tensor import EagerTensor, KerasTensor, Tensor, TracedTensor, dtype_name
from dagrt.variable import Variable

_programs: OrderedDict[Any, Any] = OrderedDict()
_lock = threading.Lock()
_CAPACITY = 4096
_traces = tracing._context


# Ops whose kernels know float32 alone. 16-bit floats are storage: widened before, rounded behind.
_FLOAT32_ONLY = frozenset(
    {"matmul", "conv2d", "conv2d_input_grad", "max_pool2d", "avg_pool2d", "lstm", "softmax_cross_entropy"}
)


def emit(op: str, *inputs: Any, **attrs: Any) -> Any:
    """Runs or records one op.

    Args:
        op: its name in docs/ops.md.
        inputs: tensors, variables, arrays, numbers; None for an optional input that is absent.
        attrs: its attributes.

    Returns:
        A tensor, or a tuple of tensors where the op has several outputs.
    """
    if op in _FLOAT32_ONLY:
        half = None
        for x in inputs:
            half = half or _half(x)
        if half:
            wide = [emit("cast", x, dtype="float32") if _half(x) else x for x in inputs]
            outputs = emit(op, *wide, **attrs)
            narrow = [emit("cast", y, dtype=half) for y in (outputs if isinstance(outputs, tuple) else [outputs])]
            return narrow[0] if len(narrow) == 1 else tuple(narrow)
    traces = _traces.traces
    trace = traces[-1] if traces else None
    outputs = _run(op, inputs, attrs) if trace is None else trace.emit(op, [_traced(trace, x) for x in inputs], attrs)
    return outputs[0] if len(outputs) == 1 else tuple(outputs)


def _half(x: Any) -> str | None:
    """The 16-bit float type that x has, or None."""
    kind = getattr(x, "dtype", None)
    name = dtype_name(kind) if isinstance(kind, np.dtype) else kind
    return name if name in ("float16", "bfloat16") else None


def _traced(trace: Any, x: Any) -> TracedTensor | None:
    if x is None or type(x) is TracedTensor:
        return x
    if isinstance(x, Variable):
        return x.value
    if isinstance(x, KerasTensor):
        raise _core.GraphError(
            "A KerasTensor was used inside a traced function: call the function on data, or use a Model"
        )
    return trace.constant(tracing.host_array(x))


def _array(x: Any) -> np.ndarray:
    if type(x) is EagerTensor:
        return x._array
    if isinstance(x, Variable):
        return x.value._array
    if isinstance(x, TracedTensor):
        raise _core.GraphError(
            "A value of a traced function was used outside of it; return it from the function, or assign it to a Variable"
        )
    return tracing.host_array(x)


def _freeze(value: Any) -> Any:
    return tuple(_freeze(v) for v in value) if isinstance(value, (list, tuple)) else value


def _run(op: str, inputs: tuple, attrs: dict[str, Any]) -> list[Tensor]:
    arrays = []
    types: list[Any] = []
    for x in inputs:
        if x is None:
            types.append(None)
            continue
        a = x._array if type(x) is EagerTensor else _array(x)
        arrays.append(a)
        types.append((a.dtype.num, a.shape))
    key = (op, tuple(types), tuple((k, _freeze(v)) for k, v in attrs.items()) if attrs else ())
    program = _programs.get(key)
    if program is None:
        program = _make(key, op, inputs, arrays, attrs)
    return [EagerTensor(a) for a in program(arrays)]


def _make(key: Any, op: str, inputs: tuple, arrays: list[np.ndarray], attrs: dict[str, Any]) -> Any:
    if any(isinstance(d, _core.Dim) for v in attrs.values() for d in (v if isinstance(v, (list, tuple)) else [v])):
        raise _core.GraphError(
            f"ops.{op}: a size that varies ({attrs}) was used on arrays; it has a number only in a traced function or in "
            "a layer's call"
        )
    given = iter(range(len(arrays)))
    ids = [-1 if x is None else next(given) for x in inputs]
    types = _core.infer(op, attrs, [None if i < 0 else (arrays[i].dtype.name, arrays[i].shape) for i in ids])
    for kind, _ in types:
        tracing.numpy_dtype(kind)  # a result that NumPy cannot hold: says what to install
    outs = list(range(len(arrays), len(arrays) + len(types)))
    kept = len(outs) - _residuals().get(op, 0)
    module = {
        "format": "dagrt",
        "version": 1,
        "variables": [],
        "constants": [],
        "functions": {
            "main": {
                "inputs": [
                    {"name": f"input {i}", "dtype": a.dtype.name, "shape": list(a.shape)} for i, a in enumerate(arrays)
                ],
                "nodes": [
                    {
                        "op": op,
                        "in": ids,
                        "out": outs,
                        "attrs": {k: tracing._plain(v) for k, v in attrs.items()},
                        "path": tracing.current_path(),
                    }
                ],
                "outputs": outs[:kept],
                "output_names": [""] * kept,
                "stores": [],
                "guard": None,
            }
        },
    }
    program = _core.Function(json.dumps(module), [], [], exact=_config.exact(), device="cpu")
    with _lock:
        _programs[key] = program
        if len(_programs) > _CAPACITY:
            _programs.popitem(last=False)
    return program


def forget_programs() -> None:
    """The programs of eager ops are made anew."""
    with _lock:
        _programs.clear()


_residual_counts: dict[str, int] = {}


def _residuals() -> dict[str, int]:
    if not _residual_counts:
        _residual_counts.update({row["name"]: row["residuals"] for row in _core.op_table()})
    return _residual_counts
