// The type of a value: element type and sizes (numbers, or expressions over input sizes).
#pragma once
#include <vector>

#include "base/dim.h"
#include "base/dtype.h"

namespace dagrt {

struct TensorType {
  DType dtype = DType::float32;
  Dims shape;
  bool absent = false;  // an optional input that was not given (ValueId no_value)

  int rank() const { return int(shape.size()); }
  bool known() const {
    for (const Dim& d : shape)
      if (!d.known()) return false;
    return true;
  }
  /// Elements and bytes of a fully known type; GraphError otherwise.
  int64_t elements() const { return product(shape).value(); }
  int64_t bytes() const { return elements() * int64_t(size_of(dtype)); }
  std::string text() const { return std::string(name_of(dtype)) + dagrt::text(shape); }
  bool operator==(const TensorType& o) const { return dtype == o.dtype && shape == o.shape; }
};

using Types = std::vector<TensorType>;

}  // namespace dagrt
