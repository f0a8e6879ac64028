// Runs a kernel's threads as fibers.
//
// Ready threads are taken in random order. A thread that meets a barrier or a warp operation waits in its block or warp; the
// last to arrive wakes the others. Where nobody is ready and some wait, the launch is given up with a report of who waits where.
// Fibers of a launch that was given up are dropped as they stand.
//
// DAGRT_EMULATOR_FAULT plants a fault, to see that it is found: "gemm.cuh:125" leaves out the barrier that stands there, "wait"
// the waits for copies but the last. DAGRT_EMULATOR_BLOCKS=32 runs about so many blocks of each launch, for counting.
#include "watch.h"

#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <sstream>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

uint3 threadIdx, blockIdx, blockDim, gridDim;

#if !defined(__x86_64__)
#error "the emulator's switch of fibers is written for x86-64"
#endif
extern "C" void dagrt_switch_fiber(void** save, void* to);
asm(R"(
.text
.globl dagrt_switch_fiber
.hidden dagrt_switch_fiber
.type dagrt_switch_fiber, @function
dagrt_switch_fiber:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size dagrt_switch_fiber, .-dagrt_switch_fiber
)");

namespace emulator {

thread_local const char* kernel_name = "a kernel";
Here here;
void (*forget_accesses)() = nullptr;
void (*note_access)(const void* where, size_t bytes, bool write, void* at) = nullptr;
Counter counter;

namespace {

constexpr size_t stack_bytes = 128 << 10, red_zone = 64;
constexpr unsigned char red = 0xA5;

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
  unsigned arrived = 0, done = 0, epoch = 0;  // epoch: barriers passed
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
  std::string fault;
  bool running = false;  // a kernel's own code, not the emulator's
  uint64_t limit = 0;    // of blocks; 0: all run
  std::string planted;
};
Machine m;
std::mutex launches;  // one at a time: what a kernel sees is global
thread_local std::string last_fault;

std::string name_of(uint3 i) { return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")"; }

void give_up(const std::string& what) {
  if (m.fault.empty()) m.fault = std::string(m.launch->name) + ": " + what;
}

// AddressSanitizer is told of every change of stacks.
struct Stack {
  const void* bottom = nullptr;
  size_t bytes = 0;
};
Stack scheduler_stack;
#if defined(__SANITIZE_ADDRESS__)
void leave_for(void** fake, const void* bottom, size_t bytes) { __sanitizer_start_switch_fiber(fake, bottom, bytes); }
void arrive_from(void* fake, Stack* left) {
  __sanitizer_finish_switch_fiber(fake, left ? &left->bottom : nullptr, left ? &left->bytes : nullptr);
}
#else
void leave_for(void**, const void*, size_t) {}
void arrive_from(void*, Stack*) {}
#endif

void to_scheduler() {
  Thread* t = m.current;
  here.running = false;
  void* fake = nullptr;
  leave_for(&fake, scheduler_stack.bottom, scheduler_stack.bytes);
  dagrt_switch_fiber(&t->fiber->sp, m.scheduler);
  arrive_from(fake, &scheduler_stack);
}

void wait_here(const char* file, int line) {
  Thread* t = m.current;
  t->file = file, t->line = line, t->waiting = true;
  to_scheduler();
  t->waiting = false;
  here.running = true;
}

void wake(Thread* t) { m.ready.push_back(t); }

void release_barrier(Block& b) {
  const Thread* first = nullptr;
  for (Thread& t : b.threads)
    if (t.waiting && t.file) {
      if (first && (first->line != t.line || std::strcmp(first->file, t.file)))
        give_up("block " + name_of(b.index) + " meets at two barriers: " + first->file + ":" + std::to_string(first->line) +
                " and " + t.file + ":" + std::to_string(t.line));
      first = &t;
    }
  b.result = b.any;
  b.any = false;
  b.arrived = 0;
  b.epoch++;
  for (Thread& t : b.threads)
    if (t.waiting) wake(&t);
}

void thread_main() {
  arrive_from(nullptr, &scheduler_stack);
  for (;;) {
    Thread* t = m.current;
    here.running = true;
    m.launch->body();
    here.running = false;
    Block& b = *t->block;
    b.done++;
    m.unfinished--;
    if (!t->copies.empty())
      give_up("thread " + name_of(t->index) + " of block " + name_of(b.index) + " ends with copies it never waited for");
    if (b.arrived && b.arrived + b.done == b.threads.size())
      give_up("block " + name_of(b.index) + ": a barrier that " + std::to_string(b.done) + " threads have passed by leaving");
    m.idle.push_back(t->fiber);
    to_scheduler();
  }
}

void start(Thread* t) {
  if (m.idle.empty()) {
    m.fibers.push_back(std::make_unique<Fiber>());
    m.idle.push_back(m.fibers.back().get());
  }
  t->fiber = m.idle.back();
  m.idle.pop_back();
  if (t->fiber->sp) return;  // it stands at the end of thread_main's loop
  // Stacks that begin at one offset of a page would crowd the same sets of the cache.
  size_t stagger = (m.fibers.size() * 192) % 4096;
  auto top = reinterpret_cast<uintptr_t>(t->fiber->stack.get() + stack_bytes - stagger) / 16 * 16;
  auto* sp = reinterpret_cast<void**>(top) - 1;
  *--sp = reinterpret_cast<void*>(thread_main);
  for (int i = 0; i < 6; i++) *--sp = nullptr;
  t->fiber->sp = sp;
}

uint64_t number_of(const Block& b) {
  const uint3 i = b.index, n = m.launch->grid;
  return i.x + n.x * (i.y + uint64_t(n.y) * i.z);
}

void resume(Thread* t) {
  m.current = t;
  threadIdx = t->index;
  blockIdx = t->block->index;
  here.block = unsigned(number_of(*t->block)), here.thread = t->number, here.epoch = &t->block->epoch;
  here.clock = &t->block->warps[t->number / 32].clock, here.shared = reinterpret_cast<uintptr_t>(t->block->shared.get());
  if (!t->fiber) start(t);
  void* fake = nullptr;
  leave_for(&fake, t->fiber->stack.get(), stack_bytes);
  dagrt_switch_fiber(&m.scheduler, t->fiber->sp);
  arrive_from(fake, nullptr);
}

void check_shared(Block& b) {
  for (auto& [key, place] : b.variables)
    for (size_t i = 0; i < red_zone; i++)
      if (static_cast<unsigned char>(b.shared[place.first + place.second + i]) != red) {
        give_up("block " + name_of(b.index) + " wrote behind a shared variable of " + std::to_string(place.second) + " bytes");
        return;
      }
  if (m.launch->shared_bytes)
    for (size_t i = 0; i < red_zone; i++)
      if (static_cast<unsigned char>(b.shared[m.launch->shared_bytes + i]) != red) {
        give_up("block " + name_of(b.index) + " wrote behind its dynamic shared memory");
        return;
      }
}

std::string who_waits(const std::vector<std::unique_ptr<Block>>& blocks) {
  std::map<std::string, int> places;
  for (auto& b : blocks)
    for (Thread& t : b->threads)
      if (t.waiting) places[std::string(t.file) + ":" + std::to_string(t.line)]++;
  std::ostringstream text;
  text << "deadlock in block " << name_of(blocks[0]->index) << ":";
  for (auto& [place, count] : places) text << " " << count << " threads wait at " << place << ";";
  return text.str();
}

void run_together(std::vector<std::unique_ptr<Block>> blocks, double weight) {
  for (auto& b : blocks)
    for (Thread& t : b->threads) m.ready.push_back(&t);
  m.unfinished = m.ready.size();
  while (m.unfinished && m.fault.empty()) {
    if (m.ready.empty()) {
      give_up(who_waits(blocks));
      break;
    }
    size_t at = m.random() % m.ready.size();
    Thread* t = m.ready[at];
    m.ready[at] = m.ready.back();
    m.ready.pop_back();
    resume(t);
  }
  if (m.fault.empty())
    for (auto& b : blocks) {
      check_shared(*b);
      if (counter.end_block) counter.end_block({number_of(*b), weight}, b->epoch);
    }
  if (!m.fault.empty()) {  // threads stand anywhere: their fibers go with them
    m.ready.clear();
    m.idle.clear();
    m.fibers.clear();
  }
}

std::unique_ptr<Block> make_block(const Launch& l, uint64_t number) {
  auto b = std::make_unique<Block>();
  b->index = {unsigned(number % l.grid.x), unsigned(number / l.grid.x % l.grid.y), unsigned(number / l.grid.x / l.grid.y)};
  unsigned count = l.block.x * l.block.y * l.block.z;
  b->threads.resize(count);
  b->warps.resize((count + 31) / 32);
  for (unsigned i = 0; i < count; i++) {
    Thread& t = b->threads[i];
    t.index = {i % l.block.x, i / l.block.x % l.block.y, i / l.block.x / l.block.y};
    t.block = b.get();
    t.number = i;
    b->warps[i / 32].threads[i % 32] = &t;
  }
  if (l.shared_bytes) {
    std::memset(b->shared.get(), 0xFF, l.shared_bytes);
    std::memset(b->shared.get() + l.shared_bytes, red, red_zone);
    b->used = (l.shared_bytes + red_zone + 127) / 128 * 128;
  }
  return b;
}

}  // namespace

void report(const std::string& fault) { last_fault = fault; }

/// Whether the planted fault is this barrier's absence.
bool left_out(const char* file, int line) {
  if (m.planted.empty()) return false;
  const std::string place = std::string(file) + ":" + std::to_string(line);
  return place.size() > m.planted.size() && place[place.size() - m.planted.size() - 1] == '/' &&
         place.compare(place.size() - m.planted.size(), m.planted.size(), m.planted) == 0;
}

bool barrier(bool value, const char* file, int line) {
  if (left_out(file, line)) return value;
  Thread* t = m.current;
  Block& b = *t->block;
  b.any |= value;
  t->file = file, t->line = line;
  if (++b.arrived + b.done == b.threads.size()) {
    if (b.done)
      give_up("block " + name_of(b.index) + ": a barrier at " + file + ":" + std::to_string(line) + " that " +
              std::to_string(b.done) + " threads have passed by leaving");
    t->waiting = true;  // it is looked at, and woken with the others
    release_barrier(b);
    to_scheduler();
    t->waiting = false;
    here.running = true;
  } else {
    wait_here(file, line);
  }
  return b.result;
}

void together(void* data, void (*join)(void** lanes), const char* file, int line) {
  Thread* t = m.current;
  Warp& w = t->block->warps[t->number / 32];
  unsigned lanes = 0;
  for (Thread* p : w.threads) lanes += p != nullptr;
  w.lanes[t->number % 32] = data;
  if (++w.arrived < lanes) {
    wait_here(file, line);
    return;
  }
  for (Thread* p : w.threads)
    if (p && p != t && (p->line != line || std::strcmp(p->file, file)))
      give_up("a warp of block " + name_of(t->block->index) + " meets at two operations: " + file + ":" + std::to_string(line) +
              " and " + p->file + ":" + std::to_string(p->line));
  join(w.lanes);
  w.arrived = 0;
  w.clock++;
  for (int i = 0; i < 32; i++) {
    w.lanes[i] = nullptr;
    if (w.threads[i] && w.threads[i] != t) wake(w.threads[i]);
  }
}

void yield() {
  if (++m.idle_turns > 50'000'000) give_up("threads wait for something that never comes");
  wake(m.current);
  to_scheduler();
  here.running = true;
}

void stop_thread(const char* what, const char* file, int line) {
  Thread* t = m.current;
  give_up("thread " + name_of(t->index) + " of block " + name_of(t->block->index) + ": " + what + ", at " + file + ":" +
          std::to_string(line));
  to_scheduler();
  std::abort();  // a launch that was given up does not go on
}

void* shared_bytes(const void* key, size_t bytes) {
  Block& b = *m.current->block;
  auto [it, fresh] = b.variables.try_emplace(key, b.used, bytes);
  if (fresh) {
    if (b.used + bytes + red_zone > shared_capacity) stop_thread("more shared memory than there is", "", 0);
    std::memset(b.shared.get() + b.used, 0xFF, bytes);
    std::memset(b.shared.get() + b.used + bytes, red, red_zone);
    b.used += (bytes + red_zone + 127) / 128 * 128;
  }
  return b.shared.get() + it->second.first;
}

void* dynamic_bytes() { return m.current->block->shared.get(); }

__attribute__((noinline)) void copy_later(void* dst, const void* src, size_t bytes) {
  Thread* t = m.current;
  void* at = __builtin_return_address(0);
  if (note_access) note_access(dst, bytes, true, at);
  if (note_access && src) note_access(src, bytes, false, static_cast<char*>(at) + 1);  // another place of the code, for counting
  std::memset(dst, 0xFF, bytes);
  t->copies.push_back({dst, src, bytes, t->groups});
}
void commit_copies() { m.current->groups++; }
void wait_copies(int left) {
  if (left > 0 && m.planted == "wait") return;
  Thread* t = m.current;
  size_t kept = 0;
  for (Copy& c : t->copies) {
    if (c.group >= t->groups - left) {
      t->copies[kept++] = c;
      continue;
    }
    if (note_access) note_access(c.dst, c.bytes, true, nullptr);  // who reads without a barrier behind this wait races with it
    if (c.src) {
      std::memcpy(c.dst, c.src, c.bytes);
    } else {
      std::memset(c.dst, 0, c.bytes);
    }
  }
  t->copies.resize(kept);
}

void race(const char* what) { give_up(what); }

void run(const Launch& l) {
  std::lock_guard<std::mutex> lock(launches);
  const char* seed = std::getenv("DAGRT_EMULATOR_SEED");
  m.random.seed(seed ? std::strtoull(seed, nullptr, 10) : 1);
  m.launch = &l;
  m.fault.clear();
  m.idle_turns = 0;
  here.cooperative = l.cooperative;
  here.sampled = sample_size() != 0;
  const char* planted = std::getenv("DAGRT_EMULATOR_FAULT");
  m.planted = planted ? planted : "";
  if (forget_accesses) forget_accesses();
  if (counter.begin) counter.begin();
  blockDim = l.block, gridDim = l.grid;
  const uint64_t count = uint64_t(l.grid.x) * l.grid.y * l.grid.z;
  std::vector<std::unique_ptr<Block>> blocks;
  uint64_t blocks_run = count;
  if (l.cooperative) {
    for (uint64_t i = 0; i < count; i++) blocks.push_back(make_block(l, i));
    run_together(std::move(blocks), 1);
  } else {
    const uint64_t first = m.random() % (count ? count : 1);  // any block may be the first
    const auto chosen = blocks_to_run(l.grid, sample_size(), first);
    blocks_run = chosen.size();
    for (const Sample& s : chosen) {
      if (!m.fault.empty()) break;
      blocks.clear();
      blocks.push_back(make_block(l, s.block));
      run_together(std::move(blocks), s.weight);
    }
  }
  if (!m.fault.empty())
    report(m.fault);
  else if (counter.end)
    counter.end(l, blocks_run);
}

std::string take_fault() { return std::exchange(last_fault, std::string()); }

}  // namespace emulator
