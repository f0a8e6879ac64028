// A tiled product, shared by matmul, the convolutions (implicit GEMM: no im2col in memory) and the LSTM's projections:
//   C(m, n) = sum over k of A(m, k) B(n, k)
//
// Operands are loaders. `Row` is what a row's place costs to work out and is made once; `Col` walks along k, a tile's depth at
// a time; of both, `at` makes an address, or null for a zero. A block computes BM x BN in steps of 64 bytes a row, 16 floats;
// four stages of cp.async keep loads under way while the tile before is multiplied.
//   tensor: TF32 or bfloat16 mma.sync, float32 sums. Otherwise float32 FMA: the exact path, and the only one before sm_80.
//
// Rows of a tile are taken in groups of 32, of which octet e, place l is row 16 (l % 2) + 4 (l / 2) + e. So the four rows that
// a lane needs of one k lie together where rows are contiguous (one load of 16 bytes), and its results are four neighbours of
// a line. They leave by way of shared memory, so that warps store whole lines and the epilogue runs there. Chunks of 16 bytes stand exclusive-or'd, by which neither the copies
// nor the fragments' loads meet in a bank, without padding.
//
// Operands of bfloat16 (loaders of Bf16) take 32 columns a step. Two neighbours along k are a word of the fragments: where k
// is contiguous, all is as above. Where rows are, ldmatrix transposes as it loads, eight neighbouring rows at a time, so that
// an octet is eight neighbours, and results are pairs of a line. Results are float32, or rounded to bfloat16 (`narrow`).
//
// Per byte that comes from L2 a tile of 256 x 128 makes 42.7 operations, 192 x 128 38.4, 128 x 128 32, 128 x 64 21.3, 64 x 64 16; of
// bfloat16 twice as many. Another tile is one more line of gemm_tiles: sides are multiples of 64. Long sums over few tiles
// are cut in `splits` parts along K, a function of the sizes alone, added in order. Which tile is chosen changes no bit.
#pragma once
#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/gemm_splits.h"

namespace dagrt {
namespace {

constexpr int gemm_bk = 16, gemm_stages = 4;  // floats of a step
/// Columns of a step, of 64 bytes.
template <class T> constexpr int columns_of = gemm_bk * 4 / int(sizeof(T));

/// What a loader's addresses lead to.
template <class X, class = void> struct ElementOf {
  using type = float;
};
template <class X> struct ElementOf<X, decltype(void(typename X::Element()))> {
  using type = typename X::Element;
};
template <class T> constexpr bool is_bf16 = sizeof(T) == sizeof(Bf16);

/// X(i, k) = p[i row + k col], i < rows, k < depth.
template <class T> struct MatrixOf {
  const T* p;
  int64_t row, col, rows, depth;
  using Element = T;
  struct Row {
    const T* p;
  };
  struct Col {
    int64_t k, offset;
  };
  DAGRT_DEVICE Row row_at(int64_t i) const { return {i < rows ? p + i * row : nullptr}; }
  DAGRT_DEVICE Col col_at(int64_t k) const { return {k, k * col}; }
  DAGRT_DEVICE void next(Col& c) const { c.k += columns_of<T>, c.offset += columns_of<T> * col; }
  DAGRT_DEVICE const T* at(const Row& r, const Col& c) const { return r.p && c.k < depth ? r.p + c.offset : nullptr; }
  DAGRT_DEVICE void move(int64_t by) { p += by; }
};
using Matrix = MatrixOf<float>;

/// X(i, k) of a loader with its two indices exchanged.
template <class L> struct Exchanged {
  L l;
  using Element = typename ElementOf<L>::type;
  using Row = typename L::Col;
  struct Col {
    int64_t k;
    typename L::Row row;
  };
  DAGRT_DEVICE Row row_at(int64_t i) const { return l.col_at(i); }
  DAGRT_DEVICE Col col_at(int64_t k) const { return {k, l.row_at(k)}; }
  DAGRT_DEVICE void next(Col& c) const { c = col_at(c.k + columns_of<Element>); }
  DAGRT_DEVICE const Element* at(const Row& r, const Col& c) const { return l.at(c.row, r); }
  DAGRT_DEVICE void move(int64_t by) { l.move(by); }
};

/// Where place l of octet e stands among 32 rows, and 4 neighbours of it are those of e = 0 to 3.
DAGRT_DEVICE int first_of_place(int l) { return l % 2 * 16 + l / 2 * 4; }

/// One operand's tile in shared memory, `rows` x 16: contiguous along k, rows by octet and place; or along the rows.
template <class T, bool k_fast, int rows> struct Tile {
  static constexpr int floats = rows * gemm_bk;
  /// Slot: the row, or where k is contiguous, 32 (row / 32) + 8 octet + place.
  DAGRT_DEVICE static int at(int slot, int k) {
    return k_fast ? slot * gemm_bk + ((k / 4) ^ (slot / 2 & 3)) * 4 + k % 4 : k * rows + (slot ^ (k & 3) * 4);
  }
  DAGRT_DEVICE static int row_of(int slot) { return k_fast ? slot / 32 * 32 + first_of_place(slot % 8) + slot / 8 % 4 : slot; }

  /// Of 32 rows from `first`, columns k to k + 8: place lane / 4 of each octet at column lane % 4, and 4 further.
  DAGRT_DEVICE static void fragments(uint32_t (&f)[4][2], const float* tile, int first, int k) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      uint32_t r[4];
      if constexpr (k_fast) {
        load_matrices(r, tile + at(first + lane, k + h * 4));
      } else {
        float4 v = *reinterpret_cast<const float4*>(tile + at(first + first_of_place(lane / 4), k + lane % 4 + h * 4));
        r[0] = float_to_bits(v.x), r[1] = float_to_bits(v.y), r[2] = float_to_bits(v.z), r[3] = float_to_bits(v.w);
      }
#pragma unroll
      for (int e = 0; e < 4; e++) f[e][h] = to_tf32(bits_to_float(r[e]));
    }
  }

  /// Rows of place l of `count` octets from the 32 rows at `first` on, columns k to k + 4.
  template <int count> DAGRT_DEVICE static void block(float (&x)[count][4], const float* tile, int first, int l, int k) {
#pragma unroll
    for (int i = 0; i < count; i++) {
      if constexpr (k_fast) {
        float4 v = *reinterpret_cast<const float4*>(tile + at(first + i * 8 + l, k));
        x[i][0] = v.x, x[i][1] = v.y, x[i][2] = v.z, x[i][3] = v.w;
      } else {
        float4 v = *reinterpret_cast<const float4*>(tile + at(first + i / 4 * 32 + first_of_place(l), k + i % 4));
        x[i / 4 * 4][i % 4] = v.x, x[i / 4 * 4 + 1][i % 4] = v.y, x[i / 4 * 4 + 2][i % 4] = v.z, x[i / 4 * 4 + 3][i % 4] = v.w;
      }
    }
  }
};

/// Of bfloat16, `rows` x 32: octet e of a group of 32 is rows 8 e to 8 e + 8.
template <bool k_fast, int rows> struct Tile<Bf16, k_fast, rows> {
  static constexpr int floats = rows * gemm_bk;
  DAGRT_DEVICE static int at(int row, int k) {
    return k_fast ? row * 32 + ((k / 8) ^ (row / 2 & 3)) * 8 + k % 8 : k * rows + ((row / 8) ^ (k & 7)) * 8 + row % 8;
  }
  DAGRT_DEVICE static int row_of(int slot) { return slot; }

  /// Of 32 rows from `first`, columns k to k + 16: row lane / 4 of each octet at columns 2 (lane % 4) and the next, and 8 further.
  DAGRT_DEVICE static void fragments(uint32_t (&f)[4][2], const Bf16* tile, int first, int k) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      uint32_t r[4];
      if constexpr (k_fast)
        load_matrices(r, tile + at(first + lane, k + h * 8));
      else
        load_transposed(r, tile + at(first + lane / 8 * 8, k + h * 8 + lane % 8));
#pragma unroll
      for (int e = 0; e < 4; e++) f[e][h] = r[e];
    }
  }
};

/// Whether a loader's values come from a strip of its own in shared memory, to which it brings a chunk at a time (conv2d.cu).
template <class X, class = void> struct Staged {
  static constexpr bool value = false;
};
template <class X> struct Staged<X, decltype(void(&X::bring))> {
  static constexpr bool value = true;
};

/// What copies of zeros name as their source, which they do not read; an address that does not exist might be a fault.
ON_DEVICE(uint4, nowhere);

/// A thread's share of the copies of an operand's tiles, `width` elements at once along the contiguous direction.
template <class X, bool k_fast, int rows, int width, int threads> struct Copies {
  using T = typename ElementOf<X>::type;
  using To = Tile<T, k_fast, rows>;
  static constexpr int columns = columns_of<T>, across = (k_fast ? columns : rows) / width, down = threads / across;
  static constexpr int lines = k_fast ? rows : columns;  // of `across` copies; the last threads may have one less
  static constexpr int each = (lines + down - 1) / down, row_count = k_fast ? each : 1, col_count = k_fast ? 1 : each;
  static_assert(threads % across == 0);
  typename X::Row row[row_count];
  typename X::Col col[col_count];
  DAGRT_DEVICE static int along() { return threadIdx.x % across * width; }
  DAGRT_DEVICE int over(int n) const {
    const int i = threadIdx.x / across + n * down;
    return k_fast && Staged<X>::value && i % 2 ? (i - 1) ^ partner : i;
  }
  int partner = 1;

  DAGRT_DEVICE Copies(const X& x, int64_t i0, int64_t k0) {
    if constexpr (k_fast && Staged<X>::value) partner = x.partner;
#pragma unroll
    for (int n = 0; n < row_count; n++) row[n] = x.row_at(i0 + (k_fast ? To::row_of(over(n)) : along()));
#pragma unroll
    for (int n = 0; n < col_count; n++) col[n] = x.col_at(k0 + (k_fast ? along() : over(n)));
  }
  /// Starts those of one tile and goes on to the next.
  DAGRT_DEVICE void start(float* to, const X& x) {
#pragma unroll
    for (int n = 0; n < each; n++) {
      if (lines % down != 0 && over(n) >= lines) break;
      T* place = reinterpret_cast<T*>(to) + (k_fast ? To::at(over(n), along()) : To::at(along(), over(n)));
      const auto& r = row[k_fast ? n : 0];
      const auto& c = col[k_fast ? 0 : n];
      if constexpr (Staged<X>::value) {
        *place = x.value(r, c);
      } else {
        const void* from = x.at(r, c);
        copy_async<width * int(sizeof(T))>(place, from ? from : &nowhere, from != nullptr);
      }
    }
#pragma unroll
    for (int n = 0; n < col_count; n++) x.next(col[n]);
  }
};

/// Rows m = (b, i, j) of a product that stand in an image [., H, W] at (b, first_h + i step_h, first_w + j step_w).
struct Scatter {
  bool on = false;
  Divider by_ij, by_j;
  int64_t H = 0, W = 0, first_h = 0, first_w = 0, step_h = 1, step_w = 1;
  DAGRT_DEVICE int64_t at(int64_t m) const {
    if (!on) return m;
    uint32_t n = uint32_t(m), b = by_ij.divide(n), ij = n - b * by_ij.d, i = by_j.divide(ij), j = ij - i * by_j.d;
    return (b * H + first_h + i * step_h) * W + first_w + j * step_w;
  }
};

/// Where results go, and what is done to them before.
struct Target {
  float* c;
  int64_t ldc, M, N;
  Epilogue epilogue;
  Scatter rows;
  bool narrow = false;  // c holds bfloat16; of products of bfloat16 only
};

/// Jobs of one launch: batches x splits x tiles of M x tiles of N, the last fastest.
struct Jobs {
  int64_t M, N, K, splits, tiles_m, tiles_n;
  float* partials;  // [splits][M][N], where splits > 1
  int batch_rank;
  int64_t batch[8], a_batch[8], b_batch[8], c_batch[8];
  int64_t row_batch, col_batch;  // from one batch to the next, to a row and column of the epilogue's operands
  bool direct;                   // results go to memory 16 bytes at once
};

/// What a job changes of its target.
struct Spot {
  float* c;
  int64_t from, ldc, row, col;  // from: elements behind c
  bool raw;                     // a part of a sum: no epilogue
};

DAGRT_DEVICE float rounded(float x) {
  Bf16 h;
  narrow(x, h);
  return widen(h);
}

/// Stores four neighbours of a line; `bias` is theirs. T: of the operands. To a narrow target a bias is added as bfloat16's are:
/// to the product rounded.
template <class T> DAGRT_DEVICE void put_four(const Target& t, const Spot& s, int64_t m, int64_t n, float4 v, const float4& bias) {
  if (m >= t.M || n >= t.N) return;
  if (s.raw) {
    *reinterpret_cast<float4*>(s.c + s.from + m * s.ldc + n) = v;
    return;
  }
  const Epilogue& e = t.epilogue;
  const int64_t to = t.rows.at(m);
  if constexpr (is_bf16<T>) {
    if (t.narrow) v = make_float4(rounded(v.x), rounded(v.y), rounded(v.z), rounded(v.w));
  }
  if (e.bias) v.x += bias.x, v.y += bias.y, v.z += bias.z, v.w += bias.w;
  if (e.residual) {
    float4 x = *reinterpret_cast<const float4*>(e.residual + (s.row + to) * e.ld_residual + s.col + n);
    v.x += x.x, v.y += x.y, v.z += x.z, v.w += x.w;
  }
  if (e.relu) {
    v.x = activated(e, v.x), v.y = activated(e, v.y);
    v.z = activated(e, v.z), v.w = activated(e, v.w);
  }
  const int64_t at = s.from + to * s.ldc + n;
  if constexpr (is_bf16<T>) {
    if (t.narrow) {
      Bf16 h[4];
      narrow(v.x, h[0]), narrow(v.y, h[1]), narrow(v.z, h[2]), narrow(v.w, h[3]);
      *reinterpret_cast<uint2*>(reinterpret_cast<Bf16*>(s.c) + at) =
          make_uint2(h[0].bits | uint32_t(h[1].bits) << 16, h[2].bits | uint32_t(h[3].bits) << 16);
      return;
    }
  }
  *reinterpret_cast<float4*>(s.c + at) = v;
}
template <class T> DAGRT_DEVICE void put_one(const Target& t, const Spot& s, int64_t m, int64_t n, float v) {
  const int64_t to = s.raw ? m : t.rows.at(m), at = s.from + to * s.ldc + n;
  if constexpr (is_bf16<T>) {
    if (t.narrow && !s.raw) return narrow(finished(t.epilogue, s.row + to, s.col + n, rounded(v)), reinterpret_cast<Bf16*>(s.c)[at]);
  }
  if (!s.raw) v = finished(t.epilogue, s.row + to, s.col + n, v);
  s.c[at] = v;
}

/// A tile's place in shared memory on its way out; places of a warp's rows are kept apart: two of fours, four of pairs.
template <class T> DAGRT_DEVICE int staged_at(int m, int n, int BN) {
  return m * BN + (n ^ (is_bf16<T> ? m % 4 * 8 : m / 16 % 2 * 16));
}

/// Stores a finished tile from shared memory: any chain of instructions, any alignment, neighbours by neighbouring lanes.
template <class T>
__device__ __noinline__ void put_staged(const Target& t, const Spot& s, const float* tile, int64_t m0, int64_t n0, int BM, int BN) {
  const int rows = int(smaller(BM, t.M - m0)), cols = int(smaller(BN, t.N - n0));
  for (int i = threadIdx.x; i < rows * cols; i += int(blockDim.x)) {
    int m = int(unsigned(i) / unsigned(cols)), n = i - m * cols;
    put_one<T>(t, s, m0 + m, n0 + n, tile[staged_at<T>(m, n, BN)]);
  }
}

/// On its way out a tile goes through the stages' memory, at once or in two halves.
constexpr int halves_of(int64_t BM, int64_t BN) { return BM * BN <= gemm_stages * gemm_bk * (BM + BN) ? 1 : 2; }

/// A block of threads for a tile: warps of 64 x 64, of 32 along a side of 64; on the exact path threads of 8 x 4, of which
/// larger ones would not leave registers for copies element by element.
template <int BM, int BN, bool tensor> struct Shape {
  static_assert(BM % 64 == 0 && BN % 64 == 0);
  static constexpr int WM = BM < 128 ? 32 : 64, WN = BN < 128 ? 32 : 64;
  static constexpr int threads = tensor ? BM / WM * (BN / WN) * 32 : BM * BN / 32;
  static constexpr int halves = halves_of(BM, BN);
};

template <class A, class B, bool a_k, bool b_k, int width, int BM, int BN, bool tensor>
__global__ void __launch_bounds__(Shape<BM, BN, tensor>::threads, 1)
    gemm_kernel(Gate gate, A a, B b, const __grid_constant__ Target target, const __grid_constant__ Jobs jobs) {
  if ((tensor && !has_tf32) || closed(gate)) return;
  using S = Shape<BM, BN, tensor>;
  using T = typename ElementOf<A>::type;
  using TileA = Tile<T, a_k, BM>;
  using TileB = Tile<T, b_k, BN>;
  constexpr int bk = columns_of<T>;
  float* shared = dynamic_shared<float>();
  float* sb = shared + gemm_stages * TileA::floats;

  int64_t job = blockIdx.x;
  const int64_t n0 = job % jobs.tiles_n * BN;
  job /= jobs.tiles_n;
  const int64_t m0 = job % jobs.tiles_m * BM;
  job /= jobs.tiles_m;
  const int64_t split = job % jobs.splits;
  job /= jobs.splits;
  Spot spot{target.c, 0, target.ldc, job * jobs.row_batch, job * jobs.col_batch, jobs.splits > 1};
  for (int d = jobs.batch_rank - 1; d >= 0; d--) {
    int64_t i = job % jobs.batch[d];
    job /= jobs.batch[d];
    a.move(i * jobs.a_batch[d]);
    b.move(i * jobs.b_batch[d]);
    spot.from += i * jobs.c_batch[d];
  }
  if (spot.raw) spot.c = jobs.partials, spot.from = split * jobs.M * jobs.N, spot.ldc = jobs.N;
  const int64_t all = (jobs.K + bk - 1) / bk;  // steps, cut evenly among the splits
  const int64_t begin = all * split / jobs.splits;
  const int steps = int(all * (split + 1) / jobs.splits - begin);

  if constexpr (Staged<A>::value) {
    a.start(sb + gemm_stages * TileB::floats, m0, begin * bk, steps);
    commit_copies();
    wait_copies<0>();
    __syncthreads();
  }
  Copies<A, a_k, BM, Staged<A>::value ? 1 : width, S::threads> copies_a(a, m0, begin * bk);
  Copies<B, b_k, BN, width, S::threads> copies_b(b, n0, begin * bk);
  auto load = [&](int step) {
    if (step < steps) {
      if constexpr (Staged<A>::value) a.proceed(step);
      copies_a.start(shared + step % gemm_stages * TileA::floats, a);
      copies_b.start(sb + step % gemm_stages * TileB::floats, b);
    }
    commit_copies();
  };
  for (int s = 0; s < gemm_stages - 1; s++) {
    load(s);
    if constexpr (Staged<A>::value) __syncthreads();  // the next may fill what this one read
  }

  // Of a finished tile each thread stores the same four columns in every row that it meets.
  static_assert(S::threads % (BN / 4) == 0);
  const int out_n = threadIdx.x % (BN / 4) * 4;
  // each(half, put): put(m, n, v) for four neighbours, or two, at a time, as registers hold them
  auto out = [&](auto each) {
#pragma unroll
    for (int half = 0; half < S::halves; half++) {
      __syncthreads();  // what was there is read no more
      each(half, [&](int m, int n, auto v) { *reinterpret_cast<decltype(v)*>(shared + staged_at<T>(m, n, BN)) = v; });
      __syncthreads();
      if (S::halves == 1 && !jobs.direct) return put_staged<T>(target, spot, shared, m0, n0, BM, BN);
      float4 bias{};
      if (target.epilogue.bias && !spot.raw && n0 + out_n < target.N)
        bias = *reinterpret_cast<const float4*>(target.epilogue.bias + spot.col + n0 + out_n);
#pragma unroll 1
      for (int m = threadIdx.x / (BN / 4); m < BM / S::halves; m += S::threads / (BN / 4)) {
        const int row = S::halves == 1 ? m : m / 32 * 64 + half * 32 + m % 32;
        put_four<T>(target, spot, m0 + row, n0 + out_n, *reinterpret_cast<const float4*>(shared + staged_at<T>(m, out_n, BN)), bias);
      }
    }
  };

  if constexpr (tensor) {
    constexpr int GM = S::WM / 32, GN = S::WN / 32;  // groups of 32 rows and columns
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int wm = warp / (BN / S::WN) * S::WM, wn = warp % (BN / S::WN) * S::WN;
    float c[GM][2][GN][4][4] = {};
    for (int step = 0; step < steps; step++) {
      wait_copies<gemm_stages - 2>();
      __syncthreads();
      load(step + gemm_stages - 1);
      __syncwarp();  // lanes' walks along k are of different lengths
      const T* ta = reinterpret_cast<const T*>(shared + step % gemm_stages * TileA::floats);
      const T* tb = reinterpret_cast<const T*>(sb + step % gemm_stages * TileB::floats);
#pragma unroll
      for (int k = 0; k < bk; k += bk / 2) {
        uint32_t fa[GM][4][2], fb[GN][4][2];
#pragma unroll
        for (int i = 0; i < GM; i++) TileA::fragments(fa[i], ta, wm + i * 32, k);
#pragma unroll
        for (int j = 0; j < GN; j++) TileB::fragments(fb[j], tb, wn + j * 32, k);
#pragma unroll
        for (int i = 0; i < GM * 2; i++) {
          uint32_t(&f)[4][2] = fa[i / 2];
          uint32_t x[4] = {f[i % 2 * 2][0], f[i % 2 * 2 + 1][0], f[i % 2 * 2][1], f[i % 2 * 2 + 1][1]};
#pragma unroll
          for (int j = 0; j < GN * 4; j++) {
            if constexpr (is_bf16<T>)
              mma_bf16(c[i / 2][i % 2][j / 4][j % 4], x, fb[j / 4][j % 4]);
            else
              mma_tf32(c[i / 2][i % 2][j / 4][j % 4], x, fb[j / 4][j % 4]);
          }
        }
      }
    }
    wait_copies<0>();
    constexpr int halves = S::halves;
    out([&](int half, auto put) {
#pragma unroll
      for (int i = 0; i < GM / halves; i++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
          auto& rows = c[half * (halves - 1) + i][e / 2];
          const int m = wm / halves + i * 32;
          if constexpr (is_bf16<T>) {
#pragma unroll
            for (int j = 0; j < GN * 4; j++) {
              auto& x = rows[j / 4][j % 4];
              put(m + e * 8 + g, wn + j * 8 + t * 2, make_float2(x[e % 2 * 2], x[e % 2 * 2 + 1]));
            }
          } else {
#pragma unroll
            for (int j = 0; j < GN * 2; j++) {
              auto& x = rows[j / 2];
              const int p = e % 2 * 2 + j % 2;  // place 2 t + j % 2 of each of four octets
              put(m + first_of_place(g) + e, wn + j / 2 * 32 + j % 2 * 16 + t * 4, make_float4(x[0][p], x[1][p], x[2][p], x[3][p]));
            }
          }
        }
    });
  } else {
    static_assert(BM == 64 && BN == 64);
    const int l = threadIdx.x % 8, across = threadIdx.x / 8 % 2 * 32, down = threadIdx.x / 16;
    float c[8][4] = {};
    for (int step = 0; step < steps; step++) {
      wait_copies<gemm_stages - 2>();
      __syncthreads();
      load(step + gemm_stages - 1);
      const float* ta = shared + step % gemm_stages * TileA::floats;
      const float* tb = sb + step % gemm_stages * TileB::floats;
#pragma unroll 1
      for (int k = 0; k < gemm_bk; k += 4) {
        float x[8][4], y[4][4];
        TileA::block(x, ta, 0, down, k);
        TileB::block(y, tb, across, l, k);
#pragma unroll
        for (int h = 0; h < 4; h++)
#pragma unroll
          for (int i = 0; i < 8; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) c[i][j] += x[i][h] * y[j][h];
      }
    }
    wait_copies<0>();
    out([&](int, auto put) {
#pragma unroll
      for (int i = 0; i < 8; i++)
        put(i / 4 * 32 + first_of_place(down) + i % 4, across + first_of_place(l), make_float4(c[i][0], c[i][1], c[i][2], c[i][3]));
    });
  }
}

constexpr int add_threads = 256;
/// T: of the operands.
template <class T>
__global__ void __launch_bounds__(add_threads)
    add_splits_kernel(Gate gate, const float* partials, const __grid_constant__ Target target, int64_t splits) {
  if (closed(gate)) return;
  const int64_t size = target.M * target.N;
  const Spot spot{target.c, 0, target.ldc, 0, 0, false};
  for (int64_t i = first_index(); i < size; i += grid_stride()) {
    float sum = partials[i];
    for (int64_t k = 1; k < splits; k++) sum += partials[k * size + i];
    put_one<T>(target, spot, i / target.N, i % target.N, sum);
  }
}

/// A product's launches by their tiles, "conv2d 256x128", as reports and counts show them; lives as long as the program.
struct ProductName {
  char of_tile[gemm_tile_count][40] = {};
  constexpr explicit ProductName(const char* name) {
    for (int i = 0; i < gemm_tile_count; i++) {
      int n = 0;
      for (const char* c = name; *c && n < 30; c++) of_tile[i][n++] = *c;
      of_tile[i][n++] = ' ';
      n = put(of_tile[i], n, gemm_tiles[i].M);
      of_tile[i][n++] = 'x';
      put(of_tile[i], n, gemm_tiles[i].N);
    }
  }

 private:
  static constexpr int put(char (&to)[40], int n, int64_t number) {
    if (number >= 10) n = put(to, n, number / 10);
    to[n] = char('0' + number % 10);
    return n + 1;
  }
};

/// Tiles, the smallest first, that go out at once: the others only by four neighbours.
constexpr int whole_tiles(int n = 0) {
  return n < gemm_tile_count && halves_of(gemm_tiles[n].M, gemm_tiles[n].N) == 1 ? whole_tiles(n + 1) : n;
}

template <class A, class B, bool a_k, bool b_k, int width, int tile, bool tensor>
void launch_gemm(CudaStream& s, const ProductName& name, const A& a, const B& b, const Target& target, Jobs jobs, int64_t batches) {
  constexpr int BM = int(gemm_tiles[tile].M), BN = int(gemm_tiles[tile].N);
  jobs.tiles_m = pieces(jobs.M, BM), jobs.tiles_n = pieces(jobs.N, BN);
  size_t bytes = sizeof(float) * gemm_stages * gemm_bk * (BM + BN);
  if constexpr (Staged<A>::value) bytes += sizeof(float) * size_t(a.floats());
  const int64_t blocks = batches * jobs.splits * jobs.tiles_m * jobs.tiles_n;
  launch_with(s, name.of_tile[tile], gemm_kernel<A, B, a_k, b_k, width, BM, BN, tensor>, blocks_of(blocks),
              Shape<BM, BN, tensor>::threads, bytes, a, b, target, jobs);
  if (jobs.splits > 1)
    launch(s, "add_splits", add_splits_kernel<typename ElementOf<A>::type>, blocks_for(s, target.M * target.N, add_threads),
           add_threads, jobs.partials, target, jobs.splits);
}

/// Of the tile of that number.
template <class A, class B, bool a_k, bool b_k, int width, int tile = 0>
void launch_tile(int chosen, CudaStream& s, const ProductName& name, const A& a, const B& b, const Target& target, const Jobs& jobs,
                 int64_t batches) {
  if (chosen == tile) return launch_gemm<A, B, a_k, b_k, width, tile, true>(s, name, a, b, target, jobs, batches);
  if constexpr (tile + 1 < gemm_tile_count)
    launch_tile<A, B, a_k, b_k, width, tile + 1>(chosen, s, name, a, b, target, jobs, batches);
}

inline bool aligned_16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

/// Whether results may go to memory by four: neighbours are then one aligned access, and no instructions are run.
inline bool is_direct(const Target& t, const Jobs& j) {
  if (t.N % 4) return false;
  if (j.splits > 1) return aligned_16(j.partials);
  const Epilogue& e = t.epilogue;
  bool ok = e.simple && t.ldc % 4 == 0 && aligned_16(t.c) && j.col_batch % 4 == 0 && (!e.bias || aligned_16(e.bias)) &&
            (!e.residual || (aligned_16(e.residual) && e.ld_residual % 4 == 0));
  for (int d = 0; d < j.batch_rank; d++) ok = ok && j.c_batch[d] % 4 == 0;
  return ok;
}

/// Chooses tile and arithmetic. `jobs.K`, batches and partials are given; `splits`, unless given, follow from the sizes.
template <class A, class B, bool a_k, bool b_k, int width>
void gemm(CudaStream& s, const ProductName& name, const A& a, const B& b, const Target& target, Jobs jobs) {
  if (target.M == 0 || target.N == 0) return;
  int64_t batches = 1;
  for (int d = 0; d < jobs.batch_rank; d++) batches *= jobs.batch[d];
  if (batches == 0) return;
  jobs.M = target.M, jobs.N = target.N;
  constexpr int64_t bytes = sizeof(typename ElementOf<A>::type);
  if (jobs.splits == 0) jobs.splits = jobs.partials ? gemm_splits(batches, jobs.M, jobs.N, jobs.K, bytes) : 1;
  jobs.direct = is_direct(target, jobs);
  if constexpr (!Staged<A>::value && bytes == 4)
    if (s.exact || s.capability < 80)
      return launch_gemm<A, B, a_k, b_k, width, 0, false>(s, name, a, b, target, jobs, batches);
  if constexpr (width * bytes == 16 && !Staged<A>::value) {
    const int most = jobs.direct ? gemm_tile_count : whole_tiles();
    const int tile = gemm_tile(s.multiprocessors, batches, jobs.M, jobs.N, jobs.K, jobs.splits, bytes, most);
    launch_tile<A, B, a_k, b_k, width>(tile, s, name, a, b, target, jobs, batches);
  } else {
    launch_gemm<A, B, a_k, b_k, width, 0, true>(s, name, a, b, target, jobs, batches);
  }
}

}  // namespace
}  // namespace dagrt
