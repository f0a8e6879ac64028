#include "runtime/plan.h"

#include <algorithm>
#include <array>
#include <climits>
#include <map>
#include <set>

#include "ir/locate.h"
#include "ir/op_view.h"
#include "runtime/offsets.h"
#include "runtime/slices.h"

namespace dagrt {
namespace {

constexpr int32_t at_end = INT_MAX;
constexpr double poll_ns = 1e6;  // of work on a slow machine between two looks at the clock
// An iteration of less work, on a slow machine, and memory, which a core's own cache keeps, is sooner done by one thread beside the
// others than by all of them.
constexpr double apart_ns = 1e7;
constexpr size_t apart_bytes = 512 << 10;
constexpr double group_ns = 1e6;  // of work on a slow machine from which a step may be worth a thread of its own
constexpr int64_t few_units = 4;
constexpr double lane_ns = 1e5;       // of work on a slow machine from which a step without inputs may go to a lane of its own
constexpr int32_t soon = 64;          // steps: a value that is wanted later than that is made where its inputs are
constexpr double lane_memory = 1.25;  // lanes may take so much more memory than one
constexpr size_t small_arena = size_t(16) << 20;

enum class Source : uint8_t { step, input, variable, constant, prepared };

using Positions = std::array<int32_t, most_lanes>;
constexpr Span nothing_yet{{at_end, at_end, at_end, at_end}, {-1, -1, -1, -1}};

void include(Span& a, const Span& b) {
  for (int i = 0; i < most_lanes; i++) {
    a.first[i] = std::min(a.first[i], b.first[i]);
    a.last[i] = std::max(a.last[i], b.last[i]);
  }
}

/// A step, or the end, behind which and before which everything else is known to be.
Span whole_lane(int32_t at) { return {{at, at, at, at}, {at, -1, -1, -1}}; }

struct Buffer {  // memory that one value, or several of the same bytes, stand in
  Source source = Source::step;
  int32_t index = -1;  // of the input, variable, constant or prepared value
  size_t bytes = 0;
  int32_t parent = -1;  // joined with that one: written in place
  Span span = nothing_yet;
  bool wanted = false;    // by an output
  int32_t output = -1;    // stands in that output's memory
  int32_t variable = -1;  // stands in that variable's memory (commit)
  int32_t joined = -1;    // position of the last step that wrote it in place
  int32_t extent = -1;
  size_t offset = 0;
};

struct Copy {
  int32_t from = -1;    // buffer
  int32_t to = -1;      // buffer, for values staged before the commit
  int32_t output = -1;  // or an output
  ValueId value = no_value;
};

bool is_alias(const Node& n) { return n.op->name == "reshape"; }

bool is_leaf(const Node& n) { return n.op->role == Structural::read || n.op->role == Structural::constant; }

class Planner {
 public:
  Planner(const Module& m, const Function& f, std::shared_ptr<std::vector<std::string>> names, bool on_cuda, int lanes,
          const Hoist& hoist = {})
      : m_(m), f_(f), on_cuda_(on_cuda), hoist_(hoist) {
    plan_.lanes = lanes;
    plan_.names = std::move(names);
    plan_.function = &f;
  }

  Plan build() {
    lay_bases();
    slices_ = find_slices(f_, hoist_.nodes, !on_cuda_);
    collect_buffers();
    choose_commits();
    choose_main();
    prepare_memory();
    group_steps();
    order_steps();
    choose_lanes();
    measure_lifetimes();
    join_in_place();
    place_outputs();
    place_arena();
    emit();
    return std::move(plan_);
  }

 private:
  // --- what there is ---
  void lay_bases() {
    Bases& b = plan_.bases;
    b.inputs = 2;
    b.outputs = b.inputs + int32_t(f_.inputs.size());
    b.variables = b.outputs + int32_t(f_.outputs.size());
    b.constants = b.variables + int32_t(m_.variables.size());
    b.prepared = b.constants + int32_t(m_.constants.size());
    b.count = b.prepared + int32_t(hoist_.values.size());
    for (const Constant& c : m_.constants) plan_.constants.push_back(c.data.get());
    plan_.uses_variable.assign(m_.variables.size(), 0);
  }

  int32_t new_buffer(Source source, int32_t index, size_t bytes) {
    Buffer b;
    b.source = source;
    b.index = index;
    b.bytes = bytes;
    buffers_.push_back(b);
    return int32_t(buffers_.size()) - 1;
  }

  bool hoisted(size_t node) const { return !hoist_.nodes.empty() && hoist_.nodes[node]; }

  size_t bytes_of(ValueId v) const { return size_t(f_.types[size_t(v)].bytes()); }

  void collect_buffers() {
    buffer_.assign(f_.types.size(), -1);
    uses_.assign(f_.types.size(), 0);
    for (size_t i = 0; i < f_.inputs.size(); i++)
      buffer_[size_t(f_.inputs[i].value)] = new_buffer(Source::input, int32_t(i), bytes_of(f_.inputs[i].value));
    auto use = [&](ValueId v) {
      if (v != no_value) uses_[size_t(v)]++;
    };
    for (size_t i = 0; i < f_.nodes.size(); i++)
      if (!hoisted(i))
        for (ValueId v : f_.nodes[i].inputs) use(v);
    for (ValueId v : f_.outputs) use(v);
    for (const Store& s : f_.stores) use(s.value), use(s.when);
    use(f_.guard);

    for (size_t k = 0; k < hoist_.values.size(); k++)
      buffer_[size_t(hoist_.values[k])] = new_buffer(Source::prepared, int32_t(k), bytes_of(hoist_.values[k]));
    for (size_t i = 0; i < f_.nodes.size(); i++) {
      const Node& n = f_.nodes[i];
      if (hoisted(i)) continue;
      if (n.op->role == Structural::read) {
        int32_t variable = int32_t(n.as<ReadAttrs>().variable);
        if (variable_buffer_.empty()) variable_buffer_.assign(m_.variables.size(), -1);
        int32_t& b = variable_buffer_[size_t(variable)];
        if (b < 0) b = new_buffer(Source::variable, variable, bytes_of(n.outputs[0]));
        buffer_[size_t(n.outputs[0])] = b;
        plan_.uses_variable[size_t(variable)] = 1;
      } else if (n.op->role == Structural::constant) {
        buffer_[size_t(n.outputs[0])] =
            new_buffer(Source::constant, int32_t(n.as<ConstantAttrs>().index), bytes_of(n.outputs[0]));
      } else if (is_alias(n)) {
        buffer_[size_t(n.outputs[0])] = buffer_[size_t(n.inputs[0])];
      } else {
        size_t residuals = n.outputs.size() - std::min(n.outputs.size(), size_t(n.op->residuals));
        for (size_t o = 0; o < n.outputs.size(); o++)
          if ((o < residuals || uses_[size_t(n.outputs[o])]) && !in_slice(n.outputs[o]))
            buffer_[size_t(n.outputs[o])] = new_buffer(Source::step, -1, bytes_of(n.outputs[o]));
      }
    }
    for (size_t v = 0; v < buffer_.size(); v++)
      if (in_slice(ValueId(v))) buffer_[v] = buffer_[size_t(slices_.at[v].host)];
    for (const Store& s : f_.stores) plan_.uses_variable[size_t(s.variable)] = 1;
  }
  bool in_slice(ValueId v) const { return slices_.at[size_t(v)].host != no_value; }

  bool reads_variable(const Node& n, int32_t variable) const {
    for (ValueId v : n.inputs)
      if (v != no_value && is_variable(v, variable)) return true;
    return false;
  }
  bool is_variable(ValueId v, int32_t variable) const {
    int32_t b = v == no_value ? -1 : buffer_[size_t(v)];
    return b >= 0 && buffers_[size_t(b)].source == Source::variable && buffers_[size_t(b)].index == variable;
  }

  // --- the commit ---
  struct Update {
    size_t node;
    ValueId when;
    std::vector<std::pair<int, int32_t>> in_place;  // (output, variable)
    std::vector<int32_t> variables;                 // all that its outputs are stored to
  };

  const Store* only_store_of(ValueId v) const {
    const Store* found = nullptr;
    for (const Store& s : f_.stores)
      if (s.value == v) found = found ? nullptr : &s;
    return uses_[size_t(v)] == 1 ? found : nullptr;
  }

  /// A node may wait for the commit if its outputs serve stores alone, all under one predicate, and it may overwrite
  /// the old value of at least one variable.
  bool candidate(size_t index, Update& u) const {
    const Node& n = f_.nodes[index];
    if (hoisted(index) || n.op->structural || n.op->checks || n.op->in_place.empty()) return false;
    u.node = index;
    bool first = true;
    for (ValueId v : n.outputs) {
      if (!uses_[size_t(v)]) continue;
      const Store* s = only_store_of(v);
      if (!s || (!first && s->when != u.when)) return false;
      u.when = s->when;
      u.variables.push_back(s->variable);
      first = false;
    }
    for (auto [i, o] : n.op->in_place) {
      if (size_t(i) >= n.inputs.size() || size_t(o) >= n.outputs.size() || !uses_[size_t(n.outputs[size_t(o)])]) continue;
      ValueId in = n.inputs[size_t(i)], out = n.outputs[size_t(o)];
      int32_t variable = only_store_of(out)->variable;
      bool once = std::count_if(n.inputs.begin(), n.inputs.end(), [&](ValueId v) { return is_variable(v, variable); }) == 1;
      bool again = std::any_of(u.in_place.begin(), u.in_place.end(), [&](auto& p) { return p.first == o; });
      if (in != no_value && is_variable(in, variable) && once && !again && same_elements(in, out))
        u.in_place.emplace_back(o, variable);
    }
    return !u.in_place.empty();
  }

  bool same_elements(ValueId a, ValueId b) const {
    const TensorType &x = f_.types[size_t(a)], &y = f_.types[size_t(b)];
    return size_of(x.dtype) == size_of(y.dtype) && x.elements() == y.elements();
  }

  void choose_commits() {
    if (f_.stores.empty()) return;
    for (size_t i = 0; i < f_.nodes.size(); i++) {
      Update u{i, no_value, {}, {}};
      if (candidate(i, u)) updates_.push_back(std::move(u));
    }
    // What another update still reads must not be overwritten. Dropping one update only removes readers, so this ends.
    for (bool changed = true; changed;) {
      changed = false;
      std::vector<int> readers(m_.variables.size(), 0);
      for (const Update& u : updates_) {
        std::set<int32_t> seen;
        for (ValueId v : f_.nodes[u.node].inputs)
          if (v != no_value && buffers_[size_t(buffer_[size_t(v)])].source == Source::variable)
            seen.insert(buffers_[size_t(buffer_[size_t(v)])].index);
        for (int32_t v : seen) readers[size_t(v)]++;
      }
      for (Update& u : updates_) {
        auto unsafe = [&](const std::pair<int, int32_t>& p) { return readers[size_t(p.second)] > 1; };
        auto end = std::remove_if(u.in_place.begin(), u.in_place.end(), unsafe);
        changed |= end != u.in_place.end();
        u.in_place.erase(end, u.in_place.end());
      }
      updates_.erase(std::remove_if(updates_.begin(), updates_.end(), [](const Update& u) { return u.in_place.empty(); }),
                     updates_.end());
    }
    for (const Update& u : updates_)
      for (auto [o, variable] : u.in_place)
        buffers_[size_t(buffer_[size_t(f_.nodes[u.node].outputs[size_t(o)])])].variable = variable;
  }

  // --- order ---
  bool is_step(size_t node) const {
    return !hoisted(node) && !is_leaf(f_.nodes[node]) && !is_alias(f_.nodes[node]) && !slices_.gone[node];
  }

  void choose_main() {
    std::vector<char> late(f_.nodes.size(), 0);
    for (const Update& u : updates_) late[u.node] = 1;
    for (size_t i = 0; i < f_.nodes.size(); i++)
      if (!late[i] && is_step(i)) main_.push_back(i);
  }

  /// Brings together heavy steps that do not depend on each other and split into few units, such as two LSTMs at batch 1:
  /// each may then run on a thread of its own. What one of them needs goes before the first.
  void group_steps() {
    together_.assign(f_.nodes.size(), 1);
    std::vector<size_t> candidates;
    if (on_cuda_) return;  // where lanes do more
    for (size_t i : main_)
      if (work_[i] >= group_ns && units_[i] <= few_units) candidates.push_back(i);
    if (candidates.size() < 2) return;

    std::vector<int64_t> producer(f_.types.size(), -1);  // of a value: the node
    for (size_t i = 0; i < f_.nodes.size(); i++)
      if (!hoisted(i) && !is_leaf(f_.nodes[i]))
        for (ValueId v : f_.nodes[i].outputs) producer[size_t(v)] = int64_t(i);
    std::vector<char> done(f_.nodes.size(), 0);
    std::vector<size_t> order;
    auto missing = [&](size_t of) {  // the steps before it that are still to do, in order
      std::vector<char> seen(f_.nodes.size(), 0);
      std::vector<size_t> found, stack{of};
      while (!stack.empty()) {
        size_t i = stack.back();
        stack.pop_back();
        for (ValueId v : f_.nodes[i].inputs) {
          int64_t p = v == no_value ? -1 : producer[size_t(v)];
          if (p < 0 || seen[size_t(p)] || done[size_t(p)]) continue;
          seen[size_t(p)] = 1;
          if (is_step(size_t(p))) found.push_back(size_t(p));  // else it is memory of others
          stack.push_back(size_t(p));
        }
      }
      std::sort(found.begin(), found.end());
      return found;
    };
    for (size_t i : main_) {
      if (done[i]) continue;
      std::vector<size_t> group{i};
      if (std::binary_search(candidates.begin(), candidates.end(), i))
        for (size_t j : candidates) {
          if (j <= i || done[j] || group.size() == size_t(most_together)) continue;
          std::vector<size_t> before = missing(j);
          auto waits = [&](size_t k) { return std::find(group.begin(), group.end(), k) != group.end(); };
          if (std::any_of(before.begin(), before.end(), waits)) continue;
          for (size_t k : before) {
            done[k] = 1;
            order.push_back(k);
          }
          group.push_back(j);
        }
      together_[i] = int32_t(group.size());
      for (size_t k : group) {
        done[k] = 1;
        order.push_back(k);
        if (group.size() > 1) grouped_.insert(k);
      }
    }
    main_ = std::move(order);
  }

  /// Steps of a group have one position: their values and workspaces live at the same time.
  void order_steps() {
    position_.assign(f_.nodes.size(), -1);
    int32_t next = 0;
    for (size_t k = 0; k < main_.size();) {
      for (int32_t n = together_[main_[k]]; n > 0; n--) position_[main_[k++]] = next;
      next++;
    }
    std::vector<char> direct(buffers_.size(), 0);
    for (size_t k = 0; k < f_.outputs.size(); k++) {
      int32_t b = buffer_[size_t(f_.outputs[k])];
      if (buffers_[size_t(b)].source == Source::step) {  // in-place joins never join two wanted buffers
        buffers_[size_t(b)].wanted = true;
        if (!direct[size_t(b)]++) continue;
      }
      copies_.push_back({b, -1, int32_t(k), f_.outputs[k]});
    }
    next += int32_t(copies_.size());
    for (const Store& s : f_.stores) {  // old values of variables, before the commit may overwrite them
      if (!is_variable(s.value, s.variable)) stage(s.value, next);
      stage(s.when, next);
    }
    for (const Update& u : updates_) position_[u.node] = next++;
  }

  /// Copies a value that stands in a variable to the arena.
  void stage(ValueId v, int32_t& next) {
    int32_t b = v == no_value ? -1 : buffer_[size_t(v)];
    if (b < 0 || buffers_[size_t(b)].source != Source::variable || staged_.count(v)) return;
    int32_t staged = new_buffer(Source::step, -1, buffers_[size_t(b)].bytes);
    buffers_[size_t(staged)].span = whole_lane(next++);
    include(buffers_[size_t(staged)].span, whole_lane(at_end));
    copies_.push_back({b, staged, -1, v});
    staged_[v] = staged;
  }

  // --- lanes ---
  /// In the steps' order: where each runs, what it waits for, and what is known to be done before it.
  void choose_lanes() {
    spans_.assign(f_.nodes.size(), nothing_yet);
    lane_.assign(f_.nodes.size(), 0);
    mark_.assign(f_.nodes.size(), -1);
    waits_.assign(f_.nodes.size(), {});
    for (size_t i = 0; i < f_.nodes.size(); i++)
      if (position_[i] >= 0) spans_[i] = whole_lane(position_[i]);
    if (plan_.lanes == 1) return;

    std::vector<std::vector<size_t>> writers(buffers_.size());
    std::vector<int32_t> wanted(buffers_.size(), at_end);  // position of the first reader
    auto stands = [&](ValueId v) { return v != no_value && buffer_[size_t(v)] >= 0; };
    for (size_t k = main_.size(); k-- > 0;)
      for (ValueId v : f_.nodes[main_[k]].inputs)
        if (stands(v)) wanted[size_t(buffer_[size_t(v)])] = position_[main_[k]];
    Positions none;
    none.fill(-1);
    std::vector<Positions> after(f_.nodes.size(), none);  // what is done when a step is: a position in each lane
    std::array<Positions, most_lanes> known;              // by lane: the same of its last step
    std::array<int64_t, most_lanes> tail;                 // by lane: its last step
    known.fill(none);
    tail.fill(-1);
    int64_t last_check = -1;
    for (size_t i : main_) {
      const Node& n = f_.nodes[i];
      std::vector<size_t> needs;
      for (ValueId v : n.inputs)
        if (stands(v))
          for (size_t w : writers[size_t(buffer_[size_t(v)])]) needs.push_back(w);
      if (n.op->checks || (scan_of_[i] >= 0 && plan_.scans[size_t(scan_of_[i])].body->checks)) {
        if (last_check >= 0) needs.push_back(size_t(last_check));  // one at a time writes to the status word
        last_check = int64_t(i);
      }
      std::sort(needs.begin(), needs.end(), [&](size_t a, size_t b) { return position_[a] > position_[b]; });
      needs.erase(std::unique(needs.begin(), needs.end()), needs.end());
      int32_t first_use = at_end;
      for (ValueId v : n.outputs)
        if (stands(v)) first_use = std::min(first_use, wanted[size_t(buffer_[size_t(v)])]);
      const size_t lane = size_t(lane_for(i, needs, after, tail, first_use));
      lane_[i] = int32_t(lane);
      for (size_t w : needs) {  // the last first: it may know of the others
        const size_t other = size_t(lane_[w]);
        if (other == lane || known[lane][other] >= position_[w]) continue;
        if (mark_[w] < 0) mark_[w] = plan_.marks++;
        waits_[i].push_back(mark_[w]);
        for (size_t l = 0; l < most_lanes; l++) known[lane][l] = std::max(known[lane][l], after[w][l]);
      }
      Span& s = spans_[i];
      for (size_t l = 0; l < most_lanes; l++) s.first[l] = known[lane][l] + 1, s.last[l] = -1;
      s.first[lane] = s.last[lane] = known[lane][lane] = position_[i];
      after[i] = known[lane];
      tail[lane] = int64_t(i);
      for (ValueId v : n.outputs)
        if (stands(v)) writers[size_t(buffer_[size_t(v)])].push_back(i);
    }
  }

  int32_t lane_for(size_t i, const std::vector<size_t>& needs, const std::vector<Positions>& after,
                   const std::array<int64_t, most_lanes>& tail, int32_t first_use) const {
    int32_t next = plan_.lanes;
    for (size_t w : needs)
      if (tail[size_t(lane_[w])] == int64_t(w)) next = std::min(next, lane_[w]);
    if (next < plan_.lanes) return next;
    const int32_t home = needs.empty() ? 0 : lane_[needs[0]];
    // Else a value that nobody wants soon, such as a weight's gradient, would hold its inputs' memory for long.
    if (first_use == at_end || first_use - position_[i] > soon || (needs.empty() && work_[i] < lane_ns)) return home;
    for (int32_t l = 0; l < plan_.lanes; l++) {
      int32_t done = -1;
      for (size_t w : needs) done = std::max(done, after[w][size_t(l)]);
      if (tail[size_t(l)] < 0 || position_[size_t(tail[size_t(l)])] <= done) return l;
    }
    return home;
  }

  // --- memory of steps ---
  /// An op that has no way to run these sizes says so.
  template <class F> static Memory memory_of(const Node& n, F memory, const Types& in, const Types& out) {
    try {
      return memory(n.attrs.get(), in, out);
    } catch (const Error& e) {
      throw Error(e.kind, place(n) + ": " + e.what());
    }
  }

  void prepare_memory() {
    memory_.resize(f_.nodes.size());
    scan_of_.assign(f_.nodes.size(), -1);
    work_.assign(f_.nodes.size(), 0);
    units_.assign(f_.nodes.size(), INT64_MAX);
    for (size_t i = 0; i < f_.nodes.size(); i++) {
      const Node& n = f_.nodes[i];
      if (!is_step(i)) continue;
      if (n.op->role == Structural::scan) {
        prepare_scan(i);
        continue;
      }
      if (n.op->structural || !n.op->run) fail(ErrorKind::internal, "plan: ", place(n), " cannot be run");
      if (on_cuda_ && n.op->cpu_algorithm_of)  // compiling for a GPU does not choose it
        fail(ErrorKind::device, place(n), ": ", n.op->name, " is one of the CPU's algorithms for ", n.op->cpu_algorithm_of,
             " and does not run on a GPU; use ", n.op->cpu_algorithm_of);
      if (!on_cuda_ && n.op->cuda_algorithm_of)
        fail(ErrorKind::device, place(n), ": ", n.op->name, " is one of CUDA devices' algorithms for ", n.op->cuda_algorithm_of,
             " and does not run on a CPU; use ", n.op->cuda_algorithm_of);
      Types in = f_.types_of(n.inputs), out = f_.types_of(n.outputs);
      auto memory = on_cuda_ && n.op->cuda_memory ? n.op->cuda_memory : n.op->memory;
      if (memory) memory_[i] = memory_of(n, memory, in, out);
      Cost cost;
      if (n.op->cost) cost = n.op->cost(n.attrs.get(), in, out);
      for (const Types* list : {&in, &out})
        for (const TensorType& t : *list)
          if (!n.op->cost && !t.absent) cost.bytes += double(t.bytes());
      work_[i] = cost.flops + cost.bytes;  // 1 GFLOP/s, 1 GB/s
      if (n.op->units) units_[i] = n.op->units(n.attrs.get(), in, out);
    }
  }

  void prepare_scan(size_t index) {
    const Node& n = f_.nodes[index];
    const ScanAttrs& a = n.as<ScanAttrs>();
    ScanPlan s;
    const Function& body = m_.function(a.body);
    s.body = std::make_unique<Plan>(Planner(m_, body, plan_.names, on_cuda_, 1).build());
    s.carries = a.carries;
    s.sequences = a.sequences;
    s.captured = int64_t(n.inputs.size()) - a.carries - a.sequences;
    s.ys = int64_t(n.outputs.size()) - a.carries;
    s.length = a.length.value();
    s.reverse = a.reverse;
    size_t region = aligned(s.body->arena_bytes);
    for (int64_t i = 0; i < a.carries; i++) {
      size_t bytes = bytes_of(n.outputs[size_t(i)]);
      s.carry_bytes.push_back(bytes);
      s.spare.push_back(region);
      region += s.length > 1 ? aligned(bytes) : 0;
    }
    for (int64_t i = 0; i < a.sequences; i++)
      s.element_bytes.push_back(size_t(body.types[size_t(body.inputs[size_t(a.carries + i)].value)].bytes()));
    for (int64_t i = 0; i < s.ys; i++)
      s.y_bytes.push_back(size_t(body.types[size_t(body.outputs[size_t(a.carries + i)])].bytes()));
    s.step = region;
    region += arena_alignment;
    s.region_bytes = region;
    if (!on_cuda_ && !s.carries && s.length <= most_together && s.body->work_ns < apart_ns && region <= apart_bytes)
      s.at_once = std::max(int32_t(s.length), 1);
    memory_[index].workspace = region * size_t(s.at_once);
    memory_[index].scratch = s.body->scratch_bytes;
    work_[index] = double(s.length) * s.body->work_ns;
    if (s.at_once > 1)
      units_[index] = s.at_once;
    else if (s.body->work_ns < group_ns)
      units_[index] = 1;  // its steps are not worth several threads
    scan_of_[index] = int32_t(plan_.scans.size());
    plan_.scans.push_back(std::move(s));
  }

  // --- lifetimes ---
  int32_t find(int32_t b) const {
    while (buffers_[size_t(b)].parent >= 0) b = buffers_[size_t(b)].parent;
    return b;
  }
  Buffer& root(ValueId v) { return buffers_[size_t(find(buffer_[size_t(v)]))]; }

  void measure_lifetimes() {
    auto touch = [&](ValueId v, const Span& by) {
      if (v != no_value && buffer_[size_t(v)] >= 0) include(buffers_[size_t(buffer_[size_t(v)])].span, by);
    };
    for (size_t i = 0; i < f_.nodes.size(); i++) {
      if (position_[i] < 0) continue;
      for (ValueId v : f_.nodes[i].inputs) touch(v, spans_[i]);
      for (ValueId v : f_.nodes[i].outputs) touch(v, spans_[i]);
    }
    const Span end = whole_lane(at_end);
    for (ValueId v : f_.outputs) touch(v, end);
    for (const Store& s : f_.stores) touch(s.value, end), touch(s.when, end);
    touch(f_.guard, end);
  }

  /// Whether a step uses it last: all others are known to be done by then.
  bool ends_at(const Span& s, size_t i) const {
    for (int l = 0; l < most_lanes; l++)
      if (l == lane_[i] ? s.last[l] != position_[i] : s.last[l] >= spans_[i].first[l]) return false;
    return true;
  }

  void join_in_place() {
    for (size_t i : main_) {
      const Node& n = f_.nodes[i];
      if (grouped_.count(i)) continue;  // another step of the group may read the same input meanwhile
      for (auto [in, out] : n.op->in_place) {
        if (size_t(in) >= n.inputs.size() || size_t(out) >= n.outputs.size()) continue;
        ValueId x = n.inputs[size_t(in)], y = n.outputs[size_t(out)];
        if (x == no_value || buffer_[size_t(y)] < 0 || in_slice(x) || in_slice(y)) continue;
        int32_t from = find(buffer_[size_t(x)]), to = buffer_[size_t(y)];
        Buffer &a = buffers_[size_t(from)], &b = buffers_[size_t(to)];
        int same = 0;
        for (ValueId v : n.inputs) same += v != no_value && find(buffer_[size_t(v)]) == from;
        if (a.source != Source::step || !ends_at(a.span, i) || b.parent >= 0 || from == to || same != 1 || !same_elements(x, y) ||
            a.joined == position_[i])
          continue;
        b.parent = from;
        include(a.span, b.span);
        a.joined = position_[i];
        a.wanted |= b.wanted;
      }
    }
  }

  // --- places ---
  void place_outputs() {
    for (size_t k = 0; k < f_.outputs.size(); k++) {
      Buffer& b = root(f_.outputs[k]);
      if (b.source == Source::step && b.output < 0) b.output = int32_t(k);
    }
  }

  void place_arena() {
    std::vector<Extent> extents;
    for (Buffer& b : buffers_) {
      if (b.source != Source::step || b.parent >= 0 || b.output >= 0 || b.variable >= 0) continue;
      b.extent = int32_t(extents.size());
      extents.push_back({b.bytes, b.span, 0});
    }
    workspace_.assign(f_.nodes.size(), -1);
    for (size_t i = 0; i < f_.nodes.size(); i++)
      if (memory_[i].workspace) {
        workspace_[i] = int32_t(extents.size());
        extents.push_back({memory_[i].workspace, spans_[i], 0});
      }
    plan_.arena_bytes = assign_offsets(extents);
    for (Buffer& b : buffers_)
      if (b.extent >= 0) b.offset = extents[size_t(b.extent)].offset;
    for (int32_t& w : workspace_)
      if (w >= 0) w = int32_t(extents[size_t(w)].offset / arena_alignment);
  }

  Place place_of_buffer(int32_t index) const {
    if (index < 0) return {};
    const Buffer& b = buffers_[size_t(find(index))];
    if (b.variable >= 0) return {plan_.bases.variables + b.variable, 0};
    if (b.output >= 0) return {plan_.bases.outputs + b.output, 0};
    switch (b.source) {
      case Source::input: return {plan_.bases.inputs + b.index, 0};
      case Source::variable: return {plan_.bases.variables + b.index, 0};
      case Source::constant: return {plan_.bases.constants + b.index, 0};
      case Source::prepared: return {plan_.bases.prepared + b.index, 0};
      case Source::step: break;
    }
    return {arena_base, b.offset};
  }
  Place place_of(ValueId v) const {
    if (v == no_value) return {};
    Place p = place_of_buffer(buffer_[size_t(v)]);
    if (in_slice(v)) p.offset += size_t(slices_.at[size_t(v)].offset) * size_of(f_.types[size_t(v)].dtype);
    return p;
  }

  /// Where the commit finds a value: not in a variable, which it may have overwritten.
  Place staged_place(ValueId v) const {
    auto staged = staged_.find(v);
    return staged != staged_.end() ? place_of_buffer(staged->second) : place_of(v);
  }

  // --- steps ---
  void add_view(View view, Place at) {
    plan_.views.push_back(view);
    plan_.places.push_back(at);
  }
  void add_view(ValueId v) {
    View view = v == no_value ? View{} : view_of(f_.types[size_t(v)]);
    if (v != no_value && in_slice(v)) view.ld = slices_.at[size_t(v)].ld;
    add_view(view, place_of(v));
  }

  Step step_of(size_t i) {
    const Node& n = f_.nodes[i];
    Step s;
    s.kind = scan_of_[i] >= 0 ? Step::Kind::scan : Step::Kind::op;
    s.op = n.op;
    s.source = int32_t(i);
    s.attrs = n.attrs.get();
    s.first_view = int32_t(plan_.views.size());
    s.inputs = int32_t(n.inputs.size());
    s.outputs = int32_t(n.outputs.size());
    for (ValueId v : n.inputs) add_view(v);
    for (ValueId v : n.outputs) add_view(v);
    s.scan = scan_of_[i];
    s.checks = s.scan >= 0 ? plan_.scans[size_t(s.scan)].body->checks : n.op->checks;
    if (n.op->checks) {
      s.node = int32_t(plan_.names->size());
      plan_.names->push_back(place(n));
    }
    if (workspace_[i] >= 0) s.workspace = {arena_base, size_t(workspace_[i]) * arena_alignment};
    s.workspace_bytes = memory_[i].workspace;
    s.scratch_bytes = aligned(memory_[i].scratch);
    plan_.scratch_bytes = std::max(plan_.scratch_bytes, s.scratch_bytes);
    return s;
  }

  Step copy_step(Place from, Place to, ValueId v) {
    Step s;
    s.kind = Step::Kind::copy;
    s.first_view = int32_t(plan_.views.size());
    s.inputs = s.outputs = 1;
    View view = view_of(f_.types[size_t(v)]);
    add_view(view, from);
    add_view(view, to);
    s.copy_bytes = size_t(view.bytes());
    return s;
  }

  void emit() {
    double since_poll = 0;
    for (size_t i : main_) {
      Step s = step_of(i);
      s.poll = since_poll >= poll_ns;
      if (s.poll) since_poll = 0;
      since_poll += work_[i];
      plan_.work_ns += work_[i];
      s.together = together_[i];
      s.work_ns = float(work_[i]);
      s.units = int32_t(std::min(units_[i], int64_t(INT_MAX)));
      s.lane = lane_[i];
      s.mark = mark_[i];
      s.first_wait = int32_t(plan_.waits.size());
      s.waits = int32_t(waits_[i].size());
      plan_.waits.insert(plan_.waits.end(), waits_[i].begin(), waits_[i].end());
      plan_.checks |= s.checks;
      plan_.steps.push_back(s);
    }
    for (const Copy& c : copies_) {
      // A wanted buffer may have been placed in the very output it was to be copied to.
      Place to = c.output >= 0 ? Place{plan_.bases.outputs + c.output, 0} : place_of_buffer(c.to);
      Place from = place_of_buffer(c.from);
      if (from.base != to.base || from.offset != to.offset) plan_.steps.push_back(copy_step(from, to, c.value));
    }
    plan_.guard = place_of(f_.guard);
    for (const Update& u : updates_) {
      Commit c{step_of(u.node), staged_place(u.when), {}};
      for (auto [o, variable] : u.in_place) c.variables.push_back(variable);
      plan_.commits.push_back(std::move(c));
    }
    for (const Store& s : f_.stores) {
      Place to{plan_.bases.variables + s.variable, 0};
      if (is_variable(s.value, s.variable)) continue;  // its own old value
      Place from = staged_place(s.value);
      if (from.base == to.base) continue;  // written in place
      plan_.commits.push_back({copy_step(from, to, s.value), staged_place(s.when), {s.variable}});
    }
  }

  const Module& m_;
  const Function& f_;
  bool on_cuda_;
  const Hoist& hoist_;
  Slices slices_;
  Plan plan_;
  std::vector<Buffer> buffers_;
  std::vector<int32_t> buffer_;           // by value; -1: an output nobody reads
  std::vector<int32_t> variable_buffer_;  // by variable
  std::vector<int> uses_;                 // by value
  std::vector<Update> updates_;
  std::vector<size_t> main_;
  std::vector<int32_t> position_, workspace_, scan_of_;  // by node
  std::vector<Memory> memory_;
  std::vector<double> work_;
  std::vector<int64_t> units_;
  std::vector<int32_t> together_;            // at the first step of a group: how many they are; else 1
  std::set<size_t> grouped_;                 // nodes whose step is in a group
  std::vector<Span> spans_;                  // by node
  std::vector<int32_t> lane_, mark_;         // by node
  std::vector<std::vector<int32_t>> waits_;  // by node
  std::vector<Copy> copies_;
  std::map<ValueId, int32_t> staged_;  // value that stands in a variable -> buffer with a copy of it
};

void dump(const Plan& plan, std::string& out, const std::string& indent) {
  auto place_text = [&](Place p) -> std::string {
    const Bases& b = plan.bases;
    if (p.base == 0) return "_";
    if (p.base == arena_base) return "arena+" + std::to_string(p.offset);
    std::string at = p.offset ? "+" + std::to_string(p.offset) : "";
    if (p.base < b.outputs) return "input" + std::to_string(p.base - b.inputs) + at;
    if (p.base < b.variables) return "output" + std::to_string(p.base - b.outputs) + at;
    if (p.base < b.constants) return "variable" + std::to_string(p.base - b.variables);
    if (p.base < b.prepared) return "constant" + std::to_string(p.base - b.constants);
    return "prepared" + std::to_string(p.base - b.prepared);
  };
  auto line = [&](const Step& s) {
    std::string t = s.kind == Step::Kind::copy ? "copy" : s.op->name;
    t += "(";
    for (int32_t i = 0; i < s.inputs; i++) t += (i ? ", " : "") + place_text(plan.places[size_t(s.first_view + i)]);
    t += ") -> ";
    for (int32_t i = 0; i < s.outputs; i++) t += (i ? ", " : "") + place_text(plan.places[size_t(s.first_view + s.inputs + i)]);
    if (s.workspace.base) t += "  workspace " + place_text(s.workspace);
    return t;
  };
  for (const Step& s : plan.steps) {
    out += indent + line(s) + (s.together > 1 ? "  with the next " + std::to_string(s.together - 1) : "");
    if (s.scan >= 0 && plan.scans[size_t(s.scan)].at_once > 1) out += "  all at once";
    if (s.lane) out += "  lane " + std::to_string(s.lane);
    for (int32_t i = 0; i < s.waits; i++) out += "  after " + std::to_string(plan.waits[size_t(s.first_wait + i)]);
    if (s.mark >= 0) out += "  mark " + std::to_string(s.mark);
    out += "\n";
    if (s.scan >= 0) dump(*plan.scans[size_t(s.scan)].body, out, indent + "  ");
  }
  if (!plan.commits.empty()) out += indent + "commit" + (plan.guard.base ? " if " + place_text(plan.guard) : "") + "\n";
  for (const Commit& c : plan.commits)
    out += indent + "  " + line(c.step) + (c.when.base ? " when " + place_text(c.when) : "") + "\n";
}

}  // namespace

View view_of(const TensorType& type) {
  if (type.rank() > max_rank)
    fail(ErrorKind::shape, "a tensor may have at most ", max_rank, " axes, got shape ", dagrt::text(type.shape));
  View v;
  v.dtype = type.dtype;
  v.rank = type.rank();
  for (int i = 0; i < v.rank; i++) v.dims[i] = type.shape[size_t(i)].value();
  v.ld = v.rank ? v.dims[v.rank - 1] : 1;
  return v;
}

Plan build_plan(const Module& module, const Hoist& hoist, bool on_cuda) {
  auto plan = [&](int lanes) {
    return Planner(module, module.functions.front(), std::make_shared<std::vector<std::string>>(), on_cuda, lanes, hoist).build();
  };
  if (!on_cuda) return plan(1);
  Plan apart = plan(most_lanes);
  if (apart.arena_bytes > small_arena) {
    Plan one = plan(1);
    if (double(apart.arena_bytes) > lane_memory * double(one.arena_bytes)) return one;
  }
  int32_t used = 0;
  for (const Step& s : apart.steps) used = std::max(used, s.lane);
  apart.lanes = used + 1;
  return apart;
}

std::string place(const Plan& plan, const Step& step) {
  return step.source < 0 ? "a copy" : place(plan.function->nodes[size_t(step.source)]);
}

std::string text(const Plan& plan) {
  std::string out = "plan: arena " + std::to_string(plan.arena_bytes) + " bytes, scratch " + std::to_string(plan.scratch_bytes) +
                    " bytes for each thread\n";
  dump(plan, out, "  ");
  return out;
}

}  // namespace dagrt
