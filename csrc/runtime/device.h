// Where variables and arenas live and where steps run: memory, and queues of work done in order.
//
// cpu: the host's own memory; a queue runs its work at once. Another device has memory that the host must not touch
// and queues that run later: the host only waits, for a queue or for an event.
#pragma once
#include <cstddef>
#include <functional>
#include <memory>

namespace dagrt {

/// Work in order. Nothing may be assumed done before `wait`.
class Queue {
 public:
  virtual ~Queue() = default;
  virtual void copy_in(void* device, const void* host, size_t bytes) = 0;   // host memory is read before it returns
  virtual void copy_out(void* host, const void* device, size_t bytes) = 0;  // host memory is written by `wait`
  virtual void run(std::function<void()> work) = 0;  // with the device's memory in reach
  virtual void wait() = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual const char* name() const = 0;
  virtual bool is_host() const = 0;  // its memory is the host's: inputs are borrowed, outputs written in place
  /// 64-byte aligned; null where there is no memory left.
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* p, size_t bytes) = 0;
  virtual std::unique_ptr<Queue> queue() = 0;
  /// Bytes that an allocation may still take, and in `why` which limit that is.
  virtual size_t available(const char** why) const = 0;
};

Device& cpu_device();

}  // namespace dagrt
