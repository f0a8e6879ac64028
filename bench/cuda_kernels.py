"""What ptxas makes of the CUDA kernels: registers, shared memory, spills and theoretical occupancy, as a table.

    cmake -S . -B build/cuda -DDAGRT_CUDA=ON -DDAGRT_PYTHON=OFF && cmake --build build/cuda --target cuda_kernels
    python bench/cuda_kernels.py build/cuda      # bench/results/cuda_kernels.md, of all generations in that build

Needs nvcc and cuobjdump, no GPU. A block's threads are the kernel's __launch_bounds__, as the PTX repeats them. Dynamic shared memory is
the most that a launch asks for, by the constants of the kernels' sources; `all`: blocks that wait for each other keep what fits on
chip, of which a multiprocessor then holds one. Occupancy is in warps of those that a multiprocessor can hold: by registers (65,536, given to
warps in pieces of 256, to four quarters alike), shared memory (of which each block takes 1 KB more) and blocks. Kernels of tensor cores
are empty for sm_75, to which they are never given.

`NEEDED` says how many blocks kernels need at once. An H100's multiprocessor gets 13.9 bytes a clock of device memory (3.35 TB/s over
132 at 1.83 GHz), some 600 clocks after it asked: 8.3 KB must be under way (Little's law).
"""

from __future__ import annotations

import argparse
import math
import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
KERNELS = ROOT / "csrc/kernels/cuda"
TABLE = ROOT / "bench/results/cuda_kernels.md"
VERSION = "13.0.88"  # of nvcc and ptxas: another may give other registers
HOT = ("matmul", "conv2d", "lstm", "batch_norm", "pool2d", "pointwise", "softmax")
ALL = -1  # dynamic shared memory: what a multiprocessor has
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


# Blocks that a multiprocessor must hold of hot kernels, from sm_80 on: of the first name that fits
NEEDED = (
    (r"gemm_kernel<Strip", 1),  # 24 KB of copies under way, beside strips of up to 32 KB
    (r"gemm_kernel<.*, 64, 64, \w+>", 2),  # 24 KB in each; while one stores its tile, the other multiplies
    (r"gemm_kernel", 1),  # 36 KB and more
    (r"(lstm|lstm_grad|together)_kernel", 1),  # such blocks are no more than there are multiprocessors
    (r"(part|merge|finish)_kernel", 1),  # 512 threads of eight loads: 16 KB
    (r"(softmax|cross_entropy|cross_entropy_grad)_kernel<.*\b40>", 1),  # 256 threads of 40 loads: 40 KB
    (r"(softmax|cross_entropy|cross_entropy_grad)_kernel", 2),  # of eight: 8 KB in each
    (r"(chain|float|select)_kernel<4", 3),  # 256 threads of one load of 16 bytes: 4 KB in each
    (r"(chain|float|select|cast|integer)_kernel", 4),  # of one of up to 8: for lines that are no multiple of four
    (r"pool\w*_tile_kernel", 2),  # of one of 4: 1 KB in each, of which the largest patches leave room for two
    (r"pool", 3),
    (r"", 1),
)


def needed(name: str) -> int:
    return next(blocks for pattern, blocks in NEEDED if re.match(pattern, name))


def constant(source: str, name: str) -> int:
    """A number that the launches of a source use: `name = 47 << 10`."""
    text = (KERNELS / source).read_text()
    [value] = re.findall(rf"\b{name} = ([\d <]+);", text)
    return int(value) if "<<" not in value else int(value.split("<<")[0]) << int(value.split("<<")[1])


def dynamic_shared(name: str) -> int:
    """Bytes that a launch of the kernel asks for at most."""
    if tile := re.match(r"gemm_kernel<(\w+).* (\d+), (\d+), \w+>$", name):  # four stages of 64 bytes of BM + BN rows
        strip = 4 * constant("conv2d.cu", "most_strip") if tile[1].startswith("Strip") else 0
        return 4 * 64 * (int(tile[2]) + int(tile[3])) + strip
    if re.match(r"(pool_tile|pool_grad_tile|depthwise|depthwise_input_grad|depthwise_filter_grad)_kernel", name):
        return constant("tiles.cuh", "most_tile_bytes")
    if name.startswith("scatter_add_kernel"):
        return constant("indexing.cu", "most_sums")
    return ALL if re.match(r"(lstm|lstm_grad|together)_kernel", name) else 0


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
    shared: int = 0  # static, bytes
    spilled: int = 0  # bytes stored, by functions that it calls too
    threads: int = 0  # of a block

    @property
    def empty(self) -> bool:
        """Tensor cores before sm_80."""
        return self.arch < 80 and self.name.startswith("gemm_kernel") and self.name.endswith("true>")

    def blocks(self) -> int:
        """That a multiprocessor holds at once."""
        kilobytes, most, blocks = LIMITS[self.arch]
        warps, dynamic = (self.threads + 31) // 32, dynamic_shared(self.name)
        by_registers = 65536 // ((self.registers * 32 + 255) // 256 * 256) // 4 * 4 // warps
        by_shared = 1 if dynamic == ALL else kilobytes * 1024 // ((self.shared + dynamic + 127) // 128 * 128 + 1024)
        return min(by_registers, by_shared, most // warps, blocks)

    def occupancy(self) -> float:
        return self.blocks() * ((self.threads + 31) // 32) / LIMITS[self.arch][1]

    def cells(self) -> tuple[str, ...]:
        """Its columns of the table."""
        if self.empty:
            return ("–",) * 6
        dynamic = dynamic_shared(self.name)
        numbers = (self.threads, self.registers, self.shared, "all" if dynamic == ALL else dynamic, self.spilled)
        return (*map(str, numbers), f"{self.occupancy() * 100:.0f}")


def plain(text: str) -> str:
    """Names demangled, without namespaces, parameters and results."""
    text = subprocess.run(["c++filt"], input=text, capture_output=True, text=True, check=True).stdout
    return re.sub(r"\(dagrt::Gate[^'\n]*|dagrt::|\(anonymous namespace\)::|(?<=')void ", "", text)


def parse(source: str, log: str) -> list[Kernel]:
    """Of nvcc -Xptxas -v, its names plain."""
    kernels: list[Kernel] = []
    for line in log.splitlines():
        if found := re.search(r"Compiling entry function '(.*)' for 'sm_(\d+)", line):
            kernels.append(Kernel(source, found[1], int(found[2])))
        elif found := re.search(r"(\d+) bytes spill stores", line):
            kernels[-1].spilled += int(found[1])
        elif found := re.search(r"Used (\d+) registers", line):
            kernels[-1].registers = int(found[1])
            if static := re.search(r"(\d+) bytes smem", line):
                kernels[-1].shared += int(static[1])
    return kernels


def bounds_of(ptx: str) -> dict[str, int]:
    """Threads of a block of each kernel that has a bound, by its mangled name."""
    found = re.findall(r"\.entry (\w+)\((?:[^{]*?)\)\s*\.maxntid ([\d, ]+)", ptx)
    return {name: math.prod(map(int, threads.split(","))) for name, threads in found}


def kernels_of(build: Path, source: str) -> list[Kernel]:
    """Of one file of csrc/kernels/cuda, as the build folder has it."""
    kernels = parse(source, plain((build / f"cuda/{source}.o.log").read_text()))
    if dump := tool("cuobjdump"):
        command = [dump, "-ptx", str(build / f"cuda/{source}.o")]
        bounds = bounds_of(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        names = plain("".join(f"'{name}'\n" for name in bounds)).replace("'", "").splitlines()
        threads = dict(zip(names, bounds.values(), strict=True))
        for k in kernels:
            k.threads = threads.get(k.name, 0)
    return kernels


COLUMNS = ("threads", "registers", "shared memory, bytes", "dynamic, bytes", "spilled, bytes", "occupancy, %")


def table(kernels: list[Kernel]) -> str:
    archs = sorted({k.arch for k in kernels})
    lines = [
        f"Made by `python bench/cuda_kernels.py` with nvcc {VERSION}; the script says what is in it. Several numbers in a cell: of sm_"
        + ", ".join(map(str, archs))
        + ".",
        "Products are named by loaders, whether each operand is contiguous along k, elements copied at once, tile, tensor cores or not.",
        "",
        "| file | kernel | " + " | ".join(COLUMNS) + " |",
        "|---|---|" + "---|" * len(COLUMNS),
    ]
    by_name: dict[tuple[str, str], dict[int, Kernel]] = {}
    for k in kernels:
        by_name.setdefault((k.source, k.name), {})[k.arch] = k
    for (source, name), of in by_name.items():
        columns = zip(*(of[a].cells() for a in archs), strict=True)
        cells = [c[0] if len(set(c)) == 1 else " ".join(c) for c in columns]
        lines.append(f"| {source} | `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def read_table(text: str) -> dict[tuple[str, str, int], tuple[str, ...]]:
    """Cells by source, kernel and generation."""
    found = {}
    archs = [int(n) for n in re.search(r"of sm_([\d, ]+)", text)[1].split(", ")]
    for line in text.splitlines():
        if row := re.match(r"\| (\w+) \| `(.*)` \| (.*) \|$", line):
            cells = [c.split() for c in row[3].split(" | ")]
            for i, arch in enumerate(archs):
                found[row[1], row[2], arch] = tuple(c[i if len(c) > 1 else 0] for c in cells)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--out", type=Path, default=TABLE)
    options = parser.parse_args()
    if not tool("cuobjdump"):
        parser.exit(2, "no cuobjdump: pip install nvidia-cuda-cuobjdump\n")
    rest = sorted({p.stem for p in KERNELS.glob("*.cu")} - set(HOT))
    options.out.write_text(table([k for s in (*HOT, *rest) for k in kernels_of(options.build, s)]))


if __name__ == "__main__":
    main()
