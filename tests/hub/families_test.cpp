// Which family a model is, and that its table of tensors is the model's, no more and no less.
#include "grist/hub/families.h"

#include <map>
#include <set>

#include "grist/nn/model.h"
#include "hub/support.h"
#include "support/model.h"

namespace grist::test {
namespace {

using hub::Family;

ModelConfig plain() {
  ModelConfig c = tiny_model();
  c.moe.granularity = 2;
  return c;
}
ModelConfig with(const std::function<void(ModelConfig&)>& change) {
  ModelConfig c = plain();
  change(c);
  return c;
}

struct Case {
  const char* name;
  ModelConfig config;
  Family family;
};

std::vector<Case> cases() {
  const auto dense = [](ModelConfig& c) { c.moe = {}; };
  return {
      {"dense", with(dense), Family::llama},
      {"dense_qk_norm", with([&](auto& c) { dense(c), c.qk_norm = true; }), Family::qwen3},
      {"all_layers_dense", with([](auto& c) { c.moe.first_k_dense_replace = 2; }), Family::llama},
      {"softmax_after", plain(), Family::mixtral},
      {"tied", with([](auto& c) { c.tie_word_embeddings = true; }), Family::mixtral},
      {"normalised",
       with([](auto& c) { c.moe.router.pre_softmax = c.moe.router.norm_topk_prob = true; }),
       Family::mixtral},
      {"qk_norm", with([](auto& c) { c.qk_norm = true; }), Family::qwen3_moe},
      {"qk_norm_before", with([](auto& c) { c.qk_norm = c.moe.router.pre_softmax = true; }),
       Family::qwen3_moe},
      {"qk_norm_dense_first", with([](auto& c) {
         c.qk_norm = true;
         c.moe.first_k_dense_replace = 1;
       }),
       Family::qwen3_moe},
      {"softmax_before", with([](auto& c) { c.moe.router.pre_softmax = true; }), Family::qwen2_moe},
      {"dense_first", with([](auto& c) { c.moe.first_k_dense_replace = 1; }), Family::qwen2_moe},
      {"shared", with([](auto& c) { c.moe.shared_expert_intermediate_size = 7; }),
       Family::granitemoeshared},
      {"sigmoid", with([](auto& c) { c.moe.router.score_function = ScoreFunction::sigmoid; }),
       Family::glm4_moe},
      {"deepseek", with([](auto& c) {
         c.moe.router = {.score_function = ScoreFunction::sigmoid,
                         .norm_topk_prob = true,
                         .routed_scaling_factor = 2.5};
         c.moe.expert_bias_update_rate = 0.001;
         c.moe.shared_expert_intermediate_size = 40;
         c.moe.first_k_dense_replace = 1;
         c.qk_norm = true;
       }),
       Family::glm4_moe},
  };
}

TEST(Families, AreChosenByWhatIsComputed) {
  for (const Case& c : cases()) EXPECT_EQ(word(hub::family_of(c.config)), word(c.family)) << c.name;
}

// Names and shapes of every parameter, as the model has them.
std::map<std::string, std::string> parameters_of(const ModelConfig& c) {
  std::map<std::string, std::string> out;
  const nn::Model model(c, Device::cpu, false, nullptr);
  for (const nn::NamedTensor& t : model.parameters().tensors()) out[t.name] = t.shape.str();
  return out;
}

TEST(Families, TablesHoldEveryParameterOnceInBothLayouts) {
  for (const Case& c : cases()) {
    auto want = parameters_of(c.config);
    if (c.family == Family::glm4_moe) {
      for (const std::string& bias :
           nn::Model(c.config, Device::cpu, false, nullptr).router_bias_names())
        want[bias] = Shape{c.config.moe.num_experts}.str();
    }
    for (const auto layout : {hub::ExpertLayout::per_expert, hub::ExpertLayout::fused}) {
      std::map<std::string, std::string> got;
      std::set<std::string> names;
      for (const hub::HubTensor& t : hub_tensors(c.family, c.config, layout)) {
        EXPECT_TRUE(names.insert(t.name).second) << c.name << ": " << t.name;
        std::int64_t numel = 0;
        for (const hub::Part& p : t.parts) {
          EXPECT_TRUE(got.emplace(p.name, p.shape.str()).second) << c.name << ": " << p.name;
          numel += p.shape.numel();
        }
        EXPECT_EQ(numel, t.parts.empty() ? 0 : t.shape.numel()) << t.name;
      }
      EXPECT_TRUE(got == want) << c.name;
    }
  }
}

TEST(Families, ConfigJsonComesBackAsTheSameModel) {
  for (const Case& c : cases()) {
    const Json json =
        config_json(c.family, c.config, {.bos = 1, .eos = 2, .pad = Json()}, DType::f32);
    const hub::HubModel back = hub::model_of(json, "config.json");
    EXPECT_EQ(word(back.family), word(c.family)) << c.name;
    EXPECT_EQ(word(hub::family_of(back.model)), word(c.family)) << c.name;
    EXPECT_EQ(config_json(back.family, back.model, {.bos = 1, .eos = 2, .pad = Json()}, DType::f32)
                  .dump(),
              json.dump())
        << c.name;
  }
}

// transformers 4.57 takes its class's default for a key that only 5 writes, without a word.
TEST(Families, ConfigJsonSaysWhatTransformers4And5LookForInOtherPlaces) {
  for (const Case& c : cases()) {
    const Json json = config_json(c.family, c.config, {}, DType::bf16);
    EXPECT_EQ(json.at("rope_theta").as_double(), c.config.rope_theta) << c.name;
    EXPECT_EQ(json.at("rope_parameters").at("rope_theta").as_double(), c.config.rope_theta);
    EXPECT_TRUE(json.at("rope_scaling").is_null());
    EXPECT_EQ(json.at("torch_dtype").as_string(), "bfloat16");
    for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) {
      ASSERT_NE(json.find(key), nullptr) << key;
      EXPECT_TRUE(json.at(key).is_null()) << key;
    }
    if (c.family == Family::qwen3_moe) {
      EXPECT_EQ(json.at("num_experts").as_int(), 8);
      EXPECT_EQ(json.at("num_local_experts").as_int(), 8);
    }
    if (c.family != Family::glm4_moe) continue;
    EXPECT_EQ(json.at("partial_rotary_factor").as_double(), 1.0);
  }
}

TEST(Families, SpecialTokensMayBeSeveralAndMustBeIds) {
  const Json object = Json::parse(
      R"({"bos_token_id": -1, "eos_token_id": [2, 5], "pad_token_id": "x"})", "config.json");
  const hub::SpecialTokens tokens = hub::special_tokens_of(object);
  EXPECT_TRUE(tokens.bos.is_null());
  EXPECT_EQ(tokens.eos.dump(), "[2, 5]");
  EXPECT_TRUE(tokens.pad.is_null());
  EXPECT_EQ(hub::generation_config_json(tokens).at("eos_token_id"), tokens.eos);
}

// Per layer transformers pushes k / L times as hard: 0.01 * 2 layers / 2 experts a token.
TEST(Families, AuxLossCoefficientIsThatOfTheSamePush) {
  ModelConfig c = with([](auto& m) { m.moe.num_experts_per_tok = 4; });
  const Json json = config_json(Family::mixtral, c, {}, DType::f32);
  EXPECT_EQ(json.at("router_aux_loss_coef").as_double(), 0.005);
  EXPECT_NEAR(hub::model_of(json, "c").model.moe.aux_loss_coeff, 0.01, 1e-15);
}

struct Refused {
  const char* key;
  std::function<void(ModelConfig&)> change;
};

TEST(Families, WhatNoneExpressesIsRefusedByItsKey) {
  const auto sigmoid = [](ModelConfig& c) { c.moe.router.score_function = ScoreFunction::sigmoid; };
  const std::vector<Refused> all = {
      {"model.moe.router.routed_scaling_factor",
       [](auto& c) { c.moe.router.routed_scaling_factor = 2; }},
      {"model.moe.expert_bias_update_rate",
       [](auto& c) { c.moe.expert_bias_update_rate = 0.1, c.moe.router.pre_softmax = true; }},
      {"model.qk_norm",
       [](auto& c) { c.qk_norm = true, c.moe.shared_expert_intermediate_size = 8; }},
      {"model.moe.router.pre_softmax",
       [](auto& c) { c.moe.router.pre_softmax = true, c.moe.shared_expert_intermediate_size = 8; }},
      {"model.moe.first_k_dense_replace",
       [](auto& c) { c.moe.first_k_dense_replace = 1, c.moe.shared_expert_intermediate_size = 8; }},
      {"model.moe.shared_expert_intermediate_size",
       [&](auto& c) { sigmoid(c), c.moe.shared_expert_intermediate_size = 21; }},
      {"model.head_dim", [](auto& c) { c.head_dim = 8, c.moe.router.pre_softmax = true; }},
      {"model.head_dim",
       [](auto& c) { c.head_dim = 8, c.moe.shared_expert_intermediate_size = 8; }},
      {"model.moe.num_experts",
       [&](auto& c) { sigmoid(c), c.moe.num_experts = c.moe.num_experts_per_tok = 1; }},
      {"model.num_attention_heads",
       [](auto& c) { c.moe = {}, c.num_attention_heads = 5, c.num_key_value_heads = 5; }},
  };
  for (const Refused& r : all) {
    const Refusal refused = refusal([&] { hub::family_of(with(r.change)); });
    EXPECT_EQ(refused.code, ExitCode::config) << r.key;
    EXPECT_EQ(refused.what.find(std::string(r.key) + ": "), 0U) << refused.what;
  }
}

}  // namespace
}  // namespace grist::test
