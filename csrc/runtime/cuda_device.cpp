// CUDA devices. A program's run is recorded once as a CUDA graph (steps, then commit under its gates) and launched again as
// a whole: one call of the driver for each run. Lanes of the plan are streams while it is recorded, marks are events: branches of
// the graph, which the GPU runs at the same time. Host memory passes through copies before and after the graph, so that what is
// recorded names the arena alone.
//
// A kernel that begins leaves its number in the host's memory, one word for each lane, which outlives the driver's context: so a
// run that failed names the kernel and the node, though it was a graph's. DAGRT_CUDA_SYNC=1 records nothing and waits behind every
// kernel, for faults that show elsewhere. A profile records nothing either: its steps run one after another between two events.
//
// Runs of several threads go to the device side by side, unless both hold cooperative launches: those come one after another.
//
// The driver is looked for when a device is first asked for: importing costs nothing, and a machine without one has none.
#include "runtime/cuda_device.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <iterator>
#include <mutex>

#include "base/cuda_stream.h"
#include "base/error.h"
#include "runtime/executor.h"
#include "runtime/offsets.h"

namespace dagrt {

namespace {

/// Whether the error ends the driver's context: whatever is called afterwards says it again (driver_types.h). No call is tried to
/// find out: in a recording it would be refused, and would end that.
bool ends_context(cudaError_t e) {
  switch (e) {
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorContextIsDestroyed:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorMpsClientTerminated:
    case cudaErrorExternalDevice: return true;
    default: return false;
  }
}

/// Whether work is under way. That answer counts as an error too, for whoever asks for the thread's last one: it is taken back.
bool not_ready(cudaError_t e) {
  if (e != cudaErrorNotReady) return false;
  cudaGetLastError();
  return true;
}

class Cuda final : public Device {
 public:
  Cuda(int index, const cudaDeviceProp& p)
      : index_(index),
        name_("cuda:" + std::to_string(index)),
        multiprocessors_(p.multiProcessorCount),
        shared_bytes_(p.sharedMemPerBlockOptin),
        capability_(p.major * 10 + p.minor) {}

  const char* name() const override { return name_.c_str(); }
  bool is_host() const override { return false; }
  bool records() const override { return true; }
  bool multiplies_bf16() const override { return capability_ >= 80; }

  void* allocate(size_t bytes) override {
    const Here here(*this);
    void* p = nullptr;
    if (cudaMalloc(&p, bytes) == cudaSuccess) return p;
    cudaGetLastError();
    return nullptr;
  }
  void release(void* p, size_t) override {  // destructors call it, of a device that failed too
    const Here here(*this, false);
    cudaFree(p);
  }
  void* allocate_host(size_t bytes) override {
    const Here here(*this);
    void* p = nullptr;
    if (cudaMallocHost(&p, bytes) == cudaSuccess) return p;
    cudaGetLastError();
    return nullptr;
  }
  void release_host(void* p) override {
    const Here here(*this, false);
    cudaFreeHost(p);
  }
  size_t available(const char** why) const override {
    const Here here(*this);
    *why = name();
    size_t left = 0, all = 0;
    check(cudaMemGetInfo(&left, &all), "asking for free memory");
    return left;
  }
  std::unique_ptr<Queue> queue() override { return std::make_unique<Recorder>(*this); }

 private:
  /// Makes the device the thread's current one for as long as it lives: a caller's (that of torch's kernels) comes back behind it. To
  /// choose one may make a context there: where it is current already nothing is called.
  class Here {
   public:
    explicit Here(const Cuda& d, bool must = true) {
      if (cudaGetDevice(&before_) == cudaSuccess && before_ == d.index_) return;
      const cudaError_t e = cudaSetDevice(d.index_);
      changed_ = e == cudaSuccess;
      if (must) d.check(e, "choosing the device");
    }
    ~Here() {
      if (changed_) cudaSetDevice(before_);
    }
    Here(const Here&) = delete;

   private:
    int before_ = 0;
    bool changed_ = false;
  };

  /// `where`: the kernels that may have failed, if it ended the context. What comes behind that says it again.
  void check(cudaError_t e, const char* what, const std::string& where = "") const {
    if (e == cudaSuccess) return;
    std::lock_guard<std::mutex> lock(lost_mutex_);
    cudaGetLastError();  // errors that do not end the context are forgotten
    const bool before = !lost_.empty();
    if (!before && ends_context(e)) lost_ = std::string(cudaGetErrorString(e)) + where;
    if (!lost_.empty())
      fail(ErrorKind::device, name_, before ? ": an earlier run failed: " : ": a run failed: ", lost_,
           "; this process cannot use ", name_,
           " any more: start it again, with DAGRT_CUDA_SYNC=1 to be told of the first fault");
    const std::string text = name_ + ": " + what + " failed: " + cudaGetErrorString(e);
    if (e == cudaErrorMemoryAllocation) throw DeviceMemoryError(text);
    throw Error(ErrorKind::device, text + where);
  }

  class Recorder final : public Queue, Recording, LaunchWatch {
   public:
    explicit Recorder(Cuda& d) : device_(d) {
      const Here here(d);
      d.check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
      streams_.push_back(stream_);
      const char* sync = std::getenv("DAGRT_CUDA_SYNC");
      waits_ = sync && *sync && *sync != '0';
    }
    ~Recorder() override {
      const Here here(device_, false);
      forget();
      for (cudaStream_t s : streams_) cudaStreamDestroy(s);
      for (cudaEvent_t e : events_)
        if (e) cudaEventDestroy(e);
      for (cudaEvent_t e : stamps_) cudaEventDestroy(e);
      if (together_) cudaEventDestroy(together_);
      if (begun_) cudaFreeHost(begun_);
      for (cudaStream_t s : {beside_, ways_[0], ways_[1]})
        if (s) cudaStreamDestroy(s);
      for (cudaEvent_t e : flags_)
        if (e) cudaEventDestroy(e);
    }
    void copy_in(void* to, const void* from, size_t bytes) override {
      const Here here(device_);
      if (bytes) check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "a copy to the device");
    }
    void copy_out(void* to, const void* from, size_t bytes) override {
      const Here here(device_);
      if (bytes) check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), "a copy from the device");
    }
    void run(std::function<void()>) override { fail(ErrorKind::internal, "work of the host on a CUDA device"); }
    void wait() override { check(cudaStreamSynchronize(stream_), "a run"); }
    void abandon() noexcept override {
      for (cudaStream_t s : {stream_, ways_[0], ways_[1], beside_})
        if (s) cudaStreamSynchronize(s);
      cudaGetLastError();
    }
    bool done() override { return !not_ready(cudaStreamQuery(stream_)); }  // errors are `wait`'s to raise
    void write_beside(void* to, int32_t value) override {
      const Here here(device_);
      if (!beside_) check(cudaStreamCreateWithFlags(&beside_, cudaStreamNonBlocking), "making a stream");
      check(cudaMemcpyAsync(to, &value, sizeof value, cudaMemcpyHostToDevice, beside_), "a copy to the device");
      check(cudaStreamSynchronize(beside_), "a copy to the device");
    }

    void move(Way way, void* to, const void* from, size_t bytes) override {
      const Here here(device_);
      if (bytes) check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_of(way)), "a copy");
    }
    void set_flag(Way way, int flag) override {
      const Here here(device_);
      if (flags_.size() <= size_t(flag)) flags_.resize(size_t(flag) + 1);
      record_event(flags_[size_t(flag)], stream_of(way));
    }
    void await_flag(Way way, int flag) override { await_event(stream_of(way), flags_[size_t(flag)]); }
    bool reached(int flag) override { return !not_ready(cudaEventQuery(flags_[size_t(flag)])); }
    void wait_for(int flag) override { check(cudaEventSynchronize(flags_[size_t(flag)]), "a run"); }

    void replay(const void* key, const std::function<void(Recording&)>& record) override {
      if (waits_) return perform(record);
      const Here here(device_);
      try {
        if (!graph_ || key != key_) record_graph(key, record);
        launch_graph();
      } catch (...) {
        abandon();  // the arena goes back to its pool, and copies of inputs may still be on their way there
        throw;
      }
    }

    void perform(const std::function<void(Recording&)>& steps) override {
      const Here here(device_);
      std::lock_guard<std::mutex> lock(device_.together_mutex_);  // any of the steps may be such a launch
      try {
        forget();
        begin();
        behind_others_together();
        one_by_one_ = true;
        stamped_ = 0;
        steps(*this);
        one_by_one_ = false;
        wait();
      } catch (...) {
        one_by_one_ = false;
        abandon();
        throw;
      }
    }
    int64_t stamp() override {
      if (stamps_.size() == stamped_) {
        cudaEvent_t e = nullptr;
        check(cudaEventCreateWithFlags(&e, cudaEventDefault), "making an event");
        stamps_.push_back(e);
      }
      check(cudaEventRecord(stamps_[stamped_], stream_), "recording an event");
      return int64_t(stamped_++);
    }
    std::vector<int64_t> times() override {
      std::vector<int64_t> ns;
      for (size_t i = 0; i < stamped_; i++) {
        float ms = 0;
        check(cudaEventElapsedTime(&ms, stamps_[0], stamps_[i]), "reading an event");
        ns.push_back(int64_t(double(ms) * 1e6));
      }
      return ns;
    }

    CudaStream& lane(int32_t i) override {
      while (lanes_.size() <= size_t(i)) {
        CudaStream s;
        s.handle = one_by_one_ ? stream_ : streams_[lanes_.size()];
        s.watch = this;
        s.multiprocessors = device_.multiprocessors_;
        s.shared_bytes = device_.shared_bytes_;
        s.capability = device_.capability_;
        lanes_.push_back(s);
      }
      return lanes_[size_t(i)];
    }
    void mark(int32_t l, int32_t number) override {
      if (one_by_one_) return;
      if (events_.size() <= size_t(number)) events_.resize(size_t(number) + 1);
      record_event(events_[size_t(number)], lane(l).handle);
    }
    void await(int32_t l, int32_t number) override {
      if (!one_by_one_) await_event(lane(l).handle, events_[size_t(number)]);
    }
    void at(const Plan& plan, const Step& step) override { plan_ = &plan, step_ = &step; }

    void before(CudaStream& s, const char* kernel, bool together) override {
      launches_.push_back({kernel, plan_, step_});
      size_t l = 0;
      while (&lanes_[l] != &s) l++;
      s.gate.begun = begun_ ? begun_ + l : nullptr;
      s.gate.number = int32_t(launches_.size());
      // Blocks of both may wait for blocks that find no room, were they to run at the same time.
      if (together && last_together_ && last_together_ != &s) await_event(s.handle, together_);
    }
    void after(CudaStream& s, const char*, bool together) override {
      if (together && !one_by_one_) {
        record_event(together_, s.handle);
        last_together_ = &s;
      }
      if (!waits_) return;
      device_.check(cudaStreamSynchronize(s.handle), "a run", "; in " + name_of(launches_.back()));
    }

   private:
    struct Launched {
      const char* kernel;
      const Plan* plan;
      const Step* step;
    };
    static std::string name_of(const Launched& l) {
      return std::string(l.kernel) + (l.step ? " of " + place(*l.plan, *l.step) : "");
    }
    /// Kernels of one lane begin one after another, so that of each lane it can only have been the last.
    std::string last_begun() const {
      std::string where;
      for (size_t l = 0; l < lanes_.size() && begun_; l++) {
        const int32_t number = const_cast<volatile int32_t*>(begun_)[l];
        if (number > 0 && size_t(number) <= launches_.size())
          where += (where.empty() ? "; the last to begin: " : ", or ") + name_of(launches_[size_t(number) - 1]);
      }
      return where;
    }
    /// Every call may be the first to hear of a kernel's fault.
    void check(cudaError_t e, const char* what) const {
      if (e != cudaSuccess) device_.check(e, what, e == cudaErrorMemoryAllocation ? "" : last_begun());
    }
    /// Runs whose launches have blocks that wait for each other come one after another, like such launches of one run.
    void behind_others_together() {
      if (device_.together_) await_event(stream_, device_.together_);
    }
    /// What is made while a run is recorded would have to be of the few things that may.
    void begin() {
      lanes_.clear();
      launches_.clear();
      last_together_ = nullptr;
      plan_ = nullptr, step_ = nullptr;
      if (!begun_) begun_ = static_cast<int32_t*>(device_.allocate_host(most_lanes * sizeof(int32_t)));
      if (begun_) std::fill(begun_, begun_ + most_lanes, 0);
      while (streams_.size() < most_lanes) {
        cudaStream_t made = nullptr;
        check(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), "making a stream");
        streams_.push_back(made);
      }
    }
    void record_graph(const void* key, const std::function<void(Recording&)>& record) {
      forget();
      begin();
      check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "recording a run");
      cudaGraph_t graph = nullptr;
      try {
        record(*this);
      } catch (...) {
        if (cudaStreamEndCapture(stream_, &graph) == cudaSuccess && graph) cudaGraphDestroy(graph);
        throw;
      }
      check(cudaStreamEndCapture(stream_, &graph), "recording a run");
      cudaGraphExec_t made = nullptr;
      const cudaError_t e = cudaGraphInstantiate(&made, graph, 0);
      cudaGraphDestroy(graph);
      check(e, "making a graph of a run");
      graph_ = made, key_ = key;
    }
    void launch_graph() {
      if (!last_together_) return check(cudaGraphLaunch(graph_, stream_), "starting a run");
      std::lock_guard<std::mutex> lock(device_.together_mutex_);
      behind_others_together();
      check(cudaGraphLaunch(graph_, stream_), "starting a run");
      record_event(device_.together_, stream_);
    }
    void forget() {
      if (graph_) cudaGraphExecDestroy(graph_);
      graph_ = nullptr;
    }
    cudaStream_t stream_of(Way way) {
      if (way == Way::steps) return stream_;
      cudaStream_t& s = ways_[way == Way::out];
      if (!s) check(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "making a stream");
      return s;
    }
    void record_event(cudaEvent_t& e, cudaStream_t s) {
      if (!e) check(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), "making an event");
      check(cudaEventRecord(e, s), "recording an event");
    }
    void await_event(cudaStream_t s, cudaEvent_t e) { check(cudaStreamWaitEvent(s, e, 0), "waiting for an event"); }
    Cuda& device_;
    cudaStream_t stream_ = nullptr, beside_ = nullptr;
    std::vector<cudaStream_t> streams_;  // of lanes: the first is stream_
    std::deque<CudaStream> lanes_;       // of what is recorded
    std::vector<Launched> launches_;     // likewise
    const Plan* plan_ = nullptr;
    const Step* step_ = nullptr;
    int32_t* begun_ = nullptr;  // by lane: the number of the launch that began last, from 1
    bool waits_ = false, one_by_one_ = false;
    cudaEvent_t together_ = nullptr;  // behind the last launch whose blocks wait for each other
    const CudaStream* last_together_ = nullptr;
    std::vector<cudaEvent_t> stamps_;
    size_t stamped_ = 0;
    std::vector<cudaEvent_t> events_;
    cudaStream_t ways_[2] = {};  // in, out
    std::vector<cudaEvent_t> flags_;
    cudaGraphExec_t graph_ = nullptr;
    const void* key_ = nullptr;
  };

  int index_;
  std::string name_;
  int multiprocessors_;
  size_t shared_bytes_;
  int capability_;
  std::mutex together_mutex_;
  cudaEvent_t together_ = nullptr;  // behind the last run, of any thread, with launches whose blocks wait for each other
  mutable std::mutex lost_mutex_;
  mutable std::string lost_;  // what ended the driver's context
};

/// Generations that this build has code for; the last and 100 as PTX too, which newer ones compile for themselves (cmake/cuda.cmake).
constexpr int generations[] = {DAGRT_CUDA_ARCHS};

bool has_code_for(int capability) {
  for (int g : generations) {
    const bool ptx = g == 100 || g == generations[std::size(generations) - 1];
    if (g <= capability && (ptx || g / 10 == capability / 10)) return true;
  }
  return false;
}

std::string without_code(const std::string& device, int capability) {
  std::string have;
  for (int g : generations) have += (have.empty() ? "" : ", ") + std::to_string(g);
  return device + " is of generation " + std::to_string(capability) +
         ", for which this build has no code: DAGRT_CUDA_ARCHS was " + have;
}

std::string reason;

}  // namespace

const std::vector<Device*>& cuda_devices() {
  static const std::vector<Device*>* all = [] {  // never destroyed: variables of static objects may live on them
    auto* list = new std::vector<Device*>;
    int count = 0;
    if (cudaError_t e = cudaGetDeviceCount(&count); e != cudaSuccess) {
      reason = cudaGetErrorString(e);
      cudaGetLastError();
      count = 0;
    }
    for (int i = 0; i < count; i++) {
      cudaDeviceProp p{};
      if (cudaGetDeviceProperties(&p, i) != cudaSuccess) continue;
      if (const int capability = p.major * 10 + p.minor; has_code_for(capability))
        list->push_back(new Cuda(i, p));
      else
        reason += (reason.empty() ? "" : "; ") + without_code("cuda:" + std::to_string(i), capability);
    }
    return list;
  }();
  return *all;
}

bool cuda_in_build() { return true; }
const char* why_no_cuda_device() { return reason.empty() ? "the driver lists none" : reason.c_str(); }

}  // namespace dagrt
