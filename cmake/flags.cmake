# Language, warnings and floating-point rules shared by every target through the interface library grist_flags.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1")  # asserts stay on
if(GRIST_SANITIZE)
  # Instrumented code compiles three to five times as long at -O2 as at -O0, and only kernels run long enough to feel the difference.
  set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O0 -g1")
endif()

find_program(GRIST_CCACHE ccache)
if(GRIST_CCACHE)
  # What ccache demands for precompiled headers, whatever the user's settings are.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${GRIST_CCACHE})
endif()

# Tests: a third of their compile time was optimization, and little of the time they run is in their own code.
if(NOT GRIST_SANITIZE)
  set(GRIST_TEST_FLAGS -Og -Wno-maybe-uninitialized)  # which is wrong more often at -Og
endif()

add_library(grist_flags INTERFACE)
target_include_directories(grist_flags INTERFACE ${PROJECT_SOURCE_DIR}/include)
set(GRIST_WARNINGS -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wnon-virtual-dtor)
# Decides bits; docs/numerics.md lists all such flags.
set(GRIST_ARITHMETIC -ffp-contract=off  # a*b+c is fused only where the code says fma
                     -fno-math-errno -fno-omit-frame-pointer)
target_compile_options(grist_flags INTERFACE $<$<COMPILE_LANGUAGE:C,CXX>:${GRIST_WARNINGS};${GRIST_ARITHMETIC}>)
if(CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)  # new warnings of newer compilers must not stop a user
  target_compile_options(grist_flags INTERFACE $<$<COMPILE_LANGUAGE:C,CXX>:-Werror>)
endif()
find_program(GRIST_MOLD mold)
if(GRIST_MOLD AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 12.1)
  target_link_options(grist_flags INTERFACE -fuse-ld=mold)
endif()
if(GRIST_SANITIZE)
  # -Wmaybe-uninitialized is wrong about std::variant once GCC 12 has instrumented it.
  target_compile_options(grist_flags INTERFACE -fsanitize=${GRIST_SANITIZE} -fno-sanitize-recover=all -Wno-maybe-uninitialized)
  target_link_options(grist_flags INTERFACE -fsanitize=${GRIST_SANITIZE})
endif()
