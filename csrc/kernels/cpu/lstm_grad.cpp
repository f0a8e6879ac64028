// The LSTM's gradient, from the last step back. dz (the gradient before the gates' functions) stays in scratch for some 128
// rows of (step, sample), then its products with x, h and W are taken while it lies in L2: sums over time need no pass
// through memory. Each group of samples sums its own gradients of the weights; they are added in the order of the groups.
//
// All products use one tile, a few rows by four vectors: fewer loads for a multiply-add than squarer ones, and the depth of
// 128 keeps its part of the other side in L1. While a step's dh is summed, what the step before wants is fetched, a few lines
// at a time. Columns of dh and dx that would fill a quarter of a vector or less are sums along rows of the weights.
#include "kernels/lstm.h"

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/vec_math.h"

namespace dagrt::DAGRT_ISA {
namespace {

constexpr int tile_rows = V == 16 ? 6 : V == 8 ? 3 : 2, tile_vectors = 4;
constexpr int64_t depth = 128;

/// Lines of memory that will be wanted: a tile fetches `each` of them for every four of its products' steps, since many at
/// once would wait for one another, and the products for them.
struct Lines {
  const float **next = nullptr, **end = nullptr;
  int64_t each = 0;
};

/// c[MR, n] (+)= sum_k a b, n up to NV V columns: either a[m, k] in rows `lda` apart and b in panels of two vectors, `ldb`
/// apart, or (over_rows) a[k, m] and b[k, n] in rows lda and ldb apart.
template <int MR, int NV, bool over_rows>
void tile(int64_t K, const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, int n, bool add,
          Lines* lines) {
  if (add)  // sums that may lie far away
#pragma GCC unroll 6
    for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
      for (int j = 0; j < NV * V; j += 16) __builtin_prefetch(c + m * ldc + j, 1);
  constexpr int sets = MR == 1 ? 2 : 1;  // a few sums alone would wait for one another
  vf sums[sets][MR][NV] = {};
  auto step = [&](vf(&to)[MR][NV]) __attribute__((always_inline)) {
    vf x[MR];
#pragma GCC unroll 6
    for (int m = 0; m < MR; m++) x[m] = splat(a[over_rows ? m : m * lda]);
#pragma GCC unroll 4
    for (int j = 0; j < NV; j++) {
      vf y = load(over_rows ? b + j * V : b + (j / 2) * ldb + (j % 2) * V);
#pragma GCC unroll 6
      for (int m = 0; m < MR; m++) to[m][j] += x[m] * y;
    }
    a += over_rows ? lda : 1;
    b += over_rows ? ldb : 2 * V;
    if (over_rows) keep(a), keep(b);  // two pointers that move: the compiler would keep one for every row of four
  };
  int64_t k = 0;
  for (; k + 4 <= K; k += 4) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) step(sums[i % sets]);
    if constexpr (!over_rows)
      if (lines)
        for (int64_t i = lines->each; i > 0 && lines->next < lines->end; i--) __builtin_prefetch(*lines->next++);
  }
  for (; k < K; k++) step(sums[0]);
  const int last = n - (NV - 1) * V;
#pragma GCC unroll 6
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int j = 0; j < NV; j++) {
      vf t = sums[0][m][j];
      if constexpr (sets > 1) t += sums[1][m][j];
      float* to = c + m * ldc + j * V;
      const int lanes = j < NV - 1 ? V : last;
      if (add) t += lanes == V ? load(to) : load_n(to, lanes);
      store_n(to, t, lanes);
    }
}

using Tile = void (*)(int64_t, const float*, int64_t, const float*, int64_t, float*, int64_t, int, bool, Lines*);
#if DAGRT_V == 16
#define DAGRT_TILES(n, r) {nullptr, tile<1, n, r>, tile<2, n, r>, tile<3, n, r>, tile<4, n, r>, tile<5, n, r>, tile<6, n, r>}
#elif DAGRT_V == 8
#define DAGRT_TILES(n, r) {nullptr, tile<1, n, r>, tile<2, n, r>, tile<3, n, r>}
#else
#define DAGRT_TILES(n, r) {nullptr, tile<1, n, r>, tile<2, n, r>}
#endif
template <bool r>
constexpr Tile tiles[tile_vectors][tile_rows + 1] = {DAGRT_TILES(1, r), DAGRT_TILES(2, r), DAGRT_TILES(3, r), DAGRT_TILES(4, r)};
#undef DAGRT_TILES

/// c[MR] (+)= a w, one column of sums, along its row w.
template <int MR> void dots(int64_t K, const float* a, int64_t lda, const float* w, float* c, int64_t ldc, bool add) {
  vf sums[MR] = {};
  each_vector(K, [&](int64_t k, int n) __attribute__((always_inline)) {
    const vf y = load_n(w + k, n);
#pragma GCC unroll 6
    for (int m = 0; m < MR; m++) sums[m] += load_n(a + m * lda + k, n) * y;
  });
#pragma GCC unroll 6
  for (int m = 0; m < MR; m++) c[m * ldc] = (add ? c[m * ldc] : 0) + sum(sums[m]);
}
using Dots = void (*)(int64_t, const float*, int64_t, const float*, float*, int64_t, bool);
#if DAGRT_V == 16
constexpr Dots columns[tile_rows + 1] = {nullptr, dots<1>, dots<2>, dots<3>, dots<4>, dots<5>, dots<6>};
#elif DAGRT_V == 8
constexpr Dots columns[tile_rows + 1] = {nullptr, dots<1>, dots<2>, dots<3>};
#else
constexpr Dots columns[tile_rows + 1] = {nullptr, dots<1>, dots<2>};
#endif

/// All of c[M, N] (+)= a b, as for a tile.
template <bool over_rows>
void product(int64_t M, int64_t N, int64_t K, const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc,
             bool add, Lines* lines = nullptr) {
  for (int64_t n0 = 0; n0 < N; n0 += tile_vectors * V) {
    const int n = int(N - n0 < tile_vectors * V ? N - n0 : tile_vectors * V);
    for (int64_t k = 0; k == 0 || k < K; k += depth) {  // of nothing: zero
      const float* part = over_rows ? b + k * ldb + n0 : b + k * 2 * V + n0 / (2 * V) * ldb;
      for (int64_t m = 0; m < M; m += tile_rows)
        tiles<over_rows>[(n - 1) / V][M - m < tile_rows ? M - m : tile_rows](
            K - k < depth ? K - k : depth, over_rows ? a + k * lda + m : a + m * lda + k, lda, part, ldb, c + m * ldc + n0, ldc,
            n, add || k > 0, lines);
    }
  }
}

/// All of c[M, N] (+)= a w^T, w [N][K], also given as panels. What would fill few lanes of a vector is summed along w's rows;
/// vectors are stored whole.
void product_back(int64_t M, int64_t N, int64_t K, const float* a, int64_t lda, const float* w, const float* panels, float* c,
                  int64_t ldc, bool add, Lines* lines = nullptr) {
  const int64_t few = N % V <= V / 4 ? N % V : 0, whole = few ? N - few : (N + V - 1) / V * V;
  product<false>(M, whole, K, a, lda, panels, K * 2 * V, c, ldc, add, lines);
  for (int64_t n = whole; n < N; n++)
    for (int64_t m = 0; m < M; m += tile_rows)
      columns[M - m < tile_rows ? M - m : tile_rows](K, a + m * lda, lda, w + n * K, c + m * ldc + n, ldc, add);
}

/// The transpose of weights [N][K] as panels of two vectors: [N / 2V][K][2V].
void pack(const Stream& s, int64_t N, int64_t K, const float* w, float* panels) {
  int64_t count = (N + gemm_nr - 1) / gemm_nr;
  s.parallel(count, double(K) * 6 + 20, [&](int64_t p, char*) {
    int64_t n0 = p * gemm_nr;
    gemm_pack(K, w + n0 * K, 1, K, int(N - n0 < gemm_nr ? N - n0 : gemm_nr), panels + p * K * gemm_nr);
  });
}

/// to[n] (+)= the sums over rows of a, n up to NV V columns, side by side: one sum would wait for itself. Reads whole vectors.
template <int NV> void sum_rows(int64_t rows, const float* a, int64_t lda, float* to, int n, bool add) {
  vf sums[NV] = {};
  for (int64_t r = 0; r < rows; r++, a += lda)
#pragma GCC unroll 4
    for (int j = 0; j < NV; j++) sums[j] += load(a + j * V);
#pragma GCC unroll 4
  for (int j = 0; j < NV; j++) {
    const int lanes = j < NV - 1 ? V : n - j * V;
    store_n(to + j * V, add ? load_n(to + j * V, lanes) + sums[j] : sums[j], lanes);
  }
}
using Sums = void (*)(int64_t, const float*, int64_t, float*, int, bool);
constexpr Sums row_sums[tile_vectors] = {sum_rows<1>, sum_rows<2>, sum_rows<3>, sum_rows<4>};

/// Adds the lines of n floats.
DAGRT_INLINE void want(Lines& lines, const float* p, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) *lines.end++ = p + i;
}

/// One step back for some rows: dz and what dh, dc become but for dz's part of dh. False if all rows were masked. Without a
/// mask dh is left as it was, and nothing waits.
bool step_back(const LstmArgs& a, int64_t step, int64_t b0, int64_t rows, float* dz, int64_t ldz, float* dh, float* dc,
               float* waiting, int64_t ld) {
  const int64_t U = a.U, G = 4 * U, B = a.B, T = a.T, t = a.go_backwards ? T - 1 - step : step;
  bool any = false;
  const bool masks = a.mask;
  for (int64_t m = 0; m < rows; m++, dz += ldz, dh += ld, dc += ld, waiting += ld) {
    const int64_t b = b0 + m, place = step * B + b;
    const float* dy = a.dy ? a.dy + (b * T + step) * a.lddy : nullptr;
    if (masks && !a.mask[b * T + t]) {
      copy(dz, nullptr, G);
      if (dy && !a.zero_output_for_mask)
        for (int64_t u = 0; u < U; u += V) {
          int n = int(U - u < V ? U - u : V);
          store(waiting + u, load(waiting + u) + load_n(dy + u, n));
        }
      continue;
    }
    any = true;
    const float *g = a.gates + place * G, *h = a.hidden + place * U;
    const float* c_before = step ? a.cells + (place - B) * U : a.c0 ? a.c0 + b * U : nullptr;
    for (int64_t u = 0; u < U; u += V) {
      int n = int(U - u < V ? U - u : V);
      vf i = load_n(g + u, n), f = load_n(g + U + u, n), gg = load_n(g + 2 * U + u, n), o = load_n(g + 3 * U + u, n);
      vf before = c_before ? load_n(c_before + u, n) : vf{};
      vf tc = load_n(h + u, n) / (n == V ? o : select(first_lanes(n), o, splat(1)));  // h = o tanh(c); o is never 0
      vf d = load(dh + u);
      if (masks) d += load(waiting + u);
      if (dy) d += load_n(dy + u, n);
      vf dcell = load(dc + u) + d * o * (splat(1) - tc * tc);
      store_n(dz + u, dcell * gg * i * (splat(1) - i), n);
      store_n(dz + U + u, dcell * before * f * (splat(1) - f), n);
      store_n(dz + 2 * U + u, dcell * i * (splat(1) - gg * gg), n);
      store_n(dz + 3 * U + u, d * tc * o * (splat(1) - o), n);
      store(dc + u, dcell * f);
      if (masks) store(dh + u, vf{}), store(waiting + u, vf{});
    }
  }
  return any;
}

}  // namespace

void lstm_grad(const LstmArgs& a, const Stream& s) {
  const int64_t U = a.U, G = 4 * U, B = a.B, T = a.T, C = a.C;
  const LstmGradPlan plan = lstm_grad_plan(B, T, U);
  const int64_t ld = (U + 15) / 16 * 16, ldz = lstm_odd_row(4 * U), ldx = lstm_odd_row(C), ldh = lstm_odd_row(U);
  float* recurrent = aligned(a.workspace);
  float* kernel = recurrent + G * ((U + 31) / 32 * 32);
  float* sums = kernel + G * ((C + 31) / 32 * 32);  // of each group: [C + U + 1][4U]
  if (B && T && U) {
    pack(s, U, G, a.recurrent, recurrent);
    if (a.dx) pack(s, C, G, a.kernel, kernel);
  }
  double ns = double(T) * double(B) / double(plan.groups ? plan.groups : 1) * double(G) * double(2 * (C + U)) * (0.2 / V) + 1000;
  s.parallel(plan.groups, ns, [&](int64_t group, char* scratch) {
    const bool alone = plan.groups == 1;
    float* sum = sums + group * (C + U + 1) * G;
    float* dkernel = !a.dkernel ? nullptr : alone ? a.dkernel : sum;
    float* drecurrent = !a.drecurrent ? nullptr : alone ? a.drecurrent : sum + C * G;
    float* dbias = !a.dbias ? nullptr : alone ? a.dbias : sum + (C + U) * G;
    const int64_t each = plan.batch.rows * ld, most = plan.batch.rows * plan.steps;
    float *dh = aligned(scratch), *dc = dh + each, *waiting = dc + each;    // waiting: for the last step that was not masked
    float* dz = waiting + each;                                             // [steps][rows], ldz apart
    float* xs = dz + most * ldz;                                            // [steps][rows][C]: x, then dx
    float* hs = xs + most * ldx;                                            // [steps][rows][U]: h of the step before
    const float** list = reinterpret_cast<const float**>(hs + most * ldh);  // lstm_grad_lines of them
    bool add = false;
    for (int64_t i = group; i < plan.batch.blocks; i += plan.groups) {
      const auto [b0, rows] = lstm_block(plan.batch, B, i);
      for (int64_t m = 0; m < rows; m++)
        for (int64_t u = 0; u < U; u += V) {
          const int n = int(U - u < V ? U - u : V);
          store(dh + m * ld + u, a.dh ? load_n(a.dh + (b0 + m) * U + u, n) : vf{});
          store(dc + m * ld + u, a.dc ? load_n(a.dc + (b0 + m) * U + u, n) : vf{});
          store(waiting + m * ld + u, vf{});
        }
      for (int64_t end = T; end > 0; end -= plan.steps) {
        const int64_t begin = end > plan.steps ? end - plan.steps : 0, many = (end - begin) * rows;
        for (int64_t step = end - 1; step >= begin; step--) {
          float* z = dz + (step - begin) * rows * ldz;
          // Rows that were masked have dz = 0 and keep their dh: with a mask adding is right for all.
          if (!step_back(a, step, b0, rows, z, ldz, dh, dc, waiting, ld)) continue;
          Lines lines{list, list};
          const int64_t before = ((step - 1) * B + b0) * U;
          if (step) want(lines, a.gates + 4 * before, rows * G);
          if (step > 1) want(lines, a.cells + before - B * U, rows * U);
          if (step) want(lines, a.hidden + before, rows * U);
          for (int64_t m = 0; m < rows; m++) {  // what the products over all steps read and write
            const int64_t place = (b0 + m) * T + (a.go_backwards ? T - 1 - step : step);
            if (dkernel) want(lines, a.x + place * a.ldx, C);
            if (a.dx) want(lines, a.dx + place * C, C);
          }
          const int64_t tiles = (U + tile_vectors * V - 1) / (tile_vectors * V) * ((rows + tile_rows - 1) / tile_rows);
          lines.each = (lines.end - list) / (tiles * U + 1) + 1;  // each tile's sums are of 4 U products
          product_back(rows, U, G, z, ldz, a.recurrent, recurrent, dh, ld, a.mask != nullptr, &lines);
        }
        const auto each_row = [&](const auto& f) {  // f(its number, step, row of the batch, row of x)
          for (int64_t step = begin, r = 0; step < end; step++)
            for (int64_t b = b0; b < b0 + rows; b++, r++) f(r, step, b, b * T + (a.go_backwards ? T - 1 - step : step));
        };
        each_row([&](int64_t r, int64_t step, int64_t b, int64_t place) {
          if (dkernel) copy(xs + r * ldx, a.x + place * a.ldx, C);
          if (drecurrent) copy(hs + r * ldh, step ? a.hidden + ((step - 1) * B + b) * U : a.h0 ? a.h0 + b * U : nullptr, U);
        });
        if (dkernel) product<true>(C, G, many, xs, ldx, dz, ldz, dkernel, G, add);
        if (drecurrent) product<true>(U, G, many, hs, ldh, dz, ldz, drecurrent, G, add);
        if (dbias)
          for (int64_t n = 0; n < G; n += tile_vectors * V) {
            const int lanes = int(G - n < tile_vectors * V ? G - n : tile_vectors * V);
            row_sums[(lanes - 1) / V](many, dz + n, ldz, dbias + n, lanes, add);
          }
        add = true;
        if (a.dx) {
          product_back(many, C, G, dz, ldz, a.kernel, kernel, xs, ldx, false);
          each_row([&](int64_t r, int64_t, int64_t, int64_t place) { copy(a.dx + place * C, xs + r * ldx, C); });
        }
      }
      for (int64_t m = 0; m < rows; m++) {
        if (a.dh0) copy(a.dh0 + (b0 + m) * U, dh + m * ld, U);
        if (a.dc0) copy(a.dc0 + (b0 + m) * U, dc + m * ld, U);
      }
    }
  });
  if (plan.groups == 1 && T) return;
  const int64_t parts = T ? plan.groups : 0;  // none: zero
  s.parallel(C + U + 1, double(G) * double(parts) * (1.0 / V) + 10, [&](int64_t row, char*) {
    float* to = row < C ? a.dkernel : row < C + U ? a.drecurrent : a.dbias;
    if (!to) return;
    to += (row < C ? row : row < C + U ? row - C : 0) * G;
    for (int64_t n = 0; n < G; n += V) {
      int k = int(G - n < V ? G - n : V);
      vf t{};
      for (int64_t i = 0; i < parts; i++) t += load_n(sums + (i * (C + U + 1) + row) * G + n, k);
      store_n(to + n, t, k);
    }
  });
}

}  // namespace dagrt::DAGRT_ISA
