// Moving data without computing: strided copy, padding, fill, iota.
#pragma once
#include "base/view.h"
#include "kernels/kernel.h"

namespace dagrt {

/// dst[i . dst_stride] = src[i . src_stride] for every index i < dims. Strides in elements; those of src may be 0
/// (broadcast) or negative (reverse), those of dst place every element once. src and dst do not overlap.
struct CopyArgs {
  const void* src = nullptr;
  void* dst = nullptr;
  int64_t element = 4;  // bytes: 1, 2, 4 or 8
  int rank = 0;
  int64_t dims[max_rank] = {};
  int64_t src_stride[max_rank] = {};
  int64_t dst_stride[max_rank] = {};
};

/// dst[low + i (interior + 1)] = src[i], elsewhere `value`.
struct PadArgs {
  const void* src = nullptr;
  void* dst = nullptr;
  DType dtype = DType::float32;
  double value = 0;
  int rank = 0;
  int64_t dims[max_rank] = {};  // of src
  int64_t out_dims[max_rank] = {};
  int64_t low[max_rank] = {};
  int64_t interior[max_rank] = {};
  int64_t src_stride[max_rank] = {};
  int64_t dst_stride[max_rank] = {};
};

struct FillArgs {
  void* dst = nullptr;  // [rows, columns], ld
  DType dtype = DType::float32;
  double value = 0;  // floats round to nearest even; integers truncate and saturate; bool: != 0
  int64_t rows = 0, columns = 0, ld = 0;
};

struct IotaArgs {
  void* dst = nullptr;  // [n]: 0, 1, ...
  DType dtype = DType::int32;
  int64_t n = 0;
};

DAGRT_KERNEL(copy_strided, CopyArgs)
DAGRT_KERNEL(pad, PadArgs)
DAGRT_KERNEL(fill, FillArgs)
DAGRT_KERNEL(iota, IotaArgs)

/// Element strides of a tensor whose innermost rows are `ld` apart.
inline void strides_of(const View& v, int64_t* stride) {
  if (v.rank > 0) stride[v.rank - 1] = 1;
  if (v.rank > 1) stride[v.rank - 2] = v.ld > v.dims[v.rank - 1] ? v.ld : v.dims[v.rank - 1];
  for (int i = v.rank - 3; i >= 0; i--) stride[i] = stride[i + 1] * v.dims[i + 1];
}

}  // namespace dagrt
