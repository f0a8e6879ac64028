#include "ops/isa.h"

#include "kernels/matmul_bf16_packed.h"

namespace dagrt {

int isa_in_use() { return int(chosen_isa) + int(chosen_bf16_dot); }  // avx512, which it goes with, is the last
const char* isa_name() { return chosen_bf16_dot ? "avx512_bf16" : name_of(chosen_isa); }

}  // namespace dagrt
