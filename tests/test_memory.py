"""What a training step adds to the process is what the planner said: activations and gradients in one arena.

Measured in a process of its own: resident memory before and behind the first step of the seed page's convolution models.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
