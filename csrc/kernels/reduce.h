// Reductions along one run of axes, argmax and argmin, cumulative sums, sorting.
#pragma once
#include "kernels/kernel.h"

namespace dagrt {

enum class Reduction : uint8_t { sum, max, min, prod };

/// y[o, m, i] = reduction over r of x[o, r, m, i].
struct ReduceArgs {
  Reduction kind = Reduction::sum;
  DType dtype = DType::float32;  // of x; y is float32 for all floats, else x's type
  const void* x = nullptr;
  void* y = nullptr;  // [outer, mid, inner], packed
  int64_t outer = 1, length = 1, mid = 1, inner = 1;
  int64_t outer_stride = 0, length_stride = 0, mid_stride = 0;  // of x, in elements; inner is contiguous
  float* partials = nullptr;                                    // floats: reduce_partials(...) of them
};

// Long float reductions are cut into pieces of about this many elements; how is a function of the sizes alone.
inline constexpr int64_t reduce_piece_elements = 32768;
inline __attribute__((always_inline)) int64_t reduce_piece(int64_t length, int64_t inner) {  // elements along the reduced axis
  int64_t piece = reduce_piece_elements / (inner < 1 ? 1 : inner);
  piece = piece < 128 ? 128 : piece;
  return piece < length ? piece : length;
}
inline __attribute__((always_inline)) int64_t reduce_pieces(int64_t length, int64_t inner) {
  return length ? (length + reduce_piece(length, inner) - 1) / reduce_piece(length, inner) : 1;
}
inline __attribute__((always_inline)) int64_t reduce_partials(int64_t outer, int64_t length, int64_t mid, int64_t inner) {
  int64_t pieces = reduce_pieces(length, inner);
  return pieces > 1 ? outer * mid * pieces * inner : 0;
}

DAGRT_KERNEL(reduce, ReduceArgs)

/// y[i] = reduction over j of x[i . stride + j . length_stride]: few elements along several axes at once, the innermost of x kept.
inline constexpr int64_t reduce_apart_most = 256;
struct ReduceApartArgs {
  Reduction kind = Reduction::sum;
  DType dtype = DType::float32;  // of x, a float
  const void* x = nullptr;
  float* y = nullptr;      // [dims], packed
  int rank = 0;            // at least 1; stride[rank - 1] is 1
  int64_t dims[8] = {};    // of y
  int64_t stride[8] = {};  // of x
  int length_rank = 0;
  int64_t length_dims[8] = {};  // at most reduce_apart_most elements
  int64_t length_stride[8] = {};
};
DAGRT_KERNEL(reduce_apart, ReduceApartArgs)

/// y[o, i] = index of the first largest (smallest) x[o, ., i]; the first NaN wins over all.
struct ArgReduceArgs {
  bool smallest = false;
  DType dtype = DType::float32;
  const void* x = nullptr;
  int32_t* y = nullptr;  // [outer, inner], packed
  int64_t outer = 1, length = 1, inner = 1;
  int64_t outer_stride = 0, length_stride = 0, inner_stride = 1;
};
DAGRT_KERNEL(arg_reduce, ArgReduceArgs)

/// y[o, r, i] = sum of x[o, q, i] over q <= r (exclusive: q < r; reverse: >= and >). Sums in float32 or own width.
struct CumsumArgs {
  bool reverse = false, exclusive = false;
  DType dtype = DType::float32;
  const void* x = nullptr;
  void* y = nullptr;
  int64_t outer = 1, length = 1, inner = 1;
  int64_t x_stride[3] = {};  // outer, length, inner
  int64_t y_stride[3] = {};
};
DAGRT_KERNEL(cumsum, CumsumArgs)

/// The first `kept` elements of x[o, ., i] in ascending or descending order, stable; NaN counts as the largest.
struct SortArgs {
  bool descending = false;
  DType dtype = DType::float32;
  const void* x = nullptr;
  void* values = nullptr;      // [outer, kept, inner] by its strides, or null
  int32_t* indices = nullptr;  // the same, or null
  int64_t outer = 1, length = 1, kept = 1, inner = 1;
  int64_t x_stride[3] = {};  // outer, length, inner
  int64_t values_stride[3] = {};
  int64_t indices_stride[3] = {};
  // scratch for each worker: sort_scratch(length)
};
inline __attribute__((always_inline)) size_t sort_scratch(int64_t length) { return size_t(length) * 32; }
DAGRT_KERNEL(sort, SortArgs)

}  // namespace dagrt
