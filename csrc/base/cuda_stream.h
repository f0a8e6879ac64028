// Where the steps of a run go on a CUDA device: a stream of the driver, and what every kernel must know beside its
// arguments. It needs no header of the toolkit.
#pragma once
#include <cstddef>
#include <cstdint>

struct CUstream_st;

namespace dagrt {

/// A run's fault, in device memory: as ops/op.h's Status. `first` collects the lowest position of one check.
struct DeviceStatus {
  int32_t code = 0, node = -1;
  int64_t index = 0, value = 0, limit = 0;
  unsigned long long first = ~0ull;
};

/// Every kernel's first argument. A store of the commit does nothing where the run met a fault, its guard is false, or
/// its own predicate is: so the host need not look at them between steps and commit. Null: no condition.
struct Gate {
  const DeviceStatus* status = nullptr;
  const bool* guard = nullptr;
  const bool* when = nullptr;
  int32_t* begun = nullptr;  // the host's memory: a kernel that begins leaves its number there, for who asks which one failed
  int32_t number = 0;
};

struct CudaStream;
struct View;

/// Who looks on while kernels are launched.
class LaunchWatch {
 public:
  virtual void before(CudaStream& s, const char* kernel, bool together) = 0;  // together: its blocks wait for each other
  virtual void after(CudaStream& s, const char* kernel, bool together) = 0;

 protected:
  ~LaunchWatch() = default;
};

struct CudaStream {
  CUstream_st* handle = nullptr;
  Gate gate;
  DeviceStatus* status = nullptr;  // of the run, for ops that check
  int multiprocessors = 1;
  int capability = 80;             // 75, 80, 90 ...
  size_t shared_bytes = 48 << 10;  // of shared memory, at most, for one block
  bool exact = false;              // products in full float32; else TF32 where the device has it
  char* scratch = nullptr;         // scratch_parts pieces of scratch_bytes, for kernels that need memory for each block
  size_t scratch_bytes = 0;
  LaunchWatch* watch = nullptr;
  const View* operands = nullptr;  // of the step at hand, which may touch nothing else but its workspace: for emulators
  int32_t operand_count = 0;
  int32_t unmade = 0;  // the last of them: outputs that nothing was launched for yet; 0 where launches may leave them as they are
  const char* workspace = nullptr;
  size_t workspace_bytes = 0;
  const char* refused = nullptr;  // the first kernel whose launch failed, with the driver's words
  const char* reason = nullptr;
};

inline constexpr int64_t scratch_parts = 32;

}  // namespace dagrt
