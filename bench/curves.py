"""Training curves of the seed page's resnet and inception with fast convolution algorithms (the default) and with exact
ones: whether anybody could tell them apart.

    python bench/curves.py [--seeds 5] [--steps 200] [--minutes 20] [--out bench/results/curves]

Both start from the same weights and see the same batches of handwritten digits (scikit-learn's, 32 x 32 here). What counts
is their distance beside that of two seeds: it must be small against the latter. Writes .png, .md and .json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import dagrt
import numpy as np
from sklearn.datasets import load_digits

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from seed_models import inception, resnet

MODELS = {"resnet": resnet, "inception": inception}
BATCH, LAST = 32, 25  # LAST: steps whose mean loss is the final one


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images in [0, 1], each pixel as 4 x 4, in three channels."""
    x, y = load_digits(return_X_y=True)
    return (x.reshape(-1, 8, 8, 1) / 16).repeat(4, 1).repeat(4, 2).repeat(3, 3).astype("float32"), y


def train(name: str, seed: int, exact: bool, steps: int) -> list[float]:
    """The loss of every step."""
    x, y = digits()
    dagrt.clear_session()
    dagrt.config.set_exact(exact)
    dagrt.utils.set_random_seed(seed)
    model = MODELS[name](dagrt, 32)
    model.compile(dagrt.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    rng = np.random.default_rng(seed)
    losses = []
    for _ in range(steps):
        picked = rng.integers(0, len(x), BATCH)
        losses.append(float(np.atleast_1d(model.train_on_batch(x[picked], y[picked]))[0]))
    return losses


def smooth(losses: Any, width: int = 10) -> np.ndarray:
    sums = np.cumsum(np.insert(np.asarray(losses, dtype="float64"), 0, 0.0))
    return (sums[width:] - sums[:-width]) / width


def draw(results: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(results), figsize=(4.5 * len(results), 3.2))
    for axis, (name, runs) in zip(np.atleast_1d(axes), results.items()):
        for mode, colour, style in (("exact", "#b04a3a", "-"), ("default", "#2f6f4f", "--")):
            for k, run in enumerate(runs):
                axis.plot(smooth(run[mode]), colour, linestyle=style, linewidth=0.9, label=None if k else mode)
        axis.set(title=f"{name}, {len(runs)} seeds", xlabel="step", ylabel="loss (mean of 10 steps)", yscale="log")
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def table(results: dict[str, Any]) -> str:
    lines = [
        f"Final loss: mean of the last {LAST} steps.\n",
        "| model | seed | final loss, exact | default | first step whose losses differ at all | by 1 % |",
        "|---|---|---|---|---|---|",
    ]
    notes = []
    for name, runs in results.items():
        finals = {m: [float(np.mean(r[m][-LAST:])) for r in runs] for m in ("exact", "default")}
        for k, r in enumerate(runs):
            a, b = np.array(r["exact"]), np.array(r["default"])
            cells = [f"{finals[m][k]:.4f}" for m in ("exact", "default")]
            for share in (0, 0.01):
                apart = np.nonzero(np.abs(a - b) > share * np.maximum(a, b))[0]
                cells.append(str(apart[0]) if len(apart) else "none")
            lines.append(f"| {name} | {r['seed']} | " + " | ".join(cells) + " |")
        gap = float(np.mean([a - b for a, b in zip(finals["default"], finals["exact"])]))
        spread = float(np.std(finals["exact"], ddof=1)) if len(runs) > 1 else float("nan")
        notes.append(
            f"{name}: default's final loss is {gap:+.4f} from exact's on average over seeds; seeds differ by {spread:.4f} "
            "(standard deviation of exact's)."
        )
    return "\n".join(lines) + "\n\n" + "\n".join(notes) + "\n"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--steps", type=int, default=200)
    options.add_argument("--minutes", type=float, default=20, help="no further seed is begun behind that")
    options.add_argument("--out", default="bench/results/curves", help="a path without suffix")
    args = options.parse_args()
    end = time.monotonic() + args.minutes * 60
    results: dict[str, Any] = {name: [] for name in MODELS}
    for seed in range(args.seeds):
        for name in MODELS:
            if time.monotonic() > end and results[name]:
                continue
            run: dict[str, Any] = {"seed": seed}
            for mode in ("exact", "default"):
                run[mode] = train(name, seed, mode == "exact", args.steps)
            results[name].append(run)
            print(name, seed, *(f"{m} {np.mean(run[m][-LAST:]):.4f}" for m in ("exact", "default")), flush=True)
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    draw(results, out.with_suffix(".png"))
    out.with_suffix(".md").write_text(table(results))
    out.with_suffix(".json").write_text(json.dumps(results) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
