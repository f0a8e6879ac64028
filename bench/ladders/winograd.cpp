// The ladder of Winograd's F(4,3) on the layer of conv2d.cpp: y[56,56,64] = x[56,56,64] * w[3,3,64,64], padded by one. Flops are
// those of the direct sum, four times the products that are taken.
//   y = A' [(G w G') . (B' x B)] A for each 6 x 6 tile of the padded image, which gives 4 x 4 outputs
#include "kernels/winograd.h"

#include "ladder.h"

namespace ladder {
namespace {

constexpr int64_t H = 56, C = 64, F = 64, padded = H + 2, side = H / 4, tiles = side * side, points = 36;

struct Data {
  Floats x = bench::values(H * H * C), w = bench::values(9 * C * F, 2), y = Floats(size_t(H * H * F));
  Floats wide = Floats(size_t(padded * padded * C)), u = Floats(size_t(points * C * F));
  Floats v = Floats(size_t(points * tiles * C)), m = Floats(size_t(points * tiles * F)), packed;
  dagrt::WinogradArgs args;
  std::unique_ptr<bench::Memory> memory;
  const std::vector<float>& expected();
};

/// The direct sum, to compare with.
void direct(Data& d) {
  for (int64_t p = 0; p < H; p++)
    for (int64_t q = 0; q < H; q++) {
      float* y = d.y.data() + (p * H + q) * F;
      std::memset(y, 0, F * 4);
      for (int64_t i = 0; i < 9; i++) {
        const int64_t h = p + i / 3 - 1, w = q + i % 3 - 1;
        if (h < 0 || h >= H || w < 0 || w >= H) continue;
        for (int64_t c = 0; c < C; c++)
          for (int64_t f = 0; f < F; f++) y[f] += d.x[size_t((h * H + w) * C + c)] * d.w[size_t((i * C + c) * F + f)];
      }
    }
}

/// B' t of six values, and A' t.
template <class T> void input_transform(const T* t, int64_t step, T* out, int64_t out_step) {
  const T a = t[0], b = t[step], c = t[2 * step], e = t[3 * step], f = t[4 * step], g = t[5 * step];
  out[0] = 4 * a - 5 * c + f;
  out[out_step] = f + e - 4 * (c + b);
  out[2 * out_step] = f - e - 4 * (c - b);
  out[3 * out_step] = f - c + 2 * (e - b);
  out[4 * out_step] = f - c - 2 * (e - b);
  out[5 * out_step] = 4 * b - 5 * e + g;
}
template <class T> void output_transform(const T* t, int64_t step, T* out, int64_t out_step) {
  const T a = t[step] + t[2 * step], b = t[step] - t[2 * step], c = t[3 * step] + t[4 * step], e = t[3 * step] - t[4 * step];
  out[0] = t[0] + a + c;
  out[out_step] = b + 2 * e;
  out[2 * out_step] = a + 4 * c;
  out[3 * out_step] = b + 8 * e + t[5 * step];
}

void pad(Data& d) {
  for (int64_t h = 0; h < H; h++)
    std::memcpy(d.wide.data() + ((h + 1) * padded + 1) * C, d.x.data() + h * H * C, size_t(H * C) * 4);
}

const float* corner(const Data& d, int64_t t) { return d.wide.data() + (t / side * 4 * padded + t % side * 4) * C; }
float* output(Data& d, int64_t t) { return d.y.data() + (t / side * 4 * H + t % side * 4) * F; }

/// V[point][channel] of tile t, for T's lanes of channels; points `to_point` apart.
template <class T> void transform_input(const Data& d, int64_t t, float* v, int64_t to_point) {
  constexpr int64_t lanes = sizeof(T) / 4;
  for (int64_t c = 0; c < C; c += lanes) {
    T in[36], half[36], all[36];
    for (int64_t i = 0; i < 36; i++) std::memcpy(&in[i], corner(d, t) + (i / 6 * padded + i % 6) * C + c, sizeof(T));
    for (int64_t i = 0; i < 6; i++) input_transform(in + i * 6, 1, half + i * 6, 1);
    for (int64_t i = 0; i < 6; i++) input_transform(half + i, 6, all + i, 6);
    for (int64_t i = 0; i < 36; i++) std::memcpy(v + i * to_point + c, &all[i], sizeof(T));
  }
}
template <class T> void transform_output(Data& d, int64_t t, const float* m, int64_t to_point) {
  constexpr int64_t lanes = sizeof(T) / 4;
  for (int64_t f = 0; f < F; f += lanes) {
    T in[36], half[24], all[16];
    for (int64_t i = 0; i < 36; i++) std::memcpy(&in[i], m + i * to_point + f, sizeof(T));
    for (int64_t i = 0; i < 6; i++) output_transform(in + i * 6, 1, half + i * 4, 1);
    for (int64_t i = 0; i < 4; i++) output_transform(half + i, 4, all + i, 4);
    for (int64_t i = 0; i < 16; i++) std::memcpy(output(d, t) + (i / 4 * H + i % 4) * F + f, &all[i], sizeof(T));
  }
}

/// Tile after tile, one number after another: all of U is read for every tile.
void tile_by_tile(Data& d) {
  pad(d);
  for (int64_t t = 0; t < tiles; t++) {
    transform_input<float>(d, t, d.v.data(), C);
    for (int64_t i = 0; i < points; i++)
      for (int64_t f = 0; f < F; f++) {
        float sum = 0;
        for (int64_t c = 0; c < C; c++) sum += d.v[size_t(i * C + c)] * d.u[size_t((i * C + c) * F + f)];
        d.m[size_t(i * F + f)] = sum;
      }
    transform_output<float>(d, t, d.m.data(), F);
  }
}

/// Transforms over vectors of channels and filters; products too.
void vectors(Data& d) {
  pad(d);
  for (int64_t t = 0; t < tiles; t++) {
    transform_input<vf>(d, t, d.v.data(), C);
    std::memset(d.m.data(), 0, size_t(points * F) * 4);
    for (int64_t i = 0; i < points; i++)
      for (int64_t c = 0; c < C; c++) {
        const vf x = d.v[size_t(i * C + c)] - vf{};
        for (int64_t f = 0; f < F; f += V)
          store(d.m.data() + i * F + f, load(d.m.data() + i * F + f) + x * load(d.u.data() + (i * C + c) * F + f));
      }
    transform_output<vf>(d, t, d.m.data(), F);
  }
}

/// m[rows, 2 V] = v u at one point, sums in registers.
template <int rows> void product(const float* v, const float* u, float* m) {
  vf sum[rows][2] = {};
  for (int64_t c = 0; c < C; c++) {
    const vf u0 = load(u + c * F), u1 = load(u + c * F + V);
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++) {
      const vf x = v[i * C + c] - vf{};
      sum[i][0] += x * u0, sum[i][1] += x * u1;
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < 2; j++) store(m + i * F + j * V, sum[i][j]);
}

/// `block` tiles at a time: V of all, then 36 matrix products with sums in registers, then all outputs.
template <int64_t block> void products(Data& d) {
  pad(d);
  for (int64_t t0 = 0; t0 < tiles; t0 += block) {
    const int64_t n = t0 + block < tiles ? block : tiles - t0;
    for (int64_t t = 0; t < n; t++) transform_input<vf>(d, t0 + t, d.v.data() + t * C, block * C);
    for (int64_t i = 0; i < points; i++)
      for (int64_t f = 0; f < F; f += 2 * V) {
        const float *v = d.v.data() + i * block * C, *u = d.u.data() + i * C * F + f;
        float* m = d.m.data() + i * block * F + f;
        int64_t t = 0;
        for (; t + 6 <= n; t += 6) product<6>(v + t * C, u, m + t * F);
        for (; t < n; t++) product<1>(v + t * C, u, m + t * F);
      }
    for (int64_t t = 0; t < n; t++) transform_output<vf>(d, t0 + t, d.m.data() + t * F, block * F);
  }
}
void all_tiles(Data& d) { products<tiles>(d); }
void in_blocks(Data& d) { products<24>(d); }

void finished(Data& d) { conv2d_winograd(d.args, d.memory->stream()); }

std::shared_ptr<Data> make() {
  auto d = std::make_shared<Data>();
  const float g[6][3] = {{1 / 4.f, 0, 0},
                         {-1 / 6.f, -1 / 6.f, -1 / 6.f},
                         {-1 / 6.f, 1 / 6.f, -1 / 6.f},
                         {1 / 24.f, 1 / 12.f, 1 / 6.f},
                         {1 / 24.f, -1 / 12.f, 1 / 6.f},
                         {0, 0, 1}};
  for (int64_t i = 0; i < points; i++)
    for (int64_t k = 0; k < C * F; k++) {
      double sum = 0;
      for (int64_t r = 0; r < 9; r++)
        sum += double(g[i / 6][r / 3]) * double(g[i % 6][r % 3]) * double(d->w[size_t(r * C * F + k)]);
      d->u[size_t(i * C * F + k)] = float(sum);
    }
  d->packed.resize(size_t(dagrt::winograd_weights_size(C, F, 3, 4)));
  dagrt::WinogradWeightsArgs t;
  t.w = d->w.data(), t.u = d->packed.data(), t.C = C, t.F = F;
  winograd_weights(t, dagrt::Stream{});
  dagrt::WinogradArgs& a = d->args;
  a.B = 1, a.H = a.W = a.P = a.Q = H, a.C = a.ldx = C, a.F = a.ldy = F, a.pad_top = a.pad_left = 1;
  a.x = d->x.data(), a.u = d->packed.data(), a.y = d->y.data();
  const dagrt::WinogradMemory m = conv2d_winograd_memory(a);
  d->memory = std::make_unique<bench::Memory>(m.workspace, m.scratch);
  a.workspace = d->memory->workspace();
  return d;
}

const std::vector<float>& Data::expected() {
  static const std::vector<float> all = [] {
    Data d;
    direct(d);
    return bench::copy(d.y.data(), H * H * F);
  }();
  return all;
}

}  // namespace
}  // namespace ladder

void bench::add_rows() {
  using namespace ladder;
  const std::string group = "F(4,3) 56 x 56 x 64 to 64/";
  const double flops = 2.0 * double(H * H * C * F * 9);
  step(group + "tile by tile", flops, make, tile_by_tile);
  step(group + "vectors of channels and filters", flops, make, vectors);
  step(group + "all tiles, then a product for each point", flops, make, all_tiles);
  step(group + "blocks of tiles that stay in L2", flops, make, in_blocks);
  step(group + "dagrt", flops, make, finished);
}
