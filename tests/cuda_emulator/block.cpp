// Where a block's threads meet and what they share: barriers, warp operations, shared memory, asynchronous copies.
#include "machine.h"

#include <cstdio>

namespace emulator {
namespace {

void release(Block& b) {
  const Thread* first = nullptr;
  for (Thread& t : b.threads)
    if (t.waiting && t.file) {
      if (first && (first->line != t.line || std::strcmp(first->file, t.file)))
        give_up("block " + name_of(b.index) + " meets at two barriers: " + name_of(*first) + " at " + place_of(*first) + " and " +
                name_of(t) + " at " + place_of(t));
      first = &t;
    }
  b.result = b.any;
  b.any = false;
  b.arrived = 0;
  b.epoch++;
  for (Thread& t : b.threads) {
    t.way = 0;
    if (t.waiting) wake(&t);
  }
}

}  // namespace

std::string passed_by(const Block& b) {
  const Thread *gone = nullptr, *waits = worker->current;
  for (const Thread& t : b.threads) {
    if (!gone && b.warps[t.number / 32].left >> t.number % 32 & 1) gone = &t;
    if (t.waiting) waits = &t;
  }
  return "block " + name_of(b.index) + ": a barrier at " + place_of(*waits) + " that " + std::to_string(b.done) +
         " threads have passed by leaving, " + name_of(*gone) + " among them";
}

bool barrier(bool value, const char* file, int line) {
  Thread* t = worker->current;
  if (left_out(*t, file, line)) return value;
  Block& b = *t->block;
  b.any |= value;
  t->file = file, t->line = line;
  if (++b.arrived + b.done == b.threads.size()) {
    if (b.done) give_up(passed_by(b));
    t->waiting = true;  // it is looked at, and woken with the others
    release(b);
    to_scheduler();
    t->waiting = false;
    here.running = true;
  } else {
    wait_here(file, line);
  }
  return b.result;
}

namespace {

std::string hex(unsigned mask) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}

/// Whether all lanes have gone the same way since they met last; else whether they meet again here is the compiler's choice.
bool go_together(const Block& b, const Warp& w) {
  for (int i = 1; i < 32; i++)
    if (w.threads[i]->way != w.threads[0]->way) {
      give_up(name_of(*w.threads[0]) + " and " + name_of(*w.threads[i]) + " of block " + name_of(b.index) +
              ", of one warp, have gone different ways to an operation of whole warps, without __syncwarp() behind them, at " +
              place_of(*w.threads[0]));
      return false;
    }
  return true;
}

/// Does the operation of that mask if all whom it waits for are there; `last`: who came last, and runs on. Null: it left.
bool meet(Block& b, Warp& w, unsigned mask, const Thread* last) {
  unsigned there = 0;
  const Thread* first = nullptr;
  void* lanes[32] = {};
  const Arrival* arrival = nullptr;
  for (int i = 0; i < 32; i++) {
    if (!(w.waiting >> i & 1) || w.arrivals[i].mask != mask) continue;
    there |= 1u << i;
    arrival = &w.arrivals[i];
    lanes[i] = arrival->data;
    const Thread* p = w.threads[i];
    if (first && (p->line != first->line || std::strcmp(p->file, first->file))) {
      give_up("a warp of block " + name_of(b.index) + " meets at two operations: " + name_of(*first) + " at " + place_of(*first) +
              " and " + name_of(*p) + " at " + place_of(*p));
      return true;
    }
    first = p;
  }
  if (there != (mask & w.present & ~w.left)) return false;
  if (arrival->whole && ~there) {
    give_up("a warp of block " + name_of(b.index) + " lacks lanes " + hex(~there) + " at an operation of whole warps, at " +
            place_of(*first));
    return true;
  }
  if (arrival->whole && !go_together(b, w)) return true;
  arrival->join(lanes);
  if (note_access) {
    w.operations.push_back(there);
    here.partial |= there != w.present;
  }
  w.clock++;
  w.waiting &= ~there;
  for (int i = 0; i < 32; i++)
    if (there >> i & 1) w.threads[i]->way = 0;
  for (int i = 0; i < 32; i++)
    if (there >> i & 1 && w.threads[i] != last) wake(w.threads[i]);
  return true;
}

void arrive(const Arrival& a, const char* file, int line) {
  Thread* t = worker->current;
  Block& b = *t->block;
  Warp& w = b.warps[t->number / 32];
  const unsigned lane = t->number % 32;
  if (!(a.mask >> lane & 1)) stop_thread("lane " + std::to_string(lane) + " is not in its own mask " + hex(a.mask), file, line);
  for (unsigned i = 0; i < 32; i++)
    if (w.waiting >> i & a.mask >> i & 1 && w.arrivals[i].mask != a.mask && w.arrivals[i].mask >> lane & 1)
      stop_thread("lanes " + std::to_string(lane) + " and " + std::to_string(i) + " wait for each other with different masks, " +
                      hex(a.mask) + " and " + hex(w.arrivals[i].mask) + " of " + w.threads[i]->file + ":" +
                      std::to_string(w.threads[i]->line),
                  file, line);
  w.arrivals[lane] = a;
  w.waiting |= 1u << lane;
  t->file = file, t->line = line;
  if (!meet(b, w, a.mask, t) || stopped()) wait_here(file, line);
}

}  // namespace

void together(unsigned mask, void* data, void (*join)(void** lanes), const char* file, int line) {
  arrive({data, join, mask, false}, file, line);
}
void all_together(void* data, void (*join)(void** lanes), const char* file, int line) {
  arrive({data, join, ~0u, true}, file, line);
}

void leave_warp(Thread& t) {
  Warp& w = t.block->warps[t.number / 32];
  const unsigned lane = t.number % 32;
  w.left |= 1u << lane;
  for (unsigned i = 0; i < 32 && w.waiting; i++)
    if (w.waiting >> i & w.arrivals[i].mask >> lane & 1) meet(*t.block, w, w.arrivals[i].mask, nullptr);
}

void fence() {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (note_fence) note_fence();
}

void check_shared(Block& b) {
  size_t held = 0;
  for (auto& [key, place] : b.variables) held += place.second;
  if (m.launch->function) note_static_shared(*m.launch, held);
  if (const std::string why = no_room(*m.launch, held); !why.empty()) give_up(why);
  if (held + m.launch->shared_bytes > m.launch->shared_allowed)
    give_up("block " + name_of(b.index) + " has " + std::to_string(held) + " bytes of static and " +
            std::to_string(m.launch->shared_bytes) + " of dynamic shared memory, and may have " +
            std::to_string(m.launch->shared_allowed) + " in all");
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

void* shared_bytes(const void* key, size_t bytes, const char* file, int line) {
  Block& b = *worker->current->block;
  auto [it, fresh] = b.variables.try_emplace(key, planted == Fault::overlap ? 0 : b.used, bytes);
  if (fresh) {
    if (b.used + bytes + red_zone > shared_capacity) stop_thread("more shared memory than there is", file, line);
    b.held.push_back(it->second);
    std::memset(b.shared.get() + b.used, 0xFF, bytes);
    std::memset(b.shared.get() + b.used + bytes, red, red_zone);
    b.used += (bytes + red_zone + 127) / 128 * 128;
  }
  return b.shared.get() + it->second.first;
}

bool in_shared_variable(uintptr_t at, size_t bytes) {
  Block& b = *worker->current->block;
  const size_t offset = at - here.shared;
  auto holds = [&](size_t i) { return offset >= b.held[i].first && offset + bytes <= b.held[i].first + b.held[i].second; };
  if (holds(b.last_held)) return true;
  for (size_t i = 0; i < b.held.size(); i++)
    if (holds(i)) return b.last_held = i, true;
  return false;
}

void* dynamic_bytes() { return worker->current->block->shared.get(); }

__attribute__((noinline)) void copy_later(void* dst, const void* src, size_t bytes, bool real, const char* file, int line) {
  Thread* t = worker->current;
  void* at = __builtin_return_address(0);
  if ((reinterpret_cast<uintptr_t>(dst) | reinterpret_cast<uintptr_t>(src)) % bytes)
    stop_thread("a copy of " + std::to_string(bytes) + " bytes between addresses that are no multiples of that", file, line);
  if (!real && !exists(src, bytes)) stop_thread("a copy of zeros from an address that does not exist", file, line);
  if (note_access) note_access(dst, bytes, true, at);
  if (note_access && real) note_access(src, bytes, false, static_cast<char*>(at) + 1);  // another place of the code, for counting
  std::memset(dst, 0xFF, bytes);
  t->copies.push_back({dst, real ? src : nullptr, bytes, t->groups, file, line});
}
void commit_copies() { worker->current->groups++; }
void wait_copies(int left) {
  if (left > 0 && planted == Fault::copy_wait) return;
  Thread* t = worker->current;
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

}  // namespace emulator
