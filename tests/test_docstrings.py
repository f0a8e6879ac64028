"""Every example in a docstring runs and says what it prints; the README's code runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import dagrt
import pytest

MODULES = sorted(m.name for m in pkgutil.walk_packages(dagrt.__path__, "dagrt.") if m.name != "dagrt._core")
README = (Path(__file__).parent.parent / "README.md").read_text()


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    dagrt.clear_session()
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert not result.failed


def test_public_names_have_docstrings() -> None:
    for module in ("layers", "losses", "metrics", "optimizers", "callbacks", "initializers", "utils", "ops", "models"):
        namespace = importlib.import_module(f"dagrt.{module}")
        for name in getattr(namespace, "__all__", dir(namespace)):
            thing = getattr(namespace, name)
            if not name.startswith("_") and callable(thing) and getattr(thing, "__module__", "").startswith("dagrt"):
                assert (thing.__doc__ or "").strip(), f"dagrt.{module}.{name}"


def test_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("h5py")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "tickets.keras").exists() and (tmp_path / "tickets.dagrt").exists()
    assert "department (Dense)" in capsys.readouterr().out
