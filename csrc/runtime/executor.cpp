#include "runtime/executor.h"

#include <algorithm>
#include <cstring>
#include <thread>

#include "base/cuda_stream.h"
#include "base/error.h"
#include "ops/cuda.h"

namespace dagrt {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto poll_interval = std::chrono::milliseconds(50);

/// Asks for cancellation, if it is time to.
void poll(RunShared& shared) {
  if (!shared.poll) return;
  auto now = Clock::now();
  if (now < shared.next_poll) return;
  shared.next_poll = now + poll_interval;
  if (shared.poll()) shared.status.report(Status::cancelled, -1, 0, 0, 0);
}

void copy(RunShared& shared, void* to, const void* from, size_t bytes) {
  if (shared.cuda)
    copy_on(*shared.cuda, to, from, bytes);
  else if (bytes)
    std::memcpy(to, from, bytes);
}

/// DeviceError where the op could not be given to the device.
void check_launched(const Plan& plan, const Step& step, const CudaStream& s) {
  if (s.refused)
    fail(ErrorKind::device, place(plan, step), ": kernel ", s.refused, " was refused by the CUDA driver: ", s.reason);
}

/// What launches from here on belong to, and the memory that they may touch.
void tell(RunShared& shared, const Plan& plan, const Step& step, const View* views, const char* workspace) {
  shared.recording->at(plan, step);
  CudaStream& s = *shared.cuda;
  s.operands = views;
  s.operand_count = step.inputs + step.outputs;
  s.unmade = step.kind == Step::Kind::scan || s.gate.status ? 0 : step.outputs;
  s.workspace = workspace;
  s.workspace_bytes = step.workspace_bytes;
}

/// f(i, own) for `count` things that may happen at the same time, each on one thread with what is its own. The first that
/// reports a fault is heard, as if they came one after another.
template <class F> void run_apart(RunShared& shared, int64_t count, double ns, const F& f) {
  Status reports[most_together];
  const auto caller = std::this_thread::get_id();
  Stream stream{shared.threads, shared.scratch, shared.scratch_bytes};
  stream.parallel(count, ns, [&](int64_t i, char* scratch) {
    RunShared own;
    own.scratch = scratch;
    own.scratch_bytes = shared.scratch_bytes;
    own.profile = shared.profile;
    if (std::this_thread::get_id() == caller) {  // which alone may ask
      own.poll = shared.poll;
      own.next_poll = shared.next_poll;
    }
    f(i, own);
    reports[i] = own.status;
  });
  for (int64_t i = 0; i < count; i++) {
    const Status& s = reports[i];
    if (s.code == Status::ok) continue;
    return shared.status.report(s.code, s.node, s.index, s.value, s.limit);
  }
}

/// Puts in what is the same for all iterations in this region. Returns where their number stands.
int32_t* enter_body(const ScanPlan& s, const View* in, char* region, RunState& state) {
  char** base = state.bases.data();
  base[arena_base] = region;
  int32_t* number = reinterpret_cast<int32_t*>(region + s.step);
  int32_t captured = s.body->bases.inputs + int32_t(s.carries + s.sequences);
  for (int64_t i = 0; i < s.captured; i++) base[captured + i] = in[s.carries + s.sequences + i].as<char>();
  base[captured + s.captured] = reinterpret_cast<char*>(number);
  return number;
}

/// Elements t of the sequences.
void take_elements(const ScanPlan& s, int64_t t, const View* in, const View* out, RunState& state) {
  char **from = state.bases.data() + s.body->bases.inputs + s.carries,
       **to = state.bases.data() + s.body->bases.outputs + s.carries;
  for (int64_t i = 0; i < s.sequences; i++) from[i] = in[s.carries + i].as<char>() + size_t(t) * s.element_bytes[size_t(i)];
  for (int64_t i = 0; i < s.ys; i++) to[i] = out[s.carries + i].as<char>() + size_t(t) * s.y_bytes[size_t(i)];
}

void run_scan(const Plan& plan, const Step& step, const ScanPlan& s, const View* in, const View* out, char* region,
              std::vector<RunState>& states, RunShared& shared) {
  const Plan& body = *s.body;
  if (s.at_once > 1 && shared.threads > 1) {
    constexpr double fast = 0.01;  // the time that a vector unit takes, of a slow machine's
    return run_apart(shared, s.length, fast * body.work_ns, [&](int64_t k, RunShared& own) {
      const int64_t t = s.reverse ? s.length - 1 - k : k;
      RunState& state = states[size_t(t)];
      *enter_body(s, in, region + size_t(t) * s.region_bytes, state) = int32_t(t);
      take_elements(s, t, in, out, state);
      run_steps(body, state, own);
    });
  }
  RunState& state = states.front();
  const Bases& b = body.bases;
  char** base = state.bases.data();
  int32_t* number = enter_body(s, in, region, state);
  if (s.length == 0)
    for (int64_t i = 0; i < s.carries; i++) copy(shared, out[i].data, in[i].data, s.carry_bytes[size_t(i)]);
  for (int64_t k = 0; k < s.length; k++) {
    int64_t t = s.reverse ? s.length - 1 - k : k;
    if (shared.cuda) {
      tell(shared, plan, step, in, region);
      put_on(*shared.cuda, number, int32_t(t));
    } else {
      *number = int32_t(t);
    }
    bool to_output = (s.length - 1 - k) % 2 == 0;  // so that the last iteration writes the node's outputs
    for (int64_t i = 0; i < s.carries; i++) {
      char* output = out[i].as<char>();
      char* spare = region + s.spare[size_t(i)];
      base[b.inputs + i] = k == 0 ? in[i].as<char>() : to_output ? spare : output;
      base[b.outputs + i] = to_output ? output : spare;
    }
    take_elements(s, t, in, out, state);
    run_steps(body, state, shared);
    poll(shared);
    if (shared.status.code != Status::ok) return;
  }
}

void run_step_now(const Plan& plan, const Step& step, RunState& state, RunShared& shared) {
  View* views = state.views.data() + step.first_view;
  const Place* places = plan.places.data() + step.first_view;
  char* const* bases = state.bases.data();
  for (int32_t i = 0, n = step.inputs + step.outputs; i < n; i++) views[i].data = bases[places[i].base] + places[i].offset;
  const View* out = views + step.inputs;
  if (shared.cuda) tell(shared, plan, step, views, bases[step.workspace.base] + step.workspace.offset);
  switch (step.kind) {
    case Step::Kind::copy: copy(shared, out->data, views->data, step.copy_bytes); break;
    case Step::Kind::scan:
      run_scan(plan, step, plan.scans[size_t(step.scan)], views, out, bases[step.workspace.base] + step.workspace.offset,
               state.scans[size_t(step.scan)], shared);
      break;
    case Step::Kind::op: {
      Stream stream{shared.threads, shared.scratch, shared.scratch_bytes, shared.cuda};
      step.op->run({step.attrs, views, out, step.inputs, step.outputs, stream, bases[step.workspace.base] + step.workspace.offset,
                    shared.status, step.node});
      break;
    }
  }
  if (shared.cuda) check_launched(plan, step, *shared.cuda);
}

void run_step(const Plan& plan, const Step& step, RunState& state, RunShared& shared) {
  if (!shared.profile) return run_step_now(plan, step, state, shared);
  auto now = [&] { return shared.recording ? shared.recording->stamp() : Profiler::now(); };
  const int64_t begin = now();
  run_step_now(plan, step, state, shared);
  shared.profile->add({&plan, &step, begin, now()});
}

/// Whether steps that may run at the same time are sooner done so, each on one thread, than one after another.
bool pays(const Step* steps, int threads) {
  double after = 0, sum = 0, most = 0;
  for (int32_t i = 0; i < steps->together; i++) {
    double w = steps[i].work_ns;
    after += w / double(std::min(steps[i].units, threads));
    sum += w;
    most = std::max(most, w);
  }
  return after > 1.1 * std::max(most, sum / threads);
}

/// Each of them on a thread of its own.
void run_together(const Plan& plan, const Step* steps, RunState& state, RunShared& shared) {
  double ns = 0;
  for (int32_t i = 0; i < steps->together; i++) ns = std::max(ns, double(steps[i].work_ns));
  run_apart(shared, steps->together, ns, [&](int64_t i, RunShared& own) { run_step(plan, steps[i], state, own); });
}

/// Each step into its lane. Copies to outputs and of variables' old values come last, when all lanes have been joined.
void record_lanes(const Plan& plan, RunState& state, RunShared& shared) {
  Recording& r = *shared.recording;
  bool joined = false;
  r.mark(0, plan.marks);
  for (int32_t l = 1; l < plan.lanes; l++) r.await(l, plan.marks);
  auto join = [&] {
    for (int32_t l = 1; l < plan.lanes && !joined; l++) {
      r.mark(l, plan.marks + l);
      r.await(0, plan.marks + l);
    }
    joined = true;
  };
  for (const Step& step : plan.steps) {
    if (step.kind == Step::Kind::copy) join();
    for (int32_t i = 0; i < step.waits; i++) r.await(step.lane, plan.waits[size_t(step.first_wait + i)]);
    shared.cuda = &r.lane(step.lane);
    run_step(plan, step, state, shared);
    if (step.mark >= 0) r.mark(step.lane, step.mark);
  }
  join();
  shared.cuda = &r.lane(0);
}

bool holds(const RunState& state, Place p) { return p.base == 0 || state.bases[size_t(p.base)][p.offset] != 0; }

}  // namespace

RunState::RunState(const Plan& plan) : bases(size_t(plan.bases.count), nullptr), views(plan.views) {
  for (size_t i = 0; i < plan.constants.size(); i++)
    bases[size_t(plan.bases.constants) + i] = static_cast<char*>(const_cast<void*>(plan.constants[i]));
  for (size_t i = 0; i < plan.prepared.size(); i++) bases[size_t(plan.bases.prepared) + i] = static_cast<char*>(plan.prepared[i]);
  scans.reserve(plan.scans.size());
  for (const ScanPlan& s : plan.scans) {
    scans.emplace_back();
    scans.back().reserve(size_t(s.at_once));
    for (int32_t i = 0; i < s.at_once; i++) scans.back().emplace_back(*s.body);
  }
}

void run_steps(const Plan& plan, RunState& state, RunShared& shared) {
  if (plan.lanes > 1) return record_lanes(plan, state, shared);
  for (size_t i = 0; i < plan.steps.size(); i++) {
    const Step& step = plan.steps[i];
    if (step.poll) {
      poll(shared);
      if (shared.status.code != Status::ok) return;
    }
    if (step.together > 1 && shared.threads > 1 && !shared.cuda && pays(&step, shared.threads)) {
      run_together(plan, &step, state, shared);
      i += size_t(step.together) - 1;
      if (shared.status.code != Status::ok) return;
      continue;
    }
    run_step(plan, step, state, shared);
    if ((step.checks || step.kind == Step::Kind::scan) && shared.status.code != Status::ok) return;
  }
}

void run_commit(const Plan& plan, RunState& state, RunShared& shared, void (*written)(void*, int32_t), void* context) {
  if (shared.cuda) {  // the device looks at status, guard and predicates when it comes to them
    auto condition = [&](Place p) {
      return p.base ? reinterpret_cast<const bool*>(state.bases[size_t(p.base)] + p.offset) : nullptr;
    };
    shared.cuda->operands = nullptr;
    copy_on(*shared.cuda, shared.decision, shared.cuda->status, sizeof(DeviceStatus));
    for (const Commit& c : plan.commits) {
      shared.cuda->gate = {shared.decision, condition(plan.guard), condition(c.when)};
      run_step(plan, c.step, state, shared);
      for (int32_t v : c.variables) written(context, v);
    }
    shared.cuda->gate = {};
    return;
  }
  if (shared.status.code != Status::ok || !holds(state, plan.guard)) return;
  for (const Commit& c : plan.commits) {
    if (!holds(state, c.when)) continue;
    run_step(plan, c.step, state, shared);
    for (int32_t v : c.variables) written(context, v);
  }
}

void raise_status(const Plan& plan, const Status& s) {
  if (s.code == Status::cancelled) fail(ErrorKind::cancelled, "the run was cancelled; no variable has changed");
  const std::string who = s.node >= 0 && size_t(s.node) < plan.names->size() ? (*plan.names)[size_t(s.node)] : "a node";
  if (s.code == Status::division_by_zero)
    fail(ErrorKind::data, who, ": integer division by zero: expected divisors other than 0, got 0 at position ", s.index);
  fail(ErrorKind::data, who, ": expected ids in 0..", s.limit - 1, ", got ", s.value, " at position ", s.index);
}

}  // namespace dagrt
