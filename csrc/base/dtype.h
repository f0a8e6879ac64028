// Element types. 16-bit floats are storage only: arithmetic is float32.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"

namespace dagrt {

enum class DType : uint8_t { float32, bfloat16, float16, int32, int64, uint8, bool_ };

inline constexpr size_t size_of(DType t) {
  switch (t) {
    case DType::float32:
    case DType::int32: return 4;
    case DType::bfloat16:
    case DType::float16: return 2;
    case DType::int64: return 8;
    case DType::uint8:
    case DType::bool_: return 1;
  }
  return 0;
}

inline constexpr const char* name_of(DType t) {
  switch (t) {
    case DType::float32: return "float32";
    case DType::bfloat16: return "bfloat16";
    case DType::float16: return "float16";
    case DType::int32: return "int32";
    case DType::int64: return "int64";
    case DType::uint8: return "uint8";
    case DType::bool_: return "bool";
  }
  return "?";
}

inline DType parse_dtype(std::string_view s) {
  for (DType t : {DType::float32, DType::bfloat16, DType::float16, DType::int32, DType::int64, DType::uint8, DType::bool_})
    if (s == name_of(t)) return t;
  fail(ErrorKind::dtype, "unknown dtype '", s, "'; dagrt has float32, bfloat16, float16, int32, int64, uint8 and bool");
}

inline constexpr bool is_float(DType t) { return t == DType::float32 || t == DType::bfloat16 || t == DType::float16; }
inline constexpr bool is_integer(DType t) { return t == DType::int32 || t == DType::int64 || t == DType::uint8; }

}  // namespace dagrt
