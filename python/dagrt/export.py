"""model.export: what `predict` computes, as one file that needs no Python."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from dagrt import _core, tracing, tree


def export_model(model: Any, filepath: Any, format: str = "dagrt", input_signature: Any = None) -> None:
    """Writes the traced prediction step with its weights to a safetensors file, atomically.

    The file holds the module before any pass, so it serves every batch size and every length that the Inputs leave open.
    It also holds a self-test: small inputs and the outputs they give, checked by `dagrt-run --selftest`.

    Args:
        model: a built model.
        filepath: by convention ends in ".dagrt".
        format: "dagrt".
        input_signature: for subclassed models: arrays or `InputSpec`s in the structure of the model's input.

    Raises:
        ValueError: another format, or a model whose inputs are not known.
        GraphError: the model assigns variables when it predicts; a file's program has no state.
    """
    if format != "dagrt":
        raise ValueError(f"export: format must be 'dagrt', got {format!r}")
    path = os.fspath(filepath)
    specs = _specs(model, input_signature)
    traced = tracing.trace_to_module(lambda x: model.predict_step((x,)), (specs,))
    module = json.loads(traced.module_json)
    main = module["functions"]["main"]
    if main["stores"]:
        names = [module["variables"][s["variable"]]["name"] for s in main["stores"]]
        raise _core.GraphError(f"export: {model.name} assigns {names} when it predicts; a file's program has no state")
    _name_ends(model, main)
    tensors = {f"var/{i}": v.read() for i, v in enumerate(traced.variables)}
    tensors.update({f"const/{i}": np.asarray(c, order="C") for i, c in enumerate(traced.constants)})
    examples = [_example(s) for s in tree.flatten(specs)]
    outputs = traced.compile().run(examples)
    tensors.update({f"selftest/in/{i}": a for i, a in enumerate(examples)})
    tensors.update({f"selftest/out/{i}": np.asarray(a) for i, a in enumerate(outputs)})
    _core.write_model(path, json.dumps(module), tensors, {"name": model.name})


def _specs(model: Any, signature: Any) -> Any:
    if signature is not None:
        return tree.map_structure(
            lambda s: s
            if isinstance(s, tracing.InputSpec)
            else tracing.InputSpec((None, *np.shape(s)[1:]), str(s.dtype)),
            signature,
        )
    try:
        inputs = model.input
    except (AttributeError, ValueError):
        raise ValueError(
            f"export: the inputs of {model.name} are not known; give input_signature=[dagrt.tracing.InputSpec(shape, dtype)]"
        ) from None
    return tree.map_structure(lambda t: tracing.InputSpec(t.shape, t.dtype, t._keras_history[0].name), inputs)


def _example(spec: Any) -> np.ndarray:
    """A small input: two rows, size 4 on open axes (or what a fixed one says); ids are zero."""
    shape = tuple((2 if i == 0 else 4) if d is None else d for i, d in enumerate(spec.shape))
    count = int(np.prod(shape))
    if "float" not in spec.dtype:
        return np.zeros(shape, spec.dtype)
    return (np.sin(np.arange(count, dtype=np.float64)) * 0.5).reshape(shape).astype(spec.dtype)


def _name_ends(model: Any, main: dict) -> None:
    for names, ends in ((getattr(model, "input_names", None), main["inputs"]),):
        if names is not None and len(names) == len(ends):
            for name, end in zip(names, ends):
                end["name"] = name
    outputs = getattr(model, "output_names", None)
    if outputs is not None and len(outputs) == len(main["outputs"]):
        main["output_names"] = list(outputs)
