// fuse_pooling: maximum pooling of 2 x 2 pixels, side by side, becomes part of the convolution before it,
//   p, _ = max_pool2d(conv2d_winograd(x, u))   ->   p = conv2d_winograd(x, u) {pool: [2, 2]}
// and of conv2d_packed where its kernel can (conv2d_pools). The larger image is neither written nor read again, and the bits
// are the same: the largest of finished pixels. Not where the gradient wants the pooling's places or the larger image.
//
// Before: a specialised module behind fuse_epilogues, so that activations stand in the convolution. After: the same values.
#include <algorithm>

#include "ops/op.h"
#include "passes/passes.h"
#include "passes/uses.h"

namespace dagrt {
namespace {

class Fuser {
 public:
  explicit Fuser(Function& f) : f_(f), uses_(f) {}

  void run() {
    for (size_t i = 0; i < f_.nodes.size(); i++) {
      Node& n = f_.nodes[i];
      const int producer = n.op->name == "max_pool2d" ? pooled_by(n) : -1;
      if (producer < 0) continue;
      Node& conv = f_.nodes[size_t(producer)];
      AttrMap map = conv.op->attrs.write(conv.attrs.get());
      map["pool"] = {AttrList{{int64_t(2)}, {int64_t(2)}}};
      conv.attrs = conv.op->attrs.read(conv.op->name, map);
      conv.outputs[0] = n.outputs[0];
      add_paths(conv.paths, n.paths);
      n.op = nullptr;
    }
    f_.nodes.erase(std::remove_if(f_.nodes.begin(), f_.nodes.end(), [](const Node& n) { return !n.op; }), f_.nodes.end());
  }

 private:
  static bool all_are(const AttrValue& v, int64_t number) {
    for (const AttrValue& n : std::get<AttrList>(v.v))
      if (std::get<int64_t>(n.v) != number) return false;
    return true;
  }
  const Dims& shape(ValueId v) const { return f_.types[size_t(v)].shape; }

  /// The convolution that can do this pooling, or -1.
  int pooled_by(const Node& n) const {
    const AttrMap map = n.op->attrs.write(n.attrs.get());
    if (!all_are(map.at("pool"), 2) || !all_are(map.at("strides"), 2) || !all_are(map.at("pads"), 0)) return -1;
    const Dims &x = shape(n.inputs[0]), &y = shape(n.outputs[0]);
    if (f_.types[size_t(n.inputs[0])].dtype != DType::float32) return -1;
    for (size_t axis : {1, 2})
      if (y[axis].value() != x[axis].value() / 2) return -1;  // padded by 'same'
    if (uses_.kept[size_t(n.outputs[1])] || !uses_.users[size_t(n.outputs[1])].empty()) return -1;
    if (uses_.kept[size_t(n.inputs[0])] || uses_.users[size_t(n.inputs[0])].size() != 1) return -1;
    const int producer = uses_.producer[size_t(n.inputs[0])];
    return producer >= 0 && can(f_.nodes[size_t(producer)]) ? producer : -1;
  }

  bool can(const Node& conv) const {
    return conv.op && conv.op->pools && conv.op->pools(conv.attrs.get(), f_.types_of(conv.inputs), f_.types_of(conv.outputs));
  }

  Function& f_;
  Uses uses_;
};

}  // namespace

void fuse_pooling(Module& module) {
  for (Function& f : module.functions) Fuser(f).run();
}

}  // namespace dagrt
