#include "passes/pipeline.h"

#include <cstdlib>
#include <string>

#include "ir/verify.h"
#include "passes/passes.h"

namespace dagrt {

Module compile(const Module& traced, const std::string& entry, const Types& inputs, const CompileOptions& options) {
  static const bool always = [] {
    const char* v = std::getenv("DAGRT_VERIFY");
    return v && std::string(v) == "1";
  }();
  const bool check = options.verify || always;
  auto checked = [&](Module& m, bool specialised) {
    if (check) verify(m, specialised);
  };
  Module m = specialise(traced, entry, inputs);
  checked(m, false);
  eliminate_dead_code(m);
  checked(m, false);
  expand_gradients(m);
  checked(m, false);  // reads of assigned values go with the folding
  fold_layout(m);
  checked(m, true);
  eliminate_common_subexpressions(m);
  checked(m, true);
  eliminate_dead_code(m);
  checked(m, true);
  if (options.algorithms && options.fuse) {
    widen_halves(m);
    checked(m, true);
    eliminate_common_subexpressions(m);
    checked(m, true);
    eliminate_dead_code(m);
    checked(m, true);
  }
  if (options.fuse) {
    fold_batch_norm(m);
    checked(m, true);
  }
  if (options.algorithms && !options.exact) {
    space_to_depth(m);
    checked(m, true);
  }
  if (options.algorithms && options.fuse) {
    split_batch(m);
    checked(m, true);
  }
  if (options.algorithms) {
    skip_pixels(m);
    checked(m, true);
    choose_algorithms(m, options.exact);
    checked(m, true);
    pack_lstm(m);
    checked(m, true);
    eliminate_dead_code(m);  // lookups that no one projects
    checked(m, true);
  }
  if (options.bf16) {
    multiply_bf16(m);
    checked(m, true);
    eliminate_dead_code(m);  // casts that no one reads
    checked(m, true);
  }
  if (options.algorithms && options.fuse) {
    add_in_scatter(m);
    checked(m, true);
  }
  if (options.fuse) {
    join_updates(m);
    checked(m, true);
    mask_before_pooling(m);
    checked(m, true);
    mask_before_slicing(m);
    checked(m, true);
    simplify_row_sums(m);
    checked(m, true);
    recompute_pointwise(m);
    checked(m, true);
    fuse_epilogues(m);
    checked(m, true);
    fuse_pooling(m);
    checked(m, true);
    fuse_pointwise(m);
    checked(m, true);
    eliminate_dead_code(m);  // scalars that became constants of a chain
    checked(m, true);
  }
  renumber(m);
  checked(m, true);
  return m;
}

}  // namespace dagrt
