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
  EXPECT_EQ(config_hash(small()), config_hash(small()));
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

TEST(Hash, ChangesWithAnyValueAndArchitectureHashOnlyWithTheModel) {
  const Config a = small(), b = small({"optim.clip_grad=0.5"}), c = small({"model.qk_norm=true"});

  EXPECT_NE(config_hash(a), config_hash(b));
  EXPECT_EQ(architecture_hash(a), architecture_hash(b));
  EXPECT_NE(architecture_hash(a), architecture_hash(c));
}

TEST(Architecture, NamesOnlyKeysThatExist) {
  Config config;
  const auto values = config_values(config);
  for (const std::string& key : architecture_keys()) {
    bool found = false;
    for (const KeyValue& kv : values) found = found || kv.key == key;
    EXPECT_TRUE(found) << key;
  }
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
