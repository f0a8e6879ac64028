// mask_before_slicing: the gradients of relus in front of a concatenation mask the parts of what comes back,
//   dy_k = select(y_k > k, slice_k(g), 0),   y = concat(y_0, y_1, ...)
// Where all parts do so, g is masked as a whole:
//   dy_k = slice_k(select(y > k, g, 0))
// The same bits. The one mask becomes the epilogue of what made g, and the slices are read where they are.
//
// Before and after: a specialised module without gradients.
#include <map>

#include "ops/layout.h"
#include "passes/passes.h"
#include "passes/uses.h"

namespace dagrt {
namespace {

class Mover {
 public:
  Mover(Module& m, Function& f) : f_(f), b_(m, f), uses_(f) {}

  void run() {
    std::map<int, Group> groups;  // by its first slice
    std::vector<int> gone(f_.nodes.size(), 0);
    std::vector<ValueId> renamed(f_.nodes.size(), no_value);  // of a slice: the masked value it becomes
    for (const Node& joined : f_.nodes) {
      Group g;
      if (joined.op->name != "concat" || !find(joined, g)) continue;
      for (auto [slice, select] : g.parts) {
        gone[size_t(select)] = 1;
        renamed[size_t(slice)] = f_.nodes[size_t(select)].outputs[0];
      }
      int first = g.parts.begin()->first;
      groups.emplace(first, std::move(g));
    }
    if (groups.empty()) return;
    std::vector<Node> old = std::move(f_.nodes);
    f_.nodes.clear();
    std::map<ValueId, ValueId> masked;  // g -> g masked
    for (size_t i = 0; i < old.size(); i++) {
      if (auto at = groups.find(int(i)); at != groups.end()) {
        const Group& g = at->second;
        b_.paths = old[size_t(g.parts.begin()->second)].paths;
        ValueId mask = b_.emit("greater", {g.joined, b_.scalar(g.above)});
        masked[g.gradient] = b_.select(mask, g.gradient, b_.scalar(0));
      }
      if (gone[i]) continue;
      if (renamed[i] != no_value) {
        old[i].inputs[0] = masked.at(old[i].inputs[0]);
        old[i].outputs[0] = renamed[i];
      }
      f_.nodes.push_back(std::move(old[i]));
    }
  }

 private:
  struct Group {
    ValueId joined = no_value, gradient = no_value;
    double above = 0;
    std::map<int, int> parts;  // slices, and the selects that mask them
  };

  const Node& node(int i) const { return f_.nodes[size_t(i)]; }
  const Dims& shape(ValueId v) const { return f_.types[size_t(v)].shape; }
  /// What comes back to all parts of `joined`, each with a mask of its own part.
  bool find(const Node& joined, Group& g) const {
    g.joined = joined.outputs[0];
    const size_t axis = concat_axis(joined.attrs.get(), shape(g.joined).size());
    int64_t begin = 0;
    for (ValueId y : joined.inputs) {
      bool found = false;
      for (int u : uses_.users[size_t(y)])
        for (int s : node(u).op->name == "greater" ? uses_.users[size_t(node(u).outputs[0])] : std::vector<int>{})
          found = found || add(y, node(u), s, axis, begin, g);
      if (!found) return false;
      begin += shape(y)[axis].value();
    }
    return g.parts.size() == joined.inputs.size() && uses_.users[size_t(g.gradient)].size() == g.parts.size() &&
           !uses_.kept[size_t(g.gradient)] && uses_.producer[size_t(g.joined)] < g.parts.begin()->first;
  }

  /// Node s is a select of the slice of the gradient that stands where y does, by `above`: y > number.
  bool add(ValueId y, const Node& above, int s, size_t axis, int64_t begin, Group& g) const {
    const Node& select = node(s);
    if (select.op->name != "select" || select.inputs[0] != above.outputs[0] || above.inputs[0] != y) return false;
    ValueId number = above.inputs[1], zero = select.inputs[2];
    const Node* slice = uses_.made_by(f_, select.inputs[1], "slice");
    if (!slice || !uses_.constant[size_t(number)] || !uses_.constant[size_t(zero)] || uses_.number[size_t(zero)] != 0)
      return false;
    ValueId gradient = slice->inputs[0], part = slice->outputs[0];
    std::vector<int64_t> at;
    if (shape(gradient) != shape(g.joined) || shape(part) != shape(y) || !slice_begin(slice->attrs.get(), at) ||
        at[axis] != begin || uses_.users[size_t(part)].size() != 1 || uses_.kept[size_t(part)])
      return false;
    if (g.gradient == no_value) g.gradient = gradient, g.above = uses_.number[size_t(number)];
    if (g.gradient != gradient || g.above != uses_.number[size_t(number)]) return false;
    return g.parts.emplace(uses_.producer[size_t(part)], s).second;
  }

  Function& f_;
  Builder b_;
  Uses uses_;
};

}  // namespace

void mask_before_slicing(Module& module) {
  for (size_t i = 0; i < module.functions.size(); i++) Mover(module, module.functions[i]).run();
}

}  // namespace dagrt
