// Cutting up a product, by its sizes alone: the same bits on any number of threads and any instruction set's layout.
#include "kernels/matmul.h"

namespace dagrt {
namespace {

int64_t over(int64_t n, int64_t by) { return (n + by - 1) / by; }
int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

constexpr int64_t stream_columns = 256, stream_part = 131072;  // the least: of a row of B, and elements of B in a part of K

}  // namespace

int64_t matmul_panel_floats(int64_t N, int64_t K) { return over(N, 32) * 32 * K; }

MatmulPlan matmul_plan(int64_t batches, int64_t M, int64_t N, int64_t K, bool b_rows_contiguous, bool packed) {
  MatmulPlan p;
  const bool few = M <= matmul_few_rows;
  p.streamed = few && b_rows_contiguous && !packed && N >= stream_columns;
  int64_t tiles = over(M, 14) * over(N, 32) * batches;
  if (batches == 1)
    while (p.splits < 8 && tiles * p.splits < 16 && K / (p.splits * 2) >= 1024) p.splits *= 2;
  // Rows are read whole, as far as what C holds of them stays in L1; parts of K give threads enough to do.
  if (p.streamed && batches == 1)
    while (p.splits < 8 && K / (p.splits * 2) >= 64 && K * N / (p.splits * 2) >= stream_part) p.splits *= 2;

  // Large cells read A and B least often; there should be enough of them for threads that start late.
  p.rows = 192, p.columns = 128;
  auto cells = [&] { return batches * p.splits * over(M, p.rows) * over(N, p.columns); };
  while (cells() < 16 && p.columns > 32) p.columns /= 2;
  while (cells() < 16 && p.rows > 48) p.rows /= 2;
  if (p.streamed) p.columns = 2048;
  p.in_place = b_rows_contiguous && M <= 12;

  if (few && !b_rows_contiguous) p.workspace = size_t(M * K * batches) * 4;  // A's rows, where they are not contiguous
  if (p.splits > 1) p.workspace += size_t(p.splits * M * N) * 4;
  p.workspace += 64;
  if (!few) p.scratch = size_t(least(K, matmul_most_depth) * 32) * 4 + 64;
  return p;
}

}  // namespace dagrt
