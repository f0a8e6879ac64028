// What the kernel benchmarks share: time as the minimum of many repeats, and this core's multiply-add peak, measured in
// the same run, so that figures are shares of it. Build with -DDAGRT_BENCH=ON; run build/.../bench_lstm and so on.
#pragma once
#include <time.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "base/parallel.h"
#include "kernels/kernel.h"

namespace bench {

/// Nanoseconds of the fastest call; stops after `seconds`. Of the clock, not of the processor: a guest's processor time
/// jumps by what the host took, and the fastest of many calls would be the one that gained by it.
inline double best_ns(const std::function<void()>& f, double seconds = 0.3) {
  auto now = [&] {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return double(t.tv_sec) * 1e9 + double(t.tv_nsec);
  };
  double best = 1e30, all = 0;
  for (int i = 0; i < 3 || (all < seconds * 1e9 && i < 100000); i++) {
    double start = now();
    f();
    double ns = now() - start;
    all += ns;
    if (ns < best) best = ns;
  }
  return best;
}

/// Float32 multiply-adds of one thread, in GFLOP/s: independent sums in registers, the widest that this file is built for.
inline double peak_gflops(double seconds = 0.2) {
#if defined(__AVX512F__)
  constexpr int width = 64, sums = 24;
#elif defined(__AVX2__)
  constexpr int width = 32, sums = 12;
#else
  constexpr int width = 16, sums = 8;
#endif
  typedef float vf __attribute__((vector_size(width)));
  constexpr int64_t n = 20000;
  float seed = 1e-3f;
  double ns = best_ns(
      [&] {
        vf a = seed - vf{}, b = 0.999f - vf{}, s[sums];
        for (int i = 0; i < sums; i++) s[i] = float(i) - vf{};
        for (int64_t k = 0; k < n; k++) {
#pragma GCC unroll 24
          for (int i = 0; i < sums; i++) s[i] = s[i] * b + a;
          asm volatile("" : "+x"(a), "+x"(b));
        }
        vf t{};
        for (int i = 0; i < sums; i++) t += s[i];
        asm volatile("" ::"x"(t));
      },
      seconds);
  return 2.0 * double(n) * sums * (width / 4) / ns;
}

/// An aligned buffer of small values, that no page fault will meet.
inline std::vector<float> values(int64_t n, int64_t seed = 1) {
  std::vector<float> v(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; i++) v[size_t(i)] = float((i * 37 + seed * 101 + (i * i) % 13) % 29 - 14) / 60.0f;
  return v;
}

/// Memory of an op for `threads`.
struct Workspace {
  std::vector<char> shared, scratch;
  dagrt::Stream stream;
  Workspace(size_t workspace, size_t each, int threads)
      : shared(workspace + 64), scratch(((each + 63) / 64 * 64) * size_t(threads) + 64) {
    stream.threads = threads;
    stream.scratch_bytes = (each + 63) / 64 * 64;
    stream.scratch = align(scratch);
  }
  static char* align(std::vector<char>& v) { return v.data() + (64 - reinterpret_cast<size_t>(v.data()) % 64) % 64; }
  char* workspace() { return align(shared); }
};

}  // namespace bench
