// Softmax and cross-entropy, a warp or a block for each row, of which every lane keeps 8 or 40 values in registers: rows of up to
// 10,240 are read once. The row's maximum is taken off before exp; a row that holds NaN
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

/// A lane's values of a row of C: the first are kept, others read anew in each pass.
template <class T, int lanes, int held> struct Values {
  const T* x;
  int64_t C, lane;
  float v[held];
  DAGRT_DEVICE Values(const T* from, int64_t count, int64_t first) : x(from), C(count), lane(first) {
#pragma unroll
    for (int k = 0; k < held; k++) v[k] = lane + k * lanes < C ? widen(x[lane + k * lanes]) : 0.0f;
  }
  /// Calls f(c, value, the other row's value) in the order of c.
  template <class F> DAGRT_DEVICE void each_with(const Values& other, const F& f) const {
#pragma unroll
    for (int k = 0; k < held; k++)
      if (lane + k * lanes < C) f(lane + k * lanes, v[k], other.v[k]);
    for (int64_t c = lane + held * lanes; c < C; c += lanes) f(c, widen(x[c]), widen(other.x[c]));
  }
  /// Calls f(c, value).
  template <class F> DAGRT_DEVICE void each(const F& f) const {
#pragma unroll
    for (int k = 0; k < held; k++)
      if (lane + k * lanes < C) f(lane + k * lanes, v[k]);
    for (int64_t c = lane + held * lanes; c < C; c += lanes) f(c, widen(x[c]));
  }
};

template <class T, int lanes, int held> __global__ void __launch_bounds__(threads, 1) softmax_kernel(Gate gate, SoftmaxArgs a) {
  if (closed(gate)) return;
  SHARED(float, room, [32]);
  over_rows<lanes>(a.N, room, [&](int64_t n, int64_t lane, bool exists, const Row<lanes>& row) {
    if (!exists) return;  // y may stand in x: a warp without a row must not read the last one while that is written
    const Values<T, lanes, held> x(static_cast<const T*>(a.x) + n * a.ldx, a.C, lane);
    T* y = static_cast<T*>(a.y) + n * a.ldy;
    float m = -INFINITY, s = 0;
    x.each([&](int64_t, float v) { m = vmax(m, v); });
    m = row.max(m);
    x.each([&](int64_t, float v) { s += expf(v - m); });
    s = row.sum(s);
    float log_s = logf(s), scale = 1.0f / s;
    x.each([&](int64_t c, float v) { narrow(a.logarithm ? v - m - log_s : expf(v - m) * scale, y[c]); });
  });
}

DAGRT_DEVICE int64_t label_at(const void* labels, DType t, int64_t n) {
  switch (t) {
    case DType::int32: return static_cast<const int32_t*>(labels)[n];
    case DType::int64: return static_cast<const int64_t*>(labels)[n];
    default: return static_cast<const uint8_t*>(labels)[n];
  }
}

template <int lanes, int held> __global__ void __launch_bounds__(threads, 1) cross_entropy_kernel(Gate gate, CrossEntropyArgs a) {
  if (closed(gate)) return;
  SHARED(float, room, [32]);
  over_rows<lanes>(a.N, room, [&](int64_t n, int64_t lane, bool exists, const Row<lanes>& row) {
    const Values<float, lanes, held> x(a.x + n * a.ldx, a.C, lane);
    float m = -INFINITY, s = 0, loss = 0;
    x.each([&](int64_t, float v) { m = vmax(m, v); });
    m = row.max(m);
    x.each([&](int64_t, float v) { s += expf(v - m); });
    float log_s = logf(row.sum(s));
    if (a.label_dtype == DType::float32) {
      const float* l = static_cast<const float*>(a.labels) + n * a.ldl;
      x.each([&](int64_t c, float v) { loss += l[c] * (log_s - (v - m)); });
      loss = row.sum(loss);
    } else {
      int64_t label = label_at(a.labels, a.label_dtype, n);
      loss = label >= 0 && label < a.C ? log_s - (x.x[label] - m) : 0.0f;
    }
    if (!exists || lane) return;
    a.loss[n] = loss;
    if (a.log_z) a.log_z[n] = m + log_s;
  });
}

template <int lanes, int held> __global__ void __launch_bounds__(threads, 1) cross_entropy_grad_kernel(Gate gate, CrossEntropyGradArgs a) {
  if (closed(gate)) return;
  SHARED(float, room, [32]);
  over_rows<lanes>(a.N, room, [&](int64_t n, int64_t lane, bool exists, const Row<lanes>& row) {
    if (!exists) return;  // dx may stand in x, likewise
    const Values<float, lanes, held> x(a.x + n * a.ldx, a.C, lane);
    const float z = a.log_z[n], g = a.g[n];
    float* dx = a.dx + n * a.ldd;
    if (a.label_dtype == DType::float32) {
      const Values<float, lanes, held> l(static_cast<const float*>(a.labels) + n * a.ldl, a.C, lane);
      float total = 0;
      l.each([&](int64_t, float v) { total += v; });
      total = row.sum(total);
      x.each_with(l, [&](int64_t c, float v, float label) { dx[c] = g * (total * expf(v - z) - label); });
    } else {
      const int64_t label = label_at(a.labels, a.label_dtype, n);
      x.each([&](int64_t c, float v) { dx[c] = g * (expf(v - z) - (c == label ? 1.0f : 0.0f)); });
    }
  });
}

/// Calls f(lanes, held) as constants: what suits rows of C.
template <class F> void with_rows(int64_t C, const F& f) {
  if (C <= 32 * 8) return f(std::integral_constant<int, 32>(), std::integral_constant<int, 8>());
  if (C <= threads * 8) return f(std::integral_constant<int, threads>(), std::integral_constant<int, 8>());
  f(std::integral_constant<int, threads>(), std::integral_constant<int, 40>());
}

}  // namespace

void softmax(const SoftmaxArgs& a, CudaStream& s) {
  if (a.N == 0 || a.C == 0) return;
  with_dtype(a.dtype, [&](auto t) {
    using T = decltype(t);
    if constexpr (std::is_same_v<T, float> || std::is_same_v<T, Bf16> || std::is_same_v<T, Half>)
      with_rows(a.C, [&](auto lanes, auto held) {
        launch(s, "softmax", softmax_kernel<T, lanes, held>, blocks_for(s, a.N * lanes, threads), threads, a);
      });
  });
}

void softmax_cross_entropy(const CrossEntropyArgs& a, CudaStream& s) {
  if (a.N == 0) return;
  with_rows(a.C, [&](auto lanes, auto held) {
    launch(s, "softmax_cross_entropy", cross_entropy_kernel<lanes, held>, blocks_for(s, a.N * lanes, threads), threads, a);
  });
}

void softmax_cross_entropy_grad(const CrossEntropyGradArgs& a, CudaStream& s) {
  if (a.N == 0 || a.C == 0) return;
  with_rows(a.C, [&](auto lanes, auto held) {
    launch(s, "softmax_cross_entropy_grad", cross_entropy_grad_kernel<lanes, held>, blocks_for(s, a.N * lanes, threads), threads, a);
  });
}

}  // namespace dagrt
