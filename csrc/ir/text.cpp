#include "ir/text.h"

#include <charconv>

#include "ir/op_view.h"

namespace dagrt {
namespace {

std::string quoted(const std::string& s) {
  std::string out = "\"";
  for (char c : s) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

std::string text(const AttrValue& a) {
  if (auto* x = std::get_if<bool>(&a.v)) return *x ? "true" : "false";
  if (auto* x = std::get_if<int64_t>(&a.v)) return std::to_string(*x);
  if (auto* x = std::get_if<double>(&a.v)) {
    char buffer[40];
    return std::string(buffer, std::to_chars(buffer, buffer + sizeof buffer, *x).ptr);
  }
  if (auto* x = std::get_if<std::string>(&a.v)) return quoted(*x);
  if (auto* x = std::get_if<Dim>(&a.v)) return x->text();
  std::string out = "[";
  for (const AttrValue& e : std::get<AttrList>(a.v)) out += (out.size() > 1 ? ", " : "") + text(e);
  return out + "]";
}

std::string value(ValueId v) { return v == no_value ? "_" : "%" + std::to_string(v); }

std::string variable(const Module& module, int64_t index) {
  if (index < 0 || index >= int64_t(module.variables.size())) return std::to_string(index);
  return quoted(module.variables[size_t(index)].name);
}

std::string node_text(const Module& module, const Function& f, const Node& node) {
  std::string line = "  ";
  for (size_t i = 0; i < node.outputs.size(); i++) line += (i ? ", " : "") + value(node.outputs[i]);
  line += " = " + name_of(*node.op);
  if (!node.inputs.empty()) {
    line += "(";
    for (size_t i = 0; i < node.inputs.size(); i++) line += (i ? ", " : "") + value(node.inputs[i]);
    line += ")";
  }
  if (role_of(*node.op) == Structural::read) {
    line += " {variable: " + variable(module, node.as<ReadAttrs>().variable) + "}";
  } else {
    std::string attrs = text(attrs_of(*node.op).write(node.attrs.get()));
    if (!attrs.empty()) line += " {" + attrs + "}";
  }
  line += " :";
  for (size_t i = 0; i < node.outputs.size(); i++) line += (i ? ", " : " ") + f.types[size_t(node.outputs[i])].text();
  for (size_t i = 0; i < node.paths.size(); i++) line += (i ? ", " : "  # ") + node.paths[i];
  return line + "\n";
}

}  // namespace

std::string text(const AttrMap& attrs) {
  std::string out;
  for (const auto& [key, a] : attrs) out += (out.empty() ? "" : ", ") + key + ": " + text(a);
  return out;
}

std::string text(const Module& module, const Function& f) {
  std::string out = f.name + "(";
  for (size_t i = 0; i < f.inputs.size(); i++) {
    const Input& input = f.inputs[i];
    out += (i ? ", " : "") + value(input.value) + " " + input.name + ": " + f.types[size_t(input.value)].text();
  }
  out += ") {\n";
  for (const Node& node : f.nodes) out += node_text(module, f, node);
  for (const Store& s : f.stores) {
    out += "  store " + variable(module, s.variable) + " = " + value(s.value);
    if (s.when != no_value) out += " when " + value(s.when);
    out += "\n";
  }
  if (f.guard != no_value) out += "  guard " + value(f.guard) + "\n";
  out += "  return";
  for (size_t i = 0; i < f.outputs.size(); i++) {
    out += (i ? ", " : " ") + value(f.outputs[i]);
    if (i < f.output_names.size() && !f.output_names[i].empty()) out += " " + f.output_names[i];
  }
  return out + "\n}\n";
}

std::string text(const Module& module) {
  std::string out;
  for (const Function& f : module.functions) out += (out.empty() ? "" : "\n") + text(module, f);
  return out;
}

}  // namespace dagrt
