// Matrix products. Each side is loaded 16 bytes at a time along its contiguous direction where address, stride and size
// allow, else element by element; bfloat16 always so.
#include "kernels/bf16.h"

#include "kernels/cuda/gemm.cuh"

namespace dagrt {
namespace {

constexpr ProductName matmul_name("matmul"), matmul_bf16_name("matmul_bf16");

Jobs jobs_of(const MatmulArgs& g) {
  Jobs jobs{};
  jobs.K = g.K;
  jobs.batch_rank = g.batch_rank;
  for (int d = 0; d < g.batch_rank; d++)
    jobs.batch[d] = g.batch[d], jobs.a_batch[d] = g.a_batch[d], jobs.b_batch[d] = g.b_batch[d], jobs.c_batch[d] = g.c_batch[d];
  jobs.row_batch = g.M;
  jobs.partials = reinterpret_cast<float*>(g.workspace);
  return jobs;
}

template <bool a_k, bool b_k, class T>
void product(const MatmulArgs& g, CudaStream& s, const MatrixOf<T>& a, const MatrixOf<T>& b, const Target& target) {
  const Jobs jobs = jobs_of(g);
  if constexpr (is_bf16<T>) {
    gemm<MatrixOf<T>, MatrixOf<T>, a_k, b_k, 8>(s, matmul_bf16_name, a, b, target, jobs);
  } else {
    int64_t far_a = a_k ? a.row : a.col, far_b = b_k ? b.row : b.col;
    bool vectors = far_a % 4 == 0 && far_b % 4 == 0 && (a_k ? g.K : g.M) % 4 == 0 && (b_k ? g.K : g.N) % 4 == 0 &&
                   aligned_16(a.p) && aligned_16(b.p);
    for (int d = 0; d < g.batch_rank; d++) vectors = vectors && g.a_batch[d] % 4 == 0 && g.b_batch[d] % 4 == 0;
    if (vectors)
      gemm<Matrix, Matrix, a_k, b_k, 4>(s, matmul_name, a, b, target, jobs);
    else
      gemm<Matrix, Matrix, a_k, b_k, 1>(s, matmul_name, a, b, target, jobs);
  }
}

/// By which directions are contiguous.
template <class T> void product(const MatmulArgs& g, CudaStream& s, const T* pa, const T* pb, const Target& target) {
  const MatrixOf<T> a{pa, g.a_row, g.a_col, g.M, g.K}, b{pb, g.b_col, g.b_row, g.N, g.K};
  const bool a_k = g.a_col == 1, b_k = g.b_row == 1 && g.b_col != 1;
  if (a_k)
    b_k ? product<true, true>(g, s, a, b, target) : product<true, false>(g, s, a, b, target);
  else
    b_k ? product<false, true>(g, s, a, b, target) : product<false, false>(g, s, a, b, target);
}

}  // namespace

void matmul(const MatmulArgs& g, CudaStream& s) { product(g, s, g.a, g.b, Target{g.c, g.ldc, g.M, g.N, g.epilogue, {}}); }

void matmul_bf16(const MatmulBf16Args& args, CudaStream& s) {
  const MatmulArgs& g = args.rest;
  const Target target{static_cast<float*>(args.c), g.ldc, g.M, g.N, g.epilogue, {}, args.narrow};
  product(g, s, reinterpret_cast<const Bf16*>(args.a), reinterpret_cast<const Bf16*>(args.b), target);
}

}  // namespace dagrt
