"""The seed models against PyTorch eager, on this machine in one run.

    python bench/seed_models.py [--rows mlp,ticket] [--rounds 7] [--no-train]

Each row is a model and a batch size: prediction, or a whole training step (forward, backward, Adam). Both sides use the
same number of threads, run in turns, round by round, and show minimum and median; the ratio is dagrt's minimum over
PyTorch's. PyTorch runs its better layout (channels last) and flushes denormals, as dagrt does.
Needs torch (a CPU build is enough): pip install torch
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import dagrt as keras
from dagrt import _core
from seed_models import SEEDS, data

ROWS = [
    ("mlp", 1),
    ("mlp", 32),
    ("ticket", 1),
    ("ticket", 32),
    ("siamese", 1),
    ("siamese", 32),
    ("detector", 1),
    ("detector", 8),
    ("resnet", 1),
    ("resnet", 8),
    ("inception", 1),
    ("inception", 8),
    ("autoencoder", 1),
    ("autoencoder", 32),
]
TRAIN = [
    ("mlp", 32),
    ("ticket", 32),
    ("siamese", 32),
    ("detector", 8),
    ("resnet", 4),
    ("inception", 4),
    ("autoencoder", 32),
]


class Ticket(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.e1, self.e2 = nn.Embedding(10000, 64), nn.Embedding(10000, 64)
        self.l1, self.l2 = nn.LSTM(64, 128, batch_first=True), nn.LSTM(64, 128, batch_first=True)
        self.tags, self.p, self.d = nn.Linear(10, 32), nn.Linear(288, 1), nn.Linear(288, 4)

    def forward(self, title, body, tags):
        a = self.l1(self.e1(title))[1][0][0]
        b = self.l2(self.e2(body))[1][0][0]
        x = torch.cat([a, b, torch.relu(self.tags(tags))], 1)
        return torch.sigmoid(self.p(x)), torch.softmax(self.d(x), 1)


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.e, self.l, self.o = nn.Embedding(10000, 128), nn.LSTM(128, 64, batch_first=True), nn.Linear(128, 1)

    def forward(self, a, b):
        return torch.sigmoid(self.o(torch.cat([self.l(self.e(t))[1][0][0] for t in (a, b)], 1)))


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 64, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(128, 256, 3),
            nn.ReLU(),
        )
        self.c, self.b = nn.Linear(256, 10), nn.Linear(256, 4)

    def forward(self, x):
        x = self.body(x).mean((2, 3))
        return torch.softmax(self.c(x), 1), torch.sigmoid(self.b(x))


class Residual(nn.Module):
    def __init__(self, c: int, f: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(c, f, 3, padding=1), nn.Conv2d(f, f, 3, padding=1)
        self.na, self.nb = nn.BatchNorm2d(f), nn.BatchNorm2d(f)
        self.s = nn.Conv2d(c, f, 1) if c != f else nn.Identity()

    def forward(self, x):
        y = torch.relu(self.na(self.a(x)))
        return torch.relu(self.nb(self.b(y)) + self.s(x))


class Stem(nn.Module):
    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.c, self.n = nn.Conv2d(3, 64, 7, 2), nn.BatchNorm2d(64) if norm else nn.Identity()

    def forward(self, x):
        x = nn.functional.pad(x, (2, 3, 2, 3))
        return nn.functional.max_pool2d(torch.relu(self.n(self.c(x))), 2)


class Head(nn.Module):
    def __init__(self, body: nn.Module, features: int) -> None:
        super().__init__()
        self.body, self.o = body, nn.Linear(features, 10)

    def forward(self, x):
        return torch.softmax(self.o(self.body(x).mean((2, 3))), 1)


class Inception(nn.Module):
    def __init__(self, c: int, f1: int, f3: int, f5: int, fp: int) -> None:
        super().__init__()
        self.one, self.pool = nn.Conv2d(c, f1, 1), nn.Conv2d(c, fp, 1)
        self.t1, self.t2 = nn.Conv2d(c, f3 // 2, 1), nn.Conv2d(f3 // 2, f3, 3, padding=1)
        self.f1, self.f2 = nn.Conv2d(c, f5 // 2, 1), nn.Conv2d(f5 // 2, f5, 5, padding=2)

    def forward(self, x):
        r = torch.relu
        pooled = nn.functional.max_pool2d(x, 3, 1, 1)
        return torch.cat(
            [r(self.one(x)), r(self.t2(r(self.t1(x)))), r(self.f2(r(self.f1(x)))), r(self.pool(pooled))], 1
        )


def autoencoder() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 16, 3),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Unflatten(1, (1, 4, 4)),
        nn.ConvTranspose2d(1, 16, 3),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 32, 3),
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        nn.ConvTranspose2d(32, 16, 3),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 3),
        nn.Sigmoid(),
    )


TORCH: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: nn.Sequential(
        nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10), nn.Softmax(1)
    ),
    "ticket": Ticket,
    "siamese": Siamese,
    "detector": Detector,
    "resnet": lambda: Head(nn.Sequential(Stem(True), Residual(64, 64), Residual(64, 128), Residual(128, 256)), 256),
    "inception": lambda: Head(
        nn.Sequential(Stem(False), Inception(64, 64, 128, 32, 32), Inception(256, 128, 192, 96, 64)), 480
    ),
    "autoencoder": autoencoder,
}


def torch_loss(name: str, pred, ys):
    pred = pred if isinstance(pred, tuple) else (pred,)
    total = 0.0
    for kind, p, y in zip(SEEDS[name].losses, pred, ys):
        if kind == "binary_crossentropy":
            total = total + nn.functional.binary_cross_entropy(p, y)
        elif kind == "categorical_crossentropy":
            total = total - (y * torch.log(p.clamp(1e-7, 1 - 1e-7))).sum(1).mean()
        else:
            total = total + ((p - y) ** 2).mean()
    return total


def torch_sides(name: str, batch: int) -> tuple[Callable[[], object], Callable[[], object]]:
    xs, ys = data(SEEDS[name], batch)
    model = TORCH[name]()
    images = xs[0].ndim == 4
    tx = [torch.from_numpy(x.transpose(0, 3, 1, 2).copy() if images else x) for x in xs]
    ty = [torch.from_numpy(y.transpose(0, 3, 1, 2).copy() if y.ndim == 4 else y) for y in ys]
    tx = [t.long() if t.dtype == torch.int32 else t for t in tx]
    if images and tx[0].shape[1] > 1:
        model, tx = model.to(memory_format=torch.channels_last), [t.to(memory_format=torch.channels_last) for t in tx]
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def predict() -> object:
        with torch.inference_mode():
            return model(*tx)

    def train() -> object:
        model.train()
        optimizer.zero_grad()
        loss = torch_loss(name, model(*tx), ty)
        loss.backward()
        optimizer.step()
        return loss

    return (lambda: (model.eval(), predict())), train


def dagrt_sides(name: str, batch: int) -> tuple[Callable[[], object], Callable[[], object]]:
    seed = SEEDS[name]
    xs, ys = data(seed, batch)
    model = seed.build(keras)
    model.compile("adam", seed.losses if len(seed.losses) > 1 else seed.losses[0])
    x, y = xs if len(xs) > 1 else xs[0], ys if len(ys) > 1 else ys[0]
    return (lambda: model.predict_on_batch(x)), (lambda: model.train_on_batch(x, y))


def repeats(call: Callable[[], object]) -> int:
    call()
    start = time.perf_counter()
    call()
    return max(1, min(2000, int(0.15 / max(time.perf_counter() - start, 1e-7))))


def compare(a: Callable[[], object], b: Callable[[], object], rounds: int) -> list[tuple[float, float]]:
    """Milliseconds (minimum, median) of each side, in turns."""
    times: list[list[float]] = [[], []]
    counts = [repeats(a), repeats(b)]
    for _ in range(rounds):
        for side, call in enumerate((a, b)):
            best = []
            for _ in range(counts[side]):
                start = time.perf_counter()
                call()
                best.append(time.perf_counter() - start)
            times[side] += [min(best), float(np.median(best))]
    return [(min(t) * 1e3, float(np.median(t[1::2])) * 1e3) for t in times]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", default="", help="models, by default all")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--no-train", action="store_true")
    options.add_argument("--only-train", action="store_true")
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    _core.set_num_threads(args.threads)
    wanted = args.rows.split(",") if args.rows else list(SEEDS)
    print(
        f"{'row':24}{'dagrt min':>11}{'median':>9}{'torch min':>11}{'median':>9}{'ratio':>7}   (ms, {args.threads} threads)"
    )
    rows = [] if args.only_train else [(n, b, 0) for n, b in ROWS]
    rows += [] if args.no_train else [(n, b, 1) for n, b in TRAIN]
    for name, batch, side in rows:
        if name not in wanted:
            continue
        keras.clear_session()
        (ours, our_median), (theirs, their_median) = compare(
            dagrt_sides(name, batch)[side], torch_sides(name, batch)[side], args.rounds
        )
        label = f"{name}, {'train' if side else 'batch'} {batch}"
        print(
            f"{label:24}{ours:11.3f}{our_median:9.3f}{theirs:11.3f}{their_median:9.3f}{ours / theirs:7.2f}", flush=True
        )


if __name__ == "__main__":
    main()
