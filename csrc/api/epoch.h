// Many steps of one function over rows of arrays in memory, as `fit`, `evaluate` and `predict` take them.
//
// Batch k is the rows at positions starts[k] .. starts[k] + batch - 1 (as far as there are any) of the order, or of the
// arrays themselves where there is no order: then steps borrow their memory. Otherwise rows are gathered: large batches
// by a thread of the epoch's own, into one of two buffers while the step before runs from the other. On a GPU steps are
// started before the one before them is finished (runtime/program.h: Runs).
#pragma once
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "api/dagrt.h"

namespace dagrt {

class Epoch {
 public:
  /// `arrays`: the function's inputs with all rows, C-contiguous; they must outlive the epoch. `order`: row numbers, or
  /// empty. `into`: memory for the rows of every output, or empty: then outputs() has the last step's.
  /// ShapeError where starts, order and arrays do not fit each other.
  Epoch(std::shared_ptr<const Callable> function, std::vector<View> arrays, std::vector<int64_t> starts, int64_t batch,
        std::vector<int64_t> order, std::vector<View> into = {});
  ~Epoch();
  Epoch(const Epoch&) = delete;
  Epoch& operator=(const Epoch&) = delete;

  struct Progress {
    int64_t done = 0;     // steps
    int64_t nan_at = -1;  // the first of them, counted from 0, in which the watched output had a NaN
  };
  /// Runs steps until `most` are done, `seconds` have passed or none is left. `watched`: a float32 output, or -1.
  /// An Error from a step leaves the variables as after the one before it.
  Progress run(int64_t most, double seconds, int64_t watched, CancelPoll poll);

  int64_t steps() const { return int64_t(starts_.size()); }
  const std::vector<Tensor>& outputs() const { return outputs_; }

 private:
  int64_t rows_of(int64_t step) const;
  void gather(int64_t step, size_t buffer);
  void gather_ahead();
  struct Course;
  bool step_ended(Course& course);
  void run_ahead(std::vector<View>& in, std::vector<View>& out, int64_t most, Course& course);
  void done_with(int64_t batches);
  const Program& prepare(int64_t step, std::vector<View>& in, std::vector<View>& out);

  std::shared_ptr<const Callable> function_;
  std::vector<View> arrays_, into_;
  std::vector<int64_t> starts_, order_;
  int64_t batch_, rows_ = 0, next_ = 0;
  std::shared_ptr<const Program> program_;
  std::vector<Tensor> outputs_;
  std::vector<Tensor> staged_[2];  // by buffer, then array

  std::thread worker_;
  int owner_ = 0;  // the process: a forked child has no worker
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t gathered_ = 0, finished_ = 0;  // batches
  bool stop_ = false;
};

}  // namespace dagrt
