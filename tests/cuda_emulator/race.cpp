// The race detector: kernels compiled with -fsanitize=thread call these functions at every access to memory, and nothing of that
// sanitizer is linked.
//
// An access is (block, thread, number of block barriers passed, number of warp operations passed). Of two accesses to one place,
// one of them a write, the earlier must be known to come first: the same thread's, or before a barrier that both passed, or before
// an operation of the warp that both belong to. Blocks of a launch are never ordered, but in a cooperative launch, whose blocks
// order themselves by atomics: there only a block's own accesses are compared. Atomics are not compared.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <unordered_map>

#include "watch.h"

namespace emulator {
namespace {

struct Place {
  Moment writer, reader;
  bool written = false, read = false, many = false;
};
std::unordered_map<uintptr_t, Place> places;
/// What lies where another block's shared memory lay before is another place.
bool before(const Moment& a, const Moment& b, bool shared) {
  if (a.block != b.block) return shared || here.cooperative;
  return a.thread == b.thread || a.epoch < b.epoch || (a.thread / 32 == b.thread / 32 && a.clock < b.clock);
}

/// File and line of a place in the code, by addr2line where there is one.
std::string line_of(void* at) {
  if (!at) return "the arrival of an asynchronous copy";
  char command[512], line[512] = "";
  std::snprintf(line, sizeof line, "code address %p", at);
  Dl_info info;
  if (!dladdr(at, &info)) return line;
  // Of a call: the address before the one it returns to.
  const auto offset = reinterpret_cast<uintptr_t>(at) - 1 - reinterpret_cast<uintptr_t>(info.dli_fbase);
  std::snprintf(command, sizeof command, "addr2line -s -e '%s' %#lx 2>/dev/null", info.dli_fname,
                static_cast<unsigned long>(offset));
  if (FILE* f = popen(command, "r")) {
    char found[512];
    if (std::fgets(found, sizeof found, f) && found[0] != '?') {
      found[strcspn(found, " \n")] = 0;
      std::snprintf(line, sizeof line, "%s", found);
    }
    pclose(f);
  }
  return line;
}

void tell(const char* what, const Moment& a, const Moment& b, void* at) {
  char text[256];
  std::snprintf(text, sizeof text, "race: %s by thread %u of block %u and thread %u of block %u, at ", what, a.thread, a.block,
                b.thread, b.block);
  race((text + line_of(at)).c_str());
}

void access_one(uintptr_t key, const Moment& m, bool write, bool shared, void* at) {
  Place& p = places[key];
  if (p.written && !before(p.writer, m, shared)) tell(write ? "two writes" : "a read after an unordered write", p.writer, m, at);
  if (write) {
    if (p.read && !before(p.reader, m, shared)) tell("a write after an unordered read", p.reader, m, at);
    if (p.many && p.reader.block == m.block && p.reader.epoch == m.epoch && p.reader.thread / 32 != m.thread / 32)
      tell("a write after unordered reads", p.reader, m, at);
    p.writer = m, p.written = true;
    return;
  }
  p.many = p.read && !before(p.reader, m, shared) ? true : p.many && p.reader.block == m.block && p.reader.epoch == m.epoch;
  p.reader = m, p.read = true;
}

// Words, and single bytes where less than a word is touched: kernels do not mix the two on one tensor.
void access(const volatile void* where, size_t bytes, bool write, void* at) {
  auto a = reinterpret_cast<uintptr_t>(where);
  if (!here.running) return;
  const bool shared = a - here.shared < shared_capacity;
  if (!shared && !in_device_memory(a)) return;
  const Moment m{here.block, here.thread, *here.epoch, *here.clock};
  count_access(a, unsigned(bytes), write, shared, at, m);
  if (here.sampled) return;
  const uintptr_t step = bytes < 4 ? 1 : 4, space = bytes < 4 ? uintptr_t(1) << 63 : 0;
  for (uintptr_t i = 0; i < bytes; i += step) access_one((a + i) | space, m, write, shared, at);
}

[[maybe_unused]] const bool installed = [] {
  forget_accesses = [] { places.clear(); };
  note_access = [](const void* where, size_t bytes, bool write, void* at) { access(where, bytes, write, at); };
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
