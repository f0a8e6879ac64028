// multiply_bf16: products of widened bfloat16 become those that read bfloat16 as it is, by a CUDA device's tensor cores.
//   matmul(cast(a), cast(b))  -> matmul_bf16(a, b)
// Under a policy of bfloat16 all products look so, of gradients too; a reshape may stand behind a cast. Half the bytes are read,
// and no others than before are rounded: products of bfloat16 are exact in float32, in which both add. A cast of the result to
// bfloat16, if nobody else reads it, becomes the product's own rounding; and a bias and a relu of bfloat16 behind that its
// epilogue, which rounds where they do: the same bits. Sizes that the op does not admit, whose lines are not whole pieces of 16
// bytes, stay with float32.
//
// Before: a specialised module without gradients and epilogues. After: the same, values under the same ids.
#include <map>

#include "ir/op_view.h"
#include "ops/op.h"
#include "passes/passes.h"
#include "passes/uses.h"

namespace dagrt {
namespace {

class Narrower {
 public:
  Narrower(Module& m, Function& f) : m_(m), f_(f), uses_(f), old_(f.nodes), taken_(f.nodes.size(), false) {
    for (const Op* o : all_ops())
      if (o->cuda_algorithm_of) forms_[&op(o->cuda_algorithm_of)] = o;
  }

  void run() {
    f_.nodes.clear();
    for (size_t i = 0; i < old_.size(); i++) {
      if (taken_[i]) {
        for (Node& n : ends_[i]) f_.nodes.push_back(std::move(n));
        continue;
      }
      Node n = old_[i];
      auto at = forms_.find(n.op);
      size_t end = i;  // where the last of what it takes over stands
      if (at != forms_.end() && n.inputs.size() == 2 && is_wide(n.inputs[0]) && is_wide(n.inputs[1]))
        end = narrow(n, i, *at->second);
      (end == i ? f_.nodes : ends_[end]).push_back(std::move(n));
    }
  }

 private:
  const Node* made_by(ValueId v, const char* op) const {
    const int at = uses_.producer[size_t(v)];
    return at >= 0 && old_[size_t(at)].op->name == op ? &old_[size_t(at)] : nullptr;
  }
  DType dtype(ValueId v) const { return f_.types[size_t(v)].dtype; }

  /// Whether v is bfloat16 widened, by way of a reshape or not.
  bool is_wide(ValueId v) const {
    if (dtype(v) != DType::float32) return false;
    if (const Node* reshape = made_by(v, "reshape")) v = reshape->inputs[0];
    const Node* cast = made_by(v, "cast");
    return cast && dtype(cast->inputs[0]) == DType::bfloat16;
  }

  /// What is_wide has found, as it was.
  ValueId narrowed(ValueId v) {
    const Node* reshape = made_by(v, "reshape");
    const ValueId x = made_by(reshape ? reshape->inputs[0] : v, "cast")->inputs[0];
    if (!reshape) return x;
    auto [at, is_new] = reshaped_.try_emplace(v, no_value);
    if (is_new) {
      Node n = *reshape;
      n.inputs = {x};
      n.outputs = {at->second = f_.add_value(infer_node(m_, f_, n)[0])};
      f_.nodes.push_back(std::move(n));
    }
    return at->second;
  }

  /// The one node that reads v, of that op, or -1.
  int reader(ValueId v, const char* op) const {
    const std::vector<int>& users = uses_.users[size_t(v)];
    return !uses_.kept[size_t(v)] && users.size() == 1 && old_[size_t(users[0])].op->name == op ? users[0] : -1;
  }

  /// Takes node `at` over into n; its place.
  size_t take(Node& n, int at) {
    const Node& from = old_[size_t(at)];
    n.outputs = from.outputs;
    add_paths(n.paths, from.paths);
    taken_[size_t(at)] = true;
    return size_t(at);
  }

  /// n, of two widened operands, becomes the op `form`, if that admits their sizes. Its new place.
  size_t narrow(Node& n, size_t place, const Op& form) {
    int cast = reader(n.outputs[0], "cast");
    if (cast >= 0 && dtype(old_[size_t(cast)].outputs[0]) != DType::bfloat16) cast = -1;
    AttrMap map = n.op->attrs.write(n.attrs.get());
    map["dtype"] = {std::string(name_of(cast < 0 ? DType::float32 : DType::bfloat16))};
    n.attrs = form.attrs.read(form.name, map);
    if (form.admits && !form.admits(n.attrs.get(), f_.types_of(n.inputs))) {
      n.attrs = old_[place].attrs;
      return place;
    }
    n.op = &form;
    for (ValueId& v : n.inputs) v = narrowed(v);
    if (cast < 0) return place;
    place = take(n, cast);
    return form.max_inputs > 2 ? finish(n, place, map) : place;
  }

  /// A bias and a relu behind n become its epilogue.
  size_t finish(Node& n, size_t place, AttrMap& map) {
    AttrList program;
    Node wide;  // the bias
    const ValueId y = n.outputs[0];
    const Dims& shape = f_.types[size_t(y)].shape;
    if (int add = reader(y, "add"); add >= 0) {
      const Node& sum = old_[size_t(add)];
      const ValueId bias = sum.inputs[sum.inputs[0] == y];
      const TensorType& t = f_.types[size_t(bias)];
      if (t.rank() == 1 && t.shape[0] == shape.back() && !t.shape[0].is(1)) {
        place = take(n, add);
        wide.op = &op("cast");
        wide.attrs = wide.op->attrs.read("cast", {{"dtype", {std::string("float32")}}});
        wide.inputs = {bias};
        wide.paths = sum.paths;
        wide.outputs = {f_.add_value({DType::float32, t.shape})};
        n.inputs.push_back(wide.outputs[0]);
        program.push_back({std::string("add 0 1")});
      }
    }
    if (int relu = reader(n.outputs[0], "relu"); relu >= 0) {
      place = take(n, relu);
      program.push_back({std::string(program.empty() ? "relu 0" : "relu 2")});
    }
    if (program.empty()) return place;
    if (wide.op) ends_[place].push_back(std::move(wide));
    map["epilogue"] = {program};
    n.attrs = n.op->attrs.read(n.op->name, map);
    return place;
  }

  Module& m_;
  Function& f_;
  Uses uses_;
  std::vector<Node> old_;
  std::vector<bool> taken_;                   // by products, of old nodes
  std::map<size_t, std::vector<Node>> ends_;  // by place: what stands there instead
  std::map<const Op*, const Op*> forms_;      // of bfloat16, by the op they stand for
  std::map<ValueId, ValueId> reshaped_;       // by the widened value
};

}  // namespace

void multiply_bf16(Module& module) {
  for (Function& f : module.functions) Narrower(module, f).run();
}

}  // namespace dagrt
