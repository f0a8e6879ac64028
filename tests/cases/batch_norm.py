"""Cases of csrc/ops/batch_norm.cpp."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases import Arg, Case

EPSILON = 1e-3


def forward(x: np.ndarray, gamma: Any = None, beta: Any = None) -> tuple:
    axes = tuple(range(x.ndim - 1))
    mean, variance = x.mean(axes), x.var(axes)
    y = (x - mean) / np.sqrt(variance + EPSILON) * (1 if gamma is None else gamma) + (0 if beta is None else beta)
    return y, mean, variance


def backward(x: np.ndarray, gamma: Any, mean: np.ndarray, rstd: np.ndarray, dy: np.ndarray) -> tuple:
    axes = tuple(range(x.ndim - 1))
    n = x.size // x.shape[-1]
    z = (x - mean) * rstd
    dbeta, dgamma = dy.sum(axes), (dy * z).sum(axes)
    dx = (1 if gamma is None else gamma) * rstd * (dy - dbeta / n - z * dgamma / n)
    return dx, dgamma, dbeta


def only_y(*args: Any) -> Any:
    return forward(*args)[0]


def finished(x: np.ndarray, gamma: Any, beta: Any, residual: np.ndarray) -> tuple:
    y, mean, variance = forward(x, gamma, beta)
    return np.maximum(y + residual, 0), mean, variance


CASES: list[Case] = []
# Of 381 rows forward and 180 backward, a CUDA block keeps a little less than 48 KB, and needs some of its own.
for shape in [(4, 3), (7, 5, 17), (2, 3, 4, 16), (33, 1), (600, 33), (5, 64), (9000, 5), (7, 4101), (381, 3), (180, 2)]:
    c = (shape[-1],)
    attrs = {"epsilon": EPSILON}
    CASES.append(Case("batch_norm", [Arg(shape), Arg(c, low=0.5), Arg(c)], forward, attrs, grad=(), tolerance=256))
    CASES.append(
        Case(
            "batch_norm",
            [Arg(shape), Arg(c, low=0.5), Arg(c)],
            only_y,
            attrs,
            tolerance=64,
            grad_tolerance=256,
            name="y alone " + "x".join(map(str, shape)),
        )
    )
    CASES.append(
        Case(
            "batch_norm",
            [Arg(shape)],
            only_y,
            attrs,
            tolerance=64,
            grad_tolerance=256,
            name="bare " + "x".join(map(str, shape)),
        )
    )
    CASES.append(
        Case(
            "batch_norm",
            [Arg(shape), Arg(c, low=0.5), None, Arg(shape)],
            finished,
            {**attrs, "epilogue": ["add 0 1", "relu 2"], "epilogue_constants": []},
            grad=(),
            tolerance=256,
            name="finished " + "x".join(map(str, shape)),
        )
    )
    CASES.append(
        Case(
            "batch_norm_grad",
            [Arg(shape), Arg(c, low=0.5), Arg(c, low=-0.2, high=0.2), Arg(c, low=0.5), Arg(shape)],
            backward,
            {},
            tolerance=64,
        )
    )
    CASES.append(
        Case(
            "batch_norm_grad",
            [Arg(shape), None, Arg(c, low=-0.2, high=0.2), Arg(c, low=0.5), Arg(shape)],
            backward,
            {},
            tolerance=64,
            name="no gamma " + "x".join(map(str, shape)),
        )
    )
