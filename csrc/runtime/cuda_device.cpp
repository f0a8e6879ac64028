// CUDA devices. A program's run is recorded once as a CUDA graph (steps, then commit under its gates) and launched again as
// a whole: one call of the driver for each run. Lanes of the plan are streams while it is recorded, marks are events: branches of
// the graph, which the GPU runs at the same time. Host memory passes through copies before and after the graph, so that what is
// recorded names the arena alone.
//
// The driver is looked for when a device is first asked for: importing costs nothing, and a machine without one has none.
#include "runtime/cuda_device.h"

#include <cuda_runtime_api.h>

#include <deque>

#include "base/cuda_stream.h"
#include "base/error.h"

namespace dagrt {

namespace {

void check(cudaError_t e, const char* what, const char* device) {
  if (e == cudaSuccess) return;
  cudaGetLastError();  // errors that do not end the context are forgotten
  const std::string text = std::string(device) + ": " + what + " failed: " + cudaGetErrorString(e);
  if (e == cudaErrorMemoryAllocation) throw DeviceMemoryError(text);
  throw Error(ErrorKind::device, text);
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

  void* allocate(size_t bytes) override {
    use();
    void* p = nullptr;
    if (cudaMalloc(&p, bytes) == cudaSuccess) return p;
    cudaGetLastError();
    return nullptr;
  }
  void release(void* p, size_t) override {
    use();
    cudaFree(p);
  }
  void* allocate_host(size_t bytes) override {
    use();
    void* p = nullptr;
    if (cudaMallocHost(&p, bytes) == cudaSuccess) return p;
    cudaGetLastError();
    return nullptr;
  }
  void release_host(void* p) override {
    use();
    cudaFreeHost(p);
  }
  size_t available(const char** why) const override {
    use();
    *why = name();
    size_t left = 0, all = 0;
    check(cudaMemGetInfo(&left, &all), "asking for free memory", name());
    return left;
  }
  std::unique_ptr<Queue> queue() override { return std::make_unique<Recorder>(*this); }

 private:
  void use() const { check(cudaSetDevice(index_), "choosing the device", name()); }

  class Recorder final : public Queue, Recording {
   public:
    explicit Recorder(Cuda& d) : device_(d) {
      d.use();
      check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream", d.name());
    }
    ~Recorder() override {
      cudaSetDevice(device_.index_);
      forget();
      for (const CudaStream& l : lanes_)
        if (l.handle != stream_) cudaStreamDestroy(l.handle);
      for (cudaEvent_t e : events_)
        if (e) cudaEventDestroy(e);
      cudaStreamDestroy(stream_);
      for (cudaStream_t s : {beside_, ways_[0], ways_[1]})
        if (s) cudaStreamDestroy(s);
      for (cudaEvent_t e : flags_)
        if (e) cudaEventDestroy(e);
    }
    void copy_in(void* to, const void* from, size_t bytes) override {
      device_.use();
      if (bytes) check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "a copy to the device", device_.name());
    }
    void copy_out(void* to, const void* from, size_t bytes) override {
      device_.use();
      if (bytes)
        check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), "a copy from the device", device_.name());
    }
    void run(std::function<void()>) override { fail(ErrorKind::internal, "work of the host on a CUDA device"); }
    void wait() override { check(cudaStreamSynchronize(stream_), "a run", device_.name()); }
    bool done() override { return cudaStreamQuery(stream_) != cudaErrorNotReady; }  // errors are `wait`'s to raise
    void write_beside(void* to, int32_t value) override {
      device_.use();
      if (!beside_) check(cudaStreamCreateWithFlags(&beside_, cudaStreamNonBlocking), "making a stream", device_.name());
      check(cudaMemcpyAsync(to, &value, sizeof value, cudaMemcpyHostToDevice, beside_), "a copy to the device", device_.name());
      check(cudaStreamSynchronize(beside_), "a copy to the device", device_.name());
    }

    void move(Way way, void* to, const void* from, size_t bytes) override {
      device_.use();
      if (bytes) check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_of(way)), "a copy", device_.name());
    }
    void set_flag(Way way, int flag) override {
      if (flags_.size() <= size_t(flag)) flags_.resize(size_t(flag) + 1);
      record_event(flags_[size_t(flag)], stream_of(way));
    }
    void await_flag(Way way, int flag) override { await_event(stream_of(way), flags_[size_t(flag)]); }
    bool reached(int flag) override { return cudaEventQuery(flags_[size_t(flag)]) != cudaErrorNotReady; }
    void wait_for(int flag) override { check(cudaEventSynchronize(flags_[size_t(flag)]), "a run", device_.name()); }

    void replay(const void* key, const std::function<void(Recording&)>& record) override {
      device_.use();
      if (!graph_ || key != key_) {
        forget();
        check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "recording a run", device_.name());
        cudaGraph_t graph = nullptr;
        for (CudaStream& l : lanes_) l.gate = {}, l.refused = l.reason = nullptr;
        try {
          record(*this);
        } catch (...) {
          if (cudaStreamEndCapture(stream_, &graph) == cudaSuccess && graph) cudaGraphDestroy(graph);
          cudaStreamSynchronize(stream_);  // the inputs' copies: the arena goes back to its pool
          cudaGetLastError();
          throw;
        }
        check(cudaStreamEndCapture(stream_, &graph), "recording a run", device_.name());
        cudaError_t e = cudaGraphInstantiate(&graph_, graph, 0);
        cudaGraphDestroy(graph);
        check(e, "making a graph of a run", device_.name());
        key_ = key;
      }
      check(cudaGraphLaunch(graph_, stream_), "starting a run", device_.name());
    }

    CudaStream& lane(int32_t i) override {
      while (lanes_.size() <= size_t(i)) {
        CudaStream s;
        s.handle = stream_;
        s.multiprocessors = device_.multiprocessors_;
        s.shared_bytes = device_.shared_bytes_;
        s.capability = device_.capability_;
        if (!lanes_.empty())
          check(cudaStreamCreateWithFlags(&s.handle, cudaStreamNonBlocking), "making a stream", device_.name());
        lanes_.push_back(s);
      }
      return lanes_[size_t(i)];
    }
    void mark(int32_t l, int32_t number) override {
      if (events_.size() <= size_t(number)) events_.resize(size_t(number) + 1);
      record_event(events_[size_t(number)], lane(l).handle);
    }
    void await(int32_t l, int32_t number) override { await_event(lane(l).handle, events_[size_t(number)]); }

   private:
    void forget() {
      if (graph_) cudaGraphExecDestroy(graph_);
      graph_ = nullptr;
    }
    cudaStream_t stream_of(Way way) {
      if (way == Way::steps) return stream_;
      cudaStream_t& s = ways_[way == Way::out];
      if (!s) check(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "making a stream", device_.name());
      return s;
    }
    void record_event(cudaEvent_t& e, cudaStream_t s) {
      if (!e) check(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), "making an event", device_.name());
      check(cudaEventRecord(e, s), "recording an event", device_.name());
    }
    void await_event(cudaStream_t s, cudaEvent_t e) {
      check(cudaStreamWaitEvent(s, e, 0), "waiting for an event", device_.name());
    }
    Cuda& device_;
    cudaStream_t stream_ = nullptr, beside_ = nullptr;
    std::deque<CudaStream> lanes_;  // the first is stream_
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
};

const char* reason = "";

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
      if (cudaGetDeviceProperties(&p, i) == cudaSuccess) list->push_back(new Cuda(i, p));
    }
    return list;
  }();
  return *all;
}

bool cuda_in_build() { return true; }
const char* why_no_cuda_device() { return *reason ? reason : "the driver lists none"; }

}  // namespace dagrt
