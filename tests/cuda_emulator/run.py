"""Runs pytest on an emulated CUDA device: `python tests/cuda_emulator/run.py BUILD KIND [pytest's arguments]`.

BUILD is a build folder made with -DDAGRT_EMULATED=ON, KIND is plain, races or asan (cmake/emulator.cmake). The package that is
tested is python/dagrt of this tree with that build's extension; an installed one is not looked at.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def library(name: str) -> str:
    return subprocess.run(
        ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()


def main(build: str, kind: str, *arguments: str) -> None:
    package = Path(build).resolve() / "emulated" / kind / "dagrt"
    if not list(package.glob("_core*.so")):
        sys.exit(f"run.py: there is no extension in {package}: build {build} with -DDAGRT_EMULATED=ON")
    for link in package.iterdir():
        if link.is_symlink():
            link.unlink()
    for source in (ROOT / "python" / "dagrt").iterdir():
        if source.suffix != ".so" and source.name != "__pycache__":
            (package / source.name).symlink_to(source)
    environment = os.environ | {"PYTHONPATH": str(package.parent), "DAGRT_EMULATED": kind}
    command = [sys.executable, "-m", "pytest", *arguments]
    if kind == "asan":  # Python itself is not watched, and does not free all that it has
        environment["LD_PRELOAD"] = " ".join(library(name) for name in ("libasan.so", "libstdc++.so"))
        environment["ASAN_OPTIONS"] = "detect_leaks=0:" + os.environ.get("ASAN_OPTIONS", "")
        command.append("--capture=sys")  # a report ends the process: it must not be kept back
    os.chdir(ROOT)
    os.execvpe(command[0], command, environment)


if __name__ == "__main__":
    main(*sys.argv[1:])
