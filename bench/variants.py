"""dagrt against itself under other settings, on whole models: what forced instruction sets cost, the pool against OpenMP
and one thread, and what is left on a machine one core of which another process keeps busy.

    python bench/variants.py [--rows resnet,mlp] [--threads 2] [--minutes 10] [--out bench/results/variants]

Each setting is a process of its own; they take turns in rounds as peers do (peers.py). Times are of predict_on_batch and
train_on_batch in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import models
from peers import Peer, cpu_name

TABLES = {
    "threads": ["one thread", "pool", "openmp"],
    "busy": ["one thread", "pool", "pool, busy core", "openmp, busy core"],
    "isa": ["pool", "avx2", "scalar"],
}
SETTINGS: dict[str, dict[str, str]] = {
    "one thread": {"DAGRT_THREADS": "pool"},
    "pool": {"DAGRT_THREADS": "pool"},
    "openmp": {"DAGRT_THREADS": "openmp"},
    "pool, busy core": {"DAGRT_THREADS": "pool"},
    "openmp, busy core": {"DAGRT_THREADS": "openmp"},
    "avx2": {"DAGRT_CPU_ISA": "avx2"},
    "scalar": {"DAGRT_CPU_ISA": "scalar"},
}


class Burner:
    """A process that keeps a core busy while it is not stopped."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        self.process.send_signal(signal.SIGSTOP)

    def __enter__(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def __exit__(self, *_: Any) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def measure(index: int, sides: dict[str, Peer], burner: Burner, rounds: int, seconds: float) -> dict[str, Any]:
    """For each setting: minimum, median and 95th percentile over the rounds, in milliseconds."""
    times: dict[str, list[list[float]]] = {}
    for name, side in sides.items():
        answer = side.ask({"row": index})
        if "error" in answer:
            print(f"  {models.ROWS[index].label}: {name}: {answer['error']}")
        else:
            times[name] = []
    names = list(times)
    for k in range(rounds):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            if "busy" in name:
                with burner:
                    answer = sides[name].ask({"seconds": seconds})
            else:
                answer = sides[name].ask({"seconds": seconds})
            times[name].append(answer["times"])
    for name in names:
        sides[name].ask({"end": True})
    found = {}
    for name, rows in times.items():
        least, middle, slow = zip(*rows)
        found[name] = [min(least), sorted(middle)[len(middle) // 2], sorted(slow)[len(slow) // 2]]
    return {"row": models.ROWS[index].label, "times": found}


def table(kind: str, results: list[dict[str, Any]]) -> str:
    """Rows of one of the tables; empty where its settings were not measured."""
    names = [n for n in TABLES[kind] if any(n in r["times"] for r in results)]
    if kind == "isa":
        head = ["row", "chosen", *names[1:], *(f"{n} ÷ chosen" for n in names[1:])]
    elif kind == "threads":
        head = ["row", *names, "one thread ÷ pool", "openmp ÷ pool"]
    else:
        head = ["row", *names, "busy pool ÷ one thread (medians)"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for r in results:
        t = r["times"]
        cells = [r["row"]]
        for n in names:
            shown = t.get(n)
            text = f"{shown[0]:.3g} / {shown[1]:.3g}" if shown else ""
            cells.append(text + (f" / {shown[2]:.3g}" if shown and kind == "busy" else ""))

        def ratio(a: str, b: str, at: int, t: dict[str, list[float]] = t) -> str:
            return f"{t[a][at] / t[b][at]:.2f}" if a in t and b in t else ""

        if kind == "isa":
            cells += [ratio(n, "pool", 0) for n in names[1:]]
        elif kind == "threads":
            cells += [ratio("one thread", "pool", 0), ratio("openmp", "pool", 0)]
        else:
            cells.append(ratio("pool, busy core", "one thread", 1))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


TITLES = {
    "threads": "One thread, the pool, OpenMP: minimum / median",
    "busy": "Beside a process that keeps one core busy: minimum / median / 95th percentile",
    "isa": "Forced instruction sets: minimum / median",
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--tables", default=",".join(TABLES))
    options.add_argument("--rows", default="", help="models, by default the seed page's; a row's label picks that one")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--minutes", type=float, default=10, help="about; slow models under slow settings take longer")
    options.add_argument("--out", default="", help="a path without suffix: writes .md and .json")
    args = options.parse_args()
    kinds = [k for k in args.tables.split(",") if k]
    picked = [w for w in args.rows.split(";" if ";" in args.rows else ",") if w]
    wanted = list(dict.fromkeys(n for k in kinds for n in TABLES[k]))
    rows = [
        i for i, row in enumerate(models.ROWS) if (row.model in picked or row.label in picked if picked else row.floor)
    ]
    seconds = args.minutes * 60 / (len(rows) * len(wanted) * (args.rounds + 1))  # one more for building and first calls
    sides = {n: Peer("dagrt", 1 if n == "one thread" else args.threads, SETTINGS[n]) for n in wanted}
    burner = Burner()
    results = []
    try:
        for i in rows:
            results.append(measure(i, sides, burner, args.rounds, seconds))
            cells = (f"{n} {t[0]:.3g} / {t[1]:.3g} / {t[2]:.3g}" for n, t in results[-1]["times"].items())
            print(f"{results[-1]['row']}: " + "; ".join(cells), flush=True)
    finally:
        burner.end()
        for side in sides.values():
            side.end()
    text = f"{cpu_name()}, {args.threads} threads; milliseconds.\n"
    for kind in kinds:
        text += f"\n{TITLES[kind]}.\n\n{table(kind, results)}"
    print(text)
    if args.out:
        out = Path(args.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.with_suffix(".md").write_text(text)
        out.with_suffix(".json").write_text(json.dumps({"cpu": cpu_name(), "rows": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
