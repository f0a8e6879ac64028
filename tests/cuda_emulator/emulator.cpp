// Runs a kernel's threads as fibers.
//
// Ready threads are taken in random order. A thread that meets a barrier or a warp operation waits in its block or warp; the
// last to arrive wakes the others. Where nobody is ready and some wait, the launch is given up with a report of who waits where.
// Fibers of a launch that was given up are dropped as they stand.
#include "machine.h"

#include <cstdlib>
#include <map>
#include <mutex>
#include <sstream>

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
thread_local std::vector<Extent> extents;
Here here;
void (*forget_accesses)() = nullptr;
void (*note_atomic)(const void* where) = nullptr;
void (*note_fence)() = nullptr;
void (*note_access)(const void* where, size_t bytes, bool write, void* at) = nullptr;
Counter counter;
Machine m;

namespace {

std::mutex launches;  // one at a time: what a kernel sees is global
thread_local std::string last_fault;

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

}  // namespace

std::string name_of(uint3 i) { return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")"; }

void give_up(const std::string& what) {
  if (m.fault.empty()) m.fault = std::string(m.launch->name) + ": " + what;
}

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

namespace {

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
  here.block = unsigned(number_of(*t->block)), here.thread = t->number, here.epoch = &t->block->epoch,
  here.fences = &t->block->fences;
  here.clock = &t->block->warps[t->number / 32].clock, here.shared = reinterpret_cast<uintptr_t>(t->block->shared.get());
  if (!t->fiber) start(t);
  void* fake = nullptr;
  leave_for(&fake, t->fiber->stack.get(), stack_bytes);
  dagrt_switch_fiber(&m.scheduler, t->fiber->sp);
  arrive_from(fake, nullptr);
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
  plant();
  m.extents = l.extents;
  if (size_t k = operand_cut_short(); k < m.extents.size() && m.extents[k].bytes) m.extents[k].bytes--;
  poison_but(m.extents);
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
  poison_but({});
  if (loses_device()) m.fault = illegal_access;
  if (!m.fault.empty())
    report(m.fault);
  else if (counter.end)
    counter.end(l, blocks_run);
}

bool may_touch(uintptr_t at, size_t bytes) {
  if (m.extents.empty()) return true;
  static size_t last = 0;  // most accesses are to where one was before
  auto holds = [&](const Extent& e) {
    const auto begin = reinterpret_cast<uintptr_t>(e.begin);
    return at >= begin && at + bytes <= begin + e.bytes;
  };
  if (last < m.extents.size() && holds(m.extents[last])) return true;
  for (last = 0; last < m.extents.size(); last++)
    if (holds(m.extents[last])) return true;
  return false;
}

std::string take_fault() { return std::exchange(last_fault, std::string()); }

}  // namespace emulator
