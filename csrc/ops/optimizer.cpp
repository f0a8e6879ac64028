// Optimiser updates: one pass over variable, slots and gradient, in place where the plan allows it.
// `lr` is a float32 scalar; weight decay comes first: var -= var * weight_decay * lr.
#include "kernels/optimizer.h"

#include <cmath>

#include "ops/registry.h"

namespace dagrt {
namespace {

// The first `states` inputs (the variable and its slots) and the gradient share type; then lr, and adam's step.
Types infer_update(const InferContext& c, size_t states) {
  const TensorType& var = c.in[0];
  if (!is_float(var.dtype)) c.fail(ErrorKind::dtype, "the variable must be float, got ", name_of(var.dtype));
  Types out(states, var);
  for (size_t i = 1; i <= states; i++) {
    const TensorType& t = c.in[i];
    const char* what = i == states ? "the gradient" : "a slot";
    if (t.dtype != var.dtype)
      c.fail(ErrorKind::dtype, what, " must be ", name_of(var.dtype), " as the variable, got ", name_of(t.dtype), "; cast it");
    bool fits = t.rank() == var.rank();
    for (size_t k = 0; fits && k < var.shape.size(); k++)
      fits = !t.shape[k].known() || !var.shape[k].known() || t.shape[k] == var.shape[k];
    if (!fits) c.fail(ErrorKind::shape, what, " must have the variable's shape ", text(var.shape), ", got ", text(t.shape));
  }
  const TensorType& lr = c.in[states + 1];
  if (lr.dtype != DType::float32 || lr.rank() != 0)
    c.fail(ErrorKind::dtype, "the learning rate must be a float32 scalar, got ", lr.text());
  if (c.in.size() > states + 2 && (c.in[states + 2].dtype != DType::int32 || c.in[states + 2].rank() != 0))
    c.fail(ErrorKind::dtype, "the step must be an int32 scalar, got ", c.in[states + 2].text());
  return out;
}

UpdateArgs arguments(const RunContext& c, int states, double weight_decay) {
  UpdateArgs a;
  a.dtype = c.in[0].dtype;
  a.n = c.in[0].elements();
  a.var = c.in[0].data;
  a.grad = c.in[states].data;
  a.var_out = c.out[0].data;
  a.lr = *c.in[states + 1].as<float>();
  a.decay = float(weight_decay) * a.lr;
  return a;
}

// --- sgd_update: var' = var - lr g

struct SgdAttrs {
  double weight_decay = 0;
  template <class V> void visit(V& v) { v("weight_decay", weight_decay, 0.0); }
};

Types infer_sgd(const InferContext& c) { return infer_update(c, 1); }

void run_sgd(const RunContext& c) { sgd_update(arguments(c, 1, c.attrs<SgdAttrs>().weight_decay), c.stream); }

// --- momentum_update: m' = momentum m - lr g; var' = var + m' (nesterov: var + momentum m' - lr g)

struct MomentumAttrs {
  double momentum = 0;
  bool nesterov = false;
  double weight_decay = 0;
  template <class V> void visit(V& v) {
    v("momentum", momentum);
    v("nesterov", nesterov, false);
    v("weight_decay", weight_decay, 0.0);
  }
};

Types infer_momentum(const InferContext& c) { return infer_update(c, 2); }

void run_momentum(const RunContext& c) {
  const auto& p = c.attrs<MomentumAttrs>();
  UpdateArgs a = arguments(c, 2, p.weight_decay);
  a.m = c.in[1].data;
  a.m_out = c.out[1].data;
  a.beta_1 = p.momentum;
  a.nesterov = p.nesterov;
  momentum_update(a, c.stream);
}

// --- adam_update: m' = b1 m + (1 - b1) g; v' = b2 v + (1 - b2) g^2; t = step + 1;
//     var' = var - lr sqrt(1 - b2^t) / (1 - b1^t) m' / (sqrt v' + eps)

struct AdamAttrs {
  double beta_1 = 0.9, beta_2 = 0.999, epsilon = 1e-7, weight_decay = 0;
  template <class V> void visit(V& v) {
    v("beta_1", beta_1);
    v("beta_2", beta_2);
    v("epsilon", epsilon);
    v("weight_decay", weight_decay, 0.0);
  }
};

Types infer_adam(const InferContext& c) { return infer_update(c, 3); }

void run_adam(const RunContext& c) {
  const auto& p = c.attrs<AdamAttrs>();
  UpdateArgs a = arguments(c, 3, p.weight_decay);
  a.m = c.in[1].data;
  a.v = c.in[2].data;
  a.m_out = c.out[1].data;
  a.v_out = c.out[2].data;
  double t = double(*c.in[5].as<int32_t>()) + 1;
  // 1 - b^t without cancellation: for b = 0.9999 and t = 1 float32 powers would lose half of the digits.
  double rest_1 = -std::expm1(t * std::log(p.beta_1)), rest_2 = -std::expm1(t * std::log(p.beta_2));
  a.lr = float(double(a.lr) * std::sqrt(rest_2) / rest_1);
  a.beta_1 = p.beta_1;
  a.beta_2 = p.beta_2;
  a.epsilon = float(p.epsilon);
  adam_update(a, c.stream);
}

// --- rmsprop_update: v' = rho v + (1 - rho) g^2; var' = var - lr g / sqrt(v' + eps)

struct RmspropAttrs {
  double rho = 0.9, epsilon = 1e-7, weight_decay = 0;
  template <class V> void visit(V& v) {
    v("rho", rho);
    v("epsilon", epsilon);
    v("weight_decay", weight_decay, 0.0);
  }
};

Types infer_rmsprop(const InferContext& c) { return infer_update(c, 2); }

void run_rmsprop(const RunContext& c) {
  const auto& p = c.attrs<RmspropAttrs>();
  UpdateArgs a = arguments(c, 2, p.weight_decay);
  a.v = c.in[1].data;
  a.v_out = c.out[1].data;
  a.beta_2 = p.rho;
  a.epsilon = float(p.epsilon);
  rmsprop_update(a, c.stream);
}

void add(Registry& r, const char* name, const char* equation, AttrType attrs, int states, int inputs,
         Types (*infer)(const InferContext&), void (*run)(const RunContext&)) {
  Op o;
  o.name = name;
  o.equation = equation;
  o.attrs = attrs;
  o.min_inputs = o.max_inputs = inputs;
  o.infer = infer;
  o.run = run;
  for (int i = 0; i < states; i++) o.in_place.emplace_back(i, i);
  o.not_differentiable = "an optimiser's update has no gradient; compose it from pointwise ops to differentiate through it";
  r.add(std::move(o));
}

}  // namespace

void register_optimizer(Registry& r) {
  add(r, "sgd_update", "var' = var - lr g", attr_type<SgdAttrs>(), 1, 3, infer_sgd, run_sgd);
  add(r, "momentum_update", "m' = momentum m - lr g; var' = var + m'", attr_type<MomentumAttrs>(), 2, 4, infer_momentum,
      run_momentum);
  add(r, "adam_update", "var' = var - lr sqrt(1 - b2^t) / (1 - b1^t) m' / (sqrt v' + eps), t = step + 1", attr_type<AdamAttrs>(),
      3, 6, infer_adam, run_adam);
  add(r, "rmsprop_update", "v' = rho v + (1 - rho) g^2; var' = var - lr g / sqrt(v' + eps)", attr_type<RmspropAttrs>(), 2, 4,
      infer_rmsprop, run_rmsprop);
}

}  // namespace dagrt
