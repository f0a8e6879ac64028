"""What nvcc makes of the CUDA kernels: registers, shared memory, no spills, occupancy, as bench/results/cuda_kernels.md has it; of
products tensor-core instructions, asynchronous copies.

`DAGRT_CUDA_BUILD=build/cuda pytest tests/test_cuda_code.py`, with a build folder whose `cuda_kernels` were made with
-DDAGRT_CUDA=ON (.ci/run), for all generations that it was made for. PTX and machine code are read by cuobjdump, of the toolkit or
of the PyPI packages nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import cuda_kernels

BUILD = Path(os.environ.get("DAGRT_CUDA_BUILD", "none"))
SOURCES = sorted(p.stem for p in (cuda_kernels.ROOT / "csrc/kernels/cuda").glob("*.cu"))
built = pytest.mark.skipif(not BUILD.exists(), reason="DAGRT_CUDA_BUILD names no build by nvcc")

LOG = """\
ptxas info    : Compiling entry function 'void dagrt::(anonymous namespace)::gemm_kernel<dagrt::(anonymous namespace)::Matrix, \
dagrt::(anonymous namespace)::Matrix, true, false, 4, 128, 128, true>(dagrt::Gate, int)' for 'sm_90'
ptxas info    : Function properties for gemm_kernel
    176 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 240 registers, used 1 barriers, 16 bytes smem
ptxas info    : Function properties for put_staged
    0 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
"""


PTX = """\
.visible .entry _ZN5dagrt11gemm_kernelE(
.param .align 8 .b8 _ZN5dagrt11gemm_kernelE_param_0[40],
)
.maxntid 32, 4, 1
.minnctapersm 1
{
}
.visible .entry _ZN5dagrt11free_kernelE(
.param .align 8 .b8 _ZN5dagrt11free_kernelE_param_0[40],
)
{
}
.visible .entry _ZN5dagrt11next_kernelE(
)
.maxntid 64
"""


def test_what_ptxas_says_is_read() -> None:
    [kernel] = cuda_kernels.parse("matmul", cuda_kernels.plain(LOG))
    assert kernel.name == "gemm_kernel<Matrix, Matrix, true, false, 4, 128, 128, true>"
    assert (kernel.arch, kernel.registers, kernel.shared, kernel.spilled) == (90, 240, 16, 16)
    assert cuda_kernels.dynamic_shared(kernel.name) == 65536
    bounds = cuda_kernels.bounds_of(PTX)
    assert bounds == {"_ZN5dagrt11gemm_kernelE": 128, "_ZN5dagrt11next_kernelE": 64}
    kernel.threads = 128
    # 240 registers for 32 lanes are 7,680: 8 warps, two blocks; shared memory: three
    assert (kernel.blocks(), kernel.occupancy()) == (2, 2 * 4 / 64)
    kernel.registers = 146  # 4,864: three warps in a quarter of 16,384, though 13 in all
    assert kernel.blocks() == 3
    assert cuda_kernels.dynamic_shared("gemm_kernel<StripTaps, Matrix, false, false, 4, 64, 64, true>") == 65536
    assert cuda_kernels.dynamic_shared("pool_tile_kernel<true>") == 47 << 10
    assert cuda_kernels.Kernel("lstm", "lstm_kernel", 90, 32, 0, 0, 256).blocks() == 1
    assert set(cuda_kernels.Kernel("matmul", kernel.name, 75, 4).cells()) == {"–"}


def test_the_table_is_of_all_kernels() -> None:
    rows = cuda_kernels.read_table(cuda_kernels.TABLE.read_text())
    assert {arch for _, _, arch in rows} == set(cuda_kernels.LIMITS)
    defined = {
        (path.stem, name)
        for path in cuda_kernels.KERNELS.glob("*.cu")
        for name in re.findall(r"__global__[^;{]*?\b(\w+_kernel)\(Gate", path.read_text())
    }
    assert defined == {
        (source, name.split("<")[0]) for source, name, _ in rows if (source, name.split("<")[0]) in defined
    }
    for (source, name, arch), cells in rows.items():
        kernel = cuda_kernels.Kernel(source, name, arch)
        if not kernel.empty:
            kernel.threads, kernel.registers, kernel.shared, kernel.spilled = (int(cells[i]) for i in (0, 1, 2, 4))
            assert kernel.cells() == cells
            assert not kernel.spilled
            assert arch < 80 or kernel.blocks() >= cuda_kernels.needed(name), (source, name, arch)


@built
@pytest.mark.parametrize("source", SOURCES)
def test_kernels_are_as_the_table_has_them(source: str) -> None:
    if cuda_kernels.tool("cuobjdump") is None:
        pytest.skip("no cuobjdump: pip install nvidia-cuda-cuobjdump")
    kernels = cuda_kernels.kernels_of(BUILD, source)
    assert len({k.name for k in kernels}) * len({k.arch for k in kernels}) == len(kernels) > 0
    assert [k for k in kernels if k.spilled or not k.threads] == []  # no bound, no occupancy
    assert [k for k in kernels if k.arch >= 80 and k.blocks() < cuda_kernels.needed(k.name)] == []
    [nvcc] = re.findall(r"DAGRT_NVCC:FILEPATH=(.*)", (BUILD / "CMakeCache.txt").read_text())
    if f"V{cuda_kernels.VERSION}" not in subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout:
        pytest.skip(f"the table is of nvcc {cuda_kernels.VERSION}, this build of another")
    rows = cuda_kernels.read_table(cuda_kernels.TABLE.read_text())
    made = {(k.source, k.name, k.arch): k.cells() for k in kernels}
    archs = {k.arch for k in kernels}
    assert made == {key: cells for key, cells in rows.items() if key[0] == source and key[2] in archs}, (
        "python bench/cuda_kernels.py makes the table anew"
    )


@built
def test_the_runtime_is_linked_into_the_extension_and_hidden(tmp_path: Path) -> None:
    """The kernels with cudart as the extension has them: whatever CUDA runtime another library brings, each keeps its own."""
    [cudart] = re.findall(r"DAGRT_CUDART:FILEPATH=(.*)", (BUILD / "CMakeCache.txt").read_text())
    library = str(tmp_path / "kernels.so")
    objects = [*map(str, BUILD.glob("cuda/*.o")), cudart, "-ldl", "-lrt", "-lpthread"]
    exports = f"-Wl,--version-script={cuda_kernels.ROOT / 'cmake/exports.map'}"
    subprocess.run(["g++", "-shared", "-o", library, exports, *objects], check=True)

    def shown(*command: str) -> str:
        return subprocess.run([*command, library], capture_output=True, text=True, check=True).stdout

    assert shown("nm", "-D", "--defined-only") == ""
    assert not re.findall(r" U (?:cuda|cu[A-Z]|__cuda)\w*", shown("nm", "-D", "--undefined-only"))
    assert not re.findall(r"NEEDED.*cuda.*", shown("readelf", "-d"))
    names = shown("nm").split()
    assert "cudaGraphLaunch" in names or "cudaLaunchKernelExC" in names  # it is in there


@built
@pytest.mark.parametrize("source", ["matmul", "conv2d"])
def test_products_are_made_of_tensor_core_instructions(source: str) -> None:
    tool = cuda_kernels.tool("cuobjdump")
    if tool is None:
        pytest.skip("no cuobjdump: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm")
    command = [tool, "-sass", str(BUILD / f"cuda/{source}.o")]
    arch, name, missing, products = 0, "", set[str](), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as code:
        for line in code.stdout:
            if found := re.match(r"arch = sm_(\d+)", line):
                arch, name = int(found[1]), ""
            elif found := re.match(r"\s*Function : (\S+)", line):
                assert not missing, f"sm_{arch} {name}"
                name = found[1]
                if "gemm_kernel" in name and "Lb1EEEv" in name and arch >= 80:  # the last template argument, mangled
                    products += 1
                    missing = {"HMMA.16816.F32.BF16" if "Bf16" in name else "HMMA.1688.F32.TF32", "LDGSTS"}
            elif missing:
                missing = {m for m in missing if m not in line}
    assert code.returncode == 0
    assert not missing, f"sm_{arch} {name}"
    assert products >= 6
