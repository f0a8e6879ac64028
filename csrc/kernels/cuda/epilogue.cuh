// A producer's epilogue (kernels/epilogue.h): of one value, which products use on their finished tiles, and as a pass of its
// own over rows in memory.
#pragma once
#include "kernels/cuda/functors.cuh"
#include "kernels/epilogue.h"

namespace dagrt {
namespace {

/// A relu up to its ceiling; NaN stays NaN.
DAGRT_DEVICE float activated(const Epilogue& e, float x) { return x < 0 ? 0.0f : x > e.ceiling ? e.ceiling : x; }

/// What becomes of the product v at (row, column). The chain, if any, is the same for all threads.
DAGRT_DEVICE float finished(const Epilogue& e, int64_t m, int64_t n, float product) {
  if (e.simple) {
    if (e.bias) product += e.bias[n];
    if (e.residual) product += e.residual[m * e.ld_residual + n];
    return e.relu ? activated(e, product) : product;
  }
  float v[1 + epilogue_operands + fused_instructions];
  v[0] = product;
  for (int k = 0; k < e.operands; k++) v[1 + k] = e.data[k][e.scalar[k] ? 0 : m * e.row_stride[k] + n];
  for (int k = 0; k < e.count; k++) {
    float x[3] = {};
    for (int j = 0; j < 3; j++)
      if (j < e.code[k].operands) x[j] = e.code[k].arg[j] < 0 ? e.constants[-1 - e.code[k].arg[j]] : v[e.code[k].arg[j]];
    v[1 + e.operands + k] = apply(e.code[k].f, x[0], x[1], x[2]);
  }
  return v[e.operands + e.count];
}

constexpr int epilogue_threads = 256;
__global__ void __launch_bounds__(epilogue_threads)
    epilogue_kernel(Gate gate, float* c, int64_t rows, int64_t N, int64_t ld, const __grid_constant__ Epilogue e) {
  if (closed(gate)) return;
  for (int64_t i = first_index(); i < rows * N; i += grid_stride()) {
    int64_t m = i / N, n = i % N;
    c[m * ld + n] = finished(e, m, n, c[m * ld + n]);
  }
}

/// On C as it stands in memory: rows of N, ld apart.
void finish_epilogue(CudaStream& s, const Epilogue& e, float* c, int64_t rows, int64_t N, int64_t ld) {
  if (!e.empty() && rows > 0 && N > 0)
    launch(s, "epilogue", epilogue_kernel, blocks_for(s, rows * N, epilogue_threads), epilogue_threads, c, rows, N, ld, e);
}

}  // namespace
}  // namespace dagrt
