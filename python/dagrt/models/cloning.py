"""clone_model: the same architecture with weights of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dagrt import tree


def clone_model(
    model: Any,
    input_tensors: Any = None,
    clone_function: Callable | None = None,
    call_function: Callable | None = None,
    recursive: bool = False,
) -> Any:
    """A model of the same layers with fresh weights.

    Args:
        model: a Functional or Sequential model (a subclassed one is made again from its `get_config`).
        input_tensors: KerasTensors to start from, instead of new Inputs.
        clone_function: layer -> layer; by default made again from its configuration.
        call_function: (layer, *args, **kwargs) -> outputs; by default calls the layer.
        recursive: apply `clone_function` inside nested models too.

    Raises:
        ValueError: `input_tensors` that do not match the model's inputs.
    """
    from dagrt.layers.input_layer import Input, InputLayer
    from dagrt.layers.layer import Layer
    from dagrt.models.functional import Functional
    from dagrt.models.sequential import Sequential

    def make(layer: Any) -> Any:
        if recursive and isinstance(layer, (Functional, Sequential)):
            return clone_model(layer, clone_function=clone_function, call_function=call_function, recursive=True)
        if clone_function is not None and isinstance(layer, Layer):
            return clone_function(layer)
        return type(layer).from_config(layer.get_config())

    if isinstance(model, Sequential):
        layers = [l if isinstance(l, InputLayer) else make(l) for l in model._stack]
        if layers and isinstance(layers[0], InputLayer):
            first = input_tensors if input_tensors is not None else Input(batch_shape=layers[0].batch_shape)
            layers[0] = tree.flatten(first)[0]._keras_history[0]
        return Sequential(layers, name=model.name)
    if not isinstance(model, Functional):
        return type(model).from_config(model.get_config())
    if input_tensors is None:
        fresh = [
            Input(
                batch_shape=t.shape, dtype=t.dtype, name=t._keras_history[0].name, optional=t._keras_history[0].optional
            )
            for t in model._inputs
        ]
    else:
        fresh = tree.flatten(input_tensors)
        if len(fresh) != len(model._inputs):
            raise ValueError(f"clone_model: expected {len(model._inputs)} input tensors, got {len(fresh)}")
    made: dict[int, Any] = {}
    values = dict(zip(map(id, model._inputs), fresh))
    for node in model._nodes:
        if node.is_input:
            continue
        operation = node.operation
        if id(operation) not in made:
            made[id(operation)] = make(operation)
        args, kwargs = node.arguments.fill_in(values)
        clone = made[id(operation)]
        outputs = call_function(clone, *args, **kwargs) if call_function is not None else clone(*args, **kwargs)
        values.update(zip(map(id, node.output_tensors), tree.flatten(outputs)))
    return type(model)(
        tree.pack_sequence_as(model._inputs_struct, fresh),
        tree.map_structure(lambda t: values[id(t)], model._outputs_struct),
        name=model.name,
    )
