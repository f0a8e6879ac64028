// Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC 2011): random words as
// a function of key and counter, hence of the element's index alone: any order, any thread, any vector width.
#pragma once
#include "kernels/kernel.h"

namespace dagrt {

/// Word w of block b comes from counter (b, counter, stream, step) and key (seed low, seed high);
/// element i is word i % 4 of block i / 4.
struct RandomArgs {
  void* out = nullptr;  // [n]
  int64_t n = 0;
  uint64_t seed = 0;
  uint32_t counter = 0, stream = 0, step = 0;
  // On CUDA devices the kernel reads seed and counter, and step where there is one, itself.
  const int64_t* state_at = nullptr;
  const int32_t* step_at = nullptr;
};

DAGRT_KERNEL(random_uniform, RandomArgs)  // float32 in [0, 1): (word >> 8) 2^-24
DAGRT_KERNEL(random_normal, RandomArgs)   // float32, Box-Muller on words 0, 1 and on words 2, 3
DAGRT_KERNEL(random_bits, RandomArgs)     // the words

/// One block, as the paper writes it: the oracle of the kernels.
inline void philox_block(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]}, k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; round++) {
    uint64_t p = uint64_t(0xD2511F53) * c[0], q = uint64_t(0xCD9E8D57) * c[2];
    uint32_t next[4] = {uint32_t(q >> 32) ^ c[1] ^ k0, uint32_t(q), uint32_t(p >> 32) ^ c[3] ^ k1, uint32_t(p)};
    for (int i = 0; i < 4; i++) c[i] = next[i];
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  for (int i = 0; i < 4; i++) out[i] = c[i];
}

/// The first n words of (seed, counter, stream) at step 0: what random_bits gives.
inline void philox_blocks(uint64_t seed, uint64_t counter, uint32_t stream, int64_t n, uint32_t* out) {
  const uint32_t key[2] = {uint32_t(seed), uint32_t(seed >> 32)};
  for (int64_t i = 0; i < n; i += 4) {
    uint32_t c[4] = {uint32_t(i / 4), uint32_t(counter), stream, 0}, words[4];
    philox_block(c, key, words);
    for (int64_t w = 0; w < 4 && i + w < n; w++) out[i + w] = words[w];
  }
}

}  // namespace dagrt
