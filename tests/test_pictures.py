"""summary() and plot_model()."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import dagrt as keras
import pytest


def nested() -> Any:
    keras.clear_session()
    i = keras.Input((8,), name="inp")
    x = keras.layers.Dense(4, name="d1")(i)
    z = keras.layers.Add()([x, keras.layers.Dense(4)(i)]) + 1.0
    inner = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), keras.layers.BatchNormalization()], name="inner"
    )
    return keras.Model(i, [inner(z), keras.layers.Dense(2)(x)])


def test_summary_as_keras_prints_it() -> None:
    lines: list[str] = []
    nested().summary(print_fn=lines.append)
    text = lines[0]
    assert 'Model: "functional' in text
    for part in ("Layer (type)", "Connected to", "inp (InputLayer)", "(None, 8)", "d1[0][0],", "inner (Sequential)"):
        assert part in text, text
    assert (
        " Total params: 109 (436.00 B)\n Trainable params: 103 (412.00 B)\n Non-trainable params: 6 (24.00 B)" in text
    )
    widths = {len(line) for line in text.splitlines() if line[:1] in "┏┃┡│├└"}
    assert len(widths) == 1, "the table's lines must have one width"


def test_summary_of_nested_and_unbuilt_models() -> None:
    lines: list[str] = []
    nested().summary(print_fn=lines.append, expand_nested=True, show_trainable=True)
    assert "└ dense_1" in lines[0]
    keras.Sequential([keras.layers.Dense(3)]).summary(print_fn=lines.append)
    assert "?" in lines[1] and "0 (unbuilt)" in lines[1]


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz's program is not installed")
def test_plot_model(tmp_path: Path) -> None:
    pytest.importorskip("graphviz")
    m = nested()
    keras.utils.plot_model(m, tmp_path / "m.png", show_shapes=True, show_layer_names=True)
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
    keras.utils.plot_model(m, str(tmp_path / "m.svg"), expand_nested=True, show_layer_names=True)
    svg = (tmp_path / "m.svg").read_text()
    assert "<svg" in svg and "batch_normalization" in svg and "inner" in svg
    with pytest.raises(ValueError, match="ending"):
        keras.utils.plot_model(m, tmp_path / "m.xyz")


def test_plot_without_graphviz_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("graphviz")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImportError, match="apt install graphviz"):
        keras.utils.plot_model(nested(), tmp_path / "m.png")
    assert not (tmp_path / "m.png").exists()
