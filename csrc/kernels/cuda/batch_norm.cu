// Batch normalisation.
//
// Statistics: rows are cut into parts of about 64. A block takes 32 channels of a part twice, the second time from cache: the
// mean, then the sum of squares about it. Parts are merged in a fixed tree (Chan, Golub, LeVeque 1983), so that device memory
// is read once and nothing cancels. Then one pass writes y. Backward likewise, with sums of dy and dy (x - mean) rstd.
#include "kernels/batch_norm.h"

#include "kernels/cuda/epilogue.cuh"

namespace dagrt {
namespace {

constexpr int columns = 32, rows_at_once = 8, threads = 256;

/// The sum over the block's rows of a column, for all threads of the column.
DAGRT_DEVICE float over_rows(float v, float (&room)[rows_at_once][columns]) {
  __syncthreads();
  room[threadIdx.y][threadIdx.x] = v;
  __syncthreads();
  float sum = room[0][threadIdx.x];
  for (int k = 1; k < rows_at_once; k++) sum += room[k][threadIdx.x];
  return sum;
}

__global__ void statistics_kernel(Gate gate, BatchNormArgs a, int64_t parts) {
  if (closed(gate)) return;
  SHARED(float, room, [rows_at_once][columns]);
  const int64_t part = blockIdx.x % parts, c = blockIdx.x / parts * columns + threadIdx.x;
  const int64_t from = a.rows * part / parts, to = a.rows * (part + 1) / parts;
  const bool in = c < a.C;
  float sum = 0, squares = 0;
  if (in)
    for (int64_t m = from + threadIdx.y; m < to; m += rows_at_once) sum += a.x[m * a.ldx + c];
  float mean = over_rows(sum, room) / float(to - from);
  if (in)
    for (int64_t m = from + threadIdx.y; m < to; m += rows_at_once) {
      float d = a.x[m * a.ldx + c] - mean;
      squares += d * d;
    }
  squares = over_rows(squares, room);
  if (!in || threadIdx.y) return;
  a.workspace[part * a.C + c] = mean;
  a.workspace[(parts + part) * a.C + c] = squares;
}

/// A warp for each channel.
__global__ void merge_statistics_kernel(Gate gate, BatchNormArgs a, int64_t parts) {
  if (closed(gate)) return;
  const int64_t c = int64_t(blockIdx.x) * (threads / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (c >= a.C) return;  // whole warps
  float n = 0, mean = 0, squares = 0;
  auto merge = [](float& n, float& mean, float& squares, float k, float other, float other_squares) {
    if (k == 0) return;
    float all = n + k, d = other - mean;
    squares += other_squares + d * d * (n * k / all);
    mean += d * (k / all);
    n = all;
  };
  for (int64_t part = lane; part < parts; part += 32)
    merge(n, mean, squares, float(a.rows * (part + 1) / parts - a.rows * part / parts), a.workspace[part * a.C + c],
          a.workspace[(parts + part) * a.C + c]);
  for (int w = 16; w; w /= 2) {
    float k = __shfl_down_sync(all_lanes, n, w), m = __shfl_down_sync(all_lanes, mean, w),
          s = __shfl_down_sync(all_lanes, squares, w);
    if (lane < w) merge(n, mean, squares, k, m, s);
  }
  if (lane) return;
  float variance = squares / float(a.rows);
  a.mean[c] = a.rows ? mean : 0.0f / 0.0f;
  a.variance[c] = variance;
  a.rstd[c] = 1.0f / sqrtf(variance + a.epsilon);
}

__global__ void normalise_kernel(Gate gate, BatchNormArgs a) {
  if (closed(gate)) return;
  for (int64_t i = first_index(); i < a.rows * a.C; i += grid_stride()) {
    int64_t m = i / a.C, c = i % a.C;
    float y = (a.x[m * a.ldx + c] - a.mean[c]) * (a.gamma ? a.rstd[c] * a.gamma[c] : a.rstd[c]);
    a.y[m * a.ldy + c] = a.beta ? y + a.beta[c] : y;
  }
}

__global__ void gradient_sums_kernel(Gate gate, BatchNormArgs a, int64_t parts) {
  if (closed(gate)) return;
  SHARED(float, room, [rows_at_once][columns]);
  const int64_t part = blockIdx.x % parts, c = blockIdx.x / parts * columns + threadIdx.x;
  const int64_t from = a.rows * part / parts, to = a.rows * (part + 1) / parts;
  const bool in = c < a.C;
  float beta = 0, gamma = 0;
  if (in) {
    float mean = a.mean[c], rstd = a.rstd[c];
    for (int64_t m = from + threadIdx.y; m < to; m += rows_at_once) {
      float dy = a.dy[m * a.lddy + c];
      beta += dy;
      gamma += dy * ((a.x[m * a.ldx + c] - mean) * rstd);
    }
  }
  beta = over_rows(beta, room);
  gamma = over_rows(gamma, room);
  if (!in || threadIdx.y) return;
  a.workspace[part * a.C + c] = beta;
  a.workspace[(parts + part) * a.C + c] = gamma;
}

/// The sums end up in the rows behind the parts.
__global__ void merge_gradients_kernel(Gate gate, BatchNormArgs a, int64_t parts) {
  if (closed(gate)) return;
  const int64_t c = int64_t(blockIdx.x) * (threads / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (c >= a.C) return;
  float beta = 0, gamma = 0;
  for (int64_t part = lane; part < parts; part += 32) beta += a.workspace[part * a.C + c], gamma += a.workspace[(parts + part) * a.C + c];
  auto add = [](float p, float q) { return p + q; };
  beta = warp_join(beta, add);
  gamma = warp_join(gamma, add);
  if (lane) return;
  a.workspace[2 * parts * a.C + c] = beta;
  a.workspace[(2 * parts + 1) * a.C + c] = gamma;
  if (a.dbeta) a.dbeta[c] = beta;
  if (a.dgamma) a.dgamma[c] = gamma;
}

__global__ void input_gradient_kernel(Gate gate, BatchNormArgs a, int64_t parts) {
  if (closed(gate)) return;
  const float *beta = a.workspace + 2 * parts * a.C, *gamma = beta + a.C;
  const float share = 1.0f / float(a.rows);
  for (int64_t i = first_index(); i < a.rows * a.C; i += grid_stride()) {
    int64_t m = i / a.C, c = i % a.C;
    float normal = (a.x[m * a.ldx + c] - a.mean[c]) * a.rstd[c];
    float dx = a.dy[m * a.lddy + c] - (beta[c] + normal * gamma[c]) * share;
    a.dx[m * a.lddx + c] = dx * (a.gamma ? a.rstd[c] * a.gamma[c] : a.rstd[c]);
  }
}

}  // namespace

void batch_norm(const BatchNormArgs& given, CudaStream& s) {
  if (!given.C) return;
  BatchNormArgs a = given;
  const int64_t parts = batch_norm_device_parts(a.rows);
  if (!a.rstd) a.rstd = a.workspace + 2 * (parts + 1) * a.C;  // nobody reads it but the kernels behind
  const dim3 block(columns, rows_at_once);
  if (a.rows) launch(s, "batch_norm_statistics", statistics_kernel, unsigned(parts * pieces(a.C, columns)), block, a, parts);
  launch(s, "batch_norm_merge", merge_statistics_kernel, unsigned(pieces(a.C, threads / 32)), threads, a, a.rows ? parts : 0);
  if (a.rows) launch(s, "batch_norm", normalise_kernel, blocks_for(s, a.rows * a.C, threads), threads, a);
  finish_epilogue(s, a.epilogue, a.y, a.rows, a.C, a.ldy);
}

void batch_norm_grad(const BatchNormArgs& a, CudaStream& s) {
  if (!a.C) return;
  const int64_t parts = batch_norm_device_parts(a.rows);
  const dim3 block(columns, rows_at_once);
  launch(s, "batch_norm_grad_sums", gradient_sums_kernel, unsigned(parts * pieces(a.C, columns)), block, a, parts);
  launch(s, "batch_norm_grad_merge", merge_gradients_kernel, unsigned(pieces(a.C, threads / 32)), threads, a, parts);
  if (a.dx && a.rows) launch(s, "batch_norm_grad", input_gradient_kernel, blocks_for(s, a.rows * a.C, threads), threads, a, parts);
}

}  // namespace dagrt
