// simplify_row_sums: sums of a gradient over all rows (of a bias, that is) that are known without a pass over it.
//   of batch_norm_grad's dx    zero by construction, for a constant added to every row moves the mean alone; what was
//                              computed is rounding
//   of max_pool2d_grad's dx    the sum of its dy, for each window sends on what it has, to one pixel
// Before and after: a specialised module without gradients. Rounding differs, as of a sum in another order.
#include "ir/lists.h"
#include "ops/op.h"
#include "passes/passes.h"

namespace dagrt {
namespace {

/// Whether a reduce_sum is over all axes but the last.
bool over_rows(const Node& n, int rank) {
  AttrMap attrs = n.op->attrs.write(n.attrs.get());
  std::vector<bool> summed(size_t(rank), false);
  for (const AttrValue& a : std::get<AttrList>(attrs.at("axes").v)) {
    int64_t axis = std::get<int64_t>(a.v);
    summed[size_t(axis < 0 ? axis + rank : axis)] = true;
  }
  bool rows = !summed.back();
  for (size_t k = 0; k + 1 < summed.size(); k++) rows = rows && summed[k];
  return rows;
}

void simplify(Function& f) {
  std::vector<bool> centred(f.types.size(), false);
  std::vector<ValueId> pooled(f.types.size(), no_value);  // of a pooling's dx: its dy
  const Op* sum = &op("reduce_sum");
  for (Node& n : f.nodes) {
    if (n.op->name == "batch_norm_grad") centred[size_t(n.outputs[0])] = true;
    if (n.op->name == "max_pool2d_grad") pooled[size_t(n.outputs[0])] = n.inputs[0];
    if (n.op != sum) continue;
    ValueId from = n.inputs[0];
    const TensorType &x = f.types[size_t(from)], &y = f.types[size_t(n.outputs[0])];
    if ((!centred[size_t(from)] && pooled[size_t(from)] == no_value) || x.elements() == 0 || !over_rows(n, x.rank())) continue;
    if (!centred[size_t(from)]) {
      n.inputs[0] = pooled[size_t(from)];
      continue;
    }
    n.op = &op("full");
    n.attrs = n.op->attrs.read("full", {{"shape", attr_list(y.shape)}, {"value", {0.0}}, {"dtype", {std::string("float32")}}});
    n.inputs.clear();
  }
}

}  // namespace

void simplify_row_sums(Module& module) {
  for (Function& f : module.functions) simplify(f);
}

}  // namespace dagrt
