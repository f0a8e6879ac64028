// Random numbers from Philox 4x32-10: a function of (seed, counter), the call's stream and the step of a scan.
// `state` is int64 [2]: seed and counter; `step` an int32 scalar, 0 where it is absent.
#include "kernels/random.h"

#include "ops/registry.h"

namespace dagrt {
namespace {

struct RandomAttrs {
  Dims shape;
  int64_t stream = 0;
  template <class V> void visit(V& v) {
    v("shape", shape);
    v("stream", stream);
  }
};

TensorType drawn(const InferContext& c, DType t) {
  const auto& a = c.attrs<RandomAttrs>();
  const TensorType& state = c.in[0];
  if (state.dtype != DType::int64 || state.rank() != 1 || (state.shape[0].known() && !state.shape[0].is(2)))
    c.fail(ErrorKind::dtype, "the state must be int64 (2,): seed and counter, got ", state.text());
  if (c.in.size() > 1 && !c.in[1].absent && (c.in[1].dtype != DType::int32 || c.in[1].rank() != 0))
    c.fail(ErrorKind::dtype, "the step must be an int32 scalar, got ", c.in[1].text());
  if (a.stream < 0 || a.stream > int64_t(UINT32_MAX)) c.fail(ErrorKind::value, "stream must lie in [0, 2^32), got ", a.stream);
  for (const Dim& d : a.shape)
    if (d.known() && d.value() < 0) c.fail(ErrorKind::shape, "sizes must not be negative, got ", text(a.shape));
  Dim n = product(a.shape);
  if (n.known() && n.value() > int64_t(1) << 34)
    c.fail(ErrorKind::shape, "one call draws at most 2^34 numbers, got ", n.text(), "; use several calls");
  return {t, a.shape};
}

RandomArgs arguments(const RunContext& c) {
  RandomArgs a;
  a.out = c.out[0].data;
  a.n = c.out[0].elements();
  a.stream = uint32_t(c.attrs<RandomAttrs>().stream);
  a.state_at = c.in[0].as<int64_t>();
  a.step_at = c.inputs > 1 ? c.in[1].as<int32_t>() : nullptr;
  if (c.stream.cuda) return a;
  a.seed = uint64_t(a.state_at[0]);
  a.counter = uint32_t(a.state_at[1]);
  a.step = a.step_at ? uint32_t(*a.step_at) : 0;
  return a;
}

Types infer_float(const InferContext& c) { return {drawn(c, DType::float32)}; }
Types infer_bits(const InferContext& c) { return {drawn(c, DType::int32)}; }

void run_uniform(const RunContext& c) { random_uniform(arguments(c), c.stream); }
void run_normal(const RunContext& c) { random_normal(arguments(c), c.stream); }
void run_bits(const RunContext& c) { random_bits(arguments(c), c.stream); }

Cost cost(const void*, const Types&, const Types& out) {
  double n = double(out[0].elements());
  return {n * 40, n * 4};
}

void add(Registry& r, const char* name, const char* equation, Types (*infer)(const InferContext&),
         void (*run)(const RunContext&)) {
  Op o;
  o.name = name;
  o.equation = equation;
  o.attrs = attr_type<RandomAttrs>();
  o.min_inputs = 1;
  o.max_inputs = 2;
  o.infer = infer;
  o.run = run;
  o.cost = cost;
  o.random = true;
  r.add(std::move(o));
}

}  // namespace

void register_random(Registry& r) {
  add(r, "random_uniform", "y = (philox words >> 8) 2^-24, in [0, 1)", infer_float, run_uniform);
  add(r, "random_normal", "y = Box-Muller on pairs of philox words", infer_float, run_normal);
  add(r, "random_bits", "y = philox words", infer_bits, run_bits);
}

}  // namespace dagrt
