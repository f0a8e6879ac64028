// The micro-kernel of all products: a tile of MR x (NV vectors) of C in registers.
//   C[m, n] (+)= sum_k A[m, k] B[k, n]
// A is read in place by broadcasts, any strides; B as rows of contiguous floats, in place or from packed panels
// [N/NR][K][NR] (zero behind the end). MR * NV accumulators, NV vectors of B and one of A fit the registers:
// 14 x 2 with 32 of them, 6 x 2 with 16, 4 x 2 for the portable width.
#pragma once
#include "kernels/cpu/vec.h"

namespace dagrt::DAGRT_ISA {

inline constexpr int gemm_mr = V == 16 ? 14 : V == 8 ? 6 : 4;
inline constexpr int gemm_nr = 2 * V;

/// One tile. n: columns to store (1..NV*V); loads of B touch NV*V floats of each row.
template <int MR, int NV>
static void gemm_tile(int64_t K, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row, float* c,
                      int64_t ldc, int n, bool accumulate) {
  vf acc[MR][NV];
#pragma GCC unroll 16
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 2
    for (int j = 0; j < NV; j++) acc[m][j] = vf{};
  for (int64_t k = 0; k < K; k++) {
    vf bv[NV];
#pragma GCC unroll 2
    for (int j = 0; j < NV; j++) bv[j] = load(b + j * V);
#pragma GCC unroll 16
    for (int m = 0; m < MR; m++) {
      vf av = splat(a[m * a_row]);
#pragma GCC unroll 2
      for (int j = 0; j < NV; j++) acc[m][j] += av * bv[j];
    }
    a += a_col;
    b += b_row;
  }
#pragma GCC unroll 16
  for (int m = 0; m < MR; m++) {
    float* row = c + m * ldc;
#pragma GCC unroll 2
    for (int j = 0; j < NV; j++) {
      int left = n - j * V;
      if (left >= V) {
        store(row + j * V, accumulate ? acc[m][j] + load(row + j * V) : acc[m][j]);
      } else if (left > 0) {
        store_n(row + j * V, accumulate ? acc[m][j] + load_n(row + j * V, left) : acc[m][j], left);
      }
    }
  }
}

using GemmTile = void (*)(int64_t, const float*, int64_t, int64_t, const float*, int64_t, float*, int64_t, int, bool);

template <int NV> static GemmTile gemm_tile_of(int64_t rows) {
  static constexpr GemmTile table[15] = {
      nullptr,
      gemm_tile<1, NV>, gemm_tile<2, NV>, gemm_tile<3, NV>, gemm_tile<4, NV>,
#if defined(__AVX2__) || defined(__AVX512F__)
      gemm_tile<5, NV>, gemm_tile<6, NV>,
#endif
#if defined(__AVX512F__)
      gemm_tile<7, NV>, gemm_tile<8, NV>, gemm_tile<9, NV>, gemm_tile<10, NV>, gemm_tile<11, NV>, gemm_tile<12, NV>,
      gemm_tile<13, NV>, gemm_tile<14, NV>,
#endif
  };
  return table[rows];
}

/// M rows against one panel of up to gemm_nr columns, in balanced tiles.
static inline void gemm_panel(int64_t M, int64_t K, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row,
                              float* c, int64_t ldc, int n, bool accumulate) {
  int64_t tiles = (M + gemm_mr - 1) / gemm_mr;
  for (int64_t t = 0; t < tiles; t++) {
    int64_t from = M * t / tiles, rows = M * (t + 1) / tiles - from;
    GemmTile f = n <= V ? gemm_tile_of<1>(rows) : gemm_tile_of<2>(rows);
    f(K, a + from * a_row, a_row, a_col, b, b_row, c + from * ldc, ldc, n, accumulate);
  }
}

/// Columns [n0, n0 + n) of B, rows [0, K), as a panel [K][gemm_nr], zero behind n.
static inline void gemm_pack(int64_t K, const float* b, int64_t b_row, int64_t b_col, int n, float* panel) {
  if (b_col == 1) {
    for (int64_t k = 0; k < K; k++, b += b_row, panel += gemm_nr) {
      if (n == gemm_nr) {
        store(panel, load(b));
        store(panel + V, load(b + V));
      } else {
        int low = n < V ? n : V;
        store(panel, load_n(b, low));
        store(panel + V, n > V ? load_n(b + V, n - V) : vf{});
      }
    }
    return;
  }
  for (int64_t k0 = 0; k0 < K; k0 += 16) {  // transposed: small blocks, so that both sides stay in cache
    int64_t k1 = k0 + 16 < K ? k0 + 16 : K;
    for (int j = 0; j < gemm_nr; j++)
      for (int64_t k = k0; k < k1; k++) panel[k * gemm_nr + j] = j < n ? b[k * b_row + j * b_col] : 0.0f;
  }
}

}  // namespace dagrt::DAGRT_ISA
