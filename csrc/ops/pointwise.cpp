// The pointwise ops: one for each row of kernels/functors.h, and select, cast, logical_not, stop_gradient.
// All broadcast by NumPy's rule; operands have one dtype (Python inserts casts). Gradients are expressions over the
// same ops, summed over the axes that were broadcast, and can therefore be differentiated again.
#include "kernels/pointwise.h"

#include "ops/cuda.h"
#include "ops/fused.h"
#include "ops/op.h"
#include "ops/registry.h"

namespace dagrt {
namespace {

// ---------------------------------------------------------------- expressions for gradients
/// A value of the graph with operators; numbers take its dtype.
struct Expr {
  Builder* b;
  ValueId id;
};
ValueId number(const Expr& like, double x) { return like.b->scalar(x, like.b->type(like.id).dtype); }
Expr operator+(Expr p, Expr q) { return {p.b, p.b->add(p.id, q.id)}; }
[[maybe_unused]] Expr operator-(Expr p, Expr q) { return {p.b, p.b->sub(p.id, q.id)}; }
Expr operator*(Expr p, Expr q) { return {p.b, p.b->mul(p.id, q.id)}; }
Expr operator/(Expr p, Expr q) { return {p.b, p.b->div(p.id, q.id)}; }
Expr operator-(Expr p) { return {p.b, p.b->neg(p.id)}; }
Expr operator+(Expr p, double x) { return {p.b, p.b->add(p.id, number(p, x))}; }
Expr operator-(Expr p, double x) { return {p.b, p.b->sub(p.id, number(p, x))}; }
Expr operator-(double x, Expr p) { return {p.b, p.b->sub(number(p, x), p.id)}; }
Expr operator*(Expr p, double x) { return {p.b, p.b->mul(p.id, number(p, x))}; }
Expr call(const char* name, Expr p) { return {p.b, p.b->emit(name, {p.id})}; }
Expr call(const char* name, Expr p, Expr q) { return {p.b, p.b->emit(name, {p.id, q.id})}; }
Expr call(const char* name, Expr p, double x) { return {p.b, p.b->emit(name, {p.id, number(p, x)})}; }
Expr pick(Expr c, Expr p, Expr q) { return {p.b, p.b->select(c.id, p.id, q.id)}; }
Expr pick(Expr c, Expr p, double x) { return pick(c, p, Expr{p.b, number(p, x)}); }
Expr pick(Expr c, double x, Expr p) { return pick(c, Expr{p.b, number(p, x)}, p); }
/// Where a^b does not depend on b from above: a = 0 and b >= 0.
Expr power_of_zero(Expr a, Expr b) { return call("logical_and", call("equal", a, 0.0), call("greater_equal", b, 0.0)); }

// ---------------------------------------------------------------- infer
constexpr unsigned floats = 1, integers = 2, booleans = 4;

unsigned kind_of(DType t) { return is_float(t) ? floats : is_integer(t) ? integers : booleans; }

template <unsigned kinds> void check_kind(const InferContext& c, const TensorType& t) {
  if (kind_of(t.dtype) & kinds) return;
  std::string wanted = kinds & floats ? "float" : "";
  if (kinds & integers) wanted += wanted.empty() ? "integer" : " or integer";
  if (kinds & booleans) wanted += wanted.empty() ? "bool" : " or bool";
  c.fail(ErrorKind::dtype, "expected ", wanted, " operands, got ", name_of(t.dtype), "; cast them first");
}

Dims broadcast_or_fail(const InferContext& c, size_t from) {
  Dims shape = c.in[from].shape;
  try {
    for (size_t i = from + 1; i < c.in.size(); i++) shape = broadcast(shape, c.in[i].shape);
    if (from) shape = broadcast(shape, c.in[0].shape);
  } catch (const Error& e) {
    std::string shapes;
    for (const TensorType& t : c.in) shapes += (shapes.empty() ? "" : " and ") + text(t.shape);
    c.fail(e.kind, "operands of shapes ", shapes, " do not broadcast: ", e.what());
  }
  if (shape.size() > size_t(max_rank)) c.fail(ErrorKind::shape, "expected rank <= ", max_rank, ", got ", shape.size());
  return shape;
}

void check_same_dtype(const InferContext& c, size_t from) {
  for (size_t i = from + 1; i < c.in.size(); i++)
    if (c.in[i].dtype != c.in[from].dtype)
      c.fail(ErrorKind::dtype, "expected operands of one dtype, got ", name_of(c.in[from].dtype), " and ", name_of(c.in[i].dtype),
             "; cast one of them");
}

template <unsigned kinds> Types infer_same(const InferContext& c) {
  check_same_dtype(c, 0);
  check_kind<kinds>(c, c.in[0]);
  return {{c.in[0].dtype, broadcast_or_fail(c, 0)}};
}
template <unsigned kinds> Types infer_to_bool(const InferContext& c) {
  check_same_dtype(c, 0);
  check_kind<kinds>(c, c.in[0]);
  return {{DType::bool_, broadcast_or_fail(c, 0)}};
}

// ---------------------------------------------------------------- run
/// For bool, sums and maxima are `or`, minima `and`.
Functor for_dtype(Functor f, DType t) {
  if (t != DType::bool_) return f;
  if (f == Functor::add_ || f == Functor::maximum_) return Functor::bitwise_or_;
  if (f == Functor::minimum_) return Functor::bitwise_and_;
  return f;
}

void run_functor(const RunContext& c, Functor f, double ns) {
  PointwiseArgs a;
  const View& y = c.out[0];
  a.f = for_dtype(f, c.in[0].dtype);
  a.operands = c.inputs;
  a.ns = ns;
  a.rank = y.rank;
  for (int d = 0; d < y.rank; d++) a.dims[d] = y.dims[d];
  for (int k = 0; k <= c.inputs; k++) {
    const View& v = k ? c.in[k - 1] : y;
    a.data[k] = v.data;
    a.dtype[k] = v.dtype;
    int64_t stride = 1;
    for (int d = v.rank - 1; d >= 0; d--) {
      int at = d + y.rank - v.rank;
      a.strides[k][at] = v.dims[d] == y.dims[at] ? stride : 0;
      stride = d == v.rank - 1 ? (v.ld ? v.ld : v.dims[d]) : stride * v.dims[d];
    }
  }
  pointwise(a, c.stream);
}

/// Integers alone: the first zero of the divisor is a fault, and nothing is computed.
template <class T> bool has_zero(const RunContext& c, const View& b) {
  int64_t width = b.rank ? b.dims[b.rank - 1] : 1, ld = b.rank && b.ld ? b.ld : width, n = b.elements();
  const T* p = b.as<const T>();
  for (int64_t i = 0; i < n; i++) {
    if (p[i / width * ld + i % width] != 0) continue;
    c.status.report(Status::division_by_zero, c.node, i, 0, 0);
    return true;
  }
  return false;
}

bool divides_by_zero(const RunContext& c) {
  const View& b = c.in[1];
  if (c.out[0].elements() == 0) return false;
  if (c.stream.cuda) {
    if (is_integer(b.dtype)) check_on_device(c, b, -1);
    return false;
  }
  switch (b.dtype) {
    case DType::int32: return has_zero<int32_t>(c, b);
    case DType::int64: return has_zero<int64_t>(c, b);
    case DType::uint8: return has_zero<uint8_t>(c, b);
    default: return false;
  }
}

// ---------------------------------------------------------------- cost
Cost cost_with(double flops, const Types& in, const Types& out) {
  Cost cost;
  cost.flops = flops * double(out[0].elements());
  cost.bytes = double(out[0].bytes());
  for (const TensorType& t : in) cost.bytes += double(t.bytes());
  return cost;
}
Cost cost_of_one(const void*, const Types& in, const Types& out) { return cost_with(1, in, out); }
Cost cost_of_many(const void*, const Types& in, const Types& out) { return cost_with(10, in, out); }
Cost cost_of_none(const void*, const Types& in, const Types& out) { return cost_with(0, in, out); }

// ---------------------------------------------------------------- one set of functions for each row
constexpr unsigned F = floats, FI = floats | integers;
constexpr unsigned FIB = floats | integers | booleans;

void give_gradient(GradContext& c, size_t input, Expr gradient) {
  c.in_grads[input] = c.b.unbroadcast(gradient.id, c.in_type(input).shape);
}
/// "No gradient" in the table: leaves no_value, which means zero.
struct Zero {};
void give_gradient(GradContext&, size_t, Zero) {}

#define DAGRT_ROW(name, equation, types, ns, expression, whole, gradient)         \
  void run_##name(const RunContext& c) { run_functor(c, Functor::name##_, ns); }  \
  void grad_##name(GradContext& c) {                                              \
    [[maybe_unused]] Expr g{&c.b, c.dout()}, a{&c.b, c.in(0)}, y{&c.b, c.out(0)}; \
    [[maybe_unused]] Zero zero;                                                   \
    if (c.wanted[0] && c.dout() != no_value) give_gradient(c, 0, gradient);       \
  }
DAGRT_UNARY(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, equation, types, ns, expression, whole, gradient_a, gradient_b)                                  \
  void run_##name(const RunContext& c) {                                                                                 \
    if ((Functor::name##_ == Functor::floor_divide_ || Functor::name##_ == Functor::mod_) && divides_by_zero(c)) return; \
    run_functor(c, Functor::name##_, ns);                                                                                \
  }                                                                                                                      \
  void grad_##name(GradContext& c) {                                                                                     \
    [[maybe_unused]] Expr g{&c.b, c.dout()}, a{&c.b, c.in(0)}, b{&c.b, c.in(1)}, y{&c.b, c.out(0)};                      \
    [[maybe_unused]] Zero zero;                                                                                          \
    if (c.dout() == no_value) return;                                                                                    \
    if (c.wanted[0]) give_gradient(c, 0, gradient_a);                                                                    \
    if (c.wanted[1]) give_gradient(c, 1, gradient_b);                                                                    \
  }
DAGRT_BINARY(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, equation, expression) \
  void run_##name(const RunContext& c) { run_functor(c, Functor::name##_, 0.05); }
DAGRT_COMPARE(DAGRT_ROW)
DAGRT_PREDICATE(DAGRT_ROW)
DAGRT_BITS(DAGRT_ROW)
#undef DAGRT_ROW

Op pointwise_op(const char* name, std::string equation, int inputs) {
  Op o;
  o.name = name;
  o.equation = "y = " + equation;
  o.min_inputs = o.max_inputs = inputs;
  for (int i = 0; i < inputs; i++) o.in_place.push_back({i, 0});
  o.pointwise = true;
  o.spaced = Spaced::all();
  o.cost = cost_of_one;
  return o;
}

// ---------------------------------------------------------------- select (c, a, b): c ? a : b
Types infer_select(const InferContext& c) {
  if (c.in[0].dtype != DType::bool_)
    c.fail(ErrorKind::dtype, "expected a bool condition, got ", name_of(c.in[0].dtype), "; compare or cast it first");
  check_same_dtype(c, 1);
  return {{c.in[1].dtype, broadcast_or_fail(c, 1)}};
}
void run_select(const RunContext& c) { run_functor(c, Functor::select_, 0.05); }
/// The gradient goes to the chosen one. It masks and never multiplies: a NaN of the other branch does not pass.
void grad_select(GradContext& c) {
  if (c.dout() == no_value) return;
  Expr condition{&c.b, c.in(0)}, g{&c.b, c.dout()};
  if (c.wanted[1]) give_gradient(c, 1, pick(condition, g, 0.0));
  if (c.wanted[2]) give_gradient(c, 2, pick(condition, 0.0, g));
}

// ---------------------------------------------------------------- cast {dtype}: C rules, see kernels/cpu/pointwise.cpp
struct CastAttrs {
  DType dtype = DType::float32;
  template <class V> void visit(V& v) { v("dtype", dtype); }
};
Types infer_cast(const InferContext& c) { return {{c.attrs<CastAttrs>().dtype, c.in[0].shape}}; }
void run_cast(const RunContext& c) { run_functor(c, c.in[0].dtype == c.out[0].dtype ? Functor::copy_ : Functor::cast_, 0.1); }
void grad_cast(GradContext& c) {
  DType from = c.in_type(0).dtype;
  if (!c.wanted[0] || c.dout() == no_value || !is_float(from) || !is_float(c.out_type(0).dtype)) return;
  c.in_grads[0] = c.b.cast(c.dout(), from);
}

// ---------------------------------------------------------------- logical_not, stop_gradient
void run_logical_not(const RunContext& c) { run_functor(c, Functor::logical_not_, 0.05); }
/// The identity, with no gradient; passes remove it once gradients are expanded.
void run_stop_gradient(const RunContext& c) { run_functor(c, Functor::copy_, 0); }

}  // namespace

void register_pointwise(Registry& r) {
#define DAGRT_ROW(name, equation, types, ns, expression, whole, gradient) \
  {                                                                       \
    Op o = pointwise_op(#name, equation, 1);                              \
    o.infer = infer_same<types>;                                          \
    o.run = run_##name;                                                   \
    o.grad = grad_##name;                                                 \
    if (ns > 0.05) o.cost = cost_of_many;                                 \
    r.add(std::move(o));                                                  \
  }
  DAGRT_UNARY(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, equation, types, ns, expression, whole, ga, gb)                                                      \
  {                                                                                                                          \
    constexpr bool with_bool =                                                                                               \
        Functor::name##_ == Functor::add_ || Functor::name##_ == Functor::maximum_ || Functor::name##_ == Functor::minimum_; \
    Op o = pointwise_op(#name, equation, 2);                                                                                 \
    o.infer = infer_same < with_bool ? FIB : types > ;                                                                       \
    o.run = run_##name;                                                                                                      \
    o.grad = grad_##name;                                                                                                    \
    if (ns > 0.05) o.cost = cost_of_many;                                                                                    \
    o.checks = Functor::name##_ == Functor::floor_divide_ || Functor::name##_ == Functor::mod_;                              \
    r.add(std::move(o));                                                                                                     \
  }
  DAGRT_BINARY(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, equation, expression) \
  {                                           \
    Op o = pointwise_op(#name, equation, 2);  \
    o.infer = infer_to_bool<FIB>;             \
    o.run = run_##name;                       \
    r.add(std::move(o));                      \
  }
  DAGRT_COMPARE(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, equation, expression) \
  {                                           \
    Op o = pointwise_op(#name, equation, 1);  \
    o.infer = infer_to_bool<F>;               \
    o.run = run_##name;                       \
    r.add(std::move(o));                      \
  }
  DAGRT_PREDICATE(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, equation, expression)                                           \
  {                                                                                     \
    Op o = pointwise_op(#name, equation, 2);                                            \
    o.infer = #name[0] == 'l' ? infer_same<booleans> : infer_same<integers | booleans>; \
    o.run = run_##name;                                                                 \
    r.add(std::move(o));                                                                \
  }
  DAGRT_BITS(DAGRT_ROW)
#undef DAGRT_ROW

  Op select = pointwise_op("select", "c ? a : b", 3);
  select.infer = infer_select;
  select.run = run_select;
  select.grad = grad_select;
  r.add(std::move(select));

  Op cast = pointwise_op("cast", "a as dtype: truncates and saturates to integers, NaN gives 0", 1);
  cast.attrs = attr_type<CastAttrs>();
  cast.infer = infer_cast;
  cast.run = run_cast;
  cast.grad = grad_cast;
  cast.cost = cost_of_none;
  r.add(std::move(cast));

  Op negation = pointwise_op("logical_not", "not a", 1);
  negation.infer = infer_same<booleans>;
  negation.run = run_logical_not;
  r.add(std::move(negation));

  Op stop = pointwise_op("stop_gradient", "a, and no gradient", 1);
  stop.infer = infer_same<FIB>;
  stop.run = run_stop_gradient;
  stop.cost = cost_of_none;
  r.add(std::move(stop));

  register_fused(r);
}

}  // namespace dagrt
