// Builder: appends nodes to a function whose types are known, inferring the types of each.
#include "ir/lists.h"
#include "ir/op_view.h"
#include "ops/op.h"

namespace dagrt {

std::vector<ValueId> Builder::emit_all(const char* name, std::vector<ValueId> inputs, AttrMap attrs) {
  Node node;
  node.op = &op(name);
  node.attrs = node.op->attrs.read(node.op->name, attrs);
  node.inputs = std::move(inputs);
  node.paths = paths;
  for (TensorType& t : infer_node(module_, f_, node)) node.outputs.push_back(f_.add_value(std::move(t)));
  std::vector<ValueId> out = node.outputs;
  f_.nodes.push_back(std::move(node));
  return out;
}

ValueId Builder::emit(const char* name, std::vector<ValueId> inputs, AttrMap attrs) {
  return emit_all(name, std::move(inputs), std::move(attrs))[0];
}

ValueId Builder::cast(ValueId a, DType t) {
  if (type(a).dtype == t) return a;
  return emit("cast", {a}, {{"dtype", {std::string(name_of(t))}}});
}

ValueId Builder::scalar(double value, DType t) { return full({}, value, t); }

ValueId Builder::full(Dims shape, double value, DType t) {
  return emit("full", {}, {{"shape", attr_list(shape)}, {"value", {value}}, {"dtype", {std::string(name_of(t))}}});
}

ValueId Builder::reshape(ValueId a, Dims shape) {
  if (type(a).shape == shape) return a;
  return emit("reshape", {a}, {{"shape", attr_list(shape)}});
}

ValueId Builder::broadcast_to(ValueId a, Dims shape) {
  if (type(a).shape == shape) return a;
  return emit("broadcast_to", {a}, {{"shape", attr_list(shape)}});
}

ValueId Builder::transpose(ValueId a, std::vector<int64_t> perm) { return emit("transpose", {a}, {{"perm", attr_list(perm)}}); }

ValueId Builder::sum(ValueId a, std::vector<int64_t> axes, bool keepdims) {
  if (axes.empty()) return a;
  return emit("reduce_sum", {a}, {{"axes", attr_list(axes)}, {"keepdims", {keepdims}}});
}

ValueId Builder::unbroadcast(ValueId grad, const Dims& shape) {
  const Dims from = type(grad).shape;  // a copy: emitting moves types
  if (from == shape) return grad;
  std::vector<int64_t> axes;
  size_t lead = from.size() - shape.size();
  for (size_t i = 0; i < from.size(); i++)
    if (i < lead || (shape[i - lead].is(1) && !from[i].is(1))) axes.push_back(int64_t(i));
  return reshape(sum(grad, std::move(axes)), shape);
}

}  // namespace dagrt
