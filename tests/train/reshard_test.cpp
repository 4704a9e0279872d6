// A checkpoint of any layout goes on in any other: parameters and moments to the bit, and then the
// losses of the run that nobody disturbed (to the bit with deterministic: elastic, else within
// 1e-6). The ranks are threads (comm/local.h).
#include <gtest/gtest.h>

#include <cstring>

#include "engine.h"
#include "grist/ckpt/checkpoint.h"
#include "grist/comm/local.h"
#include "grist/optim/schedule.h"
#include "rows.h"
#include "support/scale.h"
#include "support/temporary_folder.h"
#include "training_state.h"

namespace grist::train {
namespace {

constexpr std::int64_t kBefore = 3;                         // steps of the first layout
constexpr std::int64_t kAfter = test::kSanitized ? 4 : 20;  // of the second

Config config_of(bool elastic) {
  Config c;
  c.threads = 1;
  c.model = test::tiny_model();
  c.model.moe.router.score_function = ScoreFunction::sigmoid;
  c.model.moe.expert_bias_update_rate = 0.01;  // biases and loads travel too
  c.model.moe.aux_loss_scope = AuxLossScope::global_batch;
  c.model.moe.aux_loss_coeff = 0.05;
  c.data.seq_length = kRowLength;
  c.train.micro_batch_size = 2;
  c.train.global_batch_size = 16;
  c.train.train_iters = kBefore + kAfter;
  c.optim.lr = 3e-3;
  c.optim.lr_decay_iters = kBefore + kAfter;
  c.parallel.ddp_bucket_size = 3000;
  c.parallel.deterministic = elastic ? Deterministic::elastic : Deterministic::layout;
  return c;
}

struct Sizes {
  int world;
  std::int64_t ep, zero;
};
std::ostream& operator<<(std::ostream& s, const Sizes& z) {
  return s << "world " << z.world << " ep " << z.ep << " zero " << z.zero;
}

// One rank of a run, from some step to another.
class Rank {
 public:
  Rank(Config config, const Sizes& s, comm::Communicator& world)
      : config_(std::move(config)), world_(world), scratch_(Device::cpu, nullptr) {
    config_.parallel.expert_model_parallel_size = s.ep;
    config_.parallel.zero_stage = s.zero;
    context_.scratch = &scratch_;
    engine_.emplace(config_, world_, context_, nullptr);
  }

  void start() {
    engine_->initialize();
    engine_->refresh();
  }
  void load(const std::filesystem::path& folder) {
    StateLoad state(*engine_, true);
    const auto step = load_newest(world_, folder, state.destinations());
    ASSERT_TRUE(step.has_value());
    state.finish();
    const Counters counters = counters_from_json(step->state().at("counters"));
    at_ = counters.step;
    engine_->optimizer().set_updates(counters.updates);
    engine_->refresh();
  }
  std::vector<double> train(std::int64_t steps) {
    std::vector<double> losses;
    for (std::int64_t i = 0; i < steps; ++i) {
      const std::int64_t own = config_.train.global_batch_size / world_.size();
      std::vector<Batch> batches(static_cast<std::size_t>(own / 2));
      std::int64_t first = at_ * config_.train.global_batch_size + world_.rank() * own;
      for (Batch& b : batches) {
        read_rows(first, 2, b);
        first += 2;
      }
      const double lr = learning_rate(config_.optim, ++at_, config_.train.train_iters);
      losses.push_back(engine_->step(batches, lr, [] { return false; })->loss);
    }
    return losses;
  }
  void save(const std::filesystem::path& folder) {
    SaveRequest request;
    request.step = at_;
    request.state.set("counters",
                      to_json(Counters{.step = at_, .updates = engine_->optimizer().updates()}));
    request.shards = {checkpoint_slices(*engine_)};
    CheckpointFolder(folder, "reshard", {.communicator = &world_}).save(request);
  }

 private:
  Config config_;
  comm::Communicator& world_;
  Scratch scratch_;
  Context context_;
  std::optional<Engine> engine_;
  std::int64_t at_ = 0;
};

// Every tensor of a step, its bytes.
std::map<std::string, std::string> content(const std::filesystem::path& folder) {
  const CheckpointReader step(list_steps(folder).front().folder);
  std::map<std::string, std::string> all;
  std::vector<TensorDestination> places;
  for (const TensorRecord& t : step.manifest().tensors) {
    std::string& bytes = all[t.name];
    bytes.resize(static_cast<std::size_t>(t.shape.numel()) * size_of(t.dtype));
    places.push_back({.name = t.name,
                      .dtype = t.dtype,
                      .shape = t.shape,
                      .part = {.begin = 0, .end = t.shape.numel()},
                      .data = bytes.data()});
  }
  step.read(places);
  return all;
}

class Reshard : public testing::TestWithParam<bool> {};

TEST_P(Reshard, AnyLayoutGoesOnInAnyOther) {
  const bool elastic = GetParam();
  const Config config = config_of(elastic);
  const test::TemporaryFolder folder;
  const std::vector<Sizes> layouts = test::few<Sizes>(
      {{1, 1, 1}, {4, 2, 0}, {8, 8, 1}, {2, 1, 0}, {2, 2, 1}, {4, 1, 1}, {8, 1, 1}, {8, 2, 0}}, 3);
  std::vector<double> undisturbed;
  comm::run_local(1, [&](comm::Communicator& world) {
    Rank rank(config, {1, 1, 0}, world);
    rank.start();
    undisturbed = rank.train(kBefore + kAfter);
  });
  for (const Sizes& from : layouts) {
    std::ostringstream name;
    name << from;
    const std::filesystem::path saved = folder / name.str();
    comm::run_local(from.world, [&](comm::Communicator& world) {
      Rank rank(config, from, world);
      rank.start();
      rank.train(kBefore);
      rank.save(saved);
    });
    const auto tensors = content(saved);
    EXPECT_GT(tensors.size(), 150U);
    for (const Sizes& to : layouts) {
      const std::filesystem::path again = folder / (name.str() + " again");
      std::vector<double> losses;
      comm::run_local(to.world, [&](comm::Communicator& world) {
        Rank rank(config, to, world);
        rank.load(saved);
        rank.save(again);  // what was loaded, cut in another way
        const std::vector<double> mine = rank.train(kAfter);
        if (world.rank() == 0) losses = mine;
      });
      EXPECT_TRUE(content(again) == tensors) << from << " -> " << to;
      std::filesystem::remove_all(again);
      ASSERT_EQ(losses.size(), static_cast<std::size_t>(kAfter));
      for (std::size_t i = 0; i < losses.size(); ++i) {
        const double want = undisturbed[kBefore + i];
        if (elastic)
          ASSERT_EQ(losses[i], want) << from << " -> " << to << " step " << i;
        else
          ASSERT_NEAR(losses[i], want, 1e-6 * want) << from << " -> " << to << " step " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sums, Reshard, testing::Bool(),
                         [](const auto& p) { return std::string(p.param ? "Elastic" : "Plain"); });

}  // namespace
}  // namespace grist::train
