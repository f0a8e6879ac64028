// LSTM over a sequence.
//
// Rows of the batch are independent, so a thread takes a few of them through all steps: no barrier between steps, weights
// from its L2. A tile is a few rows by the four gates of V units: when its products are summed, the cells of those units
// are computed where the sums lie, in registers. The projection of the inputs is made for some steps at once, into z,
// which stays in L2; a step's sums start from there. The order of the panels alternates from step to step, so that what
// L1 still holds is read first.
//
// The cell: with D = 1 + 2^z of a gate, i = 1 / Di, and tanh of g is m / (m + 2), m = 2^z - 1. Two divisions serve all five
// functions:
//   c' = f c + i g = Di Dg / (Di Df Dg) c + Df m / (Di Df Dg),  h = mc / (Do Dc)
// z is kept below 40, so that no product of three overflows. A masked step keeps the states; its output is the one before,
// or zero.
#include "kernels/lstm.h"

#include "kernels/cpu/vec_math.h"

namespace dagrt::DAGRT_ISA {
namespace {

constexpr int tile_rows = V == 16 ? 6 : V == 8 ? 3 : 2;  // by four vectors of sums: with weights and rows all registers
constexpr int64_t depth = 128;                           // products taken before the next tile: that part of a panel stays in L1
constexpr float log2e = 1.44269504088896341f;

float* aligned(char* p) { return reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(p) + 63) / 64 * 64); }

DAGRT_INLINE void put(float* to, vf v, int n) { n == V ? store(to, v) : store_n(to, v, n); }

void copy(float* to, const float* from, int64_t n) {
  for (int64_t i = 0; i < n; i += V) {
    int k = int(n - i < V ? n - i : V);
    put(to + i, from ? load_n(from + i, k) : vf{}, k);
  }
}

/// The packed weights' parts.
struct Packed {
  int64_t panels;
  float *bias, *kernel, *recurrent;
  Packed(float* p, int64_t C, int64_t U)
      : panels((U + V - 1) / V), bias(p), kernel(p + panels * 4 * V), recurrent(kernel + panels * C * 4 * V) {}
};

/// sums[m] += h[m] w: K rows of a panel.
template <int MR> DAGRT_INLINE void add_products(vf (&sums)[MR][4], int64_t K, const float* h, int64_t ldh, const float* w) {
  auto add = [&](vf(&to)[MR][4], int64_t k) __attribute__((always_inline)) {
    vf a[MR];
#pragma GCC unroll 6
    for (int m = 0; m < MR; m++) a[m] = splat(h[m * ldh + k]);
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++) {
      vf b = load(w + (k * 4 + g) * V);
#pragma GCC unroll 6
      for (int m = 0; m < MR; m++) to[m][g] += a[m] * b;
    }
  };
  int64_t k = 0;
  if constexpr (MR == 1) {  // four sums alone would wait for one another
    vf more[1][4] = {};
#pragma GCC unroll 2
    for (; k + 2 <= K; k += 2) add(sums, k), add(more, k + 1);
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++) sums[0][g] += more[0][g];
  } else {
    for (; k + 4 <= K; k += 4)
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) add(sums, k + i);
  }
  for (; k < K; k++) add(sums, k);
}

/// z[m] = from[m] + x[m] w for a tile of rows; `from` may be z.
template <int MR>
void project(int64_t K, const float* x, int64_t ldx, const float* w, const float* from, int64_t ldfrom, float* z, int64_t ldz) {
  vf sums[MR][4];
#pragma GCC unroll 6
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++) sums[m][g] = load(from + m * ldfrom + g * V);
  add_products<MR>(sums, K, x, ldx, w);
#pragma GCC unroll 6
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++) store(z + m * ldz + g * V, sums[m][g]);
}

/// One step of some rows.
struct Step {
  const LstmArgs& a;
  int64_t b0, step, t;  // first row of the batch; step in processing order and in time
  int64_t ld;           // of the states
  const float *h, *r;   // before; the recurrent panels
  float *next, *c, *out;
  float* z;  // of the first panel
  int64_t z_panel;
};

/// The last `K` products of a tile, and its cells.
template <int MR> void advance(const Step& s, int64_t p, int64_t m0, int64_t k0, int64_t K) {
  const LstmArgs& a = s.a;
  const int64_t U = a.U, B = a.B, u = p * V, at = m0 * s.ld + u, b = s.b0 + m0;
  vf sums[MR][4];
  const float* z = s.z + p * s.z_panel + m0 * 4 * V;
#pragma GCC unroll 6
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++) sums[m][g] = load(z + (m * 4 + g) * V);
  add_products<MR>(sums, K, s.h + m0 * s.ld + k0, s.ld, s.r + (p * U + k0) * 4 * V);
  const int n = int(U - u < V ? U - u : V);
  // In two rounds: the second is one long chain for each row, and those of all rows run side by side.
  vf cell[MR], dout[MR];
#pragma GCC unroll 6
  for (int m = 0; m < MR; m++) {
    float* c = s.c + at + m * s.ld;
    vf before = load(c);
    vf di = one_plus_power(sums[m][0]), df = one_plus_power(sums[m][1]), mg = power_minus_one(sums[m][2]);
    dout[m] = one_plus_power(sums[m][3]);
    vf dg = mg + splat(2), dig = di * dg;
    vf inverse = splat(1) / (dig * df);
    vf f = dig * inverse, dfi = df * inverse;
    cell[m] = f * before + mg * dfi;
    if (a.gates) {
      float* to = a.gates + ((s.step * B + b + m) * 4) * U + u;
      put(to, dg * dfi, n);
      put(to + U, f, n);
      put(to + 2 * U, mg * (di * dfi), n);
    }
    if (a.mask && !a.mask[(b + m) * a.T + s.t]) cell[m] = before;
    store(c, cell[m]);
    if (a.cells) put(a.cells + (s.step * B + b + m) * U + u, cell[m], n);
  }
#pragma GCC unroll 6
  for (int m = 0; m < MR; m++) {
    vf mc = power_minus_one(cell[m] * splat(2 * log2e)), dc = mc + splat(2);
    vf inverse = splat(1) / (dout[m] * dc);
    vf now = mc * inverse, y = now;
    if (a.gates) put(a.gates + ((s.step * B + b + m) * 4 + 3) * U + u, dc * inverse, n);
    if (a.mask) {
      float* out = s.out + at + m * s.ld;
      if (!a.mask[(b + m) * a.T + s.t]) {
        now = load(s.h + at + m * s.ld);
        y = a.zero_output_for_mask ? vf{} : load(out);
      }
      store(out, y);
    }
    store(s.next + at + m * s.ld, now);
    if (a.y) put(a.y + ((b + m) * a.T + s.step) * a.ldy + u, y, n);
    if (a.hidden) put(a.hidden + (s.step * B + b + m) * U + u, now, n);
  }
}

// Tables of tile heights.
using Project = void (*)(int64_t, const float*, int64_t, const float*, const float*, int64_t, float*, int64_t);
using Advance = void (*)(const Step&, int64_t, int64_t, int64_t, int64_t);
#if DAGRT_V == 16
#define DAGRT_TILES(f) nullptr, f<1>, f<2>, f<3>, f<4>, f<5>, f<6>
#elif DAGRT_V == 8
#define DAGRT_TILES(f) nullptr, f<1>, f<2>, f<3>
#else
#define DAGRT_TILES(f) nullptr, f<1>, f<2>
#endif
constexpr Project project_tile[tile_rows + 1] = {DAGRT_TILES(project)};
constexpr Advance advance_tile[tile_rows + 1] = {DAGRT_TILES(advance)};
#undef DAGRT_TILES

/// Calls f(first, count) for tiles of `rows`: full ones, then what is left. Two lower ones cost more.
template <class F> DAGRT_INLINE void in_tiles(int64_t rows, const F& f) {
  for (int64_t i = 0; i < rows; i += tile_rows) f(i, rows - i < tile_rows ? rows - i : int64_t(tile_rows));
}

/// Rows b0, ... of the batch through all steps: this part's share of the panels.
void walk(const LstmArgs& a, const LstmPlan& plan, int64_t b0, int64_t rows, float* memory) {
  const int64_t U = a.U, C = a.C, T = a.T;
  const Packed w(a.packed, C, U);
  const int64_t first = 0, last = w.panels, ld = w.panels * V, each = rows * ld;
  float *h = memory, *next = h + each, *c = next + each, *out = c + each;
  float* z = out + each;  // [panels][steps][rows][4][V]
  const int64_t z_panel = plan.steps * rows * 4 * V;
  for (int64_t m = 0; m < rows; m++)
    for (int64_t p = first; p < last; p++) {
      const int64_t u = p * V, at = m * ld + u, from = (b0 + m) * U + u;
      const int n = int(U - u < V ? U - u : V);
      store(h + at, a.h0 ? load_n(a.h0 + from, n) : vf{});
      store(c + at, a.c0 ? load_n(a.c0 + from, n) : vf{});
      store(out + at, vf{});
    }
  for (int64_t k0 = 0; k0 < T; k0 += plan.steps) {
    const int64_t steps = T - k0 < plan.steps ? T - k0 : plan.steps, ldx = a.go_backwards ? -a.ldx : a.ldx;
    const int64_t t0 = a.go_backwards ? T - 1 - k0 : k0;
    for (int64_t p = first; p < last; p++)
      for (int64_t m = 0; m < rows; m++)
        in_tiles(steps, [&](int64_t k, int64_t count) {
          project_tile[count](C, a.x + ((b0 + m) * T + t0) * a.ldx + k * ldx, ldx, w.kernel + p * C * 4 * V, w.bias + p * 4 * V,
                              0, z + p * z_panel + (k * rows + m) * 4 * V, rows * 4 * V);
        });
    for (int64_t k = 0; k < steps; k++) {
      const int64_t step = k0 + k;
      const Step s{a,      b0, step, a.go_backwards ? T - 1 - step : step, ld, h, w.recurrent, next, c, out, z + k * rows * 4 * V,
                   z_panel};
      for (int64_t i = first; i < last; i++) {
        const int64_t p = step % 2 ? last - 1 - (i - first) : i;
        float* zp = s.z + p * z_panel;
        int64_t q = 0;
        for (; q + depth < U; q += depth)
          in_tiles(rows, [&](int64_t m, int64_t count) {
            project_tile[count](depth, h + m * ld + q, ld, s.r + (p * U + q) * 4 * V, zp + m * 4 * V, 4 * V, zp + m * 4 * V,
                                4 * V);
          });
        in_tiles(rows, [&](int64_t m, int64_t count) { advance_tile[count](s, p, m, q, U - q); });
      }
      float* swap = h;
      h = next, next = swap;
    }
  }
  for (int64_t m = 0; m < rows; m++) {
    if (a.h) copy(a.h + (b0 + m) * U, h + m * ld, U);
    if (a.c) copy(a.c + (b0 + m) * U, c + m * ld, U);
  }
}

}  // namespace

void lstm_pack(const LstmArgs& a, const Stream& s) {
  const int64_t C = a.C, U = a.U;
  const Packed w(a.packed, C, U);
  s.parallel(w.panels, double(C + U + 1) * 6 + 20, [&](int64_t p, char*) {
    const int n = int(U - p * V < V ? U - p * V : V);
    auto pack = [&](int64_t K, const float* from, float* to) __attribute__((always_inline)) {
      for (int64_t k = 0; k < K; k++)
        for (int g = 0; g < 4; g++, to += V)
          store(to, from ? load_n(from + (k * 4 + g) * U + p * V, n) * splat(g == 2 ? 2 * log2e : -log2e) : vf{});
    };
    pack(1, a.bias, w.bias + p * 4 * V);
    pack(C, a.kernel, w.kernel + p * C * 4 * V);
    pack(U, a.recurrent, w.recurrent + p * U * 4 * V);
  });
}

void lstm(const LstmArgs& a, const Stream& s) {
  if (!a.B || !a.U) return;
  const LstmPlan plan = lstm_plan(a.B, a.T, a.U);
  double ns = double(a.T) * double(plan.rows) * double(4 * a.U) * double(a.C + a.U + 16) * (0.2 / V) + 1000;
  s.parallel(plan.blocks, ns, [&](int64_t i, char* scratch) {
    const LstmBlock b = lstm_block(plan, a.B, i);
    if (b.rows) walk(a, plan, b.begin, b.rows, aligned(scratch));
  });
}

}  // namespace dagrt::DAGRT_ISA
