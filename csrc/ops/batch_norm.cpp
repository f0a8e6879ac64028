// batch_norm: y = (x - mean) / sqrt(variance + epsilon) gamma + beta, over all axes but the last, by the statistics of this
// batch (biased variance), float32. Outputs y, mean, variance; residual rstd.
// batch_norm_grad: dx, dgamma, dbeta from x, gamma, mean, rstd, dy. The statistics carry no gradient of their own: a loss
// that reads them is composed (mean, variance by reduce_sum).
#include "kernels/batch_norm.h"

#include "ops/epilogue.h"
#include "ops/registry.h"

namespace dagrt {
namespace {

struct BatchNormAttrs : EpilogueAttrs {
  double epsilon = 1e-3;
  template <class V> void visit(V& v) {
    v("epsilon", epsilon);
    visit_epilogue(v);
  }
};

void check_channels(const InferContext& c, const TensorType& t, const Dim& channels, const char* what) {
  if (t.absent) return;
  if (t.dtype != DType::float32) c.fail(ErrorKind::dtype, what, " must be float32, got ", name_of(t.dtype), "; cast to float32");
  if (t.rank() != 1 || (t.shape[0].known() && channels.known() && t.shape[0] != channels))
    c.fail(ErrorKind::shape, what, " must have shape (", channels.text(), ",), got ", text(t.shape));
}

void check_rows(const InferContext& c, const TensorType& x) {
  if (x.dtype != DType::float32) c.fail(ErrorKind::dtype, "expected float32, got ", name_of(x.dtype), "; cast to float32");
  if (x.rank() < 1) c.fail(ErrorKind::shape, "expected at least 1 axis, got a scalar");
}

Types infer_batch_norm(const InferContext& c) {
  const TensorType& x = c.in[0];
  check_rows(c, x);
  const Dim& channels = x.shape.back();
  if (c.in.size() > 1) check_channels(c, c.in[1], channels, "gamma");
  if (c.in.size() > 2) check_channels(c, c.in[2], channels, "beta");
  check_epilogue(c, c.attrs<BatchNormAttrs>(), 3, x);
  TensorType each{DType::float32, {channels}};
  return {x, each, each, each};
}

Types infer_batch_norm_grad(const InferContext& c) {
  const TensorType& x = c.in[0];
  check_rows(c, x);
  const Dim& channels = x.shape.back();
  if (c.in.size() != 5) c.fail(ErrorKind::graph, "expected x, gamma, mean, rstd, dy, got ", c.in.size(), " inputs");
  check_channels(c, c.in[1], channels, "gamma");
  for (size_t i = 2; i < 5; i++)
    if (c.in[i].absent) c.fail(ErrorKind::graph, "input ", i, " is required, but absent");
  check_channels(c, c.in[2], channels, "mean");
  check_channels(c, c.in[3], channels, "rstd");
  if (c.in[4].dtype != DType::float32 || c.in[4].rank() != x.rank())
    c.fail(ErrorKind::shape, "dy must be like x, ", x.text(), ", got ", c.in[4].text());
  TensorType each{DType::float32, {channels}};
  return {x, each, each};
}

void run_batch_norm(const RunContext& c) {
  BatchNormArgs a;
  const View& x = c.in[0];
  a.x = x.as<const float>();
  a.gamma = c.inputs > 1 ? c.in[1].as<const float>() : nullptr;
  a.beta = c.inputs > 2 ? c.in[2].as<const float>() : nullptr;
  a.y = c.out[0].as<float>();
  a.mean = c.out[1].as<float>();
  a.variance = c.out[2].as<float>();
  a.rows = x.rows(), a.C = x.dim(-1), a.ldx = x.ld, a.ldy = c.out[0].ld;
  a.rstd = c.out[3].as<float>();
  a.epsilon = float(c.attrs<BatchNormAttrs>().epsilon);
  a.epilogue = read_epilogue(c, c.attrs<BatchNormAttrs>(), 3);
  a.workspace = static_cast<float*>(c.workspace);
  batch_norm(a, c.stream);
}

void run_batch_norm_grad(const RunContext& c) {
  BatchNormArgs a;
  const View& x = c.in[0];
  a.x = x.as<const float>();
  a.gamma = c.in[1].as<const float>();
  a.mean = const_cast<float*>(c.in[2].as<const float>());
  a.rstd = const_cast<float*>(c.in[3].as<const float>());
  a.dy = c.in[4].as<const float>();
  a.dx = c.out[0].as<float>();
  a.dgamma = c.out[1].as<float>();
  a.dbeta = c.out[2].as<float>();
  a.rows = x.rows(), a.C = x.dim(-1), a.ldx = x.ld, a.lddy = c.in[4].ld, a.lddx = c.out[0].ld;
  a.workspace = static_cast<float*>(c.workspace);
  batch_norm_grad(a, c.stream);
}

void grad_batch_norm(GradContext& c) {
  no_epilogue(c, c.attrs<BatchNormAttrs>());
  if ((c.out_grads.size() > 1 && c.dout(1) != no_value) || (c.out_grads.size() > 2 && c.dout(2) != no_value))
    fail(ErrorKind::graph,
         "batch_norm: no gradient flows through its mean and variance; compute them with reduce_sum "
         "(ops.moments) where a loss needs them");
  if (c.dout(0) == no_value) return;
  ValueId gamma = c.node.inputs.size() > 1 ? c.in(1) : no_value;
  std::vector<ValueId> g = c.b.emit_all("batch_norm_grad", {c.in(0), gamma, c.out(1), c.out(3), c.dout(0)});
  for (size_t i = 0; i < c.in_grads.size(); i++) c.in_grads[i] = g[i];
}

Memory memory_batch_norm(const void*, const Types& in, const Types&) {
  int64_t channels = in[0].shape.back().value(), rows = channels ? in[0].elements() / channels : 0;
  return {size_t(batch_norm_workspace(rows, channels)) * 4, 0};
}

Memory cuda_memory_batch_norm(const void*, const Types& in, const Types&) {
  int64_t channels = in[0].shape.back().value(), rows = channels ? in[0].elements() / channels : 0;
  return {size_t(batch_norm_device_workspace(rows, channels)) * 4, 0};
}

}  // namespace

void register_batch_norm(Registry& r) {
  Op f;
  f.name = "batch_norm";
  f.equation = "y = (x - mean) / sqrt(variance + epsilon) gamma + beta";
  f.attrs = prepared_attr_type<BatchNormAttrs>();
  f.min_inputs = 1;
  f.max_inputs = 3 + epilogue_operands;
  f.infer = infer_batch_norm;
  f.run = run_batch_norm;
  f.spaced = {~6u, 1};  // x, and what the epilogue takes; y
  f.grad = grad_batch_norm;
  f.residuals = 1;
  f.memory = memory_batch_norm;
  f.cuda_memory = cuda_memory_batch_norm;
  r.add(std::move(f));

  Op g;
  g.name = "batch_norm_grad";
  g.equation = "dx = gamma rstd (dy - mean(dy) - z mean(dy z)), z = (x - mean) rstd";
  g.min_inputs = 1;
  g.max_inputs = 5;
  g.infer = infer_batch_norm_grad;
  g.run = run_batch_norm_grad;
  g.spaced = {1 | 16, 1};  // x and dy; dx
  g.memory = memory_batch_norm;
  g.cuda_memory = cuda_memory_batch_norm;
  g.not_differentiable = "its second derivative is not available; compose the normalisation from ops.moments";
  r.add(std::move(g));
}

}  // namespace dagrt
