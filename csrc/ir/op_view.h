// What the IR asks of ops. The IR stands below ops and includes none of their headers; these few functions are
// declared here and defined in ops/ (structural.cpp, registry.cpp).
#pragma once
#include <string>

#include "ir/module.h"
#include "ir/structural.h"

namespace dagrt {

const Op* find_op(const std::string& name);
const Op& op(const std::string& name);  // GraphError naming the nearest ones where there is none

const std::string& name_of(const Op& op);
const AttrType& attrs_of(const Op& op);
Structural role_of(const Op& op);

/// Output types of a node of `f`, whose input types are known already. Understands the structural ops, which need
/// the module (read, constant, scan); falls to Op::infer for all others.
/// The body of a scan must have had its own types inferred.
Types infer_node(const Module& module, const Function& f, const Node& node);

/// The function that a node runs (body of a scan), or null. GraphError where the module has none of that name.
const Function* body_of(const Module& module, const Node& node);

}  // namespace dagrt
