// Packed LSTMs: the bits of lstm itself, from features and from ids, on every instruction set and number of threads; the
// pass that makes them.
#include <array>
#include <cstring>

#include "api/dagrt.h"
#include "ir/text.h"
#include "kernels/lstm.h"
#include "passes/pipeline.h"
#include "run_op.h"
#include "trace.h"

using namespace dagrt;
using dagrt::testing::floats;
using dagrt::testing::isas;
using dagrt::testing::run_op;
using dagrt::testing::Trace;
using Guarded = dagrt::testing::Tensor;

namespace {

void fill(Guarded& t, int64_t seed) {
  t.set<float>([&](int64_t i) { return float((i * 37 + seed * 101 + (i * i) % 13) % 29 - 14) / 20.0f; });
}

void same_bits(Guarded& a, Guarded& b) {
  bool same = true;
  for (int64_t i = 0; i < a.size(); i++) same = same && std::memcmp(&a.at<float>(i), &b.at<float>(i), 4) == 0;
  CHECK(same);
  CHECK(a.intact());
}

void check(int64_t B, int64_t T, int64_t C, int64_t U, bool rest, int threads) {
  CAPTURE(B);
  CAPTURE(U);
  CAPTURE(threads);
  const DType f = DType::float32;
  const int64_t N = 11, columns = lstm_packed_columns(U);
  Guarded e(f, {N, C}), ids(DType::int32, {B, T}), x(f, {B, T, C}, 1), w(f, {C, 4 * U}), r(f, {U, 4 * U}), b(f, {4 * U});
  Guarded h0(f, {B, U}), c0(f, {B, U}), mask(DType::bool_, {B, T});
  int64_t seed = 1;
  for (Guarded* t : {&e, &w, &r, &b, &h0, &c0}) fill(*t, seed++);
  ids.set<int32_t>([&](int64_t i) { return int32_t(i * 7 % N); });
  x.set<float>([&](int64_t i) { return C ? e.at<float>(ids.at<int32_t>(i / C) * C + i % C) : 0; });
  mask.set<uint8_t>([&](int64_t i) { return uint8_t(i % 5 != 1); });
  Guarded *ph = rest ? &h0 : nullptr, *pc = rest ? &c0 : nullptr, *pm = rest ? &mask : nullptr, *pb = rest ? &b : nullptr;
  AttrMap flags{{"go_backwards", {rest}}, {"zero_output_for_mask", {false}}}, attrs = flags;
  attrs["units"] = {U};

  Guarded y(f, {B, T, U}), h(f, {B, U}), c(f, {B, U}), gates(f, {T, B, 4 * U}), cells(f, {T, B, U}), hidden(f, {T, B, U});
  run_op(op("lstm"), flags, {&x, &w, &r, pb, ph, pc, pm}, {&y, &h, &c, &gates, &cells, &hidden});
  Guarded packed(f, {C + U + 1, columns}), table(f, {N, columns});
  run_op(op("pack_lstm"), {}, {&w, &r, pb}, {&packed}, threads);
  run_op(op("pack_lstm_table"), {{"units", {U}}}, {&e, &packed}, {&table}, threads);
  CHECK(table.intact());
  for (bool gathered : {false, true}) {
    CAPTURE(gathered);
    Guarded y2(f, {B, T, U}, 3), h2(f, {B, U}), c2(f, {B, U});
    std::vector<Guarded*> in{&x, &packed, ph, pc, pm};
    if (gathered) in = {&ids, &table, &packed, ph, pc, pm};
    run_op(op(gathered ? "lstm_gathered" : "lstm_packed"), attrs, in, {&y2, &h2, &c2}, threads);
    same_bits(y2, y);
    same_bits(h2, h);
    same_bits(c2, c);
  }
  CHECK(packed.intact());
}

std::string packed_text(const Trace& t, Types in) {
  CompileOptions o;
  o.fuse = false;
  o.verify = true;
  return text(compile(t.m, "main", in, o));
}

}  // namespace

TEST_CASE("packed lstms give the bits of lstm, from features and from ids, alone and in a gang") {
  Isa before = chosen_isa;
  for (const char* isa : isas()) {
    CAPTURE(isa);
    choose_isa(isa);
    for (auto [B, T, C, U] : {std::array<int64_t, 4>{1, 9, 3, 70},
                              {3, 4, 5, 33},
                              {1, 3, 2, 261},
                              {13, 5, 4, 17},
                              {9, 4, 6, 45},
                              {2, 5, 3, 26},
                              {4, 2, 1, 1},
                              {0, 3, 2, 2},
                              {2, 0, 2, 2},
                              {2, 3, 0, 4}})
      for (int threads : {1, 2, 3}) check(B, T, C, U, threads == 2, threads);
  }
  chosen_isa = before;
}

TEST_CASE("lstm_gathered refuses an id that is not in the table") {
  const DType f = DType::float32;
  Guarded ids(DType::int64, {2, 3}), table(f, {4, 16}), packed(f, {8, 16}), y(f, {2, 3, 2}), h(f, {2, 2}), c(f, {2, 2});
  fill(table, 1), fill(packed, 2);
  ids.set<int64_t>([](int64_t i) { return i == 4 ? 9 : i % 4; });
  Status s = run_op(op("lstm_gathered"), {{"units", {int64_t(2)}}}, {&ids, &table, &packed}, {&y, &h, &c});
  CHECK(s.code == Status::index_out_of_range);
  CHECK(s.index == 4);
  CHECK(s.value == 9);
  CHECK(s.limit == 4);
}

TEST_CASE("pack_lstm: weights and embeddings as nodes of their own; an lstm with a gradient stays") {
  Trace t;
  const TensorType ids{DType::int32, {2, 3}};
  ValueId i = t.input("ids", ids), x = t.input("x", floats({2, 3, 4}));
  ValueId e = t.read(t.variable("e", floats({9, 4}))), w = t.read(t.variable("w", floats({4, 20})));
  ValueId r = t.read(t.variable("r", floats({5, 20}))), b = t.read(t.variable("b", floats({20})));
  t.b.paths = {"embedding"};
  ValueId g = t.b.emit("gather", {e, i}, {{"axis", {int64_t(0)}}});
  t.b.paths = {"lstm"};
  ValueId h = t.b.emit_all("lstm", {g, w, r, b})[1], h2 = t.b.emit_all("lstm", {x, w, r, b})[1];
  t.out({h, h2});
  CHECK(packed_text(t, {ids, floats({2, 3, 4})}) == R"(main(%0 ids: int32(2, 3), %1 x: float32(2, 3, 4)) {
  %2 = read {variable: "e"} : float32(9, 4)
  %3 = read {variable: "w"} : float32(4, 20)
  %4 = read {variable: "r"} : float32(5, 20)
  %5 = read {variable: "b"} : float32(20,)
  %6 = pack_lstm(%3, %4, %5) : float32(10, 32)  # lstm
  %7 = pack_lstm_table(%2, %6) {units: 5} : float32(9, 32)  # lstm
  %8, %9, %10 = lstm_gathered(%0, %7, %6, _, _, _) {go_backwards: false, units: 5, zero_output_for_mask: false} : float32(2, 3, 5), float32(2, 5), float32(2, 5)  # embedding, lstm
  %11, %12, %13 = lstm_packed(%1, %6, _, _, _) {go_backwards: false, units: 5, zero_output_for_mask: false} : float32(2, 3, 5), float32(2, 5), float32(2, 5)  # lstm
  return %9, %12
}
)");

  Trace u;  // the lookup's table is written by the run: only packed
  ValueId z = u.input("ids", ids);
  const int64_t v = u.variable("e", floats({9, 4}));
  ValueId e2 = u.read(v), w2 = u.read(u.variable("w", floats({4, 20}))), r2 = u.read(u.variable("r", floats({5, 20})));
  ValueId h3 = u.b.emit_all("lstm", {u.b.emit("gather", {e2, z}, {{"axis", {int64_t(0)}}}), w2, r2})[1];
  u.f.stores.push_back({int32_t(v), u.b.add(e2, e2), no_value});
  u.out({h3});
  std::string written = packed_text(u, {ids});
  CHECK(written.find("lstm_packed") != std::string::npos);
  CHECK(written.find("lstm_gathered") == std::string::npos);

  u.out({u.gradients(u.sum(h3), {w2})[0]});
  CHECK(packed_text(u, {ids}).find("lstm_packed") == std::string::npos);
}
