// grist verify parallel | resume, alone and on ranks.
#include <csignal>

#include "app/support.h"

namespace grist::test {
namespace {

Arguments arguments(const std::string& what, const Arguments& sets) {
  Arguments a{"verify", what, "tiny.yaml"};
  for (const std::string& s : sets) {
    a.emplace_back("--set");
    a.push_back(s);
  }
  return a;
}

TEST(VerifyParallel, AgreesOnTwoRanks) {
  const std::vector<std::string> before = tree(world().path());
  const Outcome o = world().run(
      arguments("parallel", {"parallel.expert_model_parallel_size=2", "train.global_batch_size=8"}),
      2);
  EXPECT_EQ(o.code, 0) << o;
  EXPECT_NE(o.out.find("the layouts agree (losses within 1e-06"), std::string::npos) << o;
  EXPECT_EQ(o.err, "") << o;
  EXPECT_EQ(tree(world().path()), before);
}

TEST(VerifyParallel, IsExactWhenElasticAndHasASecondReference) {
  Arguments a =
      arguments("parallel", {"parallel.expert_model_parallel_size=4", "train.global_batch_size=16",
                             "parallel.deterministic=elastic"});
  a.insert(a.end(), {"--reference", "all-ranks", "--steps", "2"});
  const Outcome o = world().run(a, 4);
  EXPECT_EQ(o.code, 0) << o;
  EXPECT_NE(o.out.find("the layouts agree (every bit)"), std::string::npos) << o;
  EXPECT_NE(o.out.find("step 2:"), std::string::npos) << o;
  EXPECT_EQ(o.out.find("step 3:"), std::string::npos) << o;
}

TEST(VerifyParallel, StopsWhenASignalAsks) {
  for (const int ranks : {0, 2}) {
    Arguments a = arguments("parallel", {"train.global_batch_size=8"});
    a.insert(a.end(), {"--steps", "1000000"});
    Child child(world().path(), a, ranks);
    ASSERT_TRUE(child.outlives(std::chrono::seconds(ranks == 0 ? 1 : 4)));
    child.send(SIGUSR1);
    const Outcome o = child.wait();
    EXPECT_EQ(o.code, 75) << o;
    EXPECT_NE(o.err.find("the verification was stopped"), std::string::npos) << o;
  }
}

TEST(VerifyResume, StraightAndResumedAreTheSame) {
  for (const int ranks : {0, 2}) {
    const Outcome o = world().run(arguments("resume", {"run.dir=proof"}), ranks);
    EXPECT_EQ(o.code, 0) << o;
    EXPECT_NE(o.out.find("resumed and straight run are the same"), std::string::npos) << o;
    EXPECT_FALSE(std::filesystem::exists(world() / "proof.verify"));
    EXPECT_FALSE(std::filesystem::exists(world() / "proof"));
  }
}

TEST(VerifyResume, DoesNotTouchWhatIsThere) {
  std::filesystem::create_directories(world() / "mine.verify");
  world().write("mine.verify/note", "x");
  expect_refusal(world().run(arguments("resume", {"run.dir=mine"})), 73, {"mine.verify"});
  EXPECT_TRUE(std::filesystem::exists(world() / "mine.verify/note"));
}

}  // namespace
}  // namespace grist::test
