// Independent multiply-adds, as many as hide their latency (2 a cycle, 4 to 5 cycles each: 12 sums), from registers alone;
// and a copy of more than the caches hold, with ordinary stores.
#include "kernels/roofline.h"

#include "kernels/cpu/vec.h"

namespace dagrt::DAGRT_ISA {

void roofline(const RooflineArgs& a, const Stream& s) {
  constexpr int sums = 12;
  if (a.bytes > 0) {
    const int64_t chunk = 1 << 16, units = a.bytes / chunk;
    s.parallel(units, 20'000, [&](int64_t unit, char*) {
      const float* from = a.from + unit * (chunk / 4);
      float* to = a.to + unit * (chunk / 4);
      for (int64_t i = 0; i < chunk / 4; i += V) store(to + i, load(from + i));
    });
    return;
  }
  *a.flops = 2.0 * sums * V;
  s.parallel(a.units, double(a.rounds) * 2, [&](int64_t unit, char*) {
    vf acc[sums], x = load(a.sink), y = load(a.sink + V % 16);
#pragma GCC unroll 16
    for (int i = 0; i < sums; i++) acc[i] = splat(float(i));
    for (int64_t k = 0; k < a.rounds; k++) {
#pragma GCC unroll 16
      for (int i = 0; i < sums; i++) acc[i] = acc[i] * x + y;
    }
    vf total = acc[0];
#pragma GCC unroll 16
    for (int i = 1; i < sums; i++) total += acc[i];
    store(a.sink + 16 * (unit + 1), total);
  });
}

}  // namespace dagrt::DAGRT_ISA
