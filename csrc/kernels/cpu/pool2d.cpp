// Pooling, vectors over channels, one row of outputs (or of inputs, backward) a unit.
//
// The maximum keeps the first of equals, in window order; NaN wins (the first of them). Windows of 3 x 3 that overlap by two
// share their work: two rows of outputs are made of four of inputs, so that an output takes 6 loads and 6 comparisons instead
// of 9 and 8. Backward gathers: an input pixel looks at the windows
// that cover it, in order, so that no two threads write one place; of windows of 3 x 3 a row of pixels reads each once.
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
};

int64_t inside(int64_t i, int64_t n) { return i < 0 ? 0 : i < n ? i : n - 1; }

/// Windows of 3 x 3, stride 1. What a window would have outside the image is the pixel at the edge once more, which it has.
template <bool places> void max_pool_overlapping(const PoolArgs& a, const Stream& s) {
  const int64_t pairs = (a.P + 1) / 2;
  s.parallel(a.B * pairs, double(2 * a.Q * a.C) * (2.0 / V) + 50, [&](int64_t unit, char*) {
    const int64_t b = unit / pairs, p = unit % pairs * 2, C = a.C, ldy = a.ldy, Q = a.Q;
    const float* row[4];
    vi first[4];  // place of the row's first pixel
    for (int i = 0; i < 4; i++) {
      const int64_t h = inside(p - a.pad_top + i, a.H);
      row[i] = a.x + (b * a.H + h) * a.W * a.ldx;
      first[i] = splat_i(int32_t(h * a.W));
    }
    const int rows = p + 1 < a.P ? 2 : 1;
    float* y = a.y + (b * a.P + p) * Q * ldy;
    float* argmax = places ? reinterpret_cast<float*>(a.argmax) + (b * a.P + p) * Q * C : nullptr;
    for (int64_t q = 0; q < Q; q++, y += ldy, argmax += places ? C : 0) {
      int64_t shift[3];
      vi column[3];
      for (int j = 0; j < 3; j++) {
        const int64_t w = inside(q - a.pad_left + j, a.W);
        shift[j] = w * a.ldx;
        column[j] = splat_i(int32_t(w));
      }
      each_vector(C, [&](int64_t c, int n) __attribute__((always_inline)) {
        Best<places> best[2];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
          const float* x = row[i] + c;
          Best<places> along{load_n(x + shift[0], n), column[0]};
          along.take({load_n(x + shift[1], n), column[1]});
          along.take({load_n(x + shift[2], n), column[2]});
          if (places) along.at += first[i];
          if (i == 0) best[0] = along;
          if (i == 1) best[1] = along;
          if (i == 1 || i == 2) best[0].take(along);
          if (i == 2 || i == 3) best[1].take(along);
        }
#pragma GCC unroll 2
        for (int k = 0; k < 2; k++) {
          if (k == rows) break;
          store_n(y + k * Q * ldy + c, best[k].value, n);
          if (places) store_n(argmax + k * Q * C + c, as_f(best[k].at), n);
        }
      });
    }
  });
}

/// One window of `rows` rows (`high`, if that is not 0) of `wide` pixels from `corner` on, whose place is `first`.
template <bool places, int high, int wide>
void max_of_window(const PoolArgs& a, const float* corner, int64_t rows, int32_t first, float* y, int32_t* argmax) {
  if (high) rows = high;
  const int64_t ld = a.ldx, line = a.W * a.ldx;
  const vi down = splat_i(int32_t(a.W));
  vi corners[wide];  // places of the first row
  for (int j = 0; j < wide; j++) corners[j] = splat_i(first + j);
  each_vector(a.C, [&](int64_t c, int n) __attribute__((always_inline)) {
    const float* row = corner + c;
    Best<places> best{load_n(row, n), corners[0]};
    vi place[wide];
    for (int j = 0; j < wide; j++) place[j] = corners[j];
#pragma GCC unroll 3
    for (int64_t i = 0; i < rows; i++, row += line)
#pragma GCC unroll 3
      for (int j = 0; j < wide; j++) {
        if (i || j) best.take({load_n(row + j * ld, n), place[j]});
        place[j] += down;
      }
    store_n(y + c, best.value, n);
    if (places) store_n(reinterpret_cast<float*>(argmax) + c, as_f(best.at), n);
  });
}

/// `places`: also where the maximum was.
template <bool places> void max_pool(const PoolArgs& a, const Stream& s) {
  if (a.pool_h == 3 && a.pool_w == 3 && a.stride_h == 1 && a.stride_w == 1 && a.C >= V && a.H > 0 && a.W > 0)
    return max_pool_overlapping<places>(a, s);
  s.parallel(a.B * a.P, double(a.Q * a.C * a.pool_h * a.pool_w) * (0.4 / V) + 50, [&](int64_t unit, char*) {
    int64_t b = unit / a.P, p = unit % a.P;
    Span h = window(p, a.stride_h, a.pad_top, a.pool_h, a.H);
    for (int64_t q = 0; q < a.Q; q++) {
      const Span w = window(q, a.stride_w, a.pad_left, a.pool_w, a.W);
      const int64_t out = unit * a.Q + q, first = h.from * a.W + w.from, wide = w.to - w.from;
      const float* corner = a.x + (b * a.H * a.W + first) * a.ldx;
      if (h.to > h.from && (wide == 2 || wide == 3)) {
        const int64_t high = h.to - h.from;
        const auto pool = wide == 2 ? (high == 2 ? max_of_window<places, 2, 2> : max_of_window<places, 0, 2>)
                                    : (high == 3 ? max_of_window<places, 3, 3> : max_of_window<places, 0, 3>);
        pool(a, corner, high, int32_t(first), a.y + out * a.ldy, places ? a.argmax + out * a.C : nullptr);
        continue;
      }
      each_vector(a.C, [&](int64_t c, int n) __attribute__((always_inline)) {
        vf best = splat(-__builtin_inff());
        vi at = splat_i(int32_t(first));
        const float* row = corner + c;
        for (int64_t i = h.from, place = first; i < h.to; i++, row += a.W * a.ldx, place += a.W) {
          const float* x = row;
          for (int64_t j = 0; j < wide; j++, x += a.ldx) {
            vf value = load_n(x, n);
            vi better = ~(value <= best) & (best == best);  // larger, or the first NaN
            best = select(better, value, best);
            if (places) at = select_i(better, splat_i(int32_t(place + j)), at);
          }
        }
        store_n(a.y + out * a.ldy + c, best, n);
        if (places) store_n(reinterpret_cast<float*>(a.argmax) + out * a.C + c, as_f(at), n);
      });
    }
  });
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

/// The mean of a window of `rows` rows of `wide` pixels, which are known to be `high` and `columns`, if those are not 0.
template <int high, int columns>
void mean_of_window(const PoolArgs& a, const float* corner, int64_t rows, int64_t wide, float* y) {
  if (high) rows = high;
  if (columns) wide = columns;
  const int64_t ld = a.ldx, line = a.W * a.ldx;
  const vf share = splat(1.0f / float(rows * wide));
  each_vector(a.C, [&](int64_t c, int n) __attribute__((always_inline)) {
    vf t{};
    const float* row = corner + c;
#pragma GCC unroll 2
    for (int64_t i = 0; i < rows; i++, row += line)
#pragma GCC unroll 3
      for (int64_t j = 0; j < wide; j++) t += load_n(row + j * ld, n);
    store_n(y + c, t * share, n);
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

/// Windows side by side: a pixel hears of one window, which is read once for all its pixels.
template <bool maximum> void pool_apart_grad(const PoolArgs& a, const Stream& s) {
  s.parallel(a.B * a.P, double(a.pool_h * a.W * a.C) * (0.5 / V) + 50, [&](int64_t unit, char*) {
    const int64_t b = unit / a.P, p = unit % a.P;
    const Span h = window(p, a.stride_h, a.pad_top, a.pool_h, a.H);
    const int64_t below = p + 1 < a.P ? h.to : a.H;  // rows behind the last window belong to its unit
    const float *dy = a.x + unit * a.Q * a.ldx, *taken = nullptr;
    if (maximum) taken = reinterpret_cast<const float*>(a.taken) + unit * a.Q * a.C;
    float* image = a.dx + b * a.H * a.W * a.lddx;
    for (int64_t q = 0; q < a.Q; q++, dy += a.ldx, taken += maximum ? a.C : 0) {
      const Span w = window(q, a.stride_w, a.pad_left, a.pool_w, a.W);
      const vf share = splat(1.0f / float((h.to - h.from) * (w.to - w.from)));
      each_vector(a.C, [&](int64_t c, int n) __attribute__((always_inline)) {
        if (!maximum) {
          const vf part = load_n(dy + c, n) * share;
          for (int64_t i = h.from; i < h.to; i++)
            for (int64_t place = i * a.W + w.from; place < i * a.W + w.to; place++) store_n(image + place * a.lddx + c, part, n);
          return;
        }
        const vi g = as_i(load_n(dy + c, n)), at = as_i(load_n(taken + c, n));
        for (int64_t i = h.from; i < h.to; i++)
          for (int64_t place = i * a.W + w.from; place < i * a.W + w.to; place++)
            store_n(image + place * a.lddx + c, as_f(g & (at == splat_i(int32_t(place)))), n);
      });
    }
    const int64_t right = window(a.Q - 1, a.stride_w, a.pad_left, a.pool_w, a.W).to;
    for (int64_t i = h.from; i < below; i++)
      for (int64_t j = i < h.to ? right : 0; j < a.W; j++) zero(image + (i * a.W + j) * a.lddx, a.C);
  });
}

/// Row i of image b's gradient, of windows three columns wide and `stride` (1 or 2) apart, which cover it in `rows` rows of
/// outputs from p on: each window is read once for its three pixels of the row, which wait in dx for the next windows' share.
template <int rows, int stride> DAGRT_INLINE void overlapping_row_grad(const PoolArgs& a, int64_t b, int64_t i, int64_t p) {
  const int64_t W = a.W, Q = a.Q, C = a.C, ldx = a.ldx, lddx = a.lddx;
  const float* dy = a.x + (b * a.P + p) * Q * ldx;
  const float* taken = reinterpret_cast<const float*>(a.taken) + (b * a.P + p) * Q * C;
  float* dx = a.dx + (b * a.H + i) * W * lddx;
  int64_t begun = 0;  // pixels of the row that hold something
  for (int64_t q = 0; q < Q; q++, dy += ldx, taken += C) {
    const int64_t w = q * stride - a.pad_left;
    const vi here = splat_i(int32_t(i * W + w));
    float* to = dx + w * lddx;
    const int first = w < 0 ? int(-w) : 0, end = W - w < 3 ? int(W - w) : 3, held = begun > w ? int(begun - w) : 0;
    auto window = [&](int from, int last, int before) __attribute__((always_inline)) {
      each_vector(C, [&](int64_t c, int n) __attribute__((always_inline)) {
        vf t[3] = {};
#pragma GCC unroll 3
        for (int j = 0; j < 3; j++)
          if (j < before && j >= from) t[j] = load_n(to + j * lddx + c, n);
#pragma GCC unroll 3
        for (int k = 0; k < rows; k++) {
          const vi g = as_i(load_n(dy + k * Q * ldx + c, n)), at = as_i(load_n(taken + k * Q * C + c, n)) - here;
#pragma GCC unroll 3
          for (int j = 0; j < 3; j++) t[j] += as_f(g & (at == splat_i(j)));
        }
#pragma GCC unroll 3
        for (int j = 0; j < 3; j++)
          if (j >= from && j < last) store_n(to + j * lddx + c, t[j], n);
      });
    };
    if (first == 0 && end == 3 && held == 3 - stride)
      window(0, 3, 3 - stride);
    else
      window(first, end, held);
    if (w + end > begun) begun = w + end;
  }
  for (; begun < W; begun++) zero(dx + begun * lddx, C);
}

template <int stride> void max_pool_overlapping_grad(const PoolArgs& a, const Stream& s) {
  s.parallel(a.B * a.H, double(a.W * a.C) * (4.0 / V) + 50, [&](int64_t unit, char*) {
    const int64_t b = unit / a.H, i = unit % a.H;
    const Span p = covering(i, stride, a.pad_top, 3, a.P);
    switch (p.to - p.from) {
      case 1: return overlapping_row_grad<1, stride>(a, b, i, p.from);
      case 2: return overlapping_row_grad<2, stride>(a, b, i, p.from);
      case 3: return overlapping_row_grad<3, stride>(a, b, i, p.from);
      default: return overlapping_row_grad<0, stride>(a, b, i, 0);
    }
  });
}

}  // namespace

void max_pool2d(const PoolArgs& a, const Stream& s) { a.argmax ? max_pool<true>(a, s) : max_pool<false>(a, s); }

void max_pool2d_grad(const PoolArgs& a, const Stream& s) {
  if (a.pool_h == a.stride_h && a.pool_w == a.stride_w && a.P > 0 && a.Q > 0) return pool_apart_grad<true>(a, s);
  if (a.pool_h == 3 && a.pool_w == 3 && a.stride_h == a.stride_w && a.stride_w <= 2)
    return a.stride_w == 1 ? max_pool_overlapping_grad<1>(a, s) : max_pool_overlapping_grad<2>(a, s);
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
  s.parallel(a.B * a.P, double(a.Q * a.C * a.pool_h * a.pool_w) * (0.3 / V) + 50, [&](int64_t unit, char*) {
    int64_t b = unit / a.P, p = unit % a.P;
    Span h = window(p, a.stride_h, a.pad_top, a.pool_h, a.H);
    if (a.pool_w == 3 && a.stride_w == 1 && a.W >= 3) return mean_of_row(a, b, h, unit);
    for (int64_t q = 0; q < a.Q; q++) {
      const Span w = window(q, a.stride_w, a.pad_left, a.pool_w, a.W);
      const float* corner = a.x + ((b * a.H + h.from) * a.W + w.from) * a.ldx;
      const int64_t rows = h.to - h.from, wide = w.to - w.from;
      const auto mean = wide == 2   ? (rows == 2 ? mean_of_window<2, 2> : mean_of_window<0, 2>)
                        : wide == 3 ? mean_of_window<0, 3>
                                    : mean_of_window<0, 0>;
      mean(a, corner, rows, wide, a.y + (unit * a.Q + q) * a.ldy);
    }
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
