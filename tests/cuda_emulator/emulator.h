// What a kernel sees of the GPU, on the host: indices, barriers, warp operations, atomics, shared memory, launches.
//
// Launches run one at a time. A block's threads are fibers of one OS thread, run in random order (DAGRT_EMULATOR_SEED) from
// barrier to barrier. A blocked thread says where: default arguments carry the file and line of the caller. See README.md for
// what is found and what is not.
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

extern uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

#define DAGRT_WHERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

constexpr size_t shared_capacity = 227 << 10;

/// The thread that runs now, for what happens at every access.
struct Here {
  bool running = false;  // a kernel's own code, not the emulator's
  bool cooperative = false;
  bool sampled = false;  // only some blocks of the launch run: values mean nothing
  unsigned block = 0, thread = 0;
  const unsigned *epoch = nullptr, *clock = nullptr;
  unsigned* fences = nullptr;
  uintptr_t shared = 0;
};
extern Here here;
extern void (*note_atomic)(const void* where);  // set by race.cpp
extern void (*note_fence)();

struct Lane {  // of a warp operation: what the thread brings, and takes home
  void* data;
};
/// All lanes of the warp come here; the last one runs `join` over what they brought. Lanes that do not exist are null.
void together(void* data, void (*join)(void** lanes), const char* file, int line);
bool barrier(bool value, const char* file, int line);  // true where any thread's value is
void yield();
bool skips_grid_wait();  // planted faults
bool swaps_fragments();
void* shared_bytes(const void* key, size_t bytes);
void* dynamic_bytes();
[[noreturn]] void stop_thread(const char* what, const char* file, int line);

// Asynchronous copies arrive at the matching wait; until then the destination holds NaN bits.
void copy_later(void* dst, const void* src, size_t bytes);
void commit_copies();
void wait_copies(int left);

struct Extent {  // of memory
  const char* begin;
  size_t bytes;
};

struct Launch {
  const char* name;
  uint3 grid, block;
  size_t shared_bytes;
  bool cooperative;
  std::function<void()> body;
  std::vector<Extent> extents;  // of device memory, which it may touch; none: all
};
extern thread_local const char* kernel_name;  // of the next launch
extern thread_local std::vector<Extent> extents;
cudaError_t launch(cudaStream_t stream, Launch launch);
void run(const Launch& launch);  // what a stream does when it comes to it
void report(const std::string& fault);
inline constexpr const char* illegal_access = "an illegal memory access was encountered";  // such a report ends the context
uint64_t sample_size();  // DAGRT_EMULATOR_BLOCKS: about so many blocks of each launch run, and values mean nothing; 0: all

template <class T> struct Shuffle {
  T in, out;
  int from;
};
template <class T> T shuffle(T v, int from, const char* file, int line) {
  Shuffle<T> mine{v, v, from};
  together(
      &mine,
      [](void** lanes) {
        for (int i = 0; i < 32; i++) {
          auto* l = static_cast<Shuffle<T>*>(lanes[i]);
          if (l && l->from >= 0 && l->from < 32 && lanes[l->from]) l->out = static_cast<Shuffle<T>*>(lanes[l->from])->in;
        }
      },
      file, line);
  return mine.out;
}

}  // namespace emulator

#define SHARED(T, name, dims)       \
  using name##_type = T dims;       \
  static const char name##_key = 0; \
  name##_type& name = *static_cast<name##_type*>(emulator::shared_bytes(&name##_key, sizeof(name##_type)))
template <class T> T* dynamic_shared() { return static_cast<T*>(emulator::dynamic_bytes()); }

inline int emulator_lane() { return int((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32); }
inline void __syncthreads(DAGRT_WHERE) { emulator::barrier(false, file, line); }
inline int __syncthreads_or(int v, DAGRT_WHERE) { return emulator::barrier(v != 0, file, line); }
template <class T> T __shfl_xor_sync(unsigned, T v, int w, DAGRT_WHERE) {
  return emulator::shuffle(v, emulator_lane() ^ w, file, line);
}
template <class T> T __shfl_down_sync(unsigned, T v, int w, DAGRT_WHERE) {
  return emulator::shuffle(v, emulator_lane() + w, file, line);
}
template <class T> T __shfl_sync(unsigned, T v, int from, DAGRT_WHERE) { return emulator::shuffle(v, from, file, line); }

namespace emulator {
/// op over the values of a warp's lanes, in their order, given to each.
template <class Op, class T> T fold(T v, const char* file, int line) {
  struct Lane {
    T in, out;
  } mine{v, v};
  together(
      &mine,
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

inline unsigned __ballot_sync(unsigned, int v, DAGRT_WHERE) {
  return emulator::fold<std::bit_or<>>(v ? 1u << emulator_lane() : 0u, file, line);
}
inline int __any_sync(unsigned, int v, DAGRT_WHERE) { return emulator::fold<std::bit_or<>>(int(v != 0), file, line); }
inline int __all_sync(unsigned, int v, DAGRT_WHERE) { return emulator::fold<std::bit_and<>>(int(v != 0), file, line); }
template <class T> T __reduce_add_sync(unsigned, T v, DAGRT_WHERE) { return emulator::fold<std::plus<>>(v, file, line); }
template <class T> T __reduce_min_sync(unsigned, T v, DAGRT_WHERE) { return emulator::fold<emulator::Least>(v, file, line); }
template <class T> T __reduce_max_sync(unsigned, T v, DAGRT_WHERE) { return emulator::fold<emulator::Greatest>(v, file, line); }
inline unsigned __reduce_and_sync(unsigned, unsigned v, DAGRT_WHERE) { return emulator::fold<std::bit_and<>>(v, file, line); }
inline unsigned __reduce_or_sync(unsigned, unsigned v, DAGRT_WHERE) { return emulator::fold<std::bit_or<>>(v, file, line); }
inline unsigned __reduce_xor_sync(unsigned, unsigned v, DAGRT_WHERE) { return emulator::fold<std::bit_xor<>>(v, file, line); }
inline void __syncwarp(unsigned = ~0u, DAGRT_WHERE) { emulator::fold<std::bit_or<>>(0, file, line); }

// Blocks of one launch run one after another, or as fibers of one OS thread: plain operations are atomic.
#define DAGRT_UNWATCHED __attribute__((noinline, no_sanitize("thread")))
template <class T> DAGRT_UNWATCHED T atomicAdd(T* p, T v) {
  T before = *p;
  *p = T(before + v);
  if (emulator::note_atomic) emulator::note_atomic(p);
  return v == T(0) && emulator::skips_grid_wait() ? std::numeric_limits<T>::max() : before;
}
template <class T> DAGRT_UNWATCHED T atomicMin(T* p, T v) {
  T before = *p;
  if (v < before) *p = v;
  if (emulator::note_atomic) emulator::note_atomic(p);
  return before;
}
template <class T> DAGRT_UNWATCHED T atomicMax(T* p, T v) {
  T before = *p;
  if (before < v) *p = v;
  if (emulator::note_atomic) emulator::note_atomic(p);
  return before;
}
template <class T> DAGRT_UNWATCHED T atomicExch(T* p, T v) {
  T before = *p;
  *p = v;
  if (emulator::note_atomic) emulator::note_atomic(p);
  return before;
}
template <class T> DAGRT_UNWATCHED T atomicCAS(T* p, T compare, T v) {
  T before = *p;
  if (before == compare) *p = v;
  if (emulator::note_atomic) emulator::note_atomic(p);
  return before;
}
inline void __threadfence() {
  if (emulator::note_fence) emulator::note_fence();
}
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
                     std::exchange(emulator::extents, {})};
  for (unsigned i = 0; i < c->numAttrs; i++)
    if (c->attrs[i].id == cudaLaunchAttributeCooperative) l.cooperative = c->attrs[i].val.cooperative;
  l.body = [kernel, held = std::tuple<P...>(std::forward<A>(args)...)] { std::apply(kernel, held); };
  return emulator::launch(c->stream, std::move(l));
}
