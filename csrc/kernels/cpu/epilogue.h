// Finishing tiles of a product (kernels/epilogue.h): the common chains on vectors in a micro-kernel's registers, any chain
// on a tile in L1. A value depends on its own operands alone, so how a kernel cuts y into tiles changes no bit.
#pragma once
#include "kernels/cpu/vec_math.h"
#include "kernels/epilogue.h"

namespace dagrt::DAGRT_ISA {

/// A simple chain's fields by value: read through a reference, they would be loaded again after every store. Of another
/// chain: nothing to do, but `finishing` knows a relu's gradient too.
struct SimpleEpilogue {
  const float *bias = nullptr, *residual = nullptr;
  int64_t ld_residual = 0;
  bool relu = false, capped = false, round = false;  // relu up to `ceiling`
  float ceiling = __builtin_inff();
  SimpleEpilogue() = default;
  explicit SimpleEpilogue(const Epilogue& e)
      : bias(e.simple ? e.bias : nullptr),
        residual(e.simple ? e.residual : nullptr),
        ld_residual(e.ld_residual),
        relu(e.simple && e.relu),
        capped(e.simple && e.relu && e.ceiling < __builtin_inff()),
        round(e.simple && e.round),
        ceiling(e.ceiling) {}
  const float* mask = nullptr;
  int64_t ld_mask = 0;
  float mask_most = __builtin_inff();
  bool empty() const { return !bias && !residual && !relu && !round && !mask; }
};

/// Whether `finishing` gives all of the chain.
inline bool finishes(const Epilogue& e) { return e.simple || e.mask; }
inline SimpleEpilogue finishing(const Epilogue& e) {
  SimpleEpilogue s(e);
  if (!e.mask) return s;
  s.mask = e.mask, s.ld_mask = e.ld_mask, s.mask_most = e.mask_most;
  s.residual = e.masked, s.ld_residual = e.ld_masked;
  return s;
}

DAGRT_INLINE vf activate(const SimpleEpilogue& e, vf t) {
  if (e.round) t = vround_bfloat16(t);
  if (!e.relu) return t;
  t = relu(t);
  return e.capped ? at_most(t, splat(e.ceiling)) : t;
}

/// t where the relu whose gradient this is let its operand through.
DAGRT_INLINE vf masked(const SimpleEpilogue& e, vf mask, vf t) {
  return select((mask > splat(0)) & (mask <= splat(e.mask_most)), t, vf{});
}

/// A simple chain on n (1..V) columns of y's row `row`, from `column` on; t is the product there.
DAGRT_INLINE vf finish(const SimpleEpilogue& e, vf t, int64_t row, int64_t column, int n) {
  if (e.bias) t += n == V ? load(e.bias + column) : load_n(e.bias + column, n);
  if (e.residual) {
    const float* at = e.residual + row * e.ld_residual + column;
    t += n == V ? load(at) : load_n(at, n);
  }
  if (e.mask) {
    const float* at = e.mask + row * e.ld_mask + column;
    t = masked(e, n == V ? load(at) : load_n(at, n), t);
  }
  return activate(e, t);
}

/// Runs the chain on a tile of `rows` rows, `ld` apart, of n columns: y[row.., column..]. Defined in pointwise.cpp.
void apply_epilogue(const Epilogue& e, float* tile, int64_t ld, int64_t row, int64_t column, int64_t rows, int64_t n);

}  // namespace dagrt::DAGRT_ISA
