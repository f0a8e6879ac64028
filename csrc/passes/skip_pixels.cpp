// skip_pixels: a convolution of 1x1 windows with strides reads every so many pixels of its image alone. They are taken out first,
//   conv2d(x, w) {strides: [s, t]}              ->  conv2d(slice(x), w)
//   conv2d_filter_grad(x, dy) {strides: [s, t]} ->  conv2d_filter_grad(slice(x), dy),  slice(x) = x[:, ::s, ::t]
// and what is left is a product of all pixels, which needs no gathering and can be parted by filters as well as by pixels:
// 49 pixels by 2,048 filters took one thread alone. Convolutions of one image (a residual block's two) share the slice.
//
// Before: a specialised module without gradients. After: the same values.
#include <map>
#include <tuple>

#include "ir/lists.h"
#include "ops/op.h"
#include "passes/conv.h"
#include "passes/passes.h"

namespace dagrt {
namespace {

class Skipper {
 public:
  Skipper(Module& m, Function& f) : f_(f), b_(m, f) {}

  void run() {
    std::vector<Node> old = std::move(f_.nodes);
    f_.nodes.clear();
    f_.nodes.reserve(old.size());
    for (Node& n : old) {
      if (n.op->name == "conv2d" && n.inputs.size() == 2)
        skip(n, n.inputs[1], n.outputs[0]);
      else if (n.op->name == "conv2d_filter_grad")
        skip(n, n.outputs[0], n.inputs[1]);
      f_.nodes.push_back(std::move(n));
    }
  }

 private:
  const Dims& shape(ValueId v) const { return f_.types[size_t(v)].shape; }

  void skip(Node& n, ValueId w, ValueId y) {
    AttrMap map = n.op->attrs.write(n.attrs.get());
    const Conv c(map, shape(n.inputs[0]), shape(w), shape(y));
    if (c.empty() || c.s.R != 1 || c.s.S != 1 || c.unit_strides() || c.pads[0] || c.pads[2]) return;
    if (c.pads[1] > 0 || c.pads[3] > 0) return;  // below 0: rows that no window sees
    b_.paths = n.paths;
    auto [at, is_new] = slices_.try_emplace({n.inputs[0], c.strides[0], c.strides[1], c.s.P, c.s.Q}, no_value);
    if (is_new)
      at->second = b_.emit("slice", {n.inputs[0]},
                           {{"begin", attr_list(std::vector<int64_t>(4))},
                            {"size", attr_list(std::vector<int64_t>{c.s.B, c.s.P, c.s.Q, c.s.C})},
                            {"stride", attr_list(std::vector<int64_t>{1, c.strides[0], c.strides[1], 1})}});
    n.inputs[0] = at->second;
    map["strides"] = attr_list(std::vector<int64_t>{1, 1});
    map["padding"] = {std::string("valid")};
    n.attrs = n.op->attrs.read(n.op->name, map);
  }

  Function& f_;
  Builder b_;
  std::map<std::tuple<ValueId, int64_t, int64_t, int64_t, int64_t>, ValueId> slices_;  // by image, strides, rows and columns
};

}  // namespace

void skip_pixels(Module& module) {
  for (Function& f : module.functions) Skipper(module, f).run();
}

}  // namespace dagrt
