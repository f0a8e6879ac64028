"""What CUDA kernels bound by memory ask of it, counted by the emulator: needs its watched kind (tests/cuda_emulator/README.md)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from dagrt import _core

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
import cuda_counts
import cuda_products
from cuda_counts import Node

IMAGE = ("float32", (1, 16, 16, 32))
CHANNELS = ("float32", (32,))
SAME = {"strides": [1, 1], "padding": "same"}


def image(size: int, channels: int, batch: int = 2) -> tuple[int, ...]:
    return (batch, size, size, channels)


def test_programs_are_read() -> None:
    text = """main(%0 x0: float32(2, 4), %1 x1: int32(2,)) {
  %2 = read {variable: "dense/kernel"} : float32(4, 8)  # dense
  %3 = matmul(%0, %2) {epilogue: ["relu 0"], epilogue_constants: [], transpose_a: false, transpose_b: false} : float32(2, 8)  # dense
  %4, _ = max_pool2d(%3) {pool: [2, 2]} : float32(2, 4), _
}
plan: arena 0 bytes
  %5 = relu(%4) : float32(2, 4)
"""
    _, product, pooled = cuda_counts.nodes_of(text)
    assert product.inputs == (("float32", (2, 4)), ("float32", (4, 8)))
    assert json.loads(product.attrs)["epilogue"] == ["relu 0"]
    assert (product.bytes, product.flops) == (4 * (8 + 32 + 16), 2 * 2 * 4 * 8)
    assert pooled.outputs == (("float32", (2, 4)), None)
    assert pooled.shapes == "2x8 -> 2x4"


def test_multiply_adds_of_lstms_are_those_of_their_products() -> None:
    b, t, c, u = 2, 5, 3, 4
    x, kernel, recurrent = typed((b, t, c), (c, 4 * u), (u, 4 * u))
    through, between = 2 * b * t * c * 4 * u, 2 * b * t * u * 4 * u
    forward = Node("lstm", "{}", (x, kernel, recurrent), (x,))
    assert (forward.flops, forward.full_flops) == (through + between, between)
    backward = Node("lstm_grad", "{}", (x, kernel, recurrent), (x, kernel, recurrent))
    assert (backward.flops, backward.full_flops) == (2 * through + 2 * between, between)
    assert backward._replace(outputs=(None, kernel, recurrent)).flops == through + 2 * between


def counted(op: str, attrs: dict, inputs: list, outputs: list) -> dict:
    if "cuda:0" not in _core.devices():
        pytest.skip("no CUDA device in this build or machine")
    row = cuda_counts.count(Node(op, json.dumps(attrs), tuple(inputs), tuple(outputs)))
    if not row["bytes_asked"]:
        pytest.skip("this device does not count")
    return row


POOL = {"pool": [2, 2], "strides": [2, 2], "padding": "valid", "pads": [0, 0, 0, 0]}
HALF = ("float32", (1, 8, 8, 32))
TAKEN = ("int32", (1, 8, 8, 32))
CHAIN = {"program": ["multiply 0 1", "relu 2"], "constants": []}


@pytest.mark.parametrize(
    ("op", "attrs", "inputs", "outputs"),
    [
        ("relu", {}, [IMAGE], [IMAGE]),
        ("add", {}, [IMAGE, IMAGE], [IMAGE]),
        ("multiply", {}, [IMAGE, CHANNELS], [IMAGE]),
        ("multiply", {}, [IMAGE, ("float32", (1, 16, 16, 1))], [IMAGE]),
        ("add", {}, [("float32", (64, 33)), ("float32", (33,))], [("float32", (64, 33))]),
        ("pointwise", CHAIN, [IMAGE, IMAGE], [IMAGE]),
        ("pointwise", CHAIN, [("float32", (2, 16, 8, 64)), ("float32", (2, 1, 1, 64))], [("float32", (2, 16, 8, 64))]),
        ("max_pool2d", POOL, [IMAGE], [HALF, None]),
        ("max_pool2d_grad", POOL | {"input_size": [16, 16]}, [HALF, TAKEN], [IMAGE]),
        ("broadcast_to", {"shape": [4, 2, 8, 2, 32]}, [("float32", (4, 1, 8, 1, 32))], [("float32", (4, 2, 8, 2, 32))]),
        ("reduce_sum", {"axes": [1, 3], "keepdims": False}, [("float32", (4, 2, 8, 2, 32))], [("float32", (4, 8, 32))]),
        ("concat", {"axis": 3}, [IMAGE, ("float32", (1, 16, 16, 8))], [("float32", (1, 16, 16, 40))]),
    ],
)
def test_memory_bound_kernels_read_once(op: str, attrs: dict, inputs: list, outputs: list) -> None:
    row = counted(op, attrs, inputs, outputs)
    assert row["bytes_ratio"] <= cuda_counts.MOST_BYTES
    assert cuda_counts.misses(row) == []


def typed(*shapes: tuple[int, ...]) -> list:
    return [("float32", s) for s in shapes]


def ints(*shape: int) -> tuple:
    return ("int32", shape)


SAME_POOL = {"pool": [3, 3], "strides": [1, 1], "padding": "same", "pads": [0, 0, 0, 0]}
MASK = {"program": ["greater 0 c0", "select 2 1 c0"], "constants": [0]}
DEPTHWISE = {"strides": [1, 1], "dilations": [1, 1], "groups": 32, "padding": "same", "pads": [0, 0, 0, 0]}
WAYS = {"go_backwards": False, "zero_output_for_mask": False}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("op", "attrs", "inputs", "outputs"),
    [
        ("multiply", {}, typed((3, 3, 256, 256), (1, 1, 1, 256)), typed((3, 3, 256, 256))),
        ("pointwise", MASK, typed((2, 56, 56, 256), (2, 1, 1, 256)), typed((2, 56, 56, 256))),
        ("add", {}, typed((10000, 128), (10000, 128)), typed((10000, 128))),
        ("batch_norm", {"epsilon": 0.001}, typed((2, 56, 56, 64), (64,), (64,)), typed((2, 56, 56, 64), *[(64,)] * 3)),
        (  # what 16 multiprocessors hold at once
            "batch_norm_grad",
            {},
            typed((2, 40, 40, 64), (64,), (64,), (64,), (2, 40, 40, 64)),
            typed((2, 40, 40, 64), (64,), (64,)),
        ),
        ("max_pool2d", POOL, typed((2, 109, 109, 128)), [("float32", (2, 54, 54, 128)), ints(2, 54, 54, 128)]),
        ("max_pool2d", SAME_POOL, typed((2, 56, 56, 256)), [("float32", (2, 56, 56, 256)), ints(2, 56, 56, 256)]),
        (
            "max_pool2d_grad",
            POOL | {"input_size": [109, 109]},
            [("float32", (2, 54, 54, 128)), ints(2, 54, 54, 128)],
            typed((2, 109, 109, 128)),
        ),
        (
            "max_pool2d_grad",
            SAME_POOL | {"input_size": [56, 56]},
            [("float32", (2, 56, 56, 256)), ints(2, 56, 56, 256)],
            typed((2, 56, 56, 256)),
        ),
        ("reduce_sum", {"axes": [1, 2], "keepdims": False}, typed((2, 56, 56, 480)), typed((2, 480))),
        ("reduce_sum", {"axes": [0, 1, 2], "keepdims": False}, typed((2, 111, 111, 64)), typed((64,))),
        ("broadcast_to", {"shape": [8, 8, 2, 8, 2, 32]}, typed((8, 8, 1, 8, 1, 32)), typed((8, 8, 2, 8, 2, 32))),
        ("concat", {"axis": 3}, typed((2, 56, 56, 64), (2, 56, 56, 32)), typed((2, 56, 56, 96))),
        ("transpose", {"perm": [0, 2, 1]}, typed((16, 500, 256)), typed((16, 256, 500))),
        ("softmax", {}, typed((4096, 1000)), typed((4096, 1000))),
        ("softmax", {}, typed((320, 10000)), typed((320, 10000))),
        ("conv2d", DEPTHWISE, typed((2, 112, 112, 32), (3, 3, 1, 32)), typed((2, 112, 112, 32))),
        (
            "conv2d_input_grad",
            DEPTHWISE | {"input_size": [112, 112]},
            typed((2, 112, 112, 32), (3, 3, 1, 32)),
            typed((2, 112, 112, 32)),
        ),
        (
            "conv2d_filter_grad",
            DEPTHWISE | {"kernel_size": [3, 3]},
            typed((2, 112, 112, 32), (2, 112, 112, 32)),
            typed((3, 3, 1, 32)),
        ),
        ("gather", {"axis": 0}, [("float32", (10000, 64)), ints(4, 500)], typed((4, 500, 64))),
        ("scatter_add", {"axis": 0, "size": 10000}, [ints(4, 500), ("float32", (4, 500, 64))], typed((10000, 64))),
        (
            "lstm",
            WAYS,
            typed((4, 20, 64), (64, 512), (128, 512), (512,)),
            typed((4, 20, 128), (4, 128), (4, 128), (20, 4, 512), (20, 4, 128), (20, 4, 128)),
        ),
    ],
)
def test_hot_kernels_keep_the_targets_on_full_shapes(
    monkeypatch: pytest.MonkeyPatch, op: str, attrs: dict, inputs: list, outputs: list
) -> None:
    monkeypatch.setenv("DAGRT_EMULATOR_BLOCKS", "32")
    assert cuda_counts.misses(counted(op, attrs, inputs, outputs)) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("op", "attrs", "inputs", "outputs"),
    [
        ("conv2d", SAME, [image(56, 128), (3, 3, 128, 256)], [image(56, 256)]),
        ("conv2d", SAME, [image(56, 64), (3, 3, 64, 64)], [image(56, 64)]),
        ("conv2d", SAME | {"strides": [2, 2]}, [image(57, 64), (3, 3, 64, 128)], [image(29, 128)]),
        ("conv2d_input_grad", SAME | {"input_size": [56, 56]}, [image(56, 256), (3, 3, 128, 256)], [image(56, 128)]),
        (
            "conv2d_input_grad",
            SAME | {"strides": [2, 2], "input_size": [57, 57]},
            [image(29, 128), (3, 3, 64, 128)],
            [image(57, 64)],
        ),
        ("conv2d_filter_grad", SAME | {"kernel_size": [3, 3]}, [image(56, 128), image(56, 256)], [(3, 3, 128, 256)]),
        ("conv2d_filter_grad", SAME | {"kernel_size": [3, 3]}, [image(56, 256), image(56, 256)], [(3, 3, 256, 256)]),
        ("conv2d", SAME | {"strides": [2, 2]}, [image(224, 3), (7, 7, 3, 64)], [image(112, 64)]),
        (
            "conv2d_filter_grad",
            SAME | {"strides": [2, 2], "kernel_size": [7, 7]},
            [image(224, 3), image(112, 64)],
            [(7, 7, 3, 64)],
        ),
        ("conv2d", SAME, [image(28, 1, 8), (3, 3, 1, 16)], [image(28, 16, 8)]),
        ("conv2d_filter_grad", SAME | {"kernel_size": [3, 3]}, [image(28, 1, 8), image(28, 16, 8)], [(3, 3, 1, 16)]),
        ("conv2d_filter_grad", SAME | {"kernel_size": [1, 1]}, [image(56, 64), image(56, 128)], [(1, 1, 64, 128)]),
        ("matmul", {}, [(4096, 1024), (1024, 2048)], [(4096, 2048)]),
        ("matmul", {"transpose_a": True}, [(6272, 1000), (6272, 200)], [(1000, 200)]),
        ("matmul", {"transpose_b": True}, [(8, 300, 64), (8, 300, 64)], [(8, 300, 300)]),
        ("matmul", {}, [(32, 784), (784, 64)], [(32, 64)]),
    ],
)
def test_products_ask_for_what_their_tiles_need(
    monkeypatch: pytest.MonkeyPatch, op: str, attrs: dict, inputs: list, outputs: list
) -> None:
    monkeypatch.setenv("DAGRT_EMULATOR_BLOCKS", "32")
    plain = {"transpose_a": False, "transpose_b": False} | attrs if op == "matmul" else attrs
    types = [[("float32", s) for s in shapes] for shapes in (inputs, outputs)]
    row = counted(op, plain, *types)
    assert cuda_counts.misses(row) == []
    assert row["tile_ratio"] > (0.9 if inputs[0][-1] > 3 else 0.6)  # a strip has each pixel once


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_pixels_under_taps_are_those_that_a_convolution_multiplies(stride: int) -> None:
    x, y = 7, (7 + 2 - 3) // stride + 1
    attrs = json.dumps({"strides": [stride] * 2, "padding": "explicit", "pads": [1, 1, 1, 1], "input_size": [7, 7]})
    images, filters = ("float32", (1, x, x, 1)), ("float32", (1, y, y, 1))
    weights = ("float32", (3, 3, 1, 1))
    inside = [[h + r - 1 for r in range(3)] for h in range(0, y * stride, stride)]
    seen = sum(0 <= h < x for taps in inside for h in taps) ** 2
    [forward] = cuda_products.products_of("conv2d", attrs, [images, weights], [filters])
    assert (forward.m, forward.a) == (y * y, seen)
    backward = cuda_products.products_of("conv2d_input_grad", attrs, [filters, weights], [images])
    assert len(backward) == stride**2
    assert sum(p.m for p in backward) == x * x
    assert sum(p.a for p in backward) == seen


@pytest.mark.parametrize(
    ("epilogue", "chain"),
    [
        ([], False),
        (["relu 0"], False),
        (["add 0 1", "relu 4"], False),
        (["add 0 2", "relu 4"], False),
        (["add 1 0", "add 2 4", "relu6 5"], False),
        (["add 0 2", "add 4 1"], True),  # the bias behind the residual
        (["add 0 1", "add 4 1"], True),
        (["relu 0", "add 4 1"], True),
        (["relu 0", "relu 4"], True),
        (["add 0 1", "relu 0"], True),  # not of what was made last
        (["add 0 1", "add 4 4"], True),
        (["add 0 3"], True),  # a scalar
        (["add 0 c0"], True),
        (["add 0 1", "round_bfloat16 4"], True),
        (["greater 2 c0", "select 4 0 c0"], True),
    ],
)
def test_epilogues_that_are_chains(epilogue: list[str], chain: bool) -> None:
    assert cuda_products.is_chain(json.dumps({"epilogue": epilogue}), [(64,), (2, 8, 8, 64), (1,)]) == chain


MOST_OF_CHAIN = 1.21  # of the larger tile's time


def unknown_misses(row: dict) -> list[str]:
    """But that an epilogue which is a chain has no tile that leaves in two halves, where the sum is not cut."""
    uncut = all(cuda_products.Launched(*p).splits == 1 for p in row.get("products", []))
    known = row.get("chain") and uncut and row["model_us"] <= MOST_OF_CHAIN * row.get("fed_us", 0)
    return [m for m in cuda_counts.misses(row) if not (known and m.endswith(" x a larger tile's time"))]


@pytest.mark.parametrize("record", ["cuda", "cuda_bf16"])
def test_no_larger_tile_would_be_quicker(record: str) -> None:
    """Of the seed models' products as recorded: they are as the kernels choose now, and take at most 1.03 times what they would with a
    tile that L2 can feed, where a kernel has it."""
    rows = json.loads((cuda_products.ROOT / f"bench/results/{record}.json").read_text()).values()
    size = 2 if record == "cuda_bf16" else 4
    products = [r for of in rows for r in of if r.get("products")]
    assert len(products) > 20
    for row in products:
        launched = [cuda_products.Launched(*p) for p in row["products"]]
        fours = "fed_us" in row
        row |= cuda_products.by_model(launched, size, row["bytes"], fours)
        assert unknown_misses(row) == [], row
        for p in launched:
            whole = row["chain"] and p.splits == 1
            most = len(cuda_products.whole_tiles() if whole else cuda_products.tiles()) if fours else 1
            splits = cuda_products.model().product_splits(p.batches, p.m, p.n, p.k, size)
            # of an input gradient by stride, the largest product's cut is the most
            assert p.splits == splits or (len(launched) > 1 and p.splits < splits)
            tile = cuda_products.model().product_tile(132, p.batches, p.m, p.n, p.k, p.splits, size, most)
            assert (p.bm, p.bn) == cuda_products.tiles()[tile], row


@pytest.mark.parametrize("record", ["cuda", "cuda_bf16"])
def test_recorded_rows_keep_their_targets(record: str) -> None:
    results = cuda_products.ROOT / "bench/results"
    rows = json.loads((results / f"{record}.json").read_text())
    for row in [r for of in rows.values() for r in of]:
        assert unknown_misses(row) == [], row
    assert (results / f"{record}.md").read_text() == cuda_counts.document(rows)


PLAIN = {"strides": [1, 1], "padding": "same", "pads": [0, 0, 0, 0]}


@pytest.mark.parametrize(
    ("op", "attrs", "inputs", "output"),
    [
        ("matmul", {"transpose_a": False, "transpose_b": False}, [(256, 192), (192, 128)], (256, 128)),
        ("matmul", {"transpose_a": False, "transpose_b": True}, [(256, 192), (128, 192)], (256, 128)),
        ("matmul", {"transpose_a": True, "transpose_b": False}, [(192, 256), (192, 128)], (256, 128)),
        ("conv2d", PLAIN, [image(16, 64), (3, 3, 64, 64)], image(16, 64)),
        ("conv2d_input_grad", PLAIN | {"input_size": [16, 16]}, [image(16, 64), (3, 3, 64, 64)], image(16, 64)),
        ("conv2d_filter_grad", PLAIN | {"kernel_size": [3, 3]}, [image(16, 64), image(16, 64)], (3, 3, 64, 64)),
    ],
)
def test_products_of_bfloat16(op: str, attrs: dict, inputs: list, output: tuple[int, ...]) -> None:
    """Whole sectors, no bank conflicts, and what the tile must read and no more."""
    attrs = {"dtype": "bfloat16"} | attrs
    row = counted(f"{op}_bf16", attrs, [("bfloat16", t) for t in inputs], [("bfloat16", output)])
    assert cuda_counts.misses(row) == [] and row["tile_ratio"] <= cuda_products.MOST_OF_TILE, row
