// Where a block's threads meet and what they share: barriers, warp operations, shared memory, asynchronous copies.
#include "machine.h"

namespace emulator {
namespace {

void release(Block& b) {
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

}  // namespace

bool barrier(bool value, const char* file, int line) {
  Thread* t = m.current;
  if (left_out(*t, file, line)) return value;
  Block& b = *t->block;
  b.any |= value;
  t->file = file, t->line = line;
  if (++b.arrived + b.done == b.threads.size()) {
    if (b.done)
      give_up("block " + name_of(b.index) + ": a barrier at " + file + ":" + std::to_string(line) + " that " +
              std::to_string(b.done) + " threads have passed by leaving");
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

void* shared_bytes(const void* key, size_t bytes) {
  Block& b = *m.current->block;
  auto [it, fresh] = b.variables.try_emplace(key, planted == Fault::overlap ? 0 : b.used, bytes);
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
  if (left > 0 && planted == Fault::copy_wait) return;
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

}  // namespace emulator
