// Two-dimensional convolution, channels last, float32: forward and both gradients.
#pragma once
#include "kernels/epilogue.h"
#include "kernels/matmul.h"

namespace dagrt {

struct ConvArgs {
  // conv2d:             y[B,P,Q,F] from x[B,H,W,C], w[R,S,C/groups,F]
  // conv2d_input_grad:  x (written) from y, w
  // conv2d_filter_grad: w (written) from x, y
  float* x = nullptr;
  float* w = nullptr;
  float* y = nullptr;
  int64_t B = 0, H = 0, W = 0, C = 0, P = 0, Q = 0, F = 0, R = 0, S = 0;
  int64_t ldx = 0, ldy = 0;  // pixel strides of x and y
  int64_t stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1, groups = 1;
  int64_t pad_top = 0, pad_left = 0;
  int64_t pool = 1;               // conv2d of panels where conv2d_pools: as WinogradArgs::pool
  const float* panels = nullptr;  // conv2d: the weights packed by pack_conv2d; null: packed from w into the workspace
  char* workspace = nullptr;
  Epilogue epilogue;  // of conv2d and conv2d_input_grad; its rows are the pixels of what they write
};

DAGRT_KERNEL(conv2d, ConvArgs)
DAGRT_KERNEL(conv2d_input_grad, ConvArgs)
DAGRT_KERNEL(conv2d_filter_grad, ConvArgs)

/// Copies weights into the panels that conv2d multiplies with: for each group [columns / NR][R S C/groups][NR], NR of the
/// instruction set. `transpose`: those of the filters turned by 180 degrees, inputs and outputs exchanged: conv2d of dy
/// with them and paddings (window's reach - 1 - pad) is the input gradient, where strides are 1.
struct PackConvArgs {
  const float* w = nullptr;  // [R,S,C/groups,F]
  float* panels = nullptr;   // conv2d_panel_floats
  int64_t R = 0, S = 0, C = 0, F = 0, groups = 1;
  bool transpose = false;
};
DAGRT_CPU_KERNEL(pack_conv2d, PackConvArgs)

/// Floats of the panels, the same for every instruction set.
int64_t conv2d_panel_floats(const PackConvArgs&);

/// Whether conv2d pools what it makes, for these sizes.
bool conv2d_pools(const ConvArgs&);

/// One channel a group: vectors over channels, no panels; its packed weights are [R,S,C].
inline bool is_depthwise(int64_t groups, int64_t C, int64_t F) { return groups > 1 && groups == C && F == C; }

/// On CUDA devices, where groups have one channel: into how many sums, at most, the pixels of the filter gradient are cut.
inline int64_t depthwise_parts(int64_t F) { return F < 32 ? 256 : F > 8192 ? 1 : 8192 / F; }

/// Bytes: shared by the threads, and for each of them.
struct ConvMemory {
  size_t workspace = 0, scratch = 0;
};
ConvMemory conv2d_memory(const ConvArgs&);
ConvMemory conv2d_input_grad_memory(const ConvArgs&);
ConvMemory conv2d_filter_grad_memory(const ConvArgs&);

/// Pixels that one step of a kernel works on; the filter gradient's rows of dw in a unit of work.
inline constexpr int64_t conv_block = 112, conv_grad_chunk = 192;
/// Elements of a window multiplied at once: their part of a panel stays near. With wide vectors and panels that need no room.
inline constexpr int64_t conv_slice = 640, conv_wide_slice = 1024;
/// Whether a window of so many columns and channels is multiplied with so few filters that vectors of so many lanes run over
/// its channels rather than over filters; `conv_few_filters`: more never are.
inline constexpr int64_t conv_few_filters = 8;
inline bool conv_few(int64_t groups, int64_t filters, int64_t window_columns, int64_t channels, int64_t lanes) {
  return groups == 1 && filters > 0 && filters <= lanes / 2 && window_columns * channels >= lanes;
}
/// Whether a filter gradient's vectors run over channels rather than over filters; `run`: contiguous floats under the window.
inline bool conv_grad_few(int64_t filters, int64_t run) { return filters <= 4 && run >= 8; }
/// Whether such vectors of a window's columns apart, a pixel's channels each, are not much emptier than of its row in one piece.
inline bool conv_apart(int64_t window_columns, int64_t channels, int64_t lanes) {
  return 2 * window_columns * ((channels + lanes - 1) / lanes) <= 3 * ((window_columns * channels + lanes - 1) / lanes);
}
/// Sums of a sliding filter gradient that registers hold, for vectors of so many lanes.
constexpr int64_t conv_grad_sums(int64_t lanes) { return lanes == 16 ? 27 : 12; }
/// Whether a filter gradient's vectors over channels slide along a row, each loaded once for all columns of the window, where
/// those are one pixel apart. Beyond four filters, vectors over those are not so empty that half-full ones would do. Narrow
/// vectors come with few registers.
inline bool conv_grad_slides(int64_t groups, int64_t filters, int64_t window_columns, int64_t channels, int64_t lanes) {
  return groups == 1 && (window_columns == 3 || (window_columns == 5 && filters <= 3)) && filters <= (channels < lanes ? 4 : 8) &&
         window_columns * filters <= conv_grad_sums(lanes) && conv_apart(window_columns, channels, lanes);
}
/// Whether a filter gradient copies the image's floats, `row` of them under a window's row, in the order of its tiles: that pays once
/// several panels of dy meet them, and while a row of dy is no more than the copies' room. Its blocks of pixels are larger then, since
/// a tile reads no more of a cache than it needs.
inline constexpr int64_t conv_grad_block = 160, conv_grad_copied_block = 224;
inline bool conv_grad_copies(int64_t filters, int64_t row, int64_t columns) {
  return filters > 32 && row >= 48 && columns <= 2 * conv_grad_copied_block;
}
/// Floats of such copies for a block of so many pixels: of a piece of the row, at most, with what tiles round up to.
inline int64_t conv_grad_copied_floats(int64_t row, int64_t pixels) {
  return ((row < 2 * conv_grad_chunk ? row : 2 * conv_grad_chunk) + 16) * (pixels + 32);
}
/// Floats from one gathered row of so many elements to the next: an odd number of lines, or the rows of a tile would lie in the same
/// sets of a cache.
inline int64_t conv_gathered_row(int64_t depth) { return (depth + 15) / 16 * 16 + ((depth + 15) / 16 % 2 ? 0 : 16); }
/// Whether a pass over so many pixels, which no other unit multiplies with the same panels, packs each just before it.
inline bool conv_packs_late(int64_t pixels) { return pixels <= conv_block; }
/// Whether tiles run along the image's rows, and of how many rows a unit of work is.
inline bool conv_by_rows(int64_t columns) { return columns >= 12; }
inline int64_t conv_rows(int64_t rows, int64_t columns, int64_t depth, int64_t filters) {
  const int64_t work = 400'000 / (depth * filters + 1);  // pixels worth a unit
  const int64_t pixels = work < 112 ? 112 : work > 1024 ? 1024 : work;
  const int64_t n = (pixels + columns - 1) / columns;
  return n < 1 ? 1 : n > rows ? rows : n;
}
/// The filter gradient's work: blocks of rows of dy and the most in one, into how many sums the blocks are cut, and into how many
/// units each.
int64_t conv2d_filter_grad_rows(const ConvArgs&);
int64_t conv2d_filter_grad_blocks(const ConvArgs&);
int64_t conv2d_filter_grad_splits(const ConvArgs&);
int64_t conv2d_filter_grad_chunks(const ConvArgs&);

}  // namespace dagrt
