// Filter gradient of convolutions: dw[r,s,c,f] = the sum over pixels of x[their pixel under (r,s), c] dy[pixel, f].
//
// A product of K = pixels: rows of A are the channels under a window's row (S C contiguous floats of the image, read in place
// through a table of where each pixel's lie; where windows reach outside, in a padded copy of a block's rows), B is dy, of
// which a panel at a time is packed for the block and stays in L1 for all rows of A; whole panels that few rows meet are read in
// place. The first of several panels leaves A's
// rows behind in the order of tiles: read in place, each takes a line of the cache for a few floats, often of the same
// sets as the next. Runs of blocks are separate sums, added in order.
// Depthwise: vectors over channels, a window's sums side by side in registers.
#include "kernels/cpu/conv2d_pass.h"

namespace dagrt::DAGRT_ISA {
namespace {

/// dw = the sum of `splits` partial sums, in order.
void add_partials(float* dw, const float* partial, int64_t weights, int64_t splits, const Stream& s) {
  s.parallel((weights + 1023) / 1024, 200.0 * double(splits), [&](int64_t unit, char*) {
    int64_t end = unit * 1024 + 1024 < weights ? unit * 1024 + 1024 : weights;
    for (int64_t i = unit * 1024; i < end; i += V) {
      int n = int(end - i < V ? end - i : V);
      vf t = load_n(partial + i, n);
      for (int64_t k = 1; k < splits; k++) t += load_n(partial + k * weights + i, n);
      store_n(dw + i, t, n);
    }
  });
}

/// N taps of V (n) channels over pixels [q0, q1) of a row: dw[tap] += sum x dy.
template <int N>
void depthwise_taps(const float* x, int64_t next, const int64_t* tap, const float* dy, int64_t ldy, int64_t pixels, float* dw,
                    int64_t ldw, int n) {
  vf acc[N];
#pragma GCC unroll 12
  for (int i = 0; i < N; i++) acc[i] = n == V ? load(dw + i * ldw) : load_n(dw + i * ldw, n);
  for (int64_t q = 0; q < pixels; q++, x += next, dy += ldy) {
    const vf g = n == V ? load(dy) : load_n(dy, n);
#pragma GCC unroll 12
    for (int i = 0; i < N; i++) acc[i] += (n == V ? load(x + tap[i]) : load_n(x + tap[i], n)) * g;
  }
#pragma GCC unroll 12
  for (int i = 0; i < N; i++) {
    if (n == V)
      store(dw + i * ldw, acc[i]);
    else
      store_n(dw + i * ldw, acc[i], n);
  }
}

using DepthwiseTaps = void (*)(const float*, int64_t, const int64_t*, const float*, int64_t, int64_t, float*, int64_t, int);

/// Output rows [p0, p1) of image b, V (n) channels from c on: dw += sum x dy for RR rows of a window of S columns, from row r0.
/// All those rows are inside the image. The sums stay in registers; columns that reach outside are looked at one by one.
template <int RR, int S, bool full>
void depthwise_block(const ConvArgs& a, int64_t b, int64_t p0, int64_t p1, int64_t c, int n, int64_t r0, float* dw) {
  auto at = [n](const float* from) __attribute__((always_inline)) { return full ? load(from) : load_n(from, n); };
  const int64_t tap = a.dilation_w * a.ldx, next = a.stride_w * a.ldx, line = a.dilation_h * a.W * a.ldx;
  const Whole whole = whole_windows({a.stride_w, -a.pad_left, a.dilation_w, S, a.W}, a.Q);
  vf acc[RR][S];
#pragma GCC unroll 8
  for (int r = 0; r < RR; r++)
#pragma GCC unroll 8
    for (int k = 0; k < S; k++) acc[r][k] = at(dw + ((r0 + r) * S + k) * a.C);
  for (int64_t p = p0; p < p1; p++) {
    const int64_t top = p * a.stride_h - a.pad_top + r0 * a.dilation_h;
    const float *x = a.x + ((b * a.H + top) * a.W - a.pad_left) * a.ldx + c, *dy = a.y + (b * a.P + p) * a.Q * a.ldy + c;
    auto some = [&](int64_t from, int64_t to) __attribute__((always_inline)) {
      for (int64_t q = from; q < to; q++) {
        const vf g = at(dy + q * a.ldy);
        const int64_t left = q * a.stride_w - a.pad_left;
#pragma GCC unroll 8
        for (int k = 0; k < S; k++) {
          const int64_t w = left + k * a.dilation_w;
          if (w < 0 || w >= a.W) continue;
#pragma GCC unroll 8
          for (int r = 0; r < RR; r++) acc[r][k] += at(x + q * next + r * line + k * tap) * g;
        }
      }
    };
    some(0, whole.from);
    const float *from = x + whole.from * next, *grad = dy + whole.from * a.ldy;
    for (int64_t q = whole.from; q < whole.to; q++, from += next, grad += a.ldy) {
      const vf g = at(grad);
#pragma GCC unroll 8
      for (int r = 0; r < RR; r++)
#pragma GCC unroll 8
        for (int k = 0; k < S; k++) acc[r][k] += at(from + r * line + k * tap) * g;
    }
    some(whole.to, a.Q);
  }
#pragma GCC unroll 8
  for (int r = 0; r < RR; r++)
#pragma GCC unroll 8
    for (int k = 0; k < S; k++) {
      float* to = dw + ((r0 + r) * S + k) * a.C;
      if (full)
        store(to, acc[r][k]);
      else
        store_n(to, acc[r][k], n);
    }
}

/// As depthwise_block, of rows that may reach outside: those are taken one by one.
template <int RR, int S, bool full>
void depthwise_rows(const ConvArgs& a, int64_t b, int64_t p0, int64_t p1, int64_t c, int n, int64_t r0, float* dw) {
  auto is_inside = [&](int64_t p, int64_t r) {
    const int64_t h = p * a.stride_h - a.pad_top + (r0 + r) * a.dilation_h;
    return h >= 0 && h < a.H;
  };
  for (int64_t p = p0; p < p1;) {
    int64_t end = p;
    while (end < p1 && is_inside(end, 0) && is_inside(end, RR - 1)) end++;
    if (end > p) {
      depthwise_block<RR, S, full>(a, b, p, end, c, n, r0, dw);
      p = end;
      continue;
    }
    for (int64_t r = 0; r < RR; r++)
      if (is_inside(p, r)) depthwise_block<1, S, full>(a, b, p, p + 1, c, n, r0 + r, dw);
    p++;
  }
}

template <bool full> void depthwise_window(const ConvArgs& a, int64_t b, int64_t p0, int64_t p1, int64_t c, int n, float* dw) {
  if (a.S == 3) return depthwise_rows<3, 3, full>(a, b, p0, p1, c, n, 0, dw);
  depthwise_rows<2, 5, full>(a, b, p0, p1, c, n, 0, dw);
  depthwise_rows<2, 5, full>(a, b, p0, p1, c, n, 2, dw);
  depthwise_rows<1, 5, full>(a, b, p0, p1, c, n, 4, dw);
}

/// Windows of 3 x 3 and 5 x 5: a few rows of an image at a time, which stay in L2 while vectors of channels walk over them.
/// Runs of rows are separate sums, added in order; channels are shared out too.
void depthwise_square(const ConvArgs& a, const Stream& s) {
  constexpr int64_t share = 64, floats = 16 << 10;  // channels of a unit; floats of x and dy in a block
  const int64_t splits = conv2d_filter_grad_splits(a), rows = a.B * a.P, weights = a.R * a.S * a.C,
                shares = (a.C + share - 1) / share;
  float* partial = splits > 1 ? aligned(a.workspace) : a.w;
  const int64_t row = (a.Q + a.stride_h * a.W) * a.C, high = row ? 1 + floats / row : 1;
  const double ns = double(rows * a.Q) / double(splits) * double(a.R * a.S * share) * (0.2 / V) + 200;
  s.parallel(splits * shares, ns, [&](int64_t unit, char*) {
    const int64_t split = unit / shares, c0 = unit % shares * share, c1 = a.C - c0 < share ? a.C : c0 + share;
    float* dw = partial + split * weights;
    for (int64_t k = 0; k < a.R * a.S; k++) zero(dw + k * a.C + c0, c1 - c0);
    const int64_t end = rows * (split + 1) / splits;
    for (int64_t at = rows * split / splits; at < end;) {
      const int64_t b = at / a.P, p = at % a.P;
      int64_t p1 = p + high < a.P ? p + high : a.P;
      if (p1 - p > end - at) p1 = p + end - at;
      for (int64_t c = c0; c < c1; c += V)
        if (c + V <= c1)
          depthwise_window<true>(a, b, p, p1, c, V, dw + c);
        else
          depthwise_window<false>(a, b, p, p1, c, int(c1 - c), dw + c);
      at += p1 - p;
    }
  });
  if (splits > 1) add_partials(a.w, partial, weights, splits, s);
}

/// Runs of the image's rows are separate sums, added in order. Within a row, a window row's taps (up to 12 at once) are
/// summed over the pixels that have them all; the others tap by tap.
void depthwise_filter_grad(const ConvArgs& a, const Stream& s) {
  static constexpr DepthwiseTaps taps[] = {nullptr,           depthwise_taps<1>, depthwise_taps<2>,  depthwise_taps<3>,
                                           depthwise_taps<4>, depthwise_taps<5>, depthwise_taps<6>,  depthwise_taps<7>,
                                           depthwise_taps<8>, depthwise_taps<9>, depthwise_taps<10>, depthwise_taps<11>,
                                           depthwise_taps<12>};
  constexpr int64_t most = 12;
  const int64_t splits = conv2d_filter_grad_splits(a), rows = a.B * a.P, window = a.R * a.S, weights = window * a.C;
  float* partial = splits > 1 ? aligned(a.workspace) : a.w;
  const double ns = double(rows * a.Q) / double(splits) * double(weights) * (0.4 / V) + 200;
  s.parallel(splits, ns, [&](int64_t split, char*) {
    float* dw = partial + split * weights;
    zero(dw, weights);
    for (int64_t row = rows * split / splits; row < rows * (split + 1) / splits; row++) {
      const int64_t b = row / a.P, top = row % a.P * a.stride_h - a.pad_top;
      const float* dy = a.y + row * a.Q * a.ldy;
      const int64_t next = a.stride_w * a.ldx;
      for (int64_t first = 0; first < window; first += most) {
        const int count = int(window - first < most ? window - first : most);
        int64_t tap[most], begin[most], end[most], from = 0, to = a.Q;  // pixels that have the tap, and those that have all
        const float* x = a.x + (b * a.H + top) * a.W * a.ldx - a.pad_left * a.ldx;
        for (int i = 0; i < count; i++) {
          const int64_t r = (first + i) / a.S * a.dilation_h, k = (first + i) % a.S * a.dilation_w, left = k - a.pad_left;
          tap[i] = (r * a.W + k) * a.ldx;
          begin[i] = left < 0 ? (-left + a.stride_w - 1) / a.stride_w : 0;
          end[i] = left >= a.W ? 0 : (a.W - 1 - left) / a.stride_w + 1;
          if (top + r < 0 || top + r >= a.H) begin[i] = end[i] = 0;
          if (end[i] > a.Q) end[i] = a.Q;
          if (begin[i] > end[i]) begin[i] = end[i];
          if (begin[i] > from) from = begin[i];
          if (end[i] < to) to = end[i];
        }
        const bool all = to > from;
        for (int64_t c = 0; c < a.C; c += V) {
          const int n = int(a.C - c < V ? a.C - c : V);
          float* sum = dw + first * a.C + c;
          auto run = [&](int i, int taps_at_once, int64_t q0, int64_t q1) {
            if (q1 > q0)
              taps[taps_at_once](x + q0 * next + c, next, tap + i, dy + q0 * a.ldy + c, a.ldy, q1 - q0, sum + i * a.C, a.C, n);
          };
          for (int i = 0; i < count; i++) run(i, 1, begin[i], all ? from : end[i]);
          if (!all) continue;
          run(0, count, from, to);
          for (int i = 0; i < count; i++) run(i, 1, to, end[i]);
        }
      }
    }
  });
  if (splits > 1) add_partials(a.w, partial, weights, splits, s);
}

/// Few filters: one row of the window's channels, n floats, for NF filters; vectors over channels, dy broadcast.
struct FewFilters {
  const float *x, *dy;  // under the first pixel; of it
  int64_t step, line, pixels, rows, ldy, n, F;
  float* dw;  // rows of F
  bool accumulate;

  template <int NF, int K> void chunk(int64_t m, int last) const {
    vf acc[K][NF];
#pragma GCC unroll 8
    for (int k = 0; k < K; k++)
#pragma GCC unroll 4
      for (int f = 0; f < NF; f++) acc[k][f] = vf{};
    const float* g = dy;
    for (int64_t i = 0; i < rows; i++) {
      const float* from = x + i * line + m;
      for (int64_t j = 0; j < pixels; j++, from += step, g += ldy)
#pragma GCC unroll 8
        for (int k = 0; k < K; k++) {
          const vf v = k + 1 < K || last == V ? load(from + k * V) : load_n(from + k * V, last);
#pragma GCC unroll 4
          for (int f = 0; f < NF; f++) acc[k][f] += v * splat(g[f]);
        }
    }
    for (int k = 0; k < K; k++)
      for (int f = 0; f < NF; f++) {
        float* to = dw + (m + k * V) * F + f;
        for (int l = 0; l < (k + 1 < K ? V : last); l++, to += F) *to = accumulate ? *to + acc[k][f][l] : acc[k][f][l];
      }
  }
  template <int NF> void run() const {
    constexpr int K = NF <= 2 ? 6 : NF == 3 ? 4 : 3;
    int64_t m = 0;
    for (; m + K * V <= n; m += K * V) chunk<NF, K>(m, V);
    if (m == n) return;
    const int64_t vectors = (n - m + V - 1) / V;
    const int last = int(n - m - (vectors - 1) * V);
    switch (vectors) {
      case 1: return chunk<NF, 1>(m, last);
      case 2: return chunk<NF, 2>(m, last);
      case 3: return chunk<NF, 3>(m, last);
      case 4:
        if constexpr (K >= 4) return chunk<NF, 4>(m, last);
        break;
      case 5:
        if constexpr (K >= 5) return chunk<NF, 5>(m, last);
        break;
      default:
        if constexpr (K >= 6) return chunk<NF, 6>(m, last);
        break;
    }
  }
  void operator()(int64_t filters) const {
    switch (filters) {
      case 1: return run<1>();
      case 2: return run<2>();
      case 3: return run<3>();
      default: return run<4>();
    }
  }
};

/// The same by windows of S columns, each a pixel behind the other: a loaded vector of x meets the dy of all windows that it
/// lies in. What lies outside of the image is left out, so x is read in place.
struct SlidingFilters {
  const ConvArgs& a;
  int64_t b, p0, p1;  // rows of dy
  int64_t c;          // channels from here on
  int n;
  float* dw;

  /// Rows [p, end) of dy, window rows [r0, r0 + RR), all inside.
  template <int RR, int S, int F> void block(int64_t p, int64_t end, int64_t r0) const {
    vf acc[RR][S][F];
#pragma GCC unroll 8
    for (int r = 0; r < RR; r++)
#pragma GCC unroll 8
      for (int s = 0; s < S; s++)
#pragma GCC unroll 8
        for (int f = 0; f < F; f++) acc[r][s][f] = vf{};
    const int64_t line = a.dilation_h * a.W * a.ldx, ldy = a.ldy;
    // Columns of the image, and those whose windows all exist.
    const int64_t first = a.pad_left < 0 ? -a.pad_left : 0,
                  last = a.W < a.Q + S - 1 - a.pad_left ? a.W : a.Q + S - 1 - a.pad_left;
    const int64_t from = first < S - 1 - a.pad_left ? S - 1 - a.pad_left : first,
                  to = last < a.Q - a.pad_left ? last : a.Q - a.pad_left;
    for (; p < end; p++) {
      const float* x = a.x + ((b * a.H + p * a.stride_h - a.pad_top + r0 * a.dilation_h) * a.W) * a.ldx + c;
      const float* dy = a.y + ((b * a.P + p) * a.Q + a.pad_left) * ldy;
      auto column = [&](int64_t i, bool border) __attribute__((always_inline)) {
        vf v[RR];
#pragma GCC unroll 8
        for (int r = 0; r < RR; r++) {
          v[r] = load_n(x + r * line + i * a.ldx, n);
          keep(v[r]);
        }
#pragma GCC unroll 8
        for (int s = 0; s < S; s++) {
          if (border && (i + a.pad_left - s < 0 || i + a.pad_left - s >= a.Q)) continue;
#pragma GCC unroll 8
          for (int f = 0; f < F; f++) {
            vf g = splat(dy[(i - s) * ldy + f]);
            if (RR > 1) keep(g);
#pragma GCC unroll 8
            for (int r = 0; r < RR; r++) acc[r][s][f] += v[r] * g;
          }
        }
      };
      int64_t i = first;
#pragma GCC unroll 1
      for (; i < from && i < last; i++) column(i, true);
#pragma GCC unroll 1
      for (; i < to; i++) column(i, false);
#pragma GCC unroll 1
      for (; i < last; i++) column(i, true);
    }
#pragma GCC unroll 8
    for (int r = 0; r < RR; r++)
#pragma GCC unroll 8
      for (int s = 0; s < S; s++) {
        float* at = dw + ((r0 + r) * S + s) * a.C * F + c * F;
        if (F == 1) {
          store_n(at, load_n(at, n) + acc[r][s][0], n);
          continue;
        }
        float sums[F][V];
#pragma GCC unroll 8
        for (int f = 0; f < F; f++) store(sums[f], acc[r][s][f]);
        for (int l = 0; l < n; l++)
          for (int f = 0; f < F; f++) at[l * F + f] += sums[f][l];
      }
  }

  /// Window rows [r0, r0 + RR): where all are inside, at once; else row by row.
  template <int RR, int S, int F> void rows(int64_t r0) const {
    auto is_inside = [&](int64_t p, int64_t r) {
      const int64_t h = p * a.stride_h - a.pad_top + r * a.dilation_h;
      return h >= 0 && h < a.H;
    };
    for (int64_t p = p0; p < p1;) {
      int64_t end = p;
      while (end < p1 && is_inside(end, r0) && is_inside(end, r0 + RR - 1)) end++;
      if (end > p) {
        block<RR, S, F>(p, end, r0);
        p = end;
        continue;
      }
      for (int64_t r = r0; r < r0 + RR; r++)
        if (is_inside(p, r)) block<1, S, F>(p, p + 1, r);
      p++;
    }
  }

  template <int S, int F> void window() const {
    constexpr int fit = conv_grad_sums(V) / (S * F), RR = fit < S ? fit : S;
    if constexpr (RR > 0) {
      int64_t r = 0;
      for (; r + RR <= a.R; r += RR) rows<RR, S, F>(r);
      for (; r < a.R; r++) rows<1, S, F>(r);
    }
  }
  template <int S> void filters() const {
    switch (a.F) {
      case 1: return window<S, 1>();
      case 2: return window<S, 2>();
      case 3: return window<S, 3>();
      case 4: return window<S, 4>();
      case 5: return window<S, 5>();
      case 6: return window<S, 6>();
      case 7: return window<S, 7>();
      default: return window<S, 8>();
    }
  }
  void operator()() const { a.S == 3 ? filters<3>() : filters<5>(); }

  static bool takes(const ConvArgs& a) {
    return a.stride_w == 1 && a.dilation_w == 1 && conv_grad_slides(a.groups, a.F, a.S, a.C, V);
  }
};

/// One channel: windows of R x S, vectors over filters, x broadcast. A row of the window has no more than S floats, too few sums
/// to hide a multiply-add's latency: all of its rows are summed at once.
struct OneChannel {
  const float *x, *dy;  // under the first pixel; of it
  int64_t step, line, down, across, pixels, rows, ldy;
  float* dw;
  int64_t F;
  bool accumulate;

  template <int R, int S, int NV> void vectors(int64_t f, int last) const {
    vf acc[R * S][NV];
#pragma GCC unroll 25
    for (int k = 0; k < R * S; k++)
#pragma GCC unroll 2
      for (int v = 0; v < NV; v++) acc[k][v] = vf{};
    for (int64_t i = 0; i < rows; i++) {
      const float *from = x + i * line, *g = dy + i * pixels * ldy + f;
      for (int64_t j = 0; j < pixels; j++, from += step, g += ldy) {
        vf gv[NV];
#pragma GCC unroll 2
        for (int v = 0; v < NV; v++) {
          gv[v] = load_n(g + v * V, v + 1 < NV ? V : last);
          keep(gv[v]);
        }
#pragma GCC unroll 5
        for (int r = 0; r < R; r++)
#pragma GCC unroll 5
          for (int s = 0; s < S; s++) {
            const vf pixel = splat(from[r * down + s * across]);
#pragma GCC unroll 2
            for (int v = 0; v < NV; v++) acc[r * S + s][v] += pixel * gv[v];
          }
      }
    }
#pragma GCC unroll 25
    for (int k = 0; k < R * S; k++)
#pragma GCC unroll 2
      for (int v = 0; v < NV; v++) {
        float* to = dw + k * F + f + v * V;
        const int n = v + 1 < NV ? V : last;
        store_n(to, accumulate ? load_n(to, n) + acc[k][v] : acc[k][v], n);
      }
  }
  template <int R, int S> void run() const {
    constexpr int NV = R * S * 2 <= (V == 16 ? 28 : 12) ? 2 : 1;
    int64_t f = 0;
    for (; f + NV * V <= F; f += NV * V) vectors<R, S, NV>(f, V);
    for (; f < F; f += V) vectors<R, S, 1>(f, int(F - f < V ? F - f : V));
  }
  void operator()(int64_t window) const { window == 3 ? run<3, 3>() : run<5, 5>(); }
  static bool takes(const ConvArgs& a) {
    return a.C == 1 && a.groups == 1 && a.R == a.S && (a.S == 3 || (a.S == 5 && V == 16)) && a.F >= V / 2;
  }
};

}  // namespace

void conv2d_filter_grad(const ConvArgs& a, const Stream& s) {
  const int64_t c = a.C / a.groups, f = a.F / a.groups, weights = a.R * a.S * c * a.F;
  if (!weights) return;
  if (is_depthwise(a.groups, a.C, a.F))
    return a.R == a.S && (a.S == 3 || a.S == 5) ? depthwise_square(a, s) : depthwise_filter_grad(a, s);
  if (!a.B || !a.P || !a.Q) return zero(a.w, weights);
  const int64_t splits = conv2d_filter_grad_splits(a), chunks = conv2d_filter_grad_chunks(a);
  const int64_t high = conv2d_filter_grad_rows(a), blocks = conv2d_filter_grad_blocks(a), all = a.B * a.P;
  float* partial = splits > 1 ? aligned(a.workspace) : a.w;
  const Epilogue none;
  const Pass t{a.B,
               a.x,
               a.H,
               a.W,
               a.ldx,
               a.C,
               {a.stride_h, -a.pad_top, a.dilation_h, a.R, a.H},
               {a.stride_w, -a.pad_left, a.dilation_w, a.S, a.W},
               {a.P, a.Q},
               nullptr,
               nullptr,
               a.P,
               a.Q,
               a.ldy,
               a.F,
               a.groups,
               none};
  const bool outside = reaches_outside(t), copies = conv_grad_copies(f, a.S * c, a.Q);
  const bool joined = a.dilation_w == 1 && (outside || a.ldx == c);  // the channels under a window's row are contiguous
  const int64_t runs = joined ? a.R : a.R * a.S, run = joined ? a.S * c : c;
  const int64_t parts = run > conv_grad_chunk ? run / conv_grad_chunk : 1, pieces = runs * parts;
  const bool few = conv_grad_few(f, run), sliding = SlidingFilters::takes(a), one = !few && OneChannel::takes(a);
  const double ns = double(all * a.Q) / double(splits * chunks) * double(a.R * a.S * c) * double(f) * (0.3 / V) + 200;
  s.parallel(splits * chunks * a.groups, ns, [&](int64_t unit, char* scratch) {
    const int64_t g = unit % a.groups, chunk = unit / a.groups % chunks, split = unit / a.groups / chunks;
    const int64_t begin = blocks * split / splits, end = blocks * (split + 1) / splits;
    const int64_t first = pieces * chunk / chunks, last = pieces * (chunk + 1) / chunks;
    float* to = partial + split * weights + g * f;
    float* panel = aligned(scratch);
    int32_t* places = reinterpret_cast<int32_t*>(panel + high * a.Q * gemm_nr);
    float* tiles = reinterpret_cast<float*>(places) + (high * a.Q + gemm_copying_ahead + 15) / 16 * 16;
    float* copied = tiles + (copies ? conv_grad_copied_floats(a.S * c, high * a.Q) : 0);
    TileJob job;
    job.taps = places;
    job.a_row = 1;
    job.b = panel;
    job.ldc = a.F;
    for (int64_t block = begin; block < end; block++) {
      const int64_t row0 = all * block / blocks, row1 = all * (block + 1) / blocks;
      job.K = (row1 - row0) * a.Q;
      job.accumulate = block > begin;
      job.far = job.accumulate || V == 16;  // lines that are only written: narrow tiles lose by asking
      const float* dy = a.y + row0 * a.Q * a.ldy + g * f;
      if (sliding) {
        const int64_t vectors = (a.C + V - 1) / V, c0 = vectors * chunk / chunks * V, c1 = vectors * (chunk + 1) / chunks * V;
        const int64_t channels = (c1 < a.C ? c1 : a.C) - c0;
        for (int64_t k = 0; block == begin && k < a.R * a.S; k++) zero(to + (k * a.C + c0) * a.F, channels * a.F);
        for (int64_t row = row0, stop = row0; row < row1; row = stop) {
          const int64_t p = row % a.P, end = a.P - p < row1 - row ? a.P : p + row1 - row;
          stop = row + end - p;
          each_vector(channels, [&](int64_t c, int n) { SlidingFilters{a, row / a.P, p, end, c0 + c, n, to}(); });
        }
        continue;
      }
      Rows x{};
      for (int64_t row = row0, stop = row0, lines = 0; row < row1; row = stop) {  // image by image
        const int64_t b = row / a.P, i0 = row % a.P, i1 = a.P - i0 < row1 - row ? a.P : i0 + row1 - row;
        stop = row + i1 - i0;
        const Rows here = rows_under(t, b, g, i0, i1, outside, copied + lines * x.line);
        if (row == row0) x = here;
        lines += (i1 - i0 - 1) * a.stride_h + (a.R - 1) * a.dilation_h + 1;
        if (few || one) continue;
        for (int64_t at = here.a - x.a; row < stop; row++, at += a.stride_h * x.line)
          for (int64_t j = 0; j < a.Q; j++) places[(row - row0) * a.Q + j] = int32_t(at + j * a.stride_w * x.ld);
      }
      if (one) {
        OneChannel{
            x.a, dy,  a.stride_w * x.ld, a.stride_h * x.line, a.dilation_h * x.line, a.dilation_w * x.ld, a.Q, row1 - row0, a.ldy,
            to,  a.F, job.accumulate}(a.S);
        continue;
      }
      // What a copying tile asks for behind its last pixels: those of the next one.
      for (int64_t k = 0; copies && k < gemm_copying_ahead; k++) places[job.K + k] = places[k % job.K] + gemm_mr;
      auto each_piece = [&](const auto& multiply) {  // multiply(floats, them under the first pixel, their rows of dw)
        for (int64_t piece = first; piece < last; piece++) {
          const int64_t at = piece / parts, m0 = run * (piece % parts) / parts, m1 = run * (piece % parts + 1) / parts;
          const int64_t r = joined ? at : at / a.S, q = joined ? 0 : at % a.S;
          multiply(m1 - m0, x.a + r * a.dilation_h * x.line + q * a.dilation_w * x.ld + m0, to + (at * run + m0) * a.F);
        }
      };
      if (few) {
        const int64_t step = a.stride_w * x.ld, line = a.stride_h * x.line;
        each_piece([&](int64_t n, const float* from, float* dw) {
          FewFilters{from, dy, step, line, a.Q, row1 - row0, a.ldy, n, a.F, dw, job.accumulate}(f);
        });
        continue;
      }
      if (!copies) {
        // Lines of the next panel are asked for where a row of dy has more than the processor fetches with them by itself.
        if (f > 32) job.next_row = 4 * a.ldy, job.next_runs = job.K / (last - first) + 1;
        for (int64_t n = 0; n < f; n += gemm_nr) {
          job.n = int(f - n < gemm_nr ? f - n : gemm_nr);
          // A whole panel that meets few pieces is read in place.
          const bool in_place = job.n == gemm_nr && last - first <= 3;
          if (!in_place) gemm_pack(job.K, dy + n, a.ldy, 1, job.n, panel);
          job.b = in_place ? dy + n : panel, job.b_row = in_place ? a.ldy : gemm_nr;
          const float* next = n + gemm_nr < f ? dy + n + gemm_nr : dy + job.K * a.ldy;
          each_piece([&](int64_t m, const float* from, float* c) {
            if (job.next_row) job.next = next, next += job.next_runs * a.ldy;
            gemm_run(job, m, from, c + n, 0);
          });
        }
        continue;
      }
      each_piece([&](int64_t m, const float* from, float* c) {
        // Whole tiles have V floats behind each pixel, and are copied by their first product; the others behind it.
        const int64_t whole = m < V ? 0 : (m - (V - gemm_mr)) / gemm_mr * gemm_mr;
        TileJob front = job, rest = job;
        front.a_tile = (((job.K * gemm_mr + V) / 16 + 1) | 1) * 16;  // an odd number of lines
        front.copied = tiles;
        front.next_row = 4 * a.ldy;
        float* behind = tiles + whole / gemm_mr * front.a_tile;
        rest.taps = nullptr, rest.a_col = V;
        for (int64_t n = 0; n < f; n += gemm_nr) {
          front.n = rest.n = int(f - n < gemm_nr ? f - n : gemm_nr);
          const bool by_tile = n && whole && front.n == gemm_nr;
          if (!by_tile) gemm_pack(job.K, dy + n, a.ldy, 1, front.n, panel);
          front.packed = by_tile ? panel : nullptr;
          front.b = by_tile ? dy + n : panel, front.b_row = by_tile ? a.ldy : gemm_nr;
          front.next = n + gemm_nr < f ? dy + n + gemm_nr : last - first > 1 ? dy : dy + job.K * a.ldy;
          if (whole) gemm_run(front, whole, front.copied ? from : tiles, c + n, 0);
          if (!n)
            for (int64_t k = 0; k < job.K; k++) store(behind + k * V, load_n(from + whole + places[k], int(m - whole)));
          gemm_run(rest, m - whole, behind, c + n + whole * a.F, 0);
          front.copied = nullptr, front.taps = nullptr, front.a_col = gemm_mr;
        }
      });
    }
  });
  if (splits > 1) add_partials(a.w, partial, weights, splits, s);
}

}  // namespace dagrt::DAGRT_ISA
