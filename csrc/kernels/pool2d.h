// Pooling over windows of images, channels last, float32.
#pragma once
#include "kernels/kernel.h"

namespace dagrt {

struct PoolArgs {
  const float* x = nullptr;        // [B,H,W,C], pixels ldx apart
  float* y = nullptr;              // [B,P,Q,C], pixels ldy apart
  int32_t* argmax = nullptr;       // [B,P,Q,C]: h * W + w of the first maximum; null: not wanted
  const int32_t* taken = nullptr;  // max_pool2d_grad: argmax of the forward pass
  float* dx = nullptr;             // [B,H,W,C], pixels lddx apart; gradients read dy through x
  int64_t B = 0, H = 0, W = 0, C = 0, P = 0, Q = 0, ldx = 0, ldy = 0, lddx = 0;
  int64_t pool_h = 1, pool_w = 1, stride_h = 1, stride_w = 1, pad_top = 0, pad_left = 0;
};

DAGRT_KERNEL(max_pool2d, PoolArgs)
DAGRT_KERNEL(max_pool2d_grad, PoolArgs)
DAGRT_KERNEL(avg_pool2d, PoolArgs)
DAGRT_KERNEL(avg_pool2d_grad, PoolArgs)

}  // namespace dagrt
