// The only threading that kernels see. `Stream` is what an op's `run` gets: how many threads it may use, their scratch
// memory, `parallel` and `gang`. Behind it stands a pool of our own (pool.h) or OpenMP, chosen by DAGRT_THREADS.
//
// Determinism: how work is cut into units, and in what order partial sums are added, is a function of the
// shapes alone, never of the number of threads. Units may run in any order on any thread.
#pragma once
#include <cstddef>
#include <cstdint>

namespace dagrt {

struct CudaStream;  // base/cuda_stream.h

/// Less work stays on the caller's thread: to hand it over costs more than it gives (handing_ns while threads spin, far more asleep).
inline constexpr double serial_ns = 10'000, handing_ns = 300;

struct Stream {
  int threads = 1;             // the caller and at most threads - 1 others
  char* scratch = nullptr;     // `threads` pieces of scratch_bytes, each 64-byte aligned
  size_t scratch_bytes = 0;    // bytes for each thread
  CudaStream* cuda = nullptr;  // set: kernels go to that stream of a CUDA device, and the fields above mean nothing

  /// Runs f(unit, scratch) for every unit in [0, units). `unit_ns`: estimated cost of one unit, by which small
  /// jobs stay on the caller's thread and cheap units are claimed several at a time.
  /// f must not throw and must not call parallel or gang again.
  template <class F> void parallel(int64_t units, double unit_ns, const F& f) const {
    run(units, unit_ns, [](const void* g, int64_t unit, char* s) { (*static_cast<const F*>(g))(unit, s); }, &f);
  }

  /// Runs f(part, parts, scratch) for every part in [0, parts), all at once on threads of their own, so that parts may
  /// wait for one another (await, announce). `parts` is at most `most` and is known only inside: those threads take part
  /// that came within a bound, at least the caller (part 0), so that no part waits for a thread that is not there.
  /// `ns`: estimated cost on one thread. The result must not depend on `parts`. f must not throw, nor call
  /// parallel or gang.
  template <class F> void gang(int most, double ns, const F& f) const {
    together(most, ns, [](const void* g, int part, int parts, char* s) { (*static_cast<const F*>(g))(part, parts, s); }, &f);
  }

  void run(int64_t units, double unit_ns, void (*call)(const void* f, int64_t unit, char* scratch), const void* f) const;
  void together(int most, double ns, void (*call)(const void* f, int part, int parts, char* scratch), const void* f) const;
};

/// Between parts of a gang: `announce` publishes all that this part has written, under a number that only grows;
/// `await` returns once that number has been reached, and then sees it all. Flags of different parts belong on
/// different cache lines (64 bytes).
void announce(uint32_t* flag, uint32_t number);
void await(const uint32_t* flag, uint32_t number);

/// Threads a stream may use by default: DAGRT_NUM_THREADS, else OMP_NUM_THREADS, else the processors; cut to affinity
/// and the cgroup's quota, and to what threadpoolctl or omp_set_num_threads have set since.
int default_threads();
/// Sets it for the process (1 to 512); 0 restores the default.
void set_default_threads(int threads);

/// Wakes threads that sleep, so that they are there when a run's first step wants them.
void rouse(int threads);

/// "pool" or "openmp". The environment's DAGRT_THREADS, else the pool. DeviceError for another name, or for OpenMP in a
/// build without it.
const char* thread_backend();
void choose_thread_backend(const char* name);

/// Flushes denormals to zero on this thread while it lives, restoring the caller's mode.
class FlushDenormals {
 public:
  FlushDenormals();
  ~FlushDenormals();

 private:
  unsigned saved_;
};

}  // namespace dagrt
