// Strided copy, padding, fill, iota.
//
// A copy is one of two kernels: a tile of shared memory where two axes change places (so that both reading and writing are
// coalesced), else elements as walk.cuh goes, which reads once what is written several times. Elements are 16 bytes where both
// sides are contiguous and aligned.
#include "kernels/layout.h"

#include "kernels/cuda/walk.cuh"

namespace dagrt {
namespace {

constexpr int threads = 256;
constexpr int tile = 32, tile_rows = 8;

template <class T> __global__ void __launch_bounds__(walk_threads) copy_kernel(Gate gate, T* dst, const T* src, Walk<2> walk) {
  if (closed(gate)) return;
  T held{};
  walk.each_turn([&](const int64_t* at, bool first) {
    if (first || walk.step[1]) held = src[at[1]];
    dst[at[0]] = held;
  });
}

/// For every index of `outer`: dst[r, c] = src[c, r], rows ldd and lds apart.
template <class T>
__global__ void __launch_bounds__(tile * tile_rows) transpose_kernel(Gate gate, T* dst, const T* src, Space<2> outer, int64_t rows,
                                                                     int64_t columns, int64_t ldd, int64_t lds) {
  if (closed(gate)) return;
  SHARED(T, held, [tile][tile + 1]);
  int64_t down = (rows + tile - 1) / tile, across = (columns + tile - 1) / tile;
  for (int64_t job = blockIdx.x; job < outer.total * down * across; job += gridDim.x) {
    int64_t at[2], r0 = job / across % down * tile, c0 = job % across * tile;
    outer.offsets(job / across / down, at);
    for (int i = threadIdx.y; i < tile; i += tile_rows)
      if (c0 + i < columns && r0 + threadIdx.x < rows) held[i][threadIdx.x] = src[at[1] + (c0 + i) * lds + r0 + threadIdx.x];
    __syncthreads();
    for (int i = threadIdx.y; i < tile; i += tile_rows)
      if (r0 + i < rows && c0 + threadIdx.x < columns) dst[at[0] + (r0 + i) * ldd + c0 + threadIdx.x] = held[threadIdx.x][i];
    __syncthreads();
  }
}

template <class T> bool transposed(const CopyArgs& a, CudaStream& s) {
  int fast = -1;  // the axis along which src is contiguous, if it is not the last
  for (int d = 0; d < a.rank; d++)
    if (a.dims[d] > 1 && a.src_stride[d] == 1) fast = d;
  const int last = a.rank - 1;
  if (fast < 0 || fast == last || a.dst_stride[last] != 1 || a.dims[last] < 8 || a.dims[fast] < 8) return false;
  Space<2> outer;
  outer.operands = 2;
  for (int d = 0; d < last; d++) {
    int64_t strides[2] = {a.dst_stride[d], a.src_stride[d]};
    if (d != fast) outer.add_axis(a.dims[d], strides);
  }
  outer.finish();
  int64_t jobs = outer.total * pieces(a.dims[fast], tile) * pieces(a.dims[last], tile);
  launch(s, "transpose", transpose_kernel<T>, unsigned(smaller(jobs, int64_t(s.multiprocessors) * 32)), dim3(tile, tile_rows),
         static_cast<T*>(a.dst), static_cast<const T*>(a.src), outer, a.dims[fast], a.dims[last], a.dst_stride[fast],
         a.src_stride[last]);
  return true;
}

/// The copy with axes merged, and in elements of 16 bytes where runs of them lie behind one another on both sides.
CopyArgs simplified(const CopyArgs& a) {
  Space<2> all;
  all.operands = 2;
  for (int d = 0; d < a.rank; d++) {
    int64_t strides[2] = {a.dst_stride[d], a.src_stride[d]};
    all.add_axis(a.dims[d], strides);
  }
  CopyArgs c = a;
  c.rank = all.rank;
  const int last = all.rank - 1;
  const int64_t n = 16 / a.element;
  bool wide = last >= 0 && all.dims[last] % n == 0 && all.stride[0][last] == 1 && all.stride[1][last] == 1;
  wide = wide && (reinterpret_cast<uintptr_t>(a.dst) | reinterpret_cast<uintptr_t>(a.src)) % 16 == 0;
  for (int d = 0; d < last; d++) wide = wide && all.stride[0][d] % n == 0 && all.stride[1][d] % n == 0;
  const int64_t unit = wide ? n : 1;
  c.element *= unit;
  for (int d = 0; d < c.rank; d++) {
    c.dims[d] = d == last ? all.dims[d] / unit : all.dims[d];
    c.dst_stride[d] = d == last ? all.stride[0][d] : all.stride[0][d] / unit;
    c.src_stride[d] = d == last ? all.stride[1][d] : all.stride[1][d] / unit;
  }
  return c;
}

template <class T> void copied(const CopyArgs& a, CudaStream& s) {
  int64_t strides[2][8];
  for (int d = 0; d < a.rank; d++) strides[0][d] = a.dst_stride[d], strides[1][d] = a.src_stride[d];
  const void* const data[2] = {a.dst, a.src};
  const int64_t sizes[2] = {a.element, a.element};
  const Walk<2> walk = walk_of<2>(s, 2, a.rank, a.dims, strides, data, sizes, false);
  launch(s, "copy", copy_kernel<T>, walk.blocks(s), walk_threads, static_cast<T*>(a.dst), static_cast<const T*>(a.src), walk);
}

struct Padding {
  int rank;
  int64_t dims[8], out_dims[8], low[8], step[8], src_stride[8], dst_stride[8], total;
};

template <class T> __global__ void __launch_bounds__(threads) pad_kernel(Gate gate, T* dst, const T* src, Padding p, T value) {
  if (closed(gate)) return;
  for (int64_t i = first_index(); i < p.total; i += grid_stride()) {
    int64_t rest = i, from = 0, to = 0;
    bool inside = true;
    for (int d = p.rank - 1; d >= 0; d--) {
      int64_t at = rest % p.out_dims[d], k = at - p.low[d];
      rest /= p.out_dims[d];
      to += at * p.dst_stride[d];
      inside = inside && k >= 0 && k % p.step[d] == 0 && k / p.step[d] < p.dims[d];
      from += k / p.step[d] * p.src_stride[d];
    }
    dst[to] = inside ? src[from] : value;
  }
}

template <class T>
__global__ void __launch_bounds__(threads) fill_kernel(Gate gate, T* dst, int64_t rows, int64_t columns, int64_t ld, T value) {
  if (closed(gate)) return;
  for (int64_t i = first_index(); i < rows * columns; i += grid_stride())
    dst[ld == columns ? i : i / columns * ld + i % columns] = value;
}

template <class T> DAGRT_DEVICE void put_number(int64_t i, T& y) { y = T(i); }
DAGRT_DEVICE void put_number(int64_t i, Bf16& y) { narrow(float(i), y); }
DAGRT_DEVICE void put_number(int64_t i, Half& y) { narrow(float(i), y); }

template <class T> __global__ void __launch_bounds__(threads) iota_kernel(Gate gate, T* dst, int64_t n) {
  if (closed(gate)) return;
  for (int64_t i = first_index(); i < n; i += grid_stride()) put_number(i, dst[i]);
}

/// The bits of a number in any dtype: floats round to nearest even, integers truncate and saturate.
uint64_t bits_of(double value, DType t) {
  float f = float(value);
  uint32_t u;
  __builtin_memcpy(&u, &f, 4);
  auto whole = [&](double low, double high) { return value != value ? 0.0 : value < low ? low : value > high ? high : value; };
  switch (t) {
    case DType::float32: return u;
    case DType::bfloat16: return f != f ? (u >> 16) | 0x40 : (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    case DType::float16: {
      uint32_t sign = (u >> 16) & 0x8000, m = u & 0x7fffffff;
      if (m > 0x7f800000) return sign | 0x7e00;
      if (m >= 0x477ff000) return sign | 0x7c00;
      if (m >= 0x38800000) return sign | ((m + 0xfff + ((m >> 13) & 1) - 0x38000000) >> 13);
      return sign | uint32_t(__builtin_rintf(__builtin_fabsf(f) * 16777216.0f));  // denormal: exact steps of 2^-24
    }
    case DType::int32: return uint32_t(int32_t(whole(-2147483648.0, 2147483647.0)));
    case DType::int64:
      if (value >= 9223372036854775808.0) return uint64_t(INT64_MAX);
      return uint64_t(value < -9223372036854775808.0 ? INT64_MIN : value != value ? 0 : int64_t(value));
    case DType::uint8: return uint8_t(whole(0, 255));
    case DType::bool_: return value != 0;
  }
  return 0;
}

}  // namespace

void copy_strided(const CopyArgs& given, CudaStream& s) {
  for (int d = 0; d < given.rank; d++)
    if (given.dims[d] == 0) return;
  const CopyArgs a = simplified(given);
  if (a.element == 16) return copied<uint4>(a, s);
  with_element(a.element, [&](auto t) {
    if (!transposed<decltype(t)>(a, s)) copied<decltype(t)>(a, s);
  });
}

void pad(const PadArgs& a, CudaStream& s) {
  Padding p{};
  p.rank = a.rank;
  p.total = 1;
  for (int d = 0; d < a.rank; d++) {
    p.dims[d] = a.dims[d], p.out_dims[d] = a.out_dims[d], p.low[d] = a.low[d], p.step[d] = a.interior[d] + 1;
    p.src_stride[d] = a.src_stride[d], p.dst_stride[d] = a.dst_stride[d];
    p.total *= a.out_dims[d];
  }
  if (p.total == 0) return;
  with_element(int64_t(size_of(a.dtype)), [&](auto t) {
    using T = decltype(t);
    launch(s, "pad", pad_kernel<T>, blocks_for(s, p.total, threads), threads, static_cast<T*>(a.dst),
           static_cast<const T*>(a.src), p, T(bits_of(a.value, a.dtype)));
  });
}

void fill(const FillArgs& a, CudaStream& s) {
  if (a.rows * a.columns == 0) return;
  with_element(int64_t(size_of(a.dtype)), [&](auto t) {
    using T = decltype(t);
    launch(s, "fill", fill_kernel<T>, blocks_for(s, a.rows * a.columns, threads), threads, static_cast<T*>(a.dst), a.rows,
           a.columns, a.ld, T(bits_of(a.value, a.dtype)));
  });
}

void iota(const IotaArgs& a, CudaStream& s) {
  if (a.n == 0) return;
  with_dtype(a.dtype, [&](auto t) {
    using T = decltype(t);
    launch(s, "iota", iota_kernel<T>, blocks_for(s, a.n, threads), threads, static_cast<T*>(a.dst), a.n);
  });
}

}  // namespace dagrt
