// Softmax and cross-entropy against plain loops: row strides, guards, threads, every instruction set.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/kernel.h"
#include "kernels/softmax.h"

using namespace dagrt;

TEST_CASE("softmax, its logarithm and cross-entropy agree with plain loops") {
  const float nan_ = std::numeric_limits<float>::quiet_NaN();
  Isa before = chosen_isa;
  for (const char* isa : {"scalar", "avx2", "avx512"}) {
    try {
      choose_isa(isa);
    } catch (const Error&) {
      continue;
    }
    for (int64_t C : {1, 3, 10, 16, 17, 32, 33, 700})
      for (int64_t extra : {0, 5}) {
        const int64_t N = 301, ld = C + extra;
        std::vector<float> x(size_t(N * ld), nan_), y(size_t(N * ld) + 3, nan_), p(y), d(y), one(y);
        std::vector<int32_t> labels;
        for (int64_t n = 0; n < N; n++) {
          for (int64_t c = 0; c < C; c++) x[size_t(n * ld + c)] = float((n * 31 + c * 17) % 41) / 4.0f - 5.0f;
          labels.push_back(int32_t((n * 7) % C));
        }
        std::vector<float> loss(size_t(N), nan_), log_z(size_t(N), nan_), g(size_t(N), 0.5f);
        Stream two, alone;
        two.threads = 2;
        SoftmaxArgs s;
        s.x = x.data();
        s.y = p.data();
        s.N = N, s.C = C, s.ldx = s.ldy = ld;
        softmax(s, two);
        s.y = one.data();
        softmax(s, alone);
        CHECK(std::memcmp(one.data(), p.data(), p.size() * 4) == 0);
        s.logarithm = true;
        s.y = y.data();
        softmax(s, two);
        CrossEntropyArgs e;
        e.x = x.data();
        e.labels = labels.data();
        e.loss = loss.data();
        e.log_z = log_z.data();
        e.N = N, e.C = C, e.ldx = ld;
        softmax_cross_entropy(e, two);
        CrossEntropyGradArgs b;
        b.x = x.data();
        b.labels = labels.data();
        b.log_z = log_z.data();
        b.g = g.data();
        b.dx = d.data();
        b.N = N, b.C = C, b.ldx = b.ldd = ld;
        softmax_cross_entropy_grad(b, two);
        bool right = true, guarded = true;
        for (int64_t n = 0; n < N; n++) {
          double z = 0;
          for (int64_t c = 0; c < C; c++) z += std::exp(double(x[size_t(n * ld + c)]));
          for (int64_t c = 0; c < ld; c++) {
            size_t i = size_t(n * ld + c);
            if (c >= C) {
              guarded &= std::isnan(y[i]) && std::isnan(p[i]) && std::isnan(d[i]);
              continue;
            }
            double q = std::exp(double(x[i])) / z;
            right &= std::abs(p[i] - q) < 1e-6 && std::abs(y[i] - std::log(q)) < 4e-6;
            right &= std::abs(d[i] - 0.5 * (q - (c == labels[size_t(n)]))) < 2e-6;
          }
          right &= std::abs(loss[size_t(n)] - (std::log(z) - double(x[size_t(n * ld + labels[size_t(n)])]))) < 4e-6;
        }
        for (size_t i = size_t(N * ld); i < y.size(); i++) guarded &= std::isnan(y[i]) && std::isnan(d[i]);
        INFO(isa << " C " << C << " extra " << extra);
        CHECK(right);
        CHECK(guarded);
      }
  }
  chosen_isa = before;
}
