// Batch normalisation by the batch's own statistics, float32; rows are all axes but the channels.
#pragma once
#include "kernels/kernel.h"

namespace dagrt {

struct BatchNormArgs {
  const float* x = nullptr;      // [rows, C], ldx apart
  const float* gamma = nullptr;  // [C]; null: 1
  const float* beta = nullptr;   // [C]; null: 0
  float* y = nullptr;            // [rows, C], ldy apart
  float* mean = nullptr;         // [C]; the gradient reads mean and rstd
  float* variance = nullptr;     // [C], biased
  float* rstd = nullptr;         // [C], 1 / sqrt(variance + epsilon)
  const float* dy = nullptr;     // [rows, C], lddy apart
  float* dx = nullptr;           // [rows, C]; null: not wanted
  float* dgamma = nullptr;       // [C]
  float* dbeta = nullptr;        // [C]
  int64_t rows = 0, C = 0, ldx = 0, ldy = 0, lddy = 0, lddx = 0;
  float epsilon = 0;
  float* workspace = nullptr;  // 2 * batch_norm_parts(rows) * C floats
};

DAGRT_KERNEL(batch_norm, BatchNormArgs)
DAGRT_KERNEL(batch_norm_grad, BatchNormArgs)

/// Sums over rows are cut into so many parts, added in order.
inline int64_t batch_norm_parts(int64_t rows) {
  int64_t parts = 1;
  while (parts < 8 && rows / (parts * 2) >= 256) parts *= 2;
  return parts;
}

}  // namespace dagrt
