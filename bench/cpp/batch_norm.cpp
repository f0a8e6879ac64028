// Batch normalisation in training: statistics, result and relu; and its gradients. Statistics have to be known before the
// result: two passes over what is read, where it does not stay in cache.
#include "kernels/batch_norm.h"

#include "peers.h"

using namespace dagrt;

namespace bench {
namespace {

struct Case {
  const char* model;
  int64_t B, H, C;
};

Work layer(const Case& l, bool grad) {
  struct Held {
    Floats x, dy, gamma, beta, y, mean, variance, rstd, dgamma, dbeta, workspace;
    BatchNormArgs a;
    Memory memory;
  };
  auto h = std::make_shared<Held>();
  const int64_t rows = l.B * l.H * l.H;
  h->x = values(rows * l.C), h->dy = values(rows * l.C, 2), h->gamma = values(l.C, 3), h->beta = values(l.C, 4);
  for (float& g : h->gamma) g += 1;
  for (Floats* f : {&h->mean, &h->variance, &h->rstd, &h->dgamma, &h->dbeta}) f->resize(size_t(l.C));
  h->y.resize(h->x.size()), h->workspace.resize(size_t(batch_norm_workspace(rows, l.C)));
  BatchNormArgs& a = h->a;
  a.x = h->x.data(), a.gamma = h->gamma.data(), a.beta = h->beta.data(), a.y = h->y.data();
  a.mean = h->mean.data(), a.variance = h->variance.data(), a.rstd = h->rstd.data();
  a.rows = rows, a.C = a.ldx = a.ldy = a.lddy = a.lddx = l.C, a.epsilon = 1e-3f;
  a.workspace = h->workspace.data(), a.epilogue.relu = true;
  const BatchNorm p{l.B, l.H, l.C, h->x.data(), h->gamma.data(), h->beta.data(), h->dy.data(), a.epsilon};
  Work w;
  if (grad) {
    batch_norm(a, h->memory.stream());
    a.dy = h->dy.data(), a.dx = h->y.data(), a.dgamma = h->dgamma.data(), a.dbeta = h->dbeta.data();
    a.epilogue = {};
  }
  using Run = void (*)(const BatchNormArgs&, const Stream&);
  Run run = grad ? Run(batch_norm_grad) : Run(batch_norm);
  w.dagrt = {"dagrt", [h, run] { run(h->a, h->memory.stream()); }, [h] { return copy(h->y.data(), int64_t(h->y.size())); }};
  w.peers = peers(grad ? &Framework::batch_norm_grad : &Framework::batch_norm, p);
  w.read = 4.0 * double(rows * l.C) * (grad ? 2 : 1), w.read_passes = 2, w.written = 4.0 * double(rows * l.C);
  return w;
}

}  // namespace

void add_rows() {
  const Case cases[] = {{"resnet", 1, 112, 64},    {"resnet", 4, 112, 64},     {"resnet", 4, 56, 256},
                        {"resnet50", 8, 28, 128},  {"resnet50", 32, 14, 1024}, {"resnet50", 32, 7, 2048},
                        {"mobilenet", 8, 112, 96}, {"mobilenet", 8, 56, 144}};
  for (bool grad : {false, true})
    for (const Case& c : cases)
      add_row(std::string(grad ? "gradient" : "forward") + "/" + c.model + " " + std::to_string(c.B) + "x" + std::to_string(c.H) +
                  "x" + std::to_string(c.H) + "x" + std::to_string(c.C),
              [=] { return layer(c, grad); });
}

}  // namespace bench
