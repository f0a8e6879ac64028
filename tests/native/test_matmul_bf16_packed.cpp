// Products of weights kept as bfloat16: against matmul, and the same bits on every instruction set.
#include <cmath>

#include "ops/isa.h"
#include "run_op.h"

namespace dagrt {
void register_matmul(Registry&);
void register_matmul_bf16_packed(Registry&);
}  // namespace dagrt

using namespace dagrt;
using namespace dagrt::testing;

namespace {

/// Values that bfloat16 holds; with `wide` of many magnitudes, so that sums round.
float value(int64_t i, int64_t seed, bool wide) {
  const int64_t n = (i * 37 + seed * 101 + (i * i) % 13) % 29 - 14;
  return std::ldexp(float(n) / 8.0f, wide ? int((i * 7 + seed) % 11) - 5 : 0);
}

AttrValue strings(const std::vector<std::string>& lines) {
  AttrList l;
  for (const std::string& s : lines) l.push_back({s});
  return {l};
}

struct Product {
  Tensor a, b, t, bias;
  Product(int64_t M, int64_t N, int64_t K, bool wide)
      : a(DType::float32, {1, M, K}, 3), b(DType::float32, {K, N}, 1), t(DType::float32, {N, K}, 2), bias(DType::float32, {N}) {
    a.set<float>([&](int64_t i) { return value(i, 1, wide); });
    b.set<float>([&](int64_t i) { return value(i, 2, wide); });
    bias.set<float>([&](int64_t i) { return value(i, 3, wide); });
    for (int64_t k = 0; k < K; k++)
      for (int64_t n = 0; n < N; n++) t.at<float>(n * K + k) = b.at<float>(k * N + n);
  }
};

Tensor pack(const Op& op, const AttrMap& attrs, Tensor& w) {
  const TensorType type{DType::float32, {w.view.dims[0], w.view.dims[1]}};
  const int64_t size = infer(op, op.attrs.read(op.name, attrs).get(), {type})[0].shape[0].value();
  Tensor p(DType::bfloat16, {size});
  run_op(op, attrs, {&w}, {&p}, 2);
  CHECK(p.intact());
  return p;
}

/// The instruction set of before comes back.
struct Kept {
  std::string name = isa_name();
  ~Kept() { choose_isa(name.c_str()); }
};

int64_t different(Tensor& x, Tensor& y) {
  int64_t n = 0;
  for (int64_t i = 0; i < x.size(); i++) n += std::memcmp(&x.at<float>(i), &y.at<float>(i), 4) != 0;
  return n;
}

}  // namespace

TEST_CASE("matmul_bf16_packed gives what matmul gives of the same values") {
  Registry r;
  register_matmul(r);
  register_matmul_bf16_packed(r);
  const Op &matmul = *r.find("matmul"), &packed = *r.find("matmul_bf16_packed"), &packing = *r.find("pack_matmul_bf16");
  const Kept kept;
  for (const char* isa : isas()) {
    CAPTURE(isa);
    for (int64_t M : {0, 1, 2, 3, 4, 5, 15, 31, 49, 101})
      for (int64_t N : {0, 1, 15, 33, 70, 300})
        for (int64_t K : {0, 1, 2, 19, 32, 47, 300}) {
          choose_isa(isa);
          CAPTURE(M);
          CAPTURE(N);
          CAPTURE(K);
          Product p(M, N, K, false);  // sums that float32 holds: any order gives the same
          AttrMap attrs{{"epilogue", strings({"add 0 1", "relu 2"})}}, with = attrs;
          with["columns"] = {N};
          Tensor want(DType::float32, {1, M, N}, 1), y(DType::float32, {1, M, N}, 2), z(DType::float32, {1, M, N}, 1);
          run_op(matmul, attrs, {&p.a, &p.b, &p.bias}, {&want});
          Tensor panels = pack(packing, {}, p.b), turned = pack(packing, {{"transpose_b", {true}}}, p.t);
          run_op(packed, with, {&p.a, &panels, &p.bias}, {&y}, 2);
          run_op(packed, with, {&p.a, &turned, &p.bias}, {&z});
          CHECK(different(y, want) == 0);
          CHECK(different(z, want) == 0);
          CHECK(y.intact());
          CHECK(z.intact());
        }
  }
}

TEST_CASE("matmul_bf16_packed adds in one order on every instruction set") {
  Registry r;
  register_matmul_bf16_packed(r);
  const Op &packed = *r.find("matmul_bf16_packed"), &packing = *r.find("pack_matmul_bf16");
  const Kept kept;
  for (int64_t M : {1, 2, 3, 7, 13, 30, 59}) {
    Product p(M, 77, 203, true);
    Tensor first(DType::float32, {1, M, 77});
    for (const char* isa : isas()) {
      CAPTURE(isa);
      choose_isa(isa);
      const bool is_first = std::string(isa) == "scalar";
      Tensor y(DType::float32, {1, M, 77}), panels = pack(packing, {}, p.b);
      run_op(packed, {{"columns", {int64_t(77)}}}, {&p.a, &panels}, {is_first ? &first : &y}, 2);
      if (!is_first) CHECK(different(first, y) == 0);
    }
  }
}

TEST_CASE("pack_matmul_bf16 rounds, and panels that do not fit are refused") {
  Registry r;
  register_matmul_bf16_packed(r);
  const Op &packed = *r.find("matmul_bf16_packed"), &packing = *r.find("pack_matmul_bf16");
  const Kept kept;
  Tensor b(DType::float32, {1, 3}), a(DType::float32, {1, 1}), y(DType::float32, {1, 3});
  const float values[3] = {1.00390625f, 1.01171875f, std::nanf("")}, rounded[2] = {1.0f, 1.015625f};
  b.set<float>([&](int64_t i) { return values[i]; });
  a.set<float>([](int64_t) { return 1.0f; });
  for (const char* isa : isas()) {
    choose_isa(isa);
    Tensor panels = pack(packing, {}, b);
    run_op(packed, {{"columns", {int64_t(3)}}}, {&a, &panels}, {&y});
    for (int64_t i = 0; i < 2; i++) CHECK(y.at<float>(i) == rounded[i]);
    CHECK(std::isnan(y.at<float>(2)));
  }
  auto message = [&](const Op& op, const AttrMap& map, const Types& in) -> std::string {
    try {
      infer(op, op.attrs.read(op.name, map).get(), in);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  const TensorType x{DType::float32, {7, 3}}, half{DType::bfloat16, {7, 3}}, panels{DType::bfloat16, {64}};
  const AttrMap five{{"columns", {int64_t(5)}}};
  CHECK(message(packed, five, {x, panels}) ==
        "matmul_bf16_packed: expected bfloat16 panels of pack_matmul_bf16 for 3 x 5, got bfloat16(64,)");
  CHECK(message(packed, five, {half, panels}) == "matmul_bf16_packed: expected float32 of at least 2 axes, got bfloat16(7, 3)");
  CHECK(message(packed, {{"columns", {int64_t(-1)}}}, {x, panels}) == "matmul_bf16_packed: columns must not be negative, got -1");
  CHECK(message(packing, {}, {half}) == "pack_matmul_bf16: expected a float32 matrix of known sizes, got bfloat16(7, 3)");
}
