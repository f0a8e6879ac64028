// What all CUDA kernels share: launching, gates, shared memory, index arithmetic, 16-bit floats, warp reductions.
//
// The files of this folder are valid host C++ too: nvcc compiles them for GPUs, and tests/cuda_emulator/ compiles them with
// the host's compiler and runs them. Hence no <<<>>> and no __shared__ in them: launch(), SHARED, dynamic_shared, ON_DEVICE.
#pragma once
#include <cuda_runtime.h>

#include "base/cuda_stream.h"
#include "base/dtype.h"
#include "base/view.h"
#include "kernels/kernel.h"

#ifndef DAGRT_CUDA_EMULATOR
#define SHARED(T, name, dims) __shared__ T name dims
#define ON_DEVICE(T, name) __device__ T name
template <class T> __device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char dagrt_dynamic_shared[];
  return reinterpret_cast<T*>(dagrt_dynamic_shared);
}
#endif
#define DAGRT_DEVICE __device__ __forceinline__
#define DAGRT_HOST_DEVICE __host__ __device__ __forceinline__

namespace dagrt {
namespace {

/// Whether a store of the commit must not happen: the first line of every kernel.
DAGRT_DEVICE bool closed(const Gate& g) {
  if (g.begun && !(blockIdx.x | blockIdx.y | blockIdx.z | threadIdx.x | threadIdx.y | threadIdx.z))
    *const_cast<volatile int32_t*>(g.begun) = g.number;
  return (g.status && g.status->code != 0) || (g.guard && !*g.guard) || (g.when && !*g.when);
}

template <class T> struct Same {
  using type = T;
};

#ifdef DAGRT_CUDA_EMULATOR
inline emulator::Rows rows_of(const View& v) {
  if (!v.data || !v.elements()) return {v.as<char>(), 0, 0, 0};
  const size_t size = size_t(size_of(v.dtype));
  return {v.as<char>(), size_t(v.rank ? v.dims[v.rank - 1] : 1) * size, size_t(v.rows()), size_t(v.ld) * size};
}
inline emulator::Extent extent_of(const View& v) {
  const emulator::Rows r = rows_of(v);
  return {r.begin, r.count ? (r.count - 1) * r.step + r.bytes : 0};
}
/// What the step at hand may touch: its operands first, in their order.
inline std::vector<emulator::Extent> extents_of(const CudaStream& s) {
  std::vector<emulator::Extent> all;
  if (!s.operands) return all;
  auto add = [&](const void* p, size_t bytes) { all.push_back({static_cast<const char*>(p), bytes}); };
  for (int32_t i = 0; i < s.operand_count; i++) all.push_back(extent_of(s.operands[i]));
  add(s.workspace, s.workspace_bytes);
  add(s.scratch, s.scratch_bytes * scratch_parts);
  add(s.status, sizeof(DeviceStatus));
  add(s.gate.status, sizeof(DeviceStatus));
  add(s.gate.guard, 1);
  add(s.gate.when, 1);
  return all;
}
/// What holds nothing when the step begins, its first launch: workspace, scratch, outputs but those that work in place.
inline std::vector<emulator::Rows> unmade_of(CudaStream& s) {
  std::vector<emulator::Rows> all;
  const int32_t outputs = std::exchange(s.unmade, 0), inputs = s.operand_count - outputs;
  if (!s.operands || !outputs) return all;
  all.push_back({const_cast<char*>(s.workspace), s.workspace_bytes, 1, 0});
  all.push_back({s.scratch, s.scratch_bytes * scratch_parts, 1, 0});
  for (int32_t i = inputs; i < s.operand_count; i++) {
    const emulator::Extent y = extent_of(s.operands[i]);
    bool in_place = false;
    for (int32_t k = 0; k < inputs; k++) {
      const emulator::Extent x = extent_of(s.operands[k]);
      in_place |= x.begin < y.begin + y.bytes && y.begin < x.begin + x.bytes;
    }
    if (!in_place) all.push_back(rows_of(s.operands[i]));
  }
  return all;
}
#endif

/// Lets a kernel have all the shared memory that its device gives to one block: static and dynamic together are 48 KB unless asked
/// for. The same words whatever the launch needs, so that threads that launch one kernel do not take from each other.
inline cudaError_t allow_shared(const void* kernel, const CudaStream& s) {
  cudaFuncAttributes of{};
  if (cudaError_t e = cudaFuncGetAttributes(&of, kernel); e != cudaSuccess) return e;
  const size_t left = s.shared_bytes > of.sharedSizeBytes ? s.shared_bytes - of.sharedSizeBytes : 0;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(left));
}

/// Launches kernel(gate, args...). A failure is kept in the stream, with the kernel's name, for the runtime to raise.
template <class... P>
void launch_as(bool together, CudaStream& s, const char* name, void (*kernel)(Gate, P...), dim3 grid, dim3 block,
               size_t shared_bytes, const P&... args) {
  if (s.refused) return;
  if (s.watch) s.watch->before(s, name, together);
  cudaError_t e = shared_bytes ? allow_shared(reinterpret_cast<const void*>(kernel), s) : cudaSuccess;
  if (e == cudaSuccess) {
    cudaLaunchAttribute cooperative{};
    cooperative.id = cudaLaunchAttributeCooperative;
    cooperative.val.cooperative = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = s.handle;
    config.attrs = &cooperative;
    config.numAttrs = together ? 1 : 0;
#ifdef DAGRT_CUDA_EMULATOR
    emulator::kernel_name = name;  // for reports
    emulator::extents = extents_of(s);
    emulator::unmade = unmade_of(s);
    const Gate gate = emulator::sample_size() ? Gate{} : s.gate;  // whose conditions mean nothing then
#else
    const Gate gate = s.gate;
#endif
    e = cudaLaunchKernelEx(&config, kernel, gate, args...);
  }
  if (e != cudaSuccess) {
    s.refused = name;
    s.reason = cudaGetErrorString(e);
    return;
  }
  if (s.watch) s.watch->after(s, name, together);
}
/// Launches kernel(gate, args...). A failure is kept in the stream, with the kernel's name, for the runtime to raise.
template <class... P>
void launch(CudaStream& s, const char* name, void (*kernel)(Gate, P...), dim3 grid, dim3 block, typename Same<P>::type... args) {
  launch_as<P...>(false, s, name, kernel, grid, block, 0, args...);
}
/// With dynamic shared memory.
template <class... P>
void launch_with(CudaStream& s, const char* name, void (*kernel)(Gate, P...), dim3 grid, dim3 block, size_t shared_bytes,
                 typename Same<P>::type... args) {
  launch_as<P...>(false, s, name, kernel, grid, block, shared_bytes, args...);
}
/// All blocks run at once and may wait for each other.
template <class... P>
void launch_together(CudaStream& s, const char* name, void (*kernel)(Gate, P...), dim3 grid, dim3 block, size_t shared_bytes,
                     typename Same<P>::type... args) {
  launch_as<P...>(true, s, name, kernel, grid, block, shared_bytes, args...);
}

DAGRT_HOST_DEVICE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
DAGRT_HOST_DEVICE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
DAGRT_HOST_DEVICE int64_t pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

/// Blocks for n elements walked with a stride of the whole grid: enough to fill the device several times over.
inline unsigned blocks_for(const CudaStream& s, int64_t n, int threads) {
  return unsigned(larger(1, smaller(pieces(n, threads), int64_t(s.multiprocessors) * 16)));
}
/// A grid of n blocks; of more than there may be none, which the driver refuses, so that the run names the kernel.
inline unsigned blocks_of(int64_t n) { return n <= INT32_MAX ? unsigned(n) : 0; }
DAGRT_DEVICE int64_t first_index() { return int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }
DAGRT_DEVICE int64_t grid_stride() { return int64_t(gridDim.x) * blockDim.x; }

// ---------------------------------------------------------------- division by a number known on the host
/// n / d for 0 <= n < 2^31 by one multiplication (Granlund, Montgomery: Division by invariant integers, 1994).
struct Divider {
  uint32_t d = 1, multiplier = 0, shift = 0;
  Divider() = default;
  explicit Divider(int64_t divisor) : d(uint32_t(divisor > 0 ? divisor : 1)) {
    while ((uint64_t(1) << shift) < d) shift++;
    multiplier = uint32_t(((uint64_t(1) << 32) * ((uint64_t(1) << shift) - d)) / d + 1);
  }
  DAGRT_DEVICE uint32_t divide(uint32_t n) const { return (__umulhi(n, multiplier) + n) >> shift; }
};

/// A walk over axes of an index space: axes of size 1 dropped, neighbours merged where all operands allow it.
/// `operands` strides for each axis, in elements. Spaces of 2^31 elements and more divide in 64 bits.
template <int most> struct Space {
  int rank = 0, operands = 0;
  bool small = true;
  int64_t total = 1;
  int64_t dims[8] = {};
  Divider divider[8];
  int64_t stride[most][8] = {};

  void add_axis(int64_t n, const int64_t* strides) {  // outermost first
    total *= n;
    if (n == 1) return;
    bool joins = rank > 0;
    for (int k = 0; k < operands; k++) joins = joins && stride[k][rank - 1] == strides[k] * n;
    int to = joins ? rank - 1 : rank++;
    dims[to] = joins ? dims[to] * n : n;
    for (int k = 0; k < operands; k++) stride[k][to] = strides[k];
  }
  void finish() {
    small = total < (int64_t(1) << 31);
    for (int d = 0; d < rank && small; d++) divider[d] = Divider(dims[d]);
  }
  DAGRT_DEVICE void offsets(int64_t i, int64_t* at) const {  // loops stay loops: most spaces have one axis or two
#pragma unroll 1
    for (int k = 0; k < operands; k++) at[k] = 0;
    uint32_t rest = uint32_t(i);
#pragma unroll 1
    for (int d = rank - 1; d >= 0; d--) {
      int64_t r;
      if (d == 0) {
        r = small ? int64_t(rest) : i;
      } else if (small) {
        const uint32_t q = divider[d].divide(rest);
        r = rest - q * divider[d].d;
        rest = q;
      } else {
        r = i % dims[d];
        i /= dims[d];
      }
#pragma unroll 1
      for (int k = 0; k < operands; k++) at[k] += r * stride[k][d];
    }
  }
};

// ---------------------------------------------------------------- 16-bit floats: storage, as in kernels/cpu/vec.h
struct Bf16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};
DAGRT_DEVICE float bits_to_float(uint32_t u) { return __uint_as_float(u); }
DAGRT_DEVICE uint32_t float_to_bits(float f) { return __float_as_uint(f); }
DAGRT_DEVICE float widen(float x) { return x; }
DAGRT_DEVICE float widen(Bf16 x) { return bits_to_float(uint32_t(x.bits) << 16); }
DAGRT_DEVICE float widen(Half x) {
  uint32_t h = x.bits, sign = (h & 0x8000) << 16, e = (h >> 10) & 31, m = h & 1023;
  if (e == 31) return bits_to_float(sign | 0x7f800000 | (m << 13));
  if (e) return bits_to_float(sign | ((e + 112) << 23) | (m << 13));
  return bits_to_float(float_to_bits(float(int(m)) * 5.9604644775390625e-8f) | sign);
}
DAGRT_DEVICE void narrow(float x, float& y) { y = x; }
DAGRT_DEVICE void narrow(float x, Bf16& y) {
  uint32_t u = float_to_bits(x);
  y.bits = x != x ? uint16_t((u >> 16) | 0x40) : uint16_t((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
DAGRT_DEVICE void narrow(float x, Half& y) {
  uint32_t u = float_to_bits(x), sign = (u >> 16) & 0x8000;
  u &= 0x7fffffff;
  if (u > 0x7f800000) {
    y.bits = uint16_t(sign | 0x7e00);
  } else if (u >= 0x477ff000) {
    y.bits = uint16_t(sign | 0x7c00);
  } else if (u < 0x33000001) {
    y.bits = uint16_t(sign);
  } else if (u < 0x38800000) {  // denormal half: scaled by 2^24, ties to even
    uint32_t e = u >> 23, m = (u & 0x7fffff) | 0x800000, shift = 126 - e;
    uint32_t r = m >> shift, rest = m & ((1u << shift) - 1), half = 1u << (shift - 1);
    y.bits = uint16_t(sign | (r + (rest > half || (rest == half && (r & 1)))));
  } else {
    u += 0xfff + ((u >> 13) & 1);
    y.bits = uint16_t(sign | ((u - 0x38000000) >> 13));
  }
}

/// Calls f with a value of the type that stores `t`; bool is uint8_t.
template <class F> void with_dtype(DType t, const F& f) {
  switch (t) {
    case DType::float32: return f(float());
    case DType::bfloat16: return f(Bf16());
    case DType::float16: return f(Half());
    case DType::int32: return f(int32_t());
    case DType::int64: return f(int64_t());
    default: return f(uint8_t());
  }
}
template <class F> void with_element(int64_t bytes, const F& f) {
  switch (bytes) {
    case 1: return f(uint8_t());
    case 2: return f(uint16_t());
    case 4: return f(uint32_t());
    default: return f(uint64_t());
  }
}
template <class T> struct Unsigned {
  using type = uint32_t;
};
template <> struct Unsigned<int64_t> {
  using type = uint64_t;
};

// ---------------------------------------------------------------- warps
constexpr unsigned all_lanes = 0xffffffffu;

/// All lanes' values joined in a fixed tree; every lane has the result.
template <class T, class F> DAGRT_DEVICE T warp_join(T v, const F& join) {
  for (int w = 16; w; w /= 2) v = join(v, __shfl_xor_sync(all_lanes, v, w));
  return v;
}
/// The same over a block of whole warps. `room`: 32 values of shared memory, free again after the next barrier.
template <class T, class F> DAGRT_DEVICE T block_join(T v, const F& join, T identity, T* room) {
  v = warp_join(v, join);
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = (blockDim.x + 31) / 32;
  __syncthreads();
  if (lane == 0) room[warp] = v;
  __syncthreads();
  v = lane < warps ? room[lane] : identity;
  return warp_join(v, join);
}

}  // namespace
}  // namespace dagrt
