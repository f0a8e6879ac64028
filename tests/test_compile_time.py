"""How long a program takes to compile: ResNet50, a new batch size of it, and NASNetMobile, whose 771 layers are many.

Bounds are four times the aims (50, 15 and 300 ms), for slow machines; `pytest -s` shows the figures.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import dagrt as keras
import pytest
from dagrt import _core, tracing

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
from models import resnet50

layers = keras.layers


def nasnet_mobile() -> Any:
    """NASNet-A (4 @ 1056), Zoph et al. 2018: cells that combine the outputs of the two cells before them."""

    def norm(x: Any) -> Any:
        return layers.BatchNormalization(momentum=0.9997, epsilon=1e-3)(x)

    def conv(x: Any, filters: int) -> Any:
        return norm(layers.Conv2D(filters, 1, use_bias=False)(layers.ReLU()(x)))

    def separable(x: Any, filters: int, size: int, strides: int = 1) -> Any:
        for s in (strides, 1):
            x = layers.SeparableConv2D(filters, size, strides=s, padding="same", use_bias=False)(layers.ReLU()(x))
            x = norm(x)
        return x

    def fitted(p: Any, x: Any, filters: int) -> Any:
        """The cell before the last one's output, in the size and channels of this cell."""
        if p is None:
            return x
        if p.shape[1] != x.shape[1]:
            p = layers.ReLU()(p)
            shifted = layers.Cropping2D(((1, 0), (1, 0)))(layers.ZeroPadding2D(((0, 1), (0, 1)))(p))
            halves = [
                layers.Conv2D(filters // 2, 1, use_bias=False)(layers.AveragePooling2D(1, strides=2)(h))
                for h in (p, shifted)
            ]
            return norm(layers.Concatenate()(halves))
        return conv(p, filters) if p.shape[-1] != filters else p

    def average(x: Any) -> Any:
        return layers.AveragePooling2D(3, strides=1, padding="same")(x)

    def normal(x: Any, p: Any, filters: int) -> tuple[Any, Any]:
        p, h = fitted(p, x, filters), conv(x, filters)
        parts = [
            p,
            layers.Add()([separable(h, filters, 5), separable(p, filters, 3)]),
            layers.Add()([separable(p, filters, 5), separable(p, filters, 3)]),
            layers.Add()([average(h), p]),
            layers.Add()([average(p), average(p)]),
            layers.Add()([separable(h, filters, 3), h]),
        ]
        return layers.Concatenate()(parts), x

    def reduction(x: Any, p: Any, filters: int) -> tuple[Any, Any]:
        p, h = fitted(p, x, filters), conv(x, filters)

        def pool(kind: Any) -> Any:
            return kind(3, strides=2, padding="same")(h)

        first = layers.Add()([separable(h, filters, 5, 2), separable(p, filters, 7, 2)])
        second = layers.Add()([pool(layers.MaxPooling2D), separable(p, filters, 7, 2)])
        third = layers.Add()([pool(layers.AveragePooling2D), separable(p, filters, 5, 2)])
        fourth = layers.Add()([second, average(first)])
        fifth = layers.Add()([separable(first, filters, 3), pool(layers.MaxPooling2D)])
        return layers.Concatenate()([second, third, fourth, fifth]), x

    inputs = keras.Input((224, 224, 3))
    x, p = norm(layers.Conv2D(32, 3, strides=2, use_bias=False)(inputs)), None
    x, p = reduction(x, p, 11)
    x, p = reduction(x, p, 22)
    for stage, filters in enumerate((44, 88, 176)):
        if stage:
            x, _ = reduction(x, p, filters)
        for _ in range(4):
            x, p = normal(x, p, filters)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(1000, activation="softmax")(x))


def compile_ms(model: Any) -> tuple[int, list[float]]:
    """Layers, and the time of the inference program at batch 1, then at batch 32, in this thread: what other processes take
    does not count. Prepared weights are made in the first run: not in here."""
    spec = tracing.InputSpec((None, 224, 224, 3), "float32")
    traced = tracing.trace_to_module(lambda x: model.predict_step((x,)), (spec,))
    best = [1e9, 1e9]
    for _ in range(3):
        function = _core.Function(traced.module_json, traced.variables, traced.constants)
        for i, batch in enumerate((1, 32)):
            start = time.thread_time()
            function.output_types([(batch, 224, 224, 3)])
            best[i] = min(best[i], (time.thread_time() - start) * 1e3)
    return len(model.layers), best


@pytest.mark.parametrize(("build", "aims"), [(lambda: resnet50(keras), (50, 15)), (nasnet_mobile, (300, 300))])
def test_compile_time(build: Any, aims: tuple[int, int]) -> None:
    count, times = compile_ms(build())
    print(f"{count} layers: {times[0]:.1f} ms, another batch size {times[1]:.1f} ms (aims {aims[0]}, {aims[1]})")
    for ms, aim in zip(times, aims):
        assert ms < 4 * aim
