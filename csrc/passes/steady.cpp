#include "passes/steady.h"

#include <set>

#include "ops/op.h"

namespace dagrt {

std::vector<char> steady_values(const Function& f) {
  std::set<int64_t> written;
  for (const Store& s : f.stores) written.insert(s.variable);
  std::vector<char> steady(f.types.size());
  for (const Node& n : f.nodes) {
    bool same = false;
    if (n.op->role == Structural::constant)
      same = true;
    else if (n.op->role == Structural::read)
      same = n.inputs.empty() && !written.count(n.as<ReadAttrs>().variable);
    else if (n.op->role == Structural::none && n.op->run && !n.op->checks && !n.op->random) {
      same = true;
      for (ValueId v : n.inputs) same = same && (v == no_value || steady[size_t(v)]);
    }
    for (ValueId v : n.outputs) steady[size_t(v)] = same;
  }
  return steady;
}

}  // namespace dagrt
