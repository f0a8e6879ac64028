// Philox 4x32-10: a thread for each block of four words. Seed, counter and step are read from device memory. The arithmetic of
// kernels/cpu/random.cpp step by step, without contraction to multiply-add, so that the bits are the CPU's.
#include "kernels/random.h"

#include "kernels/cuda/common.cuh"

namespace dagrt {
namespace {

constexpr int threads = 256;

enum class Draw { bits, uniform, normal };

// Products and sums that the compiler may not contract.
DAGRT_DEVICE float mul(float a, float b) { return __fmul_rn(a, b); }
DAGRT_DEVICE float add(float a, float b) { return __fadd_rn(a, b); }
DAGRT_DEVICE float muladd(float a, float b, float c) { return add(mul(a, b), c); }

DAGRT_DEVICE float log_of(float u) {  // of (0, 1]
  int32_t bits = int32_t(float_to_bits(u)), e = (bits - 0x3f3504f3) >> 23;
  float f = add(bits_to_float(uint32_t(bits - (e << 23))), -1.0f), s = __fdiv_rn(f, add(f, 2.0f)), z = mul(s, s), n = float(e);
  float p = 1.0f / 9;
  p = muladd(p, z, 1.0f / 7);
  p = muladd(p, z, 1.0f / 5);
  p = muladd(p, z, 1.0f / 3);
  float m = mul(2.0f, s);
  return add(mul(n, 0.693145751953125f), add(m, add(mul(mul(m, z), p), mul(n, 1.428606765330187e-6f))));
}

/// cos and sin of 2 pi (word >> 8) 2^-24, reduced exactly in quarter turns.
DAGRT_DEVICE void turn(uint32_t word, float& cosine, float& sine) {
  float quarters = mul(float(int32_t(word >> 8)), 2.384185791015625e-7f);
  int32_t q = int32_t(add(quarters, 0.5f));
  float x = mul(add(quarters, -float(q)), 1.57079632679f), z = mul(x, x);
  float s = 2.7557319e-6f;
  s = add(mul(s, z), -1.9841270e-4f);
  s = add(mul(s, z), 8.3333333e-3f);
  s = add(mul(s, z), -1.6666667e-1f);
  s = add(mul(mul(s, z), x), x);
  float c = -2.7557319e-7f;
  c = add(mul(c, z), 2.4801587e-5f);
  c = add(mul(c, z), -1.3888889e-3f);
  c = add(mul(c, z), 4.1666667e-2f);
  c = add(mul(c, z), -0.5f);
  c = add(mul(c, z), 1.0f);
  bool odd = q & 1;
  cosine = bits_to_float(float_to_bits(odd ? s : c) ^ (uint32_t((q + 1) & 2) << 30));
  sine = bits_to_float(float_to_bits(odd ? c : s) ^ (uint32_t(q & 2) << 30));
}

template <Draw draw> __global__ void __launch_bounds__(threads) random_kernel(Gate gate, RandomArgs a) {
  if (closed(gate)) return;
  const uint64_t seed = uint64_t(a.state_at[0]);
  const uint32_t counter = uint32_t(a.state_at[1]), step = a.step_at ? uint32_t(*a.step_at) : 0;
  uint32_t* out = static_cast<uint32_t*>(a.out);
  for (int64_t block = first_index(); block * 4 < a.n; block += grid_stride()) {
    uint32_t c[4] = {uint32_t(block), counter, a.stream, step}, k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
    for (int round = 0; round < 10; round++) {
      uint32_t high_0 = __umulhi(0xD2511F53u, c[0]), low_0 = 0xD2511F53u * c[0];
      uint32_t high_2 = __umulhi(0xCD9E8D57u, c[2]), low_2 = 0xCD9E8D57u * c[2];
      c[0] = high_2 ^ c[1] ^ k0;
      c[1] = low_2;
      c[2] = high_0 ^ c[3] ^ k1;
      c[3] = low_0;
      k0 += 0x9E3779B9;
      k1 += 0xBB67AE85;
    }
    if constexpr (draw == Draw::uniform)
      for (uint32_t& w : c) w = float_to_bits(mul(float(int32_t(w >> 8)), 5.9604644775390625e-8f));
    if constexpr (draw == Draw::normal)
      for (int w = 0; w < 4; w += 2) {
        float u = mul(add(float(int32_t(c[w] >> 8)), 1.0f), 5.9604644775390625e-8f), cosine, sine;
        float r = __fsqrt_rn(mul(-2.0f, log_of(u)));
        turn(c[w + 1], cosine, sine);
        c[w] = float_to_bits(mul(r, cosine));
        c[w + 1] = float_to_bits(mul(r, sine));
      }
    for (int w = 0; w < 4; w++)
      if (block * 4 + w < a.n) out[block * 4 + w] = c[w];
  }
}

template <Draw draw> void generate(const char* name, const RandomArgs& a, CudaStream& s) {
  if (a.n == 0) return;
  launch(s, name, random_kernel<draw>, blocks_for(s, pieces(a.n, 4), threads), threads, a);
}

}  // namespace

void random_uniform(const RandomArgs& a, CudaStream& s) { generate<Draw::uniform>("random_uniform", a, s); }
void random_normal(const RandomArgs& a, CudaStream& s) { generate<Draw::normal>("random_normal", a, s); }
void random_bits(const RandomArgs& a, CudaStream& s) { generate<Draw::bits>("random_bits", a, s); }

}  // namespace dagrt
