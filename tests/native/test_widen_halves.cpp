// widen_halves: golden texts of mixed programs.
#include <doctest/doctest.h>

#include "ir/lists.h"
#include "ir/text.h"
#include "ops/isa.h"
#include "passes/pipeline.h"
#include "run_op.h"
#include "trace.h"

namespace dagrt {
namespace {

using testing::floats;
using testing::Trace;

struct Mixed : Trace {
  using Trace::Trace;
  ValueId cast(ValueId x, const char* dtype) { return b.emit("cast", {x}, {{"dtype", {std::string(dtype)}}}); }
  ValueId half(ValueId x) { return cast(x, "bfloat16"); }
  ValueId wide(ValueId x) { return cast(x, "float32"); }
  /// A dense layer as Python traces it under mixed_bfloat16; x and the result are bfloat16.
  ValueId dense(ValueId x, ValueId w, ValueId bias) {
    ValueId y = half(b.emit("matmul", {wide(x), wide(half(w))}));
    return b.emit("relu", {b.emit("add", {y, half(bias)})});
  }
  std::string compiled() {
    Types types;
    for (const Input& i : f.inputs) types.push_back(f.types[size_t(i.value)]);
    CompileOptions o;
    o.verify = true;
    return text(compile(m, "main", types, o));
  }
};

int count(const std::string& text, const std::string& part) {
  int n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) n++;
  return n;
}

bool is_amd() {
#if defined(__x86_64__)
  return __builtin_cpu_is("amd");
#else
  return false;
#endif
}

}  // namespace

TEST_CASE("widen_halves: golden text of two dense layers") {
  Mixed t;
  ValueId x = t.input("x", floats({2, 128}));
  ValueId w = t.read(t.variable("d/kernel", floats({128, 64}))), bias = t.read(t.variable("d/bias", floats({64})));
  ValueId v = t.read(t.variable("e/kernel", floats({64, 64}))), beta = t.read(t.variable("e/bias", floats({64})));
  ValueId y = t.dense(t.dense(t.half(x), w, bias), v, beta);
  t.out({t.wide(y), y});
  const std::string s = t.compiled();
  CAPTURE(s);
  CHECK(count(s, "round_bfloat16(%0)") == 1);
  CHECK(count(s, "pack_matmul_bf16(") == 2);
  CHECK(count(s, "matmul_bf16_packed(") == 2);
  CHECK(count(s, "{columns: 64, epilogue: [\"add 0 1\", \"round_bfloat16 2\", \"relu 3\"]") == 2);
  CHECK(count(s, ": bfloat16(2, 64)") == 1);  // the second output alone
}

TEST_CASE("widen_halves: weights that are rounded in a loop's body are rounded before it") {
  Mixed t;
  Mixed body(t, "step");
  ValueId h = body.input("h", floats({2, 8})), w = body.input("w", floats({8, 8}));
  body.input("step", {DType::int32, {}});
  ValueId y = body.half(body.b.emit("matmul", {body.wide(body.half(h)), body.wide(body.half(w))}));
  body.out({body.wide(body.b.emit("tanh", {y}))});
  ValueId x = t.input("x", floats({2, 8})), k = t.input("k", floats({8, 8}));
  t.out({t.b.emit("scan", {x, k}, {{"body", {std::string("step")}}, {"carries", {int64_t(1)}}, {"length", {int64_t(5)}}})});
  const std::string s = t.compiled();
  CAPTURE(s);
  CHECK(s.find("round_bfloat16(%1)") < s.find("scan("));
  CHECK(count(s, "bfloat16(") == 2);  // k's, and in the body h's
  CHECK(count(s, "epilogue: [\"tanh 0\", \"round_bfloat16 1\"]") == 1);
}

TEST_CASE("widen_halves: a 1x1 convolution multiplies bfloat16s where the machine is faster at it") {
  const std::string before = isa_name();
  for (const std::string isa : testing::isas()) {
    if (isa != "scalar" && isa != "avx512_bf16") continue;
    choose_isa(isa.c_str());
    Mixed t;
    ValueId x = t.half(t.input("x", floats({2, 14, 14, 96}))), bias = t.read(t.variable("c/bias", floats({160})));
    auto convolution = [&](int64_t window, int64_t stride) {
      ValueId w = t.read(t.variable(window == 1 ? "c/kernel" : "d/kernel", floats({window, window, 96, 160})));
      const AttrMap attrs{{"strides", attr_list(std::vector<int64_t>{stride, stride})}, {"padding", {std::string("valid")}}};
      return t.b.emit("relu",
                      {t.b.emit("add", {t.half(t.b.emit("conv2d", {t.wide(x), t.wide(t.half(w))}, attrs)), t.half(bias)})});
    };
    t.out({t.wide(convolution(1, 1)), t.wide(convolution(1, 2)), t.wide(convolution(2, 1))});
    const std::string s = t.compiled();
    CAPTURE(s);
    const bool bf16 = isa == "avx512_bf16" && is_amd();
    CHECK(count(s, "= matmul_bf16_packed(") == (bf16 ? 2 : 0));
    CHECK(count(s, "= conv2d_packed(") == (bf16 ? 1 : 3));
    if (bf16) CHECK(count(s, "{columns: 160, epilogue: [\"add 0 1\", \"round_bfloat16 2\", \"relu 3\"]") == 2);
  }
  choose_isa(before.c_str());
}

TEST_CASE("widen_halves: what is read and written in 16 bits alone stays so") {
  Mixed t;
  ValueId x = t.input("x", {DType::bfloat16, {2, 8}});
  t.out({t.b.emit("exp", {x})});
  CHECK(t.compiled().find("cast") == std::string::npos);
}

}  // namespace dagrt
