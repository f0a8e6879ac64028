// Where variables and arenas live and where steps run: memory, and queues of work done in order.
//
// cpu: the host's own memory; runs use it directly. Another device has memory that the host must not touch and queues
// that run later: the host only waits.
//
// Arenas belong to a pool of their device, one for each run in flight, grown to the largest program. Before one grows,
// its bytes are compared with what the machine and its cgroup have left, since overcommitted memory would end the
// process instead of the call.
#pragma once
#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"

namespace dagrt {

struct CudaStream;  // base/cuda_stream.h
struct Plan;        // runtime/plan.h
struct Step;

/// Of a device that is not the host. In Python a DeviceError and a MemoryLimitError both.
struct DeviceMemoryError : Error {
  explicit DeviceMemoryError(const std::string& message) : Error(ErrorKind::memory_limit, message) {}
};

/// What a run's steps are given to where a device records them: lanes, which run at the same time, each in order. The first
/// is the queue's own; all others begin behind a mark of it and end before one that it awaits.
class Recording {
 public:
  virtual ~Recording() = default;
  virtual CudaStream& lane(int32_t i) = 0;
  virtual void mark(int32_t lane, int32_t number) = 0;      // stands for all that the lane has been given
  virtual void await(int32_t lane, int32_t number) = 0;     // comes before all that the lane will be given
  virtual void at(const Plan& plan, const Step& step) = 0;  // whose work is given from now on, for errors; both outlive the queue
  /// Where nothing is recorded: a time, to be had from Queue::times when the steps are done.
  virtual int64_t stamp() = 0;
};

/// Work in order. Nothing may be assumed done before `wait`.
class Queue {
 public:
  virtual ~Queue() = default;
  virtual void copy_in(void* device, const void* host, size_t bytes) = 0;   // reads it before it returns; if pinned, by `wait`
  virtual void copy_out(void* host, const void* device, size_t bytes) = 0;  // host memory is written by `wait`
  virtual void run(std::function<void()> work) = 0;                         // with the device's memory in reach
  virtual void wait() = 0;
  /// Behind an error: waits for all that was given on any way, which may still read and write memory; what fails is not told.
  virtual void abandon() noexcept;
  virtual bool done() { return true; }  // whether `wait` would return at once; known where the device records
  /// Writes to the device's memory beside what runs in this queue.
  virtual void write_beside(void* device, int32_t value);
  // On devices that record, ways beside the queue's own order: copies in and out pass while steps run. Host memory is
  // Device::allocate_host's, read and written late. A flag stands for all that its way was given before it.
  enum class Way : uint8_t { steps, in, out };
  virtual void move(Way way, void* to, const void* from, size_t bytes);
  virtual void set_flag(Way way, int flag);
  virtual void await_flag(Way way, int flag);  // before all that the way will be given
  virtual bool reached(int flag);
  virtual void wait_for(int flag);
  /// On devices that record: `record` gives a run's steps to what it is handed. It is called once for each `key`
  /// (the memory that the steps name), and what it gave is run again thereafter.
  virtual void replay(const void* key, const std::function<void(Recording&)>& record);
  /// There too: runs the steps once, one after another, and waits for them; nothing is recorded.
  virtual void perform(const std::function<void(Recording&)>& steps);
  virtual std::vector<int64_t> times();  // nanoseconds, of the stamps of the last `perform`
};

class Device;

/// An arena on loan from its pool.
class Arena {
 public:
  Arena() = default;
  Arena(Arena&& o) noexcept { swap(o); }
  Arena& operator=(Arena&& o) noexcept {
    swap(o);
    return *this;
  }
  ~Arena();
  char* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  friend class ArenaPool;
  void swap(Arena& o) {
    std::swap(device_, o.device_);
    std::swap(data_, o.data_);
    std::swap(bytes_, o.bytes_);
  }
  Device* device_ = nullptr;
  char* data_ = nullptr;
  size_t bytes_ = 0;
};

/// Host memory of a device's, grown where more is wanted.
class Staging {
 public:
  Staging() = default;
  Staging(Staging&& o) noexcept : device_(o.device_), data_(std::exchange(o.data_, nullptr)), bytes_(o.bytes_) {}
  Staging& operator=(Staging&&) = delete;
  ~Staging();
  char* take(Device& device, size_t bytes);

 private:
  Device* device_ = nullptr;
  char* data_ = nullptr;
  size_t bytes_ = 0;
};

class ArenaPool {
 public:
  /// At least `bytes`, 64-byte aligned. MemoryLimitError naming the bytes needed and available.
  Arena take(Device& device, size_t bytes);
  size_t bytes() const { return total_.load(std::memory_order_relaxed); }
  /// Releases the arenas that no run uses.
  void trim(Device& device);

 private:
  friend class Arena;
  struct Block {
    char* data;
    size_t bytes;
  };
  void give(char* data, size_t bytes);
  std::mutex mutex_;
  std::vector<Block> idle_;
  std::atomic<size_t> total_{0};
};

class Device {
 public:
  virtual ~Device() = default;
  virtual const char* name() const = 0;
  virtual bool is_host() const = 0;  // its memory is the host's: inputs are borrowed, outputs written in place
  /// 64-byte aligned; null where there is no memory left.
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* p, size_t bytes) = 0;
  /// Host memory that the device copies from and to by itself; null where there is none.
  virtual void* allocate_host(size_t bytes) = 0;
  virtual void release_host(void* p) = 0;
  virtual std::unique_ptr<Queue> queue() = 0;
  virtual bool records() const { return false; }          // steps are given to Queue::replay, not to Queue::run
  virtual bool multiplies_bf16() const { return false; }  // has products of bfloat16 (Op::cuda_algorithm_of)
  /// Bytes that may still be allocated; `why` names the limit.
  virtual size_t available(const char** why) const = 0;
  /// MemoryLimitError where `bytes` more, for `what`, would exceed what is available; of another device than the host
  /// it is a DeviceError too.
  void check_available(size_t bytes, const std::string& what) const;
  /// `allocate`, or the same error. Arenas that no run uses make room first.
  void* take_memory(size_t bytes, const std::string& what);

  ArenaPool arenas;
};

Device& cpu_device();
/// "cpu", or "cuda:0" and so on ("cuda" is "cuda:0"). DeviceError where there is none of that name.
Device& find_device(const std::string& name);
/// Where functions run unless told otherwise: DAGRT_DEVICE, else the first GPU that this build and machine have, else the CPU.
Device& default_device();
/// All devices of this process, the CPU first.
std::vector<std::string> device_names();

/// Memory that the machine and the process's cgroup have left, and which of them limits it.
size_t available_host_memory(const char** why);

}  // namespace dagrt
