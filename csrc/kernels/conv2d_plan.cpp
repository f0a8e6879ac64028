// Memory of the convolution kernels and the cut of their sums: functions of the shapes alone.
#include "kernels/conv2d.h"

namespace dagrt {
namespace {

size_t round_up(int64_t n) { return size_t((n + 31) / 32 * 32); }

}  // namespace

int64_t conv2d_panel_floats(const PackConvArgs& a) {
  if (is_depthwise(a.groups, a.C, a.F)) return a.R * a.S * a.C;
  int64_t c = a.C / a.groups, f = a.F / a.groups;
  return a.groups * a.R * a.S * (a.transpose ? f * int64_t(round_up(c)) : c * int64_t(round_up(f)));
}

ConvMemory conv2d_memory(const ConvArgs& a) {
  int64_t depth = a.R * a.S * (a.C / a.groups);
  return {a.panels ? 0 : a.groups * round_up(a.F / a.groups) * size_t(depth) * 4 + 64, size_t(conv_block * depth) * 4 + 64};
}

ConvMemory conv2d_input_grad_memory(const ConvArgs& a) {
  int64_t depth = a.R * a.S * (a.F / a.groups);
  return {a.groups * round_up(a.C / a.groups) * size_t(depth) * 4 + 64,
          size_t(conv_block * (depth + int64_t(round_up(a.C / a.groups)))) * 4 + 128};
}

int64_t conv2d_filter_grad_splits(const ConvArgs& a) {
  int64_t pixels = a.B * a.P * a.Q, splits = 1;
  while (splits < 8 && a.R * a.groups * splits < 12 && pixels / (splits * 2) >= conv_grad_block) splits *= 2;
  return splits;
}

ConvMemory conv2d_filter_grad_memory(const ConvArgs& a) {
  int64_t splits = conv2d_filter_grad_splits(a);
  int64_t weights = a.R * a.S * (a.C / a.groups) * a.F;
  return {size_t(splits > 1 ? splits * weights : 0) * 4 + 64,
          size_t(conv_grad_block) * (size_t(a.S * (a.C / a.groups)) + round_up(a.F / a.groups)) * 4 + 128};
}

}  // namespace dagrt
