// Winograd convolution: y = A' [ sum_c (G g G') . (B' d B) ] A for each tile of outputs (matrices: winograd_transform.h).
//
// Tiles are worked on in blocks, a block in three steps that pass their results through cache:
//   1. V[point][group of tiles][C/V][MR][V] = B' d B, from pixels in place; outside of the image they are zero
//   2. M[point][tile][strip of filters]     = V[point] U[point], a product for each point; register tiles of MR tiles x 2 V
//   3. y                                    = A' M A, with bias, residual and activation, stored where it belongs
// Steps 2 and 3 run strip by strip, so that M stays in L2. Where there are few blocks, step 1 is done for all of them
// first and strips are claimed by threads, else blocks are.
// Few channels and filters: all of U stays in L2, and the ways of V and M through it would take as long as the products. A
// block is one register tile then, and M the products of a row of points, which the first half of step 3 takes from L1.
// Weights: U[F/NR][point][C + 1][NR], panels of the register tile's width; the last row is only distance. Of a last panel whose
// filters fill no more than half of it that half alone is multiplied. Tiles of 7 x 7: winograd_seven.cpp.
#include "kernels/cpu/epilogue.h"
#include "kernels/cpu/winograd_seven.h"
#include "kernels/cpu/winograd_tiles.h"

namespace dagrt::DAGRT_ISA {
namespace {

constexpr int MR = winograd_rows(V), NR = 2 * V;
constexpr int64_t slice = 256;  // channels: their weights stay in L1 for all groups of a block
// The cache that weights to come are fetched to, as a prefetch names it: a slice of wide panels fills L1 by itself.
constexpr int near = V == 16 ? 2 : 3;

/// `rows` tiles x `halves` vectors of filters at one point, over `depth` channels. `next`: the weights that will be read after
/// these.
template <int rows, int halves>
void product(int64_t depth, const float* v, const float* u, float* m, int64_t ldm, const float* next, bool accumulate) {
  vf acc[rows][halves] = {};
  auto step = [&](const float* vk, const float* uk) __attribute__((always_inline)) {
    vf b[halves];
#pragma GCC unroll 2
    for (int h = 0; h < halves; h++) b[h] = load(uk + h * V);
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
      vf a = splat(vk[i * V]);
#pragma GCC unroll 2
      for (int h = 0; h < halves; h++) acc[i][h] += a * b[h];
    }
  };
  int64_t c = 0;
  for (; c + V <= depth; c += V, v += MR * V, u += V * NR, next += V * NR) {
#pragma GCC unroll 16
    for (int l = 0; l < V; l++) {
#pragma GCC unroll 2
      for (int i = 0; i < NR; i += 16) __builtin_prefetch(next + l * NR + i, 0, near);
      step(v + l, u + l * NR);
    }
  }
  for (; c < depth; c++, v++, u += NR) step(v, u);
#pragma GCC unroll 16
  for (int i = 0; i < rows; i++) {
    float* row = m + i * ldm;
#pragma GCC unroll 2
    for (int h = 0; h < halves; h++) store(row + h * V, accumulate ? acc[i][h] + load(row + h * V) : acc[i][h]);
  }
}

using Product = void (*)(int64_t, const float*, const float*, float*, int64_t, const float*, bool);
template <int halves> struct Products {
  static constexpr Product of[15] = {
      nullptr,
      product<1, halves>,
      product<2, halves>,
      product<3, halves>,
      product<4, halves>,
#if DAGRT_V >= 8
      product<5, halves>,
      product<6, halves>,
#endif
#if DAGRT_V == 16
      product<7, halves>,
      product<8, halves>,
      product<9, halves>,
      product<10, halves>,
      product<11, halves>,
      product<12, halves>,
      product<13, halves>,
      product<14, halves>,
#endif
  };
};

struct Run {  // tiles [from, to), in balanced groups
  int64_t from, to, groups;
  int64_t group(int64_t g) const { return from + (to - from) * g / groups; }
};

template <int M, int R> struct Winograd {
  using T = WinogradTransform<M, R>;
  static constexpr int n = T::n, points = n * n;
  const WinogradArgs& a;
  const WinogradPlan& p;

  /// Vectors of filters in a panel.
  int halves(int64_t panel) const { return a.F - panel * NR <= V ? 1 : 2; }
  const Product* products(int64_t panel) const { return halves(panel) == 1 ? Products<1>::of : Products<2>::of; }

  Run block(int64_t b) const {
    Run r{p.tiles * b / p.blocks, p.tiles * (b + 1) / p.blocks, 0};
    r.groups = (r.to - r.from + MR - 1) / MR;
    return r;
  }

  using Pixels = const float* [MR][points];

  void find(int64_t from, int64_t to, const float* zeros, Pixels& px) const {
    for (int64_t i = 0; i < to - from; i++) {
      const TilePlace t = place(from + i, p.tiles_h, p.tiles_w);
      const float* image = a.x + t.image * (a.H / a.up_h) * (a.W / a.up_w) * a.ldx;
      const int64_t h = t.row * M - a.pad_top, w = t.column * M - a.pad_left;
      if (a.up_h == 1 && a.up_w == 1)
        pixels<n>(image, a.H, a.W, a.ldx, h, w, zeros, px[i]);
      else
        repeated(image, h, w, zeros, px[i]);
    }
  }

  /// As `pixels`, of an image whose pixels stand for several.
  void repeated(const float* image, int64_t h, int64_t w, const float* zeros, const float** px) const {
    int64_t at[n];  // of the columns, -1: outside
    for (int s = 0; s < n; s++) at[s] = w + s >= 0 && w + s < a.W ? (w + s) / a.up_w * a.ldx : -1;
    for (int r = 0; r < n; r++, h++) {
      const bool inside = h >= 0 && h < a.H;
      const float* row = inside ? image + h / a.up_h * (a.W / a.up_w) * a.ldx : nullptr;
      for (int s = 0; s < n; s++) *px++ = inside && at[s] >= 0 ? row + at[s] : zeros;
    }
  }

  /// Step 1: one group of tiles, channels [c0, c1). `ahead`: the pixels wanted next, null where they are near anyway.
  void transform(const Pixels& px, int64_t rows, int64_t c0, int64_t c1, const Pixels* ahead, float* v) const {
    for (int64_t c = c0; c < c1; c += 2 * V)
      for (int64_t i = 0; i < rows; i++) {
        if (ahead) fetch<n, n - M, n>((*ahead)[i], 0, c / (2 * V), (c1 + 2 * V - 1) / (2 * V), c1);
        for (int64_t k = c; k < c + 2 * V && k < c1; k += V) {
          float* to = v + (k / V * MR + i) * V;
          if (k + V <= a.C)
            transform_input<T, true>(px[i], k, V, to, p.v_point);
          else
            transform_input<T, false>(px[i], k, int(a.C - k), to, p.v_point);
        }
      }
  }

  /// Step 1 of a block.
  void transform(const Run& run, const float* zeros, float* v) const {
    Pixels px[2];
    const int64_t step = p.channel_blocks * MR * V;
    find(run.from, run.group(1), zeros, px[0]);
    for (int64_t g = 0; g < run.groups; g++) {
      const int64_t from = run.group(g), to = run.group(g + 1);
      const int64_t end = g + 1 < run.groups ? run.group(g + 2) : least(2 * to - from, p.tiles);
      find(to, end, zeros, px[(g + 1) % 2]);
      transform(px[g % 2], to - from, 0, a.C, p.far && end - to >= to - from ? &px[(g + 1) % 2] : nullptr, v + g * step);
    }
  }

  /// Step 2: a run of tiles, panels [first, last). Lines of y that step 3 will write are asked for meanwhile where y is large.
  void multiply(const Run& run, int64_t first, int64_t last, const float* v, float* m) const {
    const int64_t u_point = (a.C + 1) * NR, ldm = p.strip * NR;
    float* y[MR * (winograd_groups(V) + 1)];
    if (p.far_y)
      for (int64_t i = run.from; i < run.to; i++) y[i - run.from] = a.y + first_pixel(place(i, p.tiles_h, p.tiles_w)) * a.ldy;
    for (int64_t at = 0; at < points; at++)
      for (int64_t panel = first; panel < last; panel++) {
        const float* u = a.u + (panel * points + at) * u_point;
        const float* after = panel + 1 < last ? u + points * u_point : a.u + (first * points + (at + 1) % points) * u_point;
        for (int64_t c = 0; c == 0 || c < a.C; c += slice) {
          const int64_t depth = least(slice, a.C - c);
          const float* next = c + slice < a.C ? u + (c + slice) * NR : after;
          for (int64_t g = 0; g < run.groups; g++) {
            const int64_t from = run.group(g), to = run.group(g + 1);
            if (p.far_y && at < M * M && c == 0) {  // the tiles' pixel number `at`
              const int64_t pixel = (at / M * a.Q + at % M) * a.ldy + panel * NR;
              for (int64_t i = from; i < to; i++)
                for (int k = 0; k < NR; k += 16) __builtin_prefetch(y[i - run.from] + pixel + k, 1, 2);
            }
            products(panel)[to - from](depth, v + at * p.v_point + (g * p.channel_blocks * V + c) * MR, u + c * NR,
                                       m + at * p.m_point + (from - run.from) * ldm + (panel - first) * NR, ldm, next, c > 0);
          }
        }
      }
  }

  template <bool full> static DAGRT_INLINE void put(float* to, vf value, int filters) {
    if (full)
      store(to, value);
    else
      store_n(to, value, filters);
  }

  /// The number of a tile's first pixel in y.
  int64_t first_pixel(const TilePlace& t) const {
    return (t.image * (a.P / a.pool) + t.row * M / a.pool) * (a.Q / a.pool) + t.column * M / a.pool;
  }

  /// Step 3: one tile, whose first pixel is number `pixel` of y, and one vector of filters.
  template <bool full>
  DAGRT_INLINE void deliver(const float* m, int64_t pixel, int64_t f, int filters, int64_t rows, int64_t columns) const {
    vf t[M][n];
#pragma GCC unroll 1
    for (int c = 0; c < n; c++) {
      vf d[n], r[M];
#pragma GCC unroll 8
      for (int i = 0; i < n; i++) d[i] = load(m + (i * n + c) * p.m_point);
      T::template interpolate<M, false>(d, r);
#pragma GCC unroll 8
      for (int i = 0; i < M; i++) t[i][c] = r[i];
    }
    const SimpleEpilogue e = finishing(a.epilogue);
    if (a.pool > 1) {
      vf above[M / 2] = {};
#pragma GCC unroll 1
      for (int64_t i = 0; i < rows; i++) {
        vf r[M];
        T::template interpolate<M, false>(t[i], r);
#pragma GCC unroll 8
        for (int j = 0; j < M; j++) r[j] = finish(e, r[j], 0, f, full ? V : filters);
        float* to = a.y + (pixel + i / 2 * (a.Q / 2)) * a.ldy + f;
#pragma GCC unroll 4
        for (int j = 0; j < M / 2; j++, to += a.ldy) {
          const vf pair = vmax(r[2 * j + 1], r[2 * j]);
          if (i % 2 == 0)
            above[j] = pair;
          else if (2 * j < columns)
            put<full>(to, vmax(pair, above[j]), filters);
        }
      }
      return;
    }
    const bool plain = e.empty();
#pragma GCC unroll 1
    for (int64_t i = 0; i < rows; i++, pixel += a.Q) {
      vf r[M];
      T::template interpolate<M, false>(t[i], r);
#pragma GCC unroll 8
      for (int j = 0; j < M; j++) {
        if (j >= columns) break;
        const vf value = plain ? r[j] : finish(e, r[j], pixel + j, f, full ? V : filters);
        put<full>(a.y + (pixel + j) * a.ldy + f, value, filters);
      }
    }
  }

  void deliver(const Run& run, int64_t first, int64_t last, const float* m) const {
    const int64_t from = first * NR, end = least(last * NR, a.F);
    for (int64_t tile = run.from; tile < run.to; tile++, m += p.strip * NR) {
      const TilePlace t = place(tile, p.tiles_h, p.tiles_w);
      const int64_t pixel = first_pixel(t);
      const int64_t rows = least(M, a.P - t.row * M), columns = least(M, a.Q - t.column * M);
      for (int64_t f = from; f < end; f += V)
        if (f + V <= a.F)
          deliver<true>(m + f - from, pixel, f, V, rows, columns);
        else
          deliver<false>(m + f - from, pixel, f, int(a.F - f), rows, columns);
      if (!finishes(a.epilogue))
        for (int64_t i = 0, at = pixel; i < rows; i++, at += a.Q)
          apply_epilogue(a.epilogue, a.y + at * a.ldy + from, a.ldy, at, from, columns, end - from);
    }
  }

  /// Steps 2 and 3 of a block of one group, panel by panel. After a row of points: t[tile][half][column][row] = M A.
  void multiply_and_deliver(const Run& run, const float* v, float* m) const {
    const int64_t u_point = (a.C + 1) * NR, tiles = run.to - run.from;
    const SimpleEpilogue e = finishing(a.epilogue);
    float* t = m + n * MR * NR;
    TilePlace places[MR];
    for (int64_t i = 0; i < tiles; i++) places[i] = place(run.from + i, p.tiles_h, p.tiles_w);
    for (int64_t panel = 0; panel < p.panels; panel++) {
      const float* u = a.u + panel * points * u_point;
      for (int r = 0; r < n; r++) {
        for (int s = 0; s < n; s++, u += u_point)
          products(panel)[tiles](a.C, v + (r * n + s) * p.v_point, u, m + s * MR * NR, NR, u + u_point, false);
        for (int64_t i = 0; i < 2 * tiles; i += 3 - halves(panel)) {
          vf d[n], out[M];
#pragma GCC unroll 8
          for (int s = 0; s < n; s++) d[s] = load(m + s * MR * NR + i * V);
          T::template interpolate<M, false>(d, out);
#pragma GCC unroll 8
          for (int j = 0; j < M; j++) store(t + ((i * M + j) * n + r) * V, out[j]);
        }
      }
      const int64_t first = panel * NR, end = least(first + NR, a.F);
      for (int64_t i = 0; i < tiles; i++) {
        const int64_t pixel = first_pixel(places[i]);
        const int64_t rows = least(M, a.P - places[i].row * M), columns = least(M, a.Q - places[i].column * M);
        for (int64_t f = first; f < end; f += V) {
          const float* from = t + (2 * i + (f - first) / V) * M * n * V;
          if (f + V <= a.F)
            finish_columns<true>(e, from, pixel, f, V, rows, columns);
          else
            finish_columns<false>(e, from, pixel, f, int(a.F - f), rows, columns);
        }
        if (!finishes(a.epilogue))
          for (int64_t r = 0, at = pixel; r < rows; r++, at += a.Q)
            apply_epilogue(a.epilogue, a.y + at * a.ldy + first, a.ldy, at, first, columns, end - first);
      }
    }
  }

  /// The other half of step 3: A' t for the columns of one tile and one vector of filters.
  template <bool full>
  DAGRT_INLINE void finish_columns(const SimpleEpilogue& e, const float* t, int64_t pixel, int64_t f, int filters, int64_t rows,
                                   int64_t columns) const {
    const vf bias = !e.bias ? vf{} : full ? load(e.bias + f) : load_n(e.bias + f, filters);
    const int64_t down = a.Q / a.pool * a.ldy;
    float* y = a.y + pixel * a.ldy + f;
    vf before[M / 2] = {};  // pooling: the column on the left
#pragma GCC unroll 1
    for (int64_t j = 0; j < columns; j++, pixel++, t += n * V) {
      vf d[n], r[M];
#pragma GCC unroll 8
      for (int i = 0; i < n; i++) d[i] = load(t + i * V);
      T::template interpolate<M, false>(d, r);
      if (e.bias)
#pragma GCC unroll 8
        for (int i = 0; i < M; i++) r[i] += bias;
      if (e.residual)
        for (int i = 0; i < M && i < rows; i++) {
          const float* at = e.residual + (pixel + i * a.Q) * e.ld_residual + f;
          r[i] += full ? load(at) : load_n(at, filters);
        }
      if (e.mask)
        for (int i = 0; i < M && i < rows; i++) {
          const float* at = e.mask + (pixel + i * a.Q) * e.ld_mask + f;
          r[i] = masked(e, full ? load(at) : load_n(at, filters), r[i]);
        }
      if (e.relu || e.round)
#pragma GCC unroll 8
        for (int i = 0; i < M; i++) r[i] = activate(e, r[i]);
      if (a.pool > 1) {
#pragma GCC unroll 4
        for (int i = 0; i < M / 2; i++)
          if (j % 2 == 0)
            before[i] = vmax(r[2 * i + 1], r[2 * i]);
          else if (2 * i < rows)
            put<full>(y + i * down, vmax(vmax(r[2 * i + 1], r[2 * i]), before[i]), filters);
        y += j % 2 * a.ldy;
        continue;
      }
#pragma GCC unroll 8
      for (int i = 0; i < M; i++) {
        if (i >= rows) break;
        put<full>(y + i * down, r[i], filters);
      }
      y += a.ldy;
    }
  }

  void strip(const Run& run, int64_t s, const float* v, float* m) const {
    const int64_t first = s * p.strip, last = least(first + p.strip, p.panels);
    multiply(run, first, last, v, m);
    deliver(run, first, last, m);
  }

  void operator()(const Stream& s) const {
    const int64_t zeros = p.channel_blocks * V;
    const double filters = double((a.F + V - 1) / V * V) / double(p.panels);
    const double product_ns =
        double(points) * double(a.C) * filters * (multiply_ns() / V) + filters * 4;  // of a tile and a panel
    if (!p.shared) {
      s.parallel(p.blocks, double(p.block) * (double(p.panels) * product_ns + double(a.C) * 4), [&](int64_t b, char* scratch) {
        float* none = aligned(scratch);
        float *m = none + zeros, *v = m + p.m_size;
        zero(none, zeros);
        const Run run = block(b);
        transform(run, none, v);
        if (p.small) return multiply_and_deliver(run, v, m);
        for (int64_t k = 0; k < p.strips; k++) strip(run, k, v, m);
      });
      return;
    }
    float* v = aligned(a.workspace);
    const int64_t share = 16 * V, shares = (a.C + share - 1) / share;
    s.parallel(p.blocks * p.v_groups * shares, double(MR) * double(share) * 4, [&](int64_t unit, char* scratch) {
      float* none = aligned(scratch);
      zero(none, zeros);
      const int64_t c = unit % shares * share, g = unit / shares % p.v_groups, b = unit / shares / p.v_groups;
      const Run run = block(b);
      if (g >= run.groups) return;
      Pixels px;
      find(run.group(g), run.group(g + 1), none, px);
      transform(px, run.group(g + 1) - run.group(g), c, least(c + share, a.C), nullptr,
                v + b * p.v_size + g * p.channel_blocks * MR * V);
    });
    s.parallel(p.strips * p.blocks, double(p.block) * double(p.strip) * product_ns, [&](int64_t unit, char* scratch) {
      const int64_t b = unit % p.blocks, k = unit / p.blocks;  // a strip's weights serve all blocks while they are in cache
      strip(block(b), k, v + b * p.v_size, aligned(scratch) + zeros);
    });
  }
};

/// U = G g G' of one channel and V filters, to the points of u.
template <int M, int R> DAGRT_INLINE void transform_weights(const vf (&g)[R * R], float* u, int64_t u_point) {
  using T = WinogradTransform<M, R>;
  constexpr int n = T::n;
  vf t[R][n];
#pragma GCC unroll 1
  for (int r = 0; r < R; r++) {
    vf d[R];
#pragma GCC unroll 8
    for (int s = 0; s < R; s++) d[s] = g[r * R + s];
    T::template evaluate<R, true>(d, t[r]);
  }
#pragma GCC unroll 1
  for (int c = 0; c < n; c++) {
    vf d[R], out[n];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) d[r] = t[r][c];
    T::template evaluate<R, true>(d, out);
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) store(u + (i * n + c) * u_point, out[i]);
  }
}

template <int M, int R> void weights(const WinogradWeightsArgs& a, const Stream& s) {
  constexpr int n = M + R - 1, points = n * n;
  const int64_t C = a.transpose ? a.F : a.C, F = a.transpose ? a.C : a.F;  // of the convolution to come
  const int64_t u_point = (C + 1) * NR, halves = (F + winograd_filters - 1) / winograd_filters * winograd_filters / V;
  const int64_t shares = (C + V) / V;  // of V channels; the row behind the last channel is zero
  s.parallel(halves * shares, V * double(points) * 2, [&](int64_t unit, char*) {
    const int64_t f = unit / shares * V, c = unit % shares * V;
    const int filters = int(least(V, F - f)), deep = int(least(V, C - c)), rows = int(least(V, C + 1 - c));
    float* u = a.u + f / NR * points * u_point + c * NR + f % NR;
    vf g[V][R * R];
    if (a.transpose && filters > 0 && deep > 0)
      for (int tap = 0; tap < R * R; tap++) {
        const float* w = a.w + ((R * R - 1 - tap) * a.C + f) * a.F + c;
        vf t[V];
#pragma GCC unroll 16
        for (int i = 0; i < V; i++) t[i] = i < filters ? load_n(w + i * a.F, deep) : vf{};
        transpose_lanes(t);
#pragma GCC unroll 16
        for (int i = 0; i < V; i++) g[i][tap] = t[i];
      }
    for (int k = 0; k < rows; k++) {
      if (k >= deep || filters <= 0)
        for (int tap = 0; tap < R * R; tap++) g[k][tap] = vf{};
      else if (!a.transpose)
        for (int tap = 0; tap < R * R; tap++) g[k][tap] = load_n(a.w + (tap * a.C + c + k) * a.F + f, filters);
      transform_weights<M, R>(g[k], u + k * NR, u_point);
    }
  });
}

}  // namespace

void winograd_weights(const WinogradWeightsArgs& a, const Stream& s) {
  if (a.window == 5) return weights<4, 5>(a, s);
  if (a.window == 4) return weights<4, 4>(a, s);
  if (a.tile == 7) return winograd_seven_weights(a, s);
  if (a.tile == 2) return weights<2, 3>(a, s);
  weights<4, 3>(a, s);
}

void conv2d_winograd(const WinogradArgs& a, const Stream& s) {
  if (a.tile == 7) return conv2d_winograd_seven(a, s);
  const WinogradPlan p = winograd_plan(a, V);
  if (!p.tiles || !a.F) return;
  if (a.window == 5) return Winograd<4, 5>{a, p}(s);
  if (a.window == 4) return Winograd<4, 4>{a, p}(s);
  if (a.tile == 2) return Winograd<2, 3>{a, p}(s);
  Winograd<4, 3>{a, p}(s);
}

}  // namespace dagrt::DAGRT_ISA
