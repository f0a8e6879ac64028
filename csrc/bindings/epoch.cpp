// Epoch: what fit, evaluate and predict run instead of a Python loop over batches.
#include "api/epoch.h"

#include <pybind11/stl.h>

#include <cstring>

#include "bindings/bindings.h"
#include "bindings/convert.h"
#include "bindings/run.h"

namespace dagrt::bindings {
namespace {

struct HeldEpoch {  // with the arrays whose memory it uses
  std::vector<py::object> arrays;
  std::unique_ptr<Epoch> epoch;
};

std::vector<View> views_of(const py::list& list, std::vector<py::object>& held) {
  std::vector<View> views;
  for (py::handle h : list) {
    held.push_back(py::reinterpret_borrow<py::object>(h));
    views.push_back(view_of_array(held.back()));
  }
  return views;
}

std::vector<int64_t> numbers_of(py::object array, const char* what) {
  View v = view_of_array(array);
  if (v.dtype != DType::int64 || v.rank != 1) fail(ErrorKind::dtype, "epoch: ", what, " must be int64 with one axis");
  return std::vector<int64_t>(v.as<int64_t>(), v.as<int64_t>() + v.dims[0]);
}

}  // namespace

void bind_epoch(py::module_& m) {
  py::class_<HeldEpoch> c(m, "Epoch", "Steps of a function over rows of arrays.");
  c.def(py::init([](std::shared_ptr<Callable> function, const py::list& arrays, py::object starts, int64_t batch,
                    py::object order, const py::list& into) {
          auto e = std::make_unique<HeldEpoch>();
          std::vector<View> in = views_of(arrays, e->arrays), out = views_of(into, e->arrays);
          e->epoch =
              std::make_unique<Epoch>(std::move(function), std::move(in), numbers_of(starts, "starts"), batch,
                                      order.is_none() ? std::vector<int64_t>{} : numbers_of(order, "order"), std::move(out));
          return e;
        }),
        py::arg("function"), py::arg("arrays"), py::arg("starts"), py::arg("batch"), py::arg("order") = py::none(),
        py::arg("into") = py::list());
  c.def(
      "run",
      [](HeldEpoch& e, int64_t most, double seconds, int64_t watched) {
        Epoch::Progress p;
        run_released([&](CancelPoll poll) { p = e.epoch->run(most, seconds, watched, poll); });
        py::list outputs;
        for (const Tensor& t : e.epoch->outputs()) {
          py::object array = new_array(t.view());
          if (t.bytes()) std::memcpy(py::detail::array_proxy(array.ptr())->data, t.data.get(), t.bytes());
          outputs.append(array);
        }
        return py::make_tuple(p.done, p.nan_at, outputs);
      },
      py::arg("most"), py::arg("seconds"), py::arg("watched") = -1,
      "Runs steps; answers how many, the first with a NaN in the watched output or -1, and the last one's outputs.");
  c.def_property_readonly("steps", [](const HeldEpoch& e) { return e.epoch->steps(); });
}

}  // namespace dagrt::bindings
