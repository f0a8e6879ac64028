"""Optimiser updates: Keras's equations in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases import Arg, Case

LR = 0.125


def _sgd(w: np.ndarray, g: np.ndarray, lr: np.ndarray, weight_decay: float) -> list[np.ndarray]:
    return [w - w * weight_decay * lr - lr * g]


def _momentum(
    w: np.ndarray, m: np.ndarray, g: np.ndarray, lr: np.ndarray, momentum: float, nesterov: bool, weight_decay: float
) -> list[np.ndarray]:
    w = w - w * weight_decay * lr
    m = momentum * m - lr * g
    return [w + momentum * m - lr * g if nesterov else w + m, m]


def _adam(
    w: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    g: np.ndarray,
    lr: np.ndarray,
    step: np.ndarray,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    weight_decay: float,
) -> list[np.ndarray]:
    w, t = w - w * weight_decay * lr, int(step) + 1
    m, v = beta_1 * m + (1 - beta_1) * g, beta_2 * v + (1 - beta_2) * g * g
    return [w - lr * np.sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (np.sqrt(v) + epsilon), m, v]


def _rmsprop(
    w: np.ndarray, v: np.ndarray, g: np.ndarray, lr: np.ndarray, rho: float, epsilon: float, weight_decay: float
) -> list[np.ndarray]:
    v = rho * v + (1 - rho) * g * g
    return [w - w * weight_decay * lr - lr * g / np.sqrt(v + epsilon), v]


def _cases(op: str, reference: Any, slots: list[Arg], attrs: dict[str, Any], step: int | None = None) -> list[Case]:
    cases = []
    for shape in [(), (1,), (0, 3), (15,), (17, 2), (3, 67), (9001,)]:
        states = [Arg(shape)] + [Arg(shape, low=s.low, high=s.high) for s in slots] + [Arg(shape)]
        extra = [Arg(values=LR)] + ([Arg(values=step, dtype="int32")] if step is not None else [])
        cases.append(
            Case(
                op,
                [*states, *extra],
                lambda *a: reference(*a, **attrs),
                attrs,
                grad=(),
                name="_".join([str(shape), *map(str, attrs.values()), str(step)]),
            )
        )
    return cases


def _all_cases(op: str, reference: Any, slots: list[Arg], attrs: dict[str, Any], step: int | None = None) -> Case:
    """Variables of several shapes, some without elements, in one node."""
    shapes: list[tuple[int, ...]] = [(3,), (0, 2), (), (4097,), (2, 9), (8193,), (0,)]
    scalars = [Arg(values=LR)] + ([Arg(values=step, dtype="int32")] if step is not None else [])
    each = len(slots) + 2
    args = list(scalars)
    for shape in shapes:
        args += [Arg(shape), *[Arg(shape, low=s.low, high=s.high) for s in slots], Arg(shape)]

    def all_of(*a: Any) -> list[np.ndarray]:
        first, rest = a[: len(scalars)], a[len(scalars) :]
        return [y for k in range(len(shapes)) for y in reference(*rest[k * each : (k + 1) * each], *first, **attrs)]

    return Case(op, args, all_of, attrs, grad=(), name="many")


_ADAM = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "weight_decay": 0.004}

CASES = [
    _all_cases("sgd_update_all", _sgd, [], {"weight_decay": 0.01}),
    _all_cases("momentum_update_all", _momentum, [Arg()], {"momentum": 0.9, "nesterov": True, "weight_decay": 0.0}),
    _all_cases("adam_update_all", _adam, [Arg(), Arg(low=0.1)], _ADAM, 9),
    _all_cases("rmsprop_update_all", _rmsprop, [Arg(low=0.1)], {"rho": 0.9, "epsilon": 1e-7, "weight_decay": 0.01}),
    *_cases("sgd_update", _sgd, [], {"weight_decay": 0.0}),
    *_cases("sgd_update", _sgd, [], {"weight_decay": 0.01}),
    *_cases("momentum_update", _momentum, [Arg()], {"momentum": 0.9, "nesterov": False, "weight_decay": 0.01}),
    *_cases("momentum_update", _momentum, [Arg()], {"momentum": 0.9, "nesterov": True, "weight_decay": 0.0}),
    *_cases(
        "adam_update",
        _adam,
        [Arg(), Arg(low=0.1)],
        {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "weight_decay": 0.0},
        0,
    ),
    *_cases(
        "adam_update",
        _adam,
        [Arg(), Arg(low=0.1)],
        {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "weight_decay": 0.004},
        999,
    ),
    *_cases("rmsprop_update", _rmsprop, [Arg(low=0.1)], {"rho": 0.9, "epsilon": 1e-7, "weight_decay": 0.01}),
]
