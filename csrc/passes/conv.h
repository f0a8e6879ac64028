// Convolutions as passes that choose between their algorithms see them.
#pragma once
#include <string>
#include <vector>

#include "ir/attr.h"
#include "ops/estimate.h"
#include "ops/window.h"

namespace dagrt {

inline std::vector<int64_t> numbers(const AttrMap& map, const char* name) {
  std::vector<int64_t> all;
  for (const AttrValue& v : std::get<AttrList>(map.at(name).v)) all.push_back(std::get<int64_t>(v.v));
  return all;
}

/// A convolution as its three ops have it: sizes and window; `pads` top, bottom, left, right.
struct Conv {
  ConvSizes s;
  std::vector<int64_t> strides, dilations, pads{0, 0, 0, 0};

  Conv(const AttrMap& map, const Dims& x, const Dims& w, const Dims& y) {
    s.B = x[0].value(), s.H = x[1].value(), s.W = x[2].value(), s.C = x[3].value();
    s.P = y[1].value(), s.Q = y[2].value(), s.F = y[3].value();
    s.R = w[0].value(), s.S = w[1].value();
    s.groups = std::get<int64_t>(map.at("groups").v);
    strides = numbers(map, "strides"), dilations = numbers(map, "dilations");
    WindowAttrs window;
    window.strides = strides, window.pads = numbers(map, "pads");
    window.padding = std::get<std::string>(map.at("padding").v);
    const int64_t n[2] = {s.H, s.W}, outputs[2] = {s.P, s.Q};
    for (int axis = 0; axis < 2; axis++) {
      size_t at = size_t(axis);
      int64_t before = window_pad(n[axis], reach(axis), axis, window);
      pads[2 * at] = before;
      pads[2 * at + 1] = (outputs[axis] - 1) * strides[at] + reach(axis) - n[axis] - before;
    }
  }
  int64_t reach(int axis) const { return ((axis ? s.S : s.R) - 1) * dilations[size_t(axis)] + 1; }
  bool unit_strides() const { return strides[0] == 1 && strides[1] == 1; }
  bool plain() const { return unit_strides() && dilations[0] == 1 && dilations[1] == 1 && s.groups == 1; }
  bool empty() const { return s.B * s.P * s.Q * s.C * s.F == 0; }
};

}  // namespace dagrt
