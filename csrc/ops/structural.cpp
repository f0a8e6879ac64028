// The ops that the IR itself knows: read, constant, gradients, scan. Passes and the executor handle them; here stand
// their attributes, and their types, which need the module and therefore do not fit `infer`.
//
//   scan: (c_0..c_{n-1}, s_0..s_{m-1}, captured...) -> (C_0..C_{n-1}, Y_0..Y_{q-1})
//     c := c_i; for each step t in 0..T-1 (or T-1..0): (c, y) := body(c, s[t], captured, t); Y[t] := y; C := c
#include "ir/structural.h"

#include <map>

#include "ir/op_view.h"
#include "ops/registry.h"

namespace dagrt {
namespace {

Types infer_gradients(const InferContext& c) {
  const TensorType& loss = c.in[0];
  if (loss.rank() != 0 || !is_float(loss.dtype))
    c.fail(ErrorKind::graph, "the loss must be a float scalar, got ", loss.text(), "; reduce it (mean or sum) first");
  return Types(c.in.begin() + 1, c.in.end());
}

Types needs_module(const InferContext& c) {
  c.fail(ErrorKind::graph, "its type depends on the module and cannot be inferred from inputs alone");
}

Types infer_read(const Module& module, const Node& node, const Types& in) {
  int64_t index = node.as<ReadAttrs>().variable;
  if (index < 0 || index >= int64_t(module.variables.size()))
    fail(ErrorKind::graph, "read: variable ", index, " does not exist; the module has ", module.variables.size());
  const VariableDecl& variable = module.variables[size_t(index)];
  if (in.empty()) return {variable.type};
  if (in[0].dtype != variable.type.dtype)
    fail(ErrorKind::dtype, "read: variable '", variable.name, "' is ", name_of(variable.type.dtype), ", but was assigned ",
         name_of(in[0].dtype));
  bool fits = in[0].rank() == variable.type.rank();
  for (int i = 0; fits && i < in[0].rank(); i++)
    fits = !in[0].shape[size_t(i)].known() || in[0].shape[size_t(i)] == variable.type.shape[size_t(i)];
  if (!fits)
    fail(ErrorKind::shape, "read: variable '", variable.name, "' has shape ", text(variable.type.shape), ", but was assigned ",
         text(in[0].shape));
  return {variable.type};
}

Types infer_constant(const Module& module, const Node& node) {
  int64_t index = node.as<ConstantAttrs>().index;
  if (index < 0 || index >= int64_t(module.constants.size()))
    fail(ErrorKind::graph, "constant: index ", index, " does not exist; the module has ", module.constants.size());
  return {module.constants[size_t(index)].type};
}

bool may_be(const Dim& a, const Dim& b) { return !a.known() || !b.known() || a == b; }

bool may_be(const TensorType& a, const TensorType& b) {
  if (a.dtype != b.dtype || a.rank() != b.rank()) return false;
  for (size_t i = 0; i < a.shape.size(); i++)
    if (!may_be(a.shape[i], b.shape[i])) return false;
  return true;
}

Dim scan_length(const ScanAttrs& a, const Types& in) {
  Dim length = a.length;
  if (length.known() && length.value() < -1) fail(ErrorKind::shape, "scan: length must not be negative, got ", length.text());
  for (int64_t i = a.carries; i < a.carries + a.sequences; i++) {
    const TensorType& s = in[size_t(i)];
    if (s.rank() == 0) fail(ErrorKind::shape, "scan: sequence ", i - a.carries, " must have a time axis, got a scalar");
    if (length.is(-1)) length = s.shape[0];
    if (!may_be(length, s.shape[0]))
      fail(ErrorKind::shape, "scan: sequence ", i - a.carries, " has ", s.shape[0].text(), " steps, expected ", length.text());
    if (!length.known() && s.shape[0].known()) length = s.shape[0];
  }
  if (length.is(-1)) fail(ErrorKind::graph, "scan: without sequences it needs the attribute 'length'");
  return length;
}

Types infer_scan(const Module& module, const Node& node, const Types& in) {
  const ScanAttrs& a = node.as<ScanAttrs>();
  const Function& body = *body_of(module, node);
  int64_t inputs = int64_t(in.size());
  if (a.carries < 0 || a.sequences < 0 || a.carries > inputs || a.sequences > inputs - a.carries)
    fail(ErrorKind::graph, "scan: ", a.carries, " carries and ", a.sequences, " sequences were announced, but it has ", inputs,
         " inputs");
  if (int64_t(body.inputs.size()) != inputs + 1)
    fail(ErrorKind::graph, "scan: body '", body.name, "' must have ", inputs + 1,
         " inputs (carries, elements, captured values, step), got ", body.inputs.size());
  if (int64_t(body.outputs.size()) < a.carries)
    fail(ErrorKind::graph, "scan: body '", body.name, "' must return its ", a.carries, " carries first, got ",
         body.outputs.size(), " outputs");
  for (size_t i = 0; i < in.size(); i++)
    if (in[i].absent) fail(ErrorKind::graph, "scan: input ", i, " is required, but absent");
  Dim length = scan_length(a, in);

  std::map<std::string, Dim> symbols;  // the body's own names for sizes
  for (size_t i = 0; i <= in.size(); i++) {
    TensorType given = i < in.size() ? in[i] : TensorType{DType::int32, {}};
    bool element = int64_t(i) >= a.carries && int64_t(i) < a.carries + a.sequences;
    if (element) given.shape.erase(given.shape.begin());
    const TensorType& declared = body.types[size_t(body.inputs[i].value)];
    if (given.dtype != declared.dtype)
      fail(ErrorKind::dtype, "scan: body '", body.name, "' declares input '", body.inputs[i].name, "' as ",
           name_of(declared.dtype), ", got ", name_of(given.dtype));
    if (!may_be(given, declared))
      fail(ErrorKind::shape, "scan: body '", body.name, "' declares input '", body.inputs[i].name, "' with shape ",
           text(declared.shape), ", got ", text(given.shape));
    for (size_t axis = 0; axis < given.shape.size(); axis++) {
      const Dim::Expr* e = declared.shape[axis].expr();
      if (e && e->kind == Dim::Kind::symbol) symbols[e->name] = given.shape[axis];
    }
  }
  DimLookup lookup = [&](const std::string& name) {
    auto it = symbols.find(name);
    return it == symbols.end() ? Dim::symbol(name) : it->second;
  };
  Types out;
  for (size_t i = 0; i < body.outputs.size(); i++) {
    TensorType t = body.types[size_t(body.outputs[i])];
    for (Dim& d : t.shape) d = d.substitute(lookup);
    if (int64_t(i) < a.carries) {
      if (!may_be(t, in[i]))
        fail(t.dtype != in[i].dtype ? ErrorKind::dtype : ErrorKind::shape, "scan: carry ", i, " starts as ", in[i].text(),
             ", but the body returns ", t.text(), "; a carry must keep its type");
      t = in[i];
    } else {
      t.shape.insert(t.shape.begin(), length);
      if (t.rank() > max_rank)
        fail(ErrorKind::shape, "scan: expected at most ", max_rank, " axes, got ", text(t.shape), " as a result");
    }
    out.push_back(std::move(t));
  }
  return out;
}

}  // namespace

const std::string& name_of(const Op& op) { return op.name; }
const AttrType& attrs_of(const Op& op) { return op.attrs; }
Structural role_of(const Op& op) { return op.role; }

const Function* body_of(const Module& module, const Node& node) {
  return node.op->role == Structural::scan ? &module.function(node.as<ScanAttrs>().body) : nullptr;
}

Types infer_node(const Module& module, const Function& f, const Node& node) {
  const Types in = f.types_of(node.inputs);
  switch (node.op->role) {
    case Structural::read: check_arity(*node.op, in); return infer_read(module, node, in);
    case Structural::constant: check_arity(*node.op, in); return infer_constant(module, node);
    case Structural::scan: return infer_scan(module, node, in);
    default: return infer(*node.op, node.attrs.get(), in);
  }
}

void register_structural(Registry& r) {
  Op read;
  read.name = "read";
  read.equation = "y = variable, or the value assigned to it earlier in this trace";
  read.attrs = attr_type<ReadAttrs>();
  read.min_inputs = 0;
  read.infer = needs_module;
  read.structural = true;
  read.role = Structural::read;
  r.add(std::move(read));

  Op constant;
  constant.name = "constant";
  constant.equation = "y = constants[index]";
  constant.attrs = attr_type<ConstantAttrs>();
  constant.min_inputs = constant.max_inputs = 0;
  constant.infer = needs_module;
  constant.structural = true;
  constant.role = Structural::constant;
  r.add(std::move(constant));

  Op gradients;
  gradients.name = "gradients";
  gradients.equation = "(loss, w...) -> (d loss / d w)...";
  gradients.max_inputs = -1;
  gradients.infer = infer_gradients;
  gradients.structural = true;
  gradients.role = Structural::gradients;
  r.add(std::move(gradients));

  Op scan;
  scan.name = "scan";
  scan.equation = "(carry, y[t]) = body(carry, sequence[t], captured, t) for every t";
  scan.attrs = attr_type<ScanAttrs>();
  scan.min_inputs = 0;
  scan.max_inputs = -1;
  scan.infer = needs_module;
  scan.structural = true;
  scan.role = Structural::scan;
  r.add(std::move(scan));
}

}  // namespace dagrt
