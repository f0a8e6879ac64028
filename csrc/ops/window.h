// What convolution and pooling share: how a window walks over an image, in sizes that may be symbols.
#pragma once
#include "ops/op.h"

namespace dagrt {

/// "valid": windows inside only. "same": ceil(n / stride) outputs, an odd padding's larger part behind.
/// "explicit": `pads` = top, bottom, left, right.
struct WindowAttrs {
  std::vector<int64_t> strides{1, 1};
  std::string padding = "valid";
  std::vector<int64_t> pads{0, 0, 0, 0};
};

inline void check_window(const InferContext& c, const WindowAttrs& a, const std::vector<int64_t>& dilations) {
  auto positive = [&](const std::vector<int64_t>& v, const char* name) {
    if (v.size() != 2 || v[0] < 1 || v[1] < 1) c.fail(ErrorKind::graph, name, " must be 2 numbers of at least 1");
  };
  positive(a.strides, "strides");
  positive(dilations, "dilations");
  if (a.padding != "valid" && a.padding != "same" && a.padding != "explicit")
    c.fail(ErrorKind::graph, "padding must be 'valid', 'same' or 'explicit', got '", a.padding, "'");
  if (a.pads.size() != 4) c.fail(ErrorKind::graph, "pads must be 4 numbers: top, bottom, left, right");
}

/// Outputs along an axis of n for a window that reaches over `reach` positions.
inline Dim window_outputs(const InferContext& c, const Dim& n, int64_t reach, int axis, const WindowAttrs& a) {
  int64_t stride = a.strides[size_t(axis)];
  if (a.padding == "same") return ceil_div(n, stride);
  int64_t pads = a.padding == "explicit" ? a.pads[size_t(axis * 2)] + a.pads[size_t(axis * 2 + 1)] : 0;
  if (n.known() && n.value() + pads < reach)
    c.fail(ErrorKind::shape, "a window over ", reach, " positions does not fit into ", n.value() + pads, " (axis ", axis + 1,
           "); use padding 'same', a smaller window or a larger image");
  return floor_div(n + Dim(pads - reach), Dim(stride)) + Dim(1);
}

/// Padding before the first position of an axis of n.
inline int64_t window_pad(int64_t n, int64_t reach, int axis, const WindowAttrs& a) {
  if (a.padding == "explicit") return a.pads[size_t(axis * 2)];
  if (a.padding == "valid") return 0;
  const int64_t stride = a.strides[size_t(axis)], total = ((n + stride - 1) / stride - 1) * stride + reach - n;
  return total > 0 ? total / 2 : 0;
}

}  // namespace dagrt
