// fuse_pointwise: chains and trees of pointwise ops over float32 (and bool) become one `pointwise` node.
//
// From a root backwards, a node joins where its result has the root's shape and only members of the chain use it; so
// nothing is computed twice, and what was between is never written to memory. Scalars made by `full` become constants
// of the program. Every bit stays as it was: the node runs the same strip functions in the same order.
// Before and after: a specialised module without gradients. The node keeps the layer paths of all its members.
#include <algorithm>
#include <cstring>
#include <map>

#include "ops/fused.h"
#include "ops/op.h"
#include "passes/passes.h"

namespace dagrt {
namespace {

class Fuser {
 public:
  explicit Fuser(Function& f) : f_(f) {
    producer_.assign(f.types.size(), -1);
    users_.resize(f.types.size());
    for (size_t i = 0; i < f.nodes.size(); i++) {
      for (ValueId v : f.nodes[i].outputs) producer_[size_t(v)] = int(i);
      for (ValueId v : f.nodes[i].inputs)
        if (v != no_value) users_[size_t(v)].push_back(int(i));
    }
    kept_.assign(f.types.size(), false);
    auto keep = [&](ValueId v) {
      if (v != no_value) kept_[size_t(v)] = true;
    };
    for (ValueId v : f.outputs) keep(v);
    for (const Store& s : f.stores) keep(s.value), keep(s.when);
    keep(f.guard);
    taken_.assign(f.nodes.size(), false);
    can_.assign(f.nodes.size(), false);
    for (size_t i = 0; i < f.nodes.size(); i++) can_[i] = can_fuse(f.nodes[i]);
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

  bool can_fuse(const Node& n) const {
    if (n.outputs.size() != 1) return false;
    Types in;
    for (ValueId v : n.inputs) {
      if (v == no_value) return false;
      in.push_back(type(v));
    }
    return type(n.outputs[0]).rank() > 0 && fusable(*n.op, in, type(n.outputs[0]));
  }

  /// The number that a scalar `full` of float32 makes.
  bool is_constant(ValueId v, double& value) const {
    int p = producer_[size_t(v)];
    if (p < 0 || f_.nodes[size_t(p)].op->name != "full") return false;
    if (type(v).dtype != DType::float32 || type(v).rank() != 0) return false;
    const Node& n = f_.nodes[size_t(p)];
    AttrMap map = n.op->attrs.write(n.attrs.get());
    if (auto* d = std::get_if<double>(&map.at("value").v))
      value = *d;
    else
      return false;
    return true;
  }

  struct Leaves {
    std::vector<ValueId> inputs;
    std::vector<double> constants;
  };
  Leaves leaves_of(const std::vector<int>& members) const {
    Leaves l;
    for (int m : members)
      for (ValueId v : f_.nodes[size_t(m)].inputs) {
        double c = 0;
        int p = producer_[size_t(v)];
        if (p >= 0 && std::binary_search(members.begin(), members.end(), p)) continue;
        if (is_constant(v, c)) {
          if (find_constant(l.constants, c) == l.constants.size()) l.constants.push_back(c);
        } else if (std::find(l.inputs.begin(), l.inputs.end(), v) == l.inputs.end()) {
          l.inputs.push_back(v);
        }
      }
    return l;
  }
  static size_t find_constant(const std::vector<double>& all, double c) {  // by bits: -0 is not 0
    size_t i = 0;
    while (i < all.size() && std::memcmp(&all[i], &c, sizeof c) != 0) i++;
    return i;
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
          if (int p = producer_[size_t(v)]; p >= 0 && can_join(p, shape, members)) candidates.push_back(p);
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
    if (kept_[size_t(v)] || type(v).shape != shape) return false;
    for (int u : users_[size_t(v)])
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
        double c = 0;
        if (auto at = number.find(v); at != number.end())
          line += " " + std::to_string(at->second);
        else if (is_constant(v, c))
          line += " c" + std::to_string(find_constant(l.constants, c));
      }
      program.push_back(std::move(line));
      for (const std::string& p : n.paths)
        if (paths.size() < 8 && std::find(paths.begin(), paths.end(), p) == paths.end()) paths.push_back(p);
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
  std::vector<int> producer_;            // of a value: node, or -1
  std::vector<std::vector<int>> users_;  // of a value: nodes
  std::vector<bool> kept_;               // values that leave the function
  std::vector<bool> taken_, can_;        // nodes
};

}  // namespace

void fuse_pointwise(Module& module) {
  for (Function& f : module.functions) Fuser(f).run();
}

}  // namespace dagrt
