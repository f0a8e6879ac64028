// choose_algorithms, space_to_depth and skip_pixels before it: golden texts, what is left alone, and the numbers of all they may choose
// against the direct sums.
#include <doctest/doctest.h>

#include <cmath>

#include "api/dagrt.h"
#include "ir/text.h"
#include "kernels/kernel.h"
#include "passes/pipeline.h"
#include "runtime/program.h"
#include "trace.h"

namespace dagrt {
namespace {

using testing::floats;
using testing::Trace;

AttrMap window(const char* padding, int64_t stride = 1, int64_t groups = 1) {
  AttrValue strides{AttrList{{stride}, {stride}}};
  return {{"strides", strides}, {"padding", {std::string(padding)}}, {"groups", {groups}}};
}
AttrMap with(AttrMap map, const char* name, int64_t a, int64_t b) {
  map[name] = {AttrList{{a}, {b}}};
  return map;
}

Types types_of(const Trace& t) {
  Types types;
  for (const Input& i : t.f.inputs) types.push_back(t.f.types[size_t(i.value)]);
  return types;
}

std::string chosen(const Trace& t, bool exact = false) {
  CompileOptions o;
  o.exact = exact;
  o.fuse = false;
  o.verify = true;
  return text(compile(t.m, "main", types_of(t), o));
}

int count(const std::string& text, const std::string& part) {
  int n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) n++;
  return n;
}

/// f() by the estimates of each instruction set; it must run nothing.
template <class F> void by_each_estimate(const F& f) {
  const Isa before = chosen_isa;
  for (Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512}) {
    chosen_isa = isa;
    CAPTURE(int(isa));
    f();
  }
  chosen_isa = before;
}

/// Outputs of the function with and without the algorithms; inputs from a formula.
void check_same(const Trace& t, bool exact, double tolerance) {
  std::vector<VariableRef> variables;
  std::vector<Tensor> in;
  auto filled = [&](const std::vector<Dim>& shape, int64_t salt) {
    std::vector<int64_t> sizes;
    for (const Dim& d : shape) sizes.push_back(d.value());
    Tensor x = Tensor::empty(DType::float32, sizes);
    for (int64_t i = 0; i < x.view().elements(); i++) x.as<float>()[i] = float((i * 7919 + salt * 104729) % 1009) / 504.5f - 1;
    return x;
  };
  for (size_t i = 0; i < t.m.variables.size(); i++) {
    Tensor x = filled(t.m.variables[i].type.shape, int64_t(i) + 3);
    variables.push_back(std::make_shared<Variable>(t.m.variables[i].name, DType::float32, x.shape, x.data.get()));
  }
  for (const TensorType& type : types_of(t)) in.push_back(filled(type.shape, int64_t(in.size()) + 50));
  std::vector<Tensor> y[2];
  for (bool algorithms : {false, true}) {
    CompileOptions o;
    o.exact = exact;
    o.algorithms = algorithms;
    Module m = compile(t.m, "main", types_of(t), o);
    Program p(std::move(m), variables, cpu_device());
    std::vector<View> inputs, outputs;
    for (Tensor& x : in) inputs.push_back(x.view());
    for (const View& v : p.outputs()) {
      y[algorithms].push_back(Tensor::empty(v.dtype, std::vector<int64_t>(v.dims, v.dims + v.rank)));
      outputs.push_back(y[algorithms].back().view());
    }
    p.run(inputs.data(), outputs.data(), nullptr);
  }
  for (size_t k = 0; k < y[0].size(); k++) {
    double largest = 0, worst = 0;
    for (int64_t i = 0; i < y[0][k].view().elements(); i++) {
      double a = double(y[0][k].as<float>()[i]), b = double(y[1][k].as<float>()[i]);
      largest = std::max(largest, std::abs(a));
      worst = std::max(worst, std::isfinite(b) ? std::abs(a - b) : 1e9);
    }
    CAPTURE(k);
    CHECK(worst <= tolerance * largest);
  }
}

}  // namespace

TEST_CASE("choose_algorithms: golden text of inference") {
  Trace t;
  ValueId x = t.input("x", floats({1, 28, 28, 64}));
  ValueId w = t.read(t.variable("c/kernel", floats({3, 3, 64, 64}))), p = t.read(t.variable("p/kernel", floats({1, 1, 64, 32})));
  ValueId d = t.read(t.variable("d/kernel", floats({32, 10})));
  t.b.paths = {"c"};
  ValueId y = t.b.emit("conv2d", {x, w}, window("same"));
  y = t.b.emit("conv2d", {y, w}, window("same"));  // a shared layer: its weights are transformed once
  t.b.paths = {"p"};
  y = t.b.emit("conv2d", {y, p}, window("same"));
  t.b.paths = {"d"};
  t.out({t.b.emit("matmul", {t.b.sum(y, {1}), d})});
  std::string head = R"(main(%0 x: float32(1, 28, 28, 64)) {
  %1 = read {variable: "c/kernel"} : float32(3, 3, 64, 64)
  %2 = read {variable: "p/kernel"} : float32(1, 1, 64, 32)
  %3 = read {variable: "d/kernel"} : float32(32, 10)
  %4 = winograd_weights(%1) {tile: 4, transpose: false} : float32(149760,)  # c
  %5 = conv2d_winograd(%0, %4) {filters: 64, kernel_size: [3, 3], padding: "same", pads: [0, 0, 0, 0], tile: 4, upsample: [1, 1]} : float32(1, 28, 28, 64)  # c
  %6 = conv2d_winograd(%5, %4) {filters: 64, kernel_size: [3, 3], padding: "same", pads: [0, 0, 0, 0], tile: 4, upsample: [1, 1]} : float32(1, 28, 28, 64)  # c
)";
  std::string s = chosen(t);
  CHECK(s.substr(0, head.size()) == head);
  if (find_op("conv2d_packed")) {
    CHECK(count(s, "%7 = pack_conv2d(%2) {groups: 1, transpose: false}") == 1);
    CHECK(count(s, "conv2d_packed(%6, %7) {dilations: [1, 1], filters: 32, groups: 1, kernel_size: [1, 1], padding") == 1);
    CHECK(count(s, "pack_matmul") == 1);
    CHECK(count(s, "{columns: 10}") == 1);
  }
  std::string exact = chosen(t, true);
  CHECK(count(exact, "tile: 2") == 3);
  CHECK(count(exact, "tile: 4") == 0);
  check_same(t, false, 5e-5);
  check_same(t, true, 5e-6);
}

TEST_CASE("choose_algorithms: the body of a scan takes its weights packed from outside") {
  // h' = relu(h w + x[t] u + x[t] v), with v made inside and w used twice.
  Trace t;
  ValueId h0 = t.input("h", floats({3, 20})), x = t.input("x", floats({4, 3, 8}));
  ValueId w = t.read(t.variable("w", floats({20, 20}))), u = t.read(t.variable("u", floats({8, 20})));
  Trace body(t, "cell");
  ValueId h = body.input("h", floats({3, 20})), e = body.input("x", floats({3, 8}));
  ValueId cw = body.input("w", floats({20, 20})), cu = body.input("u", floats({8, 20}));
  body.input("step", {DType::int32, {}});
  ValueId next = body.b.add(body.b.emit("matmul", {body.b.emit("matmul", {h, cw}), cw}), body.b.emit("matmul", {e, cu}));
  next = body.b.add(next, body.b.emit("matmul", {e, body.b.mul(cu, body.b.scalar(0.5))}));
  body.out({body.b.emit("relu", {next}), next});
  t.out(t.b.emit_all("scan", {h0, x, w, u},
                     {{"body", {std::string("cell")}},
                      {"carries", {int64_t(1)}},
                      {"sequences", {int64_t(1)}},
                      {"reverse", {false}},
                      {"length", {int64_t(-1)}}}));
  const std::string s = chosen(t);
  const size_t inside = s.find("cell");
  CHECK_MESSAGE(count(s, "pack_matmul(") == 2, s);
  CHECK(s.rfind("pack_matmul(") < s.find("scan("));
  CHECK(inside != std::string::npos);
  CHECK(count(s, "matmul_packed(") == 3);
  CHECK(count(s, "matmul(") - count(s, "pack_matmul(") == 1);
  check_same(t, false, 1e-5);
}

TEST_CASE("choose_algorithms: a training step, whose weights change, transforms them inside and packs nothing") {
  Trace t;
  ValueId x = t.input("x", floats({2, 30, 26, 48}));
  int64_t variable = t.variable("kernel", floats({3, 3, 48, 64}));
  ValueId w = t.read(variable);
  ValueId y = t.b.emit("tanh", {t.b.emit("conv2d", {x, w}, window("valid"))});
  std::vector<ValueId> g = t.gradients(t.sum(y), {w, x});
  t.out(g);
  t.f.stores.push_back({int32_t(variable), t.b.sub(w, g[0]), no_value});
  std::string s = chosen(t);
  CHECK(count(s, "winograd_weights(") == 2);  // forwards and turned
  CHECK(count(s, "= conv2d_winograd(") == 2);
  CHECK(count(s, "padding: \"explicit\", pads: [2, 2, 2, 2]") == 1);
  CHECK(count(s, "conv2d_filter_grad_winograd(") == 1);
  CHECK(count(s, "pack") == 0);
}

TEST_CASE("choose_algorithms: many weights for few pixels are transformed on the way, where there are 32 registers") {
  Trace t;
  ValueId x = t.input("x", floats({1, 7, 7, 512})), small = t.input("small", floats({1, 1, 1, 256}));
  ValueId w = t.read(t.variable("w", floats({3, 3, 512, 512}))), v = t.read(t.variable("v", floats({3, 3, 256, 512})));
  ValueId up = t.b.emit("reshape", {small}, {{"shape", testing::list({1, 1, 1, 1, 1, 256})}});
  up = t.b.emit("broadcast_to", {up}, {{"shape", testing::list({1, 1, 7, 1, 7, 256})}});
  up = t.b.emit("reshape", {up}, {{"shape", testing::list({1, 7, 7, 256})}});
  t.out({t.b.emit("conv2d", {x, w}, window("same")),
         t.b.emit("conv2d_input_grad", {x, w}, with(window("same"), "input_size", 7, 7)),
         t.b.emit("conv2d", {up, v}, window("same")),
         t.b.emit("conv2d_filter_grad", {x, x}, with(window("same"), "kernel_size", 3, 3))});
  by_each_estimate([&] {
    const std::string s = chosen(t);
    const int few = chosen_isa == Isa::avx512;
    CHECK(count(s, "tile: 7, transpose: false") == 2 * few);
    CHECK(count(s, "tile: 7, transpose: true") == few);
    CHECK(count(s, "tile: 7, upsample: [7, 7]") == few);
    CHECK(count(s, "conv2d_filter_grad_winograd") == 1);
    CHECK(count(chosen(t, true), "tile: 7") == 0);
  });
  check_same(t, false, 5e-5);
}

TEST_CASE("choose_algorithms: a Winograd convolution of an upsampled image reads the small one") {
  Trace t;
  ValueId x = t.input("x", floats({2, 7, 5, 20}));
  ValueId w = t.read(t.variable("a", floats({3, 3, 20, 24}))), v = t.read(t.variable("b", floats({5, 5, 24, 20})));
  auto repeated = [&](std::initializer_list<Dim> wide, std::initializer_list<Dim> y) {
    Dims small(wide);
    small[2] = small[4] = 1;
    AttrList narrow;
    for (const Dim& d : small) narrow.push_back({d.value()});
    ValueId z = t.b.emit("reshape", {x}, {{"shape", {narrow}}});
    z = t.b.emit("broadcast_to", {z}, {{"shape", testing::list(wide)}});
    return t.b.emit("reshape", {z}, {{"shape", testing::list(y)}});
  };
  ValueId large = repeated({2, 7, 2, 5, 3, 20}, {2, 14, 15, 20});
  t.out({t.b.emit("conv2d", {large, w}, window("same")), t.b.emit("conv2d", {large, w}, window("valid")),
         t.b.emit("conv2d_input_grad", {large, v}, with(window("valid"), "input_size", 18, 19))});
  std::string s = chosen(t);
  CHECK(count(s, "= conv2d_winograd(%0") == 3);
  CHECK(count(s, "upsample: [2, 3]") == 3);
  CHECK(count(s, "broadcast_to") == 0);
  check_same(t, false, 5e-5);
  check_same(t, true, 5e-6);                                // tile 2, and the direct sum of the upsampled image
  t.out({repeated({2, 7, 2, 5, 3, 20}, {2, 15, 14, 20})});  // rows and columns changed over
  CHECK(count(chosen(t), "broadcast_to") == 1);
}

TEST_CASE("space_to_depth: golden text of a first layer with stride 2") {
  Trace t;
  ValueId x = t.input("x", floats({1, 96, 96, 3})), w = t.read(t.variable("kernel", floats({7, 7, 3, 64})));
  AttrMap map = window("explicit", 2);
  map["pads"] = {AttrList{{3}, {3}, {3}, {3}}};  // one row of zeros before the window's first row, which is odd
  t.b.paths = {"conv"};
  t.out({t.b.emit("conv2d", {x, w}, map)});
  const std::string head = R"(main(%0 x: float32(1, 96, 96, 3)) {
  %1 = read {variable: "kernel"} : float32(7, 7, 3, 64)
  %2 = reshape(%0) {shape: [1, 48, 2, 48, 6]} : float32(1, 48, 2, 48, 6)  # conv
  %3 = transpose(%2) {perm: [0, 1, 3, 2, 4]} : float32(1, 48, 48, 2, 6)  # conv
  %4 = reshape(%3) {shape: [1, 48, 48, 12]} : float32(1, 48, 48, 12)  # conv
  %5 = pad(%1) {high: [0, 0, 0, 0], interior: [0, 0, 0, 0], low: [1, 1, 0, 0], value: 0} : float32(8, 8, 3, 64)  # conv
  %6 = reshape(%5) {shape: [4, 2, 4, 2, 3, 64]} : float32(4, 2, 4, 2, 3, 64)  # conv
  %7 = transpose(%6) {perm: [0, 2, 1, 3, 4, 5]} : float32(4, 4, 2, 2, 3, 64)  # conv
  %8 = reshape(%7) {shape: [4, 4, 12, 64]} : float32(4, 4, 12, 64)  # conv
  %9 = winograd_weights(%8) {tile: 4, transpose: false} : float32(40768,)  # conv
  %10 = conv2d_winograd(%4, %9) {filters: 64, kernel_size: [4, 4], padding: "explicit", pads: [2, 1, 2, 1], tile: 4, upsample: [1, 1]} : float32(1, 48, 48, 64)  # conv
)";
  by_each_estimate([&] {
    const std::string s = chosen(t);
    CAPTURE(s);
    CHECK(s.find(head) != std::string::npos);
    CHECK(count(chosen(t, true), "winograd") == 0);
  });
}

TEST_CASE("space_to_depth: every padding, remainder and stride, with gradients") {
  for (auto [size, stride] : {std::pair<int64_t, int64_t>{7, 2}, {8, 2}, {6, 2}, {5, 2}, {11, 3}, {13, 4}})
    for (const char* padding : {"same", "valid", "explicit"})
      for (int64_t more : {0, 1}) {
        Trace t;
        ValueId x = t.input("x", floats({2, 61 + more, 67 + more, 3})), w = t.input("w", floats({size, size, 3, 64}));
        AttrMap map = window(padding, stride);
        map["pads"] = {AttrList{{1 + more}, {2}, {1 + more}, {3}}};
        ValueId y = t.b.emit("conv2d", {x, w}, map);
        t.out({y});
        t.out(t.gradients(t.sum(t.b.mul(y, y)), {x, w}));
        CAPTURE(size);
        CAPTURE(std::string(padding));
        CAPTURE(more);
        by_each_estimate([&] {
          const std::string s = chosen(t);
          CHECK(count(s, "= conv2d_winograd(") == 1);
          CHECK(count(s, "= transpose(") >= 2);
        });
        check_same(t, false, 5e-5);
        check_same(t, true, 5e-6);
      }
}

TEST_CASE("space_to_depth leaves alone what has no such transform or gains nothing") {
  auto left = [](Dims image, Dims weights, AttrMap map) {
    Trace t;
    ValueId x = t.input("x", floats(std::move(image))), w = t.input("w", floats(std::move(weights)));
    t.out({t.b.emit("conv2d", {x, w}, map)});
    return count(chosen(t), "transpose(") == 0;
  };
  by_each_estimate([&] {
    CHECK(left({2, 60, 60, 3}, {3, 3, 3, 64}, window("same", 2)));     // windows of 2x2
    CHECK(left({2, 60, 60, 3}, {2, 2, 3, 64}, window("same", 2)));     // of one pixel
    CHECK(left({2, 60, 60, 4}, {7, 7, 1, 64}, window("same", 2, 4)));  // groups
    CHECK(left({2, 60, 60, 3}, {7, 7, 3, 2}, window("same", 2)));      // too few filters
    CHECK(left({0, 60, 60, 3}, {7, 7, 3, 64}, window("same", 2)));
    AttrMap uneven = with(window("same"), "strides", 2, 1);
    CHECK(left({2, 60, 60, 3}, {7, 7, 3, 64}, uneven));
  });
}

TEST_CASE("skip_pixels: golden text of a residual block's two convolutions") {
  Trace t;
  ValueId x = t.input("x", floats({2, 14, 13, 64}));
  ValueId w = t.read(t.variable("a", floats({1, 1, 64, 32}))), v = t.read(t.variable("b", floats({1, 1, 64, 128})));
  t.out({t.b.emit("conv2d", {x, w}, window("same", 2)), t.b.emit("conv2d", {x, v}, window("valid", 2))});
  const std::string s = chosen(t), head = R"(main(%0 x: float32(2, 14, 13, 64)) {
  %1 = read {variable: "a"} : float32(1, 1, 64, 32)
  %2 = read {variable: "b"} : float32(1, 1, 64, 128)
  %3 = slice(%0) {begin: [0, 0, 0, 0], size: [2, 7, 7, 64], stride: [1, 2, 2, 1]} : float32(2, 7, 7, 64)
  %4 = pack_conv2d(%1) {groups: 1, transpose: false} : float32(2048,)
  %5 = conv2d_packed(%3, %4) {dilations: [1, 1], filters: 32, groups: 1, kernel_size: [1, 1], padding: "valid", pads: [0, 0, 0, 0], strides: [1, 1]} : float32(2, 7, 7, 32)
)";
  CAPTURE(s);
  CHECK(s.find(head) != std::string::npos);
  CHECK(count(s, "slice(") == 1);
  check_same(t, true, 1e-6);
}

TEST_CASE("skip_pixels: two windows of one image, one of which sees less of it") {
  Trace t;
  AttrMap less = window("explicit", 2);
  less["pads"] = {AttrList{{0}, {-4}, {0}, {-4}}};
  ValueId x = t.input("x", floats({1, 14, 14, 8})), w = t.input("w", floats({1, 1, 8, 8}));
  t.out({t.b.emit("conv2d", {x, w}, less), t.b.emit("conv2d", {x, w}, window("valid", 2))});
  CHECK(count(chosen(t), "slice(") == 2);
  check_same(t, true, 1e-6);
}

TEST_CASE("skip_pixels: strides, remainders, groups, gradients; not where there is padding") {
  for (auto [rows, columns] : {std::pair<int64_t, int64_t>{2, 2}, {3, 2}, {1, 5}})
    for (int64_t groups : {1, 4}) {
      Trace t;
      ValueId x = t.input("x", floats({3, 11, 12, 16})), w = t.input("w", floats({1, 1, 16 / groups, 24}));
      ValueId y = t.b.emit("conv2d", {x, w}, with(window("valid", 1, groups), "strides", rows, columns));
      t.out({y});
      t.out(t.gradients(t.sum(t.b.mul(y, y)), {x, w}));
      CHECK(count(chosen(t), "slice(") == 1);  // one for both
      check_same(t, true, 5e-6);
    }
  Trace t;
  AttrMap map = window("explicit", 2);
  map["pads"] = {AttrList{{1}, {1}, {0}, {0}}};
  ValueId x = t.input("x", floats({3, 11, 12, 16})), w = t.input("w", floats({1, 1, 16, 24}));
  t.out({t.b.emit("conv2d", {x, w}, map)});
  CHECK(count(chosen(t), "slice(") == 0);
}

TEST_CASE("choose_algorithms: gradients of every padding, and of 5x5 windows") {
  for (int64_t size : {3, 5})
    for (const char* padding : {"same", "valid", "explicit"}) {
      Trace t;
      ValueId x = t.input("x", floats({2, 24, 27, 32})), w = t.input("w", floats({size, size, 32, 48}));
      AttrMap map = window(padding);
      map["pads"] = {AttrList{{1}, {2}, {0}, {1}}};
      ValueId y = t.b.emit("conv2d", {x, w}, map);
      t.out({y});
      t.out(t.gradients(t.sum(t.b.mul(y, y)), {x, w}));
      CAPTURE(size);
      CAPTURE(padding);
      CHECK(count(chosen(t), "winograd") >= 4);
      check_same(t, false, 5e-5);
      check_same(t, true, 5e-6);
    }
}

TEST_CASE("choose_algorithms: a transposed convolution with its own weights, and what has no other algorithm") {
  Trace t;
  ValueId x = t.input("x", floats({1, 12, 12, 32})), z = t.input("z", floats({0, 8, 8, 16}));
  ValueId wide = t.read(t.variable("a", floats({3, 3, 48, 32}))), strided = t.read(t.variable("b", floats({3, 3, 16, 32})));
  ValueId grouped = t.read(t.variable("c", floats({3, 3, 1, 32}))), any = t.input("d", floats({32, 7}));
  t.out({t.b.emit("conv2d_input_grad", {x, wide}, with(window("valid"), "input_size", 14, 14)),
         t.b.emit("conv2d_input_grad", {x, strided}, with(window("same", 2), "input_size", 24, 24)),
         t.b.emit("conv2d", {x, grouped}, window("same", 1, 32)), t.b.emit("matmul", {x, any}),
         t.b.emit("conv2d", {z, t.read(t.variable("e", floats({3, 3, 16, 16})))}, window("same"))});
  std::string s = chosen(t);
  CHECK(count(s, "transpose: true") == 1);
  CHECK(count(s, "conv2d_input_grad(") == 1);  // strided
  CHECK(count(s, "matmul(") == 1);             // of two inputs
  int packed = find_op("conv2d_packed") ? 1 : 0;
  CHECK(count(s, "groups: 32") == 1 + packed);
  CHECK(count(s, " = conv2d(") == 2 - packed);  // of no image
  check_same(t, false, 5e-5);
}

}  // namespace dagrt
