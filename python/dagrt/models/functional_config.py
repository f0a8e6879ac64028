"""Functional models as configurations, in Keras 3's form."""

from __future__ import annotations

from typing import Any

from dagrt import tree
from dagrt.operation import Operation
from dagrt.tensor import KerasTensor


def functional_config(model: Any) -> dict[str, Any]:
    """Name, layers with the nodes of this model, inputs and outputs."""
    from dagrt.saving.serialization import serialize_keras_object

    own = {id(n) for n in model._nodes}
    index: dict[tuple[int, int], int] = {}  # (operation, its node number) -> its number in this model
    for op in model._operations:
        kept = [i for i, n in enumerate(op._inbound_nodes) if id(n) in own]
        for new, old in enumerate(kept):
            index[(id(op), old)] = new
    layers = []
    for op in model._operations:
        entry = _serialize_operation(op)
        entry["name"] = op.name
        entry["inbound_nodes"] = [
            _serialize_node(n, index) for n in op._inbound_nodes if id(n) in own and not n.is_input
        ]
        layers.append(entry)

    def place(t: KerasTensor) -> list:
        op, node, tensor = t._keras_history
        return [op.name, index[(id(op), node)], tensor]

    config: dict[str, Any] = {"name": model.name, "trainable": model.trainable, "layers": layers}
    config["input_layers"] = _structure(model._inputs_struct, place)
    config["output_layers"] = _structure(model._outputs_struct, place)
    return serialize_keras_object(config)


def _structure(struct: Any, place: Any) -> Any:
    return place(struct) if isinstance(struct, KerasTensor) else tree.map_structure(place, struct)


def _serialize_operation(op: Operation) -> dict[str, Any]:
    from dagrt.layers.layer import Layer
    from dagrt.saving.serialization import serialize_keras_object

    if isinstance(op, Layer):
        return serialize_keras_object(op)
    name = type(op).__name__
    return {
        "module": getattr(op, "keras_module", "keras.src.ops.numpy"),
        "class_name": name,
        "config": serialize_keras_object(op.get_config()),
        "registered_name": name,
    }


def _serialize_node(node: Any, index: dict) -> dict[str, Any]:
    from dagrt.saving.serialization import serialize_keras_object

    def value(x: Any) -> Any:
        if isinstance(x, KerasTensor):
            op, number, tensor = x._keras_history
            config = {
                "shape": list(x.shape),
                "dtype": x.dtype,
                "keras_history": [op.name, index[(id(op), number)], tensor],
            }
            return {"class_name": "__keras_tensor__", "config": config}
        if isinstance(x, (list, tuple)):
            return [value(v) for v in x]
        if isinstance(x, dict):
            return {k: value(v) for k, v in x.items()}
        return serialize_keras_object(x)

    return {
        "args": [value(a) for a in node.arguments.args],
        "kwargs": {k: value(v) for k, v in node.arguments.kwargs.items()},
    }


# --- reading -------------------------------------------------------------------------------------------------------


def functional_from_config(cls: Any, config: dict[str, Any], custom_objects: dict | None) -> Any:
    """Makes the layers, then calls them as their nodes say, in an order in which each finds its inputs.

    Raises:
        ValueError: nodes that no order can run, or places that do not exist.
    """
    operations: dict[str, Operation] = {}
    waiting: list[tuple[str, int, dict]] = []
    tensors: dict[tuple[str, int], list[KerasTensor]] = {}
    for entry in config["layers"]:
        op = _make_operation(entry, custom_objects)
        name = entry.get("name") or op.name
        operations[name] = op
        nodes = entry.get("inbound_nodes") or []
        if not nodes and op._inbound_nodes:
            tensors[(name, 0)] = op._inbound_nodes[0].output_tensors
        waiting += [(name, i, node) for i, node in enumerate(nodes)]
    while waiting:
        later = []
        for name, i, node in waiting:
            earlier_done = i == 0 or (name, i - 1) in tensors
            if earlier_done and all(h in tensors for h in _needed(node)):
                tensors[(name, i)] = _call(operations[name], node, tensors, custom_objects)
            else:
                later.append((name, i, node))
        if len(later) == len(waiting):
            raise ValueError(
                f"The configuration of {config.get('name')!r} makes no graph: {later[0][0]!r} lacks its inputs"
            )
        waiting = later

    def tensor(place: Any) -> KerasTensor:
        name, node, at = place[:3]
        if (name, node) not in tensors:
            present = sorted(n for (o, n) in tensors if o == name)
            if name in operations and present:  # Keras numbers a nested model's nodes from 1 in some files
                node = present[min(max(int(node) - 1, 0), len(present) - 1)]
            else:
                raise ValueError(
                    f"The configuration of {config.get('name')!r} names the tensor {place}, which is not made"
                )
        return tensors[(name, node)][at]

    return cls(
        inputs=_places(config["input_layers"], tensor),
        outputs=_places(config["output_layers"], tensor),
        name=config.get("name"),
        **({"trainable": config["trainable"]} if config.get("trainable") is False else {}),
    )


def _is_place(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple)) and len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int)
    )


def _places(value: Any, fn: Any) -> Any:
    if _is_place(value):
        return fn(value)
    if isinstance(value, dict):
        return {k: _places(v, fn) for k, v in value.items()}
    made = [_places(v, fn) for v in value]
    return made


def _make_operation(entry: dict[str, Any], custom_objects: dict | None) -> Operation:
    from dagrt.saving.serialization import deserialize_keras_object

    module = entry.get("module") or ""
    if module.startswith("keras.src.ops") or module.startswith("keras.ops"):
        from dagrt import operation

        return operation.make_function_operation(entry["class_name"], entry.get("config") or {})
    return deserialize_keras_object(entry, custom_objects)


def _history(value: Any) -> tuple[str, int, int] | None:
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        name, node, at = value["config"]["keras_history"]
        return name, node, at
    return None


def _needed(node: Any) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []

    def visit(value: Any) -> None:
        h = _history(value)
        if h is not None:
            found.append(h[:2])
        elif isinstance(value, dict):
            for v in value.values():
                visit(v)
        elif isinstance(value, (list, tuple)):
            for v in value:
                visit(v)

    visit(node.get("args", []))
    visit(node.get("kwargs", {}))
    return found


def _call(op: Operation, node: dict, tensors: dict, custom_objects: dict | None) -> list[KerasTensor]:
    from dagrt.saving.serialization import deserialize_keras_object

    def value(v: Any) -> Any:
        h = _history(v)
        if h is not None:
            return tensors[h[:2]][h[2]]
        if isinstance(v, dict) and "class_name" not in v:
            return {k: value(x) for k, x in v.items()}
        if isinstance(v, (list, tuple)):
            return [value(x) for x in v]
        return deserialize_keras_object(v, custom_objects)

    args = [value(a) for a in node.get("args", [])]
    if type(op).__name__ == "GetItem" and len(args) > 1 and isinstance(args[1], list):
        args[1] = tuple(args[1])
    kwargs = {k: value(v) for k, v in (node.get("kwargs") or {}).items()}
    kwargs = {k: v for k, v in kwargs.items() if not (k == "mask" and v is None)}
    return tree.flatten(op(*args, **kwargs))
