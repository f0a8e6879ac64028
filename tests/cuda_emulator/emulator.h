// What a kernel sees of the GPU, on the host: indices, barriers, warp operations, atomics, shared memory, launches.
//
// Launches run one at a time, the blocks of each on several OS threads. A block's threads are fibers of one of them, run in random
// order (DAGRT_EMULATOR_SEED) from barrier to barrier. A blocked thread says where: default arguments carry the file and line of
// the caller. See README.md for what is found and what is not.
#pragma once
#include <cuda_runtime_api.h>
#include <math.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

// Of an OS thread; a fiber stays with the one it began on.
#define DAGRT_OF_OS_THREAD __thread __attribute__((tls_model("initial-exec")))
extern DAGRT_OF_OS_THREAD uint3 threadIdx, blockIdx;
extern uint3 blockDim, gridDim;

namespace emulator {

#define DAGRT_WHERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

constexpr size_t shared_capacity = 227 << 10;
int capability();       // of the device: DAGRT_EMULATOR_CAPABILITY, or 80
size_t shared_limit();  // of its shared memory, for one block

/// The thread that runs now, for what happens at every access.
struct Here {
  bool running = false;  // a kernel's own code, not the emulator's
  bool cooperative = false;
  bool sampled = false;  // only some blocks of the launch run: values mean nothing
  bool partial = false;  // some warp operation of the launch was not of all that the warp has
  unsigned block = 0, thread = 0;
  const unsigned *epoch = nullptr, *clock = nullptr;
  uint64_t* way = nullptr;  // that it has gone since its warp met last
  unsigned* fences = nullptr;
  uintptr_t shared = 0;
};
extern DAGRT_OF_OS_THREAD Here here;
extern void (*note_atomic)(const void* where, size_t bytes, void* at);  // set by race.cpp
extern void (*note_fence)();

/// All lanes of the mask come here, but those that have left the kernel; the last one runs `join` over what they brought, null
/// for lanes that take no part.
void together(unsigned mask, void* data, void (*join)(void** lanes), const char* file, int line);
/// For what only a whole warp may do: 32 lanes, none of which has left.
void all_together(void* data, void (*join)(void** lanes), const char* file, int line);
bool barrier(bool value, const char* file, int line);  // true where any thread's value is
void fence();
void yield(const char* file, int line);  // of a thread that waits for something to change
bool skips_grid_wait();  // planted faults
bool passes_by(const char* file, int line);
bool swaps_fragments();
void* shared_bytes(const void* key, size_t bytes, DAGRT_WHERE);
void* dynamic_bytes();
bool know_variable(const void* p, size_t bytes);  // of the device's memory, as a kernel's file declares it
bool exists(const void* p, size_t bytes);         // in device memory
[[noreturn]] void stop_thread(const std::string& what, const char* file, int line);

// Asynchronous copies arrive at the matching wait; until then the destination holds NaN bits.
// Not `real`: of zeros; the source is not read, but must exist.
void copy_later(void* dst, const void* src, size_t bytes, bool real, const char* file, int line);
void commit_copies();
void wait_copies(int left);

struct Extent {  // of memory
  const char* begin;
  size_t bytes;
};

struct Rows {  // of memory, `step` bytes apart
  char* begin;
  size_t bytes, count, step;
};

struct Launch {
  const char* name;
  uint3 grid, block;
  size_t shared_bytes;
  bool cooperative;
  std::function<void()> body;
  std::vector<Extent> extents;  // of device memory, which it may touch; none: all
  std::vector<Rows> unmade;     // what it, or who comes after it, must write before it is read, though something stands there
  const void* function = nullptr;  // the kernel
  size_t shared_allowed = 0;       // to one block, static and dynamic
  int device = 0;
};
extern thread_local const char* kernel_name;  // of the next launch
extern thread_local std::vector<Extent> extents;
extern thread_local std::vector<Rows> unmade;
cudaError_t launch(cudaStream_t stream, Launch launch);
void run(const Launch& launch);  // what a stream does when it comes to it
void note_static_shared(const Launch& launch, size_t bytes);  // what its blocks have been seen to have
std::string no_room(const Launch& launch, size_t static_bytes);  // why a cooperative launch's blocks do not all run at once, or ""
void report(const std::string& fault);
inline constexpr const char* illegal_access = "an illegal memory access was encountered";  // such a report ends the context
uint64_t sample_size();  // DAGRT_EMULATOR_BLOCKS: about so many blocks of each launch run, and values mean nothing; 0: all

template <class T> struct Shuffle {
  T in, out;
  int from;
  bool missing;
};
template <class T> T shuffle(unsigned mask, T v, int from, const char* file, int line) {
  Shuffle<T> mine{v, v, from, false};
  together(
      mask, &mine,
      [](void** lanes) {
        for (int i = 0; i < 32; i++) {
          auto* l = static_cast<Shuffle<T>*>(lanes[i]);
          if (!l) continue;
          if (auto* source = static_cast<const Shuffle<T>*>(lanes[l->from]))
            l->out = source->in;
          else
            l->missing = true;
        }
      },
      file, line);
  if (mine.missing) stop_thread("reads lane " + std::to_string(from) + ", which takes no part in the shuffle", file, line);
  return mine.out;
}

}  // namespace emulator

#define SHARED(T, name, dims)       \
  using name##_type = T dims;       \
  static const char name##_key = 0; \
  name##_type& name = *static_cast<name##_type*>(emulator::shared_bytes(&name##_key, sizeof(name##_type)))
template <class T> T* dynamic_shared() { return static_cast<T*>(emulator::dynamic_bytes()); }
#define ON_DEVICE(T, name) \
  T name;                  \
  [[maybe_unused]] static const bool name##_is_known = emulator::know_variable(&name, sizeof(T))

inline int emulator_lane() { return int((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32); }
inline void __syncthreads(DAGRT_WHERE) { emulator::barrier(false, file, line); }
inline int __syncthreads_or(int v, DAGRT_WHERE) { return emulator::barrier(v != 0, file, line); }
// Segments of `width` lanes, a power of two, shuffle each for itself; who would read beyond keeps its own value.
template <class T> T __shfl_sync(unsigned mask, T v, int from, int width = 32, DAGRT_WHERE) {
  return emulator::shuffle(mask, v, (emulator_lane() & -width) + (from & (width - 1)), file, line);
}
template <class T> T __shfl_xor_sync(unsigned mask, T v, int with, int width = 32, DAGRT_WHERE) {
  const int lane = emulator_lane(), from = lane ^ with;
  return emulator::shuffle(mask, v, from <= (lane | (width - 1)) ? from : lane, file, line);
}
template <class T> T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32, DAGRT_WHERE) {
  const int lane = emulator_lane(), from = lane + int(by);
  return emulator::shuffle(mask, v, from <= (lane | (width - 1)) ? from : lane, file, line);
}
template <class T> T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32, DAGRT_WHERE) {
  const int lane = emulator_lane(), from = lane - int(by);
  return emulator::shuffle(mask, v, from >= (lane & -width) ? from : lane, file, line);
}

namespace emulator {
/// op over the values of the mask's lanes, in their order, given to each.
template <class Op, class T> T fold(unsigned mask, T v, const char* file, int line) {
  struct Lane {
    T in, out;
  } mine{v, v};
  together(
      mask, &mine,
      [](void** lanes) {
        const Lane* first = nullptr;
        T all{};
        for (int i = 0; i < 32; i++)
          if (auto* l = static_cast<const Lane*>(lanes[i])) all = first ? Op()(all, l->in) : l->in, first = l;
        for (int i = 0; i < 32; i++)
          if (lanes[i]) static_cast<Lane*>(lanes[i])->out = all;
      },
      file, line);
  return mine.out;
}
struct Least {
  template <class T> T operator()(T a, T b) const { return b < a ? b : a; }
};
struct Greatest {
  template <class T> T operator()(T a, T b) const { return a < b ? b : a; }
};
}  // namespace emulator

inline unsigned __ballot_sync(unsigned mask, int v, DAGRT_WHERE) {
  return emulator::fold<std::bit_or<>>(mask, v ? 1u << emulator_lane() : 0u, file, line);
}
inline int __any_sync(unsigned mask, int v, DAGRT_WHERE) { return emulator::fold<std::bit_or<>>(mask, int(v != 0), file, line); }
inline int __all_sync(unsigned mask, int v, DAGRT_WHERE) { return emulator::fold<std::bit_and<>>(mask, int(v != 0), file, line); }
template <class T> T __reduce_add_sync(unsigned mask, T v, DAGRT_WHERE) {
  return emulator::fold<std::plus<>>(mask, v, file, line);
}
template <class T> T __reduce_min_sync(unsigned mask, T v, DAGRT_WHERE) {
  return emulator::fold<emulator::Least>(mask, v, file, line);
}
template <class T> T __reduce_max_sync(unsigned mask, T v, DAGRT_WHERE) {
  return emulator::fold<emulator::Greatest>(mask, v, file, line);
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned v, DAGRT_WHERE) {
  return emulator::fold<std::bit_and<>>(mask, v, file, line);
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned v, DAGRT_WHERE) {
  return emulator::fold<std::bit_or<>>(mask, v, file, line);
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned v, DAGRT_WHERE) {
  return emulator::fold<std::bit_xor<>>(mask, v, file, line);
}
inline void __syncwarp(unsigned mask = ~0u, DAGRT_WHERE) {
  if (!emulator::passes_by(file, line)) emulator::fold<std::bit_or<>>(mask, 0, file, line);
}

namespace emulator {
enum class Change { add, least, greatest, exchange, swap };
/// Blocks run side by side: what is atomic on a GPU is here. Its place is not watched as others are.
template <Change change, class T> __attribute__((noinline, no_sanitize("thread"))) T atomically(T* p, T v, T compare = T()) {
  T before, after;
  __atomic_load(p, &before, __ATOMIC_RELAXED);
  do {
    if constexpr (change == Change::add) after = T(before + v);
    if constexpr (change == Change::least) after = v < before ? v : before;
    if constexpr (change == Change::greatest) after = before < v ? v : before;
    if constexpr (change == Change::exchange) after = v;
    if constexpr (change == Change::swap) after = before == compare ? v : before;
  } while (!__atomic_compare_exchange(p, &before, &after, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
  if (note_atomic) note_atomic(p, sizeof *p, __builtin_return_address(0));
  return before;
}
}  // namespace emulator

template <class T> __forceinline__ T atomicAdd(T* p, T v) {
  const T before = emulator::atomically<emulator::Change::add>(p, v);
  return v == T(0) && emulator::skips_grid_wait() ? std::numeric_limits<T>::max() : before;
}
template <class T> __forceinline__ T atomicMin(T* p, T v) { return emulator::atomically<emulator::Change::least>(p, v); }
template <class T> __forceinline__ T atomicMax(T* p, T v) { return emulator::atomically<emulator::Change::greatest>(p, v); }
template <class T> __forceinline__ T atomicExch(T* p, T v) { return emulator::atomically<emulator::Change::exchange>(p, v); }
template <class T> __forceinline__ T atomicCAS(T* p, T compare, T v) { return emulator::atomically<emulator::Change::swap>(p, v, compare); }
inline void __threadfence() { emulator::fence(); }
template <class T> __forceinline__ T __ldcg(const T* p) { return *p; }

inline uint32_t __umulhi(uint32_t a, uint32_t b) { return uint32_t((uint64_t(a) * b) >> 32); }
inline float __uint_as_float(uint32_t u) {
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
inline uint32_t __float_as_uint(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  return u;
}
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }

template <class... P, class... A> cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* c, void (*kernel)(P...), A&&... args) {
  emulator::Launch l{emulator::kernel_name,
                     {c->gridDim.x, c->gridDim.y, c->gridDim.z},
                     {c->blockDim.x, c->blockDim.y, c->blockDim.z},
                     c->dynamicSmemBytes,
                     false,
                     nullptr,
                     std::exchange(emulator::extents, {}),
                     std::exchange(emulator::unmade, {})};
  for (unsigned i = 0; i < c->numAttrs; i++)
    if (c->attrs[i].id == cudaLaunchAttributeCooperative) l.cooperative = c->attrs[i].val.cooperative;
  l.function = reinterpret_cast<const void*>(kernel);
  l.body = [kernel, held = std::tuple<P...>(std::forward<A>(args)...)] { std::apply(kernel, held); };
  return emulator::launch(c->stream, std::move(l));
}
