// Winograd convolutions on the layers of the seed models and ResNet50: effective GFLOP/s (flops of the direct sum) and their
// share of this core's multiply-add peak, beside the share that speed.md asks for (k 4 eta, eta: area of the map over area
// in whole tiles).
//   bench_winograd [threads [batch [what [isa]]]]    what: forward, input, filter or all
#include "kernels/winograd.h"

#include <string>

#include "harness.h"

using namespace dagrt;

namespace {

struct Layer {
  const char* name;
  int64_t H, C, F, window, pad;
};

constexpr Layer layers[] = {
    {"vgg 224", 224, 64, 64, 3, 1},         {"detector conv1", 224, 3, 64, 3, 0},   {"detector conv2", 111, 64, 128, 3, 0},
    {"detector conv3", 54, 128, 256, 3, 0}, {"resnet 64", 56, 64, 64, 3, 1},        {"resnet 64-128", 56, 64, 128, 3, 1},
    {"resnet 128", 56, 128, 128, 3, 1},     {"resnet 128-256", 56, 128, 256, 3, 1}, {"resnet 256", 56, 256, 256, 3, 1},
    {"resnet50 28", 28, 128, 128, 3, 1},    {"resnet50 14", 14, 256, 256, 3, 1},    {"resnet50 7", 7, 512, 512, 3, 1},
    {"inception 3x3 a", 56, 64, 128, 3, 1}, {"inception 3x3 b", 56, 96, 192, 3, 1}, {"inception 5x5 a", 56, 16, 32, 5, 2},
    {"inception 5x5 b", 56, 48, 96, 5, 2},  {"autoencoder 2", 26, 16, 32, 3, 0},    {"autoencoder 3", 12, 32, 32, 3, 0},
    {"autoencoder 4", 10, 32, 16, 3, 0},    {"few channels 32", 56, 32, 32, 3, 1},
};

double asked(const Layer& l, int64_t batch, int64_t P) {
  const int64_t tiles = (P + 3) / 4, least = l.C < l.F ? l.C : l.F;
  const double eta = double(P * P) / double(16 * tiles * tiles);
  const double k = least >= 128 && batch * tiles * tiles >= 16 ? 0.72 : least >= 64 ? 0.67 : least >= 32 ? 0.55 : 0;
  return l.window == 3 ? k * 4 * eta : 0;
}

void measure(const Layer& l, int64_t batch, int threads, int tile, const std::string& what, double peak) {
  const int64_t P = l.H + 2 * l.pad - l.window + 1;
  const bool input = what == "input";
  std::vector<float> x = bench::values(batch * l.H * l.H * l.C), w = bench::values(l.window * l.window * l.C * l.F, 2);
  std::vector<float> y = bench::values(batch * P * P * l.F, 3);
  std::vector<float> u(size_t(winograd_weights_size(input ? l.F : l.C, input ? l.C : l.F, l.window, tile)));
  WinogradWeightsArgs t;
  t.w = w.data(), t.u = u.data(), t.C = l.C, t.F = l.F, t.window = int(l.window), t.tile = tile, t.transpose = input;
  WinogradArgs a;
  a.B = batch, a.H = a.W = l.H, a.P = a.Q = P, a.C = l.C, a.F = l.F, a.window = int(l.window), a.tile = tile;
  a.pad_top = a.pad_left = l.pad;
  a.x = x.data(), a.y = y.data();
  if (input) {
    std::swap(a.H, a.P), std::swap(a.W, a.Q), std::swap(a.C, a.F);
    a.pad_top = a.pad_left = l.window - 1 - l.pad;
    a.x = y.data(), a.y = x.data();
  }
  a.ldx = a.C, a.ldy = a.F, a.u = u.data(), a.dw = w.data();
  const bool filter = what == "filter";
  WinogradMemory m = filter ? conv2d_filter_grad_winograd_memory(a) : conv2d_winograd_memory(a);
  bench::Workspace memory(m.workspace, m.scratch, threads);
  a.workspace = memory.workspace();
  winograd_weights(t, memory.stream);
  const double ns = bench::best_ns(
      [&] {
        if (filter)
          conv2d_filter_grad_winograd(a, memory.stream);
        else
          conv2d_winograd(a, memory.stream);
      },
      0.25);
  const double flops = 2.0 * double(batch * P * P) * double(l.window * l.window) * double(l.C * l.F), rate = flops / ns;
  const double guess = filter ? conv2d_filter_grad_winograd_ns(a) : conv2d_winograd_ns(a);
  std::printf("%-16s F(%d,%lld) %-8s batch %-3lld %9.1f us  %7.1f GFLOP/s  %5.2f of peak  asked %5.2f  model %5.2f  %5.1f MB\n",
              l.name, tile, static_cast<long long>(l.window), what.c_str(), static_cast<long long>(batch), ns / 1e3, rate,
              rate / (peak * threads), asked(l, batch, P), guess / threads / ns,
              double(m.workspace + m.scratch * size_t(threads)) / 1e6);
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  const int64_t batch = argc > 2 ? std::atoi(argv[2]) : 1;
  const std::string what = argc > 3 ? argv[3] : "all";
  if (argc > 4) choose_isa(argv[4]);
  const double peak = bench::peak_gflops();
  std::printf("%s, %d threads, peak of a core %.1f GFLOP/s\n", name_of(chosen_isa), threads, peak);
  for (const Layer& l : layers)
    for (const char* kind : {"forward", "input", "filter"})
      if (what == "all" || what == kind) measure(l, batch, threads, 4, kind, peak);
}
