#include "ir/attr.h"

#include <algorithm>

namespace dagrt::attr_detail {

void wrong_type(const std::string& op, const char* name, const char* wanted) {
  fail(ErrorKind::graph, op, ": attribute '", name, "' must be ", wanted);
}

void Reader::missing(const char* name) const {
  fail(ErrorKind::graph, op, ": attribute '", name, "' is missing");
}

void Reader::finish() const {
  for (const auto& [key, value] : map)
    if (std::find(seen.begin(), seen.end(), key) == seen.end())
      fail(ErrorKind::graph, op, ": unknown attribute '", key, "'");
}

}  // namespace dagrt::attr_detail
