// Variable and Function. A call of a small program must cost a few microseconds, eager ops being just that: so arrays
// are looked at through NumPy's C interface, and the program is found without building a key.
#include <pybind11/stl.h>

#include <array>
#include <optional>

#include "api/dagrt.h"
#include "bindings/bindings.h"
#include "bindings/convert.h"
#include "bindings/run.h"

namespace dagrt::bindings {
namespace {

unsigned long main_thread = 0;
Device* chosen_device = nullptr;                // by set_device
thread_local PyObject* interruption = nullptr;  // what a signal handler raised during a run

/// Of functions made from now on. The machine is asked for GPUs when one is first made.
Device& device_in_use() { return chosen_device ? *chosen_device : default_device(); }

/// Lets Python's signal handlers run. Takes the GIL for that alone; whoever has it never waits for a variable's lock.
bool signals_pending() {
  PyGILState_STATE gil = PyGILState_Ensure();
  bool stop = PyErr_CheckSignals() != 0;
  if (stop) {
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    if (trace) PyException_SetTraceback(value, trace);
    Py_XDECREF(type);
    Py_XDECREF(trace);
    Py_XSETREF(interruption, value);
  }
  PyGILState_Release(gil);
  return stop;
}

/// Views of a few arrays without allocation, of many with one.
class Views {
 public:
  explicit Views(size_t n) {
    if (n > few_.size()) many_.resize(n);
    data_ = n > few_.size() ? many_.data() : few_.data();
  }
  View* data() { return data_; }
  View& operator[](size_t i) { return data_[i]; }

 private:
  std::array<View, 8> few_;
  std::vector<View> many_;
  View* data_;
};

void check_out(py::handle array, const View& want, size_t index) {
  if (!py::detail::npy_api::get().PyArray_Check_(array.ptr()))
    fail(ErrorKind::dtype, "out[", index, "] must be an array, got ", Py_TYPE(array.ptr())->tp_name);
  py::object held = py::reinterpret_borrow<py::object>(array);
  View got = view_of_array(held);
  auto shape_text = [](const View& v) { return text(Dims(v.dims, v.dims + v.rank)); };
  if (got.dtype != want.dtype)
    fail(ErrorKind::dtype, "out[", index, "]: expected ", name_of(want.dtype), ", got ", name_of(got.dtype));
  if (shape_text(got) != shape_text(want))
    fail(ErrorKind::shape, "out[", index, "]: expected shape ", shape_text(want), ", got ", shape_text(got));
  if (held.ptr() != array.ptr() || !py::reinterpret_borrow<py::array>(array).writeable())
    fail(ErrorKind::shape, "out[", index, "] must be a writeable, aligned, C-contiguous array of native byte order");
}

bool overlap(const View& a, const View& b) {
  const char *p = a.as<char>(), *q = b.as<char>();
  return p < q + b.bytes() && q < p + a.bytes();
}

py::list call(const Callable& f, py::handle inputs, py::handle out) {
  PyObject* given = PySequence_Fast(inputs.ptr(), "inputs must be a list of arrays");
  if (!given) throw py::error_already_set();
  py::object keep = py::reinterpret_steal<py::object>(given);
  size_t n = size_t(PySequence_Fast_GET_SIZE(given));
  Views in(n);
  std::vector<py::object> converted;  // copies of arrays that could not be borrowed
  for (size_t i = 0; i < n; i++) {
    PyObject* item = PySequence_Fast_GET_ITEM(given, Py_ssize_t(i));
    py::object array = py::reinterpret_borrow<py::object>(item);
    try {
      in[i] = view_of_array(array);
    } catch (const Error& e) {
      const auto& declared = f.entry().inputs;
      fail(e.kind, "input '", i < declared.size() ? declared[i].name : std::to_string(i), "': ", e.what());
    }
    if (array.ptr() != item) converted.push_back(std::move(array));
  }
  std::shared_ptr<const Program> program = f.find(in.data(), n);
  if (!program) {
    WithoutGil released;
    program = f.program(in.data(), n);
  }
  const std::vector<View>& types = outputs_of(*program);
  Views results(types.size());
  py::list arrays(types.size());
  if (out.is_none()) {
    for (size_t i = 0; i < types.size(); i++) {
      py::object array = new_array(types[i]);
      results[i] = types[i];
      results[i].data = py::detail::array_proxy(array.ptr())->data;
      PyList_SET_ITEM(arrays.ptr(), Py_ssize_t(i), array.release().ptr());
    }
  } else {
    py::object sequence = py::reinterpret_steal<py::object>(PySequence_Fast(out.ptr(), "out must be a list of arrays"));
    if (!sequence) throw py::error_already_set();
    if (size_t(PySequence_Fast_GET_SIZE(sequence.ptr())) != types.size())
      fail(ErrorKind::shape, "out: expected ", types.size(), " arrays, got ", PySequence_Fast_GET_SIZE(sequence.ptr()));
    for (size_t i = 0; i < types.size(); i++) {
      py::object array = py::reinterpret_borrow<py::object>(PySequence_Fast_GET_ITEM(sequence.ptr(), Py_ssize_t(i)));
      check_out(array, types[i], i);
      results[i] = types[i];
      results[i].data = py::detail::array_proxy(array.ptr())->data;
      for (size_t k = 0; k < n; k++)
        if (overlap(results[i], in[k]))
          fail(ErrorKind::value, "out[", i, "] overlaps input ", k, " in memory; give it memory of its own");
      for (size_t k = 0; k < i; k++)
        if (overlap(results[i], results[k]))
          fail(ErrorKind::value, "out[", i, "] overlaps out[", k, "] in memory; give it memory of its own");
      PyList_SET_ITEM(arrays.ptr(), Py_ssize_t(i), array.release().ptr());
    }
  }
  run_released([&](CancelPoll poll) { f.run(*program, in.data(), results.data(), poll); });
  return arrays;
}

std::vector<std::vector<int64_t>> shapes_from(py::handle shapes) {
  std::vector<std::vector<int64_t>> list;
  for (py::handle s : shapes) list.push_back(shape_from(s));
  return list;
}

std::shared_ptr<const Program> program_for(const Callable& f, py::handle shapes) {
  auto list = shapes_from(shapes);
  WithoutGil released;
  return f.program(list);
}

void bind_variable(py::module_& m) {
  py::class_<Variable, VariableRef> c(m, "Variable", "Memory that outlives runs; every function over it shares it.");
  c.def(py::init([](py::object value, const std::string& name) {
          View v = view_of_array(value);
          return std::make_shared<Variable>(name, v.dtype, std::vector<int64_t>(v.dims, v.dims + v.rank), v.data);
        }),
        py::arg("value"), py::arg("name") = "");
  auto shape_of = [](const Variable& v) {
    py::tuple t(v.shape().size());
    for (size_t i = 0; i < v.shape().size(); i++) t[i] = v.shape()[i];
    return t;
  };
  c.def_property_readonly("shape", shape_of);
  c.def_property_readonly("dtype", [](const Variable& v) { return py::reinterpret_borrow<py::object>(dtype_name(v.dtype())); });
  c.def_property_readonly("name", &Variable::name);
  c.def_property_readonly("version", &Variable::version);
  c.def_property_readonly("nbytes", &Variable::bytes);
  c.def_property_readonly("device", [](const Variable& v) { return std::string(v.device().name()); });
  c.def(
      "read",
      [](const Variable& v) {
        py::object array = new_array(make_view(v.dtype(), v.shape(), nullptr));
        void* to = py::detail::array_proxy(array.ptr())->data;
        WithoutGil released;
        v.read(to);
        return array;
      },
      "A copy of the value.");
  c.def(
      "assign",
      [](Variable& v, py::object value) {
        View given = view_of_array(value);
        if (given.dtype != v.dtype())
          fail(ErrorKind::dtype, "variable '", v.name(), "': expected ", name_of(v.dtype()), ", got ", name_of(given.dtype));
        if (std::vector<int64_t>(given.dims, given.dims + given.rank) != v.shape())
          fail(ErrorKind::shape, "variable '", v.name(), "': expected shape ", text(Dims(v.shape().begin(), v.shape().end())),
               ", got ", text(Dims(given.dims, given.dims + given.rank)));
        WithoutGil released;
        v.assign(given.data);
      },
      py::arg("value"), "Copies a value of the same shape and dtype.");
  c.def("__repr__", [](const Variable& v) {
    return "<Variable '" + v.name() + "' " + name_of(v.dtype()) + text(Dims(v.shape().begin(), v.shape().end())) + ">";
  });
}

}  // namespace

CancelPoll poll_for_this_thread() { return PyThread_get_thread_ident() == main_thread ? signals_pending : nullptr; }

/// KeyboardInterrupt itself becomes Cancelled.
void rethrow_interruption() {
  PyObject* e = interruption;
  interruption = nullptr;
  if (!e) return;
  bool usual = PyErr_GivenExceptionMatches(e, PyExc_KeyboardInterrupt);
  if (!usual) PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(e)), e);
  Py_DECREF(e);
  if (!usual) throw py::error_already_set();
}

void bind_function(py::module_& m) {
  main_thread = py::module_::import("threading").attr("main_thread")().attr("ident").cast<unsigned long>();
  m.def("set_device", [](const std::string& name) { chosen_device = &find_device(name); }, py::arg("name"));
  m.def("device", [] { return std::string(device_in_use().name()); });
  m.def("find_device", [](const std::string& name) { return std::string(find_device(name).name()); }, py::arg("name"));
  m.def("devices", &device_names);
  bind_variable(m);
  py::class_<Callable, std::shared_ptr<Callable>> c(m, "Function", "A module with its variables and constants.");
  c.def(py::init([](const std::string& json, std::vector<VariableRef> variables, const py::list& constants,
                    const std::string& entry, std::optional<bool> exact, std::optional<std::string> on) {
          std::vector<View> views;
          std::vector<py::object> held;
          for (py::handle h : constants) {
            held.push_back(py::reinterpret_borrow<py::object>(h));
            views.push_back(view_of_array(held.back()));
          }
          WithoutGil released;
          Device& device = on ? find_device(*on) : device_in_use();
          return std::make_shared<Callable>(json, std::move(variables), views, entry, exact.value_or(exact_by_default()), device);
        }),
        py::arg("module_json"), py::arg("variables"), py::arg("constants"), py::arg("entry") = "main",
        py::arg("exact") = py::none(), py::arg("device") = py::none());
  c.def("__call__", &call, py::arg("inputs"), py::arg("out") = py::none(),
        "Runs the function on arrays; `out`: arrays to write to.");
  c.def(
      "memory",
      [](const Callable& f, py::handle shapes) {
        auto program = program_for(f, shapes);
        MemoryReport r = f.memory(*program);
        py::dict d;
        d["arena_bytes"] = r.arena_bytes;
        d["variable_bytes"] = r.variable_bytes;
        d["constant_bytes"] = r.constant_bytes;
        d["prepared_bytes"] = r.prepared_bytes;
        return d;
      },
      py::arg("shapes"));
  c.def(
      "output_types",
      [](const Callable& f, py::handle shapes) {
        auto program = program_for(f, shapes);
        py::list types;
        for (const View& v : outputs_of(*program))
          types.append(py::make_tuple(py::reinterpret_borrow<py::object>(dtype_name(v.dtype)), shape_tuple(v)));
        return types;
      },
      py::arg("shapes"));
  c.def(
      "text", [](const Callable& f, py::object shapes) { return shapes.is_none() ? f.text() : f.text(*program_for(f, shapes)); },
      py::arg("shapes") = py::none());
  c.def_property_readonly("module_json", &Callable::module_json);
  c.def_property_readonly("programs", &Callable::programs);
}

}  // namespace dagrt::bindings
