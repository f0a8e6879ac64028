// oneDNN (version 3): activations channels last as dagrt has them, weights in the order that the primitive asks for.
#include <dnnl.hpp>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "peers.h"

namespace bench {
namespace {

using namespace dnnl;
using md = memory::desc;
using tag = memory::format_tag;
constexpr auto f32 = memory::data_type::f32;
using Arguments = std::unordered_map<int, memory>;

engine& cpu() {
  static engine e(engine::kind::cpu, 0);
  return e;
}
stream& queue() {
  static stream s(cpu());
  return s;
}

memory array(const float* data, const md& like) {
  memory m(like, cpu());
  std::copy(data, data + like.get_size() / 4, static_cast<float*>(m.get_data_handle()));
  return m;
}
/// In the order that a primitive wants.
memory reordered(memory from, const md& to) {
  if (from.get_desc() == to) return from;
  memory m(to, cpu());
  reorder(from, m).execute(queue(), from, m);
  queue().wait();
  return m;
}
std::vector<float> floats(const memory& m, int64_t n) { return copy(static_cast<const float*>(m.get_data_handle()), n); }

Side side(const primitive& p, const Arguments& args, std::function<std::vector<float>()> result) {
  return {"onednn",
          [=] {
            p.execute(queue(), args);
            queue().wait();
          },
          std::move(result)};
}

primitive_attr with_relu() {
  post_ops ops;
  ops.append_eltwise(algorithm::eltwise_relu, 0, 0);
  primitive_attr attr;
  attr.set_post_ops(ops);
  return attr;
}

struct ConvDescs {
  md x, w, any_w, y, bias, plain_w;
  memory::dims strides, pads;
  explicit ConvDescs(const Conv& c) : strides{c.stride, c.stride}, pads{c.pad, c.pad} {
    const memory::dims sizes =
        c.groups > 1 ? memory::dims{c.groups, c.F / c.groups, c.C / c.groups, c.R, c.R} : memory::dims{c.F, c.C, c.R, c.R};
    x = md({c.B, c.C, c.H, c.H}, f32, tag::nhwc), y = md({c.B, c.F, c.P(), c.P()}, f32, tag::nhwc);
    any_w = md(sizes, f32, tag::any), bias = md({c.F}, f32, tag::x);
    // [R,S,C/groups,F]: filters of a group side by side.
    const int64_t per = c.F / c.groups, row = c.C / c.groups * c.F;
    plain_w = c.groups > 1 ? md(sizes, f32, memory::dims{per, 1, c.F, c.R * row, row})
                           : md(sizes, f32, memory::dims{1, c.F, c.R * row, row});
  }
  convolution_forward::primitive_desc forward(prop_kind kind, const primitive_attr& attr = {}) const {
    return {cpu(), kind, algorithm::convolution_direct, x, any_w, bias, y, strides, pads, pads, attr};
  }
};

class OneDnn : public Framework {
 public:
  std::string describe() const override {
    const version_t* v = dnnl::version();
    return "onednn " + std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
  }
  void set_threads(int n) override {
#ifdef _OPENMP
    omp_set_num_threads(n);
#endif
  }

  Side matmul(const Matmul& m) override {
    md a({m.M, m.K}, f32, tag::ab), b({m.K, m.N}, f32, tag::any), c({m.M, m.N}, f32, tag::ab), bias({1, m.N}, f32, tag::ab);
    dnnl::matmul::primitive_desc d(cpu(), a, b, bias, c, with_relu());
    memory y(c, cpu());
    memory w = reordered(array(m.b, md({m.K, m.N}, f32, tag::ab)), d.weights_desc());
    return side(dnnl::matmul(d),
                {{DNNL_ARG_SRC, array(m.a, a)}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_BIAS, array(m.bias, bias)}, {DNNL_ARG_DST, y}},
                [=] { return floats(y, m.M * m.N); });
  }

  Side conv2d(const Conv& c) override {
    ConvDescs s(c);
    auto d = s.forward(prop_kind::forward_inference, with_relu());
    memory y(s.y, cpu()), w = reordered(array(c.w, s.plain_w), d.weights_desc());
    return side(
        convolution_forward(d),
        {{DNNL_ARG_SRC, array(c.x, s.x)}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_BIAS, array(c.bias, s.bias)}, {DNNL_ARG_DST, y}},
        [=] { return floats(y, c.B * c.P() * c.P() * c.F); });
  }
  Side conv2d_input_grad(const Conv& c) override {
    ConvDescs s(c);
    convolution_backward_data::primitive_desc d(cpu(), algorithm::convolution_direct, s.x, s.any_w, s.y, s.strides, s.pads,
                                                s.pads, s.forward(prop_kind::forward_training));
    memory dx(s.x, cpu()), w = reordered(array(c.w, s.plain_w), d.weights_desc());
    return side(convolution_backward_data(d),
                {{DNNL_ARG_DIFF_DST, array(c.dy, s.y)}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DIFF_SRC, dx}},
                [=] { return floats(dx, c.B * c.H * c.H * c.C); });
  }
  Side conv2d_filter_grad(const Conv& c) override {
    ConvDescs s(c);
    convolution_backward_weights::primitive_desc d(cpu(), algorithm::convolution_direct, s.x, s.any_w, s.y, s.strides, s.pads,
                                                   s.pads, s.forward(prop_kind::forward_training));
    memory dw(d.diff_weights_desc(), cpu());
    return side(convolution_backward_weights(d),
                {{DNNL_ARG_DIFF_DST, array(c.dy, s.y)}, {DNNL_ARG_SRC, array(c.x, s.x)}, {DNNL_ARG_DIFF_WEIGHTS, dw}},
                [=] { return floats(reordered(dw, s.plain_w), c.R * c.R * (c.C / c.groups) * c.F); });
  }

  Side lstm(const Lstm& l) override {
    // Time outermost, its own order; [C, 4, U] is dagrt's order already.
    Floats x(size_t(l.B * l.T * l.C));
    for (int64_t b = 0; b < l.B; b++)
      for (int64_t t = 0; t < l.T; t++) std::copy_n(l.x + (b * l.T + t) * l.C, l.C, x.data() + (t * l.B + b) * l.C);
    md src({l.T, l.B, l.C}, f32, tag::tnc), dst({l.T, l.B, l.U}, f32, tag::tnc), state({1, 1, l.B, l.U}, f32, tag::ldnc);
    md w({1, 1, l.C, 4, l.U}, f32, tag::any), r({1, 1, l.U, 4, l.U}, f32, tag::any), bias({1, 1, 4, l.U}, f32, tag::ldgo);
    lstm_forward::primitive_desc d(cpu(), prop_kind::forward_inference, rnn_direction::unidirectional_left2right, src, md(), md(),
                                   w, r, bias, dst, state, state);
    memory h(state, cpu());
    return side(
        lstm_forward(d),
        {{DNNL_ARG_SRC_LAYER, array(x.data(), src)},
         {DNNL_ARG_WEIGHTS_LAYER, reordered(array(l.kernel, md({1, 1, l.C, 4, l.U}, f32, tag::ldigo)), d.weights_layer_desc())},
         {DNNL_ARG_WEIGHTS_ITER, reordered(array(l.recurrent, md({1, 1, l.U, 4, l.U}, f32, tag::ldigo)), d.weights_iter_desc())},
         {DNNL_ARG_BIAS, array(l.bias, bias)},
         {DNNL_ARG_DST_LAYER, memory(dst, cpu())},
         {DNNL_ARG_DST_ITER, h},
         {DNNL_ARG_DST_ITER_C, memory(state, cpu())}},
        [=] { return floats(h, l.B * l.U); });
  }

  Side batch_norm(const BatchNorm& b) override {
    md x({b.B, b.C, b.H, b.H}, f32, tag::nhwc), c({b.C}, f32, tag::x);
    auto flags = normalization_flags::use_scale | normalization_flags::use_shift | normalization_flags::fuse_norm_relu;
    batch_normalization_forward::primitive_desc d(cpu(), prop_kind::forward_training, x, x, b.epsilon, flags);
    memory y(x, cpu());
    return side(batch_normalization_forward(d),
                {{DNNL_ARG_SRC, array(b.x, x)},
                 {DNNL_ARG_SCALE, array(b.gamma, c)},
                 {DNNL_ARG_SHIFT, array(b.beta, c)},
                 {DNNL_ARG_MEAN, memory(c, cpu())},
                 {DNNL_ARG_VARIANCE, memory(c, cpu())},
                 {DNNL_ARG_WORKSPACE, memory(d.workspace_desc(), cpu())},
                 {DNNL_ARG_DST, y}},
                [=] { return floats(y, b.B * b.H * b.H * b.C); });
  }

  Side pool2d(const Pool& p) override {
    auto d = pool(p);
    memory y(d.dst_desc(), cpu());
    return side(
        pooling_forward(d),
        {{DNNL_ARG_SRC, array(p.x, d.src_desc())}, {DNNL_ARG_WORKSPACE, memory(d.workspace_desc(), cpu())}, {DNNL_ARG_DST, y}},
        [=] { return floats(y, p.B * p.P() * p.P() * p.C); });
  }
  Side pool2d_grad(const Pool& p) override {
    auto f = pool(p);
    memory work(f.workspace_desc(), cpu()), dx(f.src_desc(), cpu());
    pooling_forward(f).execute(
        queue(),
        {{DNNL_ARG_SRC, array(p.x, f.src_desc())}, {DNNL_ARG_WORKSPACE, work}, {DNNL_ARG_DST, memory(f.dst_desc(), cpu())}});
    queue().wait();
    memory::dims window{p.window, p.window}, stride{p.stride, p.stride}, pad{p.pad, p.pad};
    pooling_backward::primitive_desc d(cpu(), kind(p), f.src_desc(), f.dst_desc(), stride, window, {0, 0}, pad, pad, f);
    return side(pooling_backward(d),
                {{DNNL_ARG_DIFF_DST, array(p.dy, f.dst_desc())}, {DNNL_ARG_WORKSPACE, work}, {DNNL_ARG_DIFF_SRC, dx}},
                [=] { return floats(dx, p.B * p.H * p.H * p.C); });
  }

  Side softmax(const Softmax& s) override {
    md x({s.N, s.C}, f32, tag::ab);
    softmax_forward::primitive_desc d(cpu(), prop_kind::forward_inference, algorithm::softmax_accurate, x, x, 1);
    memory y(x, cpu());
    return side(softmax_forward(d), {{DNNL_ARG_SRC, array(s.x, x)}, {DNNL_ARG_DST, y}}, [=] { return floats(y, s.N * s.C); });
  }

  Side pointwise(const Pointwise& p) override {
    md x({p.n}, f32, tag::x);
    memory y(x, cpu());
    auto result = [=] { return floats(y, p.n); };
    if (p.f == "add") {
      binary::primitive_desc d(cpu(), algorithm::binary_add, x, x, x);
      return side(binary(d), {{DNNL_ARG_SRC_0, array(p.a, x)}, {DNNL_ARG_SRC_1, array(p.b, x)}, {DNNL_ARG_DST, y}}, result);
    }
    const std::pair<const char*, algorithm> known[] = {{"relu", algorithm::eltwise_relu},
                                                       {"exp", algorithm::eltwise_exp},
                                                       {"tanh", algorithm::eltwise_tanh},
                                                       {"sigmoid", algorithm::eltwise_logistic}};
    for (const auto& [name, f] : known) {
      if (p.f != name) continue;
      eltwise_forward::primitive_desc d(cpu(), prop_kind::forward_inference, f, x, x, 0.0f, 0.0f);
      return side(eltwise_forward(d), {{DNNL_ARG_SRC, array(p.a, x)}, {DNNL_ARG_DST, y}}, result);
    }
    return {};
  }

 private:
  static algorithm kind(const Pool& p) { return p.max ? algorithm::pooling_max : algorithm::pooling_avg_exclude_padding; }
  static pooling_forward::primitive_desc pool(const Pool& p) {
    md x({p.B, p.C, p.H, p.H}, f32, tag::nhwc), y({p.B, p.C, p.P(), p.P()}, f32, tag::nhwc);
    memory::dims window{p.window, p.window}, stride{p.stride, p.stride}, pad{p.pad, p.pad};
    return {cpu(), prop_kind::forward_training, kind(p), x, y, stride, window, {0, 0}, pad, pad};
  }
};

Register<OneDnn> here;

}  // namespace
}  // namespace bench
