// The passes that fuse: golden texts.
#include <doctest/doctest.h>

#include "ir/text.h"
#include "ir/verify.h"
#include "passes/passes.h"
#include "passes/pipeline.h"
#include "trace.h"

namespace dagrt {
namespace {

using testing::floats;
using testing::list;
using testing::Trace;

/// The specialised module after one pass, cleared of dead code.
std::string after(const Trace& t, const Types& inputs, void (*pass)(Module&)) {
  CompileOptions plain;
  plain.fuse = false;
  Module m = compile(t.m, "main", inputs, plain);
  pass(m);
  verify(m, true);
  eliminate_dead_code(m);
  renumber(m);
  verify(m, true);
  return text(m);
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

AttrMap adam() { return {{"beta_1", {0.9}}, {"beta_2", {0.999}}, {"epsilon", {1e-7}}, {"weight_decay", {0.0}}}; }

TEST_CASE("join_updates: one node for what is stored alike, and for nothing else") {
  Trace t;
  ValueId lr = t.input("lr", floats({})), other = t.input("other", floats({})), step = t.input("step", {DType::int32, {}});
  ValueId when = t.input("when", {DType::bool_, {}});
  auto update = [&](const char* name, int64_t n, ValueId rate, ValueId condition, bool used) {
    ValueId g = t.input("g", floats({n}));
    std::vector<ValueId> in;
    std::vector<int64_t> variables;
    for (const char* part : {"", "_m", "_v"}) {
      variables.push_back(t.variable((std::string(name) + part).c_str(), floats({n})));
      in.push_back(t.read(variables.back()));
    }
    in.insert(in.end(), {g, rate, step});
    std::vector<ValueId> y = t.b.emit_all("adam_update", in, adam());
    for (size_t i = 0; i < 3; i++) t.f.stores.push_back({int32_t(variables[i]), y[i], condition});
    if (used) t.out({y[0]});
  };
  update("a", 3, lr, no_value, false);
  update("b", 5, lr, no_value, false);
  update("rate", 2, other, no_value, false);
  update("when", 2, lr, when, false);
  update("used", 2, lr, no_value, true);
  update("c", 7, lr, no_value, false);
  std::string s = after(t,
                        {floats({}),
                         floats({}),
                         {DType::int32, {}},
                         {DType::bool_, {}},
                         floats({3}),
                         floats({5}),
                         floats({2}),
                         floats({2}),
                         floats({2}),
                         floats({7})},
                        join_updates);
  auto count = [&](const std::string& part) {
    size_t n = 0;
    for (size_t at = s.find(part); at != std::string::npos; at = s.find(part, at + 1)) n++;
    return n;
  };
  CHECK_MESSAGE(count("adam_update(") == 3, s);
  CHECK(contains(s, "= adam_update_all(%0, %2, %10, %11, %12, %4, %13, %14, %15, %5, %34, %35, %36, %9) {"));
}

TEST_CASE("drop_centred_sums: only the sum over all rows of batch_norm_grad's dx") {
  Trace t;
  ValueId x = t.input("x", floats({2, 4, 3})), dy = t.input("dy", floats({2, 4, 3}));
  ValueId mean = t.input("mean", floats({3})), rstd = t.input("rstd", floats({3}));
  std::vector<ValueId> g = t.b.emit_all("batch_norm_grad", {x, no_value, mean, rstd, dy});
  t.out({t.b.sum(g[0], {0, 1}), t.b.sum(g[0], {0}), t.b.sum(dy, {0, 1}), g[0]});
  CHECK(after(t, {floats({2, 4, 3}), floats({2, 4, 3}), floats({3}), floats({3})}, drop_centred_sums) ==
        R"(main(%0 x: float32(2, 4, 3), %1 dy: float32(2, 4, 3), %2 mean: float32(3,), %3 rstd: float32(3,)) {
  %4, %5, %6 = batch_norm_grad(%0, _, %2, %3, %1) : float32(2, 4, 3), float32(3,), float32(3,)
  %7 = full {dtype: "float32", shape: [3], value: 0} : float32(3,)
  %8 = reduce_sum(%4) {axes: [0], keepdims: false} : float32(4, 3)
  %9 = reduce_sum(%1) {axes: [0, 1], keepdims: false} : float32(3,)
  return %7, %8, %9, %4
}
)");
}

}  // namespace
}  // namespace dagrt
