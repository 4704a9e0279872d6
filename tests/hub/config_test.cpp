// config.json of others: what is read from either version's keys, what is refused, and by which
// words; and that no text whatever does worse than being refused.
#include <set>

#include "grist/core/random.h"
#include "hub/support.h"
#include "support/scale.h"

namespace grist::test {
namespace {

Json golden_config(const std::string& name) {
  return config_of(golden(name));
}

Refusal refused_with(const std::string& name, const char* key, Json value) {
  Json config = golden_config(name);
  config.set(key, std::move(value));
  return refusal([&] { hub::model_of(config, "config.json"); });
}

TEST(HubConfig, EveryGoldenIsReadAsItsFamily) {
  for (const std::string& name : kGoldens) {
    const hub::HubModel m = hub::model_of(golden_config(name), name);
    EXPECT_EQ(name.find(std::string(word(m.family))), 0U) << name;
    EXPECT_EQ(m.model.rope_theta, 5000.0);
    EXPECT_EQ(m.model.vocab_size, 48);
  }
  const hub::HubModel m = hub::model_of(golden_config("glm4_moe"), "glm4_moe");
  EXPECT_EQ(m.model.moe.shared_expert_intermediate_size, 16);
  EXPECT_EQ(m.model.moe.router.routed_scaling_factor, 1.5);
  EXPECT_TRUE(m.model.qk_norm);
}

Json without(Json config, std::string_view key) {
  std::erase_if(config.as_object(), [&](const auto& e) { return e.first == key; });
  return config;
}

TEST(HubConfig, TheNumberOfExpertsAndTheRopeBaseHaveTwoNames) {
  const Json config = golden_config("qwen3_moe");
  ASSERT_EQ(config.find("num_experts"), nullptr);  // transformers 5
  Json four = without(without(config, "num_local_experts"), "rope_parameters");
  four.set("num_experts", 6);
  four.set("rope_theta", 5000.0);
  four.set("rope_scaling", Json());
  const ModelConfig a = hub::model_of(config, "5").model, b = hub::model_of(four, "4").model;
  EXPECT_EQ(a.moe.num_experts, 6);
  EXPECT_EQ(b.moe.num_experts, 6);
  EXPECT_EQ(b.rope_theta, a.rope_theta);

  EXPECT_SAYS(refused_with("qwen3_moe", "num_experts", 7),
              "num_local_experts: 6, but num_experts is 7");
  EXPECT_SAYS(refused_with("mixtral", "rope_theta", 1e6),
              "rope_parameters.rope_theta: 5000, but rope_theta is 1000000");
}

TEST(HubConfig, WhatHasDifferentDefaultsMustBeWritten) {
  for (const auto& [name, key] : {std::pair{"mixtral", "rms_norm_eps"},
                                  {"mixtral", "rope_parameters"},
                                  {"mixtral", "num_key_value_heads"},
                                  {"qwen3", "head_dim"},
                                  {"qwen3_moe", "norm_topk_prob"},
                                  {"qwen3_moe", "num_local_experts"},
                                  {"granitemoeshared", "attention_multiplier"},
                                  {"glm4_moe", "routed_scaling_factor"}}) {
    const Refusal r =
        refusal([&] { hub::model_of(without(golden_config(name), key), "config.json"); });
    EXPECT_EQ(r.code, ExitCode::bad_data) << key;
    EXPECT_SAYS(r, "missing");
  }
}

Json scaled_rope() {
  Json j = Json::object();
  j.set("rope_type", "yarn");
  j.set("rope_theta", 5000.0);
  j.set("factor", 4.0);
  return j;
}
Json half_rope() {
  Json j = Json::object();
  j.set("rope_theta", 5000.0);
  j.set("partial_rotary_factor", 0.5);
  return j;
}

struct Wrong {
  const char* golden;
  const char* key;
  Json value;
  const char* says;
};

TEST(HubConfig, WhatGristDoesNotComputeIsRefusedByItsKey) {
  const std::vector<Wrong> all = {
      {"mixtral", "sliding_window", 4096, "sliding_window: 4096; grist attends"},
      {"llama", "hidden_act", "gelu", "hidden_act: \"gelu\""},
      {"llama", "attention_bias", true, "attention_bias: true"},
      {"llama", "mlp_bias", true, "mlp_bias: true"},
      {"llama", "rope_parameters", scaled_rope(), "rope_parameters.rope_type: \"yarn\""},
      {"llama", "rope_scaling", scaled_rope(), "rope_scaling.factor: 4.0"},
      {"glm4_moe", "rope_parameters", half_rope(), "partial_rotary_factor: 0.5"},
      {"glm4_moe", "n_group", 2, "n_group: 2"},
      {"glm4_moe", "num_nextn_predict_layers", 1, "num_nextn_predict_layers: 1"},
      {"granitemoeshared", "embedding_multiplier", 12, "embedding_multiplier: 12"},
      {"granitemoeshared", "attention_multiplier", 0.25, "attention_multiplier: 0.25"},
      {"granitemoeshared", "position_embedding_type", "nope", "position_embedding_type: \"nope\""},
      {"qwen3_moe", "decoder_sparse_step", 2, "decoder_sparse_step: 2"},
      {"qwen3_moe", "mlp_only_layers", Json::Array{Json(1)}, "mlp_only_layers: [1]"},
      {"qwen3", "layer_types", Json::Array{Json("sliding_attention")}, "sliding_attention"},
      {"qwen2_moe", "shared_expert_intermediate_size", 9, "no gate of its own"},
      {"mixtral", "quantization_config", Json::object(), "quantization_config: {}"},
      {"mixtral", "final_logit_softcapping", 30.0, "final_logit_softcapping: not known to grist"},
      {"mixtral", "num_experts_per_tok", 7, "num_experts_per_tok: 7 of 6 experts"},
      {"mixtral", "num_key_value_heads", 3, "does not divide"},
      {"mixtral", "hidden_size", 0, "hidden_size: 0; want a whole number"},
      {"mixtral", "hidden_size", "16", "hidden_size: \"16\"; want a whole number"},
      {"mixtral", "num_hidden_layers", 1e9, "num_hidden_layers"},
      {"mixtral", "model_type", "olmoe", "over all heads at once"},
      {"mixtral", "model_type", "gpt2", "model_type: \"gpt2\" is not one that grist computes"},
  };
  for (const Wrong& w : all) {
    const Refusal r = refused_with(w.golden, w.key, w.value);
    EXPECT_EQ(r.code, ExitCode::bad_data) << w.key;
    EXPECT_SAYS(r, w.says);
    EXPECT_EQ(r.what.find('\n'), std::string::npos);
  }
}

TEST(HubConfig, AllProblemsStandInOneLine) {
  Json config = golden_config("mixtral");
  config.set("sliding_window", 8);
  config.set("hidden_act", "relu");
  const Refusal r = refusal([&] { hub::model_of(config, "config.json"); });
  EXPECT_SAYS(r, "sliding_window");
  EXPECT_SAYS(r, "hidden_act");
}

// One to three edits of the text, most of them still JSON: other values, keys swapped, pieces cut.
std::string mutate(std::string s, const Random& random, std::uint64_t n) {
  static const std::vector<std::string> kValues = {
      "null",     "true", "-1",   "0",   "1e308", "9223372036854775807",
      "\"\"",     "[]",   "{}",   "0.5", "[1]",   "-0",
      "16777216", "[[[[", "\xFF", "4096"};
  std::uint64_t draw = n * 32;
  const auto below = [&](std::size_t bound) {
    return static_cast<std::size_t>(random.below(draw++, std::max<std::size_t>(bound, 1)));
  };
  for (std::size_t edits = 1 + below(3); edits > 0; --edits) {
    const std::size_t at = below(s.size());
    const std::size_t colon = s.find(": ", at);
    switch (below(6)) {
      case 0: s[at] = static_cast<char>(s[at] ^ (1 << below(7))); break;
      case 1: s.erase(at, 1 + below(9)); break;
      case 2: s.insert(at, kValues[below(kValues.size())]); break;
      default:
        if (colon == std::string::npos) break;
        s.replace(colon + 2, s.find_first_of(",\n", colon) - colon - 2,
                  kValues[below(kValues.size())]);
    }
    if (s.empty()) break;
  }
  return s;
}

TEST(HubConfig, MutationsAreReadOrRefusedNeverWorse) {
  const Random random(3, "hub config mutations");
  int accepted = 0, refused = 0;
  for (const std::string& name : kGoldens) {
    const std::string good = read_text(golden(name) / "config.json");
    const auto count = static_cast<std::uint64_t>(scaled(1500));
    for (std::uint64_t n = 0; n < count; ++n) {
      const Refusal r = refusal([&] {
        hub::model_of(Json::parse(mutate(good, random, n), "config.json"), "config.json");
      });
      ASSERT_TRUE(r.code == ExitCode::ok || r.code == ExitCode::bad_data) << r.what;
      ++(r.code == ExitCode::ok ? accepted : refused);
      ASSERT_EQ(r.what.find('\n'), std::string::npos) << r.what;
    }
  }
  tally(accepted + refused, "mutated config.json files");
  EXPECT_GT(accepted, 0);
  EXPECT_GT(refused, accepted);
}

}  // namespace
}  // namespace grist::test
