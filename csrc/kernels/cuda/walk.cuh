// How threads walk an index space in which operands broadcast.
//
// A thread takes four neighbours of the innermost axis at once where those of every operand lie side by side and aligned (16
// bytes of float32), and takes turns along one other axis, that along which most operands are broadcast: what does not move
// there is read once for all turns. Turns lie as far apart as the axis has starts, so that neighbouring threads stay neighbours.
#pragma once
#include "kernels/cuda/common.cuh"

namespace dagrt {
namespace {

constexpr int walk_threads = 256, walk_width = 4;

/// Neighbours in memory, read or written at once.
template <class T, int n> struct alignas(sizeof(T) * n) Pack {
  T v[n];
};

/// A thread's turns begin at starts.offsets(), whose last number counts on to `length`, `apart` at a turn.
template <int most> struct Walk {
  Space<most + 1> starts;
  int64_t step[most] = {};  // of each operand, in a turn
  bool spread[most] = {};   // not moving along the innermost axis
  int64_t length = 1, apart = 1;
  bool wide = false;

  unsigned blocks(const CudaStream& s) const { return blocks_for(s, starts.total, walk_threads); }
  /// Calls f(places, whether it is a thread's first turn).
  template <class F> DAGRT_DEVICE void each_turn(const F& f) const {
    const int operands = starts.operands - 1;
#pragma unroll 1
    for (int64_t i = first_index(); i < starts.total; i += grid_stride()) {
      int64_t at[most + 1];
      starts.offsets(i, at);
      const int64_t begin = at[operands];
#pragma unroll 1
      for (int64_t place = begin; place < length; place += apart) {
        f(at, place == begin);
#pragma unroll 1
        for (int k = 0; k < operands; k++) at[k] += step[k];
      }
    }
  }
};

/// Of an index space with strides[operand][axis], the first operand being written; `sizes`: bytes of their elements; `wide`:
/// whether the kernel can take four at once.
template <int most>
Walk<most> walk_of(const CudaStream& s, int operands, int rank, const int64_t* dims, const int64_t (*strides)[8],
                   const void* const* data, const int64_t* sizes, bool wide) {
  Space<most> all;
  all.operands = operands;
  for (int d = 0; d < rank; d++) {
    int64_t of_axis[most];
    for (int k = 0; k < operands; k++) of_axis[k] = strides[k][d];
    all.add_axis(dims[d], of_axis);
  }
  Walk<most> w;
  const int last = all.rank - 1;
  w.wide = wide && last >= 0 && all.dims[last] % walk_width == 0;
  for (int k = 0; k < operands && last >= 0; k++) {
    w.spread[k] = all.stride[k][last] == 0;
    if (k && w.spread[k]) continue;
    w.wide = w.wide && all.stride[k][last] == 1 && reinterpret_cast<uintptr_t>(data[k]) % uintptr_t(walk_width * sizes[k]) == 0;
    for (int d = 0; d < last; d++) w.wide = w.wide && all.stride[k][d] % walk_width == 0;
  }
  int along = -1, most_still = 0;
  for (int d = 0; d < last; d++) {
    int still = 0;
    for (int k = 1; k < operands; k++) still += all.stride[k][d] == 0 && !w.spread[k];
    if (still > most_still || (still && still == most_still && all.dims[d] > all.dims[along])) along = d, most_still = still;
  }
  const int64_t width = w.wide ? walk_width : 1;
  if (along >= 0) {  // as many turns as leave the device full
    const int64_t turns = all.total / (width * int64_t(s.multiprocessors) * 1024);
    w.length = all.dims[along];
    w.apart = pieces(w.length, larger(4, smaller(turns, 16)));
  }
  w.starts.operands = operands + 1;
  for (int d = 0; d <= last; d++) {
    const int64_t pace = d == last ? width : 1;
    int64_t of_axis[most + 1];
    for (int k = 0; k < operands; k++) {
      of_axis[k] = all.stride[k][d] * pace;
      if (d == along) w.step[k] = of_axis[k] * w.apart;
    }
    of_axis[operands] = d == along;
    w.starts.add_axis(d == along ? w.apart : all.dims[d] / pace, of_axis);
  }
  if (all.total == 0) w.starts.total = 0;
  w.starts.finish();
  return w;
}

}  // namespace
}  // namespace dagrt
