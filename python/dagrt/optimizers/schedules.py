"""Learning rates that follow the number of steps, computed inside the program."""

from __future__ import annotations

import math
from typing import Any

from dagrt import ops


class LearningRateSchedule:
    """A function from the number of steps taken to the learning rate. Subclasses write `__call__` over `dagrt.ops`, and
    `get_config` for files.

    Example:
        >>> import dagrt as keras
        >>> class Halves(keras.optimizers.schedules.LearningRateSchedule):
        ...     def __call__(self, step):
        ...         return 0.1 * keras.ops.power(0.5, keras.ops.cast(step, "float32"))
        >>> optimizer = keras.optimizers.SGD(Halves())
        >>> round(float(optimizer.learning_rate), 4)
        0.1
    """

    def __call__(self, step: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must implement __call__(step)")

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError(f"{type(self).__name__} must implement get_config()")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(**config)


def _float(step: Any) -> Any:
    return ops.cast(step, "float32")


class ExponentialDecay(LearningRateSchedule):
    """A rate that falls by the same factor in equal times.

    rate = initial * decay_rate ^ (step / decay_steps).

    Args:
        initial_learning_rate: rate of step 0.
        decay_steps: steps in which the rate falls by decay_rate.
        decay_rate: the factor.
        staircase: round step / decay_steps down: the rate falls at once, then stays.
        name: name of the schedule.

    Raises:
        ValueError: decay_steps below 1.

    Example:
        >>> import dagrt as keras
        >>> rate = keras.optimizers.schedules.ExponentialDecay(1.0, decay_steps=10, decay_rate=0.5)
        >>> float(rate(20))
        0.25
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ) -> None:
        if decay_steps <= 0:
            raise ValueError(f"Argument `decay_steps` must be > 0. Received: decay_steps={decay_steps}")
        self.initial_learning_rate, self.decay_steps, self.decay_rate = initial_learning_rate, decay_steps, decay_rate
        self.staircase, self.name = staircase, name

    def __call__(self, step: Any) -> Any:
        p = _float(step) / float(self.decay_steps)
        if self.staircase:
            p = ops.floor(p)
        return float(self.initial_learning_rate) * ops.power(float(self.decay_rate), p)

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "decay_rate": self.decay_rate,
            "staircase": self.staircase,
            "name": self.name,
        }


class InverseTimeDecay(ExponentialDecay):
    """A rate that falls with the inverse of time.

    rate = initial / (1 + decay_rate * step / decay_steps).

    Args:
        initial_learning_rate: rate of step 0.
        decay_steps: the unit of time, in steps.
        decay_rate: how fast it falls.
        staircase: round step / decay_steps down.
        name: name of the schedule.

    Raises:
        ValueError: decay_steps below 1.

    Example:
        >>> import dagrt as keras
        >>> rate = keras.optimizers.schedules.InverseTimeDecay(1.0, decay_steps=10, decay_rate=1.0)
        >>> float(rate(30))
        0.25
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
        name: str = "InverseTimeDecay",
    ) -> None:
        super().__init__(initial_learning_rate, decay_steps, decay_rate, staircase, name)

    def __call__(self, step: Any) -> Any:
        p = _float(step) / float(self.decay_steps)
        if self.staircase:
            p = ops.floor(p)
        return float(self.initial_learning_rate) / (1.0 + float(self.decay_rate) * p)


class PiecewiseConstantDecay(LearningRateSchedule):
    """Rates that hold up to given steps.

    rate = values[i] for the first i with step <= boundaries[i], the last value beyond.

    Args:
        boundaries: steps, rising.
        values: rates, one more than boundaries.
        name: name of the schedule.

    Raises:
        ValueError: another number of values.

    Example:
        >>> import dagrt as keras
        >>> rate = keras.optimizers.schedules.PiecewiseConstantDecay([100, 200], [1.0, 0.5, 0.25])
        >>> float(rate(100)), float(rate(101)), float(rate(500))
        (1.0, 0.5, 0.25)
    """

    def __init__(self, boundaries: Any, values: Any, name: str = "PiecewiseConstant") -> None:
        if len(boundaries) != len(values) - 1:
            raise ValueError(
                f"The length of boundaries should be 1 less than the length of values. Received: boundaries={boundaries} of "
                f"length {len(boundaries)}, and values={values} of length {len(values)}."
            )
        self.boundaries, self.values, self.name = list(boundaries), list(values), name

    def __call__(self, step: Any) -> Any:
        rate: Any = float(self.values[-1])
        for b, v in zip(reversed(self.boundaries), reversed(self.values[:-1])):
            rate = ops.where(_float(step) <= float(b), float(v), rate)
        return ops.convert_to_tensor(rate)

    def get_config(self) -> dict[str, Any]:
        return {"boundaries": self.boundaries, "values": self.values, "name": self.name}


class PolynomialDecay(LearningRateSchedule):
    """A rate that falls to another along a power, linearly by default.

    rate = (initial - end) * (1 - min(step, decay_steps) / decay_steps) ^ power + end.

    Args:
        initial_learning_rate: rate of step 0.
        decay_steps: steps until the end rate.
        end_learning_rate: rate from then on.
        power: of the curve.
        cycle: begin again at every multiple of decay_steps, with decay_steps that much longer.
        name: name of the schedule.

    Raises:
        ValueError: decay_steps below 1.

    Example:
        >>> import dagrt as keras
        >>> rate = keras.optimizers.schedules.PolynomialDecay(1.0, decay_steps=10, end_learning_rate=0.0)
        >>> float(rate(5)), float(rate(50))
        (0.5, 0.0)
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ) -> None:
        if decay_steps <= 0:
            raise ValueError(f"Argument `decay_steps` must be > 0. Received: decay_steps={decay_steps}")
        self.initial_learning_rate, self.decay_steps, self.end_learning_rate = (
            initial_learning_rate,
            decay_steps,
            end_learning_rate,
        )
        self.power, self.cycle, self.name = power, cycle, name

    def __call__(self, step: Any) -> Any:
        s, n = _float(step), float(self.decay_steps)
        if self.cycle:
            n = n * ops.where(s == 0.0, 1.0, ops.ceil(s / n))
        else:
            s = ops.minimum(s, n)
        span = float(self.initial_learning_rate) - float(self.end_learning_rate)
        return span * ops.power(1.0 - s / n, float(self.power)) + float(self.end_learning_rate)

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "end_learning_rate": self.end_learning_rate,
            "power": self.power,
            "cycle": self.cycle,
            "name": self.name,
        }


class CosineDecay(LearningRateSchedule):
    """Half a cosine from the initial rate to alpha times it, after a linear warm-up where wanted.

    rate = start * ((1 - alpha) * (1 + cos(pi * min(s, decay_steps) / decay_steps)) / 2 + alpha). Without warm-up s = step and
    start = initial. With it the rate rises from initial to warmup_target in warmup_steps, then s = step - warmup_steps and
    start = warmup_target.

    Args:
        initial_learning_rate: rate of step 0.
        decay_steps: steps of the fall.
        alpha: rate at the end, as a share of the start's.
        name: name of the schedule.
        warmup_target: rate after the warm-up; None for no warm-up.
        warmup_steps: steps of the warm-up.

    Raises:
        ValueError: decay_steps below 1.

    Example:
        >>> import dagrt as keras
        >>> rate = keras.optimizers.schedules.CosineDecay(0.0, decay_steps=100, warmup_target=1.0, warmup_steps=10)
        >>> [round(float(rate(step)), 3) for step in (5, 10, 60, 110)]
        [0.5, 1.0, 0.5, 0.0]

    Reference:
        Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2016, arXiv:1608.03983.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ) -> None:
        if decay_steps <= 0:
            raise ValueError(f"Argument `decay_steps` must be > 0. Received: decay_steps={decay_steps}")
        self.initial_learning_rate, self.decay_steps, self.alpha, self.name = (
            initial_learning_rate,
            decay_steps,
            alpha,
            name,
        )
        self.warmup_target, self.warmup_steps = warmup_target, warmup_steps

    def _decayed(self, s: Any, start: float) -> Any:
        part = ops.minimum(s, float(self.decay_steps)) / float(self.decay_steps)
        cosine = 0.5 * (1.0 + ops.cos(math.pi * part))
        return start * ((1.0 - self.alpha) * cosine + self.alpha)

    def __call__(self, step: Any) -> Any:
        s, start = _float(step), float(self.initial_learning_rate)
        if self.warmup_target is None:
            return self._decayed(s, start)
        w, target = float(self.warmup_steps), float(self.warmup_target)
        rising = start + (target - start) * (s / max(w, 1.0))
        return ops.where(s < w, rising, self._decayed(s - w, target))

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "alpha": self.alpha,
            "name": self.name,
            "warmup_target": self.warmup_target,
            "warmup_steps": self.warmup_steps,
        }


class CosineDecayRestarts(LearningRateSchedule):
    """Cosine decays one after the other, each t_mul times as long and m_mul times as high.

    rate = initial * ((1 - alpha) * m_mul^i * (1 + cos(pi * part)) / 2 + alpha), in the i-th decay, of which `part` has passed.

    Args:
        initial_learning_rate: rate of step 0.
        first_decay_steps: steps of the first decay.
        t_mul: ratio of each decay's length to that before.
        m_mul: ratio of each decay's height to that before.
        alpha: rate at the end of each, as a share of the initial one.
        name: name of the schedule.

    Raises:
        ValueError: first_decay_steps below 1.

    Example:
        >>> import dagrt as keras
        >>> rate = keras.optimizers.schedules.CosineDecayRestarts(1.0, first_decay_steps=10, t_mul=1.0, m_mul=0.5)
        >>> [round(float(rate(step)), 3) for step in (0, 5, 10)]
        [1.0, 0.5, 0.5]

    Reference:
        Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2016, arXiv:1608.03983.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: int,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ) -> None:
        if first_decay_steps <= 0:
            raise ValueError(
                f"Argument `first_decay_steps` must be > 0. Received: first_decay_steps={first_decay_steps}"
            )
        self.initial_learning_rate, self.first_decay_steps = initial_learning_rate, first_decay_steps
        self.t_mul, self.m_mul, self.alpha, self.name = t_mul, m_mul, alpha, name

    def __call__(self, step: Any) -> Any:
        part = _float(step) / float(self.first_decay_steps)
        if self.t_mul == 1.0:
            restart = ops.floor(part)
            within = part - restart
        else:
            t = float(self.t_mul)
            restart = ops.floor(ops.log(1.0 - part * (1.0 - t)) / math.log(t))
            begun = (1.0 - ops.power(t, restart)) / (1.0 - t)
            within = (part - begun) / ops.power(t, restart)
        height = ops.power(float(self.m_mul), restart)
        cosine = 0.5 * height * (1.0 + ops.cos(math.pi * within))
        return float(self.initial_learning_rate) * ((1.0 - self.alpha) * cosine + self.alpha)

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "first_decay_steps": self.first_decay_steps,
            "t_mul": self.t_mul,
            "m_mul": self.m_mul,
            "alpha": self.alpha,
            "name": self.name,
        }


def serialize(learning_rate_schedule: Any) -> Any:
    """The schedule as plain data, for `deserialize` and files.

    Args:
        learning_rate_schedule: the schedule, an object or function.

    Example:
        >>> import dagrt as keras
        >>> keras.optimizers.schedules.serialize(keras.optimizers.schedules.CosineDecay(0.1, 100))["class_name"]
        'CosineDecay'
    """
    from dagrt.saving import serialize_keras_object

    return serialize_keras_object(learning_rate_schedule)


def deserialize(config: Any, custom_objects: dict | None = None) -> Any:
    """The schedule that `serialize` described.

    Args:
        config: what `serialize` gave.
        custom_objects: dict of names to classes and functions that are not registered.

    Example:
        >>> import dagrt as keras
        >>> type(keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(keras.optimizers.schedules.CosineDecay(0.1, 100)))).__name__
        'CosineDecay'
    """
    from dagrt.saving import deserialize_keras_object

    return deserialize_keras_object(config, custom_objects)
