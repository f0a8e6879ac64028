// Convolution as products, without an image of the whole im2col matrix.
//
// Forward: a block of output pixels gathers the pixels under its windows into scratch, one row of R S C floats each (runs
// of S C floats are contiguous in the image), and is multiplied with the weights packed in panels (gemm.h). A 1 x 1
// window needs no gathering.
// Input gradient: the input pixels of one residue (h mod stride, w mod stride) see the same taps; for each residue it is a
// forward convolution of dy with those taps, window reversed.
// Filter gradient: gathered rows, transposed, times dy; window rows and runs of pixels are separate sums, added in order.
// Depthwise (one channel a group): vectors over channels, no products.
#include "kernels/conv2d.h"

#include "kernels/cpu/epilogue.h"
#include "kernels/cpu/gemm.h"

namespace dagrt::DAGRT_ISA {
namespace {

float* aligned(char* p) { return reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(p) + 63) / 64 * 64); }

void copy(float* to, const float* from, int64_t n) {
  int64_t i = 0;
  for (; i + V <= n; i += V) store(to + i, load(from + i));
  if (i < n) store_n(to + i, load_n(from + i, int(n - i)), int(n - i));
}

void zero(float* to, int64_t n) {
  int64_t i = 0;
  for (; i + V <= n; i += V) store(to + i, vf{});
  if (i < n) store_n(to + i, vf{}, int(n - i));
}

/// One axis of taps: output position i reads source position i * mul + off + k * step, for k in [0, count).
struct Axis {
  int64_t mul, off, step, count, size;  // size: of the source
};

/// The source pixels under output pixel (i, j), row by row: count_h * count_w * channels floats.
inline void gather(const float* src, int64_t ld, int64_t width, int64_t channels, const Axis& h, const Axis& w, int64_t i,
                   int64_t j, float* to) {
  int64_t w0 = j * w.mul + w.off;
  bool inside = w0 >= 0 && w0 + (w.count - 1) * w.step < w.size;
  for (int64_t r = 0; r < h.count; r++) {
    int64_t row = i * h.mul + h.off + r * h.step;
    if (row < 0 || row >= h.size) {
      zero(to, w.count * channels);
      to += w.count * channels;
      continue;
    }
    const float* line = src + row * width * ld;
    if (inside && w.step == 1 && ld == channels) {
      copy(to, line + w0 * ld, w.count * channels);
      to += w.count * channels;
      continue;
    }
    for (int64_t s = 0; s < w.count; s++, to += channels) {
      int64_t col = w0 + s * w.step;
      if (col < 0 || col >= w.size)
        zero(to, channels);
      else
        copy(to, line + col * ld, channels);
    }
  }
}

/// Weights as panels [depth][n]: row k of group g begins at line(g, k), its elements `step` apart.
template <class Line>
void pack_panels(const Stream& s, int64_t groups, int64_t n, int64_t depth, int64_t step, float* packed, const Line& line) {
  int64_t panels = (n + gemm_nr - 1) / gemm_nr;
  s.parallel(groups * panels, double(depth) * gemm_nr * 0.3, [&](int64_t unit, char*) {
    int64_t g = unit / panels, n0 = unit % panels * gemm_nr;
    float* to = packed + unit * depth * gemm_nr;
    int64_t have = n - n0 < gemm_nr ? n - n0 : gemm_nr;
    for (int64_t k = 0; k < depth; k++, to += gemm_nr) {
      const float* from = line(g, k) + n0 * step;
      if (step == 1)
        copy(to, from, have);
      else
        for (int64_t j = 0; j < have; j++) to[j] = from[j * step];
      if (have < gemm_nr) zero(to + have, gemm_nr - have);
    }
  });
}

struct Grid {  // output pixels of one pass: (i, j) lies at row h0 + i * step_h, column w0 + j * step_w of the output
  int64_t I, J, h0 = 0, w0 = 0, step_h = 1, step_w = 1;
};

/// A pass: every pixel of the grid = gathered source row x panels.
void pass(const Stream& s, int64_t B, const float* src, int64_t src_h, int64_t src_w, int64_t ld_src, int64_t src_channels,
          const Axis& h, const Axis& w, const Grid& grid, const float* packed, float* dst, int64_t dst_h, int64_t dst_w,
          int64_t ld_dst, int64_t dst_channels, int64_t groups, const Epilogue& epilogue) {
  const int64_t sc = src_channels / groups, n = dst_channels / groups;
  const int64_t depth = h.count * w.count * sc, panels = (n + gemm_nr - 1) / gemm_nr;
  const int64_t pixels = B * grid.I * grid.J;
  if (!pixels || !n) return;
  const int64_t blocks = (pixels + conv_block - 1) / conv_block;
  const bool plain = grid.step_h == 1 && grid.step_w == 1 && grid.I == dst_h && grid.J == dst_w;
  const bool in_place = plain && h.count == 1 && w.count == 1 && h.mul == 1 && w.mul == 1 && h.off == 0 && w.off == 0 &&
                        src_h == dst_h && src_w == dst_w;
  const double ns = double(conv_block) * double(depth + 8) * double(panels) * gemm_nr * (0.6 / V) + 100;
  s.parallel(blocks * groups, ns, [&](int64_t unit, char* scratch) {
    int64_t g = unit % groups, block = unit / groups;
    int64_t from = pixels * block / blocks, to = pixels * (block + 1) / blocks, rows = to - from;
    const float* a;
    int64_t a_row;
    if (in_place) {
      a = src + from * ld_src + g * sc;
      a_row = ld_src;
    } else {
      float* lines = aligned(scratch);
      for (int64_t m = 0; m < rows; m++) {
        int64_t at = from + m, j = at % grid.J, i = at / grid.J % grid.I, b = at / grid.J / grid.I;
        gather(src + b * src_h * src_w * ld_src + g * sc, ld_src, src_w, sc, h, w, i, j, lines + m * depth);
      }
      a = lines;
      a_row = depth;
    }
    float* out = plain ? dst + from * ld_dst + g * n : aligned(scratch) + (conv_block * depth + 15) / 16 * 16;
    int64_t ld = plain ? ld_dst : (n + 31) / 32 * 32;
    for (int64_t p = 0; p < panels; p++) {
      const float* panel = packed + (g * panels + p) * depth * gemm_nr;
      int columns = int(n - p * gemm_nr < gemm_nr ? n - p * gemm_nr : gemm_nr);
      const int64_t slice = 768;
      if (!depth) gemm_panel(rows, 0, a, 0, 0, panel, 0, out + p * gemm_nr, ld, columns, false);
      for (int64_t k = 0; k < depth; k += slice)
        gemm_panel(rows, depth - k < slice ? depth - k : slice, a + k, a_row, 1, panel + k * gemm_nr, gemm_nr, out + p * gemm_nr,
                   ld, columns, k > 0);
    }
    if (plain)
      apply_epilogue(epilogue, out, ld, from, g * n, rows, n);
    else
      for (int64_t m = 0; m < rows; m++) {
        int64_t at = from + m, j = at % grid.J, i = at / grid.J % grid.I, b = at / grid.J / grid.I;
        int64_t place = (b * dst_h + grid.h0 + i * grid.step_h) * dst_w + grid.w0 + j * grid.step_w;
        float* to = dst + place * ld_dst + g * n;
        copy(to, out + m * ld, n);
        apply_epilogue(epilogue, to, ld_dst, place, g * n, 1, n);
      }
  });
}

bool depthwise(const ConvArgs& a) { return is_depthwise(a.groups, a.C, a.F); }

/// y[c] += x[c] w[c] over the taps of an output pixel.
void depthwise_forward(const ConvArgs& a, const Stream& s) {
  const float* taps = a.panels ? a.panels : a.w;
  s.parallel(a.B * a.P, double(a.Q * a.C * a.R * a.S) * 0.1 + 50, [&](int64_t unit, char*) {
    int64_t b = unit / a.P, p = unit % a.P;
    for (int64_t q = 0; q < a.Q; q++) {
      float* y = a.y + (unit * a.Q + q) * a.ldy;
      for (int64_t c = 0; c < a.C; c += V) {
        int n = int(a.C - c < V ? a.C - c : V);
        vf t{};
        for (int64_t r = 0; r < a.R; r++) {
          int64_t h = p * a.stride_h + r * a.dilation_h - a.pad_top;
          if (h < 0 || h >= a.H) continue;
          for (int64_t k = 0; k < a.S; k++) {
            int64_t w = q * a.stride_w + k * a.dilation_w - a.pad_left;
            if (w < 0 || w >= a.W) continue;
            t += load_n(a.x + ((b * a.H + h) * a.W + w) * a.ldx + c, n) * load_n(taps + (r * a.S + k) * a.C + c, n);
          }
        }
        store_n(y + c, t, n);
      }
    }
    apply_epilogue(a.epilogue, a.y + unit * a.Q * a.ldy, a.ldy, unit * a.Q, 0, a.Q, a.C);
  });
}

void depthwise_input_grad(const ConvArgs& a, const Stream& s) {
  s.parallel(a.B * a.H, double(a.W * a.C * a.R * a.S) * 0.1 + 50, [&](int64_t unit, char*) {
    int64_t b = unit / a.H, h = unit % a.H;
    for (int64_t w = 0; w < a.W; w++) {
      float* x = a.x + (unit * a.W + w) * a.ldx;
      for (int64_t c = 0; c < a.C; c += V) {
        int n = int(a.C - c < V ? a.C - c : V);
        vf t{};
        for (int64_t r = 0; r < a.R; r++) {
          int64_t ph = h + a.pad_top - r * a.dilation_h;
          if (ph < 0 || ph % a.stride_h || ph / a.stride_h >= a.P) continue;
          for (int64_t k = 0; k < a.S; k++) {
            int64_t qw = w + a.pad_left - k * a.dilation_w;
            if (qw < 0 || qw % a.stride_w || qw / a.stride_w >= a.Q) continue;
            int64_t pixel = (b * a.P + ph / a.stride_h) * a.Q + qw / a.stride_w;
            t += load_n(a.y + pixel * a.ldy + c, n) * load_n(a.w + (r * a.S + k) * a.C + c, n);
          }
        }
        store_n(x + c, t, n);
      }
    }
    apply_epilogue(a.epilogue, a.x + unit * a.W * a.ldx, a.ldx, unit * a.W, 0, a.W, a.C);
  });
}

void depthwise_filter_grad(const ConvArgs& a, const Stream& s) {
  int64_t strips = (a.C + V - 1) / V;
  s.parallel(a.R * a.S * strips, double(a.B * a.P * a.Q) * 2 + 50, [&](int64_t unit, char*) {
    int64_t c = unit % strips * V, k = unit / strips % a.S, r = unit / strips / a.S;
    int n = int(a.C - c < V ? a.C - c : V);
    vf t{};
    for (int64_t b = 0; b < a.B; b++)
      for (int64_t p = 0; p < a.P; p++) {
        int64_t h = p * a.stride_h + r * a.dilation_h - a.pad_top;
        if (h < 0 || h >= a.H) continue;
        vf line{};
        for (int64_t q = 0; q < a.Q; q++) {
          int64_t w = q * a.stride_w + k * a.dilation_w - a.pad_left;
          if (w < 0 || w >= a.W) continue;
          line += load_n(a.x + ((b * a.H + h) * a.W + w) * a.ldx + c, n) * load_n(a.y + ((b * a.P + p) * a.Q + q) * a.ldy + c, n);
        }
        t += line;
      }
    store_n(a.w + (r * a.S + k) * a.C + c, t, n);
  });
}

int64_t floor_mod(int64_t a, int64_t b) { return (a % b + b) % b; }

/// The taps r (of `count`) with (position + pad - r * dilation) divisible by stride, as an axis over dy; false: none.
/// `first` and `every`: the taps taken, in the order in which the axis walks dy upwards (r downwards).
bool taps_of(int64_t residue, int64_t pad, int64_t stride, int64_t dilation, int64_t count, int64_t size, Axis& axis,
             int64_t& first, int64_t& every) {
  int64_t lowest = -1, next = -1;
  for (int64_t r = 0; r < count; r++)
    if (floor_mod(residue + pad - r * dilation, stride) == 0) {
      if (lowest < 0)
        lowest = r;
      else if (next < 0)
        next = r;
    }
  if (lowest < 0) return false;
  every = next < 0 ? count : next - lowest;
  int64_t n = (count - 1 - lowest) / every + 1;
  first = lowest + (n - 1) * every;  // the highest tap reads dy's lowest position
  int64_t low = residue + pad - first * dilation;
  axis.mul = 1;
  axis.off = (low - floor_mod(low, stride)) / stride;
  axis.step = n > 1 ? every * dilation / stride : 1;
  axis.count = n;
  axis.size = size;
  return true;
}

}  // namespace

void pack_conv2d(const PackConvArgs& a, const Stream& s) {
  const int64_t window = a.R * a.S;
  if (is_depthwise(a.groups, a.C, a.F)) {
    for (int64_t k = 0; k < window; k++) copy(a.panels + (a.transpose ? window - 1 - k : k) * a.C, a.w + k * a.C, a.C);
    return;
  }
  const int64_t c = a.C / a.groups, f = a.F / a.groups;
  const int64_t n = a.transpose ? c : f, depth = a.transpose ? f : c, panels = (n + gemm_nr - 1) / gemm_nr;
  s.parallel(a.groups * panels, double(window * depth) * gemm_nr * (a.transpose ? 0.6 : 0.3), [&](int64_t unit, char*) {
    int64_t g = unit / panels, n0 = unit % panels * gemm_nr;
    int columns = int(n - n0 < gemm_nr ? n - n0 : gemm_nr);
    float* to = a.panels + unit * window * depth * gemm_nr;
    for (int64_t k = 0; k < window; k++, to += depth * gemm_nr) {
      if (a.transpose)
        gemm_pack(depth, a.w + ((window - 1 - k) * c + n0) * a.F + g * f, 1, a.F, columns, to);
      else
        gemm_pack(depth, a.w + k * c * a.F + g * f + n0, a.F, 1, columns, to);
    }
  });
}

void conv2d(const ConvArgs& a, const Stream& s) {
  if (!a.B || !a.P || !a.Q || !a.F) return;
  if (depthwise(a)) return depthwise_forward(a, s);
  const float* packed = a.panels;
  if (!packed) {
    float* to = aligned(a.workspace);
    DAGRT_ISA::pack_conv2d(PackConvArgs{a.w, to, a.R, a.S, a.C, a.F, a.groups, false}, s);
    packed = to;
  }
  Axis h{a.stride_h, -a.pad_top, a.dilation_h, a.R, a.H}, w{a.stride_w, -a.pad_left, a.dilation_w, a.S, a.W};
  pass(s, a.B, a.x, a.H, a.W, a.ldx, a.C, h, w, Grid{a.P, a.Q}, packed, a.y, a.P, a.Q, a.ldy, a.F, a.groups, a.epilogue);
}

void conv2d_input_grad(const ConvArgs& a, const Stream& s) {
  if (!a.B || !a.H || !a.W || !a.C) return;
  if (depthwise(a)) return depthwise_input_grad(a, s);
  const int64_t c = a.C / a.groups, f = a.F / a.groups;
  float* packed = aligned(a.workspace);
  for (int64_t rh = 0; rh < a.stride_h && rh < a.H; rh++)
    for (int64_t rw = 0; rw < a.stride_w && rw < a.W; rw++) {
      Axis h{1, 0, 1, 0, a.P}, w{1, 0, 1, 0, a.Q};
      int64_t first_h = 0, every_h = 1, first_w = 0, every_w = 1;
      bool any = taps_of(rh, a.pad_top, a.stride_h, a.dilation_h, a.R, a.P, h, first_h, every_h) &&
                 taps_of(rw, a.pad_left, a.stride_w, a.dilation_w, a.S, a.Q, w, first_w, every_w);
      if (!any) h.count = w.count = 0;
      int64_t depth = h.count * w.count * f, taps_w = w.count ? w.count : 1;
      pack_panels(s, a.groups, c, depth, a.F, packed, [&](int64_t g, int64_t k) {
        int64_t r = first_h - k / f / taps_w * every_h, q = first_w - k / f % taps_w * every_w;
        return a.w + (r * a.S + q) * c * a.F + g * f + k % f;
      });
      Grid grid{
          (a.H - rh + a.stride_h - 1) / a.stride_h, (a.W - rw + a.stride_w - 1) / a.stride_w, rh, rw, a.stride_h, a.stride_w};
      pass(s, a.B, a.y, a.P, a.Q, a.ldy, a.F, h, w, grid, packed, a.x, a.H, a.W, a.ldx, a.C, a.groups, a.epilogue);
    }
}

void conv2d_filter_grad(const ConvArgs& a, const Stream& s) {
  const int64_t c = a.C / a.groups, f = a.F / a.groups, line = a.S * c, weights = a.R * line * a.F;
  if (!weights) return;
  if (depthwise(a)) return depthwise_filter_grad(a, s);
  const int64_t splits = conv2d_filter_grad_splits(a), pixels = a.B * a.P * a.Q;
  const int64_t wide = (f + 31) / 32 * 32;
  float* partial = splits > 1 ? aligned(a.workspace) : a.w;
  const bool copy_dy = f % gemm_nr != 0 && f % V != 0;
  double ns = double(pixels) / double(splits) * double(line) * double(f) * (0.6 / V) + 200;
  s.parallel(splits * a.R * a.groups, ns, [&](int64_t unit, char* scratch) {
    int64_t g = unit % a.groups, r = unit / a.groups % a.R, split = unit / a.groups / a.R;
    int64_t begin = pixels * split / splits, end = pixels * (split + 1) / splits;
    float* lines = aligned(scratch);
    float* dy = lines + (conv_grad_block * line + 15) / 16 * 16;
    float* to = partial + split * weights + r * line * a.F + g * f;
    Axis h{a.stride_h, r * a.dilation_h - a.pad_top, 1, 1, a.H}, w{a.stride_w, -a.pad_left, a.dilation_w, a.S, a.W};
    bool started = false;
    for (int64_t from = begin; from < end || !started; from += conv_grad_block) {
      int64_t rows = end - from < conv_grad_block ? end - from : conv_grad_block;
      for (int64_t m = 0; m < rows; m++) {
        int64_t at = from + m, q = at % a.Q, p = at / a.Q % a.P, b = at / a.Q / a.P;
        gather(a.x + b * a.H * a.W * a.ldx + g * c, a.ldx, a.W, c, h, w, p, q, lines + m * line);
        if (copy_dy) {
          copy(dy + m * wide, a.y + at * a.ldy + g * f, f);
          zero(dy + m * wide + f, wide - f);
        }
      }
      for (int64_t n = 0; n < f; n += gemm_nr) {
        int columns = int(f - n < gemm_nr ? f - n : gemm_nr);
        const float* right = copy_dy ? dy + n : a.y + from * a.ldy + g * f + n;
        gemm_panel(line, rows, lines, 1, line, right, copy_dy ? wide : a.ldy, to + n, a.F, columns, started);
      }
      started = true;
    }
  });
  if (splits > 1)
    s.parallel((weights + 1023) / 1024, 200.0 * double(splits), [&](int64_t unit, char*) {
      int64_t end = unit * 1024 + 1024 < weights ? unit * 1024 + 1024 : weights;
      for (int64_t i = unit * 1024; i < end; i += V) {
        int n = int(end - i < V ? end - i : V);
        vf t = load_n(partial + i, n);
        for (int64_t k = 1; k < splits; k++) t += load_n(partial + k * weights + i, n);
        store_n(a.w + i, t, n);
      }
    });
}

}  // namespace dagrt::DAGRT_ISA
