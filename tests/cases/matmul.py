"""Cases of csrc/ops/matmul.cpp."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases import Arg, Case


def product(transpose_a: bool, transpose_b: bool) -> Any:
    def run(a: Any, b: Any) -> Any:
        return np.matmul(np.swapaxes(a, -1, -2) if transpose_a else a, np.swapaxes(b, -1, -2) if transpose_b else b)

    return run


def case(a: tuple[int, ...], b: tuple[int, ...], ta: bool = False, tb: bool = False, **more: Any) -> Case:
    """Shapes as they multiply; the transposed ones are stored the other way round."""
    flip = lambda s, t: (*s[:-2], s[-1], s[-2]) if t else s  # noqa: E731
    name = f"{'x'.join(map(str, a))} {'x'.join(map(str, b))}{' ta' if ta else ''}{' tb' if tb else ''}"
    return Case(
        "matmul",
        [Arg(flip(a, ta)), Arg(flip(b, tb))],
        product(ta, tb),
        {"transpose_a": ta, "transpose_b": tb},
        name=name,
        **more,
    )


FLAGS = [(False, False), (True, False), (False, True), (True, True)]
CASES: list[Case] = []
# Both sides of every border: rows taken few at a time (4), in place (28), tiles (4, 6, 14), panels (8, 16, 32 columns).
for m, k, n in [
    (1, 1, 1),
    (1, 17, 33),
    (2, 3, 4),
    (3, 40, 129),
    (4, 31, 16),
    (5, 7, 32),
    (7, 16, 15),
    (15, 13, 31),
    (28, 5, 65),
    (29, 33, 17),
    (57, 9, 34),
    (113, 6, 3),
]:
    CASES += [case((m, k), (k, n), ta, tb) for ta, tb in FLAGS]
# Nothing to add, or nothing to compute.
for m, k, n in [(3, 0, 5), (0, 4, 3), (4, 3, 0), (60, 0, 40), (0, 0, 0)]:
    CASES += [case((m, k), (k, n), ta, tb) for ta, tb in FLAGS]
# A long inner axis: partial sums.
for m, k, n in [(3, 2100, 5), (10, 4099, 7), (2, 2500, 40), (30, 2048, 9)]:
    CASES += [case((m, k), (k, n), ta, tb, tolerance=64.0, grad_tolerance=256.0) for ta, tb in FLAGS]
# Few rows beside long ones of b: read whole, in parts of the inner axis.
for m, k, n in [(1, 7, 259), (2, 6, 301), (3, 9, 2065), (4, 141, 263), (1, 1031, 256)]:
    CASES += [case((m, k), (k, n), ta, tolerance=64.0, grad_tolerance=256.0) for ta in (False, True)]
CASES.append(case((2, 3, 5), (2, 5, 257)))
CASES += [
    case((31, 300), (300, 67), ta, grad_tolerance=64.0) for ta in (False, True)
]  # blocks of the inner axis, whole panels
# Batches: equal, broadcast either way, absent on one side, of size 0.
for a, b in [
    ((3,), (3,)),
    ((2, 3), (2, 3)),
    ((2, 1), (1, 3)),
    ((1,), (4,)),
    ((4,), (1,)),
    ((2, 2), (2,)),
    ((3,), ()),
    ((), (3,)),
    ((2, 3), ()),
    ((0,), (0,)),
    ((0,), ()),
    ((1,), (0,)),
    ((2, 1, 2), (3, 1)),
]:
    for m, k, n in [(2, 5, 3), (31, 4, 18)]:
        CASES += [case((*a, m, k), (*b, k, n), ta, tb) for ta, tb in FLAGS]
# Infinities and NaN pass through, and stay in their rows and columns.
wild = np.ones((3, 4), np.float32)
wild[0, 1], wild[2, 3] = np.inf, np.nan
CASES.append(
    Case(
        "matmul", [Arg((3, 4), values=wild), Arg((4, 20), low=0.5)], product(False, False), name="inf and nan", grad=()
    )
)
