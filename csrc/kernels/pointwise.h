// Pointwise kernels: y[...] = f(x0[...], x1[...], x2[...]) over operands that broadcast by NumPy's rule.
#pragma once
#include "kernels/functors.h"
#include "kernels/kernel.h"

namespace dagrt {

struct PointwiseArgs {
  Functor f = Functor::copy_;
  int operands = 1;      // inputs
  double ns = 0;         // cost of an element, beside memory
  int rank = 0;          // of y
  int64_t dims[8] = {};  // of y
  // [0] is y, [1 + i] input i. Strides in elements by y's axes, 0 where the input is broadcast. Any may be y itself
  // (same memory, type and strides).
  void* data[4] = {};
  DType dtype[4] = {};
  int64_t strides[4][8] = {};
};

DAGRT_KERNEL(pointwise, PointwiseArgs)

// A fused chain: instructions over float32 and bool values of y's shape, run one after another on each strip, so that
// everything between the inputs and y stays in L1. The same strip functions run as for the ops alone: the same bits.
inline constexpr int fused_inputs = 8, fused_instructions = 16, fused_constants = 16;

struct FusedInstruction {
  Functor f;
  DType operand, result;  // operand: of the first operand (select: of the chosen ones)
  int operands;
  int arg[3];  // < inputs: an input; then results of earlier instructions; -1 - k: constant k
};

struct FusedArgs {
  int operands = 0;  // inputs
  int count = 0;     // instructions; the last one's result is y
  FusedInstruction code[fused_instructions] = {};
  float constants[fused_constants] = {};
  double ns = 0;  // of an element, all instructions together
  int rank = 0;   // of y; what follows is as above
  int64_t dims[8] = {};
  void* data[1 + fused_inputs] = {};
  DType dtype[1 + fused_inputs] = {};
  int64_t strides[1 + fused_inputs][8] = {};
};

DAGRT_KERNEL(fused_pointwise, FusedArgs)

}  // namespace dagrt
