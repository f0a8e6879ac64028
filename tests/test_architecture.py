"""Who may include whom: base <- ir <- ops <- passes <- runtime <- api <- bindings, tools; base <- kernels <- ops."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BELOW = {
    "base": set(),
    "ir": {"base"},
    "kernels": {"base"},
    "ops": {"base", "ir", "kernels"},
    "passes": {"base", "ir", "ops"},
    "runtime": {"base", "ir", "ops", "passes"},
    "io": {"base", "ir"},
    "api": {"base", "ir", "ops", "passes", "runtime", "io"},
    "bindings": {"base", "ir", "ops", "passes", "runtime", "io", "api", "kernels"},
    "tools": {"base", "io", "api"},
}


@pytest.mark.parametrize("folder", BELOW)
def test_includes_go_down(folder: str) -> None:
    files = [p for p in (ROOT / "csrc" / folder).rglob("*") if p.suffix in (".h", ".cpp", ".cu", ".cuh")]
    assert files, f"csrc/{folder} is empty"
    for path in files:
        for included in re.findall(r'^#include "([a-z_]+)/', path.read_text(), flags=re.M):
            assert included in BELOW[folder] | {folder}, f"{path.relative_to(ROOT)} includes {included}/"


def test_isa_files_use_no_std_containers() -> None:
    for path in (ROOT / "csrc" / "kernels" / "cpu").iterdir():
        found = re.findall(r"std::(vector|string|map|function|sort|unordered_map)\b", path.read_text())
        assert not found, f"{path.name} uses std::{found[0]}: the linker may keep another instruction set's copy"


def test_every_kernel_has_a_cuda_twin() -> None:
    """Or is declared by DAGRT_CPU_KERNEL, as what algorithms of the CPU's alone call. A CUDA build would not link else."""
    twins = "".join(p.read_text() for p in (ROOT / "csrc" / "kernels" / "cuda").glob("*.cu"))
    missing = []
    for path in (ROOT / "csrc" / "kernels").glob("*.h"):
        for name in re.findall(r"^DAGRT_KERNEL\((\w+), \w+\)", path.read_text(), flags=re.M):
            if not re.search(rf"^void {name}\(const \w+& \w+, CudaStream& \w+\)", twins, flags=re.M):
                missing.append(f"{name} ({path.name})")
    assert not missing, f"kernels without a twin in kernels/cuda: {missing}"


def test_nothing_says_to_install_the_wrong_distribution() -> None:
    wrong = "pip install " + "dagrt"
    for path in [
        ROOT / "README.md",
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("python/**/*.py"),
        *ROOT.glob("examples/*.py"),
    ]:
        assert not re.search(wrong + r"(?!-runtime)", path.read_text()), path
