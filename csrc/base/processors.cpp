// How many threads to use: what the user said, else the processors, and never more than affinity and cgroup allow.
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "base/parallel.h"
#include "base/pool.h"

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace dagrt {
namespace {

constexpr int unlimited = 1 << 20;

int rounded_up(long quota, long period) { return quota > 0 && period > 0 ? int((quota + period - 1) / period) : unlimited; }

int quota_v2(const std::string& folder) {  // cpu.max: "max 100000" or "150000 100000"
  long quota = -1, period = 0;
  if (FILE* f = std::fopen((folder + "/cpu.max").c_str(), "r")) {
    if (std::fscanf(f, "%ld %ld", &quota, &period) != 2) quota = -1;
    std::fclose(f);
  }
  return rounded_up(quota, period);
}

int quota_v1(const std::string& folder) {
  auto number = [&](const char* name) {
    long n = -1;
    if (FILE* f = std::fopen((folder + name).c_str(), "r")) {
      if (std::fscanf(f, "%ld", &n) != 1) n = -1;
      std::fclose(f);
    }
    return n;
  };
  return rounded_up(number("/cpu.cfs_quota_us"), number("/cpu.cfs_period_us"));
}

/// The least quota of the process's groups and of those around them.
int quota_threads() {
  int least = unlimited;
  auto climb = [&](const std::string& root, std::string path, int (*quota)(const std::string&)) {
    for (;;) {
      int n = quota(root + path);
      if (n < least) least = n;
      size_t cut = path.rfind('/');
      if (cut == std::string::npos) return;
      path.resize(cut);
    }
  };
  FILE* f = std::fopen("/proc/self/cgroup", "r");  // "0::/a/b" (v2), "4:cpu,cpuacct:/a/b" (v1)
  if (!f) return least;
  char line[4096];
  while (std::fgets(line, sizeof line, f)) {
    line[std::strcspn(line, "\n")] = 0;
    char* controllers = std::strchr(line, ':');
    char* path = controllers ? std::strchr(controllers + 1, ':') : nullptr;
    if (!path) continue;
    *path++ = 0;
    std::string list = "," + std::string(controllers + 1) + ",", folder = std::strcmp(path, "/") ? path : "";
    if (list == ",,") climb("/sys/fs/cgroup", folder, quota_v2);
    if (list.find(",cpu,") != std::string::npos) {
      climb("/sys/fs/cgroup/cpu", folder, quota_v1);
      climb("/sys/fs/cgroup/cpu,cpuacct", folder, quota_v1);
    }
  }
  std::fclose(f);
  return least;
}

int positive(const char* variable) {  // OMP_NUM_THREADS may be a list: its first entry counts
  const char* e = std::getenv(variable);
  int n = e ? std::atoi(e) : 0;
  return n > 0 ? n : 0;
}

int openmp_threads() {
#if defined(_OPENMP)
  return omp_get_max_threads();
#else
  return unlimited;
#endif
}

struct Initial {
  int threads, openmp;
  Initial() : openmp(openmp_threads()) {
    threads = positive("DAGRT_NUM_THREADS");
    if (!threads) threads = positive("OMP_NUM_THREADS");
    if (!threads) threads = int(sysconf(_SC_NPROCESSORS_ONLN));
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) < threads) threads = CPU_COUNT(&set);
    int quota = quota_threads();
    if (quota < threads) threads = quota;
    if (threads < 1) threads = 1;
    if (threads > pool::most_threads) threads = pool::most_threads;
  }
};

std::atomic<int> threads_set{0};

}  // namespace

int default_threads() {
  static const Initial initial;
  if (int n = threads_set.load(std::memory_order_relaxed)) return n;
  int now = openmp_threads();  // lowered since by threadpoolctl or by omp_set_num_threads on this thread
  return now < initial.openmp && now < initial.threads ? now : initial.threads;
}

void set_default_threads(int threads) {
  threads_set = threads < 0 ? 0 : threads > pool::most_threads ? pool::most_threads : threads;
}

}  // namespace dagrt
