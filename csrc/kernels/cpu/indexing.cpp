// gather, scatter_add, take_along_axis, put_along_axis_add, one_hot: reading and adding at places that data name.
//
// Bad ids are looked for first, in one pass (check_ids); the kernels then still test each id, so that no memory
// outside of the tensors is touched while the fault makes its way to the caller.
// Additions are deterministic: each destination is written by one unit, which adds in index order. scatter_add cuts
// the work by ranges of destinations, and by columns where these are few (each unit then passes over all ids, which are few
// bytes against the rows): an embedding's gradient has many ids, wide rows and a large table, mostly zeros.
// Sums of 16-bit floats are made in float32 memory and rounded once.
#include "kernels/indexing.h"

#include "kernels/cpu/vec.h"

namespace dagrt::DAGRT_ISA {
namespace {

constexpr int64_t piece_bytes = 32 << 10;
constexpr int64_t unit_bytes = 384 << 10;  // of scatter_add's destinations: in L2
constexpr int mine_most = 256;             // ids looked at before those of a unit are added

DAGRT_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
DAGRT_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
DAGRT_INLINE int64_t pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

struct Ids {
  const void* p;
  bool wide;
  DAGRT_INLINE int64_t operator[](int64_t i) const {
    return wide ? static_cast<const int64_t*>(p)[i] : static_cast<const int32_t*>(p)[i];
  }
};

DAGRT_INLINE bool inside(int64_t id, int64_t n) { return uint64_t(id) < uint64_t(n); }

template <class T> bool any_outside(const T* ids, int64_t n, int64_t limit) {
  uint64_t bad = 0, most = uint64_t(limit) - 1;
  for (int64_t i = 0; i < n; i++) bad |= uint64_t(int64_t(ids[i])) | (most - uint64_t(int64_t(ids[i])));
  return limit == 0 ? n > 0 : int64_t(bad) < 0;  // the sign of either says it
}

// How a dtype is stored, and what its sums are made in.
template <class T> struct Whole {  // integers wrap: unsigned arithmetic
  using Stored = T;
  using Sum = T;
  static DAGRT_INLINE Sum load(T x) { return x; }
  static DAGRT_INLINE T round(Sum x) { return x; }
};
struct Bf16 {
  using Stored = uint16_t;
  using Sum = float;
  static DAGRT_INLINE float load(uint16_t x) { return bf16_to_float(x); }
  static DAGRT_INLINE uint16_t round(float x) { return float_to_bf16(x); }
};
struct Half {
  using Stored = uint16_t;
  using Sum = float;
  static DAGRT_INLINE float load(uint16_t x) { return half_to_float(x); }
  static DAGRT_INLINE uint16_t round(float x) { return float_to_half(x); }
};

template <class F> DAGRT_INLINE void with_dtype(DType t, const F& f) {
  switch (t) {
    case DType::float32: return f(Whole<float>());
    case DType::bfloat16: return f(Bf16());
    case DType::float16: return f(Half());
    case DType::int32: return f(Whole<uint32_t>());
    case DType::int64: return f(Whole<uint64_t>());
    default: return f(Whole<uint8_t>());
  }
}

template <class F> DAGRT_INLINE void with_element(int64_t bytes, const F& f) {
  switch (bytes) {
    case 1: return f(uint8_t());
    case 2: return f(uint16_t());
    case 4: return f(uint32_t());
    default: return f(uint64_t());
  }
}

template <class T> DAGRT_INLINE void copy_row(T* y, const T* x, int64_t n) {
  if (n >= 64)
    __builtin_memcpy(y, x, size_t(n) * sizeof(T));
  else
    for (int64_t i = 0; i < n; i++) y[i] = x[i];
}

template <class T> void gather_typed(const RowsArgs& a, const Stream& s) {
  Ids ids{a.ids, a.wide};
  const T* x = static_cast<const T*>(a.x);
  T* y = static_cast<T*>(a.y);
  int64_t bytes = a.R * a.C * int64_t(sizeof(T)), group = smaller(a.K, larger(1, piece_bytes / bytes));
  int64_t cuts = pieces(a.K, group);
  s.parallel(a.O * cuts, double(group) * (double(bytes) * 0.15 + 2), [&](int64_t u, char*) {
    const T* xo = x + u / cuts * a.xo;
    T* yo = y + u / cuts * a.yo;
    int64_t end = smaller(a.K, (u % cuts + 1) * group);
    for (int64_t k = u % cuts * group; k < end; k++) {
      constexpr int64_t ahead = 8;  // rows lie anywhere: the prefetcher of the machine cannot guess them
      if (k + ahead < end && inside(ids[k + ahead], a.N)) __builtin_prefetch(xo + ids[k + ahead] * a.xk);
      int64_t id = ids[k];
      for (int64_t r = 0; r < a.R; r++) {
        T* to = yo + k * a.yk + r * a.yr;
        if (inside(id, a.N))
          copy_row(to, xo + id * a.xk + r * a.xr, a.C);
        else
          for (int64_t i = 0; i < a.C; i++) to[i] = 0;
      }
    }
  });
}

/// n sums before the first addition: those of `base`, which may be their own memory, or zero.
template <class T> DAGRT_INLINE void start(T* y, const T* base, int64_t n) {
  if (!base)
    __builtin_memset(y, 0, size_t(n) * sizeof(T));
  else if (base != y)
    __builtin_memcpy(y, base, size_t(n) * sizeof(T));
}

template <class D> void scatter_typed(const RowsArgs& a, const Stream& s) {
  using Sum = typename D::Sum;
  using Stored = typename D::Stored;
  const Ids ids{a.ids, a.wide};
  const Stored* x = static_cast<const Stored*>(a.x);
  const bool own = a.sums != nullptr;
  Sum* y = own ? reinterpret_cast<Sum*>(a.sums) : static_cast<Sum*>(a.y);
  const int64_t yr = own ? a.C : a.yr, yk = own ? a.R * a.C : a.yk, yo = own ? a.N * yk : a.yo;

  // A unit's destinations stay in L2 from the zero to the last sum. It passes over all ids, which wide rows alone are worth.
  const int64_t row = a.R * a.C * int64_t(sizeof(Sum)), many = larger(pieces(a.N * row, unit_bytes), pieces(8, a.O));
  const int64_t ranges = larger(1, smaller(smaller(many, a.R * a.C / 8), a.N)), span = pieces(a.N, ranges);
  const int64_t columns = larger(1, smaller(a.C / 64, 8 / (a.O * ranges))), width = pieces(a.C, columns);
  const double ns = double(a.K) * (0.5 + double(a.R * width) / double(ranges) * 0.15) + double(span * a.R * width) * 0.1;
  s.parallel(a.O * columns * ranges, ns, [&](int64_t u, char*) {
    const int64_t from = u % columns * width, n = smaller(width, a.C - from);
    const int64_t low = u / columns % ranges * span, high = smaller(a.N, low + span), o = u / (columns * ranges);
    const Stored* xo = x + o * a.xo + from;
    if (low >= high) return;
    Sum* to = y + o * yo + from;
    const Sum* base = a.base ? static_cast<const Sum*>(a.base) + o * yo + from : nullptr;
    if (n == a.C && yr == a.C && yk == a.R * a.C)
      start(to + low * yk, base ? base + low * yk : nullptr, (high - low) * yk);
    else
      for (int64_t i = low; i < high; i++)
        for (int64_t at = i * yk, r = 0; r < a.R; r++, at += yr) start(to + at, base ? base + at : nullptr, n);
    int64_t mine[mine_most];
    for (int64_t k0 = 0; k0 < a.K; k0 += mine_most) {
      const int64_t end = smaller(a.K, k0 + mine_most);
      int count = 0;
      for (int64_t k = k0; k < end; k++) {
        mine[count] = k;
        count += ids[k] >= low && ids[k] < high;
      }
      for (int i = 0; i < count; i++) {
        if (i + 4 < count)  // updates lie anywhere
          for (int64_t c = 0; c < n; c += 64 / int64_t(sizeof(Stored))) __builtin_prefetch(xo + mine[i + 4] * a.xk + c);
        for (int64_t r = 0; r < a.R; r++) {
          Sum* yy = to + ids[mine[i]] * yk + r * yr;
          const Stored* xx = xo + mine[i] * a.xk + r * a.xr;
          for (int64_t c = 0; c < n; c++) yy[c] = Sum(yy[c] + D::load(xx[c]));
        }
      }
    }
  });

  if (!own) return;
  Stored* out = static_cast<Stored*>(a.y);
  const int64_t rows = a.O * a.N, group = larger(1, piece_bytes / row);
  s.parallel(pieces(rows, group), double(group * row) * 0.2, [&](int64_t u, char*) {
    int64_t end = smaller(rows, (u + 1) * group);
    for (int64_t i = u * group; i < end; i++)
      for (int64_t r = 0; r < a.R; r++)
        for (int64_t c = 0; c < a.C; c++)
          out[i / a.N * a.yo + i % a.N * a.yk + r * a.yr + c] = D::round(y[(i * a.R + r) * a.C + c]);
  });
}

// Offsets of x, ids and y at a position of the axes [first, last).
struct Position {
  int64_t at[max_rank];
  int64_t x = 0, id = 0, y = 0;
};

DAGRT_INLINE void start(const AlongAxisArgs& a, Position& p, int first, int last, int64_t linear) {
  for (int i = last - 1; i >= first; i--) {
    p.at[i] = linear % a.dims[i];
    linear /= a.dims[i];
    p.x += p.at[i] * a.x_stride[i];
    p.id += p.at[i] * a.id_stride[i];
    p.y += p.at[i] * a.y_stride[i];
  }
}

DAGRT_INLINE void next(const AlongAxisArgs& a, Position& p, int first, int last) {
  for (int i = last - 1; i >= first; i--) {
    p.x += a.x_stride[i];
    p.id += a.id_stride[i];
    p.y += a.y_stride[i];
    if (++p.at[i] < a.dims[i]) return;
    p.at[i] = 0;
    p.x -= a.dims[i] * a.x_stride[i];
    p.id -= a.dims[i] * a.id_stride[i];
    p.y -= a.dims[i] * a.y_stride[i];
  }
}

int64_t count(const AlongAxisArgs& a, int first, int last) {
  int64_t n = 1;
  for (int i = first; i < last; i++) n *= a.dims[i];
  return n;
}

template <class T> void take_typed(const AlongAxisArgs& given, const Stream& s) {
  AlongAxisArgs a = given;
  int64_t step = a.x_stride[a.axis];
  a.x_stride[a.axis] = 0;  // the id takes its place
  int last = a.rank - 1;
  int64_t rows = count(a, 0, last), n = a.dims[last], group = larger(1, 4096 / n);
  int64_t xs = a.x_stride[last], is = a.id_stride[last], ys = a.y_stride[last];
  Ids ids{a.ids, a.wide};
  s.parallel(pieces(rows, group), double(group) * (double(n) * 1.5 + 3), [&](int64_t u, char*) {
    int64_t end = smaller(rows, (u + 1) * group);
    Position p;
    start(a, p, 0, last, u * group);
    for (int64_t row = u * group; row < end; row++, next(a, p, 0, last)) {
      const T* x = static_cast<const T*>(a.x) + p.x;
      T* y = static_cast<T*>(a.y) + p.y;
      for (int64_t i = 0; i < n; i++) {
        int64_t id = ids[p.id + i * is];
        y[i * ys] = inside(id, a.N) ? x[i * xs + id * step] : T(0);
      }
    }
  });
}

template <class D> void put_typed(const AlongAxisArgs& given, const Stream& s) {
  using Sum = typename D::Sum;
  using Stored = typename D::Stored;
  AlongAxisArgs a = given;
  bool own = a.sums != nullptr;
  int last = a.rank - 1;
  int64_t dense = a.y_dims[last], total = 1;
  for (int i = 0; i < a.rank; i++) total *= a.y_dims[i];
  if (own) {
    int64_t stride = 1;
    for (int i = last; i >= 0; stride *= a.y_dims[i], i--) a.y_stride[i] = stride;
  }
  Sum* y = own ? reinterpret_cast<Sum*>(a.sums) : static_cast<Sum*>(a.y);
  int64_t ld = a.rank > 1 ? given.y_stride[last - 1] : dense, own_ld = a.rank > 1 ? a.y_stride[last - 1] : dense;
  int64_t rows = total / dense, group = larger(1, 4096 / dense);
  s.parallel(pieces(rows, group), double(group * dense) * 0.3, [&](int64_t u, char*) {
    for (int64_t i = u * group; i < smaller(rows, (u + 1) * group); i++)
      __builtin_memset(y + i * own_ld, 0, size_t(dense) * sizeof(Sum));
  });

  // A unit holds one position of the axes before, and (where the axis is not the last) a block of the last axis:
  // within it additions run along the axis in order.
  int64_t step = a.y_stride[a.axis], n = a.dims[last], block = a.axis == last ? n : smaller(n, 256);
  a.y_stride[a.axis] = 0;
  bool any = count(a, 0, a.rank) > 0;
  int64_t cuts = any ? pieces(n, block) : 0, outer = count(a, 0, a.axis), inner = count(a, a.axis, last);
  int64_t xs = a.x_stride[last], is = a.id_stride[last], ys = a.y_stride[last];
  Ids ids{a.ids, a.wide};
  s.parallel(outer * cuts, double(block * inner) * 1.5, [&](int64_t u, char*) {
    Position p;
    start(a, p, 0, a.axis, u / cuts);
    start(a, p, a.axis, last, 0);
    int64_t from = u % cuts * block, end = smaller(n, from + block);
    for (int64_t row = 0; row < inner; row++, next(a, p, a.axis, last)) {
      const Stored* x = static_cast<const Stored*>(a.x) + p.x;
      for (int64_t i = from; i < end; i++) {
        int64_t id = ids[p.id + i * is];
        if (!inside(id, a.N)) continue;
        Sum& to = y[p.y + i * ys + id * step];
        to = Sum(to + D::load(x[i * xs]));
      }
    }
  });
  if (!own) return;
  Stored* out = static_cast<Stored*>(a.y);
  s.parallel(pieces(rows, group), double(group * dense), [&](int64_t u, char*) {
    for (int64_t i = u * group; i < smaller(rows, (u + 1) * group); i++)
      for (int64_t c = 0; c < dense; c++) out[i * ld + c] = D::round(y[i * dense + c]);
  });
}

uint64_t one_in(DType t) {
  return t == DType::float32 ? 0x3f800000 : t == DType::bfloat16 ? 0x3f80 : t == DType::float16 ? 0x3c00 : 1;
}

}  // namespace

void check_ids(const CheckIdsArgs& a, const Stream& s) {
  constexpr int64_t piece = 16384;
  int64_t first = INT64_MAX;
  s.parallel(pieces(a.count, piece), piece * 0.3, [&](int64_t u, char*) {
    int64_t from = u * piece, n = smaller(piece, a.count - from);
    bool bad = a.wide ? any_outside(static_cast<const int64_t*>(a.ids) + from, n, a.limit)
                      : any_outside(static_cast<const int32_t*>(a.ids) + from, n, a.limit);
    if (!bad) return;
    Ids ids{a.ids, a.wide};
    while (inside(ids[from], a.limit)) from++;
    int64_t seen = __atomic_load_n(&first, __ATOMIC_RELAXED);
    while (from < seen && !__atomic_compare_exchange_n(&first, &seen, from, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
  });
  *a.bad = first == INT64_MAX ? -1 : first;
}

void gather(const RowsArgs& a, const Stream& s) {
  if (a.O * a.K * a.R * a.C == 0) return;
  with_element(int64_t(size_of(a.dtype)), [&](auto t) { gather_typed<decltype(t)>(a, s); });
}

void scatter_add(const RowsArgs& a, const Stream& s) {
  if (a.O * a.N * a.R * a.C == 0) return;
  with_dtype(a.dtype, [&](auto d) { scatter_typed<decltype(d)>(a, s); });
}

void take_along_axis(const AlongAxisArgs& a, const Stream& s) {
  if (count(a, 0, a.rank) == 0) return;
  with_element(int64_t(size_of(a.dtype)), [&](auto t) { take_typed<decltype(t)>(a, s); });
}

void put_along_axis_add(const AlongAxisArgs& a, const Stream& s) {
  with_dtype(a.dtype, [&](auto d) { put_typed<decltype(d)>(a, s); });
}

void one_hot(const OneHotArgs& a, const Stream& s) {
  if (a.rows * a.depth == 0) return;
  int64_t e = int64_t(size_of(a.dtype)), group = larger(1, piece_bytes / (a.depth * e));
  uint64_t one = one_in(a.dtype);
  s.parallel(pieces(a.rows, group), double(group) * (double(a.depth * e) * 0.06 + 3), [&](int64_t u, char*) {
    int64_t end = smaller(a.rows, (u + 1) * group);
    for (int64_t i = u * group; i < end; i++) {
      int64_t id = a.id_dtype == DType::uint8 ? static_cast<const uint8_t*>(a.ids)[i] : Ids{a.ids, a.id_dtype == DType::int64}[i];
      char* row = static_cast<char*>(a.y) + i * a.ld * e;
      __builtin_memset(row, 0, size_t(a.depth * e));
      if (inside(id, a.depth)) __builtin_memcpy(row + id * e, &one, size_t(e));  // little-endian
    }
  });
}

}  // namespace dagrt::DAGRT_ISA
