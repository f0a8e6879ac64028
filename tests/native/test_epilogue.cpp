// Epilogues of producers: the bits of the product followed by `pointwise`, for every kind of extra input, on every
// instruction set, with row strides, guards and threads.
#include <cstring>

#include "run_op.h"

namespace dagrt {
void register_matmul(Registry&);
void register_conv2d(Registry&);
void register_fused(Registry&);
}  // namespace dagrt

using namespace dagrt;
using namespace dagrt::testing;

namespace {

float value(int64_t i, int64_t seed) { return float((i * 37 + seed * 101 + (i * i) % 13) % 29 - 14) / 8.0f; }

AttrValue strings(const std::vector<std::string>& lines) {
  AttrList l;
  for (const std::string& s : lines) l.push_back({s});
  return {l};
}
AttrValue numbers(const std::vector<double>& v) {
  AttrList l;
  for (double x : v) l.push_back({x});
  return {l};
}

Tensor filled(std::vector<int64_t> shape, int64_t padding, int64_t seed) {
  Tensor t(DType::float32, std::move(shape), padding);
  t.set<float>([seed](int64_t i) { return value(i, seed); });
  return t;
}

struct Chain {
  std::vector<std::string> program;
  std::vector<double> constants;
  std::string extras;  // s: scalar, b: a value a column, f: y's shape
};

const std::vector<Chain> chains = {
    {{"relu 0"}, {}, ""},
    {{"add 0 1"}, {}, "b"},
    {{"add 1 0", "relu 2"}, {}, "b"},
    {{"add 0 1", "add 2 3", "relu6 4"}, {}, "bf"},
    {{"add 0 1", "multiply 2 c0", "relu6 3"}, {8}, "b"},
    {{"add 0 1"}, {}, "f"},
    {{"add 0 1", "add 2 3", "relu 4"}, {}, "bf"},
    {{"add 0 2", "add 3 1", "relu 4"}, {}, "bf"},  // the sums in the other order
    {{"add 0 1", "sigmoid 2", "multiply 2 3"}, {}, "b"},
    {{"multiply 0 c0", "add 2 1", "tanh 3"}, {0.25}, "s"},
    {{"greater 1 c0", "select 3 0 c0", "multiply 4 2"}, {0}, "fb"},
    {{"greater 1 c0", "select 2 0 c0"}, {0}, "f"},  // relu's gradient, alone and of a sum
    {{"add 2 0", "greater 1 c0", "select 4 3 c0"}, {0}, "ff"},
    {{"less 1 c1", "select 2 0 c0", "greater 1 c0", "select 4 3 c0"}, {0, 0.5}, "f"},  // relu6's, with another ceiling
    {{"add 2 0", "greater 1 c0", "select 4 3 c0", "less 1 c1", "select 6 5 c0"}, {0, 0.5}, "ff"},
    {{"less 2 c1", "select 3 0 c0", "greater 1 c0", "select 5 4 c0"}, {0, 0.5}, "ff"},
    {{"greater 1 c0", "select 2 0 c1"}, {0.5, 0}, "f"},
    {{"multiply 0 1", "add 5 2", "add 6 3", "relu 7", "maximum 8 4"}, {}, "bbfs"},
};

/// `op` with every chain as its epilogue against `op` and then `pointwise`.
void check(const Op& op, const Op& pointwise, const AttrMap& attrs, const std::vector<Tensor*>& in, std::vector<int64_t> shape,
           int64_t padding) {
  for (const Chain& chain : chains) {
    CAPTURE(chain.program.back());
    std::vector<Tensor> extras;
    for (char kind : chain.extras)
      extras.push_back(filled(kind == 's'   ? std::vector<int64_t>{}
                              : kind == 'b' ? std::vector<int64_t>{shape.back()}
                                            : shape,
                              kind == 's' ? 0 : padding, int64_t(3 + extras.size())));
    Tensor product(DType::float32, shape, padding), want(DType::float32, shape, padding), got(DType::float32, shape, padding),
        two(DType::float32, shape, padding);
    run_op(op, attrs, in, {&product});
    std::vector<Tensor*> chained{&product}, all = in;
    for (Tensor& t : extras) chained.push_back(&t), all.push_back(&t);
    run_op(pointwise, {{"program", strings(chain.program)}, {"constants", numbers(chain.constants)}}, chained, {&want});
    AttrMap with = attrs;
    with["epilogue"] = strings(chain.program);
    with["epilogue_constants"] = numbers(chain.constants);
    run_op(op, with, all, {&got}, 1);
    run_op(op, with, all, {&two}, 2);
    int64_t differ = 0;
    for (int64_t i = 0; i < want.size(); i++)
      differ +=
          std::memcmp(&got.at<float>(i), &want.at<float>(i), 4) != 0 || std::memcmp(&got.at<float>(i), &two.at<float>(i), 4) != 0;
    CHECK(differ == 0);
    CHECK(got.intact());
    for (Tensor& t : extras) CHECK(t.intact());
  }
}

}  // namespace

TEST_CASE("an epilogue gives the bits of the ops behind the product") {
  Registry r;
  register_matmul(r);
  register_conv2d(r);
  register_winograd(r);
  register_fused(r);
  const Op &winograd = *r.find("conv2d_winograd"), &weights = *r.find("winograd_weights");
  const Op &matmul = *r.find("matmul"), &conv2d = *r.find("conv2d"), &input_grad = *r.find("conv2d_input_grad"),
           &pointwise = *r.find("pointwise");
  Isa before = chosen_isa;
  for (const char* isa : isas()) {
    CAPTURE(isa);
    choose_isa(isa);
    for (int64_t M : {1, 3, 7, 60})
      for (int64_t N : {1, 17, 66})
        for (int64_t K : {0, 5, 2100}) {
          CAPTURE(M);
          CAPTURE(N);
          CAPTURE(K);
          Tensor a = filled({M, K}, 3, 1), b = filled({K, N}, 1, 2), t = filled({N, K}, 1, 2);
          check(matmul, pointwise, {}, {&a, &b}, {M, N}, 2);
          check(matmul, pointwise, {{"transpose_b", {true}}}, {&a, &t}, {M, N}, 2);
        }
    Tensor a = filled({2, 3, 5, 7}, 0, 1), b = filled({3, 7, 20}, 2, 2);
    check(matmul, pointwise, {}, {&a, &b}, {2, 3, 5, 20}, 4);

    struct Shape {
      std::vector<int64_t> x, w;
      int64_t stride, groups;
      std::vector<int64_t> y;
    };
    for (const Shape& s : std::vector<Shape>{{{2, 9, 7, 3}, {3, 3, 3, 21}, 1, 1, {2, 9, 7, 21}},
                                             {{1, 9, 8, 6}, {3, 2, 3, 10}, 2, 2, {1, 5, 4, 10}},
                                             {{2, 6, 5, 19}, {3, 3, 1, 19}, 1, 19, {2, 6, 5, 19}},
                                             {{2, 9, 13, 16}, {3, 3, 16, 1}, 1, 1, {2, 9, 13, 1}},
                                             {{1, 9, 20, 1}, {3, 3, 1, 16}, 2, 1, {1, 5, 10, 16}},
                                             {{2, 9, 16, 1}, {3, 3, 1, 19}, 1, 1, {2, 9, 16, 19}},
                                             {{1, 5, 9, 11}, {1, 3, 11, 2}, 1, 1, {1, 5, 9, 2}},
                                             {{1, 13, 11, 5}, {1, 1, 5, 33}, 1, 1, {1, 13, 11, 33}}}) {
      AttrMap attrs{{"strides", integers({s.stride, s.stride})}, {"groups", {s.groups}}, {"padding", {std::string("same")}}};
      Tensor x = filled(s.x, 2, 1), w = filled(s.w, 0, 2), dy = filled(s.y, 1, 1);
      check(conv2d, pointwise, attrs, {&x, &w}, s.y, 3);
      attrs["input_size"] = integers({s.x[1], s.x[2]});
      check(input_grad, pointwise, attrs, {&dy, &w}, s.x, 3);
    }
    for (auto [C, F] : {std::pair<int64_t, int64_t>{3, 5}, {3, 70}, {40, 130}}) {
      CAPTURE(F);
      Tensor x = filled({2, 9, 7, C}, 2, 1), w = filled({3, 3, C, F}, 0, 2);
      Tensor u(DType::float32, {36 * (C + 1) * ((F + 31) / 32 * 32)});
      run_op(weights, {}, {&w}, {&u});
      AttrMap attrs{{"kernel_size", integers({3, 3})}, {"filters", {F}}, {"padding", {std::string("same")}}};
      check(winograd, pointwise, attrs, {&x, &u}, {2, 9, 7, F}, 3);
      Tensor seven(DType::float32, {9 * C * ((F + 31) / 32 * 32)});
      run_op(weights, {{"tile", {int64_t(7)}}}, {&w}, {&seven});
      attrs["tile"] = {int64_t(7)};
      check(winograd, pointwise, attrs, {&x, &seven}, {2, 9, 7, F}, 3);
    }
  }
  chosen_isa = before;
}

TEST_CASE("an epilogue that does not fit is refused") {
  Registry r;
  register_matmul(r);
  const Op& op = *r.find("matmul");
  auto message = [&](const std::vector<std::string>& program, std::vector<std::vector<int64_t>> extras) -> std::string {
    Types in{{DType::float32, {2, 3}}, {DType::float32, {3, 5}}};
    for (const auto& shape : extras) in.push_back({DType::float32, Dims(shape.begin(), shape.end())});
    try {
      AttrMap map;
      if (!program.empty()) map = {{"epilogue", strings(program)}};
      infer(op, op.attrs.read("matmul", map).get(), in);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  CHECK(message({"add 0 1"}, {{5}}) == "");
  CHECK(message({"add 0 1"}, {{1, 5}}) == "");
  CHECK(message({"add 0 1"}, {{2, 5}}) == "");
  CHECK(message({"add 0 1"}, {{2, 1}}) == "matmul: an epilogue's extra input must be a scalar, [5] or (2, 5), got (2, 1)");
  CHECK(message({"add 0 1"}, {}) ==
        "matmul: instruction \"add 0 1\" of the epilogue does not fit the product and 0 extra inputs");
  CHECK(message({"add 0 x"}, {}) == "matmul: expected an instruction such as \"multiply 0 c1\", got \"add 0 x\"");
  CHECK(message({"greater 0 1"}, {{}}) == "matmul: an epilogue must give float32, got bool");
  CHECK(message({}, {{5}}) == "matmul: 1 extra inputs, but no epilogue that takes them");
}
