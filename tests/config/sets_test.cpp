// --set.
#include <gtest/gtest.h>

#include "fields.h"
#include "support.h"

namespace grist {
namespace {

using test::kSmall;
using test::message_of;
using test::replaced;

Config with(const std::vector<std::string>& sets) {
  return parse_config(kSmall, "f.yaml", sets).config;
}

TEST(Set, ChangesAValueAndAddsOne) {
  const Config c = with({"model.hidden_size=128", "checkpoint.keep=7"});

  EXPECT_EQ(c.model.hidden_size, 128);
  EXPECT_EQ(c.checkpoint.keep, 7);
}

TEST(Set, LaterOnesWin) {
  EXPECT_EQ(with({"optim.lr=1", "optim.lr=2"}).optim.lr, 2.0);
}

TEST(Set, DerivesAnewFromChangedValues) {
  const Config c = with({"model.moe.granularity=8"});

  EXPECT_EQ(c.model.moe.num_experts, 64);
  EXPECT_EQ(c.model.moe.moe_intermediate_size, 32);
}

TEST(Set, ReplacesTheFilesValueUnderAnotherSpelling) {
  EXPECT_EQ(with({"model.num_layers=3"}).model.num_hidden_layers, 3);
}

TEST(Set, ChangesOneFieldOfAListItem) {
  const Config c = with({"data.train.0.weight=3"});

  ASSERT_EQ(c.data.train.size(), 1U);
  EXPECT_EQ(c.data.train[0].path, "data/a");
  EXPECT_EQ(c.data.train[0].weight, 3.0);
}

TEST(Set, AddsAListItem) {
  const Config c = with({"data.train.1.path=data/b", "data.train.1.weight=2"});

  ASSERT_EQ(c.data.train.size(), 2U);
  EXPECT_EQ(c.data.train[1].path, "data/b");
  EXPECT_EQ(c.data.train[1].weight, 2.0);
}

TEST(Set, TakesWholeYamlValues) {
  const Config c =
      with({"data.train=[{path: x, weight: 2}, {path: y}]", "optim={lr: 0.5, min_lr: 0.25}",
            "model.moe.capacity_factor=null", "train.rampup_batch_size=[2, 2, 8]"});

  ASSERT_EQ(c.data.train.size(), 2U);
  EXPECT_EQ(c.data.train[1].path, "y");
  EXPECT_EQ(c.optim.min_lr, 0.25);
  EXPECT_EQ(c.train.rampup_batch_size.size(), 3U);
}

TEST(Set, AnEmptyValueIsEmptyText) {
  EXPECT_EQ(with({"init.from=x", "init.from="}).init.from, "");
}

TEST(Set, TakesTextWithEqualsSigns) {
  EXPECT_EQ(with({"run.dir=a=b"}).run.dir, "a=b");
}

TEST(Set, OfAnItemDoesNotKeepTheOldName) {
  const Config c = parse_config(replaced(kSmall, "{path: data/a}", "{path: data/a, name: old}"),
                                "f.yaml", {"data.train=[{path: data/new}]"})
                       .config;

  EXPECT_EQ(c.data.train[0].name, "new");
}

TEST(Set, OfAnyPathRefusesWhatOnlyAShellExpands) {
  Config config;
  config.data.train.resize(1);
  int paths = 0;
  const auto expect_refused = [&](const config::Slot& slot) {
    const auto* text = std::get_if<Text>(&slot.limit);
    if (text == nullptr || *text == Text::any) return;
    ++paths;
    for (const char* path : {"~/x", "$GRIST_NO_SUCH/x"})
      EXPECT_NE(message_of(std::string(kSmall), {slot.key + "=" + path})
                    .find(slot.key + ": " + path + ": "),
                std::string::npos)
          << slot.key;
  };

  for (const config::Slot& slot : config::slots_of(config)) expect_refused(slot);
  for (const config::Slot& slot : config::slots_of(config.data.train[0], "data.train.0"))
    expect_refused(slot);

  EXPECT_GE(paths, 4);
}

struct WrongSet {
  const char* set;
  const char* says;
};

class WrongSets : public ::testing::TestWithParam<WrongSet> {};

TEST_P(WrongSets, AreRefusedByName) {
  const std::string message = message_of(std::string(kSmall), {GetParam().set});

  EXPECT_NE(message.find(GetParam().says), std::string::npos) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  EXPECT_EQ(message.rfind(std::string("--set ") + GetParam().set + ": ", 0), 0U) << message;
}

const WrongSet kWrong[] = {
    {"optim.lr", "want key=value"},
    {"=3", "want key=value"},
    {"optim.lrr=3", "unknown key; did you mean lr?"},
    {"optim.lr=abc", "abc; want a finite number"},
    {"optim.lr=", "\"\"; want a number"},
    {"optim=3", "want a block of keys"},
    {"optim.lr.x=3", "unknown key"},
    {"data.train.2.path=x", "2 is no item of data.train, which has 1; want 0 to 1"},
    {"data.train.first.path=x", "first is no item of data.train"},
    {"data.train.1.weight=2", "data.train.1.path: missing"},
    {"data.train.0.paht=x", "unknown key; did you mean path?"},
    {"data.train=[", "not YAML"},
    {"model.moe.num_experts=16", "16 does not agree with granularity 4 * expansion_rate 8 = 32"},
    {"data.train=[]", "data.train: missing"},
};

INSTANTIATE_TEST_SUITE_P(Table, WrongSets, ::testing::ValuesIn(kWrong));

}  // namespace
}  // namespace grist
