// A program of pointwise instructions over float32 and bool: the text of the op `pointwise` and of the producers'
// epilogues, read once into what kernels run.
//   an instruction is an op's name and its operands, in the order given: "multiply 0 c1"
//   operands: 0 to inputs - 1 are inputs, then come the results of earlier instructions; c0, c1, ... are the constants
// The last instruction's result is the program's.
#pragma once
#include <string>
#include <vector>

#include "ir/attr.h"
#include "kernels/pointwise.h"

namespace dagrt {

struct ProgramRow;  // a functor, and how it may stand in a program

struct Chain {  // not Program: that is the runtime's
  struct Step {
    const ProgramRow* row;
    int arg[3];  // constants: -1 - k
  };
  std::vector<Step> steps;
  std::vector<float> constants;

  /// A FormatError naming the op and the line where the text is none. Operands are checked by `flow`.
  void read(const std::string& op, const std::vector<std::string>& lines, const std::vector<double>& numbers);

  /// Instructions for inputs of these types, and the last one's type; allocates nothing.
  /// Returns -1, or the first line that does not fit the inputs.
  int flow(int inputs, const DType* in, FusedInstruction* code, DType* result) const;

  double element_ns() const;  // cost of an element, all instructions together
  double element_flops() const;

  /// Whether an op, with operands of these types, can be an instruction: every value is float32 or bool, nothing faults.
  static bool fits(const std::string& op, const DType* in, int inputs, DType out);
};

/// attr_type for a struct that holds programs: its `prepare(op)` is called once read.
template <class A> AttrType prepared_attr_type() {
  AttrType t = attr_type<A>();
  t.read = [](const std::string& op, const AttrMap& map) -> Attrs {
    auto a = std::make_shared<A>();
    attr_detail::Reader r{op, map};
    a->visit(r);
    r.finish();
    a->prepare(op);
    return a;
  };
  return t;
}

}  // namespace dagrt
