// Batch normalisation.
//
// A block takes 32 channels of a run of rows. Where the blocks of all runs fit the device at once, with their x in shared
// memory, one cooperative launch does it all and reads x once: each block leaves its moments in memory, the last to come merges
// them, the others wait for it, and all write y. Otherwise x is read twice: moments, their merging and y are launches of their
// own. Moments are those of eight values about their own mean, merged in a fixed order (Chan, Golub, LeVeque, "Updating formulae
// and a pairwise algorithm for computing sample variances", 1983): nothing cancels. The gradient likewise, with sums of dy and
// dy (x - mean) rstd.
#include "kernels/batch_norm.h"

#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/meeting.cuh"

namespace dagrt {
namespace {

constexpr int columns = 32, lines = 16, threads = columns * lines, chunk = 8;

/// A block's place: group and run, its thread's channel, its rows.
struct Place {
  int64_t group, part, c, from, to;
  bool in;
  DAGRT_DEVICE Place(const BatchNormArgs& a, int64_t parts)
      : group(blockIdx.x / parts),
        part(blockIdx.x % parts),
        c(group * columns + threadIdx.x),
        from(a.rows * part / parts),
        to(a.rows * (part + 1) / parts),
        in(c < a.C) {}
};

/// Memory of the kernels: two sums for each part, two of all, an rstd nobody reads, two counters for each group.
struct Workspace {
  float *first, *second, *all_first, *all_second, *rstd;
  unsigned* counters;
  DAGRT_HOST_DEVICE Workspace(const BatchNormArgs& a, int64_t parts)
      : first(a.workspace),
        second(first + parts * a.C),
        all_first(second + parts * a.C),
        all_second(all_first + a.C),
        rstd(all_second + a.C),
        counters(reinterpret_cast<unsigned*>(rstd + a.C)) {}
};

struct Moments {
  float n = 0, mean = 0, squares = 0;
  DAGRT_DEVICE void merge(float k, float other, float other_squares) {
    if (k == 0) return;
    float all = n + k, d = other - mean;
    squares += other_squares + d * d * (n * k / all);
    mean += d * (k / all);
    n = all;
  }
  /// Of all lines of a column, for line 0.
  DAGRT_DEVICE void merge_lines() {
    SHARED(float, counts, [lines][columns]);
    SHARED(float, means, [lines][columns]);
    SHARED(float, sums, [lines][columns]);
    const int x = threadIdx.x, y = threadIdx.y;
    counts[y][x] = n, means[y][x] = mean, sums[y][x] = squares;
    __syncthreads();
    if (y == 0)
      for (int k = 1; k < lines; k++) merge(counts[k][x], means[k][x], sums[k][x]);
  }
};

struct Sums {
  float first = 0, second = 0;
  DAGRT_DEVICE void add_lines() {
    SHARED(float, firsts, [lines][columns]);
    SHARED(float, seconds, [lines][columns]);
    const int x = threadIdx.x, y = threadIdx.y;
    firsts[y][x] = first, seconds[y][x] = second;
    __syncthreads();
    if (y == 0)
      for (int k = 1; k < lines; k++) first += firsts[k][x], second += seconds[k][x];
  }
};

/// Up to four numbers of each column, read by one line for all, behind a barrier.
struct PerColumn {
  float (*values)[columns];
  DAGRT_DEVICE PerColumn(const Place& at, const float* a, const float* b, const float* c, const float* d, float c_else, float d_else) {
    SHARED(float, room, [4][columns]);
    values = room;
    __syncthreads();
    if (threadIdx.y == 0) {  // beyond the last column too, where they are read and mean nothing
      room[0][threadIdx.x] = at.in ? __ldcg(a + at.c) : 0.0f;
      room[1][threadIdx.x] = at.in ? __ldcg(b + at.c) : 0.0f;
      room[2][threadIdx.x] = c && at.in ? c[at.c] : c_else;
      room[3][threadIdx.x] = d && at.in ? __ldcg(d + at.c) : d_else;
    }
    __syncthreads();
  }
  DAGRT_DEVICE float operator[](int k) const { return values[k][threadIdx.x]; }
};

// A pass: what a block leaves of its part, what one block makes of all parts, what each makes of its part then. Of each element
// it may keep some values on chip.
struct Forward {
  static constexpr const char *together_name = "batch_norm", *part_name = "batch_norm_moments", *merge_name = "batch_norm_merge",
                              *finish_name = "batch_norm_normalise";
  static constexpr int values = 1;

  /// The moments of the block's part; with `kept`, x stays there.
  DAGRT_DEVICE static void part(const BatchNormArgs& a, const Place& at, int64_t parts, float* kept) {
    Moments all;
    if (at.in)
      for (int64_t m = at.from + threadIdx.y; m < at.to; m += chunk * lines) {
        float v[chunk], mean = 0, squares = 0;
        int n = 0;
#pragma unroll
        for (int k = 0; k < chunk; k++) {
          const int64_t row = m + k * lines;
          v[k] = 0;
          if (row >= at.to) continue;
          v[k] = a.x[row * a.ldx + at.c];
          if (kept) kept[(row - at.from) * columns + threadIdx.x] = v[k];
          mean += v[k], n++;
        }
        mean /= float(n);
#pragma unroll
        for (int k = 0; k < chunk; k++)
          if (k < n) squares += (v[k] - mean) * (v[k] - mean);
        all.merge(float(n), mean, squares);
      }
    all.merge_lines();
    if (!at.in || threadIdx.y) return;
    const Workspace w(a, parts);
    w.first[at.part * a.C + at.c] = all.mean;
    w.second[at.part * a.C + at.c] = all.squares;
  }

  /// mean, variance and rstd of a group's channels, by one block.
  DAGRT_DEVICE static void merge(const BatchNormArgs& a, const Place& at, int64_t parts) {
    const Workspace w(a, parts);
    Moments all;
    if (at.in && a.rows)
      for (int64_t part = threadIdx.y; part < parts; part += lines)
        all.merge(float(a.rows * (part + 1) / parts - a.rows * part / parts), __ldcg(w.first + part * a.C + at.c),
                  __ldcg(w.second + part * a.C + at.c));
    all.merge_lines();
    if (!at.in || threadIdx.y) return;
    const float variance = all.squares / float(a.rows);
    a.mean[at.c] = a.rows ? all.mean : 0.0f / 0.0f;
    a.variance[at.c] = variance;
    a.rstd[at.c] = 1.0f / sqrtf(variance + a.epsilon);
  }

  /// y of the block's part.
  DAGRT_DEVICE static void finish(const BatchNormArgs& a, const Place& at, int64_t, const float* kept) {
    const PerColumn of(at, a.mean, a.rstd, a.gamma, a.beta, 1.0f, 0.0f);
    if (!at.in) return;
    const float mean = of[0], scale = of[1] * of[2], beta = of[3];
    for (int64_t m = at.from + threadIdx.y; m < at.to; m += lines) {
      const float x = kept ? kept[(m - at.from) * columns + threadIdx.x] : a.x[m * a.ldx + at.c];
      a.y[m * a.ldy + at.c] = finished(a.epilogue, m, at.c, (x - mean) * scale + beta);
    }
  }
};

struct Backward {
  static constexpr const char *together_name = "batch_norm_grad", *part_name = "batch_norm_grad_sums", *merge_name = "batch_norm_grad_merge",
                              *finish_name = "batch_norm_grad_input";
  static constexpr int values = 2;

  /// The sums of the block's part; with `kept`, dy and (x - mean) rstd stay there.
  DAGRT_DEVICE static void part(const BatchNormArgs& a, const Place& at, int64_t parts, float* kept) {
    const PerColumn of(at, a.mean, a.rstd, nullptr, nullptr, 0.0f, 0.0f);
    Sums sums;
    if (at.in)
      for (int64_t m = at.from + threadIdx.y; m < at.to; m += lines) {
        const float dy = a.dy[m * a.lddy + at.c], normal = (a.x[m * a.ldx + at.c] - of[0]) * of[1];
        sums.first += dy;
        sums.second += dy * normal;
        if (!kept) continue;
        float* to = kept + (m - at.from) * 2 * columns + threadIdx.x;
        to[0] = dy, to[columns] = normal;
      }
    sums.add_lines();
    if (!at.in || threadIdx.y) return;
    const Workspace w(a, parts);
    w.first[at.part * a.C + at.c] = sums.first;
    w.second[at.part * a.C + at.c] = sums.second;
  }

  DAGRT_DEVICE static void merge(const BatchNormArgs& a, const Place& at, int64_t parts) {
    const Workspace w(a, parts);
    Sums sums;
    if (at.in)
      for (int64_t part = threadIdx.y; part < parts; part += lines)
        sums.first += __ldcg(w.first + part * a.C + at.c), sums.second += __ldcg(w.second + part * a.C + at.c);
    sums.add_lines();
    if (!at.in || threadIdx.y) return;
    w.all_first[at.c] = sums.first;
    w.all_second[at.c] = sums.second;
    if (a.dbeta) a.dbeta[at.c] = sums.first;
    if (a.dgamma) a.dgamma[at.c] = sums.second;
  }

  DAGRT_DEVICE static void finish(const BatchNormArgs& a, const Place& at, int64_t parts, const float* kept) {
    const Workspace w(a, parts);
    const PerColumn sums(at, w.all_first, w.all_second, nullptr, nullptr, 0.0f, 0.0f);
    const float share = 1.0f / float(a.rows), first = sums[0] * share, second = sums[1] * share;
    const PerColumn of(at, a.mean, a.rstd, a.gamma, nullptr, 1.0f, 0.0f);
    if (!at.in) return;
    const float mean = of[0], rstd = of[1], scale = rstd * of[2];
    for (int64_t m = at.from + threadIdx.y; m < at.to; m += lines) {
      const float* from = kept + (m - at.from) * 2 * columns + threadIdx.x;
      const float dy = kept ? from[0] : a.dy[m * a.lddy + at.c];
      const float normal = kept ? from[columns] : (a.x[m * a.ldx + at.c] - mean) * rstd;
      a.dx[m * a.lddx + at.c] = (dy - (first + normal * second)) * scale;
    }
  }
};

template <class Pass> __global__ void __launch_bounds__(threads) part_kernel(Gate gate, BatchNormArgs a, int64_t parts) {
  if (!closed(gate)) Pass::part(a, Place(a, parts), parts, nullptr);
}
template <class Pass> __global__ void __launch_bounds__(threads) merge_kernel(Gate gate, BatchNormArgs a, int64_t parts) {
  if (!closed(gate)) Pass::merge(a, Place(a, 1), parts);
}
template <class Pass> __global__ void __launch_bounds__(threads) finish_kernel(Gate gate, BatchNormArgs a, int64_t parts) {
  if (!closed(gate)) Pass::finish(a, Place(a, parts), parts, nullptr);
}
/// A multiprocessor holds one such block, which may therefore have all registers.
template <class Pass> __global__ void __launch_bounds__(threads, 1) together_kernel(Gate gate, BatchNormArgs a, int64_t parts) {
  if (closed(gate)) return;
  float* kept = dynamic_shared<float>();
  const Place at(a, parts);
  unsigned* counters = Workspace(a, parts).counters + 2 * at.group;
  Pass::part(a, at, parts, kept);
  if (arrive_last(counters, unsigned(parts))) {
    Pass::merge(a, at, parts);
    arrive(counters + 1);
  }
  wait_for(counters + 1, 1);
  Pass::finish(a, at, parts, kept);
}

/// `finish`: whether anybody wants what the pass writes for each element.
template <class Pass> void run(BatchNormArgs a, CudaStream& s, bool finish) {
  if (!a.C) return;
  const int64_t groups = pieces(a.C, columns), most = batch_norm_device_parts(a.rows);
  // At once, where every block has a multiprocessor and what it keeps fits on chip beside the kernels' own.
  const int64_t at_once = smaller(most, s.multiprocessors / groups);
  const size_t bytes = at_once ? size_t(pieces(a.rows, at_once)) * columns * 4 * Pass::values : 0;
  const bool together = a.rows && finish && at_once && bytes + (12 << 10) <= s.shared_bytes;
  const int64_t parts = together ? at_once : most;
  const unsigned blocks = blocks_of(parts * groups);
  const dim3 block(columns, lines);
  const Workspace w(a, parts);
  if (!a.rstd) a.rstd = w.rstd;
  if (together) {
    launch(s, "zero_counters", zero_counters_kernel, 1, zero_threads, w.counters, 2 * groups);
    return launch_together(s, Pass::together_name, together_kernel<Pass>, blocks, block, bytes, a, parts);
  }
  launch(s, Pass::part_name, part_kernel<Pass>, blocks, block, a, parts);
  launch(s, Pass::merge_name, merge_kernel<Pass>, blocks_of(groups), block, a, parts);
  if (a.rows && finish) launch(s, Pass::finish_name, finish_kernel<Pass>, blocks, block, a, parts);
}

}  // namespace

void batch_norm(const BatchNormArgs& a, CudaStream& s) { run<Forward>(a, s, true); }
void batch_norm_grad(const BatchNormArgs& a, CudaStream& s) { run<Backward>(a, s, a.dx != nullptr); }

}  // namespace dagrt
