// Products with weights kept as bfloat16, half the bytes of float32 panels, where a policy says bfloat16 anyway.
//   pack_matmul_bf16:  a float32 matrix b rounded to bfloat16, two rows interleaved, in the order in which the product reads it
//   matmul_bf16_packed:       y[..., n] = sum_k a[..., k] b[k, n], a being float32 whose values bfloat16 holds; sums in float32
#include "kernels/matmul_bf16_packed.h"

#include "ops/epilogue.h"
#include "ops/registry.h"

namespace dagrt {
namespace {

struct PackAttrs {
  bool transpose_b = false;
  template <class V> void visit(V& v) { v("transpose_b", transpose_b, false); }
};
struct ProductAttrs : EpilogueAttrs {
  int64_t columns = 0;
  template <class V> void visit(V& v) {
    v("columns", columns);
    visit_epilogue(v);
  }
};

Types infer_pack(const InferContext& c) {
  const TensorType& b = c.in[0];
  if (b.dtype != DType::float32 || b.rank() != 2 || !b.known())
    c.fail(ErrorKind::shape, "expected a float32 matrix of known sizes, got ", b.text());
  const bool t = c.attrs<PackAttrs>().transpose_b;
  return {{DType::bfloat16, {matmul_bf16_panel_size(b.shape[t ? 0 : 1].value(), b.shape[t ? 1 : 0].value())}}};
}

void run_pack(const RunContext& c) {
  const bool t = c.attrs<PackAttrs>().transpose_b;
  const View& b = c.in[0];
  PackMatmulBf16Args k;
  k.b = b.as<const float>(), k.panels = c.out[0].as<uint16_t>();
  k.N = b.dims[t ? 0 : 1], k.K = b.dims[t ? 1 : 0];
  k.b_row = t ? 1 : b.ld, k.b_col = t ? b.ld : 1;
  pack_matmul_bf16(k, c.stream);
}

Types infer_product(const InferContext& c) {
  const auto& at = c.attrs<ProductAttrs>();
  const TensorType &a = c.in[0], &panels = c.in[1];
  if (a.dtype != DType::float32 || a.rank() < 2) c.fail(ErrorKind::shape, "expected float32 of at least 2 axes, got ", a.text());
  if (at.columns < 0) c.fail(ErrorKind::graph, "columns must not be negative, got ", at.columns);
  const Dim& k = a.shape.back();
  if (panels.dtype != DType::bfloat16 || panels.rank() != 1 ||
      (k.known() && panels.shape[0].known() && !panels.shape[0].is(matmul_bf16_panel_size(at.columns, k.value()))))
    c.fail(ErrorKind::shape, "expected bfloat16 panels of pack_matmul_bf16 for ", k.text(), " x ", at.columns, ", got ",
           panels.text());
  TensorType y = a;
  y.shape.back() = at.columns;
  check_epilogue(c, at, 2, y);
  return {y};
}

void run_product(const RunContext& c) {
  const View &a = c.in[0], &y = c.out[0];
  MatmulBf16PackedArgs g;
  g.a = a.as<const float>();
  g.panels = c.in[1].as<const uint16_t>();
  g.c = y.as<float>();
  g.M = a.rows(), g.N = y.dims[y.rank - 1], g.K = a.dims[a.rank - 1];
  g.lda = a.ld;
  g.ldc = y.ld;
  g.workspace = static_cast<char*>(c.workspace);
  g.epilogue = read_epilogue(c, c.attrs<ProductAttrs>(), 2);
  matmul_bf16_packed(g, c.stream);
}

Cost cost_product(const void* attrs, const Types& in, const Types& out) {
  const double products = double(out[0].elements()) * double(in[0].shape.back().value());
  return with_epilogue({2 * products, double(in[0].bytes() + in[1].bytes() + out[0].bytes())},
                       *static_cast<const ProductAttrs*>(attrs), 2, in, out[0]);
}

Memory memory_product(const void*, const Types& in, const Types&) {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < in[0].shape.size(); i++) rows *= in[0].shape[i].value();
  return {matmul_bf16_workspace(rows, in[0].shape.back().value()), 0};
}

}  // namespace

void register_matmul_bf16_packed(Registry& r) {
  const char* advice = "it is made by passes after gradients are expanded; write matmul";
  Op pack;
  pack.name = "pack_matmul_bf16";
  pack.equation = "matmul's b rounded to bfloat16, in the order in which its kernel reads it";
  pack.cpu_algorithm_of = "matmul";
  pack.attrs = attr_type<PackAttrs>();
  pack.infer = infer_pack;
  pack.run = run_pack;
  pack.not_differentiable = advice;
  r.add(std::move(pack));

  Op product;
  product.name = "matmul_bf16_packed";
  product.equation = "matmul of a, which bfloat16 holds, and a matrix packed by pack_matmul_bf16";
  product.cpu_algorithm_of = "matmul";
  product.attrs = prepared_attr_type<ProductAttrs>();
  product.min_inputs = 2, product.max_inputs = 2 + epilogue_operands;
  product.infer = infer_product;
  product.run = run_product;
  product.spaced = {~2u, 1};  // all but the panels
  product.not_differentiable = advice;
  product.cost = cost_product;
  product.memory = memory_product;
  r.add(std::move(product));
}

}  // namespace dagrt
