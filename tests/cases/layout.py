"""Shape and layout: every op against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases import Arg, Case


def _transpose(shape: tuple[int, ...], perm: tuple[int, ...], dtype: str = "float32") -> Case:
    return Case(
        "transpose",
        [Arg(shape, dtype)],
        lambda x: np.transpose(x, perm),
        {"perm": list(perm)},
        name=f"{'x'.join(map(str, shape))}_{perm}_{dtype}",
        tolerance=0,
    )


def _reshape(shape: tuple[int, ...], to: tuple[int, ...], dtype: str = "float32") -> Case:
    return Case(
        "reshape",
        [Arg(shape, dtype)],
        lambda x: x.reshape(to),
        {"shape": list(to)},
        name=f"{shape}_to_{to}_{dtype}",
        tolerance=0,
    )


def _broadcast(shape: tuple[int, ...], to: tuple[int, ...], dtype: str = "float32") -> Case:
    return Case(
        "broadcast_to",
        [Arg(shape, dtype)],
        lambda x: np.broadcast_to(x, to),
        {"shape": list(to)},
        name=f"{shape}_to_{to}_{dtype}",
        tolerance=0,
    )


def _slice(
    shape: tuple[int, ...], begin: list[int], size: list[int], stride: list[int], dtype: str = "float32"
) -> Case:
    def reference(x: np.ndarray) -> np.ndarray:
        return x[tuple(slice(b, b + n * s, s) for b, n, s in zip(begin, size, stride))]

    return Case(
        "slice",
        [Arg(shape, dtype)],
        reference,
        {"begin": begin, "size": size, "stride": stride},
        name=f"{shape}_{begin}_{size}_{stride}_{dtype}",
        tolerance=0,
    )


def _pad(
    shape: tuple[int, ...],
    low: list[int],
    high: list[int],
    interior: list[int],
    value: float = 0.0,
    dtype: str = "float32",
) -> Case:
    def reference(x: np.ndarray) -> np.ndarray:
        inner = [n + max(n - 1, 0) * i for n, i in zip(x.shape, interior)]
        y = np.full([a + n + b for a, n, b in zip(low, inner, high)], value).astype(x.dtype)
        y[tuple(slice(a, a + n, i + 1) for a, n, i in zip(low, inner, interior))] = x
        return y

    return Case(
        "pad",
        [Arg(shape, dtype)],
        reference,
        {"low": low, "high": high, "interior": interior, "value": value},
        name=f"{shape}_{low}_{high}_{interior}_{value}_{dtype}",
        tolerance=0,
        grad=None if np.isfinite(value) else (),
    )


def _concat(shapes: list[tuple[int, ...]], axis: int, dtype: str = "float32") -> Case:
    return Case(
        "concat",
        [Arg(s, dtype) for s in shapes],
        lambda *xs: np.concatenate(xs, axis),
        {"axis": axis},
        name=f"{shapes}_{axis}_{dtype}",
        tolerance=0,
    )


def _reverse(shape: tuple[int, ...], axes: list[int], dtype: str = "float32") -> Case:
    return Case(
        "reverse",
        [Arg(shape, dtype)],
        lambda x: np.flip(x, axes),
        {"axes": axes},
        name=f"{shape}_{axes}_{dtype}",
        tolerance=0,
    )


def _full(shape: tuple[int, ...], value: float, dtype: str) -> Case:
    def reference() -> Any:
        return np.full(shape, value, dtype)

    return Case(
        "full",
        [],
        reference,
        {"shape": list(shape), "value": value, "dtype": dtype},
        name=f"{shape}_{value}_{dtype}",
        tolerance=0,
    )


def _iota(size: int, dtype: str) -> Case:
    return Case(
        "iota",
        [],
        lambda: np.arange(size).astype(dtype),
        {"size": size, "dtype": dtype},
        name=f"{size}_{dtype}",
        tolerance=0,
    )


CASES = [
    _transpose((3, 5), (1, 0)),
    _transpose((16, 16), (1, 0)),
    _transpose((33, 17), (1, 0)),
    _transpose((127, 131), (1, 0)),
    _transpose((129, 64), (1, 0), "int64"),
    _transpose((65, 70), (1, 0), "uint8"),
    _transpose((2, 7, 9, 3), (0, 3, 1, 2)),
    _transpose((3, 17, 5, 41, 6), (0, 1, 3, 2, 4)),  # runs of 24 bytes, the longer loop inside
    _transpose((2, 3, 7, 9), (0, 2, 3, 1)),
    _transpose((2, 7, 4, 16), (0, 2, 1, 3)),
    _transpose((2, 3, 4, 5), (3, 2, 1, 0), "int32"),
    _transpose((3, 0, 2), (2, 0, 1)),
    _transpose((4, 1, 3), (1, 2, 0), "bool"),
    _transpose((), ()),
    _reshape((3, 4), (12,)),
    _reshape((3, 4), (2, -1)),
    _reshape((2, 0), (0, 5)),
    _reshape((1,), ()),
    _reshape((), (1, 1)),
    _reshape((5, 6), (3, -1, 2), "int64"),
    _broadcast((), (3, 5)),
    _broadcast((7,), (31, 7)),
    _broadcast((3, 1), (3, 33)),
    _broadcast((2, 1, 1, 5), (2, 3, 4, 5)),
    _broadcast((3, 1, 2), (4, 3, 5, 2)),
    _broadcast((1,), (0,)),
    _broadcast((1,), (2, 3), "bool"),
    _broadcast((1, 3), (1000, 3), "uint8"),
    _concat([(3, 4), (2, 4)], 0),
    _concat([(3, 4), (3, 1), (3, 7)], 1),
    _concat([(2, 3, 5), (2, 0, 5), (2, 2, 5)], -2),
    _concat([(4,)], 0),
    _concat([(2, 17), (2, 16)], -1, "int32"),
    _slice((10,), [3], [4], [1]),
    _slice((10,), [1], [3], [3]),
    _slice((5, 7, 9), [1, 2, 3], [4, 3, 2], [1, 2, 3]),
    _slice((4, 33), [0, 16], [4, 17], [1, 1]),
    _slice((4, 5), [4, 0], [0, 5], [1, 1]),
    _slice((6, 8), [0, 1], [3, 4], [2, 2], "int64"),
    _slice((), [], [], []),
    _pad((5,), [2], [3], [0]),
    _pad((5,), [0], [1], [2], 1.5),
    _pad((2, 5, 6, 3), [0, 1, 2, 0], [0, 1, 1, 0], [0, 0, 0, 0]),
    _pad((2, 3, 4, 3), [0, 1, 0, 0], [0, 0, 2, 1], [0, 1, 2, 0], float("-inf")),
    _pad((2, 3, 4, 3), [0, 1, 0, 0], [0, 0, 2, 1], [0, 1, 2, 0], -1.5),
    _pad((3, 0), [1, 2], [0, 1], [0, 3]),
    _pad((3, 17), [0, 0], [0, 0], [0, 0]),
    _pad((4, 4), [1, 1], [1, 1], [1, 0], 7, "int32"),
    _reverse((17,), [0]),
    _reverse((4, 5, 6), [1]),
    _reverse((4, 5, 33), [0, -1]),
    _reverse((2, 0), [0, 1]),
    _reverse((3, 4), [], "int64"),
    _full((3, 5), 1.25, "float32"),
    _full((), -3, "int32"),
    _full((0, 4), 1, "float32"),
    _full((33,), 1, "bool"),
    _full((2, 3), float("nan"), "float32"),
    _full((7,), float("inf"), "float32"),
    _full((65,), 200, "uint8"),
    _full((3,), -9, "int64"),
    _iota(0, "int32"),
    _iota(1, "float32"),
    _iota(37, "int32"),
    _iota(9001, "int64"),
    _iota(256, "uint8"),
]
