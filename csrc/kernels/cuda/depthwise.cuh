// Convolution with one input channel for each group, and its gradients, directly.
//
// A block takes a tile of 32 channels: the pixels that its windows see and the window's weights come into shared memory once, a
// thread's sums stay in registers. The filter gradient walks the tiles of a part of the images, a thread with a sum for every
// tap; sums of warps, then of parts, are added in order. Windows too large for that are read where they lie.
#pragma once
#include "kernels/conv2d.h"
#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/tiles.cuh"

namespace dagrt {
namespace {

constexpr int depthwise_pixels = 8 * 16 / tile_warps, depthwise_taps = 32;  // of a thread

bool depthwise(const ConvArgs& a) { return a.groups > 1 && a.groups == a.C; }

/// The images' pixels [rows][across][32 lanes] from row h0 and column w0 on; zeros outside of them.
DAGRT_DEVICE void load_patch(float* patch, const float* image, int64_t ld, int64_t H, int64_t W, int64_t h0, int64_t w0,
                             int64_t rows, int64_t across, bool in) {
  for (int64_t i = threadIdx.y; i < rows * across; i += tile_warps) {
    const int64_t h = h0 + i / across, w = w0 + i % across;
    const bool inside = in && h >= 0 && h < H && w >= 0 && w < W;
    patch[i * tile_lanes + threadIdx.x] = inside ? image[(h * W + w) * ld] : 0.0f;
  }
}
DAGRT_DEVICE void load_weights(float* weights, const float* w, int64_t F, int64_t taps, bool in) {
  for (int64_t tap = threadIdx.y; tap < taps; tap += tile_warps) weights[tap * tile_lanes + threadIdx.x] = in ? w[tap * F] : 0.0f;
}

/// Finishes a tile of results in shared memory and stores what lies in the image [H, W] of rows `to`. Called, so that a chain's
/// many registers are not the kernel's; with bounds of one block kernels have room for what it leaves alone.
__device__ __noinline__ void finish_tile(const float* room, float* to, int64_t ld, const Epilogue& e, const Tiles& t,
                                         const TilePlace& at, int64_t H, int64_t W) {
#pragma unroll 1
  for (int i = threadIdx.y; i < int(t.high * t.wide); i += tile_warps) {
    const int64_t h = at.h + i / int(t.wide), w = at.w + i % int(t.wide), row = (at.b * H + h) * W + w;
    if (h < H && w < W) to[row * ld + at.c] = finished(e, row, at.c, room[i * tile_lanes + threadIdx.x]);
  }
}
/// Stores a thread's sums by way of shared memory, where the epilogue finds them one by one.
DAGRT_DEVICE void store_tile(const float (&sums)[depthwise_pixels], float* room, float* to, int64_t ld, const Epilogue& e,
                             const Tiles& t, const TilePlace& at, int64_t H, int64_t W, bool in) {
  __syncthreads();
#pragma unroll
  for (int k = 0; k < depthwise_pixels; k++) {
    const int64_t i = threadIdx.y + k * tile_warps;
    if (i < t.high * t.wide) room[i * tile_lanes + threadIdx.x] = sums[k];
  }
  if (in) finish_tile(room, to, ld, e, t, at, H, W);
}

/// w is [R, S, F], F = C times a multiplier.
__global__ void __launch_bounds__(tile_threads, 1) depthwise_kernel(Gate gate, const __grid_constant__ ConvArgs a, Tiles t) {
  if (closed(gate)) return;
  float* image = dynamic_shared<float>();
  float* weights = image + larger(t.rows * t.across, t.high * t.wide) * tile_lanes;
  const TilePlace at(t, blockIdx.x);
  const bool in = at.c < a.F;
  load_patch(image, a.x + at.b * a.H * a.W * a.ldx + at.c / (a.F / a.C), a.ldx, a.H, a.W, at.h * a.stride_h - a.pad_top,
             at.w * a.stride_w - a.pad_left, t.rows, t.across, in);
  load_weights(weights, a.w + at.c, a.F, a.R * a.S, in);
  __syncthreads();
  float sums[depthwise_pixels] = {};
  int first[depthwise_pixels];  // where a pixel's window begins
#pragma unroll
  for (int k = 0; k < depthwise_pixels; k++) {
    const int i = int(smaller(threadIdx.y + k * tile_warps, t.high * t.wide - 1)), wide = int(t.wide);
    first[k] = (i / wide * int(a.stride_h * t.across) + i % wide * int(a.stride_w)) * tile_lanes + int(threadIdx.x);
  }
  for (int r = 0; r < a.R; r++)
    for (int s = 0; s < a.S; s++) {
      const float weight = weights[(r * int(a.S) + s) * tile_lanes + threadIdx.x];
      const int tap = int(r * a.dilation_h * t.across + s * a.dilation_w) * tile_lanes;
#pragma unroll
      for (int k = 0; k < depthwise_pixels; k++) sums[k] += image[first[k] + tap] * weight;
    }
  store_tile(sums, image, a.y, a.ldy, a.epilogue, t, at, a.P, a.Q, in);
}

/// The first output whose window of taps reaches position h: (h + pad - reach) / stride, rounded up.
DAGRT_DEVICE int64_t first_output(int64_t h, int64_t pad, int64_t reach, int64_t stride) {
  const int64_t n = h + pad - reach;
  return n > 0 ? (n + stride - 1) / stride : -(-n / stride);
}

__global__ void __launch_bounds__(tile_threads, 1)
    depthwise_input_grad_kernel(Gate gate, const __grid_constant__ ConvArgs a, Tiles t) {
  if (closed(gate)) return;
  float* sent = dynamic_shared<float>();  // dy
  float* weights = sent + larger(t.rows * t.across, t.high * t.wide) * tile_lanes;
  const TilePlace at(t, blockIdx.x);
  const bool in = at.c < a.C;
  const int64_t each = a.F / a.C;
  const int p0 = int(first_output(at.h, a.pad_top, (a.R - 1) * a.dilation_h, a.stride_h));
  const int q0 = int(first_output(at.w, a.pad_left, (a.S - 1) * a.dilation_w, a.stride_w));
  const int down = int(a.stride_h), along = int(a.stride_w), across = int(t.across);
  float sums[depthwise_pixels] = {};
  for (int64_t e = 0; e < each; e++) {
    __syncthreads();
    load_patch(sent, a.y + at.b * a.P * a.Q * a.ldy + at.c * each + e, a.ldy, a.P, a.Q, p0, q0, t.rows, t.across, in);
    load_weights(weights, a.w + at.c * each + e, a.F, a.R * a.S, in);
    __syncthreads();
    for (int r = 0; r < a.R; r++)
      for (int s = 0; s < a.S; s++) {
        const float weight = weights[(r * int(a.S) + s) * tile_lanes + threadIdx.x];
        const int h = int(at.h + a.pad_top - r * a.dilation_h), w = int(at.w + a.pad_left - s * a.dilation_w);
#pragma unroll
        for (int k = 0; k < depthwise_pixels; k++) {
          const int i = int(smaller(threadIdx.y + k * tile_warps, t.high * t.wide - 1)), wide = int(t.wide);
          const int u = h + i / wide, v = w + i % wide;
          if (down * along > 1 && (u % down || v % along)) continue;
          sums[k] += sent[((u / down - p0) * across + v / along - q0) * tile_lanes + int(threadIdx.x)] * weight;
        }
      }
  }
  store_tile(sums, sent, a.x, a.ldx, a.epilogue, t, at, a.H, a.W, in);
}

/// sums[part][tap][F] of the tiles part, part + parts and so on of every image.
__global__ void __launch_bounds__(tile_threads, 1)
    depthwise_filter_grad_kernel(Gate gate, const __grid_constant__ ConvArgs a, Tiles t, float* sums, int64_t parts) {
  if (closed(gate)) return;
  float* image = dynamic_shared<float>();
  float* sent = image + t.rows * t.across * tile_lanes;
  SHARED(float, of_warps, [tile_warps][tile_lanes]);
  const int64_t strip = blockIdx.x % t.groups, part = blockIdx.x / t.groups;
  const int taps = int(a.R * a.S), wide = int(t.wide);
  int place[depthwise_taps];
  float sum[depthwise_taps] = {};
#pragma unroll
  for (int tap = 0; tap < depthwise_taps; tap++)
    place[tap] = int(tap / int(a.S) * a.dilation_h * t.across + tap % int(a.S) * a.dilation_w) * tile_lanes + int(threadIdx.x);
  for (int64_t tile = part; tile < a.B * t.down * t.along; tile += parts) {
    const TilePlace at(t, tile * t.groups + strip);
    const bool in = at.c < a.F;
    __syncthreads();
    load_patch(image, a.x + at.b * a.H * a.W * a.ldx + at.c / (a.F / a.C), a.ldx, a.H, a.W, at.h * a.stride_h - a.pad_top,
               at.w * a.stride_w - a.pad_left, t.rows, t.across, in);
    load_patch(sent, a.y + at.b * a.P * a.Q * a.ldy + at.c, a.ldy, a.P, a.Q, at.h, at.w, t.high, t.wide, in);
    __syncthreads();
    for (int i = threadIdx.y; i < int(t.high * t.wide); i += tile_warps) {
      const float dy = sent[i * tile_lanes + threadIdx.x];
      const float* from = image + (i / wide * int(a.stride_h * t.across) + i % wide * int(a.stride_w)) * tile_lanes;
#pragma unroll
      for (int tap = 0; tap < depthwise_taps; tap++)
        if (tap < taps) sum[tap] += from[place[tap]] * dy;
    }
  }
  const int64_t f = strip * tile_lanes + threadIdx.x;
#pragma unroll
  for (int tap = 0; tap < depthwise_taps; tap++) {
    if (tap >= taps) break;
    __syncthreads();
    of_warps[threadIdx.y][threadIdx.x] = sum[tap];
    __syncthreads();
    if (threadIdx.y || f >= a.F) continue;
    float total = 0;
    for (int k = 0; k < tile_warps; k++) total += of_warps[k][threadIdx.x];
    sums[(part * taps + tap) * a.F + f] = total;
  }
}

__global__ void __launch_bounds__(tile_threads) add_parts_kernel(Gate gate, const float* sums, float* to, int64_t n, int64_t parts) {
  if (closed(gate)) return;
  for (int64_t i = first_index(); i < n; i += grid_stride()) {
    float total = 0;
    for (int64_t part = 0; part < parts; part++) total += sums[part * n + i];
    to[i] = total;
  }
}

// ---------------------------------------------------------------- large windows: a thread for each result
__global__ void __launch_bounds__(tile_threads) depthwise_large_kernel(Gate gate, ConvArgs a) {
  if (closed(gate)) return;
  const int64_t each = a.F / a.C;
  for (int64_t i = first_index(); i < a.B * a.P * a.Q * a.F; i += grid_stride()) {
    int64_t f = i % a.F, at = i / a.F, q = at % a.Q, p = at / a.Q % a.P, b = at / a.Q / a.P;
    float sum = 0;
    for (int64_t r = 0; r < a.R; r++)
      for (int64_t s = 0; s < a.S; s++) {
        int64_t h = p * a.stride_h + r * a.dilation_h - a.pad_top, w = q * a.stride_w + s * a.dilation_w - a.pad_left;
        if (h >= 0 && h < a.H && w >= 0 && w < a.W)
          sum += a.x[((b * a.H + h) * a.W + w) * a.ldx + f / each] * a.w[(r * a.S + s) * a.F + f];
      }
    a.y[at * a.ldy + f] = sum;
  }
}

__global__ void __launch_bounds__(tile_threads, 1) depthwise_input_grad_large_kernel(Gate gate, ConvArgs a) {
  if (closed(gate)) return;
  const int64_t each = a.F / a.C;
  for (int64_t i = first_index(); i < a.B * a.H * a.W * a.C; i += grid_stride()) {
    int64_t c = i % a.C, at = i / a.C, w = at % a.W, h = at / a.W % a.H, b = at / a.W / a.H;
    float sum = 0;
    for (int64_t r = 0; r < a.R; r++)
      for (int64_t s = 0; s < a.S; s++) {
        int64_t u = h + a.pad_top - r * a.dilation_h, v = w + a.pad_left - s * a.dilation_w;
        if (u < 0 || v < 0 || u % a.stride_h || v % a.stride_w) continue;
        u /= a.stride_h, v /= a.stride_w;
        if (u >= a.P || v >= a.Q) continue;
        for (int64_t e = 0; e < each; e++)
          sum += a.y[((b * a.P + u) * a.Q + v) * a.ldy + c * each + e] * a.w[(r * a.S + s) * a.F + c * each + e];
      }
    a.x[at * a.ldx + c] = sum;
  }
}

/// A block for each tap and 32 filters: 8 threads share the pixels of a filter, then add up in order.
__global__ void __launch_bounds__(tile_threads) depthwise_filter_grad_large_kernel(Gate gate, ConvArgs a) {
  if (closed(gate)) return;
  SHARED(float, sums, [tile_warps][tile_lanes]);
  const int64_t each = a.F / a.C, strips = (a.F + tile_lanes - 1) / tile_lanes;
  const int64_t tap = blockIdx.x / strips, r = tap / a.S, s = tap % a.S, f = blockIdx.x % strips * tile_lanes + threadIdx.x;
  float sum = 0;
  if (f < a.F)
    for (int64_t at = threadIdx.y; at < a.B * a.P * a.Q; at += tile_warps) {
      int64_t q = at % a.Q, p = at / a.Q % a.P, b = at / a.Q / a.P;
      int64_t h = p * a.stride_h + r * a.dilation_h - a.pad_top, w = q * a.stride_w + s * a.dilation_w - a.pad_left;
      if (h >= 0 && h < a.H && w >= 0 && w < a.W) sum += a.x[((b * a.H + h) * a.W + w) * a.ldx + f / each] * a.y[at * a.ldy + f];
    }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y || f >= a.F) return;
  for (int k = 1; k < tile_warps; k++) sum += sums[k][threadIdx.x];
  a.w[tap * a.F + f] = sum;
}

// ---------------------------------------------------------------- launches
/// Tiles of an image of results with what they keep in shared memory: a patch, or the results themselves, beside `more` pixels.
template <class ReachH, class ReachW>
Tiles depthwise_tiles(int64_t H, int64_t W, int64_t C, int64_t more, bool both, const ReachH& reach_h, const ReachW& reach_w,
                      size_t& bytes) {
  auto room = [&](const Tiles& t) {
    const int64_t results = t.high * t.wide, patch = t.rows * t.across;
    return size_t((both ? patch + results : larger(patch, results)) + more) * tile_lanes * 4;
  };
  const Tiles t = tiles_of(H, W, C, reach_h, reach_w, room);
  bytes = room(t);
  return t;
}
Tiles tiles_of_outputs(const ConvArgs& a, int64_t more, bool both, size_t& bytes) {
  return depthwise_tiles(
      a.P, a.Q, a.F, more, both, [&](int64_t n) { return (n - 1) * a.stride_h + (a.R - 1) * a.dilation_h + 1; },
      [&](int64_t n) { return (n - 1) * a.stride_w + (a.S - 1) * a.dilation_w + 1; }, bytes);
}

void depthwise_forward(const ConvArgs& a, CudaStream& s) {
  size_t bytes;
  const Tiles t = tiles_of_outputs(a, a.R * a.S, false, bytes);
  if (t.fit)
    return launch_with(s, "conv2d_depthwise", depthwise_kernel, blocks_of(t.count(a.B)), dim3(tile_lanes, tile_warps), bytes, a,
                       t);
  launch(s, "conv2d_depthwise", depthwise_large_kernel, blocks_for(s, a.B * a.P * a.Q * a.F, tile_threads), tile_threads, a);
  finish_epilogue(s, a.epilogue, a.y, a.B * a.P * a.Q, a.F, a.ldy);
}

void depthwise_input_grad(const ConvArgs& a, CudaStream& s) {
  size_t bytes;
  const Tiles t = depthwise_tiles(
      a.H, a.W, a.C, a.R * a.S, false, [&](int64_t n) { return (n - 1 + (a.R - 1) * a.dilation_h) / a.stride_h + 1; },
      [&](int64_t n) { return (n - 1 + (a.S - 1) * a.dilation_w) / a.stride_w + 1; }, bytes);
  if (t.fit)
    return launch_with(s, "conv2d_input_grad_depthwise", depthwise_input_grad_kernel, blocks_of(t.count(a.B)),
                       dim3(tile_lanes, tile_warps), bytes, a, t);
  launch(s, "conv2d_input_grad_depthwise", depthwise_input_grad_large_kernel, blocks_for(s, a.B * a.H * a.W * a.C, tile_threads),
         tile_threads, a);
  finish_epilogue(s, a.epilogue, a.x, a.B * a.H * a.W, a.C, a.ldx);
}

void depthwise_filter_grad(const ConvArgs& a, CudaStream& s) {
  size_t bytes;
  const Tiles t = tiles_of_outputs(a, 0, true, bytes);
  const dim3 block(tile_lanes, tile_warps);
  if (!t.fit || a.R * a.S > depthwise_taps)
    return launch(s, "conv2d_filter_grad_depthwise", depthwise_filter_grad_large_kernel, blocks_of(a.R * a.S * t.groups), block,
                  a);
  const int64_t parts = larger(1, smaller(depthwise_parts(a.F), pieces(a.B * t.down * t.along, 2)));
  float* sums = parts > 1 ? reinterpret_cast<float*>(a.workspace) : a.w;
  launch_with(s, "conv2d_filter_grad_depthwise", depthwise_filter_grad_kernel, blocks_of(parts * t.groups), block, bytes, a, t,
              sums, parts);
  const int64_t n = a.R * a.S * a.F;
  if (parts > 1) launch(s, "add_parts", add_parts_kernel, blocks_for(s, n, tile_threads), tile_threads, sums, a.w, n, parts);
}

}  // namespace
}  // namespace dagrt
