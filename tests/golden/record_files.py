"""Records .keras files that Keras writes, with what the loaded model must answer, for tests/test_keras_files.py.

python tests/golden/record_files.py        # needs keras, jax and h5py; writes files/ beside this file
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")
sys.path.insert(0, str(Path(__file__).parent.parent))

import file_models
import keras
import numpy as np

folder = Path(__file__).parent / "files"
folder.mkdir(exist_ok=True)
for name in file_models.MODELS:
    keras.utils.clear_session()
    model, x, y = file_models.trained(keras, name)
    model.save(folder / f"{name}.keras")
    outputs = keras.tree.flatten(model.predict(x, verbose=0))
    np.savez(folder / f"{name}.npz", *outputs, loss=model.train_on_batch(x, y, return_dict=True)["loss"])
