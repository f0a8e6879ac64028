"""What ptxas makes of the CUDA kernels: registers, shared memory, spills and theoretical occupancy, as a table.

    python bench/cuda_kernels.py [--arch 90] [--sources matmul conv2d lstm]     (bench/results/cuda_kernels.md)

Needs nvcc on PATH or in /usr/local/cuda/bin; no GPU. A product's dynamic shared memory follows from its tile: four stages
of 16 columns of BM + BN floats; strips of images of few channels, up to 32 KB more, are not in it. Occupancy is in warps of the 64 that a multiprocessor of sm_80 or sm_90 can hold: by
registers (65,536, given to warps in pieces of 256) and shared memory (164 or 228 KB, of which each block takes 1 more).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOT = ("matmul", "conv2d", "lstm")
SHARED_KB = {80: 164, 90: 228}


def nvcc() -> str | None:
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


@dataclass
class Kernel:
    source: str
    name: str  # as the source has it, with template arguments
    registers: int
    shared: int  # bytes, dynamic included where the name tells it
    spilled: int  # bytes stored
    threads: int = 0  # of a block, where the name tells it

    def occupancy(self, arch: int) -> float | None:
        if not self.threads or arch not in SHARED_KB:
            return None
        warps = (self.threads + 31) // 32
        by_registers = 65536 // ((self.registers * 32 + 255) // 256 * 256) // warps
        by_shared = SHARED_KB[arch] * 1024 // (self.shared + 1024)
        return min(by_registers, by_shared, 64 // warps, 32) * warps / 64


def parse(source: str, log: str) -> list[Kernel]:
    """Of nvcc -Xptxas -v, its names demangled."""
    kernels, name, spilled = [], "", 0
    for line in log.splitlines():
        if found := re.search(r"Compiling entry function '(.*)' for", line):
            name = re.sub(r"\(dagrt::Gate.*|dagrt::|\(anonymous namespace\)::|^void ", "", found[1])
        elif found := re.search(r"(\d+) bytes spill stores", line):
            spilled = int(found[1])
        elif (found := re.search(r"Used (\d+) registers", line)) and name:
            static = re.search(r"(\d+) bytes smem", line)
            kernel = Kernel(source, name, int(found[1]), int(static[1]) if static else 0, spilled)
            if tile := re.search(r"(\d+), (\d+), (true|false)>$", name):
                m, n, tensor = int(tile[1]), int(tile[2]), tile[3] == "true"
                kernel.shared += 4 * 16 * (m + n) * 4
                kernel.threads = (m * n // (4096 if m > 64 else 1024) * 32) if tensor else m * n // 32
            kernels.append(kernel)
            name = ""
    return kernels


def compiled(source: str, arch: int, to: Path) -> list[Kernel]:
    """Compiles one file of csrc/kernels/cuda to the machine code `to`."""
    command = [str(nvcc()), "-std=c++17", "-O3", "-DDAGRT_HAVE_CUDA", "-diag-suppress", "186", "-I", str(ROOT / "csrc")]
    command += [f"-arch=sm_{arch}", "-Xptxas", "-v", "-cubin", "-o", str(to)]
    run = subprocess.run([*command, str(ROOT / f"csrc/kernels/cuda/{source}.cu")], capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(run.stderr)
    names = shutil.which("cu++filt", path=str(Path(str(nvcc())).parent)) or "c++filt"
    return parse(source, subprocess.run([names], input=run.stderr, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", type=int, default=90)
    parser.add_argument("--sources", nargs="+", default=list(HOT))
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results/cuda_kernels.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(compiled, s, options.arch, Path(folder) / f"{s}.cubin") for s in options.sources]
        kernels = [k for job in jobs for k in job.result()]
    lines = [
        f"Made by `python bench/cuda_kernels.py --arch {options.arch}`, which says what is in it.",
        "Products are named by loaders, whether each operand is contiguous along k, floats copied at once, tile, tensor cores or not.",
        "",
        f"| file | kernel, sm_{options.arch} | registers | shared memory, bytes | spilled, bytes | occupancy |",
        "|---|---|---|---|---|---|",
    ]
    for k in kernels:
        share = k.occupancy(options.arch)
        lines.append(
            f"| {k.source} | `{k.name}` | {k.registers} | {k.shared} | {k.spilled} | {'' if share is None else f'{share:.0%}'} |"
        )
    options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
