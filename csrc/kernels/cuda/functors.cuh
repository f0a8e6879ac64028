// The rows of kernels/functors.h on scalars: the names that the rows use, then the table as one switch for floats and one
// for integers. A warp takes one branch, since all its threads run the same functor.
#pragma once
#include <math.h>

#include "kernels/cuda/common.cuh"
#include "kernels/functors.h"

namespace dagrt {
namespace {

DAGRT_DEVICE float splat(float x) { return x; }
DAGRT_DEVICE float vabs(float a) { return fabsf(a); }
DAGRT_DEVICE float vsqrt(float a) { return sqrtf(a); }
DAGRT_DEVICE float vexp(float a) { return expf(a); }
DAGRT_DEVICE float vexpm1(float a) { return expm1f(a); }
DAGRT_DEVICE float vlog(float a) { return logf(a); }
DAGRT_DEVICE float vlog1p(float a) { return log1pf(a); }
DAGRT_DEVICE float vsin(float a) { return sinf(a); }
DAGRT_DEVICE float vcos(float a) { return cosf(a); }
DAGRT_DEVICE float vtan(float a) { return tanf(a); }
DAGRT_DEVICE float vasin(float a) { return asinf(a); }
DAGRT_DEVICE float vacos(float a) { return acosf(a); }
DAGRT_DEVICE float vatan(float a) { return atanf(a); }
DAGRT_DEVICE float vsinh(float a) { return sinhf(a); }
DAGRT_DEVICE float vcosh(float a) { return coshf(a); }
DAGRT_DEVICE float vasinh(float a) { return asinhf(a); }
DAGRT_DEVICE float vacosh(float a) { return acoshf(a); }
DAGRT_DEVICE float vatanh(float a) { return atanhf(a); }
DAGRT_DEVICE float vtanh(float a) { return tanhf(a); }
DAGRT_DEVICE float vsigmoid(float a) { return 1.0f / (1.0f + expf(-a)); }
DAGRT_DEVICE float verf(float a) { return erff(a); }
DAGRT_DEVICE float vfloor(float a) { return floorf(a); }
DAGRT_DEVICE float vceil(float a) { return ceilf(a); }
DAGRT_DEVICE float vround(float a) { return rintf(a); }
DAGRT_DEVICE float vround_bfloat16(float a) {
  Bf16 y;
  narrow(a, y);
  return widen(y);
}
DAGRT_DEVICE float vround_float16(float a) {
  Half y;
  narrow(a, y);
  return widen(y);
}
DAGRT_DEVICE float vpow(float a, float b) { return powf(a, b); }
DAGRT_DEVICE float vatan2(float a, float b) { return atan2f(a, b); }
DAGRT_DEVICE float vsign(float a) { return a != a ? a : a > 0 ? 1.0f : a < 0 ? -1.0f : 0.0f; }
DAGRT_DEVICE float vmax(float a, float b) { return a != a ? a : b != b ? b : a > b ? a : b; }
DAGRT_DEVICE float vmin(float a, float b) { return a != a ? a : b != b ? b : a < b ? a : b; }
DAGRT_DEVICE float vsoftplus(float a) { return vmax(a, 0.0f) + log1pf(expf(-fabsf(a))); }
/// Python's % and //: the remainder has the divisor's sign. b = 0: NaN, and a / b.
DAGRT_DEVICE float vmod(float a, float b) {
  float r = fmodf(a, b);
  if (r != 0 && (r < 0) != (b < 0)) r += b;
  return r == 0 ? copysignf(r, b) : r;
}
DAGRT_DEVICE float vfloor_divide(float a, float b) {
  if (b == 0) return a / b;
  float r = fmodf(a, b), q = (a - r) / b;
  if (r != 0 && (r < 0) != (b < 0)) q -= 1.0f;
  return rintf(q);
}
DAGRT_DEVICE bool isnan_mask(float a) { return a != a; }
DAGRT_DEVICE bool isinf_mask(float a) { return fabsf(a) == INFINITY; }
DAGRT_DEVICE bool isfinite_mask(float a) { return fabsf(a) < INFINITY; }

// Division by zero was refused before; here it must only not trap. The smallest integer by -1 wraps.
template <class T> DAGRT_DEVICE T int_floor_divide(T a, T b) {
  using U = typename Unsigned<T>::type;
  if (b == T(0)) return T(0);
  if (T(-1) < T(0) && b == T(-1)) return T(U(0) - U(a));
  return T(T(a / b) - T((a % b != T(0)) && ((a < T(0)) != (b < T(0)))));
}
template <class T> DAGRT_DEVICE T int_mod(T a, T b) {
  if (b == T(0) || (T(-1) < T(0) && b == T(-1))) return T(0);
  T r = T(a % b);
  return T(r + ((r != T(0)) && ((r < T(0)) != (b < T(0))) ? b : T(0)));
}
template <class T> DAGRT_DEVICE T int_power(T a, T b) {
  using U = typename Unsigned<T>::type;
  if (b < T(0)) return T(a == T(1) ? T(1) : T(-1) < T(0) && a == T(-1) ? (b & T(1) ? T(-1) : T(1)) : T(0));
  U r = 1, base = U(a);
  for (U e = U(b); e; e >>= 1) {
    if (e & 1) r *= base;
    base *= base;
  }
  return T(r);
}

/// a[i] = f(a[i], b[i], c[i]). Long expressions are compiled once, elements moving through a[0]; short ones side by side.
template <bool once, int n, class F> DAGRT_DEVICE void apply_each(float (&a)[n], float (&b)[n], float (&c)[n], const F& f) {
  if constexpr (once && n > 1) {
#pragma unroll 1
    for (int i = 0; i < n; i++) {
      const float y = f(a[0], b[0], c[0]);
      for (int k = 0; k + 1 < n; k++) a[k] = a[k + 1], b[k] = b[k + 1], c[k] = c[k + 1];
      a[n - 1] = y;
    }
  } else {
    for (int i = 0; i < n; i++) a[i] = f(a[i], b[i], c[i]);
  }
}

/// Any functor whose operands are float32 or bool (0 and 1); so is its result, in place of the first. select: (c, a, b).
template <int n> DAGRT_DEVICE void apply(Functor functor, float (&x)[n], float (&y)[n], float (&z)[n]) {
  switch (functor) {
#define DAGRT_ROW(name, equation, types, ns, expression, ...)                                                            \
  case Functor::name##_: {                                                                                               \
    constexpr bool once = ns > 0.3;                                                                                      \
    return apply_each<once>(x, y, z, [](float a, [[maybe_unused]] float b, float) { return expression; });               \
  }
    DAGRT_UNARY(DAGRT_ROW)
    DAGRT_BINARY(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, equation, expression) \
  case Functor::name##_: return apply_each<false>(x, y, z, [](float a, [[maybe_unused]] float b, float) { return (expression) ? 1.0f : 0.0f; });
    DAGRT_COMPARE(DAGRT_ROW)
    DAGRT_PREDICATE(DAGRT_ROW)
#undef DAGRT_ROW
    case Functor::bitwise_and_:
    case Functor::logical_and_:
      return apply_each<false>(x, y, z, [](float a, float b, float) { return a != 0 && b != 0 ? 1.0f : 0.0f; });
    case Functor::bitwise_or_:
    case Functor::logical_or_:
      return apply_each<false>(x, y, z, [](float a, float b, float) { return a != 0 || b != 0 ? 1.0f : 0.0f; });
    case Functor::bitwise_xor_:
    case Functor::logical_xor_:
      return apply_each<false>(x, y, z, [](float a, float b, float) { return (a != 0) != (b != 0) ? 1.0f : 0.0f; });
    case Functor::logical_not_: return apply_each<false>(x, y, z, [](float a, float, float) { return a != 0 ? 0.0f : 1.0f; });
    case Functor::select_: return apply_each<false>(x, y, z, [](float a, float b, float c) { return a != 0 ? b : c; });
    default: return;  // cast from bool, copy
  }
}
DAGRT_DEVICE float apply(Functor f, float a, float b, float c) {
  float x[1] = {a}, y[1] = {b}, z[1] = {c};
  apply(f, x, y, z);
  return x[0];
}

template <class T> DAGRT_DEVICE T apply_integer(Functor f, T a, T b) {
  using U = typename Unsigned<T>::type;
  switch (f) {
#define DAGRT_ROW(name, equation, types, ns, expression, whole, ...) \
  case Functor::name##_: return T(whole);
    DAGRT_UNARY(DAGRT_ROW)
    DAGRT_BINARY(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, equation, expression) \
  case Functor::name##_: return T(expression);
    DAGRT_COMPARE(DAGRT_ROW)
    DAGRT_BITS(DAGRT_ROW)
#undef DAGRT_ROW
    case Functor::logical_not_: return T(a == T(0));
    default: return a;
  }
}

}  // namespace
}  // namespace dagrt
