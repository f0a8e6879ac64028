// Small ops and random graphs for testing the planner and the runtime without kernels, and a reference that evaluates
// a function with memory of its own for every value.
#pragma once
#include <cmath>
#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "ops/op.h"
#include "runtime/plan.h"
#include "runtime/variable.h"

namespace dagrt::testing {

struct MixAttrs {
  int64_t salt = 0;
  template <class V> void visit(V& v) { v("salt", salt); }
};

inline int64_t fault_at = -1;  // salt of the checking node that is to fail

/// out_j[e] = salt + j + sum over k of (k + 2) * in_k[e % n_k], in small integers held as float: exact.
/// With one output it is written once from in_0 and then again for each other input, which therefore must not be the
/// same memory, as an op that declares {0, 0} in place may do.
inline void mix_run(const RunContext& c) {
  auto at = [](const View& v, int64_t e) -> float& {
    int64_t width = v.rank ? v.dim(-1) : 1;
    return v.as<float>()[e / width * v.ld + e % width];
  };
  int64_t salt = c.attrs<MixAttrs>().salt;
  if (c.node >= 0 && salt == fault_at) c.status.report(Status::index_out_of_range, c.node, 3, 77, 10);
  if (c.workspace) std::memset(c.workspace, 0xEE, 128);  // must not be anyone's
  auto term = [&](int k, int64_t e) {
    int64_t m = c.in[k].data ? c.in[k].elements() : 0;
    return m ? float(k + 2) * at(c.in[k], e % m) : 0.0f;
  };
  int64_t n = c.out[0].elements();
  if (c.outputs == 1) {
    for (int64_t e = 0; e < n; e++) at(c.out[0], e) = std::fmod(float(salt) + term(0, e), 1021.0f);
    for (int k = 1; k < c.inputs; k++)
      for (int64_t e = 0; e < n; e++) at(c.out[0], e) = std::fmod(at(c.out[0], e) + term(k, e), 1021.0f);
    return;
  }
  for (int64_t e = 0; e < n; e++) {
    float sum = float(salt);
    for (int k = 0; k < c.inputs; k++) sum += term(k, e);
    for (int j = 0; j < c.outputs; j++)
      if (c.out[j].data) at(c.out[j], e) = std::fmod(sum + float(j), 1021.0f);
  }
}

inline Op mix_op(const char* name, bool checks, int outputs, bool workspace) {
  Op o;
  o.name = name;
  o.attrs = attr_type<MixAttrs>();
  o.min_inputs = 0;
  o.max_inputs = -1;
  o.run = mix_run;
  o.checks = checks;
  if (!checks)
    for (int i = 0; i < outputs; i++)
      for (int k = 0; k <= i; k++) o.in_place.emplace_back(k, i);
  o.spaced = outputs > 1 ? Spaced{1, 2} : Spaced::all();
  if (workspace) {  // heavy and in one piece: the planner lets several of them run at the same time
    o.memory = [](const void*, const Types&, const Types&) { return Memory{128, 64}; };
    o.cost = [](const void*, const Types&, const Types&) { return Cost{2e6, 0}; };
    o.units = [](const void*, const Types&, const Types&) -> int64_t { return 1; };
  }
  return o;
}

inline const Op plain = mix_op("mix", false, 1, false), pair = mix_op("mix_pair", false, 2, true),
                checking = mix_op("mix_checked", true, 1, true);
inline const Op above = [] {  // bool: in[0][0] < salt
  Op o;
  o.name = "below";
  o.attrs = attr_type<MixAttrs>();
  o.run = [](const RunContext& c) { *c.out[0].as<bool>() = c.in[0].as<float>()[0] < float(c.attrs<MixAttrs>().salt); };
  return o;
}();

inline const Op same_memory = [] {  // what the planner takes for a mere alias; the reference copies
  Op o;
  o.name = "reshape";
  o.run = [](const RunContext& c) {
    if (c.in[0].bytes()) std::memcpy(c.out[0].data, c.in[0].data, size_t(c.in[0].bytes()));
  };
  return o;
}();

inline TensorType floats(int64_t n) { return {DType::float32, {n}}; }

class Graph {
 public:
  Module module;
  Function& f;
  Graph() : f((module.functions.emplace_back(), module.functions.front())) { f.name = "main"; }

  ValueId input(TensorType t) {
    ValueId v = f.add_value(t);
    f.inputs.push_back({"x" + std::to_string(f.inputs.size()), v});
    return v;
  }
  std::vector<ValueId> node(const Op& op, std::vector<ValueId> in, std::vector<TensorType> out, Attrs attrs) {
    Node n;
    n.op = &op;
    n.attrs = std::move(attrs);
    n.inputs = std::move(in);
    for (TensorType& t : out) n.outputs.push_back(f.add_value(t));
    n.paths = {"layer_" + std::to_string(f.nodes.size())};
    f.nodes.push_back(n);
    return n.outputs;
  }
  ValueId mix(const Op& op, std::vector<ValueId> in, int64_t n, int64_t salt) { return mix(op, std::move(in), floats(n), salt); }
  ValueId mix(const Op& op, std::vector<ValueId> in, const TensorType& type, int64_t salt) {
    std::vector<TensorType> out(&op == &pair ? 2 : 1, type);
    return node(op, std::move(in), out, salted(salt))[0];
  }
  /// The real op, whose types follow from `infer`.
  ValueId real(const char* name, std::vector<ValueId> in, const AttrMap& attrs) {
    const Op& o = op(name);
    Types types;
    for (ValueId v : in) types.push_back(f.types[size_t(v)]);
    Attrs a = o.attrs.read(name, attrs);
    Types out = infer(o, a.get(), types);
    return node(o, std::move(in), out, a)[0];
  }
  ValueId below(ValueId in, int64_t limit) { return node(above, {in}, {{DType::bool_, {}}}, salted(limit))[0]; }
  ValueId read(int64_t variable) {
    auto a = std::make_shared<ReadAttrs>();
    a->variable = variable;
    return node(op("read"), {}, {module.variables[size_t(variable)].type}, a)[0];
  }
  int64_t variable(int64_t n) {
    module.variables.push_back({"v" + std::to_string(module.variables.size()), floats(n)});
    return int64_t(module.variables.size()) - 1;
  }
  static Attrs salted(int64_t salt) {
    auto a = std::make_shared<MixAttrs>();
    a->salt = salt;
    return a;
  }
};

struct Result {
  std::vector<std::vector<float>> outputs, variables;
};

/// Evaluates straight from the IR's meaning (no scans): every value has memory of its own.
inline Result reference(const Module& m, const std::vector<std::vector<float>>& inputs,
                        std::vector<std::vector<float>> variables) {
  const Function& f = m.functions.front();
  std::vector<std::vector<char>> values(f.types.size());
  auto set = [&](ValueId v, const std::vector<float>& x) {
    values[size_t(v)].resize(x.size() * 4);
    if (!x.empty()) std::memcpy(values[size_t(v)].data(), x.data(), x.size() * 4);
  };
  for (size_t i = 0; i < inputs.size(); i++) set(f.inputs[i].value, inputs[i]);
  for (const Node& n : f.nodes) {
    if (n.op->role == Structural::read) {
      set(n.outputs[0], variables[size_t(n.as<ReadAttrs>().variable)]);
      continue;
    }
    std::vector<View> views;
    for (ValueId v : n.inputs) {
      views.push_back(v == no_value ? View{} : view_of(f.types[size_t(v)]));
      if (v != no_value) views.back().data = values[size_t(v)].data();
    }
    for (ValueId v : n.outputs) {
      views.push_back(view_of(f.types[size_t(v)]));
      values[size_t(v)].resize(size_t(views.back().bytes()) + 1);  // never null
      views.back().data = values[size_t(v)].data();
    }
    Stream stream;
    Status status;
    n.op->run({n.attrs.get(), views.data(), views.data() + n.inputs.size(), int(n.inputs.size()), int(n.outputs.size()), stream,
               nullptr, status, -1});
  }
  auto get = [&](ValueId v) {
    std::vector<float> x(size_t(f.types[size_t(v)].elements()));
    if (!x.empty()) std::memcpy(x.data(), values[size_t(v)].data(), x.size() * 4);
    return x;
  };
  Result r;
  for (ValueId v : f.outputs) r.outputs.push_back(get(v));
  auto holds = [&](ValueId v) { return v == no_value || values[size_t(v)][0] != 0; };
  std::vector<std::vector<float>> after = variables;
  if (holds(f.guard))
    for (const Store& s : f.stores)
      if (holds(s.when)) after[size_t(s.variable)] = get(s.value);
  r.variables = after;
  return r;
}

/// A node that joins some matrices of four rows, or takes columns or rows of one.
inline ValueId join_or_cut(Graph& g, std::mt19937& rng, const std::vector<ValueId>& matrices) {
  auto upto = [&](int64_t n) { return int64_t(rng() % uint64_t(n)); };
  auto any = [&] { return matrices[size_t(upto(int64_t(matrices.size())))]; };
  auto rows = [&](ValueId v) { return g.f.types[size_t(v)].shape[0].value(); };
  auto columns = [&](ValueId v) { return g.f.types[size_t(v)].shape[1].value(); };
  std::vector<ValueId> in{any()};
  if (upto(3)) {
    int64_t axis = upto(2), length = axis ? columns(in[0]) : rows(in[0]);
    for (int k = 0; k < 4; k++) {
      ValueId v = any();
      bool fits = axis ? rows(v) == rows(in[0]) : columns(v) == columns(in[0]);
      int64_t more = axis ? columns(v) : rows(v);
      if (fits && length + more <= 100) in.push_back(v), length += more;
    }
    return g.real("concat", in, {{"axis", {axis}}});
  }
  int64_t begin[2], size[2], whole[2] = {rows(in[0]), columns(in[0])};
  for (int i = 0; i < 2; i++) {
    begin[i] = upto(2) ? 0 : upto(whole[i]);
    size[i] = upto(2) ? whole[i] - begin[i] : 1 + upto(whole[i] - begin[i]);
  }
  auto list = [](int64_t a, int64_t b) { return AttrValue{AttrList{{a}, {b}}}; };
  return g.real("slice", in, {{"begin", list(begin[0], begin[1])}, {"size", list(size[0], size[1])}, {"stride", list(1, 1)}});
}

/// A random function over a few variables, with stores of every kind: optimiser-like updates, plain values, inputs,
/// other variables; with predicates and a guard; with matrices that are joined and cut.
inline void random_graph(Graph& g, std::mt19937& rng) {
  auto upto = [&](int n) { return int(rng() % unsigned(n)); };
  const int64_t sizes[] = {1, 5, 16, 33, 100};
  std::vector<ValueId> pool;
  std::vector<ValueId> matrices;
  std::map<int64_t, std::vector<ValueId>> by_size;
  auto add = [&](ValueId v) {
    pool.push_back(v);
    if (g.f.types[size_t(v)].shape.size() == 2) matrices.push_back(v);
    by_size[g.f.types[size_t(v)].elements()].push_back(v);
  };
  int variables = 1 + upto(5);
  for (int i = 0; i < variables; i++) g.variable(i && upto(2) ? g.module.variables.back().type.elements() : sizes[upto(5)]);
  for (int i = 0, n = 1 + upto(3); i < n; i++) add(g.input(floats(sizes[upto(5)])));
  for (int i = 0; i < variables; i++)
    if (upto(4)) add(g.read(i));
  for (int i = 0, n = 3 + upto(25); i < n; i++) {
    if (!matrices.empty() && upto(4) == 0) {
      add(join_or_cut(g, rng, matrices));
      continue;
    }
    std::vector<ValueId> in;
    for (int k = 0, m = 1 + upto(3); k < m; k++) in.push_back(upto(3) ? pool[size_t(upto(int(pool.size())))] : pool.back());
    if (upto(8) == 0) in.push_back(no_value);
    int64_t size = upto(4) ? g.f.types[size_t(in[0])].elements() : sizes[upto(5)];
    if (upto(7) == 0) {
      auto shape = std::make_shared<MixAttrs>();
      add(g.node(same_memory, {in[0]}, {{DType::float32, {g.f.types[size_t(in[0])].elements(), 1}}}, shape)[0]);
      continue;
    }
    const Op& o = upto(5) == 0 ? checking : upto(4) == 0 ? pair : plain;
    const int64_t widths[] = {8, 9, 3};
    bool matrix = upto(3) == 0;
    ValueId v = g.mix(o, in, matrix ? TensorType{DType::float32, {4, widths[upto(3)]}} : floats(size), i);
    add(v);
    if (&o == &pair && upto(2)) add(v + 1);
  }
  ValueId bit = upto(2) ? g.below(pool[size_t(upto(int(pool.size())))], 500) : no_value;
  for (int i = 0; i < variables; i++) {
    auto& same = by_size[g.module.variables[size_t(i)].type.elements()];
    if (same.empty() || upto(5) == 0) continue;
    ValueId value = same[size_t(upto(int(same.size())))];
    if (upto(2)) {  // an update: the old value first, then a "gradient"
      std::vector<ValueId> in{g.read(i), upto(2) || i + 1 >= variables ? pool[size_t(upto(int(pool.size())))] : g.read(i + 1)};
      value = g.mix(upto(3) ? plain : pair, in, g.f.types[size_t(in[0])].elements(), 100 + i);
      if (upto(4) == 0) add(value);
    }
    if (g.f.types[size_t(value)].shape.size() != 1) continue;  // the variable's own shape
    g.f.stores.push_back({i, value, upto(3) ? no_value : bit});
    bool of_pair = g.f.nodes.back().op == &pair && g.f.nodes.back().outputs[0] == value;
    if (of_pair && i + 1 < variables && g.module.variables[size_t(i + 1)].type == g.module.variables[size_t(i)].type) {
      i++;
      g.f.stores.push_back({i, value + 1, upto(3) ? no_value : bit});
    }
  }
  for (int i = 0, n = 1 + upto(4); i < n; i++) g.f.outputs.push_back(pool[size_t(upto(int(pool.size())))]);
  g.f.output_names.resize(g.f.outputs.size());
  if (upto(3) == 0) g.f.guard = g.below(pool[size_t(upto(int(pool.size())))], 600);
}

inline std::vector<std::vector<float>> random_values(const std::vector<TensorType>& types, std::mt19937& rng) {
  std::vector<std::vector<float>> list;
  for (const TensorType& t : types) {
    list.emplace_back(size_t(t.elements()));
    for (float& x : list.back()) x = float(rng() % 1000);
  }
  return list;
}

}  // namespace dagrt::testing
