// Softmax over rows, and its cross-entropy with labels.
#pragma once
#include "kernels/kernel.h"

namespace dagrt {

/// y[n, c] = e^(x[n, c] - m) / s, m = max, s = sum of e^(x - m); or its logarithm.
struct SoftmaxArgs {
  bool logarithm = false;
  DType dtype = DType::float32;  // of x and y: a float
  const void* x = nullptr;       // [N, C], rows ldx apart
  void* y = nullptr;             // [N, C], rows ldy apart; may be x
  int64_t N = 0, C = 0, ldx = 0, ldy = 0;
  // scratch for each worker: C floats where dtype is not float32
};
DAGRT_KERNEL(softmax, SoftmaxArgs)

/// loss[n] = log_z[n] - x[n, labels[n]], or sum over c of labels[n, c] (log_z[n] - x[n, c]); log_z = log of sum of e^x.
struct CrossEntropyArgs {
  const float* x = nullptr;      // [N, C], rows ldx apart
  const void* labels = nullptr;  // [N] integers in 0..C-1, or float32 [N, C], rows ldl apart
  DType label_dtype = DType::int32;
  float* loss = nullptr;   // [N]
  float* log_z = nullptr;  // [N], or null
  int64_t N = 0, C = 0, ldx = 0, ldl = 0;
};
DAGRT_KERNEL(softmax_cross_entropy, CrossEntropyArgs)

/// dx[n, c] = g[n] (total[n] e^(x[n, c] - log_z[n]) - label[n, c]); total: sum of the row's labels, 1 for integers.
struct CrossEntropyGradArgs {
  const float* x = nullptr;      // [N, C], rows ldx apart
  const void* labels = nullptr;  // as above; an integer outside 0..C-1 is no class
  DType label_dtype = DType::int32;
  const float* log_z = nullptr;  // [N]
  const float* g = nullptr;      // [N]
  float* dx = nullptr;           // [N, C], rows ldd apart; may be x
  int64_t N = 0, C = 0, ldx = 0, ldl = 0, ldd = 0;
};
DAGRT_KERNEL(softmax_cross_entropy_grad, CrossEntropyGradArgs)

}  // namespace dagrt
