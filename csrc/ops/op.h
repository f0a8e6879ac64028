// What an op is: a value, not a class hierarchy. One file csrc/ops/x.cpp declares each, top to bottom:
// equation, attributes, infer, run, grad, cost, and registers it with one line in registry.cpp.
#pragma once
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "base/parallel.h"
#include "base/view.h"
#include "ir/module.h"
#include "ir/structural.h"

namespace dagrt {

struct InferContext {
  const Op& op;
  const Types& in;
  const void* attrs_;
  template <class A> const A& attrs() const { return *static_cast<const A*>(attrs_); }
  /// Throws with the op's name in front: "matmul: inner sizes must agree, got ...".
  template <class... P> [[noreturn]] void fail(ErrorKind kind, const P&... parts) const;
};

/// Where a run that meets bad data says so: the first fault wins. All stores are guarded by it.
struct Status {
  enum Code : int32_t { ok = 0, index_out_of_range = 1, division_by_zero = 2, cancelled = 3 };
  int32_t code = ok;
  int32_t node = -1;
  int64_t index = 0;  // position in the op's input, in elements
  int64_t value = 0;  // the offending value
  int64_t limit = 0;  // what it must be below (index_out_of_range)
  /// Thread-safe; keeps the fault with the lowest index of the first node, so that the report does not depend on threads.
  void report(int32_t c, int32_t at_node, int64_t at_index, int64_t v, int64_t lim);
};

struct RunContext {
  const void* attrs_;
  const View* in;
  const View* out;
  int inputs, outputs;
  Stream& stream;
  void* workspace;  // Op::workspace bytes, shared by the op's threads; 64-byte aligned
  Status& status;
  int32_t node;
  template <class A> const A& attrs() const { return *static_cast<const A*>(attrs_); }
};

/// Emits nodes into a function whose types are known: used by gradients and passes. Defined in ops/builder.cpp.
class Builder {
 public:
  Builder(Module& module, Function& f) : module_(module), f_(f) {}
  /// One node; its output types come from `infer`. Returns the outputs.
  std::vector<ValueId> emit_all(const char* op, std::vector<ValueId> inputs, AttrMap attrs = {});
  /// The first (often only) output.
  ValueId emit(const char* op, std::vector<ValueId> inputs, AttrMap attrs = {});
  const TensorType& type(ValueId v) const { return f_.types[size_t(v)]; }

  // The usual ones, by NumPy's names. Arithmetic broadcasts.
  ValueId add(ValueId a, ValueId b) { return emit("add", {a, b}); }
  ValueId sub(ValueId a, ValueId b) { return emit("subtract", {a, b}); }
  ValueId mul(ValueId a, ValueId b) { return emit("multiply", {a, b}); }
  ValueId div(ValueId a, ValueId b) { return emit("divide", {a, b}); }
  ValueId neg(ValueId a) { return emit("negative", {a}); }
  ValueId select(ValueId c, ValueId a, ValueId b) { return emit("select", {c, a, b}); }
  ValueId cast(ValueId a, DType t);  // a itself where it already is t
  ValueId scalar(double value, DType t = DType::float32);
  ValueId full(Dims shape, double value, DType t = DType::float32);
  ValueId reshape(ValueId a, Dims shape);  // a itself where the shape is that already
  ValueId broadcast_to(ValueId a, Dims shape);
  ValueId transpose(ValueId a, std::vector<int64_t> perm);
  ValueId sum(ValueId a, std::vector<int64_t> axes, bool keepdims = false);
  /// Sums a gradient over the axes along which `shape` was broadcast, and reshapes it to `shape`.
  ValueId unbroadcast(ValueId grad, const Dims& shape);

  Module& module() { return module_; }
  Function& function() { return f_; }
  std::vector<std::string> paths;  // given to every node emitted
 private:
  Module& module_;
  Function& f_;
};

struct GradContext {
  Builder& b;
  const Node& node;                // the forward node; shapes are all known
  std::vector<ValueId> out_grads;  // per output; no_value: nothing flows back there (means zero)
  std::vector<bool> wanted;        // per input
  std::vector<ValueId> in_grads;   // to fill; no_value means zero

  ValueId in(size_t i) const { return node.inputs[i]; }
  ValueId out(size_t i) const { return node.outputs[i]; }
  ValueId dout(size_t i = 0) const { return out_grads[i]; }
  const TensorType& in_type(size_t i) const { return b.type(node.inputs[i]); }
  const TensorType& out_type(size_t i) const { return b.type(node.outputs[i]); }
  template <class A> const A& attrs() const { return node.as<A>(); }
};

struct Cost {
  double flops = 0;  // a multiply-add is two
  double bytes = 0;  // read and written, each once
};

struct Memory {
  size_t workspace = 0;  // bytes shared by the op's threads
  size_t scratch = 0;    // bytes for each worker thread (Stream::scratch_bytes)
};

/// Operands whose rows may stand further apart than they are long: `run` honours their View::ld. A bit each; the highest
/// for all from there on.
struct Spaced {
  uint32_t inputs = 0, outputs = 0;
  static Spaced all() { return {~0u, ~0u}; }
  bool input(size_t i) const { return inputs >> (i < 31 ? i : 31) & 1; }
  bool output(size_t i) const { return outputs >> (i < 31 ? i : 31) & 1; }
};

struct Op {
  std::string name;
  std::string equation;  // one line for docs and tables
  AttrType attrs = attr_type<NoAttrs>();
  int min_inputs = 1, max_inputs = 1;  // max -1: any number
  // Inputs from min_inputs to max_inputs - 1 may be left out or absent (TensorType::absent); infer() refuses all other
  // absent ones. An op with a required input after an optional one sets min_inputs before it and checks it in `infer`.

  Types (*infer)(const InferContext&) = nullptr;
  void (*run)(const RunContext&) = nullptr;
  void (*grad)(GradContext&) = nullptr;  // null with not_differentiable false: gradient is zero (integers, comparisons)
  Cost (*cost)(const void* attrs, const Types& in, const Types& out) = nullptr;           // null: bytes of all operands
  Memory (*memory)(const void* attrs, const Types& in, const Types& out) = nullptr;       // null: none
  Memory (*cuda_memory)(const void* attrs, const Types& in, const Types& out) = nullptr;  // of the CUDA twin; null: as memory
  // Independent units that `run` splits its work into, for ops that may have too few for all threads; null: enough.
  int64_t (*units)(const void* attrs, const Types& in, const Types& out) = nullptr;

  // Convolutions whose `run` can pool what it finishes (attribute `pool`: ops/epilogue.h): whether it can for these types.
  bool (*pools)(const void* attrs, const Types& in, const Types& out) = nullptr;

  // Algorithms that are not for all sizes: whether it takes these, which `infer` asks too; null: all that `infer` does.
  bool (*admits)(const void* attrs, const Types& in) = nullptr;

  // Ops other than pointwise ones whose outputs are made part by part of a batch (axis 0): the inputs, a bit each, of which
  // they take the same part; the others are taken whole. 0 or null: none. `shape_attr`: the attribute, if there is one, that
  // says the output's shape and so the size of the part.
  uint32_t (*batched)(const void* attrs, const Types& in, const Types& out) = nullptr;
  const char* shape_attr = nullptr;

  int residuals = 0;  // how many trailing outputs exist only for the gradient; unused ones get null memory
  std::vector<std::pair<int, int>> in_place;  // (input, output): run allows both to be the same memory
  Spaced spaced;                              // the planner may let these stand in slices of other values (runtime/slices.h)
  bool random = false;                        // never merged, never renumbered
  bool checks = false;                        // may report a fault to Status: all stores come after it
  const char* cpu_algorithm_of = nullptr;     // the op for which compiling for a CPU chooses it; no other device has it
  const char* cuda_algorithm_of = nullptr;    // the same of CUDA devices
  bool pointwise = false;                    // one functor over operands that broadcast: passes may drop a broadcast_to before it
  bool structural = false;                   // handled by passes, has no run
  Structural role = Structural::none;        // which of them
  const char* not_differentiable = nullptr;  // advice: reaching this op in `gradients` is a GraphError
};

/// The op of that name; GraphError naming the nearest ones where there is none.
const Op& op(const std::string& name);
const Op* find_op(const std::string& name);
std::vector<const Op*> all_ops();

/// GraphError where the number of inputs does not fit, or a required one is absent.
void check_arity(const Op& op, const Types& in);
/// Runs infer, with the checks that all ops share. Structural ops but `gradients` need infer_node (ir/op_view.h).
Types infer(const Op& op, const void* attrs, const Types& in);

template <class... P> void InferContext::fail(ErrorKind kind, const P&... parts) const {
  dagrt::fail(kind, op.name, ": ", parts...);
}

}  // namespace dagrt
