// The CUDA devices of this process.
#pragma once
#include <vector>

#include "runtime/device.h"

namespace dagrt {

/// Found at the first call, those that this build has code for; none where it has no CUDA or the machine no driver or GPU.
const std::vector<Device*>& cuda_devices();
bool cuda_in_build();
/// Where the build has CUDA and there is no device: the driver's words, or which it has no code for.
const char* why_no_cuda_device();

}  // namespace dagrt
