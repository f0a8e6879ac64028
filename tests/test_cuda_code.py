"""What nvcc makes of the CUDA kernels: no spills; of products tensor-core instructions, asynchronous copies.

`DAGRT_CUDA_BUILD=build/cuda pytest tests/test_cuda_code.py`, with a build folder whose `cuda_kernels` were made with
-DDAGRT_CUDA=ON (.ci/run), for all generations that it was made for. The machine code is read by cuobjdump, of the toolkit or
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


def test_what_ptxas_says_is_read() -> None:
    [kernel] = cuda_kernels.parse("matmul", LOG)
    assert kernel.name == "gemm_kernel<Matrix, Matrix, true, false, 4, 128, 128, true>"
    assert (kernel.arch, kernel.registers, kernel.spilled, kernel.threads) == (90, 240, 16, 128)
    assert kernel.shared == 16 + 65536
    # 240 registers for 32 lanes are 7,680: 8 warps, two blocks; shared memory: three
    assert kernel.occupancy() == 2 * 4 / 64


@built
@pytest.mark.parametrize("source", SOURCES)
def test_no_kernel_spills(source: str) -> None:
    kernels = cuda_kernels.kernels_of(BUILD, source)
    assert len({k.name for k in kernels}) * len({k.arch for k in kernels}) == len(kernels) > 0
    assert [k for k in kernels if k.spilled] == []


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
