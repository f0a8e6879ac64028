// Winograd convolutions against loops in double: every instruction set, windows, tiles, paddings, pixel strides, guards,
// threads; the input gradient as a convolution with turned weights.
#include <cmath>
#include <cstring>
#include <string>

#include "kernels/winograd.h"
#include "run_op.h"

namespace dagrt {
void register_winograd(Registry&);
}

using namespace dagrt;
using namespace dagrt::testing;

namespace {

struct Layer {
  int64_t B, H, W, C, F, window, tile;
  int64_t top, bottom, left, right;
  int64_t P() const { return H + top + bottom - window + 1; }
  int64_t Q() const { return W + left + right - window + 1; }
};

Layer same(int64_t B, int64_t H, int64_t W, int64_t C, int64_t F, int64_t window, int64_t tile) {
  int64_t before = (window - 1) / 2, after = window / 2;
  return {B, H, W, C, F, window, tile, before, after, before, after};
}

float value(int64_t i, int64_t seed) { return float((i * 37 + seed * 101 + (i * i) % 13) % 29 - 14) / 8.0f; }

/// The same without a pattern: of many pixels, sums of those above cancel until rounding is all that is left.
float mixed(int64_t i, int64_t seed) {
  uint32_t h = uint32_t(i + 1) * 2654435761u + uint32_t(seed) * 40503u;
  h = (h ^ h >> 15) * 2246822519u;
  return float(int((h ^ h >> 13) % 29) - 14) / 8.0f;
}

/// Adds the sums of a convolution and of its gradients: of y and x where there is a w, and of w. Fast in every build: sanitizers are
/// for the kernels.
__attribute__((optimize("O3"), no_sanitize("address", "thread", "undefined"))) void add_loops(const Layer& l, const double* x,
                                                                                              const double* w, const double* dy,
                                                                                              double* y, double* gx, double* gw) {
  const int64_t P = l.H + l.top + l.bottom - l.window + 1, Q = l.W + l.left + l.right - l.window + 1;
  for (int64_t b = 0; b < l.B; b++)
    for (int64_t p = 0; p < P; p++)
      for (int64_t q = 0; q < Q; q++)
        for (int64_t r = 0; r < l.window; r++)
          for (int64_t s = 0; s < l.window; s++) {
            const int64_t h = p + r - l.top, v = q + s - l.left, out = ((b * P + p) * Q + q) * l.F;
            if (h < 0 || h >= l.H || v < 0 || v >= l.W) continue;
            for (int64_t c = 0; c < l.C; c++) {
              const int64_t at = ((b * l.H + h) * l.W + v) * l.C + c, row = ((r * l.window + s) * l.C + c) * l.F;
              for (int64_t k = 0; k < l.F; k++) gw[row + k] += x[at] * dy[out + k];
              for (int64_t k = 0; w && k < l.F; k++) {
                y[out + k] += x[at] * w[row + k];
                gx[at] += dy[out + k] * w[row + k];
              }
            }
          }
}

std::vector<double> doubles(Tensor& t) {
  std::vector<double> v(static_cast<size_t>(t.size()));
  for (int64_t i = 0; i < t.size(); i++) v[size_t(i)] = double(t.at<float>(i));
  return v;
}

/// Rounding: that of tiles of 7 x 7 and 8 x 8 is the larger.
void expect(Tensor& got, const std::vector<double>& want, int64_t window, const std::string& what) {
  CAPTURE(what);
  double largest = 0, error = 0;
  for (double v : want) largest = std::fmax(largest, std::fabs(v));
  for (int64_t i = 0; i < got.size(); i++) {
    double e = std::fabs(double(got.at<float>(i)) - want[size_t(i)]);
    error = e <= error ? error : e;  // a NaN stays
  }
  CHECK(error <= (window == 3 ? 6e-6 : 3e-5) * largest + 1e-30);
  CHECK(got.intact());
}

void same_bits(Tensor& a, Tensor& b) {
  int64_t differ = 0;
  for (int64_t i = 0; i < a.size(); i++) differ += std::memcmp(&a.at<float>(i), &b.at<float>(i), 4) != 0;
  CHECK(differ == 0);
}

struct Ops {
  Registry r;
  const Op *weights, *forward, *filter;
  Ops() {
    register_winograd(r);
    weights = r.find("winograd_weights");
    forward = r.find("conv2d_winograd");
    filter = r.find("conv2d_filter_grad_winograd");
  }
};

AttrMap window_attrs(const Layer& l, int64_t top, int64_t bottom, int64_t left, int64_t right) {
  return {{"kernel_size", integers({l.window, l.window})},
          {"tile", {l.tile}},
          {"padding", {std::string("explicit")}},
          {"pads", integers({top, bottom, left, right})}};
}

/// conv2d_winograd of x with transformed w, on one thread and two.
void convolve(const Ops& ops, const Layer& l, Tensor& x, Tensor& w, bool transpose, AttrMap attrs, int64_t filters,
              const std::vector<double>& want, const std::vector<int64_t>& shape, int64_t padding, const std::string& what) {
  int64_t floats = winograd_weights_size(x.view.dims[3], filters, l.window, l.tile);
  Tensor u(DType::float32, {floats}), v(DType::float32, {floats});
  run_op(*ops.weights, {{"tile", {l.tile}}, {"transpose", {transpose}}}, {&w}, {&u}, 1);
  run_op(*ops.weights, {{"tile", {l.tile}}, {"transpose", {transpose}}}, {&w}, {&v}, 2);
  same_bits(u, v);
  CHECK(u.intact());
  Tensor y(DType::float32, shape, padding), z(DType::float32, shape, padding);
  attrs["filters"] = {filters};
  run_op(*ops.forward, attrs, {&x, &u}, {&y}, 1);
  run_op(*ops.forward, attrs, {&x, &u}, {&z}, 2);
  expect(y, want, l.window, what);
  same_bits(y, z);
}

void check(const Ops& ops, const Layer& l, int64_t padding) {
  CAPTURE(l.B);
  CAPTURE(l.H);
  CAPTURE(l.W);
  CAPTURE(l.C);
  CAPTURE(l.F);
  CAPTURE(l.window);
  CAPTURE(l.tile);
  CAPTURE(padding);
  Tensor x(DType::float32, {l.B, l.H, l.W, l.C}, padding), w(DType::float32, {l.window, l.window, l.C, l.F});
  Tensor dy(DType::float32, {l.B, l.P(), l.Q(), l.F}, padding);
  x.set<float>([](int64_t i) { return value(i, 1); });
  w.set<float>([](int64_t i) { return value(i, 2); });
  dy.set<float>([](int64_t i) { return value(i, 3); });
  const std::vector<double> dx = doubles(x), dw = doubles(w), ddy = doubles(dy);
  std::vector<double> y(ddy.size()), gx(dx.size()), gw(dw.size());
  add_loops(l, dx.data(), dw.data(), ddy.data(), y.data(), gx.data(), gw.data());

  const AttrMap attrs = window_attrs(l, l.top, l.bottom, l.left, l.right);
  convolve(ops, l, x, w, false, attrs, l.F, y, {l.B, l.P(), l.Q(), l.F}, padding, "forward");
  const int64_t e = l.window - 1;
  convolve(ops, l, dy, w, true, window_attrs(l, e - l.top, e - l.bottom, e - l.left, e - l.right), l.C, gx, {l.B, l.H, l.W, l.C},
           padding, "input gradient");
  if (l.tile == 7) return;
  Tensor g(DType::float32, {l.window, l.window, l.C, l.F}), h(DType::float32, {l.window, l.window, l.C, l.F});
  run_op(*ops.filter, attrs, {&x, &dy}, {&g}, 1);
  run_op(*ops.filter, attrs, {&x, &dy}, {&h}, 2);
  expect(g, gw, l.window, "filter gradient");
  same_bits(g, h);
  CHECK(x.intact());
  CHECK(w.intact());
  CHECK(dy.intact());
}

}  // namespace

TEST_CASE("winograd convolutions agree with loops") {
  Ops ops;
  Isa before = chosen_isa;
  for (const char* isa : isas()) {
    CAPTURE(isa);
    choose_isa(isa);
    int64_t padding = 0;
    for (auto [window, tile] : {std::pair<int64_t, int64_t>{3, 4}, {3, 2}, {3, 7}, {4, 4}, {5, 4}}) {
      for (int64_t C : {1, 3, 8, 17})  // vectors of every width, whole, cut and one more
        for (int64_t F : {1, 4, 7, 9, 16, 33}) check(ops, same(1, 6, 5, C, F, window, tile), padding++ % 3);
      for (int64_t size : {window, window + 1, window + 2, window + 3, window + 4, int64_t(11)})  // every cut of a tile
        check(ops, {1, size, window + 13 - size % 5, 5, 6, window, tile, 0, 0, 0, 0}, padding++ % 3);
      check(ops, {2, 7, 6, 4, 5, window, tile, 2, 0, 1, 2}, 1);
      check(ops, {2, 3, 3, 4, 5, window, tile, window - 1, window - 1, window - 1, window - 1}, 0);
      check(ops, same(3, 1, 1, 6, 5, window, tile), 1);
      check(ops, same(2, 1, 19, 3, 3, window, tile), 0);
      check(ops, same(9, 19, 17, 3, 5, window, tile), 1);   // several blocks of tiles, balanced groups; gradients in parts
      check(ops, same(1, 4, 4, 70, 150, window, tile), 0);  // several strips of filters
      check(ops, same(7, 16, 15, 2, 70, window, tile), 2);  // blocks claimed by threads; gradients in chunks
    }
    check(ops, same(11, 13, 16, 40, 66, 3, 4), 1);  // more weights than stay in L2: blocks of several groups
    check(ops, same(45, 19, 17, 3, 5, 5, 4), 0);    // gradients in parts of several chunks
    check(ops, same(2, 7, 7, 73, 50, 3, 7), 1);     // several slices of channels, the last of them cut
    for (int64_t tile : {4, 7}) {
      check(ops, same(0, 5, 5, 3, 4, 3, tile), 0);
      check(ops, same(1, 5, 5, 0, 4, 3, tile), 0);
      check(ops, same(1, 5, 5, 3, 0, 3, tile), 0);
    }
  }
  chosen_isa = before;
}

TEST_CASE("winograd filter gradients of many channels, in one chunk and several, filters in groups, on one to three threads") {
  Ops ops;
  const Isa before = chosen_isa;
  const Layer layers[] = {
      same(1, 21, 25, 66, 300, 3, 4),           // one chunk: no dU but a block's
      {3, 5, 6, 70, 260, 3, 2, 2, 0, 1, 0},     // narrow blocks, F(2,3)
      same(1, 41, 43, 100, 290, 3, 4),          // two chunks, two groups too small for a unit to be a block: point by point
      {1, 41, 43, 200, 230, 3, 4, 0, 1, 1, 0},  // two chunks, two groups of filters
      same(2, 33, 30, 66, 140, 5, 4),           // the same, one group
      same(1, 1, 1, 150, 170, 3, 4),            // one pixel; from here on few tiles for so many channels, of 4 and of 3
      same(1, 7, 7, 264, 270, 3, 4),            // 4 + 3 pixels, channels and filters cut; few enough without AVX-512 too
      {1, 6, 5, 66, 71, 3, 4, 0, 0, 0, 0},      // one tile of 4 x 3
      {1, 5, 6, 67, 64, 3, 4, 0, 0, 0, 0},      // one of 3 x 4
      same(3, 5, 9, 70, 81, 3, 4),              // none of 4
      {2, 8, 12, 80, 66, 3, 4, 1, 1, 0, 2},     // none of 3
      {2, 9, 13, 90, 65, 3, 4, 2, 0, 0, 2},     // several images, pads of their own
      same(2, 7, 14, 160, 192, 3, 4),           // dw past the caches
  };
  for (const Layer& l : layers) {
    CAPTURE(l.window);
    CAPTURE(l.H);
    CAPTURE(l.C);
    CAPTURE(l.F);
    Tensor x(DType::float32, {l.B, l.H, l.W, l.C}, 1), dy(DType::float32, {l.B, l.P(), l.Q(), l.F}, 3);
    x.set<float>([](int64_t i) { return mixed(i, 1); });
    dy.set<float>([](int64_t i) { return mixed(i, 3); });
    std::vector<double> want(size_t(l.window * l.window * l.C * l.F));
    add_loops(l, doubles(x).data(), nullptr, doubles(dy).data(), nullptr, nullptr, want.data());
    for (const char* isa : isas()) {
      CAPTURE(isa);
      choose_isa(isa);
      Tensor one(DType::float32, {l.window, l.window, l.C, l.F});
      const AttrMap attrs = window_attrs(l, l.top, l.bottom, l.left, l.right);
      run_op(*ops.filter, attrs, {&x, &dy}, {&one}, 1);
      expect(one, want, l.window, "filter gradient");
      for (int threads : {2, 3}) {
        Tensor more(DType::float32, {l.window, l.window, l.C, l.F});
        run_op(*ops.filter, attrs, {&x, &dy}, {&more}, threads);
        same_bits(one, more);
        CHECK(more.intact());
      }
    }
    chosen_isa = before;
  }
}

TEST_CASE("winograd convolutions add bias and residual and cut at zero") {
  Isa before = chosen_isa;
  for (const char* isa : isas()) {
    CAPTURE(isa);
    choose_isa(isa);
    for (auto [F, tile] : {std::pair<int64_t, int>{5, 4}, {40, 4}, {5, 7}, {40, 7}}) {
      const int64_t B = 1, H = 6, W = 8, C = 3;
      WinogradWeightsArgs t;
      std::vector<float> w(size_t(9 * C * F)), u(size_t(winograd_weights_size(C, F, 3, tile)));
      std::vector<float> x(size_t(B * H * W * C)), bias(static_cast<size_t>(F)), residual(size_t(B * H * W * (F + 2)));
      std::vector<float> plain(size_t(B * H * W * F)), y(plain);
      for (size_t i = 0; i < w.size(); i++) w[i] = value(int64_t(i), 1);
      for (size_t i = 0; i < x.size(); i++) x[i] = value(int64_t(i), 2);
      for (size_t i = 0; i < bias.size(); i++) bias[i] = value(int64_t(i), 3);
      for (size_t i = 0; i < residual.size(); i++) residual[i] = value(int64_t(i), 4);
      t.w = w.data(), t.u = u.data(), t.C = C, t.F = F, t.tile = tile;
      Stream alone;
      winograd_weights(t, alone);
      WinogradArgs a;
      a.x = x.data(), a.u = u.data(), a.y = plain.data();
      a.B = B, a.H = a.P = H, a.W = a.Q = W, a.C = C, a.F = F, a.ldx = C, a.ldy = F, a.pad_top = a.pad_left = 1, a.tile = tile;
      WinogradMemory m = conv2d_winograd_memory(a);
      std::vector<char> workspace(m.workspace), scratch(m.scratch);
      a.workspace = workspace.data();
      alone.scratch = scratch.data();
      conv2d_winograd(a, alone);
      a.y = y.data();
      a.epilogue.bias = bias.data();
      a.epilogue.residual = residual.data();
      a.epilogue.ld_residual = F + 2;
      a.epilogue.relu = true;
      conv2d_winograd(a, alone);
      int wrong = 0, cut = 0;
      for (int64_t i = 0; i < B * H * W; i++)
        for (int64_t f = 0; f < F; f++) {
          float v = plain[size_t(i * F + f)] + bias[size_t(f)] + residual[size_t(i * (F + 2) + f)];
          wrong += y[size_t(i * F + f)] != (v > 0 ? v : 0);
          cut += v < 0;
        }
      CHECK(wrong == 0);
      CHECK(cut > 0);
    }
  }
  chosen_isa = before;
}

TEST_CASE("winograd refuses what it has no transform for") {
  Ops ops;
  auto t = [](std::vector<int64_t> shape, DType d = DType::float32) {
    TensorType type{d, {}};
    for (int64_t n : shape) type.shape.push_back(n);
    return type;
  };
  auto message = [&](const Op& op, const AttrMap& map, const Types& in) -> std::string {
    try {
      infer(op, op.attrs.read(op.name, map).get(), in);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  CHECK(message(*ops.weights, {{"tile", {int64_t(6)}}}, {t({3, 3, 4, 8})}) ==
        "winograd_weights: there are transforms for 3x3 windows with tile 4, 2 or 7 and for 4x4 and 5x5 with tile 4, not for 3x3 "
        "with tile "
        "6; use conv2d");
  CHECK(message(*ops.weights, {}, {t({3, 3, 4, 8}, DType::int32)}) ==
        "winograd_weights: expected float32, got int32; cast to float32");
  CHECK(message(*ops.weights, {}, {t({3, 4, 8})}) == "winograd_weights: expected 4 axes, got (3, 4, 8)");
  AttrMap valid{{"kernel_size", integers({3, 3})}, {"padding", {std::string("valid")}}};
  CHECK(message(*ops.filter, valid, {t({2, 5, 5, 3}), t({2, 4, 3, 7})}) ==
        "conv2d_filter_grad_winograd: dy must have the shape of a convolution of x, 3 along axis 1, got (2, 4, 3, 7)");
  valid["tile"] = {int64_t(7)};
  CHECK(message(*ops.filter, valid, {t({2, 5, 5, 3}), t({2, 3, 3, 7})}) ==
        "conv2d_filter_grad_winograd: tile 7 is for the forward pass; use tile 4");
  valid["filters"] = {int64_t(8)}, valid["pool"] = integers({2, 2});
  CHECK(message(*ops.forward, valid, {t({2, 5, 5, 3}), t({864})}) == "conv2d_winograd: tile 7 does not pool; use max_pool2d");
  valid.erase("tile"), valid.erase("pool");
  CHECK(message(*ops.forward, valid, {t({2, 5, 5, 3}), t({100})}) ==
        "conv2d_winograd: expected winograd_weights of 3 channels and 8 filters, 4608 numbers, got (100,)");
  valid["kernel_size"] = integers({3});
  CHECK(message(*ops.forward, valid, {t({2, 5, 5, 3}), t({100})}) ==
        "conv2d_winograd: kernel_size must be 2 numbers: height and width");
}
