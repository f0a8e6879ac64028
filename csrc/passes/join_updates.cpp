// join_updates: optimiser updates of one kind, with the same attributes, learning rate and step, become one node over many
// variables (x_update_all): one list of work for the threads instead of one hand-over for each variable, of which many are
// a few numbers long.
//
// Only updates whose results are stored and used by nothing else join, under one condition, so that the plan may still let
// them write their variables' memory. The node stands where the last of them stood; every bit stays as it was.
// Before and after: a specialised module without gradients.
#include <map>

#include "ops/op.h"
#include "ops/optimizer.h"
#include "passes/passes.h"

namespace dagrt {
namespace {

struct Group {
  const Node* first = nullptr;
  ValueId when = no_value;
  std::vector<size_t> members;  // in order
};

class Joiner {
 public:
  explicit Joiner(Function& f) : f_(f), uses_(f.types.size(), 0) {
    auto use = [&](ValueId v) {
      if (v != no_value) uses_[size_t(v)]++;
    };
    for (const Node& n : f.nodes)
      for (ValueId v : n.inputs) use(v);
    for (ValueId v : f.outputs) use(v);
    for (const Store& s : f.stores) {
      use(s.value), use(s.when);
      stored_[s.value] = s.when;
    }
    use(f.guard);
  }

  void run() {
    if (f_.stores.empty()) return;
    std::vector<Group> groups;
    for (size_t i = 0; i < f_.nodes.size(); i++) collect(i, groups);
    std::map<size_t, const Group*> last;
    std::vector<bool> gone(f_.nodes.size(), false);
    for (const Group& g : groups) {
      if (g.members.size() < 2) continue;
      last[g.members.back()] = &g;
      for (size_t i : g.members) gone[i] = true;
    }
    if (last.empty()) return;
    std::vector<Node> nodes;
    for (size_t i = 0; i < f_.nodes.size(); i++) {
      if (auto at = last.find(i); at != last.end())
        nodes.push_back(joined(*at->second));
      else if (!gone[i])
        nodes.push_back(f_.nodes[i]);
    }
    f_.nodes = std::move(nodes);
  }

 private:
  /// The condition under which all results are stored; false where one is used otherwise.
  bool stored_alone(const Node& n, ValueId& when) const {
    for (size_t o = 0; o < n.outputs.size(); o++) {
      auto at = stored_.find(n.outputs[o]);
      if (at == stored_.end() || uses_[size_t(n.outputs[o])] != 1 || (o && at->second != when)) return false;
      when = at->second;
    }
    return true;
  }

  void collect(size_t index, std::vector<Group>& groups) const {
    const Node& n = f_.nodes[index];
    const Update* u = find_update(*n.op);
    ValueId when = no_value;
    if (!u || !stored_alone(n, when)) return;
    AttrMap attrs = n.op->attrs.write(n.attrs.get());
    for (auto g = groups.rbegin(); g != groups.rend(); ++g)
      if (g->members.size() < size_t(update_most) && g->when == when && same(*g->first, n, *u) &&
          equal(attrs, n.op->attrs.write(g->first->attrs.get())))
        return g->members.push_back(index);
    groups.push_back({&n, when, {index}});
  }

  bool same(const Node& a, const Node& b, const Update& u) const {
    if (a.op != b.op || f_.types[size_t(a.inputs[0])].dtype != f_.types[size_t(b.inputs[0])].dtype) return false;
    for (size_t i = size_t(u.states) + 1; i < a.inputs.size(); i++)
      if (a.inputs[i] != b.inputs[i]) return false;
    return true;
  }

  Node joined(const Group& g) const {
    const Update& u = *find_update(*g.first->op);
    const size_t each = size_t(u.states) + 1;
    Node n;
    n.op = u.all;
    n.attrs = u.all->attrs.read(u.all->name, u.all->attrs.write(g.first->attrs.get()));
    n.inputs.assign(g.first->inputs.begin() + int64_t(each), g.first->inputs.end());
    n.paths = g.first->paths;
    for (size_t i : g.members) {
      const Node& m = f_.nodes[i];
      n.inputs.insert(n.inputs.end(), m.inputs.begin(), m.inputs.begin() + int64_t(each));
      n.outputs.insert(n.outputs.end(), m.outputs.begin(), m.outputs.end());
    }
    return n;
  }

  Function& f_;
  std::vector<int> uses_;              // of a value
  std::map<ValueId, ValueId> stored_;  // value -> condition
};

}  // namespace

void join_updates(Module& module) { Joiner(module.functions.front()).run(); }

}  // namespace dagrt
