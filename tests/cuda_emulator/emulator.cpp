// Runs a kernel's threads as fibers.
//
// Blocks are run by several OS threads (workers.cpp): each takes the next that has not begun, in an order of which any block may
// be the first; those of a cooperative launch are dealt out, and each OS thread runs all of its own at once. Ready threads are
// taken in random order, which follows from the seed and the block's number. A thread that meets a barrier or a warp operation
// waits in its block or warp; the last to arrive wakes the others. Where nobody is ready and some wait, or where all that is left
// asks for something that nobody changes, the launch is given up with a report of who waits where. Fibers of a launch that was
// given up are dropped as they stand.
//
// Of several blocks' faults the one of the block that began first is reported, which all earlier ones are run to the end for: the
// same report, however many OS threads there are.
#include "machine.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <sstream>
#include <thread>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

DAGRT_OF_OS_THREAD uint3 threadIdx, blockIdx;
uint3 blockDim, gridDim;

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
thread_local std::vector<Rows> unmade;
DAGRT_OF_OS_THREAD Here here;
void (*forget_accesses)() = nullptr;
void (*note_atomic)(const void* where, size_t bytes, void* at) = nullptr;
void (*note_fence)() = nullptr;
void (*note_access)(const void* where, size_t bytes, bool write, void* at) = nullptr;
Counter counter;
Machine m;
DAGRT_OF_OS_THREAD Worker* worker = nullptr;

namespace {

std::mutex launches;  // one at a time: what a kernel sees is global
thread_local std::string last_fault;

// AddressSanitizer is told of every change of stacks.
#if defined(__SANITIZE_ADDRESS__)
void leave_for(void** fake, const void* bottom, size_t bytes) { __sanitizer_start_switch_fiber(fake, bottom, bytes); }
void arrive(void* fake) { __sanitizer_finish_switch_fiber(fake, nullptr, nullptr); }
void arrive_in_fiber(void* fake) { __sanitizer_finish_switch_fiber(fake, &worker->stack, &worker->stack_bytes); }
#else
void leave_for(void**, const void*, size_t) {}
void arrive(void*) {}
void arrive_in_fiber(void*) {}
#endif

}  // namespace

std::string name_of(uint3 i) { return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")"; }

std::string name_of(const Thread& t) { return "thread " + name_of(t.index); }
std::string place_of(const Thread& t) { return std::string(t.file) + ":" + std::to_string(t.line); }

void give_up(const std::string& what) {
  std::lock_guard<std::mutex> lock(m.mutex);
  if (m.failed_at <= worker->position) return;
  m.fault = std::string(m.launch->name) + ": " + what;
  m.failed_at = worker->position;
}

void to_scheduler() {
  Thread* t = worker->current;
  here.running = false;
  void* fake = nullptr;
  leave_for(&fake, worker->stack, worker->stack_bytes);
  dagrt_switch_fiber(&t->fiber->sp, worker->scheduler);
  arrive_in_fiber(fake);
}

void wait_here(const char* file, int line) {
  Thread* t = worker->current;
  t->file = file, t->line = line, t->waiting = true;
  to_scheduler();
  t->waiting = false;
  here.running = true;
}

namespace {

void thread_main() {
  arrive_in_fiber(nullptr);
  for (;;) {
    Thread* t = worker->current;
    here.running = true;
    m.launch->body();
    here.running = false;
    Block& b = *t->block;
    b.done++;
    leave_warp(*t);
    worker->unfinished--;
    if (!t->copies.empty())
      give_up(name_of(*t) + " of block " + name_of(b.index) + " ends with copies it never waited for, at " +
              t->copies[0].file + ":" + std::to_string(t->copies[0].line));
    if (b.arrived && b.arrived + b.done == b.threads.size()) give_up(passed_by(b));
    worker->idle.push_back(t->fiber);
    to_scheduler();
  }
}

void start(Thread* t) {
  Worker& w = *worker;
  if (w.idle.empty()) {
    w.fibers.push_back(std::make_unique<Fiber>());
    w.idle.push_back(w.fibers.back().get());
  }
  t->fiber = w.idle.back();
  w.idle.pop_back();
  if (t->fiber->sp) return;  // it stands at the end of thread_main's loop
  // Stacks that begin at one offset of a page would crowd the same sets of the cache.
  size_t stagger = (w.fibers.size() * 192) % 4096;
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
  worker->current = t;
  threadIdx = t->index;
  blockIdx = t->block->index;
  here.block = unsigned(number_of(*t->block)), here.thread = t->number, here.epoch = &t->block->epoch,
  here.fences = &t->block->fences, here.way = &t->way;
  here.clock = &t->block->warps[t->number / 32].clock, here.shared = reinterpret_cast<uintptr_t>(t->block->shared.get());
  if (!t->fiber) start(t);
  void* fake = nullptr;
  leave_for(&fake, t->fiber->stack.get(), stack_bytes);
  dagrt_switch_fiber(&worker->scheduler, t->fiber->sp);
  arrive(fake);
}

std::string who_waits(size_t blocks, bool Thread::*how) {
  struct Place {
    int threads = 0;
    const Thread* first = nullptr;
  };
  std::map<std::string, Place> places;
  const Block* first = nullptr;
  for (size_t i = 0; i < blocks; i++)
    for (Thread& t : worker->blocks[i]->threads)
      if (t.*how) {
        if (!first) first = t.block;
        Place& p = places[place_of(t)];
        if (!p.threads++) p.first = &t;
      }
  std::ostringstream text;
  text << "deadlock in block " << name_of(first->index) << ":";
  for (auto& [place, p] : places)
    text << " " << p.threads << " threads wait at " << place << ", " << name_of(*p.first) << " of block " << name_of(p.first->block->index)
         << " among them;";
  return text.str();
}

/// Scatters the bits of a number (splitmix64).
uint64_t hashed(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}
size_t below(size_t n) {  // 2^32 at most
  return size_t((hashed(worker->random += 0x9E3779B97F4A7C15u) >> 32) * n >> 32);
}

constexpr uint64_t long_asked = 1'000'000;  // turns

/// What others had come to when this OS thread began to look: nobody has taken a step since, and all that are left have asked
/// long enough to have seen what was done before.
class Standstill {
 public:
  bool found() {
    bool still = true, long_enough = true;
    now.clear();
    for (const Progress& p : m.progress) {
      const uint64_t asked = p.asked;  // read before what would make it meaningless
      now.push_back({p.steps, asked, p.ended});
      const size_t i = now.size() - 1;
      if (i >= then.size() || now[i].steps != then[i].steps || now[i].ended != then[i].ended)
        still = false;
      else if (!now[i].ended && now[i].asked < then[i].asked + long_asked)
        long_enough = false;
    }
    if (!still) then = now;
    return still && long_enough;
  }

 private:
  struct Seen {
    uint64_t steps, asked;
    bool ended;
  };
  std::vector<Seen> then, now;
};

/// Runs the worker's first blocks, all at once.
void run_together(size_t blocks, double weight) {
  Worker& w = *worker;
  for (size_t i = 0; i < blocks; i++)
    for (Thread& t : w.blocks[i]->threads) w.ready.push_back(&t);
  w.unfinished = w.ready.size();
  Standstill standstill;
  uint64_t asked = 0;  // turns, since one of its fibers came on
  auto count = [](std::atomic<uint64_t>& n) { n.store(n.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed); };
  while (w.unfinished && !stopped()) {
    if (w.ready.empty()) {
      give_up(who_waits(blocks, &Thread::waiting));
      break;
    }
    size_t at = below(w.ready.size());
    Thread* t = w.ready[at];
    w.ready[at] = w.ready.back();
    w.ready.pop_back();
    t->asking = false;
    resume(t);
    if (!t->asking) {
      count(w.progress->steps);
      asked = 0;
      continue;
    }
    count(w.progress->asked);
    if (++asked % w.ready.size() == 0 && m.progress.size() > 1) std::this_thread::yield();  // others have the next move
    if (asked % (long_asked / 4) == 0 && standstill.found()) give_up(who_waits(blocks, &Thread::asking));
  }
  if (!stopped())
    for (size_t i = 0; i < blocks; i++) {
      Block& b = *w.blocks[i];
      check_shared(b);
      if (counter.end_block) counter.end_block({number_of(b), weight}, b.epoch);
    }
  if (stopped()) {  // threads stand anywhere: their fibers go with them
    w.ready.clear();
    w.idle.clear();
    w.fibers.clear();
  }
}

void make_block(const Launch& l, uint64_t number, size_t place) {
  if (worker->blocks.size() <= place) worker->blocks.push_back(std::make_unique<Block>());
  Block& b = *worker->blocks[place];
  b.index = {unsigned(number % l.grid.x), unsigned(number / l.grid.x % l.grid.y), unsigned(number / l.grid.x / l.grid.y)};
  b.arrived = b.done = b.epoch = b.fences = 0;
  b.any = b.result = false;
  b.used = 0;
  b.variables.clear();
  b.held.assign(1, {0, l.shared_bytes});
  b.last_held = 0;
  const unsigned count = l.block.x * l.block.y * l.block.z;
  b.threads.assign(count, {});
  b.warps.assign((count + 31) / 32, {});
  for (unsigned i = 0; i < count; i++) {
    Thread& t = b.threads[i];
    t.index = {i % l.block.x, i / l.block.x % l.block.y, i / l.block.x / l.block.y};
    t.block = &b;
    t.number = i;
    b.warps[i / 32].threads[i % 32] = &t;
    b.warps[i / 32].present |= 1u << i % 32;
  }
  if (l.shared_bytes) {
    std::memset(b.shared.get(), 0xFF, l.shared_bytes);
    std::memset(b.shared.get() + l.shared_bytes, red, red_zone);
    b.used = (l.shared_bytes + red_zone + 127) / 128 * 128;
  }
}

/// What one OS thread does of a launch.
void run_part(const Launch& l, const std::vector<Sample>& blocks, uint64_t seed, int part, int parts) {
  static thread_local std::unique_ptr<Worker> own;
  if (!own) own = std::make_unique<Worker>();
  worker = own.get();
  worker->progress = &m.progress[size_t(part)];
  here.cooperative = l.cooperative;
  here.sampled = sample_size() != 0;
  here.partial = false;
  if (l.cooperative) {
    worker->position = 0;
    worker->random = hashed(seed + uint64_t(part));
    size_t count = 0;
    for (uint64_t i = uint64_t(part); i < blocks.size(); i += uint64_t(parts)) make_block(l, blocks[i].block, count++);
    run_together(count, 1);
    worker->blocks.resize(std::min<size_t>(worker->blocks.size(), 16));
  } else {
    while (m.failed_at == UINT64_MAX && (worker->position = m.next++) < blocks.size()) {
      const Sample& s = blocks[worker->position];
      worker->random = hashed(seed + s.block);
      make_block(l, s.block, 0);
      run_together(1, s.weight);
    }
  }
  worker->progress->ended = true;
}

}  // namespace

void report(const std::string& fault) { last_fault = fault; }

void yield(const char* file, int line) {
  Thread* t = worker->current;
  t->file = file, t->line = line, t->asking = true;
  wake(t);
  to_scheduler();
  here.running = true;
}

void stop_thread(const std::string& what, const char* file, int line) {
  Thread* t = worker->current;
  give_up(name_of(*t) + " of block " + name_of(t->block->index) + ": " + what + ", at " + file + ":" +
          std::to_string(line));
  to_scheduler();
  std::abort();  // a launch that was given up does not go on
}

void race(const char* what) { give_up(what); }

const std::vector<unsigned>& operations_of(unsigned block, unsigned warp) {
  return worker->blocks[here.cooperative ? block : 0]->warps[warp].operations;
}

void run(const Launch& l) {
  std::lock_guard<std::mutex> lock(launches);
  const char* text = std::getenv("DAGRT_EMULATOR_SEED");
  const uint64_t seed = hashed(text ? std::strtoull(text, nullptr, 10) : 1);
  const uint64_t count = uint64_t(l.grid.x) * l.grid.y * l.grid.z;
  const auto blocks = blocks_to_run(l.grid, l.cooperative ? 0 : sample_size(), l.cooperative ? 0 : seed % count);
  const int parts = workers_for(blocks.size());
  m.launch = &l;
  m.fault.clear();
  m.failed_at = UINT64_MAX;
  m.next = 0;
  m.progress = std::vector<Progress>(size_t(parts));
  plant();
  m.extents = l.extents;
  if (size_t k = operand_cut_short(); k < m.extents.size() && m.extents[k].bytes) m.extents[k].bytes--;
  if (!sample_size())
    for (const Rows& r : l.unmade)
      for (size_t i = 0; i < r.count && r.bytes; i++) {
        std::memset(r.begin + i * r.step, 0xFF, r.bytes);
        set_written(r.begin + i * r.step, r.bytes, false);
      }
  if (size_t k = operand_taken_for_unwritten(); !l.unmade.empty() && k < m.extents.size())
    set_written(m.extents[k].begin, m.extents[k].bytes, false);
  poison_but(m.extents);
  if (forget_accesses) forget_accesses();
  if (counter.begin) counter.begin();
  blockDim = l.block, gridDim = l.grid;
  run_parts(parts, [&](int part) { run_part(l, blocks, seed, part, parts); });
  poison_but({});
  if (loses_device()) m.fault = illegal_access;
  if (!m.fault.empty())
    report(m.fault);
  else if (counter.end)
    counter.end(l, blocks.size());
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
