// From a traced module to what the planner takes: the one place that knows the order of passes.
#pragma once
#include <string>

#include "ir/module.h"

namespace dagrt {

struct CompileOptions {
  bool exact = true;       // only algorithms that round no worse than a direct sum
  bool algorithms = true;  // an op for each convolution and product by what it takes; those of the CPU
  bool bf16 = false;       // products of bfloat16 read it as it is; CUDA devices have them
  bool fuse = true;        // pointwise chains, epilogues, updates; folds normalisations, which rounds otherwise
  bool verify = false;     // check the invariants after every pass; also with DAGRT_VERIFY=1 in the environment
};

/// Compiles `entry` for one set of input types (fully known; as many as the function has inputs).
///
/// The result's functions.front() is the entry, the others are the bodies of its scans, each used by one node or by
/// several of the same types; variables and constants are those of the traced module, with their indices.
/// In it, all types and attributes are numbers; there is no `gradients`, no `stop_gradient` and no `read` with an
/// input; `read` without inputs stands in the entry alone, once for each variable; ScanAttrs::length is set; ids are
/// dense (inputs, then outputs in node order); nodes are in a valid order. Kept from the trace: order and names of
/// inputs and outputs, stores, guard, the nodes' paths.
/// Values nobody uses remain only as outputs of nodes that have a used one.
///
/// ShapeError where an input does not fit its declared shape ("input 'x': ...") or where the sizes do not fit each
/// other ("dense_2 (matmul): ..., from input 'x' with shape (32, 64)"); GraphError for a size that stays unknown.
Module compile(const Module& traced, const std::string& entry, const Types& inputs, const CompileOptions& options = {});

}  // namespace dagrt
