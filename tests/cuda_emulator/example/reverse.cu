// A kernel of somebody else's under the emulator, on its own:
//
//   cd tests/cuda_emulator
//   g++ -std=c++17 -c -O2 -I. -isystem $CUDA/include emulator.cpp workers.cpp block.cpp runtime.cpp written.cpp sample.cpp plant.cpp race.cpp count.cpp
//   g++ -std=c++17 -c -O1 -g1 -fno-tree-sra -fsanitize=thread -fsanitize-coverage=trace-pc -I. -isystem $CUDA/include -x c++ example/reverse.cu
//   g++ *.o -o reverse -ldl && DAGRT_EMULATOR_COUNTS=counts.json ./reverse && cat counts.json
//   DAGRT_EMULATOR_FAULT="barrier reverse.cu:25" ./reverse
//
// prints that 1,024 numbers were turned round, what the launch asked of memory, and, with its barrier left out, the race; nvcc
// compiles the same file.
#include <cuda_runtime.h>

#include <cstdio>

#ifdef __CUDACC__
#define SHARED(T, name, dims) __shared__ T name dims
#endif

constexpr int threads = 256, count = 1024;

/// y = x from the last to the first.
__global__ void reverse_kernel(float* y, const float* x) {
  SHARED(float, held, [threads]);
  held[threads - 1 - threadIdx.x] = x[blockIdx.x * threads + threadIdx.x];
  __syncthreads();
  y[(gridDim.x - 1 - blockIdx.x) * threads + threadIdx.x] = held[threadIdx.x];
}

int main() {
  static float host[count];
  for (int i = 0; i < count; i++) host[i] = float(i);
  void *x = nullptr, *y = nullptr;
  cudaStream_t stream;
  cudaMalloc(&x, sizeof host);
  cudaMalloc(&y, sizeof host);
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  cudaMemcpyAsync(x, host, sizeof host, cudaMemcpyHostToDevice, stream);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(count / threads), config.blockDim = dim3(threads), config.stream = stream;
  cudaLaunchKernelEx(&config, reverse_kernel, static_cast<float*>(y), static_cast<const float*>(x));
  cudaMemcpyAsync(host, y, sizeof host, cudaMemcpyDeviceToHost, stream);
  if (cudaError_t e = cudaStreamSynchronize(stream); e != cudaSuccess) {
    std::printf("%s\n", cudaGetErrorString(e));
    return 1;
  }
  for (int i = 0; i < count; i++)
    if (host[i] != float(count - 1 - i)) return std::printf("wrong at %d\n", i), 1;
  std::printf("%d numbers turned round\n", count);
}
