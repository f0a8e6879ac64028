#include "base/dim.h"

#include <algorithm>

namespace dagrt {
namespace {

constexpr uint32_t max_expression_size = 1 << 16, max_expression_depth = 1000;

int64_t floor_div_int(int64_t a, int64_t b) {
  if (b == 0) fail(ErrorKind::shape, "a size expression divides by zero: ", a, " // 0");
  if (b == -1 && a == INT64_MIN) fail(ErrorKind::shape, "a size expression overflows 64 bits: ", a, " // -1");
  int64_t q = a / b;
  return (a % b != 0 && ((a < 0) != (b < 0))) ? q - 1 : q;
}

int64_t fold(Dim::Kind kind, int64_t a, int64_t b) {
  int64_t r = 0;
  bool overflow = false;
  switch (kind) {
    case Dim::Kind::add: overflow = __builtin_add_overflow(a, b, &r); break;
    case Dim::Kind::sub: overflow = __builtin_sub_overflow(a, b, &r); break;
    case Dim::Kind::mul: overflow = __builtin_mul_overflow(a, b, &r); break;
    case Dim::Kind::floor_div: return floor_div_int(a, b);
    case Dim::Kind::mod: return a - floor_div_int(a, b) * b;
    case Dim::Kind::min: return a < b ? a : b;
    case Dim::Kind::max: return a < b ? b : a;
    case Dim::Kind::broadcast:
      if (a == b || b == 1) return a;
      if (a == 1) return b;
      fail(ErrorKind::shape, "sizes ", a, " and ", b, " do not broadcast: they must be equal, or one of them 1");
    case Dim::Kind::symbol: break;
  }
  if (overflow) fail(ErrorKind::shape, "a size expression overflows 64 bits: ", a, " ", name_of(kind), " ", b);
  return r;
}

}  // namespace

const char* name_of(Dim::Kind kind) {
  switch (kind) {
    case Dim::Kind::add: return "+";
    case Dim::Kind::sub: return "-";
    case Dim::Kind::mul: return "*";
    case Dim::Kind::floor_div: return "//";
    case Dim::Kind::mod: return "%";
    case Dim::Kind::min: return "min";
    case Dim::Kind::max: return "max";
    case Dim::Kind::broadcast: return "broadcast";
    case Dim::Kind::symbol: return "symbol";
  }
  return "?";
}

Dim::Kind parse_dim_kind(std::string_view name) {
  for (int k = 0; k < int(Dim::Kind::symbol); k++)
    if (name == name_of(Dim::Kind(k))) return Dim::Kind(k);
  fail(ErrorKind::format, "unknown size operation '", name, "'");
}

Dim Dim::symbol(std::string name) {
  Dim d;
  d.expr_ = std::make_shared<const Expr>(Expr{Kind::symbol, std::move(name), {}, {}, 1, 1});
  return d;
}

Dim Dim::make(Kind kind, const Dim& a, const Dim& b) {
  if (a.known() && b.known()) return fold(kind, a.value_, b.value_);
  switch (kind) {  // identities that keep expressions small
    case Kind::add:
      if (a.is(0)) return b;
      if (b.is(0)) return a;
      if (b.known() && a.expr_->kind == Kind::add && a.expr_->b.known())  // (x + 1) + 2
        return make(Kind::add, a.expr_->a, fold(Kind::add, a.expr_->b.value_, b.value_));
      if (b.known() && a.expr_->kind == Kind::sub && a.expr_->b.known())
        return make(Kind::add, a.expr_->a, fold(Kind::sub, b.value_, a.expr_->b.value_));
      break;
    case Kind::sub:
      if (b.is(0)) return a;
      if (a == b) return 0;
      if (b.known()) return make(Kind::add, a, fold(Kind::sub, 0, b.value_));
      break;
    case Kind::mul:
      if (a.is(1)) return b;
      if (b.is(1)) return a;
      if (a.is(0) || b.is(0)) return 0;
      if (a.known()) return make(Kind::mul, b, a);
      break;
    case Kind::floor_div:
      if (b.is(1)) return a;
      if (a == b) return 1;
      if (a.expr_ && a.expr_->kind == Kind::mul) {  // (x * k) // k
        if (a.expr_->b == b) return a.expr_->a;
        if (a.expr_->a == b) return a.expr_->b;
      }
      break;
    case Kind::mod:
      if (b.is(1)) return 0;
      break;
    case Kind::min:
    case Kind::max:
      if (a == b) return a;
      break;
    case Kind::broadcast:
      if (a == b || b.is(1)) return a;
      if (a.is(1)) return b;
      if (a.known()) return a;  // the other must be 1 or equal: checked when numbers are known
      if (b.known()) return b;
      break;
    case Kind::symbol: fail(ErrorKind::internal, "Dim::make: a symbol has no operands");
  }
  uint32_t size = 1, depth = 0;
  for (const Expr* e : {a.expr(), b.expr()})
    if (e) {
      size += e->size;
      depth = std::max(depth, e->depth);
    }
  if (size > max_expression_size || depth >= max_expression_depth)
    fail(ErrorKind::graph, "a size expression has grown to ", size, " terms (at most ", max_expression_size, ", ",
         max_expression_depth, " deep); declare more sizes of the inputs as numbers");
  Dim d;
  d.expr_ = std::make_shared<const Expr>(Expr{kind, {}, a, b, size, depth + 1});
  return d;
}

int64_t Dim::value() const {
  if (expr_) fail(ErrorKind::graph, "size ", text(), " is not known here: it depends on the input sizes of a call");
  return value_;
}

Dim Dim::substitute(const std::function<Dim(const std::string&)>& lookup) const {
  if (known()) return *this;
  if (expr_->kind == Kind::symbol) return lookup(expr_->name);
  return make(expr_->kind, expr_->a.substitute(lookup), expr_->b.substitute(lookup));
}

std::string Dim::text() const {
  if (known()) return std::to_string(value_);
  if (expr_->kind == Kind::symbol) return expr_->name;
  if (expr_->kind == Kind::min || expr_->kind == Kind::max || expr_->kind == Kind::broadcast)
    return std::string(name_of(expr_->kind)) + "(" + expr_->a.text() + ", " + expr_->b.text() + ")";
  return "(" + expr_->a.text() + " " + name_of(expr_->kind) + " " + expr_->b.text() + ")";
}

bool Dim::operator==(const Dim& o) const {
  if (known() || o.known()) return known() && o.known() && value_ == o.value_;
  if (expr_ == o.expr_) return true;
  return expr_->kind == o.expr_->kind && expr_->name == o.expr_->name && expr_->a == o.expr_->a && expr_->b == o.expr_->b;
}

std::string text(const Dims& dims) {
  std::string s = "(";
  for (size_t i = 0; i < dims.size(); i++) s += (i ? ", " : "") + dims[i].text();
  return s + (dims.size() == 1 ? ",)" : ")");
}

Dims broadcast(const Dims& a, const Dims& b) {
  Dims out(std::max(a.size(), b.size()));
  for (size_t i = 0; i < out.size(); i++) {
    Dim x = i < a.size() ? a[a.size() - 1 - i] : Dim(1);
    Dim y = i < b.size() ? b[b.size() - 1 - i] : Dim(1);
    out[out.size() - 1 - i] = broadcast(x, y);
  }
  return out;
}

Dim product(const Dims& dims) {
  Dim p = 1;
  for (const Dim& d : dims) p = p * d;
  return p;
}

}  // namespace dagrt
