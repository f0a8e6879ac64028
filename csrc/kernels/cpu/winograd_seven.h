// Winograd convolutions by tiles of 7 x 7 (winograd_seven.cpp).
#pragma once
#include "kernels/cpu/vec.h"
#include "kernels/winograd.h"

namespace dagrt::DAGRT_ISA {

void winograd_seven_weights(const WinogradWeightsArgs&, const Stream&);
void conv2d_winograd_seven(const WinogradArgs&, const Stream&);

}  // namespace dagrt::DAGRT_ISA
