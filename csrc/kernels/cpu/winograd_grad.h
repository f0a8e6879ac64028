// The two ways of Winograd filter gradients.
#pragma once
#include "kernels/cpu/vec.h"
#include "kernels/winograd.h"

namespace dagrt::DAGRT_ISA {

inline constexpr int64_t large_gradient = int64_t(1) << 18;  // floats of dw, which is written past the caches from here on

/// Where the plan applies (winograd_grad_mixed.cpp).
void conv2d_filter_grad_winograd_mixed(const WinogradArgs&, const WinogradMixedPlan&, const Stream&);

}  // namespace dagrt::DAGRT_ISA
