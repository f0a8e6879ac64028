// Pooling: a thread for each output, or for each input pixel backward, which gathers from the windows that cover it; channels
// side by side. Backward, and where windows overlap, pixels are read several times: a block takes a tile of 32 channels, whose
// pixels it brings into shared memory once.
// The maximum keeps the first of equals, in window order; NaN wins (the first of them).
#include "kernels/pool2d.h"

#include "kernels/cuda/tiles.cuh"

namespace dagrt {
namespace {

constexpr int lanes = tile_lanes, warps = tile_warps, threads = tile_threads;

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

/// The pooled value of one window and where its maximum lay; `pixel(h, w)` reads the image.
template <bool maximum, class Pixel> DAGRT_DEVICE float pooled(const Span& h, const Span& w, int64_t W, int32_t& at, const Pixel& pixel) {
  float v = maximum ? -INFINITY : 0.0f;
  at = -1;
  for (int64_t y = h.from; y < h.to; y++)
    for (int64_t x = w.from; x < w.to; x++) {
      float e = pixel(y, x);
      if constexpr (maximum) {
        if (e > v || (e != e && v == v) || at < 0) v = e, at = int32_t(y * W + x);
      } else {
        v += e;
      }
    }
  return maximum ? v : v / float((h.to - h.from) * (w.to - w.from));
}

/// What the windows over one pixel send it; `sent(k, l)` reads their gradients and `taken(k, l)` their maxima's places.
template <bool maximum, class Sent, class Taken>
DAGRT_DEVICE float gathered(const PoolArgs& a, int64_t h, int64_t w, const Sent& sent, const Taken& taken) {
  const Span p = covering(h, a.stride_h, a.pad_top, a.pool_h, a.P), q = covering(w, a.stride_w, a.pad_left, a.pool_w, a.Q);
  float sum = 0;
  for (int64_t k = p.from; k < p.to; k++)
    for (int64_t l = q.from; l < q.to; l++)
      if constexpr (maximum) {
        if (taken(k, l) == int32_t(h * a.W + w)) sum += sent(k, l);
      } else {
        const Span y = window(k, a.stride_h, a.pad_top, a.pool_h, a.H), x = window(l, a.stride_w, a.pad_left, a.pool_w, a.W);
        sum += sent(k, l) / float((y.to - y.from) * (x.to - x.from));
      }
  return sum;
}

template <bool maximum> __global__ void __launch_bounds__(threads) pool_kernel(Gate gate, PoolArgs a) {
  if (closed(gate)) return;
  for (int64_t i = first_index(); i < a.B * a.P * a.Q * a.C; i += grid_stride()) {
    At o(i, a.C, a.Q, a.P);
    Span h = window(o.h, a.stride_h, a.pad_top, a.pool_h, a.H), w = window(o.w, a.stride_w, a.pad_left, a.pool_w, a.W);
    int32_t at;
    a.y[i / a.C * a.ldy + o.c] =
        pooled<maximum>(h, w, a.W, at, [&](int64_t y, int64_t x) { return a.x[((o.b * a.H + y) * a.W + x) * a.ldx + o.c]; });
    if (maximum && a.argmax) a.argmax[i] = at;
  }
}

template <bool maximum> __global__ void __launch_bounds__(threads) pool_grad_kernel(Gate gate, PoolArgs a) {
  if (closed(gate)) return;
  for (int64_t i = first_index(); i < a.B * a.H * a.W * a.C; i += grid_stride()) {
    At o(i, a.C, a.W, a.H);
    auto place = [&](int64_t k, int64_t l) { return (o.b * a.P + k) * a.Q + l; };
    a.dx[i / a.C * a.lddx + o.c] = gathered<maximum>(
        a, o.h, o.w, [&](int64_t k, int64_t l) { return a.x[place(k, l) * a.ldx + o.c]; },
        [&](int64_t k, int64_t l) { return a.taken[place(k, l) * a.C + o.c]; });
  }
}

// ---------------------------------------------------------------- tiles in shared memory
template <bool maximum> __global__ void __launch_bounds__(threads) pool_tile_kernel(Gate gate, PoolArgs a, Tiles t) {
  if (closed(gate)) return;
  float* image = dynamic_shared<float>();  // [rows][across][lanes]
  const TilePlace at(t, blockIdx.x);
  const int64_t h0 = at.h * a.stride_h - a.pad_top, w0 = at.w * a.stride_w - a.pad_left;
  const bool in = at.c < a.C;
  for (int64_t i = threadIdx.y; i < t.rows * t.across; i += warps) {
    const int64_t h = h0 + i / t.across, w = w0 + i % t.across;
    if (in && h >= 0 && h < a.H && w >= 0 && w < a.W) image[i * lanes + threadIdx.x] = a.x[((at.b * a.H + h) * a.W + w) * a.ldx + at.c];
  }
  __syncthreads();
  for (int64_t i = threadIdx.y; i < t.high * t.wide; i += warps) {
    const int64_t p = at.h + i / t.wide, q = at.w + i % t.wide, out = (at.b * a.P + p) * a.Q + q;
    if (!in || p >= a.P || q >= a.Q) continue;
    Span h = window(p, a.stride_h, a.pad_top, a.pool_h, a.H), w = window(q, a.stride_w, a.pad_left, a.pool_w, a.W);
    int32_t where;
    a.y[out * a.ldy + at.c] = pooled<maximum>(
        h, w, a.W, where, [&](int64_t y, int64_t x) { return image[((y - h0) * t.across + x - w0) * lanes + threadIdx.x]; });
    if (maximum && a.argmax) a.argmax[out * a.C + at.c] = where;
  }
}

template <bool maximum> __global__ void __launch_bounds__(threads) pool_grad_tile_kernel(Gate gate, PoolArgs a, Tiles t) {
  if (closed(gate)) return;
  float* sent = dynamic_shared<float>();  // [rows][across][lanes] of dy, then of taken
  int32_t* taken = reinterpret_cast<int32_t*>(sent + t.rows * t.across * lanes);
  const TilePlace at(t, blockIdx.x);
  const int64_t p0 = covering(at.h, a.stride_h, a.pad_top, a.pool_h, a.P).from;
  const int64_t q0 = covering(at.w, a.stride_w, a.pad_left, a.pool_w, a.Q).from;
  const int64_t p1 = covering(smaller(at.h + t.high, a.H) - 1, a.stride_h, a.pad_top, a.pool_h, a.P).to;
  const int64_t q1 = covering(smaller(at.w + t.wide, a.W) - 1, a.stride_w, a.pad_left, a.pool_w, a.Q).to;
  const bool in = at.c < a.C;
  for (int64_t i = threadIdx.y; i < t.rows * t.across; i += warps) {
    const int64_t p = p0 + i / t.across, q = q0 + i % t.across, out = (at.b * a.P + p) * a.Q + q;
    if (!in || p >= p1 || q >= q1) continue;
    sent[i * lanes + threadIdx.x] = a.x[out * a.ldx + at.c];
    if constexpr (maximum) taken[i * lanes + threadIdx.x] = a.taken[out * a.C + at.c];
  }
  __syncthreads();
  for (int64_t i = threadIdx.y; i < t.high * t.wide; i += warps) {
    const int64_t h = at.h + i / t.wide, w = at.w + i % t.wide;
    if (!in || h >= a.H || w >= a.W) continue;
    auto place = [&](int64_t k, int64_t l) { return ((k - p0) * t.across + l - q0) * lanes + threadIdx.x; };
    a.dx[((at.b * a.H + h) * a.W + w) * a.lddx + at.c] = gathered<maximum>(
        a, h, w, [&](int64_t k, int64_t l) { return sent[place(k, l)]; }, [&](int64_t k, int64_t l) { return taken[place(k, l)]; });
  }
}

bool overlap(const PoolArgs& a) { return a.stride_h < a.pool_h || a.stride_w < a.pool_w; }

template <bool maximum> void forward(const char* name, const PoolArgs& a, CudaStream& s) {
  const int64_t n = a.B * a.P * a.Q * a.C;
  if (!n) return;
  const Tiles t = tiles_of(
      a.P, a.Q, a.C, [&](int64_t k) { return (k - 1) * a.stride_h + a.pool_h; },
      [&](int64_t k) { return (k - 1) * a.stride_w + a.pool_w; },
      [](const Tiles& k) { return k.bytes(); });
  if (!overlap(a) || !t.fit) return launch(s, name, pool_kernel<maximum>, blocks_for(s, n, threads), threads, a);
  launch_with(s, name, pool_tile_kernel<maximum>, blocks_of(t.count(a.B)), dim3(lanes, warps), t.bytes(), a, t);
}

template <bool maximum> void backward(const char* name, const PoolArgs& a, CudaStream& s) {
  const int64_t n = a.B * a.H * a.W * a.C;
  if (!n) return;
  constexpr int arrays = maximum ? 2 : 1;
  const Tiles t = tiles_of(
      a.H, a.W, a.C, [&](int64_t k) { return (k + a.pool_h - 2) / a.stride_h + 1; },
      [&](int64_t k) { return (k + a.pool_w - 2) / a.stride_w + 1; },
      [](const Tiles& k) { return k.bytes() * arrays; });
  if (!t.fit) return launch(s, name, pool_grad_kernel<maximum>, blocks_for(s, n, threads), threads, a);
  launch_with(s, name, pool_grad_tile_kernel<maximum>, blocks_of(t.count(a.B)), dim3(lanes, warps),
              t.bytes() * arrays, a, t);
}

}  // namespace

void max_pool2d(const PoolArgs& a, CudaStream& s) { forward<true>("max_pool2d", a, s); }
void avg_pool2d(const PoolArgs& a, CudaStream& s) { forward<false>("avg_pool2d", a, s); }
void max_pool2d_grad(const PoolArgs& a, CudaStream& s) { backward<true>("max_pool2d_grad", a, s); }
void avg_pool2d_grad(const PoolArgs& a, CudaStream& s) { backward<false>("avg_pool2d_grad", a, s); }

}  // namespace dagrt
