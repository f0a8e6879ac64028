// The only inline PTX: asynchronous copies into shared memory, fragments' loads and the tensor cores' product of them.
// tests/cuda_emulator/mma.h defines the same functions for the host.
//
// ldmatrix (PTX manual, "Warp-level matrix load instruction"): lane i brings the address of row i % 8 of matrix i / 8; of each
// 8 x 16 byte matrix lane 4 r + q gets the q-th 4 bytes of row r; with .trans, of its 8 x 8 elements of 2 bytes, (2 q, r) and
// (2 q + 1, r).
// mma.m16n8k8 (PTX manual, "Matrix fragments for mma.m16n8k8"): with g = lane / 4 and t = lane % 4, a lane holds
//   A: (g, t) (g + 8, t) (g, t + 4) (g + 8, t + 4)     B: (t, g) (t + 4, g)     C: (g, 2t) (g, 2t + 1) (g + 8, 2t) (g + 8, 2t + 1)
// mma.m16n8k16 of bfloat16: the same with two neighbours along k, the first in the lower half, in the place of each of A and B.
//
// Both are for warps whose lanes have come the same way: where these may have parted, they meet before.
#pragma once
#include "kernels/cuda/common.cuh"

namespace dagrt {
namespace {

/// Rounded to TF32's 10 bits of mantissa, to nearest, ties away from zero; NaN stays NaN. Not by cvt.rna.tf32: ptxas makes additions
/// to the bits of that too, but of a NaN whose upper bits are zeros it leaves inf.
DAGRT_DEVICE uint32_t to_tf32(float x) { return ((float_to_bits(x) + 0x1000) & 0xffffe000) | (x != x ? 0x7fc00000 : 0); }

}  // namespace
}  // namespace dagrt

#ifdef DAGRT_CUDA_EMULATOR
#include "mma.h"
#else

namespace dagrt {
namespace {

/// Copies `bytes` (4 or 16) to shared memory, or zeros unless `real`: `src` must exist even so. Visible after wait_copies and a barrier.
template <int bytes> DAGRT_DEVICE void copy_async(void* dst, const void* src, bool real = true) {
#if __CUDA_ARCH__ >= 800
  unsigned to = unsigned(__cvta_generic_to_shared(dst)), n = real ? bytes : 0;
  if constexpr (bytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(__cvta_generic_to_global(src)), "r"(n)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(__cvta_generic_to_global(src)), "r"(n)
                 : "memory");
#else
  for (int i = 0; i < bytes / 4; i++) static_cast<float*>(dst)[i] = real ? static_cast<const float*>(src)[i] : 0.0f;
#endif
}
/// Ends a group of copies.
DAGRT_DEVICE void commit_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
/// Waits until at most `left` groups, the latest, are under way.
template <int left> DAGRT_DEVICE void wait_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
#endif
}

/// Four matrices of 8 rows x 16 bytes; `row`: 16 aligned bytes of shared memory, in each lane another.
DAGRT_DEVICE void load_matrices(uint32_t (&r)[4], const void* row) {
#if __CUDA_ARCH__ >= 750
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(unsigned(__cvta_generic_to_shared(row)))
               : "memory");
#endif
}

/// Of 8 x 8 elements of 2 bytes, transposed.
DAGRT_DEVICE void load_transposed(uint32_t (&r)[4], const void* row) {
#if __CUDA_ARCH__ >= 750
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(unsigned(__cvta_generic_to_shared(row)))
               : "memory");
#endif
}

/// Whether this generation multiplies TF32 and bfloat16; kernels that do are empty for the others, to which they are never given.
#if __CUDA_ARCH__ >= 800
constexpr bool has_tf32 = true;
#else
constexpr bool has_tf32 = false;
#endif

/// c += a b for a warp's 16 x 8 x 8 tile.
DAGRT_DEVICE void mma_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

/// The same of bfloat16, 16 x 8 x 16.
DAGRT_DEVICE void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

/// For loops that wait for another block.
DAGRT_DEVICE void relax() {
#if __CUDA_ARCH__ >= 700
  __nanosleep(32);
#endif
}

}  // namespace
}  // namespace dagrt
#endif
