// What ops and the runtime do otherwise where a step runs on a CUDA device, whose memory the host cannot look at.
#pragma once
#include "ops/op.h"

namespace dagrt {

struct CudaStream;

/// Reports the first id outside [0, limit), or with limit -1 the first 0, to the run's status word on the device.
void check_on_device(const RunContext& c, const View& ids, int64_t limit);

/// The executor's own work, in the stream's order and under its gate.
void copy_on(CudaStream& s, void* to, const void* from, size_t bytes);
void put_on(CudaStream& s, int32_t* to, int32_t value);

}  // namespace dagrt
