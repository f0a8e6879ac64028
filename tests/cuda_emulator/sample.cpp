// Which blocks of a launch run. Full shapes are counted by a sample: blocks within a grid ask the same of memory, those at its
// edges less. Each kind gives its share of the sample, and at least one; a kind's blocks are drawn one from each of as many equal
// pieces, at places that a hash scatters, so that no period of the grid is met.
#include <cstdlib>

#include "watch.h"

namespace emulator {
namespace {

/// First, within, last along one direction, as pieces of [0, n).
struct Axis {
  unsigned begin[3], count[3];
  explicit Axis(unsigned n) : begin{0, 1, n - 1}, count{1, n > 2 ? n - 2 : 0, n > 1 ? 1u : 0u} {}
};

uint64_t hashed(uint64_t x) {
  x = (x ^ (x >> 31)) * 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 29)) * 0xBF58476D1CE4E5B9u;
  return x ^ (x >> 32);
}

}  // namespace

uint64_t sample_size() {
  const char* blocks = std::getenv("DAGRT_EMULATOR_BLOCKS");
  return blocks ? std::strtoull(blocks, nullptr, 10) : 0;
}

std::vector<Sample> blocks_to_run(uint3 grid, uint64_t limit, uint64_t first) {
  const uint64_t all = uint64_t(grid.x) * grid.y * grid.z;
  std::vector<Sample> chosen;
  if (limit == 0 || limit >= all) {
    for (uint64_t i = 0; i < all; i++) chosen.push_back({(first + i) % all, 1});
    return chosen;
  }
  const Axis x(grid.x), y(grid.y), z(grid.z);
  for (int kind = 0; kind < 27; kind++) {
    const int i = kind % 3, j = kind / 3 % 3, k = kind / 9;
    const uint64_t size = uint64_t(x.count[i]) * y.count[j] * z.count[k];
    if (!size) continue;
    const uint64_t share = (size * limit + all / 2) / all, taken = share ? share : 1;
    for (uint64_t n = 0; n < taken; n++) {
      const uint64_t from = size * n / taken, to = size * (n + 1) / taken;
      const uint64_t at = from + hashed(n * 27 + kind) % (to - from);
      const uint64_t bx = x.begin[i] + at % x.count[i], by = y.begin[j] + at / x.count[i] % y.count[j];
      const uint64_t bz = z.begin[k] + at / x.count[i] / y.count[j];
      chosen.push_back({bx + grid.x * (by + grid.y * bz), double(size) / double(taken)});
    }
  }
  return chosen;
}

}  // namespace emulator
