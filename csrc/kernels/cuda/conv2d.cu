// Convolutions as implicit GEMM, channels last, and direct kernels for depthwise ones.
//   forward       M = B P Q pixels, N = F, K = R S C:  A(m, k) a pixel of x under a tap, zero outside the image
//   input grad    M = B H W, N = C, K = R S F:         A(m, k) a pixel of dy, zero where the stride leaves none
//   filter grad   M = R S C, N = F, K = B P Q:         the forward's A transposed
// Groups are batches of the product. Four channels are loaded at once where they lie together and aligned.
#include "kernels/conv2d.h"

#include "kernels/cuda/gemm.cuh"

namespace dagrt {
namespace {

/// Pixels (b, u, v) of an image [., H, W, ld] that outputs (b, p, q) see through taps (r, s) and channels c:
///   u = (p step_h + r tap_h + off_h) / div_h, where that divides evenly and lies inside; v alike.
struct Pixels {
  const float* image;
  Divider by_pq, by_q, by_sc, by_c;
  int64_t pixels, depth, ld;
  int H, W, step_h, step_w, tap_h, tap_w, off_h, off_w, div_h, div_w;
  struct Row {
    const float* p;
    int h, w;
  };
  struct Col {
    int h, w, c;
  };
  DAGRT_DEVICE Row row_at(int64_t i) const {
    if (i >= pixels) return {nullptr, 0, 0};
    uint32_t n = uint32_t(i), b = by_pq.divide(n), pq = n - b * by_pq.d, p = by_q.divide(pq), q = pq - p * by_q.d;
    return {image + int64_t(b) * H * W * ld, int(p) * step_h + off_h, int(q) * step_w + off_w};
  }
  DAGRT_DEVICE Col col_at(int64_t k) const {
    if (k >= depth) return {0, 0, -1};
    uint32_t n = uint32_t(k), r = by_sc.divide(n), sc = n - r * by_sc.d, s = by_c.divide(sc);
    return {int(r) * tap_h, int(s) * tap_w, int(sc - s * by_c.d)};
  }
  DAGRT_DEVICE const float* at(const Row& r, const Col& c) const {
    if (!r.p || c.c < 0) return nullptr;
    int h = r.h + c.h, w = r.w + c.w;
    if (div_h > 1) {
      if (h % div_h) return nullptr;
      h /= div_h;
    }
    if (div_w > 1) {
      if (w % div_w) return nullptr;
      w /= div_w;
    }
    if (unsigned(h) >= unsigned(H) || unsigned(w) >= unsigned(W)) return nullptr;
    return r.p + (int64_t(h) * W + w) * ld + c.c;
  }
  DAGRT_DEVICE void move(int64_t by) { image += by; }
};

/// X(i, k) with rows and depths of the loader exchanged.
template <class L> struct Transposed {
  L l;
  using Row = typename L::Col;
  using Col = typename L::Row;
  DAGRT_DEVICE Row row_at(int64_t i) const { return l.col_at(i); }
  DAGRT_DEVICE Col col_at(int64_t k) const { return l.row_at(k); }
  DAGRT_DEVICE const float* at(const Row& r, const Col& c) const { return l.at(c, r); }
  DAGRT_DEVICE void move(int64_t by) { l.move(by); }
};

/// The weights as B(n = c, k = (r, s, f)) = w[r, s, c, f].
struct TapsByFilter {
  const float* w;
  Divider by_f;
  int64_t channels, depth, line, F;  // line: elements from one tap to the next
  struct Row {
    int64_t offset;
  };
  struct Col {
    int64_t offset;
  };
  DAGRT_DEVICE Row row_at(int64_t i) const { return {i < channels ? i * F : -1}; }
  DAGRT_DEVICE Col col_at(int64_t k) const {
    if (k >= depth) return {-1};
    uint32_t tap = by_f.divide(uint32_t(k));
    return {tap * line + int64_t(uint32_t(k) - tap * by_f.d)};
  }
  DAGRT_DEVICE const float* at(const Row& r, const Col& c) const {
    return r.offset >= 0 && c.offset >= 0 ? w + r.offset + c.offset : nullptr;
  }
  DAGRT_DEVICE void move(int64_t by) { w += by; }
};

Pixels pixels_of_x(const ConvArgs& a) {
  const int64_t c = a.C / a.groups;
  Pixels p{};
  p.image = a.x, p.ld = a.ldx, p.H = int(a.H), p.W = int(a.W);
  p.by_pq = Divider(a.P * a.Q), p.by_q = Divider(a.Q), p.by_sc = Divider(a.S * c), p.by_c = Divider(c);
  p.pixels = a.B * a.P * a.Q, p.depth = a.R * a.S * c;
  p.step_h = int(a.stride_h), p.step_w = int(a.stride_w), p.tap_h = int(a.dilation_h), p.tap_w = int(a.dilation_w);
  p.off_h = -int(a.pad_top), p.off_w = -int(a.pad_left), p.div_h = p.div_w = 1;
  return p;
}

Pixels pixels_of_dy(const ConvArgs& a) {
  const int64_t f = a.F / a.groups;
  Pixels p{};
  p.image = a.y, p.ld = a.ldy, p.H = int(a.P), p.W = int(a.Q);
  p.by_pq = Divider(a.H * a.W), p.by_q = Divider(a.W), p.by_sc = Divider(a.S * f), p.by_c = Divider(f);
  p.pixels = a.B * a.H * a.W, p.depth = a.R * a.S * f;
  p.step_h = p.step_w = 1, p.tap_h = -int(a.dilation_h), p.tap_w = -int(a.dilation_w);
  p.off_h = int(a.pad_top), p.off_w = int(a.pad_left), p.div_h = int(a.stride_h), p.div_w = int(a.stride_w);
  return p;
}

/// Groups as batches: how far image, weights and result move from one to the next.
Jobs groups_of(const ConvArgs& a, int64_t K, int64_t da, int64_t db, int64_t dc) {
  Jobs j{};
  j.K = K;
  j.partials = reinterpret_cast<float*>(a.workspace);
  if (a.groups > 1) j.batch_rank = 1, j.batch[0] = a.groups, j.a_batch[0] = da, j.b_batch[0] = db, j.c_batch[0] = dc;
  j.bias_batch = j.residual_batch = dc;
  return j;
}

bool fours(const ConvArgs& a) {  // four channels of x, of y and of the weights' innermost axis lie together
  const int64_t c = a.C / a.groups, f = a.F / a.groups;
  return c % 4 == 0 && f % 4 == 0 && a.ldx % 4 == 0 && a.ldy % 4 == 0 && aligned_16(a.x) && aligned_16(a.y) && aligned_16(a.w);
}

// ---------------------------------------------------------------- one channel for each group
constexpr int threads = 256;

bool depthwise(const ConvArgs& a) { return a.groups > 1 && a.groups == a.C; }

/// w is [R, S, F], F = C times a multiplier.
__global__ void depthwise_kernel(Gate gate, ConvArgs a) {
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

__global__ void depthwise_input_grad_kernel(Gate gate, ConvArgs a) {
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
__global__ void depthwise_filter_grad_kernel(Gate gate, ConvArgs a) {
  if (closed(gate)) return;
  SHARED(float, sums, [8][32]);
  const int64_t each = a.F / a.C, strips = (a.F + 31) / 32;
  const int64_t tap = blockIdx.x / strips, r = tap / a.S, s = tap % a.S, f = blockIdx.x % strips * 32 + threadIdx.x;
  float sum = 0;
  if (f < a.F)
    for (int64_t at = threadIdx.y; at < a.B * a.P * a.Q; at += 8) {
      int64_t q = at % a.Q, p = at / a.Q % a.P, b = at / a.Q / a.P;
      int64_t h = p * a.stride_h + r * a.dilation_h - a.pad_top, w = q * a.stride_w + s * a.dilation_w - a.pad_left;
      if (h >= 0 && h < a.H && w >= 0 && w < a.W) sum += a.x[((b * a.H + h) * a.W + w) * a.ldx + f / each] * a.y[at * a.ldy + f];
    }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y || f >= a.F) return;
  for (int k = 1; k < 8; k++) sum += sums[k][threadIdx.x];
  a.w[tap * a.F + f] = sum;
}

}  // namespace

void conv2d(const ConvArgs& a, CudaStream& s) {
  if (!a.B || !a.P || !a.Q || !a.F) return;
  if (depthwise(a)) {
    launch(s, "conv2d_depthwise", depthwise_kernel, blocks_for(s, a.B * a.P * a.Q * a.F, threads), threads, a);
    return finish_epilogue(s, whole_chain(a.epilogue), a.y, a.B * a.P * a.Q, a.F, a.ldy);
  }
  const int64_t c = a.C / a.groups, f = a.F / a.groups, depth = a.R * a.S * c;
  Pixels x = pixels_of_x(a);
  Matrix w{a.w, 1, a.F, f, depth};
  Target y{a.y, a.ldy, a.B * a.P * a.Q, f};
  Jobs jobs = groups_of(a, depth, c, f, f);
  begin_epilogue(a.epilogue, y);
  if (fours(a))
    gemm<Pixels, Matrix, true, false, 4, 4>(s, "conv2d", x, w, y, jobs);
  else
    gemm<Pixels, Matrix, true, false, 1, 1>(s, "conv2d", x, w, y, jobs);
  finish_epilogue(s, a.epilogue, a.y, y.M, a.F, a.ldy);
}

void conv2d_input_grad(const ConvArgs& a, CudaStream& s) {
  if (!a.B || !a.H || !a.W || !a.C) return;
  if (depthwise(a)) {
    launch(s, "conv2d_input_grad_depthwise", depthwise_input_grad_kernel, blocks_for(s, a.B * a.H * a.W * a.C, threads), threads, a);
    return finish_epilogue(s, whole_chain(a.epilogue), a.x, a.B * a.H * a.W, a.C, a.ldx);
  }
  const int64_t c = a.C / a.groups, f = a.F / a.groups, depth = a.R * a.S * f;
  Pixels dy = pixels_of_dy(a);
  TapsByFilter w{a.w, Divider(larger(f, 1)), c, depth, c * a.F, a.F};
  Target dx{a.x, a.ldx, a.B * a.H * a.W, c};
  Jobs jobs = groups_of(a, depth, f, f, c);
  begin_epilogue(a.epilogue, dx);
  if (fours(a))
    gemm<Pixels, TapsByFilter, true, true, 4, 4>(s, "conv2d_input_grad", dy, w, dx, jobs);
  else
    gemm<Pixels, TapsByFilter, true, true, 1, 1>(s, "conv2d_input_grad", dy, w, dx, jobs);
  finish_epilogue(s, a.epilogue, a.x, dx.M, a.C, a.ldx);
}

void conv2d_filter_grad(const ConvArgs& a, CudaStream& s) {
  const int64_t c = a.C / a.groups, f = a.F / a.groups, taps = a.R * a.S * c;
  if (!taps || !f) return;
  if (depthwise(a))
    return launch(s, "conv2d_filter_grad_depthwise", depthwise_filter_grad_kernel, unsigned(a.R * a.S * pieces(a.F, 32)),
                  dim3(32, 8), a);
  Transposed<Pixels> x{pixels_of_x(a)};
  const int64_t outputs = a.B * a.P * a.Q;
  Matrix dy{a.y, 1, a.ldy, f, outputs};
  Target dw{a.w, a.F, taps, f};
  Jobs jobs = groups_of(a, outputs, c, f, f);
  if (fours(a))
    gemm<Transposed<Pixels>, Matrix, false, false, 4, 4>(s, "conv2d_filter_grad", x, dy, dw, jobs);
  else
    gemm<Transposed<Pixels>, Matrix, false, false, 1, 1>(s, "conv2d_filter_grad", x, dy, dw, jobs);
}

}  // namespace dagrt
