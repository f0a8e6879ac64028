"""Cases of csrc/ops/winograd.cpp; those of transformed weights are in tests/native/test_winograd.cpp."""

from __future__ import annotations

from cases import Arg, Case
from cases.conv2d import filter_grad, triples

# image (B, H, W, C), window, filters, tile, padding, pads; tolerance in multiples of epsilon
SHAPES = [
    ((2, 9, 7, 3), 3, 5, 4, "valid", None, 32),
    ((1, 13, 12, 17), 3, 33, 4, "same", None, 32),
    ((3, 8, 9, 8), 3, 16, 4, "explicit", (2, 0, 1, 2), 32),
    ((2, 9, 10, 5), 3, 7, 2, "same", None, 24),
    ((2, 11, 10, 12), 4, 17, 4, "same", None, 128),
    ((1, 10, 11, 9), 5, 17, 4, "same", None, 128),
    ((2, 6, 5, 4), 5, 3, 4, "explicit", (4, 4, 3, 2), 128),
    ((0, 5, 5, 2), 3, 3, 4, "valid", None, 32),
]

CASES: list[Case] = []
for x, k, f, tile, padding, pads, tolerance in SHAPES:
    attrs = {"kernel_size": [k, k], "padding": padding, "pads": list(pads or (0, 0, 0, 0))}
    plain = {**attrs, "strides": [1, 1], "dilations": [1, 1]}
    p, q, *_ = triples(x, (k, k, x[3], f), plain)
    name = f"{'x'.join(map(str, x))}-{k}x{k}-{f}-{padding}-{tile}"
    CASES.append(
        Case(
            "conv2d_filter_grad_winograd",
            [Arg(x), Arg((x[0], p, q, f))],
            filter_grad(plain),
            {**attrs, "tile": tile},
            tolerance=tolerance,
            name=name,
        )
    )
