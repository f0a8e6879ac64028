// What the kernel benchmarks share. A row is one layer of a real model: dagrt's
// kernel, the same layer by each reference framework that was found (peers.h),
// and the machine's limits, measured in turns: in each round every side runs
// alone for some milliseconds, then the next. A row's time is what one call in
// a hundred stays below. Before that the sides' results are compared; one that
// differs is named and has no part in the ratio.
//   share = bound / time;  bound = the larger of flops at the peak of
//   multiply-adds and bytes, each pass over them counted, at the speed at which
//   a loop reads and writes as many bytes of its own
// Google Benchmark registers, picks (--benchmark_filter) and reports
// (--benchmark_out); one iteration is one round.
#pragma once
#include <benchmark/benchmark.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/parallel.h"

namespace bench {

/// Memory on a cache line, as in the arenas of programs.
template <class T> struct Aligned {
  using value_type = T;
  Aligned() = default;
  template <class U> Aligned(const Aligned<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t(64))); }
  void deallocate(T* p, size_t) { ::operator delete(p, std::align_val_t(64)); }
  template <class U> bool operator==(const Aligned<U>&) const { return true; }
  template <class U> bool operator!=(const Aligned<U>&) const { return false; }
};
using Floats = std::vector<float, Aligned<float>>;

/// n numbers in [-scale, scale), of a hash of their index.
Floats values(int64_t n, int64_t seed = 1, float scale = 0.25f);

struct Side {
  std::string name;
  std::function<void()> call;
  std::function<std::vector<float>()> result;  // of a call before, in dagrt's layout
};

struct Work {
  Side dagrt;
  std::vector<Side> peers;
  double flops = 0, read = 0, written = 0;  // bytes: of arrays, each once
  int read_passes = 1;                      // over the arrays read, where one cannot do
  bool in_place = false;                    // what is written is (part of) what was read
  double tolerance = 2e-4;                  // of results, relative to the largest
  std::vector<std::pair<std::string, double>> more;
  const std::vector<float>* expected = nullptr;  // what dagrt's side is compared with too
};

/// A row, made when it is its turn.
void add_row(const std::string& name, std::function<Work()> make);

/// What each program defines: its rows. main, in harness.cpp, takes --threads,
/// --rounds, --turn_ms and --isa (what dagrt's kernels are chosen for) beside
/// Google Benchmark's own options.
void add_rows();

int threads();

/// The stream of a kernel, with scratch for every thread, and its workspace.
class Memory {
 public:
  explicit Memory(size_t workspace = 0, size_t scratch = 0);
  const dagrt::Stream& stream() const { return stream_; }
  char* workspace() { return workspace_.data(); }

 private:
  std::vector<char, Aligned<char>> workspace_, scratch_;
  dagrt::Stream stream_;
};

inline std::vector<float> copy(const float* from, int64_t n) { return {from, from + n}; }

}  // namespace bench
