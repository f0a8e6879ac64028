// One pass of an optimiser over a variable, its slots and its gradient, all flat [n] and of one float dtype.
// Outputs may be the same memory as their inputs (var and var_out, m and m_out, v and v_out), not overlap otherwise.
#pragma once
#include "kernels/kernel.h"

namespace dagrt {

struct UpdateArgs {
  DType dtype = DType::float32;
  int64_t n = 0;
  const void *var = nullptr, *m = nullptr, *v = nullptr, *grad = nullptr;
  void *var_out = nullptr, *m_out = nullptr, *v_out = nullptr;
  float lr = 0;     // adam: with its bias corrections
  float decay = 0;  // weight decay times learning rate: var is scaled by 1 - decay first
  // Doubles, because 1 - beta is taken of them: 1 - 0.999f is 1e-5 off.
  double beta_1 = 0;  // momentum, or adam's first
  double beta_2 = 0;  // rho, or adam's second
  float epsilon = 0;
  bool nesterov = false;
};

DAGRT_KERNEL(sgd_update, UpdateArgs)
DAGRT_KERNEL(momentum_update, UpdateArgs)
DAGRT_KERNEL(adam_update, UpdateArgs)
DAGRT_KERNEL(rmsprop_update, UpdateArgs)

}  // namespace dagrt
