// specialise: puts a call's sizes into a traced module.
//
// Before: a module whose types and attributes hold size symbols. After: a new module with the entry first, whose types
// and attributes are numbers, all inferred anew by the ops; each scan has a body of its own (the same body at two
// places may see two shapes), with its length set. A variable is read once, in the entry: later reads without input
// become that value, and what a body reads becomes a captured value, so that `gradients` sees a plain data flow.
//
// Errors name the layer path, and the inputs whose sizes led there.
#include <map>
#include <set>

#include "ir/locate.h"
#include "ir/op_view.h"
#include "passes/passes.h"

namespace dagrt {
namespace {

constexpr size_t max_bodies = 10000;  // nested scans multiply; a module made to explode must not

struct Binding {
  int64_t size;
  size_t input, axis;  // where it was seen first, for messages
};
using Symbols = std::map<std::string, Binding>;

std::string declared_text(const Dims& shape) {
  std::string s = "(";
  for (size_t i = 0; i < shape.size(); i++) s += (i ? ", " : "") + (shape[i].known() ? shape[i].text() : "None");
  return s + (shape.size() == 1 ? ",)" : ")");
}

struct Specialiser {
  const Module& traced;
  Module result{};

  /// Attributes and size expressions of one function, evaluated.
  static DimLookup lookup_in(const Symbols& symbols, const Function& f) {
    return [&symbols, &f](const std::string& name) -> Dim {
      auto it = symbols.find(name);
      if (it == symbols.end())
        fail(ErrorKind::graph, "the size '", name, "' in function '", f.name, "' is not determined by its inputs");
      return it->second.size;
    };
  }

  void bind_input(const Function& f, size_t i, const TensorType& given, Symbols& symbols) {
    const TensorType& declared = f.types[size_t(f.inputs[i].value)];
    const std::string& name = f.inputs[i].name;
    if (given.dtype != declared.dtype)
      fail(ErrorKind::dtype, "input '", name, "': expected ", name_of(declared.dtype), ", got ", name_of(given.dtype));
    if (given.rank() != declared.rank())
      fail(ErrorKind::shape, "input '", name, "': expected shape ", declared_text(declared.shape), ", got ", text(given.shape));
    for (size_t axis = 0; axis < given.shape.size(); axis++) {
      const Dim& want = declared.shape[axis];
      int64_t got = given.shape[axis].value();
      const Dim::Expr* e = want.expr();
      if (want.known() && want.value() != got)
        fail(ErrorKind::shape, "input '", name, "': expected shape ", declared_text(declared.shape), ", got ", text(given.shape),
             ": axis ", axis, " must be ", want.text());
      if (!e || e->kind != Dim::Kind::symbol) continue;
      auto [it, is_new] = symbols.emplace(e->name, Binding{got, i, axis});
      if (!is_new && it->second.size != got)
        fail(ErrorKind::shape, "input '", name, "': axis ", axis, " of ", text(given.shape), " must be ", it->second.size,
             ", as axis ", it->second.axis, " of input '", f.inputs[it->second.input].name, "' is");
    }
  }

  /// A body's own symbols replace those of the function around it.
  Symbols bind(const Function& f, const Types& inputs, const Symbols& outer) {
    if (inputs.size() != f.inputs.size()) {
      std::string names;
      for (const Input& input : f.inputs) names += (names.empty() ? "'" : ", '") + input.name + "'";
      fail(ErrorKind::graph, "function '", f.name, "' has ", f.inputs.size(), " inputs (", names, "), got ", inputs.size());
    }
    Symbols own;
    for (size_t i = 0; i < inputs.size(); i++) bind_input(f, i, inputs[i], own);
    Symbols all = own;
    all.insert(outer.begin(), outer.end());
    DimLookup lookup = lookup_in(all, f);
    for (size_t i = 0; i < inputs.size(); i++) {  // sizes such as x.0 + 1, now that the symbols are known
      const Dims& declared = f.types[size_t(f.inputs[i].value)].shape;
      for (size_t axis = 0; axis < declared.size(); axis++)
        if (Dim want = declared[axis].substitute(lookup); want != inputs[i].shape[axis])
          fail(ErrorKind::shape, "input '", f.inputs[i].name, "': axis ", axis, " must be ", declared[axis].text(), " = ",
               want.text(), ", got ", text(inputs[i].shape));
    }
    return all;
  }

  struct Scope {  // one function on its way
    const Function& from;
    Function& to;
    const Symbols& symbols;
    std::vector<ValueId> alias;            // by value of `from`: the value that stands for it
    std::map<int64_t, ValueId> variables;  // the value of each variable read here
    std::vector<int64_t>* captured_reads;  // body: variables it needs as captured values; null in the entry
  };

  ValueId variable_value(Scope& s, int64_t variable, const std::vector<std::string>& paths) {
    auto it = s.variables.find(variable);
    if (it != s.variables.end()) return it->second;
    const VariableDecl& decl = result.variables[size_t(variable)];
    ValueId v = s.to.add_value(decl.type);
    s.variables.emplace(variable, v);
    if (s.captured_reads) {  // the last captured value, before `step`
      s.captured_reads->push_back(variable);
      s.to.inputs.insert(s.to.inputs.end() - 1, Input{decl.name, v});
    } else {
      Node node;
      node.op = &op("read");
      node.attrs = std::make_shared<ReadAttrs>(ReadAttrs{variable});
      node.outputs = {v};
      node.paths = paths;
      s.to.nodes.push_back(std::move(node));
    }
    return v;
  }

  void specialise_scan(Scope& s, Node& node) {
    ScanAttrs attrs = node.as<ScanAttrs>();
    const Function& body = *body_of(traced, node);
    if (int64_t(node.inputs.size()) + 1 != int64_t(body.inputs.size()) || result.functions.size() > max_bodies)
      fail(ErrorKind::graph, "scan: the module has more than ", max_bodies, " scans, once each is specialised");
    Types types;
    for (size_t i = 0; i < node.inputs.size(); i++) {
      TensorType t = s.to.types[size_t(node.inputs[i])];
      if (int64_t(i) >= attrs.carries && int64_t(i) < attrs.carries + attrs.sequences) {
        if (attrs.length.is(-1)) attrs.length = t.shape[0];
        t.shape.erase(t.shape.begin());
      }
      types.push_back(std::move(t));
    }
    types.push_back({DType::int32, {}});

    result.functions.emplace_back();
    Function& own = result.functions.back();
    own.name = body.name + "@" + std::to_string(result.functions.size() - 1);
    std::vector<int64_t> reads;
    run(body, own, types, s.symbols, &reads);
    for (int64_t variable : reads) node.inputs.push_back(variable_value(s, variable, node.paths));
    attrs.body = own.name;
    node.attrs = std::make_shared<ScanAttrs>(std::move(attrs));
  }

  void specialise_node(Scope& s, const Node& from) {
    Structural role = role_of(*from.op);
    if (role == Structural::read && from.inputs.empty()) {
      s.alias[size_t(from.outputs[0])] = variable_value(s, from.as<ReadAttrs>().variable, from.paths);
      return;
    }
    Node node = from;
    for (ValueId& v : node.inputs)
      if (v != no_value) v = s.alias[size_t(v)];
    const AttrType& type = attrs_of(*node.op);
    if (type.has_unknown(node.attrs.get())) node.attrs = type.substitute(node.attrs.get(), lookup_in(s.symbols, s.from));
    if (role == Structural::scan) specialise_scan(s, node);
    Types types = infer_node(result, s.to, node);
    for (size_t i = 0; i < node.outputs.size(); i++) s.to.types[size_t(node.outputs[i])] = std::move(types[i]);
    s.to.nodes.push_back(std::move(node));
  }

  void run(const Function& from, Function& to, const Types& inputs, const Symbols& outer, std::vector<int64_t>* reads) {
    Symbols symbols = bind(from, inputs, outer);
    if (to.name.empty()) to.name = from.name;
    to.types.resize(from.types.size());
    to.nodes.reserve(from.nodes.size());
    to.inputs = from.inputs;
    for (size_t i = 0; i < inputs.size(); i++) to.types[size_t(from.inputs[i].value)] = inputs[i];
    Scope s{from, to, symbols, {}, {}, reads};
    s.alias.resize(from.types.size());
    for (size_t v = 0; v < s.alias.size(); v++) s.alias[v] = ValueId(v);
    for (const Node& node : from.nodes) {
      try {
        specialise_node(s, node);
      } catch (const Error& e) {
        LocatedError error = located(node, e);
        if (reads) throw error;
        throw Error(error.kind, error.what() + blame(from, node, inputs));
      }
    }
    auto renamed = [&](ValueId v) { return v == no_value ? v : s.alias[size_t(v)]; };
    for (ValueId v : from.outputs) to.outputs.push_back(renamed(v));
    to.output_names = from.output_names;
    for (const Store& store : from.stores) to.stores.push_back({store.variable, renamed(store.value), renamed(store.when)});
    to.guard = renamed(from.guard);
  }

  /// ", from input 'x' with shape (32, 64)": the inputs with open sizes that the node depends on.
  static std::string blame(const Function& f, const Node& node, const Types& given) {
    std::vector<char> above(f.types.size());
    for (ValueId v : node.inputs)
      if (v != no_value) above[size_t(v)] = 1;
    for (auto it = f.nodes.rbegin(); it != f.nodes.rend(); ++it) {
      bool hit = false;
      for (ValueId v : it->outputs) hit |= bool(above[size_t(v)]);
      for (ValueId v : it->inputs)
        if (hit && v != no_value) above[size_t(v)] = 1;
    }
    auto list = [&](bool only_above) {
      std::string text;
      int named = 0;
      for (size_t i = 0; i < f.inputs.size(); i++) {
        const TensorType& declared = f.types[size_t(f.inputs[i].value)];
        if (declared.known() || (only_above && !above[size_t(f.inputs[i].value)])) continue;
        if (++named > 3) return text + " and others";
        text += (named > 1 ? ", '" : "'") + f.inputs[i].name + "' with shape " + dagrt::text(given[i].shape);
      }
      return text;
    };
    std::string text = list(true);
    if (text.empty()) text = list(false);
    return text.empty() ? "" : ", from input " + text;
  }
};

}  // namespace

Module specialise(const Module& traced, const std::string& entry, const Types& inputs) {
  for (const TensorType& t : inputs)
    if (!t.known()) fail(ErrorKind::internal, "specialise: the inputs' sizes must be numbers, got ", t.text());
  const Function& from = traced.function(entry);
  Specialiser s{traced};
  s.result.variables = traced.variables;
  s.result.constants = traced.constants;
  s.result.functions.emplace_back();
  s.run(from, s.result.functions.front(), inputs, {}, nullptr);
  return std::move(s.result);
}

}  // namespace dagrt
