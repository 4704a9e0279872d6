// Comparing configs.
#include <gtest/gtest.h>

#include "fields.h"
#include "grist/config/compare.h"
#include "support.h"

namespace grist {
namespace {

using test::kSmall;

Config small(const std::vector<std::string>& sets = {}) {
  return parse_config(kSmall, "f.yaml", sets).config;
}

TEST(Differences, AreEmptyForEqualConfigs) {
  EXPECT_TRUE(config_differences(small(), small()).empty());
}

TEST(Differences, NameTheKeyAndBothValues) {
  const auto d = config_differences(small(), small({"optim.lr=2e-3", "model.rope_theta=5000"}));

  ASSERT_EQ(d.size(), 2U);
  EXPECT_EQ(d[0].key, "model.rope_theta");
  EXPECT_EQ(d[0].before, "10000.0");
  EXPECT_EQ(d[0].after, "5000.0");
  EXPECT_TRUE(d[0].architecture);
  EXPECT_EQ(d[1].key, "optim.lr");
  EXPECT_FALSE(d[1].architecture);
}

TEST(Differences, ShowAnAddedSource) {
  const auto d = config_differences(small(), small({"data.train.1={path: data/b}"}));

  ASSERT_EQ(d.size(), 3U);
  EXPECT_EQ(d[0].key, "data.train.1.path");
  EXPECT_EQ(d[0].before, "");
  EXPECT_EQ(d[0].after, "data/b");
}

TEST(Differences, OfTheModelAreOfTheArchitecture) {
  const auto trained = config_differences(small(), small({"optim.clip_grad=0.5"}));
  const auto built = config_differences(small(), small({"model.qk_norm=true"}));

  ASSERT_EQ(trained.size(), 1U);
  EXPECT_FALSE(trained[0].architecture);
  ASSERT_EQ(built.size(), 1U);
  EXPECT_TRUE(built[0].architecture);
}

// A key that is renamed must be renamed in the list too.
TEST(Differences, KnowEveryKeyOfTheArchitecture) {
  const auto values = config_values(Config{});

  EXPECT_EQ(std::count_if(values.begin(), values.end(),
                          [](const KeyValue& kv) { return is_architecture_key(kv.key); }),
            20);
}

TEST(Words, AreReadAndPrintedAsTheEnumSpellsThem) {
  for (const WantedTransport value : all_words<WantedTransport>())
    EXPECT_EQ(from_word<WantedTransport>(word(value)), value);

  EXPECT_EQ(word(WantedTransport::auto_), "auto");
  EXPECT_EQ(word(WantedTransport::staged), "staged");
  EXPECT_EQ(word(RouterDtype::fp32), "fp32");
  EXPECT_FALSE(from_word<WantedTransport>("auto_").has_value());
  EXPECT_FALSE(from_word<WantedTransport>("").has_value());
  EXPECT_EQ(all_words<WantedTransport>().size(), 3U);
}

TEST(DenseLayers, ComeFirstAndAreAllWithoutExperts) {
  ModelConfig m;
  m.num_hidden_layers = 4;
  EXPECT_EQ(m.num_moe_layers(), 0);
  EXPECT_FALSE(m.is_moe_layer(3));

  m.moe.num_experts = 8;
  m.moe.first_k_dense_replace = 1;
  EXPECT_EQ(m.num_moe_layers(), 3);
  EXPECT_FALSE(m.is_moe_layer(0));
  EXPECT_TRUE(m.is_moe_layer(1));
}

}  // namespace
}  // namespace grist
