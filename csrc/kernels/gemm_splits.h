// Tiles and cuts of products on CUDA devices, by one model of what they take. How sums are cut is a function of the sizes alone, so
// that bits depend on nothing else; the tile changes none. bench/cuda_products.py holds the choice to this model.
#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>

namespace dagrt {

/// What a product takes with tiles of BM x BN, in clocks of an H100: rounds over its multiprocessors, in each the longer of
/// multiplying (645 multiply-adds a clock by TF32 mma.sync: 63 % of the 1,024 that wgmma reaches) and loading from L2 (32
/// bytes a clock), for each k of a part. `bytes`: of an operand's element; bfloat16 is multiplied twice as fast.
inline double gemm_clocks(int64_t multiprocessors, int64_t batches, int64_t M, int64_t N, int64_t K, int64_t splits, int64_t BM,
                          int64_t BN, int64_t bytes = 4) {
  const int64_t tiles = batches * splits * ((M + BM - 1) / BM) * ((N + BN - 1) / BN);
  const double multiply = double(BM * BN * bytes) / (4 * 645), load = double((BM + BN) * bytes) / 32;
  return double((tiles + multiprocessors - 1) / multiprocessors) * (multiply > load ? multiply : load) * double(K) /
         double(splits);
}

/// Whether writing and reading partial sums takes at most a twelfth of the bytes that tiles of BM x BN read.
inline bool gemm_parts_pay(int64_t M, int64_t N, int64_t K, int64_t splits, int64_t BM, int64_t BN, int64_t bytes = 4) {
  return splits == 1 || 2 * splits * M * N * 4 * 12 <= ((N + BN - 1) / BN * M * K + (M + BM - 1) / BM * N * K) * bytes;
}

/// The same with what cutting adds: the launch that adds the parts (3,000 clocks) and their way through memory. Infinite where
/// parts don't pay.
inline double gemm_time(int64_t multiprocessors, int64_t batches, int64_t M, int64_t N, int64_t K, int64_t splits, int64_t BM,
                        int64_t BN, int64_t bytes = 4) {
  if (!gemm_parts_pay(M, N, K, splits, BM, BN, bytes)) return std::numeric_limits<double>::infinity();
  const double added = splits > 1 ? 3000 + double(2 * splits * M * N) * 4 / (double(multiprocessors) * 32) : 0;
  return gemm_clocks(multiprocessors, batches, M, N, K, splits, BM, BN, bytes) + added;
}

struct GemmTile {
  int64_t M, N;
};
/// All that kernels are made for, the smallest first; gemm.cuh says what a tile must be.
constexpr GemmTile gemm_tiles[] = {{64, 64}, {128, 64}, {128, 128}, {192, 128}, {256, 128}};
constexpr int gemm_tile_count = int(sizeof(gemm_tiles) / sizeof(GemmTile));

/// Parts of the sum over K, each at least 256 deep: as many as make the product shortest on an H100's multiprocessors.
inline int64_t gemm_splits(int64_t batches, int64_t M, int64_t N, int64_t K, int64_t bytes = 4) {
  if (batches != 1) return 1;
  int64_t best = 1;
  double least = std::numeric_limits<double>::infinity();
  for (int64_t splits = 1; splits <= 32 && (splits == 1 || K / splits >= 256); splits++)
    for (auto [BM, BN] : gemm_tiles)
      if (double time = gemm_time(132, 1, M, N, K, splits, BM, BN, bytes); time < least) best = splits, least = time;
  return best;
}

/// The quickest tile, by its number, of equals the smaller. `most`: how many of them, the smallest first, can be had.
inline int gemm_tile(int64_t multiprocessors, int64_t batches, int64_t M, int64_t N, int64_t K, int64_t splits, int64_t bytes,
                     int most = gemm_tile_count) {
  int best = 0;
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; i < most; i++) {
    const auto [BM, BN] = gemm_tiles[i];
    if (double time = gemm_time(multiprocessors, batches, M, N, K, splits, BM, BN, bytes); time < least) best = i, least = time;
  }
  return best;
}

/// Bytes of their partial sums.
inline size_t gemm_parts_bytes(int64_t splits, int64_t M, int64_t N) { return splits > 1 ? size_t(splits * M * N) * 4 : 0; }
inline size_t gemm_workspace(int64_t batches, int64_t M, int64_t N, int64_t K, int64_t bytes = 4) {
  return gemm_parts_bytes(gemm_splits(batches, M, N, K, bytes), M, N);
}

/// The input gradient of a convolution is a product for each remainder of its strides; this is for the largest, and no other
/// is cut in more parts.
struct StridedSplits {
  int64_t M, K, splits;
  StridedSplits(int64_t groups, int64_t images, int64_t H, int64_t W, int64_t R, int64_t S, int64_t stride_h, int64_t stride_w,
                int64_t channels, int64_t filters, int64_t bytes = 4)
      : M(images * ((H + stride_h - 1) / stride_h) * ((W + stride_w - 1) / stride_w)),
        K(((R + stride_h - 1) / stride_h) * ((S + stride_w - 1) / stride_w) * filters),
        splits(gemm_splits(groups, M, channels, K, bytes)) {}
};

}  // namespace dagrt
