// LSTM over a sequence.
//
// Rows of the batch are independent, so a thread takes a few of them through all steps: no barrier between steps, weights
// from its L2. A tile is a few rows by the four gates of a panel's units; when a panel's products are summed, the cells of its
// units follow, for all rows: in a panel of fewer than V units for several rows at once. The projection of the inputs is made
// for some steps at once, into z, which stays in L2; a step's products are added there. The order of the panels alternates
// from step to step, so that what L1 still holds is read first.
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
// Floats for the gradient that L2 would not keep for it, 4 MB: they go past the caches where a vector is a line, which is not
// written twice.
constexpr int64_t past_from = int64_t(1) << 20;
constexpr float log2e = 1.44269504088896341f;

/// The packed weights' parts, and the panels: of V units, then of V / 2, V / 4 where that holds what is left. With K numbers
/// for each unit's gate, what belongs to the panel of the units from u on begins 4 u K floats behind the first panel's.
struct Packed {
  static constexpr int64_t quarter = V / 4;
  int64_t whole, units, panels;  // panels of V; units of all, as they are padded; all panels
  bool half;                     // whether the first panel behind the whole ones is of V / 2
  float *bias, *kernel, *recurrent;
  Packed(float* p, int64_t C, int64_t U) {
    units = (U + quarter - 1) / quarter * quarter;
    whole = units / V;
    const int64_t left = (units - whole * V) / quarter;  // 0 to 3
    half = left >= 2, panels = whole + (left + 1) / 2;
    bias = p, kernel = p + 4 * units, recurrent = kernel + C * 4 * units;
  }
  int64_t unit(int64_t p) const { return p <= whole ? p * V : whole * V + V / 2; }
  int64_t width(int64_t p) const { return p < whole ? V : half && p == whole ? V / 2 : quarter; }
};

/// sums[m] += h[m] w: K rows of a panel. One after another, or (apart) every second one by itself.
template <bool apart, int MR, int NV>
DAGRT_INLINE void add_products(vf (&sums)[MR][NV], int64_t K, const float* h, int64_t ldh, const float* w) {
  auto add = [&](vf(&to)[MR][NV], int64_t k) __attribute__((always_inline)) {
    vf a[MR];
#pragma GCC unroll 6
    for (int m = 0; m < MR; m++) a[m] = splat(h[m * ldh + k]);
#pragma GCC unroll 4
    for (int g = 0; g < NV; g++) {
      vf b = load(w + (k * NV + g) * V);
#pragma GCC unroll 6
      for (int m = 0; m < MR; m++) to[m][g] += a[m] * b;
    }
  };
  int64_t k = 0;
  if constexpr (apart) {
    vf more[MR][NV] = {};  // four sums alone would wait for one another
#pragma GCC unroll 2
    for (; k + 2 <= K; k += 2) add(sums, k), add(more, k + 1);
#pragma GCC unroll 4
    for (int g = 0; g < NV; g++)
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
template <bool apart, int MR, int NV>
void project(int64_t K, const float* x, int64_t ldx, const float* w, const float* from, int64_t ldfrom, float* z, int64_t ldz) {
  vf sums[MR][NV];
#pragma GCC unroll 6
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int g = 0; g < NV; g++) sums[m][g] = load(from + m * ldfrom + g * V);
  add_products<apart>(sums, K, x, ldx, w);
#pragma GCC unroll 6
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int g = 0; g < NV; g++) store(z + m * ldz + g * V, sums[m][g]);
}

/// One step of some rows.
struct Step {
  const LstmArgs& a;
  int64_t b0, rows, step, t;  // first row of the batch; step in processing order and in time
  int64_t ldh, whole_rows;
  const float* h;  // [rows], ldh apart: before; after in `next`
  float* next;
  float *c, *out;  // for each panel [whole_rows][units]: V / units rows are a vector
  bool past;       // what the gradient reads goes past the caches: it reads the last of it first
};

/// Lanes of the first half of both; of the second.
template <bool second> DAGRT_INLINE vf halves(vf a, vf b) {
  const vi lane = lane_numbers(), in = lane & splat_i(V / 2 - 1), high = lane >= splat_i(V / 2);
  return __builtin_shuffle(a, b, in + (high & splat_i(V)) + splat_i(second ? V / 2 : 0));
}
/// Quarters 0 and 2 of both, or 1 and 3: a's, b's, a's, b's.
template <bool odd> DAGRT_INLINE vf quarters(vf a, vf b) {
  const vi lane = lane_numbers(), from_b = (lane & splat_i(V / 4)) != splat_i(0);
  return __builtin_shuffle(a, b, (lane & splat_i(~(V / 4))) + (from_b & splat_i(V)) + splat_i(odd ? V / 4 : 0));
}
/// From the four vectors of V / units rows' sums: each gate's, [rows][units].
template <int units> DAGRT_INLINE void sort_gates(vf (&z)[4]) {
  if constexpr (units < V) {
    const vf a = halves<false>(z[0], z[2]), b = halves<true>(z[0], z[2]);
    const vf c = halves<false>(z[1], z[3]), d = halves<true>(z[1], z[3]);
    if constexpr (units == V / 2)
      z[0] = a, z[1] = b, z[2] = c, z[3] = d;
    else
      z[0] = quarters<false>(a, c), z[1] = quarters<true>(a, c), z[2] = quarters<false>(b, d), z[3] = quarters<true>(b, d);
  }
}
/// [rows][units] of a vector to rows that lie `ld` apart: n of each.
template <bool past, int units> DAGRT_INLINE void put_rows(float* to, int64_t ld, vf v, int64_t rows, int n) {
  if constexpr (units == V) {
    put_n<past>(to, v, n);
  } else {
#pragma GCC unroll 4
    for (int r = 0; r < V / units; r++)
      if (r < rows) store_n(to + r * ld, __builtin_shuffle(v, lane_numbers() + splat_i(r * units)), n);
  }
}
template <int units> DAGRT_INLINE vf get_rows(const float* from, int64_t ld, int64_t rows) {
  if constexpr (units == V) return load(from);
  float lanes[V] = {};
  for (int64_t r = 0; r < rows; r++) store_n(lanes + r * units, load_n(from + r * ld, units), units);
  return load(lanes);
}

/// The cells of a panel's units from u on, from the sums of all rows. In two rounds: each is one long chain for a vector, and
/// those of the vectors run side by side.
template <int units> void cells(const Step& s, int64_t u, const float* sums) {
  constexpr int side = V / units;  // rows of a vector
  const LstmArgs& a = s.a;
  const int64_t U = a.U, B = a.B;
  const int n = int(U - u < units ? U - u : units);
  const auto put = [&](float* to, int64_t ld, vf gate, int64_t rows) __attribute__((always_inline)) {
    s.past ? put_rows<true, units>(to, ld, gate, rows, n) : put_rows<false, units>(to, ld, gate, rows, n);
  };
  const auto left = [&](int64_t m, int64_t rows) __attribute__((always_inline)) {  // lanes of rows that are masked
    vi lanes{};
    for (int64_t r = 0; r < rows; r++)
      if (!a.mask[(s.b0 + m + r) * a.T + s.t])
        lanes |= side == 1 ? splat_i(-1) : (lane_numbers() & splat_i(-units)) == splat_i(int32_t(r) * units);
    return lanes;
  };
  vf cell[lstm_most_rows], dout[lstm_most_rows];
#pragma GCC unroll 1
  for (int64_t m = 0, i = 0; m < s.rows; m += side, i++, sums += 4 * V) {
    const int64_t rows = side == 1 || s.rows - m > side ? side : s.rows - m, place = s.step * B + s.b0 + m;
    float* c = s.c + s.whole_rows * u + m * units;
    vf z[4];
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++) z[g] = side == 1 || g * side / 4 < rows ? load(sums + g * V) : vf{};
    sort_gates<units>(z);
    vf before = load(c);
    vf di = one_plus_power(z[0]), df = one_plus_power(z[1]), mg = power_minus_one(z[2]);
    dout[i] = one_plus_power(z[3]);
    vf dg = mg + splat(2), dig = di * dg;
    vf inverse = splat(1) / (dig * df);
    vf f = dig * inverse, dfi = df * inverse;
    vf now = f * before + mg * dfi;
    if (a.gates) {
      float* to = a.gates + place * 4 * U + u;
      put(to, 4 * U, dg * dfi, rows);
      put(to + U, 4 * U, f, rows);
      put(to + 2 * U, 4 * U, mg * (di * dfi), rows);
    }
    if (a.mask) now = select(left(m, rows), before, now);
    cell[i] = now;
    store(c, now);
    if (a.cells) put(a.cells + place * U + u, U, now, rows);
  }
#pragma GCC unroll 1
  for (int64_t m = 0, i = 0; m < s.rows; m += side, i++) {
    const int64_t rows = side == 1 || s.rows - m > side ? side : s.rows - m, b = s.b0 + m, place = s.step * B + b;
    vf mc = power_minus_one(cell[i] * splat(2 * log2e)), dc = mc + splat(2);
    vf inverse = splat(1) / (dout[i] * dc);
    vf now = mc * inverse, y = now;
    if (a.gates) put(a.gates + (place * 4 + 3) * U + u, 4 * U, dc * inverse, rows);
    if (a.mask) {
      float* out = s.out + s.whole_rows * u + m * units;
      const vi masked = left(m, rows);
      now = select(masked, get_rows<units>(s.h + m * s.ldh + u, s.ldh, rows), now);
      y = select(masked, a.zero_output_for_mask ? vf{} : load(out), y);
      store(out, y);
    }
    put_rows<false, units>(s.next + m * s.ldh + u, s.ldh, now, rows, units);
    if (a.y) put_rows<false, units>(a.y + (b * a.T + s.step) * a.ldy + u, a.T * a.ldy, y, rows, n);
    if (a.hidden) put(a.hidden + place * U + u, U, now, rows);
  }
}

// Tables of tiles: by a panel's vectors, 1, 2, 4, and their heights. Two sums of a product where few sums would wait for one
// another and the row's bits may depend on the height.
using Project = void (*)(int64_t, const float*, int64_t, const float*, const float*, int64_t, float*, int64_t);
#define DAGRT_TILE(m, n) project<apart && (m) * (n) <= 4, m, n>
#if DAGRT_V == 16
#define DAGRT_TILES(n) \
  {nullptr, DAGRT_TILE(1, n), DAGRT_TILE(2, n), DAGRT_TILE(3, n), DAGRT_TILE(4, n), DAGRT_TILE(5, n), DAGRT_TILE(6, n)}
#elif DAGRT_V == 8
#define DAGRT_TILES(n) {nullptr, DAGRT_TILE(1, n), DAGRT_TILE(2, n), DAGRT_TILE(3, n)}
#else
#define DAGRT_TILES(n) {nullptr, DAGRT_TILE(1, n), DAGRT_TILE(2, n)}
#endif
template <bool apart> constexpr Project tiles[3][tile_rows + 1] = {DAGRT_TILES(1), DAGRT_TILES(2), DAGRT_TILES(4)};
#undef DAGRT_TILES
#undef DAGRT_TILE
template <bool apart> DAGRT_INLINE const Project* tiles_of(int64_t units) {
  return tiles<apart>[units == V ? 2 : units == V / 2 ? 1 : 0];
}

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

/// A panel's units as a type: its strides are constants where it is taken through a step.
template <int units> struct Width {
  static constexpr int value = units;
};

/// Rows b0, ... of the batch through all steps: this part's share of the panels. lstm_memory knows what it lays out.
void walk(const LstmArgs& a, const LstmPlan& plan, int64_t b0, int64_t rows, float* memory, const Gang& gang) {
  const int64_t U = a.U, C = a.C, T = a.T;
  const Packed w(a.packed, C, U);
  const int64_t first = w.panels * gang.part / gang.parts, last = w.panels * (gang.part + 1) / gang.parts;
  const int64_t ldh = (U + V - 1) / V * V, whole_rows = (rows + 3) / 4 * 4;
  float *h = memory, *next = h + rows * ldh;    // [rows][ldh]
  float* c = next + rows * ldh;                 // [panels][whole_rows][units]
  float* out = c + whole_rows * w.units;        // the same
  float* partial = out + whole_rows * w.units;  // [parts][rows][4][units]: a panel's sums, where they do not start in z
  float* z = partial + 4 * rows * w.units;      // [panels][steps][rows][4][units]
  for (int64_t p = first; p < last; p++) {
    const int64_t u = w.unit(p), units = w.width(p), n = U - u < units ? U - u : units;
    for (int64_t m = 0; m < whole_rows; m++) {
      const int64_t to = whole_rows * u + m * units, from = (b0 + m) * U + u;
      if (m < rows) store_n(h + m * ldh + u, a.h0 ? load_n(a.h0 + from, int(n)) : vf{}, int(units));
      store_n(c + to, m < rows && a.c0 ? load_n(a.c0 + from, int(n)) : vf{}, int(units));
      store_n(out + to, vf{}, int(units));
    }
  }
  const bool past = V * sizeof(float) == 64 && a.gates && whole_places(a.gates, U, U) && whole_places(a.cells, U, U) &&
                    whole_places(a.hidden, U, U) && 6 * T * a.B * U >= past_from;
  gang.meet(1);
  const auto time = [&](int64_t step) { return a.go_backwards ? T - 1 - step : step; };
  for (int64_t k0 = 0; k0 < T; k0 += plan.steps) {
    const int64_t steps = T - k0 < plan.steps ? T - k0 : plan.steps, ldx = a.go_backwards ? -a.ldx : a.ldx;
    for (int64_t p = first; p < last && !a.table; p++) {
      const int64_t u = w.unit(p), units = w.width(p);
      const Project* tile = tiles_of<false>(units);
      for (int64_t m = 0; m < rows; m++)
        in_tiles(steps, [&](int64_t k, int64_t count) {
          tile[count](C, a.x + ((b0 + m) * T + time(k0)) * a.ldx + k * ldx, ldx, w.kernel + 4 * u * C, w.bias + 4 * u, 0,
                      z + 4 * u * plan.steps * rows + (k * rows + m) * 4 * units, rows * 4 * units);
        });
    }
    for (int64_t k = 0; k < steps; k++) {
      const int64_t step = k0 + k;
      const Step s{a, b0, rows, step, time(step), ldh, whole_rows, h, next, c, out, past};
      const float *from[lstm_most_rows], *then[lstm_most_rows];
      for (int64_t m = 0; m < rows && a.table; m++) {
        from[m] = table_row(a, b0 + m, time(step));
        then[m] = table_row(a, b0 + m, time(step + 1 < T ? step + 1 : step));
      }
      const auto panel = [&](auto width, int64_t u) __attribute__((always_inline)) {
        constexpr int units = decltype(width)::value;
        float* sums = z + 4 * u * plan.steps * rows + k * rows * 4 * units;
        if (a.table) {  // the next step's rows lie anywhere
          sums = partial + 4 * w.unit(first) * rows;
          for (int64_t m = 0; m < rows; m++) {
            for (int64_t i = 0; i < 4 * units; i += V) store(sums + m * 4 * units + i, load(from[m] + 4 * u + i));
            for (int64_t i = 0; i < 4 * units; i += 16) __builtin_prefetch(then[m] + 4 * u + i);
          }
        }
        const Project* tile = tiles_of<true>(units);
        for (int64_t q = 0; q < U; q += depth)
          in_tiles(rows, [&](int64_t m, int64_t count) {
            float* to = sums + m * 4 * units;
            tile[count](U - q < depth ? U - q : depth, h + m * ldh + q, ldh, w.recurrent + 4 * u * U + q * 4 * units, to,
                        4 * units, to, 4 * units);
          });
        cells<units>(s, u, sums);
      };
      for (int64_t i = first; i < last; i++) {
        const int64_t p = step % 2 ? last - 1 - (i - first) : i, u = w.unit(p), units = w.width(p);
        units == V ? panel(Width<V>(), u) : units == V / 2 ? panel(Width<V / 2>(), u) : panel(Width<V / 4>(), u);
      }
      float* swap = h;
      h = next, next = swap;
      gang.meet(uint32_t(step) + 2);
    }
  }
  for (int64_t p = first; p < last; p++) {
    const int64_t u = w.unit(p), units = w.width(p);
    const int n = int(U - u < units ? U - u : units);
    for (int64_t m = 0; m < rows; m++) {
      const int64_t to = (b0 + m) * U + u;
      if (a.h) store_n(a.h + to, load_n(h + m * ldh + u, n), n);
      if (a.c) store_n(a.c + to, load_n(c + whole_rows * u + m * units, n), n);
    }
  }
  if (past) finish_past();
}

}  // namespace

void lstm_pack(const LstmArgs& a, const Stream& s) {
  const int64_t C = a.C, U = a.U;
  const Packed w(a.packed, C, U);
  s.parallel(w.panels, double(C + U + 1) * 6 + 20, [&](int64_t p, char*) {
    const int64_t u = w.unit(p), units = w.width(p);
    const int n = int(U - u < units ? U - u : units);
    auto pack = [&](int64_t K, const float* from, float* to) __attribute__((always_inline)) {
      for (int64_t k = 0; k < K; k++)
        for (int g = 0; g < 4; g++, to += units)
          store_n(to, from ? load_n(from + (k * 4 + g) * U + u, n) * splat(g == 2 ? 2 * log2e : -log2e) : vf{}, int(units));
    };
    pack(1, a.bias, w.bias + 4 * u);
    pack(C, a.kernel, w.kernel + 4 * u * C);
    pack(U, a.recurrent, w.recurrent + 4 * u * U);
  });
}

void lstm_pack_table(const LstmArgs& a, const Stream& s) {
  const Packed w(a.packed, a.C, a.U);
  const int64_t columns = lstm_packed_columns(a.U);
  constexpr int64_t rows = 8 * tile_rows;  // each panel of W is read for so many
  s.parallel((a.B + rows - 1) / rows, double(rows * a.C * columns) * (0.2 / V) + 20, [&](int64_t i, char*) {
    const int64_t n0 = i * rows, n = a.B - n0 < rows ? a.B - n0 : rows;
    for (int64_t p = 0; p < w.panels; p++) {
      const int64_t u = w.unit(p);
      const Project* tile = tiles_of<false>(w.width(p));
      in_tiles(n, [&](int64_t m, int64_t count) {
        tile[count](a.C, a.x + (n0 + m) * a.ldx, a.ldx, w.kernel + 4 * u * a.C, w.bias + 4 * u, 0,
                    a.y + (n0 + m) * columns + 4 * u, columns);
      });
    }
    for (int64_t m = 0; m < n; m++)  // what other instruction sets' vectors may need
      copy(a.y + (n0 + m) * columns + 4 * w.units, nullptr, columns - 4 * w.units);
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
