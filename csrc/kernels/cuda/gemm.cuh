// A tiled product, shared by matmul and the convolutions (implicit GEMM: no im2col in memory):
//   C(m, n) = sum over k of A(m, k) B(n, k)
//
// Operands are loaders: given the place of a row and the place of a k, each worked out once and used many times, they answer
// an address, or null for a zero. A block computes a tile of BM x BN in steps of BK; three stages of cp.async keep loads
// under way while the tile before is multiplied. Shared memory keeps the order in which an operand is contiguous (k or rows),
// padded so that neither a warp's stores nor the fragments' loads meet in a bank.
//   tensor: TF32 mma.sync, float32 sums. Otherwise float32 FMA: the exact path, and the only one before sm_80.
// Long sums over few tiles are cut in `splits` parts along K, a function of the sizes alone, added in order.
#pragma once
#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/gemm_splits.h"

namespace dagrt {
namespace {

constexpr int gemm_bk = 16, gemm_stages = 3;

/// X(i, k) = p[i row + k col], i < rows, k < depth.
struct Matrix {
  const float* p;
  int64_t row, col, rows, depth;
  struct Row {
    const float* p;
  };
  struct Col {
    int64_t offset;
  };
  DAGRT_DEVICE Row row_at(int64_t i) const { return {i < rows ? p + i * row : nullptr}; }
  DAGRT_DEVICE Col col_at(int64_t k) const { return {k < depth ? k * col : -1}; }
  DAGRT_DEVICE const float* at(const Row& r, const Col& c) const { return r.p && c.offset >= 0 ? r.p + c.offset : nullptr; }
  DAGRT_DEVICE void move(int64_t by) { p += by; }
};

/// One operand's tile in shared memory: `rows` x BK, contiguous along k or along the rows.
template <bool k_fast, int rows> struct Tile {
  static constexpr int floats = k_fast ? rows * (gemm_bk + 4) : gemm_bk * (rows + 8);
  DAGRT_DEVICE static int at(int i, int k) { return k_fast ? i * (gemm_bk + 4) + k : k * (rows + 8) + i; }

  /// Starts the copies of one tile; `width` floats at once, along the contiguous direction.
  template <int width, int threads, class X> DAGRT_DEVICE static void load(float* to, const X& x, int64_t i0, int64_t k0) {
    constexpr int across = (k_fast ? gemm_bk : rows) / width, down = k_fast ? rows : gemm_bk;
    constexpr int each = across * down / threads;
    static_assert(across * down % threads == 0 && (threads % across == 0 || across % threads == 0));
#pragma unroll
    for (int n = 0; n < each; n++) {
      int job = threadIdx.x + n * threads, along = job % across * width, over = job / across;
      int i = k_fast ? over : along, k = k_fast ? along : over;
      copy_async<width * 4>(to + at(i, k), x.at(x.row_at(i0 + i), x.col_at(k0 + k)));
    }
  }
};

/// Where results go, and the common epilogues: bias, residual and relu. Any other chain is a pass of its own behind.
struct Target {
  float* c;
  int64_t ldc, M, N;
  const float *bias = nullptr, *residual = nullptr;
  int64_t ld_residual = 0;
  bool relu = false;
  DAGRT_DEVICE void put(int64_t m, int64_t n, float v) const {
    if (m >= M || n >= N) return;
    if (bias) v += bias[n];
    if (residual) v += residual[m * ld_residual + n];
    c[m * ldc + n] = relu && v < 0 ? 0.0f : v;
  }
};

/// Jobs of one launch: batches x splits x tiles of M x tiles of N, the last fastest.
struct Jobs {
  int64_t M, N, K, splits, tiles_m, tiles_n;
  float* partials;  // [splits][M][N], where splits > 1
  int batch_rank;
  int64_t batch[8], a_batch[8], b_batch[8], c_batch[8];
  int64_t bias_batch, residual_batch;  // of the innermost batch axis, and of any number of batches behind one another
};

template <class A, class B, bool a_k, bool b_k, int a_width, int b_width, int BM, int BN, bool tensor>
__global__ void __launch_bounds__(BM* BN / 32 >= 256 ? 256 : 128) gemm_kernel(Gate gate, A a, B b, Target target, Jobs jobs) {
  if (closed(gate)) return;
  constexpr int threads = BM * BN / 32 >= 256 ? 256 : 128;
  using TileA = Tile<a_k, BM>;
  using TileB = Tile<b_k, BN>;
  float* shared = dynamic_shared<float>();
  float* sb = shared + gemm_stages * TileA::floats;

  int64_t job = blockIdx.x;
  const int64_t n0 = job % jobs.tiles_n * BN;
  job /= jobs.tiles_n;
  const int64_t m0 = job % jobs.tiles_m * BM;
  job /= jobs.tiles_m;
  const int64_t split = job % jobs.splits;
  job /= jobs.splits;
  if (target.bias) target.bias += job * jobs.bias_batch;
  if (target.residual) target.residual += job * jobs.residual_batch;
  for (int d = jobs.batch_rank - 1; d >= 0; d--) {
    int64_t i = job % jobs.batch[d];
    job /= jobs.batch[d];
    a.move(i * jobs.a_batch[d]);
    b.move(i * jobs.b_batch[d]);
    target.c += i * jobs.c_batch[d];
  }
  if (jobs.splits > 1) target = Target{jobs.partials + split * jobs.M * jobs.N, jobs.N, jobs.M, jobs.N};
  const int64_t all = (jobs.K + gemm_bk - 1) / gemm_bk;  // steps, cut evenly among the splits
  const int64_t begin = all * split / jobs.splits, steps = all * (split + 1) / jobs.splits - begin;

  auto load = [&](int64_t step) {
    if (step < steps) {
      int stage = int(step % gemm_stages);
      TileA::template load<a_width, threads>(shared + stage * TileA::floats, a, m0, (begin + step) * gemm_bk);
      TileB::template load<b_width, threads>(sb + stage * TileB::floats, b, n0, (begin + step) * gemm_bk);
    }
    commit_copies();
  };
  for (int s = 0; s < gemm_stages - 1; s++) load(s);

  if constexpr (tensor) {
    constexpr int warps_n = BN / 32, warps = threads / 32, warps_m = warps / warps_n, WM = BM / warps_m, tiles = WM / 16;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int wm = warp / warps_n * WM, wn = warp % warps_n * 32;
    float c[tiles][4][4] = {};
    for (int64_t step = 0; step < steps; step++) {
      wait_copies<gemm_stages - 2>();
      __syncthreads();
      load(step + gemm_stages - 1);
      const float* ta = shared + step % gemm_stages * TileA::floats;
      const float* tb = sb + step % gemm_stages * TileB::floats;
#pragma unroll
      for (int k = 0; k < gemm_bk; k += 8) {
        uint32_t fa[tiles][4], fb[4][2];
#pragma unroll
        for (int i = 0; i < tiles; i++)
#pragma unroll
          for (int e = 0; e < 4; e++) fa[i][e] = to_tf32(ta[TileA::at(wm + i * 16 + g + e % 2 * 8, k + t + e / 2 * 4)]);
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
          for (int e = 0; e < 2; e++) fb[j][e] = to_tf32(tb[TileB::at(wn + j * 8 + g, k + t + e * 4)]);
#pragma unroll
        for (int i = 0; i < tiles; i++)
#pragma unroll
          for (int j = 0; j < 4; j++) mma_tf32(c[i][j], fa[i], fb[j]);
      }
    }
#pragma unroll
    for (int i = 0; i < tiles; i++)
#pragma unroll
      for (int j = 0; j < 4; j++)
#pragma unroll
        for (int e = 0; e < 4; e++)
          target.put(m0 + wm + i * 16 + g + e / 2 * 8, n0 + wn + j * 8 + t * 2 + e % 2, c[i][j][e]);
  } else {
    constexpr int TN = 8, TM = BM * BN / threads / TN, across = BN / TN;  // a thread: TM rows, `across` columns apart
    const int tn = threadIdx.x % across, tm = threadIdx.x / across * TM;
    float c[TM][TN] = {};
    for (int64_t step = 0; step < steps; step++) {
      wait_copies<gemm_stages - 2>();
      __syncthreads();
      load(step + gemm_stages - 1);
      const float* ta = shared + step % gemm_stages * TileA::floats;
      const float* tb = sb + step % gemm_stages * TileB::floats;
#pragma unroll 4
      for (int k = 0; k < gemm_bk; k++) {
        float x[TM], y[TN];
#pragma unroll
        for (int i = 0; i < TM; i++) x[i] = ta[TileA::at(tm + i, k)];
#pragma unroll
        for (int j = 0; j < TN; j++) y[j] = tb[TileB::at(tn + j * across, k)];
#pragma unroll
        for (int i = 0; i < TM; i++)
#pragma unroll
          for (int j = 0; j < TN; j++) c[i][j] += x[i] * y[j];
      }
    }
#pragma unroll
    for (int i = 0; i < TM; i++)
#pragma unroll
      for (int j = 0; j < TN; j++) target.put(m0 + tm + i, n0 + tn + j * across, c[i][j]);
  }
  wait_copies<0>();
}

__global__ void add_splits_kernel(Gate gate, const float* partials, Target target, int64_t splits) {
  if (closed(gate)) return;
  const int64_t size = target.M * target.N;
  for (int64_t i = first_index(); i < size; i += grid_stride()) {
    float sum = partials[i];
    for (int64_t k = 1; k < splits; k++) sum += partials[k * size + i];
    target.put(i / target.N, i % target.N, sum);
  }
}

template <class A, class B, bool a_k, bool b_k, int a_width, int b_width, int BM, int BN, bool tensor>
void launch_gemm(CudaStream& s, const char* name, const A& a, const B& b, const Target& target, Jobs jobs, int64_t batches) {
  jobs.tiles_m = pieces(jobs.M, BM), jobs.tiles_n = pieces(jobs.N, BN);
  size_t bytes = sizeof(float) * gemm_stages * (Tile<a_k, BM>::floats + Tile<b_k, BN>::floats);
  int64_t blocks = batches * jobs.splits * jobs.tiles_m * jobs.tiles_n;
  launch_with(s, name, gemm_kernel<A, B, a_k, b_k, a_width, b_width, BM, BN, tensor>, unsigned(blocks),
              BM * BN / 32 >= 256 ? 256 : 128, bytes, a, b, target, jobs);
  if (jobs.splits > 1)
    launch(s, "add_splits", add_splits_kernel, blocks_for(s, target.M * target.N, 256), 256, jobs.partials, target, jobs.splits);
}

/// Chooses tile and arithmetic. `jobs.K`, batches and partials are given; splits follow from the sizes.
template <class A, class B, bool a_k, bool b_k, int a_width, int b_width>
void gemm(CudaStream& s, const char* name, const A& a, const B& b, const Target& target, Jobs jobs) {
  if (target.M == 0 || target.N == 0) return;
  int64_t batches = 1;
  for (int d = 0; d < jobs.batch_rank; d++) batches *= jobs.batch[d];
  if (batches == 0) return;
  jobs.M = target.M, jobs.N = target.N;
  jobs.splits = jobs.partials ? gemm_splits(batches, jobs.M, jobs.N, jobs.K) : 1;
  if (s.exact || s.capability < 80)
    return launch_gemm<A, B, a_k, b_k, a_width, b_width, 64, 64, false>(s, name, a, b, target, jobs, batches);
  if (batches * pieces(jobs.M, 128) * pieces(jobs.N, 128) * jobs.splits >= 128)
    return launch_gemm<A, B, a_k, b_k, a_width, b_width, 128, 128, true>(s, name, a, b, target, jobs, batches);
  launch_gemm<A, B, a_k, b_k, a_width, b_width, 64, 64, true>(s, name, a, b, target, jobs, batches);
}

/// Puts the simple epilogues into the product; finish_epilogue runs the others on the whole result afterwards.
void begin_epilogue(const Epilogue& e, Target& t) {
  if (e.simple) t.bias = e.bias, t.residual = e.residual, t.ld_residual = e.ld_residual, t.relu = e.relu;
}

inline bool aligned_16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace
}  // namespace dagrt
