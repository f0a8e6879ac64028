// Cutting up a product, by its sizes alone: the same bits on any number of threads and any instruction set's layout.
#include "kernels/matmul.h"

namespace dagrt {
namespace {

int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

}  // namespace

int64_t matmul_panel_floats(int64_t N, int64_t K) { return up(N, 32) * K; }

MatmulPlan matmul_plan(int64_t batches, int64_t M, int64_t N, int64_t K, bool b_rows_contiguous, bool packed) {
  MatmulPlan p;
  p.batches = batches;
  const bool few = M <= 4;  // gemm_few_rows: B is read in place
  p.pack = !few && (M > 28 || !b_rows_contiguous);
  int64_t tiles = up(M, 14) / 14 * (up(N, 32) / 32) * batches;
  if (batches == 1)
    while (p.splits < 8 && tiles * p.splits < 16 && K / (p.splits * 2) >= 1024) p.splits *= 2;
  int64_t floats = 0;
  if (packed)
    floats = 0;
  else if (few)
    floats = b_rows_contiguous ? 0 : M * K * batches;  // A's rows, where they are not contiguous
  else if (p.pack)
    floats = up(N, 32) * K * batches;
  else if (N % 32)
    floats = 32 * K * batches;  // the last, narrow panel alone
  p.workspace = size_t(floats) * 4 + (p.splits > 1 ? size_t(p.splits * M * N) * 4 : 0) + 64;
  return p;
}

}  // namespace dagrt
