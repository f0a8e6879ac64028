// A whole LSTM layer, forward and backward, float32.
//   z = x_t W + h R + b, gates i f g o side by side; i, f, o = sigmoid, g = tanh; c = f c + i g; h = o tanh(c)
//
// The forward pass reads its weights packed: for every V units (V: the instruction set's vector) a panel with the four
// gates of those units side by side, [4][V] of the bias, then [C][4][V] of W for each panel, then [U][4][V] of R. What is
// left of the units has a panel of V / 2 or V / 4, or both, zero behind U: their four gates are two vectors, or one. The
// weights are scaled by -log2(e), for g by 2 log2(e), so that the gates are made of 2^z.
#pragma once
#include "kernels/kernel.h"

namespace dagrt {

struct LstmArgs {
  const float* x = nullptr;          // [B,T,C], rows ldx apart
  const float* kernel = nullptr;     // [C,4U]; read by lstm_pack and lstm_grad
  const float* recurrent = nullptr;  // [U,4U]
  const float* bias = nullptr;       // [4U]; null: 0
  float* packed = nullptr;           // [C + U + 1, 4 up4(U)]: written by lstm_pack, read by lstm
  const void* ids = nullptr;         // [B,T], int32 or (wide) int64: rows of `table`, which stands for x W + b
  bool wide = false;
  const float* table = nullptr;  // [N, 4 up4(U)] in the order of a panel's z; made by lstm_pack_table: y from N = B rows x
  const float* h0 = nullptr;     // [B,U]; null: 0
  const float* c0 = nullptr;
  const uint8_t* mask = nullptr;  // [B,T]; 0: the step is left out; null: none is
  float* y = nullptr;             // [B,T,U], in processing order, rows ldy apart; null: not wanted
  float* h = nullptr;             // [B,U]: final states; null: not wanted
  float* c = nullptr;
  float* gates = nullptr;   // [T,B,4U], processing order: after their functions; null: not wanted
  float* cells = nullptr;   // [T,B,U]
  float* hidden = nullptr;  // [T,B,U]
  // Backward: reads gates, cells, hidden and the gradients of y, h, c (null: zero), writes the others (null: not wanted).
  const float* dy = nullptr;  // rows lddy apart
  const float* dh = nullptr;
  const float* dc = nullptr;
  float* dx = nullptr;  // [B,T,C]
  float* dkernel = nullptr;
  float* drecurrent = nullptr;
  float* dbias = nullptr;
  float* dh0 = nullptr;
  float* dc0 = nullptr;
  int64_t B = 0, T = 0, C = 0, U = 0, ldx = 0, ldy = 0, lddy = 0;
  bool go_backwards = false, zero_output_for_mask = false;
  char* workspace = nullptr;
};

DAGRT_CPU_KERNEL(lstm_pack, LstmArgs)
DAGRT_CPU_KERNEL(lstm_pack_table, LstmArgs)
DAGRT_KERNEL(lstm, LstmArgs)
DAGRT_KERNEL(lstm_grad, LstmArgs)

/// Columns of the packed weights: four gates of units in quarters of any instruction set's vector.
inline int64_t lstm_packed_columns(int64_t U) { return (U + 3) / 4 * 16; }
inline int64_t lstm_packed_size(int64_t C, int64_t U) { return (C + U + 1) * lstm_packed_columns(U); }

struct LstmMemory {
  size_t workspace = 0, scratch = 0;
};
LstmMemory lstm_memory(int64_t B, int64_t T, int64_t U);
/// Threads that the forward pass is about to be worth: its blocks, or the parts of a gang that gain clearly.
int64_t lstm_units(int64_t B, int64_t T, int64_t U);
LstmMemory lstm_grad_memory(int64_t B, int64_t T, int64_t C, int64_t U);

/// How the forward pass is cut up: a function of the sizes alone.
struct LstmPlan {
  int64_t rows = 1;    // of the batch, at most, that one thread takes through time
  int64_t blocks = 1;  // of such rows
  int64_t steps = 1;   // whose inputs are projected at once: their z stay in L2
};
inline constexpr int lstm_most_rows = 12, lstm_most_parts = 8;
LstmPlan lstm_plan(int64_t B, int64_t T, int64_t U);
/// A batch of more than three is cut in halves, so that two threads finish together, and these in blocks of `rows`.
struct LstmBlock {
  int64_t begin, rows;
};
inline LstmBlock lstm_block(const LstmPlan& p, int64_t B, int64_t i) {
  if (p.blocks == 1) return {0, B};
  const int64_t half = (B + 1) / 2, first = (half + p.rows - 1) / p.rows;  // blocks of the first half of the rows
  const int64_t begin = i < first ? i * p.rows : half + (i - first) * p.rows, end = i < first ? half : B;
  return {begin, end - begin < p.rows ? end - begin : p.rows};
}

/// Workspace of either direction on CUDA devices: z or dz of all steps, the states, counters.
inline size_t lstm_device_workspace(int64_t B, int64_t T, int64_t U) {
  return size_t(T * B * 4 * U + 4 * B * U) * 4 + size_t((B + 15) / 16) * 4 + 64;
}

/// How the backward pass is cut up: a function of the sizes alone.
struct LstmGradPlan {
  LstmPlan batch;      // its blocks of rows go through time together
  int64_t steps = 1;   // whose dz are kept until their products are taken
  int64_t groups = 0;  // of blocks: each sums its own gradients of the weights
};
LstmGradPlan lstm_grad_plan(int64_t B, int64_t T, int64_t U);
/// Lines of memory, at most, that a step back of so many rows asks for: gates, cells and hidden of the step before, x and dx.
inline int64_t lstm_grad_lines(int64_t rows, int64_t C, int64_t U) { return rows * (6 * U + 2 * (C + 15)) / 16 + 3; }
/// Distance of rows that are read down a column: an odd number of cache lines, since a power of two crowds a few sets.
inline int64_t lstm_odd_row(int64_t n) { return (n + 31) / 32 * 32 + 16; }

}  // namespace dagrt
