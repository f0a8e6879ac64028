#include "bindings/convert.h"

#include <array>

namespace dagrt::bindings {
namespace {

constexpr int npy_bool = 0, npy_uint8 = 2, npy_uint16 = 4, npy_int32 = 5, npy_long = 7, npy_longlong = 9, npy_float32 = 11,
              npy_float16 = 23;
constexpr int npy_c_contiguous = 0x1, npy_aligned = 0x100;

constexpr int dtypes = 7;
int bfloat16_num = -1;
std::array<PyObject*, dtypes> descriptors{}, names{};  // immortal

DType dtype_of(const py::dtype& d) {
  int num = d.num();
  switch (num) {
    case npy_float32: return DType::float32;
    case npy_int32: return DType::int32;
    case npy_long:
    case npy_longlong:
      if (d.itemsize() == 8) return DType::int64;
      return DType::int32;
    case npy_bool: return DType::bool_;
    case npy_uint8: return DType::uint8;
    case npy_float16: return DType::float16;
    case npy_uint16: return DType::bfloat16;
  }
  if (num == bfloat16_num) return DType::bfloat16;
  fail(ErrorKind::dtype, "array: expected float32, bfloat16, float16, int32, int64, uint8 or bool, got ",
       py::str(d).cast<std::string>(), "; convert it first (x.astype('float32'))");
}

AttrValue attr_from(PyObject* x) {
  if (PyBool_Check(x)) return {x == Py_True};
  if (PyLong_Check(x)) {
    long long v = PyLong_AsLongLong(x);
    if (v == -1 && PyErr_Occurred()) throw py::error_already_set();
    return {int64_t(v)};
  }
  if (PyFloat_Check(x)) return {PyFloat_AS_DOUBLE(x)};
  if (PyUnicode_Check(x)) return {py::handle(x).cast<std::string>()};
  if (PyTuple_Check(x) || PyList_Check(x)) {
    AttrList list;
    Py_ssize_t n = PySequence_Fast_GET_SIZE(x);
    list.reserve(size_t(n));
    for (Py_ssize_t i = 0; i < n; i++) list.push_back(attr_from(PySequence_Fast_GET_ITEM(x, i)));
    return {std::move(list)};
  }
  if (py::isinstance<Dim>(x)) return {py::handle(x).cast<const Dim&>()};
  if (PyIndex_Check(x)) return {py::handle(x).cast<int64_t>()};
  PyObject* number = PyNumber_Float(x);
  if (!number) {
    PyErr_Clear();
    fail(ErrorKind::graph, "an attribute must be a bool, int, float, str, Dim or a list of them, got ", Py_TYPE(x)->tp_name);
  }
  AttrValue v{PyFloat_AS_DOUBLE(number)};
  Py_DECREF(number);
  return v;
}

}  // namespace

void init_convert() {
  try {
    py::object t = py::module_::import("ml_dtypes").attr("bfloat16");
    bfloat16_num = py::dtype::from_args(t).num();
    descriptors[size_t(DType::bfloat16)] = py::dtype::from_args(t).release().ptr();
  } catch (py::error_already_set& e) {
    if (!e.matches(PyExc_ImportError)) throw;
  }
  for (int i = 0; i < dtypes; i++) {
    const char* name = name_of(DType(i));
    names[size_t(i)] = PyUnicode_InternFromString(name);
    if (!descriptors[size_t(i)])
      descriptors[size_t(i)] = py::dtype::from_args(py::str(DType(i) == DType::bfloat16 ? "uint16" : name)).release().ptr();
  }
}

View view_of_array(py::object& array) {
  const auto& api = py::detail::npy_api::get();
  if (!api.PyArray_Check_(array.ptr())) array = py::module_::import("numpy").attr("asarray")(array);
  auto* a = py::detail::array_proxy(array.ptr());
  py::dtype descriptor = py::reinterpret_borrow<py::dtype>(a->descr);
  DType dtype = dtype_of(descriptor);
  char order = descriptor.byteorder();
  if ((a->flags & (npy_c_contiguous | npy_aligned)) != (npy_c_contiguous | npy_aligned) || order == '>') {
    int rank = a->nd;
    if (order == '>') array = array.attr("astype")(descriptor.attr("newbyteorder")("="));
    array = array.attr("copy")("C");  // ascontiguousarray would keep an unaligned array, and lift scalars
    a = py::detail::array_proxy(array.ptr());
    if (a->nd != rank) fail(ErrorKind::internal, "array: its rank changed in conversion");
  }
  if (a->nd > max_rank) fail(ErrorKind::shape, "array: expected at most ", max_rank, " axes, got ", a->nd);
  View v;
  v.data = a->data;
  v.dtype = dtype;
  v.rank = a->nd;
  for (int i = 0; i < v.rank; i++) v.dims[i] = a->dimensions[i];
  v.ld = v.rank ? v.dims[v.rank - 1] : 1;
  return v;
}

py::object new_array(const View& type) {
  const auto& api = py::detail::npy_api::get();
  PyObject* descriptor = descriptors[size_t(type.dtype)];
  Py_INCREF(descriptor);  // the call takes it
  static_assert(sizeof(Py_intptr_t) == sizeof(int64_t), "sizes are 64 bits");
  PyObject* a = api.PyArray_NewFromDescr_(api.PyArray_Type_, descriptor, type.rank,
                                          reinterpret_cast<const Py_intptr_t*>(type.dims), nullptr, nullptr, 0, nullptr);
  if (!a) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(a);
}

PyObject* descriptor_of(DType t) { return descriptors[size_t(t)]; }

py::handle dtype_name(DType t) { return names[size_t(t)]; }

py::tuple shape_tuple(const View& v) {
  py::tuple t(size_t(v.rank));
  for (int i = 0; i < v.rank; i++) t[size_t(i)] = v.dims[i];
  return t;
}

DType dtype_from(py::handle name) {
  for (int i = 0; i < dtypes; i++)
    if (name.ptr() == names[size_t(i)]) return DType(i);
  if (!PyUnicode_Check(name.ptr()))
    fail(ErrorKind::dtype, "a dtype must be given by its name, got ", Py_TYPE(name.ptr())->tp_name);
  const char* s = PyUnicode_AsUTF8(name.ptr());
  if (!s) throw py::error_already_set();
  return parse_dtype(s);
}

Dim dim_from(py::handle size) {
  PyObject* p = size.ptr();
  if (PyLong_Check(p)) {
    long long v = PyLong_AsLongLong(p);
    if (v == -1 && PyErr_Occurred()) throw py::error_already_set();
    return Dim(int64_t(v));
  }
  if (py::isinstance<Dim>(size)) return size.cast<const Dim&>();
  if (PyIndex_Check(p)) return Dim(size.cast<int64_t>());
  fail(ErrorKind::shape, "a size must be an int or a Dim, got ", Py_TYPE(p)->tp_name);
}

py::object dim_object(const Dim& d) {
  if (d.known()) return py::int_(d.value());
  return py::cast(d);
}

Dims dims_from(py::handle sequence) {
  PyObject* fast = PySequence_Fast(sequence.ptr(), "a shape must be a sequence of int or Dim");
  if (!fast) throw py::error_already_set();
  py::object keep = py::reinterpret_steal<py::object>(fast);
  Py_ssize_t n = PySequence_Fast_GET_SIZE(fast);
  Dims dims;
  dims.reserve(size_t(n));
  for (Py_ssize_t i = 0; i < n; i++) dims.push_back(dim_from(PySequence_Fast_GET_ITEM(fast, i)));
  return dims;
}

std::vector<int64_t> shape_from(py::handle sequence) {
  std::vector<int64_t> shape;
  for (const Dim& d : dims_from(sequence)) shape.push_back(d.value());
  return shape;
}

AttrMap attrs_from(py::handle dict) {
  if (!PyDict_Check(dict.ptr())) fail(ErrorKind::graph, "attributes must be a dict");
  AttrMap map;
  PyObject *key, *value;
  Py_ssize_t at = 0;
  while (PyDict_Next(dict.ptr(), &at, &key, &value)) {
    const char* name = PyUnicode_Check(key) ? PyUnicode_AsUTF8(key) : nullptr;
    if (!name) fail(ErrorKind::graph, "attribute names must be str");
    map.emplace(name, attr_from(value));
  }
  return map;
}

}  // namespace dagrt::bindings
