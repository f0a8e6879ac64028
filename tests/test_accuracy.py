"""How far every convolution, dense and LSTM layer of the seed models and ResNet50 is from float64, relative to the largest
number: the default path within 5e-5, `exact` within 5e-6; forward, gradient of the input and gradients of the weights.

The layers are found by walking the models. Weights are variables, so that programs transform them as at inference.
`pytest -m slow tests/test_accuracy.py -s` runs all and prints the worst of each kind.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import cases.conv2d as conv
import dagrt
import numpy as np
import pytest
from seed_models import SEEDS, hashed

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
from models import MODELS

BOUND = {False: 5e-5, True: 5e-6}
KINDS = ("Conv2D", "Conv2DTranspose", "Dense", "LSTM")


class Layer(NamedTuple):
    kind: str
    shape: tuple[int, ...]  # of the input, without the batch
    out: tuple[int, ...]
    units: int  # filters or units
    window: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    padding: str = "valid"

    @property
    def label(self) -> str:
        window = f"-{self.window[0]}x{self.window[1]}-{self.strides[0]}-{self.padding}" if "Conv" in self.kind else ""
        return f"{self.kind}-{'x'.join(map(str, self.shape))}-{self.units}{window}"

    @property
    def work(self) -> int:
        """Multiplications of one sample."""
        if self.kind == "LSTM":
            return self.shape[0] * (self.shape[1] + self.units) * 4 * self.units
        points = self.shape if self.kind == "Conv2DTranspose" else self.out
        inside = self.units * (1 if self.kind == "Conv2DTranspose" else self.shape[-1])
        return (
            int(np.prod(points[:-1]))
            * int(np.prod(self.window))
            * inside
            * (self.shape[-1] if self.kind == "Conv2DTranspose" else 1)
        )


def layers_of(model: Any) -> list[Layer]:
    found = []
    for node in model._nodes:
        layer = node.operation
        kind = type(layer).__name__
        if kind == "Functional" and not node.is_input:
            found += layers_of(layer)
        if kind not in KINDS:
            continue
        shapes = [tuple(t.shape[1:]) for t in (node.input_tensors[0], node.output_tensors[0])]
        if "Conv" in kind:
            window = (layer.filters, tuple(layer.kernel_size), tuple(layer.strides), layer.padding)
            found.append(Layer(kind, *shapes, *window))
        else:
            found.append(Layer(kind, *shapes, layer.units))
    return found


def every_layer() -> list[Layer]:
    found: dict[Layer, None] = {}
    for name in [*SEEDS, "resnet50"]:
        dagrt.clear_session()
        found.update(dict.fromkeys(layers_of(MODELS[name].build(dagrt))))
    return list(found)


def uniform(stream: int, shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
    return (hashed(stream, int(np.prod(shape))).reshape(shape) * scale).astype("float32")


def lstm_reference(x: Any, w: Any, r: Any, b: Any, dh: Any) -> list[np.ndarray]:
    """The last h, and the gradients of x, w, r, b for dh, by hand."""
    batch, steps, _ = x.shape
    u = r.shape[0]
    h = c = np.zeros((batch, u))
    saved = []
    for t in range(steps):
        z = x[:, t] @ w + h @ r + b
        i, f, o = (1 / (1 + np.exp(-z[:, k * u : (k + 1) * u])) for k in (0, 1, 3))
        g = np.tanh(z[:, 2 * u : 3 * u])
        saved.append((i, f, g, o, c, h))
        c = f * c + i * g
        h = o * np.tanh(c)
    last, dc = h, np.zeros_like(c)
    dx, dw, dr, db = np.zeros_like(x), np.zeros_like(w), np.zeros_like(r), np.zeros_like(b)
    for t in reversed(range(steps)):
        i, f, g, o, before, h = saved[t]
        tanh_c = np.tanh(f * before + i * g)
        dc = dc + dh * o * (1 - tanh_c**2)
        dz = np.concatenate(
            [dc * g * i * (1 - i), dc * before * f * (1 - f), dc * i * (1 - g * g), dh * tanh_c * o * (1 - o)], 1
        )
        dx[:, t], dh, dc = dz @ w.T, dz @ r.T, dc * f
        dw += x[:, t].T @ dz
        dr += h.T @ dz
        db += dz.sum(0)
    return [last, dx, dw, dr, db]


def reference(layer: Layer, x: Any, weights: list[Any], dy: Any) -> list[np.ndarray]:
    x, dy, *weights = (np.asarray(a, dtype="float64") for a in (x, dy, *weights))
    if layer.kind == "LSTM":
        return lstm_reference(x, *weights, dy)
    w, b = weights
    if layer.kind == "Dense":
        return [x @ w + b, dy @ w.T, x.T @ dy, dy.sum(0)]
    attrs = {"strides": layer.strides, "dilations": (1, 1), "padding": layer.padding, "kernel_size": layer.window}
    db = dy.sum((0, 1, 2))
    if layer.kind == "Conv2DTranspose":
        attrs["input_size"] = layer.out[:2]
        return [conv.input_grad(attrs)(x, w) + b, conv.forward(attrs)(dy, w), conv.filter_grad(attrs)(dy, x), db]
    dx = conv.input_grad({**attrs, "input_size": layer.shape[:2]})(dy, w)
    return [conv.forward(attrs)(x, w) + b, dx, conv.filter_grad(attrs)(x, dy), db]


def build(layer: Layer) -> Any:
    if layer.kind in ("Dense", "LSTM"):
        return getattr(dagrt.layers, layer.kind)(layer.units)
    make = getattr(dagrt.layers, layer.kind)
    return make(layer.units, layer.window, strides=layer.strides, padding=layer.padding)


def errors(layer: Layer, exact: bool) -> dict[str, float]:
    """Of each result, relative to the largest number in it."""
    batch = 1 if "Conv" in layer.kind else 4
    made = build(layer)
    made.build((batch, *layer.shape))
    for k, v in enumerate(made.weights):
        fan_in = int(np.prod(v.shape[:-1])) if len(v.shape) > 1 else 1
        v.assign(uniform(100 + k, tuple(v.shape), (4.5 / fan_in) ** 0.5 if len(v.shape) > 1 else 0.1))
    x = uniform(1, (batch, *layer.shape))
    dy = uniform(2, (batch, *layer.out))

    @dagrt.function
    def step(x: Any, dy: Any) -> Any:
        y = made(x)
        return [y, *dagrt.ops.gradients(dagrt.ops.sum(y * dy), [x, *made.weights])]

    @dagrt.function
    def forward(x: Any) -> Any:
        return made(x)

    before = dagrt.config.exact()
    dagrt.config.set_exact(exact)
    try:
        results = [np.asarray(v) for v in step(x, dy)]
        alone = np.asarray(forward(x))
    finally:
        dagrt.config.set_exact(before)
    wanted = reference(layer, x, [np.asarray(v) for v in made.weights], dy)
    names = ["forward", "dx", "dw", "dr", "db"] if layer.kind == "LSTM" else ["forward", "dx", "dw", "db"]
    found = {n: float(np.abs(r - w).max() / np.abs(w).max()) for n, r, w in zip(names, results, wanted)}
    found["inference"] = float(np.abs(alone - wanted[0]).max() / np.abs(wanted[0]).max())
    return found


LAYERS = every_layer()
QUICK = 8_000_000  # multiplications: what the default suite has time for


@pytest.fixture(scope="module")
def worst() -> Any:
    table: dict[tuple[str, str, bool], tuple[float, str]] = {}
    yield table
    print("\n| layer | result | path | worst error ÷ largest number | where |\n|---|---|---|---|---|")
    for (kind, what, exact), (error, where) in sorted(table.items()):
        print(f"| {kind} | {what} | {'exact' if exact else 'default'} | {error:.1e} | {where} |")


def mark(layer: Layer) -> Any:
    return pytest.param(layer, id=layer.label, marks=[pytest.mark.slow] if layer.work > QUICK else [])


@pytest.mark.parametrize("exact", [False, True], ids=["default", "exact"])
@pytest.mark.parametrize("layer", [mark(layer) for layer in LAYERS])
def test_layer_is_near_float64(layer: Layer, exact: bool, worst: Any) -> None:
    found = errors(layer, exact)
    for what, error in found.items():
        key = (layer.kind + ("" if layer.window == (1, 1) else f" {layer.window[0]}x{layer.window[1]}"), what, exact)
        worst[key] = max(worst.get(key, (0.0, "")), (error, layer.label))
    assert max(found.values()) <= BOUND[exact], found


def test_every_kind_is_in_the_default_suite() -> None:
    quick = {layer.kind for layer in LAYERS if layer.work <= QUICK}
    assert quick == set(KINDS), quick
    assert any(layer.window == (3, 3) and layer.work <= QUICK for layer in LAYERS)
