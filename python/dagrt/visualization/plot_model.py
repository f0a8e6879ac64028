"""A model's graph as a picture, drawn by Graphviz."""

from __future__ import annotations

import html
import itertools
import os
from typing import Any

from dagrt.saving.atomic import replacing


def _graphviz() -> Any:
    try:
        import graphviz
    except ImportError:
        raise ImportError(
            "plot_model draws with Graphviz: pip install graphviz (or 'dagrt-runtime[examples]'), and install the program "
            "itself, e.g. apt install graphviz"
        ) from None
    return graphviz


def model_to_dot(
    model: Any,
    show_shapes: bool = False,
    show_dtype: bool = False,
    show_layer_names: bool = True,
    rankdir: str = "TB",
    expand_nested: bool = False,
    dpi: int = 200,
    subgraph: bool = False,
    show_layer_activations: bool = False,
    show_trainable: bool = False,
    splines: str = "ortho",
    _note: Any = None,
    **kwargs: Any,
) -> Any:
    """The model's graph as a `graphviz.Digraph`.

    Args:
        subgraph: make a part of a larger drawing.

        The others as for `plot_model`.

    Raises:
        ValueError: a model that is not built.
        ImportError: the graphviz package is missing.
    """
    if kwargs:
        raise ValueError(f"model_to_dot: unrecognized keyword arguments {sorted(kwargs)}")
    if rankdir not in ("TB", "BT", "LR", "RL"):
        raise ValueError(f"model_to_dot: rankdir must be 'TB', 'BT', 'LR' or 'RL', got {rankdir!r}")
    if not model.built:
        raise ValueError(
            f"This model ({model.name}) has not yet been built. Build it first by calling `build()` or by calling it on data."
        )
    graphviz = _graphviz()
    options = {
        "show_shapes": show_shapes,
        "show_dtype": show_dtype,
        "show_layer_names": show_layer_names,
        "show_layer_activations": show_layer_activations,
        "show_trainable": show_trainable,
    }
    dot = graphviz.Digraph(
        model.name, graph_attr={"rankdir": rankdir, "splines": splines, "dpi": str(dpi), "concentrate": "true"}
    )
    dot.attr("node", shape="plaintext", fontname="Helvetica", fontsize="11")
    _Drawing(graphviz, options, expand_nested, _note).add(dot, model, "m")
    return dot


def plot_model(
    model: Any,
    to_file: Any = "model.png",
    show_shapes: bool = False,
    show_dtype: bool = False,
    show_layer_names: bool = False,
    rankdir: str = "TB",
    expand_nested: bool = False,
    dpi: int = 200,
    show_layer_activations: bool = False,
    show_trainable: bool = False,
    splines: str = "ortho",
    _note: Any = None,
    **kwargs: Any,
) -> str:
    """Draws a model's graph to a file, atomically.

    Args:
        model: a built model.
        to_file: the ending chooses the format: png, svg, pdf, dot.
        show_shapes: input and output shapes of each layer.
        show_dtype: element types of the outputs.
        show_layer_names: layers' names beside their classes.
        rankdir: "TB" from top to bottom, "LR" from left to right.
        expand_nested: draw nested models as boxes with their layers inside.
        dpi: dots per inch.
        show_layer_activations: names of the activations.
        show_trainable: whether each layer may be trained, by colour.
        splines: how edges run, as Graphviz names it.

    Returns:
        The path of the picture.

    Raises:
        ImportError: Graphviz is missing; the message says how to install it.
        ValueError: a format that Graphviz does not know, or a model that is not built.
    """
    path = os.fspath(to_file)
    kind = os.path.splitext(path)[1].lstrip(".").lower() or "png"
    if kind not in ("png", "svg", "pdf", "dot", "gif", "jpg", "jpeg"):
        raise ValueError(f"plot_model: the file's ending must be png, svg, pdf, dot, gif or jpg, got {path!r}")
    dot = model_to_dot(
        model,
        show_shapes,
        show_dtype,
        show_layer_names,
        rankdir,
        expand_nested,
        dpi,
        False,
        show_layer_activations,
        show_trainable,
        splines,
        _note,
        **kwargs,
    )
    graphviz = _graphviz()
    if kind == "svg":
        dot.graph_attr.pop("dpi", None)  # an SVG has points, not dots
    try:
        picture = dot.source.encode() if kind == "dot" else dot.pipe(format=kind)
    except graphviz.ExecutableNotFound:
        raise ImportError(
            "plot_model needs Graphviz's program `dot`, which is not on the PATH: install it, e.g. apt install graphviz"
        ) from None
    with replacing(path) as temporary, open(temporary, "wb") as f:
        f.write(picture)
    return path


class _Drawing:
    """Adds models to a graph; nested ones as nodes or as clusters."""

    def __init__(self, graphviz: Any, options: dict[str, bool], expand: bool, note: Any = None) -> None:
        self._graphviz = graphviz
        self._note = note  # layer path -> (colour, text) or None: what a profile says of it
        self._options = options
        self._expand = expand

    def add(self, dot: Any, model: Any, prefix: str) -> tuple[list[str], list[str]]:
        """Draws the layers of `model`; answers the drawn nodes of its inputs and outputs."""
        nodes = getattr(model, "_nodes", None)
        if nodes is None or not hasattr(model, "operations"):
            return self._add_subclassed(dot, model, prefix)
        source: dict[int, str] = {}  # tensor -> drawn node it comes out of
        target: dict[int, list[str]] = {}
        drawn: dict[int, Any] = {}
        for op in model.operations:
            own = [n for n in op._inbound_nodes if any(n is m for m in nodes)]
            name = f"{prefix}.{op.name}"
            if self._expand and _is_graph(op):
                with dot.subgraph(name=f"cluster_{name}") as box:
                    box.attr(
                        label=_model_label(op),
                        style="rounded,dashed",
                        color="#5b7fa6",
                        fontname="Helvetica",
                        fontsize="12",
                    )
                    ins, outs = self.add(box, op, name)
                for node in own:
                    target[id(node)] = ins
                    for k, t in enumerate(node.output_tensors):
                        source[id(t)] = outs[min(k, len(outs) - 1)]
            else:
                dot.node(name, label=self._label(op, own, name))
                for node in own:
                    target[id(node)] = [name]
                    source.update((id(t), name) for t in node.output_tensors)
            drawn[id(op)] = own
        edges: set[tuple[str, str]] = set()
        for own in drawn.values():
            for node in own:
                ends = target[id(node)]
                for k, t in enumerate(node.input_tensors):
                    edge = (source[id(t)], ends[min(k, len(ends) - 1)])
                    if edge not in edges:
                        edges.add(edge)
                        dot.edge(*edge)
        return [source[id(t)] for t in model.inputs], [source[id(t)] for t in model.outputs]

    def _add_subclassed(self, dot: Any, model: Any, prefix: str) -> tuple[list[str], list[str]]:
        """A model whose graph is Python: its layers, in order, without claims about what follows what."""
        names = []
        for layer in model.layers:
            names.append(f"{prefix}.{layer.name}")
            dot.node(names[-1], label=self._label(layer, layer._inbound_nodes[:1]))
        for a, b in itertools.pairwise(names):
            dot.edge(a, b, style="dashed", arrowhead="none")
        return names[:1], names[-1:]

    def _label(self, op: Any, nodes: list[Any], drawn: str = "") -> str:
        show = self._options
        title = type(op).__name__
        if show["show_layer_names"]:
            title = f"{op.name} ({title})"
        activation = getattr(op, "activation", None)
        cells = []
        if show["show_layer_activations"] and activation is not None:
            cells.append(f"Activation: <b>{html.escape(getattr(activation, '__name__', None) or activation.name)}</b>")
        if show["show_dtype"] and nodes:
            cells.append(f"Output dtype: <b>{nodes[0].output_tensors[0].dtype}</b>")
        if show["show_shapes"] and nodes:
            node = nodes[0]
            if node.input_tensors:
                cells.append(f"Input shape: <b>{_shapes(node.input_tensors)}</b>")
            cells.append(f"Output shape: <b>{_shapes(node.output_tensors)}</b>")
        color, text = ("#243b53", "white")
        if show["show_trainable"] and getattr(op, "weights", None):
            color = "#1f6f43" if op.trainable else "#8a2c2c"
            cells.append("Trainable" if op.trainable else "Non-trainable")
        note = self._note("/".join(drawn.split(".")[1:])) if self._note else None
        if note is not None:
            color, text = note[0], "black" if int(note[0][3:5], 16) > 120 else "white"
            cells.append(note[1])
        rows = "".join(f'<td bgcolor="white"><font color="#1c1c1c" point-size="10">{c}</font></td>' for c in cells)
        span = f' colspan="{len(cells)}"' if cells else ""
        head = f'<tr><td{span} bgcolor="{color}"><font color="{text}" point-size="13"><b>{html.escape(title)}</b></font></td></tr>'
        below = f"<tr>{rows}</tr>" if cells else ""
        return (
            f'<<table border="0" cellborder="1" cellspacing="0" cellpadding="7" color="#243b53">{head}{below}</table>>'
        )


def _is_graph(op: Any) -> bool:
    return hasattr(op, "operations") and hasattr(op, "compile") and op.built


def _model_label(op: Any) -> str:
    return f"{op.name} ({type(op).__name__})"


def _shapes(tensors: list[Any]) -> str:
    texts = ["(" + ", ".join(map(str, t.shape)) + ("," if len(t.shape) == 1 else "") + ")" for t in tensors]
    if len(texts) > 1 and len(set(texts)) == 1:
        return f"{len(texts)} × {texts[0]}"
    return ", ".join(texts)
