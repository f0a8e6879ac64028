// Reductions, argmax and argmin, cumulative sums, sorting.
//
// A reduction whose innermost axis is reduced takes a warp or a block for each result, its lanes side by side; one that
// keeps the innermost axis takes a thread for each column, so that a warp reads whole lines, along several axes at once where
// few elements lie apart. What is long is cut into the
// pieces of reduce.h, by shape alone, whose partial results are reduced in order by the same kernel: deterministic, no
// atomics. Floats are added in float32, each lane in blocks of 32 additions and then over the blocks.
#include "kernels/reduce.h"

#include "kernels/cuda/functors.cuh"

namespace dagrt {
namespace {

constexpr int threads = 256, column_threads = 64, sort_threads = 128;

struct Sum {
  DAGRT_DEVICE static float identity(float) { return 0; }
  DAGRT_DEVICE static float join(float a, float b) { return a + b; }
  template <class T> DAGRT_DEVICE static T identity(T) { return T(0); }
  template <class T> DAGRT_DEVICE static T join(T a, T b) {
    using U = typename Unsigned<T>::type;
    return T(U(a) + U(b));
  }
};
struct Prod {
  DAGRT_DEVICE static float identity(float) { return 1; }
  DAGRT_DEVICE static float join(float a, float b) { return a * b; }
  template <class T> DAGRT_DEVICE static T identity(T) { return T(1); }
  template <class T> DAGRT_DEVICE static T join(T a, T b) {
    using U = typename Unsigned<T>::type;
    return T(U(a) * U(b));
  }
};
template <class T> DAGRT_DEVICE T lowest() { return T(-1) < T(0) ? T(uint64_t(1) << (sizeof(T) * 8 - 1)) : T(0); }
struct Max {
  DAGRT_DEVICE static float identity(float) { return -INFINITY; }
  DAGRT_DEVICE static float join(float a, float b) { return vmax(a, b); }
  template <class T> DAGRT_DEVICE static T identity(T) { return lowest<T>(); }
  template <class T> DAGRT_DEVICE static T join(T a, T b) { return a > b ? a : b; }
};
struct Min {
  DAGRT_DEVICE static float identity(float) { return INFINITY; }
  DAGRT_DEVICE static float join(float a, float b) { return vmin(a, b); }
  template <class T> DAGRT_DEVICE static T identity(T) { return T(~lowest<T>()); }
  template <class T> DAGRT_DEVICE static T join(T a, T b) { return a < b ? a : b; }
};

template <class T> DAGRT_DEVICE T load_wide(const T* p) { return *p; }
DAGRT_DEVICE float load_wide(const Bf16* p) { return widen(*p); }
DAGRT_DEVICE float load_wide(const Half* p) { return widen(*p); }

/// One level: [outer, length, mid, inner] to [outer, mid, pieces, inner].
struct Level {
  int64_t outer, length, mid, inner, outer_stride, length_stride, mid_stride, piece, pieces;
};

/// Every 32 additions the running value goes to the total, so that rounding errors grow slowly.
template <class F, class S> struct Running {
  S part, total;
  int count = 0;
  DAGRT_DEVICE Running() : part(F::identity(S())), total(F::identity(S())) {}
  DAGRT_DEVICE void add(S x) {
    part = F::join(part, x);
    if (++count == 32) total = F::join(total, part), part = F::identity(S()), count = 0;
  }
  DAGRT_DEVICE S result() const { return F::join(total, part); }
};

template <class F, class T, class S>
__global__ void __launch_bounds__(column_threads) reduce_columns_kernel(Gate gate, const T* x, S* y, Level a) {
  if (closed(gate)) return;
  const int64_t total = a.outer * a.mid * a.pieces * a.inner;
  for (int64_t i = first_index(); i < total; i += grid_stride()) {
    int64_t c = i % a.inner, row = i / a.inner, p = row % a.pieces, m = row / a.pieces % a.mid, o = row / a.pieces / a.mid;
    int64_t begin = p * a.piece, end = smaller(a.length, begin + a.piece);
    const T* from = x + o * a.outer_stride + m * a.mid_stride + c;
    Running<F, S> run;
    for (int64_t r = begin; r < end; r++) run.add(load_wide(from + r * a.length_stride));
    y[i] = run.result();
  }
}

/// inner = 1: `lanes` (32, or the block) threads for each result.
template <class F, class T, class S, int lanes>
__global__ void __launch_bounds__(threads) reduce_rows_kernel(Gate gate, const T* x, S* y, Level a) {
  if (closed(gate)) return;
  SHARED(S, room, [32]);
  const int64_t total = a.outer * a.mid * a.pieces, per_block = threads / lanes;
  auto join = [](S p, S q) { return F::join(p, q); };
  for (int64_t first = int64_t(blockIdx.x) * per_block; first < total; first += int64_t(gridDim.x) * per_block) {
    int64_t i = first + threadIdx.x / lanes;
    Running<F, S> run;
    if (i < total) {
      int64_t p = i % a.pieces, m = i / a.pieces % a.mid, o = i / a.pieces / a.mid;
      int64_t begin = p * a.piece, end = smaller(a.length, begin + a.piece);
      const T* from = x + o * a.outer_stride + m * a.mid_stride;
      for (int64_t r = begin + threadIdx.x % lanes; r < end; r += lanes) run.add(load_wide(from + r * a.length_stride));
    }
    S v = run.result();
    if constexpr (lanes == 32)
      v = warp_join(v, join);
    else
      v = block_join(v, join, F::identity(S()), room);
    if (i < total && threadIdx.x % lanes == 0) y[i] = v;
  }
}

template <class F, class T, class S> void reduce_level(CudaStream& s, const T* x, S* y, const Level& a) {
  if (a.inner == 1 && a.length >= 16) {
    int64_t rows = a.outer * a.mid * a.pieces;
    if (a.piece <= 1024)
      launch(s, "reduce_rows", reduce_rows_kernel<F, T, S, 32>, blocks_for(s, rows * 32, threads), threads, x, y, a);
    else
      launch(s, "reduce_long_rows", reduce_rows_kernel<F, T, S, threads>, blocks_for(s, rows * threads, threads), threads, x, y, a);
    return;
  }
  launch(s, "reduce_columns", reduce_columns_kernel<F, T, S>, blocks_for(s, a.outer * a.mid * a.pieces * a.inner, column_threads),
         column_threads, x, y, a);
}

template <class F, class T, class S> void reduce_type(const ReduceArgs& a, CudaStream& s) {
  Level l{a.outer, a.length, a.mid, a.inner, a.outer_stride, a.length_stride, a.mid_stride, larger(a.length, 1), 1};
  const T* x = static_cast<const T*>(a.x);
  S* y = static_cast<S*>(a.y);
  const int64_t cut = reduce_pieces(a.length, a.inner);
  if (cut == 1 || !std::is_same_v<S, float>) return reduce_level<F, T, S>(s, x, y, l);
  l.piece = reduce_piece(a.length, a.inner), l.pieces = cut;
  S* partials = reinterpret_cast<S*>(a.partials);
  reduce_level<F, T, S>(s, x, partials, l);
  reduce_level<F, S, S>(s, partials, y, {a.outer * a.mid, cut, 1, a.inner, cut * a.inner, a.inner, 0, cut, 1});
}

template <class F> void reduce_kind(const ReduceArgs& a, CudaStream& s) {
  with_dtype(a.dtype, [&](auto t) {
    using T = decltype(t);
    if constexpr (std::is_same_v<T, Bf16> || std::is_same_v<T, Half>)
      reduce_type<F, T, float>(a, s);
    else
      reduce_type<F, T, T>(a, s);
  });
}

// ---------------------------------------------------------------- axes apart: a thread for each result
template <class F, class T>
__global__ void __launch_bounds__(threads) reduce_apart_kernel(Gate gate, const T* x, float* y, Space<1> kept, Space<1> reduced) {
  if (closed(gate)) return;
  for (int64_t i = first_index(); i < kept.total; i += grid_stride()) {
    int64_t from, to;
    kept.offsets(i, &from);
    Running<F, float> run;
#pragma unroll 1
    for (int64_t r = 0; r < reduced.total; r++) {
      reduced.offsets(r, &to);
      run.add(load_wide(x + from + to));
    }
    y[i] = run.result();
  }
}

template <class F> void reduce_apart_kind(const ReduceApartArgs& a, CudaStream& s) {
  Space<1> kept, reduced;
  kept.operands = reduced.operands = 1;
  for (int d = 0; d < a.rank; d++) kept.add_axis(a.dims[d], &a.stride[d]);
  for (int d = 0; d < a.length_rank; d++) reduced.add_axis(a.length_dims[d], &a.length_stride[d]);
  kept.finish(), reduced.finish();
  if (kept.total == 0) return;
  const unsigned blocks = blocks_for(s, kept.total, threads);
  with_dtype(a.dtype, [&](auto t) {
    using T = decltype(t);
    if constexpr (std::is_same_v<T, float> || std::is_same_v<T, Bf16> || std::is_same_v<T, Half>)
      launch(s, "reduce_apart", reduce_apart_kernel<F, T>, blocks, threads, static_cast<const T*>(a.x), a.y, kept, reduced);
  });
}

// ---------------------------------------------------------------- argmax, argmin
/// Whether b, at a later or another place, goes before a: NaN first, then the extreme, then the lower place.
template <class S> struct Place {
  S value;
  int64_t at;
};
template <class S> DAGRT_DEVICE bool goes_before(const Place<S>& b, const Place<S>& a, bool smallest) {
  bool an = a.value != a.value, bn = b.value != b.value;
  if (an || bn) return bn && (!an || b.at < a.at);
  if (a.value == b.value) return b.at < a.at;
  return smallest ? b.value < a.value : b.value > a.value;
}

template <class T, class S> __global__ void __launch_bounds__(threads, 1) arg_reduce_kernel(Gate gate, ArgReduceArgs a) {
  if (closed(gate)) return;
  const int64_t total = a.outer * a.inner, lane = threadIdx.x % 32;
  for (int64_t first = int64_t(blockIdx.x) * (threads / 32); first < total; first += int64_t(gridDim.x) * (threads / 32)) {
    int64_t i = first + threadIdx.x / 32, row = smaller(i, total - 1);
    const T* x = static_cast<const T*>(a.x) + row / a.inner * a.outer_stride + row % a.inner * a.inner_stride;
    Place<S> best{load_wide(x), 0};
    for (int64_t r = lane; r < a.length; r += 32) {
      Place<S> v{load_wide(x + r * a.length_stride), r};
      if (goes_before(v, best, a.smallest)) best = v;
    }
    for (int w = 16; w; w /= 2) {
      Place<S> v{S(__shfl_xor_sync(all_lanes, best.value, w)), __shfl_xor_sync(all_lanes, best.at, w)};
      if (goes_before(v, best, a.smallest)) best = v;
    }
    if (i < total && lane == 0) a.y[i] = int32_t(best.at);
  }
}

// ---------------------------------------------------------------- cumsum: a thread for each line, in order
template <class T, class S> __global__ void __launch_bounds__(column_threads) cumsum_kernel(Gate gate, CumsumArgs a) {
  if (closed(gate)) return;
  for (int64_t u = first_index(); u < a.outer * a.inner; u += grid_stride()) {
    const T* x = static_cast<const T*>(a.x) + u / a.inner * a.x_stride[0] + u % a.inner * a.x_stride[2];
    T* y = static_cast<T*>(a.y) + u / a.inner * a.y_stride[0] + u % a.inner * a.y_stride[2];
    S total{};
    for (int64_t k = 0; k < a.length; k++) {
      int64_t r = a.reverse ? a.length - 1 - k : k;
      S before = total;
      total = S(total + S(load_wide(x + r * a.x_stride[1])));
      S out = a.exclusive ? before : total;
      if constexpr (std::is_same_v<S, float>)
        narrow(out, y[r * a.y_stride[1]]);
      else
        y[r * a.y_stride[1]] = T(out);
    }
  }
}

// ---------------------------------------------------------------- sort
/// Ascending keys are the wanted order; NaN counts as the largest, -0 and 0 are equal.
DAGRT_DEVICE uint64_t key_of(float x) {
  uint32_t u = float_to_bits(x == 0 ? 0.0f : x);
  if (x != x) return 0xffffffffu;
  return u & 0x80000000u ? ~u : u | 0x80000000u;
}
DAGRT_DEVICE uint64_t key_of(Half x) { return key_of(widen(x)); }
DAGRT_DEVICE uint64_t key_of(Bf16 x) { return key_of(widen(x)); }
DAGRT_DEVICE uint64_t key_of(int32_t x) { return uint64_t(int64_t(x)) ^ (uint64_t(1) << 63); }
DAGRT_DEVICE uint64_t key_of(int64_t x) { return uint64_t(x) ^ (uint64_t(1) << 63); }
DAGRT_DEVICE uint64_t key_of(uint8_t x) { return x; }

struct Item {
  uint64_t key;
  int64_t index;
};

/// A block for each line. Runs double: an item's place in the merged run is its place in its own plus the number of items
/// of the other that go before it, found by bisection; equal items of the left run stay first.
template <class T>
__global__ void __launch_bounds__(sort_threads, 1) sort_kernel(Gate gate, SortArgs a, char* scratch, int64_t scratch_bytes) {
  if (closed(gate)) return;
  for (int64_t u = blockIdx.x; u < a.outer * a.inner; u += gridDim.x) {
    const T* x = static_cast<const T*>(a.x) + u / a.inner * a.x_stride[0] + u % a.inner * a.x_stride[2];
    Item* from = reinterpret_cast<Item*>(scratch + blockIdx.x * scratch_bytes);
    Item* to = from + a.length;
    for (int64_t r = threadIdx.x; r < a.length; r += blockDim.x) {
      uint64_t key = key_of(x[r * a.x_stride[1]]);
      from[r] = {a.descending ? ~key : key, r};
    }
    for (int64_t run = 1; run < a.length; run *= 2) {
      __syncthreads();
      for (int64_t i = threadIdx.x; i < a.length; i += blockDim.x) {
        int64_t start = i / (2 * run) * 2 * run, middle = smaller(start + run, a.length), end = smaller(start + 2 * run, a.length);
        bool left = i < middle;
        int64_t low = left ? middle : start, high = left ? end : middle, base = low;
        while (low < high) {
          int64_t at = (low + high) / 2;
          if (left ? from[at].key < from[i].key : from[at].key <= from[i].key)
            low = at + 1;
          else
            high = at;
        }
        to[start + (i - (left ? start : middle)) + (low - base)] = from[i];
      }
      Item* swap = from;
      from = to;
      to = swap;
    }
    __syncthreads();
    for (int64_t r = threadIdx.x; r < a.kept; r += blockDim.x) {
      int64_t o = u / a.inner, i = u % a.inner, at = from[r].index;
      if (a.values)
        static_cast<T*>(a.values)[o * a.values_stride[0] + r * a.values_stride[1] + i * a.values_stride[2]] = x[at * a.x_stride[1]];
      if (a.indices) a.indices[o * a.indices_stride[0] + r * a.indices_stride[1] + i * a.indices_stride[2]] = int32_t(at);
    }
  }
}

}  // namespace

void reduce(const ReduceArgs& a, CudaStream& s) {
  if (a.outer * a.mid * a.inner == 0) return;
  switch (a.kind) {
    case Reduction::sum: return reduce_kind<Sum>(a, s);
    case Reduction::max: return reduce_kind<Max>(a, s);
    case Reduction::min: return reduce_kind<Min>(a, s);
    case Reduction::prod: return reduce_kind<Prod>(a, s);
  }
}

void reduce_apart(const ReduceApartArgs& a, CudaStream& s) {
  switch (a.kind) {
    case Reduction::sum: return reduce_apart_kind<Sum>(a, s);
    case Reduction::max: return reduce_apart_kind<Max>(a, s);
    case Reduction::min: return reduce_apart_kind<Min>(a, s);
    case Reduction::prod: return reduce_apart_kind<Prod>(a, s);
  }
}

void arg_reduce(const ArgReduceArgs& a, CudaStream& s) {
  if (a.outer * a.inner * a.length == 0) return;
  unsigned grid = blocks_for(s, a.outer * a.inner * 32, threads);
  with_dtype(a.dtype, [&](auto t) {
    using T = decltype(t);
    if constexpr (std::is_same_v<T, Bf16> || std::is_same_v<T, Half>)
      launch(s, "arg_reduce", arg_reduce_kernel<T, float>, grid, threads, a);
    else
      launch(s, "arg_reduce", arg_reduce_kernel<T, T>, grid, threads, a);
  });
}

void cumsum(const CumsumArgs& a, CudaStream& s) {
  if (a.outer * a.inner * a.length == 0) return;
  unsigned grid = blocks_for(s, a.outer * a.inner, column_threads);
  with_dtype(a.dtype, [&](auto t) {
    using T = decltype(t);
    if constexpr (std::is_same_v<T, float> || std::is_same_v<T, Bf16> || std::is_same_v<T, Half>)
      launch(s, "cumsum", cumsum_kernel<T, float>, grid, column_threads, a);
    else
      launch(s, "cumsum", cumsum_kernel<T, typename Unsigned<T>::type>, grid, column_threads, a);
  });
}

void sort(const SortArgs& a, CudaStream& s) {
  if (a.outer * a.inner * a.length == 0) return;
  unsigned grid = unsigned(smaller(a.outer * a.inner, scratch_parts));
  with_dtype(a.dtype, [&](auto t) {
    launch(s, "sort", sort_kernel<decltype(t)>, grid, sort_threads, a, s.scratch, int64_t(s.scratch_bytes));
  });
}

}  // namespace dagrt
