// C = A B with B stored as bfloat16 in pairs: half the bytes of a float32 matrix, which is what a product of few rows waits
// for. A pair is a row of K and the next, in one word: the layout that vdpbf16ps reads.
//
//   dot: sum += a[k+1] b[k+1], then sum += a[k] b[k]
//
// as the instruction does it: each product of two bfloat16s is exact in float32, so fused or not is one (but where it
// underflows), sums round to nearest, denormals count as zero (as they do in all threads of a run). Elsewhere a word becomes
// two floats by a shift and a mask, and two multiply-adds: the same sums in the same order, the same on every instruction set.
// Threads claim cells of C; K is never cut, so that panels are read in sequence. For the instruction a cell's rows of A are made
// pairs first, in scratch.
#include "kernels/matmul_bf16_packed.h"

#include "kernels/cpu/vec.h"

// What this file takes of another: compiled for AVX512-BF16, AVX-512's.
#ifndef DAGRT_BASE_ISA
#define DAGRT_BASE_ISA DAGRT_ISA
#define DAGRT_BF16_PAIRS 0
#else
#define DAGRT_BF16_PAIRS 1
#endif

namespace dagrt::DAGRT_BASE_ISA {
void apply_epilogue(const Epilogue& e, float* tile, int64_t ld, int64_t row, int64_t column, int64_t rows, int64_t n);
}

namespace dagrt::DAGRT_ISA {
namespace {

constexpr int NR = 2 * V;

#if DAGRT_BF16_PAIRS
#if !defined(__AVX512BF16__)  // the instruction made of others, where its tiles are tested without it
DAGRT_INLINE vf low(vu pairs) { return (vf)(pairs << 16); }
DAGRT_INLINE vf high(vu pairs) { return (vf)(pairs & 0xffff0000u); }
#endif
using Element = uint32_t;  // of A: a pair
constexpr int per_pair = 1;
/// A pair of A for all lanes.
struct Pair {
  vu words;
  DAGRT_INLINE explicit Pair(const Element* a) : words(*a - vu{}) {}
};
using Words = vu;  // of B, ready to be multiplied
DAGRT_INLINE vf dot(vf sum, const Pair& a, const Words& b) {
#if defined(__AVX512BF16__)
  return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a.words, (__m512bh)b);
#else
  sum += high(a.words) * high(b);
  return sum + low(a.words) * low(b);
#endif
}
#else
using Element = float;
constexpr int per_pair = 2;
struct Pair {
  vf low, high;
  DAGRT_INLINE explicit Pair(const Element* a) : low(splat(a[0])), high(splat(a[1])) {}
};
struct Words {
  vf low, high;
  Words() = default;
  DAGRT_INLINE Words(vu w) : low((vf)(w << 16)), high((vf)(w & 0xffff0000u)) {}
};
DAGRT_INLINE vf dot(vf sum, const Pair& a, const Words& b) {
  sum += a.high * b.high;
  return sum + a.low * b.low;
}
#endif

DAGRT_INLINE vu load_pairs(const uint32_t* p) {
  vu v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

/// MR rows of A with NV / 2 panels. Vector j of a row of pairs lies at (j / 2) panels + (j % 2) V.
template <int MR, int NV>
void tile(int64_t K, const Element* a, int64_t a_row, const uint32_t* b, int64_t panel, float* c, int64_t ldc, int64_t n) {
  vf sums[MR][NV];
#pragma GCC unroll 12
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) sums[m][j] = vf{};
  auto step = [&](const Element* ak, int64_t ld) __attribute__((always_inline)) {
    if constexpr (NV == 2) {  // what there is less of stays in registers
      const Words left = load_pairs(b), right = load_pairs(b + V);
#pragma GCC unroll 12
      for (int m = 0; m < MR; m++) {
        const Pair pair(ak + m * ld);
        sums[m][0] = dot(sums[m][0], pair, left);
        sums[m][1] = dot(sums[m][1], pair, right);
      }
    } else {
#pragma GCC unroll 8
      for (int j = 0; j < NV; j++) {
        const Words words = load_pairs(b + (j / 2) * panel + (j % 2) * V);
#pragma GCC unroll 4
        for (int m = 0; m < MR; m++) sums[m][j] = dot(sums[m][j], Pair(ak + m * ld), words);
      }
    }
    b += NR;
  };
  const int64_t whole = per_pair == 2 ? K / 2 : (K + 1) / 2;
  for (int64_t k = 0; k < whole; k++, a += per_pair) step(a, a_row);
  if (per_pair == 2 && K % 2) {  // the last row of K has no partner
    Element last[MR][2];
    for (int m = 0; m < MR; m++) last[m][0] = a[m * a_row], last[m][1] = 0;
    step(last[0], 2);
  }
#pragma GCC unroll 12
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++)
      if (int64_t left = n - j * V; left > 0) store_n(c + m * ldc + j * V, sums[m][j], int(left < V ? left : V));
}

/// MR rows with all of n columns, `wide` vectors at once.
template <int MR, int wide>
void row_of_tiles(int64_t K, const Element* a, int64_t a_row, const uint32_t* b, float* c, int64_t ldc, int64_t n) {
  const int64_t panel = (K + 1) / 2 * NR;
  for (; n > (wide - 2) * V; n -= wide * V, b += wide / 2 * panel, c += wide * V)
    tile<MR, wide>(K, a, a_row, b, panel, c, ldc, n);
  if constexpr (wide > 6)
    if (n > 4 * V) return tile<MR, 6>(K, a, a_row, b, panel, c, ldc, n);
  if constexpr (wide > 4)
    if (n > 2 * V) return tile<MR, 4>(K, a, a_row, b, panel, c, ldc, n);
  if constexpr (wide > 2)
    if (n > 0) return tile<MR, 2>(K, a, a_row, b, panel, c, ldc, n);
}

#if DAGRT_BF16_PAIRS
constexpr int most_rows = 12;  // of a tile

constexpr decltype(&row_of_tiles<1, 8>) tiles_of_rows[most_rows + 1] = {nullptr,
                                                                        row_of_tiles<1, 8>,
                                                                        row_of_tiles<2, 4>,
                                                                        row_of_tiles<3, 4>,
                                                                        row_of_tiles<4, 2>,
                                                                        row_of_tiles<5, 2>,
                                                                        row_of_tiles<6, 2>,
                                                                        row_of_tiles<7, 2>,
                                                                        row_of_tiles<8, 2>,
                                                                        row_of_tiles<9, 2>,
                                                                        row_of_tiles<10, 2>,
                                                                        row_of_tiles<11, 2>,
                                                                        row_of_tiles<12, 2>};

/// Tiles of about the same height: of more than four rows each has sums enough to hide the instruction's latency.
void rows_of_tiles(int64_t rows, int64_t K, const Element* a, int64_t a_row, const uint32_t* b, float* c, int64_t ldc,
                   int64_t n) {
  const int64_t tiles = (rows + most_rows - 1) / most_rows;
  for (int64_t t = 0, at = 0; t < tiles; t++) {
    const int64_t height = rows * (t + 1) / tiles - at;
    tiles_of_rows[height](K, a + at * a_row, a_row, b, c + at * ldc, ldc, n);
    at += height;
  }
}

/// K values that bfloat16 holds, as pairs; none behind the last.
void make_pairs(const float* from, int64_t K, uint32_t* to) {
  const vi even = lane_numbers() * 2;
  int64_t k = 0;
  for (; k + 2 * V <= K; k += 2 * V) {
    const vu x = load_pairs(reinterpret_cast<const uint32_t*>(from + k)),
             y = load_pairs(reinterpret_cast<const uint32_t*>(from + k + V));
    const vu pairs = __builtin_shuffle(x, y, even) >> 16 | (__builtin_shuffle(x, y, even + 1) & 0xffff0000u);
    __builtin_memcpy(to + k / 2, &pairs, sizeof pairs);
  }
  for (; k < K; k += 2) {
    uint32_t low, high = 0;
    __builtin_memcpy(&low, from + k, 4);
    if (k + 1 < K) __builtin_memcpy(&high, from + k + 1, 4);
    to[k / 2] = low >> 16 | (high & 0xffff0000u);
  }
}
#else
/// Each tile has sums enough to hide a multiply-add's latency, but for what is left over.
void rows_of_tiles(int64_t rows, int64_t K, const Element* a, int64_t a_row, const uint32_t* b, float* c, int64_t ldc,
                   int64_t n) {
  auto next = [&](int64_t done) { rows -= done, a += done * a_row, c += done * ldc; };
  for (; rows >= 4; next(4)) row_of_tiles<4, 2>(K, a, a_row, b, c, ldc, n);
  switch (rows) {
    case 3: return row_of_tiles<3, 2>(K, a, a_row, b, c, ldc, n);
    case 2: return row_of_tiles<2, 4>(K, a, a_row, b, c, ldc, n);
    case 1: return row_of_tiles<1, 8>(K, a, a_row, b, c, ldc, n);
    default: break;
  }
}
#endif

}  // namespace

void pack_matmul_bf16(const PackMatmulBf16Args& g, const Stream& s) {
  const int64_t pairs = (g.K + 1) / 2;
  s.parallel((g.N + NR - 1) / NR, double(g.K) * 12 + 20, [&](int64_t p, char*) {
    uint16_t* to = g.panels + p * pairs * NR * 2;
    const int64_t n0 = p * NR;
    for (int64_t k = 0; k < pairs * 2; k++)
      for (int64_t j = 0; j < NR; j++)
        to[(k / 2 * NR + j) * 2 + k % 2] =
            k < g.K && n0 + j < g.N ? float_to_bf16(g.b[k * g.b_row + (n0 + j) * g.b_col]) : uint16_t(0);
  });
}

void matmul_bf16_packed(const MatmulBf16PackedArgs& g, const Stream& s) {
  if (!g.M || !g.N) return;
  const uint32_t* b = reinterpret_cast<const uint32_t*>(g.panels);
  const int64_t pairs = (g.K + 1) / 2;
  const int64_t width = matmul_bf16_cell_columns, height = matmul_bf16_cell_rows;
  const int64_t columns = (g.N + width - 1) / width, rows = (g.M + height - 1) / height;
  const double tall = double(g.M < height ? g.M : height);
  s.parallel(columns * rows, double(width) * double(g.K) * (0.03 + tall * 0.3 / V) + 30, [&](int64_t unit, char* scratch) {
    const int64_t n0 = unit % columns * width, n = g.N - n0 < width ? g.N - n0 : width;
    const int64_t m0 = g.M * (unit / columns) / rows, m = g.M * (unit / columns + 1) / rows - m0;
    float* c = g.c + m0 * g.ldc + n0;
#if DAGRT_BF16_PAIRS
    uint32_t* a = reinterpret_cast<uint32_t*>(aligned(scratch));
    const int64_t a_row = matmul_bf16_pairs_row(g.K);
    for (int64_t i = 0; i < m; i++) make_pairs(g.a + (m0 + i) * g.a_row, g.K, a + i * a_row);
#else
    (void)scratch;
    const float* a = g.a + m0 * g.a_row;
    const int64_t a_row = g.a_row;
#endif
    const int64_t step = m > 4 ? 2 * NR : n;  // panels that stay in cache from tile to tile
    for (int64_t at = 0; at < n; at += step)
      rows_of_tiles(m, g.K, a, a_row, b + (n0 + at) * pairs, c + at, g.ldc, n - at < step ? n - at : step);
    DAGRT_BASE_ISA::apply_epilogue(g.epilogue, c, g.ldc, m0, n0, m, n);
  });
}

}  // namespace dagrt::DAGRT_ISA
