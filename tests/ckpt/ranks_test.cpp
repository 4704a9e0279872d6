// Steps that many ranks save and other numbers of ranks load; one rank's failure on all of them.
#include <atomic>
#include <chrono>
#include <fstream>
#include <thread>

#include "ckpt/rank_fixture.h"
#include "ckpt/storage_models.h"
#include "grist/core/check.h"

namespace grist::test {
namespace {

namespace fs = std::filesystem;

class RankReshard : public ::testing::TestWithParam<std::tuple<int, int>> {};

TEST_P(RankReshard, AnyWorldLoadsAnyOther) {
  const auto [saving, loading] = GetParam();
  const TemporaryFolder temp;
  for (const std::int64_t cut : {0, 3}) {
    comm::run_local(saving, [&](comm::Communicator& c) {
      CheckpointFolder folder(temp / "c", kRun, {.block_bytes = 512, .communicator = &c});
      const SavedStep saved = save_step(folder, c, 7 + cut, cut);
      EXPECT_EQ(saved.folder, temp / "c" / step_name(7 + cut));
      EXPECT_EQ(saved.bytes, CheckpointReader(saved.folder).manifest().total_bytes());
    });
    comm::run_local(loading, [&](comm::Communicator& c) {
      EXPECT_EQ(loaded_step(c, temp / "c", 4 - cut), 7 + cut);
    });
    EXPECT_EQ(loaded_step(temp / "c"), 7 + cut) << "one rank, every byte";
  }
  EXPECT_TRUE(all_steps_verify(temp / "c"));
}
INSTANTIATE_TEST_SUITE_P(Worlds, RankReshard,
                         ::testing::Combine(::testing::Values(1, 2, 4, 8),
                                            ::testing::Values(1, 2, 4, 8)));

TEST(Ranks, LoadingGivesASignOfLifeForEveryBlock) {
  constexpr std::int64_t kElements = 64 * 1024;  // 256 KiB: 64 small blocks
  const auto beats = [&](std::uint64_t block_bytes) {
    const TemporaryFolder temp;
    std::uint64_t of_second_rank = 0;
    comm::run_local(2, [&](comm::Communicator& c) {
      CheckpointFolder folder(temp / "c", kRun, {.block_bytes = block_bytes, .communicator = &c});
      std::vector<float> values(c.rank() == 0 ? 0 : kElements);
      TensorSlice s{.name = "w", .dtype = DType::f32, .shape = {kElements}};
      s.part.end = std::ssize(values);
      s.data = values.data();
      folder.save({.step = 1, .shards = {{s}}});
      TensorDestination d{.name = "w", .dtype = DType::f32, .shape = {kElements}};
      d.part.end = s.part.end;
      d.data = values.data();
      const std::uint64_t before = c.activity().beats;
      EXPECT_TRUE(load_newest(c, temp / "c", std::span(&d, 1)));
      if (c.rank() == 1) of_second_rank = c.activity().beats - before;
    });
    return of_second_rank;
  };
  EXPECT_GE(beats(4096), beats(1 << 20) + 32);
}

// ZeRO's shards: a tensor far larger than a block, cut at multiples of 64 Ki elements.
TEST(Ranks, LargeTensorsCutAt64KiElementsAreReadByOtherCuts) {
  constexpr std::int64_t kUnit = 1 << 16, kElements = 9 * kUnit + 123;
  std::vector<float> all(kElements);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<float>(i);
  const auto part = [&](int rank, int world) {
    const auto edge = [&](int p) { return p == world ? kElements : 9 * p / world * kUnit; };
    return std::pair{edge(rank), edge(rank + 1)};
  };
  for (const auto& [saving, loading] : {std::pair{4, 2}, {2, 8}, {8, 1}, {1, 4}}) {
    const TemporaryFolder temp;
    comm::run_local(saving, [&](comm::Communicator& c) {
      CheckpointFolder folder(temp / "c", kRun, {.block_bytes = 65536, .communicator = &c});
      const auto [begin, end] = part(c.rank(), c.size());
      TensorSlice s{.name = "w", .dtype = DType::f32, .shape = {kElements}};
      s.part.begin = begin;
      s.part.end = end;
      s.data = all.data() + begin;
      folder.save({.step = 1, .shards = {{s}}});
    });
    comm::run_local(loading, [&](comm::Communicator& c) {
      const auto [begin, end] = part(c.rank(), c.size());
      std::vector<float> got(static_cast<std::size_t>(end - begin));
      TensorDestination d{.name = "w", .dtype = DType::f32, .shape = {kElements}};
      d.part.begin = begin;
      d.part.end = end;
      d.data = got.data();
      ASSERT_TRUE(load_newest(c, temp / "c", std::span(&d, 1)));
      EXPECT_TRUE(std::equal(got.begin(), got.end(), all.begin() + begin));
    });
  }
}

// What tensor parallelism will hold: columns of a matrix, each half of them cut again as ZeRO does.
TEST(Ranks, CutsAlongColumnsAreReadByOtherCuts) {
  const Shape shape = {23, 12};
  std::vector<float> all(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<float>(i);
  using Cut = std::function<TensorPart(int)>;
  const auto columns = [&](int rank, int world) {
    return block_part(shape, 0, 23, 12 * rank / world, 12 * (rank + 1) / world);
  };
  const Cut whole = [&](int) { return whole_part(shape); };
  const Cut flat = [&](int r) {
    return whole_part(shape).sub(r == 0 ? 0 : 100, r == 0 ? 100 : 276);
  };
  const Cut four = [&](int r) { return columns(r, 4); };
  const Cut three = [&](int r) { return columns(r, 3); };
  const Cut halves_cut_again = [&](int r) {
    return columns(r / 2, 2).sub(r % 2 == 0 ? 0 : 35, r % 2 == 0 ? 35 : 138);
  };
  const auto values = [&](const TensorPart& p) {
    std::vector<float> out;
    for (std::int64_t i = 0; i < p.size(); ++i)
      out.push_back(all[static_cast<std::size_t>(place_in_tensor(p, 12, i))]);
    return out;
  };
  const std::vector<std::pair<int, Cut>> cuts = {
      {1, whole}, {2, flat}, {4, four}, {3, three}, {4, halves_cut_again}};
  for (const auto& [saving, held] : cuts) {
    const TemporaryFolder temp;
    comm::run_local(saving, [&, cut = held](comm::Communicator& c) {
      CheckpointFolder folder(temp / "c", kRun, {.block_bytes = 512, .communicator = &c});
      const std::vector<float> own = values(cut(c.rank()));
      const TensorSlice s{.name = "w",
                          .dtype = DType::f32,
                          .shape = shape,
                          .part = cut(c.rank()),
                          .data = own.data()};
      folder.save({.step = 1, .shards = {{s}}});
    });
    EXPECT_TRUE(all_steps_verify(temp / "c"));
    const std::string text = read_text(temp / "c/step-00000001/manifest.json");
    const bool columns_cut = !held(0).is_flat();  // other programs must not misread such a step
    EXPECT_NE(text.find(columns_cut ? "\"version\": 2" : "\"version\": 1"), std::string::npos);
    for (const auto& [loading, wanted] : cuts) {
      comm::run_local(loading, [&, cut = wanted](comm::Communicator& c) {
        std::vector<float> got(static_cast<std::size_t>(cut(c.rank()).size()), -1.0F);
        const TensorDestination d{.name = "w",
                                  .dtype = DType::f32,
                                  .shape = shape,
                                  .part = cut(c.rank()),
                                  .data = got.data()};
        ASSERT_TRUE(load_newest(c, temp / "c", std::span(&d, 1)));
        EXPECT_EQ(got, values(cut(c.rank())));
      });
    }
  }
}

TEST(Ranks, ColumnsThatNobodyHoldsAreEveryRanksError) {
  const TemporaryFolder temp;
  const std::vector<float> x(12, 1.0F);
  for (const std::int64_t end : {5, 6}) {
    comm::run_local(2, [&](comm::Communicator& c) {
      CheckpointFolder folder(temp / "c", kRun, {.communicator = &c});
      const TensorSlice s{
          .name = "x",
          .dtype = DType::f32,
          .shape = {2, 6},
          .part = c.rank() == 0 ? block_part({2, 6}, 0, 2, 0, 3) : block_part({2, 6}, 0, 2, 3, end),
          .data = x.data()};
      const Outcome o = outcome_of([&] { folder.save({.step = 1, .shards = {{s}}}); });
      EXPECT_EQ(o.code, end == 5 ? ExitCode::internal : ExitCode::ok) << o.what;
    });
  }
}

TEST(Ranks, EveryRankWritesItsFileAndAllSayTheSame) {
  const TemporaryFolder temp;
  comm::run_local(4, [&](comm::Communicator& c) {
    CheckpointFolder folder(temp / "c", kRun, {.communicator = &c});
    for (std::int64_t step = 1; step <= 4; ++step) save_step(folder, c, step);
    EXPECT_EQ(folder.prune(2), 2);
    EXPECT_EQ(folder.sweep(), 0);
    EXPECT_GT(c.activity().beats.load(), 4U);
  });
  EXPECT_EQ(steps_in(temp / "c"), (std::vector<std::int64_t>{4, 3}));
  const CheckpointReader reader(temp / "c/step-00000004");
  for (const char* name :
       {"shard-00000-of-00004.safetensors", "shard-00003-of-00004.safetensors", "config.yaml"})
    EXPECT_NE(reader.manifest().find_file(name), nullptr) << name;
  EXPECT_EQ(reader.manifest().files.size(), 6U);
}

TEST(Ranks, SlicesThatDoNotTileAreEveryRanksError) {
  const TemporaryFolder temp;
  const std::vector<float> x(10, 1.0F);
  const auto save = [&](std::int64_t end0, std::int64_t begin1, std::int64_t step1) {
    std::array<Outcome, 2> out;
    comm::run_local(2, [&](comm::Communicator& c) {
      CheckpointFolder folder(temp / "c", kRun, {.communicator = &c});
      TensorSlice s{
          .name = "x", .dtype = DType::f32, .shape = {10}, .part = {.end = end0}, .data = x.data()};
      if (c.rank() == 1) {
        s.part.begin = begin1;
        s.part.end = 10;
      }
      out[static_cast<std::size_t>(c.rank())] =
          outcome_of([&] { folder.save({.step = c.rank() == 0 ? 1 : step1, .shards = {{s}}}); });
    });
    EXPECT_EQ(out[0].code, out[1].code);
    return out[0].code;
  };
  EXPECT_EQ(save(5, 6, 1), ExitCode::internal);
  EXPECT_EQ(save(5, 4, 1), ExitCode::internal);
  EXPECT_EQ(save(5, 5, 2), ExitCode::internal);
  EXPECT_EQ(steps_in(temp / "c"), std::vector<std::int64_t>{});
  EXPECT_EQ(save(5, 5, 1), ExitCode::ok);
}

TEST(Ranks, AHoleBetweenDestinationsIsFound) {
  const TemporaryFolder temp;
  CheckpointFolder folder(temp / "c", kRun);
  const std::vector<float> x(10, 1.0F);
  folder.save({.step = 1, .shards = {{whole("x", {x.data(), DType::f32, {10}})}}});
  for (const std::int64_t end : {4, 5}) {
    comm::run_local(2, [&](comm::Communicator& c) {
      std::vector<float> got(10);
      TensorDestination d{.name = "x", .dtype = DType::f32, .shape = {10}};
      d.part.begin = c.rank() == 0 ? 0 : 5;
      d.part.end = c.rank() == 0 ? end : 10;
      d.data = got.data();
      const Outcome o = outcome_of([&] { load_newest(c, temp / "c", std::span(&d, 1)); });
      EXPECT_EQ(o.code, end == 4 ? ExitCode::internal : ExitCode::ok) << o.what;
    });
  }
}

// No rank asks for all of the model; together they do, and it must be the one that is there.
TEST(Ranks, AnotherArchitectureIsEveryRanksError) {
  const TemporaryFolder temp;
  CheckpointFolder folder(temp / "c", kRun);
  save_step(folder, 1);
  for (const int change : {0, 1, 2}) {
    std::vector<TensorSpec> specs = small_model();
    if (change == 0) specs.pop_back();
    if (change == 1) specs.push_back({"more", DType::f32, {40}});
    if (change == 2) specs[0].shape = {8, 31};
    std::array<Outcome, 4> out;
    comm::run_local(4, [&](comm::Communicator& c) {
      State got(-1, specs);
      const auto wanted = rank_destinations(got, c.rank(), c.size(), 0);
      out[static_cast<std::size_t>(c.rank())] =
          outcome_of([&] { load_newest(c, temp / "c", wanted); });
    });
    EXPECT_EQ(out[0].code, ExitCode::bad_data);
    EXPECT_NE(out[0].what.find("another architecture; tensors 1"), std::string::npos)
        << out[0].what;
    for (const Outcome& o : out) EXPECT_EQ(o, out[0]);
  }
}

TEST(Ranks, NoStepIsNoStepAndNoGoodStepIsAnErrorOnAll) {
  const TemporaryFolder temp;
  comm::run_local(3, [&](comm::Communicator& c) {
    EXPECT_EQ(loaded_step(c, temp / "none"), -1);
    CheckpointFolder folder(temp / "c", kRun, {.communicator = &c});
    save_step(folder, c, 1);
    if (c.rank() == 0) fs::remove(temp / "c/step-00000001/shard-00002-of-00003.safetensors");
    comm::barrier(c);
    const Outcome o = outcome_of([&] { loaded_step(c, temp / "c"); });
    EXPECT_EQ(o.code, ExitCode::bad_data);
    EXPECT_NE(o.what.find("refusing to start from step 0"), std::string::npos) << o.what;
  });
}

TEST(Ranks, ParentStepsAreTheListOfRankZero) {
  const TemporaryFolder temp;
  CheckpointFolder folder(temp / "c", kRun);
  for (const std::int64_t step : {1, 2}) save_step(folder, step);
  comm::run_local(2, [&](comm::Communicator& c) {
    std::vector<StepInfo> steps;
    if (c.rank() == 0) steps = resolve_steps(temp / "c/step-00000001");
    State got(-1);
    const auto wanted = rank_destinations(got, c.rank(), c.size(), 0);
    const auto reader = load_first_good(c, steps, wanted);
    ASSERT_TRUE(reader);
    EXPECT_EQ(reader->step(), 1);
    EXPECT_EQ(reader->path(), temp / "c/step-00000001");
  });
}

// ---- in the background -----------------------------------------------------------------------

TEST(BackgroundSave, WritesWhatWasThereAtTheStart) {
  const TemporaryFolder temp;
  comm::run_local(4, [&](comm::Communicator& c) {
    State state(1);
    MemoryLedger ledger;
    BackgroundSave saves(c, temp / "c", kRun, rank_slices(state, c.rank(), c.size(), 0),
                         {.block_bytes = 512, .keep = 2}, &ledger);
    EXPECT_EQ(ledger.entries().at(0).label, "checkpoint copy");
    EXPECT_FALSE(saves.poll());
    for (std::int64_t step = 1; step <= 5; ++step) {
      State now(step);
      saves.start(rank_request(now, step, c));
      for (const TensorSpec& t : now.specs())  // training goes on
        std::fill(now.bytes(t.name).begin(), now.bytes(t.name).end(), std::byte{0xEE});
      comm::barrier(c);  // the two communicators do not disturb each other
    }
    for (std::int64_t step = 1; step <= 5; ++step) {
      const auto verdict = saves.finish();
      ASSERT_TRUE(verdict);
      EXPECT_EQ(verdict->step, step);
      EXPECT_FALSE(verdict->error);
      EXPECT_EQ(verdict->pruned, step > 2 ? 1 : 0);
      EXPECT_GT(verdict->bytes, 0U);
      EXPECT_GE(verdict->seconds, verdict->pause);
    }
    EXPECT_FALSE(saves.finish());
    EXPECT_FALSE(saves.busy());
    EXPECT_EQ(loaded_step(c, temp / "c"), 5);
  });
  EXPECT_EQ(steps_in(temp / "c"), (std::vector<std::int64_t>{5, 4}));
  EXPECT_TRUE(all_steps_verify(temp / "c"));
}

// An error that the other ranks cannot know is no verdict: they wait for this rank, so it must say
// so at once, also when nobody asks for the verdict.
TEST(BackgroundSave, AnErrorOfOneRankAloneIsThrown) {
  const TemporaryFolder temp;
  std::atomic<int> thrown = 0;
  const auto body = [&](comm::Communicator& c) {
    State state(1);
    FaultyStorage storage(c.rank() == 1 ? Fault::crash : Fault::none, 1);  // no Error: no agreement
    BackgroundSave saves(c, temp / "c", kRun, rank_slices(state, c.rank(), c.size(), 0),
                         {.storage = &storage});
    saves.start(rank_request(state, 1, c));
    try {
      while (saves.busy()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    } catch (const Error&) {
      ++thrown;
      throw;
    }
  };
  EXPECT_THROW(comm::run_local(3, body), Error);
  EXPECT_EQ(thrown, 3);
}

TEST(BackgroundSave, InTheForegroundTakesNoCopy) {
  const TemporaryFolder temp;
  comm::run_local(2, [&](comm::Communicator& c) {
    State state(1);
    MemoryLedger ledger;
    BackgroundSave saves(c, temp / "c", kRun, rank_slices(state, c.rank(), c.size(), 0),
                         {.asynchronous = false}, &ledger);
    EXPECT_EQ(ledger.total_bytes(), 0U);
    saves.start(rank_request(state, 1, c));
    EXPECT_FALSE(saves.busy());
    EXPECT_EQ(steps_in(temp / "c"), std::vector<std::int64_t>{1});
    EXPECT_EQ(saves.poll()->step, 1);
    EXPECT_FALSE(saves.poll());
  });
}

TEST(BackgroundSave, EndsTheSaveBeforeItGoes) {
  const TemporaryFolder temp;
  comm::run_local(2, [&](comm::Communicator& c) {
    State state(1);
    BackgroundSave saves(c, temp / "c", kRun, rank_slices(state, c.rank(), c.size(), 0));
    saves.start(rank_request(state, 1, c));
  });
  EXPECT_EQ(loaded_step(temp / "c"), 1);
}

TEST(BackgroundSave, MoreBytesThanAnnouncedIsRefused) {
  const TemporaryFolder temp;
  const auto alone = comm::alone();
  State state(1);
  std::vector<TensorSlice> few = rank_slices(state, 0, 1, 0);
  few.pop_back();
  BackgroundSave saves(*alone, temp / "c", kRun, few);
  EXPECT_EQ(code_of([&] { saves.start(rank_request(state, 1, *alone)); }), ExitCode::internal);
}

}  // namespace
}  // namespace grist::test
