"""Cases of csrc/ops/lstm.cpp."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases import Arg, Case


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def forward(backwards: bool, zero: bool, all_outputs: bool = False) -> Any:
    def run(x: Any, w: Any, r: Any, b: Any = None, h0: Any = None, c0: Any = None, mask: Any = None) -> tuple:
        batch, steps, _ = x.shape
        u = r.shape[0]
        h = np.zeros((batch, u)) if h0 is None else h0
        c = np.zeros((batch, u)) if c0 is None else c0
        before = np.zeros((batch, u))
        y, gates, cells, hidden = np.zeros((batch, steps, u)), [], [], []
        for k in range(steps):
            t = steps - 1 - k if backwards else k
            z = x[:, t] @ w + h @ r + (0 if b is None else b)
            i, f, g, o = (
                sigmoid(z[:, :u]),
                sigmoid(z[:, u : 2 * u]),
                np.tanh(z[:, 2 * u : 3 * u]),
                sigmoid(z[:, 3 * u :]),
            )
            c2 = f * c + i * g
            h2 = o * np.tanh(c2)
            out = h2
            if mask is not None:
                m = mask[:, t, None]
                c2, h2, out = np.where(m, c2, c), np.where(m, h2, h), np.where(m, h2, 0 if zero else before)
            c, h, before = c2, h2, out
            y[:, k] = out
            gates.append(np.concatenate([i, f, g, o], 1))
            cells.append(c)
            hidden.append(h)
        if all_outputs:
            return y, h, c, np.array(gates), np.array(cells), np.array(hidden)
        return y, h, c

    return run


def backward(backwards: bool, zero: bool) -> Any:
    """By central differences of the float64 forward pass: slow, and independent of the kernel."""

    def run(
        x: Any,
        w: Any,
        r: Any,
        h0: Any,
        c0: Any,
        mask: Any,
        gates: Any,
        cells: Any,
        hidden: Any,
        dy: Any = None,
        dh: Any = None,
        dc: Any = None,
    ) -> list:
        step = forward(backwards, zero)
        bias = np.zeros(4 * r.shape[0])

        def loss() -> float:
            y, h, c = step(x, w, r, bias, h0, c0, mask)
            return sum(float((a * g).sum()) for a, g in ((y, dy), (h, dh), (c, dc)) if g is not None)

        grads = []
        for a in (x, w, r, bias, h0, c0):
            g = np.zeros_like(a)
            for at in np.ndindex(a.shape):
                keep = a[at]
                a[at] = keep + 1e-5
                up = loss()
                a[at] = keep - 1e-5
                g[at] = (up - loss()) / 2e-5
                a[at] = keep
            grads.append(g)
        return grads

    return run


CASES: list[Case] = []
for batch, steps, c, u in [
    (2, 3, 4, 5),
    (1, 9, 3, 16),
    (5, 4, 1, 17),
    (3, 1, 2, 1),
    (17, 11, 8, 8),
    (2, 0, 3, 2),
    (0, 3, 2, 2),
]:
    x, w, r, b = (
        Arg((batch, steps, c)),
        Arg((c, 4 * u), low=-0.7, high=0.7),
        Arg((u, 4 * u), low=-0.7, high=0.7),
        Arg((4 * u,)),
    )
    state, mask = Arg((batch, u)), Arg((batch, steps), "bool")
    size = f"{batch}x{steps}x{c}-{u}"
    for backwards in (False, True):
        attrs = {"go_backwards": backwards, "zero_output_for_mask": False}
        more = {"tolerance": 64.0, "grad_tolerance": 256.0}
        CASES.append(Case("lstm", [x, w, r, b], forward(backwards, False), attrs, name=f"{size} {backwards}", **more))
        CASES.append(
            Case(
                "lstm",
                [x, w, r, b, state, state, mask],
                forward(backwards, False),
                attrs,
                name=f"{size} {backwards} all",
                **more,
            )
        )
    zero = {"go_backwards": False, "zero_output_for_mask": True}
    CASES.append(
        Case("lstm", [x, w, r, None, None, None, mask], forward(False, True), zero, name=f"{size} zero", **more)
    )

for u in (180, 192):  # whose weights, in a CUDA block, come to 48 KB with what it needs of its own: backward, forward
    CASES.append(
        Case(
            "lstm",
            [Arg((1, 2, 2)), Arg((2, 4 * u), low=-0.7, high=0.7), Arg((u, 4 * u), low=-0.1, high=0.1), Arg((4 * u,))],
            forward(False, False),
            {"go_backwards": False, "zero_output_for_mask": False},
            tolerance=64,
            grad_tolerance=256,
        )
    )

rng = np.random.default_rng(5)
for batch, steps, c, u, backwards, masked in [
    (2, 3, 2, 3, False, False),
    (3, 4, 2, 2, True, True),
    (2, 5, 1, 2, False, True),
]:
    x, w, r = rng.normal(size=(batch, steps, c)), rng.normal(size=(c, 4 * u)) * 0.5, rng.normal(size=(u, 4 * u)) * 0.5
    h0, c0 = rng.normal(size=(batch, u)), rng.normal(size=(batch, u))
    mask = rng.random((batch, steps)) < 0.6 if masked else None
    _, _, _, gates, cells, hidden = forward(backwards, False, True)(x, w, r, np.zeros(4 * u), h0, c0, mask)
    args: list[Any] = [Arg(a.shape, values=a) for a in (x, w, r, h0, c0)]
    args.append(None if mask is None else Arg(mask.shape, "bool", values=mask))
    args += [Arg(a.shape, values=a) for a in (gates, cells, hidden)]
    args += [Arg((batch, steps, u)), Arg((batch, u)), Arg((batch, u))]
    CASES.append(
        Case(
            "lstm_grad",
            args,
            backward(backwards, False),
            {"go_backwards": backwards, "zero_output_for_mask": False},
            tolerance=2000,
            name=f"{batch}x{steps}x{c}-{u} {backwards} {masked}",
        )
    )
