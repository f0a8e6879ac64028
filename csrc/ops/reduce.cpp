// Reductions over any axes, argmax and argmin, cumulative sums, sorting.
//
// Axes that lie behind one another and are both kept or both reduced are merged; then each run of reduced axes is one
// pass of the kernel, the innermost first, intermediate results (float32 for floats) going through the workspace. Few
// elements along axes apart (the gradient of upsampling) are one pass.
#include "kernels/reduce.h"

#include <algorithm>

#include "kernels/pointwise.h"
#include "ops/op.h"
#include "ops/registry.h"

namespace dagrt {
namespace {

int64_t row_stride(const View& v) { return v.ld ? v.ld : v.rank ? v.dims[v.rank - 1] : 1; }

AttrMap axes_attrs(const std::vector<int64_t>& axes, bool keepdims) {
  AttrList list;
  for (int64_t a : axes) list.push_back({a});
  return {{"axes", {list}}, {"keepdims", {keepdims}}};
}

int checked_axis(const InferContext& c, int64_t axis, int rank) {
  if (axis < -rank || axis >= rank)
    c.fail(ErrorKind::shape, "axis ", axis, " is out of range for an input of shape ", text(c.in[0].shape));
  return int(axis < 0 ? axis + rank : axis);
}
int real_axis(int64_t axis, int rank) { return int(axis < 0 ? axis + rank : axis); }

void refuse_bool(const InferContext& c) {
  if (c.in[0].dtype == DType::bool_) c.fail(ErrorKind::dtype, "expected numbers, got bool; cast to int32 first");
}

// ---------------------------------------------------------------- reduce_sum, reduce_max, reduce_min, reduce_prod
struct ReduceAttrs {
  std::vector<int64_t> axes;  // empty: none
  bool keepdims = false;
  template <class V> void visit(V& v) {
    v("axes", axes);
    v("keepdims", keepdims, false);
  }
};

std::vector<bool> reduced_axes(const ReduceAttrs& a, int rank) {
  std::vector<bool> reduced(size_t(rank), false);
  for (int64_t x : a.axes) reduced[size_t(real_axis(x, rank))] = true;
  return reduced;
}

Types infer_reduce(const InferContext& c) {
  const auto& a = c.attrs<ReduceAttrs>();
  const TensorType& x = c.in[0];
  bool extreme = c.op.name == "reduce_max" || c.op.name == "reduce_min";
  if (!extreme) refuse_bool(c);
  std::vector<bool> reduced(x.shape.size(), false);
  for (int64_t axis : a.axes) {
    size_t at = size_t(checked_axis(c, axis, x.rank()));
    if (reduced[at]) c.fail(ErrorKind::shape, "axis ", axis, " is given twice");
    reduced[at] = true;
    if (extreme && x.shape[at].is(0))
      c.fail(ErrorKind::shape, "axis ", axis, " of shape ", text(x.shape), " is empty and has no extreme value");
  }
  TensorType y{x.dtype, {}};
  for (size_t i = 0; i < x.shape.size(); i++) {
    if (!reduced[i])
      y.shape.push_back(x.shape[i]);
    else if (a.keepdims)
      y.shape.push_back(1);
  }
  return {y};
}

/// Axes of a value, merged where neighbours are alike, with the stride of their innermost element.
struct Group {
  int64_t size;
  int64_t stride;
  bool reduced;
};
std::vector<Group> merged(const std::vector<Group>& axes) {
  std::vector<Group> out;
  for (const Group& g : axes) {
    if (g.size == 1) continue;
    if (!out.empty() && out.back().reduced == g.reduced && out.back().stride == g.size * g.stride)
      out.back() = {out.back().size * g.size, g.stride, g.reduced};
    else
      out.push_back(g);
  }
  return out;
}
std::vector<Group> packed(std::vector<Group> axes) {
  int64_t stride = 1;
  for (size_t i = axes.size(); i--;) {
    axes[i].stride = stride;
    stride *= axes[i].size;
  }
  return merged(axes);
}
int64_t elements(const std::vector<Group>& g) {
  int64_t n = 1;
  for (const Group& x : g) n *= x.size;
  return n;
}

/// One pass: the innermost run of reduced axes. What stands before and behind it in the kernel's terms.
struct Pass {
  ReduceArgs args;
  std::vector<Group> rest;  // what is left, packed
  int64_t repeats = 1;      // axes in front that no stride can express are walked here
  std::vector<Group> walked;
};

bool next_pass(const std::vector<Group>& g, Pass& p) {
  size_t at = g.size();
  while (at-- > 0)
    if (g[at].reduced) break;
  if (at == size_t(-1)) return false;
  ReduceArgs& a = p.args;
  a = ReduceArgs{};
  a.length = g[at].size;
  a.length_stride = g[at].stride;
  // Behind: at most two groups that a pixel stride kept apart; the innermost is contiguous, or has one element.
  if (at + 1 < g.size()) a.inner = g.back().size;
  if (at + 2 < g.size()) a.mid = g[at + 1].size, a.mid_stride = g[at + 1].stride;
  if (at >= 1) a.outer = g[at - 1].size, a.outer_stride = g[at - 1].stride;
  p.walked.assign(g.begin(), g.begin() + (at >= 1 ? long(at) - 1 : 0));
  p.repeats = elements(p.walked);
  p.rest.clear();
  for (size_t i = 0; i < g.size(); i++)
    if (i != at) p.rest.push_back(g[i]);
  p.rest = packed(p.rest);
  return true;
}

/// Whether one pass over all reduced axes will do.
bool few_apart(const std::vector<Group>& g, ReduceApartArgs& a) {
  int64_t length = 1;
  for (const Group& x : g) {
    if (x.reduced) length *= x.size;
    int& rank = x.reduced ? a.length_rank : a.rank;
    (x.reduced ? a.length_dims : a.dims)[rank] = x.size;
    (x.reduced ? a.length_stride : a.stride)[rank++] = x.stride;
  }
  return a.length_rank > 1 && length <= reduce_apart_most && !g.back().reduced && g.back().size > 3;
}

void run_reduction(const RunContext& c, Reduction kind) {
  const View &x = c.in[0], &y = c.out[0];
  if (y.elements() == 0) return;
  std::vector<bool> reduced = reduced_axes(c.attrs<ReduceAttrs>(), x.rank);
  std::vector<Group> g;
  int64_t stride = 1;
  for (int d = x.rank - 1; d >= 0; d--) {
    g.insert(g.begin(), {x.dims[d], stride, bool(reduced[size_t(d)])});
    stride = d == x.rank - 1 ? row_stride(x) : stride * x.dims[d];
  }
  g = merged(g);
  // The innermost group must be contiguous: one of a single element stands in where it is not.
  if (!g.empty() && g.back().stride != 1) g.push_back({1, 1, g.back().reduced});
  const bool floats = is_float(x.dtype);
  const bool direct = (!floats || x.dtype == DType::float32) && row_stride(y) == (y.rank ? y.dims[y.rank - 1] : 1);
  const size_t element = floats ? 4 : size_of(x.dtype);
  char* free = static_cast<char*>(c.workspace);
  const void* from = x.data;
  DType type = x.dtype;
  Pass p;
  ReduceApartArgs apart;
  bool any = floats && few_apart(g, apart);
  if (any) {
    apart.kind = kind;
    apart.dtype = type;
    apart.x = from;
    apart.y = reinterpret_cast<float*>(direct ? y.data : free);
    reduce_apart(apart, c.stream);
    from = apart.y;
    type = DType::float32;
  }
  while (!any && next_pass(g, p)) {
    bool last = std::none_of(p.rest.begin(), p.rest.end(), [](const Group& r) { return r.reduced; });
    ReduceArgs a = p.args;
    const int64_t piece = a.outer * a.mid * a.inner, out = piece * p.repeats;
    char* to = static_cast<char*>(y.data);
    if (!last || !direct) {
      to = free;
      free += (size_t(out) * element + 63) / 64 * 64;
    }
    a.kind = kind;
    a.dtype = type;
    a.partials = reinterpret_cast<float*>(free);
    for (int64_t r = 0; r < p.repeats; r++) {
      int64_t rest = r, offset = 0;
      for (size_t d = p.walked.size(); d--;) {
        offset += rest % p.walked[d].size * p.walked[d].stride;
        rest /= p.walked[d].size;
      }
      a.x = static_cast<const char*>(from) + offset * int64_t(size_of(type));
      a.y = to + r * piece * int64_t(element);
      reduce(a, c.stream);
    }
    from = to;
    if (floats) type = DType::float32;
    g = p.rest;
    any = last;
  }
  if (any && direct) return;
  // Nothing to reduce, a 16-bit result, or rows apart: one copy.
  const View& shape = any ? y : x;  // without reduced axes x has y's axes, or only axes of size 1 beside them
  PointwiseArgs copy;
  copy.f = type == y.dtype ? Functor::copy_ : Functor::cast_;
  copy.rank = y.rank;
  copy.data[0] = y.data;
  copy.data[1] = const_cast<void*>(from);
  copy.dtype[0] = y.dtype;
  copy.dtype[1] = type;
  int64_t ys = 1, xs = 1;
  int64_t x_row = any ? (y.rank ? y.dims[y.rank - 1] : 1) : row_stride(shape);
  if (!any && x.rank != y.rank && x.rank && x.dims[x.rank - 1] != (y.rank ? y.dims[y.rank - 1] : 1)) {
    // The last axis had size 1 and was dropped: rows of one element, row_stride apart, are y's innermost axis.
    xs = row_stride(x);
    x_row = xs * (y.rank ? y.dims[y.rank - 1] : 1);
  }
  for (int d = y.rank - 1; d >= 0; d--) {
    copy.dims[d] = y.dims[d];
    copy.strides[0][d] = ys;
    copy.strides[1][d] = xs;
    ys = d == y.rank - 1 ? row_stride(y) : ys * y.dims[d];
    xs = d == y.rank - 1 ? x_row : xs * y.dims[d];
  }
  pointwise(copy, c.stream);
}
void run_sum(const RunContext& c) { run_reduction(c, Reduction::sum); }
void run_max(const RunContext& c) { run_reduction(c, Reduction::max); }
void run_min(const RunContext& c) { run_reduction(c, Reduction::min); }
void run_prod(const RunContext& c) { run_reduction(c, Reduction::prod); }

/// Every intermediate result and the largest set of partials, for any pixel stride.
Memory memory_reduce(const void* attrs, const Types& in, const Types&) {
  const TensorType& x = in[0];
  std::vector<bool> reduced = reduced_axes(*static_cast<const ReduceAttrs*>(attrs), x.rank());
  Memory m;
  size_t element = is_float(x.dtype) ? 4 : size_of(x.dtype);
  // Packed, and with the last axis held apart as a pixel stride does: the larger of the two.
  for (bool apart : {false, true}) {
    std::vector<Group> g;
    int64_t stride = 1;
    for (int d = x.rank() - 1; d >= 0; d--) {
      int64_t size = x.shape[size_t(d)].value();
      g.insert(g.begin(), {size, stride, bool(reduced[size_t(d)])});
      stride = stride * size + (apart && d == x.rank() - 1 ? 1 : 0);
    }
    g = merged(g);
    if (!g.empty() && g.back().stride != 1) g.push_back({1, 1, g.back().reduced});
    size_t bytes = 0, partials = 0;
    Pass p;
    while (next_pass(g, p)) {
      const ReduceArgs& a = p.args;
      bytes += (size_t(a.outer * a.mid * a.inner * p.repeats) * element + 63) / 64 * 64;
      partials = std::max(partials, size_t(reduce_partials(a.outer, a.length, a.mid, a.inner)) * 4);
      g = p.rest;
    }
    m.workspace = std::max(m.workspace, bytes + partials);
  }
  return m;
}

Dims kept_shape(const GradContext& c) {  // of the result, with reduced axes as 1
  std::vector<bool> reduced = reduced_axes(c.attrs<ReduceAttrs>(), c.in_type(0).rank());
  Dims shape = c.in_type(0).shape;
  for (size_t i = 0; i < shape.size(); i++)
    if (reduced[i]) shape[i] = 1;
  return shape;
}

void grad_sum(GradContext& c) {
  if (!c.wanted[0] || c.dout() == no_value) return;
  Dims shape = c.in_type(0).shape;
  c.in_grads[0] = c.b.broadcast_to(c.b.reshape(c.dout(), kept_shape(c)), shape);
}
/// Ties share equally: g / (how many equal the extreme), where they do.
void grad_extreme(GradContext& c) {
  if (!c.wanted[0] || c.dout() == no_value) return;
  Builder& b = c.b;
  const DType t = c.in_type(0).dtype;
  Dims kept = kept_shape(c);
  ValueId ties = b.emit("equal", {c.in(0), b.reshape(c.out(0), kept)});
  ValueId count = b.emit("reduce_sum", {b.cast(ties, DType::float32)}, axes_attrs(c.attrs<ReduceAttrs>().axes, true));
  c.in_grads[0] = b.select(ties, b.div(b.reshape(c.dout(), kept), b.cast(count, t)), b.scalar(0, t));
}
/// g times the product of the others. With P the product of what is not zero: P / x where no element is zero; at a
/// single zero P itself; else 0.
void grad_prod(GradContext& c) {
  if (!c.wanted[0] || c.dout() == no_value) return;
  Builder& b = c.b;
  const DType t = c.in_type(0).dtype;
  AttrMap attrs = axes_attrs(c.attrs<ReduceAttrs>().axes, true);
  ValueId zero = b.scalar(0, t), one = b.scalar(1, t);
  ValueId is_zero = b.emit("equal", {c.in(0), zero});
  ValueId safe = b.select(is_zero, one, c.in(0));
  ValueId product = b.emit("reduce_prod", {safe}, attrs);
  ValueId zeros = b.emit("reduce_sum", {b.cast(is_zero, DType::float32)}, attrs);
  ValueId none = b.emit("equal", {zeros, b.scalar(0)}), single = b.emit("equal", {zeros, b.scalar(1)});
  ValueId others = b.select(is_zero, b.select(single, product, zero), b.select(none, b.div(product, safe), zero));
  c.in_grads[0] = b.mul(b.reshape(c.dout(), kept_shape(c)), others);
}

Cost cost_one_each(const void*, const Types& in, const Types& out) {
  Cost cost{double(in[0].elements()), double(in[0].bytes())};
  for (const TensorType& t : out) cost.bytes += double(t.bytes());
  return cost;
}

// ---------------------------------------------------------------- one axis: its place in memory
struct Axis {
  int64_t outer = 1, length = 1, inner = 1;
  bool last = false;
};
Axis axis_of(const View& v, int64_t axis) {
  Axis a;
  int at = real_axis(axis, v.rank);
  for (int d = 0; d < v.rank; d++) (d < at ? a.outer : d == at ? a.length : a.inner) *= v.dims[d];
  a.last = at == v.rank - 1;
  return a;
}
/// Strides of (outer, length, inner). Where rows lie apart and the axis is not the last, `inner` must be one row.
bool strides_of(const View& v, int64_t axis, int64_t (&stride)[3]) {
  Axis a = axis_of(v, axis);
  int64_t row = row_stride(v), width = v.dims[v.rank - 1];
  if (a.last) {
    stride[0] = row, stride[1] = 1, stride[2] = 0;
    return true;
  }
  stride[2] = 1;
  stride[1] = a.inner / (width ? width : 1) * row;
  stride[0] = stride[1] * a.length;
  return row == width || a.inner == width;
}

struct AxisAttrs {
  int64_t axis = -1;
  template <class V> void visit(V& v) { v("axis", axis, -1); }
};

// ---------------------------------------------------------------- argmax, argmin {axis} -> int32
Types infer_arg(const InferContext& c) {
  const TensorType& x = c.in[0];
  if (x.dtype == DType::bool_) refuse_bool(c);
  int axis = checked_axis(c, c.attrs<AxisAttrs>().axis, x.rank());
  if (x.shape[size_t(axis)].is(0))
    c.fail(ErrorKind::shape, "axis ", axis, " of shape ", text(x.shape), " is empty and has no extreme value");
  TensorType y{DType::int32, x.shape};
  y.shape.erase(y.shape.begin() + axis);
  return {y};
}
void run_arg(const RunContext& c, bool smallest) {
  const View &x = c.in[0], &y = c.out[0];
  if (y.elements() == 0) return;
  int64_t axis = c.attrs<AxisAttrs>().axis, stride[3];
  Axis at = axis_of(x, axis);
  ArgReduceArgs a;
  a.smallest = smallest;
  a.dtype = x.dtype;
  a.length = at.length;
  bool whole = strides_of(x, axis, stride);
  // Rows apart and several of them behind the axis: one call for each row.
  int64_t row = row_stride(x), width = x.dims[x.rank - 1], rows = whole ? 1 : at.inner / width;
  a.inner = at.inner / rows;
  a.outer = whole ? at.outer : 1;
  a.outer_stride = stride[0];
  a.length_stride = stride[1];
  a.inner_stride = stride[2];
  for (int64_t k = 0; k < (whole ? 1 : at.outer * rows); k++) {
    a.x = x.as<const char>() + (k / rows * stride[0] + k % rows * row) * int64_t(size_of(x.dtype));
    a.y = y.as<int32_t>() + k * a.inner;
    arg_reduce(a, c.stream);
  }
}
void run_argmax(const RunContext& c) { run_arg(c, false); }
void run_argmin(const RunContext& c) { run_arg(c, true); }

// ---------------------------------------------------------------- cumsum {axis, reverse, exclusive}
struct CumsumAttrs {
  int64_t axis = -1;
  bool reverse = false, exclusive = false;
  template <class V> void visit(V& v) {
    v("axis", axis);
    v("reverse", reverse, false);
    v("exclusive", exclusive, false);
  }
};
Types infer_cumsum(const InferContext& c) {
  refuse_bool(c);
  checked_axis(c, c.attrs<CumsumAttrs>().axis, c.in[0].rank());
  return {c.in[0]};
}
/// Calls f(x offset, y offset, outer, inner) once, or for each row where rows of x or y lie apart behind the axis.
template <class F> void over_slabs(const View& x, const View& y, int64_t axis, const F& f) {
  int64_t xs[3], ys[3];
  bool whole = strides_of(x, axis, xs) & strides_of(y, axis, ys);
  Axis at = axis_of(x, axis);
  if (whole) return f(0, 0, at.outer, at.inner);
  int64_t width = x.dims[x.rank - 1], rows = at.inner / width;
  for (int64_t k = 0; k < at.outer * rows; k++)
    f(k / rows * xs[0] + k % rows * row_stride(x), k / rows * ys[0] + k % rows * row_stride(y), 1, width);
}
void run_cumsum(const RunContext& c) {
  const View &x = c.in[0], &y = c.out[0];
  if (x.elements() == 0) return;
  const auto& attrs = c.attrs<CumsumAttrs>();
  CumsumArgs a;
  a.reverse = attrs.reverse;
  a.exclusive = attrs.exclusive;
  a.dtype = x.dtype;
  a.length = x.dim(real_axis(attrs.axis, x.rank));
  strides_of(x, attrs.axis, a.x_stride);
  strides_of(y, attrs.axis, a.y_stride);
  int64_t size = int64_t(size_of(x.dtype));
  over_slabs(x, y, attrs.axis, [&](int64_t at_x, int64_t at_y, int64_t outer, int64_t inner) {
    a.x = x.as<const char>() + at_x * size;
    a.y = y.as<char>() + at_y * size;
    a.outer = outer;
    a.inner = inner;
    cumsum(a, c.stream);
  });
}
void grad_cumsum(GradContext& c) {
  if (!c.wanted[0] || c.dout() == no_value) return;
  const auto& a = c.attrs<CumsumAttrs>();
  c.in_grads[0] = c.b.emit("cumsum", {c.dout()}, {{"axis", {a.axis}}, {"reverse", {!a.reverse}}, {"exclusive", {a.exclusive}}});
}

// ---------------------------------------------------------------- sort, argsort {axis, descending}; top_k {k, sorted}
struct SortAttrs {
  int64_t axis = -1;
  bool descending = false;
  template <class V> void visit(V& v) {
    v("axis", axis, -1);
    v("descending", descending, false);
  }
};
struct TopKAttrs {
  int64_t k = 1;
  bool sorted = true;  // the values come sorted either way
  template <class V> void visit(V& v) {
    v("k", k);
    v("sorted", sorted, true);
  }
};

Types infer_sort(const InferContext& c) {
  refuse_bool(c);
  checked_axis(c, c.attrs<SortAttrs>().axis, c.in[0].rank());
  return {{c.op.name == "sort" ? c.in[0].dtype : DType::int32, c.in[0].shape}};
}
void run_sorting(const RunContext& c, int64_t axis, bool descending, const View* values, const View* indices) {
  const View& x = c.in[0];
  const View& y = values ? *values : *indices;
  if (y.elements() == 0) return;
  SortArgs a;
  a.descending = descending;
  a.dtype = x.dtype;
  a.length = x.dim(real_axis(axis, x.rank));
  a.kept = y.dim(real_axis(axis, y.rank));
  strides_of(x, axis, a.x_stride);
  if (values) strides_of(*values, axis, a.values_stride);
  if (indices) strides_of(*indices, axis, a.indices_stride);
  int64_t size = int64_t(size_of(x.dtype));
  over_slabs(x, y, axis, [&](int64_t at_x, int64_t at_y, int64_t outer, int64_t inner) {
    a.x = x.as<const char>() + at_x * size;
    if (values) a.values = values->as<char>() + at_y * size;
    if (indices) a.indices = indices->as<int32_t>() + at_y;
    a.outer = outer;
    a.inner = inner;
    sort(a, c.stream);
  });
}
void run_sort(const RunContext& c) {
  const auto& a = c.attrs<SortAttrs>();
  run_sorting(c, a.axis, a.descending, &c.out[0], nullptr);
}
void run_argsort(const RunContext& c) {
  const auto& a = c.attrs<SortAttrs>();
  run_sorting(c, a.axis, a.descending, nullptr, &c.out[0]);
}
Memory memory_sort(const void* attrs, const Types& in, const Types&) {
  int axis = real_axis(static_cast<const SortAttrs*>(attrs)->axis, in[0].rank());
  return {0, sort_scratch(in[0].shape[size_t(axis)].value())};
}
ValueId put_back(GradContext& c, ValueId indices, int axis) {
  int64_t size = c.in_type(0).shape[size_t(axis)].value();
  return c.b.emit("put_along_axis_add", {indices, c.dout()}, {{"axis", {int64_t(axis)}}, {"size", {size}}});
}
void grad_sort(GradContext& c) {
  if (!c.wanted[0] || c.dout() == no_value) return;
  const auto& a = c.attrs<SortAttrs>();
  ValueId order = c.b.emit("argsort", {c.in(0)}, {{"axis", {a.axis}}, {"descending", {a.descending}}});
  c.in_grads[0] = put_back(c, order, real_axis(a.axis, c.in_type(0).rank()));
}

Types infer_top_k(const InferContext& c) {
  refuse_bool(c);
  const TensorType& x = c.in[0];
  int64_t k = c.attrs<TopKAttrs>().k;
  if (x.rank() < 1) c.fail(ErrorKind::shape, "expected rank >= 1, got a scalar");
  if (k < 0 || (x.shape.back().known() && k > x.shape.back().value()))
    c.fail(ErrorKind::shape, "expected 0 <= k <= the last axis of shape ", text(x.shape), ", got k = ", k);
  Dims shape = x.shape;
  shape.back() = k;
  return {{x.dtype, shape}, {DType::int32, shape}};
}
void run_top_k(const RunContext& c) { run_sorting(c, -1, true, &c.out[0], &c.out[1]); }
Memory memory_top_k(const void*, const Types& in, const Types&) { return {0, sort_scratch(in[0].shape.back().value())}; }
void grad_top_k(GradContext& c) {
  if (!c.wanted[0] || c.dout() == no_value) return;
  c.in_grads[0] = put_back(c, c.out(1), c.in_type(0).rank() - 1);
}
Cost cost_sort(const void*, const Types& in, const Types& out) {
  Cost cost = cost_one_each(nullptr, in, out);
  cost.flops *= 20;
  return cost;
}

}  // namespace

void register_reduce(Registry& r) {
  struct Row {
    const char *name, *equation;
    void (*run)(const RunContext&);
    void (*grad)(GradContext&);
  };
  const Row reductions[] = {{"reduce_sum", "y = sum of x over axes", run_sum, grad_sum},
                            {"reduce_max", "y = largest x over axes; NaN if any is", run_max, grad_extreme},
                            {"reduce_min", "y = smallest x over axes; NaN if any is", run_min, grad_extreme},
                            {"reduce_prod", "y = product of x over axes", run_prod, grad_prod}};
  for (const Row& row : reductions) {
    Op o;
    o.name = row.name;
    o.equation = row.equation;
    o.attrs = attr_type<ReduceAttrs>();
    o.infer = infer_reduce;
    o.run = row.run;
    o.spaced = {1, 0};
    o.grad = row.grad;
    o.cost = cost_one_each;
    o.memory = memory_reduce;
    o.batched = [](const void* a, const Types& in, const Types&) {
      return uint32_t(in[0].rank() > 0 && !reduced_axes(*static_cast<const ReduceAttrs*>(a), in[0].rank())[0]);
    };
    r.add(std::move(o));
  }
  for (bool smallest : {false, true}) {
    Op o;
    o.name = smallest ? "argmin" : "argmax";
    o.equation = smallest ? "y = index of the first smallest x along axis" : "y = index of the first largest x along axis";
    o.attrs = attr_type<AxisAttrs>();
    o.infer = infer_arg;
    o.run = smallest ? run_argmin : run_argmax;
    o.cost = cost_one_each;
    r.add(std::move(o));
  }
  Op cum;
  cum.name = "cumsum";
  cum.equation = "y[i] = x[0] + ... + x[i] along axis (exclusive: without x[i]; reverse: from the end)";
  cum.attrs = attr_type<CumsumAttrs>();
  cum.infer = infer_cumsum;
  cum.run = run_cumsum;
  cum.grad = grad_cumsum;
  cum.cost = cost_one_each;
  r.add(std::move(cum));

  Op s;
  s.name = "sort";
  s.equation = "y = x in ascending (or descending) order along axis, stable; NaN counts as the largest";
  s.attrs = attr_type<SortAttrs>();
  s.infer = infer_sort;
  s.run = run_sort;
  s.grad = grad_sort;
  s.cost = cost_sort;
  s.memory = memory_sort;
  r.add(s);
  s.name = "argsort";
  s.equation = "y = the indices that sort x along axis, stable";
  s.run = run_argsort;
  s.grad = nullptr;
  r.add(std::move(s));

  Op k;
  k.name = "top_k";
  k.equation = "the k largest of each last axis, descending, the first of equals first, and their indices";
  k.attrs = attr_type<TopKAttrs>();
  k.infer = infer_top_k;
  k.run = run_top_k;
  k.grad = grad_top_k;
  k.cost = cost_sort;
  k.memory = memory_top_k;
  r.add(std::move(k));
}

}  // namespace dagrt
