// Convolutions to a few filters (an image from 16 channels, a mask, the gradient into the pixels of an image): a vector over
// filters would be empty but for them. So vectors run over the window's channels: V pixels side by side are summed in V
// registers, each tap's weights loaded once for all of them, and at the end a tree of shuffles adds up the lanes of all V
// sums at once. Windows of three or five columns that lie one pixel apart share what they load, and leave out what is outside.
#include "kernels/cpu/conv2d_pass.h"

namespace dagrt::DAGRT_ISA {
namespace {

/// Lane l of the result is the sum of v[l]'s lanes.
DAGRT_INLINE vf sums_of(vf* v) {
#if DAGRT_V == 16
  // By shuffles that read two vectors and need no table of places: within quarters, then of quarters.
#pragma GCC unroll 8
  for (int i = 0; i < V; i += 2)
    v[i] = __builtin_shuffle(v[i], v[i + 1], vi{0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29}) +
           __builtin_shuffle(v[i], v[i + 1], vi{2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31});
#pragma GCC unroll 4
  for (int i = 0; i < V; i += 4)
    v[i] = __builtin_shuffle(v[i], v[i + 2], vi{0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29}) +
           __builtin_shuffle(v[i], v[i + 2], vi{2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31});
  const vi even{0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27}, odd = even + splat_i(4);
  v[0] = __builtin_shuffle(v[0], v[4], even) + __builtin_shuffle(v[0], v[4], odd);
  v[8] = __builtin_shuffle(v[8], v[12], even) + __builtin_shuffle(v[8], v[12], odd);
  return __builtin_shuffle(v[0], v[8], even) + __builtin_shuffle(v[0], v[8], odd);
#else
  const vi lane = lane_numbers();
#pragma GCC unroll 4
  for (int w = 1; w < V; w *= 2) {
    // Lane l of the pair's sum belongs to the second where bit w of l is set.
    const vi set = (lane & splat_i(w)) != splat_i(0);
    const vi own = select_i(set, lane + splat_i(V), lane), other = (own ^ splat_i(w));
#pragma GCC unroll 16
    for (int i = 0; i < V; i += 2 * w) v[i] = __builtin_shuffle(v[i], v[i + w], own) + __builtin_shuffle(v[i], v[i + w], other);
  }
  return v[0];
#endif
}

template <int... I> struct Numbers {};
template <int N, int... I> struct NumbersUpTo : NumbersUpTo<N - 1, N - 1, I...> {};
template <int... I> struct NumbersUpTo<0, I...> {
  using type = Numbers<I...>;
};
using Pixels = NumbersUpTo<V>::type;  // of a tile, less one

/// What lies under a window: `rows` rows, each of `runs` runs of `length` contiguous floats.
struct Window {
  int64_t rows, line, runs, run, length;
};

/// The sums of N pixels, `next` floats apart.
template <int N> void dot(const Window& d, const float* x, int64_t next, const float* w, float* to) {
  vf acc[V];
#pragma GCC unroll 16
  for (int i = 0; i < V; i++) acc[i] = vf{};
  for (int64_t r = 0; r < d.rows; r++)
    for (int64_t q = 0; q < d.runs; q++, w += d.length) {
      const float* from = x + r * d.line + q * d.run;
      each_vector(d.length, [&](int64_t c, int n) __attribute__((always_inline)) {
        const vf weight = load_n(w + c, n);
#pragma GCC unroll 16
        for (int i = 0; i < N; i++) acc[i] += load_n(from + i * next + c, n) * weight;
      });
    }
  store_n(to, sums_of(acc), N);
}

using Dot = void (*)(const Window&, const float*, int64_t, const float*, float*);
template <int... I> Dot dot_of(int64_t pixels, Numbers<I...>) {
  static constexpr Dot table[] = {dot<I + 1>...};
  return table[pixels - 1];
}

/// The sums of J pixels of a row.
void dot_row(const Window& d, const float* x, int64_t next, const float* w, int64_t J, float* to) {
  const int64_t tiles = (J + V - 1) / V, low = J / tiles, longer = J - low * tiles;
  for (int64_t k = 0, j = 0; k < tiles; k++) {
    const int64_t pixels = k < longer ? low + 1 : low;
    dot_of(pixels, Pixels{})(d, x + j * next, next, w, to + j);
    j += pixels;
  }
}

/// How sums become pixels of a row of y, but for chains that are not simple.
struct Finish {
  const Pass& t;
  SimpleEpilogue simple;
  int64_t n, step;
  bool direct;  // sums side by side are so in y

  explicit Finish(const Pass& t) : t(t), simple(t.epilogue), n(t.dst_channels), step(t.grid.step_w * t.ld_dst) {
    direct = n == 1 && step == 1 && (!simple.residual || simple.ld_residual == 1);
  }
  DAGRT_INLINE void vector(vf v, float* y, int64_t place, int m) const {
    if (simple.bias) v += splat(simple.bias[0]);
    if (simple.residual) v += load_n(simple.residual + place, m);
    store_n(y, activate(simple, v), m);
  }
  /// J pixels from `place` on; those of filter f at sums + f ld.
  void row(const float* sums, int64_t ld, int64_t J, float* y, int64_t place) const {
    if (direct)
      return each_vector(
          J, [&](int64_t j, int m) __attribute__((always_inline)) { vector(load_n(sums + j, m), y + j, place + j, m); });
    for (int64_t j = 0; j < J; j++)
      for (int64_t f = 0; f < n; f++) {
        float v = sums[f * ld + j];
        if (simple.bias) v += simple.bias[f];
        if (simple.residual) v += simple.residual[(place + j * t.grid.step_w) * simple.ld_residual + f];
        if (simple.round) v = bf16_to_float(float_to_bf16(v));
        if (simple.relu) v = v <= 0 ? 0 : v > simple.ceiling ? simple.ceiling : v;
        y[j * step + f] = v;
      }
  }
};

/// Grid rows [i0, i1) of image b, pixels from j on; `x` is under the first of those of the first row.
struct Strip {
  const Finish& finish;
  int64_t b, i0, i1, j;
  const float* x;
  uint32_t inside;  // bit i: the i-th pixel under them exists
};

/// N pixels that lie side by side, of some rows, by windows of S columns, each a pixel behind the other: a loaded vector serves all
/// windows that it lies in, and what lies outside of the image is left out.
template <int N, int S> void slide(const Strip& k) {
  const Pass& t = k.finish.t;
  const Axis& h = t.h;
  const int64_t run = t.ld_src, line = t.src_w * run, down = h.step * line, length = t.src_channels, filters = t.dst_channels;
  float sums[conv_few_filters * V];
  for (int64_t i = k.i0; i < k.i1; i++) {
    const int64_t top = i * h.mul + h.off;
    int64_t r0 = 0, r1 = h.count;
    while (r0 < r1 && top + r0 * h.step < 0) r0++;
    while (r1 > r0 && top + (r1 - 1) * h.step >= t.src_h) r1--;
    const int64_t place = t.place(k.b, i, k.j);
    float* y = t.dst + place * t.ld_dst;
    for (int64_t f = 0; f < filters; f++) {
      vf acc[V];
#pragma GCC unroll 16
      for (int m = 0; m < V; m++) acc[m] = vf{};
      const float *x = k.x + (i - k.i0) * h.mul * line + r0 * down, *w = t.packed + (f * h.count + r0) * S * length;
      for (int64_t r = r0; r < r1; r++, x += down, w += S * length)
        each_vector(length, [&](int64_t c, int n) __attribute__((always_inline)) {
          vf weight[S];
#pragma GCC unroll 5
          for (int q = 0; q < S; q++) {
            weight[q] = load_n(w + q * length + c, n);
            keep(weight[q]);
          }
          const float* at = x + c;
          uint32_t bits = k.inside;
#pragma GCC unroll 20
          for (int m = 0; m < N + S - 1; m++, at += run) {
            keep(at), keep(bits);  // or GCC keeps each pixel's place and bit in memory
            if (!(bits >> m & 1)) continue;
            vf pixel = load_n(at, n);
            keep(pixel);
#pragma GCC unroll 5
            for (int q = 0; q < S; q++)
              if (m - q >= 0 && m - q < N) acc[m - q] += pixel * weight[q];
          }
        });
      const vf v = sums_of(acc);
      if (k.finish.direct)
        k.finish.vector(v, y, place, N);
      else
        store(sums + f * V, v);
    }
    if (!k.finish.direct) k.finish.row(sums, V, N, y, place);
  }
}

using Slide = void (*)(const Strip&);
template <int S, int... I> Slide slide_of(int64_t pixels, Numbers<I...>) {
  static constexpr Slide table[] = {slide<I + 1, S>...};
  return table[pixels - 1];
}

/// Whether a pass is by such windows.
bool slides(const Pass& t) {
  const bool window = (t.w.count == 3 || t.w.count == 5) && t.w.mul == 1 && t.w.step == 1 && t.h.count;
  return window && conv_apart(t.w.count, t.src_channels, V);
}

/// Grid rows [i0, i1) of image b.
void slide_rows(const Finish& finish, int64_t b, int64_t i0, int64_t i1) {
  const Pass& t = finish.t;
  const int64_t J = t.grid.J, S = t.w.count, tiles = (J + V - 1) / V, low = J / tiles, longer = J - low * tiles;
  const float* x = t.src + ((b * t.src_h + i0 * t.h.mul + t.h.off) * t.src_w + t.w.off) * t.ld_src;
  for (int64_t k = 0, j = 0; k < tiles; k++) {
    const int64_t pixels = k < longer ? low + 1 : low;
    const int64_t first = -t.w.off - j, end = first + t.src_w, reach = pixels + S - 1;  // of the image's pixels under them
    uint32_t inside = (uint32_t(1) << reach) - 1;
    if (first > 0) inside = first < reach ? inside >> first << first : 0;
    if (end < reach) inside = end > 0 ? inside & ((uint32_t(1) << end) - 1) : 0;
    (S == 3 ? slide_of<3>(pixels, Pixels{}) : slide_of<5>(pixels, Pixels{}))({finish, b, i0, i1, j, x + j * t.ld_src, inside});
    j += pixels;
  }
}

}  // namespace

void pass_few(const Stream& s, const Pass& t) {
  const Axis &h = t.h, &w = t.w;
  const int64_t sc = t.src_channels, n = t.dst_channels, J = t.grid.J, depth = h.count * w.count * sc;
  const bool sliding = slides(t), outside = depth && !sliding && reaches_outside(t);
  const bool whole = t.grid.step_h == 1 && t.grid.step_w == 1 && J == t.dst_w;
  const int64_t rows = conv_rows(t.grid.I, J, depth, n), blocks = (t.grid.I + rows - 1) / rows;
  const double ns = double(rows * J) * (double(depth * n) * (0.2 / V) + double(n) * 2) + 100;
  const Finish finish(t);
  s.parallel(t.B * blocks, ns, [&](int64_t unit, char* scratch) {
    const int64_t block = unit % blocks, b = unit / blocks, i0 = t.grid.I * block / blocks, i1 = t.grid.I * (block + 1) / blocks;
    const Epilogue& e = t.epilogue;
    if (sliding) {
      slide_rows(finish, b, i0, i1);
    } else {
      float* sums = aligned(scratch);  // [n][J] of a row
      Rows from{t.src, 0, 0};
      if (depth) from = rows_under(t, b, 0, i0, i1, outside, sums + (n * J + 15) / 16 * 16);
      Window d{depth ? h.count : 0, h.step * from.line, w.count, w.step * from.ld, sc};
      if (d.run == sc) d.length *= d.runs, d.runs = 1;
      for (int64_t i = i0; i < i1; i++) {
        const float* x = from.a + (i - i0) * h.mul * from.line;
        for (int64_t f = 0; f < n; f++) dot_row(d, x, w.mul * from.ld, t.packed + f * depth, J, sums + f * J);
        const int64_t place = t.place(b, i, 0);
        finish.row(sums, J, J, t.dst + place * t.ld_dst, place);
      }
    }
    if (e.simple) return;
    if (whole) {
      const int64_t place = t.place(b, i0, 0);
      return apply_epilogue(e, t.dst + place * t.ld_dst, t.ld_dst, place, 0, (i1 - i0) * J, n);
    }
    for (int64_t i = i0; i < i1; i++)
      for (int64_t j = 0; j < J; j++) {
        const int64_t place = t.place(b, i, j);
        apply_epilogue(e, t.dst + place * t.ld_dst, t.ld_dst, place, 0, 1, n);
      }
  });
}

}  // namespace dagrt::DAGRT_ISA
