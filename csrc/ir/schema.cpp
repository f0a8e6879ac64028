#include "ir/schema.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/view.h"
#include "ir/locate.h"
#include "ir/op_view.h"
#include "ir/verify.h"

namespace dagrt {
namespace {

using Json = nlohmann::json;

constexpr int max_size_depth = 200;  // of a size expression in the text

// ---- reading ----------------------------------------------------------------------------------------------------

/// A place in the text and what stands there; every accessor checks.
struct Item {
  const Json& json;
  std::string at;

  template <class... P> [[noreturn]] void bad(const P&... parts) const {
    fail(ErrorKind::format, "module JSON: ", at, ": ", parts...);
  }
  [[noreturn]] void expected(const char* what) const { bad("expected ", what, ", got ", json.type_name()); }

  /// The members of an object whose keys must be among `keys`.
  void allow(std::initializer_list<const char*> keys) const {
    if (!json.is_object()) expected("an object");
    for (auto it = json.begin(); it != json.end(); ++it)
      if (std::find(keys.begin(), keys.end(), it.key()) == keys.end()) bad("unknown key '", it.key(), "'");
  }
  bool has(const char* key) const { return json.contains(key); }
  Item operator[](const char* key) const {
    auto it = json.find(key);
    if (it == json.end()) bad("key '", key, "' is missing");
    return {*it, at + "." + key};
  }
  size_t count() const {
    if (!json.is_array()) expected("a list");
    return json.size();
  }
  Item operator[](size_t i) const { return {json[i], at + "[" + std::to_string(i) + "]"}; }

  int64_t integer() const {
    if (!json.is_number_integer()) expected("an integer");
    if (json.is_number_unsigned() && json.get<uint64_t>() > uint64_t(INT64_MAX)) bad("an integer of more than 64 bits");
    return json.get<int64_t>();
  }
  int64_t index(size_t count, const char* what) const {
    int64_t i = integer();
    if (i < 0 || uint64_t(i) >= count) bad("expected a ", what, " below ", count, ", got ", i);
    return i;
  }
  const std::string& string() const {
    if (!json.is_string()) expected("a string");
    return json.get_ref<const std::string&>();
  }
};

DType read_dtype(const Item& item) {
  try {
    return parse_dtype(item.string());
  } catch (const Error& e) {
    item.bad(e.what());
  }
}

Dim read_size(const Item& item, int depth = 0) {
  const Json& j = item.json;
  if (j.is_number_integer()) return item.integer();
  if (j.is_string()) {
    if (item.string().empty()) item.bad("a size symbol must have a name");
    return Dim::symbol(item.string());
  }
  if (!j.is_array() || j.size() != 3 || !j[0].is_string()) item.bad("a size is an integer, a symbol or [op, a, b]");
  if (depth >= max_size_depth) item.bad("a size expression is nested more than ", max_size_depth, " deep");
  Dim a = read_size({j[1], item.at}, depth + 1), b = read_size({j[2], item.at}, depth + 1);
  try {
    return Dim::make(parse_dim_kind(j[0].get_ref<const std::string&>()), a, b);
  } catch (const Error& e) {
    item.bad(e.what());
  }
}

TensorType read_type(const Item& item, bool known) {
  TensorType t;
  t.dtype = read_dtype(item["dtype"]);
  Item shape = item["shape"];
  if (shape.count() > size_t(max_rank)) shape.bad("expected at most ", max_rank, " axes, got ", shape.count());
  for (size_t i = 0; i < shape.count(); i++) {
    Dim d = read_size(shape[i]);
    if (known && !d.known()) shape[i].bad("must be a number, got ", d.text());
    if (d.known() && d.value() < 0) shape[i].bad("a size must not be negative, got ", d.text());
    t.shape.push_back(std::move(d));
  }
  if (known) {
    Dim bytes = int64_t(size_of(t.dtype));
    for (const Dim& d : t.shape)
      if (!d.is(0)) bytes = bytes * d;  // throws where it overflows, whatever the order
  }
  return t;
}

AttrValue read_attr(const Item& item, int depth = 0) {
  const Json& j = item.json;
  switch (j.type()) {
    case Json::value_t::boolean: return {j.get<bool>()};
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned: return {item.integer()};
    case Json::value_t::number_float: return {j.get<double>()};
    case Json::value_t::string: return {item.string()};
    case Json::value_t::array: break;
    default: item.expected("a bool, number, string or list");
  }
  if (depth >= max_size_depth) item.bad("lists are nested more than ", max_size_depth, " deep");
  AttrList list;
  for (const Json& e : j) list.push_back(read_attr({e, item.at}, depth + 1));
  return {std::move(list)};
}

Node read_node(const Item& item, Function& f) {
  item.allow({"op", "in", "out", "attrs", "path"});
  Node node;
  Item op_item = item["op"];
  node.op = find_op(op_item.string());
  if (!node.op) {
    try {
      op(op_item.string());
    } catch (const Error& e) {
      op_item.bad(e.what());
    }
  }
  Item in = item["in"];
  for (size_t i = 0; i < in.count(); i++) {
    int64_t v = in[i].integer();
    if (v != no_value && (v < 0 || size_t(v) >= f.types.size()))
      in[i].bad("expected the id of a value defined before (0 to ", int64_t(f.types.size()) - 1,
                "), or -1 for an absent input; got ", v);
    node.inputs.push_back(ValueId(v));
  }
  AttrMap attrs;
  if (item.has("attrs")) {
    Item a = item["attrs"];
    if (!a.json.is_object()) a.expected("an object");
    for (auto it = a.json.begin(); it != a.json.end(); ++it) attrs[it.key()] = read_attr({it.value(), a.at + "." + it.key()});
  }
  if (item.has("path")) {
    Item path = item["path"];
    if (path.json.is_array())
      for (size_t i = 0; i < path.count(); i++) node.paths.push_back(path[i].string());
    else if (!path.string().empty())
      node.paths.push_back(path.string());
  }
  try {
    node.attrs = attrs_of(*node.op).read(name_of(*node.op), attrs);
  } catch (const Error& e) {
    item.bad(e.what());
  }
  Item out = item["out"];
  for (size_t i = 0; i < out.count(); i++) {
    if (out[i].integer() != int64_t(f.types.size()))
      out[i].bad("values are numbered in order: expected ", f.types.size(), ", got ", out[i].integer());
    node.outputs.push_back(f.add_value({}));  // its type comes from infer
  }
  return node;
}

Function read_function(const std::string& name, const Item& item, const Module& module) {
  item.allow({"inputs", "nodes", "outputs", "output_names", "stores", "guard"});
  Function f;
  f.name = name;
  Item inputs = item["inputs"];
  for (size_t i = 0; i < inputs.count(); i++) {
    Item input = inputs[i];
    input.allow({"name", "dtype", "shape"});
    f.inputs.push_back({input["name"].string(), f.add_value(read_type(input, false))});
  }
  Item nodes = item["nodes"];
  f.nodes.reserve(nodes.count());
  for (size_t i = 0; i < nodes.count(); i++) f.nodes.push_back(read_node(nodes[i], f));

  size_t values = f.types.size();
  Item outputs = item["outputs"];
  for (size_t i = 0; i < outputs.count(); i++) f.outputs.push_back(ValueId(outputs[i].index(values, "value id")));
  f.output_names.resize(f.outputs.size());
  if (item.has("output_names")) {
    Item names = item["output_names"];
    if (names.count() != f.outputs.size())
      names.bad("expected ", f.outputs.size(), " names, one for each output, got ", names.count());
    for (size_t i = 0; i < names.count(); i++) f.output_names[i] = names[i].string();
  }
  if (item.has("stores")) {
    Item stores = item["stores"];
    for (size_t i = 0; i < stores.count(); i++) {
      Item s = stores[i];
      s.allow({"variable", "value", "when"});
      Store store;
      store.variable = int32_t(s["variable"].index(module.variables.size(), "variable"));
      store.value = ValueId(s["value"].index(values, "value id"));
      if (s.has("when") && !s["when"].json.is_null()) store.when = ValueId(s["when"].index(values, "value id"));
      f.stores.push_back(store);
    }
  }
  if (item.has("guard") && !item["guard"].json.is_null()) f.guard = ValueId(item["guard"].index(values, "value id"));
  return f;
}

/// Infers the types of every function, bodies before the scans over them.
struct TypeInference {
  Module& module;
  std::map<std::string, int> state{};  // 1 open, 2 done

  void infer_function(Function& f, int depth) {
    int& s = state[f.name];
    if (s == 2) return;
    if (s == 1) fail(ErrorKind::graph, "the scan body '", f.name, "' contains a scan over itself");
    if (depth > max_scan_depth) fail(ErrorKind::graph, "scans are nested more than ", max_scan_depth, " deep");
    s = 1;
    for (Node& node : f.nodes) {
      try {
        if (role_of(*node.op) == Structural::scan) infer_function(const_cast<Function&>(*body_of(module, node)), depth + 1);
        Types types = infer_node(module, f, node);
        if (types.size() != node.outputs.size())
          fail(ErrorKind::graph, name_of(*node.op), ": has ", types.size(), " outputs, but \"out\" lists ", node.outputs.size());
        for (size_t i = 0; i < types.size(); i++) f.types[size_t(node.outputs[i])] = std::move(types[i]);
      } catch (const Error& e) {
        throw located(node, e);
      }
    }
    state[f.name] = 2;
  }
};

void collect_symbols(const Dim& d, std::set<std::string>& names) {
  if (!d.known())
    d.substitute([&](const std::string& name) {
      names.insert(name);
      return Dim::symbol(name);
    });
}

/// Every symbol in an attribute must be an input's; a body may also use those of the functions around it.
void check_symbols(const Module& module) {
  std::set<std::string> declared, bodies;
  for (const Function& f : module.functions) {
    for (const Input& input : f.inputs)
      for (const Dim& d : f.types[size_t(input.value)].shape) collect_symbols(d, declared);
    for (const Node& node : f.nodes)
      if (role_of(*node.op) == Structural::scan) bodies.insert(node.as<ScanAttrs>().body);
  }
  for (const Function& f : module.functions) {
    std::set<std::string> own;
    for (const Input& input : f.inputs)
      for (const Dim& d : f.types[size_t(input.value)].shape) collect_symbols(d, own);
    const std::set<std::string>& allowed = bodies.count(f.name) ? declared : own;
    for (const Node& node : f.nodes) {
      const AttrType& type = attrs_of(*node.op);
      if (!type.has_unknown(node.attrs.get())) continue;
      type.substitute(node.attrs.get(), [&](const std::string& name) {
        if (!allowed.count(name))
          fail(ErrorKind::graph, place(node), ": the size '", name, "' is no input's in function '", f.name, "'");
        return Dim::symbol(name);
      });
    }
  }
}

// ---- writing ----------------------------------------------------------------------------------------------------

Json write_size(const Dim& d) {
  if (d.known()) return d.value();
  const Dim::Expr& e = *d.expr();
  if (e.kind == Dim::Kind::symbol) return e.name;
  return Json::array({name_of(e.kind), write_size(e.a), write_size(e.b)});
}

Json write_attr(const AttrValue& a) {
  if (auto* x = std::get_if<bool>(&a.v)) return *x;
  if (auto* x = std::get_if<int64_t>(&a.v)) return *x;
  if (auto* x = std::get_if<std::string>(&a.v)) return *x;
  if (auto* x = std::get_if<Dim>(&a.v)) return write_size(*x);
  if (auto* x = std::get_if<double>(&a.v)) {
    if (std::isnan(*x)) return "nan";
    if (std::isinf(*x)) return *x > 0 ? "inf" : "-inf";
    return *x;
  }
  Json list = Json::array();
  for (const AttrValue& e : std::get<AttrList>(a.v)) list.push_back(write_attr(e));
  return list;
}

Json write_type(const TensorType& t) {
  Json shape = Json::array();
  for (const Dim& d : t.shape) shape.push_back(write_size(d));
  return {{"dtype", name_of(t.dtype)}, {"shape", std::move(shape)}};
}

Json write_function(const Function& f) {
  std::vector<ValueId> id(f.types.size(), no_value);
  ValueId next = 0;
  auto renamed = [&](ValueId v) { return v == no_value ? no_value : id[size_t(v)]; };
  Json inputs = Json::array(), nodes = Json::array(), outputs = Json::array(), stores = Json::array();
  for (const Input& input : f.inputs) {
    id[size_t(input.value)] = next++;
    Json j = write_type(f.types[size_t(input.value)]);
    j["name"] = input.name;
    inputs.push_back(std::move(j));
  }
  for (const Node& node : f.nodes) {
    Json in = Json::array(), out = Json::array(), attrs = Json::object();
    for (ValueId v : node.inputs) in.push_back(renamed(v));
    for (ValueId v : node.outputs) out.push_back(id[size_t(v)] = next++);
    for (const auto& [key, a] : attrs_of(*node.op).write(node.attrs.get())) attrs[key] = write_attr(a);
    Json j = {{"op", name_of(*node.op)}, {"in", std::move(in)}, {"out", std::move(out)}, {"attrs", std::move(attrs)}};
    if (node.paths.size() == 1)
      j["path"] = node.paths[0];
    else if (node.paths.size() > 1)
      j["path"] = node.paths;
    nodes.push_back(std::move(j));
  }
  for (ValueId v : f.outputs) outputs.push_back(renamed(v));
  for (const Store& s : f.stores) {
    Json j = {{"variable", s.variable}, {"value", renamed(s.value)}, {"when", nullptr}};
    if (s.when != no_value) j["when"] = renamed(s.when);
    stores.push_back(std::move(j));
  }
  Json j = {{"inputs", std::move(inputs)},    {"nodes", std::move(nodes)},   {"outputs", std::move(outputs)},
            {"output_names", f.output_names}, {"stores", std::move(stores)}, {"guard", nullptr}};
  if (f.guard != no_value) j["guard"] = renamed(f.guard);
  return j;
}

}  // namespace

Module read_module(std::string_view text) {
  Json json;
  try {
    json = Json::parse(text.begin(), text.end());
  } catch (const Json::exception& e) {
    fail(ErrorKind::format, "module JSON: ", e.what());
  }
  Item root{json, "module"};
  if (!json.is_object()) root.expected("an object");
  if (root["format"].string() != "dagrt") root["format"].bad("expected \"dagrt\", got \"", root["format"].string(), "\"");
  int64_t version = root["version"].integer();
  if (version < 1 || version > module_version)
    root["version"].bad("this dagrt reads versions up to ", module_version, ", got ", version,
                        version > module_version ? "; the file needs a newer dagrt" : "");
  root.allow({"format", "version", "variables", "constants", "functions"});

  Module module;
  Item variables = root["variables"];
  for (size_t i = 0; i < variables.count(); i++) {
    variables[i].allow({"name", "dtype", "shape"});
    module.variables.push_back({variables[i]["name"].string(), read_type(variables[i], true)});
  }
  Item constants = root["constants"];
  for (size_t i = 0; i < constants.count(); i++) {
    constants[i].allow({"dtype", "shape"});
    module.constants.push_back({read_type(constants[i], true), nullptr});
  }
  Item functions = root["functions"];
  if (!functions.json.is_object()) functions.expected("an object");
  if (functions.json.empty()) functions.bad("expected at least one function");
  for (auto it = functions.json.begin(); it != functions.json.end(); ++it)
    module.functions.push_back(read_function(it.key(), {it.value(), "functions." + it.key()}, module));

  check_symbols(module);
  TypeInference inference{module};
  for (Function& f : module.functions) inference.infer_function(f, 0);
  verify(module);
  return module;
}

std::string write_module(const Module& module) {
  Json variables = Json::array(), constants = Json::array(), functions = Json::object();
  for (const VariableDecl& v : module.variables) {
    Json j = write_type(v.type);
    j["name"] = v.name;
    variables.push_back(std::move(j));
  }
  for (const Constant& c : module.constants) constants.push_back(write_type(c.type));
  for (const Function& f : module.functions) functions[f.name] = write_function(f);
  Json json = {{"format", "dagrt"},
               {"version", module_version},
               {"variables", std::move(variables)},
               {"constants", std::move(constants)},
               {"functions", std::move(functions)}};
  try {
    return json.dump();
  } catch (const Json::exception& e) {  // a name that is not UTF-8
    fail(ErrorKind::format, "module JSON: ", e.what());
  }
}

}  // namespace dagrt
