// The model against PyTorch and Hugging Face transformers: golden states made by
// scripts/make_golden.py (float64 runs, rounded). What is compared and why the tolerances:
// tests/golden/README.md.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "grist/ckpt/safetensors.h"
#include "grist/core/file.h"
#include "grist/core/json.h"
#include "grist/nn/model.h"
#include "grist/ops/linear.h"
#include "grist/optim/optimizer.h"
#include "support/device_context.h"
#include "support/model.h"

namespace grist {
namespace {

// Norm of the difference over the norm, per tensor. PyTorch's own float32 run is 2e-7 to 7e-7 away
// from the float64 one.
constexpr double kTensorTolerance = 5e-6;
constexpr double kLossTolerance = 1e-6;

// Ten steps amplify rounding: PyTorch's own float32 run is up to 7e-6 (weights) and 2.3e-6 (a
// step's losses and norm) away.
constexpr double kFinalWeightTolerance = 5e-5;
constexpr double kStepTolerance = 2e-5;

struct Golden {
  explicit Golden(const std::string& name)
      : json(Json::parse(read_text(path(name, ".json")), name)), file(path(name, ".safetensors")) {}

  static std::filesystem::path path(const std::string& name, const char* ending) {
    return std::filesystem::path(GRIST_TESTS_DIR) / "golden" / (name + ending);
  }

  template <class T> std::vector<T> read(const std::string& name) const {
    const SafetensorsEntry& e = file.at(name);
    std::vector<T> out(static_cast<std::size_t>(e.shape.numel()));
    file.read(name, {out.data(), dtype_of<T>(), e.shape});
    return out;
  }

  ModelConfig config() const {
    const Json& c = json.at("config");
    const Json& moe = c.at("moe");
    const Json& router = moe.at("router");
    ModelConfig m;
    m.num_hidden_layers = c.at("num_hidden_layers").as_int();
    m.hidden_size = c.at("hidden_size").as_int();
    m.num_attention_heads = c.at("num_attention_heads").as_int();
    m.num_key_value_heads = c.at("num_key_value_heads").as_int();
    m.head_dim = c.at("head_dim").as_int();
    m.vocab_size = c.at("vocab_size").as_int();
    m.intermediate_size = c.at("intermediate_size").as_int();
    m.max_position_embeddings = c.at("max_position_embeddings").as_int();
    m.rope_theta = c.at("rope_theta").as_double();
    m.rms_norm_eps = c.at("rms_norm_eps").as_double();
    m.qk_norm = c.at("qk_norm").as_bool();
    m.tie_word_embeddings = c.at("tie_word_embeddings").as_bool();
    if (const Json* coeff = c.find("lm_head_z_loss_coeff"))
      m.lm_head_z_loss_coeff = coeff->as_double();
    m.moe.num_experts = moe.at("num_experts").as_int();
    m.moe.num_experts_per_tok = moe.at("num_experts_per_tok").as_int();
    m.moe.moe_intermediate_size = moe.at("moe_intermediate_size").as_int();
    m.moe.aux_loss_coeff = moe.at("aux_loss_coeff").as_double();
    m.moe.aux_loss_scope = from_word<AuxLossScope>(moe.at("aux_loss_scope").as_string()).value();
    m.moe.z_loss_coeff = moe.at("z_loss_coeff").as_double();
    m.moe.router.score_function =
        from_word<ScoreFunction>(router.at("score_function").as_string()).value();
    m.moe.router.pre_softmax = router.at("pre_softmax").as_bool();
    m.moe.router.norm_topk_prob = router.at("norm_topk_prob").as_bool();
    m.moe.router.routed_scaling_factor = router.at("routed_scaling_factor").as_double();
    m.moe.first_k_dense_replace = moe.at("first_k_dense_replace").as_int();
    m.moe.shared_expert_intermediate_size = moe.at("shared_expert_intermediate_size").as_int();
    m.moe.expert_bias_update_rate = moe.at("expert_bias_update_rate").as_double();
    return m;
  }

  test::TestBatch batch() const {
    test::TestBatch b;
    b.ids = read<std::int32_t>("input.ids");
    b.targets = read<std::int32_t>("input.labels");
    b.positions = read<std::int32_t>("input.positions");
    if (file.header().find("input.cu_seqlens") != nullptr) {
      b.cu_seqlens = read<std::int32_t>("input.cu_seqlens");
    } else {
      const auto n = static_cast<std::int32_t>(b.ids.size());
      b.cu_seqlens = {0, n / 2, n};
    }
    return b;
  }

  // Our name to the file's: Mixtral calls the expert matrices w1 (gate), w3 (up), w2 (down).
  std::string hub_name(std::string name) const {
    if (json.at("hub_config").at("model_type").as_string() != "mixtral") return name;
    for (const auto& [ours, theirs] : {std::pair{".mlp.", ".block_sparse_moe."},
                                       {"gate_proj", "w1"},
                                       {"up_proj", "w3"},
                                       {"down_proj", "w2"}}) {
      const std::size_t at = name.find(ours);
      if (at != std::string::npos) name.replace(at, std::string(ours).size(), theirs);
    }
    return name;
  }

  Json json;
  SafetensorsReader file;
};

double relative_error(const std::vector<float>& got, const std::vector<float>& want) {
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double d = static_cast<double>(got[i]) - static_cast<double>(want[i]);
    error += d * d;
    norm += static_cast<double>(want[i]) * static_cast<double>(want[i]);
  }
  return std::sqrt(error) / (std::sqrt(norm) + 1e-12);
}

class GoldenModel : public ::testing::TestWithParam<const char*> {
 protected:
  GoldenModel()
      : golden(GetParam()),
        model(golden.config(), test::test_device(), true, nullptr),
        batch(golden.batch()) {
    for (const nn::NamedTensor& t : model.parameters().tensors())
      copy_in(*context, t.master, golden.read<float>(golden.hub_name(t.name)).data());
    if (model.config().moe.expert_bias_update_rate > 0) {
      for (std::size_t i = 0; i < model.router_bias_names().size(); ++i)
        model.router_state().bias[i] = golden.read<float>(model.router_bias_names()[i]);
    }
    model.parameters().refresh(*context);
  }
  nn::Activations activations(nn::Keep keep) const {
    return {
        model.config(), static_cast<std::int64_t>(batch.ids.size()), 2, keep, test::test_device(),
        nullptr};
  }
  // AdamW as the golden's `optim` says; the moments live in `moments`.
  Optimizer make_optimizer(std::vector<Buffer>& moments) {
    const Json& words = golden.json.at("optim");
    OptimConfig config;
    config.weight_decay = words.at("weight_decay").as_double();
    config.adam_beta1 = words.at("adam_beta1").as_double();
    config.adam_beta2 = words.at("adam_beta2").as_double();
    config.adam_eps = words.at("adam_eps").as_double();
    config.clip_grad = words.at("clip_grad").as_double();
    std::vector<OptimizerEntry> entries;
    for (const nn::NamedTensor& t : model.parameters().tensors()) {
      OptimizerEntry e;
      e.tensor = {.name = t.name, .shape = t.shape, .decay = t.decay};
      e.part = whole_part(t.shape);
      e.param = t.master;
      e.grad = t.grad;
      for (const char* name : {"m", "v"}) {
        const std::vector<float> zeros(static_cast<std::size_t>(t.shape.numel()), 0.0F);
        moments.emplace_back(zeros.size() * sizeof(float), test::test_device(), "moment");
        e.state.push_back({name, moments.back().view(DType::f32, t.shape)});
        copy_in(*context, e.state.back().values, zeros.data());
      }
      entries.push_back(e);
    }
    return {make_update_rule(config),
            config.clip_grad,
            std::move(entries),
            {.device = test::test_device()}};
  }

  std::vector<float> host(const ConstTensorView& v) const { return to_host<float>(*context, v); }

  test::DeviceContext context;
  Golden golden;
  nn::Model model;
  test::TestBatch batch;
};

TEST_P(GoldenModel, LogitsMatchTransformers) {
  nn::Activations act = activations(nn::Keep::nothing);
  model.evaluate(*context, act, batch.view());
  const Shape shape = {act.tokens(), model.config().vocab_size};
  const Buffer logits(static_cast<std::size_t>(shape.numel()) * sizeof(float), test::test_device(),
                      "logits");
  const TensorView y = logits.view(DType::f32, shape);
  ops::linear_forward(*context,
                      {.y = y, .x = act.n_final, .w = model.parameters().output().compute});

  EXPECT_LT(relative_error(host(y), golden.read<float>("output.logits")), kTensorTolerance);
}

TEST_P(GoldenModel, LossesAndEveryGradientMatchTransformers) {
  nn::Activations act = activations(nn::Keep::everything);
  nn::StepStatistics statistics;
  const auto targets = static_cast<double>(golden.json.at("num_targets").as_int());
  ASSERT_EQ(static_cast<double>(batch.num_targets()), targets);
  model.forward_backward(*context, act, batch.view(),
                         {.loss_scale = static_cast<float>(1.0 / targets)}, statistics);

  const Json& want = golden.json.at("steps").as_array().front();
  EXPECT_NEAR(statistics.loss_sum / targets, want.at("loss").as_double(),
              kLossTolerance * want.at("loss").as_double());
  for (const nn::LossTerm& term : nn::loss_terms(model.config(), statistics)) {
    const double value = want.at(std::string(term.name)).as_double();
    EXPECT_NEAR(term.value, value, kLossTolerance * value) << term.name;
  }
  for (const nn::NamedTensor& t : model.parameters().tensors()) {
    const std::vector<float> grad = golden.read<float>("grad." + golden.hub_name(t.name));
    EXPECT_LT(relative_error(host(t.grad), grad), kTensorTolerance) << t.name;
  }
}

TEST_P(GoldenModel, TenAdamWStepsMatchPyTorch) {
  const Json& words = golden.json.at("optim");
  const auto& steps = golden.json.at("steps").as_array();
  const double targets = static_cast<double>(batch.num_targets());
  nn::Activations act = activations(nn::Keep::everything);
  std::vector<Buffer> moments;
  Optimizer optimizer = make_optimizer(moments);
  const auto expect = [](double got, const Json& line, const char* key, std::size_t step) {
    const double want = line.at(key).as_double();
    EXPECT_NEAR(got, want, kStepTolerance * want) << key << " of step " << step;
  };
  ASSERT_EQ(steps.size(), 10U);
  for (std::size_t i = 0; i <= steps.size(); ++i) {
    const Json& line = i < steps.size() ? steps[i] : golden.json.at("after");
    nn::StepStatistics statistics;
    model.forward_backward(*context, act, batch.view(),
                           {.loss_scale = static_cast<float>(1.0 / targets)}, statistics);
    expect(statistics.loss_sum / targets, line, "loss", i);
    for (const nn::LossTerm& term : nn::loss_terms(model.config(), statistics))
      expect(term.value, line, std::string(term.name).c_str(), i);
    if (i == steps.size()) break;
    const OptimizerResult result = optimizer.step(*context, {.lr = words.at("lr").as_double()});
    expect(result.grad_norm, line, "grad_norm", i);
    model.parameters().refresh(*context);
  }
  for (const nn::NamedTensor& t : model.parameters().tensors()) {
    const auto want = golden.read<float>("final." + golden.hub_name(t.name));
    EXPECT_LT(relative_error(host(t.master), want), kFinalWeightTolerance) << t.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Transformers, GoldenModel,
                         ::testing::Values("mixtral", "mixtral_head_z", "mixtral_packed",
                                           "qwen3_moe", "qwen3_moe_norm", "glm4_moe"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace grist
