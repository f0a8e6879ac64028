// add_in_scatter: x + scatter_add(ids, updates) becomes scatter_add_into(ids, updates, x), which adds to x where it lies. An
// embedding that a model uses twice has the sum of two such gradients, each of the whole table and mostly zeros.
//
// Of CPUs, float32, where nothing else reads the scatter_add. The node stands where the addition stood. Rounding differs, as of
// a sum in another order.
// Before and after: a specialised module without gradients.
#include "passes/passes.h"
#include "passes/uses.h"

namespace dagrt {
namespace {

void add_in(Function& f) {
  const Uses uses(f);
  std::vector<bool> gone(f.nodes.size(), false);
  for (Node& n : f.nodes) {
    if (n.op->name != "add") continue;
    const TensorType& type = f.types[size_t(n.outputs[0])];
    // The later of two: what it reads is alive there anyway.
    int last = -1;
    ValueId base = no_value;
    for (size_t i = 0; i < 2; i++) {
      const ValueId v = n.inputs[i], other = n.inputs[1 - i];
      const int at = uses.producer[size_t(v)];
      if (uses.made_by(f, v, "scatter_add") && uses.users[size_t(v)].size() == 1 && !uses.kept[size_t(v)] && v != other &&
          type.dtype == DType::float32 && f.types[size_t(v)] == type && f.types[size_t(other)] == type && at > last)
        last = at, base = other;
    }
    if (last < 0) continue;
    const Node& scatter = f.nodes[size_t(last)];
    add_paths(n.paths, scatter.paths);
    n.op = &op("scatter_add_into");
    n.attrs = n.op->attrs.read(n.op->name, scatter.op->attrs.write(scatter.attrs.get()));
    n.inputs = {scatter.inputs[0], scatter.inputs[1], base};
    gone[size_t(last)] = true;
  }
  std::vector<Node> nodes;
  for (size_t i = 0; i < f.nodes.size(); i++)
    if (!gone[i]) nodes.push_back(std::move(f.nodes[i]));
  f.nodes = std::move(nodes);
}

}  // namespace

void add_in_scatter(Module& module) {
  for (Function& f : module.functions) add_in(f);
}

}  // namespace dagrt
