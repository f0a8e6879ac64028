// Strided copy, padding, fill, iota: everything that moves data without computing.
//
// One kernel serves transpose, broadcast, slice, concat and reverse: a copy between two strided index spaces. Its axes
// are first brought into a normal form (size-1 axes dropped, ordered by the stride of dst, neighbours merged where
// both sides allow), after which one of these is the innermost loop:
//   contiguous runs       memcpy, or an inlined copy of up to 64 bytes
//   repeated runs         (rows broadcast) one run, doubled within its piece while that is in L1
//   a splat               (columns broadcast) a fill
//   a 2-D swap            tiles of 4,096 elements: V x V blocks turned in registers
//   anything else         an element loop
// Work is cut into pieces of about 32 KiB: large enough to hide the hand-over, small enough to balance.
// All is bound by memory; element types matter by their size only.
#include "kernels/layout.h"

#include "kernels/cpu/vec.h"

namespace dagrt::DAGRT_ISA {
namespace {

constexpr int64_t piece_bytes = 32 << 10;
constexpr double ns_per_byte = 0.12;  // of output, one thread

DAGRT_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
DAGRT_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
DAGRT_INLINE int64_t pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

struct Axis {
  int64_t n, s, d;  // size, stride of src, stride of dst
};

// Position in the axes [0, r), and its offsets.
struct Walk {
  int64_t at[max_rank];
  int64_t s, d;

  DAGRT_INLINE void start(const Axis* ax, int r, int64_t linear) {
    s = d = 0;
    for (int i = r - 1; i >= 0; i--) {
      at[i] = linear % ax[i].n;
      linear /= ax[i].n;
      s += at[i] * ax[i].s;
      d += at[i] * ax[i].d;
    }
  }
  DAGRT_INLINE void next(const Axis* ax, int r) {
    for (int i = r - 1; i >= 0; i--) {
      s += ax[i].s;
      d += ax[i].d;
      if (++at[i] < ax[i].n) return;
      at[i] = 0;
      s -= ax[i].n * ax[i].s;
      d -= ax[i].n * ax[i].d;
    }
  }
};

// Axes in normal form; their number, or -1 where there is nothing to copy.
int normalise(const CopyArgs& a, Axis* ax) {
  int r = 0;
  for (int i = 0; i < a.rank; i++) {
    if (a.dims[i] == 0) return -1;
    if (a.dims[i] == 1) continue;
    Axis x{a.dims[i], a.src_stride[i], a.dst_stride[i]};
    int at = r++;
    for (; at > 0 && ax[at - 1].d < x.d; at--) ax[at] = ax[at - 1];
    ax[at] = x;
  }
  int m = 0;
  for (int i = 0; i < r; i++) {
    if (m > 0 && ax[m - 1].s == ax[i].n * ax[i].s && ax[m - 1].d == ax[i].n * ax[i].d)
      ax[m - 1] = {ax[m - 1].n * ax[i].n, ax[i].s, ax[i].d};
    else
      ax[m++] = ax[i];
  }
  if (m == 0) ax[m++] = {1, 1, 1};
  return m;
}

int64_t count(const Axis* ax, int r) {
  int64_t n = 1;
  for (int i = 0; i < r; i++) n *= ax[i].n;
  return n;
}

template <class P> DAGRT_INLINE void move(char* dst, const char* src) {
  P p;
  __builtin_memcpy(&p, src, sizeof p);
  __builtin_memcpy(dst, &p, sizeof p);
}

DAGRT_INLINE void copy_run(char* dst, const char* src, int64_t n) {
  struct B16 {
    uint64_t a, b;
  };
  if (n > 64) {
    __builtin_memcpy(dst, src, size_t(n));
  } else if (n >= 16) {
    for (int64_t i = 0; i + 16 <= n; i += 16) move<B16>(dst + i, src + i);
    move<B16>(dst + n - 16, src + n - 16);
  } else if (n >= 8) {
    move<uint64_t>(dst, src);
    move<uint64_t>(dst + n - 8, src + n - 8);
  } else if (n >= 4) {
    move<uint32_t>(dst, src);
    move<uint32_t>(dst + n - 4, src + n - 4);
  } else {
    for (int64_t i = 0; i < n; i++) dst[i] = src[i];
  }
}

// `times` runs of n bytes, whose starts are ss and ds bytes apart. Runs of a few bytes are copied by fixed sizes.
template <int64_t fixed> DAGRT_INLINE void copy_fixed(char* dst, int64_t ds, const char* src, int64_t ss, int64_t times) {
  for (; times > 0; times--, src += ss, dst += ds) __builtin_memcpy(dst, src, fixed);
}

DAGRT_INLINE void copy_runs(char* dst, int64_t ds, const char* src, int64_t ss, int64_t n, int64_t times) {
  switch (n) {
    case 2: return copy_fixed<2>(dst, ds, src, ss, times);
    case 4: return copy_fixed<4>(dst, ds, src, ss, times);
    case 8: return copy_fixed<8>(dst, ds, src, ss, times);
    case 12: return copy_fixed<12>(dst, ds, src, ss, times);
    case 16: return copy_fixed<16>(dst, ds, src, ss, times);
    case 24: return copy_fixed<24>(dst, ds, src, ss, times);
    case 32: return copy_fixed<32>(dst, ds, src, ss, times);
    case 64: return copy_fixed<64>(dst, ds, src, ss, times);
    default:
      for (; times > 0; times--, src += ss, dst += ds) copy_run(dst, src, n);
  }
}

template <class T> DAGRT_INLINE T load_any(const void* p) {
  T t;
  __builtin_memcpy(&t, p, sizeof t);
  return t;
}

template <class T> DAGRT_INLINE void fill_run(T* dst, T value, int64_t n) {
  for (int64_t i = 0; i < n; i++) dst[i] = value;
}

void copy_contiguous(const CopyArgs& a, Axis* ax, int r, const Stream& s) {
  int64_t e = a.element, run = ax[r - 1].n * e, rows = count(ax, r - 1);
  const char* src = static_cast<const char*>(a.src);
  char* dst = static_cast<char*>(a.dst);
  if (run >= piece_bytes) {
    int64_t cuts = pieces(run, piece_bytes);
    s.parallel(rows * cuts, double(piece_bytes) * ns_per_byte, [&](int64_t u, char*) {
      Walk w;
      w.start(ax, r - 1, u / cuts);
      int64_t from = u % cuts * piece_bytes;
      __builtin_memcpy(dst + w.d * e + from, src + w.s * e + from, size_t(smaller(piece_bytes, run - from)));
    });
    return;
  }
  int64_t group = larger(1, piece_bytes / run);
  double ns = double(group) * (double(run) * ns_per_byte + 3);
  if (r == 1) return copy_run(dst, src, run);
  if (r > 2 && ax[r - 2].n < 8 && ax[r - 2].n < ax[r - 3].n && ax[r - 3].n * ax[r - 2].n * run <= piece_bytes) {
    const Axis few = ax[r - 2];  // the longer loop inside: what both write stays in L1
    ax[r - 2] = ax[r - 3], ax[r - 3] = few;
  }
  const Axis up = ax[r - 2];
  s.parallel(pieces(rows, group), ns, [&](int64_t u, char*) {
    int64_t row = u * group, end = smaller(rows, row + group), from = row % up.n;
    Walk w;
    w.start(ax, r - 2, row / up.n);
    for (; row < end; from = 0, w.next(ax, r - 2)) {
      int64_t times = smaller(up.n - from, end - row);
      copy_runs(dst + (w.d + from * up.d) * e, up.d * e, src + (w.s + from * up.s) * e, up.s * e, run, times);
      row += times;
    }
  });
}

// ax[r - 2] repeats a contiguous run of ax[r - 1].
void copy_repeated(const CopyArgs& a, const Axis* ax, int r, const Stream& s) {
  int64_t e = a.element, run = ax[r - 1].n * e, times = ax[r - 2].n, rows = count(ax, r - 2);
  int64_t group = smaller(times, larger(1, piece_bytes / run)), cuts = pieces(times, group);
  const char* src = static_cast<const char*>(a.src);
  char* dst = static_cast<char*>(a.dst);
  s.parallel(rows * cuts, double(group * run) * ns_per_byte, [&](int64_t u, char*) {
    Walk w;
    w.start(ax, r - 2, u / cuts);
    int64_t first = u % cuts * group, total = smaller(group, times - first) * run;
    char* to = dst + w.d * e + first * run;
    copy_run(to, src + w.s * e, run);
    for (int64_t done = run; done < total;) {
      int64_t n = smaller(done, total - done);
      __builtin_memcpy(to + done, to, size_t(n));
      done += n;
    }
  });
}

template <class T> void copy_elements(const CopyArgs& a, const Axis* ax, int r, const Stream& s) {
  constexpr int64_t piece = piece_bytes / int64_t(sizeof(T));
  const T* src = static_cast<const T*>(a.src);
  T* dst = static_cast<T*>(a.dst);
  Axis in = ax[r - 1];
  int64_t rows = count(ax, r - 1), cuts = pieces(in.n, piece), group = larger(1, piece / in.n);
  double ns = double(smaller(in.n, piece) * group) * 0.7;
  s.parallel(pieces(rows, group) * cuts, ns, [&](int64_t u, char*) {
    int64_t first = u / cuts * group, end = smaller(rows, first + group);
    int64_t from = u % cuts * piece, n = smaller(piece, in.n - from);
    Walk w;
    w.start(ax, r - 1, first);
    for (int64_t row = first; row < end; row++, w.next(ax, r - 1)) {
      const T* x = src + w.s + from * in.s;
      T* y = dst + w.d + from * in.d;
      if (in.d == 1 && in.s == 0)
        fill_run(y, *x, n);
      else if (in.d == 1 && in.s == -1)
        for (int64_t i = 0; i < n; i++) y[i] = x[-i];
      else if (in.d == 1 && in.s == 2)
        for (int64_t i = 0; i < n; i++) y[i] = x[2 * i];
      else if (in.d == 1)
        for (int64_t i = 0; i < n; i++) y[i] = x[i * in.s];
      else
        for (int64_t i = 0; i < n; i++) y[i * in.d] = x[i * in.s];
    }
  });
}

// --- 2-D swap: dst[j * dj + i] = src[i * si + j] for i < ni, j < nj

// Interleaves by halves: the first V lanes of (a0 b0 a1 b1 ...), and the last.
template <int... I> struct Lanes {};
template <int N, int... I> struct MakeLanes : MakeLanes<N - 1, N - 1, I...> {};
template <int... I> struct MakeLanes<0, I...> {
  using type = Lanes<I...>;
};
template <int... I> DAGRT_INLINE void zip(vi a, vi b, vi& low, vi& high, Lanes<I...>) {
  low = __builtin_shuffle(a, b, vi{(I / 2 + (I % 2) * V)...});
  high = __builtin_shuffle(a, b, vi{(I / 2 + V / 2 + (I % 2) * V)...});
}

DAGRT_INLINE void turn_block(const int32_t* src, int64_t si, int32_t* dst, int64_t dj) {
  // A perfect shuffle of the whole V x V block, log2(V) times, transposes it.
  vi x[V], y[V];
#pragma GCC unroll 16
  for (int i = 0; i < V; i++) x[i] = load_i(src + i * si);
#pragma GCC unroll 4
  for (int step = 1; step < V; step *= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < V / 2; i++) zip(x[i], x[i + V / 2], y[2 * i], y[2 * i + 1], typename MakeLanes<V>::type{});
#pragma GCC unroll 16
    for (int i = 0; i < V; i++) x[i] = y[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < V; i++) store_i(dst + i * dj, x[i]);
}

template <class T> DAGRT_INLINE void turn_plain(const T* src, int64_t si, T* dst, int64_t dj, int64_t ni, int64_t nj) {
  for (int64_t j = 0; j < nj; j++)
    for (int64_t i = 0; i < ni; i++) dst[j * dj + i] = src[i * si + j];
}

template <class T> void turn_tile(const T* src, int64_t si, T* dst, int64_t dj, int64_t ni, int64_t nj) {
  int64_t block = sizeof(T) == 4 ? V : 16;
  if (ni < block || nj < block) return turn_plain(src, si, dst, dj, ni, nj);
  int64_t j = 0;
  for (; j + block <= nj; j += block) {
    int64_t i = 0;
    for (; i + block <= ni; i += block) {
      if constexpr (sizeof(T) == 4)
        turn_block(reinterpret_cast<const int32_t*>(src + i * si + j), si, reinterpret_cast<int32_t*>(dst + j * dj + i), dj);
      else
        turn_plain(src + i * si + j, si, dst + j * dj + i, dj, 16, 16);
    }
    if (i < ni) turn_plain(src + i * si + j, si, dst + j * dj + i, dj, ni - i, block);
  }
  if (j < nj) turn_plain(src + j, si, dst + j * dj, dj, ni, nj - j);
}

// `j` is the axis along which src is contiguous; the innermost axis is that of dst.
template <class T> void copy_turned(const CopyArgs& a, const Axis* ax, int r, int j, const Stream& s) {
  const T* src = static_cast<const T*>(a.src);
  T* dst = static_cast<T*>(a.dst);
  Axis in = ax[r - 1], other = ax[j], outer[max_rank];
  int m = 0;
  for (int i = 0; i < r - 1; i++)
    if (i != j) outer[m++] = ax[i];
  constexpr int64_t tile = 64;
  int64_t ti = larger(tile, tile * tile / other.n), tj = larger(tile, tile * tile / in.n);
  int64_t cuts_i = pieces(in.n, ti), cuts_j = pieces(other.n, tj);
  double ns = double(smaller(ti, in.n) * smaller(tj, other.n)) * 0.6;
  s.parallel(count(outer, m) * cuts_i * cuts_j, ns, [&](int64_t u, char*) {
    Walk w;
    w.start(outer, m, u / (cuts_i * cuts_j));
    int64_t i0 = u % cuts_i * ti, j0 = u / cuts_i % cuts_j * tj;
    turn_tile(src + w.s + i0 * in.s + j0, in.s, dst + w.d + i0 + j0 * other.d, other.d, smaller(ti, in.n - i0),
              smaller(tj, other.n - j0));
  });
}

template <class T> void copy_typed(const CopyArgs& a, const Axis* ax, int r, const Stream& s) {
  if (ax[r - 1].d == 1 && ax[r - 1].s != 0)
    for (int j = r - 2; j >= 0; j--)
      if (ax[j].s == 1) return copy_turned<T>(a, ax, r, j, s);
  copy_elements<T>(a, ax, r, s);
}

template <class T> T saturate(double value) {
  if (value != value) return 0;
  double low = sizeof(T) == 8 ? -9223372036854775808.0 : T(-1) < T(0) ? -2147483648.0 : 0.0;
  double high = sizeof(T) == 8 ? 9223372036854775808.0 : T(-1) < T(0) ? 2147483648.0 : 256.0;
  if (value < low) return T(low);
  if (value >= high) return sizeof(T) == 8 ? T(INT64_MAX) : T(high - 1);
  return T(value);
}

uint64_t encode(double value, DType t) {
  switch (t) {
    case DType::float32: {
      float f = float(value);
      return load_any<uint32_t>(&f);
    }
    case DType::bfloat16: return float_to_bf16(float(value));
    case DType::float16: return float_to_half(float(value));
    case DType::int32: return uint32_t(saturate<int32_t>(value));
    case DType::int64: return uint64_t(saturate<int64_t>(value));
    case DType::uint8: return saturate<uint8_t>(value);
    case DType::bool_: return value != 0;
  }
  return 0;
}

template <class T> void fill_typed(const FillArgs& a, T value, const Stream& s) {
  constexpr int64_t piece = piece_bytes / int64_t(sizeof(T));
  T* dst = static_cast<T*>(a.dst);
  int64_t cuts = pieces(a.columns, piece), group = larger(1, piece / a.columns);
  s.parallel(pieces(a.rows, group) * cuts, piece_bytes * ns_per_byte * 0.5, [&](int64_t u, char*) {
    int64_t end = smaller(a.rows, (u / cuts + 1) * group), from = u % cuts * piece;
    for (int64_t row = u / cuts * group; row < end; row++)
      fill_run(dst + row * a.ld + from, value, smaller(piece, a.columns - from));
  });
}

// One axis of a padding, and where a walk over its output stands.
struct PadAxis {
  int64_t n, out, low, step, s, d;  // sizes, front padding, interior + 1, strides
  int64_t at, source;               // position; offset in src, or -1 where that is padding

  DAGRT_INLINE void set(int64_t position) {
    at = position;
    int64_t p = position - low;
    source = p < 0 || p >= n * step || p % step ? -1 : p / step * s;
  }
};

// Merges inner axes without padding into their neighbours.
int normalise(const PadArgs& a, PadAxis* ax) {
  int m = 0;
  for (int i = 0; i < a.rank; i++) {
    PadAxis x{a.dims[i], a.out_dims[i], a.low[i], a.interior[i] + 1, a.src_stride[i], a.dst_stride[i], 0, 0};
    bool whole = x.low == 0 && x.out == x.n;
    PadAxis* before = m ? &ax[m - 1] : nullptr;
    if (before && whole && before->step == 1 && before->s == x.n * x.s && before->d == x.out * x.d)
      *before = {before->n * x.n, before->out * x.n, before->low * x.n, 1, x.s, x.d, 0, 0};
    else
      ax[m++] = x;
  }
  if (m == 0) ax[m++] = {1, 1, 0, 1, 1, 1, 0, 0};
  return m;
}

// Elements [from, end) of one output row, whose source is x (null: all padding).
template <class T> DAGRT_INLINE void pad_row(const PadAxis& in, const T* x, T* y, T value, int64_t from, int64_t end) {
  if (!x || in.n == 0) return fill_run(y + from, value, end - from);
  if (in.step > 1) {
    fill_run(y + from, value, end - from);
    int64_t first = from > in.low ? (from - in.low + in.step - 1) / in.step : 0;
    for (int64_t i = first; i < in.n && in.low + i * in.step < end; i++) y[in.low + i * in.step] = x[i];
    return;
  }
  int64_t a = smaller(larger(in.low, from), end), b = larger(smaller(in.low + in.n, end), a);
  fill_run(y + from, value, a - from);
  copy_run(reinterpret_cast<char*>(y + a), reinterpret_cast<const char*>(x + (a - in.low)), (b - a) * int64_t(sizeof(T)));
  fill_run(y + b, value, end - b);
}

template <class T> void pad_typed(const PadArgs& a, T value, const Stream& s) {
  PadAxis ax[max_rank];
  int r = normalise(a, ax);
  int64_t rows = 1;
  for (int i = 0; i < r; i++)
    if (ax[i].out == 0) return;
  for (int i = 0; i + 1 < r; i++) rows *= ax[i].out;
  constexpr int64_t piece = piece_bytes / int64_t(sizeof(T));
  const T* src = static_cast<const T*>(a.src);
  T* dst = static_cast<T*>(a.dst);
  const PadAxis in = ax[r - 1];
  int64_t cuts = pieces(in.out, piece), group = larger(1, piece / in.out);
  double ns = double(smaller(in.out, piece) * group) * double(sizeof(T)) * ns_per_byte + double(group) * 5;
  s.parallel(pieces(rows, group) * cuts, ns, [&](int64_t u, char*) {
    int64_t first = u / cuts * group, last = smaller(rows, first + group);
    int64_t from = u % cuts * piece, end = smaller(in.out, from + piece);
    PadAxis w[max_rank];
    int64_t linear = first;
    for (int i = r - 2; i >= 0; i--) {
      w[i] = ax[i];
      w[i].set(linear % ax[i].out);
      linear /= ax[i].out;
    }
    for (int64_t row = first; row < last; row++) {
      int64_t sx = 0, dy = 0;
      for (int i = 0; i + 1 < r; i++) {
        sx = sx < 0 || w[i].source < 0 ? -1 : sx + w[i].source;
        dy += w[i].at * w[i].d;
      }
      pad_row(in, sx < 0 ? static_cast<const T*>(nullptr) : src + sx, dst + dy, value, from, end);
      for (int i = r - 2; i >= 0; i--) {
        bool carry = w[i].at + 1 == w[i].out;
        w[i].set(carry ? 0 : w[i].at + 1);
        if (!carry) break;
      }
    }
  });
}

struct Number {
  template <class T> static DAGRT_INLINE T of(int64_t i) { return T(i); }
};
struct Bf16 {
  template <class T> static DAGRT_INLINE T of(int64_t i) { return float_to_bf16(float(i)); }
};
struct Half {
  template <class T> static DAGRT_INLINE T of(int64_t i) { return float_to_half(float(i)); }
};

template <class T, class F = Number> void iota_typed(const IotaArgs& a, const Stream& s) {
  constexpr int64_t piece = 8192;
  T* dst = static_cast<T*>(a.dst);
  s.parallel(pieces(a.n, piece), piece * 0.5, [&](int64_t u, char*) {
    int64_t end = smaller(a.n, (u + 1) * piece);
    for (int64_t i = u * piece; i < end; i++) dst[i] = F::template of<T>(i);
  });
}

}  // namespace

void copy_strided(const CopyArgs& a, const Stream& s) {
  Axis ax[max_rank];
  int r = normalise(a, ax);
  if (r < 0) return;
  const Axis in = ax[r - 1];
  if (in.s == 1 && in.d == 1) {
    bool repeats = r > 1 && ax[r - 2].s == 0 && ax[r - 2].d == in.n && in.n * a.element <= piece_bytes / 2;
    return repeats ? copy_repeated(a, ax, r, s) : copy_contiguous(a, ax, r, s);
  }
  switch (a.element) {
    case 1: return copy_typed<uint8_t>(a, ax, r, s);
    case 2: return copy_typed<uint16_t>(a, ax, r, s);
    case 4: return copy_typed<uint32_t>(a, ax, r, s);
    default: return copy_typed<uint64_t>(a, ax, r, s);
  }
}

void pad(const PadArgs& a, const Stream& s) {
  uint64_t bits = encode(a.value, a.dtype);
  switch (size_of(a.dtype)) {
    case 1: return pad_typed<uint8_t>(a, uint8_t(bits), s);
    case 2: return pad_typed<uint16_t>(a, uint16_t(bits), s);
    case 4: return pad_typed<uint32_t>(a, uint32_t(bits), s);
    default: return pad_typed<uint64_t>(a, bits, s);
  }
}

void fill(const FillArgs& given, const Stream& s) {
  FillArgs a = given;
  if (a.rows == 0 || a.columns == 0) return;
  if (a.ld == a.columns) {
    a.columns *= a.rows;
    a.rows = 1;
  }
  uint64_t bits = encode(a.value, a.dtype);
  switch (size_of(a.dtype)) {
    case 1: return fill_typed<uint8_t>(a, uint8_t(bits), s);
    case 2: return fill_typed<uint16_t>(a, uint16_t(bits), s);
    case 4: return fill_typed<uint32_t>(a, uint32_t(bits), s);
    default: return fill_typed<uint64_t>(a, bits, s);
  }
}

void iota(const IotaArgs& a, const Stream& s) {
  switch (a.dtype) {
    case DType::float32: return iota_typed<float>(a, s);
    case DType::bfloat16: return iota_typed<uint16_t, Bf16>(a, s);
    case DType::float16: return iota_typed<uint16_t, Half>(a, s);
    case DType::int64: return iota_typed<int64_t>(a, s);
    case DType::uint8: return iota_typed<uint8_t>(a, s);
    default: return iota_typed<int32_t>(a, s);
  }
}

}  // namespace dagrt::DAGRT_ISA
