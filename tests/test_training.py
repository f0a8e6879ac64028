"""Training as Keras does it: keys, their order, numbers, hooks, files; see training_cases.py for each promise."""

from __future__ import annotations

import io
import json
import re
import warnings
from pathlib import Path
from typing import Any

import dagrt as keras
import numpy as np
import pytest
import training_cases as cases

pytest.importorskip("h5py")  # checkpoints

GOLDEN = json.loads((Path(__file__).parent / "golden" / "training.json").read_text())


def assert_alike(got: Any, want: Any, where: str) -> None:
    if isinstance(want, list) and isinstance(got, list):
        assert len(got) == len(want), (where, got, want)
        for i, (g, w) in enumerate(zip(got, want)):
            assert_alike(g, w, f"{where}[{i}]")
    elif isinstance(want, float) or isinstance(got, float):
        assert abs(got - want) <= 2e-4 * max(abs(want), 0.05), (where, got, want)
    else:
        assert got == want, (where, got, want)


@pytest.mark.parametrize("name", cases.CASES)
def test_as_keras(name: str) -> None:
    keras.clear_session()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = cases.plain(cases.CASES[name](keras))
    assert_alike(json.loads(json.dumps(got)), GOLDEN[name], name)


# --- what Keras cannot say, or does wrongly --------------------------------------------------------------------------------


def compiled(**kwargs: Any) -> Any:
    keras.clear_session()
    m = cases.one(keras)
    m.compile("sgd", "mse", **kwargs)
    return m


def test_a_flat_list_of_metrics_goes_to_every_head() -> None:
    m = cases.two(keras)
    m.compile("sgd", ["bce", "sparse_categorical_crossentropy"], metrics=["accuracy"])
    history = m.fit(cases.X2, [cases.Y2["p"], cases.Y2["d"]], **cases.QUIET).history
    assert list(history) == ["d_accuracy", "d_loss", "loss", "p_accuracy", "p_loss"]


def test_masked_metrics_while_training_count_valid_places() -> None:
    ids = keras.Input((None,), dtype="int32")
    y = keras.layers.Dense(1)(keras.layers.Embedding(10, 4, mask_zero=True)(ids))
    m = cases.with_formula_weights(keras.Model(ids, y))
    m.compile(
        keras.optimizers.SGD(0.0),
        "mse",
        metrics=["mae"],
        weighted_metrics=[keras.metrics.MeanSquaredError(name="weighted_mse")],
    )
    x, t = np.array([[1, 2, 0, 0], [0, 3, 0, 4]]), cases.numbers(5, (2, 4, 1))
    mask, off = (x != 0)[..., None], np.abs(m.predict(x, verbose=0) - t)
    np.testing.assert_allclose(m.fit(x, t, verbose=0).history["mae"][0], off[mask].mean(), rtol=1e-5)
    w = np.array([1.0, 3.0])
    got = m.evaluate(x, t, sample_weight=w, verbose=0, return_dict=True)
    weights = mask * w[:, None, None]
    np.testing.assert_allclose(got["weighted_mse"], (off**2 * weights).sum() / weights.sum(), rtol=1e-5)
    # Keras's mean of a loss counts valid places; its weights do not change the count.
    np.testing.assert_allclose(got["loss"], (off**2 * weights).sum() / mask.sum(), rtol=1e-5)


def test_objects_with_hooks_need_no_base_class() -> None:
    class Plain:
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def on_epoch_end(self, number: int, values: dict) -> None:
            self.seen.append((number, sorted(values)))

    plain = Plain()
    compiled().fit(cases.X, cases.Y, epochs=2, callbacks=[plain], verbose=0)
    assert plain.seen == [(0, ["loss"]), (1, ["loss"])]


def test_what_callbacks_may_change() -> None:
    m = compiled()

    def change(epoch: int, logs: dict) -> None:
        m.optimizer.learning_rate = 0.0
        m.stop_training = epoch == 1

    weights: list[np.ndarray] = []
    h = m.fit(
        cases.X,
        cases.Y,
        epochs=9,
        verbose=0,
        callbacks=[
            keras.callbacks.LambdaCallback(on_epoch_end=change),
            keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: weights.append(m.get_weights()[0])),
        ],
    )
    assert h.epoch == [0, 1]
    np.testing.assert_array_equal(weights[0], weights[1])


def test_terminate_on_nan() -> None:
    m = compiled()
    before = m.get_weights()
    with pytest.warns(RuntimeWarning, match="NaN"):
        h = m.fit(cases.X, cases.Y * np.nan, epochs=3, callbacks=[keras.callbacks.TerminateOnNaN()], verbose=0)
    assert len(h.history["loss"]) == 1 and np.isnan(h.history["loss"][0])
    for a, b in zip(before, m.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_class_weight_needs_one_head() -> None:
    m = cases.two(keras)
    m.compile("sgd", ["bce", "sparse_categorical_crossentropy"])
    with pytest.raises(ValueError, match="single output"):
        m.fit(cases.X2, [cases.Y2["p"], cases.Y2["d"]], class_weight={0: 1.0, 1: 2.0}, verbose=0)


def test_run_eagerly_runs_the_python_each_step() -> None:
    runs = []

    class Counting(keras.Model):
        def train_step(self, data: Any) -> dict:
            runs.append(1)
            return super().train_step(data)

    x = keras.Input((4,))
    m = Counting(x, keras.layers.Dense(1)(x))
    for eagerly, traces in ((False, 1), (True, 5)):
        runs.clear()
        m.compile("sgd", "mse", run_eagerly=eagerly)
        m.fit(cases.X, cases.Y, batch_size=2, verbose=0)
        assert len(runs) == traces


# --- the progress bar ----------------------------------------------------------------------------------------------------------


def test_progress_in_a_file(capsys: pytest.CaptureFixture) -> None:
    m = compiled(metrics=["mae"])
    m.fit(cases.X, cases.Y, batch_size=2, epochs=2, validation_data=(cases.X[:4], cases.Y[:4]), validation_batch_size=1)
    lines = capsys.readouterr().out.splitlines()
    number = r"\d\.\d{4}(e-\d\d)?"
    want = rf"5/5 ━{{20}} 0s \d+[mu]?s/step - loss: {number} - mae: {number} - val_loss: {number} - val_mae: {number}"
    assert [lines[0], lines[2]] == ["Epoch 1/2", "Epoch 2/2"] and len(lines) == 4
    assert re.fullmatch(want, lines[1]) and re.fullmatch(want, lines[3]), lines
    m.evaluate(cases.X, cases.Y, batch_size=2)
    m.predict(cases.X, batch_size=2)
    evaluated, predicted = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"5/5 ━{{20}} 0s \d+[mu]?s/step - loss: {number} - mae: {number}", evaluated)
    assert re.fullmatch(r"5/5 ━{20} 0s \d+[mu]?s/step", predicted)


def test_one_line_an_epoch(capsys: pytest.CaptureFixture) -> None:
    compiled().fit(cases.X, cases.Y, batch_size=2, verbose=2)
    line = capsys.readouterr().out.strip()
    assert re.fullmatch(r"5/5 - 0s - [1-9]\d*[mu]s/step - loss: [\d.e-]+", line), line


def test_progress_on_a_terminal_redraws_one_line() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    bar = keras.utils.Progbar(4, interval=0, stream=out)
    for step in range(1, 5):
        bar.update(step, [("loss", 1.0 / step)])
    text = out.getvalue()
    assert text.count("\r") == 4 and text.count("\n") == 1 and text.endswith("\n")
    assert "━" * 20 in text.splitlines()[-1] and "4/4" in text
    unknown = Terminal()
    keras.utils.Progbar(None, interval=0, stream=unknown).update(3, [("loss", 2.0)])
    assert "3/Unknown" in unknown.getvalue() and "loss: 2.0000" in unknown.getvalue()
