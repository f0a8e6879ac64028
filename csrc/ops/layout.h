// What the planner asks of concat and slice.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace dagrt {

/// The axis, from the front, along which a concat of `rank` axes joins.
size_t concat_axis(const void* attrs, size_t rank);

/// Where a slice begins, by axis; false where it leaves elements out between.
bool slice_begin(const void* attrs, std::vector<int64_t>& begin);

}  // namespace dagrt
