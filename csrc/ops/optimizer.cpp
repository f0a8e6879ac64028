// Optimiser updates: one pass over variable, slots and gradient, in place where the plan allows it; and the same over many
// variables at once, as the pass join_updates makes them: one hand-over to the threads instead of one for each variable.
// `lr` is a float32 scalar; weight decay comes first: var -= var * weight_decay * lr.
#include "kernels/optimizer.h"

#include <cmath>
#include <map>

#include "ops/optimizer.h"
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

// An op over one variable and its twin over many differ in their inputs alone:
//   x_update      var, slots.., grad, lr(, step)                -> var', slots'..
//   x_update_all  lr(, step), then var, slots.., grad of each   -> var', slots'.. of each
struct Form {
  int states;  // the variable and its slots
  bool m, v;   // which slots
  bool step;   // adam's
  bool all;
  int scalars() const { return 1 + step; }
};

UpdateArgs arguments(const RunContext& c, const Form& f, double weight_decay, UpdateItem* items) {
  UpdateArgs a;
  const int each = f.states + 1, first = f.all ? f.scalars() : 0;
  a.count = f.all ? (c.inputs - first) / each : 1;
  for (int64_t i = 0; i < a.count; i++) {
    const View *in = c.in + first + i * each, *out = c.out + i * f.states;
    UpdateItem t;
    t.n = in->elements();
    t.var = in[0].data, t.var_out = out[0].data;
    if (f.m) t.m = in[1].data, t.m_out = out[1].data;
    if (f.v) t.v = in[f.states - 1].data, t.v_out = out[f.states - 1].data;
    t.grad = in[f.states].data;
    items[i] = t;
  }
  a.items = items;
  a.units = count_units(items, a.count);
  a.dtype = c.in[first].dtype;
  a.lr_at = c.in[f.all ? 0 : each].as<float>();
  a.weight_decay = weight_decay;
  if (c.stream.cuda) return a;
  a.lr = *a.lr_at;
  a.decay = float(weight_decay) * a.lr;
  return a;
}

/// Calls f(arguments) with memory for their items: the workspace, or the stack for one.
template <class F> void with_items(const RunContext& c, const Form& form, double weight_decay, const F& f) {
  UpdateItem one;
  std::vector<UpdateItem> items;  // where the workspace is a device's: once, while the run is recorded
  if (form.all && c.stream.cuda) items.resize(size_t(c.outputs / form.states));
  f(arguments(c, form, weight_decay, !form.all ? &one : c.stream.cuda ? items.data() : static_cast<UpdateItem*>(c.workspace)));
}

template <int states> Types infer_all(const InferContext& c, bool step) {
  const size_t first = 1 + step, each = states + 1;
  if (c.in.size() <= first || (c.in.size() - first) % each)
    c.fail(ErrorKind::graph, "expected ", first, " scalars and then ", each, " inputs for each variable, got ", c.in.size());
  Types out;
  for (size_t i = first; i < c.in.size(); i += each) {
    Types one(c.in.begin() + int64_t(i), c.in.begin() + int64_t(i + each));
    if (one[0].dtype != c.in[first].dtype)
      c.fail(ErrorKind::dtype, "all variables must be of one type, got ", name_of(c.in[first].dtype), " and ",
             name_of(one[0].dtype));
    one.insert(one.end(), c.in.begin(), c.in.begin() + int64_t(first));
    Types states_of = infer_update({c.op, one, c.attrs_}, states);
    out.insert(out.end(), states_of.begin(), states_of.end());
  }
  return out;
}

template <int states> Memory memory_all(const void*, const Types&, const Types& out) {
  return {out.size() / states * sizeof(UpdateItem), 0};
}

// --- sgd_update: var' = var - lr g

struct SgdAttrs {
  double weight_decay = 0;
  template <class V> void visit(V& v) { v("weight_decay", weight_decay, 0.0); }
};

template <bool all> void run_sgd(const RunContext& c) {
  with_items(c, {1, false, false, false, all}, c.attrs<SgdAttrs>().weight_decay,
             [&](const UpdateArgs& a) { sgd_update(a, c.stream); });
}

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

template <bool all> void run_momentum(const RunContext& c) {
  const auto& p = c.attrs<MomentumAttrs>();
  with_items(c, {2, true, false, false, all}, p.weight_decay, [&](UpdateArgs a) {
    a.beta_1 = p.momentum;
    a.nesterov = p.nesterov;
    momentum_update(a, c.stream);
  });
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

template <bool all> void run_adam(const RunContext& c) {
  const auto& p = c.attrs<AdamAttrs>();
  with_items(c, {3, true, true, true, all}, p.weight_decay, [&](UpdateArgs a) {
    a.step_at = c.in[all ? 1 : 5].as<int32_t>();
    if (!c.stream.cuda) {
      double t = double(*a.step_at) + 1;
      // 1 - b^t without cancellation: for b = 0.9999 and t = 1 float32 powers would lose half of the digits.
      double rest_1 = -std::expm1(t * std::log(p.beta_1)), rest_2 = -std::expm1(t * std::log(p.beta_2));
      a.lr = float(double(a.lr) * std::sqrt(rest_2) / rest_1);
    }
    a.beta_1 = p.beta_1;
    a.beta_2 = p.beta_2;
    a.epsilon = float(p.epsilon);
    adam_update(a, c.stream);
  });
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

template <bool all> void run_rmsprop(const RunContext& c) {
  const auto& p = c.attrs<RmspropAttrs>();
  with_items(c, {2, false, true, false, all}, p.weight_decay, [&](UpdateArgs a) {
    a.beta_2 = p.rho;
    a.epsilon = float(p.epsilon);
    rmsprop_update(a, c.stream);
  });
}

/// Both forms of an update.
template <int states>
void add(Registry& r, const char* name, const char* equation, AttrType attrs, bool step, void (*run)(const RunContext&),
         void (*run_all)(const RunContext&)) {
  Op o;
  o.name = name;
  o.equation = equation;
  o.attrs = attrs;
  o.min_inputs = o.max_inputs = states + 2 + step;
  o.infer = [](const InferContext& c) { return infer_update(c, states); };
  o.run = run;
  for (int i = 0; i < states; i++) o.in_place.emplace_back(i, i);
  o.not_differentiable = "an optimiser's update has no gradient; compose it from pointwise ops to differentiate through it";
  r.add(o);

  o.name += "_all";
  o.equation += ", over many variables";
  o.min_inputs = 1 + step + states + 1;
  o.max_inputs = -1;
  o.infer = step ? [](const InferContext& c) { return infer_all<states>(c, true); }
                 : [](const InferContext& c) { return infer_all<states>(c, false); };
  o.run = run_all;
  o.memory = memory_all<states>;
  o.in_place.clear();
  for (int k = 0; k < update_most; k++)
    for (int i = 0; i < states; i++) o.in_place.emplace_back(1 + step + k * (states + 1) + i, k * states + i);
  r.add(std::move(o));
}

}  // namespace

const Update* find_update(const Op& op) {
  static const std::map<const Op*, Update> all = [] {
    std::map<const Op*, Update> m;
    for (const char* name : {"sgd_update", "momentum_update", "adam_update", "rmsprop_update"}) {
      const Op& one = dagrt::op(name);
      m[&one] = {&dagrt::op(one.name + "_all"), int(one.in_place.size())};
    }
    return m;
  }();
  auto at = all.find(&op);
  return at == all.end() ? nullptr : &at->second;
}

void register_optimizer(Registry& r) {
  add<1>(r, "sgd_update", "var' = var - lr g", attr_type<SgdAttrs>(), false, run_sgd<false>, run_sgd<true>);
  add<2>(r, "momentum_update", "m' = momentum m - lr g; var' = var + m'", attr_type<MomentumAttrs>(), false, run_momentum<false>,
         run_momentum<true>);
  add<3>(r, "adam_update", "var' = var - lr sqrt(1 - b2^t) / (1 - b1^t) m' / (sqrt v' + eps), t = step + 1",
         attr_type<AdamAttrs>(), true, run_adam<false>, run_adam<true>);
  add<2>(r, "rmsprop_update", "v' = rho v + (1 - rho) g^2; var' = var - lr g / sqrt(v' + eps)", attr_type<RmspropAttrs>(), false,
         run_rmsprop<false>, run_rmsprop<true>);
}

}  // namespace dagrt
