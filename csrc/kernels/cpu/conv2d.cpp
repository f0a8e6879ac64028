// Convolution as products, without an image of the whole im2col matrix.
//
// Forward: a block of output pixels gathers the pixels under its windows into scratch, one row of R S C floats each (runs
// of S C floats are contiguous in the image), and is multiplied with the weights packed in panels (gemm.h). A 1 x 1
// window needs no gathering.
// Input gradient: the input pixels of one residue (h mod stride, w mod stride) see the same taps; for each residue it is a
// forward convolution of dy with those taps, window reversed. Where no other unit multiplies with the same panels, each is packed
// just before its product.
// Few filters (conv2d_few.cpp): vectors over the window. One channel (conv2d_one_channel.cpp): weights in registers. Small images
// (conv2d_small.cpp): rows as tiles. Depthwise
// (one channel a group): vectors over channels, no products.
#include "kernels/cpu/conv2d_pass.h"

namespace dagrt::DAGRT_ISA {
namespace {

/// The source pixels under output pixel (i, j), row by row: count_h * count_w * channels floats.
inline void gather(const float* src, int64_t ld, int64_t width, int64_t channels, const Axis& h, const Axis& w, int64_t i,
                   int64_t j, float* to) {
  int64_t w0 = j * w.mul + w.off;
  bool inside = w0 >= 0 && w0 + (w.count - 1) * w.step < w.size;
  for (int64_t r = 0; r < h.count; r++) {
    int64_t row = i * h.mul + h.off + r * h.step;
    if (row < 0 || row >= h.size) {
      zero(to, w.count * channels);
      to += w.count * channels;
      continue;
    }
    const float* line = src + row * width * ld;
    if (inside && w.step == 1 && ld == channels) {
      copy(to, line + w0 * ld, w.count * channels);
      to += w.count * channels;
      continue;
    }
    for (int64_t s = 0; s < w.count; s++, to += channels) {
      int64_t col = w0 + s * w.step;
      if (col < 0 || col >= w.size)
        zero(to, channels);
      else
        copy(to, line + col * ld, channels);
    }
  }
}

/// Such weights as panels [taps F/groups][C/groups], or of few channels as rows.
void pack_taps(const Stream& s, const TurnedWeights& w, bool few, float* packed) {
  const ConvArgs& a = *w.a;
  const Taps& t = w.taps;
  const int64_t c = a.C / a.groups, f = a.F / a.groups, panels = (c + gemm_nr - 1) / gemm_nr, taps = t.count_r * t.count_q;
  if (few) {
    for (int64_t n = 0; n < c; n++)
      for (int64_t i = 0; i < taps; i++) copy(packed + (n * taps + i) * f, w.at(i, n), f);
    return;
  }
  s.parallel(a.groups * panels, double(taps * f) * gemm_nr * 0.6, [&](int64_t unit, char*) {
    const int64_t g = unit / panels, n = unit % panels * gemm_nr;
    w.pack(g, n, int(c - n < gemm_nr ? c - n : gemm_nr), 0, taps * f, packed + unit * taps * f * gemm_nr);
  });
}

constexpr int64_t conv_far = 262144;  // floats of an image that does not

/// What a unit's product may have beside its rows.
struct Extras {
  const float* following = nullptr;  // where the next unit's A begins, if it lies there whole
  int64_t part = 0, parts = 1;       // of a group's panels
  float* room = nullptr;             // for a panel's part, if it is to be packed
  int64_t front = 0, back = 0;       // of the depth, where A's elements are outside of the image: they are left out
};

/// What one unit multiplies: rows of A (through taps, or `a_col` 1), K cut so that a panel's part stays in L1.
void multiply(const Pass& t, int64_t g, TileJob job, int64_t depth, int64_t rows, const float* a, int64_t a_lines, int64_t a_line,
              float* c, int64_t c_line, int64_t place, int64_t place_line, Extras e = {}) {
  const int64_t n = t.dst_channels / t.groups, panels = (n + gemm_nr - 1) / gemm_nr;
  const int64_t first = panels * e.part / e.parts, last = panels * (e.part + 1) / e.parts, from_column = first * gemm_nr;
  const int64_t columns = (last * gemm_nr < n ? last * gemm_nr : n) - from_column;
  const int64_t channels = t.src_channels;
  const bool by_tap = e.room && t.groups == 1 && depth && channels <= conv_slice;  // the weights of a panel's part lie together
  const int64_t used = depth - e.front - e.back;
  const int32_t* taps = job.taps;
  const int64_t slice = V == 16 && !e.room && !taps && columns > V ? conv_wide_slice : conv_slice;
  const int64_t slices = by_tap ? used / channels : used ? (used + slice - 1) / slice : 1;
  const bool finishes = t.epilogue.simple && !t.epilogue.empty();
  job.next_row = 4 * gemm_nr;
  job.far = t.B * t.dst_h * t.dst_w * t.ld_dst > conv_far;
  if (panels * depth * gemm_nr > conv_panels_near) e.following = nullptr;  // they come from further away than A
  for (int64_t k = 0; k < slices; k++) {
    const int64_t from = e.front + used * k / slices, to = e.front + used * (k + 1) / slices;
    job.K = to - from;
    job.taps = taps ? taps + from : nullptr;
    job.accumulate = k > 0;
    job.finish = finishes && k + 1 == slices ? &t.epilogue : nullptr;
    const float* rows_of_a = a + (taps ? 0 : from);
    for (int64_t p = first; p < last; p++) {
      job.b = t.packed + ((g * panels + p) * depth + from) * gemm_nr;
      job.next = p + 1 < last ? job.b + depth * gemm_nr
                              : t.packed + ((g * panels + first) * depth + (k + 1 < slices ? to : e.front)) * gemm_nr;
      if (e.following) {
        const int64_t runs = rows * depth / gemm_fetched;
        job.next = e.following + runs * (p - first) / (last - first) * gemm_fetched;
        job.next_runs = runs / (last - first) + 1;
        job.next_row = 4 * gemm_fetched;
      }
      job.n = int(n - p * gemm_nr < gemm_nr ? n - p * gemm_nr : gemm_nr);
      job.column = g * n + p * gemm_nr;
      if (e.room) {
        t.turned->pack(g, p * gemm_nr, job.n, from, to, e.room);
        job.b = e.room;
        job.next = !by_tap          ? nullptr
                   : p + 1 < last   ? t.turned->at(k, (p + 1) * gemm_nr)
                   : k + 1 < slices ? t.turned->at(k + 1, first * gemm_nr)
                                    : nullptr;
      }
      for (int64_t l = 0; l < a_lines; l++)
        gemm_run(job, rows, rows_of_a + l * a_line, c + l * c_line + p * gemm_nr, place + l * place_line);
    }
  }
  if (!t.epilogue.simple && job.row_step == 1 && place_line == rows)  // the lines follow one another
    apply_epilogue(t.epilogue, c + from_column, job.ldc, place, g * n + from_column, a_lines * rows, columns);
  else if (!t.epilogue.simple)
    for (int64_t l = 0; l < a_lines; l++) {
      float* line = c + l * c_line + from_column;
      if (job.row_step == 1)
        apply_epilogue(t.epilogue, line, job.ldc, place + l * place_line, g * n + from_column, rows, columns);
      else
        for (int64_t m = 0; m < rows; m++)
          apply_epilogue(t.epilogue, line + m * job.ldc, t.ld_dst, place + l * place_line + m * job.row_step, g * n + from_column,
                         1, columns);
    }
}

/// Into how many parts of its panels a unit is cut where there are fewer than `enough` units, as of few pixels.
int64_t panel_parts(int64_t units, int64_t panels, int64_t enough) {
  const int64_t wanted = (enough + units - 1) / units;
  return wanted < panels ? wanted : panels;
}

/// 1 x 1 windows, strides 1: one product of all pixels.
void pass_in_place(const Stream& s, const Pass& t) {
  const int64_t sc = t.src_channels / t.groups, n = t.dst_channels / t.groups, pixels = t.B * t.grid.I * t.grid.J;
  const int64_t blocks = (pixels + conv_block - 1) / conv_block, panels = (n + gemm_nr - 1) / gemm_nr;
  const int64_t parts = panel_parts(blocks * t.groups, panels, 8);
  const double ns = double(conv_block) * double(sc + 8) * double(n / parts + gemm_nr) * (0.3 / V) + 100;
  s.parallel(blocks * t.groups * parts, ns, [&](int64_t unit, char* scratch) {
    const int64_t part = unit % parts, g = unit / parts % t.groups, block = unit / parts / t.groups;
    int64_t from = pixels * block / blocks, to = pixels * (block + 1) / blocks;
    float* room = t.turned ? aligned(scratch) : nullptr;
    TileJob job;
    job.a_row = t.ld_src;
    job.crowded = gemm_crowded(t.ld_src);
    job.ldc = t.ld_dst;
    const float* a = t.src + from * t.ld_src + g * sc;
    const float* following = t.ld_src == sc && to < pixels ? t.src + to * t.ld_src : nullptr;
    multiply(t, g, job, sc, to - from, a, 1, 0, t.dst + from * t.ld_dst + g * n, 0, from, 0, {following, part, parts, room});
  });
}

/// The largest of each 2 x 2 pixels of two rows, one behind the other: J pixels of n channels each.
void pool_rows(const float* rows, int64_t J, int64_t n, float* y, int64_t ldy) {
  for (int64_t j = 0; j < J; j += 2, y += ldy)
    each_vector(n, [&](int64_t c, int k) __attribute__((always_inline)) {
      const float *at = rows + j * n + c, *below = at + J * n;
      const vf top = vmax(load_n(at + n, k), load_n(at, k)), bottom = vmax(load_n(below + n, k), load_n(below, k));
      store_n(y + c, vmax(bottom, top), k);
    });
}

/// The rows of dst behind grid row i, up to the grid's next or the end.
Whole rows_between(const Grid& g, int64_t dst_h, int64_t i) {
  const int64_t row = g.h0 + i * g.step_h + 1, end = row + g.step_h - 1;
  return {row, i + 1 == g.I || end > dst_h ? dst_h : end};
}

/// Zeros in those rows, between the grid's pixels of its row, and before the first row.
void clear_between(const Pass& t, int64_t b, int64_t i, bool past) {
  const Grid& g = t.grid;
  const int64_t n = t.dst_channels;
  auto clear = [&](int64_t h, int64_t from, int64_t to) {
    float* at = t.dst + ((b * t.dst_h + h) * t.dst_w + from) * t.ld_dst;
    for (int64_t k = from; k < to; k++, at += t.ld_dst)
      each_vector(n, [&](int64_t c, int lanes) __attribute__((always_inline)) {
        past ? put_n<true>(at + c, vf{}, lanes) : store_n(at + c, vf{}, lanes);
      });
  };
  const int64_t row = g.h0 + i * g.step_h;
  clear(row, 0, g.w0);
  for (int64_t j = 0; j < g.J; j++) {
    const int64_t from = g.w0 + j * g.step_w + 1, end = from + g.step_w - 1;
    clear(row, from, j + 1 == g.J || end > t.dst_w ? t.dst_w : end);
  }
  for (int64_t h = 0; i == 0 && h < g.h0; h++) clear(h, 0, t.dst_w);
  const Whole rows = rows_between(g, t.dst_h, i);
  for (int64_t h = rows.from; h < rows.to; h++) clear(h, 0, t.dst_w);
}

/// Wide images: tiles of pixels along a row, their windows read through a table of taps; where windows reach outside, from
/// a padded copy of the unit's rows.
void pass_rows(const Stream& s, const Pass& t) {
  const int64_t sc = t.src_channels / t.groups, n = t.dst_channels / t.groups, depth = t.h.count * t.w.count * sc;
  const Axis &h = t.h, &w = t.w;
  const bool outside = reaches_outside(t);
  // Even what is read right behind is better not kept, where it fills a third of a cache or more.
  const bool past = t.alone && goes_past(t.dst, t.ld_dst, t.B * t.dst_h * t.dst_w, n, 3 * t.B * t.dst_h * t.dst_w * n);
  // Rows of taps outside of the image are left out where panels, which fewer rows then share, are near or rows long.
  const bool skips = outside && (depth * n <= conv_panels_near || t.grid.J >= 2 * gemm_mr);
  const int64_t rows = conv_rows(t.grid.I, t.grid.J, depth, n), pool = t.pool, strips = t.grid.I / pool;
  const int64_t high = (rows + pool - 1) / pool, blocks = (strips + high - 1) / high;
  const double ns = double(rows * t.grid.J) * double(depth + 8) * double(n + gemm_nr) * (0.3 / V) + 200;
  s.parallel(t.B * blocks * t.groups, ns, [&](int64_t unit, char* scratch) {
    const int64_t g = unit % t.groups, block = unit / t.groups % blocks, b = unit / t.groups / blocks;
    const int64_t i0 = strips * block / blocks * pool, i1 = strips * (block + 1) / blocks * pool;
    float* finished = aligned(scratch);
    if (pool > 1) scratch += 4 * pool * t.grid.J * n;
    int32_t* taps = reinterpret_cast<int32_t*>(aligned(scratch));
    const auto [a, ld, line] = rows_under(t, b, g, i0, i1, outside, reinterpret_cast<float*>(taps) + (depth + 15) / 16 * 16);
    int64_t k = 0;
    for (int64_t r = 0; r < h.count; r++)
      for (int64_t q = 0; q < w.count; q++)
        for (int64_t c = 0; c < sc; c++) taps[k++] = int32_t(r * h.step * line + q * w.step * ld + c);
    TileJob job;
    job.taps = taps;
    job.a_row = w.mul * ld;
    if (pool > 1) {
      job.ldc = n;
      for (int64_t i = i0; i < i1; i += 2) {
        multiply(t, g, job, depth, t.grid.J, a + (i - i0) * h.mul * line, 2, h.mul * line, finished, t.grid.J * n, 0, t.grid.J);
        pool_rows(finished, t.grid.J, n, t.dst + (b * strips + i / 2) * (t.grid.J / 2) * t.ld_dst + g * n, t.ld_dst);
      }
      return;
    }
    job.ldc = t.grid.step_w * t.ld_dst;
    job.row_step = t.grid.step_w;
    const int64_t down = t.grid.step_h * t.dst_w, tap_row = w.count * sc;
    for (int64_t i = i0, end; i < i1; i = end) {  // rows that have the same rows of taps inside
      auto outside_of = [&](int64_t row) {
        Extras e;
        if (!skips) return e;
        const int64_t top = row * h.mul + h.off;
        for (int64_t r = 0; r < h.count && top + r * h.step < 0; r++) e.front += tap_row;
        for (int64_t r = h.count; r-- > 0 && top + r * h.step >= h.size && e.front + e.back < depth;) e.back += tap_row;
        return e;
      };
      const Extras e = outside_of(i);
      for (end = i + 1; end < i1 && !t.alone; end++)
        if (const Extras other = outside_of(end); other.front != e.front || other.back != e.back) break;
      const int64_t place = t.place(b, i, 0);
      multiply(t, g, job, depth, t.grid.J, a + (i - i0) * h.mul * line, end - i, h.mul * line, t.dst + place * t.ld_dst + g * n,
               down * t.ld_dst, place, down, e);
      if (t.alone) clear_between(t, b, i, past);
    }
    if (past) finish_past();
  });
}

/// Whether the grid is the whole of dst.
bool is_plain(const Pass& t) { return t.grid.step_h == 1 && t.grid.step_w == 1 && t.grid.I == t.dst_h && t.grid.J == t.dst_w; }

/// Small images: pixels under the windows gathered to rows, so that tiles need not end with an image's row.
void pass_gathered(const Stream& s, const Pass& t) {
  const int64_t sc = t.src_channels / t.groups, n = t.dst_channels / t.groups, depth = t.h.count * t.w.count * sc;
  const int64_t pixels = t.B * t.grid.I * t.grid.J, blocks = (pixels + conv_block - 1) / conv_block;
  const int64_t line = conv_gathered_row(depth);
  const int64_t parts = panel_parts(blocks * t.groups, (n + gemm_nr - 1) / gemm_nr, 4);  // each gathers again
  const bool plain = is_plain(t);
  const double ns = double(conv_block) * double(depth + 8) * double(n / parts + gemm_nr) * (0.3 / V) + 200;
  s.parallel(blocks * t.groups * parts, ns, [&](int64_t unit, char* scratch) {
    const int64_t part = unit % parts, g = unit / parts % t.groups, block = unit / parts / t.groups;
    const int64_t from = pixels * block / blocks, to = pixels * (block + 1) / blocks, rows = to - from;
    float *room = t.turned ? aligned(scratch) : nullptr, *lines = aligned(scratch) + (room ? conv_slice * gemm_nr : 0);
    auto pixel = [&](int64_t at, auto&& f) { f(at / t.grid.J / t.grid.I, at / t.grid.J % t.grid.I, at % t.grid.J); };
    for (int64_t m = 0; m < rows; m++)
      pixel(from + m, [&](int64_t b, int64_t i, int64_t j) {
        gather(t.src + b * t.src_h * t.src_w * t.ld_src + g * sc, t.ld_src, t.src_w, sc, t.h, t.w, i, j, lines + m * line);
      });
    TileJob job;
    job.a_row = line;
    if (plain) {
      job.ldc = t.ld_dst;
      return multiply(t, g, job, depth, rows, lines, 1, 0, t.dst + from * t.ld_dst + g * n, 0, from, 0,
                      {nullptr, part, parts, room});
    }
    for (int64_t m = 0; m < rows;) {  // what lies in one row of the grid is evenly strided in y
      int64_t length = t.grid.J - (from + m) % t.grid.J;
      if (length > rows - m) length = rows - m;
      pixel(from + m, [&](int64_t b, int64_t i, int64_t j) {
        job.ldc = t.grid.step_w * t.ld_dst;
        job.row_step = t.grid.step_w;
        const int64_t place = t.place(b, i, j);
        multiply(t, g, job, depth, length, lines + m * line, 1, 0, t.dst + place * t.ld_dst + g * n, 0, place, 0,
                 {nullptr, part, parts});
      });
      m += length;
    }
  });
}

using Way = void (*)(const Stream&, const Pass&);

Way way_of(const Pass& t, bool few) {
  const Grid& grid = t.grid;
  const bool plain = is_plain(t);
  const Axis &h = t.h, &w = t.w;
  if (t.pool > 1) return pass_rows;
  if (few) return pass_few;
  if (one_channel(t)) return pass_one_channel;
  if (plain && h.count == 1 && w.count == 1 && h.mul == 1 && w.mul == 1 && h.off == 0 && w.off == 0 && t.src_h == t.dst_h &&
      t.src_w == t.dst_w)
    return pass_in_place;
  if (small(t)) return pass_small;
  return conv_by_rows(grid.J) && h.count ? pass_rows : pass_gathered;
}

bool is_empty(const Pass& t) { return !t.B || t.grid.I <= 0 || t.grid.J <= 0 || !t.dst_channels; }

/// One channel a group: y[c] = sum of x[c] w[c] over the taps of a pixel; no panels, vectors over channels.
struct Depthwise {
  Pass t;
  const float* w;  // the weights of the first tap; those of (r, k) lie r w_row + k w_col behind
  int64_t w_row, w_col;
};

constexpr int64_t depthwise_far = int64_t(4) << 20;  // elements, of images that come from memory: less stays in a cache

/// Asks for a line of each of the next tile's pixels, channels from c on, of what no tile has touched: prefetchers lose such
/// strides. A function of its own, for that it leaves the tiles their registers. `x`: the first new pixel in the last row;
/// `line`: how far back the row before lies, where that is new too (of windows two pixels apart, mostly), or 0.
__attribute__((noinline)) void depthwise_ask(const Depthwise& d, const float* mask, const float* x, int64_t line, int N,
                                             const float* y, int64_t place, int64_t c) {
  const Pass& t = d.t;
  const int64_t next = t.w.mul * t.ld_src, tap = t.w.step * t.ld_src, step = t.grid.step_w, ldc = step * t.ld_dst;
  y += N * ldc;
  if (mask) mask += (place + N * step) * t.epilogue.ld_mask + c;
  for (int i = 0; i < N; i++, x += next, y += ldc) {
    __builtin_prefetch(x, 0, 2);
    if (line) {
      __builtin_prefetch(x + tap, 0, 2);
      __builtin_prefetch(x - line, 0, 2);
      __builtin_prefetch(x + tap - line, 0, 2);
    }
    if (mask) __builtin_prefetch(mask + i * step * t.epilogue.ld_mask, 0, 2);
    __builtin_prefetch(y, 1, 2);
  }
  asm volatile("");  // GCC leaves out calls of functions that only prefetch
}

/// `tiles` times N pixels side by side, all their taps in rows [r0, r1) and columns [k0, k1): their sums under way together hide the
/// multiply-add's latency. `x`: the first pixel's first tap in row 0. S: columns of the window, if known, all of them inside
/// (short loops of unknown length cost more in mispredicted branches than they compute); `dense`: neighbouring pixels'
/// windows overlap, and a loaded vector serves them all.
template <int N, int S, bool dense>
void depthwise_tile(const Depthwise& d, const float* x, int64_t x_line, int64_t r0, int64_t r1, int64_t k0, int64_t k1, float* y,
                    int64_t place, int64_t tiles) {
  const Pass& t = d.t;
  const int64_t C = t.dst_channels, next = t.w.mul * t.ld_src, ldc = t.grid.step_w * t.ld_dst, tap = t.w.step * t.ld_src;
  const SimpleEpilogue simple = finishing(t.epilogue);
  const bool here = !simple.empty();
  const bool far = r1 > r0 && t.B * (t.src_h * t.src_w + t.dst_h * t.dst_w) * C > depthwise_far;
  const float* weights = d.w;
  const int64_t w_row = d.w_row, w_col = d.w_col, step = t.grid.step_w;
  // The usual chain, without a question for each of its parts and pixels.
  const bool plain = here && !simple.residual && !simple.mask && !simple.round;
  const float low = simple.relu ? 0 : -__builtin_inff(), high = simple.capped ? simple.ceiling : __builtin_inff();
  auto strip = [&](int64_t c, int n) __attribute__((always_inline)) {
    auto at = [n](const float* p) __attribute__((always_inline)) { return n == V ? load(p) : load_n(p, n); };
    vf acc[N];
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) acc[i] = vf{};
    for (int64_t r = r0; r < r1; r++) {
      const float *from = x + r * x_line + c, *w = weights + r * w_row + c;
      if constexpr (dense) {
        vf weight[S];
#pragma GCC unroll 8
        for (int k = 0; k < S; k++) weight[k] = at(w + k * w_col);
#pragma GCC unroll 16
        for (int j = 0; j < N + S - 1; j++) {
          vf v = at(from + j * next);
          keep(v);
#pragma GCC unroll 8
          for (int k = 0; k < S; k++)
            if (j >= k && j - k < N) acc[j - k] += v * weight[k];
        }
      } else if constexpr (S > 0) {
#pragma GCC unroll 8
        for (int k = 0; k < S; k++) {
          const vf weight = at(w + k * w_col);
#pragma GCC unroll 8
          for (int i = 0; i < N; i++) acc[i] += at(from + k * tap + i * next) * weight;
        }
      } else {
        for (int64_t k = k0; k < k1; k++) {
          const vf weight = at(w + k * w_col);
#pragma GCC unroll 8
          for (int i = 0; i < N; i++) acc[i] += at(from + k * tap + i * next) * weight;
        }
      }
    }
    if (plain) {
      const vf offset = simple.bias ? at(simple.bias + c) : vf{};
#pragma GCC unroll 8
      for (int i = 0; i < N; i++) acc[i] = clamp(acc[i] + offset, low, high);
    } else if (here) {
#pragma GCC unroll 8
      for (int i = 0; i < N; i++) acc[i] = finish(simple, acc[i], place + i * step, c, n);
    }
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) {
      if (n == V)
        store(y + i * ldc + c, acc[i]);
      else
        store_n(y + i * ldc + c, acc[i], n);
    }
  };
  const int64_t piece = far ? 16 : C;
  for (; tiles > 0; tiles--, x += N * next, y += N * ldc, place += N * step)
    for (int64_t c = 0; c < C;) {
      const int64_t end = c + piece < C ? c + piece : C;
      if (far)
        depthwise_ask(d, simple.mask, x + (r1 - 1) * x_line + (N + (dense ? S - 1 : 0)) * next + c, dense ? 0 : x_line, N, y + c,
                      place, c);
      for (; c + V <= end; c += V) strip(c, V);
      if (c < end) strip(c, int(end - c)), c = end;
    }
}

using DepthwiseTile = void (*)(const Depthwise&, const float*, int64_t, int64_t, int64_t, int64_t, int64_t, float*, int64_t,
                               int64_t);

constexpr int depthwise_most = V == 4 ? 4 : 8;  // pixels of a tile

template <int S, bool dense>
constexpr DepthwiseTile depthwise_tiles[] = {nullptr,
                                             depthwise_tile<1, S, dense>,
                                             depthwise_tile<2, S, dense>,
                                             depthwise_tile<3, S, dense>,
                                             depthwise_tile<4, S, dense>,
#if DAGRT_V > 4
                                             depthwise_tile<5, S, dense>,
                                             depthwise_tile<6, S, dense>,
                                             depthwise_tile<7, S, dense>,
                                             depthwise_tile<8, S, dense>
#endif
};

/// Row `unit` of a pass, rows of all images counted.
void depthwise_row(const Depthwise& d, int64_t unit) {
  const Pass& t = d.t;
  const Axis &h = t.h, &w = t.w;
  const bool dense = w.mul == 1 && w.step == 1;
  const DepthwiseTile* tiles = w.count == 3            ? (dense ? depthwise_tiles<3, true> : depthwise_tiles<3, false>)
                               : w.count == 5          ? (dense ? depthwise_tiles<5, true> : depthwise_tiles<5, false>)
                               : dense && w.count == 2 ? depthwise_tiles<2, true>  // of gradients of windows with stride 2
                               : dense && w.count == 1 ? depthwise_tiles<1, true>
                                                       : depthwise_tiles<0, false>;
  const int64_t J = t.grid.J, line = t.src_w * t.ld_src;
  const Whole whole = whole_windows(w, J);
  const int64_t inside = whole.from, outside = whole.to;
  const int64_t b = unit / t.grid.I, i = unit % t.grid.I, top = i * h.mul + h.off;
  int64_t r0 = 0, r1 = h.count;  // rows inside
  while (r0 < r1 && top + r0 * h.step < 0) r0++;
  while (r1 > r0 && top + (r1 - 1) * h.step >= t.src_h) r1--;
  const float* x = t.src + (b * t.src_h + top) * line + w.off * t.ld_src;
  const int64_t place = t.place(b, i, 0);
  float* y = t.dst + place * t.ld_dst;
  auto tile = [&](int64_t j, int64_t n, int64_t k0, int64_t k1, int64_t count) {
    DepthwiseTile f = k1 - k0 == w.count ? tiles[n] : depthwise_tiles<0, false>[n];
    f(d, x + j * w.mul * t.ld_src, h.step * line, r0, r1, k0, k1, y + j * t.grid.step_w * t.ld_dst, place + j * t.grid.step_w,
      count);
  };
  auto border = [&](int64_t j) {
    int64_t k0 = 0, k1 = w.count, left = j * w.mul + w.off;
    while (k0 < k1 && left + k0 * w.step < 0) k0++;
    while (k1 > k0 && left + (k1 - 1) * w.step >= t.src_w) k1--;
    tile(j, 1, k0, k1, 1);
  };
  for (int64_t j = 0; j < inside; j++) border(j);
  const int64_t within = outside - inside, parts = (within + depthwise_most - 1) / depthwise_most;
  if (parts > 0) {  // of about the same size: first those of one pixel more
    const int64_t each = within / parts, longer = within % parts;
    if (longer) tile(inside, each + 1, 0, w.count, longer);
    tile(inside + longer * (each + 1), each, 0, w.count, parts - longer);
  }
  for (int64_t j = outside; j < J; j++) border(j);
  if (finishes(t.epilogue)) return;
  if (t.grid.step_w == 1)
    apply_epilogue(t.epilogue, y, t.ld_dst, place, 0, J, t.dst_channels);
  else
    for (int64_t j = 0; j < J; j++)
      apply_epilogue(t.epilogue, y + j * t.grid.step_w * t.ld_dst, t.ld_dst, place + j * t.grid.step_w, 0, 1, t.dst_channels);
}

/// Passes over the same rows, of other columns: a row is whole before the next begins, as memory likes it.
void depthwise(const Stream& s, const Depthwise* d, int passes) {
  const Pass& t = d[0].t;
  if (!t.B || t.grid.I <= 0 || !t.dst_channels) return;
  const double taps = double(t.h.count * t.w.count + 2) * double(passes);
  s.parallel(t.B * t.grid.I, double(t.grid.J * t.dst_channels) * taps * (0.35 / V) + 50, [&](int64_t unit, char*) {
    for (int k = 0; k < passes; k++)
      if (d[k].t.grid.J > 0) depthwise_row(d[k], unit);
  });
}

int64_t floor_mod(int64_t a, int64_t b) { return (a % b + b) % b; }

/// The taps r (of `count`) with (position + pad - r * dilation) divisible by stride, as an axis over dy; false: none.
/// `first` and `every`: the taps taken, in the order in which the axis walks dy upwards (r downwards).
bool taps_of(int64_t residue, int64_t pad, int64_t stride, int64_t dilation, int64_t count, int64_t size, Axis& axis,
             int64_t& first, int64_t& every) {
  int64_t lowest = -1, next = -1;
  for (int64_t r = 0; r < count; r++)
    if (floor_mod(residue + pad - r * dilation, stride) == 0) {
      if (lowest < 0)
        lowest = r;
      else if (next < 0)
        next = r;
    }
  if (lowest < 0) return false;
  every = next < 0 ? count : next - lowest;
  int64_t n = (count - 1 - lowest) / every + 1;
  first = lowest + (n - 1) * every;  // the highest tap reads dy's lowest position
  int64_t low = residue + pad - first * dilation;
  axis.mul = 1;
  axis.off = (low - floor_mod(low, stride)) / stride;
  axis.step = n > 1 ? every * dilation / stride : 1;
  axis.count = n;
  axis.size = size;
  return true;
}

/// The input gradient of pixels whose row and column leave the remainders rh and rw of the strides.
struct Residue {
  Axis h, w;
  Taps taps;
  Grid grid;
  bool in_row, any;  // whether a window sees such rows; such pixels

  Residue(const ConvArgs& a, int64_t rh, int64_t rw)
      : h{1, 0, 1, 0, a.P},
        w{1, 0, 1, 0, a.Q},
        grid{(a.H - rh + a.stride_h - 1) / a.stride_h, (a.W - rw + a.stride_w - 1) / a.stride_w, rh, rw, a.stride_h, a.stride_w} {
    in_row = taps_of(rh, a.pad_top, a.stride_h, a.dilation_h, a.R, a.P, h, taps.r, taps.every_r);
    any = taps_of(rw, a.pad_left, a.stride_w, a.dilation_w, a.S, a.Q, w, taps.q, taps.every_q) && in_row;
    if (!any) h = w = Axis{1, 0, 1, 0, 0};
    taps.count_r = h.count, taps.count_q = w.count;
  }
  Pass pass(const ConvArgs& a, const float* packed) const {
    return {a.B, a.y, a.P, a.Q, a.ldy, a.F, h, w, grid, packed, a.x, a.H, a.W, a.ldx, a.C, a.groups, a.epilogue};
  }
};

/// Zeros in a grid's pixels of dx, which no window sees.
void fill(const Stream& s, const ConvArgs& a, const Grid& g) {
  s.parallel(a.B * g.I, double(g.J * a.C) * 0.1 + 20, [&](int64_t unit, char*) {
    float* row = a.x + ((unit / g.I * a.H + g.h0 + unit % g.I * g.step_h) * a.W + g.w0) * a.ldx;
    if (g.step_w == 1 && a.ldx == a.C) return zero(row, g.J * a.C);
    for (int64_t j = 0; j < g.J; j++) zero(row + j * g.step_w * a.ldx, a.C);
  });
}

}  // namespace

void pack_conv2d(const PackConvArgs& a, const Stream& s) {
  const int64_t window = a.R * a.S;
  if (is_depthwise(a.groups, a.C, a.F)) {
    for (int64_t k = 0; k < window; k++) copy(a.panels + (a.transpose ? window - 1 - k : k) * a.C, a.w + k * a.C, a.C);
    return;
  }
  const int64_t c = a.C / a.groups, f = a.F / a.groups;
  const int64_t n = a.transpose ? c : f, depth = a.transpose ? f : c, panels = (n + gemm_nr - 1) / gemm_nr;
  if (few_filters(a.groups, n, a.S, depth)) {
    for (int64_t k = 0; k < window; k++) {
      const float* w = a.w + (a.transpose ? window - 1 - k : k) * a.C * a.F;
      for (int64_t j = 0; j < n; j++)
        for (int64_t c0 = 0; c0 < depth; c0++)
          a.panels[(j * window + k) * depth + c0] = a.transpose ? w[j * a.F + c0] : w[c0 * a.F + j];
    }
    return;
  }
  s.parallel(a.groups * panels, double(window * depth) * gemm_nr * (a.transpose ? 0.6 : 0.3), [&](int64_t unit, char*) {
    int64_t g = unit / panels, n0 = unit % panels * gemm_nr;
    int columns = int(n - n0 < gemm_nr ? n - n0 : gemm_nr);
    float* to = a.panels + unit * window * depth * gemm_nr;
    for (int64_t k = 0; k < window; k++, to += depth * gemm_nr) {
      if (a.transpose)
        gemm_pack(depth, a.w + ((window - 1 - k) * c + n0) * a.F + g * f, 1, a.F, columns, to);
      else
        gemm_pack(depth, a.w + k * c * a.F + g * f + n0, a.F, 1, columns, to);
    }
  });
}

void conv2d(const ConvArgs& a, const Stream& s) {
  if (!a.B || !a.P || !a.Q || !a.F) return;
  Axis h{a.stride_h, -a.pad_top, a.dilation_h, a.R, a.H}, w{a.stride_w, -a.pad_left, a.dilation_w, a.S, a.W};
  Pass pass{a.B,     a.x, a.H, a.W, a.ldx, a.C, h,        w,          Grid{a.P, a.Q},
            nullptr, a.y, a.P, a.Q, a.ldy, a.F, a.groups, a.epilogue, a.pool};
  if (is_depthwise(a.groups, a.C, a.F)) {
    const Depthwise d{pass, a.panels ? a.panels : a.w, a.S * a.C, a.C};
    return depthwise(s, &d, 1);
  }
  const float* packed = a.panels;
  if (!packed) {
    float* to = aligned(a.workspace);
    DAGRT_ISA::pack_conv2d(PackConvArgs{a.w, to, a.R, a.S, a.C, a.F, a.groups, false}, s);
    packed = to;
  }
  pass.packed = packed;
  if (!is_empty(pass)) way_of(pass, few_filters(a.groups, a.F, a.S, a.C))(s, pass);
}

void conv2d_input_grad(const ConvArgs& a, const Stream& s) {
  if (!a.B || !a.H || !a.W || !a.C) return;
  const int64_t rows = a.stride_h < a.H ? a.stride_h : a.H, columns = a.stride_w < a.W ? a.stride_w : a.W;
  if (is_depthwise(a.groups, a.C, a.F)) {
    auto pass = [&](int64_t rh, int64_t rw) {
      const Residue r(a, rh, rw);
      return Depthwise{r.pass(a, nullptr), a.w + (r.taps.r * a.S + r.taps.q) * a.C, -r.taps.every_r * a.S * a.C,
                       -r.taps.every_q * a.C};
    };
    for (int64_t rh = 0; rh < rows; rh++)
      for (int64_t rw = 0; rw < columns; rw += 2) {
        const Depthwise d[] = {pass(rh, rw), pass(rh, rw + 1)};  // of an odd last one the second is not used
        depthwise(s, d, rw + 1 < columns ? 2 : 1);
      }
    return;
  }
  const bool few = few_filters(a.groups, a.C, a.S, a.F);
  const bool late = a.stride_h == 1 && a.stride_w == 1 && conv_packs_late(a.B * a.H * a.W);
  float* packed = aligned(a.workspace);
  int64_t seen = 0, by_rows = 0;  // residues that windows see
  for (int64_t rh = 0; rh < rows; rh++)
    for (int64_t rw = 0; rw < columns; rw++)
      if (const Residue r(a, rh, rw); r.any) seen++, by_rows += way_of(r.pass(a, packed), few) == pass_rows;
  // One alone writes the zeros of the others beside its products: a pass over them would wait for memory.
  const bool alone = seen == 1 && by_rows && rows * columns > 1 && a.groups == 1 && a.epilogue.empty();
  for (int64_t rh = 0; rh < rows; rh++)
    for (int64_t rw = 0; rw < columns; rw++) {
      const Residue r(a, rh, rw);
      if (!r.any && alone) continue;
      if (!r.any && a.epilogue.empty()) {
        if (r.in_row)
          fill(s, a, r.grid);
        else if (rw == 0)  // whole rows, with all residues of their columns
          fill(s, a, {r.grid.I, a.W, rh, 0, a.stride_h, 1});
        continue;
      }
      Pass pass = r.pass(a, packed);
      if (is_empty(pass)) continue;
      pass.alone = alone;
      const TurnedWeights weights{&a, r.taps};
      const Way way = way_of(pass, few);
      if (late && is_plain(pass) && (way == pass_in_place || way == pass_gathered))
        pass.turned = &weights;
      else
        pack_taps(s, weights, few, packed);
      way(s, pass);
    }
}

}  // namespace dagrt::DAGRT_ISA
