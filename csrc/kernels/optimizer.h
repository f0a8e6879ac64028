// One pass of an optimiser over variables, their slots and their gradients, all flat and of one float dtype.
// Outputs may be the same memory as their inputs (var and var_out, m and m_out, v and v_out), not overlap otherwise.
#pragma once
#include "kernels/kernel.h"

namespace dagrt {

struct UpdateItem {
  int64_t n = 0;      // elements
  int64_t first = 0;  // the item's first unit of work; set by count_units
  const void *var = nullptr, *m = nullptr, *v = nullptr, *grad = nullptr;
  void *var_out = nullptr, *m_out = nullptr, *v_out = nullptr;
};

struct UpdateArgs {
  DType dtype = DType::float32;
  const UpdateItem* items = nullptr;
  int64_t count = 0, units = 0;
  float lr = 0;     // adam: with its bias corrections
  float decay = 0;  // weight decay times learning rate: var is scaled by 1 - decay first
  // Doubles, because 1 - beta is taken of them: 1 - 0.999f is 1e-5 off.
  double beta_1 = 0;  // momentum, or adam's first
  double beta_2 = 0;  // rho, or adam's second
  float epsilon = 0;
  bool nesterov = false;
  // On CUDA devices the host cannot read lr and step: the kernel does, and makes of them what `lr` and `decay` are above.
  const float* lr_at = nullptr;
  const int32_t* step_at = nullptr;  // adam
  double weight_decay = 0;
};

DAGRT_KERNEL(sgd_update, UpdateArgs)
DAGRT_KERNEL(momentum_update, UpdateArgs)
DAGRT_KERNEL(adam_update, UpdateArgs)
DAGRT_KERNEL(rmsprop_update, UpdateArgs)

inline constexpr int64_t update_piece = 4096;  // elements of a unit of work

/// Numbers the items' units; returns their count.
inline int64_t count_units(UpdateItem* items, int64_t count) {
  int64_t units = 0;
  for (int64_t i = 0; i < count; i++) {
    items[i].first = units;
    units += (items[i].n + update_piece - 1) / update_piece;
  }
  return units;
}

}  // namespace dagrt
