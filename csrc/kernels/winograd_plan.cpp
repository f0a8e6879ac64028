// Cutting up Winograd convolutions, by their sizes and the vector width alone, and what they cost.
#include "kernels/winograd.h"

#include <algorithm>

namespace dagrt {
namespace {

int64_t over(int64_t n, int64_t by) { return (n + by - 1) / by; }
int64_t up(int64_t n, int64_t to) { return over(n, to) * to; }

int lanes_in_use() { return chosen_isa == Isa::avx512 ? 16 : chosen_isa == Isa::avx2 ? 8 : 4; }

int64_t points(int64_t window, int64_t tile) { return (tile + window - 1) * (tile + window - 1); }

// Strides from point to point are kept off multiples of 4096 bytes, which would all fall into the same sets of a cache.
constexpr int64_t apart = 16;

// Floats of a filter gradient's dU that a thread keeps in L2 for itself, and of a chunk's transforms beside them; and what such a
// part takes of tiles at least.
constexpr int64_t small_gradient = 40 << 10, small_chunk = 100 << 10, part_tiles = 32;

// Of a filter gradient: channels of a block, the most, and units of work that are enough for threads.
constexpr int64_t gradient_channels = 64, gradient_units = 16;
// Floats that the last cache keeps beside what else is in it: of a group's dU, of a chunk's transforms, and of the transforms
// where they are one chunk, which needs no such dU. Tiles of a chunk, the fewest and the most.
constexpr int64_t gradient_sums = 1'250'000, gradient_transforms = 700'000, gradient_at_once = 1'500'000;
constexpr int64_t least_chunk = 48, largest_chunk = 112;

// Of a filter gradient by tiles of both sizes: floats of dy transformed that stay in L2 beside what goes through it. It reads its
// operands anew for every register tile, the other way reads and writes dU: the channels and filters for a tile, the fewest, from
// which on the latter takes longer. Without 32 registers operands are read more often.
constexpr int64_t mixed_filters = 100'000;
constexpr int64_t mixed_channels(int lanes) { return lanes == 16 ? 2 : 64; }

// Floats of an image beyond which it does not stay in L2.
constexpr int64_t far_image = int64_t(1) << 18;

// Bytes of transformed weights that stay in L2 beside what else goes through it.
constexpr int64_t small_weights = 200 << 10;

// Of one core at about 3.4 GHz, for a vector: the way through a transform at one point.
constexpr double transform_ns = 1.5;
// The same from registers, with what is written of dw.
constexpr double mixed_ns = 0.7;

}  // namespace

bool winograd_applies(int64_t window_h, int64_t window_w, int64_t tile) {
  return window_h == window_w && ((tile == 4 && window_h >= 3 && window_h <= 5) || ((tile == 2 || tile == 7) && window_h == 3));
}

int64_t winograd_weights_size(int64_t C, int64_t F, int64_t window, int64_t tile) {
  return tile == 7 ? window * window * C * up(F, winograd_filters) : points(window, tile) * (C + 1) * up(F, winograd_filters);
}

WinogradSevenPlan winograd_seven_plan(const WinogradArgs& a, int lanes) {
  WinogradSevenPlan p{};
  p.tiles_h = over(a.P, 7), p.tiles_w = over(a.Q, 7);
  p.tiles = a.B * p.tiles_h * p.tiles_w;
  p.v_row = 22 * up(a.C, lanes) + apart;
  p.v_size = 5 * p.v_row + 11 * up(a.C, lanes);
  return p;
}

WinogradPlan winograd_plan(const WinogradArgs& a, int lanes) {
  const int64_t width = 2 * lanes, n = points(a.window, a.tile);
  WinogradPlan p{};
  p.tiles_h = over(a.P, a.tile);
  p.tiles_w = over(a.Q, a.tile);
  p.tiles = a.B * p.tiles_h * p.tiles_w;
  p.group = winograd_rows(lanes);
  p.small = 4 * winograd_weights_size(a.C, a.F, a.window, a.tile) <= small_weights;
  const int64_t most = p.group * (p.small ? 1 : winograd_groups(lanes));
  p.blocks = over(p.tiles, most);
  if (p.blocks > (p.small ? 2 : 4) && p.blocks < 16 && p.blocks % 2)  // even shares for two threads
    p.blocks += !p.small && p.blocks > 5 && over(p.tiles, p.blocks - 1) <= most + p.group ? -1 : 1;
  p.block = p.blocks ? over(p.tiles, p.blocks) : 0;
  p.shared = !p.small && p.blocks <= 4;
  p.far = a.B * a.H * a.W * a.C > far_image;
  p.far_y = a.B * a.P * a.Q * a.F > far_image && a.pool == 1;
  p.channel_blocks = over(a.C, lanes);
  p.v_groups = over(p.block, p.group);
  p.v_point = p.v_groups * p.channel_blocks * p.group * lanes + apart;
  p.v_size = n * p.v_point;
  p.panels = over(a.F, width);
  // V is read once for each strip: a wide strip where it comes from the last cache, a narrow one, with little M, where both
  // can stay in L2.
  p.strip = (p.v_size <= 100'000 ? 1 : 2) * winograd_filters / width;
  if (p.strip > p.panels) p.strip = p.panels;
  if (p.shared)
    while (p.strip > 1 && p.blocks * over(p.panels, p.strip) < 8) p.strip--;
  p.strips = p.strip ? over(p.panels, p.strip) : 0;
  p.m_point = p.block * p.strip * width + apart;
  p.m_size = n * p.m_point;
  if (p.small) p.m_size = (1 + a.tile) * (a.tile + a.window - 1) * p.group * width;
  return p;
}

WinogradMemory conv2d_winograd_memory(const WinogradArgs& a) {
  const int lanes = lanes_in_use();
  if (a.tile == 7) {
    const WinogradSevenPlan p = winograd_seven_plan(a, lanes);
    return {size_t(p.tiles * p.v_size) * 4 + 64, size_t(up(a.C, lanes)) * 4 + 64};
  }
  WinogradPlan p = winograd_plan(a, lanes);
  const int64_t zeros = p.channel_blocks * lanes;
  return {size_t(p.shared ? p.blocks * p.v_size : 0) * 4 + 64, size_t(zeros + p.m_size + (p.shared ? 0 : p.v_size)) * 4 + 64};
}

WinogradGradPlan winograd_grad_plan(const WinogradArgs& a, int lanes) {
  const int64_t n = points(a.window, a.tile);
  WinogradGradPlan p{};
  p.tiles_h = over(a.P, a.tile);
  p.tiles_w = over(a.Q, a.tile);
  p.tiles = a.B * p.tiles_h * p.tiles_w;
  p.v_blocks = over(a.C, gradient_channels);
  p.v_width = up(p.v_blocks ? over(a.C, p.v_blocks) : 1, lanes);
  p.v_blocks = over(a.C, p.v_width);
  p.y_width = std::min<int64_t>(2 * lanes, up(a.F + !a.F, lanes));
  p.y_panels = over(a.F, p.y_width);
  p.u_point = p.v_width * p.y_width + apart;
  p.u_panel = n * p.u_point;
  const int64_t sums = p.v_blocks * p.u_panel;  // dU of a panel of filters
  p.parts = 1;
  if (sums * p.y_panels <= small_gradient)
    while (p.parts < 8 && p.tiles >= 2 * p.parts * part_tiles) p.parts *= 2;
  if (p.parts < 4) p.parts = 1;  // too few for threads
  // Chunks should be long, since dU is read and written once for each, and short, so that their transforms stay in cache: of a
  // thread's own part in its L2, else in the last, beside dU.
  const int64_t x_tile = n * p.v_blocks * p.v_width, tiles = over(p.tiles, p.parts);
  const int64_t both = x_tile + n * p.y_panels * p.y_width;
  int64_t most = std::max<int64_t>(tiles, 1);
  p.groups = 1;
  if (p.parts > 1)
    most = std::max(small_chunk / (both + 1), part_tiles);
  else if (tiles > largest_chunk || (tiles > least_chunk && tiles * both > gradient_at_once)) {
    p.groups = std::max<int64_t>(std::min(over(sums * p.y_panels, gradient_sums), p.y_panels / 2), 1);
    most = gradient_transforms / (x_tile + n * over(p.y_panels, p.groups) * p.y_width + 1);
    most = std::min(std::max(most, least_chunk), largest_chunk);
  }
  p.group = over(p.y_panels, p.groups);
  p.groups = p.group ? over(p.y_panels, p.group) : 0;
  p.chunks = over(tiles, most);
  p.chunk = p.chunks ? over(tiles, p.chunks) : 0;
  p.u_size = p.group * sums;
  p.v_point = p.chunk * p.v_width + apart;
  p.v_block = n * p.v_point;
  p.v_size = p.v_blocks * p.v_block;
  p.y_point = p.chunk * p.y_width + apart;
  p.y_panel = n * p.y_point;
  p.y_size = p.group * p.y_panel;
  p.whole = p.parts == 1 && p.v_blocks * p.group >= gradient_units;
  p.passing = p.whole && p.chunks == 1;
  p.far = a.B * a.H * a.W * a.C > far_image;
  p.far_y = a.B * a.P * a.Q * a.F > far_image;
  return p;
}

WinogradMixedPlan winograd_mixed_plan(const WinogradArgs& a, int lanes) {
  WinogradMixedPlan p{};
  p.tiles_h = over(a.P, 4), p.tiles_w = over(a.Q, 4);
  p.tall = p.tiles_h - std::min(4 * p.tiles_h - a.P, p.tiles_h), p.wide = p.tiles_w - std::min(4 * p.tiles_w - a.Q, p.tiles_w);
  for (int last : {0, 1}) {
    WinogradMixedPlan::Row& r = p.rows[last];
    r.tiles_h = last ? p.tall : p.tiles_h;
    r.wide = a.B * r.tiles_h * p.wide, r.narrow = a.B * r.tiles_h * (p.tiles_w - p.wide);
    r.size = 6 * r.wide + 5 * r.narrow;
  }
  p.size = 5 * p.rows[0].size + p.rows[1].size;
  const int64_t group = winograd_mixed_channels(lanes);
  p.v_group = p.size * group, p.y_vector = p.size * lanes;
  p.v_size = up(a.C, lanes) / group * p.v_group, p.y_size = over(a.F, lanes) * p.y_vector;
  p.applies = a.window == 3 && a.tile == 4 && p.size && p.y_vector <= mixed_filters &&
              a.B * p.tiles_h * p.tiles_w * mixed_channels(lanes) <= std::min(a.C, a.F);
  if (!p.applies) return p;
  const int64_t vectors = over(a.F, lanes);
  p.filters = over(vectors, over(vectors, mixed_filters / p.y_vector)) * lanes;
  p.channels = up(over(a.C, gradient_units), group);
  return p;
}

WinogradMemory conv2d_filter_grad_winograd_memory(const WinogradArgs& a) {
  const int lanes = lanes_in_use();
  if (const WinogradMixedPlan p = winograd_mixed_plan(a, lanes); p.applies)
    return {size_t(p.v_size + p.y_size) * 4 + 64, size_t(up(std::max(a.C, a.F), lanes)) * 4 + 64};
  WinogradGradPlan p = winograd_grad_plan(a, lanes);
  const int64_t transforms = p.v_size + p.y_size, zeros = up(a.C > a.F ? a.C : a.F, lanes);
  return {size_t((p.passing ? 0 : p.parts * p.u_size) + (p.parts > 1 ? 0 : transforms)) * 4 + 64,
          size_t(zeros + (p.parts > 1 ? transforms : 0) + (p.passing ? p.u_panel : 0)) * 4 + 64};
}

double conv2d_winograd_ns(const WinogradArgs& a) {
  const double lanes = lanes_in_use(), n = double(points(a.window, a.tile));
  if (a.tile == 7) {  // 121 products and 18 multiply-adds of the transform; their sums take more than 16 registers
    const WinogradSevenPlan p = winograd_seven_plan(a, int(lanes));
    const double channels = double(a.C), vectors = double(up(a.F, int64_t(lanes))) / lanes, registers = lanes == 16 ? 1 : 3;
    const double products = 139 * channels * vectors * multiply_ns() * registers;
    return double(p.tiles) * (products + 121 * (channels / lanes + vectors) * 2 * transform_ns) + 500;
  }
  const WinogradPlan p = winograd_plan(a, int(lanes));
  const double tiles = double(p.tiles), filters = double(up(a.F, int64_t(lanes)));
  const double products = n * tiles * double(a.C) * filters * multiply_ns() / lanes;
  const double input = n * tiles * double(p.channel_blocks) * transform_ns, output = n * tiles * filters / lanes * transform_ns;
  return products + input + output + 500;
}

double conv2d_filter_grad_winograd_ns(const WinogradArgs& a) {
  const double lanes = lanes_in_use(), n = double(points(a.window, a.tile));
  if (const WinogradMixedPlan p = winograd_mixed_plan(a, int(lanes)); p.applies) {
    const double weights = double(a.C * up(a.F, int64_t(lanes))), size = double(p.size);
    return (weights * (size * multiply_ns() + n * mixed_ns) + size * double(a.C + a.F) * transform_ns) / lanes + 500;
  }
  const WinogradGradPlan p = winograd_grad_plan(a, int(lanes));
  const double tiles = double(p.tiles), filters = double(up(a.F, int64_t(lanes))), weights = n * double(a.C) * filters;
  const double products = weights * tiles * multiply_ns() / lanes;
  const double transforms = n * tiles * (double(a.C) * double(p.groups) + filters) / lanes * transform_ns;
  return products + transforms + weights / lanes * transform_ns * double(p.parts * p.chunks + 1) + 500;
}

double winograd_weights_ns(int64_t C, int64_t F, int64_t window, int64_t tile) {
  return double(winograd_weights_size(C, F, window, tile)) / lanes_in_use() * transform_ns;
}

}  // namespace dagrt
