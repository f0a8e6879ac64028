"""What ptxas makes of the CUDA kernels: registers, shared memory, spills and theoretical occupancy, as a table.

    cmake -S . -B build/cuda -DDAGRT_CUDA=ON -DDAGRT_PYTHON=OFF && cmake --build build/cuda --target cuda_kernels
    python bench/cuda_kernels.py build/cuda      # bench/results/cuda_kernels.md, of all generations in that build

Needs nvcc, no GPU. A product's dynamic shared memory follows from its tile: four stages of 64 bytes of BM + BN rows; strips
of images of few channels, up to 32 KB more, are not in it. Occupancy is in warps of those that a multiprocessor can hold: by
registers (65,536, given to warps in pieces of 256) and shared memory (of which each block takes 1 KB more). Kernels of tensor
cores are empty for sm_75, to which they are never given.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOT = ("matmul", "conv2d", "lstm", "batch_norm", "pool2d", "pointwise", "softmax")
# Of a multiprocessor: KB of shared memory, warps, blocks (CUDA programming guide, "Technical specifications")
LIMITS = {
    75: (64, 32, 16),
    80: (164, 64, 32),
    86: (100, 48, 16),
    89: (100, 48, 24),
    90: (228, 64, 32),
    100: (228, 64, 32),
    120: (100, 48, 24),
}


def tool(name: str) -> str | None:
    """On PATH, in the toolkit, or in a PyPI package of this Python's environment."""
    folders = ["/usr/local/cuda/bin", *map(str, Path(sysconfig.get_path("purelib")).glob("nvidia/cu*/bin"))]
    return shutil.which(name) or next(filter(None, (shutil.which(name, path=f) for f in folders)), None)


@dataclass
class Kernel:
    source: str
    name: str  # as the source has it, with template arguments
    arch: int
    registers: int = 0
    shared: int = 0  # bytes, dynamic included where the name tells it
    spilled: int = 0  # bytes stored, by functions that it calls too
    threads: int = 0  # of a block, where the name tells it

    def occupancy(self) -> float | None:
        if not self.threads or self.arch not in LIMITS or (self.arch < 80 and self.name.endswith("true>")):
            return None
        kilobytes, most, blocks = LIMITS[self.arch]
        warps = (self.threads + 31) // 32
        by_registers = 65536 // ((self.registers * 32 + 255) // 256 * 256) // warps
        by_shared = kilobytes * 1024 // (self.shared + 1024)
        return min(by_registers, by_shared, most // warps, blocks) * warps / most


def parse(source: str, log: str) -> list[Kernel]:
    """Of nvcc -Xptxas -v, its names demangled."""
    kernels: list[Kernel] = []
    for line in log.splitlines():
        if found := re.search(r"Compiling entry function '(.*)' for 'sm_(\d+)", line):
            name = re.sub(r"\(dagrt::Gate.*|dagrt::|\(anonymous namespace\)::|^void ", "", found[1])
            kernels.append(Kernel(source, name, int(found[2])))
            if tile := re.search(r"(\d+), (\d+), (true|false)>$", name):
                m, n, tensor = int(tile[1]), int(tile[2]), tile[3] == "true"
                kernels[-1].shared = 4 * 64 * (m + n)
                kernels[-1].threads = (m * n // (4096 if m > 64 else 1024) * 32) if tensor else m * n // 32
        elif found := re.search(r"(\d+) bytes spill stores", line):
            kernels[-1].spilled += int(found[1])
        elif found := re.search(r"Used (\d+) registers", line):
            kernels[-1].registers = int(found[1])
            if static := re.search(r"(\d+) bytes smem", line):
                kernels[-1].shared += int(static[1])
    return kernels


def kernels_of(build: Path, source: str) -> list[Kernel]:
    """Of one file of csrc/kernels/cuda, as the build folder's log has it."""
    log = (build / f"cuda/{source}.o.log").read_text()
    return parse(source, subprocess.run(["c++filt"], input=log, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--sources", nargs="+", default=list(HOT))
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results/cuda_kernels.md")
    options = parser.parse_args()
    kernels = [k for s in options.sources for k in kernels_of(options.build, s)]
    archs = sorted({k.arch for k in kernels})
    lines = [
        "Made by `python bench/cuda_kernels.py`, which says what is in it. Several numbers in a cell: of sm_"
        + ", ".join(map(str, archs))
        + ".",
        "Products are named by loaders, whether each operand is contiguous along k, elements copied at once, tile, tensor cores or not.",
        "",
        "| file | kernel | registers | shared memory, bytes | spilled, bytes | occupancy, % |",
        "|---|---|---|---|---|---|",
    ]
    by_name: dict[tuple[str, str], dict[int, Kernel]] = {}
    for k in kernels:
        by_name.setdefault((k.source, k.name), {})[k.arch] = k

    def cell(values: list[str]) -> str:
        return values[0] if len(set(values)) == 1 else " ".join(values)

    for (source, name), of in by_name.items():
        each = [of[a] for a in archs if a in of]
        shares = [k.occupancy() for k in each]
        columns = [
            cell([str(k.registers) for k in each]),
            cell([str(k.shared) for k in each]),
            cell([str(k.spilled) for k in each]),
            cell(["–" if s is None else f"{s * 100:.0f}" for s in shares]) if any(shares) else "",
        ]
        lines.append(f"| {source} | `{name}` | {' | '.join(columns)} |")
    options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
