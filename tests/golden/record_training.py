"""Records what Keras answers to training_cases.py, for tests/test_training.py.

python tests/golden/record_training.py [CASE ...]      # needs keras, jax and h5py; writes training.json beside this

With names of cases, only those are run anew.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")
sys.path.insert(0, str(Path(__file__).parent.parent))

import keras
import training_cases

file = Path(__file__).parent / "training.json"
known = json.loads(file.read_text()) if sys.argv[1:] else {}
found = {}
for name, run in training_cases.CASES.items():
    if name in known and name not in sys.argv[1:]:
        found[name] = known[name]
        continue
    keras.utils.clear_session()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found[name] = training_cases.plain(run(keras))
file.write_text(
    "{\n" + ",\n".join(f"{json.dumps(n)}: {json.dumps(v, separators=(',', ':'))}" for n, v in found.items()) + "\n}\n"
)
print(len(found), "answers of Keras", keras.__version__)
