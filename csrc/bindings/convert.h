// Between Python's objects and dagrt's: arrays, types, sizes, attributes. All need the GIL.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "base/view.h"
#include "ir/attr.h"
#include "ir/type.h"

namespace dagrt::bindings {

namespace py = pybind11;

/// Looks up what conversion needs (the bfloat16 dtype of ml_dtypes, if there is one); called once at import.
void init_convert();

/// The view of an array that is C-contiguous, aligned and native; `array` becomes a converted copy where the given one
/// is not. DTypeError for an element type that dagrt does not have. uint16 stands for bfloat16, which NumPy lacks.
View view_of_array(py::object& array);

py::object new_array(const View& type);  // uninitialised
PyObject* descriptor_of(DType t);        // NumPy's own object for it
py::handle dtype_name(DType t);          // an interned str
py::tuple shape_tuple(const View& v);

DType dtype_from(py::handle name);
Dim dim_from(py::handle size);        // int or Dim
py::object dim_object(const Dim& d);  // int where known, else Dim
Dims dims_from(py::handle sequence);
std::vector<int64_t> shape_from(py::handle sequence);
AttrMap attrs_from(py::handle dict);

}  // namespace dagrt::bindings
