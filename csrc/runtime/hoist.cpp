#include "runtime/hoist.h"

#include <map>
#include <set>

#include "ir/op_view.h"
#include "ir/text.h"
#include "ops/op.h"
#include "passes/steady.h"

namespace dagrt {
namespace {

constexpr double small_bytes = 4096;       // below this the step itself is what costs
constexpr size_t small_constant = 256;     // bytes that are compared
constexpr double worth = 1.5, copied = 2;  // bytes of work for each byte read back; more where it is then copied

class Hoister {
 public:
  Hoister(const Module& m, const std::function<bool(const std::vector<ValueId>&)>& keep) : f_(m.functions.front()), keep_(keep) {}

  Hoist run() {
    hoist_.nodes.assign(f_.nodes.size(), 0);
    hoist_.slots.assign(f_.types.size(), -1);
    if (!find_free()) return std::move(hoist_);
    find_uses();
    for (size_t i = f_.nodes.size(); i-- > 0;) decide(i);
    return std::move(hoist_);
  }

 private:
  /// What might be hoisted, and the work behind each value.
  bool find_free() {
    std::vector<char> steady = steady_values(f_);
    work_.assign(f_.types.size(), 0);
    bool any = false;
    for (size_t i = 0; i < f_.nodes.size(); i++) {
      const Node& n = f_.nodes[i];
      if (n.op->role != Structural::none || n.outputs.empty() || !steady[size_t(n.outputs[0])]) continue;
      double work = work_of(n);
      for (ValueId v : n.inputs) work += v == no_value ? 0 : work_[size_t(v)];
      for (ValueId v : n.outputs) work_[size_t(v)] = work;
      hoist_.nodes[i] = any = true;
    }
    return any;
  }

  static bool is_view(const Node& n) { return n.op->name == "reshape"; }

  double work_of(const Node& n) const {
    if (is_view(n)) return 0;
    Types in(n.inputs.size()), out;
    double bytes = 0;
    for (size_t i = 0; i < in.size(); i++) {
      in[i].absent = n.inputs[i] == no_value;
      if (!in[i].absent) in[i] = f_.types[size_t(n.inputs[i])];
      if (!in[i].absent) bytes += double(in[i].bytes());
    }
    for (ValueId v : n.outputs) {
      out.push_back(f_.types[size_t(v)]);
      bytes += double(out.back().bytes());
    }
    if (!n.op->cost) return bytes;
    Cost c = n.op->cost(n.attrs.get(), in, out);
    return c.flops + c.bytes;
  }

  void find_uses() {
    steps_.assign(f_.types.size(), 0);
    leaves_.assign(f_.types.size(), 0);
    for (size_t i = 0; i < f_.nodes.size(); i++)
      if (!hoist_.nodes[i]) use(f_.nodes[i]);
    auto leave = [&](ValueId v) {
      if (v != no_value) leaves_[size_t(v)] = 1;
    };
    for (ValueId v : f_.outputs) leave(v);
    for (const Store& s : f_.stores) leave(s.value), leave(s.when);
    leave(f_.guard);
  }
  void use(const Node& n) {
    for (ValueId v : n.inputs)
      if (v != no_value) steps_[size_t(v)] = 1;
  }

  /// All users of the node have been decided.
  void decide(size_t i) {
    if (!hoist_.nodes[i]) return;
    const Node& n = f_.nodes[i];
    std::vector<ValueId> used;
    bool keep = !is_view(n);
    for (ValueId v : n.outputs)
      if (steps_[size_t(v)] || leaves_[size_t(v)]) used.push_back(v), keep = keep && pays(v);
    if (used.empty()) return;
    if (!keep || !keep_(used)) {
      hoist_.nodes[i] = 0;
      use(n);
      return;
    }
    for (ValueId v : used) {
      hoist_.slots[size_t(v)] = int32_t(hoist_.values.size());
      hoist_.values.push_back(v);
    }
  }

  bool pays(ValueId v) const {
    double bytes = double(f_.types[size_t(v)].bytes());
    if (!steps_[size_t(v)]) return work_[size_t(v)] >= (worth + copied) * bytes;
    return bytes <= small_bytes || work_[size_t(v)] >= worth * bytes;
  }

  const Function& f_;
  const std::function<bool(const std::vector<ValueId>&)>& keep_;
  Hoist hoist_;
  std::vector<char> steps_, leaves_;  // by value: read by a step of the run; given out or stored
  std::vector<double> work_;          // by value: of all that leads to it
};

}  // namespace

Hoist find_hoisted(const Module& compiled, const std::function<bool(const std::vector<ValueId>&)>& keep) {
  return Hoister(compiled, keep).run();
}

RecipeBook::RecipeBook(const Module& compiled) : m_(compiled), f_(compiled.functions.front()) {
  producer_.assign(f_.types.size(), -1);
  for (size_t i = 0; i < f_.nodes.size(); i++)
    for (ValueId v : f_.nodes[i].outputs) producer_[size_t(v)] = int32_t(i);
}

Recipe RecipeBook::recipe(ValueId v) const {
  Recipe r;
  r.value = v;
  std::set<size_t> seen;
  std::vector<std::pair<size_t, size_t>> path{{size_t(producer_[size_t(v)]), 0}};  // node, inputs looked at
  seen.insert(path[0].first);
  while (!path.empty()) {
    auto& [node, next] = path.back();
    const Node& n = f_.nodes[node];
    if (next < n.inputs.size()) {
      ValueId in = n.inputs[next++];
      if (in != no_value && seen.insert(size_t(producer_[size_t(in)])).second) path.push_back({size_t(producer_[size_t(in)]), 0});
      continue;
    }
    if (n.op->role == Structural::read) r.variables.push_back(n.as<ReadAttrs>().variable);
    if (n.op->role == Structural::constant) r.constants.push_back(n.as<ConstantAttrs>().index);
    r.nodes.push_back(node);
    path.pop_back();
  }
  return r;
}

std::string RecipeBook::text(const Recipe& r) const {
  std::string out;
  std::map<ValueId, std::string> names;
  size_t variable = 0;
  auto raw = [&](const void* p, size_t bytes) { out.append(static_cast<const char*>(p), bytes); };
  for (size_t k = 0; k < r.nodes.size(); k++) {
    const Node& n = f_.nodes[r.nodes[k]];
    for (size_t o = 0; o < n.outputs.size(); o++) names[n.outputs[o]] = std::to_string(k) + "." + std::to_string(o);
    out += n.op->name + "@";
    raw(&n.op, sizeof n.op);
    if (n.op->role == Structural::read) {
      out += std::to_string(variable++);
    } else if (n.op->role == Structural::constant) {
      const Constant& c = m_.constants[size_t(n.as<ConstantAttrs>().index)];
      size_t bytes = size_t(c.type.bytes());
      const void* memory = c.data.get();
      out += c.type.text();
      bytes <= small_constant ? raw(memory, bytes) : raw(&memory, sizeof memory);
    } else {
      out += dagrt::text(n.op->attrs.write(n.attrs.get()));
    }
    out += "(";
    for (ValueId in : n.inputs) out += (in == no_value ? "_" : names[in]) + " ";
    out += ")\n";
  }
  return out + names[r.value];
}

Module RecipeBook::module(const Recipe& r) const {
  Module m;
  for (int64_t v : r.variables) m.variables.push_back(m_.variables[size_t(v)]);
  for (int64_t c : r.constants) m.constants.push_back(m_.constants[size_t(c)]);
  Function& f = m.functions.emplace_back();
  f.name = "prepare";
  std::map<ValueId, ValueId> own;
  int64_t variable = 0, constant = 0;
  for (size_t i : r.nodes) {
    Node n = f_.nodes[i];
    if (n.op->role == Structural::read) n.attrs = std::make_shared<ReadAttrs>(ReadAttrs{variable++});
    if (n.op->role == Structural::constant) n.attrs = std::make_shared<ConstantAttrs>(ConstantAttrs{constant++});
    for (ValueId& v : n.inputs)
      if (v != no_value) v = own.at(v);
    for (ValueId& v : n.outputs) {
      ValueId to = f.add_value(f_.types[size_t(v)]);
      own[v] = to;
      v = to;
    }
    f.nodes.push_back(std::move(n));
  }
  f.outputs = {own.at(r.value)};
  f.output_names = {""};
  return m;
}

}  // namespace dagrt
