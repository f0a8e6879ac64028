// fuse_pointwise: chains and trees of pointwise ops over float32 (and bool) become one `pointwise` node.
//
// From a root backwards, a node joins where its result has the root's shape and only members of the chain use it; so
// nothing is computed twice, and what was between is never written to memory. Scalars made by `full` become constants
// of the program. Every bit stays as it was: the node runs the same strip functions in the same order.
// Before and after: a specialised module without gradients. The node keeps the layer paths of all its members.
#include <algorithm>
#include <map>

#include "ops/fused.h"
#include "ops/op.h"
#include "passes/passes.h"
#include "passes/uses.h"

namespace dagrt {
namespace {

class Fuser {
 public:
  explicit Fuser(Function& f) : f_(f), uses_(f), taken_(f.nodes.size(), false), can_(f.nodes.size(), false) {
    for (size_t i = 0; i < f.nodes.size(); i++) can_[i] = can_fuse(f, f.nodes[i]);
  }

  void run() {
    for (size_t i = f_.nodes.size(); i-- > 0;)
      if (can_[i] && !taken_[i]) fuse_from(int(i));
    std::vector<Node> nodes;
    for (size_t i = 0; i < f_.nodes.size(); i++)
      if (!taken_[i]) nodes.push_back(std::move(f_.nodes[i]));
    f_.nodes = std::move(nodes);
  }

 private:
  const TensorType& type(ValueId v) const { return f_.types[size_t(v)]; }

  struct Leaves {
    std::vector<ValueId> inputs;
    std::vector<double> constants;
  };
  Leaves leaves_of(const std::vector<int>& members) const {
    Leaves l;
    for (int m : members)
      for (ValueId v : f_.nodes[size_t(m)].inputs) {
        int p = uses_.producer[size_t(v)];
        if (p >= 0 && std::binary_search(members.begin(), members.end(), p)) continue;
        if (uses_.constant[size_t(v)]) {
          double c = uses_.number[size_t(v)];
          if (find_number(l.constants, c) == l.constants.size()) l.constants.push_back(c);
        } else if (std::find(l.inputs.begin(), l.inputs.end(), v) == l.inputs.end()) {
          l.inputs.push_back(v);
        }
      }
    return l;
  }
  static bool fits(const Leaves& l) {
    return !l.inputs.empty() && l.inputs.size() <= fused_most_inputs && l.constants.size() <= fused_most_constants;
  }

  void fuse_from(int root) {
    const Dims shape = type(f_.nodes[size_t(root)].outputs[0]).shape;
    std::vector<int> members{root};  // sorted: a valid order
    Leaves leaves = leaves_of(members);
    if (!fits(leaves)) return;
    for (bool grown = true; grown && members.size() < fused_most_instructions;) {
      grown = false;
      // The latest producer first: its users are then all known to be members or not.
      std::vector<int> candidates;
      for (int m : members)
        for (ValueId v : f_.nodes[size_t(m)].inputs)
          if (int p = uses_.producer[size_t(v)]; p >= 0 && can_join(p, shape, members)) candidates.push_back(p);
      std::sort(candidates.rbegin(), candidates.rend());
      for (int p : candidates) {
        std::vector<int> more = members;
        more.insert(std::lower_bound(more.begin(), more.end(), p), p);
        Leaves l = leaves_of(more);
        if (!fits(l)) continue;
        members = std::move(more);
        leaves = std::move(l);
        grown = true;
        break;
      }
    }
    if (members.size() < 2) return;
    emit(root, members, leaves);
  }

  bool can_join(int p, const Dims& shape, const std::vector<int>& members) const {
    const Node& n = f_.nodes[size_t(p)];
    if (!can_[size_t(p)] || taken_[size_t(p)] || std::binary_search(members.begin(), members.end(), p)) return false;
    ValueId v = n.outputs[0];
    if (uses_.kept[size_t(v)] || type(v).shape != shape) return false;
    for (int u : uses_.users[size_t(v)])
      if (!std::binary_search(members.begin(), members.end(), u)) return false;
    return true;
  }

  void emit(int root, const std::vector<int>& members, const Leaves& l) {
    std::map<ValueId, size_t> number;
    for (size_t i = 0; i < l.inputs.size(); i++) number[l.inputs[i]] = i;
    for (size_t i = 0; i < members.size(); i++) number[f_.nodes[size_t(members[i])].outputs[0]] = l.inputs.size() + i;
    std::vector<std::string> program, paths;
    for (int m : members) {
      const Node& n = f_.nodes[size_t(m)];
      std::string line = n.op->name;
      for (ValueId v : n.inputs) {
        if (auto at = number.find(v); at != number.end())
          line += " " + std::to_string(at->second);
        else
          line += " c" + std::to_string(find_number(l.constants, uses_.number[size_t(v)]));
      }
      program.push_back(std::move(line));
      add_paths(paths, n.paths);
    }
    Node fused;
    fused.op = &op("pointwise");
    fused.attrs = fused.op->attrs.read("pointwise", fused_attrs(program, l.constants));
    fused.inputs = l.inputs;
    fused.outputs = f_.nodes[size_t(root)].outputs;
    fused.paths = std::move(paths);
    for (int m : members) taken_[size_t(m)] = true;
    taken_[size_t(root)] = false;
    can_[size_t(root)] = false;
    f_.nodes[size_t(root)] = std::move(fused);
  }

  Function& f_;
  Uses uses_;
  std::vector<bool> taken_, can_;  // nodes
};

}  // namespace

void fuse_pointwise(Module& module) {
  for (Function& f : module.functions) Fuser(f).run();
}

}  // namespace dagrt
