// The LSTM's gradient, from the last step back. dz (the gradient before the gates' functions) stays in scratch for some 128
// rows of (step, sample), then its products with x, h and W are taken while it lies in L2: sums over time need no pass
// through memory. Each group of samples sums its own gradients of the weights; they are added in the order of the groups.
#include "kernels/lstm.h"

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/vec_math.h"

namespace dagrt::DAGRT_ISA {
namespace {

float* aligned(char* p) { return reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(p) + 63) / 64 * 64); }

/// Weights [K][N] as panels.
void pack(const Stream& s, int64_t K, int64_t N, const float* w, int64_t row, int64_t col, float* panels) {
  int64_t count = (N + gemm_nr - 1) / gemm_nr;
  s.parallel(count, double(K) * 6 + 20, [&](int64_t p, char*) {
    int64_t n0 = p * gemm_nr;
    gemm_pack(K, w + n0 * col, row, col, int(N - n0 < gemm_nr ? N - n0 : gemm_nr), panels + p * K * gemm_nr);
  });
}

/// c[M,N] (+)= a[M,K] panels
void product(int64_t M, int64_t N, int64_t K, const float* a, int64_t a_row, const float* panels, float* c, int64_t ldc,
             bool add) {
  if (M <= gemm_few_rows) return gemm_few(M, N, K, a, a_row, 1, panels, gemm_nr, K * gemm_nr, c, ldc, add);
  for (int64_t n = 0; n < N; n += gemm_nr, panels += K * gemm_nr)
    gemm_panel(M, K, a, a_row, 1, panels, gemm_nr, c + n, ldc, int(N - n < gemm_nr ? N - n : gemm_nr), add);
}

/// c[M,N] (+)= the transpose of a[K,M] times b[K,N]; reads b's rows up to a whole panel.
void product_over_rows(int64_t M, int64_t N, int64_t K, const float* a, const float* b, int64_t b_row, float* c, bool add) {
  for (int64_t n = 0; n < N; n += gemm_nr)
    gemm_panel(M, K, a, 1, M, b + n, b_row, c + n, N, int(N - n < gemm_nr ? N - n : gemm_nr), add);
}

void copy(float* to, const float* from, int64_t n) {
  for (int64_t i = 0; i < n; i += V) {
    int k = int(n - i < V ? n - i : V);
    store_n(to + i, from ? load_n(from + i, k) : vf{}, k);
  }
}

/// One step back for some rows: dz and what dh, dc become but for dz's part of dh. False if all rows were masked.
bool step_back(const LstmArgs& a, int64_t step, int64_t b0, int64_t rows, float* dz, int64_t ldz, float* dh, float* dc,
               float* waiting) {
  const int64_t U = a.U, G = 4 * U, B = a.B, T = a.T, t = a.go_backwards ? T - 1 - step : step;
  bool any = false;
  for (int64_t m = 0; m < rows; m++, dz += ldz, dh += U, dc += U, waiting += U) {
    const int64_t b = b0 + m, place = step * B + b;
    const float* dy = a.dy ? a.dy + (b * T + step) * a.lddy : nullptr;
    if (a.mask && !a.mask[b * T + t]) {
      copy(dz, nullptr, G);
      if (dy && !a.zero_output_for_mask)
        for (int64_t u = 0; u < U; u += V) {
          int n = int(U - u < V ? U - u : V);
          store_n(waiting + u, load_n(waiting + u, n) + load_n(dy + u, n), n);
        }
      continue;
    }
    any = true;
    const float *g = a.gates + place * G, *cells = a.cells + place * U;
    const float* c_before = step ? cells - B * U : a.c0 ? a.c0 + b * U : nullptr;
    for (int64_t u = 0; u < U; u += V) {
      int n = int(U - u < V ? U - u : V);
      vf i = load_n(g + u, n), f = load_n(g + U + u, n), gg = load_n(g + 2 * U + u, n), o = load_n(g + 3 * U + u, n);
      vf before = c_before ? load_n(c_before + u, n) : vf{};
      vf tc = vtanh(load_n(cells + u, n));
      vf d = load_n(dh + u, n) + load_n(waiting + u, n);
      if (dy) d += load_n(dy + u, n);
      vf dcell = load_n(dc + u, n) + d * o * (splat(1) - tc * tc);
      store_n(dz + u, dcell * gg * i * (splat(1) - i), n);
      store_n(dz + U + u, dcell * before * f * (splat(1) - f), n);
      store_n(dz + 2 * U + u, dcell * i * (splat(1) - gg * gg), n);
      store_n(dz + 3 * U + u, d * tc * o * (splat(1) - o), n);
      store_n(dc + u, dcell * f, n);
      store_n(dh + u, vf{}, n);
      store_n(waiting + u, vf{}, n);
    }
  }
  return any;
}

}  // namespace

void lstm_grad(const LstmArgs& a, const Stream& s) {
  const int64_t U = a.U, G = 4 * U, B = a.B, T = a.T, C = a.C;
  const LstmGradPlan plan = lstm_grad_plan(B, T);
  const int64_t block = plan.rows, ldz = lstm_grad_ldz(U);
  float* recurrent = aligned(a.workspace);               // R transposed: [4U] x U
  float* kernel = recurrent + G * ((U + 31) / 32 * 32);  // W transposed: [4U] x C
  float* sums = kernel + G * ((C + 31) / 32 * 32);       // of each group: [C + U + 1][4U]
  if (B && T && U) {
    pack(s, G, U, a.recurrent, 1, G, recurrent);
    if (a.dx) pack(s, G, C, a.kernel, 1, G, kernel);
  }
  double ns = double(T) * double(B) / double(plan.groups ? plan.groups : 1) * double(G) * double(2 * (C + U)) * (0.3 / V) + 1000;
  s.parallel(plan.groups, ns, [&](int64_t group, char* scratch) {
    const bool alone = plan.groups == 1;
    float* sum = sums + group * (C + U + 1) * G;
    float* dkernel = !a.dkernel ? nullptr : alone ? a.dkernel : sum;
    float* drecurrent = !a.drecurrent ? nullptr : alone ? a.drecurrent : sum + C * G;
    float* dbias = !a.dbias ? nullptr : alone ? a.dbias : sum + (C + U) * G;
    const int64_t each = (block * U + 15) / 16 * 16, depth = block * plan.steps;
    float *dh = aligned(scratch), *dc = dh + each, *waiting = dc + each;  // waiting: for the last step that was not masked
    float* dz = waiting + each;                                           // [steps][rows], ldz apart
    float* xs = dz + depth * ldz;                                         // [steps][rows][C]: x, then dx
    float* hs = xs + (depth * C + 15) / 16 * 16;                          // [steps][rows][U]: h of the step before
    bool add = false;
    const int64_t blocks = (B + block - 1) / block;
    for (int64_t i = blocks * group / plan.groups; i < blocks * (group + 1) / plan.groups; i++) {
      const int64_t b0 = B * i / blocks, rows = B * (i + 1) / blocks - b0;
      for (int64_t m = 0; m < rows; m++) {
        copy(dh + m * U, a.dh ? a.dh + (b0 + m) * U : nullptr, U);
        copy(dc + m * U, a.dc ? a.dc + (b0 + m) * U : nullptr, U);
        copy(waiting + m * U, nullptr, U);
      }
      for (int64_t end = T; end > 0; end -= plan.steps) {
        const int64_t begin = end > plan.steps ? end - plan.steps : 0, many = (end - begin) * rows;
        for (int64_t step = end - 1; step >= begin; step--) {
          float* z = dz + (step - begin) * rows * ldz;
          // Rows that were masked have dz = 0 and keep their dh: adding is right for both.
          if (step_back(a, step, b0, rows, z, ldz, dh, dc, waiting)) product(rows, U, G, z, ldz, recurrent, dh, U, true);
        }
        for (int64_t r = 0; r < many; r++) {
          int64_t step = begin + r / rows, b = b0 + r % rows, t = a.go_backwards ? T - 1 - step : step;
          if (dkernel) copy(xs + r * C, a.x + (b * T + t) * a.ldx, C);
          if (drecurrent) copy(hs + r * U, step ? a.hidden + ((step - 1) * B + b) * U : a.h0 ? a.h0 + b * U : nullptr, U);
        }
        if (dkernel) product_over_rows(C, G, many, xs, dz, ldz, dkernel, add);
        if (drecurrent) product_over_rows(U, G, many, hs, dz, ldz, drecurrent, add);
        if (dbias)
          for (int64_t n = 0; n < G; n += V) {
            int k = int(G - n < V ? G - n : V);
            vf t{};
            for (int64_t r = 0; r < many; r++) t += load_n(dz + r * ldz + n, k);
            store_n(dbias + n, add ? load_n(dbias + n, k) + t : t, k);
          }
        add = true;
        if (a.dx) {
          product(many, C, G, dz, ldz, kernel, xs, C, false);
          for (int64_t r = 0; r < many; r++) {
            int64_t step = begin + r / rows, b = b0 + r % rows, t = a.go_backwards ? T - 1 - step : step;
            copy(a.dx + (b * T + t) * C, xs + r * C, C);
          }
        }
      }
      for (int64_t m = 0; m < rows; m++) {
        if (a.dh0) copy(a.dh0 + (b0 + m) * U, dh + m * U, U);
        if (a.dc0) copy(a.dc0 + (b0 + m) * U, dc + m * U, U);
      }
    }
  });
  if (plan.groups == 1 && T) return;
  const int64_t parts = T ? plan.groups : 0;  // none: zero
  s.parallel(C + U + 1, double(G) * double(parts) * (1.0 / V) + 10, [&](int64_t row, char*) {
    float* to = row < C ? a.dkernel : row < C + U ? a.drecurrent : a.dbias;
    if (!to) return;
    to += (row < C ? row : row < C + U ? row - C : 0) * G;
    for (int64_t n = 0; n < G; n += V) {
      int k = int(G - n < V ? G - n : V);
      vf t{};
      for (int64_t i = 0; i < parts; i++) t += load_n(sums + (i * (C + U + 1) + row) * G + n, k);
      store_n(to + n, t, k);
    }
  });
}

}  // namespace dagrt::DAGRT_ISA
