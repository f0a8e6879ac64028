// A pool of threads that helps whoever has work. Used by parallel.cpp alone.
//
// A caller puts a job in a slot and works on it itself; workers claim parts of it while there are any. It returns when
// all claimed parts are done: a worker that comes late is not waited for, since it finds nothing to claim. A claim is one
// compare-and-swap on a word that holds the job's number, so that a late worker cannot claim from the slot's next job,
// and until its part is done the job's caller stays, so that what the job points to is there.
// Each thread has a run of neighbouring parts, the same share of every job, which it takes from the front; when none is left, it
// takes from the back of others' runs. So a thread finds most of what it reads in its own caches, where it wrote it in the job
// before: cores that share no cache pass 15 GB/s to each other, their own caches 40 to 100 (AMD Zen 3).
// Several callers have slots of their own; where all are taken, a caller works alone.
//
// Workers start when first wanted, look for work for spin_ns after the last, then sleep on a futex. A job longer than a worker
// takes to come wakes them, and so do shorter ones that follow one another within spin_ns. A thread's scratch is its own: the
// caller has the first piece, worker k the one after k others. After fork the child begins with no workers and starts new ones.
//
// It is the default because it is the better of the two on a busy machine, and no worse on a quiet one:
// bench/results/kernels/threads.md has the figures.
#pragma once
#include <cstddef>
#include <cstdint>

namespace dagrt::pool {

constexpr int most_threads = 512;
constexpr int64_t spin_ns = 100'000;  // a worker looks for work so long, and then sleeps

struct Job {
  void (*unit)(const void* f, int64_t unit, char* scratch) = nullptr;
  void (*part)(const void* f, int part, int parts, char* scratch) = nullptr;  // of a gang, instead
  const void* f = nullptr;
  int64_t units = 0, claim = 1;  // units claimed at a time; fewer than 2^20 claims
  char* scratch = nullptr;
  size_t scratch_bytes = 0;
  int threads = 1;
  double ns = 0;  // on one thread
};

void run(const Job& job);
void gang(const Job& job);  // units: the most parts
void rouse(int threads);

}  // namespace dagrt::pool
