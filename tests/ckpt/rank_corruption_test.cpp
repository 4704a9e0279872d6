// Damage of every kind to the shards of four ranks: found before any rank goes on, by all ranks
// together, with one warning; the step before is loaded.
#include <algorithm>
#include <fstream>

#include "ckpt/rank_fixture.h"
#include "grist/core/check.h"
#include "support/scale.h"

namespace grist::test {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kBlock = 512;

using Files = std::map<std::string, std::string>;  // name -> content

Files read_files(const fs::path& step) {
  Files files;
  for (const auto& entry : fs::directory_iterator(step))
    files[entry.path().filename().string()] = read_text(entry.path());
  return files;
}

void save_four(const fs::path& at, const char* run, std::vector<std::int64_t> steps) {
  comm::run_local(4, [&](comm::Communicator& c) {
    CheckpointFolder folder(at, run, {.block_bytes = kBlock, .communicator = &c});
    for (const std::int64_t step : steps) save_step(folder, c, step);
  });
}

class Mutations {
 public:
  Mutations(Files good, Files other_step, Files other_run)
      : good_(std::move(good)), others_{std::move(other_step), std::move(other_run)} {
    for (const auto& [name, content] : good_) {
      if (content.empty()) continue;
      names_.push_back(name);
      if (name.starts_with("shard")) shards_.push_back(name);
    }
  }

  // Files that differ from the good ones; an empty optional is a deleted file. `what` says how.
  std::map<std::string, std::optional<std::string>> draw(std::uint64_t seed,
                                                         std::string& what) const {
    const Random random(seed, "mutation");
    std::uint64_t n = 0;
    const auto below = [&](std::uint64_t bound) { return random.below(n++, bound); };
    const std::string& name = names_[below(names_.size())];
    const std::string& shard = shards_[below(shards_.size())];
    std::string bytes = good_.at(name);
    const std::uint64_t at = below(bytes.size());
    what = fmt::format("mutation {} of {}, byte {}", seed, name, at);
    switch (below(16)) {
      case 0: return {{name, bytes.substr(0, at)}};
      case 1: return {{name, bytes + std::string(1 + below(2 * kBlock), '\0')}};
      case 2: return {{name, std::nullopt}};
      case 3: {
        const std::size_t page = at / kBlock * kBlock;
        bytes.replace(page, kBlock,
                      std::string(std::min<std::size_t>(kBlock, bytes.size() - page), '\0'));
        return {{name, bytes}};
      }
      case 4: {
        const std::string& second = shards_[below(shards_.size())];
        return {{shard, good_.at(second)}, {second, good_.at(shard)}};
      }
      case 5: return {{shard, good_.at(shards_[below(shards_.size())])}};
      case 6:
      case 7: return {{shard, others_[below(2)].at(shard)}};
      default: bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8))); return {{name, bytes}};
    }
  }
  const Files& good() const { return good_; }

 private:
  Files good_;
  std::array<Files, 2> others_;
  std::vector<std::string> names_, shards_;
};

TEST(RankCorruption, EveryMutationIsFoundByAllRanks) {
  const TemporaryFolder temp;
  save_four(temp / "c", kRun, {1, 2});
  save_four(temp / "other", kOtherRun, {2});
  const fs::path step = temp / "c/step-00000002";
  const Mutations mutations(read_files(step), read_files(temp / "c/step-00000001"),
                            read_files(temp / "other/step-00000002"));
  ASSERT_EQ(mutations.good().size(), 7U);
  const char* soak = std::getenv("GRIST_SOAK_SCENARIOS");
  const int wanted = soak != nullptr ? std::atoi(soak) : test::scaled(10'000);
  int found = 0;

  ::testing::internal::CaptureStderr();
  comm::run_local(4, [&](comm::Communicator& c) {
    for (std::uint64_t seed = 0; found < wanted; ++seed) {
      std::string what;
      auto changed = mutations.draw(seed, what);
      std::erase_if(changed,
                    [&](const auto& f) { return f.second == mutations.good().at(f.first); });
      if (changed.empty()) continue;  // e.g. a shard swapped with itself
      if (c.rank() == 0) {
        for (const auto& [name, content] : changed) {
          if (content)
            std::ofstream(step / name, std::ios::binary) << *content;
          else
            fs::remove(step / name);
        }
      }
      comm::barrier(c);
      const std::int64_t loaded = loaded_step(c, temp / "c", 4);
      GRIST_CHECK(loaded == 1, "{}: step {} was loaded", what, loaded);
      comm::barrier(c);
      if (c.rank() == 0) {
        for (const auto& [name, content] : changed)
          std::ofstream(step / name, std::ios::binary) << mutations.good().at(name);
        ++found;
      }
      comm::barrier(c);
    }
  });
  const std::string warnings = ::testing::internal::GetCapturedStderr();

  tally(found, "mutations of a checkpoint of four ranks");
  EXPECT_EQ(std::count(warnings.begin(), warnings.end(), '\n'), found) << "one warning each";
  EXPECT_TRUE(verify_step(step).ok());
}

// Not one byte of a step is beyond the ranks' reach, however many there are.
TEST(RankCorruption, NoByteIsOutsideWhatTheRanksVerify) {
  const TemporaryFolder temp;
  save_four(temp / "c", kRun, {1, 2});
  const fs::path step = temp / "c/step-00000002";
  for (const int world : {1, 3}) {
    int found = 0, flips = 0;
    ::testing::internal::CaptureStderr();
    comm::run_local(world, [&](comm::Communicator& c) {
      for (const auto& [name, content] : read_files(step)) {
        for (std::size_t at = 7; at < content.size(); at += 37 * kStride) {
          comm::barrier(c);
          if (c.rank() == 0) {
            std::string bad = content;
            bad[at] = static_cast<char>(bad[at] ^ 16);
            std::ofstream(step / name, std::ios::binary) << bad;
          }
          comm::barrier(c);
          const std::int64_t loaded = loaded_step(c, temp / "c", 4);
          comm::barrier(c);
          if (c.rank() != 0) continue;
          std::ofstream(step / name, std::ios::binary) << content;
          ++flips;
          found += loaded == 1 ? 1 : 0;
        }
        comm::barrier(c);
      }
    });
    ::testing::internal::GetCapturedStderr();
    EXPECT_GT(flips, 150 / kStride);
    EXPECT_EQ(found, flips);
  }
}

TEST(RankCorruption, TheWarningNamesFileRangeAndSumsWhicheverRankFoundIt) {
  const TemporaryFolder temp;
  save_four(temp / "c", kRun, {1, 2});
  const fs::path file = temp / "c/step-00000002/shard-00003-of-00004.safetensors";
  std::string bytes = read_text(file);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  std::ofstream(file, std::ios::binary) << bytes;
  ::testing::internal::CaptureStderr();
  comm::run_local(4, [&](comm::Communicator& c) { EXPECT_EQ(loaded_step(c, temp / "c"), 1); });
  const std::string warning = ::testing::internal::GetCapturedStderr();
  for (const char* part : {"step-00000002 is damaged: shard-00003-of-00004.safetensors bytes [",
                           " was saved, the bytes have ", "trying the step before"})
    EXPECT_NE(warning.find(part), std::string::npos) << warning;
  EXPECT_EQ(std::count(warning.begin(), warning.end(), '\n'), 1) << warning;
}

}  // namespace
}  // namespace grist::test
