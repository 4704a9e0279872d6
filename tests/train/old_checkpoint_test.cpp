// A checkpoint of an older program (tests/golden/checkpoint) goes on with the bits that the older
// program itself went on with, on any number of ranks. The ranks are threads.
#include <gtest/gtest.h>

#include "engine.h"
#include "grist/ckpt/checkpoint.h"
#include "grist/comm/local.h"
#include "grist/config/load.h"
#include "grist/core/file.h"
#include "grist/optim/schedule.h"
#include "support/temporary_folder.h"
#include "training_state.h"

namespace grist::train {
namespace {

namespace fs = std::filesystem;

const fs::path kGolden = GRIST_TEST_CHECKPOINT;

struct Later {  // steps 5 to 8
  std::vector<double> losses, grad_norms;
  bool operator==(const Later&) const = default;
};

std::vector<double> numbers(const Json& list) {
  std::vector<double> out;
  for (const Json& n : list.as_array()) out.push_back(n.as_double());
  return out;
}

// One rank that starts from a folder of checkpoints.
class Resumed {
 public:
  Resumed(comm::Communicator& world, std::int64_t ep, std::int64_t zero, const fs::path& folder)
      : world_(world), scratch_(Device::cpu, nullptr) {
    const CheckpointReader old(kGolden / "step-00000004");
    config_ = parse_config(old.text("config.yaml"), "config.yaml", {}).config;
    config_.data.train[0].path = (kGolden / "tokens").string();
    config_.parallel.expert_model_parallel_size = ep;
    config_.parallel.zero_stage = zero;
    context_.scratch = &scratch_;
    engine_.emplace(config_, world_, context_, nullptr);
    samples_.emplace(config_.data, config_.seed, config_.model.vocab_size);
    StateLoad state(*engine_, true);
    reader_ = load_newest(world_, folder, state.destinations());
    state.finish();
    counters_ = counters_from_json(reader_->state().at("counters"));
    engine_->optimizer().set_updates(counters_.updates);
    engine_->refresh();
    if (reader_->step() == 4) samples_->check_fingerprints(reader_->state().at("data"));
  }

  Later train(std::int64_t to) {
    Later out;
    while (counters_.step < to) {
      const std::int64_t own = config_.train.global_batch_size / world_.size();
      std::vector<Batch> batches(static_cast<std::size_t>(own));
      std::int64_t first = counters_.samples + world_.rank() * own;
      for (Batch& b : batches) samples_->batch(first++, 1, b);
      const double lr = learning_rate(config_.optim, ++counters_.step, config_.train.train_iters);
      const StepOutcome o = *engine_->step(batches, lr, [] { return false; });
      out.losses.push_back(o.loss);
      out.grad_norms.push_back(o.grad_norm);
      counters_.samples += config_.train.global_batch_size;
    }
    counters_.updates = engine_->optimizer().updates();
    return out;
  }

  void save(const fs::path& folder) {
    SaveRequest request;
    request.step = counters_.step;
    request.state.set("counters", to_json(counters_));
    request.shards = {checkpoint_slices(*engine_)};
    CheckpointFolder(folder, reader_->manifest().uuid, {.communicator = &world_}).save(request);
  }

 private:
  comm::Communicator& world_;
  Config config_;
  Scratch scratch_;
  Context context_;
  std::optional<Engine> engine_;
  std::optional<SampleStream> samples_;
  std::optional<CheckpointReader> reader_;
  Counters counters_;
};

// The sums of the one shard's blocks, as hex: they tell the bytes of the whole state.
std::vector<std::string> shard_sums(const fs::path& folder) {
  std::vector<std::string> out;
  const Json manifest =
      Json::parse(read_text(list_steps(folder).front().folder / "manifest.json"), "manifest.json");
  for (const Json& file : manifest.at("files").as_array())
    if (file.at("kind").as_string() == "shard")
      for (const Json& sum : file.at("sums").as_array()) out.push_back(sum.as_string());
  return out;
}

TEST(OldCheckpoint, ResumesWithTheOldProgramsBitsOnAnyNumberOfRanks) {
  const Json expected = Json::parse(read_text(kGolden / "expected.json"), "expected.json");
  const Later want = {numbers(expected.at("losses")), numbers(expected.at("grad_norms"))};
  ASSERT_EQ(want.losses.size(), 4U);
  struct Layout {
    int world;
    std::int64_t ep, zero;
  };
  for (const auto& [world, ep, zero] :
       {Layout{1, 1, 1}, Layout{2, 1, 0}, Layout{4, 2, 1}, Layout{8, 1, 1}, Layout{8, 8, 0}}) {
    const test::TemporaryFolder temp;
    Later got;
    comm::run_local(world, [&, ep_size = ep, stage = zero](comm::Communicator& c) {
      Resumed rank(c, ep_size, stage, kGolden);
      const Later mine = rank.train(8);
      if (c.rank() == 0) got = mine;
      rank.save(temp / "many");
    });
    EXPECT_TRUE(got == want) << world << " ranks";

    // All of step 8 in one file, as the old program wrote it.
    comm::run_local(
        1, [&](comm::Communicator& c) { Resumed(c, 1, 1, temp / "many").save(temp / "one"); });
    std::vector<std::string> sums;
    for (const Json& s : expected.at("sums").as_array()) sums.push_back(s.as_string());
    EXPECT_EQ(shard_sums(temp / "one"), sums) << world << " ranks";
  }
}

}  // namespace
}  // namespace grist::train
