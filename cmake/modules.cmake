# grist_module(NAME sources... DEPENDS modules... LINK libraries...): static library grist_NAME.
function(grist_module name)
  cmake_parse_arguments(M "" "" "DEPENDS;LINK" ${ARGN})
  add_library(grist_${name} STATIC ${M_UNPARSED_ARGUMENTS})
  list(TRANSFORM M_DEPENDS PREPEND grist_)
  target_link_libraries(grist_${name} PUBLIC grist_flags ${M_DEPENDS} PRIVATE ${M_LINK})
  target_precompile_headers(grist_${name} REUSE_FROM grist_headers)
endfunction()

# grist_runs_long(TARGETS...): they work through so many bytes that under sanitizers -O0 costs more time than it saves (cmake/flags.cmake).
function(grist_runs_long)
  if(GRIST_SANITIZE)
    foreach(target IN LISTS ARGN)
      target_compile_options(${target} PRIVATE -O1)
      set_target_properties(${target} PROPERTIES DISABLE_PRECOMPILE_HEADERS ON)
    endforeach()
  endif()
endfunction()

# All tests' programs, without the libraries that none of them needs.
add_custom_target(tests)

# grist_test(NAME sources... DEPENDS modules... LINK libraries...): one GoogleTest binary a module, each test known to ctest.
# CROWDED: a GoogleTest filter of those that start more processes than there are cores: never two of them at a time.
function(grist_test name)
  cmake_parse_arguments(T "" "TIMEOUT;CROWDED" "DEPENDS;LINK" ${ARGN})
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 300)
  endif()
  add_executable(${name}_test ${T_UNPARSED_ARGUMENTS})
  add_dependencies(tests ${name}_test)
  list(TRANSFORM T_DEPENDS PREPEND grist_)
  target_link_libraries(${name}_test PRIVATE grist_flags ${T_DEPENDS} ${T_LINK} GTest::gtest_main)
  target_precompile_headers(${name}_test REUSE_FROM grist_test_headers)
  target_compile_options(${name}_test PRIVATE ${GRIST_TEST_FLAGS})
  target_include_directories(${name}_test PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_compile_definitions(${name}_test PRIVATE GRIST_TESTS_DIR="${PROJECT_SOURCE_DIR}/tests"
                                                  GRIST_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  set(discover TEST_PREFIX "${name}/" DISCOVERY_MODE PRE_TEST PROPERTIES TIMEOUT ${T_TIMEOUT})
  if(T_CROWDED)
    gtest_discover_tests(${name}_test TEST_FILTER "${T_CROWDED}" TEST_LIST ${name}_crowded ${discover} RESOURCE_LOCK crowd COST 100)
    gtest_discover_tests(${name}_test TEST_FILTER "-${T_CROWDED}" ${discover})
  else()
    gtest_discover_tests(${name}_test ${discover})
  endif()
endfunction()
include(GoogleTest)

# grist_mpi_test(NAME sources... RANKS n... DEPENDS modules... LINK libraries...): one GoogleTest binary, NAME_mpi_test, that
# ctest starts under mpirun with each number of ranks, as NAME/mpi-n. Tests take their ranks from tests/support/mpi_ranks.h.
function(grist_mpi_test name)
  cmake_parse_arguments(T "" "TIMEOUT" "RANKS;DEPENDS;LINK" ${ARGN})
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 120)
  endif()
  add_executable(${name}_mpi_test ${T_UNPARSED_ARGUMENTS} ${PROJECT_SOURCE_DIR}/tests/support/mpi_main.cpp)
  add_dependencies(tests ${name}_mpi_test)
  list(TRANSFORM T_DEPENDS PREPEND grist_)
  target_link_libraries(${name}_mpi_test PRIVATE grist_flags ${T_DEPENDS} ${T_LINK} GTest::gtest)
  target_precompile_headers(${name}_mpi_test REUSE_FROM grist_test_headers)
  target_compile_options(${name}_mpi_test PRIVATE ${GRIST_TEST_FLAGS})
  target_include_directories(${name}_mpi_test PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_compile_definitions(${name}_mpi_test PRIVATE GRIST_TESTS_DIR="${PROJECT_SOURCE_DIR}/tests"
                                                      GRIST_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  foreach(ranks IN LISTS T_RANKS)
    add_test(NAME ${name}/mpi-${ranks}
             COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} --oversubscribe --timeout ${T_TIMEOUT} $<TARGET_FILE:${name}_mpi_test>)
    math(EXPR after "${T_TIMEOUT} + 10")
    set_tests_properties(${name}/mpi-${ranks} PROPERTIES TIMEOUT ${after} PROCESSORS 2
                         ENVIRONMENT "OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1")
  endforeach()
endfunction()
