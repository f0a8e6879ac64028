"""The seven seed models against numbers that Keras (JAX backend) computed; see golden/record_seed_models.py.

Exact algorithms at 1e-5 and 1e-4; the default's, which may round more, at 5e-5.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagrt as keras
import numpy as np
import pytest
from seed_models import SEEDS, data, fingerprint, set_weights

GOLDEN = np.load(Path(__file__).parent / "golden" / "seed_models.npz")
# Long images: minutes without vector instructions.
NAMES = list(SEEDS)


@pytest.fixture(scope="module", params=NAMES)
def seeded(request: pytest.FixtureRequest) -> Any:
    keras.clear_session()
    name = request.param
    seed = SEEDS[name]
    xs, ys = data(seed)
    model = seed.build(keras)
    set_weights(model)
    before = keras.config.exact()
    keras.config.set_exact(True)
    yield name, seed, model, xs if len(xs) > 1 else xs[0], ys
    keras.config.set_exact(before)


def as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def test_forward(seeded: Any) -> None:
    name, _, model, x, _ = seeded
    for i, p in enumerate(as_list(model.predict_on_batch(x))):
        want = GOLDEN[f"{name}/forward/{i}"]
        assert p.shape == want.shape
        assert np.abs(p - want).max() <= 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("name", NAMES)
def test_fast_path(name: str) -> None:
    """The default's algorithms: outputs, and the loss after a step, whose update follows from all gradients."""
    seed = SEEDS[name]
    xs, ys = data(seed)
    model = seed.build(keras)
    set_weights(model)
    for i, p in enumerate(as_list(model.predict_on_batch(xs if len(xs) > 1 else xs[0]))):
        want = GOLDEN[f"{name}/forward/{i}"]
        assert np.abs(p - want).max() <= 5e-5 * np.abs(want).max()
    model.compile(keras.optimizers.Adam(1e-3), seed.losses if len(seed.losses) > 1 else seed.losses[0])
    for want in GOLDEN[f"{name}/trajectory"][:2]:
        model.reset_metrics()
        loss = model.train_on_batch(xs if len(xs) > 1 else xs[0], ys if len(ys) > 1 else ys[0], return_dict=True)[
            "loss"
        ]
        assert abs(loss - want) <= 1e-3 * abs(want)


def test_gradients(seeded: Any) -> None:
    """Within 1e-4 of Keras's float64 gradients, or where Keras's float32 ones are further from those, nearer than they are.

    Where an activation's input is zero but for rounding, its last bit decides on which side of the kink it falls, and
    all layers before feel it. So weights that differ by their last bit are tried too, until the sides are Keras's.
    """
    name, seed, model, x, ys = seeded
    losses = [keras.losses.get(fn) for fn in seed.losses]
    before = model.get_weights()
    rng = np.random.default_rng(0)

    def loss_fn() -> Any:
        pred = as_list(model(x, training=True))
        total = 0.0
        for fn, y, p in zip(losses, ys, pred):
            total = total + keras.ops.mean(fn(y, p))
        return total

    def faults() -> list[str]:
        value, grads = keras.value_and_grad(loss_fn, model.trainable_variables)()
        want = float(GOLDEN[f"{name}/loss"])
        assert abs(float(value) - want) <= 1e-5 * abs(want)
        found = []
        for i, g in enumerate(grads):
            got = fingerprint(i, np.asarray(g))
            recorded = {part: GOLDEN[f"{name}/grad/{i}/{part}"] for part in got}
            scale, norm = max(float(recorded["largest"][0]), 1e-12), float(recorded["norm"][0])
            if scale < 1e-6:  # a bias before batch normalisation: zero but for rounding
                good = float(got["largest"][0]) < 1e-5
            else:
                allowed = max(1e-4, float(GOLDEN[f"{name}/grad/{i}/keras_error"][0]))
                good = (
                    np.abs(got["entries"] - recorded["entries"]).max() <= allowed * scale
                    and abs(float(got["norm"][0]) - norm) <= 1e-4 * norm
                    and np.abs(got["projections"] - recorded["projections"]).max() <= allowed * norm
                )
            if not good:
                found.append(f"gradient {i} of {model.trainable_variables[i].path}")
        return found

    tries = []
    for k in range(6):
        bits = 0.0 if k == 0 else 1e-7
        model.set_weights([(w * (1 + bits * rng.choice([-1, 0, 1], w.shape))).astype(w.dtype) for w in before])
        tries.append(faults())
        if not tries[-1]:
            break
    model.set_weights(before)  # batch normalisation moved its statistics, too
    assert not tries[-1], tries


def test_trajectory(seeded: Any) -> None:
    name, seed, model, x, ys = seeded
    set_weights(model)
    model.compile(keras.optimizers.Adam(1e-3), seed.losses if len(seed.losses) > 1 else seed.losses[0])
    got = []
    for _ in range(10):
        model.reset_metrics()
        got.append(model.train_on_batch(x, ys if len(ys) > 1 else ys[0], return_dict=True)["loss"])
    set_weights(model)
    want = GOLDEN[f"{name}/trajectory"]
    assert np.abs(np.array(got) - want).max() <= 1e-4 * np.abs(want).max(), (got, want.tolist())
