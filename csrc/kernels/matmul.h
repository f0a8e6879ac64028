// Matrix products: C[b] = A[b] B[b], float32; A of any strides, B by rows (b_col = 1) or by columns (b_row = 1).
#pragma once
#include "base/view.h"
#include "kernels/epilogue.h"

namespace dagrt {

struct MatmulArgs {
  const float* a = nullptr;  // [M, K], strides a_row, a_col
  const float* b = nullptr;  // [K, N], strides b_row, b_col
  float* c = nullptr;        // [M, N], rows ldc apart
  int64_t M = 0, N = 0, K = 0;
  int64_t a_row = 0, a_col = 1, b_row = 0, b_col = 1, ldc = 0;
  // Batches: sizes of the batch axes of C, and how far A, B and C move along each (0: broadcast).
  int batch_rank = 0;
  int64_t batch[max_rank] = {}, a_batch[max_rank] = {}, b_batch[max_rank] = {}, c_batch[max_rank] = {};
  const float* panels = nullptr;  // B packed by pack_matmul, the same for all batches; b is not read then
  char* workspace = nullptr;      // matmul_plan's bytes, beside its scratch
  Epilogue epilogue;              // its row of C[b, m] is b M + m
};

DAGRT_KERNEL(matmul, MatmulArgs)

/// Copies B into the panels [N / NR][K][NR] that the product reads, NR of the instruction set.
struct PackMatmulArgs {
  const float* b = nullptr;  // [K, N], strides b_row, b_col
  float* panels = nullptr;   // matmul_panel_floats
  int64_t N = 0, K = 0, b_row = 0, b_col = 1;
};
DAGRT_CPU_KERNEL(pack_matmul, PackMatmulArgs)

/// Floats of the panels, the same for every instruction set.
int64_t matmul_panel_floats(int64_t N, int64_t K);

/// Products of so few rows wait for B rather than for multiply-adds.
inline constexpr int64_t matmul_few_rows = 4;
/// Rows of B in a panel that is multiplied at once: it stays in L1. With wide vectors, which wait for nothing where it comes from L2,
/// up to the most.
inline constexpr int64_t matmul_depth = 256, matmul_most_depth = 1024;

/// How a product is cut up: a function of its sizes alone.
struct MatmulPlan {
  bool in_place = false;          // B's rows are contiguous, and so few multiply with them that packing would not pay
  bool streamed = false;          // few rows: B's long rows are read side by side, in the order in which they lie
  int64_t rows = 0, columns = 0;  // of C in a cell, the most; columns whole panels of every instruction set
  int64_t splits = 1;             // partial sums along K
  size_t workspace = 0;           // bytes, shared by the threads
  size_t scratch = 0;             // bytes, for each of them
};
MatmulPlan matmul_plan(int64_t batches, int64_t M, int64_t N, int64_t K, bool b_rows_contiguous, bool packed);

}  // namespace dagrt
