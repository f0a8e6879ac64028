// The invariants of the IR, checked on reading and, in tests or with DAGRT_VERIFY=1, after every pass.
//
// - every value is defined exactly once, by an input or a node, before it is used;
// - the number of inputs fits the op, and inferring a node's types again gives what the function records;
// - every output, store and guard names a defined value; stores have their variable's type, at most one for each;
//   `when` and guard are bool scalars;
// - a scan's body exists, does not lead back to itself, assigns nothing, and its carries keep their types.
// With `specialised`: every size is a number, no `gradients` node is left, and bodies read no variables.
#pragma once
#include "ir/module.h"

namespace dagrt {

inline constexpr int max_scan_depth = 32;  // scans inside scans

/// GraphError naming the function, node and path of the first violation.
void verify(const Module& module, const Function& f, bool specialised = false);
void verify(const Module& module, bool specialised = false);

}  // namespace dagrt
