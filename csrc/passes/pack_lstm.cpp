// pack_lstm: an lstm whose gates nobody reads, which is one without a gradient, takes packed weights.
//   lstm(x, kernel, recurrent, bias?, ..)     -> lstm_packed(x, pack_lstm(kernel, recurrent, bias?), ..)
//   lstm(gather(embeddings, ids), kernel, ..) -> lstm_gathered(ids, pack_lstm_table(embeddings, packed), packed, ..)
// Where weights do not change from run to run, the plan hoists what is made of them. The second form needs that, and a table
// of moderate size: it has 4 units columns where the embeddings have as many as features, but no run projects an input.
//
// Before: a specialised module without gradients. After: the same, values under the same ids. Only the entry is looked at:
// in a scan's body the weights' nodes would run in every step.
#include <map>

#include "ir/op_view.h"
#include "ops/op.h"
#include "passes/passes.h"
#include "passes/steady.h"

namespace dagrt {
namespace {

constexpr int64_t most_table_bytes = int64_t(32) << 20;

class Packer {
 public:
  explicit Packer(Module& m) : m_(m), f_(m.functions.front()), steady_(steady_values(f_)) {
    used_.assign(f_.types.size(), 0);
    gather_.assign(f_.types.size(), -1);
    auto use = [&](ValueId v) {
      if (v != no_value) used_[size_t(v)] = 1;
    };
    for (const Node& n : f_.nodes) {
      for (ValueId v : n.inputs) use(v);
      if (n.op->name == "gather" && is_lookup(n)) {
        gather_[size_t(n.outputs[0])] = int(lookups_.size());
        lookups_.push_back({n.inputs[0], n.inputs[1], n.paths});
      }
    }
    for (ValueId v : f_.outputs) use(v);
    for (const Store& s : f_.stores) use(s.value), use(s.when);
    use(f_.guard);
  }

  void run() {
    std::vector<Node> old = std::move(f_.nodes);
    f_.nodes.clear();
    for (Node& n : old) {
      if (n.op->name == "lstm" && !used_[size_t(n.outputs[3])] && !used_[size_t(n.outputs[4])] && !used_[size_t(n.outputs[5])])
        pack(n);
      f_.nodes.push_back(std::move(n));
    }
  }

 private:
  const Dims& shape(ValueId v) const { return f_.types[size_t(v)].shape; }
  bool steady(ValueId v) const { return v == no_value || steady_[size_t(v)]; }

  /// Rows of a table that stays, by ids (batch, steps).
  bool is_lookup(const Node& n) const {
    AttrMap map = n.op->attrs.write(n.attrs.get());
    return std::get<int64_t>(map.at("axis").v) == 0 && shape(n.inputs[0]).size() == 2 && shape(n.inputs[1]).size() == 2 &&
           f_.types[size_t(n.inputs[0])].dtype == DType::float32 && steady(n.inputs[0]);
  }

  void pack(Node& n) {
    n.inputs.resize(7, no_value);
    const ValueId x = n.inputs[0], kernel = n.inputs[1], recurrent = n.inputs[2], bias = n.inputs[3];
    AttrMap map = n.op->attrs.write(n.attrs.get());
    map["units"] = {shape(recurrent)[0].value()};
    const ValueId packed = weights("pack_lstm", n, {kernel, recurrent, bias}, {});
    const Lookup* from = gather_[size_t(x)] < 0 ? nullptr : &lookups_[size_t(gather_[size_t(x)])];
    const bool fold = from && steady(kernel) && steady(recurrent) && steady(bias) &&
                      shape(from->table)[0].value() * shape(packed)[1].value() * 4 <= most_table_bytes;
    std::vector<ValueId> in{x, packed};
    if (fold) {
      in = {from->ids, weights("pack_lstm_table", n, {from->table, packed}, {{"units", map["units"]}}), packed};
      n.paths.insert(n.paths.begin(), from->paths.begin(), from->paths.end());  // whose ids it checks
    }
    in.insert(in.end(), n.inputs.begin() + 4, n.inputs.end());
    n.inputs = std::move(in);
    n.outputs.resize(3);
    n.op = &op(fold ? "lstm_gathered" : "lstm_packed");
    n.attrs = n.op->attrs.read(n.op->name, map);
  }

  /// A node of weights alone, before n; one for all that want the same.
  ValueId weights(const char* name, const Node& n, std::vector<ValueId> inputs, const AttrMap& attrs) {
    Node w;
    w.op = &op(name);
    w.attrs = w.op->attrs.read(name, attrs);
    w.inputs = std::move(inputs);
    w.paths = n.paths;
    auto [at, is_new] = made_.try_emplace({name, w.inputs}, no_value);
    if (is_new) {
      at->second = f_.add_value(infer_node(m_, f_, w)[0]);
      w.outputs = {at->second};
      f_.nodes.push_back(std::move(w));
    }
    return at->second;
  }

  Module& m_;
  Function& f_;
  std::vector<char> steady_, used_;  // by value, of before
  struct Lookup {
    ValueId table, ids;
    std::vector<std::string> paths;
  };
  std::vector<Lookup> lookups_;
  std::vector<int> gather_;                                               // by value: the lookup it is, or -1
  std::map<std::pair<std::string, std::vector<ValueId>>, ValueId> made_;  // weights' nodes
};

}  // namespace

void pack_lstm(Module& module) { Packer(module).run(); }

}  // namespace dagrt
