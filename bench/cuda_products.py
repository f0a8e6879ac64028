"""What a product's tiles must read and write, beside which the counts of cuda_counts.py are put.

A product C [M, N] of depth K in tiles of BM x BN reads each operand once for every tile across it and writes C once:
⌈N/BN⌉·A + ⌈M/BM⌉·B + C. A convolution's A is the image under the windows' taps, which no one stores: as many values as there are pairs of
a pixel and a tap within the image, since taps in the padding are not read. C has with it what the epilogue reads beside
it, once. Partial sums of a product that is split along K are not in the bound, though they are in what is asked.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NamedTuple

MOST_OF_TILE = 1.1  # asked over that bound
# Operations for each byte from L2 below which a tile on every multiprocessor waits for it, mma.sync's TF32 rate given:
# 2 x 645 a clock by 38.8 bytes (bench/README.md). bfloat16 is multiplied twice as fast.
LEAST_TILE_FLOPS = 2 * 645 / 38.8
MULTIPROCESSORS = 132
BYTES = {"float32": 4.0, "bfloat16": 2.0}  # an element's


class Product(NamedTuple):
    """One launch: what its operands hold, in elements, for all its batches."""

    m: int
    n: int
    batches: int
    a: int
    b: int
    flops: float


def pairs(size: int, outputs: int, window: int, stride: int, dilation: int, pad: int, remainder: int = -1) -> int:
    """(output, tap) of one axis that meet the image, at positions of that remainder only where it is given."""
    places = [p * stride + r * dilation - pad for p in range(outputs) for r in range(window)]
    return sum(0 <= h < size and (remainder < 0 or h % stride == remainder) for h in places)


def pad_of(attrs: dict[str, Any], axis: int, size: int, outputs: int, reach: int) -> int:
    """What stands before the image along an axis."""
    if attrs["padding"] == "valid":
        return 0
    if attrs["padding"] == "same":
        return max(0, (outputs - 1) * attrs["strides"][axis] + reach - size) // 2
    return attrs["pads"][2 * axis]


def products_of(op: str, attrs: str, inputs: Any, outputs: Any) -> list[Product]:
    """The products that a node is, in the order of its launches; none where it is no product, or depthwise."""
    at, op = json.loads(attrs), op.removesuffix("_bf16")
    if op == "matmul":
        a, b, y = inputs[0][1], inputs[1][1], outputs[0][1]
        m, n, k = y[-2], y[-1], a[-2 if at.get("transpose_a") else -1]
        batches = math.prod(y[:-2])
        if len(b) == 2 and len(a) > 2 and not at.get("transpose_a"):
            m, batches = m * batches, 1
        return [Product(m, n, batches, batches * m * k, batches * n * k, 2.0 * batches * m * n * k)]
    if op == "conv2d":
        x, w, y = inputs[0][1], inputs[1][1], outputs[0][1]
    elif op == "conv2d_input_grad":
        y, w, x = inputs[0][1], inputs[1][1], outputs[0][1]
    elif op == "conv2d_filter_grad":
        x, y, w = inputs[0][1], inputs[1][1], outputs[0][1]
    else:
        return []
    groups = at.get("groups", 1)
    if groups > 1 and groups == x[3]:
        return []
    stride, dilation = at["strides"], at.get("dilations", [1, 1])
    pads = [pad_of(at, i, x[1 + i], y[1 + i], (w[i] - 1) * dilation[i] + 1) for i in (0, 1)]

    def met(axis: int, remainder: int = -1) -> int:
        return pairs(
            x[1 + axis], y[1 + axis], w[axis], stride[axis], dilation[axis], pads[axis], remainder
        )  # fmt: skip

    images, taps, c, f = x[0], w[0] * w[1], w[2], w[3] // groups
    seen = images * met(0) * met(1)
    flops = 2.0 * images * y[1] * y[2] * taps * c * f * groups
    if op == "conv2d":
        return [Product(images * y[1] * y[2], f, groups, seen * c * groups, taps * c * f * groups, flops)]
    if op == "conv2d_filter_grad":
        return [Product(taps * c, f, groups, seen * c * groups, images * y[1] * y[2] * f * groups, flops)]
    out = []
    for h in range(min(stride[0], x[1])):
        for v in range(min(stride[1], x[2])):
            reached = [
                sum((rest + pads[i] - r * dilation[i]) % stride[i] == 0 for r in range(w[i]))
                for i, rest in enumerate((h, v))
            ]
            m = images * math.ceil((x[1] - h) / stride[0]) * math.ceil((x[2] - v) / stride[1])
            k = reached[0] * reached[1] * f
            a = images * met(0, h) * met(1, v) * f * groups
            out.append(Product(m, c, groups, a, k * c * groups, 2.0 * m * k * c * groups))
    return out


def beside_tiles(node: Any, launches: list[dict[str, Any]], asked: float) -> dict[str, Any]:
    """Columns of a product's row: tile, splits, asked over the bound, the tile's operations a byte, whether it should do more."""
    parts = products_of(node.op, node.attrs, node.inputs, node.outputs)
    tiled = [k for k in launches if re.search(r" \d+x\d+$", k["kernel"])]
    if not parts or len(tiled) != len(parts):
        return {}
    own = 2  # operands; others are the epilogue's
    size = BYTES[node.inputs[0][0]]
    need = sum(BYTES[t[0]] * math.prod(t[1]) for t in (*node.inputs[own:], *node.outputs) if t)
    shown, most, waits = [], 0.0, False
    for p, k in zip(parts, tiled, strict=True):
        bm, bn = (int(n) for n in k["kernel"].rsplit(" ", 1)[1].split("x"))
        tiles = math.ceil(p.m / bm) * math.ceil(p.n / bn)
        splits = k["grid"][0] // (tiles * p.batches)
        need += size * (math.ceil(p.n / bn) * p.a + math.ceil(p.m / bm) * p.b)
        text = f"{bm}x{bn}" + (f", {splits} splits" if splits > 1 else "")
        if text not in shown:
            shown.append(text)
        rate = bm * bn * 2 / size / (bm + bn)
        most = max(most, rate)
        fills = (p.m // 256) * (p.n // 128) * p.batches >= MULTIPROCESSORS
        waits = waits or (fills and rate < LEAST_TILE_FLOPS * 4 / size)
    return {"tile": " / ".join(shown), "tile_ratio": asked / need, "tile_flops": most, "tile_waits": waits}
