// The safetensors container: named tensors and a table of strings.
//
//   8 bytes   N, the header's length, little-endian
//   N bytes   JSON: {"__metadata__": {key: text}, name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [from, to]}}
//   the rest  the tensors' bytes, C order, little-endian; offsets count from here
//
// Reading checks everything before it trusts a number: the header's length against the file's, each tensor's bytes against
// its shape (with overflow), and that the tensors fill the rest without overlap or hole. A damaged file is a FormatError.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "io/file.h"

namespace dagrt {

struct FileTensor {
  std::string name;
  DType dtype = DType::float32;
  std::vector<int64_t> shape;
  const void* data = nullptr;  // read from a file: perhaps not aligned to its elements
  size_t bytes = 0;
};

class Safetensors {
 public:
  /// Maps the file. FileError, or FormatError naming the file and what is wrong.
  explicit Safetensors(const std::string& path);

  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::map<std::string, FileTensor>& tensors() const { return tensors_; }  // data lives as long as this object
  const FileTensor* find(const std::string& name) const;

 private:
  MappedFile file_;
  std::map<std::string, std::string> metadata_;
  std::map<std::string, FileTensor> tensors_;
};

/// Writes the file atomically. Tensors are ordered by element size, then name, so that each is aligned.
void write_safetensors(const std::string& path, const std::map<std::string, std::string>& metadata,
                       std::vector<FileTensor> tensors);

/// Elements of a shape; -1 where a size is negative or the product exceeds 2^63 - 1.
int64_t checked_elements(const std::vector<int64_t>& shape);

}  // namespace dagrt
