// pointwise {program, constants}: a chain of pointwise ops over float32 and bool, made by the pass fuse_pointwise after
// gradients. It computes what the ops computed one by one, bit for bit, but keeps everything between in L1.
#include "ops/fused.h"

#include "ops/program.h"
#include "ops/registry.h"

namespace dagrt {
namespace {

static_assert(fused_most_inputs == fused_inputs && fused_most_instructions == fused_instructions &&
              fused_most_constants == fused_constants);

// ---------------------------------------------------------------- attributes
struct FusedAttrs {
  std::vector<std::string> program;
  std::vector<double> constants;
  template <class V> void visit(V& v) {
    v("program", program);
    v("constants", constants);
  }

  Chain ready;
  void prepare(const std::string& op) {
    if (program.empty()) fail(ErrorKind::format, op, ": expected at least one instruction");
    ready.read(op, program, constants);
  }
};

// ---------------------------------------------------------------- the op
Types infer_fused(const InferContext& c) {
  const auto& a = c.attrs<FusedAttrs>();
  Dims shape = c.in[0].shape;
  for (const TensorType& t : c.in) shape = broadcast(shape, t.shape);
  int inputs = int(c.in.size());
  DType in[fused_inputs], result;
  for (int i = 0; i < inputs; i++) in[i] = c.in[size_t(i)].dtype;
  FusedInstruction code[fused_instructions];
  if (int line = a.ready.flow(inputs, in, code, &result); line >= 0)
    c.fail(ErrorKind::dtype, "instruction \"", a.program[size_t(line)], "\" does not fit ", inputs, " inputs of these types");
  return {{result, shape}};
}

void run_fused(const RunContext& c) {
  const Chain& program = c.attrs<FusedAttrs>().ready;
  FusedArgs a;
  const View& y = c.out[0];
  a.operands = c.inputs;
  a.count = int(program.steps.size());
  DType in[fused_inputs], result;
  for (int i = 0; i < c.inputs; i++) in[i] = c.in[i].dtype;
  program.flow(c.inputs, in, a.code, &result);
  a.ns = program.element_ns();
  for (size_t k = 0; k < program.constants.size(); k++) a.constants[k] = program.constants[k];
  a.rank = y.rank;
  for (int d = 0; d < y.rank; d++) a.dims[d] = y.dims[d];
  for (int k = 0; k <= c.inputs; k++) {
    const View& v = k ? c.in[k - 1] : y;
    a.data[k] = v.data;
    a.dtype[k] = v.dtype;
    int64_t stride = 1;
    for (int d = v.rank - 1; d >= 0; d--) {
      int at = d + y.rank - v.rank;
      a.strides[k][at] = v.dims[d] == y.dims[at] ? stride : 0;
      stride = d == v.rank - 1 ? (v.ld ? v.ld : v.dims[d]) : stride * v.dims[d];
    }
  }
  fused_pointwise(a, c.stream);
}

Cost cost_fused(const void* attrs, const Types& in, const Types& out) {
  Cost cost;
  cost.flops = static_cast<const FusedAttrs*>(attrs)->ready.element_flops() * double(out[0].elements());
  cost.bytes = double(out[0].bytes());
  for (const TensorType& t : in) cost.bytes += double(t.bytes());
  return cost;
}

}  // namespace

bool fusable(const Op& op, const Types& in, const TensorType& out) {
  if (!op.pointwise || op.checks) return false;
  if (in.size() > 3) return false;
  DType types[3] = {};
  for (size_t i = 0; i < in.size(); i++) types[i] = in[i].dtype;
  return Chain::fits(op.name, types, int(in.size()), out.dtype);
}

AttrMap fused_attrs(const std::vector<std::string>& program, const std::vector<double>& constants) {
  AttrList lines, numbers;
  for (const std::string& s : program) lines.push_back({s});
  for (double x : constants) numbers.push_back({x});
  return {{"program", {lines}}, {"constants", {numbers}}};
}

void register_fused(Registry& r) {
  Op o;
  o.name = "pointwise";
  o.equation = "a chain of pointwise ops, made by passes";
  o.attrs = prepared_attr_type<FusedAttrs>();
  o.min_inputs = 1;
  o.max_inputs = int(fused_most_inputs);
  o.infer = infer_fused;
  o.run = run_fused;
  o.spaced = Spaced::all();
  o.cost = cost_fused;
  for (int i = 0; i < int(fused_most_inputs); i++) o.in_place.push_back({i, 0});
  o.not_differentiable = "it is made by passes after gradients are expanded; write the ops one by one";
  r.add(std::move(o));
}

}  // namespace dagrt
