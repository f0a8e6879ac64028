#include "ir/verify.h"

#include "ir/locate.h"
#include "ir/op_view.h"

namespace dagrt {
namespace {

struct Verifier {
  const Module& module;
  const Function& f;
  bool specialised;
  bool is_entry;
  std::vector<char> defined;

  template <class... P> [[noreturn]] void bad(const P&... parts) const {
    fail(ErrorKind::graph, "function '", f.name, "': ", parts...);
  }

  void define(ValueId v, const char* what, size_t index) {
    if (v < 0 || size_t(v) >= f.types.size()) bad(what, " ", index, " defines value ", v, ", which does not exist");
    if (defined[size_t(v)]) bad(what, " ", index, " defines value ", v, " a second time");
    defined[size_t(v)] = 1;
    if (specialised && !f.types[size_t(v)].known())
      bad("value ", v, " has the size ", f.types[size_t(v)].text(), ", which no input of the call determines");
  }

  void need(ValueId v, const char* what, size_t index) const {
    if (v < 0 || size_t(v) >= f.types.size() || !defined[size_t(v)])
      bad(what, " ", index, " uses value ", v, ", which is not defined before it");
  }

  void need_predicate(ValueId v, const char* what) const {
    need(v, what, 0);
    const TensorType& t = f.types[size_t(v)];
    if (t.dtype != DType::bool_ || t.rank() != 0) bad(what, " must be a bool scalar, got ", t.text());
  }

  void check_node(const Node& node, size_t index) {
    if (!node.op || !node.attrs) bad("node ", index, " has no op or attributes");
    for (ValueId v : node.inputs)
      if (v != no_value) need(v, "node", index);
    if (specialised) {
      if (role_of(*node.op) == Structural::gradients) bad(place(node), " was not expanded");
      if (role_of(*node.op) == Structural::read && !(is_entry && node.inputs.empty()))
        bad(place(node), " stands in a scan body, or has an input");
      if (attrs_of(*node.op).has_unknown(node.attrs.get())) bad(place(node), " has a size that is not known");
    }
    Types types;
    try {
      types = infer_node(module, f, node);
    } catch (const Error& e) {
      throw located(node, e);
    }
    if (types.size() != node.outputs.size())
      bad(place(node), ": has ", types.size(), " outputs, but ", node.outputs.size(), " are recorded");
    for (size_t i = 0; i < types.size(); i++) {
      define(node.outputs[i], "node", index);
      const TensorType& t = f.types[size_t(node.outputs[i])];
      if (!(t == types[i])) bad(place(node), ": output ", i, " is ", types[i].text(), ", but ", t.text(), " is recorded");
    }
  }

  void check_stores() const {
    std::vector<char> stored(module.variables.size());
    for (size_t i = 0; i < f.stores.size(); i++) {
      const Store& s = f.stores[i];
      if (s.variable < 0 || size_t(s.variable) >= module.variables.size())
        bad("store ", i, " names variable ", s.variable, "; the module has ", module.variables.size());
      const VariableDecl& variable = module.variables[size_t(s.variable)];
      if (stored[size_t(s.variable)]) bad("variable '", variable.name, "' is stored twice");
      stored[size_t(s.variable)] = 1;
      need(s.value, "store", i);
      const TensorType& t = f.types[size_t(s.value)];
      bool fits = t.dtype == variable.type.dtype && t.rank() == variable.type.rank();
      for (size_t axis = 0; fits && axis < t.shape.size(); axis++)
        fits = (!specialised && !t.shape[axis].known()) || t.shape[axis] == variable.type.shape[axis];
      if (!fits)
        fail(t.dtype == variable.type.dtype ? ErrorKind::shape : ErrorKind::dtype, "variable '", variable.name, "' is ",
             variable.type.text(), ", but is assigned ", t.text());
      if (s.when != no_value) need_predicate(s.when, "the predicate of a store");
    }
    if (f.guard != no_value) need_predicate(f.guard, "the guard");
  }

  void run() {
    defined.assign(f.types.size(), 0);
    for (size_t i = 0; i < f.inputs.size(); i++) define(f.inputs[i].value, "input", i);
    for (size_t i = 0; i < f.nodes.size(); i++) check_node(f.nodes[i], i);
    for (size_t i = 0; i < f.outputs.size(); i++) need(f.outputs[i], "output", i);
    if (f.output_names.size() != f.outputs.size())
      bad("has ", f.outputs.size(), " outputs, but ", f.output_names.size(), " names for them");
    check_stores();
  }
};

/// Bodies must not lead back to themselves: infer_node would not end. Depth first, each function once.
struct CycleFinder {
  const Module& module;
  std::vector<char> state{};  // 0 new, 1 open, 2 done

  size_t index_of(const Function& f) const {
    for (size_t i = 0; i < module.functions.size(); i++)
      if (&module.functions[i] == &f) return i;
    fail(ErrorKind::internal, "a function that is not the module's own");
  }

  void visit(const Function& f, int depth) {
    size_t i = index_of(f);
    if (state[i] == 2) return;
    if (state[i] == 1) fail(ErrorKind::graph, "the scan body '", f.name, "' contains a scan over itself");
    if (depth > max_scan_depth) fail(ErrorKind::graph, "scans are nested more than ", max_scan_depth, " deep, at '", f.name, "'");
    state[i] = 1;
    for (const Node& node : f.nodes) {
      if (!node.op) continue;  // reported by the verifier
      if (const Function* body = body_of(module, node)) {
        if (!body->stores.empty())
          fail(ErrorKind::graph, "the scan body '", body->name,
               "' assigns a variable; carry the value instead, and "
               "assign the final carry");
        visit(*body, depth + 1);
      }
    }
    state[i] = 2;
  }
};

}  // namespace

void verify(const Module& module, const Function& f, bool specialised) {
  CycleFinder finder{module};
  finder.state.assign(module.functions.size(), 0);
  finder.visit(f, 0);
  Verifier{module, f, specialised, &f == &module.functions.front(), {}}.run();
}

void verify(const Module& module, bool specialised) {
  CycleFinder finder{module};
  finder.state.assign(module.functions.size(), 0);
  for (const Function& f : module.functions) finder.visit(f, 0);
  for (const Function& f : module.functions) Verifier{module, f, specialised, &f == &module.functions.front(), {}}.run();
}

}  // namespace dagrt
