"""The op harness: every op of the registry, every case of tests/cases/, every instruction set.

For each case: the forward result against a float64 reference; the gradient against central differences of that
reference; one thread and several give the same bits; guard bands around every caller's buffer stay intact, with inputs
only element-aligned and outputs pre-filled with NaN.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
from cases import Case
from dagrt import _core

BAND = 7  # elements of guard on both sides: odd, so that buffers are only element-aligned
NAMES = [m.name for m in pkgutil.iter_modules(cases.__path__)]
ALL: list[Case] = [c for n in NAMES for c in importlib.import_module(f"cases.{n}").CASES]
ISAS: list[str] = _core.cpu_info()["isas"]
TABLE: dict[str, dict] = {row["name"]: row for row in _core.op_table()}
EPS = float(np.finfo(np.float32).eps)
# Made by passes, or meaningless alone: exercised by the tests named here.
ELSEWHERE = {
    "read": "test_tracing",
    "constant": "test_tracing",
    "gradients": "here, for every differentiable op",
    "scan": "test_tracing",
    "pointwise": "native test_passes",
    "winograd_weights": "native test_winograd",  # an order of numbers that depends on the instruction set
    "conv2d_winograd": "native test_winograd",
    "pack_conv2d": "native test_packed",
    "conv2d_packed": "native test_packed",
    "pack_matmul": "native test_packed",
    "matmul_packed": "native test_packed",
    "pack_matmul_bf16": "native test_matmul_bf16_packed",
    "matmul_bf16_packed": "native test_matmul_bf16_packed",
    "pack_lstm": "native test_pack_lstm",
    "pack_lstm_table": "native test_pack_lstm",
    "lstm_packed": "native test_pack_lstm",
    "lstm_gathered": "native test_pack_lstm",
    "scatter_add_into": "native test_indexing",
    "matmul_bf16": "test_cuda",
    "conv2d_bf16": "test_cuda",
    "conv2d_input_grad_bf16": "test_cuda",
    "conv2d_filter_grad_bf16": "test_cuda",
}


def case_id(case: Case) -> str:
    shapes = "_".join("x".join(map(str, a.shape)) or "scalar" if a is not None else "none" for a in case.inputs)
    return f"{case.op}-{case.name or shapes}"[:80]


def guarded(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A copy of `array` inside a larger buffer whose both ends hold a known pattern."""
    buffer = np.full(array.size + 2 * BAND, np.nan if array.dtype.kind == "f" else 113, array.dtype)
    inner = buffer[BAND : BAND + array.size].reshape(array.shape)
    inner[...] = array
    return buffer, inner


def bands_intact(buffer: np.ndarray, size: int) -> bool:
    ends = np.concatenate([buffer[:BAND], buffer[BAND + size :]])
    return bool(np.isnan(ends).all() if buffer.dtype.kind == "f" else (ends == np.array(113, buffer.dtype)).all())


def module(case: Case, arrays: list[Any], kept: int, with_gradient: tuple[int, ...] = ()) -> str:
    """One node, or one node with a weighted sum of its first `kept` outputs and the gradient of that."""
    present = [i for i, a in enumerate(arrays) if a is not None]
    inputs = [{"name": f"x{i}", "dtype": arrays[i].dtype.name, "shape": list(arrays[i].shape)} for i in present]
    types = _core.infer(case.op, case.attrs, [None if a is None else (a.dtype.name, a.shape) for a in arrays])
    ids = {i: k for k, i in enumerate(present)}
    floats = [k for k in range(kept) if types[k][0] == "float32"]
    if with_gradient:
        for k in floats:
            inputs.append({"name": f"w{k}", "dtype": "float32", "shape": list(types[k][1])})
    first = len(inputs)
    outs = list(range(first, first + len(types)))
    nodes: list[dict] = [
        {"op": case.op, "in": [ids.get(i, -1) for i in range(len(arrays))], "out": outs, "attrs": plain(case.attrs)}
    ]
    outputs = outs[:kept]
    if with_gradient:
        following = outs[-1] + 1
        total = None
        for j, k in enumerate(floats):
            nodes.append({"op": "multiply", "in": [outs[k], len(present) + j], "out": [following], "attrs": {}})
            axes = list(range(len(types[k][1])))
            nodes.append(
                {
                    "op": "reduce_sum",
                    "in": [following],
                    "out": [following + 1],
                    "attrs": {"axes": axes, "keepdims": False},
                }
            )
            following += 2
            if total is None:
                total = following - 1
            else:
                nodes.append({"op": "add", "in": [total, following - 1], "out": [following], "attrs": {}})
                total, following = following, following + 1
        wrt = [ids[i] for i in with_gradient]
        outputs = list(range(following, following + len(wrt)))
        nodes.append({"op": "gradients", "in": [total, *wrt], "out": outputs, "attrs": {}})
    return as_text(inputs, nodes, outputs)


def as_text(inputs: list[dict], nodes: list[dict], outputs: list[int]) -> str:
    return json.dumps(
        {
            "format": "dagrt",
            "version": 1,
            "variables": [],
            "constants": [],
            "functions": {
                "main": {
                    "inputs": inputs,
                    "nodes": nodes,
                    "outputs": outputs,
                    "output_names": [""] * len(outputs),
                    "stores": [],
                    "guard": None,
                }
            },
        }
    )


def sliced_module(case: Case, arrays: list[Any], kept: int) -> tuple[str, list[np.ndarray], list[int]]:
    """One node between slices and concatenations along the last axis, which the planner gives no memory of their own:
    its operands that may be spaced (op_table) stand in wider values. Also the function's inputs, and the number of columns
    in front of each output."""
    inputs: list[dict] = []
    given: list[np.ndarray] = []

    def add_input(a: np.ndarray) -> int:
        inputs.append({"name": f"x{len(inputs)}", "dtype": a.dtype.name, "shape": list(a.shape)})
        given.append(a)
        return len(inputs) - 1

    def wide(shape: tuple[int, ...], bits: int, k: int) -> bool:
        return bool(bits >> min(k, 31) & 1) and len(shape) > 1 and shape[-1] >= 8

    def filled(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.full(shape, np.nan if np.dtype(dtype).kind == "f" else 1, dtype)

    takes, gives = TABLE[case.op]["spaced"]
    types = _core.infer(case.op, case.attrs, [None if a is None else (a.dtype.name, a.shape) for a in arrays])
    operands: list[int | tuple[int, np.ndarray]] = []
    for k, a in enumerate(arrays):
        if a is None:
            operands.append(-1)
        elif wide(a.shape, takes, k):
            outer = filled((*a.shape[:-1], a.shape[-1] + 5), a.dtype)
            outer[..., 3:-2] = a
            operands.append((add_input(outer), a))
        else:
            operands.append(add_input(a))
    joined = [wide(types[k][1], gives, k) for k in range(kept)]
    edges = {k: add_input(filled((*types[k][1][:-1], 5), types[k][0])) for k in range(kept) if joined[k]}
    following = len(inputs)
    nodes: list[dict] = []
    ids = []
    for o in operands:
        if isinstance(o, tuple):
            value, a = o
            attrs = {"begin": [0] * (a.ndim - 1) + [3], "size": list(a.shape), "stride": [1] * a.ndim}
            nodes.append({"op": "slice", "in": [value], "out": [following], "attrs": attrs})
            o, following = following, following + 1
        ids.append(o)
    outs = list(range(following, following + len(types)))
    following += len(types)
    nodes.append({"op": case.op, "in": ids, "out": outs, "attrs": plain(case.attrs)})
    outputs = outs[:kept]
    for k, e in edges.items():
        parts = [e, outs[k], e]
        nodes.append({"op": "concat", "in": parts, "out": [following], "attrs": {"axis": -1}})
        outputs[k], following = following, following + 1
    return as_text(inputs, nodes, outputs), given, [5 if j else 0 for j in joined]


def plain(value: Any) -> Any:
    """Attributes as JSON says them: inf and nan are strings."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return "nan" if value != value else "inf" if value > 0 else "-inf"
    return value


def run_guarded(fn: Any, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """`fn`: a function, or a module's text."""
    if isinstance(fn, str):
        fn = _core.Function(fn, [], [])
    held = [guarded(a) for a in arrays]
    types = fn.output_types([a.shape for a in arrays])
    outs = []
    for dtype, shape in types:
        fill = np.full(shape, np.nan if dtype.startswith(("float", "bfloat")) else 99, np.dtype(dtype))
        outs.append(guarded(fill))
    fn([inner for _, inner in held], [inner for _, inner in outs])
    for (buffer, inner), a in zip(held, arrays):
        assert bands_intact(buffer, inner.size), "the band around an input was written"
        assert np.array_equal(inner, a, equal_nan=a.dtype.kind == "f"), "an input was written"
    for buffer, inner in outs:
        assert bands_intact(buffer, inner.size), "the band around an output was written"
    return [inner.copy() for _, inner in outs]


def in_double(a: Any) -> Any:
    return None if a is None else a.astype("float64") if a.dtype.kind == "f" else a


def reference(case: Case, arrays: list[Any]) -> list[np.ndarray]:
    with np.errstate(all="ignore"):
        result = case.reference(*[in_double(a) for a in arrays])
    return [np.asarray(r) for r in (result if isinstance(result, (list, tuple)) else [result])]


def close(got: np.ndarray, want: np.ndarray, multiples: float, what: str) -> None:
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    if want.dtype.kind != "f":
        assert np.array_equal(got, want.astype(got.dtype)), f"{what}: got {got}, expected {want}"
        return
    assert np.array_equal(np.isnan(got), np.isnan(want)), f"{what}: NaN in other places"
    infinite = np.isinf(want)
    assert np.array_equal(got[infinite], want[infinite].astype(got.dtype)), f"{what}: infinities differ"
    ok = np.isfinite(want)
    if not ok.any():
        return
    scale = max(float(np.abs(want[ok]).max()), 1e-30)
    error = float(np.abs(got[ok] - want[ok]).max()) / scale
    assert error <= multiples * EPS, f"{what}: error {error / EPS:.1f} eps of the largest value, allowed {multiples}"


@pytest.fixture(autouse=True)
def restore_settings():
    yield
    _core.set_isa(_core.cpu_info()["best"] if "best" in _core.cpu_info() else ISAS[-1])
    _core.set_num_threads(0)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", ALL, ids=case_id)
def test_forward(case: Case, isa: str) -> None:
    rng = np.random.default_rng(sum(map(ord, case.op)))
    arrays = [None if a is None else a.make(rng) for a in case.inputs]
    present = [a for a in arrays if a is not None]
    _core.set_isa(isa)
    _core.set_num_threads(1)
    if case.fault is not None:
        types = _core.infer(case.op, case.attrs, [None if a is None else (a.dtype.name, a.shape) for a in arrays])
        with pytest.raises(_core.DataError, match=case.fault):
            _core.Function(module(case, arrays, len(types) - TABLE[case.op]["residuals"]), [], [])(present)
        return
    want = reference(case, arrays)
    text = module(case, arrays, len(want))
    got = run_guarded(text, present)
    for k, (g, w) in enumerate(zip(got, want)):
        close(g, w, case.tolerance, f"{case.op} output {k}")
    _core.set_num_threads(2)
    for g, h in zip(got, run_guarded(text, present)):
        assert g.tobytes() == h.tobytes(), "one thread and two give different bits"


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    "case",
    [
        c
        for c in ALL
        if c.fault is None
        and any(TABLE[c.op]["spaced"])
        and any(a is not None and len(a.shape) > 1 and a.shape[-1] >= 8 for a in c.inputs)
    ],
    ids=case_id,
)
def test_in_slices(case: Case, isa: str) -> None:
    rng = np.random.default_rng(sum(map(ord, case.op)))
    arrays = [None if a is None else a.make(rng) for a in case.inputs]
    _core.set_isa(isa)
    want = reference(case, arrays)
    text, given, fronts = sliced_module(case, arrays, len(want))
    if len(given) == sum(a is not None for a in arrays) and all(a is b for a, b in zip(given, arrays)):
        pytest.skip("no operand is wide enough")
    for k, (got, w) in enumerate(zip(run_guarded(text, given), want)):
        n = fronts[k]
        if n:
            for edge in (got[..., :n], got[..., -n:]):
                assert np.isnan(edge).all() if edge.dtype.kind == "f" else (edge == 1).all(), "columns beside the slice"
            got = got[..., n:-n]
        close(got, w, case.tolerance, f"{case.op} output {k}")


@pytest.mark.parametrize(
    "case", [c for c in ALL if c.fault is None and c.grad != () and TABLE[c.op]["differentiable"]], ids=case_id
)
def test_gradient(case: Case) -> None:
    rng = np.random.default_rng(sum(map(ord, case.op)))
    arrays = [None if a is None else a.make(rng) for a in case.inputs]
    wrt = (
        case.grad
        if case.grad is not None
        else tuple(i for i, a in enumerate(arrays) if a is not None and a.dtype == np.float32)
    )
    want = reference(case, arrays)
    floats = [k for k, w in enumerate(want) if w.dtype.kind == "f"]
    if not wrt or not floats or any(a is not None and a.dtype.kind == "f" and not np.isfinite(a).all() for a in arrays):
        pytest.skip("no differentiable input, output or finite domain")
    weights = [rng.uniform(-1, 1, want[k].shape).astype("float32") for k in floats]
    got = run_guarded(module(case, arrays, len(want), wrt), [a for a in arrays if a is not None] + weights)

    def loss(values: list[Any]) -> float:
        with np.errstate(all="ignore"):
            result = case.reference(*values)
        result = result if isinstance(result, (list, tuple)) else [result]
        return sum(float((np.asarray(result[k]) * w).sum()) for k, w in zip(floats, weights))

    for i, g in zip(wrt, got):
        doubles = [in_double(a) for a in arrays]
        flat = doubles[i].ravel()
        picks = np.arange(flat.size) if flat.size <= 60 else rng.choice(flat.size, 60, replace=False)
        numeric = np.zeros(len(picks))
        for n, at in enumerate(picks):
            keep, step = flat[at], 1e-5 * max(1.0, abs(flat[at]))
            flat[at] = keep + step
            up = loss(doubles)
            flat[at] = keep - step
            numeric[n] = (up - loss(doubles)) / (2 * step)
            flat[at] = keep
        scale = max(float(np.abs(g).max(initial=0)), float(np.abs(numeric).max(initial=0)), 1e-6)
        error = float(np.abs(g.ravel()[picks] - numeric).max(initial=0)) / scale
        assert np.isfinite(g).all(), f"{case.op}: the gradient of input {i} is not finite"
        assert error <= case.grad_tolerance * EPS + 2e-6, (
            f"{case.op}: gradient of input {i} off by {error:.2e} of {scale:.3g}"
        )


def test_every_op_has_cases() -> None:
    covered = {c.op for c in ALL} | set(ELSEWHERE)
    assert set(TABLE) - covered == set()


def test_algorithms_of_the_cpu_name_an_op_that_every_device_has() -> None:
    """cpu_algorithm_of: passes make them where they compile for a CPU; docs/ops.md lists them."""
    page = (Path(__file__).parents[1] / "docs" / "ops.md").read_text()
    listed = page[page.index("**Algorithms of the CPU.**") :].split("have no kernel")[0]
    for name, row in TABLE.items():
        of = row["cpu_algorithm_of"]
        assert (name in listed.replace(",", " ").split()) == (of is not None), name
        if of is not None:
            assert TABLE[of]["cpu_algorithm_of"] is None
            assert not row["differentiable"], f"{name} is made after gradients"


def test_algorithms_of_cuda_devices_are_refused_on_a_cpu() -> None:
    page = (Path(__file__).parents[1] / "docs" / "ops.md").read_text()
    listed = page[page.index("**Algorithms of CUDA devices.**") :].split("have no kernel")[0]
    for name, row in TABLE.items():
        of = row["cuda_algorithm_of"]
        assert (name in listed.replace(",", " ").split()) == (of is not None), name
        if of is not None:
            assert TABLE[of]["cuda_algorithm_of"] is None and not row["differentiable"]
    inputs = [{"name": f"x{i}", "dtype": "bfloat16", "shape": [8, 8]} for i in range(2)]
    attrs = {"dtype": "float32", "transpose_a": False, "transpose_b": False}
    text = as_text(inputs, [{"op": "matmul_bf16", "in": [0, 1], "out": [2], "attrs": attrs}], [2])
    with pytest.raises(
        _core.DeviceError, match="matmul_bf16 is one of CUDA devices' algorithms for matmul and does not run on a CPU"
    ):
        _core.Function(text, [], [], device="cpu").output_types([(8, 8), (8, 8)])


@pytest.mark.parametrize(
    ("op", "attrs", "shapes", "says"),
    [
        (
            "matmul",
            {},
            [(4, 12), (12, 8)],
            r"last axes must be multiples of 8, got \(4, 12\) and \(12, 8\); use matmul of",
        ),
        ("matmul", {"dtype": "int32"}, [(4, 8), (8, 8)], "dtype must be float32 or bfloat16, got int32"),
        (
            "matmul",
            {"dtype": "bfloat16", "epilogue": ["tanh 0"]},
            [(4, 8), (8, 8)],
            "adds a bias and does a relu, or less",
        ),
        (
            "conv2d",
            {},
            [(1, 4, 4, 12), (1, 1, 12, 8)],
            r"last axes of each group must be multiples of 8, got \(1, 4, 4, 12\)",
        ),
        ("conv2d", {"dtype": "int32"}, [(1, 4, 4, 8), (1, 1, 8, 8)], "dtype must be float32 or bfloat16, got int32"),
    ],
)
def test_products_of_bfloat16_say_what_they_take(op: str, attrs: dict, shapes: list, says: str) -> None:
    usual = {"strides": [1, 1], "padding": "same"} if op == "conv2d" else {"transpose_a": False, "transpose_b": False}
    with pytest.raises((_core.ShapeError, _core.DTypeError, _core.GraphError), match=f"{op}_bf16: .*{says}"):
        _core.infer(f"{op}_bf16", {"dtype": "float32"} | usual | attrs, [("bfloat16", s) for s in shapes])


def test_registry_matches_documentation() -> None:
    """Every op is named in docs/ops.md."""
    page = (Path(__file__).parents[1] / "docs" / "ops.md").read_text()
    words = {
        w
        for w in page.replace(",", " ").replace("|", " ").replace("(", " ").replace(")", " ").replace("/", " ").split()
    }
    assert {n for n in TABLE if n not in words and n not in page} == set()
