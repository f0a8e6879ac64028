// What a producer of rows (matmul, convolution) does to each finished tile, while it is in registers or L1, before the
// values are stored: a chain of pointwise functors whose first operand is the product.
//
// In the IR a producer carries it as attributes `epilogue` (instructions as in the op `pointwise`: operand 0 is the
// product, 1.. are the inputs behind the producer's own) and `epilogue_constants`.
#pragma once
#include "kernels/pointwise.h"

namespace dagrt {

inline constexpr int epilogue_operands = 7;

struct Epilogue {
  // The common chains, which kernels compile into their micro-kernels where that pays; `simple` says that these fields
  // are all there is: y = act(round(product + bias + residual)), act = relu, perhaps up to a ceiling, or none.
  bool simple = true;
  const float* bias = nullptr;      // [N], by output channel; null: none
  const float* residual = nullptr;  // like y, rows ld_residual apart; null: none
  int64_t ld_residual = 0;
  bool relu = false;
  float ceiling = __builtin_inff();  // of relu
  bool round = false;                // to what bfloat16 holds; the act commutes with it. CPU alone

  // A relu's gradient, y = 0 < mask <= mask_most ? product (+ masked) : 0, by its operands beside its instructions: a kernel may do
  // either. mask null: it is another chain. Both like y, rows ld_mask and ld_masked apart.
  const float *mask = nullptr, *masked = nullptr;
  int64_t ld_mask = 0, ld_masked = 0;
  float mask_most = __builtin_inff();

  // Any other chain: instructions on strips. Value 0 is the product, 1 to operands the operands, then results.
  int operands = 0, count = 0;
  FusedInstruction code[fused_instructions] = {};
  float constants[fused_constants] = {};
  const float* data[epilogue_operands] = {};
  int64_t row_stride[epilogue_operands] = {};  // elements from row to row; 0: the same [N] for every row
  bool scalar[epilogue_operands] = {};         // one number for all

  bool empty() const { return simple && !bias && !residual && !relu && !round; }
};

}  // namespace dagrt
