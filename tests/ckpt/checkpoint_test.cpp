// Saving, finding, loading, resharding, pruning: the ordinary life of a checkpoint folder.
#include "grist/ckpt/checkpoint.h"

#include <cstdio>
#include <fstream>

#include "ckpt/fixture.h"
#include "ckpt/storage_models.h"
#include "grist/ckpt/report.h"
#include "grist/core/check.h"

namespace grist::test {
namespace {

namespace fs = std::filesystem;

TEST(Checkpoint, RoundTripsEveryDtypeAndShape) {
  const TemporaryFolder temp;
  CheckpointFolder folder(temp / "run/checkpoints", kRun);

  const SavedStep saved = save_step(folder, 1000, 1);

  EXPECT_EQ(saved.folder, temp / "run/checkpoints/step-00001000");
  EXPECT_EQ(loaded_step(folder.path()), 1000);
  EXPECT_EQ(read_text(temp / "run/checkpoints/latest"), "step-00001000\n");
  const CheckpointReader reader(saved.folder);
  EXPECT_EQ(reader.manifest().uuid, kRun);
  EXPECT_EQ(reader.manifest().parent_step, 999);
  EXPECT_EQ(reader.manifest().layout.at("world").as_int(), 1);
  EXPECT_EQ(reader.text("empty.txt"), "");
  EXPECT_EQ(reader.manifest().total_bytes(), saved.bytes);
  EXPECT_EQ(code_of([&] { reader.text("missing.txt"); }), ExitCode::bad_data);
}

TEST(Checkpoint, StepsAreTheSameBytesEachTime) {
  const TemporaryFolder temp;
  CheckpointFolder a(temp / "a", kRun), b(temp / "b", kRun);
  save_step(a, 5);
  save_step(b, 5);
  for (const char* name : {"manifest.json", "shard-00000-of-00002.safetensors",
                           "shard-00001-of-00002.safetensors", "config.yaml"})
    EXPECT_EQ(read_text(temp / "a/step-00000005" / name),
              read_text(temp / "b/step-00000005" / name));
}

// A state that is never in memory as a whole: the same bytes as from memory.
TEST(Checkpoint, TensorsMayBeGivenWhileTheyAreWritten) {
  const TemporaryFolder temp;
  CheckpointFolder memory(temp / "a", kRun), given(temp / "b", kRun);
  State state(5);
  memory.save(request_of(state, 5, 1));
  SaveRequest request = request_of(state, 5, 1);
  for (TensorSlice& s : request.shards[0])
    if (s.name != "ids") s.data = nullptr;
  request.source = [&](const std::string& name, const auto& append) {
    const std::span<const std::byte> bytes = state.bytes(name);
    const std::size_t some = bytes.size() / 3;
    append(bytes.first(some));
    append(bytes.subspan(some));
  };

  given.save(request);

  EXPECT_EQ(loaded_step(given.path()), 5);
  for (const char* name : {"manifest.json", "shard-00000-of-00001.safetensors"})
    EXPECT_EQ(read_text(temp / "a/step-00000005" / name),
              read_text(temp / "b/step-00000005" / name));
}

TEST(Checkpoint, ASourceThatFailsOrGivesTooLittleLeavesNoStep) {
  const TemporaryFolder temp;
  CheckpointFolder folder(temp / "c", kRun);
  State state(5);
  SaveRequest request = request_of(state, 5, 1);
  for (TensorSlice& s : request.shards[0]) s.data = nullptr;
  EXPECT_EQ(code_of([&] { folder.save(request); }), ExitCode::internal);  // no source either
  request.source = [](const std::string& name, const auto&) {
    fail(ExitCode::bad_data, "{}: holds nan", name);
  };
  std::string what;
  EXPECT_EQ(code_of([&] { folder.save(request); }, &what), ExitCode::bad_data);
  EXPECT_NE(what.find("holds nan"), std::string::npos) << what;
  request.source = [](const std::string&, const auto&) {};
  EXPECT_EQ(code_of([&] { folder.save(request); }), ExitCode::internal);
  EXPECT_TRUE(steps_in(folder.path()).empty());
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

class Reshard : public ::testing::TestWithParam<std::tuple<int, int, int>> {};

TEST_P(Reshard, AnyLayoutLoadsAnyOther) {
  const auto [shards, pieces, block] = GetParam();
  const TemporaryFolder temp;
  CheckpointFolder folder(temp / "c", kRun, {.block_bytes = static_cast<std::uint64_t>(block)});
  save_step(folder, 3, shards);
  State got(-1);
  const State want(3);

  std::vector<TensorDestination> all;
  for (const TensorDestination& d : got.destinations()) {
    for (int p = 0; p < pieces; ++p) {
      TensorDestination part = d;
      part.part.begin = d.part.end * p / pieces;
      part.part.end = d.part.end * (p + 1) / pieces;
      part.data = static_cast<std::byte*>(d.data) +
                  static_cast<std::size_t>(part.part.begin) * size_of(d.dtype);
      all.push_back(part);
    }
  }
  CheckpointReader(temp / "c/step-00000003").read(all);

  EXPECT_TRUE(got == want);
}
INSTANTIATE_TEST_SUITE_P(Layouts, Reshard,
                         ::testing::Combine(::testing::Values(1, 2, 3, 8),
                                            ::testing::Values(1, 2, 5, 8),
                                            ::testing::Values(512, 4096, 4 << 20)));

TEST(Checkpoint, ReadsOnlyAnExtentAndOnlyItsBlocks) {
  const TemporaryFolder temp;
  CheckpointFolder folder(temp / "c", kRun, {.block_bytes = 512});
  const SavedStep saved = save_step(folder, 3, 1);
  State want(3);
  std::vector<std::byte> row(8 * sizeof(float));
  const TensorDestination part{.name = "embed",
                               .dtype = DType::f32,
                               .shape = {31, 8},
                               .part = {.begin = 16, .end = 24},
                               .data = row.data()};
  const ReadOptions any{.ignore_prefixes = {""}, .touched_blocks_only = true};
  {  // damage far from what is asked for: the last byte of the file
    const File f = File::open_append(saved.folder / "shard-00000-of-00001.safetensors");
    const std::uint64_t size = f.size();
    std::fstream raw(saved.folder / "shard-00000-of-00001.safetensors");
    raw.seekp(static_cast<std::streamoff>(size - 1));
    raw.put(static_cast<char>(0x5A));
  }

  CheckpointReader(saved.folder).read({&part, 1}, any);

  EXPECT_EQ(std::memcmp(row.data(), want.bytes("embed").data() + 64, row.size()), 0);
  EXPECT_THROW(CheckpointReader(saved.folder).read({&part, 1}, {.ignore_prefixes = {""}}),
               DamagedStep);
}

// Several default blocks, an odd tail, and (where the file system has it) direct reads and writes.
TEST(Checkpoint, LargeFilesRoundTripOverManyBlocks) {
  for (const bool on_disk : {false, true}) {
    const TemporaryFolder temp(on_disk ? std::filesystem::temp_directory_path() : scratch_root());
    const std::vector<TensorSpec> specs{{"big", DType::f32, {1237, 2053}},
                                        {"odd", DType::u8, {1000003}}};
    State state(1, specs), got(2, specs);
    CheckpointFolder folder(temp / "c", kRun);
    const fs::path step = folder.save(request_of(state, 1, 1)).folder;
    ASSERT_TRUE(load_newest(temp / "c", got.destinations()));
    EXPECT_TRUE(got == state);
    EXPECT_TRUE(verify_step(step).ok());

    std::vector<float> part(1500000);  // most of three blocks, from the middle
    const TensorDestination middle{.name = "big",
                                   .dtype = DType::f32,
                                   .shape = {1237, 2053},
                                   .part = {.begin = 700001, .end = 2200001},
                                   .data = part.data()};
    CheckpointReader(step).read({&middle, 1},
                                {.ignore_prefixes = {""}, .touched_blocks_only = true});
    EXPECT_EQ(std::memcmp(part.data(), state.bytes("big").data() + 700001 * sizeof(float),
                          part.size() * sizeof(float)),
              0);

    const fs::path shard = step / "shard-00000-of-00001.safetensors";
    {
      std::fstream raw(shard, std::ios::in | std::ios::out | std::ios::binary);
      for (const std::streamoff at : {5 << 20, (9 << 20) + 17}) {
        raw.seekg(at);
        const int byte = raw.get();
        raw.seekp(at);
        raw.put(static_cast<char>(byte ^ 16));
      }
    }
    const VerifyReport report = verify_step(step);
    ASSERT_EQ(report.damage.size(), 1U) << "neighbouring blocks are one range";
    EXPECT_EQ(report.damage[0].begin, 4U << 20);
    EXPECT_EQ(report.damage[0].end, fs::file_size(shard));
    EXPECT_THROW(CheckpointReader(step).read(got.destinations()), DamagedStep);
  }
}

TEST(Checkpoint, AnotherArchitectureIsRefusedAtOnceNamingBothShapes) {
  const TemporaryFolder temp;
  CheckpointFolder folder(temp / "c", kRun);
  save_step(folder, 1);
  save_step(folder, 2);
  std::vector<TensorSpec> specs = small_model();
  specs[0].shape = {32, 8};
  specs[1].name = "layers.0.experts.9.w1";
  specs[3].dtype = DType::f32;
  State other(-1, specs);

  std::string what;
  EXPECT_EQ(code_of([&] { load_newest(temp / "c", other.destinations()); }, &what),
            ExitCode::bad_data);

  for (const char* part :
       {"another architecture", "step-00000002",
        "embed (checkpoint f32 (31, 8), model f32 (32, 8))", "layers.0.experts.9.w1 (16, 8)",
        "layers.0.experts.0.w1 (16, 8)", "layers.0.bias (checkpoint f64 (7), model f32 (7))",
        "not in the checkpoint", "not in the model"})
    EXPECT_NE(what.find(part), std::string::npos) << part << " is not in: " << what;
}

TEST(Checkpoint, ExtraTensorsAreIgnoredOnlyByPrefix) {
  const TemporaryFolder temp;
  CheckpointFolder folder(temp / "c", kRun);
  save_step(folder, 1);
  std::vector<TensorSpec> specs = small_model();
  std::erase_if(specs, [](const TensorSpec& t) { return t.name.starts_with("optim."); });
  State weights(-1, specs);

  EXPECT_EQ(code_of([&] { load_newest(temp / "c", weights.destinations()); }), ExitCode::bad_data);
  EXPECT_TRUE(load_newest(temp / "c", weights.destinations(), {.ignore_prefixes = {"optim."}}));
  EXPECT_TRUE(weights == State(1, specs));
}

TEST(Checkpoint, SlicesThatDoNotTileATensorAreOurBug) {
  const TemporaryFolder temp;
  CheckpointFolder folder(temp / "c", kRun);
  const std::vector<float> x(10, 1.0F);
  const auto save = [&](std::int64_t cut, std::int64_t again) {
    const TensorSlice a{.name = "x",
                        .dtype = DType::f32,
                        .shape = {10},
                        .part = {.begin = 0, .end = cut},
                        .data = x.data()};
    const TensorSlice b{.name = "x",
                        .dtype = DType::f32,
                        .shape = {10},
                        .part = {.begin = again, .end = 10},
                        .data = x.data()};
    folder.save({.step = 1, .shards = {{a}, {b}}});
  };
  EXPECT_EQ(code_of([&] { save(5, 6); }), ExitCode::internal);
  EXPECT_EQ(code_of([&] { save(5, 4); }), ExitCode::internal);
  EXPECT_EQ(steps_in(temp / "c"), std::vector<std::int64_t>{});
  save(5, 5);
  EXPECT_EQ(steps_in(temp / "c"), std::vector<std::int64_t>{1});
}

TEST(Checkpoint, EmptyOrMissingFolderMeansNoCheckpoint) {
  const TemporaryFolder temp;
  EXPECT_EQ(loaded_step(temp / "missing"), -1);
  fs::create_directories(temp / "empty/step-00000001.tmp-x-0");
  fs::create_directories(temp / "empty/step-1");
  EXPECT_EQ(loaded_step(temp / "empty"), -1);
  EXPECT_EQ(code_of([&] { resolve_steps(temp / "empty"); }), ExitCode::not_found);
}

TEST(Checkpoint, SavingAStepAgainReplacesIt) {
  for (const bool can_exchange : {true, false}) {
    const TemporaryFolder temp;
    RecordingStorage storage;
    storage.can_exchange = can_exchange;
    CheckpointFolder folder(temp / "c", kRun, {.storage = &storage});
    save_step(folder, 1);
    State other(77);
    folder.save(request_of(other, 1, 3));

    State got(-1);
    ASSERT_TRUE(load_newest(temp / "c", got.destinations()));
    EXPECT_TRUE(got == State(77));
    EXPECT_EQ(folder.sweep(), 0) << "something was left behind";
  }
}

TEST(Checkpoint, AStepOfAnotherRunIsNotOverwritten) {
  const TemporaryFolder temp;
  CheckpointFolder(temp / "c", kRun).save([] {
    static State s(1);
    return request_of(s, 1, 1);
  }());
  CheckpointFolder other(temp / "c", kOtherRun);
  EXPECT_EQ(code_of([&] { save_step(other, 1); }), ExitCode::cannot_create);
  EXPECT_EQ(loaded_step(temp / "c"), 1);
}

TEST(Checkpoint, AMovedFolderStillWrites) {
  const TemporaryFolder temp;
  CheckpointFolder made(temp / "c", kRun);
  save_step(made, 1);
  std::vector<CheckpointFolder> kept;
  kept.push_back(std::move(made));
  save_step(kept[0], 2);
  EXPECT_EQ(loaded_step(temp / "c"), 2);
}

TEST(Checkpoint, PruneKeepsTheNewestGoodSteps) {
  const TemporaryFolder temp;
  CheckpointFolder folder(temp / "c", kRun);
  for (int step = 1; step <= 6; ++step) save_step(folder, step);
  EXPECT_EQ(folder.prune(0), 0);
  fs::resize_file(temp / "c/step-00000006/config.yaml",
                  1);  // damaged: does not count, is not removed

  EXPECT_EQ(folder.prune(2), 3);

  EXPECT_EQ(steps_in(temp / "c"), (std::vector<std::int64_t>{6, 5, 4}));
  EXPECT_EQ(loaded_step(temp / "c"), 5);
  EXPECT_EQ(folder.prune(9), 0);
}

TEST(Checkpoint, AStepFoundDamagedDoesNotCountAsKeptUntilItIsSavedAgain) {
  const TemporaryFolder temp;
  CheckpointFolder before(temp / "c", kRun);
  for (const int step : {2, 4}) save_step(before, step);
  {
    std::fstream shard(temp / "c/step-00000004/shard-00000-of-00002.safetensors",
                       std::ios::binary | std::ios::in | std::ios::out);
    shard.seekp(-1, std::ios::end).put('\xAA');  // the size stays right
  }
  State got(-1);
  std::vector<std::int64_t> damaged;
  ASSERT_EQ(load_newest(temp / "c", got.destinations(), {.passed_over = &damaged})->step(), 2);
  EXPECT_EQ(damaged, (std::vector<std::int64_t>{4}));

  CheckpointFolder folder(temp / "c", kRun, {.damaged = damaged});
  save_step(folder, 3);
  EXPECT_EQ(folder.prune(1), 1);
  EXPECT_EQ(steps_in(temp / "c"), (std::vector<std::int64_t>{4, 3}));
  EXPECT_EQ(loaded_step(temp / "c"), 3);
  save_step(folder, 4);
  EXPECT_EQ(folder.prune(1), 1);

  EXPECT_EQ(steps_in(temp / "c"), (std::vector<std::int64_t>{4}));
  EXPECT_EQ(loaded_step(temp / "c"), 4);
}

TEST(Checkpoint, SweepRemovesLeftoversButNotWhatALiveProcessHolds) {
  const TemporaryFolder temp;
  CheckpointFolder folder(temp / "c", kRun);
  save_step(folder, 1);
  const fs::path used = temp / "c/step-00000002.tmp-other-0";
  for (const fs::path& p :
       {used, temp / "c/step-00000002.tmp-dead-0", temp / "c/step-00000000.del"}) {
    fs::create_directories(p);
    File::create(p / "shard").append("x");
  }
  File::create(temp / "c/latest.tmp-dead-3").append("x");
  {
    const FolderLock lock(used);
    ASSERT_TRUE(lock.held());
    EXPECT_EQ(folder.sweep(), 3);
    EXPECT_TRUE(fs::exists(used));
  }
  EXPECT_EQ(folder.sweep(), 1);
  EXPECT_FALSE(fs::exists(used));
  EXPECT_EQ(loaded_step(temp / "c"), 1);
}

TEST(Checkpoint, ResolvesWhatAUserPointsAt) {
  const TemporaryFolder temp;
  CheckpointFolder folder(temp / "run/checkpoints", kRun);
  save_step(folder, 1);
  save_step(folder, 2);
  for (const char* path : {"run", "run/", "run/checkpoints", "run/checkpoints/latest"}) {
    const auto steps = resolve_steps(temp / path);
    ASSERT_EQ(steps.size(), 2U) << path;
    EXPECT_EQ(steps[0].step, 2);
  }
  for (const char* path : {"run/checkpoints/step-00000001", "run/checkpoints/step-00000001/"}) {
    const auto steps = resolve_steps(temp / path);
    ASSERT_EQ(steps.size(), 1U) << path;
    EXPECT_EQ(steps[0].step, 1);
  }
  EXPECT_EQ(code_of([&] { resolve_steps(temp / "nowhere"); }), ExitCode::not_found);
}

TEST(Checkpoint, ReportListsAndNamesDamage) {
  const TemporaryFolder temp;
  CheckpointFolder folder(temp / "c", kRun);
  save_step(folder, 1);
  save_step(folder, 2);
  EXPECT_TRUE(checkpoint_ls(temp / "c").ok);
  EXPECT_TRUE(checkpoint_verify(temp / "c").ok);
  {
    std::fstream raw(temp / "c/step-00000002/config.yaml");
    raw.put('X');
  }
  EXPECT_TRUE(checkpoint_ls(temp / "c").ok);
  const CheckpointReport report = checkpoint_verify(temp / "c");
  EXPECT_FALSE(report.ok);
  EXPECT_NE(report.text.find("config.yaml bytes [0, 8): sum "), std::string::npos) << report.text;
  fs::remove(temp / "c/step-00000002/config.yaml");
  EXPECT_FALSE(checkpoint_ls(temp / "c").ok);
}

TEST(Checkpoint, UuidsDiffer) {
  const std::string a = new_uuid(), b = new_uuid();
  EXPECT_EQ(a.size(), 36U);
  EXPECT_EQ(a[14], '4');
  EXPECT_NE(a, b);
}

}  // namespace
}  // namespace grist::test
