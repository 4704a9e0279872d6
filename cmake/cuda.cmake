# The CUDA backend (GRIST_NVCC) and its emulation on the CPU (GRIST_CUDA_INCLUDE, for the tests). The toolkit's headers suffice for the
# second; the first needs nvcc. GRIST_CUDA: AUTO builds the backend where nvcc is, ON demands it, OFF does without.
set(GRIST_NVCC OFF)
if(NOT GRIST_CUDA STREQUAL "OFF")
  find_program(GRIST_NVCC_PATH nvcc HINTS $ENV{CUDA_HOME}/bin /usr/local/cuda/bin)
  if(GRIST_NVCC_PATH)
    # CMake 3.25 would try its compiler test on an architecture that CUDA 13 no longer has.
    set(CMAKE_CUDA_ARCHITECTURES 80-real)
    set(CMAKE_CUDA_COMPILER ${GRIST_NVCC_PATH})
    enable_language(CUDA)
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # nor does it know that nvcc speaks C++20
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    endif()
    set(CMAKE_CUDA_EXTENSIONS OFF)
    set(GRIST_NVCC ON)
    add_custom_target(gpu_programs)  # all that is of use on a machine with a GPU: what scripts/bundle.sh packs
    message(STATUS "CUDA backend: nvcc ${CMAKE_CUDA_COMPILER_VERSION}")
  elseif(GRIST_CUDA STREQUAL "ON")
    message(FATAL_ERROR "GRIST_CUDA=ON, but there is no nvcc; set CUDA_HOME or put it on PATH")
  else()
    message(STATUS "CUDA backend: no nvcc found, building the CPU backend only")
  endif()
endif()

find_path(GRIST_CUDA_INCLUDE cuda_runtime.h HINTS $ENV{CUDA_HOME}/include /usr/local/cuda/include)
if(NOT GRIST_CUDA_INCLUDE)
  message(STATUS "CUDA emulation: no cuda_runtime.h found (set CUDA_HOME); its tests are left out")
endif()
