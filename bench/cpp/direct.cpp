// A convolution by the direct sum, weights packed beforehand forwards, as at inference; for conv2d and depthwise.
#include "kernels/conv2d.h"
#include "layers.h"

using namespace dagrt;

namespace bench {
namespace {

struct Held {
  Floats x, y, w, bias, out, panels;
  ConvArgs k;
  std::unique_ptr<Memory> memory;
  void (*run)(const ConvArgs&, const Stream&) = conv2d_filter_grad;

  Held(const Layer& l, Direction d) {
    k.B = l.B, k.H = k.W = l.H, k.C = l.C, k.F = l.F, k.R = k.S = l.R, k.groups = l.groups;
    k.P = k.Q = l.P(), k.ldx = l.C, k.ldy = l.F;
    k.stride_h = k.stride_w = l.stride, k.pad_top = k.pad_left = l.pad;
    x = values(k.B * k.H * k.W * k.C), y = values(k.B * k.P * k.Q * k.F, 3);
    w = values(k.R * k.S * (k.C / k.groups) * k.F, 2), bias = values(k.F, 4);
    out.resize(d == Direction::forward ? y.size() : d == Direction::input ? x.size() : w.size());
    k.x = x.data(), k.y = y.data(), k.w = w.data();
    PackConvArgs p;
    p.w = w.data(), p.R = k.R, p.S = k.S, p.C = k.C, p.F = k.F, p.groups = k.groups;
    panels.resize(size_t(conv2d_panel_floats(p)));
    p.panels = panels.data();
    ConvMemory m;
    if (d == Direction::forward) {
      pack_conv2d(p, Stream{});
      k.panels = panels.data(), k.y = out.data();
      k.epilogue.bias = bias.data(), k.epilogue.relu = true;
      run = conv2d, m = conv2d_memory(k);
    } else if (d == Direction::input) {
      run = conv2d_input_grad, k.x = out.data(), m = conv2d_input_grad_memory(k);
    } else {
      k.w = out.data(), m = conv2d_filter_grad_memory(k);
    }
    memory = std::make_unique<Memory>(m.workspace, m.scratch);
    k.workspace = memory->workspace();
  }
};

}  // namespace

Work direct(const Layer& l, Direction d) {
  auto h = std::make_shared<Held>(l, d);
  Work w;
  w.dagrt = {"dagrt", [h] { h->run(h->k, h->memory->stream()); }, [h] { return copy(h->out.data(), int64_t(h->out.size())); }};
  const Conv c{l.B, l.H, l.C, l.F, l.R, l.stride, l.pad, l.groups, h->x.data(), h->w.data(), h->bias.data(), h->y.data()};
  w.peers = peers(d == Direction::forward ? &Framework::conv2d
                  : d == Direction::input ? &Framework::conv2d_input_grad
                                          : &Framework::conv2d_filter_grad,
                  c);
  w.flops = 2.0 * double(h->y.size()) * double(l.R * l.R * (l.C / l.groups));
  w.written = 4.0 * double(h->out.size());
  w.read = 4.0 * double(h->x.size() + h->y.size() + h->w.size()) - w.written;
  return w;
}

}  // namespace bench
