"""Every kernel family against reference frameworks and the machine's limits: runs the programs of bench/cpp and writes one
Markdown table a family.

    cmake -S . -B build/bench -DDAGRT_BENCH=ON -DDAGRT_PYTHON=OFF && cmake --build build/bench
    python bench/kernels.py [--families conv2d,lstm] [--filter REGEX] [--threads 1] [--minutes 10] [--out bench/results/kernels]

A row's time is what one call in a hundred stays below, of all rounds, in which the sides take turns (bench/cpp/harness.h).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

FAMILIES = [
    "matmul",
    "conv2d",
    "depthwise",
    "lstm",
    "batch_norm",
    "pool2d",
    "softmax",
    "pointwise",
    "optimizer",
    "threads",
]
PEERS = ["torch", "onednn", "openblas"]


def count_rows(program: Path, pattern: str) -> int:
    listed = subprocess.run(
        [program, "--benchmark_list_tests=true", f"--benchmark_filter={pattern}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return len(listed.stdout.splitlines())


def run(program: Path, args: argparse.Namespace, turn_ms: float) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [str(program), f"--benchmark_out={file.name}", f"--benchmark_filter={args.filter}"]
        if not program.name.endswith("threads"):
            command += [f"--threads={args.threads}", f"--rounds={args.rounds}", f"--turn_ms={turn_ms:.3g}"]
            command += [f"--isa={args.isa}"] if args.isa else []
        # Large pages for all sides' arrays, as a program's arena has them.
        environment = os.environ | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        return json.loads(Path(file.name).read_text())


def name_of(row: dict[str, Any]) -> tuple[str, str]:
    group, _, name = re.sub(r"/(iterations:\d+|manual_time)", "", row["name"]).partition("/")
    return group, name


def micros(row: dict[str, Any], key: str) -> str:
    return f"{row[key + 'us']:.4g} / {row[key + 'median_us']:.4g}" if key + "us" in row else ""


def bound_us(row: dict[str, Any]) -> float:
    return row["share"] * row["us"]


def summary(rows: list[dict[str, Any]]) -> str:
    share = sum(map(bound_us, rows)) / sum(r["us"] for r in rows)
    least = min(rows, key=lambda r: r["share"])
    text = f"{share:.0%} of the limits, weighted by time; least {least['share']:.0%}"
    ratios = [r["ratio"] for r in rows if "ratio" in r]
    if ratios:
        mean = 1.0
        for r in ratios:
            mean *= r ** (1 / len(ratios))
        text += f"; best peer ÷ dagrt {mean:.2f} (geometric mean), least {min(ratios):.2f}"
    return text


def choices(rows: list[dict[str, Any]]) -> str:
    """Of each layer of which a share of the peak is asked: in each direction the fastest algorithm, in multiples of the peak.
    Where that stays below, the most that it could be: its own multiplications at the peak, or its bytes at memory's speed."""
    asked = {name_of(r)[1]: r["asked"] for r in rows if r.get("asked")}
    cells: dict[str, dict[str, str]] = {layer: {} for layer in asked}
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for r in rows:
        group, layer = name_of(r)
        key = layer, group.partition(" ")[2]
        if layer in asked and (key not in best or r["us"] < best[key]["us"]):
            best[key] = r
    for (layer, direction), r in best.items():
        cell = f"{r['of_peak']:.2f} {name_of(r)[0].partition(' ')[0]}"
        if r["of_peak"] < asked[layer]:
            multiply_us = r.get("multiply_flops", r["gflops"] * r["us"] * 1e3) / r["peak_gflops"] / 1e3
            bytes_us = r["us"] * r["gbs"] / r["memory_gbs"]
            cell += f", at most {r['of_peak'] * r['us'] / max(multiply_us, bytes_us):.2f}"
        cells[layer][direction] = cell
    directions = list(dict.fromkeys(d for c in cells.values() for d in c))
    text = "\n| 3x3 layer: times the peak by the fastest algorithm | asked | " + " | ".join(directions) + " |\n"
    text += "|---|---|" + "---|" * len(directions) + "\n"
    for layer, c in cells.items():
        text += f"| {layer} | {asked[layer]:.2f} | " + " | ".join(c.get(d, "") for d in directions) + " |\n"
    return text


def table(family: str, report: dict[str, Any]) -> str:
    context, rows = report["context"], [r for r in report["benchmarks"] if not r.get("error_occurred")]
    if family == "threads":
        lines = ["| work on two threads | by | least, µs | median | 95th percentile |", "|---|---|---|---|---|"]
        for r in rows:
            by, name = name_of(r)
            lines.append(f"| {name} | {by} | {r['least_us']:.1f} | {r['real_time']:.1f} | {r['p95_us']:.1f} |")
        return "\n".join(lines) + "\n"
    peers = [p for p in PEERS if any(p + "_us" in r for r in rows)]
    peak = max(r["peak_gflops"] for r in rows)
    text = f"{context['isa']}, {context['threads']} thread(s), peak {peak:.0f} GFLOP/s; peers: {context['peers']}. "
    text += "Times in µs: the fastest hundredth of calls / median.\n"
    for group in dict.fromkeys(name_of(r)[0] for r in rows):
        members = [r for r in rows if name_of(r)[0] == group]
        asked = any(r.get("asked") for r in members)
        head = [
            group,
            "dagrt",
            "GFLOP/s" if "gflops" in members[0] else "GB/s",
            "share of limit",
            *peers,
            "best peer ÷ dagrt",
        ]
        head += ["times the peak / asked"] if asked else []
        text += "\n| " + " | ".join(head) + " |\n|" + "---|" * len(head) + "\n"
        for r in members:
            rate = r["gflops"] if "gflops" in r else r["gbs"]
            limit = "memory" if r["memory_bound"] else "multiply-adds"
            cells = [name_of(r)[1], micros(r, ""), f"{rate:.1f}", f"{r['share']:.0%} ({limit})"]
            cells += [micros(r, p + "_") for p in peers]
            cells.append(
                (f"**{r['ratio']:.2f}**" if "ratio" in r else "")
                + (f" {r['label'].strip('; ')}" if r.get("label") else "")
            )
            cells += (
                [f"{r['of_peak']:.2f} / {r['asked']:.2f}" if r["asked"] else f"{r['of_peak']:.2f}"] if asked else []
            )
            text += "| " + " | ".join(cells) + " |\n"
        text += f"\n{summary(members)}\n"
    if any(r.get("asked") for r in rows):
        text += choices(rows)
    return text


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--build", default="build/bench", help="where the programs are")
    options.add_argument("--families", default=",".join(FAMILIES))
    options.add_argument("--filter", default=".", help="a regular expression of row names")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--isa", default="", help="what dagrt's kernels are chosen for: scalar, avx2, avx512")
    options.add_argument("--minutes", type=float, default=10, help="for all families together, about")
    options.add_argument("--out", default="", help="folder for one .md a family and kernels.json; by default printed")
    args = options.parse_args()
    families = [f for f in args.families.split(",") if f]
    programs = {f: Path(args.build) / f"bench_{f}" for f in families}
    rows = sum(count_rows(p, args.filter) for f, p in programs.items() if f != "threads")
    turns = max(1, rows) * args.rounds * 5  # dagrt, two peers, two limits
    turn_ms = min(max(args.minutes * 60e3 / turns - (25 if args.threads > 1 else 0), 1), 100)
    reports = {}
    for family, program in programs.items():
        if not count_rows(program, args.filter):
            continue
        reports[family] = run(program, args, turn_ms)
        text = f"# {family}\n\n{table(family, reports[family])}"
        print(text, flush=True)
        if args.out:
            out = Path(args.out)
            out.mkdir(parents=True, exist_ok=True)
            (out / f"{family}.md").write_text(text)
            (out / "kernels.json").write_text(json.dumps(reports, indent=1) + "\n")


if __name__ == "__main__":
    main()
