#include <cstdlib>
#include <cstring>
#include <string>

#include "base/error.h"
#include "kernels/kernel.h"

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

Isa best() { return present(Isa::avx512) ? Isa::avx512 : present(Isa::avx2) ? Isa::avx2 : Isa::scalar; }

}  // namespace

Isa chosen_isa = best();

const char* name_of(Isa isa) { return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "scalar"; }

void choose_isa(const char* name) {
  std::string have;
  for (Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512}) {
    if (!present(isa)) continue;
    if (!std::strcmp(name, name_of(isa))) {
      chosen_isa = isa;
      return;
    }
    have += std::string(have.empty() ? "" : ", ") + name_of(isa);
  }
  fail(ErrorKind::device, "DAGRT_CPU_ISA: '", name, "' is not available here; this build and machine have ", have);
}

}  // namespace dagrt
