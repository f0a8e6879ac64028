#include "runtime/variable.h"

#include <cstring>

#include "base/error.h"

namespace dagrt {
namespace {

std::atomic<size_t> bytes_in_use{0};
std::atomic<uint64_t> moves_in_all{0};

VariableGroup* root_of(VariableGroup* g) {
  while (VariableGroup* up = g->parent.load(std::memory_order_acquire)) g = up;
  return g;
}

}  // namespace

void SharedLock::lock() {
  std::unique_lock<std::mutex> lock(mutex_);
  writers_waiting_++;
  changed_.wait(lock, [&] { return !writer_ && readers_ == 0; });
  writers_waiting_--;
  writer_ = true;
}

void SharedLock::unlock() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    writer_ = false;
  }
  changed_.notify_all();
}

void SharedLock::share() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    writer_ = false;
    readers_++;
  }
  changed_.notify_all();
}

void SharedLock::lock_shared() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return !writer_ && writers_waiting_ == 0; });
  readers_++;
}

void SharedLock::unlock_shared() {
  bool last;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    last = --readers_ == 0 && writers_waiting_ > 0;
  }
  if (last) changed_.notify_all();
}

Variable::Variable(std::string name, DType dtype, std::vector<int64_t> shape, const void* data, Device& device)
    : name_(std::move(name)),
      dtype_(dtype),
      shape_(std::move(shape)),
      device_(&device),
      group_(std::make_shared<VariableGroup>()) {
  int64_t n = int64_t(size_of(dtype_));
  for (int64_t d : shape_)
    if (d < 0 || __builtin_mul_overflow(n, d, &n))
      fail(ErrorKind::shape, "variable '", name_, "': its shape does not fit into memory");
  bytes_ = size_t(n);
  data_ = device.take_memory(bytes_, "variable '" + name_ + "'");
  bytes_in_use += bytes_;
  if (device.is_host()) {
    if (data)
      std::memcpy(data_, data, bytes_);
    else
      std::memset(data_, 0, bytes_);
    return;
  }
  auto queue = device.queue();
  std::vector<char> zeros(data ? 0 : bytes_);
  queue->copy_in(data_, data ? data : zeros.data(), bytes_);
  queue->wait();
}

Variable::~Variable() {
  device().release(data_, bytes_ ? bytes_ : 1);
  bytes_in_use -= bytes_;
}

void Variable::read(void* host) const {
  GroupLock lock(this, false);
  if (device().is_host()) {
    std::memcpy(host, data_, bytes_);
    return;
  }
  auto queue = device().queue();
  queue->copy_out(host, data_, bytes_);
  queue->wait();
}

void Variable::assign(const void* host) {
  GroupLock lock(this, true);
  if (device().is_host()) {
    std::memcpy(data_, host, bytes_);
  } else {
    auto queue = device().queue();
    queue->copy_in(data_, host, bytes_);
    queue->wait();
  }
  raise_version();
}

void Variable::move_to(Device& to) {
  Device& from = device();
  if (&from == &to) return;
  void* data = to.take_memory(bytes_, "variable '" + name_ + "'");
  try {
    std::vector<char> between(from.is_host() || to.is_host() ? 0 : bytes_);
    const void* host = from.is_host() ? data_ : to.is_host() ? data : between.data();
    if (!from.is_host()) {
      auto queue = from.queue();
      queue->copy_out(const_cast<void*>(host), data_, bytes_);
      queue->wait();
    }
    if (!to.is_host()) {
      auto queue = to.queue();
      queue->copy_in(data, host, bytes_);
      queue->wait();
    }
  } catch (...) {
    to.release(data, bytes_ ? bytes_ : 1);
    throw;
  }
  from.release(data_, bytes_ ? bytes_ : 1);
  data_ = data;
  device_.store(&to, std::memory_order_release);
  moves_.fetch_add(1, std::memory_order_relaxed);
  moves_in_all.fetch_add(1, std::memory_order_relaxed);
}

bool Variable::has_type(const TensorType& t) const {
  if (t.dtype != dtype_ || t.shape.size() != shape_.size()) return false;
  for (size_t i = 0; i < shape_.size(); i++)
    if (!t.shape[i].is(shape_[i])) return false;
  return true;
}

GroupLock::GroupLock(const Variable* any, bool exclusive) : any_(any), exclusive_(exclusive) { take(); }

void GroupLock::take() {
  if (!any_) return;
  for (;;) {
    VariableGroup* g = root_of(any_->group().get());
    exclusive_ ? g->lock.lock() : g->lock.lock_shared();
    if (!g->parent.load(std::memory_order_acquire)) {  // still the root: it cannot be joined while it is held
      group_ = g;
      return;
    }
    exclusive_ ? g->lock.unlock() : g->lock.unlock_shared();
  }
}

void GroupLock::make_exclusive() {
  if (!group_ || exclusive_) return;
  group_->lock.unlock_shared();
  group_ = nullptr;
  exclusive_ = true;
  take();
}

void GroupLock::make_shared() {
  if (!group_ || !exclusive_) return;
  group_->lock.share();
  exclusive_ = false;
}

GroupLock::~GroupLock() {
  if (!group_) return;
  exclusive_ ? group_->lock.unlock() : group_->lock.unlock_shared();
}

void join_groups(const std::vector<VariableRef>& variables) {
  static std::mutex joining;  // so that no two joins wait for each other's locks
  std::lock_guard<std::mutex> one(joining);
  auto shared_root = [](const VariableRef& v) {
    std::shared_ptr<VariableGroup> g = v->group();
    while (g->keeps_parent) g = g->keeps_parent;
    return g;
  };
  for (size_t i = 1; i < variables.size(); i++) {
    std::shared_ptr<VariableGroup> a = shared_root(variables[0]), b = shared_root(variables[i]);
    if (a == b) continue;
    b->lock.lock();  // waits for the runs in flight
    a->lock.lock();
    b->keeps_parent = a;
    b->parent.store(a.get(), std::memory_order_release);
    a->lock.unlock();
    b->lock.unlock();
  }
}

uint64_t variable_moves() { return moves_in_all.load(std::memory_order_relaxed); }

size_t variable_bytes_in_use() { return bytes_in_use.load(std::memory_order_relaxed); }

}  // namespace dagrt
