// Convolution by Winograd's minimal filtering: stride 1, no dilation, no groups; float32. Emitted by passes, which put
//   conv2d(x, w)                  -> conv2d_winograd(x, winograd_weights(w))
//   conv2d_input_grad(dy, w)      -> conv2d_winograd(dy, winograd_weights(w, transpose)), pads R - 1 - pad on every side
//   conv2d_filter_grad(x, dy)     -> conv2d_filter_grad_winograd(x, dy)
// tile 4 (windows 3x3, 4x4 and 5x5) is the fast one, tile 2 (3x3) rounds less than the direct sum does, tile 7 (3x3, forward) is for
// maps of few pixels and many weights.
#include "kernels/winograd.h"

#include "ops/epilogue.h"
#include "ops/registry.h"
#include "ops/window.h"

namespace dagrt {
namespace {

struct WeightsAttrs {
  int64_t tile = 4;
  bool transpose = false;
  template <class V> void visit(V& v) {
    v("tile", tile, int64_t(4));
    v("transpose", transpose, false);
  }
};
struct WinogradAttrs : WindowAttrs {
  std::vector<int64_t> kernel_size;
  int64_t tile = 4;
  template <class V> void visit(V& v) {
    v("kernel_size", kernel_size);
    v("tile", tile, int64_t(4));
    v("padding", padding);
    v("pads", pads, std::vector<int64_t>{0, 0, 0, 0});
  }
};
struct ForwardAttrs : WinogradAttrs, PooledAttrs, EpilogueAttrs {
  int64_t filters = 0;
  std::vector<int64_t> upsample{1, 1};  // each pixel of x stands for so many rows and columns of pixels
  template <class V> void visit(V& v) {
    WinogradAttrs::visit(v);
    v("filters", filters);
    v("upsample", upsample, std::vector<int64_t>{1, 1});
    visit_pool(v);
    visit_epilogue(v);
  }
};

void check_transform(const InferContext& c, int64_t height, int64_t width, int64_t tile) {
  if (!winograd_applies(height, width, tile))
    c.fail(ErrorKind::graph, "there are transforms for 3x3 windows with tile 4, 2 or 7 and for 4x4 and 5x5 with tile 4, not for ",
           height, "x", width, " with tile ", tile, "; use conv2d");
}

void check_tensor(const InferContext& c, const TensorType& t, size_t rank) {
  if (t.dtype != DType::float32) c.fail(ErrorKind::dtype, "expected float32, got ", name_of(t.dtype), "; cast to float32");
  if (size_t(t.rank()) != rank) c.fail(ErrorKind::shape, "expected ", rank, " axes, got ", text(t.shape));
}

int64_t number(const InferContext& c, const Dim& d, const char* what) {
  if (!d.known()) c.fail(ErrorKind::shape, what, " must be known, got ", d.text());
  return d.value();
}

void check_attrs(const InferContext& c, const WinogradAttrs& a) {
  check_window(c, a, {1, 1});
  if (a.kernel_size.size() != 2) c.fail(ErrorKind::graph, "kernel_size must be 2 numbers: height and width");
  check_transform(c, a.kernel_size[0], a.kernel_size[1], a.tile);
}

Types infer_weights(const InferContext& c) {
  const auto& a = c.attrs<WeightsAttrs>();
  const TensorType& w = c.in[0];
  check_tensor(c, w, 4);
  int64_t n[4];
  for (size_t i = 0; i < 4; i++) n[i] = number(c, w.shape[i], "the sizes of the weights");
  check_transform(c, n[0], n[1], a.tile);
  return {{DType::float32, {winograd_weights_size(n[a.transpose ? 3 : 2], n[a.transpose ? 2 : 3], n[0], a.tile)}}};
}

Types infer_forward(const InferContext& c) {
  const auto& a = c.attrs<ForwardAttrs>();
  check_attrs(c, a);
  const TensorType &x = c.in[0], &u = c.in[1];
  check_tensor(c, x, 4);
  check_tensor(c, u, 1);
  if (a.upsample.size() != 2 || a.upsample[0] < 1 || a.upsample[1] < 1)
    c.fail(ErrorKind::graph, "upsample must be 2 numbers of at least 1: rows and columns");
  const Dim height = x.shape[1] * Dim(a.upsample[0]), width = x.shape[2] * Dim(a.upsample[1]);
  int64_t channels = number(c, x.shape[3], "the channels");
  int64_t floats = winograd_weights_size(channels, a.filters, a.kernel_size[0], a.tile);
  if (a.filters < 0 || (u.shape[0].known() && u.shape[0].value() != floats))
    c.fail(ErrorKind::shape, "expected winograd_weights of ", channels, " channels and ", a.filters, " filters, ", floats,
           " numbers, got ", text(u.shape));
  if (a.tile == 7 && a.pool != std::vector<int64_t>{1, 1}) c.fail(ErrorKind::graph, "tile 7 does not pool; use max_pool2d");
  TensorType y{DType::float32,
               {x.shape[0], window_outputs(c, height, a.kernel_size[0], 0, a), window_outputs(c, width, a.kernel_size[1], 1, a),
                Dim(a.filters)}};
  check_epilogue(c, a, 2, y);
  return {pooled(c, a, a, 2, y)};
}

Types infer_filter_grad(const InferContext& c) {
  const auto& a = c.attrs<WinogradAttrs>();
  check_attrs(c, a);
  if (a.tile == 7) c.fail(ErrorKind::graph, "tile 7 is for the forward pass; use tile 4");
  const TensorType &x = c.in[0], &dy = c.in[1];
  check_tensor(c, x, 4);
  check_tensor(c, dy, 4);
  const Dim want[3] = {x.shape[0], window_outputs(c, x.shape[1], a.kernel_size[0], 0, a),
                       window_outputs(c, x.shape[2], a.kernel_size[1], 1, a)};
  for (size_t i = 0; i < 3; i++)
    if (want[i].known() && dy.shape[i].known() && want[i] != dy.shape[i])
      c.fail(ErrorKind::shape, "dy must have the shape of a convolution of x, ", want[i].text(), " along axis ", i, ", got ",
             text(dy.shape));
  return {{DType::float32, {a.kernel_size[0], a.kernel_size[1], x.shape[3], dy.shape[3]}}};
}

WinogradArgs sizes(const WinogradAttrs& a, const int64_t* x, const int64_t* y, const ForwardAttrs* forward = nullptr) {
  WinogradArgs k;
  if (forward) k.up_h = forward->upsample[0], k.up_w = forward->upsample[1], k.pool = forward->pool[0];
  k.B = x[0], k.H = x[1] * k.up_h, k.W = x[2] * k.up_w, k.C = x[3];
  k.P = y[1] * k.pool, k.Q = y[2] * k.pool, k.F = y[3];
  k.ldx = k.C, k.ldy = k.F;
  k.window = int(a.kernel_size[0]);
  k.tile = int(a.tile);
  k.pad_top = window_pad(k.H, k.window, 0, a);
  k.pad_left = window_pad(k.W, k.window, 1, a);
  return k;
}

WinogradArgs sizes(const WinogradAttrs& a, const TensorType& x, const TensorType& y, const ForwardAttrs* forward = nullptr) {
  int64_t d[2][4];
  for (size_t i = 0; i < 4; i++) d[0][i] = x.shape[i].value(), d[1][i] = y.shape[i].value();
  return sizes(a, d[0], d[1], forward);
}

WinogradWeightsArgs weights_sizes(const WeightsAttrs& a, int64_t window, int64_t channels, int64_t filters) {
  WinogradWeightsArgs k;
  k.C = channels, k.F = filters;
  k.window = int(window), k.tile = int(a.tile);
  k.transpose = a.transpose;
  return k;
}

void run_weights(const RunContext& c) {
  const View& w = c.in[0];
  WinogradWeightsArgs k = weights_sizes(c.attrs<WeightsAttrs>(), w.dims[0], w.dims[2], w.dims[3]);
  k.w = w.as<const float>();
  k.u = c.out[0].as<float>();
  winograd_weights(k, c.stream);
}

WinogradArgs arguments(const RunContext& c, const WinogradAttrs& a, const View& x, const View& y,
                       const ForwardAttrs* forward = nullptr) {
  WinogradArgs k = sizes(a, x.dims, y.dims, forward);
  k.x = x.as<const float>();
  k.y = y.as<float>();
  k.ldx = x.ld, k.ldy = y.ld;
  k.workspace = static_cast<char*>(c.workspace);
  return k;
}

void run_forward(const RunContext& c) {
  const auto& a = c.attrs<ForwardAttrs>();
  WinogradArgs k = arguments(c, a, c.in[0], c.out[0], &a);
  k.epilogue = read_epilogue(c, a, 2);
  k.u = c.in[1].as<const float>();
  conv2d_winograd(k, c.stream);
}

void run_filter_grad(const RunContext& c) {
  WinogradArgs k = arguments(c, c.attrs<WinogradAttrs>(), c.in[0], c.in[1]);
  k.dw = c.out[0].as<float>();
  conv2d_filter_grad_winograd(k, c.stream);
}

/// Flops of the direct sum: what a convolution is said to take, whatever its algorithm.
Cost cost(const WinogradArgs& k, double weights) {
  double products = double(k.B * k.P * k.Q) * double(k.window * k.window) * double(k.C) * double(k.F);
  const double pixels = double(k.B * (k.H / k.up_h) * (k.W / k.up_w));
  return {2 * products, 4 * (pixels * double(k.C) + double(k.B * k.P * k.Q) * double(k.F) + weights)};
}

}  // namespace

void register_winograd(Registry& r) {
  const char* advice = "it is made after gradients; differentiate conv2d";
  Op w;
  w.name = "winograd_weights";
  w.equation = "u = G w G' for every channel and filter, in the order that conv2d_winograd reads";
  w.cpu_algorithm_of = "conv2d";
  w.attrs = attr_type<WeightsAttrs>();
  w.infer = infer_weights;
  w.run = run_weights;
  w.cost = [](const void*, const Types& in, const Types& out) {
    return Cost{6 * double(out[0].elements()), double(in[0].bytes() + out[0].bytes())};
  };
  w.not_differentiable = advice;
  r.add(std::move(w));

  Op f;
  f.name = "conv2d_winograd";
  f.equation = "conv2d of stride 1 from winograd_weights: y = A' [sum_c u . (B' x B)] A for each tile of outputs";
  f.cpu_algorithm_of = "conv2d";
  f.attrs = prepared_attr_type<ForwardAttrs>();
  f.min_inputs = 2, f.max_inputs = 2 + epilogue_operands;
  f.infer = infer_forward;
  f.run = run_forward;
  f.spaced = {~2u, 1};  // all but the weights
  f.not_differentiable = advice;
  f.pools = [](const void* a, const Types& in, const Types&) {
    const auto& attrs = *static_cast<const ForwardAttrs*>(a);
    return attrs.tile != 7 && may_pool(attrs, 2, in);
  };
  f.cost = [](const void* a, const Types& in, const Types& out) {
    const auto& attrs = *static_cast<const ForwardAttrs*>(a);
    return with_epilogue(cost(sizes(attrs, in[0], out[0], &attrs), double(in[1].bytes()) / 4), attrs, 2, in, out[0]);
  };
  f.memory = [](const void* a, const Types& in, const Types& out) {
    const auto& attrs = *static_cast<const ForwardAttrs*>(a);
    WinogradMemory m = conv2d_winograd_memory(sizes(attrs, in[0], out[0], &attrs));
    return Memory{m.workspace, m.scratch};
  };
  r.add(std::move(f));

  Op g;
  g.name = "conv2d_filter_grad_winograd";
  g.equation = "conv2d_filter_grad of stride 1: dw = G' [sum over tiles (B' x B) . (A dy A')] G";
  g.cpu_algorithm_of = "conv2d_filter_grad";
  g.attrs = attr_type<WinogradAttrs>();
  g.min_inputs = g.max_inputs = 2;
  g.infer = infer_filter_grad;
  g.run = run_filter_grad;
  g.spaced = {3, 0};
  g.not_differentiable = advice;
  g.cost = [](const void* a, const Types& in, const Types& out) {
    return cost(sizes(*static_cast<const WinogradAttrs*>(a), in[0], in[1]), double(out[0].bytes()) / 4);
  };
  g.memory = [](const void* a, const Types& in, const Types&) {
    WinogradMemory m = conv2d_filter_grad_winograd_memory(sizes(*static_cast<const WinogradAttrs*>(a), in[0], in[1]));
    return Memory{m.workspace, m.scratch};
  };
  r.add(std::move(g));
}

}  // namespace dagrt
