// Batch normalisation.
//   mean = sum x / n; variance = sum (x - mean)² / n; rstd = 1 / sqrt(variance + epsilon)
//   y = (x - mean) rstd gamma + beta
//   dbeta = sum dy; dgamma = sum dy (x - mean) rstd
//   dx = gamma rstd (dy - dbeta / n - (x - mean) rstd dgamma / n)
// Bound by memory: x is read once for its statistics and once for the result, the gradient reads x and dy twice.
// Statistics in one pass and without cancellation: sums of a block of rows about a centre p, the mean of what came before it
// (of the first block: of its first rows),
//   s = sum (x - p), t = sum (x - p)², mean = p + s / n, M = t - s² / n
// What cancels in M is of the size of what a centre so far off adds to the whole. Blocks, and the parts that threads work on,
// are joined by Chan's formula
//   M = Ma + Mb + d² na nb / (na + nb), mean = a + d nb / (na + nb), d = b - a
// Parts are a function of the shape alone, so the bits do not depend on threads; sums of blocks keep rounding errors small
// over millions of rows. Results larger than caches are written past them (vec.h). Sums begin with the last parts, which caches
// still hold of whoever made x, and end with the first, which the result begins with.
// From memory nothing is faster than to read one row after another: the machine's own prefetchers follow. Sums of all channels
// stay in registers where there are enough of them; to load and store them for every row is slower than to read a row from a
// cache, but not than from memory.
#include "kernels/batch_norm.h"

#include "kernels/cpu/epilogue.h"
#include "kernels/cpu/vec.h"

namespace dagrt::DAGRT_ISA {
namespace {

constexpr int64_t tile_floats = 4096;     // half of L1
constexpr int64_t past_floats = 1 << 16;  // written past the caches before a thread waits until all are written
constexpr int64_t sum_rows = 256;         // of a block
constexpr int64_t sum_channels = 2048;    // whose sums stay in L1
constexpr int64_t near_floats = 6 << 20;  // that a machine's last cache may hold: 24 MB

int64_t rows_of(int64_t floats, int64_t C) {
  int64_t n = floats / (C ? C : 1);
  return n < 4 ? 4 : n > 256 ? 256 : n;
}
/// Rows of a unit whose result goes past the caches or not.
int64_t unit_rows(bool past, int64_t floats, int64_t C) { return past ? (past_floats + C - 1) / C : rows_of(floats, C); }

/// Whether the numbers of so many channels, three or four of each, leave no room in L1, so that several rows should share them.
DAGRT_INLINE bool wide(int64_t C) { return C > 1536; }

/// Asks for what a result past the caches is made of, two pages ahead and to L2: with those stores among their loads, the
/// machine's prefetchers stay behind.
DAGRT_INLINE void ask_ahead(const float* p) { __builtin_prefetch(p + 2048, 0, 2); }

/// How rows are read for their sums.
enum class Reading {
  registers,  // one after another, all sums in registers
  rows,       // one after another
  tiles,      // four at once, and the lines of the next four asked for in the order in which they lie
  wide,       // eight at once
};

constexpr int most_vectors = V == 16 ? 8 : 4;  // of channels whose two sums and one number more there are registers for

/// Of rows of C floats, ld apart (0: not all alike), of arrays of so many floats together.
Reading reading_of(int64_t ld, int64_t C, int64_t floats) {
  if (C <= most_vectors * V) return Reading::registers;
  if (wide(C)) return Reading::wide;
  return ld == C && floats <= near_floats ? Reading::tiles : Reading::rows;
}

/// Two sums of each of up to sum_channels channels.
struct Sums {
  alignas(64) float first[sum_channels], second[sum_channels];

  /// Over rows [from, to): f(row, c, lanes, number, t) gives what is summed first, and adds to t; `number` is of(c, lanes).
  /// ask(row, i) asks for the i-th float behind a row's first.
  template <class Of, class F, class Ask>
  DAGRT_INLINE void over(Reading how, int64_t from, int64_t to, int64_t C, const Of& of, const F& f, const Ask& ask) {
    if (how == Reading::registers) return in_registers<most_vectors>(from, to, C, of, f);
    const int64_t whole = (C + V - 1) / V * V;
    zero(first, whole), zero(second, whole);
    for (; how == Reading::tiles && from + 4 <= to; from += 4) add<4, true>(from, C, of, f, ask);
    for (; how == Reading::wide && from + 8 <= to; from += 8) add<8, false>(from, C, of, f, ask);
    for (; from < to; from++) add<1, false>(from, C, of, f, ask);
  }

 private:
  template <int rows, bool asks, class Of, class F, class Ask>
  DAGRT_INLINE void add(int64_t m, int64_t C, const Of& of, const F& f, const Ask& ask) {
    each_vector(C, [&](int64_t c, int n) __attribute__((always_inline)) {
      vf s = load(first + c), t = load(second + c);
      const vf number = of(c, n);
#pragma GCC unroll 8
      for (int r = 0; r < rows; r++) {
        if (asks && r * V % 16 == 0) ask(m + rows, rows * c + r * V);  // once a line
        s += f(m + r, c, n, number, t);
      }
      store(first + c, s);
      store(second + c, t);
    });
  }

  /// Of at most so many vectors of channels.
  template <int vectors, class Of, class F>
  DAGRT_INLINE void in_registers(int64_t from, int64_t to, int64_t C, const Of& of, const F& f) {
    if (vectors > 1 && C <= (vectors - 1) * V) return in_registers<(vectors > 1 ? vectors - 1 : 1)>(from, to, C, of, f);
    vf s[vectors] = {}, t[vectors] = {}, number[vectors];
    const int last = int(C - (vectors - 1) * V);
    const auto lanes = [&](int i) __attribute__((always_inline)) { return i + 1 < vectors ? V : last; };
#pragma GCC unroll 8
    for (int i = 0; i < vectors; i++) number[i] = of(i * V, lanes(i));
    for (; from < to; from++)
#pragma GCC unroll 8
      for (int i = 0; i < vectors; i++) s[i] += f(from, i * V, lanes(i), number[i], t[i]);
#pragma GCC unroll 8
    for (int i = 0; i < vectors; i++) store(first + i * V, s[i]), store(second + i * V, t[i]);
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
  s.parallel(parts, double(a.rows * a.C) / double(parts) * 0.15 + 50, [&](int64_t unit, char*) {
    const int64_t part = parts - 1 - unit, from = a.rows * part / parts, to = a.rows * (part + 1) / parts,
                  few = to - from < 16 ? to - from : 16;
    const Reading how = reading_of(a.ldx, a.C, a.rows * a.C);
    Sums sums;
    for (int64_t c0 = 0; c0 < a.C; c0 += sum_channels) {
      const int64_t C = a.C - c0 < sum_channels ? a.C - c0 : sum_channels, ld = a.ldx;
      const float* x = a.x + c0;
      float *mean = means + part * a.C + c0, *square = squares + part * a.C + c0;
      alignas(64) float centre[sum_channels];
      const auto at = [&](int64_t m, int64_t c, int n) __attribute__((always_inline)) { return load_n(x + m * ld + c, n); };
      const auto ask = [&](int64_t m, int64_t i) __attribute__((always_inline)) { __builtin_prefetch(x + m * ld + i); };
      sums.over(
          Reading::rows, from, from + few, C, [](int64_t, int) __attribute__((always_inline)) { return vf{}; },
          [&](int64_t m, int64_t c, int n, vf, vf&) __attribute__((always_inline)) { return at(m, c, n); }, ask);
      each_vector(C, [&](int64_t c, int)
                         __attribute__((always_inline)) { store(centre + c, load(sums.first + c) * splat(1 / float(few))); });
      for (int64_t m = from; m < to; m += sum_rows) {
        const int64_t end = m + sum_rows < to ? m + sum_rows : to;
        sums.over(
            how, m, end, C, [&](int64_t c, int) __attribute__((always_inline)) { return load(centre + c); },
            [&](int64_t m, int64_t c, int n, vf about, vf& t) __attribute__((always_inline)) {
              const vf off = at(m, c, n) - about;
              t += off * off;
              return off;
            },
            ask);
        const float rows = float(end - m), before = float(m - from);
        each_vector(C, [&](int64_t c, int n) __attribute__((always_inline)) {
          const vf off = load(sums.first + c) * splat(1 / rows), at = load(centre + c) + off;
          const vf about = vmax(load(sums.second + c) - off * load(sums.first + c), vf{});
          if (m > from) {
            join(mean, square, c, n, before, at, about, rows);
          } else {
            store_n(mean + c, at, n);
            store_n(square + c, about, n);
          }
          store(centre + c, load_n(mean + c, n));
        });
      }
    }
  });
}

/// y = (x - mean) scale + beta for `rows` rows from m on, and the epilogue; of one with `operands` all, otherwise its relu.
template <int rows, bool operands, bool past>
DAGRT_INLINE void normalise_rows(const BatchNormArgs& a, const float* scale, const SimpleEpilogue& e, int64_t m) {
  const int64_t C = a.C, ldx = a.ldx, ldy = a.ldy;
  const float *mean = a.mean, *beta = a.beta, *x = a.x + m * ldx;  // here: a store may change `a`
  float* y = a.y + m * ldy;
  each_vector(C, [&](int64_t c, int n) __attribute__((always_inline)) {
    const vf centre = load_n(mean + c, n), factor = load_n(scale + c, n), offset = beta ? load_n(beta + c, n) : vf{};
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
      if (past) ask_ahead(x + r * ldx + c);
      vf t = (load_n(x + r * ldx + c, n) - centre) * factor + offset;
      if (operands)
        t = finish(e, t, m + r, c, n);
      else
        t = activate(e, t);
      put_n<past>(y + r * ldy + c, t, n);
    }
  });
}

template <bool operands, bool past>
void normalise(const BatchNormArgs& a, const float* scale, const SimpleEpilogue& e, int64_t from, int64_t end) {
  for (; !past && from + 4 <= end; from += 4) normalise_rows<4, operands, past>(a, scale, e, from);
  for (; from < end; from++) normalise_rows<1, operands, past>(a, scale, e, from);
  if (past) finish_past();
}

struct Slope {  // dx = scale dy + slope (x - mean) + constant
  const float *scale, *slope, *constant;
};

template <int rows, bool past> DAGRT_INLINE void slope_rows(const BatchNormArgs& a, const Slope& f, int64_t m) {
  const int64_t C = a.C, ldx = a.ldx, lddy = a.lddy, lddx = a.lddx;
  const float *mean = a.mean, *x = a.x + m * ldx, *dy = a.dy + m * lddy;
  float* dx = a.dx + m * lddx;
  each_vector(C, [&](int64_t c, int n) __attribute__((always_inline)) {
    const vf centre = load_n(mean + c, n), scale = load_n(f.scale + c, n), slope = load_n(f.slope + c, n);
    const vf constant = load_n(f.constant + c, n);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
      if (past) ask_ahead(x + r * ldx + c), ask_ahead(dy + r * lddy + c);
      const vf part = slope * (load_n(x + r * ldx + c, n) - centre) + constant;
      put_n<past>(dx + r * lddx + c, scale * load_n(dy + r * lddy + c, n) + part, n);
    }
  });
}

template <bool past> void slopes(const BatchNormArgs& a, const Slope& f, int64_t from, int64_t end) {
  for (; (wide(a.C) || (!past && a.lddx <= 128)) && from + 4 <= end; from += 4) slope_rows<4, past>(a, f, from);
  for (; from < end; from++) slope_rows<1, past>(a, f, from);
  if (past) finish_past();
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
  const bool past = a.y != a.x && finishes(a.epilogue) && goes_past(a.y, a.ldy, a.rows, a.C, 2 * a.rows * a.C);
  const int64_t tile = unit_rows(past, tile_floats, a.C);
  s.parallel((a.rows + tile - 1) / tile, double(tile * a.C) * 0.2 + 50, [&](int64_t unit, char*) {
    const int64_t from = unit * tile, end = from + tile < a.rows ? from + tile : a.rows;
    if (!finishes(a.epilogue)) {
      normalise<false, false>(a, scale, {}, from, end);
      apply_epilogue(a.epilogue, a.y + from * a.ldy, a.ldy, from, 0, end - from, a.C);
      return;
    }
    const SimpleEpilogue e = finishing(a.epilogue);
    const bool operands = e.bias || e.residual || e.mask;
    const auto run = operands ? (past ? normalise<true, true> : normalise<true, false>)
                              : (past ? normalise<false, true> : normalise<false, false>);
    run(a, scale, e, from, end);
  });
}

void batch_norm_grad(const BatchNormArgs& a, const Stream& s) {
  const int64_t parts = batch_norm_parts(a.rows, a.C);
  float *first = a.workspace, *second = first + parts * a.C, *scale = second + parts * a.C, *slope = scale + a.C,
        *constant = slope + a.C;
  s.parallel(parts, double(a.rows * a.C) / double(parts) * 0.25 + 50, [&](int64_t unit, char*) {
    const int64_t part = parts - 1 - unit, from = a.rows * part / parts, to = a.rows * (part + 1) / parts;
    const Reading how = reading_of(a.ldx == a.lddy ? a.ldx : 0, a.C, 2 * a.rows * a.C);
    Sums sums;
    for (int64_t c0 = 0; c0 < a.C; c0 += sum_channels) {
      const int64_t C = a.C - c0 < sum_channels ? a.C - c0 : sum_channels, ldx = a.ldx, lddy = a.lddy;
      const float *x = a.x + c0, *dy = a.dy + c0, *mean = a.mean + c0;
      float *b = first + part * a.C + c0, *g = second + part * a.C + c0;
      zero(b, C), zero(g, C);
      for (int64_t m = from; m < to; m += sum_rows) {
        sums.over(
            how, m, m + sum_rows < to ? m + sum_rows : to, C,
            [&](int64_t c, int n) __attribute__((always_inline)) { return load_n(mean + c, n); },
            [&](int64_t m, int64_t c, int n, vf centre, vf& t) __attribute__((always_inline)) {
              const vf grad = load_n(dy + m * lddy + c, n);
              t += grad * (load_n(x + m * ldx + c, n) - centre);
              return grad;
            },
            [&](int64_t m, int64_t i) __attribute__((always_inline)) {
              __builtin_prefetch(x + m * ldx + i);
              __builtin_prefetch(dy + m * lddy + i);
            });
        each_vector(C, [&](int64_t c, int n) __attribute__((always_inline)) {
          store_n(b + c, load_n(b + c, n) + load(sums.first + c), n);
          store_n(g + c, load_n(g + c, n) + load(sums.second + c), n);
        });
      }
    }
  });
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
  const bool past = a.dx != a.x && a.dx != a.dy && goes_past(a.dx, a.lddx, a.rows, a.C, 3 * a.rows * a.C);
  const int64_t tile = unit_rows(past, tile_floats / 2, a.C);
  s.parallel((a.rows + tile - 1) / tile, double(tile * a.C) * 0.3 + 50, [&](int64_t unit, char*) {
    const int64_t from = unit * tile, end = from + tile < a.rows ? from + tile : a.rows;
    (past ? slopes<true> : slopes<false>)(a, {scale, slope, constant}, from, end);
  });
}

}  // namespace dagrt::DAGRT_ISA
