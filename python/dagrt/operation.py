"""Operations and nodes: the layer graph that calls on symbolic tensors leave behind."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from dagrt import _config, _core, tree
from dagrt.tensor import KerasTensor, _user_line, any_symbolic


class Operation:
    """Something that was, or can be, called on symbolic tensors: a layer or an op.

    Args:
        name: by default the class's name in snake_case, numbered.
    """

    def __init__(self, name: str | None = None) -> None:
        if name is not None and not isinstance(name, str):
            raise ValueError(
                f"Argument `name` must be a string and cannot contain character `/`. Received: name={name!r}"
            )
        if name is not None and "/" in name:
            raise ValueError(f"Argument `name` must not contain '/', got {name!r}")
        self.name = name or _config.unique_name(_config.to_snake_case(type(self).__name__))
        self._inbound_nodes: list[Node] = []
        self._outbound_nodes: list[Node] = []

    def call(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no call()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if any_symbolic((args, kwargs)):
            return self.symbolic_call(*args, **kwargs)
        return self.call(*args, **kwargs)

    def symbolic_call(self, *args: Any, **kwargs: Any) -> Any:
        """Learns the outputs' types and records the call as a node."""
        outputs = self.compute_output_spec(*args, **kwargs)
        Node(operation=self, call_args=args, call_kwargs=kwargs, outputs=outputs)
        return outputs

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """KerasTensors like the outputs."""
        from dagrt import tracing

        return tracing.infer_outputs(self.call, args, kwargs)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(**config)

    def _io(self, what: str) -> Any:
        if not self._inbound_nodes:
            raise AttributeError(f"{self.name} has never been called on symbolic tensors, so it has no {what}")
        if len(self._inbound_nodes) > 1:
            raise ValueError(f"{self.name} was called {len(self._inbound_nodes)} times, so its {what} is ambiguous")
        node = self._inbound_nodes[0]
        flat = node.input_tensors if what == "input" else node.output_tensors
        return flat[0] if len(flat) == 1 else list(flat)

    @property
    def input(self) -> Any:
        return self._io("input")

    @property
    def output(self) -> Any:
        return self._io("output")


class Arguments:
    """Arguments of a call on symbols, to be called again on other values."""

    def __init__(self, args: tuple, kwargs: dict) -> None:
        self.args = tuple(args)
        self.kwargs = dict(kwargs)
        self.tensors = [t for t in tree.flatten([list(args), kwargs]) if isinstance(t, KerasTensor)]
        self._single = len(args) == 1 and not kwargs and isinstance(args[0], KerasTensor)

    def fill_in(self, values: dict[int, Any]) -> tuple[tuple, dict]:
        """Args and kwargs with each KerasTensor replaced by `values[id(tensor)]`."""
        if self._single:
            return (values[id(self.args[0])],), {}

        def switch(x: Any) -> Any:
            return values.get(id(x), x) if isinstance(x, KerasTensor) else x

        args = tuple(tree.map_structure(switch, a) for a in self.args)
        return args, {k: tree.map_structure(switch, v) for k, v in self.kwargs.items()}


class Node:
    """One call of an operation: arguments in, tensors out. Registers itself with the operation and its outputs."""

    def __init__(self, operation: Operation, call_args: tuple, call_kwargs: dict, outputs: Any) -> None:
        self.operation = operation
        self.arguments = Arguments(call_args, call_kwargs)
        self.outputs = outputs
        self.output_tensors = [t for t in tree.flatten(outputs) if isinstance(t, KerasTensor)]
        self.input_tensors = self.arguments.tensors
        self.is_input = not self.input_tensors
        number = len(operation._inbound_nodes)
        operation._inbound_nodes.append(self)
        for k, t in enumerate(self.output_tensors):
            t._keras_history = (operation, number, k)
        for parent in self.parent_nodes:
            parent.operation._outbound_nodes.append(self)

    @property
    def parent_nodes(self) -> list[Node]:
        found: list[Node] = []
        for t in self.input_tensors:
            history = getattr(t, "_keras_history", None)
            if history is not None:
                node = history[0]._inbound_nodes[history[1]]
                if all(node is not f for f in found):
                    found.append(node)
        return found


# --- ops in the layer graph ----------------------------------------------------------------------------------------

# Parameters of ops that take tensors: they stay arguments of the node; all others belong to the operation itself.
_TENSOR_PARAMETERS = {
    "x",
    "x1",
    "x2",
    "xs",
    "inputs",
    "condition",
    "a",
    "b",
    "key",
    "indices",
    "values",
    "kernel",
    "target",
    "output",
    "operands",
    "arrays",
    "updates",
    "init",
    "mean",
    "variance",
    "gamma",
    "beta",
    "mask",
    "y",
    "query",
    "value",
    "elements",
}
_classes: dict[str, type] = {}
# Where Keras's class is not called as its function.
CLASS_NAMES = {"batch_normalization": "BatchNorm", "layer_normalization": "LayerNorm", "rms_normalization": "RMSNorm"}


class FunctionOperation(Operation):
    """An op of `dagrt.ops` as a node of the layer graph: `a + b` on symbols."""

    keras_module = "keras.src.ops.numpy"
    function: Callable

    def __init__(self, name: str | None = None, **config: Any) -> None:
        super().__init__(name=name)
        self._config = config
        self._sizes: dict[
            str, tuple[int, int]
        ] = {}  # a size that varies: which leaf of the arguments has it, on which axis

    def call(self, *args: Any, **kwargs: Any) -> Any:
        config = self._config
        if self._sizes:
            leaves = tree.flatten([list(args), kwargs])
            now = {symbol: leaves[leaf].dims[axis] for symbol, (leaf, axis) in self._sizes.items()}
            args = tuple(_with_sizes(a, now) for a in args)
            kwargs, config = _with_sizes(kwargs, now), _with_sizes(config, now)
        return type(self).function(*args, **{**config, **kwargs})

    def symbolic_call(self, *args: Any, **kwargs: Any) -> Any:
        wanted = set(_symbols([list(args), kwargs, self._config]))
        if wanted:
            self._sizes = _homes(wanted, [list(args), kwargs], self.name)
        return super().symbolic_call(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {**self._config, "name": self.name}


def _symbols(value: Any) -> list[str]:
    """The input sizes that occur in arguments."""
    if isinstance(value, _core.Dim):
        found: list[str] = []
        rest = [value.to_json()]
        while rest:
            e = rest.pop()
            if isinstance(e, list):
                rest += e[1:]
            elif isinstance(e, str):
                found.append(e)
        return found
    if isinstance(value, slice):
        return _symbols([value.start, value.stop, value.step])
    if isinstance(value, dict):
        value = list(value.values())
    return [s for v in value for s in _symbols(v)] if isinstance(value, (list, tuple)) else []


def _homes(wanted: set[str], arguments: list, who: str) -> dict[str, tuple[int, int]]:
    """Where the tensors among the arguments have those sizes: the model's own may be called otherwise when it runs."""
    homes: dict[str, tuple[int, int]] = {}
    for leaf, t in enumerate(tree.flatten(arguments)):
        for axis, d in enumerate(t.dims if isinstance(t, KerasTensor) else ()):
            if isinstance(d, _core.Dim) and isinstance(d.to_json(), str):
                homes.setdefault(d.to_json(), (leaf, axis))
    missing = sorted(wanted - set(homes))
    if missing:
        raise _core.GraphError(
            f"{who}: the size {missing[0]!r} belongs to none of the tensors given to this op{_user_line()}; write the "
            "computation in the call of a Layer, which sees all sizes"
        )
    return {s: homes[s] for s in wanted}


def _with_sizes(value: Any, now: dict[str, Any]) -> Any:
    if isinstance(value, _core.Dim):
        return value.substitute(now)
    if isinstance(value, slice):
        return slice(*(_with_sizes(v, now) for v in (value.start, value.stop, value.step)))
    return tree.map_structure(lambda v: _with_sizes(v, now), value) if tree.is_nested(value) else value


def _class_for(function: Callable) -> type:
    name = CLASS_NAMES.get(function.__name__) or "".join(part.capitalize() for part in function.__name__.split("_"))
    cls = _classes.get(name)
    if cls is None:
        module = getattr(function, "__keras_module__", "keras.src.ops.numpy")
        cls = type(name, (FunctionOperation,), {"function": staticmethod(function), "keras_module": module})
        _classes[name] = cls
    return cls


def symbolic_function(function: Callable, args: tuple, kwargs: dict) -> Any:
    """Records a call of a public op on KerasTensors as one node."""
    bound = inspect.signature(function).bind(*args, **kwargs)
    call_args: list[Any] = []
    call_kwargs: dict[str, Any] = {}
    config: dict[str, Any] = {}
    variadic = False
    for name, value in bound.arguments.items():
        kind = inspect.signature(function).parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            call_args += value
            variadic = True
        elif kind is inspect.Parameter.VAR_KEYWORD:
            config.update(value)
        elif name in _TENSOR_PARAMETERS or any_symbolic(value):
            if len(call_args) == list(bound.arguments).index(name) and not variadic:
                call_args.append(value)
            else:
                call_kwargs[name] = value
        else:
            config[name] = value
    if variadic:  # leading plain arguments (an einsum's subscripts) go first again
        operation = _class_for(function)(**{})
        return operation.symbolic_call(*args, **kwargs)
    return _class_for(function)(**config).symbolic_call(*call_args, **call_kwargs)


def make_function_operation(class_name: str, config: dict[str, Any]) -> Operation:
    """The op that a file names by its class ("Add", "GetItem").

    Raises:
        TypeError: dagrt has no such op.
    """
    from dagrt import ops

    function = getattr(ops, "__dict__", {}).get(_config.to_snake_case(class_name)) or ops.find_by_class_name(class_name)
    if function is None:
        raise TypeError(f"Could not find the op {class_name!r} that the file names; dagrt.ops does not have it yet")
    plain = inspect.unwrap(function)
    names = set(inspect.signature(plain).parameters)
    return _class_for(plain)(**{k: v for k, v in config.items() if k == "name" or k in names})
