// Winograd filter gradient: dw = G' [ sum over tiles (B' d B) . (A dy A') ] G (matrices: winograd_transform.h).
//
// Tiles are taken in chunks, one after another. Of a chunk, all threads first transform the tiles,
//   V[point][C/VW][tile][VW] = B' d B,  Y[point][F/YW][tile][YW] = A dy A',
// both laid out so that products over tiles read them in order, and then add the chunk's products, point by point,
//   dU[point][C][F] += V[point]' Y[point].
// Chunks are long enough for the passes over dU to be cheap, and short enough for V and Y to stay in cache.
// A small dU a thread keeps in its own L2: then the tiles are in 4 or 8 parts, each with a dU of its own, added up at the end, and
// no thread waits for another's transforms. The order of sums depends on the sizes alone.
#include "kernels/cpu/winograd_tiles.h"
#include "kernels/winograd.h"

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
      float* to = v + (c / p.v_width * p.chunk + at) * p.v_width + c % p.v_width;
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

  void transform_y(int64_t tile, int64_t at, const float* zeros, float* y) const {
    const TilePlace t = place(tile, p.tiles_h, p.tiles_w);
    const float* px[M * M];
    pixels<M>(a.y + t.image * a.P * a.Q * a.ldy, a.P, a.Q, a.ldy, t.row * M, t.column * M, zeros, px);
    for (int64_t f = 0; f < a.F; f += V) {
      float* to = y + (f / p.y_width * p.chunk + at) * p.y_width + f % p.y_width;
      if (f + V <= a.F)
        spread<true>(px, f, V, to, p.y_point);
      else
        spread<false>(px, f, int(a.F - f), to, p.y_point);
    }
  }

  /// One point, panels [first, last) of filters, over a chunk's tiles.
  void multiply(int64_t at, int64_t first, int64_t last, int64_t tiles, const float* v, const float* y, float* u,
                bool accumulate) const {
    TileJob j;
    j.K = tiles, j.a_row = 1, j.a_col = p.v_width;
    j.b_row = p.y_width, j.ldc = p.u_row, j.accumulate = accumulate, j.far = true;
    for (int64_t panel = first; panel < last; panel++) {
      j.n = a.F - panel * p.y_width <= V ? V : gemm_nr;  // whole vectors: what lies behind the filters is not looked at
      j.b = y + at * p.y_point + panel * p.chunk * p.y_width;
      for (int64_t c = 0; c < a.C; c += p.v_width)
        gemm_run(j, least(p.v_width, a.C - c), v + at * p.v_point + c * p.chunk,
                 u + at * p.u_point + c * p.u_row + panel * p.y_width, 0);
    }
  }

  void gather(int64_t c, const float* u) const {
    for (int64_t f = 0; f < a.F; f += V) {
      const int lanes = int(least(V, a.F - f));
      const float* from = u + c * p.u_row + f;
      vf t[R][n];
#pragma GCC unroll 1
      for (int s = 0; s < n; s++) {
        vf d[n], out[R];
#pragma GCC unroll 8
        for (int r = 0; r < n; r++) {
          const float* at = from + (r * n + s) * p.u_point;
          d[r] = load(at);
          for (int64_t k = 1; k < p.parts; k++) d[r] += load(at + k * p.u_size);
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
        for (int s = 0; s < R; s++) store_n(a.dw + ((r * R + s) * a.C + c) * a.F + f, out[s], lanes);
      }
    }
  }

  /// All of a part, on one thread.
  void add_up(int64_t part, const float* zeros, float* v, float* u) const {
    const int64_t begin = p.tiles * part / p.parts, count = p.tiles * (part + 1) / p.parts - begin;
    float* y = v + p.v_size;
    for (int64_t chunk = 0; chunk < p.chunks; chunk++) {
      const int64_t from = begin + count * chunk / p.chunks, tiles = begin + count * (chunk + 1) / p.chunks - from;
      for (int64_t t = 0; t < tiles; t++) {
        transform_x(from + t, t, zeros, v);
        transform_y(from + t, t, zeros, y);
      }
      for (int64_t at = 0; at < points; at++) multiply(at, 0, p.y_blocks, tiles, v, y, u, chunk > 0);
    }
  }

  void operator()(const Stream& s) const {
    const int64_t zeros = ((a.C > a.F ? a.C : a.F) + V - 1) / V * V;
    const double gather_ns = double(a.F) * double(points) * double(p.parts) * (0.6 / V);
    if (p.parts > 1) {
      float* u = aligned(a.workspace);
      const double tile_ns = double(points) * (double(a.C + a.F) * 0.6 + double(a.C * p.u_row) * multiply_ns()) / V;
      s.parallel(p.parts, double(p.tiles) / double(p.parts) * tile_ns, [&](int64_t part, char* scratch) {
        float* none = aligned(scratch);
        zero(none, zeros);
        add_up(part, none, none + zeros, u + part * p.u_size);
      });
      s.parallel(a.C, gather_ns, [&](int64_t c, char*) { gather(c, u); });
      return;
    }
    float *v = aligned(a.workspace), *y = v + p.v_size, *u = y + p.y_size;
    const int64_t wide = 4, strips = (p.y_blocks + wide - 1) / wide;
    for (int64_t chunk = 0; chunk < p.chunks; chunk++) {
      const int64_t from = p.tiles * chunk / p.chunks, tiles = p.tiles * (chunk + 1) / p.chunks - from;
      const int64_t units = (tiles + most - 1) / most;
      s.parallel(2 * units, most * double(points) * double(a.C + a.F) * (0.6 / V), [&](int64_t unit, char* scratch) {
        float* none = aligned(scratch);
        zero(none, zeros);
        const int64_t first = unit / 2 * most, last = least(first + most, tiles);
        for (int64_t t = first; t < last; t++)
          if (unit % 2)
            transform_y(from + t, t, none, y);
          else
            transform_x(from + t, t, none, v);
      });
      s.parallel(points * strips, double(tiles) * double(a.C) * double(wide * p.y_width) * (multiply_ns() / V),
                 [&](int64_t unit, char*) {
                   const int64_t first = unit % strips * wide;
                   multiply(unit / strips, first, least(first + wide, p.y_blocks), tiles, v, y, u, chunk > 0);
                 });
    }
    s.parallel(a.C, gather_ns, [&](int64_t c, char*) { gather(c, u); });
  }
};

}  // namespace

void conv2d_filter_grad_winograd(const WinogradArgs& a, const Stream& s) {
  const WinogradGradPlan p = winograd_grad_plan(a, V);
  if (!a.C || !a.F) return;
  if (!p.tiles) return zero(a.dw, a.window * a.window * a.C * a.F);
  if (a.window == 5) return FilterGrad<4, 5>{a, p}(s);
  if (a.window == 4) return FilterGrad<4, 4>{a, p}(s);
  if (a.tile == 2) return FilterGrad<2, 3>{a, p}(s);
  FilterGrad<4, 3>{a, p}(s);
}

}  // namespace dagrt::DAGRT_ISA
