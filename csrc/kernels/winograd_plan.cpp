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

// Bytes of transformed weights that stay in L2 beside what else goes through it.
constexpr int64_t small_weights = 200 << 10;

// Of one core at about 3.4 GHz, for a vector: the way through a transform at one point.
constexpr double transform_ns = 1.5;

}  // namespace

bool winograd_applies(int64_t window_h, int64_t window_w, int64_t tile) {
  return window_h == window_w && ((tile == 4 && window_h >= 3 && window_h <= 5) || (tile == 2 && window_h == 3));
}

int64_t winograd_weights_size(int64_t C, int64_t F, int64_t window, int64_t tile) {
  return points(window, tile) * (C + 1) * up(F, winograd_filters);
}

WinogradPlan winograd_plan(const WinogradArgs& a, int lanes) {
  const int64_t width = 2 * lanes, n = points(a.window, a.tile);
  WinogradPlan p{};
  p.tiles_h = over(a.P, a.tile);
  p.tiles_w = over(a.Q, a.tile);
  p.tiles = a.B * p.tiles_h * p.tiles_w;
  p.group = winograd_rows(lanes);
  p.small = 4 * winograd_weights_size(a.C, a.F, a.window, a.tile) <= small_weights;
  const int64_t most = p.group * (p.small ? 1 : lanes == 16 ? 2 : 5);
  p.blocks = over(p.tiles, most);
  if (p.blocks > (p.small ? 2 : 4) && p.blocks < 16 && p.blocks % 2)  // even shares for two threads
    p.blocks += !p.small && p.blocks > 5 && over(p.tiles, p.blocks - 1) <= most + p.group ? -1 : 1;
  p.block = p.blocks ? over(p.tiles, p.blocks) : 0;
  p.shared = !p.small && p.blocks <= 4;
  p.far = a.B * a.H * a.W * a.C > int64_t(1) << 18;
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
  p.v_width = std::min<int64_t>(3 * lanes, up(a.C + !a.C, lanes));
  p.v_blocks = over(a.C, p.v_width);
  p.y_width = std::min<int64_t>(2 * lanes, up(a.F + !a.F, lanes));
  p.y_blocks = over(a.F, p.y_width);
  p.u_row = p.y_blocks * p.y_width;
  p.u_point = a.C * p.u_row + apart;
  p.u_size = n * p.u_point;
  p.parts = 1;
  if (p.u_size <= small_gradient)
    while (p.parts < 8 && p.tiles >= 2 * p.parts * part_tiles) p.parts *= 2;
  if (p.parts < 4) p.parts = 1;  // too few for threads
  // A chunk's transforms should stay in cache (of a thread's own part in its L2, else the last), but a chunk be long: dU is read
  // and written once for each.
  const int64_t tile = n * (p.v_blocks * p.v_width + p.y_blocks * p.y_width) + 1, tiles = over(p.tiles, p.parts);
  int64_t most = p.parts > 1 ? small_chunk / tile : (int64_t(1) << 20) / tile;
  most = p.parts > 1 ? std::max(most, part_tiles) : most < 128 ? 128 : most > 192 ? 192 : most;
  p.chunks = over(tiles, most);
  p.chunk = p.chunks ? over(tiles, p.chunks) : 0;
  p.v_point = p.v_blocks * p.chunk * p.v_width + apart;
  p.v_size = n * p.v_point;
  p.y_point = p.y_blocks * p.chunk * p.y_width + apart;
  p.y_size = n * p.y_point;
  return p;
}

WinogradMemory conv2d_filter_grad_winograd_memory(const WinogradArgs& a) {
  const int lanes = lanes_in_use();
  WinogradGradPlan p = winograd_grad_plan(a, lanes);
  const int64_t transforms = p.v_size + p.y_size, zeros = up(a.C > a.F ? a.C : a.F, lanes);
  return {size_t(p.parts * p.u_size + (p.parts > 1 ? 0 : transforms)) * 4 + 64,
          size_t(zeros + (p.parts > 1 ? transforms : 0)) * 4 + 64};
}

double conv2d_winograd_ns(const WinogradArgs& a) {
  const double lanes = lanes_in_use(), n = double(points(a.window, a.tile));
  const WinogradPlan p = winograd_plan(a, int(lanes));
  const double tiles = double(p.tiles), filters = double(up(a.F, int64_t(lanes)));
  const double products = n * tiles * double(a.C) * filters * multiply_ns() / lanes;
  const double input = n * tiles * double(p.channel_blocks) * transform_ns, output = n * tiles * filters / lanes * transform_ns;
  return products + input + output + 500;
}

double conv2d_filter_grad_winograd_ns(const WinogradArgs& a) {
  const double lanes = lanes_in_use(), n = double(points(a.window, a.tile));
  const WinogradGradPlan p = winograd_grad_plan(a, int(lanes));
  const double tiles = double(p.tiles), filters = double(up(a.F, int64_t(lanes))), weights = n * double(a.C) * filters;
  const double products = weights * tiles * multiply_ns() / lanes;
  const double transforms = n * tiles * (double(a.C) + filters) / lanes * transform_ns;
  return products + transforms + weights / lanes * transform_ns * double(p.parts * p.chunks + 1) + 500;
}

double winograd_weights_ns(int64_t C, int64_t F, int64_t window, int64_t tile) {
  return double(winograd_weights_size(C, F, window, tile)) / lanes_in_use() * transform_ns;
}

}  // namespace dagrt
