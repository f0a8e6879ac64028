// Faults planted into kernels as they run, to see that they are found: README.md lists them.
#include <cstdlib>

#include "machine.h"

namespace emulator {

Fault planted = Fault::none;

namespace {
std::string place;  // file:line of a barrier; a number
int launches_left = 0;
}

void plant() {
  const char* text = std::getenv("DAGRT_EMULATOR_FAULT");
  const std::string fault = text ? text : "", kind = fault.substr(0, fault.find(' '));
  const std::string at = kind.size() < fault.size() ? fault.substr(kind.size() + 1) : "";
  if (kind == "lost" && (planted != Fault::lost || at != place)) launches_left = std::atoi(at.c_str());
  place = at;
  planted = kind == "barrier"     ? Fault::barrier
            : kind == "half"      ? Fault::half_barrier
            : kind == "copy_wait" ? Fault::copy_wait
            : kind == "grid_wait" ? Fault::grid_wait
            : kind == "fragment"  ? Fault::fragment
            : kind == "overlap"   ? Fault::overlap
            : kind == "beyond"    ? Fault::beyond
            : kind == "unwritten" ? Fault::unwritten
            : kind == "lost"      ? Fault::lost
                                  : Fault::none;
}

bool left_out(const Thread& t, const char* file, int line) {
  if (planted != Fault::barrier && (planted != Fault::half_barrier || t.number < t.block->threads.size() / 2)) return false;
  const std::string here = "/" + std::string(file) + ":" + std::to_string(line), end = "/" + place;
  return here.size() >= end.size() && here.compare(here.size() - end.size(), end.size(), end) == 0;
}

size_t operand_cut_short() { return planted == Fault::beyond ? size_t(std::atoi(place.c_str())) : SIZE_MAX; }
size_t operand_taken_for_unwritten() { return planted == Fault::unwritten ? size_t(std::atoi(place.c_str())) : SIZE_MAX; }
bool loses_device() { return planted == Fault::lost && launches_left-- == 0; }
bool passes_by(const char* file, int line) { return left_out(*worker->current, file, line); }
bool skips_grid_wait() { return planted == Fault::grid_wait; }
bool swaps_fragments() { return planted == Fault::fragment; }

}  // namespace emulator
