#include "runtime/program.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <unordered_set>

#include "base/cuda_stream.h"
#include "ops/isa.h"
#include "runtime/offsets.h"

namespace dagrt {
namespace {

static_assert(offsetof(DeviceStatus, first) == sizeof(Status), "a device's status begins like the host's");

std::atomic<size_t> alive{0};

// What an arena of no bytes is: steps may compare addresses with null.
alignas(arena_alignment) char nothing[arena_alignment];

// Of work on a slow machine, about 0.2 ms on one as they are: from here on threads that sleep are woken at the start.
constexpr double rouse_ns = 1e7;

/// Waits for a device's run and polls meanwhile. A cancellation is written to the run's status word, where it counts unless
/// the commit has begun: what it saw then is the run's answer.
bool wait_or_cancel(Queue& queue, bool (*poll)(), void* status) {
  using namespace std::chrono;
  const auto start = steady_clock::now();
  for (auto next = start + milliseconds(50); !queue.done();) {
    const auto now = steady_clock::now();
    if (now >= next) {
      next = now + milliseconds(50);
      if (poll()) {
        queue.write_beside(status, Status::cancelled);
        return true;
      }
    }
    if (now - start > milliseconds(2)) std::this_thread::sleep_for(microseconds(50));
  }
  return false;
}

void* address(const View& v) { return v.data ? v.data : nothing; }  // an array of no elements may have no memory

}  // namespace

/// A state taken from the program's stock, or a new one; given back at the end.
class Program::Loan {
 public:
  explicit Loan(const Program& p) : program_(p) {
    {
      std::lock_guard<std::mutex> lock(p.states_mutex_);
      if (!p.states_.empty()) {
        state_ = std::move(p.states_.back());
        p.states_.pop_back();
      }
    }
    if (!state_) state_ = std::make_unique<RunState>(p.plan_);
  }
  ~Loan() {
    std::lock_guard<std::mutex> lock(program_.states_mutex_);
    program_.states_.push_back(std::move(state_));
  }
  RunState& operator*() { return *state_; }

 private:
  const Program& program_;
  std::unique_ptr<RunState> state_;
};

Program::Program(Module compiled, std::vector<VariableRef> variables, Device& device, Part part, bool exact)
    : module_(std::move(compiled)),
      variables_(std::move(variables)),
      device_(device),
      exact_(exact),
      isa_(isa_in_use()),
      part_(part),
      plan_(make_plan()) {
  const Function& f = function();
  for (const Input& i : f.inputs) inputs_.push_back(view_of(f.types[size_t(i.value)]));
  for (ValueId v : f.outputs) outputs_.push_back(view_of(f.types[size_t(v)]));
  for (size_t i = 0; i < variables_.size() && !any_; i++)
    if (plan_.uses_variable[i]) any_ = variables_[i].get();
  place_constants();
  if (part_ == Part::whole) alive++;
}

Program::~Program() {
  if (part_ == Part::whole) alive--;
}

Plan Program::make_plan() {
  const bool on_cuda = device_.records();
  if (part_ == Part::maker) return build_plan(module_, {}, on_cuda);
  std::unique_ptr<RecipeBook> book;
  Hoist hoist = find_hoisted(module_, [&](const std::vector<ValueId>& values) {
    if (!book) book = std::make_unique<RecipeBook>(module_);
    size_t before = prepared_.size();
    for (ValueId v : values) {
      PreparedRef p = prepared_value(*book, book->recipe(v), function().types[size_t(v)], variables_, device_);
      if (!p) {
        prepared_.resize(before);
        return false;
      }
      prepared_.push_back(std::move(p));
    }
    return true;
  });
  Plan plan = build_plan(module_, hoist, on_cuda);
  std::unordered_set<const Variable*> seen;
  for (const PreparedRef& p : prepared_) {
    plan.prepared.push_back(p->data());
    for (const VariableRef& v : p->sources())
      if (seen.insert(v.get()).second) sources_.push_back(v);
  }
  return plan;
}

bool Program::fits(const View* in, size_t count) const {
  if (count != inputs_.size() || isa_ != isa_in_use()) return false;
  for (size_t i = 0; i < count; i++) {
    const View &a = in[i], &b = inputs_[i];
    if (a.rank != b.rank || a.dtype != b.dtype) return false;
    for (int k = 0; k < a.rank; k++)
      if (a.dims[k] != b.dims[k]) return false;
  }
  return true;
}

size_t Program::prepared_bytes() const {
  size_t n = 0;
  for (const PreparedRef& p : prepared_) n += p->bytes();
  return n;
}

std::string Program::prepared_text() const {
  std::string out;
  for (size_t i = 0; i < prepared_.size(); i++) {
    out += "prepared" + std::to_string(i) + ": " + std::to_string(prepared_[i]->bytes()) + " bytes";
    for (size_t k = 0; k < prepared_[i]->sources().size(); k++) out += (k ? ", " : " from ") + prepared_[i]->sources()[k]->name();
    out += "\n";
  }
  return out;
}

size_t Program::arena_bytes() const { return aligned(plan_.arena_bytes) + size_t(default_threads()) * plan_.scratch_bytes; }

void Program::run(const View* inputs, const View* outputs, bool (*poll)()) const {
  GroupLock lock(any_, !plan_.commits.empty());
  if (!settled()) settle(lock);
  device_.is_host() ? run_on_host(inputs, outputs, poll) : run_on_device(inputs, outputs, poll);
}

/// Whether the variables are on this program's device, and what is prepared of them is theirs of now.
bool Program::settled() const {
  return (!any_ || placed_at_.load(std::memory_order_relaxed) == variable_moves()) &&
         (sources_.empty() || fresh_at_.load(std::memory_order_relaxed) == state_of(sources_));
}

void Program::settle(GroupLock& lock) const {
  auto used = [&](const auto& f) {
    for (size_t i = 0; i < variables_.size(); i++)
      if (plan_.uses_variable[i]) f(*variables_[i]);
  };
  bool ready = std::all_of(prepared_.begin(), prepared_.end(), [](const PreparedRef& p) { return p->fresh(); });
  used([&](const Variable& v) { ready = ready && &v.device() == &device_; });
  if (!ready) {
    lock.make_exclusive();
    used([&](Variable& v) { v.move_to(device_); });
    for (const PreparedRef& p : prepared_)
      if (!p->fresh()) p->make();
    if (plan_.commits.empty()) lock.make_shared();
  }
  uint64_t moves = 0;
  used([&](const Variable& v) { moves += v.moves(); });
  moves_.store(moves, std::memory_order_relaxed);
  placed_at_.store(variable_moves(), std::memory_order_relaxed);
  fresh_at_.store(state_of(sources_), std::memory_order_relaxed);
}

void Program::fill(void* to) const {
  View out = outputs_[0];
  out.data = to;
  device_.is_host() ? run_on_host(nullptr, &out, nullptr) : run_on_device(nullptr, &out, nullptr);
}

void Program::run_on_host(const View* inputs, const View* outputs, bool (*poll)()) const {
  RunShared shared;
  shared.threads = default_threads();
  size_t arena_part = aligned(plan_.arena_bytes), bytes = arena_part + size_t(shared.threads) * plan_.scratch_bytes;
  Arena arena;
  if (bytes) arena = device_.arenas.take(device_, bytes);
  char* memory = bytes ? arena.data() : nothing;
  shared.scratch = memory + arena_part;
  shared.scratch_bytes = plan_.scratch_bytes;
  shared.poll = poll;
  if (poll) shared.next_poll = std::chrono::steady_clock::now() + std::chrono::milliseconds(50);
  Loan loan(*this);
  RunState& state = *loan;
  char** bases = state.bases.data();
  bases[arena_base] = memory;
  for (size_t i = 0; i < inputs_.size(); i++) bases[size_t(plan_.bases.inputs) + i] = static_cast<char*>(address(inputs[i]));
  for (size_t i = 0; i < outputs_.size(); i++) bases[size_t(plan_.bases.outputs) + i] = static_cast<char*>(address(outputs[i]));
  for (size_t i = 0; i < variables_.size(); i++)
    bases[size_t(plan_.bases.variables) + i] = static_cast<char*>(variables_[i]->data());
  RunProfile profile;
  if (Profiler::on()) shared.profile = &profile;
  if (plan_.work_ns > rouse_ns) rouse(shared.threads);
  {
    FlushDenormals flush;
    run_steps(plan_, state, shared);
    run_commit(
        plan_, state, shared, [](void* p, int32_t v) { static_cast<const Program*>(p)->written(v); }, const_cast<Program*>(this));
  }
  if (shared.profile) Profiler::take(profile);
  if (shared.status.code != Status::ok) raise_status(plan_, shared.status);
}

/// Inputs and outputs pass through slots of the arena, but for a maker's, whose output is on the device; status word and guard
/// are tested on the device, so that the host waits once, at the end.
void Program::run_on_device(const View* inputs, const View* outputs, bool (*poll)()) const {
  RunShared shared;
  shared.threads = default_threads();
  shared.poll = poll;
  size_t bytes = aligned(plan_.arena_bytes);
  auto slot = [&](size_t n) {
    size_t at = bytes;
    bytes += aligned(n ? n : 1);
    return at;
  };
  std::vector<size_t> in, out;
  for (const View& v : inputs_) in.push_back(slot(size_t(v.bytes())));
  if (part_ == Part::whole)
    for (const View& v : outputs_) out.push_back(slot(size_t(v.bytes())));
  size_t pieces = device_.records() ? size_t(scratch_parts) : size_t(shared.threads);
  size_t word = slot(sizeof(DeviceStatus)), decision = slot(sizeof(DeviceStatus)),
         scratch = slot(size_t(plan_.lanes) * pieces * plan_.scratch_bytes);
  Arena arena = device_.arenas.take(device_, bytes);
  char* memory = arena.data();
  shared.scratch = memory + scratch;
  shared.scratch_bytes = plan_.scratch_bytes;
  Loan loan(*this);
  RunState& state = *loan;
  char** bases = state.bases.data();
  bases[arena_base] = memory;
  for (size_t i = 0; i < in.size(); i++) bases[size_t(plan_.bases.inputs) + i] = memory + in[i];
  for (size_t i = 0; i < outputs_.size(); i++)
    bases[size_t(plan_.bases.outputs) + i] = out.empty() ? outputs[i].as<char>() : memory + out[i];
  for (size_t i = 0; i < variables_.size(); i++)
    bases[size_t(plan_.bases.variables) + i] = static_cast<char*>(variables_[i]->data());

  std::unique_ptr<Queue> once;  // a queue that records is kept with what it recorded, but a maker seldom runs
  std::unique_ptr<Queue>& queue = device_.records() && part_ == Part::whole ? state.queue : once;
  if (const uint64_t moves = moves_.load(std::memory_order_relaxed); state.moves != moves) {  // it names their memory of before
    queue.reset();
    state.moves = moves;
  }
  if (!queue) queue = device_.queue();
  if (poll && poll()) raise_status(plan_, {Status::cancelled});
  for (size_t i = 0; i < in.size(); i++) queue->copy_in(memory + in[i], inputs[i].data, size_t(inputs_[i].bytes()));
  std::vector<int32_t> written;
  auto note = [](void* list, int32_t v) { static_cast<std::vector<int32_t>*>(list)->push_back(v); };
  if (device_.records()) {
    auto* on_device = reinterpret_cast<DeviceStatus*>(memory + word);
    DeviceStatus ok;
    queue->copy_in(on_device, &ok, sizeof ok);
    queue->replay(memory, [&](Recording& recording) {
      for (int32_t i = 0; i < plan_.lanes; i++) {
        CudaStream& lane = recording.lane(i);
        lane.status = on_device;
        lane.scratch = memory + scratch + size_t(i) * pieces * plan_.scratch_bytes;
        lane.scratch_bytes = plan_.scratch_bytes;
        lane.exact = exact_;
      }
      shared.recording = &recording;
      shared.cuda = &recording.lane(0);
      shared.decision = reinterpret_cast<DeviceStatus*>(memory + decision);
      run_steps(plan_, state, shared);
      run_commit(plan_, state, shared, note, &written);
    });
    written.clear();
    for (const Commit& c : plan_.commits) written.insert(written.end(), c.variables.begin(), c.variables.end());
  } else {
    queue->run([&] {
      run_steps(plan_, state, shared);
      std::memcpy(memory + word, &shared.status, sizeof(Status));
    });
    queue->run([&] {
      std::memcpy(&shared.status, memory + word, sizeof(Status));
      run_commit(plan_, state, shared, note, &written);
    });
  }
  Status status;
  bool cancelled = false;
  queue->copy_out(&status, memory + (device_.records() ? decision : word), sizeof(Status));
  for (size_t i = 0; i < out.size(); i++) queue->copy_out(outputs[i].data, memory + out[i], size_t(outputs_[i].bytes()));
  {
    FlushDenormals flush;
    if (poll && device_.records()) cancelled = wait_or_cancel(*queue, poll, memory + word);
    queue->wait();
  }
  if (status.code == Status::ok || !device_.records())
    for (int32_t v : written) this->written(v);
  if (status.code != Status::ok) raise_status(plan_, status);
  if (cancelled) fail(ErrorKind::cancelled, "interrupted when the device had finished the run; the variables are as after it");
}

/// On a device other than the host, constants have copies there, which the plan and the bodies of its scans refer to.
void Program::place_constants() {
  if (device_.is_host()) return;
  std::vector<const void*> copies;
  for (const Constant& c : module_.constants) {
    constants_.push_back(
        std::make_shared<Variable>("constant", c.type.dtype, std::vector<int64_t>{c.type.elements()}, c.data.get(), device_));
    copies.push_back(constants_.back()->data());
  }
  std::vector<Plan*> plans{&plan_};
  while (!plans.empty()) {
    Plan* p = plans.back();
    plans.pop_back();
    p->constants = copies;
    for (ScanPlan& s : p->scans) plans.push_back(s.body.get());
  }
}

size_t programs_in_use() { return alive.load(std::memory_order_relaxed); }

}  // namespace dagrt
