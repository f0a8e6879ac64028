#include "ops/estimate.h"

#include <algorithm>

#include "kernels/conv2d.h"
#include "kernels/matmul.h"
#include "kernels/matmul_bf16_packed.h"
#include "kernels/winograd.h"

namespace dagrt {
namespace {

constexpr double overhead_ns = 500;
constexpr double few_sum_ns = 2;  // of adding up the lanes of one sum, where vectors run over channels

int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
double lanes() { return chosen_isa == Isa::avx512 ? 16 : chosen_isa == Isa::avx2 ? 8 : 4; }

/// Weights come from memory in every run where they do not fit in cache, and the products wait for them.
double memory_ns(double bytes) {
  constexpr double cache = 8 << 20, cache_ns = 0.03, beyond_ns = 0.08;  // for each byte
  return std::min(bytes, cache) * cache_ns + std::max(bytes - cache, 0.0) * beyond_ns;
}

/// What products of bfloat16 take, in multiples of float32's. By vdpbf16ps AMD's Zen 4 and 5 do them at twice the rate, Intel's
/// Sapphire and Emerald Rapids at half of it. Else a shift and a mask make floats of a word: of AVX-512's two ports both are the
/// multiply-adds' too, AVX2 has others left (measured on Zen 3: 1.0 to 1.05).
double bf16_products() {
#if defined(__x86_64__)
  if (chosen_bf16_dot) return __builtin_cpu_is("amd") ? 0.5 : 2;
#endif
  return chosen_isa == Isa::avx512 ? 1.25 : chosen_isa == Isa::avx2 ? 1.05 : 1.15;
}

WinogradArgs arguments(const ConvSizes& s, int64_t tile) {
  WinogradArgs a;
  a.B = s.B, a.H = s.H, a.W = s.W, a.C = s.C, a.P = s.P, a.Q = s.Q, a.F = s.F;
  a.ldx = s.C, a.ldy = s.F;
  a.tile = int(tile), a.window = int(s.R);
  return a;
}

}  // namespace

double direct_conv2d_ns(const ConvSizes& s, bool filter_gradient) {
  const bool slides = filter_gradient && conv_grad_slides(s.groups, s.F, s.S, s.C, int64_t(lanes()));  // if strides are 1
  const bool few = slides || (filter_gradient ? conv_grad_few(s.F / s.groups, s.S * s.C / s.groups)
                                              : conv_few(s.groups, s.F, s.S, s.C, int64_t(lanes())));
  const double filters = few ? double(s.F) : double(up(s.F / s.groups, int64_t(lanes()))) * double(s.groups);
  const double weights = double(s.R * s.S) * double(s.C / s.groups) * double(s.F);
  const double products = double(s.B * s.P * s.Q) * double(s.R * s.S) * double(s.C / s.groups) * filters;
  const double sums = few && !filter_gradient ? double(s.B * s.P * s.Q * s.F) * few_sum_ns : 0;
  const double multiplies = few && filter_gradient && !slides ? 2 * products : products;  // one load each
  return std::max(multiplies * multiply_ns() / lanes() + sums, memory_ns(4 * weights)) + overhead_ns;
}

bool has_winograd(int64_t window_h, int64_t window_w, int64_t tile) { return winograd_applies(window_h, window_w, tile); }

double winograd_conv2d_ns(const ConvSizes& s, int64_t tile, bool weights) {
  const double floats = double(winograd_weights_size(s.C, s.F, s.R, tile));
  double ns = std::max(conv2d_winograd_ns(arguments(s, tile)), memory_ns(4 * floats));
  return weights ? ns + winograd_weights_ns(s.C, s.F, s.R, tile) + memory_ns(4 * floats) : ns;
}

double winograd_filter_grad_ns(const ConvSizes& s, int64_t tile) { return conv2d_filter_grad_winograd_ns(arguments(s, tile)); }

// Products of few rows wait for the weights, which come once; of more, the next panel is fetched meanwhile (float32's alone).
double packed_matmul_ns(int64_t M, int64_t N, int64_t K) {
  const double weights = double(K) * double(N);
  const double products = double(M) * weights * multiply_ns() / lanes(), memory = memory_ns(4 * weights);
  return M <= matmul_few_rows ? products + memory : std::max(products, memory);
}

double bf16_matmul_ns(int64_t M, int64_t N, int64_t K) {
  constexpr double pair_ns = 0.1;
  const double weights = double(K) * double(N), products = double(M) * double(K) * double(up(N, 2 * int64_t(lanes())));
  const double pairs = chosen_bf16_dot ? double(M * K) * double(up(N, matmul_bf16_cell_columns) / matmul_bf16_cell_columns) : 0;
  return products * multiply_ns() / lanes() * bf16_products() + pairs / 2 * pair_ns + memory_ns(2 * weights);
}
}  // namespace dagrt
