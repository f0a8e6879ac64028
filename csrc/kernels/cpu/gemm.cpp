// The micro-kernels' instances (gemm.h), once for all kernels that multiply.
#include "kernels/cpu/gemm.h"

namespace dagrt::DAGRT_ISA {
namespace {

/// Stores the first j.n columns of a tile of `count` rows, `ld` apart.
__attribute__((noinline)) void finish_rows(const TileJob& j, const SimpleEpilogue& e, const float* rows, int count, int ld,
                                           float* c, int64_t row) {
  for (int m = 0; m < count; m++, rows += ld, c += j.ldc, row += j.row_step)
    each_vector(j.n, [&](int64_t i, int n) {
      vf t = load(rows + i);
      if (j.accumulate) t += load_n(c + i, n);
      store_n(c + i, finish(e, t, row, j.column + i, n), n);
    });
}

/// f(m, i) for every vector of a tile, unrolled: the tile stays in registers from one pass to the next.
template <int MR, int NV, class F> DAGRT_INLINE void each_of_tile(const F& f) {
#pragma GCC unroll 16
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 2
    for (int i = 0; i < NV; i++) f(m, i);
}

/// f(m, row) for each of MR rows `ld` apart, walking: as distances from the first they are more than registers hold.
template <int MR, class T, class F> DAGRT_INLINE void each_row(T* row, int64_t ld, const F& f) {
#pragma GCC unroll 16
  for (int m = 0; m < MR; m++, row += ld) {
    keep(row);
    f(m, row);
  }
}

/// Stores a tile of whole vectors; one pass for each thing to be done, so that no vector asks whether it is.
template <int MR, int NV>
DAGRT_INLINE void finish_whole(const TileJob& j, const SimpleEpilogue& e, vf (&t)[MR][NV], float* c, int64_t row) {
  const auto add = [&](int m, const float* from) __attribute__((always_inline)) {
#pragma GCC unroll 2
    for (int i = 0; i < NV; i++) t[m][i] += load(from + i * V);
  };
  if (j.accumulate) each_row<MR>(static_cast<const float*>(c), j.ldc, add);
  if (e.bias) {
    const float* bias = e.bias + j.column;
    vf b[NV];
#pragma GCC unroll 2
    for (int i = 0; i < NV; i++) b[i] = load(bias + i * V);
    each_of_tile<MR, NV>([&](int m, int i) __attribute__((always_inline)) { t[m][i] += b[i]; });
  }
  if (e.residual) each_row<MR>(e.residual + row * e.ld_residual + j.column, j.row_step * e.ld_residual, add);
  if (e.round) each_of_tile<MR, NV>([&](int m, int i) __attribute__((always_inline)) { t[m][i] = vround_bfloat16(t[m][i]); });
  if (e.relu) each_of_tile<MR, NV>([&](int m, int i) __attribute__((always_inline)) { t[m][i] = relu(t[m][i]); });
  if (e.capped) {
    const vf most = splat(e.ceiling);
    each_of_tile<MR, NV>([&](int m, int i) __attribute__((always_inline)) { t[m][i] = at_most(t[m][i], most); });
  }
  each_row<MR>(c, j.ldc, [&](int m, float* to) __attribute__((always_inline)) {
#pragma GCC unroll 2
    for (int i = 0; i < NV; i++) store(to + i * V, t[m][i]);
  });
}

/// Stores the first j.n columns of a tile, by way of memory.
template <int MR, int NV>
DAGRT_INLINE void finish_part(const TileJob& j, const SimpleEpilogue& e, const vf (&t)[MR][NV], float* c, int64_t row) {
  float rows[MR * NV * V];
  each_of_tile<MR, NV>([&](int m, int i) __attribute__((always_inline)) { store(rows + (m * NV + i) * V, t[m][i]); });
  finish_rows(j, e, rows, MR, NV * V, c, row);
}

constexpr int64_t gemm_packing_ahead = 16;  // rows of B
constexpr int64_t gemm_turning_ahead = 48;  // floats of a column that is turned

/// `tiles` tiles of MR rows each, one behind the other; `row`: the first row's place in the epilogue's operands.
/// `ahead`: the next run to be fetched, one in every `every` steps. `packing`: B's rows are copied to j.packed on their way.
/// `copying`: A's elements to j.copied.
template <int MR, int NV, bool scattered, bool packing = false, bool copying = false>
void gemm_tiles(const TileJob& j, int64_t tiles, const float* a, float* c, int64_t row, const char*& ahead, int64_t every) {
  // Rows that one pointer serves: distances of more are more than registers hold. Through taps a single one is as good, but where
  // each multiply-add waits for a distance of its own.
  constexpr int half = MR > 7 && (!scattered || NV == 1) ? (MR + 1) / 2 : MR;
  const int64_t K = j.K, a_row = j.a_row, a_col = j.a_col, b_row = j.b_row, ldc = j.ldc, row_step = j.row_step;
  const int64_t next_row = j.next ? j.next_row : 0, a_tile = j.a_tile && !copying ? j.a_tile : MR * a_row;
  float* copied = j.copied;
  const int32_t* taps = j.taps;
  const float* panel = j.b;
  const bool whole = j.n == NV * V;
  const SimpleEpilogue simple = j.finish ? SimpleEpilogue(*j.finish) : SimpleEpilogue();
  for (; tiles; tiles--, a += a_tile, c += MR * ldc, row += MR * row_step) {
    vf acc[MR][NV];
#pragma GCC unroll 16
    for (int m = 0; m < MR; m++)
#pragma GCC unroll 2
      for (int i = 0; i < NV; i++) acc[m][i] = vf{};
    if (simple.residual) {  // a line of each row, which no prefetcher foresees
      const float* from = simple.residual + row * simple.ld_residual + j.column;
      each_row<MR>(from, row_step * simple.ld_residual,
                   [](int, const float* at) __attribute__((always_inline)) { __builtin_prefetch(at); });
    }
    if (j.far)
      each_row<MR>(c, ldc, [](int, float* at) __attribute__((always_inline)) {
#pragma GCC unroll 2
        for (int i = 0; i < NV * V; i += 16) __builtin_prefetch(at + i, 1);
      });
    const float *b = panel, *ak = a, *behind = a + half * a_row;
    keep(behind);
    const float* lower = behind;
    float* packed = j.packed;
    for (int64_t k = 0; k < K;) {
#pragma GCC unroll 2
      for (int i = 0; i < gemm_fetched; i += 16) __builtin_prefetch(ahead + 4 * i, 0, 2);
      ahead += next_row;
      for (const int64_t end = K - k < every ? K : k + every; k < end; k++) {
        int64_t at = scattered ? taps[k] : 0;
        if (copying) {
          const float* later = a + taps[k + gemm_copying_ahead];
          __builtin_prefetch(later);
          __builtin_prefetch(later + V - 1);
          store(copied + k * MR, load(a + at));
        }
        vf bv[NV];
#pragma GCC unroll 2
        for (int i = 0; i < NV; i++) bv[i] = load(b + i * V);
        if (packing) {
          __builtin_prefetch(b + gemm_packing_ahead * b_row + NV * V - 1);
#pragma GCC unroll 2
          for (int i = 0; i < NV; i++) store(packed + i * V, bv[i]);
          packed += NV * V;
        }
        auto multiply = [&](int m, float element) __attribute__((always_inline)) {
          vf av = splat(element);
#pragma GCC unroll 2
          for (int i = 0; i < NV; i++) acc[m][i] += av * bv[i];
        };
#pragma GCC unroll 16
        for (int m = 0; m < half; m++, at += a_row) {
          multiply(m, ak[at]);
          if (scattered && m + half < MR) multiply(m + half, lower[at]);
        }
#pragma GCC unroll 16
        for (int m = half; m < MR && !scattered; m++) multiply(m, lower[(m - half) * a_row]);
        if (!scattered) ak += a_col, lower += a_col;
        b += b_row;
      }
    }
    if (whole)
      finish_whole<MR, NV>(j, simple, acc, c, row);
    else
      finish_part<MR, NV>(j, simple, acc, c, row);
    if (copying) copied += j.a_tile;
  }
}

using GemmTiles = void (*)(const TileJob&, int64_t, const float*, float*, int64_t, const char*&, int64_t);

template <int NV, bool scattered> GemmTiles gemm_tiles_of(int64_t rows) {
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

/// Vectors of columns that a tile of so few rows takes at once.
constexpr int gemm_few_nv(int rows) { return V == 16 ? (rows == 1 ? 8 : 4) : rows <= 2 ? 4 : 2; }

/// A wide tile: vector j of B's row lies at (j / 2) b_panel + (j % 2) V. With `edge` only n columns are loaded.
template <int MR, int NV, bool edge>
void gemm_wide_tile(int64_t K, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row, int64_t b_panel,
                    float* c, int64_t ldc, int n, bool accumulate) {
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
void gemm_few_of(int64_t N, int64_t K, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row,
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

constexpr int64_t gemm_stream_ahead = 128;  // floats

/// c += a times R rows of B, side by side along them; `first`: c holds nothing yet. What comes a little later of each is fetched,
/// behind its end of the next R rows.
template <int MR, int R>
void stream_rows(int64_t N, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row, float* c, int64_t ldc,
                 bool first) {
  vf av[MR][R];
#pragma GCC unroll 4
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) av[m][r] = splat(a[m * a_row + r * a_col]);
  auto step = [&](int64_t i, int n) __attribute__((always_inline)) {
    vf t[MR];
#pragma GCC unroll 4
    for (int m = 0; m < MR; m++) t[m] = first ? vf{} : load_n(c + m * ldc + i, n);
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
      const vf bv = load_n(b + r * b_row + i, n);
#pragma GCC unroll 4
      for (int m = 0; m < MR; m++) t[m] += av[m][r] * bv;
    }
#pragma GCC unroll 4
    for (int m = 0; m < MR; m++) store_n(c + m * ldc + i, t[m], n);
  };
  constexpr int line = 16;
  int64_t i = 0;
  for (; i + line <= N; i += line) {
    const int64_t later = i + gemm_stream_ahead, ahead = later < N ? later : later - N + R * b_row;
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) __builtin_prefetch(b + r * b_row + ahead);
#pragma GCC unroll 4
    for (int j = 0; j < line; j += V) step(i + j, V);
  }
  for (; i < N; i += V) step(i, int(N - i < V ? N - i : V));
}

template <int MR>
void gemm_stream_of(int64_t N, int64_t K, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row, float* c,
                    int64_t ldc) {
  constexpr int R = 4;
  int64_t k = 0;
  for (; k + R <= K; k += R) stream_rows<MR, R>(N, a + k * a_col, a_row, a_col, b + k * b_row, b_row, c, ldc, k == 0);
  for (; k < K; k++) stream_rows<MR, 1>(N, a + k * a_col, a_row, a_col, b + k * b_row, b_row, c, ldc, k == 0);
}

}  // namespace

void gemm_stream(int64_t M, int64_t N, int64_t K, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row,
                 float* c, int64_t ldc) {
  switch (M) {
    case 1: return gemm_stream_of<1>(N, K, a, a_row, a_col, b, b_row, c, ldc);
    case 2: return gemm_stream_of<2>(N, K, a, a_row, a_col, b, b_row, c, ldc);
    case 3: return gemm_stream_of<3>(N, K, a, a_row, a_col, b, b_row, c, ldc);
    case 4: return gemm_stream_of<4>(N, K, a, a_row, a_col, b, b_row, c, ldc);
    default: break;
  }
}

void gemm_run(TileJob j, int64_t M, const float* a, float* c, int64_t row) {
  if (!M) return;
  const bool low_tiles = j.crowded;
  int64_t tiles = low_tiles ? (M + gemm_crowded_mr - 1) / gemm_crowded_mr : (M + gemm_mr - 1) / gemm_mr;
  const bool narrow = j.n <= V;
  const char* ahead = reinterpret_cast<const char*>(j.next ? j.next : j.b);
  const int64_t runs = j.next_runs ? j.next_runs : j.K, steps = tiles * j.K;
  const int64_t every = j.next ? (steps > runs ? steps / runs : 1) : j.K;
  // Two tiles of one vector read the panel once between them, where two low ones read it twice.
  if (V == 16 && tiles == 2 && M <= 16 && !j.taps && !j.packed && !low_tiles) {
    const GemmTiles f = M == 16 ? gemm_tiles<16, 1, false> : gemm_tiles<15, 1, false>;
    for (int half = 0; half < j.n; half += V) {
      TileJob h = j;
      h.b += half, h.column += half, h.n = j.n - half < V ? j.n - half : V;
      f(h, 1, a, c + half, row, ahead, every);
    }
    return;
  }
  if (j.packed) {
    auto* first = low_tiles ? gemm_tiles<gemm_crowded_mr, 2, false, true> : gemm_tiles<gemm_mr, 2, false, true>;
    const int64_t rows = low_tiles ? gemm_crowded_mr : gemm_mr;
    first(j, 1, a, c, row, ahead, every);
    j.b = j.packed, j.b_row = gemm_nr;
    a += j.a_tile ? j.a_tile : rows * j.a_row, c += rows * j.ldc, row += rows * j.row_step;
    M -= rows, tiles--;
    if (!M) return;
  }
  if (j.copied) return gemm_tiles<gemm_mr, 2, true, false, true>(j, tiles, a, c, row, ahead, every);
  const int64_t low = M / tiles, high = M - low * tiles;  // `high` tiles have low + 1 rows
  auto run = [&](int64_t rows, int64_t count) {
    GemmTiles f = j.taps ? (narrow ? gemm_tiles_of<1, true>(rows) : gemm_tiles_of<2, true>(rows))
                         : (narrow ? gemm_tiles_of<1, false>(rows) : gemm_tiles_of<2, false>(rows));
    f(j, count, a, c, row, ahead, every);
    a += count * (j.a_tile ? j.a_tile : rows * j.a_row), c += rows * count * j.ldc, row += rows * count * j.row_step;
  };
  if (high) run(low + 1, high);
  if (low && tiles > high) run(low, tiles - high);
}

void gemm_few(int64_t M, int64_t N, int64_t K, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row,
              int64_t b_panel, float* c, int64_t ldc, bool accumulate) {
  switch (M) {
    case 1: return gemm_few_of<1>(N, K, a, a_row, a_col, b, b_row, b_panel, c, ldc, accumulate);
    case 2: return gemm_few_of<2>(N, K, a, a_row, a_col, b, b_row, b_panel, c, ldc, accumulate);
    case 3: return gemm_few_of<3>(N, K, a, a_row, a_col, b, b_row, b_panel, c, ldc, accumulate);
    case 4: return gemm_few_of<4>(N, K, a, a_row, a_col, b, b_row, b_panel, c, ldc, accumulate);
    default: break;
  }
}

void gemm_pack(int64_t K, const float* b, int64_t b_row, int64_t b_col, int n, float* panel) {
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
          for (int j = 0; j < V; j++) {
            const float* row = b + (half + j) * b_col + k;
            if (k % 16 == 0) __builtin_prefetch(row + gemm_turning_ahead);
            v[j] = load(row);
          }
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
