// Pooling, vectors over channels, one row of outputs (or of inputs, backward) a unit.
//
// The maximum keeps the first of equals, in window order; NaN wins (the first of them). Windows of 3 x 3 that overlap share
// their work: two rows of outputs are made of four or five of inputs, so that an output takes 6 or 7 comparisons instead of 8.
// Results larger than caches are written past them (vec.h). Backward gathers: an input pixel looks at the windows that cover
// it, in order, so that no two threads write one place; of windows of 3 x 3 a row of pixels, or with AVX-512 two, reads each once,
// and sums wait in L1 for the next window's share.
#include "kernels/pool2d.h"

#include "kernels/cpu/vec.h"

namespace dagrt::DAGRT_ISA {
namespace {

struct Span {
  int64_t from, to;
};

/// Positions of the window of output p inside [0, n).
Span window(int64_t p, int64_t stride, int64_t pad, int64_t pool, int64_t n) {
  int64_t from = p * stride - pad, to = from + pool;
  return {from < 0 ? 0 : from, to > n ? n : to};
}

/// Outputs whose windows cover position h.
Span covering(int64_t h, int64_t stride, int64_t pad, int64_t pool, int64_t outputs) {
  int64_t low = h + pad - pool + 1;
  int64_t from = low <= 0 ? 0 : (low + stride - 1) / stride, to = (h + pad) / stride + 1;
  return {from, to > outputs ? outputs : to};
}

template <bool places> struct Best {
  vf value;
  vi at;  // with `places`

  /// x stands behind it in the window.
  DAGRT_INLINE void take(const Best& x) {
    if (!places) {
      value = vmax(x.value, value);
      return;
    }
    const vi better = ~(x.value <= value) & (value == value);  // larger, or the first NaN
    value = select(better, x.value, value);
    at = select_i(better, x.at, at);
  }
  /// The same where neither is NaN, by fewer instructions. AVX-512 compares and finds maxima in one half of its units, and selects in
  /// both.
  DAGRT_INLINE void take_number(const Best& x) {
    const vi better = x.value > value;
    if (places) at = select_i(better, x.at, at);
    value = places && V == 16 ? select(better, x.value, value) : larger(x.value, value);
  }
};

/// Windows side by side: `count` of them, each `rows` rows of `wide` pixels, the first from `corner` on, whose place is `first`.
struct Windows {
  const float* corner;
  int64_t rows, wide, count;
  int32_t first;
  float* y;
  int32_t* argmax;  // or null
};

/// `window(w)` for the windows of row p of image b: at once for those that lie inside along the row.
template <class F> void each_run(const PoolArgs& a, int64_t unit, const F& run) {
  const int64_t b = unit / a.P, p = unit % a.P;
  const Span h = window(p, a.stride_h, a.pad_top, a.pool_h, a.H);
  for (int64_t q = 0; q < a.Q;) {
    const Span w = window(q, a.stride_w, a.pad_left, a.pool_w, a.W);
    int64_t count = 1;
    if (w.to - w.from == a.pool_w) count = (a.W - w.to) / a.stride_w + 1;
    if (count > a.Q - q) count = a.Q - q;
    const int64_t out = unit * a.Q + q, first = h.from * a.W + w.from;
    run(Windows{a.x + (b * a.H * a.W + first) * a.ldx, h.to - h.from, w.to - w.from, count, int32_t(first), a.y + out * a.ldy,
                a.argmax ? a.argmax + out * a.C : nullptr});
    q += count;
  }
}

/// Asks for what the windows of the next row have in this one's place: the machine's own prefetchers begin anew with every row.
/// To L2, since rows side by side have but a few places in L1.
DAGRT_INLINE void ask_below(const float* pixel, int64_t down, int64_t c) {
  if (c % 16 == 0) __builtin_prefetch(pixel + down, 0, 2);
}

/// `vectors` vectors of channels from c on, the last of n lanes, of a window of `high` rows, if that is not 0, and `wide` pixels.
template <bool places, bool past, int high, int wide, int vectors>
DAGRT_INLINE void max_of_window(const PoolArgs& a, const Windows& w, int64_t c, int n) {
  const int64_t rows = high ? high : w.rows, line = a.W * a.ldx;
  const float* row = w.corner + c;
  const auto lanes = [&](int v) __attribute__((always_inline)) { return v + 1 < vectors ? V : n; };
  Best<places> best[vectors];
#pragma GCC unroll 8
  for (int v = 0; v < vectors; v++) best[v] = {load_n(row + v * V, lanes(v)), splat_i(w.first)};
#pragma GCC unroll 3
  for (int64_t i = 0; i < rows; i++, row += line)
#pragma GCC unroll 3
    for (int j = 0; j < wide; j++) {
      const vi place = splat_i(int32_t(w.first + i * a.W + j));
#pragma GCC unroll 8
      for (int v = 0; v < vectors; v++) {
        const float* x = row + j * a.ldx + v * V;
        if (V < 16) ask_below(x, a.stride_h * line, c);
        if (past && vectors == 8 && v % 4 == 0 && a.C < 16 * V) __builtin_prefetch(x + 512, 0, 2);  // each line would be slower
        if (i || j) best[v].take({load_n(x, lanes(v)), place});
      }
    }
#pragma GCC unroll 8
  for (int v = 0; v < vectors; v++) put_n<past>(w.y + c + v * V, best[v].value, lanes(v));
#pragma GCC unroll 8
  for (int v = 0; places && v < vectors; v++)
    put_n<past>(reinterpret_cast<float*>(w.argmax) + c + v * V, as_f(best[v].at), lanes(v));
}

/// Reads part k of n of each row of a window as it lies in memory, so that it comes from there in that order, the only one in
/// which the machine's prefetchers keep up.
DAGRT_INLINE void touch(const PoolArgs& a, const float* corner, int64_t rows, int64_t wide, int64_t k, int64_t n) {
  const int64_t all = (wide - 1) * a.ldx + a.C, from = all * k / n, to = all * (k + 1) / n;
  for (int64_t i = 0; i < rows; i++, corner += a.W * a.ldx)
    for (int64_t c = from; c + V <= to; c += V) {
      [[maybe_unused]] const vf seen = load(corner + c);
#if defined(__AVX512F__)  // else no register holds it, as where AVX2 stands for AVX-512
      asm volatile("" ::"v"(seen));
#endif
    }
}

/// With vectors of a line many at once, so that memory is read in order. Narrower ones come slowly enough for lines that were
/// asked for, and are faster one at a time.
template <bool places, bool past, int high, int wide> void max_of_windows(const PoolArgs& a, Windows w) {
  constexpr int most = V == 16 ? 8 : 1;
  const int64_t parts = a.C / (most * V);
  for (int64_t q = 0; q < w.count; q++) {
    int64_t c = 0;
    for (int64_t k = 0; k < parts; k++, c += most * V) {
      if (V == 16 && past && parts > 1 && q + 1 < w.count) touch(a, w.corner + a.stride_w * a.ldx, w.rows, wide, k, parts);
      max_of_window<places, past, high, wide, most>(a, w, c, V);
    }
    for (; c < a.C; c += V) max_of_window<places, past, high, wide, 1>(a, w, c, a.C - c < V ? int(a.C - c) : V);
    w.corner += a.stride_w * a.ldx, w.y += a.ldy, w.first += int32_t(a.stride_w);
    if (places) w.argmax += a.C;
  }
}

template <bool places> void max_of_any(const PoolArgs& a, Windows w) {
  const int64_t line = a.W * a.ldx;
  for (int64_t q = 0; q < w.count; q++) {
    each_vector(a.C, [&](int64_t c, int n) __attribute__((always_inline)) {
      vf best = splat(-__builtin_inff());
      vi at = splat_i(w.first);
      for (int64_t i = 0; i < w.rows; i++)
        for (int64_t j = 0; j < w.wide; j++) {
          const vf value = load_n(w.corner + i * line + j * a.ldx + c, n);
          const vi better = ~(value <= best) & (best == best);  // larger, or the first NaN
          best = select(better, value, best);
          if (places) at = select_i(better, splat_i(int32_t(w.first + i * a.W + j)), at);
        }
      store_n(w.y + c, best, n);
      if (places) store_n(reinterpret_cast<float*>(w.argmax) + c, as_f(at), n);
    });
    w.corner += a.stride_w * a.ldx, w.y += a.ldy, w.first += int32_t(a.stride_w);
    if (places) w.argmax += a.C;
  }
}

/// Floats (or places) of the larger and of the smaller images.
int64_t touched(const PoolArgs& a, bool places) { return (a.B * a.H * a.W + a.B * a.P * a.Q * (places ? 2 : 1)) * a.C; }

/// Whether results go past the caches: y, and the places if there are any.
bool pools_past(const PoolArgs& a) {
  const int64_t outputs = a.B * a.P * a.Q, all = touched(a, a.argmax);
  return goes_past(a.y, a.ldy, outputs, a.C, all) &&
         (!a.argmax || goes_past(reinterpret_cast<const float*>(a.argmax), a.C, outputs, a.C, all));
}

/// f(row) for rows of results of so many floats, each some nanoseconds of work. Past the caches, a unit is of as many as make it
/// worth its while to wait until all are written.
template <bool past, class F> void each_row(const Stream& s, int64_t rows, int64_t floats, double ns, const F& f) {
  constexpr int64_t much = 1 << 16;
  const int64_t together = past && floats < much ? (much + floats - 1) / floats : 1;
  s.parallel((rows + together - 1) / together, double(together) * ns + 50, [&](int64_t unit, char*) {
    const int64_t from = unit * together, to = from + together < rows ? from + together : rows;
    for (int64_t row = from; row < to; row++) f(row);
    if (past) finish_past();
  });
}

int64_t inside(int64_t i, int64_t n) { return i < 0 ? 0 : i < n ? i : n - 1; }

/// Windows of 3 x 3, `stride` (1 or 2) apart. What a window would have outside the image is the pixel at the edge once more,
/// which it has. Rows are taken as numbers, and once more where a sum of their pixels is none.
template <int stride, bool places, bool past> void max_pool_overlapping(const PoolArgs& a, const Stream& s) {
  constexpr int high = 3 + stride;  // rows of inputs for two of outputs
  const int64_t pairs = (a.P + 1) / 2;
  each_row<past>(s, a.B * pairs, 2 * a.Q * a.C * (places ? 2 : 1), double(2 * a.Q * a.C) * (2.0 / V), [&](int64_t unit) {
    const int64_t b = unit / pairs, p = unit % pairs * 2, C = a.C, ldy = a.ldy, Q = a.Q, line = a.W * a.ldx;
    const float* row[high];
    vi first[high];  // place of the row's first pixel
    for (int i = 0; i < high; i++) {
      const int64_t h = inside(p * stride - a.pad_top + i, a.H);
      row[i] = a.x + (b * a.H + h) * a.W * a.ldx;
      first[i] = splat_i(int32_t(h * a.W));
    }
    const int rows = p + 1 < a.P ? 2 : 1;
    float* y = a.y + (b * a.P + p) * Q * ldy;
    float* argmax = places ? reinterpret_cast<float*>(a.argmax) + (b * a.P + p) * Q * C : nullptr;
    vf seen{};  // the sum of all pixels: first of what only the first window has
    for (int j = 0; j < 3 - stride; j++)
      for (int i = 0; i < high; i++) {
        const float* x = row[i] + inside(j - a.pad_left, a.W) * a.ldx;
        each_vector(C, [&](int64_t c, int n) __attribute__((always_inline)) { seen += load_n(x + c, n); });
      }
    for (int64_t q = 0; q < Q; q++, y += ldy, argmax += places ? C : 0) {
      int64_t shift[3];
      vi column[3];
      for (int j = 0; j < 3; j++) {
        const int64_t w = inside(q * stride - a.pad_left + j, a.W);
        shift[j] = w * a.ldx;
        column[j] = splat_i(int32_t(w));
      }
      each_vector(C, [&](int64_t c, int n) __attribute__((always_inline)) {
#pragma GCC unroll 4
        for (int i = 1; i <= 2 * stride; i++)
#pragma GCC unroll 2
          for (int j = 3 - stride; j < 3; j++) ask_below(row[high - 1] + shift[j] + c, i * line, c);
        Best<places> best[2];
#pragma GCC unroll 5
        for (int i = 0; i < high; i++) {
          const float* x = row[i] + c;
          const vf left = load_n(x + shift[0], n), middle = load_n(x + shift[1], n), right = load_n(x + shift[2], n);
          seen += stride == 1 ? right : middle + right;
          Best<places> along{left, column[0]};
          along.take_number({middle, column[1]});
          along.take_number({right, column[2]});
          if (places) along.at += first[i];
          if (i == 0) best[0] = along;
          if (i == stride) best[1] = along;
          if (i == 1 || i == 2) best[0].take_number(along);
          if (i > stride) best[1].take_number(along);
        }
#pragma GCC unroll 2
        for (int k = 0; k < 2; k++) {
          if (k == rows) break;
          put_n<past>(y + k * Q * ldy + c, best[k].value, n);
          if (places) put_n<past>(argmax + k * Q * C + c, as_f(best[k].at), n);
        }
      });
    }
    for (int k = 0; k < rows && has_nan(seen); k++)
      each_run(a, b * a.P + p + k, [&](const Windows& w) { max_of_any<places>(a, w); });
  });
}

using PoolWindows = void (*)(const PoolArgs&, Windows);

template <bool places, bool past> void max_rows(const PoolArgs& a, const Stream& s) {
  const double ns = double(a.Q * a.C * a.pool_h * a.pool_w) * (0.4 / V);
  each_row<past>(s, a.B * a.P, a.Q * a.C * (places ? 2 : 1), ns, [&](int64_t row) {
    each_run(a, row, [&](const Windows& w) {
      PoolWindows f = max_of_any<places>;
      if (w.rows > 0 && w.wide == 2) f = w.rows == 2 ? max_of_windows<places, past, 2, 2> : max_of_windows<places, past, 0, 2>;
      if (w.rows > 0 && w.wide == 3) f = w.rows == 3 ? max_of_windows<places, past, 3, 3> : max_of_windows<places, past, 0, 3>;
      f(a, w);
    });
  });
}

/// `places`: also where the maximum was.
template <bool places> void max_pool(const PoolArgs& a, const Stream& s) {
  if (a.pool_h == 3 && a.pool_w == 3 && a.stride_h == a.stride_w && a.stride_w <= 2 && a.C >= V && a.H > 0 && a.W > 0) {
    const bool past = pools_past(a), one = a.stride_w == 1;
    return one ? (past ? max_pool_overlapping<1, places, true> : max_pool_overlapping<1, places, false>)(a, s)
               : (past ? max_pool_overlapping<2, places, true> : max_pool_overlapping<2, places, false>)(a, s);
  }
  (pools_past(a) ? max_rows<places, true> : max_rows<places, false>)(a, s);
}

constexpr int most_windows = 16;  // that are summed at once

/// What reaches one pixel: windows are noted one after another, and summed in that order, vector by vector.
struct Gather {
  float* dx;
  int64_t C;
  int count = 0;
  bool first = true;
  int64_t out[most_windows];  // the windows' places
  vf share[most_windows];     // of a mean

  Gather(float* to, int64_t channels) : dx(to), C(channels) {}  // the places are filled as windows are noted

  /// f(k, c, lanes): what the k-th noted window gives.
  template <class F> DAGRT_INLINE void sum(const F& f) {
    each_vector(C, [&](int64_t c, int n) __attribute__((always_inline)) {
      vf t = first ? vf{} : load_n(dx + c, n);
      for (int k = 0; k < count; k++) t += f(k, c, n);
      store_n(dx + c, t, n);
    });
    first = false;
    count = 0;
  }
};

/// Of `high` rows and `columns` pixels, if those are not 0.
template <bool past, int high, int columns> void mean_of_windows(const PoolArgs& a, Windows w) {
  const int64_t rows = high ? high : w.rows, wide = columns ? columns : w.wide, ld = a.ldx, line = a.W * a.ldx;
  const int64_t step = a.stride_w * ld;
  const vf share = splat(1.0f / float(rows * wide));
  const auto mean = [&](const float* row, float* y, int64_t c, int n) __attribute__((always_inline)) {
    vf t{};
#pragma GCC unroll 2
    for (int64_t i = 0; i < rows; i++, row += line)
#pragma GCC unroll 3
      for (int64_t j = 0; j < wide; j++) {
        if (V < 16 || past) ask_below(row + j * ld, a.stride_h * line, c);
        t += load_n(row + j * ld, n);
      }
    put_n<past>(y, t * share, n);
  };
  if (a.C == V)
    for (int64_t q = 0; q < w.count; q++, w.corner += step, w.y += a.ldy) mean(w.corner, w.y, 0, V);
  else
    for (int64_t q = 0; q < w.count; q++, w.corner += step, w.y += a.ldy)
      each_vector(a.C, [&](int64_t c, int n) __attribute__((always_inline)) { mean(w.corner + c, w.y + c, c, n); });
}

template <bool past> void mean_rows(const PoolArgs& a, const Stream& s) {
  each_row<past>(s, a.B * a.P, a.Q * a.C, double(a.Q * a.C * a.pool_h * a.pool_w) * (0.3 / V), [&](int64_t row) {
    each_run(a, row, [&](const Windows& w) {
      const PoolWindows f = w.wide == 2   ? (w.rows == 2 ? mean_of_windows<past, 2, 2> : mean_of_windows<past, 0, 2>)
                            : w.wide == 3 ? mean_of_windows<past, 0, 3>
                                          : mean_of_windows<past, 0, 0>;
      f(a, w);
    });
  });
}

/// A row of means of windows three columns wide, one column apart: each column is summed once, for all three.
void mean_of_row(const PoolArgs& a, int64_t b, Span h, int64_t unit) {
  const int64_t rows = h.to - h.from, line = a.W * a.ldx;
  const float* top = a.x + (b * a.H + h.from) * line;
  float* y = a.y + unit * a.Q * a.ldy;
  each_vector(a.C, [&](int64_t c, int n) __attribute__((always_inline)) {
    auto column = [&](int64_t w) __attribute__((always_inline)) {
      vf t{};
      if (w < 0 || w >= a.W) return t;
      const float* x = top + w * a.ldx + c;
      for (int64_t i = 0; i < rows; i++) t += load_n(x + i * line, n);
      return t;
    };
    vf left = column(-a.pad_left), middle = column(1 - a.pad_left);
    for (int64_t q = 0; q < a.Q; q++) {
      const Span w = window(q, 1, a.pad_left, 3, a.W);
      const vf right = column(q + 2 - a.pad_left), share = splat(1.0f / float(rows * (w.to - w.from)));
      store_n(y + q * a.ldy + c, (left + middle + right) * share, n);
      left = middle;
      middle = right;
    }
  });
}

/// What one window gives each of its pixels, `rows` rows of `wide` (`size` each way, if that is not 0) from dx on, line apart;
/// of a maximum to the pixel whose place, counted from `first` on, is `taken`.
template <bool maximum, bool past, int size>
DAGRT_INLINE void spread_window(const PoolArgs& a, const float* dy, const float* taken, float* dx, int64_t rows, int64_t wide,
                                int64_t first) {
  if (size) rows = wide = size;
  const int64_t W = a.W, ld = a.lddx;
  const vf share = splat(1.0f / float(rows * wide));
  each_vector(a.C, [&](int64_t c, int n) __attribute__((always_inline)) {
    const vf g = maximum ? load_n(dy + c, n) : load_n(dy + c, n) * share;
    const vi at = maximum ? as_i(load_n(taken + c, n)) : vi{};
#pragma GCC unroll 2
    for (int64_t i = 0; i < rows; i++)
#pragma GCC unroll 2
      for (int64_t j = 0; j < wide; j++) {
        const vf part = maximum ? as_f(as_i(g) & (at == splat_i(int32_t(first + i * W + j)))) : g;
        put_n<past>(dx + (i * W + j) * ld + c, part, n);
      }
  });
}

/// Row `unit` of windows side by side: a pixel hears of one window, which is read once for all its pixels.
template <bool maximum, bool past> void apart_row_grad(const PoolArgs& a, int64_t unit) {
  const int64_t b = unit / a.P, p = unit % a.P, W = a.W, C = a.C, lddx = a.lddx;
  const Span h = window(p, a.stride_h, a.pad_top, a.pool_h, a.H);
  const int64_t rows = h.to - h.from, below = p + 1 < a.P ? h.to : a.H;  // rows behind the last window belong to its unit
  const float *dy = a.x + unit * a.Q * a.ldx, *taken = nullptr;
  if (maximum) taken = reinterpret_cast<const float*>(a.taken) + unit * a.Q * C;
  float* image = a.dx + b * a.H * W * lddx;
  int64_t q = 0;
  if (!maximum && C == V && rows == 2 && a.pool_w == 2 && a.pad_left == 0) {  // a vector for four pixels
    float *top = image + h.from * W * lddx, *bottom = top + W * lddx;
    for (; q < a.Q && 2 * q + 2 <= W; q++, dy += a.ldx, top += 2 * lddx, bottom += 2 * lddx) {
      const vf g = load(dy) * splat(0.25f);
      put_n<past>(top, g, V), put_n<past>(top + lddx, g, V), put_n<past>(bottom, g, V), put_n<past>(bottom + lddx, g, V);
    }
  }
  for (; q < a.Q; q++, dy += a.ldx, taken += maximum ? C : 0) {
    const Span w = window(q, a.stride_w, a.pad_left, a.pool_w, W);
    const int64_t first = h.from * W + w.from, wide = w.to - w.from;
    if (rows == 2 && wide == 2)
      spread_window<maximum, past, 2>(a, dy, taken, image + first * lddx, rows, wide, first);
    else
      spread_window<maximum, past, 0>(a, dy, taken, image + first * lddx, rows, wide, first);
  }
  const int64_t right = window(a.Q - 1, a.stride_w, a.pad_left, a.pool_w, W).to;
  for (int64_t i = h.from; i < below; i++)
    for (int64_t j = i < h.to ? right : 0; j < W; j++) zero(image + (i * W + j) * lddx, C);
}

template <bool maximum, bool past> void apart_rows_grad(const PoolArgs& a, const Stream& s) {
  const int64_t floats = a.pool_h * a.W * a.C;
  each_row<past>(s, a.B * a.P, floats, double(floats) * (0.5 / V), [&](int64_t row) { apart_row_grad<maximum, past>(a, row); });
}

template <bool maximum> void pool_apart_grad(const PoolArgs& a, const Stream& s) {
  const bool past = goes_past(a.dx, a.lddx, a.B * a.H * a.W, a.C, touched(a, maximum));
  (past ? apart_rows_grad<maximum, true> : apart_rows_grad<maximum, false>)(a, s);
}

constexpr int64_t most_channels = 1024;  // whose sums of two pixels stay in L1

/// `n` rows of image b's gradient, from row i on, of windows three columns wide and `stride` (1 or 2) apart. `high` rows of
/// outputs from p on cover them, the first from `above` rows above i on (of one row, all do); channels [c0, c0 + C). Each window
/// is read once for all its pixels in these rows. Sums of pixels that the next window has too wait in L1; a pixel is stored once.
template <int n, int high, int above, int stride, bool past>
void overlapping_rows_grad(const PoolArgs& a, int64_t b, int64_t i, int64_t p, int64_t c0, int64_t C) {
  constexpr int fresh = n > 1 ? n / stride : V < 16 && high == 3;  // rows of outputs that nobody has read yet, the last ones
  const int64_t W = a.W, Q = a.Q, ldx = a.ldx, ldt = a.C, lddx = a.lddx;
  const int64_t ahead = 1024 / C + 1;  // pixels: 4 KB
  const float* dy = a.x + (b * a.P + p) * Q * ldx + c0;
  const float* taken = reinterpret_cast<const float*>(a.taken) + (b * a.P + p) * Q * ldt + c0;
  float* dx = a.dx + (b * a.H + i) * W * lddx + c0;
  alignas(64) float waiting[n][3 - stride][most_channels + 48];  // not a page apart
  for (auto& of_row : waiting)
    for (auto& of_pixel : of_row) zero(of_pixel, (C + V - 1) / V * V);
  int64_t w = -a.pad_left;
  for (int64_t q = 0; q < Q; q++, dy += ldx, taken += ldt, w += stride) {
    vi place[n][3];
#pragma GCC unroll 2
    for (int r = 0; r < n; r++)
#pragma GCC unroll 3
      for (int j = 0; j < 3; j++) place[r][j] = splat_i(int32_t((i + r) * W + w + j));
    float* const to = dx + w * lddx;
    const bool inside[2] = {w >= 0 && w < W, stride == 2 && w + 1 >= 0 && w + 1 < W};
    const int64_t soon = ahead + (q + ahead < Q ? 0 : (fresh - 1) * Q);  // from the last pixels of these rows on to the next ones
    each_vector(C, [&](int64_t c, int lanes) __attribute__((always_inline)) {
      vf t[n][3] = {};
#pragma GCC unroll 2
      for (int r = 0; r < n; r++)
#pragma GCC unroll 2
        for (int j = 0; j < 3 - stride; j++) t[r][j] = load(waiting[r][j] + c);
#pragma GCC unroll 2
      for (int k = high - fresh; k < high; k++) {
        ask_below(dy + k * Q * ldx + c, soon * ldx, c);
        ask_below(taken + k * Q * ldt + c, soon * ldt, c);
      }
#pragma GCC unroll 4
      for (int k = 0; k < high; k++) {
        const vf g = load_n(dy + k * Q * ldx + c, lanes);
        const vi at = as_i(load_n(taken + k * Q * ldt + c, lanes));
#pragma GCC unroll 2
        for (int r = 0; r < n; r++) {
          const int row = above + r - k * stride;  // of the window
          if (n > 1 && (row < 0 || row > 2)) continue;
#pragma GCC unroll 3
          for (int j = 0; j < 3; j++) t[r][j] = add_where_equal(at, place[r][j], t[r][j], g);
        }
      }
#pragma GCC unroll 2
      for (int r = 0; r < n; r++) {
#pragma GCC unroll 2
        for (int j = 0; j < stride; j++)
          if (inside[j]) put_n<past>(to + (r * W + j) * lddx + c, t[r][j], lanes);
#pragma GCC unroll 2
        for (int j = 0; j < 3 - stride; j++) store(waiting[r][j] + c, t[r][j + stride]);
      }
    });
  }
  for (int j = 0; w < W; j++, w++)
    for (int r = 0; r < n && w >= 0; r++) copy(dx + (r * W + w) * lddx, j < 3 - stride ? waiting[r][j] : nullptr, C);
}

using PoolRows = void (*)(const PoolArgs&, int64_t b, int64_t i, int64_t p, int64_t c0, int64_t C);

/// With AVX-512 two rows at once, from the first on that all of their windows' rows cover; the others one by one, as with AVX2,
/// whose registers are too few for the places and sums of two.
template <int stride, bool past> void max_pool_overlapping_grad(const PoolArgs& a, const Stream& s) {
  const int64_t alone = (a.pad_top + stride - 1) % 2, units = (a.H + alone + 1) / 2;
  each_row<past>(s, a.B * units, 2 * a.W * a.C, double(2 * a.W * a.C) * (4.0 / V), [&](int64_t unit) {
    const int64_t b = unit / units, from = unit % units * 2 - alone, to = from + 2 < a.H ? from + 2 : a.H;
    for (int64_t i = from < 0 ? 0 : from; i < to;) {
      const Span p = covering(i, stride, a.pad_top, 3, a.P);
      const int64_t rows = p.to > p.from ? p.to - p.from : 0, above = i + a.pad_top - p.from * stride;
      PoolRows f = rows == 0   ? overlapping_rows_grad<1, 0, 0, stride, past>
                   : rows == 1 ? overlapping_rows_grad<1, 1, 0, stride, past>
                   : rows == 2 ? overlapping_rows_grad<1, 2, 0, stride, past>
                               : overlapping_rows_grad<1, 3, 0, stride, past>;
      const bool two = V == 16 && i + 2 <= to && i + a.pad_top - 2 > -stride && (i + 1 + a.pad_top) / stride < a.P;
      if (two)
        f = stride == 2 && above == 1 ? overlapping_rows_grad<2, 2, 1, stride, past>
                                      : overlapping_rows_grad<2, 4 / stride, 2, stride, past>;
      for (int64_t c = 0; c < a.C; c += most_channels)
        f(a, b, i, rows ? p.from : 0, c, a.C - c < most_channels ? a.C - c : most_channels);
      i += two ? 2 : 1;
    }
  });
}

}  // namespace

void max_pool2d(const PoolArgs& a, const Stream& s) { a.argmax ? max_pool<true>(a, s) : max_pool<false>(a, s); }

void max_pool2d_grad(const PoolArgs& a, const Stream& s) {
  if (a.pool_h == a.stride_h && a.pool_w == a.stride_w && a.P > 0 && a.Q > 0) return pool_apart_grad<true>(a, s);
  if (a.pool_h == 3 && a.pool_w == 3 && a.stride_h == a.stride_w && a.stride_w <= 2) {
    const bool past = goes_past(a.dx, a.lddx, a.B * a.H * a.W, a.C, touched(a, true)), one = a.stride_w == 1;
    return one ? (past ? max_pool_overlapping_grad<1, true> : max_pool_overlapping_grad<1, false>)(a, s)
               : (past ? max_pool_overlapping_grad<2, true> : max_pool_overlapping_grad<2, false>)(a, s);
  }
  const double windows = double(((a.pool_h + a.stride_h - 1) / a.stride_h) * ((a.pool_w + a.stride_w - 1) / a.stride_w));
  s.parallel(a.B * a.H, double(a.W * a.C) * windows * 0.2 + 50, [&](int64_t unit, char*) {
    int64_t b = unit / a.H, i = unit % a.H;
    Span p = covering(i, a.stride_h, a.pad_top, a.pool_h, a.P);
    for (int64_t j = 0; j < a.W; j++) {
      const Span q = covering(j, a.stride_w, a.pad_left, a.pool_w, a.Q);
      const vi here = splat_i(int32_t(i * a.W + j));
      Gather g(a.dx + (unit * a.W + j) * a.lddx, a.C);
      const auto part = [&](int k, int64_t c, int n) __attribute__((always_inline)) {
        const float *dy = a.x + g.out[k] * a.ldx, *taken = reinterpret_cast<const float*>(a.taken) + g.out[k] * a.C;
        return as_f(as_i(load_n(dy + c, n)) & (as_i(load_n(taken + c, n)) == here));
      };
      for (int64_t k = p.from; k < p.to; k++)
        for (int64_t l = q.from; l < q.to; l++) {
          if (g.count == most_windows) g.sum(part);
          g.out[g.count++] = (b * a.P + k) * a.Q + l;
        }
      g.sum(part);
    }
  });
}

void avg_pool2d(const PoolArgs& a, const Stream& s) {
  if (a.pool_w != 3 || a.stride_w != 1 || a.W < 3) return (pools_past(a) ? mean_rows<true> : mean_rows<false>)(a, s);
  s.parallel(a.B * a.P, double(a.Q * a.C * a.pool_h * a.pool_w) * (0.3 / V) + 50, [&](int64_t unit, char*) {
    const int64_t b = unit / a.P, p = unit % a.P;
    mean_of_row(a, b, window(p, a.stride_h, a.pad_top, a.pool_h, a.H), unit);
  });
}

void avg_pool2d_grad(const PoolArgs& a, const Stream& s) {
  if (a.pool_h == a.stride_h && a.pool_w == a.stride_w && a.P > 0 && a.Q > 0) return pool_apart_grad<false>(a, s);
  s.parallel(a.B * a.H, double(a.W * a.C) * 0.3 + 50, [&](int64_t unit, char*) {
    int64_t b = unit / a.H, i = unit % a.H;
    Span p = covering(i, a.stride_h, a.pad_top, a.pool_h, a.P);
    for (int64_t j = 0; j < a.W; j++) {
      const Span q = covering(j, a.stride_w, a.pad_left, a.pool_w, a.Q);
      Gather g(a.dx + (unit * a.W + j) * a.lddx, a.C);
      const auto part = [&](int k, int64_t c, int n)
                            __attribute__((always_inline)) { return load_n(a.x + g.out[k] * a.ldx + c, n) * g.share[k]; };
      for (int64_t k = p.from; k < p.to; k++) {
        Span h = window(k, a.stride_h, a.pad_top, a.pool_h, a.H);
        for (int64_t l = q.from; l < q.to; l++) {
          Span w = window(l, a.stride_w, a.pad_left, a.pool_w, a.W);
          if (g.count == most_windows) g.sum(part);
          g.share[g.count] = splat(1.0f / float((h.to - h.from) * (w.to - w.from)));
          g.out[g.count++] = (b * a.P + k) * a.Q + l;
        }
      }
      g.sum(part);
    }
  });
}

}  // namespace dagrt::DAGRT_ISA
