// Properties of the whole model: gradients against finite differences for every kind of layer, and
// switches that must not change a bit.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "grist/nn/model.h"
#include "grist/ops/optimizer.h"
#include "support/compare.h"
#include "support/model.h"

namespace grist {
namespace {

constexpr std::int64_t kRows = 2, kLength = 13;

struct Case {
  const char* name;
  std::function<void(ModelConfig&)> change;
};

ModelConfig config_of(const Case& c) {
  ModelConfig m = test::tiny_model();
  c.change(m);
  return m;
}

class Trial {
 public:
  explicit Trial(const ModelConfig& config, nn::Keep keep = nn::Keep::everything, int threads = 2)
      : context_(threads),
        model(config, Device::cpu, true, nullptr),
        act(config, kRows * kLength, kRows, keep, Device::cpu, nullptr),
        batch(kRows, kLength, config.vocab_size, "model test") {
    batch.targets[5] = -1;
    model.parameters().initialize(*context_, 3);
    model.parameters().refresh(*context_);
  }

  // Total loss, gradients in the arena.
  double total(bool first = true) {
    statistics.reset();
    model.forward_backward(*context_, act, batch.view(),
                           {.loss_scale = scale(), .micro_batch_weight = 1.0F, .first = first},
                           statistics);
    double sum = statistics.loss_sum * static_cast<double>(scale());
    for (const nn::LossTerm& term : nn::loss_terms(model.config(), statistics)) sum += term.value;
    return sum;
  }
  float scale() const { return 1.0F / static_cast<float>(batch.num_targets()); }
  const Context& context() const { return *context_; }

 private:
  test::CpuContext context_;

 public:
  nn::Model model;
  nn::Activations act;
  test::TestBatch batch;
  nn::StepStatistics statistics;
};

const Case kCases[] = {
    {"SoftmaxAfter", [](ModelConfig&) {}},
    {"HeadZLoss", [](ModelConfig& m) { m.lm_head_z_loss_coeff = 0.1; }},
    {"SoftmaxBefore", [](ModelConfig& m) { m.moe.router.pre_softmax = true; }},
    {"SoftmaxBeforeTop1",
     [](ModelConfig& m) { m.moe.router.pre_softmax = true, m.moe.num_experts_per_tok = 1; }},
    {"SigmoidNormScaled",
     [](ModelConfig& m) {
       m.moe.router.score_function = ScoreFunction::sigmoid;
       m.moe.router.norm_topk_prob = true;
       m.moe.router.routed_scaling_factor = 2.5;
       m.moe.expert_bias_update_rate = 0.001;
     }},
    {"SharedExpertAndDenseFront",
     [](ModelConfig& m) {
       m.num_hidden_layers = 3;
       m.moe.first_k_dense_replace = 1;
       m.moe.shared_expert_intermediate_size = 12;
     }},
    {"QkNormTied", [](ModelConfig& m) { m.qk_norm = m.tie_word_embeddings = true; }},
    {"SequenceScope",
     [](ModelConfig& m) {
       m.moe.aux_loss_scope = AuxLossScope::sequence, m.moe.aux_loss_coeff = 0.5;
     }},
    {"MicroBatchScope",
     [](ModelConfig& m) { m.moe.aux_loss_coeff = 0.5, m.moe.z_loss_coeff = 0.1; }},
    {"GlobalBatchScope",
     [](ModelConfig& m) {
       m.moe.aux_loss_scope = AuxLossScope::global_batch, m.moe.aux_loss_coeff = 0.5;
     }},
    {"CapacityByProbability", [](ModelConfig& m) { m.moe.capacity_factor = 0.7; }},
    {"CapacityByPosition",
     [](ModelConfig& m) {
       m.moe.capacity_factor = 0.7, m.moe.token_drop_policy = TokenDropPolicy::position;
     }},
    {"Dense", [](ModelConfig& m) { m.moe = MoeConfig{}; }},
};

class ModelCases : public ::testing::TestWithParam<Case> {};

// Choices, drops and rows of every MoE layer: what a finite difference must not change.
std::vector<std::int32_t> routing(const nn::Activations& act) {
  std::vector<std::int32_t> out;
  for (const nn::LayerActivations& l : act.layers) {
    for (const TensorView& v : {l.ids, l.slot_row}) {
      if (v) out.insert(out.end(), v.as<std::int32_t>(), v.as<std::int32_t>() + v.numel());
    }
  }
  return out;
}

// The slope of the total loss along the gradient of one tensor, which must be the gradient's norm.
// Choices and load fractions are constants by the definition of the loss, so steps shrink until no
// choice flips.
class SlopeAlongGradient {
 public:
  SlopeAlongGradient(Trial& trial, const nn::NamedTensor& t, const float* gradient)
      : trial_(trial),
        w_(t.master.as<float>()),
        n_(static_cast<std::size_t>(t.shape.numel())),
        direction_(gradient, gradient + n_),
        saved_(w_, w_ + n_) {
    for (const float g : direction_) norm_ += static_cast<double>(g) * static_cast<double>(g);
    norm_ = std::sqrt(norm_);
  }
  ~SlopeAlongGradient() { std::copy(saved_.begin(), saved_.end(), w_); }
  double norm() const { return norm_; }

  ::testing::AssertionResult matches(const std::vector<std::int32_t>& choices) {
    for (const double step : {2e-3, 7e-4, 2e-4, 5e-5}) {
      bool flipped = false;
      const double up = loss_at(step, choices, flipped), down = loss_at(-step, choices, flipped);
      if (flipped) continue;
      const double slope = (up - down) / (2 * step);
      if (std::abs(slope - norm_) <= 0.01 * norm_ + 5e-7 / step)
        return ::testing::AssertionSuccess();
      return ::testing::AssertionFailure()
             << "slope " << slope << ", gradient " << norm_ << " at step " << step;
    }
    return ::testing::AssertionFailure() << "choices flip at every step size; take another seed";
  }

 private:
  double loss_at(double h, const std::vector<std::int32_t>& choices, bool& flipped) {
    for (std::size_t i = 0; i < n_; ++i)
      w_[i] = saved_[i] + static_cast<float>(h * static_cast<double>(direction_[i]) / norm_);
    trial_.model.parameters().refresh(trial_.context());
    const double loss = trial_.total();
    flipped = flipped || routing(trial_.act) != choices;
    return loss;
  }

  Trial& trial_;
  float* w_;
  std::size_t n_;
  std::vector<float> direction_, saved_;
  double norm_ = 0;
};

TEST_P(ModelCases, GradientOfEveryTensorMatchesFiniteDifferences) {
  Trial trial(config_of(GetParam()));
  trial.total();
  const std::vector<float> gradients = test::all_gradients(trial.model);
  const std::vector<std::int32_t> choices = routing(trial.act);
  std::size_t at = 0;
  for (const nn::NamedTensor& t : trial.model.parameters().tensors()) {
    SlopeAlongGradient slope(trial, t, gradients.data() + at);
    at += static_cast<std::size_t>(t.shape.numel());
    if (slope.norm() < 2e-3) continue;  // below what fp32 differences can see
    EXPECT_TRUE(slope.matches(choices)) << t.name;
  }
}

TEST_P(ModelCases, RecomputationAndThreadsDoNotChangeABit) {
  Trial reference(config_of(GetParam()));
  const double loss = reference.total();
  const std::vector<float> gradients = test::all_gradients(reference.model);

  for (const nn::Keep keep :
       {nn::Keep::layer_inputs, nn::Keep::all_but_large, nn::Keep::everything}) {
    for (const int threads : {1, 3}) {
      Trial run(config_of(GetParam()), keep, threads);
      EXPECT_EQ(run.total(), loss);
      EXPECT_TRUE(test::all_gradients(run.model) == gradients)
          << "keep " << static_cast<int>(keep) << ", threads " << threads;
    }
  }
}

TEST_P(ModelCases, SecondMicroBatchAddsToTheFirst) {
  Trial run(config_of(GetParam()));
  run.total();
  const std::vector<float> once = test::all_gradients(run.model);
  run.total(false);
  const std::vector<float> twice = test::all_gradients(run.model);

  std::vector<double> want(once.begin(), once.end());
  for (double& v : want) v *= 2;
  EXPECT_TRUE(test::close(twice, want, {.relative = 1e-4, .absolute = 1e-6}));
}

INSTANTIATE_TEST_SUITE_P(Kinds, ModelCases, ::testing::ValuesIn(kCases),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(Model, EvaluationOfARowDoesNotDependOnItsNeighbours) {
  ModelConfig config = test::tiny_model();
  config.moe.capacity_factor = 0.5;  // evaluation ignores it
  Trial run(config);
  nn::Activations both(config, kRows * kLength, kRows, nn::Keep::nothing, Device::cpu, nullptr);
  nn::Activations one(config, kLength, 1, nn::Keep::nothing, Device::cpu, nullptr);
  run.model.evaluate(run.context(), both, run.batch.view());

  for (std::int64_t row = 0; row < kRows; ++row) {
    test::TestBatch alone;
    const auto cut = [&](const std::vector<std::int32_t>& v) {
      return std::vector<std::int32_t>(v.begin() + row * kLength, v.begin() + (row + 1) * kLength);
    };
    alone.ids = cut(run.batch.ids);
    alone.targets = cut(run.batch.targets);
    alone.positions = cut(run.batch.positions);
    alone.cu_seqlens = {0, kLength};
    run.model.evaluate(run.context(), one, alone.view());
    for (std::int64_t i = 0; i < kLength; ++i)
      EXPECT_EQ(one.losses.as<float>()[i], both.losses.as<float>()[row * kLength + i])
          << row << ' ' << i;
  }
}

TEST(Model, DroppedChoicesAreCounted) {
  ModelConfig config = test::tiny_model();
  config.moe.capacity_factor = 0.5;
  Trial run(config);
  run.total();

  const std::int64_t capacity = 4;  // ceil(0.5 * 2 * 26 / 8)
  for (const nn::LayerStatistics& s : run.statistics.layers) {
    std::int64_t dropped = 0;
    for (const std::int64_t c : s.counts) dropped += std::max<std::int64_t>(0, c - capacity);
    EXPECT_EQ(s.dropped, dropped);
    EXPECT_GT(s.dropped, 0);
  }
}

TEST(Model, AFrozenBiasStillDecidesTheChoice) {
  ModelConfig config = test::tiny_model();
  config.moe.router.score_function = ScoreFunction::sigmoid;
  Trial trial(config);  // expert_bias_update_rate is 0
  for (std::vector<float>& bias : trial.model.router_state().bias) bias[3] = 10.0F;
  trial.total();

  for (const nn::LayerStatistics& s : trial.statistics.layers)
    EXPECT_EQ(s.counts[3], kRows * kLength);
}

TEST(Model, BiasMovesAgainstTheLoadAndFractionsAreRemembered) {
  ModelConfig config = test::tiny_model();
  config.moe.router.score_function = ScoreFunction::sigmoid;
  config.moe.expert_bias_update_rate = 0.25;
  Trial run(config);
  run.total();
  run.model.update_router_state(run.statistics);

  for (std::size_t l = 0; l < run.statistics.layers.size(); ++l) {
    const auto& counts = run.statistics.layers[l].counts;
    for (std::size_t e = 0; e < counts.size(); ++e) {
      const double mean = 2.0 * kRows * kLength / 8.0, load = static_cast<double>(counts[e]);
      const float want = load < mean ? 0.25F : (load > mean ? -0.25F : 0.0F);
      EXPECT_EQ(run.model.router_state().bias[l][e], want);
      EXPECT_FLOAT_EQ(run.model.router_state().load_fraction[l][e],
                      static_cast<float>(load / (2.0 * kRows * kLength)));
    }
  }
}

}  // namespace
}  // namespace grist
