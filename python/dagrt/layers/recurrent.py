"""Recurrent layers: LSTM (one fused op), GRU and SimpleRNN (over `ops.scan`), Bidirectional and TimeDistributed."""

from __future__ import annotations

from typing import Any

import numpy as np

from dagrt import _config, activations, constraints, initializers, ops, random, regularizers
from dagrt.layers.core import check_last_axis, serialized
from dagrt.layers.layer import Layer
from dagrt.ops.raw import emit
from dagrt.variable import Variable


class _Cell(Layer):
    """The weights of a recurrent layer and one step of it."""

    gates = 1

    def __init__(
        self,
        units: int,
        activation: Any,
        recurrent_activation: Any,
        use_bias: bool,
        kernel_initializer: Any,
        recurrent_initializer: Any,
        bias_initializer: Any,
        kernel_regularizer: Any,
        recurrent_regularizer: Any,
        bias_regularizer: Any,
        kernel_constraint: Any,
        recurrent_constraint: Any,
        bias_constraint: Any,
        dropout: float,
        recurrent_dropout: float,
        seed: int | None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(units, int) or units <= 0:
            raise ValueError(
                f"Received an invalid value for argument `units`, expected a positive integer, got {units}."
            )
        super().__init__(**kwargs)
        self.units = units
        self.activation = activations.get(activation)
        self.recurrent_activation = activations.get(recurrent_activation)
        self.use_bias = use_bias
        self.kernel_initializer, self.recurrent_initializer = (
            initializers.get(kernel_initializer),
            initializers.get(recurrent_initializer),
        )
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer, self.recurrent_regularizer = (
            regularizers.get(kernel_regularizer),
            regularizers.get(recurrent_regularizer),
        )
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint, self.recurrent_constraint = (
            constraints.get(kernel_constraint),
            constraints.get(recurrent_constraint),
        )
        self.bias_constraint = constraints.get(bias_constraint)
        self.dropout = min(1.0, max(0.0, dropout))
        self.recurrent_dropout = min(1.0, max(0.0, recurrent_dropout))
        self.seed = seed
        self.seed_generator = random.SeedGenerator(seed)
        self.state_size: Any = units
        self.output_size = units

    def build(self, input_shape: Any) -> None:
        size = input_shape[-1]
        if size is None:
            raise ValueError(
                f"{self._who()}: the last axis of the inputs must be known, got shape {tuple(input_shape)}"
            )
        self.kernel = self.add_weight(
            (size, self.units * self.gates),
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="kernel",
        )
        self.recurrent_kernel = self.add_weight(
            (self.units, self.units * self.gates),
            self.recurrent_initializer,
            regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint,
            name="recurrent_kernel",
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                self._bias_shape(),
                self._bias_start(),
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                name="bias",
            )

    def _bias_shape(self) -> tuple[int, ...]:
        return (self.units * self.gates,)

    def _bias_start(self) -> Any:
        return self.bias_initializer

    def get_initial_state(self, batch_size: Any = None) -> list[Any]:
        n = len(self.state_size) if isinstance(self.state_size, list) else 1
        return [ops.zeros((batch_size, self.units), dtype=self.compute_dtype) for _ in range(n)]

    def projected(self, x: Any) -> Any:
        """What a step needs of its input, for all steps at once."""
        raise NotImplementedError

    def step(self, z: Any, states: list[Any], h: Any) -> list[Any]:
        """New states (the first is the output) from the projected input; h is the first state after dropout."""
        raise NotImplementedError

    def call(self, inputs: Any, states: Any, training: Any = False) -> Any:
        states = list(states) if isinstance(states, (list, tuple)) else [states]
        if training and self.dropout:
            inputs = random.dropout(inputs, self.dropout, seed=self.seed_generator)
        h = (
            random.dropout(states[0], self.recurrent_dropout, seed=self.seed_generator)
            if training and self.recurrent_dropout
            else states[0]
        )
        new = self.step(self.projected(inputs), states, h)
        return new[0], new

    def _extra_config(self) -> dict[str, Any]:
        return {}

    def cell_config(self) -> dict[str, Any]:
        config: dict[str, Any] = {"units": self.units, "activation": activations.serialize(self.activation)}
        if self.gates > 1:
            config["recurrent_activation"] = activations.serialize(self.recurrent_activation)
        config["use_bias"] = self.use_bias
        serialized(config, self, "kernel_initializer", "recurrent_initializer", "bias_initializer")
        if hasattr(self, "unit_forget_bias"):
            config["unit_forget_bias"] = self.unit_forget_bias
        serialized(
            config, self, "kernel_regularizer", "recurrent_regularizer", "bias_regularizer", "activity_regularizer"
        )
        serialized(config, self, "kernel_constraint", "recurrent_constraint", "bias_constraint")
        config.update(dropout=self.dropout, recurrent_dropout=self.recurrent_dropout)
        if hasattr(self, "reset_after"):
            config["reset_after"] = self.reset_after
        config["seed"] = self.seed
        return config

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), **self.cell_config()}
        config.pop("activity_regularizer", None)
        return config


class LSTMCell(_Cell):
    """One step of an LSTM; the kernels hold the gates i, f, c, o side by side.

    z = x kernel + h recurrent_kernel + bias, split into zi, zf, zc, zo; with s = recurrent_activation:
    c' = s(zf) c + s(zi) activation(zc); h' = s(zo) activation(c').

    Args:
        units: size of the state and of the outputs.
        activation: of the candidate and of the cell.
        recurrent_activation: of the gates.
        use_bias: have a bias (4 * units,).
        kernel_initializer: for the kernel (inputs, 4 * units).
        recurrent_initializer: for the recurrent kernel (units, 4 * units).
        bias_initializer: for the bias.
        unit_forget_bias: the bias of the gate f begins at 1.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: penalties added to the loss.
        kernel_constraint, recurrent_constraint, bias_constraint: applied after each step of the optimiser.
        dropout, recurrent_dropout: shares of the inputs and of h dropped in training.
        seed: integer for the same dropout in every run.

    Input shape:
        (batch, inputs), and the states: a list of two (batch, units), h and c.

    Output shape:
        (batch, units), and the new states.

    Raises:
        ValueError: units below 1, or an unknown last size.

    Example:
        >>> import dagrt as keras
        >>> cell = keras.layers.LSTMCell(4)
        >>> y, states = cell(keras.ops.ones((2, 3)), cell.get_initial_state(2))
        >>> y.shape, len(states)
        ((2, 4), 2)

    Reference:
        Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997; the gate f: Gers, Schmidhuber and Cummins, 2000.
    """

    gates = 4

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units,
            activation,
            recurrent_activation,
            use_bias,
            kernel_initializer,
            recurrent_initializer,
            bias_initializer,
            kernel_regularizer,
            recurrent_regularizer,
            bias_regularizer,
            kernel_constraint,
            recurrent_constraint,
            bias_constraint,
            dropout,
            recurrent_dropout,
            seed,
            **kwargs,
        )
        self.unit_forget_bias = unit_forget_bias
        self.state_size = [units, units]

    def _bias_start(self) -> Any:
        if not self.unit_forget_bias:
            return self.bias_initializer

        def start(shape: Any, dtype: Any = None) -> Any:
            u = self.units
            return ops.concatenate(
                [
                    self.bias_initializer((u,), dtype=dtype),
                    ops.ones((u,), dtype),
                    self.bias_initializer((2 * u,), dtype=dtype),
                ],
                axis=0,
            )

        return start

    def projected(self, x: Any) -> Any:
        z = ops.matmul(x, self.kernel)
        return z if self.bias is None else z + self.bias

    def step(self, z: Any, states: list[Any], h: Any) -> list[Any]:
        i, f, g, o = ops.split(z + ops.matmul(h, self.recurrent_kernel), 4, axis=-1)
        c = self.recurrent_activation(f) * states[1] + self.recurrent_activation(i) * self.activation(g)
        return [self.recurrent_activation(o) * self.activation(c), c]


class GRUCell(_Cell):
    """One step of a GRU; the kernels hold the gates z, r, h side by side.

    With s = recurrent_activation: z = s(x Wz + h Uz); r = s(x Wr + h Ur); candidate = activation(x Wh + r (h Uh)), or
    activation(x Wh + (r h) Uh) without reset_after; h' = z h + (1 - z) candidate. Biases are added to each product.

    Args:
        units: size of the state and of the outputs.
        activation: of the candidate.
        recurrent_activation: of the gates.
        use_bias: have a bias: (2, 3 * units) with reset_after (for x and for h), else (3 * units,).
        kernel_initializer: for the kernel (inputs, 3 * units).
        recurrent_initializer: for the recurrent kernel (units, 3 * units).
        bias_initializer: for the bias.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: penalties added to the loss.
        kernel_constraint, recurrent_constraint, bias_constraint: applied after each step of the optimiser.
        dropout, recurrent_dropout: shares of the inputs and of h dropped in training.
        reset_after: the gate r acts after the product with Uh, not before.
        seed: integer for the same dropout in every run.

    Input shape:
        (batch, inputs), and the state (batch, units).

    Output shape:
        (batch, units), and a list of the new state.

    Raises:
        ValueError: units below 1, or an unknown last size.

    Example:
        >>> import dagrt as keras
        >>> cell = keras.layers.GRUCell(4)
        >>> y, states = cell(keras.ops.ones((2, 3)), cell.get_initial_state(2))
        >>> y.shape, len(states)
        ((2, 4), 1)

    Reference:
        Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014, arXiv:1406.1078.
    """

    gates = 3

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        reset_after: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units,
            activation,
            recurrent_activation,
            use_bias,
            kernel_initializer,
            recurrent_initializer,
            bias_initializer,
            kernel_regularizer,
            recurrent_regularizer,
            bias_regularizer,
            kernel_constraint,
            recurrent_constraint,
            bias_constraint,
            dropout,
            recurrent_dropout,
            seed,
            **kwargs,
        )
        self.reset_after = reset_after

    def _bias_shape(self) -> tuple[int, ...]:
        return (2, 3 * self.units) if self.reset_after else (3 * self.units,)

    def projected(self, x: Any) -> Any:
        z = ops.matmul(x, self.kernel)
        if self.bias is None:
            return z
        return z + (self.bias[0] if self.reset_after else self.bias)

    def step(self, z: Any, states: list[Any], h: Any) -> list[Any]:
        xz, xr, xh = ops.split(z, 3, axis=-1)
        u = self.units
        if self.reset_after:
            inner = ops.matmul(h, self.recurrent_kernel)
            if self.bias is not None:
                inner = inner + self.bias[1]
            hz, hr, hh = ops.split(inner, 3, axis=-1)
            r = self.recurrent_activation(xr + hr)
            candidate = self.activation(xh + r * hh)
        else:
            w = self.recurrent_kernel.value
            hz, hr = ops.matmul(h, w[:, :u]), ops.matmul(h, w[:, u : 2 * u])
            r = self.recurrent_activation(xr + hr)
            candidate = self.activation(xh + ops.matmul(r * h, w[:, 2 * u :]))
        gate = self.recurrent_activation(xz + hz)
        return [gate * states[0] + (1.0 - gate) * candidate]


class SimpleRNNCell(_Cell):
    """One step of a plain recurrent layer.

    h' = activation(x kernel + h recurrent_kernel + bias); the output is h'.

    Args:
        units: size of the state and of the outputs.
        activation: of the sum.
        use_bias: have a bias (units,).
        kernel_initializer: for the kernel (inputs, units).
        recurrent_initializer: for the recurrent kernel (units, units).
        bias_initializer: for the bias.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: penalties added to the loss.
        kernel_constraint, recurrent_constraint, bias_constraint: applied after each step of the optimiser.
        dropout, recurrent_dropout: shares of the inputs and of h dropped in training.
        seed: integer for the same dropout in every run.

    Input shape:
        (batch, inputs), and the state (batch, units).

    Output shape:
        (batch, units), and a list of the new state.

    Raises:
        ValueError: units below 1, or an unknown last size.

    Example:
        >>> import dagrt as keras
        >>> cell = keras.layers.SimpleRNNCell(4)
        >>> y, states = cell(keras.ops.ones((2, 3)), cell.get_initial_state(2))
        >>> y.shape, len(states)
        ((2, 4), 1)
    """

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units,
            activation,
            None,
            use_bias,
            kernel_initializer,
            recurrent_initializer,
            bias_initializer,
            kernel_regularizer,
            recurrent_regularizer,
            bias_regularizer,
            kernel_constraint,
            recurrent_constraint,
            bias_constraint,
            dropout,
            recurrent_dropout,
            seed,
            **kwargs,
        )

    def projected(self, x: Any) -> Any:
        z = ops.matmul(x, self.kernel)
        return z if self.bias is None else z + self.bias

    def step(self, z: Any, states: list[Any], h: Any) -> list[Any]:
        return [self.activation(z + ops.matmul(h, self.recurrent_kernel))]


class RNN(Layer):
    """A cell over the steps of a sequence.

    For each step: output, states = cell(x[:, t], states). Masked steps keep the states and repeat the output.
    Call arguments: `initial_state` (a list; zeros by default), `mask` (batch, steps), `training`.

    Args:
        cell: `LSTMCell`, `GRUCell` or `SimpleRNNCell`.
        return_sequences: all outputs instead of the last.
        return_state: the final states as well.
        go_backwards: from the last step to the first; outputs in that order.
        stateful: each batch goes on from the states of the one before, until `reset_state()`; needs a fixed batch size.
        unroll: accepted; there is nothing to gain.
        zero_output_for_mask: masked steps give 0 instead of the output before.

    Input shape:
        (batch, steps, features).

    Output shape:
        (batch, units), or (batch, steps, units) with return_sequences; with return_state a list of that and the states, each
        (batch, units).

    Raises:
        ValueError: inputs of another number of axes, stateful without a fixed batch size.

    Example:
        >>> import dagrt as keras
        >>> layer = keras.layers.RNN(keras.layers.GRUCell(4), return_sequences=True)
        >>> layer(keras.Input((None, 3))).shape
        (None, None, 4)
    """

    def __init__(
        self,
        cell: Any,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cell = cell
        self.return_sequences, self.return_state, self.go_backwards = return_sequences, return_state, go_backwards
        self.stateful, self.unroll, self.zero_output_for_mask = stateful, unroll, zero_output_for_mask
        self.supports_masking = True
        self.states: Any = None

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        if len(sequences_shape) != 3:
            raise ValueError(
                f"{self._who()}: expected inputs of shape (batch, steps, features), got {tuple(sequences_shape)}"
            )
        if not self.cell.built:
            self.cell.build((sequences_shape[0], sequences_shape[2]))
        if self.stateful and self.states is None:
            if sequences_shape[0] is None:
                raise ValueError(
                    "When using `stateful=True` in a RNN, the batch size must be static. Found dynamic batch size: "
                    f"sequence.shape={tuple(sequences_shape)}"
                )
            n = len(self.cell.state_size) if isinstance(self.cell.state_size, list) else 1
            self._state_variables = [
                Variable(
                    np.zeros((sequences_shape[0], self.cell.units), "float32"), trainable=False, name=f"rnn_state_{i}"
                )
                for i in range(n)
            ]
            for v in self._state_variables:
                self._track_variable(v)
            self.states = self._state_variables

    def reset_state(self) -> None:
        """States of a stateful layer back to 0."""
        for v in self.states or []:
            v.assign(np.zeros(v.shape, "float32"))

    reset_states = reset_state

    def call(self, sequences: Any, initial_state: Any = None, mask: Any = None, training: Any = False) -> Any:
        if self.cell.kernel is not None:
            check_last_axis(self, sequences, self.cell.kernel.shape)
        if initial_state is None:
            initial_state = [v.value for v in self.states] if self.stateful else None
        elif not isinstance(initial_state, (list, tuple)):
            initial_state = [initial_state]
        if mask is not None:
            mask = mask[0] if isinstance(mask, (list, tuple)) else mask
            mask = ops.cast(mask, "bool")
        x = ops.cast(sequences, self.compute_dtype)
        if training and self.cell.dropout:
            b, _, c = x.dims
            x = random.dropout(x, self.cell.dropout, noise_shape=(b, 1, c), seed=self.cell.seed_generator)
        last, y, states = self._run_steps(x, initial_state, mask, training)
        if self.stateful:
            for v, s in zip(self.states, states):
                v.assign(s)
        output = y if self.return_sequences else last
        return [output, *states] if self.return_state else output

    def _run_steps(self, x: Any, initial_state: Any, mask: Any, training: Any) -> tuple[Any, Any, list[Any]]:
        cell = self.cell
        batch = ops.shape(x)[0]
        states = list(initial_state) if initial_state is not None else cell.get_initial_state(batch)
        if self.go_backwards:
            x = ops.flip(x, 1)
            mask = ops.flip(mask, 1) if mask is not None else None
        z = ops.transpose(cell.projected(x), (1, 0, 2))
        keep: Any = None
        if training and cell.recurrent_dropout:
            ones = ops.ones((batch, cell.units), dtype=self.compute_dtype)
            keep = random.dropout(ones, cell.recurrent_dropout, seed=cell.seed_generator)

        def step(carry: Any, element: Any) -> Any:
            own, before = carry
            zt, mt = element if mask is not None else (element, None)
            h = own[0] if keep is None else own[0] * keep
            new = cell.step(zt, own, h)
            out = new[0]
            if mt is not None:
                valid = ops.expand_dims(mt, -1)
                out = ops.where(valid, out, 0.0 if self.zero_output_for_mask else before)
                new = [ops.where(valid, a, b) for a, b in zip(new, own)]
            return (new, out), out

        elements = (z, ops.transpose(mask, (1, 0))) if mask is not None else z
        (final, last), ys = ops.scan(step, (states, ops.zeros((batch, cell.units), dtype=self.compute_dtype)), elements)
        return last, ops.transpose(ys, (1, 0, 2)), list(final)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        kept = mask if self.return_sequences else None
        if self.return_state:
            n = len(self.cell.state_size) if isinstance(self.cell.state_size, list) else 1
            return [kept] + [None] * n
        return kept

    def _settings(self) -> dict[str, Any]:
        return {
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "go_backwards": self.go_backwards,
            "stateful": self.stateful,
            "unroll": self.unroll,
            "zero_output_for_mask": self.zero_output_for_mask,
        }

    def get_config(self) -> dict[str, Any]:
        return serialized({**super().get_config(), **self._settings()}, self, "cell")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        config = dict(config)
        if isinstance(config.get("cell"), dict):
            from dagrt.saving import deserialize_keras_object

            config["cell"] = deserialize_keras_object(config["cell"])
        return cls(**config)


class _CellRNN(RNN):
    """A recurrent layer that makes its own cell."""

    _cell_class: type = _Cell

    def __init__(
        self,
        cell_arguments: dict[str, Any],
        settings: dict[str, Any],
        activity_regularizer: Any,
        kwargs: dict[str, Any],
    ) -> None:
        zero = kwargs.pop("zero_output_for_mask", False)
        cell = self._cell_class(
            **cell_arguments,
            dtype=kwargs.get("dtype"),
            trainable=kwargs.get("trainable", True),
            name=_config.to_snake_case(self._cell_class.__name__),
        )
        super().__init__(
            cell, **settings, zero_output_for_mask=zero, activity_regularizer=activity_regularizer, **kwargs
        )

    def get_config(self) -> dict[str, Any]:
        config = {**Layer.get_config(self), **self._settings(), **self.cell.cell_config()}
        return serialized(config, self, "activity_regularizer")

    def __getattr__(self, name: str) -> Any:
        cell = self.__dict__.get("cell")
        if cell is not None and name in (
            "units",
            "activation",
            "recurrent_activation",
            "use_bias",
            "kernel_initializer",
            "recurrent_initializer",
            "bias_initializer",
            "unit_forget_bias",
            "kernel_regularizer",
            "recurrent_regularizer",
            "bias_regularizer",
            "kernel_constraint",
            "recurrent_constraint",
            "bias_constraint",
            "dropout",
            "recurrent_dropout",
            "reset_after",
        ):
            return getattr(cell, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(**config)


_SETTINGS = ("return_sequences", "return_state", "go_backwards", "stateful", "unroll")
_DOC = """

    Args:
        units: size of the state and of the outputs.
        activation, recurrent_activation: functions of the candidate and of the gates.
        use_bias, initializers, regularizers, constraints: for kernel, recurrent kernel and bias.
        dropout, recurrent_dropout: shares of the inputs and of the state dropped in training, alike in all steps.
        return_sequences, return_state, go_backwards, stateful, unroll: see `RNN`.
"""


class LSTM(_CellRNN):
    """Long short-term memory: one fused op, forward and backward.

    The steps are those of `LSTMCell`. Other activations than tanh and sigmoid, and recurrent_dropout in training, run step by
    step instead.

    Args:
        units: size of the state and of the outputs.
        activity_regularizer: penalty on the outputs, divided by the batch size.
        dropout, recurrent_dropout: shares of the inputs and of the state dropped in training, alike in all steps.
        return_sequences, return_state, go_backwards, stateful, unroll: see `RNN`.
        use_cudnn: accepted and not used.

        The others as for `LSTMCell`.

    Input shape:
        (batch, steps, features).

    Output shape:
        As `RNN`; the states are h and c.

    Raises:
        ValueError: as `RNN` and `LSTMCell`.

    Example:
        >>> import dagrt as keras
        >>> y, h, c = keras.layers.LSTM(4, return_sequences=True, return_state=True)(keras.Input((None, 3)))
        >>> y.shape, h.shape, c.shape
        ((None, None, 4), (None, 4), (None, 4))

    Reference:
        Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997.
    """

    _cell_class = LSTMCell

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        use_cudnn: Any = "auto",
        **kwargs: Any,
    ) -> None:
        given = dict(locals())
        super().__init__(*_split_arguments(given, LSTMCell), activity_regularizer, kwargs)

    def _run_steps(self, x: Any, initial_state: Any, mask: Any, training: Any) -> tuple[Any, Any, list[Any]]:
        cell = self.cell
        usual = cell.activation is activations.tanh and cell.recurrent_activation is activations.sigmoid
        if not usual or (training and cell.recurrent_dropout):
            return super()._run_steps(x, initial_state, mask, training)
        h0, c0 = (None, None) if initial_state is None else initial_state
        y, h, c = emit(
            "lstm",
            x,
            cell.kernel,
            cell.recurrent_kernel,
            cell.bias,
            h0,
            c0,
            mask,
            go_backwards=bool(self.go_backwards),
            zero_output_for_mask=bool(self.zero_output_for_mask),
        )[:3]
        last = y[:, -1] if self.zero_output_for_mask and mask is not None and not self.return_sequences else h
        return last, y, [h, c]


class GRU(_CellRNN):
    """Gated recurrent unit, over `ops.scan`.

    The steps are those of `GRUCell`.

    Args:
        units: size of the state and of the outputs.
        activity_regularizer: penalty on the outputs, divided by the batch size.
        dropout, recurrent_dropout: shares of the inputs and of the state dropped in training, alike in all steps.
        return_sequences, return_state, go_backwards, stateful, unroll: see `RNN`.
        use_cudnn: accepted and not used.

        The others as for `GRUCell`.

    Input shape:
        (batch, steps, features).

    Output shape:
        As `RNN`.

    Raises:
        ValueError: as `RNN` and `GRUCell`.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.GRU(4)(keras.Input((None, 3))).shape
        (None, 4)

    Reference:
        Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014, arXiv:1406.1078.
    """

    _cell_class = GRUCell

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        reset_after: bool = True,
        use_cudnn: Any = "auto",
        **kwargs: Any,
    ) -> None:
        given = dict(locals())
        super().__init__(*_split_arguments(given, GRUCell), activity_regularizer, kwargs)


class SimpleRNN(_CellRNN):
    """A plain recurrent layer, over `ops.scan`.

    h = activation(x[:, t] kernel + h recurrent_kernel + bias), step by step.

    Args:
        units: size of the state and of the outputs.
        activity_regularizer: penalty on the outputs, divided by the batch size.
        dropout, recurrent_dropout: shares of the inputs and of the state dropped in training, alike in all steps.
        return_sequences, return_state, go_backwards, stateful, unroll: see `RNN`.

        The others as for `SimpleRNNCell`.

    Input shape:
        (batch, steps, features).

    Output shape:
        As `RNN`.

    Raises:
        ValueError: as `RNN` and `SimpleRNNCell`.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.SimpleRNN(4, return_sequences=True)(keras.Input((10, 3))).shape
        (None, 10, 4)

    Reference:
        Elman, "Finding Structure in Time", Cognitive Science 14, 1990.
    """

    _cell_class = SimpleRNNCell

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        given = dict(locals())
        super().__init__(*_split_arguments(given, SimpleRNNCell), activity_regularizer, kwargs)


def _split_arguments(given: dict[str, Any], cell: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """A recurrent layer's arguments, apart: the cell's and the loop's."""
    import inspect

    names = [n for n in inspect.signature(cell.__init__).parameters if n not in ("self", "kwargs")]  # type: ignore[misc]
    return {n: given[n] for n in names}, {n: given[n] for n in _SETTINGS}


class Bidirectional(Layer):
    """A recurrent layer run forwards and another backwards, their outputs combined step by step.

    Args:
        layer: a recurrent layer; both directions are made from its configuration, with weights of their own.
        merge_mode: "concat", "sum", "mul", "ave", or None for a pair of outputs.
        weights: initial weights of both, the forward layer's first.
        backward_layer: a layer of its own for the way back, with the other go_backwards.

    Input shape:
        (batch, steps, features).

    Output shape:
        As the layer's; the last size doubles with "concat". With return_state the states of both follow.

    Raises:
        ValueError: another merge_mode, no layer, two layers of one direction.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.Bidirectional(keras.layers.LSTM(4))(keras.Input((None, 3))).shape
        (None, 8)

    Reference:
        Schuster and Paliwal, "Bidirectional Recurrent Neural Networks", 1997.
    """

    def __init__(
        self,
        layer: Any,
        merge_mode: str | None = "concat",
        weights: Any = None,
        backward_layer: Any = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(layer, Layer):
            raise ValueError(
                f"Please initialize `Bidirectional` layer with a `keras.layers.Layer` instance. Received: {layer}"
            )
        if merge_mode not in ("sum", "mul", "ave", "concat", None):
            raise ValueError(
                f'Invalid merge mode. Received: {merge_mode}. Merge mode should be one of {{"sum", "mul", "ave", "concat", None}}'
            )
        super().__init__(**kwargs)
        config = layer.get_config()
        name = layer.name.removeprefix("forward_").removeprefix("backward_")
        self.forward_layer = type(layer).from_config({**config, "name": "forward_" + name})
        if backward_layer is None:
            config["go_backwards"] = not config["go_backwards"]
            self.backward_layer = type(layer).from_config({**config, "name": "backward_" + name})
        else:
            self.backward_layer = backward_layer
            if self.forward_layer.go_backwards == backward_layer.go_backwards:
                raise ValueError("Forward layer and backward layer should have different `go_backwards` value.")
        for inner in (self.forward_layer, self.backward_layer):
            inner.zero_output_for_mask = layer.return_sequences
        self.merge_mode = merge_mode
        self.return_sequences, self.return_state = layer.return_sequences, layer.return_state
        self.supports_masking = True
        self._initial_weights = weights

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        for inner in (self.forward_layer, self.backward_layer):
            if not inner.built:
                inner.build(sequences_shape)
        if self._initial_weights is not None:
            self.set_weights(self._initial_weights)

    def call(self, sequences: Any, initial_state: Any = None, mask: Any = None, training: Any = None) -> Any:
        half = None if initial_state is None else len(initial_state) // 2
        there = self.forward_layer(
            sequences, initial_state=None if half is None else initial_state[:half], mask=mask, training=training
        )
        back = self.backward_layer(
            sequences, initial_state=None if half is None else initial_state[half:], mask=mask, training=training
        )
        states: list[Any] = []
        if self.return_state:
            states = [*there[1:], *back[1:]]
            there, back = there[0], back[0]
        if self.return_sequences:
            back = ops.flip(back, 1)
        if self.merge_mode == "concat":
            output: Any = ops.concatenate([there, back], axis=-1)
        elif self.merge_mode == "sum":
            output = there + back
        elif self.merge_mode == "ave":
            output = (there + back) / 2.0
        elif self.merge_mode == "mul":
            output = there * back
        else:
            output = (there, back)
        if self.return_state:
            return (*output, *states) if self.merge_mode is None else (output, *states)
        return output

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        kept = mask if self.return_sequences else None
        outputs = [kept, kept] if self.merge_mode is None else [kept]
        if self.return_state:
            outputs += [None] * (2 * len(np.atleast_1d(self.forward_layer.cell.state_size)))
        return outputs if len(outputs) > 1 else outputs[0]

    def get_config(self) -> dict[str, Any]:
        from dagrt.saving import serialize_keras_object

        return {
            **super().get_config(),
            "merge_mode": self.merge_mode,
            "layer": serialize_keras_object(self.forward_layer),
            "backward_layer": serialize_keras_object(self.backward_layer),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        from dagrt.saving import deserialize_keras_object

        config = dict(config)
        for key in ("layer", "backward_layer"):
            if config.get(key) is not None:
                config[key] = deserialize_keras_object(config[key])
        return cls(**config)


class TimeDistributed(Layer):
    """A layer applied to every step of a sequence, with the same weights.

    y[:, t] = layer(x[:, t]).

    Args:
        layer: the layer.

    Input shape:
        (batch, steps, ...).

    Output shape:
        (batch, steps, ...): the layer's output behind the steps.

    Raises:
        ValueError: no layer.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.TimeDistributed(keras.layers.Conv2D(4, 3))(keras.Input((10, 8, 8, 3))).shape
        (None, 10, 6, 6, 4)
    """

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        if not isinstance(layer, Layer):
            raise ValueError(
                f"Please initialize `TimeDistributed` layer with a `keras.layers.Layer` instance. Received: {layer}"
            )
        super().__init__(**kwargs)
        self.layer = layer
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        if not self.layer.built:
            self.layer.build((input_shape[0], *input_shape[2:]))

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        b, t = inputs.dims[:2]
        x = ops.reshape(inputs, (b * t, *inputs.dims[2:]))
        y = self.layer(x, training=training) if self.layer._call_has_training_arg else self.layer(x)
        return ops.reshape(y, (b, t, *y.dims[1:]))

    def get_config(self) -> dict[str, Any]:
        return serialized(super().get_config(), self, "layer")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        from dagrt.saving import deserialize_keras_object

        return cls(**{**config, "layer": deserialize_keras_object(config["layer"])})
