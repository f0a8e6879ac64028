// The public C++ interface: variables, functions and model files. Used alike by the Python bindings, dagrt-run and
// the benchmarks.
//
//   auto model = dagrt::Model::load("m.dagrt");
//   std::vector<dagrt::Tensor> y = model.run({x});
//
// A Callable (in Python: Function) is a module with its variables and constants; it compiles one program for each
// set of input shapes (the last 64 are kept) and runs it. All of it may be called from several threads at once.
#pragma once
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/view.h"
#include "ir/module.h"
#include "runtime/device.h"
#include "runtime/variable.h"

namespace dagrt {

/// Owned host memory, C-contiguous.
struct Tensor {
  DType dtype = DType::float32;
  std::vector<int64_t> shape;
  std::shared_ptr<void> data;

  static Tensor empty(DType dtype, std::vector<int64_t> shape);
  static Tensor copy(const View& v);
  View view() const;
  template <class T> T* as() const { return static_cast<T*>(data.get()); }
  size_t bytes() const { return size_t(view().bytes()); }
};

/// A view of C-contiguous memory. ShapeError for more than max_rank axes.
View make_view(DType dtype, const std::vector<int64_t>& shape, void* data);

class Program;  // one compiled function: runtime/program.h

struct MemoryReport {
  size_t arena_bytes = 0;  // of one run in flight, with the threads' scratch
  size_t variable_bytes = 0;
  size_t constant_bytes = 0;
  size_t prepared_bytes = 0;  // made of variables and constants, kept between runs; shared between programs
};

/// Answers true where the run is to be cancelled. Asked between nodes, at most every 50 ms,
/// while the run holds its variables' lock.
using CancelPoll = bool (*)();

/// Whether functions keep to algorithms that round no worse than direct sums: DAGRT_EXACT=1. By default they do not:
/// convolutions may differ from the direct sum by up to 5e-5 of the largest output.
bool exact_by_default();

class Callable {
 public:
  static constexpr size_t max_programs = 64;  // kept; the least recently used goes first

  /// `module`: JSON as docs/boundary.md defines it, with constants' bytes beside it, in order.
  Callable(const std::string& module_json, std::vector<VariableRef> variables, const std::vector<View>& constants,
           std::string entry = "main", bool exact = exact_by_default(), Device& device = cpu_device());
  /// A module whose constants have data.
  Callable(Module module, std::vector<VariableRef> variables, std::string entry = "main", bool exact = exact_by_default(),
           Device& device = cpu_device());
  ~Callable();
  Callable(const Callable&) = delete;
  Callable& operator=(const Callable&) = delete;

  /// The program for these inputs (shapes and dtypes; data is not looked at), compiled at first.
  /// ShapeError or DTypeError naming the input that does not fit.
  std::shared_ptr<const Program> program(const View* inputs, size_t count) const;
  std::shared_ptr<const Program> program(const std::vector<std::vector<int64_t>>& shapes) const;
  /// The same if it is there already, else null; does not wait for another's compilation.
  std::shared_ptr<const Program> find(const View* inputs, size_t count) const;

  /// Runs a program of this function. Inputs are C-contiguous; outputs are the caller's memory, of the types in
  /// `outputs_of(program)`, overlapping neither inputs nor each other. An Error means that no variable has changed.
  void run(const Program& program, const View* inputs, const View* outputs, CancelPoll poll = nullptr) const;
  std::vector<Tensor> run(const std::vector<Tensor>& inputs, CancelPoll poll = nullptr) const;

  MemoryReport memory(const Program& program) const;
  std::string text() const;                        // the traced module
  std::string text(const Program& program) const;  // the compiled one, with places and offsets
  const std::string& module_json() const;
  const Module& module() const { return module_; }
  const Function& entry() const { return *entry_; }
  const std::vector<VariableRef>& variables() const { return variables_; }
  size_t programs() const;

 private:
  void check_variables();
  std::shared_ptr<const Program> compile(const View* inputs, size_t count) const;

  Module module_;
  std::vector<VariableRef> variables_;
  std::string entry_name_;
  const Function* entry_ = nullptr;
  bool exact_;
  Device& device_;
  mutable std::string json_;  // written when first asked for
  mutable std::mutex json_mutex_;
  mutable std::mutex cache_mutex_, compile_mutex_;
  mutable std::vector<std::shared_ptr<const Program>> cache_;  // most recently used first
};

/// The types of a program's outputs (dtype and shape; data is null).
const std::vector<View>& outputs_of(const Program& program);

/// A model file: module, variables, and inputs with their outputs to test it by.
class Model {
 public:
  /// FormatError, GraphError ... naming the file.
  static Model load(const std::string& path);

  const Callable& function() const { return *function_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  std::vector<Tensor> run(const std::vector<Tensor>& inputs) const { return function_->run(inputs); }
  const std::vector<Tensor>& selftest_inputs() const { return selftest_inputs_; }
  const std::vector<Tensor>& selftest_outputs() const { return selftest_outputs_; }
  /// Runs the self-test, if there is one: DataError where an output differs by more than the tolerance.
  void selftest(double relative = 1e-4, double absolute = 1e-5) const;

 private:
  std::shared_ptr<Callable> function_;
  std::map<std::string, std::string> metadata_;
  std::vector<Tensor> selftest_inputs_, selftest_outputs_;
};

/// A step of a run: what it was, and when.
struct ProfiledStep;  // runtime/profile.h
/// Records every step of every run until stop_profile. GraphError where a profile is on already.
void start_profile();
std::vector<ProfiledStep> stop_profile();

struct MemoryInUse {
  size_t arena_bytes = 0, variable_bytes = 0, prepared_bytes = 0, programs = 0;
};
MemoryInUse memory_in_use();

}  // namespace dagrt
