// Pointwise kernels: y[...] = f(x0[...], x1[...], x2[...]) over operands that broadcast by NumPy's rule.
#pragma once
#include "kernels/functors.h"
#include "kernels/kernel.h"

namespace dagrt {

struct PointwiseArgs {
  Functor f = Functor::copy_;
  int operands = 1;       // inputs
  double ns = 0;          // cost of an element, beside memory
  int rank = 0;           // of y
  int64_t dims[8] = {};   // of y
  // [0] is y, [1 + i] input i. Strides in elements by y's axes, 0 where the input is broadcast. Any may be y itself
  // (same memory, type and strides).
  void* data[4] = {};
  DType dtype[4] = {};
  int64_t strides[4][8] = {};
};

DAGRT_KERNEL(pointwise, PointwiseArgs)

}  // namespace dagrt
