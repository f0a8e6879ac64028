// Reductions, sorting against plain loops: any axes, pixel strides, guards, threads, every instruction set.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/kernel.h"
#include "ops/op.h"
#include "ops/registry.h"

using namespace dagrt;

namespace {

const Op& find(const char* name) {
  static Registry* r = [] {
    auto* made = new Registry;
    register_reduce(*made);
    return made;
  }();
  const Op* op = r->find(name);
  REQUIRE(op);
  return *op;
}

constexpr float nan_ = std::numeric_limits<float>::quiet_NaN();

struct Tensor {
  std::vector<int64_t> shape;
  int64_t ld;
  std::vector<float> memory;
  Tensor(std::vector<int64_t> s, int64_t extra) : shape(std::move(s)) {
    int64_t rows = 1;
    for (size_t i = 0; i + 1 < shape.size(); i++) rows *= shape[i];
    ld = (shape.empty() ? 1 : shape.back()) + extra;
    memory.assign(size_t(rows * ld + 10), nan_);
  }
  int64_t elements() const { return std::accumulate(shape.begin(), shape.end(), int64_t(1), std::multiplies<int64_t>()); }
  float& at(int64_t i) {
    int64_t width = shape.empty() ? 1 : shape.back();
    return memory[size_t(5 + i / width * ld + i % width)];
  }
  View view() {
    View v;
    v.data = memory.data() + 5;
    v.rank = int(shape.size());
    for (size_t i = 0; i < shape.size(); i++) v.dims[i] = shape[i];
    v.ld = ld;
    return v;
  }
  TensorType type() const { return {DType::float32, Dims(shape.begin(), shape.end())}; }
  int64_t guards() {
    int64_t n = 0;
    for (float f : memory) n += std::isnan(f);
    return n;
  }
};

void run(const Op& op, const AttrMap& map, Tensor& x, Tensor& y, int threads) {
  Attrs attrs = op.attrs.read(op.name, map);
  Memory m = op.memory ? op.memory(attrs.get(), {x.type()}, {y.type()}) : Memory{};
  std::vector<char> workspace(m.workspace + 64, 0x5a), scratch((m.scratch + 64) * size_t(threads) + 64);
  auto aligned = [](std::vector<char>& v) {
    return reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(v.data()) + 63) / 64 * 64);
  };
  Stream stream;
  stream.threads = threads;
  stream.scratch = aligned(scratch);
  stream.scratch_bytes = (m.scratch + 63) / 64 * 64;
  Status status;
  View in = x.view(), out = y.view();
  RunContext c{attrs.get(), &in, &out, 1, 1, stream, aligned(workspace), status, 0};
  op.run(c);
}

}  // namespace

TEST_CASE("reductions over all sets of axes agree with plain loops") {
  const std::vector<std::vector<int64_t>> shapes = {{7},       {5, 33},      {3, 4, 5}, {2, 3, 4, 5}, {4, 1, 3}, {3, 5, 1},
                                                    {70, 600}, {2, 9000, 3}, {40000},   {0, 4},       {4, 0},    {2, 3, 1, 2, 3}};
  Isa before = chosen_isa;
  for (const char* isa : {"scalar", "avx2", "avx512"}) {
    try {
      choose_isa(isa);
    } catch (const Error&) {
      continue;
    }
    for (const auto& shape : shapes)
      for (unsigned set = 0; set < 1u << shape.size(); set++)
        for (int64_t extra : {0, 2})
          for (const char* name : {"reduce_sum", "reduce_max"}) {
            bool sum = std::string(name) == "reduce_sum";
            if (!sum && std::count(shape.begin(), shape.end(), 0)) continue;
            std::vector<int64_t> rest;
            AttrList axes;
            for (size_t d = 0; d < shape.size(); d++)
              if (set >> d & 1)
                axes.push_back({int64_t(d)});
              else
                rest.push_back(shape[d]);
            Tensor x(shape, extra), y(rest, extra ? 1 : 0), z(rest, 0);
            for (int64_t i = 0; i < x.elements(); i++) x.at(i) = float((i * 7919) % 1009) / 500.0f - 0.9f;
            std::vector<double> want(size_t(y.elements()), sum ? 0.0 : -1e30), scale(want.size(), 0);
            for (int64_t i = 0; i < x.elements(); i++) {
              int64_t at = 0, stride = 1, rem = i;
              for (size_t d = shape.size(); d-- > 0;) {
                int64_t k = rem % shape[d];
                rem /= shape[d];
                if (set >> d & 1) continue;
                at += k * stride;
                stride *= shape[d];
              }
              double v = double(x.at(i));
              want[size_t(at)] = sum ? want[size_t(at)] + v : std::max(want[size_t(at)], v);
              scale[size_t(at)] += std::abs(v);
            }
            run(find(name), {{"axes", {axes}}}, x, y, 1);
            run(find(name), {{"axes", {axes}}}, x, z, 2);
            bool right = true, same = true;
            for (int64_t i = 0; i < y.elements(); i++) {
              right &= std::abs(double(y.at(i)) - want[size_t(i)]) <= (sum ? 2e-7 * scale[size_t(i)] : 0);
              same &= std::memcmp(&y.at(i), &z.at(i), 4) == 0;
            }
            INFO(name << " " << isa << " axes " << set << " rank " << shape.size() << " extra " << extra);
            CHECK(right);
            CHECK(same);
            CHECK(y.guards() == int64_t(y.memory.size()) - y.elements());
          }
  }
  chosen_isa = before;
}

TEST_CASE("cumsum and sort work along any axis with any pixel stride") {
  for (int64_t axis : {0, 1, 2})
    for (int64_t extra : {0, 3})
      for (const char* name : {"sort", "cumsum"}) {
        Tensor x({3, 20, 5}, extra), y({3, 20, 5}, extra ? 1 : 0), z({3, 20, 5}, 0);
        for (int64_t i = 0; i < 300; i++) x.at(i) = float((i * 7919) % 101);
        bool sorts = std::string(name) == "sort";
        run(find(name), {{"axis", {axis}}}, x, y, 1);
        run(find(name), {{"axis", {axis}}}, x, z, 2);
        const int64_t size[] = {3, 20, 5}, stride[] = {100, 5, 1};
        bool right = true;
        for (int64_t i = 0; i < 300; i++) {
          if (i / stride[axis] % size[axis]) continue;
          std::vector<float> line;
          for (int64_t k = 0; k < size[axis]; k++) line.push_back(x.at(i + k * stride[axis]));
          if (sorts)
            std::stable_sort(line.begin(), line.end());
          else
            std::partial_sum(line.begin(), line.end(), line.begin());
          for (int64_t k = 0; k < size[axis]; k++)
            right &= y.at(i + k * stride[axis]) == line[size_t(k)] && z.at(i + k * stride[axis]) == line[size_t(k)];
        }
        INFO(name << " axis " << axis << " extra " << extra);
        CHECK(right);
        CHECK(y.guards() == int64_t(y.memory.size()) - 300);
      }
}
