// Pointwise functions, on arrays that stay in L2 and on arrays that come from memory.
#include "kernels/pointwise.h"

#include "peers.h"

using namespace dagrt;

namespace bench {
namespace {

struct Function {
  const char* name;
  Functor f;
  int operands;
  double ns;  // as the op layer passes it: decides from which size threads share the work
};

Work layer(const Function& f, int64_t n) {
  struct Held {
    Floats a, b, y;
    PointwiseArgs args;
    Memory memory;
  };
  auto h = std::make_shared<Held>();
  h->a = values(n, 1, 3), h->y.resize(size_t(n));
  if (f.operands > 1) h->b = values(n, 2, 3);
  PointwiseArgs& k = h->args;
  k.f = f.f, k.operands = f.operands, k.ns = f.ns, k.rank = 1, k.dims[0] = n;
  k.data[0] = h->y.data(), k.data[1] = h->a.data(), k.data[2] = h->b.data();
  for (int i = 0; i < 4; i++) k.strides[i][0] = 1, k.dtype[i] = DType::float32;
  Work w;
  w.dagrt = {"dagrt", [h] { pointwise(h->args, h->memory.stream()); }, [h, n] { return copy(h->y.data(), n); }};
  w.peers = peers(&Framework::pointwise, {f.name, n, h->a.data(), f.operands > 1 ? h->b.data() : nullptr});
  w.read = 4.0 * double(n * f.operands), w.written = 4.0 * double(n);
  return w;
}

}  // namespace

void add_rows() {
  const Function functions[] = {{"relu", Functor::relu_, 1, 0.02},      {"add", Functor::add_, 2, 0.02},
                                {"exp", Functor::exp_, 1, 0.2},         {"tanh", Functor::tanh_, 1, 0.4},
                                {"sigmoid", Functor::sigmoid_, 1, 0.3}, {"erf", Functor::erf_, 1, 0.5}};
  for (const Function& f : functions)
    for (int64_t n : {int64_t(1) << 14, int64_t(1) << 20, int64_t(1) << 24})
      add_row(std::string(f.name) + "/" + std::to_string(n), [=] { return layer(f, n); });
}

}  // namespace bench
