"""Layer: weights and a computation over `dagrt.ops`, with Keras 3's contract.

A layer's call is Python that runs on whatever it gets: on KerasTensors it is run once in a scratch trace to learn the
outputs' shapes, and the call becomes a node of the layer graph; in a trace it emits ops; on arrays it runs op by op.
There is no list of children: sublayers, metrics and seed generators are found where they are, in the attributes.
"""

from __future__ import annotations

import functools
import inspect
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dagrt import tree
from dagrt.layers.input_spec import InputSpec, assert_input_compatibility
from dagrt.layers.policy import DTypePolicy, get_policy
from dagrt.operation import Node, Operation
from dagrt.tensor import KerasTensor, Tensor
from dagrt.variable import Variable

__all__ = ["DTypePolicy", "InputSpec", "Layer"]

_running = threading.local()  # .layers: those whose build or call is running on this thread, outermost first


def _stack() -> list[Any]:
    stack = getattr(_running, "layers", None)
    if stack is None:
        stack = _running.layers = []
    return stack


class _Scope:
    """While a layer builds or runs: its name leads variables' and nodes' paths. Entering twice counts once."""

    __slots__ = ("_entered", "_layer", "_path")

    def __init__(self, layer: Layer) -> None:
        self._layer = layer

    def __enter__(self) -> None:
        from dagrt import tracing

        stack = _stack()
        self._entered = not stack or stack[-1] is not self._layer
        if self._entered:
            stack.append(self._layer)
            self._path = tracing.path_scope(self._layer.name)
            self._path.__enter__()

    def __exit__(self, *error: Any) -> None:
        if self._entered:
            _stack().pop()
            self._path.__exit__(*error)


def _wrap_build(build: Callable) -> Callable:
    @functools.wraps(build)
    def wrapper(self: Layer, *args: Any, **kwargs: Any) -> None:
        if kwargs.keys() == {"input_shape"} and "input_shape" not in inspect.signature(build).parameters:
            args, kwargs = (kwargs["input_shape"],), {}
        outermost = "_building" not in self.__dict__
        if outermost:
            object.__setattr__(self, "_building", True)
        try:
            with _Scope(self):
                build(self, *args, **kwargs)
        finally:
            if outermost:
                object.__delattr__(self, "_building")
        self.built = True
        if outermost:
            if self._build_shapes is None:
                names = list(inspect.signature(build).parameters)[1:]
                self._build_shapes = {**dict(zip(names, args)), **kwargs}
            if not self._trainable:
                self._set_flags(False)

    wrapper._wrapped = True  # type: ignore[attr-defined]
    return wrapper


class CallSignature:
    """What of `call` a layer needs to know: its parameters, in order."""

    def __init__(self, call: Callable) -> None:
        signature = inspect.signature(call)
        self.parameters = [p for p in signature.parameters.values() if p.name != "self"]
        names = [p.name for p in self.parameters]
        self.has_training = "training" in names or any(p.kind is p.VAR_KEYWORD for p in self.parameters)
        self.training_named = "training" in names
        self.has_mask = "mask" in names
        self.first = names[0] if names else None
        self.mask_names = [n for n in names if n.endswith("_mask")]
        self.positional = [p.name for p in self.parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        self.training_default = next((p.default for p in self.parameters if p.name == "training"), None)


class _InitSignature:
    """A class's signature is its __init__'s: Python 3.11.2 shows __new__'s where the class inherits both."""

    def __get__(self, instance: Any, owner: type) -> inspect.Signature:
        if instance is not None:
            raise AttributeError("__signature__")
        signature = inspect.signature(owner.__init__)  # type: ignore[misc]
        return signature.replace(parameters=list(signature.parameters.values())[1:])


class Layer(Operation):
    """A callable with weights.

    Subclasses write `build(input_shape)`, which creates weights with `add_weight`, and `call(inputs)`, in terms of
    `dagrt.ops`; `call` runs in C++ like any layer of dagrt's own. A layer without weights of its own needs no `build`, one
    without arguments of its own no `get_config`. All layers take these arguments:

    Args:
        activity_regularizer: regulariser of the outputs, its value divided by the batch size.
        trainable: whether `fit` may change the weights.
        dtype: dtype or policy; float32 by default.
        autocast: cast floating inputs to the compute dtype.
        name: unique in a model; by default the class's name in snake_case, numbered.

    Raises:
        ValueError: an argument that is none of these.

    Example:
        >>> import dagrt as keras
        >>> class Scale(keras.layers.Layer):
        ...     def build(self, input_shape):
        ...         self.factor = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="factor")
        ...     def call(self, inputs):
        ...         return inputs * self.factor
        >>> Scale()([[1.0, 2.0]]).numpy()
        array([[1., 2.]], dtype=float32)
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        build = cls.__dict__.get("build")
        if build is not None and not getattr(build, "_wrapped", False):
            cls.build = _wrap_build(build)  # type: ignore[method-assign]

    __signature__ = _InitSignature()

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        self = object.__new__(cls)
        object.__setattr__(self, "_init_args", (args, kwargs))
        return self

    def __init__(
        self,
        *,
        activity_regularizer: Any = None,
        trainable: bool = True,
        dtype: Any = None,
        autocast: bool = True,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        input_shape = kwargs.pop("input_shape", None)
        input_dim = kwargs.pop("input_dim", None)
        if "batch_input_shape" in kwargs:
            input_shape = tuple(kwargs.pop("batch_input_shape"))[1:]
        kwargs.pop("quantization_config", None)
        if kwargs:
            raise ValueError(f"Unrecognized keyword arguments passed to {type(self).__name__}: {kwargs}")
        super().__init__(name=name)
        if activity_regularizer is not None:
            from dagrt import regularizers

            activity_regularizer = regularizers.get(activity_regularizer)
        self.activity_regularizer = activity_regularizer
        self._input_shape_arg = tuple(input_shape) if input_shape is not None else (input_dim,) if input_dim else None
        self._policy = get_policy(dtype)
        self.autocast = autocast
        self._trainable = bool(trainable)
        self.built = False
        self.supports_masking = False
        self.input_spec: Any = None
        self._build_shapes: dict[str, Any] | None = None
        self._own_trainable: list[Variable] = []
        self._own_non_trainable: list[Variable] = []
        self._added_losses: list[Any] = []
        self._losses_of: Any = None  # the trace that _added_losses belong to
        self._call_signature = CallSignature(type(self).call)

    # --- attributes ----------------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Variable):
            if "_own_trainable" not in self.__dict__:
                raise RuntimeError(
                    f"{type(self).__name__}: call super().__init__() before setting the attribute {name!r}"
                )
            self._track_variable(value)
        object.__setattr__(self, name, value)

    def _track_variable(self, v: Variable) -> None:
        if any(v is w for w in self._own_trainable + self._own_non_trainable):
            return
        (self._own_trainable if v.trainable else self._own_non_trainable).append(v)

    def _children(self) -> Iterator[Any]:
        """Objects with state in this layer's attributes, in order: layers, metrics, seed generators."""
        for name, value in self.__dict__.items():
            if name not in _BOOKKEEPING:
                yield from _stateful(value)

    @property
    def _layers(self) -> list[Layer]:
        return [c for c in self._children() if isinstance(c, Layer)]

    @property
    def _metrics(self) -> list[Any]:
        from dagrt.metrics import Metric

        return [c for c in self._children() if isinstance(c, Metric)]

    def _flatten_layers(self, include_self: bool = True, recursive: bool = True) -> list[Layer]:
        """This layer and all below, each once, depth first."""
        found: list[Layer] = []
        seen: set[int] = set()

        def visit(layer: Layer, add: bool) -> None:
            if id(layer) in seen:
                return
            seen.add(id(layer))
            if add:
                found.append(layer)
            if layer is self or recursive:
                for child in layer._layers:
                    visit(child, True)

        visit(self, include_self)
        return found

    # --- dtype ---------------------------------------------------------------------------------------------------

    @property
    def dtype_policy(self) -> DTypePolicy:
        return self._policy

    @dtype_policy.setter
    def dtype_policy(self, value: Any) -> None:
        self._policy = get_policy(value)

    @property
    def dtype(self) -> str:
        return self._policy.variable_dtype

    variable_dtype = dtype

    @property
    def compute_dtype(self) -> str:
        return self._policy.compute_dtype

    @property
    def input_dtype(self) -> str:
        return self._policy.compute_dtype

    @property
    def path(self) -> str:
        return getattr(self, "_path_when_built", None) or self.name

    # --- weights -------------------------------------------------------------------------------------------------

    def build(self, input_shape: Any) -> None:
        """Creates the weights. Subclasses override it; the default has none to create."""

    build = _wrap_build(build)

    def add_weight(
        self,
        shape: Any = None,
        initializer: Any = None,
        dtype: Any = None,
        trainable: bool = True,
        autocast: bool = True,
        regularizer: Any = None,
        constraint: Any = None,
        aggregation: str = "none",
        overwrite_with_gradient: bool = False,
        name: str | None = None,
    ) -> Variable:
        """A new variable of this layer.

        Args:
            shape: sizes, () by default.
            initializer: name, initializer or function of (shape, dtype); by default Glorot uniform for floats, else zeros.
            dtype: the layer's variable dtype by default.
            trainable: whether the optimiser changes it.
            autocast: read it in the compute dtype where a policy has another.
            regularizer: added to the model's loss.
            constraint: applied after each optimiser step.
            aggregation, overwrite_with_gradient: kept for Keras's sake.
            name: last part of the variable's path.

        Raises:
            ValueError: a size that is not known: weights need numbers.
        """
        from dagrt import constraints, initializers, regularizers

        shape = () if shape is None else (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        for d in shape:
            if d is None:
                raise ValueError(
                    f"{self.name} ({type(self).__name__}): the weight {name or ''!r} of shape {shape} needs known sizes. "
                    "Give the Input a number on that axis."
                )
        dtype = str(get_policy(dtype).variable_dtype) if dtype is not None else self.variable_dtype
        if initializer is None:
            initializer = "glorot_uniform" if "float" in dtype else "zeros"
        with _Scope(self):
            v = Variable(
                initializers.get(initializer),
                shape=shape,
                dtype=dtype,
                trainable=trainable,
                autocast=autocast,
                aggregation=aggregation,
                name=name,
            )
        v.regularizer = regularizers.get(regularizer)
        v.constraint = constraints.get(constraint)
        v.overwrite_with_gradient = overwrite_with_gradient
        self._track_variable(v)
        return v

    @property
    def variables(self) -> list[Variable]:
        """All state: weights, seeds of random layers, metrics."""
        found = list(self._own_trainable) + list(self._own_non_trainable)
        seeds = [c.state for c in self._children() if type(c).__name__ == "SeedGenerator"]
        seen = {id(v) for v in found}
        for v in [*seeds, *(v for layer in self._layers for v in layer.variables)]:
            if id(v) not in seen:
                seen.add(id(v))
                found.append(v)
        return found

    @property
    def weights(self) -> list[Variable]:
        """Trainable, then other weights of this layer, then those of its sublayers."""
        found = list(self._own_trainable) + list(self._own_non_trainable)
        seen = {id(v) for v in found}
        for layer in self._layers:
            for v in layer.weights:
                if id(v) not in seen:
                    seen.add(id(v))
                    found.append(v)
        return found

    @property
    def trainable_variables(self) -> list[Variable]:
        return [v for v in self.variables if v.trainable] if self._trainable else []

    @property
    def non_trainable_variables(self) -> list[Variable]:
        return [v for v in self.variables if not v.trainable] if self._trainable else self.variables

    @property
    def trainable_weights(self) -> list[Variable]:
        return [v for v in self.weights if v.trainable] if self._trainable else []

    @property
    def non_trainable_weights(self) -> list[Variable]:
        return [v for v in self.weights if not v.trainable] if self._trainable else self.weights

    @property
    def trainable(self) -> bool:
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._set_flags(bool(value))

    def _set_flags(self, value: bool) -> None:
        self._trainable = value
        for v in self._own_trainable:
            v.trainable = value
        for layer in self._layers:
            layer._set_flags(value)

    def get_weights(self) -> list[np.ndarray]:
        """Copies of all weights, in the order of `weights`."""
        return [v.numpy() for v in self.weights]

    def set_weights(self, weights: Any) -> None:
        """Sets all weights.

        Args:
            weights: arrays in the order of `weights`, as `get_weights` gives them.

        Raises:
            ValueError: another number or other shapes; nothing was changed then.
        """
        own = self.weights
        values = [np.asarray(w.numpy() if hasattr(w, "numpy") else w) for w in weights]
        if len(values) != len(own):
            raise ValueError(f"{self.name}: set_weights expected {len(own)} arrays, got {len(values)}")
        for v, a in zip(own, values):
            if tuple(v.shape) != a.shape:
                raise ValueError(
                    f"{self.name}: set_weights expected shape {tuple(v.shape)} for {v.path}, got {a.shape}"
                )
        for v, a in zip(own, values):
            v.assign(a)

    def count_params(self) -> int:
        """The number of weights, as scalars.

        Raises:
            ValueError: the layer has no weights yet.
        """
        if not self.built and not self.weights:
            raise ValueError(f"{self.name}: has no weights yet; call it on data, or build() it, before counting them")
        return sum(int(np.prod(v.shape)) for v in self.weights)

    # --- losses --------------------------------------------------------------------------------------------------

    def add_loss(self, loss: Any) -> None:
        """Adds to the loss of the model, from within `call`.

        Args:
            loss: a scalar, or several in a list.

        Example:
            >>> import dagrt as keras
            >>> class Sparse(keras.layers.Layer):
            ...     def call(self, inputs):
            ...         self.add_loss(0.5 * keras.ops.sum(keras.ops.abs(inputs)))
            ...         return inputs
            >>> layer = Sparse()
            >>> y = layer([1.0, -3.0])
            >>> float(layer.losses[0])
            2.0
        """
        from dagrt import tracing

        trace = tracing.current_trace()
        if trace is not None and getattr(trace, "scratch", False):
            return
        self._claim_losses(trace)
        self._added_losses += [x for x in tree.flatten(loss) if x is not None]

    def _claim_losses(self, trace: Any) -> None:
        if self._losses_of is not trace:
            object.__setattr__(self, "_added_losses", [])
            object.__setattr__(self, "_losses_of", trace)

    def _clear_losses(self) -> None:
        for layer in self._flatten_layers():
            layer._added_losses.clear()

    @property
    def losses(self) -> list[Any]:
        """Scalars from `add_loss` and activity regularisers in this trace, then those of weights' regularisers."""
        from dagrt import tracing

        trace = tracing.current_trace()
        found: list[Any] = []
        for layer in self._flatten_layers():
            if layer._losses_of is trace:
                found += layer._added_losses
        for v in self.trainable_weights:
            if v.regularizer is not None:
                found.append(v.regularizer(v))
        return found

    # --- calling -------------------------------------------------------------------------------------------------

    def call(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not have a `call()` method: write one, over dagrt.ops")

    @property
    def _call_has_training_arg(self) -> bool:
        return self._call_signature.has_training

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from dagrt import tracing

        if "_own_trainable" not in self.__dict__:
            raise RuntimeError(f"{type(self).__name__}: its __init__ must call super().__init__() first")
        args, kwargs = self._converted(args, kwargs)
        symbolic = _any_symbolic(args, kwargs)
        outermost = not _stack()
        if (
            outermost
            and not symbolic
            and not tracing.in_trace()
            and any(l._added_losses for l in self._flatten_layers())
        ):
            self._clear_losses()
        if not self.built:
            self._build_from(args, kwargs)
        if self.input_spec is not None and args:
            assert_input_compatibility(self.input_spec, args[0], self._who())
        if symbolic:
            return self._symbolic(args, kwargs)
        return self._run(args, kwargs)

    def _who(self) -> str:
        return f"{self.name} ({type(self).__name__})"

    def _converted(self, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Arrays become tensors; floating ones get the compute dtype."""
        if len(args) == 1 and not kwargs and type(args[0]) is not list and isinstance(args[0], Tensor):
            x = self._convert(args[0])
            return (x,), kwargs
        args = tuple(self._convert_first(a) if i == 0 else self._convert_tree(a) for i, a in enumerate(args))
        return args, {k: self._convert_tree(v) for k, v in kwargs.items()}

    def _convert_first(self, value: Any) -> Any:
        """The inputs: lists of numbers are one array, lists of tensors are lists."""
        if (isinstance(value, (list, tuple)) and value and all(_is_plain(v) for v in value)) or (
            isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        ):
            value = np.asarray(value)
        return self._convert_tree(value)

    def _convert_tree(self, value: Any) -> Any:
        if isinstance(value, (list, tuple, dict)):
            return tree.map_structure(self._convert, value)
        return self._convert(value)

    def _convert(self, x: Any) -> Any:
        if isinstance(x, Tensor):
            if self.autocast and "float" in x.dtype and x.dtype != self.compute_dtype and "float" in self.compute_dtype:
                from dagrt import ops

                mask = getattr(x, "_keras_mask", None)
                x = ops.cast(x, self.compute_dtype)
                if mask is not None:
                    x._keras_mask = mask
            return x
        if x is None or isinstance(x, (bool, int, float, str, Variable)):
            return x
        if hasattr(x, "__array__"):
            from dagrt import ops

            array = np.asarray(x)
            if array.dtype.kind in "OUSM":
                raise TypeError(f"{self._who()}: expected numbers, got an array of {array.dtype}")
            return self._convert(ops.convert_to_tensor(array))
        return x

    def _symbolic(self, args: tuple, kwargs: dict) -> Any:
        outputs = self.compute_output_spec(*args, **kwargs)
        Node(operation=self, call_args=args, call_kwargs=kwargs, outputs=outputs)
        return outputs

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """KerasTensors like the outputs, found by running the layer in a scratch trace."""
        from dagrt import tracing

        stack = _stack()
        held, stack[:] = list(stack), []
        try:
            return tracing.infer_outputs(self._run_converted, args, kwargs)
        finally:
            stack[:] = held

    def _run_converted(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(args, kwargs)

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:
        """Shapes of the outputs for the shapes of the inputs, found by running the layer on symbols.

        Args:
            args, kwargs: shapes as tuples, nested as `call` takes its tensors.

        Example:
            >>> import dagrt as keras
            >>> keras.layers.Flatten().compute_output_shape((None, 4, 5))
            (None, 20)
        """

        def spec(shape: Any) -> Any:
            if _is_shape(shape):
                return KerasTensor(tuple(shape), dtype=self._spec_dtype())
            if isinstance(shape, dict):
                return {k: spec(v) for k, v in shape.items()}
            return [spec(s) for s in shape]

        if not self.built:
            self.build(*args, **kwargs)
        outputs = self.compute_output_spec(
            *[spec(a) for a in args], **{k.removesuffix("_shape"): spec(v) for k, v in kwargs.items()}
        )
        return tree.map_structure(lambda t: t.shape, outputs)

    def _spec_dtype(self) -> str:
        return self.compute_dtype

    def _run(self, args: tuple, kwargs: dict) -> Any:
        from dagrt import _core, tracing

        signature = self._call_signature
        first = args[0] if args else kwargs.get(signature.first) if signature.first else None
        masks = _masks(first)
        kwargs = self._with_masks(signature, args, kwargs, masks)
        training, kwargs = self._with_training(signature, args, kwargs)
        try:
            with _Scope(self), tracing.training_scope(training), tracing.autocast_scope(self._autocast_dtype()):
                outputs = self.call(*args, **kwargs)
        except _core.Error as e:
            raise self._located(e, first) from e.__cause__
        if self.supports_masking:
            self._set_masks(first, outputs, masks)
        elif masks is not None and any(m is not None for m in tree.flatten(masks)):
            warnings.warn(
                f"Layer '{self.name}' (of type {type(self).__name__}) was passed an input with a mask attached to it. "
                "However, this layer does not support masking and will therefore destroy the mask information. "
                "Downstream layers will not see the mask.",
                stacklevel=3,
            )
        if self.activity_regularizer is not None:
            from dagrt import ops

            with _Scope(self):
                for y in tree.flatten(outputs):
                    rows = ops.shape(y)[0] if y.ndim else 1
                    self.add_loss(self.activity_regularizer(y) / ops.cast(rows, y.dtype))
        return outputs

    def _autocast_dtype(self) -> str | None:
        kind = self.compute_dtype
        return kind if self.autocast and kind in ("float16", "bfloat16") else None

    def _with_masks(self, signature: CallSignature, args: tuple, kwargs: dict, masks: Any) -> dict:
        if signature.has_mask and kwargs.get("mask") is None and masks is not None:
            at = signature.positional.index("mask") if "mask" in signature.positional else None
            if (at is None or len(args) <= at) and any(m is not None for m in tree.flatten(masks)):
                kwargs = {**kwargs, "mask": masks}
        for name in signature.mask_names:
            source = name.removesuffix("_mask")
            if kwargs.get(name) is not None or source not in signature.positional:
                continue
            at, mask_at = signature.positional.index(source), signature.positional.index(name)
            value = args[at] if at < len(args) else kwargs.get(source)
            mask = getattr(value, "_keras_mask", None)
            if mask is not None and len(args) <= mask_at:
                kwargs = {**kwargs, name: mask}
        return kwargs

    def _with_training(self, signature: CallSignature, args: tuple, kwargs: dict) -> tuple[Any, dict]:
        """The flag by Keras's order: given, inherited from the layer around, call's default."""
        from dagrt import tracing

        training = kwargs.get("training")
        if training is None and signature.training_named and "training" in signature.positional:
            at = signature.positional.index("training")
            if len(args) > at:
                return (args[at] if args[at] is not None else tracing.current_training()), kwargs
        if training is None:
            training = tracing.current_training()
        if training is None and signature.training_named and signature.training_default is not inspect.Parameter.empty:
            training = signature.training_default
        if isinstance(training, np.bool_):
            training = bool(training)
        if signature.training_named:
            kwargs = {**kwargs, "training": training}
        elif "training" in kwargs and not signature.has_training:
            kwargs = {k: v for k, v in kwargs.items() if k != "training"}
        return training, kwargs

    def _located(self, error: Exception, inputs: Any) -> Exception:
        """The error with this layer and its inputs in front; outer layers leave it as it is."""
        if getattr(error, "_layer_named", False):
            return error
        got = ", ".join(
            f"{_origin(t)}shape {tuple(t.shape)} and dtype {t.dtype}"
            for t in tree.flatten(inputs)
            if isinstance(t, Tensor)
        )
        text = str(error)
        if not text.startswith(self._who()):
            text = f"{self._who()}: {text}"
        located = type(error)(text + (f". Its input has {got}." if got else ""))
        located._layer_named = True  # type: ignore[attr-defined]
        return located

    # --- masks ---------------------------------------------------------------------------------------------------

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """The mask of the outputs; by default that of the inputs. Override it in a layer that has `supports_masking`.

        Args:
            inputs: as `call` got them.
            previous_mask: their mask, or masks in the same nesting.
        """
        return previous_mask

    def _set_masks(self, inputs: Any, outputs: Any, masks: Any) -> None:
        flat = [y for y in tree.flatten(outputs) if isinstance(y, Tensor)]
        if flat and all(getattr(y, "_keras_mask", None) is not None for y in flat):
            return
        computed = self.compute_mask(inputs, masks)
        if computed is None:
            return
        flat_masks = tree.flatten(computed) if isinstance(computed, (list, tuple, dict)) else [computed]
        for y, mask in zip(flat, flat_masks):
            if mask is not None and getattr(y, "_keras_mask", None) is None:
                y._keras_mask = mask

    # --- building ------------------------------------------------------------------------------------------------

    def _build_from(self, args: tuple, kwargs: dict) -> None:
        parameters = list(inspect.signature(type(self).build).parameters)[1:]
        shapes = {}
        for name, value in [*zip(self._call_signature.positional, args), *kwargs.items()]:
            if name in ("training", "mask") or not _has_tensor(value):
                continue
            shapes[name] = _shapes(value)
        if len(parameters) > 1 and all(p.endswith("_shape") for p in parameters):
            given = {p: shapes[p.removesuffix("_shape")] for p in parameters if p.removesuffix("_shape") in shapes}
            if given:
                self.build(**given)
                return
        if not shapes:
            self.build(None)
            return
        self.build(next(iter(shapes.values())))

    def get_build_config(self) -> dict[str, Any] | None:
        """The shapes `build` was called with, for files."""
        if not self._build_shapes:
            return None
        if len(self._build_shapes) == 1:
            return {"input_shape": next(iter(self._build_shapes.values()))}
        return dict(self._build_shapes)

    def build_from_config(self, config: dict[str, Any]) -> None:
        if not config:
            return
        if "input_shape" in config:
            self.build(_as_shape(config["input_shape"]))
            if type(self).build is Layer.build:
                self._build_by_running(_as_shape(config["input_shape"]))
        elif "shapes_dict" in config:
            self.build(**{k: _as_shape(v) for k, v in config["shapes_dict"].items()})
        else:
            self.build(**{k: _as_shape(v) for k, v in config.items()})

    def _build_by_running(self, shape: Any) -> None:
        """Sublayers without a `build` around them are built by their first call: one on symbols does."""
        if shape is None or all(l.built for l in self._flatten_layers(include_self=False)):
            return
        inputs = KerasTensor(shape, dtype=self._spec_dtype()) if _is_shape(shape) else None
        if inputs is None and isinstance(shape, (list, dict)):
            specs = shape.items() if isinstance(shape, dict) else enumerate(shape)
            made = [(k, KerasTensor(s, dtype=self._spec_dtype())) for k, s in specs]
            inputs = dict(made) if isinstance(shape, dict) else [t for _, t in made]
        self.compute_output_spec(inputs)

    # --- files ---------------------------------------------------------------------------------------------------

    def save_own_variables(self, store: dict) -> None:
        """Puts this layer's own variables (not its sublayers') into `store`, by number."""
        for i, v in enumerate(self._own_trainable + self._own_non_trainable):
            store[str(i)] = v

    def load_own_variables(self, store: dict) -> None:
        """Takes this layer's own variables out of `store`."""
        own = self._own_trainable + self._own_non_trainable
        if len(store) != len(own):
            raise ValueError(f"{self._who()}: expected {len(own)} variables, got {len(store)}")
        for i, v in enumerate(own):
            v.assign(np.asarray(store[str(i)]))

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs to make this layer again, without its weights.

        Raises:
            NotImplementedError: the class has arguments of its own that are no plain values, and no `get_config`.
        """
        from dagrt.saving import serialize_keras_object

        config: dict[str, Any] = {
            "name": self.name,
            "trainable": self._trainable,
            "dtype": serialize_keras_object(self._policy),
        }
        if self.activity_regularizer is not None:
            config["activity_regularizer"] = serialize_keras_object(self.activity_regularizer)
        if type(self).get_config is not Layer.get_config:
            return config
        args, kwargs = self._init_args
        names = [p for p in inspect.signature(type(self).__init__).parameters if p != "self"]
        own = {**dict(zip(names, args)), **{k: v for k, v in kwargs.items() if k not in config}}
        try:
            config.update({k: serialize_keras_object(v) for k, v in own.items() if k not in ("dtype", "name")})
        except TypeError as e:
            raise NotImplementedError(
                f"{type(self).__name__} has arguments that a file cannot hold ({e}). Override get_config() to return "
                "them as plain values."
            ) from None
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        config = dict(config)
        if cls.get_config is Layer.get_config:
            from dagrt.saving import deserialize_keras_object

            config = {k: v if k == "dtype" else deserialize_keras_object(v) for k, v in config.items()}
        try:
            return cls(**config)
        except TypeError as e:
            raise TypeError(
                f"Cannot make a {cls.__name__} from its configuration {config}: {e}. Does its __init__ take what its "
                "get_config gives, and **kwargs for Layer?"
            ) from e

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}, built={self.built}>"


# Attributes that lead back up, or to what is no part of the layer.
_BOOKKEEPING = frozenset(
    {
        "_inbound_nodes",
        "_outbound_nodes",
        "_init_args",
        "_own_trainable",
        "_own_non_trainable",
        "_added_losses",
        "_losses_of",
        "_build_shapes",
        "_call_signature",
        "optimizer",
        "_compile_loss",
        "_compile_metrics",
        "_loss_tracker",
        "_compile_config",
        "_trainable_snapshot",
        "_steps",
        "history",
        "loss",
        "loss_weights",
        "_functional",
        "_inputs_struct",
        "_outputs_struct",
        "_inputs",
        "_outputs",
        "_nodes",
        "_operations",
        "_policy",
    }
)


def _is_metric(thing: Any) -> bool:
    return hasattr(thing, "update_state") and hasattr(thing, "reset_state")


def _stateful(value: Any) -> Iterator[Any]:
    """Layers, metrics and seed generators in a value: itself, or in lists, tuples and dicts."""
    if isinstance(value, (Layer,)) or _is_metric(value) or type(value).__name__ == "SeedGenerator":
        if not isinstance(value, type):
            yield value
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from _stateful(v)
    elif isinstance(value, dict):
        for v in value.values():
            yield from _stateful(v)


def _is_plain(v: Any) -> bool:
    if isinstance(v, (list, tuple)):
        return all(_is_plain(x) for x in v)
    return isinstance(v, (int, float, np.number, np.bool_))


def _has_tensor(value: Any) -> bool:
    return any(isinstance(t, (Tensor, Variable)) for t in tree.flatten(value))


def _any_symbolic(args: tuple, kwargs: dict) -> bool:
    for a in args:
        if isinstance(a, KerasTensor):
            return True
        if isinstance(a, (list, tuple, dict)) and any(isinstance(t, KerasTensor) for t in tree.flatten(a)):
            return True
    return bool(kwargs) and any(isinstance(t, KerasTensor) for t in tree.flatten(list(kwargs.values())))


def _shapes(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_shapes(v) for v in value]
    if isinstance(value, dict):
        return {k: _shapes(v) for k, v in value.items()}
    return tuple(value.shape) if value is not None else None


def _is_shape(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(d is None or isinstance(d, (int, np.integer)) for d in value)


def _as_shape(value: Any) -> Any:
    """Shapes from JSON: innermost lists become tuples."""
    if isinstance(value, (list, tuple)):
        return tuple(value) if _is_shape(value) else [_as_shape(v) for v in value]
    if isinstance(value, dict):
        return {k: _as_shape(v) for k, v in value.items()}
    return value


def _masks(first: Any) -> Any:
    """Masks beside the first argument, in its structure; None where there is none at all."""
    if isinstance(first, Tensor):
        return getattr(first, "_keras_mask", None)
    if isinstance(first, (list, tuple, dict)):
        masks = tree.map_structure(lambda t: getattr(t, "_keras_mask", None), first)
        return masks if any(m is not None for m in tree.flatten(masks)) else None
    return None


def _origin(t: Tensor) -> str:
    """ "'flatten_1' with ": where a symbolic tensor came from."""
    history = getattr(t, "_keras_history", None)
    return f"'{history[0].name}' with " if history else ""
