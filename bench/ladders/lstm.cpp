// The ladder of an LSTM layer, batch 32, 100 steps, 64 channels, 128 units: the last h.
//   z = x_t W + h R + b, gates i f g o side by side; c = sigmoid(f) c + sigmoid(i) tanh(g); h = sigmoid(o) tanh(c)
#include "kernels/lstm.h"

#include <cmath>

#include "ladder.h"

namespace ladder {
namespace {

constexpr int64_t B = 32, T = 100, C = 64, U = 128, G = 4 * U;

struct Data {
  Floats x = bench::values(B * T * C), w = bench::values(C * G, 2), r = bench::values(U * G, 3), b = bench::values(G, 4);
  Floats z = Floats(size_t(T * B * G)), h = Floats(size_t(2 * B * U)), c = Floats(size_t(B * U)), y = Floats(size_t(B * U));
  Floats gathered_w, gathered_r, gathered_b;  // for every V units their four gates side by side
  Floats packed = Floats(size_t(dagrt::lstm_packed_size(C, U)));
  dagrt::LstmArgs args;
  std::unique_ptr<bench::Memory> memory;
  const std::vector<float>& expected();
  void clear() {
    std::memset(h.data(), 0, h.size() * 4);
    std::memset(c.data(), 0, c.size() * 4);
  }
};

float sigmoid(float v) { return 1 / (1 + std::exp(-v)); }

/// The cell of one row by libm.
void cell(const float* z, float* c, float* h) {
  for (int64_t u = 0; u < U; u++) {
    c[u] = sigmoid(z[U + u]) * c[u] + sigmoid(z[u]) * std::tanh(z[2 * U + u]);
    h[u] = sigmoid(z[3 * U + u]) * std::tanh(c[u]);
  }
}

/// The equations as they stand: sums down the columns of W and R.
void equations(Data& d) {
  d.clear();
  for (int64_t t = 0; t < T; t++)
    for (int64_t b = 0; b < B; b++) {
      float *h = d.h.data() + b * U, *z = d.z.data();
      const float* x = d.x.data() + (b * T + t) * C;
      for (int64_t g = 0; g < G; g++) {
        float sum = d.b[size_t(g)];
        for (int64_t c = 0; c < C; c++) sum += x[c] * d.w[size_t(c * G + g)];
        for (int64_t u = 0; u < U; u++) sum += h[u] * d.r[size_t(u * G + g)];
        z[g] = sum;
      }
      cell(z, d.c.data() + b * U, h);
    }
  std::memcpy(d.y.data(), d.h.data(), size_t(B * U) * 4);
}

/// Gates innermost: vectors of sums, in memory.
void along_rows(Data& d) {
  d.clear();
  for (int64_t t = 0; t < T; t++)
    for (int64_t b = 0; b < B; b++) {
      float *h = d.h.data() + b * U, *z = d.z.data();
      const float* x = d.x.data() + (b * T + t) * C;
      std::memcpy(z, d.b.data(), G * 4);
      for (int64_t c = 0; c < C; c++)
        for (int64_t g = 0; g < G; g++) z[g] += x[c] * d.w[size_t(c * G + g)];
      for (int64_t u = 0; u < U; u++)
        for (int64_t g = 0; g < G; g++) z[g] += h[u] * d.r[size_t(u * G + g)];
      cell(z, d.c.data() + b * U, h);
    }
  std::memcpy(d.y.data(), d.h.data(), size_t(B * U) * 4);
}

/// z[rows, 2 V] = from + a m, sums in registers; a's rows `lda` apart.
template <int rows> void tile(const float* a, int64_t lda, int64_t K, const float* m, const float* from, int64_t ldf, float* z) {
  vf sum[rows][2];
#pragma GCC unroll 4
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < 2; j++) sum[i][j] = load(from + i * ldf + j * V);
  for (int64_t k = 0; k < K; k++) {
    const vf m0 = load(m + k * G), m1 = load(m + k * G + V);
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++) {
      const vf left = a[i * lda + k] - vf{};
      sum[i][0] += left * m0, sum[i][1] += left * m1;
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < 2; j++) store(z + i * G + j * V, sum[i][j]);
}

/// z of all steps from x beforehand, [T,B,4U]; W's columns stay in L1 while all rows pass.
void project(Data& d, const float* w, const float* bias) {
  for (int64_t g = 0; g < G; g += 2 * V)
    for (int64_t t = 0; t < T; t++)
      for (int64_t b = 0; b < B; b += 4)
        tile<4>(d.x.data() + (b * T + t) * C, T * C, C, w + g, bias + g, 0, d.z.data() + (t * B + b) * G + g);
}

template <class Cell> void recurrent(Data& d, const Cell& one) {
  d.clear();
  project(d, d.w.data(), d.b.data());
  for (int64_t t = 0; t < T; t++) {
    float* z = d.z.data() + t * B * G;
    for (int64_t g = 0; g < G; g += 2 * V)
      for (int64_t b = 0; b < B; b += 4) tile<4>(d.h.data() + b * U, U, U, d.r.data() + g, z + b * G + g, G, z + b * G + g);
    for (int64_t b = 0; b < B; b++) one(z + b * G, d.c.data() + b * U, d.h.data() + b * U);
  }
  std::memcpy(d.y.data(), d.h.data(), size_t(B * U) * 4);
}

/// x W for all steps at once, and products with sums in registers.
void registers(Data& d) { recurrent(d, cell); }

/// e^v to some 2 ulp: 2^n by the exponent's bits, 2^f by a polynomial.
vf exponential(vf v) {
  typedef int32_t vi __attribute__((vector_size(V * 4)));
  const vf high = 87 - vf{}, low = -87 - vf{};
  v = v > high ? high : v;
  v = v < low ? low : v;
  const vf t = v * 1.44269504f, half = t < 0 ? -0.5f - vf{} : 0.5f - vf{};
  const vi n = __builtin_convertvector(t + half, vi);
  const vf f = v - __builtin_convertvector(n, vf) * 0.693147181f;
  vf p = 1 / 720.f - vf{};
  for (float k : {1 / 120.f, 1 / 24.f, 1 / 6.f, 0.5f, 1.f, 1.f}) p = p * f + k;
  const vi bits = (n + 127) << 23;
  vf scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return p * scale;
}
vf sigmoid(vf v) { return 1 / (1 + exponential(-v)); }
vf tanh(vf v) { return 1 - 2 / (1 + exponential(2 * v)); }

void vector_cell(const float* z, float* c, float* h) {
  for (int64_t u = 0; u < U; u += V) {
    const vf next = sigmoid(load(z + U + u)) * load(c + u) + sigmoid(load(z + u)) * tanh(load(z + 2 * U + u));
    store(c + u, next);
    store(h + u, sigmoid(load(z + 3 * U + u)) * tanh(next));
  }
}

/// sigmoid and tanh of whole vectors by one polynomial.
void vector_functions(Data& d) { recurrent(d, vector_cell); }

/// Three rows' four gates of V units, and their cell while z is in registers. h of the step before is read, the next written.
template <int rows> void gates_tile(const float* h, const float* r, const float* z, float* c, float* next) {
  vf sum[rows][4];
#pragma GCC unroll 3
  for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) sum[i][j] = load(z + i * G + j * V);
  for (int64_t k = 0; k < U; k++) {
    const float* m = r + k * 4 * V;
#pragma GCC unroll 3
    for (int i = 0; i < rows; i++) {
      const vf left = h[i * U + k] - vf{};
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++) sum[i][j] += left * load(m + j * V);
    }
  }
#pragma GCC unroll 3
  for (int i = 0; i < rows; i++) {
    const vf state = sigmoid(sum[i][1]) * load(c + i * U) + sigmoid(sum[i][0]) * tanh(sum[i][2]);
    store(c + i * U, state);
    store(next + i * U, sigmoid(sum[i][3]) * tanh(state));
  }
}

/// R in panels with the four gates of the same units side by side: the cell needs nothing from memory but c.
void gates_together(Data& d) {
  d.clear();
  project(d, d.gathered_w.data(), d.gathered_b.data());
  for (int64_t t = 0; t < T; t++) {
    const float *z = d.z.data() + t * B * G, *h = d.h.data() + t % 2 * B * U;
    float* next = d.h.data() + (t + 1) % 2 * B * U;
    for (int64_t u = 0; u < U; u += V) {
      const float* r = d.gathered_r.data() + u * 4 * U;
      int64_t b = 0;
      for (; b + 3 <= B; b += 3) gates_tile<3>(h + b * U, r, z + b * G + 4 * u, d.c.data() + b * U + u, next + b * U + u);
      for (; b < B; b++) gates_tile<1>(h + b * U, r, z + b * G + 4 * u, d.c.data() + b * U + u, next + b * U + u);
    }
  }
  std::memcpy(d.y.data(), d.h.data() + T % 2 * B * U, size_t(B * U) * 4);
}

void finished(Data& d) { lstm(d.args, d.memory->stream()); }

std::shared_ptr<Data> make() {
  auto d = std::make_shared<Data>();
  d->gathered_w.resize(d->w.size()), d->gathered_r.resize(d->r.size()), d->gathered_b.resize(d->b.size());
  for (int64_t u = 0; u < U; u++)
    for (int64_t g = 0; g < 4; g++) {
      const int64_t from = g * U + u, to = u / V * 4 * V + g * V + u % V;
      d->gathered_b[size_t(to)] = d->b[size_t(from)];
      for (int64_t c = 0; c < C; c++) d->gathered_w[size_t(c * G + to)] = d->w[size_t(c * G + from)];
      for (int64_t k = 0; k < U; k++)  // [units / V][U][4][V]
        d->gathered_r[size_t((u / V * U + k) * 4 * V + g * V + u % V)] = d->r[size_t(k * G + from)];
    }
  dagrt::LstmArgs& a = d->args;
  a.B = B, a.T = T, a.C = a.ldx = C, a.U = a.ldy = U;
  a.x = d->x.data(), a.kernel = d->w.data(), a.recurrent = d->r.data(), a.bias = d->b.data(), a.h = d->y.data();
  a.packed = d->packed.data();
  const dagrt::LstmMemory m = dagrt::lstm_memory(B, T, U);
  d->memory = std::make_unique<bench::Memory>(m.workspace, m.scratch);
  a.workspace = d->memory->workspace();
  lstm_pack(a, d->memory->stream());
  return d;
}

const std::vector<float>& Data::expected() {
  static const std::vector<float> all = [] {
    Data d;
    equations(d);
    return bench::copy(d.y.data(), B * U);
  }();
  return all;
}

}  // namespace
}  // namespace ladder

void bench::add_rows() {
  using namespace ladder;
  const std::string group = "LSTM 32 x 100 x 64 to 128/";
  const double flops = 2.0 * double(B * T) * double(G) * double(C + U);
  step(group + "the equations", flops, make, equations);
  step(group + "gates innermost", flops, make, along_rows);
  step(group + "x W for all steps, sums in registers", flops, make, registers);
  step(group + "sigmoid and tanh of vectors", flops, make, vector_functions);
  step(group + "four gates in one tile", flops, make, gates_together);
  step(group + "dagrt", flops, make, finished);
}
