// The structural ops (see ir/module.h and docs/ops.md): which there are, and their attributes, which passes and the
// executor read.
#pragma once
#include <cstdint>
#include <string>

#include "base/dim.h"

namespace dagrt {

enum class Structural : uint8_t { none, read, constant, gradients, scan };

struct ReadAttrs {
  int64_t variable = -1;  // index into Module::variables
  template <class V> void visit(V& v) { v("variable", variable); }
};

struct ConstantAttrs {
  int64_t index = -1;  // into Module::constants
  template <class V> void visit(V& v) { v("index", index); }
};

/// Node inputs: `carries` carries, `sequences` sequences (time first), the rest captured values.
/// Body inputs: carries, one element of each sequence, captured values, step (int32 []).
/// Body outputs: carries', then ys. Node outputs: final carries, then ys stacked: [length, ...].
/// Iteration k runs at step t = reverse ? length - 1 - k : k; it reads sequences at t and writes ys at t.
struct ScanAttrs {
  std::string body;
  int64_t carries = 0;
  int64_t sequences = 0;
  bool reverse = false;
  Dim length = -1;  // -1: from the sequences (never -1 in a specialised function)
  template <class V> void visit(V& v) {
    v("body", body);
    v("carries", carries);
    v("sequences", sequences, int64_t(0));
    v("reverse", reverse, false);
    v("length", length, Dim(-1));
  }
};

}  // namespace dagrt
