// Tiles of an image in shared memory, for windows that overlap: 32 channels side by side in a warp's lanes, pixels over eight
// warps. A tile of results needs a patch of the other side's pixels, each of which is read once.
#pragma once
#include "kernels/cuda/common.cuh"

namespace dagrt {
namespace {

constexpr int tile_lanes = 32, tile_warps = 8, tile_threads = tile_lanes * tile_warps;
constexpr size_t most_tile_bytes = 47 << 10;  // of 48 KB, 1 for what is static

/// Tiles of `high` x `wide` results, from at most `rows` x `across` pixels of the other side.
struct Tiles {
  int64_t high = 8, wide = 16, rows = 0, across = 0, down = 0, along = 0, groups = 0;
  bool fit = false;
  size_t bytes() const { return size_t(rows * across) * tile_lanes * 4; }
  int64_t count(int64_t images) const { return images * down * along * groups; }
};

/// Results H x W, each from `reach(n)` pixels for n of them. `bytes(tiles)`: shared memory that such tiles take.
template <class ReachH, class ReachW, class Bytes>
Tiles tiles_of(int64_t H, int64_t W, int64_t C, const ReachH& reach_h, const ReachW& reach_w, const Bytes& bytes) {
  Tiles t;
  for (;;) {
    t.rows = reach_h(t.high), t.across = reach_w(t.wide);
    t.fit = bytes(t) <= most_tile_bytes;
    if (t.fit || t.high * t.wide == 1) break;
    (t.wide > t.high ? t.wide : t.high) /= 2;
  }
  t.down = pieces(H, t.high), t.along = pieces(W, t.wide), t.groups = pieces(C, tile_lanes);
  return t;
}

/// A tile's place: image, first row and column of the results; its thread's channel.
struct TilePlace {
  int64_t b, h, w, c;
  DAGRT_DEVICE TilePlace(const Tiles& t, int64_t i) {
    c = i % t.groups * tile_lanes + threadIdx.x, i /= t.groups;
    w = i % t.along * t.wide, i /= t.along;
    h = i % t.down * t.high, b = i / t.down;
  }
};

}  // namespace
}  // namespace dagrt
