"""Cases of csrc/ops/pool2d.cpp."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases import Arg, Case
from cases.conv2d import geometry


def windows(x: tuple, a: dict) -> Any:
    """(p, q, rows, columns) of every output, clipped to the image; and the output's size."""
    pads = a.get("pads", [0, 0, 0, 0])
    p, top = geometry(x[1], a["pool"][0], a["strides"][0], 1, a["padding"], tuple(pads[:2]))
    q, left = geometry(x[2], a["pool"][1], a["strides"][1], 1, a["padding"], tuple(pads[2:]))
    places = []
    for i in range(p):
        for j in range(q):
            h, w = i * a["strides"][0] - top, j * a["strides"][1] - left
            places.append(
                (i, j, slice(max(h, 0), min(h + a["pool"][0], x[1])), slice(max(w, 0), min(w + a["pool"][1], x[2])))
            )
    return p, q, places


def pooled(a: dict, mean: bool) -> Any:
    def run(x: np.ndarray) -> np.ndarray:
        p, q, places = windows(x.shape, a)
        y = np.zeros((x.shape[0], p, q, x.shape[3]))
        for i, j, h, w in places:
            part = x[:, h, w].reshape(x.shape[0], (h.stop - h.start) * (w.stop - w.start), x.shape[3])
            y[:, i, j] = part.mean(1) if mean else part.max(1)
        return y

    return run


def with_places(a: dict) -> Any:
    """The maximum, and where it was first: NaN counts as the largest."""

    def run(x: np.ndarray) -> list[np.ndarray]:
        p, q, places = windows(x.shape, a)
        at = np.zeros((x.shape[0], p, q, x.shape[3]), "int32")
        for i, j, h, w in places:
            part = x[:, h, w].reshape(x.shape[0], (h.stop - h.start) * (w.stop - w.start), x.shape[3])
            row, column = np.divmod(np.argmax(part, 1), w.stop - w.start)
            at[:, i, j] = (h.start + row) * x.shape[2] + w.start + column
        return [
            np.take_along_axis(
                x.reshape(x.shape[0], -1, x.shape[3]), at.reshape(x.shape[0], -1, x.shape[3]), 1
            ).reshape(at.shape),
            at,
        ]

    return run


def spread(a: dict, size: tuple) -> Any:
    def run(dy: np.ndarray) -> np.ndarray:
        dx = np.zeros((dy.shape[0], *size, dy.shape[3]))
        for i, j, h, w in windows(dx.shape, a)[2]:
            dx[:, h, w] += dy[:, i, j][:, None, None] / ((h.stop - h.start) * (w.stop - w.start))
        return dx

    return run


def put(a: dict, size: tuple) -> Any:
    def run(dy: np.ndarray, argmax: np.ndarray) -> np.ndarray:
        dx = np.zeros((dy.shape[0], size[0] * size[1], dy.shape[3]))
        for (b, _, _, c), at, g in zip(np.ndindex(dy.shape), argmax.ravel(), dy.ravel()):
            dx[b, at, c] += g
        return dx.reshape(dy.shape[0], *size, dy.shape[3])

    return run


CASES: list[Case] = []
for x, pool, strides, padding, pads in [
    ((2, 6, 6, 3), (2, 2), (2, 2), "valid", None),
    ((1, 5, 7, 17), (3, 2), (2, 1), "same", None),
    ((1, 6, 6, 16), (3, 3), (1, 1), "same", None),
    ((2, 5, 7, 41), (3, 3), (1, 1), "same", None),
    ((1, 3, 5, 8), (3, 3), (1, 1), "valid", None),
    ((1, 1, 1, 19), (3, 3), (1, 1), "same", None),
    ((1, 4, 2, 16), (3, 3), (1, 1), "explicit", (2, 2, 2, 1)),
    ((1, 7, 7, 9), (5, 5), (1, 1), "same", None),
    ((2, 5, 5, 1), (2, 3), (3, 2), "valid", None),
    ((1, 6, 5, 33), (3, 3), (2, 2), "explicit", (1, 0, 1, 2)),
    ((2, 7, 5, 9), (2, 2), (2, 2), "valid", None),  # rows and columns behind the last window
    ((1, 7, 10, 17), (3, 3), (3, 3), "explicit", (1, 0, 1, 1)),
    ((1, 19, 21, 35), (3, 3), (1, 1), "same", None),
    ((1, 20, 37, 33), (3, 3), (2, 2), "same", None),
    ((1, 6, 1, 16), (3, 3), (2, 2), "explicit", (2, 2, 2, 2)),
    ((1, 5, 4, 1061), (3, 3), (1, 1), "same", None),  # sums of more channels than wait at once
    ((1, 4, 5, 1030), (3, 3), (2, 2), "same", None),
    ((0, 4, 4, 2), (2, 2), (2, 2), "valid", None),
    ((2, 1, 9, 5), (1, 3), (1, 3), "same", None),
]:
    attrs: dict[str, Any] = {
        "pool": list(pool),
        "strides": list(strides),
        "padding": padding,
        "pads": list(pads or (0, 0, 0, 0)),
    }
    name = f"{'x'.join(map(str, x))}-{pool[0]}x{pool[1]}-{padding}"
    CASES.append(Case("max_pool2d", [Arg(x, values=None, low=-9, high=9)], pooled(attrs, False), attrs, name=name))
    CASES.append(Case("avg_pool2d", [Arg(x)], pooled(attrs, True), attrs, name=name))
    p, q, places = windows(x, attrs)
    back = {**attrs, "input_size": [x[1], x[2]]}
    CASES.append(Case("avg_pool2d_grad", [Arg((x[0], p, q, x[3]))], spread(attrs, x[1:3]), back, name=name))
    rng = np.random.default_rng(0)
    taken = np.zeros((x[0], p, q, x[3]), "int32")
    for i, j, h, w in places:
        taken[:, i, j] = rng.integers(h.start, h.stop, (x[0], x[3])) * x[2] + rng.integers(
            w.start, w.stop, (x[0], x[3])
        )
    CASES.append(
        Case(
            "max_pool2d_grad",
            [Arg((x[0], p, q, x[3])), Arg(taken.shape, "int32", values=taken)],
            put(attrs, x[1:3]),
            back,
            name=name,
        )
    )
rng = np.random.default_rng(1)
few = rng.integers(-2, 3, (2, 6, 5, 21)).astype("float32")
few[0, 2, 1] = few[1, 4, 4, ::3] = np.nan
few[1, 4, 3, ::2] = np.nan
for strides in ([1, 1], [2, 2]):
    attrs = {"pool": [3, 3], "strides": strides, "padding": "same", "pads": [0, 0, 0, 0]}
    name = f"the first of equals, stride {strides[0]}"
    CASES.append(Case("max_pool2d", [Arg(few.shape, values=few)], with_places(attrs), attrs, grad=(), name=name))
nan = np.array([[[[1.0], [np.nan]], [[3.0], [-np.inf]]]])
CASES.append(
    Case(
        "max_pool2d",
        [Arg((1, 2, 2, 1), values=nan)],
        lambda x: np.full((1, 1, 1, 1), np.nan),
        {"pool": [2, 2], "strides": [2, 2], "padding": "valid"},
        grad=(),
        name="nan wins",
    )
)
