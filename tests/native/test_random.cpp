// Philox against the published vectors; the ops against the scalar block; the same bits everywhere.
#include "kernels/random.h"

#include <cmath>

#include "run_op.h"

using namespace dagrt;
using namespace dagrt::testing;

namespace {

const Op& random_op(const char* name) {
  static const Registry* r = [] {
    auto* made = new Registry;
    register_random(*made);
    return made;
  }();
  return *r->find(name);
}

AttrMap drawing(int64_t n, int64_t stream) { return {{"shape", integers({n})}, {"stream", {stream}}}; }

}  // namespace

TEST_CASE("philox known answers (Random123, kat_vectors)") {
  const uint32_t vectors[3][10] = {
      {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
      {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
      {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}};
  for (const auto& v : vectors) {
    uint32_t out[4];
    philox_block(v, v + 4, out);
    for (int i = 0; i < 4; i++) CHECK(out[i] == v[6 + i]);
  }
}

TEST_CASE("random ops: words, ranges, moments, the same on every instruction set") {
  Tensor state(DType::int64, {2}), step(DType::int32, {});
  const int64_t seed = 0x123456789abcdef0, counter = 77;
  state.at<int64_t>(0) = seed;
  state.at<int64_t>(1) = counter;
  step.at<int32_t>(0) = 0;
  std::vector<float> first_uniform, first_normal;
  for (const char* isa : isas())
    for (int threads : {1, 2})
      for (int64_t n : {0, 1, 3, 5, 63, 64, 65, 4097, 20001}) {
        INFO(isa << " threads " << threads << " n " << n);
        choose_isa(isa);
        Tensor bits(DType::int32, {n}), u(DType::float32, {n}), z(DType::float32, {n});
        run_op(random_op("random_bits"), drawing(n, 9), {&state}, {&bits}, threads);
        run_op(random_op("random_uniform"), drawing(n, 9), {&state, nullptr}, {&u}, threads);
        run_op(random_op("random_normal"), drawing(n, 9), {&state, &step}, {&z}, threads);
        std::vector<uint32_t> words(size_t(n) + 4);
        philox_blocks(uint64_t(seed), uint64_t(counter), 9, n, words.data());
        int64_t left = (n + 3) / 4 * 4;
        std::vector<uint32_t> whole(static_cast<size_t>(left));
        philox_blocks(uint64_t(seed), uint64_t(counter), 9, left, whole.data());
        bool same = true, close = true;
        for (int64_t i = 0; i < n; i++) {
          same &= bits.at<uint32_t>(i) == words[size_t(i)];
          same &= u.at<float>(i) == float(words[size_t(i)] >> 8) * 0x1p-24f;
          double a = double((whole[size_t(i / 2 * 2)] >> 8) + 1) * 0x1p-24,
                 t = double(whole[size_t(i / 2 * 2 + 1)] >> 8) * 0x1p-24;
          double r = std::sqrt(-2 * std::log(a)), want = i % 2 ? r * std::sin(2 * M_PI * t) : r * std::cos(2 * M_PI * t);
          close &= std::fabs(z.at<float>(i) - want) <= 4e-7 * (1 + std::fabs(want));
        }
        CHECK(same);
        CHECK(close);
        CHECK(bits.intact());
        CHECK(u.intact());
        CHECK(z.intact());
        if (n != 20001) continue;
        const float *fu = u.view.as<float>(), *fz = z.view.as<float>();
        if (first_uniform.empty()) {
          first_uniform.assign(fu, fu + n);
          first_normal.assign(fz, fz + n);
          double sum = 0, squares = 0;
          for (float x : first_normal) sum += x, squares += double(x) * x;
          CHECK(std::fabs(sum / double(n)) < 0.03);
          CHECK(std::fabs(squares / double(n) - 1) < 0.05);
        }
        CHECK(!std::memcmp(first_uniform.data(), fu, size_t(n) * 4));
        CHECK(!std::memcmp(first_normal.data(), fz, size_t(n) * 4));
      }
  Tensor other(DType::int32, {8}), base(DType::int32, {8});
  run_op(random_op("random_bits"), drawing(8, 9), {&state}, {&base});
  step.at<int32_t>(0) = 1;
  run_op(random_op("random_bits"), drawing(8, 9), {&state, &step}, {&other});
  CHECK(other.at<int32_t>(0) != base.at<int32_t>(0));
  CHECK_THROWS_AS(run_op(random_op("random_bits"), drawing(8, -1), {&state}, {&base}), Error);
  CHECK_THROWS_AS(run_op(random_op("random_bits"), drawing(8, 0), {&step}, {&base}), Error);
}
