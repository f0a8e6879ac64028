// gather, scatter_add, take_along_axis, put_along_axis_add, one_hot, and the check of ids.
//
// A check writes the run's status word on the device: the lowest bad position by an atomic minimum, then its value by one
// thread. The host learns of it at the end of the run; until then every read of a bad id gives zeros.
// Additions are deterministic without atomics: a thread owns a destination element and looks for its ids in order. Ids
// come through shared memory, a block of them for all threads, so that the search costs a compare for each id.
#include "kernels/indexing.h"

#include "kernels/check.h"
#include "kernels/cuda/common.cuh"

namespace dagrt {
namespace {

constexpr int threads = 256;

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

__global__ void find_bad_kernel(Gate gate, Ids ids, DType narrow_type, int64_t width, int64_t ld, int64_t n, int64_t limit,
                                DeviceStatus* status) {
  if (closed(gate) || status->code != 0) return;
  for (int64_t i = first_index(); i < n; i += grid_stride()) {
    int64_t at = width == ld ? i : i / width * ld + i % width;
    int64_t id = narrow_type == DType::uint8 ? int64_t(static_cast<const uint8_t*>(ids.p)[at]) : ids[at];
    bool bad = limit < 0 ? id == 0 : !inside(id, limit);  // a negative limit: divisors, which must not be 0
    if (bad) atomicMin(&status->first, static_cast<unsigned long long>(i));
  }
}

__global__ void report_kernel(Gate gate, Ids ids, DType narrow_type, int64_t width, int64_t ld, int64_t limit, int32_t code,
                              int32_t node, DeviceStatus* status) {
  if (closed(gate) || status->code != 0 || status->first == ~0ull) return;
  int64_t i = int64_t(status->first), at = width == ld ? i : i / width * ld + i % width;
  status->index = i;
  status->value = narrow_type == DType::uint8 ? int64_t(static_cast<const uint8_t*>(ids.p)[at]) : ids[at];
  status->limit = limit < 0 ? 0 : limit;
  status->node = node;
  status->code = code;
}

template <class T> __global__ void gather_kernel(Gate gate, RowsArgs a) {
  if (closed(gate)) return;
  Ids ids{a.ids, a.wide};
  const int64_t rows = a.O * a.K * a.R;
  for (int64_t i = first_index(); i < rows * a.C; i += grid_stride()) {
    int64_t c = i % a.C, row = i / a.C, r = row % a.R, k = row / a.R % a.K, o = row / a.R / a.K, id = ids[k];
    T* y = static_cast<T*>(a.y) + o * a.yo + k * a.yk + r * a.yr + c;
    *y = inside(id, a.N) ? static_cast<const T*>(a.x)[o * a.xo + id * a.xk + r * a.xr + c] : T(0);
  }
}

/// A thread for each element of y; blocks of 256 ids are looked at together. Whole blocks walk together to the barriers.
template <class T> __global__ void scatter_add_kernel(Gate gate, RowsArgs a) {
  if (closed(gate)) return;
  SHARED(int64_t, held, [threads]);
  Ids ids{a.ids, a.wide};
  const int64_t total = a.O * a.N * a.R * a.C;
  for (int64_t first = int64_t(blockIdx.x) * threads; first < total; first += grid_stride()) {
    int64_t i = first + threadIdx.x, c = i % a.C, row = i / a.C, r = row % a.R, n = row / a.R % a.N, o = row / a.R / a.N;
    // Elements of one block of threads lie in few destinations: ids outside of them are skipped by all.
    int64_t low = first / a.C / a.R, high = smaller(first + threads, total) - 1;
    bool several = low / a.N != high / a.C / a.R / a.N;
    int64_t from = several ? 0 : low % a.N, to = several ? a.N : high / a.C / a.R % a.N + 1;
    typename Summed<T>::type sum{};
    for (int64_t k0 = 0; k0 < a.K; k0 += threads) {
      int64_t id = k0 + threadIdx.x < a.K ? ids[k0 + threadIdx.x] : -1;
      bool hit = id >= from && id < to;
      held[threadIdx.x] = id;
      if (!__syncthreads_or(hit)) continue;
      if (i < total)
        for (int64_t k = 0; k < smaller(threads, a.K - k0); k++)
          if (held[k] == n) sum += as_sum(static_cast<const T*>(a.x)[o * a.xo + (k0 + k) * a.xk + r * a.xr + c]);
      __syncthreads();
    }
    if (i < total) put_sum(sum, static_cast<T*>(a.y)[o * a.yo + n * a.yk + r * a.yr + c]);
  }
}

template <class T> __global__ void take_kernel(Gate gate, AlongAxisArgs a, int64_t total) {
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

template <class T> __global__ void put_kernel(Gate gate, AlongAxisArgs a, int64_t total) {
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

template <class T> __global__ void one_hot_kernel(Gate gate, OneHotArgs a, T one) {
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

void gather(const RowsArgs& a, CudaStream& s) {
  int64_t n = a.O * a.K * a.R * a.C;
  if (n == 0) return;
  with_element(int64_t(size_of(a.dtype)),
               [&](auto t) { launch(s, "gather", gather_kernel<decltype(t)>, blocks_for(s, n, threads), threads, a); });
}

void scatter_add(const RowsArgs& a, CudaStream& s) {
  int64_t n = a.O * a.N * a.R * a.C;
  if (n == 0) return;
  with_dtype(a.dtype, [&](auto t) {
    launch(s, "scatter_add", scatter_add_kernel<decltype(t)>, blocks_for(s, n, threads), threads, a);
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
