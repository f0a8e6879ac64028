// The OS threads that a launch's blocks run on: the one that came with the launch, and helpers that sleep between launches.
//
// Helpers claim parts in turn; what none has claimed when the first thread is done with its own, that thread does itself. So a
// launch of little work is over before a helper has woken up, and waits for nobody.
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>
#include <xmmintrin.h>

#include <condition_variable>
#include <cstdlib>
#include <system_error>
#include <thread>

#include "machine.h"

namespace emulator {
namespace {

struct Pool {
  std::mutex mutex;
  std::condition_variable given, done;
  const std::function<void(int)>* part = nullptr;
  int next = 0, parts = 0, running = 0;
  int helpers = 0;
  unsigned rounding = 0;  // how the launching thread rounds, and what it does with denormal numbers
  const pid_t process = getpid();

  void help() {
    std::unique_lock<std::mutex> lock(mutex);
    for (;;) {
      given.wait(lock, [&] { return next < parts; });
      const int mine = next++;
      const auto* f = part;
      running++;
      _mm_setcsr(rounding);
      lock.unlock();
      (*f)(mine);
      lock.lock();
      if (--running == 0 && next == parts) done.notify_one();
    }
  }
  void hire(int wanted) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are for the threads of the program
    try {
      for (; helpers < wanted; helpers++) std::thread([this] { help(); }).detach();
    } catch (const std::system_error&) {  // as many as there are
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
};

/// Never destroyed, since helpers sleep in it. A forked child has none of them, and makes a pool of its own.
Pool& pool() {
  static Pool* held = new Pool;
  if (held->process != getpid()) held = new Pool;
  return *held;
}

int allowed() {
  if (const char* e = std::getenv("DAGRT_EMULATOR_THREADS")) return std::max(1, std::min(std::atoi(e), 256));
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

}  // namespace

int workers_for(uint64_t blocks) {
  if (note_access) return 1;  // race.cpp and count.cpp remember every access, in one order
  const int most = allowed();
  if (blocks < 2 || most < 2) return 1;
  const int wanted = int(std::min<uint64_t>(blocks, uint64_t(most)));
  Pool& p = pool();
  if (p.helpers < wanted - 1) p.hire(wanted - 1);
  return std::min(wanted, p.helpers + 1);
}

void run_parts(int parts, const std::function<void(int)>& part) {
  if (parts == 1) return part(0);
  Pool& p = pool();
  std::unique_lock<std::mutex> lock(p.mutex);
  p.part = &part, p.next = 1, p.parts = parts, p.rounding = _mm_getcsr();
  for (int i = 1; i < parts; i++) p.given.notify_one();
  lock.unlock();
  part(0);
  lock.lock();
  while (p.next < p.parts) {
    const int mine = p.next++;
    lock.unlock();
    part(mine);
    lock.lock();
  }
  p.done.wait(lock, [&] { return p.running == 0; });
}

}  // namespace emulator
