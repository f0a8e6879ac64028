// The indexing ops against loops; faults; the order of additions.
#include <cmath>

#include "run_op.h"

using namespace dagrt;
using namespace dagrt::testing;

namespace {

const Op& indexing_op(const char* name) {
  static const Registry* r = [] {
    auto* made = new Registry;
    register_indexing(*made);
    return made;
  }();
  return *r->find(name);
}

void fill_ids(Tensor& t, int64_t limit) {
  for (int64_t i = 0; i < t.size(); i++) {
    int64_t id = limit ? int64_t(uint64_t(i) * 2654435761u % uint64_t(limit)) : 0;
    if (t.view.dtype == DType::int64)
      t.at<int64_t>(i) = id;
    else
      t.at<int32_t>(i) = int32_t(id);
  }
}

int64_t id_at(Tensor& t, int64_t i) { return t.view.dtype == DType::int64 ? t.at<int64_t>(i) : t.at<int32_t>(i); }

float value(int64_t i) { return float(std::sin(double(i) * 1.7) * 3); }

}  // namespace

TEST_CASE("gather and scatter_add") {
  struct Shape {
    int64_t O, N, K, I;
  };
  for (const char* isa : isas())
    for (DType id_type : {DType::int32, DType::int64})
      for (Shape s : {Shape{1, 5, 7, 3}, Shape{3, 4, 11, 1}, Shape{2, 37, 100, 17}, Shape{1, 50, 300, 130}, Shape{1, 3, 0, 4},
                      Shape{2, 5, 3, 0}, Shape{1, 200, 50, 64}, Shape{1, 10, 700, 72}, Shape{1, 9000, 600, 33}})
        for (int64_t padding : {0, 3})
          for (int threads : {1, 2}) {
            INFO(isa << " " << s.O << " " << s.N << " " << s.K << " " << s.I << " padding " << padding);
            choose_isa(isa);
            Tensor x(DType::float32, {s.O, s.N, s.I}, padding), ids(id_type, {s.K}),
                y(DType::float32, {s.O, s.K, s.I}, padding * 2);
            x.set<float>(value);
            fill_ids(ids, s.N);
            Status status = run_op(indexing_op("gather"), {{"axis", {int64_t(1)}}}, {&x, &ids}, {&y}, threads);
            CHECK(status.code == Status::ok);
            bool same = true;
            for (int64_t o = 0; o < s.O; o++)
              for (int64_t k = 0; k < s.K; k++)
                for (int64_t i = 0; i < s.I; i++)
                  same &= y.at<float>((o * s.K + k) * s.I + i) == x.at<float>((o * s.N + id_at(ids, k)) * s.I + i);
            CHECK(same);
            Tensor z(DType::float32, {s.O, s.N, s.I}, padding);
            run_op(indexing_op("scatter_add"), {{"axis", {int64_t(1)}}, {"size", {s.N}}}, {&ids, &y}, {&z}, threads);
            std::vector<float> want(size_t(z.size()));
            for (int64_t o = 0; o < s.O; o++)
              for (int64_t k = 0; k < s.K; k++)
                for (int64_t i = 0; i < s.I; i++)
                  want[size_t((o * s.N + id_at(ids, k)) * s.I + i)] += y.at<float>((o * s.K + k) * s.I + i);
            for (int64_t i = 0; i < z.size(); i++) same &= z.at<float>(i) == want[size_t(i)];  // the order, too
            CHECK(same);
            CHECK(y.intact());
            CHECK(z.intact());
            // Into other sums: beside them and in their place.
            Tensor base(DType::float32, {s.O, s.N, s.I}, padding);
            base.set<float>([](int64_t i) { return value(i + 5); });
            for (int64_t i = 0; i < base.size(); i++) want[size_t(i)] = base.at<float>(i);
            for (int64_t o = 0; o < s.O; o++)
              for (int64_t k = 0; k < s.K; k++)
                for (int64_t i = 0; i < s.I; i++)
                  want[size_t((o * s.N + id_at(ids, k)) * s.I + i)] += y.at<float>((o * s.K + k) * s.I + i);
            for (Tensor* to : {&z, &base}) {
              run_op(indexing_op("scatter_add_into"), {{"axis", {int64_t(1)}}, {"size", {s.N}}}, {&ids, &y, &base}, {to},
                     threads);
              for (int64_t i = 0; i < z.size(); i++) same &= to->at<float>(i) == want[size_t(i)];
              CHECK(same);
              CHECK(to->intact());
            }
          }
}

TEST_CASE("gather from the last axis, by a scalar, by a matrix") {
  Tensor x(DType::int64, {3, 5}), one(DType::int32, {}), two(DType::int32, {2, 2}), a(DType::int64, {3}),
      b(DType::int64, {3, 2, 2});
  x.set<int64_t>([](int64_t i) { return i * 10; });
  one.at<int32_t>(0) = 4;
  two.set<int32_t>([](int64_t i) { return int32_t(3 - i); });
  for (const char* isa : isas()) {
    choose_isa(isa);
    run_op(indexing_op("gather"), {{"axis", {int64_t(-1)}}}, {&x, &one}, {&a});
    run_op(indexing_op("gather"), {{"axis", {int64_t(1)}}}, {&x, &two}, {&b});
    CHECK(a.at<int64_t>(2) == 140);
    CHECK(b.at<int64_t>(4 + 1) == 70);
    CHECK(b.intact());
  }
}

TEST_CASE("an id out of range is reported once, the first, and never followed") {
  for (const char* isa : isas())
    for (int threads : {1, 2}) {
      choose_isa(isa);
      int64_t n = 40000;
      Tensor x(DType::float32, {7, 3}), ids(DType::int32, {n}), y(DType::float32, {n, 3}), z(DType::float32, {7, 3});
      x.set<float>(value);
      fill_ids(ids, 7);
      ids.at<int32_t>(31000) = -1;
      ids.at<int32_t>(17003) = 7;
      Status s = run_op(indexing_op("gather"), {{"axis", {int64_t(0)}}}, {&x, &ids}, {&y}, threads);
      CHECK(s.code == Status::index_out_of_range);
      CHECK(s.node == 5);
      CHECK(s.index == 17003);
      CHECK(s.value == 7);
      CHECK(s.limit == 7);
      CHECK(y.at<float>(17003 * 3) == 0);
      s = run_op(indexing_op("scatter_add"), {{"axis", {int64_t(0)}}, {"size", {int64_t(7)}}}, {&ids, &y}, {&z}, threads);
      CHECK(s.index == 17003);
      CHECK(z.intact());
    }
}

TEST_CASE("16-bit sums are made in float32; integers wrap") {
  for (const char* isa : isas()) {
    choose_isa(isa);
    int64_t k = 1001;  // 1 + 1000 times 2^-9: lost one by one in bfloat16
    Tensor ids(DType::int32, {k}), u(DType::bfloat16, {k, 1}), y(DType::bfloat16, {2, 1});
    ids.set<int32_t>([](int64_t) { return 1; });
    u.set<uint16_t>([](int64_t i) { return uint16_t(i ? 0x3b00 : 0x3f80); });
    run_op(indexing_op("scatter_add"), {{"axis", {int64_t(0)}}, {"size", {int64_t(2)}}}, {&ids, &u}, {&y});
    CHECK(y.at<uint16_t>(0) == 0);
    CHECK(y.at<uint16_t>(1) == 0x403d);  // 2.953
    Tensor rows(DType::int32, {1001, 1}), put(DType::bfloat16, {2, 1});
    rows.set<int32_t>([](int64_t) { return 1; });
    run_op(indexing_op("put_along_axis_add"), {{"axis", {int64_t(0)}}, {"size", {int64_t(2)}}}, {&rows, &u}, {&put});
    CHECK(put.at<uint16_t>(1) == 0x403d);
    Tensor two(DType::int32, {2}), b(DType::uint8, {2}), sum(DType::uint8, {1});
    two.set<int32_t>([](int64_t) { return 0; });
    b.set<uint8_t>([](int64_t) { return uint8_t(200); });
    run_op(indexing_op("scatter_add"), {{"axis", {int64_t(0)}}, {"size", {int64_t(1)}}}, {&two, &b}, {&sum});
    CHECK(sum.at<uint8_t>(0) == 144);
  }
}

TEST_CASE("take_along_axis and put_along_axis_add") {
  for (const char* isa : isas())
    for (int64_t axis : {0, 1, 2})
      for (int64_t K : {0, 1, 4, 9})
        for (int64_t padding : {0, 2})
          for (int threads : {1, 2}) {
            INFO(isa << " axis " << axis << " K " << K);
            choose_isa(isa);
            std::vector<int64_t> from{4, 5, 301}, to = from, lean;
            to[size_t(axis)] = K;
            lean = to;
            lean[axis == 0 ? 1 : 0] = 1;  // the ids broadcast along one axis
            Tensor x(DType::float32, from, padding), ids(DType::int32, lean), y(DType::float32, to, padding),
                z(DType::float32, from, padding);
            x.set<float>(value);
            fill_ids(ids, from[size_t(axis)]);
            run_op(indexing_op("take_along_axis"), {{"axis", {axis}}}, {&x, &ids}, {&y}, threads);
            run_op(indexing_op("put_along_axis_add"), {{"axis", {axis}}, {"size", {from[size_t(axis)]}}}, {&ids, &y}, {&z},
                   threads);
            std::vector<float> want(size_t(z.size()));
            bool same = true;
            for (int64_t a = 0; a < to[0]; a++)
              for (int64_t b = 0; b < to[1]; b++)
                for (int64_t c = 0; c < to[2]; c++) {
                  int64_t i = (a * to[1] + b) * to[2] + c;
                  int64_t j = ((lean[0] == 1 ? 0 : a) * lean[1] + (lean[1] == 1 ? 0 : b)) * lean[2] + (lean[2] == 1 ? 0 : c);
                  int64_t id = id_at(ids, j), at[3] = {a, b, c};
                  at[axis] = id;
                  int64_t s = (at[0] * from[1] + at[1]) * from[2] + at[2];
                  same &= y.at<float>(i) == x.at<float>(s);
                  want[size_t(s)] += y.at<float>(i);
                }
            for (int64_t i = 0; i < z.size(); i++) same &= z.at<float>(i) == want[size_t(i)];
            CHECK(same);
            CHECK(y.intact());
            CHECK(z.intact());
          }
}

TEST_CASE("one_hot") {
  for (const char* isa : isas())
    for (DType t : {DType::float32, DType::bfloat16, DType::bool_, DType::int64}) {
      choose_isa(isa);
      Tensor ids(DType::int64, {2, 3}), y(t, {2, 3, 5}, 2);
      ids.set<int64_t>([](int64_t i) { return i * 2 - 2; });  // -2 0 2 4 6 8
      run_op(indexing_op("one_hot"), {{"depth", {int64_t(5)}}, {"dtype", {std::string(name_of(t))}}}, {&ids}, {&y}, 2);
      CHECK(y.intact());
      size_t e = size_of(t);
      int ones = 0;
      for (int64_t i = 0; i < y.size(); i++) {
        uint64_t bits = 0;
        std::memcpy(&bits, static_cast<char*>(y.view.data) + size_t(y.offset(i)) * e, e);
        bool hot = i / 5 * 2 - 2 == i % 5;
        ones += hot;
        CHECK(bits == (hot ? t == DType::float32 ? 0x3f800000u : t == DType::bfloat16 ? 0x3f80u : 1u : 0u));
      }
      CHECK(ones == 3);
    }
}
