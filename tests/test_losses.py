"""Losses against Keras's numbers: values under every reduction and weights, gradients, configs."""

from __future__ import annotations

from typing import Any

import dagrt as keras
import library_cases as cases
import numpy as np
import pytest
from test_layers import CONFIGS, VALUES, as_json, close, without_extras


def made(name: str, **kwargs: Any) -> Any:
    cls, own, _ = cases.LOSSES[name]
    return getattr(keras.losses, cls)(**own, **kwargs)


@pytest.mark.parametrize("name", cases.LOSSES)
def test_values(name: str) -> None:
    t, p = cases.loss_data(name)
    for reduction in cases.REDUCTIONS:
        for weighted in (False, True):
            key = f"loss/{name}/{reduction}/{int(weighted)}"
            if key in VALUES:
                got = made(name, reduction=reduction)(t, p, cases.WEIGHTS if weighted else None)
                close(got, VALUES[key], 3e-6, key)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", cases.LOSSES)
def test_gradients(name: str, weighted: bool) -> None:
    key = f"loss/{name}/sum_over_batch_size/{int(weighted)}/gradient"
    if key not in VALUES:
        pytest.skip("Keras has no such weights")
    t, p = cases.loss_data(name)
    v = keras.Variable(p)
    _, g = keras.value_and_grad(lambda: made(name)(t, v.value, cases.WEIGHTS if weighted else None), v)()
    close(g, VALUES[key], 1e-5, key)


@pytest.mark.parametrize("name", cases.LOSSES)
def test_configs(name: str) -> None:
    loss = made(name)
    assert without_extras(as_json(loss)) == CONFIGS[f"loss/{name}"]
    again = keras.losses.deserialize(CONFIGS[f"loss/{name}"])
    assert without_extras(as_json(again)) == without_extras(as_json(loss))


@pytest.mark.parametrize(
    "name", ["mse", "mae", "bce", "categorical_crossentropy", "MeanSquaredError", "huber", "kl_divergence"]
)
def test_get(name: str) -> None:
    assert keras.losses.get(name) is not None


def test_a_mask_on_the_prediction_counts_valid_places_only() -> None:
    t, p = cases.loss_data("mse")
    masked = keras.ops.convert_to_tensor(p)
    masked._keras_mask = keras.ops.convert_to_tensor(np.array([True, False, True, False]))
    want = np.square(t - p).mean(1)[[0, 2]].mean()
    assert abs(float(keras.losses.MeanSquaredError()(t, masked)) - want) < 1e-6


def test_refusals() -> None:
    with pytest.raises(ValueError, match="categorical_crossentropy"):
        keras.losses.get("categorical_crosentropy")
    with pytest.raises(ValueError, match="reduction"):
        keras.losses.MeanSquaredError(reduction="average")
    with pytest.raises(NotImplementedError, match="call"):
        keras.losses.Loss()(np.ones(3), np.ones(3))
