// Memory of the LSTM kernels, and how the batch is cut: functions of the shapes alone.
#include <algorithm>

#include "kernels/lstm.h"

namespace dagrt {
namespace {

constexpr int64_t z_bytes = 144 << 10;  // beside the recurrent weights in L2

size_t up32(int64_t n) { return size_t((n + 31) / 32 * 32); }

}  // namespace

LstmPlan lstm_plan(int64_t B, int64_t T, int64_t U) {
  LstmPlan p;
  if (B <= 3) {
    p.rows = std::max<int64_t>(B, 1);
  } else {  // whole tiles of every instruction set; more where the weights come from beyond L2
    const int64_t half = (B + 1) / 2;
    p.rows = std::min<int64_t>(half, 16 * U * U > 512 << 10 ? lstm_most_rows : 6);
    p.blocks = (half + p.rows - 1) / p.rows + (B - half + p.rows - 1) / p.rows;
  }
  p.steps = std::clamp<int64_t>(z_bytes / (4 * lstm_packed_columns(U) * p.rows + 1) / 6 * 6, 6, 48);
  p.steps = std::max<int64_t>(1, std::min(T, p.steps));
  return p;
}

LstmMemory lstm_memory(int64_t B, int64_t T, int64_t U) {
  LstmPlan p = lstm_plan(B, T, U);
  const int64_t columns = lstm_packed_columns(U), hidden = 2 * p.rows * ((U + 15) / 16 * 16);
  const int64_t cells = 2 * ((p.rows + 3) / 4 * 4) * (columns / 4), sums = p.rows * columns * (1 + p.steps);  // z among them
  size_t bytes = size_t(hidden + cells + sums) * 4 + 64;
  LstmMemory m;
  (p.blocks == 1 ? m.workspace : m.scratch) = bytes;
  m.workspace += 64 * lstm_most_parts + 64;
  return m;
}

int64_t lstm_units(int64_t B, int64_t T, int64_t U) {
  const int64_t blocks = lstm_plan(B, T, U).blocks;
  return blocks > 1 ? blocks : U >= 96 ? 2 : 1;  // below, meeting after each step costs too much
}

LstmGradPlan lstm_grad_plan(int64_t B, int64_t T, int64_t U) {
  LstmGradPlan p;
  p.batch = lstm_plan(B, T, U);
  p.steps = std::max<int64_t>(1, std::min(T, 128 / p.batch.rows));
  p.groups = B ? std::min<int64_t>(16, p.batch.blocks) : 0;
  return p;
}

LstmMemory lstm_grad_memory(int64_t B, int64_t T, int64_t C, int64_t U) {
  LstmGradPlan p = lstm_grad_plan(B, T, U);
  size_t rows = size_t(p.batch.rows), many = rows * size_t(p.steps), u = size_t(U), c = size_t(C);
  size_t sums = p.groups > 1 ? size_t(p.groups) * (c + u + 1) * 4 * u : 0;
  return {(4 * u * (up32(U) + up32(C)) + sums) * 4 + 128,
          (rows * up32(U) * 3 + many * size_t(lstm_odd_row(4 * U) + lstm_odd_row(C) + lstm_odd_row(U))) * 4 +
              size_t(lstm_grad_lines(int64_t(rows), C, U)) * sizeof(void*) + 512};
}

}  // namespace dagrt
