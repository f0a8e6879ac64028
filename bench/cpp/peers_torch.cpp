// libtorch: ATen's operators as PyTorch's own modules call them; images in channels_last memory, inference without autograd.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <torch/version.h>

#include "peers.h"

namespace bench {
namespace {

using at::Tensor;
using Holder = std::shared_ptr<Tensor>;

Tensor array(const float* data, std::vector<int64_t> shape) {
  return at::from_blob(const_cast<float*>(data), shape, at::kFloat).clone();
}
/// [B,H,W,C] as NCHW in channels_last memory.
Tensor image(const float* data, int64_t B, int64_t H, int64_t W, int64_t C) {
  return array(data, {B, H, W, C}).permute({0, 3, 1, 2});
}
std::vector<float> floats(const Tensor& t) {
  Tensor c = t.contiguous();
  return copy(c.data_ptr<float>(), c.numel());
}
std::vector<float> image_floats(const Tensor& t) { return floats(t.permute({0, 2, 3, 1})); }

/// A side whose last result is kept, so that its memory is reused only by the next call, as in a program.
template <class F> Side side(const F& f, std::vector<float> (*read)(const Tensor&) = floats) {
  Holder y = std::make_shared<Tensor>();
  return {"torch",
          [y, f] {
            c10::InferenceMode inference;
            *y = f();
          },
          [y, read] { return read(*y); }};
}

struct ConvTensors {
  Tensor x, w, bias, dy;
  std::vector<int64_t> stride, pad, one{1, 1};
  int64_t groups;
  explicit ConvTensors(const Conv& c)
      : x(image(c.x, c.B, c.H, c.H, c.C)),
        w(array(c.w, {c.R, c.R, c.C / c.groups, c.F}).permute({3, 2, 0, 1}).contiguous(at::MemoryFormat::ChannelsLast)),
        stride{c.stride, c.stride},
        pad{c.pad, c.pad},
        groups(c.groups) {
    if (c.bias) bias = array(c.bias, {c.F});
    if (c.dy) dy = image(c.dy, c.B, c.P(), c.P(), c.F);
  }
  std::tuple<Tensor, Tensor, Tensor> backward(bool dx) const {
    return at::convolution_backward(dy, x, w, at::OptionalIntArrayRef(), stride, pad, one, false, std::vector<int64_t>{0, 0},
                                    groups, {dx, !dx, false});
  }
};

class Torch : public Framework {
 public:
  std::string describe() const override { return "torch " TORCH_VERSION; }
  void set_threads(int n) override {
    at::set_num_threads(n);
    at::globalContext().setFlushDenormal(true);
  }

  Side matmul(const Matmul& m) override {
    Tensor a = array(m.a, {m.M, m.K}), w = array(m.b, {m.K, m.N}).t().contiguous(), bias = array(m.bias, {m.N});
    return side([=] { return at::linear(a, w, bias).relu_(); });
  }

  Side conv2d(const Conv& c) override {
    auto t = std::make_shared<ConvTensors>(c);
    return side([t] { return at::conv2d(t->x, t->w, t->bias, t->stride, t->pad, t->one, t->groups).relu_(); }, image_floats);
  }
  Side conv2d_input_grad(const Conv& c) override {
    auto t = std::make_shared<ConvTensors>(c);
    return side([t] { return std::get<0>(t->backward(true)); }, image_floats);
  }
  Side conv2d_filter_grad(const Conv& c) override {
    auto t = std::make_shared<ConvTensors>(c);
    return side([t] { return std::get<1>(t->backward(false)); },
                [](const Tensor& dw) { return floats(dw.permute({2, 3, 1, 0})); });
  }

  Side lstm(const Lstm& l) override {
    auto [x, hx, params] = lstm_tensors(l);
    return side([=] { return std::get<1>(at::lstm(x, hx, params, true, 1, 0.0, false, false, true)); });
  }
  Side lstm_train(const Lstm& l) override {
    auto [x, hx, params] = lstm_tensors(l);
    Tensor dh = array(l.dh, {1, l.B, l.U});
    x.requires_grad_();
    for (Tensor& p : params) p.requires_grad_();
    return {"torch",
            [=] {
              for (const Tensor* t : {&x, &params[0], &params[1], &params[2], &params[3]}) t->mutable_grad().reset();
              std::get<1>(at::lstm(x, hx, params, true, 1, 0.0, true, false, true)).backward(dh);
            },
            [=] { return floats(x.grad()); }};
  }

  Side batch_norm(const BatchNorm& b) override {
    Tensor x = image(b.x, b.B, b.H, b.H, b.C), gamma = array(b.gamma, {b.C}), beta = array(b.beta, {b.C});
    return side(
        [=, e = double(b.epsilon)] { return std::get<0>(at::native_batch_norm(x, gamma, beta, {}, {}, true, 0.1, e)).relu_(); },
        image_floats);
  }
  Side batch_norm_grad(const BatchNorm& b) override {
    Tensor x = image(b.x, b.B, b.H, b.H, b.C), gamma = array(b.gamma, {b.C}), dy = image(b.dy, b.B, b.H, b.H, b.C);
    auto [y, mean, rstd] = at::native_batch_norm(x, gamma, gamma, {}, {}, true, 0.1, double(b.epsilon));
    return side(
        [=, e = double(b.epsilon), mean = mean, rstd = rstd] {
          return std::get<0>(at::native_batch_norm_backward(dy, x, gamma, {}, {}, mean, rstd, true, e, {true, true, true}));
        },
        image_floats);
  }

  Side pool2d(const Pool& p) override {
    Tensor x = image(p.x, p.B, p.H, p.H, p.C);
    std::vector<int64_t> window{p.window, p.window}, stride{p.stride, p.stride}, pad{p.pad, p.pad};
    if (p.max) return side([=] { return std::get<0>(at::max_pool2d_with_indices(x, window, stride, pad)); }, image_floats);
    return side([=] { return at::avg_pool2d(x, window, stride, pad, false, false); }, image_floats);
  }
  Side pool2d_grad(const Pool& p) override {
    Tensor x = image(p.x, p.B, p.H, p.H, p.C), dy = image(p.dy, p.B, p.P(), p.P(), p.C);
    std::vector<int64_t> window{p.window, p.window}, stride{p.stride, p.stride}, pad{p.pad, p.pad}, one{1, 1};
    if (!p.max) return side([=] { return at::avg_pool2d_backward(dy, x, window, stride, pad, false, false, {}); }, image_floats);
    Tensor at_most = std::get<1>(at::max_pool2d_with_indices(x, window, stride, pad));
    return side([=] { return at::max_pool2d_with_indices_backward(dy, x, window, stride, pad, one, false, at_most); },
                image_floats);
  }

  Side softmax(const Softmax& s) override {
    Tensor x = array(s.x, {s.N, s.C});
    return side([=] { return at::_softmax(x, 1, false); });
  }
  Side cross_entropy(const Softmax& s) override {
    Tensor x = array(s.x, {s.N, s.C}), one = at::ones({});
    Tensor labels = at::from_blob(const_cast<int32_t*>(s.labels), {s.N}, at::kInt).to(at::kLong);
    return side([=] {
      Tensor log = at::_log_softmax(x, 1, false);
      auto [loss, weight] = at::nll_loss_forward(log, labels, {}, at::Reduction::Sum, -100);
      Tensor d = at::nll_loss_backward(one, log, labels, {}, at::Reduction::Sum, -100, weight);
      return at::_log_softmax_backward_data(d, log, 1, at::kFloat);
    });
  }

  Side pointwise(const Pointwise& p) override {
    Tensor a = array(p.a, {p.n}), b = p.b ? array(p.b, {p.n}) : Tensor(), y = at::empty({p.n});
    auto into = [&](void (*f)(Tensor&, const Tensor&, const Tensor&)) {
      return side([=] {
        Tensor to = y;
        f(to, a, b);
        return to;
      });
    };
    if (p.f == "relu") return into([](Tensor& to, const Tensor& x, const Tensor&) { at::clamp_min_out(to, x, 0); });
    if (p.f == "exp") return into([](Tensor& to, const Tensor& x, const Tensor&) { at::exp_out(to, x); });
    if (p.f == "tanh") return into([](Tensor& to, const Tensor& x, const Tensor&) { at::tanh_out(to, x); });
    if (p.f == "sigmoid") return into([](Tensor& to, const Tensor& x, const Tensor&) { at::sigmoid_out(to, x); });
    if (p.f == "erf") return into([](Tensor& to, const Tensor& x, const Tensor&) { at::erf_out(to, x); });
    if (p.f == "add") return into([](Tensor& to, const Tensor& x, const Tensor& z) { at::add_out(to, x, z); });
    return {};
  }

  Side update(const Update& u) override {
    std::vector<Tensor> var = split(u.var, u), m = split(u.m, u), v = split(u.v, u), grad = split(u.grad, u), step;
    for (int64_t i = 0; i < u.count; i++) step.push_back(at::ones({}));
    auto read = [var] { return floats(at::cat(var)); };
    if (u.adam)
      return {"torch",
              [=]() mutable {
                c10::InferenceMode inference;
                at::_fused_adam_(var, grad, m, v, {}, step, double(u.lr), double(u.beta_1), double(u.beta_2), 0.0,
                                 double(u.epsilon), false, false);
              },
              read};
    return {"torch",
            [=]() mutable {
              c10::InferenceMode inference;
              at::_fused_sgd_(var, grad, m, 0.0, double(u.beta_1), double(u.lr), 0.0, false, false, false);
            },
            read};
  }

 private:
  static std::vector<Tensor> split(const float* from, const Update& u) {
    std::vector<Tensor> all;
    for (int64_t i = 0; i < u.count && from; i++) all.push_back(array(from + i * u.n, {u.n}));
    return all;
  }
  static std::tuple<Tensor, std::vector<Tensor>, std::vector<Tensor>> lstm_tensors(const Lstm& l) {
    std::vector<Tensor> state{at::zeros({1, l.B, l.U}), at::zeros({1, l.B, l.U})};
    std::vector<Tensor> params{array(l.kernel, {l.C, 4 * l.U}).t().contiguous(),
                               array(l.recurrent, {l.U, 4 * l.U}).t().contiguous(), array(l.bias, {4 * l.U}),
                               at::zeros({4 * l.U})};
    return {array(l.x, {l.B, l.T, l.C}), state, params};
  }
};

Register<Torch> here;

}  // namespace
}  // namespace bench
