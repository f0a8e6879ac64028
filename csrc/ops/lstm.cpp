// lstm: a layer of long short-term memory over [B,T,C]; gates i f c o side by side in kernel, recurrent and bias.
//   z = x_t W + h R + b; c' = sigmoid(z_f) c + sigmoid(z_i) tanh(z_c); h' = sigmoid(z_o) tanh(c')
// Inputs x, kernel, recurrent, bias?, h0?, c0?, mask? (bool [B,T]); outputs y [B,T,U] in processing order, h, c; residuals
// gates, cells, hidden in processing order, time first. A masked step keeps the states; its y is the one before (zero at
// the start), or zero with zero_output_for_mask.
// lstm_grad: x, kernel, recurrent, h0?, c0?, mask?, gates, cells, hidden, dy?, dh?, dc? -> dx, dkernel, drecurrent, dbias, dh0, dc0.
#include "kernels/lstm.h"

#include "ops/registry.h"

namespace dagrt {
namespace {

struct LstmAttrs {
  bool go_backwards = false, zero_output_for_mask = false;
  template <class V> void visit(V& v) {
    v("go_backwards", go_backwards, false);
    v("zero_output_for_mask", zero_output_for_mask, false);
  }
};

bool given(const InferContext& c, size_t i) { return i < c.in.size() && !c.in[i].absent; }

void expect(const InferContext& c, size_t i, const char* what, DType type, const Dims& shape) {
  if (!given(c, i)) return;
  const TensorType& t = c.in[i];
  if (t.dtype != type) c.fail(ErrorKind::dtype, what, " must be ", name_of(type), ", got ", name_of(t.dtype), "; cast it");
  bool fits = t.shape.size() == shape.size();
  for (size_t k = 0; fits && k < shape.size(); k++) fits = !t.shape[k].known() || !shape[k].known() || t.shape[k] == shape[k];
  if (!fits) c.fail(ErrorKind::shape, what, " must have shape ", text(shape), ", got ", text(t.shape));
}

struct Sizes {
  Dim B, T, C, U;
};

Sizes check_layer(const InferContext& c) {
  const TensorType &x = c.in[0], &r = c.in[2];
  if (x.rank() != 3) c.fail(ErrorKind::shape, "expected (batch, steps, features), got ", text(x.shape));
  if (r.rank() != 2) c.fail(ErrorKind::shape, "the recurrent kernel must have 2 axes, got ", text(r.shape));
  Sizes s{x.shape[0], x.shape[1], x.shape[2], r.shape[0]};
  expect(c, 0, "x", DType::float32, x.shape);
  expect(c, 1, "the kernel", DType::float32, {s.C, s.U * Dim(4)});
  expect(c, 2, "the recurrent kernel", DType::float32, {s.U, s.U * Dim(4)});
  return s;
}

Types infer_lstm(const InferContext& c) {
  Sizes s = check_layer(c);
  expect(c, 3, "the bias", DType::float32, {s.U * Dim(4)});
  expect(c, 4, "h0", DType::float32, {s.B, s.U});
  expect(c, 5, "c0", DType::float32, {s.B, s.U});
  expect(c, 6, "the mask", DType::bool_, {s.B, s.T});
  DType f = DType::float32;
  return {{f, {s.B, s.T, s.U}},          {f, {s.B, s.U}},      {f, {s.B, s.U}},
          {f, {s.T, s.B, s.U * Dim(4)}}, {f, {s.T, s.B, s.U}}, {f, {s.T, s.B, s.U}}};
}

Types infer_lstm_grad(const InferContext& c) {
  if (c.in.size() < 9) c.fail(ErrorKind::graph, "expected 9 to 12 inputs, got ", c.in.size());
  for (size_t i = 6; i < 9; i++)
    if (c.in[i].absent) c.fail(ErrorKind::graph, "input ", i, " is required, but absent");
  Sizes s = check_layer(c);
  DType f = DType::float32;
  expect(c, 3, "h0", f, {s.B, s.U});
  expect(c, 4, "c0", f, {s.B, s.U});
  expect(c, 5, "the mask", DType::bool_, {s.B, s.T});
  expect(c, 6, "gates", f, {s.T, s.B, s.U * Dim(4)});
  expect(c, 7, "cells", f, {s.T, s.B, s.U});
  expect(c, 8, "hidden", f, {s.T, s.B, s.U});
  expect(c, 9, "dy", f, {s.B, s.T, s.U});
  expect(c, 10, "dh", f, {s.B, s.U});
  expect(c, 11, "dc", f, {s.B, s.U});
  return {c.in[0], c.in[1], c.in[2], {f, {s.U * Dim(4)}}, {f, {s.B, s.U}}, {f, {s.B, s.U}}};
}

LstmArgs layer(const RunContext& c) {
  const auto& at = c.attrs<LstmAttrs>();
  LstmArgs a;
  const View& x = c.in[0];
  a.x = x.as<const float>();
  a.kernel = c.in[1].as<const float>();
  a.recurrent = c.in[2].as<const float>();
  a.B = x.dims[0], a.T = x.dims[1], a.C = x.dims[2], a.U = c.in[2].dims[0];
  a.ldx = x.ld;
  a.go_backwards = at.go_backwards;
  a.zero_output_for_mask = at.zero_output_for_mask;
  a.workspace = static_cast<char*>(c.workspace);
  return a;
}

template <class T> T* input(const RunContext& c, int i) { return i < c.inputs ? c.in[i].as<T>() : nullptr; }

void run_lstm(const RunContext& c) {
  LstmArgs a = layer(c);
  a.bias = input<const float>(c, 3);
  a.h0 = input<const float>(c, 4);
  a.c0 = input<const float>(c, 5);
  a.mask = input<const uint8_t>(c, 6);
  a.y = c.out[0].as<float>();
  a.ldy = c.out[0].ld;
  a.h = c.out[1].as<float>();
  a.c = c.out[2].as<float>();
  a.gates = c.out[3].as<float>();
  a.cells = c.out[4].as<float>();
  a.hidden = c.out[5].as<float>();
  if (!c.stream.cuda) {  // whose kernel reads the weights as they are
    a.packed = static_cast<float*>(c.workspace);
    a.workspace += size_t(lstm_packed_size(a.C, a.U)) * 4;
    lstm_pack(a, c.stream);
  }
  lstm(a, c.stream);
}

void run_lstm_grad(const RunContext& c) {
  LstmArgs a = layer(c);
  a.h0 = input<const float>(c, 3);
  a.c0 = input<const float>(c, 4);
  a.mask = input<const uint8_t>(c, 5);
  a.gates = const_cast<float*>(input<const float>(c, 6));
  a.cells = const_cast<float*>(input<const float>(c, 7));
  a.hidden = const_cast<float*>(input<const float>(c, 8));
  a.dy = input<const float>(c, 9);
  a.lddy = a.dy ? c.in[9].ld : 0;
  a.dh = input<const float>(c, 10);
  a.dc = input<const float>(c, 11);
  a.dx = c.out[0].as<float>();
  a.dkernel = c.out[1].as<float>();
  a.drecurrent = c.out[2].as<float>();
  a.dbias = c.out[3].as<float>();
  a.dh0 = c.out[4].as<float>();
  a.dc0 = c.out[5].as<float>();
  lstm_grad(a, c.stream);
}

void grad_lstm(GradContext& c) {
  const auto at = c.attrs<LstmAttrs>();
  auto in = [&](size_t i) { return i < c.node.inputs.size() ? c.in(i) : no_value; };
  std::vector<ValueId> g = c.b.emit_all(
      "lstm_grad",
      {c.in(0), c.in(1), c.in(2), in(4), in(5), in(6), c.out(3), c.out(4), c.out(5), c.dout(0), c.dout(1), c.dout(2)},
      {{"go_backwards", {at.go_backwards}}, {"zero_output_for_mask", {at.zero_output_for_mask}}});
  for (size_t i = 0; i < c.in_grads.size() && i < 6; i++) c.in_grads[i] = g[i];
}

struct Numbers {
  int64_t B, T, C, U;
};

Numbers numbers(const Types& in) {
  return {in[0].shape[0].value(), in[0].shape[1].value(), in[0].shape[2].value(), in[2].shape[0].value()};
}

Memory cuda_memory(const void*, const Types& in, const Types&) {
  Numbers n = numbers(in);
  if (n.B * n.T > INT32_MAX)  // they are counted in 31 bits there
    fail(ErrorKind::shape, "a CUDA device takes at most ", INT32_MAX, " steps of all sequences, got ", n.B * n.T,
         "; use a smaller batch");
  return {lstm_device_workspace(n.B, n.T, n.U), 0};
}

}  // namespace

void register_lstm(Registry& r) {
  Op f;
  f.name = "lstm";
  f.equation = "z = x W + h R + b; c = sigmoid(z_f) c + sigmoid(z_i) tanh(z_c); h = sigmoid(z_o) tanh(c)";
  f.attrs = attr_type<LstmAttrs>();
  f.min_inputs = 3;
  f.max_inputs = 7;
  f.infer = infer_lstm;
  f.run = run_lstm;
  f.spaced = {1, 1};  // x; y
  f.grad = grad_lstm;
  f.residuals = 3;
  f.cost = [](const void*, const Types& in, const Types& out) {
    Numbers n = numbers(in);
    double bytes = 0;
    for (const TensorType& t : in)
      if (!t.absent) bytes += double(t.bytes());
    return Cost{8.0 * double(n.B * n.T) * double(n.U) * double(n.C + n.U), bytes + double(out[0].bytes())};
  };
  f.memory = [](const void*, const Types& in, const Types&) {
    Numbers n = numbers(in);
    LstmMemory m = lstm_memory(n.B, n.T, n.U);
    return Memory{m.workspace + size_t(lstm_packed_size(n.C, n.U)) * 4, m.scratch};
  };
  f.units = [](const void*, const Types& in, const Types&) {
    Numbers n = numbers(in);
    return lstm_units(n.B, n.T, n.U);
  };
  f.cuda_memory = cuda_memory;
  r.add(std::move(f));

  Op g;
  g.name = "lstm_grad";
  g.equation = "gradients of lstm's x, kernel, recurrent, bias, h0, c0";
  g.attrs = attr_type<LstmAttrs>();
  g.min_inputs = 3;
  g.max_inputs = 12;
  g.infer = infer_lstm_grad;
  g.run = run_lstm_grad;
  g.spaced = {1 | 1 << 9, 0};  // x and dy
  g.not_differentiable = "the fused LSTM has no second derivative; write the recurrence with ops.scan, which has";
  g.cost = [](const void*, const Types& in, const Types&) {
    Numbers n = numbers(in);
    return Cost{16.0 * double(n.B * n.T) * double(n.U) * double(n.C + n.U), 4.0 * double(n.B * n.T) * double(2 * n.C + 8 * n.U)};
  };
  g.memory = [](const void*, const Types& in, const Types&) {
    Numbers n = numbers(in);
    LstmMemory m = lstm_grad_memory(n.B, n.T, n.C, n.U);
    return Memory{m.workspace, m.scratch};
  };
  g.units = [](const void*, const Types& in, const Types&) {
    Numbers n = numbers(in);
    return lstm_grad_plan(n.B, n.T, n.U).groups;
  };
  g.cuda_memory = cuda_memory;
  r.add(std::move(g));
}

}  // namespace dagrt
