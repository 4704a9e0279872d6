// Every parallel layout computes what one rank computes: losses over 20 steps and every gradient of
// the first, within 1e-6; the same layout, and with deterministic: elastic every layout, to the
// bit. The ranks are threads (comm/local.h).
#include <gtest/gtest.h>

#include <map>

#include "grist/comm/local.h"
#include "rows.h"
#include "support/scale.h"
#include "trial.h"

namespace grist::train {
namespace {

constexpr std::int64_t kSteps = test::kSanitized ? 4 : 20;

struct Kind {
  const char* name;
  std::function<void(Config&)> change;
  // How long layouts stay within 1e-6 with plain sums: another order of a sum moves weights by an
  // ulp, and that decides, sooner or later, which of two tokens of nearly the same weight a full
  // expert drops. Elastic sums have no such end.
  std::int64_t plain_steps = kSteps;
};

const std::vector<Kind>& kinds() {
  static const std::vector<Kind> all = {
      {"Dropless", [](Config&) {}},
      {"Capacity",
       [](Config& c) {
         c.model.moe.capacity_factor = 1.0;
         c.model.moe.aux_loss_scope = AuxLossScope::sequence;
       },
       4},
      {"CapacityByPosition",
       [](Config& c) {
         c.model.moe.capacity_factor = 0.75;
         c.model.moe.token_drop_policy = TokenDropPolicy::position;
         c.model.moe.aux_loss_scope = AuxLossScope::global_batch;
       }},
      {"SigmoidBias",
       [](Config& c) {
         c.model.moe.router.score_function = ScoreFunction::sigmoid;
         c.model.moe.router.norm_topk_prob = true;
         c.model.moe.expert_bias_update_rate = 0.01;
         c.model.moe.shared_expert_intermediate_size = 12;
         c.model.moe.first_k_dense_replace = 1;
         c.model.tie_word_embeddings = true;
       }},
      {"GlobalScopeRecompute",
       [](Config& c) {
         c.model.moe.aux_loss_scope = AuxLossScope::global_batch;
         c.train.recompute = Recompute::full;
       }},
  };
  return all;
}

Config config_of(const Kind& kind) {
  Config c;
  c.threads = 1;
  c.model = test::tiny_model();
  c.model.moe.aux_loss_coeff = 0.05;
  c.model.moe.z_loss_coeff = 0.01;
  c.data.seq_length = kRowLength;
  c.train.micro_batch_size = 2;
  c.train.global_batch_size = 32;  // 16 micro-batches: at least two on every rank
  c.train.train_iters = kSteps;
  c.optim.lr = 3e-3;
  c.optim.lr_decay_iters = kSteps;
  c.parallel.ddp_bucket_size = 3000;
  kind.change(c);
  return c;
}

struct Sizes {
  int world;
  std::int64_t ep, zero;
};
std::vector<Sizes> all_sizes() {
  if (test::kSanitized) return {{2, 1, 1}, {4, 2, 0}, {8, 8, 1}};
  std::vector<Sizes> all;
  for (const int world : {1, 2, 4, 8})
    for (std::int64_t ep = 1; ep <= world; ep *= 2)
      for (const std::int64_t zero : {0, 1}) all.push_back({world, ep, zero});
  return all;
}

TrialResult trial(Config c, const Sizes& s, std::int64_t steps = kSteps) {
  c.parallel.expert_model_parallel_size = s.ep;
  c.parallel.zero_stage = s.zero;
  TrialResult result;
  comm::run_local(s.world, [&](comm::Communicator& world) {
    const TrialResult mine = run_trial(c, world, read_rows, steps);
    if (world.rank() == 0) result = mine;
  });
  return result;
}

class Layouts : public testing::TestWithParam<std::size_t> {
 protected:
  const Kind& kind() const { return kinds()[GetParam()]; }
};

TEST_P(Layouts, ComputeWhatOneRankComputes) {
  const Config c = config_of(kind());
  const std::int64_t steps = kind().plain_steps;
  const TrialResult reference = trial(c, {1, 1, 0}, steps);
  ASSERT_EQ(reference.steps.size(), static_cast<std::size_t>(steps));
  for (const Sizes& s : all_sizes()) {
    const Agreement a = compare_trials(reference, trial(c, s, steps), false);
    EXPECT_TRUE(a.ok) << "world " << s.world << " ep " << s.ep << " zero " << s.zero << "\n"
                      << a.text;
  }
}

TEST_P(Layouts, AreTheSameBitsWhenElastic) {
  Config c = config_of(kind());
  c.parallel.deterministic = Deterministic::elastic;
  const TrialResult reference = trial(c, {1, 1, 0});
  for (const Sizes& s : all_sizes()) {
    const Agreement a = compare_trials(reference, trial(c, s), true);
    EXPECT_TRUE(a.ok) << "world " << s.world << " ep " << s.ep << " zero " << s.zero << "\n"
                      << a.text;
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Layouts, testing::Range<std::size_t>(0, kinds().size()),
                         [](const auto& p) { return std::string(kinds()[p.param].name); });

TEST(Layout, TheSameOneGivesTheSameBits) {
  const Config c = config_of(kinds()[0]);
  const TrialResult first = trial(c, {4, 2, 1});
  for (int again = 0; again < 2; ++again) {
    const Agreement a = compare_trials(first, trial(c, {4, 2, 1}), true);
    EXPECT_TRUE(a.ok) << a.text;
  }
}

// What only moves work about must not move bits.
TEST(Layout, OverlapAndBucketsChangeNoBit) {
  const Config c = config_of(kinds()[1]);
  const TrialResult reference = trial(c, {4, 2, 1}, 3);
  for (int i = 0; i < 3; ++i) {
    Config other = c;
    if (i == 0) other.parallel.overlap_grad_reduce = false;
    if (i == 1) other.parallel.overlap_expert_exchange = false;
    if (i == 2) other.parallel.ddp_bucket_size = 1'000'000'000;
    const Agreement a = compare_trials(reference, trial(other, {4, 2, 1}, 3), true);
    EXPECT_TRUE(a.ok) << "change " << i << "\n" << a.text;
  }
}

// The comparison itself: what it must find.
TEST(Compare, NamesTheFirstGradientThatDiffers) {
  const Config c = config_of(kinds()[0]);
  const TrialResult reference = trial(c, {1, 1, 0}, 1);
  TrialResult wrong = reference;
  for (NamedGradient& g : wrong.gradients)
    if (g.name.find("layers.0.mlp.experts.3") != std::string::npos)
      for (float& v : g.values) v *= 2.0F;  // the wrong scale at ep = 2
  const Agreement a = compare_trials(reference, wrong, false);
  EXPECT_FALSE(a.ok);
  EXPECT_NE(a.text.find("model.layers.0.mlp.experts.3."), std::string::npos) << a.text;
  TrialResult off = reference;
  off.steps[0].grad_norm *= 1.001;
  EXPECT_FALSE(compare_trials(reference, off, false).ok);
  TrialResult ulp = reference;
  ulp.gradients[0].values[0] = std::nextafter(ulp.gradients[0].values[0], 1.0F);
  EXPECT_TRUE(compare_trials(reference, ulp, false).ok);
  EXPECT_FALSE(compare_trials(reference, ulp, true).ok);
}

}  // namespace
}  // namespace grist::train
