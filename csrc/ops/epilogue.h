// The epilogue of a producer (kernels/epilogue.h) as its ops see it: two attributes, and extra inputs behind its own.
//   epilogue            a program as in the op `pointwise` (ops/program.h): operand 0 is the product, 1.. the extra inputs
//   epilogue_constants  its constants
// An extra input is a scalar, one value for each of y's last axis, or of y's shape; float32. A node with an epilogue is made
// by passes after gradients: it has none.
#pragma once
#include "kernels/epilogue.h"
#include "ops/op.h"
#include "ops/program.h"

namespace dagrt {

/// Base of a producer's attributes: it calls visit_epilogue last in its `visit`.
struct EpilogueAttrs {
  std::vector<std::string> epilogue;
  std::vector<double> epilogue_constants;
  Chain chain;  // the program read

  template <class V> void visit_epilogue(V& v) {
    if (std::is_same_v<V, attr_detail::Writer> && epilogue.empty()) return;  // most producers have none: files stay short
    v("epilogue", epilogue, std::vector<std::string>{});
    v("epilogue_constants", epilogue_constants, std::vector<double>{});
  }
  void prepare(const std::string& op) { chain.read(op, epilogue, epilogue_constants); }
};

/// Of a convolution's attributes: maximum pooling of what it has finished, in windows of pool[0] x pool[1] pixels side by side;
/// a rest at the end of a row or column is dropped. Called before visit_epilogue.
struct PooledAttrs {
  std::vector<int64_t> pool{1, 1};
  template <class V> void visit_pool(V& v) {
    if (std::is_same_v<V, attr_detail::Writer> && pool == std::vector<int64_t>{1, 1}) return;  // as most are
    v("pool", pool, std::vector<int64_t>{1, 1});
  }
};

/// Whether an epilogue of these extra inputs may stand before a pooling: a bias and a relu, or less.
bool may_pool(const EpilogueAttrs& a, size_t first, const Types& in);

/// The type of y pooled.
TensorType pooled(const InferContext& c, const PooledAttrs& p, const EpilogueAttrs& a, size_t first, TensorType y);

/// The same of a product that is rounded to `result`, if that is not float32.
void check_narrow_epilogue(const InferContext& c, const EpilogueAttrs& a, DType result);

/// Checks the extra inputs, those from `first` on, and the program against the product's type.
void check_epilogue(const InferContext& c, const EpilogueAttrs& a, size_t first, const TensorType& y);

/// What the kernel runs. The common chains are recognised: product + bias + residual, each optional, then relu.
Epilogue read_epilogue(const RunContext& c, const EpilogueAttrs& a, int first);

/// Adds the epilogue's work to the product's.
Cost with_epilogue(Cost cost, const EpilogueAttrs& a, size_t first, const Types& in, const TensorType& y);

/// A GraphError where the node has one: for the producers' gradients.
void no_epilogue(const GradContext& c, const EpilogueAttrs& a);

}  // namespace dagrt
