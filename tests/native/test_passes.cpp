// The compiler's passes: golden texts for each, gradients against differences, and random graphs whose compiled form must
// give the same bits as the plain one.
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <random>

#include "api/dagrt.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "ops/op.h"
#include "passes/passes.h"
#include "passes/pipeline.h"
#include "trace.h"

namespace dagrt {
namespace {

using testing::floats;
using testing::list;
using testing::Trace;

CompileOptions plain() {
  CompileOptions o;
  o.verify = true;
  o.fuse = o.algorithms = false;
  return o;
}

Module compiled(const Trace& t, const Types& inputs) { return compile(t.m, "main", inputs, plain()); }

/// Evaluates a specialised function from the ops' own `run`, every value in memory of its own; with scans.
using Bytes = std::vector<char>;
std::vector<Bytes> evaluate(const Module& m, const Function& f, const std::vector<Bytes>& inputs) {
  std::vector<Bytes> values(f.types.size());
  for (size_t i = 0; i < inputs.size(); i++) values[size_t(f.inputs[i].value)] = inputs[i];
  for (const Node& n : f.nodes) {
    for (ValueId v : n.outputs) values[size_t(v)].resize(size_t(f.types[size_t(v)].bytes()));
    if (n.op->role == Structural::read || n.op->name == "stop_gradient") {
      values[size_t(n.outputs[0])] = values[size_t(n.inputs.at(0))];
      continue;
    }
    if (n.op->role == Structural::scan) {
      const ScanAttrs& a = n.as<ScanAttrs>();
      const Function& body = m.function(a.body);
      int64_t steps = a.length.value();
      std::vector<Bytes> in;
      for (ValueId v : n.inputs) in.push_back(values[size_t(v)]);
      for (int64_t k = 0; k < steps; k++) {
        int64_t t = a.reverse ? steps - 1 - k : k;
        std::vector<Bytes> given = in;
        for (int64_t s = a.carries; s < a.carries + a.sequences; s++) {
          size_t row = in[size_t(s)].size() / size_t(steps);
          given[size_t(s)] = Bytes(in[size_t(s)].begin() + t * int64_t(row), in[size_t(s)].begin() + (t + 1) * int64_t(row));
        }
        int32_t step = int32_t(t);
        given.emplace_back(4);
        std::memcpy(given.back().data(), &step, 4);
        std::vector<Bytes> out = evaluate(m, body, given);
        for (size_t i = 0; i < out.size(); i++) {
          if (int64_t(i) < a.carries)
            in[i] = out[i];
          else
            std::copy(out[i].begin(), out[i].end(), values[size_t(n.outputs[i])].begin() + t * int64_t(out[i].size()));
        }
      }
      for (int64_t i = 0; i < a.carries; i++) values[size_t(n.outputs[size_t(i)])] = in[size_t(i)];
      continue;
    }
    std::vector<View> views;
    Types in, out;
    auto view = [&](ValueId v) {
      if (v == no_value) return void(views.emplace_back());
      const TensorType& t = f.types[size_t(v)];
      std::vector<int64_t> shape;
      for (const Dim& d : t.shape) shape.push_back(d.value());
      values[size_t(v)].reserve(64);  // never null
      views.push_back(make_view(t.dtype, shape, values[size_t(v)].data()));
    };
    for (ValueId v : n.inputs) {
      view(v);
      in.push_back(v == no_value ? TensorType{DType::float32, {}, true} : f.types[size_t(v)]);
    }
    for (ValueId v : n.outputs) view(v), out.push_back(f.types[size_t(v)]);
    Memory memory = n.op->memory ? n.op->memory(n.attrs.get(), in, out) : Memory{};
    Bytes workspace(memory.workspace + 64), scratch(memory.scratch + 64);
    auto aligned = [](Bytes& v) { return reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(v.data()) + 63) / 64 * 64); };
    Stream stream;
    stream.scratch = aligned(scratch);
    stream.scratch_bytes = memory.scratch;
    Status status;
    n.op->run({n.attrs.get(), views.data(), views.data() + n.inputs.size(), int(n.inputs.size()), int(n.outputs.size()), stream,
               aligned(workspace), status, 0});
    REQUIRE(status.code == Status::ok);
  }
  std::vector<Bytes> results;
  for (ValueId v : f.outputs) results.push_back(values[size_t(v)]);
  return results;
}

Bytes bytes_of(const std::vector<float>& x) {
  Bytes b(x.size() * 4);
  if (!b.empty()) std::memcpy(b.data(), x.data(), b.size());
  return b;
}
std::vector<float> floats_of(const Bytes& b) {
  std::vector<float> x(b.size() / 4);
  if (!b.empty()) std::memcpy(x.data(), b.data(), b.size());
  return x;
}
std::vector<float> some_floats(const TensorType& t, std::mt19937& rng) {
  std::vector<float> x(size_t(t.elements()));
  for (float& v : x) v = std::uniform_real_distribution<float>(-1, 1)(rng);
  return x;
}

/// What the compiled function answers, through the runtime.
std::vector<Bytes> run(const Trace& t, const Types& types, const std::vector<Bytes>& inputs) {
  Callable function(t.m, {});
  std::vector<Tensor> tensors;
  for (size_t i = 0; i < inputs.size(); i++) {
    std::vector<int64_t> shape;
    for (const Dim& d : types[i].shape) shape.push_back(d.value());
    tensors.push_back(Tensor::copy(make_view(types[i].dtype, shape, const_cast<char*>(inputs[i].data()))));
  }
  std::vector<Bytes> results;
  for (const Tensor& y : function.run(tensors)) results.emplace_back(y.as<char>(), y.as<char>() + y.bytes());
  return results;
}

/// Output 0 is the loss, output 1 + i its gradient by input i: compares with central differences along random directions.
void check_gradients(const Trace& t, const Types& types, unsigned seed, double tolerance = 2e-2) {
  std::mt19937 rng(seed);
  std::vector<std::vector<float>> x;
  for (const TensorType& type : types) x.push_back(some_floats(type, rng));
  auto call = [&](const std::vector<std::vector<float>>& values) {
    std::vector<Bytes> in;
    for (auto& v : values) in.push_back(bytes_of(v));
    return run(t, types, in);
  };
  std::vector<Bytes> at = call(x);
  for (size_t i = 0; i < types.size(); i++) {
    std::vector<float> g = floats_of(at[1 + i]), direction = some_floats(types[i], rng);
    double expected = 0, scale = 1;
    for (size_t k = 0; k < g.size(); k++) {
      expected += double(g[k]) * direction[k];
      scale += std::fabs(double(g[k]) * direction[k]);
    }
    auto plus = x, minus = x;
    const float h = 1.0f / 128;
    for (size_t k = 0; k < g.size(); k++) plus[i][k] += h * direction[k], minus[i][k] -= h * direction[k];
    double got = (double(floats_of(call(plus)[0])[0]) - double(floats_of(call(minus)[0])[0])) / (2 * double(h));
    CHECK_MESSAGE(std::fabs(got - expected) <= tolerance * scale, "input ", i, ": differences ", got, ", gradient ", expected);
  }
}

std::string message_of(const Trace& t, const Types& inputs, ErrorKind kind) {
  try {
    compiled(t, inputs);
  } catch (const Error& e) {
    CHECK(int(e.kind) == int(kind));
    return e.what();
  }
  return "no error";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// ---------------------------------------------------------------- specialise

TEST_CASE("specialise: sizes become numbers, and errors name layer and input") {
  Trace t;
  Dim batch = Dim::symbol("x.0");
  ValueId x = t.input("x", floats({batch, 4}));
  ValueId w = t.read(t.variable("dense/kernel", floats({4, 3})));
  t.b.paths = {"dense"};
  ValueId y = t.b.emit("matmul", {x, w});
  t.b.paths = {"flat"};
  t.out({t.b.emit("reshape", {y}, {{"shape", list({batch * Dim(3)})}}), y});
  CHECK(text(compiled(t, {floats({5, 4})})) == R"(main(%0 x: float32(5, 4)) {
  %1 = read {variable: "dense/kernel"} : float32(4, 3)
  %2 = matmul(%0, %1) {transpose_a: false, transpose_b: false} : float32(5, 3)  # dense
  %3 = reshape(%2) {shape: [15]} : float32(15,)  # flat
  return %3, %2
}
)");
  CHECK(contains(message_of(t, {floats({5, 3})}, ErrorKind::shape), "input 'x'"));
  CHECK(contains(message_of(t, {floats({5})}, ErrorKind::shape), "input 'x'"));
  CHECK(contains(message_of(t, {{DType::int32, {5, 4}}}, ErrorKind::dtype), "int32"));
}

TEST_CASE("specialise: sizes that meet in the middle blame their inputs") {
  Trace t;
  ValueId x = t.input("x", floats({Dim::symbol("x.0"), 2})), z = t.input("z", floats({Dim::symbol("z.0"), 2}));
  t.b.paths = {"add_1"};
  t.out({t.b.add(x, z)});
  CHECK_NOTHROW(compiled(t, {floats({5, 2}), floats({1, 2})}));
  std::string m = message_of(t, {floats({5, 2}), floats({3, 2})}, ErrorKind::shape);
  CHECK_MESSAGE((contains(m, "add_1 (add)") && contains(m, "'x' with shape (5, 2)") && contains(m, "'z'")), m);
}

// ---------------------------------------------------------------- expand_gradients

TEST_CASE("expand_gradients: golden text, paths of the forward nodes") {
  Trace t;
  ValueId x = t.input("x", floats({2, 3}));
  t.b.paths = {"dense"};
  ValueId y = t.b.emit("tanh", {x});
  t.b.paths = {"loss"};
  ValueId loss = t.sum(y);
  t.b.paths = {};
  t.out(t.gradients(loss, {x}));
  CHECK(text(compiled(t, {floats({2, 3})})) == R"(main(%0 x: float32(2, 3)) {
  %1 = tanh(%0) : float32(2, 3)  # dense
  %2 = full {dtype: "float32", shape: [], value: 1} : float32()  # dense
  %3 = multiply(%1, %1) : float32(2, 3)  # dense
  %4 = subtract(%2, %3) : float32(2, 3)  # dense
  return %4
}
)");
}

TEST_CASE("expand_gradients: a loss that does not depend gives zeros, integers too") {
  Trace t;
  ValueId x = t.input("x", floats({2})), z = t.input("z", floats({3})), i = t.input("i", {DType::int32, {2}});
  ValueId loss = t.sum(t.b.mul(x, t.b.cast(i, DType::float32)));
  t.out(t.gradients(loss, {z, i, x}));
  std::vector<Bytes> y = run(t, {floats({2}), floats({3}), {DType::int32, {2}}},
                             {bytes_of({1, 2}), bytes_of({1, 2, 3}), Bytes{3, 0, 0, 0, 4, 0, 0, 0}});
  CHECK(floats_of(y[0]) == std::vector<float>{0, 0, 0});
  CHECK(y[1] == Bytes(8));
  CHECK(floats_of(y[2]) == std::vector<float>{3, 4});
}

TEST_CASE("expand_gradients: a variable stands for the value that the loss read") {
  Trace t;
  ValueId x = t.input("x", floats({}));
  int64_t v = t.variable("v", floats({}));
  ValueId before = t.read(v);
  ValueId assigned = t.b.mul(t.b.mul(before, x), x);
  ValueId after = t.read_assigned(v, assigned);
  ValueId loss = t.b.mul(after, x);
  t.f.stores.push_back({int32_t(v), after, no_value});
  t.out(t.gradients(loss, {after, x, before}));  // x, 'after', and nothing: the read is a leaf
  float start = 3, at = 2;
  auto variable = std::make_shared<Variable>("v", DType::float32, std::vector<int64_t>{}, &start);
  Callable function(t.m, {variable});
  std::vector<Tensor> y = function.run({Tensor::copy(make_view(DType::float32, {}, &at))});
  CHECK(y[0].as<float>()[0] == 2);
  CHECK(y[1].as<float>()[0] == 12);
  CHECK(y[2].as<float>()[0] == 0);
  float stored = 0;
  variable->read(&stored);
  CHECK(stored == 12);
}

TEST_CASE("expand_gradients: stop_gradient, intermediate values, second derivatives") {
  Trace t;
  ValueId x = t.input("x", floats({}));
  ValueId y = t.b.mul(x, t.b.emit("stop_gradient", {x}));
  ValueId cube = t.b.mul(y, x);
  ValueId d_y = t.gradients(cube, {y})[0];  // x
  ValueId d_x = t.gradients(cube, {x})[0];  // y + x * stop(x) = 2 x^2, of which the second x is held
  ValueId dd_x = t.gradients(d_x, {x})[0];  // y' + stop(x) = 2 x
  ValueId fourth = t.b.mul(t.b.mul(x, x), t.b.mul(x, x));
  ValueId d3 = t.gradients(t.gradients(t.gradients(fourth, {x})[0], {x})[0], {x})[0];
  t.out({d_y, d_x, dd_x, d3});
  std::vector<Bytes> r = run(t, {floats({})}, {bytes_of({3})});
  CHECK(floats_of(r[0])[0] == 3);
  CHECK(floats_of(r[1])[0] == 18);
  CHECK(floats_of(r[2])[0] == 6);
  CHECK(floats_of(r[3])[0] == 72);
}

TEST_CASE("expand_gradients: an op without a gradient says what to do instead") {
  for (const Op* o : all_ops())
    if (o->not_differentiable) CHECK(std::string(o->not_differentiable).size() > 10);
  Trace t;
  ValueId logits = t.input("x", floats({2, 3})), labels = t.input("y", floats({2, 3}));
  t.b.paths = {"head"};
  ValueId loss = t.sum(t.b.emit("softmax_cross_entropy", {logits, labels}));
  ValueId g = t.gradients(loss, {logits})[0];
  t.out(t.gradients(t.sum(t.b.mul(g, g)), {logits}));
  std::string m = message_of(t, {floats({2, 3}), floats({2, 3})}, ErrorKind::graph);
  CHECK_MESSAGE(contains(m, "head (softmax_cross_entropy_grad)"), m);
}

/// carry' = tanh(carry * w + x_t) + step / 10, y_t = carry' * x_t; an integer carry counts along.
Trace& recurrent(Trace& t, bool reverse, Dim steps, ValueId& x, ValueId& w, ValueId& h0, std::vector<ValueId>& out) {
  x = t.input("x", floats({steps, 3}));
  w = t.input("w", floats({3}));
  h0 = t.input("h0", floats({3}));
  Trace body(t, "cell");
  ValueId h = body.input("h", floats({3})), count = body.input("count", {DType::int32, {}});
  ValueId e = body.input("x", floats({3})), cw = body.input("w", floats({3})), step = body.input("step", {DType::int32, {}});
  ValueId tenth = body.b.mul(body.b.cast(step, DType::float32), body.b.scalar(0.1));
  ValueId next = body.b.add(body.b.emit("tanh", {body.b.add(body.b.mul(h, cw), e)}), tenth);
  ValueId scaled = body.b.mul(next, body.b.cast(count, DType::float32));
  body.out({next, body.b.add(count, body.b.scalar(1, DType::int32)), body.b.mul(scaled, e)});
  out = t.b.emit_all("scan", {h0, t.b.scalar(1, DType::int32), x, w},
                     {{"body", {std::string("cell")}},
                      {"carries", {int64_t(2)}},
                      {"sequences", {int64_t(1)}},
                      {"reverse", {reverse}},
                      {"length", {int64_t(-1)}}});
  return t;
}

TEST_CASE("expand_gradients: scan, both ways, against differences and against the unrolled loop") {
  for (bool reverse : {false, true}) {
    Trace t;
    ValueId x, w, h0;
    std::vector<ValueId> y;
    recurrent(t, reverse, Dim::symbol("x.0"), x, w, h0, y);
    ValueId loss = t.b.add(t.sum(t.b.mul(y[0], y[0])), t.sum(y[2]));
    std::vector<ValueId> g = t.gradients(loss, {x, w, h0});
    t.out({loss});
    t.out(g);
    for (int64_t steps : {1, 2, 5}) check_gradients(t, {floats({steps, 3}), floats({3}), floats({3})}, 7);
    // Only the sequence is asked for, only the last state used: the rest must fall away without harm.
    Trace last;
    recurrent(last, reverse, Dim::symbol("x.0"), x, w, h0, y);
    ValueId only = last.sum(y[0]);
    ValueId dx = last.gradients(only, {x})[0];
    last.out({only, dx});
    std::mt19937 rng(3);
    Types types{floats({4, 3}), floats({3}), floats({3})};
    std::vector<Bytes> in;
    for (auto& type : types) in.push_back(bytes_of(some_floats(type, rng)));
    CHECK(floats_of(run(last, types, in)[1]).size() == 12);
  }
}

TEST_CASE("expand_gradients: a scan of no steps passes its carry's gradient through") {
  Trace t;
  ValueId x, w, h0;
  std::vector<ValueId> y;
  recurrent(t, false, Dim::symbol("x.0"), x, w, h0, y);
  ValueId loss = t.sum(t.b.mul(y[0], y[0]));
  t.out(t.gradients(loss, {h0, w, x}));
  std::vector<Bytes> r = run(t, {floats({0, 3}), floats({3}), floats({3})}, {{}, bytes_of({1, 1, 1}), bytes_of({1, 2, 3})});
  CHECK(floats_of(r[0]) == std::vector<float>{2, 4, 6});
  CHECK(floats_of(r[1]) == std::vector<float>{0, 0, 0});
  CHECK(r[2].empty());
}

TEST_CASE("expand_gradients: the second derivative through a scan") {
  Trace t;
  ValueId x, w, h0;
  std::vector<ValueId> y;
  recurrent(t, false, 4, x, w, h0, y);
  ValueId inner = t.b.add(t.sum(t.b.mul(y[0], y[0])), t.sum(y[2]));
  ValueId g = t.gradients(inner, {w})[0];
  ValueId loss = t.sum(t.b.mul(g, g));
  std::vector<ValueId> gg = t.gradients(loss, {x, w, h0});
  t.out({loss});
  t.out(gg);
  check_gradients(t, {floats({4, 3}), floats({3}), floats({3})}, 11, 4e-2);
}

TEST_CASE("expand_gradients: a gradient inside of a scan's body, and a scan in a scan") {
  Trace t;  // gradient descent on sum((h - a)^2), three steps, differentiated by h0 and a
  ValueId h0 = t.input("h0", floats({2})), a = t.input("a", floats({2}));
  Trace inner(t, "add_up");
  {
    ValueId s = inner.input("s", floats({2})), c = inner.input("c", floats({2}));
    inner.input("step", {DType::int32, {}});
    inner.out({inner.b.add(s, inner.b.mul(c, c))});
  }
  Trace body(t, "descend");
  ValueId h = body.input("h", floats({2})), target = body.input("a", floats({2}));
  body.input("step", {DType::int32, {}});
  ValueId d = body.b.sub(h, target);
  ValueId summed = body.b.emit("scan", {body.b.full({2}, 0), d},
                               {{"body", {std::string("add_up")}}, {"carries", {int64_t(1)}}, {"length", {int64_t(2)}}});
  ValueId g = body.gradients(body.sum(summed), {h})[0];
  body.out({body.b.sub(h, body.b.mul(g, body.b.scalar(0.1)))});
  ValueId end =
      t.b.emit("scan", {h0, a}, {{"body", {std::string("descend")}}, {"carries", {int64_t(1)}}, {"length", {int64_t(3)}}});
  ValueId loss = t.sum(t.b.mul(end, end));
  std::vector<ValueId> grads = t.gradients(loss, {h0, a});
  t.out({loss});
  t.out(grads);
  check_gradients(t, {floats({2}), floats({2})}, 5);
}

// ---------------------------------------------------------------- dead code, common subexpressions, folding

TEST_CASE("eliminate_dead_code keeps what stores, guard and outputs need; scans lose what nobody stacks for") {
  Trace t;
  ValueId x, w, h0;
  std::vector<ValueId> y;
  recurrent(t, false, 4, x, w, h0, y);
  t.b.emit("exp", {x});
  t.out({y[0]});
  Module m = compiled(t, {floats({4, 3}), floats({3}), floats({3})});
  CHECK(m.functions.size() == 2);
  CHECK(m.functions[0].nodes.size() == 2);  // scalar and scan
  CHECK(m.functions[0].nodes.back().outputs.size() == 2);
  for (const Node& n : m.functions[1].nodes) CHECK(n.op->name != "exp");
}

TEST_CASE("eliminate_common_subexpressions merges equal nodes but no random ones") {
  Trace t;
  ValueId x = t.input("x", floats({4}));
  ValueId state = t.input("state", {DType::int64, {2}});
  auto draw = [&] { return t.b.emit("random_uniform", {state}, {{"shape", list({4})}, {"stream", {int64_t(0)}}}); };
  t.b.paths = {"one"};
  ValueId a = t.b.emit("exp", {x});
  t.b.paths = {"two"};
  ValueId b = t.b.emit("exp", {x});
  t.b.paths = {};
  ValueId first = draw(), second = draw();
  t.out({t.b.add(a, b), t.b.add(first, second)});
  CHECK(text(compiled(t, {floats({4}), {DType::int64, {2}}})) == R"(main(%0 x: float32(4,), %1 state: int64(2,)) {
  %2 = exp(%0) : float32(4,)  # one, two
  %3 = random_uniform(%1) {shape: [4], stream: 0} : float32(4,)
  %4 = random_uniform(%1) {shape: [4], stream: 0} : float32(4,)
  %5 = add(%2, %2) : float32(4,)
  %6 = add(%3, %4) : float32(4,)
  return %5, %6
}
)");
}

TEST_CASE("fold_layout: what moves nothing goes, chains merge, constants are made where they are used") {
  Trace t;
  ValueId x = t.input("x", floats({2, 3}));
  ValueId a = t.b.transpose(t.b.transpose(x, {1, 0}), {1, 0});
  ValueId b = t.b.emit("reshape", {t.b.emit("reshape", {a}, {{"shape", list({6})}})}, {{"shape", list({3, 2})}});
  ValueId c = t.b.emit("slice", {b}, {{"begin", list({0, 0})}, {"size", list({3, 2})}, {"stride", list({1, 1})}});
  ValueId one = t.b.broadcast_to(t.b.cast(t.b.scalar(1, DType::int32), DType::float32), {3, 2});
  ValueId d = t.b.mul(c, one);
  ValueId e = t.b.add(d, t.b.broadcast_to(t.b.scalar(2.5), {3, 2}));
  ValueId same = t.b.emit("reshape", {t.b.emit("reshape", {x}, {{"shape", list({6})}})}, {{"shape", list({2, 3})}});
  t.out({e, t.b.emit("stop_gradient", {same})});
  CHECK(text(compiled(t, {floats({2, 3})})) == R"(main(%0 x: float32(2, 3)) {
  %1 = reshape(%0) {shape: [3, 2]} : float32(3, 2)
  %2 = full {dtype: "float32", shape: [], value: 2.5} : float32()
  %3 = add(%1, %2) : float32(3, 2)
  return %3, %0
}
)");
}

TEST_CASE("fold_layout: a slice of a broadcast is the broadcast of a slice") {
  Trace t;
  ValueId x = t.input("x", floats({1, 8})), z = t.input("z", floats({5, 3}));
  ValueId y = t.b.broadcast_to(x, {5, 8});
  ValueId part = t.b.emit("slice", {y}, {{"begin", list({0, 2})}, {"size", list({5, 3})}, {"stride", list({1, 2})}});
  t.out({t.b.mul(part, z)});
  CHECK(text(compiled(t, {floats({1, 8}), floats({5, 3})})) == R"(main(%0 x: float32(1, 8), %1 z: float32(5, 3)) {
  %2 = slice(%0) {begin: [0, 2], size: [1, 3], stride: [1, 2]} : float32(1, 3)
  %3 = multiply(%2, %1) : float32(5, 3)
  return %3
}
)");
}

TEST_CASE("fold_layout leaves a sum with zero alone: -0 + 0 is +0") {
  Trace t;
  ValueId x = t.input("x", floats({2}));
  t.out({t.b.add(x, t.b.full({2}, 0))});
  CHECK(!std::signbit(floats_of(run(t, {floats({2})}, {bytes_of({-0.0f, 1})})[0])[0]));
}

// ---------------------------------------------------------------- random graphs

/// A random chain of ops that are smooth on (-1, 1)-like values; ends in a scalar loss and its gradients.
void random_trace(Trace& t, std::mt19937& rng, bool gradients) {
  auto upto = [&](int n) { return int(rng() % unsigned(n)); };
  const Dims shapes[] = {{}, {3}, {2, 3}, {1, 3}, {4, 2, 3}, {2, 1}};
  std::vector<ValueId> pool, inputs;
  for (int i = 0, n = 1 + upto(3); i < n; i++) {
    inputs.push_back(t.input(("x" + std::to_string(i)).c_str(), floats(shapes[size_t(upto(6))])));
    pool.push_back(inputs.back());
  }
  auto any = [&] { return pool[size_t(upto(int(pool.size())))]; };
  for (int i = 0, n = 4 + upto(16); i < n; i++) {
    ValueId x = upto(3) ? pool.back() : any();
    const Dims s = t.b.type(x).shape;
    int64_t rank = int64_t(s.size());
    AttrList all_zero(size_t(rank), AttrValue{int64_t(0)}), all_one(size_t(rank), AttrValue{int64_t(1)}), sizes, ahead;
    for (const Dim& d : s) sizes.push_back({d.value()});
    ValueId y = no_value;
    switch (upto(14)) {
      case 0: y = t.b.emit("tanh", {x}); break;
      case 1: y = t.b.emit("sigmoid", {x}); break;
      case 2: y = t.b.emit("sin", {x}); break;
      case 3:
      case 4:
      case 5: {
        ValueId z = any();
        try {
          y = t.b.emit("tanh", {upto(2) ? t.b.mul(x, z) : t.b.add(x, z)});
        } catch (const Error&) {
          continue;  // shapes that do not broadcast
        }
        break;
      }
      case 6: y = t.b.mul(x, t.b.scalar(upto(2) ? 1 : 0.5)); break;
      case 7: {
        AttrList perm;
        for (int64_t k = rank; k-- > 0;) perm.push_back({k});
        y = t.b.emit("transpose", {x}, {{"perm", {perm}}});
        break;
      }
      case 8: y = t.b.emit("reshape", {x}, {{"shape", list({upto(2) ? product(s) : Dim(-1)})}}); break;
      case 9: {
        if (rank > 3) continue;
        Dims to = s;
        to.insert(to.begin(), 2);
        y = t.b.broadcast_to(x, to);
        break;
      }
      case 10: {
        if (!rank) continue;
        y = t.b.emit("tanh", {t.b.sum(x, {upto(int(rank))}, upto(2))});
        break;
      }
      case 11: {
        if (!rank) continue;
        all_zero[0] = {int64_t(upto(2))};
        y = t.b.emit("pad", {x},
                     {{"low", {all_zero}},
                      {"high", {all_one}},
                      {"interior", {AttrList(size_t(rank), AttrValue{int64_t(0)})}},
                      {"value", {0.0}}});
        break;
      }
      case 12: {
        if (!rank) continue;
        y = t.b.emit("concat", {x, x}, {{"axis", {int64_t(upto(int(rank)))}}});
        break;
      }
      default: {
        if (!rank || s[0].value() < 2) continue;
        ahead = all_zero;
        ahead[0] = {int64_t(upto(2))};
        sizes[0] = {s[0].value() - std::get<int64_t>(ahead[0].v)};
        y = t.b.emit("slice", {x}, {{"begin", {ahead}}, {"size", {sizes}}, {"stride", {all_one}}});
      }
    }
    if (t.b.type(y).elements() > 400) continue;
    pool.push_back(y);
  }
  ValueId x = pool.back();
  ValueId loss = t.b.div(t.sum(t.b.mul(x, x)), t.b.scalar(double(t.b.type(x).elements())));
  t.out({loss});
  if (gradients)
    t.out(t.gradients(loss, inputs));
  else
    t.out({any(), any()});
}

TEST_CASE("random graphs: every pass keeps the invariants, and the bits") {
  for (unsigned seed = 0; seed < 300; seed++) {
    CAPTURE(seed);
    std::mt19937 rng(seed);
    Trace t;
    random_trace(t, rng, seed % 2 == 0);
    Types types;
    std::vector<Bytes> in;
    for (const Input& i : t.f.inputs) {
      types.push_back(t.f.types[size_t(i.value)]);
      in.push_back(bytes_of(some_floats(types.back(), rng)));
    }
    Module bare = specialise(t.m, "main", types);
    expand_gradients(bare);
    std::vector<Bytes> expected = evaluate(bare, bare.functions.front(), in);
    Module done = compile(t.m, "main", types, plain());
    CHECK(evaluate(done, done.functions.front(), in) == expected);
    CompileOptions all;
    all.verify = true;
    CHECK_NOTHROW(compile(t.m, "main", types, all));
    CHECK(run(t, types, in) == expected);  // fused, planned, in place
    if (seed % 10 == 0) check_gradients(t, types, seed);
  }
}

TEST_CASE("compile is fast") {
  Trace t;
  ValueId x = t.input("x", floats({8, 16}));
  std::vector<ValueId> weights;
  ValueId y = x;
  for (int i = 0; i < 125; i++) {
    ValueId w = t.input("w", floats({16, 16})), b = t.input("b", floats({16}));
    weights.insert(weights.end(), {w, b});
    y = t.b.emit("tanh", {t.b.add(t.b.emit("matmul", {y, w}), t.b.mul(b, b))});
  }
  t.out(t.gradients(t.sum(y), weights));
  Types types;
  for (const Input& i : t.f.inputs) types.push_back(t.f.types[size_t(i.value)]);
  auto timed = [](const Module& m, const Types& inputs, int repeat) {
    double best = 1e9;
    for (int i = 0; i < repeat; i++) {
      auto start = std::chrono::steady_clock::now();
      compile(m, "main", inputs);
      best = std::min(best, std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
    }
    return best;
  };
  double large = timed(t.m, types, 5);
  Trace one;
  one.out({one.b.emit("exp", {one.input("x", floats({3}))})});
  double small = timed(one.m, {floats({3})}, 20);
  MESSAGE("500 nodes forward: ", large, " us; one node: ", small, " us");
  CHECK(large < 2e6);  // loose: sanitizers and busy machines
  CHECK(small < 2e4);
}

}  // namespace
}  // namespace dagrt
