// The updates against their equations in double, in place and not, for float32 and 16-bit variables.
#include <cmath>
#include <string>

#include "run_op.h"

using namespace dagrt;
using namespace dagrt::testing;

namespace {

struct Step {
  const char* name;
  AttrMap attrs;
  int states;
  bool needs_step;
  std::function<void(double lr, double& w, double& m, double& v, double g)> reference;
};

std::vector<Step> steps() {
  auto decayed = [](double lr, double& w) { w -= w * 0.01 * lr; };
  return {
      {"sgd_update",
       {{"weight_decay", {0.01}}},
       1,
       false,
       [=](double lr, double& w, double&, double&, double g) {
         decayed(lr, w);
         w -= lr * g;
       }},
      {"momentum_update",
       {{"momentum", {0.9}}, {"nesterov", {false}}, {"weight_decay", {0.01}}},
       2,
       false,
       [=](double lr, double& w, double& m, double&, double g) {
         decayed(lr, w);
         m = 0.9 * m - lr * g;
         w += m;
       }},
      {"momentum_update",
       {{"momentum", {0.9}}, {"nesterov", {true}}, {"weight_decay", {0.0}}},
       2,
       false,
       [](double lr, double& w, double& m, double&, double g) {
         m = 0.9 * m - lr * g;
         w += 0.9 * m - lr * g;
       }},
      {"adam_update",
       {{"beta_1", {0.9}}, {"beta_2", {0.999}}, {"epsilon", {1e-7}}, {"weight_decay", {0.01}}},
       3,
       true,
       [=](double lr, double& w, double& m, double& v, double g) {
         decayed(lr, w);
         m = 0.9 * m + 0.1 * g;
         v = 0.999 * v + 0.001 * g * g;
         w -= lr * std::sqrt(1 - std::pow(0.999, 4)) / (1 - std::pow(0.9, 4)) * m / (std::sqrt(v) + 1e-7);
       }},
      {"rmsprop_update",
       {{"rho", {0.9}}, {"epsilon", {1e-7}}, {"weight_decay", {0.01}}},
       2,
       false,
       [=](double lr, double& w, double& m, double&, double g) {  // its one slot is v
         decayed(lr, w);
         m = 0.9 * m + 0.1 * g * g;
         w -= lr * g / std::sqrt(m + 1e-7);
       }},
  };
}

float widen(Tensor& t, int64_t i) {
  if (t.view.dtype == DType::float32) return t.at<float>(i);
  uint32_t u = uint32_t(t.at<uint16_t>(i)) << 16;
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}

void put(Tensor& t, int64_t i, float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  if (t.view.dtype == DType::float32)
    t.at<float>(i) = f;
  else
    t.at<uint16_t>(i) = uint16_t(u >> 16);
}

}  // namespace

TEST_CASE("optimiser updates") {
  Registry r;
  register_optimizer(r);
  for (const Step& s : steps())
    for (const char* isa : isas())
      for (DType t : {DType::float32, DType::bfloat16})
        for (int64_t n : {0, 1, 15, 17, 300, 9001})
          for (bool in_place : {false, true}) {
            INFO(s.name << " " << isa << " " << name_of(t) << " n " << n << " in place " << in_place);
            choose_isa(isa);
            std::vector<Tensor> in, out;
            for (int i = 0; i <= s.states; i++) in.emplace_back(t, std::vector<int64_t>{n});
            for (int i = 0; i < s.states; i++) out.emplace_back(t, std::vector<int64_t>{n});
            for (int64_t i = 0; i < n; i++)
              for (size_t k = 0; k < in.size(); k++)
                put(in[k], i, float(std::sin(double(i * 7) + double(k) * 3)) + (k == 2 ? 1.5f : k == 1 ? 1.25f : 0));
            std::vector<std::vector<float>> before(in.size());
            for (size_t k = 0; k < in.size(); k++)
              for (int64_t i = 0; i < n; i++) before[k].push_back(widen(in[k], i));
            Tensor lr(DType::float32, {}), step(DType::int32, {});
            lr.at<float>(0) = 0.125f;
            step.at<int32_t>(0) = 3;
            std::vector<Tensor*> ins, outs;
            for (Tensor& x : in) ins.push_back(&x);
            ins.push_back(&lr);
            if (s.needs_step) ins.push_back(&step);
            for (int i = 0; i < s.states; i++) outs.push_back(in_place ? &in[size_t(i)] : &out[size_t(i)]);
            run_op(*r.find(s.name), s.attrs, ins, outs, in_place ? 2 : 1);
            double worst = 0, allowed = t == DType::float32 ? 2e-6 : 8e-3;
            for (int64_t i = 0; i < n; i++) {
              double w = before[0][size_t(i)], m = s.states > 1 ? before[1][size_t(i)] : 0,
                     v = s.states > 2 ? before[2][size_t(i)] : 0;
              s.reference(0.125, w, m, v, before[size_t(s.states)][size_t(i)]);
              double want[3] = {w, m, v};
              for (int k = 0; k < s.states; k++)
                worst = std::max(worst, std::fabs(widen(*outs[size_t(k)], i) - want[k]) / (1 + std::fabs(want[k])));
            }
            CHECK(worst <= allowed);
            for (Tensor& x : in) CHECK(x.intact());
            for (Tensor& x : out) CHECK(x.intact());
          }
  Tensor w(DType::float32, {3}), g(DType::float32, {4}), h(DType::bfloat16, {3}), lr(DType::float32, {}), y(DType::float32, {3});
  CHECK_THROWS_AS(run_op(*r.find("sgd_update"), {}, {&w, &g, &lr}, {&y}), Error);
  CHECK_THROWS_AS(run_op(*r.find("sgd_update"), {}, {&w, &h, &lr}, {&y}), Error);
  CHECK_THROWS_AS(run_op(*r.find("sgd_update"), {}, {&w, &w, &w}, {&y}), Error);
}
