"""Indexing: every op against NumPy, duplicates and faults among the ids."""

from __future__ import annotations

import numpy as np

from cases import Arg, Case


def _gather(
    shape: tuple[int, ...], ids: tuple[int, ...], axis: int, dtype: str = "float32", id_dtype: str = "int32"
) -> Case:
    return Case(
        "gather",
        [Arg(shape, dtype), Arg(ids, id_dtype, 0, max(shape[axis], 1))],
        lambda x, i: np.take(x, i, axis),
        {"axis": axis},
        name=f"{shape}_{ids}_{axis}_{dtype}_{id_dtype}",
        tolerance=0,
    )


def _scatter(
    ids: tuple[int, ...],
    updates: tuple[int, ...],
    axis: int,
    size: int,
    dtype: str = "float32",
    id_dtype: str = "int32",
) -> Case:
    def reference(i: np.ndarray, u: np.ndarray) -> np.ndarray:
        at = axis % (u.ndim - i.ndim + 1)
        flat = u.reshape((*u.shape[:at], i.size, *u.shape[at + i.ndim :]))
        y = np.zeros((*flat.shape[:at], size, *flat.shape[at + 1 :]), u.dtype)
        np.add.at(np.moveaxis(y, at, 0), i.ravel(), np.moveaxis(flat, at, 0))
        return y

    return Case(
        "scatter_add",
        [Arg(ids, id_dtype, 0, max(size, 1)), Arg(updates, dtype)],
        reference,
        {"axis": axis, "size": size},
        name=f"{ids}_{updates}_{axis}_{size}_{dtype}_{id_dtype}",
    )


def _grid(ids: np.ndarray, shape: tuple[int, ...], axis: int) -> tuple[np.ndarray, ...]:
    full = np.broadcast_to(ids, shape)
    index = list(np.indices(shape))
    index[axis] = full
    return tuple(index)


def _take(
    shape: tuple[int, ...], ids: tuple[int, ...], axis: int, dtype: str = "float32", id_dtype: str = "int32"
) -> Case:
    def reference(x: np.ndarray, i: np.ndarray) -> np.ndarray:
        at = axis % x.ndim
        out = [max(a, b) if 0 not in (a, b) else 0 for a, b in zip(x.shape, i.shape)]
        out[at] = i.shape[at]
        wide = list(out)
        wide[at] = x.shape[at]
        return np.broadcast_to(x, wide)[_grid(i, tuple(out), at)]

    return Case(
        "take_along_axis",
        [Arg(shape, dtype), Arg(ids, id_dtype, 0, max(shape[axis], 1))],
        reference,
        {"axis": axis},
        name=f"{shape}_{ids}_{axis}_{dtype}_{id_dtype}",
        tolerance=0,
    )


def _put(ids: tuple[int, ...], updates: tuple[int, ...], axis: int, size: int, dtype: str = "float32") -> Case:
    def reference(i: np.ndarray, u: np.ndarray) -> np.ndarray:
        at = axis % u.ndim
        shape = np.broadcast_shapes(i.shape, u.shape)
        out = list(shape)
        out[at] = size
        y = np.zeros(out, u.dtype)
        np.add.at(y, _grid(i, shape, at), np.broadcast_to(u, shape))
        return y

    return Case(
        "put_along_axis_add",
        [Arg(ids, "int32", 0, max(size, 1)), Arg(updates, dtype)],
        reference,
        {"axis": axis, "size": size},
        name=f"{ids}_{updates}_{axis}_{size}_{dtype}",
    )


def _one_hot(ids: Arg, depth: int, dtype: str) -> Case:
    return Case(
        "one_hot",
        [ids],
        lambda i: (i[..., None] == np.arange(depth)).astype(dtype),
        {"depth": depth, "dtype": dtype},
        name=f"{ids.shape}_{ids.dtype}_{depth}_{dtype}",
        tolerance=0,
    )


CASES = [
    _gather((5, 3), (7,), 0),
    _gather((50, 17), (31,), 0, id_dtype="int64"),
    _gather((7, 64), (4, 9), 0),
    _gather((2, 6, 5), (3,), 1),
    _gather((2, 6), (3, 2), -1),
    _gather((2, 6, 5), (), 1),
    _gather((4,), (), 0),
    _gather((5, 3), (0,), 0),
    _gather((5, 0), (3,), 0),
    _gather((9, 130), (40,), 0, "int64"),
    _gather((9, 5), (11,), 0, "bool"),
    Case(
        "gather",
        [Arg((5, 3)), Arg(values=[1, 5], dtype="int32")],
        lambda x, i: x,
        {"axis": 0},
        name="too_large",
        fault="5",
    ),
    Case(
        "gather",
        [Arg((5, 3)), Arg(values=[-1], dtype="int64")],
        lambda x, i: x,
        {"axis": 0},
        name="negative",
        fault="-1",
    ),
    _scatter((7,), (7, 3), 0, 5),
    _scatter((400,), (400, 17), 0, 11),
    _scatter((300,), (300, 130), 0, 29, id_dtype="int64"),
    _scatter((100,), (100,), 0, 13),
    _scatter((4, 9), (4, 9, 5), 0, 6),
    _scatter((3,), (2, 3, 5), 1, 4),
    _scatter((2, 2), (3, 2, 2), -1, 4),
    _scatter((), (3, 5), 1, 4),
    _scatter((0,), (0, 3), 0, 4),
    _scatter((3,), (3, 0), 0, 4),
    _scatter((50,), (50, 3), 0, 4, "int32"),
    Case(
        "scatter_add",
        [Arg(values=[0, 4], dtype="int32"), Arg((2, 3))],
        lambda i, u: u,
        {"axis": 0, "size": 4},
        name="too_large",
        fault="4",
    ),
    _take((5, 7), (5, 3), 1),
    _take((5, 7), (3, 7), 0),
    _take((5, 7), (5, 1), -1, id_dtype="int64"),
    _take((1, 7), (4, 2), 1),
    _take((4, 7, 3), (4, 2, 1), 1),
    _take((4, 7, 301), (4, 2, 301), 1),
    _take((6,), (9,), 0, "int64"),
    _take((5, 7), (5, 0), 1),
    Case(
        "take_along_axis",
        [Arg((2, 3)), Arg(values=[[0], [3]], dtype="int32")],
        lambda x, i: x,
        {"axis": 1},
        name="too_large",
        fault="3",
    ),
    _put((5, 3), (5, 3), 1, 7),
    _put((9, 4), (9, 4), 0, 3),
    _put((5, 1), (5, 3), -1, 4),
    _put((5, 3), (5, 1), -1, 4),
    _put((1, 3), (5, 3), 1, 4),
    _put((4, 2, 301), (4, 2, 301), 1, 5),
    _put((5, 0), (5, 0), 1, 4),
    _put((20,), (20,), 0, 6, "int32"),
    Case(
        "put_along_axis_add",
        [Arg(values=[[-2]], dtype="int32"), Arg((1, 1))],
        lambda i, u: u,
        {"axis": 0, "size": 4},
        name="negative",
        fault="-2",
    ),
    _one_hot(Arg((5,), "int32", -2, 6), 4, "float32"),
    _one_hot(Arg((3, 4), "int64", 0, 17), 17, "float32"),
    _one_hot(Arg((3,), "uint8", 0, 5), 5, "int32"),
    _one_hot(Arg((), "int32", 0, 3), 3, "bool"),
    _one_hot(Arg((4,), "int32", 0, 3), 0, "float32"),
    _one_hot(Arg((0,), "int32", 0, 3), 3, "float32"),
]
