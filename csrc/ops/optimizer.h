// The optimiser updates and their forms over many variables: what the pass join_updates must know.
#pragma once
#include "ops/op.h"

namespace dagrt {

inline constexpr int update_most = 64;  // variables of one node, so that its lists stay short

struct Update {
  const Op* all = nullptr;  // lr(, step), then `states` states and the gradient of each variable
  int states = 0;           // the variable and its slots: inputs before the gradient, and outputs
};

/// What x_update becomes over many variables; null for any other op.
const Update* find_update(const Op& op);

}  // namespace dagrt
