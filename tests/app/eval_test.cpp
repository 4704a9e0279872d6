// `grist eval` as a user starts it, on a run of a few steps and the questions of tests/golden/eval.
#include "app/support.h"

namespace grist {
namespace {

using test::Arguments;
using test::Outcome;
using test::world;

const std::string kQuestions = GRIST_TESTS_DIR "/golden/eval";

class Eval : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    const Outcome o = world().train("evaluated", {"train.train_iters=4", "data.seq_length=128"});
    ASSERT_EQ(o.code, 0) << o;
  }
  static Outcome eval(Arguments more) {
    more.insert(more.begin(), {"eval", "evaluated", "--data", kQuestions, "--limit", "3"});
    return world().run(more);
  }
};

TEST_F(Eval, WritesATableResultsAndSamples) {
  const Outcome o = eval({"--tasks", "piqa,winogrande", "--num-fewshot", "1", "--output",
                          "out/results.json", "--samples", "out/samples.jsonl"});

  ASSERT_EQ(o.code, 0) << o;
  for (const char* word : {"piqa", "acc_norm", "winogrande", "bits_per_byte", "tokens/s"})
    EXPECT_NE(o.out.find(word), std::string::npos) << word << "\n" << o;
  const Json results = Json::parse(read_text(world() / "out/results.json"), "results.json");
  EXPECT_EQ(results.at("n-samples").at("piqa").at("effective").as_int(), 3);
  EXPECT_EQ(results.at("n-shot").at("winogrande").as_int(), 1);
  EXPECT_TRUE(results.at("results").at("piqa").at("acc,none").is_number());
  EXPECT_EQ(test::lines(read_text(world() / "out/samples.jsonl")).size(), 6U);
}

TEST_F(Eval, ComparesItsOwnSamples) {
  ASSERT_EQ(eval({"--tasks", "race", "--samples", "a.jsonl"}).code, 0);

  const Outcome same = world().run({"eval", "compare", "a.jsonl", "a.jsonl"});

  EXPECT_EQ(same.code, 0) << same;
  EXPECT_NE(same.out.find("+0.0000   0.0000       3"), std::string::npos) << same;
}

TEST_F(Eval, TellsHowWellTextIsPredicted) {
  const Outcome o = world().run({"eval", "evaluated", "--text", "validation.jsonl", "--text",
                                 "train.jsonl", "--output", "text.json"});

  ASSERT_EQ(o.code, 0) << o;
  EXPECT_NE(o.out.find("bits/byte"), std::string::npos) << o;
  EXPECT_NE(o.out.find("\nall "), std::string::npos) << o;
  const Json text = Json::parse(read_text(world() / "text.json"), "text.json").at("text");
  EXPECT_EQ(text.at("validation.jsonl").at("documents").as_int(), 8);
  EXPECT_GT(text.at("train.jsonl").at("bits_per_byte").as_double(), 0.5);
}

TEST_F(Eval, RefusesInOneLine) {
  test::expect_refusal(world().run({"eval", "evaluated", "--text", "none.txt"}), 66, {"none.txt"});
  test::expect_refusal(
      world().run({"eval", "evaluated", "--text", "train.jsonl", "--samples", "s.jsonl"}), 64,
      {"--samples", "--data"});
  const Outcome key =
      world().run({"eval", "evaluated", "--text", "train.jsonl", "--text-key", "body"});
  EXPECT_EQ(key.code, 65) << key;
  EXPECT_NE(key.err.find("60 bad lines"), std::string::npos) << key;
  const Outcome skipped = world().run({"eval", "evaluated", "--text", "train.jsonl", "--text-key",
                                       "body", "--on-bad-line", "skip"});
  EXPECT_EQ(skipped.code, 65) << skipped;
  EXPECT_NE(skipped.err.find("no text to predict"), std::string::npos) << skipped;

  test::expect_refusal(world().run({"eval", "--data", kQuestions}), 64, {"checkpoint"});
  test::expect_refusal(world().run({"eval", "evaluated"}), 64, {"--data"});
  test::expect_refusal(eval({"--tasks", "boolq"}), 64, {"boolq", "arc_easy"});
  test::expect_refusal(world().run({"eval", "evaluated", "--data", ".", "--tasks", "piqa"}), 66,
                       {"piqa_validation.jsonl", "load_dataset"});
  test::expect_refusal(world().run({"eval", "nowhere", "--data", kQuestions}), 66, {"nowhere"});
  test::expect_refusal(world().run({"eval", "compare", "a.jsonl"}), 64, {"B"});
  test::expect_refusal(eval({"--tasks", "piqa", "--output", "tiny.yaml/x/results.json"}), 73,
                       {"tiny.yaml"});
}

// What one process writes, to the byte; an error is said once.
TEST_F(Eval, RanksShareTheWork) {
  const Arguments asked = {"--tasks", "race,mmlu", "--num-fewshot", "2", "--text", "train.jsonl"};
  const auto on = [&](const std::string& name, int ranks) {
    Arguments all = {"eval",      "evaluated",      "--data", kQuestions, "--limit",
                     "2",         "--batch-tokens", "300",    "--output", name + ".json",
                     "--samples", name + ".jsonl"};
    all.insert(all.end(), asked.begin(), asked.end());
    return world().run(all, ranks);
  };
  const Outcome one = on("one", 0), three = on("three", 3);
  ASSERT_EQ(one.code, 0) << one;
  ASSERT_EQ(three.code, 0) << three;
  const auto written = [](const std::string& file) {
    std::vector<std::string> all = test::lines(read_text(world() / file));
    std::erase_if(all, [](const std::string& line) {
      return line.find("total_evaluation_time") != std::string::npos;
    });
    return all;
  };
  EXPECT_TRUE(written("one.json") == written("three.json"));
  EXPECT_TRUE(written("one.jsonl") == written("three.jsonl"));
  EXPECT_EQ(test::occurrences(three.out, "bits/byte"), 1) << three;

  const Outcome missing = world().run({"eval", "evaluated", "--data", ".", "--tasks", "piqa"}, 2);
  EXPECT_EQ(missing.code, 66) << missing;
  EXPECT_EQ(test::occurrences(missing.err, "error: "), 1) << missing;
  const Outcome text = world().run({"eval", "evaluated", "--text", "none.txt"}, 2);
  EXPECT_EQ(text.code, 66) << text;
}

}  // namespace
}  // namespace grist
