// dagrt-run: runs a model file on .npy arrays. No Python is linked.
#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "api/dagrt.h"
#include "base/parallel.h"
#include "io/npy.h"

namespace {

using namespace dagrt;

const char usage[] =
    "usage: dagrt-run MODEL.dagrt [X.npy | NAME=X.npy ...] [options]\n"
    "\n"
    "Runs the model on the arrays, given in the order of its inputs or by name, and prints its outputs.\n"
    "Without arrays it prints what the model expects.\n"
    "\n"
    "  -o, --out PATH   write the output as .npy; with several outputs PATH holds %d, which becomes 0, 1, ...\n"
    "  --selftest       run the self-test that the file holds\n"
    "  --repeat N       run N times; print the fastest and the median time\n"
    "  --threads N      use N threads\n"
    "  --memory         print the bytes that a run needs\n"
    "  --text           print the program for these arrays; without arrays the module\n"
    "  -h, --help       print this\n"
    "\n"
    "Exit status: 0 done, 1 an error while reading, running or testing, 2 a wrong command line.\n";

struct UsageError {
  std::string message;
};

struct Options {
  std::string model, out;
  std::vector<std::string> inputs;
  bool selftest = false, memory = false, text = false, help = false;
  long repeat = 0, threads = 0;
};

long number(const char* option, const char* text, long most) {
  char* end;
  long n = std::strtol(text, &end, 10);
  if (!*text || *end || n < 1 || n > most)
    throw UsageError{std::string(option) + ": expected a number from 1 to " + std::to_string(most) + ", got '" + text + "'"};
  return n;
}

Options parse(int argc, char** argv) {
  Options o;
  bool only_files = false;
  for (int i = 1; i < argc; i++) {
    std::string a = argv[i];
    auto value = [&]() -> const char* {
      if (i + 1 >= argc) throw UsageError{a + ": a value is missing"};
      return argv[++i];
    };
    if (only_files || a.empty() || a[0] != '-')
      (o.model.empty() ? o.model : o.inputs.emplace_back()) = a;
    else if (a == "--")
      only_files = true;
    else if (a == "-h" || a == "--help")
      o.help = true;
    else if (a == "-o" || a == "--out")
      o.out = value();
    else if (a == "--selftest")
      o.selftest = true;
    else if (a == "--memory")
      o.memory = true;
    else if (a == "--text")
      o.text = true;
    else if (a == "--repeat")
      o.repeat = number("--repeat", value(), 1000000000);
    else if (a == "--threads")
      o.threads = number("--threads", value(), 512);
    else
      throw UsageError{"unknown option '" + a + "'"};
  }
  if (!o.help && o.model.empty()) throw UsageError{"a model file is missing"};
  return o;
}

// ---- inputs -----------------------------------------------------------------------------------------------------

int64_t integer_at(const void* data, DType t, int64_t i) {
  switch (t) {
    case DType::int64: return static_cast<const int64_t*>(data)[i];
    case DType::int32: return static_cast<const int32_t*>(data)[i];
    default: return static_cast<const uint8_t*>(data)[i];
  }
}

/// The array in the model's dtype: integers into another integer type where every value fits, and into float32.
Tensor converted(NpyArray a, DType want, const std::string& input, const std::string& path) {
  Tensor given{a.dtype, std::move(a.shape), std::move(a.data)};
  if (given.dtype == want) return given;
  bool from_integer = is_integer(given.dtype) || given.dtype == DType::bool_;
  if (!from_integer || !(is_integer(want) || want == DType::float32))
    fail(ErrorKind::dtype, "input '", input, "': expected ", name_of(want), ", got ", name_of(given.dtype), " from ", path);
  Tensor t = Tensor::empty(want, given.shape);
  for (int64_t i = 0, n = t.view().elements(); i < n; i++) {
    int64_t v = integer_at(given.data.get(), given.dtype, i);
    bool fits = true;
    switch (want) {
      case DType::float32: t.as<float>()[i] = float(v); break;
      case DType::int64: t.as<int64_t>()[i] = v; break;
      case DType::int32: t.as<int32_t>()[i] = int32_t(v), fits = v == int32_t(v); break;
      default: t.as<uint8_t>()[i] = uint8_t(v), fits = v == uint8_t(v); break;
    }
    if (!fits)
      fail(ErrorKind::data, "input '", input, "': expected ", name_of(want), ", but element ", i, " of ", path, " is ", v);
  }
  std::fprintf(stderr, "note: %s: %s converted to %s\n", path.c_str(), name_of(given.dtype), name_of(want));
  return t;
}

std::string input_list(const Function& f) {
  std::string s;
  for (const Input& i : f.inputs) s += (s.empty() ? "'" : ", '") + i.name + "'";
  return s.empty() ? "none" : s;
}

/// Which file belongs to which input. "name=path" goes by name where the model has such an input.
std::vector<std::string> assign_files(const Function& f, const std::vector<std::string>& given) {
  std::vector<std::string> paths(f.inputs.size());
  std::vector<bool> taken(f.inputs.size());
  std::vector<std::string> by_position;
  for (const std::string& g : given) {
    size_t found = f.inputs.size(), equals = 0;
    for (size_t i = 0; i < f.inputs.size(); i++) {
      const std::string& name = f.inputs[i].name;
      if (name.size() > equals && g.size() > name.size() && g.compare(0, name.size(), name) == 0 && g[name.size()] == '=')
        found = i, equals = name.size();
    }
    if (found == f.inputs.size()) {
      if (size_t at = g.find('='); at != std::string::npos && g.find('/') > at)
        throw UsageError{"the model has no input '" + g.substr(0, at) + "'; its inputs are " + input_list(f)};
      by_position.push_back(g);
    } else if (taken[found]) {
      throw UsageError{"input '" + f.inputs[found].name + "' is given twice"};
    } else {
      taken[found] = true;
      paths[found] = g.substr(equals + 1);
    }
  }
  size_t next = 0;
  for (size_t i = 0; i < paths.size(); i++)
    if (!taken[i] && next < by_position.size()) paths[i] = by_position[next++], taken[i] = true;
  bool all = std::find(taken.begin(), taken.end(), false) == taken.end();
  if (!all || next < by_position.size())
    throw UsageError{"expected " + std::to_string(f.inputs.size()) + " arrays (" + input_list(f) + "), got " +
                     std::to_string(given.size())};
  return paths;
}

// ---- printing ---------------------------------------------------------------------------------------------------

float half_to_float(uint16_t h) {
  uint32_t sign = uint32_t(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 1023;
  if (exponent == 0) {
    float f = float(mantissa) * 0x1p-24f;
    return sign ? -f : f;
  }
  uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

std::string value_text(const Tensor& t, int64_t i) {
  char s[40];
  auto real = [&](float x) { std::snprintf(s, sizeof s, "%.6g", double(x)); };
  switch (t.dtype) {
    case DType::float32: real(t.as<float>()[i]); break;
    case DType::float16: real(half_to_float(t.as<uint16_t>()[i])); break;
    case DType::bfloat16: {
      uint32_t bits = uint32_t(t.as<uint16_t>()[i]) << 16;
      float f;
      std::memcpy(&f, &bits, 4);
      real(f);
      break;
    }
    case DType::bool_: return t.as<bool>()[i] ? "true" : "false";
    default: std::snprintf(s, sizeof s, "%" PRId64, integer_at(t.data.get(), t.dtype, i));
  }
  return s;
}

std::string shape_text(const std::vector<int64_t>& shape) { return text(Dims(shape.begin(), shape.end())); }

std::string declared_text(const TensorType& t) {
  std::string s = std::string(name_of(t.dtype)) + " (";
  for (size_t i = 0; i < t.shape.size(); i++) s += (i ? ", " : "") + (t.shape[i].known() ? t.shape[i].text() : "any");
  return s + (t.shape.size() == 1 ? ",)" : ")");
}

std::string output_name(const Function& f, size_t i) {
  return i < f.output_names.size() && !f.output_names[i].empty() ? f.output_names[i] : "output " + std::to_string(i);
}

void print_outputs(const Function& f, const std::vector<Tensor>& outputs) {
  std::vector<std::vector<std::string>> rows{{"output", "dtype", "shape", "first values"}};
  for (size_t i = 0; i < outputs.size(); i++) {
    const Tensor& t = outputs[i];
    int64_t n = t.view().elements();
    std::string values;
    for (int64_t k = 0; k < std::min<int64_t>(n, 6); k++) values += (k ? " " : "") + value_text(t, k);
    rows.push_back({output_name(f, i), name_of(t.dtype), shape_text(t.shape), values + (n > 6 ? " ..." : "")});
  }
  std::vector<size_t> widths(3);
  for (auto& row : rows)
    for (size_t c = 0; c < 3; c++) widths[c] = std::max(widths[c], row[c].size());
  for (auto& row : rows)
    std::printf("%-*s  %-*s  %-*s  %s\n", int(widths[0]), row[0].c_str(), int(widths[1]), row[1].c_str(), int(widths[2]),
                row[2].c_str(), row[3].c_str());
}

void print_signature(const Function& f, bool selftest) {
  for (const Input& i : f.inputs)
    std::printf("input   %s: %s\n", i.name.c_str(), declared_text(f.types[size_t(i.value)]).c_str());
  for (size_t i = 0; i < f.outputs.size(); i++)
    std::printf("output  %s: %s\n", output_name(f, i).c_str(), declared_text(f.types[size_t(f.outputs[i])]).c_str());
  std::printf("self-test: %s\n", selftest ? "yes" : "no");
}

void print_memory(const MemoryReport& m) {
  for (auto [name, bytes] : {std::pair("arena", m.arena_bytes),
                             {"variables", m.variable_bytes},
                             {"constants", m.constant_bytes},
                             {"prepared weights", m.prepared_bytes}})
    std::printf("%-16s %12zu bytes\n", name, bytes);
}

// ---- running ----------------------------------------------------------------------------------------------------

std::vector<Tensor> run(const Callable& function, const Program& program, const std::vector<View>& in, long repeat) {
  std::vector<Tensor> outputs;
  std::vector<View> out;
  for (const View& v : outputs_of(program)) {
    outputs.push_back(Tensor::empty(v.dtype, std::vector<int64_t>(v.dims, v.dims + v.rank)));
    out.push_back(outputs.back().view());
  }
  std::vector<double> ms;
  for (long i = 0; i < std::max(repeat, 1L); i++) {
    auto start = std::chrono::steady_clock::now();
    function.run(program, in.data(), out.data());
    ms.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  if (repeat) {
    std::sort(ms.begin(), ms.end());
    std::printf("%ld runs: fastest %.4f ms, median %.4f ms\n", repeat, ms.front(), ms[ms.size() / 2]);
  }
  return outputs;
}

void write_outputs(std::string pattern, const std::vector<Tensor>& outputs) {
  for (size_t i = 0; i < outputs.size(); i++) {
    std::string path = pattern;
    if (size_t at = path.find("%d"); at != std::string::npos) path.replace(at, 2, std::to_string(i));
    write_npy(path, outputs[i].dtype, outputs[i].shape, outputs[i].data.get());
  }
}

int work(const Options& o) {
  if (o.threads) set_default_threads(int(o.threads));
  Model model = Model::load(o.model);
  const Callable& function = model.function();
  const Function& f = function.entry();
  if (!o.out.empty() && f.outputs.size() > 1 && o.out.find("%d") == std::string::npos)
    throw UsageError{"the model has " + std::to_string(f.outputs.size()) + " outputs; give -o a name with %d, as in out_%d.npy"};
  if (o.selftest) {
    if (model.selftest_outputs().empty()) fail(ErrorKind::value, o.model, ": holds no self-test");
    model.selftest();
    std::printf("self-test passed\n");
  }
  if (o.inputs.empty() && !f.inputs.empty()) {
    if (!o.out.empty() || o.repeat || o.memory) throw UsageError{"arrays are missing: the model's inputs are " + input_list(f)};
    if (o.text)
      std::printf("%s", function.text().c_str());
    else if (!o.selftest)
      print_signature(f, !model.selftest_outputs().empty());
    return 0;
  }
  std::vector<std::string> paths = assign_files(f, o.inputs);
  std::vector<Tensor> inputs;
  std::vector<View> in;
  for (size_t i = 0; i < paths.size(); i++) {
    NpyArray a = read_npy(paths[i]);
    if (!a.note.empty()) std::fprintf(stderr, "note: %s\n", a.note.c_str());
    inputs.push_back(converted(std::move(a), f.types[size_t(f.inputs[i].value)].dtype, f.inputs[i].name, paths[i]));
    in.push_back(inputs.back().view());
  }
  auto program = function.program(in.data(), in.size());
  if (o.text) std::printf("%s", function.text(*program).c_str());
  if (o.memory) print_memory(function.memory(*program));
  std::vector<Tensor> outputs = run(function, *program, in, o.repeat);
  print_outputs(f, outputs);
  if (!o.out.empty()) write_outputs(o.out, outputs);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    Options o = parse(argc, argv);
    if (o.help) {
      std::fputs(usage, stdout);
      return 0;
    }
    int status = work(o);
    if (std::fflush(stdout) != 0) fail(ErrorKind::value, "the output could not be written");
    return status;
  } catch (const UsageError& e) {
    std::fprintf(stderr, "dagrt-run: %s\n\n%s", e.message.c_str(), usage);
    return 2;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "dagrt-run: not enough memory\n");
  } catch (const std::exception& e) {
    std::fprintf(stderr, "dagrt-run: %s\n", e.what());
  }
  return 1;
}
