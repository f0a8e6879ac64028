// The functions of kernels/cuda/mma.cuh on the host. A fragment's elements stand where the PTX manual puts them; operands that
// are not rounded to TF32, which the hardware would truncate silently, are faults.
#pragma once
#include "kernels/cuda/common.cuh"

namespace dagrt {
namespace {

template <int bytes> DAGRT_DEVICE void copy_async(void* dst, const void* src, bool real = true, DAGRT_WHERE) {
  emulator::copy_later(dst, src, bytes, real, file, line);
}
inline void commit_copies() { emulator::commit_copies(); }
template <int left> void wait_copies() { emulator::wait_copies(left); }
inline void relax(DAGRT_WHERE) { emulator::yield(file, line); }

constexpr bool has_tf32 = true;

/// The addresses go round the warp; each lane then reads for itself, so that what it reads is watched.
inline void load_matrices(uint32_t (&r)[4], const void* row, DAGRT_WHERE) {
  if (reinterpret_cast<uintptr_t>(row) % 16) emulator::stop_thread("a row of ldmatrix is not aligned to 16 bytes", file, line);
  struct Rows {
    const void *mine, *of[4];
  } rows{row, {}};
  emulator::all_together(
      &rows,
      [](void** lanes) {
        for (int i = 0; i < 32; i++)
          for (int m = 0; m < 4; m++)
            static_cast<Rows*>(lanes[i])->of[m] = static_cast<Rows*>(lanes[m * 8 + i / 4])->mine;
      },
      file, line);
  for (int m = 0; m < 4; m++) r[m] = static_cast<const uint32_t*>(rows.of[m])[emulator_lane() % 4];
}
/// What lanes have read goes round once more.
inline void load_transposed(uint32_t (&r)[4], const void* row, DAGRT_WHERE) {
  load_matrices(r, row, file, line);
  struct Words {
    uint32_t read[4], *kept;
  } mine{{r[0], r[1], r[2], r[3]}, r};
  emulator::all_together(
      &mine,
      [](void** lanes) {
        auto element = [&](int m, int i, int k) {  // of row i
          return static_cast<Words*>(lanes[i * 4 + k / 2])->read[m] >> k % 2 * 16 & 0xffff;
        };
        for (int i = 0; i < 32; i++)
          for (int m = 0; m < 4; m++)
            static_cast<Words*>(lanes[i])->kept[m] = element(m, i % 4 * 2, i / 4) | element(m, i % 4 * 2 + 1, i / 4) << 16;
      },
      file, line);
}

inline void needs_generation(int least, const char* file, int line) {
  if (emulator::capability() < least) emulator::stop_thread("an instruction that the device's generation does not have", file, line);
}

struct MmaLane {
  float* c;
  const uint32_t *a, *b;
};
inline void mma_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], DAGRT_WHERE) {
  needs_generation(80, file, line);
  if (emulator::here.sampled) return;
  const uint32_t swapped[2] = {b[1], b[0]};
  MmaLane mine{c, a, emulator::swaps_fragments() ? swapped : b};
  for (uint32_t x : a)
    if (x & 0x1fff) emulator::stop_thread("operand A is not rounded to TF32", file, line);
  for (uint32_t x : b)
    if (x & 0x1fff) emulator::stop_thread("operand B is not rounded to TF32", file, line);
  emulator::all_together(
      &mine,
      [](void** lanes) {
        float A[16][8], B[8][8];
        for (int i = 0; i < 32; i++) {
          auto* l = static_cast<MmaLane*>(lanes[i]);
          int g = i / 4, t = i % 4;
          for (int e = 0; e < 4; e++) A[g + e % 2 * 8][t + e / 2 * 4] = bits_to_float(l->a[e]);
          for (int e = 0; e < 2; e++) B[t + e * 4][g] = bits_to_float(l->b[e]);
        }
        for (int i = 0; i < 32; i++) {
          auto* l = static_cast<MmaLane*>(lanes[i]);
          int g = i / 4, t = i % 4;
          for (int e = 0; e < 4; e++) {
            float sum = 0;
            for (int k = 0; k < 8; k++) sum += A[g + e / 2 * 8][k] * B[k][t * 2 + e % 2];
            l->c[e] += sum;
          }
        }
      },
      file, line);
}

inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], DAGRT_WHERE) {
  needs_generation(80, file, line);
  if (emulator::here.sampled) return;
  const uint32_t swapped[2] = {b[1], b[0]};
  MmaLane mine{c, a, emulator::swaps_fragments() ? swapped : b};
  emulator::all_together(
      &mine,
      [](void** lanes) {
        float A[16][16], B[16][8];
        auto half = [](uint32_t pair, int h) { return bits_to_float(h ? pair & 0xffff0000 : pair << 16); };
        for (int i = 0; i < 32; i++) {
          auto* l = static_cast<MmaLane*>(lanes[i]);
          int g = i / 4, t = i % 4;
          for (int h = 0; h < 2; h++) {
            for (int e = 0; e < 4; e++) A[g + e % 2 * 8][t * 2 + h + e / 2 * 8] = half(l->a[e], h);
            for (int e = 0; e < 2; e++) B[t * 2 + h + e * 8][g] = half(l->b[e], h);
          }
        }
        for (int i = 0; i < 32; i++) {
          auto* l = static_cast<MmaLane*>(lanes[i]);
          int g = i / 4, t = i % 4;
          for (int e = 0; e < 4; e++) {
            float sum = 0;
            for (int k = 0; k < 16; k++) sum += A[g + e / 2 * 8][k] * B[k][t * 2 + e % 2];
            l->c[e] += sum;
          }
        }
      },
      file, line);
}

}  // namespace
}  // namespace dagrt
