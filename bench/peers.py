"""dagrt against its peers on whole models: prediction at several batch sizes, and training steps.

    python bench/peers.py [--peers torch,onnxruntime] [--rows resnet,mlp] [--rounds 5] [--out bench/results]
    python bench/peers.py --device cuda     # dagrt and PyTorch on the GPU

Every peer lives in a process of its own and computes the same graph with the same weights and data; its outputs are
compared with dagrt's before it is timed. A row is measured in rounds: in each, every peer in turn runs alone (the others
are stopped by a signal, so that no thread of theirs spins meanwhile). The table gives each side's minimum and median, and
the ratio best peer / dagrt of the minima. Training is forward, loss, backward and Adam on one batch; each peer runs the
faster of its ways that its documentation names (bench/README.md).
Peers that are not installed are named and left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import models

PEERS = {
    "torch": "torch",
    "torch-compile": "torch",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "ncnn": "ncnn",
    "keras-jax": "jax",
    "keras-tf": "tensorflow",
}
HERE = Path(__file__).resolve().parent


class Peer:
    """A worker process, with more in its environment; stopped except while it is asked something."""

    def __init__(self, name: str, threads: int, environment: dict[str, str] | None = None, device: str = "cpu") -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), name, str(threads), device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=HERE,
            env={**os.environ, **(environment or {})},
        )
        self.import_s = self._answer().get("import_s", float("nan"))
        self._stop()

    def _stop(self) -> None:
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGSTOP)

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()  # type: ignore[union-attr]
        return json.loads(line) if line else {"error": f"the process ended with code {self.process.poll()}"}

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self.process.poll() is not None:
            return {"error": "the process has ended"}
        os.kill(self.process.pid, signal.SIGCONT)
        self.process.stdin.write(json.dumps(request) + "\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        answer = self._answer()
        self._stop()
        return answer

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def same(ours: list[list[float]], theirs: list[list[float]], mode: str) -> float:
    """The largest difference, relative to the largest output."""
    if len(ours) != len(theirs):
        return float("inf")
    worst = 0.0
    for a, b in zip(ours, theirs):
        scale = max(a[0], 1e-30)
        worst = max([worst, *(abs(x - y) / scale for x, y in zip(a, b))] if len(a) == len(b) else [float("inf")])
    return worst


def measure(index: int, peers: list[Peer], rounds: int, seconds: float) -> dict[str, Any]:
    row = models.ROWS[index]
    result: dict[str, Any] = {
        "row": row.label,
        "model": row.model,
        "mode": row.mode,
        "batch": row.batch,
        "floor": row.floor,
    }
    ready: list[Peer] = []
    reference: Any = None
    sides: dict[str, Any] = {}
    for peer in peers:
        answer = peer.ask({"row": index})
        if "error" in answer:
            sides[peer.name] = {"error": answer["error"]}
            continue
        reference = reference or answer["outputs"]
        side = {"first_ms": answer["first_ms"], "build_ms": answer["build_ms"], "rounds": []}
        side["difference"] = same(reference, answer["outputs"], row.mode)
        sides[peer.name] = side
        ready.append(peer)
    for k in range(rounds if ready else 0):
        for peer in ready[k % len(ready) :] + ready[: k % len(ready)]:
            answer = peer.ask({"seconds": seconds})
            if "times" in answer:
                sides[peer.name]["rounds"].append(answer["times"])
    for peer in ready:
        side = sides[peer.name]
        side["peak_mb"] = peer.ask({"end": True}).get("peak_mb")
        if side["rounds"]:
            side["min_ms"] = min(t[0] for t in side["rounds"])
            side["median_ms"] = sorted(t[1] for t in side["rounds"])[len(side["rounds"]) // 2]
    result["sides"] = sides
    others = {n: s["min_ms"] for n, s in sides.items() if n != "dagrt" and s.get("min_ms") and s["difference"] < 1e-2}
    if others and "min_ms" in sides.get("dagrt", {}):
        best = min(others, key=lambda n: others[n])
        result.update(best=best, ratio=others[best] / sides["dagrt"]["min_ms"])
        medians = {n: sides[n]["median_ms"] for n in others}
        result["median_ratio"] = min(medians.values()) / sides["dagrt"]["median_ms"]
    return result


def cell(side: dict[str, Any], absent: str) -> str:
    """A side's times, ≠ where its outputs differ from dagrt's and it does not count."""
    if "min_ms" not in side:
        return absent
    return f"{side['min_ms']:.3g} / {side['median_ms']:.3g}" + ("" if side.get("difference", 0) < 1e-2 else " ≠")


def line_of(result: dict[str, Any], names: list[str]) -> str:
    cells = [f"{result['row']:24}"]
    cells += [f"{cell(result['sides'].get(name, {}), '—'):>17}" for name in names]
    ratio = result.get("ratio")
    cells.append(f"{ratio:7.2f} ({result['best']}; floor {result['floor']:g})" if ratio else "      —")
    return " ".join(cells)


def markdown(results: list[dict[str, Any]], names: list[str]) -> str:
    lines = ["| row | " + " | ".join(names) + " | best peer ÷ dagrt | floor |", "|---|" + "---|" * (len(names) + 2)]
    for r in results:
        cells = [cell(r["sides"].get(n, {}), "") for n in names]
        ratio = f"**{r['ratio']:.2f}** ({r['best']})" if "ratio" in r else ""
        lines.append(f"| {r['row']} | " + " | ".join(cells) + f" | {ratio} | {r['floor'] or ''} |")
    return "\n".join(lines) + "\n"


def costs(results: list[dict[str, Any]], names: list[str], import_s: dict[str, float]) -> str:
    """What comes before the first timed call, and what a process takes: seconds, milliseconds / MB."""
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    lines.append("| import | " + " | ".join(f"{import_s[n]:.2f} s" for n in names) + " |")
    for r in results:
        sides = [r["sides"].get(n, {}) for n in names]
        cells = [f"{s['first_ms']:.3g} / {s['peak_mb']:.0f}" if s.get("peak_mb") else "" for s in sides]
        lines.append(f"| {r['row']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(results: list[dict[str, Any]], path: Path, title: str) -> None:
    """How many times faster than its best peer dagrt is, a bar a row."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [r for r in results if "ratio" in r][::-1]
    figure, axes = pyplot.subplots(figsize=(8, 0.28 * len(rows) + 1.4))
    ratios = [r["ratio"] for r in rows]
    axes.barh([r["row"] for r in rows], ratios, color=["#2f6f4f" if x >= 1 else "#b04a3a" for x in ratios])
    for i, r in enumerate(rows):
        axes.text(r["ratio"] + 0.03, i, f"{r['ratio']:.2f}  ({r['best']})", va="center", fontsize=7)
        if r["floor"]:
            axes.plot([r["floor"]] * 2, [i - 0.4, i + 0.4], color="black", linewidth=1)
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set_xlabel("time of the best peer ÷ time of dagrt (minima); black: the project's floor")
    axes.set_title(title, fontsize=9)
    axes.set_xlim(0, max([*ratios, 1]) * 1.25)
    axes.tick_params(axis="y", labelsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def gpu_name() -> str:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "an emulated GPU"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--peers", default="", help="by default all that are installed")
    options.add_argument(
        "--device", default="cpu", choices=["cpu", "cuda"], help="cuda: of the peers PyTorch alone runs there"
    )
    options.add_argument("--rows", default="", help="models, by default all; a row's label picks that one")
    options.add_argument("--seeds-only", action="store_true", help="the seed page's models alone")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=0.3, help="of each peer in each round")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--out", default="", help="a path without suffix: writes .json, .md and .png")
    args = options.parse_args()
    possible = [n for n in PEERS if args.device == "cpu" or n.startswith("torch")]
    wanted = [n for n in args.peers.split(",") if n] or possible
    if odd := [n for n in wanted if n not in possible]:
        options.error(f"unknown on {args.device}: {', '.join(odd)}; there is {', '.join(possible)}")
    if args.device != "cpu":
        import dagrt

        try:
            dagrt.set_device(args.device)
        except dagrt.DeviceError as e:
            options.error(str(e))
    missing = [n for n in wanted if importlib.util.find_spec(PEERS[n]) is None]
    if missing:
        print(f"not installed, left out: {', '.join(missing)}")
    names = ["dagrt"] + [n for n in wanted if n not in missing]
    picked = [w for w in args.rows.split(";" if ";" in args.rows else ",") if w]
    peers = [Peer(n, args.threads, device=args.device) for n in names]
    results: list[dict[str, Any]] = []
    machine = f"{cpu_name()}, {args.threads} threads" + ("" if args.device == "cpu" else f", {gpu_name()}")
    print(f"{machine}; milliseconds: minimum / median; last: best peer ÷ dagrt (minima)")
    print(" " * 24 + "".join(f"{n:>18}" for n in names))
    try:
        for index, row in enumerate(models.ROWS):
            if (picked and row.model not in picked and row.label not in picked) or (args.seeds_only and not row.floor):
                continue
            results.append(measure(index, peers, args.rounds, args.seconds))
            print(line_of(results[-1], names), flush=True)
    finally:
        for peer in peers:
            peer.end()
    ratios = [r["ratio"] for r in results if "ratio" in r and r["floor"]]
    mean = models.geometric_mean(ratios)
    print(
        f"geometric mean over {len(ratios)} rows with a floor: {mean:.2f}, least {min(ratios, default=float('nan')):.2f}"
    )
    for result in results:
        for name, side in result["sides"].items():
            if "error" in side and "does not train" not in side["error"] and "one sample" not in side["error"]:
                print(f"  {result['row']}: {name}: {side['error']}")
            elif side.get("difference", 0) >= 1e-2:
                print(f"  {result['row']}: {name} differs by {side['difference']:.1e} of the largest output")
    if args.out:
        report = {
            "cpu": cpu_name(),
            "threads": args.threads,
            "device": args.device if args.device == "cpu" else gpu_name(),
            "date": time.strftime("%Y-%m-%d"),
            "import_s": {p.name: p.import_s for p in peers},
            "rows": results,
        }
        out = Path(args.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
        paid = costs(results, names, report["import_s"])
        out.with_suffix(".md").write_text(
            f"Milliseconds, minimum / median:\n\n{markdown(results, names)}\n"
            f"Import, and of each row the first call's milliseconds (building apart) / the process's peak memory in MB:\n\n{paid}"
        )
        draw(results, out.with_suffix(".png"), f"dagrt against its best peer; {machine}")


if __name__ == "__main__":
    main()
