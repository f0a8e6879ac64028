// Convolutions to a few filters (an image from 16 channels, a mask, the gradient into the pixels of an image): a vector over
// filters would be empty but for them. So vectors run over the window's channels: V pixels side by side are summed in V
// registers, each tap's weights loaded once for all of them, and at the end a tree of shuffles adds up the lanes of all V
// sums at once. Windows of three columns that lie one pixel apart share what they load.
#include "kernels/cpu/conv2d_pass.h"

namespace dagrt::DAGRT_ISA {
namespace {

/// Lane l of the result is the sum of v[l]'s lanes.
DAGRT_INLINE vf sums_of(vf (&v)[V]) {
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
}

/// What lies under a window: `rows` rows, each of `runs` runs of `length` contiguous floats.
struct Window {
  int64_t rows, line, runs, run, length;
};

/// The sums of N pixels, `next` floats apart.
template <int N> DAGRT_INLINE void dot(const Window& d, const float* x, int64_t next, const float* w, vf (&acc)[N]) {
#pragma GCC unroll 16
  for (int i = 0; i < N; i++) acc[i] = vf{};
  for (int64_t r = 0; r < d.rows; r++)
    for (int64_t q = 0; q < d.runs; q++, w += d.length) {
      const float* from = x + r * d.line + q * d.run;
      int64_t c = 0;
      for (; c + V <= d.length; c += V) {
        const vf weight = load(w + c);
#pragma GCC unroll 16
        for (int i = 0; i < N; i++) acc[i] += load(from + i * next + c) * weight;
      }
      if (c == d.length) continue;
      const int n = int(d.length - c);
      const vf weight = load_n(w + c, n);
#pragma GCC unroll 16
      for (int i = 0; i < N; i++) acc[i] += load_n(from + i * next + c, n) * weight;
    }
}

/// The same for V windows of three columns, each a pixel behind the other, over whole vectors of channels.
DAGRT_INLINE void dot_sliding(const Window& d, const float* x, const float* w, vf (&acc)[V]) {
#pragma GCC unroll 16
  for (int i = 0; i < V; i++) acc[i] = vf{};
  for (int64_t r = 0; r < d.rows; r++, x += d.line, w += 3 * d.length)
    for (int64_t c = 0; c < d.length; c += V) {
      vf weight[3];
#pragma GCC unroll 3
      for (int q = 0; q < 3; q++) weight[q] = load(w + q * d.length + c);
#pragma GCC unroll 18
      for (int i = 0; i < V + 2; i++) {
        const vf pixel = load(x + i * d.run + c);
#pragma GCC unroll 3
        for (int q = 0; q < 3; q++)
          if (i - q >= 0 && i - q < V) acc[i - q] += pixel * weight[q];
      }
    }
}

/// The sums of J pixels of a row.
void dot_row(const Window& d, const float* x, int64_t next, const float* w, int64_t J, float* to) {
  if (J < V) {
    for (int64_t j = 0; j < J; j++) {
      vf acc[1];
      dot<1>(d, x + j * next, next, w, acc);
      to[j] = sum(acc[0]);
    }
    return;
  }
  const bool sliding = d.runs == 3 && d.run == next && d.length % V == 0;
  for (int64_t j = 0; j < J; j += V) {
    if (j > J - V) j = J - V;  // the last ones once more
    vf acc[V];
    if (sliding)
      dot_sliding(d, x + j * next, w, acc);
    else
      dot<V>(d, x + j * next, next, w, acc);
    store(to + j, sums_of(acc));
  }
}

}  // namespace

void pass_few(const Stream& s, const Pass& t) {
  const Axis &h = t.h, &w = t.w;
  const int64_t sc = t.src_channels, n = t.dst_channels, J = t.grid.J, depth = h.count * w.count * sc;
  const bool outside = depth && reaches_outside(t), whole = t.grid.step_h == 1 && t.grid.step_w == 1 && J == t.dst_w;
  const int64_t rows = conv_rows(t.grid.I, J, depth, n), blocks = (t.grid.I + rows - 1) / rows;
  const double ns = double(rows * J) * (double(depth * n) * (0.2 / V) + double(n) * 2) + 100;
  s.parallel(t.B * blocks, ns, [&](int64_t unit, char* scratch) {
    const int64_t block = unit % blocks, b = unit / blocks, i0 = t.grid.I * block / blocks, i1 = t.grid.I * (block + 1) / blocks;
    float* sums = aligned(scratch);  // [n][J] of a row
    Rows from{t.src, 0, 0};
    if (depth) from = rows_under(t, b, 0, i0, i1, outside, sums + (n * J + 15) / 16 * 16);
    Window d{depth ? h.count : 0, h.step * from.line, w.count, w.step * from.ld, sc};
    if (d.run == sc && (d.runs != 3 || sc % V)) d.length *= d.runs, d.runs = 1;
    const int64_t step = t.grid.step_w * t.ld_dst;
    const Epilogue& e = t.epilogue;
    for (int64_t i = i0; i < i1; i++) {
      const int64_t place = t.place(b, i, 0);
      float* y = t.dst + place * t.ld_dst;
      for (int64_t f = 0; f < n; f++)
        dot_row(d, from.a + (i - i0) * h.mul * from.line, w.mul * from.ld, t.packed + f * depth, J, sums + f * J);
      const SimpleEpilogue simple(e);
      const float *bias = simple.bias, *residual = simple.residual;
      if (n == 1 && step == 1 && (!residual || e.ld_residual == 1)) {
        each_vector(J, [&](int64_t j, int m) {
          vf v = load_n(sums + j, m);
          if (bias) v += splat(bias[0]);
          if (residual) v += load_n(residual + place + j, m);
          store_n(y + j, activate(simple, v), m);
        });
      } else {
        for (int64_t j = 0; j < J; j++)
          for (int64_t f = 0; f < n; f++) {
            float v = sums[f * J + j];
            if (bias) v += bias[f];
            if (residual) v += residual[(place + j * t.grid.step_w) * e.ld_residual + f];
            if (simple.round) v = bf16_to_float(float_to_bf16(v));
            if (simple.relu) v = v <= 0 ? 0 : v > simple.ceiling ? simple.ceiling : v;
            y[j * step + f] = v;
          }
      }
      if (e.simple || whole) continue;
      if (t.grid.step_w == 1)
        apply_epilogue(e, y, t.ld_dst, place, 0, J, n);
      else
        for (int64_t j = 0; j < J; j++) apply_epilogue(e, y + j * step, t.ld_dst, place + j * t.grid.step_w, 0, 1, n);
    }
    if (!e.simple && whole) {
      const int64_t place = t.place(b, i0, 0);
      apply_epilogue(e, t.dst + place * t.ld_dst, t.ld_dst, place, 0, (i1 - i0) * J, n);
    }
  });
}

}  // namespace dagrt::DAGRT_ISA
