"""The examples run, and what they claim holds, on less work than they do by themselves."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["gan", "vae"])
def test_short(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 60


def test_gan() -> None:
    before, after = example("gan").main(epochs=15, verbose=0)
    assert after < before / 2


def test_vae() -> None:
    pytest.importorskip("sklearn")
    loss, mean_image = example("vae").main(epochs=12, verbose=0)
    assert loss < mean_image


@pytest.mark.slow
def test_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    assert example("digits").main() >= 0.98


def catalogue(folder: Path) -> None:
    """A small catalogue in Debian's form, with words that tell the sections apart."""
    rng = np.random.default_rng(0)
    words = {"games": "play level score", "net": "socket proxy server", "libs": "shared runtime linking"}
    packages, bodies = [], []
    for i in range(240):
        section = list(words)[i % 3]
        title, body = (" ".join(rng.choice(words[section].split(), 4)) for _ in range(2))
        name = f"{'lib' if section == 'libs' else ''}p{i}"
        packages.append(f"Package: {name}\nSection: {section}\nDescription: {title}\nTag: use::{section}, x::y\n")
        bodies.append(f"Package: {name}\nDescription-en: {title}\n {body}\n")
    lists = folder / "lists"
    lists.mkdir()
    (lists / "debian_dists_main_binary_Packages").write_text("\n".join(packages))
    (lists / "debian_dists_main_i18n_Translation-en").write_text("\n".join(bodies))


def test_tickets_on_a_small_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tickets.py", "--cache", str(tmp_path), "--epochs", "8"])
    better = example("tickets").main()
    assert better["section"] > 0.2 and better["library"] > 0.1


def test_tickets_without_a_network_says_so(tmp_path: Path) -> None:
    fake = tmp_path / "bin" / "apt-get"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'W: Temporary failure resolving deb.debian.org' >&2\nexit 0\n")
    fake.chmod(0o755)
    done = subprocess.run(
        [sys.executable, EXAMPLES / "tickets.py", "--cache", tmp_path / "cache"],
        env={"PATH": f"{fake.parent}:/usr/bin:/bin", "PYTHONPATH": ":".join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "is there a network?" in done.stderr and "Temporary failure" in done.stderr
