// Values that stay the same from run to run, as long as no variable is assigned in between.
#pragma once
#include <vector>

#include "ir/module.h"

namespace dagrt {

/// By value of a function: whether it follows, through deterministic ops that cannot fault, from constants and from
/// variables that the function does not write.
std::vector<char> steady_values(const Function& f);

}  // namespace dagrt
