// recompute_pointwise: what backward needs of a chain of pointwise ops is made there again from the value that the chain
// starts from, instead of being kept since forward. gelu(x) keeps x where it kept x / 2, x / sqrt(2), 1 + erf and itself.
//
// The place where most bytes are alive divides forward from backward. Of the values that live across it, those that
// pointwise ops make of one value x (and of small ones beside it: biases, scalars) are made again where that leaves fewer
// bytes alive: where x lives across it anyway, or where the chain keeps more than x is. Pointwise users behind share one copy,
// which fuses with them and so costs less than reading what was kept; all others share another, made before the first of them.
// Forward's own chain, which only its end leaves now, becomes one node. The same ops in the same order: the same bits.
//
// After Chen et al., "Training deep nets with sublinear memory cost" (2016), for the ops that cost nothing to repeat.
//
// Before and after: a specialised module without gradients; runs before the passes that fuse.
#include <algorithm>
#include <map>

#include "passes/passes.h"
#include "passes/uses.h"

namespace dagrt {
namespace {

constexpr int deepest = 8;          // ops from x to what is made again
constexpr int64_t small_part = 16;  // a value of so small a part of the result may live longer

class Recomputer {
 public:
  explicit Recomputer(Function& f)
      : f_(f), uses_(f), root_(f.types.size(), no_value), first_(f.types.size(), -1), last_(first_) {}

  void run() {
    measure_lifetimes();
    find_bases();
    const std::vector<ValueId> dropped = choose();
    if (dropped.empty()) return;
    std::vector<char> again(f_.types.size(), 0);
    for (ValueId v : dropped) again[size_t(v)] = 1;
    const std::vector<Node> old = std::move(f_.nodes);
    f_.nodes.clear();
    for (size_t i = 0; i < old.size(); i++) {
      Node n = old[i];  // a copy: nodes are made again of it
      if (int(i) > peak_)
        for (ValueId& v : n.inputs)
          if (v != no_value && again[size_t(v)]) v = copy_of(v, base_[size_t(v)], fuses_[i], old);
      f_.nodes.push_back(std::move(n));
    }
  }

 private:
  int64_t bytes(ValueId v) const { return f_.types[size_t(v)].bytes(); }
  bool crosses(ValueId v) const {
    const size_t r = size_t(root_[size_t(v)]);
    return first_[r] >= 0 && first_[r] < peak_ && last_[r] > peak_;
  }
  bool is_small(ValueId v, ValueId beside) const { return bytes(v) * small_part <= bytes(beside); }

  /// Of memory: reshapes are the same.
  void measure_lifetimes() {
    const int nodes = int(f_.nodes.size());
    for (const Input& i : f_.inputs) root_[size_t(i.value)] = i.value;
    std::vector<int64_t> change(size_t(nodes) + 2, 0);
    for (int i = 0; i < nodes; i++) {
      const Node& n = f_.nodes[size_t(i)];
      const bool leaf = n.op->role == Structural::read || n.op->role == Structural::constant;
      for (ValueId v : n.outputs) {
        root_[size_t(v)] = n.op->name == "reshape" ? root_[size_t(n.inputs[0])] : v;
        if (!leaf && root_[size_t(v)] == v) first_[size_t(v)] = last_[size_t(v)] = i;
      }
      for (ValueId v : n.inputs)
        if (v != no_value) last_[size_t(root_[size_t(v)])] = i;
    }
    for (size_t v = 0; v < f_.types.size(); v++)
      if (uses_.kept[v] && root_[v] != no_value) last_[size_t(root_[v])] = nodes;
    for (size_t v = 0; v < f_.types.size(); v++)
      if (first_[v] >= 0) {
        change[size_t(first_[v])] += bytes(ValueId(v));
        change[size_t(last_[v]) + 1] -= bytes(ValueId(v));
      }
    int64_t alive = 0, most = -1;
    for (int i = 0; i < nodes; i++) {
      alive += change[size_t(i)];
      if (alive > most) most = alive, peak_ = i;
    }
  }

  /// base_[v]: the value that pointwise ops make v of, or v itself.
  void find_bases() {
    base_.resize(f_.types.size());
    for (size_t v = 0; v < base_.size(); v++) base_[v] = ValueId(v);
    std::vector<int> depth(f_.types.size(), 0);
    for (const Node& n : f_.nodes) {
      fuses_.push_back(can_fuse(f_, n));
      if (!fuses_.back()) continue;
      const ValueId y = n.outputs[0];
      ValueId base = no_value;
      int deep = 0;
      bool one = true;
      for (ValueId v : n.inputs) {
        if (is_small(v, y)) continue;
        one = one && (base == no_value || base == base_[size_t(v)]);
        base = base_[size_t(v)];
        deep = std::max(deep, depth[size_t(v)] + 1);
      }
      // Where nothing else is made of x, y stands for it: a bias, which its producer can add.
      if (!one || base == no_value || deep > deepest || f_.types[size_t(base)].shape != f_.types[size_t(y)].shape ||
          first_[size_t(root_[size_t(base)])] < 0 || (uses_.users[size_t(base)].size() == 1 && !uses_.kept[size_t(base)]))
        continue;
      base_[size_t(y)] = base;
      depth[size_t(y)] = deep;
    }
  }

  /// The values to make again.
  std::vector<ValueId> choose() const {
    std::map<ValueId, std::pair<int64_t, std::vector<ValueId>>> groups;  // of a base: bytes gained, values
    for (size_t i = 0; i < f_.types.size(); i++) {
      const ValueId v = ValueId(i), x = base_[i];
      if (x == v || !crosses(v) || uses_.kept[i]) continue;
      const std::vector<int>& users = uses_.users[i];
      if (std::any_of(users.begin(), users.end(), [&](int u) { return f_.nodes[size_t(u)].op->name == "reshape"; })) continue;
      auto& [gained, values] = groups[x];
      if (values.empty() && !crosses(x)) gained -= bytes(x);
      gained += bytes(v);
      values.push_back(v);
    }
    std::vector<ValueId> all;
    for (const auto& [x, group] : groups)
      if (group.first > 0) all.insert(all.end(), group.second.begin(), group.second.end());
    return all;
  }

  /// v made again of its base, behind the nodes so far: once for users that fuse, once for the others.
  ValueId copy_of(ValueId v, ValueId base, bool fuses, const std::vector<Node>& old) {
    if (base_[size_t(v)] != base || v == base) return v;
    auto [at, fresh] = copies_.try_emplace({v, fuses}, no_value);
    if (!fresh) return at->second;
    Node n = old[size_t(uses_.producer[size_t(v)])];
    for (ValueId& u : n.inputs)
      if (!is_small(u, v)) u = copy_of(u, base, fuses, old);
    n.outputs = {at->second = f_.add_value(f_.types[size_t(v)])};
    f_.nodes.push_back(std::move(n));
    return at->second;
  }

  Function& f_;
  Uses uses_;
  int peak_ = 0;                   // the node at which most bytes are alive
  std::vector<ValueId> root_;      // whose memory a value is
  std::vector<int> first_, last_;  // of a root, from its producer to its last user; inputs and leaves have no first
  std::vector<ValueId> base_;
  std::vector<char> fuses_;  // nodes
  std::map<std::pair<ValueId, bool>, ValueId> copies_;
};

}  // namespace

void recompute_pointwise(Module& module) {
  for (Function& f : module.functions) Recomputer(f).run();
}

}  // namespace dagrt
