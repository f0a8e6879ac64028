// Module <-> JSON, as docs/boundary.md defines it (version 1).
//
// Reading trusts nothing: unknown keys, wrong types, ids out of range, cycles, unknown ops and attributes are errors
// that name the place, and nothing is allocated by a size that the text merely claims. What is not this format is a
// FormatError; a well-formed module that makes no sense is a GraphError (ShapeError, DTypeError from `infer`).
// Floats round-trip; inf and nan are strings.
#pragma once
#include <string>
#include <string_view>

#include "ir/module.h"

namespace dagrt {

inline constexpr int module_version = 1;

/// Reads and checks a module. Its types are inferred. Constants have types but no data: the caller attaches them.
Module read_module(std::string_view json);

/// The JSON of a module; reading it back gives the same module. Values are renumbered in order.
std::string write_module(const Module& module);

}  // namespace dagrt
