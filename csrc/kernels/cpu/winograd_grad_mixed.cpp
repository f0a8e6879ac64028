// Winograd filter gradient of few tiles, 3x3: dw = G' [ sum over tiles (B' d B) . (A dy A') ] G (matrices: winograd_transform.h).
//
// Where few tiles are summed, dU, 36 sums for every 9 weights, is more to write and read than the products take. Here it is never
// whole: a register tile holds one row of points, all columns, of a few channels and a vector of filters, sums over all tiles, and
// goes through the first half of G' dU G from there.
// An axis is covered by as many tiles of 3 as save pixels outside of the map: 7 = 4 + 3. The points of F(3,3) are those of
// F(4,3) without infinity, so that both sum to the same dU, and 7x7 pixels take 11² products, not 12².
// Operands lie in the order in which the sums take them:
//   V[group of channels][row of points][tile][column][channel] = B' d B,  Y[vector of filters][row][tile][column][V] = A dy A',
// in a row tiles of 4 columns first; the row of infinity has tiles of 4 rows alone. The scales of G are in Y.
#include "kernels/cpu/winograd_grad.h"
#include "kernels/cpu/winograd_tiles.h"

namespace dagrt::DAGRT_ISA {
namespace {

constexpr int NC = int(winograd_mixed_channels(V));
constexpr int n = 6, points = n * n, R = 3;
using Wide = WinogradTransform<4, R>;

struct MixedGrad {
  const WinogradArgs& a;
  const WinogradMixedPlan& p;

  /// The number of a tile's first point in a row of them.
  int64_t at(int64_t row, const TilePlace& t) const {
    const WinogradMixedPlan::Row& r = p.row(row);
    const int64_t line = t.image * r.tiles_h + t.row, j = t.column;
    return row * p.rows[0].size +
           (j < p.wide ? (line * p.wide + j) * n : n * r.wide + (line * (p.tiles_w - p.wide) + j - p.wide) * (n - 1));
  }
  static int64_t begin(int64_t tile, int64_t large) { return tile < large ? 4 * tile : 3 * tile + large; }

  /// Pointers to `rows` x `columns` pixels from (h, w) on; those outside of the image: to zeros.
  template <int k>
  void find(const float* image, int64_t H, int64_t W, int64_t ld, int64_t h, int64_t w, int rows, int columns, const float* zeros,
            const float* (&px)[k][k]) const {
    for (int r = 0; r < rows; r++) {
      const bool inside = h + r >= 0 && h + r < H;
      for (int s = 0; s < columns; s++) px[r][s] = inside && w + s >= 0 && w + s < W ? image + ((h + r) * W + w + s) * ld : zeros;
    }
  }

  /// x of a tile of MH x MW: all channels.
  template <int MH, int MW> void transform_x(const TilePlace& place, const float* zeros, float* v) const {
    using TH = WinogradTransform<MH, R>;
    using TW = WinogradTransform<MW, R>;
    const float* px[n][n];
    find(a.x + place.image * a.H * a.W * a.ldx, a.H, a.W, a.ldx, begin(place.row, p.tall) - a.pad_top,
         begin(place.column, p.wide) - a.pad_left, TH::n, TW::n, zeros, px);
    float* to[n];
    for (int r = 0; r < TH::n; r++) to[r] = v + at(r, place) * NC;
    each_vector(a.C, [&](int64_t c, int lanes) {
      transform_input<TH, TW, false, false>(px[0], n, c, lanes, [&](int r, int s, vf value) __attribute__((always_inline)) {
        float values[V];
        store(values, value);
        for (int k = 0; k < V; k += NC)
          __builtin_memcpy(to[r] + s * NC + (c + k) / NC * p.v_group, values + k, NC * sizeof(float));
      });
    });
  }

  template <int MH, int MW> void transform_y(const TilePlace& place, const float* zeros, float* y) const {
    using TH = WinogradTransform<MH, R>;
    using TW = WinogradTransform<MW, R>;
    const float* px[4][4];
    find(a.y + place.image * a.P * a.Q * a.ldy, a.P, a.Q, a.ldy, begin(place.row, p.tall), begin(place.column, p.wide), MH, MW,
         zeros, px);
    float* to[n];
    for (int r = 0; r < TH::n; r++) to[r] = y + at(r, place) * V;
    each_vector(a.F, [&](int64_t f, int lanes) {
      vf t[MH][TW::n];
      for (int r = 0; r < MH; r++) {
        vf d[MW];
#pragma GCC unroll 8
        for (int s = 0; s < MW; s++) d[s] = load_n(px[r][s] + f, lanes);
        TW::template evaluate<MW, true>(d, t[r]);
      }
      for (int s = 0; s < TW::n; s++) {
        vf d[MH], out[TH::n];
#pragma GCC unroll 8
        for (int r = 0; r < MH; r++) d[r] = t[r][s];
        TH::template evaluate<MH, true>(d, out);
#pragma GCC unroll 8
        for (int r = 0; r < TH::n; r++) store(to[r] + s * V + f / V * p.y_vector, out[r]);
      }
    });
  }

  template <int MH, int MW> void transform(bool dy, const TilePlace& t, const float* zeros, float* v, float* y) const {
    if (dy)
      transform_y<MH, MW>(t, zeros, y);
    else
      transform_x<MH, MW>(t, zeros, v);
  }

  /// `count` tiles of `columns` columns of one row of points.
  template <int columns> static DAGRT_INLINE void add(int64_t count, const float*& v, const float*& y, vf (&sum)[NC][n]) {
    for (int64_t i = 0; i < count; i++, v += columns * NC, y += columns * V)
#pragma GCC unroll 6
      for (int s = 0; s < columns; s++) {
        vf b = load(y + s * V);
        keep(b);
#pragma GCC unroll 4
        for (int c = 0; c < NC; c++) sum[c][s] += splat(v[s * NC + c]) * b;
      }
  }

  /// What a register tile leaves behind its first half of G' dU G, and where the other half goes.
  struct Half {
    vf t[NC][n][R];
    float* dw;
    int channels = 0, lanes;
  };

  /// The other half, of one channel and column of the window, of which there are NC R.
  template <bool past> DAGRT_INLINE void finish(const Half& half, int number) const {
    const int k = number / R, s = number % R;
    if (k >= half.channels) return;
    const int64_t tap = a.C * a.F;
    float* dw = half.dw + k * a.F + s * tap;
    vf d[n], out[R];
#pragma GCC unroll 6
    for (int r = 0; r < n; r++) d[r] = half.t[k][r][s];
    Wide::interpolate<R, false>(d, out);
#pragma GCC unroll 3
    for (int r = 0; r < R; r++) {
      if (past)
        store_past(dw + r * R * tap, out[r]);
      else
        store_n(dw + r * R * tap, out[r], half.lanes);
    }
  }

  /// The first half of a register tile, and of the one before the other half: its stores are slow, and wait beside products.
  template <bool past> void sums(const float* v, const float* y, Half& half, const Half& before) const {
    for (int row = 0; row < n; row++) {
      const WinogradMixedPlan::Row& r = p.row(row);
      vf sum[NC][n] = {};
      add<n>(r.wide, v, y, sum);
      add<n - 1>(r.narrow, v, y, sum);
#pragma GCC unroll 4
      for (int k = 0; k < NC; k++) {
        Wide::interpolate<R, false>(sum[k], half.t[k][row]);
        if (k % 2) finish<past>(before, row * (NC / 2) + k / 2);
      }
    }
  }

  template <bool past> void block(int64_t c, int64_t c_end, int64_t f, int64_t f_end, const float* v, const float* y) const {
    Half halves[2];
    int turn = 0;
    for (; c < c_end; c += NC)
      for (int64_t k = f; k < f_end; k += V, turn ^= 1) {
        Half& half = halves[turn];
        half.dw = a.dw + c * a.F + k;
        half.channels = int(least(NC, a.C - c)), half.lanes = int(least(V, a.F - k));
        sums<past>(v + c / NC * p.v_group, y + k / V * p.y_vector, half, halves[turn ^ 1]);
      }
    for (int i = 0; i < NC * R; i++) finish<past>(halves[turn ^ 1], i);
    if (past) finish_past();
  }

  void operator()(const Stream& s) const {
    const int64_t zeros = ((a.C > a.F ? a.C : a.F) + V - 1) / V * V;
    float *v = aligned(a.workspace), *y = v + p.v_size;
    s.parallel(2 * a.B * p.tiles_h * p.tiles_w, double(points) * double(a.C + a.F) * (1.5 / V), [&](int64_t unit, char* scratch) {
      float* none = aligned(scratch);
      zero(none, zeros);
      const TilePlace t = place(unit / 2, p.tiles_h, p.tiles_w);
      const bool dy = unit % 2, tall = t.row < p.tall, wide = t.column < p.wide;
      if (tall && wide)
        transform<4, 4>(dy, t, none, v, y);
      else if (tall)
        transform<4, 3>(dy, t, none, v, y);
      else if (wide)
        transform<3, 4>(dy, t, none, v, y);
      else
        transform<3, 3>(dy, t, none, v, y);
    });
    const int64_t c_blocks = (a.C + p.channels - 1) / p.channels, f_blocks = (a.F + p.filters - 1) / p.filters;
    const bool past = V == 16 && R * R * a.C * a.F >= large_gradient && whole_places(a.dw, a.F, a.F);
    s.parallel(c_blocks * f_blocks, double(p.size) * double(p.channels * p.filters) * (multiply_ns() / V),
               [&](int64_t unit, char*) {
                 const int64_t c = unit % c_blocks * p.channels, f = unit / c_blocks * p.filters;
                 const int64_t c_end = least(c + p.channels, a.C), f_end = least(f + p.filters, a.F);
                 if (past)
                   block<true>(c, c_end, f, f_end, v, y);
                 else
                   block<false>(c, c_end, f, f_end, v, y);
               });
  }
};

}  // namespace

void conv2d_filter_grad_winograd_mixed(const WinogradArgs& a, const WinogradMixedPlan& p, const Stream& s) { MixedGrad{a, p}(s); }

}  // namespace dagrt::DAGRT_ISA
