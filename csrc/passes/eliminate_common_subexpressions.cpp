// eliminate_common_subexpressions: of two nodes with the same op, attributes and inputs, the later one becomes the first.
//
// Random ops are never merged (two draws are two draws), nor scans. The one kept gets both nodes' paths.
#include <algorithm>
#include <unordered_map>

#include "ir/op_view.h"
#include "ops/op.h"
#include "passes/passes.h"

namespace dagrt {
namespace {

size_t hash_of(const Node& n) {
  size_t h = std::hash<const void*>()(n.op);
  for (ValueId v : n.inputs) h = attr_detail::mix(h, size_t(v + 1));
  return attr_detail::mix(h, n.op->attrs.hash(n.attrs.get()));
}

bool same(const Node& a, const Node& b) {
  return a.op == b.op && a.inputs == b.inputs && a.outputs.size() == b.outputs.size() &&
         (a.attrs == b.attrs || equal(a.op->attrs.write(a.attrs.get()), b.op->attrs.write(b.attrs.get())));
}

void run(Function& f) {
  std::vector<ValueId> alias(f.types.size());
  for (size_t v = 0; v < alias.size(); v++) alias[v] = ValueId(v);
  std::unordered_multimap<size_t, size_t> seen;  // hash -> place among the kept
  std::vector<Node> kept;
  kept.reserve(f.nodes.size());
  for (Node& n : f.nodes) {
    for (ValueId& v : n.inputs)
      if (v != no_value) v = alias[size_t(v)];
    if (!n.op->random && n.op->role != Structural::scan) {
      size_t h = hash_of(n);
      auto [from, to] = seen.equal_range(h);
      auto twin = std::find_if(from, to, [&](const auto& e) { return same(kept[e.second], n); });
      if (twin != to) {
        Node& first = kept[twin->second];
        for (size_t i = 0; i < n.outputs.size(); i++) alias[size_t(n.outputs[i])] = first.outputs[i];
        for (const std::string& p : n.paths)
          if (first.paths.size() < 8 && std::find(first.paths.begin(), first.paths.end(), p) == first.paths.end())
            first.paths.push_back(p);
        continue;
      }
      seen.emplace(h, kept.size());
    }
    kept.push_back(std::move(n));
  }
  f.nodes = std::move(kept);
  apply_aliases(f, alias);
}

}  // namespace

void eliminate_common_subexpressions(Module& module) {
  for (Function& f : module.functions) run(f);
}

}  // namespace dagrt
