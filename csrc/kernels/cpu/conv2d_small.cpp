// Small images by windows of three columns that lie one pixel apart: a tile is a piece of a row of y, with one or two vectors of
// filters. A loaded number of x, broadcast, meets the weights of all windows that it lies in, and what lies outside of the
// image is left out: of 8 x 8 pixels padded to 10 x 10, as a gradient's are, that is a third of all products. No copy of x.
#include "kernels/cpu/conv2d_pass.h"

namespace dagrt::DAGRT_ISA {
#if DAGRT_V == 16
namespace {

constexpr int most = 11;  // pixels of a tile: with two vectors each and their weights they fill 32 registers

struct Tile {
  const Pass& t;
  SimpleEpilogue simple;  // what is finished here
  int64_t b, i0, i1, j, column;
  int n;            // columns to store
  uint32_t inside;  // bit i: the i-th pixel under the tile's row exists
};

template <int N, int NV> void rows_of(const Tile& k) {
  const Pass& t = k.t;
  const Axis& h = t.h;
  const int64_t channels = t.src_channels, run = t.ld_src, down = h.step * t.src_w * run, tap = channels * gemm_nr;
  const float* panel = t.packed + k.column / gemm_nr * gemm_nr * h.count * 3 * channels + k.column % gemm_nr;
  for (int64_t i = k.i0; i < k.i1; i++) {
    const int64_t top = i * h.mul + h.off;
    int64_t r0 = 0, r1 = h.count;
    while (r0 < r1 && top + r0 * h.step < 0) r0++;
    while (r1 > r0 && top + (r1 - 1) * h.step >= t.src_h) r1--;
    vf acc[N][NV];
#pragma GCC unroll 12
    for (int m = 0; m < N; m++)
#pragma GCC unroll 2
      for (int v = 0; v < NV; v++) acc[m][v] = vf{};
    const float* x = t.src + ((k.b * t.src_h + top + r0 * h.step) * t.src_w + t.w.off + k.j) * run;
    const float* w = panel + r0 * 3 * tap;
    for (int64_t r = r0; r < r1; r++, x += down, w += 3 * tap)
      for (int64_t c = 0; c < channels; c++) {
        vf weight[3][NV];
#pragma GCC unroll 3
        for (int q = 0; q < 3; q++)
#pragma GCC unroll 2
          for (int v = 0; v < NV; v++) {
            weight[q][v] = load(w + q * tap + c * gemm_nr + v * V);
            keep(weight[q][v]);
          }
        const float* at = x + c;
        uint32_t bits = k.inside;
#pragma GCC unroll 16
        for (int m = 0; m < N + 2; m++, at += run) {
          keep(at), keep(bits);  // or GCC keeps each pixel's place and bit in memory
          if (!(bits >> m & 1)) continue;
          vf pixel = splat(*at);
          keep(pixel);
#pragma GCC unroll 3
          for (int q = 0; q < 3; q++)
#pragma GCC unroll 2
            for (int v = 0; v < NV; v++)
              if (m - q >= 0 && m - q < N) acc[m - q][v] += pixel * weight[q][v];
        }
      }
    const int64_t place = t.place(k.b, i, k.j), step = t.grid.step_w;
    float* y = t.dst + place * t.ld_dst + k.column;
    const bool plain = k.simple.empty();
#pragma GCC unroll 12
    for (int m = 0; m < N; m++, y += step * t.ld_dst)
#pragma GCC unroll 2
      for (int v = 0; v < NV; v++) {
        const int n = v + 1 < NV ? V : k.n - (NV - 1) * V;
        store_n(y + v * V, plain ? acc[m][v] : finish(k.simple, acc[m][v], place + m * step, k.column + v * V, n), n);
      }
  }
}

using RowsOf = void (*)(const Tile&);
template <int NV>
constexpr RowsOf rows_of_table[] = {nullptr,        nullptr,        nullptr,         nullptr,
                                    rows_of<4, NV>, rows_of<5, NV>, rows_of<6, NV>,  rows_of<7, NV>,
                                    rows_of<8, NV>, rows_of<9, NV>, rows_of<10, NV>, rows_of<11, NV>};

}  // namespace

bool small(const Pass& t) {
  const bool narrow = t.grid.J < gemm_mr - 2 || (t.grid.J <= 2 * gemm_mr && reaches_outside(t));  // for tiles of products
  return t.groups == 1 && t.grid.J >= 4 && narrow && t.w.count == 3 && t.w.mul == 1 && t.w.step == 1 &&
         t.h.count * 3 * t.src_channels * ((t.dst_channels + gemm_nr - 1) / gemm_nr * gemm_nr) <= conv_panels_near;
}

void pass_small(const Stream& s, const Pass& t) {
  const int64_t n = t.dst_channels, J = t.grid.J, depth = t.h.count * 3 * t.src_channels, panels = (n + gemm_nr - 1) / gemm_nr;
  const int64_t tiles = (J + most - 1) / most, low = J / tiles, longer = J - low * tiles;
  int64_t rows = conv_rows(t.grid.I, J, depth, n);
  while (rows > 1 && t.B * ((t.grid.I + rows - 1) / rows) < 4) rows = (rows + 1) / 2;
  const int64_t blocks = (t.grid.I + rows - 1) / rows;
  const double ns = double(rows * J) * double(depth + 8) * double(panels * gemm_nr) * (0.3 / V) + 100;
  s.parallel(t.B * blocks, ns, [&](int64_t unit, char*) {
    const int64_t block = unit % blocks, b = unit / blocks, i0 = t.grid.I * block / blocks, i1 = t.grid.I * (block + 1) / blocks;
    for (int64_t column = 0; column < n; column += gemm_nr) {
      const int columns = int(n - column < gemm_nr ? n - column : gemm_nr);
      for (int64_t k = 0, j = 0; k < tiles; k++) {
        const int64_t pixels = k < longer ? low + 1 : low, reach = pixels + 2;
        const int64_t first = -t.w.off - j, end = first + t.src_w;  // of the image's pixels under them
        uint32_t inside = (uint32_t(1) << reach) - 1;
        if (first > 0) inside = first < reach ? inside >> first << first : 0;
        if (end < reach) inside = end > 0 ? inside & ((uint32_t(1) << end) - 1) : 0;
        const Tile tile{t, finishing(t.epilogue), b, i0, i1, j, column, columns, inside};
        (columns <= V ? rows_of_table<1>[pixels] : rows_of_table<2>[pixels])(tile);
        j += pixels;
      }
    }
    if (finishes(t.epilogue)) return;
    for (int64_t i = i0; i < i1; i++) {
      const int64_t place = t.place(b, i, 0);
      float* y = t.dst + place * t.ld_dst;
      if (t.grid.step_w == 1)
        apply_epilogue(t.epilogue, y, t.ld_dst, place, 0, J, n);
      else
        for (int64_t j = 0; j < J; j++)
          apply_epilogue(t.epilogue, y + j * t.grid.step_w * t.ld_dst, t.ld_dst, place + j * t.grid.step_w, 0, 1, n);
    }
  });
}
#else  // too few registers
bool small(const Pass&) { return false; }
void pass_small(const Stream&, const Pass&) {}
#endif

}  // namespace dagrt::DAGRT_ISA
