// Which values stand in a slice of another value's memory, so that `concat` and `slice` need no copy.
//
// - What a concat joins is written by its producers straight into their parts of the result.
// - What a slice takes out is read where it is.
// A part is a block (nothing but axes of 1 before the cut axis), which any op takes, or columns of the last axis, whose
// rows then stand View::ld apart: every op that writes or reads it must say that it honours that (Op::spaced).
// A reshape is the same memory and goes with its value, where it keeps the last axis.
// Left alone: what the function gives out or stores (its memory is the caller's or a variable's), what a scan writes in
// columns, and narrow columns, whose short rows cost every op more than one copy does.
#pragma once
#include <vector>

#include "ops/op.h"

namespace dagrt {

struct Slices {
  struct Place {
    ValueId host = no_value;  // stands in its memory; no_value: has memory of its own
    int64_t offset = 0;       // elements from the host's first
    int64_t ld = 0;           // elements from row to row
  };
  std::vector<Place> at;   // by value
  std::vector<char> gone;  // by node: a concat or slice that has nothing to do
};

/// `hoisted` (by node, or empty): nodes that are not run. `spaced`: whether columns are allowed, or blocks alone, and those where
/// 16 bytes can be read at once: CUDA's kernels choose by sizes, and a GPU faults at other addresses.
Slices find_slices(const Function& f, const std::vector<char>& hoisted, bool spaced);

}  // namespace dagrt
