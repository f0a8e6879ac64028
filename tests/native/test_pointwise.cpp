// Pointwise kernels against plain loops: pixel strides, broadcasting, bfloat16, guard bands, threads, every
// instruction set; and the accuracy of the elementary functions.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "kernels/kernel.h"
#include "ops/op.h"
#include "ops/registry.h"

using namespace dagrt;

namespace {

const Registry& registry() {
  static Registry* r = [] {
    auto* made = new Registry;
    register_pointwise(*made);
    return made;
  }();
  return *r;
}

std::vector<std::string> isas() {
  std::vector<std::string> present;
  Isa before = chosen_isa;
  for (const char* name : {"scalar", "avx2", "avx512"}) try {
      choose_isa(name);
      present.push_back(name);
    } catch (const Error&) {}
  chosen_isa = before;
  return present;
}

/// Floats with rows `ld` apart and 5 guards on both sides; guards and gaps are NaN.
struct Floats {
  std::vector<int64_t> shape;
  int64_t ld;
  std::vector<float> memory;
  explicit Floats(std::vector<int64_t> s, int64_t extra = 0) : shape(std::move(s)) {
    int64_t rows = 1;
    for (size_t i = 0; i + 1 < shape.size(); i++) rows *= shape[i];
    ld = (shape.empty() ? 1 : shape.back()) + extra;
    memory.assign(size_t(rows * ld + 10), std::numeric_limits<float>::quiet_NaN());
  }
  int64_t elements() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
  float& at(int64_t i) {
    int64_t width = shape.empty() ? 1 : shape.back();
    return memory[size_t(5 + i / width * ld + i % width)];
  }
  View view() {
    View v;
    v.data = memory.data() + 5;
    v.rank = int(shape.size());
    for (size_t i = 0; i < shape.size(); i++) v.dims[i] = shape[i];
    v.ld = ld;
    return v;
  }
  Floats& fill(int seed) {
    for (int64_t i = 0; i < elements(); i++) at(i) = float((i * 37 + seed * 11) % 101) / 25.0f - 1.9f;
    return *this;
  }
  bool guarded() {
    std::vector<bool> inside(memory.size(), false);
    for (int64_t i = 0; i < elements(); i++) inside[size_t(&at(i) - memory.data())] = true;
    for (size_t i = 0; i < memory.size(); i++)
      if (!inside[i] && !std::isnan(memory[i])) return false;
    return true;
  }
};

void run(const char* name, std::vector<View> in, View out, int threads = 1) {
  const Op* op = registry().find(name);
  REQUIRE(op);
  Stream stream;
  stream.threads = threads;
  Status status;
  NoAttrs none;
  RunContext c{&none, in.data(), &out, int(in.size()), 1, stream, nullptr, status, 0};
  op->run(c);
  CHECK(status.code == 0);
}

int64_t broadcast_index(const Floats& v, const std::vector<int64_t>& shape, int64_t i) {
  int64_t at = 0, stride = 1;
  for (size_t d = shape.size(); d-- > 0;) {
    int64_t k = i % shape[d];
    i /= shape[d];
    size_t lead = shape.size() - v.shape.size();
    if (d < lead) continue;
    int64_t size = v.shape[d - lead];
    at += (size == 1 ? 0 : k) * stride;
    stride *= size;
  }
  return at;
}

}  // namespace

TEST_CASE("add broadcasts with any pixel stride, in every instruction set, on one thread and two") {
  struct Row {
    std::vector<int64_t> a, b, y;
  };
  const Row rows[] = {{{37}, {37}, {37}},
                      {{6, 3}, {3}, {6, 3}},
                      {{500, 3}, {3}, {500, 3}},
                      {{4, 1}, {1, 7}, {4, 7}},
                      {{2, 3, 300}, {3, 1}, {2, 3, 300}},
                      {{1}, {5, 4}, {5, 4}},
                      {{70, 1}, {70, 1}, {70, 1}},
                      {{2, 1, 3, 1}, {5, 1, 4}, {2, 5, 3, 4}},
                      {{}, {3000}, {3000}},
                      {{9, 1100}, {9, 1}, {9, 1100}},
                      {{300, 64}, {64}, {300, 64}},
                      {{}, {}, {}}};
  Isa before = chosen_isa;
  for (const std::string& isa : isas()) {
    choose_isa(isa.c_str());
    for (const Row& r : rows)
      for (int64_t extra : {0, 3}) {
        Floats a(r.a, extra), b(r.b, extra ? 1 : 0), y(r.y, extra ? 2 : 0), z(r.y, extra);
        a.fill(1), b.fill(2);
        run("subtract", {a.view(), b.view()}, y.view());
        run("subtract", {a.view(), b.view()}, z.view(), 2);
        bool right = true, same = true;
        for (int64_t i = 0; i < y.elements(); i++) {
          right &= y.at(i) == a.at(broadcast_index(a, r.y, i)) - b.at(broadcast_index(b, r.y, i));
          same &= y.at(i) == z.at(i);
        }
        CHECK(right);
        CHECK(same);
        CHECK(y.guarded());
        CHECK(z.guarded());
      }
  }
  chosen_isa = before;
}

TEST_CASE("bfloat16 is computed in float32 and rounded to even") {
  Isa before = chosen_isa;
  for (const std::string& isa : isas()) {
    choose_isa(isa.c_str());
    std::vector<uint16_t> a, b, y(70, 0x7fff);
    for (int i = 0; i < 70; i++) a.push_back(uint16_t(0x3f80 + i)), b.push_back(uint16_t(0x3e01 + 3 * i));
    auto view = [](std::vector<uint16_t>& v) {
      View w;
      w.data = v.data();
      w.dtype = DType::bfloat16;
      w.rank = 1;
      w.dims[0] = w.ld = 70;
      return w;
    };
    run("multiply", {view(a), view(b)}, view(y));
    auto widen = [](uint16_t h) {
      uint32_t u = uint32_t(h) << 16;
      float f;
      std::memcpy(&f, &u, 4);
      return f;
    };
    for (int i = 0; i < 70; i++) {
      double exact = double(widen(a[size_t(i)])) * double(widen(b[size_t(i)]));
      double step = std::ldexp(1.0, std::ilogb(exact) - 7);
      CHECK(double(widen(y[size_t(i)])) == std::nearbyint(exact / step) * step);
    }
  }
  chosen_isa = before;
}

TEST_CASE("in place gives the same bits") {
  Floats a({3, 777}), b({777}), y({3, 777});
  a.fill(1), b.fill(2);
  run("maximum", {a.view(), b.view()}, y.view());
  run("maximum", {a.view(), b.view()}, a.view());
  CHECK(std::memcmp(a.memory.data() + 5, y.memory.data() + 5, 3 * 777 * 4) == 0);
}

TEST_CASE("elementary functions stay within a few units of the last place") {
  struct Row {
    const char* name;
    double (*exact)(double);
    double low, high, ulps;
  };
  const Row rows[] = {
      {"exp", std::exp, -87, 88.7, 2},
      {"expm1", std::expm1, -20, 88, 3},
      {"expm1", std::expm1, -0.01, 0.01, 3},
      {"log", std::log, 1e-6, 4, 2},
      {"log", std::log, 4, 1e30, 2},
      {"log1p", std::log1p, -0.9, 9, 3},
      {"log1p", std::log1p, -1e-4, 1e-4, 3},
      {"tanh", std::tanh, -10, 10, 4},
      {"tanh", std::tanh, -0.01, 0.01, 4},
      {"erf", std::erf, -5, 5, 3},
      {"sigmoid", [](double x) { return 1 / (1 + std::exp(-x)); }, -85, 20, 4},
      {"softplus", [](double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }, -80, 30, 5},
      {"rsqrt", [](double x) { return 1 / std::sqrt(x); }, 1e-3, 1e3, 2}};
  Isa before = chosen_isa;
  for (const std::string& isa : isas()) {
    choose_isa(isa.c_str());
    for (const Row& r : rows) {
      Floats x({20011}), y({20011});
      for (int64_t i = 0; i < 20011; i++) x.at(i) = float(r.low + (r.high - r.low) * double(i) / 20010);
      run(r.name, {x.view()}, y.view());
      double worst = 0;
      for (int64_t i = 0; i < 20011; i++) {
        double exact = r.exact(double(x.at(i)));
        double ulp = std::ldexp(1.0, std::max(std::ilogb(exact == 0 ? 1e-38 : exact), -126) - 23);
        worst = std::max(worst, std::abs(double(y.at(i)) - exact) / ulp);
      }
      INFO(r.name << " " << isa);
      CHECK(worst <= r.ulps);
    }
    for (const char* name : {"sin", "cos"}) {
      Floats x({20011}), y({20011});
      for (int64_t i = 0; i < 20011; i++) x.at(i) = float(-13000 + 1.3 * double(i));
      run(name, {x.view()}, y.view());
      double worst = 0;
      for (int64_t i = 0; i < 20011; i++) {
        double v = double(x.at(i)), exact = name[0] == 's' ? std::sin(v) : std::cos(v);
        worst = std::max(worst, std::abs(double(y.at(i)) - exact));
      }
      INFO(name << " " << isa);
      CHECK(worst <= 2e-7);
    }
  }
  chosen_isa = before;
}
