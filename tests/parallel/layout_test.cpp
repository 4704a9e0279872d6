// Who holds what, and which sizes are refused.
#include <gtest/gtest.h>

#include "grist/comm/collectives.h"
#include "grist/comm/local.h"
#include "grist/parallel/layout.h"

namespace grist::parallel {
namespace {

Config config_for(std::int64_t ep, std::int64_t batch) {
  Config c;
  c.model.moe.num_experts = 16;
  c.train.micro_batch_size = 2;
  c.train.global_batch_size = batch;
  c.parallel.expert_model_parallel_size = ep;
  return c;
}

TEST(Layout, ConsecutiveRanksShareTheExperts) {
  const Layout l(8, 6, 4);
  EXPECT_EQ(l.expert_parallel_index(), 2);
  EXPECT_EQ(l.expert_data_parallel_index(), 1);
  EXPECT_EQ(l.first_expert(16), 8);
  EXPECT_EQ(l.local_experts(16), 4);
  EXPECT_EQ(l.str(), "world 8, expert_parallel 4, expert_data_parallel 2");
}

TEST(Layout, GroupsHoldTheRanksThatTheAxesSay) {
  comm::run_local(8, [](comm::Communicator& world) {
    const Layout l(8, world.rank(), 2);
    const Groups g = make_groups(world, l);
    EXPECT_EQ(g.expert_parallel.rank(), l.expert_parallel_index());
    EXPECT_EQ(g.expert_data_parallel.rank(), l.expert_data_parallel_index());
    EXPECT_EQ(comm::all_reduce_sum(g.expert_parallel.host(), std::int64_t{world.rank()}),
              4 * l.expert_data_parallel_index() + 1);
    EXPECT_EQ(comm::all_reduce_sum(g.expert_data_parallel.host(), std::int64_t{world.rank()}),
              l.expert_parallel_index() == 0 ? 12 : 16);
  });
}

TEST(Layout, GoodSizesHaveNoProblems) {
  EXPECT_TRUE(layout_problems(config_for(4, 16), 8).empty());
  EXPECT_TRUE(layout_problems(config_for(1, 2), 1).empty());
  Config elastic = config_for(4, 16);
  elastic.parallel.deterministic = Deterministic::elastic;
  EXPECT_TRUE(layout_problems(elastic, 8).empty());
}

TEST(Layout, EveryProblemNamesItsNumbers) {
  const auto first = [](const Config& c, std::int64_t world) {
    const auto problems = layout_problems(c, world);
    return problems.empty() ? std::string() : problems.front();
  };
  EXPECT_EQ(first(config_for(3, 16), 8),
            "parallel.expert_model_parallel_size: 3 does not divide the number of ranks, 8");
  EXPECT_EQ(first(config_for(32, 64), 32),
            "parallel.expert_model_parallel_size: 32 does not divide num_experts 16");
  EXPECT_EQ(
      first(config_for(1, 16), 3),
      "train.global_batch_size: 16 sequences are not a multiple of micro_batch_size 2 times 3 "
      "ranks");
  Config ramp = config_for(1, 16);
  ramp.train.rampup_batch_size = {4, 4, 100};
  EXPECT_EQ(ramp_problems(ramp, 4, 0),
            (std::vector<std::string>{"train.rampup_batch_size: 4 sequences are not a multiple of "
                                      "micro_batch_size 2 times 4 ranks"}));
  ramp.train.rampup_batch_size = {4, 12, 100};
  EXPECT_TRUE(ramp_problems(ramp, 4, 100).empty()) << "that step is behind";
  Config elastic = config_for(1, 48);
  elastic.parallel.deterministic = Deterministic::elastic;
  EXPECT_EQ(layout_problems(elastic, 3).size(), 1U);
  Config dense = config_for(2, 16);
  dense.model.moe.num_experts = 0;
  EXPECT_EQ(layout_problems(dense, 2).size(), 1U);
}

}  // namespace
}  // namespace grist::parallel
