// Prepared values: what is hoisted, shared, remade, bounded and freed; threads that read while another writes.
#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <thread>

#include "graph.h"
#include "host_sim.h"
#include "runtime/program.h"

using namespace dagrt;
using namespace dagrt::testing;

namespace {

std::atomic<int> packs{0};

/// y = x + salt, with the arithmetic of something worth keeping; counted.
const Op pack = [] {
  Op o;
  o.name = "pack";
  o.attrs = attr_type<MixAttrs>();
  o.run = [](const RunContext& c) {
    packs++;
    for (int64_t i = 0; i < c.out[0].elements(); i++)
      c.out[0].as<float>()[i] = c.in[0].as<float>()[i] + float(c.attrs<MixAttrs>().salt);
  };
  return o;
}();

/// y = a + b: what a run does with it.
const Op add = [] {
  Op o;
  o.name = "add_both";
  o.max_inputs = 2;
  o.in_place = {{0, 0}};
  o.run = [](const RunContext& c) {
    for (int64_t i = 0; i < c.out[0].elements(); i++) c.out[0].as<float>()[i] = c.in[0].as<float>()[i] + c.in[1].as<float>()[i];
  };
  return o;
}();

const Op fill = [] {  // y = salt
  Op o;
  o.name = "fill";
  o.attrs = attr_type<MixAttrs>();
  o.min_inputs = 0;
  o.run = [](const RunContext& c) {
    for (int64_t i = 0; i < c.out[0].elements(); i++) c.out[0].as<float>()[i] = float(c.attrs<MixAttrs>().salt);
  };
  return o;
}();

const Op spread = [] {  // y[i] = x[0]: as cheap to make as to read
  Op o;
  o.name = "spread";
  o.run = [](const RunContext& c) {
    for (int64_t i = 0; i < c.out[0].elements(); i++) c.out[0].as<float>()[i] = c.in[0].as<float>()[0];
  };
  return o;
}();

VariableRef variable(int64_t n, float x, Device& device = cpu_device()) {
  std::vector<float> values(size_t(n), x);
  return std::make_shared<Variable>("v", DType::float32, std::vector<int64_t>{n}, values.data(), device);
}
void assign(Variable& v, float x) {
  std::vector<float> values(v.bytes() / 4, x);
  v.assign(values.data());
}
float first(const Variable& v) {
  std::vector<float> x(v.bytes() / 4);
  v.read(x.data());
  return x[0];
}

/// Calls a program with inputs full of `x`; the outputs' elements must be equal.
std::vector<float> call(const Program& p, float x = 0) {
  std::vector<View> in = p.inputs(), out = p.outputs();
  std::vector<std::vector<float>> inputs, results;
  std::vector<float> firsts;
  for (View& v : in) inputs.emplace_back(size_t(v.elements()), x), v.data = inputs.back().data();
  for (View& v : out) results.emplace_back(size_t(v.elements()), NAN);
  for (size_t i = 0; i < out.size(); i++) out[i].data = results[i].data();
  p.run(in.data(), out.data(), nullptr);
  for (auto& r : results) {
    for (float e : r)
      if (e != r[0]) return {NAN};
    firsts.push_back(r[0]);
  }
  return firsts;
}

constexpr int64_t n = 3000;  // 12 KB: not small

Attrs none() { return std::make_shared<NoAttrs>(); }

/// y = x + pack(v, salt).
struct Serve : Graph {
  explicit Serve(int64_t salt = 1) {
    variable(n);
    ValueId x = input(floats(n));
    f.outputs = {node(add, {x, mix(pack, {read(0)}, n, salt)}, {floats(n)}, none())[0]};
    f.output_names = {""};
  }
};

/// v := v + 1, and gives pack(v, 1) + x.
struct Train : Serve {
  Train() {
    ValueId one = node(spread, {input(floats(1))}, {floats(n)}, none())[0];
    f.stores = {{0, node(add, {f.nodes[0].outputs[0], one}, {floats(n)}, none())[0], no_value}};
  }
};

}  // namespace

TEST_CASE("prepared values are made once, shared by programs, remade after a write") {
  VariableRef v = variable(n, 5);
  packs = 0;
  size_t before = prepared_bytes_in_use();
  Serve one, two, other(2);
  Program a(one.module, {v}, cpu_device()), b(two.module, {v}, cpu_device());
  CHECK(a.plan().steps.size() == 1);
  CHECK(a.prepared_bytes() == n * 4);
  CHECK(prepared_bytes_in_use() == before + n * 4);
  CHECK(call(a, 1) == std::vector<float>{7});
  CHECK(call(a, 2) == std::vector<float>{8});
  CHECK(call(b, 3) == std::vector<float>{9});
  CHECK(packs == 1);
  Program c(other.module, {v}, cpu_device());  // another salt: another value
  CHECK(call(c, 0) == std::vector<float>{7});
  CHECK(packs == 2);
  CHECK(prepared_bytes_in_use() == before + 2 * n * 4);
  assign(*v, 10);
  CHECK(call(b, 0) == std::vector<float>{11});
  CHECK(call(a, 0) == std::vector<float>{11});
  CHECK(packs == 3);
  CHECK(text(a.plan()).find("add_both(input0, prepared0) -> output0") != std::string::npos);
  CHECK(a.prepared_text() == "prepared0: 12000 bytes from v\n");
}

TEST_CASE("a program that writes a variable computes inside what follows from it; others see the write") {
  VariableRef v = variable(n, 5);
  packs = 0;
  Train t;
  Serve s;
  Program train(t.module, {v}, cpu_device()), serve(s.module, {v}, cpu_device());
  CHECK(train.prepared_bytes() == 0);
  CHECK(call(serve) == std::vector<float>{6});
  for (int i = 0; i < 3; i++) {
    CHECK(call(train, 1) == std::vector<float>{float(7 + i)});
    CHECK(first(*v) == float(6 + i));
    CHECK(call(serve) == std::vector<float>{float(7 + i)});
  }
  CHECK(packs == 1 + 3 + 3);
}

TEST_CASE("a program that writes one variable keeps what follows from the others") {
  Graph g;  // w := w + pack(v)
  g.variable(n), g.variable(n);
  g.f.stores = {{1, g.node(add, {g.read(1), g.mix(pack, {g.read(0)}, n, 1)}, {floats(n)}, none())[0], no_value}};
  VariableRef v = variable(n, 5), w = variable(n, 0);
  join_groups({v, w});
  packs = 0;
  Program p(g.module, {v, w}, cpu_device());
  call(p), call(p);
  CHECK(first(*w) == 12);
  assign(*v, 1);
  call(p);
  CHECK(first(*w) == 14);
  CHECK(packs == 2);
}

TEST_CASE("what is hoisted: what pays, with all that leads to it") {
  Graph g;
  g.variable(n);
  ValueId v = g.read(0), x = g.input(floats(n));
  auto both = [&](ValueId a, ValueId b) { return g.node(add, {a, b}, {floats(n)}, none())[0]; };
  ValueId chain = both(g.mix(pack, {v}, n, 1), v);                                       // one value: its end
  ValueId wide = g.node(spread, {v}, {floats(n)}, none())[0];                            // reads n, writes n: kept
  ValueId given = g.node(spread, {g.input(floats(1))}, {floats(n)}, none())[0];          // depends on an input
  ValueId view = g.node(same_memory, {g.mix(pack, {v}, n, 9)}, {floats(n)}, none())[0];  // kept behind the view
  ValueId plain_view = g.node(same_memory, {v}, {floats(n)}, none())[0];                 // the variable itself
  ValueId copied = g.mix(pack, {v}, n, 3);                                               // given out: as cheap to make
  ValueId checked = g.mix(checking, {v}, n, 1);                                          // may fault
  ValueId sum = x;
  for (ValueId y : {chain, wide, given, view, plain_view, checked}) sum = both(sum, y);
  g.f.outputs = {sum, copied};
  g.f.output_names = {"", ""};
  Program p(g.module, {variable(n, 0)}, cpu_device());
  CHECK(p.prepared_bytes() == 3 * n * 4);
  CHECK(p.plan().steps.size() == 6 + 3);  // the sums; given, copied, checked

  Graph small;  // a fill of 64 numbers is kept, one of n is not
  ValueId one = small.node(spread, {small.mix(fill, {}, 1, 1)}, {floats(64)}, none())[0];
  ValueId large = small.node(spread, {one}, {floats(n)}, none())[0];
  small.f.outputs = {
      small.node(add, {small.node(add, {small.input(floats(n)), large}, {floats(n)}, none())[0], one}, {floats(64)}, none())[0]};
  small.f.output_names = {""};
  Program q(small.module, {}, cpu_device());
  CHECK(q.prepared_bytes() == 64 * 4);
  CHECK(q.plan().steps.size() == 3);
  CHECK(call(q, 1) == std::vector<float>{3});  // 1 + 1 + 1, without a variable and its lock
}

TEST_CASE("prepared values beyond the limit are computed inside") {
  VariableRef v = variable(n, 5);
  packs = 0;
  setenv("DAGRT_PREPARED_LIMIT", std::to_string(prepared_bytes_in_use() + n * 4 - 1).c_str(), 1);
  Serve s, t;
  Program inside(s.module, {v}, cpu_device());
  CHECK(inside.prepared_bytes() == 0);
  unsetenv("DAGRT_PREPARED_LIMIT");
  Program beside(t.module, {v}, cpu_device());
  CHECK(beside.prepared_bytes() == n * 4);
  for (int i = 0; i < 2; i++) {
    CHECK(call(inside, 1) == std::vector<float>{7});
    CHECK(call(beside, 1) == std::vector<float>{7});
  }
  CHECK(packs == 2 + 1);
}

TEST_CASE("prepared values go with the last program that uses them") {
  size_t before = prepared_bytes_in_use();
  for (int i = 0; i < 300; i++) {
    VariableRef v = variable(n, float(i));
    Serve s, t;
    auto a = std::make_unique<Program>(s.module, std::vector<VariableRef>{v}, cpu_device());
    CHECK(call(*a) == std::vector<float>{float(i + 1)});
    Program b(t.module, {v}, cpu_device());
    a.reset();
    CHECK(prepared_bytes_in_use() == before + n * 4);
    CHECK(call(b) == std::vector<float>{float(i + 1)});
  }
  CHECK(prepared_bytes_in_use() == before);
}

TEST_CASE("prepared values on a device that is not the host") {
  HostSim device;
  {
    VariableRef v = variable(n, 5, device);
    packs = 0;
    Serve s;
    Train t;
    Program serve(s.module, {v}, device), train(t.module, {v}, device);
    CHECK(call(serve, 1) == std::vector<float>{7});
    CHECK(call(serve, 1) == std::vector<float>{7});
    CHECK(packs == 1);
    call(train, 1);
    CHECK(call(serve, 1) == std::vector<float>{8});
    CHECK(packs == 3);
  }
}

TEST_CASE("threads read prepared values while a thread trains: every result is of one version") {
  VariableRef v = variable(n, 0);
  Train t;
  Serve s, s2;
  std::vector<VariableRef> vars{v};
  Program train(t.module, vars, cpu_device()), serve(s.module, vars, cpu_device()), serve2(s2.module, vars, cpu_device());
  std::atomic<bool> stop{false};
  std::atomic<int> torn{0}, served{0};
  std::vector<std::thread> threads;
  for (const Program* p : {&serve, &serve2})
    threads.emplace_back([&, p] {
      float last = 0;
      while (!stop) {
        float y = call(*p)[0];
        torn += !(y >= last);  // NaN where elements differ; versions never go back
        last = y;
        served++;
      }
    });
  for (int i = 0; i < 200; i++) {
    call(train, 1);
    torn += call(serve)[0] != float(i + 2);
  }
  while (served < 10) std::this_thread::yield();
  stop = true;
  for (std::thread& thread : threads) thread.join();
  CHECK(torn == 0);
  CHECK(call(serve2) == std::vector<float>{201});
}
