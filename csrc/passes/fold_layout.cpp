// fold_layout: drops nodes that move nothing, merges chains of reshapes and transposes, makes moved constants anew, and
// lets pointwise ops broadcast by themselves.
//
// Every rewrite keeps every bit: a cast to the same type, a reshape to the same shape, a transpose that is the identity or
// undoes another, a slice of everything, a pad by nothing, a concatenation of one; `read` of an assigned value and
// `stop_gradient`, which matter to gradients alone; a product or quotient with 1 (but no sum with 0: -0 + 0 is +0).
// A `broadcast_to` or a `full` before a pointwise op goes, where the op's result keeps its shape without it. To that end a
// slice of a broadcast becomes the broadcast of a slice, as in the gradient of a mean behind a concatenation.
#include <algorithm>
#include <cmath>

#include "ir/lists.h"
#include "ir/op_view.h"
#include "ops/op.h"
#include "passes/passes.h"

namespace dagrt {
namespace {

std::vector<int64_t> integers(const AttrMap& attrs, const char* name) {
  std::vector<int64_t> list;
  for (const AttrValue& v : std::get<AttrList>(attrs.at(name).v)) {
    if (auto* i = std::get_if<int64_t>(&v.v))
      list.push_back(*i);
    else
      list.push_back(std::get<Dim>(v.v).value());
  }
  return list;
}

bool all_are(const std::vector<int64_t>& list, int64_t value) {
  for (int64_t v : list)
    if (v != value) return false;
  return true;
}

std::vector<int64_t> permutation(const Node& transpose) {
  std::vector<int64_t> perm = integers(transpose.op->attrs.write(transpose.attrs.get()), "perm");
  for (int64_t& p : perm) p += p < 0 ? int64_t(perm.size()) : 0;
  return perm;
}

struct Folding {
  Module& module;
  Function& f;
  std::vector<ValueId> alias{};
  std::vector<int> producer{};  // by value: place among the kept nodes, -1 for inputs
  std::vector<Node> kept{};

  const Node* made_by(ValueId v) const {
    return v == no_value || producer[size_t(v)] < 0 ? nullptr : &kept[size_t(producer[size_t(v)])];
  }
  bool made_by(ValueId v, const char* op) const {
    const Node* n = made_by(v);
    return n && n->op->name == op;
  }
  const Dims& shape(ValueId v) const { return f.types[size_t(v)].shape; }

  /// Whether a `full` made it, and of which value.
  bool is_full(ValueId v, double* value) const {
    const Node* n = made_by(v);
    if (!n || n->op->name != "full") return false;
    *value = std::get<double>(n->op->attrs.write(n->attrs.get()).at("value").v);
    return true;
  }

  /// The value that stands for the node's only output, or no_value.
  ValueId stands_for(const Node& n) const {
    const std::string& op = n.op->name;
    if (n.inputs.empty() || n.inputs[0] == no_value) return no_value;
    ValueId x = n.inputs[0];
    bool same = f.types[size_t(x)] == f.types[size_t(n.outputs[0])];
    if (n.op->role == Structural::read || op == "stop_gradient") return x;
    if (op == "reshape" || op == "broadcast_to" || op == "cast") return same ? x : no_value;
    if (op == "reduce_sum" || op == "reduce_max" || op == "reduce_min" || op == "reduce_prod") {
      AttrMap a = n.op->attrs.write(n.attrs.get());
      return integers(a, "axes").empty() && same ? x : no_value;
    }
    double one = 0;
    if (op == "multiply" || op == "divide") {
      if (same && is_full(n.inputs[1], &one) && one == 1) return x;
      bool other = f.types[size_t(n.inputs[1])] == f.types[size_t(n.outputs[0])];
      return op == "multiply" && other && is_full(x, &one) && one == 1 ? n.inputs[1] : no_value;
    }
    if (op == "concat") return n.inputs.size() == 1 ? x : no_value;
    if (op == "transpose") {
      std::vector<int64_t> perm = permutation(n);
      bool identity = true;
      for (size_t i = 0; i < perm.size(); i++) identity &= perm[i] == int64_t(i);
      if (identity) return x;
    }
    if (op == "slice" && same) {
      AttrMap a = n.op->attrs.write(n.attrs.get());
      return all_are(integers(a, "begin"), 0) && all_are(integers(a, "stride"), 1) ? x : no_value;
    }
    if (op == "pad" && same) {
      AttrMap a = n.op->attrs.write(n.attrs.get());
      return all_are(integers(a, "low"), 0) && all_are(integers(a, "high"), 0) && all_are(integers(a, "interior"), 0) ? x
                                                                                                                      : no_value;
    }
    return no_value;
  }

  /// What only moves the elements of a constant is another constant; so is a cast of a number that every dtype holds.
  void refill(Node& n) {
    double value;
    const std::string& op_name = n.op->name;
    bool moves =
        op_name == "reshape" || op_name == "broadcast_to" || op_name == "transpose" || op_name == "slice" || op_name == "reverse";
    if (!(moves || op_name == "cast") || !is_full(n.inputs[0], &value)) return;
    const TensorType& y = f.types[size_t(n.outputs[0])];
    if (op_name == "cast" && !(value >= 0 && value <= 255 && value == std::floor(value))) return;
    if (y.dtype == DType::bool_ && value != 0) value = 1;
    n.op = &op("full");
    n.attrs =
        n.op->attrs.read("full", {{"shape", attr_list(y.shape)}, {"value", {value}}, {"dtype", {std::string(name_of(y.dtype))}}});
    n.inputs.clear();
  }

  void merge_chain(Node& n) {
    const Node* before = n.inputs.empty() ? nullptr : made_by(n.inputs[0]);
    if (!before) return;
    if (n.op->name == "reshape" && before->op->name == "reshape") {
      n.inputs[0] = before->inputs[0];
    } else if (n.op->name == "transpose" && before->op->name == "transpose") {
      std::vector<int64_t> outer = permutation(n), inner = permutation(*before);
      for (int64_t& p : outer) p = inner[size_t(p)];
      n.attrs = n.op->attrs.read("transpose", {{"perm", attr_list(outer)}});
      n.inputs[0] = before->inputs[0];
    } else if (n.op->name == "slice" && before->op->name == "broadcast_to") {
      slice_first(n, before->inputs[0]);
    }
  }

  /// n, a slice of x broadcast, becomes the broadcast of a slice of x.
  void slice_first(Node& n, ValueId x) {
    const Dims from = shape(x), taken = shape(n.outputs[0]);
    const size_t lead = taken.size() - from.size();
    AttrMap a = n.op->attrs.write(n.attrs.get());
    std::vector<int64_t> begin = integers(a, "begin"), stride = integers(a, "stride"), size, to;
    begin.erase(begin.begin(), begin.begin() + long(lead)), stride.erase(stride.begin(), stride.begin() + long(lead));
    TensorType part{f.types[size_t(x)].dtype, {}};
    for (size_t i = 0; i < from.size(); i++) {
      bool repeated = from[i].is(1);  // each element taken of it is the same one
      size.push_back(repeated ? std::min<int64_t>(1, taken[lead + i].value()) : taken[lead + i].value());
      if (repeated) begin[i] = 0, stride[i] = 1;
      part.shape.push_back(size.back());
    }
    for (const Dim& d : taken) to.push_back(d.value());
    Node s;
    s.op = n.op;
    s.attrs = s.op->attrs.read("slice", {{"begin", attr_list(begin)}, {"size", attr_list(size)}, {"stride", attr_list(stride)}});
    s.inputs = {x};
    s.outputs = {f.add_value(part)};
    s.paths = n.paths;
    n.op = &op("broadcast_to");
    n.attrs = n.op->attrs.read("broadcast_to", {{"shape", attr_list(to)}});
    n.inputs = s.outputs;
    ValueId other = stands_for(s);
    if (other == no_value)
      add(std::move(s));
    else
      n.inputs = {other};
  }

  void add(Node n) {
    for (ValueId v : n.outputs) {
      if (size_t(v) >= producer.size()) producer.resize(size_t(v) + 1, -1), alias.resize(size_t(v) + 1);
      producer[size_t(v)] = int(kept.size());
      alias[size_t(v)] = v;
    }
    kept.push_back(std::move(n));
  }

  /// Operands of pointwise ops without their broadcast.
  void narrow_operands(Node& n) {
    for (size_t i = 0; i < n.inputs.size(); i++) {
      bool broadcast = made_by(n.inputs[i], "broadcast_to");
      bool full = !broadcast && made_by(n.inputs[i], "full") && !shape(n.inputs[i]).empty();
      if (!broadcast && !full) continue;
      Dims rest = broadcast ? shape(made_by(n.inputs[i])->inputs[0]) : Dims{};
      for (size_t k = 0; k < n.inputs.size(); k++)
        if (k != i) rest = dagrt::broadcast(rest, shape(n.inputs[k]));
      if (rest != shape(n.outputs[0])) continue;
      if (broadcast) {
        n.inputs[i] = made_by(n.inputs[i])->inputs[0];
      } else {
        Node scalar = *made_by(n.inputs[i]);
        AttrMap a = scalar.op->attrs.write(scalar.attrs.get());
        a["shape"] = AttrValue{AttrList{}};
        scalar.attrs = scalar.op->attrs.read("full", a);
        scalar.outputs = {f.add_value({f.types[size_t(n.inputs[i])].dtype, {}})};
        n.inputs[i] = scalar.outputs[0];
        add(std::move(scalar));
      }
    }
  }

  void run() {
    alias.resize(f.types.size());
    for (size_t v = 0; v < alias.size(); v++) alias[v] = ValueId(v);
    producer.assign(f.types.size(), -1);
    kept.reserve(f.nodes.size());
    for (Node& node : f.nodes) {
      for (ValueId& v : node.inputs)
        if (v != no_value) v = alias[size_t(v)];
      if (node.inputs.size() == 1) refill(node);
      merge_chain(node);
      ValueId other = node.outputs.size() == 1 ? stands_for(node) : no_value;
      if (other != no_value) {
        alias[size_t(node.outputs[0])] = other;
        continue;
      }
      if (node.op->pointwise && node.inputs.size() > 1) narrow_operands(node);
      add(std::move(node));
    }
    f.nodes = std::move(kept);
    apply_aliases(f, alias);
  }
};

}  // namespace

void fold_layout(Module& module) {
  for (Function& f : module.functions) Folding{module, f}.run();
}

}  // namespace dagrt
