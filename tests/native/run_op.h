// Running one op alone: tensors inside guarded memory, with a row stride of their own; every instruction set and one
// thread or two.
#pragma once
#include <doctest/doctest.h>

#include <cstring>
#include <functional>
#include <vector>

#include "kernels/kernel.h"
#include "ops/registry.h"

namespace dagrt::testing {

/// A tensor between guard bands (bytes 0xff: a NaN in every float dtype), not aligned beyond its element.
struct Tensor {
  View view;
  std::vector<unsigned char> memory;

  Tensor(DType dtype, std::vector<int64_t> shape, int64_t padding = 0) {
    view.dtype = dtype;
    view.rank = int(shape.size());
    for (size_t i = 0; i < shape.size(); i++) view.dims[i] = shape[i];
    view.ld = (shape.empty() ? 1 : shape.back()) + padding;
    memory.assign(size_t(view.rows() * view.ld) * size_of(dtype) + 256, 0xff);
    view.data = memory.data() + (64 - reinterpret_cast<size_t>(memory.data()) % 64) + 64 + size_of(dtype);
  }
  Tensor(const Tensor&) = delete;
  Tensor(Tensor&& o) = default;

  int64_t size() const { return view.elements(); }
  int64_t offset(int64_t i) const {
    int64_t columns = view.rank ? view.dims[view.rank - 1] : 1;
    return columns ? i / columns * view.ld + i % columns : 0;
  }
  template <class T> T& at(int64_t i) { return static_cast<T*>(view.data)[offset(i)]; }
  template <class T> void set(const std::function<T(int64_t)>& f) {
    for (int64_t i = 0; i < size(); i++) at<T>(i) = f(i);
  }
  /// Everything outside of the elements is as it was made.
  bool intact() const {
    std::vector<bool> own(memory.size());
    size_t e = size_of(view.dtype), start = size_t(static_cast<const unsigned char*>(view.data) - memory.data());
    for (int64_t i = 0; i < size(); i++)
      for (size_t b = 0; b < e; b++) own[start + size_t(offset(i)) * e + b] = true;
    for (size_t i = 0; i < memory.size(); i++)
      if (!own[i] && memory[i] != 0xff) return false;
    return true;
  }
};

inline std::vector<const char*> isas() {
  std::vector<const char*> present;
  for (const char* name : {"scalar", "avx2", "avx512", "avx512_bf16"}) {
    try {
      choose_isa(name);
      present.push_back(name);
    } catch (const Error&) {}
  }
  return present;
}

/// Runs `op` on tensors whose shapes `infer` is checked against.
inline Status run_op(const Op& op, const AttrMap& map, const std::vector<Tensor*>& in, const std::vector<Tensor*>& out,
                     int threads = 1) {
  Attrs attrs = op.attrs.read(op.name, map);
  auto type = [](const View& v) {
    TensorType t{v.dtype, {}};
    for (int i = 0; i < v.rank; i++) t.shape.push_back(v.dims[i]);
    return t;
  };
  std::vector<View> ins, outs;
  Types types, results;
  for (Tensor* t : in) {
    TensorType absent;
    absent.absent = true;
    ins.push_back(t ? t->view : View{});
    types.push_back(t ? type(t->view) : absent);
  }
  results = infer(op, attrs.get(), types);
  REQUIRE(results.size() == out.size());
  for (size_t i = 0; i < out.size(); i++) {
    CHECK(results[i] == type(out[i]->view));
    outs.push_back(out[i]->view);
  }
  constexpr size_t guard = 1 << 16;
  Memory m = op.memory ? op.memory(attrs.get(), types, results) : Memory{};
  std::vector<char> workspace(m.workspace + 64), scratch((m.scratch + 64) * size_t(threads) + 64 + guard, 90);
  auto aligned = [](std::vector<char>& v) { return v.data() + (64 - reinterpret_cast<size_t>(v.data()) % 64) % 64; };
  Stream stream;
  stream.threads = threads;
  stream.scratch = aligned(scratch);
  stream.scratch_bytes = (m.scratch + 63) / 64 * 64;
  Status status;
  RunContext c{attrs.get(), ins.data(), outs.data(), int(ins.size()), int(outs.size()), stream, aligned(workspace), status, 5};
  op.run(c);
  for (const char *at = stream.scratch + stream.scratch_bytes * size_t(threads), *end = scratch.data() + scratch.size(); at < end;
       at++)
    if (*at != 90) {
      CHECK_MESSAGE(false, op.name << " writes behind its threads' scratch");
      break;
    }
  return status;
}

inline AttrValue integers(std::initializer_list<int64_t> values) {
  AttrList list;
  for (int64_t v : values) list.push_back({v});
  return {list};
}

}  // namespace dagrt::testing
