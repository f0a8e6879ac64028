// The ladder of a direct convolution, y[56,56,64] = x[56,56,64] * w[3,3,64,64], padded by one.
#include "kernels/conv2d.h"

#include "ladder.h"

namespace ladder {
namespace {

constexpr int64_t H = 56, C = 64, F = 64, R = 3, padded = H + 2;
constexpr int MR = 6, NR = 2 * V;

struct Data {
  Floats x = bench::values(H * H * C), w = bench::values(R * R * C * F, 2), y = Floats(size_t(H * H * F));
  Floats wide = Floats(size_t(padded * padded * C)), panels = Floats(size_t(R * R * C * F)), packed;
  dagrt::ConvArgs args;
  std::unique_ptr<bench::Memory> memory;
  const std::vector<float>& expected();
};

/// The definition, one output after another; the image's edges are asked for at every point.
void definition(Data& d) {
  for (int64_t p = 0; p < H; p++)
    for (int64_t q = 0; q < H; q++)
      for (int64_t f = 0; f < F; f++) {
        float sum = 0;
        for (int64_t r = 0; r < R; r++)
          for (int64_t s = 0; s < R; s++) {
            const int64_t h = p + r - 1, w = q + s - 1;
            if (h < 0 || h >= H || w < 0 || w >= H) continue;
            for (int64_t c = 0; c < C; c++) sum += d.x[size_t((h * H + w) * C + c)] * d.w[size_t(((r * R + s) * C + c) * F + f)];
          }
        d.y[size_t((p * H + q) * F + f)] = sum;
      }
}

/// Filters innermost, in the weights' own order: vectors of outputs, which go to memory and back for every channel.
void filters_innermost(Data& d) {
  for (int64_t p = 0; p < H; p++)
    for (int64_t q = 0; q < H; q++) {
      float* y = d.y.data() + (p * H + q) * F;
      std::memset(y, 0, F * 4);
      for (int64_t r = 0; r < R; r++)
        for (int64_t s = 0; s < R; s++) {
          const int64_t h = p + r - 1, w = q + s - 1;
          if (h < 0 || h >= H || w < 0 || w >= H) continue;
          for (int64_t c = 0; c < C; c++) {
            const float x = d.x[size_t((h * H + w) * C + c)], *k = d.w.data() + ((r * R + s) * C + c) * F;
            for (int64_t f = 0; f < F; f++) y[f] += x * k[f];
          }
        }
    }
}

/// `pixels` outputs of a row by two vectors of filters: for each row of the window one run of 3 C numbers.
template <int pixels> void tile(const float* x, const float* w, int64_t w_row, float* y) {
  vf sum[pixels][2] = {};
  for (int64_t r = 0; r < R; r++) {
    const float *run = x + r * padded * C, *k = w + r * R * C * w_row;
    for (int64_t i = 0; i < R * C; i++) {
      const vf k0 = load(k + i * w_row), k1 = load(k + i * w_row + V);
#pragma GCC unroll 6
      for (int m = 0; m < pixels; m++) {
        const vf left = run[m * C + i] - vf{};
        sum[m][0] += left * k0, sum[m][1] += left * k1;
      }
    }
  }
#pragma GCC unroll 6
  for (int m = 0; m < pixels; m++)
    for (int j = 0; j < 2; j++) store(y + m * F + j * V, sum[m][j]);
}

void pad(Data& d) {
  for (int64_t h = 0; h < H; h++)
    std::memcpy(d.wide.data() + ((h + 1) * padded + 1) * C, d.x.data() + h * H * C, size_t(H * C) * 4);
}

void tiles(Data& d, const float* w, int64_t w_row, int64_t panel) {
  for (int64_t p = 0; p < H; p++)
    for (int64_t f = 0; f < F; f += NR) {
      const float *x = d.wide.data() + p * padded * C, *k = w + f / NR * panel;
      float* y = d.y.data() + p * H * F + f;
      int64_t q = 0;
      for (; q + MR <= H; q += MR) tile<MR>(x + q * C, k, w_row, y + q * F);
      for (; q < H; q++) tile<1>(x + q * C, k, w_row, y + q * F);
    }
}

/// A copy with zeros around it, so that nobody asks for edges; and 6 pixels by two vectors of filters in registers.
void registers(Data& d) {
  pad(d);
  tiles(d, d.w.data(), F, NR);
}

/// Weights in panels of the tile's width, read in sequence.
void in_panels(Data& d) {
  pad(d);
  tiles(d, d.panels.data(), NR, R * R * C * NR);
}

void finished(Data& d) { conv2d(d.args, d.memory->stream()); }

std::shared_ptr<Data> make() {
  auto d = std::make_shared<Data>();
  for (int64_t f = 0; f < F; f += NR)
    for (int64_t i = 0; i < R * R * C; i++)
      std::memcpy(d->panels.data() + (f / NR * R * R * C + i) * NR, d->w.data() + i * F + f, NR * 4);
  dagrt::PackConvArgs p;
  p.w = d->w.data(), p.R = p.S = R, p.C = C, p.F = F;
  d->packed.resize(size_t(conv2d_panel_floats(p)));
  p.panels = d->packed.data();
  pack_conv2d(p, dagrt::Stream{});
  dagrt::ConvArgs& a = d->args;
  a.B = 1, a.H = a.W = a.P = a.Q = H, a.C = a.ldx = C, a.F = a.ldy = F, a.R = a.S = R, a.pad_top = a.pad_left = 1;
  a.x = d->x.data(), a.w = d->w.data(), a.y = d->y.data(), a.panels = p.panels;
  const dagrt::ConvMemory m = conv2d_memory(a);
  d->memory = std::make_unique<bench::Memory>(m.workspace, m.scratch);
  a.workspace = d->memory->workspace();
  return d;
}

const std::vector<float>& Data::expected() {
  static const std::vector<float> all = [] {
    Data d;
    definition(d);
    return bench::copy(d.y.data(), H * H * F);
  }();
  return all;
}

}  // namespace
}  // namespace ladder

void bench::add_rows() {
  using namespace ladder;
  const std::string group = "convolution 56 x 56 x 64 to 64 by 3 x 3/";
  const double flops = 2.0 * double(H * H * C * F * R * R);
  step(group + "the definition", flops, make, definition);
  step(group + "filters innermost", flops, make, filters_innermost);
  step(group + "padded copy, sums in registers", flops, make, registers);
  step(group + "weights in panels", flops, make, in_panels);
  step(group + "dagrt", flops, make, finished);
}
