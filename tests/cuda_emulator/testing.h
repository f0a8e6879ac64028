// What the emulator's own tests share.
#pragma once
#include <doctest/doctest.h>

#include <string>

#include "kernels/cuda/mma.cuh"
#include "watch.h"

namespace dagrt {
namespace {

/// What a launch reports; "" where it reports nothing.
template <class... P> std::string report_of(void (*kernel)(Gate, P...), dim3 grid, dim3 block, size_t shared, P... args) {
  CudaStream s;
  REQUIRE(cudaStreamCreateWithFlags(&s.handle, 0) == cudaSuccess);
  launch_with(s, "planted", kernel, grid, block, shared, args...);
  CHECK(s.refused == nullptr);
  cudaError_t e = cudaStreamSynchronize(s.handle);
  std::string text = e == cudaSuccess ? "" : cudaGetErrorString(e);
  cudaStreamDestroy(s.handle);
  return text;
}
[[maybe_unused]] bool says(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

struct Memory {
  explicit Memory(size_t floats) {
    REQUIRE(cudaMalloc(reinterpret_cast<void**>(&p), floats * 4) == cudaSuccess);
    emulator::set_written(p, floats * 4, true);  // tests write it as it is the host's too
  }
  ~Memory() { cudaFree(p); }
  float* p = nullptr;
};

}  // namespace
}  // namespace dagrt
