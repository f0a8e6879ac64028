// Shape and layout: reshape, transpose, broadcast_to, concat, slice, pad, reverse, iota, full.
// All of them move whole elements of any dtype. Everything but pad, full and iota is one strided copy.
#include "kernels/layout.h"

#include <algorithm>
#include <cstring>

#include "ops/cuda.h"
#include "ops/layout.h"
#include "ops/registry.h"

namespace dagrt {
namespace {

AttrValue sizes(const Dims& dims) {
  AttrList list(dims.size());
  for (size_t i = 0; i < dims.size(); i++) list[i].v = dims[i];
  return {list};
}

AttrValue integers(const std::vector<int64_t>& values) {
  AttrList list(values.size());
  for (size_t i = 0; i < values.size(); i++) list[i].v = values[i];
  return {list};
}

size_t norm_axis(const InferContext& c, int64_t axis, int rank) {
  int64_t a = axis < 0 ? axis + rank : axis;
  if (a < 0 || a >= rank)
    c.fail(ErrorKind::shape, "axis must lie in [", -rank, ", ", rank, ") for ", text(c.in[0].shape), ", got ", axis);
  return size_t(a);
}

void need_one_per_axis(const InferContext& c, const char* name, size_t got, int rank) {
  if (got != size_t(rank))
    c.fail(ErrorKind::shape, "'", name, "' must have one entry for each axis of ", text(c.in[0].shape), ", got ", got);
}

// A copy that visits out's elements in order; the caller sets src_stride (and src).
CopyArgs copy_to(const View& out) {
  CopyArgs a;
  a.dst = out.data;
  a.element = int64_t(size_of(out.dtype));
  a.rank = out.rank;
  for (int i = 0; i < out.rank; i++) a.dims[i] = out.dims[i];
  strides_of(out, a.dst_stride);
  return a;
}

const char* at(const View& v, int64_t element) { return static_cast<const char*>(v.data) + element * int64_t(size_of(v.dtype)); }

bool dense(const View& v) { return v.rank < 2 || v.ld <= v.dims[v.rank - 1]; }

// --- reshape: the elements of x in order, under another shape (run copies; the planner makes it an alias where it can)

struct ReshapeAttrs {
  Dims shape;
  template <class V> void visit(V& v) { v("shape", shape); }
};

// total / given, cancelling equal factors first, so that (b, 28, 28) -> (b, -1) gives 784 without knowing b.
Dim quotient(const Dims& total, const Dims& given) {
  int64_t above = 1, below = 1;
  Dims rest, unmatched;
  for (const Dim& d : total) {
    if (d.known())
      above *= d.value();
    else
      rest.push_back(d);
  }
  for (const Dim& d : given) {
    bool found = false;
    for (size_t i = 0; !found && !d.known() && i < rest.size(); i++)
      if (rest[i] == d) {
        rest.erase(rest.begin() + long(i));
        found = true;
      }
    if (d.known())
      below *= d.value();
    else if (!found)
      unmatched.push_back(d);
  }
  if (unmatched.empty() && below != 0 && above % below == 0) return product(rest) * Dim(above / below);
  return floor_div(product(rest) * Dim(above), product(unmatched) * Dim(below));
}

Types infer_reshape(const InferContext& c) {
  const Dims& from = c.in[0].shape;
  Dims shape = c.attrs<ReshapeAttrs>().shape, given;
  int open = -1;
  for (size_t i = 0; i < shape.size(); i++) {
    if (shape[i].is(-1)) {
      if (open >= 0) c.fail(ErrorKind::shape, "at most one size may be -1, got ", text(shape));
      open = int(i);
    } else {
      if (shape[i].known() && shape[i].value() < 0)
        c.fail(ErrorKind::shape, "sizes must not be negative (but one -1), got ", text(shape));
      given.push_back(shape[i]);
    }
  }
  Dim total = product(from), wanted = product(given);
  if (open >= 0) {
    if (wanted.is(0)) c.fail(ErrorKind::shape, "-1 cannot be worked out beside a size 0 in ", text(shape), "; write the size");
    if (total.known() && wanted.known() && total.value() % wanted.value())
      c.fail(ErrorKind::shape, text(from), " has ", total.text(), " elements, which ", text(shape), " cannot hold evenly");
    shape[size_t(open)] = quotient(from, given);
  } else if (total.known() && wanted.known() && total != wanted) {
    c.fail(ErrorKind::shape, text(from), " has ", total.text(), " elements, but ", text(shape), " needs ", wanted.text());
  }
  return {{c.in[0].dtype, shape}};
}

void run_reshape(const RunContext& c) {
  const View &x = c.in[0], &y = c.out[0];
  if (x.data == y.data || x.elements() == 0) return;
  bool x_rows = dense(y);  // the shape whose rows both sides are cut into
  const View& rows = x_rows ? x : y;
  if (dense(x) || dense(y)) {
    CopyArgs a;
    a.src = x.data;
    a.dst = y.data;
    a.element = int64_t(size_of(x.dtype));
    a.rank = rows.rank;
    View packed = rows;
    packed.ld = rows.rank ? rows.dims[rows.rank - 1] : 1;
    for (int i = 0; i < rows.rank; i++) a.dims[i] = rows.dims[i];
    strides_of(x_rows ? x : packed, a.src_stride);
    strides_of(x_rows ? packed : y, a.dst_stride);
    return copy_strided(a, c.stream);
  }
  int64_t cx = x.dim(-1), cy = y.dim(-1), n = x.elements(), e = int64_t(size_of(x.dtype));
  for (int64_t i = 0; i < n;) {  // both padded, of different widths: rare
    int64_t run = std::min(std::min(cx - i % cx, cy - i % cy), n - i);
    void* to = const_cast<char*>(at(y, i / cy * y.ld + i % cy));
    const void* from = at(x, i / cx * x.ld + i % cx);
    if (c.stream.cuda)
      copy_on(*c.stream.cuda, to, from, size_t(run * e));
    else
      std::memcpy(to, from, size_t(run * e));
    i += run;
  }
}

void grad_reshape(GradContext& c) { c.in_grads[0] = c.b.reshape(c.dout(), c.in_type(0).shape); }

// --- transpose: y[i_perm[0], i_perm[1], ...] = x[i_0, i_1, ...]

struct TransposeAttrs {
  std::vector<int64_t> perm;
  template <class V> void visit(V& v) { v("perm", perm); }
};

Types infer_transpose(const InferContext& c) {
  const auto& perm = c.attrs<TransposeAttrs>().perm;
  int rank = c.in[0].rank();
  need_one_per_axis(c, "perm", perm.size(), rank);
  TensorType y{c.in[0].dtype, {}};
  std::vector<bool> seen(static_cast<size_t>(rank));
  for (int64_t p : perm) {
    if (p < 0 || p >= rank || seen[size_t(p)])
      c.fail(ErrorKind::shape, "'perm' must name each of the axes 0 to ", rank - 1, " once, got ", p, " out of place");
    seen[size_t(p)] = true;
    y.shape.push_back(c.in[0].shape[size_t(p)]);
  }
  return {y};
}

void run_transpose(const RunContext& c) {
  const auto& perm = c.attrs<TransposeAttrs>().perm;
  int64_t stride[max_rank];
  strides_of(c.in[0], stride);
  CopyArgs a = copy_to(c.out[0]);
  a.src = c.in[0].data;
  for (size_t i = 0; i < perm.size(); i++) a.src_stride[i] = stride[perm[i]];
  copy_strided(a, c.stream);
}

void grad_transpose(GradContext& c) {
  const auto& perm = c.attrs<TransposeAttrs>().perm;
  std::vector<int64_t> inverse(perm.size());
  for (size_t i = 0; i < perm.size(); i++) inverse[size_t(perm[i])] = int64_t(i);
  c.in_grads[0] = c.b.transpose(c.dout(), inverse);
}

// --- broadcast_to: x repeated along new axes and axes of size 1

struct BroadcastAttrs {
  Dims shape;
  template <class V> void visit(V& v) { v("shape", shape); }
};

Types infer_broadcast(const InferContext& c) {
  const Dims &from = c.in[0].shape, &to = c.attrs<BroadcastAttrs>().shape;
  if (to.size() < from.size())
    c.fail(ErrorKind::shape, "the result must have at least the axes of ", text(from), ", got ", text(to));
  for (size_t i = 0; i < from.size(); i++) {
    const Dim &a = from[i], &b = to[to.size() - from.size() + i];
    if (a.known() && b.known() && a != b && !a.is(1))
      c.fail(ErrorKind::shape, text(from), " does not broadcast to ", text(to), ": size ", a.text(), " must be 1 or ", b.text());
  }
  return {{c.in[0].dtype, to}};
}

void run_broadcast(const RunContext& c) {
  const View &x = c.in[0], &y = c.out[0];
  int64_t stride[max_rank];
  strides_of(x, stride);
  CopyArgs a = copy_to(y);
  a.src = x.data;
  for (int i = 0; i < x.rank; i++) a.src_stride[y.rank - x.rank + i] = x.dims[i] == 1 ? 0 : stride[i];
  copy_strided(a, c.stream);
}

void grad_broadcast(GradContext& c) { c.in_grads[0] = c.b.unbroadcast(c.dout(), c.in_type(0).shape); }

// --- concat: inputs one behind the other along `axis`

struct ConcatAttrs {
  int64_t axis = 0;
  template <class V> void visit(V& v) { v("axis", axis); }
};

Types infer_concat(const InferContext& c) {
  TensorType y = c.in[0];
  size_t axis = norm_axis(c, c.attrs<ConcatAttrs>().axis, y.rank());
  for (size_t k = 1; k < c.in.size(); k++) {
    const TensorType& x = c.in[k];
    if (x.dtype != y.dtype)
      c.fail(ErrorKind::dtype, "all inputs must have one dtype, got ", name_of(y.dtype), " and ", name_of(x.dtype), " (input ", k,
             ")");
    bool fits = x.rank() == y.rank();
    for (size_t i = 0; fits && i < y.shape.size(); i++) {
      if (i == axis)
        y.shape[i] = y.shape[i] + x.shape[i];
      else if (!y.shape[i].known())
        y.shape[i] = x.shape[i].known() ? x.shape[i] : y.shape[i];
      else
        fits = !x.shape[i].known() || x.shape[i] == y.shape[i];
    }
    if (!fits)
      c.fail(ErrorKind::shape, "inputs must agree on all axes but ", axis, ", got ", text(c.in[0].shape), " and ", text(x.shape),
             " (input ", k, ")");
  }
  return {y};
}

void run_concat(const RunContext& c) {
  const View& y = c.out[0];
  int64_t axis = c.attrs<ConcatAttrs>().axis;
  if (axis < 0) axis += y.rank;
  int64_t from = 0;
  for (int k = 0; k < c.inputs; k++) {
    CopyArgs a = copy_to(y);
    a.src = c.in[k].data;
    a.dst = const_cast<char*>(at(y, from * a.dst_stride[axis]));
    a.dims[axis] = c.in[k].dims[axis];
    strides_of(c.in[k], a.src_stride);
    if (a.src != a.dst) copy_strided(a, c.stream);  // else it was written there (runtime/slices.h)
    from += a.dims[axis];
  }
}

AttrMap slice_attrs(const Dims& begin, const Dims& size, const std::vector<int64_t>& stride) {
  return {{"begin", sizes(begin)}, {"size", sizes(size)}, {"stride", integers(stride)}};
}

void grad_concat(GradContext& c) {
  size_t rank = size_t(c.out_type(0).rank());
  int64_t axis = c.attrs<ConcatAttrs>().axis;
  if (axis < 0) axis += int64_t(rank);
  Dims begin(rank, Dim(0));
  for (size_t k = 0; k < c.node.inputs.size(); k++) {
    const Dims shape = c.in_type(k).shape;
    if (c.wanted[k]) c.in_grads[k] = c.b.emit("slice", {c.dout()}, slice_attrs(begin, shape, std::vector<int64_t>(rank, 1)));
    begin[size_t(axis)] = begin[size_t(axis)] + shape[size_t(axis)];
  }
}

// --- slice: y[i] = x[begin + i * stride], `size` elements along each axis

struct SliceAttrs {
  Dims begin, size;
  std::vector<int64_t> stride;
  template <class V> void visit(V& v) {
    v("begin", begin);
    v("size", size);
    v("stride", stride);
  }
};

Types infer_slice(const InferContext& c) {
  const auto& a = c.attrs<SliceAttrs>();
  const Dims& from = c.in[0].shape;
  int rank = c.in[0].rank();
  need_one_per_axis(c, "begin", a.begin.size(), rank);
  need_one_per_axis(c, "size", a.size.size(), rank);
  need_one_per_axis(c, "stride", a.stride.size(), rank);
  for (size_t i = 0; i < from.size(); i++) {
    const Dim &b = a.begin[i], &n = a.size[i];
    if (a.stride[i] < 1) c.fail(ErrorKind::shape, "strides must be positive, got ", a.stride[i], " for axis ", i);
    if ((b.known() && b.value() < 0) || (n.known() && n.value() < 0))
      c.fail(ErrorKind::shape, "begin and size must not be negative, got ", b.text(), " and ", n.text(), " for axis ", i);
    if (!b.known() || !n.known() || !from[i].known()) continue;
    Dim last = n.is(0) ? b : b + (n - 1) * Dim(a.stride[i]) + 1;
    if (last.value() > from[i].value())
      c.fail(ErrorKind::shape, "axis ", i, " of ", text(from), " ends at ", from[i].text(), ", but ", n.text(), " elements from ",
             b.text(), " with stride ", a.stride[i], " reach ", last.text());
  }
  return {{c.in[0].dtype, a.size}};
}

void run_slice(const RunContext& c) {
  const auto& s = c.attrs<SliceAttrs>();
  int64_t stride[max_rank], offset = 0;
  strides_of(c.in[0], stride);
  CopyArgs a = copy_to(c.out[0]);
  for (int i = 0; i < a.rank; i++) {
    offset += s.begin[size_t(i)].value() * stride[i];
    a.src_stride[i] = stride[i] * s.stride[size_t(i)];
  }
  if (c.out[0].elements() == 0) return;
  a.src = at(c.in[0], offset);
  copy_strided(a, c.stream);
}

void grad_slice(GradContext& c) {
  const auto& a = c.attrs<SliceAttrs>();
  const Dims from = c.in_type(0).shape;
  Dims high;
  std::vector<int64_t> interior;
  for (size_t i = 0; i < from.size(); i++) {
    Dim taken = a.size[i].is(0) ? Dim(0) : (a.size[i] - 1) * Dim(a.stride[i]) + 1;
    high.push_back(from[i] - a.begin[i] - taken);
    interior.push_back(a.stride[i] - 1);
  }
  c.in_grads[0] = c.b.emit("pad", {c.dout()},
                           {{"low", sizes(a.begin)}, {"high", sizes(high)}, {"interior", integers(interior)}, {"value", {0.0}}});
}

// --- pad: `value` around x, and `interior` times between neighbours

struct PadAttrs {
  Dims low, high;
  std::vector<int64_t> interior;
  double value = 0;
  template <class V> void visit(V& v) {
    v("low", low);
    v("high", high);
    v("interior", interior);
    v("value", value);
  }
};

Types infer_pad(const InferContext& c) {
  const auto& a = c.attrs<PadAttrs>();
  int rank = c.in[0].rank();
  need_one_per_axis(c, "low", a.low.size(), rank);
  need_one_per_axis(c, "high", a.high.size(), rank);
  need_one_per_axis(c, "interior", a.interior.size(), rank);
  TensorType y = c.in[0];
  for (size_t i = 0; i < y.shape.size(); i++) {
    if ((a.low[i].known() && a.low[i].value() < 0) || (a.high[i].known() && a.high[i].value() < 0) || a.interior[i] < 0)
      c.fail(ErrorKind::shape, "padding must not be negative, got low ", a.low[i].text(), ", high ", a.high[i].text(),
             ", interior ", a.interior[i], " for axis ", i, "; use slice to crop");
    Dim n = y.shape[i];
    if (a.interior[i] > 0) n = n + max(n - 1, Dim(0)) * Dim(a.interior[i]);
    y.shape[i] = a.low[i] + n + a.high[i];
  }
  return {y};
}

void run_pad(const RunContext& c) {
  const auto& p = c.attrs<PadAttrs>();
  const View &x = c.in[0], &y = c.out[0];
  PadArgs a;
  a.src = x.data;
  a.dst = y.data;
  a.dtype = x.dtype;
  a.value = p.value;
  a.rank = x.rank;
  for (int i = 0; i < x.rank; i++) {
    a.dims[i] = x.dims[i];
    a.out_dims[i] = y.dims[i];
    a.low[i] = p.low[size_t(i)].value();
    a.interior[i] = p.interior[size_t(i)];
  }
  strides_of(x, a.src_stride);
  strides_of(y, a.dst_stride);
  pad(a, c.stream);
}

void grad_pad(GradContext& c) {
  const auto& a = c.attrs<PadAttrs>();
  std::vector<int64_t> stride;
  for (int64_t i : a.interior) stride.push_back(i + 1);
  c.in_grads[0] = c.b.emit("slice", {c.dout()}, slice_attrs(a.low, c.in_type(0).shape, stride));
}

// --- reverse: y[..., i, ...] = x[..., n - 1 - i, ...] along `axes`

struct ReverseAttrs {
  std::vector<int64_t> axes;
  template <class V> void visit(V& v) { v("axes", axes); }
};

Types infer_reverse(const InferContext& c) {
  std::vector<bool> seen(size_t(c.in[0].rank()));
  for (int64_t axis : c.attrs<ReverseAttrs>().axes) {
    size_t i = norm_axis(c, axis, c.in[0].rank());
    if (seen[i]) c.fail(ErrorKind::shape, "axis ", axis, " is named twice");
    seen[i] = true;
  }
  return {c.in[0]};
}

void run_reverse(const RunContext& c) {
  const View& x = c.in[0];
  if (x.elements() == 0) return;
  CopyArgs a = copy_to(c.out[0]);
  strides_of(x, a.src_stride);
  int64_t offset = 0;
  for (int64_t axis : c.attrs<ReverseAttrs>().axes) {
    int64_t i = axis < 0 ? axis + x.rank : axis;
    offset += (x.dims[i] - 1) * a.src_stride[i];
    a.src_stride[i] = -a.src_stride[i];
  }
  a.src = at(x, offset);
  copy_strided(a, c.stream);
}

void grad_reverse(GradContext& c) {
  c.in_grads[0] = c.b.emit("reverse", {c.dout()}, {{"axes", integers(c.attrs<ReverseAttrs>().axes)}});
}

// --- iota: 0, 1, ..., size - 1

struct IotaAttrs {
  Dim size;
  DType dtype = DType::int32;
  template <class V> void visit(V& v) {
    v("size", size);
    v("dtype", dtype);
  }
};

Types infer_iota(const InferContext& c) {
  const auto& a = c.attrs<IotaAttrs>();
  if (a.dtype == DType::bool_) c.fail(ErrorKind::dtype, "dtype must be float or integer, got bool; cast afterwards");
  if (a.size.known() && a.size.value() < 0) c.fail(ErrorKind::shape, "size must not be negative, got ", a.size.text());
  return {{a.dtype, {a.size}}};
}

void run_iota(const RunContext& c) { iota({c.out[0].data, c.out[0].dtype, c.out[0].elements()}, c.stream); }

// --- full: `value` everywhere

struct FullAttrs {
  Dims shape;
  double value = 0;
  DType dtype = DType::float32;
  template <class V> void visit(V& v) {
    v("shape", shape);
    v("value", value);
    v("dtype", dtype);
  }
};

Types infer_full(const InferContext& c) {
  const auto& a = c.attrs<FullAttrs>();
  for (const Dim& d : a.shape)
    if (d.known() && d.value() < 0) c.fail(ErrorKind::shape, "sizes must not be negative, got ", text(a.shape));
  return {{a.dtype, a.shape}};
}

void run_full(const RunContext& c) {
  const View& y = c.out[0];
  int64_t columns = y.rank ? y.dims[y.rank - 1] : 1;
  fill({y.data, y.dtype, c.attrs<FullAttrs>().value, y.rows(), columns, std::max(y.ld, columns)}, c.stream);
}

Op make(const char* name, const char* equation, AttrType attrs, int inputs, Types (*infer)(const InferContext&),
        void (*run)(const RunContext&), void (*grad)(GradContext&)) {
  Op o;
  o.name = name;
  o.equation = equation;
  o.attrs = attrs;
  o.min_inputs = inputs < 0 ? 1 : inputs;
  o.max_inputs = inputs;
  o.infer = infer;
  o.run = run;
  o.grad = grad;
  o.spaced = Spaced::all();
  return o;
}

}  // namespace

size_t concat_axis(const void* attrs, size_t rank) {
  int64_t axis = static_cast<const ConcatAttrs*>(attrs)->axis;
  return size_t(axis < 0 ? axis + int64_t(rank) : axis);
}

bool slice_begin(const void* attrs, std::vector<int64_t>& begin) {
  const auto& a = *static_cast<const SliceAttrs*>(attrs);
  begin.clear();
  for (size_t i = 0; i < a.begin.size(); i++) {
    if (a.stride[i] != 1 && !a.size[i].is(1)) return false;
    begin.push_back(a.begin[i].value());
  }
  return true;
}

void register_layout(Registry& r) {
  // Where a part of a batch gives the same part of the output (Op::batched).
  auto same_batch = [](const void*, const Types& in, const Types& out) {
    return uint32_t(in[0].rank() > 0 && out[0].rank() > 0 && in[0].shape[0] == out[0].shape[0]);
  };
  Op o = make("reshape", "y = the elements of x in order, under another shape", attr_type<ReshapeAttrs>(), 1, infer_reshape,
              run_reshape, grad_reshape);
  o.batched = same_batch, o.shape_attr = "shape";
  r.add(std::move(o));
  o = make("transpose", "y.shape[i] = x.shape[perm[i]]", attr_type<TransposeAttrs>(), 1, infer_transpose, run_transpose,
           grad_transpose);
  o.batched = [](const void* a, const Types& in, const Types&) {
    return uint32_t(in[0].rank() > 0 && static_cast<const TransposeAttrs*>(a)->perm[0] == 0);
  };
  r.add(std::move(o));
  o = make("broadcast_to", "y = x repeated along new axes and axes of size 1", attr_type<BroadcastAttrs>(), 1, infer_broadcast,
           run_broadcast, grad_broadcast);
  o.batched = [](const void*, const Types& in, const Types& out) {
    return uint32_t(in[0].rank() > 0 && in[0].rank() == out[0].rank() && in[0].shape[0] == out[0].shape[0]);
  };
  o.shape_attr = "shape";
  r.add(std::move(o));
  o = make("concat", "y = x_0, x_1, ... one behind the other along axis", attr_type<ConcatAttrs>(), -1, infer_concat, run_concat,
           grad_concat);
  o.batched = [](const void* a, const Types& in, const Types&) { return concat_axis(a, in[0].shape.size()) ? ~0u : 0u; };
  r.add(std::move(o));
  o = make("slice", "y[i] = x[begin + i stride], i < size", attr_type<SliceAttrs>(), 1, infer_slice, run_slice, grad_slice);
  o.batched = same_batch, o.shape_attr = "size";
  r.add(std::move(o));
  o = make("pad", "y[low + i (interior + 1)] = x[i], elsewhere value", attr_type<PadAttrs>(), 1, infer_pad, run_pad, grad_pad);
  o.batched = same_batch;
  r.add(std::move(o));
  r.add(
      make("reverse", "y[i] = x[n - 1 - i] along axes", attr_type<ReverseAttrs>(), 1, infer_reverse, run_reverse, grad_reverse));
  r.add(make("iota", "y[i] = i", attr_type<IotaAttrs>(), 0, infer_iota, run_iota, nullptr));
  r.add(make("full", "y = value", attr_type<FullAttrs>(), 0, infer_full, run_full, nullptr));
}

}  // namespace dagrt
