// Products and direct convolutions on layer shapes of the seed models and ResNet50: one thread (or as many as the first
// argument says), weights packed beforehand as at inference, bias and relu in the epilogue. The bound is the larger of
// multiply-adds at the peak and bytes (each once) at the read bandwidth of a buffer of that size, all measured here.
//   bench_direct [threads] [part of a name]
#include <cstring>
#include <string>

#include "harness.h"
#include "kernels/conv2d.h"
#include "kernels/matmul.h"

using namespace dagrt;

namespace {

/// GB/s of reading a buffer of so many bytes again and again.
double read_gbs(double bytes) {
  typedef float vf __attribute__((vector_size(32)));
  const size_t n = size_t(bytes / 32) < 64 ? 64 : size_t(bytes / 32) / 8 * 8;
  std::vector<float> buffer = bench::values(int64_t(n * 8 + 16));
  double ns = bench::best_ns(
      [&] {
        vf s[8] = {};
        for (size_t i = 0; i < n; i += 8)
#pragma GCC unroll 8
          for (size_t j = 0; j < 8; j++) {
            vf v;
            std::memcpy(&v, buffer.data() + (i + j) * 8, sizeof v);
            s[j] += v;
          }
        for (vf& t : s) asm volatile("" ::"x"(t));
      },
      0.02);
  return double(n) * 32 / ns;
}

int threads = 1;
double total_bound = 0, total_ns = 0;

/// The fastest of many calls, and the peak that was reached between them: others' load slows both for a while.
struct Timing {
  double ns = 1e30, peak = 0;
};
template <class F> Timing measure(const F& f) {
  Timing t;
  for (int i = 0; i < 12; i++) {
    t.ns = std::min(t.ns, bench::best_ns(f, 0.01));
    t.peak = std::max(t.peak, bench::peak_gflops(0.002));
  }
  return t;
}

void report(const std::string& name, double flops, double bytes, const Timing& t) {
  const double bound = std::max(flops / t.peak / threads, bytes / read_gbs(bytes)), ns = t.ns;
  total_bound += bound, total_ns += ns;
  std::printf("%-44s %9.1f us %7.1f GFLOP/s %6.1f GB/s  %5.1f %% of the bound\n", name.c_str(), ns / 1e3, flops / ns, bytes / ns,
              100 * bound / ns);
}

void matmul_row(const char* part, int64_t M, int64_t K, int64_t N) {
  std::string name = "matmul " + std::to_string(M) + " x " + std::to_string(K) + " x " + std::to_string(N);
  if (part && name.find(part) == std::string::npos) return;
  auto a = bench::values(M * K), b = bench::values(K * N, 2), c = bench::values(M * N), bias = bench::values(N, 3);
  std::vector<float> panels(size_t(matmul_panel_floats(N, K)) + 16);
  PackMatmulArgs p;
  p.b = b.data(), p.panels = panels.data(), p.N = N, p.K = K, p.b_row = N;
  pack_matmul(p, Stream{});
  MatmulArgs g;
  g.a = a.data(), g.panels = panels.data(), g.c = c.data();
  g.M = M, g.N = N, g.K = K, g.a_row = K, g.ldc = N;
  g.epilogue.bias = bias.data(), g.epilogue.relu = true;
  bench::Workspace w(matmul_plan(1, M, N, K, true, true).workspace, 0, threads);
  g.workspace = w.workspace();
  report(name, 2.0 * double(M * N * K), 4.0 * double(M * K + K * N + M * N), measure([&] { matmul(g, w.stream); }));
}

struct Layer {
  const char* model;
  int64_t B, H, C, F, R, stride, pad, groups = 1;
};

ConvArgs conv_args(const Layer& l) {
  ConvArgs k;
  k.B = l.B, k.H = k.W = l.H, k.C = l.C, k.F = l.F, k.R = k.S = l.R, k.groups = l.groups;
  k.P = k.Q = (l.H + 2 * l.pad - l.R) / l.stride + 1;
  k.ldx = l.C, k.ldy = l.F;
  k.stride_h = k.stride_w = l.stride;
  k.pad_top = k.pad_left = l.pad;
  return k;
}

enum class Direction { forward, input, filter };

void conv_row(const char* part, const Layer& l, Direction d) {
  const char* what = d == Direction::forward ? "" : d == Direction::input ? " dx" : " dw";
  std::string name = std::string(l.model) + what + " " + std::to_string(l.B) + "x" + std::to_string(l.H) + "x" +
                     std::to_string(l.H) + "x" + std::to_string(l.C) + " -> " + std::to_string(l.F) + ", " + std::to_string(l.R) +
                     "x" + std::to_string(l.R) + " / " + std::to_string(l.stride);
  if (part && name.find(part) == std::string::npos) return;
  ConvArgs k = conv_args(l);
  int64_t nx = k.B * k.H * k.W * k.C, ny = k.B * k.P * k.Q * k.F, nw = k.R * k.S * (k.C / k.groups) * k.F;
  auto x = bench::values(nx + 64), y = bench::values(ny + 4096), w = bench::values(nw, 2), bias = bench::values(k.F, 3);
  k.x = x.data() + 12, k.y = y.data() + 524, k.w = w.data();
  PackConvArgs p;
  p.w = w.data(), p.R = k.R, p.S = k.S, p.C = k.C, p.F = k.F, p.groups = k.groups;
  std::vector<float> panels(size_t(conv2d_panel_floats(p)) + 16);
  p.panels = panels.data();
  void (*run)(const ConvArgs&, const Stream&) = conv2d_filter_grad;
  if (d == Direction::forward) {
    pack_conv2d(p, Stream{});
    k.panels = panels.data();
    k.epilogue.bias = bias.data(), k.epilogue.relu = true;
    run = conv2d;
  } else if (d == Direction::input) {
    run = conv2d_input_grad;
  }
  ConvMemory m = d == Direction::forward ? conv2d_memory(k)
                 : d == Direction::input ? conv2d_input_grad_memory(k)
                                         : conv2d_filter_grad_memory(k);
  bench::Workspace memory(m.workspace, m.scratch, threads);
  k.workspace = memory.workspace();
  double flops = 2.0 * double(ny) * double(k.R * k.S * (k.C / k.groups));
  report(name, flops, 4.0 * double(nx + ny + nw), measure([&] { run(k, memory.stream); }));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) threads = std::atoi(argv[1]);
  const char* part = argc > 2 ? argv[2] : nullptr;
  FlushDenormals flush;
  std::printf("%s, %d thread%s, peak %.1f GFLOP/s a thread\n", name_of(chosen_isa), threads, threads > 1 ? "s" : "",
              bench::peak_gflops());
  const int64_t products[][3] = {{1, 784, 64},   {32, 784, 64},  {32, 64, 32},      {1, 2048, 1000}, {8, 2048, 1000},
                                 {16, 512, 512}, {64, 512, 512}, {128, 1024, 1024}, {512, 512, 512}, {8, 4096, 4096}};
  for (const auto& s : products) matmul_row(part, s[0], s[1], s[2]);
  const Layer layers[] = {{"detector", 1, 224, 3, 64, 3, 1, 0},         {"stem", 1, 224, 3, 64, 7, 2, 3},
                          {"detector", 1, 111, 64, 128, 3, 1, 0},       {"resnet", 1, 56, 64, 64, 3, 1, 1},
                          {"resnet", 1, 56, 64, 128, 1, 1, 0},          {"resnet50", 1, 56, 64, 256, 1, 1, 0},
                          {"resnet50", 1, 56, 256, 64, 1, 1, 0},        {"resnet50", 1, 56, 256, 128, 1, 2, 0},
                          {"resnet50", 1, 28, 512, 128, 1, 1, 0},       {"resnet50", 1, 28, 128, 128, 3, 1, 1},
                          {"resnet50", 1, 14, 1024, 256, 1, 1, 0},      {"resnet50", 1, 14, 256, 1024, 1, 1, 0},
                          {"resnet50", 1, 14, 256, 256, 3, 1, 1},       {"resnet50", 1, 7, 512, 2048, 1, 1, 0},
                          {"resnet50", 1, 7, 2048, 512, 1, 1, 0},       {"resnet50", 1, 7, 512, 512, 3, 1, 1},
                          {"inception", 1, 56, 64, 16, 1, 1, 0},        {"inception", 1, 56, 256, 128, 1, 1, 0},
                          {"inception", 1, 56, 48, 96, 5, 1, 2},        {"autoencoder", 8, 28, 1, 16, 3, 1, 0},
                          {"autoencoder", 8, 26, 16, 32, 3, 1, 0},      {"autoencoder", 8, 12, 32, 32, 3, 1, 0},
                          {"autoencoder", 8, 18, 16, 1, 3, 1, 2},       {"mobilenet", 1, 112, 32, 32, 3, 1, 1, 32},
                          {"mobilenet", 1, 56, 144, 144, 3, 1, 1, 144}, {"mobilenet", 1, 56, 144, 144, 3, 2, 1, 144},
                          {"mobilenet", 1, 14, 576, 576, 3, 1, 1, 576}};
  for (const Layer& l : layers) conv_row(part, l, Direction::forward);
  const Layer gradients[] = {{"detector", 1, 224, 3, 64, 3, 1, 0},    {"stem", 1, 224, 3, 64, 7, 2, 3},
                             {"resnet", 1, 56, 64, 64, 3, 1, 1},      {"resnet50", 1, 56, 64, 256, 1, 1, 0},
                             {"resnet50", 1, 14, 256, 1024, 1, 1, 0}, {"resnet50", 1, 28, 256, 256, 3, 2, 1},
                             {"resnet50", 4, 56, 256, 128, 1, 2, 0},  {"resnet50", 1, 7, 512, 2048, 1, 1, 0},
                             {"inception", 4, 56, 256, 128, 1, 1, 0}, {"autoencoder", 8, 28, 1, 16, 3, 1, 0},
                             {"inception", 1, 56, 48, 96, 5, 1, 2},   {"mobilenet", 1, 56, 144, 144, 3, 1, 1, 144}};
  for (const Layer& l : gradients) {
    if (l.C > 3) conv_row(part, l, Direction::input);
    conv_row(part, l, Direction::filter);
  }
  if (total_ns > 0) std::printf("all, weighted by time: %.1f %% of the bound\n", 100 * total_bound / total_ns);
}
