// Results so large that kernels write them past the caches: the same bits as where they may not (places that are no multiple of
// a vector), with row strides, guards and threads, on every instruction set.
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "kernels/batch_norm.h"
#include "kernels/lstm.h"
#include "kernels/pointwise.h"
#include "kernels/pool2d.h"
#include "kernels/winograd.h"
#include "run_op.h"

using namespace dagrt;

namespace {

constexpr int64_t rows = 64100, channels = 41, ld = 48, guard = 16;  // a little above 2 x 10 MB

std::vector<float> numbers(int64_t n, int64_t seed) {
  std::vector<float> v(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; i++) v[size_t(i)] = float((i * 37 + seed * 101 + (i * i) % 13) % 29 - 14) / 8.0f;
  return v;
}

/// `call` writes count rows of n floats, ld apart: by one thread to a line's start, by two to one float behind a line's start.
void check_places(int64_t count, int64_t n, int64_t ld, const std::function<void(float*, const Stream&)>& call) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> space[2];
  float* to[2];
  for (int k = 0; k < 2; k++) {
    space[k].assign(size_t(count * ld + 2 * guard + 32), nan);
    float* line = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(space[k].data()) + 63) / 64 * 64);
    to[k] = line + guard + k;
    Stream s;
    s.threads = k + 1;
    call(to[k], s);
  }
  CHECK(std::memcmp(to[0] - guard, to[1] - guard, size_t(count * ld + 2 * guard) * 4) == 0);
  bool intact = true, written = true;
  for (int64_t i = -guard; i < count * ld + guard; i++)
    if (i < 0 || i % ld >= n || i / ld >= count)
      intact = intact && std::isnan(to[0][i]);
    else
      written = written && !std::isnan(to[0][i]);
  CHECK(intact);
  CHECK(written);
}

void on_every_isa(const std::function<void()>& check) {
  const Isa before = chosen_isa;
  for (const char* isa : testing::isas()) {
    choose_isa(isa);
    CAPTURE(isa);
    check();
  }
  chosen_isa = before;
}

}  // namespace

TEST_CASE("pointwise functions past the caches") {
  struct Case {
    int64_t rows, width;
  };
  for (const Case c : {Case{1, 3'150'005}, Case{11000, 288}, Case{64100, 48}}) {  // strips of one row, in rows, of many rows
    CAPTURE(c.width);
    const int64_t n = c.rows * c.width;
    const std::vector<float> x = numbers(n, 1), z = numbers(n, 2), bias = numbers(c.width, 3);
    const auto set = [&](auto& a) {  // y = f(x, bias of a row, z)
      a.operands = 3, a.rank = 2, a.dims[0] = c.rows, a.dims[1] = c.width;
      a.data[1] = const_cast<float*>(x.data()), a.data[2] = const_cast<float*>(bias.data()),
      a.data[3] = const_cast<float*>(z.data());
      for (int k = 0; k < 4; k++) a.dtype[k] = DType::float32, a.strides[k][0] = k == 2 ? 0 : c.width, a.strides[k][1] = 1;
    };
    on_every_isa([&] {
      FusedArgs f;
      set(f);
      f.count = 2;
      f.code[0] = {Functor::multiply_, DType::float32, DType::float32, 2, {0, 1, 0}};
      f.code[1] = {Functor::add_, DType::float32, DType::float32, 2, {3, 2, 0}};
      check_places(1, n, n, [&](float* y, const Stream& s) {
        f.data[0] = y;
        fused_pointwise(f, s);
        CHECK(y[0] == x[0] * bias[0] + z[0]);
        CHECK(y[n - 1] == x[size_t(n - 1)] * bias[size_t(c.width - 1)] + z[size_t(n - 1)]);
      });
      f.code[0] = {Functor::greater_, DType::float32, DType::bool_, 2, {0, -1, 0}};
      f.code[1] = {Functor::select_, DType::float32, DType::float32, 3, {3, 2, -2}};
      f.constants[0] = 0.5f, f.constants[1] = -0.0f;
      check_places(1, n, n, [&](float* y, const Stream& s) {
        f.data[0] = y;
        fused_pointwise(f, s);
        bool same = true;
        for (int64_t i = 0; i < n; i++) same = same && y[i] == (x[size_t(i)] > 0.5f ? z[size_t(i)] : 0);
        CHECK(same);
      });
      PointwiseArgs a;
      set(a);
      for (const int operands : {1, 2}) {
        a.operands = operands, a.f = operands == 1 ? Functor::relu_ : Functor::subtract_;
        check_places(1, n, n, [&](float* y, const Stream& s) {
          a.data[0] = y;
          pointwise(a, s);
        });
      }
    });
  }
}

TEST_CASE("what an LSTM keeps for its gradient past the caches") {
  struct Case {
    int64_t B, T, C, U;
  };
  for (const Case c : {Case{33, 504, 5, 32}, Case{2, 2100, 3, 128}}) {  // rows for each thread; units shared by both
    CAPTURE(c.B);
    const int64_t G = 4 * c.U, places = c.B * c.T;
    const std::vector<float> x = numbers(places * c.C, 1), w = numbers((c.C + c.U + 1) * G, 2);
    std::vector<float> packed(size_t(lstm_packed_size(c.C, c.U)));
    const LstmMemory m = lstm_memory(c.B, c.T, c.U);
    const size_t scratch = (m.scratch + 63) / 64 * 64;
    std::vector<char> workspace(m.workspace + 64), space(2 * scratch + 64);
    on_every_isa([&] {
      LstmArgs a;
      a.B = c.B, a.T = c.T, a.C = a.ldx = c.C, a.U = c.U, a.x = x.data();
      a.kernel = w.data(), a.recurrent = w.data() + c.C * G, a.bias = w.data() + (c.C + c.U) * G;
      a.packed = packed.data(), a.workspace = workspace.data();
      lstm_pack(a, Stream{});
      check_places(places * 6, c.U, c.U, [&](float* gates, const Stream& s) {
        Stream mine = s;
        mine.scratch = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(space.data()) + 63) / 64 * 64);
        mine.scratch_bytes = scratch;
        a.gates = gates, a.cells = gates + places * G, a.hidden = a.cells + places * c.U;
        lstm(a, mine);
      });
    });
  }
}

TEST_CASE("batch normalisation past the caches") {
  const std::vector<float> x = numbers(rows * channels, 1), dy = numbers(rows * channels, 2), factors = numbers(channels, 3);
  on_every_isa([&] {
    std::vector<float> numbers_of(size_t(5 * channels)), workspace(size_t(batch_norm_workspace(rows, channels)));
    BatchNormArgs a;
    a.x = x.data(), a.gamma = a.beta = factors.data(), a.rows = rows, a.C = a.ldx = a.lddy = channels, a.epsilon = 1e-3f;
    a.mean = numbers_of.data(), a.variance = a.mean + channels, a.rstd = a.variance + channels, a.workspace = workspace.data();
    check_places(rows, channels, ld, [&](float* y, const Stream& s) {
      a.y = y, a.ldy = ld, a.epilogue.relu = true;
      batch_norm(a, s);
    });
    a.dgamma = a.rstd + channels, a.dbeta = a.dgamma + channels, a.dy = dy.data();
    check_places(rows, channels, ld, [&](float* dx, const Stream& s) {
      a.dx = dx, a.lddx = ld;
      batch_norm_grad(a, s);
    });
  });
}

TEST_CASE("pooling past the caches") {
  struct Case {
    bool maximum;
    int64_t H, C;  // of a maximum whole vectors, since places lie without gaps
  };
  for (const Case each : {Case{true, 461, 40}, Case{true, 259, 128}, Case{true, 181, 272}, Case{false, 461, 41}}) {
    const bool maximum = each.maximum;
    const int64_t H = each.H, P = H / 2, C = each.C, ld = (C + 15) / 16 * 16 + 16;
    const std::vector<float> x = numbers(H * H * C, 1), dy = numbers(P * P * C, 2);
    std::vector<int32_t> taken(maximum ? size_t(2 * P * P * C + 16) : 0);
    int32_t* places = reinterpret_cast<int32_t*>((reinterpret_cast<uintptr_t>(taken.data()) + 63) / 64 * 64);
    on_every_isa([&] {
      PoolArgs a;
      a.B = 1, a.H = a.W = H, a.P = a.Q = P, a.C = C, a.x = x.data(), a.ldx = C;
      a.pool_h = a.pool_w = a.stride_h = a.stride_w = 2;
      check_places(P * P, C, ld, [&](float* y, const Stream& s) {
        a.y = y, a.ldy = ld, a.argmax = maximum ? places + (s.threads - 1) * P * P * C : nullptr;
        maximum ? max_pool2d(a, s) : avg_pool2d(a, s);
      });
      if (maximum) CHECK(std::memcmp(places, places + P * P * C, size_t(P * P * C) * 4) == 0);
      a.x = dy.data(), a.taken = places;
      check_places(H * H, C, ld, [&](float* dx, const Stream& s) {
        a.dx = dx, a.lddx = ld;
        maximum ? max_pool2d_grad(a, s) : avg_pool2d_grad(a, s);
      });
    });
  }
}

TEST_CASE("overlapping windows past the caches") {
  for (const int64_t stride : {1, 2}) {
    CAPTURE(stride);
    const int64_t H = stride == 1 ? 263 : 525, P = 263, C = 32;  // odd: the last row stands alone
    const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    std::vector<float> x = numbers(H * H * C, 1), dy = numbers(P * P * C, 2);
    std::vector<int32_t> taken(size_t(2 * P * P * C + 16));
    int32_t* places = reinterpret_cast<int32_t*>((reinterpret_cast<uintptr_t>(taken.data()) + 63) / 64 * 64);
    PoolArgs a;
    a.B = 1, a.H = a.W = H, a.P = a.Q = P, a.C = a.ldx = C, a.x = x.data();
    a.pool_h = a.pool_w = 3, a.stride_h = a.stride_w = stride, a.pad_top = a.pad_left = 1;
    const auto run = [&](float* y, const Stream& s) {
      a.y = y, a.ldy = C, a.argmax = places + (s.threads - 1) * P * P * C;
      max_pool2d(a, s);
    };
    std::vector<float> sent;
    on_every_isa([&] {
      check_places(P * P, C, C, run);
      CHECK(std::memcmp(places, places + P * P * C, size_t(P * P * C) * 4) == 0);
      PoolArgs back = a;
      back.x = dy.data(), back.taken = places;
      check_places(H * H, C, ld, [&](float* dx, const Stream& s) {
        back.dx = dx, back.lddx = ld;
        max_pool2d_grad(back, s);
        if (sent.empty()) {
          sent.assign(size_t(H * H * C), 0);
          for (int64_t i = 0; i < P * P * C; i++) sent[size_t(places[i] * C + i % C)] += dy[size_t(i)];
        }
        bool same = true;
        for (int64_t i = 0; i < H * H * C; i++) same = same && dx[i / C * ld + i % C] == sent[size_t(i)];
        CHECK(same);
      });
    });
    // Among infinities, and a NaN that several windows hear of: rows that are summed to no number are taken with care.
    const int64_t hole = (100 * H + 57) * C + 5, above = (40 * H + 3) * C + 7;
    const int64_t out = (40 / stride * P + 3 / stride) * C + 7, hear = stride == 1 ? 9 : 2;
    x[size_t(above)] = inf, x[size_t(above + 4 * C)] = -inf;
    std::vector<float> results(size_t(2 * P * P * C + 16));
    float* plain = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(results.data()) + 63) / 64 * 64);
    float* with = plain + P * P * C;
    on_every_isa([&] {
      x[size_t(hole)] = 0;
      run(plain, Stream{});
      x[size_t(hole)] = nan;
      const std::vector<int32_t> before(places, places + P * P * C);
      run(with, Stream{});
      int64_t holes = 0, moved = 0, others = 0;
      for (int64_t i = 0; i < P * P * C; i++) {
        const bool near = std::isnan(with[i]);
        holes += near;
        moved += near && places[i] == hole / C;
        others += !near && (with[i] != plain[i] || places[i] != before[size_t(i)]);
      }
      CHECK(holes == hear);
      CHECK(moved == hear);
      CHECK(others == 0);
      CHECK(plain[out] == inf);
      CHECK(places[out] == above / C);
    });
  }
}

TEST_CASE("winograd filter gradients past the caches") {
  const int64_t C = 160, F = 192, H = 7, W = 6;
  const std::vector<float> x = numbers(2 * H * W * C, 1), dy = numbers(2 * H * W * F, 2);
  on_every_isa([&] {
    WinogradArgs a;
    a.B = 2, a.H = a.P = H, a.W = a.Q = W, a.C = a.ldx = C, a.F = a.ldy = F, a.pad_top = a.pad_left = 1;
    const WinogradMemory m = conv2d_filter_grad_winograd_memory(a);
    const size_t scratch = (m.scratch + 63) / 64 * 64;
    check_places(9 * C, F, F, [&](float* dw, const Stream& s) {
      std::vector<char> workspace(m.workspace), space(scratch * size_t(s.threads) + 64);
      std::vector<float> gradients(dy);
      Stream mine = s;
      mine.scratch = space.data(), mine.scratch_bytes = scratch;
      a.x = x.data(), a.y = gradients.data(), a.dw = dw, a.workspace = workspace.data();
      conv2d_filter_grad_winograd(a, mine);
    });
  });
}
