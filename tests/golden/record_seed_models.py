"""Records what Keras (JAX backend) computes for the seed models: forward, gradients, a 10-step Adam trajectory.

    KERAS_BACKEND=jax python tests/golden/record_seed_models.py

writes tests/golden/seed_models.npz. Needs keras and jax; the tests that read the file do not.
"""

import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import keras
import numpy as np
from seed_models import SEEDS, data, fingerprint, set_weights

jax.config.update("jax_default_matmul_precision", "highest")


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
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=seed.losses if len(seed.losses) > 1 else seed.losses[0])
    trajectory = []
    for _ in range(10):
        model.reset_metrics()
        logs = model.train_on_batch(x, ys if len(ys) > 1 else ys[0], return_dict=True)
        trajectory.append(float(logs["loss"]))
    out[f"{name}/trajectory"] = np.array(trajectory)
    print(name, trajectory, flush=True)
    return out


if __name__ == "__main__":
    everything: dict[str, np.ndarray] = {"keras_version": np.array(keras.__version__), "jax_version": np.array(jax.__version__)}
    for model_name in SEEDS:
        everything.update(record(model_name))
    np.savez_compressed(Path(__file__).with_name("seed_models.npz"), **everything)
