// Stands before the toolkit's header of this name: kernels as host C++. The toolkit gives vector types and the prototypes of
// the runtime's functions (whose bodies are in runtime.cpp), the emulator the rest.
#pragma once
#include <cuda_runtime_api.h>
#include <vector_functions.h>
#include <vector_types.h>

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __forceinline__
#undef __launch_bounds__
#undef __grid_constant__
#undef __noinline__
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __noinline__ __attribute__((noinline))

#include "emulator.h"
