// In builds without CUDA, instead of cuda_device.cpp.
#include "runtime/cuda_device.h"

namespace dagrt {

const std::vector<Device*>& cuda_devices() {
  static const std::vector<Device*> none;
  return none;
}

bool cuda_in_build() { return false; }
const char* why_no_cuda_device() { return "this build has no CUDA"; }

}  // namespace dagrt
