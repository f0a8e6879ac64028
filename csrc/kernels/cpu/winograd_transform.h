// The transforms of F(M x M, R x R), one axis at a time, on vectors of channels or filters.
//
// Toom and Cook's scheme at n = M + R - 1 points 0, +-p for the pairs p, and infinity:
//   Y = A'[(G g G') . (B' d B)]A,  A'[k, i] = p_i^k,  G[i, r] = p_i^r / N_i,  N_i = prod_{j != i} (p_i - p_j),
//   B' row i: the coefficients of prod_{j != i} (x - p_j); infinity: those of the product over all finite points.
// An odd n does without infinity. A pair shares its even and odd powers, so that each needs half of the multiplications.
// Points of F(4,4): of 12 channels 1.4e-6 of the largest output, 2.7e-6 with 1/2, 1 and 2. Points of F(4,3): 3/4 and 3/2 are exact in binary and keep the rounding errors at a third of those of the usual 1 and 2
// (5e-7 against 2e-6 of the largest output at 64 channels).
#pragma once
#include "kernels/cpu/vec.h"

namespace dagrt::DAGRT_ISA {

template <int M, int R> struct WinogradPoints;
template <> struct WinogradPoints<2, 3> {
  static constexpr int pairs = 1;
  static constexpr double p[pairs] = {1};
};
template <> struct WinogradPoints<4, 3> {
  static constexpr int pairs = 2;
  static constexpr double p[pairs] = {0.75, 1.5};
};
template <> struct WinogradPoints<3, 3> : WinogradPoints<4, 3> {};
template <> struct WinogradPoints<4, 4> {
  static constexpr int pairs = 3;
  static constexpr double p[pairs] = {0.5, 1.25, 3};
};
template <> struct WinogradPoints<4, 5> {
  static constexpr int pairs = 3;
  static constexpr double p[pairs] = {0.5, 1, 2};
};

template <int M, int R> struct WinogradTransform {
  static constexpr int n = M + R - 1, pairs = WinogradPoints<M, R>::pairs;
  static constexpr bool infinite = n % 2 == 0;
  static_assert(n == 2 * pairs + 1 + infinite, "points: 0, pairs, infinity");

  struct Tables {
    float p[pairs] = {}, power[pairs][8] = {};  // p^k
    float poly[pairs][pairs] = {};              // coefficient of x^2k in prod_{j != i} (x² - p_j²)
    float all[pairs + 1] = {};                  // the same over all pairs
    float scale[pairs + 1] = {};                // 1 / N: of pair i, at last of 0
  };
  static constexpr Tables make() {
    Tables t;
    for (int skip = 0; skip <= pairs; skip++) {
      double c[pairs + 1] = {1};
      int degree = 0;
      for (int j = 0; j < pairs; j++) {
        if (j == skip) continue;
        double q = WinogradPoints<M, R>::p[j] * WinogradPoints<M, R>::p[j];
        degree++;
        for (int k = degree; k >= 0; k--) c[k] = (k ? c[k - 1] : 0) - q * c[k];
      }
      if (skip == pairs) {
        for (int k = 0; k <= pairs; k++) t.all[k] = float(c[k]);
        t.scale[pairs] = float(1 / c[0]);
      } else {
        const double p = WinogradPoints<M, R>::p[skip];
        double power = 1, value = 0, square = 1;
        for (int k = 0; k < 8; k++, power *= p) t.power[skip][k] = float(power);
        for (int k = 0; k < pairs; k++, square *= p * p) t.poly[skip][k] = float(c[k]), value += c[k] * square;
        t.p[skip] = float(p);
        t.scale[skip] = float(1 / (2 * p * p * value));
      }
    }
    return t;
  }
  static constexpr Tables table = make();

  /// v = B' d.
  static DAGRT_INLINE void input(const vf (&d)[n], vf (&v)[n]) {
    vf zero = d[2 * pairs];
#pragma GCC unroll 8
    for (int k = 0; k < pairs; k++) zero += table.all[k] * d[2 * k];
    v[0] = zero;
    if constexpr (infinite) {
      vf infinity = d[n - 1];
#pragma GCC unroll 8
      for (int k = 0; k < pairs; k++) infinity += table.all[k] * d[2 * k + 1];
      v[n - 1] = infinity;
    }
#pragma GCC unroll 8
    for (int i = 0; i < pairs; i++) {
      vf even = d[2 * pairs], odd = d[2 * pairs - 1];
#pragma GCC unroll 8
      for (int k = 0; k < pairs - 1; k++) {
        even += table.poly[i][k] * d[2 * k + 2];
        odd += table.poly[i][k] * d[2 * k + 1];
      }
      v[1 + 2 * i] = even + table.p[i] * odd;
      v[2 + 2 * i] = even - table.p[i] * odd;
    }
  }

  /// v = A d, of K = M values; scaled: G d, of K = R.
  template <int K, bool scaled> static DAGRT_INLINE void evaluate(const vf (&d)[K], vf (&v)[n]) {
    v[0] = scaled ? table.scale[pairs] * d[0] : d[0];
    if (infinite) v[n - 1] = d[K - 1];
#pragma GCC unroll 8
    for (int i = 0; i < pairs; i++) {
      const float s = scaled ? table.scale[i] : 1.0f;
      vf even = s * d[0], odd = s * table.p[i] * d[1];
#pragma GCC unroll 8
      for (int k = 2; k < K; k++)
        if (k % 2)
          odd += s * table.power[i][k] * d[k];
        else
          even += s * table.power[i][k] * d[k];
      v[1 + 2 * i] = even + odd;
      v[2 + 2 * i] = even - odd;
    }
  }

  /// y = A' m, of K = M values; scaled: G' m, of K = R.
  template <int K, bool scaled> static DAGRT_INLINE void interpolate(const vf (&m)[n], vf (&y)[K]) {
    vf sum[pairs], difference[pairs];
#pragma GCC unroll 8
    for (int i = 0; i < pairs; i++) {
      sum[i] = m[1 + 2 * i] + m[2 + 2 * i];
      difference[i] = m[1 + 2 * i] - m[2 + 2 * i];
    }
#pragma GCC unroll 8
    for (int k = 0; k < K; k++) {
      vf t = (scaled ? table.scale[0] : 1.0f) * table.power[0][k] * (k % 2 ? difference[0] : sum[0]);
#pragma GCC unroll 8
      for (int i = 1; i < pairs; i++)
        t += (scaled ? table.scale[i] : 1.0f) * table.power[i][k] * (k % 2 ? difference[i] : sum[i]);
      if (k == 0) t += scaled ? table.scale[pairs] * m[0] : m[0];
      if (infinite && k == K - 1) t += m[n - 1];
      y[k] = t;
    }
  }
};

}  // namespace dagrt::DAGRT_ISA
