// Caller: a Function bound to one way of calling it, for steps that are run again and again. It takes the user's own
// arguments, so that nothing in Python looks at them: arrays, or lists, tuples and dicts of them, and gives results in the
// structure that was traced. Where anything is not as expected (another type, layout, shape, a missing key) it answers
// NotImplemented, and the caller's slow road converts or complains. A call costs a few hundred ns beside the run.
#include <pybind11/stl.h>
#include <structmember.h>

#include <algorithm>
#include <array>
#include <tuple>

#include "bindings/bindings.h"
#include "bindings/convert.h"
#include "bindings/run.h"
#include "runtime/program.h"

namespace dagrt::bindings {
namespace {

constexpr int npy_behaved = 0x1 | 0x100;  // C-contiguous, aligned
constexpr size_t most_arrays = 16;

struct Input {
  DType dtype;
  int rank;
  int64_t dims[max_rank];  // -1: any
};

/// One argument: how many arrays it holds, and where each stands.
struct Group {
  bool leaf = false, list = false, tuple = false, dict = false;  // the forms it may have
  std::vector<Py_ssize_t> positions;                             // in a list or tuple
  std::vector<py::object> names;                                 // in a dict
  size_t count() const { return positions.size(); }
};

enum class Form { one, list, tuple, dict, numbers };

struct Bound {
  std::shared_ptr<Callable> function;
  std::vector<Group> groups;
  std::vector<Input> inputs;
  Form form = Form::one;
  std::vector<size_t> results;  // which outputs
  std::vector<py::object> names;
  std::shared_ptr<const Program> last;  // guarded by the GIL
};

struct CallerObject {
  PyObject_HEAD vectorcallfunc call;
  Bound* bound;
};

bool take(PyObject* item, const Input& want, View& v) {
  const auto& api = py::detail::npy_api::get();
  if (reinterpret_cast<PyObject*>(Py_TYPE(item)) != reinterpret_cast<PyObject*>(api.PyArray_Type_)) return false;
  auto* a = py::detail::array_proxy(item);
  if (a->descr != descriptor_of(want.dtype) || a->nd != want.rank || (a->flags & npy_behaved) != npy_behaved) return false;
  for (int i = 0; i < want.rank; i++) {
    if (want.dims[i] >= 0 && a->dimensions[i] != want.dims[i]) return false;
    v.dims[i] = a->dimensions[i];
  }
  v.data = a->data;
  v.dtype = want.dtype;
  v.rank = want.rank;
  v.ld = v.rank ? v.dims[v.rank - 1] : 1;
  return true;
}

/// The arrays of one argument, in order; false where it has another form.
bool spread(PyObject* argument, const Group& g, PyObject** to) {
  if (PyList_CheckExact(argument) || PyTuple_CheckExact(argument)) {
    if (!(PyList_CheckExact(argument) ? g.list : g.tuple)) return false;
    if (size_t(PySequence_Fast_GET_SIZE(argument)) != g.count()) return false;
    for (size_t i = 0; i < g.count(); i++) to[i] = PySequence_Fast_GET_ITEM(argument, g.positions[i]);
    return true;
  }
  if (PyDict_CheckExact(argument)) {
    if (!g.dict || size_t(PyDict_GET_SIZE(argument)) != g.count()) return false;
    for (size_t i = 0; i < g.count(); i++)
      if (!(to[i] = PyDict_GetItemWithError(argument, g.names[i].ptr()))) {
        PyErr_Clear();
        return false;
      }
    return true;
  }
  to[0] = argument;
  return g.leaf;
}

PyObject* build(const Bound& b, PyObject* const* found) {  // takes the references
  const size_t n = b.results.size();
  PyObject* result = nullptr;
  switch (b.form) {
    case Form::one: return found[0];
    case Form::list:
      result = PyList_New(Py_ssize_t(n));
      for (size_t i = 0; i < n; i++) PyList_SET_ITEM(result, Py_ssize_t(i), found[i]);
      break;
    case Form::tuple:
    case Form::numbers:
      result = PyTuple_New(Py_ssize_t(n));
      for (size_t i = 0; i < n; i++) PyTuple_SET_ITEM(result, Py_ssize_t(i), found[i]);
      break;
    case Form::dict:
      result = PyDict_New();
      for (size_t i = 0; i < n; i++) {
        PyDict_SetItem(result, b.names[i].ptr(), found[i]);
        Py_DECREF(found[i]);
      }
      break;
  }
  return result;
}

PyObject* not_implemented() {
  Py_INCREF(Py_NotImplemented);
  return Py_NotImplemented;
}

PyObject* call(PyObject* self, PyObject* const* arguments, size_t flags, PyObject* keywords) {
  Bound& b = *reinterpret_cast<CallerObject*>(self)->bound;
  if (size_t(PyVectorcall_NARGS(flags)) != b.groups.size() || (keywords && PyTuple_GET_SIZE(keywords))) return not_implemented();
  std::array<PyObject*, most_arrays> items;
  std::array<View, most_arrays> in, out;
  size_t n = 0;
  for (size_t k = 0; k < b.groups.size(); k++) {
    if (!spread(arguments[k], b.groups[k], items.data() + n)) return not_implemented();
    n += b.groups[k].count();
  }
  for (size_t i = 0; i < n; i++)
    if (!take(items[i], b.inputs[i], in[i])) return not_implemented();
  for (size_t i = 0; i < n; i++) Py_INCREF(items[i]);  // another thread may change the list meanwhile
  std::array<PyObject*, most_arrays> made{};
  std::array<float, most_arrays> numbers;
  PyObject* result = nullptr;
  try {
    std::shared_ptr<const Program> program = b.last;
    if (!program || !program->fits(in.data(), n)) {
      program = b.function->find(in.data(), n);
      if (!program) {
        WithoutGil released;
        program = b.function->program(in.data(), n);
      }
      b.last = program;
    }
    const std::vector<View>& types = program->outputs();
    if (types.size() > most_arrays) {
      result = not_implemented();
    } else {
      bool plain = true;
      for (size_t i = 0; i < types.size(); i++) {
        out[i] = types[i];
        if (b.form == Form::numbers) {
          plain = plain && types[i].rank == 0 && types[i].dtype == DType::float32;
          out[i].data = &numbers[i];
        } else {
          made[i] = new_array(types[i]).release().ptr();
          out[i].data = py::detail::array_proxy(made[i])->data;
        }
      }
      if (!plain) {
        result = not_implemented();
      } else {
        run_released([&](CancelPoll poll) { program->run(in.data(), out.data(), poll); });
        std::array<PyObject*, most_arrays> found;
        for (size_t i = 0; i < b.results.size(); i++) {
          size_t at = b.results[i];
          if (b.form == Form::numbers)
            found[i] = PyFloat_FromDouble(double(numbers[at]));
          else
            Py_INCREF(found[i] = made[at]);
        }
        result = build(b, found.data());
      }
    }
  } catch (...) {
    set_python_error();
  }
  for (PyObject* a : made) Py_XDECREF(a);
  for (size_t i = 0; i < n; i++) Py_DECREF(items[i]);
  return result;
}

void destroy(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  delete reinterpret_cast<CallerObject*>(self)->bound;
  type->tp_free(self);
  Py_DECREF(type);
}

PyMemberDef members[] = {{"__vectorcalloffset__", T_PYSSIZET, offsetof(CallerObject, call), READONLY, nullptr}, {}};
PyType_Slot type_slots[] = {{Py_tp_dealloc, reinterpret_cast<void*>(destroy)},
                            {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
                            {Py_tp_members, members},
                            {Py_tp_doc, const_cast<char*>("A function bound to one way of calling it.")},
                            {0, nullptr}};
PyType_Spec spec{"dagrt._core.Caller", sizeof(CallerObject), 0,
                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION, type_slots};

}  // namespace

void bind_caller(py::module_& m) {
  static PyObject* type = PyType_FromSpec(&spec);
  if (!type) throw py::error_already_set();
  m.add_object("Caller", type);
  // groups: for each argument (forms, positions, names); inputs: (dtype, shape with None); results: (form, outputs, names).
  m.def(
      "make_caller",
      [](std::shared_ptr<Callable> function, const py::list& groups, const py::list& inputs, const std::string& form,
         const std::vector<size_t>& results, const py::list& names) -> py::object {
        auto b = std::make_unique<Bound>();
        b->function = std::move(function);
        size_t count = 0;
        for (py::handle h : groups) {
          auto [forms, positions, keys] = h.cast<std::tuple<std::string, std::vector<Py_ssize_t>, py::list>>();
          Group g;
          g.leaf = forms.find("leaf") != std::string::npos;
          g.list = forms.find("list") != std::string::npos;
          g.tuple = forms.find("tuple") != std::string::npos;
          g.dict = forms.find("dict") != std::string::npos;
          g.positions = std::move(positions);
          for (py::handle k : keys) g.names.push_back(py::reinterpret_borrow<py::object>(k));
          count += g.count();
          b->groups.push_back(std::move(g));
        }
        for (py::handle h : inputs) {
          auto [dtype, shape] = h.cast<std::tuple<py::object, py::tuple>>();
          Input i{dtype_from(dtype), int(shape.size()), {}};
          if (i.rank > max_rank) return py::none();
          for (int k = 0; k < i.rank; k++) i.dims[k] = shape[size_t(k)].is_none() ? -1 : shape[size_t(k)].cast<int64_t>();
          b->inputs.push_back(i);
        }
        if (count != b->inputs.size() || count > most_arrays || results.size() > most_arrays) return py::none();
        b->form = form == "one"       ? Form::one
                  : form == "list"    ? Form::list
                  : form == "dict"    ? Form::dict
                  : form == "numbers" ? Form::numbers
                                      : Form::tuple;
        b->results = results;
        for (py::handle k : names) b->names.push_back(py::reinterpret_borrow<py::object>(k));
        auto* self = PyObject_New(CallerObject, reinterpret_cast<PyTypeObject*>(type));
        if (!self) throw py::error_already_set();
        self->call = call;
        self->bound = b.release();
        return py::reinterpret_steal<py::object>(reinterpret_cast<PyObject*>(self));
      },
      py::arg("function"), py::arg("groups"), py::arg("inputs"), py::arg("form"), py::arg("results"), py::arg("names"),
      "A Caller, or None where there are too many arrays for one.");
}

}  // namespace dagrt::bindings
