# Finds nvcc and the toolkit's headers: on PATH, in DAGRT_CUDA_ROOT, or as the PyPI packages nvidia-cuda-nvcc and
# nvidia-cuda-runtime. What calls the runtime is one file, `cuda_device`.
include_guard()
set(DAGRT_CUDA_ROOT "" CACHE PATH "folder of the CUDA toolkit; empty: looked for")
execute_process(
  COMMAND "${Python_EXECUTABLE}" -c "import nvidia.cu13, os; print(list(nvidia.cu13.__path__)[0])"
  OUTPUT_VARIABLE cuda_package OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
find_program(DAGRT_NVCC nvcc HINTS "${DAGRT_CUDA_ROOT}/bin" "${cuda_package}/bin" /usr/local/cuda/bin)
if(DAGRT_NVCC)
  file(REAL_PATH "${DAGRT_NVCC}" nvcc_path)
  get_filename_component(cuda_root "${nvcc_path}" DIRECTORY)
  get_filename_component(cuda_root "${cuda_root}" DIRECTORY)
endif()
find_path(DAGRT_CUDA_INCLUDE cuda_runtime_api.h HINTS "${DAGRT_CUDA_ROOT}/include" "${cuda_root}/include" "${cuda_package}/include"
  /usr/local/cuda/include)
if(DAGRT_CUDA_INCLUDE)
  add_library(cuda_device OBJECT EXCLUDE_FROM_ALL csrc/runtime/cuda_device.cpp)
  target_include_directories(cuda_device PRIVATE csrc SYSTEM "${DAGRT_CUDA_INCLUDE}")
  string(REGEX MATCHALL "[0-9]+" generations "${DAGRT_CUDA_ARCHS}")
  list(JOIN generations "," generations)
  target_compile_definitions(cuda_device PRIVATE "DAGRT_CUDA_ARCHS=${generations}")
endif()
