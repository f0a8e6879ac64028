// dagrt._core: see docs/boundary.md.
#include <cstdlib>
#include <string>
#include <vector>

#include "api/dagrt.h"
#include "bindings/bindings.h"
#include "bindings/convert.h"
#include "kernels/kernel.h"
#include "kernels/random.h"
#include "ops/isa.h"
#include "ops/machine.h"
#include "runtime/profile.h"

namespace py = pybind11;

namespace dagrt::bindings {
namespace {

void bind_machine(py::module_& m) {
  const std::string best = isa_name();  // what the machine's own choice was, before the environment's
  std::vector<std::string> present;
  for (const char* isa : {"scalar", "avx2", "avx512", "avx512_bf16"}) {
    try {
      choose_isa(isa);
      present.push_back(isa);
    } catch (const Error&) {  // not in this build, or not on this machine
    }
  }
  choose_isa(best.c_str());
  if (const char* wanted = std::getenv("DAGRT_CPU_ISA"); wanted && *wanted) choose_isa(wanted);
  if (const char* wanted = std::getenv("DAGRT_THREADS"); wanted && *wanted) choose_thread_backend(wanted);

  m.def("cpu_info", [present, best] {
    py::dict d;
    d["isa"] = isa_name();
    py::list isas;
    for (const std::string& name : present) isas.append(name);
    d["isas"] = isas;
    d["best"] = best;
    d["threads"] = default_threads();
    d["thread_backend"] = thread_backend();
    return d;
  });
  m.def("set_num_threads", [](int n) { set_default_threads(n); }, py::arg("n"));
  m.def("num_threads", &default_threads);
  m.def("set_thread_backend", [](const std::string& name) { choose_thread_backend(name.c_str()); }, py::arg("name"));
  m.def("set_isa", [](const std::string& name) { choose_isa(name.c_str()); }, py::arg("name"));
  m.def(
      "philox",
      [](uint64_t seed, uint64_t counter, uint32_t stream, int64_t n) {
        py::array_t<uint32_t> words(n);
        philox_blocks(seed, counter, stream, n, words.mutable_data());
        return words;
      },
      py::arg("seed"), py::arg("counter"), py::arg("stream"), py::arg("n"), "The first n random words, for tests.");
  m.def("profile_start", &start_profile, "Records every step of every run from now on.");
  m.def(
      "profile_stop",
      [] {
        py::list steps;
        for (const ProfiledStep& s : stop_profile()) {
          py::dict d;
          d["path"] = s.path;
          d["op"] = s.op;
          d["device"] = s.device;
          d["shapes"] = s.shapes;
          d["flops"] = s.flops;
          d["bytes"] = s.bytes;
          d["begin_ns"] = s.begin_ns;
          d["end_ns"] = s.end_ns;
          d["run"] = s.run;
          d["thread"] = s.thread;
          steps.append(d);
        }
        return steps;
      },
      "Ends the profile; its steps in order of their end.");
  m.def(
      "measure_roofline",
      [](int threads) {
        Roofline r;
        {
          py::gil_scoped_release released;
          r = measure_roofline(threads);
        }
        py::dict d;
        d["flops_per_s"] = r.flops_per_s;
        d["bytes_per_s"] = r.bytes_per_s;
        return d;
      },
      py::arg("threads"), "What this machine reaches at most on so many threads.");
  m.def("memory_in_use", [] {
    MemoryInUse u = memory_in_use();
    py::dict d;
    d["arena_bytes"] = u.arena_bytes;
    d["variable_bytes"] = u.variable_bytes;
    d["prepared_bytes"] = u.prepared_bytes;
    d["programs"] = u.programs;
    return d;
  });
}

}  // namespace
}  // namespace dagrt::bindings

PYBIND11_MODULE(_core, m) {
  using namespace dagrt::bindings;
  m.doc() = "The C++ half of dagrt.";
  bind_errors(m);
  init_convert();
  bind_dim(m);
  bind_ops(m);
  bind_function(m);
  bind_caller(m);
  bind_epoch(m);
  bind_files(m);
  bind_machine(m);
}
