// NumPy's .npy files: one array each, as dagrt-run reads and writes them.
//
//   "\x93NUMPY", version (major, minor), header length (2 bytes in version 1, 4 in 2 and 3, little-endian), header, data
//   header: a Python literal {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "io/file.h"

namespace dagrt {

struct NpyArray {
  DType dtype = DType::float32;
  std::vector<int64_t> shape;
  std::shared_ptr<void> data;  // C order
  std::string note;            // what was converted, for the user to know; "" for nothing
};

/// Little-endian float16, float32, int32, int64, uint8, bool, and bfloat16 as ml_dtypes saves it; float64 becomes float32.
/// FileError; FormatError for a damaged file; DTypeError for other element types; all name the file.
NpyArray read_npy(const std::string& path);

/// Atomically. bfloat16, which NumPy lacks, is written as float32, which holds every value of it.
void write_npy(const std::string& path, DType dtype, const std::vector<int64_t>& shape, const void* data);

}  // namespace dagrt
