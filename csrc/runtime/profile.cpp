#include "runtime/profile.h"

#include <chrono>
#include <functional>
#include <map>
#include <thread>

#include "base/error.h"

namespace dagrt {
namespace {

struct Recording {
  std::mutex mutex;
  int64_t begin_ns = 0, runs = 0;
  std::map<std::thread::id, int32_t> threads;
  std::vector<ProfiledStep> steps;
};

Recording& recording() {
  static Recording r;
  return r;
}

std::string shapes_text(const Types& in, const Types& out) {
  std::string s;
  for (const TensorType& t : in)
    if (!t.absent) s += (s.empty() ? "" : " ") + t.text();
  s += s.empty() ? "->" : " ->";
  for (const TensorType& t : out) s += " " + t.text();
  return s;
}

ProfiledStep describe(const Plan& plan, const Step& step) {
  ProfiledStep p;
  if (step.source < 0) {
    p.op = "copy";
    p.bytes = 2 * double(step.copy_bytes);
    return p;
  }
  const Node& n = plan.function->nodes[size_t(step.source)];
  for (const std::string& path : n.paths) p.path += (p.path.empty() ? "" : " + ") + path;
  Types in = plan.function->types_of(n.inputs), out = plan.function->types_of(n.outputs);
  p.op = n.op->name;
  p.shapes = shapes_text(in, out);
  Cost cost;
  if (n.op->cost) cost = n.op->cost(n.attrs.get(), in, out);
  p.flops = cost.flops;
  p.bytes = cost.bytes;
  if (!n.op->cost)
    for (const Types* list : {&in, &out})
      for (const TensorType& t : *list)
        if (!t.absent) p.bytes += double(t.bytes());
  return p;
}

}  // namespace

std::atomic<bool> Profiler::on_{false};

int64_t Profiler::now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void Profiler::start() {
  Recording& r = recording();
  std::lock_guard<std::mutex> lock(r.mutex);
  if (on()) fail(ErrorKind::graph, "profile: a profile is on already; leave its `with` block first");
  r.steps.clear();
  r.threads.clear();
  r.runs = 0;
  r.begin_ns = now();
  on_.store(true, std::memory_order_relaxed);
}

std::vector<ProfiledStep> Profiler::stop() {
  Recording& r = recording();
  std::lock_guard<std::mutex> lock(r.mutex);
  on_.store(false, std::memory_order_relaxed);
  return std::move(r.steps);
}

void Profiler::take(const RunProfile& run, const char* device) {
  Recording& r = recording();
  std::lock_guard<std::mutex> lock(r.mutex);
  if (!on()) return;
  int32_t thread = r.threads.emplace(std::this_thread::get_id(), int32_t(r.threads.size())).first->second;
  std::map<const Step*, ProfiledStep> known;  // steps of scans occur many times
  for (const RunProfile::Time& t : run.times()) {
    auto found = known.find(t.step);
    if (found == known.end()) found = known.emplace(t.step, describe(*t.plan, *t.step)).first;
    r.steps.push_back(found->second);
    ProfiledStep& p = r.steps.back();
    p.begin_ns = t.begin_ns - r.begin_ns;
    p.end_ns = t.end_ns - r.begin_ns;
    p.device = device;
    p.run = r.runs;
    p.thread = thread;
  }
  r.runs++;
}

}  // namespace dagrt
