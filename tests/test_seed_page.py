"""Every code block of the page the project grew from runs as it stands, with `import dagrt as keras`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PAGE = (Path(__file__).parent / "golden" / "seed_page.txt").read_text()
BLOCKS = re.split(r"^# ==== .*\n", PAGE, flags=re.M)[1:]


def namespace_with_data() -> dict[str, Any]:
    """What the page takes for granted: the data of its `fit`."""
    rng = np.random.default_rng(0)
    n = 8
    return {
        "title_data": rng.integers(0, 10000, (n, 100)),
        "body_data": rng.integers(0, 10000, (n, 500)),
        "tags_data": rng.integers(0, 2, (n, 10)).astype("float32"),
        "priority_targets": rng.integers(0, 2, (n, 1)).astype("float32"),
        "department_targets": np.eye(4, dtype="float32")[rng.integers(0, 4, n)],
    }


def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphviz = pytest.importorskip("graphviz")
    monkeypatch.chdir(tmp_path)
    names = namespace_with_data()
    assert len(BLOCKS) == 9
    drawn = False
    for block in BLOCKS:
        code = block.replace("epochs=10", "epochs=1")
        assert code.count("import keras") <= 1
        code = re.sub(r"^import keras$", "import dagrt as keras", code, flags=re.M)
        try:
            exec(compile(code, "seed page", "exec"), names)
        except ImportError as e:  # the program `dot` is not part of Python's packages
            assert "plot_model" in code and "apt install graphviz" in str(e), e
            pytest.skip("Graphviz's program is not installed")
        if "history" in names and not drawn:
            history = names["history"].history
            assert {"loss", "priority_loss", "department_loss", "priority_accuracy", "department_accuracy"} <= set(
                history
            )
            drawn = True
    assert drawn
    assert (tmp_path / "model.png").read_bytes().startswith(b"\x89PNG")
    assert names["autoencoder"].count_params() == 28241
    assert graphviz is not None


@pytest.mark.parametrize("name, parameters", [("inception", None), ("resnet", None), ("autoencoder", 28241)])
def test_page_models_predict(name: str, parameters: int | None) -> None:
    """The page's image models answer for a small batch."""
    import dagrt as keras
    import seed_models

    seed = seed_models.SEEDS[name]
    model = seed.build(keras)
    xs, ys = seed_models.data(seed, 1)
    out = model.predict(xs[0], verbose=0)
    assert out.shape == (1, *ys[0].shape[1:])
    assert np.isfinite(out).all()
    if parameters:
        assert model.count_params() == parameters
