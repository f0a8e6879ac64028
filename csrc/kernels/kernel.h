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

// Twins on CUDA devices (kernels/cuda/x.cu) are overloads on the stream. They are weak: a kernel without one is
// pending, and a program that needs it is refused by name; tests/test_cuda.py holds the list of those.
#ifdef DAGRT_HAVE_CUDA
#define DAGRT_IF_CUDA(...) __VA_ARGS__
#else
#define DAGRT_IF_CUDA(...)
#endif
#define DAGRT_CUDA_TWIN(name, Args) DAGRT_IF_CUDA(__attribute__((weak)) void name(const Args&, CudaStream&);)
#define DAGRT_CALL_TWIN(name, Args)                \
  DAGRT_IF_CUDA(if (s.cuda) {                      \
    void (*twin)(const Args&, CudaStream&) = name; \
    if (twin) return twin(a, *s.cuda);             \
    if (!s.cuda->pending) s.cuda->pending = #name; \
    return;                                        \
  })

#define DAGRT_KERNEL(name, Args)                                               \
  namespace scalar {                                                           \
  void name(const Args&, const Stream&);                                       \
  }                                                                            \
  DAGRT_IF_AVX2(namespace avx2 { void name(const Args&, const Stream&); })     \
  DAGRT_IF_AVX512(namespace avx512 { void name(const Args&, const Stream&); }) \
  DAGRT_CUDA_TWIN(name, Args)                                                  \
  inline void name(const Args& a, const Stream& s) {                           \
    DAGRT_CALL_TWIN(name, Args)                                                \
    DAGRT_IF_AVX512(if (chosen_isa == Isa::avx512) return avx512::name(a, s);) \
    DAGRT_IF_AVX2(if (chosen_isa == Isa::avx2) return avx2::name(a, s);)       \
    scalar::name(a, s);                                                        \
  }

}  // namespace dagrt
