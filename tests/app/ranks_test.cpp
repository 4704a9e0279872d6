// Training on several ranks, as a user starts it: mpirun, the real binary, the real files.
#include "app/support.h"

namespace grist::test {
namespace {

const Arguments kElastic = {"parallel.deterministic=elastic", "train.global_batch_size=16",
                            "train.train_iters=12", "parallel.expert_receive_factor=8"};

Arguments with(Arguments a, const Arguments& more) {
  a.insert(a.end(), more.begin(), more.end());
  return a;
}

// One rank without mpirun, the same for every test.
const std::string& one_rank() {
  static const std::string run = [] {
    const Outcome o = world().train("one-rank", kElastic);
    if (o.code != 0) throw std::runtime_error(o.err);
    return std::string("one-rank");
  }();
  return run;
}

TEST(Ranks, ElasticRunsAreTheSameFilesOnEveryLayout) {
  int number = 0;
  const std::vector<std::array<int, 3>> layouts = {
      {2, 2, 0}, {4, 2, 1}, {1, 1, 1}, {2, 1, 1}, {8, 8, 1}};
  for (const auto& [ranks, ep, zero] : few(layouts, 2)) {
    const std::string run = "elastic-" + std::to_string(number++);
    const Outcome o =
        world().train(run,
                      with(kElastic, {"parallel.expert_model_parallel_size=" + std::to_string(ep),
                                      "parallel.zero_stage=" + std::to_string(zero)}),
                      ranks);
    ASSERT_EQ(o.code, 0) << o;
    EXPECT_EQ(o.err, "") << o;
    expect_same_run(world() / run, world() / one_rank());
  }
}

TEST(Ranks, OnlyRankZeroSpeaks) {
  const Outcome o = world().train("spoken", {"train.train_iters=4"}, 2);
  ASSERT_EQ(o.code, 0) << o;
  int finished = 0;
  for (const std::string& line : lines(o.out)) finished += line.starts_with("finished") ? 1 : 0;
  EXPECT_EQ(finished, 1) << o;
}

// Every step of the way by another number of ranks.
TEST(Ranks, ARunGoesOnWithAnotherNumberOfRanks) {
  const std::array<std::array<int, 2>, 4> layouts = {
      {{4, 4}, {1, 1}, {kSanitized ? 2 : 8, 2}, {2, 2}}};
  int until = 3;
  for (const auto& [ranks, ep] : layouts) {
    const Outcome o =
        world().train("moved",
                      with(kElastic, {"parallel.expert_model_parallel_size=" + std::to_string(ep),
                                      "checkpoint.save_interval=3",
                                      "train.max_hours=" + std::string(until < 12 ? "1e-7" : "0")}),
                      ranks);
    ASSERT_EQ(o.code, until < 12 ? 75 : 0) << o;
    if (until >= 12) break;
    // max_hours stops after one step; go on to the next multiple of three.
    for (int more = 0; more < 2; ++more)
      ASSERT_EQ(world().train("moved", with(kElastic, {"train.max_hours=1e-7"}), ranks).code, 75);
    until += 3;
  }
  expect_same_run(world() / "moved", world() / one_rank());
}

TEST(Ranks, ImpossibleSizesAreOneRefusalWithTheNumbers) {
  const Outcome o = world().train(
      "refused", {"parallel.expert_model_parallel_size=2", "train.global_batch_size=4"}, 3);
  EXPECT_EQ(o.code, 78) << o;
  EXPECT_NE(
      o.err.find("parallel.expert_model_parallel_size: 2 does not divide the number of ranks, 3"),
      std::string::npos)
      << o;
  EXPECT_NE(o.err.find("train.global_batch_size: 4 sequences"), std::string::npos) << o;
  EXPECT_FALSE(std::filesystem::exists(world() / "refused"));
}

TEST(Ranks, AnErrorOfTheConfigurationIsSaidOnce) {
  const Outcome o = world().train("refused", {"optim.learning_rate=1"}, 2);
  EXPECT_EQ(o.code, 78) << o;
  const std::size_t first = o.err.find("learning_rate");
  ASSERT_NE(first, std::string::npos) << o;
  EXPECT_EQ(o.err.find("error: ", first), std::string::npos) << o;
}

TEST(Ranks, ACommandForOneProcessRefusesALauncher) {
  const Outcome o = world().run({"prepare", "--input", "train.jsonl", "--tokenizer",
                                 "tokenizer/tokenizer.json", "--output", "by-many"},
                                2);
  EXPECT_EQ(o.code, 64) << o;
  EXPECT_NE(o.err.find("the launcher has started 2 processes"), std::string::npos) << o;
  EXPECT_FALSE(std::filesystem::exists(world() / "by-many.bin"));
}

// Two ranks, each started with arguments (and options of mpirun) of its own.
Outcome differing(const Arguments& first, const Arguments& second, const Arguments& options) {
  Arguments all = first;
  all.insert(all.end(), {":", "-np", "1"});
  all.insert(all.end(), options.begin(), options.end());
  all.emplace_back(GRIST_BINARY);
  all.insert(all.end(), second.begin(), second.end());
  return world().run(all, 1);
}

TEST(Ranks, OtherConfigurationsThanRankZerosAreRefused) {
  const Outcome o = differing(world().train_arguments("differing"),
                              world().train_arguments("differing", {"optim.lr=0.5"}), {});
  EXPECT_EQ(o.code, 78) << o;
  EXPECT_NE(o.err.find("error: rank 1: optim.lr is 0.5 here and 0.003 on rank 0"),
            std::string::npos)
      << o;
  EXPECT_FALSE(std::filesystem::exists(world() / "differing"));
}

TEST(Ranks, OtherDataThanRankZerosIsRefused) {
  const TemporaryFolder elsewhere;
  std::filesystem::copy(
      world().path(), elsewhere.path(),
      std::filesystem::copy_options::recursive | std::filesystem::copy_options::overwrite_existing);
  flip_byte(elsewhere.path() / "train.bin", 0);
  const Arguments arguments = world().train_arguments("differing");
  const Outcome o = differing(arguments, arguments, {"-wdir", elsewhere.path().string()});
  EXPECT_EQ(o.code, 65) << o;
  EXPECT_NE(o.err.find("error: rank 1: train ("), std::string::npos) << o;
  EXPECT_NE(o.err.find("on rank 0; all ranks must see the same files"), std::string::npos) << o;
  EXPECT_FALSE(std::filesystem::exists(world() / "differing"));
}

}  // namespace
}  // namespace grist::test
