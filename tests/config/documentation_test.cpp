// docs/configuration.md lists every key with its default.
#include <gtest/gtest.h>

#include "fields.h"
#include "grist/config/compare.h"
#include "grist/core/check.h"
#include "grist/core/file.h"

namespace grist {
namespace {

TEST(Documentation, ListsEveryKeyWithItsDefault) {
  const std::string page = read_text(GRIST_SOURCE_DIR "/docs/configuration.md");
  Config config;
  config.data.train.resize(1);
  for (const KeyValue& kv : config_values(config)) {
    std::string key = kv.key;
    if (key.starts_with("data.train.0")) key.replace(11, 1, "N");
    const std::string row = fmt::format("\n| `{}` |", key);
    const auto at = page.find(row);
    ASSERT_NE(at, std::string::npos) << key;
    const std::string line = page.substr(at + 1, page.find('\n', at + 1) - at - 1);
    const bool stands_for_another = line.find("| required |") != std::string::npos ||
                                    line.find("| from ") != std::string::npos ||
                                    line.find("| none |") != std::string::npos;
    EXPECT_TRUE(stands_for_another || line.find("| `" + kv.value + "` |") != std::string::npos)
        << "default " << kv.value << " is not in: " << line;
  }
}

TEST(Documentation, ListsNoKeyThatDoesNotExist) {
  const std::string page = read_text(GRIST_SOURCE_DIR "/docs/configuration.md");
  Config config;
  config.data.train.resize(1);
  std::string all = "\ndata.train\n";
  for (const KeyValue& kv : config_values(config)) all += "\n" + kv.key + "\n";
  for (auto at = page.find("\n| `"); at != std::string::npos; at = page.find("\n| `", at + 1)) {
    std::string key = page.substr(at + 4, page.find('`', at + 4) - at - 4);
    if (key.starts_with("data.train.N")) key.replace(11, 1, "0");
    EXPECT_NE(all.find("\n" + key + "\n"), std::string::npos) << key;
  }
}

TEST(Documentation, NamesEveryWord) {
  const std::string page = read_text(GRIST_SOURCE_DIR "/docs/configuration.md");
  Config config;
  for (const config::Slot& slot : config::slots_of(config)) {
    const auto* field = std::get_if<config::WordField>(&slot.target);
    if (field == nullptr) continue;
    const auto at = page.find(fmt::format("\n| `{}` |", slot.key));
    const std::string line = page.substr(at + 1, page.find('\n', at + 1) - at - 1);
    for (int i = 0; !nth_word(field->list(), i).empty(); ++i)
      EXPECT_NE(line.find(nth_word(field->list(), i)), std::string::npos) << line;
  }
}

}  // namespace
}  // namespace grist
