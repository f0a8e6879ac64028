// Pooling, channels last, float32; padding never wins a maximum and does not count in a mean.
//   max_pool2d: y[b,p,q,c] = max of x over the window; residual argmax: h W + w of the first maximum
//   avg_pool2d: y[b,p,q,c] = mean of x over the window's points inside the image
#include "kernels/pool2d.h"

#include "ir/lists.h"
#include "ops/registry.h"
#include "ops/window.h"

namespace dagrt {
namespace {

struct PoolAttrs : WindowAttrs {
  std::vector<int64_t> pool{1, 1};
  template <class V> void visit(V& v) {
    v("pool", pool);
    v("strides", strides);
    v("padding", padding);
    v("pads", pads, std::vector<int64_t>{0, 0, 0, 0});
  }
};
struct PoolGradAttrs : PoolAttrs {
  std::vector<Dim> input_size;
  template <class V> void visit(V& v) {
    PoolAttrs::visit(v);
    v("input_size", input_size);
  }
};

void check(const InferContext& c, const PoolAttrs& a, const TensorType& x) {
  check_window(c, a, {1, 1});
  if (a.pool.size() != 2 || a.pool[0] < 1 || a.pool[1] < 1) c.fail(ErrorKind::graph, "pool must be 2 numbers of at least 1");
  if (x.dtype != DType::float32) c.fail(ErrorKind::dtype, "expected float32, got ", name_of(x.dtype), "; cast to float32");
  if (x.rank() != 4) c.fail(ErrorKind::shape, "expected 4 axes, got ", text(x.shape));
  if (a.padding == "explicit")
    for (int i = 0; i < 4; i++)
      if (a.pads[size_t(i)] < 0 || a.pads[size_t(i)] >= a.pool[size_t(i / 2)])
        c.fail(ErrorKind::graph, "pads must be smaller than the window, got ", a.pads[size_t(i)]);
}

Types infer_pool(const InferContext& c) {
  const auto& a = c.attrs<PoolAttrs>();
  const TensorType& x = c.in[0];
  check(c, a, x);
  TensorType y{
      DType::float32,
      {x.shape[0], window_outputs(c, x.shape[1], a.pool[0], 0, a), window_outputs(c, x.shape[2], a.pool[1], 1, a), x.shape[3]}};
  if (c.op.residuals) return {y, {DType::int32, y.shape}};
  return {y};
}

Types infer_pool_grad(const InferContext& c) {
  const auto& a = c.attrs<PoolGradAttrs>();
  const TensorType& dy = c.in[0];
  check(c, a, dy);
  if (a.input_size.size() != 2) c.fail(ErrorKind::graph, "input_size must be 2 sizes: height and width");
  for (int axis = 0; axis < 2; axis++) {
    const Dim& n = a.input_size[size_t(axis)];
    if (!n.known() || !dy.shape[size_t(axis + 1)].known()) continue;
    Dim outputs = window_outputs(c, n, a.pool[size_t(axis)], axis, a);
    if (outputs != dy.shape[size_t(axis + 1)])
      c.fail(ErrorKind::shape, "dy must have ", outputs.text(), " positions on axis ", axis + 1, ", got ", text(dy.shape));
  }
  if (c.in.size() > 1 && (c.in[1].dtype != DType::int32 || c.in[1].shape != dy.shape))
    c.fail(ErrorKind::shape, "argmax must be int32 of dy's shape ", text(dy.shape), ", got ", c.in[1].text());
  return {{DType::float32, {dy.shape[0], a.input_size[0], a.input_size[1], dy.shape[3]}}};
}

PoolArgs sizes(const PoolAttrs& a, const View& x, const View& y) {
  PoolArgs k;
  k.B = x.dims[0], k.H = x.dims[1], k.W = x.dims[2], k.C = x.dims[3];
  k.P = y.dims[1], k.Q = y.dims[2];
  k.pool_h = a.pool[0], k.pool_w = a.pool[1];
  k.stride_h = a.strides[0], k.stride_w = a.strides[1];
  k.pad_top = window_pad(k.H, k.pool_h, 0, a);
  k.pad_left = window_pad(k.W, k.pool_w, 1, a);
  return k;
}

void run_pool(const RunContext& c) {
  PoolArgs k = sizes(c.attrs<PoolAttrs>(), c.in[0], c.out[0]);
  k.x = c.in[0].as<const float>();
  k.y = c.out[0].as<float>();
  k.ldx = c.in[0].ld, k.ldy = c.out[0].ld;
  if (c.outputs > 1) {
    k.argmax = c.out[1].as<int32_t>();
    max_pool2d(k, c.stream);
  } else {
    avg_pool2d(k, c.stream);
  }
}

void run_pool_grad(const RunContext& c) {
  PoolArgs k = sizes(c.attrs<PoolGradAttrs>(), c.out[0], c.in[0]);
  k.x = c.in[0].as<const float>();
  k.ldx = c.in[0].ld;
  k.dx = c.out[0].as<float>();
  k.lddx = c.out[0].ld;
  if (c.inputs > 1) {
    k.taken = c.in[1].as<const int32_t>();
    max_pool2d_grad(k, c.stream);
  } else {
    avg_pool2d_grad(k, c.stream);
  }
}

AttrMap attrs_of_grad(const PoolAttrs& a, const Dims& x) {
  return {{"pool", attr_list(a.pool)},
          {"strides", attr_list(a.strides)},
          {"padding", {a.padding}},
          {"pads", attr_list(a.pads)},
          {"input_size", {AttrList{{x[1]}, {x[2]}}}}};
}

void grad_max_pool(GradContext& c) {
  c.in_grads[0] = c.b.emit("max_pool2d_grad", {c.dout(), c.out(1)}, attrs_of_grad(c.attrs<PoolAttrs>(), c.in_type(0).shape));
}

void grad_avg_pool(GradContext& c) {
  c.in_grads[0] = c.b.emit("avg_pool2d_grad", {c.dout()}, attrs_of_grad(c.attrs<PoolAttrs>(), c.in_type(0).shape));
}

void grad_avg_pool_grad(GradContext& c) {  // linear in dy: its transpose is the pooling itself
  AttrMap a = attrs_of_grad(c.attrs<PoolGradAttrs>(), c.out_type(0).shape);
  a.erase("input_size");
  c.in_grads[0] = c.b.emit("avg_pool2d", {c.dout()}, a);
}

void grad_max_pool_grad(GradContext& c) {  // g at the place that each output took
  Builder& b = c.b;
  const Dims x = c.out_type(0).shape, y = c.in_type(0).shape;
  Dim image = x[1] * x[2], outputs = y[1] * y[2];
  ValueId g = b.reshape(c.dout(), {x[0], image, x[3]});
  ValueId places = b.reshape(c.in(1), {y[0], outputs, y[3]});
  ValueId taken = b.emit("take_along_axis", {g, places}, {{"axis", {int64_t(1)}}});
  c.in_grads[0] = b.reshape(taken, y);
}

}  // namespace

void register_pool2d(Registry& r) {
  Op m;
  m.name = "max_pool2d";
  m.equation = "y[b,p,q,c] = max of x over the window";
  m.attrs = attr_type<PoolAttrs>();
  m.infer = infer_pool;
  m.run = run_pool;
  m.spaced = {1, 1};  // the argmax is packed
  m.batched = [](const void*, const Types&, const Types&) { return 1u; };
  m.grad = grad_max_pool;
  m.residuals = 1;
  r.add(m);

  m.name = "avg_pool2d";
  m.equation = "y[b,p,q,c] = mean of x over the window inside the image";
  m.grad = grad_avg_pool;
  m.residuals = 0;
  r.add(m);

  Op g;
  g.name = "max_pool2d_grad";
  g.equation = "dx = dy at each window's argmax";
  g.attrs = attr_type<PoolGradAttrs>();
  g.min_inputs = g.max_inputs = 2;
  g.infer = infer_pool_grad;
  g.run = run_pool_grad;
  g.spaced = {1, 1};
  g.grad = grad_max_pool_grad;
  r.add(g);

  g.name = "avg_pool2d_grad";
  g.equation = "dx = dy / count, spread over each window";
  g.min_inputs = g.max_inputs = 1;
  g.grad = grad_avg_pool_grad;
  r.add(std::move(g));
}

}  // namespace dagrt
