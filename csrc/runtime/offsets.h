// Offsets of buffers in an arena: buffers that live at the same time do not overlap, others may.
//
// Greedy, largest first: each takes the smallest gap, between the placed buffers that live at the same time as it,
// into which it fits, else the end. Finding the least arena is NP-hard; this comes within a few percent on networks.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace dagrt {

inline constexpr size_t arena_alignment = 64;

inline constexpr size_t aligned(size_t bytes) { return (bytes + arena_alignment - 1) / arena_alignment * arena_alignment; }

struct Extent {
  size_t bytes = 0;
  int32_t first = 0, last = 0;  // steps, both included
  size_t offset = 0;            // the answer, a multiple of arena_alignment
};

/// Sets every offset; returns the arena's bytes.
size_t assign_offsets(std::vector<Extent>& extents);

}  // namespace dagrt
