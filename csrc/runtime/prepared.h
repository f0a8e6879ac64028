// Prepared values: what programs read of variables in another form, made once and kept beside the variables.
//
// One value serves every program with the same expression over the same variables (and instruction set, and device); it
// lives as long as one of them does. It is remade where a source's version has risen, by the next run that reads it, with
// the lock of the variables' group held exclusively; all its sources are in that group. Sources' versions only rise, so
// their sum tells a state from every other.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "runtime/device.h"
#include "runtime/hoist.h"
#include "runtime/variable.h"

namespace dagrt {

class Program;

class PreparedValue {
 public:
  PreparedValue(std::string key, std::unique_ptr<Program> maker, std::vector<VariableRef> sources, size_t bytes, Device& device);
  ~PreparedValue();
  PreparedValue(const PreparedValue&) = delete;
  PreparedValue& operator=(const PreparedValue&) = delete;

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  const std::vector<VariableRef>& sources() const { return sources_; }

  // With the lock of the sources' group: any, or exclusive.
  bool fresh() const;
  void make();

 private:
  std::string key_;
  std::unique_ptr<Program> maker_;
  std::vector<VariableRef> sources_;
  size_t bytes_;
  Device& device_;
  void* data_;
  uint64_t made_at_ = UINT64_MAX;  // sum of the sources' versions
};

using PreparedRef = std::shared_ptr<PreparedValue>;

/// The value of `recipe`, shared or new. Null where it would exceed DAGRT_PREPARED_LIMIT (bytes of all prepared values of
/// the process) or half of the memory left. What depends on constants alone is made at once.
PreparedRef prepared_value(const RecipeBook& book, const Recipe& recipe, const TensorType& type,
                           const std::vector<VariableRef>& variables, Device& device);

/// Sum of versions.
uint64_t state_of(const std::vector<VariableRef>& variables);

/// Bytes held by all prepared values of the process.
size_t prepared_bytes_in_use();

}  // namespace dagrt
