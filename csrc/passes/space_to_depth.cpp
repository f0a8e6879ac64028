// space_to_depth: a convolution of stride s over few channels becomes one of stride 1 over s² times as many, each of them the
// pixels of one remainder of rows and columns, where minimal filtering then saves more than moving pixels costs:
//   conv2d(x, w) {strides: [s, s]}              ->  conv2d(depth(x), depth(w)) {strides: [1, 1]}
//   conv2d_filter_grad(x, dy) {strides: [s, s]} ->  undepth(conv2d_filter_grad(depth(x), dy) {strides: [1, 1]})
//   depth(x)[b, i, j, (m, n, c)] = x[b, s i + m, s j + n, c],  depth(w) the same of w's first two axes,
// x with zeros behind up to whole blocks, and without the last rows and columns if no window sees them; w with as many before it
// that its first tap falls on a block's first pixel, and behind. A 7x7 window with stride 2, the first layer of many networks,
// becomes one of 4x4: F(4,4) makes a quarter of the products. (The rearrangement is TensorFlow's space_to_depth; MLPerf's
// ResNet-50 treats its first layer so.)
//
// Before: a specialised module without gradients, before its batch is split. After: the same, with other roundings.
#include <algorithm>
#include <map>
#include <tuple>

#include "ir/lists.h"
#include "ops/op.h"
#include "passes/conv.h"
#include "passes/passes.h"
#include "passes/steady.h"

namespace dagrt {
namespace {

constexpr double move_ns = 0.25;  // a float, to its place in depth(x) or depth(w)

class Rearranger {
 public:
  Rearranger(Module& m, Function& f) : f_(f), b_(m, f), steady_(steady_values(f)) {}

  void run() {
    std::vector<Node> old = std::move(f_.nodes);
    f_.nodes.clear();
    f_.nodes.reserve(old.size());
    for (Node& n : old) {
      b_.paths = n.paths;
      if (n.op->name == "conv2d" && n.inputs.size() == 2)
        convolution(n);
      else if (n.op->name == "conv2d_filter_grad")
        filter_gradient(n);
      else
        f_.nodes.push_back(std::move(n));
    }
  }

 private:
  const Dims& shape(ValueId v) const { return f_.types[size_t(v)].shape; }

  /// A convolution and the one of stride 1 that does the same.
  struct Depth {
    Conv of;
    ConvSizes s;                // of the other
    int64_t stride, before[2];  // zeros before w's rows and columns
    std::vector<int64_t> pads;  // of the other

    explicit Depth(const Conv& c) : of(c), s(c.s), stride(c.strides[0]), pads(c.pads) {
      s.H = (s.H + stride - 1) / stride, s.W = (s.W + stride - 1) / stride;
      s.C *= stride * stride;
      const int64_t out[2] = {s.P, s.Q};
      int64_t *in[2] = {&s.H, &s.W}, *window[2] = {&s.R, &s.S};
      for (size_t axis : {0, 1}) {
        const int64_t pad = (c.pads[2 * axis] + stride - 1) / stride;
        before[axis] = pad * stride - c.pads[2 * axis];
        *window[axis] = (*window[axis] - 1 + before[axis]) / stride + 1;
        const int64_t seen = out[axis] - 1 + *window[axis] - pad;
        if (seen < *in[axis]) *in[axis] = seen;
        pads[2 * axis] = pad, pads[2 * axis + 1] = seen - *in[axis];
      }
    }
    /// What it moves: x where no one has yet, and w.
    double moved(bool image, bool weights) const {
      return move_ns * (image ? double(s.B * s.H * s.W * s.C) : 0) + move_ns * (weights ? double(s.R * s.S * s.C * s.F) : 0);
    }
    AttrMap attrs() const {
      return {
          {"strides", attr_list(std::vector<int64_t>{1, 1})}, {"padding", {std::string("explicit")}}, {"pads", attr_list(pads)}};
    }
  };

  /// Whether `c` has such another at all.
  static bool fits(const Conv& c) {
    if (c.empty() || c.s.groups != 1 || c.strides[0] != c.strides[1] || c.strides[0] == 1) return false;
    if (c.dilations[0] != 1 || c.dilations[1] != 1) return false;
    const Depth d(c);
    return d.s.H > 0 && d.s.W > 0 && has_winograd(d.s.R, d.s.S, tile);
  }

  void convolution(Node& n) {
    const AttrMap map = n.op->attrs.write(n.attrs.get());
    const Conv c(map, shape(n.inputs[0]), shape(n.inputs[1]), shape(n.outputs[0]));
    const bool steady = steady_[size_t(n.inputs[1])];
    if (fits(c) && is_float(n)) {
      const Depth d(c);
      const double ns = winograd_conv2d_ns(d.s, tile, !steady) + d.moved(!made(n.inputs[0], d), !steady);
      if (ns < direct_conv2d_ns(c.s)) {
        n.inputs = {image(n.inputs[0], d), weights(n.inputs[1], d)};
        n.attrs = n.op->attrs.read(n.op->name, d.attrs());
      }
    }
    f_.nodes.push_back(std::move(n));
  }

  void filter_gradient(Node& n) {
    const AttrMap map = n.op->attrs.write(n.attrs.get());
    const Conv c(map, shape(n.inputs[0]), shape(n.outputs[0]), shape(n.inputs[1]));
    if (fits(c) && is_float(n)) {
      const Depth d(c);
      if (winograd_filter_grad_ns(d.s, tile) + d.moved(!made(n.inputs[0], d), true) < direct_conv2d_ns(c.s, true)) {
        AttrMap attrs = d.attrs();
        attrs["kernel_size"] = attr_list(std::vector<int64_t>{d.s.R, d.s.S});
        const ValueId x = image(n.inputs[0], d), dw = b_.emit(n.op->name.c_str(), {x, n.inputs[1]}, attrs);
        const int64_t R = d.s.R, S = d.s.S, s = d.stride, C = c.s.C, F = c.s.F;
        ValueId y = b_.transpose(b_.reshape(dw, {R, S, s, s, C, F}), {0, 2, 1, 3, 4, 5});
        n.inputs = {b_.reshape(y, {R * s, S * s, C, F})};
        n.op = &op("slice");
        n.attrs = n.op->attrs.read("slice", part({d.before[0], d.before[1], 0, 0}, {c.s.R, c.s.S, C, F}));
      }
    }
    f_.nodes.push_back(std::move(n));
  }

  bool is_float(const Node& n) const {
    return f_.types[size_t(n.inputs[0])].dtype == DType::float32 && f_.types[size_t(n.inputs[1])].dtype == DType::float32;
  }

  using Image = std::tuple<ValueId, int64_t, int64_t, int64_t>;  // x, stride, rows and columns
  bool made(ValueId x, const Depth& d) const { return images_.count({x, d.stride, d.s.H, d.s.W}); }

  ValueId image(ValueId x, const Depth& d) {
    auto [at, is_new] = images_.try_emplace(Image{x, d.stride, d.s.H, d.s.W}, no_value);
    if (!is_new) return at->second;
    const ConvSizes &c = d.of.s, &to = d.s;
    const int64_t s = d.stride, H = std::min(c.H, to.H * s), W = std::min(c.W, to.W * s);
    ValueId y = H == c.H && W == c.W ? x : b_.emit("slice", {x}, part({0, 0, 0, 0}, {c.B, H, W, c.C}));
    y = padded(y, {0, 0, 0, 0}, {0, to.H * s - H, to.W * s - W, 0});
    y = b_.transpose(b_.reshape(y, {c.B, to.H, s, to.W, s * c.C}), {0, 1, 3, 2, 4});
    return at->second = b_.reshape(y, {c.B, to.H, to.W, to.C});
  }

  using Weights = std::tuple<ValueId, int64_t, int64_t, int64_t>;  // w, stride, zeros before rows and columns
  ValueId weights(ValueId w, const Depth& d) {
    auto [at, is_new] = weights_.try_emplace(Weights{w, d.stride, d.before[0], d.before[1]}, no_value);
    if (!is_new) return at->second;
    const ConvSizes &c = d.of.s, &to = d.s;
    const int64_t s = d.stride;
    const std::vector<int64_t> low{d.before[0], d.before[1], 0, 0};
    ValueId y = padded(w, low, {to.R * s - c.R - low[0], to.S * s - c.S - low[1], 0, 0});
    y = b_.transpose(b_.reshape(y, {to.R, s, to.S, s, c.C, c.F}), {0, 2, 1, 3, 4, 5});
    return at->second = b_.reshape(y, {to.R, to.S, to.C, to.F});
  }

  static AttrMap part(const std::vector<int64_t>& begin, const std::vector<int64_t>& size) {
    return {{"begin", attr_list(begin)}, {"size", attr_list(size)}, {"stride", attr_list(std::vector<int64_t>{1, 1, 1, 1})}};
  }

  ValueId padded(ValueId v, const std::vector<int64_t>& low, const std::vector<int64_t>& high) {
    if (low == std::vector<int64_t>(4) && high == low) return v;
    return b_.emit(
        "pad", {v},
        {{"low", attr_list(low)}, {"high", attr_list(high)}, {"interior", attr_list(std::vector<int64_t>(4))}, {"value", {0.0}}});
  }

  static constexpr int64_t tile = 4;
  Function& f_;
  Builder b_;
  std::vector<char> steady_;  // by value of before
  std::map<Image, ValueId> images_;
  std::map<Weights, ValueId> weights_;
};

}  // namespace

void space_to_depth(Module& module) { Rearranger(module, module.functions.front()).run(); }

}  // namespace dagrt
