// Counts what a kernel asks of memory, warp by warp, in builds whose accesses are watched (race.cpp). With
// DAGRT_EMULATOR_COUNTS=file every launch adds a line of JSON to that file; README.md says what stands in it.
//
// Lanes run one after another here. Between two operations of a warp (or barriers) each lane leaves a list of accesses, which
// are put side by side again: of the places in the code where the lists stand, that one was next which no lane that stands
// elsewhere has still before it; where each has (a loop around a loop), the lowest. Exact also where lanes branch, or loop for
// different counts.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>

#include "watch.h"

namespace emulator {
namespace {

constexpr unsigned lanes = 32, bank_bytes = 4, sector_bytes = 32;
constexpr size_t ahead = 256;  // accesses of a lane that are looked through for a place

struct Access {
  void* at;
  uintptr_t where;
  unsigned bytes;
  bool write, shared;
};

struct WarpLog {
  unsigned epoch = 0, clock = 0;
  std::array<std::vector<Access>, lanes> of;
};

struct Counts {
  double read = 0, written = 0, requests = 0, sectors = 0, least_sectors = 0, wavefronts = 0, least_wavefronts = 0, barriers = 0;
  void add(const Counts& c, double weight) {
    read += c.read * weight, written += c.written * weight, requests += c.requests * weight;
    sectors += c.sectors * weight, least_sectors += c.least_sectors * weight;
    wavefronts += c.wavefronts * weight, least_wavefronts += c.least_wavefronts * weight, barriers += c.barriers * weight;
  }
};

std::vector<WarpLog> warps;  // of the block that runs; of all blocks in a cooperative launch
Counts counted, total;
const char* file = nullptr;

/// Distinct numbers of what a warp touches: at most 32 lanes of 16 bytes, more for ranges.
class Numbers {
 public:
  void clear() { held.clear(), sorted = true; }
  void put(uintptr_t n) {
    if (!held.empty() && held.back() == n) return;
    sorted = sorted && (held.empty() || held.back() < n);
    held.push_back(n);
  }
  const std::vector<uintptr_t>& distinct() {
    if (!sorted) {
      std::sort(held.begin(), held.end());
      held.erase(std::unique(held.begin(), held.end()), held.end());
    }
    return held;
  }

 private:
  std::vector<uintptr_t> held;
  bool sorted = true;
};

using Together = std::array<const Access*, lanes>;  // null for lanes that take no part

void add_device(const Together& access) {
  static Numbers pieces, sectors;
  pieces.clear(), sectors.clear();
  unsigned step = 0;  // of 4 bytes, or single ones where less is touched
  bool write = false;
  for (const Access* a : access) {
    if (!a) continue;
    step = std::min(a->bytes, 4u), write = a->write;
    for (unsigned i = 0; i < a->bytes; i += step) pieces.put(a->where + i), sectors.put((a->where + i) / sector_bytes);
  }
  if (!step) return;
  const size_t bytes = pieces.distinct().size() * step;
  (write ? counted.written : counted.read) += double(bytes);
  counted.requests++;
  counted.sectors += double(sectors.distinct().size());
  counted.least_sectors += double((bytes + sector_bytes - 1) / sector_bytes);
}

/// 8 bytes a lane are served for 16 lanes at once, 16 bytes for 8.
void add_shared(const Together& access) {
  static Numbers words;
  unsigned width = bank_bytes;
  for (const Access* a : access)
    if (a) width = std::max(width, a->bytes);
  const unsigned at_once = std::max(1u, lanes * bank_bytes / width);
  for (unsigned first = 0; first < lanes; first += at_once) {
    words.clear();
    for (unsigned lane = first; lane < first + at_once; lane++)
      if (const Access* a = access[lane])
        for (uintptr_t w = a->where / bank_bytes; w <= (a->where + a->bytes - 1) / bank_bytes; w++) words.put(w);
    const auto& distinct = words.distinct();
    if (distinct.empty()) continue;
    std::array<unsigned, 32> bank{};
    for (uintptr_t w : distinct) bank[w % 32]++;
    counted.wavefronts += *std::max_element(bank.begin(), bank.end());
    counted.least_wavefronts += double((distinct.size() + 31) / 32);
  }
}

void finish(WarpLog& w) {
  std::array<size_t, lanes> next{};
  auto head = [&](unsigned i) { return next[i] < w.of[i].size() ? &w.of[i][next[i]] : nullptr; };
  auto reached_later = [&](void* place) {
    for (unsigned i = 0; i < lanes; i++) {
      if (!head(i) || head(i)->at == place) continue;
      for (size_t k = next[i] + 1; k < std::min(w.of[i].size(), next[i] + ahead); k++)
        if (w.of[i][k].at == place) return true;
    }
    return false;
  };
  for (;;) {
    std::array<void*, lanes> places;
    size_t count = 0;
    for (unsigned i = 0; i < lanes; i++)
      if (head(i) && (!count || places[count - 1] != head(i)->at)) places[count++] = head(i)->at;
    if (!count) break;
    void* place = places[0];
    if (count > 1) {
      std::sort(places.begin(), places.begin() + count);
      count = size_t(std::unique(places.begin(), places.begin() + count) - places.begin());
      auto chosen = std::find_if(places.begin(), places.begin() + count, [&](void* p) { return !reached_later(p); });
      place = chosen == places.begin() + count ? places[0] : *chosen;
    }
    Together device{}, shared{};
    for (unsigned i = 0; i < lanes; i++)
      if (const Access* a = head(i); a && a->at == place) (a->shared ? shared : device)[i] = a, next[i]++;
    add_device(device);
    add_shared(shared);
  }
  for (auto& lane : w.of) lane.clear();
}

void begin() {
  file = std::getenv("DAGRT_EMULATOR_COUNTS");
  counted = total = {};
  for (WarpLog& w : warps)
    for (auto& lane : w.of) lane.clear();
}

void end_block(const Sample& block, unsigned barriers) {
  if (!file) return;
  for (WarpLog& w : warps) finish(w);
  counted.barriers += barriers;
  total.add(counted, block.weight);
  counted = {};
}

void end(const Launch& l, uint64_t blocks_run) {
  if (!file) return;
  FILE* f = std::fopen(file, "a");
  if (!f) return;
  std::fprintf(
      f,
      "{\"kernel\": \"%s\", \"grid\": [%u, %u, %u], \"threads\": %u, \"blocks\": %llu, \"blocks_run\": %llu, \"read\": %.0f, "
      "\"written\": %.0f, \"requests\": %.0f, \"sectors\": %.0f, \"least_sectors\": %.0f, \"wavefronts\": %.0f, "
      "\"least_wavefronts\": %.0f, \"barriers\": %.0f}\n",
      l.name, l.grid.x, l.grid.y, l.grid.z, l.block.x * l.block.y * l.block.z,
      static_cast<unsigned long long>(l.grid.x) * l.grid.y * l.grid.z, static_cast<unsigned long long>(blocks_run), total.read,
      total.written, total.requests, total.sectors, total.least_sectors, total.wavefronts, total.least_wavefronts,
      total.barriers);
  std::fclose(f);
}

[[maybe_unused]] const bool installed = [] {
  counter = {begin, end_block, end};
  return true;
}();

}  // namespace

void count_access(uintptr_t where, unsigned bytes, bool write, bool shared, void* at, const Moment& m) {
  if (!file || !at) return;
  const size_t index = (here.cooperative ? m.block * size_t(32) : 0) + m.thread / lanes;
  if (index >= warps.size()) warps.resize(index + 1);
  WarpLog& w = warps[index];
  if (w.epoch != m.epoch || w.clock != m.clock) {
    finish(w);
    w.epoch = m.epoch, w.clock = m.clock;
  }
  w.of[m.thread % lanes].push_back({at, where, bytes, write, shared});
}

}  // namespace emulator
