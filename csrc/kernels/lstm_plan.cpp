// Memory of the LSTM kernels, and how the batch is cut: functions of the shapes alone.
#include <algorithm>

#include "kernels/lstm.h"
#include "kernels/matmul.h"

namespace dagrt {
namespace {

size_t up32(int64_t n) { return size_t((n + 31) / 32 * 32); }

}  // namespace

int64_t lstm_rows(int64_t B) { return B <= 4 ? 1 : B <= 16 ? 4 : 8; }

LstmMemory lstm_memory(int64_t B, int64_t, int64_t C, int64_t U) {
  size_t rows = size_t(lstm_rows(B)), u = size_t(U), c = size_t(C);
  return {(c + u) * up32(4 * U) * 4 + 128, (rows * lstm_steps * (c + 4 * u) + rows * u * 3) * 4 + 512};
}

LstmMemory lstm_grad_memory(int64_t B, int64_t T, int64_t C, int64_t U) {
  size_t rows = size_t(lstm_rows(B));
  size_t steps = size_t(B * T);
  size_t products = std::max({matmul_plan(1, C, 4 * U, B * T, true).workspace, matmul_plan(1, U, 4 * U, B * (T - 1), true).workspace,
                              matmul_plan(1, U, 4 * U, B, true).workspace, matmul_plan(1, B * T, C, 4 * U, false).workspace});
  size_t floats = size_t(4 * U) * up32(U) + steps * size_t(4 * U + 2 * C) + size_t(U * 4 * U);
  return {floats * 4 + products + 1024, rows * size_t(U) * 5 * 4 + 512};
}

}  // namespace dagrt
