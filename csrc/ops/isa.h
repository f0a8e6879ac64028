// Which instruction set the kernels use now: what stands above ops and keeps results of Op::memory must know.
#pragma once

namespace dagrt {

int isa_in_use();
const char* isa_name();

}  // namespace dagrt
