// LSTM over a sequence.
//
// Rows of the batch are independent, so a thread takes a few of them through all steps: no barrier between steps, weights
// from its L2. A tile is a few rows by the four gates of V units; when a panel's products are summed, the cells of its units
// follow, for all rows. The projection of the inputs is made for some steps at once, into z, which stays in L2; a step's
// products are added there. The order of the panels alternates from step to step, so that what
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
constexpr int64_t past_from = int64_t(1) << 20;          // floats for the gradient that L2 would not keep for it: 4 MB
constexpr float log2e = 1.44269504088896341f;

/// The packed weights' parts.
struct Packed {
  int64_t panels;
  float *bias, *kernel, *recurrent;
  Packed(float* p, int64_t C, int64_t U)
      : panels((U + V - 1) / V), bias(p), kernel(p + panels * 4 * V), recurrent(kernel + panels * C * 4 * V) {}
};

/// sums[m] += h[m] w: K rows of a panel. One after another, or (apart) every second one by itself.
template <bool apart, int MR>
DAGRT_INLINE void add_products(vf (&sums)[MR][4], int64_t K, const float* h, int64_t ldh, const float* w) {
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
  if constexpr (apart) {
    vf more[MR][4] = {};  // four sums alone would wait for one another
#pragma GCC unroll 2
    for (; k + 2 <= K; k += 2) add(sums, k), add(more, k + 1);
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++)
      for (int m = 0; m < MR; m++) sums[m][g] += more[m][g];
  } else {
    for (; k + 4 <= K; k += 4)
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) add(sums, k + i);
  }
  for (; k < K; k++) add(sums, k);
}

/// z[m] = from[m] + x[m] w for a tile of rows; `from` may be z. Where `apart` is false a row gets the same bits in a tile of
/// any height.
template <bool apart, int MR>
DAGRT_INLINE void project_rows(int64_t K, const float* x, int64_t ldx, const float* w, const float* from, int64_t ldfrom,
                               float* z, int64_t ldz) {
  vf sums[MR][4];
#pragma GCC unroll 6
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++) sums[m][g] = load(from + m * ldfrom + g * V);
  add_products<apart>(sums, K, x, ldx, w);
#pragma GCC unroll 6
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++) store(z + m * ldz + g * V, sums[m][g]);
}
template <int MR>
void project(int64_t K, const float* x, int64_t ldx, const float* w, const float* from, int64_t ldfrom, float* z, int64_t ldz) {
  project_rows<false, MR>(K, x, ldx, w, from, ldfrom, z, ldz);
}
void project_apart(int64_t K, const float* x, int64_t ldx, const float* w, const float* from, int64_t ldfrom, float* z,
                   int64_t ldz) {
  project_rows<true, 1>(K, x, ldx, w, from, ldfrom, z, ldz);
}

/// One step of some rows.
struct Step {
  const LstmArgs& a;
  int64_t b0, rows, step, t;  // first row of the batch; step in processing order and in time
  int64_t ld;                 // of the states
  const float *h, *r;         // before; the recurrent panels
  float *next, *c, *out;
  bool past;  // what the gradient reads goes past the caches: it reads the last of it first
};

/// The cells of a panel's units, from the sums of all rows. In two rounds: each is one long chain for a row, and those of
/// the rows run side by side.
void cells(const Step& s, int64_t p, const float* sums) {
  const LstmArgs& a = s.a;
  const int64_t U = a.U, B = a.B, u = p * V;
  const int n = int(U - u < V ? U - u : V);
  const auto put = [&](float* to, vf gate)
                       __attribute__((always_inline)) { s.past ? put_n<true>(to, gate, n) : store_n(to, gate, n); };
  vf cell[lstm_most_rows], dout[lstm_most_rows];
#pragma GCC unroll 1
  for (int64_t m = 0; m < s.rows; m++, sums += 4 * V) {
    float* c = s.c + m * s.ld + u;
    vf before = load(c);
    vf di = one_plus_power(load(sums)), df = one_plus_power(load(sums + V)), mg = power_minus_one(load(sums + 2 * V));
    dout[m] = one_plus_power(load(sums + 3 * V));
    vf dg = mg + splat(2), dig = di * dg;
    vf inverse = splat(1) / (dig * df);
    vf f = dig * inverse, dfi = df * inverse;
    vf now = f * before + mg * dfi;
    if (a.gates) {
      float* to = a.gates + ((s.step * B + s.b0 + m) * 4) * U + u;
      put(to, dg * dfi);
      put(to + U, f);
      put(to + 2 * U, mg * (di * dfi));
    }
    if (a.mask && !a.mask[(s.b0 + m) * a.T + s.t]) now = before;
    cell[m] = now;
    store(c, now);
    if (a.cells) put(a.cells + (s.step * B + s.b0 + m) * U + u, now);
  }
#pragma GCC unroll 1
  for (int64_t m = 0; m < s.rows; m++) {
    const int64_t at = m * s.ld + u, b = s.b0 + m;
    vf mc = power_minus_one(cell[m] * splat(2 * log2e)), dc = mc + splat(2);
    vf inverse = splat(1) / (dout[m] * dc);
    vf now = mc * inverse, y = now;
    if (a.gates) put(a.gates + ((s.step * B + b) * 4 + 3) * U + u, dc * inverse);
    if (a.mask) {
      float* out = s.out + at;
      if (!a.mask[b * a.T + s.t]) {
        now = load(s.h + at);
        y = a.zero_output_for_mask ? vf{} : load(out);
      }
      store(out, y);
    }
    store(s.next + at, now);
    if (a.y) store_n(a.y + (b * a.T + s.step) * a.ldy + u, y, n);
    if (a.hidden) put(a.hidden + (s.step * B + b) * U + u, now);
  }
}

// Tables of tile heights.
using Project = void (*)(int64_t, const float*, int64_t, const float*, const float*, int64_t, float*, int64_t);
#if DAGRT_V == 16
#define DAGRT_TILES(one) nullptr, one, project<2>, project<3>, project<4>, project<5>, project<6>
#elif DAGRT_V == 8
#define DAGRT_TILES(one) nullptr, one, project<2>, project<3>
#else
#define DAGRT_TILES(one) nullptr, one, project<2>
#endif
constexpr Project project_tile[tile_rows + 1] = {DAGRT_TILES(project<1>)};
constexpr Project recurrent_tile[tile_rows + 1] = {DAGRT_TILES(project_apart)};
#undef DAGRT_TILES

/// Calls f(first, count) for tiles of `rows`: full ones, then what is left. Two lower ones cost more.
template <class F> DAGRT_INLINE void in_tiles(int64_t rows, const F& f) {
  for (int64_t i = 0; i < rows; i += tile_rows) f(i, rows - i < tile_rows ? rows - i : int64_t(tile_rows));
}

/// Where the parts of a gang stand: part i says so at flags[16 i].
struct Gang {
  int part = 0, parts = 1;
  uint32_t* flags = nullptr;
  /// All parts have come to `number`.
  void meet(uint32_t number) const {
    if (parts == 1) return;
    announce(flags + 16 * part, number);
    for (int i = 0; i < parts; i++)
      if (i != part) await(flags + 16 * i, number);
  }
};

/// The row of the table for (b, t).
DAGRT_INLINE const float* table_row(const LstmArgs& a, int64_t b, int64_t t) {
  const int64_t i = b * a.T + t, id = a.wide ? static_cast<const int64_t*>(a.ids)[i] : static_cast<const int32_t*>(a.ids)[i];
  return a.table + id * lstm_packed_columns(a.U);
}

/// Rows b0, ... of the batch through all steps: this part's share of the panels.
void walk(const LstmArgs& a, const LstmPlan& plan, int64_t b0, int64_t rows, float* memory, const Gang& gang) {
  const int64_t U = a.U, C = a.C, T = a.T;
  const Packed w(a.packed, C, U);
  const int64_t first = w.panels * gang.part / gang.parts, last = w.panels * (gang.part + 1) / gang.parts;
  const int64_t ld = w.panels * V, each = rows * ld, z_panel = plan.steps * rows * 4 * V;
  float *h = memory, *next = h + each, *c = next + each, *out = c + each;
  float* partial = out + each;         // [parts][rows][4][V]: a panel's sums, where they do not start in z
  float* z = partial + 4 * rows * ld;  // [panels][steps][rows][4][V]
  for (int64_t m = 0; m < rows; m++)
    for (int64_t p = first; p < last; p++) {
      const int64_t u = p * V, at = m * ld + u, from = (b0 + m) * U + u;
      const int n = int(U - u < V ? U - u : V);
      store(h + at, a.h0 ? load_n(a.h0 + from, n) : vf{});
      store(c + at, a.c0 ? load_n(a.c0 + from, n) : vf{});
      store(out + at, vf{});
    }
  const bool past = a.gates && whole_places(a.gates, U, U) && whole_places(a.cells, U, U) && whole_places(a.hidden, U, U) &&
                    6 * T * a.B * U >= past_from;
  gang.meet(1);
  const auto time = [&](int64_t step) { return a.go_backwards ? T - 1 - step : step; };
  for (int64_t k0 = 0; k0 < T; k0 += plan.steps) {
    const int64_t steps = T - k0 < plan.steps ? T - k0 : plan.steps, ldx = a.go_backwards ? -a.ldx : a.ldx;
    for (int64_t p = first; p < last && !a.table; p++)
      for (int64_t m = 0; m < rows; m++)
        in_tiles(steps, [&](int64_t k, int64_t count) {
          project_tile[count](C, a.x + ((b0 + m) * T + time(k0)) * a.ldx + k * ldx, ldx, w.kernel + p * C * 4 * V,
                              w.bias + p * 4 * V, 0, z + p * z_panel + (k * rows + m) * 4 * V, rows * 4 * V);
        });
    for (int64_t k = 0; k < steps; k++) {
      const int64_t step = k0 + k;
      const Step s{a, b0, rows, step, time(step), ld, h, w.recurrent, next, c, out, past};
      const float *from[lstm_most_rows], *then[lstm_most_rows];
      for (int64_t m = 0; m < rows && a.table; m++) {
        from[m] = table_row(a, b0 + m, time(step));
        then[m] = table_row(a, b0 + m, time(step + 1 < T ? step + 1 : step));
      }
      for (int64_t i = first; i < last; i++) {
        const int64_t p = step % 2 ? last - 1 - (i - first) : i;
        float* sums = z + p * z_panel + k * rows * 4 * V;
        if (a.table) {  // the next step's rows lie anywhere
          sums = partial + first * rows * 4 * V;
          for (int64_t m = 0; m < rows; m++) {
            copy(sums + m * 4 * V, from[m] + p * 4 * V, 4 * V);
            for (int64_t at = 0; at < 4 * V; at += 16) __builtin_prefetch(then[m] + p * 4 * V + at);
          }
        }
        for (int64_t q = 0; q < U; q += depth)
          in_tiles(rows, [&](int64_t m, int64_t count) {
            float* to = sums + m * 4 * V;
            recurrent_tile[count](U - q < depth ? U - q : depth, h + m * ld + q, ld, s.r + (p * U + q) * 4 * V, to, 4 * V, to,
                                  4 * V);
          });
        cells(s, p, sums);
      }
      float* swap = h;
      h = next, next = swap;
      gang.meet(uint32_t(step) + 2);
    }
  }
  for (int64_t m = 0; m < rows; m++)
    for (int64_t p = first; p < last; p++) {
      const int64_t u = p * V, at = m * ld + u, to = (b0 + m) * U + u;
      const int n = int(U - u < V ? U - u : V);
      if (a.h) store_n(a.h + to, load(h + at), n);
      if (a.c) store_n(a.c + to, load(c + at), n);
    }
  if (past) finish_past();
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

void lstm_pack_table(const LstmArgs& a, const Stream& s) {
  const Packed w(a.packed, a.C, a.U);
  const int64_t columns = lstm_packed_columns(a.U);
  constexpr int64_t rows = 8 * tile_rows;  // each panel of W is read for so many
  s.parallel((a.B + rows - 1) / rows, double(rows * a.C * columns) * (0.2 / V) + 20, [&](int64_t i, char*) {
    const int64_t n0 = i * rows, n = a.B - n0 < rows ? a.B - n0 : rows;
    for (int64_t p = 0; p < w.panels; p++)
      in_tiles(n, [&](int64_t m, int64_t count) {
        project_tile[count](a.C, a.x + (n0 + m) * a.ldx, a.ldx, w.kernel + p * a.C * 4 * V, w.bias + p * 4 * V, 0,
                            a.y + (n0 + m) * columns + p * 4 * V, columns);
      });
    for (int64_t m = 0; m < n; m++)  // what other instruction sets' vectors may need
      copy(a.y + (n0 + m) * columns + w.panels * 4 * V, nullptr, columns - w.panels * 4 * V);
  });
}

void lstm(const LstmArgs& a, const Stream& s) {
  if (!a.B || !a.U) return;
  const LstmPlan plan = lstm_plan(a.B, a.T, a.U);
  double ns = double(a.T) * double(plan.rows) * double(4 * a.U) * double(a.C + a.U + 16) * (0.2 / V) + 1000;
  if (plan.blocks == 1) {  // too few rows for two threads: they share the units, and meet after each step
    uint32_t* flags = reinterpret_cast<uint32_t*>(aligned(a.workspace));
    for (int i = 0; i < lstm_most_parts; i++) flags[16 * i] = 0;
    float* memory = reinterpret_cast<float*>(flags + 16 * lstm_most_parts);
    const int64_t shares = (a.U + V - 1) / V / 2;
    s.gang(int(shares < 1                 ? 1
               : shares < lstm_most_parts ? shares
                                          : lstm_most_parts),
           ns, [&](int part, int parts, char*) { walk(a, plan, 0, a.B, memory, {part, parts, flags}); });
    return;
  }
  s.parallel(plan.blocks, ns, [&](int64_t i, char* scratch) {
    const LstmBlock b = lstm_block(plan, a.B, i);
    walk(a, plan, b.begin, b.rows, aligned(scratch), {});
  });
}

}  // namespace dagrt::DAGRT_ISA
