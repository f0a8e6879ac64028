"""The table of `model.summary()`, as Keras prints it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np


def print_summary(
    model: Any,
    line_length: int | None = None,
    positions: Any = None,
    print_fn: Callable | None = None,
    expand_nested: bool = False,
    show_trainable: bool = False,
    layer_range: Any = None,
) -> None:
    """Prints a model's layers: output shapes, numbers of weights, and (unless it is a plain stack) what each follows.

    Args:
        model: the model; layers that are not built show "?".
        line_length: width of the table, by default what its contents need.
        positions: right ends of the columns, as shares of `line_length`.
        print_fn: called once with the whole text; `print` by default.
        expand_nested: also show the layers inside nested models.
        show_trainable: add a column with Y or N.
        layer_range: names (or prefixes) of the first and last layer to show.
    """
    connected = not _is_stack(model)
    heads = ["Layer (type)", "Output Shape", "Param #"]
    aligns = ["<", "<", ">"]
    if connected:
        heads.append("Connected to")
        aligns.append("<")
    if show_trainable:
        heads.append("Trai…" if connected else "Trainable")
        aligns.append("^")
    rows: list[list[str]] = []
    _add_rows(model, rows, connected, expand_nested, show_trainable, 0, layer_range)
    text = [f'Model: "{model.name}"', *_table(heads, aligns, rows, line_length, positions), *_totals(model)]
    (print_fn or print)("\n".join(text))


def _is_stack(model: Any) -> bool:
    """Each layer used once, on the output of the one before."""
    nodes = getattr(model, "_nodes", None) if getattr(model, "built", False) else None
    if nodes is None or type(model).__name__ == "Sequential":
        return True
    counts: dict[int, int] = {}
    for node in nodes:
        counts[id(node.operation)] = counts.get(id(node.operation), 0) + 1
        if len(node.input_tensors) > 1 or len(node.output_tensors) > 1:
            return False
    sources = [id(t) for n in nodes for t in n.input_tensors]
    return all(c == 1 for c in counts.values()) and len(set(sources)) == len(sources) and len(model.inputs) == 1


def _add_rows(
    model: Any, rows: list, connected: bool, expand: bool, show_trainable: bool, depth: int, layer_range: Any
) -> None:
    nodes = {id(n) for n in getattr(model, "_nodes", [])} if getattr(model, "built", False) else set()
    operations = getattr(model, "operations", None) if nodes else None
    if operations is None or type(model).__name__ == "Sequential":
        operations = model.layers
    for op in _in_range(list(operations), layer_range):
        own_model = hasattr(op, "layers") and hasattr(op, "compile")
        prefix = "   " * depth + ("└ " if depth else "")
        row = [f"{prefix}{op.name} ({type(op).__name__})", _output_shape(op, nodes), _count(op)]
        if connected:
            row.append(_sources(op, nodes) if depth == 0 or nodes else "-")
        if show_trainable:
            row.append("-" if not getattr(op, "weights", None) else "Y" if op.trainable else "N")
        rows.append(row)
        if expand and own_model:
            _add_rows(op, rows, connected, expand, show_trainable, depth + 1, None)


def _in_range(operations: list, layer_range: Any) -> list:
    if layer_range is None:
        return operations
    if len(layer_range) != 2:
        raise ValueError(f"summary: layer_range must hold two layer names, got {layer_range!r}")
    import re

    names = [o.name for o in operations]
    first = [i for i, n in enumerate(names) if re.match(layer_range[0], n)]
    last = [i for i, n in enumerate(names) if re.match(layer_range[1], n)]
    if not first or not last:
        raise ValueError(f"summary: layer_range {layer_range!r} names no layers; the layers are {names}")
    lo, hi = min(first[0], last[0]), max(first[-1], last[-1])
    return operations[lo : hi + 1]


def _shape_text(shape: Any) -> str:
    return "(" + ", ".join("None" if d is None else str(d) for d in shape) + ("," if len(shape) == 1 else "") + ")"


def _output_shape(op: Any, nodes: set[int]) -> str:
    own = [n for n in op._inbound_nodes if id(n) in nodes] or op._inbound_nodes
    if not own:
        return "?"
    shapes: list[str] = []
    for node in own[:1]:
        shapes += [_shape_text(t.shape) for t in node.output_tensors]
    return shapes[0] if len(shapes) == 1 else "[" + ", ".join(shapes) + "]"


def _count(op: Any) -> str:
    if not hasattr(op, "weights"):
        return "0"
    if not op.built and not op.weights:
        return "0 (unbuilt)"
    return f"{_params(op.weights):,}"


def _params(variables: Any) -> int:
    return sum(int(np.prod(v.shape)) for v in variables)


def _sources(op: Any, nodes: set[int]) -> str:
    found = []
    for node in op._inbound_nodes:
        if id(node) not in nodes:
            continue
        for t in node.input_tensors:
            source, index, tensor = t._keras_history
            own = [i for i, n in enumerate(source._inbound_nodes) if id(n) in nodes]
            found.append(f"{source.name}[{own.index(index) if index in own else index}][{tensor}]")
    return ", ".join(found) or "-"


def _table(heads: list[str], aligns: list[str], rows: list, line_length: int | None, positions: Any) -> list[str]:
    widths = [max(len(r[i]) for r in [heads, *rows]) for i in range(len(heads))]
    if len(heads) > 3:
        widths[3] = min(widths[3], max(len(heads[3]), *(len(p) + 1 for r in rows for p in r[3].split(", "))))
    frame = 3 * len(heads) + 1
    least = 76
    if positions is not None:
        total = line_length or 80
        ends = [p if p > 1 else int(total * p) for p in positions[: len(heads)]]
        widths = [max(b - a - 3, 4) for a, b in zip([0, *ends], ends)]
    elif line_length is not None:
        scale = max(line_length - frame, 4 * len(heads)) / sum(widths)
        widths = [max(4, int(w * scale)) for w in widths]
    else:
        extra = max(0, least - frame - sum(widths))
        widths = [w + extra // len(widths) for w in widths]

    def rule(left: str, line: str, cross: str, right: str) -> str:
        return left + cross.join(line * (w + 2) for w in widths) + right

    def cells(row: list[str], bar: str) -> list[str]:
        wrapped = [_wrap(c, w) for c, w in zip(row, widths)]
        height = max(map(len, wrapped))
        return [
            bar + bar.join(f" {(c[k] if k < len(c) else ''):{a}{w}} " for c, w, a in zip(wrapped, widths, aligns)) + bar
            for k in range(height)
        ]

    lines = [rule("┏", "━", "┳", "┓"), *cells(heads, "┃"), rule("┡", "━", "╇", "┩")]
    for i, row in enumerate(rows):
        if i:
            lines.append(rule("├", "─", "┼", "┤"))
        lines += cells(row, "│")
    lines.append(rule("└", "─", "┴", "┘"))
    return lines


def _wrap(text: str, width: int) -> list[str]:
    lead = len(text) - len(text.lstrip())
    lines = textwrap.wrap(text.lstrip(), max(width - lead, 1), break_on_hyphens=False) or [""]
    return [" " * lead + line for line in lines]


def _memory(variables: Any) -> str:
    size = float(sum(int(np.prod(v.shape)) * np.dtype(_numpy_name(v.dtype)).itemsize for v in variables))
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1024 or unit == "GB":
            return f"{size:.2f} {unit}"
        size /= 1024
    return ""


def _numpy_name(dtype: str) -> str:
    return "uint16" if dtype == "bfloat16" else dtype


def _totals(model: Any) -> list[str]:
    trainable, fixed = model.trainable_weights, model.non_trainable_weights
    everything = [*trainable, *fixed]
    optimizer = getattr(model, "optimizer", None)
    slots = list(optimizer.variables) if optimizer is not None and getattr(optimizer, "built", False) else []

    def line(label: str, variables: list) -> str:
        return f" {label}: {_params(variables):,} ({_memory(variables)})"

    lines = [
        line("Total params", everything + slots),
        line("Trainable params", trainable),
        line("Non-trainable params", fixed),
    ]
    if slots:
        lines.append(line("Optimizer params", slots))
    return lines
