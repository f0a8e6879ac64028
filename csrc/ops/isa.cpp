#include "ops/isa.h"

#include "kernels/kernel.h"

namespace dagrt {

int isa_in_use() { return int(chosen_isa); }

}  // namespace dagrt
