"""Optimisers and schedules against Keras's numbers: steps, slots by name and value, configs."""

from __future__ import annotations

from typing import Any

import dagrt as keras
import library_cases as cases
import numpy as np
import pytest
from test_layers import CONFIGS, VALUES, as_json, close


def made(name: str) -> tuple[Any, list[Any]]:
    keras.clear_session()
    optimizer = cases.OPTIMIZERS[name](keras)
    variables = [keras.Variable(a, name=f"v{i}") for i, a in enumerate(cases.optimizer_start())]
    optimizer.build(variables)
    return optimizer, variables


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("name", cases.OPTIMIZERS)
def test_steps(name: str, traced: bool) -> None:
    optimizer, variables = made(name)

    def step(*grads: Any) -> Any:
        optimizer.apply(list(grads), variables)
        return optimizer.iterations + 0

    run = keras.function(step) if traced else step
    for n in range(cases.OPTIMIZER_STEPS):
        run(*cases.optimizer_gradients(n))
        for i, v in enumerate(variables):
            close(v.numpy(), VALUES[f"optimizer/{name}/{n}/{i}"], 1e-5, f"step {n}, variable {i}")
    for i, v in enumerate(optimizer.variables):
        close(v.numpy(), VALUES[f"optimizer/{name}/slot/{i}"], 1e-5, v.path)


@pytest.mark.parametrize("name", cases.OPTIMIZERS)
def test_slots_and_configs(name: str) -> None:
    optimizer, _ = made(name)
    assert [[v.path, list(v.shape), v.dtype] for v in optimizer.variables] == CONFIGS[f"optimizer/{name}/variables"]
    assert as_json(optimizer) == CONFIGS[f"optimizer/{name}"]
    again = keras.optimizers.deserialize(CONFIGS[f"optimizer/{name}"])
    assert as_json(again) == CONFIGS[f"optimizer/{name}"]


@pytest.mark.parametrize("name", cases.SCHEDULES)
def test_schedules(name: str) -> None:
    schedule = cases.SCHEDULES[name](keras.optimizers.schedules)
    got = [float(schedule(s)) for s in cases.SCHEDULE_STEPS]
    np.testing.assert_allclose(got, VALUES[f"schedule/{name}"], rtol=2e-5, atol=1e-8)
    assert as_json(schedule) == CONFIGS[f"schedule/{name}"]


def test_the_learning_rate_is_live() -> None:
    optimizer, variables = made("sgd")
    step = keras.function(lambda g, h: (optimizer.apply([g, h], variables), optimizer.iterations + 0)[1])
    zero = [np.zeros_like(g) for g in cases.optimizer_gradients(0)]
    before = variables[0].numpy()
    step(zero[0] + 1, zero[1])
    optimizer.learning_rate = 0.5
    step(zero[0] + 1, zero[1])
    np.testing.assert_allclose(before - variables[0].numpy(), 0.6, atol=1e-6)


def test_excluded_from_decay() -> None:
    optimizer = keras.optimizers.SGD(0.1, weight_decay=0.5)
    kernel, bias = (
        keras.Variable(np.ones(2, "float32"), name="kernel"),
        keras.Variable(np.ones(2, "float32"), name="bias"),
    )
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build([kernel, bias])
    optimizer.apply([np.zeros(2, "float32")] * 2, [kernel, bias])
    np.testing.assert_allclose(kernel.numpy(), 0.95)
    np.testing.assert_allclose(bias.numpy(), 1.0)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="Only one"):
        keras.optimizers.SGD(clipnorm=1.0, clipvalue=1.0)
    with pytest.raises(ValueError, match="adam"):
        keras.optimizers.get("adm")
    with pytest.raises(ValueError, match="decay_steps"):
        keras.optimizers.schedules.ExponentialDecay(0.1, 0, 0.5)
    optimizer, variables = made("adam")
    with pytest.raises(ValueError, match="gradients"):
        optimizer.apply([np.zeros((3, 4))], variables)
    with pytest.raises(ValueError, match="does not know"):
        optimizer.apply([np.zeros(2)], [keras.Variable(np.zeros(2, "float32"))])
    with pytest.raises(ValueError, match="No gradients"):
        optimizer.apply([None, None], variables)
