// Pointwise functors and chains of them, with broadcasting.
//
// A chain is interpreted: every thread takes its elements (four at once where they lie side by side: walk.cuh) through all
// instructions, their values in an array of its own (local memory, which L1 holds), so that device memory is read once for each
// operand and written once. All threads take the same branch of each switch. Operands that lie contiguously cost no index
// arithmetic: axes are merged on the host. 16-bit floats are converted where they are read and written.
#include "kernels/pointwise.h"

#include "kernels/cuda/functors.cuh"
#include "kernels/cuda/walk.cuh"

namespace dagrt {
namespace {

template <class Args, int most> Walk<most> walk_over(const CudaStream& s, const Args& a, int operands, bool wide) {
  int64_t sizes[most];
  for (int k = 0; k < operands; k++) sizes[k] = int64_t(size_of(a.dtype[k]));
  return walk_of<most>(s, operands, a.rank, a.dims, a.strides, a.data, sizes, wide);
}

DAGRT_DEVICE float as_float(float a) { return a; }
DAGRT_DEVICE float as_float(Bf16 a) { return widen(a); }
DAGRT_DEVICE float as_float(Half a) { return widen(a); }
DAGRT_DEVICE float as_float(int32_t a) { return float(a); }
DAGRT_DEVICE float as_float(int64_t a) { return float(a); }
DAGRT_DEVICE float as_float(uint8_t a) { return float(a); }

/// `spread`: one element stands for all.
template <int width, class T> DAGRT_DEVICE Pack<T, width> read_as(const void* p, int64_t at, bool spread) {
  const T* from = static_cast<const T*>(p) + at;
  if (width == 1 || !spread) return *reinterpret_cast<const Pack<T, width>*>(from);
  Pack<T, width> x;
  x.v[0] = *from;
  for (int i = 1; i < width; i++) x.v[i] = x.v[0];
  return x;
}
template <int width, class T> DAGRT_DEVICE void read_floats(const void* p, int64_t at, bool spread, float (&v)[width]) {
  const Pack<T, width> x = read_as<width, T>(p, at, spread);
  for (int i = 0; i < width; i++) v[i] = as_float(x.v[i]);
}
template <int width> DAGRT_DEVICE void read(const void* p, DType t, int64_t at, bool spread, float (&v)[width]) {
  switch (t) {
    case DType::float32: return read_floats<width, float>(p, at, spread, v);
    case DType::bfloat16: return read_floats<width, Bf16>(p, at, spread, v);
    case DType::float16: return read_floats<width, Half>(p, at, spread, v);
    default: return read_floats<width, uint8_t>(p, at, spread, v);
  }
}
DAGRT_DEVICE void narrow(float x, uint8_t& y) { y = x != 0; }
template <class T, int width> DAGRT_DEVICE void write_as(void* p, int64_t at, const float (&v)[width]) {
  Pack<T, width> y;
  for (int i = 0; i < width; i++) narrow(v[i], y.v[i]);
  *reinterpret_cast<Pack<T, width>*>(static_cast<T*>(p) + at) = y;
}
template <int width> DAGRT_DEVICE void write(void* p, DType t, int64_t at, const float (&v)[width]) {
  switch (t) {
    case DType::float32: return write_as<float>(p, at, v);
    case DType::bfloat16: return write_as<Bf16>(p, at, v);
    case DType::float16: return write_as<Half>(p, at, v);
    default: return write_as<uint8_t>(p, at, v);
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
using ChainWalk = Walk<1 + fused_inputs>;

template <int width>
__global__ void __launch_bounds__(walk_threads)
    chain_kernel(Gate gate, const __grid_constant__ Chain c, const __grid_constant__ ChainWalk walk) {
  if (closed(gate)) return;
  alignas(16) float v[fused_inputs + fused_instructions][width];
  walk.each_turn([&](const int64_t* at, bool first) {
    for (int k = 0; k < c.operands; k++)
      if (first || walk.step[1 + k]) read(c.data[1 + k], c.dtype[1 + k], at[1 + k], walk.spread[1 + k], v[k]);
    for (int n = 0; n < c.count; n++) {
      const FusedInstruction& code = c.code[n];
      float x[3][width] = {};
      for (int k = 0; k < 3; k++)
        for (int i = 0; i < width; i++)
          if (k < code.operands) x[k][i] = code.arg[k] < 0 ? c.constants[-1 - code.arg[k]] : v[code.arg[k]][i];
      apply(code.f, x[0], x[1], x[2]);
      for (int i = 0; i < width; i++) v[c.operands + n][i] = x[0][i];
    }
    write(c.data[0], c.dtype[0], at[0], v[c.operands + c.count - 1]);
  });
}

struct Single {
  Functor f;
  int operands;
  void* data[4];
  DType dtype[4];
};

template <int width> __global__ void __launch_bounds__(walk_threads) float_kernel(Gate gate, Single c, Walk<4> walk) {
  if (closed(gate)) return;
  float kept[2][width] = {}, none[width] = {};
  walk.each_turn([&](const int64_t* at, bool first) {
    for (int k = 0; k < 2; k++)
      if (k < c.operands && (first || walk.step[1 + k]))
        read(c.data[1 + k], c.dtype[1 + k], at[1 + k], walk.spread[1 + k], kept[k]);
    float a[width], b[width];
    for (int i = 0; i < width; i++) a[i] = kept[0][i], b[i] = kept[1][i];
    apply(c.f, a, b, none);
    write(c.data[0], c.dtype[0], at[0], a);
  });
}

template <class T, class R> __global__ void __launch_bounds__(walk_threads) integer_kernel(Gate gate, Single c, Walk<4> walk) {
  if (closed(gate)) return;
  walk.each_turn([&](const int64_t* at, bool) {
    T a = static_cast<const T*>(c.data[1])[at[1]];
    T b = c.operands > 1 ? static_cast<const T*>(c.data[2])[at[2]] : T(0);
    static_cast<R*>(c.data[0])[at[0]] = R(apply_integer<T>(c.f, a, b));
  });
}

/// select and copy move whole elements of any type.
template <int width, class T> __global__ void __launch_bounds__(walk_threads, 1) select_kernel(Gate gate, Single c, Walk<4> walk) {
  if (closed(gate)) return;
  Pack<T, width> kept[2]{};
  Pack<uint8_t, width> which{};
  const int from = c.operands == 1 ? 1 : 2;
  walk.each_turn([&](const int64_t* at, bool first) {
    if (from == 2 && (first || walk.step[1])) which = read_as<width, uint8_t>(c.data[1], at[1], walk.spread[1]);
    for (int k = 0; k < from; k++)
      if (first || walk.step[from + k]) kept[k] = read_as<width, T>(c.data[from + k], at[from + k], walk.spread[from + k]);
    Pack<T, width> y = kept[0];
    for (int i = 0; i < width; i++)
      if (from == 2 && !which.v[i]) y.v[i] = kept[1].v[i];
    *reinterpret_cast<Pack<T, width>*>(static_cast<T*>(c.data[0]) + at[0]) = y;
  });
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

template <class From, class To, bool to_bool>
__global__ void __launch_bounds__(walk_threads) cast_kernel(Gate gate, Single c, Walk<4> walk) {
  if (closed(gate)) return;
  walk.each_turn([&](const int64_t* at, bool) {
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
  });
}

}  // namespace

void fused_pointwise(const FusedArgs& a, CudaStream& s) {
  const ChainWalk walk = walk_over<FusedArgs, 1 + fused_inputs>(s, a, a.operands + 1, true);
  if (walk.starts.total == 0) return;
  Chain c{};
  c.operands = a.operands, c.count = a.count;
  for (int i = 0; i < a.count; i++) c.code[i] = a.code[i];
  for (int i = 0; i < fused_constants; i++) c.constants[i] = a.constants[i];
  for (int k = 0; k <= a.operands; k++) c.data[k] = a.data[k], c.dtype[k] = a.dtype[k];
  launch(s, "pointwise", walk.wide ? chain_kernel<walk_width> : chain_kernel<1>, walk.blocks(s), walk_threads, c, walk);
}

void pointwise(const PointwiseArgs& a, CudaStream& s) {
  const bool moves = a.f == Functor::select_ || a.f == Functor::copy_, floats = a.f != Functor::cast_ && is_float(a.dtype[1]);
  const Walk<4> walk = walk_over<PointwiseArgs, 4>(s, a, a.operands + 1, moves || floats);
  if (walk.starts.total == 0) return;
  Single c{a.f, a.operands, {}, {}};
  for (int k = 0; k <= a.operands; k++) c.data[k] = a.data[k], c.dtype[k] = a.dtype[k];
  const unsigned grid = walk.blocks(s);
  if (moves)
    return with_element(int64_t(size_of(a.dtype[0])), [&](auto t) {
      using T = decltype(t);
      launch(s, "select", walk.wide ? select_kernel<walk_width, T> : select_kernel<1, T>, grid, walk_threads, c, walk);
    });
  if (a.f == Functor::cast_)
    return with_dtype(a.dtype[1], [&](auto from) {
      if (a.dtype[0] == DType::bool_)
        return launch(s, "cast", cast_kernel<decltype(from), uint8_t, true>, grid, walk_threads, c, walk);
      with_dtype(a.dtype[0], [&](auto to) {
        launch(s, "cast", cast_kernel<decltype(from), decltype(to), false>, grid, walk_threads, c, walk);
      });
    });
  if (floats)
    return launch(s, "pointwise_float", walk.wide ? float_kernel<walk_width> : float_kernel<1>, grid, walk_threads, c, walk);
  with_dtype(a.dtype[1], [&](auto t) {
    using T = decltype(t);
    if constexpr (std::is_same_v<T, int32_t> || std::is_same_v<T, int64_t> || std::is_same_v<T, uint8_t>) {
      if (a.dtype[0] == DType::bool_)
        launch(s, "pointwise_integer", integer_kernel<T, uint8_t>, grid, walk_threads, c, walk);
      else
        launch(s, "pointwise_integer", integer_kernel<T, T>, grid, walk_threads, c, walk);
    }
  });
}

}  // namespace dagrt
