// Pointwise functions with broadcasting.
//
// Axes that lie behind one another in every operand are merged first; what remains is cut into strips of at most
// `strip_elements` elements, and every functor is a function over one strip: operands contiguous, or (of two, at most
// one) a scalar. Strips stay inside one innermost row where rows are long. Where they are short (a bias of 3 channels),
// a strip covers many rows, and operands that are not contiguous over it are gathered into a buffer in L1: a call per
// row would cost more than the work. 16-bit floats pass through such a buffer too, as float32. Results larger than caches are
// written past them (vec.h).
// A lane's value depends on its own operands alone: neither strips nor threads nor broadcasting change a bit.
#include "kernels/pointwise.h"

#include "kernels/cpu/epilogue.h"
#include "kernels/cpu/strips.h"

namespace dagrt::DAGRT_ISA {
namespace {

constexpr int64_t strip_elements = 1024;
constexpr int64_t strips_per_unit = 8;
constexpr double memory_ns = 0.3;  // to read and write an element

// ---------------------------------------------------------------- operands
// How elements lie in memory and in a strip's buffer.
enum class Storage : uint8_t { bytes1, bytes2, bytes4, bytes8, bf16, half };

struct Operand {
  char* data;
  Storage storage;
  int size;         // bytes of an element in memory
  int buffer_size;  // and in a buffer
  bool contiguous;  // over the whole space
  bool same_rows;   // every row is the same memory (all outer strides are 0)
  int64_t stride[8];
};

template <class T> DAGRT_INLINE void spread(void* out, const void* in, int64_t stride, int64_t n) {
  T* y = static_cast<T*>(out);
  const T* a = static_cast<const T*>(in);
  if (stride == 0) {
    T v = *a;
    for (int64_t i = 0; i < n; i++) y[i] = v;
  } else if (stride == 1) {
    for (int64_t i = 0; i < n; i++) y[i] = a[i];
  } else {
    for (int64_t i = 0; i < n; i++) y[i] = a[i * stride];
  }
}
template <class T> DAGRT_INLINE void collect(void* out, const void* in, int64_t stride, int64_t n) {
  T* y = static_cast<T*>(out);
  const T* a = static_cast<const T*>(in);
  for (int64_t i = 0; i < n; i++) y[i * stride] = a[i];
}

void gather(const Operand& o, void* buffer, const char* at, int64_t stride, int64_t n) {
  switch (o.storage) {
    case Storage::bytes1: return spread<uint8_t>(buffer, at, stride, n);
    case Storage::bytes2: return spread<uint16_t>(buffer, at, stride, n);
    case Storage::bytes4: return spread<uint32_t>(buffer, at, stride, n);
    case Storage::bytes8: return spread<uint64_t>(buffer, at, stride, n);
    default: break;
  }
  float* y = static_cast<float*>(buffer);
  const uint16_t* a = reinterpret_cast<const uint16_t*>(at);
  if (o.storage == Storage::bf16)
    for (int64_t i = 0; i < n; i++) y[i] = bf16_to_float(a[i * stride]);
  else
    for (int64_t i = 0; i < n; i++) y[i] = half_to_float(a[i * stride]);
}

void scatter(const Operand& o, char* at, const void* buffer, int64_t stride, int64_t n) {
  switch (o.storage) {
    case Storage::bytes1: return collect<uint8_t>(at, buffer, stride, n);
    case Storage::bytes2: return collect<uint16_t>(at, buffer, stride, n);
    case Storage::bytes4: return collect<uint32_t>(at, buffer, stride, n);
    case Storage::bytes8: return collect<uint64_t>(at, buffer, stride, n);
    default: break;
  }
  const float* a = static_cast<const float*>(buffer);
  uint16_t* y = reinterpret_cast<uint16_t*>(at);
  if (o.storage == Storage::bf16)
    for (int64_t i = 0; i < n; i++) y[i * stride] = float_to_bf16(a[i]);
  else
    for (int64_t i = 0; i < n; i++) y[i * stride] = float_to_half(a[i]);
}

constexpr int most_operands = 1 + fused_inputs;

/// What to walk: y and the inputs, axes merged.
struct Job {
  int operands;  // with y
  unsigned may_be_scalar;
  int most_scalars;
  int rank;
  int64_t dims[8];
  Operand o[most_operands];
  unsigned past;  // past_caches, or 0: y stays in them

  int64_t row_offset(int k, int64_t row) const {  // elements
    int64_t at = 0;
    for (int d = rank - 2; d >= 0 && row; d--) {
      at += row % dims[d] * o[k].stride[d];
      row /= dims[d];
    }
    return at;
  }
};

Storage storage_of(DType t, bool convert) {
  if (convert && t == DType::bfloat16) return Storage::bf16;
  if (convert && t == DType::float16) return Storage::half;
  switch (size_of(t)) {
    case 1: return Storage::bytes1;
    case 2: return Storage::bytes2;
    case 4: return Storage::bytes4;
    default: return Storage::bytes8;
  }
}

template <class Args> Job make_job(const Args& a, bool convert, unsigned may_be_scalar, int most_scalars, bool can_go_past) {
  Job j;
  j.operands = a.operands + 1;
  j.may_be_scalar = may_be_scalar;
  j.most_scalars = most_scalars;
  for (int k = 0; k < j.operands; k++) {
    Operand& o = j.o[k];
    o.data = static_cast<char*>(a.data[k]);
    o.storage = storage_of(a.dtype[k], convert);
    o.size = int(size_of(a.dtype[k]));
    o.buffer_size = o.storage == Storage::bf16 || o.storage == Storage::half ? 4 : o.size;
  }
  // Axes of size 1 go; an axis whose stride is that of a whole inner axis, in every operand, joins it.
  j.rank = 0;
  for (int d = 0; d < a.rank; d++) {
    if (a.dims[d] == 1) continue;
    bool joins = j.rank > 0;
    for (int k = 0; k < j.operands; k++) joins = joins && j.o[k].stride[j.rank - 1] == a.strides[k][d] * a.dims[d];
    int to = joins ? j.rank - 1 : j.rank++;
    j.dims[to] = joins ? j.dims[to] * a.dims[d] : a.dims[d];
    for (int k = 0; k < j.operands; k++) j.o[k].stride[to] = a.strides[k][d];
  }
  if (j.rank == 0) {
    j.rank = 1;
    j.dims[0] = 1;
    for (int k = 0; k < j.operands; k++) j.o[k].stride[0] = 1;
  }
  for (int k = 0; k < j.operands; k++) {
    Operand& o = j.o[k];
    o.contiguous = o.stride[j.rank - 1] == 1;
    o.same_rows = true;
    for (int d = 0; d + 1 < j.rank; d++) {
      o.contiguous = o.contiguous && o.stride[d] == o.stride[d + 1] * j.dims[d + 1];
      o.same_rows = o.same_rows && o.stride[d] == 0;
    }
  }
  int64_t rows = 1, whole = 0;  // operands that are as large as y
  for (int d = 0; d + 1 < j.rank; d++) rows *= j.dims[d];
  for (int k = 0; k < j.operands; k++) {
    whole += j.o[k].contiguous;
    if (k) can_go_past = can_go_past && j.o[k].data != j.o[0].data;
  }
  const int64_t width = j.dims[j.rank - 1], ld = rows == 1 ? V : width;
  can_go_past = can_go_past && j.o[0].contiguous && j.o[0].storage == Storage::bytes4;
  j.past =
      can_go_past && goes_past(reinterpret_cast<float*>(j.o[0].data), ld, rows, width, rows * width * whole) ? past_caches : 0;
  return j;
}

struct Buffers {
  alignas(64) char bytes[most_operands][strip_elements * 8];
};

/// A strip inside one row: n elements from column `column`.
template <class Run> void run_in_row(const Job& j, int64_t row, int64_t column, int64_t n, Buffers& buffers, const Run& run) {
  const void* x[fused_inputs] = {};
  void* y = nullptr;
  char* y_at = nullptr;
  int64_t inner[most_operands];
  unsigned scalars = 0;
  int count = 0;
  for (int k = 0; k < j.operands; k++) {
    const Operand& o = j.o[k];
    inner[k] = o.stride[j.rank - 1];
    char* at = o.data + (j.row_offset(k, row) + column * inner[k]) * o.size;
    bool direct = inner[k] == 1 && o.size == o.buffer_size && o.storage < Storage::bf16;
    if (k == 0) {
      y_at = at;
      y = direct ? at : buffers.bytes[0];
      continue;
    }
    bool scalar = inner[k] == 0 && (j.may_be_scalar >> (k - 1) & 1) && count < j.most_scalars;
    x[k - 1] = direct ? at : buffers.bytes[k];
    if (scalar) scalars |= 1u << (k - 1), count++;
    if (!direct) gather(o, buffers.bytes[k], at, inner[k], scalar ? 1 : n);
  }
  run(y, x, scalars, n);
  if (y != y_at) scatter(j.o[0], y_at, y, inner[0], n);
}

/// `rows` whole short rows from `first`. `kept`: operands whose buffer holds enough equal rows already.
template <class Run> void run_rows(const Job& j, int64_t first, int64_t rows, unsigned& kept, Buffers& buffers, const Run& run) {
  int64_t width = j.dims[j.rank - 1], n = rows * width;
  const void* x[fused_inputs] = {};
  void* y = nullptr;
  auto direct = [](const Operand& o) { return o.contiguous && o.storage < Storage::bf16; };
  for (int k = 0; k < j.operands; k++) {
    const Operand& o = j.o[k];
    char* at = o.data + first * width * o.size;
    if (k == 0) {
      y = direct(o) ? at : buffers.bytes[0];
      continue;
    }
    if (direct(o)) {
      x[k - 1] = at;
      continue;
    }
    x[k - 1] = buffers.bytes[k];
    if (o.contiguous) {
      gather(o, buffers.bytes[k], at, 1, n);
      continue;
    }
    if (kept >> k & 1) continue;
    int64_t inner = o.stride[j.rank - 1];
    if (o.same_rows) kept |= 1u << k;
    // Walk the rows like an odometer.
    int64_t index[8], rest = first, offset = 0;
    for (int d = j.rank - 2; d >= 0; d--) {
      index[d] = rest % j.dims[d];
      rest /= j.dims[d];
      offset += index[d] * o.stride[d];
    }
    for (int64_t r = 0; r < rows; r++) {
      gather(o, buffers.bytes[k] + r * width * o.buffer_size, o.data + offset * o.size, inner, width);
      for (int d = j.rank - 2; d >= 0; d--) {
        offset += o.stride[d];
        if (++index[d] < j.dims[d]) break;
        offset -= o.stride[d] * j.dims[d];
        index[d] = 0;
      }
    }
  }
  run(y, x, 0u, n);
  const Operand& o = j.o[0];
  if (direct(o)) return;
  for (int64_t r = 0; r < rows; r++)
    scatter(o, o.data + j.row_offset(0, first + r) * o.size, buffers.bytes[0] + r * width * o.buffer_size, o.stride[j.rank - 1],
            width);
}

template <class Run> void walk(const Job& j, int64_t total, double ns, const Stream& s, const Run& run) {
  const int64_t width = j.dims[j.rank - 1], rows = total / width;
  ns += memory_ns;
  if (width >= 256 || j.rank == 1) {
    const int64_t strips = (width + strip_elements - 1) / strip_elements;
    const int64_t per_row = (strips + strips_per_unit - 1) / strips_per_unit;
    const double unit = double(width < strip_elements * strips_per_unit ? width : strip_elements * strips_per_unit);
    s.parallel(rows * per_row, unit * ns, [&](int64_t u, char*) {
      Buffers buffers;
      int64_t row = u / per_row, begin = u % per_row * strips_per_unit * strip_elements;
      int64_t end = begin + strips_per_unit * strip_elements < width ? begin + strips_per_unit * strip_elements : width;
      for (int64_t c = begin; c < end; c += strip_elements)
        run_in_row(j, row, c, end - c < strip_elements ? end - c : strip_elements, buffers, run);
      if (j.past) finish_past();
    });
    return;
  }
  const int64_t rows_per_strip = strip_elements / width, rows_per_unit = rows_per_strip * strips_per_unit;
  const int64_t units = (rows + rows_per_unit - 1) / rows_per_unit;
  s.parallel(units, double(rows_per_unit * width) * (ns + 0.3), [&](int64_t u, char*) {
    Buffers buffers;
    unsigned kept = 0;
    int64_t end = (u + 1) * rows_per_unit < rows ? (u + 1) * rows_per_unit : rows;
    for (int64_t r = u * rows_per_unit; r < end; r += rows_per_strip)
      run_rows(j, r, end - r < rows_per_strip ? end - r : rows_per_strip, kept, buffers, run);
    if (j.past) finish_past();
  });
}

template <class Args> int64_t elements(const Args& a) {
  int64_t n = 1;
  for (int d = 0; d < a.rank; d++) n *= a.dims[d];
  return n;
}

// ---------------------------------------------------------------- fused chains
/// A chain made ready: the strip function of each instruction and the slot its result goes to.
struct Program {
  struct Step {
    Strip strip;
    int operands;
    int arg[3];
    int slot;
    int bytes[3];  // of an operand's element
  };
  int inputs, count;
  Step steps[fused_instructions];
};

/// Slots are given back after their value's last use, so a chain needs few of them and stays in L1.
Program make_program(int inputs, int count, const FusedInstruction* code) {
  Program p;
  p.inputs = inputs;
  p.count = count;
  int last_use[fused_instructions];
  for (int i = 0; i < count; i++) {
    last_use[i] = i;
    for (int k = 0; k < code[i].operands; k++)
      if (code[i].arg[k] >= inputs) last_use[code[i].arg[k] - inputs] = i;
  }
  bool taken[fused_instructions] = {};
  for (int i = 0; i < count; i++) {
    const FusedInstruction& c = code[i];
    Program::Step& s = p.steps[i];
    s.strip = find_strip(c.f, c.operand, c.result);
    s.operands = c.operands;
    for (int k = 0; k < c.operands; k++) {
      s.arg[k] = c.arg[k];
      s.bytes[k] = c.f == Functor::select_ && k == 0 ? 1 : int(size_of(c.f == Functor::select_ ? c.result : c.operand));
    }
    s.slot = 0;
    while (taken[s.slot]) s.slot++;
    taken[s.slot] = true;
    for (int v = 0; v <= i; v++)  // freed only now: a strip's result is never written over its operands
      if (last_use[v] == i) taken[p.steps[v].slot] = false;
  }
  return p;
}

struct Slots {
  alignas(64) char bytes[fused_instructions][strip_elements * 4];
  alignas(64) char filled[3][strip_elements * 4];
};

/// `scalars`: of the inputs, and perhaps past_caches.
void run_program(const Program& p, const float* constants, void* y, const void* const* x, unsigned scalars, int64_t n,
                 Slots& slots) {
  const void* results[fused_instructions];
  for (int i = 0; i < p.count; i++) {
    const Program::Step& s = p.steps[i];
    const void* operand[3];
    unsigned mask = 0;
    int count = 0;
    for (int k = 0; k < s.operands; k++) {
      int v = s.arg[k];
      operand[k] = v < 0 ? constants + (-1 - v) : v < p.inputs ? x[v] : results[v - p.inputs];
      if (v >= 0 && (v >= p.inputs || !(scalars >> v & 1))) continue;
      if ((may_be_scalar(s.operands) >> k & 1) && count < most_scalars(s.operands)) {
        mask |= 1u << k;
        count++;
      } else {
        if (s.bytes[k] == 1)
          spread<uint8_t>(slots.filled[k], operand[k], 0, n);
        else
          spread<uint32_t>(slots.filled[k], operand[k], 0, n);
        operand[k] = slots.filled[k];
      }
    }
    const bool last = i + 1 == p.count;
    void* to = last ? y : slots.bytes[s.slot];
    s.strip(to, operand, last ? mask | (scalars & past_caches) : mask, n);
    results[i] = to;
  }
}

// ---------------------------------------------------------------- epilogues
void copy_rows(float* to, int64_t ld_to, const float* from, int64_t ld_from, int64_t rows, int64_t n) {
  for (int64_t r = 0; r < rows; r++) __builtin_memcpy(to + r * ld_to, from + r * ld_from, size_t(n) * sizeof(float));
}

void apply_simple(const SimpleEpilogue& e, float* tile, int64_t ld, int64_t row, int64_t column, int64_t rows, int64_t n) {
  for (int64_t r = 0; r < rows; r++, tile += ld) {
    int64_t i = 0;
    for (; i + V <= n; i += V) store(tile + i, finish(e, load(tile + i), row + r, column + i, V));
    if (int left = int(n - i)) store_n(tile + i, finish(e, load_n(tile + i, left), row + r, column + i, left), left);
  }
}

}  // namespace

void apply_epilogue(const Epilogue& e, float* tile, int64_t ld, int64_t row, int64_t column, int64_t rows, int64_t n) {
  if (finishes(e)) {
    if (!e.empty()) apply_simple(finishing(e), tile, ld, row, column, rows, n);
    return;
  }
  const Program p = make_program(1 + e.operands, e.count, e.code);
  Slots slots;
  alignas(64) float buffer[1 + epilogue_operands][strip_elements];
  const int64_t width = n < strip_elements ? n : strip_elements, high = strip_elements / (width ? width : 1);
  for (int64_t c = 0; c < n; c += width) {
    const int64_t wide = n - c < width ? n - c : width;
    for (int64_t r = 0; r < rows; r += high) {
      const int64_t count = rows - r < high ? rows - r : high;
      float* at = tile + r * ld + c;
      float* y = count == 1 || ld == wide ? at : buffer[0];
      if (y != at) copy_rows(y, wide, at, ld, count, wide);
      const void* x[1 + epilogue_operands] = {y};
      unsigned scalars = 0;
      for (int k = 0; k < e.operands; k++) {
        const float* from = e.data[k];
        x[1 + k] = from;
        if (e.scalar[k]) {
          scalars |= 2u << k;
          continue;
        }
        from += (row + r) * e.row_stride[k] + column + c;
        x[1 + k] = from;
        if (count == 1 || e.row_stride[k] == wide) continue;
        x[1 + k] = buffer[1 + k];
        if (r == 0 || e.row_stride[k]) copy_rows(buffer[1 + k], wide, from, e.row_stride[k], count, wide);
      }
      run_program(p, e.constants, y, x, scalars, count * wide, slots);
      if (y != at) copy_rows(at, ld, y, wide, count, wide);
    }
  }
}

void pointwise(const PointwiseArgs& a, const Stream& s) {
  int64_t total = elements(a);
  if (total == 0) return;
  const bool convert = a.f != Functor::select_ && a.f != Functor::copy_;
  const Job j = make_job(a, convert, may_be_scalar(a.operands), most_scalars(a.operands),
                         can_go_past(a.f, a.dtype[a.operands > 2 ? 2 : 1], a.dtype[0]));
  const Strip strip = find_strip(a.f, a.dtype[1], a.dtype[0]);
  walk(j, total, a.ns, s, [&](void* y, const void* const* x, unsigned scalars, int64_t n) { strip(y, x, scalars | j.past, n); });
}

void fused_pointwise(const FusedArgs& a, const Stream& s) {
  int64_t total = elements(a);
  if (total == 0) return;
  const FusedInstruction& last = a.code[a.count - 1];
  const Job j = make_job(a, false, ~0u, fused_inputs, a.ns <= light_ns && can_go_past(last.f, last.result, last.result));
  const Program p = make_program(a.operands, a.count, a.code);
  walk(j, total, a.ns, s, [&](void* y, const void* const* x, unsigned scalars, int64_t n) {
    Slots slots;
    run_program(p, a.constants, y, x, scalars | j.past, n, slots);
  });
}

}  // namespace dagrt::DAGRT_ISA
