// The model file (docs/boundary.md, "Model file"): a traced module with its weights in one safetensors file.
//
//   __metadata__        "format": "dagrt", "version": "1", "module": the module JSON, and the writer's own entries
//   var/<i>, const/<i>  the module's variables and constants, all of them
//   selftest/in/<k>, selftest/out/<k>   inputs of "main" and what it answers; optional, all or none
//
// Both ways the module and the tensors are checked against each other: a file that was written can be read.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "ir/module.h"

namespace dagrt {

class ModelFile {
 public:
  /// FileError; FormatError for what is not such a file; GraphError ... for a module that makes no sense. All name the file.
  explicit ModelFile(const std::string& path);

  const std::string& module_json() const { return json_; }
  const Module& module() const { return module_; }                                  // its constants have no data yet
  const std::map<std::string, std::string>& metadata() const { return metadata_; }  // without format, version, module
  const std::map<std::string, FileTensor>& tensors() const { return file_.tensors(); }

  // By index; data lives as long as this object and may be unaligned.
  const std::vector<const FileTensor*>& variables() const { return variables_; }
  const std::vector<const FileTensor*>& constants() const { return constants_; }
  const std::vector<const FileTensor*>& selftest_inputs() const { return selftest_inputs_; }
  const std::vector<const FileTensor*>& selftest_outputs() const { return selftest_outputs_; }

 private:
  Safetensors file_;
  std::string json_;
  std::map<std::string, std::string> metadata_;
  Module module_;
  std::vector<const FileTensor*> variables_, constants_, selftest_inputs_, selftest_outputs_;
};

/// Checks module and tensors, then writes the file atomically.
void write_model_file(const std::string& path, const std::string& module_json, const std::vector<FileTensor>& tensors,
                      const std::map<std::string, std::string>& metadata);

}  // namespace dagrt
