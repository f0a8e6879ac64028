// Memory of the convolution kernels and the cut of their sums: functions of the shapes alone.
#include "kernels/conv2d.h"

#include <algorithm>

namespace dagrt {
namespace {

size_t round_up(int64_t n) { return size_t((n + 31) / 32 * 32); }

constexpr int64_t pooled_floats = 64 << 10;  // of rows that wait for their pooling: they stay in L2

}  // namespace

int64_t conv2d_panel_floats(const PackConvArgs& a) {
  if (is_depthwise(a.groups, a.C, a.F)) return a.R * a.S * a.C;
  int64_t c = a.C / a.groups, f = a.F / a.groups;
  return a.groups * a.R * a.S * (a.transpose ? f * int64_t(round_up(c)) : c * int64_t(round_up(f)));
}

namespace {

/// Scratch of a pass over a grid of I x J pixels: gathered rows, or taps (few filters: a row's sums) and the copy of a
/// unit's rows.
size_t pass_scratch(int64_t I, int64_t J, int64_t rows, int64_t depth, int64_t channels, int64_t filters, int64_t span_h,
                    int64_t span_w, int64_t mul_h, int64_t mul_w) {
  const bool may_be_few = filters <= conv_few_filters;
  const size_t gathered = conv_by_rows(J) ? 0 : size_t(conv_block * conv_gathered_row(depth)) * 4 + 64;
  if (gathered && !may_be_few && channels > 1) return gathered;
  int64_t high = (rows < I ? rows : I) * mul_h + span_h, wide = J * mul_w + span_w;
  const size_t front = std::max(round_up(depth), may_be_few ? round_up(filters * J) : 0);
  return std::max(gathered, front * 4 + size_t(high * wide * channels) * 4 + 128);
}

}  // namespace

bool conv2d_pools(const ConvArgs& a) {
  const int64_t c = a.C / a.groups, f = a.F / a.groups;
  return a.R * a.S > 1 && c > 1 && f > conv_few_filters && conv_by_rows(a.Q) && 2 * a.Q * f <= pooled_floats;
}

ConvMemory conv2d_memory(const ConvArgs& a) {
  const int64_t c = a.C / a.groups, f = a.F / a.groups, depth = a.R * a.S * c;
  const int64_t rows = conv_rows(a.P, a.Q, depth, f), finished = a.pool > 1 ? a.pool * a.Q * f : 0;
  return {a.panels ? 0 : a.groups * round_up(f) * size_t(depth) * 4 + 64,
          size_t(finished) * 4 + pass_scratch(a.P, a.Q, a.pool > 1 ? rows + a.pool : rows, depth, c, f, a.R * a.dilation_h,
                                              a.S * a.dilation_w, a.stride_h, a.stride_w)};
}

ConvMemory conv2d_input_grad_memory(const ConvArgs& a) {
  const int64_t c = a.C / a.groups, f = a.F / a.groups, depth = a.R * a.S * f;
  const int64_t I = (a.H + a.stride_h - 1) / a.stride_h, J = (a.W + a.stride_w - 1) / a.stride_w;
  // With strides a pass sees some of the taps, so its units may be of more rows.
  const int64_t rows = a.stride_h * a.stride_w == 1 ? conv_rows(I, J, depth, c) : conv_rows(I, J, 0, 0);
  size_t scratch = 0;
  for (int64_t columns : {J, J > 1 ? J - 1 : J}) {  // the residues' grids differ by a column
    size_t one = pass_scratch(I, columns, rows + 1, depth, f, c, a.R * a.dilation_h, a.S * a.dilation_w, 1, 1);
    if (one > scratch) scratch = one;
  }
  if (a.stride_h == 1 && a.stride_w == 1 && conv_packs_late(a.B * a.H * a.W)) scratch += size_t(conv_slice) * 32 * 4;
  return {a.groups * round_up(c) * size_t(depth) * 4 + 64, scratch};
}

namespace {
bool copies(const ConvArgs& a) { return conv_grad_copies(a.F / a.groups, a.S * a.C / a.groups, a.Q); }
/// Whether a block of the filter gradient goes on from one image to the next; its table of pixels has 32 bits for each
/// (of tensors below 8 GB, however far their pixels lie apart).
bool goes_on(const ConvArgs& a) { return copies(a) && a.H * a.W * a.C <= int64_t(1) << 18; }
}  // namespace

int64_t conv2d_filter_grad_rows(const ConvArgs& a) {
  const int64_t pixels = copies(a) ? conv_grad_copied_block : conv_grad_block;
  return std::min(goes_on(a) ? a.B * a.P : a.P, std::max<int64_t>(1, pixels / std::max<int64_t>(1, a.Q)));
}

int64_t conv2d_filter_grad_blocks(const ConvArgs& a) {
  const int64_t rows = conv2d_filter_grad_rows(a);
  if (!rows) return 0;
  return goes_on(a) ? (a.B * a.P + rows - 1) / rows : a.B * ((a.P + rows - 1) / rows);
}

int64_t conv2d_filter_grad_splits(const ConvArgs& a) {
  int64_t splits = 1;
  if (is_depthwise(a.groups, a.C, a.F)) {
    while (splits < 8 && a.B * a.P / (splits * 2) >= 4) splits *= 2;
    return splits;
  }
  const int64_t blocks = conv2d_filter_grad_blocks(a);
  const int64_t units = a.groups * conv2d_filter_grad_chunks(a);
  while (splits < 8 && units * splits < 12 && blocks >= splits * 2) splits *= 2;
  return splits;
}

int64_t conv2d_filter_grad_chunks(const ConvArgs& a) {
  // Every chunk packs dy and, where windows reach outside, copies x anew: with windows they are larger.
  const int64_t c = a.C / a.groups, chunk = a.R * a.S > 1 ? 4 * conv_grad_chunk : conv_grad_chunk;
  return std::clamp<int64_t>(a.R * a.S * c / chunk, 1, a.R * std::max<int64_t>(1, c / conv_grad_chunk));
}

ConvMemory conv2d_filter_grad_memory(const ConvArgs& a) {
  const int64_t splits = conv2d_filter_grad_splits(a), c = a.C / a.groups, weights = a.R * a.S * c * a.F;
  const int64_t rows = conv2d_filter_grad_rows(a), pixels = rows * a.Q;
  const int64_t images =
      goes_on(a) ? std::min(rows, rows / std::max<int64_t>(1, a.P) + 2) : 1;  // at most, that a block has rows of
  const int64_t reach = std::max((a.R - 1) * a.dilation_h + 1, a.stride_h);
  const int64_t high = std::max<int64_t>(rows - images, 0) * a.stride_h + images * reach;
  const int64_t wide = (a.Q - 1) * a.stride_w + (a.S - 1) * a.dilation_w + 1;
  const bool outside = a.pad_top > 0 || a.pad_left > 0 || (a.P - 1) * a.stride_h - a.pad_top + (a.R - 1) * a.dilation_h >= a.H ||
                       (a.Q - 1) * a.stride_w - a.pad_left + (a.S - 1) * a.dilation_w >= a.W;
  int64_t floats = pixels * 32 + int64_t(round_up(pixels)) + 32;  // a panel of dy, and where its pixels' windows lie
  if (pixels > 0 && outside) floats += high * wide * c;
  if (copies(a)) floats += conv_grad_copied_floats(a.S * c, pixels);
  return {size_t(splits > 1 ? splits * weights : 0) * 4 + 64, size_t(floats) * 4 + 192};
}

}  // namespace dagrt
