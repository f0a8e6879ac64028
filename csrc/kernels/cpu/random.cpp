// Philox 4x32-10, V blocks at a time, and what is made of its words: bits, uniform, normal.
//
// normal: r cos(2 pi t), r sin(2 pi t) with r = sqrt(-2 log u), u = ((a >> 8) + 1) 2^-24 in (0, 1], t = (b >> 8) 2^-24
// for words a, b. The angle is reduced exactly in turns; log and sine are polynomials here. No multiply-add is
// contracted in this file, so that every instruction set gives the same bits.
#pragma GCC optimize("fp-contract=off")

#include "kernels/random.h"

#include "kernels/cpu/vec.h"

namespace dagrt::DAGRT_ISA {
namespace {

constexpr int64_t piece = 4096;  // elements of a unit

DAGRT_INLINE vu splat_u(uint32_t x) { return x - vu{}; }

// V blocks from number `first` on; word w of block first + i in c[w][i].
DAGRT_INLINE void philox(const RandomArgs& a, uint32_t first, vu (&c)[4]) {
  vu lane{};
  for (int i = 0; i < V; i++) lane[i] = uint32_t(i);
  c[0] = splat_u(first) + lane;
  c[1] = splat_u(a.counter);
  c[2] = splat_u(a.stream);
  c[3] = splat_u(a.step);
  uint32_t k0 = uint32_t(a.seed), k1 = uint32_t(a.seed >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; round++) {
    vu p_high, p_low, q_high, q_low;
    multiply_wide(c[0], 0xD2511F53, p_high, p_low);
    multiply_wide(c[2], 0xCD9E8D57, q_high, q_low);
    c[0] = q_high ^ c[1] ^ splat_u(k0);
    c[1] = q_low;
    c[2] = p_high ^ c[3] ^ splat_u(k1);
    c[3] = p_low;
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
}

DAGRT_INLINE vf uniform(vu word) { return to_float((vi)(word >> 8)) * splat(5.9604644775390625e-8f); }

// log u for u in [2^-24, 1]: exponent and m in [sqrt(1/2), sqrt 2), log m = 2 atanh((m - 1) / (m + 1)) as a series.
DAGRT_INLINE vf log_of(vf u) {
  vi e = (as_i(u) - splat_i(0x3f3504f3)) >> 23;
  vf f = as_f(as_i(u) - (e << 23)) - splat(1.0f), s = f / (f + splat(2.0f)), z = s * s, n = to_float(e);
  vf p = splat(1.0f / 9);
  p = p * z + splat(1.0f / 7);
  p = p * z + splat(1.0f / 5);
  p = p * z + splat(1.0f / 3);
  vf m = splat(2.0f) * s;
  return n * splat(0.693145751953125f) + (m + (m * z * p + n * splat(1.428606765330187e-6f)));
}

// cos and sin of 2 pi (word >> 8) 2^-24.
DAGRT_INLINE void turn(vu word, vf& cosine, vf& sine) {
  vf quarters = to_float((vi)(word >> 8)) * splat(2.384185791015625e-7f);
  vi q = to_int(quarters + splat(0.5f));
  vf x = (quarters - to_float(q)) * splat(1.57079632679f), z = x * x;
  vf s = splat(2.7557319e-6f);
  s = s * z - splat(1.9841270e-4f);
  s = s * z + splat(8.3333333e-3f);
  s = s * z - splat(1.6666667e-1f);
  s = s * z * x + x;
  vf c = splat(-2.7557319e-7f);
  c = c * z + splat(2.4801587e-5f);
  c = c * z - splat(1.3888889e-3f);
  c = c * z + splat(4.1666667e-2f);
  c = c * z - splat(0.5f);
  c = c * z + splat(1.0f);
  vi odd = (q & splat_i(1)) != splat_i(0);
  cosine = as_f(as_i(select(odd, s, c)) ^ (((q + splat_i(1)) & splat_i(2)) << 30));
  sine = as_f(as_i(select(odd, c, s)) ^ ((q & splat_i(2)) << 30));
}

struct Bits {
  static DAGRT_INLINE void make(vu (&)[4]) {}
};

struct Uniform {
  static DAGRT_INLINE void make(vu (&c)[4]) {
    for (int w = 0; w < 4; w++) c[w] = (vu)uniform(c[w]);
  }
};

struct Normal {
  static DAGRT_INLINE void make(vu (&c)[4]) {
    for (int w = 0; w < 4; w += 2) {
      vf u = (to_float((vi)(c[w] >> 8)) + splat(1.0f)) * splat(5.9604644775390625e-8f), cosine, sine;
      vf r = vsqrt(splat(-2.0f) * log_of(u));
      turn(c[w + 1], cosine, sine);
      c[w] = (vu)(r * cosine);
      c[w + 1] = (vu)(r * sine);
    }
  }
};

// The first V lanes of (a0 b0 a1 b1 ...), and the last.
DAGRT_INLINE void zip(vu a, vu b, vu& low, vu& high) {
  vu l{}, h{};
  for (int i = 0; i < V; i++) {
    l[i] = uint32_t(i / 2 + (i % 2) * V);
    h[i] = uint32_t(i / 2 + V / 2 + (i % 2) * V);
  }
  low = __builtin_shuffle(a, b, l);
  high = __builtin_shuffle(a, b, h);
}

DAGRT_INLINE void store_blocks(uint32_t* out, const vu (&c)[4]) {
  vu even[2], odd[2], y[4];
  zip(c[0], c[2], even[0], even[1]);
  zip(c[1], c[3], odd[0], odd[1]);
  zip(even[0], odd[0], y[0], y[1]);
  zip(even[1], odd[1], y[2], y[3]);
  for (int w = 0; w < 4; w++) store_i(reinterpret_cast<int32_t*>(out) + w * V, (vi)y[w]);
}

template <class F> void generate(const RandomArgs& a, double ns, const Stream& s) {
  uint32_t* out = static_cast<uint32_t*>(a.out);
  s.parallel((a.n + piece - 1) / piece, piece * ns, [&](int64_t u, char*) {
    int64_t end = (u + 1) * piece < a.n ? (u + 1) * piece : a.n;
    vu c[4];
    for (int64_t i = u * piece; i < end; i += 4 * V) {
      philox(a, uint32_t(i / 4), c);
      F::make(c);
      if (i + 4 * V <= end) {
        store_blocks(out + i, c);
      } else {
        uint32_t last[4 * V];
        store_blocks(last, c);
        __builtin_memcpy(out + i, last, size_t(end - i) * sizeof(uint32_t));
      }
    }
  });
}

}  // namespace

void random_uniform(const RandomArgs& a, const Stream& s) { generate<Uniform>(a, 0.4, s); }
void random_normal(const RandomArgs& a, const Stream& s) { generate<Normal>(a, 0.9, s); }
void random_bits(const RandomArgs& a, const Stream& s) { generate<Bits>(a, 0.35, s); }

}  // namespace dagrt::DAGRT_ISA
