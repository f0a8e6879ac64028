// What the convolution kernels of this folder share: how a pass over a grid of pixels reads its source, and the padded copy
// of a unit's rows. For conv2d*.cpp alone.
#pragma once
#include "kernels/conv2d.h"
#include "kernels/cpu/epilogue.h"
#include "kernels/cpu/gemm.h"

namespace dagrt::DAGRT_ISA {

/// One axis of taps: output position i reads source position i * mul + off + k * step, for k in [0, count).
struct Axis {
  int64_t mul, off, step, count, size;  // size: of the source
};

/// Outputs [from, to) of J along an axis, those that have all their taps inside.
struct Whole {
  int64_t from, to;
};
inline Whole whole_windows(const Axis& w, int64_t J) {
  const int64_t last = w.size - 1 - w.off - (w.count - 1) * w.step;
  int64_t from = w.off >= 0 ? 0 : (w.mul - 1 - w.off) / w.mul, to = last < 0 ? 0 : last / w.mul + 1;
  if (from > J) from = J;
  if (to > J) to = J;
  return {from, to < from ? from : to};
}

struct Grid {  // output pixels of one pass: (i, j) lies at row h0 + i * step_h, column w0 + j * step_w of the output
  int64_t I, J, h0 = 0, w0 = 0, step_h = 1, step_w = 1;
};

/// Weights that the input gradient of one residue walks, taps (r - i every_r, q - j every_q) of the window.
struct Taps {
  int64_t r = 0, every_r = 1, count_r = 0, q = 0, every_q = 1, count_q = 0;
};
struct TurnedWeights {
  const ConvArgs* a;
  Taps taps;

  const float* at(int64_t i, int64_t n) const {  // the weights of tap i and channel n of a group
    const int64_t tap = (taps.r - i / taps.count_q * taps.every_r) * a->S + taps.q - i % taps.count_q * taps.every_q;
    return a->w + (tap * (a->C / a->groups) + n) * a->F;
  }
  /// Elements [from, to) of [taps F/groups], channels [n, n + columns) of group g, as a panel.
  void pack(int64_t g, int64_t n, int columns, int64_t from, int64_t to, float* panel) const {
    const int64_t f = a->F / a->groups;
    while (from < to) {
      const int64_t k = from % f, deep = f - k < to - from ? f - k : to - from;
      gemm_pack(deep, at(from / f, n) + g * f + k, 1, a->F, columns, panel);
      from += deep, panel += deep * gemm_nr;
    }
  }
};

/// A pass: every pixel of the grid = the source's pixels under it x panels, finished by the epilogue.
struct Pass {
  int64_t B;
  const float* src;
  int64_t src_h, src_w, ld_src, src_channels;
  Axis h, w;
  Grid grid;
  const float* packed;
  float* dst;
  int64_t dst_h, dst_w, ld_dst, dst_channels;
  int64_t groups;
  const Epilogue& epilogue;
  int64_t pool = 1;    // of the grid's pixels, which dst has that many fewer of in each direction; pass_rows alone pools
  bool alone = false;  // no other pass writes to dst: pixels between the grid's are zero (pass_rows of one group, no epilogue)
  const TurnedWeights* turned = nullptr;  // what `packed` is made of, where each panel is packed just before it is multiplied

  int64_t place(int64_t b, int64_t i, int64_t j) const {
    return (b * dst_h + grid.h0 + i * grid.step_h) * dst_w + grid.w0 + j * grid.step_w;
  }
};

/// Rows of the source as windows read them: row 0, column 0 under the first window; pixels ld apart, rows line apart.
struct Rows {
  const float* a;
  int64_t ld, line;
};

/// Whether windows of the pass reach outside its source, and how wide the rows under them are.
inline bool reaches_outside(const Pass& t) {
  const Axis &h = t.h, &w = t.w;
  return h.off < 0 || w.off < 0 || (t.grid.I - 1) * h.mul + h.off + (h.count - 1) * h.step >= t.src_h ||
         (t.grid.J - 1) * w.mul + w.off + (w.count - 1) * w.step >= t.src_w;
}

/// The rows under grid rows [i0, i1) of image b, channels of group g: in place, or where windows reach outside a copy of
/// them, with zeros.
inline Rows rows_under(const Pass& t, int64_t b, int64_t g, int64_t i0, int64_t i1, bool outside, float* copied) {
  const Axis &h = t.h, &w = t.w;
  const int64_t sc = t.src_channels / t.groups, first_w = w.off, top = i0 * h.mul + h.off;
  const float* image = t.src + b * t.src_h * t.src_w * t.ld_src + g * sc;
  if (!outside) return {image + (top * t.src_w + first_w) * t.ld_src, t.ld_src, t.src_w * t.ld_src};
  const int64_t ld = sc, wide = (t.grid.J - 1) * w.mul + (w.count - 1) * w.step + 1, line = wide * ld;
  const int64_t high = (i1 - 1 - i0) * h.mul + (h.count - 1) * h.step + 1;
  const int64_t before = first_w < 0 ? -first_w : 0, end = t.src_w - first_w;  // columns of the copy that exist
  const int64_t have = (end < wide ? end : wide) - before;
  for (int64_t r = 0; r < high; r++) {
    float* to = copied + r * line;
    const int64_t row = top + r;
    if (row < 0 || row >= t.src_h || have <= 0) {
      zero(to, line);
      continue;
    }
    const float* from = image + (row * t.src_w + first_w + before) * t.ld_src;
    zero(to, before * ld);
    if (t.ld_src == sc)
      copy(to + before * ld, from, have * ld);
    else
      for (int64_t q = 0; q < have; q++) copy(to + (before + q) * ld, from + q * t.ld_src, sc);
    zero(to + (before + have) * ld, (wide - before - have) * ld);
  }
  return {copied, ld, line};
}

/// Few filters: their panels are rows [filters][R S channels] without gaps.
inline bool few_filters(int64_t groups, int64_t filters, int64_t window_columns, int64_t channels) {
  return conv_few(groups, filters, window_columns, channels, V);
}
/// A pass of such filters.
void pass_few(const Stream& s, const Pass& t);

/// Whether a pass is by 3 x 3 windows that lie one pixel apart along a row of one channel's pixels, and such a pass.
inline bool one_channel(const Pass& t) {
  return t.groups == 1 && t.src_channels == 1 && t.h.count == 3 && t.w.count == 3 && t.w.mul == 1 && t.w.step == 1;
}
void pass_one_channel(const Stream& s, const Pass& t);

constexpr int64_t conv_panels_near = 65536;  // floats: they stay in L2

/// Whether a pass is of a small image by windows of three columns that lie one pixel apart, its weights near, and such a pass.
bool small(const Pass& t);
void pass_small(const Stream& s, const Pass& t);

}  // namespace dagrt::DAGRT_ISA
