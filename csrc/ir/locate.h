// Says of an error at which node it was met.
#pragma once
#include <string>

#include "ir/module.h"

namespace dagrt {

/// An error whose message names its node already; outer nodes (a scan around it) leave it as it is.
struct LocatedError : Error {
  using Error::Error;
};

/// "dense_2 (matmul)", or "matmul" for a node without a path.
std::string place(const Node& node);

/// The error with the node's place for the op's name in front:
/// "matmul: inner sizes ..." becomes "dense_2 (matmul): inner sizes ...".
LocatedError located(const Node& node, const Error& error);

}  // namespace dagrt
