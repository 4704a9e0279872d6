// Importing: what is wrong with the tensors is named, nothing is made up, nothing is half written.
#include <cstring>
#include <limits>

#include "grist/ckpt/checkpoint.h"
#include "grist/core/random.h"
#include "hub/support.h"
#include "support/scale.h"

namespace grist::test {
namespace {

struct Case {
  const char* golden;
  const char* what;
  std::function<void(const fs::path&)> spoil;
  const char* says;
};

void edit(const fs::path& folder, const std::function<void(Tensors&)>& change) {
  Tensors t(folder / "model.safetensors");
  change(t);
  t.write(folder / "model.safetensors");
}
void drop(const fs::path& folder, const std::string& word) {
  edit(folder, [&](Tensors& t) {
    std::erase_if(t.entries, [&](const auto& e) { return e.name.find(word) != std::string::npos; });
  });
}
void set_first(Tensors::Entry& e, float value) {
  std::memcpy(e.bytes.data(), &value, sizeof value);
}

const std::vector<Case> kCases = {
    {"qwen2_moe", "one expert's matrix",
     [](const auto& f) { drop(f, "layers.1.mlp.experts.5.up_proj"); },
     "1 missing: model.layers.1.mlp.experts.5.up_proj.weight"},
    // transformers starts such a layer from random numbers, with a warning.
    {"qwen2_moe", "all experts of a layer", [](const auto& f) { drop(f, "layers.0.mlp.experts."); },
     "18 missing: model.layers.0.mlp.experts.0.gate_proj.weight"},
    // Counting from one: transformers stacks them without looking at the numbers.
    {"qwen2_moe", "experts counted from one",
     [](const auto& f) {
       edit(f, [](Tensors& t) {
         for (auto& e : t.entries)
           for (int i = 5; i >= 0; --i) {
             const std::string from = "experts." + std::to_string(i) + ".";
             if (const auto at = e.name.find(from); at != std::string::npos) {
               e.name.replace(at, from.size(), "experts." + std::to_string(i + 1) + ".");
               break;
             }
           }
       });
     },
     "6 missing: model.layers.0.mlp.experts.0."},
    {"llama", "another family's names",
     [](const auto& f) {
       edit(f, [](Tensors& t) { t.at("model.norm.weight").name = "transformer.ln_f.weight"; });
     },
     "1 missing: model.norm.weight; 1 unexpected: transformer.ln_f.weight"},
    {"llama", "more layers in the file",
     [](const auto& f) { set_config(f, "num_hidden_layers", 1); }, "9 unexpected: model.layers.1."},
    {"qwen3", "another width", [](const auto& f) { set_config(f, "intermediate_size", 25); },
     "6 of another shape: model.layers.0.mlp.down_proj.weight is (16, 24), want (16, 25)"},
    {"llama", "whole numbers",
     [](const auto& f) {
       edit(f, [](Tensors& t) { t.at("model.norm.weight").dtype = DType::i32; });
     },
     "1 not F32, BF16 or F16: model.norm.weight is I32"},
    {"llama", "NaN",
     [](const auto& f) {
       edit(f, [](Tensors& t) {
         set_first(t.at("model.layers.1.mlp.up_proj.weight"),
                   std::numeric_limits<float>::quiet_NaN());
       });
     },
     "tensor \"model.layers.1.mlp.up_proj.weight\" holds nan at element 0"},
    {"llama", "infinity",
     [](const auto& f) {
       edit(f, [](Tensors& t) { set_first(t.at("model.norm.weight"), INFINITY); });
     },
     "tensor \"model.norm.weight\" holds inf"},
    {"qwen2_moe", "a bias",
     [](const auto& f) {
       edit(f, [](Tensors& t) { set_first(t.at("model.layers.0.self_attn.k_proj.bias"), 0.5F); });
     },
     "self_attn.k_proj.bias\" is not all 0, and grist has no place for it: its projections"},
    {"qwen2_moe", "a live shared expert",
     [](const auto& f) {
       edit(f, [](Tensors& t) {
         set_first(t.at("model.layers.1.mlp.shared_expert.down_proj.weight"), 0.5F);
       });
     },
     "has no gate of its own"},
    {"llama", "an output layer beside tied embeddings",
     [](const auto& f) {
       edit(f, [](Tensors& t) {
         t.entries.push_back(t.at("model.embed_tokens.weight"));
         t.entries.back().name = "lm_head.weight";
         set_first(t.entries.back(), 7);
       });
     },
     "tie_word_embeddings true; which is meant?"},
    {"llama", "more experts than a file can hold",
     [](const auto& f) { set_config(f, "num_hidden_layers", 1 << 24); }, "cannot be in 20 tensors"},
    {"qwen3_moe_fused", "more experts than a file can hold",
     [](const auto& f) { set_config(f, "num_local_experts", 1 << 24); }, "cannot be in"},
};

TEST(Import, WhatIsWrongWithTheTensorsIsNamedAndNothingIsWritten) {
  for (const Case& c : kCases) {
    const TemporaryFolder temp;
    const fs::path folder = copy_of(temp, c.golden);
    c.spoil(folder);

    const Refusal r = refusal(
        [&] { hub::import_model({.input = folder, .output = temp / "run", .prove = false}); });

    EXPECT_EQ(r.code, ExitCode::bad_data) << c.what << ": " << r.what;
    EXPECT_SAYS(r, c.says);
    EXPECT_EQ(r.what.find(temp.path().string()), 0U) << r.what;
    EXPECT_EQ(r.what.find('\n'), std::string::npos) << r.what;
    EXPECT_FALSE(fs::exists(temp / "run")) << c.what;
    EXPECT_FALSE(fs::exists(temp / "run.grist-tmp")) << c.what;
  }
}

TEST(Import, TakesWhatOldFilesHoldBeside) {
  const TemporaryFolder temp;
  const fs::path folder = copy_of(temp, "llama");
  edit(folder, [](Tensors& t) {
    t.entries.push_back(t.at("model.embed_tokens.weight"));  // tied, and written all the same
    t.entries.back().name = "lm_head.weight";
    t.entries.push_back(t.at("model.norm.weight"));
    t.entries.back().name = "model.layers.0.self_attn.rotary_emb.inv_freq";
  });
  const hub::Imported x =
      hub::import_model({.input = folder, .output = temp / "run", .threads = 1});
  EXPECT_TRUE(x.proof->holds());
}

TEST(Import, NeverTouchesAFolderThatExistsAndClearsWhatAKilledOneLeft) {
  const TemporaryFolder temp;
  fs::create_directories(temp / "run");
  const hub::ImportOptions options{
      .input = golden("llama"), .output = temp / "run", .prove = false};
  const Refusal r = refusal([&] { hub::import_model(options); });
  EXPECT_EQ(r.code, ExitCode::cannot_create);
  EXPECT_SAYS(r, "exists; choose another folder");
  EXPECT_TRUE(fs::is_empty(temp / "run"));

  fs::remove(temp / "run");
  fs::create_directories(temp / "run.grist-tmp" / "checkpoints");
  temp.write("run.grist-tmp/half", "written");
  EXPECT_EQ(hub::import_model(options).folder, temp / "run");
  EXPECT_FALSE(fs::exists(temp / "run" / "half"));
  EXPECT_FALSE(fs::exists(temp / "run.grist-tmp"));
}

TEST(Import, TwoAtOnceInOneFolderAreRefused) {
  const TemporaryFolder temp;
  fs::create_directories(temp / "run.grist-tmp");
  const FolderLock other(temp / "run.grist-tmp");
  const Refusal r = refusal([&] {
    hub::import_model({.input = golden("llama"), .output = temp / "run", .prove = false});
  });
  EXPECT_EQ(r.code, ExitCode::cannot_create);
  EXPECT_SAYS(r, "another process is writing it");
}

TEST(Import, CheckpointIsWholeAndHoldsWhatTrainingCarries) {
  const TemporaryFolder temp;
  hub::import_model({.input = golden("glm4_moe"), .output = temp / "run", .prove = false});
  const fs::path step = temp / "run/checkpoints/step-00000000";
  EXPECT_TRUE(verify_step(step).ok());
  const CheckpointReader reader(step);
  const std::string bias = hub::router_bias_name(1);
  EXPECT_NE(reader.manifest().find_tensor(bias), nullptr);
  std::vector<float> fractions(6);
  const TensorDestination to = whole_destination("balance.load_fraction." + bias,
                                                 TensorView{fractions.data(), DType::f32, {6}});
  reader.read(std::span(&to, 1), {.ignore_prefixes = {""}});
  EXPECT_EQ(fractions, std::vector<float>(6, 1.0F / 6));
  EXPECT_EQ(reader.state().at("counters").at("step").as_int(), 0);
  EXPECT_EQ(reader.text("config.yaml"), read_text(temp / "run/config.yaml"));
}

TEST(Import, MissingInputsAreNotFound) {
  const TemporaryFolder temp;
  for (const char* name : {"nothing", "."}) {
    const Refusal r = refusal([&] {
      hub::import_model({.input = temp.path() / name, .output = temp / "run", .prove = false});
    });
    EXPECT_EQ(r.code, ExitCode::not_found);
    EXPECT_SAYS(r, "holds no config.json");
  }
}

TEST(Import, ATokenizerThatIsTooLargeOrNotReadableIsLeftOut) {
  const TemporaryFolder temp;
  const fs::path folder = copy_of(temp, "llama");
  fs::copy(fs::path(GRIST_TESTS_DIR) / "golden/tokenizer/small.json", folder / "tokenizer.json");
  EXPECT_FALSE(
      hub::import_model({.input = folder, .output = temp / "a", .prove = false}).has_tokenizer);
  write_text_atomically(folder / "tokenizer.json", "{\"model\":{\"type\":\"Unigram\"}}");
  EXPECT_FALSE(
      hub::import_model({.input = folder, .output = temp / "b", .prove = false}).has_tokenizer);
}

// config.json and the file's header together: the list of tensors comes from the one, the tensors
// from the other.
TEST(Import, MutationsAreImportedOrRefusedNeverWorse) {
  const Random random(6, "import mutations");
  const TemporaryFolder temp;
  int refused = 0, count = scaled(250);
  for (int n = 0; n < count; ++n) {
    const std::string& name = kGoldens[static_cast<std::size_t>(n) % kGoldens.size()];
    if (name == "mixtral") continue;
    fs::remove_all(temp / name);
    fs::remove_all(temp / "run");
    const fs::path folder = copy_of(temp, name);
    const auto at = static_cast<std::uint64_t>(n) * 8;
    Json config = config_of(folder);
    auto& values = config.as_object();
    if (random.below(at, 2) == 0) {  // a number of config.json
      Json& value = values[random.below(at + 1, values.size())].second;
      if (!value.is_int()) continue;
      value = static_cast<std::int64_t>(random.below(at + 2, 64));
      write_config(folder, config);
    } else {  // a byte of the file
      std::string bytes = read_text(folder / "model.safetensors");
      bytes[random.below(at + 1, bytes.size())] ^= static_cast<char>(1 << random.below(at + 2, 8));
      File::create(folder / "model.safetensors").append(bytes);
    }
    const Refusal r = refusal(
        [&] { hub::import_model({.input = folder, .output = temp / "run", .prove = false}); });
    ASSERT_TRUE(r.code == ExitCode::ok || r.code == ExitCode::bad_data ||
                r.code == ExitCode::config)
        << r.what;
    ASSERT_EQ(fs::exists(temp / "run"), r.code == ExitCode::ok) << r.what;
    refused += r.code == ExitCode::ok ? 0 : 1;
  }
  tally(count, "mutated folders imported");
  EXPECT_GT(refused, count / 20);
  EXPECT_LT(refused, count);
}

}  // namespace
}  // namespace grist::test
