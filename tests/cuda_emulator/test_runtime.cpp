// Streams, events and graphs of the emulator: what is not waited for is not done, or not in that order; what is, always.
#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include <cstdlib>
#include <functional>
#include <string>
#include <utility>
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

cudaError_t launch_shape(cudaStream_t stream, dim3 grid, dim3 block, size_t shared = 0, bool together = false) {
  cudaLaunchAttribute cooperative{};
  cooperative.id = cudaLaunchAttributeCooperative;
  cooperative.val.cooperative = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid, config.blockDim = block, config.dynamicSmemBytes = shared;
  config.stream = stream;
  config.attrs = &cooperative;
  config.numAttrs = together ? 1 : 0;
  return cudaLaunchKernelEx(&config, nothing_kernel, 0);
}

TEST_CASE("launches larger than a device takes are refused") {
  Streams s;
  const cudaStream_t at = s.all[0];
  for (dim3 grid : {dim3(1u << 31), dim3(1, 65536), dim3(1, 1, 65536), dim3(0), dim3(1, 0)})
    CHECK(launch_shape(at, grid, 32) == cudaErrorInvalidConfiguration);
  for (dim3 block : {dim3(1025), dim3(32, 33), dim3(1, 1, 65), dim3(0)})
    CHECK(launch_shape(at, 1, block) == cudaErrorInvalidConfiguration);
  CHECK(launch_shape(at, dim3(1, 2, 2), dim3(8, 8, 16)) == cudaSuccess);
}

TEST_CASE("blocks of a cooperative launch must all have room at once: 16 multiprocessors of 2,048 threads and 164 KB") {
  Streams s;
  const cudaStream_t at = s.all[0];
  CHECK(launch_shape(at, 32, 1024, 0, true) == cudaSuccess);
  CHECK(launch_shape(at, 33, 1024, 0, true) == cudaErrorCooperativeLaunchTooLarge);
  CHECK(launch_shape(at, 48, 32, 48 << 10, true) == cudaSuccess);
  CHECK(launch_shape(at, 49, 32, 48 << 10, true) == cudaErrorCooperativeLaunchTooLarge);
  CHECK(launch_shape(at, 16 * 32, 32, 0, true) == cudaSuccess);
  CHECK(launch_shape(at, 16 * 32 + 1, 32, 0, true) == cudaErrorCooperativeLaunchTooLarge);
  CHECK(launch_shape(at, 1000, 32) == cudaSuccess);
}

TEST_CASE("what must not be called while a stream is captured ends the capture") {
  Streams s;
  Bytes x;
  s.mark(1, 1);
  void* p = nullptr;
  float ms;
  const std::vector<std::pair<cudaError_t, std::function<cudaError_t()>>> calls{
      {cudaErrorStreamCaptureUnsupported, [&] { return cudaMalloc(&p, 64); }},
      {cudaErrorStreamCaptureUnsupported, [&] { return cudaFree(x.p); }},
      {cudaErrorStreamCaptureUnsupported, [&] { return cudaMallocHost(&p, 64); }},
      {cudaErrorStreamCaptureUnsupported, [&] { return cudaStreamSynchronize(s.all[0]); }},
      {cudaErrorStreamCaptureUnsupported, [&] { return cudaStreamSynchronize(s.all[1]); }},
      {cudaErrorStreamCaptureUnsupported, [&] { return cudaStreamQuery(s.all[0]); }},
      {cudaErrorStreamCaptureUnsupported, [&] { return cudaEventQuery(s.events[1]); }},
      {cudaErrorStreamCaptureUnsupported, [&] { return cudaEventSynchronize(s.events[1]); }},
      {cudaErrorCapturedEvent, [&] { return cudaEventQuery(s.events[0]); }},
      {cudaErrorCapturedEvent, [&] { return cudaEventElapsedTime(&ms, s.events[0], s.events[0]); }},
      {cudaErrorStreamCaptureUnsupported, [&] { return cudaMemcpyAsync(x.p, &ms, 4, cudaMemcpyHostToDevice, nullptr); }},
      {cudaErrorStreamCaptureUnsupported, [&] { return launch_shape(nullptr, 1, 32); }},
      {cudaErrorStreamCaptureIsolation, [&] { return cudaStreamWaitEvent(s.all[0], s.events[1], 0); }},
  };
  for (const auto& [error, call] : calls) {
    REQUIRE(cudaStreamBeginCapture(s.all[0], cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    s.mark(0, 0);
    CHECK(call() == error);
    cudaGraph_t graph;
    CHECK(cudaStreamEndCapture(s.all[0], &graph) == cudaErrorStreamCaptureInvalidated);
    CHECK(cudaStreamSynchronize(s.all[0]) == cudaSuccess);
  }
}

TEST_CASE("an event of one capture is nothing to wait for in another, or behind its end") {
  Streams s;
  cudaGraph_t graphs[2];
  for (int i : {0, 1}) REQUIRE(cudaStreamBeginCapture(s.all[i], cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  CHECK(cudaStreamBeginCapture(s.all[1], cudaStreamCaptureModeThreadLocal) == cudaErrorIllegalState);
  s.mark(0, 0);
  CHECK(cudaStreamWaitEvent(s.all[1], s.events[0], 0) == cudaErrorStreamCaptureMerge);
  for (int i : {1, 0}) CHECK(cudaStreamEndCapture(s.all[i], &graphs[i]) == cudaErrorStreamCaptureInvalidated);
  CHECK(cudaStreamEndCapture(s.all[0], &graphs[0]) == cudaErrorIllegalState);
  CHECK(cudaStreamWaitEvent(s.all[2], s.events[0], 0) == cudaErrorCapturedEvent);
  CHECK(cudaEventSynchronize(s.events[0]) == cudaErrorCapturedEvent);
  s.mark(0, 0);
  s.await(2, 0);
  CHECK(cudaStreamSynchronize(s.all[2]) == cudaSuccess);
}

TEST_CASE("devices have memory, streams and kernels' attributes of their own") {
  setenv("DAGRT_EMULATOR_DEVICES", "2", 1);
  int count = 0, device = -1;
  CHECK(cudaGetDeviceCount(&count) == cudaSuccess);
  CHECK(count == 2);
  CHECK(cudaSetDevice(2) == cudaErrorInvalidDevice);
  CHECK(cudaGetLastError() == cudaErrorInvalidDevice);
  CHECK(cudaGetLastError() == cudaSuccess);
  Streams s;
  Bytes x;
  CHECK(cudaSetDevice(1) == cudaSuccess);
  CHECK(cudaGetDevice(&device) == cudaSuccess);
  CHECK(device == 1);
  {
    Streams there;
    CHECK(launch_shape(s.all[0], 1, 32) == cudaErrorInvalidResourceHandle);
    CHECK(launch_shape(there.all[0], 1, 32) == cudaSuccess);
    emulator::extents = {{static_cast<const char*>(x.p), bytes}};
    CHECK(launch_shape(there.all[1], 1, 32) == cudaSuccess);
    CHECK(cudaStreamSynchronize(there.all[1]) == cudaErrorUnknown);
    CHECK(std::string(cudaGetErrorString(cudaErrorUnknown)).find("an operand in another device's memory") != std::string::npos);
  }
  CHECK(cudaSetDevice(0) == cudaSuccess);
  unsetenv("DAGRT_EMULATOR_DEVICES");
}
