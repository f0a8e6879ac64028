// Runs a plan: no allocation, no lock, no check of shapes. Views are made with the plan; before a step its memory
// addresses are put in from the table of bases.
#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/cuda_stream.h"
#include "ops/op.h"
#include "runtime/device.h"
#include "runtime/plan.h"
#include "runtime/profile.h"

namespace dagrt {

/// The mutable half of a plan: one for each run in flight, made once and used again.
struct RunState {
  explicit RunState(const Plan& plan);
  std::vector<char*> bases;
  std::vector<View> views;
  std::vector<std::vector<RunState>> scans;  // of each scan as many as are at work at once
  std::unique_ptr<Queue> queue;              // of a device that records runs: kept with what it recorded for this state's memory
  Staging staging;                           // for runs one behind the other
  uint64_t moves = 0;                        // of the variables, when that was recorded
};

/// What a run shares between a plan and the bodies of its scans.
struct RunShared {
  int threads = 1;
  char* scratch = nullptr;   // threads * scratch_bytes
  size_t scratch_bytes = 0;  // the outermost plan's
  Status status;
  bool (*poll)() = nullptr;
  std::chrono::steady_clock::time_point next_poll{};
  RunProfile* profile = nullptr;     // where the times of steps go, if someone wants them
  Recording* recording = nullptr;    // the steps are launches: nothing has happened yet when they return
  CudaStream* cuda = nullptr;        // of it: the lane of the step at hand
  DeviceStatus* decision = nullptr;  // there: the status as it was when the commit began, which no later one changes
};

/// All main steps, up to the first fault. Afterwards shared.status says whether the commit may follow.
void run_steps(const Plan& plan, RunState& state, RunShared& shared);

/// The commit, where status and guard allow it. `written(variable)` is called for each variable that was.
void run_commit(const Plan& plan, RunState& state, RunShared& shared, void (*written)(void* context, int32_t variable),
                void* context);

/// DataError or Cancelled for a status that is not ok.
[[noreturn]] void raise_status(const Plan& plan, const Status& status);

}  // namespace dagrt
