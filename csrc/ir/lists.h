// Lists of integers and of sizes as attributes.
#pragma once
#include "ir/attr.h"

namespace dagrt {

AttrValue attr_list(const std::vector<int64_t>& values);
AttrValue attr_list(const std::vector<Dim>& sizes);

}  // namespace dagrt
