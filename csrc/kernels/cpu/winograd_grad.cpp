// Winograd filter gradient: dw = G' [ sum over tiles (B' d B) . (A dy A') ] G (matrices: winograd_transform.h).
//
// Tiles are taken in chunks, one after another. Of a chunk, all threads first transform the tiles,
//   V[block of channels][point][tile][VW] = B' d B,  Y[panel of filters][point][tile][YW] = A dy A',
// so that products over tiles read them in order, and then add the chunk's products to
//   dU[block][panel][point][VW][YW] += V[block][point]' Y[panel][point].
// Behind the last chunk a thread that has a block and a panel at all points makes dw of them while they are in its L2; where one
// chunk does, dU is never more than that.
// Chunks are long enough for the passes over dU to be cheap, and short enough for V and Y to stay in cache beside dU; of many
// filters, groups are taken one after another, V made anew for each, so that dU does too: beyond the caches, writing the n² streams
// of V, Y and dU took longer than the products.
// A small dU a thread keeps in its own L2: then the tiles are in 4 or 8 parts, each with a dU of its own, added up at the end by halves
// of the parts, and no thread waits for another's transforms. The order of sums depends on the sizes alone.
// 3x3 gradients of few tiles go another way (winograd_grad_mixed.cpp).
#include "kernels/cpu/winograd_grad.h"

#include "kernels/cpu/winograd_tiles.h"

namespace dagrt::DAGRT_ISA {
namespace {

template <int M, int R> struct FilterGrad {
  using T = WinogradTransform<M, R>;
  static constexpr int n = T::n, points = n * n, most = 4;  // tiles of a unit
  const WinogradArgs& a;
  const WinogradGradPlan& p;

  void transform_x(int64_t tile, int64_t at, const float* zeros, float* v) const {
    const TilePlace t = place(tile, p.tiles_h, p.tiles_w);
    const float* px[points];
    pixels<n>(a.x + t.image * a.H * a.W * a.ldx, a.H, a.W, a.ldx, t.row * M - a.pad_top, t.column * M - a.pad_left, zeros, px);
    for (int64_t c = 0; c < a.C; c += V) {
      float* to = v + c / p.v_width * p.v_block + at * p.v_width + c % p.v_width;
      if (p.far) fetch<n, n - M, n>(px, M * a.ldx, c / V, (a.C + V - 1) / V, a.C);
      if (c + V <= a.C)
        transform_input<T, true>(px, c, V, to, p.v_point);
      else
        transform_input<T, false>(px, c, int(a.C - c), to, p.v_point);
    }
  }

  template <bool full> static DAGRT_INLINE void spread(const float* const* px, int64_t f, int lanes, float* y, int64_t y_point) {
    vf t[M][n];
#pragma GCC unroll 1
    for (int r = 0; r < M; r++) {
      vf d[M];
#pragma GCC unroll 8
      for (int s = 0; s < M; s++) d[s] = full ? load(px[r * M + s] + f) : load_n(px[r * M + s] + f, lanes);
      T::template evaluate<M, false>(d, t[r]);
    }
#pragma GCC unroll 1
    for (int s = 0; s < n; s++, y += y_point) {
      vf d[M], out[n];
#pragma GCC unroll 8
      for (int r = 0; r < M; r++) d[r] = t[r][s];
      T::template evaluate<M, false>(d, out);
#pragma GCC unroll 8
      for (int r = 0; r < n; r++) store(y + r * n * y_point, out[r]);
    }
  }

  /// Filters [first, end), of a group.
  void transform_y(int64_t tile, int64_t at, int64_t first, int64_t end, const float* zeros, float* y) const {
    const TilePlace t = place(tile, p.tiles_h, p.tiles_w);
    const float* px[M * M];
    pixels<M>(a.y + t.image * a.P * a.Q * a.ldy, a.P, a.Q, a.ldy, t.row * M, t.column * M, zeros, px);
    for (int64_t f = first; f < end; f += V) {
      float* to = y + (f - first) / p.y_width * p.y_panel + at * p.y_width + f % p.y_width;
      if (p.far_y) fetch<M, 0, M>(px, M * a.ldy + first, (f - first) / V, (end - first + V - 1) / V, end - first);
      if (f + V <= a.F)
        spread<true>(px, f, V, to, p.y_point);
      else
        spread<false>(px, f, int(a.F - f), to, p.y_point);
    }
  }

  int64_t channels(int64_t block) const { return least(p.v_width, a.C - block * p.v_width); }

  /// One point of a block of channels and panel `k` of a group that begins with panel `first`, over a chunk's tiles. u: of these.
  void multiply(int64_t at, int64_t block, int64_t first, int64_t k, int64_t tiles, const float* v, const float* y, float* u,
                bool accumulate) const {
    TileJob j;
    j.K = tiles, j.a_row = 1, j.a_col = p.v_width;
    j.b = y + k * p.y_panel + at * p.y_point, j.b_row = p.y_width;
    j.ldc = p.y_width, j.accumulate = accumulate, j.far = true;
    j.n = a.F - (first + k) * p.y_width <= V ? V : gemm_nr;  // whole vectors: what lies behind the filters is not looked at
    gemm_run(j, channels(block), v + block * p.v_block + at * p.v_point, u + at * p.u_point, 0);
  }

  /// dw of one channel and `lanes` filters; dU of both halves of the parts added up.
  template <bool halves, bool past> DAGRT_INLINE void gather(const float* u, float* dw, int lanes) const {
    const int64_t tap = a.C * a.F;
    if (!past)
#pragma GCC unroll 9
      for (int i = 0; i < R * R; i++) __builtin_prefetch(dw + i * tap + 2 * a.F, 1);
    vf t[R][n];
#pragma GCC unroll 1
    for (int s = 0; s < n; s++, u += p.u_point) {
      vf d[n], out[R];
#pragma GCC unroll 8
      for (int r = 0; r < n; r++) {
        const float* at = u + r * n * p.u_point;
        d[r] = load(at);
        if (halves) d[r] += load(at + p.parts / 2 * p.u_size);
        __builtin_prefetch(at + 4 * V);  // n² streams: more than the hardware follows
      }
      T::template interpolate<R, true>(d, out);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) t[r][s] = out[r];
    }
#pragma GCC unroll 1
    for (int r = 0; r < R; r++) {
      vf out[R];
      T::template interpolate<R, true>(t[r], out);
#pragma GCC unroll 8
      for (int s = 0; s < R; s++, dw += tap) put_n<past>(dw, out[s], lanes);
    }
  }

  /// The same of channels [c, end) of a block and a panel of filters. u: of these, from channel c on.
  template <bool halves, bool past> void gather_rows(int64_t c, int64_t end, int64_t panel, const float* u) const {
    const int64_t first = panel * p.y_width, filters = least(p.y_width, a.F - first);
    for (; c < end; c++, u += p.y_width)
      each_vector(filters, [&](int64_t f, int lanes) { gather<halves, past>(u + f, a.dw + c * a.F + first + f, lanes); });
    if (past) finish_past();
  }
  /// u: of the block's first channel.
  void gather(int64_t c, int64_t end, int64_t panel, const float* u) const {
    u += c % p.v_width * p.y_width;
    // Places of the window are often a multiple of 128 KB apart, more of them than a set of a cache has lines, and an optimiser
    // reads dw when the rest of the step has gone through the caches. Vectors must be lines: by halves it is slower.
    const bool past = V == 16 && R * R * a.C * a.F >= large_gradient && whole_places(a.dw, a.F, a.F);
    if (p.parts > 1)
      gather_rows<true, false>(c, end, panel, u);
    else if (past)
      gather_rows<false, true>(c, end, panel, u);
    else
      gather_rows<false, false>(c, end, panel, u);
  }

  /// All of a part, on one thread.
  void add_up(int64_t part, const float* zeros, float* v, float* u) const {
    const int64_t begin = p.tiles * part / p.parts, count = p.tiles * (part + 1) / p.parts - begin;
    float* y = v + p.v_size;
    for (int64_t chunk = 0; chunk < p.chunks; chunk++) {
      const int64_t from = begin + count * chunk / p.chunks, tiles = begin + count * (chunk + 1) / p.chunks - from;
      for (int64_t t = 0; t < tiles; t++) {
        transform_x(from + t, t, zeros, v);
        transform_y(from + t, t, 0, a.F, zeros, y);
      }
      for (int64_t at = 0; at < points; at++)
        for (int64_t block = 0; block < p.v_blocks; block++)
          for (int64_t k = 0; k < p.y_panels; k++)
            multiply(at, block, 0, k, tiles, v, y, u + (block * p.y_panels + k) * p.u_panel, chunk > 0);
    }
  }

  /// Adds up the parts of either half of them in its first one's place. Of two threads each has made its half, and finds it in its own
  /// L2: the other's dU never go there, and so need not be called back from it when they are made the next time.
  void add_halves(float* u, const Stream& s) const {
    constexpr int64_t pieces = 8;
    const int64_t half = p.parts / 2;
    s.parallel(2 * pieces, double(half * p.u_size) / pieces * (2.0 / V), [&](int64_t unit, char*) {
      const int64_t piece = unit % pieces, vectors = p.u_size / V;
      float* sum = u + unit / pieces * half * p.u_size;
      for (int64_t i = vectors * piece / pieces * V, end = vectors * (piece + 1) / pieces * V; i < end; i += V) {
        vf t = load(sum + i);
        for (int64_t k = 1; k < half; k++) t += load(sum + i + k * p.u_size);
        store(sum + i, t);
      }
    });
  }

  /// Panels [first, last), one after another a group's chunks; dU of block and panel number block * (last - first) + panel - first.
  void group(int64_t first, int64_t last, float* v, float* y, float* u, int64_t zeros, const Stream& s) const {
    const int64_t panels = last - first, blocks = p.v_blocks * panels, begin = first * p.y_width,
                  end = least(last * p.y_width, a.F);
    for (int64_t chunk = 0; chunk < p.chunks; chunk++) {
      const int64_t from = p.tiles * chunk / p.chunks, tiles = p.tiles * (chunk + 1) / p.chunks - from;
      const int64_t units = (tiles + most - 1) / most;
      s.parallel(2 * units, most * double(points) * double(a.C + end - begin) * (0.6 / V), [&](int64_t unit, char* scratch) {
        float* none = aligned(scratch);
        zero(none, zeros);
        const int64_t t0 = unit / 2 * most, t1 = least(t0 + most, tiles);
        for (int64_t t = t0; t < t1; t++)
          if (unit % 2)
            transform_y(from + t, t, begin, end, none, y);
          else
            transform_x(from + t, t, none, v);
      });
      const double point_ns = double(tiles) * double(p.v_width * p.y_width) * (multiply_ns() / V);
      if (!p.whole) {
        s.parallel(points * blocks, point_ns, [&](int64_t unit, char*) {
          const int64_t at = unit / blocks, i = unit % blocks;
          multiply(at, i / panels, first, i % panels, tiles, v, y, u + i * p.u_panel, chunk > 0);
        });
        continue;
      }
      s.parallel(blocks, point_ns * double(points), [&](int64_t i, char* scratch) {
        float* sums = p.passing ? aligned(scratch) + zeros : u + i * p.u_panel;
        for (int64_t at = 0; at < points; at++) multiply(at, i / panels, first, i % panels, tiles, v, y, sums, chunk > 0);
        if (chunk + 1 < p.chunks) return;
        const int64_t c = i / panels * p.v_width;
        gather(c, c + channels(i / panels), first + i % panels, sums);
      });
    }
    if (!p.whole) gather_all(first, last, u, s);
  }

  void gather_all(int64_t first, int64_t last, const float* u, const Stream& s) const {
    s.parallel(a.C, double((last - first) * p.y_width) * double(points) * (p.parts > 1 ? 2.0 : 0.6) / V, [&](int64_t c, char*) {
      for (int64_t panel = first; panel < last; panel++)
        gather(c, c + 1, panel, u + (c / p.v_width * (last - first) + panel - first) * p.u_panel);
    });
  }

  void operator()(const Stream& s) const {
    const int64_t zeros = ((a.C > a.F ? a.C : a.F) + V - 1) / V * V;
    if (p.parts > 1) {
      float* u = aligned(a.workspace);
      const double tile_ns =
          double(points) * (double(a.C + a.F) * 0.6 + double(a.C * p.y_panels * p.y_width) * multiply_ns()) / V;
      s.parallel(p.parts, double(p.tiles) / double(p.parts) * tile_ns, [&](int64_t part, char* scratch) {
        float* none = aligned(scratch);
        zero(none, zeros);
        add_up(part, none, none + zeros, u + part * p.u_size);
      });
      add_halves(u, s);
      return gather_all(0, p.y_panels, u, s);
    }
    float *v = aligned(a.workspace), *y = v + p.v_size, *u = y + p.y_size;
    for (int64_t g = 0; g < p.groups; g++) group(g * p.group, least((g + 1) * p.group, p.y_panels), v, y, u, zeros, s);
  }
};

}  // namespace

void conv2d_filter_grad_winograd(const WinogradArgs& a, const Stream& s) {
  if (!a.C || !a.F) return;
  if (const WinogradMixedPlan m = winograd_mixed_plan(a, V); m.applies) return conv2d_filter_grad_winograd_mixed(a, m, s);
  const WinogradGradPlan p = winograd_grad_plan(a, V);
  if (!p.tiles) return zero(a.dw, a.window * a.window * a.C * a.F);
  if (a.window == 5) return FilterGrad<4, 5>{a, p}(s);
  if (a.window == 4) return FilterGrad<4, 4>{a, p}(s);
  if (a.tile == 2) return FilterGrad<2, 3>{a, p}(s);
  FilterGrad<4, 3>{a, p}(s);
}

}  // namespace dagrt::DAGRT_ISA
