// expand_gradients: replaces every `gradients` node by the nodes that compute it.
//
// Before: a specialised module. After: the same without `gradients` nodes.
// Reverse accumulation: the nodes before the `gradients` node are walked backwards; each op's `grad` emits what its
// inputs receive, and what several nodes send to one value is added in that order. A `read` with an input is a leaf: a
// variable stands for the value that the loss read, and no gradient passes into what was assigned to it.
// Inner `gradients` come first in node order, so an outer one differentiates plain nodes.
//
// A scan's gradient is a scan the other way round. The forward scan also stacks the carries with which each step began;
// a step of the backward scan runs the body again from them and differentiates it:
//   carries: gradients of the carries, sums for the captured values; sequences: saved carries, elements, gradients of y.
#include <map>

#include "ir/locate.h"
#include "ir/op_view.h"
#include "ops/op.h"
#include "passes/passes.h"

namespace dagrt {
namespace {

using Gradients = std::vector<ValueId>;  // by value; no_value: nothing flows there

struct Expansion {
  Module& module;
  Function& f;
  Builder b{module, f};

  void add_to(Gradients& grads, ValueId v, ValueId g) {
    if (g == no_value) return;
    if (grads.size() < f.types.size()) grads.resize(f.types.size(), no_value);
    const TensorType want = f.types[size_t(v)], got = f.types[size_t(g)];
    if (want.shape != got.shape)
      fail(ErrorKind::internal, "a gradient of shape ", text(got.shape), " was given for ", text(want.shape));
    if (want.dtype != got.dtype) g = b.cast(g, want.dtype);
    ValueId& slot = grads[size_t(v)];
    slot = slot == no_value ? g : b.add(slot, g);
  }

  /// Which values of the first `count` nodes depend on `wrt` in a way that gradients follow.
  std::vector<char> dependence(size_t count, const std::vector<ValueId>& wrt) {
    std::vector<char> depends(f.types.size());
    for (ValueId v : wrt) depends[size_t(v)] = is_float(f.types[size_t(v)].dtype);
    for (size_t n = 0; n < count; n++) {
      const Node& node = f.nodes[n];
      const Op& op = *node.op;
      bool follows = op.grad || op.not_differentiable || op.role == Structural::scan;
      if (!follows) continue;
      bool any = false;
      for (ValueId v : node.inputs) any |= v != no_value && depends[size_t(v)];
      if (any)
        for (ValueId v : node.outputs) depends[size_t(v)] |= is_float(f.types[size_t(v)].dtype);
    }
    return depends;
  }

  /// Emits the gradients of `wrt`, given those of some values (`grads`), through the first `count` nodes.
  std::vector<ValueId> backward(size_t count, Gradients grads, const std::vector<ValueId>& wrt) {
    std::vector<char> depends = dependence(count, wrt);
    grads.resize(f.types.size(), no_value);
    for (size_t n = count; n-- > 0;) {
      const Node node = f.nodes[n];  // a copy: emitting moves the nodes
      bool reached = false, wanted = false;
      for (ValueId v : node.outputs) reached |= size_t(v) < grads.size() && grads[size_t(v)] != no_value;
      for (ValueId v : node.inputs) wanted |= v != no_value && depends[size_t(v)];
      if (!reached || !wanted || !depends[size_t(node.outputs[0])]) {
        bool any = false;
        for (ValueId v : node.outputs) any |= bool(depends[size_t(v)]);
        if (!reached || !wanted || !any) continue;
      }
      b.paths = node.paths;
      try {
        step(n, node, grads, depends);
      } catch (const Error& e) {
        throw located(node, e);
      }
    }
    std::vector<ValueId> result;
    for (ValueId v : wrt) {
      ValueId g = size_t(v) < grads.size() ? grads[size_t(v)] : no_value;
      if (g == no_value) g = b.full(f.types[size_t(v)].shape, 0, f.types[size_t(v)].dtype);
      result.push_back(g);
    }
    return result;
  }

  void step(size_t n, const Node& node, Gradients& grads, const std::vector<char>& depends) {
    const Op& op = *node.op;
    if (op.not_differentiable) fail(ErrorKind::graph, op.name, ": ", op.not_differentiable);
    if (op.role == Structural::scan) return scan(n, grads, depends);
    if (!op.grad) return;
    GradContext c{b, node, {}, {}, {}};
    for (ValueId v : node.outputs) c.out_grads.push_back(size_t(v) < grads.size() ? grads[size_t(v)] : no_value);
    for (ValueId v : node.inputs) c.wanted.push_back(v != no_value && depends[size_t(v)]);
    c.in_grads.assign(node.inputs.size(), no_value);
    op.grad(c);
    for (size_t i = 0; i < node.inputs.size(); i++)
      if (c.wanted[i]) add_to(grads, node.inputs[i], c.in_grads[i]);
  }

  std::string fresh_name(const std::string& base) { return base + "@" + std::to_string(module.functions.size()); }

  void scan(size_t n, Gradients& grads, const std::vector<char>& depends) {
    ScanAttrs attrs = f.nodes[n].as<ScanAttrs>();
    const Function& body = module.function(attrs.body);
    size_t carries = size_t(attrs.carries), sequences = size_t(attrs.sequences);
    size_t captured = f.nodes[n].inputs.size() - carries - sequences;
    size_t ys = body.outputs.size() - carries;

    // The forward scan, which also gives the carries that each step began with.
    module.functions.push_back(body);
    Function& saving = module.functions.back();
    saving.name = fresh_name(body.name + ".saving");
    for (size_t i = 0; i < carries; i++) saving.outputs.push_back(saving.inputs[i].value);
    saving.output_names.resize(saving.outputs.size());
    std::vector<ValueId> saved;
    for (size_t i = 0; i < carries; i++) {
      TensorType t = f.types[size_t(f.nodes[n].inputs[i])];
      t.shape.insert(t.shape.begin(), attrs.length);
      saved.push_back(f.add_value(t));
    }
    ScanAttrs forward = attrs;
    forward.body = saving.name;
    f.nodes[n].attrs = std::make_shared<ScanAttrs>(forward);
    f.nodes[n].outputs.insert(f.nodes[n].outputs.end(), saved.begin(), saved.end());
    const Node node = f.nodes[n];
    auto gradient_of = [&](size_t output) {
      ValueId v = node.outputs[output];
      return size_t(v) < grads.size() ? grads[size_t(v)] : no_value;
    };

    // The body of the backward scan: the forward body again, then its gradient.
    module.functions.push_back(body);
    Function& back = module.functions.back();
    back.name = fresh_name(body.name + ".gradient");
    back.outputs.clear();
    back.output_names.clear();
    Expansion inner{module, back};
    std::vector<Input> inputs;
    Gradients seeds(back.types.size(), no_value);
    std::vector<ValueId> wrt;
    std::vector<size_t> float_carries, wanted_captured, wanted_sequences;
    std::vector<ValueId> first;  // inputs of the backward scan: carries, sequences, captured
    auto new_input = [&](const char* name, const TensorType& t) {
      ValueId v = back.add_value(t);
      inputs.push_back({name, v});
      return v;
    };
    for (size_t i = 0; i < carries; i++) {
      ValueId own = back.inputs[i].value;
      const TensorType t = back.types[size_t(own)];
      if (!is_float(t.dtype)) continue;
      float_carries.push_back(i);
      ValueId seed = new_input("carry gradient", t);
      seeds.resize(back.types.size(), no_value);
      inner.add_to(seeds, body.outputs[i], seed);
      wrt.push_back(own);
      ValueId start = gradient_of(i);
      first.push_back(start != no_value ? start : b.full(t.shape, 0, t.dtype));
    }
    std::vector<ValueId> sums;
    for (size_t i = 0; i < captured; i++) {
      size_t at = carries + sequences + i;
      if (!depends[size_t(node.inputs[at])]) continue;
      wanted_captured.push_back(at);
      ValueId own = back.inputs[at].value;
      const TensorType t = back.types[size_t(own)];
      sums.push_back(new_input("captured gradient", t));
      wrt.push_back(own);
      first.push_back(b.full(t.shape, 0, t.dtype));
    }
    size_t back_carries = first.size();
    for (size_t i = 0; i < carries; i++) {
      inputs.push_back(back.inputs[i]);
      first.push_back(saved[i]);
    }
    for (size_t i = 0; i < sequences; i++) {
      inputs.push_back(back.inputs[carries + i]);
      first.push_back(node.inputs[carries + i]);
      if (!depends[size_t(node.inputs[carries + i])]) continue;
      wanted_sequences.push_back(carries + i);
      wrt.push_back(back.inputs[carries + i].value);
    }
    for (size_t k = 0; k < ys; k++) {
      ValueId g = gradient_of(carries + k);
      if (g == no_value) continue;
      ValueId y = body.outputs[carries + k];
      ValueId seed = new_input("y gradient", back.types[size_t(y)]);
      seeds.resize(back.types.size(), no_value);
      inner.add_to(seeds, y, seed);
      first.push_back(g);
    }
    size_t back_sequences = first.size() - back_carries;
    for (size_t i = 0; i < captured; i++) {
      inputs.push_back(back.inputs[carries + sequences + i]);
      first.push_back(node.inputs[carries + sequences + i]);
    }
    inputs.push_back(back.inputs.back());  // step

    size_t own_nodes = body.nodes.size();
    std::vector<ValueId> found = inner.backward(own_nodes, seeds, wrt);
    back.inputs = std::move(inputs);
    size_t at = 0;
    for (size_t i = 0; i < float_carries.size(); i++) back.outputs.push_back(found[at++]);
    for (ValueId sum : sums) back.outputs.push_back(inner.b.add(sum, found[at++]));
    for (size_t i = 0; i < wanted_sequences.size(); i++) back.outputs.push_back(found[at++]);
    back.output_names.resize(back.outputs.size());

    Node backward_scan;
    backward_scan.op = &op("scan");
    ScanAttrs a;
    a.body = back.name;
    a.carries = int64_t(back_carries);
    a.sequences = int64_t(back_sequences);
    a.reverse = !attrs.reverse;
    a.length = attrs.length;
    backward_scan.attrs = std::make_shared<ScanAttrs>(a);
    backward_scan.inputs = first;
    backward_scan.paths = node.paths;
    for (TensorType& t : infer_node(module, f, backward_scan)) backward_scan.outputs.push_back(f.add_value(std::move(t)));
    std::vector<ValueId> results = backward_scan.outputs;
    f.nodes.push_back(std::move(backward_scan));
    at = 0;
    for (size_t i : float_carries) give(grads, depends, node.inputs[i], results[at++]);
    for (size_t i : wanted_captured) give(grads, depends, node.inputs[i], results[at++]);
    for (size_t i : wanted_sequences) give(grads, depends, node.inputs[i], results[at++]);
  }

  void give(Gradients& grads, const std::vector<char>& depends, ValueId v, ValueId g) {
    if (depends[size_t(v)]) add_to(grads, v, g);
  }

  void expand_all() {
    for (size_t n = 0; n < f.nodes.size(); n++) {
      if (f.nodes[n].op->role != Structural::gradients) continue;
      Node node = std::move(f.nodes[n]);
      std::vector<Node> tail(std::make_move_iterator(f.nodes.begin() + ptrdiff_t(n) + 1), std::make_move_iterator(f.nodes.end()));
      f.nodes.resize(n);
      ValueId loss = node.inputs[0];
      std::vector<ValueId> wrt(node.inputs.begin() + 1, node.inputs.end());
      b.paths = node.paths;
      Gradients grads(f.types.size(), no_value);
      ValueId one = b.scalar(1.0, f.types[size_t(loss)].dtype);
      grads.resize(f.types.size(), no_value);
      grads[size_t(loss)] = one;
      std::vector<ValueId> found = backward(n, std::move(grads), wrt);
      std::vector<ValueId> alias(f.types.size());
      for (size_t v = 0; v < alias.size(); v++) alias[v] = ValueId(v);
      for (size_t i = 0; i < found.size(); i++) alias[size_t(node.outputs[i])] = found[i];
      n = f.nodes.size() - 1;
      for (Node& t : tail) f.nodes.push_back(std::move(t));
      apply_aliases(f, alias);
    }
  }
};

}  // namespace

void apply_aliases(Function& f, const std::vector<ValueId>& alias) {
  auto root = [&](ValueId v) {
    while (v != no_value && alias[size_t(v)] != v) v = alias[size_t(v)];
    return v;
  };
  for (Node& node : f.nodes)
    for (ValueId& v : node.inputs) v = root(v);
  for (ValueId& v : f.outputs) v = root(v);
  for (Store& s : f.stores) {
    s.value = root(s.value);
    s.when = root(s.when);
  }
  f.guard = root(f.guard);
}

void expand_gradients(Module& module) {
  // Bodies stand behind the functions that use them: the innermost is expanded first.
  for (size_t i = module.functions.size(); i-- > 0;) Expansion{module, module.functions[i]}.expand_all();
}

}  // namespace dagrt
