// Winograd convolution of small maps, 3x3 by tiles of 7 x 7 = (4 + 3)²: weights are transformed on the way.
//
// Transformed weights, 36 for every 9, come from memory where a map has so few pixels that nothing else waits for them. Here
// the weights themselves do, in the order in which they are read, and are transformed in registers. The points of F(3,3) are
// those of F(4,3) without infinity: the four tiles of 7 x 7 pixels, 4 x 4, 4 x 3, 3 x 4 and 3 x 3, share them, and take 11²
// products. The scales of G are in V.
//   U[vector of filters][channel][tap][V], scaled
//   V[tile][row of points][vector of channels][point][channel] = B' d B, in a row: 6 points of the tile on the left and 5 of that
//   on the right, above, and as many below; the last row has those above alone
// A unit of work is a vector of filters of a tile: of a slice of channels, whose weights stay in L1, row by row of points, with the
// row's sums in registers.
#include "kernels/cpu/winograd_seven.h"

#include "kernels/cpu/epilogue.h"
#include "kernels/cpu/winograd_tiles.h"

namespace dagrt::DAGRT_ISA {
namespace {

constexpr int n = 6, R = 3, taps = R * R, line = 11, row_sums = 2 * line, sums = 5 * row_sums + line;
constexpr int64_t slice = 32 / V * V;  // channels: a multiple of V
using Left = WinogradTransform<4, R>;

// Weights are multiplied by p^(row + column) of their tap beforehand: the points are 0, +-1, +-2 and infinity then, whose powers
// are sums.
constexpr float p = Left::table.p[0];
static_assert(Left::table.p[1] == 2 * p, "points p and 2 p");
constexpr float power(int i) { return i == 0 ? 1 : p * power(i - 1); }
constexpr float scale(int point) {
  return point == 5 ? 1 / (p * p) : point == 0 ? Left::table.scale[2] : Left::table.scale[(point - 1) / 2];
}

/// What is added for `count` channels to the sums of row `row` of points. `next`: weights to be read after the slice's, of which
/// this row's share is fetched.
template <int row> void add(int64_t count, const float* v, const float* u, const float* next, float* to, bool accumulate) {
  constexpr int tiles = row == 5 ? 1 : 2;
  vf sum[tiles * line];
#pragma GCC unroll 22
  for (int i = 0; i < tiles * line; i++) sum[i] = accumulate ? load(to + i * V) : vf{};
  for (int64_t c = 0; c < count; c += V, v += tiles * line * V) {
    const int lanes = int(least(V, count - c));
    for (int l = 0; l < lanes; l++, u += taps * V, next += taps * V) {
#pragma GCC unroll 2
      for (int i = row * taps / n; i < (row + 1) * taps / n; i++) __builtin_prefetch(next + i * V, 0, 2);
      const float* at = v + l;
      vf t[R];
#pragma GCC unroll 3
      for (int s = 0; s < R; s++) {
        auto g = [&](int r) __attribute__((always_inline)) { return load(u + (r * R + s) * V); };
        if (row == 0) t[s] = g(0);
        if (row == 1) t[s] = g(0) + g(2) + g(1);
        if (row == 2) t[s] = g(0) + g(2) - g(1);
        if (row == 3) t[s] = g(0) + 2.0f * (g(1) + 2.0f * g(2));
        if (row == 4) t[s] = g(0) - 2.0f * (g(1) - 2.0f * g(2));
        if (row == 5) t[s] = g(2);
      }
      auto products = [&](int point, vf w) __attribute__((always_inline)) {
#pragma GCC unroll 2
        for (int i = 0; i < tiles; i++) {
          sum[i * line + point] += splat(at[(i * line + point) * V]) * w;
          if (point < 5) sum[i * line + n + point] += splat(at[(i * line + n + point) * V]) * w;
        }
      };
      products(0, t[0]);
      products(5, t[2]);
      const vf even = t[0] + t[2];
      products(1, even + t[1]);
      products(2, even - t[1]);
      vf far = t[0] + 4.0f * t[2], twice = t[1] + t[1];
      keep(twice);  // sums beside the multiply-adds
      products(3, far + twice);
      products(4, far - twice);
    }
  }
#pragma GCC unroll 22
  for (int i = 0; i < tiles * line; i++) store(to + i * V, sum[i]);
}

using Add = void (*)(int64_t, const float*, const float*, const float*, float*, bool);
constexpr Add add_row[n] = {add<0>, add<1>, add<2>, add<3>, add<4>, add<5>};

struct Seven {
  const WinogradArgs& a;
  const WinogradSevenPlan& plan;

  /// x of rows from `h` and columns from `w` on, for a tile of MH x MW.
  template <int MH, int MW> void transform(const float* image, int64_t h, int64_t w, const float* zeros, float* v) const {
    using TH = WinogradTransform<MH, R>;
    using TW = WinogradTransform<MW, R>;
    constexpr int first = (MH == 3) * line + (MW == 3) * n;
    const float* px[TH::n][TW::n];
    for (int r = 0; r < TH::n; r++)
      for (int s = 0; s < TW::n; s++) {
        const int64_t i = h + r, j = w + s;
        const bool inside = i >= 0 && i < a.H && j >= 0 && j < a.W;
        px[r][s] = inside ? image + (i / a.up_h * (a.W / a.up_w) + j / a.up_w) * a.ldx : zeros;
      }
    each_vector(a.C, [&](int64_t c, int lanes) {
      transform_input<TH, TW, false, false>(px[0], TW::n, c, lanes, [&](int r, int s, vf value) __attribute__((always_inline)) {
        const int64_t block = c / V * (r == 5 ? line : row_sums) + first + s;
        store(v + r * plan.v_row + block * V, scale(r) * scale(s) * value);
      });
    });
  }

  /// y of a tile of MH x MW of the map, which begins at row h and column w, and of a vector of filters.
  template <int MH, int MW> void deliver(const float* m, int64_t image, int64_t h, int64_t w, int64_t f, int filters) const {
    using TH = WinogradTransform<MH, R>;
    using TW = WinogradTransform<MW, R>;
    const int64_t rows = least(MH, a.P - h), columns = least(MW, a.Q - w);
    if (rows <= 0 || columns <= 0) return;
    m += ((MH == 3) * line + (MW == 3) * n) * V;
    vf t[MH][TW::n];
    for (int s = 0; s < TW::n; s++) {
      vf d[TH::n], out[MH];
#pragma GCC unroll 8
      for (int r = 0; r < TH::n; r++) d[r] = load(m + (r * row_sums + s) * V);
      TH::template interpolate<MH, false>(d, out);
#pragma GCC unroll 8
      for (int r = 0; r < MH; r++) t[r][s] = out[r];
    }
    const SimpleEpilogue e = finishing(a.epilogue);
    for (int64_t i = 0; i < rows; i++) {
      vf out[MW];
      TW::template interpolate<MW, false>(t[i], out);
      const int64_t pixel = (image * a.P + h + i) * a.Q + w;
#pragma GCC unroll 4
      for (int j = 0; j < MW; j++)
        if (j < columns) store_n(a.y + (pixel + j) * a.ldy + f, finish(e, out[j], pixel + j, f, filters), filters);
      if (!finishes(a.epilogue)) apply_epilogue(a.epilogue, a.y + pixel * a.ldy + f, a.ldy, pixel, f, columns, filters);
    }
  }

  void operator()(const Stream& s) const {
    const int64_t blocks = (a.C + V - 1) / V, zeros = blocks * V;
    float* v = aligned(a.workspace);
    s.parallel(4 * plan.tiles, double(n * n) * double(a.C) * (3.0 / V), [&](int64_t unit, char* scratch) {
      float* none = aligned(scratch);
      zero(none, zeros);
      const TilePlace t = place(unit / 4, plan.tiles_h, plan.tiles_w);
      const float* image = a.x + t.image * (a.H / a.up_h) * (a.W / a.up_w) * a.ldx;
      const int64_t h = 7 * t.row - a.pad_top, w = 7 * t.column - a.pad_left;
      float* to = v + unit / 4 * plan.v_size;
      switch (unit % 4) {
        case 0: return transform<4, 4>(image, h, w, none, to);
        case 1: return transform<4, 3>(image, h, w + 4, none, to);
        case 2: return transform<3, 4>(image, h + 4, w, none, to);
        default: return transform<3, 3>(image, h + 4, w + 4, none, to);
      }
    });
    const int64_t vectors = (a.F + V - 1) / V;
    s.parallel(vectors * plan.tiles, double(a.C) * double(sums + 60) * multiply_ns(), [&](int64_t unit, char*) {
      alignas(64) float m[sums * V];
      const int64_t tile = unit % plan.tiles, f = unit / plan.tiles * V;
      const float *u = a.u + f * a.C * taps, *from = v + tile * plan.v_size;
      const float* after = tile + 1 == plan.tiles && f + V < a.F ? u + a.C * taps * V : u;
      for (int64_t c = 0; c == 0 || c < a.C; c += slice) {
        const int64_t count = least(slice, a.C - c);
        const float* w = u + c * taps * V;
        const float* next = c + slice < a.C ? w + slice * taps * V : after;
        for (int row = 0; row < n; row++)
          add_row[row](count, from + row * plan.v_row + c * (row == 5 ? line : row_sums), w, next, m + row * row_sums * V, c > 0);
      }
      const TilePlace t = place(tile, plan.tiles_h, plan.tiles_w);
      const int filters = int(least(V, a.F - f));
      const int64_t h = 7 * t.row, q = 7 * t.column;
      deliver<4, 4>(m, t.image, h, q, f, filters);
      deliver<4, 3>(m, t.image, h, q + 4, f, filters);
      deliver<3, 4>(m, t.image, h + 4, q, f, filters);
      deliver<3, 3>(m, t.image, h + 4, q + 4, f, filters);
    });
  }
};

}  // namespace

void winograd_seven_weights(const WinogradWeightsArgs& a, const Stream& s) {
  const int64_t C = a.transpose ? a.F : a.C, F = a.transpose ? a.C : a.F;  // of the convolution to come
  const int64_t vectors = (F + winograd_filters - 1) / winograd_filters * winograd_filters / V;
  // Rows of w are read in runs: of filters, or, turned, of as many channels of V filters as stay in cache until all taps are there.
  const int64_t deep = a.transpose ? 8 * V : 1, wide = a.transpose ? 1 : 64;
  const int64_t c_shares = (C + deep - 1) / deep, f_shares = (vectors + wide - 1) / wide;
  s.parallel(c_shares * f_shares, double(deep * wide * taps), [&](int64_t unit, char*) {
    const int64_t c0 = unit % c_shares * deep, c1 = least(c0 + deep, C);
    const int64_t f0 = unit / c_shares * wide * V, f1 = least(f0 + wide * V, vectors * V);
    if (!a.transpose) {
      for (int64_t c = c0; c < c1; c++)
        for (int64_t f = f0; f < f1; f += V) {
          const int filters = F > f ? int(least(V, F - f)) : 0;
          float* u = a.u + (f * C + c * V) * taps;
#pragma GCC unroll 9
          for (int tap = 0; tap < taps; tap++)
            store(u + tap * V, filters ? power(tap / R + tap % R) * load_n(a.w + (tap * C + c) * F + f, filters) : vf{});
        }
      return;
    }
    const int filters = F > f0 ? int(least(V, F - f0)) : 0;
    for (int tap = 0; tap < taps; tap++)
      for (int64_t c = c0; c < c1; c += V) {
        const float* w = a.w + ((taps - 1 - tap) * F + f0) * C + c;
        const int lanes = int(least(V, c1 - c));
        float* u = a.u + (f0 * C + c * V) * taps + tap * V;
        vf t[V];
#pragma GCC unroll 16
        for (int i = 0; i < V; i++) t[i] = i < filters ? load_n(w + i * C, lanes) : vf{};
        transpose_lanes(t);
        for (int i = 0; i < lanes; i++) store(u + i * taps * V, power(tap / R + tap % R) * t[i]);
      }
  });
}

void conv2d_winograd_seven(const WinogradArgs& a, const Stream& s) {
  const WinogradSevenPlan p = winograd_seven_plan(a, V);
  if (!p.tiles || !a.F) return;
  Seven{a, p}(s);
}

}  // namespace dagrt::DAGRT_ISA
