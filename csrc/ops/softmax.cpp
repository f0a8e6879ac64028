// softmax, log_softmax: over the last axis. softmax_cross_entropy: with integer labels or rows of probabilities, fused
// because the composed form reads the logits five times and keeps three temporaries.
#include "kernels/softmax.h"

#include "ops/cuda.h"
#include "ops/op.h"
#include "ops/registry.h"

namespace dagrt {
namespace {

int64_t row_stride(const View& v) { return v.ld ? v.ld : v.dims[v.rank - 1]; }

AttrMap last_axis_kept() { return {{"axes", {AttrList{{int64_t(-1)}}}}, {"keepdims", {true}}}; }

// ---------------------------------------------------------------- softmax: y = e^x / sum e^x
Types infer_softmax(const InferContext& c) {
  const TensorType& x = c.in[0];
  if (!is_float(x.dtype)) c.fail(ErrorKind::dtype, "expected a float input, got ", name_of(x.dtype), "; cast it first");
  if (x.rank() < 1) c.fail(ErrorKind::shape, "expected rank >= 1, got a scalar");
  return {x};
}

void run_softmax_kind(const RunContext& c, bool logarithm) {
  const View &x = c.in[0], &y = c.out[0];
  if (x.elements() == 0) return;
  SoftmaxArgs a;
  a.logarithm = logarithm;
  a.dtype = x.dtype;
  a.x = x.data;
  a.y = y.data;
  a.N = x.rows();
  a.C = x.dim(-1);
  a.ldx = row_stride(x);
  a.ldy = row_stride(y);
  softmax(a, c.stream);
}
void run_softmax(const RunContext& c) { run_softmax_kind(c, false); }
void run_log_softmax(const RunContext& c) { run_softmax_kind(c, true); }

/// dx = y (g - sum g y)
void grad_softmax(GradContext& c) {
  if (!c.wanted[0] || c.dout() == no_value) return;
  Builder& b = c.b;
  ValueId g = c.dout(), y = c.out(0);
  c.in_grads[0] = b.mul(y, b.sub(g, b.emit("reduce_sum", {b.mul(g, y)}, last_axis_kept())));
}
/// dx = g - softmax(x) sum g
void grad_log_softmax(GradContext& c) {
  if (!c.wanted[0] || c.dout() == no_value) return;
  Builder& b = c.b;
  ValueId g = c.dout();
  c.in_grads[0] = b.sub(g, b.mul(b.emit("softmax", {c.in(0)}), b.emit("reduce_sum", {g}, last_axis_kept())));
}

Cost cost_softmax(const void*, const Types& in, const Types& out) {
  return {20.0 * double(in[0].elements()), 2.0 * double(in[0].bytes())};
}
Memory memory_softmax(const void*, const Types& in, const Types&) {
  Memory m;
  if (in[0].dtype != DType::float32) m.scratch = size_t(in[0].shape.back().value()) * 4;
  return m;
}

// ---------------------------------------------------------------- softmax_cross_entropy (logits, labels) -> loss, log_z
void check_labels(const InferContext& c) {
  const TensorType &x = c.in[0], &l = c.in[1];
  if (x.dtype != DType::float32) c.fail(ErrorKind::dtype, "expected float32 logits, got ", name_of(x.dtype), "; cast to float32");
  if (x.rank() < 1) c.fail(ErrorKind::shape, "expected logits of rank >= 1, got a scalar");
  if (l.dtype != DType::float32 && !is_integer(l.dtype))
    c.fail(ErrorKind::dtype, "expected integer or float32 labels, got ", name_of(l.dtype), "; cast them first");
  Dims wanted = x.shape;
  if (l.dtype != DType::float32) wanted.pop_back();
  bool fits = l.shape.size() == wanted.size();
  for (size_t i = 0; fits && i < wanted.size(); i++) fits = !l.shape[i].known() || !wanted[i].known() || l.shape[i] == wanted[i];
  if (!fits)
    c.fail(ErrorKind::shape, "expected ", is_integer(l.dtype) ? "integer" : "float", " labels of shape ", text(wanted),
           " for logits of shape ", text(x.shape), ", got ", text(l.shape));
}

Types infer_cross_entropy(const InferContext& c) {
  check_labels(c);
  Dims rows = c.in[0].shape;
  if (rows.back().is(0)) c.fail(ErrorKind::shape, "expected at least one class, got logits of shape ", text(rows));
  rows.pop_back();
  return {{DType::float32, rows}, {DType::float32, rows}};
}

template <class T> bool label_out_of_range(const RunContext& c, int64_t classes) {
  const View& l = c.in[1];
  const T* p = l.as<const T>();
  int64_t n = l.elements(), width = l.rank ? l.dim(-1) : 1, ld = l.rank ? row_stride(l) : 1;
  for (int64_t i = 0; i < n; i++) {
    int64_t id = int64_t(p[i / width * ld + i % width]);
    if (id >= 0 && id < classes) continue;
    c.status.report(Status::index_out_of_range, c.node, i, id, classes);
    return true;
  }
  return false;
}

void run_cross_entropy(const RunContext& c) {
  const View &x = c.in[0], &l = c.in[1];
  if (c.out[0].elements() == 0) return;
  int64_t classes = x.dim(-1);
  if (c.stream.cuda && l.dtype != DType::float32) check_on_device(c, l, classes);
  bool bad = c.stream.cuda             ? false
             : l.dtype == DType::int32 ? label_out_of_range<int32_t>(c, classes)
             : l.dtype == DType::int64 ? label_out_of_range<int64_t>(c, classes)
             : l.dtype == DType::uint8 ? label_out_of_range<uint8_t>(c, classes)
                                       : false;
  if (bad) return;
  CrossEntropyArgs a;
  a.x = x.as<const float>();
  a.labels = l.data;
  a.label_dtype = l.dtype;
  a.loss = c.out[0].as<float>();
  a.log_z = c.out[1].as<float>();
  a.N = x.rows();
  a.C = classes;
  a.ldx = row_stride(x);
  a.ldl = l.dtype == DType::float32 ? row_stride(l) : 1;
  softmax_cross_entropy(a, c.stream);
}

void grad_cross_entropy(GradContext& c) {
  if (c.dout() == no_value) return;
  Builder& b = c.b;
  if (c.wanted[0]) c.in_grads[0] = b.emit("softmax_cross_entropy_grad", {c.in(0), c.in(1), c.out(1), c.dout()});
  if (c.wanted[1] && c.in_type(1).dtype == DType::float32) {
    Dims column = c.out_type(0).shape;
    column.push_back(1);
    c.in_grads[1] = b.neg(b.mul(b.emit("log_softmax", {c.in(0)}), b.reshape(c.dout(), column)));
  }
}

// ---------------------------------------------------------------- softmax_cross_entropy_grad (logits, labels, log_z, g)
Types infer_cross_entropy_grad(const InferContext& c) {
  check_labels(c);
  return {c.in[0]};
}
void run_cross_entropy_grad(const RunContext& c) {
  const View &x = c.in[0], &l = c.in[1];
  if (x.elements() == 0) return;
  CrossEntropyGradArgs a;
  a.x = x.as<const float>();
  a.labels = l.data;
  a.label_dtype = l.dtype;
  a.log_z = c.in[2].as<const float>();
  a.g = c.in[3].as<const float>();
  a.dx = c.out[0].as<float>();
  a.N = x.rows();
  a.C = x.dim(-1);
  a.ldx = row_stride(x);
  a.ldl = l.dtype == DType::float32 ? row_stride(l) : 1;
  a.ldd = row_stride(c.out[0]);
  softmax_cross_entropy_grad(a, c.stream);
}

}  // namespace

void register_softmax(Registry& r) {
  for (bool logarithm : {false, true}) {
    Op o;
    o.name = logarithm ? "log_softmax" : "softmax";
    o.equation = logarithm ? "y = x - log sum e^x, over the last axis" : "y = e^x / sum e^x, over the last axis";
    o.infer = infer_softmax;
    o.run = logarithm ? run_log_softmax : run_softmax;
    o.grad = logarithm ? grad_log_softmax : grad_softmax;
    o.cost = cost_softmax;
    o.spaced = {1, 1};
    o.batched = [](const void*, const Types& in, const Types&) { return uint32_t(in[0].rank() > 1); };
    o.memory = memory_softmax;
    o.in_place = {{0, 0}};
    r.add(std::move(o));
  }
  Op o;
  o.name = "softmax_cross_entropy";
  o.equation = "loss = log sum e^logits - logits[label], or - sum labels log_softmax(logits)";
  o.min_inputs = o.max_inputs = 2;
  o.infer = infer_cross_entropy;
  o.run = run_cross_entropy;
  o.grad = grad_cross_entropy;
  o.cost = cost_softmax;
  o.residuals = 1;
  o.checks = true;
  r.add(std::move(o));

  Op g;
  g.name = "softmax_cross_entropy_grad";
  g.equation = "dlogits = g (softmax(logits) sum labels - labels)";
  g.min_inputs = g.max_inputs = 4;
  g.infer = infer_cross_entropy_grad;
  g.run = run_cross_entropy_grad;
  g.cost = cost_softmax;
  g.in_place = {{0, 0}};
  g.not_differentiable = "use log_softmax, a product with the labels and reduce_sum, which can be differentiated twice";
  r.add(std::move(g));
}

}  // namespace dagrt
