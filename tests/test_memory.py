"""What a training step adds to the process is what the planner said: activations and gradients in one arena.

Measured in a process of its own: resident memory before and behind the first step of the seed page's convolution models.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import dagrt as keras
import numpy as np
import pytest
from dagrt import _core, layers

STEP = """
import gc, json, sys
import dagrt as keras
from dagrt import _core
from seed_models import SEEDS, data

def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096

seed = SEEDS[sys.argv[1]]
xs, ys = data(seed, int(sys.argv[2]))
model = seed.build(keras)
model.compile("adam", seed.losses if len(seed.losses) > 1 else seed.losses[0])
gc.collect()
before, planned = resident(), _core.memory_in_use()
model.train_on_batch(xs if len(xs) > 1 else xs[0], ys if len(ys) > 1 else ys[0])
grown, now = resident() - before, _core.memory_in_use()
print(json.dumps({"grown": grown} | {k: now[k] - planned[k] for k in now}))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
@pytest.mark.parametrize("name, batch", [("resnet", 4), ("detector", 8)])
def test_the_first_step_adds_what_was_planned(name: str, batch: int) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    out = subprocess.run(
        [sys.executable, "-c", STEP, name, str(batch)], env=environment, capture_output=True, text=True, check=True
    ).stdout
    step = json.loads(out.splitlines()[-1])
    used = step["grown"] - step["variable_bytes"] - step["prepared_bytes"]
    assert abs(used - step["arena_bytes"]) <= 0.1 * step["arena_bytes"], step


@pytest.mark.parametrize("batch", [144, 145])
def test_a_large_batch_goes_through_memory_bound_layers_in_parts(batch: int) -> None:
    """Parts of 24 and 5 images: the numbers are those of small batches, and the arena holds a part."""
    inputs = keras.Input((64, 64, 16))
    x = inputs
    for _ in range(2):
        y = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(x))
        x = layers.add([layers.Activation("relu6")(y), x])
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = layers.multiply([x, layers.Conv2D(16, 1, activation="sigmoid")(y)])
    outputs = [layers.Dense(3)(layers.GlobalMaxPooling2D()(y)), layers.AveragePooling2D(32)(y)]
    model = keras.Model(inputs, outputs)
    images = np.random.default_rng(1).standard_normal((batch, 64, 64, 16), dtype=np.float32)

    few = [model.predict_on_batch(images[i : i + 5]) for i in range(0, batch, 5)]
    before = _core.memory_in_use()["arena_bytes"]
    many = model.predict_on_batch(images)
    added = _core.memory_in_use()["arena_bytes"] - before
    assert added < images.nbytes / 2
    for k, whole in enumerate(many):
        parts = np.concatenate([f[k] for f in few])
        np.testing.assert_allclose(whole, parts, rtol=1e-5, atol=1e-5 * np.abs(parts).max())
