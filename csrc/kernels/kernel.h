// How a kernel is declared and found. kernels/x.h has an Args struct and, for each kernel,
//   DAGRT_KERNEL(matmul, MatmulArgs)
// which declares one function per instruction set, dagrt::scalar::matmul and so on, and
// dagrt::matmul(args, stream), which calls the one chosen at start (cpuid, or DAGRT_CPU_ISA).
// kernels/cpu/x.cpp is compiled once per instruction set and defines it inside
//   namespace dagrt::DAGRT_ISA { void matmul(const MatmulArgs& a, const Stream& s) { ... } }
// Such files use no std:: containers and no inline functions shared across instruction sets.
#pragma once
#include <cstddef>
#include <cstdint>

#include "base/dtype.h"
#include "base/parallel.h"

namespace dagrt {

enum class Isa : int { scalar, avx2, avx512 };

extern Isa chosen_isa;  // set before main by isa.cpp
const char* name_of(Isa isa);
/// Chooses by name; a DeviceError lists those that this build and machine have.
void choose_isa(const char* name);

#ifdef DAGRT_HAVE_AVX2
#define DAGRT_IF_AVX2(...) __VA_ARGS__
#else
#define DAGRT_IF_AVX2(...)
#endif
#ifdef DAGRT_HAVE_AVX512
#define DAGRT_IF_AVX512(...) __VA_ARGS__
#else
#define DAGRT_IF_AVX512(...)
#endif

#define DAGRT_KERNEL(name, Args)                                               \
  namespace scalar {                                                           \
  void name(const Args&, const Stream&);                                       \
  }                                                                            \
  DAGRT_IF_AVX2(namespace avx2 { void name(const Args&, const Stream&); })     \
  DAGRT_IF_AVX512(namespace avx512 { void name(const Args&, const Stream&); }) \
  inline void name(const Args& a, const Stream& s) {                           \
    DAGRT_IF_AVX512(if (chosen_isa == Isa::avx512) return avx512::name(a, s);) \
    DAGRT_IF_AVX2(if (chosen_isa == Isa::avx2) return avx2::name(a, s);)       \
    scalar::name(a, s);                                                        \
  }

}  // namespace dagrt
