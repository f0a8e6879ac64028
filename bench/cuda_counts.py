"""What CUDA kernels ask of memory, counted in the emulator on the seed models' full shapes, and what a roofline would allow.

    cmake -G Ninja -S . -B build/emulated -DDAGRT_EMULATED=ON -DDAGRT_TESTS=ON -DDAGRT_ISAS= && cmake --build build/emulated
    DAGRT_EMULATOR_MULTIPROCESSORS=132 PYTHONPATH=build/emulated/emulated/races python bench/cuda_counts.py --out bench/results/cuda

Every node of the compiled programs (inference and training step) that moves enough bytes becomes a program of its own, with its
attributes and shapes; of each launch some 32 blocks run (of products 128), edges and corners among them, and their counts are scaled. Cooperative
launches and updates of many variables run whole; long LSTMs are counted at 16 and 32 steps and continued in a straight line, for
every step asks for the same. Nodes are counted once for all models, in as many processes as there are processors.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import dagrt as keras
import numpy as np
from dagrt import _core

sys.path.insert(0, str(Path(__file__).resolve().parent))
from cuda_products import BYTES, BYTES_PER_S, MOST_OF_FED, MOST_OF_TILE, beside_tiles, fed
from models import MODELS, Row, batch_of, build

# H100 SXM5. float32: NVIDIA's data sheet. TF32: its 494.7e12 (dense) are wgmma's; mma.sync reaches 62.9 % of that
# (Luo et al. 2024, Benchmarking and Dissecting the NVIDIA Hopper GPU Architecture via Microbenchmarking).
FLOPS_PER_S, TF32_FLOPS_PER_S = 66.9e12, 0.629 * 494.7e12

MOST_BYTES, LEAST_SECTORS, MOST_WAVEFRONTS = 1.3, 0.9, 1.1  # what is wanted of kernels bound by memory
POINTWISE = {row["name"] for row in _core.op_table() if row["pointwise"]} | {"pointwise"}
STREAMING = POINTWISE | {
    f"{name}{grad}"
    for name in ("batch_norm", "max_pool2d", "avg_pool2d", "softmax", "softmax_cross_entropy")
    for grad in ("", "_grad")
}
STREAMING |= {f"reduce_{kind}" for kind in ("sum", "max", "min", "prod")} | {"argmax", "argmin", "cumsum", "one_hot"}
STREAMING |= {"broadcast_to", "transpose", "slice", "pad", "concat", "gather", "scatter_add", "adam_update_all"}
BATCHES = {"mlp": 32, "ticket": 4, "siamese": 4, "detector": 2, "resnet": 2, "inception": 2, "autoencoder": 8}


def stored_as(dtype: str) -> np.dtype:
    """NumPy's type of that size; bfloat16 as uint16, which the extension takes for it."""
    return np.dtype("uint16" if dtype == "bfloat16" else dtype)


class Node(NamedTuple):
    op: str
    attrs: str  # JSON
    inputs: tuple[tuple[str, tuple[int, ...]] | None, ...]
    outputs: tuple[tuple[str, tuple[int, ...]] | None, ...]

    @property
    def bytes(self) -> int:
        """Input plus output, each once."""
        return sum(math.prod(t[1]) * stored_as(t[0]).itemsize for t in (*self.inputs, *self.outputs) if t)

    @property
    def flops(self) -> float:
        """Of products; the others' are nothing beside their bytes."""
        first, second, out = self.inputs[0], self.inputs[1] if len(self.inputs) > 1 else None, self.outputs[0]
        op = self.op.removesuffix("_bf16")
        if op == "lstm":
            return self.of_states + 2.0 * math.prod(first[1][:2]) * math.prod(second[1])
        if op == "lstm_grad":  # of x and of both weights
            weights = [math.prod(second[1]), math.prod(second[1]), math.prod(self.inputs[2][1])]
            wanted = [n for n, t in zip(weights, self.outputs, strict=False) if t]
            return self.of_states + 2.0 * math.prod(first[1][:2]) * sum(wanted)
        if not (first and second and out):
            return 0.0
        if op == "matmul":
            attrs = json.loads(self.attrs)
            return 2.0 * math.prod(out[1]) * first[1][-2 if attrs["transpose_a"] else -1]
        if op == "conv2d_filter_grad":
            return 2.0 * math.prod(second[1]) * math.prod(out[1][:-1])
        if op in ("conv2d", "conv2d_input_grad"):
            pixels = out[1] if op == "conv2d" else first[1]
            return 2.0 * math.prod(pixels) * math.prod(second[1][:-1])
        return 0.0

    @property
    def of_states(self) -> float:
        """Of an LSTM those between states, at every step, forward or back."""
        return 2.0 * math.prod(self.inputs[0][1][:2]) * math.prod(self.inputs[2][1])

    @property
    def full_flops(self) -> float:
        """Those that are never TF32's: of depthwise convolutions and between an LSTM's states."""
        if self.op in ("lstm", "lstm_grad"):
            return self.of_states
        return self.flops if json.loads(self.attrs).get("groups", 1) > 1 else 0.0

    @property
    def shapes(self) -> str:
        def text(types: Any) -> str:
            shown = ["x".join(map(str, t[1])) or "1" for t in types if t]
            return " ".join(shown) if len(shown) < 8 else f"{len(shown)} arrays"

        return f"{text(self.inputs)} -> {text(self.outputs)}"


TYPE = re.compile(r"(\w+)\(([\d, ]*)\)|_")
LINE = re.compile(
    r"^  (?P<out>[%_\d, ]+) = (?P<op>\w+)(?:\((?P<in>[%_\d, ]*)\))?(?: (?P<attrs>{.*}))? : (?P<types>.*?)(?:  #.*)?$"
)


def types_of(text: str) -> list[tuple[str, tuple[int, ...]] | None]:
    return [
        (m[1], tuple(int(n) for n in m[2].replace(",", " ").split())) if m[1] else None for m in TYPE.finditer(text)
    ]


def nodes_of(text: str) -> list[Node]:
    """The nodes of a program's text, the functions that scans run left out."""
    known: dict[str, Any] = {"_": None}
    head = re.match(r"main\((.*)\) {", text)
    for m in re.finditer(r"(%\d+) \S+: (\w+\([\d, ]*\))", head[1] if head else ""):
        known[m[1]] = types_of(m[2])[0]
    nodes = []
    for line in text.splitlines()[1:]:
        if line.startswith("}"):
            break
        m = LINE.match(line)
        if not m:
            continue
        names = [n.strip() for n in m["out"].split(",")]
        types = types_of(m["types"])
        known.update(zip(names, types, strict=False))
        inputs = tuple(known[n.strip()] for n in (m["in"] or "").split(",") if n.strip())
        attrs = re.sub(r"(?<=[{ ])(\w+): ", r'"\1": ', m["attrs"] or "{}")
        nodes.append(Node(m["op"], attrs, inputs, tuple(types)))
    return nodes


def program_text(row: Row, policy: str = "float32") -> str:
    keras.clear_session()
    keras.mixed_precision.set_global_policy(policy)
    model, seed = build(keras, row.model), MODELS[row.model]
    xs, ys = batch_of(row)
    x, y = xs if len(xs) > 1 else xs[0], ys if len(ys) > 1 else ys[0]
    model.compile(keras.optimizers.Adam(1e-3), seed.losses if len(seed.losses) > 1 else seed.losses[0])
    step = model._step(row.mode).prepare((x, y if row.mode == "train" else None, None))
    arrays = xs + (ys if row.mode == "train" else [])
    return step._traced._core.text([a.shape for a in arrays])


def run_alone(node: Node) -> list[dict[str, Any]]:
    """The launches of a program that is this node."""
    present = [t for t in node.inputs if t]
    inputs = [{"name": f"x{i}", "dtype": t[0], "shape": list(t[1])} for i, t in enumerate(present)]
    numbers = iter(range(len(present)))
    operands = [next(numbers) if t else -1 for t in node.inputs]
    results = [len(present) + i for i in range(len(node.outputs))]
    outputs = [r for r, t in zip(results, node.outputs, strict=True) if t]
    line = {
        "op": node.op,
        "in": operands,
        "out": results,
        "attrs": json.loads(node.attrs),
    }
    main = {
        "inputs": inputs,
        "nodes": [line],
        "outputs": outputs,
        "output_names": [""] * len(outputs),
        "stores": [],
        "guard": None,
    }
    module = {"format": "dagrt", "version": 1, "variables": [], "constants": [], "functions": {"main": main}}
    function = _core.Function(json.dumps(module), [], [], "main", False, "cuda:0")
    rng = np.random.default_rng(0)
    ids = {"gather": lambda: node.inputs[0][1][line["attrs"]["axis"]], "scatter_add": lambda: line["attrs"]["size"]}
    limit = ids.get(node.op, lambda: 1)()
    arrays = [
        (rng.random(t[1], "float32") if t[0].startswith("float") else rng.integers(0, limit, t[1])).astype(
            stored_as(t[0])
        )
        for t in present
    ]
    with tempfile.NamedTemporaryFile() as file:
        os.environ["DAGRT_EMULATOR_COUNTS"] = file.name
        function(arrays)
        del os.environ["DAGRT_EMULATOR_COUNTS"]
        return [json.loads(text) for text in Path(file.name).read_text().splitlines()]


def with_steps(node: Node, steps: int) -> Node:
    """An LSTM's node for so many steps: its x is [B, T, C], what it keeps for backward [T, B, ...], its mask [B, T]."""
    length = node.inputs[0][1][1]

    def cut(t: Any) -> Any:
        if not t or (len(t[1]) < 3 and t[0] != "bool") or length not in t[1][:2]:
            return t
        axis = 1 if t[1][1] == length else 0
        return t[0], (*t[1][:axis], steps, *t[1][axis + 1 :])

    return node._replace(inputs=tuple(map(cut, node.inputs)), outputs=tuple(map(cut, node.outputs)))


COUNTED = ("read", "written", "requests", "sectors", "least_sectors", "wavefronts", "least_wavefronts")


def launches_of(node: Node) -> list[dict[str, Any]]:
    steps = node.inputs[0][1][1] if node.op.startswith("lstm") else 0
    if steps <= 32:
        return run_alone(node)
    short, long = (run_alone(with_steps(node, n)) for n in (16, 32))
    a, b = ({key: sum(k[key] for k in of) for key in COUNTED} for of in (short, long))
    all_steps = {key: b[key] + (b[key] - a[key]) / 16 * (steps - 32) for key in COUNTED}
    return [{**all_steps, "kernel": ", ".join(dict.fromkeys(k["kernel"] for k in long))}]


def count(node: Node) -> dict[str, Any]:
    """A node's row. Updates of many variables run whole: their blocks differ too much for a sample to be scaled. Of products four
    times as many run: their grids are lists of tiles, in which those at the edges of C stand anywhere."""
    sample = os.environ.pop("DAGRT_EMULATOR_BLOCKS", None)
    if sample and not node.op.endswith("_all"):
        os.environ["DAGRT_EMULATOR_BLOCKS"] = str(int(sample) * 4) if node.flops else sample
    launches = launches_of(node)
    if sample:
        os.environ["DAGRT_EMULATOR_BLOCKS"] = sample
    total = {key: sum(k[key] for k in launches) for key in COUNTED}
    wavefronts, least = total["wavefronts"], total["least_wavefronts"]
    rate = TF32_FLOPS_PER_S * 4 / BYTES.get(node.inputs[0][0], 4)
    multiply = node.full_flops / FLOPS_PER_S + (node.flops - node.full_flops) / rate
    asked = total["read"] + total["written"]
    return {
        "op": node.op,
        "shapes": node.shapes,
        "kernels": list(dict.fromkeys(k["kernel"] for k in launches)),
        "bytes": node.bytes,
        "bytes_asked": asked,
        "bytes_ratio": asked / node.bytes,
        "sectors_per_request": total["sectors"] / max(1, total["requests"]),
        "sector_efficiency": total["least_sectors"] / max(1, total["sectors"]),
        "wavefront_ratio": wavefronts / least if least else 1.0,
        "flops": node.flops,
        "flops_per_byte": node.flops / max(1, asked),
        "roofline_us": max(node.bytes / BYTES_PER_S, multiply) * 1e6,
        **beside_tiles(node, launches, asked),
    }


def hot_nodes(name: str, least_bytes: int, policy: str) -> dict[Node, list[str]]:
    """Distinct nodes of a model's inference and training step that move so many bytes, and where each occurs."""
    found: dict[Node, list[str]] = {}
    for mode in ("predict", "train"):
        for node in nodes_of(program_text(Row(name, mode, BATCHES[name]), policy)):
            if node.bytes >= least_bytes and node.op not in ("read", "full", "iota", "reshape"):
                found.setdefault(node, []).append(mode)
    return found


def misses(row: dict[str, Any]) -> list[str]:
    """Which targets a row does not keep; those for bytes are for what reads each input once."""
    out = []
    streams = row["op"] in STREAMING or any("depthwise" in k for k in row["kernels"])
    if streams and row["bytes_ratio"] > MOST_BYTES:
        out.append(f"{row['bytes_ratio']:.2f} x bytes")
    if row["sector_efficiency"] < LEAST_SECTORS:
        out.append(f"{row['sector_efficiency']:.0%} of sectors")
    if row["wavefront_ratio"] > MOST_WAVEFRONTS:
        out.append(f"{row['wavefront_ratio']:.2f} x wavefronts")
    if row.get("tile_ratio", 0) > MOST_OF_TILE:
        out.append(f"{row['tile_ratio']:.2f} x its tile's bytes")
    if row.get("tile_waits") and row["model_us"] > MOST_OF_FED * row.get("fed_us", math.inf):
        out.append(f"{row['model_us'] / row['fed_us']:.2f} x a larger tile's time")
    return out


def table(name: str, rows: list[dict[str, Any]]) -> str:
    head = ["op", "shapes", "MB in + out", "asked ÷ that", "sectors a request", "sector efficiency"]
    head += ["wavefronts ÷ least", "tile", "asked ÷ its tile's", "flops/byte asked (tile's)"]
    larger = " or ".join(f"{m}x{n}" for m, n in fed(4))
    head += [f"by model, µs (with {larger})", "roofline, µs", "misses"]
    lines = [f"\n## {name}, batch {BATCHES[name]}\n", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for r in rows:
        cells = [r["op"], r["shapes"], f"{r['bytes'] / 1e6:.2f}", f"{r['bytes_ratio']:.2f}"]
        cells += [f"{r['sectors_per_request']:.2f}", f"{r['sector_efficiency']:.0%}", f"{r['wavefront_ratio']:.2f}"]
        cells += [r["tile"], f"{r['tile_ratio']:.2f}"] if "tile" in r else ["", ""]
        of = f" ({r['tile_flops']:.1f})" if "tile" in r else ""
        model = f"{r['model_us']:.2f}" if "tile" in r else ""
        model += f" ({r['fed_us']:.2f})" if r.get("tile_waits") and "fed_us" in r else ""
        cells += [
            f"{r['flops_per_byte']:.1f}{of}" if r["flops"] else "",
            model,
            f"{r['roofline_us']:.2f}",
            ", ".join(misses(r)),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def document(results: dict[str, list[dict[str, Any]]]) -> str:
    return "# What CUDA kernels ask of memory\n" + "".join(table(name, of) for name, of in results.items())


def prepare(blocks: str) -> None:
    """Of a process that counts."""
    os.environ.setdefault("DAGRT_EMULATOR_BLOCKS", blocks)
    _core.set_device("cuda:0")


def cost(node: Node) -> float:
    """Roughly how long counting takes: steps of an LSTM go through its recurrent weights, most else is sampled."""
    if node.op.startswith("lstm"):
        return 48.0 * math.prod(node.inputs[2][1])
    return node.bytes if node.op.endswith("_all") else 0.01 * node.bytes


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--models", default=",".join(BATCHES))
    options.add_argument("--ops", default=".", help="a regular expression of ops")
    options.add_argument("--least-bytes", type=int, default=1 << 18, help="input plus output of what is shown")
    options.add_argument("--policy", default="float32", help="of the models' dtypes: mixed_bfloat16")
    options.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes")
    options.add_argument(
        "--out", default="", help="path without its suffix, for .md and .json; by default printed only"
    )
    args = options.parse_args()
    names = args.models.split(",")
    with ProcessPoolExecutor(args.jobs, get_context("spawn"), prepare, ("32",)) as pool:
        of_model = [
            [n for n in nodes if re.search(args.ops, n.op)]
            for nodes in pool.map(hot_nodes, names, [args.least_bytes] * len(names), [args.policy] * len(names))
        ]
        distinct = sorted({n for nodes in of_model for n in nodes}, key=cost, reverse=True)
        rows = dict(zip(distinct, pool.map(count, distinct), strict=True))
    results = {name: [rows[n] for n in nodes] for name, nodes in zip(names, of_model, strict=True)}
    text = document(results)
    print(text)
    if args.out:
        Path(args.out + ".md").write_text(text)
        Path(args.out + ".json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
