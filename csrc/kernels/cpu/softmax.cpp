// Softmax and cross-entropy, row by row. The row's maximum is taken off before exp, so nothing overflows; a row that
// holds NaN or +inf, or nothing but -inf, gives NaN. The loss is log s - (x - m), never log_z - x: large logits would
// cancel. Sums of rows longer than a few hundred elements are taken in two levels.
#include "kernels/softmax.h"

#include "kernels/cpu/vec_math.h"

namespace dagrt::DAGRT_ISA {
namespace {

/// Of the row's numbers. With a NaN it may be any: a NaN passes into the sum of powers by itself.
DAGRT_INLINE float row_max(const float* x, int64_t C) {
  const vf low = splat(-__builtin_inff());
  vf a = low, b = low;
  int64_t c = 0;
  for (; c + 2 * V <= C; c += 2 * V) a = larger(load(x + c), a), b = larger(load(x + c + V), b);
  for (; c < C; c += V) {
    int n = C - c < V ? int(C - c) : V;
    a = larger(select(first_lanes(n), load_n(x + c, n), low), a);
  }
  return hmax(larger(a, b));
}

/// Sum over c of f(c, lanes), lanes beyond C being ignored; two levels of at most 32 additions per lane and block.
template <class F> DAGRT_INLINE float row_sum(int64_t C, const F& f) {
  vf total{};
  for (int64_t c = 0; c < C;) {
    vf part{};
    int64_t end = c + 32 * V < C ? c + 32 * V : C;
    for (; c < end; c += V) {
      int n = C - c < V ? int(C - c) : V;
      vf v = f(c, n);
      part += n == V ? v : select(first_lanes(n), v, splat(0));
    }
    total += part;
  }
  return sum(total);
}

DAGRT_INLINE float log_of(float x) { return vlog(splat(x))[0]; }

/// A row of at most one vector: the bits of a longer one's way, from registers. A masked store that is read at once waits.
DAGRT_INLINE void short_row(const float* x, float* y, int n, bool logarithm) {
  const vi in = first_lanes(n);
  const vf v = load_n(x, n), low = splat(-__builtin_inff()), d = v - splat(hmax(select(in, v, low)));
  const vf e = vexp_below(d);
  const float s = sum(select(in, e, splat(0)));
  store_n(y, logarithm ? d - splat(log_of(s)) : e * splat(1.0f / s), n);
}

void softmax_row(const float* x, float* y, int64_t C, bool logarithm) {
  if (C <= V) return short_row(x, y, int(C), logarithm);
  float m = row_max(x, C);
  vf top = splat(m);
  if (logarithm) {
    vf log_s = splat(
        log_of(row_sum(C, [&](int64_t c, int n) __attribute__((always_inline)) { return vexp_below(load_n(x + c, n) - top); })));
    for (int64_t c = 0; c < C; c += V) {
      int n = C - c < V ? int(C - c) : V;
      store_n(y + c, (load_n(x + c, n) - top) - log_s, n);
    }
    return;
  }
  float s = row_sum(C, [&](int64_t c, int n) __attribute__((always_inline)) {
    vf e = vexp_below(load_n(x + c, n) - top);
    store_n(y + c, e, n);
    return e;
  });
  vf scale = splat(1.0f / s);
  for (int64_t c = 0; c < C; c += V) {
    int n = C - c < V ? int(C - c) : V;
    store_n(y + c, load_n(y + c, n) * scale, n);
  }
}

template <class F> void over_rows(int64_t N, int64_t C, double ns, const Stream& s, const F& f) {
  int64_t together = 4096 / (C + 1);
  together = together < 1 ? 1 : together;
  s.parallel((N + together - 1) / together, double(together) * (double(C) * ns + 20), [&](int64_t u, char* scratch) {
    int64_t end = (u + 1) * together < N ? (u + 1) * together : N;
    for (int64_t n = u * together; n < end; n++) f(n, scratch);
  });
}

DAGRT_INLINE int64_t label_at(const void* labels, DType t, int64_t n) {
  switch (t) {
    case DType::int32: return static_cast<const int32_t*>(labels)[n];
    case DType::int64: return static_cast<const int64_t*>(labels)[n];
    default: return static_cast<const uint8_t*>(labels)[n];
  }
}

}  // namespace

void softmax(const SoftmaxArgs& a, const Stream& s) {
  if (a.N == 0 || a.C == 0) return;
  over_rows(a.N, a.C, 0.5, s, [&](int64_t n, char* scratch) {
    if (a.dtype == DType::float32) {
      softmax_row(static_cast<const float*>(a.x) + n * a.ldx, static_cast<float*>(a.y) + n * a.ldy, a.C, a.logarithm);
      return;
    }
    bool half = a.dtype == DType::float16;
    float* row = reinterpret_cast<float*>(scratch);
    const uint16_t* x = static_cast<const uint16_t*>(a.x) + n * a.ldx;
    uint16_t* y = static_cast<uint16_t*>(a.y) + n * a.ldy;
    for (int64_t c = 0; c < a.C; c++) row[c] = half ? half_to_float(x[c]) : bf16_to_float(x[c]);
    softmax_row(row, row, a.C, a.logarithm);
    for (int64_t c = 0; c < a.C; c++) y[c] = half ? float_to_half(row[c]) : float_to_bf16(row[c]);
  });
}

void softmax_cross_entropy(const CrossEntropyArgs& a, const Stream& s) {
  if (a.N == 0) return;
  over_rows(a.N, a.C, 0.5, s, [&](int64_t n, char*) {
    const float* x = a.x + n * a.ldx;
    float m = row_max(x, a.C);
    vf top = splat(m);
    float log_s =
        log_of(row_sum(a.C, [&](int64_t c, int k) __attribute__((always_inline)) { return vexp_below(load_n(x + c, k) - top); }));
    if (a.log_z) a.log_z[n] = m + log_s;
    if (a.label_dtype == DType::float32) {
      const float* l = static_cast<const float*>(a.labels) + n * a.ldl;
      vf ls = splat(log_s);
      a.loss[n] = row_sum(a.C, [&](int64_t c, int k)
                                   __attribute__((always_inline)) { return load_n(l + c, k) * (ls - (load_n(x + c, k) - top)); });
      return;
    }
    int64_t label = label_at(a.labels, a.label_dtype, n);
    if (label >= 0 && label < a.C) a.loss[n] = log_s - (x[label] - m);
  });
}

void softmax_cross_entropy_grad(const CrossEntropyGradArgs& a, const Stream& s) {
  if (a.N == 0 || a.C == 0) return;
  over_rows(a.N, a.C, 0.4, s, [&](int64_t n, char*) {
    const float* x = a.x + n * a.ldx;
    float* dx = a.dx + n * a.ldd;
    vf z = splat(a.log_z[n]), g = splat(a.g[n]);
    if (a.label_dtype == DType::float32) {
      const float* l = static_cast<const float*>(a.labels) + n * a.ldl;
      vf total = splat(row_sum(a.C, [&](int64_t c, int k) __attribute__((always_inline)) { return load_n(l + c, k); }));
      for (int64_t c = 0; c < a.C; c += V) {
        int k = a.C - c < V ? int(a.C - c) : V;
        store_n(dx + c, g * (total * vexp_below(load_n(x + c, k) - z) - load_n(l + c, k)), k);
      }
      return;
    }
    int64_t label = label_at(a.labels, a.label_dtype, n);
    for (int64_t c = 0; c < a.C; c += V) {
      int k = a.C - c < V ? int(a.C - c) : V;
      vf p = vexp_below(load_n(x + c, k) - z);
      if (label >= c && label < c + k) p[label - c] -= 1.0f;
      store_n(dx + c, g * p, k);
    }
  });
}

}  // namespace dagrt::DAGRT_ISA
