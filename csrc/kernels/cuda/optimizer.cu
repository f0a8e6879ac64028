// Optimiser updates: one pass over all variables, 32 to a launch, a row of the grid for each. The learning rate and the step are
// read from device memory. The equations are those of kernels/cpu/optimizer.cpp.
#include "kernels/optimizer.h"

#include "kernels/cuda/common.cuh"

namespace dagrt {
namespace {

constexpr int threads = 256;

enum class Rule { sgd, momentum, adam, rmsprop };

constexpr int most_items = 32;
struct Items {
  UpdateItem item[most_items];
};

struct Constants {
  float lr, decay, beta_1, beta_2, rest_1, rest_2, epsilon;
  bool nesterov;
};

template <Rule rule> DAGRT_DEVICE void step(const Constants& c, float& w, float& m, float& v, float g) {
  w = w - w * c.decay;
  if constexpr (rule == Rule::sgd) w = w - c.lr * g;
  if constexpr (rule == Rule::momentum) {
    m = c.beta_1 * m - c.lr * g;
    w = c.nesterov ? w + (c.beta_1 * m - c.lr * g) : w + m;
  }
  if constexpr (rule == Rule::adam) {
    m = m + (g - m) * c.rest_1;
    v = v + (g * g - v) * c.rest_2;
    w = w - m * c.lr / (sqrtf(v) + c.epsilon);
  }
  if constexpr (rule == Rule::rmsprop) {
    v = c.beta_2 * v + c.rest_2 * (g * g);
    w = w - c.lr * g / sqrtf(v + c.epsilon);
  }
}

template <Rule rule, class T> __global__ void __launch_bounds__(threads) update_kernel(Gate gate, UpdateArgs a, Items items) {
  if (closed(gate)) return;
  constexpr bool has_m = rule == Rule::momentum || rule == Rule::adam, has_v = rule == Rule::adam || rule == Rule::rmsprop;
  Constants c;
  c.lr = *a.lr_at;
  c.decay = float(a.weight_decay) * c.lr;
  c.beta_1 = float(a.beta_1), c.beta_2 = float(a.beta_2);
  c.rest_1 = float(1 - a.beta_1), c.rest_2 = float(1 - a.beta_2);
  c.epsilon = a.epsilon, c.nesterov = a.nesterov;
  if constexpr (rule == Rule::adam) {  // the bias corrections, in double as on the CPU: one thread's work
    SHARED(float, corrected, [1]);
    if (threadIdx.x == 0) {
      double t = double(*a.step_at) + 1;
      corrected[0] = float(double(c.lr) * sqrt(-expm1(t * log(a.beta_2))) / -expm1(t * log(a.beta_1)));
    }
    __syncthreads();
    c.lr = corrected[0];
  }
  const UpdateItem& t = items.item[blockIdx.y];
  const T *var = static_cast<const T*>(t.var), *in_m = static_cast<const T*>(t.m), *in_v = static_cast<const T*>(t.v);
  const T* grad = static_cast<const T*>(t.grad);
  T *out = static_cast<T*>(t.var_out), *out_m = static_cast<T*>(t.m_out), *out_v = static_cast<T*>(t.v_out);
  for (int64_t i = first_index(); i < t.n; i += grid_stride()) {
    float w = widen(var[i]), m = has_m ? widen(in_m[i]) : 0, v = has_v ? widen(in_v[i]) : 0;
    step<rule>(c, w, m, v, widen(grad[i]));
    narrow(w, out[i]);
    if constexpr (has_m) narrow(m, out_m[i]);
    if constexpr (has_v) narrow(v, out_v[i]);
  }
}

template <Rule rule> void update(const char* name, const UpdateArgs& a, CudaStream& s) {
  for (int64_t from = 0; from < a.count; from += most_items) {
    Items items{};
    int64_t count = smaller(most_items, a.count - from), largest = 0;
    for (int64_t i = 0; i < count; i++) {
      items.item[i] = a.items[from + i];
      largest = larger(largest, items.item[i].n);
    }
    if (largest == 0) continue;
    const dim3 grid(blocks_for(s, largest, threads), unsigned(count));
    if (a.dtype == DType::bfloat16)
      launch(s, name, update_kernel<rule, Bf16>, grid, threads, a, items);
    else if (a.dtype == DType::float16)
      launch(s, name, update_kernel<rule, Half>, grid, threads, a, items);
    else
      launch(s, name, update_kernel<rule, float>, grid, threads, a, items);
  }
}

}  // namespace

void sgd_update(const UpdateArgs& a, CudaStream& s) { update<Rule::sgd>("sgd_update", a, s); }
void momentum_update(const UpdateArgs& a, CudaStream& s) { update<Rule::momentum>("momentum_update", a, s); }
void adam_update(const UpdateArgs& a, CudaStream& s) { update<Rule::adam>("adam_update", a, s); }
void rmsprop_update(const UpdateArgs& a, CudaStream& s) { update<Rule::rmsprop>("rmsprop_update", a, s); }

}  // namespace dagrt
