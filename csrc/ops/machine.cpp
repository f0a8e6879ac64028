#include "ops/machine.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "kernels/roofline.h"

namespace dagrt {
namespace {

template <class F> double best_seconds(int tries, const F& f) {
  double best = 1e9;
  for (int i = 0; i < tries; i++) {
    auto begin = std::chrono::steady_clock::now();
    f();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

}  // namespace

Roofline measure_roofline(int threads) {
  Stream stream;
  stream.threads = threads;
  std::vector<float> sink(size_t(16 * (threads + 1) + 64)), from(size_t(16) << 20), to(from.size());
  double flops = 0;
  RooflineArgs a;
  a.flops = &flops;
  a.sink = sink.data();
  a.units = threads;
  a.rounds = 200'000;
  Roofline r;
  double seconds = best_seconds(8, [&] { roofline(a, stream); });
  r.flops_per_s = flops * double(a.units) * double(a.rounds) / seconds;
  a.from = from.data();
  a.to = to.data();
  a.bytes = int64_t(from.size() * sizeof(float));
  r.bytes_per_s = 2 * double(a.bytes) / best_seconds(5, [&] { roofline(a, stream); });
  return r;
}

}  // namespace dagrt
