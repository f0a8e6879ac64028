// The CUDA runtime's functions that dagrt calls, for the emulator. Streams are late: work is done when somebody waits for the
// stream. Copies from host memory read it when called (as the driver does with pageable memory), copies to it write it late.
// Captured work goes into a graph; launching one puts its work into a stream. A fault of a kernel is cudaErrorLaunchFailure,
// and its text is what cudaGetErrorString answers for that.
#include <cuda_runtime_api.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

#include "emulator.h"

namespace emulator {
std::string take_fault();
bool in_device_memory(uintptr_t at);
}  // namespace emulator

using Work = std::function<void()>;

struct CUgraph_st {
  std::vector<Work> work;
};
struct CUgraphExec_st {
  std::vector<Work> work;
};
struct CUstream_st {
  std::vector<Work> work;
  CUgraph_st* capturing = nullptr;
  cudaError_t failed = cudaSuccess;  // found by a query, kept for who waits
};

namespace {

thread_local std::string fault;

void give(cudaStream_t s, Work w) { (s->capturing ? s->capturing->work : s->work).push_back(std::move(w)); }

// Device memory is one range of addresses, so that an address tells at once whether it is the device's. Nothing is used twice:
// what was freed cannot be touched.
constexpr size_t guard = 4096, range_bytes = size_t(16) << 40;
std::mutex allocations_mutex;
std::map<void*, std::pair<void*, size_t>> allocations;  // first page, bytes of all pages with the guard behind
size_t allocated = 0;                                   // with the pages
char* const range = [] {
  void* p = mmap(nullptr, range_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? nullptr : static_cast<char*>(p);
}();
size_t range_used = 0;

size_t memory() {  // the device's, in bytes
  const char* e = std::getenv("DAGRT_EMULATOR_MEMORY");
  return e ? size_t(std::atoll(e)) : size_t(4) << 30;
}

}  // namespace

bool emulator::in_device_memory(uintptr_t at) { return at - reinterpret_cast<uintptr_t>(range) < range_bytes; }

cudaError_t emulator::launch(cudaStream_t s, Launch l) {
  if (l.grid.x == 0 || l.grid.y == 0 || l.grid.z == 0 || l.block.x * l.block.y * l.block.z == 0 ||
      l.block.x * l.block.y * l.block.z > 1024)
    return cudaErrorInvalidConfiguration;
  give(s, [l = std::move(l)] { emulator::run(l); });
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* n) {
  *n = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  *p = {};
  p->major = 8;
  p->minor = 0;
  p->multiProcessorCount = 16;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t e) {
  if (e == cudaErrorLaunchFailure) return fault.c_str();
  return e == cudaErrorInvalidConfiguration ? "invalid configuration"
         : e == cudaErrorMemoryAllocation   ? "out of memory"
                                            : "an error";
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int bytes) {
  return bytes > 227 * 1024 ? cudaErrorInvalidValue : cudaSuccess;
}

/// Right-aligned against a page that cannot be touched, but for 256 bytes' alignment; poisoned.
cudaError_t cudaMalloc(void** p, size_t bytes) {
  size_t body = (bytes + guard - 1) / guard * guard, all = body + guard;
  std::lock_guard<std::mutex> lock(allocations_mutex);
  if (allocated + all > memory()) return cudaErrorMemoryAllocation;
  if (!range || range_used + all > range_bytes) return cudaErrorMemoryAllocation;
  char* base = range + range_used;
  if (mprotect(base, body, PROT_READ | PROT_WRITE)) return cudaErrorMemoryAllocation;
  range_used += all;
  std::memset(base, emulator::sample_size() ? 0 : 0xFF,
              body);  // of a sample's values none is looked at, but indices must point somewhere
  *p = base + (body - bytes) / 256 * 256;
  allocations[*p] = {base, all};
  allocated += all;
  return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  if (!p) return cudaSuccess;
  std::lock_guard<std::mutex> lock(allocations_mutex);
  auto it = allocations.find(p);
  if (it == allocations.end()) return cudaErrorInvalidValue;
  const auto [base, all] = it->second;
  mmap(base, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  allocated -= all;
  allocations.erase(it);
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* left, size_t* all) {
  std::lock_guard<std::mutex> lock(allocations_mutex);
  *all = memory();
  *left = *all - std::min(*all, allocated);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t s) {
  if (kind == cudaMemcpyHostToDevice) {
    const char* p = static_cast<const char*>(from);
    give(s, [to, held = std::vector<char>(p, p + bytes)] { std::memcpy(to, held.data(), held.size()); });
  } else {
    give(s, [=] { std::memcpy(to, from, bytes); });
  }
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) {
  *s = new CUstream_st;
  return cudaSuccess;
}
/// Does one piece of the stream's work.
cudaError_t cudaStreamQuery(cudaStream_t s) {
  if (s->work.empty()) return s->failed;
  Work first = std::move(s->work.front());
  s->work.erase(s->work.begin());
  first();
  std::string f = emulator::take_fault();
  if (!f.empty()) {
    fault = f;
    s->work.clear();
    s->failed = cudaErrorLaunchFailure;
  }
  return cudaErrorNotReady;
}
cudaError_t cudaStreamSynchronize(cudaStream_t s) {
  if (cudaError_t e = s->failed; e != cudaSuccess) {
    s->failed = cudaSuccess;
    return e;
  }
  std::vector<Work> work = std::move(s->work);
  s->work.clear();
  for (Work& w : work) {
    w();
    std::string f = emulator::take_fault();
    if (f.empty()) continue;
    fault = f;
    return cudaErrorLaunchFailure;
  }
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t s) {
  cudaStreamSynchronize(s);
  delete s;
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode) {
  s->capturing = new CUgraph_st;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t* g) {
  *g = s->capturing;
  s->capturing = nullptr;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* e, cudaGraph_t g, unsigned long long) {
  *e = new CUgraphExec_st{g->work};
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t g) {
  delete g;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t e) {
  delete e;
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t s) {
  for (const Work& w : e->work) give(s, w);
  return cudaSuccess;
}
