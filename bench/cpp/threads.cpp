// The pool against OpenMP: what handing work to two threads costs, and what is left of it on a busy machine.
// One job is 32 units of 10 us each, counted on one thread just before: what a convolution of 0.3 ms looks like. Times are
// in microseconds. Rows: a region that does nothing, its threads spinning; the job after 20 ms of rest; the job again and
// again, alone, beside a process that keeps one core busy, and beside another process that does the same.
//
// Zen 3, two cores, while others computed at a lower priority (least, median, 95 %); one thread: 319, 320, 383.
//                                  pool                 OpenMP
//   empty region, spinning      0.4   0.4   0.5      1.2   1.7    2.3
//   job after 20 ms of rest     193   217   343      178   214   3886
//   job again and again         162   164   227      160   165    216
//   beside a busy core          160   164   336      163   166   4090
//   beside a second process     160   163   327      162   168   4242
#include <benchmark/benchmark.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/parallel.h"

using namespace dagrt;
using Clock = std::chrono::steady_clock;

namespace {

volatile float sink;
volatile int64_t hidden = 10'000;  // from the compiler

void spin_work(int64_t n) {
  float x = sink;
  for (int64_t i = 0; i < n; i++) x = x * 0.999f + 0.001f;
  sink = x + 1;
}

double us_of(const std::function<void()>& f) {
  auto t = Clock::now();
  f();
  return std::chrono::duration<double, std::micro>(Clock::now() - t).count();
}

struct Times {
  double least, median, p95;
};

Times times(int repeats, const std::function<void()>& before, const std::function<void()>& f) {
  std::vector<double> all;
  for (int i = 0; i < repeats; i++) {
    before();
    all.push_back(us_of(f));
  }
  std::sort(all.begin(), all.end());
  return {all.front(), all[all.size() / 2], all[all.size() * 95 / 100]};
}

/// Runs `work` in another process meanwhile.
template <class F> Times beside(const std::function<void()>& work, const F& measure) {
  std::fflush(stdout);
  pid_t child = fork();
  if (child == 0)
    for (;;) work();
  usleep(20'000);
  Times t = measure();
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  return t;
}

}  // namespace

int main(int argc, char** argv) {
  int64_t per_unit = hidden;
  double unit = 1e9;
  for (int i = 0; i < 50; i++) unit = std::min(unit, us_of([&] { spin_work(per_unit); }));
  per_unit = int64_t(double(per_unit) * 10 / unit);
  Stream one, two;
  two.threads = 2;
  auto job = [&](const Stream& s) { s.parallel(32, 1e4, [&](int64_t, char*) { spin_work(per_unit); }); };
  auto empty = [&] { two.parallel(2, 1e5, [](int64_t, char*) {}); };
  if (argc > 2 && std::string(argv[1]) == "beside") {  // the second process
    choose_thread_backend(argv[2]);
    for (;;) job(two);
  }
  auto nothing = [] {};
  auto rest = [] { usleep(20'000); };
  auto burn = [] { spin_work(100 * hidden); };
  auto row = [](const std::string& name, const std::string& backend, std::function<Times()> measure) {
    benchmark::RegisterBenchmark((backend + "/" + name).c_str(),
                                 [=](benchmark::State& state) {
                                   if (backend != "one thread") choose_thread_backend(backend.c_str());
                                   for (auto _ : state) {
                                     const Times t = measure();
                                     state.SetIterationTime(t.median * 1e-6);
                                     state.counters["least_us"] = t.least, state.counters["p95_us"] = t.p95;
                                   }
                                 })
        ->Iterations(1)
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond);
  };
  row("job again and again", "one thread", [=] { return times(200, nothing, [&] { job(one); }); });
  row("beside a busy core", "one thread", [=] { return beside(burn, [&] { return times(500, nothing, [&] { job(one); }); }); });
  for (const std::string backend : {"pool", "openmp"}) {
    try {
      choose_thread_backend(backend.c_str());
    } catch (const Error&) {
      continue;  // a build without OpenMP
    }
    auto again = [=] { return times(500, nothing, [&] { job(two); }); };
    // Not merely forked: OpenMP has no threads there.
    auto second = [backend] { execl("/proc/self/exe", "bench_threads", "beside", backend.c_str(), nullptr), _exit(1); };
    row("empty region, threads spinning", backend, [=] { return times(5000, nothing, empty); });
    row("job after 20 ms of rest", backend, [=] { return times(60, rest, [&] { job(two); }); });
    row("job again and again", backend, again);
    row("beside a busy core", backend, [=] { return beside(burn, again); });
    row("beside a second process that does the same", backend, [=] { return beside(second, again); });
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
