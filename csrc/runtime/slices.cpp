#include "runtime/slices.h"

#include <algorithm>

#include "ops/layout.h"

namespace dagrt {
namespace {

constexpr int64_t least_columns = 8;  // narrower ones are copied
constexpr int64_t block_bytes = 16;   // read at once where blocks alone are allowed

class Finder {
 public:
  Finder(const Function& f, const std::vector<char>& hoisted, bool spaced) : f_(f), hoisted_(hoisted), spaced_(spaced) {}

  Slices run() {
    slices_.at.resize(f_.types.size());
    slices_.gone.assign(f_.nodes.size(), 0);
    auto is_cut = [&](const Node& n) { return n.op->name == "concat" || n.op->name == "slice"; };
    if (std::none_of(f_.nodes.begin(), f_.nodes.end(), is_cut)) return std::move(slices_);
    find_uses();
    for (size_t i = f_.nodes.size(); i-- > 0;)  // what is joined again is placed in the outermost
      if (f_.nodes[i].op->name == "concat" && runs(i)) place_parts(i);
    for (size_t i = 0; i < f_.nodes.size(); i++)
      if (f_.nodes[i].op->name == "slice" && runs(i)) place_slice(i);
    return std::move(slices_);
  }

 private:
  using Place = Slices::Place;
  struct Use {
    int32_t node, input;
  };

  bool runs(size_t node) const { return hoisted_.empty() || !hoisted_[node]; }
  const Dims& shape(ValueId v) const { return f_.types[size_t(v)].shape; }
  int64_t width(ValueId v) const { return shape(v).empty() ? 1 : shape(v).back().value(); }
  int64_t rows(ValueId v) const { return width(v) ? f_.types[size_t(v)].elements() / width(v) : 0; }
  ValueId root(ValueId v) const { return root_[size_t(v)]; }

  void find_uses() {
    root_.assign(f_.types.size(), no_value);
    producer_.assign(f_.types.size(), -1);
    kept_.assign(f_.types.size(), 0);
    input_.assign(f_.types.size(), 0);
    members_.resize(f_.types.size());
    uses_.resize(f_.types.size());
    for (const Input& in : f_.inputs) root_[size_t(in.value)] = in.value, input_[size_t(in.value)] = 1;
    for (size_t i = 0; i < f_.nodes.size(); i++) {
      const Node& n = f_.nodes[i];
      for (ValueId v : n.outputs) {
        bool alias = n.op->name == "reshape" && runs(i);
        root_[size_t(v)] = alias ? root(n.inputs[0]) : v;
        if (runs(i) && !alias && n.op->role != Structural::read && n.op->role != Structural::constant)
          producer_[size_t(v)] = int32_t(i);
      }
      if (runs(i))
        for (size_t k = 0; k < n.inputs.size(); k++)
          if (n.inputs[k] != no_value) uses_[size_t(n.inputs[k])].push_back({int32_t(i), int32_t(k)});
    }
    for (size_t v = 0; v < f_.types.size(); v++)
      if (root_[v] != no_value) members_[size_t(root_[v])].push_back(ValueId(v));
    auto keep = [&](ValueId v) {
      if (v != no_value) kept_[size_t(root(v))] = 1;
    };
    for (ValueId v : f_.outputs) keep(v);
    for (const Store& s : f_.stores) keep(s.value), keep(s.when);
    keep(f_.guard);
  }

  /// Where a value stands: in its own memory, or already in another's.
  Place place_of(ValueId v) const {
    const Place& p = slices_.at[size_t(v)];
    return p.host != no_value ? p : Place{root(v), 0, width(v)};
  }
  bool dense(ValueId v, int64_t ld) const { return ld == width(v) || rows(v) <= 1; }

  /// Whether a value may be one of many, of a scan's sequence, that begin anywhere.
  bool in_a_row(ValueId r) const { return (input_[size_t(r)] || kept_[size_t(r)]) && f_.types[size_t(r)].bytes() % block_bytes; }

  /// Whether all that write and read r's memory can do so at p.
  bool fits(ValueId r, const Place& p, bool written) const {
    if (!spaced_ && (p.offset * int64_t(size_of(f_.types[size_t(r)].dtype)) % block_bytes || in_a_row(p.host))) return false;
    if (dense(r, p.ld)) return true;
    if (!spaced_ || width(r) < least_columns) return false;
    if (written) {
      const Node& n = f_.nodes[size_t(producer_[size_t(r)])];
      auto at = std::find(n.outputs.begin(), n.outputs.end(), r);
      if (n.op->role != Structural::none || !n.op->spaced.output(size_t(at - n.outputs.begin()))) return false;
    }
    for (ValueId v : members_[size_t(r)]) {
      if (width(v) != width(r)) return false;
      for (const Use& u : uses_[size_t(v)]) {
        const Node& n = f_.nodes[size_t(u.node)];
        if (n.op->role != Structural::none) return false;
        if (n.op->name != "reshape" && !n.op->spaced.input(size_t(u.input))) return false;
      }
    }
    return true;
  }

  void place(ValueId r, const Place& p) {
    for (ValueId v : members_[size_t(r)]) slices_.at[size_t(v)] = {p.host, p.offset, dense(r, p.ld) ? width(v) : p.ld};
  }

  /// The part of `whole`, which stands at `p`, that begins at element `begin` of its axis `axis`; false where it is neither
  /// a block nor columns.
  bool part(ValueId whole, Place& p, size_t axis, int64_t begin, ValueId piece) const {
    const Dims& s = shape(whole);
    int64_t before = 1, behind = 1;
    for (size_t i = 0; i < axis; i++) before *= s[i].value();
    for (size_t i = axis + 1; i + 1 < s.size(); i++) behind *= s[i].value();
    bool last = axis + 1 == s.size();
    if (!last && before != 1) return false;
    p.offset += last ? begin : begin * behind * p.ld;
    if (rows(piece) <= 1) p.ld = width(piece);
    return true;
  }

  void place_parts(size_t i) {
    const Node& n = f_.nodes[i];
    ValueId whole = n.outputs[0];
    size_t axis = concat_axis(n.attrs.get(), shape(whole).size());
    int64_t begin = 0;
    bool all = true;
    for (ValueId v : n.inputs) {
      int64_t from = begin;
      begin += shape(v)[axis].value();
      if (f_.types[size_t(v)].elements() == 0) continue;
      ValueId r = root(v);
      Place p = place_of(whole);
      auto twice = std::count_if(n.inputs.begin(), n.inputs.end(), [&](ValueId o) { return root(o) == r; }) > 1;
      if (producer_[size_t(r)] >= 0 && !kept_[size_t(r)] && !twice && slices_.at[size_t(r)].host == no_value &&
          part(whole, p, axis, from, v) && (dense(v, p.ld) || width(v) == width(r)) && fits(r, p, true))
        place(r, p);
      else
        all = false;
    }
    slices_.gone[i] = all;
  }

  void place_slice(size_t i) {
    const Node& n = f_.nodes[i];
    ValueId x = n.inputs[0], y = n.outputs[0];
    if (slices_.at[size_t(y)].host != no_value || kept_[size_t(y)] || f_.types[size_t(y)].elements() == 0) return;
    if (producer_[size_t(root(x))] < 0 && !input_[size_t(root(x))]) return;
    std::vector<int64_t> begin;
    if (!slice_begin(n.attrs.get(), begin)) return;
    Place p = place_of(x);
    // A cut of the last axis, and one of the rows before it, each where there is one.
    size_t rank = begin.size(), cuts = 0;
    for (size_t a = 0; a < rank; a++) {
      if (shape(y)[a] == shape(x)[a]) continue;
      if (a + 1 < rank && ++cuts > 1) return;
      if (!part(x, p, a, begin[a], y)) return;
    }
    if (!fits(y, p, false)) return;
    place(y, p);
    slices_.gone[i] = 1;
  }

  const Function& f_;
  const std::vector<char>& hoisted_;
  bool spaced_;
  Slices slices_;
  std::vector<ValueId> root_;                  // by value: the one whose memory it is, of reshapes
  std::vector<int32_t> producer_;              // by value: the step that makes it, or -1
  std::vector<char> kept_, input_;             // by root: given out or stored; an input of the function
  std::vector<std::vector<ValueId>> members_;  // by root
  std::vector<std::vector<Use>> uses_;         // by value
};

}  // namespace

Slices find_slices(const Function& f, const std::vector<char>& hoisted, bool spaced) { return Finder(f, hoisted, spaced).run(); }

}  // namespace dagrt
