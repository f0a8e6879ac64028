// Cutting up a product, by its sizes alone: the same bits on any number of threads and any instruction set's layout.
#include "kernels/matmul.h"

namespace dagrt {
namespace {

int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

}  // namespace

MatmulPlan matmul_plan(int64_t batches, int64_t M, int64_t N, int64_t K, bool b_rows_contiguous) {
  MatmulPlan p;
  p.batches = batches;
  p.pack = M > 28 || (!b_rows_contiguous && M > 4);
  int64_t tiles = up(M, 14) / 14 * (up(N, 32) / 32) * batches;
  if (batches == 1)
    while (p.splits < 8 && tiles * p.splits < 16 && K / (p.splits * 2) >= 1024) p.splits *= 2;
  int64_t panels = p.pack ? up(N, 32) * K * batches : 32 * K * batches;
  p.workspace = size_t(panels) * 4 + (p.splits > 1 ? size_t(p.splits * M * N) * 4 : 0) + 64;
  return p;
}

}  // namespace dagrt
