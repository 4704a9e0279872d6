// Each verb: help, wrong command lines, the whole path from text to a sample, dry runs, generation.
#include <algorithm>

#include "app/support.h"

namespace grist::test {
namespace {

TEST(Commands, HelpOfEveryVerb) {
  const std::vector<Arguments> verbs = {{},
                                        {"train"},
                                        {"prepare"},
                                        {"tokenizer"},
                                        {"generate"},
                                        {"checkpoint"},
                                        {"tokenizer", "train"},
                                        {"tokenizer", "encode"},
                                        {"tokenizer", "decode"},
                                        {"checkpoint", "ls"},
                                        {"checkpoint", "verify"}};
  for (Arguments verb : verbs) {
    verb.emplace_back("--help");
    const Outcome o = world().run(verb);
    EXPECT_EQ(o.code, 0) << o;
    EXPECT_NE(o.out.find("Usage: grist"), std::string::npos) << o;
    EXPECT_EQ(o.err, "");
  }
  const Outcome version = world().run({"--version"});
  EXPECT_EQ(version.code, 0);
  EXPECT_TRUE(version.out.starts_with("grist ")) << version;
}

TEST(Commands, WrongCommandLinesExitWith64) {
  const std::vector<Arguments> wrong = {
      {},
      {"tain"},
      {"train"},
      {"train", "tiny.yaml", "--sett", "a=b"},
      {"train", "tiny.yaml", "other.yaml"},
      {"prepare", "--input", "train.jsonl"},
      {"tokenizer"},
      {"generate"},
      {"generate", "run", "--max-tokens", "many"},
      {"prepare", "--input", "train.jsonl", "--tokenizer", "tokenizer/tokenizer.json", "--output",
       "x", "--threads", "-1"},
      {"checkpoint", "ls"}};
  for (const Arguments& arguments : wrong) {
    const Outcome o = world().run(arguments);
    EXPECT_EQ(o.code, 64) << (arguments.empty() ? "nothing" : arguments.back()) << o;
    EXPECT_NE(o.err, "");
    EXPECT_EQ(o.out, "");
  }
}

TEST(Commands, PathsThatAShellDidNotExpandAreRefused) {
  const std::string path = "$HOME/x";
  const std::vector<Arguments> wrong = {
      {"train", path},
      {"verify", "parallel", path},
      {"verify", "resume", path},
      {"prepare", "--input", "a", path, "--tokenizer", "t", "--output", "o"},
      {"prepare", "--input", "a", "--tokenizer", path, "--output", "o"},
      {"prepare", "--input", "a", "--tokenizer", "t", "--output", path},
      {"tokenizer", "train", "--input", path, "--vocab-size", "300", "--output", "o"},
      {"tokenizer", "train", "--input", "a", "--vocab-size", "300", "--output", path},
      {"tokenizer", "encode", path},
      {"tokenizer", "decode", path},
      {"generate", path},
      {"generate", "run", "--prompt-file", path},
      {"checkpoint", "ls", path},
      {"checkpoint", "verify", path}};
  for (const Arguments& arguments : wrong)
    expect_refusal(world().run(arguments), 64, {"$HOME/x: $HOME is not expanded here; write /"});
}

TEST(Commands, PrepareSaysWhatStandsAroundDocuments) {
  const Outcome o = world().run({"prepare", "--input", "train.jsonl", "--tokenizer",
                                 "tokenizer/tokenizer.json", "--bos", "--output", "around"});

  EXPECT_EQ(o.code, 0) << o;
  EXPECT_NE((o.out + o.err)
                .find("each document ends with <|endoftext|> (id 0) and begins with "
                      "<|endoftext|> (id 0)"),
            std::string::npos)
      << o;
}

TEST(Commands, PathFromTextToRunFolder) {
  ASSERT_EQ(world().train("path").code, 0);
  const auto run = world() / "path";

  EXPECT_TRUE(std::filesystem::is_regular_file(run / "config.yaml"));
  EXPECT_EQ(read_text(run / "checkpoints/latest"), "step-00000024\n");
  EXPECT_EQ(saved_steps(run), (std::vector<int>{16, 20, 24}));
  EXPECT_EQ(
      tree(step_folder(run, 24)),
      (std::vector<std::string>{"config.yaml", "manifest.json", "shard-00000-of-00001.safetensors",
                                "tokenizer.json", "tokenizer_config.json"}));
  int steps = 0, validations = 0;
  for (const Json& record : metrics_records(run)) {
    if (record.find("val_loss") != nullptr) {
      EXPECT_EQ(record.at("step").as_int(), 6 * ++validations);
      EXPECT_GT(record.at("val_loss").as_double(), 1.0);
      continue;
    }
    EXPECT_EQ(record.at("step").as_int(), ++steps);
    EXPECT_EQ(record.at("tokens").as_int(), steps * 4 * 32);
    for (const char* key : {"loss", "aux_loss", "z_loss", "grad_norm", "lr", "tokens_per_second",
                            "max_vio", "dropped_fraction"})
      EXPECT_TRUE(record.at(key).is_number()) << key;
  }
  EXPECT_EQ(steps, 24);
  EXPECT_EQ(validations, 4);

  const Outcome ls = world().run({"checkpoint", "ls", "path"});
  EXPECT_EQ(ls.code, 0);
  for (const char* step : {"16", "20", "24"}) EXPECT_NE(ls.out.find(step), std::string::npos);
  EXPECT_EQ(world().run({"checkpoint", "verify", "path"}).code, 0);

  // The same command again has nothing to do, and the resolved configuration alone starts it too.
  const std::vector<std::string> before = tree(run);
  const std::string metrics = read_text(run / "metrics.jsonl");
  const Outcome again = world().train("path");
  EXPECT_EQ(again.code, 0);
  EXPECT_NE(again.out.find("all 24 steps are done"), std::string::npos) << again;
  const Outcome fewer = world().train("path", {"train.train_iters=12"});
  EXPECT_EQ(fewer.code, 0);
  EXPECT_NE(fewer.out.find("has done 24 steps, more than train.train_iters 12"), std::string::npos)
      << fewer;
  EXPECT_EQ(world().run({"train", "path/config.yaml"}).code, 0);
  EXPECT_EQ(tree(run), before);
  EXPECT_EQ(read_text(run / "metrics.jsonl"), metrics);
}

TEST(Commands, ConsoleHasOneLineAnInterval) {
  const Outcome o = world().train(
      "console", {"log.interval=4", "train.eval_interval=0", "checkpoint.save_interval=12"});
  ASSERT_EQ(o.code, 0) << o;
  EXPECT_EQ(o.err, "");
  int steps = 0, validations = 0, saves = 0;
  for (const std::string& line : lines(o.out)) {
    EXPECT_LT(line.size(), 240U) << line;
    if (line.starts_with("step ") && line.find(" | ") != std::string::npos) {
      ++steps;
      for (const char* part : {"tokens", "loss", "aux", "z", "grad norm", "lr", "tok/s", "FLOP/s",
                               "% of peak", "MaxVio", "dropped", "ETA"})
        EXPECT_NE(line.find(part), std::string::npos) << part << " in " << line;
    }
    validations += line.starts_with("validation at step ") ? 1 : 0;
    saves += line.starts_with("saved step ") ? 1 : 0;
  }
  EXPECT_EQ(steps, 6);
  EXPECT_EQ(validations, 1);
  EXPECT_EQ(saves, 2);
  EXPECT_EQ(metrics_records(world() / "console").size(), 7U);
}

TEST(Commands, DryRunWritesNothing) {
  const std::vector<std::string> before = tree(world().path());
  Arguments arguments = world().train_arguments("dry");
  arguments.emplace_back("--dry-run");

  const Outcome o = world().run(arguments);

  EXPECT_EQ(o.code, 0) << o;
  EXPECT_EQ(o.err, "");
  EXPECT_EQ(tree(world().path()), before);
  for (const char* part :
       {"num_experts: 8", "granularity: 4", "memory:", "sum", "parameters", "checkpoint copy"})
    EXPECT_NE(o.out.find(part), std::string::npos) << part << o;
}

TEST(Commands, DryRunNamesAllThatDoesNotFit) {
  if (kSanitized) GTEST_SKIP() << "sanitizers watch so much address space too closely";
  Arguments arguments = world().train_arguments(
      "dry",
      {"model.hidden_size=16384", "model.num_hidden_layers=8", "model.intermediate_size=131072"});
  arguments.emplace_back("--dry-run");

  const Outcome o = world().run(arguments);

  expect_refusal(o, 71,
                 {"out of memory", "are needed", "are available", "gradients (fp32)",
                  "optimizer state (fp32)", "checkpoint copy", "train.micro_batch_size"});
  EXPECT_NE(o.out.find("  sum"), std::string::npos) << o;
  EXPECT_LT(o.peak_bytes, std::int64_t{2} << 30);
}

TEST(Commands, TokenizerGoesThereAndBack) {
  // Standard input is empty here: no tokens, no text.
  const Outcome ids = world().run({"tokenizer", "encode", "tokenizer/tokenizer.json"});
  EXPECT_EQ(ids.code, 0) << ids;
  EXPECT_EQ(ids.out, "\n");
  const Outcome text = world().run({"tokenizer", "decode", "tokenizer/tokenizer.json"});
  EXPECT_EQ(text.code, 0) << text;
  EXPECT_EQ(text.out, "");
}

class Generate : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(world().train("gen").code, 0); }
  static Outcome generate(Arguments more) {
    more.insert(more.begin(), {"generate", "gen", "--max-tokens", "12"});
    const Outcome o = world().run(more);
    EXPECT_EQ(o.code, 0) << o;
    return o;
  }
};

TEST_F(Generate, GreedyAndSeedsAreReproducible) {
  const std::string greedy = generate({"--prompt", "ab", "--temperature", "0"}).out;
  EXPECT_TRUE(greedy.starts_with("ab"));
  EXPECT_TRUE(greedy.ends_with("\n"));
  EXPECT_EQ(generate({"--prompt", "ab", "--temperature", "0", "--seed", "5"}).out, greedy);
  EXPECT_EQ(generate({"--prompt", "ab", "--top-k", "1", "--seed", "3"}).out, greedy);
  EXPECT_EQ(generate({"--prompt", "ab", "--top-p", "1e-9"}).out, greedy);
  EXPECT_EQ(generate({"--prompt", "ab", "--temperature", "0", "--threads", "2"}).out, greedy);
  const std::string one = generate({"--prompt", "ab", "--seed", "1"}).out;
  EXPECT_EQ(generate({"--prompt", "ab", "--seed", "1"}).out, one);
  EXPECT_NE(generate({"--prompt", "ab", "--seed", "2"}).out, one);
}

TEST_F(Generate, TakesAnyPrompt) {
  EXPECT_TRUE(generate({"--prompt", "h\xC3\xA9llo \xE6\xBC\xA2\xF0\x9F\x98\x80"})
                  .out.starts_with("h\xC3\xA9llo \xE6\xBC\xA2\xF0\x9F\x98\x80"));
  for (const char* path :
       {"gen/checkpoints", "gen/checkpoints/latest", "gen/checkpoints/step-00000024", "gen/"})
    EXPECT_EQ(world().run({"generate", path, "--prompt", "ab", "--temperature", "0"}).code, 0);
}

TEST_F(Generate, SaysThatAPromptIsMalformedAndShowsWhatTheModelWasGiven) {
  const Outcome o = generate({"--prompt", "ab\xE9", "--temperature", "0"});

  EXPECT_TRUE(o.out.starts_with("ab\xEF\xBF\xBD")) << o;
  EXPECT_NE(o.err.find("warning: the prompt is malformed UTF-8: 1 places"), std::string::npos) << o;
}

TEST_F(Generate, RunsOnTheDeviceThatIsNamed) {
  const std::string greedy = generate({"--prompt", "ab", "--temperature", "0"}).out;

  EXPECT_EQ(generate({"--prompt", "ab", "--temperature", "0", "--device", "cpu"}).out, greedy);
  expect_refusal(world().run({"generate", "gen", "--prompt", "ab", "--device", "abacus"}), 64,
                 {"--device", "abacus"});
}

TEST_F(Generate, RefusesWhatItCannotDo) {
  std::string text;
  for (int i = 0; i < 40; ++i) text += "q%";
  const Outcome o = world().run({"generate", "gen", "--prompt", text});
  expect_refusal(o, 64, {"positions", "shorter prompt"});
  EXPECT_EQ(o.out, "");
  expect_refusal(world().run({"generate", "gen", "--temperature", "-1"}), 64, {"--temperature"});
  expect_refusal(world().run({"generate", "gen", "--top-p", "0"}), 64, {"--top-p"});
  expect_refusal(world().run({"generate", "gen", "--max-tokens", "0"}), 64, {"--max-tokens"});
  expect_refusal(world().run({"generate", "gen"}), 64, {"the prompt is empty", "--prompt"});
  expect_refusal(world().run({"generate", "nowhere"}), 66, {"nowhere"});

  ASSERT_EQ(world().train("mute", {"data.tokenizer=", "model.vocab_size=384"}).code, 0);
  const Outcome mute = world().run({"generate", "mute", "--prompt", "ab"});
  expect_refusal(mute, 66, {"no tokenizer"});
  EXPECT_EQ(mute.out, "");
}

}  // namespace
}  // namespace grist::test
