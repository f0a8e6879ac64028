// The only place that knows the vector width. GCC vector extensions; one width per instruction set:
// 16 floats (AVX-512), 8 (AVX2), 4 (portable: SSE2, NEON or whatever the compiler lowers to).
//   vf: floats   vi: int32 lanes of the same count   V: lanes
// Comparisons give vi masks of 0 / -1; `select(mask, a, b)`.
#pragma once
#include <cstdint>
#include <cstring>

#include "base/dtype.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

// DAGRT_V as a number for the preprocessor. Given from outside (the build option DAGRT_NARROW_AVX512), it is a width that the
// instructions in use do not have: the compiler splits vectors, so that a machine without AVX-512 can test its tiles.
#if defined(DAGRT_V)
#define DAGRT_SPLIT 1
#elif defined(__AVX512F__)
#define DAGRT_V 16
#elif defined(__AVX2__)
#define DAGRT_V 8
#else
#define DAGRT_V 4
#endif

#define DAGRT_INLINE inline __attribute__((always_inline))

namespace dagrt::DAGRT_ISA {

inline constexpr int V = DAGRT_V;

typedef float vf __attribute__((vector_size(V * 4)));
typedef int32_t vi __attribute__((vector_size(V * 4)));
typedef uint32_t vu __attribute__((vector_size(V * 4)));

DAGRT_INLINE vf splat(float x) { return x - vf{}; }
DAGRT_INLINE vi splat_i(int32_t x) { return x - vi{}; }
DAGRT_INLINE vf load(const float* p) {
  vf v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
DAGRT_INLINE void store(float* p, vf v) { __builtin_memcpy(p, &v, sizeof v); }
DAGRT_INLINE vi load_i(const int32_t* p) {
  vi v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
DAGRT_INLINE void store_i(int32_t* p, vi v) { __builtin_memcpy(p, &v, sizeof v); }

/// Keeps v in a register: of a loaded vector that serves several sums, GCC would load each one's operand anew. Worth it where
/// a cycle has no more loads than multiply-adds.
DAGRT_INLINE void keep(vf& v) {
#if defined(__AVX512F__)
  asm("" : "+v"(v));
#endif
}

/// Makes a pointer or an integer one of its own, which GCC does not reckon from another.
template <class T> DAGRT_INLINE void keep(T*& p) { asm("" : "+r"(p)); }
DAGRT_INLINE void keep(uint32_t& bits) { asm("" : "+r"(bits)); }

/// 0, 1, ..., V - 1.
DAGRT_INLINE vi lane_numbers() {
#if DAGRT_V == 16
  return vi{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#elif DAGRT_V == 8
  return vi{0, 1, 2, 3, 4, 5, 6, 7};
#else
  return vi{0, 1, 2, 3};
#endif
}
/// All bits of the first n lanes.
DAGRT_INLINE vi first_lanes(int n) { return lane_numbers() < splat_i(n); }

/// The first n lanes (0 <= n <= V), zero behind; reads no memory beyond them.
DAGRT_INLINE vf load_n(const float* p, int n) {
  if (n == V) return load(p);
#if defined(__AVX512F__)
  return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#elif defined(__AVX2__) && !defined(DAGRT_SPLIT)
  return (vf)_mm256_maskload_ps(p, (__m256i)first_lanes(n));
#else
  vf v{};
  for (int i = 0; i < n; i++) v[i] = p[i];
  return v;
#endif
}
DAGRT_INLINE void store_n(float* p, vf v, int n) {
  if (n == V) return store(p, v);
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#elif defined(__AVX2__) && !defined(DAGRT_SPLIT)  // in pieces: a masked store costs some 40 cycles on AMD
  __m128 part = _mm256_castps256_ps128((__m256)v);
  if (n & 4) {
    _mm_storeu_ps(p, part);
    part = _mm256_extractf128_ps((__m256)v, 1);
    p += 4;
  }
  if (n & 2) {
    _mm_storel_pi(reinterpret_cast<__m64*>(p), part);
    part = _mm_movehl_ps(part, part);
    p += 2;
  }
  if (n & 1) _mm_store_ss(p, part);
#else
  for (int i = 0; i < n; i++) p[i] = v[i];
#endif
}

/// A whole vector past the caches, to a place that is a multiple of its size. A line written whole this way is not read from
/// memory first, and puts nothing else out of the caches.
DAGRT_INLINE void store_past(float* p, vf v) {
#if defined(__AVX512F__)
  _mm512_stream_ps(p, (__m512)v);
#elif defined(__AVX2__) && !defined(DAGRT_SPLIT)
  _mm256_stream_ps(p, (__m256)v);
#else
  store(p, v);
#endif
}
/// Behind the last store_past of a unit: other threads see them all.
DAGRT_INLINE void finish_past() {
#if defined(__AVX512F__) || defined(__AVX2__)
  _mm_sfence();
#endif
}
/// store_n, with `past` to such a place.
template <bool past> DAGRT_INLINE void put_n(float* p, vf v, int n) {
  if (past && n == V)
    store_past(p, v);
  else
    store_n(p, v, n);
}
/// Whether rows of n floats, ld apart, hold whole vectors at places that are multiples of their size.
inline bool whole_places(const float* to, int64_t ld, int64_t n) {
  return n >= V && ld % V == 0 && reinterpret_cast<uintptr_t>(to) % (V * sizeof(float)) == 0;
}
/// Whether `rows` rows of n floats, ld apart, are better written past the caches by a kernel that touches `all` floats: where
/// those do not stay in a cache until somebody reads them, and on whole vectors' places.
inline bool goes_past(const float* to, int64_t ld, int64_t rows, int64_t n, int64_t all) {
  constexpr int64_t much = int64_t(2) << 20, too_much = int64_t(3) << 20;  // 8 and 12 MB
  return whole_places(to, ld, n) && rows * n >= much && all >= too_much;
}

/// f(i, n) for the vectors of [0, count): n is V but for the last.
template <class F> DAGRT_INLINE void each_vector(int64_t count, const F& f) {
  int64_t i = 0;
  for (; i + V <= count; i += V) f(i, V);
  if (i < count) f(i, int(count - i));
}

inline void zero(float* to, int64_t n) {
  each_vector(n, [&](int64_t i, int lanes) __attribute__((always_inline)) { store_n(to + i, vf{}, lanes); });
}
/// From null: zeros.
inline void copy(float* to, const float* from, int64_t n) {
  if (!from) return zero(to, n);
  each_vector(n, [&](int64_t i, int lanes) __attribute__((always_inline)) { store_n(to + i, load_n(from + i, lanes), lanes); });
}
/// The first whole vector of a workspace: what comes from the arena or as scratch may begin anywhere.
inline float* aligned(char* p) { return reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(p) + 63) / 64 * 64); }

DAGRT_INLINE vf as_f(vi v) { return (vf)v; }
DAGRT_INLINE vi as_i(vf v) { return (vi)v; }
DAGRT_INLINE vf select(vi mask, vf a, vf b) { return mask ? a : b; }
DAGRT_INLINE vi select_i(vi mask, vi a, vi b) { return mask ? a : b; }
/// NaN in either operand gives NaN (as NumPy's maximum and minimum).
DAGRT_INLINE vf vmax(vf a, vf b) {
#if defined(__AVX512F__)  // the instruction gives b where either is NaN
  return select(a != a, a, (vf)_mm512_maskz_max_ps((__mmask16)-1, (__m512)a, (__m512)b));
#elif defined(__AVX2__) && !defined(DAGRT_SPLIT)
  return select(a != a, a, (vf)_mm256_max_ps((__m256)a, (__m256)b));
#else
  return select((a > b) | (a != a), a, b);
#endif
}
DAGRT_INLINE vf vmin(vf a, vf b) {
#if defined(__AVX512F__)
  return select(a != a, a, (vf)_mm512_maskz_min_ps((__mmask16)-1, (__m512)a, (__m512)b));
#elif defined(__AVX2__) && !defined(DAGRT_SPLIT)
  return select(a != a, a, (vf)_mm256_min_ps((__m256)a, (__m256)b));
#else
  return select((a < b) | (a != a), a, b);
#endif
}
/// The larger, or b, also where either is NaN: one instruction.
DAGRT_INLINE vf larger(vf a, vf b) {
#if defined(__AVX512F__)
  return (vf)_mm512_maskz_max_ps((__mmask16)-1, (__m512)a, (__m512)b);
#elif defined(__AVX2__) && !defined(DAGRT_SPLIT)
  return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return select(a > b, a, b);
#endif
}
/// t + g in the lanes where a and b are equal, t in the others.
DAGRT_INLINE vf add_where_equal(vi a, vi b, vf t, vf g) {
#if defined(__AVX512F__)
  return (vf)_mm512_mask_add_ps((__m512)t, _mm512_cmpeq_epi32_mask((__m512i)a, (__m512i)b), (__m512)t, (__m512)g);
#else
  return t + as_f(as_i(g) & (a == b));
#endif
}
DAGRT_INLINE bool has_nan(vf a) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)a, (__m512)a, _CMP_UNORD_Q) != 0;
#elif defined(__AVX2__) && !defined(DAGRT_SPLIT)
  return _mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)a, _CMP_UNORD_Q)) != 0;
#else
  const vi nan = a != a;
  int64_t any[V / 2], seen = 0;
  __builtin_memcpy(any, &nan, sizeof nan);
  for (int i = 0; i < V / 2; i++) seen |= any[i];
  return seen != 0;
#endif
}
/// Between the limits; NaN stays NaN, at an instruction for each side.
DAGRT_INLINE vf clamp(vf a, float low, float high) {
#if defined(__AVX512F__)  // where either is NaN these give their second operand
  a = (vf)_mm512_maskz_max_ps((__mmask16)-1, (__m512)splat(low), (__m512)a);
  return (vf)_mm512_maskz_min_ps((__mmask16)-1, (__m512)splat(high), (__m512)a);
#elif defined(__AVX2__) && !defined(DAGRT_SPLIT)
  return (vf)_mm256_min_ps((__m256)splat(high), _mm256_max_ps((__m256)splat(low), (__m256)a));
#else
  a = select(a < splat(low), splat(low), a);
  return select(a > splat(high), splat(high), a);
#endif
}
/// At least zero; NaN stays NaN.
DAGRT_INLINE vf relu(vf a) { return larger(vf{}, a); }
/// At most `most`; NaN stays NaN, at one instruction: where either is NaN it gives its second operand.
DAGRT_INLINE vf at_most(vf a, vf most) {
#if defined(__AVX512F__)
  return (vf)_mm512_maskz_min_ps((__mmask16)-1, (__m512)most, (__m512)a);
#elif defined(__AVX2__) && !defined(DAGRT_SPLIT)
  return (vf)_mm256_min_ps((__m256)most, (__m256)a);
#else
  return select(a > most, most, a);
#endif
}
DAGRT_INLINE vf vabs(vf a) { return (vf)((vi)a & splat_i(0x7fffffff)); }
DAGRT_INLINE vf to_float(vi a) { return __builtin_convertvector(a, vf); }
DAGRT_INLINE vi to_int(vf a) { return __builtin_convertvector(a, vi); }  // truncates

DAGRT_INLINE vf vsqrt(vf a) {
#if defined(__AVX512F__)
  return (vf)_mm512_maskz_sqrt_ps((__mmask16)-1, (__m512)a);  // the plain form warns in GCC 12
#elif defined(__AVX2__) && !defined(DAGRT_SPLIT)
  return (vf)_mm256_sqrt_ps((__m256)a);
#else
  vf r;
  for (int i = 0; i < V; i++) r[i] = __builtin_sqrtf(a[i]);
  return r;
#endif
}

/// The halves of the 64-bit products a * m, for each lane.
DAGRT_INLINE void multiply_wide(vu a, uint32_t m, vu& high, vu& low) {
  low = a * m;
#if defined(__AVX512F__)
  __m512i b = _mm512_set1_epi32(int(m)), even = _mm512_maskz_mul_epu32((__mmask8)-1, (__m512i)a, b);
  __m512i odd = _mm512_maskz_mul_epu32((__mmask8)-1, _mm512_maskz_srli_epi64((__mmask8)-1, (__m512i)a, 32), b);
  high = (vu)_mm512_mask_blend_epi32((__mmask16)0xaaaa, _mm512_maskz_srli_epi64((__mmask8)-1, even, 32), odd);
#elif defined(__AVX2__) && !defined(DAGRT_SPLIT)
  __m256i b = _mm256_set1_epi32(int(m)), even = _mm256_mul_epu32((__m256i)a, b);
  __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64((__m256i)a, 32), b);
  high = (vu)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
#else
  for (int i = 0; i < V; i++) high[i] = uint32_t((uint64_t(a[i]) * m) >> 32);
#endif
}

/// Lane i of the result is lane i ^ w of v.
DAGRT_INLINE vf swap_lanes(vf v, int w) { return __builtin_shuffle(v, lane_numbers() ^ splat_i(w)); }
/// v[i][l] becomes v[l][i].
DAGRT_INLINE void transpose_lanes(vf (&v)[V]) {
  const vi lane = lane_numbers();
#pragma GCC unroll 4
  for (int w = 1; w < V; w *= 2) {
    // Lanes whose bit w is set change places with those of the partner row where it is clear.
    const vi set = (lane & splat_i(w)) != splat_i(0);
    const vi low = select_i(set, (lane ^ splat_i(w)) + splat_i(V), lane),
             high = select_i(set, lane + splat_i(V), lane ^ splat_i(w));
#pragma GCC unroll 16
    for (int i = 0; i < V; i++) {
      if (i & w) continue;
      vf p = v[i], q = v[i | w];
      v[i] = __builtin_shuffle(p, q, low);
      v[i | w] = __builtin_shuffle(p, q, high);
    }
  }
}

/// Horizontal sum and maximum, in a fixed tree order.
DAGRT_INLINE float sum(vf v) {
#pragma GCC unroll 4
  for (int w = V / 2; w; w /= 2) v += swap_lanes(v, w);
  return v[0];
}
/// Of lanes that hold no NaN.
DAGRT_INLINE float hmax(vf v) {
#pragma GCC unroll 4
  for (int w = V / 2; w; w /= 2) v = larger(v, swap_lanes(v, w));
  return v[0];
}

// 16-bit floats are storage: widened on load, rounded to nearest even on store.
DAGRT_INLINE float bf16_to_float(uint16_t h) {
  uint32_t u = uint32_t(h) << 16;
  float f;
  __builtin_memcpy(&f, &u, 4);
  return f;
}
DAGRT_INLINE uint16_t float_to_bf16(float f) {
  uint32_t u;
  __builtin_memcpy(&u, &f, 4);
  if (f != f) return uint16_t((u >> 16) | 0x40);
  return uint16_t((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
DAGRT_INLINE float half_to_float(uint16_t h) {
  uint32_t sign = uint32_t(h & 0x8000) << 16, e = (h >> 10) & 31, m = h & 1023, u;
  if (e == 31)
    u = sign | 0x7f800000 | (m << 13);
  else if (e)
    u = sign | ((e + 112) << 23) | (m << 13);
  else {  // zero or denormal: m * 2^-24, exact in float32
    float f = float(int(m)) * 5.9604644775390625e-8f;
    __builtin_memcpy(&u, &f, 4);
    u |= sign;
  }
  float f;
  __builtin_memcpy(&f, &u, 4);
  return f;
}
DAGRT_INLINE uint16_t float_to_half(float f) {
  uint32_t u;
  __builtin_memcpy(&u, &f, 4);
  uint32_t sign = (u >> 16) & 0x8000;
  u &= 0x7fffffff;
  if (u > 0x7f800000) return uint16_t(sign | 0x7e00);   // NaN
  if (u >= 0x477ff000) return uint16_t(sign | 0x7c00);  // rounds to infinity
  if (u < 0x38800000) {                                 // denormal half: scaled by 2^24, ties to even
    if (u < 0x33000001) return uint16_t(sign);
    uint32_t e = u >> 23, m = (u & 0x7fffff) | 0x800000, shift = 126 - e;
    uint32_t r = m >> shift, rest = m & ((1u << shift) - 1), half = 1u << (shift - 1);
    if (rest > half || (rest == half && (r & 1))) r++;
    return uint16_t(sign | r);
  }
  u += 0xfff + ((u >> 13) & 1);
  return uint16_t(sign | ((u - 0x38000000) >> 13));
}

}  // namespace dagrt::DAGRT_ISA
