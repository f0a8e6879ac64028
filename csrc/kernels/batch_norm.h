// Batch normalisation by the batch's own statistics, float32; rows are all axes but the channels.
#pragma once
#include "kernels/epilogue.h"
#include "kernels/kernel.h"

namespace dagrt {

struct BatchNormArgs {
  const float* x = nullptr;      // [rows, C], ldx apart
  const float* gamma = nullptr;  // [C]; null: 1
  const float* beta = nullptr;   // [C]; null: 0
  float* y = nullptr;            // [rows, C], ldy apart
  float* mean = nullptr;         // [C]; the gradient reads mean and rstd
  float* variance = nullptr;     // [C], biased
  float* rstd = nullptr;         // [C], 1 / sqrt(variance + epsilon); null: not wanted
  const float* dy = nullptr;     // [rows, C], lddy apart
  float* dx = nullptr;           // [rows, C]; null: not wanted
  float* dgamma = nullptr;       // [C]; null: not wanted
  float* dbeta = nullptr;        // [C]; null: not wanted
  int64_t rows = 0, C = 0, ldx = 0, ldy = 0, lddy = 0, lddx = 0;
  float epsilon = 0;
  Epilogue epilogue;           // of y
  float* workspace = nullptr;  // batch_norm_workspace floats
};

DAGRT_KERNEL(batch_norm, BatchNormArgs)
DAGRT_KERNEL(batch_norm_grad, BatchNormArgs)

/// Rows are cut into so many parts, whose statistics are joined in order: enough for many threads, each of some work.
inline int64_t batch_norm_parts(int64_t rows, int64_t C) {
  int64_t parts = 1;
  while (parts < 32 && rows / (parts * 2) >= 128 && rows / (parts * 2) * C >= 16384) parts *= 2;
  return parts;
}

/// Two sums for each part, and three factors.
inline int64_t batch_norm_workspace(int64_t rows, int64_t C) { return (2 * batch_norm_parts(rows, C) + 3) * C; }
/// And so many, at most, on CUDA devices; their workspace in floats.
inline int64_t batch_norm_device_parts(int64_t rows) {
  int64_t parts = rows / 256;
  return parts < 1 ? 1 : parts > 1024 ? 1024 : parts;
}
inline int64_t batch_norm_device_workspace(int64_t rows, int64_t C) {
  return (2 * batch_norm_device_parts(rows) + 3) * C + 2 * ((C + 31) / 32);
}

}  // namespace dagrt
