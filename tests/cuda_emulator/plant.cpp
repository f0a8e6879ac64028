// Faults planted into kernels as they run, to see that they are found: README.md lists them.
#include <cstdlib>

#include "machine.h"

namespace emulator {

Fault planted = Fault::none;

namespace {
std::string place;  // file:line of a barrier
}

void plant() {
  const char* text = std::getenv("DAGRT_EMULATOR_FAULT");
  const std::string fault = text ? text : "", kind = fault.substr(0, fault.find(' '));
  place = kind.size() < fault.size() ? fault.substr(kind.size() + 1) : "";
  planted = kind == "barrier"     ? Fault::barrier
            : kind == "half"      ? Fault::half_barrier
            : kind == "copy_wait" ? Fault::copy_wait
            : kind == "grid_wait" ? Fault::grid_wait
            : kind == "fragment"  ? Fault::fragment
            : kind == "overlap"   ? Fault::overlap
                                  : Fault::none;
}

bool left_out(const Thread& t, const char* file, int line) {
  if (planted != Fault::barrier && (planted != Fault::half_barrier || t.number < t.block->threads.size() / 2)) return false;
  const std::string here = "/" + std::string(file) + ":" + std::to_string(line), end = "/" + place;
  return here.size() >= end.size() && here.compare(here.size() - end.size(), end.size(), end) == 0;
}

bool skips_grid_wait() { return planted == Fault::grid_wait; }
bool swaps_fragments() { return planted == Fault::fragment; }

}  // namespace emulator
