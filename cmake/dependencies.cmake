# Everything comes from the distribution's packages (scripts/install_dependencies.sh); nothing is downloaded here.
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(simdjson REQUIRED)
find_package(CLI11 REQUIRED)
find_package(GTest REQUIRED)
find_package(ZLIB REQUIRED)
find_package(MPI REQUIRED COMPONENTS C)
find_package(PkgConfig REQUIRED)
pkg_check_modules(zstd REQUIRED IMPORTED_TARGET libzstd)
pkg_check_modules(pcre2 REQUIRED IMPORTED_TARGET libpcre2-8)
find_package(BLAS)  # OpenBLAS: the yardstick of the benchmarks, not on the training path

if(NOT GRIST_CUDA STREQUAL "OFF")
  message(STATUS "CUDA backend: not part of this version; building the CPU backend only")
endif()
