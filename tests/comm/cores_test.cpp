#include "src/comm/cores.h"

#include <gtest/gtest.h>

#include <vector>

namespace grist::comm {
namespace {

cpu_set_t cores(int begin, int end) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int core = begin; core < end; ++core) CPU_SET(core, &set);
  return set;
}

TEST(CoreShare, OfRanksThatTheLauncherDoesNotBind) {
  EXPECT_EQ(core_share(std::vector(2, cores(0, 64)), 1), 32);
  EXPECT_EQ(core_share(std::vector(3, cores(0, 9)), 0), 3);
  EXPECT_EQ(core_share(std::vector(8, cores(16, 24)), 5), 1);  // in a container of 8 cores
}

TEST(CoreShare, OfRanksWithCoresOfTheirOwn) {
  const std::vector<cpu_set_t> sets = {cores(0, 4), cores(4, 8)};
  EXPECT_EQ(core_share(sets, 0), 4);
  EXPECT_EQ(core_share(sets, 1), 4);
}

TEST(CoreShare, OfTwoRanksASocket) {
  const std::vector<cpu_set_t> sets = {cores(0, 32), cores(32, 64), cores(0, 32), cores(32, 64)};
  for (std::size_t rank = 0; rank < sets.size(); ++rank) EXPECT_EQ(core_share(sets, rank), 16);
}

TEST(CoreShare, IsAtLeastOne) {
  EXPECT_EQ(core_share(std::vector(4, cores(0, 2)), 3), 1);
  EXPECT_EQ(core_share(std::vector(1, cores(0, 0)), 0), 1);  // not known
}

}  // namespace
}  // namespace grist::comm
