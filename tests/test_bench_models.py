"""The models that bench/ measures build, and each has rows for prediction of one, of many, and for training."""

from __future__ import annotations

import sys
from pathlib import Path

import dagrt
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
import models

# Trainable and other weights, as the papers and keras.applications count them; ours have no second bias anywhere.
PARAMETERS = {"resnet50": 25_636_712, "mobilenet_v2": 3_538_984}


@pytest.mark.parametrize("name", list(models.MODELS))
def test_model_builds(name: str) -> None:
    dagrt.clear_session()
    model = models.MODELS[name].build(dagrt)
    if name in PARAMETERS:
        assert model.count_params() == PARAMETERS[name]
    rows = [r for r in models.ROWS if r.model == name]
    assert {r.mode for r in rows} == {"predict", "train"}
    assert {r.batch for r in rows if r.mode == "predict"} >= {1}
    assert max(r.batch for r in rows if r.mode == "predict") > 1


def test_a_small_model_computes() -> None:
    dagrt.clear_session()
    row = next(r for r in models.ROWS if r.label == "wide_mlp, batch 1")
    model = models.build(dagrt, row.model)
    xs, _ = models.batch_of(row)
    y = model.predict_on_batch(xs[0])
    assert y.shape == (1, 100)
    assert abs(float(y.sum()) - 1) < 1e-5
