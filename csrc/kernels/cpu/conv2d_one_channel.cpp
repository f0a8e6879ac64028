// Convolutions of one channel (grey images, a decoder's first layer) by windows of 3 x 3: y[p,q,f] = sum of nine x w[f].
// The product's depth is nine, too short for tiles that begin and end with it. So a vector of filters keeps its nine weights
// in registers for all pixels of a unit, and a pixel, loaded once, serves the three windows of a row that it lies in.
#include "kernels/cpu/conv2d_pass.h"

namespace dagrt::DAGRT_ISA {
namespace {

constexpr int most = V == 16 ? 14 : 6;  // pixels side by side: their sums and the weights fill the registers

struct Nine {
  vf w[9], bias;
};

/// N pixels side by side, n filters of each.
template <int N>
DAGRT_INLINE void tile(const Nine& k, const SimpleEpilogue& e, const float* x, int64_t line, float* y, int64_t ldy, int64_t row,
                       int64_t row_step, int64_t f, int n) {
  vf acc[N];
#pragma GCC unroll 16
  for (int i = 0; i < N; i++) acc[i] = k.bias;
#pragma GCC unroll 3
  for (int r = 0; r < 3; r++)
#pragma GCC unroll 16
    for (int i = 0; i < N + 2; i++) {
      const vf pixel = splat(x[r * line + i]);
#pragma GCC unroll 3
      for (int q = 0; q < 3; q++)
        if (i - q >= 0 && i - q < N) acc[i - q] += pixel * k.w[3 * r + q];
    }
  if (e.residual)
#pragma GCC unroll 16
    for (int i = 0; i < N; i++) acc[i] += load_n(e.residual + (row + i * row_step) * e.ld_residual + f, n);
  if (e.relu || e.round)
#pragma GCC unroll 16
    for (int i = 0; i < N; i++) acc[i] = activate(e, acc[i]);
#pragma GCC unroll 16
  for (int i = 0; i < N; i++) store_n(y + i * ldy, acc[i], n);
}

}  // namespace

void pass_one_channel(const Stream& s, const Pass& t) {
  const int64_t n = t.dst_channels, J = t.grid.J, ldy = t.grid.step_w * t.ld_dst;
  const bool copied = reaches_outside(t) || t.ld_src != 1;
  const int64_t rows = conv_rows(t.grid.I, J, 9, n), blocks = (t.grid.I + rows - 1) / rows;
  const double ns = double(rows * J) * 11 * double(n + V) * (0.18 / V) + 100;
  s.parallel(t.B * blocks, ns, [&](int64_t unit, char* scratch) {
    const int64_t block = unit % blocks, b = unit / blocks, i0 = t.grid.I * block / blocks, i1 = t.grid.I * (block + 1) / blocks;
    const Rows from = rows_under(t, b, 0, i0, i1, copied, aligned(scratch));
    const int64_t down = t.h.step * from.line;
    const SimpleEpilogue e(t.epilogue);
    for (int64_t i = i0; i < i1; i++) {  // by rows, so that a line of y is in L1 until it is whole
      const float* x = from.a + (i - i0) * t.h.mul * from.line;
      const int64_t place = t.place(b, i, 0), step = t.grid.step_w;
      each_vector(n, [&](int64_t f, int lanes) __attribute__((always_inline)) {
        Nine k;
#pragma GCC unroll 9
        for (int m = 0; m < 9; m++) k.w[m] = load(t.packed + (f / gemm_nr * 9 + m) * gemm_nr + f % gemm_nr);
        k.bias = e.bias ? load_n(e.bias + f, lanes) : vf{};
        float* y = t.dst + place * t.ld_dst + f;
        int64_t j = 0;
        for (; j + most <= J; j += most) tile<most>(k, e, x + j, down, y + j * ldy, ldy, place + j * step, step, f, lanes);
        for (; j < J; j++) tile<1>(k, e, x + j, down, y + j * ldy, ldy, place + j * step, step, f, lanes);
      });
    }
    if (t.epilogue.simple) return;
    for (int64_t i = i0; i < i1; i++)
      for (int64_t j = 0; j < J; j++) {
        const int64_t place = t.place(b, i, j);
        apply_epilogue(t.epilogue, t.dst + place * t.ld_dst, t.ld_dst, place, 0, 1, n);
      }
  });
}

}  // namespace dagrt::DAGRT_ISA
