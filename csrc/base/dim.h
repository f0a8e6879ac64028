// One size of a shape: a number, or an integer expression over the sizes of a function's inputs.
//
// `infer` of every op is written once, in Dim arithmetic. While a model is traced its unknown sizes are
// symbols ("x.0"); `specialise` substitutes numbers and the same code then yields numbers.
// Expressions fold constants and are compared structurally.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace dagrt {

class Dim {
 public:
  enum class Kind : uint8_t { add, sub, mul, floor_div, mod, min, max, broadcast, symbol };
  struct Expr;

  Dim() = default;
  Dim(int64_t value) : value_(value) {}  // NOLINT: a number is a Dim
  Dim(int value) : value_(value) {}      // NOLINT
  static Dim symbol(std::string name);
  /// Builds (and folds) one operation; Kind::symbol is not allowed here. A GraphError where the expression grows absurd.
  static Dim make(Kind kind, const Dim& a, const Dim& b);

  bool known() const { return !expr_; }
  /// The number; a GraphError where the size is not known yet.
  int64_t value() const;
  bool is(int64_t v) const { return known() && value_ == v; }
  const Expr* expr() const { return expr_.get(); }

  /// Replaces symbols: `lookup` answers the Dim for a symbol's name.
  Dim substitute(const std::function<Dim(const std::string&)>& lookup) const;
  std::string text() const;
  bool operator==(const Dim& o) const;
  bool operator!=(const Dim& o) const { return !(*this == o); }

 private:
  int64_t value_ = 0;
  std::shared_ptr<const Expr> expr_;
};

struct Dim::Expr {
  Kind kind;
  std::string name;  // of a symbol
  Dim a, b;
  uint32_t size = 1, depth = 1;  // of the whole tree: bounded, since every walk over it is recursive
};

inline Dim operator+(const Dim& a, const Dim& b) { return Dim::make(Dim::Kind::add, a, b); }
inline Dim operator-(const Dim& a, const Dim& b) { return Dim::make(Dim::Kind::sub, a, b); }
inline Dim operator*(const Dim& a, const Dim& b) { return Dim::make(Dim::Kind::mul, a, b); }
inline Dim floor_div(const Dim& a, const Dim& b) { return Dim::make(Dim::Kind::floor_div, a, b); }
inline Dim ceil_div(const Dim& a, int64_t b) { return floor_div(a + Dim(b - 1), Dim(b)); }
inline Dim mod(const Dim& a, const Dim& b) { return Dim::make(Dim::Kind::mod, a, b); }
inline Dim min(const Dim& a, const Dim& b) { return Dim::make(Dim::Kind::min, a, b); }
inline Dim max(const Dim& a, const Dim& b) { return Dim::make(Dim::Kind::max, a, b); }
/// The size of two broadcast axes: b where a is 1, else a. A mismatch of two known sizes is a ShapeError.
inline Dim broadcast(const Dim& a, const Dim& b) { return Dim::make(Dim::Kind::broadcast, a, b); }

/// "+", "-", "*", "//", "%", "min", "max", "broadcast": the spelling in IR files and messages.
const char* name_of(Dim::Kind kind);
Dim::Kind parse_dim_kind(std::string_view name);

using Dims = std::vector<Dim>;
std::string text(const Dims& dims);            // (None-free) "(x.0, 28, 28, 3)"
Dims broadcast(const Dims& a, const Dims& b);  // NumPy's rule
Dim product(const Dims& dims);

}  // namespace dagrt
