#include "base/parallel.h"

#include <pthread.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "base/pool.h"

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace dagrt {
namespace {

// Cheap units are claimed several at a time.
constexpr double claim_ns = 2'000;

#if defined(_OPENMP)
// OpenMP's threads do not survive fork: a child runs on its own thread alone.
std::atomic<bool> forked{false};
[[maybe_unused]] const int at_fork = pthread_atfork(nullptr, nullptr, [] { forked = true; });

bool initially_openmp() {
  const char* e = std::getenv("DAGRT_THREADS");
  return e && !std::strcmp(e, "openmp");
}
std::atomic<bool> openmp{initially_openmp()};

void run_openmp(const pool::Job& job) {
  std::atomic<int64_t> next{0};
#pragma omp parallel num_threads(job.threads)
  {
    FlushDenormals flush;
    char* mine = job.scratch ? job.scratch + size_t(omp_get_thread_num()) * job.scratch_bytes : nullptr;
    for (;;) {
      int64_t begin = next.fetch_add(job.claim, std::memory_order_relaxed);
      if (begin >= job.units) break;
      int64_t end = begin + job.claim < job.units ? begin + job.claim : job.units;
      for (int64_t u = begin; u < end; u++) job.unit(job.f, u, mine);
    }
  }
}

void gang_openmp(const pool::Job& job) {  // all threads of a region run
#pragma omp parallel num_threads(int(job.units))
  {
    FlushDenormals flush;
    int me = omp_get_thread_num();
    job.part(job.f, me, omp_get_num_threads(), job.scratch ? job.scratch + size_t(me) * job.scratch_bytes : nullptr);
  }
}
#endif

}  // namespace

const char* thread_backend() {
#if defined(_OPENMP)
  if (openmp.load(std::memory_order_relaxed)) return "openmp";
#endif
  return "pool";
}

void choose_thread_backend(const char* name) {
  bool wants_openmp = !std::strcmp(name, "openmp");
  if (!wants_openmp && std::strcmp(name, "pool"))
    fail(ErrorKind::device, "DAGRT_THREADS: expected 'pool' or 'openmp', got '", name, "'");
#if defined(_OPENMP)
  openmp = wants_openmp;
#else
  if (wants_openmp) fail(ErrorKind::device, "DAGRT_THREADS: this build has no OpenMP; leave it out, or say 'pool'");
#endif
}

void rouse(int threads) {
#if defined(_OPENMP)
  if (openmp.load(std::memory_order_relaxed)) return;
#endif
  if (threads > 1) pool::rouse(threads);
}

void Stream::run(int64_t units, double unit_ns, void (*call)(const void*, int64_t, char*), const void* f) const {
  if (units <= 0) return;
  pool::Job job;
  job.ns = unit_ns * double(units);
  if (threads <= 1 || units <= 1 || job.ns < serial_ns) {
    for (int64_t u = 0; u < units; u++) call(f, u, scratch);
    return;
  }
  job.threads = int64_t(threads) > units ? int(units) : threads;
  if (job.threads > pool::most_threads) job.threads = pool::most_threads;
  job.claim = int64_t(claim_ns / (unit_ns > 1 ? unit_ns : 1));
  int64_t most = units / (4 * job.threads), least = units >> 19;
  if (job.claim > most) job.claim = most;
  if (job.claim < 1 + least) job.claim = 1 + least;
  job.unit = call;
  job.f = f;
  job.units = units;
  job.scratch = scratch;
  job.scratch_bytes = scratch_bytes;
#if defined(_OPENMP)
  if (openmp.load(std::memory_order_relaxed)) {
    if (!forked.load(std::memory_order_relaxed)) return run_openmp(job);
    for (int64_t u = 0; u < units; u++) call(f, u, scratch);
    return;
  }
#endif
  job.threads = threads > pool::most_threads ? pool::most_threads : threads;  // any of them may come, not only the first
  FlushDenormals flush;
  pool::run(job);
}

void Stream::together(int most, double ns, void (*call)(const void*, int, int, char*), const void* f) const {
  pool::Job job;
  job.threads = threads > pool::most_threads ? pool::most_threads : threads;
  job.units = most < job.threads ? most : job.threads;
  job.ns = ns;
  FlushDenormals flush;
  if (job.units <= 1 || ns < serial_ns) return call(f, 0, 1, scratch);
  job.part = call;
  job.f = f;
  job.scratch = scratch;
  job.scratch_bytes = scratch_bytes;
#if defined(_OPENMP)
  if (openmp.load(std::memory_order_relaxed))
    return forked.load(std::memory_order_relaxed) ? call(f, 0, 1, scratch) : gang_openmp(job);
#endif
  pool::gang(job);
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
