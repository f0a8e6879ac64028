"""Mixed precision on a CPU: dagrt's mixed_bfloat16 beside its float32, and PyTorch's bfloat16 autocast.

python bench/mixed.py --out bench/results/mixed.md        # --threads 2 --seconds 2

Each model in turns, in one process: a turn runs one side alone for some milliseconds. Milliseconds,
minimum over all turns; ÷ is float32 by mixed.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from models import resnet50

L: Any = None
keras: Any = None


def mlp(width: int, depth: int) -> Any:
    x = image = keras.Input((width,))
    for _ in range(depth):
        x = L.Dense(width, activation="relu")(x)
    return keras.Model(image, L.Dense(10, dtype="float32")(x))


def convolutions(channels: int) -> Any:
    x = image = keras.Input((32, 32, 3))
    x = L.Conv2D(channels, 3, padding="same", activation="relu")(x)
    for _ in range(2):
        r = x
        for window in (3, 1):
            x = L.ReLU()(L.BatchNormalization()(L.Conv2D(channels, window, padding="same")(x)))
        x = L.Add()([x, r])
    return keras.Model(image, L.Dense(10, dtype="float32")(L.GlobalAveragePooling2D()(x)))


def recurrent(kind: str, units: int) -> Any:
    x = words = keras.Input((40, units))
    return keras.Model(words, L.Dense(10, dtype="float32")(getattr(L, kind)(units)(x)))


ROWS = [  # name, model, batch
    ("mlp 3 x 1024", lambda: mlp(1024, 3), 1),
    ("mlp 3 x 1024", lambda: mlp(1024, 3), 32),
    ("mlp 2 x 4096", lambda: mlp(4096, 2), 1),
    ("mlp 2 x 4096", lambda: mlp(4096, 2), 32),
    ("convolutions 32", lambda: convolutions(32), 4),
    ("ResNet50", lambda: resnet50(keras), 1),
    ("ResNet50", lambda: resnet50(keras), 8),
    ("LSTM 128", lambda: recurrent("LSTM", 128), 8),
    ("GRU 64", lambda: recurrent("GRU", 64), 8),
]


def torch_mlp(width: int, depth: int, x: np.ndarray) -> Callable[[], Any]:
    import torch

    layers: list[Any] = []
    for _ in range(depth):
        layers += [torch.nn.Linear(width, width), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(width, 10)).eval()
    data = torch.from_numpy(x)

    def run() -> Any:
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            return model(data)

    return run


def turns(sides: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    best = dict.fromkeys(sides, float("inf"))
    for run in sides.values():
        run()
        run()
    end = time.perf_counter() + seconds * len(sides)
    while time.perf_counter() < end:
        for name, run in sides.items():
            stop = time.perf_counter() + 0.02
            while True:
                begin = time.perf_counter()
                run()
                now = time.perf_counter()
                best[name] = min(best[name], now - begin)
                if now > stop:
                    break
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.5, help="for each side of a row")
    args = parser.parse_args()
    os.environ["DAGRT_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(args.threads)
    os.environ["DAGRT_DEVICE"] = "cpu"
    global keras, L
    import dagrt as keras

    L = keras.layers
    rng = np.random.default_rng(0)
    lines = [
        f"{args.threads} threads, {keras._core.cpu_info()['isa']}; ms, minimum\n",
        "| model | batch | predict: float32 | mixed | ÷ | torch autocast | train: float32 | mixed | ÷ |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, make, batch in ROWS:
        predict, train = {}, {}
        for policy in ("float32", "mixed_bfloat16"):
            keras.mixed_precision.set_global_policy(policy)
            model = make()
            model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
            x = rng.normal(size=(batch, *model.inputs[0].shape[1:])).astype("float32")
            y = rng.integers(0, 10, batch)
            predict[policy] = lambda model=model, x=x: model.predict_on_batch(x)
            train[policy] = lambda model=model, x=x, y=y: model.train_on_batch(x, y)
        if name.startswith("mlp"):
            depth, width = int(name.split()[1]), int(name.split()[3])
            predict["torch"] = torch_mlp(width, depth, x)
        p, t = turns(predict, args.seconds), turns(train, args.seconds)
        cells = [1e3 * p["float32"], 1e3 * p["mixed_bfloat16"], p["float32"] / p["mixed_bfloat16"]]
        cells += [1e3 * p["torch"] if "torch" in p else None, 1e3 * t["float32"], 1e3 * t["mixed_bfloat16"]]
        cells += [t["float32"] / t["mixed_bfloat16"]]
        lines.append(f"| {name} | {batch} | " + " | ".join("" if c is None else f"{c:.3g}" for c in cells) + " |")
        print(lines[-1], flush=True)
    keras.mixed_precision.set_global_policy(None)
    text = "\n".join(lines) + "\n"
    if args.out:
        with open(args.out, "w") as f:
            f.write("# Mixed precision on a CPU\n\n" + text)


if __name__ == "__main__":
    main()
