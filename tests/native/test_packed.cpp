// Packed weights: the same results as the ops that pack for themselves, the input gradient as a convolution, on every
// instruction set, with row strides, guards and threads.
#include <cmath>
#include <cstring>

#include "run_op.h"

namespace dagrt {
void register_matmul(Registry&);
void register_conv2d(Registry&);
void register_pool2d(Registry&);
void register_winograd(Registry&);
}  // namespace dagrt

using namespace dagrt;
using namespace dagrt::testing;

namespace {

float value(int64_t i, int64_t seed) { return float((i * 37 + seed * 101 + (i * i) % 13) % 29 - 14) / 8.0f; }

Tensor filled(std::vector<int64_t> shape, int64_t padding, int64_t seed) {
  Tensor t(DType::float32, std::move(shape), padding);
  t.set<float>([seed](int64_t i) { return value(i, seed); });
  return t;
}

/// The panels, made by one thread and by two.
Tensor pack(const Op& op, const AttrMap& attrs, Tensor& w) {
  TensorType type{DType::float32, {}};
  for (int i = 0; i < w.view.rank; i++) type.shape.push_back(w.view.dims[i]);
  Attrs read = op.attrs.read(op.name, attrs);
  int64_t floats = infer(op, read.get(), {type})[0].shape[0].value();
  Tensor p(DType::float32, {floats}), two(DType::float32, {floats});
  run_op(op, attrs, {&w}, {&two}, 2);
  run_op(op, attrs, {&w}, {&p});
  CHECK(p.intact());
  return p;
}

void same(Tensor& got, Tensor& want, double tolerance) {
  int64_t wrong = 0;
  double scale = 1e-30;
  for (int64_t i = 0; i < want.size(); i++) scale = std::fmax(scale, std::fabs(double(want.at<float>(i))));
  for (int64_t i = 0; i < want.size(); i++)
    wrong += !(std::fabs(double(got.at<float>(i)) - double(want.at<float>(i))) <= tolerance * scale);
  CHECK(wrong == 0);
  CHECK(got.intact());
}

/// Padding of rows: none where rows of their own length lie in the same set of a cache.
int64_t apart(int64_t length) { return length % 1024 ? 2 : 0; }

AttrValue strings(std::initializer_list<std::string> lines) {
  AttrList l;
  for (const std::string& s : lines) l.push_back({s});
  return {l};
}

}  // namespace

TEST_CASE("packed weights give what the plain ops give") {
  Registry r;
  register_matmul(r);
  register_conv2d(r);
  const Op &conv = *r.find("conv2d"), &input_grad = *r.find("conv2d_input_grad"), &conv_packed = *r.find("conv2d_packed"),
           &conv_pack = *r.find("pack_conv2d"), &matmul = *r.find("matmul"), &matmul_packed = *r.find("matmul_packed"),
           &matmul_pack = *r.find("pack_matmul");
  Isa before = chosen_isa;
  for (const char* isa : isas()) {
    CAPTURE(isa);
    choose_isa(isa);
    for (int64_t M : {0, 1, 2, 4, 5, 31, 130})
      for (int64_t N : {0, 1, 15, 33, 70})
        for (int64_t K : {0, 1, 19, 600, 1024, 2100, 3072}) {
          CAPTURE(M);
          CAPTURE(N);
          CAPTURE(K);
          Tensor a = filled({1, M, K}, apart(K), 1), b = filled({K, N}, 1, 2), t = filled({N, K}, 3, 0), bias = filled({N}, 0, 3);
          for (int64_t k = 0; k < K; k++)
            for (int64_t n = 0; n < N; n++) t.at<float>(n * K + k) = b.at<float>(k * N + n);
          Tensor want(DType::float32, {1, M, N}, 1), y(DType::float32, {1, M, N}, 1), z(DType::float32, {1, M, N}, 1);
          AttrMap attrs{{"epilogue", strings({"add 0 1", "relu 2"})}}, with = attrs;
          with["columns"] = {N};
          run_op(matmul, attrs, {&a, &b, &bias}, {&want});
          Tensor p = pack(matmul_pack, {}, b), q = pack(matmul_pack, {{"transpose_b", {true}}}, t);
          run_op(matmul_packed, with, {&a, &p, &bias}, {&y}, 2);
          run_op(matmul_packed, with, {&a, &q, &bias}, {&z});
          same(y, want, 1e-6);
          same(z, y, 0);
        }
    struct Shape {
      std::vector<int64_t> x, w;  // image, weights
      int64_t stride, dilation, groups, pad;
    };
    for (const Shape& s : std::vector<Shape>{{{2, 9, 7, 3}, {3, 3, 3, 21}, 1, 1, 1, 1},
                                             {{2, 9, 7, 3}, {3, 2, 3, 33}, 1, 1, 1, 0},
                                             {{1, 9, 8, 6}, {3, 3, 3, 10}, 2, 1, 2, 1},
                                             {{2, 6, 5, 19}, {3, 3, 1, 19}, 1, 1, 19, 1},
                                             {{1, 13, 11, 5}, {1, 1, 5, 33}, 1, 1, 1, 0},
                                             {{1, 10, 11, 4}, {3, 2, 2, 38}, 1, 2, 2, 2},
                                             {{2, 18, 11, 16}, {3, 3, 16, 1}, 1, 1, 1, 2},
                                             {{1, 9, 21, 3}, {3, 3, 3, 16}, 1, 1, 1, 1},
                                             {{1, 20, 20, 16}, {5, 5, 16, 16}, 1, 1, 1, 2},
                                             {{1, 3, 5, 1024}, {1, 1, 1024, 33}, 1, 1, 1, 0},
                                             {{1, 3, 5, 33}, {1, 1, 33, 1024}, 1, 1, 1, 0},
                                             {{1, 7, 8, 2048}, {1, 1, 2048, 70}, 1, 1, 1, 0},
                                             {{1, 7, 7, 160}, {3, 3, 160, 40}, 1, 1, 1, 1}}) {
      const int64_t d = s.dilation, R = s.w[0], S = s.w[1], C = s.x[3], F = s.w[3];
      auto outputs = [&](int64_t n, int64_t window) { return (n + 2 * s.pad - (window - 1) * d - 1) / s.stride + 1; };
      std::vector<int64_t> shape{s.x[0], outputs(s.x[1], R), outputs(s.x[2], S), F};
      CAPTURE(R);
      CAPTURE(C);
      CAPTURE(F);
      AttrMap attrs{{"strides", integers({s.stride, s.stride})},
                    {"dilations", integers({d, d})},
                    {"groups", {s.groups}},
                    {"padding", {std::string("explicit")}},
                    {"pads", integers({s.pad, s.pad, s.pad, s.pad})},
                    {"epilogue", strings({"add 0 1", "relu 2"})}};
      Tensor x = filled(s.x, apart(C), 1), w = filled(s.w, 0, 2), bias = filled({F}, 0, 3), dy = filled(shape, apart(F), 4);
      Tensor want(DType::float32, shape, 1), y(DType::float32, shape, 1);
      run_op(conv, attrs, {&x, &w, &bias}, {&want});
      AttrMap with = attrs;
      with["kernel_size"] = integers({R, S});
      with["filters"] = {F};
      Tensor p = pack(conv_pack, {{"groups", {s.groups}}}, w);
      run_op(conv_packed, with, {&x, &p, &bias}, {&y}, 2);
      same(y, want, 0);

      if (s.stride > 1) continue;
      Tensor dx(DType::float32, s.x, 3), got(DType::float32, s.x, 3);
      attrs.erase("epilogue");
      attrs["input_size"] = integers({s.x[1], s.x[2]});
      run_op(input_grad, attrs, {&dy, &w}, {&dx});
      const int64_t high = (R - 1) * d - s.pad, wide = (S - 1) * d - s.pad;
      with.erase("epilogue");
      with["pads"] = integers({high, high, wide, wide});
      with["filters"] = {C};
      Tensor turned = pack(conv_pack, {{"groups", {s.groups}}, {"transpose", {true}}}, w);
      run_op(conv_packed, with, {&dy, &turned}, {&got}, 2);
      same(got, dx, 2e-6);
    }
  }
  chosen_isa = before;
}

TEST_CASE("panels that do not fit are refused") {
  Registry r;
  register_matmul(r);
  register_conv2d(r);
  auto message = [&](const char* name, const AttrMap& map, const Types& in) -> std::string {
    const Op& op = *r.find(name);
    try {
      infer(op, op.attrs.read(name, map).get(), in);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  const TensorType x{DType::float32, {1, 5, 5, 4}}, a{DType::float32, {7, 3}}, panels{DType::float32, {64}};
  CHECK(message("matmul_packed", {{"columns", {int64_t(5)}}}, {a, panels}) ==
        "matmul_packed: expected float32 panels of pack_matmul for 3 x 5, got float32(64,)");
  CHECK(message("pack_matmul", {}, {x}) == "pack_matmul: expected a float32 matrix of known sizes, got float32(1, 5, 5, 4)");
  CHECK(message("conv2d_packed",
                {{"strides", integers({1, 1})},
                 {"padding", {std::string("valid")}},
                 {"kernel_size", integers({3, 3})},
                 {"filters", {int64_t(8)}}},
                {x, panels}) == "conv2d_packed: expected float32 panels of pack_conv2d, (1152,), got float32(64,)");
}

TEST_CASE("a convolution that pools gives the bits of the pooling behind it") {
  Registry r;
  register_conv2d(r);
  register_winograd(r);
  register_pool2d(r);
  struct Case {
    int64_t B, H, W, C, F, window, tile, stride, groups;  // tile 0: direct
    const char* padding;
    int bias, relu;
  };
  const Case cases[] = {
      {1, 9, 9, 5, 19, 3, 4, 1, 1, "same", 1, 1},    {2, 12, 14, 16, 32, 3, 4, 1, 1, "valid", 1, 1},
      {2, 7, 6, 3, 17, 3, 2, 1, 1, "same", 0, 1},    {3, 26, 26, 16, 32, 3, 4, 1, 1, "valid", 1, 0},
      {1, 13, 11, 6, 9, 5, 4, 1, 1, "same", 1, 1},   {1, 3, 3, 4, 8, 3, 4, 1, 1, "valid", 1, 1},
      {2, 30, 31, 96, 70, 3, 4, 1, 1, "same", 1, 1}, {1, 41, 37, 64, 130, 3, 2, 1, 1, "valid", 0, 0},
      {2, 17, 29, 3, 16, 3, 0, 1, 1, "valid", 1, 1}, {1, 33, 31, 3, 37, 7, 0, 2, 1, "same", 1, 1},
      {1, 30, 26, 8, 36, 3, 0, 1, 2, "same", 1, 1},  {2, 25, 60, 5, 12, 3, 0, 1, 1, "same", 0, 0},
      {1, 2, 13, 2, 9, 1, 0, 1, 1, "valid", 1, 1},
  };
  for (const char* isa : isas())
    for (const Case& c : cases)
      for (int threads : {1, 2}) {
        choose_isa(isa);
        CAPTURE(isa);
        CAPTURE(c.H);
        CAPTURE(c.F);
        CAPTURE(c.tile);
        CAPTURE(threads);
        Tensor x = filled({c.B, c.H, c.W, c.C}, 3, 1), w = filled({c.window, c.window, c.C / c.groups, c.F}, 0, 2);
        Tensor bias = filled({c.F}, 0, 3);
        AttrMap attrs{{"kernel_size", integers({c.window, c.window})}, {"filters", {c.F}}, {"padding", {std::string(c.padding)}}};
        if (c.tile)
          attrs["tile"] = {c.tile};
        else
          attrs["strides"] = integers({c.stride, c.stride}), attrs["groups"] = {c.groups};
        AttrList lines;
        if (c.bias) lines.push_back({std::string("add 0 1")});
        if (c.relu) lines.push_back({std::string(c.bias ? "relu 2" : "relu 0")});
        attrs["epilogue"] = {lines}, attrs["epilogue_constants"] = {AttrList{}};
        Tensor u = c.tile ? pack(*r.find("winograd_weights"), {{"tile", {c.tile}}}, w)
                          : pack(*r.find("pack_conv2d"), {{"groups", {c.groups}}}, w);
        auto outputs = [&](int64_t n) {
          const int64_t s = c.tile ? 1 : c.stride;
          return c.padding == std::string("same") ? (n + s - 1) / s : (n - c.window) / s + 1;
        };
        const int64_t P = outputs(c.H), Q = outputs(c.W);
        if (P < 2 || Q < 2) continue;
        std::vector<Tensor*> in{&x, &u};
        if (c.bias) in.push_back(&bias);
        Tensor y(DType::float32, {c.B, P, Q, c.F}), want(DType::float32, {c.B, P / 2, Q / 2, c.F});
        Tensor got(DType::float32, {c.B, P / 2, Q / 2, c.F}, 5), places(DType::int32, {c.B, P / 2, Q / 2, c.F});
        const Op& conv = *r.find(c.tile ? "conv2d_winograd" : "conv2d_packed");
        run_op(conv, attrs, in, {&y});
        run_op(*r.find("max_pool2d"),
               {{"pool", integers({2, 2})}, {"strides", integers({2, 2})}, {"padding", {std::string("valid")}}}, {&y},
               {&want, &places});
        attrs["pool"] = integers({2, 2});
        if (!c.tile && (c.window == 1 || Q < 12)) continue;  // its kernel does not pool
        run_op(conv, attrs, in, {&got}, threads);
        int64_t wrong = 0;
        for (int64_t i = 0; i < want.size(); i++) wrong += std::memcmp(&got.at<float>(i), &want.at<float>(i), 4) != 0;
        CHECK(wrong == 0);
        CHECK(got.intact());
      }
}
