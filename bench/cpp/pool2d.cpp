// Pooling, forward (the maximum with its places, as training needs them) and backward.
#include "kernels/pool2d.h"

#include "peers.h"

using namespace dagrt;

namespace bench {
namespace {

struct Case {
  const char* model;
  bool max;
  int64_t B, H, C, window, stride, pad;
};

Work layer(const Case& l, bool grad) {
  struct Held {
    Floats x, dy, y;
    std::vector<int32_t, Aligned<int32_t>> places;
    PoolArgs a;
    Memory memory;
  };
  auto h = std::make_shared<Held>();
  Pool p{l.max, l.B, l.H, l.C, l.window, l.stride, l.pad, nullptr, nullptr};
  const int64_t outputs = l.B * p.P() * p.P() * l.C;
  h->x = values(l.B * l.H * l.H * l.C), h->dy = values(outputs, 2), h->places.resize(size_t(outputs));
  h->y.resize(size_t(outputs));
  p.x = h->x.data(), p.dy = h->dy.data();
  PoolArgs& a = h->a;
  a.B = l.B, a.H = a.W = l.H, a.C = a.ldx = a.ldy = a.lddx = l.C, a.P = a.Q = p.P();
  a.pool_h = a.pool_w = l.window, a.stride_h = a.stride_w = l.stride, a.pad_top = a.pad_left = l.pad;
  a.x = h->x.data(), a.y = h->y.data(), a.argmax = l.max ? h->places.data() : nullptr;
  using Run = void (*)(const PoolArgs&, const Stream&);
  Run run = l.max ? Run(max_pool2d) : Run(avg_pool2d);
  if (grad) {
    run(a, h->memory.stream());
    h->y.resize(h->x.size());
    a.x = h->dy.data(), a.dx = h->y.data(), a.taken = l.max ? h->places.data() : nullptr;
    run = l.max ? Run(max_pool2d_grad) : Run(avg_pool2d_grad);
  }
  Work w;
  w.dagrt = {"dagrt", [h, run] { run(h->a, h->memory.stream()); }, [h] { return copy(h->y.data(), int64_t(h->y.size())); }};
  w.peers = peers(grad ? &Framework::pool2d_grad : &Framework::pool2d, p);
  const double inside = 4.0 * double(h->x.size()), outside = 4.0 * double(outputs) * (l.max ? 2 : 1);
  w.read = grad ? outside : inside, w.written = grad ? inside : outside;
  return w;
}

}  // namespace

void add_rows() {
  const Case cases[] = {{"detector", true, 1, 222, 64, 2, 2, 0},  {"detector", true, 8, 222, 64, 2, 2, 0},
                        {"detector", true, 8, 109, 128, 2, 2, 0}, {"resnet", true, 4, 112, 64, 2, 2, 0},
                        {"resnet50", true, 4, 112, 64, 3, 2, 1},  {"inception", true, 4, 56, 256, 3, 1, 1},
                        {"lenet", false, 32, 28, 16, 2, 2, 0},    {"densenet", false, 8, 56, 128, 2, 2, 0}};
  for (bool grad : {false, true})
    for (const Case& c : cases)
      add_row(std::string(grad ? "gradient" : "forward") + "/" + c.model + (c.max ? " maximum " : " mean ") +
                  std::to_string(c.B) + "x" + std::to_string(c.H) + "x" + std::to_string(c.H) + "x" + std::to_string(c.C) + ", " +
                  std::to_string(c.window) + "x" + std::to_string(c.window) + " stride " + std::to_string(c.stride),
              [=] { return layer(c, grad); });
}

}  // namespace bench
