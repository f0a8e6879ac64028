// Matrix products. Each side is loaded 16 bytes at a time along its contiguous direction where address, stride and size
// allow, else element by element.
#include "kernels/matmul.h"

#include "kernels/cuda/gemm.cuh"

namespace dagrt {
namespace {

constexpr ProductName matmul_name("matmul");

template <bool a_k, bool b_k> void product(const MatmulArgs& g, CudaStream& s, const Matrix& a, const Matrix& b, Jobs jobs) {
  int64_t far_a = a_k ? a.row : a.col, far_b = b_k ? b.row : b.col;
  bool vectors = far_a % 4 == 0 && far_b % 4 == 0 && (a_k ? g.K : g.M) % 4 == 0 && (b_k ? g.K : g.N) % 4 == 0 &&
                 aligned_16(a.p) && aligned_16(b.p);
  for (int d = 0; d < g.batch_rank; d++) vectors = vectors && g.a_batch[d] % 4 == 0 && g.b_batch[d] % 4 == 0;
  const Target target{g.c, g.ldc, g.M, g.N, g.epilogue, {}};
  jobs.row_batch = g.M;
  if (vectors)
    gemm<Matrix, Matrix, a_k, b_k, 4>(s, matmul_name, a, b, target, jobs);
  else
    gemm<Matrix, Matrix, a_k, b_k, 1>(s, matmul_name, a, b, target, jobs);
}

}  // namespace

void matmul(const MatmulArgs& g, CudaStream& s) {
  Matrix a{g.a, g.a_row, g.a_col, g.M, g.K}, b{g.b, g.b_col, g.b_row, g.N, g.K};
  Jobs jobs{};
  jobs.K = g.K;
  jobs.batch_rank = g.batch_rank;
  for (int d = 0; d < g.batch_rank; d++)
    jobs.batch[d] = g.batch[d], jobs.a_batch[d] = g.a_batch[d], jobs.b_batch[d] = g.b_batch[d], jobs.c_batch[d] = g.c_batch[d];
  jobs.partials = reinterpret_cast<float*>(g.workspace);
  const bool a_k = g.a_col == 1, b_k = g.b_row == 1 && g.b_col != 1;
  if (a_k)
    b_k ? product<true, true>(g, s, a, b, jobs) : product<true, false>(g, s, a, b, jobs);
  else
    b_k ? product<false, true>(g, s, a, b, jobs) : product<false, false>(g, s, a, b, jobs);
}

}  // namespace dagrt
