// Kernels with planted faults, each of which the emulator must report, beside correct ones, which it must not.
// Built with the race detector (cmake/emulator.cmake: target emulator_tests).
#include "testing.h"

namespace dagrt {
namespace {

constexpr int n = 128;

template <bool barrier> __global__ void rotate_kernel(Gate, float* y) {
  SHARED(float, held, [n]);
  held[threadIdx.x] = float(threadIdx.x);
  if constexpr (barrier) __syncthreads();
  y[threadIdx.x] = held[(threadIdx.x + 40) % n];
}

template <bool wait> __global__ void copy_kernel(Gate, float* y, const float* x) {
  SHARED(float, held, [n]);
  copy_async<4>(held + threadIdx.x, x + threadIdx.x);
  commit_copies();
  if constexpr (wait) wait_copies<0>();
  __syncthreads();
  y[threadIdx.x] = held[n - 1 - threadIdx.x];
  wait_copies<0>();
}

__global__ void half_a_barrier_kernel(Gate, float* y) {
  if (threadIdx.x < n / 2) __syncthreads();
  y[threadIdx.x] = 0;
}
__global__ void two_barriers_kernel(Gate, float* y) {
  if (threadIdx.x < n / 2)
    __syncthreads();
  else
    __syncthreads();
  y[threadIdx.x] = 0;
}
__global__ void half_a_warp_kernel(Gate, float* y) {
  if (threadIdx.x % 32 < 16) y[threadIdx.x] = __shfl_xor_sync(all_lanes, 1.0f, 1);
  __syncthreads();
}
__global__ void overrun_kernel(Gate, float*) {
  SHARED(float, held, [n]);
  held[threadIdx.x + 1] = 0;
}
/// Copies fours of floats that begin `off` floats late, asynchronously or not.
template <bool later> __global__ void fours_kernel(Gate, float* y, const float* x, int off) {
  SHARED(float4, held, [n]);
  if constexpr (later) {
    copy_async<16>(held + threadIdx.x, x + off + threadIdx.x * 4);
    commit_copies();
    wait_copies<0>();
  } else {
    held[threadIdx.x] = *reinterpret_cast<const float4*>(x + off + threadIdx.x * 4);
  }
  y[threadIdx.x] = held[threadIdx.x].x;
}
/// Zeros in place of every other number, from where the others come, or from nowhere.
__global__ void zeros_kernel(Gate, float* y, const float* x, const float* zeros) {
  SHARED(float, held, [n]);
  const bool real = threadIdx.x % 2;
  copy_async<4>(held + threadIdx.x, real ? x + threadIdx.x : zeros, real);
  commit_copies();
  wait_copies<0>();
  y[threadIdx.x] = held[threadIdx.x];
}
ON_DEVICE(float, elsewhere);
__global__ void zeros_from_a_variable_kernel(Gate, float* y) {
  SHARED(float, held, [n]);
  copy_async<4>(held + threadIdx.x, &elsewhere, false);
  commit_copies();
  wait_copies<0>();
  y[threadIdx.x] = held[threadIdx.x];
}
__global__ void round_kernel(Gate, uint32_t* y, const uint32_t* x) { y[threadIdx.x] = to_tf32(bits_to_float(x[threadIdx.x])); }
/// Lanes walk a loop each as often as its number, or all alike, before the warp's product.
template <bool apart, bool together> __global__ void walk_kernel(Gate, float* y) {
  int steps = 0;
  for (unsigned i = 0; i < (apart ? threadIdx.x : 7u); i++) steps += int(blockDim.x);
  if constexpr (together) __syncwarp();
  const uint32_t a[4] = {}, b[2] = {};
  float c[4] = {};
  mma_tf32(c, a, b);
  y[threadIdx.x] = c[0] + float(steps);
}
/// Needs 8 KB beside its dynamic memory.
__global__ void large_kernel(Gate, float* y) {
  SHARED(float, held, [2048]);
  held[threadIdx.x] = dynamic_shared<float>()[threadIdx.x] = 1;
  y[threadIdx.x] = held[threadIdx.x];
}
__global__ void dynamic_overrun_kernel(Gate, float*) { dynamic_shared<float>()[threadIdx.x + 1] = 0; }
__global__ void same_place_kernel(Gate, float* y) { y[0] = float(blockIdx.x); }
__global__ void unrounded_kernel(Gate, float* y) {
  uint32_t a[4] = {float_to_bits(0.1f), 0, 0, 0}, b[2] = {0, 0};
  float c[4] = {};
  mma_tf32(c, a, b);
  y[threadIdx.x] = c[0];
}
/// Matrix m is rows 8 m to 8 m + 8 of [32][4 floats]; `off` floats beside an aligned row.
__global__ void matrices_kernel(Gate, float* y, int off) {
  SHARED(float, held, [33 * 4]);
  for (int k = 0; k < 4; k++) held[threadIdx.x * 4 + k] = float(threadIdx.x * 4 + k);
  __syncthreads();
  uint32_t r[4];
  load_matrices(r, held + threadIdx.x * 4 + off);
  for (int m = 0; m < 4; m++) y[m * 32 + threadIdx.x] = bits_to_float(r[m]);
}
/// Rows of eight halves, element k of row i 8 i + k.
__global__ void transposed_kernel(Gate, uint32_t* y) {
  SHARED(Bf16, held, [32 * 8]);
  for (int k = 0; k < 8; k++) held[threadIdx.x * 8 + k].bits = uint16_t(threadIdx.x * 8 + k);
  __syncthreads();
  uint32_t r[4];
  load_transposed(r, held + threadIdx.x * 8);
  for (int m = 0; m < 4; m++) y[m * 32 + threadIdx.x] = r[m];
}
/// y [16, 8] = x [16, 16] w [16, 8] + 1, elements where the manual's formulas of mma.m16n8k16 have them.
__global__ void multiply_bf16_kernel(Gate, float* y, const float* x, const float* w) {
  const int group = threadIdx.x / 4, in_group = threadIdx.x % 4;
  uint32_t a[4] = {}, b[2] = {};
  float c[4] = {1, 1, 1, 1};
  Bf16 h;
  for (int i = 0; i < 8; i++) {
    const int row = i < 2 || (i >= 4 && i < 6) ? group : group + 8, column = in_group * 2 + (i & 1) + (i < 4 ? 0 : 8);
    narrow(x[row * 16 + column], h);
    a[i / 2] |= uint32_t(h.bits) << i % 2 * 16;
  }
  for (int i = 0; i < 4; i++) {
    const int row = in_group * 2 + (i & 1) + (i < 2 ? 0 : 8);
    narrow(w[row * 8 + group], h);
    b[i / 2] |= uint32_t(h.bits) << i % 2 * 16;
  }
  mma_bf16(c, a, b);
  for (int i = 0; i < 4; i++) y[(i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1)] = c[i];
}
__global__ void never_waited_kernel(Gate, const float* x) {
  SHARED(float, held, [n]);
  copy_async<4>(held + threadIdx.x, x + threadIdx.x);
  commit_copies();
}
/// Blocks meet by a counter; each then reads what its neighbour wrote. Without `wait`, or with one fence left out, in disorder.
template <bool wait, bool before, bool after> __global__ void neighbours_kernel(Gate, float* y, float* x, unsigned* counter) {
  if (threadIdx.x == 0) {
    x[blockIdx.x] = float(blockIdx.x + 1);
    if constexpr (before) __threadfence();
    atomicAdd(counter, 1u);
    if constexpr (wait)
      while (atomicAdd(counter, 0u) < gridDim.x) relax();
    if constexpr (after) __threadfence();
    y[blockIdx.x] = x[(blockIdx.x + 1) % gridDim.x];
  }
}
/// All threads write, one tells the others: after a barrier, or without.
template <bool barrier> __global__ void all_tell_kernel(Gate, float* y, float* x, unsigned* counter) {
  x[blockIdx.x * n + threadIdx.x] = 1;
  if constexpr (barrier) __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    atomicAdd(counter, 1u);
    while (atomicAdd(counter, 0u) < gridDim.x) relax();
    __threadfence();
  }
  __syncthreads();
  y[blockIdx.x * n + threadIdx.x] = x[(blockIdx.x + 1) % gridDim.x * n + n - 1 - threadIdx.x];
}
/// A word that one warp writes whole and another in part.
template <bool barrier> __global__ void parts_kernel(Gate, float* y) {
  SHARED(uint32_t, held, [n]);
  held[threadIdx.x] = 0;
  if constexpr (barrier) __syncthreads();
  reinterpret_cast<uint8_t*>(held)[(n - 1 - threadIdx.x) * 4 + 2] = 1;
  __syncthreads();
  y[threadIdx.x] = float(held[threadIdx.x]);
}

/// Reads words, or the bytes of the first, of which all or every other word are written.
template <class T, bool written> __global__ void unwritten_kernel(Gate, float* y) {
  SHARED(uint32_t, held, [n]);
  if (written || threadIdx.x % 2 == 0) held[threadIdx.x] = 1;
  __syncthreads();
  y[blockIdx.x * n + threadIdx.x] = float(reinterpret_cast<T*>(held)[threadIdx.x]);
}
/// y = x, of which T are read.
template <class T> __global__ void copy_all_kernel(Gate, T* y, const T* x) { y[threadIdx.x] = x[threadIdx.x]; }
__global__ void count_up_kernel(Gate, unsigned* counter) { atomicAdd(counter, 1u); }
/// Reads what it will only write.
__global__ void too_early_kernel(Gate, float* y, const float* x) {
  const float before = y[threadIdx.x];
  y[threadIdx.x] = before + x[threadIdx.x];
}
/// Halves of a warp that go different ways, each for itself: votes, shuffles of segments, then the whole again.
__global__ void halves_kernel(Gate, int* y) {
  const int lane = int(threadIdx.x % 32);
  const unsigned mask = lane < 16 ? 0xFFFFu : 0xFFFF0000u;
  int sum = 0;
  if (lane < 16) {
    for (int i = 0; i < 3; i++) sum = __reduce_add_sync(mask, lane);
    sum += __any_sync(mask, lane == 20) + __all_sync(mask, lane < 16) + int(__ballot_sync(mask, lane % 4 == 0));
  } else {
    sum = __shfl_sync(mask, lane, 3, 8);            // lane 3 of each eight
    sum = sum * 100 + __shfl_up_sync(mask, lane, 1, 8);
    sum = sum * 100 + __shfl_down_sync(mask, lane, 2, 8);
    sum = sum * 100 + __shfl_xor_sync(mask, lane, 4, 8);
  }
  __syncwarp();
  y[threadIdx.x] = sum + __shfl_sync(all_lanes, lane, 33) * 1000000000;  // of lane 1
}
/// Every other lane leaves; who stays is all that the mask asks for.
template <int from> __global__ void leave_kernel(Gate, int* y) {
  if (threadIdx.x % 2) return;
  y[threadIdx.x] = __shfl_sync(all_lanes, int(threadIdx.x), from);
}
__global__ void not_in_mask_kernel(Gate, int* y) { y[threadIdx.x] = __any_sync(0xFFFFu, 1); }
__global__ void other_masks_kernel(Gate, int* y) { y[threadIdx.x] = __any_sync(threadIdx.x < 8 ? 0xFFFFu : all_lanes, 1); }
__global__ void beyond_mask_kernel(Gate, int* y) {
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_xor_sync(0xFFFFu, 1, 16);
}
__global__ void matrices_of_half_a_warp_kernel(Gate, uint32_t* y) {
  SHARED(float, held, [32 * 4]);
  for (int k = 0; k < 4; k++) held[threadIdx.x * 4 + k] = 0;
  __syncthreads();
  uint32_t r[4];
  load_matrices(r, held + threadIdx.x * 4);
  y[threadIdx.x] = r[0];
}
/// Lane i reads what lane i ^ 1 wrote, behind an operation of pairs, or of the halves that each of a pair belongs to.
template <bool pairs> __global__ void ordered_lanes_kernel(Gate, float* y) {
  SHARED(float, held, [32]);
  const unsigned lane = threadIdx.x;
  held[lane] = float(lane);
  __syncwarp(pairs ? 3u << (lane & ~1u) : lane % 2 ? 0xAAAAAAAAu : 0x55555555u);
  y[lane] = held[lane ^ 1];
}
/// One block waits for what only another could tell it, and which that never does.
__global__ void never_told_kernel(Gate, unsigned* counter) {
  while (atomicAdd(counter, 0u) < gridDim.x) relax();
}
/// Of a warp and a half: votes, sums, atomics.
__global__ void votes_kernel(Gate, float* y, unsigned* at) {
  const int i = int(threadIdx.x);
  const bool votes = __any_sync(all_lanes, i == 3) == (i < 32) && __all_sync(all_lanes, i != 3) == (i >= 32);
  const unsigned odd = __ballot_sync(all_lanes, i % 2);
  __syncwarp();
  const bool sums = __reduce_add_sync(all_lanes, i % 32) == (i < 32 ? 496 : 120) &&
                    __reduce_min_sync(all_lanes, -i) == (i < 32 ? -31 : -47) && __reduce_max_sync(all_lanes, i) == (i < 32 ? 31 : 47);
  const bool bits = __reduce_xor_sync(all_lanes, 1u << i % 32) == (i < 32 ? ~0u : 0xFFFFu) &&
                    __reduce_or_sync(all_lanes, 1u << i % 32) == (i < 32 ? ~0u : 0xFFFFu) && __reduce_and_sync(all_lanes, unsigned(i) | 1) % 2 == 1;
  y[i] = float(votes && sums && bits && odd == (i < 32 ? 0xAAAAAAAAu : 0xAAAAu));
  if (i == 0) atomicExch(at, 5u);
  __syncthreads();
  atomicMax(at, unsigned(i));
  atomicCAS(at + 1, unsigned(i), unsigned(i) + 1);
}

}  // namespace

TEST_CASE("votes, sums and atomics of warps, the last of half a warp") {
  Memory y(48), at(2);
  auto* counters = reinterpret_cast<unsigned*>(at.p);
  counters[0] = 100, counters[1] = 0;
  CHECK(report_of(votes_kernel, 1, 48, 0, y.p, counters) == "");
  for (int i = 0; i < 48; i++) CHECK(y.p[i] == 1);
  CHECK(counters[0] == 47);
  CHECK(counters[1] >= 1);  // threads come in any order
}

TEST_CASE("warp operations are of their masks' lanes") {
  Memory y(32);
  int* at = reinterpret_cast<int*>(y.p);
  CHECK(report_of(halves_kernel, 1, 32, 0, at) == "");
  for (int i = 0; i < 32; i++) {
    const int first = i / 8 * 8, k = i % 8;
    const int right = ((first + 3) * 100 + (k ? i - 1 : i)) * 10000 + (k < 6 ? i + 2 : i) * 100 + (i ^ 4);
    CHECK(at[i] == (i < 16 ? 120 + 0 + 1 + 0x1111 : right) + 1000000000);
  }
  CHECK(report_of(leave_kernel<4>, 1, 32, 0, at) == "");
  for (int i = 0; i < 32; i += 2) CHECK(at[i] == 4);
  CHECK(report_of(leave_kernel<4>, 1, 24, 0, at) == "");
  CHECK(report_of(ordered_lanes_kernel<true>, 1, 32, 0, y.p) == "");
  for (int i = 0; i < 32; i++) CHECK(y.p[i] == float(i ^ 1));
}

TEST_CASE("masks that do not fit who calls, waits or is read") {
  Memory y(64);
  int* at = reinterpret_cast<int*>(y.p);
  const std::string left = report_of(leave_kernel<5>, 1, 32, 0, at), outside = report_of(not_in_mask_kernel, 1, 32, 0, at);
  CHECK(says(left, "reads lane 5, which takes no part in the shuffle, at "));
  CHECK(says(left, "test_emulator.cpp:"));
  CHECK(says(report_of(leave_kernel<30>, 1, 24, 0, at), "reads lane 30, which takes no part in the shuffle, at "));
  CHECK(says(report_of(beyond_mask_kernel, 1, 32, 0, at), "which takes no part in the shuffle, at "));
  CHECK(says(outside, " of block (0, 0, 0): lane "));
  CHECK(says(outside, " is not in its own mask 0x0000ffff, at "));
  CHECK(says(report_of(other_masks_kernel, 1, 32, 0, at), "wait for each other with different masks, 0x"));
  CHECK(says(report_of(matrices_of_half_a_warp_kernel, 1, 16, 0, reinterpret_cast<uint32_t*>(y.p)),
             "lacks lanes 0xffff0000 at an operation of whole warps, at "));
  CHECK(says(report_of(ordered_lanes_kernel<false>, 1, 32, 0, y.p), "race: "));
}

TEST_CASE("shared memory that nobody has written is reported by who reads it") {
  Memory y(2 * n);
  CHECK(report_of(unwritten_kernel<uint32_t, true>, 2, n, 0, y.p) == "");
  CHECK(report_of(unwritten_kernel<uint8_t, true>, 2, n, 0, y.p) == "");
  for (const std::string& report :
       {report_of(unwritten_kernel<uint32_t, false>, 2, n, 0, y.p), report_of(unwritten_kernel<uint8_t, false>, 2, n, 0, y.p)}) {
    CHECK(says(report, "a read of shared memory before any write"));
    CHECK(says(report, "test_emulator.cpp:"));
  }
}

TEST_CASE("device memory that nobody has written is reported by who reads it") {
  float *x = nullptr, *z = nullptr;
  REQUIRE(cudaMalloc(reinterpret_cast<void**>(&x), 2 * n * 4) == cudaSuccess);
  REQUIRE(cudaMalloc(reinterpret_cast<void**>(&z), 2 * n * 4) == cudaSuccess);
  Memory y(2 * n);
  auto copy = [](void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    cudaStream_t s;
    cudaStreamCreateWithFlags(&s, 0);
    cudaMemcpyAsync(to, from, bytes, kind, s);
    cudaStreamDestroy(s);
  };
  auto words = [&](float* from) { return report_of(copy_all_kernel<float>, 1, n, 0, y.p, static_cast<const float*>(from)); };
  auto bytes = [&](float* from) {
    return report_of(copy_all_kernel<uint8_t>, 1, n, 0, reinterpret_cast<uint8_t*>(y.p), reinterpret_cast<const uint8_t*>(from));
  };
  const std::vector<float> ones(n, 1);
  copy(x, ones.data(), n * 4 - 1, cudaMemcpyHostToDevice);  // all but a byte
  CHECK(words(x + n / 2).find("planted: race: a read of device memory before any write, by thread ") == 0);
  CHECK(says(words(x), "by thread 127 of block 0, at test_emulator.cpp:"));
  CHECK(says(bytes(x + n - 2), "race: a read of device memory before any write, by thread "));
  CHECK(bytes(x) == "");
  CHECK(says(report_of(count_up_kernel, 1, 32, 0, reinterpret_cast<unsigned*>(x + n)), "a read of device memory before any write"));
  CHECK(says(report_of(copy_kernel<true>, 1, n, 0, y.p, static_cast<const float*>(x)), "a read of device memory before any write"));
  CHECK(report_of(copy_all_kernel<float>, 1, n, 0, x, static_cast<const float*>(y.p)) == "");  // a kernel writes it
  CHECK(words(x) == "");
  copy(z, x + 2, n * 4, cudaMemcpyDeviceToDevice);  // what was not written goes along
  CHECK(says(words(z), "by thread 127 of block 0, at test_emulator.cpp:"));
  cudaFree(x);
  cudaFree(z);
}

TEST_CASE("what a step makes is not there before") {
  Memory x(n), y(2 * n);
  CudaStream s;
  REQUIRE(cudaStreamCreateWithFlags(&s.handle, 0) == cudaSuccess);
  auto report = [&](float* out, int64_t rows, int64_t ld, bool guarded) {
    for (int i = 0; i < n; i++) x.p[i] = 1;
    for (int i = 0; i < 2 * n; i++) y.p[i] = 1;
    emulator::set_written(x.p, n * 4, true);
    emulator::set_written(y.p, 2 * n * 4, true);
    View views[2];
    for (View& v : views) v.dtype = DType::float32, v.rank = 2, v.dims[0] = rows, v.dims[1] = n / rows, v.ld = ld;
    views[0].data = x.p, views[1].data = out, views[0].ld = n / rows;
    s.operands = views, s.operand_count = 2, s.unmade = guarded ? 0 : 1;
    launch(s, "planted", too_early_kernel, 1, 1, out, static_cast<const float*>(x.p));
    CHECK(s.unmade == 0);
    const cudaError_t e = cudaStreamSynchronize(s.handle);
    return std::string(e == cudaSuccess ? "" : cudaGetErrorString(e));
  };
  CHECK(says(report(y.p, 1, n, false), "a read of device memory before any write"));
  CHECK(report(y.p, 1, n, true) == "");
  CHECK(report(x.p, 1, n, false) == "");  // in place
  CHECK(says(report(y.p, 2, n, false), "a read of device memory before any write"));
  CHECK(y.p[n / 2] == 1);  // rows apart: what lies between them is another's
  CHECK(y.p[n] != y.p[n]);
  cudaStreamDestroy(s.handle);
}

TEST_CASE("a missing barrier is a race") {
  Memory y(n);
  CHECK(report_of(rotate_kernel<true>, 1, n, 0, y.p) == "");
  for (int i = 0; i < n; i++) CHECK(y.p[i] == float((i + 40) % n));
  CHECK(says(report_of(rotate_kernel<false>, 1, n, 0, y.p), "planted: race: "));
}

TEST_CASE("asynchronous copies arrive at the wait") {
  Memory x(n), y(n);
  for (int i = 0; i < n; i++) x.p[i] = float(i);
  CHECK(report_of(copy_kernel<true>, 1, n, 0, y.p, static_cast<const float*>(x.p)) == "");
  CHECK(y.p[0] == float(n - 1));
  CHECK(says(report_of(copy_kernel<false>, 1, n, 0, y.p, static_cast<const float*>(x.p)), "planted: race: "));
  CHECK(says(report_of(never_waited_kernel, 1, n, 0, static_cast<const float*>(x.p)), "copies it never waited for, at "));
}

TEST_CASE("matrices are loaded as the PTX manual says") {
  Memory y(n);
  CHECK(report_of(matrices_kernel, 1, 32, 0, y.p, 0) == "");
  for (int m = 0; m < 4; m++)
    for (int lane = 0; lane < 32; lane++) CHECK(y.p[m * 32 + lane] == float((m * 8 + lane / 4) * 4 + lane % 4));
  CHECK(says(report_of(matrices_kernel, 1, 32, 0, y.p, 1), "not aligned to 16 bytes"));
}

TEST_CASE("matrices of halves are transposed as the PTX manual says") {
  Memory y(n);
  auto* words = reinterpret_cast<uint32_t*>(y.p);
  CHECK(report_of(transposed_kernel, 1, 32, 0, words) == "");
  for (int m = 0; m < 4; m++)
    for (int lane = 0; lane < 32; lane++) {
      const int row = m * 8 + lane % 4 * 2, column = lane / 4;
      CHECK(words[m * 32 + lane] == uint32_t(row * 8 + column) + (uint32_t((row + 1) * 8 + column) << 16));
    }
}

TEST_CASE("bfloat16 is multiplied as the PTX manual says") {
  Memory x(16 * 16), w(16 * 8), y(16 * 8);
  for (int i = 0; i < 256; i++) x.p[i] = float(i * 37 % 101 - 50) / 16;  // whole numbers of sixteenths: nothing is rounded
  for (int i = 0; i < 128; i++) w.p[i] = float(i * 29 % 61 - 30) / 16;
  CHECK(report_of(multiply_bf16_kernel, 1, 32, 0, y.p, static_cast<const float*>(x.p), static_cast<const float*>(w.p)) == "");
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 8; j++) {
      float sum = 1;
      for (int k = 0; k < 16; k++) sum += x.p[i * 16 + k] * w.p[k * 8 + j];
      CHECK(y.p[i * 8 + j] == sum);
    }
}

TEST_CASE("barriers that not all threads reach") {
  Memory y(n);
  const std::string half = report_of(half_a_barrier_kernel, 1, n, 0, y.p), two = report_of(two_barriers_kernel, 1, n, 0, y.p);
  CHECK(says(half, "planted: block (0, 0, 0): a barrier at "));
  CHECK(says(half, "test_emulator.cpp:"));
  CHECK(says(half, " that 64 threads have passed by leaving, thread (64, 0, 0) among them"));
  CHECK(says(two, "meets at two barriers: thread (63, 0, 0) at "));
  CHECK(says(two, " and thread (64, 0, 0) at "));
  std::string text = report_of(half_a_warp_kernel, 1, n, 0, y.p);
  CHECK(says(text, "deadlock"));
  CHECK(says(text, "64 threads wait at"));
  CHECK(says(text, ", thread (0, 0, 0) of block (0, 0, 0) among them;"));
  CHECK(says(text, "test_emulator.cpp:"));
}

TEST_CASE("stores beyond shared memory") {
  Memory y(1);
  for (const std::string& text : {report_of(overrun_kernel, 1, n, 0, y.p), report_of(dynamic_overrun_kernel, 1, n, n * 4, y.p)}) {
    CHECK(says(text, "planted: thread (127, 0, 0) of block (0, 0, 0): writes 4 bytes of shared memory that no variable holds, at "));
    CHECK(says(text, "test_emulator.cpp:"));
  }
}

TEST_CASE("sixteen bytes at once are read and copied at multiples of sixteen") {
  Memory x(4 * n + 4), y(n);
  const float* from = x.p;
  CHECK(report_of(fours_kernel<true>, 1, n, 0, y.p, from, 0) == "");
  CHECK(report_of(fours_kernel<false>, 1, n, 0, y.p, from, 4) == "");
  CHECK(says(report_of(fours_kernel<true>, 1, n, 0, y.p, from, 2), "a copy of 16 bytes between addresses that are no multiples of that"));
  CHECK(says(report_of(fours_kernel<false>, 1, n, 0, y.p, from, 1), "touches 16 bytes at an address that is no multiple of that"));
}

TEST_CASE("static and dynamic shared memory beyond 48 KB must be asked for, beyond the device's 163 KB cannot be had") {
  Memory y(n);
  const auto* function = reinterpret_cast<const void*>(large_kernel);
  cudaLaunchConfig_t config{};
  config.gridDim = {1, 1, 1}, config.blockDim = {n, 1, 1};
  CudaStream s;
  REQUIRE(cudaStreamCreateWithFlags(&s.handle, 0) == cudaSuccess);
  config.stream = s.handle;
  auto report = [&](size_t bytes) {
    config.dynamicSmemBytes = bytes;
    cudaError_t e = cudaLaunchKernelEx(&config, large_kernel, Gate{}, y.p);
    if (e == cudaSuccess) e = cudaStreamSynchronize(s.handle);
    return std::string(e == cudaSuccess ? "" : cudaGetErrorString(e));
  };
  CHECK(report(40 << 10) == "");
  CHECK(says(report((40 << 10) + 4), "8192 bytes of static and 40964 of dynamic shared memory, and may have 49152 in all"));
  CHECK(report((48 << 10) + 4) == "invalid argument");
  CHECK(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, 163 << 10) == cudaErrorInvalidValue);
  s.shared_bytes = 163 << 10;
  for (size_t bytes : {155 << 10, 44 << 10}) {
    launch_with(s, "large", large_kernel, 1, n, bytes, y.p);
    CHECK(s.refused == nullptr);
    CHECK(cudaStreamSynchronize(s.handle) == cudaSuccess);
  }
  CHECK(report(155 << 10) == "");  // the smaller launch has taken nothing from it
  CHECK(report((155 << 10) + 4) == "invalid argument");
  cudaStreamDestroy(s.handle);
}

TEST_CASE("two blocks that write one place") {
  Memory y(1);
  CHECK(says(report_of(same_place_kernel, 2, 1, 0, y.p), "race: two writes"));
  CHECK(report_of(same_place_kernel, 1, 1, 0, y.p) == "");
}

TEST_CASE("copies of zeros name a source that exists") {
  Memory x(n), y(n);
  for (int i = 0; i < n; i++) x.p[i] = 3;
  const float* from = x.p;
  CHECK(report_of(zeros_kernel, 1, n, 0, y.p, from, from) == "");
  for (int i = 0; i < n; i++) CHECK(y.p[i] == (i % 2 ? 3.0f : 0.0f));
  CHECK(report_of(zeros_from_a_variable_kernel, 1, n, 0, y.p) == "");
  CHECK(y.p[5] == 0);
  for (const float* nothing : {static_cast<const float*>(nullptr), from + n, from - 2048})
    CHECK(says(report_of(zeros_kernel, 1, n, 0, y.p, from, nothing), "a copy of zeros from an address that does not exist, at "));
}

TEST_CASE("TF32 is rounded to nearest, NaN stays NaN and inf inf") {
  const std::vector<uint32_t> from{0x7f800001, 0xff801fff, 0x7fffffff, 0xffffffff, 0x7fc00000, 0x7f800000, 0xff800000,
                                   0x3f801000, 0x3f800fff, 0x80001fff, 0x7f7fefff, 0};
  Memory x(32), y(32);
  std::memcpy(x.p, from.data(), from.size() * 4);
  auto* bits = reinterpret_cast<uint32_t*>(y.p);
  CHECK(report_of(round_kernel, 1, int(from.size()), 0, bits, reinterpret_cast<const uint32_t*>(x.p)) == "");
  for (int i = 0; i < 5; i++) CHECK(y.p[i] != y.p[i]);
  const std::vector<uint32_t> numbers(bits + 5, bits + from.size());
  CHECK(numbers == std::vector<uint32_t>{0x7f800000, 0xff800000, 0x3f802000, 0x3f800000, 0x80002000, 0x7f7fe000, 0});
  for (size_t i = 0; i < from.size(); i++) CHECK((bits[i] & 0x1fff) == 0);
}

TEST_CASE("lanes that went different ways meet before an operation of the whole warp") {
  Memory y(32);
  CHECK(report_of(walk_kernel<false, false>, 1, 32, 0, y.p) == "");
  CHECK(report_of(walk_kernel<true, true>, 1, 32, 0, y.p) == "");
  CHECK(y.p[3] == 96);
  const std::string apart = report_of(walk_kernel<true, false>, 1, 32, 0, y.p);
  CHECK(says(apart, "planted: thread (0, 0, 0) and thread (1, 0, 0) of block (0, 0, 0), of one warp, have gone different ways"));
  CHECK(says(apart, "without __syncwarp() behind them, at "));
  CHECK(says(apart, "test_emulator.cpp:"));
}

TEST_CASE("operands of mma that are not rounded") {
  Memory y(32);
  CHECK(says(report_of(unrounded_kernel, 1, 32, 0, y.p), "operand A is not rounded to TF32"));
}

TEST_CASE("blocks that wait for each other are ordered by their atomics and fences") {
  Memory x(8 * n), y(8 * n), counter(1);
  auto* c = reinterpret_cast<unsigned*>(counter.p);
  auto report = [&](void (*kernel)(Gate, float*, float*, unsigned*), int threads) {
    *c = 0;
    CudaStream s;
    cudaStreamCreateWithFlags(&s.handle, 0);
    launch_together(s, "neighbours", kernel, 8, threads, 0, y.p, x.p, c);
    const cudaError_t e = cudaStreamSynchronize(s.handle);
    cudaStreamDestroy(s.handle);
    return std::string(e == cudaSuccess ? "" : cudaGetErrorString(e));
  };
  CHECK(report(neighbours_kernel<true, true, true>, 32) == "");
  for (int i = 0; i < 8; i++) CHECK(y.p[i] == float((i + 1) % 8 + 1));
  CHECK(says(report(neighbours_kernel<false, true, true>, 32), "race: "));
  CHECK(says(report(neighbours_kernel<true, false, true>, 32), "race: "));
  CHECK(says(report(neighbours_kernel<true, true, false>, 32), "race: "));
  *c = 0;
  const std::string never = report_of(never_told_kernel, 2, 32, 0, c);
  CHECK(says(never, "deadlock in block "));
  CHECK(says(never, ": 32 threads wait at "));
  CHECK(report(all_tell_kernel<true>, n) == "");
  CHECK(says(report(all_tell_kernel<false>, n), "race: "));
}

TEST_CASE("words and parts of them are one place") {
  Memory y(n);
  CHECK(report_of(parts_kernel<true>, 1, n, 0, y.p) == "");
  CHECK(y.p[3] == float(1 << 16));
  CHECK(says(report_of(parts_kernel<false>, 1, n, 0, y.p), "race: "));
}

TEST_CASE("work is late, copies read the host at once, graphs run again") {
  Memory x(1);
  cudaStream_t s;
  cudaStreamCreateWithFlags(&s, 0);
  float in = 3, out = 0;
  cudaMemcpyAsync(x.p, &in, 4, cudaMemcpyHostToDevice, s);
  in = 4;
  cudaMemcpyAsync(&out, x.p, 4, cudaMemcpyDeviceToHost, s);
  CHECK(out == 0);
  cudaStreamSynchronize(s);
  CHECK(out == 3);
  cudaGraph_t g;
  cudaGraphExec_t e;
  cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal);
  cudaMemcpyAsync(&out, x.p, 4, cudaMemcpyDeviceToHost, s);
  cudaStreamEndCapture(s, &g);
  cudaGraphInstantiate(&e, g, 0);
  cudaGraphDestroy(g);
  out = 0;
  cudaStreamSynchronize(s);
  CHECK(out == 0);
  cudaGraphLaunch(e, s);
  cudaStreamSynchronize(s);
  CHECK(out == 3);
  cudaGraphExecDestroy(e);
  cudaStreamDestroy(s);
}

}  // namespace dagrt
