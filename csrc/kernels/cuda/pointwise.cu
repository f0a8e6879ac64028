// Pointwise functors and chains of them, with broadcasting.
//
// A chain is interpreted: every thread takes an element through all instructions, its values in an array of its own (local
// memory, which L1 holds), so that device memory is read once for each operand and written once. All threads take the same
// branch of each switch. Operands that lie contiguously cost no index arithmetic: axes are merged on the host.
// 16-bit floats are converted where they are read and written.
#include "kernels/pointwise.h"

#include "kernels/cuda/functors.cuh"

namespace dagrt {
namespace {

constexpr int threads = 256;

template <class Args, int most> Space<most> space_of(const Args& a, int operands) {
  Space<most> s;
  s.operands = operands;
  for (int d = 0; d < a.rank; d++) {
    int64_t strides[most];
    for (int k = 0; k < operands; k++) strides[k] = a.strides[k][d];
    s.add_axis(a.dims[d], strides);
  }
  s.finish();
  return s;
}

DAGRT_DEVICE float read(const void* p, DType t, int64_t at) {
  switch (t) {
    case DType::float32: return static_cast<const float*>(p)[at];
    case DType::bfloat16: return widen(static_cast<const Bf16*>(p)[at]);
    case DType::float16: return widen(static_cast<const Half*>(p)[at]);
    default: return float(static_cast<const uint8_t*>(p)[at]);
  }
}
DAGRT_DEVICE void write(void* p, DType t, int64_t at, float v) {
  switch (t) {
    case DType::float32: static_cast<float*>(p)[at] = v; break;
    case DType::bfloat16: narrow(v, static_cast<Bf16*>(p)[at]); break;
    case DType::float16: narrow(v, static_cast<Half*>(p)[at]); break;
    default: static_cast<uint8_t*>(p)[at] = v != 0;
  }
}

/// What a chain needs, small enough for a kernel's parameters.
struct Chain {
  int operands, count;
  FusedInstruction code[fused_instructions];
  float constants[fused_constants];
  void* data[1 + fused_inputs];
  DType dtype[1 + fused_inputs];
};

__global__ void chain_kernel(Gate gate, Chain c, Space<1 + fused_inputs> space) {
  if (closed(gate)) return;
  for (int64_t i = first_index(); i < space.total; i += grid_stride()) {
    int64_t at[1 + fused_inputs];
    space.offsets(i, at);
    float v[fused_inputs + fused_instructions];
    for (int k = 0; k < c.operands; k++) v[k] = read(c.data[1 + k], c.dtype[1 + k], at[1 + k]);
    for (int n = 0; n < c.count; n++) {
      const FusedInstruction& code = c.code[n];
      float x[3] = {};
      for (int k = 0; k < 3; k++)
        if (k < code.operands) x[k] = code.arg[k] < 0 ? c.constants[-1 - code.arg[k]] : v[code.arg[k]];
      v[c.operands + n] = apply(code.f, x[0], x[1], x[2]);
    }
    write(c.data[0], c.dtype[0], at[0], v[c.operands + c.count - 1]);
  }
}

struct Single {
  Functor f;
  int operands;
  void* data[4];
  DType dtype[4];
};

__global__ void float_kernel(Gate gate, Single c, Space<4> space) {
  if (closed(gate)) return;
  for (int64_t i = first_index(); i < space.total; i += grid_stride()) {
    int64_t at[4];
    space.offsets(i, at);
    float a = read(c.data[1], c.dtype[1], at[1]);
    float b = c.operands > 1 ? read(c.data[2], c.dtype[2], at[2]) : 0.0f;
    write(c.data[0], c.dtype[0], at[0], apply(c.f, a, b, 0.0f));
  }
}

template <class T, class R> __global__ void integer_kernel(Gate gate, Single c, Space<4> space) {
  if (closed(gate)) return;
  for (int64_t i = first_index(); i < space.total; i += grid_stride()) {
    int64_t at[4];
    space.offsets(i, at);
    T a = static_cast<const T*>(c.data[1])[at[1]];
    T b = c.operands > 1 ? static_cast<const T*>(c.data[2])[at[2]] : T(0);
    static_cast<R*>(c.data[0])[at[0]] = R(apply_integer<T>(c.f, a, b));
  }
}

/// select and copy move whole elements of any type.
template <class T> __global__ void select_kernel(Gate gate, Single c, Space<4> space) {
  if (closed(gate)) return;
  for (int64_t i = first_index(); i < space.total; i += grid_stride()) {
    int64_t at[4];
    space.offsets(i, at);
    int from = c.operands == 1 ? 1 : static_cast<const uint8_t*>(c.data[1])[at[1]] ? 2 : 3;
    static_cast<T*>(c.data[0])[at[0]] = static_cast<const T*>(c.data[from])[at[from]];
  }
}

// float to integer: truncates, saturates, NaN gives 0
DAGRT_DEVICE void convert(float a, int32_t& y) {
  y = a != a ? 0 : a >= 2147483648.0f ? INT32_MAX : a < -2147483648.0f ? INT32_MIN : int32_t(a);
}
DAGRT_DEVICE void convert(float a, int64_t& y) {
  y = a != a ? 0 : a >= 9223372036854775808.0f ? INT64_MAX : a < -9223372036854775808.0f ? INT64_MIN : int64_t(a);
}
DAGRT_DEVICE void convert(float a, uint8_t& y) { y = a > 0 ? (a >= 255 ? uint8_t(255) : uint8_t(a)) : uint8_t(0); }
DAGRT_DEVICE void convert(float a, float& y) { y = a; }
DAGRT_DEVICE void convert(float a, Bf16& y) { narrow(a, y); }
DAGRT_DEVICE void convert(float a, Half& y) { narrow(a, y); }
DAGRT_DEVICE float as_float(int32_t a) { return float(a); }
DAGRT_DEVICE float as_float(int64_t a) { return float(a); }
DAGRT_DEVICE float as_float(uint8_t a) { return float(a); }

template <class From, class To, bool to_bool> __global__ void cast_kernel(Gate gate, Single c, Space<4> space) {
  if (closed(gate)) return;
  for (int64_t i = first_index(); i < space.total; i += grid_stride()) {
    int64_t at[4];
    space.offsets(i, at);
    From a = static_cast<const From*>(c.data[1])[at[1]];
    To& y = static_cast<To*>(c.data[0])[at[0]];
    if constexpr (std::is_same_v<From, float> || sizeof(From) == 2) {
      float x = widen(a);
      if constexpr (to_bool)
        y = x != 0;
      else
        convert(x, y);
    } else if constexpr (to_bool) {
      y = a != From(0);
    } else if constexpr (std::is_same_v<To, float> || sizeof(To) == 2) {
      narrow(as_float(a), y);
    } else {
      y = To(a);
    }
  }
}

}  // namespace

void fused_pointwise(const FusedArgs& a, CudaStream& s) {
  Space<1 + fused_inputs> space = space_of<FusedArgs, 1 + fused_inputs>(a, a.operands + 1);
  if (space.total == 0) return;
  Chain c{};
  c.operands = a.operands, c.count = a.count;
  for (int i = 0; i < a.count; i++) c.code[i] = a.code[i];
  for (int i = 0; i < fused_constants; i++) c.constants[i] = a.constants[i];
  for (int k = 0; k <= a.operands; k++) c.data[k] = a.data[k], c.dtype[k] = a.dtype[k];
  launch(s, "pointwise", chain_kernel, blocks_for(s, space.total, threads), threads, c, space);
}

void pointwise(const PointwiseArgs& a, CudaStream& s) {
  Space<4> space = space_of<PointwiseArgs, 4>(a, a.operands + 1);
  if (space.total == 0) return;
  Single c{a.f, a.operands, {}, {}};
  for (int k = 0; k <= a.operands; k++) c.data[k] = a.data[k], c.dtype[k] = a.dtype[k];
  const dim3 grid(blocks_for(s, space.total, threads));
  if (a.f == Functor::select_ || a.f == Functor::copy_)
    return with_element(int64_t(size_of(a.dtype[0])),
                        [&](auto t) { launch(s, "select", select_kernel<decltype(t)>, grid, threads, c, space); });
  if (a.f == Functor::cast_)
    return with_dtype(a.dtype[1], [&](auto from) {
      if (a.dtype[0] == DType::bool_) return launch(s, "cast", cast_kernel<decltype(from), uint8_t, true>, grid, threads, c, space);
      with_dtype(a.dtype[0], [&](auto to) {
        launch(s, "cast", cast_kernel<decltype(from), decltype(to), false>, grid, threads, c, space);
      });
    });
  if (is_float(a.dtype[1])) return launch(s, "pointwise_float", float_kernel, grid, threads, c, space);
  with_dtype(a.dtype[1], [&](auto t) {
    using T = decltype(t);
    if constexpr (std::is_same_v<T, int32_t> || std::is_same_v<T, int64_t> || std::is_same_v<T, uint8_t>) {
      if (a.dtype[0] == DType::bool_)
        launch(s, "pointwise_integer", integer_kernel<T, uint8_t>, grid, threads, c, space);
      else
        launch(s, "pointwise_integer", integer_kernel<T, T>, grid, threads, c, space);
    }
  });
}

}  // namespace dagrt
