// Model files: read_model, write_model.
#include <pybind11/stl.h>

#include "api/dagrt.h"
#include "bindings/bindings.h"
#include "bindings/convert.h"
#include "io/model_file.h"

#include <cstring>
#include <memory>

namespace dagrt::bindings {
namespace {

py::tuple read_model(const std::string& path) {
  std::unique_ptr<ModelFile> file;
  {
    py::gil_scoped_release released;
    file = std::make_unique<ModelFile>(path);
  }
  py::dict tensors;
  for (const auto& [name, t] : file->tensors()) {
    py::object array = new_array(make_view(t.dtype, t.shape, nullptr));
    if (t.bytes) std::memcpy(py::detail::array_proxy(array.ptr())->data, t.data, t.bytes);
    tensors[py::str(name)] = array;
  }
  return py::make_tuple(file->module_json(), tensors, file->metadata());
}

void write_model(const std::string& path, const std::string& json, const py::dict& tensors,
                 const std::map<std::string, std::string>& metadata) {
  std::vector<py::object> held;
  std::vector<FileTensor> list;
  for (auto [name, value] : tensors) {
    held.push_back(py::reinterpret_borrow<py::object>(value));
    View v = view_of_array(held.back());
    list.push_back({name.cast<std::string>(), v.dtype, std::vector<int64_t>(v.dims, v.dims + v.rank), v.data, size_t(v.bytes())});
  }
  py::gil_scoped_release released;
  write_model_file(path, json, list, metadata);
}

}  // namespace

void bind_files(py::module_& m) {
  m.def(
      "read_model", [](py::object path) { return read_model(py::str(py::module_::import("os").attr("fspath")(path))); },
      py::arg("path"), "(module JSON, tensors by name, metadata) of a model file.");
  m.def(
      "write_model",
      [](py::object path, const std::string& json, const py::dict& tensors, const std::map<std::string, std::string>& metadata) {
        write_model(py::str(py::module_::import("os").attr("fspath")(path)), json, tensors, metadata);
      },
      py::arg("path"), py::arg("module_json"), py::arg("tensors"), py::arg("metadata"),
      "Writes a model file, whole or not at all.");
}

}  // namespace dagrt::bindings
