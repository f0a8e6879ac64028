// Reductions. Floats are accumulated in float32 in two levels: blocks of at most 64 additions per lane, then the sums of
// blocks, so that the error grows slowly with the length. What is long is cut into pieces of a size that depends on
// the shape alone; pieces leave partial results, which are reduced in their order. Integers wrap: order is irrelevant.
#include "kernels/reduce.h"

#include "kernels/cpu/vec.h"

namespace dagrt::DAGRT_ISA {
namespace {

struct Half {
  uint16_t bits;
};
struct Bf16 {
  uint16_t bits;
};
DAGRT_INLINE float widen(float x) { return x; }
DAGRT_INLINE float widen(Half x) { return half_to_float(x.bits); }
DAGRT_INLINE float widen(Bf16 x) { return bf16_to_float(x.bits); }

DAGRT_INLINE vf load_wide(const float* p) { return load(p); }
DAGRT_INLINE vf load_wide_n(const float* p, int n) { return load_n(p, n); }
template <class T> DAGRT_INLINE vf load_wide_n(const T* p, int n) {
  float t[V] = {};
  for (int i = 0; i < n; i++) t[i] = widen(p[i]);
  return load(t);
}
template <class T> DAGRT_INLINE vf load_wide(const T* p) { return load_wide_n(p, V); }

struct Sum {
  static constexpr float identity = 0;
  DAGRT_INLINE static vf join(vf a, vf b) { return a + b; }
  template <class T> DAGRT_INLINE static T join_int(T a, T b) { return T(a + b); }
  template <class T> DAGRT_INLINE static T identity_int() { return T(0); }
};
struct Prod {
  static constexpr float identity = 1;
  DAGRT_INLINE static vf join(vf a, vf b) { return a * b; }
  template <class T> DAGRT_INLINE static T join_int(T a, T b) { return T(a * b); }
  template <class T> DAGRT_INLINE static T identity_int() { return T(1); }
};
struct Max {
  static constexpr float identity = -__builtin_inff();
  DAGRT_INLINE static vf join(vf a, vf b) { return vmax(a, b); }
  template <class T> DAGRT_INLINE static T join_int(T a, T b) { return a > b ? a : b; }
  template <class T> DAGRT_INLINE static T identity_int() { return T(-1) < T(0) ? T(uint64_t(1) << (sizeof(T) * 8 - 1)) : T(0); }
};
struct Min {
  static constexpr float identity = __builtin_inff();
  DAGRT_INLINE static vf join(vf a, vf b) { return vmin(a, b); }
  template <class T> DAGRT_INLINE static T join_int(T a, T b) { return a < b ? a : b; }
  template <class T> DAGRT_INLINE static T identity_int() {
    return T(-1) < T(0) ? T(~(uint64_t(1) << (sizeof(T) * 8 - 1))) : T(~T(0));
  }
};

/// All lanes joined, in a fixed tree.
template <class F> DAGRT_INLINE float join_lanes(vf v) {
#pragma GCC unroll 4
  for (int w = V / 2; w; w /= 2) v = F::join(v, swap_lanes(v, w));
  return v[0];
}

/// One contiguous row.
template <class F, class T> float reduce_row(const T* x, int64_t n) {
  constexpr int64_t block = 32 * 4 * V;
  const vf start = splat(F::identity);
  vf total[4] = {start, start, start, start};
  int64_t i = 0;
  while (i + 4 * V <= n) {
    vf a[4] = {start, start, start, start};
    int64_t end = i + block < n ? i + block : n;
    for (; i + 4 * V <= end; i += 4 * V)
      for (int k = 0; k < 4; k++) a[k] = F::join(a[k], load_wide(x + i + k * V));
    for (int k = 0; k < 4; k++) total[k] = F::join(total[k], a[k]);
  }
  for (; i + V <= n; i += V) total[0] = F::join(total[0], load_wide(x + i));
  if (i < n) total[1] = F::join(total[1], select(first_lanes(int(n - i)), load_wide_n(x + i, int(n - i)), start));
  return join_lanes<F>(F::join(F::join(total[0], total[1]), F::join(total[2], total[3])));
}

constexpr int64_t column_block = 1024;

/// Columns: y[i] = reduction over r of x[r * stride + i], for n columns, by strips that stay in registers.
template <class F, class T> void reduce_strips(const T* x, int64_t stride, int64_t length, float* y, int64_t n) {
  const vf start = splat(F::identity);
  int64_t i = 0;
  for (; i + 4 * V <= n; i += 4 * V) {
    vf total[4] = {start, start, start, start};
    for (int64_t r = 0; r < length;) {
      vf a[4] = {start, start, start, start};
      int64_t end = r + 64 < length ? r + 64 : length;
      for (; r < end; r++)
        for (int k = 0; k < 4; k++) a[k] = F::join(a[k], load_wide(x + r * stride + i + k * V));
      for (int k = 0; k < 4; k++) total[k] = F::join(total[k], a[k]);
    }
    for (int k = 0; k < 4; k++) store(y + i + k * V, total[k]);
  }
  for (; i < n; i += V) {
    int m = n - i < V ? int(n - i) : V;
    vf total = start;
    for (int64_t r = 0; r < length;) {
      vf a = start;
      int64_t end = r + 64 < length ? r + 64 : length;
      for (; r < end; r++) a = F::join(a, load_wide_n(x + r * stride + i, m));
      total = F::join(total, a);
    }
    store_n(y + i, total, m);
  }
}

/// The same of long rows, at most column_block, as they lie in memory, four at a time, and sums in L1: strips would touch another
/// page with every row, and no prefetcher follows.
template <class F> void reduce_rows(const float* x, int64_t stride, int64_t length, float* y, int64_t n) {
  float sums[column_block + V];
  const int64_t whole = length / 4 * 4;
  for (int64_t r0 = 0; r0 < whole; r0 += 64) {
    const int64_t end = r0 + 64 < whole ? r0 + 64 : whole;
    for (int64_t r = r0; r < end; r += 4) {
      const float* row = x + r * stride;
      auto four = [&](int64_t i, int m) __attribute__((always_inline)) {
        vf t[4];
        for (int k = 0; k < 4; k++) t[k] = m == V ? load(row + k * stride + i) : load_n(row + k * stride + i, m);
        const vf sum = F::join(F::join(t[0], t[1]), F::join(t[2], t[3]));
        store(sums + i, r == r0 ? sum : F::join(load(sums + i), sum));
      };
      int64_t i = 0;
      for (; i + V <= n; i += V) four(i, V);
      if (i < n) four(i, int(n - i));
    }
    each_vector(n, [&](int64_t i, int m) { store_n(y + i, r0 ? F::join(load_n(y + i, m), load(sums + i)) : load(sums + i), m); });
  }
  for (int64_t r = whole; r < length; r++)
    each_vector(n, [&](int64_t i, int m) {
      const vf t = load_n(x + r * stride + i, m);
      store_n(y + i, F::join(load_n(y + i, m), t), m);
    });
}

template <class F, class T> void reduce_columns(const T* x, int64_t stride, int64_t length, float* y, int64_t n) {
  if constexpr (sizeof(T) == 4)
    if (n > 4 * V && length >= 8) return reduce_rows<F>(x, stride, length, y, n);
  reduce_strips<F>(x, stride, length, y, n);
}

/// One level: [outer, length, mid, inner] to [outer, mid, pieces, inner].
template <class F, class T>
void reduce_level(const T* x, const ReduceArgs& a, int64_t piece, int64_t pieces, float* y, const Stream& s) {
  const int64_t blocks = (a.inner + column_block - 1) / column_block;
  const int64_t width = a.inner < column_block ? a.inner : column_block;
  const bool rows = a.inner == 1 && a.length_stride == 1;
  // Short rows go several to a unit.
  const int64_t all = a.outer * a.mid * pieces * blocks;
  int64_t together = 4096 / (piece * width + 1);
  together = together < 1 ? 1 : together;
  const double ns = double(together) * (double(piece * width) * 0.1 + 4);
  s.parallel((all + together - 1) / together, ns, [&](int64_t unit, char*) {
    const int64_t begin = unit * together, end = begin + together < all ? begin + together : all;
    int64_t block = begin % blocks, p = begin / blocks % pieces, om = begin / blocks / pieces, o = om / a.mid, m = om % a.mid;
    // Counted on: of short reductions, divisions would take most of the time.
    auto advance = [&] {
      if (++block < blocks) return;
      block = 0;
      if (++p < pieces) return;
      p = 0, om++;
      if (++m == a.mid) m = 0, o++;
    };
    for (int64_t u = begin; u < end; u++, advance()) {
      int64_t first = p * piece, length = a.length - first < piece ? a.length - first : piece;
      int64_t column = block * column_block, n = a.inner - column < column_block ? a.inner - column : column_block;
      const T* from = x + o * a.outer_stride + m * a.mid_stride + first * a.length_stride + column;
      float* to = y + (om * pieces + p) * a.inner + column;
      if (rows)
        *to = reduce_row<F, T>(from, length);
      else
        reduce_columns<F, T>(from, a.length_stride, length, to, n);
    }
  });
}

template <class F, class T> void reduce_float(const ReduceArgs& a, const Stream& s) {
  const T* x = static_cast<const T*>(a.x);
  float* y = static_cast<float*>(a.y);
  const int64_t piece = a.length ? reduce_piece(a.length, a.inner) : 1, pieces = reduce_pieces(a.length, a.inner);
  if (pieces == 1) return reduce_level<F, T>(x, a, a.length, 1, y, s);
  reduce_level<F, T>(x, a, piece, pieces, a.partials, s);
  ReduceArgs b = a;  // the partials: [outer * mid, pieces, inner]
  b.outer = a.outer * a.mid;
  b.mid = 1;
  b.length = pieces;
  b.length_stride = a.inner;
  b.outer_stride = pieces * a.inner;
  reduce_level<F, float>(a.partials, b, pieces, 1, y, s);
}

template <class F> void reduce_float_kind(const ReduceArgs& a, const Stream& s) {
  if (a.dtype == DType::bfloat16) return reduce_float<F, Bf16>(a, s);
  if (a.dtype == DType::float16) return reduce_float<F, Half>(a, s);
  reduce_float<F, float>(a, s);
}

/// Integers; S is what sums wrap in.
template <class F, class T, class S> void reduce_int(const ReduceArgs& a, const Stream& s) {
  const int64_t blocks = (a.inner + column_block - 1) / column_block;
  const double ns = double(a.length) * double(a.inner < column_block ? a.inner : column_block) * 0.3 + 4;
  s.parallel(a.outer * a.mid * blocks, ns, [&](int64_t u, char*) {
    int64_t block = u % blocks, om = u / blocks, o = om / a.mid, m = om % a.mid;
    int64_t column = block * column_block, n = a.inner - column < column_block ? a.inner - column : column_block;
    const T* x = static_cast<const T*>(a.x) + o * a.outer_stride + m * a.mid_stride + column;
    T* y = static_cast<T*>(a.y) + om * a.inner + column;
    if (n == 1) {
      S t = S(F::template identity_int<T>());
      for (int64_t r = 0; r < a.length; r++) t = F::template join_int<S>(t, S(x[r * a.length_stride]));
      *y = T(t);
      return;
    }
    for (int64_t i = 0; i < n; i++) y[i] = F::template identity_int<T>();
    for (int64_t r = 0; r < a.length; r++) {
      const T* row = x + r * a.length_stride;
#pragma GCC ivdep
      for (int64_t i = 0; i < n; i++) y[i] = T(F::template join_int<S>(S(y[i]), S(row[i])));
    }
  });
}
template <class F, bool wraps> void reduce_int_kind(const ReduceArgs& a, const Stream& s) {
  switch (a.dtype) {
    case DType::int32: return wraps ? reduce_int<F, int32_t, uint32_t>(a, s) : reduce_int<F, int32_t, int32_t>(a, s);
    case DType::int64: return wraps ? reduce_int<F, int64_t, uint64_t>(a, s) : reduce_int<F, int64_t, int64_t>(a, s);
    default: return wraps ? reduce_int<F, uint8_t, uint32_t>(a, s) : reduce_int<F, uint8_t, uint8_t>(a, s);
  }
}

// ---------------------------------------------------------------- axes apart
/// Where the elements of one result lie, from its first.
struct Offsets {
  int64_t at[reduce_apart_most], count = 1;
  explicit Offsets(const ReduceApartArgs& a) {
    at[0] = 0;
    for (int d = 0; d < a.length_rank; d++) {
      const int64_t n = a.length_dims[d];
      for (int64_t i = count * n; i--;) at[i] = at[i / n] + i % n * a.length_stride[d];
      count *= n;
    }
  }
};

template <class F, class T> void reduce_apart_float(const ReduceApartArgs& a, const Stream& s) {
  const Offsets o(a);
  const int64_t inner = a.dims[a.rank - 1], blocks = (inner + column_block - 1) / column_block;
  int64_t rows = 1;
  for (int d = 0; d + 1 < a.rank; d++) rows *= a.dims[d];
  const double ns = double(o.count) * double(inner < column_block ? inner : column_block) * 0.1 + 8;
  s.parallel(rows * blocks, ns, [&](int64_t u, char*) {
    const int64_t row = u / blocks, column = u % blocks * column_block;
    const int64_t n = inner - column < column_block ? inner - column : column_block;
    const T* x = static_cast<const T*>(a.x) + column;
    float* y = a.y + row * inner + column;
    for (int64_t d = a.rank - 2, rest = row; d >= 0; rest /= a.dims[d--]) x += rest % a.dims[d] * a.stride[d];
    for (int64_t i = 0; i < n; i += V) {
      const int m = n - i < V ? int(n - i) : V;
      vf total = splat(F::identity);
      for (int64_t j = 0; j < o.count;) {
        vf part = splat(F::identity);
        for (const int64_t end = j + 32 < o.count ? j + 32 : o.count; j < end; j++)
          part = F::join(part, m == V ? load_wide(x + o.at[j] + i) : load_wide_n(x + o.at[j] + i, m));
        total = F::join(total, part);
      }
      store_n(y + i, total, m);
    }
  });
}
template <class F> void reduce_apart_kind(const ReduceApartArgs& a, const Stream& s) {
  if (a.dtype == DType::bfloat16) return reduce_apart_float<F, Bf16>(a, s);
  if (a.dtype == DType::float16) return reduce_apart_float<F, Half>(a, s);
  reduce_apart_float<F, float>(a, s);
}

// ---------------------------------------------------------------- argmax, argmin
/// Whether b takes the place of a, which came earlier.
template <class T> DAGRT_INLINE bool replaces(T a, T b, bool smallest) {
  if (a != a) return false;
  return b != b || (smallest ? b < a : b > a);
}
template <class T, class W> void arg_reduce_type(const ArgReduceArgs& a, const Stream& s, W wide) {
  s.parallel(a.outer * a.inner, double(a.length) * 0.8 + 2, [&](int64_t u, char*) {
    const T* x = static_cast<const T*>(a.x) + u / a.inner * a.outer_stride + u % a.inner * a.inner_stride;
    auto best = wide(x[0]);
    int64_t at = 0;
    for (int64_t r = 1; r < a.length; r++) {
      auto v = wide(x[r * a.length_stride]);
      if (replaces(best, v, a.smallest)) best = v, at = r;
    }
    a.y[u] = int32_t(at);
  });
}

// ---------------------------------------------------------------- cumsum
struct AsIs {
  template <class T> DAGRT_INLINE T operator()(T x) const { return x; }
};
DAGRT_INLINE void narrow(float x, float* y) { *y = x; }
DAGRT_INLINE void narrow(float x, Half* y) { y->bits = float_to_half(x); }
DAGRT_INLINE void narrow(float x, Bf16* y) { y->bits = float_to_bf16(x); }
template <class T, class S> void cumsum_type(const CumsumArgs& a, const Stream& s) {
  s.parallel(a.outer * a.inner, double(a.length) * 1.5 + 2, [&](int64_t u, char*) {
    int64_t o = u / a.inner, i = u % a.inner;
    const T* x = static_cast<const T*>(a.x) + o * a.x_stride[0] + i * a.x_stride[2];
    T* y = static_cast<T*>(a.y) + o * a.y_stride[0] + i * a.y_stride[2];
    S total{};
    for (int64_t k = 0; k < a.length; k++) {
      int64_t r = a.reverse ? a.length - 1 - k : k;
      S before = total;
      if constexpr (std::is_same_v<S, float>) {
        total += widen(x[r * a.x_stride[1]]);
        narrow(a.exclusive ? before : total, y + r * a.y_stride[1]);
      } else {
        total = S(total + S(x[r * a.x_stride[1]]));
        y[r * a.y_stride[1]] = T(a.exclusive ? before : total);
      }
    }
  });
}

// ---------------------------------------------------------------- sort
struct Item {
  uint64_t key;  // ascending keys are the wanted order
  int64_t index;
};
DAGRT_INLINE uint64_t key_of(float x) {
  uint32_t u;
  x = x == 0 ? 0.0f : x;  // -0 and 0 are equal
  __builtin_memcpy(&u, &x, 4);
  if (x != x) return 0xffffffffu;
  return u & 0x80000000u ? ~u : u | 0x80000000u;
}
DAGRT_INLINE uint64_t key_of(Half x) { return key_of(half_to_float(x.bits)); }
DAGRT_INLINE uint64_t key_of(Bf16 x) { return key_of(bf16_to_float(x.bits)); }
DAGRT_INLINE uint64_t key_of(int32_t x) { return uint64_t(int64_t(x)) ^ (uint64_t(1) << 63); }
DAGRT_INLINE uint64_t key_of(int64_t x) { return uint64_t(x) ^ (uint64_t(1) << 63); }
DAGRT_INLINE uint64_t key_of(uint8_t x) { return x; }

/// Runs of 16 by insertion, then merged pairwise; stable. Answers which of the two buffers holds the result.
Item* merge_sort(Item* a, Item* b, int64_t n) {
  for (int64_t from = 0; from < n; from += 16) {
    int64_t end = from + 16 < n ? from + 16 : n;
    for (int64_t i = from + 1; i < end; i++) {
      Item x = a[i];
      int64_t k = i;
      for (; k > from && a[k - 1].key > x.key; k--) a[k] = a[k - 1];
      a[k] = x;
    }
  }
  for (int64_t run = 16; run < n; run *= 2) {
    for (int64_t from = 0; from < n; from += 2 * run) {
      int64_t middle = from + run < n ? from + run : n, end = from + 2 * run < n ? from + 2 * run : n;
      int64_t p = from, q = middle;
      for (int64_t k = from; k < end; k++) b[k] = p < middle && (q >= end || a[p].key <= a[q].key) ? a[p++] : a[q++];
    }
    Item* t = a;
    a = b;
    b = t;
  }
  return a;
}

/// The k smallest keys in order, for small k: most elements fail one comparison with the worst kept.
Item* smallest(Item* a, Item* b, int64_t n, int64_t k) {
  int64_t have = 0;
  for (int64_t i = 0; i < n; i++) {
    if (have == k && a[i].key >= b[k - 1].key) continue;
    int64_t at = have < k ? have++ : k - 1;
    for (; at > 0 && b[at - 1].key > a[i].key; at--) b[at] = b[at - 1];
    b[at] = a[i];
  }
  return b;
}

template <class T> void sort_type(const SortArgs& a, const Stream& s) {
  s.parallel(a.outer * a.inner, double(a.length) * 40 + 10, [&](int64_t u, char* scratch) {
    int64_t o = u / a.inner, i = u % a.inner;
    const T* x = static_cast<const T*>(a.x) + o * a.x_stride[0] + i * a.x_stride[2];
    Item* items = reinterpret_cast<Item*>(scratch);
    for (int64_t r = 0; r < a.length; r++) {
      uint64_t key = key_of(x[r * a.x_stride[1]]);
      items[r] = {a.descending ? ~key : key, r};
    }
    Item* sorted = a.kept <= 16 && a.kept < a.length ? smallest(items, items + a.length, a.length, a.kept)
                                                     : merge_sort(items, items + a.length, a.length);
    if (a.values) {
      T* y = static_cast<T*>(a.values) + o * a.values_stride[0] + i * a.values_stride[2];
      for (int64_t r = 0; r < a.kept; r++) y[r * a.values_stride[1]] = x[sorted[r].index * a.x_stride[1]];
    }
    if (a.indices) {
      int32_t* y = a.indices + o * a.indices_stride[0] + i * a.indices_stride[2];
      for (int64_t r = 0; r < a.kept; r++) y[r * a.indices_stride[1]] = int32_t(sorted[r].index);
    }
  });
}

}  // namespace

void reduce(const ReduceArgs& a, const Stream& s) {
  if (a.outer * a.mid * a.inner == 0) return;
  if (is_float(a.dtype)) {
    switch (a.kind) {
      case Reduction::sum: return reduce_float_kind<Sum>(a, s);
      case Reduction::max: return reduce_float_kind<Max>(a, s);
      case Reduction::min: return reduce_float_kind<Min>(a, s);
      case Reduction::prod: return reduce_float_kind<Prod>(a, s);
    }
  }
  switch (a.kind) {
    case Reduction::sum: return reduce_int_kind<Sum, true>(a, s);
    case Reduction::max: return reduce_int_kind<Max, false>(a, s);
    case Reduction::min: return reduce_int_kind<Min, false>(a, s);
    case Reduction::prod: return reduce_int_kind<Prod, true>(a, s);
  }
}

void reduce_apart(const ReduceApartArgs& a, const Stream& s) {
  switch (a.kind) {
    case Reduction::sum: return reduce_apart_kind<Sum>(a, s);
    case Reduction::max: return reduce_apart_kind<Max>(a, s);
    case Reduction::min: return reduce_apart_kind<Min>(a, s);
    case Reduction::prod: return reduce_apart_kind<Prod>(a, s);
  }
}

void arg_reduce(const ArgReduceArgs& a, const Stream& s) {
  if (a.outer * a.inner * a.length == 0) return;
  AsIs same;
  switch (a.dtype) {
    case DType::float32: return arg_reduce_type<float>(a, s, same);
    case DType::bfloat16: return arg_reduce_type<Bf16>(a, s, [](Bf16 x) { return bf16_to_float(x.bits); });
    case DType::float16: return arg_reduce_type<Half>(a, s, [](Half x) { return half_to_float(x.bits); });
    case DType::int32: return arg_reduce_type<int32_t>(a, s, same);
    case DType::int64: return arg_reduce_type<int64_t>(a, s, same);
    default: return arg_reduce_type<uint8_t>(a, s, same);
  }
}

void cumsum(const CumsumArgs& a, const Stream& s) {
  switch (a.dtype) {
    case DType::float32: return cumsum_type<float, float>(a, s);
    case DType::bfloat16: return cumsum_type<Bf16, float>(a, s);
    case DType::float16: return cumsum_type<Half, float>(a, s);
    case DType::int32: return cumsum_type<int32_t, uint32_t>(a, s);
    case DType::int64: return cumsum_type<int64_t, uint64_t>(a, s);
    default: return cumsum_type<uint8_t, uint32_t>(a, s);
  }
}

void sort(const SortArgs& a, const Stream& s) {
  if (a.outer * a.inner * a.length == 0) return;
  switch (a.dtype) {
    case DType::float32: return sort_type<float>(a, s);
    case DType::bfloat16: return sort_type<Bf16>(a, s);
    case DType::float16: return sort_type<Half>(a, s);
    case DType::int32: return sort_type<int32_t>(a, s);
    case DType::int64: return sort_type<int64_t>(a, s);
    default: return sort_type<uint8_t>(a, s);
  }
}

}  // namespace dagrt::DAGRT_ISA
