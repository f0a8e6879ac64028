#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "api/dagrt.h"
#include "ir/schema.h"
#include "ir/text.h"
#include "passes/pipeline.h"
#include "runtime/profile.h"
#include "runtime/program.h"

namespace dagrt {
namespace {

/// Memory of its own, 64-byte aligned, zeros at first where `from` is null.
std::shared_ptr<void> owned(size_t bytes, const void* from) {
  size_t rounded = (bytes + 63) / 64 * 64;
  void* p = std::aligned_alloc(64, rounded ? rounded : 64);
  if (!p) fail(ErrorKind::memory_limit, "a tensor needs ", bytes, " bytes, which were refused");
  if (from)
    std::memcpy(p, from, bytes);
  else
    std::memset(p, 0, bytes);
  return {p, std::free};
}

TensorType type_of(const View& v) {
  TensorType t;
  t.dtype = v.dtype;
  t.shape.assign(v.dims, v.dims + v.rank);
  return t;
}

}  // namespace

View make_view(DType dtype, const std::vector<int64_t>& shape, void* data) {
  if (shape.size() > size_t(max_rank))
    fail(ErrorKind::shape, "a tensor may have at most ", max_rank, " axes, got ", shape.size());
  View v;
  v.data = data;
  v.dtype = dtype;
  v.rank = int(shape.size());
  std::copy(shape.begin(), shape.end(), v.dims);
  v.ld = v.rank ? v.dims[v.rank - 1] : 1;
  return v;
}

Tensor Tensor::empty(DType dtype, std::vector<int64_t> shape) {
  Tensor t{dtype, std::move(shape), nullptr};
  t.data = owned(t.bytes(), nullptr);
  return t;
}

Tensor Tensor::copy(const View& v) {
  Tensor t{v.dtype, std::vector<int64_t>(v.dims, v.dims + v.rank), nullptr};
  t.data = owned(size_t(v.bytes()), v.data);
  return t;
}

View Tensor::view() const { return make_view(dtype, shape, data.get()); }

Callable::Callable(const std::string& module_json, std::vector<VariableRef> variables, const std::vector<View>& constants,
                   std::string entry, bool exact, Device& device)
    : module_(read_module(module_json)),
      variables_(std::move(variables)),
      entry_name_(std::move(entry)),
      exact_(exact),
      device_(device),
      json_(module_json) {
  if (constants.size() != module_.constants.size())
    fail(ErrorKind::graph, "the module has ", module_.constants.size(), " constants, got ", constants.size());
  for (size_t i = 0; i < constants.size(); i++) {
    Constant& c = module_.constants[i];
    TensorType given = type_of(constants[i]);
    if (given.dtype != c.type.dtype) fail(ErrorKind::dtype, "constant ", i, ": expected ", c.type.text(), ", got ", given.text());
    if (given.shape != c.type.shape) fail(ErrorKind::shape, "constant ", i, ": expected ", c.type.text(), ", got ", given.text());
    c.data = owned(size_t(constants[i].bytes()), constants[i].data);
  }
  entry_ = &module_.function(entry_name_);
  check_variables();
}

Callable::Callable(Module module, std::vector<VariableRef> variables, std::string entry, bool exact, Device& device)
    : module_(std::move(module)),
      variables_(std::move(variables)),
      entry_name_(std::move(entry)),
      exact_(exact),
      device_(device) {
  entry_ = &module_.function(entry_name_);
  check_variables();
}

Callable::~Callable() = default;

void Callable::check_variables() {
  if (variables_.size() != module_.variables.size())
    fail(ErrorKind::graph, "the module has ", module_.variables.size(), " variables, got ", variables_.size());
  for (size_t i = 0; i < variables_.size(); i++) {
    const VariableDecl& d = module_.variables[i];
    const Variable& v = *variables_[i];
    if (v.dtype() != d.type.dtype)
      fail(ErrorKind::dtype, "variable ", i, " ('", d.name, "'): expected ", d.type.text(), ", got ", name_of(v.dtype()));
    if (!v.has_type(d.type))
      fail(ErrorKind::shape, "variable ", i, " ('", d.name, "'): expected ", d.type.text(), ", got ",
           dagrt::text(Dims(v.shape().begin(), v.shape().end())));
  }
  join_groups(variables_);
}

std::shared_ptr<const Program> Callable::find(const View* inputs, size_t count) const {
  std::lock_guard<std::mutex> lock(cache_mutex_);
  for (size_t i = 0; i < cache_.size(); i++)
    if (cache_[i]->fits(inputs, count)) {
      if (i) std::rotate(cache_.begin(), cache_.begin() + long(i), cache_.begin() + long(i) + 1);
      return cache_.front();
    }
  return nullptr;
}

std::shared_ptr<const Program> Callable::program(const View* inputs, size_t count) const {
  auto found = find(inputs, count);
  return found ? found : compile(inputs, count);
}

std::shared_ptr<const Program> Callable::program(const std::vector<std::vector<int64_t>>& shapes) const {
  std::vector<View> views;
  for (size_t i = 0; i < shapes.size(); i++) {
    DType t = i < entry_->inputs.size() ? entry_->types[size_t(entry_->inputs[i].value)].dtype : DType::float32;
    views.push_back(make_view(t, shapes[i], nullptr));
  }
  return program(views.data(), views.size());
}

std::shared_ptr<const Program> Callable::compile(const View* inputs, size_t count) const {
  std::lock_guard<std::mutex> one(compile_mutex_);  // others who want the same program wait for it
  {
    std::lock_guard<std::mutex> lock(cache_mutex_);
    for (const auto& p : cache_)
      if (p->fits(inputs, count)) return p;
  }
  if (count != entry_->inputs.size())
    fail(ErrorKind::shape, "function '", entry_name_, "' has ", entry_->inputs.size(), " inputs, got ", count);
  Types types;
  for (size_t i = 0; i < count; i++) {
    const TensorType& declared = entry_->types[size_t(entry_->inputs[i].value)];
    types.push_back(type_of(inputs[i]));
    if (types.back().dtype != declared.dtype)
      fail(ErrorKind::dtype, "input '", entry_->inputs[i].name, "': expected ", name_of(declared.dtype), ", got ",
           name_of(types.back().dtype));
    if (types.back().rank() != declared.rank())
      fail(ErrorKind::shape, "input '", entry_->inputs[i].name, "': expected shape ", dagrt::text(declared.shape), ", got ",
           dagrt::text(types.back().shape));
  }
  CompileOptions options;
  options.exact = exact_;
  options.algorithms = device_.is_host();
  options.bf16 = !exact_ && device_.multiplies_bf16();
  auto made = std::make_shared<const Program>(dagrt::compile(module_, entry_name_, types, options), variables_, device_,
                                              Program::Part::whole, exact_);
  std::shared_ptr<const Program> dropped;  // destroyed after the lock is released
  std::lock_guard<std::mutex> lock(cache_mutex_);
  cache_.insert(cache_.begin(), made);
  if (cache_.size() > max_programs) {
    dropped = std::move(cache_.back());
    cache_.pop_back();
  }
  return made;
}

void Callable::run(const Program& program, const View* inputs, const View* outputs, CancelPoll poll) const {
  program.run(inputs, outputs, poll);
}

std::vector<Tensor> Callable::run(const std::vector<Tensor>& inputs, CancelPoll poll) const {
  std::vector<View> in, out;
  std::vector<Tensor> results;
  for (const Tensor& t : inputs) in.push_back(t.view());
  auto p = program(in.data(), in.size());
  for (const View& v : p->outputs()) {
    results.push_back(Tensor::empty(v.dtype, std::vector<int64_t>(v.dims, v.dims + v.rank)));
    out.push_back(results.back().view());
  }
  p->run(in.data(), out.data(), poll);
  return results;
}

MemoryReport Callable::memory(const Program& program) const {
  MemoryReport r;
  r.arena_bytes = program.arena_bytes();
  r.prepared_bytes = program.prepared_bytes();
  for (const VariableRef& v : variables_) r.variable_bytes += v->bytes();
  for (const Constant& c : program.module().constants) r.constant_bytes += size_t(c.type.bytes());
  return r;
}

bool exact_by_default() {
  const char* e = std::getenv("DAGRT_EXACT");
  return e && *e && std::strcmp(e, "0") != 0;
}

std::string Callable::text() const { return dagrt::text(module_); }

std::string Callable::text(const Program& program) const {
  return dagrt::text(program.module()) + program.prepared_text() + dagrt::text(program.plan());
}

const std::string& Callable::module_json() const {
  std::lock_guard<std::mutex> lock(json_mutex_);
  if (json_.empty()) json_ = write_module(module_);
  return json_;
}

size_t Callable::programs() const {
  std::lock_guard<std::mutex> lock(cache_mutex_);
  return cache_.size();
}

void start_profile() { Profiler::start(); }
std::vector<ProfiledStep> stop_profile() { return Profiler::stop(); }

const std::vector<View>& outputs_of(const Program& program) { return program.outputs(); }

MemoryInUse memory_in_use() {
  return {cpu_device().arenas.bytes(), variable_bytes_in_use(), prepared_bytes_in_use(), programs_in_use()};
}

}  // namespace dagrt
