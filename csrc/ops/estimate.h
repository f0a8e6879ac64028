// What an algorithm takes, in nanoseconds of one core of the instruction set in use: by which passes choose between those
// that compute the same. Only ratios matter. Thread counts are not seen: the same model has the same bits on any machine's
// number of cores.
#pragma once
#include <cstdint>

namespace dagrt {

struct ConvSizes {  // y[B,P,Q,F] from x[B,H,W,C], w[R,S,C/groups,F]
  int64_t B = 0, H = 0, W = 0, C = 0, P = 0, Q = 0, F = 0, R = 0, S = 0, groups = 1;
};

/// The direct sum: forward, input gradient or filter gradient, with the same products; few filters are the last's own affair.
double direct_conv2d_ns(const ConvSizes& s, bool filter_gradient = false);

/// Minimal filtering: whether there is such a transform, and what it takes. `weights`: with their transform in every run.
bool has_winograd(int64_t window_h, int64_t window_w, int64_t tile);
double winograd_conv2d_ns(const ConvSizes& s, int64_t tile, bool weights);
double winograd_filter_grad_ns(const ConvSizes& s, int64_t tile);

/// A product with packed weights of float32, or of bfloat16.
double packed_matmul_ns(int64_t M, int64_t N, int64_t K);
double bf16_matmul_ns(int64_t M, int64_t N, int64_t K);

}  // namespace dagrt
