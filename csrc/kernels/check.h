// On CUDA devices, where the host cannot look at data: a check of numbers that writes the run's status word.
#pragma once
#include "kernels/kernel.h"

namespace dagrt {

/// The first number outside [0, limit), or with a negative limit the first 0, is reported as `code` of `node`.
struct CheckNumbersArgs {
  const void* ids = nullptr;   // [count] in rows of `width`, ld apart
  DType dtype = DType::int32;  // int32, int64 or uint8
  int64_t width = 1, ld = 1, count = 0, limit = 0;
  int32_t code = 0, node = 0;
};

DAGRT_TWIN(check_numbers, CheckNumbersArgs)

}  // namespace dagrt
