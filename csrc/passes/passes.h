// The passes: each a pure edit of a module, in a file of its own name. pipeline.cpp knows their order.
#pragma once
#include <string>
#include <vector>

#include "ir/module.h"

namespace dagrt {

/// The entry and the bodies of its scans, for one set of input types, as a new module: every size a number.
Module specialise(const Module& traced, const std::string& entry, const Types& inputs);

// All below work on a specialised module, in place.
void expand_gradients(Module& module);
void fold_layout(Module& module);
void eliminate_common_subexpressions(Module& module);
void eliminate_dead_code(Module& module);
void widen_halves(Module& module);
void space_to_depth(Module& module);
void split_batch(Module& module);
void skip_pixels(Module& module);
void choose_algorithms(Module& module, bool exact);
void pack_lstm(Module& module);
void multiply_bf16(Module& module);
void fold_batch_norm(Module& module);
void add_in_scatter(Module& module);
void join_updates(Module& module);
void simplify_row_sums(Module& module);
void mask_before_pooling(Module& module);
void mask_before_slicing(Module& module);
void recompute_pointwise(Module& module);
void fuse_epilogues(Module& module);
void fuse_pooling(Module& module);
void fuse_pointwise(Module& module);
/// Values numbered densely: inputs, then outputs in node order; functions nobody uses are dropped.
void renumber(Module& module);

/// For passes that find two values to be one: alias[v] is what stands for v. Applied to a whole function.
void apply_aliases(Function& f, const std::vector<ValueId>& alias);

}  // namespace dagrt
