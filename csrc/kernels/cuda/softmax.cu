// Softmax and cross-entropy, a warp or a block for each row. The row's maximum is taken off before exp; a row that holds NaN
// or +inf, or nothing but -inf, gives NaN. The loss is log s - (x - m), never log_z - x: large logits would cancel.
#include "kernels/softmax.h"

#include "kernels/cuda/functors.cuh"

namespace dagrt {
namespace {

constexpr int threads = 256;

/// Sums and maxima over the lanes of one row: a warp's, or the block's.
template <int lanes> struct Row {
  float* room;
  DAGRT_DEVICE float sum(float v) const {
    auto add = [](float a, float b) { return a + b; };
    if constexpr (lanes == 32) return warp_join(v, add);
    return block_join(v, add, 0.0f, room);
  }
  DAGRT_DEVICE float max(float v) const {
    auto larger_of = [](float a, float b) { return vmax(a, b); };
    if constexpr (lanes == 32) return warp_join(v, larger_of);
    return block_join(v, larger_of, -INFINITY, room);
  }
};

/// Calls f(row, lane, whether the row exists, sums) for all rows, a whole block together.
template <int lanes, class F> DAGRT_DEVICE void over_rows(int64_t N, float* room, const F& f) {
  const int64_t together = threads / lanes;
  for (int64_t first = int64_t(blockIdx.x) * together; first < N; first += int64_t(gridDim.x) * together) {
    int64_t n = first + threadIdx.x / lanes;
    f(smaller(n, N - 1), int64_t(threadIdx.x % lanes), n < N, Row<lanes>{room});
  }
}

template <class T, int lanes> __global__ void softmax_kernel(Gate gate, SoftmaxArgs a) {
  if (closed(gate)) return;
  SHARED(float, room, [32]);
  over_rows<lanes>(a.N, room, [&](int64_t n, int64_t lane, bool exists, const Row<lanes>& row) {
    const T* x = static_cast<const T*>(a.x) + n * a.ldx;
    T* y = static_cast<T*>(a.y) + n * a.ldy;
    float m = -INFINITY, s = 0;
    for (int64_t c = lane; c < a.C; c += lanes) m = vmax(m, widen(x[c]));
    m = row.max(m);
    for (int64_t c = lane; c < a.C; c += lanes) s += expf(widen(x[c]) - m);
    s = row.sum(s);
    float log_s = logf(s), scale = 1.0f / s;
    if (!exists) return;
    for (int64_t c = lane; c < a.C; c += lanes) {
      float v = widen(x[c]) - m;
      narrow(a.logarithm ? v - log_s : expf(v) * scale, y[c]);
    }
  });
}

DAGRT_DEVICE int64_t label_at(const void* labels, DType t, int64_t n) {
  switch (t) {
    case DType::int32: return static_cast<const int32_t*>(labels)[n];
    case DType::int64: return static_cast<const int64_t*>(labels)[n];
    default: return static_cast<const uint8_t*>(labels)[n];
  }
}

template <int lanes> __global__ void cross_entropy_kernel(Gate gate, CrossEntropyArgs a) {
  if (closed(gate)) return;
  SHARED(float, room, [32]);
  over_rows<lanes>(a.N, room, [&](int64_t n, int64_t lane, bool exists, const Row<lanes>& row) {
    const float* x = a.x + n * a.ldx;
    float m = -INFINITY, s = 0, loss = 0;
    for (int64_t c = lane; c < a.C; c += lanes) m = vmax(m, x[c]);
    m = row.max(m);
    for (int64_t c = lane; c < a.C; c += lanes) s += expf(x[c] - m);
    float log_s = logf(row.sum(s));
    if (a.label_dtype == DType::float32) {
      const float* l = static_cast<const float*>(a.labels) + n * a.ldl;
      for (int64_t c = lane; c < a.C; c += lanes) loss += l[c] * (log_s - (x[c] - m));
      loss = row.sum(loss);
    } else {
      int64_t label = label_at(a.labels, a.label_dtype, n);
      loss = label >= 0 && label < a.C ? log_s - (x[label] - m) : 0.0f;
    }
    if (!exists || lane) return;
    a.loss[n] = loss;
    if (a.log_z) a.log_z[n] = m + log_s;
  });
}

template <int lanes> __global__ void cross_entropy_grad_kernel(Gate gate, CrossEntropyGradArgs a) {
  if (closed(gate)) return;
  SHARED(float, room, [32]);
  over_rows<lanes>(a.N, room, [&](int64_t n, int64_t lane, bool exists, const Row<lanes>& row) {
    const float* x = a.x + n * a.ldx;
    float z = a.log_z[n], g = a.g[n], total = 1;
    const bool soft = a.label_dtype == DType::float32;
    const float* l = soft ? static_cast<const float*>(a.labels) + n * a.ldl : nullptr;
    int64_t label = soft ? -1 : label_at(a.labels, a.label_dtype, n);
    if (soft) {
      total = 0;
      for (int64_t c = lane; c < a.C; c += lanes) total += l[c];
      total = row.sum(total);
    }
    if (!exists) return;
    for (int64_t c = lane; c < a.C; c += lanes)
      a.dx[n * a.ldd + c] = g * (total * expf(x[c] - z) - (soft ? l[c] : c == label ? 1.0f : 0.0f));
  });
}

bool short_rows(int64_t C) { return C <= 1024; }

}  // namespace

void softmax(const SoftmaxArgs& a, CudaStream& s) {
  if (a.N == 0 || a.C == 0) return;
  with_dtype(a.dtype, [&](auto t) {
    using T = decltype(t);
    if constexpr (std::is_same_v<T, float> || std::is_same_v<T, Bf16> || std::is_same_v<T, Half>) {
      if (short_rows(a.C))
        launch(s, "softmax", softmax_kernel<T, 32>, blocks_for(s, a.N * 32, threads), threads, a);
      else
        launch(s, "softmax_long_rows", softmax_kernel<T, threads>, blocks_for(s, a.N * threads, threads), threads, a);
    }
  });
}

void softmax_cross_entropy(const CrossEntropyArgs& a, CudaStream& s) {
  if (a.N == 0) return;
  if (short_rows(a.C))
    launch(s, "softmax_cross_entropy", cross_entropy_kernel<32>, blocks_for(s, a.N * 32, threads), threads, a);
  else
    launch(s, "softmax_cross_entropy", cross_entropy_kernel<threads>, blocks_for(s, a.N * threads, threads), threads, a);
}

void softmax_cross_entropy_grad(const CrossEntropyGradArgs& a, CudaStream& s) {
  if (a.N == 0 || a.C == 0) return;
  if (short_rows(a.C))
    launch(s, "softmax_cross_entropy_grad", cross_entropy_grad_kernel<32>, blocks_for(s, a.N * 32, threads), threads, a);
  else
    launch(s, "softmax_cross_entropy_grad", cross_entropy_grad_kernel<threads>, blocks_for(s, a.N * threads, threads), threads, a);
}

}  // namespace dagrt
