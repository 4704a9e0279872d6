// Every operation of a save, prune and re-save is a moment at which the disk may fail, the process
// may die or the power may go. After each of them a good step must load.
#include <sys/mount.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>

#include "ckpt/fixture.h"
#include "ckpt/storage_models.h"
#include "grist/core/check.h"
#include "support/scale.h"

namespace grist::test {
namespace {

namespace fs = std::filesystem;

bool has_leftovers(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.find(".tmp-") != std::string::npos || name.ends_with(".del") || name.ends_with(".old"))
      return true;
  }
  return false;
}

class FailingDisk : public ::testing::TestWithParam<Fault> {};

// Fails operation 1, 2, 3, ... of one save until a save runs through untouched.
TEST_P(FailingDisk, EachFailedSaveLeavesThePreviousStep) {
  int failures = 0, warned = 0;
  for (int n = 0;; ++n) {
    const TemporaryFolder temp;
    CheckpointFolder quiet(temp / "c", kRun);
    save_step(quiet, 1);
    FaultyStorage storage(GetParam(), n);
    CheckpointFolder folder(temp / "c", kRun, {.storage = &storage, .block_bytes = 1024});

    std::string what;
    const ExitCode code = code_of([&] { save_step(folder, 2); }, &what);

    const std::string at = fmt::format("operation {}: {}", n, what);
    ASSERT_TRUE(all_steps_verify(temp / "c")) << at;
    ASSERT_EQ(steps_in(temp / "c").back(), 1) << at;
    ASSERT_EQ(loaded_step(temp / "c"), steps_in(temp / "c").front()) << at;
    if (!storage.triggered()) {
      ASSERT_EQ(code, ExitCode::ok);
      break;
    }
    if (code == ExitCode::ok) {
      ++warned;  // only the hint `latest` failed
      ASSERT_EQ(loaded_step(temp / "c"), 2) << at;
    } else {
      ++failures;
      ASSERT_EQ(code, ExitCode::io) << at;
      ASSERT_NE(what.find("checkpoint step 2"), std::string::npos) << at;
      ASSERT_NE(what.find(temp.path().string()), std::string::npos) << at;
    }
    ASSERT_FALSE(has_leftovers(temp / "c")) << at;
    EXPECT_EQ(save_step(folder, 3).folder, temp / "c/step-00000003") << at;
    ASSERT_EQ(loaded_step(temp / "c"), 3) << at;
  }
  EXPECT_GT(failures, 30);
  EXPECT_GT(warned, 3);
}
INSTANTIATE_TEST_SUITE_P(Faults, FailingDisk,
                         ::testing::Values(Fault::no_space, Fault::io_error, Fault::torn_write));

// The life that is disturbed below: a save, a replacement of that step, a prune.
void busy_moment(const fs::path& at, Storage& storage) {
  CheckpointFolder folder(at, kRun, {.storage = &storage, .block_bytes = 1024});
  folder.sweep();
  save_step(folder, 3);
  save_step(folder, 3, 1);
  folder.prune(1);
}

void expect_survival(const fs::path& at, int n) {
  ASSERT_TRUE(all_steps_verify(at)) << "operation " << n;
  CheckpointFolder again(at, kRun);
  again.sweep();
  ASSERT_FALSE(has_leftovers(at)) << "operation " << n;
  ASSERT_TRUE(all_steps_verify(at)) << "operation " << n;
  const std::int64_t loaded = loaded_step(at);
  ASSERT_TRUE(loaded == 2 || loaded == 3) << "operation " << n << " loaded " << loaded;
  save_step(again, 4);
  ASSERT_EQ(loaded_step(at), 4);
}

void prepare_two_steps(const fs::path& at) {
  CheckpointFolder folder(at, kRun);
  save_step(folder, 1);
  save_step(folder, 2);
}

class CrashingProcess : public ::testing::TestWithParam<std::tuple<Fault, bool>> {};

TEST_P(CrashingProcess, IsSurvivedAtEveryOperation) {
  for (int n = 0;; n += kStride) {
    const TemporaryFolder temp;
    prepare_two_steps(temp / "c");
    FaultyStorage storage(std::get<0>(GetParam()), n);
    storage.can_exchange = std::get<1>(GetParam());
    try {
      busy_moment(temp / "c", storage);
    } catch (const Crash&) {
    }
    ASSERT_NO_FATAL_FAILURE(expect_survival(temp / "c", n));
    if (!storage.triggered()) {
      EXPECT_GT(n, 60);
      return;
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Faults, CrashingProcess,
                         ::testing::Combine(::testing::Values(Fault::crash, Fault::torn_crash),
                                            ::testing::Bool()));

TEST(KilledProcess, IsSurvivedAtEveryOperation) {
  int kills = 0;
  for (int n = 0;; n += kStride) {
    const TemporaryFolder temp;
    prepare_two_steps(temp / "c");
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      FaultyStorage storage(Fault::kill, n);
      int status = 0;
      try {
        busy_moment(temp / "c", storage);
      } catch (...) {
        status = 1;
      }
      ::_exit(status);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_NO_FATAL_FAILURE(expect_survival(temp / "c", n));
    if (WIFEXITED(status)) {
      EXPECT_EQ(WEXITSTATUS(status), 0);
      break;
    }
    ASSERT_EQ(WTERMSIG(status), SIGKILL);
    ++kills;
  }
  EXPECT_GT(kills, 60 / kStride);
}

// ---- power -----------------------------------------------------------------------------------

struct Acknowledged {
  std::size_t ops = 0;    // operations before the call returned
  std::int64_t step = 0;  // newest step that was announced as saved
};

// Saves, replacement and pruning, recorded with the moments at which a save was announced.
std::vector<Acknowledged> record(const fs::path& at, RecordingStorage& storage) {
  CheckpointFolder folder(at / "run/checkpoints", kRun, {.storage = &storage, .block_bytes = 1024});
  std::vector<Acknowledged> done;
  for (const std::int64_t step : {1, 2, 2, 3, 4}) {
    save_step(folder, step, 1 + step % 2);
    done.push_back({storage.ops().size(), step});
    folder.prune(2);
  }
  return done;
}

struct PowerResult {
  int cuts = 0;
  int lost = 0;  // an announced step did not load, or a step that is no step was found
  std::string first;
};

PowerResult cut_everywhere(const fs::path& at, const RecordingStorage& storage,
                           const std::vector<Acknowledged>& done, std::uint64_t modes) {
  PowerResult result;
  PowerCut disk(at);
  std::int64_t announced = -1;
  for (std::size_t n = 0; n <= storage.ops().size(); ++n) {
    for (const Acknowledged& a : done) {
      if (a.ops <= n) announced = std::max(announced, a.step);
    }
    for (std::uint64_t mode = 0; mode < modes && n % kStride == 0; ++mode) {
      const TemporaryFolder after;
      disk.build(after / "disk", mode < 2 ? mode : n * modes + mode);
      const fs::path checkpoints = after / "disk/run/checkpoints";
      const auto verified = all_steps_verify(checkpoints);
      std::int64_t loaded = -2;
      if (verified && fs::exists(checkpoints)) CheckpointFolder(checkpoints, kRun).sweep();
      if (verified) loaded = loaded_step(checkpoints);
      ++result.cuts;
      if (verified && loaded >= announced) continue;
      if (result.lost++ == 0)
        result.first = fmt::format("operation {}, mode {}: {} announced, {} loaded; {}", n, mode,
                                   announced, loaded, verified.message());
    }
    if (n < storage.ops().size()) disk.apply(storage.ops()[n]);
  }
  return result;
}

TEST(PowerCut, EveryAnnouncedStepIsThere) {
  for (const bool can_exchange : {true, false}) {
    const TemporaryFolder temp;
    RecordingStorage storage;
    storage.can_exchange = can_exchange;
    const auto done = record(temp.path(), storage);

    const PowerResult r = cut_everywhere(temp.path(), storage, done, 8);

    EXPECT_GT(r.cuts, 1000 / kStride);
    EXPECT_EQ(r.lost, 0) << r.first;
  }
}

// The model must be able to find what it is for.
TEST(PowerCut, AProgramWithoutFsyncLosesSteps) {
  for (const bool files : {true, false}) {
    const TemporaryFolder temp;
    RecordingStorage storage;
    (files ? storage.keep_file_syncs : storage.keep_folder_syncs) = false;
    const auto done = record(temp.path(), storage);
    ::testing::internal::CaptureStderr();
    EXPECT_GT(cut_everywhere(temp.path(), storage, done, 3).lost, 0);
    ::testing::internal::GetCapturedStderr();
  }
}

// ---- a full disk -----------------------------------------------------------------------------

// A disk that says there is room, or that cannot reserve it: the error then comes later.
class OptimisticStorage : public Storage {
 public:
  explicit OptimisticStorage(bool preallocates) : preallocates_(preallocates) {}
  std::unique_ptr<StorageFile> create_file(const fs::path& path) override {
    auto file = disk_.create_file(path);
    if (preallocates_) return file;
    return std::make_unique<Unreserved>(std::move(file));
  }
  bool make_directory(const fs::path& path) override { return disk_.make_directory(path); }
  void rename(const fs::path& a, const fs::path& b) override { disk_.rename(a, b); }
  bool exchange(const fs::path& a, const fs::path& b) override { return disk_.exchange(a, b); }
  void sync_directory(const fs::path& path) override { disk_.sync_directory(path); }
  void remove_file(const fs::path& path) override { disk_.remove_file(path); }
  void remove_directory(const fs::path& path) override { disk_.remove_directory(path); }
  std::uint64_t free_bytes(const fs::path& /*path*/) override { return UINT64_MAX; }

 private:
  class Unreserved final : public StorageFile {
   public:
    explicit Unreserved(std::unique_ptr<StorageFile> file) : file_(std::move(file)) {}
    void preallocate(std::uint64_t /*bytes*/) override {}
    void write_at(std::uint64_t o, std::span<const std::byte> b) override { file_->write_at(o, b); }
    void sync() override { file_->sync(); }
    void close() override { file_->close(); }

   private:
    std::unique_ptr<StorageFile> file_;
  };
  DiskStorage disk_;
  bool preallocates_;
};

class Mount {
 public:
  explicit Mount(fs::path at) : at_(std::move(at)) {
    fs::create_directories(at_);
    mounted_ = ::mount("tmpfs", at_.c_str(), "tmpfs", 0, "size=512k") == 0;
    error_ = errno;
  }
  ~Mount() {
    if (mounted_) ::umount(at_.c_str());
  }
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;
  bool ok() const { return mounted_; }
  std::string reason() const { return std::strerror(error_); }

 private:
  fs::path at_;
  bool mounted_ = false;
  int error_ = 0;
};

TEST(FullDisk, FailsAtOnceKeepsTheOldStepAndLeavesNothing) {
  const TemporaryFolder temp;
  const Mount small(temp / "disk");
  if (!small.ok()) GTEST_SKIP() << "cannot mount a small tmpfs: " << small.reason();
  const fs::path at = temp / "disk/checkpoints";
  CheckpointFolder honest(at, kRun);
  save_step(honest, 1);
  const std::uint64_t free_before = free_bytes(at);
  std::vector<float> big(1 << 18, 1.0F);
  const SaveRequest too_big{.step = 2,
                            .shards = {{whole("big", {big.data(), DType::f32, {1 << 18}})}}};
  OptimisticStorage reserving(true), careless(false);
  CheckpointFolder second(at, kRun, {.storage = &reserving});
  CheckpointFolder third(at, kRun, {.storage = &careless, .block_bytes = 4096});

  for (CheckpointFolder* folder : {&honest, &second, &third}) {
    std::string what;
    EXPECT_EQ(code_of([&] { folder->save(too_big); }, &what), ExitCode::io);
    EXPECT_NE(what.find("No space left"), what.find("no space left")) << what;
    EXPECT_EQ(steps_in(at), std::vector<std::int64_t>{1});
    EXPECT_FALSE(has_leftovers(at));
    EXPECT_EQ(free_bytes(at), free_before);
  }
  EXPECT_EQ(loaded_step(at), 1);
  save_step(honest, 3);
  EXPECT_EQ(loaded_step(at), 3);
}

TEST(FullDisk, SaysHowMuchIsNeededAndHowMuchThereIs) {
  const TemporaryFolder temp;
  class Poor final : public OptimisticStorage {
   public:
    Poor() : OptimisticStorage(true) {}
    std::uint64_t free_bytes(const fs::path& /*path*/) override { return 10 << 10; }
  } poor;
  CheckpointFolder folder(temp / "c", kRun, {.storage = &poor});
  std::string what;
  EXPECT_EQ(code_of([&] { save_step(folder, 1); }, &what), ExitCode::io);
  EXPECT_NE(what.find("KiB free"), std::string::npos) << what;
  EXPECT_TRUE(fs::is_empty(temp / "c"));
}

}  // namespace
}  // namespace grist::test
