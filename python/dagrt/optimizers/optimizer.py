"""Optimizer: gradients in, better weights out. Written over `dagrt.ops`: a train step makes it part of its program."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from dagrt import _config, initializers, ops, tracing
from dagrt.ops.core import as_tensor
from dagrt.optimizers.schedules import LearningRateSchedule
from dagrt.variable import Variable


class Optimizer:
    """Base of all optimisers. Subclasses write `build` (slots) and `update_step(gradient, variable, learning_rate)`.

    In each step: gradients are clipped, weights decay, `update_step` runs, constraints are applied, averages follow.

    Args:
        learning_rate: number, schedule, or function without arguments.
        weight_decay: before each step every variable loses this share of itself, times the learning rate; None for none.
        clipnorm: each gradient is scaled to at most this norm.
        clipvalue: each gradient is limited to ±this.
        global_clipnorm: all gradients together are scaled to at most this norm.
        loss_scale_factor: `scale_loss` multiplies by it and `apply` divides by it, so that small 16-bit gradients survive.
        use_ema: keep a moving average of the weights, which replaces them every `ema_overwrite_frequency` steps, or when
            training ends.
        ema_momentum: share of the average that stays in each step, 0 to 1.
        ema_overwrite_frequency: steps; None: when training ends.
        loss_scale_factor: factor of the loss before its gradients are taken; None for 1.
        gradient_accumulation_steps: step once for so many calls, with the mean of their gradients; at least 2.
        name: name of the optimiser; by default the class's, numbered.

    Raises:
        ValueError: more than one kind of clipping, or values out of range.

    Example:
        >>> import dagrt as keras
        >>> class Signs(keras.optimizers.Optimizer):
        ...     def update_step(self, gradient, variable, learning_rate):
        ...         self.assign_sub(variable, learning_rate * keras.ops.sign(gradient))
        >>> w = keras.Variable([1.0, 2.0])
        >>> Signs(0.5).apply([[10.0, -10.0]], [w])
        >>> w.numpy()
        array([0.5, 2.5], dtype=float32)
    """

    # Ops update a variable and its slots in one pass; subclasses that do so take the weight decay with them.
    _fused_decay = False

    def __init__(
        self,
        learning_rate: Any,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("jit_compile", None)
        if "decay" in kwargs:
            raise ValueError("Argument `decay` is no longer supported: use a schedule from dagrt.optimizers.schedules")
        if kwargs:
            raise ValueError(f"Argument(s) not recognized: {kwargs}")
        given = [
            k
            for k, v in (("clipnorm", clipnorm), ("clipvalue", clipvalue), ("global_clipnorm", global_clipnorm))
            if v is not None
        ]
        if len(given) > 1:
            raise ValueError(f"Only one of `clipnorm`, `clipvalue` and `global_clipnorm` can be set. Received: {given}")
        for k, v in (("clipnorm", clipnorm), ("clipvalue", clipvalue), ("global_clipnorm", global_clipnorm)):
            if v is not None and v <= 0:
                raise ValueError(f"`{k}` must be positive, got {v}")
        if use_ema and not 0 <= ema_momentum <= 1:
            raise ValueError(f"`ema_momentum` must be in the range [0, 1]. Received: ema_momentum={ema_momentum}")
        if gradient_accumulation_steps is not None and gradient_accumulation_steps < 2:
            raise ValueError(
                f"`gradient_accumulation_steps` must be an integer >= 2. Received: {gradient_accumulation_steps}"
            )
        self.name = name or _config.unique_name(_config.to_snake_case(type(self).__name__))
        self.weight_decay, self.clipnorm, self.clipvalue, self.global_clipnorm = (
            weight_decay,
            clipnorm,
            clipvalue,
            global_clipnorm,
        )
        self.use_ema, self.ema_momentum, self.ema_overwrite_frequency = use_ema, ema_momentum, ema_overwrite_frequency
        self.loss_scale_factor = loss_scale_factor
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.built = False
        self._variables: list[Variable] = []
        self._trainable_variables: list[Variable] = []
        self._excluded: list[Any] = []
        self._when: Any = None
        self._iterations = self._new_variable(np.int32(0), "iteration")
        if isinstance(learning_rate, dict):
            from dagrt.saving import deserialize_keras_object

            learning_rate = deserialize_keras_object(learning_rate)
        self._schedule: Any = None
        if isinstance(learning_rate, LearningRateSchedule) or (
            callable(learning_rate) and not isinstance(learning_rate, Variable)
        ):
            self._schedule = learning_rate
            self._learning_rate: Any = None
        else:
            if not isinstance(learning_rate, (int, float, np.number, np.ndarray, Variable)):
                raise ValueError(
                    "Argument `learning_rate` should be float, or an instance of LearningRateSchedule, or a callable (that "
                    f"takes in no arguments and returns a float). Received: learning_rate={learning_rate!r}"
                )
            self._learning_rate = self._new_variable(np.float32(learning_rate), "learning_rate")

    # --- variables -----------------------------------------------------------------------------------------------

    def _new_variable(self, value: Any, name: str, shape: Any = None, dtype: Any = None) -> Variable:
        with tracing.path_scope(self.name):
            v = Variable(value, shape=shape, dtype=dtype, trainable=False, name=name)
        v.path = f"{self.name}/{name}"
        self._variables.append(v)
        return v

    def add_variable(
        self,
        shape: Any,
        initializer: Any = "zeros",
        dtype: Any = None,
        aggregation: Any = None,
        name: str | None = None,
    ) -> Variable:
        """A variable of the optimiser's state.

        Args:
            shape: sizes.
            initializer: name, initializer or function of (shape, dtype).
            dtype: float32 by default.
            aggregation: kept for Keras's sake.
            name: last part of its path.
        """
        return self._new_variable(initializers.get(initializer), name or "variable", shape=shape, dtype=dtype)

    def add_variable_from_reference(
        self, reference_variable: Variable, name: str = "slot", initializer: Any = "zeros"
    ) -> Variable:
        """A slot: a variable of the same shape as one that is trained.

        Args:
            reference_variable: the trained one.
            name: what the slot holds; the end of its path.
            initializer: name, initializer or function of (shape, dtype).
        """
        base = re.sub("/", "_", getattr(reference_variable, "path", reference_variable.name))
        return self.add_variable(
            tuple(reference_variable.shape), initializer, reference_variable.dtype, name=f"{base}_{name}"
        )

    def build(self, variables: Any) -> None:
        """Makes the slots for these variables. Subclasses call it before they add their own."""
        if self.built:
            return
        self._trainable_variables = list(variables)
        self._index = {id(v._core): i for i, v in enumerate(self._trainable_variables)}
        if self.use_ema:
            self._averages = [self.add_variable_from_reference(v, "average") for v in self._trainable_variables]
        if self.gradient_accumulation_steps:
            self._accumulated = [
                self.add_variable_from_reference(v, "gradient_accumulator") for v in self._trainable_variables
            ]
        self.built = True

    def _build_whole(self, variables: Any) -> None:
        """`build`, or nothing of it: an interruption (Ctrl-C) in the middle must not leave half the slots."""
        before = len(self._variables)
        try:
            self.build(variables)
        except BaseException:
            del self._variables[before:]
            self.built = False
            raise

    def _slots(self, *names: str) -> list[list[Variable]]:
        """One list of slots for each name, made variable by variable, as Keras orders them."""
        lists: list[list[Variable]] = [[] for _ in names]
        for v in self._trainable_variables:
            for slots, name in zip(lists, names):
                slots.append(self.add_variable_from_reference(v, name))
        return lists

    def _place(self, variable: Variable) -> int:
        try:
            return self._index[id(variable._core)]
        except KeyError:
            raise ValueError(
                f"{self.name} does not know the variable {variable.path}: an optimizer works on the variables it was built "
                "with. Use another optimizer for other variables, or build it with all of them."
            ) from None

    @property
    def variables(self) -> list[Variable]:
        return list(self._variables)

    @property
    def iterations(self) -> Any:
        """Steps taken so far."""
        if self.gradient_accumulation_steps:
            return ops.floor_divide(self._iterations, self.gradient_accumulation_steps)
        return self._iterations

    @property
    def learning_rate(self) -> Any:
        """The rate of the next step; a Variable unless a schedule gives it."""
        if self._schedule is None:
            return self._learning_rate
        if isinstance(self._schedule, LearningRateSchedule):
            return self._schedule(self.iterations)
        return self._schedule()

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if isinstance(value, LearningRateSchedule):
            if self._schedule is None:
                raise TypeError("a learning rate that is a number cannot become a schedule; make a new optimizer")
            self._schedule = value
            return
        if self._schedule is not None:
            raise TypeError(
                "This optimizer was created with a `LearningRateSchedule` object as its `learning_rate` constructor argument, "
                "hence its learning rate is not settable. If you need the learning rate to be settable, you should "
                "instantiate the optimizer with a float `learning_rate` argument."
            )
        self._learning_rate.assign(value)

    lr = learning_rate

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Variables that do not decay. To be called before the first step.

        Args:
            var_list: variables.
            var_names: regular expressions, searched in paths.

        Raises:
            ValueError: the optimiser was built already.
        """
        if self.built:
            raise ValueError("`exclude_from_weight_decay()` can only be configured before the optimizer is built.")
        self._excluded = [*(id(v._core) for v in var_list or []), *(var_names or [])]

    def _decays(self, v: Variable) -> bool:
        if not self.weight_decay:
            return False
        return not any(re.search(e, v.path) if isinstance(e, str) else e == id(v._core) for e in self._excluded)

    # --- a step --------------------------------------------------------------------------------------------------

    def assign(self, variable: Variable, value: Any) -> None:
        """Sets a variable, unless this call only gathers gradients."""
        variable.assign(value, when=self._when)

    def assign_add(self, variable: Variable, value: Any) -> None:
        self.assign(variable, variable.value + value)

    def assign_sub(self, variable: Variable, value: Any) -> None:
        self.assign(variable, variable.value - value)

    def apply_gradients(self, grads_and_vars: Any) -> Any:
        """`apply` of pairs.

        Args:
            grads_and_vars: pairs (gradient, variable).
        """
        grads, variables = zip(*grads_and_vars)
        self.apply(grads, variables)
        return self._iterations

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """One step.

        Args:
            grads: gradients, one for each variable; None leaves the variable out.
            trainable_variables: those the optimiser was built with, or some of them.

        Raises:
            ValueError: another number of gradients, or variables it does not know.
        """
        grads = list(grads)
        variables = self._step_variables(trainable_variables)
        if len(grads) != len(variables):
            raise ValueError(f"{self.name}: got {len(grads)} gradients for {len(variables)} variables")
        if not self.built:
            self._build_whole(variables)
        pairs = [(g, v) for g, v in zip(grads, variables) if g is not None]
        if not pairs:
            raise ValueError("No gradients provided for any variable.")
        grads, variables = [as_tensor(g) for g, _ in pairs], [v for _, v in pairs]
        for v in variables:
            self._place(v)
        self._when = None
        if self.gradient_accumulation_steps:
            grads = self._accumulate(grads, variables)
        try:
            if self.loss_scale_factor is not None:
                grads = [g / self.loss_scale_factor for g in grads]
            grads = self._clip(grads)
            rate = ops.cast(as_tensor(self.learning_rate), "float32")
            if not self._fused_decay:
                for v in variables:
                    if self._decays(v):
                        self.assign_sub(v, v.value * (ops.cast(rate, v.dtype) * float(self.weight_decay or 0.0)))
            self._begin_step(rate)
            for g, v in zip(grads, variables):
                self.update_step(ops.cast(g, v.dtype), v, rate)
            for v in variables:
                if v.constraint is not None:
                    self.assign(v, v.constraint(v.value))
            if self.use_ema:
                self._average(variables)
        finally:
            self._when = None
        self._iterations.assign(self._iterations.value + 1)

    def _step_variables(self, given: Any) -> list[Variable]:
        if given is None and not self.built:
            raise ValueError(
                "When passing `grads` without `variables`, the optimizer must be built on variables beforehand."
            )
        return list(self._trainable_variables if given is None else given)

    def _begin_step(self, learning_rate: Any) -> None:
        """What a step computes once for all variables."""

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        raise NotImplementedError(
            f"{type(self).__name__} must implement update_step(gradient, variable, learning_rate)"
        )

    def _accumulate(self, grads: list[Any], variables: list[Variable]) -> list[Any]:
        n = self.gradient_accumulation_steps
        due = ops.equal(ops.mod(self._iterations.value + 1, n), 0)
        means = []
        for g, v in zip(grads, variables):
            slot = self._accumulated[self._place(v)]
            total = slot.value + ops.cast(g, slot.dtype)
            means.append(total / float(n or 1))
            slot.assign(ops.where(due, 0.0, total))
        self._when = due
        return means

    def _clip(self, grads: list[Any]) -> list[Any]:
        if self.clipnorm is not None:
            return [_scaled_to(g, ops.sqrt(ops.sum(ops.square(g))), self.clipnorm) for g in grads]
        if self.global_clipnorm is not None:
            norm = ops.sqrt(sum((ops.sum(ops.square(g)) for g in grads[1:]), ops.sum(ops.square(grads[0]))))
            return [_scaled_to(g, norm, self.global_clipnorm) for g in grads]
        if self.clipvalue is not None:
            return [ops.clip(g, -self.clipvalue, self.clipvalue) for g in grads]
        return grads

    def _average(self, variables: list[Variable]) -> None:
        m = ops.cast(ops.not_equal(self._iterations.value, 0), "float32") * self.ema_momentum
        for v in variables:
            average = self._averages[self._place(v)]
            self.assign(average, m * average.value + (1.0 - m) * v.value)
            if self.ema_overwrite_frequency:
                due = ops.equal(ops.mod(self._iterations.value + 1, self.ema_overwrite_frequency), 0)
                self.assign(v, ops.where(due, average.value, v.value))

    def finalize_variable_values(self, var_list: Any) -> None:
        """When training ends: weights become their averages, where those are kept."""
        if self.use_ema and self.built and not self.ema_overwrite_frequency:
            for v in var_list:
                if id(v._core) in self._index:  # a variable made trainable since `build` has no average
                    v.assign(self._averages[self._place(v)])

    def scale_loss(self, loss: Any) -> Any:
        """The loss to differentiate: `apply` divides its gradients by the same factor."""
        return loss if self.loss_scale_factor is None else loss * self.loss_scale_factor

    # --- files ---------------------------------------------------------------------------------------------------

    def save_own_variables(self, store: dict) -> None:
        for i, v in enumerate(self.variables):
            store[str(i)] = v

    def load_own_variables(self, store: dict) -> None:
        variables = self.variables
        if len(store) != len(variables):
            raise ValueError(f"{self.name}: expected {len(variables)} variables, got {len(store)}")
        for i, v in enumerate(variables):
            v.assign(np.asarray(store[str(i)]))

    def set_weights(self, weights: Any) -> None:
        self.load_own_variables({str(i): w for i, w in enumerate(weights)})

    def get_config(self) -> dict[str, Any]:
        from dagrt.saving import serialize_keras_object

        if self._schedule is None:
            rate: Any = float(self._learning_rate.numpy())
        else:
            rate = serialize_keras_object(self._schedule)
        return {
            "name": self.name,
            "learning_rate": rate,
            "weight_decay": self.weight_decay,
            "clipnorm": self.clipnorm,
            "global_clipnorm": self.global_clipnorm,
            "clipvalue": self.clipvalue,
            "use_ema": self.use_ema,
            "ema_momentum": self.ema_momentum,
            "ema_overwrite_frequency": self.ema_overwrite_frequency,
            "loss_scale_factor": self.loss_scale_factor,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> Any:
        config = dict(config)
        if isinstance(config.get("learning_rate"), dict):
            from dagrt.saving import deserialize_keras_object

            config["learning_rate"] = deserialize_keras_object(config["learning_rate"], custom_objects)
        return cls(**config)


def _scaled_to(g: Any, norm: Any, limit: float) -> Any:
    return ops.where(norm > limit, g * (limit / ops.where(norm > 0, norm, 1.0)), g)
