// Which values of a compiled function need not be computed by its runs: those that follow from constants and from
// variables the function does not write, through deterministic ops. They are prepared once and kept beside the
// variables (runtime/prepared.h): packed or transformed weights, folded factors, small constants.
//
// A value is kept where a run uses it and where that pays: computing it moves clearly more bytes, or takes more
// arithmetic, than reading it back. So a broadcast or a fill stays in the run, and `reshape`, which is no work, is left
// to the run behind what it views. What only leads to kept values belongs to nobody's run.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "ir/module.h"

namespace dagrt {

struct Hoist {
  std::vector<char> nodes;      // by node of the entry: left out of the runs
  std::vector<int32_t> slots;   // by value: its place in `values`, or -1
  std::vector<ValueId> values;  // those that are kept
};

/// For the first function of a compiled module. `keep` is asked for the values of each node that would pay, the last
/// nodes first; where it refuses, they are computed inside.
Hoist find_hoisted(const Module& compiled, const std::function<bool(const std::vector<ValueId>&)>& keep);

/// How a kept value is made: what leads to it, in an order that depends on nothing else.
struct Recipe {
  ValueId value = no_value;
  std::vector<size_t> nodes;       // of the entry
  std::vector<int64_t> variables;  // those it reads, in order of first use
  std::vector<int64_t> constants;
};

class RecipeBook {
 public:
  explicit RecipeBook(const Module& compiled);
  Recipe recipe(ValueId v) const;
  /// Recipes of one text whose variables are the same, in order, make the same value. Large constants are told apart by
  /// their memory.
  std::string text(const Recipe& r) const;
  /// A function without inputs that gives the value. Variables and constants are numbered as in the recipe.
  Module module(const Recipe& r) const;

 private:
  const Module& m_;
  const Function& f_;
  std::vector<int32_t> producer_;  // by value: node, or -1
};

}  // namespace dagrt
