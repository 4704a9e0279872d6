// grist export and grist import as a user runs them.
#include <signal.h>

#include "app/support.h"
#include "grist/core/file.h"

namespace grist::test {
namespace {

namespace fs = std::filesystem;

Outcome export_to(const std::string& run, const std::string& folder, const Arguments& more = {}) {
  Arguments a{"export", run, "--to", "hf", "--output", folder};
  a.insert(a.end(), more.begin(), more.end());
  return world().run(a);
}

const Arguments kGreedy = {"--prompt", "a b", "--temperature", "0", "--max-tokens", "12"};
std::string greedy_text(const std::string& run) {
  Arguments a{"generate", run};
  a.insert(a.end(), kGreedy.begin(), kGreedy.end());
  const Outcome o = world().run(a);
  EXPECT_EQ(o.code, 0) << o;
  return o.out;
}

TEST(Hub, ExportedAndImportedModelSaysTheSameAndTrainsOn) {
  ASSERT_EQ(world().train("hub-run").code, 0);

  const Outcome out = export_to("hub-run", "hub-out", {"--save-logits", "hub.safetensors"});
  ASSERT_EQ(out.code, 0) << out;
  EXPECT_NE(out.out.find("hub-out: MixtralForCausalLM (mixtral)"), std::string::npos) << out;
  EXPECT_NE(out.out.find("proof: over 32 tokens"), std::string::npos) << out;
  EXPECT_TRUE(fs::exists(world() / "hub.safetensors"));
  const Outcome in = world().run({"import", "hub-out", "--output", "hub-in"});
  ASSERT_EQ(in.code, 0) << in;
  EXPECT_NE(in.out.find("mixtral model"), std::string::npos) << in;
  EXPECT_NE(in.out.find("with its tokenizer"), std::string::npos) << in;

  EXPECT_EQ(greedy_text("hub-in"), greedy_text("hub-run"));
  EXPECT_EQ(world().run({"checkpoint", "verify", "hub-in"}).code, 0);
  EXPECT_EQ(export_to("hub-in", "hub-again").code, 0);
  for (const char* name : {"model.safetensors", "config.json", "tokenizer.json",
                           "tokenizer_config.json", "generation_config.json"})
    EXPECT_TRUE(read_text(world() / "hub-out" / name) == read_text(world() / "hub-again" / name))
        << name;
  const Outcome on = world().run({"train", "hub-in/config.yaml", "--set", "init.from=hub-in",
                                  "--set", "init.optimizer=fresh", "--set", "run.dir=hub-on",
                                  "--set", "data.train=[{path: train}]", "--set",
                                  "train.train_iters=2", "--set", "optim.lr_decay_iters=2"});
  EXPECT_EQ(on.code, 0) << on;
  EXPECT_EQ(saved_steps(world() / "hub-on"), std::vector<int>{2});
}

TEST(Hub, ModelCardHoldsProofLossesAndData) {
  ASSERT_EQ(world().train("card-run").code, 0);
  ASSERT_EQ(export_to("card-run", "card", {"--dtype", "bf16"}).code, 0);
  const std::string card = read_text(world() / "card" / "README.md");
  const Json data = manifest_state(step_folder(world() / "card-run", 24)).at("data");
  for (const std::string& word :
       {std::string("library_name: transformers"), std::string("Largest difference of a logit"),
        std::string("rounding itself moves a logit"), std::string("Training loss at step 24"),
        std::string("Validation loss at step 24"), std::string("Routing at step 24: MaxVio"),
        data.at("sources").as_array()[0].at("fingerprint").as_string()})
    EXPECT_NE(card.find(word), std::string::npos) << word << "\n" << card;
  const Json config = Json::parse(read_text(world() / "card" / "config.json"), "config.json");
  EXPECT_EQ(config.at("torch_dtype").as_string(), "bfloat16");
  EXPECT_EQ(config.at("eos_token_id").as_int(), 0);
}

TEST(Hub, WrongCommandsAreRefusedInOneLine) {
  ASSERT_EQ(world().train("wrong-run", {"model.moe.router.routed_scaling_factor=2"}).code, 0);
  const std::vector<std::string> before = tree(world().path());

  expect_refusal(export_to("wrong-run", "wrong"), 78,
                 {"model.moe.router.routed_scaling_factor: 2", "no family"});
  expect_refusal(world().run({"export", "wrong-run", "--output", "x"}), 64, {"--to"});
  expect_refusal(world().run({"export", "wrong-run", "--to", "onnx", "--output", "x"}), 64,
                 {"--to", "onnx"});
  expect_refusal(export_to("wrong-run", "x", {"--dtype", "fp16"}), 64, {"--dtype"});
  expect_refusal(export_to("wrong-run", "x", {"--max-shard-size", "5 apples"}), 64,
                 {"want a number and a unit"});
  expect_refusal(export_to("wrong-run", "x", {"--no-proof", "--save-logits", "y"}), 64,
                 {"--save-logits"});
  expect_refusal(export_to("no-such-run", "x"), 66, {"no-such-run"});
  expect_refusal(export_to("wrong-run", "train.jsonl"), 78, {"routed_scaling_factor"});
  expect_refusal(world().run({"import", "no-such-folder", "--output", "x"}), 66,
                 {"no-such-folder", "config.json"});

  auto after = tree(world().path());
  std::erase_if(after, [](const std::string& p) { return p.find("output-") != std::string::npos; });
  auto want = before;
  std::erase_if(want, [](const std::string& p) { return p.find("output-") != std::string::npos; });
  EXPECT_EQ(after, want);
}

// A checkpoint in shards of several ranks is the same model.
TEST(RanksHub, ACheckpointOfSeveralRanksIsExported) {
  const Arguments sets = {"train.train_iters=8", "parallel.expert_model_parallel_size=2",
                          "parallel.deterministic=elastic", "parallel.elastic_lanes=2"};
  Arguments alone = sets;
  alone[1] = "parallel.expert_model_parallel_size=1";
  ASSERT_EQ(world().train("hub-ranks", sets, 2).code, 0);
  ASSERT_EQ(world().train("hub-alone", alone).code, 0);

  ASSERT_EQ(export_to("hub-ranks", "hub-ranks-out").code, 0);
  ASSERT_EQ(export_to("hub-alone", "hub-alone-out").code, 0);

  EXPECT_TRUE(read_text(world() / "hub-ranks-out" / "model.safetensors") ==
              read_text(world() / "hub-alone-out" / "model.safetensors"));
}

TEST(Hub, ADamagedStepIsNamedAndTheOneBeforeExported) {
  ASSERT_EQ(world().train("hub-damaged").code, 0);
  flip_byte(shard_of(world() / "hub-damaged", 24), 40000);
  const Outcome o = export_to("hub-damaged", "hub-damaged-out");
  EXPECT_EQ(o.code, 0) << o;
  EXPECT_NE(o.err.find("step-00000024 is damaged"), std::string::npos) << o;
  EXPECT_NE(o.out.find("from hub-damaged/checkpoints/step-00000020"), std::string::npos) << o;
  EXPECT_NE(read_text(world() / "hub-damaged-out" / "README.md").find("Training loss at step 20"),
            std::string::npos);
}

// Killed while it writes: no folder, and the next export does not stumble over what is left.
TEST(Hub, AKilledExportLeavesNoFolderOfThatName) {
  ASSERT_EQ(world().train("killed-run", {"train.train_iters=8"}).code, 0);
  for (const int pause : {500, 2000, 5000, 10000, 20000, 40000}) {
    Child child(world().path(), {"export", "killed-run", "--to", "hf", "--output", "killed"});
    if (!child.outlives(std::chrono::microseconds(pause))) break;
    child.send(SIGKILL);
    child.wait();
    if (!fs::exists(world() / "killed")) continue;
    EXPECT_TRUE(fs::exists(world() / "killed" / "README.md"));  // it was faster
    fs::remove_all(world() / "killed");
  }
  fs::remove_all(world() / "killed");
  EXPECT_EQ(export_to("killed-run", "killed").code, 0);
  EXPECT_FALSE(fs::exists(world() / "killed.grist-tmp"));
}

TEST(Hub, AGgufFileAppearsWholeOrNotAtAll) {
  ASSERT_EQ(world().train("gguf-run", {"train.train_iters=8"}).code, 0);
  const auto gguf = [](Arguments more) {
    more.insert(more.begin(), {"export", "gguf-run", "--to", "gguf", "--output", "a.gguf"});
    return more;
  };
  for (const char* of_hf : {"--max-shard-size=1GB", "--no-proof", "--threads=1", "--save-logits=y"})
    expect_refusal(world().run(gguf({of_hf})), 64, {"belongs to --to hf"});
  expect_refusal(
      world().run({"export", "gguf-run", "--to", "hf", "--output", "x", "--dtype", "f16"}), 64,
      {"--dtype f16"});
  for (const int pause : {500, 2000, 5000, 10000, 20000}) {
    Child child(world().path(), gguf({}));
    if (!child.outlives(std::chrono::microseconds(pause))) break;
    child.send(SIGKILL);
    child.wait();
    if (fs::exists(world() / "a.gguf")) break;  // it was faster
  }
  fs::remove(world() / "a.gguf");

  const Outcome o = world().run(gguf({"--dtype", "f16"}));

  ASSERT_EQ(o.code, 0) << o;
  EXPECT_NE(o.out.find("llama for llama.cpp"), std::string::npos) << o;
  EXPECT_EQ(read_text(world() / "a.gguf").substr(0, 4), "GGUF");
  EXPECT_FALSE(fs::exists(world() / "a.gguf.grist-tmp"));
  expect_refusal(world().run(gguf({})), 73, {"a.gguf", "exists"});
}

}  // namespace
}  // namespace grist::test
