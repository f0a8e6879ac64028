// Batch normalisation.
//   mean = sum x / n; variance = sum (x - mean)² / n (two passes: no cancellation); rstd = 1 / sqrt(variance + epsilon)
//   y = (x - mean) rstd gamma + beta
//   dbeta = sum dy; dgamma = sum dy (x - mean) rstd
//   dx = gamma rstd (dy - dbeta / n - (x - mean) rstd dgamma / n)
// Sums run over rows in a few parts, a function of their number alone, each within a part in blocks, so that rounding
// errors stay small over millions of rows.
#include "kernels/batch_norm.h"

#include "kernels/cpu/vec.h"

namespace dagrt::DAGRT_ISA {
namespace {

/// out[part][c] (and out2) = sums over the part's rows of f(row, c, n) -> pair.
template <bool two, class F> void sum_rows(const Stream& s, int64_t rows, int64_t C, float* out, float* out2, const F& f) {
  const int64_t parts = batch_norm_parts(rows), strips = (C + 4 * V - 1) / (4 * V);
  s.parallel(parts * strips, double(rows) / double(parts) * 3 + 30, [&](int64_t unit, char*) {
    int64_t part = unit / strips, c0 = unit % strips * 4 * V, c1 = c0 + 4 * V < C ? c0 + 4 * V : C;
    int64_t from = rows * part / parts, to = rows * (part + 1) / parts;
    vf total[4] = {}, total2[4] = {};
    for (int64_t block = from; block < to; block += 64) {
      int64_t end = block + 64 < to ? block + 64 : to;
      vf t[4] = {}, t2[4] = {};
      for (int64_t m = block; m < end; m++)
        for (int k = 0; k < 4; k++) {
          int64_t c = c0 + k * V;
          if (c >= c1) break;
          f(m, c, int(c1 - c < V ? c1 - c : V), t[k], t2[k]);
        }
      for (int k = 0; k < 4; k++) total[k] += t[k], total2[k] += t2[k];
    }
    for (int k = 0; k < 4; k++) {
      int64_t c = c0 + k * V;
      if (c >= c1) break;
      int n = int(c1 - c < V ? c1 - c : V);
      store_n(out + part * C + c, total[k], n);
      if (two) store_n(out2 + part * C + c, total2[k], n);
    }
  });
}

float added(const float* parts, int64_t count, int64_t C, int64_t c) {
  float t = parts[c];
  for (int64_t p = 1; p < count; p++) t += parts[p * C + c];
  return t;
}

}  // namespace

void batch_norm(const BatchNormArgs& a, const Stream& s) {
  const int64_t parts = batch_norm_parts(a.rows);
  const float n = float(a.rows);
  float* sums = a.workspace;
  sum_rows<false>(s, a.rows, a.C, sums, nullptr,
                  [&](int64_t m, int64_t c, int k, vf& t, vf&) { t += load_n(a.x + m * a.ldx + c, k); });
  for (int64_t c = 0; c < a.C; c++) a.mean[c] = added(sums, parts, a.C, c) / n;
  sum_rows<false>(s, a.rows, a.C, sums, nullptr, [&](int64_t m, int64_t c, int k, vf& t, vf&) {
    vf d = load_n(a.x + m * a.ldx + c, k) - load_n(a.mean + c, k);
    t += d * d;
  });
  for (int64_t c = 0; c < a.C; c++) {
    a.variance[c] = added(sums, parts, a.C, c) / n;
    a.rstd[c] = 1.0f / __builtin_sqrtf(a.variance[c] + a.epsilon);
  }
  s.parallel((a.rows + 31) / 32, double(a.C) * 4 + 20, [&](int64_t unit, char*) {
    int64_t end = unit * 32 + 32 < a.rows ? unit * 32 + 32 : a.rows;
    for (int64_t m = unit * 32; m < end; m++)
      for (int64_t c = 0; c < a.C; c += V) {
        int k = int(a.C - c < V ? a.C - c : V);
        vf scale = load_n(a.rstd + c, k);
        if (a.gamma) scale *= load_n(a.gamma + c, k);
        vf y = (load_n(a.x + m * a.ldx + c, k) - load_n(a.mean + c, k)) * scale;
        if (a.beta) y += load_n(a.beta + c, k);
        store_n(a.y + m * a.ldy + c, y, k);
      }
  });
}

void batch_norm_grad(const BatchNormArgs& a, const Stream& s) {
  const int64_t parts = batch_norm_parts(a.rows);
  float *first = a.workspace, *second = a.workspace + parts * a.C;
  sum_rows<true>(s, a.rows, a.C, first, second, [&](int64_t m, int64_t c, int k, vf& t, vf& t2) {
    vf dy = load_n(a.dy + m * a.lddy + c, k);
    t += dy;
    t2 += dy * ((load_n(a.x + m * a.ldx + c, k) - load_n(a.mean + c, k)) * load_n(a.rstd + c, k));
  });
  for (int64_t c = 0; c < a.C; c++) {  // the first part becomes the sum
    float b = added(first, parts, a.C, c), g = added(second, parts, a.C, c);
    first[c] = b;
    second[c] = g;
    if (a.dbeta) a.dbeta[c] = b;
    if (a.dgamma) a.dgamma[c] = g;
  }
  if (!a.dx || !a.rows) return;
  const vf share = splat(1.0f / float(a.rows));
  s.parallel((a.rows + 31) / 32, double(a.C) * 6 + 20, [&](int64_t unit, char*) {
    int64_t end = unit * 32 + 32 < a.rows ? unit * 32 + 32 : a.rows;
    for (int64_t m = unit * 32; m < end; m++)
      for (int64_t c = 0; c < a.C; c += V) {
        int k = int(a.C - c < V ? a.C - c : V);
        vf rstd = load_n(a.rstd + c, k), scale = rstd;
        if (a.gamma) scale *= load_n(a.gamma + c, k);
        vf normal = (load_n(a.x + m * a.ldx + c, k) - load_n(a.mean + c, k)) * rstd;
        vf dx = load_n(a.dy + m * a.lddy + c, k) - (load_n(first + c, k) + normal * load_n(second + c, k)) * share;
        store_n(a.dx + m * a.lddx + c, dx * scale, k);
      }
  });
}

}  // namespace dagrt::DAGRT_ISA
