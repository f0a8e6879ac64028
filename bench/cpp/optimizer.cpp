// Optimiser steps over all variables at once: Adam, and SGD with momentum.
#include "kernels/optimizer.h"

#include <cmath>

#include "peers.h"

using namespace dagrt;

namespace bench {
namespace {

Work step(bool adam, int64_t count, int64_t n) {
  struct Held {
    Floats var, m, v, grad;
    std::vector<UpdateItem> items;
    UpdateArgs a;
    Memory memory;
  };
  auto h = std::make_shared<Held>();
  const int64_t all = count * n;
  h->var = values(all), h->grad = values(all, 2), h->m = values(all, 3, 0.01f);
  if (adam) h->v = values(all, 4, 0.01f);
  for (float& v : h->v) v = std::fabs(v);
  if (!adam) std::fill(h->m.begin(), h->m.end(), 0.0f);
  for (int64_t i = 0; i < count; i++) {
    UpdateItem item;
    item.n = n;
    item.var = item.var_out = h->var.data() + i * n, item.m = item.m_out = h->m.data() + i * n,
    item.grad = h->grad.data() + i * n;
    if (adam) item.v = item.v_out = h->v.data() + i * n;
    h->items.push_back(item);
  }
  UpdateArgs& a = h->a;
  a.items = h->items.data(), a.count = count, a.units = count_units(h->items.data(), count);
  a.beta_1 = 0.9, a.beta_2 = 0.999, a.epsilon = 1e-7f;
  const float lr = 1e-3f;
  a.lr = adam ? float(double(lr) * std::sqrt(1 - a.beta_2) / (1 - a.beta_1)) : lr;  // of step 1
  const Update p{adam,           count, n,    h->var.data(), h->m.data(), adam ? h->v.data() : nullptr,
                 h->grad.data(), lr,    0.9f, 0.999f,        1e-7f};
  Work w;
  w.peers = peers(&Framework::update, p);  // they copy what the first call changes
  using Run = void (*)(const UpdateArgs&, const Stream&);
  Run run = adam ? Run(adam_update) : Run(momentum_update);
  w.dagrt = {"dagrt", [h, run] { run(h->a, h->memory.stream()); }, [h, all] { return copy(h->var.data(), all); }};
  w.read = 4.0 * double(all) * (adam ? 4 : 3), w.written = 4.0 * double(all) * (adam ? 3 : 2), w.in_place = true;
  return w;
}

}  // namespace

void add_rows() {
  const int64_t sizes[][2] = {{6, 10'000}, {60, 20'000}, {160, 160'000}};
  for (bool adam : {true, false})
    for (const auto& s : sizes)
      add_row(std::string(adam ? "adam" : "momentum") + "/" + std::to_string(s[0]) + " variables of " + std::to_string(s[1]),
              [adam, count = s[0], n = s[1]] { return step(adam, count, n); });
}

}  // namespace bench
