// What the emulator knows of the launch that runs: emulator.cpp changes threads, block.cpp lets them meet.
#pragma once
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "watch.h"

namespace emulator {

constexpr size_t stack_bytes = 128 << 10, red_zone = 64;
constexpr unsigned char red = 0xA5;  // what stands in red zones

struct Fiber {
  std::unique_ptr<char[]> stack{new char[stack_bytes]};
  void* sp = nullptr;
};

struct Copy {
  void* dst;
  const void* src;
  size_t bytes;
  int group;
};

struct Block;

struct Thread {
  uint3 index;
  Block* block;
  unsigned number;
  Fiber* fiber = nullptr;
  const char* file = nullptr;  // where it waits
  int line = 0;
  bool waiting = false;
  int groups = 0;
  std::vector<Copy> copies;
};

struct Warp {
  unsigned arrived = 0, clock = 0;  // clock: operations passed
  void* lanes[32] = {};
  Thread* threads[32] = {};
};

struct Block {
  uint3 index;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  unsigned arrived = 0, done = 0, epoch = 0, fences = 0;  // epoch: barriers passed
  bool any = false, result = false;
  std::unique_ptr<char[]> shared{new char[shared_capacity]};
  size_t used = 0;
  std::map<const void*, std::pair<size_t, size_t>> variables;  // key -> offset, bytes
};

/// The launch that runs now.
struct Machine {
  const Launch* launch = nullptr;
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Fiber*> idle;
  std::vector<Thread*> ready;
  size_t unfinished = 0, idle_turns = 0;
  void* scheduler = nullptr;
  Thread* current = nullptr;
  std::mt19937_64 random;
  std::vector<Extent> extents;  // of the launch
  std::string fault;
};
extern Machine m;

std::string name_of(uint3 index);
void give_up(const std::string& what);  // ends the launch with this report
void to_scheduler();
void wait_here(const char* file, int line);
void check_shared(Block& b);  // that nothing was written behind its variables
inline void wake(Thread* t) { m.ready.push_back(t); }

/// For AddressSanitizer: no device memory but these may be touched; none: all may.
void poison_but(const std::vector<Extent>& extents);

/// A fault that DAGRT_EMULATOR_FAULT plants, to see that it is found (README.md).
enum class Fault { none, barrier, half_barrier, copy_wait, grid_wait, fragment, overlap, beyond, lost };
extern Fault planted;
size_t operand_cut_short();  // which the launch goes beyond
bool loses_device();         // whether the launch is the one that ends the context
void plant();                                                // at a launch's start
bool left_out(const Thread& t, const char* file, int line);  // whether the thread goes past this barrier

}  // namespace emulator
