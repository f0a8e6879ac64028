// Batch normalisation.
//   mean = sum x / n; variance = sum (x - mean)² / n; rstd = 1 / sqrt(variance + epsilon)
//   y = (x - mean) rstd gamma + beta
//   dbeta = sum dy; dgamma = sum dy (x - mean) rstd
//   dx = gamma rstd (dy - dbeta / n - (x - mean) rstd dgamma / n)
// Bound by memory: x is read once for its statistics and once for the result, the gradient reads x and dy twice.
// Statistics without cancellation: in a block of rows that stays in L1, the mean first, then the squares about it; blocks,
// and the parts that threads work on, are joined by Chan's formula
//   M = Ma + Mb + d² na nb / (na + nb), mean = a + d nb / (na + nb), d = b - a
// Parts are a function of the shape alone, so the bits do not depend on threads; sums of blocks keep rounding errors small
// over millions of rows.
#include "kernels/batch_norm.h"

#include "kernels/cpu/epilogue.h"
#include "kernels/cpu/vec.h"

namespace dagrt::DAGRT_ISA {
namespace {

constexpr int64_t block_floats = 4096, tile_floats = 4096;  // of a block, half of L1

int64_t rows_of(int64_t floats, int64_t C) {
  int64_t n = floats / (C ? C : 1);
  return n < 4 ? 4 : n > 256 ? 256 : n;
}

/// Sums over a block's rows of N vectors of channels from c on: f(row, c + k V, lanes, k, sums).
template <int N, class F> DAGRT_INLINE void sum_block(int64_t from, int64_t to, int64_t c, const F& f, vf* t) {
  for (int64_t m = from; m < to; m++)
#pragma GCC unroll 4
    for (int k = 0; k < N; k++) f(m, c + k * V, V, k, t);
}

/// f over a block: 4 vectors of channels at once, then what is left; `done(c, lanes, sums of that vector)`.
template <int S, class F, class Done>
DAGRT_INLINE void sum_rows(int64_t from, int64_t to, int64_t C, const F& f, const Done& done) {
  int64_t c = 0;
  for (; c + 4 * V <= C; c += 4 * V) {
    vf t[4 * S] = {};
    f.start(c, 4, V);
    sum_block<4>(from, to, c, f, t);
    for (int k = 0; k < 4; k++) done(c + k * V, V, t + k * S);
  }
  for (; c < C; c += V) {
    const int n = int(C - c < V ? C - c : V);
    vf t[S] = {};
    f.start(c, 1, n);
    for (int64_t m = from; m < to; m++) f(m, c, n, 0, t);
    done(c, n, t);
  }
}

struct SumOf {
  const float* x;
  int64_t ld;
  DAGRT_INLINE void start(int64_t, int, int) const {}
  DAGRT_INLINE void operator()(int64_t m, int64_t c, int n, int k, vf* t) const { t[k] += load_n(x + m * ld + c, n); }
};

/// Asks for the cache line behind p, once for all vectors k in it: blocks are read a few channels at a time, in strides that
/// the machine's own prefetchers lose.
DAGRT_INLINE void ask(const float* p, int k) {
  if (k * V % 16 == 0) __builtin_prefetch(p, 0, 2);
}

struct SquaresAbout {  // meanwhile asks for the next block, `ahead` elements further on
  const float *x, *centre;
  int64_t ld, ahead;
  mutable vf at[4];
  DAGRT_INLINE void start(int64_t c, int vectors, int n) const {
    for (int k = 0; k < vectors; k++) at[k] = load_n(centre + c + k * V, n);
  }
  DAGRT_INLINE void operator()(int64_t m, int64_t c, int n, int k, vf* t) const {
    const float* from = x + m * ld + c;
    ask(from + ahead, k);
    vf d = load_n(from, n) - at[k];
    t[k] += d * d;
  }
};

struct Products {  // sums of dy, and of dy (x - mean)
  const float *x, *dy, *mean;
  int64_t ldx, lddy, block;
  mutable vf at[4];
  DAGRT_INLINE void start(int64_t c, int vectors, int n) const {
    for (int k = 0; k < vectors; k++) at[k] = load_n(mean + c + k * V, n);
  }
  DAGRT_INLINE void operator()(int64_t m, int64_t c, int n, int k, vf* t) const {
    const float *from = x + m * ldx + c, *slope = dy + m * lddy + c;
    ask(from + block * ldx, k);
    ask(slope + block * lddy, k);
    vf g = load_n(slope, n);
    t[2 * k] += g;
    t[2 * k + 1] += g * (load_n(from, n) - at[k]);
  }
};

/// Joins (mean, squares) of nb rows to those of na rows.
DAGRT_INLINE void join(float* mean, float* squares, int64_t c, int n, float na, vf mean_b, vf squares_b, float nb) {
  vf a = load_n(mean + c, n), d = mean_b - a;
  store_n(mean + c, a + d * splat(nb / (na + nb)), n);
  store_n(squares + c, load_n(squares + c, n) + squares_b + d * d * splat(na * (nb / (na + nb))), n);
}

/// mean[part][c] and squares[part][c] of each part's rows.
void statistics(const BatchNormArgs& a, const Stream& s, int64_t parts, float* means, float* squares) {
  const int64_t block = rows_of(block_floats, a.C);
  s.parallel(parts, double(a.rows * a.C) / double(parts) * 0.15 + 50, [&](int64_t part, char*) {
    const int64_t from = a.rows * part / parts, to = a.rows * (part + 1) / parts;
    float *mean = means + part * a.C, *square = squares + part * a.C;
    alignas(64) float centre[tile_floats];
    for (int64_t m = from; m < to; m += block) {
      const int64_t end = m + block < to ? m + block : to;
      const float rows = float(end - m), before = float(m - from);
      for (int64_t c0 = 0; c0 < a.C; c0 += tile_floats) {  // as many channels as fit into `centre`
        const int64_t C = a.C - c0 < tile_floats ? a.C - c0 : tile_floats;
        sum_rows<1>(m, end, C, SumOf{a.x + c0, a.ldx},
                    [&](int64_t c, int n, const vf* t) { store_n(centre + c, t[0] / splat(rows), n); });
        sum_rows<1>(m, end, C, SquaresAbout{a.x + c0, centre, a.ldx, block * a.ldx, {}}, [&](int64_t c, int n, const vf* t) {
          vf b = load_n(centre + c, n);
          if (m > from) return join(mean + c0, square + c0, c, n, before, b, t[0], rows);
          store_n(mean + c0 + c, b, n);
          store_n(square + c0 + c, t[0], n);
        });
      }
    }
  });
}

/// y = (x - mean) scale + beta for `rows` rows from m on, and the epilogue; of one with `operands` all, otherwise its relu.
template <int rows, bool operands>
DAGRT_INLINE void normalise_rows(const BatchNormArgs& a, const float* scale, const SimpleEpilogue& e, int64_t m) {
  const int64_t C = a.C, ldx = a.ldx, ldy = a.ldy;
  const float *mean = a.mean, *beta = a.beta, *x = a.x + m * ldx;  // here: a store may change `a`
  float* y = a.y + m * ldy;
  each_vector(C, [&](int64_t c, int n) __attribute__((always_inline)) {
    const vf centre = load_n(mean + c, n), factor = load_n(scale + c, n), offset = beta ? load_n(beta + c, n) : vf{};
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
      vf t = (load_n(x + r * ldx + c, n) - centre) * factor + offset;
      if (operands)
        t = finish(e, t, m + r, c, n);
      else
        t = activate(e, t);
      store_n(y + r * ldy + c, t, n);
    }
  });
}

template <bool operands>
void normalise(const BatchNormArgs& a, const float* scale, const SimpleEpilogue& e, int64_t from, int64_t end) {
  for (; from + 4 <= end; from += 4) normalise_rows<4, operands>(a, scale, e, from);  // four rows share their channels' numbers
  for (; from < end; from++) normalise_rows<1, operands>(a, scale, e, from);
}

}  // namespace

void batch_norm(const BatchNormArgs& a, const Stream& s) {
  const int64_t parts = batch_norm_parts(a.rows, a.C);
  float *means = a.workspace, *squares = means + parts * a.C, *scale = squares + parts * a.C;
  if (a.rows) statistics(a, s, parts, means, squares);
  const vf zero{}, count = splat(float(a.rows));
  each_vector(a.C, [&](int64_t c, int n) __attribute__((always_inline)) {
    for (int64_t p = 1; a.rows && p < parts; p++) {
      float before = float(a.rows * p / parts), rows = float(a.rows * (p + 1) / parts - a.rows * p / parts);
      join(means, squares, c, n, before, load_n(means + p * a.C + c, n), load_n(squares + p * a.C + c, n), rows);
    }
    vf mean = a.rows ? load_n(means + c, n) : zero / count, variance = (a.rows ? load_n(squares + c, n) : zero) / count;
    vf rstd = splat(1) / vsqrt(variance + splat(a.epsilon));
    store_n(a.mean + c, mean, n);
    store_n(a.variance + c, variance, n);
    if (a.rstd) store_n(a.rstd + c, rstd, n);
    store_n(scale + c, a.gamma ? rstd * load_n(a.gamma + c, n) : rstd, n);
  });
  const int64_t tile = rows_of(tile_floats, a.C);
  s.parallel((a.rows + tile - 1) / tile, double(tile * a.C) * 0.2 + 50, [&](int64_t unit, char*) {
    const int64_t from = unit * tile, end = from + tile < a.rows ? from + tile : a.rows;
    if (!finishes(a.epilogue)) {
      normalise<false>(a, scale, {}, from, end);
      apply_epilogue(a.epilogue, a.y + from * a.ldy, a.ldy, from, 0, end - from, a.C);
      return;
    }
    const SimpleEpilogue e = finishing(a.epilogue);
    e.bias || e.residual || e.mask ? normalise<true>(a, scale, e, from, end) : normalise<false>(a, scale, e, from, end);
  });
}

void batch_norm_grad(const BatchNormArgs& a, const Stream& s) {
  const int64_t parts = batch_norm_parts(a.rows, a.C), block = rows_of(block_floats / 2, a.C);
  float *first = a.workspace, *second = first + parts * a.C, *scale = second + parts * a.C, *slope = scale + a.C,
        *constant = slope + a.C;
  s.parallel(parts, double(a.rows * a.C) / double(parts) * 0.25 + 50, [&](int64_t part, char*) {
    const int64_t from = a.rows * part / parts, to = a.rows * (part + 1) / parts;
    float *b = first + part * a.C, *g = second + part * a.C;
    each_vector(a.C, [&](int64_t c, int n) __attribute__((always_inline)) { store_n(b + c, vf{}, n), store_n(g + c, vf{}, n); });
    for (int64_t m = from; m < to; m += block)
      sum_rows<2>(m, m + block < to ? m + block : to, a.C, Products{a.x, a.dy, a.mean, a.ldx, a.lddy, block, {}},
                  [&](int64_t c, int n, const vf* t) {
                    store_n(b + c, load_n(b + c, n) + t[0], n);
                    store_n(g + c, load_n(g + c, n) + t[1], n);
                  });
  });
  // dx = scale dy + slope (x - mean) + constant
  const vf share = splat(1.0f / float(a.rows));
  each_vector(a.C, [&](int64_t c, int n) __attribute__((always_inline)) {
    vf b = load_n(first + c, n), g = load_n(second + c, n), rstd = load_n(a.rstd + c, n);
    for (int64_t p = 1; p < parts; p++) b += load_n(first + p * a.C + c, n), g += load_n(second + p * a.C + c, n);
    g *= rstd;
    if (a.dbeta) store_n(a.dbeta + c, b, n);
    if (a.dgamma) store_n(a.dgamma + c, g, n);
    vf factor = a.gamma ? rstd * load_n(a.gamma + c, n) : rstd;
    store_n(scale + c, factor, n);
    store_n(slope + c, -(factor * rstd * g * share), n);
    store_n(constant + c, -(factor * b * share), n);
  });
  if (!a.dx) return;
  const int64_t tile = rows_of(tile_floats / 2, a.C);
  s.parallel((a.rows + tile - 1) / tile, double(tile * a.C) * 0.3 + 50, [&](int64_t unit, char*) {
    const int64_t from = unit * tile, end = from + tile < a.rows ? from + tile : a.rows, C = a.C;
    const int64_t ldx = a.ldx, lddy = a.lddy, lddx = a.lddx;
    const float *mean = a.mean, *p = scale, *q = slope, *r = constant, *x = a.x + from * ldx, *dy = a.dy + from * lddy;
    float* dx = a.dx + from * lddx;
    for (int64_t m = from; m < end; m++, x += ldx, dy += lddy, dx += lddx)
      each_vector(C, [&](int64_t c, int n) __attribute__((always_inline)) {
        vf centred = load_n(x + c, n) - load_n(mean + c, n);
        store_n(dx + c, load_n(p + c, n) * load_n(dy + c, n) + (load_n(q + c, n) * centred + load_n(r + c, n)), n);
      });
  });
}

}  // namespace dagrt::DAGRT_ISA
