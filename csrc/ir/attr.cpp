#include "ir/attr.h"

#include <algorithm>
#include <cmath>

#include "ir/lists.h"

namespace dagrt {
namespace {

bool equal(const AttrValue& a, const AttrValue& b) {
  if (a.v.index() != b.v.index()) return false;
  if (auto* x = std::get_if<double>(&a.v)) {
    double y = std::get<double>(b.v);
    return *x == y ? std::signbit(*x) == std::signbit(y) : *x != *x && y != y;
  }
  if (auto* x = std::get_if<AttrList>(&a.v)) {
    const AttrList& y = std::get<AttrList>(b.v);
    return std::equal(x->begin(), x->end(), y.begin(), y.end(),
                      [](const AttrValue& p, const AttrValue& q) { return equal(p, q); });
  }
  if (auto* x = std::get_if<bool>(&a.v)) return *x == std::get<bool>(b.v);
  if (auto* x = std::get_if<int64_t>(&a.v)) return *x == std::get<int64_t>(b.v);
  if (auto* x = std::get_if<std::string>(&a.v)) return *x == std::get<std::string>(b.v);
  return std::get<Dim>(a.v) == std::get<Dim>(b.v);
}

}  // namespace

bool equal(const AttrMap& a, const AttrMap& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const auto& p, const auto& q) { return p.first == q.first && equal(p.second, q.second); });
}

namespace {

/// Assigned in place: of temporaries that are moved in, GCC 12 takes alternatives that they do not hold for read.
template <class T> AttrValue list_of(const std::vector<T>& values) {
  AttrList list(values.size());
  for (size_t i = 0; i < values.size(); i++) list[i].v = values[i];
  return {std::move(list)};
}

}  // namespace

AttrValue attr_list(const std::vector<int64_t>& values) { return list_of(values); }
AttrValue attr_list(const std::vector<Dim>& sizes) { return list_of(sizes); }

}  // namespace dagrt

namespace dagrt::attr_detail {

void wrong_type(const std::string& op, const char* name, const char* wanted) {
  fail(ErrorKind::graph, op, ": attribute '", name, "' must be ", wanted);
}

Dim parse_size(const std::string& op, const char* name, const AttrValue& a, int depth) {
  if (auto* d = std::get_if<Dim>(&a.v)) return *d;
  if (auto* i = std::get_if<int64_t>(&a.v)) return *i;
  if (auto* s = std::get_if<std::string>(&a.v); s && !s->empty()) return Dim::symbol(*s);
  auto* list = std::get_if<AttrList>(&a.v);
  if (!list || list->size() != 3 || depth > 1000) wrong_type(op, name, "a size");
  auto* kind = std::get_if<std::string>(&(*list)[0].v);
  if (!kind) wrong_type(op, name, "a size");
  return Dim::make(parse_dim_kind(*kind), parse_size(op, name, (*list)[1], depth + 1),
                   parse_size(op, name, (*list)[2], depth + 1));
}

void Reader::missing(const char* name) const { fail(ErrorKind::graph, op, ": attribute '", name, "' is missing"); }

void Reader::finish() const {
  for (const auto& [key, value] : map)
    if (std::find(seen.begin(), seen.end(), key) == seen.end()) fail(ErrorKind::graph, op, ": unknown attribute '", key, "'");
}

}  // namespace dagrt::attr_detail
