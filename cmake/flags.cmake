# Language, warnings and floating-point rules shared by every target through the interface library grist_flags.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1")  # asserts stay on

find_program(GRIST_CCACHE ccache)
if(GRIST_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${GRIST_CCACHE})
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
