"""What a product's tiles must read and write, beside which the counts of cuda_counts.py are put.

A product C [M, N] of depth K in tiles of BM x BN reads each operand once for every tile across it and writes C once:
⌈N/BN⌉·A + ⌈M/BM⌉·B + C. A convolution's A is the image under the windows' taps, which no one stores: as many values as there are pairs of
a pixel and a tap within the image, since taps in the padding are not read. C has with it what the epilogue reads beside
it, once. Partial sums of a product that is split along K are not in the bound, though they are in what is asked.

A tile that makes fewer operations of a byte than `LEAST_TILE_FLOPS` waits for L2 where every multiprocessor has one; the larger do not,
but leave multiprocessors without any where C is small. Which is quicker is reckoned by the model that the kernels' own choice
goes by, csrc/kernels/gemm_splits.h, compiled as it stands: rounds of tiles over 132 multiprocessors, of each the longer of multiplying and
loading, cuts along K with what they add; and no product takes less than its operands' way through device memory.
"""

from __future__ import annotations

import ctypes
import functools
import json
import math
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
MOST_OF_TILE = 1.1  # asked over that bound
# Operations for each byte from L2 below which a tile on every multiprocessor waits for it, mma.sync's TF32 rate given:
# 2 x 645 a clock by 38.8 bytes (bench/README.md). bfloat16 is multiplied twice as fast.
LEAST_TILE_FLOPS = 2 * 645 / 38.8
MOST_OF_FED = 1.03  # a smaller tile's time over that of the tiles above
MULTIPROCESSORS, CLOCKS_PER_S = (
    132,
    1.83e9,
)  # by which 2 x 1,024 TF32 operations a clock are an H100's 494.7e12 a second
BYTES_PER_S = 3.35e12  # of an H100 SXM5's memory (NVIDIA's data sheet)
BYTES = {"float32": 4.0, "bfloat16": 2.0}  # an element's

MODEL = """
#include "kernels/gemm_splits.h"
using namespace dagrt;
extern "C" double product_time(int64_t processors, int64_t batches, int64_t M, int64_t N, int64_t K, int64_t splits, int64_t BM,
                               int64_t BN, int64_t bytes) {
  return gemm_time(processors, batches, M, N, K, splits, BM, BN, bytes);
}
extern "C" int64_t product_splits(int64_t batches, int64_t M, int64_t N, int64_t K, int64_t bytes) {
  return gemm_splits(batches, M, N, K, bytes);
}
extern "C" int64_t product_tile(int64_t processors, int64_t batches, int64_t M, int64_t N, int64_t K, int64_t splits, int64_t bytes,
                                int64_t most) {
  return gemm_tile(processors, batches, M, N, K, splits, bytes, int(most));
}
extern "C" int64_t tile_side(int64_t tile, int64_t side) {
  return tile >= gemm_tile_count ? 0 : side ? gemm_tiles[tile].N : gemm_tiles[tile].M;
}
"""


@functools.cache
def model() -> ctypes.CDLL:
    """The kernels' own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.so"
        command = [
            "g++",
            "-std=c++17",
            "-shared",
            "-fPIC",
            "-O1",
            "-I",
            str(ROOT / "csrc"),
            "-x",
            "c++",
            "-",
            "-o",
            str(path),
        ]
        subprocess.run(command, input=MODEL, text=True, check=True)
        library = ctypes.CDLL(str(path))
    for name, numbers, result in (
        ("product_time", 9, ctypes.c_double),
        ("product_splits", 5, ctypes.c_int64),
        ("product_tile", 8, ctypes.c_int64),
        ("tile_side", 2, ctypes.c_int64),
    ):
        function = getattr(library, name)
        function.argtypes, function.restype = [ctypes.c_int64] * numbers, result
    return library


@functools.cache
def tiles() -> list[tuple[int, int]]:
    """All that kernels have."""
    side, found = model().tile_side, []
    while side(len(found), 0):
        found.append((side(len(found), 0), side(len(found), 1)))
    return found


def whole_tiles() -> list[tuple[int, int]]:
    """Those that leave through the memory of four stages at once, whatever is done to them on the way (gemm.cuh)."""
    return [tile for tile in tiles() if math.prod(tile) <= 4 * 16 * sum(tile)]


def is_chain(attrs: str, operands: list[tuple[int, ...]]) -> bool:
    """Whether an epilogue is anything but bias, residual and relu, each at most once and in this order, as csrc/ops/epilogue.cpp
    recognises it: where the sum is not cut, only whole tiles have it. `operands`: shapes of what it reads beside the product."""
    value, done = 0, 0  # the product so far; which of the three it has
    for i, line in enumerate(json.loads(attrs).get("epilogue", [])):
        name, *taken = line.split()
        if name == "add" and taken.count(str(value)) == 1:
            other = taken[taken[0] == str(value)]
            if other not in map(str, range(1, len(operands) + 1)) or math.prod(operands[int(other) - 1]) == 1:
                return True  # a constant, something made on the way, a scalar
            part = 1 if math.prod(operands[int(other) - 1][:-1]) == 1 else 2
        elif name in ("relu", "relu6") and taken == [str(value)]:
            part = 3
        else:
            return True
        if part <= done:
            return True
        value, done = 1 + len(operands) + i, part
    return False


def tile_flops(tile: tuple[int, int], size: int) -> float:
    """Operations for each byte of operands of `size` bytes."""
    return tile[0] * tile[1] * 2 / size / sum(tile)


def fed(size: int) -> list[tuple[int, int]]:
    """Tiles that L2 can feed."""
    return [tile for tile in tiles() if tile_flops(tile, size) >= LEAST_TILE_FLOPS * 4 / size]


class Product(NamedTuple):
    """One launch: what its operands hold, in elements, for all its batches."""

    m: int
    n: int
    batches: int
    a: int
    b: int
    flops: float

    @property
    def k(self) -> int:
        return round(self.flops / 2 / (self.batches * self.m * self.n))


class Launched(NamedTuple):
    """A product as it was launched, by the model's names."""

    batches: int
    m: int
    n: int
    k: int
    splits: int
    bm: int
    bn: int


def by_model(launched: list[Launched], size: int, moved: float, fours: bool) -> dict[str, Any]:
    """A node's time as launched and, where its lines are of fours, without which there is but the smallest tile, with the best of those
    that L2 can feed, each product of it cut as is best for it; operands of `size` bytes an element, `moved` bytes in all, each once."""

    def clocks(p: Launched, splits: int, tile: tuple[int, int]) -> float:
        return model().product_time(MULTIPROCESSORS, p.batches, p.m, p.n, p.k, splits, *tile, size)

    def best(p: Launched) -> float:
        cuts = range(1, 33 if p.batches == 1 else 2)
        return min(clocks(p, n, tile) for tile in fed(size) for n in cuts if n == 1 or p.k // n >= 256)

    def us(of: list[float]) -> float:
        return max(sum(of) / CLOCKS_PER_S, moved / BYTES_PER_S) * 1e6

    own = us([clocks(p, p.splits, (p.bm, p.bn)) for p in launched])
    return {"model_us": own} | ({"fed_us": us([best(p) for p in launched])} if fours else {})


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
    """Of a product's row: tile and splits, asked over the bound, the tile's operations a byte, whether they are too few for L2's rate,
    and by the model the time with this tile and with those that L2 can feed; its launches as batches, M, N, K, splits, tile."""
    parts = products_of(node.op, node.attrs, node.inputs, node.outputs)
    tiled = [k for k in launches if re.search(r" \d+x\d+$", k["kernel"])]
    if not parts or len(tiled) != len(parts):
        return {}
    own = 2  # operands; others are the epilogue's
    size = int(BYTES[node.inputs[0][0]])
    fours = all(t[1][-1] % 4 == 0 for t in (*node.inputs[:own], node.outputs[0]))
    need = sum(BYTES[t[0]] * math.prod(t[1]) for t in (*node.inputs[own:], *node.outputs) if t)
    shown, rates, launched = [], [], []
    for p, k in zip(parts, tiled, strict=True):
        bm, bn = (int(n) for n in k["kernel"].rsplit(" ", 1)[1].split("x"))
        tiles = math.ceil(p.m / bm) * math.ceil(p.n / bn)
        splits = k["grid"][0] // (tiles * p.batches)
        need += size * (math.ceil(p.n / bn) * p.a + math.ceil(p.m / bm) * p.b)
        text = f"{bm}x{bn}" + (f", {splits} splits" if splits > 1 else "")
        if text not in shown:
            shown.append(text)
        rates.append(tile_flops((bm, bn), size))
        if p.k:
            launched.append(Launched(p.batches, p.m, p.n, p.k, splits, bm, bn))
    return {
        "tile": " / ".join(shown),
        "tile_ratio": asked / need,
        "tile_flops": max(rates),
        "tile_waits": min(rates) < LEAST_TILE_FLOPS * 4 / size,
        "chain": is_chain(node.attrs, [t[1] for t in node.inputs[own:] if t]),
        "products": launched,
        **by_model(launched, size, node.bytes, fours),
    }
