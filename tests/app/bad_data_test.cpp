// Wrong configurations, token files and output folders: one line that says what, where and what to
// do, the right exit code, and nothing written.
#include "app/support.h"

namespace grist::test {
namespace {

namespace fs = std::filesystem;

class BadInput : public ::testing::Test {
 protected:
  // Refused, and the run folder was not begun.
  static void expect_nothing_written(const Arguments& sets, int code,
                                     const std::vector<std::string>& words) {
    const std::vector<std::string> before = tree(world().path());
    expect_refusal(world().train("bad", sets), code, words);
    EXPECT_EQ(tree(world().path()), before);
  }
  // A copy of the training data under another name, to damage.
  static fs::path copy_of_data(const std::string& name) {
    for (const char* end : {".bin", ".idx", ".json"})
      fs::copy_file((world() / "train").string() + end, (world() / name).string() + end,
                    fs::copy_options::overwrite_existing);
    return world() / name;
  }
  static std::string from(const std::string& name) { return "data.train=[{path: " + name + "}]"; }
  static void resize(const std::string& path, std::int64_t change) {
    fs::resize_file(
        path, static_cast<std::uintmax_t>(static_cast<std::int64_t>(fs::file_size(path)) + change));
  }
};

TEST_F(BadInput, WrongConfigurationListsEveryProblem) {
  world().write("wrong.yaml",
                std::string(kTinyConfig) + "\nmodel2: 3\nlogg: {interval: 1}\nprecision: fp7\n");
  const std::vector<std::string> before = tree(world().path());

  const Outcome o = world().run({"train", "wrong.yaml"});

  EXPECT_EQ(o.code, 78) << o;
  EXPECT_EQ(o.out, "");
  const std::vector<std::string> said = lines(o.err);
  EXPECT_EQ(said.size(), 3U) << o;
  for (const char* word : {"wrong.yaml:", "model2", "logg", "did you mean log", "precision"})
    EXPECT_NE(o.err.find(word), std::string::npos) << word << o;
  EXPECT_EQ(tree(world().path()), before);
}

TEST_F(BadInput, Configuration) {
  expect_refusal(world().run({"train", "nowhere.yaml"}), 66, {"nowhere.yaml", "No such file"});
  expect_refusal(world().run({"train", "."}), 66, {"folder"});
  expect_nothing_written({"optim.lrr=1"}, 78, {"optim.lrr", "did you mean lr?"});
  expect_nothing_written({"device=cuda"}, 69, {"cuda", "use device: cpu"});
  expect_nothing_written(
      {"parallel.expert_model_parallel_size=2"}, 78,
      {"expert_model_parallel_size: 2 does not divide", "the number of ranks, 1"});
  expect_nothing_written({"model.vocab_size=300"}, 78, {"300", "320 tokens"});
  expect_nothing_written({"data.tokenizer=nowhere.json"}, 66, {"nowhere.json"});
  expect_nothing_written({"data.tokenizer=train.jsonl"}, 65, {"train.jsonl"});
}

TEST_F(BadInput, MissingTokenFiles) {
  expect_nothing_written({from("nowhere")}, 66, {"nowhere.bin"});
  expect_nothing_written({"data.validation=[{path: nowhere}]"}, 66, {"nowhere.bin"});
  const std::string data = copy_of_data("half").string();
  fs::remove(data + ".idx");
  expect_nothing_written({from("half")}, 66, {"half.idx"});
  copy_of_data("half");
  fs::remove(data + ".bin");
  expect_nothing_written({from("half")}, 66, {"half.bin"});
}

TEST_F(BadInput, DamagedTokenFiles) {
  const std::string data = copy_of_data("cut").string();
  resize(data + ".bin", -10);
  expect_nothing_written({from("cut")}, 65, {"cut."});
  copy_of_data("cut");
  resize(data + ".idx", -7);
  expect_nothing_written({from("cut")}, 65, {"cut.idx"});
  fs::resize_file(data + ".idx", 0);
  expect_nothing_written({from("cut")}, 65, {"cut.idx"});
  copy_of_data("cut");
  fs::copy_file(world() / "validation.idx", data + ".idx", fs::copy_options::overwrite_existing);
  expect_nothing_written({from("cut")}, 65, {"cut."});
  fs::copy_file(world() / "train.jsonl", data + ".idx", fs::copy_options::overwrite_existing);
  expect_nothing_written({from("cut")}, 65, {"cut.idx"});
}

TEST_F(BadInput, TokenBeyondTheVocabulary) {
  const Arguments sets = {"data.tokenizer=", "model.vocab_size=290"};
  expect_refusal(world().train("beyond", sets), 65,
                 {"train.bin", "document", "vocabulary of 290", "raise model.vocab_size"});
  // What that attempt left does not stand in the way of a corrected one.
  EXPECT_EQ(world().train("beyond", {"data.tokenizer=", "model.vocab_size=320"}).code, 0);
}

TEST_F(BadInput, TokenizerThatDisagreesWithTheData) {
  ASSERT_EQ(world()
                .run({"tokenizer", "train", "--input", "validation.jsonl", "--vocab-size", "300",
                      "--output", "other"})
                .code,
            0);
  expect_nothing_written({"data.tokenizer=other/tokenizer.json"}, 65, {"tokenizer", "train"});
}

TEST_F(BadInput, RunFolderThatCannotBe) {
  expect_refusal(world().train("train.jsonl"), 73, {"train.jsonl", "not a folder"});
  expect_refusal(world().train("train.jsonl/below"), 73, {"train.jsonl/below"});
  expect_refusal(world().train("/proc/grist"), 73, {"/proc/grist"});
}

TEST_F(BadInput, RunFolderOfAnotherRun) {
  ASSERT_EQ(world().train("first").code, 0);
  const std::vector<std::string> before = tree(world() / "first");
  const std::string config = read_text(world() / "first/config.yaml");

  expect_refusal(world().train("first", {"model.hidden_size=48"}), 73,
                 {"first", "model.hidden_size is 32 there and 48 here", "another run.dir"});
  expect_refusal(world().train("first", {"checkpoint.resume=never"}), 73,
                 {"resume is never", "another run.dir"});

  EXPECT_EQ(tree(world() / "first"), before);
  EXPECT_EQ(read_text(world() / "first/config.yaml"), config);
}

TEST_F(BadInput, RunFolderInUse) {
  Child first(world().path(), world().train_arguments("busy", {"train.train_iters=1000000"}));
  while (first.running() && !fs::exists(world() / "busy/metrics.jsonl"))
    first.outlives(std::chrono::milliseconds(5));
  ASSERT_TRUE(first.running());

  expect_refusal(world().train("busy", {"train.train_iters=1000000"}), 73,
                 {"busy", "another process is training"});
}

TEST_F(BadInput, Prepare) {
  const auto prepare = [](const std::string& input, const std::string& output) {
    return world().run({"prepare", "--input", input, "--tokenizer", "tokenizer/tokenizer.json",
                        "--output", output});
  };
  world().write("bad.jsonl", "{\"text\": \"good\"}\n{\"text\": 5}\n{nothing\n");
  const std::vector<std::string> before = tree(world().path());
  expect_refusal(prepare("nowhere*.jsonl", "out"), 66, {"nowhere*.jsonl"});
  EXPECT_EQ(prepare("bad.jsonl", "out").code, 65);
  expect_refusal(prepare("train.jsonl", "train"), 73, {"train"});
  expect_refusal(prepare("train.jsonl", "/proc/out"), 73, {"/proc/out"});
  EXPECT_EQ(tree(world().path()), before);
}

}  // namespace
}  // namespace grist::test
