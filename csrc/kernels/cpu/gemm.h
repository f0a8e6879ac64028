// The micro-kernels of all products: a tile of MR x (NV vectors) of C in registers.
//   C[m, n] (+)= sum_k A[m, k] B[k, n]
// A is read in place by broadcasts, any strides; B as rows of contiguous floats, in place or from packed panels
// [N/NR][K][NR] (zero behind the end).
//
//   gemm_run     any M against one panel of up to gemm_nr columns: MR * NV accumulators, NV vectors of B and one of A
//                fit the registers: 14 x 2 with 32 of them, 6 x 2 with 16, 4 x 2 for the portable width. A's rows are
//                strided, or scattered by a table: the pixels under a convolution's window. Finishes simple epilogues
//   gemm_panel   the same for plain strides
//   gemm_few     M <= gemm_few_rows against any number of columns: wide tiles, so that enough sums are under way to hide
//                the multiply-add's latency, and B is streamed once
//   gemm_stream  the same against long rows of B in place: some of them side by side, C in L1, since tiles that step down columns
//                touch another page with every row, and no prefetcher follows
//   gemm_pack    columns of B, any strides, to a panel
// No function reads or writes beyond the elements named, but gemm_run reads whole vectors of its panel's rows.
#pragma once
#include "kernels/cpu/epilogue.h"
#include "kernels/cpu/vec.h"
#include "kernels/matmul.h"

namespace dagrt::DAGRT_ISA {

inline constexpr int gemm_mr = V == 16 ? 14 : V == 8 ? 6 : 4;
inline constexpr int gemm_nr = 2 * V;
inline constexpr int gemm_few_rows = int(matmul_few_rows);
inline constexpr int gemm_fetched = gemm_nr < 16 ? 16 : gemm_nr;  // floats of a panel's row, or a line of the cache

/// Whether rows of A so far apart lie in the same set of an L1 cache, all of them: tiles are no higher then than it has ways.
inline bool gemm_crowded(int64_t apart) { return apart && apart % 1024 == 0; }
inline constexpr int gemm_crowded_mr = gemm_mr < 8 ? gemm_mr : 8;

inline constexpr int gemm_copying_ahead = 16;  // elements of K; `taps` goes on so far behind K if A is copied

/// What a run of tiles over one panel has in common.
struct TileJob {
  int64_t K = 0;
  const int32_t* taps = nullptr;  // row m's k-th element of A is a[m a_row + taps[k]]; null: a[m a_row + k a_col]
  int64_t a_row = 0, a_col = 1;
  int64_t a_tile = 0;  // M in whole tiles, so far apart in A; 0: row by row
  // Of M in whole tiles with taps, a_row 1 and V floats of A behind every tap: they are left here in that order, a_row 1, a_col
  // gemm_mr, for products with other panels. Null: they are not.
  float* copied = nullptr;
  const float* b = nullptr;  // rows b_row apart, NV V floats of each are read
  int64_t b_row = gemm_nr;
  // Of whole rows in place, M >= gemm_mr and no taps: the first tile leaves them here as a panel for the others. Null: it does not.
  float* packed = nullptr;
  int64_t ldc = 0;
  int n = gemm_nr;                   // columns to store
  bool crowded = false;              // rows of A, gemm_crowded: low tiles
  bool accumulate = false;           // onto what C holds
  bool far = false;                  // C lies beyond L1, and its lines are asked for before the tile's sums
  const Epilogue* finish = nullptr;  // a simple one, with the last part of K
  int64_t column = 0, row_step = 1;  // of C in the epilogue's operands, and how far its rows lie apart there
  // What will be multiplied next: so many runs (0: K) of gemm_fetched floats, `next_row` bytes apart, are fetched from memory
  // meanwhile. Null: nothing.
  const float* next = nullptr;
  int64_t next_row = 0, next_runs = 0;
};

/// M rows against one panel, in tiles of two heights that differ by one. `row`: the first row's place in the epilogue's operands.
void gemm_run(TileJob j, int64_t M, const float* a, float* c, int64_t row);

/// M rows against one panel of up to gemm_nr columns.
static inline void gemm_panel(int64_t M, int64_t K, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row,
                              float* c, int64_t ldc, int n, bool accumulate) {
  TileJob j;
  j.K = K, j.a_row = a_row, j.a_col = a_col;
  j.b = b, j.b_row = b_row, j.ldc = ldc, j.n = n, j.accumulate = accumulate;
  gemm_run(j, M, a, c, 0);
}

/// M <= gemm_few_rows rows. B in place: b_panel = gemm_nr; packed: b_row = gemm_nr, b_panel = K gemm_nr.
void gemm_few(int64_t M, int64_t N, int64_t K, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row,
              int64_t b_panel, float* c, int64_t ldc, bool accumulate);

/// M <= gemm_few_rows rows against long rows of B, in place.
void gemm_stream(int64_t M, int64_t N, int64_t K, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row,
                 float* c, int64_t ldc);

/// Columns [n0, n0 + n) of B, rows [0, K), as a panel [K][gemm_nr], zero behind n.
void gemm_pack(int64_t K, const float* b, int64_t b_row, int64_t b_col, int n, float* panel);

}  // namespace dagrt::DAGRT_ISA
