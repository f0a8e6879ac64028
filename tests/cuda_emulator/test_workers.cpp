// Blocks on several OS threads (target emulator_workers_tests, in the kind `plain`, the only ones that have several beside `asan`).
#include <xmmintrin.h>

#include <cstdlib>
#include <vector>

#include "testing.h"

namespace dagrt {
namespace {

struct OsThreads {
  explicit OsThreads(int n) { setenv("DAGRT_EMULATOR_THREADS", std::to_string(n).c_str(), 1); }
  ~OsThreads() { unsetenv("DAGRT_EMULATOR_THREADS"); }
};

/// Each block stays until `all` are there, so that as many run at once.
__global__ void at_once_kernel(Gate, unsigned* there, unsigned all) {
  if (threadIdx.x == 0) {
    atomicAdd(there, 1u);
    while (atomicAdd(there, 0u) < all) relax();
  }
  __syncthreads();
}
/// The order in which a block's threads come by, between barriers.
__global__ void orders_kernel(Gate, unsigned* y) {
  SHARED(unsigned, turn, [1]);
  if (threadIdx.x == 0) turn[0] = 0;
  __syncthreads();
  for (int i = 0; i < 3; i++) {
    y[blockIdx.x * 64 + threadIdx.x] = y[blockIdx.x * 64 + threadIdx.x] * 1000 + atomicAdd(turn, 1u);
    __syncthreads();
  }
}
__global__ void add_kernel(Gate, unsigned* sum, float* floats, unsigned* most, unsigned* least) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(sum, 1u);
  atomicAdd(floats, 1.0f);
  atomicMax(most, i);
  atomicMin(least, i);
}
/// A lock: between its ends nobody else counts.
__global__ void lock_kernel(Gate, unsigned* lock, volatile unsigned* sum) {
  if (threadIdx.x) return;
  for (int i = 0; i < 100; i++) {
    while (atomicCAS(lock, 0u, 1u)) relax();
    *sum = *sum + 1;
    atomicExch(lock, 0u);
  }
}
__global__ void meet_kernel(Gate, unsigned* counters, unsigned* y) {
  for (unsigned round = 0; round < 20; round++) {
    y[blockIdx.x * 20 + round] = round + 1;
    __syncthreads();
    if (threadIdx.x == 0) {
      __threadfence();
      atomicAdd(counters + round, 1u);
      while (atomicAdd(counters + round, 0u) < gridDim.x) relax();
      __threadfence();
    }
    __syncthreads();
    if (y[(blockIdx.x + 1) % gridDim.x * 20 + round] != round + 1) atomicAdd(counters + 20, 1u);
  }
}
__global__ void fail_kernel(Gate, unsigned* from) {
  if (blockIdx.x >= *from) emulator::stop_thread("fails", "here", int(blockIdx.x));
  __syncthreads();
}
__global__ void half_barrier_kernel(Gate, unsigned* told) {
  if (blockIdx.x == 5 && threadIdx.x == 3) return;
  if (threadIdx.x == 0) {
    atomicAdd(told, 1u);
    while (atomicAdd(told, 0u) < gridDim.x) relax();
  }
  __syncthreads();
}
__global__ void overrun_kernel(Gate, float*) {
  SHARED(volatile float, held, [32]);
  held[threadIdx.x + 1] = 0;
}
__global__ void dynamic_overrun_kernel(Gate, float*) { dynamic_shared<volatile float>()[threadIdx.x + 1] = 0; }
__global__ void denormal_kernel(Gate, volatile float* x) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  x[i] = x[i] * 0.5f;
}

std::string report_together(void (*kernel)(Gate, unsigned*), int blocks, unsigned* at) {
  CudaStream s;
  REQUIRE(cudaStreamCreateWithFlags(&s.handle, 0) == cudaSuccess);
  launch_together(s, "planted", kernel, blocks, 32, 0, at);
  const cudaError_t e = cudaStreamSynchronize(s.handle);
  cudaStreamDestroy(s.handle);
  return e == cudaSuccess ? "" : cudaGetErrorString(e);
}

}  // namespace

TEST_CASE("as many blocks run at once as there are OS threads") {
  Memory y(1);
  auto* there = reinterpret_cast<unsigned*>(y.p);
  for (int n : {2, 5}) {
    OsThreads threads(n);
    *there = 0;
    CHECK(report_of(at_once_kernel, n, 32, 0, there, unsigned(n)) == "");
    CHECK(*there == unsigned(n));
  }
  OsThreads one(1);
  *there = 0;
  CHECK(says(report_of(at_once_kernel, 2, 32, 0, there, 2u), "deadlock in block "));
}

TEST_CASE("the order of a block's threads follows from the seed and its number, not from the OS threads") {
  constexpr int blocks = 13;
  std::vector<std::vector<unsigned>> seen;
  for (const char* seed : {"1", "2"})
    for (int n : {1, 2, 4}) {
      setenv("DAGRT_EMULATOR_SEED", seed, 1);
      OsThreads threads(n);
      Memory y(blocks * 64);
      auto* orders = reinterpret_cast<unsigned*>(y.p);
      std::memset(y.p, 0, blocks * 64 * 4);
      CHECK(report_of(orders_kernel, blocks, 64, 0, orders) == "");
      seen.emplace_back(orders, orders + blocks * 64);
    }
  unsetenv("DAGRT_EMULATOR_SEED");
  CHECK(seen[1] == seen[0]);
  CHECK(seen[2] == seen[0]);
  CHECK(seen[4] == seen[3]);
  CHECK(seen[5] == seen[3]);
  CHECK(seen[3] != seen[0]);
  CHECK(std::vector<unsigned>(seen[0].begin(), seen[0].begin() + 64) !=
        std::vector<unsigned>(seen[0].begin() + 64, seen[0].begin() + 128));
}

TEST_CASE("atomics of blocks side by side are atomic") {
  OsThreads threads(4);
  for (int round = 0; round < 5; round++) {
    Memory memory(4);
    auto* at = reinterpret_cast<unsigned*>(memory.p);
    at[0] = at[2] = 0, at[3] = ~0u, memory.p[1] = 0;
    CHECK(report_of(add_kernel, 100, 256, 0, at, memory.p + 1, at + 2, at + 3) == "");
    CHECK(at[0] == 25600);
    CHECK(memory.p[1] == 25600.0f);
    CHECK(at[2] == 25599);
    CHECK(at[3] == 0);
    at[0] = at[1] = 0;
    CHECK(report_of(lock_kernel, 20, 32, 0, at, static_cast<volatile unsigned*>(at + 1)) == "");
    CHECK(at[1] == 2000);
  }
}

TEST_CASE("blocks of a cooperative launch meet, wherever they run") {
  for (int n : {1, 2, 3, 8}) {
    OsThreads threads(n);
    Memory counters(21), y(7 * 20);
    auto *c = reinterpret_cast<unsigned*>(counters.p), *held = reinterpret_cast<unsigned*>(y.p);
    std::memset(c, 0, 21 * 4);
    CudaStream s;
    REQUIRE(cudaStreamCreateWithFlags(&s.handle, 0) == cudaSuccess);
    launch_together(s, "meet", meet_kernel, 7, 64, 0, c, held);
    CHECK(cudaStreamSynchronize(s.handle) == cudaSuccess);
    cudaStreamDestroy(s.handle);
    CHECK(c[19] == 7);
    CHECK(c[20] == 0);
  }
}

TEST_CASE("a fault is the same report on any number of OS threads, and the next launch runs") {
  Memory y(1);
  auto* from = reinterpret_cast<unsigned*>(y.p);
  std::vector<std::string> reports;
  for (int n : {1, 2, 4, 4, 4}) {
    OsThreads threads(n);
    *from = 10;
    reports.push_back(report_of(fail_kernel, 40, 64, 0, from));
    CHECK(says(reports.back(), "planted: thread "));
    CHECK(reports.back() == reports.front());
    *from = 1000;
    CHECK(report_of(fail_kernel, 40, 64, 0, from) == "");
  }
}

TEST_CASE("blocks of a cooperative launch that wait for ever") {
  Memory y(1);
  auto* told = reinterpret_cast<unsigned*>(y.p);
  for (int n : {1, 2, 4}) {
    OsThreads threads(n);
    *told = 0;
    const std::string text = report_together(half_barrier_kernel, 8, told);
    CHECK(says(text, "block (5, 0, 0): a barrier "));
    CHECK(says(text, " that 1 threads have passed by leaving"));
    *told = unsigned(-100);
    CHECK(says(report_together(half_barrier_kernel, 8, told), "planted: "));
  }
}

TEST_CASE("where accesses are not watched, red zones tell of stores beyond shared memory") {
  Memory y(1);
  CHECK(says(report_of(overrun_kernel, 1, 32, 0, y.p), "block (0, 0, 0) wrote behind a shared variable of 128 bytes"));
  CHECK(says(report_of(dynamic_overrun_kernel, 1, 32, 128, y.p), "block (0, 0, 0) wrote behind its dynamic shared memory"));
}

TEST_CASE("OS threads round as the one that came with the launch, and treat denormal numbers alike") {
  const unsigned before = _mm_getcsr();
  OsThreads threads(4);
  for (bool flush : {false, true, false}) {
    Memory x(64 * 32);
    for (int i = 0; i < 64 * 32; i++) x.p[i] = 1e-39f;
    _mm_setcsr(flush ? before | 0x8040 : before);
    const std::string text = report_of(denormal_kernel, 64, 32, 0, static_cast<volatile float*>(x.p));
    _mm_setcsr(before);
    CHECK(text == "");
    const auto* bits = reinterpret_cast<const uint32_t*>(x.p);
    int zeros = 0;
    for (int i = 0; i < 64 * 32; i++) zeros += bits[i] == 0;
    CHECK(zeros == (flush ? 64 * 32 : 0));
  }
}

}  // namespace dagrt
