// dagrt's errors as Python classes: each is a dagrt.Error and the builtin that a Python user would catch.
#include <cstring>
#include <initializer_list>
#include <new>

#include "base/error.h"
#include "bindings/bindings.h"
#include "bindings/run.h"
#include "io/file.h"
#include "runtime/device.h"

namespace py = pybind11;

namespace dagrt::bindings {
namespace {

PyObject* classes[10];  // by ErrorKind; immortal
PyObject* device_memory_error;

PyObject* add(py::module_& m, const char* name, const char* doc, std::initializer_list<PyObject*> bases) {
  py::tuple list(bases.size());
  size_t i = 0;
  for (PyObject* b : bases) list[i++] = py::reinterpret_borrow<py::object>(b);
  PyObject* c = PyErr_NewExceptionWithDoc((std::string("dagrt.") + name).c_str(), doc, list.ptr(), nullptr);
  if (!c) throw py::error_already_set();
  m.add_object(name, c);
  return c;
}

void set_error(const Error& e) {
  // A damaged file's message may quote bytes that are not UTF-8.
  const char* what = e.what();
  py::object text = py::reinterpret_steal<py::object>(PyUnicode_DecodeUTF8(what, Py_ssize_t(std::strlen(what)), "replace"));
  const bool device_memory = dynamic_cast<const DeviceMemoryError*>(&e) != nullptr;
  if (text) PyErr_SetObject(device_memory ? device_memory_error : classes[int(e.kind)], text.ptr());
}

}  // namespace

void set_python_error() noexcept {
  try {
    throw;
  } catch (const Error& e) {
    set_error(e);
  } catch (py::error_already_set& e) {
    e.restore();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what());
  }
}

void bind_errors(py::module_& m) {
  auto set = [](ErrorKind kind, PyObject* c) { classes[int(kind)] = c; };
  PyObject* error = add(m, "Error", "Base of all errors that dagrt raises.", {PyExc_Exception});
  set(ErrorKind::shape, add(m, "ShapeError", "Sizes do not fit each other.", {error, PyExc_ValueError}));
  set(ErrorKind::dtype, add(m, "DTypeError", "Element types do not fit each other.", {error, PyExc_TypeError}));
  set(ErrorKind::graph, add(m, "GraphError", "A graph that makes no sense.", {error, PyExc_ValueError}));
  set(ErrorKind::data, add(m, "DataError", "Data that an op cannot take, such as an id out of range.",
                           {error, PyExc_IndexError, PyExc_ValueError}));
  set(ErrorKind::format, add(m, "FormatError", "A file that is not what it should be.", {error, PyExc_ValueError}));
  set(ErrorKind::device, add(m, "DeviceError", "A device or instruction set that cannot be used.", {error, PyExc_RuntimeError}));
  set(ErrorKind::memory_limit, add(m, "MemoryLimitError", "More memory is needed than is left.", {error, PyExc_MemoryError}));
  device_memory_error = add(m, "DeviceMemoryError", "A device's memory is used up.",
                            {classes[int(ErrorKind::device)], classes[int(ErrorKind::memory_limit)]});
  set(ErrorKind::cancelled,
      add(m, "Cancelled", "A run that was interrupted; no variable has changed.", {error, PyExc_KeyboardInterrupt}));
  set(ErrorKind::value, PyExc_ValueError);
  set(ErrorKind::internal, error);
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const FileError& e) {  // an OSError, or the subclass for its errno
      py::object error = py::reinterpret_steal<py::object>(
          PyObject_CallFunction(PyExc_OSError, "iss", e.code, std::strerror(e.code), e.path.c_str()));
      if (error) PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
    } catch (const Error& e) {
      set_error(e);
    }
  });
}

}  // namespace dagrt::bindings
