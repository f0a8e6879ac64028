# Compiles csrc/kernels/cuda by nvcc, or for the emulator. Sets cuda_objects and cuda_libraries, or nothing where DAGRT_CUDA is
# AUTO and there is no toolkit.
include(cmake/cuda_toolkit.cmake)
if(NOT DAGRT_CUDA_INCLUDE OR (NOT DAGRT_NVCC AND NOT DAGRT_CUDA STREQUAL "EMULATOR"))
  if(DAGRT_CUDA STREQUAL "AUTO")
    message(STATUS "no CUDA toolkit: built without CUDA devices")
    return()
  endif()
  message(FATAL_ERROR "DAGRT_CUDA=${DAGRT_CUDA}, but there is no CUDA toolkit: put nvcc on PATH, set DAGRT_CUDA_ROOT, or "
    "pip install nvidia-cuda-nvcc nvidia-cuda-runtime nvidia-cuda-crt nvidia-nvvm")
endif()

if(DAGRT_CUDA STREQUAL "EMULATOR")
  include(cmake/emulator.cmake)
  option(DAGRT_EMULATOR_RACES "watch every access of emulated kernels for races" OFF)
  if(DAGRT_EMULATOR_RACES)
    add_emulated_kernels(races cuda_objects)
  else()
    add_emulated_kernels(plain cuda_objects)
  endif()
  set(cuda_libraries dl)
else()
  set(cuda_flags -std=c++17 -O3 -diag-suppress 186 -Xcompiler -fPIC,-fvisibility=hidden)
  # All generations in the smallest form, which the driver unpacks when a kernel is first loaded: an eighth of its bytes.
  execute_process(COMMAND "${DAGRT_NVCC}" --help OUTPUT_VARIABLE nvcc_help ERROR_QUIET)
  if(nvcc_help MATCHES "--compress-mode")
    list(APPEND cuda_flags --compress-mode=size)
  else()
    list(APPEND cuda_flags -Xfatbin -compress-all)
  endif()
  # A generation's code runs on others of its tens. PTX is for those that are not here: of the last, for newer ones, and of 100,
  # for 110, which that of 120 is too new for.
  foreach(arch ${DAGRT_CUDA_ARCHS})
    list(APPEND cuda_flags -gencode arch=compute_${arch},code=sm_${arch})
    set(newest ${arch})
  endforeach()
  list(APPEND cuda_flags -Xptxas -v)
  foreach(arch ${DAGRT_CUDA_ARCHS})
    if(arch EQUAL newest OR arch EQUAL 100)
      list(APPEND cuda_flags -gencode arch=compute_${arch},code=compute_${arch})
    endif()
  endforeach()
  # Registers and spills of every kernel stay beside its object, for bench/cuda_kernels.py; what else nvcc says is shown.
  set(keep_log [["$@" 2>"$0"; result=$?; grep -vE "^ptxas info|^    [0-9]+ bytes" "$0" >&2; exit $result]])
  foreach(source ${cuda_sources})
    get_filename_component(stem "${source}" NAME_WE)
    set(object "${CMAKE_BINARY_DIR}/cuda/${stem}.o")
    add_custom_command(OUTPUT "${object}"
      COMMAND "${CMAKE_COMMAND}" -E make_directory "${CMAKE_BINARY_DIR}/cuda"
      COMMAND sh -c "${keep_log}" "${object}.log" "${DAGRT_NVCC}" ${cuda_flags} -I "${CMAKE_SOURCE_DIR}/csrc" -I "${DAGRT_CUDA_INCLUDE}" -MD -MF "${object}.d"
        -c "${source}" -o "${object}"
      DEPENDS "${source}" DEPFILE "${object}.d" COMMENT "nvcc ${stem}.cu" VERBATIM)
    list(APPEND cuda_objects "${object}")
  endforeach()
  add_custom_target(cuda_kernels DEPENDS ${cuda_objects})
  set_source_files_properties(${cuda_objects} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
  find_library(DAGRT_CUDART cudart_static HINTS "${cuda_root}/lib64" "${cuda_root}/lib" "${cuda_package}/lib" /usr/local/cuda/lib64)
  set(cuda_libraries "${DAGRT_CUDART}" dl rt)
endif()
message(STATUS "CUDA devices: ${DAGRT_CUDA} (${DAGRT_CUDA_INCLUDE})")
