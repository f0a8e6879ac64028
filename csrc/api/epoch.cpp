#include "api/epoch.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <system_error>

#include "base/error.h"
#include "runtime/program.h"

namespace dagrt {
namespace {

using Clock = std::chrono::steady_clock;
// Batches of so many bytes are worth handing to another thread: some 20 us of copying.
constexpr int64_t ahead_bytes = 128 << 10;
constexpr auto poll_interval = std::chrono::milliseconds(50);

int64_t row_bytes(const View& v) {
  int64_t n = int64_t(size_of(v.dtype));
  for (int i = 1; i < v.rank; i++) n *= v.dims[i];
  return n;
}

View rows_of_view(const View& v, int64_t first, int64_t rows) {
  View part = v;
  part.data = v.as<char>() + first * row_bytes(v);
  part.dims[0] = rows;
  if (v.rank == 1) part.ld = rows;
  return part;
}

bool has_nan(const Tensor& t) {
  if (t.dtype != DType::float32) return false;
  const float* x = t.as<float>();
  return std::any_of(x, x + t.bytes() / sizeof(float), [](float f) { return std::isnan(f); });
}

}  // namespace

Epoch::Epoch(std::shared_ptr<const Callable> function, std::vector<View> arrays, std::vector<int64_t> starts, int64_t batch,
             std::vector<int64_t> order, std::vector<View> into)
    : function_(std::move(function)),
      arrays_(std::move(arrays)),
      into_(std::move(into)),
      starts_(std::move(starts)),
      order_(std::move(order)),
      batch_(batch) {
  for (const View& a : arrays_) {
    if (a.rank == 0) fail(ErrorKind::shape, "epoch: an array has no axis of rows");
    if (&a != &arrays_.front() && a.dims[0] != arrays_.front().dims[0])
      fail(ErrorKind::shape, "epoch: arrays have ", arrays_.front().dims[0], " and ", a.dims[0], " rows");
  }
  int64_t held = arrays_.empty() ? 0 : arrays_.front().dims[0];
  rows_ = order_.empty() ? held : int64_t(order_.size());
  auto outside = [](const std::vector<int64_t>& list, int64_t end) {
    return std::any_of(list.begin(), list.end(), [&](int64_t i) { return i < 0 || i >= end; });
  };
  if (arrays_.empty() || batch_ < 1 || outside(starts_, rows_) || outside(order_, held))
    fail(ErrorKind::shape, "epoch: batches of ", batch_, " rows reach outside of the ", held, " rows that there are");
  if (order_.empty()) return;
  int64_t bytes = 0;
  for (std::vector<Tensor>& buffer : staged_)
    for (const View& a : arrays_) {
      std::vector<int64_t> shape(a.dims, a.dims + a.rank);
      shape[0] = std::min(batch_, rows_);
      buffer.push_back(Tensor::empty(a.dtype, shape));
      bytes += int64_t(buffer.back().bytes());
    }
  if (bytes >= 2 * ahead_bytes && starts_.size() > 1) {
    owner_ = int(getpid());
    try {
      worker_ = std::thread([this] { gather_ahead(); });
    } catch (const std::system_error&) {  // no thread is to be had: rows are gathered in between
    }
  }
}

Epoch::~Epoch() {
  if (!worker_.joinable()) return;
  if (owner_ != int(getpid())) {
    worker_.detach();
    return;
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  worker_.join();
}

int64_t Epoch::rows_of(int64_t step) const { return std::min(batch_, rows_ - starts_[size_t(step)]); }

void Epoch::gather(int64_t step, size_t buffer) {
  const int64_t first = starts_[size_t(step)], rows = rows_of(step);
  for (size_t k = 0; k < arrays_.size(); k++) {
    const size_t bytes = size_t(row_bytes(arrays_[k]));
    const char* from = arrays_[k].as<char>();
    char* to = staged_[buffer][k].as<char>();
    for (int64_t i = 0; i < rows && bytes; i++)
      std::memcpy(to + size_t(i) * bytes, from + size_t(order_[size_t(first + i)]) * bytes, bytes);
  }
}

/// The worker: batch k goes to buffer k % 2 once the step that ran from it is finished.
void Epoch::gather_ahead() {
  for (int64_t k = 0; k < steps(); k++) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [&] { return stop_ || k < finished_ + 2; });
      if (stop_) return;
    }
    gather(k, size_t(k % 2));
    {
      std::lock_guard<std::mutex> lock(mutex_);
      gathered_ = k + 1;
    }
    changed_.notify_all();
  }
}

/// The step's inputs and the memory of its outputs.
const Program& Epoch::prepare(int64_t step, std::vector<View>& in, std::vector<View>& out) {
  const int64_t rows = rows_of(step), first = starts_[size_t(step)];
  const size_t buffer = size_t(step % 2);
  if (!order_.empty()) {
    if (worker_.joinable() && owner_ == int(getpid())) {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [&] { return gathered_ > step; });
    } else {
      gather(step, buffer);
    }
  }
  in.clear();
  for (size_t k = 0; k < arrays_.size(); k++)
    in.push_back(order_.empty() ? rows_of_view(arrays_[k], first, rows) : rows_of_view(staged_[buffer][k].view(), 0, rows));
  if (!program_ || !program_->fits(in.data(), in.size())) program_ = function_->program(in.data(), in.size());
  const std::vector<View>& types = program_->outputs();
  out.clear();
  if (!into_.empty()) {
    for (size_t k = 0; k < types.size(); k++) {
      View to = k < into_.size() ? into_[k] : View{};
      bool fits = to.rank == types[k].rank && to.rank > 0 && to.dtype == types[k].dtype && types[k].dims[0] == rows &&
                  std::equal(to.dims + 1, to.dims + to.rank, types[k].dims + 1) && first + rows <= to.dims[0];
      if (!fits) fail(ErrorKind::shape, "epoch: output ", k, " does not fit the memory for its rows");
      out.push_back(rows_of_view(to, first, rows));
    }
    return *program_;
  }
  bool same = outputs_.size() == types.size();
  for (size_t k = 0; same && k < types.size(); k++)
    same = outputs_[k].shape == std::vector<int64_t>(types[k].dims, types[k].dims + types[k].rank);
  if (!same) {
    outputs_.clear();
    for (const View& t : types) outputs_.push_back(Tensor::empty(t.dtype, std::vector<int64_t>(t.dims, t.dims + t.rank)));
  }
  for (const Tensor& t : outputs_) out.push_back(t.view());
  return *program_;
}

/// The steps' buffers may be filled again.
void Epoch::done_with(int64_t batches) {
  if (!worker_.joinable() || owner_ != int(getpid())) return;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    finished_ = batches;
  }
  changed_.notify_all();
}

/// What `run` was asked and has come to.
struct Epoch::Course {
  const double seconds;
  const int64_t watched;
  const CancelPoll poll;
  const Clock::time_point start = Clock::now();
  Clock::time_point last_poll = start;
  Progress p = {};
};

/// Counts the step that has just ended; whether the time is up.
bool Epoch::step_ended(Course& c) {
  next_++;
  Progress& p = c.p;
  if (c.watched >= 0 && p.nan_at < 0 && c.watched < int64_t(outputs_.size()) && has_nan(outputs_[size_t(c.watched)]))
    p.nan_at = p.done;
  p.done++;
  const auto now = Clock::now();
  if (std::chrono::duration<double>(now - c.start).count() >= c.seconds) return true;
  if (c.poll && now - c.last_poll >= poll_interval) {  // short steps do not ask themselves
    c.last_poll = now;
    if (c.poll()) fail(ErrorKind::cancelled, "interrupted between two steps; the variables are as after the last of them");
  }
  return false;
}

/// As `run`, from a step whose inputs and outputs are there. A step's inputs are on their way while the one before is at work,
/// where `most` allows more than one.
void Epoch::run_ahead(std::vector<View>& in, std::vector<View>& out, int64_t most, Course& course) {
  const int64_t end = next_ + std::min(most, steps() - next_);
  std::vector<View> outs[Runs::most];
  outs[next_ % Runs::most] = out;
  bool late = false;
  while (next_ < end && !late) {
    const std::shared_ptr<const Program> program = program_;
    const int64_t rows = rows_of(next_);
    Runs runs(*program, course.poll);
    int64_t started = next_;
    auto start_one = [&] {
      runs.start(in.data());
      done_with(++started);
    };
    auto another = [&] {  // step of this program
      return started < end && !late && rows_of(started) == rows &&
             &prepare(started, in, outs[started % Runs::most]) == program.get();
    };
    start_one();
    while (runs.in_flight()) {
      if (runs.in_flight() < Runs::most && another()) start_one();
      runs.finish(outs[next_ % Runs::most].data());
      if (step_ended(course)) late = true;
    }
    if (next_ < end && !late) prepare(next_, in, outs[next_ % Runs::most]);
  }
}

Epoch::Progress Epoch::run(int64_t most, double seconds, int64_t watched, CancelPoll poll) {
  Course course{seconds, watched, poll};
  std::vector<View> in, out;
  while (course.p.done < most && next_ < steps()) {
    const Program& program = prepare(next_, in, out);
    if (Runs::possible(program)) {
      run_ahead(in, out, most, course);
      break;
    }
    program.run(in.data(), out.data(), poll);
    done_with(next_ + 1);
    if (step_ended(course)) break;
  }
  return course.p;
}

}  // namespace dagrt
