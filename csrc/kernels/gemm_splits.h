// How the sums of a product are cut on CUDA devices: a function of the sizes alone, so that bits depend on nothing else.
#pragma once
#include <cstddef>
#include <cstdint>

namespace dagrt {

/// Parts of the sum over K: enough to give some 128 multiprocessors a tile of 64 x 64 each, at least 256 deep.
inline int64_t gemm_splits(int64_t batches, int64_t M, int64_t N, int64_t K) {
  int64_t tiles = ((M + 63) / 64) * ((N + 63) / 64) * batches, splits = 1;
  while (splits < 32 && batches == 1 && tiles * splits * 2 <= 256 && K / (splits * 2) >= 256) splits *= 2;
  return splits;
}
/// Bytes of their partial sums.
inline size_t gemm_workspace(int64_t batches, int64_t M, int64_t N, int64_t K) {
  int64_t splits = gemm_splits(batches, M, N, K);
  return splits > 1 ? size_t(splits * M * N) * 4 : 0;
}

}  // namespace dagrt
