#include "passes/uses.h"

#include <algorithm>
#include <cstring>

#include "ops/fused.h"

namespace dagrt {

Uses::Uses(const Function& f)
    : producer(f.types.size(), -1),
      users(f.types.size()),
      kept(f.types.size(), false),
      constant(f.types.size(), false),
      number(f.types.size(), 0) {
  const Op* full = &op("full");
  for (size_t i = 0; i < f.nodes.size(); i++) {
    const Node& n = f.nodes[i];
    for (ValueId v : n.outputs) producer[size_t(v)] = int(i);
    if (n.op == full) {
      size_t v = size_t(n.outputs[0]);
      constant[v] = f.types[v].dtype == DType::float32 && f.types[v].rank() == 0;
      if (constant[v]) number[v] = std::get<double>(full->attrs.write(n.attrs.get()).at("value").v);
    }
    for (ValueId v : n.inputs) {
      if (v == no_value) continue;
      std::vector<int>& list = users[size_t(v)];
      if (list.empty() || list.back() != int(i)) list.push_back(int(i));
    }
  }
  auto keep = [&](ValueId v) {
    if (v != no_value) kept[size_t(v)] = true;
  };
  for (ValueId v : f.outputs) keep(v);
  for (const Store& s : f.stores) keep(s.value), keep(s.when);
  keep(f.guard);
}

const Node* Uses::made_by(const Function& f, ValueId v, const char* op) const {
  const int at = producer[size_t(v)];
  return at >= 0 && f.nodes[size_t(at)].op->name == op ? &f.nodes[size_t(at)] : nullptr;
}

size_t find_number(const std::vector<double>& all, double number) {
  size_t i = 0;
  while (i < all.size() && std::memcmp(&all[i], &number, sizeof number) != 0) i++;
  return i;
}

bool can_fuse(const Function& f, const Node& n) {
  if (n.outputs.size() != 1 || !n.op->pointwise) return false;
  Types in;
  for (ValueId v : n.inputs) {
    if (v == no_value) return false;
    in.push_back(f.types[size_t(v)]);
  }
  const TensorType& out = f.types[size_t(n.outputs[0])];
  return out.rank() > 0 && fusable(*n.op, in, out);
}

void add_paths(std::vector<std::string>& to, const std::vector<std::string>& from) {
  for (const std::string& p : from)
    if (to.size() < 8 && std::find(to.begin(), to.end(), p) == to.end()) to.push_back(p);
}

}  // namespace dagrt
