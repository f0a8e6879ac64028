"""Records what Keras (JAX backend) computes for tests/ops_cases.py: values, dtypes and the names of ops in the layer graph.

    KERAS_BACKEND=jax python tests/golden/ops/record.py

writes values.npz and types.json beside it. Needs keras and jax; the tests that read the files do not.
"""

import json
import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import keras
import numpy as np
import ops_cases as cases
from keras import ops

jax.config.update("jax_default_matmul_precision", "highest")
here = Path(__file__).resolve().parent
values: dict[str, np.ndarray] = {}
types: dict[str, object] = {}

for name, (fn, arrays) in cases.CASES.items():
    try:
        got = fn(ops, *[ops.convert_to_tensor(a) for a in arrays])
    except Exception as e:
        sys.exit(f"{name}: Keras refuses the expression: {e}")
    for i, g in enumerate(got if isinstance(got, (list, tuple)) else [got]):
        values[f"{name}/{i}"] = np.asarray(g)
    keras.backend.clear_session()
    try:
        out = fn(ops, *[keras.KerasTensor(a.shape, dtype=str(a.dtype)) for a in arrays])
        out = out[0] if isinstance(out, (list, tuple)) else out
        operation = out._keras_history[0]
        types[f"node/{name}"] = [operation.name, type(operation).__name__]
    except Exception as e:  # Keras's own symbolic call fails here
        print("no node:", name, type(e).__name__, str(e)[:80].replace("\n", " "))
for name, make in cases.MADE.items():
    values[f"made {name}/0"] = np.asarray(make(ops))


def symbol(dtype: str) -> keras.KerasTensor:
    return keras.KerasTensor((2, 2), dtype=dtype)


# Keras cuts int64 to int32 in what it promotes here, JAX's 64-bit types being off; dagrt keeps it. uint32 does not exist.
for f in cases.PROMOTED:
    types[f"pair/{f}"] = {
        f"{a} {b}": getattr(ops, f)(symbol(a), symbol(b)).dtype for a in cases.DTYPES for b in cases.DTYPES
    }
    types[f"number/{f}"] = {
        f"{a} {n!r}": getattr(ops, f)(symbol(a), n).dtype for a in cases.DTYPES for n in (1, 1.5) if f != "arctan2"
    }
for f in cases.UNARY:
    types[f"unary/{f}"] = {a: getattr(ops, f)(symbol(a)).dtype for a in cases.DTYPES}
np.savez_compressed(here / "values.npz", **values)
(here / "types.json").write_text(json.dumps(types, indent=0, sort_keys=True) + "\n")
