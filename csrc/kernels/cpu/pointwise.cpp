// Pointwise functions with broadcasting.
//
// Axes that lie behind one another in every operand are merged first; what remains is cut into strips of at most
// `strip_elements` elements, and every functor is a function over one strip: operands contiguous, or (of two, at most
// one) a scalar. Strips stay inside one innermost row where rows are long. Where they are short (a bias of 3 channels),
// a strip covers many rows, and operands that are not contiguous over it are gathered into a buffer in L1: a call per
// row would cost more than the work. 16-bit floats pass through such a buffer too, as float32.
// A lane's value depends on its own operands alone: neither strips nor threads nor broadcasting change a bit.
#include "kernels/pointwise.h"

#include "kernels/cpu/vec_math.h"

namespace dagrt::DAGRT_ISA {
namespace {

constexpr int64_t strip_elements = 1024;
constexpr int64_t strips_per_unit = 8;
constexpr double memory_ns = 0.3;  // to read and write an element

// y, the inputs, a mask of those that are scalars (bit i: input i), elements
using Strip = void (*)(void* y, const void* const* x, unsigned scalars, int64_t n);

// ---------------------------------------------------------------- floats
template <class F> void unary_strip(void* yp, const void* const* x, unsigned, int64_t n) {
  float* y = static_cast<float*>(yp);
  const float* a = static_cast<const float*>(x[0]);
  int64_t i = 0;
  for (; i + V <= n; i += V) store(y + i, F::value(load(a + i)));
  if (i < n) store_n(y + i, F::value(load_n(a + i, int(n - i))), int(n - i));
}

template <class F> void binary_strip(void* yp, const void* const* x, unsigned scalars, int64_t n) {
  float* y = static_cast<float*>(yp);
  const float *a = static_cast<const float*>(x[0]), *b = static_cast<const float*>(x[1]);
  int64_t i = 0;
  if (scalars == 0) {
    for (; i + V <= n; i += V) store(y + i, F::value(load(a + i), load(b + i)));
    if (i < n) store_n(y + i, F::value(load_n(a + i, int(n - i)), load_n(b + i, int(n - i))), int(n - i));
  } else if (scalars == 1) {
    vf s = splat(*a);
    for (; i + V <= n; i += V) store(y + i, F::value(s, load(b + i)));
    if (i < n) store_n(y + i, F::value(s, load_n(b + i, int(n - i))), int(n - i));
  } else {
    vf s = splat(*b);
    for (; i + V <= n; i += V) store(y + i, F::value(load(a + i), s));
    if (i < n) store_n(y + i, F::value(load_n(a + i, int(n - i)), s), int(n - i));
  }
}

typedef uint8_t vb __attribute__((vector_size(V)));
DAGRT_INLINE void store_mask(uint8_t* y, vi mask, int n) {
  vb bits = __builtin_convertvector(mask & splat_i(1), vb);
  if (n == V) __builtin_memcpy(y, &bits, V);
  else
    for (int i = 0; i < n; i++) y[i] = bits[i];
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
  for (; i + V <= n; i += V)
    store_mask(y + i, F::value(scalars & 1 ? s : load(a + i), scalars & 2 ? s : load(b + i)), V);
  int m = int(n - i);
  if (m) store_mask(y + i, F::value(scalars & 1 ? s : load_n(a + i, m), scalars & 2 ? s : load_n(b + i, m)), m);
}

// ---------------------------------------------------------------- integers
template <class T> struct Unsigned { using type = uint32_t; };
template <> struct Unsigned<int64_t> { using type = uint64_t; };

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
#define DAGRT_ROW(name, equation, types, ns, expression, whole, gradient)                 \
  struct name##_f {                                                                       \
    DAGRT_INLINE static vf value(vf a) { return expression; }                             \
    template <class T> DAGRT_INLINE static T integer(T a) {                               \
      using U [[maybe_unused]] = typename Unsigned<T>::type;                              \
      return T(whole);                                                                    \
    }                                                                                     \
  };
DAGRT_UNARY(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, equation, types, ns, expression, whole, ga, gb)                   \
  struct name##_f {                                                                       \
    DAGRT_INLINE static vf value(vf a, vf b) { return expression; }                       \
    template <class T> DAGRT_INLINE static T integer(T a, T b) {                          \
      using U [[maybe_unused]] = typename Unsigned<T>::type;                              \
      return T(whole);                                                                    \
    }                                                                                     \
  };
DAGRT_BINARY(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, equation, expression)                                             \
  struct name##_f {                                                                       \
    DAGRT_INLINE static vi value(vf a, vf b) { return expression; }                       \
    template <class T> DAGRT_INLINE static bool integer(T a, T b) { return expression; }  \
  };
DAGRT_COMPARE(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, equation, expression)                                             \
  struct name##_f {                                                                       \
    DAGRT_INLINE static vi value(vf a) { return expression; }                             \
  };
DAGRT_PREDICATE(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, equation, expression)                                             \
  struct name##_f {                                                                       \
    template <class T> DAGRT_INLINE static T integer(T a, T b) { return T(expression); }  \
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
  if (scalars == 0) {
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
#define DAGRT_ROW(name, ...) case Functor::name##_: return int_unary_strip<T, T, name##_f>;
    DAGRT_UNARY(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, ...) case Functor::name##_: return int_binary_strip<T, T, name##_f>;
    DAGRT_BINARY(DAGRT_ROW)
    DAGRT_BITS(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, ...) case Functor::name##_: return int_binary_strip<T, uint8_t, name##_f>;
    DAGRT_COMPARE(DAGRT_ROW)
#undef DAGRT_ROW
    case Functor::logical_not_: return int_unary_strip<T, T, not_f>;
    default: return nullptr;
  }
}

Strip float_strip(Functor f) {
  switch (f) {
#define DAGRT_ROW(name, ...) case Functor::name##_: return unary_strip<name##_f>;
    DAGRT_UNARY(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, ...) case Functor::name##_: return binary_strip<name##_f>;
    DAGRT_BINARY(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, ...) case Functor::name##_: return compare_strip<name##_f>;
    DAGRT_COMPARE(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, ...) case Functor::name##_: return predicate_strip<name##_f>;
    DAGRT_PREDICATE(DAGRT_ROW)
#undef DAGRT_ROW
    default: return nullptr;
  }
}

Strip find_strip(const PointwiseArgs& a) {
  DType x = a.dtype[1];
  size_t size = size_of(a.dtype[0]);
  if (a.f == Functor::select_)
    return size == 1 ? select_strip<uint8_t> : size == 2 ? select_strip<uint16_t>
         : size == 4 ? select_strip<uint32_t> : select_strip<uint64_t>;
  if (a.f == Functor::copy_)
    return size == 1 ? copy_strip<uint8_t> : size == 2 ? copy_strip<uint16_t>
         : size == 4 ? copy_strip<uint32_t> : copy_strip<uint64_t>;
  if (a.f == Functor::cast_) {
    switch (x) {
      case DType::int32: return cast_to<int32_t>(a.dtype[0]);
      case DType::int64: return cast_to<int64_t>(a.dtype[0]);
      case DType::uint8: case DType::bool_: return cast_to<uint8_t>(a.dtype[0]);
      default: return cast_to<float>(a.dtype[0]);
    }
  }
  if (is_float(x)) return float_strip(a.f);
  switch (x) {
    case DType::int32: return integer_strip<int32_t>(a.f);
    case DType::int64: return integer_strip<int64_t>(a.f);
    default: return integer_strip<uint8_t>(a.f);
  }
}

// ---------------------------------------------------------------- operands
// How elements lie in memory and in a strip's buffer.
enum class Storage : uint8_t { bytes1, bytes2, bytes4, bytes8, bf16, half };

struct Operand {
  char* data;
  Storage storage;
  int size;           // bytes of an element in memory
  int buffer_size;    // and in a buffer
  bool contiguous;    // over the whole space
  bool same_rows;     // every row is the same memory (all outer strides are 0)
  int64_t stride[8];
};

template <class T> DAGRT_INLINE void spread(void* out, const void* in, int64_t stride, int64_t n) {
  T* y = static_cast<T*>(out);
  const T* a = static_cast<const T*>(in);
  if (stride == 0) {
    T v = *a;
    for (int64_t i = 0; i < n; i++) y[i] = v;
  } else if (stride == 1) {
    for (int64_t i = 0; i < n; i++) y[i] = a[i];
  } else {
    for (int64_t i = 0; i < n; i++) y[i] = a[i * stride];
  }
}
template <class T> DAGRT_INLINE void collect(void* out, const void* in, int64_t stride, int64_t n) {
  T* y = static_cast<T*>(out);
  const T* a = static_cast<const T*>(in);
  for (int64_t i = 0; i < n; i++) y[i * stride] = a[i];
}

void gather(const Operand& o, void* buffer, const char* at, int64_t stride, int64_t n) {
  switch (o.storage) {
    case Storage::bytes1: return spread<uint8_t>(buffer, at, stride, n);
    case Storage::bytes2: return spread<uint16_t>(buffer, at, stride, n);
    case Storage::bytes4: return spread<uint32_t>(buffer, at, stride, n);
    case Storage::bytes8: return spread<uint64_t>(buffer, at, stride, n);
    default: break;
  }
  float* y = static_cast<float*>(buffer);
  const uint16_t* a = reinterpret_cast<const uint16_t*>(at);
  if (o.storage == Storage::bf16)
    for (int64_t i = 0; i < n; i++) y[i] = bf16_to_float(a[i * stride]);
  else
    for (int64_t i = 0; i < n; i++) y[i] = half_to_float(a[i * stride]);
}

void scatter(const Operand& o, char* at, const void* buffer, int64_t stride, int64_t n) {
  switch (o.storage) {
    case Storage::bytes1: return collect<uint8_t>(at, buffer, stride, n);
    case Storage::bytes2: return collect<uint16_t>(at, buffer, stride, n);
    case Storage::bytes4: return collect<uint32_t>(at, buffer, stride, n);
    case Storage::bytes8: return collect<uint64_t>(at, buffer, stride, n);
    default: break;
  }
  const float* a = static_cast<const float*>(buffer);
  uint16_t* y = reinterpret_cast<uint16_t*>(at);
  if (o.storage == Storage::bf16)
    for (int64_t i = 0; i < n; i++) y[i * stride] = float_to_bf16(a[i]);
  else
    for (int64_t i = 0; i < n; i++) y[i * stride] = float_to_half(a[i]);
}

struct Job {
  Strip strip;
  int operands;  // with y
  unsigned may_be_scalar;
  int rank;
  int64_t dims[8];
  Operand o[4];

  int64_t row_offset(int k, int64_t row) const {  // elements
    int64_t at = 0;
    for (int d = rank - 2; d >= 0 && row; d--) {
      at += row % dims[d] * o[k].stride[d];
      row /= dims[d];
    }
    return at;
  }
};

Storage storage_of(DType t, bool convert) {
  if (convert && t == DType::bfloat16) return Storage::bf16;
  if (convert && t == DType::float16) return Storage::half;
  switch (size_of(t)) {
    case 1: return Storage::bytes1;
    case 2: return Storage::bytes2;
    case 4: return Storage::bytes4;
    default: return Storage::bytes8;
  }
}

Job make_job(const PointwiseArgs& a) {
  Job j;
  j.strip = find_strip(a);
  j.operands = a.operands + 1;
  j.may_be_scalar = a.operands == 2 ? 3u : a.operands == 3 ? 6u : 0u;
  bool convert = a.f != Functor::select_ && a.f != Functor::copy_;
  for (int k = 0; k < j.operands; k++) {
    Operand& o = j.o[k];
    o.data = static_cast<char*>(a.data[k]);
    o.storage = storage_of(a.dtype[k], convert);
    o.size = int(size_of(a.dtype[k]));
    o.buffer_size = o.storage == Storage::bf16 || o.storage == Storage::half ? 4 : o.size;
  }
  // Axes of size 1 go; an axis whose stride is that of a whole inner axis, in every operand, joins it.
  j.rank = 0;
  for (int d = 0; d < a.rank; d++) {
    if (a.dims[d] == 1) continue;
    bool joins = j.rank > 0;
    for (int k = 0; k < j.operands; k++)
      joins = joins && j.o[k].stride[j.rank - 1] == a.strides[k][d] * a.dims[d];
    int to = joins ? j.rank - 1 : j.rank++;
    j.dims[to] = joins ? j.dims[to] * a.dims[d] : a.dims[d];
    for (int k = 0; k < j.operands; k++) j.o[k].stride[to] = a.strides[k][d];
  }
  if (j.rank == 0) {
    j.rank = 1;
    j.dims[0] = 1;
    for (int k = 0; k < j.operands; k++) j.o[k].stride[0] = 1;
  }
  for (int k = 0; k < j.operands; k++) {
    Operand& o = j.o[k];
    o.contiguous = o.stride[j.rank - 1] == 1;
    o.same_rows = true;
    for (int d = 0; d + 1 < j.rank; d++) {
      o.contiguous = o.contiguous && o.stride[d] == o.stride[d + 1] * j.dims[d + 1];
      o.same_rows = o.same_rows && o.stride[d] == 0;
    }
  }
  return j;
}

struct Buffers {
  alignas(64) char bytes[4][strip_elements * 8];
};

/// A strip inside one row: n elements from column `column`.
void run_in_row(const Job& j, int64_t row, int64_t column, int64_t n, Buffers& buffers) {
  const void* x[3] = {};
  void* y = nullptr;
  char* y_at = nullptr;
  int64_t inner[4];
  unsigned scalars = 0;
  for (int k = 0; k < j.operands; k++) {
    const Operand& o = j.o[k];
    inner[k] = o.stride[j.rank - 1];
    char* at = o.data + (j.row_offset(k, row) + column * inner[k]) * o.size;
    bool direct = inner[k] == 1 && o.size == o.buffer_size && o.storage < Storage::bf16;
    if (k == 0) {
      y_at = at;
      y = direct ? at : buffers.bytes[0];
      continue;
    }
    bool scalar = inner[k] == 0 && (j.may_be_scalar >> (k - 1) & 1) && (j.operands != 3 || scalars == 0);
    x[k - 1] = direct ? at : buffers.bytes[k];
    if (scalar) scalars |= 1u << (k - 1);
    if (!direct) gather(o, buffers.bytes[k], at, inner[k], scalar ? 1 : n);
  }
  j.strip(y, x, scalars, n);
  if (y != y_at) scatter(j.o[0], y_at, y, inner[0], n);
}

/// `rows` whole short rows from `first`. `kept`: operands whose buffer holds enough equal rows already.
void run_rows(const Job& j, int64_t first, int64_t rows, unsigned& kept, Buffers& buffers) {
  int64_t width = j.dims[j.rank - 1], n = rows * width;
  const void* x[3] = {};
  void* y = nullptr;
  unsigned scalars = 0;
  auto direct = [](const Operand& o) { return o.contiguous && o.storage < Storage::bf16; };
  for (int k = 0; k < j.operands; k++) {
    const Operand& o = j.o[k];
    char* at = o.data + first * width * o.size;
    if (k == 0) {
      y = direct(o) ? at : buffers.bytes[0];
      continue;
    }
    if (direct(o)) {
      x[k - 1] = at;
      continue;
    }
    x[k - 1] = buffers.bytes[k];
    if (o.contiguous) {
      gather(o, buffers.bytes[k], at, 1, n);
      continue;
    }
    if (kept >> k & 1) continue;
    int64_t inner = o.stride[j.rank - 1];
    if (o.same_rows) kept |= 1u << k;
    // Walk the rows like an odometer.
    int64_t index[8], rest = first, offset = 0;
    for (int d = j.rank - 2; d >= 0; d--) {
      index[d] = rest % j.dims[d];
      rest /= j.dims[d];
      offset += index[d] * o.stride[d];
    }
    for (int64_t r = 0; r < rows; r++) {
      gather(o, buffers.bytes[k] + r * width * o.buffer_size, o.data + offset * o.size, inner, width);
      for (int d = j.rank - 2; d >= 0; d--) {
        offset += o.stride[d];
        if (++index[d] < j.dims[d]) break;
        offset -= o.stride[d] * j.dims[d];
        index[d] = 0;
      }
    }
  }
  j.strip(y, x, scalars, n);
  const Operand& o = j.o[0];
  if (direct(o)) return;
  for (int64_t r = 0; r < rows; r++)
    scatter(o, o.data + j.row_offset(0, first + r) * o.size, buffers.bytes[0] + r * width * o.buffer_size,
            o.stride[j.rank - 1], width);
}

}  // namespace

void pointwise(const PointwiseArgs& a, const Stream& s) {
  int64_t total = 1;
  for (int d = 0; d < a.rank; d++) total *= a.dims[d];
  if (total == 0) return;
  const Job j = make_job(a);
  const int64_t width = j.dims[j.rank - 1], rows = total / width;
  const double ns = a.ns + memory_ns;
  if (width >= 256 || j.rank == 1) {
    const int64_t strips = (width + strip_elements - 1) / strip_elements;
    const int64_t per_row = (strips + strips_per_unit - 1) / strips_per_unit;
    const double unit = double(width < strip_elements * strips_per_unit ? width : strip_elements * strips_per_unit);
    s.parallel(rows * per_row, unit * ns, [&](int64_t u, char*) {
      Buffers buffers;
      int64_t row = u / per_row, begin = u % per_row * strips_per_unit * strip_elements;
      int64_t end = begin + strips_per_unit * strip_elements < width ? begin + strips_per_unit * strip_elements : width;
      for (int64_t c = begin; c < end; c += strip_elements)
        run_in_row(j, row, c, end - c < strip_elements ? end - c : strip_elements, buffers);
    });
    return;
  }
  const int64_t rows_per_strip = strip_elements / width, rows_per_unit = rows_per_strip * strips_per_unit;
  const int64_t units = (rows + rows_per_unit - 1) / rows_per_unit;
  s.parallel(units, double(rows_per_unit * width) * (ns + 0.3), [&](int64_t u, char*) {
    Buffers buffers;
    unsigned kept = 0;
    int64_t end = (u + 1) * rows_per_unit < rows ? (u + 1) * rows_per_unit : rows;
    for (int64_t r = u * rows_per_unit; r < end; r += rows_per_strip)
      run_rows(j, r, end - r < rows_per_strip ? end - r : rows_per_strip, kept, buffers);
  });
}

}  // namespace dagrt::DAGRT_ISA
