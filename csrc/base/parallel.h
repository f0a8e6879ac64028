// The only threading that kernels see. `Stream` is what an op's `run` gets: how many threads it may use,
// their scratch memory, and `parallel`. Behind it stands OpenMP, in parallel.cpp alone.
//
// Determinism: how work is cut into units, and in what order partial sums are added, is a function of the
// shapes alone, never of the number of threads. Units may run in any order on any thread.
#pragma once
#include <cstddef>
#include <cstdint>

namespace dagrt {

struct Stream {
  int threads = 1;           // the caller and at most threads - 1 others
  char* scratch = nullptr;   // `threads` pieces of scratch_bytes, each 64-byte aligned
  size_t scratch_bytes = 0;  // bytes for each worker

  /// Runs f(unit, scratch) for every unit in [0, units). `unit_ns`: estimated cost of one unit, by which small
  /// jobs stay on the caller's thread and cheap units are claimed several at a time.
  /// f must not throw and must not call parallel again.
  template <class F> void parallel(int64_t units, double unit_ns, const F& f) const {
    run(units, unit_ns, [](const void* g, int64_t unit, char* s) { (*static_cast<const F*>(g))(unit, s); }, &f);
  }

  void run(int64_t units, double unit_ns, void (*call)(const void* f, int64_t unit, char* scratch), const void* f) const;
};

/// Threads a stream may use by default: DAGRT_NUM_THREADS, else omp_get_max_threads(), cut to affinity and quota.
int default_threads();
/// Sets it for the process (1 to 1024); 0 restores the default.
void set_default_threads(int threads);

/// Flushes denormals to zero on this thread while it lives, restoring the caller's mode.
class FlushDenormals {
 public:
  FlushDenormals();
  ~FlushDenormals();

 private:
  unsigned saved_;
};

}  // namespace dagrt
