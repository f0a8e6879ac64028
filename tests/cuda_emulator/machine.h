// What the emulator knows of the launch that runs: emulator.cpp changes threads, block.cpp lets them meet.
#pragma once
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
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
  const char* file;
  int line;
};

struct Block;

struct Thread {
  uint3 index;
  Block* block;
  unsigned number;
  Fiber* fiber = nullptr;
  const char* file = nullptr;  // where it waits
  int line = 0;
  bool waiting = false, asking = false;  // asking: it runs again and again until something has changed
  int groups = 0;
  uint64_t way = 0;  // a hash of the code's pieces that it came through, where these are told
  std::vector<Copy> copies;
};

struct Arrival {  // of a lane at a warp operation
  void* data;
  void (*join)(void** lanes);
  unsigned mask;
  bool whole;  // the warp
};
struct Warp {
  unsigned present = 0, left = 0, waiting = 0;  // lanes, as bits
  unsigned clock = 0;                           // operations passed
  std::vector<unsigned> operations;             // where accesses are watched: the lanes of each
  Arrival arrivals[32] = {};
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
  std::vector<std::pair<size_t, size_t>> held;                 // the same of all, dynamic memory first, for lookups
  size_t last_held = 0;
};

/// How far an OS thread's fibers have come, for the others: turns that brought one on, turns of those that ask.
struct alignas(64) Progress {
  std::atomic<uint64_t> steps{0}, asked{0};
  std::atomic<bool> ended{false};
};

/// What an OS thread needs to run blocks.
struct Worker {
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Fiber*> idle;
  std::vector<Thread*> ready;
  size_t unfinished = 0;
  void* scheduler = nullptr;
  const void* stack = nullptr;  // the scheduler's
  size_t stack_bytes = 0;
  Thread* current = nullptr;
  uint64_t random = 0;
  uint64_t position = 0;  // of the block that runs, in the order in which the launch's blocks begin
  Progress* progress = nullptr;
  std::vector<std::unique_ptr<Block>> blocks;  // used again by the next launch
};
extern DAGRT_OF_OS_THREAD Worker* worker;

/// The launch that runs now.
struct Machine {
  const Launch* launch = nullptr;
  std::vector<Extent> extents;  // of the launch
  std::atomic<uint64_t> next{0};  // position of the block that begins next
  std::vector<Progress> progress;  // of each OS thread
  std::mutex mutex;
  std::string fault;                           // of the first position that has one
  std::atomic<uint64_t> failed_at{UINT64_MAX};  // that position
};
extern Machine m;
inline bool stopped() { return m.failed_at.load(std::memory_order_relaxed) <= worker->position; }

std::string name_of(uint3 index);
std::string name_of(const Thread& t);  // "thread (x, y, z)"
std::string place_of(const Thread& t);  // where it waits
std::string passed_by(const Block& b);  // of threads that left and a barrier that waits for them
void give_up(const std::string& what);  // ends the launch with this report, unless a block that began earlier has one
void to_scheduler();
void wait_here(const char* file, int line);
void leave_warp(Thread& t);   // who waits for it need not any more
void check_shared(Block& b);  // that nothing was written behind its variables
inline void wake(Thread* t) { worker->ready.push_back(t); }

/// The OS threads that a launch of so many blocks runs on, of which this one is the first.
int workers_for(uint64_t blocks);
/// Calls part(0) to part(parts - 1), side by side where the machine can, and waits for all; this OS thread takes part.
void run_parts(int parts, const std::function<void(int)>& part);

/// For AddressSanitizer: no device memory but these may be touched; none: all may.
void poison_but(const std::vector<Extent>& extents);

/// A fault that DAGRT_EMULATOR_FAULT plants, to see that it is found (README.md).
enum class Fault { none, barrier, half_barrier, copy_wait, grid_wait, fragment, overlap, beyond, unwritten, lost };
extern Fault planted;
size_t operand_cut_short();            // which the launch goes beyond
size_t operand_taken_for_unwritten();  // when its step begins
bool loses_device();                   // whether the launch is the one that ends the context
void plant();                                                // at a launch's start
bool left_out(const Thread& t, const char* file, int line);  // whether the thread goes past this barrier

}  // namespace emulator
