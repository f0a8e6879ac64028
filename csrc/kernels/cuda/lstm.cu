// A whole LSTM layer.
//
// The inputs' projection is one product over all steps. Then one cooperative kernel goes through time: a block has 16 rows of
// the batch and 16 units, a thread one row and unit with its cell in a register, and the block's part of the recurrent weights
// stays in shared memory where it fits. Blocks of the same rows exchange h through device memory and wait for each other once a
// step, by a counter that all of them raise. Where more blocks are needed than the device holds at once, every step is a launch
// of its own and the states pass through memory.
// Backward goes the same way from the last step, leaving dz (the gradient before the gates' functions) in memory, time first;
// the gradients of x, kernel, recurrent and bias are products and a sum over all of it.
#include "kernels/lstm.h"

#include "kernels/cuda/functors.cuh"
#include "kernels/cuda/gemm.cuh"
#include "kernels/cuda/meeting.cuh"

namespace dagrt {
namespace {

constexpr int tile_rows = 16, tile_units = 16, threads = tile_rows * tile_units, chunk = 64;
constexpr int ld_states = chunk + 1, ld_units = tile_units + 1;  // so that rows in shared memory begin in different banks
/// Whether weights of so many bytes stay on chip beside a tile of states.
bool resident_fits(size_t bytes, const CudaStream& s) { return bytes + tile_rows * ld_states * 4 + 1024 <= s.shared_bytes; }

/// Memory behind the products: [T B][4U] of z or dz, then for each row of the batch and unit h twice, c and one more.
struct Workspace {
  float *z, *h, *c, *other;
  unsigned* counters;  // one for each 16 rows
  Workspace(const LstmArgs& a) {
    z = reinterpret_cast<float*>(a.workspace);
    h = z + a.T * a.B * 4 * a.U;
    c = h + 2 * a.B * a.U;
    other = c + a.B * a.U;
    counters = reinterpret_cast<unsigned*>(other + a.B * a.U);
  }
};

struct Place {
  int64_t b, u, row0, unit0;
  int row, unit;
  bool in;
  DAGRT_DEVICE Place(const LstmArgs& a) {
    int64_t tiles = (a.U + tile_units - 1) / tile_units;
    row0 = blockIdx.x / tiles * tile_rows, unit0 = blockIdx.x % tiles * tile_units;
    row = threadIdx.x / tile_units, unit = threadIdx.x % tile_units;
    b = row0 + row, u = unit0 + unit;
    in = b < a.B && u < a.U;
  }
};

__global__ void __launch_bounds__(threads, 1) lstm_kernel(Gate gate, LstmArgs a, Workspace w, int64_t begin, int64_t end, bool resident) {
  if (closed(gate)) return;
  SHARED(float, hs, [tile_rows][ld_states]);
  float* weights = dynamic_shared<float>();  // [U or chunk][4][16 units]
  const Place at(a);
  const int64_t U = a.U, G = 4 * U, tiles = (U + tile_units - 1) / tile_units;
  unsigned* counter = w.counters + at.row0 / tile_rows;
  auto load_weights = [&](int64_t k0, int64_t count, float* to) {
    for (int64_t i = threadIdx.x; i < count * 4 * tile_units; i += threads) {
      int64_t k = k0 + i / (4 * tile_units), g = i / tile_units % 4, u = at.unit0 + i % tile_units;
      to[i] = k < U && u < U ? a.recurrent[k * G + g * U + u] : 0.0f;
    }
  };
  if (resident) load_weights(0, U, weights);
  float h = 0, c = 0, out = 0, bias[4] = {};
  if (at.in) {
    const int64_t i = at.b * U + at.u;
    if (begin == 0) {
      h = a.h0 ? a.h0[i] : 0.0f;
      c = a.c0 ? a.c0[i] : 0.0f;
    } else {
      h = w.h[begin % 2 * a.B * U + i], c = w.c[i], out = w.other[i];
    }
    for (int g = 0; g < 4; g++) bias[g] = a.bias ? a.bias[g * U + at.u] : 0.0f;
  }
  for (int64_t step = begin; step < end; step++) {
    const int64_t t = a.go_backwards ? a.T - 1 - step : step, place = step * a.B + at.b;
    if (step > begin) wait_for(counter, unsigned((step - begin) * tiles));
    const float* before = step == 0 ? a.h0 : w.h + step % 2 * a.B * U;
    float z[4] = {};
    for (int64_t k0 = 0; k0 < U; k0 += chunk) {
      __syncthreads();
      for (int i = threadIdx.x; i < tile_rows * chunk; i += threads) {
        int64_t b = at.row0 + i / chunk, k = k0 + i % chunk;
        hs[i / chunk][i % chunk] = before && b < a.B && k < U ? __ldcg(before + b * U + k) : 0.0f;
      }
      if (!resident) load_weights(k0, chunk, weights);
      __syncthreads();
      const float* r = resident ? weights + k0 * 4 * tile_units : weights;
      int count = int(smaller(chunk, U - k0));
      for (int k = 0; k < count; k++) {
        float x = hs[at.row][k];
        for (int g = 0; g < 4; g++) z[g] += x * r[(k * 4 + g) * tile_units + at.unit];
      }
    }
    if (at.in) {
      const float* x = w.z + place * G + at.u;
      float i = vsigmoid(z[0] + x[0] + bias[0]), f = vsigmoid(z[1] + x[U] + bias[1]);
      float g = tanhf(z[2] + x[2 * U] + bias[2]), o = vsigmoid(z[3] + x[3 * U] + bias[3]);
      const bool kept = a.mask && !a.mask[at.b * a.T + t];
      if (kept) {
        if (a.zero_output_for_mask) out = 0;
      } else {
        c = f * c + i * g;
        h = o * tanhf(c);
        out = h;
      }
      w.h[(step + 1) % 2 * a.B * U + at.b * U + at.u] = h;
      if (a.y) a.y[(at.b * a.T + step) * a.ldy + at.u] = out;
      if (a.gates) {
        float* to = a.gates + place * G + at.u;
        to[0] = i, to[U] = f, to[2 * U] = g, to[3 * U] = o;
      }
      if (a.cells) a.cells[place * U + at.u] = c;
      if (a.hidden) a.hidden[place * U + at.u] = h;
    }
    if (step + 1 < end) arrive(counter);
  }
  if (!at.in) return;
  const int64_t i = at.b * U + at.u;
  if (end < a.T) {
    w.c[i] = c, w.other[i] = out;
    return;
  }
  if (a.h) a.h[i] = h;
  if (a.c) a.c[i] = c;
}

/// Steps begin - 1 down to end; with `last`, also what flows into h0 and c0.
__global__ void __launch_bounds__(threads, 1)
    lstm_grad_kernel(Gate gate, LstmArgs a, Workspace w, int64_t begin, int64_t end, bool last, bool resident) {
  if (closed(gate)) return;
  SHARED(float, dzs, [tile_rows][ld_states]);
  float* weights = dynamic_shared<float>();  // [4U or chunk][ld_units]
  const Place at(a);
  const int64_t U = a.U, G = 4 * U, tiles = (U + tile_units - 1) / tile_units, i = at.b * U + at.u;
  unsigned* counter = w.counters + at.row0 / tile_rows;
  auto load_weights = [&](int64_t g0, int64_t count, float* to) {
    for (int64_t n = threadIdx.x; n < count * tile_units; n += threads) {
      int64_t g = g0 + n % count, u = at.unit0 + n / count;
      to[n % count * ld_units + n / count] = g < G && u < U ? a.recurrent[u * G + g] : 0.0f;
    }
  };
  if (resident) load_weights(0, G, weights);
  float dh = 0, dc = 0, waiting = 0;  // waiting: for the last step that was not masked
  if (at.in) {
    if (begin == a.T) {
      dh = a.dh ? a.dh[i] : 0.0f;
      dc = a.dc ? a.dc[i] : 0.0f;
    } else {
      dh = w.h[i], dc = w.c[i], waiting = w.other[i];
    }
  }
  auto through_recurrent = [&](int64_t step) {  // dh += dz of that step times the recurrent weights
    for (int64_t g0 = 0; g0 < G; g0 += chunk) {
      __syncthreads();
      for (int n = threadIdx.x; n < tile_rows * chunk; n += threads) {
        int64_t b = at.row0 + n / chunk, g = g0 + n % chunk;
        dzs[n / chunk][n % chunk] = b < a.B && g < G ? __ldcg(w.z + (step * a.B + b) * G + g) : 0.0f;
      }
      if (!resident) load_weights(g0, chunk, weights);
      __syncthreads();
      const float* r = resident ? weights + g0 * ld_units : weights;
      int count = int(smaller(chunk, G - g0));
      for (int g = 0; g < count; g++) dh += dzs[at.row][g] * r[g * ld_units + at.unit];
    }
  };
  for (int64_t step = begin - 1; step >= end; step--) {
    const int64_t t = a.go_backwards ? a.T - 1 - step : step, place = step * a.B + at.b;
    if (step < begin - 1) wait_for(counter, unsigned((begin - 1 - step) * tiles));
    if (step < a.T - 1) through_recurrent(step + 1);
    if (at.in) {
      float dy = a.dy ? a.dy[(at.b * a.T + step) * a.lddy + at.u] : 0.0f;
      float* dz = w.z + place * G + at.u;
      if (a.mask && !a.mask[at.b * a.T + t]) {
        if (!a.zero_output_for_mask) waiting += dy;
        dz[0] = dz[U] = dz[2 * U] = dz[3 * U] = 0;
      } else {
        const float *gates = a.gates + place * G + at.u, *cells = a.cells + place * U + at.u;
        float in = gates[0], f = gates[U], g = gates[2 * U], o = gates[3 * U], tc = tanhf(cells[0]);
        float before = step ? *(cells - a.B * U) : a.c0 ? a.c0[i] : 0.0f;
        float d = dh + waiting + dy, cell = dc + d * o * (1 - tc * tc);
        dz[0] = cell * g * in * (1 - in);
        dz[U] = cell * before * f * (1 - f);
        dz[2 * U] = cell * in * (1 - g * g);
        dz[3 * U] = d * tc * o * (1 - o);
        dc = cell * f;
        dh = 0, waiting = 0;
      }
    }
    if (step > end || last) arrive(counter);
  }
  if (last) {
    if (a.T > 0) {
      if (begin > end) wait_for(counter, unsigned((begin - end) * tiles));
      through_recurrent(0);
    }
    if (at.in && a.dh0) a.dh0[i] = dh;
    if (at.in && a.dc0) a.dc0[i] = dc;
  } else if (at.in) {
    w.h[i] = dh, w.c[i] = dc, w.other[i] = waiting;
  }
}

/// Rows (step, b), or with `batch_first` (b, t), of a tensor whose rows lie ld_b and ld_t apart; columns are contiguous.
struct Steps {
  const float* p;
  Divider inner;  // sizes of the second of the two indices
  int64_t rows, width, T, ld_b, ld_t;
  bool batch_first, backwards;
  struct Row {
    const float* p;
  };
  struct Col {
    int64_t k;
  };
  DAGRT_DEVICE Row row_at(int64_t i) const {
    if (i >= rows) return {nullptr};
    int64_t q = inner.divide(uint32_t(i)), r = i - q * inner.d, b = batch_first ? q : r, t = batch_first ? r : q;
    return {p + b * ld_b + (backwards ? T - 1 - t : t) * ld_t};
  }
  DAGRT_DEVICE Col col_at(int64_t k) const { return {k}; }
  DAGRT_DEVICE void next(Col& c) const { c.k += gemm_bk; }
  DAGRT_DEVICE const float* at(const Row& r, const Col& c) const { return r.p && c.k < width ? r.p + c.k : nullptr; }
  DAGRT_DEVICE void move(int64_t by) { p += by; }
};

/// X(u, (step, b)) = h of the step before; h0 at the first.
struct HiddenBefore {
  const float *hidden, *h0;
  int64_t B, T, U;
  struct Row {
    int64_t u;
  };
  struct Col {
    int64_t k;
    const float* p;
  };
  DAGRT_DEVICE Row row_at(int64_t i) const { return {i < U ? i : -1}; }
  DAGRT_DEVICE Col col_at(int64_t k) const {
    return {k, k >= T * B ? nullptr : k >= B ? hidden + (k - B) * U : h0 ? h0 + k * U : nullptr};
  }
  DAGRT_DEVICE void next(Col& c) const { c = col_at(c.k + gemm_bk); }
  DAGRT_DEVICE const float* at(const Row& r, const Col& c) const { return r.u >= 0 && c.p ? c.p + r.u : nullptr; }
  DAGRT_DEVICE void move(int64_t by) { hidden += by; }
};

constexpr int bias_columns = 32, bias_rows = 8;
__global__ void __launch_bounds__(bias_columns * bias_rows)
    bias_gradient_kernel(Gate gate, const float* dz, float* dbias, int64_t rows, int64_t G) {
  if (closed(gate)) return;
  SHARED(float, sums, [bias_rows][bias_columns]);
  const int64_t g = int64_t(blockIdx.x) * bias_columns + threadIdx.x;
  float sum = 0;
  if (g < G)
    for (int64_t m = threadIdx.y; m < rows; m += bias_rows) sum += dz[m * G + g];
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y || g >= G) return;
  for (int k = 1; k < bias_rows; k++) sum += sums[k][threadIdx.x];
  dbias[g] = sum;
}

int64_t row_tiles(const LstmArgs& a) { return pieces(a.B, tile_rows); }
/// One block on each multiprocessor is what is sure to run at once.
bool fits(const LstmArgs& a, const CudaStream& s) { return row_tiles(a) * pieces(a.U, tile_units) <= s.multiprocessors; }

Steps steps_of_x(const LstmArgs& a) { return {a.x, Divider(a.B), a.T * a.B, a.C, a.T, a.T * a.ldx, a.ldx, false, a.go_backwards}; }
bool fours_of_x(const LstmArgs& a) {
  return a.C % 4 == 0 && a.ldx % 4 == 0 && aligned_16(a.x) && aligned_16(a.kernel) && aligned_16(a.workspace);
}

constexpr ProductName inputs_name("lstm_inputs"), dkernel_name("lstm_dkernel"), drecurrent_name("lstm_drecurrent"), dx_name("lstm_dx");

/// C [M, N] from two loaders; `fours`: both can be read 16 bytes at once. Rows of gates are 4U, always a multiple of 4.
template <bool a_k, bool b_k, class A, class B>
void product(CudaStream& s, const ProductName& name, bool fours, const A& a, const B& b, float* c, int64_t ldc, int64_t M, int64_t N,
             const Jobs& jobs) {
  const Target to{c, ldc, M, N, {}, {}};
  if (fours)
    gemm<A, B, a_k, b_k, 4>(s, name, a, b, to, jobs);
  else
    gemm<A, B, a_k, b_k, 1>(s, name, a, b, to, jobs);
}

}  // namespace

void lstm(const LstmArgs& a, CudaStream& s) {
  const int64_t U = a.U, G = 4 * U;
  if (!a.B || !U) return;
  Workspace w(a);
  Matrix kernel{a.kernel, 1, G, G, a.C};
  Jobs jobs{};
  jobs.K = a.C;
  if (a.T) product<true, false, Steps, Matrix>(s, inputs_name, fours_of_x(a), steps_of_x(a), kernel, w.z, G, a.T * a.B, G, jobs);
  const bool resident = resident_fits(size_t(U) * 4 * tile_units * 4, s);
  const size_t bytes = size_t(resident ? U : chunk) * 4 * tile_units * 4;
  const unsigned blocks = blocks_of(row_tiles(a) * pieces(U, tile_units));
  if (a.T == 0 || fits(a, s)) {
    launch(s, "zero_counters", zero_counters_kernel, 1, zero_threads, w.counters, row_tiles(a));
    return launch_together(s, "lstm", lstm_kernel, blocks, threads, bytes, a, w, 0, a.T, resident);
  }
  for (int64_t step = 0; step < a.T; step++)
    launch_with(s, "lstm_step", lstm_kernel, blocks, threads, bytes, a, w, step, step + 1, resident);
}

void lstm_grad(const LstmArgs& a, CudaStream& s) {
  const int64_t U = a.U, G = 4 * U, rows = a.T * a.B;
  Workspace w(a);
  if (a.B && U) {
    const bool resident = resident_fits(size_t(G) * ld_units * 4, s);
    const size_t bytes = size_t(resident ? G : chunk) * ld_units * 4;
    const unsigned blocks = blocks_of(row_tiles(a) * pieces(U, tile_units));
    if (a.T == 0 || fits(a, s)) {
      launch(s, "zero_counters", zero_counters_kernel, 1, zero_threads, w.counters, row_tiles(a));
      launch_together(s, "lstm_grad", lstm_grad_kernel, blocks, threads, bytes, a, w, a.T, 0, true, resident);
    } else {
      for (int64_t step = a.T; step > 0; step--)
        launch_with(s, "lstm_grad_step", lstm_grad_kernel, blocks, threads, bytes, a, w, step, step - 1, false, resident);
      launch_with(s, "lstm_grad_step", lstm_grad_kernel, blocks, threads, bytes, a, w, 0, 0, true, resident);
    }
  }
  Jobs jobs{};
  Matrix dz_by_gate{w.z, 1, G, G, rows};
  jobs.K = rows;
  if (a.dkernel)
    product<false, false, Exchanged<Steps>, Matrix>(s, dkernel_name, fours_of_x(a), {steps_of_x(a)}, dz_by_gate, a.dkernel, G, a.C,
                                                    G, jobs);
  if (a.drecurrent) {
    const bool fours = U % 4 == 0 && aligned_16(a.hidden) && aligned_16(a.h0) && aligned_16(w.z);
    product<false, false, HiddenBefore, Matrix>(s, drecurrent_name, fours, {a.hidden, a.h0, a.B, a.T, U}, dz_by_gate, a.drecurrent, G,
                                                U, G, jobs);
  }
  if (a.dbias && G)
    launch(s, "lstm_dbias", bias_gradient_kernel, blocks_of(pieces(G, bias_columns)), dim3(bias_columns, bias_rows), w.z, a.dbias, rows,
           G);
  if (a.dx && rows) {
    jobs.K = G;
    Steps dz{w.z, Divider(a.T), rows, G, a.T, G, a.B * G, true, a.go_backwards};
    Matrix kernel{a.kernel, G, 1, a.C, G};
    product<true, true, Steps, Matrix>(s, dx_name, aligned_16(w.z) && aligned_16(a.kernel), dz, kernel, a.dx, a.C, rows, a.C, jobs);
  }
}

}  // namespace dagrt
