// Convolution (cross-correlation), channels last, and its gradients; float32.
//   conv2d:             y[b,p,q,f] = sum_{r,s,c} x[b, p sh + r dh - top, q sw + s dw - left, c] w[r,s,c,f]
//   conv2d_input_grad:  dx from dy, w: the sum over the same triples. Conv2DTranspose's forward
//   conv2d_filter_grad: dw from x, dy
// Each is linear in both inputs, so the gradients of the three are the three again.
//   pack_conv2d:        w in the order in which conv2d reads it, so that it is made once where weights do not change;
//                       with `transpose`, that of the input gradient's convolution (strides 1)
//   conv2d_packed:      conv2d of such weights
#include "kernels/bf16.h"

#include "ir/lists.h"
#include "kernels/gemm_splits.h"
#include "ops/epilogue.h"
#include "ops/registry.h"
#include "ops/window.h"

namespace dagrt {
namespace {

struct ConvAttrs : WindowAttrs {
  std::vector<int64_t> dilations{1, 1};
  int64_t groups = 1;
  template <class V> void visit(V& v) {
    v("strides", strides);
    v("dilations", dilations, std::vector<int64_t>{1, 1});
    v("groups", groups, int64_t(1));
    v("padding", padding);
    v("pads", pads, std::vector<int64_t>{0, 0, 0, 0});
  }
};
struct ForwardAttrs : ConvAttrs, EpilogueAttrs {
  template <class V> void visit(V& v) {
    ConvAttrs::visit(v);
    visit_epilogue(v);
  }
};
struct PackedAttrs : ConvAttrs, PooledAttrs, EpilogueAttrs {
  std::vector<int64_t> kernel_size;
  int64_t filters = 0;
  template <class V> void visit(V& v) {
    ConvAttrs::visit(v);
    v("kernel_size", kernel_size);
    v("filters", filters);
    visit_pool(v);
    visit_epilogue(v);
  }
};
struct PackAttrs {
  int64_t groups = 1;
  bool transpose = false;
  template <class V> void visit(V& v) {
    v("groups", groups, int64_t(1));
    v("transpose", transpose, false);
  }
};
struct InputGradAttrs : ConvAttrs, EpilogueAttrs {
  std::vector<Dim> input_size;
  template <class V> void visit(V& v) {
    ConvAttrs::visit(v);
    v("input_size", input_size);
    visit_epilogue(v);
  }
};
struct FilterGradAttrs : ConvAttrs {
  std::vector<int64_t> kernel_size;
  template <class V> void visit(V& v) {
    ConvAttrs::visit(v);
    v("kernel_size", kernel_size);
  }
};
/// The same of bfloat16, whose result is of `dtype`.
template <class A> struct Bf16 : A {
  DType dtype = DType::float32;
  template <class V> void visit(V& v) {
    v("dtype", dtype);
    A::visit(v);
  }
};

void check_types(const InferContext& c, const ConvAttrs& a, std::initializer_list<const TensorType*> tensors,
                 DType wanted = DType::float32) {
  check_window(c, a, a.dilations);
  if (a.groups < 1) c.fail(ErrorKind::graph, "groups must be at least 1, got ", a.groups);
  for (const TensorType* t : tensors) {
    if (t->dtype != wanted)
      c.fail(ErrorKind::dtype, "expected ", name_of(wanted), ", got ", name_of(t->dtype), "; cast to ", name_of(wanted));
    if (t->rank() != 4) c.fail(ErrorKind::shape, "expected 4 axes, got ", text(t->shape));
  }
}

void must_agree(const InferContext& c, const Dim& a, const Dim& b, const char* what) {
  if (a.known() && b.known() && a != b) c.fail(ErrorKind::shape, what, " must agree, got ", a.text(), " and ", b.text());
}

int64_t number(const InferContext& c, const Dim& d, const char* what) {
  if (!d.known()) c.fail(ErrorKind::shape, what, " must be known, got ", d.text());
  return d.value();
}

int64_t reach(int64_t window, int64_t dilation) { return (window - 1) * dilation + 1; }

void check_weights(const InferContext& c, const ConvAttrs& a, const TensorType& w, const Dim& channels) {
  if (w.shape[3].known() && w.shape[3].value() % a.groups)
    c.fail(ErrorKind::shape, "groups (", a.groups, ") must divide the filters (", w.shape[3].text(), ")");
  if (channels.known() && w.shape[2].known() && channels.value() != w.shape[2].value() * a.groups)
    c.fail(ErrorKind::shape, "the image has ", channels.text(), " channels, the weights ", text(w.shape), " take ",
           w.shape[2].value() * a.groups);
}

// What the three write, for operands of `wanted`: of float32.
TensorType type_of(const InferContext& c, const ForwardAttrs& a, DType wanted) {
  const TensorType &x = c.in[0], &w = c.in[1];
  check_types(c, a, {&x, &w}, wanted);
  check_weights(c, a, w, x.shape[3]);
  int64_t r = number(c, w.shape[0], "the window's height"), s = number(c, w.shape[1], "the window's width");
  if (r < 1 || s < 1) c.fail(ErrorKind::shape, "the window must have at least one point, got ", text(w.shape));
  TensorType y{DType::float32,
               {x.shape[0], window_outputs(c, x.shape[1], reach(r, a.dilations[0]), 0, a),
                window_outputs(c, x.shape[2], reach(s, a.dilations[1]), 1, a), w.shape[3]}};
  check_epilogue(c, a, 2, y);
  return y;
}

TensorType type_of(const InferContext& c, const InputGradAttrs& a, DType wanted) {
  const TensorType &dy = c.in[0], &w = c.in[1];
  check_types(c, a, {&dy, &w}, wanted);
  if (a.input_size.size() != 2) c.fail(ErrorKind::graph, "input_size must be 2 sizes: height and width");
  must_agree(c, dy.shape[3], w.shape[3], "the filters of dy and of the weights");
  int64_t window[2] = {number(c, w.shape[0], "the window's height"), number(c, w.shape[1], "the window's width")};
  for (int axis = 0; axis < 2; axis++)
    if (a.input_size[size_t(axis)].known())
      must_agree(c, dy.shape[size_t(axis + 1)],
                 window_outputs(c, a.input_size[size_t(axis)], reach(window[axis], a.dilations[size_t(axis)]), axis, a),
                 "the size of dy and the outputs of a convolution of input_size");
  TensorType dx{DType::float32, {dy.shape[0], a.input_size[0], a.input_size[1], w.shape[2] * Dim(a.groups)}};
  check_epilogue(c, a, 2, dx);
  return dx;
}

TensorType type_of(const InferContext& c, const FilterGradAttrs& a, DType wanted) {
  const TensorType &x = c.in[0], &dy = c.in[1];
  check_types(c, a, {&x, &dy}, wanted);
  if (a.kernel_size.size() != 2) c.fail(ErrorKind::graph, "kernel_size must be 2 numbers: height and width");
  must_agree(c, x.shape[0], dy.shape[0], "the batches of x and dy");
  for (int axis = 0; axis < 2; axis++)
    must_agree(
        c, dy.shape[size_t(axis + 1)],
        window_outputs(c, x.shape[size_t(axis + 1)], reach(a.kernel_size[size_t(axis)], a.dilations[size_t(axis)]), axis, a),
        "the size of dy and the outputs of a convolution of x");
  return {DType::float32, {a.kernel_size[0], a.kernel_size[1], floor_div(x.shape[3], Dim(a.groups)), dy.shape[3]}};
}

template <class A> Types infer_float(const InferContext& c) { return {type_of(c, c.attrs<A>(), DType::float32)}; }

/// Lines of each group are whole pieces of 16 bytes.
template <class A> bool admits_bf16(const void* attrs, const Types& in) {
  const int64_t lines = bf16_line * static_cast<const Bf16<A>*>(attrs)->groups;
  return in[0].shape.back().value() % lines == 0 && in[1].shape.back().value() % lines == 0;
}

template <class A> Types infer_bf16(const InferContext& c) {
  const auto& a = c.attrs<Bf16<A>>();
  if (a.dtype != DType::float32 && a.dtype != DType::bfloat16)
    c.fail(ErrorKind::dtype, "dtype must be float32 or bfloat16, got ", name_of(a.dtype));
  TensorType t = type_of(c, a, DType::bfloat16);
  if (!c.in[0].known() || !c.in[1].known() || !admits_bf16<A>(&a, c.in))
    c.fail(ErrorKind::shape, "last axes of each group must be multiples of ", bf16_line, ", got ", text(c.in[0].shape), " and ",
           text(c.in[1].shape), " with groups ", a.groups, "; use ", c.op.cuda_algorithm_of, " of float32");
  if constexpr (std::is_base_of_v<EpilogueAttrs, A>) check_narrow_epilogue(c, a, a.dtype);
  t.dtype = a.dtype;
  return {t};
}

PackConvArgs pack_sizes(const PackAttrs& a, const int64_t* w) {
  PackConvArgs k;
  k.R = w[0], k.S = w[1], k.C = w[2] * a.groups, k.F = w[3];
  k.groups = a.groups;
  k.transpose = a.transpose;
  return k;
}

Types infer_pack(const InferContext& c) {
  const auto& a = c.attrs<PackAttrs>();
  const TensorType& w = c.in[0];
  check_types(c, ConvAttrs{}, {&w});
  if (a.groups < 1) c.fail(ErrorKind::graph, "groups must be at least 1, got ", a.groups);
  int64_t d[4];
  for (size_t i = 0; i < 4; i++) d[i] = number(c, w.shape[i], "every size of the weights");
  if (d[3] % a.groups) c.fail(ErrorKind::shape, "groups (", a.groups, ") must divide the filters (", d[3], ")");
  return {{DType::float32, {conv2d_panel_floats(pack_sizes(a, d))}}};
}

Types infer_packed(const InferContext& c) {
  const auto& a = c.attrs<PackedAttrs>();
  const TensorType &x = c.in[0], &panels = c.in[1];
  check_types(c, a, {&x});
  if (a.kernel_size.size() != 2 || a.kernel_size[0] < 1 || a.kernel_size[1] < 1)
    c.fail(ErrorKind::graph, "kernel_size must be 2 numbers of at least 1: height and width");
  int64_t channels = number(c, x.shape[3], "the image's channels");
  if (a.filters < 0 || a.filters % a.groups || channels % a.groups)
    c.fail(ErrorKind::shape, "groups (", a.groups, ") must divide the channels (", channels, ") and the filters (", a.filters,
           ")");
  const int64_t w[4] = {a.kernel_size[0], a.kernel_size[1], channels / a.groups, a.filters};
  PackAttrs pack;
  pack.groups = a.groups;
  int64_t floats = conv2d_panel_floats(pack_sizes(pack, w));
  if (panels.dtype != DType::float32 || panels.rank() != 1 || (panels.shape[0].known() && !panels.shape[0].is(floats)))
    c.fail(ErrorKind::shape, "expected float32 panels of pack_conv2d, (", floats, ",), got ", panels.text());
  TensorType y{DType::float32,
               {x.shape[0], window_outputs(c, x.shape[1], reach(w[0], a.dilations[0]), 0, a),
                window_outputs(c, x.shape[2], reach(w[1], a.dilations[1]), 1, a), a.filters}};
  check_epilogue(c, a, 2, y);
  return {pooled(c, a, a, 2, y)};
}

ConvArgs sizes(const ConvAttrs& a, const int64_t* x, const int64_t* w, const int64_t* y, int64_t pool = 1) {
  ConvArgs k;
  k.pool = pool;
  k.B = x[0], k.H = x[1], k.W = x[2], k.C = x[3];
  k.P = y[1] * pool, k.Q = y[2] * pool, k.F = y[3];
  k.R = w[0], k.S = w[1];
  k.ldx = k.C, k.ldy = k.F;
  k.stride_h = a.strides[0], k.stride_w = a.strides[1];
  k.dilation_h = a.dilations[0], k.dilation_w = a.dilations[1];
  k.groups = a.groups;
  k.pad_top = window_pad(k.H, reach(k.R, k.dilation_h), 0, a);
  k.pad_left = window_pad(k.W, reach(k.S, k.dilation_w), 1, a);
  return k;
}

ConvArgs arguments(const RunContext& c, const ConvAttrs& a, const View& x, const View& w, const View& y) {
  ConvArgs k = sizes(a, x.dims, w.dims, y.dims);
  k.x = x.as<float>(), k.w = w.as<float>(), k.y = y.as<float>();  // of float32
  k.ldx = x.ld, k.ldy = y.ld;
  k.workspace = static_cast<char*>(c.workspace);
  return k;
}

void run_conv2d(const RunContext& c) {
  const auto& a = c.attrs<ForwardAttrs>();
  ConvArgs k = arguments(c, a, c.in[0], c.in[1], c.out[0]);
  k.epilogue = read_epilogue(c, a, 2);
  conv2d(k, c.stream);
}
void run_packed(const RunContext& c) {
  const auto& a = c.attrs<PackedAttrs>();
  const View &x = c.in[0], &y = c.out[0];
  const int64_t w[2] = {a.kernel_size[0], a.kernel_size[1]};
  ConvArgs k = sizes(a, x.dims, w, y.dims, a.pool[0]);
  k.x = x.as<float>(), k.panels = c.in[1].as<const float>(), k.y = y.as<float>();
  k.ldx = x.ld, k.ldy = y.ld;
  k.workspace = static_cast<char*>(c.workspace);
  k.epilogue = read_epilogue(c, a, 2);
  conv2d(k, c.stream);
}
void run_pack(const RunContext& c) {
  PackConvArgs k = pack_sizes(c.attrs<PackAttrs>(), c.in[0].dims);
  k.w = c.in[0].as<const float>(), k.panels = c.out[0].as<float>();
  pack_conv2d(k, c.stream);
}
void run_input_grad(const RunContext& c) {
  const auto& a = c.attrs<InputGradAttrs>();
  ConvArgs k = arguments(c, a, c.out[0], c.in[1], c.in[0]);
  k.epilogue = read_epilogue(c, a, 2);
  conv2d_input_grad(k, c.stream);
}
void run_filter_grad(const RunContext& c) {
  conv2d_filter_grad(arguments(c, c.attrs<FilterGradAttrs>(), c.in[0], c.out[0], c.in[1]), c.stream);
}

ConvBf16Args bf16_arguments(const RunContext& c, const ConvArgs& rest, DType result) {
  ConvBf16Args b;
  b.rest = rest;
  b.to = c.out[0].data;
  b.narrow = result == DType::bfloat16;
  return b;
}
void run_conv2d_bf16(const RunContext& c) {
  const auto& a = c.attrs<Bf16<ForwardAttrs>>();
  ConvBf16Args b = bf16_arguments(c, arguments(c, a, c.in[0], c.in[1], c.out[0]), a.dtype);
  b.rest.epilogue = read_epilogue(c, a, 2);
  b.x = c.in[0].as<const uint16_t>(), b.w = c.in[1].as<const uint16_t>();
  conv2d_bf16(b, c.stream);
}
void run_input_grad_bf16(const RunContext& c) {
  const auto& a = c.attrs<Bf16<InputGradAttrs>>();
  ConvBf16Args b = bf16_arguments(c, arguments(c, a, c.out[0], c.in[1], c.in[0]), a.dtype);
  b.rest.epilogue = read_epilogue(c, a, 2);
  b.y = c.in[0].as<const uint16_t>(), b.w = c.in[1].as<const uint16_t>();
  conv2d_input_grad_bf16(b, c.stream);
}
void run_filter_grad_bf16(const RunContext& c) {
  const auto& a = c.attrs<Bf16<FilterGradAttrs>>();
  ConvBf16Args b = bf16_arguments(c, arguments(c, a, c.in[0], c.out[0], c.in[1]), a.dtype);
  b.x = c.in[0].as<const uint16_t>(), b.y = c.in[1].as<const uint16_t>();
  conv2d_filter_grad_bf16(b, c.stream);
}

AttrMap window_attrs(const ConvAttrs& a) {
  return {{"strides", attr_list(a.strides)},
          {"dilations", attr_list(a.dilations)},
          {"groups", {a.groups}},
          {"padding", {a.padding}},
          {"pads", attr_list(a.pads)}};
}

AttrValue pair(const Dim& a, const Dim& b) { return {AttrList{{a}, {b}}}; }

ValueId convolve(Builder& b, const ConvAttrs& a, ValueId x, ValueId w) { return b.emit("conv2d", {x, w}, window_attrs(a)); }
ValueId to_input(Builder& b, const ConvAttrs& a, ValueId dy, ValueId w, const Dims& x) {
  AttrMap m = window_attrs(a);
  m["input_size"] = pair(x[1], x[2]);
  return b.emit("conv2d_input_grad", {dy, w}, m);
}
ValueId to_filter(Builder& b, const ConvAttrs& a, ValueId x, ValueId dy, const Dims& w) {
  AttrMap m = window_attrs(a);
  m["kernel_size"] = {AttrList{{w[0].value()}, {w[1].value()}}};
  return b.emit("conv2d_filter_grad", {x, dy}, m);
}

void grad_conv2d(GradContext& c) {
  no_epilogue(c, c.attrs<ForwardAttrs>());
  const ConvAttrs a = c.attrs<ForwardAttrs>();
  const Dims x = c.in_type(0).shape, w = c.in_type(1).shape;
  if (c.wanted[0]) c.in_grads[0] = to_input(c.b, a, c.dout(), c.in(1), x);
  if (c.wanted[1]) c.in_grads[1] = to_filter(c.b, a, c.in(0), c.dout(), w);
}

void grad_input_grad(GradContext& c) {
  no_epilogue(c, c.attrs<InputGradAttrs>());
  const ConvAttrs a = c.attrs<InputGradAttrs>();
  const Dims w = c.in_type(1).shape;
  if (c.wanted[0]) c.in_grads[0] = convolve(c.b, a, c.dout(), c.in(1));
  if (c.wanted[1]) c.in_grads[1] = to_filter(c.b, a, c.dout(), c.in(0), w);
}

void grad_filter_grad(GradContext& c) {
  const ConvAttrs a = c.attrs<FilterGradAttrs>();
  const Dims x = c.in_type(0).shape;
  if (c.wanted[0]) c.in_grads[0] = to_input(c.b, a, c.in(1), c.dout(), x);
  if (c.wanted[1]) c.in_grads[1] = convolve(c.b, a, c.in(0), c.dout());
}

ConvArgs sizes(const ConvAttrs& a, const TensorType& x, const TensorType& w, const TensorType& y, int64_t pool = 1) {
  int64_t d[3][4];
  const TensorType* t[3] = {&x, &w, &y};
  for (int i = 0; i < 3; i++)
    for (int k = 0; k < 4; k++) d[i][k] = t[i]->shape[size_t(k)].value();
  return sizes(a, d[0], d[1], d[2], pool);
}

ConvArgs packed_sizes(const PackedAttrs& a, const Types& in, const Types& out) {
  TensorType w{DType::float32, {a.kernel_size[0], a.kernel_size[1], floor_div(in[0].shape[3], Dim(a.groups)), Dim(a.filters)}};
  ConvArgs k = sizes(a, in[0], w, out[0], a.pool[0]);
  static const float packed = 0;
  k.panels = &packed;  // memory: nothing is packed
  return k;
}

Cost cost(const ConvArgs& k) {
  double products = double(k.B * k.P * k.Q) * double(k.R * k.S) * double(k.C / k.groups) * double(k.F);
  double elements = double(k.B * k.H * k.W * k.C) + double(k.B * k.P * k.Q * k.F) + double(k.R * k.S * (k.C / k.groups) * k.F);
  return {2 * products, 4 * elements};
}

template <class A> const ConvAttrs& attrs_as(const void* p) { return *static_cast<const A*>(p); }

Memory bytes(const ConvMemory& m) { return {m.workspace, m.scratch}; }

// On CUDA devices each is a product for every group: partial sums, where there are any.
/// Their pixels are counted in 31 bits there.
void check_pixels(const ConvArgs& k) {
  for (int64_t pixels : {k.B * k.H * k.W, k.B * k.P * k.Q})
    if (pixels > INT32_MAX)
      fail(ErrorKind::shape, "a CUDA device convolves at most ", INT32_MAX, " pixels at once, got ", pixels,
           "; use a smaller batch");
}
// `element`: bytes of the operands'.
Memory cuda_forward(const ConvArgs& k, int64_t element) {
  check_pixels(k);
  return {gemm_workspace(k.groups, k.B * k.P * k.Q, k.F / k.groups, k.R * k.S * (k.C / k.groups), element), 0};
}
Memory cuda_input_grad(const ConvArgs& k, int64_t element) {
  check_pixels(k);
  const int64_t c = k.C / k.groups;
  const StridedSplits cut(k.groups, k.B, k.H, k.W, k.R, k.S, k.stride_h, k.stride_w, c, k.F / k.groups, element);
  return {gemm_parts_bytes(cut.splits, cut.M, c), 0};
}
Memory cuda_filter_grad(const ConvArgs& k, int64_t element) {
  check_pixels(k);
  if (k.groups > 1 && k.groups == k.C) return {size_t(depthwise_parts(k.F) * k.R * k.S * k.F) * 4, 0};
  return {gemm_workspace(k.groups, k.R * k.S * (k.C / k.groups), k.F / k.groups, k.B * k.P * k.Q, element), 0};
}

/// What the three of bfloat16 have in common.
template <class A> Op bf16_op(const char* of, void (*run)(const RunContext&)) {
  Op o;
  o.name = std::string(of) + "_bf16";
  o.equation = std::string(of) + " of bfloat16 by tensor cores";
  o.cuda_algorithm_of = of;
  o.min_inputs = o.max_inputs = 2;
  o.infer = infer_bf16<A>;
  o.run = run;
  o.admits = admits_bf16<A>;
  o.not_differentiable = "it is made by passes after gradients are expanded; write the op of float32";
  return o;
}
Cost bf16_cost(Cost c, const Types& in, const TensorType& out) {
  c.bytes = double(in[0].bytes() + in[1].bytes() + out.bytes());
  return c;
}

}  // namespace

void register_conv2d(Registry& r) {
  Op forward;
  forward.name = "conv2d";
  forward.equation = "y[b,p,q,f] = sum_{r,s,c} x[b, p sh + r dh - top, q sw + s dw - left, c] w[r,s,c,f]";
  forward.attrs = prepared_attr_type<ForwardAttrs>();
  forward.min_inputs = 2, forward.max_inputs = 2 + epilogue_operands;
  forward.infer = infer_float<ForwardAttrs>;
  forward.run = run_conv2d;
  forward.spaced = {~2u, 1};  // all but the weights
  forward.batched = [](const void*, const Types& in, const Types&) { return uint32_t(in.size() == 2); };
  forward.grad = grad_conv2d;
  forward.cost = [](const void* a, const Types& in, const Types& out) {
    const auto& attrs = *static_cast<const ForwardAttrs*>(a);
    return with_epilogue(cost(sizes(attrs, in[0], in[1], out[0])), attrs, 2, in, out[0]);
  };
  forward.memory = [](const void* a, const Types& in, const Types& out) {
    return bytes(conv2d_memory(sizes(attrs_as<ForwardAttrs>(a), in[0], in[1], out[0])));
  };
  forward.cuda_memory = [](const void* a, const Types& in, const Types& out) {
    return cuda_forward(sizes(attrs_as<ForwardAttrs>(a), in[0], in[1], out[0]), 4);
  };
  r.add(std::move(forward));

  const char* advice = "it is made by passes after gradients are expanded; write conv2d";
  Op pack;
  pack.name = "pack_conv2d";
  pack.equation = "conv2d's weights in the order in which its kernel reads them";
  pack.cpu_algorithm_of = "conv2d";
  pack.attrs = attr_type<PackAttrs>();
  pack.infer = infer_pack;
  pack.run = run_pack;
  pack.not_differentiable = advice;
  r.add(std::move(pack));

  Op packed;
  packed.name = "conv2d_packed";
  packed.equation = "conv2d of weights packed by pack_conv2d";
  packed.cpu_algorithm_of = "conv2d";
  packed.attrs = prepared_attr_type<PackedAttrs>();
  packed.min_inputs = 2, packed.max_inputs = 2 + epilogue_operands;
  packed.infer = infer_packed;
  packed.run = run_packed;
  packed.spaced = {~2u, 1};
  packed.not_differentiable = advice;
  packed.pools = [](const void* a, const Types& in, const Types& out) {
    const auto& attrs = *static_cast<const PackedAttrs*>(a);
    return may_pool(attrs, 2, in) && conv2d_pools(packed_sizes(attrs, in, out));
  };
  packed.cost = [](const void* a, const Types& in, const Types& out) {
    const auto& attrs = *static_cast<const PackedAttrs*>(a);
    return with_epilogue(cost(packed_sizes(attrs, in, out)), attrs, 2, in, out[0]);
  };
  packed.memory = [](const void* a, const Types& in, const Types& out) {
    return bytes(conv2d_memory(packed_sizes(*static_cast<const PackedAttrs*>(a), in, out)));
  };
  r.add(std::move(packed));

  Op input;
  input.name = "conv2d_input_grad";
  input.equation = "dx[b,h,w,c] = sum of dy[b,p,q,f] w[r,s,c,f] over conv2d's triples";
  input.attrs = prepared_attr_type<InputGradAttrs>();
  input.min_inputs = 2, input.max_inputs = 2 + epilogue_operands;
  input.infer = infer_float<InputGradAttrs>;
  input.run = run_input_grad;
  input.spaced = {~2u, 1};
  input.grad = grad_input_grad;
  input.cost = [](const void* a, const Types& in, const Types& out) {
    const auto& attrs = *static_cast<const InputGradAttrs*>(a);
    return with_epilogue(cost(sizes(attrs, out[0], in[1], in[0])), attrs, 2, in, out[0]);
  };
  input.memory = [](const void* a, const Types& in, const Types& out) {
    return bytes(conv2d_input_grad_memory(sizes(attrs_as<InputGradAttrs>(a), out[0], in[1], in[0])));
  };
  input.cuda_memory = [](const void* a, const Types& in, const Types& out) {
    return cuda_input_grad(sizes(attrs_as<InputGradAttrs>(a), out[0], in[1], in[0]), 4);
  };
  r.add(std::move(input));

  Op filter;
  filter.name = "conv2d_filter_grad";
  filter.equation = "dw[r,s,c,f] = sum of x[b,h,w,c] dy[b,p,q,f] over conv2d's triples";
  filter.attrs = attr_type<FilterGradAttrs>();
  filter.min_inputs = filter.max_inputs = 2;
  filter.infer = infer_float<FilterGradAttrs>;
  filter.run = run_filter_grad;
  filter.spaced = {3, 0};
  filter.grad = grad_filter_grad;
  filter.cost = [](const void* a, const Types& in, const Types& out) {
    return cost(sizes(attrs_as<FilterGradAttrs>(a), in[0], out[0], in[1]));
  };
  filter.memory = [](const void* a, const Types& in, const Types& out) {
    return bytes(conv2d_filter_grad_memory(sizes(attrs_as<FilterGradAttrs>(a), in[0], out[0], in[1])));
  };
  filter.cuda_memory = [](const void* a, const Types& in, const Types& out) {
    return cuda_filter_grad(sizes(attrs_as<FilterGradAttrs>(a), in[0], out[0], in[1]), 4);
  };
  r.add(std::move(filter));

  Op forward16 = bf16_op<ForwardAttrs>("conv2d", run_conv2d_bf16);
  forward16.attrs = prepared_attr_type<Bf16<ForwardAttrs>>();
  forward16.max_inputs = 2 + epilogue_operands;
  forward16.spaced = {~3u, 1};  // operands come 16 bytes at once
  forward16.cost = [](const void* a, const Types& in, const Types& out) {
    const auto& attrs = *static_cast<const Bf16<ForwardAttrs>*>(a);
    return with_epilogue(bf16_cost(cost(sizes(attrs, in[0], in[1], out[0])), in, out[0]), attrs, 2, in, out[0]);
  };
  forward16.memory = [](const void* a, const Types& in, const Types& out) {
    return cuda_forward(sizes(attrs_as<Bf16<ForwardAttrs>>(a), in[0], in[1], out[0]), 2);
  };
  r.add(std::move(forward16));

  Op input16 = bf16_op<InputGradAttrs>("conv2d_input_grad", run_input_grad_bf16);
  input16.attrs = prepared_attr_type<Bf16<InputGradAttrs>>();
  input16.max_inputs = 2 + epilogue_operands;
  input16.spaced = {~3u, 1};
  input16.cost = [](const void* a, const Types& in, const Types& out) {
    const auto& attrs = *static_cast<const Bf16<InputGradAttrs>*>(a);
    return with_epilogue(bf16_cost(cost(sizes(attrs, out[0], in[1], in[0])), in, out[0]), attrs, 2, in, out[0]);
  };
  input16.memory = [](const void* a, const Types& in, const Types& out) {
    return cuda_input_grad(sizes(attrs_as<Bf16<InputGradAttrs>>(a), out[0], in[1], in[0]), 2);
  };
  r.add(std::move(input16));

  Op filter16 = bf16_op<FilterGradAttrs>("conv2d_filter_grad", run_filter_grad_bf16);
  filter16.attrs = attr_type<Bf16<FilterGradAttrs>>();
  filter16.cost = [](const void* a, const Types& in, const Types& out) {
    return bf16_cost(cost(sizes(attrs_as<Bf16<FilterGradAttrs>>(a), in[0], out[0], in[1])), in, out[0]);
  };
  filter16.memory = [](const void* a, const Types& in, const Types& out) {
    return cuda_filter_grad(sizes(attrs_as<Bf16<FilterGradAttrs>>(a), in[0], out[0], in[1]), 2);
  };
  r.add(std::move(filter16));
}

}  // namespace dagrt
