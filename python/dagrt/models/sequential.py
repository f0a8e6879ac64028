"""Sequential: a plain stack of layers."""

from __future__ import annotations

from typing import Any

from dagrt.layers.input_layer import Input, InputLayer
from dagrt.layers.layer import Layer
from dagrt.models.functional import Functional
from dagrt.models.model import Model
from dagrt.tensor import KerasTensor


class Sequential(Model):
    """Layers, each on the output of the one before.

    Args:
        layers: the layers; the first may be an Input, else the model is built on first data.
        trainable: whether `fit` may change the weights.
        name: by default "sequential", numbered.

    Raises:
        ValueError: no layer, an Input that is not the first, two layers of one name.

    Example:
        >>> import dagrt as keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> model.output_shape
        (None, 2)
    """

    def __init__(self, layers: Any = None, trainable: bool = True, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name=name, trainable=trainable, **kwargs)
        self._stack: list[Layer] = []
        self._functional: Functional | None = None
        self.supports_masking = True
        for layer in [layers] if isinstance(layers, Layer) else layers or []:
            self._append(layer)
        self._maybe_rebuild()

    # --- the stack -----------------------------------------------------------------------------------------------

    def add(self, layer: Any, rebuild: bool = True) -> None:
        """Puts a layer on top.

        Args:
            layer: a layer, an Input or a function.
            rebuild: build the stack anew at once.

        Raises:
            ValueError: not a layer, an Input that is not the first, or a name that is taken.
        """
        self._append(layer)
        if rebuild:
            self._maybe_rebuild()

    def _append(self, layer: Any) -> None:
        if isinstance(layer, KerasTensor):
            layer = layer._keras_history[0]
        if not isinstance(layer, Layer):
            if hasattr(layer, "numpy") or not callable(layer):
                raise ValueError(
                    f"Only instances of `keras.Layer` can be added to a Sequential model. Received: {layer} (of type "
                    f"{type(layer)})"
                )
            from dagrt.layers import Lambda

            layer = Lambda(layer)
        if any(layer.name == l.name for l in self._stack):
            raise ValueError(
                f"All layers added to a Sequential model should have unique names. Name '{layer.name}' is already the name "
                "of a layer in this model. Update the `name` argument to pass a unique name."
            )
        if isinstance(layer, InputLayer) and self._stack:
            raise ValueError(
                f"Sequential model '{self.name}' has already been configured to use input shape "
                f"{self._stack[0].batch_shape if isinstance(self._stack[0], InputLayer) else '(of its first layer)'}. "
                "You cannot add a different Input layer to it."
            )
        if not self._stack and layer._input_shape_arg is not None:
            self._stack.append(Input(layer._input_shape_arg)._keras_history[0])
        elif not self._stack and isinstance(layer, Functional) and not isinstance(layer.input, (list, tuple, dict)):
            self._stack.append(Input(batch_shape=layer.input_shape, dtype=layer.inputs[0].dtype)._keras_history[0])
        self._stack.append(layer)

    def pop(self, rebuild: bool = True) -> Layer:
        """Takes the top layer off and returns it.

        Args:
            rebuild: build the stack anew at once.

        Raises:
            ValueError: there are no layers.
        """
        if not self.layers:
            raise ValueError(f"pop: Sequential model '{self.name}' has no layers")
        layer = self._stack.pop()
        self.built = False
        self._functional = None
        self._clear_steps()
        if rebuild:
            self._maybe_rebuild()
        return layer

    def _maybe_rebuild(self) -> None:
        self.built = False
        self._functional = None
        self._clear_steps()
        if len(self._stack) > 1 and isinstance(self._stack[0], InputLayer):
            self.build(self._stack[0].batch_shape)

    @property
    def layers(self) -> list[Layer]:
        layers = self._stack
        return layers[1:] if layers and isinstance(layers[0], InputLayer) else list(layers)

    @property
    def _layers(self) -> list[Layer]:
        return list(self._stack)

    def _build_from(self, args: tuple, kwargs: dict) -> None:
        x = args[0] if args else None
        if not hasattr(x, "shape"):
            raise ValueError(f"{self._who()}: a Sequential model takes one tensor, got {type(x).__name__}")
        self._build_functional((None, *x.shape[1:]), x.dtype)

    def build(self, input_shape: Any = None) -> None:
        """Builds the layers for inputs of that shape (with the batch axis)."""
        first = self._stack[0] if self._stack else None
        if first is None:
            raise ValueError(
                f"Sequential model {self.name} cannot be built because it has no layers. Call `model.add(layer)`."
            )
        dtype = first.get_config()["dtype"] if isinstance(first, InputLayer) else None
        self._build_functional(tuple(input_shape), dtype)

    def _build_functional(self, shape: tuple, dtype: Any) -> None:
        if isinstance(self._stack[0], InputLayer):
            start = self._stack[0]
        else:
            start = Input(batch_shape=shape, dtype=str(dtype) if dtype else None)._keras_history[0]
            self._stack.insert(0, start)
        inputs = start._inbound_nodes[0].output_tensors[0]
        x = inputs
        for layer in self._stack[1:]:
            x = layer(x)
        self._functional = Functional(inputs, x, name=self.name)
        self.built = True
        self._build_shapes = {"input_shape": inputs.shape}
        if not self._trainable:
            self._set_flags(False)

    # --- running -------------------------------------------------------------------------------------------------

    def _built_functional(self) -> Functional:
        if self._functional is None:
            raise ValueError(
                f"Sequential model '{self.name}' has no defined input shape yet. Start it with an Input, or call it on data."
            )
        return self._functional

    def _converted(self, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if not args and "inputs" in kwargs:
            kwargs = dict(kwargs)
            args = (kwargs.pop("inputs"),)
        if self._functional is not None and args:
            return self._functional._converted(args, kwargs)
        return super()._converted(args, kwargs)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return self._built_functional().call(inputs, training=training, mask=mask)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return None

    def compute_output_shape(self, input_shape: Any) -> Any:
        x = KerasTensor(tuple(input_shape))
        for layer in self.layers:
            x = layer.compute_output_spec(x) if layer.built else layer(x)
        return x.shape

    def _bind_batch(self, batch: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        if self._functional is None:
            if not self._stack:
                raise ValueError(f"Sequential model {self.name} has no layers. Call `model.add(layer)`.")
            x = batch[0]
            if not hasattr(x, "shape"):
                raise ValueError(f"{self._who()}: a Sequential model takes one array, got {type(x).__name__}")
            self._build_functional((None, *x.shape[1:]), x.dtype.name)
        return self._built_functional()._bind_batch(batch)

    def _input_group(self, x: Any) -> Any:
        return self._built_functional()._input_group(x)

    def _declared_input_shapes(self) -> list[tuple] | None:
        return self._functional._declared_input_shapes() if self._functional is not None else None

    @property
    def inputs(self) -> list[KerasTensor]:
        return self._built_functional().inputs

    @property
    def outputs(self) -> list[KerasTensor]:
        return self._built_functional().outputs

    @property
    def input(self) -> Any:
        return self._built_functional().input

    @property
    def output(self) -> Any:
        return self._built_functional().output

    @property
    def input_shape(self) -> Any:
        return self._built_functional().input_shape

    @property
    def output_shape(self) -> Any:
        return self._built_functional().output_shape

    @property
    def input_names(self) -> list[str]:
        return self._built_functional().input_names

    @property
    def output_names(self) -> list[str]:
        return self._built_functional().output_names

    @property
    def operations(self) -> list[Any]:
        return self._built_functional().operations

    @property
    def _nodes(self) -> list[Any]:
        return self._built_functional()._nodes

    # --- files ---------------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        from dagrt.saving import serialize_keras_object

        config = Layer.get_config(self)
        config["layers"] = [serialize_keras_object(layer) for layer in self._stack]
        if self._functional is not None:
            config["build_input_shape"] = list(self._stack[0].batch_shape)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> Sequential:
        from dagrt import tracing
        from dagrt.saving import deserialize_keras_object

        model = cls(name=config.get("name"), trainable=config.get("trainable", True))
        with tracing.path_scope(
            model.name
        ):  # layers are built as they are read: their weights' paths begin with the model
            layers = [deserialize_keras_object(layer, custom_objects) for layer in config["layers"]]
        for layer in layers:
            model.add(layer, rebuild=False)
        model._maybe_rebuild()
        if not model.built and config.get("build_input_shape"):
            model.build(tuple(config["build_input_shape"]))
        return model
