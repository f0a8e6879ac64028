// Every functor of kernels/functors.h as a function over one strip: operands contiguous or, where the function says so,
// scalars. For pointwise.cpp alone, which walks tensors in strips.
#pragma once
#include "kernels/cpu/vec_math.h"
#include "kernels/functors.h"

namespace dagrt::DAGRT_ISA {
namespace {

// y, the inputs, a mask of those that are scalars (bit i: input i), elements
using Strip = void (*)(void* y, const void* const* x, unsigned scalars, int64_t n);

/// In that mask, of functions that `can_go_past`: y is written past the caches (vec.h) and begins at a vector's place.
constexpr unsigned past_caches = 1u << 31;
/// What takes no longer than this for an element waits for memory; others are no faster past the caches, but slower.
constexpr double light_ns = 0.1;

// ---------------------------------------------------------------- floats
/// f(i, n) for the vectors of y[0, count): what to store.
template <bool light, class F> DAGRT_INLINE void fill_strip(void* to, unsigned flags, int64_t count, const F& f) {
  float* y = static_cast<float*>(to);
  if (light && (flags & past_caches))
    each_vector(count, [&](int64_t i, int n) __attribute__((always_inline)) { put_n<true>(y + i, f(i, n), n); });
  else
    each_vector(count, [&](int64_t i, int n) __attribute__((always_inline)) { store_n(y + i, f(i, n), n); });
}

template <class F> void unary_strip(void* y, const void* const* x, unsigned flags, int64_t count) {
  const float* a = static_cast<const float*>(x[0]);
  fill_strip<F::light>(y, flags, count,
                       [&](int64_t i, int n) __attribute__((always_inline)) { return F::value(load_n(a + i, n)); });
}

template <class F> void binary_strip(void* y, const void* const* x, unsigned scalars, int64_t count) {
  const float *a = static_cast<const float*>(x[0]), *b = static_cast<const float*>(x[1]);
  if (scalars & 1) {
    const vf s = splat(*a);
    fill_strip<F::light>(y, scalars, count,
                         [&](int64_t i, int n) __attribute__((always_inline)) { return F::value(s, load_n(b + i, n)); });
  } else if (scalars & 2) {
    const vf s = splat(*b);
    fill_strip<F::light>(y, scalars, count,
                         [&](int64_t i, int n) __attribute__((always_inline)) { return F::value(load_n(a + i, n), s); });
  } else {
    fill_strip<F::light>(y, scalars, count, [&](int64_t i, int n) __attribute__((always_inline)) {
      return F::value(load_n(a + i, n), load_n(b + i, n));
    });
  }
}

typedef uint8_t vb __attribute__((vector_size(V)));
DAGRT_INLINE void store_mask(uint8_t* y, vi mask, int n) {
  vb bits = __builtin_convertvector(mask & splat_i(1), vb);
  if (n == V)
    __builtin_memcpy(y, &bits, V);
  else
    for (int i = 0; i < n; i++) y[i] = bits[i];
}

/// The bools of n lanes as a mask.
DAGRT_INLINE vi load_mask(const uint8_t* from, int n) {
  vb bits{};
  if (n == V)
    __builtin_memcpy(&bits, from, V);
  else
    for (int i = 0; i < n; i++) bits[i] = from[i];
  return __builtin_convertvector(bits, vi) != splat_i(0);
}

template <class F> void predicate_strip(void* yp, const void* const* x, unsigned, int64_t n) {
  uint8_t* y = static_cast<uint8_t*>(yp);
  const float* a = static_cast<const float*>(x[0]);
  int64_t i = 0;
  for (; i + V <= n; i += V) store_mask(y + i, F::value(load(a + i)), V);
  if (i < n) store_mask(y + i, F::value(load_n(a + i, int(n - i))), int(n - i));
}

template <class F> void compare_strip(void* yp, const void* const* x, unsigned scalars, int64_t n) {
  uint8_t* y = static_cast<uint8_t*>(yp);
  const float *a = static_cast<const float*>(x[0]), *b = static_cast<const float*>(x[1]);
  vf s = splat(scalars == 1 ? *a : *b);
  int64_t i = 0;
  for (; i + V <= n; i += V) store_mask(y + i, F::value(scalars & 1 ? s : load(a + i), scalars & 2 ? s : load(b + i)), V);
  int m = int(n - i);
  if (m) store_mask(y + i, F::value(scalars & 1 ? s : load_n(a + i, m), scalars & 2 ? s : load_n(b + i, m)), m);
}

// ---------------------------------------------------------------- integers
template <class T> struct Unsigned {
  using type = uint32_t;
};
template <> struct Unsigned<int64_t> {
  using type = uint64_t;
};

// Division by zero was refused before; here it must only not trap. The smallest integer by -1 wraps.
template <class T> DAGRT_INLINE T int_floor_divide(T a, T b) {
  using U = typename Unsigned<T>::type;
  if (b == T(0)) return T(0);
  if (T(-1) < T(0) && b == T(-1)) return T(U(0) - U(a));
  T q = T(a / b);
  return T(q - T((a % b != T(0)) && ((a < T(0)) != (b < T(0)))));
}
template <class T> DAGRT_INLINE T int_mod(T a, T b) {
  if (b == T(0) || (T(-1) < T(0) && b == T(-1))) return T(0);
  T r = T(a % b);
  return T(r + ((r != T(0)) && ((r < T(0)) != (b < T(0))) ? b : T(0)));
}
/// Negative exponents: 1 and -1 have powers, all else gives 0 (truncated).
template <class T> DAGRT_INLINE T int_power(T a, T b) {
  using U = typename Unsigned<T>::type;
  if (b < T(0)) return T(a == T(1) ? T(1) : T(-1) < T(0) && a == T(-1) ? (b & T(1) ? T(-1) : T(1)) : T(0));
  U r = 1, base = U(a);
  for (U e = U(b); e; e >>= 1) {
    if (e & 1) r *= base;
    base *= base;
  }
  return T(r);
}

template <class T, class R, class F> void int_unary_strip(void* yp, const void* const* x, unsigned, int64_t n) {
  R* y = static_cast<R*>(yp);
  const T* a = static_cast<const T*>(x[0]);
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) y[i] = R(F::template integer<T>(a[i]));
}
template <class T, class R, class F> void int_binary_strip(void* yp, const void* const* x, unsigned scalars, int64_t n) {
  R* y = static_cast<R*>(yp);
  const T *a = static_cast<const T*>(x[0]), *b = static_cast<const T*>(x[1]);
  if (scalars == 0) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) y[i] = R(F::template integer<T>(a[i], b[i]));
  } else if (scalars == 1) {
    T s = *a;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) y[i] = R(F::template integer<T>(s, b[i]));
  } else {
    T s = *b;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) y[i] = R(F::template integer<T>(a[i], s));
  }
}

// ---------------------------------------------------------------- the table's rows as types
#define DAGRT_ROW(name, equation, types, ns, expression, whole, gradient) \
  struct name##_f {                                                       \
    static constexpr bool light = ns <= light_ns;                         \
    DAGRT_INLINE static vf value(vf a) { return expression; }             \
    template <class T> DAGRT_INLINE static T integer(T a) {               \
      using U [[maybe_unused]] = typename Unsigned<T>::type;              \
      return T(whole);                                                    \
    }                                                                     \
  };
DAGRT_UNARY(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, equation, types, ns, expression, whole, ga, gb) \
  struct name##_f {                                                     \
    static constexpr bool light = ns <= light_ns;                       \
    DAGRT_INLINE static vf value(vf a, vf b) { return expression; }     \
    template <class T> DAGRT_INLINE static T integer(T a, T b) {        \
      using U [[maybe_unused]] = typename Unsigned<T>::type;            \
      return T(whole);                                                  \
    }                                                                   \
  };
DAGRT_BINARY(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, equation, expression)                                            \
  struct name##_f {                                                                      \
    DAGRT_INLINE static vi value(vf a, vf b) { return expression; }                      \
    template <class T> DAGRT_INLINE static bool integer(T a, T b) { return expression; } \
  };
DAGRT_COMPARE(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, equation, expression)                 \
  struct name##_f {                                           \
    DAGRT_INLINE static vi value(vf a) { return expression; } \
  };
DAGRT_PREDICATE(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, equation, expression)                                            \
  struct name##_f {                                                                      \
    template <class T> DAGRT_INLINE static T integer(T a, T b) { return T(expression); } \
  };
DAGRT_BITS(DAGRT_ROW)
#undef DAGRT_ROW
struct not_f {
  template <class T> DAGRT_INLINE static T integer(T a) { return T(a == T(0)); }
};

// ---------------------------------------------------------------- select, copy, cast
template <class T> void select_strip(void* yp, const void* const* x, unsigned scalars, int64_t n) {
  T* y = static_cast<T*>(yp);
  const uint8_t* c = static_cast<const uint8_t*>(x[0]);
  const T *a = static_cast<const T*>(x[1]), *b = static_cast<const T*>(x[2]);
  T s = *a, t = *b;
  if (sizeof(T) == sizeof(float) && (scalars & past_caches)) {
    const float *p = static_cast<const float*>(x[1]), *q = static_cast<const float*>(x[2]);
    const vf one = splat(*p), other = splat(*q);
    each_vector(n, [&](int64_t i, int lanes) __attribute__((always_inline)) {
      const vi chosen = load_mask(c + i, lanes);
      const vf u = scalars & 2 ? one : load_n(p + i, lanes), v = scalars & 4 ? other : load_n(q + i, lanes);
      put_n<true>(static_cast<float*>(yp) + i, select(chosen, u, v), lanes);
    });
  } else if (scalars == 0) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) {
      T p = a[i], q = b[i];
      y[i] = c[i] ? p : q;
    }
  } else if (scalars == 2) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) {
      T q = b[i];
      y[i] = c[i] ? s : q;
    }
  } else if (scalars == 4) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) {
      T p = a[i];
      y[i] = c[i] ? p : t;
    }
  } else {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) y[i] = c[i] ? s : t;
  }
}

template <class T> void copy_strip(void* y, const void* const* x, unsigned, int64_t n) {
  if (y != x[0]) __builtin_memmove(y, x[0], size_t(n) * sizeof(T));
}

template <class To, class From> DAGRT_INLINE To convert(From a) { return To(a); }
// float to integer: truncates, saturates, NaN gives 0
template <> DAGRT_INLINE int32_t convert(float a) {
  return a != a ? 0 : a >= 2147483648.0f ? INT32_MAX : a < -2147483648.0f ? INT32_MIN : int32_t(a);
}
template <> DAGRT_INLINE int64_t convert(float a) {
  return a != a ? 0 : a >= 9223372036854775808.0f ? INT64_MAX : a < -9223372036854775808.0f ? INT64_MIN : int64_t(a);
}
template <> DAGRT_INLINE uint8_t convert(float a) { return a > 0 ? (a >= 255 ? uint8_t(255) : uint8_t(a)) : uint8_t(0); }

template <class To, class From> void cast_strip(void* yp, const void* const* x, unsigned, int64_t n) {
  To* y = static_cast<To*>(yp);
  const From* a = static_cast<const From*>(x[0]);
  for (int64_t i = 0; i < n; i++) y[i] = convert<To>(a[i]);
}
template <class From> void cast_bool_strip(void* yp, const void* const* x, unsigned, int64_t n) {
  uint8_t* y = static_cast<uint8_t*>(yp);
  const From* a = static_cast<const From*>(x[0]);
  for (int64_t i = 0; i < n; i++) y[i] = a[i] != From(0);
}

template <class From> Strip cast_to(DType to) {
  switch (to) {
    case DType::int32: return cast_strip<int32_t, From>;
    case DType::int64: return cast_strip<int64_t, From>;
    case DType::uint8: return cast_strip<uint8_t, From>;
    case DType::bool_: return cast_bool_strip<From>;
    default: return cast_strip<float, From>;
  }
}

template <class T> Strip integer_strip(Functor f) {
  switch (f) {
#define DAGRT_ROW(name, ...) \
  case Functor::name##_: return int_unary_strip<T, T, name##_f>;
    DAGRT_UNARY(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, ...) \
  case Functor::name##_: return int_binary_strip<T, T, name##_f>;
    DAGRT_BINARY(DAGRT_ROW)
    DAGRT_BITS(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, ...) \
  case Functor::name##_: return int_binary_strip<T, uint8_t, name##_f>;
    DAGRT_COMPARE(DAGRT_ROW)
#undef DAGRT_ROW
    case Functor::logical_not_: return int_unary_strip<T, T, not_f>;
    default: return nullptr;
  }
}

Strip float_strip(Functor f) {
  switch (f) {
#define DAGRT_ROW(name, ...) \
  case Functor::name##_: return unary_strip<name##_f>;
    DAGRT_UNARY(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, ...) \
  case Functor::name##_: return binary_strip<name##_f>;
    DAGRT_BINARY(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, ...) \
  case Functor::name##_: return compare_strip<name##_f>;
    DAGRT_COMPARE(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, ...) \
  case Functor::name##_: return predicate_strip<name##_f>;
    DAGRT_PREDICATE(DAGRT_ROW)
#undef DAGRT_ROW
    default: return nullptr;
  }
}

Strip find_strip(Functor f, DType x, DType y) {
  size_t size = size_of(y);
  if (f == Functor::select_)
    return size == 1   ? select_strip<uint8_t>
           : size == 2 ? select_strip<uint16_t>
           : size == 4 ? select_strip<uint32_t>
                       : select_strip<uint64_t>;
  if (f == Functor::copy_)
    return size == 1   ? copy_strip<uint8_t>
           : size == 2 ? copy_strip<uint16_t>
           : size == 4 ? copy_strip<uint32_t>
                       : copy_strip<uint64_t>;
  if (f == Functor::cast_) {
    switch (x) {
      case DType::int32: return cast_to<int32_t>(y);
      case DType::int64: return cast_to<int64_t>(y);
      case DType::uint8:
      case DType::bool_: return cast_to<uint8_t>(y);
      default: return cast_to<float>(y);
    }
  }
  if (is_float(x)) return float_strip(f);
  switch (x) {
    case DType::int32: return integer_strip<int32_t>(f);
    case DType::int64: return integer_strip<int64_t>(f);
    default: return integer_strip<uint8_t>(f);
  }
}

/// Whether its strip takes `past_caches`.
bool can_go_past(Functor f, DType x, DType y) {
  if (x != DType::float32 || y != DType::float32) return false;
  switch (f) {
#define DAGRT_ROW(name, ...) \
  case Functor::name##_: return name##_f::light;
    DAGRT_UNARY(DAGRT_ROW)
    DAGRT_BINARY(DAGRT_ROW)
#undef DAGRT_ROW
    default: return f == Functor::select_;
  }
}

/// Which inputs may be scalars (bit i: input i), and how many of them at once.
DAGRT_INLINE unsigned may_be_scalar(int inputs) { return inputs == 2 ? 3u : inputs == 3 ? 6u : 0u; }
DAGRT_INLINE int most_scalars(int inputs) { return inputs - 1; }

}  // namespace
}  // namespace dagrt::DAGRT_ISA
