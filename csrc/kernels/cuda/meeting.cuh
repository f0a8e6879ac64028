// How blocks of one cooperative launch wait for each other: the only flags and loops of waiting.
//
// A counter in device memory, zero at first, is raised by each block that has done its part. What a block stored before is
// visible to all that have seen it counted.
#pragma once
#include "kernels/cuda/mma.cuh"

namespace dagrt {
namespace {

/// This block's threads have done their part.
DAGRT_DEVICE void arrive(unsigned* counter) {
  __syncthreads();
  if (threadIdx.x == 0 && threadIdx.y == 0) {
    __threadfence();
    atomicAdd(counter, 1u);
  }
}

/// As arrive; true in the block that came last of `all`, which then sees what the others have stored.
DAGRT_DEVICE bool arrive_last(unsigned* counter, unsigned all) {
  SHARED(bool, last, [1]);
  __syncthreads();
  if (threadIdx.x == 0 && threadIdx.y == 0) {
    __threadfence();
    last[0] = atomicAdd(counter, 1u) + 1 == all;
    __threadfence();
  }
  __syncthreads();
  return last[0];
}

/// The counter has come to `count`, for what stands behind the block's next barrier.
DAGRT_DEVICE void wait_for(unsigned* counter, unsigned count) {
  if (threadIdx.x == 0 && threadIdx.y == 0) {
    while (atomicAdd(counter, 0u) < count) relax();
    __threadfence();
  }
}

constexpr int zero_threads = 32;
__global__ void __launch_bounds__(zero_threads) zero_counters_kernel(Gate gate, unsigned* counters, int64_t n) {
  if (closed(gate)) return;
  for (int64_t i = first_index(); i < n; i += grid_stride()) counters[i] = 0;
}

}  // namespace
}  // namespace dagrt
