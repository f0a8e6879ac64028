"""One kernel or model after another on a CUDA device, beside PyTorch on the same one: medians of repeated calls.

    PYTHONPATH=python python bench/cuda.py

A kernel's time is a difference of two chains, so it holds no copies; a model's call holds those of its arrays.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagrt as keras
import numpy as np
from dagrt import _core

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from seed_models import SEEDS, data, set_weights


def median_ms(call: Callable[[], Any], seconds: float = 1.0) -> float:
    for _ in range(3):
        call()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3


def chain(op: str, attrs: dict, arrays: list[np.ndarray], count: int) -> _core.Function:
    """`count` times the op, each on the result of the one before and the second array; one element comes back."""
    inputs = [{"name": f"x{i}", "dtype": a.dtype.name, "shape": list(a.shape)} for i, a in enumerate(arrays)]
    nodes = [{"op": op, "in": [k + 1 if k else 0, 1], "out": [k + 2], "attrs": attrs} for k in range(count)]
    one = [1] * arrays[0].ndim
    corner = {"begin": [0] * arrays[0].ndim, "size": one, "stride": one}
    nodes.append({"op": "slice", "in": [count + 1], "out": [count + 2], "attrs": corner})
    main = {"inputs": inputs, "nodes": nodes, "outputs": [count + 2], "output_names": [""], "stores": [], "guard": None}
    text = {"format": "dagrt", "version": 1, "variables": [], "constants": [], "functions": {"main": main}}
    return _core.Function(json.dumps(text), [], [], "main", False)


def op_ms(op: str, attrs: dict, arrays: list[np.ndarray]) -> float:
    """The difference of a long chain and a short one: copies and launching drop out."""
    short, long = chain(op, attrs, arrays, 2), chain(op, attrs, arrays, 22)
    return (median_ms(lambda: long(arrays)) - median_ms(lambda: short(arrays))) / 20


def kernels() -> None:
    rng = np.random.default_rng(0)
    plain = {"transpose_a": False, "transpose_b": False}
    for n in (1024, 4096):
        ms = op_ms("matmul", plain, [rng.normal(size=(n, n)).astype("float32") / n**0.5 for _ in range(2)])
        print(f"matmul {n}: {ms:.3f} ms, {2 * n**3 / ms / 1e9:.1f} TFLOP/s", flush=True)
    attrs = {"strides": [1, 1], "dilations": [1, 1], "groups": 1, "padding": "same", "pads": [0, 0, 0, 0]}
    for shape, c in (((32, 56, 56), 64), ((32, 28, 28), 128), ((32, 14, 14), 256)):
        x = rng.normal(size=(*shape, c)).astype("float32")
        ms = op_ms("conv2d", attrs, [x, (rng.normal(size=(3, 3, c, c)) / (9 * c) ** 0.5).astype("float32")])
        print(f"conv2d {shape} x {c}: {ms:.3f} ms, {2 * x.size * 9 * c / ms / 1e9:.1f} TFLOP/s", flush=True)


def models() -> None:
    for name, seed in SEEDS.items():
        keras.clear_session()
        model = seed.build(keras)
        set_weights(model)
        xs, ys = data(seed, 32 if name in ("mlp", "ticket", "siamese", "autoencoder") else 8)
        x, y = xs if len(xs) > 1 else xs[0], ys if len(ys) > 1 else ys[0]
        model.compile(keras.optimizers.Adam(1e-3), seed.losses if len(seed.losses) > 1 else seed.losses[0])
        infer = median_ms(lambda m=model, x=x: m.predict_on_batch(x), 0.5)
        train = median_ms(lambda m=model, x=x, y=y: m.train_on_batch(x, y), 0.5)
        print(f"{name}, batch {len(xs[0])}: inference {infer:.3f} ms, training step {train:.3f} ms", flush=True)


def torch_kernels() -> None:
    try:
        import torch
    except ImportError:
        return
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True

    def timed(call: Callable[[], Any], count: int = 20) -> float:
        for _ in range(3):
            call()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            call()
        torch.cuda.synchronize()
        return (time.perf_counter() - start) / count * 1e3

    for n in (1024, 4096):
        a, b = torch.randn(n, n, device="cuda"), torch.randn(n, n, device="cuda")
        ms = timed(lambda a=a, b=b: a @ b)
        print(f"torch matmul {n}: {ms:.3f} ms, {2 * n**3 / ms / 1e9:.1f} TFLOP/s")
    for (n, h, w), c in (((32, 56, 56), 64), ((32, 28, 28), 128), ((32, 14, 14), 256)):
        x = torch.randn(n, c, h, w, device="cuda").to(memory_format=torch.channels_last)
        k = torch.randn(c, c, 3, 3, device="cuda").to(memory_format=torch.channels_last)
        ms = timed(lambda x=x, k=k: torch.nn.functional.conv2d(x, k, padding=1))
        print(f"torch conv2d {(n, h, w)} x {c}: {ms:.3f} ms, {2 * x.numel() * 9 * c / ms / 1e9:.1f} TFLOP/s")


if __name__ == "__main__":
    _core.set_device("cuda:0")
    kernels()
    torch_kernels()
    models()
