"""Every example in a docstring runs and says what it prints; public names have all sections; the README's code runs."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagrt
import pytest

MODULES = sorted(m.name for m in pkgutil.walk_packages(dagrt.__path__, "dagrt.") if m.name != "dagrt._core")
README = (Path(__file__).parent.parent / "README.md").read_text()


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    dagrt.clear_session()
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert not result.failed


DOCUMENTED = (
    "layers",
    "losses",
    "metrics",
    "optimizers",
    "optimizers.schedules",
    "callbacks",
    "initializers",
    "regularizers",
    "constraints",
    "activations",
    "random",
    "ops",
    "utils",
    "models",
)
SECTIONS = ("Args", "Attributes", "Input shape", "Output shape", "Returns", "Raises", "Example", "Reference")


def public(module: str) -> dict[str, Any]:
    """A module's classes and functions, each once, by the name it was made with: its own, or those in `__all__`."""
    path = f"dagrt.{module}"
    namespace = importlib.import_module(path)
    listed = getattr(namespace, "__all__", None)
    things = [getattr(namespace, n) for n in listed or dir(namespace) if not n.startswith("_")]
    things = [t for t in things if inspect.isroutine(t) or inspect.isclass(t)]
    return {t.__name__: t for t in things if str(t.__module__).startswith("dagrt" if listed else path)}


PUBLIC = {f"{module}.{name}": thing for module in DOCUMENTED for name, thing in public(module).items()}


def sections(thing: Any) -> dict[str, str]:
    parts = re.split(rf"^({'|'.join(SECTIONS)}):$", inspect.getdoc(thing) or "", flags=re.M)
    return {"": parts[0].strip(), **dict(zip(parts[1::2], parts[2::2]))}


def undocumented(thing: Any, siblings: dict[str, Any]) -> list[str]:
    """Parameters that neither Args names, nor the Args of a class that it refers to: as for `Dense`."""
    wanted = [
        p.name
        for p in inspect.signature(thing).parameters.values()
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and not p.name.startswith("_")
    ]

    def texts(args: str) -> Iterator[str]:
        yield args
        for other in re.findall(r"as for `(\w+)`", args):
            yield from texts(sections(siblings[other]).get("Args", ""))

    args = "\n".join(texts(sections(thing).get("Args", "")))
    return [name for name in wanted if not re.search(rf"\b{name}\b", args)]


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_sections(name: str) -> None:
    thing, siblings = PUBLIC[name], public(name.rpartition(".")[0])
    found = sections(thing)
    assert found[""], "a summary"
    assert not undocumented(thing, siblings), "Args of these"
    if inspect.isclass(thing):
        assert ">>>" in found.get("Example", ""), "an Example"
        layer = name.startswith("layers.") and issubclass(thing, dagrt.layers.Layer)
        if layer and thing is not dagrt.layers.Layer:
            assert "Input shape" in found and "Output shape" in found
    if any(re.search(r"\braise (?!NotImplementedError)", text) for text in sources(thing)):
        assert "Raises" in found, "Raises"


def sources(thing: Any) -> Iterator[str]:
    for part in vars(thing).values() if inspect.isclass(thing) else [thing]:
        if inspect.isfunction(part) and part.__code__.co_filename != "<string>":  # written by a loop
            yield inspect.getsource(part)


def test_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("h5py")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "tickets.keras").exists() and (tmp_path / "tickets.dagrt").exists()
    assert "department (Dense)" in capsys.readouterr().out
