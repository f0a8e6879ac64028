"""Model: a layer that can be trained, saved and drawn."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from dagrt import tree
from dagrt.layers.layer import Layer
from dagrt.training.trainer import Trainer


def _is_functional_call(args: tuple, kwargs: dict) -> bool:
    return len(args) == 2 or (len(args) == 1 and "outputs" in kwargs) or ("inputs" in kwargs and "outputs" in kwargs)


def _inject_functional(cls: type) -> None:
    """Class M(Model) called with inputs and outputs becomes M(Functional), as in Keras."""
    from dagrt.models.functional import Functional

    if cls is object or issubclass(cls, Functional):
        return
    bases = tuple(Functional if base is Model else base for base in cls.__bases__)
    for base in bases:
        if base is not Functional and issubclass(base, Model):
            _inject_functional(base)
    if bases != cls.__bases__:
        cls.__bases__ = bases


class Model(Trainer, Layer):
    """A model: `Model(inputs, outputs)` from symbolic tensors, or a subclass with layers and a `call`.

    Args:
        inputs, outputs: KerasTensors in any nesting of lists, tuples and dicts.
        name: by default the class's name, numbered.

    Raises:
        ValueError: a disconnected graph, two layers of one name, an input given twice.

    Example:
        >>> import dagrt as keras
        >>> x = keras.Input((784,))
        >>> h = keras.layers.Dense(64, activation="relu")(x)
        >>> model = keras.Model(x, keras.layers.Dense(10)(h))
        >>> model.count_params()
        50890
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if _is_functional_call(args, kwargs) and cls is Model:
            from dagrt.models.functional import Functional

            return Layer.__new__(Functional, *args, **kwargs)
        return Layer.__new__(cls, *args, **kwargs)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        from dagrt.models.functional import Functional

        if _is_functional_call(args, kwargs) and not isinstance(self, Functional):
            _inject_functional(type(self))
            Functional.__init__(self, *args, **kwargs)
            return
        Trainer.__init__(self)
        Layer.__init__(self, *args, **kwargs)

    # --- structure -----------------------------------------------------------------------------------------------

    @property
    def layers(self) -> list[Layer]:
        """The direct sublayers."""
        return self._flatten_layers(include_self=False, recursive=False)

    @layers.setter
    def layers(self, value: Any) -> None:
        raise AttributeError("`Model.layers` is reserved and should not be used. Please use another name.")

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer of that name, or at that index of `layers`.

        Args:
            name: of the layer.
            index: place in `layers`; one of the two is given.

        Raises:
            ValueError: there is none; the message lists the names.
        """
        if (name is None) == (index is None):
            raise ValueError("get_layer: give a name or an index")
        layers = self.layers
        if index is not None:
            if not -len(layers) <= index < len(layers):
                raise ValueError(f"get_layer: there is no layer {index}: {self.name} has {len(layers)} layers")
            return layers[index]
        for layer in layers:
            if layer.name == name:
                return layer
        raise ValueError(f"No such layer: {name}. Existing layers are: {[l.name for l in layers]}.")

    def _declared_input_shapes(self) -> list[tuple] | None:
        return None

    def _bind_batch(self, batch: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        """Data as the steps take them: arrays, in the structure that `call` gets."""
        x, y, sample_weight = batch
        return tree.map_structure(lambda a: None if a is None else np.asarray(a), x), y, sample_weight

    def _input_group(self, x: Any) -> Any:
        """How a fast call finds the inputs in what the user gives (see StepFunction); None: it cannot."""
        return ("leaf", [0], []) if isinstance(x, np.ndarray) else None

    def build(self, input_shape: Any = None) -> None:
        """Builds a subclassed model by running it once on symbolic inputs of that shape."""
        if input_shape is None or self.built:
            return
        self._build_by_running(
            tuple(input_shape)
            if isinstance(input_shape, list) and not isinstance(input_shape[0], (list, tuple))
            else input_shape
        )

    def _build_from(self, args: tuple, kwargs: dict) -> None:
        if type(self).build is Model.build:
            self._build_shapes = {"input_shape": _shape_of(args[0])} if args else None
            self.built = True  # its layers are built as its call reaches them
            return
        super()._build_from(args, kwargs)

    # --- files ---------------------------------------------------------------------------------------------------

    def save(self, filepath: Any, overwrite: bool = True, zipped: bool | None = None, **kwargs: Any) -> None:
        """Writes the model, its weights and its optimiser's state to a `.keras` file; see `dagrt.saving.save_model`."""
        from dagrt import saving

        saving.save_model(self, filepath, overwrite=overwrite, zipped=zipped, **kwargs)

    def save_weights(self, filepath: Any, overwrite: bool = True, max_shard_size: float | None = None) -> None:
        """Writes the weights to a `.weights.h5` file."""
        from dagrt import saving

        saving.save_weights(self, filepath, overwrite=overwrite, max_shard_size=max_shard_size)

    def load_weights(self, filepath: Any, skip_mismatch: bool = False, **kwargs: Any) -> None:
        """Reads weights from a `.weights.h5` or `.keras` file; all or nothing."""
        from dagrt import saving

        saving.load_weights(self, filepath, skip_mismatch=skip_mismatch, **kwargs)

    def export(self, filepath: Any, format: str = "dagrt", input_signature: Any = None, verbose: Any = None) -> None:
        """Writes what `predict` computes to a `.dagrt` file, which `dagrt-run` and C++ programs load without Python.

        Args:
            filepath: by convention ends in ".dagrt".
            input_signature: for subclassed models: list of `dagrt.tracing.InputSpec`, or example arrays.
        """
        from dagrt import export

        export.export_model(self, filepath, format=format, input_signature=input_signature)

    def summary(
        self,
        line_length: int | None = None,
        positions: Any = None,
        print_fn: Any = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: Any = None,
    ) -> None:
        """Prints the layers with their output shapes and numbers of weights."""
        from dagrt.visualization import print_summary

        print_summary(self, line_length, positions, print_fn, expand_nested, show_trainable, layer_range)

    def profile(self, x: Any, y: Any = None, runs: int = 20) -> Any:
        """Runs the model on a batch and says where the time goes.

        Args:
            x: a batch, as for `predict_on_batch`.
            y: with targets, whole training steps are measured (they do train the model).
            runs: how many, after one that compiles.

        Returns:
            A `dagrt.profiling.Profile`: print it for a table, `.plot(path)` draws the graph coloured by time, `.save(path)`
            writes a trace for Chrome or Perfetto.

        Example:
            >>> import dagrt, numpy as np
            >>> model = dagrt.Sequential([dagrt.Input((4,)), dagrt.layers.Dense(3)])
            >>> model.profile(np.ones((2, 4)), runs=3).runs
            3
        """
        from dagrt.profiling import profile_model

        return profile_model(self, x, y, runs)

    def to_json(self, **kwargs: Any) -> str:
        """The model's configuration as JSON, without weights; `model_from_json` reads it."""
        from dagrt.saving import serialize_keras_object

        return json.dumps(serialize_keras_object(self), **kwargs)

    def get_compile_config(self) -> dict[str, Any] | None:
        from dagrt.saving import serialize_keras_object

        if not self.compiled or self._compile_config is None:
            return None
        config = dict(self._compile_config)
        config["optimizer"] = self.optimizer
        return {k: serialize_keras_object(v) for k, v in config.items()}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles the model as it was when saved."""
        from dagrt.saving import deserialize_keras_object

        if type(self).compile is not Trainer.compile:
            return
        self.compile(**{k: deserialize_keras_object(v) for k, v in config.items()})
        if self.optimizer is not None and self.built and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> Any:
        from dagrt.models.functional import Functional
        from dagrt.models.functional_config import functional_from_config

        if all(k in config for k in ("layers", "input_layers", "output_layers")):
            if cls is Model:
                cls = Functional
            return functional_from_config(cls, config, custom_objects)
        return super().from_config(config)


def _shape_of(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_shape_of(v) for v in value]
    if isinstance(value, dict):
        return {k: _shape_of(v) for k, v in value.items()}
    return tuple(value.shape)


def model_from_json(json_string: str, custom_objects: dict | None = None) -> Any:
    """The model that `to_json` described, with fresh weights.

    Args:
        json_string: what `to_json` gave.
        custom_objects: dict of names to classes and functions that are not registered.

    Raises:
        ValueError: the text is no JSON of a model.
    """
    from dagrt.saving import deserialize_keras_object

    try:
        config = json.loads(json_string)
    except json.JSONDecodeError as e:
        raise ValueError(f"model_from_json: the text is no JSON: {e}") from None
    return deserialize_keras_object(config, custom_objects=custom_objects)
