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

void Device::check_available(size_t bytes, const char* what) const {
  if (bytes < small_allocation && !std::getenv("DAGRT_MEMORY_LIMIT")) return;
  const char* why = "";
  size_t left = available(&why);
  if (bytes > left)
    fail(ErrorKind::memory_limit, what, " needs ", readable(bytes), " on ", name(), ", but ", why, " has only ", readable(left),
         " left; use a smaller batch, or free other models");
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
  device.check_available(bytes, "the working memory of this call");
  size_t rounded = (std::max(bytes, size_t(1)) + 4095) / 4096 * 4096;
  void* p = device.allocate(rounded);
  if (!p)
    fail(ErrorKind::memory_limit, "the working memory of this call needs ", readable(rounded), " on ", device.name(),
         ", which were refused; use a smaller batch");
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

void Queue::replay(const void*, const std::function<void(CudaStream&)>&) {
  fail(ErrorKind::internal, "this device does not record runs");
}

Device& find_device(const std::string& name) {
  if (name == "cpu") return cpu_device();
  const std::string wanted = name == "cuda" ? "cuda:0" : name;
  for (Device* d : cuda_devices())
    if (wanted == d->name()) return *d;
  std::string have;
  for (const std::string& n : device_names()) have += (have.empty() ? "" : ", ") + n;
  fail(ErrorKind::device, "device '", name, "' is not available; there is ", have,
       cuda_in_build() ? "" : " (this build has no CUDA: DAGRT_CUDA=ON)");
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
