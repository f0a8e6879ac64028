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

#include "base/cuda_stream.h"
#include "base/dtype.h"
#include "base/parallel.h"

namespace dagrt {

enum class Isa : int { scalar, avx2, avx512 };

extern Isa chosen_isa;  // set before main by isa.cpp
const char* name_of(Isa isa);
/// Estimated, of one core and the instruction set in use: a multiply-add of vectors, where they follow one another from cache.
double multiply_ns();
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

// Twins on CUDA devices (kernels/cuda/x.cu) are overloads on the stream. A kernel without one is an error of the linker,
// unless DAGRT_CPU_KERNEL says that it belongs to an algorithm of the CPU's (Op::cpu_algorithm_of) or to the host. Builds
// without CUDA link no_cuda.cpp in their place, so that what calls kernels is compiled the same for all.
#ifndef DAGRT_TWIN
#define DAGRT_TWIN(name, Args) void name(const Args&, CudaStream&);
#endif

#define DAGRT_KERNEL_OF(name, Args, declare_twin, call_twin)                                     \
  namespace scalar {                                                                             \
  void name(const Args&, const Stream&);                                                         \
  }                                                                                              \
  DAGRT_IF_AVX2(namespace avx2 { void name(const Args&, const Stream&); })                       \
  DAGRT_IF_AVX512(namespace avx512 { void name(const Args&, const Stream&); })                   \
  declare_twin inline void name(const Args& a, const Stream& s) {                                \
    call_twin DAGRT_IF_AVX512(if (chosen_isa == Isa::avx512) return avx512::name(a, s);)         \
        DAGRT_IF_AVX2(if (chosen_isa == Isa::avx2) return avx2::name(a, s);) scalar::name(a, s); \
  }
#define DAGRT_KERNEL(name, Args) DAGRT_KERNEL_OF(name, Args, DAGRT_TWIN(name, Args), if (s.cuda) return name(a, *s.cuda);)
#define DAGRT_CPU_KERNEL(name, Args) DAGRT_KERNEL_OF(name, Args, , )

}  // namespace dagrt
