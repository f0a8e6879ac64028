#include "ops/epilogue.h"

#include <cmath>
#include <limits>

namespace dagrt {
namespace {

/// One value for each of n columns: shape [n], or that behind axes of 1.
bool is_row(const TensorType& t, const Dim& n) {
  for (int i = 0; i + 1 < t.rank(); i++)
    if (!t.shape[size_t(i)].is(1)) return false;
  return t.rank() >= 1 && t.shape.back() == n;
}

bool is_scalar(const TensorType& t) {
  for (const Dim& d : t.shape)
    if (!d.is(1)) return false;
  return true;
}

/// product (+ bias) (+ residual), then a rounding to bfloat16, a relu, perhaps up to a ceiling, both or nothing: the order in which
/// `finish` adds, so that no bit changes.
bool recognise(const Chain& p, Epilogue& e) {
  int at = 0;  // the chain's value so far
  for (size_t i = 0; i < p.steps.size(); i++) {
    const FusedInstruction& c = e.code[i];
    if ((c.f == Functor::relu_ || c.f == Functor::relu6_) && c.arg[0] == at && !e.relu) {
      e.relu = true;
      if (c.f == Functor::relu6_) e.ceiling = 6;
    } else if (c.f == Functor::round_bfloat16_ && c.arg[0] == at && !e.round) {
      e.round = true;
    } else if (c.f == Functor::add_ && !e.relu && !e.round && (c.arg[0] == at || c.arg[1] == at) && c.arg[0] != c.arg[1]) {
      int other = c.arg[0] == at ? c.arg[1] : c.arg[0];
      if (other < 1 || other > e.operands || e.scalar[other - 1] || e.residual) return false;
      if (e.row_stride[other - 1] == 0) {
        if (e.bias) return false;
        e.bias = e.data[other - 1];
      } else {
        e.residual = e.data[other - 1];
        e.ld_residual = e.row_stride[other - 1];
      }
    } else {
      return false;
    }
    at = 1 + e.operands + int(i);
  }
  return true;
}

/// product (+ other), kept where an operand is above zero (relu's gradient), and below a number too (relu6's).
void recognise_mask(const Chain& p, Epilogue& e) {
  const size_t n = p.steps.size();
  struct Condition {
    int result = -1, operand = 0;
  } above, below;
  float limit = 0;
  bool kept_above = false, kept_below = false;
  auto full = [&](int v) { return v >= 1 && v <= e.operands && !e.scalar[v - 1] && e.row_stride[v - 1]; };
  auto zero = [&](int v) { return v < 0 && e.constants[-1 - v] == 0 && !std::signbit(e.constants[-1 - v]); };
  int at = 0, other = 0;  // the chain's value so far; what is added to it
  for (size_t i = 0; i < n; i++) {
    const FusedInstruction& c = e.code[i];
    const int result = 1 + e.operands + int(i);
    if (c.f == Functor::add_ && !other && !kept_above && !kept_below && (c.arg[0] == at) != (c.arg[1] == at) &&
        full(c.arg[0] == at ? c.arg[1] : c.arg[0])) {
      other = c.arg[0] == at ? c.arg[1] : c.arg[0];
      at = result;
    } else if (c.f == Functor::greater_ && above.result < 0 && full(c.arg[0]) && zero(c.arg[1])) {
      above = {result, c.arg[0]};
    } else if (c.f == Functor::less_ && below.result < 0 && full(c.arg[0]) && c.arg[1] < 0) {
      below = {result, c.arg[0]};
      limit = e.constants[-1 - c.arg[1]];
    } else if (c.f == Functor::select_ && c.arg[1] == at && zero(c.arg[2]) &&
               (c.arg[0] == above.result || c.arg[0] == below.result)) {
      (c.arg[0] == above.result ? kept_above : kept_below) = true;
      at = result;
    } else {
      return;
    }
  }
  if (!kept_above || at != e.operands + int(n) || kept_below != (below.result >= 0) ||
      (kept_below && (below.operand != above.operand || !(limit > 0))))
    return;
  e.mask = e.data[above.operand - 1], e.ld_mask = e.row_stride[above.operand - 1];
  if (kept_below) e.mask_most = std::nextafter(limit, 0.0f);
  if (other) e.masked = e.data[other - 1], e.ld_masked = e.row_stride[other - 1];
}

}  // namespace

void check_epilogue(const InferContext& c, const EpilogueAttrs& a, size_t first, const TensorType& y) {
  const int extras = int(c.in.size()) - int(first);
  if (extras <= 0 && a.epilogue.empty()) return;
  if (a.epilogue.empty()) c.fail(ErrorKind::graph, extras, " extra inputs, but no epilogue that takes them");
  if (extras > epilogue_operands)
    c.fail(ErrorKind::graph, "an epilogue takes at most ", epilogue_operands, " extra inputs, got ", extras);
  DType in[1 + epilogue_operands] = {DType::float32};
  for (int k = 0; k < extras; k++) {
    const TensorType& t = c.in[first + size_t(k)];
    if (t.absent) c.fail(ErrorKind::graph, "extra input ", k + 1, " of the epilogue is absent");
    if (!is_scalar(t) && !is_row(t, y.shape.back()) && t.shape != y.shape)
      c.fail(ErrorKind::shape, "an epilogue's extra input must be a scalar, [", y.shape.back().text(), "] or ", text(y.shape),
             ", got ", text(t.shape));
    in[1 + k] = t.dtype;
    if (t.dtype != DType::float32) c.fail(ErrorKind::dtype, "an epilogue's extra inputs must be float32, got ", name_of(t.dtype));
  }
  FusedInstruction code[fused_instructions];
  DType result;
  if (int line = a.chain.flow(1 + extras, in, code, &result); line >= 0)
    c.fail(ErrorKind::dtype, "instruction \"", a.epilogue[size_t(line)], "\" of the epilogue does not fit the product and ",
           extras, " extra inputs");
  if (result != DType::float32) c.fail(ErrorKind::dtype, "an epilogue must give float32, got ", name_of(result));
}

bool may_pool(const EpilogueAttrs& a, size_t first, const Types& in) {
  const bool bias = in.size() > first;
  if (bias && (in.size() > first + 1 || !is_row(in[first], in[first].shape.back()) || is_scalar(in[first]))) return false;
  int at = 0;
  bool relu = false, round = false;
  for (size_t i = 0; i < a.epilogue.size(); i++) {
    const std::string &line = a.epilogue[i], value = " " + std::to_string(at);
    if (bias && i == 0) {
      if (line != "add 0 1" && line != "add 1 0") return false;
    } else if (line == "relu" + value && !relu) {
      relu = true;
    } else if (line == "round_bfloat16" + value && !round) {
      round = true;
    } else {
      return false;
    }
    at = 1 + int(bias) + int(i);
  }
  return !bias || at != 0;
}

void check_narrow_epilogue(const InferContext& c, const EpilogueAttrs& a, DType result) {
  if (result != DType::float32 && !may_pool(a, 2, c.in))
    c.fail(ErrorKind::graph, "an epilogue of a result of ", name_of(result), " adds a bias and does a relu, or less");
}

TensorType pooled(const InferContext& c, const PooledAttrs& p, const EpilogueAttrs& a, size_t first, TensorType y) {
  if (p.pool == std::vector<int64_t>{1, 1}) return y;
  if (p.pool != std::vector<int64_t>{2, 2}) c.fail(ErrorKind::graph, "pool must be [1, 1] or [2, 2]; use max_pool2d");
  if (!may_pool(a, first, c.in)) c.fail(ErrorKind::graph, "with pool, an epilogue adds a bias, rounds and does a relu, or less");
  for (size_t axis : {1, 2}) y.shape[axis] = floor_div(y.shape[axis], Dim(2));
  return y;
}

Epilogue read_epilogue(const RunContext& c, const EpilogueAttrs& a, int first) {
  Epilogue e;
  if (a.epilogue.empty()) return e;
  e.operands = c.inputs - first;
  e.count = int(a.chain.steps.size());
  DType in[1 + epilogue_operands] = {DType::float32}, result;
  for (int k = 0; k < e.operands; k++) {
    const View& x = c.in[first + k];
    in[1 + k] = DType::float32;
    e.data[k] = x.as<const float>();
    e.scalar[k] = x.elements() == 1;
    e.row_stride[k] = x.rows() == 1 ? 0 : x.ld;
  }
  a.chain.flow(1 + e.operands, in, e.code, &result);
  for (size_t k = 0; k < a.chain.constants.size(); k++) e.constants[k] = a.chain.constants[k];
  e.simple = recognise(a.chain, e) && !(e.round && c.stream.cuda);
  if (!e.simple) {
    e.bias = e.residual = nullptr, e.relu = e.round = false, e.ceiling = std::numeric_limits<float>::infinity();
    recognise_mask(a.chain, e);
  }
  return e;
}

Cost with_epilogue(Cost cost, const EpilogueAttrs& a, size_t first, const Types& in, const TensorType& y) {
  cost.flops += a.chain.element_flops() * double(y.elements());
  for (size_t k = first; k < in.size(); k++) cost.bytes += double(in[k].bytes());
  return cost;
}

void no_epilogue(const GradContext& c, const EpilogueAttrs& a) {
  if (!a.epilogue.empty())
    fail(ErrorKind::graph, c.node.op->name,
         ": a node with an epilogue has no gradient; write the pointwise ops behind it, passes fuse them after gradients");
}

}  // namespace dagrt
