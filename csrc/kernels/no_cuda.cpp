// The CUDA twins of builds without CUDA, where no stream leads to them.
#define DAGRT_TWIN(name, Args) \
  void name(const Args&, CudaStream&) {}

#include "kernels/batch_norm.h"
#include "kernels/bf16.h"
#include "kernels/check.h"
#include "kernels/conv2d.h"
#include "kernels/indexing.h"
#include "kernels/layout.h"
#include "kernels/lstm.h"
#include "kernels/matmul.h"
#include "kernels/optimizer.h"
#include "kernels/pointwise.h"
#include "kernels/pool2d.h"
#include "kernels/random.h"
#include "kernels/reduce.h"
#include "kernels/softmax.h"
