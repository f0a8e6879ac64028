// Times of steps, for as long as someone wants them. Off, a run tests one null pointer a step.
#pragma once
#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/plan.h"

namespace dagrt {

struct ProfiledStep {
  std::string path;    // the layer it came from; empty: made by the compiler
  std::string op;      // the algorithm
  std::string device;  // "cpu", "cuda:0"
  std::string shapes;  // "f32[32,784] f32[784,64] -> f32[32,64]"
  double flops = 0, bytes = 0;
  int64_t begin_ns = 0, end_ns = 0;  // since the profile began
  int64_t run = 0;                   // which run of a program it belongs to
  int32_t thread = 0;                // that started the run, numbered
};

/// What one run leaves behind, while a profile is on.
class RunProfile {
 public:
  struct Time {
    const Plan* plan;
    const Step* step;
    int64_t begin_ns, end_ns;
  };
  void add(const Time& t) {
    std::lock_guard<std::mutex> lock(mutex_);
    times_.push_back(t);
  }
  const std::vector<Time>& times() const { return times_; }
  /// Where stamps were added in place of times: `at` has each stamp's.
  void resolve(const std::vector<int64_t>& at) {
    for (Time& t : times_) t.begin_ns = at[size_t(t.begin_ns)], t.end_ns = at[size_t(t.end_ns)];
  }

 private:
  std::mutex mutex_;
  std::vector<Time> times_;
};

/// The process's recorder: start, run whatever is of interest, stop.
class Profiler {
 public:
  static bool on() { return on_.load(std::memory_order_relaxed); }
  /// Nanoseconds of the clock that profiles use.
  static int64_t now();
  /// GraphError where a profile is on already.
  static void start();
  static std::vector<ProfiledStep> stop();
  /// Takes in a run that has ended; its plan must still be alive.
  static void take(const RunProfile& run, const char* device);

 private:
  static std::atomic<bool> on_;
};

}  // namespace dagrt
