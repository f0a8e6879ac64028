// matmul: y[..., m, n] = sum_k a[..., m, k] b[..., k, n], batch axes broadcast. With transpose_a, a is [..., k, m]; with
// transpose_b, b is [..., n, k]. float32; sums in float32.
//   matmul_bf16:    of bfloat16, by a CUDA device's tensor cores: y is float32, or rounded to bfloat16
//   pack_matmul:    a matrix b in the order in which the product reads it, so that it is made once where it does not change
//   matmul_packed:  a times such a matrix; a's leading axes fold
#include "kernels/bf16.h"

#include "kernels/gemm_splits.h"
#include "ops/packed_matmul.h"

namespace dagrt {
namespace {

struct MatmulAttrs : EpilogueAttrs {
  bool transpose_a = false, transpose_b = false;
  template <class V> void visit(V& v) {
    v("transpose_a", transpose_a, false);
    v("transpose_b", transpose_b, false);
    visit_epilogue(v);
  }
};

struct Bf16Attrs : MatmulAttrs {
  DType dtype = DType::float32;
  template <class V> void visit(V& v) {
    v("dtype", dtype);
    MatmulAttrs::visit(v);
  }
};

/// y's type, of float32, for operands of `wanted`.
TensorType product_type(const InferContext& c, const MatmulAttrs& at, DType wanted) {
  const TensorType &a = c.in[0], &b = c.in[1];
  if (a.dtype != wanted || b.dtype != wanted)
    c.fail(ErrorKind::dtype, "expected ", name_of(wanted), ", got ", name_of(a.dtype), " and ", name_of(b.dtype), "; cast to ",
           name_of(wanted));
  if (a.rank() < 2 || b.rank() < 2)
    c.fail(ErrorKind::shape, "expected at least 2 axes, got ", text(a.shape), " and ", text(b.shape));
  size_t ra = size_t(a.rank()), rb = size_t(b.rank());
  const Dim &ka = a.shape[at.transpose_a ? ra - 2 : ra - 1], &kb = b.shape[at.transpose_b ? rb - 1 : rb - 2];
  if (ka.known() && kb.known() && ka != kb)
    c.fail(ErrorKind::shape, "inner sizes must agree, got ", ka.text(), " and ", kb.text(), " of ", text(a.shape), " and ",
           text(b.shape));
  for (size_t i = 3; i <= ra && i <= rb; i++) {  // from the last batch axis
    const Dim &da = a.shape[ra - i], &db = b.shape[rb - i];
    if (da.known() && db.known() && da != db && !da.is(1) && !db.is(1))
      c.fail(ErrorKind::shape, "leading sizes must be equal, or one of them 1, got ", da.text(), " and ", db.text(), " of ",
             text(a.shape), " and ", text(b.shape));
  }
  TensorType y;
  y.shape = broadcast(Dims(a.shape.begin(), a.shape.end() - 2), Dims(b.shape.begin(), b.shape.end() - 2));
  y.shape.push_back(a.shape[at.transpose_a ? ra - 1 : ra - 2]);
  y.shape.push_back(b.shape[at.transpose_b ? rb - 2 : rb - 1]);
  check_epilogue(c, at, 2, y);
  return y;
}

Types infer_matmul(const InferContext& c) { return {product_type(c, c.attrs<MatmulAttrs>(), DType::float32)}; }

/// Lines are whole pieces of 16 bytes.
bool admits_bf16(const void*, const Types& in) {
  return in[0].shape.back().value() % bf16_line == 0 && in[1].shape.back().value() % bf16_line == 0;
}

Types infer_bf16(const InferContext& c) {
  const auto& at = c.attrs<Bf16Attrs>();
  if (at.dtype != DType::float32 && at.dtype != DType::bfloat16)
    c.fail(ErrorKind::dtype, "dtype must be float32 or bfloat16, got ", name_of(at.dtype));
  TensorType y = product_type(c, at, DType::bfloat16);
  if (!c.in[0].known() || !c.in[1].known() || !admits_bf16(&at, c.in))
    c.fail(ErrorKind::shape, "last axes must be multiples of ", bf16_line, ", got ", text(c.in[0].shape), " and ",
           text(c.in[1].shape), "; use matmul of float32");
  check_narrow_epilogue(c, at, at.dtype);
  y.dtype = at.dtype;
  return {y};
}

constexpr Panels panels{DType::float32, matmul_panel_floats, "pack_matmul"};

void run_pack(const RunContext& c) {
  auto k = pack_arguments<PackMatmulArgs>(c);
  k.panels = c.out[0].as<float>();
  pack_matmul(k, c.stream);
}

void run_packed(const RunContext& c) {
  auto g = packed_arguments<MatmulArgs>(c);
  g.panels = c.in[1].as<const float>();
  g.workspace = static_cast<char*>(c.workspace);
  matmul(g, c.stream);
}

/// Sizes of the product as the kernel sees it: leading axes of a beside a matrix b fold into M.
struct Product {
  int64_t batches = 1, M = 0, N = 0, K = 0;
  bool folded = false, b_rows = true;
};

Product product_of(const MatmulAttrs& at, const int64_t* a, int ra, const int64_t* b, int rb, const int64_t* y, int ry) {
  Product p;
  p.M = y[ry - 2];
  p.N = y[ry - 1];
  p.K = at.transpose_a ? a[ra - 2] : a[ra - 1];
  p.b_rows = !at.transpose_b;
  for (int i = 0; i < ry - 2; i++) p.batches *= y[i];
  if (rb == 2 && ra > 2 && !at.transpose_a) {
    p.folded = true;
    p.M *= p.batches;
    p.batches = 1;
  }
  return p;
}

/// All but the operands' addresses.
MatmulArgs arguments(const RunContext& c, const MatmulAttrs& at) {
  const View &a = c.in[0], &b = c.in[1], &y = c.out[0];
  Product p = product_of(at, a.dims, a.rank, b.dims, b.rank, y.dims, y.rank);
  MatmulArgs g;
  g.M = p.M;
  g.N = p.N;
  g.K = p.K;
  g.a_row = at.transpose_a ? 1 : a.ld;
  g.a_col = at.transpose_a ? a.ld : 1;
  g.b_row = at.transpose_b ? 1 : b.ld;
  g.b_col = at.transpose_b ? b.ld : 1;
  g.ldc = y.ld;
  g.workspace = static_cast<char*>(c.workspace);
  g.epilogue = read_epilogue(c, at, 2);
  if (p.folded) return g;
  g.batch_rank = y.rank - 2;
  int64_t sa = a.dims[a.rank - 2] * a.ld, sb = b.dims[b.rank - 2] * b.ld, sy = y.dims[y.rank - 2] * y.ld;
  for (int i = y.rank - 3, ia = a.rank - 3, ib = b.rank - 3; i >= 0; i--, ia--, ib--) {
    g.batch[i] = y.dims[i];
    g.a_batch[i] = ia >= 0 && a.dims[ia] != 1 ? sa : 0;
    g.b_batch[i] = ib >= 0 && b.dims[ib] != 1 ? sb : 0;
    g.c_batch[i] = sy;
    if (ia >= 0) sa *= a.dims[ia];
    if (ib >= 0) sb *= b.dims[ib];
    sy *= y.dims[i];
  }
  return g;
}

void run_matmul(const RunContext& c) {
  MatmulArgs g = arguments(c, c.attrs<MatmulAttrs>());
  g.a = c.in[0].as<const float>(), g.b = c.in[1].as<const float>(), g.c = c.out[0].as<float>();
  matmul(g, c.stream);
}
void run_bf16(const RunContext& c) {
  const auto& at = c.attrs<Bf16Attrs>();
  MatmulBf16Args g;
  g.rest = arguments(c, at);
  g.a = c.in[0].as<const uint16_t>(), g.b = c.in[1].as<const uint16_t>(), g.c = c.out[0].data;
  g.narrow = at.dtype == DType::bfloat16;
  matmul_bf16(g, c.stream);
}

void grad_matmul(GradContext& c) {
  const auto at = c.attrs<MatmulAttrs>();
  no_epilogue(c, at);
  Builder& b = c.b;
  auto product = [&](ValueId l, ValueId r, bool tl, bool tr) {
    return b.emit("matmul", {l, r}, {{"transpose_a", {tl}}, {"transpose_b", {tr}}});
  };
  ValueId x = c.in(0), w = c.in(1), g = c.dout();
  if (c.wanted[0]) {
    ValueId d = at.transpose_a ? product(w, g, at.transpose_b, true) : product(g, w, false, !at.transpose_b);
    c.in_grads[0] = b.unbroadcast(d, b.type(x).shape);
  }
  if (!c.wanted[1]) return;
  if (b.type(w).rank() == 2 && b.type(x).rank() > 2 && !at.transpose_a) {  // one long product instead of many and a sum
    const Dims sx = b.type(x).shape, sg = b.type(g).shape;
    Dim rows = dagrt::product(Dims(sx.begin(), sx.end() - 1)), grows = dagrt::product(Dims(sg.begin(), sg.end() - 1));
    ValueId x2 = b.reshape(x, {rows, sx.back()}), g2 = b.reshape(g, {grows, sg.back()});
    c.in_grads[1] = at.transpose_b ? product(g2, x2, true, false) : product(x2, g2, true, false);
    return;
  }
  ValueId d = at.transpose_b ? product(g, x, true, at.transpose_a) : product(x, g, !at.transpose_a, false);
  c.in_grads[1] = b.unbroadcast(d, b.type(w).shape);
}

Product product_of(const void* attrs, const Types& in, const Types& out) {
  auto sizes = [](const TensorType& t) {
    std::vector<int64_t> s;
    for (const Dim& d : t.shape) s.push_back(d.value());
    return s;
  };
  std::vector<int64_t> a = sizes(in[0]), b = sizes(in[1]), y = sizes(out[0]);
  return product_of(*static_cast<const MatmulAttrs*>(attrs), a.data(), int(a.size()), b.data(), int(b.size()), y.data(),
                    int(y.size()));
}

Cost cost_matmul(const void* attrs, const Types& in, const Types& out) {
  Product p = product_of(attrs, in, out);
  return with_epilogue(
      {2.0 * double(p.batches) * double(p.M) * double(p.N) * double(p.K), double(in[0].bytes() + in[1].bytes() + out[0].bytes())},
      *static_cast<const MatmulAttrs*>(attrs), 2, in, out[0]);
}

Memory memory_matmul(const void* attrs, const Types& in, const Types& out) {
  Product p = product_of(attrs, in, out);
  const MatmulPlan plan = matmul_plan(p.batches, p.M, p.N, p.K, p.b_rows, false);
  return {plan.workspace, plan.scratch};
}

Memory cuda_memory_matmul(const void* attrs, const Types& in, const Types& out) {
  Product p = product_of(attrs, in, out);
  return {gemm_workspace(p.batches, p.M, p.N, p.K, int64_t(size_of(in[0].dtype))), 0};
}

}  // namespace

void register_matmul(Registry& r) {
  Op m;
  m.name = "matmul";
  m.equation = "y[..., m, n] = sum_k a[..., m, k] b[..., k, n]";
  m.attrs = prepared_attr_type<MatmulAttrs>();
  m.min_inputs = 2, m.max_inputs = 2 + epilogue_operands;
  m.infer = infer_matmul;
  m.run = run_matmul;
  m.spaced = Spaced::all();
  m.batched = [](const void* a, const Types& in, const Types&) {
    const bool rows = in[0].rank() > 2 || !static_cast<const MatmulAttrs*>(a)->transpose_a;
    return uint32_t(in.size() == 2 && in[1].rank() == 2 && rows);
  };
  m.grad = grad_matmul;
  m.cost = cost_matmul;
  m.memory = memory_matmul;
  m.cuda_memory = cuda_memory_matmul;
  r.add(std::move(m));

  Op bf16;
  bf16.name = "matmul_bf16";
  bf16.equation = "matmul of bfloat16 by tensor cores";
  bf16.cuda_algorithm_of = "matmul";
  bf16.attrs = prepared_attr_type<Bf16Attrs>();
  bf16.min_inputs = 2, bf16.max_inputs = 2 + epilogue_operands;
  bf16.infer = infer_bf16;
  bf16.run = run_bf16;
  bf16.admits = admits_bf16;
  bf16.spaced = {~3u, 1};  // operands come 16 bytes at once
  bf16.not_differentiable = made_by_passes;
  bf16.cost = cost_matmul;
  bf16.memory = cuda_memory_matmul;
  r.add(std::move(bf16));

  Op pack = pack_op();
  pack.name = "pack_matmul";
  pack.equation = "matmul's b in the order in which its kernel reads it";
  pack.infer = [](const InferContext& c) { return infer_pack(c, panels); };
  pack.run = run_pack;
  r.add(std::move(pack));

  Op packed = packed_op();
  packed.name = "matmul_packed";
  packed.equation = "matmul of a and a matrix packed by pack_matmul";
  packed.infer = [](const InferContext& c) { return infer_packed(c, panels); };
  packed.run = run_packed;
  packed.memory = [](const void*, const Types& in, const Types& out) {
    const MatmulPlan p = matmul_plan(1, packed_rows(in), out[0].shape.back().value(), in[0].shape.back().value(), true, true);
    return Memory{p.workspace, p.scratch};
  };
  r.add(std::move(packed));
}

}  // namespace dagrt
