// What this machine can do at most, measured: the limits that a profile compares with.
#pragma once
#include "kernels/kernel.h"

namespace dagrt {

struct RooflineArgs {
  // Floating point: every unit runs `rounds` rounds of independent multiply-adds; flops of one unit's round in `flops`.
  int64_t units = 0, rounds = 0;
  double* flops = nullptr;
  // Memory: with `bytes` > 0, copies that many from `from` to `to` instead.
  const float* from = nullptr;
  float* to = nullptr;
  int64_t bytes = 0;
  float* sink = nullptr;  // [units * 16]: results, so that nothing is optimised away
};

DAGRT_CPU_KERNEL(roofline, RooflineArgs)

}  // namespace dagrt
