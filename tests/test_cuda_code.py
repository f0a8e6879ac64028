"""What nvcc makes of the CUDA kernels: no spills; of products tensor-core instructions, asynchronous copies. Needs nvcc."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import cuda_kernels

LOG = """\
ptxas info    : Compiling entry function 'void dagrt::(anonymous namespace)::gemm_kernel<dagrt::(anonymous namespace)::Matrix, \
dagrt::(anonymous namespace)::Matrix, true, false, 4, 128, 128, true>(dagrt::Gate, int)' for 'sm_90'
ptxas info    : Function properties for gemm_kernel
    176 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 240 registers, used 1 barriers, 16 bytes smem
"""


def test_what_ptxas_says_is_read() -> None:
    [kernel] = cuda_kernels.parse("matmul", LOG)
    assert kernel.name == "gemm_kernel<Matrix, Matrix, true, false, 4, 128, 128, true>"
    assert (kernel.registers, kernel.spilled, kernel.threads) == (240, 12, 128)
    assert kernel.shared == 16 + 65536
    # 240 registers for 32 lanes are 7,680: 8 warps, two blocks; shared memory: three
    assert kernel.occupancy(90) == 2 * 4 / 64


@pytest.mark.slow
@pytest.mark.skipif(cuda_kernels.nvcc() is None, reason="no nvcc")
@pytest.mark.parametrize("source", ["matmul", "conv2d"])
def test_products_are_made_of_tensor_core_instructions(source: str, tmp_path: Path) -> None:
    code = tmp_path / "code.cubin"
    products = [k for k in cuda_kernels.compiled(source, 80, code) if k.name.startswith("gemm_kernel")]
    assert any(k.name.endswith("true>") for k in products)
    assert [k for k in products if k.spilled] == []
    tool = shutil.which("nvdisasm") or shutil.which("nvdisasm", path="/usr/local/cuda/bin")
    if tool is None:
        pytest.skip("no nvdisasm")
    text = subprocess.run([tool, "-c", str(code)], capture_output=True, text=True, check=True).stdout
    for part in text.split(".section\t.text.")[1:]:
        name = part.split(",", 1)[0]
        if "gemm_kernel" in name and "Lb1EEEv" in name:  # the last template argument, mangled
            assert "HMMA.1688.F32.TF32" in part, name
            assert "LDGSTS" in part, name


@pytest.mark.slow
@pytest.mark.skipif(cuda_kernels.nvcc() is None, reason="no nvcc")
@pytest.mark.parametrize(
    "source",
    sorted(
        p.stem for p in (cuda_kernels.ROOT / "csrc/kernels/cuda").glob("*.cu") if p.stem not in ("matmul", "conv2d")
    ),
)
def test_kernels_that_memory_bounds_do_not_spill(source: str, tmp_path: Path) -> None:
    kernels = cuda_kernels.compiled(source, 90, tmp_path / "code.cubin")
    assert kernels
    assert [k for k in kernels if k.spilled] == []
