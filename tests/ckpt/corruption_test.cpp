// Damage of every kind to the newest of two steps: always found, always named in one warning, and
// the step before is loaded.
#include <fstream>

#include "ckpt/fixture.h"
#include "grist/core/check.h"
#include "support/scale.h"

namespace grist::test {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> files_of(const fs::path& step) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(step)) {
    if (entry.file_size() > 0) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

void write_bytes(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

class Corruption : public ::testing::Test {
 protected:
  Corruption() {
    CheckpointFolder folder(temp_ / "c", kRun, {.block_bytes = 512});
    save_step(folder, 1);
    save_step(folder, 2);
  }
  fs::path step(std::int64_t n) const { return temp_ / "c" / step_name(n); }

  // Replaces a file of step 2, expects that to be found, and puts the file back.
  void expect_found(const fs::path& file, const std::string& bytes, const std::string& what) {
    const std::string before = read_text(file);
    ASSERT_NE(bytes, before) << what << " changed nothing";
    write_bytes(file, bytes);
    ASSERT_NO_FATAL_FAILURE(expect_fallback(file.filename().string(), what));
    write_bytes(file, before);
  }

  void expect_fallback(const std::string& file, const std::string& what) {
    const VerifyReport report = verify_step(step(2));
    ASSERT_FALSE(report.ok()) << what;
    ::testing::internal::CaptureStderr();
    const std::int64_t loaded = loaded_step(temp_ / "c");
    const std::string warning = ::testing::internal::GetCapturedStderr();
    ASSERT_EQ(loaded, 1) << what;
    ASSERT_NE(warning.find("step-00000002 is damaged: " + file), std::string::npos)
        << what << ": " << warning;
    ASSERT_EQ(std::count(warning.begin(), warning.end(), '\n'), 1) << warning;
    ++found_;
  }

  TemporaryFolder temp_;
  int found_ = 0;
};

TEST_F(Corruption, EveryFlippedBitIsFound) {
  const Random random(11, "flips");
  const std::vector<fs::path> files = files_of(step(2));
  ASSERT_EQ(files.size(), 4U);
  const int flips = scaled(4000);
  for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(flips); ++i) {
    const fs::path& file = files[random.below(3 * i, files.size())];
    std::string bytes = read_text(file);
    const std::uint64_t at = random.below(3 * i + 1, bytes.size());
    const auto bit = static_cast<int>(random.below(3 * i + 2, 8));
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << bit));
    ASSERT_NO_FATAL_FAILURE(
        expect_found(file, bytes, fmt::format("{} byte {} bit {}", file.string(), at, bit)));
  }
  EXPECT_EQ(found_, flips);
  EXPECT_EQ(loaded_step(temp_ / "c"), 2);
}

TEST_F(Corruption, EveryTruncationAndGrowthIsFound) {
  for (const fs::path& file : files_of(step(2))) {
    const std::string bytes = read_text(file);
    const std::size_t stride = std::max<std::size_t>(1, bytes.size() * kStride / 150);
    for (std::size_t n = 0; n < bytes.size(); n += stride)
      ASSERT_NO_FATAL_FAILURE(expect_found(file, bytes.substr(0, n), "truncated"));
    for (const std::size_t n : {1, 512, 5000})
      ASSERT_NO_FATAL_FAILURE(expect_found(file, bytes + std::string(n, '\0'), "grown"));
    ASSERT_NO_FATAL_FAILURE(expect_found(file, bytes + bytes, "doubled"));
    fs::remove(file);
    ASSERT_NO_FATAL_FAILURE(expect_fallback(file.filename().string(), "deleted"));
    write_bytes(file, bytes);
  }
  EXPECT_EQ(loaded_step(temp_ / "c"), 2);
}

TEST_F(Corruption, MovedZeroedAndStaleBlocksAreFound) {
  for (const fs::path& file : files_of(step(2))) {
    const std::string bytes = read_text(file);
    const std::string old = read_text(step(1) / file.filename());
    for (std::size_t at = 0; at + 512 <= bytes.size(); at += 512) {
      std::string zeroed = bytes, stale = bytes, moved = bytes;
      zeroed.replace(at, 512, std::string(512, '\0'));
      ASSERT_NO_FATAL_FAILURE(expect_found(file, zeroed, "zeroed"));
      if (at + 1024 <= bytes.size()) {
        moved.replace(at, 1024, bytes.substr(at + 512, 512) + bytes.substr(at, 512));
        ASSERT_NO_FATAL_FAILURE(expect_found(file, moved, "swapped blocks"));
      }
      if (at + 512 > old.size() || old.compare(at, 512, bytes, at, 512) == 0) continue;
      stale.replace(at, 512, old, at, 512);
      ASSERT_NO_FATAL_FAILURE(expect_found(file, stale, "a block of the step before"));
    }
  }
  EXPECT_GT(found_, 20);
}

TEST_F(Corruption, FilesOfOtherStepsShardsAndRunsAreFound) {
  CheckpointFolder other(temp_ / "other", kOtherRun, {.block_bytes = 512});
  State same(2);
  other.save(request_of(same, 2, 2));  // the same tensors, another run
  for (const fs::path& file : files_of(step(2))) {
    const fs::path name = file.filename();
    ASSERT_NO_FATAL_FAILURE(expect_found(file, read_text(step(1) / name), "of step 1"));
    if (name == "config.yaml" || name == "manifest.json") continue;
    ASSERT_NO_FATAL_FAILURE(
        expect_found(file, read_text(temp_ / "other/step-00000002" / name), "of another run"));
  }
  const fs::path a = step(2) / "shard-00000-of-00002.safetensors";
  const fs::path b = step(2) / "shard-00001-of-00002.safetensors";
  fs::rename(a, step(2) / "t");
  fs::rename(b, a);
  fs::rename(step(2) / "t", b);
  expect_fallback(a.filename().string(), "swapped shards");
}

// The same bytes in another step have other sums: the key holds run, step, file and block.
TEST_F(Corruption, EqualBytesElsewhereHaveOtherSums) {
  Manifest m;
  m.uuid = kRun;
  m.step = 1;
  const std::vector<std::byte> bytes(512);
  const std::uint64_t sum = block_sum(m, "a", 0, bytes);
  EXPECT_EQ(sum, block_sum(m, "a", 0, bytes));
  EXPECT_NE(sum, block_sum(m, "a", 1, bytes));
  EXPECT_NE(sum, block_sum(m, "b", 0, bytes));
  m.step = 2;
  EXPECT_NE(sum, block_sum(m, "a", 0, bytes));
  m.step = 1;
  m.uuid = kOtherRun;
  EXPECT_NE(sum, block_sum(m, "a", 0, bytes));
}

TEST_F(Corruption, AStepUnderAnotherNameIsFound) {
  fs::rename(step(2), step(3));
  const VerifyReport report = verify_step(step(3));
  ASSERT_FALSE(report.ok());
  EXPECT_NE(report.damage[0].problem.find("is the manifest of step 2"), std::string::npos);
}

TEST_F(Corruption, WarningNamesFileRangeAndBothSums) {
  const fs::path file = step(2) / "shard-00001-of-00002.safetensors";
  std::string bytes = read_text(file);
  bytes[1500] = static_cast<char>(bytes[1500] ^ 4);
  write_bytes(file, bytes);
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(loaded_step(temp_ / "c"), 1);
  const std::string warning = ::testing::internal::GetCapturedStderr();
  for (const char* part : {"shard-00001-of-00002.safetensors bytes [1024, 1536): sum ",
                           " was saved, the bytes have ", "trying the step before"})
    EXPECT_NE(warning.find(part), std::string::npos) << warning;
}

TEST_F(Corruption, VerifyListsAllBadRangesAndJoinsNeighbours) {
  const fs::path file = step(2) / "shard-00000-of-00002.safetensors";
  std::string bytes = read_text(file);
  for (const std::size_t at : {600, 1100, 2100}) bytes[at] = static_cast<char>(bytes[at] ^ 1);
  write_bytes(file, bytes);
  write_bytes(step(2) / "config.yaml", "short");
  const VerifyReport report = verify_step(step(2));
  ASSERT_EQ(report.damage.size(), 3U);
  EXPECT_EQ(report.damage[0].file, "config.yaml");
  EXPECT_EQ(report.damage[1].begin, 512U);
  EXPECT_EQ(report.damage[1].end, 1536U);
  EXPECT_EQ(report.damage[2].begin, 2048U);
  EXPECT_EQ(verify_step(step(2), VerifyDepth::sizes).damage.size(), 1U);
}

TEST_F(Corruption, NoUsableStepIsAnErrorNotStepZero) {
  for (const int n : {1, 2}) fs::remove(step(n) / "manifest.json");
  std::string what;
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(code_of([&] { loaded_step(temp_ / "c"); }, &what), ExitCode::bad_data);
  EXPECT_NE(what.find("refusing to start from step 0"), std::string::npos) << what;
  ::testing::internal::GetCapturedStderr();
}

// A manifest with a right checksum may still come from a hostile hand.
TEST_F(Corruption, HostileManifestsAreRefused) {
  const std::string text = read_text(step(2) / "manifest.json");
  const Manifest good = parse_manifest(text, "m");
  const auto refused = [&](const std::function<void(Manifest&)>& change) {
    Manifest m = good;
    change(m);
    return code_of([&] { parse_manifest(manifest_text(m), "m"); }) == ExitCode::bad_data;
  };
  EXPECT_FALSE(refused([](Manifest&) {}));
  EXPECT_TRUE(refused([](Manifest& m) { m.step = -1; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.block_bytes = 0; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.block_bytes = 1ULL << 40; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.files[0].name = "../x"; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.files[0].name = ""; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.files[1].name = m.files[0].name; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.files[0].bytes = 1ULL << 62; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.files[0].sums.pop_back(); }));
  EXPECT_TRUE(refused([](Manifest& m) { m.tensors[0].slices[0].file = 99; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.tensors[0].slices[0].file = 2; }));  // a text
  EXPECT_TRUE(refused([](Manifest& m) { m.tensors[0].slices[0].part.begin = 1; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.tensors[0].slices.back().part.end += 1; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.tensors[0].slices.clear(); }));
  EXPECT_TRUE(refused([](Manifest& m) { m.tensors[0].slices[0].part.columns = 1; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.tensors[0].slices[0].part.columns = 1LL << 62; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.tensors[0].shape = {1LL << 40, 1LL << 40}; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.tensors[1].name = m.tensors[0].name; }));
  EXPECT_TRUE(refused([](Manifest& m) { std::swap(m.tensors[0], m.tensors[1]); }));
}

}  // namespace
}  // namespace grist::test
