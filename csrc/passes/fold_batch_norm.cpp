// fold_batch_norm: at inference a normalisation is y a + b for each channel, with factors that depend on variables alone.
// Behind a product with weights of variables alone (dense, convolution, transposed convolution) they go into the weights and
// a bias:
//   (x * w) a + b = x * (w a) + b
// Weights rounded to bfloat16 (passes/widen_halves) are rounded behind the factor instead: once, as before, and kernels that
// multiply bfloat16s may take them.
// New weights and bias are computed from variables alone, so that the plan computes them once. Any chain of sums and
// products with such factors folds, in any order; one without a product is left to fuse_epilogues.
//
// Before and after: a specialised module without gradients. Rounding differs, as of a sum in another order.
#include "ir/op_view.h"
#include "passes/passes.h"
#include "passes/steady.h"
#include "passes/uses.h"

namespace dagrt {
namespace {

class Folding {
 public:
  Folding(Module& m, Function& f) : f_(f), b_(m, f), uses_(f), steady_(steady_values(f)), taken_(f.nodes.size(), false) {}

  void run() {
    std::vector<Chain> chains;
    for (size_t i = 0; i < f_.nodes.size(); i++) {
      const Node& n = f_.nodes[i];
      rounds_.push_back(n.op->name == "round_bfloat16" ? n.inputs[0] : no_value);
      Chain c{int(i), {}};
      if (find_chain(c)) chains.push_back(std::move(c));
    }
    if (chains.empty()) return;
    // The folded product stands where the chain ended, and all its factors are there.
    std::vector<int> ends(f_.nodes.size(), -1);
    for (size_t k = 0; k < chains.size(); k++) {
      for (int m : chains[k].members) taken_[size_t(m)] = true;
      taken_[size_t(chains[k].producer)] = true;
      ends[size_t(chains[k].members.back())] = int(k);
    }
    old_ = std::move(f_.nodes);
    f_.nodes.clear();
    for (size_t i = 0; i < old_.size(); i++) {
      if (ends[i] >= 0)
        emit(chains[size_t(ends[i])]);
      else if (!taken_[i])
        f_.nodes.push_back(std::move(old_[i]));
    }
  }

 private:
  struct Chain {
    int producer;
    std::vector<int> members;
  };

  const TensorType& type(ValueId v) const { return f_.types[size_t(v)]; }

  /// The weights' axis of the product's channels; -1 where the node is no product with fixed weights.
  int channel_axis(const Node& n) const {
    const std::string& name = n.op->name;
    if (n.inputs.size() != 2 || !steady_[size_t(n.inputs[1])] || steady_[size_t(n.inputs[0])]) return -1;
    const TensorType &w = type(n.inputs[1]), &y = type(n.outputs[0]);
    int axis = -1;
    if (name == "conv2d") axis = 3;
    if (name == "conv2d_input_grad") axis = 2;  // groups: fewer than y's channels, refused below
    if (name == "matmul" && w.rank() == 2)
      axis = std::get<bool>(attrs_of(*n.op).write(n.attrs.get()).at("transpose_b").v) ? 0 : 1;
    return axis >= 0 && w.shape[size_t(axis)] == y.shape.back() ? axis : -1;
  }

  /// Whether v is a fixed number for all or for each channel of y.
  bool is_factor(ValueId v, const TensorType& y) const {
    const TensorType& t = type(v);
    if (!steady_[size_t(v)] || t.dtype != DType::float32) return false;
    if (t.rank() == 0) return true;
    if (t.rank() > y.rank()) return false;
    for (int k = 0; k + 1 < t.rank(); k++)
      if (!t.shape[size_t(k)].is(1)) return false;
    return t.shape.back() == y.shape.back() || t.shape.back().is(1);
  }

  bool find_chain(Chain& c) const {
    const Node& n = f_.nodes[size_t(c.producer)];
    if (channel_axis(n) < 0) return false;
    ValueId v = n.outputs[0];
    const TensorType& y = type(v);
    bool scaled = false;
    while (!uses_.kept[size_t(v)] && uses_.users[size_t(v)].size() == 1) {
      int u = uses_.users[size_t(v)][0];
      const Node& next = f_.nodes[size_t(u)];
      const std::string& name = next.op->name;
      bool scales = name == "multiply" || name == "divide";
      if (!scales && name != "add" && name != "subtract") break;
      bool first = next.inputs[0] == v;
      ValueId other = next.inputs[first ? 1 : 0];
      if (other == v || !is_factor(other, y) || type(next.outputs[0]).shape != y.shape || (name == "divide" && !first)) break;
      c.members.push_back(u);
      v = next.outputs[0];
      scaled |= scales;
    }
    return scaled;
  }

  /// A factor as [C] or [].
  ValueId flat(ValueId v) {
    const TensorType t = type(v);
    if (t.rank() == 0) return v;
    return t.shape.back().is(1) ? b_.reshape(v, {}) : b_.reshape(v, {t.shape.back()});
  }

  void emit(const Chain& c) {
    Node n = std::move(old_[size_t(c.producer)]);
    int axis = channel_axis(n);
    ValueId product = n.outputs[0], v = product, scale = no_value, shift = no_value;
    const TensorType y = type(product);
    for (int m : c.members) {
      const Node& next = old_[size_t(m)];
      const std::string& name = next.op->name;
      bool first = next.inputs[0] == v;
      b_.paths = next.paths;
      add_paths(n.paths, next.paths);
      ValueId k = flat(next.inputs[first ? 1 : 0]);
      if (name == "multiply" || name == "divide") {
        auto apply = [&](ValueId x) { return x == no_value ? x : name == "multiply" ? b_.mul(x, k) : b_.div(x, k); };
        scale = scale != no_value ? apply(scale) : name == "multiply" ? k : b_.div(b_.scalar(1), k);
        shift = apply(shift);
      } else if (name == "add") {
        shift = shift == no_value ? k : b_.add(shift, k);
      } else if (first) {
        shift = shift == no_value ? b_.neg(k) : b_.sub(shift, k);
      } else {
        scale = scale == no_value ? b_.scalar(-1) : b_.neg(scale);
        shift = shift == no_value ? k : b_.sub(k, shift);
      }
      v = next.outputs[0];
    }
    ValueId w = n.inputs[1];
    if (type(scale).rank() == 1) {
      Dims spread(size_t(type(w).rank()), 1);
      spread[size_t(axis)] = type(scale).shape[0];
      scale = b_.reshape(scale, spread);
    }
    const int maker = uses_.producer[size_t(w)];
    if (maker >= 0 && rounds_[size_t(maker)] != no_value)
      n.inputs[1] = b_.emit("round_bfloat16", {b_.mul(rounds_[size_t(maker)], scale)});
    else
      n.inputs[1] = b_.mul(w, scale);
    std::vector<std::string> paths = n.paths;
    if (shift == no_value) {
      n.outputs[0] = v;
      f_.nodes.push_back(std::move(n));
      return;
    }
    f_.nodes.push_back(std::move(n));
    Node sum;
    sum.op = &op("add");
    sum.attrs = sum.op->attrs.read("add", {});
    sum.inputs = {product, shift};
    sum.outputs = {v};
    sum.paths = std::move(paths);
    f_.nodes.push_back(std::move(sum));
  }

  Function& f_;
  Builder b_;
  Uses uses_;
  std::vector<char> steady_;
  std::vector<bool> taken_;
  std::vector<Node> old_;
  std::vector<ValueId> rounds_;  // of a node that rounds to bfloat16: what
};

}  // namespace

void fold_batch_norm(Module& module) {
  for (size_t i = 0; i < module.functions.size(); i++) Folding(module, module.functions[i]).run();
}

}  // namespace dagrt
