// Memory of the LSTM kernels, and how the batch is cut: functions of the shapes alone.
#include <algorithm>

#include "kernels/lstm.h"

namespace dagrt {
namespace {

size_t up32(int64_t n) { return size_t((n + 31) / 32 * 32); }

}  // namespace

int64_t lstm_rows(int64_t B) { return B <= 1 ? 1 : B <= 4 ? 2 : B <= 16 ? 4 : 8; }

LstmGradPlan lstm_grad_plan(int64_t B, int64_t T) {
  LstmGradPlan p;
  p.rows = lstm_rows(B);
  p.steps = std::max<int64_t>(1, std::min(T, 128 / p.rows));
  p.groups = std::min<int64_t>(16, (B + p.rows - 1) / p.rows);
  return p;
}

LstmMemory lstm_memory(int64_t B, int64_t, int64_t C, int64_t U) {
  size_t rows = size_t(lstm_rows(B)), u = size_t(U), c = size_t(C);
  return {(c + u) * up32(4 * U) * 4 + 128, (rows * lstm_steps * (c + 4 * u) + rows * u * 3) * 4 + 512};
}

LstmMemory lstm_grad_memory(int64_t B, int64_t T, int64_t C, int64_t U) {
  LstmGradPlan p = lstm_grad_plan(B, T);
  size_t depth = size_t(p.rows * p.steps), u = size_t(U), c = size_t(C);
  size_t sums = p.groups > 1 ? size_t(p.groups) * (c + u + 1) * 4 * u : 0;
  return {(4 * u * (up32(U) + up32(C)) + sums) * 4 + 128,
          (size_t(p.rows) * u * 3 + depth * (size_t(lstm_grad_ldz(U)) + c + u)) * 4 + 512};
}

}  // namespace dagrt
