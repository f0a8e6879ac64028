# CUDA kernels as host C++, run by tests/cuda_emulator, in three kinds that share all other objects:
#   plain   as they are
#   races   every access watched, by the calls of -fsanitize=thread, which race.cpp answers: races, counts
#   asan    with AddressSanitizer, stacks of fibers included
# Of the toolkit it needs the headers.
include_guard()
include(cmake/cuda_toolkit.cmake)
if(NOT DAGRT_CUDA_INCLUDE)
  message(FATAL_ERROR "emulated CUDA needs the toolkit's headers: pip install nvidia-cuda-runtime nvidia-cuda-crt, or set DAGRT_CUDA_ROOT")
endif()
set(emulator "${CMAKE_SOURCE_DIR}/tests/cuda_emulator")
set(emulator_sources "")
foreach(name emulator workers block runtime written sample plant)
  list(APPEND emulator_sources "${emulator}/${name}.cpp")
endforeach()
set(emulator_plain_options -O1)
set(emulator_races_options -O1 -g1 -fno-tree-sra -fsanitize=thread)
set(emulator_asan_options -O1 -g1 -fno-omit-frame-pointer -fsanitize=address)
file(GLOB cuda_sources CONFIGURE_DEPENDS csrc/kernels/cuda/*.cu)
set_source_files_properties(${cuda_sources} PROPERTIES LANGUAGE CXX)

function(add_emulator kind)  # compiled as the kernels, but not watched itself
  if(TARGET cuda_emulator_${kind})
    return()
  endif()
  add_library(cuda_emulator_${kind} OBJECT EXCLUDE_FROM_ALL ${emulator_sources})
  target_include_directories(cuda_emulator_${kind} PRIVATE "${emulator}" SYSTEM "${DAGRT_CUDA_INCLUDE}")
  target_compile_options(cuda_emulator_${kind} PRIVATE -O2)
  if(kind STREQUAL "races")
    target_sources(cuda_emulator_races PRIVATE "${emulator}/race.cpp" "${emulator}/count.cpp")
  elseif(kind STREQUAL "asan")
    target_compile_options(cuda_emulator_asan PRIVATE ${emulator_asan_options})
  endif()
endfunction()

function(add_emulated_kernels kind objects)
  if(NOT TARGET cuda_kernels_${kind})
    add_library(cuda_kernels_${kind} OBJECT EXCLUDE_FROM_ALL ${cuda_sources})
    target_include_directories(cuda_kernels_${kind} PRIVATE "${emulator}" csrc SYSTEM "${DAGRT_CUDA_INCLUDE}")
    target_compile_definitions(cuda_kernels_${kind} PRIVATE DAGRT_CUDA_EMULATOR)
    target_compile_options(cuda_kernels_${kind} PRIVATE -x c++ -Wno-unknown-pragmas -Wno-unused-function ${emulator_${kind}_options})
    add_emulator(${kind})
  endif()
  set(${objects} $<TARGET_OBJECTS:cuda_kernels_${kind}> $<TARGET_OBJECTS:cuda_emulator_${kind}> PARENT_SCOPE)
endfunction()

# The extension with emulated kernels of that kind, in emulated/<kind>/dagrt of the build folder.
function(add_emulated_module kind)
  add_emulated_kernels(${kind} objects)
  pybind11_add_module(_core_${kind} NO_EXTRAS $<TARGET_OBJECTS:bindings> ${objects} $<TARGET_OBJECTS:cuda_device>)
  target_link_libraries(_core_${kind} PRIVATE dagrt_parts dl)
  set_target_properties(_core_${kind} PROPERTIES OUTPUT_NAME _core
    LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/emulated/${kind}/dagrt")
  if(kind STREQUAL "asan")
    target_link_options(_core_${kind} PRIVATE -fsanitize=address)
  endif()
endfunction()

# The emulator's own tests: kernels with planted faults, counts derived by hand; and blocks on several OS threads, which only
# kinds have that do not watch every access.
function(add_emulator_tests)
  find_path(DOCTEST_INCLUDE doctest/doctest.h REQUIRED)
  file(GLOB sources CONFIGURE_DEPENDS "${emulator}/test_*.cpp")
  set(worker_sources "${emulator}/test_workers.cpp")
  list(REMOVE_ITEM sources ${worker_sources})
  foreach(kind races plain)
    add_emulator(${kind})
    set(name emulator_tests)
    if(kind STREQUAL "plain")
      set(name emulator_workers_tests)
      set(sources ${worker_sources})
    endif()
    set_source_files_properties(${sources} PROPERTIES COMPILE_OPTIONS
      "${emulator_${kind}_options};-Wno-unknown-pragmas;-Wno-unused-function" COMPILE_DEFINITIONS DAGRT_CUDA_EMULATOR)
    add_executable(${name} ${sources} tests/native/main.cpp $<TARGET_OBJECTS:cuda_emulator_${kind}>)
    target_include_directories(${name} PRIVATE "${emulator}" csrc "${DOCTEST_INCLUDE}" SYSTEM "${DAGRT_CUDA_INCLUDE}")
    target_link_libraries(${name} PRIVATE Threads::Threads dl)
  endforeach()
endfunction()
