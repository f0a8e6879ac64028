// Tiles of Winograd convolutions: where they lie, their pixels, their way through the input transform.
#pragma once
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/winograd_transform.h"

namespace dagrt::DAGRT_ISA {
namespace {

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

struct TilePlace {
  int64_t image, row, column;
};
TilePlace place(int64_t tile, int64_t tiles_h, int64_t tiles_w) {
  return {tile / tiles_w / tiles_h, tile / tiles_w % tiles_h, tile % tiles_w};
}

/// Pointers to the k x k pixels from (h, w) on; those outside of the image: to zeros.
template <int k>
void pixels(const float* image, int64_t H, int64_t W, int64_t ld, int64_t h, int64_t w, const float* zeros, const float** px) {
  if (h >= 0 && h + k <= H && w >= 0 && w + k <= W) {
    const float* row = image + (h * W + w) * ld;
    for (int r = 0; r < k; r++, row += W * ld)
#pragma GCC unroll 8
      for (int s = 0; s < k; s++) *px++ = row + s * ld;
    return;
  }
  for (int r = 0; r < k; r++, h++, px += k) {
    const bool inside = h >= 0 && h < H;
    const float* row = image + (h * W + w) * ld;
    for (int s = 0; s < k; s++) px[s] = inside && w + s >= 0 && w + s < W ? row + s * ld : zeros;
  }
}

/// Fetches pixels to come to L2: columns [first, end) of a tile of n x n pixels, `away` floats on. A call is one of the steps of a
/// loop over the channels; each fetches its share, whole pixels one after another, as memory likes it.
template <int n, int first, int end>
DAGRT_INLINE void fetch(const float* const* px, int64_t away, int64_t step, int64_t steps, int64_t channels) {
  constexpr int columns = end - first;
  for (int64_t i = step * n * columns / steps, stop = (step + 1) * n * columns / steps; i < stop; i++) {
    const float* pixel = px[i / columns * n + first + i % columns] + away;
    for (int64_t c = 0; c < channels; c += 16) __builtin_prefetch(pixel + c, 0, 2);
  }
}

/// f(0), ..., f(n - 1); rolled: by a loop that stays one.
template <int n, bool rolled, class F> DAGRT_INLINE void each_line(const F& f) {
  if (rolled) {
#pragma GCC unroll 1
    for (int i = 0; i < n; i++) f(i);
  } else {
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) f(i);
  }
}

/// Channels [c, c + lanes) of a tile: B' d B, rows by TH, columns by TW; put(r, s, value) takes each point. The pointers to
/// a row's pixels stand `row` apart.
template <class TH, class TW, bool full, bool rolled, class Put>
DAGRT_INLINE void transform_input(const float* const* px, int64_t row, int64_t c, int lanes, const Put& put) {
  vf t[TH::n][TW::n];
  each_line<TH::n, rolled>([&](int r) __attribute__((always_inline)) {
    vf d[TW::n];
#pragma GCC unroll 8
    for (int s = 0; s < TW::n; s++) d[s] = full ? load(px[r * row + s] + c) : load_n(px[r * row + s] + c, lanes);
    TW::input(d, t[r]);
  });
  each_line<TW::n, rolled>([&](int s) __attribute__((always_inline)) {
    vf d[TH::n], out[TH::n];
#pragma GCC unroll 8
    for (int r = 0; r < TH::n; r++) d[r] = t[r][s];
    TH::input(d, out);
#pragma GCC unroll 8
    for (int r = 0; r < TH::n; r++) put(r, s, out[r]);
  });
}

/// The same of a square tile, to the n² points of v.
template <class T, bool full>
DAGRT_INLINE void transform_input(const float* const* px, int64_t c, int lanes, float* v, int64_t v_point) {
  transform_input<T, T, full, true>(px, T::n, c, lanes, [&](int r, int s, vf value) __attribute__((always_inline)) {
    store(v + (r * T::n + s) * v_point, value);
  });
}

}  // namespace
}  // namespace dagrt::DAGRT_ISA
