#include "ir/module.h"

namespace dagrt {
namespace {

template <class M> auto& find_function(M& module, const std::string& name) {
  for (auto& f : module.functions)
    if (f.name == name) return f;
  std::string present;
  for (const Function& f : module.functions) present += (present.empty() ? "" : ", ") + ("'" + f.name + "'");
  fail(ErrorKind::graph, "the module has no function '", name, "'; it has ", present.empty() ? "none" : present);
}

}  // namespace

Types Function::types_of(const std::vector<ValueId>& values) const {
  Types t(values.size());
  for (size_t i = 0; i < t.size(); i++) {
    if (values[i] == no_value)
      t[i].absent = true;
    else
      t[i] = types[size_t(values[i])];
  }
  return t;
}

const Function& Module::function(const std::string& name) const { return find_function(*this, name); }
Function& Module::function(const std::string& name) { return find_function(*this, name); }

}  // namespace dagrt
