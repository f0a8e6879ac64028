// The runtime: scans, threads over shared variables, cancellation, the program cache, limits of memory, faults' text.
#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <thread>

#include "api/dagrt.h"
#include "graph.h"
#include "io/model_file.h"
#include "passes/pipeline.h"
#include "runtime/program.h"
#include "trace.h"

using namespace dagrt;
using namespace dagrt::testing;

namespace {

VariableRef variable(std::vector<float> x, const char* name = "v") {
  return std::make_shared<Variable>(name, DType::float32, std::vector<int64_t>{int64_t(x.size())}, x.data());
}

std::vector<float> value(const Variable& v) {
  std::vector<float> x(v.bytes() / 4);
  v.read(x.data());
  return x;
}

template <class F> std::string message_of(const F& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

/// Runs a program on vectors.
std::vector<std::vector<float>> call(const Program& p, std::vector<std::vector<float>> inputs, CancelPoll poll = nullptr) {
  std::vector<View> in = p.inputs(), out = p.outputs();
  std::vector<std::vector<float>> results;
  for (size_t i = 0; i < in.size(); i++) in[i].data = inputs[i].data();
  for (const View& v : out) results.emplace_back(size_t(v.elements()), NAN);
  for (size_t i = 0; i < out.size(); i++) out[i].data = results[i].data();
  p.run(in.data(), out.data(), poll);
  return results;
}

/// c := (c * 2 + x[t] + t) over a scan: carry [2], sequence [T, 2], captured [2], ys = the old carry.
struct ScanCase {
  Module module;
  ScanCase(int64_t length, bool reverse, bool carry_is_y = true) {
    module.functions.emplace_back();
    module.functions.emplace_back();
    Function& body = module.functions[1];
    body.name = "body";
    for (const char* name : {"c", "x", "k"}) body.inputs.push_back({name, body.add_value(floats(2))});
    body.inputs.push_back({"step", body.add_value({DType::int32, {}})});
    static const Op cell = [] {
      Op o;
      o.name = "cell";
      o.run = [](const RunContext& r) {
        for (int i = 0; i < 2; i++)
          r.out[0].as<float>()[i] =
              r.in[0].as<float>()[i] * 2 + r.in[1].as<float>()[i] + r.in[2].as<float>()[i] + float(*r.in[3].as<int32_t>());
      };
      return o;
    }();
    Node n;
    n.op = &cell;
    n.attrs = Graph::salted(0);
    n.inputs = {0, 1, 2, 3};
    n.outputs = {body.add_value(floats(2))};
    body.nodes.push_back(n);
    body.outputs = {4, carry_is_y ? 4 : 0};
    body.output_names = {"", ""};

    Function& f = module.functions[0];
    f.name = "main";
    f.inputs.push_back({"c", f.add_value(floats(2))});
    f.inputs.push_back({"x", f.add_value({DType::float32, {length, 2}})});
    f.inputs.push_back({"k", f.add_value(floats(2))});
    Node scan;
    scan.op = &op("scan");
    auto a = std::make_shared<ScanAttrs>();
    a->body = "body";
    a->carries = a->sequences = 1;
    a->reverse = reverse;
    a->length = length;
    scan.attrs = a;
    scan.inputs = {0, 1, 2};
    scan.outputs = {f.add_value(floats(2)), f.add_value({DType::float32, {length, 2}})};
    f.nodes.push_back(scan);
    f.outputs = scan.outputs;
    f.output_names = {"", ""};
  }
};

}  // namespace

TEST_CASE("scan: carries, ys, captured values and the step, forwards and backwards, of any length") {
  for (int64_t length : {0, 1, 2, 3, 7})
    for (bool reverse : {false, true})
      for (bool carry_is_y : {false, true}) {
        INFO("length " << length << " reverse " << reverse << " carry_is_y " << carry_is_y);
        ScanCase s(length, reverse, carry_is_y);
        Program p(s.module, {}, cpu_device());
        std::vector<float> c{1, 2}, k{3, 4}, x(size_t(length) * 2), ys(size_t(length) * 2);
        for (size_t i = 0; i < x.size(); i++) x[i] = float(i);
        auto got = call(p, {c, x, k});
        for (int64_t j = 0; j < length; j++) {
          int64_t t = reverse ? length - 1 - j : j;
          for (size_t i = 0; i < 2; i++) {
            float old = c[i];
            c[i] = c[i] * 2 + x[size_t(t) * 2 + i] + k[i] + float(t);
            ys[size_t(t) * 2 + i] = carry_is_y ? c[i] : old;
          }
        }
        CHECK(got[0] == c);
        CHECK(got[1] == ys);
      }
}

TEST_CASE("iterations that carry nothing are at work at once: the same bits on any number of threads, and the first fault") {
  constexpr int64_t length = 7, n = 40000;
  for (bool reverse : {false, true}) {
    Trace t;
    ValueId x = t.input("x", floats({length, n})), ids = t.input("ids", {DType::int32, {length, n}}),
            table = t.input("table", floats({5}));
    Trace body(t, "body");
    ValueId xt = body.input("x", floats({n})), id = body.input("ids", {DType::int32, {n}}),
            from = body.input("table", floats({5}));
    ValueId step = body.input("step", {DType::int32, {}});
    ValueId y = body.b.emit("exp", {body.b.mul(xt, body.b.emit("gather", {from, id}, {{"axis", {int64_t(0)}}}))});
    y = body.b.add(y, body.b.cast(step, DType::float32));
    body.out({y, body.b.sum(y, {0})});
    t.out(t.b.emit_all("scan", {x, ids, table},
                       {{"body", {std::string("body")}},
                        {"carries", {int64_t(0)}},
                        {"sequences", {int64_t(2)}},
                        {"length", {length}},
                        {"reverse", {reverse}}}));
    const Types types{floats({length, n}), {DType::int32, {length, n}}, floats({5})};
    Program p(compile(t.m, "main", types), {}, cpu_device());
    REQUIRE(p.plan().scans.size() == 1);
    CHECK(p.plan().scans[0].at_once == length);

    std::vector<float> xs(length * n), of{1, -2, 0.5f, 3, -1}, ys(length * n), sums(length), first_ys, first_sums;
    std::vector<int32_t> places(length * n);
    for (size_t i = 0; i < xs.size(); i++) xs[i] = float(i % 97) / 97, places[i] = int32_t(i % 5);
    std::vector<View> in = p.inputs(), out = p.outputs();
    in[0].data = xs.data(), in[1].data = places.data(), in[2].data = of.data();
    out[0].data = ys.data(), out[1].data = sums.data();
    for (int threads : {1, 2, 3, 8}) {
      set_default_threads(threads);
      for (int round = 0; round < 5; round++) {
        std::fill(ys.begin(), ys.end(), NAN);
        p.run(in.data(), out.data(), nullptr);
        if (first_ys.empty()) first_ys = ys, first_sums = sums;
        CHECK(ys == first_ys);
        CHECK(sums == first_sums);
      }
      for (int64_t step : {int64_t(2), int64_t(4)}) places[size_t(step * n + 3 + step)] = int32_t(4 + step);
      const int64_t first = reverse ? 4 : 2;
      CHECK(message_of([&] { p.run(in.data(), out.data(), nullptr); }) ==
            "gather: expected ids in 0..4, got " + std::to_string(4 + first) + " at position " + std::to_string(3 + first));
      for (int64_t step : {int64_t(2), int64_t(4)}) places[size_t(step * n + 3 + step)] = int32_t((step * n + 3 + step) % 5);
    }
    for (int64_t i = 0; i < length * n; i += 1111)
      CHECK(first_ys[size_t(i)] ==
            doctest::Approx(std::exp(xs[size_t(i)] * of[size_t(places[size_t(i)])]) + float(i / n)).epsilon(1e-6));
  }
  set_default_threads(0);
}

TEST_CASE("two threads run a model while a third trains it: every result is of one version") {
  Graph train;  // v := v + 1 in all elements, in several steps
  train.variable(1000);
  static const Op add_one = [] {
    Op o;
    o.name = "add_one";
    o.in_place = {{0, 0}};
    o.run = [](const RunContext& c) {
      for (int64_t i = 0; i < c.out[0].elements(); i++) c.out[0].as<float>()[i] = c.in[0].as<float>()[i] + 1;
    };
    return o;
  }();
  ValueId v2 = train.mix(add_one, {train.read(0)}, 1000, 0);
  train.f.stores = {{0, v2, no_value}};
  Graph serve;
  serve.variable(1000);
  ValueId x = serve.input(floats(1));
  (void)x;
  serve.f.outputs = {serve.mix(add_one, {serve.read(0)}, 1000, 0)};
  serve.f.output_names = {""};
  std::vector<VariableRef> v{variable(std::vector<float>(1000, 0))};
  Program trainer(train.module, v, cpu_device()), server(serve.module, v, cpu_device());
  CHECK(trainer.plan().commits[0].step.kind == Step::Kind::op);
  std::atomic<bool> stop{false};
  std::atomic<int> torn{0}, served{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; i++)
    threads.emplace_back([&] {
      while (!stop) {
        auto y = call(server, {{0}})[0];
        for (float e : y) torn += e != y[0];
        served++;
      }
    });
  for (int i = 0; i < 300; i++) {
    call(trainer, {});
    std::vector<float> now = value(*v[0]);
    for (float e : now) torn += e != now[0];
  }
  while (served < 10) std::this_thread::yield();
  stop = true;
  for (std::thread& t : threads) t.join();
  CHECK(torn == 0);
  CHECK(value(*v[0])[0] == 300);
  CHECK(v[0]->version() == 300);
}

TEST_CASE("joining groups while runs hold their locks") {
  std::vector<VariableRef> v;
  for (int i = 0; i < 16; i++) v.push_back(variable({0, 0}));
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int k = 0; k < 2; k++)
    threads.emplace_back([&, k] {
      std::vector<float> x{float(k), float(k)};
      while (!stop)
        for (auto& e : v) {
          e->assign(x.data());
          std::vector<float> y = value(*e);
          if (y[0] != y[1]) stop = true;
        }
    });
  for (size_t i = 1; i < v.size(); i++) join_groups({v[i], v[i / 2]});
  CHECK_FALSE(stop);
  stop = true;
  for (std::thread& t : threads) t.join();
  GroupLock lock(v[0].get(), true);
}

TEST_CASE("a cancelled run changes nothing") {
  Graph g;
  g.variable(4);
  static const Op slow = [] {
    Op o;
    o.name = "slow";
    o.run = [](const RunContext& c) {
      std::this_thread::sleep_for(std::chrono::milliseconds(30));
      std::memcpy(c.out[0].data, c.in[0].data, 16);
    };
    o.cost = [](const void*, const Types&, const Types&) { return Cost{1e9, 0}; };
    return o;
  }();
  ValueId v = g.read(0);
  for (int i = 0; i < 6; i++) v = g.mix(slow, {v}, 4, 0);
  g.f.stores = {{0, g.mix(plain, {v}, 4, 5), no_value}};
  std::vector<VariableRef> vars{variable({1, 2, 3, 4})};
  Program p(g.module, vars, cpu_device());
  static std::atomic<int> asked;
  asked = 0;
  auto start = std::chrono::steady_clock::now();
  try {
    call(p, {}, [] { return ++asked == 1; });
    FAIL_CHECK("it was not cancelled");
  } catch (const Error& e) {
    CHECK(e.kind == ErrorKind::cancelled);
  }
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::milliseconds(160));
  CHECK(value(*vars[0]) == std::vector<float>{1, 2, 3, 4});
  call(p, {}, [] { return false; });
  CHECK(vars[0]->version() == 1);
}

TEST_CASE("an arena beyond the limit is a MemoryLimitError naming the bytes") {
  Graph g;
  ValueId x = g.input(floats(1 << 20));
  ValueId y = g.mix(plain, {x, x}, 1 << 20, 1);
  g.f.outputs = {g.mix(plain, {y, y}, 1, 2)};
  g.f.output_names = {""};
  Program p(g.module, {}, cpu_device());
  std::vector<float> in(1 << 20, 1);
  cpu_device().arenas.trim(cpu_device());
  setenv("DAGRT_MEMORY_LIMIT", "1000000", 1);
  try {
    call(p, {in});
    FAIL_CHECK("it ran");
  } catch (const Error& e) {
    CHECK(e.kind == ErrorKind::memory_limit);
    std::string m = e.what();
    CHECK(m.find("needs 4194304 bytes") != std::string::npos);
    CHECK(m.find("DAGRT_MEMORY_LIMIT has only") != std::string::npos);
  }
  unsetenv("DAGRT_MEMORY_LIMIT");
  call(p, {in});
  CHECK(cpu_device().arenas.bytes() >= size_t(4) << 20);
  const char* why = nullptr;
  CHECK(available_host_memory(&why) > 0);
}

namespace {

// x -> x, and v := x where the sizes are those of v: no op is needed.
const char* echo = R"({"format": "dagrt", "version": 1, "variables": [{"name": "v", "dtype": "float32", "shape": [2]}],
  "constants": [{"dtype": "float32", "shape": [3]}], "functions": {"main": {
    "inputs": [{"name": "x", "dtype": "float32", "shape": ["x.0"]}],
    "nodes": [{"op": "read", "in": [], "out": [1], "attrs": {"variable": 0}},
              {"op": "constant", "in": [], "out": [2], "attrs": {"index": 0}}],
    "outputs": [0, 1, 2], "output_names": ["", "", ""], "stores": [], "guard": null}}})";

Tensor tensor(const std::vector<float>& x) {
  return Tensor::copy(make_view(DType::float32, {int64_t(x.size())}, const_cast<float*>(x.data())));
}

}  // namespace

TEST_CASE("a callable keeps the programs of its last 64 shapes") {
  float numbers[] = {7, 8, 9};
  Callable f(echo, {variable({5, 6})}, {make_view(DType::float32, {3}, numbers)});
  auto first = f.program({{1}});
  for (int64_t n = 2; n <= 64; n++) f.program({{n}});
  CHECK(f.programs() == 64);
  CHECK(f.program({{1}}) == first);  // now the most recently used
  auto second = f.program({{2}});
  f.program({{65}});  // drops 3
  f.program({{66}});  // drops 4
  CHECK(f.programs() == 64);
  CHECK(f.program({{1}}) == first);
  CHECK(f.program({{2}}) == second);
  std::vector<Tensor> y = f.run({tensor({1, 2, 3, 4})});
  REQUIRE(y.size() == 3);
  CHECK(y[0].as<float>()[3] == 4);
  CHECK(y[1].as<float>()[1] == 6);
  CHECK(y[2].as<float>()[2] == 9);
  CHECK(f.memory(*first).variable_bytes == 8);
  CHECK(f.memory(*first).constant_bytes == 12);
}

TEST_CASE("what a callable refuses") {
  float numbers[] = {7, 8, 9};
  View constant = make_view(DType::float32, {3}, numbers);
  CHECK(message_of([&] { Callable(echo, {}, {constant}); }) == "the module has 1 variables, got 0");
  CHECK(message_of([&] { Callable(echo, {variable({1, 2})}, {}); }) == "the module has 1 constants, got 0");
  CHECK(message_of([&] { Callable(echo, {variable({1, 2, 3})}, {constant}); }) ==
        "variable 0 ('v'): expected float32(2,), got (3,)");
  CHECK(message_of([&] { Callable(echo, {variable({1, 2})}, {make_view(DType::float32, {2}, numbers)}); }) ==
        "constant 0: expected float32(3,), got float32(2,)");
  Callable f(echo, {variable({1, 2})}, {constant});
  CHECK(message_of([&] { f.program({}); }) == "function 'main' has 1 inputs, got 0");
  CHECK(message_of([&] { f.program({{1, 2}}); }) == "input 'x': expected shape (x.0,), got (1, 2)");
  View wrong = make_view(DType::int32, {2}, numbers);
  CHECK(message_of([&] { f.program(&wrong, 1); }) == "input 'x': expected float32, got int32");
  CHECK(message_of([&] { make_view(DType::float32, std::vector<int64_t>(9, 1), nullptr); }) ==
        "a tensor may have at most 8 axes, got 9");
}

TEST_CASE("a model file is loaded, run, and tested by what it carries") {
  std::string path = "/tmp/dagrt_test_runtime_" + std::to_string(getpid()) + ".dagrt";
  float v[] = {5, 6}, constant[] = {7, 8, 9}, x[] = {1, 2, 3}, wrong[] = {1, 2, 4};
  auto tensor = [](const char* name, int64_t n, const float* data) {
    return FileTensor{name, DType::float32, {n}, data, size_t(n) * 4};
  };
  auto write = [&](const float* answer) {
    write_model_file(path, echo,
                     {tensor("var/0", 2, v), tensor("const/0", 3, constant), tensor("selftest/in/0", 3, x),
                      tensor("selftest/out/0", 3, answer), tensor("selftest/out/1", 2, v), tensor("selftest/out/2", 3, constant)},
                     {{"name", "echo"}});
  };
  write(x);
  Model m = Model::load(path);
  m.selftest();
  CHECK(m.metadata().at("name") == "echo");
  CHECK(m.run({m.selftest_inputs()[0]})[1].as<float>()[1] == 6);
  write(wrong);
  Model other = Model::load(path);
  CHECK(message_of([&] { other.selftest(); }) == "self-test: expected 4 at position 2 of output 0, got 3");
  std::remove(path.c_str());
}
