// eliminate_dead_code: drops nodes none of whose outputs is used, and outputs of scans that nobody stacks for.
// renumber: values densely numbered, functions in use only.
//
// Before and after: a specialised module. What a store, the guard or an output names is used.
#include <map>
#include <set>

#include "ir/op_view.h"
#include "ops/op.h"
#include "passes/passes.h"

namespace dagrt {
namespace {

std::vector<char> used_values(const Function& f) {
  std::vector<char> used(f.types.size());
  auto use = [&](ValueId v) {
    if (v != no_value) used[size_t(v)] = 1;
  };
  for (ValueId v : f.outputs) use(v);
  for (const Store& s : f.stores) use(s.value), use(s.when);
  use(f.guard);
  for (auto n = f.nodes.rbegin(); n != f.nodes.rend(); ++n) {
    bool live = false;
    for (ValueId v : n->outputs) live |= bool(used[size_t(v)]);
    if (live)
      for (ValueId v : n->inputs) use(v);
  }
  return used;
}

void drop_dead(Function& f) {
  std::vector<char> used = used_values(f);
  std::vector<Node> kept;
  kept.reserve(f.nodes.size());
  for (Node& n : f.nodes) {
    bool live = false;
    for (ValueId v : n.outputs) live |= bool(used[size_t(v)]);
    if (live) kept.push_back(std::move(n));
  }
  f.nodes = std::move(kept);
}

/// Unused stacked outputs and unused captured values of a scan: its body gets a version without them.
void trim_scan(Module& module, Function& f, Node& node, const std::vector<char>& used) {
  ScanAttrs attrs = node.as<ScanAttrs>();
  size_t carries = size_t(attrs.carries), first_captured = carries + size_t(attrs.sequences);
  Function body = *body_of(module, node);
  std::vector<ValueId> outputs, node_outputs;
  for (size_t i = 0; i < node.outputs.size(); i++) {
    if (i >= carries && !used[size_t(node.outputs[i])]) continue;
    outputs.push_back(body.outputs[i]);
    node_outputs.push_back(node.outputs[i]);
  }
  body.outputs = outputs;
  body.output_names.assign(outputs.size(), "");
  drop_dead(body);
  std::vector<char> needed(body.types.size());
  for (const Node& n : body.nodes)
    for (ValueId v : n.inputs)
      if (v != no_value) needed[size_t(v)] = 1;
  for (ValueId v : body.outputs) needed[size_t(v)] = 1;
  std::vector<Input> inputs;
  std::vector<ValueId> node_inputs;
  for (size_t i = 0; i < body.inputs.size(); i++) {
    bool captured = i >= first_captured && i < node.inputs.size();
    if (captured && !needed[size_t(body.inputs[i].value)]) continue;
    inputs.push_back(body.inputs[i]);
    if (i < node.inputs.size()) node_inputs.push_back(node.inputs[i]);
  }
  if (node_outputs.size() == node.outputs.size() && node_inputs.size() == node.inputs.size()) return;
  body.inputs = std::move(inputs);
  body.name += "-";
  while (true) {
    bool taken = false;
    for (const Function& g : module.functions) taken |= g.name == body.name;
    if (!taken) break;
    body.name += "-";
  }
  attrs.body = body.name;
  node.attrs = std::make_shared<ScanAttrs>(attrs);
  node.outputs = std::move(node_outputs);
  node.inputs = std::move(node_inputs);
  module.functions.push_back(std::move(body));
}

void renumber(Function& f) {
  std::vector<ValueId> place(f.types.size(), no_value);
  std::vector<TensorType> types;
  auto number = [&](ValueId& v) {
    place[size_t(v)] = ValueId(types.size());
    types.push_back(std::move(f.types[size_t(v)]));
    v = place[size_t(v)];
  };
  auto look_up = [&](ValueId& v) {
    if (v != no_value) v = place[size_t(v)];
  };
  for (Input& i : f.inputs) number(i.value);
  for (Node& n : f.nodes) {
    for (ValueId& v : n.inputs) look_up(v);
    for (ValueId& v : n.outputs) number(v);
  }
  for (ValueId& v : f.outputs) look_up(v);
  for (Store& s : f.stores) look_up(s.value), look_up(s.when);
  look_up(f.guard);
  f.types = std::move(types);
}

}  // namespace

void eliminate_dead_code(Module& module) {
  for (size_t i = 0; i < module.functions.size(); i++) {
    Function& f = module.functions[i];
    drop_dead(f);
    bool scans = false;
    for (const Node& n : f.nodes) scans |= n.op->role == Structural::scan;
    if (!scans) continue;
    std::vector<char> used = used_values(f);
    for (Node& n : f.nodes)
      if (n.op->role == Structural::scan) trim_scan(module, f, n, used);
    drop_dead(f);
  }
}

void renumber(Module& module) {
  std::set<std::string> wanted{module.functions.front().name};
  std::vector<std::string> todo{module.functions.front().name};
  while (!todo.empty()) {
    const Function& f = module.function(todo.back());
    todo.pop_back();
    for (const Node& n : f.nodes)
      if (n.op->role == Structural::scan && wanted.insert(n.as<ScanAttrs>().body).second) todo.push_back(n.as<ScanAttrs>().body);
  }
  std::deque<Function> kept;
  for (Function& f : module.functions)
    if (wanted.count(f.name)) kept.push_back(std::move(f));
  module.functions = std::move(kept);
  for (Function& f : module.functions) renumber(f);
}

}  // namespace dagrt
