// choose_algorithms: convolutions and products become the op that computes them fastest, by ops/estimate.h.
//   conv2d(x, w)               -> conv2d_winograd(x, winograd_weights(w)), conv2d_packed(x, pack_conv2d(w))
//   conv2d_input_grad(dy, w)   -> the same of dy, with turned filters and what the window leaves of the padding
//   conv2d_filter_grad(x, dy)  -> conv2d_filter_grad_winograd(x, dy)
//   matmul(a, b)               -> matmul_packed(a, pack_matmul(b)); where both hold bfloat16s (passes/widen_halves) and
//                                 weights take more time than products, or the machine multiplies bfloat16s the
//                                 faster: matmul_bf16_packed(a, pack_matmul_bf16(b)); so does a 1x1 convolution
// A Winograd convolution of an image that nearest-neighbour upsampling made reads the small one, `upsample` told.
// What an algorithm needs of the weights is a node of its own. Where weights do not change from run to run, the plan
// hoists it and it costs nothing; elsewhere it is made in every run, and counted. Packing alone pays only where it is
// hoisted: the plain ops pack inside.
// `exact` allows the algorithms that round no worse than the direct sum: F(2,3) and packing.
//
// In the body of a scan, weights are looked at that come from outside: their node stands there, before the scan, which takes
// what it makes as one more captured value.
//
// Before: a specialised module without gradients and epilogues. After: the same, values under the same ids. Bodies are looked
// at where one scan of the entry uses them.
#include <map>
#include <set>

#include "ir/lists.h"
#include "ir/op_view.h"
#include "ir/text.h"
#include "ops/estimate.h"
#include "passes/conv.h"
#include "passes/passes.h"
#include "passes/steady.h"
#include "passes/uses.h"

namespace dagrt {
namespace {

class Chooser {
 public:
  Chooser(Module& m, bool exact) : m_(m), f_(m.functions.front()), exact_(exact), steady_(steady_values(f_)) {
    note_upsampling();
  }

  /// A body, and the one scan that uses it.
  Chooser(Chooser& entry, Node& scan)
      : m_(entry.m_), f_(entry.m_.function(scan.as<ScanAttrs>().body)), exact_(entry.exact_), entry_(&entry), scan_(&scan) {
    note_upsampling();
  }

  void run() {
    std::map<std::string, int> bodies;  // how many scans use each
    for (const Function& f : m_.functions)
      for (const Node& n : f.nodes)
        if (n.op->role == Structural::scan) bodies[n.as<ScanAttrs>().body]++;
    std::vector<Node> old = std::move(f_.nodes);
    f_.nodes.clear();
    f_.nodes.reserve(old.size() + 16);
    for (Node& n : old) {
      const std::string& op = n.op->name;
      if (op == "conv2d" && n.inputs.size() == 2)
        convolution(n);
      else if (op == "conv2d_input_grad" && n.inputs.size() == 2)
        input_gradient(n);
      else if (op == "conv2d_filter_grad" && !entry_)
        filter_gradient(n);
      else if (op == "matmul" && n.inputs.size() == 2)
        product(n);
      else if (n.op->role == Structural::scan && !entry_ && bodies[n.as<ScanAttrs>().body] == 1)
        Chooser(*this, n).run();
      note_rounding(n);
      f_.nodes.push_back(std::move(n));
    }
  }

 private:
  /// Values that bfloat16 holds, and of rounded ones what they were.
  void note_rounding(const Node& n) {
    static const std::set<std::string> moving{"relu", "relu6", "reshape", "transpose", "slice", "concat", "max_pool2d"};
    const std::string& op = n.op->name;
    bool holds = op == "round_bfloat16" || (op == "cast" && f_.types[size_t(n.inputs[0])].dtype == DType::bfloat16);
    if (moving.count(op)) {
      holds = true;
      for (ValueId v : n.inputs) holds = holds && v != no_value && bf16_.count(v);
    }
    if (!holds || f_.types[size_t(n.outputs[0])].dtype != DType::float32) return;
    bf16_[n.outputs[0]] = op == "round_bfloat16" ? n.inputs[0] : n.outputs[0];
  }

  struct Upsampled {
    ValueId small;
    int64_t rows, columns;
  };

  /// reshape(broadcast_to(reshape(x), [B,H,rows,W,columns,C])): x repeated along its height and width.
  void note_upsampling() {
    const Uses uses(f_);
    for (const Node& n : f_.nodes) {
      if (n.op->name != "reshape") continue;
      const Node* wide = uses.made_by(f_, n.inputs[0], "broadcast_to");
      const Node* narrow = wide ? uses.made_by(f_, wide->inputs[0], "reshape") : nullptr;
      if (!narrow) continue;
      const Dims &x = shape(narrow->inputs[0]), &small = shape(wide->inputs[0]), &large = shape(wide->outputs[0]);
      const Dims& y = shape(n.outputs[0]);
      if (x.size() != 4 || y.size() != 4 || small.size() != 6 || large.size() != 6) continue;
      if (f_.types[size_t(narrow->inputs[0])].dtype != DType::float32) continue;
      const int64_t rows = large[2].value(), columns = large[4].value(), H = x[1].value(), W = x[2].value();
      const Dims kept{x[0], x[1], 1, x[2], 1, x[3]}, repeated{x[0], x[1], rows, x[2], columns, x[3]};
      if (small != kept || large != repeated || y != Dims{x[0], H * rows, W * columns, x[3]}) continue;
      upsampled_[n.outputs[0]] = {narrow->inputs[0], rows, columns};
    }
  }

  const Dims& shape(ValueId v) const { return f_.types[size_t(v)].shape; }
  static AttrMap attrs_of(const Node& n) { return n.op->attrs.write(n.attrs.get()); }

  void convolution(Node& n) {
    AttrMap map = attrs_of(n);
    Conv c(map, shape(n.inputs[0]), shape(n.inputs[1]), shape(n.outputs[0]));
    convolve(n, c, map, false);
  }

  /// The input gradient of unit strides is a convolution of dy.
  void input_gradient(Node& n) {
    AttrMap map = attrs_of(n);
    Conv c(map, shape(n.outputs[0]), shape(n.inputs[1]), shape(n.inputs[0]));
    if (!c.unit_strides()) return;
    for (size_t i = 0; i < 4; i++) c.pads[i] = c.reach(int(i / 2)) - 1 - c.pads[i];
    for (int64_t pad : c.pads)
      if (pad < 0) return;
    std::swap(c.s.H, c.s.P), std::swap(c.s.W, c.s.Q), std::swap(c.s.C, c.s.F);
    map.erase("input_size");
    map["padding"] = {std::string("explicit")};
    map["pads"] = attr_list(c.pads);
    convolve(n, c, map, true);
  }

  /// n(x, w) becomes a convolution of x by an algorithm for the sizes `c`; `map` holds its window.
  void convolve(Node& n, const Conv& c, AttrMap map, bool transpose) {
    if (c.empty()) return;
    if (!reachable(n.inputs[1])) return;
    bool steady = is_steady(n.inputs[1]);
    const bool dense = c.plain() && c.s.R == 1 && c.s.S == 1 && c.pads == std::vector<int64_t>(4, 0) && !transpose;
    if (dense && steady && are_bf16(n) && c.s.C >= least_bf16 &&
        bf16_matmul_ns(c.s.B * c.s.P * c.s.Q, c.s.F, c.s.C) < direct_conv2d_ns(c.s)) {
      const ValueId w = bf16_.at(n.inputs[1]);
      n.inputs[1] = weights("reshape", w, n.paths, {{"shape", attr_list(Dims{c.s.C, c.s.F})}});
      return multiply_bf16(n, c.s.F, false);
    }
    int64_t tile = best_tile(c, {2, 4, 7}, direct_conv2d_ns(c.s), [&](int64_t t) { return winograd_conv2d_ns(c.s, t, !steady); });
    map["kernel_size"] = attr_list(std::vector<int64_t>{c.s.R, c.s.S});
    map["filters"] = {c.s.F};
    if (tile) {
      for (const char* name : {"strides", "dilations", "groups"}) map.erase(name);
      map["tile"] = {tile};
      if (auto up = upsampled_.find(n.inputs[0]); up != upsampled_.end()) {
        n.inputs[0] = up->second.small;
        map["upsample"] = attr_list(std::vector<int64_t>{up->second.rows, up->second.columns});
      }
      n.inputs[1] = weights("winograd_weights", n.inputs[1], n.paths, {{"tile", {tile}}, {"transpose", {transpose}}});
      become(n, "conv2d_winograd", map);
    } else if (steady && find_op("conv2d_packed")) {
      n.inputs[1] = weights("pack_conv2d", n.inputs[1], n.paths, {{"groups", {c.s.groups}}, {"transpose", {transpose}}});
      become(n, "conv2d_packed", map);
    }
  }

  void filter_gradient(Node& n) {
    AttrMap map = attrs_of(n);
    Conv c(map, shape(n.inputs[0]), shape(n.outputs[0]), shape(n.inputs[1]));
    if (c.empty()) return;
    int64_t tile = best_tile(c, {2, 4}, direct_conv2d_ns(c.s, true), [&](int64_t t) { return winograd_filter_grad_ns(c.s, t); });
    if (!tile) return;
    for (const char* name : {"strides", "dilations", "groups"}) map.erase(name);
    map["tile"] = {tile};
    become(n, "conv2d_filter_grad_winograd", map);
  }

  /// The fastest of the tiles that apply, or 0: the direct sum.
  template <class Ns>
  int64_t best_tile(const Conv& c, std::initializer_list<int64_t> tiles, double direct_ns, const Ns& ns) const {
    int64_t best = 0;
    if (!c.plain()) return best;
    for (int64_t tile : tiles) {
      if (!has_winograd(c.s.R, c.s.S, tile) || (exact_ && tile != 2)) continue;
      if (double t = ns(tile); t < direct_ns) direct_ns = t, best = tile;
    }
    return best;
  }

  void product(Node& n) {
    if (!find_op("matmul_packed") || !is_steady(n.inputs[1])) return;
    AttrMap map = attrs_of(n);
    const Dims& b = shape(n.inputs[1]);
    bool transpose_a = std::get<bool>(map.at("transpose_a").v), transpose_b = std::get<bool>(map.at("transpose_b").v);
    if (transpose_a || b.size() != 2) return;  // one row gains too: panels are read in sequence
    const int64_t columns = b[transpose_b ? 0 : 1].value(), K = b[transpose_b ? 1 : 0].value();
    if (are_bf16(n) && columns >= least_bf16 && K >= least_bf16) {
      int64_t rows = 1;
      for (size_t i = 0; i + 1 < shape(n.inputs[0]).size(); i++) rows *= shape(n.inputs[0])[i].value();
      if (bf16_matmul_ns(rows, columns, K) < packed_matmul_ns(rows, columns, K)) {
        n.inputs[1] = bf16_.at(n.inputs[1]);
        return multiply_bf16(n, columns, transpose_b);
      }
    }
    n.inputs[1] = weights("pack_matmul", n.inputs[1], n.paths, {{"transpose_b", {transpose_b}}});
    become(n, "matmul_packed", {{"columns", {columns}}});
  }

  bool are_bf16(const Node& n) const { return bf16_.count(n.inputs[0]) && bf16_.count(n.inputs[1]); }
  /// n becomes the product with its matrix, which packing rounds.
  void multiply_bf16(Node& n, int64_t columns, bool transpose_b) {
    n.inputs[1] = weights("pack_matmul_bf16", n.inputs[1], n.paths, {{"transpose_b", {transpose_b}}});
    become(n, "matmul_bf16_packed", {{"columns", {columns}}});
  }

  /// In a body: the value outside that `v` is, or no_value where it is made inside or by the scan.
  ValueId captured(ValueId v) const {
    const ScanAttrs& a = scan_->as<ScanAttrs>();
    for (size_t i = size_t(a.carries + a.sequences); i + 1 < f_.inputs.size(); i++)
      if (f_.inputs[i].value == v) return scan_->inputs[i];
    return no_value;
  }
  /// Whether a node of `v` alone can stand in the entry.
  bool reachable(ValueId v) const { return !entry_ || captured(v) != no_value; }
  bool is_steady(ValueId v) const {
    if (!entry_) return steady_[size_t(v)];
    const ValueId outside = captured(v);
    return outside != no_value && entry_->is_steady(outside);
  }

  /// A node of the weights `w` alone, before who wants it; one for all that want the same.
  ValueId weights(const char* name, ValueId w, const std::vector<std::string>& paths, const AttrMap& attrs) {
    auto [at, is_new] = made_.try_emplace({name + text(attrs), w}, no_value);
    if (!is_new) return at->second;
    if (entry_) {
      const ValueId outside = entry_->weights(name, captured(w), paths, attrs);
      at->second = f_.add_value(entry_->f_.types[size_t(outside)]);
      f_.inputs.insert(f_.inputs.end() - 1, {name, at->second});  // behind it the step
      scan_->inputs.push_back(outside);
      return at->second;
    }
    Node n;
    n.op = &op(name);
    n.attrs = n.op->attrs.read(name, attrs);
    n.inputs = {w};
    n.paths = paths;
    at->second = f_.add_value(infer_node(m_, f_, n)[0]);
    n.outputs = {at->second};
    f_.nodes.push_back(std::move(n));
    return at->second;
  }

  static void become(Node& n, const char* name, const AttrMap& attrs) {
    n.op = &op(name);
    n.attrs = n.op->attrs.read(name, attrs);
  }

  Module& m_;
  Function& f_;
  bool exact_;
  Chooser* entry_ = nullptr;                 // of a body: the function around it,
  Node* scan_ = nullptr;                     // and the scan
  std::vector<char> steady_;                 // by value of the entry, of before
  static constexpr int64_t least_bf16 = 64;  // in smaller matrices latencies count, not bytes
  std::map<ValueId, ValueId> bf16_;
  std::map<ValueId, Upsampled> upsampled_;
  std::map<std::pair<std::string, ValueId>, ValueId> made_;  // weights' nodes
};

}  // namespace

void choose_algorithms(Module& module, bool exact) { Chooser(module, exact).run(); }

}  // namespace dagrt
