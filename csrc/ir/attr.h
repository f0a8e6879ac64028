// Attributes of an op: outside, a map of plain values (what JSON and Python can say); inside, one typed struct.
//
// An op declares its struct once:
//   struct ReduceAttrs {
//     std::vector<int64_t> axes;
//     bool keepdims = false;
//     template <class V> void visit(V& v) { v("axes", axes); v("keepdims", keepdims, false); }
//   };
// From that one declaration come reading with validation (unknown or missing keys are errors), writing,
// substitution of sizes and the op table's documentation. A third argument makes a field optional.
// In JSON a size is an integer, a symbol's name or ["+", a, b]; the field's type tells it from a string or a list.
// Field types: bool, int64_t, double, std::string, DType, Dim (schema type `size`), and vectors of
// int64_t, double, std::string, Dim.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "base/dim.h"
#include "base/dtype.h"

namespace dagrt {

struct AttrValue;
using AttrList = std::vector<AttrValue>;
struct AttrValue {
  std::variant<bool, int64_t, double, std::string, Dim, AttrList> v;
};
using AttrMap = std::map<std::string, AttrValue>;

using Attrs = std::shared_ptr<const void>;  // the typed struct; its AttrType knows what it is
using DimLookup = std::function<Dim(const std::string&)>;

/// What the IR needs to know of an attribute struct.
struct AttrType {
  Attrs (*read)(const std::string& op, const AttrMap&) = nullptr;
  AttrMap (*write)(const void*) = nullptr;
  Attrs (*substitute)(const void*, const DimLookup&) = nullptr;
  bool (*has_unknown)(const void*) = nullptr;     // a size that is still symbolic
  size_t (*hash)(const void*) = nullptr;          // equal attributes have equal hashes
  std::vector<std::string> (*names)() = nullptr;  // in order of declaration
};

/// Same keys, kinds and values; a NaN equals itself.
bool equal(const AttrMap& a, const AttrMap& b);

struct NoAttrs {
  template <class V> void visit(V&) {}
};

namespace attr_detail {

[[noreturn]] void wrong_type(const std::string& op, const char* name, const char* wanted);
Dim parse_size(const std::string& op, const char* name, const AttrValue& a, int depth = 0);

inline void take(const std::string& op, const char* n, const AttrValue& a, bool& x) {
  if (auto* p = std::get_if<bool>(&a.v))
    x = *p;
  else
    wrong_type(op, n, "a bool");
}
inline void take(const std::string& op, const char* n, const AttrValue& a, int64_t& x) {
  if (auto* p = std::get_if<int64_t>(&a.v))
    x = *p;
  else if (auto* d = std::get_if<Dim>(&a.v); d && d->known())
    x = d->value();
  else
    wrong_type(op, n, "an integer");
}
inline void take(const std::string& op, const char* n, const AttrValue& a, double& x) {
  if (auto* p = std::get_if<double>(&a.v))
    x = *p;
  else if (auto* i = std::get_if<int64_t>(&a.v))
    x = double(*i);
  else if (auto* s = std::get_if<std::string>(&a.v)) {  // JSON has no inf and nan: they are strings there
    if (*s == "inf")
      x = __builtin_inf();
    else if (*s == "-inf")
      x = -__builtin_inf();
    else if (*s == "nan")
      x = __builtin_nan("");
    else
      wrong_type(op, n, "a number");
  } else
    wrong_type(op, n, "a number");
}
inline void take(const std::string& op, const char* n, const AttrValue& a, std::string& x) {
  if (auto* p = std::get_if<std::string>(&a.v))
    x = *p;
  else
    wrong_type(op, n, "a string");
}
inline void take(const std::string& op, const char* n, const AttrValue& a, DType& x) {
  if (auto* p = std::get_if<std::string>(&a.v))
    x = parse_dtype(*p);
  else
    wrong_type(op, n, "a dtype name");
}
inline void take(const std::string& op, const char* n, const AttrValue& a, Dim& x) {
  if (auto* p = std::get_if<Dim>(&a.v))
    x = *p;
  else if (auto* i = std::get_if<int64_t>(&a.v))
    x = *i;
  else
    x = parse_size(op, n, a);
}
template <class T> void take(const std::string& op, const char* n, const AttrValue& a, std::vector<T>& x) {
  auto* list = std::get_if<AttrList>(&a.v);
  if (!list) wrong_type(op, n, "a list");
  x.clear();
  for (const AttrValue& e : *list) {
    T t{};
    take(op, n, e, t);
    x.push_back(std::move(t));
  }
}

inline AttrValue give(bool x) { return {x}; }
inline AttrValue give(int64_t x) { return {x}; }
inline AttrValue give(double x) { return {x}; }
inline AttrValue give(const std::string& x) { return {x}; }
inline AttrValue give(DType x) { return {std::string(name_of(x))}; }
inline AttrValue give(const Dim& x) { return x.known() ? AttrValue{x.value()} : AttrValue{x}; }
template <class T> AttrValue give(const std::vector<T>& x) {
  AttrList list;
  for (const T& e : x) list.push_back(give(e));
  return {list};
}

struct Reader {
  const std::string& op;
  const AttrMap& map;
  std::vector<std::string> seen{};
  template <class T> void operator()(const char* name, T& x) {
    auto it = map.find(name);
    if (it == map.end()) missing(name);
    take(op, name, it->second, x);
    seen.push_back(name);
  }
  template <class T, class D> void operator()(const char* name, T& x, const D& fallback) {
    auto it = map.find(name);
    if (it == map.end()) {
      x = T(fallback);
      return;
    }
    take(op, name, it->second, x);
    seen.push_back(name);
  }
  [[noreturn]] void missing(const char* name) const;
  void finish() const;  // unknown keys are an error
};

struct Writer {
  AttrMap map;
  template <class T, class... D> void operator()(const char* name, T& x, const D&...) { map[name] = give(x); }
};

struct Substituter {
  const DimLookup& lookup;
  template <class T, class... D> void operator()(const char*, T& x, const D&...) {
    if constexpr (std::is_same_v<T, Dim>) x = x.substitute(lookup);
    if constexpr (std::is_same_v<T, std::vector<Dim>>)
      for (Dim& d : x) d = d.substitute(lookup);
  }
};

struct UnknownFinder {
  bool found = false;
  template <class T, class... D> void operator()(const char*, T& x, const D&...) {
    if constexpr (std::is_same_v<T, Dim>) found |= !x.known();
    if constexpr (std::is_same_v<T, std::vector<Dim>>)
      for (Dim& d : x) found |= !d.known();
  }
};

inline size_t mix(size_t h, size_t x) { return (h ^ x) * size_t(0x9E3779B97F4A7C15) + (h >> 29); }
inline size_t hash_of(bool x) { return size_t(x); }
inline size_t hash_of(int64_t x) { return size_t(x); }
inline size_t hash_of(double x) { return std::hash<double>()(x == x ? x : 0.5); }
inline size_t hash_of(const std::string& x) { return std::hash<std::string>()(x); }
inline size_t hash_of(DType x) { return size_t(x); }
inline size_t hash_of(const Dim& x) { return x.known() ? size_t(x.value()) : size_t(-7); }
template <class T> size_t hash_of(const std::vector<T>& x) {
  size_t h = x.size();
  for (const T& e : x) h = mix(h, hash_of(e));
  return h;
}

struct Hasher {
  size_t h = 0;
  template <class T, class... D> void operator()(const char*, T& x, const D&...) { h = mix(h, hash_of(x)); }
};

struct Namer {
  std::vector<std::string> names;
  template <class T, class... D> void operator()(const char* name, T&, const D&...) { names.push_back(name); }
};

}  // namespace attr_detail

template <class A> AttrType attr_type() {
  AttrType t;
  t.read = [](const std::string& op, const AttrMap& map) -> Attrs {
    auto a = std::make_shared<A>();
    attr_detail::Reader r{op, map};
    a->visit(r);
    r.finish();
    return a;
  };
  t.write = [](const void* p) {
    A a = *static_cast<const A*>(p);
    attr_detail::Writer w;
    a.visit(w);
    return std::move(w.map);
  };
  t.substitute = [](const void* p, const DimLookup& lookup) -> Attrs {
    auto a = std::make_shared<A>(*static_cast<const A*>(p));
    attr_detail::Substituter s{lookup};
    a->visit(s);
    return a;
  };
  t.has_unknown = [](const void* p) {
    A a = *static_cast<const A*>(p);
    attr_detail::UnknownFinder f;
    a.visit(f);
    return f.found;
  };
  t.hash = [](const void* p) {
    attr_detail::Hasher h;
    const_cast<A*>(static_cast<const A*>(p))->visit(h);  // reads only
    return h.h;
  };
  t.names = [] {
    A a{};
    attr_detail::Namer n;
    a.visit(n);
    return std::move(n.names);
  };
  return t;
}

}  // namespace dagrt
