// Pooling: a thread for each output, or for each input pixel backward, which gathers from the windows that cover it; channels
// side by side. The maximum keeps the first of equals, in window order; NaN wins (the first of them).
#include "kernels/pool2d.h"

#include "kernels/cuda/common.cuh"

namespace dagrt {
namespace {

constexpr int threads = 256;

struct Span {
  int64_t from, to;
};
/// Positions of the window of output p inside [0, n).
DAGRT_DEVICE Span window(int64_t p, int64_t stride, int64_t pad, int64_t pool, int64_t n) {
  int64_t from = p * stride - pad;
  return {larger(from, 0), smaller(from + pool, n)};
}
/// Outputs whose windows cover position h.
DAGRT_DEVICE Span covering(int64_t h, int64_t stride, int64_t pad, int64_t pool, int64_t outputs) {
  int64_t low = h + pad - pool + 1;
  return {low <= 0 ? 0 : (low + stride - 1) / stride, smaller((h + pad) / stride + 1, outputs)};
}

/// A thread's place: channel, column, row, image.
struct At {
  int64_t c, w, h, b;
  DAGRT_DEVICE At(int64_t i, int64_t C, int64_t W, int64_t H) {
    c = i % C, i /= C;
    w = i % W, i /= W;
    h = i % H, b = i / H;
  }
};

template <bool maximum> __global__ void pool_kernel(Gate gate, PoolArgs a) {
  if (closed(gate)) return;
  for (int64_t i = first_index(); i < a.B * a.P * a.Q * a.C; i += grid_stride()) {
    At o(i, a.C, a.Q, a.P);
    Span h = window(o.h, a.stride_h, a.pad_top, a.pool_h, a.H), w = window(o.w, a.stride_w, a.pad_left, a.pool_w, a.W);
    float v = maximum ? -INFINITY : 0.0f;
    int32_t at = -1;
    for (int64_t y = h.from; y < h.to; y++)
      for (int64_t x = w.from; x < w.to; x++) {
        float e = a.x[((o.b * a.H + y) * a.W + x) * a.ldx + o.c];
        if constexpr (maximum) {
          if (e > v || (e != e && v == v) || at < 0) v = e, at = int32_t(y * a.W + x);
        } else {
          v += e;
        }
      }
    if constexpr (!maximum) v /= float((h.to - h.from) * (w.to - w.from));
    a.y[(i / a.C) * a.ldy + o.c] = v;
    if (maximum && a.argmax) a.argmax[i] = at;
  }
}

template <bool maximum> __global__ void pool_grad_kernel(Gate gate, PoolArgs a) {
  if (closed(gate)) return;
  for (int64_t i = first_index(); i < a.B * a.H * a.W * a.C; i += grid_stride()) {
    At o(i, a.C, a.W, a.H);
    Span p = covering(o.h, a.stride_h, a.pad_top, a.pool_h, a.P), q = covering(o.w, a.stride_w, a.pad_left, a.pool_w, a.Q);
    float sum = 0;
    for (int64_t k = p.from; k < p.to; k++)
      for (int64_t l = q.from; l < q.to; l++) {
        int64_t out = (o.b * a.P + k) * a.Q + l;
        if constexpr (maximum) {
          if (a.taken[out * a.C + o.c] == int32_t(o.h * a.W + o.w)) sum += a.x[out * a.ldx + o.c];
        } else {
          Span h = window(k, a.stride_h, a.pad_top, a.pool_h, a.H), w = window(l, a.stride_w, a.pad_left, a.pool_w, a.W);
          sum += a.x[out * a.ldx + o.c] / float((h.to - h.from) * (w.to - w.from));
        }
      }
    a.dx[i / a.C * a.lddx + o.c] = sum;
  }
}

void forward(const char* name, void (*kernel)(Gate, PoolArgs), const PoolArgs& a, CudaStream& s) {
  if (int64_t n = a.B * a.P * a.Q * a.C) launch(s, name, kernel, blocks_for(s, n, threads), threads, a);
}
void backward(const char* name, void (*kernel)(Gate, PoolArgs), const PoolArgs& a, CudaStream& s) {
  if (int64_t n = a.B * a.H * a.W * a.C) launch(s, name, kernel, blocks_for(s, n, threads), threads, a);
}

}  // namespace

void max_pool2d(const PoolArgs& a, CudaStream& s) { forward("max_pool2d", pool_kernel<true>, a, s); }
void avg_pool2d(const PoolArgs& a, CudaStream& s) { forward("avg_pool2d", pool_kernel<false>, a, s); }
void max_pool2d_grad(const PoolArgs& a, CudaStream& s) { backward("max_pool2d_grad", pool_grad_kernel<true>, a, s); }
void avg_pool2d_grad(const PoolArgs& a, CudaStream& s) { backward("avg_pool2d_grad", pool_grad_kernel<false>, a, s); }

}  // namespace dagrt
