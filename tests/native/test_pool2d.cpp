// Maxima of windows that do not overlap, of channels that registers hold at once, and of more: values and places against a walk over
// each window. Few different numbers, so that equals stand side by side; NaN; windows cut by the border; rows apart; any threads.
// The gradient of windows of 3 x 3 that overlap: images of one row on, odd and even, where rows stand alone or in pairs. Means.
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/pool2d.h"
#include "run_op.h"

using namespace dagrt;

namespace {

void check_maxima(int64_t C, int64_t high, int64_t wide, int64_t pad, int64_t apart, int threads) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const int64_t B = 2, H = 3 * high + 1, W = 4 * wide, P = (H + 2 * pad - high) / high + 1, Q = (W + 2 * pad - wide) / wide + 1;
  const int64_t ldx = C + apart, ldy = C + 2 * apart;
  std::vector<float> x(size_t(B * H * W * ldx), 100.0f), y(size_t(B * P * Q * ldy), nan);
  std::vector<int32_t> places(size_t(B * P * Q * C + 16), -7);
  for (int64_t i = 0; i < B * H * W; i++)
    for (int64_t c = 0; c < C; c++) {
      const int64_t n = (i * 7919 + c * 104729 + i * i) % 23;
      x[size_t(i * ldx + c)] = n == 0 ? nan : float(n % 5) - 2;
    }
  PoolArgs a;
  a.x = x.data(), a.y = y.data(), a.argmax = places.data(), a.ldx = ldx, a.ldy = ldy;
  a.B = B, a.H = H, a.W = W, a.C = C, a.P = P, a.Q = Q;
  a.pool_h = a.stride_h = high, a.pool_w = a.stride_w = wide, a.pad_top = a.pad_left = pad;
  Stream s;
  s.threads = threads;
  max_pool2d(a, s);
  int64_t wrong = 0;
  for (int64_t b = 0; b < B; b++)
    for (int64_t p = 0; p < P; p++)
      for (int64_t q = 0; q < Q; q++)
        for (int64_t c = 0; c < C; c++) {
          float best = nan;
          int64_t at = -1;
          for (int64_t h = p * high - pad; h < p * high - pad + high; h++)
            for (int64_t w = q * wide - pad; w < q * wide - pad + wide; w++) {
              if (h < 0 || h >= H || w < 0 || w >= W) continue;
              const float value = x[size_t(((b * H + h) * W + w) * ldx + c)];
              if (at < 0 || value > best || (std::isnan(value) && !std::isnan(best))) best = value, at = h * W + w;
            }
          const int64_t out = (b * P + p) * Q + q;
          const float got = y[size_t(out * ldy + c)];
          wrong += places[size_t(out * C + c)] != at || (std::isnan(best) ? !std::isnan(got) : got != best);
        }
  for (int64_t out = 0; out < B * P * Q; out++)
    for (int64_t c = C; c < ldy; c++) wrong += !std::isnan(y[size_t(out * ldy + c)]);
  for (int64_t i = 0; i < 16; i++) wrong += places[size_t(B * P * Q * C + i)] != -7;
  CHECK(wrong == 0);

  std::vector<float> alone(y.size(), nan);  // without places
  a.y = alone.data(), a.argmax = nullptr;
  max_pool2d(a, s);
  CHECK(std::memcmp(alone.data(), y.data(), y.size() * 4) == 0);
}

/// Whole numbers go back through windows to places anywhere inside them.
void check_overlapping_grad(int64_t H, int64_t W, int64_t C, int64_t stride, int64_t pad, int64_t apart, int threads) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const int64_t B = 2, P = (H + 2 * pad - 3) / stride + 1, Q = (W + 2 * pad - 3) / stride + 1;
  const int64_t ldx = C + apart, lddx = C + 2 * apart;
  std::vector<float> dy(size_t(B * P * Q * ldx), nan), sent(size_t(B * H * W * C), 0), dx(size_t(B * H * W * lddx + 16), nan);
  std::vector<int32_t> taken(size_t(B * P * Q * C));
  for (int64_t out = 0; out < B * P * Q; out++)
    for (int64_t c = 0; c < C; c++) {
      const int64_t b = out / (P * Q), p = out / Q % P, q = out % Q, n = out * 7919 + c * 104729 + out * c;
      int64_t h = p * stride - pad + n % 3, w = q * stride - pad + n / 3 % 3;
      h = h < 0 ? 0 : h < H ? h : H - 1, w = w < 0 ? 0 : w < W ? w : W - 1;
      const float g = float(n % 37) - 18;
      dy[size_t(out * ldx + c)] = g, taken[size_t(out * C + c)] = int32_t(h * W + w);
      sent[size_t(((b * H + h) * W + w) * C + c)] += g;
    }
  PoolArgs a;
  a.x = dy.data(), a.taken = taken.data(), a.dx = dx.data(), a.ldx = ldx, a.lddx = lddx;
  a.B = B, a.H = H, a.W = W, a.C = C, a.P = P, a.Q = Q;
  a.pool_h = a.pool_w = 3, a.stride_h = a.stride_w = stride, a.pad_top = a.pad_left = pad;
  Stream s;
  s.threads = threads;
  max_pool2d_grad(a, s);
  int64_t wrong = 0;
  for (int64_t i = 0; i < B * H * W; i++) {
    for (int64_t c = 0; c < C; c++) wrong += dx[size_t(i * lddx + c)] != sent[size_t(i * C + c)];
    for (int64_t c = C; c < lddx; c++) wrong += !std::isnan(dx[size_t(i * lddx + c)]);
  }
  for (int64_t i = 0; i < 16; i++) wrong += !std::isnan(dx[size_t(B * H * W * lddx + i)]);
  CHECK(wrong == 0);
}

/// Whole numbers, whose means over 1, 2 or 4 pixels are exact, and their gradient.
void check_means(int64_t H, int64_t W, int64_t C, int64_t pad, int64_t apart, int threads) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const int64_t B = 2, P = (H + 2 * pad - 2) / 2 + 1, Q = (W + 2 * pad - 2) / 2 + 1, ld = C + apart;
  std::vector<float> x(size_t(B * H * W * ld), nan), y(size_t(B * P * Q * ld + 16), nan), dx(size_t(B * H * W * ld + 16), nan);
  std::vector<float> sums(size_t(B * P * Q * C)), sent(size_t(B * H * W * C));
  PoolArgs a;
  a.B = B, a.H = H, a.W = W, a.C = C, a.P = P, a.Q = Q, a.ldx = a.ldy = a.lddx = ld;
  a.pool_h = a.pool_w = a.stride_h = a.stride_w = 2, a.pad_top = a.pad_left = pad;
  for (int64_t i = 0; i < B * H * W; i++)
    for (int64_t c = 0; c < C; c++) x[size_t(i * ld + c)] = float((i * 7919 + c * 104729 + i * i) % 37) - 18;
  for (int64_t out = 0; out < B * P * Q; out++)
    for (int64_t c = 0; c < C; c++) {
      const int64_t b = out / (P * Q), p = out / Q % P, q = out % Q;
      int64_t places[4], n = 0;
      for (int64_t h = 2 * p - pad; h < 2 * p - pad + 2; h++)
        for (int64_t w = 2 * q - pad; w < 2 * q - pad + 2; w++)
          if (h >= 0 && h < H && w >= 0 && w < W) places[n++] = (b * H + h) * W + w;
      float sum = 0;
      for (int64_t k = 0; k < n; k++) sum += x[size_t(places[k] * ld + c)];
      sums[size_t(out * C + c)] = sum / float(n);
      for (int64_t k = 0; k < n; k++) sent[size_t(places[k] * C + c)] = sum / float(n) / float(n);
    }
  Stream s;
  s.threads = threads;
  a.x = x.data(), a.y = y.data();
  avg_pool2d(a, s);
  const std::vector<float> dy = y;
  a.x = dy.data(), a.dx = dx.data();
  avg_pool2d_grad(a, s);
  int64_t wrong = 0;
  for (int64_t i = 0; i < B * P * Q * ld + 16; i++)
    wrong += i < B * P * Q * ld && i % ld < C ? y[size_t(i)] != sums[size_t(i / ld * C + i % ld)] : !std::isnan(y[size_t(i)]);
  for (int64_t i = 0; i < B * H * W * ld + 16; i++)
    wrong += i < B * H * W * ld && i % ld < C ? dx[size_t(i)] != sent[size_t(i / ld * C + i % ld)] : !std::isnan(dx[size_t(i)]);
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("means of windows side by side and their gradient, of a vector of channels and of others") {
  const Isa before = chosen_isa;
  for (const char* isa : testing::isas()) {
    choose_isa(isa);
    CAPTURE(isa);
    for (int64_t C : {1, 4, 8, 16, 17, 32, 47})
      for (int64_t pad : {0, 1})
        for (int64_t H : {2, 3, 4, 5, 8})
          for (int64_t W : {2, 3, 4, 7, 10}) {
            CAPTURE(C);
            CAPTURE(pad);
            CAPTURE(H);
            CAPTURE(W);
            check_means(H, W, C, pad, H % 2 ? 5 : 0, int(1 + W % 3));
          }
  }
  chosen_isa = before;
}

TEST_CASE("the gradient of overlapping windows, whose rows stand alone or in pairs") {
  const Isa before = chosen_isa;
  for (const char* isa : testing::isas()) {
    choose_isa(isa);
    CAPTURE(isa);
    for (int64_t C : {1, 16, 47, 64, 1100})
      for (int64_t stride : {1, 2})
        for (int64_t pad : {0, 1, 2})
          for (int64_t H : {1, 2, 3, 4, 5, 6, 7, 8, 11})
            for (int64_t W : {1, 3, 4, 6, 9}) {
              if (H + 2 * pad < 3 || W + 2 * pad < 3) continue;
              CAPTURE(C);
              CAPTURE(stride);
              CAPTURE(pad);
              CAPTURE(H);
              CAPTURE(W);
              check_overlapping_grad(H, W, C, stride, pad, H % 2 ? 3 : 0, int(1 + H % 3));
            }
  }
  chosen_isa = before;
}

TEST_CASE("maxima of windows side by side, of few and of many channels") {
  const Isa before = chosen_isa;
  for (const char* isa : testing::isas()) {
    choose_isa(isa);
    CAPTURE(isa);
    for (int64_t C : {1, 16, 47, 64, 127, 128, 145, 256, 300})
      for (int64_t high : {1, 2, 3, 4})
        for (int64_t wide : {1, 2, 3, 4})
          for (int64_t pad : {0, 1}) {
            if (pad >= high || pad >= wide) continue;
            CAPTURE(C);
            CAPTURE(high);
            CAPTURE(wide);
            CAPTURE(pad);
            check_maxima(C, high, wide, pad, pad ? 5 : 0, pad ? 3 : 1);
          }
  }
  chosen_isa = before;
}
