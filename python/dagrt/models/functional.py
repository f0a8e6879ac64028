"""Functional models: a layer graph between inputs and outputs."""

from __future__ import annotations

from typing import Any

from dagrt import tree
from dagrt.layers.input_layer import InputLayer
from dagrt.layers.layer import Layer
from dagrt.models import binding
from dagrt.models.graph import order_nodes, with_own_inputs
from dagrt.models.model import Model
from dagrt.tensor import KerasTensor


class Functional(Model):
    """What `Model(inputs, outputs)` makes: the graph between them, in any nesting of lists, tuples and dicts.

    Args:
        inputs: KerasTensors, from `Input` or from inside another model (a model over a sub-graph).
        outputs: KerasTensors that follow from them.
        name: by default "functional", numbered.

    Raises:
        ValueError: a disconnected graph, two layers of one name, an input given twice.

    Example:
        >>> import dagrt as keras
        >>> x = keras.Input((4,), name="x")
        >>> model = keras.Model({"x": x}, [keras.layers.Dense(2)(x), keras.layers.Dense(3)(x)])
        >>> type(model).__name__, model.output_shape
        ('Functional', [(None, 2), (None, 3)])
    """

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any) -> None:
        trainable = kwargs.pop("trainable", None)
        for what, structure in (("inputs", inputs), ("outputs", outputs)):
            for t in tree.flatten(structure):
                if not isinstance(t, KerasTensor):
                    raise ValueError(
                        f"Model: `{what}` must be symbolic tensors (from Input and layer calls), got {t!r} of type "
                        f"{type(t).__name__}"
                    )
        flat = tree.flatten(inputs)
        if len({id(t) for t in flat}) != len(flat):
            raise ValueError(f"Model: an input was given twice in {flat}")
        if not all(
            isinstance(t._keras_history[0], InputLayer) for t in flat if getattr(t, "_keras_history", None)
        ) or any(getattr(t, "_keras_history", None) is None for t in flat):
            inputs, outputs = with_own_inputs(inputs, outputs)
        super().__init__(name=name, **kwargs)
        self._inputs_struct = _plain_copy(inputs)
        self._outputs_struct = _plain_copy(outputs)
        self._inputs: list[KerasTensor] = tree.flatten(inputs)
        self._outputs: list[KerasTensor] = tree.flatten(outputs)
        self._nodes, self._operations = order_nodes(self._inputs, self._outputs, self.name)
        self.supports_masking = True
        self.built = True
        if trainable is not None:
            self.trainable = trainable

    # --- structure -----------------------------------------------------------------------------------------------

    @property
    def operations(self) -> list[Any]:
        return list(self._operations)

    @property
    def layers(self) -> list[Layer]:
        return [o for o in self._operations if isinstance(o, Layer)]

    @property
    def _layers(self) -> list[Layer]:
        found = self.layers
        known = {id(l) for l in found}
        return found + [l for l in super()._layers if id(l) not in known]

    @property
    def inputs(self) -> list[KerasTensor]:
        return list(self._inputs)

    @property
    def outputs(self) -> list[KerasTensor]:
        return list(self._outputs)

    @property
    def input(self) -> Any:
        return self._inputs_struct

    @property
    def output(self) -> Any:
        return self._outputs_struct

    @property
    def input_shape(self) -> Any:
        return tree.map_structure(lambda t: t.shape, self._inputs_struct)

    @property
    def output_shape(self) -> Any:
        return tree.map_structure(lambda t: t.shape, self._outputs_struct)

    @property
    def input_names(self) -> list[str]:
        return binding.input_names(self._inputs_struct)

    @property
    def output_names(self) -> list[str]:
        """Names of the heads: the keys of dict outputs, else the names of the layers they come from."""
        if isinstance(self._outputs_struct, dict):
            return [str(k) for k in self._outputs_struct]
        names: list[str] = []
        for t in self._outputs:
            base = t._keras_history[0].name
            name, n = base, 1
            while name in names:  # one layer, two outputs
                name, n = f"{base}_{n}", n + 1
            names.append(name)
        return names

    def _declared_input_shapes(self) -> list[tuple]:
        return [t.shape for t in self._inputs]

    # --- running -------------------------------------------------------------------------------------------------

    def build(self, input_shape: Any = None) -> None:
        """Nothing to do: a Functional model is built from the start."""

    def _converted(self, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Binds what was given to the inputs: by name, by position, with Keras's repairs of rank and dtype."""
        if not args and "inputs" in kwargs:
            kwargs = dict(kwargs)
            args = (kwargs.pop("inputs"),)
        if not args:
            raise ValueError(f"{self._who()}: expected inputs, got none")
        bound = binding.bind(self._inputs_struct, args[0], self._who(), binding.tensor_leaf)
        return (bound, *args[1:]), kwargs

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        values = dict(zip(map(id, self._inputs), tree.flatten(inputs)))
        if mask is not None:
            for t, m in zip(tree.flatten(inputs), tree.flatten(mask)):
                if m is not None:
                    t._keras_mask = m
        for node in self._nodes:
            if node.is_input:
                continue
            args, kwargs = node.arguments.fill_in(values)
            outputs = node.operation(*args, **kwargs)
            values.update(zip(map(id, node.output_tensors), tree.flatten(outputs)))
        results = tree.map_structure(lambda t: values[id(t)], self._outputs_struct)
        # A list of one output answers with the output itself, as in Keras.
        return results[0] if isinstance(results, (list, tuple)) and len(results) == 1 else results

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return None  # the layers inside have set the outputs' masks

    def _bind_batch(self, batch: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        x, y, sample_weight = batch
        return binding.bind(self._inputs_struct, x, self._who(), binding.array_leaf), y, sample_weight

    def _input_group(self, x: Any) -> Any:
        struct = self._inputs_struct
        if isinstance(struct, KerasTensor):
            return "leaf list tuple dict", [0], binding.input_names(struct)
        flat = list(struct.values()) if isinstance(struct, dict) else struct
        if not all(isinstance(t, KerasTensor) for t in flat) or any(a is None for a in tree.flatten(x)):
            return None
        if isinstance(struct, dict):
            keys = sorted(struct)  # the order of the arrays
            return "list tuple dict", [list(struct).index(k) for k in keys], keys
        return "list tuple dict", list(range(len(flat))), binding.input_names(struct)

    # --- files ---------------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        from dagrt.models.functional_config import functional_config

        if type(self).__init__ is not Functional.__init__ and Functional not in type(self).__bases__:
            return Model.get_config(self)
        return functional_config(self)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> Any:
        from dagrt.models.functional_config import functional_from_config

        if "layers" in config and "input_layers" in config and "output_layers" in config:
            return functional_from_config(cls, config, custom_objects)
        return cls(**config)


def _plain_copy(structure: Any) -> Any:
    """The structure in containers of its own, so that the caller's list may change later."""
    return tree.map_structure(lambda t: t, structure) if isinstance(structure, (list, tuple, dict)) else structure
