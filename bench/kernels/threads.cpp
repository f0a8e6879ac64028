// The pool against OpenMP: what handing work to two threads costs, and what is left of it on a busy machine.
//
//   cmake -B BUILD -DDAGRT_BENCH=ON && cmake --build BUILD --target bench_threads && BUILD/bench_threads
//
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
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <thread>
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
  if (argc > 1) {  // the second process
    choose_thread_backend(argv[1]);
    for (;;) job(two);
  }
  auto nothing = [] {};
  auto rest = [] { usleep(20'000); };
  auto row = [&](const char* what, const char* backend, Times t) {
    std::printf("%-44s %-8s %9.2f %9.2f %9.2f\n", what, backend, t.least, t.median, t.p95);
  };
  std::printf("%-44s %-8s %9s %9s %9s\n", "us", "", "least", "median", "95 %");
  row("job on one thread", "", times(200, nothing, [&] { job(one); }));
  row("job on one thread beside a busy core", "",
      beside([] { spin_work(100 * hidden); }, [&] { return times(500, nothing, [&] { job(one); }); }));
  for (const char* backend : {"pool", "openmp"}) {
    try {
      choose_thread_backend(backend);
    } catch (const Error&) {
      continue;  // a build without OpenMP
    }
    auto again = [&] { job(two); };
    Times busy = beside([] { spin_work(100 * hidden); }, [&] { return times(500, nothing, again); });
    // Not merely forked: OpenMP has no threads there.
    Times twice = beside([&] { execl("/proc/self/exe", "bench_threads", backend, nullptr), _exit(1); },
                         [&] { return times(500, nothing, again); });
    row("empty region, threads spinning", backend, times(5000, nothing, empty));
    row("job after 20 ms of rest", backend, times(60, rest, again));
    row("job again and again", backend, times(500, nothing, again));
    row("beside a busy core", backend, busy);
    row("beside a second process that does the same", backend, twice);
  }
}
