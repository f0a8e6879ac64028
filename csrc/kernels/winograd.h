// Convolution by Winograd's minimal filtering, channels last, float32, stride 1: fewer multiplications than the direct sum.
// F(tile x tile, window x window) makes tile² outputs from (tile + window - 1)² products for each channel and filter:
// F(4,3) 4 times fewer than the direct sum, F(2,3) 2.25 times, F(4,4) 5.2 times, F(4,5) 6.25 times. Tile 7, forward, is F(4,3) and
// F(3,3) side by side, 3.6 times, for maps of so few pixels that transformed weights would be waited for.
#pragma once
#include "kernels/epilogue.h"
#include "kernels/kernel.h"

namespace dagrt {

struct WinogradWeightsArgs {
  const float* w = nullptr;  // [window, window, C, F]
  float* u = nullptr;        // winograd_weights_size floats: panels of filters, then points, channels (winograd.cpp)
  int64_t C = 0, F = 0;      // of w
  int tile = 4, window = 3;
  bool transpose = false;  // filters turned by 180 degrees, channels and filters changed over: for the input gradient
};

struct WinogradArgs {
  // conv2d_winograd:             y[B,P,Q,F] from x[B,H,W,C] and the transformed weights u
  // conv2d_filter_grad_winograd: dw[window,window,C,F] from x and y, which is dy there
  const float* x = nullptr;
  const float* u = nullptr;
  float* y = nullptr;
  float* dw = nullptr;
  int64_t B = 0, H = 0, W = 0, C = 0, P = 0, Q = 0, F = 0;
  int64_t ldx = 0, ldy = 0;  // pixel strides of x and y
  int64_t pad_top = 0, pad_left = 0;
  int64_t up_h = 1, up_w = 1;  // forward: x has H / up_h rows of W / up_w pixels, each of which stands for up_h x up_w of them
  // Forward: of each pool x pool pixels (1 or 2; P and Q are multiples of it) the largest is stored, y[B,P/pool,Q/pool,F]. The
  // epilogue is a bias and a relu then, or less.
  int64_t pool = 1;
  int tile = 4, window = 3;
  Epilogue epilogue;
  char* workspace = nullptr;
};

DAGRT_CPU_KERNEL(winograd_weights, WinogradWeightsArgs)
DAGRT_CPU_KERNEL(conv2d_winograd, WinogradArgs)
DAGRT_CPU_KERNEL(conv2d_filter_grad_winograd, WinogradArgs)

/// Whether there is a transform for this window and tile: F(4,3), F(2,3), F(4,4), F(4,5), and forward 7 for 3x3.
bool winograd_applies(int64_t window_h, int64_t window_w, int64_t tile);

/// Floats of the transformed weights of C channels and F filters; the same for every instruction set.
int64_t winograd_weights_size(int64_t C, int64_t F, int64_t window, int64_t tile);

/// Bytes: shared by the threads, and for each of them.
struct WinogradMemory {
  size_t workspace = 0, scratch = 0;
};
WinogradMemory conv2d_winograd_memory(const WinogradArgs&);
WinogradMemory conv2d_filter_grad_winograd_memory(const WinogradArgs&);

/// Estimated time on one core of the instruction set in use, without the transform of the weights, which is beside it.
double conv2d_winograd_ns(const WinogradArgs&);
double conv2d_filter_grad_winograd_ns(const WinogradArgs&);
double winograd_weights_ns(int64_t C, int64_t F, int64_t window, int64_t tile);

/// Filters that the transformed weights are padded to a multiple of, and rows of a register tile of products.
inline constexpr int64_t winograd_filters = 32;
constexpr int winograd_rows(int lanes) { return lanes == 16 ? 14 : lanes == 8 ? 6 : 4; }

/// Register tiles of a block of tiles; now and then it is one more.
constexpr int winograd_groups(int lanes) { return lanes == 16 ? 2 : 5; }

/// How a forward convolution is cut up, for vectors of `lanes` floats: a function of its sizes alone.
struct WinogradPlan {
  int64_t tiles_h, tiles_w, tiles;    // of an image's height and width; in the batch
  int64_t blocks, block;              // runs of tiles that are worked on together, and the most tiles of one
  int64_t panels, strip, strips;      // panels of filters; panels in a strip, whose products stay in cache; strips
  int64_t channel_blocks;             // vectors of channels
  int64_t group;                      // tiles of a register tile, the most
  int64_t v_groups, v_point, v_size;  // of a block's transformed input: groups, floats from point to point, floats
  int64_t m_point, m_size;            // of a strip's products: floats from point to point, floats
  bool far, far_y;                    // x and y do not fit the inner caches: they are fetched ahead
  bool small;                         // blocks of one register tile, whose products stay in the innermost cache
  bool shared;                        // all of the input is transformed first, for all threads; else block by block
};
WinogradPlan winograd_plan(const WinogradArgs&, int lanes);

/// How a filter gradient is cut up: filters in groups, tiles in chunks, one after another; a chunk's products, point by point, into
/// a group's dU, in blocks of channels and panels of filters. Of more than one part, each has its run of tiles, its chunks and
/// its dU.
struct WinogradGradPlan {
  int64_t tiles_h, tiles_w, tiles, parts, chunks, chunk;  // chunks of a part
  // x transformed: channels of a block, blocks; floats from point to point, of a block, all. dy, of a group: filters of a panel and
  // so on
  int64_t v_width, v_blocks, v_point, v_block, v_size;
  int64_t y_width, y_panels, y_point, y_panel, y_size;
  int64_t group, groups;             // panels of a group, groups
  int64_t u_point, u_panel, u_size;  // dU of a block and a panel: floats from point to point, all; of a group
  bool whole;       // blocks enough for threads: each at all points by one of them, which makes dw of it at once,
  bool passing;     // and of one chunk: no dU but that of the block at hand
  bool far, far_y;  // x and dy do not fit the inner caches: they are fetched ahead
};
WinogradGradPlan winograd_grad_plan(const WinogradArgs&, int lanes);

/// How a forward convolution by tiles of 7 x 7 is cut up (winograd_seven.cpp).
struct WinogradSevenPlan {
  int64_t tiles_h, tiles_w, tiles;  // of an image's height and width; in the batch
  int64_t v_row, v_size;            // of a tile's transformed input: floats from one row of points to the next, floats
};
WinogradSevenPlan winograd_seven_plan(const WinogradArgs&, int lanes);

/// Channels of a register tile of filter gradients of few tiles.
constexpr int64_t winograd_mixed_channels(int lanes) { return lanes == 16 ? 4 : 2; }

/// How a filter gradient of few tiles, some of them of 3 rows or columns, is cut up (winograd_grad_mixed.cpp).
struct WinogradMixedPlan {
  int64_t tiles_h, tiles_w, tall, wide;  // of an image, and those of 4 rows, of 4 columns
  struct Row {                           // a row of points: the tiles that have it,
    int64_t tiles_h, wide, narrow;       // of an image's height; in the batch, of 4 columns, of 3
    int64_t size;                        // columns of all
  } rows[2];                             // all but the last, the last
  const Row& row(int64_t r) const { return rows[r == 5]; }
  int64_t size;               // points of all tiles
  int64_t v_group, y_vector;  // floats of a group of channels in V, of a vector of filters in Y
  int64_t v_size, y_size;
  int64_t channels, filters;  // of a unit of work
  bool applies;               // few enough tiles for so many channels and filters, at least one
};
WinogradMixedPlan winograd_mixed_plan(const WinogradArgs&, int lanes);

}  // namespace dagrt
