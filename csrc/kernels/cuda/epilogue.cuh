// Any epilogue as a pass of its own over rows that a producer has written (kernels/epilogue.h).
#pragma once
#include "kernels/cuda/functors.cuh"
#include "kernels/epilogue.h"

namespace dagrt {
namespace {

/// Any chain of an epilogue, on C as it stands in memory: rows of N, ld apart.
__global__ void epilogue_kernel(Gate gate, float* c, int64_t rows, int64_t N, int64_t ld, Epilogue e) {
  if (closed(gate)) return;
  for (int64_t i = first_index(); i < rows * N; i += grid_stride()) {
    int64_t m = i / N, n = i % N;
    float v[1 + epilogue_operands + fused_instructions];
    v[0] = c[m * ld + n];
    for (int k = 0; k < e.operands; k++) v[1 + k] = e.data[k][e.scalar[k] ? 0 : m * e.row_stride[k] + n];
    for (int k = 0; k < e.count; k++) {
      float x[3] = {};
      for (int j = 0; j < 3; j++)
        if (j < e.code[k].operands) x[j] = e.code[k].arg[j] < 0 ? e.constants[-1 - e.code[k].arg[j]] : v[e.code[k].arg[j]];
      v[1 + e.operands + k] = apply(e.code[k].f, x[0], x[1], x[2]);
    }
    c[m * ld + n] = v[e.operands + e.count];
  }
}

/// Runs those that are not simple, which the producer has put in itself.
void finish_epilogue(CudaStream& s, const Epilogue& e, float* c, int64_t rows, int64_t N, int64_t ld) {
  if (!e.simple && rows > 0 && N > 0) launch(s, "epilogue", epilogue_kernel, blocks_for(s, rows * N, 256), 256, c, rows, N, ld, e);
}

/// As instructions, though it may be one of the common ones.
Epilogue whole_chain(Epilogue e) {
  e.simple = e.count == 0;
  return e;
}

}  // namespace
}  // namespace dagrt
