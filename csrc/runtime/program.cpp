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
template <class Done> bool wait_or_cancel(const Done& done, Queue& queue, bool (*poll)(), void* status) {
  using namespace std::chrono;
  const auto start = steady_clock::now();
  for (auto next = start + milliseconds(50); !done();) {
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
  if (shared.profile) Profiler::take(profile, device_.name());
  if (shared.status.code != Status::ok) raise_status(plan_, shared.status);
}

Program::Slots Program::slots(int threads) const {
  Slots at;
  at.bytes = at.first = aligned(plan_.arena_bytes);
  auto slot = [&](size_t n) {
    size_t begin = at.bytes;
    at.bytes += aligned(n ? n : 1);
    return begin;
  };
  for (const View& v : inputs_) at.in.push_back(slot(size_t(v.bytes())));
  if (part_ == Part::whole)
    for (const View& v : outputs_) at.out.push_back(slot(size_t(v.bytes())));
  at.decision = slot(sizeof(DeviceStatus));
  at.word = slot(sizeof(DeviceStatus));
  at.scratch_each = (device_.records() ? size_t(scratch_parts) : size_t(threads)) * plan_.scratch_bytes;
  at.scratch = slot(size_t(plan_.lanes) * at.scratch_each);
  return at;
}

void Program::bind(RunState& state, const Slots& at, char* memory) const {
  char** bases = state.bases.data();
  bases[arena_base] = memory;
  for (size_t i = 0; i < at.in.size(); i++) bases[size_t(plan_.bases.inputs) + i] = memory + at.in[i];
  for (size_t i = 0; i < at.out.size(); i++) bases[size_t(plan_.bases.outputs) + i] = memory + at.out[i];
  for (size_t i = 0; i < variables_.size(); i++)
    bases[size_t(plan_.bases.variables) + i] = static_cast<char*>(variables_[i]->data());
}

/// A queue that has recorded nothing, or this program over its variables' memory of now.
void Program::renew_queue(std::unique_ptr<Queue>& queue, RunState& state) const {
  if (const uint64_t moves = moves_.load(std::memory_order_relaxed); state.moves != moves) {
    queue.reset();
    state.moves = moves;
  }
  if (!queue) queue = device_.queue();
}

void Program::replay(Queue& queue, RunState& state, const Slots& at, char* memory) const {
  RunProfile profile;
  const bool profiled = Profiler::on();
  auto give = [&](Recording& recording) {
    for (int32_t i = 0; i < plan_.lanes; i++) {
      CudaStream& lane = recording.lane(i);
      lane.status = reinterpret_cast<DeviceStatus*>(memory + at.word);
      lane.scratch = memory + at.scratch + size_t(i) * at.scratch_each;
      lane.scratch_bytes = plan_.scratch_bytes;
      lane.exact = exact_;
    }
    RunShared shared;
    shared.recording = &recording;
    shared.cuda = &recording.lane(0);
    shared.decision = reinterpret_cast<DeviceStatus*>(memory + at.decision);
    if (profiled) shared.profile = &profile;
    run_steps(plan_, state, shared);
    run_commit(plan_, state, shared, [](void*, int32_t) {}, nullptr);
  };
  if (!profiled) return queue.replay(memory, give);
  queue.perform(give);
  std::vector<int64_t> times = queue.times();
  const int64_t shift = times.empty() ? 0 : Profiler::now() - times.back();  // the device's clock is not the host's
  for (int64_t& t : times) t += shift;
  profile.resolve(times);
  Profiler::take(profile, device_.name());
}

void Program::committed() const {
  for (const Commit& c : plan_.commits)
    for (int32_t v : c.variables) written(v);
}

/// Inputs and outputs pass through slots of the arena, but for a maker's, whose output is on the device; status word and guard
/// are tested on the device, so that the host waits once, at the end.
void Program::run_on_device(const View* inputs, const View* outputs, bool (*poll)()) const {
  RunShared shared;
  shared.threads = default_threads();
  shared.poll = poll;
  const Slots at = slots(shared.threads);
  Arena arena = device_.arenas.take(device_, at.bytes);
  char* memory = arena.data();
  Loan loan(*this);
  RunState& state = *loan;
  bind(state, at, memory);
  if (part_ == Part::maker) state.bases[size_t(plan_.bases.outputs)] = outputs[0].as<char>();

  std::unique_ptr<Queue> once;  // a queue that records is kept with what it recorded, but a maker seldom runs
  std::unique_ptr<Queue>& queue = device_.records() && part_ == Part::whole ? state.queue : once;
  renew_queue(queue, state);
  if (poll && poll()) raise_status(plan_, {Status::cancelled});
  std::vector<int32_t> written;
  Status status;
  bool cancelled = false;
  struct Given {  // the arena goes back and inputs may be freed behind an error too
    Queue* queue;
    ~Given() {
      if (queue) queue->abandon();
    }
  } given{queue.get()};
  for (size_t i = 0; i < at.in.size(); i++) queue->copy_in(memory + at.in[i], inputs[i].data, size_t(inputs_[i].bytes()));
  FlushDenormals flush;
  if (device_.records()) {
    DeviceStatus ok;
    queue->copy_in(memory + at.word, &ok, sizeof ok);
    replay(*queue, state, at, memory);
    if (poll) cancelled = wait_or_cancel([&] { return queue->done(); }, *queue, poll, memory + at.word);
  } else {
    shared.scratch = memory + at.scratch;
    shared.scratch_bytes = plan_.scratch_bytes;
    queue->run([&] {
      run_steps(plan_, state, shared);
      std::memcpy(memory + at.word, &shared.status, sizeof(Status));
    });
    queue->run([&] {
      std::memcpy(&shared.status, memory + at.word, sizeof(Status));
      run_commit(
          plan_, state, shared, [](void* list, int32_t v) { static_cast<std::vector<int32_t>*>(list)->push_back(v); }, &written);
    });
  }
  queue->copy_out(&status, memory + (device_.records() ? at.decision : at.word), sizeof(Status));
  for (size_t i = 0; i < at.out.size(); i++) queue->copy_out(outputs[i].data, memory + at.out[i], size_t(outputs_[i].bytes()));
  queue->wait();
  given.queue = nullptr;
  for (int32_t v : written) this->written(v);
  if (status.code != Status::ok) raise_status(plan_, status);
  if (device_.records()) committed();
  if (cancelled) fail(ErrorKind::cancelled, "interrupted when the device had finished the run; the variables are as after it");
}

// Flags of a run in flight, by its place: its inputs are there, its steps done, its outputs back.
namespace {
enum Flag : int { there = 0, ran = Runs::most, back = 2 * Runs::most };
}

Runs::Runs(const Program& program, bool (*poll)())
    : program_(program), poll_(poll), lock_(program.any_, !program.plan_.commits.empty()), at_(program.slots(1)) {
  if (!program.settled()) program.settle(lock_);
  landing_ = at_.bytes;
  each_ = at_.in_bytes() + at_.out_bytes();
  arena_ = program.device_.arenas.take(program.device_, landing_ + most * each_);
  loan_ = std::make_unique<Program::Loan>(program);
  RunState& state = **loan_;
  program.bind(state, at_, memory());
  program.renew_queue(state.queue, state);
  staging_ = state.staging.take(program.device_, most * each_);
  DeviceStatus ok;  // a fault stays: the run behind it commits nothing
  state.queue->copy_in(memory() + at_.word, &ok, sizeof ok);
}

Runs::~Runs() {
  RunState& state = **loan_;
  poll_ = nullptr;
  try {
    while (in_flight()) wait();
    state.queue->abandon();  // also what a start that failed had given
  } catch (const Error&) {   // the driver's: what the queue holds is lost
    state.queue->abandon();
    state.queue.reset();
  }
}

void Runs::start(const View* inputs) {
  const int place = started_ % most;
  const size_t begin = size_t(place) * each_;
  RunState& state = **loan_;
  Queue& queue = *state.queue;
  for (size_t i = 0; i < at_.in.size(); i++)
    if (size_t bytes = size_t(program_.inputs_[i].bytes()))
      std::memcpy(staging_ + begin + (at_.in[i] - at_.first), inputs[i].data, bytes);
  char* landing = memory() + landing_ + begin;
  const size_t in = at_.in_bytes(), out = at_.out_bytes();
  queue.move(Queue::Way::in, landing, staging_ + begin, in);
  queue.set_flag(Queue::Way::in, there + place);
  queue.await_flag(Queue::Way::steps, there + place);
  queue.move(Queue::Way::steps, memory() + at_.first, landing, in);
  program_.replay(queue, state, at_, memory());
  queue.move(Queue::Way::steps, landing + in, memory() + at_.first + in, out);
  queue.set_flag(Queue::Way::steps, ran + place);
  queue.await_flag(Queue::Way::out, ran + place);
  queue.move(Queue::Way::out, staging_ + begin + in, landing + in, out);
  queue.set_flag(Queue::Way::out, back + place);
  started_++;
}

/// The oldest run's end: its status, and its variables' versions.
Status Runs::wait() {
  const int place = finished_ % most;
  Queue& queue = *(**loan_).queue;
  if (poll_ && !cancelled_)
    cancelled_ = wait_or_cancel([&] { return queue.reached(back + place); }, queue, poll_, memory() + at_.word);
  finished_++;
  queue.wait_for(back + place);
  Status status;
  std::memcpy(&status, staging_ + size_t(place) * each_ + (at_.decision - at_.first), sizeof status);
  if (status.code == Status::ok) program_.committed();
  return status;
}

void Runs::finish(const View* outputs) {
  const char* from = staging_ + size_t(finished_ % most) * each_;
  const Status status = wait();
  if (status.code != Status::ok) raise_status(program_.plan_, status);
  for (size_t i = 0; i < at_.out.size(); i++)
    if (size_t bytes = size_t(program_.outputs_[i].bytes())) std::memcpy(outputs[i].data, from + (at_.out[i] - at_.first), bytes);
  if (cancelled_) fail(ErrorKind::cancelled, "interrupted when the device had finished the run; the variables are as after it");
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
