// infer, and the table of ops.
#include "bindings/bindings.h"
#include "bindings/convert.h"
#include "ops/op.h"

namespace dagrt::bindings {
namespace {

py::list infer_types(const std::string& name, py::handle attrs, py::handle inputs) {
  const Op& o = op(name);
  PyObject* fast = PySequence_Fast(inputs.ptr(), "inputs must be a sequence of (dtype, shape)");
  if (!fast) throw py::error_already_set();
  py::object keep = py::reinterpret_steal<py::object>(fast);
  Types in(size_t(PySequence_Fast_GET_SIZE(fast)));
  for (size_t i = 0; i < in.size(); i++) {
    PyObject* item = PySequence_Fast_GET_ITEM(fast, Py_ssize_t(i));
    if (item == Py_None) {
      in[i].absent = true;
      continue;
    }
    PyObject* pair = PySequence_Fast(item, "an input must be (dtype, shape)");
    if (!pair) throw py::error_already_set();
    py::object keep_pair = py::reinterpret_steal<py::object>(pair);
    if (PySequence_Fast_GET_SIZE(pair) != 2) fail(ErrorKind::graph, "infer: an input must be (dtype, shape)");
    in[i].dtype = dtype_from(PySequence_Fast_GET_ITEM(pair, 0));
    in[i].shape = dims_from(PySequence_Fast_GET_ITEM(pair, 1));
  }
  Attrs a = o.attrs.read(o.name, attrs_from(attrs));
  Types out = infer(o, a.get(), in);
  py::list result(out.size());
  for (size_t i = 0; i < out.size(); i++) {
    py::tuple shape(out[i].shape.size());
    for (size_t k = 0; k < out[i].shape.size(); k++) shape[k] = dim_object(out[i].shape[k]);
    py::tuple type(2);
    type[0] = py::reinterpret_borrow<py::object>(dtype_name(out[i].dtype));
    type[1] = std::move(shape);
    result[i] = std::move(type);
  }
  return result;
}

}  // namespace

void bind_ops(py::module_& m) {
  m.def("infer", &infer_types, py::arg("op"), py::arg("attrs"), py::arg("inputs"),
        "Output types of an op: a list of (dtype, shape).");
  m.def("op_names", [] {
    py::list names;
    for (const Op* o : all_ops()) names.append(o->name);
    return names;
  });
  m.def("op_table", [] {
    py::list table;
    for (const Op* o : all_ops()) {
      py::dict row;
      row["name"] = o->name;
      row["equation"] = o->equation;
      py::list attrs;
      for (const std::string& name : o->attrs.names()) attrs.append(name);
      row["attrs"] = attrs;
      row["min_inputs"] = o->min_inputs;
      row["max_inputs"] = o->max_inputs;
      row["residuals"] = o->residuals;
      row["differentiable"] = o->grad != nullptr && !o->not_differentiable;
      row["checks"] = o->checks;
      row["pointwise"] = o->pointwise;
      row["cpu_algorithm_of"] = o->cpu_algorithm_of ? py::object(py::str(o->cpu_algorithm_of)) : py::object(py::none());
      row["cuda_algorithm_of"] = o->cuda_algorithm_of ? py::object(py::str(o->cuda_algorithm_of)) : py::object(py::none());
      row["random"] = o->random;
      row["spaced"] = py::make_tuple(o->spaced.inputs, o->spaced.outputs);
      row["advice"] = o->not_differentiable ? py::object(py::str(o->not_differentiable)) : py::object(py::none());
      table.append(row);
    }
    return table;
  });
}

}  // namespace dagrt::bindings
