// What reference frameworks are asked to compute, in plain terms: arrays as dagrt has them (channels last, weights [R,S,C,F],
// gates i f g o), each converted to the framework's own best layout beforehand, untimed. An empty Side: it has no such thing.
// peers_x.cpp is compiled where CMake finds x; each registers itself.
#pragma once
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "harness.h"

namespace bench {

struct Matmul {  // c[M,N] = relu(a[M,K] b[K,N] + bias[N])
  int64_t M, K, N;
  const float *a, *b, *bias;
};

struct Conv {  // y[B,P,P,F] = relu(x[B,H,H,C] * w[R,R,C/groups,F] + bias[F]); gradients of the convolution alone
  int64_t B, H, C, F, R, stride, pad, groups;
  const float *x, *w, *bias, *dy;
  int64_t P() const { return (H + 2 * pad - R) / stride + 1; }
};

struct Lstm {
  int64_t B, T, C, U;
  const float *x, *kernel, *recurrent, *bias;  // [B,T,C], [C,4U], [U,4U], [4U]
  const float* dh;                             // [B,U], of the last state
};

struct BatchNorm {  // y = relu(gamma (x - mean) / sqrt(variance + epsilon) + beta); the gradient without relu
  int64_t B, H, C;
  const float *x, *gamma, *beta, *dy;
  float epsilon;
};

struct Pool {
  bool max;
  int64_t B, H, C, window, stride, pad;
  const float *x, *dy;
  int64_t P() const { return (H + 2 * pad - window) / stride + 1; }
};

struct Softmax {
  int64_t N, C;
  const float* x;
  const int32_t* labels;
};

struct Pointwise {
  std::string f;  // relu, exp, tanh, sigmoid, erf, add
  int64_t n;
  const float *a, *b;
};

struct Update {  // one step of Adam, or of SGD with momentum, over `count` variables of n elements each
  bool adam;
  int64_t count, n;
  const float *var, *m, *v, *grad;  // of all, one after another
  float lr, beta_1, beta_2, epsilon;
};

class Framework {
 public:
  virtual ~Framework() = default;
  virtual std::string describe() const = 0;  // name and version
  virtual void set_threads(int n) = 0;
  virtual Side matmul(const Matmul&) { return {}; }
  virtual Side conv2d(const Conv&) { return {}; }
  virtual Side conv2d_input_grad(const Conv&) { return {}; }
  virtual Side conv2d_filter_grad(const Conv&) { return {}; }
  virtual Side lstm(const Lstm&) { return {}; }
  virtual Side lstm_train(const Lstm&) { return {}; }  // forward and backward; the result is dx
  virtual Side batch_norm(const BatchNorm&) { return {}; }
  virtual Side batch_norm_grad(const BatchNorm&) { return {}; }
  virtual Side pool2d(const Pool&) { return {}; }
  virtual Side pool2d_grad(const Pool&) { return {}; }
  virtual Side softmax(const Softmax&) { return {}; }
  virtual Side cross_entropy(const Softmax&) { return {}; }  // loss and gradient; the result is dx of the summed loss
  virtual Side pointwise(const Pointwise&) { return {}; }
  virtual Side update(const Update&) { return {}; }  // the result is var after the first step
};

std::vector<std::unique_ptr<Framework>>& frameworks();

template <class F> struct Register {
  Register() { frameworks().push_back(std::make_unique<F>()); }
};

/// That layer by all of them.
template <class P> std::vector<Side> peers(Side (Framework::*layer)(const P&), const P& problem) {
  std::vector<Side> all;
  for (auto& f : frameworks()) {
    try {
      all.push_back((f.get()->*layer)(problem));
    } catch (const std::exception& e) {
      all.push_back({f->describe(), [text = std::string(e.what())] { throw std::runtime_error(text); }, {}});
    }
  }
  return all;
}

}  // namespace bench
