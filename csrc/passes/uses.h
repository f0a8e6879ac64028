// Who makes and who uses each value of a function: what fusing passes ask. Valid while the function's nodes stay.
#pragma once
#include <vector>

#include "ops/op.h"

namespace dagrt {

struct Uses {
  std::vector<int> producer;            // of a value: node, or -1
  std::vector<std::vector<int>> users;  // of a value: nodes, in order, each once
  std::vector<bool> kept;               // values that leave the function: outputs, stores, guard
  std::vector<bool> constant;           // scalars that a `full` of float32 makes,
  std::vector<double> number;           // and what they are

  explicit Uses(const Function& f);

  /// The node that makes v, if it is of that op.
  const Node* made_by(const Function& f, ValueId v, const char* op) const;
};

/// The place of `number` among `all`, or their count. By bits: -0 is not 0, and a NaN is itself.
size_t find_number(const std::vector<double>& all, double number);

/// Whether a node can be an instruction of a fused chain (ops/fused.h), with a result that is no scalar.
bool can_fuse(const Function& f, const Node& n);

/// Adds layer paths, each once, as far as they are worth telling.
void add_paths(std::vector<std::string>& to, const std::vector<std::string>& from);

}  // namespace dagrt
