// Export, import, export again: the same bytes; several files and bf16; what stands in the way.
#include <set>

#include "grist/ckpt/checkpoint.h"
#include "grist/config/load.h"
#include "grist/hub/export.h"
#include "hub/support.h"

namespace grist::test {
namespace {

// A golden as a run folder.
fs::path run_of(const TemporaryFolder& temp, const std::string& name) {
  const fs::path run = temp / (name + "-run");
  hub::import_model({.input = golden(name), .output = run, .prove = false});
  return run;
}

hub::Exported exported(const fs::path& run, const fs::path& to, hub::WriteOptions write = {},
                       bool prove = false) {
  return hub::export_model(
      {.checkpoint = run, .output = to, .write = write, .prove = prove, .threads = 1});
}

void expect_same_files(const fs::path& a, const fs::path& b) {
  std::set<std::string> names;
  for (const fs::path& folder : {a, b})
    for (const auto& entry : fs::directory_iterator(folder))
      names.insert(entry.path().filename().string());
  names.erase("README.md");  // names the run
  EXPECT_GE(names.size(), 3U);
  for (const std::string& name : names)
    EXPECT_TRUE(read_text(a / name) == read_text(b / name)) << name;
}

class HubRoundTrip : public ::testing::TestWithParam<std::string> {};

TEST_P(HubRoundTrip, ExportImportExportGivesTheSameBytes) {
  const TemporaryFolder temp;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const std::string tag = dtype == DType::f32 ? "-fp32" : "-bf16";
    const hub::WriteOptions write{.dtype = dtype, .max_shard_bytes = 20000};
    const fs::path first = temp / ("first" + tag), again = temp / ("again" + tag),
                   second = temp / ("second" + tag), run = temp / ("run" + tag);
    if (dtype == DType::f32) run_of(temp, GetParam());

    const hub::Exported x = exported(temp / (GetParam() + "-run"), first, write, true);
    hub::import_model({.input = first, .output = run, .threads = 1});
    exported(run, second, write);
    exported(run, again, write);

    ASSERT_TRUE(x.proof.has_value());
    EXPECT_LT(x.proof->difference, 1e-4);
    EXPECT_EQ(x.proof->rounding > 1e-3,
              dtype == DType::bf16 && !GetParam().ends_with("_bf16") && GetParam() != "qwen3_moe");
    expect_same_files(first, second);
    expect_same_files(second, again);
  }
}

// What transformers saved and what comes out again are the same numbers under the same names.
TEST_P(HubRoundTrip, ImportExportKeepsEveryNumberOfTransformersFiles) {
  const TemporaryFolder temp;
  exported(run_of(temp, GetParam()), temp / "out");
  const hub::HubFiles before(golden(GetParam())), after(temp / "out");
  EXPECT_EQ(config_of(temp / "out").at("eos_token_id").as_int(), 3);
  const bool fused = GetParam().ends_with("_fused");
  ASSERT_TRUE(fused || before.names() == after.names());
  for (const std::string& name : after.names()) {
    if (before.find(name) == nullptr) continue;
    const SafetensorsEntry& e = *after.find(name);
    std::vector<float> a(static_cast<std::size_t>(e.shape.numel())), b(a.size());
    before.read(name, 0, a);
    after.read(name, 0, b);
    if (name.find("shared_expert.") != std::string::npos ||
        name.find("shared_expert_gate") != std::string::npos)
      continue;  // a dead one; its other numbers are multiplied by zero
    EXPECT_EQ(a, b) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Transformers, HubRoundTrip, ::testing::ValuesIn(kGoldens),
                         [](const auto& test) { return test.param; });

TEST(HubExport, AnyNumberOfFilesIsTheSameModel) {
  const TemporaryFolder temp;
  const fs::path run = run_of(temp, "mixtral");
  exported(run, temp / "one");
  exported(run, temp / "many", {.max_shard_bytes = 1});
  const hub::HubFiles one(temp / "one"), many(temp / "many");
  EXPECT_TRUE(fs::exists(temp / "many" / "model-00053-of-00053.safetensors"));
  ASSERT_EQ(one.names(), many.names());
  EXPECT_EQ(one.bytes(), many.bytes());
  for (const std::string& name : one.names()) {
    std::vector<float> a(static_cast<std::size_t>(one.find(name)->shape.numel())), b(a.size());
    one.read(name, 0, a);
    many.read(name, 0, b);
    EXPECT_EQ(a, b) << name;
  }
  const Json index =
      Json::parse(read_text(temp / "many" / "model.safetensors.index.json"), "index");
  EXPECT_EQ(index.at("metadata").at("total_size").as_int(),
            static_cast<std::int64_t>(many.bytes()));
}

TEST(HubExport, GlmRouterStaysFp32InABf16File) {
  const TemporaryFolder temp;
  exported(run_of(temp, "glm4_moe"), temp / "out", {.dtype = DType::bf16});
  const hub::HubFiles files(temp / "out");
  EXPECT_EQ(files.find("model.layers.1.mlp.gate.weight")->type, "F32");
  EXPECT_EQ(files.find("model.layers.1.mlp.gate.e_score_correction_bias")->type, "F32");
  EXPECT_EQ(files.find("model.layers.1.mlp.experts.0.up_proj.weight")->type, "BF16");
}

void spoil(const fs::path& file) {
  std::string bytes = read_text(file);
  bytes[bytes.size() / 2] ^= 1;
  File::create(file).append(bytes);
}

TEST(HubExport, ADamagedCheckpointIsPassedOverOrRefused) {
  const TemporaryFolder temp;
  const fs::path run = run_of(temp, "qwen3");
  spoil(run / "checkpoints/step-00000000/shard-00000-of-00001.safetensors");
  const Refusal r = refusal([&] { exported(run, temp / "out"); });
  EXPECT_EQ(r.code, ExitCode::bad_data);
  EXPECT_SAYS(r, "no usable checkpoint");
  EXPECT_FALSE(fs::exists(temp / "out"));
  EXPECT_FALSE(fs::exists(temp / "out.grist-tmp"));
}

TEST(HubExport, ExistingFoldersAndMissingCheckpointsAreRefused) {
  const TemporaryFolder temp;
  EXPECT_EQ(refusal([&] { exported(temp / "no", temp / "out"); }).code, ExitCode::not_found);
  const fs::path run = run_of(temp, "llama");
  temp.write("out", "a file");
  const Refusal r = refusal([&] { exported(run, temp / "out"); });
  EXPECT_EQ(r.code, ExitCode::cannot_create);
  EXPECT_EQ(read_text(temp / "out"), "a file");
}

// The proof is worth something only if it fails when the files are another model.
TEST(HubExport, TheProofFailsForAnotherModel) {
  const TemporaryFolder temp;
  const fs::path run = run_of(temp, "mixtral");
  const fs::path out = exported(run, temp / "out").folder;
  eval::TrainedModel trained = eval::load_trained_model(run, {.threads = 1});
  const auto tensors = hub::hub_tensors(hub::Family::mixtral, trained.config.model);
  Json config = config_of(out);
  const auto holds = [&](const Json& c) {
    return hub::prove(hub::HubFiles(out), c, tensors, DType::f32, trained).holds();
  };
  EXPECT_TRUE(holds(config));
  config.set("rope_theta", 5001.0);
  EXPECT_FALSE(holds(config));

  // Two experts of one layer in each other's place.
  Tensors t(out / "model.safetensors");
  const std::string at = "model.layers.1.block_sparse_moe.experts.";
  std::swap(t.at(at + "0.w2.weight").bytes, t.at(at + "1.w2.weight").bytes);
  t.write(out / "model.safetensors");
  EXPECT_FALSE(holds(config_of(out)));
}

TEST(HubExport, SizesAreRead) {
  EXPECT_EQ(hub::parse_size("5GB"), 5000000000U);
  EXPECT_EQ(hub::parse_size("1.5MiB"), 1572864U);
  EXPECT_EQ(hub::parse_size("4096"), 4096U);
  for (const char* bad : {"", "GB", "5 GB", "5gb", "-1MB", "0", "nan", "inf", "1e30GB"})
    EXPECT_EQ(refusal([&] { hub::parse_size(bad); }).code, ExitCode::usage) << bad;
}

}  // namespace
}  // namespace grist::test
