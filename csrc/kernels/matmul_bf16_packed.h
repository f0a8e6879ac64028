// Products with a matrix stored as bfloat16: C = A B, sums in float32. A is float32 whose values bfloat16 holds.
#pragma once
#include "kernels/epilogue.h"

namespace dagrt {

struct MatmulBf16PackedArgs {
  const float* a = nullptr;          // [M, K], rows a_row apart
  const uint16_t* panels = nullptr;  // B, packed by pack_matmul_bf16
  float* c = nullptr;                // [M, N], rows ldc apart
  int64_t M = 0, N = 0, K = 0, a_row = 0, ldc = 0;
  Epilogue epilogue;  // its row of C[m] is m
};

/// Rounds B to bfloat16, two rows of it interleaved: panels [N / NR][K / 2][NR][2], zero behind N and K; NR of the instruction
/// set.
struct PackMatmulBf16Args {
  const float* b = nullptr;    // [K, N], strides b_row, b_col
  uint16_t* panels = nullptr;  // matmul_bf16_panel_size
  int64_t N = 0, K = 0, b_row = 0, b_col = 1;
};

// Beside the instruction sets of kernel.h there is AVX512-BF16, for these kernels alone: avx512's otherwise.
namespace avx512_bf16 {
void matmul_bf16_packed(const MatmulBf16PackedArgs&, const Stream&);
void pack_matmul_bf16(const PackMatmulBf16Args&, const Stream&);
}  // namespace avx512_bf16
extern bool chosen_bf16_dot;  // set with chosen_isa: whether it is in use

#ifdef DAGRT_HAVE_AVX512
#define DAGRT_IF_BF16_DOT(...) __VA_ARGS__
#else
#define DAGRT_IF_BF16_DOT(...)
#endif
#define DAGRT_BF16_KERNEL(name, Args) \
  DAGRT_KERNEL_OF(name, Args, , DAGRT_IF_BF16_DOT(if (chosen_bf16_dot) return avx512_bf16::name(a, s);))
DAGRT_BF16_KERNEL(matmul_bf16_packed, MatmulBf16PackedArgs)
DAGRT_BF16_KERNEL(pack_matmul_bf16, PackMatmulBf16Args)

/// Elements of the panels, the same for every instruction set.
inline int64_t matmul_bf16_panel_size(int64_t N, int64_t K) { return (N + 31) / 32 * 32 * ((K + 1) / 2 * 2); }
/// C is made in cells of so many rows and columns, the most.
inline constexpr int64_t matmul_bf16_cell_rows = 48, matmul_bf16_cell_columns = 128;
/// From one row of A's pairs to the next, in words: rows that do not all lie in one set of a cache.
inline int64_t matmul_bf16_pairs_row(int64_t K) { return (K + 31) / 32 * 16 + 16; }
/// Bytes, for each thread: a cell's rows of A in pairs, which the instruction of AVX512-BF16 wants.
inline size_t matmul_bf16_scratch(int64_t M, int64_t K) {
  const int64_t rows = M < matmul_bf16_cell_rows ? M : matmul_bf16_cell_rows;
  return chosen_bf16_dot ? size_t(rows * matmul_bf16_pairs_row(K)) * 4 + 64 : 0;
}

}  // namespace dagrt
