// Whole training steps on the CUDA backend against the CPU backend: the same engine, batches and
// weights.
#include <gtest/gtest.h>

#include <cmath>

#include "fixture.h"
#include "grist/comm/local.h"
#include "train/rows.h"
#include "trial.h"

namespace grist::train {
namespace {

constexpr std::int64_t kSteps = 20;

Config tiny(const std::string& device, const std::string& precision) {
  Config c;
  c.threads = 1;
  c.device = device;
  c.precision = precision;
  c.model = test::tiny_model();
  c.model.hidden_size = 32;  // widths that the bf16 kernels load in whole vectors
  c.model.head_dim = 16;
  c.model.num_attention_heads = 2;
  c.model.num_key_value_heads = 1;
  c.model.moe.moe_intermediate_size = 24;
  c.model.moe.aux_loss_coeff = 0.05;
  c.model.moe.z_loss_coeff = 0.01;
  c.data.seq_length = kRowLength;
  c.train.micro_batch_size = 2;
  c.train.global_batch_size = 8;
  c.train.train_iters = kSteps;
  c.optim.lr = 3e-3;
  c.optim.lr_decay_iters = kSteps;
  c.parallel.ddp_bucket_size = 3000;
  return c;
}

TrialResult trial(const Config& c, std::int64_t steps = kSteps, int world = 1) {
  TrialResult result;
  comm::run_local(world, [&](comm::Communicator& ranks) {
    const TrialResult mine = run_trial(c, ranks, read_rows, steps);
    if (ranks.rank() == 0) result = mine;
  });
  return result;
}

// Largest relative distance of the losses, and of the gradients of the first step (norm of the
// difference over the norm, a tensor at a time).
struct Distance {
  double loss = 0, gradient = 0;
  std::string worst;
};
Distance distance(const TrialResult& want, const TrialResult& got) {
  Distance d;
  EXPECT_EQ(want.steps.size(), got.steps.size());
  for (std::size_t i = 0; i < want.steps.size(); ++i)
    d.loss =
        std::max(d.loss, std::abs(got.steps[i].loss - want.steps[i].loss) / want.steps[i].loss);
  EXPECT_EQ(want.gradients.size(), got.gradients.size());
  for (std::size_t i = 0; i < want.gradients.size(); ++i) {
    double error = 0, norm = 0;
    for (std::size_t j = 0; j < want.gradients[i].values.size(); ++j) {
      const double w = want.gradients[i].values[j], g = got.gradients[i].values[j];
      error += (g - w) * (g - w);
      norm += w * w;
    }
    const double relative = std::sqrt(error) / (std::sqrt(norm) + 1e-12);
    if (!(relative <= d.gradient)) {
      d.gradient = relative;
      d.worst = want.gradients[i].name;
    }
  }
  return d;
}

TEST(CudaTraining, Fp32FollowsTheCpu) {
  const TrialResult cpu = trial(tiny("cpu", "fp32"));
  const Distance d = distance(cpu, trial(tiny("cuda", "fp32")));
  EXPECT_LE(d.loss, 1e-5);
  EXPECT_LE(d.gradient, 1e-5) << d.worst;
}

// bf16 rounding alone moves some tokens to other experts, so losses follow loosely.
TEST(CudaTraining, Bf16FollowsTheCpu) {
  const TrialResult cpu = trial(tiny("cpu", "fp32"));
  const Distance d = distance(cpu, trial(tiny("cuda", "bf16")));
  EXPECT_LE(d.loss, 1e-2);
}

TEST(CudaTraining, TheSameRunGivesTheSameBits) {
  for (const char* precision : {"fp32", "bf16"}) {
    const Config c = tiny("cuda", precision);
    const TrialResult first = trial(c, 3), again = trial(c, 3);
    EXPECT_TRUE(compare_trials(first, again, true).ok) << precision;
  }
}

TEST(CudaTraining, RecomputationChangesNoBit) {
  Config c = tiny("cuda", "bf16");
  const TrialResult reference = trial(c, 3);
  for (const char* recompute : {"selective", "full"}) {
    c.train.recompute = recompute;
    EXPECT_TRUE(compare_trials(reference, trial(c, 3), true).ok) << recompute;
  }
}

struct Sizes {
  int world;
  std::int64_t ep, zero;
};

TrialResult trial(Config c, const Sizes& s, std::int64_t steps) {
  c.parallel.expert_model_parallel_size = s.ep;
  c.parallel.zero_stage = s.zero;
  return trial(c, steps, s.world);
}

// Ranks are threads here, with one GPU between them: rows and gradients travel through host memory.
TEST(CudaRanks, ComputeWhatOneRankComputes) {
  const Config c = tiny("cuda", "fp32");
  const TrialResult one = trial(c, {1, 1, 0}, 4);
  for (const Sizes& s : {Sizes{2, 1, 1}, {2, 2, 0}, {4, 2, 1}, {4, 4, 1}}) {
    const Agreement a = compare_trials(one, trial(c, s, 4), false);
    EXPECT_TRUE(a.ok) << "world " << s.world << " ep " << s.ep << "\n" << a.text;
  }
}

TEST(CudaRanks, AreTheSameBitsWhenElastic) {
  for (const char* precision : {"fp32", "bf16"}) {
    Config c = tiny("cuda", precision);
    c.train.global_batch_size = 16;  // a micro-batch a lane
    c.parallel.deterministic = "elastic";
    const TrialResult one = trial(c, {1, 1, 0}, 2);
    for (const Sizes& s : {Sizes{2, 2, 1}, {4, 2, 0}, {4, 4, 1}}) {
      const Agreement a = compare_trials(one, trial(c, s, 2), true);
      EXPECT_TRUE(a.ok) << precision << " world " << s.world << " ep " << s.ep << "\n" << a.text;
    }
  }
}

}  // namespace
}  // namespace grist::train
