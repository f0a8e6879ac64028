"""The op harness and the seed models on a CUDA device: a real one, or the emulator of tests/cuda_emulator.

The same cases and oracle as on the CPU (test_ops.py), under several orders of threads; results must not depend on them. Skipped
where this build has no CUDA device. tests/cuda_emulator/run.py gives one without a GPU, in three kinds: in `plain` values are
looked at, in three orders; `races` and `asan` are slower and watch memory, whatever the order: there one will do, and the models
are for `pytest -m slow`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagrt as keras
import numpy as np
import pytest
from dagrt import _core
from seed_models import SEEDS, hashed
from test_ops import ALL, EPS, TABLE, Case, as_text, case_id, close, module, reference, run_guarded

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
import cuda_products

pytestmark = pytest.mark.skipif("cuda:0" not in _core.devices(), reason="no CUDA device in this build or machine")
WATCHED = os.environ.get("DAGRT_EMULATED", "plain") != "plain"
SEEDS_OF_ORDER = ("1",) if WATCHED else ("1", "2", "3")
SLOW = [pytest.mark.slow] if WATCHED else []
RECORDED = os.environ.get("DAGRT_EMULATED") == "races"  # which launches there are
# Algorithms that compiling chooses for the CPU alone: a CUDA device has its own for the ops that they are chosen for.
CPU_ONLY = {name: row["cpu_algorithm_of"] for name, row in TABLE.items() if row["cpu_algorithm_of"]}


@pytest.fixture(autouse=True)
def on_cuda(monkeypatch: pytest.MonkeyPatch):
    _core.set_device("cuda:0")
    monkeypatch.setenv("DAGRT_EXACT", "1")  # of functions made without Python's front end
    before = keras.config.exact()
    keras.config.set_exact(True)  # float32 products; by default they are TF32's
    yield
    keras.config.set_exact(before)
    _core.set_device("cpu")
    os.environ.pop("DAGRT_EMULATOR_SEED", None)


def arrays_of(case: Case) -> list[Any]:
    rng = np.random.default_rng(sum(map(ord, case.op)))
    return [None if a is None else a.make(rng) for a in case.inputs]


def in_every_order(text: str, arrays: list[np.ndarray], exact: bool = True) -> list[np.ndarray]:
    """What it gives, the same bits in each order of threads."""
    function, first = _core.Function(text, [], [], "main", exact), []
    for order in SEEDS_OF_ORDER:
        os.environ["DAGRT_EMULATOR_SEED"] = order
        got = run_guarded(function, arrays)
        first = first or got
        for g, f in zip(got, first, strict=True):
            assert g.tobytes() == f.tobytes(), "the order of threads changes the result"
    return first


def exact_and_fast(*runs: tuple[str, list[np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each result in float32, and by tensor cores in each order of threads."""
    for text, arrays in runs:
        exact = _core.Function(text, [], [], "main", True)(arrays)
        yield from zip(exact, in_every_order(text, arrays, False), strict=True)


@pytest.mark.parametrize("case", ALL, ids=case_id)
def test_forward(case: Case) -> None:
    arrays = arrays_of(case)
    present = [a for a in arrays if a is not None]
    if case.op in CPU_ONLY:
        with pytest.raises(
            _core.DeviceError, match=f"{case.op} is one of the CPU's algorithms for {CPU_ONLY[case.op]} and does"
        ):
            run_guarded(module(case, arrays, 1), present)
        return
    if case.fault is not None:
        types = _core.infer(case.op, case.attrs, [None if a is None else (a.dtype.name, a.shape) for a in arrays])
        with pytest.raises(_core.DataError, match=case.fault):
            _core.Function(module(case, arrays, len(types) - TABLE[case.op]["residuals"]), [], [])(present)
        return
    want = reference(case, arrays)
    for k, (g, w) in enumerate(zip(in_every_order(module(case, arrays, len(want)), present), want)):
        close(g, w, case.tolerance, f"{case.op} output {k}")


@pytest.mark.parametrize(
    "case",
    [c for c in ALL if c.fault is None and c.grad != () and TABLE[c.op]["differentiable"] and c.op not in CPU_ONLY],
    ids=case_id,
)
def test_gradient(case: Case) -> None:
    """Against the CPU's own gradient, which test_ops.py holds against central differences."""
    arrays = arrays_of(case)
    wrt = case.grad
    if wrt is None:
        wrt = tuple(i for i, a in enumerate(arrays) if a is not None and a.dtype == np.float32)
    want = reference(case, arrays)
    floats = [k for k, w in enumerate(want) if w.dtype.kind == "f"]
    if not wrt or not floats or any(a is not None and a.dtype.kind == "f" and not np.isfinite(a).all() for a in arrays):
        pytest.skip("no differentiable input, output or finite domain")
    rng = np.random.default_rng(7)
    weights = [rng.uniform(-1, 1, want[k].shape).astype("float32") for k in floats]
    text = module(case, arrays, len(want), wrt)
    inputs = [a for a in arrays if a is not None] + weights
    got = in_every_order(text, inputs)
    _core.set_device("cpu")
    for i, g, w in zip(wrt, got, run_guarded(text, inputs)):
        scale = max(float(np.abs(w).max(initial=0)), 1e-6)
        error = float(np.abs(g - w).max(initial=0)) / scale
        assert error <= (case.grad_tolerance + 2 * case.tolerance) * EPS, (
            f"gradient of input {i} off by {error / EPS:.0f} eps"
        )


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (17, 33, 5), (64, 64, 64), (130, 70, 40), (3, 200, 700), (520, 71, 40), (648, 133, 40)]
)
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True)])
def test_tensor_cores(shape: tuple[int, int, int], transposed: tuple[bool, bool]) -> None:
    """TF32 rounds the operands to 11 bits: the product is that of rounded operands, to float32's accuracy."""
    m, n, k = shape
    a = hashed(1, m * k).astype("float32").reshape((k, m) if transposed[0] else (m, k))
    b = hashed(2, k * n).astype("float32").reshape((n, k) if transposed[1] else (k, n))
    case = Case("matmul", [], lambda x, y: x, {"transpose_a": transposed[0], "transpose_b": transposed[1]})
    text = module(case, [a, b], 1)
    [got] = in_every_order(text, [a, b], False)

    def rounded(x: np.ndarray) -> np.ndarray:
        bits = x.view("uint32").astype("uint64") + 0x1000
        return (bits & 0xFFFFE000).astype("uint32").view("float32").astype("float64")

    a, b = rounded(a), rounded(b)
    want = (a.T if transposed[0] else a) @ (b.T if transposed[1] else b)
    assert np.abs(got - want).max() <= 64 * EPS * np.sqrt(k) * max(np.abs(want).max(), 1)


def bf16_text(
    op: str,
    arrays: list[np.ndarray],
    attrs: dict[str, Any],
    result: str,
    behind: tuple[tuple[str, Any], ...] = (),
    operand: str = "bfloat16",
) -> str:
    """A product of operands rounded to bfloat16 and widened, as a policy of bfloat16 has it, or of float32 as they are; its result
    rounded or not, then, of the same type, `behind`: pointwise ops with another input of that shape, or none."""
    operands = len(arrays)
    shapes = [a.shape for a in arrays] + [shape for _, shape in behind if shape is not None]
    inputs = [{"name": f"x{i}", "dtype": "float32", "shape": list(shape)} for i, shape in enumerate(shapes)]
    nodes: list[dict] = []

    def emit(op: str, operands: list[int], attrs: dict[str, Any]) -> int:
        out = len(inputs) + len(nodes)
        nodes.append({"op": op, "in": operands, "out": [out], "attrs": attrs})
        return out

    def cast(x: int, dtype: str) -> int:
        return emit("cast", [x], {"dtype": dtype})

    y = emit(op, [cast(cast(i, operand), "float32") for i in range(operands)], attrs)
    y, given = cast(y, result), iter(range(operands, len(shapes)))
    for name, shape in behind:
        y = emit(name, [y] if shape is None else [y, cast(next(given), result)], {})
    return as_text(inputs, nodes, [cast(y, "float32")])


def bf16_product(a: np.ndarray, b: np.ndarray, ta: bool, tb: bool, result: str) -> str:
    return bf16_text("matmul", [a, b], {"transpose_a": ta, "transpose_b": tb}, result)


def to_bf16(x: np.ndarray) -> np.ndarray:
    """Rounded to bfloat16, to nearest even, as float64."""
    bits = x.astype("float32").view("uint32").astype("uint64")
    bits += 0x7FFF + (bits >> 16 & 1)
    return (bits & 0xFFFF0000).astype("uint32").view("float32").astype("float64")


def run_bf16(text: str, arrays: list[np.ndarray]) -> np.ndarray:
    """The same bits in every order of threads."""
    runs = []
    for order in SEEDS_OF_ORDER:
        os.environ["DAGRT_EMULATOR_SEED"] = order
        runs.append(_core.Function(text, [], [], "main", False)(arrays)[0])
        assert runs[-1].tobytes() == runs[0].tobytes(), "the order of threads changes the result"
    return runs[0]


@pytest.mark.parametrize(
    "shape",
    [
        (8, 8, 8), (24, 16, 40), (64, 64, 64), (136, 72, 40), (8, 104, 328), (136, 136, 24),
        (1, 8, 16), (17, 40, 8), (8, 33, 24), (8, 8, 0), (0, 8, 8), (2, 16, 2056),
    ],
)  # fmt: skip
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("result", ["float32", "bfloat16"])
def test_bf16_products(shape: tuple[int, int, int], transposed: tuple[bool, bool], result: str) -> None:
    """Of rounded operands, to float32's accuracy, then rounded to bfloat16 or not; and by tensor cores where lines are whole."""
    m, n, k = shape
    a = hashed(1, m * k).astype("float32").reshape((k, m) if transposed[0] else (m, k))
    b = hashed(2, k * n).astype("float32").reshape((n, k) if transposed[1] else (k, n))
    text = bf16_product(a, b, *transposed, result)
    program = _core.Function(text, [], [], "main", False).text([a.shape, b.shape])
    assert ("matmul_bf16" in program) == (a.shape[1] % 8 == 0 and b.shape[1] % 8 == 0)
    assert "matmul_bf16" not in _core.Function(text, [], [], "main", True).text([a.shape, b.shape])
    got = run_bf16(text, [a, b])
    a, b = to_bf16(a), to_bf16(b)
    want = (a.T if transposed[0] else a) @ (b.T if transposed[1] else b)
    error = np.abs(got - want).max(initial=0)
    scale = max(np.abs(want).max(initial=0), 1)
    assert error <= (64 * EPS * np.sqrt(k) + (2**-8 if result == "bfloat16" else 0)) * scale
    if result == "bfloat16":
        assert np.array_equal(got, to_bf16(got)), "the result is no bfloat16"


# M and N for which 16 multiprocessors, the emulator's, take each tile: whole tiles and tails both ways.
SIZES_OF_TILES = {
    (64, 64): (72, 72),
    (128, 64): (520, 72),
    (128, 128): (648, 136),
    (192, 128): (1032, 136),
    (256, 128): (1544, 136),
}


def test_every_tile_is_tried() -> None:
    tiles, model = cuda_products.tiles(), cuda_products.model()
    assert list(SIZES_OF_TILES) == tiles
    for number, (m, n) in enumerate(SIZES_OF_TILES.values()):
        for size in (4, 2):
            for rows in (m, -(-m // 24) * 24):  # of filter gradients the second
                assert model.product_splits(1, rows, n, 72, size) == 1
                assert model.product_tile(16, 1, rows, n, 72, 1, size, len(tiles)) == number


@contextmanager
def launches() -> Iterator[list[str]]:
    """The names of those within, once they are done; none where the device keeps no record."""
    names: list[str] = []
    with tempfile.NamedTemporaryFile() as file:
        os.environ["DAGRT_EMULATOR_COUNTS"] = file.name
        try:
            yield names
        finally:
            del os.environ["DAGRT_EMULATOR_COUNTS"]
        names += [json.loads(line)["kernel"] for line in Path(file.name).read_text().splitlines()]


def in_tile(
    tile: tuple[int, int], text: str, arrays: list[np.ndarray], want: np.ndarray, rounded: bool = False
) -> None:
    """The program, one product, gives `want` to float32's accuracy, or that rounded to bfloat16; by a launch of that tile, where
    launches are recorded. Elsewhere the emulator's 16 multiprocessors take the same one; with others it is not known which was tried."""
    with launches() as names:
        [got] = in_every_order(text, arrays, False)
    slack = 2**-8 * np.abs(want) if rounded else 0
    assert (np.abs(got - want) <= 256 * EPS * max(np.abs(want).max(), 1) + slack).all()
    assert not rounded or np.array_equal(got, to_bf16(got)), "the result is no bfloat16"
    if "DAGRT_EMULATED" not in os.environ or os.environ.get("DAGRT_EMULATOR_MULTIPROCESSORS", "16") != "16":
        pytest.skip("the result is right, but the sizes are those for which 16 multiprocessors take each tile")
    if RECORDED:
        tiled = [name for name in names if re.search(r" \d+x\d+$", name)]
        assert len(tiled) == 1 and tiled[0].endswith(" {}x{}".format(*tile)), names


def in_tiles(tile: tuple[int, int], op: str, arrays: list[np.ndarray], attrs: dict[str, Any], dtype: str) -> None:
    """Values of bfloat16 are TF32's too: what tensor cores make of either is right to float32's accuracy."""
    arrays = [to_bf16(a).astype("float32") for a in arrays]
    plain = module(Case(op, [], lambda x, y: x, attrs), arrays, 1)
    [want] = _core.Function(plain, [], [], "main", True, "cpu")(arrays)
    text = plain if dtype == "float32" else bf16_text(op, arrays, attrs, "float32")
    assert ("_bf16" in _core.Function(text, [], [], "main", False).text([a.shape for a in arrays])) == (
        dtype != "float32"
    )
    in_tile(tile, text, arrays, want)


def tile_id(tile: Any) -> str | None:
    return "{}x{}".format(*tile) if isinstance(tile, tuple) else None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("tile", SIZES_OF_TILES, ids=tile_id)
def test_products_in_every_tile(tile: tuple[int, int], transposed: tuple[bool, bool], dtype: str) -> None:
    m, n = SIZES_OF_TILES[tile]
    a = hashed(1, m * 40).astype("float32").reshape((40, m) if transposed[0] else (m, 40))
    b = hashed(2, n * 40).astype("float32").reshape((n, 40) if transposed[1] else (40, n))
    in_tiles(tile, "matmul", [a, b], {"transpose_a": transposed[0], "transpose_b": transposed[1]}, dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("op", ["conv2d", "conv2d_input_grad", "conv2d_filter_grad"])
@pytest.mark.parametrize("tile", SIZES_OF_TILES, ids=tile_id)
def test_convolutions_in_every_tile(tile: tuple[int, int], op: str, dtype: str) -> None:
    """m pixels and n filters, n channels of m pixels, or m weights of a filter and n filters."""
    m, n = SIZES_OF_TILES[tile]
    attrs: dict[str, Any] = {
        "strides": [1, 1], "dilations": [1, 1], "groups": 1, "padding": "same", "pads": [0, 0, 0, 0]
    }  # fmt: skip
    if op == "conv2d_filter_grad":
        shapes, attrs["kernel_size"] = [(1, 5, 6, -(-m // 24) * 8), (1, 5, 6, n)], [3, 1]
    else:
        window = (3, 3, 8, n) if op == "conv2d" else (3, 3, n, 8)
        shapes = [(1, m // 8, 8, 8), window]
        if op == "conv2d_input_grad":
            attrs["input_size"] = [m // 8, 8]
    arrays = [hashed(i, int(np.prod(shape))).astype("float32").reshape(shape) for i, shape in enumerate(shapes)]
    in_tiles(tile, op, arrays, attrs, dtype)


@pytest.mark.parametrize(
    "tile, dtype, kind",
    [
        ((192, 128), "bfloat16", "rounded"),
        ((128, 64), "float32", "added"),
        ((256, 128), "float32", "added"),
        ((256, 128), "bfloat16", "added"),
        ((256, 128), "float32", "chain"),
    ],
    ids=lambda of: tile_id(of) or of,
)
def test_larger_tiles_on_their_way_out(tile: tuple[int, int], dtype: str, kind: str) -> None:
    """192x128 and 256x128 leave in two halves: rounded to bfloat16, with bias, residual and relu; chains only from whole tiles."""
    m, n = SIZES_OF_TILES[tile]
    a, b, bias, more = (
        to_bf16(hashed(i, int(np.prod(shape)))).astype("float32").reshape(shape)
        for i, shape in enumerate([(m, 40), (40, n), (n,), (m, n)])
    )
    result = "bfloat16" if kind == "rounded" else "float32"
    behind, given, want = (), [], a.astype("float64") @ b
    if kind == "added":
        behind, given = (("add", bias.shape), ("add", more.shape), ("relu", None)), [bias, more]
        want = np.maximum(want + bias + more, 0)
    elif kind == "chain":
        behind, given, want = (("multiply", more.shape), ("tanh", None)), [more], np.tanh(want * more)
        model, most = cuda_products.model(), len(cuda_products.whole_tiles())
        tile = cuda_products.tiles()[model.product_tile(16, 1, m, n, 40, 1, 4, most)]
    text = bf16_text("matmul", [a, b], {"transpose_a": False, "transpose_b": False}, result, behind, dtype)
    program = _core.Function(text, [], [], "main", False).text([x.shape for x in [a, b, *given]])
    assert ("matmul_bf16" in program) == (dtype == "bfloat16") and ("epilogue" in program) == bool(behind), program
    in_tile(tile, text, [a, b, *given], want, kind == "rounded")


@pytest.mark.parametrize("batches", [((3,), (3,)), ((2, 1), (1, 3)), ((3,), ()), ((), (2,))])
def test_bf16_products_of_batches(batches: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a = hashed(1, int(np.prod((*batches[0], 9, 16)))).astype("float32").reshape(*batches[0], 9, 16)
    b = hashed(2, int(np.prod((*batches[1], 16, 24)))).astype("float32").reshape(*batches[1], 16, 24)
    for result in ("float32", "bfloat16"):
        text = bf16_product(a, b, False, False, result)
        assert "matmul_bf16" in _core.Function(text, [], [], "main", False).text([a.shape, b.shape])
        want = to_bf16(a) @ to_bf16(b)
        got = run_bf16(text, [a, b])
        assert np.abs(got - want).max() <= (64 * EPS + (2**-8 if result == "bfloat16" else 0)) * np.abs(want).max()


def test_bf16_products_pass_infinities_on() -> None:
    a, b = np.ones((8, 16), "float32"), np.ones((16, 8), "float32")
    a[1, 3], a[5, 9] = np.inf, np.nan
    for result in ("float32", "bfloat16"):
        got = run_bf16(bf16_product(a, b, False, False, result), [a, b])
        assert np.array_equal(np.isinf(got).all(-1), np.arange(8) == 1)
        assert np.array_equal(np.isnan(got).all(-1), np.arange(8) == 5)


@pytest.mark.parametrize("columns", [72, 69])  # stored by four; one by one
def test_bf16_products_have_epilogues(columns: int) -> None:
    """Behind a product that stays float32: in registers, and as a chain."""
    a, b = hashed(1, 72 * 40).astype("float32").reshape(72, 40), hashed(2, columns * 40).astype("float32")
    b, bias = b.reshape(columns, 40), hashed(3, columns).astype("float32")
    more, y = hashed(4, 72 * columns).astype("float32").reshape(72, columns), to_bf16(a) @ to_bf16(b).T
    attrs = {"transpose_a": False, "transpose_b": True}
    for behind, want in (
        ((("add", bias.shape), ("add", more.shape), ("relu", None)), np.maximum(y + bias + more, 0)),
        ((("multiply", more.shape), ("tanh", None)), np.tanh(y * more)),
    ):
        text = bf16_text("matmul", [a, b], attrs, "float32", behind)
        arrays = [a, b] + [{bias.shape: bias, more.shape: more}[shape] for _, shape in behind if shape is not None]
        program = _core.Function(text, [], [], "main", False).text([x.shape for x in arrays])
        assert "epilogue" in program and "matmul_bf16" in program
        np.testing.assert_allclose(run_bf16(text, arrays), want, atol=1e-4)


@pytest.mark.parametrize("window, stride, dilation", [(1, 1, 1), (1, 2, 1), (3, 1, 1), (3, 2, 1), (2, 3, 1), (3, 2, 2)])
@pytest.mark.parametrize("channels", [(64, 128), (20, 12), (3, 7), (3, 68), (1, 4), (2, 8)])
def test_tensor_cores_convolve(channels: tuple[int, int], window: int, stride: int, dilation: int) -> None:
    """TF32 against float32, forward and both gradients: rounding of the operands is all that differs."""
    c, f = channels
    attrs = {
        "strides": [stride, stride], "dilations": [dilation, dilation], "groups": 1, "padding": "same", "pads": [0, 0, 0, 0]
    }  # fmt: skip
    x = hashed(1, 2 * 13 * 11 * c).astype("float32").reshape(2, 13, 11, c)
    w = hashed(2, window * window * c * f).astype("float32").reshape(window, window, c, f)
    case = Case("conv2d", [], lambda x, w: x, attrs)
    shape = (2, -(-13 // stride), -(-11 // stride), f)
    dy = hashed(3, int(np.prod(shape))).astype("float32").reshape(shape)
    forward, backward = module(case, [x, w], 1), module(case, [x, w], 1, (0, 1))
    for want, got in exact_and_fast((forward, [x, w]), (backward, [x, w, dy])):
        assert np.abs(want - got).max() <= 1e-3 * max(np.abs(want).max(), 1)


@pytest.mark.parametrize(
    "size, window, stride", [((5, 150), 7, 2), ((70, 2), 3, 1), ((9, 131), 1, 3), ((4, 40), 11, 1)]
)
def test_images_of_few_channels(size: tuple[int, int], window: int, stride: int) -> None:
    """Tiles of such images are made from strips in shared memory: rows wider than a tile, narrow ones, more taps than pixels."""
    attrs = {"strides": [stride] * 2, "dilations": [1, 1], "groups": 1, "padding": "same", "pads": [0, 0, 0, 0]}
    x = hashed(1, 3 * size[0] * size[1] * 3).astype("float32").reshape(3, *size, 3)
    w = hashed(2, window * window * 3 * 8).astype("float32").reshape(window, window, 3, 8)
    case = Case("conv2d", [], lambda x, w: x, attrs)
    dy = hashed(3, 3 * -(-size[0] // stride) * -(-size[1] // stride) * 8).astype("float32")
    dy = dy.reshape(3, -(-size[0] // stride), -(-size[1] // stride), 8)
    forward, backward = module(case, [x, w], 1), module(case, [x, w], 1, (1,))
    for want, got in exact_and_fast((forward, [x, w]), (backward, [x, w, dy])):
        assert np.abs(want - got).max() <= 1e-3 * max(np.abs(want).max(), 1)


@pytest.mark.parametrize("columns", [72, 69])
@pytest.mark.parametrize("k", [40, 2056])  # whole sums, and parts of them
def test_bias_and_relu_of_bfloat16_round_as_alone(columns: int, k: int) -> None:
    a, b = hashed(1, 16 * k).astype("float32").reshape(16, k), hashed(2, columns * k).astype("float32")
    b, bias = b.reshape(columns, k), hashed(3, columns).astype("float32")

    attrs = {"transpose_a": False, "transpose_b": True}
    y = run_bf16(bf16_text("matmul", [a, b], attrs, "bfloat16"), [a, b])
    text = bf16_text("matmul", [a, b], attrs, "bfloat16", (("add", bias.shape), ("relu", None)))
    assert "epilogue" in _core.Function(text, [], [], "main", False).text([x.shape for x in (a, b, bias)])
    want = np.maximum(to_bf16(y + to_bf16(bias)), 0)
    assert np.array_equal(run_bf16(text, [a, b, bias]), want)


@pytest.mark.parametrize(
    "window, stride, dilation, groups",
    [(1, 1, 1, 1), (1, 2, 1, 1), (3, 1, 1, 1), (3, 2, 1, 1), (2, 3, 1, 1), (3, 2, 2, 1), (3, 1, 1, 2)],
)
@pytest.mark.parametrize("channels", [(48, 80), (16, 48), (48, 16)])
def test_bf16_convolutions(channels: tuple[int, int], window: int, stride: int, dilation: int, groups: int) -> None:
    """Forward and both gradients, results rounded or not, against float32 products of the rounded operands."""
    c, f = channels
    out = (2, -(-9 // stride), -(-7 // stride), f)
    attrs = {
        "strides": [stride] * 2, "dilations": [dilation] * 2, "groups": groups, "padding": "same", "pads": [0, 0, 0, 0]
    }  # fmt: skip
    values = [hashed(i, int(np.prod(shape))).astype("float32").reshape(shape) for i, shape in
              enumerate([(2, 9, 7, c), (window, window, c // groups, f), out])]  # fmt: skip
    x, w, dy = (to_bf16(v).astype("float32") for v in values)
    for op, operands, more in (
        ("conv2d", [x, w], {}),
        ("conv2d_input_grad", [dy, w], {"input_size": [9, 7]}),
        ("conv2d_filter_grad", [x, dy], {"kernel_size": [window, window]}),
    ):
        case = Case(op, [], lambda x, y: x, attrs | more)
        [want] = _core.Function(module(case, operands, 1), [], [], "main", True)(operands)
        for result in ("float32", "bfloat16"):
            text = bf16_text(op, operands, case.attrs, result)
            assert f"{op}_bf16" in _core.Function(text, [], [], "main", False).text([a.shape for a in operands])
            got, scale = run_bf16(text, operands), max(np.abs(want).max(), 1)
            assert np.abs(got - want).max() <= (256 * EPS + (2**-8 if result == "bfloat16" else 0)) * scale
            if result == "bfloat16":
                assert np.array_equal(got, to_bf16(got)), "the result is no bfloat16"


def test_bf16_convolutions_of_odd_channels_stay_with_float32() -> None:
    attrs = {"strides": [1, 1], "dilations": [1, 1], "groups": 1, "padding": "same", "pads": [0, 0, 0, 0]}
    x, w = np.ones((1, 4, 4, 3), "float32"), np.ones((3, 3, 3, 8), "float32")
    text = bf16_text("conv2d", [x, w], attrs, "float32")
    assert "conv2d_bf16" not in _core.Function(text, [], [], "main", False).text([x.shape, w.shape])
    assert run_bf16(text, [x, w]).max() == 27


def test_a_mixed_model_trains_on_tensor_cores_as_on_the_cpu() -> None:
    """Three steps; forward products and both gradients of each read bfloat16, but of lines that are not whole."""
    losses = {}
    for device in ("cpu", "cuda:0"):
        _core.set_device(device)
        keras.config.set_exact(False)
        keras.clear_session()
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
        try:
            x = inputs = keras.Input((8, 8, 3))
            x = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(x)
            x = keras.layers.Conv2D(24, 3, strides=2, padding="same", use_bias=False)(x)
            x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
            x = keras.layers.Dense(32, activation="relu")(keras.layers.Flatten()(x))
            x = keras.layers.Dense(8)(x)
            model = keras.Model(inputs, keras.layers.Activation("linear", dtype="float32")(x))
        finally:
            keras.mixed_precision.set_global_policy("float32")
        for i, w in enumerate(model.trainable_weights):
            u = hashed(100 + i, int(np.prod(w.shape))).reshape(w.shape).astype("float32")
            w.assign(1 + 0.2 * u if "gamma" in w.name else 0.1 * u)
        x = hashed(1, 4 * 8 * 8 * 3).astype("float32").reshape(4, 8, 8, 3)
        y = hashed(2, 4 * 8).astype("float32").reshape(4, 8)
        model.compile(keras.optimizers.SGD(0.05), "mse", device=device)
        step = model._step("train").prepare((x, y, None))
        text = step._traced._core.text([a.shape for a in step._arrays])
        found = {
            n: text.count(f" = {n}_bf16(") for n in ("matmul", "conv2d", "conv2d_input_grad", "conv2d_filter_grad")
        }
        if device == "cuda:0":  # of the first convolution nothing: an image of 3 channels
            assert found == {"matmul": 6, "conv2d": 1, "conv2d_input_grad": 1, "conv2d_filter_grad": 1}, found
            assert re.search(r'matmul_bf16\(.*epilogue: \["add 0 1", "relu 2"\]', text)
        else:
            assert not any(found.values())
        losses[device] = [model.train_on_batch(x, y) for _ in range(3)]
        losses[device + "/predict"] = model.predict_on_batch(x)
    cpu, cuda = np.array(losses["cpu"]), np.array(losses["cuda:0"])
    assert cpu[2] < cpu[0]
    assert np.abs(cpu - cuda).max() <= 2**-8 * np.abs(cpu).max(), (cpu, cuda)
    p, q = losses["cpu/predict"], losses["cuda:0/predict"]
    assert np.abs(p - q).max() <= 2**-6 * np.abs(p).max()


def test_parts_of_a_value_begin_where_sixteen_bytes_can_be_read_at_once() -> None:
    """At batch 1 any part of a concat is a block: one of 4 bfloat16 would have the next begin at 8 bytes, which tensor cores read."""
    losses = {}
    for device in ("cpu", "cuda:0"):
        _core.set_device(device)
        keras.config.set_exact(False)
        keras.clear_session()
        keras.utils.set_random_seed(1)
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
        try:
            x = keras.Input((16,))
            a, b = keras.layers.Dense(4, activation="tanh")(x), keras.layers.Dense(24, activation="tanh")(x)
            both = keras.layers.Concatenate()([a, b])
            model = keras.Model(x, [keras.layers.Dense(8)(v) for v in (both, b)])
        finally:
            keras.mixed_precision.set_global_policy("float32")
        model.compile(keras.optimizers.SGD(0.05), "mse", device=device)
        x, y = hashed(1, 16).astype("float32").reshape(1, 16), np.ones((1, 8), "float32")
        step = model._step("train").prepare((x, [y, y], None))
        assert ("matmul_bf16(" in step._traced._core.text([a.shape for a in step._arrays])) == (device != "cpu")
        losses[device] = [model.train_on_batch(x, [y, y]) for _ in range(3)]
    cpu, cuda = np.array(losses["cpu"]), np.array(losses["cuda:0"])
    assert np.abs(cpu - cuda).max() <= 2**-6 * np.abs(cpu).max(), (cpu, cuda)


def scanned(kind: str, device: str, x: np.ndarray) -> tuple[str, list[np.ndarray]]:
    """The program's text, and results with gradients or weights trained by them."""
    ops = keras.ops
    if kind == "scan":

        def step(carry: Any, v: Any) -> Any:
            return ops.tanh(carry * v[0] + v[1]), carry + v[0]

        @keras.function(device=device)
        def loss_and_gradients(x: Any, c: Any) -> Any:
            last, ys = ops.scan(step, c, (x, ops.flip(x, 0)))
            loss = ops.sum(last * last) + ops.sum(ys)
            return [loss, *ops.gradients(loss, [x, c])]

        c = x[0] + 1
        results = [np.asarray(v) for v in loss_and_gradients(x, c)]
        [program] = loss_and_gradients._programs.values()
        return program.text([x.shape, c.shape]), results
    keras.clear_session()
    keras.utils.set_random_seed(3)
    inputs = keras.Input((5, 3))
    masked = keras.layers.Masking()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(getattr(keras.layers, kind)(6, return_sequences=False)(masked)))
    model.compile(keras.optimizers.SGD(0.1), "mse", device=device)
    y = np.ones((len(x), 2), "float32")
    step = model._step("train").prepare((x, y, None))
    text = step._traced._core.text([a.shape for a in step._arrays])
    losses = [model.train_on_batch(x, y) for _ in range(3)]
    return text, [np.asarray(losses), model.predict_on_batch(x), *(v.numpy() for v in model.weights)]


@pytest.mark.parametrize("kind", ["scan", "GRU", "SimpleRNN"])
def test_scan_goes_forward_and_backward(kind: str) -> None:
    """Loops of a body planned once: in each order of threads the same bits, and as on the CPU."""
    x = hashed(5, 7 * 5 * 3).astype("float32").reshape(7, 5, 3)
    x[2, 3:] = x[4, :2] = 0  # masked
    runs = []
    for order in SEEDS_OF_ORDER:
        os.environ["DAGRT_EMULATOR_SEED"] = order
        text, got = scanned(kind, "cuda:0", x)
        assert text.count("scan(") >= 2, text  # forward and backward
        runs.append(got)
    for other in runs[1:]:
        assert [a.tobytes() for a in other] == [a.tobytes() for a in runs[0]]
    for got, want in zip(runs[0], scanned(kind, "cpu", x)[1], strict=True):
        assert np.abs(got - want).max() <= 1e-5 * max(1, np.abs(want).max())


def small(shape: tuple[int, ...]) -> tuple[int, ...]:
    return {(100,): (8,), (500,): (8,), (224, 224, 3): (32, 32, 3)}.get(shape, shape)


@pytest.mark.parametrize("name", [pytest.param(n, marks=SLOW) for n in SEEDS])
def test_seed_models_train_as_on_the_cpu(name: str) -> None:
    """Three steps of Adam, images cut to 32 x 32 and sequences to 8."""
    seed, losses = SEEDS[name], {}
    for device in ("cpu", "cuda:0"):
        _core.set_device(device)
        keras.clear_session()
        cut = SimpleNamespace(
            Input=lambda shape, **k: keras.Input(small(tuple(shape)), **k), layers=keras.layers, Model=keras.Model
        )
        model = seed.build(cut)
        for i, w in enumerate(model.weights):
            u = hashed(1000 + i, int(np.prod(w.shape))).reshape(w.shape)
            w.assign((1 + 0.2 * u if "gamma" in w.name or "variance" in w.name else 0.1 * u).astype("float32"))
        xs, ys = [], []
        for i, inp in enumerate(seed.inputs):
            shape = (2, *small(inp.shape))
            u = hashed(10 + i, int(np.prod(shape))).reshape(shape)
            xs.append(np.floor((u + 1) / 2 * inp.ids).astype("int32") if inp.ids else u.astype("float32"))
        for p in model.outputs:
            u = (hashed(50, 2 * int(np.prod(p.shape[1:]))).reshape(2, *p.shape[1:]) + 1) / 2
            ys.append((u / u.sum(-1, keepdims=True)).astype("float32") if p.shape[-1] > 1 else u.astype("float32"))
        model.compile(keras.optimizers.Adam(1e-3), seed.losses if len(seed.losses) > 1 else seed.losses[0])
        losses[device] = []
        for _ in range(3):
            model.reset_metrics()
            logs = model.train_on_batch(xs if len(xs) > 1 else xs[0], ys if len(ys) > 1 else ys[0], return_dict=True)
            losses[device].append(logs["loss"])
        predicted = model.predict_on_batch(xs if len(xs) > 1 else xs[0])
        losses[device + "/predict"] = predicted if isinstance(predicted, list) else [predicted]
    cpu, cuda = np.array(losses["cpu"]), np.array(losses["cuda:0"])
    assert np.abs(cpu - cuda).max() <= 2e-4 * np.abs(cpu).max(), (cpu, cuda)
    for p, q in zip(losses["cpu/predict"], losses["cuda:0/predict"]):
        assert np.abs(p - q).max() <= 2e-3 * np.abs(p).max()


@pytest.mark.parametrize("name", [pytest.param(n, marks=SLOW) for n in ("siamese", "detector", "inception")])
def test_branches_run_in_any_order(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every launch of a graph takes another order of its branches, and all give the same bits."""
    seed, runs = SEEDS[name], []
    keras.set_device("cuda")
    for order in SEEDS_OF_ORDER:
        monkeypatch.setenv("DAGRT_EMULATOR_SEED", order)
        keras.clear_session()
        keras.utils.set_random_seed(1)
        cut = SimpleNamespace(
            Input=lambda shape, **k: keras.Input(small(tuple(shape)), **k), layers=keras.layers, Model=keras.Model
        )
        model = seed.build(cut)
        xs = []
        for i, inp in enumerate(seed.inputs):
            u = hashed(10 + i, int(np.prod(small(inp.shape)))).reshape(1, *small(inp.shape))
            xs.append(np.floor((u + 1) / 2 * inp.ids).astype("int32") if inp.ids else u.astype("float32"))
        x = xs if len(xs) > 1 else xs[0]
        ys = [np.full((1, *p.shape[1:]), 0.5, "float32") for p in model.outputs]
        model.compile(keras.optimizers.SGD(1e-3), "mse", device="cuda")
        step = model._step("train").prepare((x, ys if len(ys) > 1 else ys[0], None))
        assert " lane 1" in step._traced.text([a.shape for a in step._arrays])
        losses = [model.train_on_batch(x, ys if len(ys) > 1 else ys[0]) for _ in range(2)]
        predicted = model.predict_on_batch(x)
        runs.append([*losses, *(predicted if isinstance(predicted, list) else [predicted])])
    for other in runs[1:]:
        for a, b in zip(runs[0], other):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_rows_are_read_by_none_but_their_own_warps() -> None:
    """Softmax in place, with fewer rows than warps: one without a row must not read another's while that is written."""
    f = keras.function(lambda x: keras.ops.softmax(keras.ops.tanh(x)), device="cuda")
    x = hashed(1, 3 * 10).astype("float32").reshape(3, 10)
    want = np.exp(np.tanh(x))
    np.testing.assert_allclose(f(x), want / want.sum(-1, keepdims=True), rtol=1e-5)


def test_a_fault_changes_no_variable() -> None:
    """A bad label is found on the device; weights and the optimiser's slots stay as they were."""
    model = keras.Sequential([keras.layers.Dense(4, input_shape=(3,))])
    model.compile(keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = hashed(3, 6).reshape(2, 3).astype("float32")
    model.train_on_batch(x, np.array([0, 3]))
    held = [v.numpy() for v in model.variables + list(model.optimizer.variables)]
    with pytest.raises(keras.DataError, match="got 9 at position 1"):
        model.train_on_batch(x, np.array([0, 9]))
    for v, h in zip(model.variables + list(model.optimizer.variables), held):
        assert np.array_equal(v.numpy(), h)
    model.train_on_batch(x, np.array([0, 3]))
    assert any(not np.array_equal(v.numpy(), h) for v, h in zip(model.variables, held))


@pytest.mark.skipif(os.environ.get("DAGRT_EMULATED") != "asan", reason="needs the emulator with AddressSanitizer")
def test_an_index_past_an_operand_is_reported() -> None:
    """The operand ends a byte early, and other values of the arena lie behind it (test_cuda_faults.py has all ops)."""
    code = """
import dagrt as keras, numpy as np
a, b = np.ones((12, 20), "float32"), np.ones((20, 8), "float32")
f = keras.function(lambda a, b: keras.ops.matmul(keras.ops.tanh(a), b), device="cuda")
print(f(a, b).shape)
"""
    runs = []
    for fault in ("", "beyond 1"):
        environment = os.environ | {"DAGRT_EMULATOR_FAULT": fault}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
        )
        runs.append(done.stdout + done.stderr)
    assert runs[0].strip() == "(12, 8)"
    assert re.search(r"AddressSanitizer: (use-after-poison|unknown-crash).*\n(.*\n){1,4}.*pointwise", runs[1]), runs[1]


def test_more_pixels_than_can_be_counted_are_refused_before_they_run() -> None:
    attrs = {"strides": [1, 1], "dilations": [1, 1], "groups": 1, "padding": "same", "pads": [0, 0, 0, 0]}
    case = Case("conv2d", [], lambda x, w: x, attrs)
    w = np.zeros((3, 3, 1, 4), "float32")
    for batch in (31, 33):
        x = np.broadcast_to(np.float32(0), (batch, 8192, 8192, 1))
        conv = _core.Function(module(case, [x, w], 1), [], [], "main", False)
        if batch == 31:
            assert "conv2d" in conv.text([x.shape, w.shape])
            continue
        error = r"conv2d.*: a CUDA device convolves at most 2147483647 pixels at once, got 2214"
        with pytest.raises(_core.ShapeError, match=error):
            conv.text([x.shape, w.shape])
    x, kernel, recurrent = (
        np.broadcast_to(np.float32(0), (1 << 16, 1 << 15, 1)),
        np.zeros((1, 4), "float32"),
        np.zeros((1, 4), "float32"),
    )
    case = Case("lstm", [], lambda x: x, {"go_backwards": False, "zero_output_for_mask": False})
    lstm = _core.Function(module(case, [x, kernel, recurrent], 1), [], [])
    with pytest.raises(
        _core.ShapeError, match=r"lstm.*: a CUDA device takes at most 2147483647 steps of all sequences, got 2147483648"
    ):
        lstm.text([x.shape, kernel.shape, recurrent.shape])


def test_an_unknown_device_is_named() -> None:
    with pytest.raises(_core.DeviceError, match="device 'cuda:9' is not available; there is cpu, cuda:0"):
        _core.set_device("cuda:9")
