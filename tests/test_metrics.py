"""Metrics against Keras's numbers: two batches, with and without weights, in eager calls and inside a traced function."""

from __future__ import annotations

from typing import Any

import dagrt as keras
import library_cases as cases
import numpy as np
import pytest
from test_layers import CONFIGS, VALUES, as_json, close, without_extras


def made(name: str) -> Any:
    cls, own, _ = cases.METRICS[name]
    keras.clear_session()
    return getattr(keras.metrics, cls)(**own)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", cases.METRICS)
def test_values(name: str, weighted: bool) -> None:
    t, p = cases.metric_data(name)
    w = cases.WEIGHTS if weighted else None
    key = f"metric/{name}/{int(weighted)}"
    if key + "/0" not in VALUES:
        pytest.skip("Keras refuses these weights")
    m = made(name)
    m.update_state(t, p, w)
    close(m.result(), VALUES[key + "/0"], 3e-6, key)
    m.update_state(t[::-1].copy(), p, w)
    close(m.result(), VALUES[key + "/1"], 3e-6, key)
    m.reset_state()
    m.update_state(t, p, w)
    close(m.result(), VALUES[key + "/0"], 3e-6, key)


@pytest.mark.parametrize("name", cases.METRICS)
def test_in_a_trace(name: str) -> None:
    t, p = cases.metric_data(name)
    m = made(name)
    m.update_state(t, p)  # makes the state of those that have none before
    m.reset_state()

    @keras.function
    def step(a: Any, b: Any) -> Any:
        m.update_state(a, b)
        return m.result()

    close(step(t, p), VALUES[f"metric/{name}/0/0"], 3e-6, name)
    close(step(t[::-1].copy(), p), VALUES[f"metric/{name}/0/1"], 3e-6, name)


@pytest.mark.parametrize("name", cases.METRICS)
def test_configs(name: str) -> None:
    m = made(name)
    t, p = cases.metric_data(name)
    m.update_state(t, p)
    assert without_extras(as_json(m)) == CONFIGS[f"metric/{name}"]
    assert [[v.name, list(v.shape)] for v in m.variables] == CONFIGS[f"metric/{name}/variables"]
    again = keras.metrics.deserialize(CONFIGS[f"metric/{name}"])
    assert without_extras(as_json(again)) == without_extras(as_json(m))


def test_mean_and_sum() -> None:
    mean, total = keras.metrics.Mean(), keras.metrics.Sum()
    for m in (mean, total):
        m.update_state([1.0, 3.0, 5.0], sample_weight=[1.0, 1.0, 0.0])
        m.update_state(4.0)
    assert float(mean.result()) == pytest.approx(8 / 3) and float(total.result()) == 8.0
    assert float(keras.metrics.Mean().result()) == 0.0


def test_one_s_own_metric_and_function() -> None:
    class Largest(keras.metrics.Metric):
        def __init__(self) -> None:
            super().__init__(name="largest")
            self.value = self.add_variable((), "zeros", name="value")

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            self.value.assign(keras.ops.maximum(self.value, keras.ops.max(y_pred)))

        def result(self) -> Any:
            return self.value.value

    m = Largest()
    assert float(m(np.ones(3), np.array([1.0, 5.0, 2.0], "float32"))) == 5.0
    m.reset_state()
    assert float(m.result()) == 0.0
    own = keras.metrics.MeanMetricWrapper(lambda t, p: keras.ops.absolute(t - p), name="own")
    assert float(own(np.zeros(2, "float32"), np.array([1.0, 3.0], "float32"))) == 2.0


def test_refusals() -> None:
    with pytest.raises(ValueError, match="accuracy"):
        keras.metrics.get("acuracy")
    with pytest.raises(ValueError, match="num_thresholds"):
        keras.metrics.AUC(num_thresholds=1)
    with pytest.raises(ValueError, match="curve"):
        keras.metrics.AUC(curve="LIFT")
    with pytest.raises(ValueError, match="Threshold"):
        keras.metrics.Precision(thresholds=2.0)
