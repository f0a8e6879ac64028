// fuse_epilogues: pointwise ops behind a producer (an op with the attribute `epilogue`: products, convolutions, batch_norm)
// become its epilogue, which works on a finished tile while it is in registers or L1. So a bias, an activation, a residual
// sum, or the mask of a relu's gradient costs no pass over memory.
//
// From the product forwards, its users join one after another; what joins may bring along a pointwise operand that it alone
// uses (the comparison behind a mask). A chain may end where a single value of it is used outside; the longest such chain is
// taken. Its other operands must be scalars, one value for each channel, or of the product's shape. Producers are visited
// from the last to the first, so that of two whose products are added the later one adds, and nothing has to wait.
// Before and after: a specialised module without gradients; runs before fuse_pointwise, which takes what is left.
#include <algorithm>
#include <map>

#include "ops/epilogue.h"
#include "passes/passes.h"
#include "passes/uses.h"

namespace dagrt {
namespace {

bool has_epilogue(const Op& op) {
  static std::map<const Op*, bool> known = [] {
    std::map<const Op*, bool> all;
    for (const Op* o : all_ops()) {
      std::vector<std::string> names = o->attrs.names();
      all[o] = std::find(names.begin(), names.end(), "epilogue") != names.end();
    }
    return all;
  }();
  auto at = known.find(&op);
  return at != known.end() && at->second;
}

class Fuser {
 public:
  explicit Fuser(Function& f)
      : f_(f),
        uses_(f),
        moved_(f.nodes.size(), -1),
        taken_(f.nodes.size(), false),
        can_(f.nodes.size(), false),
        at_(f.nodes.size()) {
    for (size_t i = 0; i < f.nodes.size(); i++) can_[i] = can_fuse(f, f.nodes[i]);
  }

  void run() {
    bool any = false;
    for (size_t i = f_.nodes.size(); i-- > 0;)
      if (has_epilogue(*f_.nodes[i].op)) any |= fuse_behind(int(i));
    if (!any) return;
    std::vector<Node> old = std::move(f_.nodes);
    f_.nodes.clear();
    for (size_t i = 0; i < old.size(); i++) {
      for (Fused& fused : at_[i]) emit(fused, old);
      if (!taken_[i]) f_.nodes.push_back(std::move(old[i]));
    }
  }

 private:
  struct Chain {
    std::vector<int> members;       // nodes, in order
    std::vector<ValueId> operands;  // beside the product
    std::vector<double> constants;
  };
  struct Fused {
    int producer;
    Chain chain;
  };

  const TensorType& type(ValueId v) const { return f_.types[size_t(v)]; }
  ValueId result(int node) const { return f_.nodes[size_t(node)].outputs[0]; }
  static bool holds(const std::vector<int>& members, int node) {
    return std::binary_search(members.begin(), members.end(), node);
  }

  /// A number for all, one for each channel, or one for each element.
  static bool is_operand(const TensorType& t, const TensorType& y) {
    if (t.dtype != DType::float32) return false;
    return t.shape == y.shape || is_row(t, y) || t.elements() == 1;
  }
  static bool is_row(const TensorType& t, const TensorType& y) {
    if (t.rank() == 0 || t.rank() > y.rank() || t.shape.back() != y.shape.back()) return false;
    for (int k = 0; k + 1 < t.rank(); k++)
      if (!t.shape[size_t(k)].is(1)) return false;
    return true;
  }

  /// Lets node u join, and what it needs; false where it cannot.
  bool join(Chain& c, int u, ValueId product) const {
    const TensorType& y = type(product);
    if (!can_[size_t(u)] || taken_[size_t(u)] || type(result(u)).shape != y.shape) return false;
    if (c.members.size() >= size_t(fused_instructions)) return false;
    c.members.insert(std::lower_bound(c.members.begin(), c.members.end(), u), u);
    // It was an operand as long as others used it too.
    c.operands.erase(std::remove(c.operands.begin(), c.operands.end(), result(u)), c.operands.end());
    for (ValueId v : f_.nodes[size_t(u)].inputs) {
      if (v == product) continue;
      int p = uses_.producer[size_t(v)];
      if (p >= 0 && holds(c.members, p)) continue;
      if (uses_.constant[size_t(v)]) {
        if (find_number(c.constants, uses_.number[size_t(v)]) < c.constants.size()) continue;
        c.constants.push_back(uses_.number[size_t(v)]);
        if (c.constants.size() > size_t(fused_constants)) return false;
        continue;
      }
      if (bring(c, v, product)) continue;
      if (!is_operand(type(v), y)) return false;
      if (std::find(c.operands.begin(), c.operands.end(), v) != c.operands.end()) continue;
      c.operands.push_back(v);
      if (c.operands.size() > size_t(epilogue_operands)) return false;
    }
    return true;
  }

  /// The operand's own node joins too, where only members use it and it is read from no more memory than it is itself.
  bool bring(Chain& c, ValueId v, ValueId product) const {
    int p = uses_.producer[size_t(v)];
    if (p < 0 || uses_.kept[size_t(v)] || type(v).shape != type(product).shape) return false;
    for (int u : uses_.users[size_t(v)])
      if (!holds(c.members, u)) return false;
    Chain with = c;
    if (!join(with, p, product) || with.operands.size() > c.operands.size() + 1) return false;
    c = std::move(with);
    return true;
  }

  /// Whether only the last member's result is used outside.
  bool closed(const Chain& c, ValueId product) const {
    auto inside = [&](ValueId v) {
      if (uses_.kept[size_t(v)]) return false;
      for (int u : uses_.users[size_t(v)])
        if (!holds(c.members, u)) return false;
      return true;
    };
    if (!inside(product) || type(result(c.members.back())).dtype != DType::float32) return false;
    for (size_t i = 0; i + 1 < c.members.size(); i++)
      if (!inside(result(c.members[i]))) return false;
    return true;
  }

  /// The first user, in order, of the chain's values that may join next.
  bool grow(Chain& c, ValueId product) const {
    std::vector<int> next;
    auto collect = [&](ValueId v) {
      for (int u : uses_.users[size_t(v)])
        if (!holds(c.members, u)) next.push_back(u);
    };
    collect(product);
    for (int m : c.members) collect(result(m));
    std::sort(next.begin(), next.end());
    for (int u : next) {
      Chain with = c;
      if (!join(with, u, product)) continue;
      c = std::move(with);
      return true;
    }
    return false;
  }

  /// Where a node's inputs are read, and its outputs there: chains found so far have taken some nodes elsewhere.
  int position(int node) const { return moved_[size_t(node)] >= 0 ? moved_[size_t(node)] : node; }

  bool fuse_behind(int producer) {
    const Node& n = f_.nodes[size_t(producer)];
    ValueId product = n.outputs[0];
    const TensorType& y = type(product);
    if (y.dtype != DType::float32 || y.rank() == 0 || uses_.kept[size_t(product)]) return false;
    AttrMap attrs = n.op->attrs.write(n.attrs.get());
    auto old = attrs.find("epilogue");
    if (old != attrs.end() && !std::get<AttrList>(old->second.v).empty()) return false;
    Chain chain, best;
    while (grow(chain, product))
      if (closed(chain, product)) best = chain;
    if (best.members.empty()) return false;
    int place = place_for(producer, best);
    if (place < 0) return false;
    for (int m : best.members) taken_[size_t(m)] = true, moved_[size_t(m)] = place;
    taken_[size_t(producer)] = true;
    moved_[size_t(producer)] = place;
    at_[size_t(place)].push_back({producer, std::move(best)});
    return true;
  }

  /// The producer stays where it is if the operands are there by then; else it waits for the chain's end, unless its other
  /// outputs are needed before.
  int place_for(int producer, const Chain& c) const {
    bool there = true;
    for (ValueId v : c.operands) there = there && uses_.producer[size_t(v)] < producer;
    if (there) return producer;
    const Node& n = f_.nodes[size_t(producer)];
    int end = c.members.back();
    for (size_t o = 1; o < n.outputs.size(); o++)
      for (int u : uses_.users[size_t(n.outputs[o])])
        if (position(u) <= end) return -1;
    return end;
  }

  void emit(Fused& fused, std::vector<Node>& old) {
    Node n = std::move(old[size_t(fused.producer)]);
    const Chain& c = fused.chain;
    std::map<ValueId, size_t> number{{n.outputs[0], 0}};
    for (size_t i = 0; i < c.operands.size(); i++) number[c.operands[i]] = 1 + i;
    for (size_t i = 0; i < c.members.size(); i++) number[old[size_t(c.members[i])].outputs[0]] = 1 + c.operands.size() + i;
    AttrList program, constants;
    for (int m : c.members) {
      const Node& member = old[size_t(m)];
      std::string line = member.op->name;
      for (ValueId v : member.inputs) {
        if (auto at = number.find(v); at != number.end())
          line += " " + std::to_string(at->second);
        else
          line += " c" + std::to_string(find_number(c.constants, uses_.number[size_t(v)]));
      }
      program.push_back({std::move(line)});
      add_paths(n.paths, member.paths);
    }
    for (double x : c.constants) constants.push_back({x});
    AttrMap attrs = n.op->attrs.write(n.attrs.get());
    attrs["epilogue"] = {std::move(program)};
    attrs["epilogue_constants"] = {std::move(constants)};
    n.attrs = n.op->attrs.read(n.op->name, attrs);
    n.inputs.resize(size_t(n.op->max_inputs - epilogue_operands), no_value);
    n.inputs.insert(n.inputs.end(), c.operands.begin(), c.operands.end());
    n.outputs[0] = old[size_t(c.members.back())].outputs[0];
    f_.nodes.push_back(std::move(n));
  }

  Function& f_;
  Uses uses_;
  std::vector<int> moved_;              // of a node: where its chain stands, or -1
  std::vector<bool> taken_, can_;       // nodes
  std::vector<std::vector<Fused>> at_;  // by node: what is emitted in its place
};

}  // namespace

void fuse_epilogues(Module& module) {
  for (Function& f : module.functions) Fuser(f).run();
}

}  // namespace dagrt
