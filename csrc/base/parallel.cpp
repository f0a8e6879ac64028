#include "base/parallel.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace dagrt {
namespace {

// OpenMP's threads do not survive fork: a child runs on its own thread alone.
std::atomic<bool> forked{false};
[[maybe_unused]] const int at_fork = pthread_atfork(nullptr, nullptr, [] { forked = true; });

// Below this the hand-over to other threads costs more than it gives (0.5 us while they spin, far more asleep).
constexpr double serial_ns = 10'000;
// Cheap units are claimed several at a time.
constexpr double claim_ns = 2'000;

int quota_threads() {
  long quota = -1, period = 100000;
  if (FILE* f = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
    if (std::fscanf(f, "%ld %ld", &quota, &period) != 2) quota = -1;
    std::fclose(f);
  }
  return quota > 0 && period > 0 ? int((quota + period - 1) / period) : 1 << 20;
}

int initial_threads() {
  int n = 1;
#if defined(_OPENMP)
  n = omp_get_max_threads();
#endif
  if (const char* e = std::getenv("DAGRT_NUM_THREADS")) {
    int wanted = std::atoi(e);
    if (wanted > 0) n = wanted;
  }
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) < n) n = CPU_COUNT(&set);
  int quota = quota_threads();
  if (quota < n) n = quota;
  return n < 1 ? 1 : n > 1024 ? 1024 : n;
}

std::atomic<int> threads_set{0};

}  // namespace

int default_threads() {
  static const int initial = initial_threads();
  int n = threads_set.load(std::memory_order_relaxed);
  return n > 0 ? n : initial;
}

void set_default_threads(int threads) { threads_set = threads < 0 ? 0 : threads > 1024 ? 1024 : threads; }

void Stream::run(int64_t units, double unit_ns, void (*call)(const void*, int64_t, char*), const void* f) const {
  if (units <= 0) return;
  int workers = threads;
  if (int64_t(workers) > units) workers = int(units);
  if (workers <= 1 || unit_ns * double(units) < serial_ns || forked.load(std::memory_order_relaxed)) {
    for (int64_t u = 0; u < units; u++) call(f, u, scratch);
    return;
  }
#if defined(_OPENMP)
  int64_t claim = int64_t(claim_ns / (unit_ns > 1 ? unit_ns : 1));
  int64_t most = units / (4 * workers);
  if (claim > most) claim = most;
  if (claim < 1) claim = 1;
  std::atomic<int64_t> next{0};
#pragma omp parallel num_threads(workers)
  {
    FlushDenormals flush;
    char* mine = scratch ? scratch + size_t(omp_get_thread_num()) * scratch_bytes : nullptr;
    for (;;) {
      int64_t begin = next.fetch_add(claim, std::memory_order_relaxed);
      if (begin >= units) break;
      int64_t end = begin + claim < units ? begin + claim : units;
      for (int64_t u = begin; u < end; u++) call(f, u, mine);
    }
  }
#else
  for (int64_t u = 0; u < units; u++) call(f, u, scratch);
#endif
}

#if defined(__SSE__)
FlushDenormals::FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }  // FTZ and DAZ
FlushDenormals::~FlushDenormals() { _mm_setcsr(saved_); }
#elif defined(__aarch64__)
FlushDenormals::FlushDenormals() {
  uint64_t fpcr;
  __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
  saved_ = unsigned(fpcr);
  __asm__ volatile("msr fpcr, %0" ::"r"(fpcr | (1ull << 24)));
}
FlushDenormals::~FlushDenormals() { __asm__ volatile("msr fpcr, %0" ::"r"(uint64_t(saved_))); }
#else
FlushDenormals::FlushDenormals() : saved_(0) {}
FlushDenormals::~FlushDenormals() {}
#endif

}  // namespace dagrt
