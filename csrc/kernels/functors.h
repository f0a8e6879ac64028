// The pointwise functions: one row each. Adding an activation is adding a row here (and one in tests/cases/).
//
// Columns:
//   name, equation   as in IR files and op tables
//   types            F: float32, bfloat16, float16;  FI: these and int32, int64, uint8 (and bool where stated)
//   ns               rough cost of an element on one core, beside reading and writing it
//   value            over vectors of floats a (and b), with the functions of cpu/vec.h and cpu/vec_math.h
//   integer          over integers a, b of type T, U being T's unsigned type (wraparound); 0 where there is none
//   gradients        over graph expressions: g the incoming gradient, y the result, a and b the operands, numbers and
//                    + - * /; other ops by name: call("tanh", x), pick(c, x, y) for select. `zero` where there is none.
// The rows are text: kernels expand `value`, the op layer expands the gradients.
#pragma once
#include <cstdint>

// clang-format off
#define DAGRT_UNARY(X) \
  X(negative,   "-a",                FI, 0.02, -a,                              T(U(0) - U(a)),                     -g) \
  X(abs,        "|a|",               FI, 0.02, vabs(a),                         T(a < T(0) ? T(U(0) - U(a)) : a),   g * call("sign", a)) \
  X(sign,       "-1, 0 or 1",        FI, 0.02, vsign(a),                        T((a > T(0)) - (a < T(0))),         zero) \
  X(square,     "a * a",             FI, 0.02, a * a,                           T(U(a) * U(a)),                     g * a * 2) \
  X(exp,        "e^a",               F,  0.2,  vexp(a),                         0, g * y) \
  X(expm1,      "e^a - 1",           F,  0.2,  vexpm1(a),                       0, g * (y + 1)) \
  X(log,        "ln a",              F,  0.25, vlog(a),                         0, g / a) \
  X(log1p,      "ln(1 + a)",         F,  0.4,  vlog1p(a),                       0, g / (a + 1)) \
  X(sqrt,       "a^(1/2)",           F,  0.1,  vsqrt(a),                        0, g * 0.5 / y) \
  X(rsqrt,      "a^(-1/2)",          F,  0.2,  splat(1) / vsqrt(a),             0, g * -0.5 * y / a) \
  X(reciprocal, "1 / a",             F,  0.1,  splat(1) / a,                    0, -(g * y * y)) \
  X(sin,        "sin a",             F,  0.3,  vsin(a),                         0, g * call("cos", a)) \
  X(cos,        "cos a",             F,  0.3,  vcos(a),                         0, -(g * call("sin", a))) \
  X(tan,        "tan a",             F,  8,    vtan(a),                         0, g * (y * y + 1)) \
  X(arcsin,     "asin a",            F,  8,    vasin(a),                        0, g * call("rsqrt", 1 - a * a)) \
  X(arccos,     "acos a",            F,  8,    vacos(a),                        0, -(g * call("rsqrt", 1 - a * a))) \
  X(arctan,     "atan a",            F,  8,    vatan(a),                        0, g / (a * a + 1)) \
  X(sinh,       "(e^a - e^-a) / 2",  F,  8,    vsinh(a),                        0, g * call("cosh", a)) \
  X(cosh,       "(e^a + e^-a) / 2",  F,  8,    vcosh(a),                        0, g * call("sinh", a)) \
  X(arcsinh,    "asinh a",           F,  12,   vasinh(a),                       0, g * call("rsqrt", a * a + 1)) \
  X(arccosh,    "acosh a",           F,  12,   vacosh(a),                       0, g * call("rsqrt", a * a - 1)) \
  X(arctanh,    "atanh a",           F,  12,   vatanh(a),                       0, g / (1 - a * a)) \
  X(tanh,       "tanh a",            F,  0.4,  vtanh(a),                        0, g * (1 - y * y)) \
  X(sigmoid,    "1 / (1 + e^-a)",    F,  0.3,  vsigmoid(a),                     0, g * (y * (1 - y))) \
  X(erf,        "erf a",             F,  0.5,  verf(a),                         0, g * 1.1283791670955126 * call("exp", -(a * a))) \
  X(softplus,   "ln(1 + e^a)",       F,  0.6,  vsoftplus(a),                    0, g * call("sigmoid", a)) \
  X(relu,       "max(a, 0)",         F,  0.02, vmax(a, splat(0)),               0, pick(call("greater", y, 0), g, 0)) \
  X(relu6,      "min(max(a, 0), 6)", F,  0.03, vmin(vmax(a, splat(0)), splat(6)), 0, \
    pick(call("greater", y, 0), pick(call("less", y, 6), g, 0), 0)) \
  X(floor,      "largest integer <= a",   F, 0.05, vfloor(a),                   0, zero) \
  X(ceil,       "smallest integer >= a",  F, 0.05, vceil(a),                    0, zero) \
  X(round,      "nearest integer, half to even", F, 0.05, vround(a),            0, zero) \
  X(round_bfloat16, "a as bfloat16 holds it", F, 0.05, vround_bfloat16(a),      0, call("round_bfloat16", g)) \
  X(round_float16,  "a as float16 holds it",  F, 0.05, vround_float16(a),       0, call("round_float16", g))

// Ties of maximum and minimum share half and half. For bool, add and maximum are `or`, minimum is `and`.
#define DAGRT_BINARY(X) \
  X(add,          "a + b",           FI, 0.02, a + b,                           T(U(a) + U(b)),                     g, g) \
  X(subtract,     "a - b",           FI, 0.02, a - b,                           T(U(a) - U(b)),                     g, -g) \
  X(multiply,     "a * b",           FI, 0.02, a * b,                           T(U(a) * U(b)),                     g * b, g * a) \
  X(divide,       "a / b",           F,  0.1,  a / b,                           0,                                  g / b, -(g * y / b)) \
  X(floor_divide, "floor(a / b)",    FI, 12,   vfloor_divide(a, b),             int_floor_divide(a, b),             zero, zero) \
  X(mod,          "a - b floor(a / b)", FI, 12, vmod(a, b),                     int_mod(a, b),                      g, -(g * call("floor", a / b))) \
  X(power,        "a^b",             FI, 12,   vpow(a, b),                      int_power(a, b), \
    g * b * call("power", a, pick(call("equal", b, 0), 1, b) - 1), \
    pick(power_of_zero(a, b), 0, g * y * call("log", pick(power_of_zero(a, b), 1, a)))) \
  X(maximum,      "the larger; NaN if any is", FI, 0.02, vmax(a, b),            T(a > b ? a : b), \
    pick(call("greater", a, b), g, pick(call("equal", a, b), g * 0.5, 0)), \
    pick(call("less", a, b), g, pick(call("equal", a, b), g * 0.5, 0))) \
  X(minimum,      "the smaller; NaN if any is", FI, 0.02, vmin(a, b),           T(a < b ? a : b), \
    pick(call("less", a, b), g, pick(call("equal", a, b), g * 0.5, 0)), \
    pick(call("greater", a, b), g, pick(call("equal", a, b), g * 0.5, 0))) \
  X(arctan2,      "angle of (b, a)", F,  20,   vatan2(a, b),                    0, g * b / (a * a + b * b), -(g * a / (a * a + b * b)))

// bool results of two operands of any type
#define DAGRT_COMPARE(X) \
  X(equal,         "a = b",  a == b) \
  X(not_equal,     "a != b", a != b) \
  X(less,          "a < b",  a < b) \
  X(less_equal,    "a <= b", a <= b) \
  X(greater,       "a > b",  a > b) \
  X(greater_equal, "a >= b", a >= b)

// bool results of one float
#define DAGRT_PREDICATE(X) \
  X(isnan,    "a is NaN",          isnan_mask(a)) \
  X(isinf,    "a is inf or -inf",  isinf_mask(a)) \
  X(isfinite, "a is a number",     isfinite_mask(a))

// On integers (and bool, which is 0 or 1); the logical ones on bool alone.
#define DAGRT_BITS(X) \
  X(bitwise_and, "a and b, bit by bit", a & b) \
  X(bitwise_or,  "a or b, bit by bit",  a | b) \
  X(bitwise_xor, "either, bit by bit",  a ^ b) \
  X(logical_and, "a and b",             a & b) \
  X(logical_or,  "a or b",              a | b) \
  X(logical_xor, "a or b, not both",    a ^ b)
// clang-format on

namespace dagrt {

enum class Functor : uint8_t {
#define DAGRT_ROW(name, ...) name##_,
  DAGRT_UNARY(DAGRT_ROW) DAGRT_BINARY(DAGRT_ROW) DAGRT_COMPARE(DAGRT_ROW) DAGRT_PREDICATE(DAGRT_ROW) DAGRT_BITS(DAGRT_ROW)
#undef DAGRT_ROW
      logical_not_,
  select_,
  cast_,
  copy_
};

}  // namespace dagrt
