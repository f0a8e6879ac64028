// A compiled function for one set of input types: module, plan, and the states of its runs.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/view.h"
#include "ir/module.h"
#include "runtime/device.h"
#include "runtime/executor.h"
#include "runtime/plan.h"
#include "runtime/prepared.h"
#include "runtime/variable.h"

namespace dagrt {

class Program {
 public:
  /// A maker computes a prepared value: all of it inside, and it is not counted among the programs.
  enum class Part : uint8_t { whole, maker };

  /// Takes a module as passes/pipeline.h describes it; `variables` by the module's indices.
  /// exact: products on a CUDA device in full float32, not TF32.
  Program(Module compiled, std::vector<VariableRef> variables, Device& device, Part part = Part::whole, bool exact = true);
  ~Program();

  /// One run: takes the variables' lock, brings them to its device, remakes stale prepared values, takes an arena and a state; then steps and
  /// commit. An Error means that no variable has changed. Several threads may run one program.
  void run(const View* inputs, const View* outputs, bool (*poll)()) const;

  /// A maker's run, with the lock held: its output goes to `to`, memory of the device.
  void fill(void* to) const;

  bool fits(const View* in, size_t count) const;

  const Module& module() const { return module_; }
  const Function& function() const { return module_.functions.front(); }
  const Plan& plan() const { return plan_; }
  const std::vector<View>& inputs() const { return inputs_; }
  const std::vector<View>& outputs() const { return outputs_; }
  size_t arena_bytes() const;  // of one run, with scratch for the threads of now
  size_t prepared_bytes() const;
  std::string prepared_text() const;  // one line for each prepared value

 private:
  friend class Runs;
  class Loan;     // of a state
  struct Slots {  // of a run on a device, behind the plan's arena: offsets
    std::vector<size_t> in, out;
    size_t first = 0, decision = 0, word = 0, scratch = 0, scratch_each = 0, bytes = 0;  // first: of `in`, then `out`, decision
    size_t in_bytes() const { return (out.empty() ? decision : out[0]) - first; }
    size_t out_bytes() const { return word - first - in_bytes(); }
  };
  Slots slots(int threads) const;
  void bind(RunState& state, const Slots& at, char* memory) const;
  void renew_queue(std::unique_ptr<Queue>& queue, RunState& state) const;
  void replay(Queue& queue, RunState& state, const Slots& at, char* memory) const;
  void committed() const;
  void run_on_host(const View* inputs, const View* outputs, bool (*poll)()) const;
  void run_on_device(const View* inputs, const View* outputs, bool (*poll)()) const;
  Plan make_plan();
  void place_constants();
  bool settled() const;
  void settle(GroupLock& lock) const;
  void written(int32_t variable) const { variables_[size_t(variable)]->raise_version(); }

  Module module_;
  std::vector<VariableRef> variables_;
  std::vector<VariableRef> constants_;  // copies on a device that is not the host
  Device& device_;
  bool exact_;
  int isa_;  // that it was planned for
  Part part_;
  std::vector<PreparedRef> prepared_;                    // by slot
  std::vector<VariableRef> sources_;                     // of them all, each once
  mutable std::atomic<uint64_t> fresh_at_{UINT64_MAX};   // state of the sources in which all were seen to be fresh
  mutable std::atomic<uint64_t> placed_at_{UINT64_MAX};  // moves in all when this program's variables were seen to be here
  mutable std::atomic<uint64_t> moves_{0};               // of them, then
  Plan plan_;
  std::vector<View> inputs_, outputs_;
  const Variable* any_ = nullptr;  // of those used: its group's lock is the run's
  mutable std::mutex states_mutex_;
  mutable std::vector<std::unique_ptr<RunState>> states_;
};

/// Runs of one program one behind the other, on a device that records, with the lock of its variables held: inputs go to the
/// device while the steps of the run before are at work, and outputs come back while those of the next are. Results are
/// those of runs one by one: after a fault no later run has changed anything.
class Runs {
 public:
  static bool possible(const Program& program) { return program.device_.records(); }
  static constexpr int most = 2;  // in flight

  Runs(const Program& program, bool (*poll)());
  ~Runs();  // waits for those in flight
  Runs(const Runs&) = delete;
  Runs& operator=(const Runs&) = delete;

  void start(const View* inputs);    // which have been read when it returns
  void finish(const View* outputs);  // the one that was started first; throws as Program::run does
  int in_flight() const { return started_ - finished_; }

 private:
  Status wait();
  char* memory() const { return arena_.data(); }
  const Program& program_;
  bool (*poll_)();
  GroupLock lock_;
  Program::Slots at_;
  size_t landing_ = 0, each_ = 0;  // on the device: `most` times inputs and outputs
  Arena arena_;
  std::unique_ptr<Program::Loan> loan_;
  char* staging_ = nullptr;  // on the host, in the same order
  int started_ = 0, finished_ = 0;
  bool cancelled_ = false;
};

/// Programs alive in this process.
size_t programs_in_use();

}  // namespace dagrt
