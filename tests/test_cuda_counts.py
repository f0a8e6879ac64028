"""What CUDA kernels bound by memory ask of it, counted by the emulator: needs its watched kind (tests/cuda_emulator/README.md)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from dagrt import _core

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
import cuda_counts
from cuda_counts import Node

IMAGE = ("float32", (1, 16, 16, 32))
CHANNELS = ("float32", (32,))


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


def counted(op: str, attrs: dict, inputs: list, outputs: list) -> dict:
    if "cuda:0" not in _core.devices():
        pytest.skip("no CUDA device in this build or machine")
    row = cuda_counts.count(Node(op, json.dumps(attrs), tuple(inputs), tuple(outputs)))
    if not row["bytes_asked"]:
        pytest.skip("this device does not count")
    return row


@pytest.mark.parametrize(
    ("op", "attrs", "inputs", "outputs"),
    [
        ("relu", {}, [IMAGE], [IMAGE]),
        ("add", {}, [IMAGE, IMAGE], [IMAGE]),
        ("pointwise", {"program": ["multiply 0 1", "relu 2"], "constants": []}, [IMAGE, IMAGE], [IMAGE]),
        (
            "max_pool2d",
            {"pool": [2, 2], "strides": [2, 2], "padding": "valid", "pads": [0, 0, 0, 0]},
            [IMAGE],
            [("float32", (1, 8, 8, 32)), None],
        ),
    ],
)
def test_memory_bound_kernels_read_once(op: str, attrs: dict, inputs: list, outputs: list) -> None:
    assert cuda_counts.misses(counted(op, attrs, inputs, outputs)) == []
