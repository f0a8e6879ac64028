# Kernel benchmarks (bench/cpp): Google Benchmark, and whatever reference frameworks are found. Absent ones are left out.
#   torch     from the wheel of the Python that CMake was given, or Torch_DIR
#   oneDNN 3  pip install onednn-devel-cpu-gomp, or libdnnl-dev of Debian 13; CMAKE_PREFIX_PATH
#   OpenBLAS  apt install libopenblas-dev
find_package(benchmark REQUIRED)
add_library(bench_harness STATIC bench/cpp/harness.cpp bench/cpp/direct.cpp)
set_source_files_properties(bench/cpp/harness.cpp PROPERTIES COMPILE_OPTIONS "-O3;-march=native;-Wno-psabi")  # for the peak
target_link_libraries(bench_harness PUBLIC dagrt_core benchmark::benchmark)

set(bench_peers "")
function(bench_peer name) # target and its libraries
  add_library(peers_${name} OBJECT bench/cpp/peers_${name}.cpp)
  target_link_libraries(peers_${name} PRIVATE bench_harness ${ARGN})
  set(bench_peers ${bench_peers} ${name} PARENT_SCOPE)
endfunction()

if(NOT DEFINED Torch_DIR)
  execute_process(COMMAND "${Python_EXECUTABLE}" -c "import torch; print(torch.utils.cmake_prefix_path)"
    OUTPUT_VARIABLE torch_prefix OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
find_path(TORCH_INCLUDE ATen/ATen.h HINTS "${torch_prefix}/../../include" "${Torch_DIR}/../../../include")
find_library(TORCH_CPU torch_cpu HINTS "${torch_prefix}/../../lib" "${Torch_DIR}/../../../lib")
find_library(C10 c10 HINTS "${torch_prefix}/../../lib" "${Torch_DIR}/../../../lib")
if(TORCH_INCLUDE AND TORCH_CPU AND C10)
  add_library(bench_torch INTERFACE)
  target_include_directories(bench_torch SYSTEM INTERFACE ${TORCH_INCLUDE} ${TORCH_INCLUDE}/torch/csrc/api/include)
  target_link_libraries(bench_torch INTERFACE ${TORCH_CPU} ${C10})
  get_filename_component(torch_libraries "${TORCH_CPU}" DIRECTORY)
  bench_peer(torch bench_torch)
  target_compile_features(peers_torch PRIVATE cxx_std_20)
endif()

find_package(dnnl 3 CONFIG QUIET)
if(dnnl_FOUND)
  bench_peer(onednn DNNL::dnnl)
  get_filename_component(onednn_libraries "${dnnl_DIR}/../.." ABSOLUTE)
endif()

find_path(OPENBLAS_INCLUDE openblas_config.h PATH_SUFFIXES openblas ${CMAKE_LIBRARY_ARCHITECTURE})
find_library(OPENBLAS openblas)
if(OPENBLAS_INCLUDE AND OPENBLAS)
  add_library(bench_openblas INTERFACE)
  target_include_directories(bench_openblas INTERFACE ${OPENBLAS_INCLUDE})
  target_link_libraries(bench_openblas INTERFACE ${OPENBLAS})
  bench_peer(openblas bench_openblas)
endif()

foreach(name torch onednn openblas)
  if(NOT TARGET peers_${name})
    message(STATUS "benchmarks: ${name} not found, left out")
  endif()
endforeach()

foreach(family matmul conv2d depthwise lstm batch_norm pool2d softmax pointwise optimizer)
  add_executable(bench_${family} bench/cpp/${family}.cpp)
  target_link_libraries(bench_${family} PRIVATE bench_harness)
  if(TARGET peers_torch)  # torch's folder has a libgomp too, which one cannot tell from the compiler's by its name
    set_target_properties(bench_${family} PROPERTIES SKIP_BUILD_RPATH ON)
    target_link_options(bench_${family} PRIVATE "-Wl,-rpath,${torch_libraries}:${onednn_libraries}")
  endif()
  foreach(name ${bench_peers})
    target_link_libraries(bench_${family} PRIVATE peers_${name})
  endforeach()
endforeach()
foreach(ladder matmul conv2d winograd lstm)
  add_executable(ladder_${ladder} bench/ladders/${ladder}.cpp)
  target_compile_options(ladder_${ladder} PRIVATE -O3 -march=native -Wno-psabi)
  target_link_libraries(ladder_${ladder} PRIVATE bench_harness)
endforeach()
add_executable(bench_threads bench/cpp/threads.cpp)
target_link_libraries(bench_threads PRIVATE dagrt_core benchmark::benchmark)
