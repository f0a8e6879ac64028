#include "runtime/offsets.h"

#include <algorithm>
#include <numeric>

namespace dagrt {

size_t assign_offsets(std::vector<Extent>& extents) {
  std::vector<size_t> order(extents.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    if (extents[a].bytes != extents[b].bytes) return extents[a].bytes > extents[b].bytes;
    return extents[a].span.first[0] < extents[b].span.first[0];
  });
  std::vector<size_t> placed;  // by offset
  size_t total = 0;
  for (size_t i : order) {
    Extent& e = extents[i];
    size_t bytes = aligned(e.bytes);
    if (bytes == 0) {
      e.offset = 0;
      continue;
    }
    size_t best = SIZE_MAX, best_gap = SIZE_MAX, end = 0;
    for (size_t j : placed) {
      const Extent& p = extents[j];
      if (p.span.before(e.span) || e.span.before(p.span)) continue;
      if (p.offset > end && p.offset - end >= bytes && p.offset - end < best_gap) {
        best = end;
        best_gap = p.offset - end;
      }
      end = std::max(end, p.offset + aligned(p.bytes));
    }
    e.offset = best != SIZE_MAX ? best : end;
    total = std::max(total, e.offset + bytes);
    placed.insert(std::upper_bound(placed.begin(), placed.end(), e.offset,
                                   [&](size_t offset, size_t j) { return offset < extents[j].offset; }),
                  i);
  }
  return total;
}

}  // namespace dagrt
