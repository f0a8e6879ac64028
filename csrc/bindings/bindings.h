// The parts of the extension module `dagrt._core` (docs/boundary.md), one file each.
#pragma once
#include <pybind11/pybind11.h>

namespace dagrt::bindings {

void bind_errors(pybind11::module_& m);
void bind_dim(pybind11::module_& m);
void bind_function(pybind11::module_& m);  // Variable, Function
void bind_caller(pybind11::module_& m);    // Caller
void bind_epoch(pybind11::module_& m);     // Epoch
void bind_ops(pybind11::module_& m);       // infer, op_names, op_table
void bind_files(pybind11::module_& m);     // read_model, write_model

}  // namespace dagrt::bindings
