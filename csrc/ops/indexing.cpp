// Indexing by data: gather, scatter_add, scatter_add_into, take_along_axis, put_along_axis_add, one_hot.
// An id outside [0, n) is a fault (index_out_of_range; position in ids), but for one_hot, where it gives zeros.
#include "kernels/indexing.h"

#include <algorithm>

#include "kernels/layout.h"
#include "ops/cuda.h"
#include "ops/registry.h"

namespace dagrt {
namespace {

size_t norm_axis(const InferContext& c, int64_t axis, int rank) {
  int64_t a = axis < 0 ? axis + rank : axis;
  if (a < 0 || a >= rank) c.fail(ErrorKind::shape, "axis must lie in [", -rank, ", ", rank, "), got ", axis);
  return size_t(a);
}

void need_ids(const InferContext& c, const TensorType& ids) {
  if (ids.dtype != DType::int32 && ids.dtype != DType::int64)
    c.fail(ErrorKind::dtype, "ids must be int32 or int64, got ", name_of(ids.dtype), "; cast them");
}

void need_number(const InferContext& c, const TensorType& t) {
  if (t.dtype == DType::bool_) c.fail(ErrorKind::dtype, "updates must be float or integer, got bool; cast them");
}

bool may_be(const Dim& a, const Dim& b) { return !a.known() || !b.known() || a == b; }

bool is_half(DType t) { return is_float(t) && t != DType::float32; }

// Reports the first bad id, if any.
void check(const RunContext& c, const View& ids, int64_t limit) {
  if (c.stream.cuda) return check_on_device(c, ids, limit);
  int64_t bad = -1;
  bool wide = ids.dtype == DType::int64;
  check_ids({ids.data, wide, ids.elements(), limit, &bad}, c.stream);
  if (bad < 0) return;
  int64_t id = wide ? ids.as<int64_t>()[bad] : ids.as<int32_t>()[bad];
  c.status.report(Status::index_out_of_range, c.node, bad, id, limit);
}

// x [.. axes before .., K (axes [axis, axis + n)), .. axes behind ..] as O, K, R, C with its strides.
struct Blocks {
  int64_t O = 1, K = 1, R = 1, C = 1, o = 0, k = 0, r = 0;
};

Blocks blocks(const View& v, int axis, int n) {
  Blocks b;
  int64_t stride[max_rank];
  strides_of(v, stride);
  int behind = axis + n;
  for (int i = 0; i < axis; i++) b.O *= v.dims[i];
  for (int i = axis; i < behind; i++) b.K *= v.dims[i];
  for (int i = behind; i + 1 < v.rank; i++) b.R *= v.dims[i];
  if (behind < v.rank) b.C = v.dims[v.rank - 1];
  b.r = b.R > 1 ? stride[v.rank - 2] : b.C;
  if (b.r == b.C) b.C *= b.R, b.R = 1, b.r = b.C;
  b.k = n > 0 ? stride[behind - 1] : 0;
  b.o = axis > 0 ? stride[axis - 1] : 0;
  return b;
}

void use(RowsArgs& a, const Blocks& x, const Blocks& y) {
  // Rows merge only where both sides allow it.
  a.O = x.O;
  a.R = std::max(x.R, y.R);
  a.C = std::min(x.C, y.C);
  a.xo = x.o, a.xk = x.k, a.xr = x.R == a.R ? x.r : a.C;
  a.yo = y.o, a.yk = y.k, a.yr = y.R == a.R ? y.r : a.C;
}

// --- gather: y[o.., k.., i..] = x[o.., ids[k..], i..]

struct GatherAttrs {
  int64_t axis = 0;
  template <class V> void visit(V& v) { v("axis", axis); }
};

Types infer_gather(const InferContext& c) {
  const TensorType &x = c.in[0], &ids = c.in[1];
  if (x.rank() == 0) c.fail(ErrorKind::shape, "expected at least one axis to index, got a scalar");
  size_t axis = norm_axis(c, c.attrs<GatherAttrs>().axis, x.rank());
  need_ids(c, ids);
  TensorType y{x.dtype, Dims(x.shape.begin(), x.shape.begin() + long(axis))};
  y.shape.insert(y.shape.end(), ids.shape.begin(), ids.shape.end());
  y.shape.insert(y.shape.end(), x.shape.begin() + long(axis) + 1, x.shape.end());
  return {y};
}

void run_gather(const RunContext& c) {
  const View &x = c.in[0], &ids = c.in[1], &y = c.out[0];
  int64_t axis = c.attrs<GatherAttrs>().axis;
  if (axis < 0) axis += x.rank;
  if (y.elements() == 0 && ids.elements() == 0) return;
  check(c, ids, x.dims[axis]);
  RowsArgs a;
  use(a, blocks(x, int(axis), 1), blocks(y, int(axis), ids.rank));
  a.x = x.data;
  a.ids = ids.data;
  a.wide = ids.dtype == DType::int64;
  a.y = y.data;
  a.dtype = x.dtype;
  a.N = x.dims[axis];
  a.K = ids.elements();
  gather(a, c.stream);
}

void grad_gather(GradContext& c) {
  if (!c.wanted[0]) return;
  const TensorType& x = c.in_type(0);
  int64_t axis = c.attrs<GatherAttrs>().axis;
  if (axis < 0) axis += x.rank();
  Dim size = x.shape[size_t(axis)];
  c.in_grads[0] = c.b.emit("scatter_add", {c.in(1), c.dout()}, {{"axis", {axis}}, {"size", {size}}});
}

// --- scatter_add: y = zeros [o.., size, i..]; y[o.., ids[k..], i..] += updates[o.., k.., i..], k ascending

struct ScatterAttrs {
  int64_t axis = 0;
  Dim size;
  template <class V> void visit(V& v) {
    v("axis", axis);
    v("size", size);
  }
};

// The axis counts in the result, whose rank is that of updates - ids.rank + 1.
Types infer_scatter(const InferContext& c) {
  const auto& a = c.attrs<ScatterAttrs>();
  const TensorType &ids = c.in[0], &u = c.in[1];
  need_ids(c, ids);
  need_number(c, u);
  int rank = u.rank() - ids.rank() + 1;
  if (rank < 1) c.fail(ErrorKind::shape, "updates must have at least the axes of ids ", text(ids.shape), ", got ", text(u.shape));
  size_t axis = norm_axis(c, a.axis, rank);
  for (size_t i = 0; i < ids.shape.size(); i++)
    if (!may_be(ids.shape[i], u.shape[axis + i]))
      c.fail(ErrorKind::shape, "updates ", text(u.shape), " must have the shape of ids ", text(ids.shape), " from axis ", axis,
             " on");
  if (a.size.known() && a.size.value() < 0) c.fail(ErrorKind::shape, "size must not be negative, got ", a.size.text());
  TensorType y{u.dtype, Dims(u.shape.begin(), u.shape.begin() + long(axis))};
  y.shape.push_back(a.size);
  y.shape.insert(y.shape.end(), u.shape.begin() + long(axis) + ids.rank(), u.shape.end());
  return {y};
}

void add_rows(const RunContext& c, const void* base) {
  const View &ids = c.in[0], &u = c.in[1], &y = c.out[0];
  int64_t axis = c.attrs<ScatterAttrs>().axis;
  if (axis < 0) axis += y.rank;
  check(c, ids, y.dims[axis]);
  RowsArgs a;
  use(a, blocks(u, int(axis), ids.rank), blocks(y, int(axis), 1));
  a.x = u.data;
  a.ids = ids.data;
  a.wide = ids.dtype == DType::int64;
  a.y = y.data;
  a.sums = is_half(u.dtype) ? static_cast<float*>(c.workspace) : nullptr;
  a.base = base;
  a.dtype = u.dtype;
  a.N = y.dims[axis];
  a.K = ids.elements();
  scatter_add(a, c.stream);
}

void run_scatter(const RunContext& c) { add_rows(c, nullptr); }

void grad_scatter(GradContext& c) {
  if (!c.wanted[1]) return;
  int64_t axis = c.attrs<ScatterAttrs>().axis;
  if (axis < 0) axis += c.out_type(0).rank();
  c.in_grads[1] = c.b.emit("gather", {c.dout(), c.in(0)}, {{"axis", {axis}}});
}

Memory sums_memory(const void*, const Types&, const Types& out) {
  Memory m;
  if (is_half(out[0].dtype)) m.workspace = size_t(out[0].elements()) * sizeof(float);
  return m;
}

// --- scatter_add_into: y = base; y[o.., ids[k..], i..] += updates[o.., k.., i..], k ascending

Types infer_into(const InferContext& c) {
  const TensorType &u = c.in[1], &base = c.in[2];
  if (u.dtype != DType::float32) c.fail(ErrorKind::dtype, "updates must be float32, got ", name_of(u.dtype), "; cast them");
  Types y = infer_scatter(c);
  if (base.dtype != y[0].dtype || base.shape != y[0].shape)
    c.fail(ErrorKind::shape, "base must be ", y[0].text(), ", got ", base.text());
  return y;
}

void run_into(const RunContext& c) { add_rows(c, c.in[2].data); }

// --- take_along_axis: y[.., k, ..] = x[.., ids[.., k, ..], ..]; the other axes of x and ids broadcast

Types infer_take(const InferContext& c) {
  const TensorType &x = c.in[0], &ids = c.in[1];
  need_ids(c, ids);
  if (x.rank() == 0 || x.rank() != ids.rank())
    c.fail(ErrorKind::shape, "x and ids must have the same rank, at least 1, got ", text(x.shape), " and ", text(ids.shape));
  size_t axis = norm_axis(c, c.attrs<GatherAttrs>().axis, x.rank());
  TensorType y{x.dtype, ids.shape};
  for (size_t i = 0; i < y.shape.size(); i++)
    if (i != axis) y.shape[i] = broadcast(x.shape[i], ids.shape[i]);
  return {y};
}

// Strides of `v` where it is read at the positions of `dims`: 0 along axes of size 1 that broadcast.
void broadcast_strides(const View& v, const int64_t* dims, int64_t* stride) {
  strides_of(v, stride);
  for (int i = 0; i < v.rank; i++)
    if (v.dims[i] == 1 && dims[i] != 1) stride[i] = 0;
}

void run_take(const RunContext& c) {
  const View &x = c.in[0], &ids = c.in[1], &y = c.out[0];
  AlongAxisArgs a;
  a.axis = int(c.attrs<GatherAttrs>().axis);
  if (a.axis < 0) a.axis += x.rank;
  a.N = x.dims[a.axis];
  check(c, ids, a.N);
  a.x = x.data;
  a.ids = ids.data;
  a.wide = ids.dtype == DType::int64;
  a.y = y.data;
  a.dtype = x.dtype;
  a.rank = x.rank;
  for (int i = 0; i < y.rank; i++) a.dims[i] = y.dims[i];
  broadcast_strides(x, a.dims, a.x_stride);
  broadcast_strides(ids, a.dims, a.id_stride);
  strides_of(y, a.y_stride);
  take_along_axis(a, c.stream);
}

void grad_take(GradContext& c) {
  if (!c.wanted[0]) return;
  const Dims shape = c.in_type(0).shape;
  int64_t axis = c.attrs<GatherAttrs>().axis;
  if (axis < 0) axis += int64_t(shape.size());
  ValueId g = c.b.emit("put_along_axis_add", {c.in(1), c.dout()}, {{"axis", {axis}}, {"size", {shape[size_t(axis)]}}});
  c.in_grads[0] = c.b.unbroadcast(g, shape);
}

// --- put_along_axis_add: y = zeros; y[.., ids[.., k, ..], ..] += updates[.., k, ..], k ascending; ids and updates broadcast

Types infer_put(const InferContext& c) {
  const auto& a = c.attrs<ScatterAttrs>();
  const TensorType &ids = c.in[0], &u = c.in[1];
  need_ids(c, ids);
  need_number(c, u);
  if (u.rank() == 0 || u.rank() != ids.rank())
    c.fail(ErrorKind::shape, "ids and updates must have the same rank, at least 1, got ", text(ids.shape), " and ",
           text(u.shape));
  size_t axis = norm_axis(c, a.axis, u.rank());
  if (a.size.known() && a.size.value() < 0) c.fail(ErrorKind::shape, "size must not be negative, got ", a.size.text());
  TensorType y{u.dtype, broadcast(ids.shape, u.shape)};
  y.shape[axis] = a.size;
  return {y};
}

void run_put(const RunContext& c) {
  const View &ids = c.in[0], &u = c.in[1], &y = c.out[0];
  if (y.elements() == 0)
    return check(c, ids, y.dims[c.attrs<ScatterAttrs>().axis + (c.attrs<ScatterAttrs>().axis < 0 ? y.rank : 0)]);
  AlongAxisArgs a;
  a.axis = int(c.attrs<ScatterAttrs>().axis);
  if (a.axis < 0) a.axis += y.rank;
  a.N = y.dims[a.axis];
  check(c, ids, a.N);
  a.x = u.data;
  a.ids = ids.data;
  a.wide = ids.dtype == DType::int64;
  a.y = y.data;
  a.sums = is_half(u.dtype) ? static_cast<float*>(c.workspace) : nullptr;
  a.dtype = u.dtype;
  a.rank = y.rank;
  for (int i = 0; i < y.rank; i++) {
    a.y_dims[i] = y.dims[i];
    a.dims[i] = ids.dims[i] == 1 ? u.dims[i] : ids.dims[i];
  }
  broadcast_strides(u, a.dims, a.x_stride);
  broadcast_strides(ids, a.dims, a.id_stride);
  strides_of(y, a.y_stride);
  put_along_axis_add(a, c.stream);
}

void grad_put(GradContext& c) {
  if (!c.wanted[1]) return;
  const Dims shape = c.in_type(1).shape;
  int64_t axis = c.attrs<ScatterAttrs>().axis;
  if (axis < 0) axis += int64_t(shape.size());
  ValueId g = c.b.emit("take_along_axis", {c.dout(), c.in(0)}, {{"axis", {axis}}});
  if (shape[size_t(axis)].is(1)) {  // one update for all ids along the axis takes what flows to each of them
    c.in_grads[1] = c.b.unbroadcast(g, shape);
    return;
  }
  Dims full = c.b.type(g).shape;
  if (full[size_t(axis)].is(1)) {  // one id for all updates along the axis
    full[size_t(axis)] = shape[size_t(axis)];
    g = c.b.broadcast_to(g, full);
  }
  c.in_grads[1] = c.b.unbroadcast(g, shape);
}

// --- one_hot: y[.., j] = (ids[..] == j)

struct OneHotAttrs {
  Dim depth;
  DType dtype = DType::float32;
  template <class V> void visit(V& v) {
    v("depth", depth);
    v("dtype", dtype);
  }
};

Types infer_one_hot(const InferContext& c) {
  const auto& a = c.attrs<OneHotAttrs>();
  if (!is_integer(c.in[0].dtype)) c.fail(ErrorKind::dtype, "ids must be integers, got ", name_of(c.in[0].dtype), "; cast them");
  if (a.depth.known() && a.depth.value() < 0) c.fail(ErrorKind::shape, "depth must not be negative, got ", a.depth.text());
  TensorType y{a.dtype, c.in[0].shape};
  y.shape.push_back(a.depth);
  return {y};
}

void run_one_hot(const RunContext& c) {
  const View &ids = c.in[0], &y = c.out[0];
  one_hot({ids.data, ids.dtype, y.data, y.dtype, y.rows(), y.dim(-1), std::max(y.ld, y.dim(-1))}, c.stream);
}

Op make(const char* name, const char* equation, AttrType attrs, int inputs, Types (*infer)(const InferContext&),
        void (*run)(const RunContext&), void (*grad)(GradContext&)) {
  Op o;
  o.name = name;
  o.equation = equation;
  o.attrs = attrs;
  o.min_inputs = o.max_inputs = inputs;
  o.infer = infer;
  o.run = run;
  o.grad = grad;
  o.checks = grad != nullptr;
  return o;
}

}  // namespace

void register_indexing(Registry& r) {
  r.add(make("gather", "y[o, k, i] = x[o, ids[k], i]", attr_type<GatherAttrs>(), 2, infer_gather, run_gather, grad_gather));
  Op scatter = make("scatter_add", "y = 0; y[o, ids[k], i] += updates[o, k, i]", attr_type<ScatterAttrs>(), 2, infer_scatter,
                    run_scatter, grad_scatter);
  scatter.memory = sums_memory;
  r.add(std::move(scatter));
  Op into = make("scatter_add_into", "y = base; y[o, ids[k], i] += updates[o, k, i]", attr_type<ScatterAttrs>(), 3, infer_into,
                 run_into, nullptr);
  into.cpu_algorithm_of = "scatter_add";
  into.in_place = {{2, 0}};
  into.checks = true;
  into.not_differentiable = "it is chosen when the gradients are known";
  r.add(std::move(into));
  r.add(make("take_along_axis", "y[.., k, ..] = x[.., ids[.., k, ..], ..]", attr_type<GatherAttrs>(), 2, infer_take, run_take,
             grad_take));
  Op put = make("put_along_axis_add", "y = 0; y[.., ids[.., k, ..], ..] += updates[.., k, ..]", attr_type<ScatterAttrs>(), 2,
                infer_put, run_put, grad_put);
  put.memory = sums_memory;
  r.add(std::move(put));
  r.add(make("one_hot", "y[.., j] = ids[..] == j", attr_type<OneHotAttrs>(), 1, infer_one_hot, run_one_hot, nullptr));
}

}  // namespace dagrt
