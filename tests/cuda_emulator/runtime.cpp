// The CUDA runtime's functions that dagrt calls, for the emulator. Streams are late: work is done when somebody waits for the
// stream, or for an event behind it; then that stream's work alone is done, and what it waits for in others. So who forgets to
// wait finds nothing done. Copies from host memory read it when called (as the driver does with pageable memory), unless it is
// cudaMallocHost's; copies to it write it late.
//
// Captured work goes into a graph, whose edges are the streams' order and the events between them; launching it does its work in
// an order drawn at random (DAGRT_EMULATOR_SEED) from those that the edges allow, another one each time. So who forgets an
// event finds things done too early, or not yet. A stream that was drawn into a capture and not joined is an error at its end.
//
// Of cooperative launches one must always come before the other, whichever streams, graphs and threads they are of: at the same
// time, some blocks of each may find room and wait for others that find none. Who does not see to it is told at the launch.
//
// With DAGRT_EMULATOR_STREAMS=file every call that gives a stream work, orders streams or has the host wait adds a line of JSON to that
// file, in the order of the calls: what may overlap follows from it (README.md).
//
// A fault of a kernel is cudaErrorUnknown, after which the context lives on, and its text is what cudaGetErrorString answers for that.
#include <cuda_runtime_api.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <utility>
#include <vector>

#include "watch.h"

namespace emulator {
std::string take_fault();
void poison_but(const std::vector<Extent>& extents);
}  // namespace emulator

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

using Work = std::function<void()>;

struct CUgraph_st {
  struct Node {
    Work work;
    std::vector<size_t> after;
    bool cooperative = false;
  };
  std::vector<Node> nodes;
  std::vector<cudaStream_t> streams;  // drawn into the capture, the first by its beginning
  std::shared_ptr<bool> open = std::make_shared<bool>(true);  // until its end; events have it longer
  bool spoilt = false;
};
struct CUgraphExec_st {
  std::vector<CUgraph_st::Node> nodes;
  int number;
};
struct CUstream_st {
  CUstream_st(uint64_t number, int device) : number(number), device(device) {}
  const uint64_t number;
  const int device;
  std::shared_ptr<CUstream_st> self;  // until it is destroyed; events keep it longer
  std::deque<Work> work;
  uint64_t given = 0, done = 0;  // pieces of work
  CUgraph_st* capturing = nullptr;
  std::vector<size_t> last;           // then: the nodes that the next comes after
  std::map<uint64_t, uint64_t> behind;  // so much work of other streams, by events
  cudaError_t failed = cudaSuccess;  // found before anyone waited, kept for who does
};
struct CUevent_st {
  std::shared_ptr<CUstream_st> stream;
  uint64_t at = 0;  // it stands behind so much work
  std::map<uint64_t, uint64_t> behind;
  CUgraph_st* graph = nullptr;  // of a capture, and whether that goes on
  std::shared_ptr<bool> open;
  std::vector<size_t> nodes;
  bool timed = false;
  std::chrono::steady_clock::time_point when;
  int number;
};

namespace {

thread_local std::string fault;
std::atomic<bool> lost{false};  // the context: every call says so from then on

std::recursive_mutex streams_mutex;  // one thread's streams may be advanced by another's that wait for their events
using Lock = std::lock_guard<std::recursive_mutex>;

/// A planted fault: the first such call (of an event, while a run is recorded), or one so much later, finds no memory.
bool fails(const char* call) {
  static std::atomic<int> calls{0};
  const char* text = std::getenv("DAGRT_EMULATOR_FAULT");
  const std::string fault = text ? text : "", wanted = std::string("call ") + call;
  return fault.compare(0, wanted.size(), wanted) == 0 && calls++ == std::atoi(fault.c_str() + wanted.size());
}

thread_local int current = 0;  // device
thread_local cudaError_t last_error = cudaSuccess;
cudaError_t told(cudaError_t e) {
  if (e != cudaSuccess) last_error = e;
  return e;
}
int devices() {
  const char* e = std::getenv("DAGRT_EMULATOR_DEVICES");
  return e ? std::max(1, std::atoi(e)) : 1;
}
thread_local int captures = 0;  // that this thread has begun and not ended
thread_local bool spoilt = false;  // by a call that must not be made meanwhile
cudaError_t in_no_capture() {
  if (captures == 0) return cudaSuccess;
  spoilt = true;
  return told(cudaErrorStreamCaptureUnsupported);
}
/// The same of what asks a stream or an event that is in a capture, whichever thread's.
cudaError_t in_no_capture_of(cudaStream_t s) {
  if (!s->capturing) return in_no_capture();
  s->capturing->spoilt = true;
  return told(cudaErrorStreamCaptureUnsupported);
}
cudaError_t in_no_capture_of(cudaEvent_t e) {
  if (!e->graph) return in_no_capture();
  if (*e->open) e->graph->spoilt = true;
  return told(cudaErrorCapturedEvent);
}
/// The legacy stream, which is nobody's here; it waits for a capture's streams, so that this ends.
cudaError_t no_stream() {
  if (cudaError_t e = in_no_capture()) return e;
  return told(cudaErrorInvalidResourceHandle);
}

/// A line for DAGRT_EMULATOR_STREAMS; numbers that are not asked for are -1.
struct Noted {
  int stream = -1, event = -1, graph = -1;
  size_t size = 0;  // a copy's bytes, a graph's nodes, a device
};
void note(const char* call, const Noted& n) {
  const char* path = std::getenv("DAGRT_EMULATOR_STREAMS");
  if (!path) return;
  static std::mutex mutex;
  std::lock_guard<std::mutex> lock(mutex);
  if (FILE* f = std::fopen(path, "a")) {
    std::fprintf(f, "{\"call\": \"%s\", \"stream\": %d, \"event\": %d, \"graph\": %d, \"size\": %zu}\n", call, n.stream, n.event, n.graph,
                 n.size);
    std::fclose(f);
  }
}

void give(cudaStream_t s, Work w, bool cooperative = false) {
  Lock lock(streams_mutex);
  if (!s->capturing) {
    s->work.push_back(std::move(w));
    s->given++;
    return;
  }
  s->capturing->nodes.push_back({std::move(w), s->last, cooperative});
  s->last = {s->capturing->nodes.size() - 1};
}

/// Does the stream's work up to a number. What stands behind a fault is dropped.
void advance(cudaStream_t s, uint64_t upto) {
  for (;;) {
    Lock lock(streams_mutex);
    if (s->done >= upto || s->work.empty()) return;
    Work first = std::move(s->work.front());
    s->work.pop_front();
    s->done++;
    first();
    std::string f = emulator::take_fault();
    if (f.empty()) continue;
    fault = f;
    s->done += s->work.size();
    s->work.clear();
    lost = lost || f == emulator::illegal_access;
    s->failed = lost ? cudaErrorIllegalAddress : cudaErrorUnknown;
  }
}

/// Not by memcpy, which AddressSanitizer looks at: another thread's launch may run, for which this memory is poisoned.
void copy_now(void* to, const void* from, size_t bytes) {
  emulator::copy_written(to, from, bytes);
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

/// The last cooperative work that any stream of a device was given.
struct Cooperative {
  std::shared_ptr<CUstream_st> stream;
  uint64_t at = 0;
};
std::map<int, Cooperative> last_cooperative;

/// Whether what the stream is given next can only begin behind that.
bool cooperative_ones_are_ordered(cudaStream_t s) {
  const auto& [stream, at] = last_cooperative[s->device];
  if (!stream || stream.get() == s || stream->done >= at) return true;
  auto it = s->behind.find(stream->number);
  return it != s->behind.end() && it->second >= at;
}

/// Whether of two cooperative launches of a graph one always comes before the other. Nodes come after their edges' beginnings.
bool cooperative_ones_are_ordered(const std::vector<CUgraph_st::Node>& nodes) {
  std::vector<std::vector<char>> before(nodes.size());
  std::vector<size_t> seen;
  for (size_t i = 0; i < nodes.size(); i++) {
    before[i].resize(i + 1);
    before[i][i] = 1;
    for (size_t a : nodes[i].after)
      for (size_t k = 0; k <= a; k++) before[i][k] |= before[a][k];
    if (!nodes[i].cooperative) continue;
    for (size_t c : seen)
      if (!before[i][c]) return false;
    seen.push_back(i);
  }
  return true;
}

/// Positions of the nodes in an order that their edges allow.
std::vector<size_t> random_order(const std::vector<CUgraph_st::Node>& nodes) {
  static std::atomic<uint64_t> launches{0};
  const char* seed = std::getenv("DAGRT_EMULATOR_SEED");
  std::mt19937_64 random((seed ? std::strtoull(seed, nullptr, 10) : 1) * 1000003 + launches++);
  std::vector<std::vector<size_t>> before(nodes.size());
  std::vector<size_t> left, ready, order;
  for (size_t i = 0; i < nodes.size(); i++) {
    left.push_back(nodes[i].after.size());
    if (nodes[i].after.empty()) ready.push_back(i);
    for (size_t a : nodes[i].after) before[a].push_back(i);
  }
  while (!ready.empty()) {
    std::swap(ready[random() % ready.size()], ready.back());
    const size_t i = ready.back();
    ready.pop_back();
    order.push_back(i);
    for (size_t b : before[i])
      if (--left[b] == 0) ready.push_back(b);
  }
  return order;
}

// Device memory is one range of addresses, so that an address tells at once whether it is the device's. Nothing is used twice:
// what was freed cannot be touched.
constexpr size_t guard = 4096, range_bytes = emulator::device_range_bytes;
std::mutex allocations_mutex;
struct Allocation {
  char* base;    // its first page
  size_t pages;  // bytes, with the guard behind
  int device;
};
std::map<void*, Allocation> allocations;
std::map<int, size_t> allocated;  // of each device, with the pages
char* const range = [] {
  void* p = mmap(nullptr, range_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? nullptr : static_cast<char*>(p);
}();
size_t range_used = 0;

std::map<char*, size_t> pinned_memory;  // the host's, from and to which copies are late both ways

bool pinned(const void* at) {
  std::lock_guard<std::mutex> lock(allocations_mutex);
  char* p = const_cast<char*>(static_cast<const char*>(at));
  auto it = pinned_memory.upper_bound(p);
  return it != pinned_memory.begin() && p < std::prev(it)->first + std::prev(it)->second;
}

// A block has 48 KB of shared memory, static and dynamic together, unless the kernel was given more; which static memory a kernel
// has shows when a block of it has run.
constexpr size_t unasked = 48 << 10;
struct Function {
  size_t static_bytes = 0, dynamic_allowed = unasked;
  bool asked = false;
};
std::mutex functions_mutex;
std::map<std::pair<const void*, int>, Function> functions;  // of each device

size_t memory() {  // the device's, in bytes
  const char* e = std::getenv("DAGRT_EMULATOR_MEMORY");
  return e ? size_t(std::atoll(e)) : size_t(4) << 30;
}

}  // namespace

void emulator::poison_but([[maybe_unused]] const std::vector<Extent>& extents) {
#if defined(__SANITIZE_ADDRESS__)
  std::lock_guard<std::mutex> lock(allocations_mutex);
  for (const auto& [begin, a] : allocations) {
    if (extents.empty())
      ASAN_UNPOISON_MEMORY_REGION(a.base, a.pages - guard);
    else
      ASAN_POISON_MEMORY_REGION(a.base, a.pages - guard);
  }
  for (const Extent& e : extents)
    if (e.bytes) ASAN_UNPOISON_MEMORY_REGION(e.begin, e.bytes);
#endif
}

int emulator::capability() {
  static const int it = [] {
    const char* e = std::getenv("DAGRT_EMULATOR_CAPABILITY");
    return e ? std::atoi(e) : 80;
  }();
  return it;
}
size_t emulator::shared_limit() {
  const int c = capability();
  return size_t(c < 80 ? 64 : c == 80 ? 163 : c < 90 || c >= 120 ? 99 : 227) << 10;
}

namespace {
std::vector<emulator::Extent>& variables() {
  static std::vector<emulator::Extent> all;  // of static objects' making
  return all;
}
}  // namespace
bool emulator::know_variable(const void* p, size_t bytes) {
  variables().push_back({static_cast<const char*>(p), bytes});
  return true;
}
namespace {
const Allocation* allocation_of(const void* p, size_t bytes) {
  auto it = allocations.upper_bound(const_cast<void*>(p));
  if (it == allocations.begin()) return nullptr;
  const Allocation& a = std::prev(it)->second;
  return static_cast<const char*>(p) + bytes <= a.base + (a.pages - guard) ? &a : nullptr;
}
}  // namespace
bool emulator::exists(const void* p, size_t bytes) {
  const auto* at = static_cast<const char*>(p);
  for (const Extent& e : variables())
    if (at >= e.begin && at + bytes <= e.begin + e.bytes) return true;
  std::lock_guard<std::mutex> lock(allocations_mutex);
  return allocation_of(p, bytes);
}

char* emulator::device_range() { return range; }
bool emulator::in_device_memory(uintptr_t at) { return at - reinterpret_cast<uintptr_t>(range) < range_bytes; }

namespace {
cudaError_t state() { return lost ? told(cudaErrorIllegalAddress) : cudaSuccess; }

/// How many blocks a multiprocessor has room for, as far as threads and shared memory decide; registers are nvcc's to count.
size_t blocks_at_once(size_t threads, size_t shared) {
  const int c = emulator::capability();
  const size_t most_threads = c == 75 ? 1024 : c == 86 || c == 87 || c == 89 || c >= 120 ? 1536 : 2048;
  const size_t most_blocks = c == 75 || c == 86 || c == 87 ? 16 : c == 89 || c >= 120 ? 24 : 32;
  const size_t of_block = c < 80 ? 0 : 1024;  // beside its own
  const size_t warps = (threads + 31) / 32 * 32, all = emulator::shared_limit() + of_block;
  return std::min({most_blocks, most_threads / warps, all / std::max<size_t>(shared + of_block, 1)});
}
size_t multiprocessors() {
  const char* all = std::getenv("DAGRT_EMULATOR_MULTIPROCESSORS");
  return all ? size_t(std::atoi(all)) : 16;
}
}  // namespace

std::string emulator::no_room(const Launch& l, size_t static_bytes) {
  const size_t threads = size_t(l.block.x) * l.block.y * l.block.z, blocks = size_t(l.grid.x) * l.grid.y * l.grid.z;
  const size_t room = multiprocessors() * blocks_at_once(threads, l.shared_bytes + static_bytes);
  if (!l.cooperative || blocks <= room) return "";
  return "a cooperative launch of " + std::to_string(blocks) + " blocks, of which the device runs " + std::to_string(room) + " at once";
}

cudaError_t emulator::launch(cudaStream_t s, Launch l) {
  if (!s) return no_stream();
  if (s->device != current) return told(cudaErrorInvalidResourceHandle);
  if (l.grid.x == 0 || l.grid.y == 0 || l.grid.z == 0 || l.block.x == 0 || l.block.y == 0 || l.block.z == 0) return told(cudaErrorInvalidConfiguration);
  if (l.grid.x > INT32_MAX || l.grid.y > 65535 || l.grid.z > 65535 || l.block.x > 1024 || l.block.y > 1024 || l.block.z > 64 ||
      size_t(l.block.x) * l.block.y * l.block.z > 1024)
    return told(cudaErrorInvalidConfiguration);
  {
    std::lock_guard<std::mutex> lock(functions_mutex);
    const Function& f = functions[{l.function, current}];
    if (l.shared_bytes > f.dynamic_allowed) return told(cudaErrorInvalidValue);
    l.shared_allowed = f.asked ? shared_limit() : unasked;
    l.device = current;
    if (!no_room(l, f.static_bytes).empty()) return told(cudaErrorCooperativeLaunchTooLarge);
  }
  bool foreign = false;
  {
    std::lock_guard<std::mutex> lock(allocations_mutex);
    for (const Extent& e : l.extents) {
      const Allocation* a = e.bytes ? allocation_of(e.begin, e.bytes) : nullptr;
      foreign |= a && a->device != current;
    }
  }
  const bool cooperative = l.cooperative;
  Lock lock(streams_mutex);
  if (cooperative && !s->capturing && !cooperative_ones_are_ordered(s)) return told(cudaErrorCooperativeLaunchTooLarge);
  give(
      s,
      [l = std::move(l), foreign] {
        if (foreign) return emulator::report(std::string(l.name) + ": has an operand in another device's memory");
        emulator::run(l);
      },
      cooperative);
  if (cooperative && !s->capturing) last_cooperative[s->device] = {s->self, s->given};
  if (!s->capturing) note("kernel", {int(s->number)});
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* n) {
  *n = devices();
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  *p = {};
  p->major = emulator::capability() / 10;
  p->minor = emulator::capability() % 10;
  p->multiProcessorCount = int(multiprocessors());
  p->sharedMemPerBlockOptin = emulator::shared_limit();
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = current;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= devices()) return told(cudaErrorInvalidDevice);
  current = device;
  note("choose", {-1, -1, -1, size_t(device)});
  return state();
}
cudaError_t cudaGetLastError() {
  const cudaError_t e = std::exchange(last_error, cudaSuccess);
  return lost ? cudaErrorIllegalAddress : e;
}
const char* cudaGetErrorString(cudaError_t e) {
  if (e == cudaErrorUnknown) return fault.c_str();
  if (e == cudaErrorIllegalAddress) return emulator::illegal_access;
  return e == cudaErrorInvalidConfiguration ? "invalid configuration"
         : e == cudaErrorInvalidValue       ? "invalid argument"
         : e == cudaErrorMemoryAllocation   ? "out of memory"
         : e == cudaErrorCooperativeLaunchTooLarge ? "cooperative launches whose blocks may find no room at the same time"
         : e == cudaErrorInvalidResourceHandle    ? "a stream of another device, or none"
         : e == cudaErrorCapturedEvent            ? "an event of a capture"
         : e == cudaErrorStreamCaptureUnsupported ? "not while a stream is captured"
         : e == cudaErrorStreamCaptureInvalidated ? "a call spoilt the capture"
         : e == cudaErrorStreamCaptureUnjoined ? "a stream of the capture was not joined"
                                               : "an error";
}
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute which, int bytes) {
  std::lock_guard<std::mutex> lock(functions_mutex);
  Function& f = functions[{function, current}];
  if (which != cudaFuncAttributeMaxDynamicSharedMemorySize || bytes < 0 || f.static_bytes + size_t(bytes) > emulator::shared_limit())
    return cudaErrorInvalidValue;
  f.dynamic_allowed = size_t(bytes), f.asked = true;
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, const void* function) {
  std::lock_guard<std::mutex> lock(functions_mutex);
  const Function& f = functions[{function, current}];
  *a = {};
  a->sharedSizeBytes = f.static_bytes;
  a->maxDynamicSharedSizeBytes = int(f.dynamic_allowed);
  return state();
}
void emulator::note_static_shared(const Launch& l, size_t bytes) {
  std::lock_guard<std::mutex> lock(functions_mutex);
  Function& f = functions[{l.function, l.device}];
  f.static_bytes = std::max(f.static_bytes, bytes);
}

/// Right-aligned against a page that cannot be touched, but for 256 bytes' alignment; poisoned.
cudaError_t cudaMalloc(void** p, size_t bytes) {
  if (lost) return state();
  if (cudaError_t e = in_no_capture()) return e;
  size_t body = (bytes + guard - 1) / guard * guard, all = body + guard;
  std::lock_guard<std::mutex> lock(allocations_mutex);
  if (allocated[current] + all > memory()) return told(cudaErrorMemoryAllocation);
  if (!range || range_used + all > range_bytes) return cudaErrorMemoryAllocation;
  char* base = range + range_used;
  if (mprotect(base, body, PROT_READ | PROT_WRITE)) return cudaErrorMemoryAllocation;
  range_used += all;
  std::memset(base, emulator::sample_size() ? 0 : 0xFF,
              body);  // of a sample's values none is looked at, but indices must point somewhere
  *p = base + (body - bytes) / 256 * 256;
  allocations[*p] = {base, all, current};
  allocated[current] += all;
  return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  if (cudaError_t e = in_no_capture()) return e;
  if (!p || lost) return state();
  std::lock_guard<std::mutex> lock(allocations_mutex);
  auto it = allocations.find(p);
  if (it == allocations.end()) return cudaErrorInvalidValue;
  const auto [base, all, device] = it->second;
  mmap(base, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  allocated[device] -= all;
  allocations.erase(it);
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* left, size_t* all) {
  std::lock_guard<std::mutex> lock(allocations_mutex);
  *all = memory();
  *left = *all - std::min(*all, allocated[current]);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t s) {
  if (!s) return no_stream();
  if (fails("copy")) return told(cudaErrorMemoryAllocation);
  const bool out = emulator::in_device_memory(reinterpret_cast<uintptr_t>(from));
  const bool in = emulator::in_device_memory(reinterpret_cast<uintptr_t>(to));
  if (!s->capturing) note(in && out ? "copy" : in ? "copy in" : "copy out", {int(s->number), -1, -1, bytes});
  if (!out && !pinned(from)) {
    const char* p = static_cast<const char*>(from);
    give(s, [to, held = std::vector<char>(p, p + bytes)] { copy_now(to, held.data(), held.size()); });
  } else {
    give(s, [=] { copy_now(to, from, bytes); });
  }
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** p, size_t bytes) {
  if (cudaError_t e = in_no_capture()) return e;
  *p = std::malloc(bytes ? bytes : 1);
  std::lock_guard<std::mutex> lock(allocations_mutex);
  pinned_memory[static_cast<char*>(*p)] = bytes;
  return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFreeHost(void* p) {
  if (cudaError_t e = in_no_capture()) return e;
  std::lock_guard<std::mutex> lock(allocations_mutex);
  if (!pinned_memory.erase(static_cast<char*>(p))) return cudaErrorInvalidValue;
  std::free(p);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) {
  static std::atomic<uint64_t> streams{0};
  auto made = std::shared_ptr<CUstream_st>(new CUstream_st(streams++, current));
  *s = (made->self = made).get();
  return cudaSuccess;
}
/// Does one piece of the stream's work.
cudaError_t cudaStreamQuery(cudaStream_t s) {
  Lock lock(streams_mutex);
  if (!s) return no_stream();
  if (cudaError_t e = in_no_capture_of(s)) return e;
  if (s->work.empty()) {
    note("host waits", {int(s->number)});
    return s->failed;
  }
  advance(s, s->done + 1);
  return told(cudaErrorNotReady);
}
cudaError_t cudaStreamSynchronize(cudaStream_t s) {
  if (!s) return no_stream();
  if (cudaError_t e = in_no_capture_of(s)) return e;
  note("host waits", {int(s->number)});
  advance(s, s->given);  // which only its own thread gives it
  Lock lock(streams_mutex);
  const cudaError_t e = std::exchange(s->failed, cudaSuccess);
  return lost ? state() : e;
}
cudaError_t cudaStreamDestroy(cudaStream_t s) {
  cudaStreamSynchronize(s);
  Lock lock(streams_mutex);
  auto last = std::move(s->self);
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned flags) {
  if (captures && fails("event")) return told(cudaErrorMemoryAllocation);
  static std::atomic<int> events{0};
  *e = new CUevent_st;
  (*e)->number = events++;
  (*e)->timed = !(flags & cudaEventDisableTiming);
  return cudaSuccess;
}
/// Between the moments in which their streams came to them.
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to) {
  for (cudaEvent_t e : {from, to})
    if (cudaError_t error = in_no_capture_of(e)) return error;
  if (!from->timed || !to->timed) return told(cudaErrorInvalidResourceHandle);
  *ms = std::chrono::duration<float, std::milli>(to->when - from->when).count();
  return state();
}
cudaError_t cudaEventDestroy(cudaEvent_t e) {
  delete e;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
  Lock lock(streams_mutex);
  if (!s) return no_stream();
  if (e->timed && !s->capturing) give(s, [e] { e->when = std::chrono::steady_clock::now(); });
  e->stream = s->self, e->at = s->given, e->graph = s->capturing, e->nodes = s->last;
  e->open = s->capturing ? s->capturing->open : nullptr;
  e->behind = s->behind;
  e->behind[s->number] = s->given;
  if (!s->capturing) note("record", {int(s->number), e->number});
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
  Lock lock(streams_mutex);
  if (!s) return no_stream();
  if (e->graph) {
    if (!*e->open) return told(cudaErrorCapturedEvent);
    if (s->capturing && s->capturing != e->graph) {
      s->capturing->spoilt = e->graph->spoilt = true;
      return told(cudaErrorStreamCaptureMerge);
    }
    if (!s->capturing) {
      s->capturing = e->graph;
      s->last.clear();
      e->graph->streams.push_back(s);
    }
    for (size_t n : e->nodes)
      if (std::find(s->last.begin(), s->last.end(), n) == s->last.end()) s->last.push_back(n);
    return cudaSuccess;
  }
  if (s->capturing) {
    s->capturing->spoilt = true;
    return told(cudaErrorStreamCaptureIsolation);
  }
  if (!e->stream) return cudaSuccess;
  note("wait", {int(s->number), e->number});
  give(s, [s, from = e->stream, at = e->at] {
    advance(from.get(), at);
    if (from->failed != cudaSuccess) s->failed = from->failed;
  });
  for (const auto& [stream, at] : e->behind) s->behind[stream] = std::max(s->behind[stream], at);
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t e) {
  Lock lock(streams_mutex);
  if (cudaError_t error = in_no_capture_of(e)) return error;
  if (!e->stream || e->stream->done >= e->at) {
    note("host waits", {-1, e->number});
    return e->stream ? e->stream->failed : cudaSuccess;
  }
  advance(e->stream.get(), e->stream->done + 1);
  return told(cudaErrorNotReady);
}
cudaError_t cudaEventSynchronize(cudaEvent_t e) {
  if (cudaError_t error = in_no_capture_of(e)) return error;
  note("host waits", {-1, e->number});
  if (!e->stream) return cudaSuccess;
  advance(e->stream.get(), e->at);
  Lock lock(streams_mutex);
  return e->stream->failed;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode) {
  if (!s) return told(cudaErrorStreamCaptureUnsupported);
  if (s->capturing) return told(cudaErrorIllegalState);
  captures++;
  spoilt = false;
  s->capturing = new CUgraph_st;
  s->capturing->streams = {s};
  s->last.clear();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t* g) {
  CUgraph_st* graph = s->capturing;
  if (!graph) return told(cudaErrorIllegalState);
  if (graph->streams[0] != s) return told(cudaErrorStreamCaptureUnmatched);
  captures--;
  *graph->open = false;
  spoilt |= graph->spoilt;
  std::vector<char> joined(graph->nodes.size(), 0);
  for (size_t n : s->last) joined[n] = 1;
  for (const CUgraph_st::Node& n : graph->nodes)
    for (size_t a : n.after) joined[a] = 1;
  for (cudaStream_t drawn : graph->streams) drawn->capturing = nullptr;
  *g = graph;
  const bool all = std::find(joined.begin(), joined.end(), 0) == joined.end();
  if (all && !spoilt) return cudaSuccess;
  delete graph;
  *g = nullptr;
  return told(spoilt ? cudaErrorStreamCaptureInvalidated : cudaErrorStreamCaptureUnjoined);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* e, cudaGraph_t g, unsigned long long) {
  if (!cooperative_ones_are_ordered(g->nodes)) return cudaErrorCooperativeLaunchTooLarge;
  if (fails("graph")) return told(cudaErrorMemoryAllocation);
  static std::atomic<int> graphs{0};
  *e = new CUgraphExec_st{g->nodes, graphs++};
  note("instantiate", {-1, -1, (*e)->number, g->nodes.size()});
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
  if (!s) return no_stream();
  if (fails("launch")) return told(cudaErrorMemoryAllocation);
  if (cudaError_t error = in_no_capture_of(s)) return error;
  Lock lock(streams_mutex);
  const bool cooperative = std::any_of(e->nodes.begin(), e->nodes.end(), [](const auto& n) { return n.cooperative; });
  if (cooperative && !cooperative_ones_are_ordered(s)) return cudaErrorCooperativeLaunchTooLarge;
  note("graph", {int(s->number), -1, e->number, e->nodes.size()});
  for (size_t i : random_order(e->nodes)) give(s, e->nodes[i].work);
  if (cooperative) last_cooperative[s->device] = {s->self, s->given};
  return state();
}
