// A second device without a second machine: host memory that the host cannot touch (no access but while the device's
// own work runs), filled with NaN bits when allocated and released, and queues that do nothing until they are waited for.
// Copies, staging and the status word are tested with it. Behind it stand the same ops.
#pragma once
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "runtime/device.h"

namespace dagrt::testing {

class HostSim final : public Device {
 public:
  HostSim() {
    base_ = static_cast<char*>(mmap(nullptr, range, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    free_[0] = range;
  }
  ~HostSim() override {
    arenas.trim(*this);
    munmap(base_, range);
  }
  const char* name() const override { return "host_sim"; }
  bool is_host() const override { return false; }
  size_t available(const char** why) const override {
    *why = "its range";
    return range;
  }
  void* allocate_host(size_t bytes) override { return std::malloc(bytes); }
  void release_host(void* p) override { std::free(p); }
  std::unique_ptr<Queue> queue() override { return std::make_unique<Late>(*this); }

  void* allocate(size_t bytes) override {
    size_t n = (bytes + 63) / 64 * 64;
    char* p = nullptr;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      for (auto& [at, size] : free_)
        if (size >= n) {
          p = base_ + at;
          size_t left = size - n, next = at + n;
          free_.erase(at);
          if (left) free_[next] = left;
          break;
        }
    }
    if (p) poison(p, n);
    return p;
  }
  void release(void* p, size_t bytes) override {
    size_t n = (bytes + 63) / 64 * 64;
    poison(p, n);
    std::lock_guard<std::mutex> lock(mutex_);
    free_[size_t(static_cast<char*>(p) - base_)] = n;
  }

 private:
  static constexpr size_t range = size_t(64) << 20;

  void poison(void* p, size_t bytes) {
    Access access(*this);
    std::memset(p, 0xFF, bytes);
  }

  struct Access {  // several queues may be at work at once
    explicit Access(HostSim& d) : device(d) {
      std::lock_guard<std::mutex> lock(d.mutex_);
      if (d.working_++ == 0) mprotect(d.base_, range, PROT_READ | PROT_WRITE);
    }
    ~Access() {
      std::lock_guard<std::mutex> lock(device.mutex_);
      if (--device.working_ == 0) mprotect(device.base_, range, PROT_NONE);
    }
    HostSim& device;
  };

  class Late final : public Queue {
   public:
    explicit Late(HostSim& d) : device_(d) {}
    void copy_in(void* to, const void* from, size_t bytes) override {
      const char* p = static_cast<const char*>(from);
      std::vector<char> staged(p, p + (p ? bytes : 0));
      run([to, staged = std::move(staged)] {
        if (!staged.empty()) std::memcpy(to, staged.data(), staged.size());
      });
    }
    void copy_out(void* to, const void* from, size_t bytes) override {
      run([=] {
        if (bytes) std::memcpy(to, from, bytes);
      });
    }
    void run(std::function<void()> work) override { work_.push_back(std::move(work)); }
    void wait() override {
      Access access(device_);
      const std::vector<std::function<void()>> work = std::move(work_);  // what throws ends it
      work_.clear();
      for (const auto& w : work) w();
    }

   private:
    HostSim& device_;
    std::vector<std::function<void()>> work_;
  };

  char* base_;
  std::mutex mutex_;
  int working_ = 0;
  std::map<size_t, size_t> free_;  // offset -> bytes
};

}  // namespace dagrt::testing
