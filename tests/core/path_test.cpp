// What of a path only a shell expands.
#include "grist/core/path.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace grist {
namespace {

TEST(Path, TakesNamesThatAShellLeavesAlone) {
  for (const char* path :
       {"", "a/b", "/a", "./~", "a/~", "a~", "a$", "$", "$/a", "cost$.5", "${", "${}", "$-x"})
    EXPECT_EQ(unexpanded(path), "") << path;
}

TEST(Path, NamesThePathThatIsMeant) {
  ::setenv("HOME", "/home/ada", 1);
  ::setenv("GRIST_TEST_SCRATCH", "/scratch", 1);

  EXPECT_EQ(unexpanded("~/runs"), "~/runs: ~ is not expanded here; write /home/ada/runs");
  EXPECT_EQ(unexpanded("~"), "~: ~ is not expanded here; write /home/ada");
  EXPECT_EQ(unexpanded("$GRIST_TEST_SCRATCH/a"),
            "$GRIST_TEST_SCRATCH/a: $GRIST_TEST_SCRATCH is not expanded here; write /scratch/a");
  EXPECT_EQ(unexpanded("a/${GRIST_TEST_SCRATCH}b"),
            "a/${GRIST_TEST_SCRATCH}b: ${GRIST_TEST_SCRATCH} is not expanded here; write "
            "a//scratchb");
}

TEST(Path, AsksForAPathWhereItKnowsNone) {
  ::unsetenv("GRIST_TEST_NOTHING");

  EXPECT_EQ(unexpanded("~bob/runs"),
            "~bob/runs: ~bob is not expanded here; write the path out "
            "(or ./~bob/runs)");
  EXPECT_EQ(unexpanded("~bob"), "~bob: ~bob is not expanded here; write the path out (or ./~bob)");
  EXPECT_EQ(unexpanded("x$GRIST_TEST_NOTHING"),
            "x$GRIST_TEST_NOTHING: $GRIST_TEST_NOTHING is not expanded here; write the path out");
}

}  // namespace
}  // namespace grist
