// The files under configs/: they load, their comments are true, and no damage to one crashes.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "grist/config/compare.h"
#include "grist/config/parameters.h"
#include "grist/core/file.h"
#include "grist/core/random.h"
#include "support.h"
#include "support/scale.h"

namespace grist {
namespace {

std::vector<std::filesystem::path> presets() {
  std::vector<std::filesystem::path> out;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(GRIST_SOURCE_DIR "/configs"))
    if (entry.path().extension() == ".yaml") out.push_back(entry.path());
  std::sort(out.begin(), out.end());
  return out;
}

std::filesystem::path preset(const std::string& name) {
  return std::filesystem::path(GRIST_SOURCE_DIR) / "configs" / "run" / (name + ".yaml");
}

std::string human(std::int64_t count) {
  const auto n = static_cast<double>(count);
  return n >= 1e9 ? fmt::format("{:.2f}B", n / 1e9) : fmt::format("{:.2f}M", n / 1e6);
}

TEST(Presets, AreAllThere) {
  EXPECT_TRUE(std::filesystem::exists(preset("quickstart")));
  for (const char* size : {"s", "m", "11b", "56b"})
    for (const char* variant : {"1xflops_g1", "1xflops_g8", "2xflops_g1", "2xflops_g8"})
      EXPECT_TRUE(std::filesystem::exists(preset(fmt::format("{}_{}", size, variant))))
          << size << variant;
}

TEST(Presets, LoadWithoutNotesAndPrintToTheSameConfig) {
  for (const auto& path : presets()) {
    const LoadedConfig loaded = load_config(path, {});
    const LoadedConfig again = parse_config(to_yaml(loaded), "again.yaml", {});

    EXPECT_TRUE(loaded.notes.empty()) << path;
    EXPECT_TRUE(config_differences(loaded.config, again.config).empty()) << path;
  }
}

TEST(Presets, SayTheirTrueParametersStepsAndFlops) {
  for (const auto& path : presets()) {
    const Config c = load_config(path, {}).config;
    const ParameterCount count = count_parameters(c.model);
    const std::int64_t tokens =
        c.train.train_tokens > 0
            ? c.train.train_tokens
            : c.train.train_iters * c.train.global_batch_size * c.data.seq_length;
    const std::string text = read_text(path);

    for (const std::string& want :
         {fmt::format("{} total, {} active", human(count.total), human(count.active)),
          fmt::format("{} and {} without the embedding", human(count.total_non_embedding),
                      human(count.active_non_embedding)),
          fmt::format("{} of width {} a layer, {} a token", c.model.moe.num_experts,
                      c.model.moe.moe_intermediate_size, c.model.moe.num_experts_per_tok),
          fmt::format("6ND {:.1e}",
                      6.0 * static_cast<double>(count.active) * static_cast<double>(tokens)),
          fmt::format("{:.1e} model FLOPs", training_flops_per_token(c.model, c.data.seq_length) *
                                                static_cast<double>(tokens))})
      EXPECT_NE(text.find(want), std::string::npos) << path << " should say: " << want;
  }
}

TEST(Presets, VariantsOfASizeDifferOnlyInTheirRouting) {
  for (const char* size : {"s", "m", "11b", "56b"}) {
    const Config fine = load_config(preset(fmt::format("{}_1xflops_g8", size)), {}).config;
    for (const char* variant : {"1xflops_g1", "2xflops_g1", "2xflops_g8"}) {
      const Config other = load_config(preset(fmt::format("{}_{}", size, variant)), {}).config;
      for (const ConfigDifference& d : config_differences(fine, other))
        EXPECT_TRUE(d.key == "run.dir" || d.key.starts_with("model.moe.")) << variant << d.key;
    }
  }
}

TEST(Presets, WithOneExpertATokenUsePreSoftmaxAndSayWhy) {
  for (const auto& path : presets()) {
    const MoeConfig e = load_config(path, {}).config.model.moe;
    EXPECT_EQ(e.router.pre_softmax, e.num_experts_per_tok == 1) << path;
    if (e.num_experts_per_tok != 1) continue;
    EXPECT_NE(read_text(path).find("gives the router no"), std::string::npos) << path;
  }
}

// One to four bytes replaced, dropped or doubled.
std::string damaged(std::string text, const Random& random, std::uint64_t index) {
  const std::uint64_t bits = random.bits(index * 16);
  for (std::uint64_t k = 0; k <= bits % 4 && !text.empty(); ++k) {
    const auto at = static_cast<std::size_t>(random.below(index * 16 + 1 + k, text.size()));
    const std::uint64_t what = random.bits(index * 16 + 8 + k);
    constexpr std::string_view kHard = "{}[]:,&*!|>'\"%@`#-?\n\t <~\xff\x00";
    if (what % 4 == 0)
      text[at] = static_cast<char>(what >> 8);
    else if (what % 4 == 1)
      text[at] = kHard[(what >> 8) % kHard.size()];
    else if (what % 4 == 2)
      text.erase(at, 1 + (what >> 8) % 20);
    else
      text.insert(at, text.substr(at, 1 + (what >> 8) % 40));
  }
  return text;
}

TEST(Presets, DamageIsRefusedOrHarmlessButNeverACrash) {
  const std::string text = read_text(preset("quickstart"));
  const Random random(11, "damage");
  int refused = 0, loaded = 0;
  const int texts = test::scaled(3000);
  for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(texts); ++i) {
    const std::string bad = damaged(text, random, i);
    try {
      const LoadedConfig config = parse_config(bad, "f.yaml", {});
      ASSERT_TRUE(
          config_differences(parse_config(to_yaml(config), "g.yaml", {}).config, config.config)
              .empty())
          << bad;
      ++loaded;
    } catch (const Error& e) {
      ASSERT_EQ(e.code(), ExitCode::config) << e.what() << "\n" << bad;
      ++refused;
    }
  }
  EXPECT_GT(refused, texts / 10);
  EXPECT_GT(loaded, texts / 10);  // damage in comments
}

}  // namespace
}  // namespace grist
