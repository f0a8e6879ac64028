// A compiled function for one set of input types: module, plan, and the states of its runs.
#pragma once
#include <memory>
#include <mutex>
#include <vector>

#include "base/view.h"
#include "ir/module.h"
#include "runtime/device.h"
#include "runtime/executor.h"
#include "runtime/plan.h"
#include "runtime/variable.h"

namespace dagrt {

class Program {
 public:
  /// Takes a module as passes/pipeline.h describes it; `variables` by the module's indices.
  Program(Module compiled, std::vector<VariableRef> variables, Device& device);
  ~Program();

  /// One run: takes the variables' lock, an arena and a state; then steps and commit. An Error means that no variable
  /// has changed. Several threads may run one program.
  void run(const View* inputs, const View* outputs, bool (*poll)()) const;

  bool fits(const View* in, size_t count) const;

  const Module& module() const { return module_; }
  const Function& function() const { return module_.functions.front(); }
  const Plan& plan() const { return plan_; }
  const std::vector<View>& inputs() const { return inputs_; }
  const std::vector<View>& outputs() const { return outputs_; }
  size_t arena_bytes() const;  // of one run, with scratch for the threads of now

 private:
  class Loan;  // of a state
  void run_on_host(const View* inputs, const View* outputs, bool (*poll)()) const;
  void run_on_device(const View* inputs, const View* outputs, bool (*poll)()) const;
  void place_constants();
  void written(int32_t variable) const { variables_[size_t(variable)]->raise_version(); }

  Module module_;
  std::vector<VariableRef> variables_;
  std::vector<VariableRef> constants_;  // copies on a device that is not the host
  Device& device_;
  int isa_;  // that it was planned for
  Plan plan_;
  std::vector<View> inputs_, outputs_;
  const Variable* any_ = nullptr;  // of those used: its group's lock is the run's
  mutable std::mutex states_mutex_;
  mutable std::vector<std::unique_ptr<RunState>> states_;
};

/// Programs alive in this process.
size_t programs_in_use();

}  // namespace dagrt
