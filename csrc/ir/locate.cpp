#include "ir/locate.h"

#include "ir/op_view.h"

namespace dagrt {

std::string place(const Node& node) {
  const std::string& op = name_of(*node.op);
  return node.paths.empty() || node.paths[0].empty() ? op : node.paths[0] + " (" + op + ")";
}

LocatedError located(const Node& node, const Error& error) {
  if (auto* done = dynamic_cast<const LocatedError*>(&error)) return *done;
  std::string message = error.what(), prefix = name_of(*node.op) + ": ";
  if (message.compare(0, prefix.size(), prefix) == 0) message.erase(0, prefix.size());
  return LocatedError(error.kind, place(node) + ": " + message);
}

}  // namespace dagrt
