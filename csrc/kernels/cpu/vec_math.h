// Elementary functions on vectors of floats. No lane looks at another one, so a lane's result does not depend on
// where in a tensor its element stands. Polynomials are least-squares fits, reweighted towards minimax.
//
// Errors, in units of the last place (tests/native/test_pointwise.cpp): exp, log 2; expm1, log1p 3; tanh, sigmoid 3;
// erf 3; sin, cos 2 of the result where it is not near zero (absolute 1e-7 elsewhere). Denormal results may be zero.
// |x| > 12000 in sin and cos, and all rarely used functions, call the C library for each lane.
#pragma once
#include <math.h>

#include "kernels/cpu/vec.h"

namespace dagrt::DAGRT_ISA {

/// One call of the C library for each lane.
#define DAGRT_LANES1(name, f)                   \
  DAGRT_INLINE vf name(vf a) {                  \
    vf r = a;                                   \
    for (int i = 0; i < V; i++) r[i] = f(a[i]); \
    return r;                                   \
  }
#define DAGRT_LANES2(name, f)                         \
  DAGRT_INLINE vf name(vf a, vf b) {                  \
    vf r = a;                                         \
    for (int i = 0; i < V; i++) r[i] = f(a[i], b[i]); \
    return r;                                         \
  }
DAGRT_LANES1(vtan, __builtin_tanf)
DAGRT_LANES1(vasin, __builtin_asinf)
DAGRT_LANES1(vacos, __builtin_acosf)
DAGRT_LANES1(vatan, __builtin_atanf)
DAGRT_LANES1(vsinh, __builtin_sinhf)
DAGRT_LANES1(vcosh, __builtin_coshf)
DAGRT_LANES1(vasinh, __builtin_asinhf)
DAGRT_LANES1(vacosh, __builtin_acoshf)
DAGRT_LANES1(vatanh, __builtin_atanhf)
DAGRT_LANES2(vatan2, __builtin_atan2f)
DAGRT_LANES2(vpow, __builtin_powf)
DAGRT_LANES2(vfmod, __builtin_fmodf)

DAGRT_INLINE vf vsign_of(vf magnitude, vf sign) {  // |magnitude| with the sign of `sign`
  vi m = splat_i(int32_t(0x80000000));
  return as_f((as_i(magnitude) & ~m) | (as_i(sign) & m));
}
DAGRT_INLINE vi isnan_mask(vf a) { return a != a; }
DAGRT_INLINE vi isinf_mask(vf a) { return vabs(a) == splat(__builtin_inff()); }
DAGRT_INLINE vi isfinite_mask(vf a) { return vabs(a) < splat(__builtin_inff()); }

/// Half to even. Adding and taking away 2^23 rounds what is smaller; the rest has no fraction.
DAGRT_INLINE vf vround(vf a) {
  vf big = splat(8388608.0f), m = vabs(a);
  vf r = (m + big) - big;
  return select(m < big, vsign_of(r, a), a);
}
DAGRT_INLINE vf vfloor(vf a) {
  vf r = vround(a);
  return select(r > a, r - splat(1), r);
}
DAGRT_INLINE vf vceil(vf a) {
  vf r = vround(a);
  return vsign_of(select(r < a, r + splat(1), r), a);
}

/// Through 16 bits and back, as float_to_bf16 and float_to_half round.
DAGRT_INLINE vf vround_bfloat16(vf a) {
  const vu u = (vu)a, up = (u + ((u >> 16) & 1) + 0x7fff) & 0xffff0000u;
  return select(a == a, (vf)up, (vf)((u & 0xffff0000u) | 0x400000u));
}
/// Below 2^-14 halves are multiples of 2^-24, the last place of a float32 from 0.5 to 1.
DAGRT_INLINE vf vround_float16(vf a) {
  const vf m = vabs(a);
  const vu u = (vu)m, up = (u + ((u >> 13) & 1) + 0xfff) & 0xffffe000u;
  vf r = select(m < splat(6.103515625e-5f), (m + splat(0.5f)) - splat(0.5f), (vf)up);
  r = select(m >= splat(65520.0f), as_f(splat_i(0x7f800000)), r);
  return select(a == a, vsign_of(r, a), as_f((as_i(a) & splat_i(int32_t(0x80000000))) | splat_i(0x7fc00000)));
}

/// 2^n for integer lanes -126 <= n <= 127.
DAGRT_INLINE vf two_to(vi n) { return as_f((n + splat_i(127)) << 23); }

/// x = n ln 2 + r with |r| <= ln 2 / 2; n as float and integer. |x| < 2^20.
struct Reduced {
  vf r, nf;
  vi n;
};
DAGRT_INLINE Reduced reduce_ln2(vf x) {
  vf magic = splat(12582912.0f);  // 1.5 * 2^23: the sum's low bits are the rounded integer
  vf t = x * splat(1.44269504088896341f) + magic;
  Reduced z;
  z.n = as_i(t) - as_i(magic);
  z.nf = t - magic;
  z.r = (x - z.nf * splat(0.693359375f)) - z.nf * splat(-2.12194440e-4f);  // the first factor has 9 bits: exact
  return z;
}
/// (e^r - 1 - r) / r^2
DAGRT_INLINE vf exp_tail(vf r) {
  vf p = splat(1.395171725e-03f);
  p = p * r + splat(8.369598410e-03f);
  p = p * r + splat(4.166618728e-02f);
  p = p * r + splat(1.666651289e-01f);
  return p * r + splat(5.000000101e-01f);
}

DAGRT_INLINE vf vexp(vf x) {
  Reduced z = reduce_ln2(clamp(x, -104.0f, 89.0f));
  vf p = (z.r * z.r) * exp_tail(z.r) + z.r + splat(1);
  vi half = z.n >> 1;  // in two steps: 2^128 is no float
  return p * two_to(half) * two_to(z.n - half);
}

/// e^x for x <= 88, results below 2^-126 being 0: a softmax's powers, which are at most 1. NaN passes.
DAGRT_INLINE vf vexp_below(vf x) {
  x = clamp(x, -88.0296f, 88.0f);       // 2^-127, whose scale is 0
  const vf magic = splat(12583039.0f);  // 1.5 * 2^23 + 127: the sum's low bits are the exponent's
  const vf t = x * splat(1.44269504088896341f) + magic, n = t - magic;
  const vf r = (x - n * splat(0.693359375f)) - n * splat(-2.12194440e-4f);
  return ((r * r) * exp_tail(r) + r + splat(1)) * as_f(as_i(t) << 23);
}

/// x = n + f with |f| <= 1/2, for x within -126..127, and scale = 2^n. The bias of an exponent is added with the magic
/// number, so that the sum's low bits are those of 2^n.
struct Halved {
  vf f, scale;
};
DAGRT_INLINE Halved split_power(vf x) {
  const vf magic = splat(12583039.0f);  // 1.5 * 2^23 + 127
  vf t = x + magic;
  return {x - (t - magic), as_f(as_i(t) << 23)};
}
/// 1 + 2^x, x kept within -126..40: from there on its reciprocal is 0 next to anything, and three of them may be multiplied.
DAGRT_INLINE vf one_plus_power(vf x) {
  Halved z = split_power(clamp(x, -126, 40));
  vf p = splat(1.326472615e-03f);
  p = p * z.f + splat(9.671512991e-03f);
  p = p * z.f + splat(5.550733581e-02f);
  p = p * z.f + splat(2.402224243e-01f);
  p = p * z.f + splat(6.931470037e-01f);
  p = p * z.f + splat(1);
  return p * z.scale + splat(1);
}
/// 2^x - 1 without cancellation, x kept within -126..40.
DAGRT_INLINE vf power_minus_one(vf x) {
  Halved z = split_power(clamp(x, -126, 40));
  vf p = splat(1.535336196e-04f);
  p = p * z.f + splat(1.339887502e-03f);
  p = p * z.f + splat(9.618436918e-03f);
  p = p * z.f + splat(5.550332367e-02f);
  p = p * z.f + splat(2.402264774e-01f);
  p = p * z.f + splat(6.931471825e-01f);
  return (p * z.f) * z.scale + (z.scale - splat(1));
}

/// e^x - 1 without cancellation: 2^n (e^r - 1) + (2^n - 1).
DAGRT_INLINE vf vexpm1(vf x) {
  Reduced z = reduce_ln2(clamp(x, -30.0f, 89.0f));
  vf e = (z.r * z.r) * exp_tail(z.r) + z.r;
  vf s = two_to(z.n - splat_i(1));  // half of 2^n, which may be 2^128
  vf y = (e * s + (s - splat(0.5f))) * splat(2);
  return select(x == splat(0), x, y);
}

DAGRT_INLINE vf vlog(vf x) {
  // x = 2^e m with 2/3 <= m < 4/3
  vi offset = splat_i(0x3f2aaaab);
  vi e = (as_i(x) - offset) >> 23;
  vf m = as_f(as_i(x) - (e << 23));
  vf f = m - splat(1), n = to_float(e);
  vf p = splat(1.238177630e-01f);
  p = p * f + splat(-1.286739323e-01f);
  p = p * f + splat(1.065521019e-01f);
  p = p * f + splat(-1.219116309e-01f);
  p = p * f + splat(1.431337906e-01f);
  p = p * f + splat(-1.667987225e-01f);
  p = p * f + splat(1.999928784e-01f);
  p = p * f + splat(-2.499981468e-01f);
  p = p * f + splat(3.333333892e-01f);
  vf ff = f * f;
  vf y = (f * ff) * p + n * splat(-2.12194440e-4f);
  y = y - splat(0.5f) * ff;
  y = (f + y) + n * splat(0.693359375f);
  y = select(x == splat(0), splat(-__builtin_inff()), y);
  y = select(x < splat(0), splat(__builtin_nanf("")), y);
  return select((x == splat(__builtin_inff())) | (x != x), x, y);
}

/// log(1 + x): the rounding of u = 1 + x is put back as (x - (u - 1)) / u.
DAGRT_INLINE vf vlog1p(vf x) {
  vf u = splat(1) + x;
  vf c = (x - (u - splat(1))) / u;
  vf y = vlog(u);
  y = y + select(isfinite_mask(y), c, splat(0));
  return select(x == splat(0), x, y);
}

/// With m = e^(-2|x|) - 1: tanh |x| = -m / (m + 2).
DAGRT_INLINE vf vtanh(vf x) {
  vf m = vexpm1(splat(-2) * vabs(x));
  return vsign_of(m / (m + splat(2)), x);
}

/// One formula is good to the last places everywhere: e^(-x) overflows only where the result is denormal.
DAGRT_INLINE vf vsigmoid(vf x) { return splat(1) / (splat(1) + vexp(-x)); }

/// log(1 + e^x) = max(x, 0) + log(1 + e^(-|x|))
DAGRT_INLINE vf vsoftplus(vf x) { return vmax(x, splat(0)) + vlog1p(vexp(-vabs(x))); }

/// Below 1 an odd polynomial; from there 1 - e^q(|x|).
DAGRT_INLINE vf verf(vf x) {
  vf s = x * x;
  vf p = splat(7.889119502e-05f);
  p = p * s + splat(-8.020841270e-04f);
  p = p * s + splat(5.189535338e-03f);
  p = p * s + splat(-2.685444459e-02f);
  p = p * s + splat(1.128360018e-01f);
  p = p * s + splat(-3.761262714e-01f);
  p = p * s + splat(1.128379166e+00f);
  vf t = vabs(x);
  vf c = select(t > splat(4), splat(4), t);
  vf q = splat(-2.168677180e-05f);
  q = q * c + splat(4.413353502e-04f);
  q = q * c + splat(-4.204556203e-03f);
  q = q * c + splat(2.520823967e-02f);
  q = q * c + splat(-1.084185471e-01f);
  q = q * c + splat(-6.332199246e-01f);
  q = q * c + splat(-1.129578406e+00f);
  q = q * c + splat(1.880359355e-04f);
  return select(t < splat(1), x * p, vsign_of(splat(1) - vexp(q), x));
}

/// |x| <= 12000: x - n pi/2 in three steps whose products are exact, then a polynomial on [-pi/4, pi/4];
/// `quarter` turns are added (0: sine, 1: cosine). Beyond, and for inf, the C library.
template <class Slow> DAGRT_INLINE vf sine(vf x, int quarter, Slow slow) {
  vi far = vabs(x) > splat(12000);
  vf a = select(far, splat(0), x);
  vf magic = splat(12582912.0f);
  vf t = a * splat(0.636619772367581343f) + magic;
  vi n = as_i(t) - as_i(magic) + splat_i(quarter);
  vf nf = t - magic;
  vf r = ((a - nf * splat(1.5703125f)) - nf * splat(0.0004837512969970703f)) - nf * splat(7.549790126404332e-08f);
  vf s = r * r;
  vf p = splat(-1.951083813e-04f);
  p = p * s + splat(8.332131488e-03f);
  p = p * s + splat(-1.666665423e-01f);
  vf sn = (r * s) * p + r;
  vf q = splat(2.443120314e-05f);
  q = q * s + splat(-1.388730602e-03f);
  q = q * s + splat(4.166664565e-02f);
  vf cs = (s * s) * q + (splat(1) - splat(0.5f) * s);
  vf y = select((n & splat_i(1)) != splat_i(0), cs, sn);
  y = as_f(as_i(y) ^ ((n & splat_i(2)) << 30));
  uint64_t any[V / 2], seen = 0;
  __builtin_memcpy(any, &far, sizeof far);
  for (int i = 0; i < V / 2; i++) seen |= any[i];
  if (__builtin_expect(seen != 0, 0))
    for (int i = 0; i < V; i++)
      if (far[i]) y[i] = slow(x[i]);
  return y;
}
DAGRT_INLINE vf vsin(vf x) {
  return sine(x, 0, [](float v) __attribute__((always_inline)) { return __builtin_sinf(v); });
}
DAGRT_INLINE vf vcos(vf x) {
  return sine(x, 1, [](float v) __attribute__((always_inline)) { return __builtin_cosf(v); });
}

DAGRT_INLINE vf vsign(vf a) {
  vf y = select(a > splat(0), splat(1), select(a < splat(0), splat(-1), splat(0)));
  return select(a != a, a, y);
}

/// Python's % and //: the remainder has the divisor's sign. b = 0: NaN, and a / b.
DAGRT_INLINE vf vmod(vf a, vf b) {
  vf r = vfmod(a, b);
  vi wrong = (r != splat(0)) & ((r < splat(0)) != (b < splat(0)));
  r = select(wrong, r + b, r);
  return select(r == splat(0), vsign_of(r, b), r);
}
DAGRT_INLINE vf vfloor_divide(vf a, vf b) {
  vf r = vfmod(a, b);
  vi wrong = (r != splat(0)) & ((r < splat(0)) != (b < splat(0)));
  vf q = (a - r) / b - select(wrong, splat(1), splat(0));  // nearly an integer
  vf y = vround(q);
  return select(b == splat(0), a / b, y);
}

}  // namespace dagrt::DAGRT_ISA
