"""Faults planted into our own kernels as they run (DAGRT_EMULATOR_FAULT), each of which must be found.

Every barrier of every kernel, of warps too, is left out in turn, and passed by half of the threads; so is what orders copies and blocks. Runs in
the kind `races` of the emulator (tests/cuda_emulator/run.py), whose detector does not depend on luck.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from cases import Arg
from dagrt import _core
from test_cuda import CPU_ONLY, arrays_of, bf16_product, on_cuda  # noqa: F401
from test_ops import ALL, TABLE, Case, module

pytestmark = pytest.mark.skipif(
    os.environ.get("DAGRT_EMULATED") != "races", reason="needs the emulator's race detector"
)
KERNELS = Path(__file__).parents[1] / "csrc" / "kernels" / "cuda"
BARRIERS = sorted(
    f"{path.name}:{number}"
    for path in KERNELS.glob("*.cu*")
    for number, line in enumerate(path.read_text().splitlines(), 1)
    if re.search(r"__sync(threads\w*|warp)\(", line)
)
SOFTMAX = Case("softmax", [Arg((3, 3000))], abs)  # rows for whole blocks
LSTM = Case(  # more units than a chunk holds
    "lstm",
    [Arg((18, 3, 4)), Arg((4, 280)), Arg((70, 280)), Arg((280,))],
    abs,
    {"go_backwards": False, "zero_output_for_mask": False},
)
MATMUL = Case("matmul", [Arg((70, 40)), Arg((40, 130))], abs, {"transpose_a": False, "transpose_b": False})
FEW_CHANNELS = Case(  # strips, in chunks for the filter gradient
    "conv2d", [Arg((2, 9, 70, 3)), Arg((3, 3, 3, 8))], abs, {"strides": [1, 1], "padding": "same"}, grad=(1,)
)
C = Arg((33,), low=0.5)  # channels; the rows are more than one block's
BATCH_NORM = Case("batch_norm", [Arg((600, 33)), C, C], abs, {"epsilon": 1e-3}, grad=())
BATCH_NORM_GRAD = Case("batch_norm_grad", [Arg((600, 33)), C, C, C, Arg((600, 33))], abs, grad=())
ONE_A_GROUP = {"strides": [1, 1], "dilations": [1, 1], "groups": 3, "padding": "same", "pads": [0, 0, 0, 0]}
DEPTHWISE = [  # several tiles a part and filters a channel; a window that stays in device memory
    Case("conv2d", [Arg((2, 9, 20, 3)), Arg((3, 2, 1, 6))], abs, ONE_A_GROUP),
    Case("conv2d", [Arg((1, 18, 18, 3)), Arg((17, 16, 1, 3))], abs, ONE_A_GROUP),
]
# What reaches every barrier of a file; a file that is not here is tried with the cases of all ops called after it.
REACHES = {
    "common.cuh": [SOFTMAX],
    "softmax.cu": [SOFTMAX],
    "lstm.cu": [LSTM],
    "meeting.cuh": [LSTM, BATCH_NORM],
    "batch_norm.cu": [BATCH_NORM, BATCH_NORM_GRAD],
    "gemm.cuh": [MATMUL, FEW_CHANNELS],
    "depthwise.cuh": DEPTHWISE,
    "layout.cu": [Case("transpose", [Arg((800, 700))], abs, {"perm": [1, 0]})],  # more tiles than blocks
    "reduce.cu": [Case("sort", [Arg((40, 50))], abs, {"axis": -1, "descending": False})],  # more lines than blocks
}
NAMED = {
    "pool2d.cu": ["max_pool2d", "avg_pool2d"],
    "indexing.cu": ["scatter_add", "gather"],
    "optimizer.cu": ["adam_update"],
}


def cases_of(file: str) -> list[Case]:
    names = NAMED.get(file, [file.split(".")[0]])
    usual = [c for c in ALL if c.fault is None and c.op not in CPU_ONLY and any(c.op.startswith(n) for n in names)]
    return REACHES.get(file) or usual


def reports(file: str, exact: bool = True) -> str:
    """What the first run that shows the fault reports; "" where none does."""
    for case in cases_of(file):
        arrays = arrays_of(case)
        present = [a for a in arrays if a is not None]
        types = _core.infer(case.op, case.attrs, [None if a is None else (a.dtype.name, a.shape) for a in arrays])
        kept = len(types) - TABLE[case.op]["residuals"]
        texts = [(module(case, arrays, kept), present)]
        floats = [shape for dtype, shape in types[:kept] if dtype == "float32"]
        wrt = tuple(i for i, a in enumerate(arrays) if a is not None and a.dtype == np.float32)
        if case.grad != () and TABLE[case.op]["differentiable"] and wrt and floats:
            weights = [np.ones(shape, "float32") for shape in floats]
            texts.append((module(case, arrays, kept, case.grad or wrt), present + weights))
        for text, inputs in texts:
            try:
                _core.Function(text, [], [], "main", exact)(inputs)
            except _core.DeviceError as e:
                return str(e)
    return ""


@pytest.fixture(autouse=True)
def one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGRT_EMULATOR_SEED", "1")


@pytest.mark.parametrize("barrier", BARRIERS)
def test_a_barrier_left_out_is_found(barrier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGRT_EMULATOR_FAULT", f"barrier {barrier}")
    file = barrier.split(":")[0]
    report = reports(file) or (reports(file, exact=False) if file == "gemm.cuh" else "")
    assert re.search("race: |have gone different ways", report), (
        f"{barrier} is not needed, or its absence not found: {report!r}"
    )


@pytest.mark.parametrize("barrier", BARRIERS)
def test_a_barrier_that_half_of_the_threads_reach_is_found(barrier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGRT_EMULATOR_FAULT", f"half {barrier}")
    file = barrier.split(":")[0]
    report = reports(file) or (reports(file, exact=False) if file == "gemm.cuh" else "")
    assert re.search("passed by leaving|meets at two barriers|deadlock|race: |have gone different ways", report), report


@pytest.mark.parametrize("fault, file", [("copy_wait", "gemm.cuh"), ("grid_wait", "lstm.cu")])
def test_what_orders_copies_and_blocks_is_missed(fault: str, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No wait for cp.async; no wait for other blocks."""
    monkeypatch.setenv("DAGRT_EMULATOR_FAULT", fault)
    assert "race: " in reports(file)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_a_fragment_in_a_wrong_place_changes_values(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.uniform(-1, 1, (64, 64)).astype("float32") for _ in range(2))
    case = Case("matmul", [], lambda x, y: x, {"transpose_a": False, "transpose_b": False})
    text = module(case, [a, b], 1) if kind == "float32" else bf16_product(a, b, False, False, kind)
    multiply = _core.Function(text, [], [], "main", False)
    assert np.abs(multiply([a, b])[0] - a @ b).max() < 0.1
    monkeypatch.setenv("DAGRT_EMULATOR_FAULT", "fragment")
    assert np.abs(multiply([a, b])[0] - a @ b).max() > 1


# Operands whose last element no right kernel has to read: what the case's strides or ids leave out, states before the first.
UNREAD = {("conv2d", 0), ("take_along_axis", 0), ("lstm_grad", 4), ("lstm_grad", 8), ("select", 1)}


def of_each_op() -> dict[str, Case]:
    """A small case with as many inputs as there are."""
    chosen: dict[str, tuple[tuple[int, int], Case]] = {}
    for case in ALL:
        sizes = [1 if a is None else int(np.prod(a.shape)) for a in case.inputs]
        if case.fault is None and case.op not in CPU_ONLY and all(sizes):
            key = (-sum(a is not None for a in case.inputs), sum(sizes))
            if case.op not in chosen or key < chosen[case.op][0]:
                chosen[case.op] = (key, case)
    return {op: case for op, (_, case) in chosen.items()}


def is_found(fault: str, words: str, run: _core.Function, arrays: list, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a run with that fault planted ends with an error, which must read so."""
    monkeypatch.setenv("DAGRT_EMULATOR_FAULT", fault)
    try:
        run(arrays)
    except _core.DeviceError as e:
        assert re.search(words, str(e))
        return True
    return False


def test_an_index_past_an_operand_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every op each operand in turn ends a byte early, so that its last element is one past it; memory goes on there. And each
    input in turn counts as unwritten."""
    missed, unnoticed = set(), set()
    chosen = of_each_op()
    outside = "(reads|writes) [0-9]+ bytes that no operand of its step holds, at .*:[0-9]+"
    unwritten = "a read of device memory before any write, by thread .* at .*:[0-9]+"
    for op, case in chosen.items():
        arrays = arrays_of(case)
        types = _core.infer(op, case.attrs, [None if a is None else (a.dtype.name, a.shape) for a in arrays])
        kept = len(types) - TABLE[op]["residuals"]
        monkeypatch.delenv("DAGRT_EMULATOR_FAULT", raising=False)
        run, present = _core.Function(module(case, arrays, kept), [], []), [a for a in arrays if a is not None]
        run(present)
        shapes = [None if a is None else a.shape for a in arrays] + [shape for _, shape in types[:kept]]
        for k, shape in enumerate(shapes):
            if shape is None or 0 in shape:
                continue
            if not is_found(f"beyond {k}", outside, run, present, monkeypatch):
                missed.add((op, k))
            if k < len(arrays) and not is_found(f"unwritten {k}", unwritten, run, present, monkeypatch):
                unnoticed.add((op, k))
    assert missed <= UNREAD, missed - UNREAD
    assert not unnoticed, unnoticed
    assert len(chosen) > 80


def test_shared_buffers_that_overlap_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGRT_EMULATOR_FAULT", "overlap")
    assert "wrote behind a shared variable" in reports("lstm.cu")
