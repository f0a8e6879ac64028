// The threads: every unit once, each thread its own scratch, callers side by side, gangs whose parts wait for one
// another, fork, denormals; by the pool and by OpenMP.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/parallel.h"

using namespace dagrt;

namespace {

std::vector<const char*> backends() {
  std::vector<const char*> all{"pool"};
  try {
    choose_thread_backend("openmp");
    all.push_back("openmp");
  } catch (const Error&) {}
  choose_thread_backend("pool");
  return all;
}

struct Backend {  // for the length of a test
  explicit Backend(const char* name) { choose_thread_backend(name); }
  ~Backend() { choose_thread_backend("pool"); }
};

/// Whether every unit ran once, and no piece of scratch was used by two at a time.
bool correct(int threads, int64_t units, double unit_ns) {
  std::vector<std::atomic<int>> count(static_cast<size_t>(units));
  std::vector<char> scratch(size_t(threads) * 64);
  std::vector<std::atomic<int>> users(static_cast<size_t>(threads));
  std::atomic<bool> good{true};
  Stream s;
  s.threads = threads;
  s.scratch = scratch.data();
  s.scratch_bytes = 64;
  s.parallel(units, unit_ns, [&](int64_t u, char* mine) {
    int64_t piece = (mine - scratch.data()) / 64;
    if (piece < 0 || piece >= threads || users[size_t(piece)]++) good = false;
    count[size_t(u)]++;
    users[size_t(piece)]--;
  });
  for (auto& c : count) good = good && c == 1;
  return good;
}

}  // namespace

TEST_CASE("threads: every unit runs once, with scratch of its own") {
  for (const char* name : backends()) {
    Backend b(name);
    CAPTURE(name);
    for (int threads : {1, 2, 3, 8})
      for (int64_t units : {0, 1, 2, 7, 1000})
        for (double ns : {1.0, 1e5}) CHECK(correct(threads, units, ns));
    for (int i = 0; i < 2000; i++) REQUIRE(correct(3, 5, 1e5));
  }
}

TEST_CASE("threads: a worker that was late for many threads' job has no part in the next one of few") {
  for (int i = 0; i < 1000; i++) {
    REQUIRE(correct(16, 40, 1e5));
    for (int k = 0; k < 3; k++) REQUIRE(correct(2, 400, 1e5));
  }
}

TEST_CASE("threads: several callers at once, more than there are slots") {
  for (const char* name : backends()) {
    Backend b(name);
    std::atomic<bool> good{true};
    std::vector<std::thread> callers;
    for (int i = 0; i < 40; i++)
      callers.emplace_back([&] {
        for (int k = 0; k < 20; k++)
          if (!correct(3, 50, 1e4)) good = false;
      });
    for (std::thread& t : callers) t.join();
    CHECK(good);
  }
}

TEST_CASE("threads: the parts of a gang wait for one another") {
  for (const char* name : backends()) {
    Backend b(name);
    for (int threads : {1, 2, 4}) {
      std::vector<char> scratch(size_t(threads) * 64);
      Stream s;
      s.threads = threads;
      s.scratch = scratch.data();
      s.scratch_bytes = 64;
      for (int most : {1, 2, 3, 9})
        for (int i = 0; i < 10; i++) {
          struct alignas(64) Flag {
            uint32_t at = 0;
          } flag[16];
          std::atomic<int> parts_run{0}, parts_of{0}, wrong{0};
          s.gang(most, 1e6, [&](int part, int parts, char* mine) {
            parts_of = parts;
            parts_run++;
            if (part >= parts || parts > most || parts > threads || !mine) wrong++;
            for (uint32_t step = 1; step <= 20; step++) {
              announce(&flag[part].at, step);
              for (int other = 0; other < parts; other++) await(&flag[other].at, step);
            }
          });
          REQUIRE(parts_run == parts_of);
          REQUIRE(wrong == 0);
        }
    }
  }
}

TEST_CASE("threads: the pool gives each thread the same neighbouring units of every job, as far as it comes to them") {
  Stream s;
  s.threads = 2;
  char scratch[128];
  s.scratch = scratch, s.scratch_bytes = 64;
  constexpr int64_t units = 50, half = units / 2;
  bool both = false;
  for (int i = 0; i < 200; i++) {
    int by[units];  // 0: the caller
    s.parallel(units, 1e4, [&](int64_t u, char* mine) {
      const auto begin = std::chrono::steady_clock::now();
      while (std::chrono::steady_clock::now() - begin < std::chrono::microseconds(2)) {}
      by[u] = mine == scratch ? 0 : 1;
    });
    int changes = 0;  // of a half: its owner's from the front, the other's from the back
    for (int64_t u = 1; u < units; u++) changes += u != half && by[u] != by[u - 1];
    CHECK(changes <= 2);
    if (changes == 2) CHECK((by[0] == 0 && by[half] == 1));
    both = both || (by[0] == 0 && by[half] == 1);
  }
  CHECK(both);
}

TEST_CASE("threads: small jobs that follow one another wake a worker that sleeps, though no one of them would") {
  Stream s;
  s.threads = 2;
  char scratch[128];
  s.scratch = scratch, s.scratch_bytes = 64;
  s.parallel(2, 1e6, [](int64_t, char*) {});                   // there is a worker,
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // which sleeps after 0.1 ms
  bool other = false;
  const auto begin = std::chrono::steady_clock::now();
  while (!other && std::chrono::steady_clock::now() - begin < std::chrono::seconds(10)) {
    bool came[2] = {};
    s.parallel(2, 1e4, [&](int64_t u, char* mine) {
      const auto since = std::chrono::steady_clock::now();
      while (std::chrono::steady_clock::now() - since < std::chrono::microseconds(10)) {}
      came[u] = mine != scratch;
    });
    other = came[0] || came[1];
  }
  CHECK(other);
}

TEST_CASE("threads: a run does not wait for a thread that claimed nothing") {
  // 300 jobs of which the caller can do all: they must not take a scheduler's quantum each, however busy the machine is.
  Stream s;
  s.threads = 8;
  std::atomic<int64_t> sum{0};
  for (int i = 0; i < 300; i++) s.parallel(8, 1e5, [&](int64_t u, char*) { sum += u; });
  CHECK(sum == 300 * 28);
}

#if !defined(__SANITIZE_THREAD__)  // which refuses to start threads in a forked child
TEST_CASE("threads: a forked child has threads of its own") {
  CHECK(correct(3, 100, 1e5));
  pid_t child = fork();
  if (child == 0) {
    bool good = true;
    for (int i = 0; i < 100; i++) good = good && correct(3, 20, 1e5);
    _exit(good ? 0 : 1);
  }
  int status = -1;
  for (int i = 0; i < 2000 && waitpid(child, &status, WNOHANG) == 0; i++)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}
#endif

TEST_CASE("threads: denormals are flushed on every thread, and the caller's mode comes back") {
#if defined(__SSE2__) || defined(__aarch64__)
  for (const char* name : backends()) {
    Backend b(name);
    Stream s;
    s.threads = 4;
    std::atomic<int> flushed{0};
    volatile float tiny = 1e-38f;
    s.parallel(64, 1e5, [&](int64_t, char*) {
      volatile float y = tiny * 0.01f;
      if (y == 0) flushed++;
    });
    CHECK(flushed == 64);
    volatile float y = tiny * 0.01f;
    CHECK(y != 0);
  }
#endif
}

TEST_CASE("threads: a backend that is not there is an error that names those that are") {
  CHECK_THROWS_WITH_AS(choose_thread_backend("tbb"), "DAGRT_THREADS: expected 'pool' or 'openmp', got 'tbb'", Error);
}
