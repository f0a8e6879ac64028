// Products of bfloat16 in memory, by the tensor cores of CUDA devices, which alone have them (Op::cuda_algorithm_of); sums are
// float32. Lines of the operands (last axes; a group's part of them) are multiples of 16 bytes, and aligned. What is written is
// float32, or rounded to bfloat16 (`narrow`), before an epilogue of bias and relu and behind it: the bits of bfloat16's own ops.
#pragma once
#include "kernels/conv2d.h"
#include "kernels/matmul.h"

namespace dagrt {

inline constexpr int64_t bf16_line = 8;  // elements of 16 bytes

#define DAGRT_CUDA_KERNEL(name, Args) \
  DAGRT_TWIN(name, Args)              \
  inline void name(const Args& a, const Stream& s) { name(a, *s.cuda); }

struct MatmulBf16Args {
  MatmulArgs rest;  // all but the operands: its a, b and c are not looked at
  const uint16_t *a = nullptr, *b = nullptr;
  void* c = nullptr;
  bool narrow = false;
};
DAGRT_CUDA_KERNEL(matmul_bf16, MatmulBf16Args)

struct ConvBf16Args {
  ConvArgs rest;                                            // all but the operands: its x, w and y are not looked at
  const uint16_t *x = nullptr, *w = nullptr, *y = nullptr;  // two of them
  void* to = nullptr;                                       // in the place of the third
  bool narrow = false;
};
DAGRT_CUDA_KERNEL(conv2d_bf16, ConvBf16Args)
DAGRT_CUDA_KERNEL(conv2d_input_grad_bf16, ConvBf16Args)
DAGRT_CUDA_KERNEL(conv2d_filter_grad_bf16, ConvBf16Args)

}  // namespace dagrt
