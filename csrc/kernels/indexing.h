// Reading and adding at places that data name. Ids out of [0, n) are never followed: reads give zeros, additions are
// skipped, and `bad` says where the first of them stands.
#pragma once
#include "base/view.h"
#include "kernels/kernel.h"

namespace dagrt {

/// The first position of an id outside [0, limit), or -1. Any rank, dense.
struct CheckIdsArgs {
  const void* ids = nullptr;  // int32 or int64
  bool wide = false;          // int64
  int64_t count = 0, limit = 0;
  int64_t* bad = nullptr;
};

/// gather: y[o, k, r, :] = x[o, ids[k], r, :];  scatter_add: y = base, y[o, ids[k], r, :] += x[o, k, r, :], k ascending.
/// Rows of C contiguous elements; strides in elements: `xo` from one o to the next, `xk` from one id or k to the next, `xr`
/// from one row to the next; y alike.
struct RowsArgs {
  const void* x = nullptr;    // gather [O, N, R, C]; scatter_add [O, K, R, C]
  const void* ids = nullptr;  // [K]
  bool wide = false;          // ids are int64
  void* y = nullptr;          // gather [O, K, R, C]; scatter_add [O, N, R, C]
  float* sums = nullptr;      // scatter_add of 16-bit floats: [O N R C] to add in
  DType dtype = DType::float32;
  int64_t O = 1, N = 0, K = 0, R = 1, C = 1;
  int64_t xo = 0, xk = 0, xr = 0, yo = 0, yk = 0, yr = 0;
  const void* base = nullptr;  // scatter_add: as y, may be y; null: zeros. Not of 16-bit floats, nor on CUDA devices
};

/// Along `axis` of size N: y[.., k, ..] = x[.., ids[.., k, ..], ..] (take), or y = zeros and
/// y[.., ids[.., k, ..], ..] += x[.., k, ..], k ascending (put). Strides are in elements; 0 broadcasts.
struct AlongAxisArgs {
  const void* x = nullptr;
  const void* ids = nullptr;
  bool wide = false;
  void* y = nullptr;
  float* sums = nullptr;  // put of 16-bit floats: as many as y has elements, to add in
  DType dtype = DType::float32;
  int rank = 0, axis = 0;
  int64_t N = 0;
  int64_t dims[max_rank] = {};  // of ids and (take) y, (put) x: K along the axis
  int64_t x_stride[max_rank] = {}, id_stride[max_rank] = {}, y_stride[max_rank] = {};
  int64_t y_dims[max_rank] = {};  // put: of y
};

/// y[i, ids[i]] = 1, all else 0.
struct OneHotArgs {
  const void* ids = nullptr;  // [rows]: int32, int64 or uint8
  DType id_dtype = DType::int32;
  void* y = nullptr;  // [rows, depth], ld
  DType dtype = DType::float32;
  int64_t rows = 0, depth = 0, ld = 0;
};

DAGRT_CPU_KERNEL(check_ids, CheckIdsArgs)
DAGRT_KERNEL(gather, RowsArgs)
DAGRT_KERNEL(scatter_add, RowsArgs)
DAGRT_KERNEL(take_along_axis, AlongAxisArgs)
DAGRT_KERNEL(put_along_axis_add, AlongAxisArgs)
DAGRT_KERNEL(one_hot, OneHotArgs)

}  // namespace dagrt
