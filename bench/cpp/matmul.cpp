// Dense layers: relu(a b + bias), b packed beforehand where that is what programs do at inference, and the products of
// training with neither side packed.
#include "kernels/matmul.h"

#include "peers.h"

using namespace dagrt;

namespace bench {
namespace {

struct Case {
  int64_t M, K, N;
  const char* model;
};

MatmulPlan plan(const Case& s, bool packed) { return matmul_plan(1, s.M, s.N, s.K, true, packed); }

Work dense(const Case& s, bool packed) {
  struct Held {
    Floats a, b, bias, c, panels;
    MatmulArgs args;
    Memory memory;
    Held(const Case& s, bool packed)
        : a(values(s.M * s.K)),
          b(values(s.K * s.N, 2)),
          bias(values(s.N, 3)),
          c(size_t(s.M * s.N)),
          panels(size_t(packed ? matmul_panel_floats(s.N, s.K) : 0)),
          memory(plan(s, packed).workspace, plan(s, packed).scratch) {
      if (packed) {
        PackMatmulArgs p;
        p.b = b.data(), p.panels = panels.data(), p.N = s.N, p.K = s.K, p.b_row = s.N;
        pack_matmul(p, memory.stream());
        args.panels = panels.data();
      }
      args.a = a.data(), args.b = b.data(), args.c = c.data();
      args.M = s.M, args.N = s.N, args.K = s.K, args.a_row = s.K, args.b_row = args.ldc = s.N;
      args.epilogue.bias = bias.data(), args.epilogue.relu = true;
      args.workspace = memory.workspace();
    }
  };
  auto h = std::make_shared<Held>(s, packed);
  Work w;
  w.dagrt = {"dagrt", [h] { matmul(h->args, h->memory.stream()); }, [h] { return copy(h->c.data(), int64_t(h->c.size())); }};
  w.peers = peers(&Framework::matmul, {s.M, s.K, s.N, h->a.data(), h->b.data(), h->bias.data()});
  w.flops = 2.0 * double(s.M * s.K * s.N);
  w.read = 4.0 * double(s.M * s.K + s.K * s.N + s.N), w.written = 4.0 * double(s.M * s.N);
  return w;
}

}  // namespace

void add_rows() {
  const Case cases[] = {{1, 784, 64, "mlp"},           {32, 784, 64, "mlp"},          {32, 64, 32, "mlp"},
                        {1, 1024, 2048, "wide mlp"},   {32, 1024, 2048, "wide mlp"},  {32, 2048, 2048, "wide mlp"},
                        {1, 2048, 1000, "resnet50"},   {32, 2048, 1000, "resnet50"},  {32, 1280, 1000, "mobilenet"},
                        {32, 256, 10000, "language"},  {64, 512, 512, "transformer"}, {128, 1024, 1024, "transformer"},
                        {512, 512, 512, "transformer"}};
  for (bool packed : {true, false})
    for (const Case& c : cases)
      add_row(std::string(packed ? "packed" : "unpacked") + "/" + c.model + " " + std::to_string(c.M) + " x " +
                  std::to_string(c.K) + " x " + std::to_string(c.N),
              [=] { return dense(c, packed); });
}

}  // namespace bench
