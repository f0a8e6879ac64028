// The intermediate representation: a Module is named functions over one list of variables.
//
// A function is straight-line: nodes in topological order, each naming an op, its attributes, its input values and
// its output values. Control flow is `scan` alone, whose attribute `body` names another function of the module.
// Types may hold symbolic sizes; after `specialise` all are numbers.
//
// Structural ops, known to the IR itself (csrc/ops/structural.cpp):
//   read      {variable}              the variable's value at the start of the run; with one input: that input is the
//                                     value a later read sees after an assign. A leaf for gradients.
//   constant  {index}                 entry of the module's constants
//   gradients {}                      inputs (loss, wrt...): one output per wrt, shaped like it; expanded by a pass
//   scan      {body, carries, ...}    see docs/ops.md
#pragma once
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "ir/attr.h"
#include "ir/type.h"

namespace dagrt {

struct Op;  // ops/op.h

using ValueId = int32_t;
inline constexpr ValueId no_value = -1;

struct Node {
  const Op* op = nullptr;
  Attrs attrs;
  std::vector<ValueId> inputs;
  std::vector<ValueId> outputs;
  std::vector<std::string> paths;  // layers it came from ("encoder/conv2d_1"); kept through fusion

  template <class A> const A& as() const { return *static_cast<const A*>(attrs.get()); }
};

struct Store {  // "at the end of a run, variable := value", where `when` (a bool scalar value, or no_value) holds
  int32_t variable = -1;
  ValueId value = no_value;
  ValueId when = no_value;
};

struct Input {
  std::string name;
  ValueId value = no_value;
};

struct Function {
  std::string name;
  std::vector<TensorType> types;  // by ValueId
  std::vector<Input> inputs;
  std::vector<Node> nodes;
  std::vector<ValueId> outputs;
  std::vector<std::string> output_names;  // "" where unnamed
  std::vector<Store> stores;              // each variable at most once
  ValueId guard = no_value;               // a bool scalar: no store happens where it is false ("the loss is not NaN")

  ValueId add_value(TensorType type) {
    types.push_back(std::move(type));
    return ValueId(types.size()) - 1;
  }
  /// The types of a node's inputs or outputs; what is left out is absent.
  Types types_of(const std::vector<ValueId>& values) const;
};

struct VariableDecl {
  std::string name;  // "dense/kernel"
  TensorType type;   // fully known
};

struct Constant {
  TensorType type;
  std::shared_ptr<const void> data;  // C-contiguous
};

struct Module {
  std::vector<VariableDecl> variables;
  std::vector<Constant> constants;
  std::deque<Function> functions;  // a deque: adding a function leaves references to the others valid

  /// The function of that name; GraphError listing the present ones where there is none.
  const Function& function(const std::string& name) const;
  Function& function(const std::string& name);
};

}  // namespace dagrt
