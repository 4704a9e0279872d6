// The lives of a run of many ranks on disks that fail, in processes that die, on machines that lose
// power: load, save, prune, and again. Whatever happens, the step that was announced last is there,
// no torn step is taken for a good one, and all ranks of a life say the same.
#include <cstdlib>

#include "ckpt/rank_fixture.h"
#include "ckpt/storage_models.h"
#include "grist/core/check.h"
#include "support/scale.h"

namespace grist::test {
namespace {

namespace fs = std::filesystem;

// What one process group does until it ends, and what happens to it.
struct Life {
  int world = 1;
  bool background = false;
  bool can_exchange = true;
  Fault fault = Fault::none;
  int rank = 0;            // where the fault comes
  int at = 0;              // at which of that rank's operations
  bool all_die = false;    // a crash takes all ranks with it; else the others notice
  std::int64_t saves = 2;  // new steps; the first is saved twice
  std::string str() const {
    return fmt::format(
        "world {}, background {}, exchange {}, fault {} at operation {} of rank {}, all_die {}",
        world, background, can_exchange, static_cast<int>(fault), at, rank, all_die);
  }
};

class Lives {
 public:
  explicit Lives(fs::path folder) : folder_(std::move(folder)) {}

  // False when the fault did not come: the life was shorter.
  bool live(const Life& life) {
    std::atomic<bool> machine{false};
    std::atomic<bool> triggered{false};
    outcomes_.assign(static_cast<std::size_t>(life.world), {});
    try {
      comm::run_local(life.world, [&](comm::Communicator& c) {
        FaultyStorage storage(c.rank() == life.rank ? life.fault : Fault::none, life.at,
                              life.all_die ? &machine : nullptr);
        storage.can_exchange = life.can_exchange;
        try {
          work(c, life, storage);
        } catch (...) {
          if (storage.triggered()) triggered = true;
          throw;
        }
        if (storage.triggered()) triggered = true;
      });
      for (const auto& o : outcomes_) EXPECT_EQ(o, outcomes_[0]);
    } catch (const Crash&) {
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::peer_lost) << e.what();
    }
    EXPECT_TRUE(all_steps_verify(folder_));
    return triggered;
  }

  void save_quietly(std::int64_t step) {
    CheckpointFolder folder(folder_, kRun, {.block_bytes = 1024});
    save_step(folder, step, 1);
    acknowledged_ = step;
  }
  std::int64_t acknowledged() const { return acknowledged_; }
  // One outcome a save, by rank, of the life that ended last.
  const std::vector<std::vector<Outcome>>& outcomes() const { return outcomes_; }

 private:
  void work(comm::Communicator& c, const Life& life, FaultyStorage& storage) {
    CheckpointFolder start(folder_, kRun, {.storage = &storage, .communicator = &c});
    start.sweep();
    const std::int64_t loaded = loaded_step(c, folder_, 4);
    EXPECT_GE(loaded, acknowledged_.load());
    State sizes(0);
    BackgroundSave saves(
        c, folder_, kRun, rank_slices(sizes, c.rank(), c.size(), 0),
        {.storage = &storage, .block_bytes = 1024, .keep = 2, .asynchronous = life.background});
    comm::barrier(c);  // all have compared
    for (std::int64_t i = 0; i <= life.saves; ++i) {
      const std::int64_t step = loaded + std::max<std::int64_t>(i, 1);
      State state(step);
      std::optional<SaveVerdict> verdict;
      try {
        saves.start(rank_request(state, step, c));
        verdict = saves.finish();
      } catch (const Error&) {  // this rank or another was lost
        if (storage.dead()) throw Crash{};
        throw;
      }
      if (storage.dead()) throw Crash{};
      outcomes_[static_cast<std::size_t>(c.rank())].push_back(
          verdict->error ? Outcome{verdict->error->code(), verdict->error->what()} : Outcome{});
      if (!verdict->error) acknowledge(step);
    }
  }

  void acknowledge(std::int64_t step) {
    std::int64_t before = acknowledged_;
    while (before < step && !acknowledged_.compare_exchange_weak(before, step)) {
    }
  }

  fs::path folder_;
  std::atomic<std::int64_t> acknowledged_{-1};
  std::vector<std::vector<Outcome>> outcomes_;
};

bool has_leftovers(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.find(".tmp-") != std::string::npos || name.ends_with(".del") || name.ends_with(".old"))
      return true;
  }
  return false;
}

// ---- every operation -------------------------------------------------------------------------

class EveryOperation : public ::testing::TestWithParam<std::tuple<int, bool>> {};

// Runs the life with its fault at operation 0, 1, 2, ... (a kStride apart) until a life ends before
// it. Returns how many faults came.
template <class Check> int at_every_operation(Life life, Check&& check) {
  for (int faults = 0;; ++faults) {
    life.at = faults * kStride;
    const TemporaryFolder temp;
    Lives lives(temp / "c");
    lives.save_quietly(1);
    lives.save_quietly(2);
    const bool triggered = lives.live(life);
    check(lives, temp / "c");
    EXPECT_FALSE(::testing::Test::HasFailure()) << life.str();
    if (!triggered || ::testing::Test::HasFailure()) return faults;
  }
}

TEST_P(EveryOperation, MayBeTheLastOne) {
  const auto [world, background] = GetParam();
  int crashes = 0;
  for (const Fault fault : {Fault::crash, Fault::torn_crash}) {
    for (const bool all_die : world > 1 ? std::vector{false, true} : std::vector{true}) {
      for (int rank = 0; rank < world; ++rank) {
        for (const bool can_exchange : rank == 0 ? std::vector{true, false} : std::vector{true}) {
          crashes += at_every_operation(
              {.world = world,
               .background = background,
               .can_exchange = can_exchange,
               .fault = fault,
               .rank = rank,
               .all_die = all_die,
               .saves = 1},
              [](Lives& lives, const fs::path& folder) {
                lives.live({.world = 2, .saves = 0});  // any number of ranks goes on
                EXPECT_FALSE(has_leftovers(folder));
              });
          if (HasFailure()) return;
        }
      }
    }
  }
  RecordProperty("crashes", crashes);
  tally(crashes, "crash points of a save");
  EXPECT_GT(crashes, (world == 1 ? 250 : 700) / kStride);
}
INSTANTIATE_TEST_SUITE_P(Worlds, EveryOperation,
                         ::testing::Combine(::testing::Values(1, 4), ::testing::Bool()));

// One rank's disk error is every rank's, in the same words; the next save works.
TEST(RankDisk, EveryErrorOfEveryOperationIsTheSameVerdictOnAllRanks) {
  int errors = 0;
  for (const Fault fault :
       {Fault::no_space, Fault::io_error, Fault::quota, Fault::read_only, Fault::torn_write}) {
    for (const int rank : {0, 2}) {
      for (const bool background :
           fault == Fault::no_space ? std::vector{false, true} : std::vector{false}) {
        ::testing::internal::CaptureStderr();  // hints and leftovers that could not be removed
        errors += at_every_operation(
            {.world = 4, .background = background, .fault = fault, .rank = rank},
            [&](Lives& lives, const fs::path& folder) {
              int failed = 0;
              for (const Outcome& o : lives.outcomes()[0]) {
                if (o.code == ExitCode::ok) continue;
                ++failed;
                EXPECT_EQ(o.code, ExitCode::io);
                const std::string who = fmt::format("rank {}: {}", rank, folder.string());
                EXPECT_NE(o.what.find(who), std::string::npos) << o.what;
                EXPECT_NE(o.what.find(text_of(fault)), std::string::npos) << o.what;
              }
              EXPECT_LE(failed, 1);  // the saves after it have other names
              EXPECT_EQ(lives.outcomes()[0].size(), 3U);
              lives.live({.world = 1, .saves = 0});
              EXPECT_FALSE(has_leftovers(folder));
            });
        ::testing::internal::GetCapturedStderr();
        if (HasFailure()) return;
      }
    }
  }
  tally(errors, "disk errors of a save");
  EXPECT_GT(errors, 500 / kStride);
}

// ---- by chance -------------------------------------------------------------------------------

Life random_life(const Random& random, std::uint64_t& n) {
  constexpr Fault kFaults[] = {Fault::none,  Fault::no_space, Fault::io_error,  Fault::torn_write,
                               Fault::crash, Fault::crash,    Fault::torn_crash};
  Life life;
  life.world = 1 + static_cast<int>(random.below(n++, 4));
  life.background = random.below(n++, 2) == 0;
  life.can_exchange = random.below(n++, 4) != 0;
  life.fault = kFaults[random.below(n++, std::size(kFaults))];
  life.rank = static_cast<int>(random.below(n++, static_cast<std::uint64_t>(life.world)));
  life.at = static_cast<int>(random.below(n++, life.rank == 0 ? 90 : 20));
  life.all_die = random.below(n++, 2) == 0;
  life.saves = static_cast<std::int64_t>(random.below(n++, 3));
  return life;
}

// GRIST_SOAK_SCENARIOS: how many lives instead of the usual ones.
TEST(Simulator, AnnouncedStepsSurviveAnyHistory) {
  const char* soak = std::getenv("GRIST_SOAK_SCENARIOS");
  const std::int64_t wanted = soak != nullptr ? std::atoll(soak) : test::scaled(4000);
  std::int64_t lives_lived = 0, faults = 0;
  ::testing::internal::CaptureStderr();
  for (std::uint64_t seed = 0; lives_lived < wanted && !HasFailure(); ++seed) {
    const Random random(seed, "lives");
    const TemporaryFolder temp;
    Lives lives(temp / "c");
    std::string history;
    std::uint64_t n = 0;
    for (int i = 0; i < 5 && !HasFailure(); ++i, ++lives_lived) {
      const Life life = random_life(random, n);
      history += "\n  " + life.str();
      faults += lives.live(life) ? 1 : 0;
    }
    lives.live({.world = 3, .saves = 0});
    EXPECT_FALSE(has_leftovers(temp / "c"));
    EXPECT_FALSE(HasFailure()) << "seed " << seed << history;
  }
  const std::string warnings = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(warnings.find("is damaged"), std::string::npos) << warnings;
  tally(lives_lived, "lives in the simulator");
  tally(faults, "faults in them");
  EXPECT_GT(faults, wanted / 4);
}

// ---- power -----------------------------------------------------------------------------------

struct Announced {
  std::size_t ops = 0;  // operations before it was
  std::int64_t step = 0;
};

std::vector<Announced> record(const fs::path& at, int world, RecordingStorage& storage) {
  std::vector<Announced> done;
  comm::run_local(world, [&](comm::Communicator& c) {
    CheckpointFolder folder(at / "run/checkpoints", kRun,
                            {.storage = &storage, .block_bytes = 1024, .communicator = &c});
    for (const std::int64_t step : {1, 2, 2, 3, 4}) {
      save_step(folder, c, step, step % 3);
      // Before a rank can go on to the prune, or after: in any case after the announcement.
      if (c.rank() == 0) done.push_back({storage.ops().size(), step});
      folder.prune(2);
    }
  });
  return done;
}

struct Cuts {
  int count = 0;
  int lost = 0;
  std::string first;
};

Cuts cut_everywhere(const fs::path& at, const RecordingStorage& storage,
                    const std::vector<Announced>& done, std::uint64_t modes, std::uint64_t seed) {
  Cuts cuts;
  PowerCut disk(at);
  std::int64_t announced = -1;
  for (std::size_t n = 0; n <= storage.ops().size(); ++n) {
    for (const Announced& a : done)
      if (a.ops <= n) announced = std::max(announced, a.step);
    for (std::uint64_t mode = 0; mode < modes && n % kStride == 0; ++mode) {
      const TemporaryFolder after;
      disk.build(after / "disk", mode < 2 ? mode : (seed + n) * modes + mode);
      const fs::path checkpoints = after / "disk/run/checkpoints";
      const auto verified = all_steps_verify(checkpoints);
      std::int64_t loaded = -2;
      if (verified && fs::exists(checkpoints)) CheckpointFolder(checkpoints, kRun).sweep();
      if (verified) loaded = loaded_step(checkpoints);
      ++cuts.count;
      if (verified && loaded >= announced) continue;
      if (cuts.lost++ == 0)
        cuts.first = fmt::format("operation {}, mode {}, seed {}: {} announced, {} loaded; {}", n,
                                 mode, seed, announced, loaded, verified.message());
    }
    if (n < storage.ops().size()) disk.apply(storage.ops()[n]);
  }
  return cuts;
}

TEST(RankPowerCut, EveryAnnouncedStepIsThere) {
  int count = 0;
  for (const int world : {2, 4}) {
    const TemporaryFolder temp;
    RecordingStorage storage;
    storage.can_exchange = world == 4;
    const auto done = record(temp.path(), world, storage);
    const Cuts cuts = cut_everywhere(temp.path(), storage, done, 8, 1000);
    EXPECT_EQ(cuts.lost, 0) << cuts.first;
    count += cuts.count;
  }
  tally(count, "power cuts");
  EXPECT_GT(count, 3000 / kStride);
}

TEST(RankPowerCut, RanksThatDoNotSyncLoseSteps) {
  const TemporaryFolder temp;
  RecordingStorage storage;
  storage.keep_file_syncs = false;
  const auto done = record(temp.path(), 4, storage);
  ::testing::internal::CaptureStderr();
  EXPECT_GT(cut_everywhere(temp.path(), storage, done, 1, 0).lost, 0);
  ::testing::internal::GetCapturedStderr();
}

}  // namespace
}  // namespace grist::test
