// Matrix products C = A B (batched, any strides of A and B), float32.
//
// Few rows (a single sample): B is read once, in place, in a gemv-like pass: tiles of gemm.h over B's own rows, or dot
// products where B is transposed. Else B is packed once into panels and tiles of A x panels are claimed by threads.
// A long K with few tiles (gradients of weights) is cut into 2, 4 or 8 partial sums, added in order.
#include "kernels/matmul.h"

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

float dot(const float* a, const float* b, int64_t n) {
  vf s0{}, s1{}, s2{}, s3{};
  int64_t k = 0;
  for (; k + 4 * V <= n; k += 4 * V) {
    s0 += load(a + k) * load(b + k);
    s1 += load(a + k + V) * load(b + k + V);
    s2 += load(a + k + 2 * V) * load(b + k + 2 * V);
    s3 += load(a + k + 3 * V) * load(b + k + 3 * V);
  }
  for (; k + V <= n; k += V) s0 += load(a + k) * load(b + k);
  if (k < n) s1 += load_n(a + k, int(n - k)) * load_n(b + k, int(n - k));
  return sum((s0 + s1) + (s2 + s3));
}

/// Few rows, B's columns contiguous in K: one dot product for each result.
void dots(const MatmulArgs& g, const Stream& s, int64_t batches) {
  const int64_t group = 8, groups = (g.N + group - 1) / group;
  s.parallel(batches * groups, double(g.M) * group * double(g.K) * 0.05 + 20, [&](int64_t unit, char*) {
    Offsets o = offsets_of(g, unit / groups);
    int64_t n0 = unit % groups * group, n1 = n0 + group < g.N ? n0 + group : g.N;
    for (int64_t n = n0; n < n1; n++)
      for (int64_t m = 0; m < g.M; m++)
        g.c[o.c + m * g.ldc + n] = dot(g.a + o.a + m * g.a_row, g.b + o.b + n * g.b_col, g.K);
  });
}

/// A cell of the grid (rows x panel), over K in [k0, k1).
void cell(const MatmulArgs& g, const Offsets& o, int64_t m0, int64_t m1, int64_t n0, const float* panel, int64_t panel_row,
          int64_t k0, int64_t k1, float* c, int64_t ldc) {
  int n = int(g.N - n0 < gemm_nr ? g.N - n0 : gemm_nr);
  const int64_t block = 512;  // of K: a tile's rows of A and its panel stay in cache
  if (k0 == k1) {
    gemm_panel(m1 - m0, 0, g.a, 0, 0, panel, 0, c + m0 * ldc + n0, ldc, n, false);
    return;
  }
  for (int64_t k = k0; k < k1; k += block) {
    int64_t depth = k1 - k < block ? k1 - k : block;
    gemm_panel(m1 - m0, depth, g.a + o.a + m0 * g.a_row + k * g.a_col, g.a_row, g.a_col, panel + k * panel_row, panel_row,
               c + m0 * ldc + n0, ldc, n, k > k0);
  }
}

}  // namespace

void matmul(const MatmulArgs& g, const Stream& s) {
  int64_t batches = 1;
  for (int i = 0; i < g.batch_rank; i++) batches *= g.batch[i];
  if (!batches || !g.M || !g.N) return;
  const bool rows = g.b_col == 1;
  MatmulPlan plan = matmul_plan(batches, g.M, g.N, g.K, rows);
  if (!plan.pack && !rows && g.b_row == 1 && g.a_col == 1) return dots(g, s, batches);

  const int64_t panels = (g.N + gemm_nr - 1) / gemm_nr, whole = g.N / gemm_nr;
  const bool pack_all = plan.pack || !rows;
  const int64_t packed_panels = pack_all ? panels : panels - whole;  // otherwise the last, narrow one alone
  float* packed = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(g.workspace) + 63) / 64 * 64);
  if (packed_panels)
    s.parallel(batches * packed_panels, double(g.K) * 4 + 20, [&](int64_t unit, char*) {
      Offsets o = offsets_of(g, unit / packed_panels);
      int64_t p = unit % packed_panels, n0 = (pack_all ? p : whole) * gemm_nr;
      int n = int(g.N - n0 < gemm_nr ? g.N - n0 : gemm_nr);
      gemm_pack(g.K, g.b + o.b + n0 * g.b_col, g.b_row, g.b_col, n, packed + unit * g.K * gemm_nr);
    });

  const int64_t rows_of_cell = 4 * 14;
  const int64_t cells_m = (g.M + rows_of_cell - 1) / rows_of_cell;
  const int64_t cells = batches * cells_m * panels * plan.splits;
  // Partial sums lie behind the panels.
  float* partial = packed + ((g.N + 31) / 32 * 32 + 32) * g.K * batches;
  if (plan.splits > 1) partial = reinterpret_cast<float*>(g.workspace + plan.workspace) - plan.splits * g.M * g.N;
  double ns = double(g.M < rows_of_cell ? g.M : rows_of_cell) * gemm_nr * double(g.K) / double(plan.splits) * (0.6 / V) + 30;
  s.parallel(cells, ns, [&](int64_t unit, char*) {
    int64_t split = unit % plan.splits, rest = unit / plan.splits;
    int64_t p = rest % panels, mb = rest / panels % cells_m, batch = rest / panels / cells_m;
    Offsets o = offsets_of(g, batch);
    int64_t m0 = g.M * mb / cells_m, m1 = g.M * (mb + 1) / cells_m;
    int64_t k0 = g.K * split / plan.splits, k1 = g.K * (split + 1) / plan.splits;
    const float* panel;
    int64_t panel_row;
    if (pack_all || p >= whole) {
      panel = packed + (batch * packed_panels + (pack_all ? p : p - whole)) * g.K * gemm_nr;
      panel_row = gemm_nr;
    } else {
      panel = g.b + o.b + p * gemm_nr;
      panel_row = g.b_row;
    }
    if (plan.splits > 1)
      cell(g, o, m0, m1, p * gemm_nr, panel, panel_row, k0, k1, partial + split * g.M * g.N, g.N);
    else
      cell(g, o, m0, m1, p * gemm_nr, panel, panel_row, k0, k1, g.c + o.c, g.ldc);
  });
  if (plan.splits > 1)
    s.parallel(g.M, double(g.N) * double(plan.splits) * 0.1 + 10, [&](int64_t m, char*) {
      for (int64_t n = 0; n < g.N; n += V) {
        int left = int(g.N - n < V ? g.N - n : V);
        vf t = load_n(partial + m * g.N + n, left);
        for (int64_t i = 1; i < plan.splits; i++) t += load_n(partial + (i * g.M + m) * g.N + n, left);
        store_n(g.c + m * g.ldc + n, t, left);
      }
    });
}

}  // namespace dagrt::DAGRT_ISA
