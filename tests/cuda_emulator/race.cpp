// The race detector: kernels compiled with -fsanitize=thread call these functions at every access to memory, and nothing of that
// sanitizer is linked.
//
// An access is (block, thread, number of block barriers passed, number of warp operations passed, number of the block's fences).
// Of two accesses to one place, one of them a write, the earlier must be known to come first: the same thread's, or before a
// barrier that both passed, or before an operation of the warp that both took part in, or several that lead from the one to the
// other. Blocks of a cooperative launch order themselves by atomics: an atomic tells what its thread's last fence covers, a fence
// makes known what that thread's atomics were told (release and acquire, block by block, through any number of blocks). Blocks of
// other launches are never ordered. Atomics themselves are not compared.
//
// Memory that is read before it was written is reported here too; elsewhere it is NaN.
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <unordered_map>
#include <vector>

#include "watch.h"

namespace emulator {
namespace {

struct Place {
  Moment writer, reader;
  bool written = false, read = false, many = false, bytes = false;  // bytes: parts of this word are places of their own
  std::vector<Moment> readers;                                      // of other blocks, in a cooperative launch
};

/// Places by address, 64 neighbours to a page; bytes of their own have addresses with the highest bit set.
class Places {
 public:
  static constexpr uintptr_t single = uintptr_t(1) << 63;
  Place& operator[](uintptr_t at) {
    Page*& page = recent(at);
    if (!page) page = &make(number(at));
    return page->place[index(at)];
  }
  Place* find(uintptr_t at) {
    Page*& page = recent(at);
    if (!page)
      if (auto it = pages_.find(number(at)); it != pages_.end()) page = it->second;
    return page ? &page->place[index(at)] : nullptr;
  }
  void clear() {
    for (auto& [n, page] : pages_) spare_.push_back(page);
    pages_.clear();
    for (Recent& r : recent_) r = {};
  }

 private:
  struct Page {
    Place place[64];
  };
  struct Recent {
    uintptr_t number = 0;
    Page* page = nullptr;
  };
  static uintptr_t number(uintptr_t at) { return at >> (at & single ? 6 : 8); }
  static size_t index(uintptr_t at) { return (at & single ? at : at >> 2) & 63; }
  Page*& recent(uintptr_t at) {
    Recent& r = recent_[number(at) % 1024];
    if (r.number != number(at)) r = {number(at), nullptr};
    return r.page;
  }
  Page& make(uintptr_t n) {
    auto [it, fresh] = pages_.try_emplace(n, nullptr);
    if (!fresh) return *it->second;
    if (spare_.empty()) {
      all_.emplace_back();
      it->second = &all_.back();
    } else {
      it->second = spare_.back();
      spare_.pop_back();
      for (Place& p : it->second->place) p = {};
    }
    return *it->second;
  }
  std::unordered_map<uintptr_t, Page*> pages_;
  std::deque<Page> all_;
  std::vector<Page*> spare_;  // of launches before
  Recent recent_[1024];
} places;

/// Whether operations between the two lead from the one's lane to the other's.
bool linked(const Moment& a, const Moment& b) {
  if (!here.partial) return true;
  const auto& operations = operations_of(a.block, a.thread / 32);
  unsigned reached = 1u << a.thread % 32;
  for (size_t i = a.clock; i < b.clock; i++)
    if (operations[i] & reached) reached |= operations[i];
  return reached >> b.thread % 32 & 1;
}
bool before_in_block(const Moment& a, const Moment& b) {
  if (a.thread == b.thread) return a.fences <= b.fences;
  return a.epoch < b.epoch || (a.thread / 32 == b.thread / 32 && a.clock < b.clock && linked(a, b));
}

using Told = std::map<unsigned, Moment>;  // of each block, up to when its accesses are known
struct Lesson {                           // from `since` on
  Moment since, covers;
};
std::map<std::pair<unsigned, unsigned>, std::vector<Lesson>> known;  // by who knows and of whom
std::map<const void*, Told> told;                                    // by atomics' places
struct Messenger {
  bool fenced = false;
  Moment fence;
  Told heard;
};
std::map<std::pair<unsigned, unsigned>, Messenger> messengers;  // by block and thread

const Moment* what_is_known(unsigned of, const Moment& m) {
  auto it = known.find({m.block, of});
  if (it == known.end()) return nullptr;
  for (size_t i = it->second.size(); i-- > 0;)
    if (before_in_block(it->second[i].since, m)) return &it->second[i].covers;
  return nullptr;
}
void learn(Told& t, unsigned block, const Moment& covers) {
  auto [it, fresh] = t.try_emplace(block, covers);
  if (!fresh && it->second.fences < covers.fences) it->second = covers;
}
void fence(const Moment& m) {
  Messenger& x = messengers[{m.block, m.thread}];
  x.fenced = true, x.fence = m;
  for (auto& [block, covers] : x.heard) {
    auto& lessons = known[{m.block, block}];
    if (lessons.empty() || lessons.back().covers.fences < covers.fences) lessons.push_back({m, covers});
    if (lessons.size() > 8) lessons.erase(lessons.begin());
  }
  x.heard.clear();
}
void atomic(const void* where, const Moment& m) {
  Messenger& x = messengers[{m.block, m.thread}];
  Told& t = told[where];
  for (auto& [block, covers] : t)
    if (block != m.block) learn(x.heard, block, covers);
  if (!x.fenced) return;
  learn(t, m.block, x.fence);
  for (auto it = known.lower_bound({m.block, 0}); it != known.end() && it->first.first == m.block; ++it)
    if (const Moment* covers = what_is_known(it->first.second, x.fence)) learn(t, it->first.second, *covers);
}

/// What lies where another block's shared memory lay before is another place.
bool before(const Moment& a, const Moment& b, bool shared) {
  if (a.block == b.block) return before_in_block(a, b);
  if (shared) return true;
  const Moment* covers = here.cooperative ? what_is_known(a.block, b) : nullptr;
  return covers && before_in_block(a, *covers);
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

void outside(const Moment& m, size_t bytes, bool write, void* at) {
  char text[256];
  std::snprintf(text, sizeof text, "thread %u of block %u %s %zu bytes that no operand of its step holds, at ", m.thread, m.block,
                write ? "writes" : "reads", bytes);
  race((text + line_of(at)).c_str());
}

[[noreturn]] void stop_at(const std::string& what, void* at) {
  const std::string place = line_of(at);
  const size_t colon = std::min(place.rfind(':'), place.size());
  stop_thread(what, place.substr(0, colon).c_str(), colon < place.size() ? std::atoi(place.c_str() + colon + 1) : 0);
}
[[noreturn]] void misaligned(size_t bytes, void* at) {  // the host may not go on either
  stop_at("touches " + std::to_string(bytes) + " bytes at an address that is no multiple of that", at);
}
[[noreturn]] void between_variables(size_t bytes, bool write, void* at) {
  stop_at((write ? "writes " : "reads ") + std::to_string(bytes) + " bytes of shared memory that no variable holds", at);
}

void unwritten(const char* memory, const Moment& m, void* at) {
  char text[256];
  std::snprintf(text, sizeof text, "race: a read of %s memory before any write, by thread %u of block %u, at ", memory, m.thread,
                m.block);
  race((text + line_of(at)).c_str());
}

void read_or_written(uintptr_t a, size_t bytes, bool write, const Moment& m, void* at) {
  const void* p = reinterpret_cast<const void*>(a);
  if (write)
    set_written(p, bytes, true);
  else if (!all_written(p, bytes))
    unwritten("device", m, at);
}

void compare(const Place& p, const Moment& m, bool write, bool shared, void* at) {
  if (p.written && !before(p.writer, m, shared)) tell(write ? "two writes" : "a read after an unordered write", p.writer, m, at);
  if (!write) return;
  if (p.read && !before(p.reader, m, shared)) tell("a write after an unordered read", p.reader, m, at);
  if (p.many && p.reader.block == m.block && p.reader.epoch == m.epoch && p.reader.thread / 32 != m.thread / 32)
    tell("a write after unordered reads", p.reader, m, at);
  for (const Moment& r : p.readers)
    if (!before(r, m, shared)) tell("a write after an unordered read", r, m, at);
}

void access_one(Place& p, const Moment& m, bool write, bool shared, void* at) {
  compare(p, m, write, shared, at);
  if (write) {
    p.writer = m, p.written = true;
    if (!p.readers.empty()) p.readers.clear();
    return;
  }
  if (p.read && p.reader.block != m.block && here.cooperative && !shared) {
    size_t kept = 0;
    for (const Moment& r : p.readers)
      if (r.block != m.block && r.block != p.reader.block) p.readers[kept++] = r;
    p.readers.resize(kept);
    p.readers.push_back(p.reader);
  }
  p.many = p.read && !before(p.reader, m, shared) ? true : p.many && p.reader.block == m.block && p.reader.epoch == m.epoch;
  p.reader = m, p.read = true;
}

// Words; bytes of their own where less than a word is touched, compared with the word that they lie in. `typed`: a GPU has one
// instruction for it, which wants an address that is a multiple of its bytes.
void access(const volatile void* where, size_t bytes, bool write, void* at, bool typed = false) {
  auto a = reinterpret_cast<uintptr_t>(where);
  if (!here.running) return;
  const bool shared = a - here.shared < shared_capacity;
  if (!shared && !in_device_memory(a)) return;
  const Moment m{here.block, here.thread, *here.epoch, *here.clock, *here.fences};
  if (!shared && !may_touch(a, bytes)) outside(m, bytes, write, at);
  if (typed && a % bytes) misaligned(bytes, at);
  if (shared && !in_shared_variable(a, bytes)) between_variables(bytes, write, at);
  count_access(a, unsigned(bytes), write, shared, at, m);
  if (here.sampled) return;
  if (!shared) read_or_written(a, bytes, write, m, at);
  constexpr uintptr_t single = Places::single;
  // What another block wrote where this one's shared memory now lies is nobody's.
  auto written = [&](const Place& p) { return p.written && p.writer.block == m.block; };
  if (bytes < 4 || a % 4) {
    for (uintptr_t i = a; i < a + bytes; i++) {
      Place& word = places[i / 4 * 4];
      word.bytes = true;
      compare(word, m, write, shared, at);
      Place& byte = places[i | single];
      if (shared && !write && !written(byte) && !written(places[i / 4 * 4])) unwritten("shared", m, at);
      access_one(byte, m, write, shared, at);
    }
    return;
  }
  for (uintptr_t i = a; i < a + bytes; i += 4) {
    Place& word = places[i];
    if (shared && !write && !word.bytes && !written(word)) unwritten("shared", m, at);
    access_one(word, m, write, shared, at);
    if (!word.bytes) continue;
    for (uintptr_t k = i; k < i + 4; k++)
      if (const Place* byte = places.find(k | single)) compare(*byte, m, write, shared, at);
  }
}

[[maybe_unused]] const bool installed = [] {
  forget_accesses = [] { places.clear(), known.clear(), told.clear(), messengers.clear(); };
  note_atomic = [](const void* where, size_t bytes, void* at) {
    if (!here.running) return;
    const Moment m{here.block, here.thread, *here.epoch, *here.clock, *here.fences};
    if (here.cooperative) atomic(where, m);
    const auto a = reinterpret_cast<uintptr_t>(where);
    if (here.sampled || !in_device_memory(a)) return;
    read_or_written(a, bytes, false, m, at);
    read_or_written(a, bytes, true, m, at);
  };
  note_fence = [] {
    if (here.running && here.cooperative) fence({here.block, here.thread, *here.epoch, *here.clock, (*here.fences)++});
  };
  note_access = [](const void* where, size_t bytes, bool write, void* at) { access(where, bytes, write, at); };
  return true;
}();

}  // namespace
}  // namespace emulator

#define DAGRT_ACCESS(size)                                                                                                     \
  extern "C" void __tsan_read##size(void* p) { emulator::access(p, size, false, __builtin_return_address(0), true); }          \
  extern "C" void __tsan_write##size(void* p) { emulator::access(p, size, true, __builtin_return_address(0), true); }          \
  extern "C" void __tsan_unaligned_read##size(void* p) { emulator::access(p, size, false, __builtin_return_address(0)); }      \
  extern "C" void __tsan_unaligned_write##size(void* p) { emulator::access(p, size, true, __builtin_return_address(0)); }      \
  extern "C" void __tsan_volatile_read##size(void* p) { emulator::access(p, size, false, __builtin_return_address(0), true); } \
  extern "C" void __tsan_volatile_write##size(void* p) { emulator::access(p, size, true, __builtin_return_address(0), true); }
DAGRT_ACCESS(1)
DAGRT_ACCESS(2)
DAGRT_ACCESS(4)
DAGRT_ACCESS(8)
DAGRT_ACCESS(16)
/// Of each piece of code without branches (-fsanitize-coverage=trace-pc), when a thread comes to it.
extern "C" void __sanitizer_cov_trace_pc() {
  if (!emulator::here.running) return;
  uint64_t& way = *emulator::here.way;
  way = (way ^ reinterpret_cast<uintptr_t>(__builtin_return_address(0))) * 0x9E3779B97F4A7C15u;
}
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_vptr_update(void**, void*) {}
extern "C" void __tsan_vptr_read(void**) {}
extern "C" void __tsan_read_range(void* p, size_t n) { emulator::access(p, n, false, __builtin_return_address(0)); }
extern "C" void __tsan_write_range(void* p, size_t n) { emulator::access(p, n, true, __builtin_return_address(0)); }
