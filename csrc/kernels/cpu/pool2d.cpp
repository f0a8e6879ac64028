// Pooling, vectors over channels, one row of outputs (or of inputs, backward) a unit.
//
// The maximum keeps the first of equals, in window order; NaN wins (the first of them). Backward gathers: an input pixel
// looks at the windows that cover it, in order, so that no two threads write one place.
#include "kernels/pool2d.h"

#include "kernels/cpu/vec.h"

namespace dagrt::DAGRT_ISA {
namespace {

struct Span {
  int64_t from, to;
};

/// Positions of the window of output p inside [0, n).
Span window(int64_t p, int64_t stride, int64_t pad, int64_t pool, int64_t n) {
  int64_t from = p * stride - pad, to = from + pool;
  return {from < 0 ? 0 : from, to > n ? n : to};
}

/// Outputs whose windows cover position h.
Span covering(int64_t h, int64_t stride, int64_t pad, int64_t pool, int64_t outputs) {
  int64_t low = h + pad - pool + 1;
  int64_t from = low <= 0 ? 0 : (low + stride - 1) / stride, to = (h + pad) / stride + 1;
  return {from, to > outputs ? outputs : to};
}

/// `places`: also where the maximum was.
template <bool places> void max_pool(const PoolArgs& a, const Stream& s) {
  s.parallel(a.B * a.P, double(a.Q * a.C * a.pool_h * a.pool_w) * (0.4 / V) + 50, [&](int64_t unit, char*) {
    int64_t b = unit / a.P, p = unit % a.P;
    Span h = window(p, a.stride_h, a.pad_top, a.pool_h, a.H);
    for (int64_t q = 0; q < a.Q; q++) {
      const Span w = window(q, a.stride_w, a.pad_left, a.pool_w, a.W);
      const int64_t out = unit * a.Q + q, first = h.from * a.W + w.from, wide = w.to - w.from;
      const float* corner = a.x + (b * a.H * a.W + first) * a.ldx;
      each_vector(a.C, [&](int64_t c, int n) __attribute__((always_inline)) {
        vf best = splat(-__builtin_inff());
        vi at = splat_i(int32_t(first));
        const float* row = corner + c;
        for (int64_t i = h.from, place = first; i < h.to; i++, row += a.W * a.ldx, place += a.W) {
          const float* x = row;
          for (int64_t j = 0; j < wide; j++, x += a.ldx) {
            vf value = load_n(x, n);
            vi better = ~(value <= best) & (best == best);  // larger, or the first NaN
            best = select(better, value, best);
            if (places) at = select_i(better, splat_i(int32_t(place + j)), at);
          }
        }
        store_n(a.y + out * a.ldy + c, best, n);
        if (places) store_n(reinterpret_cast<float*>(a.argmax) + out * a.C + c, as_f(at), n);
      });
    }
  });
}

/// dx[c] = (or +=) f(c, lanes) for one pixel: windows one after another, so that what belongs to a window is found once.
template <class F> DAGRT_INLINE void gather_window(float* dx, int64_t C, bool& first, const F& f) {
  if (first)
    each_vector(C, [&](int64_t c, int n) __attribute__((always_inline)) { store_n(dx + c, f(c, n), n); });
  else
    each_vector(C, [&](int64_t c, int n) __attribute__((always_inline)) { store_n(dx + c, load_n(dx + c, n) + f(c, n), n); });
  first = false;
}

void clear(float* dx, int64_t C) {
  each_vector(C, [&](int64_t c, int n) __attribute__((always_inline)) { store_n(dx + c, vf{}, n); });
}

}  // namespace

void max_pool2d(const PoolArgs& a, const Stream& s) { a.argmax ? max_pool<true>(a, s) : max_pool<false>(a, s); }

void max_pool2d_grad(const PoolArgs& a, const Stream& s) {
  const double windows = double(((a.pool_h + a.stride_h - 1) / a.stride_h) * ((a.pool_w + a.stride_w - 1) / a.stride_w));
  s.parallel(a.B * a.H, double(a.W * a.C) * windows * 0.2 + 50, [&](int64_t unit, char*) {
    int64_t b = unit / a.H, i = unit % a.H;
    Span p = covering(i, a.stride_h, a.pad_top, a.pool_h, a.P);
    for (int64_t j = 0; j < a.W; j++) {
      const Span q = covering(j, a.stride_w, a.pad_left, a.pool_w, a.Q);
      const vi here = splat_i(int32_t(i * a.W + j));
      float* dx = a.dx + (unit * a.W + j) * a.C;
      bool first = true;
      for (int64_t k = p.from; k < p.to; k++)
        for (int64_t l = q.from; l < q.to; l++) {
          const int64_t out = (b * a.P + k) * a.Q + l;
          const float *dy = a.x + out * a.ldx, *taken = reinterpret_cast<const float*>(a.taken) + out * a.C;
          gather_window(dx, a.C, first, [&](int64_t c, int n) __attribute__((always_inline)) {
            return as_f(as_i(load_n(dy + c, n)) & (as_i(load_n(taken + c, n)) == here));
          });
        }
      if (first) clear(dx, a.C);
    }
  });
}

void avg_pool2d(const PoolArgs& a, const Stream& s) {
  s.parallel(a.B * a.P, double(a.Q * a.C * a.pool_h * a.pool_w) * (0.6 / V) + 50, [&](int64_t unit, char*) {
    int64_t b = unit / a.P, p = unit % a.P;
    Span h = window(p, a.stride_h, a.pad_top, a.pool_h, a.H);
    for (int64_t q = 0; q < a.Q; q++) {
      Span w = window(q, a.stride_w, a.pad_left, a.pool_w, a.W);
      vf count = splat(float((h.to - h.from) * (w.to - w.from)));
      each_vector(a.C, [&](int64_t c, int n) __attribute__((always_inline)) {
        vf t{};
        for (int64_t i = h.from; i < h.to; i++)
          for (int64_t j = w.from; j < w.to; j++) t += load_n(a.x + ((b * a.H + i) * a.W + j) * a.ldx + c, n);
        store_n(a.y + (unit * a.Q + q) * a.ldy + c, t / count, n);
      });
    }
  });
}

void avg_pool2d_grad(const PoolArgs& a, const Stream& s) {
  s.parallel(a.B * a.H, double(a.W * a.C) * 0.3 + 50, [&](int64_t unit, char*) {
    int64_t b = unit / a.H, i = unit % a.H;
    Span p = covering(i, a.stride_h, a.pad_top, a.pool_h, a.P);
    for (int64_t j = 0; j < a.W; j++) {
      const Span q = covering(j, a.stride_w, a.pad_left, a.pool_w, a.Q);
      float* dx = a.dx + (unit * a.W + j) * a.C;
      bool first = true;
      for (int64_t k = p.from; k < p.to; k++) {
        Span h = window(k, a.stride_h, a.pad_top, a.pool_h, a.H);
        for (int64_t l = q.from; l < q.to; l++) {
          Span w = window(l, a.stride_w, a.pad_left, a.pool_w, a.W);
          const float* dy = a.x + ((b * a.P + k) * a.Q + l) * a.ldx;
          const vf share = splat(1.0f / float((h.to - h.from) * (w.to - w.from)));
          gather_window(dx, a.C, first,
                        [&](int64_t c, int n) __attribute__((always_inline)) { return load_n(dy + c, n) * share; });
        }
      }
      if (first) clear(dx, a.C);
    }
  });
}

}  // namespace dagrt::DAGRT_ISA
