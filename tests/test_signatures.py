"""Names, argument order and defaults are Keras's, as golden/record_signatures.py recorded them.

A signature may have more arguments than Keras's, behind them and with defaults; any other difference is listed here
with its reason.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import dagrt as keras
import pytest

SIGNATURES: dict[str, str] = json.loads((Path(__file__).parent / "golden" / "signatures.json").read_text())

DIFFERENT: dict[str, str] = {
    "KerasTensor": "made by Input and layer calls only; ragged tensors do not exist",
}

# What issue 2's users write, whatever else is there.
PROMISED = {
    "layers": "Dense Embedding LSTM Conv2D Conv2DTranspose MaxPooling2D AveragePooling2D GlobalAveragePooling2D "
    "GlobalMaxPooling2D UpSampling2D ZeroPadding2D Reshape Flatten Permute BatchNormalization LayerNormalization "
    "Dropout Activation ReLU LeakyReLU Softmax Rescaling Add Subtract Multiply Average Maximum Minimum Concatenate Dot "
    "add subtract multiply average maximum minimum concatenate dot Input InputLayer Layer",
    "losses": "CategoricalCrossentropy SparseCategoricalCrossentropy BinaryCrossentropy MeanSquaredError "
    "MeanAbsoluteError Huber KLDivergence categorical_crossentropy sparse_categorical_crossentropy binary_crossentropy",
    "metrics": "Accuracy BinaryAccuracy CategoricalAccuracy SparseCategoricalAccuracy MeanSquaredError "
    "MeanAbsoluteError Mean Sum",
    "optimizers": "SGD RMSprop Adam AdamW",
    "callbacks": "History EarlyStopping ModelCheckpoint ReduceLROnPlateau LearningRateScheduler CSVLogger "
    "TerminateOnNaN LambdaCallback Callback",
    "utils": "plot_model model_to_dot set_random_seed clear_session to_categorical PyDataset Progbar",
    "": "Input Model Sequential Variable Layer",
}


def inside(path: str) -> Any:
    found: Any = keras
    for name in path.split("."):
        found = getattr(found, name)
    return found


def parameters(text: str) -> list[tuple[str, str]]:
    """(name with its stars, default as text) of a signature's text; defaults may be any expression."""
    inner, depth, parts = text[1:-1], 0, [""]
    for c in inner:
        depth += (c in "([{") - (c in ")]}")
        if c == "," and not depth:
            parts.append("")
        else:
            parts[-1] += c
    pairs = [p.strip().partition("=") for p in parts if p.strip()]
    return [(name, default) for name, _, default in pairs]


def signature(fn: Any) -> list[tuple[str, str]]:
    s = inspect.signature(fn)
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in s.parameters.values()]
    return parameters(str(s.replace(parameters=plain, return_annotation=inspect.Signature.empty)))


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name: str) -> None:
    if name in DIFFERENT:
        pytest.skip(DIFFERENT[name])
    want, got = parameters(SIGNATURES[name]), signature(inside(name))
    fixed = [p for p in want if not p[0].startswith("*")]
    assert [p for p in got if not p[0].startswith("*")][: len(fixed)] == fixed
    for extra, default in got[len(fixed) :]:
        assert default or extra.startswith("*"), f"{extra} has no default"


@pytest.mark.parametrize("module", PROMISED)
def test_promised_names_are_there_and_recorded(module: str) -> None:
    missing = [n for n in PROMISED[module].split() if f"{module}.{n}".lstrip(".") not in SIGNATURES]
    assert not missing
