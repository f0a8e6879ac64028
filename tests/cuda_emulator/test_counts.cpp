// The counters against counts derived by hand, for the patterns that kernels are made of.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "testing.h"

namespace dagrt {
namespace {

__global__ void coalesced_kernel(Gate, float* y, const float* x) { y[first_index()] = x[first_index()]; }
__global__ void strided_kernel(Gate, float* y, const float* x) { y[threadIdx.x] = x[threadIdx.x * 8]; }
__global__ void broadcast_kernel(Gate, float* y, const float* x) { y[threadIdx.x] = x[threadIdx.x / 32]; }
__global__ void vectors_kernel(Gate, float* y, const float* x) {
  reinterpret_cast<float4*>(y)[threadIdx.x] = reinterpret_cast<const float4*>(x)[threadIdx.x];
}
__global__ void bytes_kernel(Gate, uint8_t* y, const uint8_t* x) { y[threadIdx.x] = x[threadIdx.x]; }
__global__ void shared_kernel(Gate, float* y, int stride) {
  float* held = dynamic_shared<float>();
  held[threadIdx.x * stride] = 1;
  __syncthreads();
  y[threadIdx.x] = held[threadIdx.x * stride];
}
__global__ void shared_vectors_kernel(Gate, float* y, int stride) {
  float4* held = dynamic_shared<float4>();
  held[threadIdx.x * stride] = make_float4(1, 2, 3, 4);
  __syncthreads();
  y[threadIdx.x] = held[threadIdx.x * stride].x;
}
template <int bytes> __global__ void async_kernel(Gate, float* y, const float* x) {
  SHARED(float, held, [32 * 4]);
  copy_async<bytes>(held + threadIdx.x * (bytes / 4), x + threadIdx.x * (bytes / 4), threadIdx.x < 24);
  commit_copies();
  wait_copies<0>();
  __syncthreads();
  y[threadIdx.x] = held[threadIdx.x];
}
/// Even lanes go round 5 times, odd ones 3 times.
__global__ void uneven_kernel(Gate, float* y, const float* x) {
  float sum = 0;
  for (int k = 0; k < (threadIdx.x % 2 ? 3 : 5); k++) sum += x[k * 32 + threadIdx.x];
  y[threadIdx.x] = sum;
}
__global__ void branches_kernel(Gate, float* y, const float* x) {
  float v;
  if (threadIdx.x % 4 == 0)
    v = x[threadIdx.x] + x[32 + threadIdx.x];
  else
    v = x[64 + threadIdx.x];
  y[threadIdx.x] = v;
}
/// The last block of a row has half of the work, those of the last column have none.
__global__ void edges_kernel(Gate, float* y) {
  if (blockIdx.y + 1 == gridDim.y || (blockIdx.x + 1 == gridDim.x && threadIdx.x >= 16)) return;
  y[(blockIdx.y * gridDim.x + blockIdx.x) * 32 + threadIdx.x] = 0;
}

struct Line {
  std::string text;
  double operator[](const char* key) const {
    size_t at = text.find('"' + std::string(key) + "\":");
    REQUIRE_MESSAGE(at != std::string::npos, text);
    return std::atof(text.c_str() + at + std::strlen(key) + 3);
  }
};

/// What one launch adds to the file of counts.
template <class... P> Line counted(void (*kernel)(Gate, P...), dim3 grid, dim3 block, size_t shared, P... args) {
  const std::string path = "/tmp/dagrt_counts_" + std::to_string(getpid());
  setenv("DAGRT_EMULATOR_COUNTS", path.c_str(), 1);
  const std::string report = report_of(kernel, grid, block, shared, args...);
  unsetenv("DAGRT_EMULATOR_COUNTS");
  CHECK(report == "");
  char text[512] = "";
  FILE* f = std::fopen(path.c_str(), "r");
  REQUIRE(f);
  REQUIRE(std::fgets(text, sizeof text, f));
  std::fclose(f);
  std::remove(path.c_str());
  return {text};
}

void expect(const Line& line, double requests, double read, double written, double sectors, double least_sectors) {
  INFO(line.text);
  CHECK(line["requests"] == requests);
  CHECK(line["read"] == read);
  CHECK(line["written"] == written);
  CHECK(line["sectors"] == sectors);
  CHECK(line["least_sectors"] == least_sectors);
}

}  // namespace

TEST_CASE("bytes and sectors of device memory") {
  Memory x(1024), y(1024);
  const float* in = x.p;
  std::memset(x.p, 0, 4096);
  // 4 warps, each one access of 128 bytes, 4 sectors, in and out
  expect(counted(coalesced_kernel, 1, 128, 0, y.p, in), 8, 512, 512, 32, 32);
  expect(counted(coalesced_kernel, 3, 32, 0, y.p, in), 6, 384, 384, 24, 24);
  // a lane stands 4 bytes further: 5 sectors instead of 4
  expect(counted(coalesced_kernel, 1, 32, 0, y.p, in + 1), 2, 128, 128, 9, 8);
  // each lane in a sector of its own: 32 of them hold 128 bytes
  expect(counted(strided_kernel, 1, 32, 0, y.p, in), 2, 128, 128, 36, 8);
  // one word for a warp
  expect(counted(broadcast_kernel, 1, 64, 0, y.p, in), 4, 8, 256, 10, 10);
  // 16 bytes a lane: one access of 512 bytes
  expect(counted(vectors_kernel, 1, 32, 0, y.p, in), 2, 512, 512, 32, 32);
  expect(counted(bytes_kernel, 1, 32, 0, reinterpret_cast<uint8_t*>(y.p), reinterpret_cast<const uint8_t*>(in)), 2, 32, 32, 2, 2);
}

TEST_CASE("passes over shared memory") {
  Memory y(1024);
  for (auto [stride, passes] : {std::pair{1, 1}, {2, 2}, {3, 1}, {4, 4}, {8, 8}, {32, 32}, {33, 1}}) {
    Line line = counted(shared_kernel, 1, 32, 33 * 32 * 4, y.p, stride);
    CAPTURE(stride);
    CHECK(line["wavefronts"] == 2 * passes);
    CHECK(line["least_wavefronts"] == 2);
    CHECK(line["barriers"] == 1);
  }
  // 16 bytes a lane: 8 lanes at once, so 4 passes; the word that comes back lies 4 (8) banks from the next: 4 (8) lanes in a bank
  Line line = counted(shared_vectors_kernel, 1, 32, 32 * 32, y.p, 1);
  CHECK(line["wavefronts"] == 4 + 4);
  CHECK(line["least_wavefronts"] == 4 + 1);
  line = counted(shared_vectors_kernel, 1, 32, 32 * 32, y.p, 2);
  CHECK(line["wavefronts"] == 8 + 8);
  CHECK(line["least_wavefronts"] == 4 + 1);
}

TEST_CASE("asynchronous copies count on both sides") {
  Memory x(128), y(32);
  const float* in = x.p;
  std::memset(x.p, 0, 512);
  // 24 lanes copy 16 bytes, 8 write zeros: 384 bytes read; 4 passes for the writes, 1 for the reads
  Line line = counted(async_kernel<16>, 1, 32, 0, y.p, in);
  expect(line, 2, 384, 128, 12 + 4, 12 + 4);
  CHECK(line["wavefronts"] == 5);
  line = counted(async_kernel<4>, 1, 32, 0, y.p, in);
  expect(line, 2, 96, 128, 3 + 4, 3 + 4);
  CHECK(line["wavefronts"] == 2);
}

TEST_CASE("lanes that go different ways are put side by side") {
  Memory x(256), y(32);
  const float* in = x.p;
  std::memset(x.p, 0, 1024);
  // 3 rounds of 32 lanes, 2 of the 16 even ones: every second word of 4 sectors
  expect(counted(uneven_kernel, 1, 32, 0, y.p, in), 6, 3 * 128 + 2 * 64, 128, 5 * 4 + 4, 3 * 4 + 2 * 2 + 4);
  // 8 lanes read twice, 24 once: 32, 32 and 96 bytes from 4 sectors each; the store is one
  expect(counted(branches_kernel, 1, 32, 0, y.p, in), 4, 160, 128, 3 * 4 + 4, 1 + 1 + 3 + 4);
}

TEST_CASE("a sample of blocks gives the counts of all") {
  Memory y(40 * 30 * 32);
  const dim3 grid(40, 30);
  const Line all = counted(edges_kernel, grid, 32, 0, y.p);
  CHECK(all["written"] == 29 * (39 * 128 + 64));
  CHECK(all["blocks"] == 1200);
  CHECK(all["blocks_run"] == 1200);
  setenv("DAGRT_EMULATOR_BLOCKS", "32", 1);
  const Line some = counted(edges_kernel, grid, 32, 0, y.p);
  unsetenv("DAGRT_EMULATOR_BLOCKS");
  CHECK(some["blocks"] == 1200);
  CHECK(some["blocks_run"] <= 40);
  for (const char* key : {"requests", "read", "written", "sectors", "least_sectors"}) {
    CAPTURE(key);
    CHECK(some[key] == all[key]);
  }
}

}  // namespace dagrt
