"""Loss scaling, which float16 training needs: without it small gradients vanish below 6e-8."""

from __future__ import annotations

from typing import Any

import numpy as np

from dagrt import ops, tracing
from dagrt.ops.core import as_tensor
from dagrt.optimizers.optimizer import Optimizer


class LossScaleOptimizer(Optimizer):
    """Multiplies the loss before differentiation by a scale that follows the gradients, and divides the gradients by it.

        all gradients finite:  one step of the inner optimizer with gradient / scale;
                               after `dynamic_growth_steps` such steps in a row  scale = 2 scale
        else:                  no step;  scale = scale / 2

    `compile` puts it around the optimizer of a model whose policy is "mixed_float16", unless `auto_scale_loss=False`.

    Args:
        inner_optimizer: the Optimizer that steps.
        initial_scale: the first scale. Too high is soon halved, too low takes long to grow.
        dynamic_growth_steps: finite steps in a row after which the scale doubles.
        name: of the optimizer.

    Raises:
        ValueError: any other argument of an optimizer: they belong to `inner_optimizer`.

    Example:
        >>> import dagrt as keras
        >>> optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=4.0)
        >>> optimizer.scale_loss(2.0)
        <dagrt.Tensor shape=() dtype=float32
        8.0>

    Reference:
        Micikevicius et al., "Mixed Precision Training", 2017, arXiv:1710.03740.
    """

    def __init__(
        self,
        inner_optimizer: Optimizer,
        initial_scale: float = 2.0**15,
        dynamic_growth_steps: int = 2000,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs:
            raise ValueError(
                f"LossScaleOptimizer does not support {', '.join(sorted(kwargs))}: set them on the `inner_optimizer`"
            )
        if not isinstance(inner_optimizer, Optimizer):
            raise ValueError(f"LossScaleOptimizer: inner_optimizer must be an Optimizer, got {inner_optimizer!r}")
        self.inner_optimizer = inner_optimizer
        super().__init__(learning_rate=0.0, name=name)
        self.initial_scale = initial_scale
        self.dynamic_growth_steps = dynamic_growth_steps
        self.step_counter = self._new_variable(np.int32(0), "step_counter")
        self.dynamic_scale = self._new_variable(np.float32(initial_scale), "dynamic_scale")
        inner_optimizer.loss_scale_factor = None  # or gradients would be scaled twice

    def build(self, variables: Any) -> None:
        if self.built:
            return
        variables = list(variables)
        self.inner_optimizer._build_whole(variables)
        super().build(variables)

    @property
    def variables(self) -> list[Any]:
        return [*self._variables, *self.inner_optimizer.variables]

    @property
    def iterations(self) -> Any:
        """Steps taken so far by the inner optimizer."""
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self) -> Any:
        """The inner optimizer's."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self.inner_optimizer.learning_rate = value

    def scale_loss(self, loss: Any) -> Any:
        return loss * self.dynamic_scale.value

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        grads = list(grads)
        variables = self._step_variables(trainable_variables)
        if not self.built:
            self._build_whole(variables)
        grads = [None if g is None else ops.cast(as_tensor(g), "float32") for g in grads]
        finite: Any = True
        for g in grads:
            if g is not None:
                finite = ops.logical_and(finite, ops.all(ops.isfinite(g)))
        scale, count = self.dynamic_scale.value, self.step_counter.value
        with tracing.assign_when(finite):
            self.inner_optimizer.apply([None if g is None else g / scale for g in grads], variables)
        grow = ops.logical_and(finite, ops.equal(count, self.dynamic_growth_steps - 1))
        self.dynamic_scale.assign(ops.where(finite, ops.where(grow, scale * 2.0, scale), scale * 0.5))
        self.step_counter.assign(ops.where(ops.logical_and(finite, ops.logical_not(grow)), count + 1, 0))

    def finalize_variable_values(self, var_list: Any) -> None:
        self.inner_optimizer.finalize_variable_values(var_list)

    def get_config(self) -> dict[str, Any]:
        from dagrt.saving import serialize_keras_object

        return {
            "name": self.name,
            "inner_optimizer": serialize_keras_object(self.inner_optimizer),
            "initial_scale": self.initial_scale,
            "dynamic_growth_steps": self.dynamic_growth_steps,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> Any:
        from dagrt.saving import deserialize_keras_object

        config = dict(config)
        inner = config.pop("inner_optimizer")
        # Files of older versions hold the base class's arguments as well, which mean nothing here.
        known = {k: config[k] for k in ("name", "initial_scale", "dynamic_growth_steps") if k in config}
        return cls(deserialize_keras_object(inner, custom_objects), **known)
