// Streams, events and graphs of the emulator: what is not waited for is not done, or not in that order; what is, always.
#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include <vector>

namespace {

constexpr size_t bytes = 64;

struct Bytes {  // of the device; poisoned
  Bytes() { REQUIRE(cudaMalloc(&p, bytes) == cudaSuccess); }
  ~Bytes() { cudaFree(p); }
  int first() const { return *static_cast<unsigned char*>(p); }
  void* p = nullptr;
};

struct Streams {
  Streams() {
    for (cudaStream_t& s : all) REQUIRE(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking) == cudaSuccess);
    for (cudaEvent_t& e : events) REQUIRE(cudaEventCreateWithFlags(&e, cudaEventDisableTiming) == cudaSuccess);
  }
  ~Streams() {
    for (cudaStream_t s : all) cudaStreamDestroy(s);
    for (cudaEvent_t e : events) cudaEventDestroy(e);
  }
  void put(int stream, Bytes& to, int value) {
    const std::vector<unsigned char> values(bytes, static_cast<unsigned char>(value));
    REQUIRE(cudaMemcpyAsync(to.p, values.data(), bytes, cudaMemcpyHostToDevice, all[stream]) == cudaSuccess);
  }
  void copy(int stream, Bytes& to, const Bytes& from) {
    REQUIRE(cudaMemcpyAsync(to.p, from.p, bytes, cudaMemcpyDeviceToDevice, all[stream]) == cudaSuccess);
  }
  void mark(int stream, int event) { REQUIRE(cudaEventRecord(events[event], all[stream]) == cudaSuccess); }
  void await(int stream, int event) { REQUIRE(cudaStreamWaitEvent(all[stream], events[event], 0) == cudaSuccess); }
  cudaStream_t all[3];
  cudaEvent_t events[3];
};

}  // namespace

TEST_CASE("a stream does nothing until it, or an event behind its work, is waited for") {
  Streams s;
  Bytes a, b, c;
  s.put(0, a, 1);
  s.mark(0, 0);
  s.put(0, b, 2);
  CHECK(a.first() == 0xFF);
  CHECK(cudaEventSynchronize(s.events[0]) == cudaSuccess);
  CHECK(a.first() == 1);
  CHECK(b.first() == 0xFF);
  s.copy(1, c, b);  // nobody said that it comes behind b
  CHECK(cudaStreamSynchronize(s.all[1]) == cudaSuccess);
  CHECK(c.first() == 0xFF);
  s.mark(0, 1);
  s.await(1, 1);
  s.copy(1, c, b);
  CHECK(cudaStreamSynchronize(s.all[1]) == cudaSuccess);
  CHECK(c.first() == 2);
}

TEST_CASE("a graph's branches run in any order that its events allow, another one each time") {
  for (bool joined : {true, false}) {
    Streams s;
    Bytes x, left, right, sum;
    REQUIRE(cudaStreamBeginCapture(s.all[0], cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    s.put(0, x, 3);
    s.mark(0, 0);
    s.await(1, 0);
    s.copy(0, left, x);
    s.copy(1, right, x);
    s.mark(1, 1);
    if (joined) s.await(0, 1);
    s.copy(0, sum, right);
    if (!joined) s.await(0, 1);  // too late for the copy, in time for the capture's end
    cudaGraph_t graph;
    REQUIRE(cudaStreamEndCapture(s.all[0], &graph) == cudaSuccess);
    cudaGraphExec_t run;
    REQUIRE(cudaGraphInstantiate(&run, graph, 0) == cudaSuccess);
    cudaGraphDestroy(graph);
    int wrong = 0;
    for (int launch = 0; launch < 40; launch++) {
      s.put(0, right, 9);
      REQUIRE(cudaGraphLaunch(run, s.all[0]) == cudaSuccess);
      REQUIRE(cudaStreamSynchronize(s.all[0]) == cudaSuccess);
      CHECK(left.first() == 3);
      CHECK(right.first() == 3);
      wrong += sum.first() != 3;
    }
    CHECK((wrong == 0) == joined);
    cudaGraphExecDestroy(run);
  }
}

void nothing_kernel(int) {}

cudaError_t launch_cooperative(cudaStream_t stream) {
  cudaLaunchAttribute together{};
  together.id = cudaLaunchAttributeCooperative;
  together.val.cooperative = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = config.blockDim = {1, 1, 1};
  config.stream = stream;
  config.attrs = &together;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, nothing_kernel, 0);
}

TEST_CASE("cooperative launches of one graph must be ordered") {
  for (bool ordered : {true, false}) {
    Streams s;
    auto launch = [&](int stream) { REQUIRE(launch_cooperative(s.all[stream]) == cudaSuccess); };
    REQUIRE(cudaStreamBeginCapture(s.all[0], cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    s.mark(0, 0);
    s.await(1, 0);
    launch(0);
    s.mark(0, 2);
    if (ordered) s.await(1, 2);
    launch(1);
    s.mark(1, 1);
    s.await(0, 1);
    cudaGraph_t graph;
    REQUIRE(cudaStreamEndCapture(s.all[0], &graph) == cudaSuccess);
    cudaGraphExec_t run = nullptr;
    CHECK((cudaGraphInstantiate(&run, graph, 0) == cudaSuccess) == ordered);
    cudaGraphDestroy(graph);
    if (run) cudaGraphExecDestroy(run);
  }
}

TEST_CASE("cooperative launches of two streams must be ordered, by an event, by way of a third stream, or by waiting") {
  Streams s;
  REQUIRE(launch_cooperative(s.all[0]) == cudaSuccess);
  CHECK(launch_cooperative(s.all[1]) == cudaErrorCooperativeLaunchTooLarge);
  s.mark(0, 0);
  s.await(2, 0);
  s.mark(2, 1);
  s.await(1, 1);
  CHECK(launch_cooperative(s.all[1]) == cudaSuccess);
  CHECK(launch_cooperative(s.all[0]) == cudaErrorCooperativeLaunchTooLarge);
  REQUIRE(cudaStreamSynchronize(s.all[1]) == cudaSuccess);
  CHECK(launch_cooperative(s.all[0]) == cudaSuccess);
}

TEST_CASE("graphs with cooperative launches must be ordered too") {
  Streams s;
  cudaGraphExec_t runs[2];
  for (int i : {0, 1}) {
    REQUIRE(cudaStreamBeginCapture(s.all[i], cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    REQUIRE(launch_cooperative(s.all[i]) == cudaSuccess);
    cudaGraph_t graph;
    REQUIRE(cudaStreamEndCapture(s.all[i], &graph) == cudaSuccess);
    REQUIRE(cudaGraphInstantiate(&runs[i], graph, 0) == cudaSuccess);
    cudaGraphDestroy(graph);
  }
  REQUIRE(cudaGraphLaunch(runs[0], s.all[0]) == cudaSuccess);
  CHECK(cudaGraphLaunch(runs[1], s.all[1]) == cudaErrorCooperativeLaunchTooLarge);
  s.mark(0, 0);
  s.await(1, 0);
  CHECK(cudaGraphLaunch(runs[1], s.all[1]) == cudaSuccess);
  for (cudaGraphExec_t run : runs) cudaGraphExecDestroy(run);
}

TEST_CASE("an event outlives its stream") {
  Streams s;
  cudaStream_t gone;
  REQUIRE(cudaStreamCreateWithFlags(&gone, cudaStreamNonBlocking) == cudaSuccess);
  REQUIRE(cudaEventRecord(s.events[0], gone) == cudaSuccess);
  cudaStreamDestroy(gone);
  s.await(0, 0);
  CHECK(cudaStreamSynchronize(s.all[0]) == cudaSuccess);
  CHECK(cudaEventQuery(s.events[0]) == cudaSuccess);
}

TEST_CASE("timed events have the time at which their stream came to them") {
  Streams s;
  Bytes a;
  cudaEvent_t from, to;
  REQUIRE(cudaEventCreateWithFlags(&from, cudaEventDefault) == cudaSuccess);
  REQUIRE(cudaEventCreateWithFlags(&to, cudaEventDefault) == cudaSuccess);
  REQUIRE(cudaEventRecord(from, s.all[0]) == cudaSuccess);
  s.put(0, a, 1);
  REQUIRE(cudaEventRecord(to, s.all[0]) == cudaSuccess);
  REQUIRE(cudaStreamSynchronize(s.all[0]) == cudaSuccess);
  float ms = -1;
  CHECK(cudaEventElapsedTime(&ms, from, to) == cudaSuccess);
  CHECK(ms >= 0);
  CHECK(ms < 1000);
  CHECK(cudaEventElapsedTime(&ms, s.events[0], to) != cudaSuccess);
  cudaEventDestroy(from);
  cudaEventDestroy(to);
}

TEST_CASE("a stream that a capture drew in must be joined") {
  Streams s;
  Bytes x;
  REQUIRE(cudaStreamBeginCapture(s.all[0], cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  s.mark(0, 0);
  s.await(1, 0);
  s.put(1, x, 1);
  cudaGraph_t graph;
  CHECK(cudaStreamEndCapture(s.all[0], &graph) == cudaErrorStreamCaptureUnjoined);
  s.put(1, x, 2);  // the stream is its own again
  CHECK(cudaStreamSynchronize(s.all[1]) == cudaSuccess);
  CHECK(x.first() == 2);
}
