// gather, scatter_add, take_along_axis, put_along_axis_add, one_hot, and the check of ids.
//
// A check writes the run's status word on the device: the lowest bad position by an atomic minimum, then its value by one
// thread. The host learns of it at the end of the run; until then every read of a bad id gives zeros.
// Additions are deterministic without atomics: a block owns the sums of some destinations, in shared memory, and adds in the
// order of the ids. It reads all ids, 256 at once, and lists in order those that are its own; how many destinations a block has
// keeps the ids that are read so often few beside what is written. put_along_axis_add: a thread looks for its element's ids.
#include "kernels/indexing.h"

#include "kernels/check.h"
#include "kernels/cuda/common.cuh"

namespace dagrt {
namespace {

constexpr int threads = 256;
constexpr int64_t most_sums = 32 << 10;  // bytes of scatter_add's in shared memory

struct Ids {
  const void* p;
  bool wide;
  DAGRT_DEVICE int64_t operator[](int64_t i) const {
    return wide ? static_cast<const int64_t*>(p)[i] : static_cast<const int32_t*>(p)[i];
  }
};
DAGRT_DEVICE bool inside(int64_t id, int64_t n) { return uint64_t(id) < uint64_t(n); }

// What 16-bit floats are added in; integers wrap in their own width.
template <class T> struct Summed {
  using type = T;
};
template <> struct Summed<int32_t> {
  using type = uint32_t;
};
template <> struct Summed<int64_t> {
  using type = uint64_t;
};
template <> struct Summed<Bf16> {
  using type = float;
};
template <> struct Summed<Half> {
  using type = float;
};
template <class T> DAGRT_DEVICE typename Summed<T>::type as_sum(T x) { return typename Summed<T>::type(x); }
DAGRT_DEVICE float as_sum(Bf16 x) { return widen(x); }
DAGRT_DEVICE float as_sum(Half x) { return widen(x); }
template <class T> DAGRT_DEVICE void put_sum(typename Summed<T>::type x, T& y) {
  if constexpr (sizeof(T) == 2)
    narrow(x, y);
  else
    y = T(x);
}

__global__ void __launch_bounds__(threads) find_bad_kernel(Gate gate, Ids ids, DType narrow_type, int64_t width, int64_t ld,
                                                           int64_t n, int64_t limit, DeviceStatus* status) {
  if (closed(gate) || status->code != 0) return;
  for (int64_t i = first_index(); i < n; i += grid_stride()) {
    int64_t at = width == ld ? i : i / width * ld + i % width;
    int64_t id = narrow_type == DType::uint8 ? int64_t(static_cast<const uint8_t*>(ids.p)[at]) : ids[at];
    bool bad = limit < 0 ? id == 0 : !inside(id, limit);  // a negative limit: divisors, which must not be 0
    if (bad) atomicMin(&status->first, static_cast<unsigned long long>(i));
  }
}

__global__ void __launch_bounds__(1) report_kernel(Gate gate, Ids ids, DType narrow_type, int64_t width, int64_t ld, int64_t limit,
                                                   int32_t code, int32_t node, DeviceStatus* status) {
  if (closed(gate) || status->code != 0 || status->first == ~0ull) return;
  int64_t i = int64_t(status->first), at = width == ld ? i : i / width * ld + i % width;
  status->index = i;
  status->value = narrow_type == DType::uint8 ? int64_t(static_cast<const uint8_t*>(ids.p)[at]) : ids[at];
  status->limit = limit < 0 ? 0 : limit;
  status->node = node;
  status->code = code;
}

template <class T> __global__ void __launch_bounds__(threads) gather_kernel(Gate gate, RowsArgs a) {
  if (closed(gate)) return;
  Ids ids{a.ids, a.wide};
  const int64_t rows = a.O * a.K * a.R;
  for (int64_t i = first_index(); i < rows * a.C; i += grid_stride()) {
    int64_t c = i % a.C, row = i / a.C, r = row % a.R, k = row / a.R % a.K, o = row / a.R / a.K, id = ids[k];
    T* y = static_cast<T*>(a.y) + o * a.yo + k * a.yk + r * a.yr + c;
    *y = inside(id, a.N) ? static_cast<const T*>(a.x)[o * a.xo + id * a.xk + r * a.xr + c] : T{};
  }
}

/// Blocks have `rows` destinations of one o, and of their elements a strip of `columns`. Every thread adds, in the order of the
/// ids, to elements that are its alone: one column of every so many destinations.
template <class T>
__global__ void __launch_bounds__(threads) scatter_add_kernel(Gate gate, RowsArgs a, int rows, int columns) {
  if (closed(gate)) return;
  using S = typename Summed<T>::type;
  S* sums = dynamic_shared<S>();  // [rows][columns]
  SHARED(int32_t, hits, [threads]);
  SHARED(int32_t, places, [threads]);
  SHARED(int32_t, counts, [threads / 32]);
  const Ids ids{a.ids, a.wide};
  const int64_t width = a.R * a.C, strips = (width + columns - 1) / columns, tiles = (a.N + rows - 1) / rows;
  const int64_t n0 = blockIdx.x / strips % tiles * rows, o = blockIdx.x / strips / tiles, n1 = smaller(n0 + rows, a.N);
  const int column = int(threadIdx.x) % columns, group = int(threadIdx.x) / columns, groups = threads / columns;
  const int64_t c = blockIdx.x % strips * columns + column;
  const bool in = group < groups && c < width;
  const T* x = static_cast<const T*>(a.x) + o * a.xo + c / a.C * a.xr + c % a.C;
  if (in)
    for (int n = group; n < n1 - n0; n += groups) sums[n * columns + column] = S();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int64_t k0 = 0; k0 < a.K; k0 += threads) {
    const int64_t k = k0 + threadIdx.x, id = k < a.K ? ids[k] : -1;
    const bool hit = id >= n0 && id < n1;
    int upto = hit;  // hits of the warp's lanes up to this one
    for (int w = 1; w < 32; w *= 2) {
      const int other = __shfl_sync(all_lanes, upto, lane < w ? lane : lane - w);
      if (lane >= w) upto += other;
    }
    if (lane == 31) counts[warp] = upto;
    __syncthreads();
    int at = upto - 1, all = 0;
    for (int w = 0; w < threads / 32; w++) {
      if (w < warp) at += counts[w];
      all += counts[w];
    }
    if (hit) hits[at] = int(threadIdx.x), places[at] = int(id - n0);
    __syncthreads();
    if (in)
      for (int h = 0; h < all; h++)
        if (places[h] % groups == group) sums[places[h] * columns + column] += as_sum(x[(k0 + hits[h]) * a.xk]);
  }
  T* y = static_cast<T*>(a.y) + o * a.yo + n0 * a.yk + c / a.C * a.yr + c % a.C;
  if (in)
    for (int n = group; n < n1 - n0; n += groups) put_sum<T>(sums[n * columns + column], y[n * a.yk]);
}

template <class T> __global__ void __launch_bounds__(threads) take_kernel(Gate gate, AlongAxisArgs a, int64_t total) {
  if (closed(gate)) return;
  Ids ids{a.ids, a.wide};
  for (int64_t i = first_index(); i < total; i += grid_stride()) {
    int64_t rest = i, x = 0, at = 0, y = 0;
    for (int d = a.rank - 1; d >= 0; d--) {
      int64_t k = rest % a.dims[d];
      rest /= a.dims[d];
      if (d != a.axis) x += k * a.x_stride[d];
      at += k * a.id_stride[d];
      y += k * a.y_stride[d];
    }
    int64_t id = ids[at];
    static_cast<T*>(a.y)[y] = inside(id, a.N) ? static_cast<const T*>(a.x)[x + id * a.x_stride[a.axis]] : T(0);
  }
}

template <class T> __global__ void __launch_bounds__(threads) put_kernel(Gate gate, AlongAxisArgs a, int64_t total) {
  if (closed(gate)) return;
  Ids ids{a.ids, a.wide};
  for (int64_t i = first_index(); i < total; i += grid_stride()) {
    int64_t rest = i, x = 0, at = 0, y = 0, n = 0;
    for (int d = a.rank - 1; d >= 0; d--) {
      int64_t k = rest % a.y_dims[d];
      rest /= a.y_dims[d];
      y += k * a.y_stride[d];
      if (d == a.axis)
        n = k;
      else
        x += k * a.x_stride[d], at += k * a.id_stride[d];
    }
    typename Summed<T>::type sum{};
    for (int64_t k = 0; k < a.dims[a.axis]; k++)
      if (ids[at + k * a.id_stride[a.axis]] == n) sum += as_sum(static_cast<const T*>(a.x)[x + k * a.x_stride[a.axis]]);
    put_sum(sum, static_cast<T*>(a.y)[y]);
  }
}

template <class T> __global__ void __launch_bounds__(threads) one_hot_kernel(Gate gate, OneHotArgs a, T one) {
  if (closed(gate)) return;
  Ids ids{a.ids, a.id_dtype == DType::int64};
  for (int64_t i = first_index(); i < a.rows * a.depth; i += grid_stride()) {
    int64_t row = i / a.depth, c = i % a.depth;
    int64_t id = a.id_dtype == DType::uint8 ? int64_t(static_cast<const uint8_t*>(a.ids)[row]) : ids[row];
    static_cast<T*>(a.y)[row * a.ld + c] = id == c ? one : T(0);
  }
}

}  // namespace

void check_numbers(const CheckNumbersArgs& a, CudaStream& s) {
  if (a.count == 0) return;
  Ids ids{a.ids, a.dtype == DType::int64};
  launch(s, "find_bad", find_bad_kernel, blocks_for(s, a.count, threads), threads, ids, a.dtype, a.width, a.ld, a.count, a.limit,
         s.status);
  launch(s, "report", report_kernel, 1, 1, ids, a.dtype, a.width, a.ld, a.limit, a.code, a.node, s.status);
}

void gather(const RowsArgs& given, CudaStream& s) {
  RowsArgs a = given;
  int64_t element = int64_t(size_of(a.dtype)), fit = a.C | a.xo | a.xk | a.xr | a.yo | a.yk | a.yr;
  if (fit * element % 16 == 0 && (reinterpret_cast<uintptr_t>(a.x) | reinterpret_cast<uintptr_t>(a.y)) % 16 == 0) {
    const int64_t n = 16 / element;
    for (int64_t* p : {&a.C, &a.xo, &a.xk, &a.xr, &a.yo, &a.yk, &a.yr}) *p /= n;
    element = 16;
  }
  const int64_t n = a.O * a.K * a.R * a.C;
  if (n == 0) return;
  auto run = [&](auto t) { launch(s, "gather", gather_kernel<decltype(t)>, blocks_for(s, n, threads), threads, a); };
  if (element == 16) return run(uint4());
  with_element(element, run);
}

void scatter_add(const RowsArgs& a, CudaStream& s) {
  const int64_t width = a.R * a.C;
  if (a.O * a.N * width == 0) return;
  with_dtype(a.dtype, [&](auto t) {
    using T = decltype(t);
    using S = typename Summed<T>::type;
    const int64_t columns = smaller(width, threads), strips = pieces(width, columns), element = int64_t(sizeof(S));
    // Ids, read by every block, stay a quarter of what is written, unless the device would be left half empty.
    const int64_t few = a.O * a.N * width * element / (4 * larger(1, a.K) * (a.wide ? 8 : 4));
    const int64_t blocks = smaller(larger(few, s.multiprocessors / 2), int64_t(s.multiprocessors) * 4);
    const int64_t rows = larger(1, smaller(smaller(pieces(a.O * a.N * strips, blocks), a.N), most_sums / (columns * element)));
    launch_with(s, "scatter_add", scatter_add_kernel<T>, blocks_of(a.O * pieces(a.N, rows) * strips), threads,
                size_t(rows * columns * element), a, int(rows), int(columns));
  });
}

void take_along_axis(const AlongAxisArgs& a, CudaStream& s) {
  int64_t n = 1;
  for (int d = 0; d < a.rank; d++) n *= a.dims[d];
  if (n == 0) return;
  with_element(int64_t(size_of(a.dtype)),
               [&](auto t) { launch(s, "take_along_axis", take_kernel<decltype(t)>, blocks_for(s, n, threads), threads, a, n); });
}

void put_along_axis_add(const AlongAxisArgs& a, CudaStream& s) {
  int64_t n = 1;
  for (int d = 0; d < a.rank; d++) n *= a.y_dims[d];
  if (n == 0) return;
  with_dtype(a.dtype, [&](auto t) {
    launch(s, "put_along_axis_add", put_kernel<decltype(t)>, blocks_for(s, n, threads), threads, a, n);
  });
}

void one_hot(const OneHotArgs& a, CudaStream& s) {
  if (a.rows * a.depth == 0) return;
  with_element(int64_t(size_of(a.dtype)), [&](auto t) {
    using T = decltype(t);
    T one = T(a.dtype == DType::float32    ? 0x3f800000
              : a.dtype == DType::bfloat16 ? 0x3f80
              : a.dtype == DType::float16  ? 0x3c00
                                           : 1);
    launch(s, "one_hot", one_hot_kernel<T>, blocks_for(s, a.rows * a.depth, threads), threads, a, one);
  });
}

}  // namespace dagrt
