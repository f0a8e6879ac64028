#include "io/model_file.h"

#include <algorithm>
#include <set>

#include "ir/schema.h"

namespace dagrt {
namespace {

using Tensors = std::map<std::string, FileTensor>;
using Found = std::vector<const FileTensor*>;

const char* const reserved[] = {"format", "version", "module"};

std::string type_text(const FileTensor& t) { return std::string(name_of(t.dtype)) + text(Dims(t.shape.begin(), t.shape.end())); }

bool fits(const FileTensor& t, const TensorType& type) {
  if (t.dtype != type.dtype || t.shape.size() != type.shape.size()) return false;
  for (size_t i = 0; i < t.shape.size(); i++)
    if (type.shape[i].known() && !type.shape[i].is(t.shape[i])) return false;
  return true;
}

/// The tensors prefix/0, prefix/1, ... of the given types.
Found take(const Tensors& tensors, const std::string& prefix, const std::vector<TensorType>& types, const std::string& path) {
  Found found;
  for (size_t i = 0; i < types.size(); i++) {
    auto it = tensors.find(prefix + std::to_string(i));
    if (it == tensors.end())
      fail(ErrorKind::format, path, ": the module needs ", types.size(), " tensors ", prefix, "0 ...; '", prefix, i,
           "' is missing");
    if (!fits(it->second, types[i]))
      fail(ErrorKind::format, path, ": tensor '", prefix, i, "': expected ", types[i].text(), ", got ", type_text(it->second));
    found.push_back(&it->second);
  }
  return found;
}

struct Checked {
  Module module;
  Found variables, constants, selftest_inputs, selftest_outputs;
};

Checked check(const std::string& json, const Tensors& tensors, const std::string& path) {
  Checked c;
  try {
    c.module = read_module(json);
  } catch (const Error& e) {
    throw Error(e.kind, path + ": " + e.what());
  }
  auto main = std::find_if(c.module.functions.begin(), c.module.functions.end(), [](auto& f) { return f.name == "main"; });
  if (main == c.module.functions.end()) fail(ErrorKind::format, path, ": the module has no function 'main'");
  std::vector<TensorType> variables, constants, inputs, outputs;
  for (const VariableDecl& v : c.module.variables) variables.push_back(v.type);
  for (const Constant& v : c.module.constants) constants.push_back(v.type);
  c.variables = take(tensors, "var/", variables, path);
  c.constants = take(tensors, "const/", constants, path);
  bool tested = std::any_of(tensors.begin(), tensors.end(), [](auto& t) { return t.first.rfind("selftest/", 0) == 0; });
  if (tested) {
    for (const Input& i : main->inputs) inputs.push_back(main->types[size_t(i.value)]);
    for (ValueId v : main->outputs) outputs.push_back(main->types[size_t(v)]);
    c.selftest_inputs = take(tensors, "selftest/in/", inputs, path);
    c.selftest_outputs = take(tensors, "selftest/out/", outputs, path);
  }
  std::set<const FileTensor*> used;
  for (const Found* list : {&c.variables, &c.constants, &c.selftest_inputs, &c.selftest_outputs})
    used.insert(list->begin(), list->end());
  for (auto& [name, t] : tensors)
    if (!used.count(&t))
      fail(ErrorKind::format, path, ": tensor '", name, "' is none that the module knows (", variables.size(), " variables, ",
           constants.size(), " constants)");
  return c;
}

}  // namespace

ModelFile::ModelFile(const std::string& path) : file_(path), metadata_(file_.metadata()) {
  auto entry = [&](const char* key) -> const std::string& {
    auto it = file_.metadata().find(key);
    if (it == file_.metadata().end())
      fail(ErrorKind::format, path, ": a safetensors file, but not a model of dagrt: its metadata lacks '", key, "'");
    return it->second;
  };
  if (entry("format") != "dagrt")
    fail(ErrorKind::format, path, ": a safetensors file of format '", entry("format"), "', not a model of dagrt");
  if (entry("version") != std::to_string(module_version))
    fail(ErrorKind::format, path, ": model file version ", entry("version"), "; this dagrt reads version ", module_version,
         "; update dagrt, or export the model again");
  json_ = entry("module");
  for (const char* key : reserved) metadata_.erase(key);
  Checked c = check(json_, file_.tensors(), path);
  module_ = std::move(c.module);
  variables_ = std::move(c.variables);
  constants_ = std::move(c.constants);
  selftest_inputs_ = std::move(c.selftest_inputs);
  selftest_outputs_ = std::move(c.selftest_outputs);
}

void write_model_file(const std::string& path, const std::string& module_json, const std::vector<FileTensor>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  Tensors by_name;
  for (const FileTensor& t : tensors)
    if (!by_name.emplace(t.name, t).second) fail(ErrorKind::value, path, ": two tensors are called '", t.name, "'");
  check(module_json, by_name, path);
  std::map<std::string, std::string> all = metadata;
  for (const char* key : reserved)
    if (metadata.count(key)) fail(ErrorKind::value, path, ": the metadata key '", key, "' is dagrt's own");
  all["format"] = "dagrt";
  all["version"] = std::to_string(module_version);
  all["module"] = module_json;
  write_safetensors(path, all, tensors);
}

}  // namespace dagrt
