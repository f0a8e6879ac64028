// LSTM over a sequence.
//
// Rows of the batch are independent, so a thread takes a few of them through all steps: no barrier between steps, weights
// from its L2. The projection of the inputs is computed for 8 steps at once into scratch; each step adds h R to it in place
// and the cell follows. A masked step keeps the states; its output is the one before, or zero.
//
// Backward, the same way from the last step: dz (the gradient before the gates' functions) of all steps goes to memory in
// processing order, and the gradients of the weights and of x are then products over all steps at once (matmul).
#include "kernels/lstm.h"

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/vec_math.h"
#include "kernels/matmul.h"

namespace dagrt::DAGRT_ISA {

void matmul(const MatmulArgs&, const Stream&);  // of this instruction set

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
void product(int64_t M, int64_t N, int64_t K, const float* a, int64_t a_row, const float* panels, float* c, int64_t ldc, bool add) {
  for (int64_t n = 0; n < N; n += gemm_nr, panels += K * gemm_nr)
    gemm_panel(M, K, a, a_row, 1, panels, gemm_nr, c + n, ldc, int(N - n < gemm_nr ? N - n : gemm_nr), add);
}

void copy(float* to, const float* from, int64_t n) {
  for (int64_t i = 0; i < n; i += V) {
    int k = int(n - i < V ? n - i : V);
    store_n(to + i, from ? load_n(from + i, k) : vf{}, k);
  }
}

}  // namespace

void lstm(const LstmArgs& a, const Stream& s) {
  const int64_t U = a.U, G = 4 * U;
  if (!a.B || !U) return;
  float* w = aligned(a.workspace);
  float* r = w + a.C * ((G + 31) / 32 * 32);
  pack(s, a.C, G, a.kernel, G, 1, w);
  pack(s, U, G, a.recurrent, G, 1, r);
  const int64_t block = lstm_rows(a.B), blocks = (a.B + block - 1) / block;
  double ns = double(a.T) * double(block) * double(G) * double(a.C + U) * (0.8 / V) + 1000;
  s.parallel(blocks, ns, [&](int64_t unit, char* scratch) {
    const int64_t b0 = a.B * unit / blocks, rows = a.B * (unit + 1) / blocks - b0;
    float* x = aligned(scratch);                      // [steps][rows][C]
    float* z = x + (block * lstm_steps * a.C + 15) / 16 * 16;  // [steps][rows][4U]
    float* h = z + (block * lstm_steps * G + 15) / 16 * 16;    // [rows][U]
    float* c = h + (block * U + 15) / 16 * 16;
    float* out = c + (block * U + 15) / 16 * 16;      // the output before
    for (int64_t m = 0; m < rows; m++) {
      copy(h + m * U, a.h0 ? a.h0 + (b0 + m) * U : nullptr, U);
      copy(c + m * U, a.c0 ? a.c0 + (b0 + m) * U : nullptr, U);
      copy(out + m * U, nullptr, U);
    }
    for (int64_t k0 = 0; k0 < a.T; k0 += lstm_steps) {
      int64_t steps = a.T - k0 < lstm_steps ? a.T - k0 : lstm_steps;
      for (int64_t k = 0; k < steps; k++)
        for (int64_t m = 0; m < rows; m++) {
          int64_t t = a.go_backwards ? a.T - 1 - k0 - k : k0 + k;
          copy(x + (k * rows + m) * a.C, a.x + ((b0 + m) * a.T + t) * a.ldx, a.C);
        }
      product(steps * rows, G, a.C, x, a.C, w, z, G, false);
      for (int64_t k = 0; k < steps; k++) {
        int64_t step = k0 + k, t = a.go_backwards ? a.T - 1 - step : step;
        float* zk = z + k * rows * G;
        product(rows, G, U, h, U, r, zk, G, true);
        for (int64_t m = 0; m < rows; m++) {
          int64_t b = b0 + m;
          bool kept = a.mask && !a.mask[b * a.T + t];
          float* zm = zk + m * G;
          for (int64_t u = 0; u < U; u += V) {
            int n = int(U - u < V ? U - u : V);
            vf zi = load_n(zm + u, n), zf = load_n(zm + U + u, n), zg = load_n(zm + 2 * U + u, n), zo = load_n(zm + 3 * U + u, n);
            if (a.bias) {
              zi += load_n(a.bias + u, n), zf += load_n(a.bias + U + u, n);
              zg += load_n(a.bias + 2 * U + u, n), zo += load_n(a.bias + 3 * U + u, n);
            }
            vf i = vsigmoid(zi), f = vsigmoid(zf), g = vtanh(zg), o = vsigmoid(zo);
            vf before = load_n(c + m * U + u, n), hb = load_n(h + m * U + u, n);
            vf cell = f * before + i * g, now = o * vtanh(cell), y = now;
            if (kept) {
              cell = before, now = hb;
              y = a.zero_output_for_mask ? vf{} : load_n(out + m * U + u, n);
            }
            store_n(c + m * U + u, cell, n);
            store_n(h + m * U + u, now, n);
            store_n(out + m * U + u, y, n);
            if (a.y) store_n(a.y + (b * a.T + step) * a.ldy + u, y, n);
            int64_t place = step * a.B + b;
            if (a.gates) {
              store_n(a.gates + place * G + u, i, n);
              store_n(a.gates + place * G + U + u, f, n);
              store_n(a.gates + place * G + 2 * U + u, g, n);
              store_n(a.gates + place * G + 3 * U + u, o, n);
            }
            if (a.cells) store_n(a.cells + place * U + u, cell, n);
            if (a.hidden) store_n(a.hidden + place * U + u, now, n);
          }
        }
      }
    }
    for (int64_t m = 0; m < rows; m++) {
      if (a.h) copy(a.h + (b0 + m) * U, h + m * U, U);
      if (a.c) copy(a.c + (b0 + m) * U, c + m * U, U);
    }
  });
}

void lstm_grad(const LstmArgs& a, const Stream& s) {
  const int64_t U = a.U, G = 4 * U, B = a.B, T = a.T, C = a.C;
  if (!U) return;
  float* panels = aligned(a.workspace);                   // R transposed: [4U] x U
  float* dz = panels + G * ((U + 31) / 32 * 32);          // [T,B,4U], processing order
  float* xs = dz + B * T * G;                             // [T,B,C]: x, later dx
  float* dxs = xs + B * T * C;
  float* first = dxs + B * T * C;                         // [U,4U]: the part of drecurrent that h0 has
  char* work = reinterpret_cast<char*>(first + U * G);
  pack(s, G, U, a.recurrent, 1, G, panels);
  const int64_t block = lstm_rows(B), blocks = B ? (B + block - 1) / block : 0;
  double ns = double(T) * double(block) * double(G) * double(U) * (0.8 / V) + 1000;
  s.parallel(blocks, ns, [&](int64_t unit, char* scratch) {
    const int64_t b0 = B * unit / blocks, rows = B * (unit + 1) / blocks - b0;
    const int64_t each = (block * U + 15) / 16 * 16;
    float *dh = aligned(scratch), *dc = dh + each, *waiting = dc + each;  // waiting: for the last step that was not masked
    for (int64_t m = 0; m < rows; m++) {
      copy(dh + m * U, a.dh ? a.dh + (b0 + m) * U : nullptr, U);
      copy(dc + m * U, a.dc ? a.dc + (b0 + m) * U : nullptr, U);
      copy(waiting + m * U, nullptr, U);
    }
    for (int64_t step = T - 1; step >= 0; step--) {
      int64_t t = a.go_backwards ? T - 1 - step : step;
      bool all_kept = a.mask != nullptr;
      for (int64_t m = 0; m < rows; m++) {
        int64_t b = b0 + m, place = step * B + b;
        bool kept = a.mask && !a.mask[b * T + t];
        all_kept = all_kept && kept;
        const float* g = a.gates + place * G;
        float* to = dz + place * G;
        for (int64_t u = 0; u < U; u += V) {
          int n = int(U - u < V ? U - u : V);
          vf y = a.dy ? load_n(a.dy + (b * T + step) * a.lddy + u, n) : vf{};
          if (kept) {
            for (int k = 0; k < 4; k++) store_n(to + k * U + u, vf{}, n);
            if (!a.zero_output_for_mask) store_n(waiting + m * U + u, load_n(waiting + m * U + u, n) + y, n);
            continue;
          }
          const float* c_before = step ? a.cells + (place - B) * U : a.c0 ? a.c0 + b * U : nullptr;
          vf i = load_n(g + u, n), f = load_n(g + U + u, n), gg = load_n(g + 2 * U + u, n), o = load_n(g + 3 * U + u, n);
          vf before = c_before ? load_n(c_before + u, n) : vf{};
          vf tc = vtanh(load_n(a.cells + place * U + u, n));
          vf d = load_n(dh + m * U + u, n) + y + load_n(waiting + m * U + u, n);
          store_n(waiting + m * U + u, vf{}, n);
          vf dcell = load_n(dc + m * U + u, n) + d * o * (splat(1) - tc * tc);
          store_n(to + u, dcell * gg * i * (splat(1) - i), n);
          store_n(to + U + u, dcell * before * f * (splat(1) - f), n);
          store_n(to + 2 * U + u, dcell * i * (splat(1) - gg * gg), n);
          store_n(to + 3 * U + u, d * tc * o * (splat(1) - o), n);
          store_n(dc + m * U + u, dcell * f, n);
          store_n(dh + m * U + u, vf{}, n);
        }
      }
      // Rows that were masked have dz = 0 and keep their dh: adding is right for both.
      if (!all_kept) product(rows, U, G, dz + (step * B + b0) * G, G, panels, dh, U, true);
    }
    for (int64_t m = 0; m < rows; m++) {
      if (a.dh0) copy(a.dh0 + (b0 + m) * U, dh + m * U, U);
      if (a.dc0) copy(a.dc0 + (b0 + m) * U, dc + m * U, U);
    }
  });

  auto multiply = [&](int64_t M, int64_t N, int64_t K, const float* l, int64_t l_row, int64_t l_col, const float* q, int64_t q_row,
                      int64_t q_col, float* to) {
    MatmulArgs g;
    g.a = l, g.b = q, g.c = to;
    g.M = M, g.N = N, g.K = K;
    g.a_row = l_row, g.a_col = l_col, g.b_row = q_row, g.b_col = q_col, g.ldc = N;
    g.workspace = work;
    DAGRT_ISA::matmul(g, s);
  };
  if (a.dkernel) {
    s.parallel(T * B, double(C) * 0.2 + 5, [&](int64_t place, char*) {
      int64_t step = place / B, b = place % B, t = a.go_backwards ? T - 1 - step : step;
      copy(xs + place * C, a.x + (b * T + t) * a.ldx, C);
    });
    multiply(C, G, B * T, xs, 1, C, dz, G, 1, a.dkernel);
  }
  if (a.drecurrent) {
    multiply(U, G, T > 1 ? B * (T - 1) : 0, a.hidden, 1, U, dz + B * G, G, 1, a.drecurrent);
    if (a.h0 && T) {
      multiply(U, G, B, a.h0, 1, U, dz, G, 1, first);
      s.parallel(U, double(G) * 0.1 + 5, [&](int64_t u, char*) {
        for (int64_t n = 0; n < G; n += V) {
          int k = int(G - n < V ? G - n : V);
          store_n(a.drecurrent + u * G + n, load_n(a.drecurrent + u * G + n, k) + load_n(first + u * G + n, k), k);
        }
      });
    }
  }
  if (a.dbias)
    s.parallel((G + V - 1) / V, double(T * B) * 2 + 10, [&](int64_t unit, char*) {
      int64_t n = unit * V;
      int k = int(G - n < V ? G - n : V);
      vf total{};
      for (int64_t row = 0; row < T * B; row += 64) {  // in blocks: rounding stays small
        vf t{};
        int64_t end = row + 64 < T * B ? row + 64 : T * B;
        for (int64_t m = row; m < end; m++) t += load_n(dz + m * G + n, k);
        total += t;
      }
      store_n(a.dbias + n, total, k);
    });
  if (a.dx) {
    multiply(T * B, C, G, dz, G, 1, a.kernel, 1, G, dxs);
    s.parallel(T * B, double(C) * 0.2 + 5, [&](int64_t place, char*) {
      int64_t step = place / B, b = place % B, t = a.go_backwards ? T - 1 - step : step;
      copy(a.dx + (b * T + t) * C, dxs + place * C, C);
    });
  }
}

}  // namespace dagrt::DAGRT_ISA
