"""Ctrl-C: noticed within about 100 ms, even in a long step; the model is as after the last whole step."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import dagrt as keras
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")


def interrupted_after(seconds: float, run: Any) -> float:
    """Runs until a SIGINT sent after `seconds` raises; the time between both."""
    sent: list[float] = []

    def send() -> None:
        time.sleep(seconds)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=send)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            run()
        return time.monotonic() - sent[0]
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)


def test_in_a_long_step() -> None:
    """One step is long on most machines, so that the signal comes in the middle of it. Whatever steps were whole count,
    no other: replaying as many gives the same bits."""
    keras.clear_session()
    x = keras.Input((1024,))
    y = x
    for _ in range(6):
        y = keras.layers.Dense(1024, activation="relu")(y)
    model = keras.Model(x, keras.layers.Dense(1)(y))
    model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), "mse")
    data = np.ones((4096, 1024), "float32")
    step = {"batch_size": len(data), "verbose": 0}
    model.train_on_batch(data[:4], data[:4, :1])
    state = lambda: [v.numpy() for v in [*model.variables, *model.optimizer.variables]]  # noqa: E731
    start = state()
    waited = interrupted_after(1.0, lambda: model.fit(data, data[:, :1], epochs=10**6, **step))
    assert waited < 1.0, f"noticed after {waited:.2f} s"  # 0.1 s by itself; a loaded machine takes its time
    stopped, steps = state(), int(np.asarray(model.optimizer.iterations)) - 1
    for v, a in zip([*model.variables, *model.optimizer.variables], start):
        v.assign(a)
    if steps:
        model.fit(data, data[:, :1], epochs=steps, **step)
    for a, b in zip(stopped, state()):
        np.testing.assert_array_equal(a, b)
    assert np.isfinite(model.train_on_batch(data[:4], data[:4, :1]))


def test_between_steps() -> None:
    keras.clear_session()
    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.Dense(1)(x))
    model.compile("adam", "mse")
    data = np.ones((64, 4), "float32")
    interrupted_after(0.3, lambda: model.fit(data, data[:, :1], epochs=10**9, verbose=0))
    steps = int(np.asarray(model.optimizer.iterations))
    assert steps > 0
    model.fit(data, data[:, :1], verbose=0)
    assert int(np.asarray(model.optimizer.iterations)) == steps + 2


def test_while_the_first_step_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots of the optimizer and metrics are made while tracing: an interruption leaves none or all of them."""
    keras.clear_session()
    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.Dense(1)(keras.layers.Dense(3)(x)))
    data = np.ones((8, 4), "float32")
    for target, name in (
        (keras.optimizers.Adam, "add_variable_from_reference"),
        (keras.metrics.Metric, "add_variable"),
    ):
        model.compile("adam", "mse", metrics=["mae", "mse"])
        whole, left = getattr(target, name), [3]

        def interrupting(self: Any, *args: Any, **kwargs: Any) -> Any:
            left[0] -= 1  # noqa: B023
            if left[0] == 0:  # noqa: B023
                raise KeyboardInterrupt
            return whole(self, *args, **kwargs)  # noqa: B023

        monkeypatch.setattr(target, name, interrupting)
        with pytest.raises(KeyboardInterrupt):
            model.fit(data, data[:, :1], verbose=0)
        history = model.fit(data, data[:, :1], verbose=0).history
        monkeypatch.undo()
        assert list(history) == ["loss", "mae", "mse"] and int(np.asarray(model.optimizer.iterations)) == 1
        assert len(model.optimizer.variables) == 2 + 2 * len(model.trainable_variables)
