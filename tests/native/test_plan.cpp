// The planner: offsets never overlap for buffers that live together, and plans of random graphs, run, give what the
// graphs mean: outputs, stores, predicates, guard; a fault at any checking node changes no variable.
#include <doctest/doctest.h>

#include <algorithm>
#include <random>

#include "graph.h"
#include "host_sim.h"
#include "runtime/offsets.h"
#include "runtime/program.h"

using namespace dagrt;
using namespace dagrt::testing;

TEST_CASE("offsets: no two live buffers overlap, and the arena is not wasted") {
  std::mt19937 rng(7);
  for (int round = 0; round < 300; round++) {
    std::vector<Extent> list(1 + rng() % 60);
    size_t live_most = 0;
    for (Extent& e : list) {
      e.bytes = rng() % 5 ? rng() % 5000 : 0;
      e.span.first[0] = int32_t(rng() % 40);
      e.span.last[0] = e.span.first[0] + int32_t(rng() % 10);
    }
    for (int32_t t = 0; t < 50; t++) {
      size_t live = 0;
      for (const Extent& e : list) live += e.span.first[0] <= t && t <= e.span.last[0] ? aligned(e.bytes) : 0;
      live_most = std::max(live_most, live);
    }
    size_t total = assign_offsets(list);
    for (size_t i = 0; i < list.size(); i++) {
      const Extent& a = list[i];
      CHECK(a.offset % arena_alignment == 0);
      CHECK(a.offset + a.bytes <= total);
      for (size_t j = 0; j < i; j++) {
        const Extent& b = list[j];
        bool together = a.span.first[0] <= b.span.last[0] && b.span.first[0] <= a.span.last[0];
        bool overlap = a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
        CHECK_FALSE((together && overlap));
      }
    }
    CHECK(total <= live_most * 2);
  }
}

namespace {

std::vector<TensorType> input_types(const Module& m) {
  std::vector<TensorType> t;
  for (const Input& i : m.functions.front().inputs) t.push_back(m.functions.front().types[size_t(i.value)]);
  return t;
}
std::vector<TensorType> variable_types(const Module& m) {
  std::vector<TensorType> t;
  for (const VariableDecl& d : m.variables) t.push_back(d.type);
  return t;
}

struct Setup {
  std::vector<std::vector<float>> inputs, before;
  std::vector<VariableRef> variables;
  std::vector<View> in, out;
  std::vector<std::vector<float>> results;

  Setup(const Module& m, std::mt19937& rng, Device& device = cpu_device())
      : inputs(random_values(input_types(m), rng)), before(random_values(variable_types(m), rng)) {
    for (size_t i = 0; i < before.size(); i++)
      variables.push_back(std::make_shared<Variable>(m.variables[i].name, DType::float32,
                                                     std::vector<int64_t>{int64_t(before[i].size())}, before[i].data(), device));
    join_groups(variables);
  }
  void bind(const Program& p) {
    for (size_t i = 0; i < inputs.size(); i++) in.push_back(p.inputs()[i]), in.back().data = inputs[i].data();
    results.resize(p.outputs().size());
    for (size_t i = 0; i < results.size(); i++) {
      results[i].assign(size_t(p.outputs()[i].elements()), NAN);
      out.push_back(p.outputs()[i]);
      out.back().data = results[i].data();
    }
  }
  std::vector<std::vector<float>> values() const {
    std::vector<std::vector<float>> list;
    for (const VariableRef& v : variables) {
      list.emplace_back(v->bytes() / 4);
      v->read(list.back().data());
    }
    return list;
  }
};

}  // namespace

TEST_CASE("plans of random graphs do what the graphs mean") {
  std::mt19937 rng(11);
  size_t in_place_commits = 0, in_place_steps = 0, faults = 0, prepared = 0, together = 0, spaced = 0, gone = 0;
  for (int round = 0; round < 3000; round++) {
    set_default_threads(round % 2 ? 1 : 3);
    Graph g;
    random_graph(g, rng);
    Setup s(g.module, rng);
    std::vector<std::vector<float>> inputs_before = s.inputs;
    Result want = reference(g.module, s.inputs, s.before);
    Program p(g.module, s.variables, cpu_device());
    s.bind(p);
    INFO("round " << round << "\n" << text(p.plan()));

    prepared += p.plan().prepared.size();
    for (const Commit& c : p.plan().commits) in_place_commits += c.step.kind == Step::Kind::op;
    for (const Step& step : p.plan().steps) together += step.together > 1;
    for (const View& v : p.plan().views) spaced += v.rank == 2 && v.ld > v.dim(-1);
    auto cuts = [](const Op& o) { return o.name == "concat" || o.name == "slice"; };
    for (const Node& n : g.f.nodes) gone += cuts(*n.op);
    for (const Step& step : p.plan().steps) gone -= step.kind == Step::Kind::op && cuts(*step.op);
    for (const Step& step : p.plan().steps)
      for (int i = 0; i < step.inputs && step.kind == Step::Kind::op; i++) {
        Place a = p.plan().places[size_t(step.first_view + i)], b = p.plan().places[size_t(step.first_view + step.inputs)];
        in_place_steps += a.base == b.base && a.offset == b.offset;
      }

    for (const Node& n : g.f.nodes) {  // fail at each checking node in turn: nothing changes
      if (n.op != &checking) continue;
      fault_at = n.as<MixAttrs>().salt;
      faults++;
      try {
        p.run(s.in.data(), s.out.data(), nullptr);
        FAIL_CHECK("a fault went unnoticed");
      } catch (const Error& e) {
        CHECK(e.kind == ErrorKind::data);
        CHECK(std::string(e.what()) == n.paths[0] + " (mix_checked): expected ids in 0..9, got 77 at position 3");
      }
      fault_at = -1;
      CHECK(s.values() == s.before);
      for (const VariableRef& v : s.variables) CHECK(v->version() == 0);
    }

    p.run(s.in.data(), s.out.data(), nullptr);
    CHECK(s.results == want.outputs);
    CHECK(s.values() == want.variables);
    CHECK(s.inputs == inputs_before);
    for (size_t i = 0; i < s.variables.size(); i++)
      if (want.variables[i] != s.before[i]) CHECK(s.variables[i]->version() == 1);
  }
  set_default_threads(0);
  CHECK(together > 500);  // the interesting cases do occur
  CHECK(spaced > 1000);
  CHECK(gone > 1000);
  CHECK(in_place_commits > 500);
  CHECK(in_place_steps > 1000);
  CHECK(faults > 500);
  CHECK(prepared > 500);
}

TEST_CASE("parts of a concat are written in place, slices are read in place; what is given out or narrow is copied") {
  auto list = [](int64_t a, int64_t b) { return AttrValue{AttrList{{a}, {b}}}; };
  Graph g;
  ValueId x = g.input({DType::float32, {2, 24}});
  auto cut = [&](ValueId v, int64_t from, int64_t columns) {
    return g.real("slice", {v}, {{"begin", list(0, from)}, {"size", list(2, columns)}, {"stride", list(1, 1)}});
  };
  ValueId a = g.mix(plain, {cut(x, 8, 10)}, {DType::float32, {2, 16}}, 1);
  ValueId b = g.mix(plain, {a}, {DType::float32, {2, 8}}, 2), c = g.mix(plain, {b}, {DType::float32, {2, 2}}, 3);
  ValueId shown = g.mix(plain, {c}, {DType::float32, {2, 8}}, 4);
  ValueId inner = g.real("concat", {a, b}, {{"axis", {int64_t(-1)}}});
  ValueId outer = g.real("concat", {inner, c, shown}, {{"axis", {int64_t(1)}}});
  ValueId y = g.mix(plain, {cut(outer, 16, 8), cut(outer, 24, 2)}, {DType::float32, {2, 8}}, 5);
  g.f.outputs = {y, shown};
  g.f.output_names = {"", ""};
  CHECK(text(build_plan(g.module)) == R"(plan: arena 384 bytes, scratch 0 bytes for each thread
  mix(input0+32) -> arena+0
  mix(arena+0) -> arena+64
  mix(arena+64) -> arena+320
  mix(arena+320) -> output1
  concat(arena+0, arena+320, output1) -> arena+0
  slice(arena+0) -> arena+320
  mix(arena+64, arena+320) -> output0
)");
}

TEST_CASE("a store's node waits for the commit only where that is safe") {
  Graph g;
  g.variable(8), g.variable(8);
  ValueId x = g.input(floats(8));
  ValueId a = g.read(0), b = g.read(1);
  ValueId a2 = g.mix(plain, {a, x}, 8, 1);  // a := f(a, x): in place
  ValueId b2 = g.mix(plain, {b, a}, 8, 2);  // b := f(b, a) reads the old a
  g.f.stores = {{0, a2, no_value}, {1, b2, no_value}};
  Plan p = build_plan(g.module);
  REQUIRE(p.commits.size() == 2);
  CHECK(p.commits[0].step.kind == Step::Kind::op);    // one update in place,
  CHECK(p.commits[1].step.kind == Step::Kind::copy);  // the other from the arena: whichever is safe
  CHECK(p.commits[0].variables == std::vector<int32_t>{1});
}

TEST_CASE("two variables swap their values") {
  Graph g;
  g.variable(3), g.variable(3);
  ValueId a = g.read(0), b = g.read(1);
  g.f.stores = {{0, b, no_value}, {1, a, no_value}};
  std::mt19937 rng(3);
  Setup s(g.module, rng);
  Program p(g.module, s.variables, cpu_device());
  s.bind(p);
  p.run(s.in.data(), s.out.data(), nullptr);
  CHECK(s.values() == std::vector<std::vector<float>>{s.before[1], s.before[0]});
}

TEST_CASE("a predicate that is itself stored is asked before it changes") {
  static const Op flip = [] {
    Op o;
    o.name = "flip";
    o.in_place = {{0, 0}};
    o.run = [](const RunContext& c) { *c.out[0].as<bool>() = !*c.in[0].as<bool>(); };
    return o;
  }();
  Graph g;
  g.module.variables = {{"armed", {DType::bool_, {}}}, {"v", floats(2)}};
  ValueId x = g.input(floats(2)), armed = g.read(0);
  ValueId flipped = g.node(flip, {armed}, {{DType::bool_, {}}}, Graph::salted(0))[0];
  g.f.stores = {{0, flipped, no_value}, {1, x, armed}};
  bool yes = true;
  float zero[2] = {0, 0}, one[2] = {1, 1}, now[2];
  std::vector<VariableRef> v{std::make_shared<Variable>("armed", DType::bool_, std::vector<int64_t>{}, &yes),
                             std::make_shared<Variable>("v", DType::float32, std::vector<int64_t>{2}, zero)};
  join_groups(v);
  Program p(g.module, v, cpu_device());
  View in = p.inputs()[0];
  in.data = one;
  p.run(&in, nullptr, nullptr);
  v[1]->read(now);
  CHECK(now[0] == 1);
  in.data = zero;
  v[0]->assign(&(yes = false));
  p.run(&in, nullptr, nullptr);
  v[1]->read(now);
  CHECK(now[0] == 1);
  v[0]->read(&yes);
  CHECK(yes);
}

TEST_CASE("on a device with memory of its own, late queues and a status word, the same happens") {
  HostSim sim;
  std::mt19937 rng(5);
  size_t faults = 0;
  for (int round = 0; round < 300; round++) {
    Graph g;
    random_graph(g, rng);
    Setup s(g.module, rng, sim);
    Program p(g.module, s.variables, sim);
    s.bind(p);
    INFO("round " << round << "\n" << text(p.plan()));
    for (const Node& n : g.f.nodes) {
      if (n.op != &checking) continue;
      fault_at = n.as<MixAttrs>().salt;
      faults++;
      CHECK_THROWS_AS(p.run(s.in.data(), s.out.data(), nullptr), Error);
      fault_at = -1;
      CHECK(s.values() == s.before);
      break;
    }
    std::vector<std::vector<float>> before = s.before;
    for (int step = 0; step < 3; step++) {  // training: each step starts from the last one's variables
      Result want = reference(g.module, s.inputs, before);
      p.run(s.in.data(), s.out.data(), nullptr);
      CHECK(s.results == want.outputs);
      CHECK(s.values() == want.variables);
      before = want.variables;
    }
  }
  CHECK(faults > 50);
}

TEST_CASE("a scan and a constant on a device of its own") {
  HostSim sim;
  Graph g;
  std::vector<float> numbers{1, 2, 3};
  g.module.constants.push_back({floats(3), std::shared_ptr<const void>(numbers.data(), [](const void*) {})});
  ValueId k = g.node(op("constant"), {}, {floats(3)}, std::make_shared<ConstantAttrs>(ConstantAttrs{0}))[0];
  ValueId x = g.input(floats(3));
  auto a = std::make_shared<ScanAttrs>();
  a->body = "body";
  a->carries = 1;
  a->length = 5;
  ValueId y = g.node(op("scan"), {x, k}, {floats(3)}, a)[0];
  g.f.outputs = {y};
  g.f.output_names = {""};
  Function& body = g.module.functions.emplace_back();
  body.name = "body";
  for (const char* name : {"c", "k"}) body.inputs.push_back({name, body.add_value(floats(3))});
  body.inputs.push_back({"step", body.add_value({DType::int32, {}})});
  Node n;
  n.op = &plain;
  n.attrs = Graph::salted(1);
  n.inputs = {0, 1};
  n.outputs = {body.add_value(floats(3))};
  body.nodes.push_back(n);
  body.outputs = n.outputs;
  std::vector<float> in{4, 5, 6}, out(3), want = in;
  for (int t = 0; t < 5; t++)
    for (size_t e = 0; e < 3; e++) want[e] = std::fmod(std::fmod(1 + 2 * want[e], 1021.0f) + 3 * numbers[e], 1021.0f);
  for (Device* device : {static_cast<Device*>(&sim), &cpu_device()}) {
    Program p(g.module, {}, *device);
    View i = p.inputs()[0], o = p.outputs()[0];
    i.data = in.data();
    o.data = out.data();
    p.run(&i, &o, nullptr);
    CHECK(out == want);
  }
}

namespace {

/// The steps of a plan with lanes in some order that lanes and marks allow, `without` one of its waits.
std::vector<Step> in_any_order(const Plan& p, std::mt19937& rng, int32_t without = -1) {
  std::vector<std::vector<size_t>> after(p.steps.size());
  std::vector<int64_t> last(size_t(p.lanes), -1), marked(size_t(p.marks), -1);
  for (size_t i = 0; i < p.steps.size(); i++) {
    const Step& s = p.steps[i];
    if (s.kind == Step::Kind::copy)  // all lanes have been joined
      for (size_t k = 0; k < i; k++) after[i].push_back(k);
    if (last[size_t(s.lane)] >= 0) after[i].push_back(size_t(last[size_t(s.lane)]));
    for (int32_t w = s.first_wait; w < s.first_wait + s.waits; w++)
      if (w != without) after[i].push_back(size_t(marked[size_t(p.waits[size_t(w)])]));
    last[size_t(s.lane)] = int64_t(i);
    if (s.mark >= 0) marked[size_t(s.mark)] = int64_t(i);
  }
  std::vector<Step> order;
  std::vector<char> done(p.steps.size(), 0);
  while (order.size() < p.steps.size()) {
    std::vector<size_t> ready;
    for (size_t i = 0; i < p.steps.size(); i++)
      if (!done[i] && std::all_of(after[i].begin(), after[i].end(), [&](size_t k) { return done[k]; })) ready.push_back(i);
    const size_t i = ready[rng() % ready.size()];
    done[i] = 1;
    order.push_back(p.steps[i]);
  }
  return order;
}

/// Outputs and variables after a run of these steps, on the host.
Result run_of(const Plan& p, const std::vector<Step>& steps, const Module& m, std::vector<std::vector<float>> inputs,
              std::vector<std::vector<float>> variables) {
  Plan q;
  q.bases = p.bases, q.steps = steps, q.views = p.views, q.places = p.places, q.guard = p.guard, q.constants = p.constants;
  q.commits = p.commits, q.names = p.names, q.scratch_bytes = p.scratch_bytes;
  std::vector<char> arena(p.arena_bytes + 64, char(0xFF)), scratch(p.scratch_bytes + 64);
  Result r;
  RunState state(q);
  state.bases[arena_base] = arena.data();
  for (size_t i = 0; i < inputs.size(); i++) state.bases[size_t(p.bases.inputs) + i] = reinterpret_cast<char*>(inputs[i].data());
  for (ValueId v : m.functions[0].outputs) r.outputs.emplace_back(size_t(m.functions[0].types[size_t(v)].elements()), NAN);
  for (size_t i = 0; i < r.outputs.size(); i++)
    state.bases[size_t(p.bases.outputs) + i] = reinterpret_cast<char*>(r.outputs[i].data());
  for (size_t i = 0; i < variables.size(); i++)
    state.bases[size_t(p.bases.variables) + i] = reinterpret_cast<char*>(variables[i].data());
  RunShared shared;
  shared.scratch = scratch.data(), shared.scratch_bytes = p.scratch_bytes;
  run_steps(q, state, shared);
  run_commit(q, state, shared, [](void*, int32_t) {}, nullptr);
  r.variables = std::move(variables);
  return r;
}

}  // namespace

TEST_CASE("lanes: steps in any order that lanes and marks allow give the same; without one of the waits they do not") {
  std::mt19937 rng(13);
  size_t in_lanes = 0, waits = 0, noticed = 0;
  for (int round = 0; round < 200; round++) {
    Graph g;
    random_graph(g, rng);
    const auto inputs = random_values(input_types(g.module), rng), before = random_values(variable_types(g.module), rng);
    const Result want = reference(g.module, inputs, before);
    const Plan p = build_plan(g.module, {}, true);
    INFO("round " << round << "\n" << text(p));
    for (const Step& s : p.steps) in_lanes += s.lane > 0;
    for (int order = 0; order < 3; order++) {
      const Result got = run_of(p, in_any_order(p, rng), g.module, inputs, before);
      CHECK(got.outputs == want.outputs);
      CHECK(got.variables == want.variables);
    }
    for (size_t w = 0; w < p.waits.size(); w++) {
      waits++;
      bool differs = false;
      for (int order = 0; order < 10 && !differs; order++) {
        const Result got = run_of(p, in_any_order(p, rng, int32_t(w)), g.module, inputs, before);
        differs = got.outputs != want.outputs || got.variables != want.variables;
      }
      noticed += differs;
    }
  }
  CHECK(in_lanes > 200);
  CHECK(waits > 500);
  CHECK(noticed > waits / 3);  // the others are for values that nobody reads, or between two checks
}
