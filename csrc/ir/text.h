// A readable dump of functions: for Function.text(), golden tests and debugging.
//
//   main(%0 x: float32(x.0, 784)) {
//     %1 = read {variable: "dense/kernel"} : float32(784, 64)  # dense
//     %2 = matmul(%0, %1) {transpose_b: true} : float32(x.0, 64)  # dense
//     store "dense/kernel" = %7 when %9
//     guard %3
//     return %2 dense
//   }
// An absent optional input is `_`; several outputs are listed with their types in order.
#pragma once
#include <string>

#include "ir/module.h"

namespace dagrt {

std::string text(const AttrMap& attrs);
std::string text(const Module& module, const Function& f);
std::string text(const Module& module);  // all functions, the first one first

}  // namespace dagrt
