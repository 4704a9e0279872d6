# grist_module(NAME sources... DEPENDS modules... LINK libraries...): static library grist_NAME.
function(grist_module name)
  cmake_parse_arguments(M "" "" "DEPENDS;LINK" ${ARGN})
  add_library(grist_${name} STATIC ${M_UNPARSED_ARGUMENTS})
  list(TRANSFORM M_DEPENDS PREPEND grist_)
  target_link_libraries(grist_${name} PUBLIC grist_flags ${M_DEPENDS} PRIVATE ${M_LINK})
endfunction()

# grist_test(NAME sources... DEPENDS modules... LINK libraries...): one GoogleTest binary a module, each test known to ctest.
function(grist_test name)
  cmake_parse_arguments(T "" "TIMEOUT" "DEPENDS;LINK;LABELS" ${ARGN})
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 300)
  endif()
  add_executable(${name}_test ${T_UNPARSED_ARGUMENTS})
  list(TRANSFORM T_DEPENDS PREPEND grist_)
  target_link_libraries(${name}_test PRIVATE grist_flags ${T_DEPENDS} ${T_LINK} GTest::gtest_main)
  target_include_directories(${name}_test PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_compile_definitions(${name}_test PRIVATE GRIST_TESTS_DIR="${PROJECT_SOURCE_DIR}/tests"
                                                  GRIST_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  gtest_discover_tests(${name}_test TEST_PREFIX "${name}/" DISCOVERY_MODE PRE_TEST PROPERTIES TIMEOUT ${T_TIMEOUT} LABELS "${T_LABELS}")
endfunction()
include(GoogleTest)
