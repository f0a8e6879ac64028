#include "runtime/device.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "base/error.h"
#include "runtime/cuda_device.h"
#include "runtime/prepared.h"
#include "runtime/variable.h"

namespace dagrt {
namespace {

constexpr size_t no_limit = SIZE_MAX;
constexpr size_t huge_page = size_t(2) << 20;
constexpr size_t small_allocation = size_t(64) << 20;  // below this the machine is not asked first

size_t read_number(const char* path) {  // "max" and a missing file: no limit
  size_t n = no_limit;
  if (FILE* f = std::fopen(path, "r")) {
    unsigned long long v;
    if (std::fscanf(f, "%llu", &v) == 1) n = size_t(v);
    std::fclose(f);
  }
  return n;
}

size_t field(const char* path, const char* name) {  // a line "name 123" or "name: 123 kB"
  size_t n = no_limit;
  if (FILE* f = std::fopen(path, "r")) {
    char line[256];
    size_t length = std::strlen(name);
    while (std::fgets(line, sizeof line, f)) {
      unsigned long long v;
      if (!std::strncmp(line, name, length) && std::sscanf(line + length, "%*[: \t]%llu", &v) == 1) {
        n = size_t(v) * (std::strstr(line, " kB") ? 1024 : 1);
        break;
      }
    }
    std::fclose(f);
  }
  return n;
}

size_t cgroup_left(const char* limit_path, const char* usage_path, const char* stat_path, const char* cache_field) {
  size_t limit = read_number(limit_path), usage = read_number(usage_path);
  if (limit == no_limit || usage == no_limit || limit > (size_t(1) << 60)) return no_limit;
  size_t cache = field(stat_path, cache_field);  // file pages that the kernel drops before it refuses memory
  if (cache != no_limit) usage -= std::min(usage, cache);
  return limit > usage ? limit - usage : 0;
}

class Cpu final : public Device {
 public:
  const char* name() const override { return "cpu"; }
  bool is_host() const override { return true; }

  void* allocate(size_t bytes) override {
    size_t unit = bytes >= 2 * huge_page ? huge_page : 64;
    void* p = std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit);
    if (p && unit == huge_page) madvise(p, bytes, MADV_HUGEPAGE);  // fewer TLB misses; where refused, nothing is lost
    return p;
  }
  void release(void* p, size_t) override { std::free(p); }
  void* allocate_host(size_t bytes) override { return allocate(bytes); }
  void release_host(void* p) override { std::free(p); }
  std::unique_ptr<Queue> queue() override { return nullptr; }  // runs use host memory directly
  size_t available(const char** why) const override { return available_host_memory(why); }
};

std::string readable(size_t bytes) {
  char text[64];
  if (bytes >= size_t(1) << 30)
    std::snprintf(text, sizeof text, " (%.2f GiB)", double(bytes) / double(1 << 30));
  else
    std::snprintf(text, sizeof text, " (%.1f MiB)", double(bytes) / double(1 << 20));
  return std::to_string(bytes) + " bytes" + text;
}

/// MemoryLimitError, or DeviceMemoryError.
template <class... Parts> [[noreturn]] void no_memory(const Device& d, const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  if (d.is_host()) throw Error(ErrorKind::memory_limit, text.str());
  throw DeviceMemoryError(text.str());
}

}  // namespace

size_t available_host_memory(const char** why) {
  size_t left = field("/proc/meminfo", "MemAvailable");
  *why = "the machine";
  auto limit = [&](size_t n, const char* name) {
    if (n < left) {
      left = n;
      *why = name;
    }
  };
  limit(cgroup_left("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "inactive_file"),
        "the process's cgroup");
  limit(cgroup_left("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes",
                    "/sys/fs/cgroup/memory/memory.stat", "total_inactive_file"),
        "the process's cgroup");
  if (const char* e = std::getenv("DAGRT_MEMORY_LIMIT")) {
    char* end = nullptr;
    unsigned long long n = std::strtoull(e, &end, 10);
    size_t used = cpu_device().arenas.bytes() + variable_bytes_in_use() + prepared_bytes_in_use();
    if (end != e && *end == 0) limit(n > used ? size_t(n) - used : 0, "DAGRT_MEMORY_LIMIT");
  }
  return left;
}

void Device::check_available(size_t bytes, const std::string& what) const {
  if (bytes < small_allocation && !std::getenv("DAGRT_MEMORY_LIMIT")) return;
  const char* why = "";
  size_t left = available(&why);
  if (bytes > left)
    no_memory(*this, what, " needs ", readable(bytes), " on ", name(), ", but ", why, " has only ", readable(left),
              " left; use a smaller batch, or free other models");
}

void* Device::take_memory(size_t bytes, const std::string& what) {
  void* p = nullptr;
  try {
    check_available(bytes, what);
    p = allocate(bytes ? bytes : 1);
  } catch (const Error&) {
    if (!arenas.bytes()) throw;
  }
  if (p) return p;
  arenas.trim(*this);
  check_available(bytes, what);
  p = allocate(bytes ? bytes : 1);
  if (!p)
    no_memory(*this, what, " needs ", readable(bytes), " on ", name(),
              ", which were refused; use a smaller batch, or free other models");
  return p;
}

Arena::~Arena() {
  if (data_) device_->arenas.give(data_, bytes_);
}

Arena ArenaPool::take(Device& device, size_t bytes) {
  Arena arena;
  Block old{nullptr, 0};
  {
    std::lock_guard<std::mutex> lock(mutex_);
    auto best = idle_.end();  // the smallest that is large enough, else the largest, to be grown
    for (auto it = idle_.begin(); it != idle_.end(); ++it) {
      if (best == idle_.end())
        best = it;
      else if (it->bytes >= bytes ? best->bytes < bytes || it->bytes < best->bytes : it->bytes > best->bytes)
        best = it;
    }
    if (best != idle_.end()) {
      old = *best;
      idle_.erase(best);
    }
  }
  arena.device_ = &device;
  if (old.bytes >= bytes && old.data) {
    arena.data_ = old.data;
    arena.bytes_ = old.bytes;
    return arena;
  }
  if (old.data) {
    device.release(old.data, old.bytes);
    total_ -= old.bytes;
  }
  size_t rounded = (std::max(bytes, size_t(1)) + 4095) / 4096 * 4096;
  void* p = device.take_memory(rounded, "the working memory of this call");
  total_ += rounded;
  arena.data_ = static_cast<char*>(p);
  arena.bytes_ = rounded;
  return arena;
}

void ArenaPool::give(char* data, size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  idle_.push_back({data, bytes});
}

void ArenaPool::trim(Device& device) {
  std::vector<Block> idle;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    idle.swap(idle_);
  }
  for (const Block& b : idle) {
    total_ -= b.bytes;
    device.release(b.data, b.bytes);
  }
}

Staging::~Staging() {
  if (data_) device_->release_host(data_);
}

char* Staging::take(Device& device, size_t bytes) {
  if (device_ == &device && bytes_ >= bytes) return data_;
  if (data_) device_->release_host(data_);
  bytes_ = 0;
  device_ = &device;
  data_ = static_cast<char*>(device.allocate_host(bytes));
  if (!data_)
    no_memory(device, "copies of ", device.name(), " need ", readable(bytes),
              " of the host's memory, which were refused; use a smaller batch");
  bytes_ = bytes;
  return data_;
}

namespace {
[[noreturn]] void records_nothing() { fail(ErrorKind::internal, "this device does not record runs"); }
}  // namespace

void Queue::abandon() noexcept {
  try {
    wait();
  } catch (...) {}
}
void Queue::write_beside(void*, int32_t) { records_nothing(); }
void Queue::move(Way, void*, const void*, size_t) { records_nothing(); }
void Queue::set_flag(Way, int) { records_nothing(); }
void Queue::await_flag(Way, int) { records_nothing(); }
bool Queue::reached(int) { records_nothing(); }
void Queue::wait_for(int) { records_nothing(); }
void Queue::replay(const void*, const std::function<void(Recording&)>&) { records_nothing(); }
void Queue::perform(const std::function<void(Recording&)>&) { records_nothing(); }
std::vector<int64_t> Queue::times() { records_nothing(); }

Device& default_device() {
  static Device& chosen = []() -> Device& {
    const char* name = std::getenv("DAGRT_DEVICE");
    if (name && *name) return find_device(name);
    return cuda_devices().empty() ? cpu_device() : *cuda_devices()[0];
  }();
  return chosen;
}

Device& find_device(const std::string& name) {
  if (name == "cpu") return cpu_device();
  const bool any = name == "cuda";
  const std::string wanted = !any ? name : cuda_devices().empty() ? "cuda:0" : cuda_devices()[0]->name();
  for (Device* d : cuda_devices())
    if (wanted == d->name()) return *d;
  const bool is_cuda =
      wanted.size() > 5 && wanted.compare(0, 5, "cuda:") == 0 && wanted.find_first_not_of("0123456789", 5) == std::string::npos;
  if (!is_cuda) fail(ErrorKind::device, "device '", name, "' is unknown: expected 'cpu', 'cuda' or 'cuda:' and a number");
  if (!cuda_in_build())
    fail(ErrorKind::device, "device '", name, "' is not available: this build of dagrt has no CUDA; build it with ",
         "DAGRT_CUDA=ON, or use 'cpu'");
  if (cuda_devices().empty())
    fail(ErrorKind::device, "device '", name, "' is not available: no GPU was found (", why_no_cuda_device(), "); use 'cpu'");
  std::string have;
  for (const std::string& n : device_names()) have += (have.empty() ? "" : ", ") + n;
  fail(ErrorKind::device, "device '", name, "' is not available; there is ", have);
}

std::vector<std::string> device_names() {
  std::vector<std::string> names{"cpu"};
  for (Device* d : cuda_devices()) names.push_back(d->name());
  return names;
}

Device& cpu_device() {
  static Cpu* cpu = new Cpu;  // outlives every variable, also those that static objects hold
  return *cpu;
}

}  // namespace dagrt
