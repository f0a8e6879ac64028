// widen_halves: 16-bit floats become float32 values that were rounded to them, so that kernels that know float32 alone need
// no copies, and what stands between two products fuses into the first one's epilogue.
//   cast(x, bfloat16)          -> round_bfloat16(x)              a float32 that bfloat16 holds
//   cast(h, float32)           -> h's float32 value, as it is
//   add(a, b) of bfloat16      -> round_bfloat16(add(a, b))      the CPU's kernels compute so anyway; relu, maximum and
//                                                                others of results that need no rounding: without it
//   reshape, concat, gather    -> the same of the float32 values
// So a mixed model's program is the float32 one's with roundings in epilogues: no value changes, weights are rounded where
// they are packed, once, and no more is kept than float32 would. What comes from outside in 16 bits (inputs, variables),
// goes there (outputs, stores), or belongs to an op not named here is cast at that place. Bodies of scans take and give
// float32 throughout: captured weights are widened before the loop.
//
// A bfloat16 value that arithmetic alone reads, up to results that are rounded again, is not rounded itself: between a
// convolution, its bias and its normalisation in inference, say (XLA does the same). What is rounded in a body of scan, but
// comes from outside (weights), is rounded outside, once.
//
// Before: a specialised module without gradients, for the CPU. After: the same; old values nobody uses are left to
// eliminate_dead_code.
#include <cmath>
#include <map>
#include <set>

#include "ir/op_view.h"
#include "ops/op.h"
#include "passes/passes.h"
#include "passes/uses.h"

namespace dagrt {
namespace {

bool half(DType t) { return t == DType::bfloat16 || t == DType::float16; }

/// Results of 16-bit operands that their type holds, all of them.
bool exact(const std::string& op) {
  static const std::set<std::string> all{"negative",     "abs",     "sign",           "relu",  "relu6",     "maximum",
                                         "minimum",      "floor",   "ceil",           "round", "select",    "reduce_max",
                                         "reduce_min",   "reshape", "gather",         "slice", "transpose", "concat",
                                         "broadcast_to", "reverse", "take_along_axis"};
  return all.count(op);
}
/// Ops beside the pointwise ones that are computed in float32, or move elements.
bool widens(const std::string& op) {
  return exact(op) || op == "pad" || op == "reduce_sum" || op == "reduce_prod" || op == "softmax" || op == "log_softmax";
}

/// x as the 16-bit float holds it: to nearest, ties to even.
double rounded(double x, DType t) {
  if (x == 0 || !std::isfinite(x)) return x;
  const int digits = t == DType::bfloat16 ? 8 : 11, least = t == DType::bfloat16 ? -125 : -13;
  int exponent;
  std::frexp(x, &exponent);
  const double unit = std::ldexp(1.0, std::max(exponent, least) - digits);
  const double r = std::nearbyint(x / unit) * unit;
  const double most = t == DType::bfloat16 ? 0x1.fep127 : 65504;
  return std::fabs(r) > most ? std::copysign(INFINITY, x) : r;
}

class Widener {
 public:
  Widener(Function& f, bool body)
      : f_(f), body_(body), wide_(f.types.size(), no_value), stands_(f.types.size()), made_(f.types.size(), false) {
    for (size_t v = 0; v < stands_.size(); v++) stands_[v] = ValueId(v);
  }

  void run() {
    for (const Input& i : f_.inputs) {
      made_[size_t(i.value)] = true;
      if (!body_ || !is_half(i.value)) continue;
      holds_[i.value] = type(i.value).dtype;
      f_.types[size_t(i.value)].dtype = DType::float32;
    }
    std::vector<Node> old = std::move(f_.nodes);
    f_.nodes.clear();
    f_.nodes.reserve(old.size() + 16);
    for (Node& n : old) {
      for (ValueId& v : n.inputs)
        if (v != no_value) v = stands_[size_t(v)];
      rewrite(n);
    }
    for (ValueId& v : f_.outputs) {
      v = stands_[size_t(v)];
      v = body_ ? wide_or_same(v) : narrow(v);
    }
    for (Store& s : f_.stores) {
      s.value = narrow(stands_[size_t(s.value)]);
      if (s.when != no_value) s.when = stands_[size_t(s.when)];
    }
    if (f_.guard != no_value) f_.guard = stands_[size_t(f_.guard)];
  }

 private:
  const TensorType& type(ValueId v) const { return f_.types[size_t(v)]; }
  bool is_half(ValueId v) const { return v != no_value && half(type(v).dtype); }

  ValueId add(TensorType t) {
    wide_.push_back(no_value);
    made_.push_back(false);
    stands_.push_back(ValueId(f_.types.size()));
    return f_.add_value(std::move(t));
  }
  void push(Node n) {
    for (ValueId v : n.outputs)
      if (v != no_value) made_[size_t(v)] = true;
    f_.nodes.push_back(std::move(n));
  }
  ValueId emit(const char* name, ValueId x, const AttrMap& attrs, DType to, const std::vector<std::string>& paths) {
    Node n;
    n.op = &op(name);
    n.attrs = n.op->attrs.read(name, attrs);
    n.inputs = {x};
    n.outputs = {add({to, type(x).shape})};
    n.paths = paths;
    push(n);
    return f_.nodes.back().outputs[0];
  }
  ValueId cast(ValueId x, DType to, const std::vector<std::string>& paths) {
    return emit("cast", x, {{"dtype", {std::string(name_of(to))}}}, to, paths);
  }

  /// v's value as float32.
  ValueId wide(ValueId v) {
    ValueId& w = wide_[size_t(v)];
    if (w == no_value) {
      const ValueId made = cast(v, DType::float32, paths_);
      wide_[size_t(v)] = made;
      holds_[made] = type(v).dtype;
      return made;
    }
    return w;
  }
  ValueId wide_or_same(ValueId v) { return is_half(v) ? wide(v) : v; }

  /// v itself, in 16 bits: made of its float32 value where no node makes it any more.
  ValueId narrow(ValueId v) {
    if (!is_half(v) || made_[size_t(v)]) return v;
    Node n;
    n.op = &op("cast");
    n.attrs = n.op->attrs.read("cast", {{"dtype", {std::string(name_of(type(v).dtype))}}});
    n.inputs = {wide_[size_t(v)]};
    n.outputs = {v};
    n.paths = paths_;
    push(std::move(n));
    return v;
  }

  /// x rounded to t's values; itself where it is that already.
  ValueId round(ValueId x, DType t) {
    if (auto at = holds_.find(x); at != holds_.end() && at->second == t) return x;
    const ValueId y = emit(t == DType::bfloat16 ? "round_bfloat16" : "round_float16", x, {}, DType::float32, paths_);
    holds_[y] = t;
    return y;
  }

  void rewrite(Node& n) {
    bool any = false;
    for (ValueId v : n.inputs) any |= is_half(v);
    for (ValueId v : n.outputs) any |= is_half(v);
    if (!any) {
      if (n.op->name == "max_pool2d")  // takes its values among x's
        if (auto at = holds_.find(n.inputs[0]); at != holds_.end()) holds_[n.outputs[0]] = at->second;
      return push(std::move(n));
    }
    paths_ = n.paths;
    if (n.op->name == "cast") return rewrite_cast(n);
    if (n.op->name == "full" && refill(n)) return;
    if (n.op->role == Structural::scan) return rewrite_scan(n);
    if ((n.op->pointwise || widens(n.op->name)) && n.outputs.size() == 1) return compute(n);
    for (ValueId& v : n.inputs)
      if (v != no_value) v = narrow(v);
    push(std::move(n));
  }

  void rewrite_cast(Node& n) {
    const ValueId x = n.inputs[0], y = n.outputs[0];
    const DType from = type(x).dtype, to = type(y).dtype;
    if (!half(to)) {
      if (to == DType::float32) {
        stands_[size_t(y)] = wide(x);
      } else {
        n.inputs[0] = wide(x);
        push(std::move(n));
      }
      return;
    }
    ValueId w = half(from) ? wide(x) : from == DType::float32 ? x : cast(x, DType::float32, n.paths);
    const bool fits = from == DType::bool_ || from == DType::uint8;
    wide_[size_t(y)] = fits ? w : round(w, to);
  }

  bool refill(Node& n) {
    const ValueId y = n.outputs[0];
    AttrMap attrs = n.op->attrs.write(n.attrs.get());
    const DType t = type(y).dtype;
    attrs["value"] = {rounded(double(float(std::get<double>(attrs.at("value").v))), t)};
    attrs["dtype"] = {std::string("float32")};
    n.attrs = n.op->attrs.read("full", attrs);
    n.outputs = {add({DType::float32, type(y).shape})};
    holds_[n.outputs[0]] = t;
    wide_[size_t(y)] = n.outputs[0];
    push(std::move(n));
    return true;
  }

  /// The op over float32, and its result rounded.
  void compute(Node& n) {
    const ValueId y = n.outputs[0];
    for (ValueId& v : n.inputs) v = v == no_value ? v : wide_or_same(v);
    if (!is_half(y)) return push(std::move(n));
    const DType t = type(y).dtype;
    const ValueId w = add({DType::float32, type(y).shape});
    n.outputs = {w};
    bool fits = exact(n.op->name);
    if (n.op->name == "pad") {
      const double value = std::get<double>(n.op->attrs.write(n.attrs.get()).at("value").v);
      fits = value == rounded(value, t);
    }
    if (fits) holds_[w] = t;
    push(std::move(n));
    wide_[size_t(y)] = round(w, t);
  }

  void rewrite_scan(Node& n) {
    for (ValueId& v : n.inputs) v = wide_or_same(v);
    for (ValueId& v : n.outputs) {
      if (!is_half(v)) continue;
      const ValueId w = add({DType::float32, type(v).shape});
      holds_[w] = type(v).dtype;
      wide_[size_t(v)] = w;
      v = w;
    }
    push(std::move(n));
  }

  Function& f_;
  bool body_;
  std::vector<ValueId> wide_;       // of a 16-bit value: the float32 one, if there is one
  std::vector<ValueId> stands_;     // what stands for a value that casts made
  std::vector<bool> made_;          // an input, or made by a node by now
  std::map<ValueId, DType> holds_;  // float32 values that are rounded to this type
  std::vector<std::string> paths_;  // of the node at hand
};

/// Takes away roundings whose every use leads to another, through pointwise ops of float32.
class Dropper {
 public:
  explicit Dropper(Function& f) : f_(f), uses_(f), known_(f.types.size(), unknown) {}

  void run() {
    std::vector<ValueId> alias(f_.types.size());
    for (size_t v = 0; v < alias.size(); v++) alias[v] = ValueId(v);
    for (Node& n : f_.nodes) {
      for (ValueId& v : n.inputs)
        if (v != no_value) v = alias[size_t(v)];
      if (is_round(n) && again(n.outputs[0])) alias[size_t(n.outputs[0])] = n.inputs[0];
    }
  }

 private:
  static bool is_round(const Node& n) { return n.op->name == "round_bfloat16"; }

  bool again(ValueId v) {
    char& known = known_[size_t(v)];
    if (known != unknown) return known == yes;
    bool all = !uses_.kept[size_t(v)] && !uses_.users[size_t(v)].empty();
    for (int u : uses_.users[size_t(v)]) {
      const Node& n = f_.nodes[size_t(u)];
      all = all && (is_round(n) || (n.op->pointwise && n.op->name != "cast" &&
                                    f_.types[size_t(n.outputs[0])].dtype == DType::float32 && again(n.outputs[0])));
    }
    known = all ? yes : no;
    return all;
  }

  enum : char { unknown, no, yes };
  Function& f_;
  Uses uses_;
  std::vector<char> known_;
};

/// Moves roundings of captured values out of a body, to all scans that run it.
void hoist_rounds(Module& m, Function& body) {
  std::vector<std::pair<Function*, size_t>> scans;
  for (Function& f : m.functions)
    for (size_t i = 0; i < f.nodes.size(); i++)
      if (f.nodes[i].op->role == Structural::scan && f.nodes[i].as<ScanAttrs>().body == body.name) scans.emplace_back(&f, i);
  if (scans.empty()) return;
  const auto& attrs = scans[0].first->nodes[scans[0].second].as<ScanAttrs>();
  std::vector<std::pair<size_t, Node>> moved;  // input that is rounded, and how
  std::map<ValueId, size_t> captured;
  for (size_t i = size_t(attrs.carries + attrs.sequences); i + 1 < body.inputs.size(); i++) captured[body.inputs[i].value] = i;
  std::vector<Node> rest;
  for (Node& n : body.nodes) {
    const bool round = n.op->name == "round_bfloat16" || n.op->name == "round_float16";
    auto at = round ? captured.find(n.inputs[0]) : captured.end();
    if (at == captured.end())
      rest.push_back(std::move(n));
    else
      moved.emplace_back(at->second, std::move(n));
  }
  body.nodes = std::move(rest);
  for (auto& [input, n] : moved) body.inputs.insert(body.inputs.end() - 1, {body.inputs[input].name + " rounded", n.outputs[0]});
  for (size_t k = scans.size(); k-- > 0;) {  // from behind: places before stay as they are
    Function& f = *scans[k].first;
    size_t place = scans[k].second;
    for (auto& [input, n] : moved) {
      Node outside = n;
      const ValueId from = f.nodes[place].inputs[input];
      outside.inputs = {from};
      outside.outputs = {f.add_value(f.types[size_t(from)])};
      f.nodes[place].inputs.push_back(outside.outputs[0]);
      f.nodes.insert(f.nodes.begin() + long(place++), std::move(outside));
    }
  }
}

/// Whether anything widens 16-bit values: elsewhere (an op on arrays by itself) they are read and written as they are.
bool is_mixed(const Module& m) {
  for (const Function& f : m.functions)
    for (const Node& n : f.nodes)
      if (n.op->name == "cast" && half(f.types[size_t(n.inputs[0])].dtype) &&
          f.types[size_t(n.outputs[0])].dtype == DType::float32)
        return true;
  return false;
}

}  // namespace

void widen_halves(Module& module) {
  if (!is_mixed(module)) return;
  bool body = false;
  for (Function& f : module.functions) {
    Widener(f, body).run();
    Dropper(f).run();
    body = true;
  }
  for (size_t i = module.functions.size(); i-- > 1;) hoist_rounds(module, module.functions[i]);  // inner ones come later
}

}  // namespace dagrt
