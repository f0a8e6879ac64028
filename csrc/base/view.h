// What a kernel or an op's `run` sees of a tensor: memory, element type and sizes, nothing else.
#pragma once
#include <cstdint>

#include "base/dtype.h"

namespace dagrt {

inline constexpr int max_rank = 8;

struct View {
  void* data = nullptr;  // null: an output nobody reads (only residual outputs), or an absent input
  DType dtype = DType::float32;
  int rank = 0;
  int64_t dims[max_rank] = {};
  int64_t ld = 0;  // pixel stride: elements from one innermost row to the next, >= dims[rank - 1]

  template <class T> T* as() const { return static_cast<T*>(data); }
  int64_t dim(int axis) const { return dims[axis < 0 ? axis + rank : axis]; }
  int64_t elements() const {
    int64_t n = 1;
    for (int i = 0; i < rank; i++) n *= dims[i];
    return n;
  }
  /// Product of all sizes but the last: the number of innermost rows.
  int64_t rows() const {
    int64_t n = 1;
    for (int i = 0; i + 1 < rank; i++) n *= dims[i];
    return n;
  }
  int64_t bytes() const { return elements() * int64_t(size_of(dtype)); }
};

}  // namespace dagrt
