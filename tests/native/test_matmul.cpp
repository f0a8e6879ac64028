// Matrix products against loops in double: every instruction set, row strides, guards, threads.
#include <cmath>
#include <cstring>

#include "run_op.h"

namespace dagrt {
void register_matmul(Registry&);
}

using namespace dagrt;
using namespace dagrt::testing;

namespace {

float value(int64_t i, int64_t seed) { return float((i * 37 + seed * 101 + (i * i) % 13) % 29 - 14) / 8.0f; }

struct Shape {
  std::vector<int64_t> a, b, y;  // batch axes of each
  int64_t M, K, N;
};

void check(const Op& op, const Shape& s, bool ta, bool tb, int64_t padding) {
  CAPTURE(s.M);
  CAPTURE(s.K);
  CAPTURE(s.N);
  CAPTURE(ta);
  CAPTURE(tb);
  CAPTURE(padding);
  auto with = [](std::vector<int64_t> v, int64_t m, int64_t n) {
    v.push_back(m);
    v.push_back(n);
    return v;
  };
  Tensor a(DType::float32, ta ? with(s.a, s.K, s.M) : with(s.a, s.M, s.K), padding);
  Tensor b(DType::float32, tb ? with(s.b, s.N, s.K) : with(s.b, s.K, s.N), padding);
  a.set<float>([](int64_t i) { return value(i, 1); });
  b.set<float>([](int64_t i) { return value(i, 2); });
  Tensor y(DType::float32, with(s.y, s.M, s.N), padding), z(DType::float32, with(s.y, s.M, s.N), padding);
  AttrMap attrs{{"transpose_a", {ta}}, {"transpose_b", {tb}}};
  run_op(op, attrs, {&a, &b}, {&y}, 1);
  run_op(op, attrs, {&a, &b}, {&z}, 2);
  int64_t batches = 1, wrong = 0, differ = 0;
  for (int64_t d : s.y) batches *= d;
  for (int64_t batch = 0; batch < batches; batch++) {
    int64_t ia = 0, ib = 0, rest = batch, step_a = 1, step_b = 1;
    for (size_t k = 0; k < s.y.size(); k++) {  // from the last axis
      int64_t at = rest % s.y[s.y.size() - 1 - k];
      rest /= s.y[s.y.size() - 1 - k];
      if (k < s.a.size() && s.a[s.a.size() - 1 - k] != 1) ia += at * step_a;
      if (k < s.b.size() && s.b[s.b.size() - 1 - k] != 1) ib += at * step_b;
      if (k < s.a.size()) step_a *= s.a[s.a.size() - 1 - k];
      if (k < s.b.size()) step_b *= s.b[s.b.size() - 1 - k];
    }
    for (int64_t m = 0; m < s.M; m++)
      for (int64_t n = 0; n < s.N; n++) {
        double sum = 0, size = 0;
        for (int64_t k = 0; k < s.K; k++) {
          double p = double(a.at<float>(ia * s.M * s.K + (ta ? k * s.M + m : m * s.K + k))) *
                     double(b.at<float>(ib * s.K * s.N + (tb ? n * s.K + k : k * s.N + n)));
          sum += p;
          size += std::fabs(p);
        }
        int64_t i = (batch * s.M + m) * s.N + n;
        wrong += !(std::fabs(double(y.at<float>(i)) - sum) <= 1e-6 * size);
        differ += std::memcmp(&y.at<float>(i), &z.at<float>(i), 4) != 0;
      }
  }
  CHECK(wrong == 0);
  CHECK(differ == 0);
  CHECK(a.intact());
  CHECK(b.intact());
  CHECK(y.intact());
  CHECK(z.intact());
}

}  // namespace

TEST_CASE("matmul agrees with loops") {
  Registry r;
  register_matmul(r);
  const Op& op = *r.find("matmul");
  Isa before = chosen_isa;
  for (const char* isa : isas()) {
    CAPTURE(isa);
    choose_isa(isa);
    for (int flags = 0; flags < 4; flags++) {
      const bool ta = flags & 1, tb = flags & 2;
      for (int64_t M : {0, 1, 2, 3, 4, 5, 13, 14, 15, 16, 28, 29, 57})
        for (int64_t N : {0, 1, 4, 7, 16, 31, 33, 64, 129, 150})
          for (int64_t K : {0, 1, 3, 16, 35}) check(op, {{}, {}, {}, M, K, N}, ta, tb, (M + N + K) % 3 * 2);
      for (int64_t M : {2, 9, 40}) check(op, {{}, {}, {}, M, 2300, 20}, ta, tb, M % 2);
      check(op, {{}, {}, {}, 70, 520, 40}, ta, tb, 0);
      for (int64_t M : {9, 31}) check(op, {{}, {}, {}, M, 2048, 70}, ta, tb, 0);  // rows of A in one set of a cache
      for (int64_t M : {1, 6, 33})
        for (int64_t pad : {0, 3}) {
          check(op, {{3}, {3}, {3}, M, 5, 19}, ta, tb, pad);
          check(op, {{2, 1}, {1, 3}, {2, 3}, M, 5, 19}, ta, tb, pad);
          check(op, {{2, 3}, {}, {2, 3}, M, 5, 19}, ta, tb, pad);
          check(op, {{}, {2, 2}, {2, 2}, M, 5, 19}, ta, tb, pad);
          check(op, {{2, 1, 2}, {3, 1}, {2, 3, 2}, M, 5, 19}, ta, tb, pad);
        }
    }
  }
  chosen_isa = before;
}

TEST_CASE("matmul refuses what does not multiply") {
  Registry r;
  register_matmul(r);
  const Op& op = *r.find("matmul");
  Attrs attrs = op.attrs.read("matmul", {});
  auto t = [](std::vector<int64_t> shape, DType d = DType::float32) {
    TensorType type{d, {}};
    for (int64_t n : shape) type.shape.push_back(n);
    return type;
  };
  auto message = [&](const TensorType& a, const TensorType& b) -> std::string {
    try {
      infer(op, attrs.get(), {a, b});
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  CHECK(message(t({2, 3}), t({4, 5})) == "matmul: inner sizes must agree, got 3 and 4 of (2, 3) and (4, 5)");
  CHECK(message(t({3}), t({3, 5})) == "matmul: expected at least 2 axes, got (3,) and (3, 5)");
  CHECK(message(t({2, 3}), t({3, 5}, DType::int32)) == "matmul: expected float32, got float32 and int32; cast to float32");
  CHECK(message(t({2, 2, 3}), t({3, 3, 5})) ==
        "matmul: leading sizes must be equal, or one of them 1, got 2 and 3 of (2, 2, 3) and (3, 3, 5)");
}
