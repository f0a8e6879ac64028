// What matmul's algorithms with packed weights have in common: a matrix b in the order in which a kernel reads it, made once where
// b does not change, and the product of it, whose a folds its leading axes.
#pragma once
#include "ops/epilogue.h"
#include "ops/registry.h"

namespace dagrt {

inline constexpr const char* made_by_passes = "it is made by passes after gradients are expanded; write matmul";

struct PackAttrs {
  bool transpose_b = false;
  template <class V> void visit(V& v) { v("transpose_b", transpose_b, false); }
};
struct PackedAttrs : EpilogueAttrs {
  int64_t columns = 0;
  template <class V> void visit(V& v) {
    v("columns", columns);
    visit_epilogue(v);
  }
};

/// How the panels of an algorithm are stored.
struct Panels {
  DType dtype;
  int64_t (*size)(int64_t N, int64_t K);
  const char* pack;  // the op that makes them
};

inline Types infer_pack(const InferContext& c, const Panels& p) {
  const TensorType& b = c.in[0];
  if (b.dtype != DType::float32 || b.rank() != 2 || !b.known())
    c.fail(ErrorKind::shape, "expected a float32 matrix of known sizes, got ", b.text());
  const bool t = c.attrs<PackAttrs>().transpose_b;
  return {{p.dtype, {p.size(b.shape[t ? 0 : 1].value(), b.shape[t ? 1 : 0].value())}}};
}

inline Types infer_packed(const InferContext& c, const Panels& p) {
  const auto& at = c.attrs<PackedAttrs>();
  const TensorType &a = c.in[0], &panels = c.in[1];
  if (a.dtype != DType::float32 || a.rank() < 2) c.fail(ErrorKind::shape, "expected float32 of at least 2 axes, got ", a.text());
  if (at.columns < 0) c.fail(ErrorKind::graph, "columns must not be negative, got ", at.columns);
  const Dim& k = a.shape.back();
  if (panels.dtype != p.dtype || panels.rank() != 1 ||
      (k.known() && panels.shape[0].known() && !panels.shape[0].is(p.size(at.columns, k.value()))))
    c.fail(ErrorKind::shape, "expected ", name_of(p.dtype), " panels of ", p.pack, " for ", k.text(), " x ", at.columns, ", got ",
           panels.text());
  TensorType y = a;
  y.shape.back() = at.columns;
  check_epilogue(c, at, 2, y);
  return {y};
}

/// All but the panels.
template <class Args> Args pack_arguments(const RunContext& c) {
  const bool t = c.attrs<PackAttrs>().transpose_b;
  const View& b = c.in[0];
  Args k;
  k.b = b.as<const float>();
  k.N = b.dims[t ? 0 : 1], k.K = b.dims[t ? 1 : 0];
  k.b_row = t ? 1 : b.ld, k.b_col = t ? b.ld : 1;
  return k;
}
template <class Args> Args packed_arguments(const RunContext& c) {
  const View &a = c.in[0], &y = c.out[0];
  Args g;
  g.a = a.as<const float>();
  g.c = y.as<float>();
  g.M = a.rows(), g.N = y.dims[y.rank - 1], g.K = a.dims[a.rank - 1];
  g.a_row = a.ld;
  g.ldc = y.ld;
  g.epilogue = read_epilogue(c, c.attrs<PackedAttrs>(), 2);
  return g;
}

/// Rows of a.
inline int64_t packed_rows(const Types& in) {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < in[0].shape.size(); i++) rows *= in[0].shape[i].value();
  return rows;
}

/// What the two ops of an algorithm of the CPU have beside name, equation, infer, run and memory.
inline Op pack_op() {
  Op pack;
  pack.cpu_algorithm_of = "matmul";
  pack.attrs = attr_type<PackAttrs>();
  pack.not_differentiable = made_by_passes;
  return pack;
}
inline Op packed_op() {
  Op packed;
  packed.cpu_algorithm_of = "matmul";
  packed.attrs = prepared_attr_type<PackedAttrs>();
  packed.min_inputs = 2, packed.max_inputs = 2 + epilogue_operands;
  packed.spaced = {~2u, 1};  // all but the panels
  packed.not_differentiable = made_by_passes;
  packed.cost = [](const void* attrs, const Types& in, const Types& out) {
    const double products = double(out[0].elements()) * double(in[0].shape.back().value());
    return with_epilogue({2 * products, double(in[0].bytes() + in[1].bytes() + out[0].bytes())},
                         *static_cast<const PackedAttrs*>(attrs), 2, in, out[0]);
  };
  return packed;
}

}  // namespace dagrt
