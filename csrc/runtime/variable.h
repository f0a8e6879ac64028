// State that outlives a run: weights, moving statistics, optimiser slots, counters, random states.
//
// Locks: variables touched by one function form a group with one lock, shared for runs that only read and exclusive
// for runs that assign; building a function over two groups joins them. So a run takes one lock, and two functions
// over disjoint variables never wait for each other. Waiting writers go before new readers: a model that is served
// without pause can still be trained.
//
// A variable lives on one device at a time. Made on the CPU, it goes to where the next run needs it.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "ir/type.h"
#include "runtime/device.h"

namespace dagrt {

/// A readers-writer lock in which a waiting writer holds back new readers.
class SharedLock {
 public:
  void lock();
  void unlock();
  void lock_shared();
  void unlock_shared();
  /// From exclusive to shared, letting no writer in between.
  void share();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int readers_ = 0, writers_waiting_ = 0;
  bool writer_ = false;
};

/// A node of a union-find forest: the root's lock is the group's.
struct VariableGroup {
  SharedLock lock;
  std::atomic<VariableGroup*> parent{nullptr};  // set once, with both locks held exclusively
  std::shared_ptr<VariableGroup> keeps_parent;
};

class Variable {
 public:
  /// Copies `data` (C-contiguous, host memory); null: zeros.
  Variable(std::string name, DType dtype, std::vector<int64_t> shape, const void* data, Device& device = cpu_device());
  ~Variable();
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

  const std::string& name() const { return name_; }
  DType dtype() const { return dtype_; }
  const std::vector<int64_t>& shape() const { return shape_; }
  size_t bytes() const { return bytes_; }
  Device& device() const { return *device_.load(std::memory_order_acquire); }
  /// Raised by every write.
  uint64_t version() const { return version_.load(std::memory_order_acquire); }

  void read(void* host) const;    // a copy under the lock
  void assign(const void* host);  // a copy under the lock
  bool has_type(const TensorType& t) const;

  // For runs, which hold the group's lock.
  void* data() const { return data_; }
  /// To another device, under the exclusive lock. An Error means that it stayed where it was.
  void move_to(Device& device);
  uint64_t moves() const { return moves_.load(std::memory_order_relaxed); }  // how often its memory has changed
  void raise_version() { version_.fetch_add(1, std::memory_order_acq_rel); }
  const std::shared_ptr<VariableGroup>& group() const { return group_; }

 private:
  std::string name_;
  DType dtype_;
  std::vector<int64_t> shape_;
  size_t bytes_;
  std::atomic<Device*> device_;
  void* data_ = nullptr;
  std::atomic<uint64_t> version_{0}, moves_{0};
  std::shared_ptr<VariableGroup> group_;
};

using VariableRef = std::shared_ptr<Variable>;

/// Puts all of them into one group.
void join_groups(const std::vector<VariableRef>& variables);

/// Holds the lock of a group; nothing where there is no variable.
class GroupLock {
 public:
  GroupLock(const Variable* any, bool exclusive);
  ~GroupLock();
  GroupLock(const GroupLock&) = delete;
  GroupLock& operator=(const GroupLock&) = delete;

  /// From shared to exclusive: others may have written in between.
  void make_exclusive();
  /// Back to shared: no other writes in between.
  void make_shared();

 private:
  void take();
  const Variable* any_;
  VariableGroup* group_ = nullptr;
  bool exclusive_;
};

/// How often variables of this process have gone to another device.
uint64_t variable_moves();

/// Bytes held by all variables of the process.
size_t variable_bytes_in_use();

}  // namespace dagrt
