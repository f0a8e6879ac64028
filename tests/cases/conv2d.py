"""Cases of csrc/ops/conv2d.cpp."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases import Arg, Case


def geometry(n: int, k: int, s: int, d: int, padding: str, pads: tuple[int, int]) -> tuple[int, int]:
    """Outputs and the padding before."""
    reach = (k - 1) * d + 1
    if padding == "same":
        out = -(-n // s)
        return out, max((out - 1) * s + reach - n, 0) // 2
    extra = pads if padding == "explicit" else (0, 0)
    return (n + sum(extra) - reach) // s + 1, extra[0]


def triples(x: tuple, w: tuple, a: dict) -> Any:
    """Slices of the padded image and places of the weights: yields (r, s, rows, columns)."""
    (sh, sw), (dh, dw) = a["strides"], a["dilations"]
    pads = a.get("pads", [0, 0, 0, 0])
    p, top = geometry(x[1], w[0], sh, dh, a["padding"], tuple(pads[:2]))
    q, left = geometry(x[2], w[1], sw, dw, a["padding"], tuple(pads[2:]))
    rows, columns = x[1] + 2 * w[0] * dh + p * sh, x[2] + 2 * w[1] * dw + q * sw
    places = [
        (r, s, slice(r * dh, r * dh + (p - 1) * sh + 1, sh), slice(s * dw, s * dw + (q - 1) * sw + 1, sw))
        for r in range(w[0])
        for s in range(w[1])
    ]
    return p, q, top, left, rows, columns, places


def padded(x: np.ndarray, top: int, left: int, rows: int, columns: int) -> np.ndarray:
    wide = np.zeros((x.shape[0], rows, columns, x.shape[3]))
    wide[:, top : top + x.shape[1], left : left + x.shape[2]] = x
    return wide


def forward(a: dict) -> Any:
    def run(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        g = a.get("groups", 1)
        p, q, top, left, rows, columns, places = triples(x.shape, w.shape, a)
        wide = padded(x, top, left, rows, columns)
        c, f = w.shape[2], w.shape[3] // g
        y = np.zeros((x.shape[0], p, q, w.shape[3]))
        for r, s, h, v in places:
            for i in range(g):
                y[..., i * f : (i + 1) * f] += wide[:, h, v, i * c : (i + 1) * c] @ w[r, s, :, i * f : (i + 1) * f]
        return y

    return run


def input_grad(a: dict) -> Any:
    def run(dy: np.ndarray, w: np.ndarray) -> np.ndarray:
        g = a.get("groups", 1)
        size = (dy.shape[0], *a["input_size"], w.shape[2] * g)
        _, _, top, left, rows, columns, places = triples(size, w.shape, a)
        wide = np.zeros((size[0], rows, columns, size[3]))
        c, f = w.shape[2], w.shape[3] // g
        for r, s, h, v in places:
            for i in range(g):
                wide[:, h, v, i * c : (i + 1) * c] += dy[..., i * f : (i + 1) * f] @ w[r, s, :, i * f : (i + 1) * f].T
        return wide[:, top : top + size[1], left : left + size[2]]

    return run


def filter_grad(a: dict) -> Any:
    def run(x: np.ndarray, dy: np.ndarray) -> np.ndarray:
        g = a.get("groups", 1)
        shape = (*a["kernel_size"], x.shape[3] // g, dy.shape[3])
        _, _, top, left, rows, columns, places = triples(x.shape, shape, a)
        wide = padded(x, top, left, rows, columns)
        c, f = shape[2], shape[3] // g
        dw = np.zeros(shape)
        for r, s, h, v in places:
            for i in range(g):
                dw[r, s, :, i * f : (i + 1) * f] = np.einsum(
                    "bpqc,bpqf->cf", wide[:, h, v, i * c : (i + 1) * c], dy[..., i * f : (i + 1) * f], optimize=True
                )
        return dw

    return run


# image (B, H, W, C), window, filters, strides, dilations, groups, padding, pads
SHAPES = [
    ((2, 5, 6, 3), (3, 3), 5, (1, 1), (1, 1), 1, "valid", None),
    ((1, 4, 4, 1), (3, 3), 16, (2, 2), (1, 1), 1, "same", None),
    ((2, 7, 5, 4), (2, 3), 17, (2, 1), (1, 1), 1, "same", None),
    ((1, 9, 8, 2), (3, 2), 33, (1, 1), (2, 3), 1, "same", None),
    ((2, 6, 6, 6), (3, 3), 4, (1, 1), (1, 1), 2, "same", None),
    ((2, 6, 5, 19), (3, 3), 19, (2, 2), (1, 1), 19, "same", None),
    ((1, 5, 5, 7), (3, 3), 7, (1, 1), (1, 1), 7, "valid", None),
    ((3, 4, 3, 15), (1, 1), 31, (1, 1), (1, 1), 1, "valid", None),
    ((1, 5, 5, 8), (1, 1), 16, (2, 2), (1, 1), 1, "same", None),
    ((2, 7, 6, 9), (2, 1), 5, (2, 3), (1, 1), 1, "same", None),  # pixels that no window sees
    ((1, 3, 3, 2), (5, 5), 3, (1, 1), (1, 1), 1, "same", None),
    ((1, 6, 7, 3), (2, 2), 4, (3, 3), (1, 1), 1, "valid", None),
    ((2, 5, 5, 2), (3, 3), 3, (2, 2), (1, 1), 1, "explicit", (1, 0, 2, 1)),
    ((2, 16, 17, 16), (3, 3), 32, (1, 1), (1, 1), 1, "same", None),
    ((2, 6, 13, 16), (3, 3), 1, (1, 1), (1, 1), 1, "same", None),
    ((1, 9, 5, 20), (3, 3), 2, (2, 2), (1, 1), 1, "same", None),
    ((2, 4, 19, 33), (1, 1), 4, (1, 1), (1, 1), 1, "valid", None),
    ((1, 8, 11, 1), (3, 3), 17, (2, 2), (1, 1), 1, "same", None),
    ((1, 9, 20, 2), (2, 3), 9, (1, 1), (2, 3), 1, "explicit", (1, 2, 4, 1)),
    ((3, 13, 15, 200), (1, 1), 17, (1, 1), (1, 1), 1, "valid", None),
    ((2, 11, 30, 70), (3, 3), 9, (2, 2), (1, 1), 1, "same", None),
    ((2, 9, 10, 128), (1, 1), 37, (1, 1), (1, 1), 1, "valid", None),
    ((0, 5, 5, 2), (3, 3), 3, (1, 1), (1, 1), 1, "valid", None),
    ((2, 11, 19, 33), (3, 2), 33, (1, 1), (1, 1), 33, "same", None),  # depthwise beyond tiles of pixels and channels
    ((2, 12, 13, 20), (5, 5), 20, (1, 1), (1, 1), 20, "same", None),
    ((1, 15, 14, 9), (5, 5), 9, (2, 2), (1, 1), 9, "same", None),
    ((2, 14, 9, 11), (3, 3), 11, (1, 1), (2, 2), 11, "same", None),
    ((2, 2, 1, 9), (3, 3), 9, (1, 1), (1, 1), 9, "same", None),
    ((2, 9, 14, 24), (3, 3), 3, (1, 1), (1, 1), 1, "same", None),
    ((1, 12, 18, 3), (2, 3), 6, (2, 1), (1, 2), 3, "same", None),
    ((1, 5, 6, 64), (3, 2), 67, (1, 1), (1, 2), 1, "same", None),  # filter gradients of copied tiles
    ((7, 7, 7, 55), (1, 1), 41, (1, 1), (1, 1), 1, "valid", None),  # whose blocks go on from one image to the next
    ((5, 9, 8, 37), (2, 2), 49, (1, 1), (1, 1), 1, "same", None),
    ((2, 5, 4, 400), (1, 1), 33, (1, 1), (1, 1), 1, "valid", None),
    ((3, 9, 8, 48), (3, 3), 40, (2, 2), (1, 1), 1, "same", None),
    ((1, 1, 500, 24), (1, 3), 40, (1, 1), (1, 1), 1, "same", None),  # rows too long to be copied
    ((1, 6, 7, 128), (2, 2), 72, (2, 1), (1, 1), 2, "valid", None),
    ((1, 3, 5, 1024), (1, 1), 33, (1, 1), (1, 1), 1, "valid", None),  # pixels that lie in one set of a cache
    ((1, 3, 5, 33), (1, 1), 1024, (1, 1), (1, 1), 1, "valid", None),
    ((1, 20, 18, 2), (17, 16), 2, (1, 1), (1, 1), 2, "same", None),  # too large a window for shared memory
    # Few filters or channels whose vectors slide along rows, more padding than image, one pixel, filters on both sides of a limit.
    ((2, 9, 21, 16), (3, 3), 1, (1, 1), (1, 1), 1, "explicit", (2, 2, 2, 2)),
    ((1, 1, 1, 17), (3, 3), 2, (1, 1), (1, 1), 1, "explicit", (2, 2, 2, 2)),
    ((1, 5, 18, 19), (5, 5), 3, (1, 1), (1, 1), 1, "explicit", (4, 0, 1, 6)),
    ((1, 7, 10, 31), (5, 3), 8, (2, 1), (2, 1), 1, "same", None),
    ((3, 6, 9, 16), (3, 3), 7, (1, 1), (1, 1), 1, "valid", None),
    ((2, 5, 18, 40), (3, 5), 4, (1, 1), (1, 1), 1, "same", None),
    ((2, 9, 12, 1), (3, 3), 16, (1, 1), (1, 1), 1, "explicit", (1, 2, 0, 3)),
    ((2, 13, 9, 1), (5, 5), 45, (2, 1), (1, 2), 1, "same", None),
    # Small images whose rows are tiles: every width of one, two of them, vectors of filters half full.
    *(((1, 5, n, 3), (3, 3), 9 + 3 * n, (1, 1), (1, 1), 1, "same", None) for n in range(3, 13)),
    ((2, 10, 10, 32), (3, 3), 16, (1, 1), (1, 1), 1, "valid", None),
    ((1, 6, 23, 20), (2, 3), 33, (1, 1), (2, 1), 1, "explicit", (3, 1, 5, 2)),
    # One residue of pixels that writes the others' zeros beside its own.
    ((2, 9, 29, 37), (1, 1), 40, (2, 2), (1, 1), 1, "valid", None),
    ((1, 11, 40, 33), (1, 1), 35, (3, 3), (1, 1), 1, "explicit", (1, 0, 2, 1)),
]

CASES: list[Case] = []
for n, (x, window, f, strides, dilations, groups, padding, pads) in enumerate(SHAPES):
    attrs: dict[str, Any] = {
        "strides": list(strides),
        "dilations": list(dilations),
        "groups": groups,
        "padding": padding,
        "pads": list(pads or (0, 0, 0, 0)),
    }
    w = (*window, x[3] // groups, f)
    p, q, *_ = triples(x, w, attrs)
    y = (x[0], p, q, f)
    name = f"{n}-{'x'.join(map(str, x))}-{window[0]}x{window[1]}-{f}-{padding}"
    CASES.append(Case("conv2d", [Arg(x), Arg(w)], forward(attrs), attrs, tolerance=32, name=name))
    to_input = {**attrs, "input_size": [x[1], x[2]]}
    CASES.append(Case("conv2d_input_grad", [Arg(y), Arg(w)], input_grad(to_input), to_input, tolerance=32, name=name))
    to_filter = {**attrs, "kernel_size": list(window)}
    CASES.append(
        Case("conv2d_filter_grad", [Arg(x), Arg(y)], filter_grad(to_filter), to_filter, tolerance=32, name=name)
    )
