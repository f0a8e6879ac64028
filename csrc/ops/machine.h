// What the machine can do at most: measured, for profiles.
#pragma once

namespace dagrt {

struct Roofline {
  double flops_per_s = 0, bytes_per_s = 0;  // multiply-adds count two; a copy's bytes read and written
};

/// Best of several tries on so many threads; takes some 50 ms.
Roofline measure_roofline(int threads);

}  // namespace dagrt
