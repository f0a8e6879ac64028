#include <cstdlib>
#include <cstring>
#include <string>

#include "base/error.h"
#include "kernels/kernel.h"
#include "kernels/matmul_bf16_packed.h"

namespace dagrt {
namespace {

bool machine_has(Isa isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  switch (isa) {
    case Isa::scalar: return true;
    case Isa::avx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    case Isa::avx512:
#if defined(DAGRT_NARROW_AVX512)
      return machine_has(Isa::avx2);
#endif
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl");
  }
#endif
  return isa == Isa::scalar;
}

bool build_has(Isa isa) {
  DAGRT_IF_AVX2(if (isa == Isa::avx2) return true;)
  DAGRT_IF_AVX512(if (isa == Isa::avx512) return true;)
  return isa == Isa::scalar;
}

bool present(Isa isa) { return build_has(isa) && machine_has(isa); }

/// AVX512-BF16, for what has kernels of it. Without its own mention it is taken where it is the faster: AMD's cores do twice as
/// many products with vdpbf16ps as with float32, Intel's half.
bool has_bf16_dot() {
#if !defined(DAGRT_HAVE_AVX512)
  return false;
#elif defined(DAGRT_NARROW_AVX512)
  return present(Isa::avx512);
#else
  return present(Isa::avx512) && __builtin_cpu_supports("avx512bf16");
#endif
}
bool bf16_dot_is_fast() {
#if defined(__x86_64__)
  return has_bf16_dot() && __builtin_cpu_is("amd");
#else
  return false;
#endif
}

Isa best() { return present(Isa::avx512) ? Isa::avx512 : present(Isa::avx2) ? Isa::avx2 : Isa::scalar; }

}  // namespace

Isa chosen_isa = best();
bool chosen_bf16_dot = bf16_dot_is_fast();

const char* name_of(Isa isa) { return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "scalar"; }

// At about 3.4 GHz two a cycle; of 512 bits one a cycle on AMD's Zen 4, whose halves take turns, and two at a slower clock on Intel's.
double multiply_ns() {
#if defined(__x86_64__)
  static const bool in_halves = __builtin_cpu_is("amdfam19h");
  if (chosen_isa == Isa::avx512 && in_halves) return 0.28;
#endif
  return 0.17;
}

void choose_isa(const char* name) {
  std::string have;
  for (Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512}) {
    if (!present(isa)) continue;
    if (!std::strcmp(name, name_of(isa))) {
      chosen_isa = isa;
      chosen_bf16_dot = false;
      return;
    }
    have += std::string(have.empty() ? "" : ", ") + name_of(isa);
  }
  if (has_bf16_dot()) {
    if (!std::strcmp(name, "avx512_bf16")) {
      chosen_isa = Isa::avx512;
      chosen_bf16_dot = true;
      return;
    }
    have += ", avx512_bf16";
  }
  fail(ErrorKind::device, "DAGRT_CPU_ISA: '", name, "' is not available here; this build and machine have ", have);
}

}  // namespace dagrt
