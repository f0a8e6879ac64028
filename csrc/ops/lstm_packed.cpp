// The LSTM of inference, with weights in the kernels' order: its results are lstm's to the last bit. What it needs of the
// weights are nodes of their own, which the plan hoists.
//   pack_lstm(kernel, recurrent, bias?) -> packed [C + U + 1, 4 up4(U)], in the order of the instruction set in use
//   lstm_packed(x, packed, h0?, c0?, mask?) -> y, h, c, as lstm
//   pack_lstm_table(embeddings [N,C], packed) -> table [N, 4 up4(U)]: embeddings W + b
//   lstm_gathered(ids [B,T], table, packed, h0?, c0?, mask?) -> y, h, c: lstm_packed of the embeddings of ids. An id outside
//     [0, N) is a fault (index_out_of_range; position in ids).
// Made by passes/pack_lstm.cpp.
#include "kernels/indexing.h"
#include "kernels/lstm.h"
#include "ops/registry.h"

namespace dagrt {
namespace {

struct UnitsAttrs {
  int64_t units = 0;
  template <class V> void visit(V& v) { v("units", units); }
};

struct PackedAttrs {
  int64_t units = 0;
  bool go_backwards = false, zero_output_for_mask = false;
  template <class V> void visit(V& v) {
    v("units", units);
    v("go_backwards", go_backwards, false);
    v("zero_output_for_mask", zero_output_for_mask, false);
  }
};

constexpr DType f32 = DType::float32;

void expect(const InferContext& c, size_t i, const char* what, DType type, const Dims& shape) {
  if (i >= c.in.size() || c.in[i].absent) return;
  const TensorType& t = c.in[i];
  if (t.dtype != type) c.fail(ErrorKind::dtype, what, " must be ", name_of(type), ", got ", name_of(t.dtype));
  if (t.shape != shape) c.fail(ErrorKind::shape, what, " must have shape ", text(shape), ", got ", text(t.shape));
}

Types infer_pack(const InferContext& c) {
  const TensorType &w = c.in[0], &r = c.in[1];
  if (w.rank() != 2 || r.rank() != 2) c.fail(ErrorKind::shape, "expected matrices, got ", text(w.shape), " and ", text(r.shape));
  const int64_t C = w.shape[0].value(), U = r.shape[0].value();
  expect(c, 0, "the kernel", f32, {C, 4 * U});
  expect(c, 1, "the recurrent kernel", f32, {U, 4 * U});
  expect(c, 2, "the bias", f32, {4 * U});
  return {{f32, {C + U + 1, lstm_packed_columns(U)}}};
}

void run_pack(const RunContext& c) {
  LstmArgs a;
  a.kernel = c.in[0].as<const float>();
  a.recurrent = c.in[1].as<const float>();
  a.bias = c.inputs > 2 ? c.in[2].as<const float>() : nullptr;
  a.C = c.in[0].dims[0], a.U = c.in[1].dims[0];
  a.packed = c.out[0].as<float>();
  if (a.U) lstm_pack(a, c.stream);
}

/// Packed weights of C features: C, from their rows.
int64_t features(const InferContext& c, size_t i, int64_t U) {
  const TensorType& p = c.in[i];
  if (p.dtype != f32 || p.rank() != 2 || p.shape[1] != Dim(lstm_packed_columns(U)) || p.shape[0].value() < U + 1)
    c.fail(ErrorKind::shape, "expected the packed weights of ", U, " units, got ", text(p.shape));
  return p.shape[0].value() - U - 1;
}

Types infer_pack_table(const InferContext& c) {
  const int64_t U = c.attrs<UnitsAttrs>().units, C = features(c, 1, U);
  if (c.in[0].rank() != 2) c.fail(ErrorKind::shape, "expected a matrix of embeddings, got ", text(c.in[0].shape));
  expect(c, 0, "the embeddings", f32, {c.in[0].shape[0], C});
  return {{f32, {c.in[0].shape[0], lstm_packed_columns(U)}}};
}

void run_pack_table(const RunContext& c) {
  LstmArgs a;
  a.U = c.attrs<UnitsAttrs>().units;
  a.x = c.in[0].as<const float>();
  a.B = c.in[0].dims[0], a.C = c.in[0].dims[1], a.ldx = c.in[0].ld;
  a.packed = c.in[1].as<float>();
  a.y = c.out[0].as<float>();
  if (a.U && a.B) lstm_pack_table(a, c.stream);
}

Types infer_rest(const InferContext& c, size_t first, const Dim& B, const Dim& T, int64_t U) {
  expect(c, first, "h0", f32, {B, U});
  expect(c, first + 1, "c0", f32, {B, U});
  expect(c, first + 2, "the mask", DType::bool_, {B, T});
  return {{f32, {B, T, U}}, {f32, {B, U}}, {f32, {B, U}}};
}

Types infer_packed(const InferContext& c) {
  const int64_t U = c.attrs<PackedAttrs>().units, C = features(c, 1, U);
  const TensorType& x = c.in[0];
  if (x.rank() != 3) c.fail(ErrorKind::shape, "expected (batch, steps, features), got ", text(x.shape));
  expect(c, 0, "x", f32, {x.shape[0], x.shape[1], C});
  return infer_rest(c, 2, x.shape[0], x.shape[1], U);
}

Types infer_gathered(const InferContext& c) {
  const int64_t U = c.attrs<PackedAttrs>().units;
  const TensorType &ids = c.in[0], &table = c.in[1];
  features(c, 2, U);
  if (ids.rank() != 2 || (ids.dtype != DType::int32 && ids.dtype != DType::int64))
    c.fail(ErrorKind::shape, "expected ids (batch, steps), got ", text(ids.shape));
  if (table.rank() != 2) c.fail(ErrorKind::shape, "expected a table, got ", text(table.shape));
  expect(c, 1, "the table", f32, {table.shape[0], lstm_packed_columns(U)});
  return infer_rest(c, 3, ids.shape[0], ids.shape[1], U);
}

template <class T> T* input(const RunContext& c, int i) { return i < c.inputs ? c.in[i].as<T>() : nullptr; }

void run_layer(const RunContext& c, LstmArgs& a, int rest) {
  const auto& at = c.attrs<PackedAttrs>();
  a.U = at.units;
  a.go_backwards = at.go_backwards;
  a.zero_output_for_mask = at.zero_output_for_mask;
  a.packed = c.in[rest - 1].as<float>();
  a.C = c.in[rest - 1].dims[0] - a.U - 1;
  a.B = c.in[0].dims[0], a.T = c.in[0].dims[1];
  a.h0 = input<const float>(c, rest);
  a.c0 = input<const float>(c, rest + 1);
  a.mask = input<const uint8_t>(c, rest + 2);
  a.y = c.out[0].as<float>();
  a.ldy = c.out[0].ld;
  a.h = c.out[1].as<float>();
  a.c = c.out[2].as<float>();
  a.workspace = static_cast<char*>(c.workspace);
  lstm(a, c.stream);
}

void run_packed(const RunContext& c) {
  LstmArgs a;
  a.x = c.in[0].as<const float>();
  a.ldx = c.in[0].ld;
  run_layer(c, a, 2);
}

void run_gathered(const RunContext& c) {
  const View& ids = c.in[0];
  LstmArgs a;
  a.ids = ids.data;
  a.wide = ids.dtype == DType::int64;
  a.table = c.in[1].as<const float>();
  int64_t bad = -1, limit = c.in[1].dims[0];
  check_ids({ids.data, a.wide, ids.elements(), limit, &bad}, c.stream);
  if (bad < 0) return run_layer(c, a, 3);
  c.status.report(Status::index_out_of_range, c.node, bad, a.wide ? ids.as<int64_t>()[bad] : ids.as<int32_t>()[bad], limit);
}

double bytes_of(const Types& types) {
  double bytes = 0;
  for (const TensorType& t : types)
    if (!t.absent) bytes += double(t.bytes());
  return bytes;
}

template <bool gathered> Cost cost(const void* attrs, const Types& in, const Types& out) {
  const double U = double(static_cast<const PackedAttrs*>(attrs)->units), rows = double(out[0].elements());
  const double C = gathered ? 0 : double(in[0].shape[2].value());
  const Types read{in[0], in[gathered ? 2 : 1]};
  return {8 * rows * (C + U), bytes_of(read) + bytes_of(out) + (gathered ? 16 * rows : 0)};
}

Memory memory(const void* attrs, const Types&, const Types& out) {
  const Dims& y = out[0].shape;
  LstmMemory m = lstm_memory(y[0].value(), y[1].value(), static_cast<const PackedAttrs*>(attrs)->units);
  return {m.workspace, m.scratch};
}

int64_t units(const void* attrs, const Types&, const Types& out) {
  const Dims& y = out[0].shape;
  return lstm_units(y[0].value(), y[1].value(), static_cast<const PackedAttrs*>(attrs)->units);
}

constexpr const char* no_gradient = "this op is made for inference alone, after gradients; use lstm";

}  // namespace

void register_lstm_packed(Registry& r) {
  Op pack;
  pack.name = "pack_lstm";
  pack.equation = "lstm's weights in the kernels' order";
  pack.cpu_algorithm_of = "lstm";
  pack.min_inputs = 2;
  pack.max_inputs = 3;
  pack.infer = infer_pack;
  pack.run = run_pack;
  pack.not_differentiable = no_gradient;
  r.add(std::move(pack));

  Op table;
  table.name = "pack_lstm_table";
  table.equation = "embeddings W + b, in the order of lstm's gates";
  table.cpu_algorithm_of = "lstm";
  table.attrs = attr_type<UnitsAttrs>();
  table.min_inputs = table.max_inputs = 2;
  table.infer = infer_pack_table;
  table.run = run_pack_table;
  table.not_differentiable = no_gradient;
  table.cost = [](const void*, const Types& in, const Types& out) {
    return Cost{2 * double(out[0].elements()) * double(in[0].shape[1].value()), bytes_of(in) + bytes_of(out)};
  };
  r.add(std::move(table));

  Op packed;
  packed.name = "lstm_packed";
  packed.equation = "y, h, c of lstm";
  packed.cpu_algorithm_of = "lstm";
  packed.attrs = attr_type<PackedAttrs>();
  packed.min_inputs = 2;
  packed.max_inputs = 5;
  packed.infer = infer_packed;
  packed.run = run_packed;
  packed.spaced = {1, 1};  // x; y
  packed.cost = cost<false>;
  packed.memory = memory;
  packed.units = units;
  packed.not_differentiable = no_gradient;
  r.add(std::move(packed));

  Op gathered;
  gathered.name = "lstm_gathered";
  gathered.equation = "y, h, c of lstm, x = embeddings[ids]";
  gathered.cpu_algorithm_of = "lstm";
  gathered.attrs = attr_type<PackedAttrs>();
  gathered.min_inputs = 3;
  gathered.max_inputs = 6;
  gathered.infer = infer_gathered;
  gathered.run = run_gathered;
  gathered.spaced = {0, 1};
  gathered.cost = cost<true>;
  gathered.memory = memory;
  gathered.units = units;
  gathered.checks = true;
  gathered.not_differentiable = no_gradient;
  r.add(std::move(gathered));
}

}  // namespace dagrt
