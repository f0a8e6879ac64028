// dagrt._core.Dim: a size that is an expression over input sizes. What folds to a number is an int in Python.
#include <pybind11/functional.h>

#include "bindings/bindings.h"
#include "bindings/convert.h"

namespace dagrt::bindings {
namespace {

[[noreturn]] void not_a_number(const Dim& d, const char* what) {
  fail(ErrorKind::graph, "size ", d.text(), " is not known while tracing and cannot be ", what,
       "; compute with it (+ - * // % Dim.min Dim.max), or declare that axis as a number");
}

py::object json_of(const Dim& d) {
  if (d.known()) return py::int_(d.value());
  const Dim::Expr& e = *d.expr();
  if (e.kind == Dim::Kind::symbol) return py::str(e.name);
  py::list l;
  l.append(py::str(name_of(e.kind)));
  l.append(json_of(e.a));
  l.append(json_of(e.b));
  return l;
}

template <Dim::Kind kind> py::object left(const Dim& a, py::object b) {
  if (!PyLong_Check(b.ptr()) && !py::isinstance<Dim>(b) && !PyIndex_Check(b.ptr()))
    return py::reinterpret_borrow<py::object>(Py_NotImplemented);
  return dim_object(Dim::make(kind, a, dim_from(b)));
}
template <Dim::Kind kind> py::object right(const Dim& b, py::object a) {
  if (!PyLong_Check(a.ptr()) && !PyIndex_Check(a.ptr())) return py::reinterpret_borrow<py::object>(Py_NotImplemented);
  return dim_object(Dim::make(kind, dim_from(a), b));
}
template <Dim::Kind kind> py::object both(py::object a, py::object b) {
  return dim_object(Dim::make(kind, dim_from(a), dim_from(b)));
}

}  // namespace

void bind_dim(py::module_& m) {
  using K = Dim::Kind;
  py::class_<Dim> c(m, "Dim", "A size that depends on the input sizes of a call: an integer expression over them.");
  c.def_static("symbol", [](const std::string& name) { return Dim::symbol(name); }, py::arg("name"));
  c.def("__add__", &left<K::add>).def("__radd__", &right<K::add>);
  c.def("__sub__", &left<K::sub>).def("__rsub__", &right<K::sub>);
  c.def("__mul__", &left<K::mul>).def("__rmul__", &right<K::mul>);
  c.def("__floordiv__", &left<K::floor_div>).def("__rfloordiv__", &right<K::floor_div>);
  c.def("__mod__", &left<K::mod>).def("__rmod__", &right<K::mod>);
  c.def("__neg__", [](const Dim& d) { return dim_object(Dim(0) - d); });
  c.def_static("min", &both<K::min>);
  c.def_static("max", &both<K::max>);
  c.def_static("broadcast", &both<K::broadcast>);
  c.def("__eq__", [](const Dim& a, py::object b) { return py::isinstance<Dim>(b) && a == b.cast<const Dim&>(); });
  c.def("__ne__", [](const Dim& a, py::object b) { return !(py::isinstance<Dim>(b) && a == b.cast<const Dim&>()); });
  c.def("__hash__", [](const Dim& d) { return py::hash(py::str(d.text())); });
  c.def("__int__", [](const Dim& d) -> py::object { not_a_number(d, "an int"); });
  c.def("__index__", [](const Dim& d) -> py::object { not_a_number(d, "an int"); });
  c.def("__float__", [](const Dim& d) -> py::object { not_a_number(d, "a float"); });
  c.def("__bool__", [](const Dim& d) -> bool { not_a_number(d, "a condition"); });
  for (const char* name : {"__lt__", "__le__", "__gt__", "__ge__"})
    c.def(name, [](const Dim& d, py::object) -> bool { not_a_number(d, "compared"); });
  c.def(
      "substitute",
      [](const Dim& d, const py::dict& mapping) {
        return dim_object(d.substitute([&](const std::string& name) {
          py::str key(name);
          return mapping.contains(key) ? dim_from(mapping[key]) : Dim::symbol(name);
        }));
      },
      py::arg("mapping"));
  c.def("to_json", &json_of);
  c.def("__str__", &Dim::text);
  c.def("__repr__", [](const Dim& d) { return "Dim(" + d.text() + ")"; });
}

}  // namespace dagrt::bindings
