// The LSTM and its gradient against loops in double: masks, directions, optional inputs and outputs, row strides, guards,
// threads, every instruction set.
#include <cmath>
#include <cstring>

#include "run_op.h"

namespace dagrt {
void register_lstm(Registry&);
}

using namespace dagrt;
using namespace dagrt::testing;

namespace {

float value(int64_t i, int64_t seed) { return float((i * 37 + seed * 101 + (i * i) % 13) % 29 - 14) / 20.0f; }

struct Layer {
  int64_t B, T, C, U;
  bool backwards = false, zero = false, masked = false, states = false;
};

/// Everything in double; gradients by the chain rule, one sample and step at a time.
struct Reference {
  const Layer l;
  std::vector<double> x, w, r, b, h0, c0, dy, dh, dc;
  std::vector<char> mask;
  std::vector<double> y, h, c, gates, cells, hidden;  // as the op's outputs
  std::vector<double> dx, dw, dr, db, dh0, dc0;

  explicit Reference(const Layer& layer) : l(layer) {
    auto fill = [](std::vector<double>& v, int64_t n, int64_t seed) {
      for (int64_t i = 0; i < n; i++) v.push_back(double(value(i, seed)));
    };
    fill(x, l.B * l.T * l.C, 1), fill(w, l.C * 4 * l.U, 2), fill(r, l.U * 4 * l.U, 3), fill(b, 4 * l.U, 4);
    fill(h0, l.B * l.U, l.states ? 5 : 0), fill(c0, l.B * l.U, l.states ? 6 : 0);
    if (!l.states) h0.assign(h0.size(), 0), c0.assign(c0.size(), 0);
    fill(dy, l.B * l.T * l.U, 7), fill(dh, l.B * l.U, 8), fill(dc, l.B * l.U, 9);
    for (int64_t i = 0; i < l.B * l.T; i++) mask.push_back(!l.masked || (i * 7 + i / 3) % 5 < 3);
  }
  int64_t time(int64_t step) const { return l.backwards ? l.T - 1 - step : step; }

  void forward() {
    const int64_t B = l.B, T = l.T, C = l.C, U = l.U;
    h = h0, c = c0;
    std::vector<double> before(size_t(B * U), 0);
    y.assign(size_t(B * T * U), 0), gates.assign(size_t(T * B * 4 * U), 0);
    cells.assign(size_t(T * B * U), 0), hidden.assign(size_t(T * B * U), 0);
    auto s = [](double v) { return 1 / (1 + std::exp(-v)); };
    for (int64_t step = 0; step < T; step++)
      for (int64_t i = 0; i < B; i++) {
        const int64_t t = time(step), place = step * B + i;
        double* g = gates.data() + place * 4 * U;
        for (int64_t n = 0; n < 4 * U; n++) {
          double z = b[size_t(n)];
          for (int64_t k = 0; k < C; k++) z += x[size_t((i * T + t) * C + k)] * w[size_t(k * 4 * U + n)];
          for (int64_t k = 0; k < U; k++) z += h[size_t(i * U + k)] * r[size_t(k * 4 * U + n)];
          g[n] = n / U == 2 ? std::tanh(z) : s(z);
        }
        for (int64_t u = 0; u < U; u++) {
          size_t at = size_t(i * U + u);
          double out = l.zero ? 0 : before[at];
          if (mask[size_t(i * T + t)]) {
            c[at] = g[U + u] * c[at] + g[u] * g[2 * U + u];
            h[at] = out = g[3 * U + u] * std::tanh(c[at]);
          }
          before[at] = y[size_t((i * T + step) * U + u)] = out;
          cells[size_t(place * U + u)] = c[at];
          hidden[size_t(place * U + u)] = h[at];
        }
      }
  }

  void backward() {
    const int64_t B = l.B, T = l.T, C = l.C, U = l.U, G = 4 * U;
    dx.assign(x.size(), 0), dw.assign(w.size(), 0), dr.assign(r.size(), 0), db.assign(b.size(), 0);
    dh0 = dh, dc0 = dc;
    std::vector<double> repeated(size_t(B * U), 0), z(size_t(G), 0);
    for (int64_t step = T - 1; step >= 0; step--)
      for (int64_t i = 0; i < B; i++) {
        const int64_t t = time(step), place = step * B + i;
        const double* g = gates.data() + place * G;
        bool on = mask[size_t(i * T + t)];
        for (int64_t u = 0; u < U; u++) {
          size_t at = size_t(i * U + u);
          double d = dy[size_t((i * T + step) * U + u)] + (l.zero ? 0 : repeated[at]);
          repeated[at] = on ? 0 : d;
          if (!on) continue;
          double cb = step ? cells[size_t((place - B) * U + u)] : c0[at], tc = std::tanh(cells[size_t(place * U + u)]);
          d += dh0[at];
          double dcell = dc0[at] + d * g[3 * U + u] * (1 - tc * tc);
          z[size_t(u)] = dcell * g[2 * U + u] * g[u] * (1 - g[u]);
          z[size_t(U + u)] = dcell * cb * g[U + u] * (1 - g[U + u]);
          z[size_t(2 * U + u)] = dcell * g[u] * (1 - g[2 * U + u] * g[2 * U + u]);
          z[size_t(3 * U + u)] = d * tc * g[3 * U + u] * (1 - g[3 * U + u]);
          dc0[at] = dcell * g[U + u];
        }
        if (!on) continue;
        for (int64_t k = 0; k < U; k++) {
          double hb = step ? hidden[size_t((place - B) * U + k)] : h0[size_t(i * U + k)], sum = 0;
          for (int64_t n = 0; n < G; n++) {
            dr[size_t(k * G + n)] += hb * z[size_t(n)];
            sum += r[size_t(k * G + n)] * z[size_t(n)];
          }
          dh0[size_t(i * U + k)] = sum;
        }
        for (int64_t k = 0; k < C; k++)
          for (int64_t n = 0; n < G; n++) {
            dw[size_t(k * G + n)] += x[size_t((i * T + t) * C + k)] * z[size_t(n)];
            dx[size_t((i * T + t) * C + k)] += w[size_t(k * G + n)] * z[size_t(n)];
          }
        for (int64_t n = 0; n < G; n++) db[size_t(n)] += z[size_t(n)];
      }
  }
};

Tensor tensor(std::vector<int64_t> shape, const std::vector<double>& values, int64_t padding = 0) {
  Tensor t(DType::float32, std::move(shape), padding);
  t.set<float>([&](int64_t i) { return float(values[size_t(i)]); });
  return t;
}

void close(Tensor& t, const std::vector<double>& want, const char* what) {
  CAPTURE(what);
  double scale = 1e-30, error = 0;
  for (double v : want) scale = std::max(scale, std::fabs(v));
  for (int64_t i = 0; i < t.size(); i++) {
    double e = std::fabs(double(t.at<float>(i)) - want[size_t(i)]);
    error = e <= error ? error : e;  // NaN counts
  }
  CHECK(error <= 1e-5 * scale);
  CHECK(t.intact());
}

void check(const Op& forward, const Op& backward, const Layer& l, int64_t padding) {
  CAPTURE(l.B);
  CAPTURE(l.T);
  CAPTURE(l.C);
  CAPTURE(l.U);
  CAPTURE(l.backwards);
  CAPTURE(l.zero);
  CAPTURE(l.masked);
  CAPTURE(l.states);
  const int64_t B = l.B, T = l.T, C = l.C, U = l.U;
  const DType f = DType::float32;
  Reference want(l);
  want.forward();
  want.backward();
  Tensor x = tensor({B, T, C}, want.x, padding), w = tensor({C, 4 * U}, want.w), r = tensor({U, 4 * U}, want.r);
  Tensor b = tensor({4 * U}, want.b), h0 = tensor({B, U}, want.h0), c0 = tensor({B, U}, want.c0), mask(DType::bool_, {B, T});
  mask.set<uint8_t>([&](int64_t i) { return uint8_t(want.mask[size_t(i)]); });
  Tensor *ph = l.states ? &h0 : nullptr, *pc = l.states ? &c0 : nullptr, *pm = l.masked ? &mask : nullptr;
  AttrMap attrs{{"go_backwards", {l.backwards}}, {"zero_output_for_mask", {l.zero}}};

  std::vector<std::vector<float>> first;
  for (int threads = 1; threads <= 2; threads++) {
    Tensor y(f, {B, T, U}, padding), h(f, {B, U}), c(f, {B, U}), gates(f, {T, B, 4 * U}), cells(f, {T, B, U}),
        hidden(f, {T, B, U});
    run_op(forward, attrs, {&x, &w, &r, &b, ph, pc, pm}, {&y, &h, &c, &gates, &cells, &hidden}, threads);
    close(y, want.y, "y");
    close(h, want.h, "h");
    close(c, want.c, "c");
    close(gates, want.gates, "gates");
    close(cells, want.cells, "cells");
    close(hidden, want.hidden, "hidden");

    Tensor dy = tensor({B, T, U}, want.dy, padding), dh = tensor({B, U}, want.dh), dc = tensor({B, U}, want.dc);
    Tensor dx(f, {B, T, C}), dw(f, {C, 4 * U}), dr(f, {U, 4 * U}), db(f, {4 * U}), dh0(f, {B, U}), dc0(f, {B, U});
    run_op(backward, attrs, {&x, &w, &r, ph, pc, pm, &gates, &cells, &hidden, &dy, &dh, &dc}, {&dx, &dw, &dr, &db, &dh0, &dc0},
           threads);
    close(dx, want.dx, "dx");
    close(dw, want.dw, "dkernel");
    close(dr, want.dr, "drecurrent");
    close(db, want.db, "dbias");
    close(dh0, want.dh0, "dh0");
    close(dc0, want.dc0, "dc0");
    for (Tensor* t : {&x, &w, &r, &b, &h0, &c0, &mask, &gates, &cells, &hidden, &dy, &dh, &dc}) CHECK(t->intact());
    size_t k = 0;
    for (Tensor* t : {&y, &h, &c, &gates, &dx, &dw, &dr, &db, &dh0, &dc0}) {
      std::vector<float> bits;
      for (int64_t i = 0; i < t->size(); i++) bits.push_back(t->at<float>(i));
      if (threads == 1)
        first.push_back(bits);
      else if (!bits.empty())
        CHECK(std::memcmp(bits.data(), first[k].data(), bits.size() * 4) == 0);
      k++;
    }
  }

  // Outputs that nobody reads have no memory; gradients that nobody sends are zero.
  Tensor y(f, {B, T, U}), h(f, {B, U}), c(f, {B, U}), gates(f, {T, B, 4 * U}), cells(f, {T, B, U}), hidden(f, {T, B, U});
  for (Tensor* t : {&y, &c, &gates, &cells, &hidden}) t->view.data = nullptr;
  run_op(forward, attrs, {&x, &w, &r, &b, ph, pc, pm}, {&y, &h, &c, &gates, &cells, &hidden});
  close(h, want.h, "h alone");
}

}  // namespace

TEST_CASE("lstm and its gradient agree with loops") {
  Registry r;
  register_lstm(r);
  const Op &forward = *r.find("lstm"), &backward = *r.find("lstm_grad");
  Isa before = chosen_isa;
  for (const char* isa : isas()) {
    CAPTURE(isa);
    choose_isa(isa);
    for (int flags = 0; flags < 16; flags++) {
      const bool back = flags & 1, zero = flags & 2, masked = flags & 4, states = flags & 8;
      if (zero && !masked) continue;
      for (auto [B, T, C, U] : {std::array<int64_t, 4>{2, 3, 4, 5},
                                {1, 9, 3, 16},
                                {3, 4, 1, 17},
                                {6, 1, 2, 1},
                                {19, 35, 7, 9},
                                {1, 130, 5, 8},
                                {13, 2, 3, 33},
                                {9, 7, 5, 28},
                                {7, 8, 2, 43},
                                {3, 5, 18, 24},
                                {0, 3, 2, 2},
                                {2, 0, 2, 2},
                                {2, 3, 0, 4},
                                {2, 3, 4, 0}})
        check(forward, backward, {B, T, C, U, back, zero, masked, states}, flags % 3);
    }
    check(forward, backward, {140, 5, 3, 4, false, false, true, true}, 0);  // more blocks of rows than partial sums
    check(forward, backward, {5, 3, 7, 261, false, false, true, true}, 0);  // products in three parts
  }
  chosen_isa = before;
}

TEST_CASE("lstm_grad computes only what is asked for") {
  Registry r;
  register_lstm(r);
  Layer l{5, 6, 3, 4};
  Reference want(l);
  want.forward();
  want.dh.assign(want.dh.size(), 0), want.dc.assign(want.dc.size(), 0);
  want.backward();
  const DType f = DType::float32;
  Tensor x = tensor({5, 6, 3}, want.x), w = tensor({3, 16}, want.w), k = tensor({4, 16}, want.r), dy = tensor({5, 6, 4}, want.dy);
  Tensor gates = tensor({6, 5, 16}, want.gates), cells = tensor({6, 5, 4}, want.cells), hidden = tensor({6, 5, 4}, want.hidden);
  for (size_t kept = 0; kept < 6; kept++) {
    Tensor dx(f, {5, 6, 3}), dw(f, {3, 16}), dr(f, {4, 16}), db(f, {16}), dh0(f, {5, 4}), dc0(f, {5, 4});
    std::vector<Tensor*> all{&dx, &dw, &dr, &db, &dh0, &dc0};
    const std::vector<double>* wanted[] = {&want.dx, &want.dw, &want.dr, &want.db, &want.dh0, &want.dc0};
    for (size_t i = 0; i < 6; i++)
      if (i != kept) all[i]->view.data = nullptr;
    run_op(*r.find("lstm_grad"), {}, {&x, &w, &k, nullptr, nullptr, nullptr, &gates, &cells, &hidden, &dy}, all, 2);
    close(*all[kept], *wanted[kept], "kept");
  }
}

TEST_CASE("lstm names what does not fit") {
  Registry r;
  register_lstm(r);
  const Op& op = *r.find("lstm");
  Attrs attrs = op.attrs.read("lstm", {});
  auto t = [](std::vector<int64_t> shape, DType d = DType::float32) {
    TensorType type{d, {}};
    for (int64_t n : shape) type.shape.push_back(n);
    return type;
  };
  auto message = [&](const Types& in) -> std::string {
    try {
      infer(op, attrs.get(), in);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  CHECK(message({t({2, 3}), t({3, 8}), t({2, 8})}) == "lstm: expected (batch, steps, features), got (2, 3)");
  CHECK(message({t({2, 3, 4}), t({3, 8}), t({2, 8})}) == "lstm: the kernel must have shape (4, 8), got (3, 8)");
  CHECK(message({t({2, 3, 4}), t({4, 8}), t({2, 7})}) == "lstm: the recurrent kernel must have shape (2, 8), got (2, 7)");
  CHECK(message({t({2, 3, 4}), t({4, 8}), t({2, 8}), t({2})}) == "lstm: the bias must have shape (8,), got (2,)");
  CHECK(message({t({2, 3, 4}, DType::bfloat16), t({4, 8}), t({2, 8})}) == "lstm: x must be float32, got bfloat16; cast it");
}
