// Which bytes of device memory somebody has written, where accesses are watched (race.cpp): a bit for each, in a range of
// addresses that is as sparse as the device's own.
#include <sys/mman.h>

#include "watch.h"

namespace emulator {
namespace {

unsigned char* bits() {
  static unsigned char* const all = [] {
    void* p = mmap(nullptr, device_range_bytes / 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? nullptr : static_cast<unsigned char*>(p);
  }();
  return note_access ? all : nullptr;
}
size_t index_of(const void* p) { return size_t(static_cast<const char*>(p) - device_range()); }

}  // namespace

void set_written(const void* p, size_t bytes, bool written) {
  unsigned char* all = bits();
  if (!all || !in_device_memory(reinterpret_cast<uintptr_t>(p))) return;
  size_t i = index_of(p);
  const size_t end = i + bytes;
  auto set = [&](size_t k) {
    const unsigned bit = 1u << k % 8;
    all[k / 8] = static_cast<unsigned char>(written ? all[k / 8] | bit : all[k / 8] & ~bit);
  };
  while (i < end && i % 8) set(i++);
  if (end > i + 8) std::memset(all + i / 8, written ? 0xFF : 0, (end - i) / 8), i += (end - i) / 8 * 8;
  while (i < end) set(i++);
}

bool all_written(const void* p, size_t bytes) {
  const unsigned char* all = bits();
  if (!all) return true;
  for (size_t i = index_of(p), end = i + bytes; i < end; i += 16) {
    uint32_t found;
    std::memcpy(&found, all + i / 8, sizeof found);
    const uint32_t wanted = (uint32_t(1) << (end - i < 16 ? end - i : 16)) - 1;
    if ((found >> i % 8 & wanted) != wanted) return false;
  }
  return true;
}

void copy_written(void* to, const void* from, size_t bytes) {
  const unsigned char* all = bits();
  if (!all || !in_device_memory(reinterpret_cast<uintptr_t>(to))) return;
  if (!in_device_memory(reinterpret_cast<uintptr_t>(from))) return set_written(to, bytes, true);
  for (size_t i = 0; i < bytes; i++) {
    const size_t k = index_of(from) + i;
    set_written(static_cast<char*>(to) + i, 1, all[k / 8] >> k % 8 & 1);
  }
}

}  // namespace emulator
