// Optimiser updates in one pass over memory (all that bounds them), in float32, V elements at a time:
//   w = var - var decay                         (weight decay, of Keras)
//   sgd       var' = w - lr g
//   momentum  m' = mu m - lr g;  var' = w + m'   (nesterov: w + mu m' - lr g)
//   adam      m' = m + (g - m)(1 - b1);  v' = v + (g^2 - v)(1 - b2);  var' = w - alpha m' / (sqrt v' + eps)
//   rmsprop   v' = rho v + (1 - rho) g^2;  var' = w - lr g / sqrt(v' + eps)
// Keras's forms, so that rounding agrees too. 16-bit floats go through strips of 256 in float32.
#include "kernels/optimizer.h"

#include "kernels/cpu/vec.h"

namespace dagrt::DAGRT_ISA {
namespace {

constexpr int64_t strip = 256;

struct Constants {
  vf lr, decay, beta_1, beta_2, rest_1, rest_2, epsilon;  // rest: 1 - beta
  bool nesterov;
  explicit Constants(const UpdateArgs& a)
      : lr(splat(a.lr)),
        decay(splat(a.decay)),
        beta_1(splat(float(a.beta_1))),
        beta_2(splat(float(a.beta_2))),
        rest_1(splat(float(1 - a.beta_1))),
        rest_2(splat(float(1 - a.beta_2))),
        epsilon(splat(a.epsilon)),
        nesterov(a.nesterov) {}
};

struct Sgd {
  static constexpr bool m = false, v = false;
  static DAGRT_INLINE void step(const Constants& c, vf& w, vf&, vf&, vf g) { w = w - c.lr * g; }
};

struct Momentum {
  static constexpr bool m = true, v = false;
  static DAGRT_INLINE void step(const Constants& c, vf& w, vf& m, vf&, vf g) {
    vf lg = c.lr * g;
    m = c.beta_1 * m - lg;
    w = c.nesterov ? w + (c.beta_1 * m - lg) : w + m;
  }
};

struct Adam {
  static constexpr bool m = true, v = true;
  static DAGRT_INLINE void step(const Constants& c, vf& w, vf& m, vf& v, vf g) {
    m = m + (g - m) * c.rest_1;
    v = v + (g * g - v) * c.rest_2;
    w = w - m * c.lr / (vsqrt(v) + c.epsilon);
  }
};

struct Rmsprop {
  static constexpr bool m = false, v = true;
  static DAGRT_INLINE void step(const Constants& c, vf& w, vf&, vf& v, vf g) {
    v = c.beta_2 * v + c.rest_2 * (g * g);
    w = w - c.lr * g / vsqrt(v + c.epsilon);
  }
};

struct Rows {
  const float *var, *m, *v, *grad;
  float *var_out, *m_out, *v_out;
};

template <class F> void update_floats(const Constants& constants, const Rows& rows, int64_t n) {
  const Constants c = constants;  // by value: behind references they would be loaded again after every store
  const Rows r = rows;
  int64_t i = 0;
#pragma GCC unroll 2
  for (; i + V <= n; i += V) {
    vf w = load(r.var + i), m{}, v{};
    w = w - w * c.decay;
    if (F::m) m = load(r.m + i);
    if (F::v) v = load(r.v + i);
    F::step(c, w, m, v, load(r.grad + i));
    store(r.var_out + i, w);
    if (F::m) store(r.m_out + i, m);
    if (F::v) store(r.v_out + i, v);
  }
  if (i == n) return;
  int k = int(n - i);
  vf w = load_n(r.var + i, k), m{}, v{};
  w = w - w * c.decay;
  if (F::m) m = load_n(r.m + i, k);
  if (F::v) v = load_n(r.v + i, k);
  F::step(c, w, m, v, load_n(r.grad + i, k));
  store_n(r.var_out + i, w, k);
  if (F::m) store_n(r.m_out + i, m, k);
  if (F::v) store_n(r.v_out + i, v, k);
}

template <bool bf16> DAGRT_INLINE void widen(float* to, const void* from, int64_t at, int64_t n) {
  const uint16_t* p = static_cast<const uint16_t*>(from) + at;
  for (int64_t i = 0; i < n; i++) to[i] = bf16 ? bf16_to_float(p[i]) : half_to_float(p[i]);
}
template <bool bf16> DAGRT_INLINE void narrow(void* to, const float* from, int64_t at, int64_t n) {
  uint16_t* p = static_cast<uint16_t*>(to) + at;
  for (int64_t i = 0; i < n; i++) p[i] = bf16 ? float_to_bf16(from[i]) : float_to_half(from[i]);
}

template <class F, bool bf16> void update_halves(const Constants& c, const UpdateItem& a, int64_t from, int64_t end) {
  float w[strip], m[strip], v[strip], g[strip];
  for (; from < end; from += strip) {
    int64_t n = end - from < strip ? end - from : strip;
    widen<bf16>(w, a.var, from, n);
    widen<bf16>(g, a.grad, from, n);
    if (F::m) widen<bf16>(m, a.m, from, n);
    if (F::v) widen<bf16>(v, a.v, from, n);
    update_floats<F>(c, {w, m, v, g, w, m, v}, n);
    narrow<bf16>(a.var_out, w, from, n);
    if (F::m) narrow<bf16>(a.m_out, m, from, n);
    if (F::v) narrow<bf16>(a.v_out, v, from, n);
  }
}

/// The item that unit u belongs to; one without elements has no unit.
const UpdateItem& item_of(const UpdateArgs& a, int64_t u) {
  int64_t low = 0, high = a.count;  // the last whose first unit is not behind u
  while (high - low > 1) {
    int64_t middle = (low + high) / 2;
    (a.items[middle].first <= u ? low : high) = middle;
  }
  return a.items[low];
}

template <class F> void update(const UpdateArgs& a, const Stream& s) {
  const Constants c(a);
  double ns = update_piece * 0.15 * (2 + F::m + F::v);
  s.parallel(a.units, ns, [&](int64_t u, char*) {
    const UpdateItem& t = item_of(a, u);
    int64_t from = (u - t.first) * update_piece, end = from + update_piece < t.n ? from + update_piece : t.n;
    if (a.dtype == DType::bfloat16) return update_halves<F, true>(c, t, from, end);
    if (a.dtype == DType::float16) return update_halves<F, false>(c, t, from, end);
    auto at = [&](const void* p) { return p ? static_cast<const float*>(p) + from : nullptr; };
    auto to = [&](void* p) { return p ? static_cast<float*>(p) + from : nullptr; };
    update_floats<F>(c, {at(t.var), at(t.m), at(t.v), at(t.grad), to(t.var_out), to(t.m_out), to(t.v_out)}, end - from);
  });
}

}  // namespace

void sgd_update(const UpdateArgs& a, const Stream& s) { update<Sgd>(a, s); }
void momentum_update(const UpdateArgs& a, const Stream& s) { update<Momentum>(a, s); }
void adam_update(const UpdateArgs& a, const Stream& s) { update<Adam>(a, s); }
void rmsprop_update(const UpdateArgs& a, const Stream& s) { update<Rmsprop>(a, s); }

}  // namespace dagrt::DAGRT_ISA
