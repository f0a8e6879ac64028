// The race detector: kernels compiled with -fsanitize=thread call these functions at every access to memory, and nothing of that
// sanitizer is linked.
//
// An access is (block, thread, number of block barriers passed, number of warp operations passed). Of two accesses to one place,
// one of them a write, the earlier must be known to come first: the same thread's, or before a barrier that both passed, or before
// an operation of the warp that both belong to. Blocks of a launch are never ordered, but in a cooperative launch, whose blocks
// order themselves by atomics: there only a block's own accesses are compared. Atomics are not compared.
#include <cstdio>
#include <unordered_map>

#include "emulator.h"

namespace emulator {

struct Moment {
  unsigned block, thread, epoch, clock;
};
bool now(Moment* m);         // false outside of kernels
bool watched(uintptr_t at);  // shared or device memory
bool cooperative();
void race(const char* what);
extern void (*forget_accesses)();
extern void (*note_access)(const void* where, size_t bytes, bool write);

namespace {

struct Place {
  Moment writer, reader;
  bool written = false, read = false, many = false;
};
std::unordered_map<uintptr_t, Place> places;
bool before(const Moment& a, const Moment& b) {
  if (a.block != b.block) return cooperative();
  return a.thread == b.thread || a.epoch < b.epoch || (a.thread / 32 == b.thread / 32 && a.clock < b.clock);
}

void tell(const char* what, const Moment& a, const Moment& b, void* at) {
  char text[256];
  std::snprintf(text, sizeof text, "race: %s by thread %u of block %u and thread %u of block %u, at code address %p", what,
                a.thread, a.block, b.thread, b.block, at);
  race(text);
}

void access_one(uintptr_t key, const Moment& m, bool write, void* at) {
  Place& p = places[key];
  if (p.written && !before(p.writer, m)) tell(write ? "two writes" : "a read after an unordered write", p.writer, m, at);
  if (write) {
    if (p.read && !before(p.reader, m)) tell("a write after an unordered read", p.reader, m, at);
    if (p.many && p.reader.block == m.block && p.reader.epoch == m.epoch && p.reader.thread / 32 != m.thread / 32)
      tell("a write after unordered reads", p.reader, m, at);
    p.writer = m, p.written = true;
    return;
  }
  p.many = p.read && !before(p.reader, m) ? true : p.many && p.reader.block == m.block && p.reader.epoch == m.epoch;
  p.reader = m, p.read = true;
}

// Words, and single bytes where less than a word is touched: kernels do not mix the two on one tensor.
void access(const volatile void* where, size_t bytes, bool write, void* at) {
  auto a = reinterpret_cast<uintptr_t>(where);
  Moment m;
  if (!watched(a) || !now(&m)) return;
  const uintptr_t step = bytes < 4 ? 1 : 4, space = bytes < 4 ? uintptr_t(1) << 63 : 0;
  for (uintptr_t i = 0; i < bytes; i += step) access_one((a + i) | space, m, write, at);
}

[[maybe_unused]] const bool installed = [] {
  forget_accesses = [] { places.clear(); };
  note_access = [](const void* where, size_t bytes, bool write) { access(where, bytes, write, nullptr); };
  return true;
}();

}  // namespace
}  // namespace emulator

#define DAGRT_ACCESS(size)                                                                                                \
  extern "C" void __tsan_read##size(void* p) { emulator::access(p, size, false, __builtin_return_address(0)); }           \
  extern "C" void __tsan_write##size(void* p) { emulator::access(p, size, true, __builtin_return_address(0)); }           \
  extern "C" void __tsan_unaligned_read##size(void* p) { emulator::access(p, size, false, __builtin_return_address(0)); } \
  extern "C" void __tsan_unaligned_write##size(void* p) { emulator::access(p, size, true, __builtin_return_address(0)); } \
  extern "C" void __tsan_volatile_read##size(void* p) { emulator::access(p, size, false, __builtin_return_address(0)); }  \
  extern "C" void __tsan_volatile_write##size(void* p) { emulator::access(p, size, true, __builtin_return_address(0)); }
DAGRT_ACCESS(1)
DAGRT_ACCESS(2)
DAGRT_ACCESS(4)
DAGRT_ACCESS(8)
DAGRT_ACCESS(16)
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_vptr_update(void**, void*) {}
extern "C" void __tsan_vptr_read(void**) {}
extern "C" void __tsan_read_range(void* p, size_t n) { emulator::access(p, n, false, __builtin_return_address(0)); }
extern "C" void __tsan_write_range(void* p, size_t n) { emulator::access(p, n, true, __builtin_return_address(0)); }
