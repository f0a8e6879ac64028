// multiply_bf16: products of widened bfloat16 become those that read bfloat16 as it is, by a CUDA device's tensor cores.
//   matmul(cast(a), cast(b))  -> matmul_bf16(a, b)
// Under a policy of bfloat16 all products look so, of gradients too; a reshape may stand behind a cast. Half the bytes are read,
// and no others than before are rounded: products of bfloat16 are exact in float32, in which both add. A cast of the result to
// bfloat16, if nobody else reads it, becomes the product's own rounding. Sizes that the op does not admit, whose lines are not
// whole pieces of 16 bytes, stay with float32.
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
  Narrower(Module& m, Function& f) : m_(m), f_(f), uses_(f), old_(f.nodes) {
    for (const Op* o : all_ops())
      if (o->cuda_algorithm_of) forms_[&op(o->cuda_algorithm_of)] = o;
  }

  void run() {
    std::vector<bool> taken(old_.size(), false);
    f_.nodes.clear();
    for (size_t i = 0; i < old_.size(); i++) {
      if (taken[i]) continue;
      Node n = old_[i];
      auto at = forms_.find(n.op);
      if (at != forms_.end() && n.inputs.size() == 2 && is_wide(n.inputs[0]) && is_wide(n.inputs[1]))
        narrow(n, *at->second, taken);
      f_.nodes.push_back(std::move(n));
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

  /// n, of two widened operands, becomes the op `form`, if that admits their sizes.
  void narrow(Node& n, const Op& form, std::vector<bool>& taken) {
    const ValueId y = n.outputs[0];
    const Node* cast = nullptr;
    if (const std::vector<int>& users = uses_.users[size_t(y)]; !uses_.kept[size_t(y)] && users.size() == 1) {
      const Node& user = old_[size_t(users[0])];
      if (user.op->name == "cast" && dtype(user.outputs[0]) == DType::bfloat16) cast = &user;
    }
    AttrMap map = n.op->attrs.write(n.attrs.get());
    map["dtype"] = {std::string(name_of(cast ? DType::bfloat16 : DType::float32))};
    Attrs attrs = form.attrs.read(form.name, map);
    if (form.admits && !form.admits(attrs.get(), f_.types_of(n.inputs))) return;
    n.op = &form;
    n.attrs = attrs;
    for (ValueId& v : n.inputs) v = narrowed(v);
    if (!cast) return;
    n.outputs = cast->outputs;
    add_paths(n.paths, cast->paths);
    taken[size_t(uses_.users[size_t(y)][0])] = true;
  }

  Module& m_;
  Function& f_;
  Uses uses_;
  std::vector<Node> old_;
  std::map<const Op*, const Op*> forms_;  // of bfloat16, by the op they stand for
  std::map<ValueId, ValueId> reshaped_;   // by the widened value
};

}  // namespace

void multiply_bf16(Module& module) {
  for (Function& f : module.functions) Narrower(module, f).run();
}

}  // namespace dagrt
