// split_batch: a batch goes through the first layers of a prediction part by part, where all its images together do not stay in
// the caches but those of a part do. The layers become the body of a scan over the parts:
//   y = f(x), x [B, ...]   ->   y = reshape(scan(f)(reshape(x, [B / n, n, ...])), [B, ...])
// Every image is computed as before, by the algorithms for n images. What lies between the layers never goes to memory, and
// the arena holds a part of it.
//
// So do small layers, such as those of a perceptron, whose weights all stay in a core's own cache: the parts are at work at the same
// time (runtime/plan.h), and each thread takes its rows through all layers without waiting for the others between them. Layer by
// layer a product of 32 x 64 x 32 or a softmax is too small to hand out.
//
// Layers are taken from the inputs on as far as each part's rows of every value depend on its own rows of the inputs alone
// (Op::batched), and as far as it pays: the bytes that stay in the caches against the weights, which are read once a part. A
// model that multiplies long for each byte is left as it is.
//
// Before: a specialised module, with normalisations folded, before algorithms are chosen. After: the same values.
#include <algorithm>
#include <climits>
#include <cmath>

#include "base/parallel.h"
#include "ir/lists.h"
#include "ir/op_view.h"
#include "ops/op.h"
#include "passes/passes.h"
#include "passes/uses.h"

namespace dagrt {
namespace {

constexpr double cached = 12 << 20;    // bytes that a layer reads and writes and that the last cache keeps for the next,
constexpr double far = 36 << 20;       // and those of which it keeps next to nothing
constexpr double byte_ns = 0.1;        // to memory or from it
constexpr double weight_ns = 0.05;     // a byte that comes from the last cache once more
constexpr double operation_ns = 0.01;  // of convolutions and products
constexpr double worth = 0.25;         // of the time that all layers multiply; less is lost in the noise

// Of small layers.
constexpr double near = 512 << 10;   // bytes of weights that a core's own cache keeps
constexpr double near_ns = 0.00175;  // a byte that comes from there once more
constexpr double row_ns = 25;        // of a layer, however little it multiplies
constexpr double worth_it = 0.02;    // of the time that all layers take
// Powers of two: five parts take two threads as long as six. Of 14 rows, which one tile takes, or more, since fewer read the weights too
// often, and not of more than 32 where there would be fewer than 16 parts.
constexpr int64_t enough_parts = 4, most_parts = 16, least_rows = 14, many_rows = 32;

void add_once(std::vector<ValueId>& list, ValueId v) {
  if (std::find(list.begin(), list.end(), v) == list.end()) list.push_back(v);
}

class Splitter {
 public:
  explicit Splitter(Module& m) : m_(m), f_(m.functions.front()), uses_(f_) {}

  void run() {
    if (!f_.inputs.empty() && type(f_.inputs[0].value).rank() > 0) batch_ = size(f_.inputs[0].value);
    if (batch_ < 2) return;
    find_layers();
    const std::vector<double> leaving = find_leaving();
    choose(leaving);
    if (parts_ == 1 && f_.stores.empty()) choose_at_once(leaving);
    if (parts_ == 1) return;
    layers_.resize(taken_);
    split();
  }

 private:
  const TensorType& type(ValueId v) const { return f_.types[size_t(v)]; }
  int64_t size(ValueId v) const { return type(v).rank() ? type(v).shape[0].value() : -1; }
  double bytes(ValueId v) const { return double(type(v).bytes()); }
  const Node& node(size_t i) const { return f_.nodes[i]; }

  /// The inputs of which a node takes the part that it makes of its outputs, a bit each; 0: not such a node.
  uint32_t batched(const Node& n) const {
    if (n.op->role != Structural::none || n.op->random || n.op->checks || n.inputs.size() > 31) return 0;
    const Types in = f_.types_of(n.inputs), out = f_.types_of(n.outputs);
    if (n.op->pointwise) {
      uint32_t all = 0;
      for (size_t i = 0; i < in.size() && out[0].rank(); i++)
        all |= uint32_t(in[i].rank() == out[0].rank() && in[i].shape[0] == batch_) << i;
      return all;
    }
    return n.op->batched ? n.op->batched(n.attrs.get(), in, out) : 0;
  }

  /// Whether a part of n's outputs follows from the same part of values that are parted already.
  bool can_part(const Node& n) const {
    const uint32_t mask = batched(n);
    bool any = false;
    for (size_t i = 0; i < n.inputs.size(); i++) {
      if (n.inputs[i] == no_value) continue;
      const bool parted = parted_[size_t(n.inputs[i])];
      if (parted != bool(mask >> std::min<size_t>(i, 31) & 1) || crossed_[size_t(n.inputs[i])]) return false;
      any |= parted;
    }
    for (size_t i = 0; i < n.outputs.size(); i++) {
      const ValueId v = n.outputs[i];
      if (size(v) != batch_) return false;
      const bool residual = i + size_t(n.op->residuals) >= n.outputs.size();
      if (residual && (uses_.kept[size_t(v)] || !uses_.users[size_t(v)].empty())) return false;
    }
    return any;
  }

  void find_layers() {
    parted_.assign(f_.types.size(), false);
    crossed_.assign(f_.types.size(), false);
    for (const Input& in : f_.inputs) parted_[size_t(in.value)] = size(in.value) == batch_ && type(in.value).rank() < max_rank;
    for (size_t i = 0; i < f_.nodes.size(); i++) {
      const Node& n = node(i);
      if (can_part(n)) {
        layers_.push_back(i);
        for (ValueId v : n.outputs) parted_[size_t(v)] = true;
        continue;
      }
      bool crosses = false;
      for (ValueId v : n.inputs)
        crosses |= v != no_value && (crossed_[size_t(v)] || (parted_[size_t(v)] && uses_.producer[size_t(v)] >= 0));
      for (ValueId v : n.outputs) crossed_[size_t(v)] = crosses;
    }
  }

  struct Layer {
    double image = 0, weights = 0, ns = 0;  // bytes for each image and beside them; time to multiply
  };

  /// Pointwise nodes are taken for finished with what they read first.
  Layer measure(const Node& n) const {
    Layer l;
    for (size_t i = 0; i < n.inputs.size(); i++) {
      const ValueId v = n.inputs[i];
      if (v == no_value || (n.op->pointwise && i == 0)) continue;
      (parted_[size_t(v)] ? l.image : l.weights) += bytes(v);
    }
    if (!n.op->pointwise) {
      l.image += bytes(n.outputs[0]);
      if (n.op->cost) l.ns = n.op->cost(n.attrs.get(), f_.types_of(n.inputs), f_.types_of(n.outputs)).flops * operation_ns;
    }
    l.image /= double(batch_);
    return l;
  }

  /// In how many parts, and how many of the layers.
  void choose(const std::vector<double>& leaving) {
    std::vector<Layer> all;
    for (size_t i : layers_) all.push_back(measure(node(i)));
    double best = 0;
    for (const Layer& l : all) best += worth * l.ns;
    for (int64_t parts = 2; parts <= batch_; parts++) {
      if (batch_ % parts) continue;
      const double images = double(batch_ / parts);
      double gain = 0;
      for (size_t k = 0; k < all.size(); k++) {
        const Layer& l = all[k];
        if (l.image * images <= cached && l.image * double(batch_) > far) gain += l.image * double(batch_) * byte_ns;
        gain -= l.weights * double(parts - 1) * weight_ns;
        if (leaving[k] >= 0 && gain - leaving[k] * byte_ns > best)
          best = gain - leaving[k] * byte_ns, parts_ = parts, taken_ = k + 1;
      }
    }
  }

  /// As many of the layers as may be, in as many parts at once as more threads may want.
  void choose_at_once(const std::vector<double>& leaving) {
    struct {
      double all = 0, gain = 0, weights = 0;
    } seen, taken;
    for (size_t k = 0; k < layers_.size(); k++) {
      const Node& n = node(layers_[k]);
      const Layer l = measure(n);
      seen.weights += l.weights;
      if (seen.weights > near) break;
      if (!n.op->pointwise && !n.op->shape_attr) {
        const double ns = std::max(l.ns, row_ns * double(batch_));
        seen.all += ns;
        seen.gain += ns < serial_ns ? ns / 2 : handing_ns;
      }
      if (leaving[k] >= 0) taken_ = k + 1, taken = seen;
    }
    int64_t parts = 1;
    auto wanted = [&] { return parts < enough_parts || (parts < most_parts && batch_ / parts > many_rows); };
    while (wanted() && batch_ % (2 * parts) == 0 && batch_ / (2 * parts) >= least_rows) parts *= 2;
    const double gain = taken.gain - taken.weights * near_ns * double(parts - 1);
    if (taken.all >= 2 * serial_ns && gain > worth_it * taken.all) parts_ = parts;
  }

  /// By layer: bytes of the values made so far that are wanted behind it; -1 where an epilogue would take one of them.
  std::vector<double> find_leaving() const {
    std::vector<int> place(f_.nodes.size(), INT_MAX);
    for (size_t k = 0; k < layers_.size(); k++) place[layers_[k]] = int(k);
    std::vector<double> leaving;
    std::vector<ValueId> open;
    for (size_t k = 0; k < layers_.size(); k++) {
      auto later = [&](int user) { return place[size_t(user)] > int(k); };
      auto done = [&](ValueId v) {
        const std::vector<int>& users = uses_.users[size_t(v)];
        return !uses_.kept[size_t(v)] && std::none_of(users.begin(), users.end(), later);
      };
      const Node& n = node(layers_[k]);
      open.insert(open.end(), n.outputs.begin(), n.outputs.end());
      open.erase(std::remove_if(open.begin(), open.end(), done), open.end());
      double all = 0;
      for (ValueId v : open) {
        all += bytes(v);
        for (int u : uses_.users[size_t(v)])
          if (later(u) && node(size_t(u)).op->pointwise) all = -INFINITY;
      }
      leaving.push_back(all);
    }
    return leaving;
  }

  void split() {
    std::vector<char> inside(f_.nodes.size(), 0);
    for (size_t i : layers_) inside[i] = 1;
    std::vector<char> made(f_.types.size(), 0), behind(f_.types.size(), 0);
    for (size_t i : layers_)
      for (ValueId v : node(i).outputs) made[size_t(v)] = 1;

    m_.functions.emplace_back();
    body_ = &m_.functions.back();
    body_->name = "batch@" + std::to_string(m_.functions.size() - 1);
    own_.assign(f_.types.size(), no_value);
    std::vector<Node> before, after, old = std::move(f_.nodes);
    f_.nodes.clear();
    Node scan;
    std::vector<ValueId> sequences, captured, results;
    std::vector<Node> layers;
    for (size_t i = 0; i < old.size(); i++) {
      Node& n = old[i];
      if (inside[i]) {
        for (ValueId v : n.inputs) {
          if (v == no_value || made[size_t(v)]) continue;
          add_once(parted_[size_t(v)] ? sequences : captured, v);
        }
        add_paths(scan.paths, n.paths);
        layers.push_back(n);
        continue;
      }
      bool later = false;
      for (ValueId v : n.inputs) {
        if (v == no_value) continue;
        later = later || made[size_t(v)] || behind[size_t(v)];
        if (made[size_t(v)]) add_once(results, v);
      }
      for (ValueId v : n.outputs) behind[size_t(v)] = later;
      (later ? after : before).push_back(std::move(n));
    }
    for (ValueId v : f_.outputs)
      if (made[size_t(v)]) add_once(results, v);
    for (const Store& s : f_.stores)
      if (made[size_t(s.value)]) add_once(results, s.value);

    Builder outside(m_, f_);
    outside.paths = scan.paths;
    f_.nodes = std::move(before);
    for (ValueId v : sequences) {
      Dims whole = type(v).shape;
      whole[0] = batch_ / parts_;
      body_->inputs.push_back({"part", own_[size_t(v)] = body_->add_value({type(v).dtype, whole})});
      whole.insert(whole.begin(), parts_);
      scan.inputs.push_back(outside.reshape(v, whole));
    }
    for (ValueId v : captured) {
      if (const Node* number = scalar(v)) {  // which chains take as a number where they see it made
        Node n = *number;
        n.outputs = {own_[size_t(v)] = body_->add_value(type(v))};
        body_->nodes.push_back(std::move(n));
        continue;
      }
      body_->inputs.push_back({"whole", own_[size_t(v)] = body_->add_value(type(v))});
      scan.inputs.push_back(v);
    }
    body_->inputs.push_back({"step", body_->add_value({DType::int32, {}})});
    for (Node& n : layers) add(std::move(n));
    for (ValueId v : results) {
      body_->outputs.push_back(own_[size_t(v)]);
      body_->output_names.push_back("");
    }
    ScanAttrs attrs;
    attrs.body = body_->name;
    attrs.sequences = int64_t(sequences.size());
    attrs.length = parts_;
    scan.op = &op("scan");
    scan.attrs = std::make_shared<ScanAttrs>(std::move(attrs));
    for (TensorType& t : infer_node(m_, f_, scan)) scan.outputs.push_back(f_.add_value(std::move(t)));
    const std::vector<ValueId> stacked = scan.outputs;
    f_.nodes.push_back(std::move(scan));
    for (size_t i = 0; i < results.size(); i++) {
      Node n;
      n.op = &op("reshape");
      n.attrs = n.op->attrs.read("reshape", {{"shape", attr_list(type(results[i]).shape)}});
      n.inputs = {stacked[i]}, n.outputs = {results[i]};
      f_.nodes.push_back(std::move(n));
    }
    for (Node& n : after) f_.nodes.push_back(std::move(n));
  }

  /// The node that makes v, if that is a number.
  const Node* scalar(ValueId v) const {
    for (const Node& n : f_.nodes)
      if (n.outputs.size() == 1 && n.outputs[0] == v) return n.op->name == "full" && type(v).rank() == 0 ? &n : nullptr;
    return nullptr;
  }

  /// A layer, for a part of the batch.
  void add(Node n) {
    if (n.op->shape_attr) {
      AttrMap map = n.op->attrs.write(n.attrs.get());
      std::get<AttrList>(map.at(n.op->shape_attr).v)[0] = {batch_ / parts_};
      n.attrs = n.op->attrs.read(n.op->name, map);
    }
    for (ValueId& v : n.inputs)
      if (v != no_value) v = own_[size_t(v)];
    Types out = infer_node(m_, *body_, n);
    for (size_t i = 0; i < out.size(); i++) n.outputs[i] = own_[size_t(n.outputs[i])] = body_->add_value(std::move(out[i]));
    body_->nodes.push_back(std::move(n));
  }

  Module& m_;
  Function& f_;
  Uses uses_;
  int64_t batch_ = 0, parts_ = 1;
  std::vector<char> parted_;    // by value: each part of it depends on that part of the inputs alone
  std::vector<char> crossed_;   // by value: of parts together, so that none of it is there before all of them are
  std::vector<size_t> layers_;  // nodes that can be parted; those that are
  size_t taken_ = 0;
  Function* body_ = nullptr;
  std::vector<ValueId> own_;  // by value: the body's
};

}  // namespace

void split_batch(Module& module) { Splitter(module).run(); }

}  // namespace dagrt
