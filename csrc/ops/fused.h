// The op `pointwise`: a chain of pointwise ops as one node. What the pass that makes it must know.
#pragma once
#include <string>
#include <vector>

#include "ops/op.h"

namespace dagrt {

class Registry;

inline constexpr size_t fused_most_inputs = 8, fused_most_instructions = 16, fused_most_constants = 16;

/// Whether a node of this op, with operands of these types, can be an instruction of `pointwise`: every value is
/// float32 or bool, and nothing in it can fault.
bool fusable(const Op& op, const Types& in, const TensorType& out);

/// Attributes of `pointwise`. An instruction is an op's name and its operands, in the order given: "multiply 0 3".
/// 0 to inputs - 1 are inputs, then come the results of earlier instructions; c0, c1, ... are the constants.
AttrMap fused_attrs(const std::vector<std::string>& program, const std::vector<double>& constants);

void register_fused(Registry&);

}  // namespace dagrt
