#include "ops/op.h"

#include <mutex>

#include "ops/registry.h"

namespace dagrt {

void Registry::add(Op op) {
  std::string name = op.name;
  if (!ops_.emplace(name, std::make_unique<Op>(std::move(op))).second)
    fail(ErrorKind::internal, "op '", name, "' is registered twice");
}

const Op* Registry::find(const std::string& name) const {
  auto it = ops_.find(name);
  return it == ops_.end() ? nullptr : it->second.get();
}

std::vector<const Op*> Registry::all() const {
  std::vector<const Op*> list;
  for (const auto& [name, op] : ops_) list.push_back(op.get());
  return list;
}

void Status::report(int32_t c, int32_t at_node, int64_t at_index, int64_t v, int64_t lim) {
  static std::mutex mutex;  // faults are rare: one lock for all
  std::lock_guard<std::mutex> lock(mutex);
  if (code != ok && (node < at_node || (node == at_node && index <= at_index))) return;
  code = c;
  node = at_node;
  index = at_index;
  value = v;
  limit = lim;
}

}  // namespace dagrt
