# Headers of the standard library and of third parties that most files parse: compiled once for all files with the same flags
# (here those of the modules and of the tests, in tests/cuda_emulation those of the emulated kernels and their tests). None of
# our own, so that a change of a header compiles only what includes it. The preset "cuda" does without
# (CMAKE_DISABLE_PRECOMPILE_HEADERS), which shows an include that is missing.
set(GRIST_COMMON_HEADERS <algorithm> <array> <atomic> <chrono> <cmath> <cstdint> <cstring> <filesystem> <functional> <limits> <map>
                         <memory> <mutex> <numeric> <optional> <span> <string> <string_view> <thread> <utility> <vector> <fmt/core.h>)
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/no_code.cpp CONTENT "")

# grist_precompiled(NAME headers... LINK libraries... FLAGS flags...): what other targets name in REUSE_FROM. A user may have
# more definitions than this target, but none less.
function(grist_precompiled name)
  cmake_parse_arguments(P "" "" "LINK;FLAGS" ${ARGN})
  add_library(${name} OBJECT EXCLUDE_FROM_ALL ${PROJECT_BINARY_DIR}/no_code.cpp)
  target_link_libraries(${name} PRIVATE grist_flags Threads::Threads ${P_LINK})
  target_compile_options(${name} PRIVATE ${P_FLAGS})
  target_precompile_headers(${name} PRIVATE ${P_UNPARSED_ARGUMENTS})
endfunction()
grist_precompiled(grist_headers ${GRIST_COMMON_HEADERS} LINK fmt::fmt)
grist_precompiled(grist_test_headers ${GRIST_COMMON_HEADERS} <gtest/gtest.h> LINK fmt::fmt GTest::gtest FLAGS ${GRIST_TEST_FLAGS})
