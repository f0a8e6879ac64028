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

inline constexpr int most_lanes = 4;

/// When memory is in use: from step to step, both included. Steps stand in lanes (streams of a GPU); in each they are numbered
/// in their order. In a lane, `last` is the last step that uses the memory, `first` the first that may run while or after
/// it is first used; a lane that has no such step keeps the defaults. The CPU's plans have one lane.
struct Span {
  int32_t first[most_lanes] = {};
  int32_t last[most_lanes] = {-1, -1, -1, -1};
  bool before(const Span& o) const {
    for (int i = 0; i < most_lanes; i++)
      if (last[i] >= o.first[i]) return false;
    return true;
  }
};

struct Extent {
  size_t bytes = 0;
  Span span;
  size_t offset = 0;  // the answer, a multiple of arena_alignment
};

/// Sets every offset; returns the arena's bytes.
size_t assign_offsets(std::vector<Extent>& extents);

}  // namespace dagrt
