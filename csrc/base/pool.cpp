#include "base/pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <ctime>

#include "base/parallel.h"

namespace dagrt::pool {
namespace {

constexpr int slots = 32;
constexpr int most_lanes = 16;
// A sleeping worker needs so long to come: what is done sooner does not wake it, but see `in_a_row`.
constexpr double wake_ns = 50'000;
// A caller looks so long whether the last parts are done, and then sleeps: a worker that was preempted may get its core.
constexpr int64_t wait_ns = 50'000;

// generation: 24 bits, threads: 10 bits, parts of a gang left to claim: 30 bits; of other jobs 1, or 0 when all are claimed
constexpr uint64_t word_of(uint64_t generation, int threads, int64_t left) {
  return generation << 40 | uint64_t(threads) << 30 | uint64_t(left);
}
constexpr int64_t left_in(uint64_t word) { return int64_t(word & 0x3fffffff); }
constexpr int threads_in(uint64_t word) { return int(word >> 30 & 0x3ff); }

// Parts [begin, end) of a job, of generation: 24 bits, begin: 20 bits, end: 20 bits. Whose they are takes them from the front,
// others from the back.
constexpr uint64_t lane_of(uint64_t generation, int64_t begin, int64_t end) {
  return generation << 40 | uint64_t(begin) << 20 | uint64_t(end);
}
constexpr int64_t begin_of(uint64_t lane) { return int64_t(lane >> 20 & 0xfffff); }
constexpr int64_t end_of(uint64_t lane) { return int64_t(lane & 0xfffff); }

struct Slot {
  alignas(64) std::atomic<uint64_t> word{0};
  alignas(64) std::atomic<uint32_t> done{0};  // parts that others have finished
  std::atomic<uint32_t> asleep{0};            // the caller waits for `done`
  std::atomic<int32_t> parts{0};              // of a gang, once it is known
  std::atomic<int32_t> lanes{0};              // of a job; 0: a gang
  std::atomic<int32_t> core{-1};              // the caller's
  uint64_t generation = 0;                    // the caller's
  int64_t total = 0;
  Job job;
  struct alignas(64) Lane {
    std::atomic<uint64_t> word{0};
  } lane[most_lanes];
};

Slot slot[slots];
alignas(64) std::atomic<uint32_t> taken{0};
alignas(64) std::atomic<uint32_t> open{0};  // slots with parts to claim
alignas(64) std::atomic<uint32_t> bell{0};  // workers sleep on it
std::atomic<int> sleepers{0};
std::atomic<int64_t> alone_at{0}, alone_ns{0};  // the end of the last small job without those who sleep; what such jobs took
std::atomic<int> started{0};
std::atomic<bool> starting{false};

int64_t now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

void sleep_on(std::atomic<uint32_t>& word, uint32_t value, uint32_t mask) {
  syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, value, nullptr, nullptr, mask);
}
void wake(std::atomic<uint32_t>& word, int most, uint32_t mask) {
  syscall(SYS_futex, &word, FUTEX_WAKE_BITSET_PRIVATE, most, nullptr, nullptr, mask);
}

uint32_t bit_of(int worker) { return 1u << (worker % 32); }
uint32_t bits_of(int workers) { return workers >= 32 ? ~0u : (1u << workers) - 1; }

void do_part(const Job& job, int64_t index, char* scratch) {
  int64_t begin = index * job.claim, end = begin + job.claim < job.units ? begin + job.claim : job.units;
  for (int64_t u = begin; u < end; u++) job.unit(job.f, u, scratch);
}

char* piece(const Job& job, int64_t thread) { return job.scratch ? job.scratch + size_t(thread) * job.scratch_bytes : nullptr; }

/// Goes to another core, and is free to come back. On a machine without an idle core the kernel may wake a worker on
/// its caller's, again and again, where it can only take the caller's time.
void leave_core(int core) {
  cpu_set_t all, others;
  if (sched_getaffinity(0, sizeof all, &all)) return;
  others = all;
  CPU_CLR(core, &others);
  if (!CPU_COUNT(&others) || sched_setaffinity(0, sizeof others, &others)) return;
  sched_setaffinity(0, sizeof all, &all);
}

/// A part of the job `word` tells of for thread `id`: of its own lane, or of another's; -1: none is left.
int64_t claim(Slot& s, uint64_t word, int id) {
  const int lanes = s.lanes.load(std::memory_order_relaxed);
  for (int i = 0; i < lanes; i++) {
    std::atomic<uint64_t>& lane = s.lane[(id + i) % lanes].word;
    uint64_t seen = lane.load(std::memory_order_acquire);
    while (seen >> 40 == word >> 40 && begin_of(seen) < end_of(seen)) {
      const uint64_t next = i == 0 ? seen + (uint64_t(1) << 20) : seen - 1;
      if (lane.compare_exchange_weak(seen, next, std::memory_order_acq_rel, std::memory_order_acquire))
        return i == 0 ? begin_of(seen) : end_of(next);
    }
  }
  return -1;
}

bool claimable(Slot& s) {
  const uint64_t word = s.word.load(std::memory_order_acquire);
  const int lanes = s.lanes.load(std::memory_order_relaxed);
  if (!lanes) return left_in(word);
  bool any = false;
  for (int i = 0; i < lanes; i++) {
    const uint64_t lane = s.lane[i].word.load(std::memory_order_acquire);
    any |= lane >> 40 == word >> 40 && begin_of(lane) < end_of(lane);
  }
  return left_in(word) && any;
}

/// A part that another thread than the caller has claimed, done.
void finish(Slot& s) {
  s.done.fetch_add(1, std::memory_order_seq_cst);  // after this the job may be gone, but the slot stays
  if (s.asleep.load(std::memory_order_seq_cst)) wake(s.done, 1, ~0u);
}

/// Takes part in a slot's job while there is something to claim.
bool help(Slot& s, int worker) {
  bool helped = false;
  uint64_t word = s.word.load(std::memory_order_acquire);
  if (!left_in(word) || worker + 1 >= threads_in(word)) return false;
  if (int core = sched_getcpu(); core >= 0 && core == s.core.load(std::memory_order_relaxed)) {
    leave_core(core);
    word = s.word.load(std::memory_order_acquire);  // of another job, perhaps, with scratch for fewer
    if (!left_in(word) || worker + 1 >= threads_in(word)) return false;
  }
  if (s.lanes.load(std::memory_order_relaxed)) {
    for (int64_t index; (index = claim(s, word, worker + 1)) >= 0; helped = true) {
      do_part(s.job, index, piece(s.job, worker + 1));
      finish(s);
    }
    return helped;
  }
  for (const uint64_t generation = word >> 40; left_in(word) && word >> 40 == generation;) {
    if (!s.word.compare_exchange_weak(word, word - 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
    const Job& job = s.job;
    int32_t parts;
    while (!(parts = s.parts.load(std::memory_order_acquire))) relax();
    job.part(job.f, int(s.total - left_in(word)) + 1, parts, piece(job, worker + 1));
    finish(s);
    helped = true;
    word = s.word.load(std::memory_order_acquire);
  }
  return helped;
}

void* work(void* argument) {
  const int worker = int(reinterpret_cast<intptr_t>(argument));
  FlushDenormals flush;
  int64_t since = now_ns();
  for (int round = 1;; round++) {
    bool helped = false;
    for (uint32_t bits = open.load(std::memory_order_acquire); bits; bits &= bits - 1)
      helped |= help(slot[__builtin_ctz(bits)], worker);
    if (helped) {
      since = now_ns();
      continue;
    }
    relax();
    if (round % 64 || now_ns() - since < spin_ns) continue;
    uint32_t seen = bell.load(std::memory_order_seq_cst);
    sleepers.fetch_add(1, std::memory_order_seq_cst);
    bool any = false;
    for (uint32_t bits = open.load(std::memory_order_seq_cst); bits; bits &= bits - 1) {
      Slot& s = slot[__builtin_ctz(bits)];
      any |= worker + 1 < threads_in(s.word.load(std::memory_order_acquire)) && claimable(s);
    }
    if (!any) sleep_on(bell, seen, bit_of(worker));
    sleepers.fetch_sub(1, std::memory_order_seq_cst);
    since = now_ns();
  }
  return nullptr;
}

void start_workers(int wanted) {
  if (starting.exchange(true, std::memory_order_acquire)) return;  // another caller does
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are for the program's own threads
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  for (int n = started.load(std::memory_order_relaxed); n < wanted; n++) {
    pthread_t thread;
    if (pthread_create(&thread, &attributes, work, reinterpret_cast<void*>(intptr_t(n)))) break;
    pthread_setname_np(thread, "dagrt");
    started.store(n + 1, std::memory_order_relaxed);
  }
  pthread_attr_destroy(&attributes);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  starting.store(false, std::memory_order_release);
}

void wake_workers(int wanted, int threads) {
  if (!sleepers.load(std::memory_order_seq_cst)) return;
  bell.fetch_add(1, std::memory_order_seq_cst);
  wake(bell, threads > 32 ? INT_MAX : wanted, bits_of(threads - 1));
}

/// Whether fewer than `wanted` workers are awake for a small job, and such jobs follow one another so closely that a worker, once
/// awake, would find the next before it sleeps again, and have taken so long together that waking one was worth it: a model of
/// small steps that is called again and again.
bool in_a_row(double ns, int wanted) {
  if (started.load(std::memory_order_relaxed) - sleepers.load(std::memory_order_relaxed) >= wanted) return false;
  const int64_t now = now_ns(), last = alone_at.exchange(now + int64_t(ns), std::memory_order_relaxed);
  const int64_t before = now - last < spin_ns ? alone_ns.load(std::memory_order_relaxed) : 0;
  const bool enough = double(before) + ns > 2 * wake_ns;
  alone_ns.store(enough ? 0 : before + int64_t(ns), std::memory_order_relaxed);
  return enough;
}

Slot* take_slot() {
  uint32_t all = taken.load(std::memory_order_relaxed);
  while (~all) {
    int k = __builtin_ctz(~all);
    if (taken.compare_exchange_weak(all, all | 1u << k, std::memory_order_acquire, std::memory_order_relaxed)) return &slot[k];
  }
  return nullptr;
}

uint32_t bit_of(const Slot* s) { return 1u << (s - slot); }

void give_slot(Slot* s) { taken.fetch_and(~bit_of(s), std::memory_order_release); }

/// `lanes` 0: a gang of so many parts beside the caller's.
void post(Slot* s, const Job& job, int64_t parts, int lanes) {
  const uint64_t generation = ++s->generation & 0xffffff;
  s->job = job;
  s->total = parts;
  s->lanes.store(lanes, std::memory_order_relaxed);
  for (int i = 0; i < lanes; i++)
    s->lane[i].word.store(lane_of(generation, parts * i / lanes, parts * (i + 1) / lanes), std::memory_order_release);
  s->done.store(0, std::memory_order_relaxed);
  s->parts.store(0, std::memory_order_relaxed);
  s->core.store(sched_getcpu(), std::memory_order_relaxed);
  s->word.store(word_of(generation, job.threads, lanes ? 1 : parts), std::memory_order_release);
  open.fetch_or(bit_of(s), std::memory_order_seq_cst);
}

/// Until others have finished `parts` parts.
void wait_done(Slot* s, uint32_t parts) {
  uint32_t done;
  int64_t since = 0;
  for (int round = 1; (done = s->done.load(std::memory_order_acquire)) != parts; round++) {
    relax();
    if (round % 64) continue;
    if (!since) since = now_ns();
    if (now_ns() - since < wait_ns) continue;
    s->asleep.store(1, std::memory_order_seq_cst);
    while ((done = s->done.load(std::memory_order_seq_cst)) != parts) sleep_on(s->done, done, ~0u);
    s->asleep.store(0, std::memory_order_relaxed);
    return;
  }
}

/// In a child no worker is left, nor any other caller.
void begin_child() {
  taken = 0;
  open = 0;
  sleepers = 0;
  started = 0;
  starting = false;
  for (Slot& s : slot) s.word = 0;
}
[[maybe_unused]] const int at_fork = pthread_atfork(nullptr, nullptr, begin_child);

}  // namespace

void rouse(int threads) {
  if (started.load(std::memory_order_relaxed) < threads - 1) start_workers(threads - 1);
  wake_workers(threads - 1, threads);
}

void run(const Job& job) {
  int64_t parts = (job.units + job.claim - 1) / job.claim;
  Slot* s = take_slot();
  if (!s) {
    for (int64_t u = 0; u < job.units; u++) job.unit(job.f, u, job.scratch);
    return;
  }
  if (started.load(std::memory_order_relaxed) < job.threads - 1) start_workers(job.threads - 1);
  const int most = job.threads < most_lanes ? job.threads : most_lanes;
  post(s, job, parts, parts < most ? int(parts) : most);
  const int others = int(parts < job.threads ? parts : job.threads) - 1;
  if (job.ns > wake_ns || in_a_row(job.ns, others)) wake_workers(others, job.threads);
  uint32_t mine = 0;
  const uint64_t word = s->word.load(std::memory_order_relaxed);
  for (int64_t index; (index = claim(*s, word, 0)) >= 0; mine++) do_part(job, index, job.scratch);
  s->word.store(word_of(s->generation & 0xffffff, 0, 0), std::memory_order_release);
  open.fetch_and(~bit_of(s), std::memory_order_relaxed);
  wait_done(s, uint32_t(parts) - mine);
  give_slot(s);
}

void gang(const Job& job) {
  Slot* s = take_slot();
  if (!s) return job.part(job.f, 0, 1, job.scratch);
  const int64_t others = (job.units < job.threads ? job.units : job.threads) - 1;
  if (started.load(std::memory_order_relaxed) < job.threads - 1) start_workers(job.threads - 1);
  post(s, job, others, 0);
  if (job.ns > 2 * wake_ns) wake_workers(int(others), job.threads);
  // Workers that spin come within a microsecond, those that sleep in some ten: worth an eighth of the job.
  int64_t patience = int64_t(job.ns / 8), since = now_ns();
  if (patience > int64_t(2 * wake_ns)) patience = int64_t(2 * wake_ns);
  while (left_in(s->word.load(std::memory_order_relaxed)) && now_ns() - since < patience) relax();
  uint64_t word = s->word.load(std::memory_order_relaxed);
  while (!s->word.compare_exchange_weak(word, word_of(s->generation & 0xffffff, 0, 0), std::memory_order_acq_rel)) {}
  open.fetch_and(~bit_of(s), std::memory_order_relaxed);
  const int32_t came = int32_t(others - left_in(word));
  s->parts.store(1 + came, std::memory_order_release);
  job.part(job.f, 0, 1 + came, job.scratch);
  wait_done(s, uint32_t(came));
  give_slot(s);
}

}  // namespace dagrt::pool

namespace dagrt {

void announce(uint32_t* flag, uint32_t number) { __atomic_store_n(flag, number, __ATOMIC_RELEASE); }

void await(const uint32_t* flag, uint32_t number) {
  // On a busy machine the other part may have lost its core: after some 20 us of looking ours is offered.
  for (int round = 1; int32_t(__atomic_load_n(flag, __ATOMIC_ACQUIRE) - number) < 0; round++)
    if (round % 512)
      pool::relax();
    else
      sched_yield();
}

}  // namespace dagrt
