// What the emulator tells those who watch a kernel's accesses: race.cpp and count.cpp, in builds with DAGRT_EMULATOR_RACES.
#pragma once
#include <vector>

#include "emulator.h"

namespace emulator {

struct Moment {
  unsigned block, thread, epoch, clock,
      fences;  // of the launch; of the block; barriers, the warp's operations, the block's fences passed
};
bool in_device_memory(uintptr_t at);
char* device_range();  // its addresses
constexpr size_t device_range_bytes = size_t(16) << 40;
void set_written(const void* p, size_t bytes, bool written);  // of device memory, where accesses are watched
bool all_written(const void* p, size_t bytes);
void copy_written(void* to, const void* from, size_t bytes);  // to and from any memory
bool may_touch(uintptr_t at, size_t bytes);  // device memory: whether it lies in an extent of the launch
bool in_shared_variable(uintptr_t at, size_t bytes);  // of the block that runs, or in its dynamic memory
void race(const char* what);  // ends the launch
const std::vector<unsigned>& operations_of(unsigned block, unsigned warp);  // the lanes of each that it has passed

// Set by race.cpp; null in other builds. A copy that arrives has no place in the code.
extern void (*forget_accesses)();
extern void (*note_access)(const void* where, size_t bytes, bool write, void* at);

/// A block that runs, and for how many of the launch it stands.
struct Sample {
  uint64_t block;
  double weight;
};
/// All blocks from `first` on, or about `limit` of them (0: all): at least one of each kind, where a kind is being first, within
/// or last in each of the grid's directions.
std::vector<Sample> blocks_to_run(uint3 grid, uint64_t limit, uint64_t first);

struct Counter {
  void (*begin)() = nullptr;
  void (*end_block)(const Sample& block, unsigned barriers) = nullptr;  // before its shared memory goes
  void (*end)(const Launch& launch, uint64_t blocks_run) = nullptr;
};
extern Counter counter;  // set by count.cpp
void count_access(uintptr_t where, unsigned bytes, bool write, bool shared, void* at, const Moment& m);

}  // namespace emulator
