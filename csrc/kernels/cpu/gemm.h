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
//   gemm_pack    columns of B, any strides, to a panel
// No function reads or writes beyond the elements named, but gemm_run reads whole vectors of its panel's rows.
#pragma once
#include "kernels/cpu/epilogue.h"
#include "kernels/cpu/vec.h"

namespace dagrt::DAGRT_ISA {

inline constexpr int gemm_mr = V == 16 ? 14 : V == 8 ? 6 : 4;
inline constexpr int gemm_nr = 2 * V;
inline constexpr int gemm_few_rows = 4;

/// What a run of tiles over one panel has in common.
struct TileJob {
  int64_t K = 0;
  const int32_t* taps = nullptr;  // row m's k-th element of A is a[m a_row + taps[k]]; null: a[m a_row + k a_col]
  int64_t a_row = 0, a_col = 1;
  const float* b = nullptr;  // rows b_row apart, NV V floats of each are read
  int64_t b_row = gemm_nr;
  int64_t ldc = 0;
  int n = gemm_nr;                   // columns to store
  bool accumulate = false;           // onto what C holds
  const Epilogue* finish = nullptr;  // a simple one, with the last part of K
  int64_t column = 0, row_step = 1;  // of C in the epilogue's operands, and how far its rows lie apart there
};

/// `tiles` tiles of MR rows each, one behind the other; `row`: the first row's place in the epilogue's operands.
template <int MR, int NV, bool scattered>
static void gemm_tiles(const TileJob& j, int64_t tiles, const float* a, float* c, int64_t row) {
  const int64_t K = j.K, a_row = j.a_row, a_col = j.a_col, b_row = j.b_row, ldc = j.ldc, row_step = j.row_step, column = j.column;
  const int32_t* taps = j.taps;
  const float* panel = j.b;
  const int columns = j.n;
  const bool accumulate = j.accumulate, finishes = j.finish;
  const SimpleEpilogue simple(finishes ? *j.finish : Epilogue{});
  for (; tiles; tiles--, a += MR * a_row, c += MR * ldc, row += MR * row_step) {
    vf acc[MR][NV];
#pragma GCC unroll 16
    for (int m = 0; m < MR; m++)
#pragma GCC unroll 2
      for (int i = 0; i < NV; i++) acc[m][i] = vf{};
    const float *b = panel, *ak = a;
    for (int64_t k = 0; k < K; k++) {
      if (scattered) ak = a + taps[k];
      vf bv[NV];
#pragma GCC unroll 2
      for (int i = 0; i < NV; i++) bv[i] = load(b + i * V);
#pragma GCC unroll 16
      for (int m = 0; m < MR; m++) {
        vf av = splat(ak[m * a_row]);
#pragma GCC unroll 2
        for (int i = 0; i < NV; i++) acc[m][i] += av * bv[i];
      }
      if (!scattered) ak += a_col;
      b += b_row;
    }
#pragma GCC unroll 16
    for (int m = 0; m < MR; m++) {
      float* to = c + m * ldc;
#pragma GCC unroll 2
      for (int i = 0; i < NV; i++) {
        const int left = columns - i * V;
        if (left <= 0) continue;
        const int n = left < V ? left : V;
        vf t = acc[m][i];
        if (accumulate) t += n == V ? load(to + i * V) : load_n(to + i * V, n);
        if (finishes) t = finish(simple, t, row + m * row_step, column + i * V, n);
        if (n == V)
          store(to + i * V, t);
        else
          store_n(to + i * V, t, n);
      }
    }
  }
}

using GemmTiles = void (*)(const TileJob&, int64_t, const float*, float*, int64_t);

template <int NV, bool scattered> static GemmTiles gemm_tiles_of(int64_t rows) {
  static constexpr GemmTiles table[15] = {
      nullptr,
      gemm_tiles<1, NV, scattered>,
      gemm_tiles<2, NV, scattered>,
      gemm_tiles<3, NV, scattered>,
      gemm_tiles<4, NV, scattered>,
#if DAGRT_V >= 8
      gemm_tiles<5, NV, scattered>,
      gemm_tiles<6, NV, scattered>,
#endif
#if DAGRT_V == 16
      gemm_tiles<7, NV, scattered>,
      gemm_tiles<8, NV, scattered>,
      gemm_tiles<9, NV, scattered>,
      gemm_tiles<10, NV, scattered>,
      gemm_tiles<11, NV, scattered>,
      gemm_tiles<12, NV, scattered>,
      gemm_tiles<13, NV, scattered>,
      gemm_tiles<14, NV, scattered>,
#endif
  };
  return table[rows];
}

/// M rows against one panel, in tiles of two heights that differ by one.
static inline void gemm_run(const TileJob& j, int64_t M, const float* a, float* c, int64_t row) {
  if (!M) return;
  const int64_t tiles = (M + gemm_mr - 1) / gemm_mr, low = M / tiles, high = M - low * tiles;  // `high` tiles have low + 1 rows
  const bool narrow = j.n <= V;
  auto run = [&](int64_t rows, int64_t count) {
    GemmTiles f = j.taps ? (narrow ? gemm_tiles_of<1, true>(rows) : gemm_tiles_of<2, true>(rows))
                         : (narrow ? gemm_tiles_of<1, false>(rows) : gemm_tiles_of<2, false>(rows));
    f(j, count, a, c, row);
    a += rows * count * j.a_row, c += rows * count * j.ldc, row += rows * count * j.row_step;
  };
  if (high) run(low + 1, high);
  if (low && tiles > high) run(low, tiles - high);
}

/// M rows against one panel of up to gemm_nr columns.
static inline void gemm_panel(int64_t M, int64_t K, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row,
                              float* c, int64_t ldc, int n, bool accumulate) {
  TileJob j;
  j.K = K, j.a_row = a_row, j.a_col = a_col;
  j.b = b, j.b_row = b_row, j.ldc = ldc, j.n = n, j.accumulate = accumulate;
  gemm_run(j, M, a, c, 0);
}

/// Vectors of columns that a tile of so few rows takes at once.
constexpr int gemm_few_nv(int rows) { return V == 16 ? (rows == 1 ? 8 : 4) : rows <= 2 ? 4 : 2; }

/// A wide tile: vector j of B's row lies at (j / 2) b_panel + (j % 2) V. With `edge` only n columns are loaded.
template <int MR, int NV, bool edge>
static void gemm_wide_tile(int64_t K, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row,
                           int64_t b_panel, float* c, int64_t ldc, int n, bool accumulate) {
  constexpr int sets = MR * NV >= 8 ? 1 : MR * NV >= 4 ? 2 : 4;  // of accumulators, for every second or fourth k
  vf acc[sets][MR][NV];
#pragma GCC unroll 4
  for (int s = 0; s < sets; s++)
#pragma GCC unroll 4
    for (int m = 0; m < MR; m++)
#pragma GCC unroll 8
      for (int j = 0; j < NV; j++) acc[s][m][j] = vf{};
  const int last = n - (NV - 1) * V;  // columns of the last vector
  int64_t k = 0;
  auto step = [&](vf(&sum)[MR][NV], const float* ak, const float* bk) __attribute__((always_inline)) {
    vf bv[NV];
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) {
      const float* at = bk + (j / 2) * b_panel + (j % 2) * V;
      bv[j] = edge && j == NV - 1 && last < V ? load_n(at, last) : load(at);
    }
#pragma GCC unroll 4
    for (int m = 0; m < MR; m++) {
      vf av = splat(ak[m * a_row]);
#pragma GCC unroll 8
      for (int j = 0; j < NV; j++) sum[m][j] += av * bv[j];
    }
  };
  for (; k + sets <= K; k += sets)
#pragma GCC unroll 4
    for (int s = 0; s < sets; s++) step(acc[s], a + (k + s) * a_col, b + (k + s) * b_row);
  if (sets > 1)
    for (; k < K; k++) step(acc[0], a + k * a_col, b + k * b_row);
#pragma GCC unroll 4
  for (int m = 0; m < MR; m++) {
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) {
      vf t = acc[0][m][j];
#pragma GCC unroll 4
      for (int s = 1; s < sets; s++) t += acc[s][m][j];
      float* to = c + m * ldc + j * V;
      if (edge && j == NV - 1 && last < V)
        store_n(to, accumulate ? t + load_n(to, last) : t, last);
      else
        store(to, accumulate ? t + load(to) : t);
    }
  }
}

template <int MR>
static void gemm_few_of(int64_t N, int64_t K, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row,
                        int64_t b_panel, float* c, int64_t ldc, bool accumulate) {
  constexpr int wide = gemm_few_nv(MR);
  for (; N >= wide * V; N -= wide * V, b += wide / 2 * b_panel, c += wide * V)
    gemm_wide_tile<MR, wide, false>(K, a, a_row, a_col, b, b_row, b_panel, c, ldc, wide * V, accumulate);
  switch (int n = int(N); (n + V - 1) / V) {
    case 1: return gemm_wide_tile<MR, 1, true>(K, a, a_row, a_col, b, b_row, b_panel, c, ldc, n, accumulate);
    case 2: return gemm_wide_tile<MR, 2, true>(K, a, a_row, a_col, b, b_row, b_panel, c, ldc, n, accumulate);
    case 3:
      if constexpr (wide > 2) return gemm_wide_tile<MR, 3, true>(K, a, a_row, a_col, b, b_row, b_panel, c, ldc, n, accumulate);
      break;
    case 4:
      if constexpr (wide > 2) return gemm_wide_tile<MR, 4, true>(K, a, a_row, a_col, b, b_row, b_panel, c, ldc, n, accumulate);
      break;
    case 5:
      if constexpr (wide > 4) return gemm_wide_tile<MR, 5, true>(K, a, a_row, a_col, b, b_row, b_panel, c, ldc, n, accumulate);
      break;
    case 6:
      if constexpr (wide > 4) return gemm_wide_tile<MR, 6, true>(K, a, a_row, a_col, b, b_row, b_panel, c, ldc, n, accumulate);
      break;
    case 7:
      if constexpr (wide > 4) return gemm_wide_tile<MR, 7, true>(K, a, a_row, a_col, b, b_row, b_panel, c, ldc, n, accumulate);
      break;
    case 8:
      if constexpr (wide > 4) return gemm_wide_tile<MR, 8, true>(K, a, a_row, a_col, b, b_row, b_panel, c, ldc, n, accumulate);
      break;
    default: break;
  }
}

/// M <= gemm_few_rows rows. B in place: b_panel = gemm_nr; packed: b_row = gemm_nr, b_panel = K gemm_nr.
static inline void gemm_few(int64_t M, int64_t N, int64_t K, const float* a, int64_t a_row, int64_t a_col, const float* b,
                            int64_t b_row, int64_t b_panel, float* c, int64_t ldc, bool accumulate) {
  switch (M) {
    case 1: return gemm_few_of<1>(N, K, a, a_row, a_col, b, b_row, b_panel, c, ldc, accumulate);
    case 2: return gemm_few_of<2>(N, K, a, a_row, a_col, b, b_row, b_panel, c, ldc, accumulate);
    case 3: return gemm_few_of<3>(N, K, a, a_row, a_col, b, b_row, b_panel, c, ldc, accumulate);
    case 4: return gemm_few_of<4>(N, K, a, a_row, a_col, b, b_row, b_panel, c, ldc, accumulate);
    default: break;
  }
}

/// v[i][l] becomes v[l][i].
DAGRT_INLINE void transpose_lanes(vf (&v)[V]) {
  vi lane;
#pragma GCC unroll 16
  for (int i = 0; i < V; i++) lane[i] = i;
#pragma GCC unroll 4
  for (int w = 1; w < V; w *= 2) {
    // Lanes whose bit w is set change places with those of the partner row where it is clear.
    const vi set = (lane & splat_i(w)) != splat_i(0);
    const vi low = select_i(set, (lane ^ splat_i(w)) + splat_i(V), lane),
             high = select_i(set, lane + splat_i(V), lane ^ splat_i(w));
#pragma GCC unroll 16
    for (int i = 0; i < V; i++) {
      if (i & w) continue;
      vf p = v[i], q = v[i | w];
      v[i] = __builtin_shuffle(p, q, low);
      v[i | w] = __builtin_shuffle(p, q, high);
    }
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
  if (b_row == 1) {  // B transposed: V x V blocks, turned in registers
    for (int64_t k = 0; k < K; k += V) {
      const int deep = int(K - k < V ? K - k : V);
#pragma GCC unroll 1
      for (int half = 0; half < gemm_nr; half += V) {
        vf v[V];
        if (deep == V && n - half >= V) {
#pragma GCC unroll 16
          for (int j = 0; j < V; j++) v[j] = load(b + (half + j) * b_col + k);
        } else {
#pragma GCC unroll 16
          for (int j = 0; j < V; j++) v[j] = half + j < n ? load_n(b + (half + j) * b_col + k, deep) : vf{};
        }
        transpose_lanes(v);
        if (deep == V) {
#pragma GCC unroll 16
          for (int j = 0; j < V; j++) store(panel + (k + j) * gemm_nr + half, v[j]);
        } else {
#pragma GCC unroll 16
          for (int j = 0; j < V; j++)
            if (j < deep) store(panel + (k + j) * gemm_nr + half, v[j]);
        }
      }
    }
    return;
  }
  for (int64_t k0 = 0; k0 < K; k0 += 16) {  // any strides: small blocks, so that both sides stay in cache
    int64_t k1 = k0 + 16 < K ? k0 + 16 : K;
    for (int j = 0; j < gemm_nr; j++)
      for (int64_t k = k0; k < k1; k++) panel[k * gemm_nr + j] = j < n ? b[k * b_row + j * b_col] : 0.0f;
  }
}

}  // namespace dagrt::DAGRT_ISA
