#include "ops/cuda.h"

#include <algorithm>

#include "kernels/check.h"
#include "kernels/layout.h"

namespace dagrt {

void check_on_device(const RunContext& c, const View& ids, int64_t limit) {
  CheckNumbersArgs a;
  a.ids = ids.data;
  a.dtype = ids.dtype;
  a.width = ids.rank ? ids.dims[ids.rank - 1] : 1;
  a.ld = std::max(ids.ld, a.width);
  a.count = ids.elements();
  a.limit = limit;
  a.code = limit < 0 ? Status::division_by_zero : Status::index_out_of_range;
  a.node = c.node;
  check_numbers(a, *c.stream.cuda);
}

void copy_on(CudaStream& s, void* to, const void* from, size_t bytes) {
  if (!bytes) return;
  uintptr_t all = reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from) | bytes;
  CopyArgs a;
  a.src = from;
  a.dst = to;
  a.element = all % 8 == 0 ? 8 : all % 4 == 0 ? 4 : 1;
  a.rank = 1;
  a.dims[0] = int64_t(bytes) / a.element;
  a.src_stride[0] = a.dst_stride[0] = 1;
  copy_strided(a, s);
}

void put_on(CudaStream& s, int32_t* to, int32_t value) { fill({to, DType::int32, double(value), 1, 1, 1}, s); }

}  // namespace dagrt
