// The statistics of batch normalisation where sums of squares would cancel: numbers far from zero, rows that stand apart at the
// beginning, means that drift, against sums in double.
#include <cmath>
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
