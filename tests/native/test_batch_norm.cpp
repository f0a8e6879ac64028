// The statistics of batch normalisation where sums of squares would cancel: numbers far from zero, rows that stand apart at the
// beginning, means that drift, against sums in double; and its sums by each of the ways in which rows are read.
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/batch_norm.h"
#include "run_op.h"

using namespace dagrt;

TEST_CASE("variances do not cancel") {
  const int64_t C = 19;
  for (int64_t rows : {1, 3, 17, 255, 1000, 40000})
    for (int kind = 0; kind < 4; kind++) {
      std::vector<float> x(size_t(rows * C)), y(x), out(size_t(2 * C)), workspace(size_t(batch_norm_workspace(rows, C)));
      for (int64_t m = 0; m < rows; m++)
        for (int64_t c = 0; c < C; c++) {
          const float noise = float((m * 7919 + c * 104729) % 1009) / 1009 - 0.5f;
          x[size_t(m * C + c)] = kind == 0   ? 5000 + noise
                                 : kind == 1 ? (m < 20 ? 0 : 300 + noise)
                                 : kind == 2 ? float(m) / 100 + noise
                                             : 1234.567f;  // all the same
        }
      BatchNormArgs a;
      a.x = x.data(), a.y = y.data(), a.rows = rows, a.C = a.ldx = a.ldy = C, a.epsilon = 1e-3f;
      a.mean = out.data(), a.variance = a.mean + C, a.workspace = workspace.data();
      batch_norm(a, Stream{});
      double worst_mean = 0, worst_variance = 0;
      for (int64_t c = 0; c < C; c++) {
        double sum = 0, squares = 0;
        for (int64_t m = 0; m < rows; m++) sum += double(x[size_t(m * C + c)]);
        const double mean = sum / double(rows);
        for (int64_t m = 0; m < rows; m++) squares += std::pow(double(x[size_t(m * C + c)]) - mean, 2);
        worst_mean = std::max(worst_mean, std::fabs(double(a.mean[c]) - mean) / std::fabs(mean));
        // A mean is rounded to float32, and so is what its error adds to the variance.
        const double error = std::fabs(double(a.variance[c]) - squares / double(rows));
        worst_variance = std::max(worst_variance, error / (squares / double(rows) + std::pow(mean * 6e-8, 2) * 4 + 1e-30));
      }
      CAPTURE(rows);
      CAPTURE(kind);
      CHECK(worst_mean < 1e-6);
      CHECK(worst_variance < (kind == 3 ? 2 : 2e-5));
    }
}

// Channels that registers hold, with and without a rest, some more, many and more than are summed at once; rows with nothing
// between them and with NaN, which nobody may read; as few as one; by one thread and by three.
TEST_CASE("sums of few and of many channels, of rows apart, by any threads") {
  const Isa before = chosen_isa;
  for (const char* isa : testing::isas()) {
    choose_isa(isa);
    CAPTURE(isa);
    for (int64_t C : {1, 7, 16, 31, 48, 64, 77, 96, 112, 127, 128, 129, 300, 1536, 1537, 2100})
      for (int64_t rows : {1, 9, 39, 300}) {
        CAPTURE(C);
        CAPTURE(rows);
        std::vector<float> first;  // of the results
        for (int64_t apart : {0, 5})
          for (int threads : {1, 3}) {
            const int64_t ld = C + apart;
            const float nan = std::numeric_limits<float>::quiet_NaN();
            std::vector<float> x(size_t(rows * ld), nan), dy(x), y(size_t(rows * C)), sums(size_t(5 * C));
            std::vector<float> workspace(size_t(batch_norm_workspace(rows, C)));
            std::vector<double> mean(size_t(C), 0.0), variance(mean), beta(mean), gamma(mean);
            for (int64_t m = 0; m < rows; m++)
              for (int64_t c = 0; c < C; c++) {
                x[size_t(m * ld + c)] = float((m * 7919 + c * 104729) % 1009) / 1009 + float(c % 5);
                dy[size_t(m * ld + c)] = float((m * 31 + c * 977) % 503) / 503 - 0.4f;
                mean[size_t(c)] += double(x[size_t(m * ld + c)]) / double(rows);
              }
            BatchNormArgs a;
            a.x = x.data(), a.y = y.data(), a.rows = rows, a.C = a.ldy = C, a.ldx = a.lddy = ld, a.epsilon = 1e-3f;
            a.mean = sums.data(), a.variance = a.mean + C, a.rstd = a.variance + C, a.workspace = workspace.data();
            a.dgamma = a.rstd + C, a.dbeta = a.dgamma + C, a.dy = dy.data();
            Stream s;
            s.threads = threads;
            batch_norm(a, s);
            batch_norm_grad(a, s);
            double worst = 0;
            for (int64_t c = 0; c < C; c++) {
              for (int64_t m = 0; m < rows; m++) {
                const double off = double(x[size_t(m * ld + c)]) - mean[size_t(c)], grad = double(dy[size_t(m * ld + c)]);
                variance[size_t(c)] += off * off / double(rows), beta[size_t(c)] += grad, gamma[size_t(c)] += grad * off;
              }
              const double rstd = 1 / std::sqrt(variance[size_t(c)] + 1e-3), n = double(rows);
              worst = std::max(worst, std::fabs(double(a.mean[c]) - mean[size_t(c)]) / 5);
              worst = std::max(worst, std::fabs(double(a.variance[c]) - variance[size_t(c)]));
              worst = std::max(worst, std::fabs(double(a.dbeta[c]) - beta[size_t(c)]) / n);
              // What rounding of the mean adds to a product is multiplied by rstd, up to 32.
              worst = std::max(worst, std::fabs(double(a.dgamma[c]) - gamma[size_t(c)] * rstd) / (n * rstd));
            }
            CHECK(worst < 2e-6);
            if (first.empty())
              first = sums;
            else
              CHECK(std::memcmp(first.data(), sums.data(), sums.size() * 4) == 0);
          }
      }
  }
  chosen_isa = before;
}
