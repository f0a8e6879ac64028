// A plan: what a compiled function does at run time, with every address a base and an offset.
//
// Order: main steps, copies of outputs that no step writes directly, then the point of no return (status word, guard),
// then the commit: optimiser updates that write their variables' own memory, then copies of all other stored values.
// So a run that fails, is cancelled or is refused by its guard has changed no variable.
//
// - A value's place is its producer's: in the arena, or straight in the caller's output, or in a variable (commit).
//   `reshape` is the same memory under another shape; `read`, `constant` and inputs are borrowed.
// - Parts of a `concat` are written in place and slices are read in place where every op concerned takes rows that stand
//   apart (slices.h).
// - An op that may work in place does where its input dies there and lies in memory that the plan owns.
// - Heavy steps that do not depend on each other and split into few units (two LSTMs at batch 1) stand together: they
//   share one position, so that nothing that one of them uses is another's memory, and may run at the same time.
// - On a GPU, steps stand in lanes, which run at the same time: a step follows the one that makes its input where that is the
//   lane's last, and else goes to a lane that need not be waited for. What a step has to wait for in other lanes is said by
//   marks. Memory passes from one value to another only where every use of the first is known to be done before the second.
// - Bodies of scans are plans of their own, whose arena is a region of the outer plan's. Short iterations that carry nothing from
//   one to the next have a region each, and may run at the same time, each on one thread.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/view.h"
#include "ir/module.h"
#include "ops/op.h"
#include "runtime/hoist.h"

namespace dagrt {

struct Place {  // bases[base] + offset; base 0 is null
  int32_t base = 0;
  size_t offset = 0;
};

/// Where each kind of base begins in the table of bases: 0 is null, 1 the arena.
struct Bases {
  int32_t inputs = 2, outputs = 2, variables = 2, constants = 2, prepared = 2, count = 2;
};
inline constexpr int32_t arena_base = 1;

struct Plan;

struct ScanPlan {
  std::unique_ptr<Plan> body;
  int64_t carries = 0, sequences = 0, captured = 0, ys = 0, length = 0;
  bool reverse = false;
  std::vector<size_t> carry_bytes, element_bytes, y_bytes;
  std::vector<size_t> spare;  // offsets in the region: where carries stand in every other iteration
  size_t step = 0;            // offset of the step number
  size_t region_bytes = 0;    // the body's arena first, then these
  int32_t at_once = 1;        // iterations that may be at work at the same time, each with a region of its own: 1 or all
};

inline constexpr int32_t most_together = 16;

struct Step {
  enum class Kind : uint8_t { op, scan, copy };
  Kind kind = Kind::op;
  bool checks = false;  // may report a fault
  bool poll = false;    // enough work has passed to look at the clock
  const Op* op = nullptr;
  const void* attrs = nullptr;
  int32_t first_view = 0, inputs = 0, outputs = 0;  // views: inputs, then outputs; copy: one and one
  int32_t node = -1;                                // whom to name in a fault: Plan::names of the outermost plan
  int32_t scan = -1;                                // index into Plan::scans
  int32_t source = -1;                              // its node in Plan::function; -1: a copy
  Place workspace;
  size_t workspace_bytes = 0;
  size_t scratch_bytes = 0;  // for each worker, aligned
  size_t copy_bytes = 0;
  int32_t together = 1;  // so many steps from here on may run at the same time
  int32_t units = 0;     // pieces that its work can be split into
  float work_ns = 0;     // as Plan::work_ns
  int32_t lane = 0;
  int32_t mark = -1;                  // number of the mark behind it, if steps of other lanes wait for it
  int32_t first_wait = 0, waits = 0;  // marks that it waits for: Plan::waits
};

struct Commit {
  Step step;
  Place when;                      // a bool; base 0: always
  std::vector<int32_t> variables;  // written by it
};

struct Plan {
  const Function* function = nullptr;  // that was planned; lives as long as the module
  Bases bases;
  std::vector<Step> steps;
  std::vector<Commit> commits;
  Place guard;
  std::vector<View> views;    // data is filled at run time from `places`
  std::vector<Place> places;  // one for each view
  std::vector<ScanPlan> scans;
  int32_t lanes = 1, marks = 0;
  std::vector<int32_t> waits;
  size_t arena_bytes = 0;
  size_t scratch_bytes = 0;  // the most that one worker needs
  bool checks = false;
  double work_ns = 0;  // a slow machine's time for all main steps, on one thread
  std::vector<const void*> constants;
  std::vector<void*> prepared;                      // memory of the prepared values, by slot
  std::vector<char> uses_variable;                  // read or written
  std::shared_ptr<std::vector<std::string>> names;  // places of the nodes that check
};

/// Plans the first function of a compiled module (passes/pipeline.h). The plan refers to the module's attributes and
/// constants, which must outlive it. Nodes in `hoist` are left out; their values are found in the memory that
/// Plan::prepared names, which the caller fills in. `on_cuda`: with the memory that ops need there.
Plan build_plan(const Module& module, const Hoist& hoist = {}, bool on_cuda = false);

/// Whose step it is: "dense_2 (matmul)"; copies are the runtime's own.
std::string place(const Plan& plan, const Step& step);

/// One line for each step, with places: for Callable::text.
std::string text(const Plan& plan);

/// The view of a fully known type, without data.
View view_of(const TensorType& type);

}  // namespace dagrt
