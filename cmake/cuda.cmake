# Finds nvcc (on PATH, in DAGRT_CUDA_ROOT, or as the PyPI packages nvidia-cuda-nvcc and nvidia-cuda-runtime) and compiles
# csrc/kernels/cuda. Sets cuda_objects and cuda_libraries, or nothing where DAGRT_CUDA is AUTO and there is no toolkit.
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
if(NOT DAGRT_CUDA_INCLUDE OR (NOT DAGRT_NVCC AND NOT DAGRT_CUDA STREQUAL "EMULATOR"))
  if(DAGRT_CUDA STREQUAL "AUTO")
    message(STATUS "no CUDA toolkit: built without CUDA devices")
    return()
  endif()
  message(FATAL_ERROR "DAGRT_CUDA=${DAGRT_CUDA}, but there is no CUDA toolkit: put nvcc on PATH, set DAGRT_CUDA_ROOT, or "
    "pip install nvidia-cuda-nvcc nvidia-cuda-runtime nvidia-cuda-crt nvidia-nvvm")
endif()

add_compile_definitions(DAGRT_HAVE_CUDA)
if(DAGRT_CUDA STREQUAL "EMULATOR")
  # The kernels as host C++: the emulator's headers stand before the toolkit's.
  set(emulator "${CMAKE_SOURCE_DIR}/tests/cuda_emulator")
  set_source_files_properties(${cuda_sources} PROPERTIES LANGUAGE CXX)
  add_library(cuda_kernels OBJECT ${cuda_sources})
  target_include_directories(cuda_kernels PRIVATE "${emulator}" csrc SYSTEM "${DAGRT_CUDA_INCLUDE}")
  target_compile_definitions(cuda_kernels PRIVATE DAGRT_CUDA_EMULATOR)
  target_compile_options(cuda_kernels PRIVATE -x c++ -O2 -Wno-unknown-pragmas -Wno-unused-function)
  option(DAGRT_EMULATOR_RACES "watch every access of emulated kernels for races" OFF)
  if(DAGRT_EMULATOR_RACES)  # the sanitizer's calls, answered by race.cpp; its library is not linked
    target_compile_options(cuda_kernels PRIVATE -O1 -g1 -fno-tree-sra -fsanitize=thread)
    set(emulator_races "${emulator}/race.cpp" "${emulator}/count.cpp")
  endif()
  set(emulator_sources "${emulator}/emulator.cpp" "${emulator}/runtime.cpp" "${emulator}/sample.cpp")
  add_library(cuda_emulator OBJECT ${emulator_sources} ${emulator_races})
  target_include_directories(cuda_emulator PRIVATE "${emulator}" SYSTEM "${DAGRT_CUDA_INCLUDE}")
  target_compile_options(cuda_emulator PRIVATE -O2)
  set(cuda_objects $<TARGET_OBJECTS:cuda_kernels> $<TARGET_OBJECTS:cuda_emulator>)
  set(cuda_libraries dl)
else()
  set(cuda_flags -std=c++17 -O3 -DDAGRT_HAVE_CUDA -diag-suppress 186 -Xcompiler -fPIC,-fvisibility=hidden)
  foreach(arch ${DAGRT_CUDA_ARCHS})
    list(APPEND cuda_flags -gencode arch=compute_${arch},code=sm_${arch})
    set(newest ${arch})
  endforeach()
  list(APPEND cuda_flags -gencode arch=compute_${newest},code=compute_${newest})
  foreach(source ${cuda_sources})
    get_filename_component(stem "${source}" NAME_WE)
    set(object "${CMAKE_BINARY_DIR}/cuda/${stem}.o")
    add_custom_command(OUTPUT "${object}"
      COMMAND "${CMAKE_COMMAND}" -E make_directory "${CMAKE_BINARY_DIR}/cuda"
      COMMAND "${DAGRT_NVCC}" ${cuda_flags} -I "${CMAKE_SOURCE_DIR}/csrc" -I "${DAGRT_CUDA_INCLUDE}" -MD -MF "${object}.d"
        -c "${source}" -o "${object}"
      DEPENDS "${source}" DEPFILE "${object}.d" COMMENT "nvcc ${stem}.cu" VERBATIM)
    list(APPEND cuda_objects "${object}")
  endforeach()
  add_custom_target(cuda_kernels DEPENDS ${cuda_objects})
  set_source_files_properties(${cuda_objects} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
  find_library(DAGRT_CUDART cudart_static HINTS "${cuda_root}/lib64" "${cuda_root}/lib" "${cuda_package}/lib" /usr/local/cuda/lib64)
  set(cuda_libraries "${DAGRT_CUDART}" dl rt)
endif()
set_source_files_properties(csrc/runtime/cuda_device.cpp PROPERTIES INCLUDE_DIRECTORIES "${DAGRT_CUDA_INCLUDE}")
message(STATUS "CUDA devices: ${DAGRT_CUDA} (${DAGRT_CUDA_INCLUDE})")
if(DAGRT_CUDA STREQUAL "EMULATOR" AND DAGRT_TESTS)
  find_path(DOCTEST_INCLUDE doctest/doctest.h REQUIRED)
  add_executable(emulator_tests EXCLUDE_FROM_ALL "${emulator}/test_emulator.cpp" "${emulator}/test_counts.cpp"
    tests/native/main.cpp "${emulator}/race.cpp" "${emulator}/count.cpp" ${emulator_sources})
  set_source_files_properties("${emulator}/test_emulator.cpp" "${emulator}/test_counts.cpp" PROPERTIES
    COMPILE_OPTIONS "-O1;-g1;-fno-tree-sra;-fsanitize=thread;-Wno-unknown-pragmas;-Wno-unused-function" COMPILE_DEFINITIONS DAGRT_CUDA_EMULATOR)
  target_include_directories(emulator_tests PRIVATE "${emulator}" csrc "${DOCTEST_INCLUDE}" SYSTEM "${DAGRT_CUDA_INCLUDE}")
endif()
