// What the ladders share: vectors, and rows that are steps of one ladder. Each step is the one before with one idea more,
// in plain C++ with GCC's vectors, for one size; the last is dagrt's kernel. Every step's result is compared with the first's.
#pragma once
#include <cstring>

#include "../cpp/harness.h"

namespace ladder {

using bench::Floats;

#if defined(__AVX512F__)
constexpr int V = 16;
#else
constexpr int V = 8;
#endif
typedef float vf __attribute__((vector_size(V * 4)));

inline vf load(const float* p) {
  vf v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, vf v) { std::memcpy(p, &v, sizeof v); }

/// Adds a row: `run` writes `y`, which must be `expected`.
template <class Data> void step(const std::string& name, double flops, std::shared_ptr<Data> (*make)(), void (*run)(Data&)) {
  bench::add_row(name, [=] {
    auto d = make();
    bench::Work w;
    w.dagrt = {"step", [=] { run(*d); }, [=] { return bench::copy(d->y.data(), int64_t(d->y.size())); }};
    w.flops = flops;
    w.expected = &d->expected();
    return w;
  });
}

}  // namespace ladder
