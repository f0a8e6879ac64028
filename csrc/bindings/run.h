// What the ways of running a function share: the GIL is released, signals are looked at, errors come back as Python's.
#pragma once
#include <pybind11/pybind11.h>

#include "api/dagrt.h"

namespace dagrt::bindings {

struct WithoutGil {
  PyThreadState* state = PyEval_SaveThread();
  ~WithoutGil() { PyEval_RestoreThread(state); }
};

CancelPoll poll_for_this_thread();
/// In a handler of `Error`: what a signal handler raised, other than KeyboardInterrupt, goes on in its stead.
void rethrow_interruption();

/// Runs work(poll) without the GIL. On the main thread signal handlers run at times; what one raises ends the run.
template <class F> void run_released(const F& work) {
  CancelPoll poll = poll_for_this_thread();
  try {
    WithoutGil released;
    work(poll);
  } catch (const Error& e) {
    if (e.kind == ErrorKind::cancelled) rethrow_interruption();
    throw;
  }
}

/// In a catch (...): sets Python's error for the exception, for functions that pybind11 does not wrap.
void set_python_error() noexcept;

}  // namespace dagrt::bindings
