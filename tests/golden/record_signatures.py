"""Records the signatures of Keras's public classes and functions that dagrt has too, for tests/test_signatures.py.

python tests/golden/record_signatures.py        # needs keras and jax; writes signatures.json beside this file
"""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import dagrt
import keras

MODULES = [
    "",
    "activations",
    "callbacks",
    "constraints",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "optimizers.schedules",
    "random",
    "regularizers",
    "saving",
    "utils",
]
METHODS = {
    "Model": "compile fit evaluate predict train_on_batch test_on_batch predict_on_batch compute_loss compute_metrics "
    "summary save save_weights load_weights get_layer get_weights set_weights count_params get_config from_config",
    "layers.Layer": "add_weight add_loss build call compute_output_shape compute_mask get_config from_config "
    "save_own_variables load_own_variables count_params get_weights set_weights",
    "Sequential": "add pop",
    "optimizers.Optimizer": "build apply apply_gradients get_config",
    "metrics.Metric": "update_state result reset_state add_weight",
    "callbacks.Callback": " ".join(
        [f"on_{mode}_batch_{when}" for mode in ("train", "test", "predict") for when in ("begin", "end")]
        + [f"on_{mode}_{when}" for mode in ("train", "test", "predict", "epoch", "batch") for when in ("begin", "end")]
        + ["set_model", "set_params"]
    ),
}


def inside(root: Any, path: str) -> Any:
    for name in path.split("."):
        root = getattr(root, name, None) if name else root
    return root


def text(fn: Any) -> str:
    s = inspect.signature(fn)
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in s.parameters.values()]
    return str(s.replace(parameters=plain, return_annotation=inspect.Signature.empty))


found: dict[str, str] = {}
for module in MODULES:
    theirs, ours = inside(keras, module), inside(dagrt, module)
    for name in sorted(dir(theirs)):
        path = f"{module}.{name}".lstrip(".")
        fn = getattr(theirs, name)
        if not name.startswith("_") and callable(fn) and callable(getattr(ours, name, None)):
            found[path] = text(fn)
for owner, names in METHODS.items():
    for name in names.split():
        found[f"{owner}.{name}"] = text(inside(keras, f"{owner}.{name}"))
(Path(__file__).parent / "signatures.json").write_text(json.dumps(found, indent=0) + "\n")
print(len(found), "signatures of Keras", keras.__version__)
