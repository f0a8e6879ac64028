"""The layer graph between given inputs and outputs: which nodes, in which order.

The order is Keras's, since names in weight files follow it: by depth (longest way to an output), and within a depth by
the first visit when walking back from the outputs.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from dagrt import tree
from dagrt.operation import Node, Operation
from dagrt.tensor import KerasTensor


def _node_of(tensor: KerasTensor) -> Node | None:
    history = getattr(tensor, "_keras_history", None)
    return None if history is None else history[0]._inbound_nodes[history[1]]


def _walk(inputs: list[KerasTensor], outputs: list[KerasTensor]) -> tuple[list[Node], dict[int, int]]:
    """Nodes, each after those it needs; and of each operation (by id) the rank of its first visit."""
    stop = {id(t) for t in inputs}
    done: list[Node] = []
    finished: set[int] = set()
    rank: dict[int, int] = {}
    for output in outputs:
        stack: list[tuple[KerasTensor, Any]] = [(output, None)]
        while stack:
            tensor, rest = stack[-1]
            node = _node_of(tensor)
            if node is None or (rest is None and id(node) in finished):
                stack.pop()
                continue
            if rest is None:
                rank.setdefault(id(node.operation), len(rank))
                rest = iter([] if node.is_input or id(tensor) in stop else node.input_tensors)
                stack[-1] = (tensor, rest)
            following = next((t for t in rest), None)
            if following is not None:
                stack.append((following, None))
                continue
            stack.pop()
            if id(node) not in finished:
                finished.add(id(node))
                done.append(node)
    return done, rank


def order_nodes(inputs: list[KerasTensor], outputs: list[KerasTensor], name: str) -> tuple[list[Node], list[Operation]]:
    """Nodes in the order to run, and operations in Keras's order.

    Raises:
        ValueError: an output that does not follow from the inputs, or two operations of one name.
    """
    done, rank = _walk(inputs, outputs)
    node_depth: dict[int, int] = {}
    operation_depth: dict[int, int] = {}
    operations: dict[int, Operation] = {}
    for node in reversed(done):
        op = node.operation
        depth = max(node_depth.get(id(node), 0), operation_depth.get(id(op), 0))
        operations[id(op)] = op
        operation_depth[id(op)] = node_depth[id(node)] = depth
        for parent in node.parent_nodes:
            node_depth[id(parent)] = max(depth + 1, node_depth.get(id(parent), 0))
    for t in inputs:
        node = _node_of(t)
        if node is not None and id(node.operation) not in operations:  # an input that leads nowhere
            op = node.operation
            operations[id(op)], operation_depth[id(op)], rank[id(op)] = op, 0, -1
            node_depth[id(node)] = 0
            done.append(node)
    ordered = sorted(operations.values(), key=lambda o: (-operation_depth[id(o)], rank[id(o)]))
    nodes = sorted(done, key=lambda n: -node_depth[id(n)])
    _check_connected(inputs, nodes, name)
    counts = Counter(o.name for o in ordered)
    double = [n for n, k in counts.items() if k > 1]
    if double:
        raise ValueError(
            f'The name "{double[0]}" is used {counts[double[0]]} times in the model {name!r}. All operation names should '
            "be unique: give each layer a name of its own."
        )
    return nodes, ordered


def _check_connected(inputs: list[KerasTensor], nodes: list[Node], name: str) -> None:
    known = {id(t) for t in inputs}
    for node in nodes:
        if node.is_input:
            t = node.output_tensors[0]
            if id(t) not in known:
                raise ValueError(
                    f"The graph of model {name!r} is disconnected: an output needs the input {node.operation.name!r} "
                    f"(shape {t.shape}), which is not among the model's inputs. Add it to `inputs`."
                )
            continue
        if all(id(t) in known for t in node.output_tensors):
            continue
        for t in node.input_tensors:
            if id(t) not in known:
                raise ValueError(
                    f"The graph of model {name!r} is disconnected: {node.operation.name!r} needs a tensor of shape "
                    f"{t.shape} that does not follow from the model's inputs. Are all Inputs given in `inputs`?"
                )
        known.update(id(t) for t in node.output_tensors)


def with_own_inputs(inputs: Any, outputs: Any) -> tuple[Any, Any]:
    """A model over a sub-graph: where an input is a layer's output, the nodes from there on are repeated on a new Input."""
    from dagrt.layers.input_layer import Input

    flat = tree.flatten(inputs)
    tensors: dict[int, KerasTensor] = {}
    fresh = []
    for t in flat:
        node = _node_of(t)
        if node is not None and node.is_input:
            fresh.append(t)
        else:
            fresh.append(Input(batch_shape=t.shape, dtype=t.dtype, name=None))
        tensors[id(t)] = fresh[-1]
    flat_outputs = tree.flatten(outputs)
    done, _ = _walk(flat, flat_outputs)
    for node in done:
        if node.is_input or all(id(t) in tensors for t in node.output_tensors):
            continue
        if any(id(t) not in tensors and not _node_of(t).is_input for t in node.input_tensors):  # type: ignore[union-attr]
            continue  # disconnected: reported when the nodes are ordered
        args, kwargs = node.arguments.fill_in({**{id(t): t for t in node.input_tensors}, **tensors})
        made = [KerasTensor(t.shape, dtype=t.dtype) for t in node.output_tensors]
        structure = tree.pack_sequence_as(node.outputs, made)
        Node(operation=node.operation, call_args=args, call_kwargs=kwargs, outputs=structure)
        tensors.update({id(t): m for t, m in zip(node.output_tensors, made)})
    outputs = tree.map_structure(lambda t: tensors.get(id(t), t), outputs)
    return tree.pack_sequence_as(inputs, fresh), outputs
