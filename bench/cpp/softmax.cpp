// Softmax over rows, and its cross-entropy with integer labels: loss and gradient.
#include "kernels/softmax.h"

#include "peers.h"

using namespace dagrt;

namespace bench {
namespace {

Work layer(int64_t N, int64_t C, bool loss) {
  struct Held {
    Floats x, y, losses, log_z, g;
    std::vector<int32_t> labels;
    SoftmaxArgs s;
    CrossEntropyArgs c;
    CrossEntropyGradArgs d;
    Memory memory;
  };
  auto h = std::make_shared<Held>();
  h->x = values(N * C, 1, 4), h->y.resize(h->x.size()), h->g.assign(size_t(N), 1.0f);
  h->losses.resize(size_t(N)), h->log_z.resize(size_t(N));
  for (int64_t i = 0; i < N; i++) h->labels.push_back(int32_t(i * 7919 % C));
  h->s.x = h->x.data(), h->s.y = h->y.data(), h->s.N = N, h->s.C = h->s.ldx = h->s.ldy = C;
  h->c.x = h->x.data(), h->c.labels = h->labels.data(), h->c.loss = h->losses.data(), h->c.log_z = h->log_z.data();
  h->c.N = N, h->c.C = h->c.ldx = h->c.ldl = C;
  h->d.x = h->x.data(), h->d.labels = h->labels.data(), h->d.log_z = h->log_z.data(), h->d.g = h->g.data();
  h->d.dx = h->y.data(), h->d.N = N, h->d.C = h->d.ldx = h->d.ldl = h->d.ldd = C;
  const Softmax p{N, C, h->x.data(), h->labels.data()};
  Work w;
  auto result = [h] { return copy(h->y.data(), int64_t(h->y.size())); };
  if (loss) {
    w.dagrt = {"dagrt",
               [h] {
                 softmax_cross_entropy(h->c, h->memory.stream());
                 softmax_cross_entropy_grad(h->d, h->memory.stream());
               },
               result};
    w.peers = peers(&Framework::cross_entropy, p);
  } else {
    w.dagrt = {"dagrt", [h] { softmax(h->s, h->memory.stream()); }, result};
    w.peers = peers(&Framework::softmax, p);
  }
  w.read = 4.0 * double(N * C), w.written = 4.0 * double(N * C), w.read_passes = loss ? 2 : 1;
  return w;
}

}  // namespace

void add_rows() {
  const int64_t sizes[][2] = {{32, 10}, {32, 1000}, {512, 1000}, {32, 10000}, {2048, 10000}, {4096, 512}};
  for (bool loss : {false, true})
    for (const auto& s : sizes)
      add_row(std::string(loss ? "cross-entropy" : "softmax") + "/" + std::to_string(s[0]) + " x " + std::to_string(s[1]),
              [n = s[0], c = s[1], loss] { return layer(n, c, loss); });
}

}  // namespace bench
