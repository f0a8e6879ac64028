// Convolutions as implicit GEMM, channels last; depthwise ones are in depthwise.cuh.
//   forward       M = B P Q pixels, N = F, K = R S C:  A(m, k) a pixel of x under a tap, zero outside the image
//   input grad    M = B H W, N = C, K = R S F:         A(m, k) a pixel of dy
//   filter grad   M = R S C, N = F, K = B P Q:         the forward's A transposed
// Under a stride an input pixel meets only those taps that lie a multiple of the stride away from it: the input gradient is one
// product for each remainder of (h, w), with the taps of that remainder, so that no zeros are multiplied.
// Groups are batches of the product. Four channels are loaded at once where they lie together and aligned; of bfloat16
// always eight. Of an image of few
// channels the part of its rows that a tile's windows see is brought into shared memory, in whole sectors and each value
// once, and the tiles are made from there.
#include "kernels/bf16.h"

#include "kernels/cuda/depthwise.cuh"
#include "kernels/cuda/gemm.cuh"

namespace dagrt {
namespace {

constexpr ProductName conv2d_name("conv2d"), conv2d_input_grad_name("conv2d_input_grad"),
    conv2d_filter_grad_name("conv2d_filter_grad"), conv2d_bf16_name("conv2d_bf16"),
    conv2d_input_grad_bf16_name("conv2d_input_grad_bf16"), conv2d_filter_grad_bf16_name("conv2d_filter_grad_bf16");

/// A walk along k = (r, s, c) of a window: no division from one tile to the next.
struct Taps {
  Divider by_sc, by_c;
  int64_t depth;
  struct At {
    int64_t k;
    int r, s, c;
  };
  Taps() = default;
  Taps(int64_t R, int64_t S, int64_t C) : by_sc(S * C), by_c(C), depth(R * S * C) {}
  DAGRT_DEVICE At at(int64_t k) const {
    uint32_t n = uint32_t(k), r = by_sc.divide(n), sc = n - r * by_sc.d, s = by_c.divide(sc);
    return {k, int(r), int(s), int(sc - s * by_c.d)};
  }
  DAGRT_DEVICE void next(At& a, int columns) const {
    const int C = int(by_c.d), SC = int(by_sc.d);
    a.k += columns, a.c += columns;
    while (a.c >= C) {
      a.c -= C, a.s++;
      if (a.s * C == SC) a.s = 0, a.r++;
    }
  }
};

/// Pixels (b, u, v) of an image [., H, W, ld] that outputs (b, p, q) see through taps (r, s) and channels c:
///   u = p step_h + r tap_h + off_h, where that lies inside; v alike.
template <class T> struct PixelsOf {
  using Element = T;
  const T* image;
  Divider by_pq, by_q;
  Taps taps;
  int64_t pixels, ld;
  int H, W, step_h, step_w, tap_h, tap_w, off_h, off_w;
  static constexpr int outside = 1 << 29;
  struct Row {
    int64_t offset;
    int h, w;
  };
  struct Col {
    Taps::At at;
    int64_t offset;
    int h, w;
  };
  DAGRT_DEVICE Row row_at(int64_t i) const {
    if (i >= pixels) return {0, outside, outside};
    uint32_t n = uint32_t(i), b = by_pq.divide(n), pq = n - b * by_pq.d, p = by_q.divide(pq), q = pq - p * by_q.d;
    const int h = int(p) * step_h + off_h, w = int(q) * step_w + off_w;
    return {((int64_t(b) * H + h) * W + w) * ld, h, w};
  }
  DAGRT_DEVICE Col col_at(int64_t k) const { return place(taps.at(k)); }
  DAGRT_DEVICE void next(Col& c) const {
    taps.next(c.at, columns_of<T>);
    c = place(c.at);
  }
  DAGRT_DEVICE Col place(const Taps::At& a) const {
    const int h = a.r * tap_h, w = a.s * tap_w;
    return {a, (int64_t(h) * W + w) * ld + a.c, a.k < taps.depth ? h : outside, w};
  }
  DAGRT_DEVICE const T* at(const Row& r, const Col& c) const {
    return unsigned(r.h + c.h) < unsigned(H) && unsigned(r.w + c.w) < unsigned(W) ? image + (r.offset + c.offset) : nullptr;
  }
  DAGRT_DEVICE void move(int64_t by) { image += by; }
};
using Pixels = PixelsOf<float>;

/// What windows of `run` pixels in order, from any, see of an image: for each row of outputs that they lie in and each row of the
/// windows, a line of all channels. Lines stand so far apart that consecutive taps (r, s, c) are in consecutive banks, and, where
/// rows of outputs are short enough to be held whole, that pixels are too from one row to the next.
struct Strip {
  Pixels x;
  int run, C, R, S, rows, pitch, parts, part;  // rows: of the windows, that are brought at once; parts: rows of outputs at most
  struct Pixel {
    int at, h, w;
  };
  Strip(const Pixels& x, int run, int64_t C, int64_t R, int64_t S, int64_t rows)
      : x(x), run(run), C(int(C)), R(int(R)), S(int(S)), rows(int(rows)) {
    const int Q = int(x.by_q.d), most = Q < run ? Q : run;
    pitch = ((most - 1) * x.step_w + (this->S - 1) * x.tap_w + 1) * this->C;
    pitch += ((this->S * this->C - pitch) % 32 + 32) % 32;
    parts = (run + Q - 2) / Q + 1;
    part = this->rows * pitch;
    if (Q <= run) part += ((Q * x.step_w * this->C - part) % 32 + 32) % 32;
  }
  DAGRT_HOST_DEVICE int floats() const { return parts * part; }
  /// The first output of a line that is held, of the first output q that is seen.
  DAGRT_DEVICE int from(int q) const { return int(x.by_q.d) <= run ? 0 : q; }

  DAGRT_DEVICE Pixel pixel(int64_t i, int64_t first) const {
    if (i >= x.pixels) return {0, Pixels::outside, Pixels::outside};
    const uint32_t n = uint32_t(i), Q = x.by_q.d, line = x.by_q.divide(n), q = n - line * Q;
    const uint32_t line0 = x.by_q.divide(uint32_t(first)), b = x.by_pq.divide(n), p = x.by_q.divide(n - b * x.by_pq.d);
    const int from0 = line == line0 ? from(int(uint32_t(first) - line0 * Q)) : 0;
    return {int(line - line0) * part + (int(q) - from0) * x.step_w * C, int(p) * x.step_h + x.off_h,
            int(q) * x.step_w + x.off_w};
  }
  /// Starts the copies of what pixels first to first + run see in rows r0 to r0 + rows of their windows.
  DAGRT_DEVICE void bring(float* to, int64_t first, int r0) const {
    const int Q = int(x.by_q.d), line0 = int(x.by_q.divide(uint32_t(first))), lane = threadIdx.x % 32;
    const int end = int(smaller(first + run, x.pixels));
    for (int n = threadIdx.x / 32; n < parts * rows; n += blockDim.x / 32) {
      const int line = line0 + n / rows, r = r0 + n % rows;
      const int q0 = line == line0 ? int(first) - line0 * Q : 0, q1 = int(smaller(Q, end - line * Q));
      if (q0 >= q1 || r >= R) continue;
      const int b = int(x.by_pq.divide(uint32_t(line * Q))), p = int(x.by_q.divide(uint32_t(line * Q) - b * x.by_pq.d));
      const int h = p * x.step_h + r * x.tap_h + x.off_h, left = from(q0) * x.step_w + x.off_w;
      const int seen = q0 * x.step_w + x.off_w, w0 = seen < 0 ? 0 : seen, w1 = int(smaller(x.W, (q1 - 1) * x.step_w + x.off_w + (S - 1) * x.tap_w + 1));
      if (unsigned(h) >= unsigned(x.H) || w0 >= w1) continue;
      const float* begin = x.image + ((int64_t(b) * x.H + h) * x.W + w0) * C;
      float* place = to + n / rows * part + n % rows * pitch + (w0 - left) * C;
      // Lanes keep to whole lines of 128 bytes.
      for (int i = lane - int(reinterpret_cast<uintptr_t>(begin) / 4 % 32); i < (w1 - w0) * C; i += 32)
        if (i >= 0) copy_async<4>(place + i, begin + i);
    }
  }
};

/// The forward's A from a strip: all that a tile's 64 pixels see, brought before its first step.
struct StripPixels : Strip {
  const float* strip = nullptr;
  int64_t first = 0;
  int partner;  // slots whose pixels stand half of all banks apart
  using Row = Pixel;
  struct Col {
    Taps::At at;
    int offset, h, w;
  };
  StripPixels(const Pixels& x, int64_t C, int64_t R, int64_t S) : Strip(x, 64, C, R, S, R) {
    const int apart = x.step_w * this->C;
    partner = apart % 2 ? 1 : apart % 4 ? 5 : 3;
  }
  DAGRT_DEVICE void start(float* to, int64_t m0, int64_t, int) {
    strip = to, first = m0;
    bring(to, m0, 0);
  }
  DAGRT_DEVICE void proceed(int) const {}
  DAGRT_DEVICE Row row_at(int64_t i) const { return pixel(i, first); }
  DAGRT_DEVICE Col col_at(int64_t k) const { return place(x.taps.at(k)); }
  DAGRT_DEVICE void next(Col& c) const {
    x.taps.next(c.at, gemm_bk);
    c = place(c.at);
  }
  DAGRT_DEVICE Col place(const Taps::At& a) const {
    return {a, a.r * pitch + a.s * x.tap_w * C + a.c, a.k < x.taps.depth ? a.r * x.tap_h : Pixels::outside, a.s * x.tap_w};
  }
  DAGRT_DEVICE float value(const Row& r, const Col& c) const {
    return unsigned(r.h + c.h) < unsigned(x.H) && unsigned(r.w + c.w) < unsigned(x.W) ? strip[r.at + c.offset] : 0.0f;
  }
  DAGRT_DEVICE void move(int64_t) {}
};

/// The filter gradient's: rows are taps, and pixels come 32 at a time, two steps; the chunk after next is under way.
struct StripTaps : Strip {
  static constexpr int chunks = 3, chunk = 32;
  float* strip = nullptr;
  int64_t first = 0;
  int end = 0, r0 = 0;
  struct Row {
    int offset, h, w;
  };
  struct Col {
    int64_t k;
    Pixel pixel;
  };
  StripTaps(const Pixels& x, int64_t C, int64_t R, int64_t S)
      : Strip(x, chunk, C, R, S, smaller(R, (63 + S * C - 1) / (S * C) + 1)) {}
  DAGRT_HOST_DEVICE int floats() const { return chunks * Strip::floats(); }
  DAGRT_DEVICE void start(float* to, int64_t m0, int64_t k0, int steps) {
    strip = to, first = k0, end = steps;
    r0 = int(uint32_t(m0) / uint32_t(S * C));
    for (int n = 0; n < chunks - 1; n++) fill(n);
  }
  DAGRT_DEVICE void fill(int n) const {
    if (n * chunk < end * gemm_bk) bring(strip + n % chunks * Strip::floats(), first + n * chunk, r0);
  }
  DAGRT_DEVICE void proceed(int step) const {
    if (step * gemm_bk % chunk == 0) fill(step * gemm_bk / chunk + chunks - 1);
  }
  DAGRT_DEVICE Row row_at(int64_t i) const {
    const Taps::At a = x.taps.at(i);
    return {(a.r - r0) * pitch + a.s * x.tap_w * C + a.c, i < x.taps.depth ? a.r * x.tap_h : Pixels::outside, a.s * x.tap_w};
  }
  DAGRT_DEVICE Col col_at(int64_t k) const {
    const int n = int(k - first) / chunk;
    Col c{k, pixel(k, first + n * chunk)};
    c.pixel.at += n % chunks * Strip::floats();
    return c;
  }
  DAGRT_DEVICE void next(Col& c) const { c = col_at(c.k + gemm_bk); }
  DAGRT_DEVICE float value(const Row& r, const Col& c) const {
    return unsigned(r.h + c.pixel.h) < unsigned(x.H) && unsigned(r.w + c.pixel.w) < unsigned(x.W) ? strip[r.offset + c.pixel.at] : 0.0f;
  }
  DAGRT_DEVICE void move(int64_t) {}
};

/// The weights as B(n = c, k = (r, s, f)) = w[first + r line + s column, c, f], of a lattice of taps.
template <class T> struct TapsByFilter {
  using Element = T;
  const T* w;
  Taps taps;
  int64_t channels, F, first, line, column;  // in elements
  struct Row {
    int64_t offset;
  };
  struct Col {
    Taps::At at;
    int64_t offset;
  };
  DAGRT_DEVICE Row row_at(int64_t i) const { return {i < channels ? i * F : -1}; }
  DAGRT_DEVICE Col col_at(int64_t k) const { return place(taps.at(k)); }
  DAGRT_DEVICE void next(Col& c) const {
    taps.next(c.at, columns_of<T>);
    c = place(c.at);
  }
  DAGRT_DEVICE Col place(const Taps::At& a) const {
    return {a, a.k < taps.depth ? first + a.r * line + a.s * column + a.c : -1};
  }
  DAGRT_DEVICE const T* at(const Row& r, const Col& c) const {
    return r.offset >= 0 && c.offset >= 0 ? w + r.offset + c.offset : nullptr;
  }
  DAGRT_DEVICE void move(int64_t by) { w += by; }
};

template <class T> PixelsOf<T> pixels_of_x(const ConvArgs& a, const T* x) {
  PixelsOf<T> p{};
  p.image = x, p.ld = a.ldx, p.H = int(a.H), p.W = int(a.W);
  p.by_pq = Divider(a.P * a.Q), p.by_q = Divider(a.Q), p.taps = Taps(a.R, a.S, a.C / a.groups);
  p.pixels = a.B * a.P * a.Q;
  p.step_h = int(a.stride_h), p.step_w = int(a.stride_w), p.tap_h = int(a.dilation_h), p.tap_w = int(a.dilation_w);
  p.off_h = -int(a.pad_top), p.off_w = -int(a.pad_left);
  return p;
}

/// One axis of the input gradient for the positions first, first + stride, ...: the taps that reach them, and where.
///   u stride = h + pad - r dilation, with h = first + i stride and r = tap + j every: u = i + offset - j reach
struct Remainder {
  int64_t first, count, tap = 0, every, taps = 0, offset = 0, reach;
  Remainder(int64_t first, int64_t size, int64_t stride, int64_t pad, int64_t dilation, int64_t window)
      : first(first), count(pieces(size - first, stride)), every(1) {
    while (every * dilation % stride) every++;
    reach = every * dilation / stride;
    while (tap < every && (first + pad - tap * dilation) % stride) tap++;
    if (tap == every || tap >= window) return;
    taps = pieces(window - tap, every);
    offset = (first + pad - tap * dilation) / stride;
  }
};

/// Groups as batches: how far image, weights and result move from one to the next.
Jobs groups_of(const ConvArgs& a, int64_t K, int64_t da, int64_t db, int64_t dc) {
  Jobs j{};
  j.K = K;
  j.partials = reinterpret_cast<float*>(a.workspace);
  if (a.groups > 1) j.batch_rank = 1, j.batch[0] = a.groups, j.a_batch[0] = da, j.b_batch[0] = db, j.c_batch[0] = dc;
  j.col_batch = dc;
  return j;
}

bool fours(const ConvArgs& a) {  // four channels of x, of y and of the weights' innermost axis lie together
  const int64_t c = a.C / a.groups, f = a.F / a.groups;
  return c % 4 == 0 && f % 4 == 0 && a.ldx % 4 == 0 && a.ldy % 4 == 0 && aligned_16(a.x) && aligned_16(a.y) && aligned_16(a.w);
}

/// Whether a product's image comes by way of a strip: tensor cores, few channels that lie together, the rest by fours.
bool strips(const ConvArgs& a, const CudaStream& s) {
  return !s.exact && s.capability >= 80 && a.groups == 1 && a.C < 4 && a.ldx == a.C && a.F % 4 == 0 && a.ldy % 4 == 0 &&
         aligned_16(a.y) && aligned_16(a.w);
}
constexpr int most_strip = 8192;  // floats

/// The widest copies that operands allow.
template <bool a_k, bool b_k, class A, class B>
void multiply(CudaStream& s, const ProductName& name, const ConvArgs& c, const A& a, const B& b, const Target& to, const Jobs& jobs) {
  if constexpr (is_bf16<typename ElementOf<A>::type>)
    gemm<A, B, a_k, b_k, 8>(s, name, a, b, to, jobs);
  else if (fours(c))
    gemm<A, B, a_k, b_k, 4>(s, name, a, b, to, jobs);
  else
    gemm<A, B, a_k, b_k, 1>(s, name, a, b, to, jobs);
}

/// Where y, x or w is written; of bfloat16 with `narrow`.
struct Written {
  float* p;
  bool narrow = false;
};

template <class T> void forward(const ConvArgs& a, CudaStream& s, const ProductName& name, const T* image, const T* weights, Written y) {
  const int64_t c = a.C / a.groups, f = a.F / a.groups, depth = a.R * a.S * c;
  const PixelsOf<T> x = pixels_of_x(a, image);
  const MatrixOf<T> w{weights, 1, a.F, f, depth};
  const Target to{y.p, a.ldy, a.B * a.P * a.Q, f, a.epilogue, {}, y.narrow};
  const Jobs jobs = groups_of(a, depth, c, f, f);
  if constexpr (!is_bf16<T>)
    if (strips(a, s))
      if (const StripPixels strip(x, c, a.R, a.S); strip.floats() <= most_strip)
        return gemm<StripPixels, Matrix, true, false, 4>(s, name, strip, w, to, jobs);
  multiply<true, false>(s, name, a, x, w, to, jobs);
}

template <class T> void input_grad(const ConvArgs& a, CudaStream& s, const ProductName& name, const T* y, const T* w, Written x) {
  constexpr int64_t bytes = sizeof(T);
  const int64_t c = a.C / a.groups, f = a.F / a.groups;
  const StridedSplits cut(a.groups, a.B, a.H, a.W, a.R, a.S, a.stride_h, a.stride_w, c, f, bytes);
  for (int64_t h = 0; h < smaller(a.stride_h, a.H); h++)
    for (int64_t v = 0; v < smaller(a.stride_w, a.W); v++) {
      const Remainder rows(h, a.H, a.stride_h, a.pad_top, a.dilation_h, a.R);
      const Remainder columns(v, a.W, a.stride_w, a.pad_left, a.dilation_w, a.S);
      const bool any = rows.taps && columns.taps;
      const Taps taps(any ? rows.taps : 0, any ? columns.taps : 0, f);
      PixelsOf<T> dy{};
      dy.image = y, dy.ld = a.ldy, dy.H = int(a.P), dy.W = int(a.Q);
      dy.by_pq = Divider(rows.count * columns.count), dy.by_q = Divider(columns.count), dy.taps = taps;
      dy.pixels = a.B * rows.count * columns.count;
      dy.step_h = dy.step_w = 1, dy.tap_h = -int(rows.reach), dy.tap_w = -int(columns.reach);
      dy.off_h = int(rows.offset), dy.off_w = int(columns.offset);
      const int64_t tap = c * a.F;  // elements from one tap of the window to the next
      const TapsByFilter<T> weights{
          w, taps, c, a.F, (rows.tap * a.S + columns.tap) * tap, rows.every * a.S * tap, columns.every * tap};
      Target dx{x.p, a.ldx, dy.pixels, c, a.epilogue, {}, x.narrow};
      if (a.stride_h > 1 || a.stride_w > 1)
        dx.rows = {true, dy.by_pq, dy.by_q, a.H, a.W, h, v, a.stride_h, a.stride_w};
      Jobs jobs = groups_of(a, taps.depth, f, f, c);
      jobs.splits = taps.depth ? smaller(cut.splits, gemm_splits(a.groups, dx.M, c, taps.depth, bytes)) : 1;
      multiply<true, true>(s, name, a, dy, weights, dx, jobs);
    }
}

template <class T> void filter_grad(const ConvArgs& a, CudaStream& s, const ProductName& name, const T* image, const T* y, Written w) {
  const int64_t c = a.C / a.groups, f = a.F / a.groups, taps = a.R * a.S * c, outputs = a.B * a.P * a.Q;
  const Exchanged<PixelsOf<T>> x{pixels_of_x(a, image)};
  const MatrixOf<T> dy{y, 1, a.ldy, f, outputs};
  const Target dw{w.p, a.F, taps, f, {}, {}, w.narrow};
  const Jobs jobs = groups_of(a, outputs, c, f, f);
  if constexpr (!is_bf16<T>)
    if (strips(a, s))
      if (const StripTaps strip(x.l, c, a.R, a.S); strip.floats() <= most_strip)
        return gemm<StripTaps, Matrix, false, false, 4>(s, name, strip, dy, dw, jobs);
  multiply<false, false>(s, name, a, x, dy, dw, jobs);
}

const Bf16* in_bf16(const uint16_t* p) { return reinterpret_cast<const Bf16*>(p); }
Written written(const ConvBf16Args& a) { return {static_cast<float*>(a.to), a.narrow}; }

}  // namespace

void conv2d(const ConvArgs& a, CudaStream& s) {
  if (!a.B || !a.P || !a.Q || !a.F) return;
  if (depthwise(a)) return depthwise_forward(a, s);
  forward<float>(a, s, conv2d_name, a.x, a.w, {a.y});
}
void conv2d_bf16(const ConvBf16Args& b, CudaStream& s) {
  const ConvArgs& a = b.rest;
  if (a.B && a.P && a.Q && a.F) forward(a, s, conv2d_bf16_name, in_bf16(b.x), in_bf16(b.w), written(b));
}

void conv2d_input_grad(const ConvArgs& a, CudaStream& s) {
  if (!a.B || !a.H || !a.W || !a.C) return;
  if (depthwise(a)) return depthwise_input_grad(a, s);
  input_grad<float>(a, s, conv2d_input_grad_name, a.y, a.w, {a.x});
}
void conv2d_input_grad_bf16(const ConvBf16Args& b, CudaStream& s) {
  const ConvArgs& a = b.rest;
  if (a.B && a.H && a.W && a.C) input_grad(a, s, conv2d_input_grad_bf16_name, in_bf16(b.y), in_bf16(b.w), written(b));
}

void conv2d_filter_grad(const ConvArgs& a, CudaStream& s) {
  if (!a.R || !a.S || !a.C || !a.F) return;
  if (depthwise(a)) return depthwise_filter_grad(a, s);
  filter_grad<float>(a, s, conv2d_filter_grad_name, a.x, a.y, {a.w});
}
void conv2d_filter_grad_bf16(const ConvBf16Args& b, CudaStream& s) {
  const ConvArgs& a = b.rest;
  if (a.R && a.S && a.C && a.F) filter_grad(a, s, conv2d_filter_grad_bf16_name, in_bf16(b.x), in_bf16(b.y), written(b));
}

}  // namespace dagrt
