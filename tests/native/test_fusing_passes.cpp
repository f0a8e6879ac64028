// The passes that fuse: golden texts.
#include <doctest/doctest.h>

#include <functional>

#include "ir/text.h"
#include "ir/verify.h"
#include "passes/passes.h"
#include "passes/pipeline.h"
#include "trace.h"

namespace dagrt {
namespace {

using testing::floats;
using testing::list;
using testing::Trace;

/// The specialised module after one pass, cleared of dead code.
std::string after(const Trace& t, const Types& inputs, void (*pass)(Module&)) {
  CompileOptions plain;
  plain.fuse = plain.algorithms = false;
  Module m = compile(t.m, "main", inputs, plain);
  pass(m);
  verify(m, true);
  eliminate_dead_code(m);
  renumber(m);
  verify(m, true);
  return text(m);
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

AttrMap adam() { return {{"beta_1", {0.9}}, {"beta_2", {0.999}}, {"epsilon", {1e-7}}, {"weight_decay", {0.0}}}; }

TEST_CASE("join_updates: one node for what is stored alike, and for nothing else") {
  Trace t;
  ValueId lr = t.input("lr", floats({})), other = t.input("other", floats({})), step = t.input("step", {DType::int32, {}});
  ValueId when = t.input("when", {DType::bool_, {}});
  auto update = [&](const char* name, int64_t n, ValueId rate, ValueId condition, bool used) {
    ValueId g = t.input("g", floats({n}));
    std::vector<ValueId> in;
    std::vector<int64_t> variables;
    for (const char* part : {"", "_m", "_v"}) {
      variables.push_back(t.variable((std::string(name) + part).c_str(), floats({n})));
      in.push_back(t.read(variables.back()));
    }
    in.insert(in.end(), {g, rate, step});
    std::vector<ValueId> y = t.b.emit_all("adam_update", in, adam());
    for (size_t i = 0; i < 3; i++) t.f.stores.push_back({int32_t(variables[i]), y[i], condition});
    if (used) t.out({y[0]});
  };
  update("a", 3, lr, no_value, false);
  update("b", 5, lr, no_value, false);
  update("rate", 2, other, no_value, false);
  update("when", 2, lr, when, false);
  update("used", 2, lr, no_value, true);
  update("c", 7, lr, no_value, false);
  std::string s = after(t,
                        {floats({}),
                         floats({}),
                         {DType::int32, {}},
                         {DType::bool_, {}},
                         floats({3}),
                         floats({5}),
                         floats({2}),
                         floats({2}),
                         floats({2}),
                         floats({7})},
                        join_updates);
  auto count = [&](const std::string& part) {
    size_t n = 0;
    for (size_t at = s.find(part); at != std::string::npos; at = s.find(part, at + 1)) n++;
    return n;
  };
  CHECK_MESSAGE(count("adam_update(") == 3, s);
  CHECK(contains(s, "= adam_update_all(%0, %2, %10, %11, %12, %4, %13, %14, %15, %5, %34, %35, %36, %9) {"));
}

TEST_CASE("add_in_scatter: the later of two, chains, and whatever else is added; not what is read elsewhere or broadcast") {
  const TensorType ids{DType::int32, {4}};
  auto build = [&](const std::function<void(Trace&, ValueId, ValueId, ValueId)>& rest) {
    Trace t;
    ValueId i = t.input("i", ids), u = t.input("u", floats({4, 3})), x = t.input("x", floats({9, 3}));
    rest(t, i, u, x);
    return after(t, {ids, floats({4, 3}), floats({9, 3})}, add_in_scatter);
  };
  auto scatter = [](Trace& t, ValueId i, ValueId u) {
    return t.b.emit("scatter_add", {i, u}, {{"axis", {int64_t(0)}}, {"size", {int64_t(9)}}});
  };
  std::string s = build([&](Trace& t, ValueId i, ValueId u, ValueId) {
    ValueId a = scatter(t, i, u), b = scatter(t, i, t.b.emit("tanh", {u})), c = scatter(t, i, t.b.emit("exp", {u}));
    t.out({t.b.add(t.b.add(b, a), c)});
  });
  CHECK_MESSAGE((contains(s, "%3 = scatter_add(%0, %1)") && contains(s, "%6 = scatter_add_into(%0, %4, %3) {axis: 0, size: 9}") &&
                 contains(s, "%7 = scatter_add_into(%0, %5, %6)")),
                s);
  s = build([&](Trace& t, ValueId i, ValueId u, ValueId x) { t.out({t.b.add(x, scatter(t, i, u))}); });
  CHECK_MESSAGE(contains(s, "%3 = scatter_add_into(%0, %1, %2)"), s);
  s = build([&](Trace& t, ValueId i, ValueId u, ValueId x) {
    ValueId a = scatter(t, i, u), b = scatter(t, i, t.b.emit("tanh", {u}));
    t.out({t.b.add(x, a), a, t.b.add(b, b), t.b.add(t.sum(u), scatter(t, i, t.b.emit("exp", {u})))});
  });
  CHECK_MESSAGE((!contains(s, "scatter_add_into") && contains(s, "scatter_add(")), s);
}

TEST_CASE("simplify_row_sums: a pooling sends on what it has") {
  Trace t;
  ValueId g = t.input("g", floats({1, 2, 2, 3})), taken = t.input("t", {DType::int32, {1, 2, 2, 3}});
  ValueId dx = t.b.emit(
      "max_pool2d_grad", {g, taken},
      {{"pool", list({2, 2})}, {"strides", list({2, 2})}, {"padding", {std::string("valid")}}, {"input_size", list({4, 4})}});
  t.out({t.b.sum(dx, {0, 1, 2}), t.b.sum(dx, {1, 2})});
  std::string s = after(t, {floats({1, 2, 2, 3}), {DType::int32, {1, 2, 2, 3}}}, simplify_row_sums);
  CHECK_MESSAGE((contains(s, "%3 = reduce_sum(%0) {axes: [0, 1, 2]") && contains(s, "= reduce_sum(%2) {axes: [1, 2]")), s);
}

TEST_CASE("simplify_row_sums: only the sum over all rows of batch_norm_grad's dx") {
  Trace t;
  ValueId x = t.input("x", floats({2, 4, 3})), dy = t.input("dy", floats({2, 4, 3}));
  ValueId mean = t.input("mean", floats({3})), rstd = t.input("rstd", floats({3}));
  std::vector<ValueId> g = t.b.emit_all("batch_norm_grad", {x, no_value, mean, rstd, dy});
  t.out({t.b.sum(g[0], {0, 1}), t.b.sum(g[0], {0}), t.b.sum(dy, {0, 1}), g[0]});
  CHECK(after(t, {floats({2, 4, 3}), floats({2, 4, 3}), floats({3}), floats({3})}, simplify_row_sums) ==
        R"(main(%0 x: float32(2, 4, 3), %1 dy: float32(2, 4, 3), %2 mean: float32(3,), %3 rstd: float32(3,)) {
  %4, %5, %6 = batch_norm_grad(%0, _, %2, %3, %1) : float32(2, 4, 3), float32(3,), float32(3,)
  %7 = full {dtype: "float32", shape: [3], value: 0} : float32(3,)
  %8 = reduce_sum(%4) {axes: [0], keepdims: false} : float32(4, 3)
  %9 = reduce_sum(%1) {axes: [0, 1], keepdims: false} : float32(3,)
  return %7, %8, %9, %4
}
)");
}

TEST_CASE("fuse_pooling: into the convolution before it, unless padded, or the larger image or the places are wanted") {
  Trace t;
  auto pool = [&](ValueId y, int64_t window, const char* padding = "valid", int64_t left = 0) {
    return t.b.emit_all("max_pool2d", {y},
                        {{"pool", list({window, window})},
                         {"strides", list({window, window})},
                         {"padding", {std::string(padding)}},
                         {"pads", list({0, 0, left, 0})}});
  };
  ValueId x = t.input("x", floats({1, 27, 30, 32})), bias = t.read(t.variable("b", floats({32})));
  auto layer = [&] {
    ValueId w = t.read(t.variable("w", floats({3, 3, 32, 32})));
    ValueId y = t.b.emit("conv2d", {x, w}, {{"strides", list({1, 1})}, {"padding", {std::string("same")}}});
    return t.b.emit("relu", {t.b.add(y, bias)});
  };
  ValueId fused = pool(layer(), 2)[0], kept = t.b.emit("relu", {t.b.emit("tanh", {layer()})});
  t.out({fused, pool(layer(), 3)[0], pool(layer(), 2, "same")[0], kept, pool(kept, 2)[0], pool(layer(), 2)[1],
         pool(layer(), 2, "explicit", 1)[0]});
  CompileOptions o;
  o.verify = true;
  std::string s = text(compile(t.m, "main", {floats({1, 27, 30, 32})}, o));
  auto count = [&](const std::string& part) {
    size_t n = 0;
    for (size_t at = s.find(part); at != std::string::npos; at = s.find(part, at + 1)) n++;
    return n;
  };
  CHECK_MESSAGE(count(", pool: [2, 2], tile: 2, ") == 1, s);
  CHECK_MESSAGE(count("= max_pool2d(") == 5, s);
  CHECK_MESSAGE(contains(s, ": float32(1, 13, 15, 32)"), s);
}

/// Layers with y = f(x) behind the first of them, and the gradients of their weights.
Trace between_layers(ValueId (*f)(Builder&, ValueId)) {
  Trace t;
  ValueId a = t.input("a", floats({8, 8})), w = t.input("w", floats({8, 8})), u = t.input("u", floats({8, 8})),
          v = t.input("v", floats({8, 8}));
  ValueId z = t.b.emit("matmul", {f(t.b, t.b.emit("matmul", {a, w})), u});
  z = t.b.emit("matmul", {z, v});
  t.out(t.gradients(t.sum(t.b.mul(z, z)), {w, u, v}));
  return t;
}

TEST_CASE("recompute_pointwise: backward makes again what it needs of x, apart for those that fuse; a relu stays as it is") {
  const Types inputs(4, floats({8, 8}));
  Trace silu = between_layers([](Builder& b, ValueId x) { return b.mul(x, b.emit("sigmoid", {x})); });
  CHECK(after(silu, inputs, recompute_pointwise) ==
        R"(main(%0 a: float32(8, 8), %1 w: float32(8, 8), %2 u: float32(8, 8), %3 v: float32(8, 8)) {
  %4 = matmul(%0, %1) {transpose_a: false, transpose_b: false} : float32(8, 8)
  %5 = sigmoid(%4) : float32(8, 8)
  %6 = multiply(%4, %5) : float32(8, 8)
  %7 = matmul(%6, %2) {transpose_a: false, transpose_b: false} : float32(8, 8)
  %8 = matmul(%7, %3) {transpose_a: false, transpose_b: false} : float32(8, 8)
  %9 = full {dtype: "float32", shape: [], value: 1} : float32()
  %10 = add(%8, %8) : float32(8, 8)
  %11 = matmul(%10, %3) {transpose_a: false, transpose_b: true} : float32(8, 8)
  %12 = matmul(%7, %10) {transpose_a: true, transpose_b: false} : float32(8, 8)
  %13 = matmul(%11, %2) {transpose_a: false, transpose_b: true} : float32(8, 8)
  %14 = sigmoid(%4) : float32(8, 8)
  %15 = multiply(%4, %14) : float32(8, 8)
  %16 = matmul(%15, %11) {transpose_a: true, transpose_b: false} : float32(8, 8)
  %17 = sigmoid(%4) : float32(8, 8)
  %18 = multiply(%13, %17) : float32(8, 8)
  %19 = multiply(%13, %4) : float32(8, 8)
  %20 = subtract(%9, %17) : float32(8, 8)
  %21 = multiply(%17, %20) : float32(8, 8)
  %22 = multiply(%19, %21) : float32(8, 8)
  %23 = add(%18, %22) : float32(8, 8)
  %24 = matmul(%0, %23) {transpose_a: true, transpose_b: false} : float32(8, 8)
  return %24, %16, %12
}
)");
  Trace relu = between_layers([](Builder& b, ValueId x) { return b.emit("relu", {x}); });
  CHECK(after(relu, inputs, recompute_pointwise) == after(relu, inputs, [](Module&) {}));
}

TEST_CASE("mask_before_pooling: the mask of a relu goes to the pooling's smaller side; another value's does not") {
  Trace t;
  ValueId x = t.input("x", floats({1, 4, 4, 2})), g = t.input("g", floats({1, 2, 2, 2})), zero = t.b.scalar(0);
  AttrMap window = {{"pool", list({2, 2})}, {"strides", list({2, 2})}, {"padding", {std::string("valid")}}};
  AttrMap back = window;
  back["input_size"] = list({4, 4});
  ValueId y = t.b.emit("relu", {x});
  std::vector<ValueId> p = t.b.emit_all("max_pool2d", {y}, window);
  ValueId dx = t.b.emit("max_pool2d_grad", {g, p[1]}, back), dz = t.b.emit("max_pool2d_grad", {p[0], p[1]}, back);
  t.out({t.b.select(t.b.emit("greater", {y, zero}), dx, zero), t.b.select(t.b.emit("greater", {x, zero}), dz, zero)});
  CHECK(after(t, {floats({1, 4, 4, 2}), floats({1, 2, 2, 2})}, mask_before_pooling) ==
        R"(main(%0 x: float32(1, 4, 4, 2), %1 g: float32(1, 2, 2, 2)) {
  %2 = full {dtype: "float32", shape: [], value: 0} : float32()
  %3 = relu(%0) : float32(1, 4, 4, 2)
  %4, %5 = max_pool2d(%3) {padding: "valid", pads: [0, 0, 0, 0], pool: [2, 2], strides: [2, 2]} : float32(1, 2, 2, 2), int32(1, 2, 2, 2)
  %6 = max_pool2d_grad(%4, %5) {input_size: [4, 4], padding: "valid", pads: [0, 0, 0, 0], pool: [2, 2], strides: [2, 2]} : float32(1, 4, 4, 2)
  %7 = greater(%4, %2) : bool(1, 2, 2, 2)
  %8 = select(%7, %1, %2) : float32(1, 2, 2, 2)
  %9 = max_pool2d_grad(%8, %5) {input_size: [4, 4], padding: "valid", pads: [0, 0, 0, 0], pool: [2, 2], strides: [2, 2]} : float32(1, 4, 4, 2)
  %10 = greater(%0, %2) : bool(1, 4, 4, 2)
  %11 = select(%10, %6, %2) : float32(1, 4, 4, 2)
  return %9, %11
}
)");
}

TEST_CASE("mask_before_slicing: parts that are all masked are masked as one; where one is not, all stay") {
  for (bool all : {true, false}) {
    Trace t;
    ValueId x = t.input("x", floats({2, 3})), z = t.input("z", floats({2, 5})), g = t.input("g", floats({2, 8}));
    ValueId a = t.b.emit("relu", {x}), b = t.b.emit("relu", {z});
    ValueId y = t.b.emit("concat", {a, b}, {{"axis", {int64_t(-1)}}});
    auto part = [&](int64_t from, int64_t columns) {
      return t.b.emit("slice", {g}, {{"begin", list({0, from})}, {"size", list({2, columns})}, {"stride", list({1, 1})}});
    };
    auto mask = [&](ValueId of, ValueId v) { return t.b.select(t.b.emit("greater", {of, t.b.scalar(0)}), v, t.b.scalar(0)); };
    ValueId da = mask(a, part(0, 3)), db = part(3, 5);
    t.out({y, da, all ? mask(b, db) : db});
    std::string s = after(t, {floats({2, 3}), floats({2, 5}), floats({2, 8})}, mask_before_slicing);
    if (all)
      CHECK(s == R"(main(%0 x: float32(2, 3), %1 z: float32(2, 5), %2 g: float32(2, 8)) {
  %3 = relu(%0) : float32(2, 3)
  %4 = relu(%1) : float32(2, 5)
  %5 = concat(%3, %4) {axis: -1} : float32(2, 8)
  %6 = full {dtype: "float32", shape: [], value: 0} : float32()
  %7 = greater(%5, %6) : bool(2, 8)
  %8 = full {dtype: "float32", shape: [], value: 0} : float32()
  %9 = select(%7, %2, %8) : float32(2, 8)
  %10 = slice(%9) {begin: [0, 0], size: [2, 3], stride: [1, 1]} : float32(2, 3)
  %11 = slice(%9) {begin: [0, 3], size: [2, 5], stride: [1, 1]} : float32(2, 5)
  return %5, %10, %11
}
)");
    else
      CHECK(contains(s, "greater(%3,"));
  }
}

TEST_CASE("fold_batch_norm: factors of variables alone go into weights and a bias; a bias alone stays") {
  Trace t;
  ValueId x = t.input("x", floats({1, 4, 4, 2}));
  auto read = [&](const char* name, Dims shape) { return t.read(t.variable(name, floats(std::move(shape)))); };
  ValueId w = read("w", {1, 1, 2, 3}), b = read("b", {3}), spread = read("spread", {3}), shift = read("shift", {3});
  ValueId y = t.b.add(t.b.emit("conv2d", {x, w}, {{"padding", {std::string("same")}}, {"strides", list({1, 1})}}), b);
  y = t.b.mul(y, t.b.reshape(spread, {1, 1, 1, 3}));
  y = t.b.emit("relu", {t.b.add(y, t.b.reshape(shift, {1, 1, 1, 3}))});
  ValueId u = read("u", {5, 3}), z = t.b.emit("matmul", {y, u}, {{"transpose_b", {true}}});
  z = t.b.div(t.b.sub(t.b.scalar(1), z), t.b.scalar(4));
  t.out({z, t.b.add(t.b.emit("matmul", {y, read("plain", {3, 2})}), read("bias", {2}))});
  CHECK(after(t, {floats({1, 4, 4, 2})}, fold_batch_norm) == R"(main(%0 x: float32(1, 4, 4, 2)) {
  %1 = read {variable: "w"} : float32(1, 1, 2, 3)
  %2 = read {variable: "b"} : float32(3,)
  %3 = read {variable: "spread"} : float32(3,)
  %4 = read {variable: "shift"} : float32(3,)
  %5 = reshape(%3) {shape: [1, 1, 1, 3]} : float32(1, 1, 1, 3)
  %6 = reshape(%4) {shape: [1, 1, 1, 3]} : float32(1, 1, 1, 3)
  %7 = reshape(%5) {shape: [3]} : float32(3,)
  %8 = multiply(%2, %7) : float32(3,)
  %9 = reshape(%6) {shape: [3]} : float32(3,)
  %10 = add(%8, %9) : float32(3,)
  %11 = reshape(%7) {shape: [1, 1, 1, 3]} : float32(1, 1, 1, 3)
  %12 = multiply(%1, %11) : float32(1, 1, 2, 3)
  %13 = conv2d(%0, %12) {dilations: [1, 1], groups: 1, padding: "same", pads: [0, 0, 0, 0], strides: [1, 1]} : float32(1, 4, 4, 3)
  %14 = add(%13, %10) : float32(1, 4, 4, 3)
  %15 = relu(%14) : float32(1, 4, 4, 3)
  %16 = read {variable: "u"} : float32(5, 3)
  %17 = full {dtype: "float32", shape: [], value: 4} : float32()
  %18 = full {dtype: "float32", shape: [], value: 1} : float32()
  %19 = full {dtype: "float32", shape: [], value: -1} : float32()
  %20 = divide(%19, %17) : float32()
  %21 = divide(%18, %17) : float32()
  %22 = multiply(%16, %20) : float32(5, 3)
  %23 = matmul(%15, %22) {transpose_a: false, transpose_b: true} : float32(1, 4, 4, 5)
  %24 = add(%23, %21) : float32(1, 4, 4, 5)
  %25 = read {variable: "bias"} : float32(2,)
  %26 = read {variable: "plain"} : float32(3, 2)
  %27 = matmul(%15, %26) {transpose_a: false, transpose_b: false} : float32(1, 4, 4, 2)
  %28 = add(%27, %25) : float32(1, 4, 4, 2)
  return %24, %28
}
)");
}

TEST_CASE("fold_batch_norm leaves alone what a run writes or an input leads to") {
  Trace t;
  ValueId x = t.input("x", floats({4, 2})), scale = t.input("s", floats({3}));
  int64_t w = t.variable("w", floats({2, 3})), a = t.variable("a", floats({3})), b = t.variable("b", floats({3}));
  ValueId fixed = t.read(w), written = t.read(a);
  t.f.stores.push_back({int32_t(a), t.b.add(written, t.b.scalar(1)), no_value});
  auto product = [&](double k) { return t.b.emit("matmul", {t.b.mul(x, t.b.scalar(k)), fixed}); };
  ValueId used = product(2);
  t.out({t.b.mul(product(3), scale), t.b.mul(product(4), written), t.b.mul(used, t.read(b)), used});
  const Types types = {floats({4, 2}), floats({3})};
  CHECK(after(t, types, fold_batch_norm) == after(t, types, [](Module&) {}));
}

TEST_CASE("fuse_epilogues: bias and activation behind a product; what is needed elsewhere ends the chain") {
  Trace t;
  ValueId x = t.input("x", floats({5, 4})), w = t.input("w", floats({4, 3})), b = t.input("b", floats({3}));
  ValueId late =
      t.b.emit("negative", {t.b.emit("matmul", {x, t.input("u", floats({4, 3}))})});  // a product alone, an operand of the next
  t.b.paths = {"dense"};
  ValueId y = t.b.emit("relu", {t.b.add(t.b.emit("matmul", {x, w}), b)});
  ValueId z = t.b.mul(t.b.emit("tanh", {y}), y);
  t.out({t.b.mul(t.b.add(z, late), t.b.scalar(2)), t.sum(y)});
  CHECK(after(t, {floats({5, 4}), floats({4, 3}), floats({3}), floats({4, 3})}, fuse_epilogues) ==
        R"(main(%0 x: float32(5, 4), %1 w: float32(4, 3), %2 b: float32(3,), %3 u: float32(4, 3)) {
  %4 = matmul(%0, %1, %2) {epilogue: ["add 0 1", "relu 2"], epilogue_constants: [], transpose_a: false, transpose_b: false} : float32(5, 3)  # dense
  %5 = matmul(%0, %3, %4) {epilogue: ["negative 0", "tanh 1", "multiply 3 1", "add 4 2", "multiply 5 c0"], epilogue_constants: [2], transpose_a: false, transpose_b: false} : float32(5, 3)  # dense
  %6 = reduce_sum(%4) {axes: [0, 1], keepdims: false} : float32()  # dense
  return %5, %6
}
)");
}

TEST_CASE("fuse_epilogues: masks, residual sums, and a normalisation's activation") {
  Trace t;
  ValueId x = t.input("x", floats({1, 4, 4, 2})), w = t.input("w", floats({1, 1, 2, 2})), y = t.input("y", floats({1, 4, 4, 2}));
  AttrMap window = {{"strides", list({1, 1})}, {"padding", {std::string("same")}}};
  AttrMap back = window;
  back["input_size"] = list({4, 4});
  ValueId first = t.b.emit("conv2d_input_grad", {x, w}, back), second = t.b.emit("conv2d_input_grad", {y, w}, back);
  ValueId zero = t.b.scalar(0);
  ValueId masked = t.b.select(t.b.emit("greater", {y, zero}), t.b.add(first, second), zero);
  std::vector<ValueId> norm = t.b.emit_all("batch_norm", {masked}, {{"epsilon", {0.5}}});
  t.out({t.b.emit("relu", {t.b.add(norm[0], x)}), norm[1]});
  CHECK(after(t, {floats({1, 4, 4, 2}), floats({1, 1, 2, 2}), floats({1, 4, 4, 2})}, fuse_epilogues) ==
        R"(main(%0 x: float32(1, 4, 4, 2), %1 w: float32(1, 1, 2, 2), %2 y: float32(1, 4, 4, 2)) {
  %3 = conv2d_input_grad(%0, %1) {dilations: [1, 1], groups: 1, input_size: [4, 4], padding: "same", pads: [0, 0, 0, 0], strides: [1, 1]} : float32(1, 4, 4, 2)
  %4 = conv2d_input_grad(%2, %1, %3, %2) {dilations: [1, 1], epilogue: ["add 1 0", "greater 2 c0", "select 4 3 c0"], epilogue_constants: [0], groups: 1, input_size: [4, 4], padding: "same", pads: [0, 0, 0, 0], strides: [1, 1]} : float32(1, 4, 4, 2)
  %5, %6, %7, %8 = batch_norm(%4, _, _, %0) {epilogue: ["add 0 1", "relu 2"], epilogue_constants: [], epsilon: 0.5} : float32(1, 4, 4, 2), float32(2,), float32(2,), float32(2,)
  return %5, %6
}
)");
}

TEST_CASE("fuse_epilogues leaves alone what it cannot take") {
  Trace t;
  ValueId x = t.input("x", floats({5, 4})), w = t.input("w", floats({4, 3})), column = t.input("c", floats({5, 1}));
  ValueId twice = t.b.emit("matmul", {x, w}), broadcast = t.b.emit("matmul", {x, x}, {{"transpose_b", {true}}});
  ValueId out = t.b.emit("matmul", {w, w}, {{"transpose_a", {true}}});
  t.out({t.b.emit("relu", {twice}), t.sum(twice), t.b.add(broadcast, column), out, t.b.neg(out),
         t.b.emit("isnan", {t.b.emit("matmul", {w, w}, {{"transpose_b", {true}}})})});
  CHECK(!contains(after(t, {floats({5, 4}), floats({4, 3}), floats({5, 1})}, fuse_epilogues), "epilogue"));
}

TEST_CASE("multiply_bf16: products of widened bfloat16 read it as it is, and round what a cast alone reads") {
  auto halves = [](Dims shape) { return TensorType{DType::bfloat16, shape}; };
  Trace t;
  ValueId x = t.input("x", halves({4, 2, 16})), w = t.input("w", halves({16, 8})), g = t.input("g", halves({4, 2, 8}));
  ValueId odd = t.input("odd", halves({16, 5}));
  auto wide = [&](ValueId v) { return t.b.cast(v, DType::float32); };
  auto product = [&](ValueId a, ValueId b, bool ta) {
    return t.b.emit("matmul", {a, b}, {{"transpose_a", {ta}}, {"transpose_b", {false}}});
  };
  ValueId y = t.b.cast(product(wide(x), wide(w), false), DType::bfloat16);
  ValueId dw = product(t.b.reshape(wide(x), {8, 16}), t.b.reshape(wide(g), {8, 8}), true);  // as matmul's gradient has it
  ValueId bias = t.input("bias", halves({8}));
  ValueId dense = t.b.cast(product(wide(g), wide(t.input("w2", halves({8, 8}))), false), DType::bfloat16);
  ValueId active = t.b.emit("relu", {t.b.add(dense, bias)});
  t.out({y, dw, t.b.cast(dw, DType::bfloat16), t.b.cast(product(wide(x), wide(odd), false), DType::bfloat16), active, bias});
  CHECK(
      after(t, {halves({4, 2, 16}), halves({16, 8}), halves({4, 2, 8}), halves({16, 5}), halves({8}), halves({8, 8})},
            multiply_bf16) ==
      R"(main(%0 x: bfloat16(4, 2, 16), %1 w: bfloat16(16, 8), %2 g: bfloat16(4, 2, 8), %3 odd: bfloat16(16, 5), %4 bias: bfloat16(8,), %5 w2: bfloat16(8, 8)) {
  %6 = cast(%0) {dtype: "float32"} : float32(4, 2, 16)
  %7 = matmul_bf16(%0, %1) {dtype: "bfloat16", transpose_a: false, transpose_b: false} : bfloat16(4, 2, 8)
  %8 = reshape(%0) {shape: [8, 16]} : bfloat16(8, 16)
  %9 = reshape(%2) {shape: [8, 8]} : bfloat16(8, 8)
  %10 = matmul_bf16(%8, %9) {dtype: "float32", transpose_a: true, transpose_b: false} : float32(16, 8)
  %11 = cast(%4) {dtype: "float32"} : float32(8,)
  %12 = matmul_bf16(%2, %5, %11) {dtype: "bfloat16", epilogue: ["add 0 1", "relu 2"], epilogue_constants: [], transpose_a: false, transpose_b: false} : bfloat16(4, 2, 8)
  %13 = cast(%10) {dtype: "bfloat16"} : bfloat16(16, 8)
  %14 = cast(%3) {dtype: "float32"} : float32(16, 5)
  %15 = matmul(%6, %14) {transpose_a: false, transpose_b: false} : float32(4, 2, 5)
  %16 = cast(%15) {dtype: "bfloat16"} : bfloat16(4, 2, 5)
  return %7, %10, %13, %16, %12, %4
}
)");
}

/// A convolution of few multiplications a byte, twice, on images of 64 x 64 x 16; their sum; and its mean for each image.
Trace& memory_bound(Trace& t, int64_t batch) {
  ValueId x = t.input("x", floats({batch, 64, 64, 16})), w = t.input("w", floats({3, 3, 1, 16}));
  ValueId six = t.b.scalar(6);
  AttrMap window{{"strides", list({1, 1})}, {"padding", {std::string("same")}}, {"groups", {int64_t(16)}}};
  ValueId y = t.b.emit("minimum", {t.b.emit("conv2d", {x, w}, window), six});
  ValueId z = t.b.add(t.b.emit("conv2d", {y, w}, window), x);
  ValueId flat = t.b.reshape(z, {batch, 64 * 64, 16});
  t.out({t.b.emit("matmul", {t.b.sum(flat, {1}), t.input("d", floats({16, 4}))})});
  return t;
}

Types memory_bound_types(int64_t batch) { return {floats({batch, 64, 64, 16}), floats({3, 3, 1, 16}), floats({16, 4})}; }

TEST_CASE("split_batch: layers whose images stay in no cache are a scan over parts of the batch") {
  Trace t;
  CHECK(after(memory_bound(t, 144), memory_bound_types(144), split_batch) ==
        R"(main(%0 x: float32(144, 64, 64, 16), %1 w: float32(3, 3, 1, 16), %2 d: float32(16, 4)) {
  %3 = reshape(%0) {shape: [6, 24, 64, 64, 16]} : float32(6, 24, 64, 64, 16)
  %4 = scan(%3, %1, %2) {body: "batch@1", carries: 0, length: 6, reverse: false, sequences: 1} : float32(6, 24, 4)
  %5 = reshape(%4) {shape: [144, 4]} : float32(144, 4)
  return %5
}

batch@1(%0 part: float32(24, 64, 64, 16), %1 whole: float32(3, 3, 1, 16), %2 whole: float32(16, 4), %3 step: int32()) {
  %4 = full {dtype: "float32", shape: [], value: 6} : float32()
  %5 = conv2d(%0, %1) {dilations: [1, 1], groups: 16, padding: "same", pads: [0, 0, 0, 0], strides: [1, 1]} : float32(24, 64, 64, 16)
  %6 = minimum(%5, %4) : float32(24, 64, 64, 16)
  %7 = conv2d(%6, %1) {dilations: [1, 1], groups: 16, padding: "same", pads: [0, 0, 0, 0], strides: [1, 1]} : float32(24, 64, 64, 16)
  %8 = add(%7, %0) : float32(24, 64, 64, 16)
  %9 = reshape(%8) {shape: [24, 4096, 16]} : float32(24, 4096, 16)
  %10 = reduce_sum(%9) {axes: [1], keepdims: false} : float32(24, 16)
  %11 = matmul(%10, %2) {transpose_a: false, transpose_b: false} : float32(24, 4)
  return %11
}
)");
}

TEST_CASE("split_batch: small layers, whose weights stay in a core's own cache, are a scan whose parts are at work at once") {
  auto perceptron = [](int64_t batch, int64_t features, int64_t units, bool trained = false) {
    Trace t;
    auto weights = [&](Dims shape) { return t.read(t.variable("w", floats(std::move(shape)))); };
    ValueId x = t.input("x", floats({batch, features}));
    for (int64_t n : {units, int64_t(32), int64_t(10)}) {
      ValueId product = t.b.emit("matmul", {x, weights({t.b.type(x).shape[1], n})});
      x = t.b.add(product, weights({n}));
      if (n != 10) x = t.b.emit("relu", {x});
    }
    t.out({t.b.emit("softmax", {x})});
    if (trained) t.f.stores = {{int32_t(t.variable("last", floats({batch, 10}))), x, no_value}};
    return after(t, {floats({batch, features})}, split_batch);
  };
  const std::string small = perceptron(32, 784, 64);
  CHECK(contains(small, "length: 2,"));
  CHECK(small.find("softmax") > small.find("batch@1("));  // the last layer too
  CHECK(contains(perceptron(34, 784, 64), "length: 2,"));
  CHECK_FALSE(contains(perceptron(24, 784, 64), "scan"));        // parts of few rows
  CHECK_FALSE(contains(perceptron(31, 784, 64), "scan"));        // and of unequal ones
  CHECK_FALSE(contains(perceptron(32, 784, 512), "scan"));       // weights of more than the cache
  CHECK_FALSE(contains(perceptron(32, 20, 16), "scan"));         // too little for two threads
  CHECK_FALSE(contains(perceptron(512, 784, 64), "scan"));       // layers that are worth handing out
  CHECK_FALSE(contains(perceptron(32, 784, 64, true), "scan"));  // not a prediction
}

TEST_CASE("split_batch leaves alone what stays in the caches, what multiplies long and what crosses images") {
  auto whole = [](const Trace& t, const Types& types) { return !contains(after(t, types, split_batch), "scan"); };
  Trace few;
  CHECK(whole(memory_bound(few, 64), memory_bound_types(64)));
  Trace prime;  // parts of one image
  CHECK(contains(after(memory_bound(prime, 151), memory_bound_types(151), split_batch), "length: 151"));

  const Types types{floats({144, 64, 64, 16}), floats({5, 5, 16, 16}), floats({144, 64, 64, 16})};
  AttrMap window{{"strides", list({1, 1})}, {"padding", {std::string("same")}}, {"groups", {int64_t(1)}}};
  AttrMap depthwise = window;
  depthwise["groups"] = {int64_t(16)};
  auto graph = [&](Trace& t, const std::function<ValueId(ValueId x, ValueId other)>& make) -> Trace& {
    ValueId x = t.input("x", types[0]);
    t.input("w", types[1]);
    t.out({make(x, t.input("z", types[2]))});
    return t;
  };
  Trace dense;
  CHECK(whole(graph(dense,
                    [&](ValueId x, ValueId) {
                      for (int i = 0; i < 3; i++) x = dense.b.emit("conv2d", {x, 1}, window);
                      return dense.sum(x);
                    }),
              types));
  Trace crossed;  // every image is seen by every image
  CHECK(whole(graph(crossed,
                    [&](ValueId x, ValueId z) {
                      ValueId k = crossed.b.full({3, 3, 1, 16}, 1);
                      for (int i = 0; i < 4; i++) {
                        x = crossed.b.emit("conv2d", {crossed.b.sub(x, crossed.b.sum(z, {0}, true)), k}, depthwise);
                        z = crossed.b.emit("reverse", {x}, {{"axes", list({0})}});
                      }
                      return crossed.sum(z);
                    }),
              types));
}

}  // namespace
}  // namespace dagrt
