// fuse_pointwise and fuse_epilogues: the fused function gives the bits of the unfused one, on random graphs with broadcasting, scalars,
// values used twice and values that leave the function; layer paths survive.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "ops/op.h"
#include "passes/pipeline.h"

using namespace dagrt;

namespace {

/// Runs every node alone, each value with memory of its own.
std::vector<std::vector<char>> evaluate(const Module& m, const std::vector<std::vector<float>>& inputs, int threads) {
  const Function& f = m.functions.front();
  std::vector<std::vector<char>> memory(f.types.size());
  std::vector<View> views(f.types.size());
  for (size_t v = 0; v < f.types.size(); v++) {
    const TensorType& t = f.types[v];
    memory[v].assign(size_t(t.bytes()) + 8, 0x7f);
    views[v].data = memory[v].data();
    views[v].dtype = t.dtype;
    views[v].rank = t.rank();
    for (int d = 0; d < t.rank(); d++) views[v].dims[d] = t.shape[size_t(d)].value();
    views[v].ld = t.rank() ? views[v].dims[t.rank() - 1] : 1;
  }
  for (size_t i = 0; i < inputs.size(); i++)
    std::memcpy(memory[size_t(f.inputs[i].value)].data(), inputs[i].data(), inputs[i].size() * 4);
  for (const Node& n : f.nodes) {
    std::vector<View> in, out;
    Types in_types, out_types;
    for (ValueId v : n.inputs) {
      in.push_back(v == no_value ? View{} : views[size_t(v)]);
      in_types.push_back(v == no_value ? TensorType{DType::float32, {}, true} : f.types[size_t(v)]);
    }
    for (ValueId v : n.outputs) out.push_back(views[size_t(v)]), out_types.push_back(f.types[size_t(v)]);
    Memory need = n.op->memory ? n.op->memory(n.attrs.get(), in_types, out_types) : Memory{};
    const size_t scratch_bytes = (need.scratch + 63) / 64 * 64;
    std::vector<char> workspace(need.workspace + 64), scratch(size_t(threads) * scratch_bytes + 64);
    Stream stream;
    stream.threads = threads;
    stream.scratch = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64) % 64;
    stream.scratch_bytes = scratch_bytes;
    Status status;
    RunContext c{n.attrs.get(), in.data(), out.data(), int(in.size()), int(out.size()), stream, workspace.data(), status, 0};
    n.op->run(c);
  }
  std::vector<std::vector<char>> results;
  for (ValueId v : f.outputs) {
    results.push_back(memory[size_t(v)]);
    results.back().resize(size_t(f.types[size_t(v)].bytes()));
  }
  return results;
}

struct Graph {
  Module module;
  Types types;
  std::vector<std::vector<float>> data;
};

Graph random_graph(unsigned seed) {
  std::mt19937 rng(seed);
  auto pick = [&](size_t n) { return size_t(rng() % n); };
  Graph g;
  g.module.functions.emplace_back();
  Function& f = g.module.functions.back();
  f.name = "main";
  const int64_t N = int64_t(1 + pick(40)), C = int64_t(pick(4) ? 1 + pick(40) : 300 + pick(900));
  const std::vector<Dims> shapes = {{N, C}, {N, C}, {C}, {N, 1}, {}, {1, C}, {C, C > 40 ? 1 : C}};
  std::vector<ValueId> floats, bools;
  for (size_t i = 0; i < shapes.size(); i++) {
    TensorType t{DType::float32, shapes[i]};
    ValueId v = f.add_value(t);
    f.inputs.push_back({"x" + std::to_string(i), v});
    g.types.push_back(t);
    std::vector<float> x(static_cast<size_t>(t.elements()));
    for (float& e : x) e = float(int(rng() % 4001) - 2000) / 700.0f;
    g.data.push_back(std::move(x));
    floats.push_back(v);
  }
  const ValueId weights = floats.back();
  floats.pop_back();
  Builder b(g.module, f);
  for (double c : {0.0, 0.5, -2.0}) floats.push_back(b.scalar(c));
  const char* unary[] = {"tanh", "relu", "exp", "negative", "sigmoid", "square", "sign", "floor"};
  const char* binary[] = {"add", "subtract", "multiply", "maximum", "divide", "power"};
  const char* compare[] = {"less", "equal", "greater_equal"};
  for (int i = 0, count = int(5 + pick(40)); i < count; i++) {
    b.paths = {"layer_" + std::to_string(i)};
    auto recent = [&](const std::vector<ValueId>& all) {
      return pick(3) ? all[all.size() - 1 - pick(std::min<size_t>(all.size(), 4))] : all[pick(all.size())];
    };
    switch (pick(10)) {
      case 8:
      case 9: {  // a producer, whose result the next ops are likely to take
        ValueId x = recent(floats);
        if (b.type(x).shape != Dims{N, C}) break;
        floats.push_back(pick(2) && C <= 40 ? b.emit("matmul", {x, weights})
                                            : b.emit("batch_norm", {x, no_value, floats[2]}, {{"epsilon", {1e-3}}}));
        break;
      }
      case 0:
      case 1: floats.push_back(b.emit(unary[pick(8)], {recent(floats)})); break;
      case 2:
      case 3:
      case 4: floats.push_back(b.emit(binary[pick(6)], {recent(floats), recent(floats)})); break;
      case 5: bools.push_back(b.emit(compare[pick(3)], {recent(floats), recent(floats)})); break;
      case 6:
        if (bools.empty()) break;
        if (pick(2))
          bools.push_back(b.emit("logical_not", {recent(bools)}));
        else
          floats.push_back(b.cast(recent(bools), DType::float32));
        break;
      default:
        if (!bools.empty()) floats.push_back(b.select(recent(bools), recent(floats), recent(floats)));
    }
  }
  f.outputs = {floats.back(), floats[pick(floats.size())]};
  if (!bools.empty()) f.outputs.push_back(bools.back());
  f.output_names.assign(f.outputs.size(), "");
  return g;
}

}  // namespace

TEST_CASE("fused chains give the bits of the ops one by one") {
  size_t fused_nodes = 0, epilogues = 0, saved = 0;
  for (unsigned seed = 0; seed < 300; seed++) {
    Graph g = random_graph(seed);
    CompileOptions options;
    options.verify = true;
    options.fuse = false;
    Module plain = compile(g.module, "main", g.types, options);
    options.fuse = true;
    Module fused = compile(g.module, "main", g.types, options);
    INFO("seed " << seed);
    CHECK(evaluate(plain, g.data, 1) == evaluate(fused, g.data, 1));
    CHECK(evaluate(plain, g.data, 1) == evaluate(fused, g.data, 2));
    saved += plain.functions.front().nodes.size() - fused.functions.front().nodes.size();
    for (const Node& n : fused.functions.front().nodes) {
      fused_nodes += n.op->name == "pointwise";
      epilogues += n.op->attrs.write(n.attrs.get()).count("epilogue");
    }
  }
  CHECK(fused_nodes > 200);
  CHECK(epilogues > 60);
  CHECK(saved > 1000);
}

TEST_CASE("a fused node keeps its members' layer paths; what is used twice or leaves the function stays") {
  Module m;
  m.functions.emplace_back();
  Function& f = m.functions.back();
  f.name = "main";
  TensorType t{DType::float32, {4, 8}};
  ValueId x = f.add_value(t);
  f.inputs.push_back({"x", x});
  Builder b(m, f);
  b.paths = {"first"};
  ValueId y = b.mul(x, b.scalar(2));
  b.paths = {"second"};
  ValueId z = b.emit("tanh", {y});
  b.paths = {"third"};
  ValueId both = b.add(b.emit("exp", {z}), b.emit("relu", {z}));
  f.outputs = {both, z};
  f.output_names = {"", ""};
  Module c = compile(m, "main", {t});
  std::vector<std::string> ops;
  for (const Node& n : c.functions.front().nodes) ops.push_back(n.op->name);
  CHECK(ops == std::vector<std::string>{"pointwise", "pointwise"});
  CHECK(c.functions.front().nodes[0].paths == std::vector<std::string>{"first", "second"});
  CHECK(c.functions.front().nodes[1].paths == std::vector<std::string>{"third"});
}

TEST_CASE("a program that does not fit is refused") {
  const Op& p = op("pointwise");
  auto attrs = [](const char* line) {
    return AttrMap{{"program", {AttrList{{std::string(line)}}}}, {"constants", {AttrList{{0.5}}}}};
  };
  for (const char* line : {"", "add", "add 0", "add 0 1 2", "add 0 c1", "add 0 -1", "nothing 0", "mod 0 0", "tanh x"})
    CHECK_THROWS_AS(p.attrs.read("pointwise", attrs(line)), Error);
  TensorType t{DType::float32, {3}};
  for (const char* line : {"add 0 1", "logical_not 0", "select 0 0 0", "tanh 7"})
    CHECK_THROWS_AS(infer(p, p.attrs.read("pointwise", attrs(line)).get(), {t}), Error);
  CHECK(infer(p, p.attrs.read("pointwise", attrs("add 0 c0")).get(), {t})[0] == t);
}
