"""Reductions: all patterns of axes, lengths around vector and block sizes, ties, NaN, integers, sorting."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases import Arg, Case

NAN, INF = float("nan"), float("inf")
REDUCTIONS = {"reduce_sum": np.sum, "reduce_max": np.max, "reduce_min": np.min, "reduce_prod": np.prod}


def reduction(op: str, shape: tuple[int, ...], axes: list[int], keepdims: bool = False, **more: Any) -> Case:
    f = REDUCTIONS[op]
    arg = more.pop("arg", Arg(shape, low=0.5, high=1.5) if op == "reduce_prod" else Arg(shape))
    name = more.pop("name", f"{op}-{'x'.join(map(str, arg.shape if arg.values is None else np.shape(arg.values)))}-"
                            f"{'_'.join(map(str, axes))}{'-keep' if keepdims else ''}-{arg.dtype}")  # fmt: skip

    def reference(x: Any) -> Any:
        y = f(x, axis=tuple(axes), keepdims=keepdims) if axes else x
        return y if x.dtype.kind == "f" else np.asarray(y).astype(x.dtype)

    return Case(op, [arg], reference, {"axes": axes, "keepdims": keepdims}, name=name, **more)


def long_columns() -> np.ndarray:
    """70 rows of 81: a NaN in the first block of 64 rows, in the second, and behind the last whole four."""
    x = np.sin(np.arange(70 * 81, dtype="float32")).reshape(70, 81)
    x[0, 3] = x[65, 40] = x[69, 80] = NAN
    return x


CASES: list[Case] = []
PATTERNS = [
    ((7,), [0]), ((1,), [0]), ((5, 7), [0]), ((5, 7), [1]), ((5, 7), [0, 1]), ((5, 7), []), ((3, 4, 5), [0, 2]),
    ((3, 4, 5), [1]), ((3, 4, 5), [-1, -3]), ((2, 3, 4, 5), [0, 2]), ((2, 3, 4, 5), [1, 3]), ((2, 3, 4, 5), [0, 1, 2]),
    ((2, 3, 1, 5), [2]), ((2, 1, 3), [0, 1]), ((), []), ((4, 67), [0]), ((67, 4), [1]), ((2, 2, 2, 2, 2), [0, 2, 4]),
    ((3, 2, 5, 3, 37), [1, 3]), ((2, 9, 5, 8, 4), [1, 3]), ((5, 2, 3, 7, 2, 4), [0, 2, 4]),
    ((3, 5, 20, 16), [0, 2]),
]  # fmt: skip
for op in REDUCTIONS:
    for shape, axes in PATTERNS:
        CASES.append(reduction(op, shape, axes))
    CASES += [
        reduction(op, (3, 4, 5), [1], True),
        reduction(op, (3, 4, 5), [0, 2], True),
        reduction(op, (3, 5), [], True),
    ]
    for dtype in ("int32", "int64", "uint8"):
        low = 1 if op == "reduce_prod" or dtype == "uint8" else -99
        for shape, axes in [((5, 37), [0]), ((5, 37), [1]), ((3, 4, 5), [0, 2]), ((1, 3), [0])]:
            CASES.append(reduction(op, shape, axes, arg=Arg(shape, dtype, low, 120)))
    CASES.append(
        reduction(
            op,
            (),
            [0],
            arg=Arg(values=np.linspace(0.5, 1.5, 40).reshape(4, 10), dtype="float16"),
            tolerance=4096,
            grad=(),
        )
    )
    CASES.append(
        reduction(
            op,
            (),
            [1],
            arg=Arg(values=np.linspace(0.5, 1.5, 40).reshape(4, 10), dtype="float16"),
            tolerance=4096,
            grad=(),
        )
    )
for n in (0, 2, 15, 16, 17, 63, 64, 65, 127, 129, 2047, 2048, 2049, 4099, 32768, 70001):
    CASES.append(reduction("reduce_sum", (n,), [0], tolerance=64))
    CASES.append(reduction("reduce_sum", (n,), [0], arg=Arg((n,), low=1, high=2), name=f"reduce_sum-{n}-positive"))
    if n:
        CASES.append(reduction("reduce_max", (n,), [0], grad=None if n < 2048 else ()))
CASES += [
    reduction("reduce_sum", (30011, 3), [0], tolerance=64),
    reduction("reduce_sum", (3, 30011, 2), [1], tolerance=64),
    reduction("reduce_sum", (2, 40000), [1], tolerance=64),
    reduction("reduce_sum", (300, 1100), [0], tolerance=64),
    reduction("reduce_prod", (70, 81), [0], tolerance=256, grad=()),
    reduction("reduce_sum", (4, 9000, 5), [0, 1], tolerance=64),
    reduction("reduce_sum", (100, 50, 3, 7), [1, 3], tolerance=64),
    reduction("reduce_sum", (0, 5), [0]), reduction("reduce_sum", (5, 0), [0]), reduction("reduce_sum", (5, 0), [1]),
    reduction("reduce_sum", (3, 0, 4), [0, 1]), reduction("reduce_prod", (0, 3), [0]), reduction("reduce_sum", (0, 3), []),
    reduction("reduce_max", (5, 0), [0]), reduction("reduce_sum", (2, 0, 3, 2, 5), [1, 3]),
    reduction("reduce_sum", (3, 16, 5, 17, 4), [1, 3], tolerance=64),
    reduction("reduce_sum", (), [0, 2], arg=Arg(values=np.linspace(0.5, 1.5, 120).reshape(3, 4, 2, 5), dtype="float16"), tolerance=4096,
              grad=(), name="reduce_sum-apart-float16"),
]  # fmt: skip
for op in ("reduce_max", "reduce_min"):
    CASES += [
        reduction(op, (), [1], arg=Arg(values=[[1, NAN, 3], [INF, 2, -INF], [NAN, NAN, NAN], [-INF, -INF, -INF]]),
                  grad=(), name=f"{op}-nan"),
        reduction(op, (), [0], arg=Arg(values=[[1, NAN, 3, 2], [INF, 2, -INF, NAN], [0, 5, -0.0, 1]]), grad=(),
                  name=f"{op}-nan-columns"),
        reduction(op, (), [0], arg=Arg(values=long_columns()), grad=(), name=f"{op}-nan-long-columns"),
        reduction(op, (33,), [0], arg=Arg((33,), "bool"), name=f"{op}-bool"),
        reduction(op, (), [0], arg=Arg(values=[-(2**31), 5, 2**31 - 1], dtype="int32"), name=f"{op}-int-limits"),
    ]  # fmt: skip
# Ties share equally: with two equal largest, central differences give a half to each.
CASES.append(reduction("reduce_max", (), [0], arg=Arg(values=[3.0, 1.0, 3.0, 2.0]), name="reduce_max-ties"))
CASES.append(reduction("reduce_min", (), [1], arg=Arg(values=[[1.0, 1.0], [2.0, 5.0]]), name="reduce_min-ties"))
CASES.append(
    reduction(
        "reduce_prod",
        (),
        [1],
        arg=Arg(values=[[2.0, 0.0, 3.0], [0.0, 0.0, 5.0], [1.0, 2.0, -3.0]]),
        name="reduce_prod-zeros",
    )
)

for op, f in (("argmax", np.argmax), ("argmin", np.argmin)):
    for shape, axis in [
        ((9,), 0),
        ((5, 7), 0),
        ((5, 7), 1),
        ((3, 4, 5), 1),
        ((3, 4, 5), -1),
        ((1, 3), 0),
        ((0, 3), 1),
        ((2, 1000), 1),
    ]:
        CASES.append(
            Case(
                op,
                [Arg(shape)],
                lambda x, f=f, axis=axis: f(x, axis=axis).astype("int32"),
                {"axis": axis},
                name=f"{op}-{'x'.join(map(str, shape))}-{axis}",
            )
        )
    for dtype in ("int32", "int64", "uint8"):
        CASES.append(
            Case(
                op,
                [Arg((6, 50), dtype, 0, 9)],
                lambda x, f=f: f(x, axis=1).astype("int32"),
                {"axis": 1},
                name=f"{op}-{dtype}-ties",
            )
        )
    CASES.append(
        Case(
            op,
            [Arg(values=[[1, NAN, 3, NAN], [2, 2, 1, 1], [-INF, -INF, INF, INF]])],
            lambda x, f=f: f(x, axis=1).astype("int32"),
            {"axis": 1},
            name=f"{op}-nan",
        )
    )
    CASES.append(
        Case(
            op,
            [Arg(values=[[1, 2, 2], [0, 0, 1]], dtype="float16")],
            lambda x, f=f: f(x, axis=1).astype("int32"),
            {"axis": 1},
            name=f"{op}-half",
        )
    )


def cumulative(x: Any, axis: int, reverse: bool, exclusive: bool) -> Any:
    y = np.flip(x, axis) if reverse else x
    total = np.cumsum(y, axis=axis)
    total = total - y if exclusive else total
    return (np.flip(total, axis) if reverse else total).astype(x.dtype)


for shape, axis in [((7,), 0), ((4, 5), 0), ((4, 5), 1), ((2, 3, 4), 1), ((0,), 0), ((3, 0), 0), ((1, 1), 1)]:
    for reverse in (False, True):
        for exclusive in (False, True):
            CASES.append(
                Case(
                    "cumsum",
                    [Arg(shape)],
                    lambda x, a=axis, r=reverse, e=exclusive: cumulative(x, a, r, e),
                    {"axis": axis, "reverse": reverse, "exclusive": exclusive},
                    name=f"cumsum-{'x'.join(map(str, shape))}-{axis}{'-reverse' * reverse}{'-exclusive' * exclusive}",
                )
            )
for dtype in ("int32", "int64", "uint8"):
    CASES.append(
        Case(
            "cumsum",
            [Arg((50,), dtype, 0, 99)],
            lambda x: cumulative(x, 0, False, False),
            {"axis": 0, "reverse": False, "exclusive": False},
            name=f"cumsum-{dtype}",
        )
    )


def order(x: Any, descending: bool, axis: int = -1) -> Any:
    """Stable; NaN counts as the largest."""
    if x.dtype == np.uint8:
        x = x.astype("int64")
    if not descending:
        return np.argsort(x, axis=axis, kind="stable")
    key = np.where(np.isnan(x), -np.inf, -x) if x.dtype.kind == "f" else -x
    return np.argsort(key, axis=axis, kind="stable")


for descending in (False, True):
    attrs = {"axis": -1, "descending": descending}
    way = "-descending" if descending else ""
    for arg, name in [(Arg((17,)), "17"), (Arg((3, 100)), "3x100"), (Arg((1,)), "1"), (Arg((0,)), "0"), (Arg((2, 0)), "2x0"),
                      (Arg((2, 3, 33), "int32", -5, 5), "int32-ties"), (Arg((40,), "int64", -(2**40), 2**40), "int64"),
                      (Arg((70,), "uint8", 0, 5), "uint8-ties"), (Arg((1000,)), "1000"),
                      (Arg(values=[3, NAN, -INF, 1, INF, -1, 0.5]), "nan")]:  # fmt: skip
        CASES.append(
            Case(
                "sort",
                [arg],
                lambda x, d=descending: np.take_along_axis(x, order(x, d), -1),
                attrs,
                tolerance=0,
                name=f"sort-{name}{way}",
            )
        )
        CASES.append(
            Case(
                "argsort",
                [arg],
                lambda x, d=descending: order(x, d).astype("int32"),
                attrs,
                name=f"argsort-{name}{way}",
            )
        )
    CASES.append(
        Case(
            "sort",
            [Arg((4, 9, 3))],
            lambda x, d=descending: np.take_along_axis(x, order(x, d, 1), 1),
            {"axis": 1, "descending": descending},
            tolerance=0,
            name=f"sort-axis1{way}",
        )
    )


def largest(x: Any, k: int) -> Any:
    at = order(x, True)[..., :k]
    return [np.take_along_axis(x, at, -1), at.astype("int32")]


for shape, k in [((9,), 1), ((9,), 9), ((4, 50), 5), ((4, 50), 20), ((2, 3, 7), 3), ((3, 4), 0), ((0, 4), 2)]:
    CASES.append(
        Case(
            "top_k",
            [Arg(shape)],
            lambda x, k=k: largest(x, k),
            {"k": k, "sorted": True},
            tolerance=0,
            name=f"top_k-{'x'.join(map(str, shape))}-{k}",
        )
    )
CASES += [
    Case("top_k", [Arg((5, 40), "int32", 0, 4)], lambda x: largest(x, 7), {"k": 7, "sorted": True}, name="top_k-ties"),
    Case(
        "top_k",
        [Arg((5, 40), "int32", 0, 4)],
        lambda x: largest(x, 30),
        {"k": 30, "sorted": False},
        name="top_k-ties-many",
    ),
]
