"""Records what Keras (JAX backend) computes for the seed models: forward, gradients, a 10-step Adam trajectory.

    KERAS_BACKEND=jax python tests/golden/record_seed_models.py

writes tests/golden/seed_models.npz. Needs keras and jax; the tests that read the file do not.

Forward values and trajectories are Keras's in float32. Gradients are Keras's in float64, with the error that its own
float32 gradients have beside them: behind relu and max-pooling, rounding moves a few activations over a kink, so that in
deep models float32 gradients of any implementation differ by more than 1e-4.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import keras
import numpy as np
from seed_models import SEEDS, data, fingerprint, set_weights

jax.config.update("jax_default_matmul_precision", "highest")
EXACT = "--float64" in sys.argv
if EXACT:
    jax.config.update("jax_enable_x64", True)
    keras.config.set_floatx("float64")


def record(name: str) -> dict[str, np.ndarray]:
    seed = SEEDS[name]
    out: dict[str, np.ndarray] = {}
    xs, ys = data(seed)
    keras.backend.clear_session()
    model = seed.build(keras)
    set_weights(model)
    x = xs if len(xs) > 1 else xs[0]
    pred = model(x, training=False)
    for i, p in enumerate(pred if isinstance(pred, list) else [pred]):
        out[f"{name}/forward/{i}"] = np.asarray(p, dtype="float32")
    losses = [keras.losses.get(fn) for fn in seed.losses]

    def loss_fn(trainable, rest):
        p, _ = model.stateless_call(trainable, rest, x, training=True)
        p = p if isinstance(p, list) else [p]
        return sum(keras.ops.mean(fn(y, q)) for fn, y, q in zip(losses, ys, p))

    trainable = [v.value for v in model.trainable_variables]
    rest = [v.value for v in model.non_trainable_variables]
    value, grads = jax.value_and_grad(loss_fn)(trainable, rest)
    out[f"{name}/loss"] = np.asarray(value, dtype="float64")
    for i, g in enumerate(grads):
        for part, a in fingerprint(i, np.asarray(g)).items():
            out[f"{name}/grad/{i}/{part}"] = a
    if EXACT:
        return out
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=seed.losses if len(seed.losses) > 1 else seed.losses[0])
    trajectory = []
    for _ in range(10):
        model.reset_metrics()
        logs = model.train_on_batch(x, ys if len(ys) > 1 else ys[0], return_dict=True)
        trajectory.append(float(logs["loss"]))
    out[f"{name}/trajectory"] = np.array(trajectory)
    print(name, trajectory, flush=True)
    return out


def merged(everything: dict[str, np.ndarray], exact: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """float64 gradients in place of float32 ones, with the greatest error of the latter, relative to the largest entry."""
    for key, value in exact.items():
        if "/grad/" not in key:
            continue
        if key.endswith("/entries"):
            largest = float(exact[key.replace("/entries", "/largest")][0])
            error = np.abs(everything[key] - value).max() / max(largest, 1e-30)
            everything[key.replace("/entries", "/keras_error")] = np.array([error])
        everything[key] = value
    return everything


if __name__ == "__main__":
    everything: dict[str, np.ndarray] = {
        "keras_version": np.array(keras.__version__),
        "jax_version": np.array(jax.__version__),
    }
    for model_name in SEEDS:
        everything.update(record(model_name))
    if EXACT:
        np.savez(sys.argv[-1], **everything)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "exact.npz")
            subprocess.run([sys.executable, __file__, "--float64", path], check=True)
            everything = merged(everything, dict(np.load(path)))
        np.savez_compressed(Path(__file__).with_name("seed_models.npz"), **everything)
