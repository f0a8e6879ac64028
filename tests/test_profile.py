"""The profiler: what it records, its table, trace and picture; and that it leaves nothing behind."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import dagrt as keras
import numpy as np
import pytest
from dagrt import _core, profiling


def small_model() -> Any:
    inputs = keras.Input((8, 8, 3), name="image")
    inner = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.Conv2D(5, 3, name="inner_conv")], name="inner")
    x = inner(keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="outer_conv")(inputs))
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(keras.layers.GlobalAveragePooling2D()(x)), name="net")


X = np.ones((3, 8, 8, 3), "float32")


def test_steps_name_layers_and_count_work() -> None:
    result = small_model().profile(X, runs=4)
    assert result.runs == 4
    convolutions = [s for s in result.steps if "outer_conv" in s["path"] and s["flops"] > 1e4]
    assert convolutions, "the convolution is among the steps"
    products = 3 * 8 * 8 * 9 * 3 * 4
    assert all(s["flops"] >= 2 * products for s in convolutions)
    assert all(s["end_ns"] >= s["begin_ns"] >= 0 for s in result.steps)
    rows = result.rows()
    assert sum(r["share"] for r in rows) == pytest.approx(1)
    assert rows == sorted(rows, key=lambda r: -r["total_ns"])
    assert any("inner_conv" in p for p in result.by_layer())


def test_table_reads_as_a_table() -> None:
    text = str(small_model().profile(X, runs=2))
    lines = text.splitlines()
    assert "GFLOP/s" in lines[0] and "roof" in lines[0]
    assert any("outer_conv" in line for line in lines)
    assert "a run over 2 runs" in lines[-1] and "the machine reaches" in lines[-1]


def test_a_runs_time_counts_steps_at_once_but_once() -> None:
    step = {"path": "a", "op": "matmul", "device": "cpu", "shapes": "", "flops": 1.0, "bytes": 1.0, "thread": 0}
    times = [(0, 0, 8000), (0, 1000, 3000), (0, 2000, 9000), (0, 10000, 11000), (1, 3000, 5000), (1, 4000, 6000)]
    steps = [step | {"run": run, "begin_ns": begin, "end_ns": end} for run, begin, end in times]
    last = str(profiling.Profile(steps)).splitlines()[-1]  # (9 + 1 + 3) / 2
    assert last.split(" a run")[0].strip() == "6.5 µs"


def test_layers_of_a_batch_in_parts_at_once_are_all_there() -> None:
    inputs = keras.Input((784,))
    x = keras.layers.Dense(64, activation="relu", name="wide")(inputs)
    x = keras.layers.Dense(32, activation="relu", name="narrow")(x)
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax", name="head")(x))
    result = model.profile(np.ones((32, 784), "float32"), runs=2)
    products = {
        layer: sum(s["flops"] for s in result.steps if layer in s["path"] and s["op"] != "scan")
        for layer in ("wide", "head")
    }
    assert products["wide"] >= 2 * 2 * 32 * 784 * 64
    assert products["head"] >= 2 * 2 * 32 * 32 * 10


def test_a_scan_counts_by_its_bodys_steps() -> None:
    inputs = keras.Input((6, 5))
    result = keras.Model(inputs, keras.layers.GRU(4)(inputs)).profile(np.ones((2, 6, 5), "float32"), runs=2)
    assert {"scan"} < {s["op"] for s in result.steps}
    rows = result.rows()
    assert all(r["op"] != "scan" for r in rows)
    assert any(r["calls"] == 12 for r in rows), "each of six steps, twice"
    assert sum(r["share"] for r in rows) == pytest.approx(1)
    spent = sum(s["end_ns"] - s["begin_ns"] for s in result.steps if s["op"] != "scan")
    assert 0 < sum(result.by_layer().values()) <= spent / 2  # some steps are the compiler's


def test_trace_is_chromes(tmp_path: Path) -> None:
    model = small_model()
    model.compile("sgd", "mse")
    with keras.profile(tmp_path / "trace.json") as p:
        model.fit(X, np.ones((3, 2)), epochs=2, verbose=0)
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert len(events) == len(p.steps) > 4
    assert all(e["ph"] == "X" and e["dur"] >= 0 for e in events)
    assert any("sgd" in e["name"] or "grad" in e["name"] for e in events)


def test_picture_colours_nested_layers(tmp_path: Path) -> None:
    pytest.importorskip("graphviz")
    path = small_model().profile(X, runs=2).plot(tmp_path / "p.svg")
    text = Path(path).read_text()
    assert "inner_conv" in text and "%" in text and "#" in text


def test_off_again_afterwards() -> None:
    model = small_model()
    with pytest.raises(ValueError, match="runs must be at least 1"):
        model.profile(X, runs=0)
    with keras.profile():
        with pytest.raises(keras.GraphError, match="on already"), keras.profile():
            pass
        model.predict(X, verbose=0)
    model.predict(X, verbose=0)
    with keras.profile() as later:
        pass
    assert later.steps == []
    with pytest.raises(ZeroDivisionError), keras.profile():
        raise ZeroDivisionError
    with keras.profile():
        pass
    with pytest.raises(ValueError, match="give the model"):
        later.plot("never.png")


def test_threads_are_told_apart() -> None:
    model = small_model()
    model.predict_on_batch(X)
    with keras.profile() as p:
        others = [threading.Thread(target=model.predict_on_batch, args=(X,)) for _ in range(2)]
        for t in others:
            t.start()
        for t in others:
            t.join()
        model.predict_on_batch(X)
    assert p.runs == 3
    assert {s["thread"] for s in p.steps} <= {0, 1, 2} and len({s["run"] for s in p.steps}) == 3


def test_roofline_is_plausible() -> None:
    roof = _core.measure_roofline(1)
    assert 5e8 < roof["flops_per_s"] < 1e12 and 1e8 < roof["bytes_per_s"] < 1e12
