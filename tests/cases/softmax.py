"""Softmax, its logarithm and the fused cross-entropy."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases import Arg, Case

NAN, INF = float("nan"), float("inf")


def log_softmax(x: Any) -> Any:
    s = x - x.max(axis=-1, keepdims=True, initial=-np.inf)
    return s - np.log(np.exp(s).sum(axis=-1, keepdims=True))


def softmax(x: Any) -> Any:
    return np.exp(log_softmax(x))


def cross_entropy(x: Any, labels: Any) -> Any:
    z = log_softmax(x)
    if labels.dtype.kind == "f":
        return -(labels * z).sum(axis=-1)
    return -np.take_along_axis(z, labels[..., None].astype("int64"), -1)[..., 0]


def gradient(x: Any, labels: Any, log_z: Any, g: Any) -> Any:
    p = np.exp(x - log_z[..., None])
    if labels.dtype.kind != "f":
        labels = np.eye(x.shape[-1])[labels]
    return g[..., None] * (p * labels.sum(-1, keepdims=True) - labels)


CASES: list[Case] = []
for op, f in (("softmax", softmax), ("log_softmax", log_softmax)):
    for shape in [
        (10,),
        (1,),
        (5, 1),
        (3, 15),
        (3, 16),
        (3, 17),
        (4, 31),
        (2, 3, 33),
        (7, 1000),
        (0, 5),
        (5, 0),
        (900, 10),
    ]:
        CASES.append(Case(op, [Arg(shape, low=-5, high=5)], f, name=f"{op}-{'x'.join(map(str, shape))}"))
    CASES += [
        Case(op, [Arg((4, 33), low=-1000, high=1000)], f, tolerance=64, grad=(), name=f"{op}-large"),
        Case(op, [Arg(values=[[NAN, 1, 2], [1, -INF, 2]])],
             lambda x, f=f: np.where(np.isnan(x).any(-1, keepdims=True), np.nan, f(x)), grad=(), name=f"{op}-nan-inf"),
        Case(op, [Arg(values=np.linspace(-3, 3, 30).reshape(3, 10), dtype="float16")], f, tolerance=8192, grad=(),
             name=f"{op}-half"),
    ]  # fmt: skip
for shape in [(10,), (5, 1), (3, 15), (3, 16), (3, 17), (2, 3, 33), (4, 1000), (0, 5), (900, 10)]:
    name = "x".join(map(str, shape))
    CASES += [
        Case("softmax_cross_entropy", [Arg(shape, low=-5, high=5), Arg(shape[:-1], "int32", 0, shape[-1])], cross_entropy,
             name=f"softmax_cross_entropy-{name}"),
        Case("softmax_cross_entropy", [Arg(shape, low=-5, high=5), Arg(shape, low=0, high=1)], cross_entropy,
             name=f"softmax_cross_entropy-{name}-float"),
    ]  # fmt: skip
CASES += [
    Case("softmax_cross_entropy", [Arg((6, 4)), Arg((6,), "int64", 0, 4)], cross_entropy, name="softmax_cross_entropy-int64"),
    Case("softmax_cross_entropy", [Arg((6, 4)), Arg((6,), "uint8", 0, 4)], cross_entropy, name="softmax_cross_entropy-uint8"),
    Case("softmax_cross_entropy", [Arg(values=[[1000.0, 0.0], [9000.0, 9001.0]]), Arg(values=[0, 0], dtype="int32")],
         cross_entropy, grad=(), name="softmax_cross_entropy-large"),
    Case("softmax_cross_entropy", [Arg((3, 4)), Arg(values=[0, 4, 1], dtype="int32")], cross_entropy,
         fault="4", name="softmax_cross_entropy-label-4"),
    Case("softmax_cross_entropy", [Arg((3, 4)), Arg(values=[0, 1, -1], dtype="int64")], cross_entropy,
         fault="-1", name="softmax_cross_entropy-label-negative"),
    Case("softmax_cross_entropy_grad", [Arg((7, 19)), Arg((7,), "int32", 0, 19), Arg((7,), low=2, high=4), Arg((7,))], gradient),
    Case("softmax_cross_entropy_grad", [Arg((7, 19)), Arg((7, 19), low=0, high=1), Arg((7,), low=2, high=4), Arg((7,))],
         gradient, name="softmax_cross_entropy_grad-float"),
]  # fmt: skip
