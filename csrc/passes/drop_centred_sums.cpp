// drop_centred_sums: the sum over all rows of batch_norm_grad's dx becomes zeros. It is zero by construction, for a constant
// added to every row moves the mean alone; what was computed is rounding. So the gradient of a bias before a normalisation
// costs no pass over dx.
//
// Before and after: a specialised module without gradients.
#include "ops/op.h"
#include "passes/passes.h"

namespace dagrt {
namespace {

void drop(Function& f) {
  std::vector<bool> centred(f.types.size(), false);
  const Op* sum = &op("reduce_sum");
  for (Node& n : f.nodes) {
    if (n.op->name == "batch_norm_grad") centred[size_t(n.outputs[0])] = true;
    if (n.op != sum || !centred[size_t(n.inputs[0])]) continue;
    const TensorType &x = f.types[size_t(n.inputs[0])], &y = f.types[size_t(n.outputs[0])];
    AttrMap attrs = n.op->attrs.write(n.attrs.get());
    std::vector<bool> summed(size_t(x.rank()), false);
    for (const AttrValue& a : std::get<AttrList>(attrs.at("axes").v)) {
      int64_t axis = std::get<int64_t>(a.v);
      summed[size_t(axis < 0 ? axis + x.rank() : axis)] = true;
    }
    bool rows = !summed.back();
    for (size_t k = 0; k + 1 < summed.size(); k++) rows = rows && summed[k];
    if (!rows || x.elements() == 0) continue;
    AttrList shape;
    for (const Dim& d : y.shape) shape.push_back({d.value()});
    n.op = &op("full");
    n.attrs = n.op->attrs.read("full", {{"shape", {shape}}, {"value", {0.0}}, {"dtype", {std::string("float32")}}});
    n.inputs.clear();
  }
}

}  // namespace

void drop_centred_sums(Module& module) {
  for (Function& f : module.functions) drop(f);
}

}  // namespace dagrt
