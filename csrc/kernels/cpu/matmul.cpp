// Matrix products C = A B (batched, any strides of A and B), float32.
//
// Few rows (a single sample): B is read once, in place: wide tiles over B's own rows (gemm_few), or dot products where B
// is transposed. Else cells of C are claimed by threads, and each packs the panels of B that it multiplies with, a block
// of K at a time, so that they come from a near cache; short cells read contiguous rows of B in place. A long K with few cells
// (gradients of weights) is cut into 2, 4 or 8 partial sums, added in order.
#include "kernels/matmul.h"

#include "kernels/cpu/epilogue.h"
#include "kernels/cpu/gemm.h"

namespace dagrt::DAGRT_ISA {
namespace {

struct Offsets {
  int64_t a = 0, b = 0, c = 0;
};

Offsets offsets_of(const MatmulArgs& g, int64_t batch) {
  Offsets o;
  for (int i = g.batch_rank - 1; i >= 0; i--) {
    int64_t at = batch % g.batch[i];
    batch /= g.batch[i];
    o.a += at * g.a_batch[i];
    o.b += at * g.b_batch[i];
    o.c += at * g.c_batch[i];
  }
  return o;
}

/// Dot products of MR rows of A with NC columns of B, both contiguous along K.
template <int MR, int NC>
void dot_tile(int64_t K, const float* a, int64_t a_row, const float* b, int64_t b_col, float* c, int64_t ldc) {
  constexpr int sets = MR * NC >= 8 ? 1 : MR * NC >= 4 ? 2 : 4;  // of sums, for every second or fourth vector
  vf acc[sets][MR][NC];
#pragma GCC unroll 4
  for (int s = 0; s < sets; s++)
#pragma GCC unroll 4
    for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
      for (int j = 0; j < NC; j++) acc[s][m][j] = vf{};
  auto step = [&](vf(&sums)[MR][NC], int64_t k, int n) __attribute__((always_inline)) {
    vf av[MR];
#pragma GCC unroll 4
    for (int m = 0; m < MR; m++) av[m] = n == V ? load(a + m * a_row + k) : load_n(a + m * a_row + k, n);
#pragma GCC unroll 4
    for (int j = 0; j < NC; j++) {
      vf bv = n == V ? load(b + j * b_col + k) : load_n(b + j * b_col + k, n);
#pragma GCC unroll 4
      for (int m = 0; m < MR; m++) sums[m][j] += av[m] * bv;
    }
  };
  int64_t k = 0;
  for (; k + sets * V <= K; k += sets * V)
#pragma GCC unroll 4
    for (int s = 0; s < sets; s++) step(acc[s], k + s * V, V);
  for (; k < K; k += V) step(acc[0], k, int(K - k < V ? K - k : V));
#pragma GCC unroll 4
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int j = 0; j < NC; j++) {
      vf t = acc[0][m][j];
#pragma GCC unroll 4
      for (int s = 1; s < sets; s++) t += acc[s][m][j];
      c[m * ldc + j] = sum(t);
    }
}

template <int MR> void dot_columns(const MatmulArgs& g, const Offsets& o, int64_t n0, int64_t n1) {
  constexpr int wide = V == 16 || MR <= 2 ? 4 : 2;
  const float *a = g.a + o.a, *b = g.b + o.b;
  float* c = g.c + o.c;
  int64_t n = n0;
  for (; n + wide <= n1; n += wide) dot_tile<MR, wide>(g.K, a, g.a_row, b + n * g.b_col, g.b_col, c + n, g.ldc);
  for (; n < n1; n++) dot_tile<MR, 1>(g.K, a, g.a_row, b + n * g.b_col, g.b_col, c + n, g.ldc);
}

/// Few rows, B's columns contiguous along K: B is read once, in place. A's rows are copied where they are not contiguous.
void dots(MatmulArgs g, const Stream& s, int64_t batches) {
  const bool copied = g.a_col != 1;
  if (copied) {
    float* rows = aligned(g.workspace);
    s.parallel(batches, double(g.M) * double(g.K) * 0.5 + 10, [&](int64_t batch, char*) {
      const float* a = g.a + offsets_of(g, batch).a;
      for (int64_t m = 0; m < g.M; m++)
        for (int64_t k = 0; k < g.K; k++) rows[(batch * g.M + m) * g.K + k] = a[m * g.a_row + k * g.a_col];
    });
    g.a = rows;
    g.a_row = g.K;
  }
  const int64_t group = 8, groups = (g.N + group - 1) / group;
  s.parallel(batches * groups, group * double(g.K) * (0.3 / V + 0.1 * double(g.M) / V) + 20, [&](int64_t unit, char*) {
    Offsets o = offsets_of(g, unit / groups);
    if (copied) o.a = unit / groups * g.M * g.K;
    int64_t n0 = unit % groups * group, n1 = n0 + group < g.N ? n0 + group : g.N;
    switch (g.M) {
      case 1: dot_columns<1>(g, o, n0, n1); break;
      case 2: dot_columns<2>(g, o, n0, n1); break;
      case 3: dot_columns<3>(g, o, n0, n1); break;
      default: dot_columns<4>(g, o, n0, n1); break;
    }
    apply_epilogue(g.epilogue, g.c + o.c + n0, g.ldc, unit / groups * g.M, n0, g.M, n1 - n0);
  });
}

/// Rows [m0, m1) x columns [n0, n1) of C, over K in [k0, k1).
struct Cell {
  int64_t m0, m1, n0, n1, k0, k1;
  float* c;  // of the cell's first row and column
  int64_t ldc;
};

/// M <= gemm_few_rows.
void run_few(const MatmulArgs& g, const Offsets& o, const Cell& t, bool streamed) {
  const float *a = g.a + o.a, *b = g.panels ? g.panels + t.n0 * g.K : g.b + o.b + t.n0;
  if (streamed)
    return gemm_stream(g.M, t.n1 - t.n0, t.k1 - t.k0, a + t.k0 * g.a_col, g.a_row, g.a_col, b + t.k0 * g.b_row, g.b_row, t.c,
                       t.ldc);
  const int64_t b_row = g.panels ? gemm_nr : g.b_row, b_panel = g.panels ? g.K * gemm_nr : gemm_nr;
  for (int64_t k = t.k0; k < t.k1; k += matmul_depth) {
    const int64_t depth = t.k1 - k < matmul_depth ? t.k1 - k : matmul_depth;
    gemm_few(g.M, t.n1 - t.n0, depth, a + k * g.a_col, g.a_row, g.a_col, b + k * b_row, b_row, b_panel, t.c, t.ldc, k > t.k0);
  }
}

/// Rows of B that so many rows of A are multiplied with at once. With vectors so wide that a tile's multiply-adds take many times what
/// loading a row of the panel from L2 does, as far as A's part stays there too: each tile begins and ends once a block.
int64_t block_depth(int64_t rows, int64_t columns) {
  constexpr int64_t near = 131072;  // floats of A
  if (V < 16 || columns <= V || near / rows <= matmul_depth) return matmul_depth;
  return near / rows < matmul_most_depth ? near / rows : matmul_most_depth;
}

/// Block by block of K, panel by panel: what is not packed is packed to `room`, unless it is read in place, whole rows by the first
/// tile that multiplies with them, others just before; the panel that comes next is fetched from memory meanwhile.
void run_panels(const MatmulArgs& g, const Offsets& o, const Cell& t, bool in_place, float* room) {
  TileJob j;
  j.a_row = g.a_row, j.a_col = g.a_col, j.ldc = t.ldc;
  j.crowded = g.a_col == 1 && gemm_crowded(g.a_row);
  const float *a = g.a + o.a + t.m0 * g.a_row, *b = g.b + o.b;
  auto at = [&](int64_t k, int64_t n) { return g.panels ? g.panels + n * g.K + k * gemm_nr : b + k * g.b_row + n * g.b_col; };
  const int64_t depth = block_depth(t.m1 - t.m0, t.n1 - t.n0), blocks = (t.k1 - t.k0 + depth - 1) / depth;
  for (int64_t block = 0, k = t.k0; block < blocks; block++, k += j.K) {
    j.K = t.k0 + (t.k1 - t.k0) * (block + 1) / blocks - k;
    j.accumulate = block > 0;
    const float* rows = a + k * g.a_col;
    for (int64_t n = t.n0; n < t.n1; n += gemm_nr) {
      j.n = int(t.n1 - n < gemm_nr ? t.n1 - n : gemm_nr);
      const bool last = n + gemm_nr >= t.n1, end = last && block + 1 == blocks;  // behind the cell comes the one on its right
      const float* next = at(!last ? k : end ? t.k0 : k + j.K, last && !end ? t.n0 : n + gemm_nr);
      j.b = at(k, n);
      if (g.panels) {
        j.next = next, j.next_row = 4 * gemm_nr;
      } else {
        const bool whole = g.b_col == 1 && j.n == gemm_nr;
        j.packed = nullptr;
        if (whole && (in_place || t.m1 - t.m0 >= gemm_mr)) {
          j.b_row = g.b_row;
          if (!in_place) j.packed = room;
        } else {
          gemm_pack(j.K, j.b, g.b_row, g.b_col, j.n, room);
          j.b = room, j.b_row = gemm_nr;
        }
        if (g.b_col == 1 && !in_place)
          j.next = next + gemm_nr - 1 - (gemm_fetched - 16), j.next_row = 4 * g.b_row;  // the lines that rows end in
      }
      gemm_run(j, t.m1 - t.m0, rows, t.c + n - t.n0, 0);
    }
  }
}

}  // namespace

void pack_matmul(const PackMatmulArgs& a, const Stream& s) {
  s.parallel((a.N + gemm_nr - 1) / gemm_nr, double(a.K) * 3 + 20, [&](int64_t p, char*) {
    int64_t n0 = p * gemm_nr;
    int n = int(a.N - n0 < gemm_nr ? a.N - n0 : gemm_nr);
    gemm_pack(a.K, a.b + n0 * a.b_col, a.b_row, a.b_col, n, a.panels + n0 * a.K);
  });
}

void matmul(const MatmulArgs& g, const Stream& s) {
  int64_t batches = 1;
  for (int i = 0; i < g.batch_rank; i++) batches *= g.batch[i];
  if (!batches || !g.M || !g.N) return;
  if (!g.K) {
    s.parallel(batches * g.M, double(g.N) * 0.1 + 5, [&](int64_t unit, char*) {
      float* c = g.c + offsets_of(g, unit / g.M).c + unit % g.M * g.ldc;
      zero(c, g.N);
      apply_epilogue(g.epilogue, c, g.ldc, unit, 0, 1, g.N);
    });
    return;
  }
  const bool rows = g.b_col == 1, few = g.M <= gemm_few_rows;
  const MatmulPlan plan = matmul_plan(batches, g.M, g.N, g.K, rows, g.panels);
  if (few && !rows && !g.panels) return dots(g, s, batches);

  const int64_t width = few && !plan.streamed ? 4 * gemm_nr : plan.columns, columns = (g.N + width - 1) / width;
  const int64_t cells_m = (g.M + plan.rows - 1) / plan.rows;
  float* partial = aligned(g.workspace);
  const double deep = double(g.K) / double(plan.splits), tall = double(g.M < plan.rows ? g.M : plan.rows);
  const double ns = tall * double(width) * deep * (0.25 / V) + double(width) * deep * 0.03 + 30;
  s.parallel(batches * cells_m * columns * plan.splits, ns, [&](int64_t unit, char* scratch) {
    int64_t split = unit % plan.splits, rest = unit / plan.splits;
    int64_t p = rest % columns, mb = rest / columns % cells_m, batch = rest / columns / cells_m;
    Offsets o = offsets_of(g, batch);
    Cell t;
    t.m0 = g.M * mb / cells_m, t.m1 = g.M * (mb + 1) / cells_m;
    t.n0 = p * width, t.n1 = g.N - t.n0 < width ? g.N : t.n0 + width;
    t.k0 = g.K * split / plan.splits, t.k1 = g.K * (split + 1) / plan.splits;
    t.ldc = plan.splits > 1 ? g.N : g.ldc;
    t.c = (plan.splits > 1 ? partial + split * g.M * g.N : g.c + o.c) + t.m0 * t.ldc + t.n0;
    if (few)
      run_few(g, o, t, plan.streamed);
    else
      run_panels(g, o, t, plan.in_place, aligned(scratch));
    if (plan.splits == 1) apply_epilogue(g.epilogue, t.c, t.ldc, batch * g.M + t.m0, t.n0, t.m1 - t.m0, t.n1 - t.n0);
  });
  if (plan.splits > 1)
    s.parallel(g.M, double(g.N) * double(plan.splits) * 0.1 + 10, [&](int64_t m, char*) {
      for (int64_t n = 0; n < g.N; n += V) {
        int left = int(g.N - n < V ? g.N - n : V);
        vf t = load_n(partial + m * g.N + n, left);
        for (int64_t i = 1; i < plan.splits; i++) t += load_n(partial + (i * g.M + m) * g.N + n, left);
        store_n(g.c + m * g.ldc + n, t, left);
      }
      apply_epilogue(g.epilogue, g.c + m * g.ldc, g.ldc, m, 0, 1, g.N);
    });
}

}  // namespace dagrt::DAGRT_ISA
