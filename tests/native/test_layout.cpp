// The layout ops against index arithmetic, for every element size, instruction set and row stride.
#include <array>

#include "run_op.h"

using namespace dagrt;
using namespace dagrt::testing;

namespace {

const Op& layout_op(const char* name) {
  static const Registry* r = [] {
    auto* made = new Registry;
    register_layout(*made);
    return made;
  }();
  return *r->find(name);
}

using Index = std::vector<int64_t>;

Index unravel(int64_t i, const View& v) {
  Index at(static_cast<size_t>(v.rank));
  for (int k = v.rank - 1; k >= 0; k--) {
    at[size_t(k)] = i % v.dims[k];
    i /= v.dims[k];
  }
  return at;
}

int64_t ravel(const Index& at, const View& v) {
  int64_t i = 0;
  for (int k = 0; k < v.rank; k++) i = i * v.dims[k] + at[size_t(k)];
  return i;
}

uint64_t get(Tensor& t, int64_t i) {
  uint64_t bits = 0;
  size_t e = size_of(t.view.dtype);
  std::memcpy(&bits, static_cast<char*>(t.view.data) + size_t(t.offset(i)) * e, e);
  return bits;
}

void number(Tensor& t, uint64_t salt) {
  size_t e = size_of(t.view.dtype);
  for (int64_t i = 0; i < t.size(); i++) {
    uint64_t bits = (uint64_t(i) + salt) * 0x9E3779B97F4A7C15u >> (64 - 8 * e);
    std::memcpy(static_cast<char*>(t.view.data) + size_t(t.offset(i)) * e, &bits, e);
  }
}

constexpr std::array<DType, 4> dtypes{DType::uint8, DType::bfloat16, DType::float32, DType::int64};

// Where each output element comes from: an element of x, or -1 for a padding of zero.
void check_moves(const char* name, const AttrMap& attrs, Index from, Index to, const std::function<Index(const Index&)>& source) {
  for (const char* isa : isas())
    for (DType t : dtypes)
      for (int64_t padding : {0, 3}) {
        INFO(name << " " << isa << " " << name_of(t) << " padding " << padding);
        choose_isa(isa);
        for (int threads : {1, 2}) {
          Tensor x(t, from, padding), y(t, to, padding ? 5 : 0);
          number(x, 11);
          run_op(layout_op(name), attrs, {&x}, {&y}, threads);
          bool same = true;
          for (int64_t i = 0; i < y.size(); i++) {
            Index at = source(unravel(i, y.view));
            same &= get(y, i) == (at.empty() && x.view.rank ? 0 : get(x, ravel(at, x.view)));
          }
          CHECK(same);
          CHECK(x.intact());
          CHECK(y.intact());
        }
      }
}

void check_transpose(Index from, Index perm) {
  AttrList list;
  Index to;
  for (int64_t p : perm) {
    list.push_back({p});
    to.push_back(from[size_t(p)]);
  }
  check_moves("transpose", {{"perm", {list}}}, from, to, [&](const Index& at) {
    Index x(at.size());
    for (size_t i = 0; i < at.size(); i++) x[size_t(perm[i])] = at[i];
    return x;
  });
}

AttrValue list(const Index& values) {
  AttrList l;
  for (int64_t v : values) l.push_back({v});
  return {l};
}

}  // namespace

TEST_CASE("transpose") {
  check_transpose({3, 5}, {1, 0});
  check_transpose({16, 16}, {1, 0});
  check_transpose({67, 131}, {1, 0});
  check_transpose({1, 129}, {1, 0});
  check_transpose({2, 33, 17, 3}, {0, 3, 1, 2});
  check_transpose({2, 3, 33, 17}, {0, 2, 3, 1});
  check_transpose({4, 7, 2, 20}, {0, 2, 1, 3});
  check_transpose({3, 4, 5, 2}, {3, 2, 1, 0});
  check_transpose({3, 0, 5}, {2, 0, 1});
  check_transpose({7, 2, 19}, {1, 2, 0});
  check_transpose({}, {});
  check_transpose({2, 1, 2, 1, 3, 1, 2, 2}, {7, 0, 6, 1, 5, 2, 4, 3});
}

TEST_CASE("broadcast_to") {
  auto check = [](Index from, Index to) {
    check_moves("broadcast_to", {{"shape", list(to)}}, from, to, [&](const Index& at) {
      Index x(from.size());
      for (size_t i = 0; i < x.size(); i++) x[i] = from[i] == 1 ? 0 : at[at.size() - x.size() + i];
      return x;
    });
  };
  check({}, {3, 5});
  check({5}, {301, 5});
  check({3}, {4, 1000, 3});
  check({4, 1, 7}, {4, 5, 7});
  check({4, 7, 1}, {4, 7, 33});
  check({2, 1, 1, 9}, {2, 5, 6, 9});
  check({1, 3, 1, 2}, {4, 3, 5, 2});
  check({1}, {0});
  check({5}, {5});
  check({1}, {20000});
}

TEST_CASE("slice, pad, reverse") {
  auto slice = [](Index from, Index begin, Index size, Index stride) {
    check_moves("slice", {{"begin", list(begin)}, {"size", list(size)}, {"stride", list(stride)}}, from, size,
                [&](const Index& at) {
                  Index x(at.size());
                  for (size_t i = 0; i < at.size(); i++) x[i] = begin[i] + at[i] * stride[i];
                  return x;
                });
  };
  slice({10}, {3}, {4}, {1});
  slice({5, 7, 9}, {1, 2, 3}, {4, 3, 2}, {1, 2, 3});
  slice({50, 64}, {0, 16}, {50, 33}, {1, 1});
  slice({5, 6}, {5, 2}, {0, 3}, {1, 1});
  slice({4, 40}, {1, 0}, {3, 20}, {1, 2});
  auto pad = [](Index from, Index low, Index high, Index interior) {
    Index to;
    for (size_t i = 0; i < from.size(); i++)
      to.push_back(low[i] + from[i] + high[i] + (from[i] > 0 ? (from[i] - 1) * interior[i] : 0));
    check_moves("pad", {{"low", list(low)}, {"high", list(high)}, {"interior", list(interior)}, {"value", {0.0}}}, from, to,
                [&](const Index& at) {
                  Index x(at.size());
                  for (size_t i = 0; i < at.size(); i++) {
                    int64_t p = at[i] - low[i], step = interior[i] + 1;
                    if (p < 0 || p % step || p / step >= from[i]) return Index{};
                    x[i] = p / step;
                  }
                  return x;
                });
  };
  pad({5}, {2}, {3}, {0});
  pad({5}, {0}, {0}, {2});
  pad({2, 6, 7, 3}, {0, 1, 2, 0}, {0, 1, 1, 0}, {0, 0, 0, 0});
  pad({2, 6, 7, 3}, {0, 1, 0, 0}, {0, 0, 3, 1}, {0, 1, 2, 1});
  pad({3, 0, 2}, {1, 2, 0}, {0, 1, 1}, {0, 3, 0});
  pad({20000}, {17}, {5}, {0});
  pad({20000}, {17}, {5}, {1});
  auto reverse = [](Index from, Index axes) {
    check_moves("reverse", {{"axes", list(axes)}}, from, from, [&](const Index& at) {
      Index x = at;
      for (int64_t a : axes) x[size_t(a)] = from[size_t(a)] - 1 - at[size_t(a)];
      return x;
    });
  };
  reverse({17}, {0});
  reverse({4, 5, 6}, {1});
  reverse({4, 5, 33}, {0, 2});
  reverse({4, 0}, {0, 1});
  reverse({3, 4}, {});
}

TEST_CASE("concat and reshape") {
  for (const char* isa : isas())
    for (int64_t padding : {0, 2})
      for (int64_t axis : {0, 1, -1}) {
        choose_isa(isa);
        Index a{4, 5, 3}, b = a, to = a;
        size_t k = size_t(axis < 0 ? axis + 3 : axis);
        b[k] = 7;
        to[k] = a[k] + b[k] + a[k];
        Tensor x(DType::float32, a, padding), y(DType::float32, b), z(DType::float32, to, padding);
        number(x, 1);
        number(y, 1000);
        run_op(layout_op("concat"), {{"axis", {axis}}}, {&x, &y, &x}, {&z}, 2);
        bool same = true;
        for (int64_t i = 0; i < z.size(); i++) {
          Index at = unravel(i, z.view);
          bool second = at[k] >= a[k] && at[k] < a[k] + b[k];
          at[k] -= at[k] >= a[k] + b[k] ? a[k] + b[k] : second ? a[k] : 0;
          same &= get(z, i) == (second ? get(y, ravel(at, y.view)) : get(x, ravel(at, x.view)));
        }
        CHECK(same);
        CHECK(z.intact());
        for (int64_t other : {0, 3}) {
          Tensor r(DType::float32, {10, 6}, other);
          run_op(layout_op("reshape"), {{"shape", integers({-1, 6})}}, {&x}, {&r});
          for (int64_t i = 0; i < r.size(); i++) same &= get(r, i) == get(x, i);
          CHECK(same);
          CHECK(r.intact());
        }
      }
}

TEST_CASE("full, iota, pad with a value") {
  for (const char* isa : isas()) {
    choose_isa(isa);
    Tensor h(DType::float16, {3, 7}, 2), b(DType::bfloat16, {1}), i(DType::int64, {2, 9000}), u(DType::uint8, {3}),
        n(DType::int32, {40});
    auto full = [&](Tensor& t, double v, std::initializer_list<int64_t> shape) {
      run_op(layout_op("full"), {{"shape", integers(shape)}, {"value", {v}}, {"dtype", {std::string(name_of(t.view.dtype))}}}, {},
             {&t}, 2);
      CHECK(t.intact());
    };
    full(h, 1.5, {3, 7});
    CHECK(h.at<uint16_t>(20) == 0x3e00);
    full(b, -2, {1});
    CHECK(b.at<uint16_t>(0) == 0xc000);
    full(i, -7.9, {2, 9000});
    CHECK(i.at<int64_t>(0) == -7);
    CHECK(i.at<int64_t>(17999) == -7);
    full(i, 1e30, {2, 9000});
    CHECK(i.at<int64_t>(5) == INT64_MAX);
    full(u, 300, {3});
    CHECK(u.at<uint8_t>(2) == 255);
    run_op(layout_op("iota"), {{"size", {int64_t(40)}}, {"dtype", {std::string("int32")}}}, {}, {&n});
    CHECK(n.at<int32_t>(39) == 39);
    CHECK(n.intact());
    Tensor line(DType::bfloat16, {9}), half(DType::float16, {9});
    run_op(layout_op("iota"), {{"size", {int64_t(9)}}, {"dtype", {std::string("bfloat16")}}}, {}, {&line});
    run_op(layout_op("iota"), {{"size", {int64_t(9)}}, {"dtype", {std::string("float16")}}}, {}, {&half});
    CHECK(line.at<uint16_t>(8) == 0x4100);
    CHECK(half.at<uint16_t>(3) == 0x4200);
    Tensor x(DType::float32, {2}), y(DType::float32, {5});
    x.set<float>([](int64_t k) { return float(k); });
    run_op(layout_op("pad"),
           {{"low", integers({1})}, {"high", integers({1})}, {"interior", integers({1})}, {"value", {__builtin_inf()}}}, {&x},
           {&y});
    CHECK(y.at<float>(0) == __builtin_inff());
    CHECK(y.at<float>(1) == 0);
    CHECK(y.at<float>(3) == 1);
  }
}

TEST_CASE("sizes that are not known yet") {
  Dim b = Dim::symbol("b"), t = Dim::symbol("t");
  auto shape_of = [](const char* name, AttrMap attrs, Dims from) {
    const Op& o = layout_op(name);
    return infer(o, o.attrs.read(name, attrs).get(), {{DType::float32, from}})[0].shape;
  };
  CHECK(shape_of("reshape", {{"shape", {AttrList{{b}, {int64_t(-1)}}}}}, {b, 28, 28}) == Dims{b, 784});
  CHECK(shape_of("reshape", {{"shape", integers({-1, 14})}}, {b, 28, t}) == Dims{b * t * 2, 14});
  CHECK(shape_of("reshape", {{"shape", integers({-1, 28})}}, {b, 28}) == Dims{b, 28});
  CHECK(shape_of("transpose", {{"perm", integers({1, 0})}}, {b, t}) == Dims{t, b});
  CHECK_THROWS_AS(shape_of("reshape", {{"shape", integers({-1, 5})}}, {4, 4}), Error);
  CHECK_THROWS_AS(shape_of("reshape", {{"shape", integers({-1, -1})}}, {4, 4}), Error);
  CHECK_THROWS_AS(shape_of("transpose", {{"perm", integers({0, 0})}}, {4, 4}), Error);
  CHECK_THROWS_AS(shape_of("slice", {{"begin", integers({2})}, {"size", integers({3})}, {"stride", integers({1})}}, {4}), Error);
  CHECK_THROWS_AS(shape_of("broadcast_to", {{"shape", integers({3})}}, {4}), Error);
  CHECK_THROWS_AS(
      shape_of("pad", {{"low", integers({-1})}, {"high", integers({0})}, {"interior", integers({0})}, {"value", {0.0}}}, {4}),
      Error);
}
