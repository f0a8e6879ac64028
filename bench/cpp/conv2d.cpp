// Convolutions: the direct sum, and Winograd's where there is a transform, each against all peers' convolution of that
// layer; forward with bias and relu, input gradient, filter gradient. Winograd's flops are those of the direct sum that it
// replaces, so that its share of the peak can exceed 1; `asked`: the share that the project wants, k 4 eta (eta: area of the
// map over area in whole tiles; k = 0.72, 0.67, 0.55 from 128, 64, 32 channels). `multiply_flops`: what the transformed
// tiles take, without the transforms.
#include "kernels/winograd.h"
#include "layers.h"

using namespace dagrt;

namespace bench {
namespace {

double asked(const Layer& l) {
  const int64_t tiles = (l.P() + 3) / 4, least = l.C < l.F ? l.C : l.F;
  const double eta = double(l.P() * l.P()) / double(16 * tiles * tiles);
  const double k = least >= 128 && l.B * tiles * tiles >= 16 ? 0.72 : least >= 64 ? 0.67 : least >= 32 ? 0.55 : 0;
  return l.R == 3 ? k * 4 * eta : 0;
}

struct Held {
  Floats x, y, w, bias, u, out;
  WinogradArgs a;
  std::unique_ptr<Memory> memory;
  void (*run)(const WinogradArgs&, const Stream&) = conv2d_winograd;

  Held(const Layer& l, Direction d, int tile) {
    const bool input = d == Direction::input;
    x = values(l.B * l.H * l.H * l.C), y = values(l.B * l.P() * l.P() * l.F, 3);
    w = values(l.R * l.R * l.C * l.F, 2), bias = values(l.F, 4);
    u.resize(size_t(winograd_weights_size(input ? l.F : l.C, input ? l.C : l.F, l.R, tile)));
    WinogradWeightsArgs t;
    t.w = w.data(), t.u = u.data(), t.C = l.C, t.F = l.F, t.window = int(l.R), t.tile = tile, t.transpose = input;
    winograd_weights(t, Stream{});
    a.B = l.B, a.H = a.W = l.H, a.P = a.Q = l.P(), a.C = l.C, a.F = l.F, a.window = int(l.R), a.tile = tile;
    a.pad_top = a.pad_left = l.pad;
    a.x = x.data(), a.u = u.data();
    out.resize(d == Direction::forward ? y.size() : input ? x.size() : w.size());
    if (d == Direction::filter) {
      run = conv2d_filter_grad_winograd;
      a.y = y.data(), a.dw = out.data();
    } else {
      if (input) {
        std::swap(a.H, a.P), std::swap(a.W, a.Q), std::swap(a.C, a.F);
        a.pad_top = a.pad_left = l.R - 1 - l.pad;
        a.x = y.data();
      } else {
        a.epilogue.bias = bias.data(), a.epilogue.relu = true;
      }
      a.y = out.data();
    }
    a.ldx = a.C, a.ldy = a.F;
    const WinogradMemory m = d == Direction::filter ? conv2d_filter_grad_winograd_memory(a) : conv2d_winograd_memory(a);
    memory = std::make_unique<Memory>(m.workspace, m.scratch);
    a.workspace = memory->workspace();
  }
};

Work winograd(const Layer& l, Direction d, int tile) {
  auto h = std::make_shared<Held>(l, d, tile);
  Work w;
  w.dagrt = {"dagrt", [h] { h->run(h->a, h->memory->stream()); }, [h] { return copy(h->out.data(), int64_t(h->out.size())); }};
  const Conv c{l.B, l.H, l.C, l.F, l.R, l.stride, l.pad, 1, h->x.data(), h->w.data(), h->bias.data(), h->y.data()};
  w.peers = peers(d == Direction::forward ? &Framework::conv2d
                  : d == Direction::input ? &Framework::conv2d_input_grad
                                          : &Framework::conv2d_filter_grad,
                  c);
  w.flops = 2.0 * double(h->y.size()) * double(l.R * l.R * l.C);
  w.written = 4.0 * double(h->out.size());
  w.read = 4.0 * double(h->x.size() + h->y.size() + h->u.size()) - w.written;
  const int64_t tiles = l.B * ((l.P() + tile - 1) / tile) * ((l.P() + tile - 1) / tile), points = tile < 7 ? tile + l.R - 1 : 11;
  const WinogradMixedPlan mixed = winograd_mixed_plan(h->a, chosen_isa == Isa::avx512 ? 16 : chosen_isa == Isa::avx2 ? 8 : 4);
  const int64_t products = d == Direction::filter && mixed.applies ? mixed.size : tiles * points * points;
  w.more = {{"asked", asked(l)}, {"multiply_flops", 2.0 * double(products * l.C * l.F)}};
  return w;
}

}  // namespace

void add_rows() {
  for (Direction d : {Direction::forward, Direction::input, Direction::filter})
    for (const Layer& l : convolutions) {
      if (d == Direction::input && l.H == 224) continue;  // images have no gradient
      add_row(std::string("direct ") + name_of(d) + "/" + l.text(), [=] { return direct(l, d); });
      for (int tile : {2, 4, 7})
        if (l.stride == 1 && winograd_applies(l.R, l.R, tile) && (tile < 7 || (d != Direction::filter && l.P() <= 14)))
          add_row(
              "F(" + (tile < 7 ? std::to_string(tile) : "4+3") + "," + std::to_string(l.R) + ") " + name_of(d) + "/" + l.text(),
              [=] { return winograd(l, d, tile); });
    }
}

}  // namespace bench
