// The one error type of the C++ side. The bindings turn each kind into its Python class.
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>

namespace dagrt {

enum class ErrorKind { shape, dtype, graph, data, format, device, memory_limit, cancelled, value, internal };

struct Error : std::runtime_error {
  ErrorKind kind;
  Error(ErrorKind k, const std::string& message) : std::runtime_error(message), kind(k) {}
};

/// Throws Error{kind} with the parts streamed one after another.
/// A message reads: who: what was required, what came, from where; how to fix it.
template <class... Parts> [[noreturn]] void fail(ErrorKind kind, const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw Error(kind, text.str());
}

}  // namespace dagrt
