// The ladder of c[M,N] = a[M,K] b[K,N], 512 x 512 x 512.
#include "kernels/matmul.h"

#include "ladder.h"

namespace ladder {
namespace {

constexpr int64_t N = 512;
constexpr int MR = 6, NR = 2 * V;

struct Data {
  Floats a = bench::values(N * N), b = bench::values(N * N, 2), y = Floats(size_t(N * N)), panels = Floats(size_t(N * (N + NR)));
  Floats packed = Floats(size_t(dagrt::matmul_panel_floats(N, N)));
  dagrt::MatmulPlan plan = dagrt::matmul_plan(1, N, N, N, true, true);
  bench::Memory memory{plan.workspace, plan.scratch};
  const std::vector<float>& expected();
};

/// Three loops: each sum waits for its last addition, and b is read down its columns.
void three_loops(Data& d) {
  for (int64_t m = 0; m < N; m++)
    for (int64_t n = 0; n < N; n++) {
      float sum = 0;
      for (int64_t k = 0; k < N; k++) sum += d.a[size_t(m * N + k)] * d.b[size_t(k * N + n)];
      d.y[size_t(m * N + n)] = sum;
    }
}

/// Columns innermost: b and c are read along rows, so that the compiler makes vectors of them.
void along_rows(Data& d) {
  for (int64_t m = 0; m < N; m++) {
    float* y = d.y.data() + m * N;
    std::memset(y, 0, size_t(N) * 4);
    for (int64_t k = 0; k < N; k++) {
      const float a = d.a[size_t(m * N + k)], *b = d.b.data() + k * N;
      for (int64_t n = 0; n < N; n++) y[n] += a * b[n];
    }
  }
}

/// y[rows, NR] = a b for `rows` rows and NR columns, b's rows `stride` apart: the sums stay in registers.
template <int rows> void tile(const float* a, const float* b, int64_t stride, float* y, int64_t from, int64_t to) {
  vf sum[rows][2];
#pragma GCC unroll 6
  for (int m = 0; m < rows; m++)
    for (int j = 0; j < 2; j++) sum[m][j] = from ? load(y + m * N + j * V) : vf{};
  for (int64_t k = from; k < to; k++) {
    const vf b0 = load(b + k * stride), b1 = load(b + k * stride + V);
#pragma GCC unroll 6
    for (int m = 0; m < rows; m++) {
      const vf left = a[m * N + k] - vf{};
      sum[m][0] += left * b0, sum[m][1] += left * b1;
    }
  }
#pragma GCC unroll 6
  for (int m = 0; m < rows; m++)
    for (int j = 0; j < 2; j++) store(y + m * N + j * V, sum[m][j]);
}

/// All rows for one panel of columns.
void rows(Data& d, const float* b, int64_t stride, int64_t n, int64_t from, int64_t to) {
  int64_t m = 0;
  for (; m + MR <= N; m += MR) tile<MR>(d.a.data() + m * N, b, stride, d.y.data() + m * N + n, from, to);
  for (; m < N; m++) tile<1>(d.a.data() + m * N, b, stride, d.y.data() + m * N + n, from, to);
}

/// 6 x 2 vectors of sums in registers: two loads of b feed twelve multiply-adds.
void registers(Data& d) {
  for (int64_t n = 0; n < N; n += NR) rows(d, d.b.data() + n, N, n, 0, N);
}

/// b copied first into panels of the tile's width: read in sequence, none of its lines falls on another's place in L1.
void packed(Data& d) {
  for (int64_t n = 0; n < N; n += NR) {
    for (int64_t k = 0; k < N; k++) std::memcpy(d.panels.data() + k * NR, d.b.data() + k * N + n, NR * 4);
    rows(d, d.panels.data(), NR, n, 0, N);
  }
}

/// K in slices: a slice of a panel stays in L1 while all rows pass it.
void sliced(Data& d) {
  constexpr int64_t slice = 256;
  for (int64_t n = 0; n < N; n += NR) {
    for (int64_t k = 0; k < N; k++) std::memcpy(d.panels.data() + k * NR, d.b.data() + k * N + n, NR * 4);
    for (int64_t k = 0; k < N; k += slice) rows(d, d.panels.data(), NR, n, k, k + slice);
  }
}

dagrt::MatmulArgs arguments(Data& d) {
  dagrt::MatmulArgs a;
  a.a = d.a.data(), a.panels = d.packed.data(), a.c = d.y.data();
  a.M = a.N = a.K = a.a_row = a.ldc = N;
  a.workspace = d.memory.workspace();
  return a;
}
void finished(Data& d) { matmul(arguments(d), d.memory.stream()); }

std::shared_ptr<Data> make() {
  auto d = std::make_shared<Data>();
  dagrt::PackMatmulArgs p;
  p.b = d->b.data(), p.panels = d->packed.data(), p.N = p.K = p.b_row = N;
  pack_matmul(p, d->memory.stream());
  return d;
}

const std::vector<float>& Data::expected() {
  static const std::vector<float> all = [] {
    Data d;
    three_loops(d);
    return bench::copy(d.y.data(), N * N);
  }();
  return all;
}

}  // namespace
}  // namespace ladder

void bench::add_rows() {
  using namespace ladder;
  const std::string group = "matmul 512 x 512 x 512/";
  const double flops = 2.0 * double(N * N * N);
  step(group + "three loops", flops, make, three_loops);
  step(group + "columns innermost", flops, make, along_rows);
  step(group + "sums in registers", flops, make, registers);
  step(group + "b in panels", flops, make, packed);
  step(group + "K in slices", flops, make, sliced);
  step(group + "dagrt, panels made beforehand", flops, make, finished);
}
